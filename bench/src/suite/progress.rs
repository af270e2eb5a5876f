//! Progress of a suite on stderr: a bar on a terminal; elsewhere a line per
//! round, and one per run that does not count, without control characters.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::words;
use crate::record::{RunRecord, Status};
use crate::units::minutes;

/// Progress over a known number of runs.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    planned: usize,
    done: usize,
    begun: Instant,
    /// Round and bout.
    place: String,
    /// How the last bout stood after its block.
    verdict: Option<String>,
    /// Runs that were done when the last line of a round was printed.
    told: usize,
}

impl Progress {
    /// Over `planned` runs.
    pub fn new(planned: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar =
                ProgressBar::with_draw_target(Some(planned as u64), ProgressDrawTarget::stderr());
            if let Ok(style) =
                ProgressStyle::with_template("{bar:20} run {pos} of {len} · {wide_msg}")
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
            place: String::new(),
            verdict: None,
            told: 0,
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
            let verdict = self.verdict.iter().map(|verdict| format!(" · {verdict}"));
            bar.set_message(format!(
                "{} · {} left · {bout} {contestant}{}",
                self.place,
                self.left(),
                verdict.collect::<String>()
            ));
        }
    }

    /// A run is over. A run that does not count gets a line at once.
    pub fn end(&mut self, record: &RunRecord) {
        self.done += 1;
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
        if record.status != Status::Valid {
            self.say(&format!("  {}", in_short(record)));
        }
    }

    /// Where in the suite the next block is.
    pub fn at(&mut self, place: String) {
        self.place = place;
    }

    /// A block is over; how its bout stands.
    pub fn block(&mut self, standing: Option<String>) {
        self.verdict = standing.or(self.verdict.take());
    }

    /// A round is over: the line for logs, if anything was run in it.
    pub fn round_is_over(&mut self) {
        if self.bar.is_none() && self.done > self.told {
            eprintln!("{}", self.line());
        }
        self.told = self.done;
    }

    fn line(&self) -> String {
        let verdict = self
            .verdict
            .iter()
            .map(|verdict| format!("; last: {verdict}"));
        format!(
            "{}: {} of {} runs, {} left{}",
            self.place,
            self.done,
            self.planned,
            self.left(),
            verdict.collect::<String>()
        )
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

fn in_short(record: &RunRecord) -> String {
    format!(
        "{} block {} {} {}: {}",
        record.bout,
        record.block,
        record.contestant,
        record.status.name(),
        words::of_run(record)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_data;

    #[test]
    fn lines_for_people() {
        let run = test_data::echo_run("server-uring", 3, 112_000.0);
        let mut progress = Progress::new(4);
        progress.at("round 1 of 2, bout 1 of 1".to_owned());
        progress.end(&run);
        progress.block(Some("echo: server-uring 1.12x".to_owned()));
        progress.block(None);
        let line = progress.line();
        assert!(
            line.starts_with(
                "round 1 of 2, bout 1 of 1: 1 of 4 runs, 0:00 left; last: echo: server-uring 1.12x"
            ),
            "{line}"
        );
        let failed = test_data::failed(run, "the server died");
        assert_eq!(
            in_short(&failed),
            "echo-64b-w1-c1000 block 3 server-uring failed: the server died"
        );
    }
}
