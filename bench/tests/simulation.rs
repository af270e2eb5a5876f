//! Does the verdict keep its word? Synthetic bouts with a known effect: 10% noise, slow drift,
//! occasional stalls.
//!
//! This is for runs that are interleaved; bouts that alternate have `coverage.rs`. What is counted
//! here with 1,000 trials is quoted in `docs/method.md`; every trial is seeded, so the rates are
//! the same everywhere. The tests do with 400: that the signed-rank and the rank-sum test hold
//! their error is exact by construction and checked against SciPy (`statistics.rs`), so trials only
//! have to show that the interval beside them, drift and stalls do not break it, and a share near
//! 5% is then known to 1.1 points instead of 0.7. The bootstrap takes 400 resamples instead of
//! 10,000 (200 where it is taken after every block): the ends of an interval then tremble by a
//! fraction of their own error, which makes false claims more likely, not less.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail tests")]

use bench::stats::rng::SplitMix64;
use bench::stats::{
    ALPHA, Direction, POWER, PairedRatio, RUNS_FOR_A_CLAIM, holm, minimal_detectable, paired_ratio,
    rank_sum_p, signed_rank_p, unpaired_ratio,
};
use bench::summary::verdict::{Significance, compare};

const TRIALS: u64 = 400;
const RESAMPLES: usize = 400;
const RESAMPLES_WHILE_STOPPING: usize = 200;

/// A machine on which runs vary.
#[derive(Clone, Copy)]
struct Machine {
    /// Standard deviation of the logarithm of a run.
    noise: f64,
    /// Share of the runs that a stall costs 20 to 60% of their throughput.
    stalls: f64,
}

const NOISY: Machine = Machine {
    noise: 0.10,
    stalls: 0.05,
};

impl Machine {
    /// ln(first / second) of `blocks` blocks of two runs in random order, on a machine that drifts
    /// by up to 30% over the suite and by 1% from run to run; the first contestant is exp(`effect`)
    /// times as fast.
    fn bout(self, blocks: usize, effect: f64, rng: &mut SplitMix64) -> Vec<f64> {
        let trend = 0.6 * uniform(rng) - 0.3;
        let mut level = 0.0;
        (0..blocks)
            .map(|_| {
                let mut run = || {
                    level += 0.01 * normal(rng) + trend / (2 * blocks) as f64;
                    level + self.run(rng)
                };
                let (earlier, later) = (run(), run());
                let difference = if rng.below(2) == 0 {
                    earlier - later
                } else {
                    later - earlier
                };
                difference + effect
            })
            .collect()
    }

    /// Figures of so many runs of one folder, whose machine and contestant are together
    /// exp(`level`) times as fast. There is no drift.
    fn folder(self, runs: usize, level: f64, rng: &mut SplitMix64) -> Vec<f64> {
        (0..runs).map(|_| (level + self.run(rng)).exp()).collect()
    }

    /// Logarithm of what noise and stalls make of one run.
    fn run(self, rng: &mut SplitMix64) -> f64 {
        let stalled = uniform(rng) < self.stalls;
        let stall = if stalled {
            (0.4 + 0.4 * uniform(rng)).ln()
        } else {
            0.0
        };
        self.noise * normal(rng) + stall
    }
}

fn uniform(rng: &mut SplitMix64) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

/// Box and Muller.
fn normal(rng: &mut SplitMix64) -> f64 {
    let radius = (-2.0 * (1.0 - uniform(rng)).ln()).sqrt();
    radius * (std::f64::consts::TAU * uniform(rng)).cos()
}

/// What the referee finds.
struct Finding {
    /// `first` or `second`.
    winner: Option<String>,
    interval: (f64, f64),
    half_width: f64,
}

fn find(logs: &[f64], seed: u64, resamples: usize) -> Finding {
    finding(
        paired_ratio(logs, seed, resamples).unwrap(),
        signed_rank_p(logs),
    )
}

/// What `bench compare` finds.
fn find_unpaired(first: &[f64], second: &[f64], seed: u64) -> Finding {
    finding(
        unpaired_ratio(first, second, seed, RESAMPLES).unwrap(),
        rank_sum_p(first, second),
    )
}

