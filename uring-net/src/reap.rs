//! From the kernel's completions to ours.

#![expect(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use io_uring::cqueue;
use socket2::SockRef;

use crate::completion::{Completion, Event, OpKind, ended, failure, outcome, sent, shut_down};
use crate::ids::{SocketId, Target, UserData};
use crate::kernel::Cqe;
use crate::op::{AcceptMode, Body, Handle, Op, SocketSlot};
use crate::ring::Ring;
use crate::slab::Key;

impl Ring {
    /// Takes one completion, if there is one; never enters the kernel unless completions
    /// overflowed.
    #[inline]
    pub fn next_completion(&mut self) -> Option<Completion> {
        loop {
            if let Some(completion) = self.ready.pop_front() {
                if matches!(completion.event, Event::Closed)
                    && let Some(key) = self.closed.pop_front()
                {
                    // Before that a new socket could be called as this one still is.
                    self.sockets.remove(key);
                }
                return Some(completion);
            }
            let cqe = self.kernel.pop()?;
            let user_data = UserData(cqe.user_data);
            let key = user_data.key();
            let completion = match user_data.target() {
                Target::Receive => self.received(key, cqe),
                Target::Operation => self.operated(key, cqe),
                Target::Close => {
                    self.closed(key);
                    None
                }
                Target::Wake => self.woken(cqe),
                Target::QuietSend => self.sent_part(key, cqe),
                Target::Nothing => None,
            };
            if completion.is_some() {
                return completion;
            }
        }
    }

    #[inline]
    fn operated(&mut self, key: Key, cqe: Cqe) -> Option<Completion> {
        let dying = self.dying;
        let op = self.ops.get_mut(key)?;
        match &mut op.body {
            Body::Accept { .. } => return self.accepted(key, cqe),
            Body::Send { at, end, .. } => {
                *at += usize::try_from(cqe.result).unwrap_or(0);
                if cqe.result > 0 && *at < *end && !op.cancelled && !dying {
                    self.stats.sends_continued += 1;
                    self.arm_op(key);
                    return None;
                }
            }
            Body::Timeout { .. } => {
                // Of memory for the timeout itself: its owner waits for nothing but this.
                if cqe.result == -libc::ENOMEM && !op.cancelled && !dying {
                    self.arm_op(key);
                    return None;
                }
            }
            Body::SendNow { .. } | Body::Connect { .. } | Body::Shutdown { .. } => {}
        }
        let op = self.finish(key)?;
        let token = op.token;
        let kind = op.body.kind();
        let event = match op.body {
            Body::Send {
                buf,
                at,
                end,
                bytes,
                ..
            } => sent(cqe.result, at == end, buf, bytes),
            Body::SendNow { buf, .. } => match cqe.result {
                bytes @ 0.. => Event::Sent {
                    buf,
                    bytes: bytes.unsigned_abs() as usize,
                },
                errno if errno == -libc::EAGAIN => Event::Sent { buf, bytes: 0 },
                errno => failure(errno, OpKind::Send, Some(buf)),
            },
            Body::Connect { .. } => outcome(cqe.result, kind, Event::Connected),
            Body::Shutdown { how, .. } => {
                let outcome = installed(cqe.result).and_then(|fd| {
                    // A descriptor for this call only; the socket stays where it is.
                    SockRef::from(&fd).shutdown(how)
                });
                self.shutdowns -= 1;
                self.start_shutdowns();
                shut_down(outcome)
            }
            Body::Timeout { .. } if cqe.result == -libc::ETIME => Event::TimedOut,
            Body::Timeout { .. } => outcome(cqe.result, kind, Event::TimedOut),
            Body::Accept { .. } => return None,
        };
        Some(Completion { token, event })
    }

    /// A quiet send has not sent everything.
    fn sent_part(&self, key: Key, cqe: Cqe) -> Option<Completion> {
        let token = self.sockets.get(key)?.token;
        let event = match cqe.result {
            bytes @ 0.. => Event::SentPart {
                bytes: bytes.unsigned_abs() as usize,
            },
            errno if errno == -libc::EAGAIN => Event::SentPart { bytes: 0 },
            errno => failure(errno, OpKind::Send, None),
        };
        Some(Completion { token, event })
    }

