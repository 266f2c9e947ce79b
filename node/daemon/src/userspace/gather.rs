//! Letting packets gather, where the kernel does not join them.
//!
//! Without UDP every packet of a burst wakes the thread by itself: it is on another core than the
//! sender, is done with one before the next has come, and a super-packet of 45 is taken in ten
//! receives and written to the device in as many pieces. While many come it is worth looking away
//! for a moment, as network cards do with their interrupts: a third more packets for each CPU
//! second. A few packets, such as an answer somebody waits for, are taken at once.

use std::time::{Duration, Instant};

/// How many packets have come lately.
pub(super) struct Gathering {
    since: Instant,
    packets: usize,
    /// Whether many came in the span before this one.
    lively: bool,
}

impl Gathering {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, packets: 0, lively: false }
    }

    /// So many packets have come.
    pub(super) fn received(&mut self, packets: usize) {
        self.packets += packets;
    }

    /// How long to wait before what has come is taken; `None` for not at all.
    pub(super) fn wait(&mut self, now: Instant) -> Option<Duration> {
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed >= SPAN {
            self.lively = self.packets >= MANY && elapsed < 2 * SPAN;
            (self.since, self.packets) = (now, 0);
        }
        (self.lively || self.packets >= MANY).then_some(WAIT)
    }
}

/// Over which packets are counted.
const SPAN: Duration = Duration::from_millis(1);
/// So many in that time are a transfer: 0.4 Gbit/s of full-sized packets.
const MANY: usize = 32;
/// With the kernel's own slack of 50 microseconds it becomes a tenth of a millisecond: two bursts
/// of 45 packets, and less than one batch.
const WAIT: Duration = Duration::from_micros(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_waits_and_an_answer_does_not() {
        let start = Instant::now();
        let at = |micros| start + Duration::from_micros(micros);
        let mut gathering = Gathering::new(start);
        for micros in (0..100_000).step_by(100) {
            assert_eq!(gathering.wait(at(micros)), None, "ten a millisecond: at {micros}");
            gathering.received(1);
        }
        gathering.received(2 * MANY);
        for micros in (100_000..110_000).step_by(200) {
            assert!(gathering.wait(at(micros)).is_some(), "at {micros}");
            gathering.received(20);
        }
        // As soon as it is over, nothing waits any more.
        assert_eq!(gathering.wait(at(113_000)), None);
    }
}
