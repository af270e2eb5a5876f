//! The summary for people.

use std::fmt::{self, Display, Write};

use crate::{
    check::{CheckStatus, RunStatus},
    record::{Latency, LoadKind, Record, ThreadUsage},
    show::{show_count, show_ns},
};

/// More threads than this are not listed one by one.
const MOST_SHARES: usize = 16;

/// Prints a record as a page of text.
#[derive(Debug)]
pub struct Report<'a>(pub &'a Record);

impl Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = self.0;
        heading(record, f)?;
        verdict(record, f)?;
        connections(record, f)?;
        subprotocols(record, f)?;
        match record.kind {
            LoadKind::Connect => {
                handshakes(record, f)?;
                if let Some(lives) = &record.connect.lives {
                    let text = format!(
                        "{}/s ({} in all)",
                        show_count(lives.lives_per_s.round()),
                        show_count(lives.completed as f64)
                    );
                    line(f, "lives", &text)?;
                    messages(record, f)?;
                }
            }
            LoadKind::Idle => {
                idle(record, f)?;
                if record.options.active_fraction.is_some() {
                    messages(record, f)?;
                }
            }
            LoadKind::Echo => messages(record, f)?,
            LoadKind::Broadcast => {
                messages(record, f)?;
                broadcast(record, f)?;
            }
        }
        generator(record, f)
    }
}

fn line(f: &mut fmt::Formatter<'_>, name: &str, text: &str) -> fmt::Result {
    writeln!(f, "{name:<13}{text}")
}

fn heading(record: &Record, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let options = &record.options;
    let mut what = format!(
        "{} connections, {} thread(s)",
        show_count(options.connections as f64),
        options.threads
    );
    if options.shards > 1 {
        let _ = write!(what, " in {} processes", options.shards);
    }
    if record.kind == LoadKind::Connect {
        if let Some(messages) = options.messages_per_connection {
            let (messages, size) = (show_count(messages as f64), options.size_bytes);
            let _ = write!(what, ", {messages} messages of {size} B each");
        }
        if let Some(rate) = options.rate_per_s {
            let _ = write!(what, ", open loop at {}/s", show_count(rate));
        }
    } else if record.kind == LoadKind::Echo
        || record.kind == LoadKind::Broadcast
        || options.rate_per_s.is_some()
    {
        let _ = write!(what, ", {} B", options.size_bytes);
        if let Some(fragments) = options.fragments {
            let _ = write!(what, " in {fragments} frames");
        }
        match options.rate_per_s {
            Some(rate) => {
                let _ = write!(what, ", open loop at {}/s", show_count(rate));
            }
            None => {
                let _ = write!(what, ", closed loop, window {}", options.window);
            }
        }
    }
    if let Some((hot, share)) = options.hot_connections.zip(options.hot_share) {
        let _ = write!(
            what,
            ", {} hot with {}% of the messages",
            show_count(hot as f64),
            show_count(share * 100.0)
        );
        if let Some(size) = options.hot_size_bytes {
            let _ = write!(what, ", of {size} B");
        }
    }
    if let Some(publishers) = options.publishers {
        let _ = write!(what, ", {publishers} publisher(s)");
    }
    writeln!(f, "{} {}: {what}", record.kind, options.urls.join(" "))?;
    let mut how = match record.slices {
        Some(slices) => format!(" in {} slices", show_count(slices as f64)),
        None => String::new(),
    };
    if record.interrupted {
        how.push_str(" (interrupted)");
    }
    line(
        f,
        "measured",
        &format!(
            "{} of {} after {} warm-up{how}",
            show_ns(record.window_ns as f64),
            show_ns(options.duration_ns as f64),
            show_ns(options.warmup_ns as f64)
        ),
    )
}

fn verdict(record: &Record, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let validity = &record.validity;
    match validity.verdict {
        RunStatus::Valid => line(f, "verdict", "valid")?,
        RunStatus::Invalid => line(f, "verdict", "INVALID")?,
    }
    for fault in validity.faults() {
        writeln!(f, "  - {fault}")?;
    }
    for remark in validity.remarks() {
        let kind = match remark.status {
            CheckStatus::Doubtful => "doubt",
            _ => "note",
        };
        line(f, kind, &remark.to_string())?;
    }
    Ok(())
}

