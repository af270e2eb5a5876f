//! The only random source: SplitMix64, seeded, so that anyone can reproduce every draw.
//!
//! Orders of runs and bootstrap resamples come from here. The generator is five lines in any
//! language (`bench-results/README.md` has it in Python), so an interval in `summary.json` can be
//! recomputed to the last digit from its seed without this program.

/// SplitMix64 (Steele, Lea, Flood 2014; the constants are those of `java.util.SplittableRandom`).
#[derive(Debug, Clone)]
pub struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    /// A generator whose whole sequence follows from `seed`.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// An index below `bound` (> 0), by taking the high half of a 128-bit product. Its bias is
    /// below `bound / 2^64`.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next_u64()) * bound as u128) >> 64) as usize
    }

    /// Fisher-Yates from the last element down.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let j = self.below(i + 1);
            items.swap(i, j);
        }
    }
}

/// A 32-bit seed for one named draw of a suite (FNV-1a over the name, mixed with the suite's seed).
///
/// 32 bits, because JSON readers such as jq keep integers exact only up to 2^53.
pub fn derive_seed(suite_seed: u64, name: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in name.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    SplitMix64::new(hash ^ suite_seed).next_u64() >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_is_the_published_one() {
        // The reference outputs for seed 1234567, as in Rosetta Code's "Pseudo-random
        // numbers/Splitmix64".
        let mut rng = SplitMix64::new(1_234_567);
        let drawn: Vec<u64> = (0..5).map(|_| rng.next_u64()).collect();
        assert_eq!(
            drawn,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423,
                4_593_380_528_125_082_431,
                16_408_922_859_458_223_821
            ]
        );
    }

    #[test]
    fn shuffle_keeps_all_and_reaches_every_order() {
        let mut rng = SplitMix64::new(1);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let mut items = [0, 1, 2];
            rng.shuffle(&mut items);
            let mut sorted = items;
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2]);
            seen.insert(items);
        }
        assert_eq!(seen.len(), 6);
    }

    #[test]
    fn derived_seeds_differ_by_name_and_by_suite_and_fit_32_bits() {
        let a = derive_seed(7, "echo/messages_per_s");
        assert_ne!(a, derive_seed(7, "echo/server_cpu_ns_per_message"));
        assert_ne!(a, derive_seed(8, "echo/messages_per_s"));
        assert_eq!(a, derive_seed(7, "echo/messages_per_s"));
        assert!(a <= u64::from(u32::MAX));
    }
}
