//! Sentences from codes and numbers: what a verdict, a check, a probe says to a reader. The only
//! place where they are made; nothing reads them back.

use loadgen::show::show_count;

use crate::judge::checks::SERVER_IMPOSSIBLE;
use crate::machine::same::Difference;
use crate::record::{
    Check, CheckName, CheckStatus, Ending, LatencyTarget, Probe, RunRecord, Status, Stopped,
};
use crate::stats::PairedRatio;
use crate::summary::SelfBout;
use crate::summary::verdict::Verdict;
use crate::summary::{Comparison, Pair, Problem};
use crate::units::{self, Unit};

/// A fact by its path, such as `sysctls.net.ipv4.tcp_mem`.
pub fn fact(path: &str) -> String {
    for (prefix, what) in [
        ("sysctls.", ""),
        ("cpu_vulnerabilities.", "mitigation of "),
        ("cgroup.", "control group's "),
        ("topology.", "core group "),
    ] {
        if let Some(name) = path.strip_prefix(prefix) {
            return format!("{what}{name}");
        }
    }
    path.trim_end_matches("_bytes")
        .replace('_', " ")
        .replace("cpu", "CPU")
}

/// What two have of a fact.
pub fn values(difference: &Difference) -> (String, String) {
    let in_bytes = difference.fact.ends_with("_bytes");
    let shown = |value: &Option<String>| match value {
        None => "not known".to_owned(),
        Some(value) => match value.parse() {
            Ok(bytes) if in_bytes => units::format(Unit::Bytes, bytes),
            _ => value.clone(),
        },
    };
    (shown(&difference.a), shown(&difference.b))
}

/// The verdict on `first` against `second`.
pub fn verdict(first: &str, second: &str, ratio: &PairedRatio, verdict: &Verdict) -> String {
    let digits = digits(ratio);
    let (low, high) = (verdict.advantage_low, verdict.advantage_high);
    let advantage = format!("[{low:.digits$}, {high:.digits$}]");
    match (&verdict.winner, verdict.claim) {
        (Some(winner), _) => format!("{winner} {:.digits$}x {advantage}", verdict.advantage),
        (None, true) => format!(
            "no difference detectable {advantage}{}",
            detectable(verdict)
        ),
        // The figures as they are: who is better is not said.
        (None, false) => format!(
            "too few runs for a claim (n={}); {first} / {second}: {}",
            ratio.pairs,
            with_interval(ratio)
        ),
    }
}

/// A ratio of one and the same program at two times: nobody is better.
pub fn of_one_binary(ratio: &PairedRatio) -> String {
    format!("the same program: A / B {}", with_interval(ratio))
}

fn with_interval(ratio: &PairedRatio) -> String {
    let digits = digits(ratio);
    format!(
        "{:.digits$} [{:.digits$}, {:.digits$}]",
        ratio.ratio, ratio.ci_low, ratio.ci_high
    )
}

/// Digits behind the point: so many that a narrow interval has two ends.
fn digits(ratio: &PairedRatio) -> usize {
    if ratio.half_width() < 0.01 { 3 } else { 2 }
}

/// How many pairs a comparison rests on: of runs, or of rounds x cycles.
pub fn size(comparison: &Comparison) -> String {
    match &comparison.levels {
        Some(levels) => format!(
            "{} x {}",
            levels.rounds,
            levels.cycles / levels.rounds.max(1)
        ),
        None => comparison.ratio.pairs.to_string(),
    }
}

/// What would have been seen, so that "no difference" is not read as "equal".
fn detectable(verdict: &Verdict) -> String {
    verdict.detectable.map_or(String::new(), |ratio| {
        format!(" (smallest detectable ratio: {})", at_least(ratio))
    })
}

/// A ratio that would have been found, rounded up: a promise.
pub fn at_least(ratio: f64) -> String {
    format!("{:.2}x", (ratio * 100.0).ceil() / 100.0)
}

/// The verdict on each comparison of a pair, in their order.
pub fn of_pair(pair: &Pair) -> impl Iterator<Item = String> + '_ {
    let comparisons = pair.comparisons.iter();
    comparisons.map(|one| verdict(&pair.first, &pair.second, &one.ratio, &one.verdict))
}

/// A contestant against itself.
pub fn noise(one: &SelfBout) -> String {
    match (&one.ratio, &one.verdict) {
        (Some(ratio), Some(found)) => verdict("first", "second", ratio, found),
        // Version 1.
        _ if one.found => "a difference was found".to_owned(),
        _ => "no difference detectable".to_owned(),
    }
}