    fn accepted(&mut self, key: Key, cqe: Cqe) -> Option<Completion> {
        let op = self.ops.get_mut(key)?;
        let token = op.token;
        let over = op.cancelled || self.dying;
        let more = cqueue::more(cqe.flags);
        if cqe.result >= 0 {
            let handle = self.accepted_handle(cqe.result);
            let socket = SocketId(self.sockets.insert(SocketSlot::new(handle)));
            if more {
                self.spare_the_last_slots(key);
            } else if over {
                // In this order: `Closed` is the last of a socket.
                let last = ended(token, libc::ECANCELED, OpKind::Accept, None);
                self.ready.push_back(last);
                self.finish(key);
            } else if let Some(full) = self.accept_on(key) {
                self.ready.push_back(full);
            }
            let event = Event::Accepted(socket);
            return Some(Completion { token, event });
        }
        // No reason to stop: a peer gave up while it waited in the queue, the ring changes the way
        // of accepting, or the kernel did so by itself (Linux 6.0 ended a multishot so when the
        // completion queue was full).
        let transient = matches!(
            -cqe.result,
            libc::ECONNABORTED | libc::EINTR | libc::ECANCELED
        );
        if transient && !over {
            return if more { None } else { self.accept_on(key) };
        }
        self.finish(key);
        let result = if transient {
            -libc::ECANCELED
        } else {
            cqe.result
        };
        let event = failure(result, OpKind::Accept, None);
        Some(Completion { token, event })
    }

    /// Where the connection is that an accept gave `result` for.
    fn accepted_handle(&mut self, result: i32) -> Handle {
        if self.direct.takes_accepted() {
            self.direct.take();
            return Handle::Direct(result.cast_unsigned());
        }
        // SAFETY: a successful accept that was given no table has put a new descriptor into the
        // process's, named only by this completion, which comes here once.
        Handle::Plain(unsafe { OwnedFd::from_raw_fd(result) })
    }

    /// Ends a multishot accept when slots become scarce: one that finds none loses a connection.
    fn spare_the_last_slots(&mut self, key: Key) {
        if self.direct.accept_mode() != Some(AcceptMode::Multishot)
            && let Some(op) = self.ops.get_mut(key)
            && let Body::Accept { mode, .. } = &mut op.body
            && *mode == AcceptMode::Multishot
        {
            *mode = AcceptMode::Ending;
            self.arm_cancel(UserData::new(Target::Operation, key));
        }
    }

    /// Arms an accept again that the kernel has ended. When there is no slot left it fails.
    fn accept_on(&mut self, key: Key) -> Option<Completion> {
        let op = self.ops.get_mut(key)?;
        match (self.direct.accept_mode(), &mut op.body) {
            (Some(next), Body::Accept { mode, .. }) => {
                if *mode == AcceptMode::Multishot {
                    self.stats.rearmed += 1;
                }
                *mode = next;
                self.arm_op(key);
                None
            }
            _ => {
                let op = self.finish(key)?;
                Some(ended(op.token, libc::ENFILE, OpKind::Accept, None))
            }
        }
    }

    /// The kernel has closed the socket.
    fn closed(&mut self, key: Key) {
        if let Some(slot) = self.sockets.get(key)
            && let Handle::Leaving(place) = slot.handle
        {
            self.direct.release(place);
        }
        self.leave(key);
    }

    #[inline]
    fn woken(&mut self, cqe: Cqe) -> Option<Completion> {
        self.in_flight -= 1;
        if self.dying {
            return None;
        }
        let wake = self.wake.as_ref()?;
        let token = wake.token;
        if cqe.result == 8 {
            // Before the event is delivered: a wake from now on makes a new one.
            wake.take();
            self.arm_wake();
            let event = Event::Woken;
            return Some(Completion { token, event });
        }
        if matches!(
            -cqe.result,
            libc::EINTR | libc::EAGAIN | libc::ENOMEM | libc::ECANCELED
        ) {
            self.arm_wake();
        } else {
            // No kernel is known to do this. Without wakers the ring would be deaf for good.
            self.kernel.fail(-cqe.result);
        }
        None
    }

