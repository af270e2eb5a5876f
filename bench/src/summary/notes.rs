//! What a reader must know before the figures.

use super::{Bout, Noise, Setting};

pub(super) fn notes(setting: &Setting, bouts: &[Bout], noise: Option<&Noise>) -> Vec<String> {
    let mut notes = Vec::new();
    for one in noise
        .iter()
        .flat_map(|noise| &noise.bouts)
        .filter(|one| one.found)
    {
        notes.push(format!(
            "NOISY: {} against itself in {}: {}. There is no such difference, so do not trust the others of this suite either.",
            one.contestant, one.bout, one.words
        ));
    }
    if setting.interrupted {
        notes.push(
            "INTERRUPTED: the suite was ended early; what had been run is below. `bench --resume DIR` runs the rest."
                .to_owned(),
        );
    }
    notes.extend(
        setting
            .aborted
            .iter()
            .map(|error| format!("ABORTED: {error}")),
    );
    if !setting.changed.is_empty() {
        notes.push(format!(
            "RESUMED BY FORCE, so that runs of unlike things are compared: {}.",
            setting.changed.join("; ")
        ));
    }
    notes.extend(
        setting
            .cut
            .iter()
            .map(|cut| format!("FEWER BLOCKS THAN PLANNED: {cut}.")),
    );
    for entrant in setting.contestants.iter().filter(|one| one.again.is_none()) {
        if let Some(reason) = &entrant.excluded {
            notes.push(format!("EXCLUDED: {}: {reason}", entrant.name));
        }
    }
    // A suite that ended early has too few runs everywhere, which needs no list.
    if !setting.interrupted && setting.aborted.is_none() {
        notes.extend(too_few(setting, bouts));
    }
    notes
}

fn too_few(setting: &Setting, bouts: &[Bout]) -> Option<String> {
    let lacking: Vec<String> = bouts
        .iter()
        .flat_map(|bout| bout.contestants.iter().map(move |showing| (bout, showing)))
        .filter(|(_, showing)| !showing.enough)
        .map(|(bout, showing)| {
            format!(
                "{} of {} in {}",
                showing.valid_runs, showing.contestant, bout.scenario.name
            )
        })
        .collect();
    (!lacking.is_empty()).then(|| {
        format!(
            "TOO FEW VALID RUNS ({} needed): {}.",
            setting.runs_needed,
            lacking.join(", ")
        )
    })
}
