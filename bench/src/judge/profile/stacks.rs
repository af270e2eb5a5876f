//! Stacks as `perf script` prints them, folded: equal ones are one, with a count.

use std::collections::BTreeMap;
use std::fmt;

use super::share::share_of;
use crate::record::Share;

/// Addresses above belong to the kernel, on every architecture that it has.
const KERNEL_FROM: u64 = 1 << 63;
/// A frame without a name.
const UNKNOWN: &str = "[unknown]";
/// Behind the name of a frame of the kernel, as other tools write it.
const KERNEL: &str = "_[k]";

/// A function on a stack.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frame {
    /// Its name; of a program without symbols that of its file, in brackets.
    pub name: String,
    /// Where it is from.
    pub origin: Origin,
}

/// Where a frame is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// No function but the thread's name: the root of its stacks.
    Thread,
    /// The program's own file, or code that it made at run time.
    Program,
    /// A shared library, or the vDSO.
    Library,
    /// The kernel.
    Kernel,
    /// Nobody knows.
    Unknown,
}

/// Stacks with how often each was sampled. A stack begins with the name of its thread and ends with
/// the function that ran.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stacks(BTreeMap<Vec<Frame>, u64>);

impl Stacks {
    /// From what `perf script -F comm,tid,time,ip,sym,dso --ns` printed; samples at other times
    /// than `from_ns` to `to_ns` are left out. A line that is none of a stack is skipped.
    pub fn of_script(script: &str, from_ns: u64, to_ns: u64) -> Self {
        let mut stacks = Self::default();
        for sample in script.split("\n\n") {
            let mut lines = sample.lines().filter(|line| !line.starts_with('#'));
            let head = lines.find(|line| !line.trim().is_empty());
            let Some((thread, at_ns)) = head.and_then(sampled) else {
                continue;
            };
            let frames = lines.filter_map(frame_of_script);
            let stack = whole(thread, frames);
            if (from_ns..=to_ns).contains(&at_ns) && stack.len() > 1 {
                *stacks.0.entry(stack).or_default() += 1;
            }
        }
        stacks
    }

    /// From the text that `Display` makes of them; `None` if that is not what it is.
    pub fn of_folded(text: &str) -> Option<Self> {
        let of_line = |line: &str| {
            let (stack, count) = line.rsplit_once(' ')?;
            let mut names = stack.split(';');
            let thread = names.next()?;
            let frames = names.map(|name| Frame::of_folded(name.to_owned()));
            let stack: Vec<Frame> = [Frame::of_thread(thread)]
                .into_iter()
                .chain(frames)
                .collect();
            Some((stack, count.parse().ok()?))
        };
        text.lines().map(of_line).collect::<Option<_>>().map(Self)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&[Frame], u64)> {
        self.0
            .iter()
            .map(|(stack, count)| (stack.as_slice(), *count))
    }

    /// How many samples.
    pub fn samples(&self) -> u64 {
        self.0.values().sum()
    }

    /// Samples by what the CPU did; the sum is that of all.
    pub fn shares(&self) -> BTreeMap<Share, u64> {
        let mut shares = BTreeMap::new();
        for (stack, count) in self.iter() {
            *shares.entry(share_of(stack)).or_default() += count;
        }
        shares
    }

    /// Samples inside the kernel, and those of them whose function has no name.
    pub fn in_kernel(&self) -> (u64, u64) {
        let inner = self
            .iter()
            .filter_map(|(stack, count)| Some((stack.last()?, count)));
        let kernel = inner.filter(|(frame, _)| frame.origin == Origin::Kernel);
        kernel.fold((0, 0), |(all, unnamed), (frame, count)| {
            let nameless = if frame.name == UNKNOWN { count } else { 0 };
            (all + count, unnamed + nameless)
        })
    }
}

impl FromIterator<(Vec<Frame>, u64)> for Stacks {
    fn from_iter<I: IntoIterator<Item = (Vec<Frame>, u64)>>(stacks: I) -> Self {
        Self(stacks.into_iter().collect())
    }
}

/// A line for each stack, `thread;outermost;...;innermost COUNT`: what flame graph programs read.
impl fmt::Display for Stacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (stack, count) in self.iter() {
            let names: Vec<String> = stack.iter().map(Frame::folded).collect();
            writeln!(f, "{} {count}", names.join(";"))?;
        }
        Ok(())
    }
}

impl Frame {
    fn of_thread(name: &str) -> Self {
        Self {
            name: name.replace(';', ":"),
            origin: Origin::Thread,
        }
    }

    fn folded(&self) -> String {
        match self.origin {
            Origin::Kernel => format!("{}{KERNEL}", self.name),
            _ => self.name.clone(),
        }
    }

    fn of_folded(name: String) -> Self {
        if let Some(name) = name.strip_suffix(KERNEL) {
            return Self {
                name: name.to_owned(),
                origin: Origin::Kernel,
            };
        }
        let file = name
            .strip_suffix(']')
            .and_then(|name| name.rsplit_once('['));
        let origin = match file {
            _ if name == UNKNOWN => Origin::Unknown,
            Some((_, file)) if is_library(file) => Origin::Library,
            _ => Origin::Program,
        };
        Self { name, origin }
    }

    fn is_unknown(&self) -> bool {
        self.origin == Origin::Unknown || self.name.starts_with('[')
    }
}

