//! Flows that nobody has heard of: how many a second are let into hold, and so to the keying plane.
//!
//! Each costs a question to DNS, a decision and perhaps a kernel route, a hundred times what its
//! packet costs. A flood of them is refused here, before anything is allocated. Whoever is refused
//! and means it sends again, as TCP and DNS do after a second; a flood of fresh addresses does not.
//! So there is a mark for each flow refused lately, and who comes again goes by a budget of his own.

use std::hash::BuildHasher as _;
use std::time::{Duration, Instant};

use sa::Flow;

use crate::hash::Seeded;

/// Who is let in.
pub(crate) struct Newcomers {
    hasher: Seeded,
    fresh: Pace,
    again: Pace,
    /// By place a mark of the flow that was refused there last; empty until one is.
    refused: Box<[u32]>,
}

impl Newcomers {
    /// So many a second, and as many again that come for the second time.
    pub(crate) fn new(now: Instant, hasher: Seeded, per_second: u32) -> Self {
        let pace = || Pace::new(now, per_second);
        Self { hasher, fresh: pace(), again: pace(), refused: Box::default() }
    }

    /// Whether a flow without an entry is let in now; if so, it counts.
    #[inline]
    pub(crate) fn admit(&mut self, now: Instant, flow: &Flow) -> bool {
        self.fresh.take(now) || self.came_again(now, flow)
    }

    fn came_again(&mut self, now: Instant, flow: &Flow) -> bool {
        if self.refused.is_empty() {
            self.refused = vec![0; MARKS].into();
        }
        let hash = self.hasher.hash_one(flow);
        let [a, b, c, d, e, f, g, h] = hash.to_ne_bytes();
        let mark = u32::from_ne_bytes([a, b, c, d]) | 1;
        let place = usize::try_from(u32::from_ne_bytes([e, f, g, h])).unwrap_or(0) % MARKS;
        let Some(seen) = self.refused.get_mut(place) else { return false };
        if *seen == mark && self.again.take(now) {
            *seen = 0;
            return true;
        }
        *seen = mark;
        false
    }
}

/// So many a second on average, and what was left over of the last seconds at once.
struct Pace {
    interval: Duration,
    slack: Duration,
    /// When the last one taken will have been paid for.
    free_at: Instant,
}

impl Pace {
    fn new(now: Instant, per_second: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        let slack = interval * BURST.max(per_second);
        Self { interval, slack, free_at: now }
    }

    #[inline]
    fn take(&mut self, now: Instant) -> bool {
        let start = self.free_at.max(now);
        let free = start.saturating_duration_since(now) <= self.slack;
        if free {
            self.free_at = start + self.interval;
        }
        free
    }
}

/// What comes at once after a silence: as many flows as one host may have in hold. A mesh or a
/// browser that starts is no flood.
const BURST: u32 = 2048;
/// Half a megabyte. A mark stands until another flow is refused at its place: with ten thousand
/// refused a second more than nine of ten stand for a second, and three quarters for three.
const MARKS: usize = 1 << 17;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const RATE: u32 = 250;

    fn flow(host: u32) -> Flow {
        Flow::new([192, 0, 2, 1].into(), Ipv4Addr::from(0x0a00_0000 + host).into()).unwrap()
    }

    fn newcomers(now: Instant) -> Newcomers {
        Newcomers::new(now, Seeded::new(3, 0x9e37_79b9_7f4a_7c15), RATE)
    }

    /// P13.
    #[test]
    fn a_flood_has_its_share_and_no_more() {
        let start = Instant::now();
        let mut newcomers = newcomers(start);
        let let_in = (0..100_000)
            .filter(|i| {
                newcomers.admit(start + Duration::from_micros(u64::from(*i) * 100), &flow(*i))
            })
            .count();
        let most = usize::try_from(BURST + 10 * RATE).unwrap();
        assert!((most - 10..most + 20).contains(&let_in), "{let_in}");
    }

    /// P13: a legitimate one is let in when it sends again.
    #[test]
    fn who_comes_again_is_let_in_beside_a_flood() {
        let start = Instant::now();
        let mut newcomers = newcomers(start);
        let (mut first, mut second, mut tried) = (0, 0, 0);
        for i in 0..200_000u32 {
            let now = start + Duration::from_micros(u64::from(i) * 100);
            newcomers.admit(now, &flow(i));
            // A hundred a second that mean it: now, and a second later.
            if i >= 100_000 && i % 100 == 50 {
                tried += 1;
                first += u32::from(newcomers.admit(now, &flow(0x0100_0000 + i)));
                second += u32::from(newcomers.admit(now, &flow(0x0100_0000 + i - 10_000)));
            }
        }
        assert!(first < tried / 5, "{first} of {tried}");
        // Those of the first second had not been there before.
        assert!(second > (tried - 100) * 85 / 100, "{second} of {tried}");
    }

    #[test]
    fn without_a_flood_nobody_is_refused() {
        let start = Instant::now();
        let mut newcomers = newcomers(start);
        for i in 0..=BURST {
            assert!(newcomers.admit(start, &flow(i)));
        }
        let later = start + Duration::from_secs(60);
        for i in 0..10 * RATE {
            assert!(newcomers.admit(later + Duration::from_millis(u64::from(i) * 4), &flow(i)));
        }
        assert!(newcomers.refused.is_empty());
        let mut unlimited = Newcomers::new(start, newcomers.hasher, u32::MAX);
        assert!((0..100_000).all(|i| unlimited.admit(start, &flow(i))));
    }
}
