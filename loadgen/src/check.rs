//! What a run was judged by, as data: a code, what was found, what it may be. A sentence is made
//! when a check is shown ([`Check`]'s `Display`) and never stored, so that it can be improved
//! without touching a record.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::IgnoredAny};

use crate::show::{show_count, show_ns};

/// May the numbers be used?
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Validity {
    /// `invalid` if a check is.
    pub verdict: RunStatus,
    /// All checks that apply to the run, those that are ok included. Codes and numbers: the program
    /// that shows them makes the sentences.
    #[serde(default, deserialize_with = "known")]
    pub checks: Vec<Check>,
    /// Why not, in words: only in records from before there were checks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
}

impl Validity {
    /// The checks that make the run invalid.
    pub fn faults(&self) -> impl Iterator<Item = &Check> {
        let checks = self.checks.iter();
        checks.filter(|check| check.status == CheckStatus::Invalid)
    }

    /// What a reader should know although it does not make the run invalid.
    pub fn remarks(&self) -> impl Iterator<Item = &Check> {
        let checks = self.checks.iter();
        checks.filter(|check| matches!(check.status, CheckStatus::Note | CheckStatus::Doubtful))
    }
}

/// Valid or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RunStatus {
    /// The numbers say what they seem to say.
    #[default]
    Valid,
    /// They do not; a check says why.
    Invalid,
}

/// One check of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Check<N = CheckName> {
    /// What was looked at.
    pub name: N,
    /// What came of it.
    pub status: CheckStatus,
    /// What was found, in the unit that the name gives; `null` where it could not be seen.
    #[serde(default, alias = "value")]
    pub observed: Option<f64>,
    /// The limit that was broken; of a check that is ok the first that could have been. In the unit
    /// of `observed`.
    #[serde(default)]
    pub limit: Option<f64>,
    /// A second figure that the first is read with; the name says which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<f64>,
    /// Which of several things it is about, or what a peer or the system said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What came of a check, from good to bad.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum CheckStatus {
    /// As it should be.
    Ok,
    /// The numbers say what they seem to say; a reader should know this of the load.
    Note,
    /// The run counts, and is marked.
    Doubtful,
    /// The run does not count.
    Invalid,
}

/// What the generator can look at by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckName {
    /// The run could not go on; `detail`: why.
    Failure,
    /// Ctrl-C or SIGTERM; length of the window in ns, the limit is the length asked for.
    Interrupted,
    /// Connections that came up, the limit is those asked for.
    Connections,
    /// Connections closed before the window was over; `beside`: asked for; `detail`: how the first
    /// was closed.
    ConnectionsLost,
    /// Handshakes that failed (kind `connect`).
    Handshakes,
    /// Replies or deliveries that never came; `beside`: expected.
    Lost,
    /// The same, to messages of the warm-up.
    LostInWarmup,
    /// Messages due by the schedule, never sent; with `detail` connections that did not come up,
    /// and `beside` all that were due.
    Unsent,
    /// Replies or deliveries that came twice.
    Duplicated,
    /// Replies or deliveries that came after a later one.
    Reordered,
    /// Replies or deliveries with wrong content.
    Corrupted,
    /// Pings of the server that got no pong of their own.
    PingsUnanswered,
    /// Messages received in the window.
    Received,
    /// Requests in flight of a closed loop: measured / expected.
    LittlesLaw,
    /// The same of an open loop.
    LittlesLawOpenLoop,
    /// Longest time in ns for which the generator did not run; `beside`: its threads per CPU.
    GeneratorStall,
    /// Median lateness of the generator in ns; `beside`: the latency's median; `detail`: of what,
    /// if not of messages.
    GeneratorLagP50,
    /// 99th percentile of the generator's lateness in ns; `beside`: that of the latency.
    GeneratorLagP99,
    /// Share of a CPU that the busiest thread used, or threads together on one CPU.
    GeneratorCpu,
    /// Messages that nobody asked for.
    Unsolicited,
    /// Share of the messages that waited for a place in their connection's window; with `detail` of
    /// the connections that waited for others to leave.
    DelayedByWindow,
    /// Samples beyond the 99th percentile; `beside`: all samples.
    SamplesForP99,
    /// Most connections from one source address to one target.
    SourceAddresses,
}