/// Why a run does not count, or is in doubt.
pub fn of_run(run: &RunRecord) -> String {
    let of_search = run.capacity.is_some();
    why(
        run.status,
        run.stopped.as_ref().filter(|_| !of_search),
        run.failed_checks(),
    )
}

/// The same from a summary.
pub fn of_problem(problem: &Problem) -> String {
    why(
        problem.status,
        problem.stopped.as_ref(),
        problem.checks.iter(),
    )
}

/// What failed comes before what is in doubt.
fn why<'a>(
    status: Status,
    stopped: Option<&Stopped>,
    checks: impl Iterator<Item = &'a Check>,
) -> String {
    let interrupted = stopped.is_some_and(|stopped| stopped.how == Ending::Interrupted);
    let mut words = Vec::new();
    if interrupted {
        words.push("the suite was interrupted during this run".to_owned());
    }
    words.extend(stopped.iter().flat_map(|stopped| stopped.causes.clone()));
    let mut checks: Vec<&Check> = checks.collect();
    checks.sort_by_key(|check| std::cmp::Reverse(check.status));
    words.extend(checks.into_iter().map(check));
    if words.is_empty() && status == Status::Failed {
        words.push("the generator left no record".to_owned());
    }
    words.join("; ")
}

/// What the generator has to say about the load of a run.
pub fn notes_of_run(run: &RunRecord) -> String {
    let notes = run.checks.iter();
    let notes = notes.filter(|check| check.status == CheckStatus::Note);
    notes.map(check).collect::<Vec<_>>().join("; ")
}

/// Why a probe did not hold.
pub fn probe(probe: &Probe, goal: &LatencyTarget) -> String {
    let mut words: Vec<String> = probe.reason.iter().cloned().collect();
    words.extend(
        probe
            .stopped
            .iter()
            .flat_map(|stopped| stopped.causes.clone()),
    );
    words.extend(probe.checks.iter().map(check));
    let limit_ns = goal.p99_limit_ns as f64;
    let too_slow = probe.latency_intended_p99_ns.filter(|ns| *ns > limit_ns);
    if let (Some(p99_ns), None) = (too_slow, &probe.reason) {
        words.push(format!(
            "p99 {}, at most {} wanted",
            units::format(Unit::Nanoseconds, p99_ns),
            units::format(Unit::Nanoseconds, limit_ns)
        ));
    }
    words.join("; ")
}

/// The doubts of a bout by check, those of most runs first: in how many runs, and the worst of
/// them. A machine with other work on it raises the same one for every run.
pub fn kinds_of_doubt(doubts: &[Problem]) -> Vec<String> {
    let mut kinds: Vec<(CheckName, usize, &Check)> = Vec::new();
    for check in doubts.iter().flat_map(|doubt| &doubt.checks) {
        match kinds.iter_mut().find(|(name, ..)| *name == check.name) {
            Some((_, runs, worst)) => {
                *runs += 1;
                // Every doubt is of something that is too large.
                if check.observed > worst.observed {
                    *worst = check;
                }
            }
            None => kinds.push((check.name, 1, check)),
        }
    }
    kinds.sort_by_key(|(_, runs, _)| std::cmp::Reverse(*runs));
    let words = |(name, runs, worst): (CheckName, usize, &Check)| match runs {
        1 => format!("{}: {}", name.code(), check(worst)),
        runs => format!(
            "{} in {runs} runs, the worst: {}",
            name.code(),
            check(worst)
        ),
    };
    kinds.into_iter().map(words).collect()
}

