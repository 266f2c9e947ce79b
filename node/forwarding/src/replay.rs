//! The anti-replay window (RFC 4303 §3.4.3, RFC 6479) and extended sequence numbers (RFC 4303
//! appendix A2).

/// Which sequence numbers one inbound SA has accepted.
///
/// A ring of words: sliding clears whole words and never shifts bits (RFC 6479 §2). The word that
/// is being filled does not count, so the window is one word smaller than the ring.
pub(crate) struct Window {
    /// The highest number accepted; 0 before the first.
    top: u64,
    ring: [u64; WORDS],
}

impl Window {
    pub(crate) fn new() -> Self {
        Self { top: 0, ring: [0; WORDS] }
    }

    /// The highest sequence number accepted so far.
    pub(crate) fn top(&self) -> u64 {
        self.top
    }

    /// The full number behind the 32 bits on the wire (RFC 4303 appendix A2.2): that one of the
    /// candidates which the window suggests. `None` if no number fits.
    pub(crate) fn extend(&self, low: u32, esn: bool) -> Option<u64> {
        let low = u64::from(low);
        if !esn {
            return Some(low);
        }
        let high = self.top >> 32;
        let top_low = self.top & LOW;
        let high = if top_low >= SIZE - 1 {
            // Case A: the window lies in one subspace.
            if low >= top_low - (SIZE - 1) { high } else { high.checked_add(1)? }
        } else if low >= (top_low.wrapping_sub(SIZE - 1) & LOW) {
            // Case B: it spans two, and this number belongs to the lower.
            high.checked_sub(1)?
        } else {
            high
        };
        (high <= LOW).then_some(high << 32 | low)
    }

    /// Whether `number` may be new. Costs nothing and proves nothing: asked before decryption.
    #[inline]
    pub(crate) fn may_accept(&self, number: u64) -> bool {
        if number == 0 {
            return false;
        }
        if number > self.top {
            return true;
        }
        self.top - number < SIZE && !self.is_marked(number)
    }

    /// Marks `number` as accepted; only for authenticated packets, after [`Self::may_accept`].
    #[inline]
    pub(crate) fn mark(&mut self, number: u64) {
        if number > self.top {
            let words = (number >> 6) - (self.top >> 6);
            if words >= WORDS as u64 {
                self.ring = [0; WORDS];
            } else {
                let start = self.top >> 6;
                for step in 1..=words {
                    *self.word(start + step) = 0;
                }
            }
            self.top = number;
        }
        *self.word(number >> 6) |= 1 << (number & 63);
    }

    #[expect(clippy::indexing_slicing, reason = "the index is masked to the ring's size")]
    fn is_marked(&self, number: u64) -> bool {
        self.ring[place(number >> 6)] >> (number & 63) & 1 == 1
    }

    #[expect(clippy::indexing_slicing, reason = "the index is masked to the ring's size")]
    fn word(&mut self, index: u64) -> &mut u64 {
        &mut self.ring[place(index)]
    }
}

#[expect(clippy::cast_possible_truncation, reason = "masked first")]
fn place(word: u64) -> usize {
    (word & (WORDS as u64 - 1)) as usize
}

/// A ring of 4,096 numbers: at 1 Mpacket/s four milliseconds of reordering. A power of two.
const WORDS: usize = 64;
/// Numbers below the highest that are still told apart (RFC 4303 asks for 32, suggests 64).
pub(crate) const SIZE: u64 = (WORDS as u64 - 1) * 64;
/// The half of a sequence number that is on the wire.
const LOW: u64 = 0xffff_ffff;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    /// The receiver's whole step on an authentic packet.
    fn take(window: &mut Window, number: u64) -> bool {
        let fresh = window.may_accept(number);
        if fresh {
            window.mark(number);
        }
        fresh
    }

    #[test]
    fn an_ordered_sequence_of_checks() {
        // (number, accepted): the order matters.
        let steps = [
            (0, false),
            (1, true),
            (1, false),
            (9, true),
            (8, true),
            (7, true),
            (7, false),
            (SIZE, true),
            (SIZE - 1, true),
            (SIZE - 1, false),
            (2, true),
            (2, false),
            (SIZE + 16, true),
            (3, false), // left of the window now
            (16, false),
            (17, true),
            (17, false),
            (SIZE * 4, true),
            (SIZE * 4 - (SIZE - 1), true),
            (10, false),
            (SIZE * 4 - SIZE, false),
            (SIZE * 4 - (SIZE - 1), false),
            (SIZE * 4 + 1, true),
            (0, false),
            (1 << 40, true),
            (1 << 40, false),
            ((1 << 40) - 1, true),
            ((1 << 40) - 1, false),
            (SIZE * 4 + 2, false),
        ];
        let mut window = Window::new();
        for (i, (number, accepted)) in steps.into_iter().enumerate() {
            assert_eq!(take(&mut window, number), accepted, "step {i}: {number}");
        }
    }

    /// Attack A31.
    #[test]
    fn the_window_is_at_least_2048() {
        const { assert!(SIZE >= 2048) };
        let mut window = Window::new();
        window.mark(SIZE);
        for number in 1..SIZE {
            assert!(take(&mut window, number), "{number}");
        }
        for number in 1..=SIZE {
            assert!(!take(&mut window, number), "{number}");
        }
    }

    #[test]
    fn extension_around_a_subspace_border() {
        let mut window = Window::new();
        window.mark(0xffff_fff0);
        assert_eq!(window.extend(0xffff_fff1, true), Some(0xffff_fff1));
        assert_eq!(window.extend(5, true), Some(0x1_0000_0005));
        window.mark(0x1_0000_0005);
        // Late packets from before the border keep their subspace.
        assert_eq!(window.extend(0xffff_ffff, true), Some(0xffff_ffff));
        assert_eq!(window.extend(6, true), Some(0x1_0000_0006));
        assert_eq!(window.extend(6, false), Some(6));
        // In the first subspace there is none below.
        assert_eq!(Window::new().extend(u32::MAX, true), None);
    }

    #[test]
    fn the_last_number_of_all_does_not_wrap() {
        let mut window = Window::new();
        window.mark(u64::MAX);
        assert!(!window.may_accept(u64::MAX));
        assert_eq!(window.extend(0, true), None);
    }

    proptest! {
        /// Against a set that remembers everything: nothing twice, and nothing inside the window
        /// refused that is new.
        /// CVE-2024-26861.
        #[test]
        fn like_a_set(jumps in proptest::collection::vec(-5000i64..5000, 1..400)) {
            let mut window = Window::new();
            let mut seen = HashSet::new();
            let mut at = 10_000i64;
            let mut top = 0;
            for jump in jumps {
                at = (at + jump).max(1);
                let number = at.unsigned_abs();
                let expected = number + SIZE > top && !seen.contains(&number);
                prop_assert_eq!(take(&mut window, number), expected);
                seen.insert(number);
                top = top.max(number);
            }
        }

        /// Any number near the highest is found again from its low half (RFC 4303 A2.2).
        #[test]
        fn extension_finds_the_number(top in 1u64.., away in -3000i64..1_000_000) {
            let top = top >> 1;
            let mut window = Window::new();
            window.mark(top);
            let Some(number) = top.checked_add_signed(away) else { return Ok(()) };
            #[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
            let low = number as u32;
            prop_assert_eq!(window.extend(low, true), Some(number));
        }
    }
}
