//! Is the run valid? A pure function of what was measured.
//!
//! Whether the generator was the limit is told by its schedule lag in an open loop. In a closed
//! loop a busy generator proves nothing by itself: with equal costs on both ends both are saturated
//! together. So a thread without CPU time to spare is a warning here, and whoever sees the server's
//! CPU time too (`bench`) decides.

use crate::record::{Kind, Latency, Messages, ScheduleLag, Validity, Verdict};

/// Little's law may be off by this much.
pub const LITTLE_TOLERANCE: f64 = 0.02;
/// A median schedule lag above this means that the generator does not keep up ...
pub const LAG_P50_LIMIT_NS: u64 = 1_000_000;
/// ... and a 99th percentile above this that it was disturbed too much ...
pub const LAG_P99_LIMIT_NS: u64 = 5_000_000;
/// ... if it makes up more than this share of the latency at the same percentile.
pub const LAG_SHARE_LIMIT: f64 = 0.25;
/// A 99th percentile above this is worth a warning, if its share is above [`LAG_SHARE_LIMIT`] too.
pub const LAG_P99_WARNING_NS: u64 = 1_000_000;
/// A thread that is busier than this has no CPU time left: what was measured may be the generator.
pub const BUSY_LIMIT: f64 = 0.98;
/// A generator that did not run for this share of the window at a stretch measured the machine, not
/// the server ...
pub const STALL_SHARE_LIMIT: f64 = 0.25;
/// ... and for this long it is worth a warning.
pub const STALL_WARNING_NS: u64 = 100_000_000;
/// Messages delayed by the window beyond this share are worth a warning.
const DELAYED_SHARE: f64 = 0.01;

/// What the verdict is about.
#[derive(Debug, Clone, Default)]
pub struct Evidence<'a> {
    /// Kind of load; `None` only in tests that do not care.
    pub kind: Option<Kind>,
    /// Why the run could not go on.
    pub failure: Option<&'a str>,
    /// Ctrl-C, and how long the window was by then, in words.
    pub interrupted: Option<&'a str>,
    /// Connections asked for.
    pub requested: u64,
    /// Up when the load began.
    pub up: u64,
    /// Lost before the window was over.
    pub closed_early: u64,
    /// How the first was lost.
    pub first_loss: Option<&'a str>,
    /// Messages are sent.
    pub has_traffic: bool,
    /// Counts of the window.
    pub messages: Messages,
    /// Messages sent before the window that never got a reply.
    pub lost_in_warmup: u64,
    /// Pings that got no pong of their own.
    pub pings_unanswered: u64,
    /// Measured / expected requests in flight.
    pub littles_ratio: Option<f64>,
    /// There is a schedule.
    pub open_loop: bool,
    /// The latency to quote.
    pub latency: Option<&'a Latency>,
    /// How late the generator was, in an open loop.
    pub lag: Option<ScheduleLag>,
    /// CPU time / wall time of the busiest CPU, or thread.
    pub busiest: f64,
    /// Longest time for which a thread did not run although it should have.
    pub longest_stall_ns: u64,
    /// Threads that take turns on a CPU.
    pub threads_per_cpu: usize,
    /// Length of the window.
    pub window_ns: u64,
}

/// Judges a run.
pub fn judge(evidence: &Evidence<'_>) -> Validity {
    let mut reasons = Vec::new();
    let mut warnings = Vec::new();
    ending(evidence, &mut reasons);
    connections(evidence, &mut reasons);
    stall(evidence, &mut reasons, &mut warnings);
    messages(evidence, &mut reasons);
    if let Some(ratio) = evidence.littles_ratio
        && (ratio - 1.0).abs() > LITTLE_TOLERANCE
    {
        reasons.push(if evidence.open_loop {
            format!(
                "Little's law does not hold: the requests in flight are {ratio:.3} of rate x mean latency (1 +- {LITTLE_TOLERANCE}): the rate \
                 was not kept, or the latencies are not those of the messages that were sent"
            )
        } else {
            format!(
                "Little's law does not hold: requests in flight (throughput x mean latency) are {ratio:.3} of connections x window \
                 (1 +- {LITTLE_TOLERANCE}): not all connections were active all the time"
            )
        });
    }
    generator(evidence, &mut reasons, &mut warnings);
    doubts(evidence, &mut warnings);
    Validity {
        verdict: if reasons.is_empty() {
            Verdict::Valid
        } else {
            Verdict::Invalid
        },
        reasons,
        warnings,
    }
}