    /// Removes an operation whose last completion has been taken.
    #[inline]
    pub(crate) fn finish(&mut self, key: Key) -> Option<Op> {
        let op = self.ops.remove(key)?;
        match op.body.socket() {
            Some(socket) => {
                if let Some(slot) = self.sockets.get_mut(socket) {
                    slot.exclusive.take_if(|exclusive| *exclusive == key);
                    slot.shutting_down &= !matches!(op.body, Body::Shutdown { .. });
                }
                self.leave(socket);
            }
            None => self.in_flight -= 1,
        }
        Some(op)
    }

    /// The kernel holds one operation of this socket less. The last one of a closing socket ends
    /// the socket.
    #[inline]
    pub(crate) fn leave(&mut self, key: Key) {
        self.in_flight -= 1;
        let Some(slot) = self.sockets.get_mut(key) else {
            return;
        };
        slot.in_flight -= 1;
        if slot.is_closing() && slot.in_flight == 0 {
            let token = slot.token;
            self.closed.push_back(key);
            let event = Event::Closed;
            self.ready.push_back(Completion { token, event });
        }
    }
}

/// The descriptor that the kernel gave for a slot.
fn installed(result: i32) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    // SAFETY: the kernel has put a new descriptor into our table, named only by the completion with
    // this result, which comes here once.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::completion::Token;
    use crate::ids::OperationId;

    fn next(ring: &mut Ring) -> Event {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(completion) = ring.next_completion() {
                return completion.event;
            }
            ring.wait(1, Some(deadline)).unwrap();
            assert!(Instant::now() < deadline, "no completion came in time");
        }
    }

    /// The kernel ends an operation by itself.
    fn cancel_unasked(ring: &mut Ring, operation: OperationId) {
        ring.submit().unwrap();
        ring.arm_cancel(operation.0);
        ring.submit().unwrap();
    }

    #[test]
    fn accepts_and_receives_go_on_that_the_kernel_has_cancelled() {
        let mut ring = Ring::builder().build().unwrap();
        let std_listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = std_listener.local_addr().unwrap();
        let listener = ring.adopt(std_listener).unwrap();
        let accept = ring.accept(listener, Token(1));
        cancel_unasked(&mut ring, accept);
        let mut peer = TcpStream::connect(address).unwrap();
        let Event::Accepted(socket) = next(&mut ring) else {
            panic!("nothing accepted")
        };
        for receive in [Ring::receive, Ring::receive_by_poll] {
            let receive = receive(&mut ring, socket, Token(2));
            cancel_unasked(&mut ring, receive);
            std::io::Write::write_all(&mut peer, b"hello").unwrap();
            let event = next(&mut ring);
            assert!(matches!(&event, Event::Received(_)), "{event:?}");
            ring.cancel(receive);
            let event = next(&mut ring);
            assert!(matches!(&event, Event::Cancelled { .. }), "{event:?}");
        }
    }

    #[test]
    fn a_timeout_that_the_kernel_had_no_memory_for_is_started_again() {
        let mut ring = Ring::builder().build().unwrap();
        let deadline = Instant::now() + Duration::from_millis(20);
        let timeout = ring.timeout(deadline, Token(1));
        let cqe = Cqe {
            user_data: timeout.0.0,
            result: -libc::ENOMEM,
            flags: 0,
        };
        assert!(ring.operated(timeout.0.key(), cqe).is_none());
        assert!(matches!(next(&mut ring), Event::TimedOut));
        assert!(Instant::now() >= deadline);
    }

    #[test]
    fn a_ring_that_cannot_be_woken_says_so() {
        let mut ring = Ring::builder().build().unwrap();
        let waker = ring.waker(Token(1)).unwrap();
        ring.wait(0, None).unwrap();
        let mut fail = |errno: i32| {
            // As if it were the completion of the read, which is in flight.
            ring.in_flight += 1;
            let cqe = Cqe {
                user_data: UserData::WAKE.0,
                result: -errno,
                flags: 0,
            };
            assert!(ring.woken(cqe).is_none());
            ring.wait(0, None)
        };
        assert!(fail(libc::EINTR).is_ok());
        waker.wake();
        assert!(fail(libc::EIO).is_err());
        assert!(fail(libc::EINTR).is_err(), "for good");
    }
}
