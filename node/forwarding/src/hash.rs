//! The hasher of the packet path's tables: fast, and seeded so that nobody outside can aim.

use std::hash::{BuildHasher, Hasher};

/// Makes hashers from the forwarding plane's seed.
#[derive(Clone, Copy)]
pub(crate) struct Seeded {
    start: u64,
    factor: u64,
}

impl Seeded {
    /// `factor` is made odd, so that no multiplication loses the low bits.
    pub(crate) fn new(start: u64, factor: u64) -> Self {
        Self { start, factor: factor | 1 }
    }
}

impl BuildHasher for Seeded {
    type Hasher = Folding;

    fn build_hasher(&self) -> Folding {
        Folding { state: self.start, factor: self.factor }
    }
}

/// Multiply and fold, a word at a time. Not a keyed hash in the cryptographic sense: the tables
/// behind it are bounded, and their worst case is a slow lookup, not a wrong one.
pub(crate) struct Folding {
    state: u64,
    factor: u64,
}

impl Folding {
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "both halves are folded together")]
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * u128::from(self.factor);
        self.state = (product as u64) ^ ((product >> 64) as u64) ^ self.state.rotate_left(23);
    }
}

impl Hasher for Folding {
    #[inline]
    fn write(&mut self, octets: &[u8]) {
        let (words, tail) = octets.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_ne_bytes(*word));
        }
        if !tail.is_empty() {
            let mut last = [0; 8];
            for (to, from) in last.iter_mut().zip(tail) {
                *to = *from;
            }
            self.mix(u64::from_ne_bytes(last));
        }
    }

    #[inline]
    fn write_u8(&mut self, value: u8) {
        self.mix(value.into());
    }

    #[inline]
    fn write_u32(&mut self, value: u32) {
        self.mix(value.into());
    }

    #[inline]
    fn write_u64(&mut self, value: u64) {
        self.mix(value);
    }

    #[inline]
    fn write_usize(&mut self, value: usize) {
        self.mix(value as u64);
    }

    #[inline]
    fn write_isize(&mut self, value: isize) {
        self.mix(u64::from_ne_bytes((value as i64).to_ne_bytes()));
    }

    #[inline]
    fn finish(&self) -> u64 {
        // The table takes its tag from the top bits and its place from the low ones.
        self.state ^ (self.state >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::net::{IpAddr, Ipv4Addr};

    #[test]
    fn neighbouring_addresses_spread() {
        let seeded = Seeded::new(7, 0x9e37_79b9_7f4a_7c15);
        let mut low = HashSet::new();
        for i in 0..65_536u32 {
            let addr = IpAddr::V4(Ipv4Addr::from(0xc000_0000 + i));
            low.insert(seeded.hash_one(addr) & 0xffff);
        }
        // 65,536 balls into as many bins leave about 63 % of them filled.
        assert!(low.len() > 35_000, "{}", low.len());
    }

    #[test]
    fn the_seed_matters() {
        let a = Seeded::new(1, 0x9e37_79b9_7f4a_7c15).hash_one(42u64);
        let b = Seeded::new(2, 0x9e37_79b9_7f4a_7c15).hash_one(42u64);
        assert_ne!(a, b);
    }
}