fn ending(evidence: &Evidence<'_>, reasons: &mut Vec<String>) {
    if let Some(failure) = evidence.failure {
        reasons.push(failure.to_owned());
    }
    if let Some(when) = evidence.interrupted {
        reasons.push(format!("interrupted: {when}"));
    }
}

fn connections(evidence: &Evidence<'_>, reasons: &mut Vec<String>) {
    let Evidence { requested, up, .. } = evidence;
    if up < requested {
        reasons.push(format!("only {up} of {requested} connections came up"));
    }
    if evidence.closed_early > 0 {
        let how = evidence
            .first_loss
            .map(|cause| format!("; the first: {cause}"))
            .unwrap_or_default();
        reasons.push(format!(
            "{} of {requested} connections were closed before the end of the measured window{how}",
            evidence.closed_early
        ));
    }
}

fn messages(evidence: &Evidence<'_>, reasons: &mut Vec<String>) {
    let messages = &evidence.messages;
    let replies = match evidence.kind {
        Some(Kind::Broadcast) => "deliveries",
        _ => "replies",
    };
    for (count, what) in [
        (
            messages.lost,
            format!("{replies} are missing (lost) of {}", messages.expected),
        ),
        (
            evidence.lost_in_warmup,
            format!("{replies} to messages of the warm-up are missing (lost)"),
        ),
        (
            messages.unsent,
            format!(
                "messages were due but never sent: {}",
                if evidence.closed_early > 0 {
                    "their connections were closed, or the server stopped answering"
                } else {
                    "the server takes fewer than --rate asks for (or -c x --window is too small for it)"
                }
            ),
        ),
        (
            messages.duplicated,
            format!("{replies} came twice (duplicated)"),
        ),
        (
            messages.reordered,
            format!("{replies} came after a later one (reordered)"),
        ),
        (
            messages.corrupted,
            format!("{replies} had wrong content (corrupted)"),
        ),
    ] {
        if count > 0 {
            reasons.push(format!("{count} {what}"));
        }
    }
    if evidence.pings_unanswered > 0 {
        reasons.push(format!(
            "{} pings got no pong of their own: the server pings faster than it reads the pongs",
            evidence.pings_unanswered
        ));
    }
    let measured = messages.received > 0 || !evidence.has_traffic;
    if !measured && reasons.is_empty() {
        reasons.push(
            "nothing was received in the measured window: lengthen -d or raise --rate".into(),
        );
    }
}

fn stall(evidence: &Evidence<'_>, reasons: &mut Vec<String>, warnings: &mut Vec<String>) {
    let stall_ns = evidence.longest_stall_ns;
    let turns = match evidence.threads_per_cpu {
        0 | 1 => String::new(),
        threads => format!(" ({threads} of its threads take turns on a CPU)"),
    };
    let text = format!(
        "the generator did not run for {:.0} ms of the window at a stretch{turns}",
        stall_ns as f64 / 1e6
    );
    if stall_ns > 0 && stall_ns as f64 >= evidence.window_ns as f64 * STALL_SHARE_LIMIT {
        reasons.push(format!(
            "{text}: the machine was paused, or other processes had the CPU: run again"
        ));
    } else if stall_ns >= STALL_WARNING_NS {
        warnings.push(text);
    }
}

