//! Progress of a suite on stderr: on a terminal a line for each bout, drawn anew; elsewhere a line
//! after each round of a bout, and one per run that does not count, without control characters.

use std::io::{IsTerminal, stderr};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use rustix::termios::tcgetwinsize;

use super::live::{View, after_round};
use crate::output::words;
use crate::record::{RunRecord, Status};

/// What is shown of a suite, and where.
#[derive(Debug)]
pub struct Progress {
    /// What is shown.
    pub view: View,
    screen: Option<Screen>,
}

/// The lines of a terminal that are drawn anew.
#[derive(Debug, Default)]
struct Screen {
    all: MultiProgress,
    lines: Vec<ProgressBar>,
}

impl Progress {
    /// Of a suite that begins so.
    pub fn new(view: View) -> Self {
        let screen = stderr().is_terminal().then(Screen::default);
        Self { view, screen }
    }

    /// A run begins.
    pub fn begin(&mut self, bout: usize, contestant: &str) {
        self.view.now = Some((bout, contestant.to_owned()));
        self.draw();
    }

    /// A run is over. A run that does not count gets a line at once.
    pub fn end(&self, record: &RunRecord) {
        if record.status != Status::Valid {
            self.say(&format!("  {}", in_short(record)));
        }
    }

    /// A block of this bout is over, and the view renewed.
    pub fn block_is_over(&mut self, bout: usize) {
        self.draw();
        if self.screen.is_none() {
            eprintln!("{}", after_round(&self.view.bouts[bout], self.view.left));
        }
    }

    /// A line above what is drawn.
    pub fn say(&self, line: &str) {
        match &self.screen {
            Some(screen) => screen.all.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    fn draw(&mut self) {
        if let Some(screen) = &mut self.screen {
            let size = tcgetwinsize(stderr()).map(|size| (size.ws_col, size.ws_row));
            let (columns, rows) = size.ok().filter(|size| size.0 > 0).unwrap_or((80, 24));
            screen.draw(&self.view.lines(columns.into(), rows.into()));
        }
    }
}

impl Screen {
    fn draw(&mut self, lines: &[String]) {
        while self.lines.len() < lines.len() {
            let line = self.all.add(ProgressBar::no_length());
            if let Ok(style) = ProgressStyle::with_template("{wide_msg}") {
                line.set_style(style);
            }
            self.lines.push(line);
        }
        for line in self.lines.drain(lines.len()..) {
            self.all.remove(&line);
        }
        for (line, text) in self.lines.iter().zip(lines) {
            line.set_message(text.clone());
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.lines.iter().for_each(ProgressBar::finish_and_clear);
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
    fn a_run_that_does_not_count_has_a_line() {
        let run = test_data::echo_run("server-uring", 3, 112_000.0);
        let failed = test_data::failed(run, "the server died");
        assert_eq!(
            in_short(&failed),
            "echo-64b-w1-c1000 block 3 server-uring failed: the server died"
        );
    }
}
