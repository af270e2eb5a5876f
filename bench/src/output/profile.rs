//! The shares of a profile, for the terminal and for pages.

use super::table::Table;
use super::words;
use crate::config::ScenarioKind;
use crate::record::{Profile, Profiled, Share};
use crate::units::{Unit, format, grouped};

/// Below this part of the CPU time the samples may be no fair picture of it.
const COVERAGE: f64 = 0.9;

/// In a table and in the legend of a drawing.
pub fn title(share: Share) -> &'static str {
    match share {
        Share::Program => "program",
        Share::Library => "libraries, allocator",
        Share::Tcp => "kernel TCP/IP",
        Share::Softirq => "softirq: receipt",
        Share::Copy => "copy user/kernel",
        Share::IoUring => "io_uring",
        Share::Poll => "epoll, poll",
        Share::Syscall => "system calls",
        Share::Scheduling => "scheduling",
        Share::Memory => "page faults, mappings",
        Share::Other => "interrupts, other",
    }
}

/// One of what CPU time is divided by.
pub fn unit_of(profile: &Profile) -> &'static str {
    match profile.scenario.kind {
        ScenarioKind::Broadcast => "delivery",
        _ => "message",
    }
}

/// A row for each share, a column for each contestant that was sampled: its part of the samples,
/// and the CPU time per message that it stands for.
pub fn table(profile: &Profile) -> Table {
    let sampled: Vec<&Profiled> = profile.sampled().collect();
    let headings = ["CPU time in".to_owned()].into_iter();
    let headings = headings.chain(sampled.iter().map(|one| one.contestant.clone()));
    let mut table = Table::new(headings.collect(), (1..=sampled.len()).collect());
    let mut row = |title: &str, cell: &dyn Fn(&Profiled) -> String| {
        let cells = sampled.iter().map(|one| cell(one));
        table.row([title.to_owned()].into_iter().chain(cells).collect());
    };
    let time =
        |ns: Option<f64>| ns.map_or_else(|| "-".to_owned(), |ns| format(Unit::Nanoseconds, ns));
    for share in profile.shares() {
        row(title(share), &|one| {
            if one.part(share) == 0.0 {
                return "-".to_owned();
            }
            let ns = time(one.share_ns_per_message(share));
            // As wide as a digit, so that pages do not join them.
            format!("{:.1}%{ns:\u{2007}>9}", one.part(share) * 100.0)
        });
    }
    let per = unit_of(profile);
    row(&format!("all, per {per}"), &|one| {
        time(one.cpu_ns_per_message())
    });
    if sampled.iter().any(|one| one.softirqd_ns > 0) {
        row(&format!("ksoftirqd beside it, per {per}"), &|one| {
            time((one.messages > 0).then(|| one.softirqd_ns as f64 / one.messages as f64))
        });
    }
    row("per second", &|one| {
        let seconds = one.window_ns as f64 / 1e9;
        format(Unit::PerSecond, one.messages as f64 / seconds.max(1e-9))
    });
    row("samples (n)", &|one| grouped(one.samples));
    row("a share is known to", &|one| {
        format!("±{:.1} points", widest_error(one.samples) * 100.0)
    });
    row("CPU time sampled", &|one| {
        format(Unit::Share, profile.coverage(one))
    });
    row("run", &|one| one.status.name().to_owned());
    table
}

/// The 95% interval of a share of one half, to each side; all others are narrower.
fn widest_error(samples: u64) -> f64 {
    0.98 / (samples.max(1) as f64).sqrt()
}

/// What a reader must know beside the table.
pub fn notes(profile: &Profile) -> Vec<String> {
    let of_one = |one: &Profiled| {
        let name = &one.contestant;
        let mut notes: Vec<String> = Vec::new();
        if one.samples == 0 {
            notes.push(format!("{name}: no profile: {}", one.causes.join("; ")));
            return notes;
        }
        if !one.doubts.is_empty() {
            let doubts: Vec<String> = one.doubts.iter().map(words::check).collect();
            let status = one.status.name();
            notes.push(format!(
                "{name}: its run is {status}: {}",
                doubts.join("; ")
            ));
        }
        let coverage = profile.coverage(one);
        if coverage < COVERAGE {
            notes.push(format!(
                "{name}: samples were taken in {:.0}% of its CPU time only; the shares may be those \
                 of a part",
                coverage * 100.0
            ));
        }
        notes
    };
    profile.contestants.iter().flat_map(of_one).collect()
}

/// For the terminal.
pub fn terminal(profile: &Profile) -> String {
    let mut text = format!(
        "# Where the CPU time of the servers goes: {}\n\n{}\n",
        profile.scenario.name, profile.scenario.title
    );
    let table = table(profile);
    if profile.sampled().next().is_some() {
        text.push_str(&format!("\n{}", table.render()));
    }
    for note in notes(profile) {
        text.push_str(&format!("\n{note}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Check, CheckName, Status};
    use crate::test_data;

    #[test]
    fn a_share_is_a_part_and_a_time_per_message() {
        let text = terminal(&test_data::profile());
        let rows: Vec<String> = text
            .lines()
            .filter(|line| line.starts_with('|'))
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        let expected = [
            "| CPU time in | server-uring-raw |",
            "| program | 8.0% 400 ns |",
            "| kernel TCP/IP | 48.0% 2.40 µs |",
            "| softirq: receipt | 32.0% 1.60 µs |",
            "| io_uring | 12.0% 600 ns |",
            "| all, per message | 5.00 µs |",
            "| per second | 200k |",
            "| samples (n) | 5,000 |",
            "| a share is known to | ±1.4 points |",
            "| CPU time sampled | 100% |",
            "| run | valid |",
        ];
        let found: Vec<&String> = rows.iter().filter(|row| !row.contains("---")).collect();
        assert_eq!(found, expected.iter().collect::<Vec<_>>());
        let failed = "\nserver-tokio: no profile: the server exited with 3\n";
        assert!(text.contains(failed), "{text}");
    }

    #[test]
    fn doubts_and_samples_that_are_missing_are_notes() {
        let mut profile = test_data::profile();
        let one = &mut profile.contestants[0];
        one.samples = 2_500;
        one.status = Status::Doubtful;
        one.doubts = vec![Check::ok(CheckName::ServerCpu, 1.5, 1.2)];
        let notes = notes(&profile);
        assert!(
            notes[0].starts_with("server-uring-raw: its run is doubtful: "),
            "{notes:?}"
        );
        assert!(
            notes[1].contains("in 50% of its CPU time only"),
            "{notes:?}"
        );
        assert_eq!(notes.len(), 3);
    }
}
