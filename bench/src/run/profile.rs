//! A run whose server's stacks are sampled: one contestant, alone, in one long slice.

use std::time::Duration;

use anyhow::Result;

use super::perf::Perf;
use super::{Run, Testbed};
use crate::config::Alternation;
use crate::judge::profile::Stacks;
use crate::machine::perf::advice;
use crate::record::{RunRecord, Slice};

/// Before the stretches of the warm-up.
const SETTLE: Duration = Duration::from_millis(200);
/// Before the window: meanwhile perf opens its events.
const SETTLE_FOR_PERF: Duration = Duration::from_millis(500);
/// A server that is under load is in the kernel: so many samples, and none there, have missed it.
const SAMPLES_FOR_A_KERNEL: u64 = 20;

impl Testbed {
    /// A run under `perf` with a window of this length: its record, and the stacks inside the
    /// window or why there are none. An error means that it could not be *recorded*.
    pub fn profile(
        &self,
        run: Run<'_>,
        window: Duration,
    ) -> Result<(RunRecord, Result<Stacks, String>)> {
        let stem = run.stem();
        let alternation = Alternation {
            rounds: 1,
            cycles: 1,
            settle: SETTLE,
            slice: window,
        };
        let mut participant = self.start_server(run)?;
        self.start_generator(&mut participant)?;
        self.warm_up(&mut participant, alternation);
        let (_, perf_cpus) = self.cpus_of(run.scenario);
        let perf = match participant.ready_pid() {
            Some(pid) => Some(Perf::start(self, &stem, pid, &perf_cpus)?),
            None => None,
        };
        self.counted_slice(&mut participant, (SETTLE_FOR_PERF, window), (1, 1));
        let script = match perf {
            Some(perf) => perf.stop(self, &stem)?,
            None => Err("it was not under load".to_owned()),
        };
        let record = self.leave(participant)?;
        let stacks = script.and_then(|script| in_window(&script, &record));
        Ok((record, stacks))
    }
}

/// The stacks inside the window of a run.
fn in_window(script: &str, record: &RunRecord) -> Result<Stacks, String> {
    if let Some(stopped) = &record.stopped {
        return Err(stopped.causes.join("; "));
    }
    let slice = window_of(record).ok_or("no window was measured")?;
    let stacks = Stacks::of_script(script, slice.from_ns, slice.from_ns + slice.window_ns);
    let (samples, (kernel, unnamed)) = (stacks.samples(), stacks.in_kernel());
    if samples == 0 {
        let all = Stacks::of_script(script, 0, u64::MAX).samples();
        return Err(format!(
            "no stack was sampled inside the window, {all} outside of it: the server used no CPU, or \
             perf's clock is not the generator's"
        ));
    }
    if kernel == 0 && samples >= SAMPLES_FOR_A_KERNEL {
        return Err(format!(
            "none of {samples} samples is in the kernel. {}",
            advice()
        ));
    }
    if unnamed * 2 > kernel {
        return Err(format!(
            "{unnamed} of {kernel} samples in the kernel have no function's name. {}",
            advice()
        ));
    }
    Ok(stacks)
}

/// The slice that was sampled.
pub fn window_of(record: &RunRecord) -> Option<&Slice> {
    record.alternation.as_ref()?.slices.first()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Ending, Slices, Stopped};
    use crate::test_data;

    /// So many samples at 1 s, each of `frame`.
    fn script(samples: usize, frame: &str) -> String {
        format!("worker 7 1.000000001: \n\t{frame}\n\n").repeat(samples)
    }

    fn record() -> RunRecord {
        let slice = Slice {
            from_ns: 1_000_000_000,
            window_ns: 1_000_000_000,
            ..Slice::default()
        };
        let mut record = test_data::echo_run("a", 1, 1000.0);
        record.alternation = Some(Slices {
            slices: vec![slice],
            ..Slices::default()
        });
        record
    }

    #[test]
    fn what_perf_could_not_see_is_said_with_what_to_do() {
        let named = "ffffffff81b02d1b tcp_ack ([kernel.kallsyms])";
        let stacks = in_window(&script(30, named), &record()).unwrap();
        assert_eq!(stacks.samples(), 30);
        let nameless = script(30, "ffffffff81b02d1b [unknown] ([kernel.kallsyms])");
        let user = "1f40 main (/bin/server)";
        for (script, expected) in [
            (
                nameless,
                "30 of 30 samples in the kernel have no function's name. kernel.perf",
            ),
            (
                script(30, user),
                "none of 30 samples is in the kernel. kernel.perf",
            ),
            (
                script(30, user).replace("1.0", "5.0"),
                "inside the window, 30 outside of it",
            ),
            (String::new(), "inside the window, 0 outside of it"),
        ] {
            let why = in_window(&script, &record()).unwrap_err();
            assert!(why.contains(expected), "{why}");
        }
        assert!(
            in_window(&script(3, user), &record()).is_ok(),
            "too few to tell"
        );
    }

    #[test]
    fn a_run_that_stopped_has_no_profile() {
        let mut record = record();
        record.stopped = Some(Stopped {
            how: Ending::Failed,
            causes: vec!["the server exited with 3".to_owned()],
        });
        let why = in_window(&script(30, "1f40 main (/bin/server)"), &record).unwrap_err();
        assert_eq!(why, "the server exited with 3");
    }
}
