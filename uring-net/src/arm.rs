//! Every entry that is handed to the kernel is made here, with the argument why its memory outlives
//! it.
//!
//! The common part: an operation's memory is held by its slot in `Ring::ops` (buffers, addresses
//! and times on the heap, which stay where they are when the slot moves), and a slot is removed
//! only when its last completion is taken ([`crate::reap`]). The slabs, the pool and the wake live
//! as long as the ring; `Ring::drop` waits for the last completion, or leaks them. File descriptors
//! are no memory: a wrong one is an error, not unsoundness; that it is never a wrong one follows
//! from the ring's owning them and arming nothing on a closing socket.

#![expect(unsafe_code)]

use std::net::Shutdown;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::{mem, ptr};

use bytes::Bytes;
use io_uring::types::{CancelBuilder, DestinationSlot, Fd, Fixed, TimeoutFlags, Timespec};
use io_uring::{opcode, squeue};

use crate::completion::{OpKind, Token, ended};
use crate::ids::{OperationId, Target, UserData};
use crate::kernel::{BUFFER_GROUP, LARGE_BUFFER_GROUP};
use crate::net::LINGER_OFF;
use crate::op::{AcceptMode, Body, Destination, Handle, Op, ReceiveMode, ReceiveState};
use crate::ring::Ring;
use crate::slab::Key;

/// The most bytes one send operation asks for; the ring continues. Far below the limit of 2 GiB, so
/// that the continuation is an everyday path.
const PIECE: u32 = 16 << 20;
/// Most shutdowns of direct sockets that the kernel holds at a time: each has a descriptor.
const MOST_SHUTDOWNS: usize = 8;
/// What a poll waits for: bytes, or their end. Errors count by themselves.
const SOMETHING_TO_RECEIVE: u32 = (libc::POLLIN | libc::POLLRDHUP) as u32;

impl Ring {
    /// Arms the receive of an open socket: a multishot, or a poll.
    #[inline]
    pub(crate) fn arm_receive(&mut self, key: Key) {
        self.arm_receive_as(key, ReceiveState::Watching);
    }

    /// As [`arm_receive`](Self::arm_receive) where something should be there already: no poll is
    /// needed to know it.
    pub(crate) fn arm_receive_now(&mut self, key: Key) {
        self.arm_receive_as(key, ReceiveState::Reading);
    }

    /// Arms a receive by polls as `polled`, any other as a multishot.
    fn arm_receive_as(&mut self, key: Key, polled: ReceiveState) {
        let Some(slot) = self.sockets.get_mut(key) else {
            return;
        };
        let Some(file) = File::of(&slot.handle) else {
            return;
        };
        let (state, entry) = match slot.mode {
            ReceiveMode::Poll => (polled, polled_receive(file, polled)),
            ReceiveMode::Multishot => (ReceiveState::Armed, multishot(file, BUFFER_GROUP)),
            ReceiveMode::Large => (ReceiveState::Armed, multishot(file, LARGE_BUFFER_GROUP)),
            ReceiveMode::Once => (ReceiveState::Single, receive_one(file, 0)),
            ReceiveMode::Into => match self.destinations.get_mut(&key) {
                Some(bytes) => (ReceiveState::Single, receive_into(file, bytes)),
                None => return,
            },
        };
        let name = UserData::new(Target::Receive, key);
        let entry = entry.flags(file.flags).user_data(name.0);
        slot.receive = state;
        slot.in_flight += 1;
        self.in_flight += 1;
        // SAFETY: the buffers that the entry selects from belong to a registered pool, which
        // outlives the operation. The memory that it may point to instead is the spare capacity of
        // a vector in `self.destinations`, which is removed only when this operation's completion
        // is taken, and nobody reads or writes it before; `Ring::drop` waits for that or leaks it.
        unsafe { self.kernel.push(&entry) };
    }

