//! A profile on a page: the shares as bars and as a table, and a flame graph for each contestant.

use std::collections::BTreeMap;

use serde::Serialize;

use super::axis::Scale;
use super::chart::Chart;
use super::flame;
use super::svg::Svg;
use crate::output::profile::{notes, table, title, unit_of};
use crate::store::profiles::StoredProfile;
use crate::units::{self, Unit};

/// A profile, ready for the template.
#[derive(Debug, Serialize)]
pub(super) struct ProfileView {
    pub(super) name: String,
    pub(super) title: String,
    facts: String,
    notes: Vec<String>,
    /// Class and name of each share.
    legend: Vec<(String, String)>,
    chart: Option<Chart>,
    /// Contestant and drawing.
    flames: Vec<(String, String)>,
}

/// `binaries` are those of the runs that the profile lies beside.
pub(super) fn view(stored: &StoredProfile, binaries: &BTreeMap<String, String>) -> ProfileView {
    let profile = &stored.profile;
    let scenario = &profile.scenario.name;
    let mut notes = notes(profile);
    for one in profile.sampled() {
        let of_runs = binaries.get(&one.contestant);
        if of_runs.is_some() && of_runs != one.binary.as_ref() {
            notes.push(format!(
                "{}: the profile is of another binary than the runs",
                one.contestant
            ));
        }
    }
    let of_one = |(name, stacks): (&String, _)| {
        (
            name.clone(),
            flame::draw(stacks, &format!("{name} in {scenario}")),
        )
    };
    let in_order = profile.sampled();
    let stacks = in_order.filter_map(|one| stored.stacks.get_key_value(&one.contestant));
    ProfileView {
        name: scenario.clone(),
        title: profile.scenario.title.clone(),
        facts: format!(
            "{}, revision {}, {}; {} samples per second of CPU time by {}",
            profile.started_utc,
            profile.revision,
            profile.machine,
            profile.frequency_hz,
            profile.perf
        ),
        notes,
        legend: profile
            .shares()
            .map(|share| (flame::class(share), title(share).to_owned()))
            .collect(),
        chart: bars(stored),
        flames: stacks.map(of_one).collect(),
    }
}

/// A row for each contestant: its CPU time per message, cut into shares.
fn bars(stored: &StoredProfile) -> Option<Chart> {
    let profile = &stored.profile;
    let costs: Vec<_> = profile
        .sampled()
        .filter_map(|one| Some((one, one.cpu_ns_per_message()?)))
        .collect();
    if costs.is_empty() {
        return None;
    }
    let per = unit_of(profile);
    let mut svg = Svg::of_rows(costs.len(), 8.0);
    let x = Scale::linear(costs.iter().map(|(_, ns)| *ns), svg.across());
    svg.x_axis(
        x.ticks_in(Unit::Nanoseconds),
        &format!("CPU time per {per}"),
    );
    for (place, (one, _)) in costs.iter().enumerate() {
        let y = svg.row(place, &one.contestant);
        let mut left_ns = 0.0;
        for share in profile.shares() {
            let ns = one.share_ns_per_message(share).unwrap_or(0.0);
            if ns > 0.0 {
                let corners = ((x.at(left_ns), y - 9.0), (x.at(left_ns + ns), y + 9.0));
                let words = format!(
                    "{}: {}: {:.1}%, {}",
                    one.contestant,
                    title(share),
                    one.part(share) * 100.0,
                    units::format(Unit::Nanoseconds, ns)
                );
                svg.band(&format!("part {}", flame::class(share)), corners, &words);
            }
            left_ns += ns;
        }
    }
    let caption = format!("CPU time per {per}, by share");
    Some(Chart::new(caption, svg, table(profile)))
}
