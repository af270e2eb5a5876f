//! The ring: starting, cancelling and waiting. Receiving is in [`crate::receive`]; completions are
//! taken in [`crate::reap`].

use std::collections::{HashMap, VecDeque};
use std::io;
use std::mem;
use std::net::Shutdown;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use socket2::{SockAddr, SockRef};

use crate::buffers::BufferPool;
use crate::builder::{RingBuilder, Setup};
use crate::clock::{Clock, timespec};
use crate::completion::{Completion, OpKind, SendBuf, Token, clamp, ended, shut_down};
use crate::direct::{DirectTable, Holds};
use crate::ids::{OperationId, SocketId, Target, UserData};
use crate::kernel::{BUFFER_GROUP, Kernel};
use crate::large::{LargeBuffers, LargeSize};
use crate::op::{Body, Destination, Handle, Op, ReceiveState, SocketSlot};
use crate::slab::{Key, Slab};
use crate::stats::Stats;
use crate::waker::{Wake, Waker};

/// How long a dropped ring waits for the kernel to give back what it holds.
const DROP_PATIENCE: Duration = Duration::from_secs(5);

/// One thread's io_uring, the sockets it owns and its receive buffers.
///
/// Start operations, [`wait`](Ring::wait), then take completions until there is none; operations
/// may be started while completions are being taken. Nothing reaches the kernel before
/// [`submit`](Ring::submit) or [`wait`](Ring::wait), except when the submission queue is full: then
/// the ring submits by itself.
///
/// Starting an operation never fails. What is wrong with it (a stale [`SocketId`], a second send in
/// flight on one socket) comes back as an [`Event::Failed`](crate::Event::Failed) with the buffer,
/// like any other failure.
#[derive(Debug)]
pub struct Ring {
    // Declared first, dropped first: the kernel lets go of the ring before anything it may point to
    // goes.
    pub(crate) kernel: Kernel,
    pub(crate) sockets: Slab<SocketSlot>,
    pub(crate) ops: Slab<Op>,
    pub(crate) direct: DirectTable,
    // An Rc, so that leases can keep it; it also makes the ring neither Send nor Sync, which
    // SINGLE_ISSUER demands.
    pub(crate) pool: Rc<BufferPool>,
    pub(crate) wake: Option<Wake>,
    /// Receives that wait for a buffer.
    pub(crate) starved: VecDeque<Key>,
    pub(crate) large: LargeBuffers,
    /// The bytes of quiet sends that the kernel may not have been given yet.
    pub(crate) quiet: Vec<Bytes>,
    /// Memory that receives in flight fill.
    pub(crate) destinations: HashMap<Key, Destination>,
    /// Shutdowns of direct sockets that wait for others to give back their descriptors, and how
    /// many the kernel holds.
    pub(crate) waiting_shutdowns: VecDeque<Key>,
    pub(crate) shutdowns: usize,
    /// Completions that the ring made itself; taken before the kernel's.
    pub(crate) ready: VecDeque<Completion>,
    /// The sockets of the [`Closed`](crate::Event::Closed) among them, in the same order: their
    /// places are given away again when it is taken, not before.
    pub(crate) closed: VecDeque<Key>,
    /// Operations that the kernel holds.
    pub(crate) in_flight: usize,
    pub(crate) stats: Stats,
    /// The ring is being dropped: nothing is started again.
    pub(crate) dying: bool,
    clock: Clock,
    setup: Setup,
}

impl Ring {
    pub(crate) fn new(
        kernel: Kernel,
        pool: BufferPool,
        large: LargeSize,
        setup: Setup,
        holds: Holds,
    ) -> Self {
        Self {
            kernel,
            sockets: Slab::new(),
            ops: Slab::new(),
            direct: DirectTable::new(setup.direct_slots, holds),
            pool: Rc::new(pool),
            wake: None,
            starved: VecDeque::new(),
            large: LargeBuffers::new(large),
            quiet: Vec::new(),
            destinations: HashMap::new(),
            waiting_shutdowns: VecDeque::new(),
            shutdowns: 0,
            ready: VecDeque::new(),
            closed: VecDeque::new(),
            in_flight: 0,
            stats: Stats::default(),
            dying: false,
            clock: Clock::new(),
            setup,
        }
    }

    /// Sizes and options.
    #[must_use]
    pub fn builder() -> RingBuilder {
        RingBuilder::default()
    }

