//! Why a ring could not be made, and what to do about it.

use std::fmt;
use std::fs;
use std::io;

/// Why a ring could not be made. `Display` is one line that names what was tried, the cause and the
/// remedy.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}: {cause}; {}", cause.remedy())]
pub struct SetupError {
    /// What was attempted.
    pub step: Step,
    /// Why it was refused, as far as that can be known.
    pub cause: Cause,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

/// The steps of making a ring, as what could not be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Step {
    /// `io_uring_setup`.
    #[error("cannot set up io_uring")]
    Setup,
    /// Asking which operations there are.
    #[error("cannot ask io_uring for its operations")]
    Probe,
    /// Mapping the memory of the receive buffers.
    #[error("cannot map receive buffers")]
    Buffers,
    /// Registering the ring of provided buffers.
    #[error("cannot register a provided-buffer ring")]
    BufferRing,
    /// Registering the table of direct descriptors.
    #[error("cannot register a table of direct descriptors")]
    Table,
}

/// Why the kernel refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// The system call does not exist (`ENOSYS`).
    #[error("this kernel has no io_uring, or a sandbox hides it")]
    NotBuilt,
    /// `kernel.io_uring_disabled` is 2.
    #[error("io_uring is switched off (kernel.io_uring_disabled=2)")]
    DisabledForAll,
    /// `kernel.io_uring_disabled` is 1 and the process is neither privileged nor in
    /// `kernel.io_uring_group`.
    #[error("io_uring is for the privileged only (kernel.io_uring_disabled=1)")]
    DisabledForUnprivileged,
    /// `EPERM` or `EACCES` although the sysctl allows it: a seccomp filter or a security module, as
    /// containers have.
    #[error(
        "a seccomp filter or security module forbids io_uring (kernel.io_uring_disabled does not)"
    )]
    Filtered,
    /// `ENOMEM` or `EAGAIN`.
    #[error("not enough memory that may be locked")]
    Memory,
    /// `EMFILE` or `ENFILE`.
    #[error("the limit on open files does not allow it")]
    Descriptors,
    /// The kernel is too old.
    #[error("{feature} needs Linux {since}{}", this_is(*running))]
    TooOld {
        /// What is missing.
        feature: &'static str,
        /// The version that brought it.
        since: KernelVersion,
        /// The running kernel, if it could be read.
        running: Option<KernelVersion>,
    },
    /// An operation is missing although the kernel is new enough.
    #[error("the operation {operation} is not allowed here")]
    Restricted {
        /// Which.
        operation: &'static str,
    },
    /// Anything else.
    #[error("for a reason unknown to this program")]
    Unknown,
}

fn this_is(running: Option<KernelVersion>) -> String {
    running.map_or_else(String::new, |running| format!(", this is {running}"))
}

impl Cause {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Cause::NotBuilt => {
                "use a kernel built with CONFIG_IO_URING (6.1 or newer); in a container or under gVisor, run on the host or use a seccomp profile that lets io_uring_setup, io_uring_enter and io_uring_register through"
            }
            Cause::DisabledForAll => "as root: sysctl kernel.io_uring_disabled=0",
            Cause::DisabledForUnprivileged => {
                "as root: sysctl kernel.io_uring_disabled=0, or put the user's group into kernel.io_uring_group, or run with CAP_SYS_ADMIN"
            }
            Cause::Filtered => {
                "let io_uring_setup, io_uring_enter and io_uring_register through (docker: --security-opt seccomp=PROFILE or =unconfined; systemd: SystemCallFilter=@io-event or the three calls by name)"
            }
            Cause::Memory => {
                "use smaller rings or buffers, free memory, or raise RLIMIT_MEMLOCK (ulimit -l) or the memory cgroup's limit"
            }
            Cause::Descriptors => "raise the limit on open files (ulimit -n, fs.file-max)",
            Cause::TooOld { since, .. } if *since > KernelVersion::MINIMUM => {
                "use Linux 6.13 or newer, or do without direct descriptors"
            }
            Cause::TooOld { .. } => "use Linux 6.1 or newer",
            Cause::Restricted { .. } => "lift the restriction on io_uring operations",
            Cause::Unknown => "see io_uring_setup(2) and io_uring_register(2) for this error",
        }
    }
}

/// Major and minor version of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion {
    /// 6 in 6.1.
    pub major: u32,
    /// 1 in 6.1.
    pub minor: u32,
}

impl KernelVersion {
    /// The oldest kernel with everything this crate needs: `DEFER_TASKRUN` came last.
    pub const MINIMUM: Self = Self { major: 6, minor: 1 };

    /// The oldest kernel for direct sockets ([`RingBuilder::direct`](crate::RingBuilder::direct)).
    /// Before it a closed one stayed open until all operations had ended that were older than the
    /// close, on any socket of the ring: with idle connections, practically for ever (commit
    /// 7029acd8a950 gave each slot a count of its own).
    pub const DIRECT: Self = Self {
        major: 6,
        minor: 13,
    };

    /// The running kernel's, from `uname`.
    #[must_use]
    pub fn running() -> Option<Self> {
        Self::parse(rustix::system::uname().release().to_str().ok()?)
    }

