//! Numbers that look random and are the same for the same seed.

/// Steele and Vigna's splitmix64.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// From a seed, which a test prints.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The seed of EDGEVEIL_SEED, or this one.
    pub fn seed(or: u64) -> u64 {
        let set = std::env::var("EDGEVEIL_SEED").ok();
        set.map_or(or, |seed| seed.parse().expect("EDGEVEIL_SEED is a number"))
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of 0..n.
    pub fn below(&mut self, n: u64) -> u64 {
        self.roll() % n
    }
}