fn finding(ratio: PairedRatio, p: f64) -> Finding {
    let significance = Significance {
        p_value: p,
        p_adjusted: p,
        family: 1,
        minimal_detectable: None,
    };
    let verdict = compare(
        "first",
        "second",
        Direction::HigherIsBetter,
        &ratio,
        &significance,
        true,
    );
    Finding {
        winner: verdict.winner,
        interval: (ratio.ci_low, ratio.ci_high),
        half_width: ratio.half_width(),
    }
}

fn share(hits: usize) -> f64 {
    hits as f64 / TRIALS as f64
}

/// Shares of trials in which the verdict names a winner, names the wrong one, and the interval
/// alone misses the truth.
fn rates(machine: Machine, blocks: usize, ratio: f64, seed: u64) -> (f64, f64, f64) {
    let mut rng = SplitMix64::new(seed);
    rates_of(&format!("n = {blocks}"), ratio, |trial| {
        find(
            &machine.bout(blocks, ratio.ln(), &mut rng),
            trial,
            RESAMPLES,
        )
    })
}

fn rates_of(what: &str, ratio: f64, mut find: impl FnMut(u64) -> Finding) -> (f64, f64, f64) {
    let (mut named, mut wrong, mut missed) = (0, 0, 0);
    for trial in 0..TRIALS {
        let finding = find(trial);
        named += usize::from(finding.winner.is_some());
        wrong += usize::from(finding.winner.is_some_and(|winner| winner == "second"));
        missed += usize::from(ratio < finding.interval.0 || ratio > finding.interval.1);
    }
    println!(
        "{what}, ratio {ratio}: a winner in {:.1}%, the slower one in {:.1}%, interval misses the truth in {:.1}%",
        share(named) * 100.0,
        share(wrong) * 100.0,
        share(missed) * 100.0
    );
    (share(named), share(wrong), share(missed))
}

#[test]
fn equals_are_told_apart_in_at_most_one_trial_of_twenty() {
    for blocks in [RUNS_FOR_A_CLAIM, 16, 24] {
        let (named, _, missed) = rates(NOISY, blocks, 1.0, 1);
        assert!(named <= ALPHA, "n = {blocks}: {named}");
        assert!(
            missed <= 0.10,
            "n = {blocks}: the interval misses 1 in {missed}"
        );
    }
}

#[test]
fn the_stated_effect_is_found_in_four_trials_of_five_and_never_the_wrong_way_round() {
    for (blocks, ratio) in [(RUNS_FOR_A_CLAIM, 1.28), (16, 1.19), (24, 1.14)] {
        let (named, wrong, missed) = rates(NOISY, blocks, ratio, 2);
        assert!(named >= POWER, "n = {blocks}: {ratio} found in {named}");
        assert!(wrong <= 0.001, "n = {blocks}: {wrong}");
        assert!(
            missed <= 0.10,
            "n = {blocks}: the interval misses {ratio} in {missed}"
        );
    }
}

#[test]
fn what_is_printed_as_detectable_is_detected() {
    for machine in [
        NOISY,
        Machine {
            stalls: 0.0,
            ..NOISY
        },
    ] {
        for blocks in [RUNS_FOR_A_CLAIM, 16, 24] {
            let mut rng = SplitMix64::new(3);
            let stated: Vec<f64> = (0..TRIALS)
                .map(|_| minimal_detectable(&machine.bout(blocks, 0.0, &mut rng), 1).unwrap())
                .collect();
            let usual = bench::stats::median_of(&stated).unwrap();
            let (named, ..) = rates(machine, blocks, usual, 4);
            assert!(named >= 0.78, "n = {blocks}: {usual} found in {named}");
        }
    }
}

