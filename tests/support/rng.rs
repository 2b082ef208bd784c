//! A random number generator with a seed, so that a campaign can be repeated.

use std::env;

/// The seed, unless the environment names another one.
const SEED: u64 = 7;

/// A SplitMix64 generator.
pub struct Rng(pub u64);

impl Rng {
    /// Returns the generator for a part of a campaign, and prints the seed.
    pub fn new(part: &str) -> Rng {
        let seed = seed();
        println!("{part}: STORECACHE_CAMPAIGN_SEED={seed}");
        let mixed = part.bytes().fold(seed, |sum, byte| sum.wrapping_mul(31) ^ u64::from(byte));
        Rng(mixed)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `0..end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.number() % end.max(1) as u64) as usize
    }

    pub fn choose<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

pub fn seed() -> u64 {
    let set = env::var("STORECACHE_CAMPAIGN_SEED").ok();
    set.map_or(SEED, |seed| seed.parse().expect("STORECACHE_CAMPAIGN_SEED is a number"))
}

/// Whether the long campaign is selected, with every fault at every point.
pub fn is_long() -> bool {
    env::var("STORECACHE_CAMPAIGN").is_ok_and(|value| value == "long")
}

/// The number of faults that a part injects: `bounded` in ordinary test runs, `long` in the long campaign.
pub fn count(bounded: usize, long: usize) -> usize {
    if is_long() { long } else { bounded }
}
