//! Which run comes when. Pure.
//!
//! A suite runs in rounds. Round *r* holds block *r* of every bout, the bouts in random order; a
//! block holds one run of every contestant, in random order. So the runs that are compared stand
//! side by side in time, each bout is spread over the whole suite (a bad minute of the machine hits
//! one block of every bout, not all of one bout), and a suite that ends early ends with the same
//! number of blocks everywhere.

use crate::stats::rng::{SplitMix64, derive_seed};

/// Order of `contestants` in a block of a bout, as indices.
pub fn order_in_block(suite_seed: u64, bout: &str, block: usize, contestants: usize) -> Vec<usize> {
    shuffled(
        derive_seed(suite_seed, &format!("order/{bout}/{block}")),
        contestants,
    )
}

/// Order of `bouts` in a round, as indices.
pub fn order_of_bouts(suite_seed: u64, round: usize, bouts: usize) -> Vec<usize> {
    shuffled(derive_seed(suite_seed, &format!("round/{round}")), bouts)
}

fn shuffled(seed: u64, count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    SplitMix64::new(seed).shuffle(&mut order);
    order
}

/// Valid runs each contestant of a bout needs for the suite to succeed: four fifths of the blocks.
pub fn runs_needed(repeats: usize) -> usize {
    (repeats * 4).div_ceil(5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_follow_from_the_seed_and_differ_between_blocks() {
        let order = |seed, block| order_in_block(seed, "echo", block, 3);
        assert_eq!(order(1, 1), order(1, 1));
        let of_blocks: std::collections::BTreeSet<Vec<usize>> =
            (1..40).map(|block| order(1, block)).collect();
        assert_eq!(of_blocks.len(), 6, "every order occurs");
        assert_ne!(
            (1..20).map(|block| order(1, block)).collect::<Vec<_>>(),
            (1..20).map(|block| order(2, block)).collect::<Vec<_>>()
        );
        let mut bouts = order_of_bouts(1, 1, 13);
        bouts.sort_unstable();
        assert_eq!(bouts, (0..13).collect::<Vec<_>>());
    }

    #[test]
    fn needed_runs_are_four_fifths_rounded_up() {
        assert_eq!([1, 2, 5, 10, 12, 16].map(runs_needed), [1, 2, 4, 8, 10, 13]);
    }
}