    /// What the kernel granted.
    #[must_use]
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Takes ownership of a socket (made and configured with `socket2`, `std` or `rustix`) and puts
    /// it into blocking mode, without which io_uring would answer `EAGAIN` instead of waiting. The
    /// ring closes it at [`close`](Ring::close) or when the ring is dropped. With
    /// [`RingBuilder::direct_adopted`] it moves into the ring's table and loses its descriptor.
    ///
    /// # Errors
    /// When the mode cannot be set; `ENFILE` when the table has no free slot, until one is
    /// [`Closed`](crate::Event::Closed).
    pub fn adopt(&mut self, socket: impl Into<OwnedFd>) -> io::Result<SocketId> {
        let fd = socket.into();
        rustix::io::ioctl_fionbio(&fd, false)?;
        let handle = if self.direct.takes_adopted() {
            self.move_into_table(&fd)?
        } else {
            Handle::Plain(fd)
        };
        Ok(SocketId(self.sockets.insert(SocketSlot::new(handle))))
    }

    /// Whether the table has a slot for a socket to be [adopted](Ring::adopt), where such sockets
    /// move into it; one without a slot would be closed.
    #[must_use]
    pub fn can_adopt(&self) -> bool {
        !self.direct.takes_adopted() || self.direct.has_room()
    }

    fn move_into_table(&mut self, fd: &OwnedFd) -> io::Result<Handle> {
        let full = || io::Error::from_raw_os_error(libc::ENFILE);
        let slot = self.direct.choose().ok_or_else(full)?;
        match self.kernel.put_into_table(slot, fd.as_raw_fd()) {
            Ok(()) => Ok(Handle::Direct(slot)),
            Err(error) => {
                self.direct.release(slot);
                Err(error)
            }
        }
    }

