//! The Internet checksum (RFC 1071), summed in machine words and in memory order.

/// A ones' complement sum under way. Octets are taken in memory order, so that the sum never
/// needs byte swaps (RFC 1071 §2 B).
#[derive(Clone, Copy, Default)]
pub(crate) struct Sum(u64);

impl Sum {
    /// Adds octets; an odd last one counts as if a zero followed it, so only the last part of a
    /// message may be odd.
    #[inline]
    pub(crate) fn octets(self, octets: &[u8]) -> Self {
        // Words of 32 bits in sums of 64: no carry can be lost below 2^32 words. Eight words of 64
        // at a time, taken in halves, become vector instructions, and twice as fast as one by one.
        let (blocks, rest) = octets.as_chunks::<64>();
        let (mut low, mut high) = ([0u64; 8], [0u64; 8]);
        for block in blocks {
            let (words, _) = block.as_chunks::<8>();
            for ((low, high), word) in low.iter_mut().zip(&mut high).zip(words) {
                let word = u64::from_ne_bytes(*word);
                *low = low.wrapping_add(word & 0xffff_ffff);
                *high = high.wrapping_add(word >> 32);
            }
        }
        let mut sum = low.iter().chain(&high).fold(self.0, |sum, part| sum.wrapping_add(*part));
        let (words, tail) = rest.as_chunks::<4>();
        for word in words {
            sum = sum.wrapping_add(u64::from(u32::from_ne_bytes(*word)));
        }
        let mut last = [0; 4];
        for (to, from) in last.iter_mut().zip(tail) {
            *to = *from;
        }
        Self(sum.wrapping_add(u64::from(u32::from_ne_bytes(last))))
    }

    /// Adds one 16-bit field, given in host order.
    pub(crate) fn word(self, value: u16) -> Self {
        Self(self.0.wrapping_add(u64::from(u16::from_ne_bytes(value.to_be_bytes()))))
    }

    /// The sum itself, as octets of the packet: what a partial checksum holds.
    pub(crate) fn folded(self) -> [u8; 2] {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).unwrap_or(u16::MAX).to_ne_bytes()
    }

    /// The checksum, as octets of the packet.
    pub(crate) fn checksum(self) -> [u8; 2] {
        let [a, b] = self.folded();
        [!a, !b]
    }

    /// Whether octets that contain their own checksum add up.
    pub(crate) fn is_valid(self) -> bool {
        self.folded() == [0xff, 0xff]
    }
}

/// The checksum after one 16-bit word that it covers changed (RFC 1624 §3, equation 3). A wrong
/// checksum stays wrong.
pub(crate) fn updated(checksum: [u8; 2], old: u16, new: u16) -> [u8; 2] {
    Sum::default().word(!u16::from_be_bytes(checksum)).word(!old).word(new).checksum()
}

/// The checksum after what it covers changed by this: the complement of the old and the new, summed
/// (RFC 1624 §3, equation 3).
pub(crate) fn changed_by(checksum: [u8; 2], difference: Sum) -> [u8; 2] {
    difference.word(!u16::from_be_bytes(checksum)).checksum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The slow way, as RFC 1071 §4.1 words it.
    fn by_the_book(octets: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in octets.chunks(2) {
            let low = pair.get(1).copied().unwrap_or(0);
            sum += u32::from(u16::from_be_bytes([pair[0], low]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap()
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let octets = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::default().octets(&octets).folded(), [0xdd, 0xf2]);
    }

    #[test]
    fn every_length_and_alignment() {
        let octets: Vec<u8> = (0..300u32).map(|i| (i * 37 + 11).to_le_bytes()[0]).collect();
        for start in 0..9 {
            for end in start..octets.len() {
                let part = &octets[start..end];
                let sum = Sum::default().octets(part).checksum();
                assert_eq!(u16::from_be_bytes(sum), by_the_book(part), "{start}..{end}");
            }
        }
    }

    #[test]
    fn all_ones_do_not_overflow() {
        let sum = Sum::default().octets(&[0xff; 65_535]).word(0xffff);
        assert_eq!(
            u16::from_be_bytes(sum.checksum()),
            by_the_book(&{
                let mut octets = vec![0xff; 65_536];
                octets[65_535] = 0;
                octets
            })
        );
    }

    #[test]
    fn an_update_keeps_good_good_and_bad_bad() {
        let mut header = [0x45, 0, 0, 20, 1, 2, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2];
        let sum = Sum::default().octets(&header).checksum();
        header[10..12].copy_from_slice(&sum);
        for damage in [0u8, 1] {
            let mut h = header;
            h[11] ^= damage;
            let new = updated([h[10], h[11]], u16::from_be_bytes([h[0], h[1]]), 0x4503);
            h[10..12].copy_from_slice(&new);
            h[1] = 3;
            assert_eq!(Sum::default().octets(&h).is_valid(), damage == 0);
        }
    }
}