/// What is wrong.
pub fn check(check: &Check) -> String {
    let observed = check.observed.unwrap_or(f64::NAN);
    let limit = check.limit.unwrap_or(f64::NAN);
    let detail = check.detail.as_deref().unwrap_or_default();
    let percent = |share: f64| format!("{:.1}%", share * 100.0);
    match check.name {
        CheckName::Generator(name) => check.clone().rename(|_| name).to_string(),
        CheckName::GeneratorLimit => format!(
            "the generator was the limit: it used {} of a CPU (limit {}), the server {} of its own",
            percent(observed),
            percent(limit),
            percent(check.beside.unwrap_or(f64::NAN))
        ),
        CheckName::ServerCpu if check.observed.is_none() => {
            "the server could not be watched over the whole window".to_owned()
        }
        CheckName::ServerCpu => format!(
            "the server used {} of its CPUs (limit {}): {}",
            percent(observed),
            percent(limit),
            if limit >= SERVER_IMPOSSIBLE {
                "it was not kept to them"
            } else {
                "at this rate its latency is that of a queue"
            }
        ),
        CheckName::ServerCpuFloor => format!(
            "the server used {} of CPU for each message, and the kernel alone needs {}: another process answered",
            units::format(Unit::Nanoseconds, observed),
            units::format(Unit::Nanoseconds, limit)
        ),
        CheckName::ServerCounters => counters(check, detail),
        CheckName::MemoryGivenBack => match detail {
            "unseen" => "memory was not seen with all connections up".to_owned(),
            "sockets" => format!(
                "{} TCP sockets were left after all connections were closed (limit {})",
                show_count(observed),
                show_count(limit)
            ),
            what => kept(
                &format!("{what} memory after all connections were closed"),
                check,
            ),
        },
        CheckName::MemoryOfTheMachine => {
            kept("memory of the machine after the server's end", check)
        }
        CheckName::Away => format!(
            "the server used {} of a CPU while others had their turn (limit {})",
            percent(observed),
            percent(limit)
        ),
        CheckName::WarmUp => format!(
            "the contestant was not warm: after {} stretches of load the last two were {} apart (limit {})",
            show_count(check.beside.unwrap_or(f64::NAN)),
            percent(observed),
            percent(limit)
        ),
        CheckName::Steal => format!(
            "the hypervisor took {} of the CPUs (limit {})",
            percent(observed),
            percent(limit)
        ),
        CheckName::Throttled => format!(
            "a CPU quota of the control group stopped the run's threads {} (limit {})",
            match observed {
                1.0 => "once".to_owned(),
                times => format!("{} times", show_count(times)),
            },
            show_count(limit)
        ),
        CheckName::OtherLoad => format!(
            "processes that are no part of the run used {} of {} in the window (limit {})",
            percent(observed),
            match detail {
                "" => "the CPUs".to_owned(),
                "shared" => "a CPU beside server and generator".to_owned(),
                side => format!("a CPU on the {side}'s side"),
            },
            percent(limit)
        ),
        CheckName::CapacityConfirmed => match detail {
            "generator_cpu" => {
                "the generator was the limit: the server may be able to do more".to_owned()
            }
            "bound" => {
                "the highest rate that the scenario allows met the target: the server may be able to do more"
                    .to_owned()
            }
            _ => format!(
                "no rate met the target and was confirmed in {:.0} probes",
                check.beside.unwrap_or(0.0)
            ),
        },
    }
}

/// Where the counters of server and generator differ.
fn counters(check: &Check, what: &str) -> String {
    let (Some(server), Some(generator)) = (check.observed, check.limit) else {
        return what.to_owned();
    };
    let (server, generator) = (show_count(server), show_count(generator));
    match what {
        "messages_sent" => {
            format!("the generator received {generator} messages, the server says it sent {server}")
        }
        "messages_received" => {
            format!("the generator sent {generator} messages, the server says it received {server}")
        }
        "connections_accepted" => format!(
            "the generator completed {generator} handshakes, the server says it accepted {server} connections"
        ),
        "pongs_received" => {
            format!("the generator sent {generator} pongs, the server says it received {server}")
        }
        "handshakes" => {
            format!("the generator counted {generator} handshakes, the server {server}")
        }
        "pings_in_window" => format!(
            "{server} pings were answered inside the window, fewer than {generator} of the {} silent connections",
            show_count(check.beside.unwrap_or(f64::NAN))
        ),
        what => {
            let what = match what {
                "violations" => "violations of the protocol",
                "dropped" => "dropped messages",
                "slow_consumers_closed" => "connections closed because they read too slowly",
                "refused" => "refused connections",
                "accept_errors" => "failed accepts",
                "idle_timeouts" => "connections closed because they were silent",
                "drained" => "connections still open at its end",
                other => other,
            };
            format!("the server counted {server} {what}")
        }
    }
}

fn kept(what: &str, check: &Check) -> String {
    let mib = |bytes: Option<f64>| show_count((bytes.unwrap_or(f64::NAN) / 1_048_576.0).floor());
    format!(
        "{what}: {} MiB before, {} MiB more after: more than the {} MiB that are tolerated",
        mib(check.beside),
        mib(check.observed),
        mib(check.limit)
    )
}
