//! What the referee says while it works, on stderr: a bar on a terminal, a line per block elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::metrics::{self, format};
use crate::record::{RunRecord, Status};

/// Progress over a known number of runs.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    planned: usize,
    done: usize,
    begun: Instant,
}

impl Progress {
    /// Over `planned` runs.
    pub fn new(planned: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar =
                ProgressBar::with_draw_target(Some(planned as u64), ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{bar:30} run {pos} of {len} · {msg}")
            {
                bar.set_style(style);
            }
            bar
        });
        Self {
            bar,
            planned,
            done: 0,
            begun: Instant::now(),
        }
    }

    /// More runs than planned: make-up blocks.
    pub fn add(&mut self, runs: usize) {
        self.planned += runs;
        if let Some(bar) = &self.bar {
            bar.set_length(self.planned as u64);
        }
    }

    /// A run begins.
    pub fn begin(&self, bout: &str, contestant: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{bout} {contestant}, {} left", self.left()));
        }
    }

    /// A run is over. A run that does not count is told at once, wherever.
    pub fn end(&mut self, record: &RunRecord) {
        self.done += 1;
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
        if record.status != Status::Valid {
            self.say(&format!("  {}", in_short(record)));
        }
    }

    /// A block is over.
    pub fn block(&mut self, runs: &[RunRecord]) {
        let Some(first) = runs.first() else { return };
        if self.bar.is_none() {
            let figures: Vec<String> = runs.iter().map(figure).collect();
            eprintln!(
                "[{}/{}] {} block {}: {} ({} left)",
                self.done,
                self.planned,
                first.bout,
                first.block,
                figures.join(", "),
                self.left()
            );
        }
    }

    /// A line above the bar.
    pub fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    /// Time left, from the runs so far.
    fn left(&self) -> String {
        if self.done == 0 {
            return "?".to_owned();
        }
        let per_run = self.begun.elapsed().as_secs_f64() / self.done as f64;
        minutes(Duration::from_secs_f64(
            per_run * self.planned.saturating_sub(self.done) as f64,
        ))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// `4:05`.
pub fn minutes(duration: Duration) -> String {
    let seconds = duration.as_secs_f64().round() as u64;
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

fn figure(record: &RunRecord) -> String {
    let key = metrics::headline(&record.scenario);
    let value = record
        .metric(key)
        .zip(metrics::find(record.scenario.kind, key));
    match (record.status, value) {
        (Status::Valid, Some((value, metric))) => {
            format!(
                "{} {} {}",
                record.contestant,
                format(metric.unit, value),
                metric.title
            )
        }
        (status, _) => format!("{} {}", record.contestant, status.name()),
    }
}

fn in_short(record: &RunRecord) -> String {
    format!(
        "{} block {} {} {}: {}",
        record.bout,
        record.block,
        record.contestant,
        record.status.name(),
        record.reasons.join("; ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canned;

    #[test]
    fn lines_for_people() {
        let run = canned::echo_run("server-uring", 3, 112_000.0);
        assert_eq!(figure(&run), "server-uring 112k echoes/s");
        let failed = canned::failed(run, "the server died");
        assert_eq!(figure(&failed), "server-uring failed");
        assert_eq!(
            in_short(&failed),
            "echo-64b-w1-c1000 block 3 server-uring failed: the server died"
        );
        assert_eq!(minutes(Duration::from_secs(245)), "4:05");
    }
}
