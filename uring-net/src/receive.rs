//! Receiving: by a multishot, by a poll and a receive of what is there when it fires, or once.
//!
//! A receive that waits in the kernel holds an `io_kiocb` (256 B), an `io_async_msghdr` (512 B) and
//! an `async_poll` (96 B): 864 B for each connection, measured on 6.18 by `/proc/slabinfo`. A poll
//! holds the first of them only. It costs one more submission and one more completion for each
//! piece.
//!
//! Of a socket the kernel holds one entry of these at a time, all of them called
//! [`Target::Receive`], so that whichever it is can be cancelled.

#![expect(unsafe_code)]

use std::mem;

use io_uring::cqueue;

use crate::completion::{Completion, Event, OpKind, Token, ended, failure};
use crate::ids::{OperationId, SocketId, Target, UserData};
use crate::kernel::Cqe;
use crate::large::FIRST_LARGE_ID;
use crate::op::{Destination, ReceiveMode, ReceiveState};
use crate::ring::Ring;
use crate::slab::Key;

impl Ring {
    /// Receives until the end of the stream, cancelled, closed or failed:
    /// [`Received`](crate::Event::Received) for each piece, in order.
    ///
    /// When the kernel runs out of buffers the receive pauses and goes on by itself as soon as
    /// leases come back; nothing is lost.
    pub fn receive(&mut self, socket: SocketId, token: Token) -> OperationId {
        self.begin_receive(socket, ReceiveMode::Multishot, token)
    }

    /// As [`receive`](Ring::receive), but once: after one [`Received`](crate::Event::Received) the
    /// receive is over.
    pub fn receive_once(&mut self, socket: SocketId, token: Token) -> OperationId {
        self.begin_receive(socket, ReceiveMode::Once, token)
    }

    /// Receives once, and appends at most `most` bytes to `bytes`, as far as there is room without
    /// growing: [`ReceivedInto`](crate::Event::ReceivedInto), then the receive is over. At any
    /// other end of it `bytes` are dropped. Without room it fails with `EINVAL`.
    ///
    /// Meant for the rest of a long message: it needs no buffer of the ring, and no copy.
    pub fn receive_into(
        &mut self,
        socket: SocketId,
        bytes: Vec<u8>,
        most: usize,
        token: Token,
    ) -> OperationId {
        if most == 0 || bytes.capacity() == bytes.len() {
            return self.refuse_receive(token, libc::EINVAL);
        }
        let is_free = self.open(socket.0).is_some_and(|slot| slot.is_silent());
        if is_free {
            let destination = Destination { bytes, most };
            self.destinations.insert(socket.0, destination);
        }
        self.begin_receive(socket, ReceiveMode::Into, token)
    }

    fn begin_receive(&mut self, socket: SocketId, mode: ReceiveMode, token: Token) -> OperationId {
        match self.open(socket.0) {
            None => self.refuse_receive(token, libc::EBADF),
            Some(slot) if !slot.is_silent() => self.refuse_receive(token, libc::EBUSY),
            Some(slot) => {
                slot.token = token;
                slot.mode = mode;
                self.arm_receive(socket.0);
                OperationId::receive_of(socket)
            }
        }
    }

    /// As [`receive`](Ring::receive), for a socket that is expected to be silent: the kernel holds
    /// 256 bytes for it instead of 864 (Linux 6.18), and each piece costs one more entry and
    /// completion.
    ///
    /// A receive in flight, of any kind but [`receive_into`](Ring::receive_into), goes on so, under
    /// the new token: nothing is lost, and no event says so.
    pub fn receive_by_poll(&mut self, socket: SocketId, token: Token) -> OperationId {
        self.receive_as(socket, ReceiveMode::Poll, token)
    }

    /// Receives in this mode from now on.
    pub(crate) fn receive_as(
        &mut self,
        socket: SocketId,
        mode: ReceiveMode,
        token: Token,
    ) -> OperationId {
        let key = socket.0;
        let Some(slot) = self.open(key) else {
            return self.refuse_receive(token, libc::EBADF);
        };
        let state = slot.receive;
        let fills = slot.mode == ReceiveMode::Into && !slot.is_silent();
        if state == ReceiveState::Cancelling || fills {
            return self.refuse_receive(token, libc::EBUSY);
        }
        slot.token = token;
        let before = mem::replace(&mut slot.mode, mode);
        match state {
            ReceiveState::Off => self.arm_receive(key),
            ReceiveState::Armed | ReceiveState::Single if before != mode => {
                slot.receive = ReceiveState::Switching;
                self.arm_cancel(UserData::new(Target::Receive, key));
            }
            // They are armed as wanted when they have ended.
            _ => {}
        }
        OperationId::receive_of(socket)
    }