fn connections(record: &Record, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if record.kind == LoadKind::Connect {
        return Ok(());
    }
    let (connections, connect) = (&record.connections, &record.connect);
    let mut text = format!(
        "{} of {} up in {} ({}/s)",
        show_count(connections.up as f64),
        show_count(connections.requested as f64),
        show_ns(connect.elapsed_ns as f64),
        show_count(connect.handshakes_per_s.round())
    );
    if let Some(latency) = &connect.handshake_latency {
        let _ = write!(
            text,
            ", handshake p50 {} max {}",
            show_ns(latency.p50_ns as f64),
            show_ns(latency.max_ns as f64)
        );
    }
    line(f, "connections", &text)
}

/// What servers chose, where not all chose one of the subprotocols offered.
fn subprotocols(record: &Record, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Some(subprotocols) = &record.connect.subprotocols else {
        return Ok(());
    };
    let all = subprotocols.none + subprotocols.chosen.values().sum::<u64>();
    if subprotocols.none == 0 {
        return Ok(());
    }
    let text = format!(
        "none of those offered ({}) was chosen in {} of {} handshakes",
        record.options.subprotocols.join(", "),
        show_count(subprotocols.none as f64),
        show_count(all as f64)
    );
    line(f, "subprotocol", &text)
}

fn handshakes(record: &Record, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let connect = &record.connect;
    let text = format!(
        "{} handshakes/s ({} in all)",
        show_count(connect.handshakes_per_s.round()),
        show_count(connect.completed as f64)
    );
    line(f, "throughput", &text)?;
    let from_begin = match connect.handshake_latency_intended {
        Some(_) => "actual begin",
        None => "handshake",
    };
    let columns = [
        ("intended begin", &connect.handshake_latency_intended),
        (from_begin, &connect.handshake_latency),
    ];
    latencies(&columns, f)
}

fn idle(record: &Record, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Some(idle) = &record.idle else {
        return Ok(());
    };
    let text = format!(
        "{} held, {} still up, {} active, {} pings answered",
        show_count(idle.held as f64),
        show_count(idle.still_up as f64),
        show_count(idle.active as f64),
        show_count(idle.pings_answered as f64)
    );
    line(f, "idle", &text)
}

fn messages(record: &Record, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (messages, throughput) = (&record.messages, &record.throughput);
    let what = if record.kind == LoadKind::Broadcast {
        "deliveries"
    } else {
        "messages"
    };
    let text = format!(
        "{} {what}/s, {:.2} MB/s payload",
        show_count(throughput.messages_per_s.round()),
        throughput.payload_bytes_per_s / 1e6
    );
    line(f, "throughput", &text)?;
    let mut text = format!(
        "{} sent, {} of {} received",
        show_count(messages.sent as f64),
        show_count(messages.received as f64),
        show_count(messages.expected as f64)
    );
    for (count, what) in [
        (messages.lost, "lost"),
        (messages.unsent, "never sent"),
        (messages.duplicated, "duplicated"),
        (messages.reordered, "reordered"),
        (messages.corrupted, "corrupted"),
    ] {
        let _ = write!(text, ", {} {what}", show_count(count as f64));
    }
    line(f, "messages", &text)?;
    let columns = [
        ("intended send", &record.latency_intended),
        ("actual send", &record.latency_actual),
        ("not hot, int.", &record.latency_others),
    ];
    latencies(&columns, f)?;
    match &record.littles_law {
        Some(law) => line(
            f,
            "Little's law",
            &format!(
                "{:.3} ({} requests in flight on average, {} expected)",
                law.ratio,
                show_count(law.in_flight_measured.round()),
                show_count(law.in_flight_expected)
            ),
        ),
        None => Ok(()),
    }
}