    /// The socket's descriptor, for options and addresses; `None` when the id is stale, the socket
    /// is being closed, or it is a direct one and has none (see [`RingBuilder::direct`] and
    /// [`RingBuilder::direct_adopted`]).
    #[must_use]
    pub fn fd(&self, socket: SocketId) -> Option<BorrowedFd<'_>> {
        match &self.sockets.get(socket.0)?.handle {
            Handle::Plain(fd) => Some(fd.as_fd()),
            Handle::Direct(_) | Handle::Gone | Handle::Leaving(_) => None,
        }
    }

    /// Accepts connections on a listening socket until cancelled, closed or failed:
    /// [`Accepted`](crate::Event::Accepted) for each.
    ///
    /// Accepted sockets are owned by the ring. After a [`Failed`](crate::Event::Failed) (`EMFILE`,
    /// ...) the accept is over; call again to go on. The limit on open files counts as it was when
    /// the accept was started. `ENFILE` also when all slots for direct sockets are taken, until one
    /// is [`Closed`](crate::Event::Closed): peers that connect meanwhile wait in the listener's
    /// queue.
    pub fn accept(&mut self, listener: SocketId, token: Token) -> OperationId {
        let socket = listener.0;
        match self.direct.accept_mode() {
            Some(mode) => self.begin(socket, token, Body::Accept { socket, mode }),
            None => {
                self.ready
                    .push_back(ended(token, libc::ENFILE, OpKind::Accept, None));
                OperationId::STALE
            }
        }
    }

    /// Connects: [`Connected`](crate::Event::Connected), or [`Failed`](crate::Event::Failed). The
    /// address is a `std::net::SocketAddr`, or of another family that the socket has
    /// ([`SockAddr::unix`]).
    pub fn connect(
        &mut self,
        socket: SocketId,
        address: impl Into<SockAddr>,
        token: Token,
    ) -> OperationId {
        let socket = socket.0;
        let address = Box::new(address.into());
        self.begin(socket, token, Body::Connect { socket, address })
    }

    /// Sends all of `buf`: one [`Sent`](crate::Event::Sent) when the kernel has taken the last
    /// byte.
    ///
    /// One send may be in flight per socket; another one fails with `EBUSY` (two could interleave
    /// when one is short).
    pub fn send(&mut self, socket: SocketId, buf: impl Into<SendBuf>, token: Token) -> OperationId {
        self.send_range(socket, buf, 0..usize::MAX, token)
    }

    /// As [`send`](Ring::send), but only the bytes in `range` (cut to what is there).
    pub fn send_range(
        &mut self,
        socket: SocketId,
        buf: impl Into<SendBuf>,
        range: Range<usize>,
        token: Token,
    ) -> OperationId {
        let buf = buf.into();
        let range = clamp(range, buf.len());
        let body = Body::Send {
            socket: socket.0,
            at: range.start,
            end: range.end,
            bytes: range.len(),
            buf,
        };
        self.begin(socket.0, token, body)
    }

    /// Sends what the socket takes at once: [`Sent`](crate::Event::Sent) says how many bytes that
    /// were, possibly 0. Never waits for the peer, so the buffer is back soon after the next
    /// [`submit`](Ring::submit) or [`wait`](Ring::wait), whatever the peer does.
    ///
    /// Meant for [`ReceivedBuf`](crate::ReceivedBuf): peers that do not read would otherwise hold
    /// the receive buffers of all others.
    pub fn send_now(
        &mut self,
        socket: SocketId,
        buf: impl Into<SendBuf>,
        token: Token,
    ) -> OperationId {
        let buf = buf.into();
        let body = Body::SendNow {
            socket: socket.0,
            buf,
        };
        self.begin(socket.0, token, body)
    }

    /// Sends what the socket takes at once, and gives no event where that is everything: the least
    /// that a send of the same bytes to many sockets can cost. Otherwise
    /// [`SentPart`](crate::Event::SentPart) says how much that was, or
    /// [`Failed`](crate::Event::Failed) why it failed (`EMSGSIZE`: more than 16 MiB), with the
    /// token of the socket's receive.
    ///
    /// Start no other send on the socket until this one is [settled](Ring::has_settled): behind a
    /// part of the bytes others could go.
    #[inline]
    pub fn send_quietly(&mut self, socket: SocketId, bytes: &Bytes) {
        if let Err(errno) = self.arm_quiet_send(socket.0, bytes) {
            let token = self.sockets.get(socket.0).map_or(Token(0), |s| s.token);
            self.ready
                .push_back(ended(token, errno, OpKind::Send, None));
        }
    }

    /// Whether all that can be said of [quiet sends](Ring::send_quietly) has been said: the kernel
    /// has been given them, and all completions have been taken.
    #[must_use]
    pub fn has_settled(&self) -> bool {
        self.quiet.is_empty() && !self.has_completions() && !self.kernel.has_overflown()
    }

    /// Shuts one or both directions down: [`ShutDown`](crate::Event::ShutDown). Wait for the last
    /// [`Sent`](crate::Event::Sent) first. One shutdown may be in flight per socket.
    ///
    /// Not through io_uring's own operation: that runs on a thread of the kernel's pool, which
    /// looks the descriptor, or the slot, up when it gets there. By then the socket may be closed
    /// and its descriptor another connection's. So this is the system call; a direct socket gets a
    /// descriptor for it, a few of them at a time: a table is for processes with few descriptors.
    pub fn shutdown(&mut self, socket: SocketId, how: Shutdown, token: Token) {
        let key = socket.0;
        let outcome = match self.open(key) {
            None => Err(io::Error::from_raw_os_error(libc::EBADF)),
            Some(slot) => match &slot.handle {
                Handle::Plain(fd) => SockRef::from(fd).shutdown(how),
                Handle::Direct(_) if slot.shutting_down => {
                    Err(io::Error::from_raw_os_error(libc::EBUSY))
                }
                Handle::Direct(_) => {
                    slot.shutting_down = true;
                    slot.in_flight += 1;
                    return self.begin_shutdown(key, how, token);
                }
                Handle::Gone | Handle::Leaving(_) => Err(io::Error::from_raw_os_error(libc::EBADF)),
            },
        };
        self.ready.push_back(Completion {
            token,
            event: shut_down(outcome),
        });
    }

    /// From now on a close of the socket delivers what was sent, and then the end of the stream.
    /// For accepted sockets whose listener had `SO_LINGER` of 0, which they inherit: their close
    /// resets the connection and discards what the peer has not got yet.
    ///
    /// Gives no completion. A stale id is ignored.
    pub fn deliver_on_close(&mut self, socket: SocketId) {
        let Some(slot) = self.open(socket.0) else {
            return;
        };
        match &slot.handle {
            // An error would mean that it is no socket.
            Handle::Plain(fd) => drop(SockRef::from(fd).set_linger(None)),
            &Handle::Direct(place) => self.arm_linger_off(place),
            Handle::Gone | Handle::Leaving(_) => {}
        }
    }

    /// Closes the socket and cancels what is in flight on it. The id is stale from now on.
    ///
    /// A receive ends silently and what it had still to say is dropped; every other operation in
    /// flight gives its one completion (a send returns its buffer); then comes
    /// [`Closed`](crate::Event::Closed), the last completion for this socket.
    pub fn close(&mut self, socket: SocketId, token: Token) {
        let key = socket.0;
        let Some(slot) = self.open(key) else {
            self.ready
                .push_back(ended(token, libc::EBADF, OpKind::Close, None));
            return;
        };
        slot.token = token;
        slot.in_flight += 1;
        let armed = slot.receive.in_kernel();
        if !armed {
            // Starved: the entry in the queue finds the socket closing.
            slot.receive = ReceiveState::Off;
        }
        let exclusive = slot.exclusive;
        self.in_flight += 1;
        // In this order the kernel has ended the operations before it closes, so that the close is
        // the last reference to the socket.
        if armed {
            self.arm_cancel(UserData::new(Target::Receive, key));
        }
        if let Some(op) = exclusive {
            self.cancel_op(op);
        }
        self.arm_close(key);
    }

    /// Gives one [`TimedOut`](crate::Event::TimedOut) at `deadline` or soon after it, never before
    /// it.
    pub fn timeout(&mut self, deadline: Instant, token: Token) -> OperationId {
        self.begin_timeout(token, Box::new(self.clock.monotonic(deadline)))
    }

    /// Cancels an operation. It still gives exactly one last completion:
    /// [`Cancelled`](crate::Event::Cancelled), or its ordinary one if that came first. Events of a
    /// receive that arrived before are still delivered. A stale id is ignored; the id of a receive
    /// names the receive of that socket, whichever is in flight.
    pub fn cancel(&mut self, operation: OperationId) {
        let key = operation.0.key();
        match operation.0.target() {
            Target::Receive => self.cancel_receive(key),
            Target::Operation => self.cancel_op(key),
            Target::Nothing | Target::Close | Target::Wake | Target::QuietSend => {}
        }
    }

    /// A handle with which other threads wake this ring; each wake gives
    /// [`Woken`](crate::Event::Woken) with `token`. All wakers of a ring are one: a second call
    /// changes the token.
    ///
    /// # Errors
    /// When no eventfd can be made.
    pub fn waker(&mut self, token: Token) -> io::Result<Waker> {
        if let Some(wake) = &mut self.wake {
            wake.token = token;
            return Ok(wake.waker());
        }
        let wake = Wake::new(token)?;
        let waker = wake.waker();
        self.wake = Some(wake);
        self.arm_wake();
        Ok(waker)
    }

    /// Hands everything that was started to the kernel, without waiting and without reaping.
    ///
    /// # Errors
    /// What `io_uring_enter` says, apart from what the ring can ride out by itself.
    pub fn submit(&mut self) -> io::Result<()> {
        self.feed_starved();
        let outcome = self.kernel.submit();
        self.forget_quiet_sends();
        outcome
    }

    /// Hands everything that was started to the kernel and waits until `min` completions are there,
    /// `deadline` passes or a signal arrives. `min` 0 polls: it lets finished work complete and
    /// returns at once.
    ///
    /// May return early, and with fewer completions to take than `min`: always take them until
    /// there is none, and look at the clock.
    ///
    /// # Errors
    /// What `io_uring_enter` says, apart from a passed deadline, a signal and what the ring can
    /// ride out by itself.
    pub fn wait(&mut self, min: usize, deadline: Option<Instant>) -> io::Result<()> {
        self.wait_batch(min, Duration::ZERO, deadline)
    }

    /// As [`wait`](Ring::wait), but after `patience` one completion is enough: batches under load,
    /// answers when idle. Before 6.12 it waits for one.
    ///
    /// # Errors
    /// As [`wait`](Ring::wait).
    pub fn wait_batch(
        &mut self,
        min: usize,
        patience: Duration,
        deadline: Option<Instant>,
    ) -> io::Result<()> {
        self.feed_starved();
        let absolute = self.kernel.absolute();
        let deadline = deadline.map(|deadline| {
            if absolute {
                self.clock.monotonic(deadline)
            } else {
                timespec(deadline.saturating_duration_since(Instant::now()))
            }
        });
        let (min, patience) = match patience {
            _ if !self.ready.is_empty() || self.feedable() => (0, 0),
            Duration::ZERO => (min, 0),
            _ if !absolute => (min.min(1), 0),
            patience => (min, u32::try_from(patience.as_micros()).unwrap_or(u32::MAX)),
        };
        let outcome = self.kernel.wait(min, patience, deadline.as_ref());
        self.forget_quiet_sends();
        outcome
    }

    /// Lets go of the bytes of quiet sends that the kernel has been given: it has sent them.
    #[inline]
    fn forget_quiet_sends(&mut self) {
        if !self.quiet.is_empty() && self.kernel.has_submitted_all() {
            self.quiet.clear();
        }
    }

    /// Whether [`next_completion`](Ring::next_completion) would find something without entering the
    /// kernel. With deferred task work the kernel completes nothing by itself: poll with
    /// [`wait`](Ring::wait) of 0 in between.
    #[must_use]
    pub fn has_completions(&self) -> bool {
        !self.ready.is_empty() || self.kernel.ready()
    }

    /// Frees what memory was needed for more sockets and operations than there are now. Costs time
    /// for each of those there once were: for when most have gone.
    pub fn shrink_to_fit(&mut self) {
        self.release_buffers();
        self.destinations.shrink_to_fit();
        self.sockets.shrink_to_fit();
        self.ops.shrink_to_fit();
        self.direct.shrink_to_fit();
        self.quiet.shrink_to_fit();
        self.starved.shrink_to_fit();
        self.waiting_shutdowns.shrink_to_fit();
        self.ready.shrink_to_fit();
        self.closed.shrink_to_fit();
    }

    /// How often the ring entered the kernel, and how often it had to help itself.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            enters: self.kernel.enters,
            sq_full: self.kernel.forced,
            cq_overflows: self.kernel.overflows,
            ..self.stats
        }
    }
}