    /// From a release string such as `6.18.44-fc`.
    fn parse(release: &str) -> Option<Self> {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit());
        Some(Self {
            major: numbers.next()?.parse().ok()?,
            minor: numbers.next()?.parse().ok()?,
        })
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl SetupError {
    /// Explains `source` with what the system says about itself.
    #[cold]
    pub(crate) fn new(step: Step, source: io::Error) -> Self {
        let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
            .ok()
            .and_then(|text| text.trim().parse().ok());
        let errno = source.raw_os_error().unwrap_or(0);
        Self {
            step,
            cause: diagnose(step, errno, disabled, KernelVersion::running()),
            source,
        }
    }
}

/// The cause of `errno` at `step`, given the sysctl `kernel.io_uring_disabled` (6.6 and newer have
/// it) and the running kernel.
fn diagnose(
    step: Step,
    errno: i32,
    disabled: Option<i32>,
    running: Option<KernelVersion>,
) -> Cause {
    match errno {
        libc::ENOSYS => Cause::NotBuilt,
        libc::EPERM | libc::EACCES => match disabled {
            Some(2) => Cause::DisabledForAll,
            Some(1) if step == Step::Setup => Cause::DisabledForUnprivileged,
            _ => Cause::Filtered,
        },
        libc::ENOMEM | libc::EAGAIN => Cause::Memory,
        libc::EMFILE | libc::ENFILE => Cause::Descriptors,
        libc::EINVAL => {
            let (feature, since) = match step {
                Step::Probe => (
                    "IORING_REGISTER_PROBE",
                    KernelVersion { major: 5, minor: 6 },
                ),
                Step::BufferRing => (
                    "IORING_REGISTER_PBUF_RING",
                    KernelVersion {
                        major: 5,
                        minor: 19,
                    },
                ),
                Step::Table => ("IORING_RSRC_REGISTER_SPARSE", KernelVersion::DIRECT),
                Step::Setup | Step::Buffers => {
                    ("IORING_SETUP_DEFER_TASKRUN", KernelVersion::MINIMUM)
                }
            };
            if running.is_some_and(|running| running >= since) {
                Cause::Unknown
            } else {
                Cause::TooOld {
                    feature,
                    since,
                    running,
                }
            }
        }
        _ => Cause::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: Option<KernelVersion> = Some(KernelVersion {
        major: 6,
        minor: 18,
    });
    const OLD: Option<KernelVersion> = Some(KernelVersion {
        major: 5,
        minor: 15,
    });

    #[test]
    fn every_refusal_has_its_cause() {
        let too_old = |feature, since, running| Cause::TooOld {
            feature,
            since,
            running,
        };
        let table = [
            (Step::Setup, libc::ENOSYS, Some(0), NEW, Cause::NotBuilt),
            (
                Step::Setup,
                libc::EPERM,
                Some(2),
                NEW,
                Cause::DisabledForAll,
            ),
            (
                Step::Setup,
                libc::EPERM,
                Some(1),
                NEW,
                Cause::DisabledForUnprivileged,
            ),
            (Step::Setup, libc::EPERM, Some(0), NEW, Cause::Filtered),
            (Step::Setup, libc::EPERM, None, OLD, Cause::Filtered),
            (Step::Setup, libc::EACCES, Some(0), NEW, Cause::Filtered),
            (Step::BufferRing, libc::EPERM, Some(1), NEW, Cause::Filtered),
            (Step::Setup, libc::ENOMEM, Some(0), NEW, Cause::Memory),
            (Step::Buffers, libc::ENOMEM, Some(0), NEW, Cause::Memory),
            (Step::Setup, libc::EMFILE, Some(0), NEW, Cause::Descriptors),
            (Step::Setup, libc::ENFILE, Some(0), NEW, Cause::Descriptors),
            (
                Step::Setup,
                libc::EINVAL,
                None,
                OLD,
                too_old("IORING_SETUP_DEFER_TASKRUN", KernelVersion::MINIMUM, OLD),
            ),
            (
                Step::BufferRing,
                libc::EINVAL,
                None,
                OLD,
                too_old(
                    "IORING_REGISTER_PBUF_RING",
                    KernelVersion {
                        major: 5,
                        minor: 19,
                    },
                    OLD,
                ),
            ),
            (
                Step::Setup,
                libc::EINVAL,
                None,
                None,
                too_old("IORING_SETUP_DEFER_TASKRUN", KernelVersion::MINIMUM, None),
            ),
            (Step::Setup, libc::EINVAL, Some(0), NEW, Cause::Unknown),
            (Step::Setup, libc::EFAULT, Some(0), NEW, Cause::Unknown),
        ];
        for (step, errno, disabled, running, cause) in table {
            assert_eq!(
                diagnose(step, errno, disabled, running),
                cause,
                "{step:?} {errno} {disabled:?} {running:?}"
            );
        }
    }

    #[test]
    fn the_message_names_cause_and_remedy() {
        let error = SetupError {
            step: Step::Setup,
            cause: diagnose(Step::Setup, libc::EPERM, Some(2), NEW),
            source: io::Error::from_raw_os_error(libc::EPERM),
        };
        assert_eq!(
            error.to_string(),
            "cannot set up io_uring: Operation not permitted (os error 1): io_uring is switched off (kernel.io_uring_disabled=2); as root: sysctl kernel.io_uring_disabled=0"
        );
        let old = diagnose(Step::Setup, libc::EINVAL, None, OLD);
        assert_eq!(
            old.to_string(),
            "IORING_SETUP_DEFER_TASKRUN needs Linux 6.1, this is 5.15"
        );
    }

    #[test]
    fn releases_are_parsed() {
        let parse = KernelVersion::parse;
        assert_eq!(parse("6.18.44-fc-v595"), NEW);
        assert_eq!(parse("5.15"), OLD);
        assert_eq!(parse("6.1-rc3").unwrap(), KernelVersion::MINIMUM);
        assert_eq!(parse("six"), None);
        assert_eq!(parse("6"), None);
    }
}
