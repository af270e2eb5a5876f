//! Files and memory that connections need: one set of constants for the check of the machine and
//! for the layout of a scale step.

/// Files of a server or generator besides its connections: binaries, logs, epoll and io_uring
/// instances, listeners (about 40 with 64 workers), with room to spare.
pub const SPARE_FILES: u64 = 200;
/// Open files of everything else on the machine: processes of the suite, what the system opens
/// meanwhile.
pub const SPARE_FILES_OF_MACHINE: u64 = 10_000;
/// Both ends of a connection, kernel and user, with room to spare. Measured: 7 to 8 KB for servers
/// that keep next to nothing for an idle connection, 15 KB where each has a task with a buffer of
/// its own.
pub const BYTES_PER_CONNECTION: u64 = 16 * 1024;
/// Memory of everything else: server and generator without a connection, the referee, the system.
pub const SPARE_BYTES: u64 = 512 * 1024 * 1024;