impl Ring {
    /// The socket, if the id is not stale and it is not being closed.
    #[inline]
    pub(crate) fn open(&mut self, key: Key) -> Option<&mut SocketSlot> {
        self.sockets.get_mut(key).filter(|slot| !slot.is_closing())
    }

    #[cold]
    pub(crate) fn refuse(&mut self, token: Token, errno: i32, body: Body) -> OperationId {
        let op = body.kind();
        let buf = match body {
            Body::Send { buf, .. } | Body::SendNow { buf, .. } => Some(buf),
            _ => None,
        };
        self.ready.push_back(ended(token, errno, op, buf));
        OperationId::STALE
    }

    fn cancel_op(&mut self, key: Key) {
        if let Some(op) = self.ops.get_mut(key) {
            op.cancelled = true;
            self.arm_cancel(UserData::new(Target::Operation, key));
        }
    }
}

impl Drop for Ring {
    /// Cancels everything and waits until the kernel holds nothing any more; only then may buffers
    /// be freed, for a closed ring goes on working in the background for a while. Should the kernel
    /// not give back all (no such case is known), what it may still touch is leaked.
    fn drop(&mut self) {
        self.dying = true;
        self.starved.clear();
        self.large.starved.clear();
        self.drop_waiting_shutdowns();
        let patience = Instant::now() + DROP_PATIENCE;
        while self.in_flight > 0 {
            let now = Instant::now();
            if now >= patience {
                break;
            }
            self.arm_cancel_all();
            let turn = now + Duration::from_millis(100);
            if self.wait(1, Some(turn)).is_err() {
                break;
            }
            while let Some(completion) = self.next_completion() {
                drop(completion);
            }
        }
        if self.in_flight > 0 {
            mem::forget(mem::replace(&mut self.ops, Slab::new()));
            mem::forget(mem::take(&mut self.destinations));
            mem::forget(self.wake.take());
        }
        if self.direct.exists() {
            // The kernel would do it, too, but some time later; peers are to see the end at once.
            let _ = self.kernel.unregister_table();
        }
        let in_use = self.in_flight > 0;
        if in_use || self.kernel.unregister_buffers(BUFFER_GROUP).is_err() {
            mem::forget(Rc::clone(&self.pool));
        }
        self.large.end(&self.kernel, in_use);
    }
}