/// Thread and time of a sample, out of `comm tid seconds.nanoseconds:`.
fn sampled(head: &str) -> Option<(&str, u64)> {
    let head = head.trim().strip_suffix(':')?;
    let (head, time) = head.rsplit_once(char::is_whitespace)?;
    let (thread, _tid) = head.trim_end().rsplit_once(char::is_whitespace)?;
    let (seconds, fraction) = time.split_once('.')?;
    let digits = u32::try_from(fraction.len())
        .ok()
        .filter(|digits| *digits <= 9)?;
    let (seconds, fraction): (u64, u64) = (seconds.parse().ok()?, fraction.parse().ok()?);
    let at_ns = seconds.checked_mul(1_000_000_000)? + fraction * 10_u64.pow(9 - digits);
    Some((thread.trim(), at_ns))
}

/// `address symbol (file)`.
fn frame_of_script(line: &str) -> Option<Frame> {
    let (address, rest) = line.trim().split_once(' ')?;
    let address = u64::from_str_radix(address, 16).ok()?;
    let rest = rest.trim().strip_suffix(')')?;
    let rest = rest.strip_suffix(" (deleted)").unwrap_or(rest);
    let (symbol, path) = rest.rsplit_once(" (")?;
    let file = path.rsplit('/').next().unwrap_or(path);
    let symbol = symbol.replace(';', ":");
    let is_named = symbol != UNKNOWN;
    let (name, origin) = if address >= KERNEL_FROM {
        (symbol, Origin::Kernel)
    } else if file == UNKNOWN {
        (UNKNOWN.to_owned(), Origin::Unknown)
    } else if is_library(file) {
        let name = if is_named {
            format!("{symbol} ")
        } else {
            String::new()
        };
        (
            format!("{name}[{}]", file.trim_matches(['[', ']'])),
            Origin::Library,
        )
    } else if is_named {
        (symbol, Origin::Program)
    } else {
        (
            format!("[{}]", file.trim_matches(['[', ']'])),
            Origin::Program,
        )
    };
    Some(Frame { name, origin })
}

/// `libc.so.6`, `ld-linux-x86-64.so.2`, `vdso`.
fn is_library(file: &str) -> bool {
    let file = file.trim_matches(['[', ']']);
    file == "vdso" || file.ends_with(".so") || file.contains(".so.")
}

/// The stack of a sample whose frames come with the innermost first. Programs that are built
/// without frame pointers have no callers worth the name: from the first one that is unknown on
/// they are left out.
fn whole(thread: &str, frames: impl Iterator<Item = Frame>) -> Vec<Frame> {
    let mut stack: Vec<Frame> = Vec::new();
    for frame in frames {
        let is_caller = !stack.is_empty();
        if is_caller && frame.origin != Origin::Kernel && frame.is_unknown() {
            break;
        }
        stack.push(frame);
    }
    stack.push(Frame::of_thread(thread));
    stack.reverse();
    stack
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a raw engine, tokio and a peer without symbols, as perf 6.1 printed them.
    const SCRIPT: &str = include_str!("script.txt");

    #[test]
    fn samples_of_the_window_are_folded() {
        let stacks = Stacks::of_script(SCRIPT, 36_182_842_000_000, 36_182_848_000_000);
        let text = stacks.to_string();
        let lines: Vec<&str> = text.lines().collect();
        let folded = [
            "peer-x;[peer-x] 1",
            "tokio-rt worker;<&mio::net::tcp::stream::TcpStream as std::io::Write>::write;\
             __GI___pthread_enable_asynccancel [libc.so.6] 1",
            "worker 0;server_uring::raw::event_loop::Loop::turn 1",
            "worker 0;syscall [libc.so.6];entry_SYSCALL_64_after_hwframe_[k];do_syscall_64_[k];\
             __do_sys_io_uring_enter_[k];__io_run_local_work_[k];_copy_to_iter_[k] 2",
        ];
        assert_eq!(lines, folded);
        assert_eq!((stacks.samples(), stacks.in_kernel()), (5, (2, 0)));
        assert_eq!(Stacks::of_folded(&text), Some(stacks), "nothing is lost");
    }

    #[test]
    fn samples_of_other_times_and_other_lines_are_left_out() {
        let all = Stacks::of_script(SCRIPT, 0, u64::MAX);
        assert_eq!(all.samples(), 6);
        assert_eq!(all.in_kernel(), (3, 1), "the last one has no name");
        for text in [
            "",
            "\n\n",
            "perf: lost 7 events\n\n\n",
            "a 1 x.y:\n\tzz f (g)\n",
        ] {
            assert_eq!(
                Stacks::of_script(text, 0, u64::MAX),
                Stacks::default(),
                "{text}"
            );
        }
    }

    #[test]
    fn shares_add_up_to_the_samples() {
        let stacks = Stacks::of_script(SCRIPT, 0, u64::MAX);
        let shares = stacks.shares();
        let expected = [
            (Share::Program, 2),
            (Share::Library, 1),
            (Share::Copy, 2),
            (Share::Other, 1),
        ];
        assert_eq!(shares, expected.into());
        assert_eq!(shares.values().sum::<u64>(), stacks.samples());
    }

    #[test]
    fn what_is_no_folded_text_is_refused() {
        assert_eq!(Stacks::of_folded(""), Some(Stacks::default()));
        for text in ["a;b", "a;b x\n", "a;b 1\n\n"] {
            assert_eq!(Stacks::of_folded(text), None, "{text}");
        }
    }
}