impl<N> Check<N> {
    /// A check that found nothing wrong.
    pub fn ok(name: N, observed: f64, limit: f64) -> Self {
        Self {
            name,
            status: CheckStatus::Ok,
            observed: Some(observed),
            limit: Some(limit),
            beside: None,
            detail: None,
        }
    }

    /// The same check, of this status if `fails`.
    #[must_use]
    pub fn when(self, fails: bool, status: CheckStatus) -> Self {
        if fails { Self { status, ..self } } else { self }
    }

    /// With the figure that it is read with.
    #[must_use]
    pub fn beside(self, figure: f64) -> Self {
        let beside = Some(figure);
        Self { beside, ..self }
    }

    /// With what it is about, or what was said.
    #[must_use]
    pub fn detail(self, detail: impl Into<String>) -> Self {
        let detail = Some(detail.into());
        Self { detail, ..self }
    }

    /// Under another name.
    pub fn rename<M>(self, name: impl FnOnce(N) -> M) -> Check<M> {
        Check {
            name: name(self.name),
            status: self.status,
            observed: self.observed,
            limit: self.limit,
            beside: self.beside,
            detail: self.detail,
        }
    }
}

/// The worst of all; `Ok` of none.
pub fn worst<N>(checks: &[Check<N>]) -> CheckStatus {
    let each = checks.iter().map(|check| check.status);
    each.max().unwrap_or(CheckStatus::Ok)
}

/// Reads those checks whose names are known: an older or newer writer has others.
///
/// # Errors
/// When it is not a list.
pub fn known<'de, D, N>(deserializer: D) -> Result<Vec<Check<N>>, D::Error>
where
    D: Deserializer<'de>,
    N: Deserialize<'de>,
{
    #[derive(Deserialize)]
    #[serde(untagged, bound = "N: Deserialize<'de>")]
    enum Entry<N> {
        Known(Check<N>),
        Other(IgnoredAny),
    }
    let entries = Vec::<Entry<N>>::deserialize(deserializer)?;
    let known = entries.into_iter().filter_map(|entry| match entry {
        Entry::Known(check) => Some(check),
        Entry::Other(_) => None,
    });
    Ok(known.collect())
}

