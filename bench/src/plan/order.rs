//! Which run comes when. Pure.
//!
//! A suite goes round its bouts, in random order; each time a bout has one block or round of its
//! own. A block holds one run of every contestant, in random order; a round holds all at once. So
//! what is compared stands side by side in time, each bout is spread over the whole suite (a bad
//! minute of the machine hits one block of every bout, not all of one bout), and a suite that ends
//! early ends with the same number of blocks everywhere.

use crate::stats::rng::{SplitMix64, derive_seed};

/// Order of `contestants` in a block of a bout, as indices.
pub fn order_in_block(suite_seed: u64, bout: &str, block: usize, contestants: usize) -> Vec<usize> {
    shuffled(
        derive_seed(suite_seed, &format!("order/{bout}/{block}")),
        contestants,
    )
}

/// Order of `contestants` in a cycle of a round of an alternating bout, as indices.
pub fn order_in_cycle(
    suite_seed: u64,
    bout: &str,
    round: usize,
    cycle: usize,
    contestants: usize,
) -> Vec<usize> {
    shuffled(
        derive_seed(suite_seed, &format!("cycle/{bout}/{round}/{cycle}")),
        contestants,
    )
}

/// Which block of a bout with `blocks` of them comes in a round of the suite, which has `rounds`:
/// those of a bout with fewer are spread over the suite. After the planned rounds each brings one
/// more.
pub fn block_in_round(round: usize, rounds: usize, blocks: usize) -> Option<usize> {
    if round > rounds {
        return Some(blocks + round - rounds);
    }
    let until = |round: usize| (round * blocks).div_ceil(rounds.max(1));
    (until(round) > until(round - 1)).then(|| until(round))
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
    fn the_blocks_of_a_short_bout_are_spread_over_the_suite() {
        let of = |blocks| (1..=10).map(move |round| block_in_round(round, 10, blocks));
        let rounds = |blocks| -> Vec<usize> {
            let of_round = of(blocks).zip(1..);
            of_round
                .filter_map(|(block, round)| block.map(|_| round))
                .collect()
        };
        assert_eq!(rounds(10), (1..=10).collect::<Vec<_>>());
        assert_eq!(rounds(5), [1, 3, 5, 7, 9]);
        assert_eq!(rounds(3), [1, 4, 7]);
        assert_eq!(of(4).flatten().collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_eq!(block_in_round(12, 10, 4), Some(6));
    }
}