    /// A receive in flight by polls, or into large buffers, goes on as [`receive`](Ring::receive)
    /// does: one by polls from its next piece on. Otherwise nothing happens.
    #[inline]
    pub fn receive_by_multishot(&mut self, socket: SocketId) {
        let Some(slot) = self.open(socket.0) else {
            return;
        };
        match slot.mode {
            ReceiveMode::Poll => slot.mode = ReceiveMode::Multishot,
            ReceiveMode::Large => {
                slot.mode = ReceiveMode::Multishot;
                if slot.receive == ReceiveState::Armed {
                    slot.receive = ReceiveState::Switching;
                    self.arm_cancel(UserData::new(Target::Receive, socket.0));
                }
            }
            ReceiveMode::Multishot | ReceiveMode::Once | ReceiveMode::Into => {}
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
            | ReceiveState::Single
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
        self.pool.turn();
        if let Some(pool) = &self.large.pool {
            pool.turn();
        }
        if !self.starved.is_empty() {
            self.feed(self.pool.free(), |ring| ring.starved.pop_front());
        }
        if !self.large.starved.is_empty() {
            self.feed(self.large.free(), |ring| ring.large.starved.pop_front());
        }
    }

    fn feed(&mut self, mut buffers: usize, next: fn(&mut Self) -> Option<Key>) {
        while buffers > 0
            && let Some(key) = next(self)
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
        (!self.starved.is_empty() && self.pool.free() > 0)
            || (!self.large.starved.is_empty() && self.large.free() > 0)
    }

    /// A completion of a receive, or of the poll before it.
    #[inline]
    pub(crate) fn received(&mut self, key: Key, cqe: Cqe) -> Option<Completion> {
        let more = cqueue::more(cqe.flags);
        let buf = cqueue::buffer_select(cqe.flags).map(|id| {
            let len = u32::try_from(cqe.result).unwrap_or(0);
            let pool = match &self.large.pool {
                Some(pool) if id >= FIRST_LARGE_ID => pool,
                _ => &self.pool,
            };
            // SAFETY: this completion names `id`, and each completion comes here once. It is one of
            // the pool's, for the two have no number in common.
            unsafe { pool.lease(id, len) }
        });
        let slot = self.sockets.get_mut(key)?;
        if slot.is_closing() {
            // The receive is silent after `close`; the lease goes straight back.
            if !more {
                slot.receive = ReceiveState::Off;
                self.destinations.remove(&key);
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
            None if cqe.result > 0 && slot.mode == ReceiveMode::Into => {
                let received = cqe.result.unsigned_abs() as usize;
                let Destination { mut bytes, .. } = self.destinations.remove(&key)?;
                // SAFETY: the kernel has written so many bytes behind the vector's length: this is
                // the completion of the receive into its spare capacity.
                unsafe { bytes.set_len(bytes.len() + received) };
                self.receive_on(key);
                Event::ReceivedInto { bytes, received }
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

    /// The kernel gave the receive back although the stream goes on: it was a single one, one of
    /// what was there, or a multishot for which the completion queue had no room, ...
    fn receive_on(&mut self, key: Key) {
        self.leave(key);
        let Some(slot) = self.sockets.get_mut(key) else {
            return;
        };
        if slot.receive == ReceiveState::Single {
            slot.receive = ReceiveState::Off;
            return;
        }
        self.stats.rearmed += u64::from(slot.receive == ReceiveState::Armed);
        self.go_on(key, Self::arm_receive);
    }

    /// A completion of a receive without bytes: the end, or a pause.
    fn end_receive(&mut self, key: Key, result: i32) -> Option<Event> {
        self.leave(key);
        let slot = self.sockets.get_mut(key)?;
        let state = slot.receive;
        let wanted = state != ReceiveState::Cancelling && !self.dying;
        slot.receive = ReceiveState::Off;
        let event = match -result {
            0 => Some(Event::Eof),
            libc::ENOBUFS if wanted => {
                slot.receive = ReceiveState::Starved;
                self.stats.receives_starved += 1;
                match (slot.mode, &self.large.pool) {
                    (ReceiveMode::Large, Some(pool)) => {
                        pool.grow();
                        self.large.starved.push_back(key);
                    }
                    _ => {
                        self.pool.grow();
                        self.starved.push_back(key);
                    }
                }
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
        };
        if event.is_some() {
            self.destinations.remove(&key);
        }
        event
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
