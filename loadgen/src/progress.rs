//! The live line: connections up, messages per second, latency so far, time left. On a terminal
//! only.

use std::{
    io::IsTerminal,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{
    engine::shared::Shared,
    show::{show_count, show_ns},
};

/// How often the line changes.
const INTERVAL: Duration = Duration::from_millis(200);

/// The live line, or nothing.
#[derive(Debug, Default)]
pub struct Progress {
    line: Option<Line>,
}

#[derive(Debug)]
struct Line {
    bar: ProgressBar,
    shown: Instant,
    received: u64,
    unit: &'static str,
}

impl Progress {
    /// A line on stderr, if that is a terminal; `unit` is what is counted.
    pub fn on_terminal(unit: &'static str) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::default();
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
            bar.set_style(style);
        }
        Self {
            line: Some(Line {
                bar,
                shown: Instant::now(),
                received: 0,
                unit,
            }),
        }
    }

    /// Is there a line?
    pub fn is_shown(&self) -> bool {
        self.line.is_some()
    }

    /// Shows the present state, a few times per second.
    pub fn show(&mut self, shared: &Shared, connections: u64) {
        let Some(line) = &mut self.line else { return };
        let elapsed = line.shown.elapsed();
        if elapsed < INTERVAL {
            return;
        }
        line.shown = Instant::now();
        let counted = match line.unit {
            "handshakes" => shared.opened.load(Relaxed),
            _ => shared.received.load(Relaxed),
        };
        let rate = (counted - line.received.min(counted)) as f64 / elapsed.as_secs_f64();
        line.received = counted;
        line.bar
            .set_message(text(shared, connections, rate, line.unit));
        line.bar.tick();
    }

    /// Takes the line away.
    pub fn clear(&self) {
        if let Some(line) = &self.line {
            line.bar.finish_and_clear();
        }
    }
}

fn text(shared: &Shared, connections: u64, rate: f64, unit: &str) -> String {
    let up = show_count(shared.up.load(Relaxed) as f64);
    let all = show_count(connections as f64);
    if !shared.has_begun() {
        return format!("connecting: {up} of {all} up");
    }
    let times = shared.times();
    let now = shared.clock.now();
    let (phase, until) = match now {
        now if now < times.from => ("warm-up", times.from),
        now if now < times.to => ("measuring", times.to),
        _ => ("waiting for outstanding replies", now),
    };
    let left = show_ns(until.saturating_sub(now) as f64);
    let quantiles = match shared.quantiles() {
        Some((p50, p99)) => format!("  p50 {} p99 {}", show_ns(p50 as f64), show_ns(p99 as f64)),
        None => String::new(),
    };
    format!(
        "{phase}: {up} of {all} up  {} {unit}/s{quantiles}  {left} left",
        show_count(rate.round())
    )
}