fn broadcast(record: &Record, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Some(section) = &record.broadcast else {
        return Ok(());
    };
    let text = format!(
        "{} messages to {} members, {} reached all; time until it reached",
        show_count(section.published as f64),
        show_count(section.members as f64),
        show_count(section.complete_messages as f64)
    );
    line(f, "room", &text)?;
    let columns = [
        ("first member", &section.first_receiver),
        ("median member", &section.median_receiver),
        ("last member", &section.last_receiver),
    ];
    latencies(&columns, f)
}

/// A table of percentiles; those with too few samples beyond them are left out.
fn latencies(columns: &[(&str, &Option<Latency>)], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let columns: Vec<(&str, &Latency)> = columns
        .iter()
        .filter_map(|(name, latency)| Some((*name, latency.as_ref()?)))
        .collect();
    if columns.is_empty() {
        return Ok(());
    }
    let names: String = columns
        .iter()
        .map(|(name, _)| format!("{name:>16}"))
        .collect();
    writeln!(f, "latency from{names}")?;
    type Figure = (&'static str, Option<f64>, fn(&Latency) -> f64);
    let figures: [Figure; 7] = [
        ("p50", Some(0.5), |latency| latency.p50_ns as f64),
        ("p90", Some(0.9), |latency| latency.p90_ns as f64),
        ("p99", Some(0.99), |latency| latency.p99_ns as f64),
        ("p99.9", Some(0.999), |latency| latency.p99_9_ns as f64),
        ("p99.99", Some(0.9999), |latency| latency.p99_99_ns as f64),
        ("max", None, |latency| latency.max_ns as f64),
        ("mean", None, |latency| latency.mean_ns),
    ];
    for (name, quantile, value) in figures {
        if !columns
            .iter()
            .any(|(_, latency)| quantile.is_none_or(|quantile| latency.supports(quantile)))
        {
            continue;
        }
        let cells: String = columns
            .iter()
            .map(|(_, latency)| match quantile {
                Some(quantile) if !latency.supports(quantile) => format!("{:>16}", "-"),
                _ => format!("{:>16}", show_ns(value(latency))),
            })
            .collect();
        writeln!(f, "  {name:<10}{cells}")?;
    }
    Ok(())
}

/// How busy the threads were: each, or in a word when there are many.
fn busy(threads: &[ThreadUsage]) -> String {
    let mut shares: Vec<f64> = threads
        .iter()
        .map(|thread| thread.busy_share * 100.0)
        .collect();
    if shares.len() <= MOST_SHARES {
        let shares: Vec<String> = shares.iter().map(|share| format!("{share:.0}%")).collect();
        return format!("busy {}", shares.join(" "));
    }
    shares.sort_by(f64::total_cmp);
    format!(
        "busy {:.1} CPUs in all, {:.0}% to {:.0}% per thread",
        shares.iter().sum::<f64>() / 100.0,
        shares[0],
        shares[shares.len() - 1]
    )
}

fn generator(record: &Record, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let generator = &record.generator;
    if generator.threads.is_empty() {
        return Ok(());
    }
    let mut text = busy(&generator.threads);
    if let Some(cost) = generator.cpu_ns_per_message {
        let what = match record.kind {
            LoadKind::Connect => "handshake",
            LoadKind::Broadcast => "delivery",
            LoadKind::Echo | LoadKind::Idle => "message",
        };
        let _ = write!(text, ", {} CPU per {what}", show_ns(cost));
    }
    if record.messages.received > 0 {
        let enters: u64 = generator.threads.iter().map(|thread| thread.enters).sum();
        let per_message = enters as f64 / record.messages.received as f64;
        let _ = write!(text, ", {per_message:.2} system calls");
    }
    if record.options.spin_us > 0 {
        let _ = write!(text, ", polling {} us before sleep", record.options.spin_us);
    }
    if let Some(lag) = &generator.schedule_lag {
        let _ = write!(
            text,
            ", schedule lag p50 {} p99 {} max {}",
            show_ns(lag.p50_ns as f64),
            show_ns(lag.p99_ns as f64),
            show_ns(lag.max_ns as f64)
        );
    }
    line(f, "generator", &text)
}