    /// Starts an operation of a socket, or refuses it.
    #[inline]
    pub(crate) fn begin(&mut self, socket: Key, token: Token, body: Body) -> OperationId {
        let (slot, file) = match self.sockets.get_mut(socket) {
            Some(slot) => match File::of(&slot.handle) {
                Some(_) if slot.exclusive.is_some() => {
                    return self.refuse(token, libc::EBUSY, body);
                }
                Some(file) => (slot, file),
                // Closing.
                None => return self.refuse(token, libc::EBADF, body),
            },
            None => return self.refuse(token, libc::EBADF, body),
        };
        // The entry is made from where the operation stays: a box that moves may not be reached by
        // a pointer taken before (Stacked Borrows).
        let (key, op) = self.ops.insert_and_get(Op::new(token, body));
        let entry = entry(file, self.direct.takes_accepted(), &op.body);
        slot.in_flight += 1;
        slot.exclusive = Some(key);
        self.in_flight += 1;
        let name = UserData::new(Target::Operation, key);
        // SAFETY: the memory is that of the body, see the head of this file. A send's bytes are
        // only read by the kernel, and the slot gives no one else access to them until the last
        // completion.
        unsafe { self.kernel.push(&entry.user_data(name.0)) };
        OperationId(name)
    }

    /// Hands a quiet send to the kernel, or says why that is not done.
    #[inline]
    pub(crate) fn arm_quiet_send(&mut self, key: Key, bytes: &Bytes) -> Result<(), i32> {
        let slot = self.sockets.get(key).ok_or(libc::EBADF)?;
        let file = File::of(&slot.handle).ok_or(libc::EBADF)?;
        if slot.exclusive.is_some() {
            return Err(libc::EBUSY);
        }
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        if len > PIECE {
            return Err(libc::EMSGSIZE);
        }
        let is_kept = |kept: &Bytes| kept.as_ptr() == bytes.as_ptr() && kept.len() == bytes.len();
        if !self.quiet.last().is_some_and(is_kept) {
            self.quiet.push(bytes.clone());
        }
        // DONTWAIT: no kernel waits with it for the peer. WAITALL: less than everything counts as a
        // failure, which is not skipped.
        let entry = opcode::Send::new(file.number, bytes.as_ptr(), len)
            .flags(libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build()
            .flags(file.flags | squeue::Flags::SKIP_SUCCESS)
            .user_data(UserData::new(Target::QuietSend, key).0);
        // SAFETY: the bytes, shared and never written to, are held by `self.quiet` until the kernel
        // has taken every entry. It runs a send that must not wait (and is not linked, drained or
        // forced to be asynchronous) when it takes the entry, to its end, and does not look at the
        // bytes afterwards. `Ring::drop` drops `kernel`, and with it what was not submitted, before
        // them.
        unsafe { self.kernel.push(&entry) };
        Ok(())
    }

    /// Starts a timeout.
    pub(crate) fn begin_timeout(&mut self, token: Token, deadline: Box<Timespec>) -> OperationId {
        let key = self.ops.insert(Op::new(token, Body::Timeout { deadline }));
        self.in_flight += 1;
        self.arm_op(key);
        OperationId(UserData::new(Target::Operation, key))
    }

    /// Hands an operation that is counted to the kernel: a timeout, and again the rest of a send,
    /// an accept that the kernel ended, or a timeout that it had no memory for.
    pub(crate) fn arm_op(&mut self, key: Key) {
        let Some(op) = self.ops.get(key) else { return };
        let file = match op.body.socket() {
            None => Some(File::NONE),
            Some(socket) => self
                .sockets
                .get(socket)
                .and_then(|slot| File::of(&slot.handle)),
        };
        let Some(file) = file else {
            debug_assert!(false, "nothing is armed again on a closing socket");
            return;
        };
        let entry = entry(file, self.direct.takes_accepted(), &op.body);
        let name = UserData::new(Target::Operation, key);
        // SAFETY: as in `begin`.
        unsafe { self.kernel.push(&entry.user_data(name.0)) };
    }

    /// Asks the kernel to cancel what carries `target`. Only a failed cancellation gives a
    /// completion (which says nothing new).
    pub(crate) fn arm_cancel(&mut self, target: UserData) {
        let entry = opcode::AsyncCancel::new(target.0)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(UserData::NOTHING.0);
        // SAFETY: the entry points to no memory.
        unsafe { self.kernel.push(&entry) };
    }

    /// Asks the kernel to cancel everything.
    pub(crate) fn arm_cancel_all(&mut self) {
        let entry = opcode::AsyncCancel2::new(CancelBuilder::any().all())
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(UserData::NOTHING.0);
        // SAFETY: the entry points to no memory.
        unsafe { self.kernel.push(&entry) };
    }

    /// Has a direct socket shut down, now or when others have been. The caller has counted it with
    /// its socket.
    pub(crate) fn begin_shutdown(&mut self, socket: Key, how: Shutdown, token: Token) {
        let key = self
            .ops
            .insert(Op::new(token, Body::Shutdown { socket, how }));
        self.in_flight += 1;
        self.waiting_shutdowns.push_back(key);
        self.start_shutdowns();
    }

    /// Asks for descriptors of direct sockets, to shut those down with. Each is there from the
    /// submission until its completion is taken, so that many at a time could be too many. The
    /// kernel looks the slot up at once, in the order of submission: a later close does not change
    /// whose descriptor this is.
    pub(crate) fn start_shutdowns(&mut self) {
        while self.shutdowns < MOST_SHUTDOWNS
            && let Some(key) = self.waiting_shutdowns.pop_front()
        {
            let Some(op) = self.ops.get(key) else {
                continue;
            };
            let slot = op.body.socket().and_then(|socket| self.sockets.get(socket));
            let Some(&Handle::Direct(slot)) = slot.map(|slot| &slot.handle) else {
                // Closed while it waited. In this order: `Closed` is the last of a socket.
                let last = ended(op.token, libc::ECANCELED, OpKind::Shutdown, None);
                self.ready.push_back(last);
                self.finish(key);
                continue;
            };
            self.shutdowns += 1;
            let entry = opcode::FixedFdInstall::new(Fixed(slot), 0).build();
            let name = UserData::new(Target::Operation, key);
            // SAFETY: the entry points to no memory.
            unsafe { self.kernel.push(&entry.user_data(name.0)) };
        }
    }

    /// The kernel has never heard of them.
    pub(crate) fn drop_waiting_shutdowns(&mut self) {
        while let Some(key) = self.waiting_shutdowns.pop_front() {
            self.finish(key);
        }
    }

    /// Switches `SO_LINGER` of a direct socket off, which has no descriptor to do it with. Only a
    /// failure gives a completion (which says nothing new). Direct sockets need Linux 6.13, this
    /// 6.7.
    pub(crate) fn arm_linger_off(&mut self, slot: u32) {
        let entry = opcode::SetSockOpt::new(
            Fixed(slot),
            libc::SOL_SOCKET.cast_unsigned(),
            libc::SO_LINGER.cast_unsigned(),
            (&raw const LINGER_OFF).cast(),
            size_of::<libc::linger>() as u32,
        )
        .build()
        .flags(squeue::Flags::SKIP_SUCCESS)
        .user_data(UserData::NOTHING.0);
        // SAFETY: the entry points to a static, which is only read.
        unsafe { self.kernel.push(&entry) };
    }

    /// Gives the socket to the kernel to close. The caller has counted it.
    pub(crate) fn arm_close(&mut self, key: Key) {
        let Some(slot) = self.sockets.get_mut(key) else {
            return;
        };
        let entry = match mem::replace(&mut slot.handle, Handle::Gone) {
            Handle::Plain(fd) => opcode::Close::new(Fd(fd.into_raw_fd())).build(),
            Handle::Direct(place) => {
                slot.handle = Handle::Leaving(place);
                opcode::Close::new(Fixed(place)).build()
            }
            closing @ (Handle::Gone | Handle::Leaving(_)) => {
                slot.handle = closing;
                return;
            }
        };
        let entry = entry.user_data(UserData::new(Target::Close, key).0);
        // SAFETY: the entry points to no memory.
        unsafe { self.kernel.push(&entry) };
    }

    /// Arms the read behind the wakers, if there are any.
    pub(crate) fn arm_wake(&mut self) {
        let Some(wake) = &self.wake else { return };
        let entry = opcode::Read::new(Fd(wake.fd()), wake.count().cast(), 8)
            .build()
            .user_data(UserData::WAKE.0);
        self.in_flight += 1;
        // SAFETY: the eight bytes are boxed in `self.wake`, which is never replaced while a read is
        // in flight and outlives it as all slots do; they are in an UnsafeCell and nobody reads
        // them.
        unsafe { self.kernel.push(&entry) };
    }
}

/// What an entry calls a file by: a descriptor, or a slot of the ring's table.
#[derive(Clone, Copy)]
struct File {
    number: Fd,
    flags: squeue::Flags,
}

impl File {
    const NONE: Self = Self {
        number: Fd(-1),
        flags: squeue::Flags::empty(),
    };