fn generator(evidence: &Evidence<'_>, reasons: &mut Vec<String>, warnings: &mut Vec<String>) {
    if let (Some(lag), Some(latency)) = (evidence.lag, evidence.latency) {
        let table = [
            ("p50", lag.p50_ns, latency.p50_ns, LAG_P50_LIMIT_NS),
            ("p99", lag.p99_ns, latency.p99_ns, LAG_P99_LIMIT_NS),
        ];
        for (name, lag_ns, latency_ns, limit_ns) in table {
            let share = lag_ns as f64 / latency_ns.max(1) as f64;
            let text = format!(
                "the generator was late: schedule lag {name} {:.1} ms, {:.0}% of the latency {name}",
                lag_ns as f64 / 1e6,
                share * 100.0
            );
            if share <= LAG_SHARE_LIMIT {
                continue;
            }
            if lag_ns > limit_ns {
                reasons.push(format!(
                    "{text}: give it more CPU (-t, --cpus), a quiet machine, or lower --rate"
                ));
            } else if lag_ns > LAG_P99_WARNING_NS {
                warnings.push(text);
            }
        }
    }
    if evidence.busiest > BUSY_LIMIT {
        warnings.push(format!(
            "a generator thread was busy {:.0}% of the time: the server may be able to do more (-t, --cpus)",
            evidence.busiest * 100.0
        ));
    }
}