#[test]
fn four_percentiles_of_one_latency_raise_a_false_alarm_in_at_most_one_trial_of_twenty() {
    let mut rng = SplitMix64::new(5);
    let mut alarms = 0;
    for _ in 0..TRIALS {
        // Percentiles move together, and each has noise of its own.
        let common = NOISY.bout(RUNS_FOR_A_CLAIM, 0.0, &mut rng);
        let p_values: Vec<f64> = (0..4)
            .map(|_| {
                let own = NOISY.bout(RUNS_FOR_A_CLAIM, 0.0, &mut rng);
                let logs: Vec<f64> = common.iter().zip(own).map(|(a, b)| a + b).collect();
                signed_rank_p(&logs)
            })
            .collect();
        alarms += usize::from(holm(&p_values).iter().any(|p| *p <= ALPHA));
    }
    println!(
        "Holm over four percentiles: a false alarm in {:.1}%",
        share(alarms) * 100.0
    );
    assert!(share(alarms) <= ALPHA, "{}", share(alarms));
}

/// `--until-ci 3%`: blocks are added until the interval is narrow, whatever it says. With 5% noise
/// it is looked at most often. The limit lies between what the verdict makes in 1,000 trials, 4.1%,
/// and what the interval alone would, 11.6%.
#[test]
fn stopping_by_the_width_of_the_interval_makes_no_more_false_claims() {
    let limit = 0.075;
    let machine = Machine {
        noise: 0.05,
        ..NOISY
    };
    let mut rng = SplitMix64::new(6);
    let (mut named, mut by_interval_alone, mut blocks_run) = (0, 0, 0);
    for trial in 0..TRIALS {
        let logs = machine.bout(40, 0.0, &mut rng);
        let mut blocks = RUNS_FOR_A_CLAIM;
        let mut finding = find(&logs[..blocks], trial, RESAMPLES_WHILE_STOPPING);
        while finding.half_width > 0.03 && blocks < logs.len() {
            blocks += 1;
            finding = find(&logs[..blocks], trial, RESAMPLES_WHILE_STOPPING);
        }
        let (low, high) = finding.interval;
        named += usize::from(finding.winner.is_some());
        by_interval_alone += usize::from(low > 1.0 || high < 1.0);
        blocks_run += blocks;
    }
    println!(
        "until 3%: {:.0} blocks on average, a winner in {:.1}%; the interval alone would name one in {:.1}%",
        blocks_run as f64 / TRIALS as f64,
        share(named) * 100.0,
        share(by_interval_alone) * 100.0
    );
    assert!(share(named) <= limit, "{}", share(named));
    assert!(share(by_interval_alone) > limit, "no need for the test");
}

/// As [`rates`], for two folders of `runs` runs each, the first of which has figures `ratio` times
/// those of the second.
fn rates_unpaired(runs: usize, ratio: f64, seed: u64) -> (f64, f64, f64) {
    let mut rng = SplitMix64::new(seed);
    rates_of(&format!("two folders of {runs}"), ratio, |trial| {
        let first = NOISY.folder(runs, ratio.ln(), &mut rng);
        let second = NOISY.folder(runs, 0.0, &mut rng);
        find_unpaired(&first, &second, trial)
    })
}

#[test]
fn equal_folders_are_told_apart_in_at_most_one_trial_of_twenty() {
    let (named, _, missed) = rates_unpaired(RUNS_FOR_A_CLAIM, 1.0, 7);
    assert!(named <= ALPHA, "{named}");
    assert!(missed <= 0.10, "{missed}");
}

#[test]
fn the_stated_effect_between_folders_is_found_in_four_trials_of_five() {
    let (named, wrong, missed) = rates_unpaired(RUNS_FOR_A_CLAIM, 1.21, 8);
    assert!(named >= POWER, "{named}");
    assert!(wrong <= 0.001, "{wrong}");
    assert!(missed <= 0.10, "{missed}");
}

/// Why folders are the weaker way: equal servers, and a machine that is 15% slower while the second
/// folder is made.
#[test]
fn a_machine_that_changes_between_the_folders_is_taken_for_a_difference() {
    let (drifted, ..) = rates_unpaired(16, 1.0 / 0.85, 9);
    assert!(drifted >= POWER, "{drifted}");
}