    #[inline]
    fn of(handle: &Handle) -> Option<Self> {
        match handle {
            Handle::Plain(fd) => Some(Self {
                number: Fd(fd.as_raw_fd()),
                flags: squeue::Flags::empty(),
            }),
            Handle::Direct(slot) => Some(Self {
                number: Fd(slot.cast_signed()),
                flags: squeue::Flags::FIXED_FILE,
            }),
            Handle::Gone | Handle::Leaving(_) => None,
        }
    }
}

fn multishot(file: File, group: u16) -> squeue::Entry {
    opcode::RecvMulti::new(file.number, group).build()
}

/// The entry of a receive by polls: the poll, or the receive when it has fired.
fn polled_receive(file: File, state: ReceiveState) -> squeue::Entry {
    match state {
        ReceiveState::Watching => opcode::PollAdd::new(file.number, SOMETHING_TO_RECEIVE).build(),
        // The poll may have been wrong: never waits, for that is what costs memory.
        _ => receive_one(file, libc::MSG_DONTWAIT),
    }
}

fn receive_one(file: File, flags: i32) -> squeue::Entry {
    opcode::Recv::new(file.number, ptr::null_mut(), 0)
        .buf_group(BUFFER_GROUP)
        .flags(flags)
        .build()
        .flags(squeue::Flags::BUFFER_SELECT)
}

fn receive_into(file: File, destination: &mut Destination) -> squeue::Entry {
    let room = destination.bytes.spare_capacity_mut();
    let len = room.len().min(destination.most).min(PIECE as usize);
    opcode::Recv::new(file.number, room.as_mut_ptr().cast(), len as u32).build()
}

/// The entry of an operation; `direct` says where an accept puts its connections.
#[inline]
fn entry(file: File, direct: bool, body: &Body) -> squeue::Entry {
    let fd = file.number;
    let entry = match body {
        Body::Accept { mode, .. } => accept(fd, *mode, direct),
        Body::Connect { address, .. } => {
            opcode::Connect::new(fd, address.as_ptr().cast(), address.len()).build()
        }
        Body::Send { buf, at, end, .. } => {
            let bytes = &buf[*at..*end];
            let len = u32::try_from(bytes.len()).map_or(PIECE, |len| len.min(PIECE));
            // WAITALL: the kernel continues a short send by itself (5.19).
            opcode::Send::new(fd, bytes.as_ptr(), len)
                .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
                .build()
        }
        Body::SendNow { buf, .. } => {
            let len = u32::try_from(buf.len()).map_or(PIECE, |len| len.min(PIECE));
            opcode::Send::new(fd, buf.as_ptr(), len)
                .flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
                .build()
        }
        Body::Timeout { deadline } => opcode::Timeout::new(&raw const **deadline)
            .flags(TimeoutFlags::ABS)
            .build(),
        Body::Shutdown { .. } => {
            debug_assert!(false, "a shutdown has its own entry and is not armed again");
            opcode::Nop::new().build()
        }
    };
    entry.flags(file.flags)
}

fn accept(fd: Fd, mode: AcceptMode, direct: bool) -> squeue::Entry {
    // A slot of the table has no close-on-exec flag, and the kernel refuses one.
    let flags = if direct { 0 } else { libc::SOCK_CLOEXEC };
    match mode {
        AcceptMode::Multishot | AcceptMode::Ending => opcode::AcceptMulti::new(fd)
            .allocate_file_index(direct)
            .flags(flags)
            .build(),
        AcceptMode::Single => opcode::Accept::new(fd, ptr::null_mut(), ptr::null_mut())
            .file_index(direct.then(DestinationSlot::auto_target))
            .flags(flags)
            .build(),
    }
}
