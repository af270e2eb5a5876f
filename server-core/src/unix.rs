//! Unix stream sockets: the file at their path, and the connections that come in over them.
//!
//! There is no `SO_REUSEPORT` for them, and workers that accept from one socket would not get equal
//! shares: the kernel wakes the first that waits. So a thread accepts for all workers and deals the
//! connections out in turn, whatever drives the workers. What a connection costs once it is open is
//! the same as if its worker had accepted it.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use crate::listen::{LISTEN_BACKLOG, ListenError};
use crate::options::{ACCEPT_PAUSE, Settings};
use crate::system::is_out_of_descriptors;
use crate::workers::Shared;

/// The longest path, in bytes: `sun_path` has room for one more, its end (unix(7)).
pub const MAX_PATH_BYTES: usize = 107;

/// A listening socket and its file, which goes with it.
#[derive(Debug)]
pub struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Another file at the path is not ours to remove.
    file: File,
}

/// Tells one file from another: device, inode and, for inodes are used again, when it was made (the
/// time of a change of its bytes, of which it has none).
#[derive(Debug, PartialEq, Eq)]
struct File {
    device: u64,
    inode: u64,
    made: (i64, i64),
}

impl File {
    fn at(path: &Path) -> io::Result<Self> {
        let file = fs::symlink_metadata(path)?;
        Ok(Self {
            device: file.dev(),
            inode: file.ino(),
            made: (file.mtime(), file.mtime_nsec()),
        })
    }
}

impl UnixSocket {
    /// Listens at `path`. A file that a dead server has left there is replaced; its successor has
    /// the permissions that the umask leaves.
    ///
    /// # Errors
    /// A server listens there; the path is no socket's, or cannot be one's.
    pub fn listen(path: &Path) -> Result<Self, ListenError> {
        let refused = |reason| ListenError::Unix {
            path: path.to_owned(),
            reason,
        };
        let bytes = path.as_os_str().as_bytes().len();
        if bytes > MAX_PATH_BYTES {
            return Err(refused(format!(
                "the path has {bytes} bytes, and the kernel takes {MAX_PATH_BYTES}: choose a shorter \
                 one, or a relative one"
            )));
        }
        make_way(path).map_err(refused)?;
        let bind = || {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            socket.bind(&SockAddr::unix(path)?)?;
            let bound = Self {
                listener: socket.into(),
                path: path.to_owned(),
                file: File::at(path)?,
            };
            SockRef::from(&bound.listener).listen(LISTEN_BACKLOG as i32)?;
            Ok(bound)
        };
        bind().map_err(|error: io::Error| {
            refused(match error.kind() {
                ErrorKind::NotFound => "its folder does not exist: make it first".into(),
                ErrorKind::NotADirectory => {
                    "there is a file where its folder would be: choose another path".into()
                }
                ErrorKind::PermissionDenied => {
                    "not allowed to make a file there: choose another folder, or its owner".into()
                }
                _ => error.to_string(),
            })
        })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        if File::at(&self.path).is_ok_and(|found| found == self.file) {
            // An error leaves a file that the next server replaces.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes the file of a dead server.
fn make_way(path: &Path) -> Result<(), String> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        // What else is wrong with the path is said when it is bound.
        Err(_) => return Ok(()),
    };
    if !found.file_type().is_socket() {
        return Err(
            "there is a file or folder, no socket: remove it yourself, or choose another path"
                .into(),
        );
    }
    match ask(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path)
            .map_err(|error| format!("the file of a dead server cannot be removed: {error}")),
        // Without waiting: EAGAIN says that its queue is full.
        Ok(()) => Err(in_use()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(in_use()),
        Err(error) => Err(format!(
            "there is a socket, and whether a server listens on it cannot be told: {error}"
        )),
    }
}

fn in_use() -> String {
    "it is in use: a server listens there; stop it (`ss -lxp` names it), or choose another path"
        .into()
}

/// Connects, to see whether anybody listens.
fn ask(path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)
}

/// Starts a thread for each socket, which gives its connections to the workers in turn, until the
/// drain shuts the socket down. `give` hands one to a worker, and fails as an accept does.
///
/// # Errors
/// A thread could not be started, or there is no descriptor for its handle of the socket.
pub fn accept<S, M>(
    server: &Arc<S>,
    sockets: &[UnixSocket],
    give: impl Fn(usize, UnixStream) -> io::Result<()> + Clone + Send + 'static,
) -> io::Result<()>
where
    S: Deref<Target = Shared<M>> + Send + Sync + 'static,
{
    for socket in sockets {
        let (server, give) = (Arc::clone(server), give.clone());
        let listener = socket.listener.try_clone()?;
        thread::Builder::new()
            .name("unix-accept".into())
            .spawn(move || accept_all(&server, &listener, give))?;
    }
    Ok(())
}

fn accept_all<M>(
    server: &Shared<M>,
    listener: &UnixListener,
    give: impl Fn(usize, UnixStream) -> io::Result<()>,
) {
    let mut in_turn = (0..server.settings.workers).cycle();
    loop {
        let served = listener.accept().and_then(|(stream, _)| {
            let worker = in_turn.next().unwrap_or(0);
            server.shortage.accepted();
            server.counters.worker(worker).connections_accepted.add(1);
            give(worker, stream)
        });
        match served {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                // Not in accept itself, which takes a descriptor before it waits.
                let mut events = [PollFd::new(listener, PollFlags::IN)];
                // An interruption is as good as a connection: accept looks again.
                let _ = poll(&mut events, None);
            }
            // Shut down.
            Err(error) if error.kind() == ErrorKind::InvalidInput => return,
            Err(error) => {
                server.counters.worker(0).accept_errors.add(1);
                if is_out_of_descriptors(&error) {
                    server.shortage.failed(&error);
                    // Descriptors may also come free elsewhere.
                    server.alive.wait_for_one(ACCEPT_PAUSE);
                } else {
                    tracing::debug!(%error, "a connection was lost before it was accepted");
                }
            }
        }
    }
}

/// Stops listening: what connects from now on is refused, and the accepting threads end.
pub(crate) fn stop_listening(sockets: &[UnixSocket]) {
    for UnixSocket { listener, path, .. } in sockets {
        if let Err(error) = SockRef::from(listener).shutdown(Shutdown::Both) {
            tracing::warn!(%error, "cannot stop listening on {}", path.display());
        }
    }
}

/// Connections on their way from the accepting thread to workers that look here when they are
/// woken.
#[derive(Debug)]
pub struct Handover(Vec<Mutex<Vec<UnixStream>>>);

impl Handover {
    /// To the workers of a server; without Unix sockets there is nothing to take.
    pub fn new(settings: &Settings) -> Self {
        let workers = if settings.unix.is_empty() {
            0
        } else {
            settings.workers
        };
        Self((0..workers).map(|_| Mutex::default()).collect())
    }

    /// Puts one down for a worker, which is to be woken then.
    pub fn put(&self, worker: usize, stream: UnixStream) {
        if let Some(mut waiting) = self.of(worker) {
            waiting.push(stream);
        }
    }

    /// All that wait for a worker.
    pub fn take(&self, worker: usize) -> Vec<UnixStream> {
        let waiting = self.of(worker);
        waiting.map_or_else(Vec::new, |mut waiting| std::mem::take(&mut *waiting))
    }

    fn of(&self, worker: usize) -> Option<MutexGuard<'_, Vec<UnixStream>>> {
        let waiting = self.0.get(worker)?.lock();
        Some(waiting.unwrap_or_else(PoisonError::into_inner))
    }
}
