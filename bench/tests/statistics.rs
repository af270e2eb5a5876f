//! The referee's statistics against SciPy's: `fixtures/statistics.json`, made by
//! `fixtures/statistics.py`.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail tests")]

use bench::stats::{
    RESAMPLES, cliffs_delta, holm, log_ratios, minimal_detectable, minimal_detectable_unpaired,
    paired_ratio, rank_sum_p, signed_rank_p, two_level, unpaired_ratio,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixtures {
    samples: Vec<Sample>,
    unpaired: Vec<Unpaired>,
    alternating: Vec<Alternating>,
    holm: Vec<Holm>,
}

#[derive(Deserialize)]
struct Sample {
    name: String,
    pairs: Vec<(f64, f64)>,
    seed: u64,
    ratio: f64,
    ci_low: f64,
    ci_high: f64,
    wilcoxon_p: f64,
    cliffs_delta: f64,
    minimal_detectable: f64,
}

#[derive(Deserialize)]
struct Unpaired {
    name: String,
    first: Vec<f64>,
    second: Vec<f64>,
    seed: u64,
    ratio: f64,
    ci_low: f64,
    ci_high: f64,
    mannwhitney_p: f64,
    minimal_detectable: f64,
}

#[derive(Deserialize)]
struct Alternating {
    name: String,
    rounds: Vec<Vec<f64>>,
    ratio: f64,
    ci_low: f64,
    ci_high: f64,
    p_value: f64,
    degrees_of_freedom: f64,
    sd_slice: f64,
    sd_round: f64,
    detectable: f64,
}

#[derive(Deserialize)]
struct Holm {
    p_values: Vec<f64>,
    adjusted: Vec<f64>,
}

fn fixtures() -> Fixtures {
    serde_json::from_str(include_str!("fixtures/statistics.json")).unwrap()
}

#[track_caller]
fn assert_close(what: &str, name: &str, ours: f64, theirs: f64, tolerance: f64) {
    let scale = theirs.abs().max(1e-3);
    assert!(
        (ours - theirs).abs() <= tolerance * scale,
        "{what} of `{name}`: {ours}, SciPy says {theirs}"
    );
}

#[test]
fn ratio_interval_and_test_are_those_of_scipy() {
    let samples = fixtures().samples;
    assert!(samples.len() >= 9);
    for sample in samples {
        let logs = log_ratios(&sample.pairs).unwrap();
        let ratio = paired_ratio(&logs, sample.seed, RESAMPLES).unwrap();
        let name = &sample.name;
        assert_close("ratio", name, ratio.ratio, sample.ratio, 1e-12);
        assert_close("lower end", name, ratio.ci_low, sample.ci_low, 1e-12);
        assert_close("upper end", name, ratio.ci_high, sample.ci_high, 1e-12);
        assert_close("p", name, signed_rank_p(&logs), sample.wilcoxon_p, 1e-9);
        let (first, second): (Vec<f64>, Vec<f64>) = sample.pairs.iter().copied().unzip();
        let delta = cliffs_delta(&first, &second).unwrap();
        assert_close("Cliff's delta", name, delta, sample.cliffs_delta, 1e-12);
        let effect = minimal_detectable(&logs, 1).unwrap();
        assert_close(
            "minimal detectable effect",
            name,
            effect,
            sample.minimal_detectable,
            1e-9,
        );
    }
}

#[test]
fn folders_are_compared_as_scipy_compares_independent_samples() {
    let samples = fixtures().unpaired;
    assert!(samples.len() >= 6);
    for sample in samples {
        let (first, second, name) = (&sample.first, &sample.second, &sample.name);
        let ratio = unpaired_ratio(first, second, sample.seed, RESAMPLES).unwrap();
        assert_close("ratio", name, ratio.ratio, sample.ratio, 1e-12);
        assert_close("lower end", name, ratio.ci_low, sample.ci_low, 1e-12);
        assert_close("upper end", name, ratio.ci_high, sample.ci_high, 1e-12);
        assert_eq!(ratio.pairs, first.len().min(second.len()));
        let p = rank_sum_p(first, second);
        assert_close("p", name, p, sample.mannwhitney_p, 1e-9);
        let effect = minimal_detectable_unpaired(first, second, 1).unwrap();
        let theirs = sample.minimal_detectable;
        assert_close("minimal detectable effect", name, effect, theirs, 1e-9);
    }
}

#[test]
fn alternating_bouts_are_compared_with_scipys_trimmed_means_and_distributions() {
    let samples = fixtures().alternating;
    assert!(samples.len() >= 7);
    for sample in samples {
        let found = two_level(&sample.rounds).unwrap();
        for (what, ours, theirs) in [
            ("ratio", found.ratio, sample.ratio),
            ("lower end", found.ci_low, sample.ci_low),
            ("upper end", found.ci_high, sample.ci_high),
            ("p", found.p_value, sample.p_value),
            (
                "degrees of freedom",
                found.degrees_of_freedom,
                sample.degrees_of_freedom,
            ),
            ("spread of slices", found.sd_slice, sample.sd_slice),
            ("spread of rounds", found.sd_round, sample.sd_round),
            ("detectable", found.detectable, sample.detectable),
        ] {
            assert_close(what, &sample.name, ours, theirs, 1e-9);
        }
    }
}

#[test]
fn holm_is_holm() {
    for case in fixtures().holm {
        for (ours, theirs) in holm(&case.p_values).into_iter().zip(case.adjusted) {
            assert_close("adjusted p", "holm", ours, theirs, 1e-12);
        }
    }
}
