//! Receiving: by a multishot, or by a poll and a receive of what is there when it fires.
//!
//! A receive that waits in the kernel holds an `io_kiocb` (256 B), an `io_async_msghdr` (512 B) and
//! an `async_poll` (96 B): 864 B for each connection, measured on 6.18 by `/proc/slabinfo`. A poll
//! holds the first of them only. It costs one more submission and one more completion for each
//! piece.
//!
//! Of a socket the kernel holds one entry of these at a time, all of them called
//! [`Target::Receive`], so that whichever it is can be cancelled.

#![expect(unsafe_code)]

use io_uring::cqueue;

use crate::completion::{Completion, Event, OpKind, Token, ended, failure};
use crate::ids::{OperationId, SocketId, Target, UserData};
use crate::kernel::Cqe;
use crate::op::{ReceiveMode, ReceiveState};
use crate::ring::Ring;
use crate::slab::Key;

impl Ring {
    /// Receives until the end of the stream, cancelled, closed or failed:
    /// [`Received`](crate::Event::Received) for each piece, in order.
    ///
    /// When the kernel runs out of buffers the receive pauses and goes on by itself as soon as
    /// leases come back; nothing is lost.
    pub fn receive(&mut self, socket: SocketId, token: Token) -> OperationId {
        match self.open(socket.0) {
            None => self.refuse_receive(token, libc::EBADF),
            Some(slot) if slot.receive != ReceiveState::Off => {
                self.refuse_receive(token, libc::EBUSY)
            }
            Some(slot) => {
                slot.token = token;
                slot.mode = ReceiveMode::Multishot;
                self.arm_receive(socket.0);
                OperationId::receive_of(socket)
            }
        }
    }

    /// As [`receive`](Ring::receive), for a socket that is expected to be silent: the kernel holds
    /// 256 bytes for it instead of 864 (Linux 6.18), and each piece costs one more entry and
    /// completion.
    ///
    /// A receive in flight, of either kind, goes on so, under the new token: nothing is lost, and
    /// no event says so.
    pub fn receive_by_poll(&mut self, socket: SocketId, token: Token) -> OperationId {
        let key = socket.0;
        let Some(slot) = self.open(key) else {
            return self.refuse_receive(token, libc::EBADF);
        };
        let state = slot.receive;
        if state == ReceiveState::Cancelling {
            return self.refuse_receive(token, libc::EBUSY);
        }
        slot.token = token;
        slot.mode = ReceiveMode::Poll;
        match state {
            ReceiveState::Off => self.arm_receive(key),
            ReceiveState::Armed => {
                slot.receive = ReceiveState::Switching;
                self.arm_cancel(UserData::new(Target::Receive, key));
            }
            // They are armed as wanted when they have ended.
            ReceiveState::Watching
            | ReceiveState::Reading
            | ReceiveState::Switching
            | ReceiveState::Starved
            | ReceiveState::Cancelling => {}
        }
        OperationId::receive_of(socket)
    }

    /// A receive in flight by polls goes on as [`receive`](Ring::receive) does, from its next piece
    /// on. Otherwise nothing happens.
    #[inline]
    pub fn receive_by_multishot(&mut self, socket: SocketId) {
        if let Some(slot) = self.open(socket.0) {
            slot.mode = ReceiveMode::Multishot;
        }
    }

    #[cold]
    fn refuse_receive(&mut self, token: Token, errno: i32) -> OperationId {
        self.ready
            .push_back(ended(token, errno, OpKind::Receive, None));
        OperationId::STALE
    }

    pub(crate) fn cancel_receive(&mut self, key: Key) {
        let Some(slot) = self.open(key) else { return };
        match slot.receive {
            ReceiveState::Armed
            | ReceiveState::Watching
            | ReceiveState::Reading
            | ReceiveState::Switching => {
                slot.receive = ReceiveState::Cancelling;
                self.arm_cancel(UserData::new(Target::Receive, key));
            }
            ReceiveState::Starved => self.end_cancelled(key),
            ReceiveState::Off | ReceiveState::Cancelling => {}
        }
    }