fn doubts(evidence: &Evidence<'_>, warnings: &mut Vec<String>) {
    let messages = &evidence.messages;
    if messages.unsolicited > 0 {
        warnings.push(format!(
            "{} messages came that nobody asked for (a greeting?); they are not counted",
            messages.unsolicited
        ));
    }
    let delayed = messages.delayed_by_window as f64 / messages.sent.max(1) as f64;
    if delayed > DELAYED_SHARE {
        warnings.push(format!(
            "{:.0}% of the messages found their connection's window full and waited: counted in the intended latency; \
             more -c or --window keeps more in flight",
            delayed * 100.0
        ));
    }
    if let Some(latency) = evidence.latency
        && !latency.supports(0.99)
    {
        warnings.push(format!(
            "{} samples are too few for a 99th percentile (100 beyond it): lengthen -d",
            latency.count
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latency(p99_ns: u64) -> Latency {
        Latency {
            count: 1_000_000,
            p99_ns,
            ..Latency::default()
        }
    }

    fn sound() -> Evidence<'static> {
        Evidence {
            requested: 10,
            up: 10,
            has_traffic: true,
            messages: Messages {
                sent: 100,
                expected: 100,
                received: 100,
                ..Messages::default()
            },
            littles_ratio: Some(1.01),
            ..Evidence::default()
        }
    }

    fn with(change: impl FnOnce(&mut Messages)) -> Evidence<'static> {
        let mut evidence = sound();
        change(&mut evidence.messages);
        evidence
    }

    #[test]
    fn a_sound_run_is_valid() {
        assert_eq!(judge(&sound()).verdict, Verdict::Valid);
        let idle = Evidence {
            requested: 1,
            up: 1,
            ..Evidence::default()
        };
        assert_eq!(judge(&idle).verdict, Verdict::Valid);
    }

    #[test]
    fn a_generator_that_stood_still_is_told_from_a_server_that_did() {
        let mut evidence = with(|messages| messages.received = 0);
        evidence.window_ns = 1_000_000_000;
        evidence.longest_stall_ns = 990_000_000;
        let reasons = judge(&evidence).reasons;
        assert_eq!(reasons.len(), 1, "{reasons:?}");
        assert!(reasons[0].contains("did not run for 990 ms"), "{reasons:?}");
        let mut evidence = sound();
        evidence.window_ns = 1_000_000_000;
        evidence.longest_stall_ns = 150_000_000;
        let validity = judge(&evidence);
        assert_eq!(validity.verdict, Verdict::Valid);
        assert_eq!(validity.warnings.len(), 1);
        assert!(!validity.warnings[0].contains("turns"));
        evidence.threads_per_cpu = 51;
        assert!(judge(&evidence).warnings[0].contains("51 of its threads take turns"));
    }

    #[test]
    fn each_fault_is_named() {
        let lag = |p50_ns, p99_ns| ScheduleLag {
            p50_ns,
            p99_ns,
            ..ScheduleLag::default()
        };
        let slow = latency(20_000_000);
        let table: Vec<(Evidence<'_>, &str)> = vec![
            (with(|m| m.lost = 1), "lost"),
            (with(|m| m.unsent = 1), "never sent"),
            (with(|m| m.duplicated = 1), "duplicated"),
            (with(|m| m.reordered = 1), "reordered"),
            (with(|m| m.corrupted = 1), "corrupted"),
            (with(|m| m.received = 0), "nothing was received"),
            (
                Evidence {
                    lost_in_warmup: 1,
                    ..sound()
                },
                "warm-up",
            ),
            (
                Evidence {
                    pings_unanswered: 3,
                    ..sound()
                },
                "3 pings got no pong",
            ),
            (Evidence { up: 9, ..sound() }, "9 of 10"),
            (
                Evidence {
                    closed_early: 2,
                    first_loss: Some("code 1001"),
                    ..sound()
                },
                "the first: code 1001",
            ),
            (
                Evidence {
                    failure: Some("refused"),
                    ..sound()
                },
                "refused",
            ),
            (
                Evidence {
                    interrupted: Some("1 s of 10 s"),
                    ..sound()
                },
                "interrupted",
            ),
            (
                Evidence {
                    littles_ratio: Some(0.97),
                    ..sound()
                },
                "Little's law",
            ),
            (
                Evidence {
                    littles_ratio: Some(1.03),
                    ..sound()
                },
                "Little's law",
            ),
            (
                Evidence {
                    littles_ratio: Some(0.9),
                    open_loop: true,
                    ..sound()
                },
                "0.900 of rate x mean latency",
            ),
            (
                Evidence {
                    littles_ratio: Some(f64::INFINITY),
                    ..sound()
                },
                "Little's law",
            ),
            (
                Evidence {
                    lag: Some(lag(0, 6_000_000)),
                    latency: Some(&slow),
                    ..sound()
                },
                "schedule lag p99",
            ),
            (
                Evidence {
                    lag: Some(lag(1_500_000, 1_500_000)),
                    latency: Some(&slow),
                    ..sound()
                },
                "schedule lag p50",
            ),
        ];
        for (evidence, expected) in table {
            let validity = judge(&evidence);
            assert_eq!(validity.verdict, Verdict::Invalid, "{expected}");
            assert_eq!(validity.reasons.len(), 1, "{:?}", validity.reasons);
            assert!(
                validity.reasons[0].contains(expected),
                "{:?}",
                validity.reasons
            );
        }
    }

    #[test]
    fn doubts_are_warnings() {
        let lag = ScheduleLag {
            p99_ns: 1_500_000,
            ..ScheduleLag::default()
        };
        let (slow, few) = (
            latency(4_000_000),
            Latency {
                count: 99,
                ..Latency::default()
            },
        );
        for (evidence, expected) in [
            (
                Evidence {
                    lag: Some(lag),
                    latency: Some(&slow),
                    ..sound()
                },
                "schedule lag",
            ),
            (
                Evidence {
                    busiest: 0.99,
                    ..sound()
                },
                "busy 99%",
            ),
            (with(|m| m.unsolicited = 3), "3 messages"),
            (with(|m| m.delayed_by_window = 50), "50%"),
            (
                Evidence {
                    latency: Some(&few),
                    ..sound()
                },
                "too few",
            ),
        ] {
            let validity = judge(&evidence);
            assert_eq!(validity.verdict, Verdict::Valid, "{expected}");
            assert_eq!(validity.warnings.len(), 1, "{:?}", validity.warnings);
            assert!(
                validity.warnings[0].contains(expected),
                "{:?}",
                validity.warnings
            );
        }
    }
}
