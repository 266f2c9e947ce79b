//! Large numbers, just enough of them to forge with: least significant limb first.

use std::cmp::Ordering;

/// A number of any size; no zero limbs at the top.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Number(Vec<u32>);

impl Number {
    pub(crate) fn from_octets(octets: &[u8]) -> Self {
        let limbs =
            octets.rchunks(4).map(|limb| limb.iter().fold(0, |n, o| n << 8 | u32::from(*o)));
        Self(limbs.collect()).trimmed()
    }

    /// Big-endian, with leading zeros up to `len` octets.
    pub(crate) fn to_octets(&self, len: usize) -> Vec<u8> {
        let mut octets: Vec<u8> = self.0.iter().flat_map(|limb| limb.to_le_bytes()).collect();
        assert!(octets.iter().skip(len).all(|octet| *octet == 0), "it does not fit");
        octets.resize(len, 0);
        octets.reverse();
        octets
    }

    fn trimmed(mut self) -> Self {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
        self
    }

    pub(crate) fn bits(&self) -> u32 {
        let top = self.0.last().map_or(0, |limb| 32 - limb.leading_zeros());
        top + 32 * u32::try_from(self.0.len().saturating_sub(1)).unwrap()
    }

    pub(crate) fn set(&mut self, bit: u32, value: bool) {
        let (limb, mask) = (usize::try_from(bit / 32).unwrap(), 1 << (bit % 32));
        if self.0.len() <= limb {
            self.0.resize(limb + 1, 0);
        }
        if value {
            self.0[limb] |= mask
        } else {
            self.0[limb] &= !mask
        }
        *self = Self(std::mem::take(&mut self.0)).trimmed();
    }

    fn bit(&self, bit: u32) -> bool {
        let limb = self.0.get(usize::try_from(bit / 32).unwrap()).copied().unwrap_or(0);
        limb >> (bit % 32) & 1 == 1
    }

    pub(crate) fn add(&self, other: &Self) -> Self {
        let mut carry = 0;
        let limbs = (0..self.0.len().max(other.0.len()) + 1).map(|at| {
            let of = |n: &Self| u64::from(n.0.get(at).copied().unwrap_or(0));
            let sum = of(self) + of(other) + carry;
            carry = sum >> 32;
            u32::try_from(sum & 0xffff_ffff).unwrap()
        });
        Self(limbs.collect()).trimmed()
    }

    pub(crate) fn subtract(&self, other: &Self) -> Self {
        let mut borrow = 0;
        let limbs = (0..self.0.len()).map(|at| {
            let of = |n: &Self| i64::from(n.0.get(at).copied().unwrap_or(0));
            let difference = of(self) - of(other) - borrow;
            borrow = i64::from(difference < 0);
            u32::try_from(difference.rem_euclid(1 << 32)).unwrap()
        });
        let difference = Self(limbs.collect()).trimmed();
        assert_eq!(borrow, 0, "below zero");
        difference
    }

    pub(crate) fn multiply(&self, other: &Self) -> Self {
        let mut out = vec![0_u32; self.0.len() + other.0.len()];
        for (i, a) in self.0.iter().enumerate() {
            let mut carry = 0;
            for (j, b) in other.0.iter().enumerate() {
                let sum = u64::from(out[i + j]) + u64::from(*a) * u64::from(*b) + carry;
                out[i + j] = u32::try_from(sum & 0xffff_ffff).unwrap();
                carry = sum >> 32;
            }
            out[i + other.0.len()] = u32::try_from(carry).unwrap();
        }
        Self(out).trimmed()
    }

    pub(crate) fn cube(&self) -> Self {
        self.multiply(self).multiply(self)
    }

    /// The largest number whose cube is no larger than this.
    pub(crate) fn cube_root(&self) -> Self {
        let mut root = Self(Vec::new());
        for bit in (0..=self.bits() / 3).rev() {
            root.set(bit, true);
            if root.cube() > *self {
                root.set(bit, false);
            }
        }
        root
    }

    /// An odd number whose cube ends in the same `bits` bits as this, which is odd.
    pub(crate) fn cube_root_of_the_end(&self, bits: u32) -> Self {
        let mut root = Self(vec![1]);
        for bit in 1..bits {
            if root.cube().bit(bit) != self.bit(bit) {
                root.set(bit, true);
            }
        }
        root
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_length = self.0.len().cmp(&other.0.len());
        by_length.then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()))
    }
}

#[test]
fn arithmetic() {
    let number = |text| Number::from_octets(&crate::unhex(text));
    let a = number("ffffffffffffffffffffffffffffffff");
    let b = number("010000000000000001");
    assert_eq!(a.add(&number("01")), number("0100000000000000000000000000000000"));
    assert_eq!(a.add(&b).subtract(&b), a);
    assert_eq!(
        a.multiply(&a),
        number("fffffffffffffffffffffffffffffffe00000000000000000000000000000001")
    );
    assert_eq!(b.cube().cube_root(), b);
    assert_eq!(b.cube().subtract(&number("01")).cube_root(), b.subtract(&number("01")));
    let end = number("deadbeefdeadbeefdeadbeefdeadbeef");
    let root = end.cube_root_of_the_end(128);
    assert!(root.cube().to_octets(48).ends_with(&end.to_octets(16)));
    assert_eq!(number("0001").to_octets(4), [0, 0, 0, 1]);
    assert_eq!(b.bits(), 65);
}