/// What is wrong, in words; of a check that is ok, what it would say.
impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let observed = self.observed.unwrap_or(f64::NAN);
        let limit = self.limit.unwrap_or(f64::NAN);
        let beside = self.beside.unwrap_or(f64::NAN);
        let count = show_count(observed);
        match self.name {
            CheckName::Failure => f.write_str(self.detail.as_deref().unwrap_or("the run failed")),
            CheckName::Interrupted => write!(
                f,
                "interrupted: {} of {} were measured",
                show_ns(observed),
                show_ns(limit)
            ),
            CheckName::Connections => {
                let asked = show_count(limit);
                write!(
                    f,
                    "{count} of {asked} connections were up when the load was to begin"
                )
            }
            CheckName::ConnectionsLost => {
                write!(
                    f,
                    "{count} of {} connections were closed before the end of the measured window",
                    show_count(beside)
                )?;
                match &self.detail {
                    Some(cause) => write!(f, "; the first: {cause}"),
                    None => Ok(()),
                }
            }
            CheckName::Handshakes => write!(f, "{count} handshakes failed"),
            CheckName::Lost => {
                let expected = show_count(beside);
                write!(
                    f,
                    "{count} of {expected} expected messages never came (lost)"
                )
            }
            CheckName::LostInWarmup => {
                write!(
                    f,
                    "{count} expected messages of the warm-up never came (lost)"
                )
            }
            CheckName::Unsent if self.detail.is_some() => write!(
                f,
                "{count} of {} connections were due but did not come up: the server takes fewer than \
                 --rate asks for, or -c is too small for it",
                show_count(beside)
            ),
            CheckName::Unsent => write!(
                f,
                "{count} messages were due but never sent: the server takes fewer than --rate asks for, \
                 -c x --window is too small for it, or connections were lost"
            ),
            CheckName::Duplicated => write!(f, "{count} messages came twice (duplicated)"),
            CheckName::Reordered => {
                write!(f, "{count} messages came after a later one (reordered)")
            }
            CheckName::Corrupted => write!(f, "{count} messages had wrong content (corrupted)"),
            CheckName::PingsUnanswered => write!(
                f,
                "{count} pings got no pong of their own: the server pings faster than it reads the \
                 pongs"
            ),
            CheckName::Received => f.write_str(
                "nothing was received in the measured window: lengthen -d or raise --rate",
            ),
            CheckName::LittlesLaw => write!(
                f,
                "Little's law does not hold: requests in flight (throughput x mean latency) are \
                 {observed:.3} of connections x window (limit {limit:.2}): not all connections were \
                 active all the time"
            ),
            CheckName::LittlesLawOpenLoop => write!(
                f,
                "Little's law does not hold: the requests in flight are {observed:.3} of rate x mean \
                 latency (limit {limit:.2}): the rate was not kept, or the latencies are not those of \
                 the messages that were sent"
            ),
            CheckName::GeneratorStall => {
                write!(
                    f,
                    "the generator did not run for {} of the window at a stretch (limit {})",
                    show_ns(observed),
                    show_ns(limit)
                )?;
                if beside > 1.0 {
                    write!(f, "; {beside:.0} of its threads take turns on a CPU")?;
                }
                match self.status {
                    CheckStatus::Invalid => f.write_str(
                        ": the machine was paused, or other processes had the CPU: run again",
                    ),
                    _ => Ok(()),
                }
            }
            CheckName::GeneratorLagP50 => lag(self, "half", "p50", f),
            CheckName::GeneratorLagP99 => lag(self, "1%", "p99", f),
            CheckName::GeneratorCpu => write!(
                f,
                "the generator used {:.0}% of a CPU (limit {:.0}%): the server may be able to do more \
                 (-t, --cpus)",
                observed * 100.0,
                limit * 100.0
            ),
            CheckName::Unsolicited => write!(
                f,
                "{count} messages came before the first request on their connection (a greeting?); \
                 they are not counted"
            ),
            CheckName::DelayedByWindow if self.detail.is_some() => write!(
                f,
                "{:.0}% of the connections waited for others to leave: counted in the intended \
                 latency; a larger -c has room for more",
                observed * 100.0
            ),
            CheckName::DelayedByWindow => write!(
                f,
                "{:.0}% of the messages found their connection's window full and waited: counted in \
                 the intended latency; more -c or --window keeps more in flight",
                observed * 100.0
            ),
            CheckName::SamplesForP99 => write!(
                f,
                "{} samples are too few for a 99th percentile ({limit:.0} beyond it): lengthen -d",
                show_count(beside)
            ),
            CheckName::SourceAddresses => write!(
                f,
                "{count} connections from one source address to one target: beyond {} the kernel's \
                 search for a free port makes connecting slow; give more addresses with --source-ips \
                 (on IPv6 loopback, which has one, add them first, as root: `for i in $(seq {:.0}); \
                 do ip -6 addr add fd00::$i/128 dev lo; done`)",
                show_count(limit),
                (observed / limit).ceil()
            ),
        }
    }
}

fn lag(check: &Check, share: &str, percentile: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (observed, limit) = (check.observed.unwrap_or(0.0), check.limit.unwrap_or(0.0));
    let (did, what) = match check.detail.as_deref() {
        Some(what) => ("began", what),
        None => ("sent", "messages"),
    };
    write!(
        f,
        "the generator was late: it {did} {share} of the {what} {} late or more (limit {}), {:.0}% of the latency's \
         {percentile}",
        show_ns(observed),
        show_ns(limit),
        observed / check.beside.unwrap_or(f64::NAN).max(1.0) * 100.0,
    )?;
    match check.status {
        CheckStatus::Invalid => {
            f.write_str(": give it more CPU (-t, --cpus), a quiet machine, or lower --rate")
        }
        _ => Ok(()),
    }
}