    /// Arms starved receives again, at most as many as there are buffers, in the order in which
    /// they starved. Those behind them wait for the next turn, also when the ones that were armed
    /// have nothing to receive: so a wait must not sleep while
    /// [`feedable`](Self::feedable).
    #[inline]
    pub(crate) fn feed_starved(&mut self) {
        if self.starved.is_empty() {
            return;
        }
        let mut buffers = self.pool.free();
        while buffers > 0
            && let Some(key) = self.starved.pop_front()
        {
            // It may have been cancelled or closed meanwhile, or even have starved again under a
            // newer entry.
            if let Some(slot) = self.open(key)
                && slot.receive == ReceiveState::Starved
            {
                self.arm_receive_now(key);
                buffers -= 1;
            }
        }
    }

    /// Whether a starved receive can be armed in the next turn.
    #[inline]
    pub(crate) fn feedable(&self) -> bool {
        !self.starved.is_empty() && self.pool.free() > 0
    }

    /// A completion of a receive, or of the poll before it.
    #[inline]
    pub(crate) fn received(&mut self, key: Key, cqe: Cqe) -> Option<Completion> {
        let more = cqueue::more(cqe.flags);
        let buf = cqueue::buffer_select(cqe.flags).map(|id| {
            let len = u32::try_from(cqe.result).unwrap_or(0);
            // SAFETY: this completion names `id`, and each completion comes here once.
            unsafe { self.pool.lease(id, len) }
        });
        let slot = self.sockets.get_mut(key)?;
        if slot.is_closing() {
            // The receive is silent after `close`; the lease goes straight back.
            if !more {
                slot.receive = ReceiveState::Off;
                self.leave(key);
            }
            return None;
        }
        let token = slot.token;
        let event = match buf {
            Some(buf) if cqe.result > 0 => {
                if !more {
                    self.receive_on(key);
                }
                Event::Received(buf)
            }
            None if cqe.result > 0 => {
                // Bytes come in a buffer, so this is a poll that has fired.
                self.leave(key);
                self.go_on(key, Self::arm_receive_now);
                return None;
            }
            _ => {
                debug_assert!(!more, "only bytes leave a multishot receive armed");
                self.end_receive(key, cqe.result)?
            }
        };
        Some(Completion { token, event })
    }

    /// The kernel gave the receive back although the stream goes on: it was one of what was there,
    /// or a multishot for which the completion queue had no room, ...
    fn receive_on(&mut self, key: Key) {
        self.leave(key);
        let armed = self.sockets.get(key).map(|slot| slot.receive);
        self.stats.rearmed += u64::from(armed == Some(ReceiveState::Armed));
        self.go_on(key, Self::arm_receive);
    }

    /// A completion of a receive without bytes: the end, or a pause.
    fn end_receive(&mut self, key: Key, result: i32) -> Option<Event> {
        self.leave(key);
        let slot = self.sockets.get_mut(key)?;
        let state = slot.receive;
        let wanted = state != ReceiveState::Cancelling && !self.dying;
        slot.receive = ReceiveState::Off;
        match -result {
            0 => Some(Event::Eof),
            libc::ENOBUFS if wanted => {
                slot.receive = ReceiveState::Starved;
                self.stats.receives_starved += 1;
                self.starved.push_back(key);
                None
            }
            libc::EINTR if wanted => {
                self.stats.rearmed += 1;
                self.arm_receive(key);
                None
            }
            // The poll was wrong.
            libc::EAGAIN if wanted && state == ReceiveState::Reading => {
                self.arm_receive(key);
                None
            }
            // The ring has cancelled the multishot, to go on by polls, or the kernel has: Linux 6.0
            // did so to a multishot when the completion queue was full.
            libc::ECANCELED if wanted => {
                self.arm_receive(key);
                None
            }
            libc::EAGAIN | libc::ECANCELED | libc::ENOBUFS | libc::EINTR if !wanted => {
                Some(failure(-libc::ECANCELED, OpKind::Receive, None))
            }
            _ => Some(failure(result, OpKind::Receive, None)),
        }
    }

    /// Has `arm` arm the receive again, unless it was cancelled.
    fn go_on(&mut self, key: Key, arm: fn(&mut Self, Key)) {
        let state = self.sockets.get(key).map(|slot| slot.receive);
        if state == Some(ReceiveState::Cancelling) || self.dying {
            self.end_cancelled(key);
        } else {
            arm(self, key);
        }
    }

    #[cold]
    fn end_cancelled(&mut self, key: Key) {
        if let Some(slot) = self.sockets.get_mut(key) {
            slot.receive = ReceiveState::Off;
            let last = ended(slot.token, libc::ECANCELED, OpKind::Receive, None);
            self.ready.push_back(last);
        }
    }
}
