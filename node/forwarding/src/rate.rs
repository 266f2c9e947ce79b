//! A limit on how often something is done on behalf of strangers.

use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::hash::Seeded;

/// At most so many times in a second.
pub(crate) struct Rate {
    per_second: u32,
    left: u32,
    since: Instant,
}

impl Rate {
    pub(crate) fn new(now: Instant, per_second: u32) -> Self {
        Self { per_second, left: per_second, since: now }
    }

    /// Whether it may be done now; if so, it counts.
    pub(crate) fn allow(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            self.since = now;
            self.left = self.per_second;
        }
        let allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        allowed
    }
}

/// At most so many times in a second for one source, and for all together: who asks for too much
/// takes it from himself.
pub(crate) struct RateBySource {
    hasher: Seeded,
    all: Rate,
    each: u8,
    since: Instant,
    /// What was done this second, by place; several sources may share one.
    done: [u8; PLACES],
}

impl RateBySource {
    pub(crate) fn new(now: Instant, hasher: Seeded, all: u32, each: u8) -> Self {
        Self { hasher, all: Rate::new(now, all), each, since: now, done: [0; PLACES] }
    }

    /// Whether it may be done now for this source; if so, it counts.
    pub(crate) fn allow(&mut self, now: Instant, source: IpAddr) -> bool {
        if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            self.since = now;
            self.done = [0; PLACES];
        }
        let hash = self.hasher.hash_one(prefix(source));
        let place = usize::try_from(hash % PLACES as u64).unwrap_or(0);
        let Some(done) = self.done.get_mut(place) else { return false };
        if *done >= self.each || !self.all.allow(now) {
            return false;
        }
        *done += 1;
        true
    }
}

/// What counts as one source: who has one address of these has all of them.
fn prefix(source: IpAddr) -> u64 {
    match source {
        IpAddr::V4(source) => u64::from(source.to_bits() >> 8),
        IpAddr::V6(source) => {
            let [a, b, c, d, e, f, g, ..] = source.octets();
            u64::from_be_bytes([1, a, b, c, d, e, f, g])
        }
    }
}

/// One flooding prefix is in the way of one in so many others.
const PLACES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_a_second() {
        let start = Instant::now();
        let mut rate = Rate::new(start, 4);
        let done = |rate: &mut Rate, from: u64, to: u64| {
            (from..to).filter(|ms| rate.allow(start + Duration::from_millis(*ms))).count()
        };
        assert_eq!(done(&mut rate, 0, 1000), 4);
        assert_eq!(done(&mut rate, 1000, 3000), 8);
    }
    /// P13.
    #[test]
    fn a_flooding_prefix_takes_nobody_elses() {
        let start = Instant::now();
        let mut rate = RateBySource::new(start, Seeded::new(3, 0x9e37_79b9_7f4a_7c15), 64, 4);
        let (mut flood, mut others) = (0, 0);
        for ms in 0..10_000_u32 {
            let now = start + Duration::from_millis(ms.into());
            let [.., low] = ms.to_be_bytes();
            flood += u32::from(rate.allow(now, [203, 0, 113, low].into()));
            if ms % 100 == 99 {
                let second = u8::try_from(ms / 1000).unwrap();
                others += u32::from(rate.allow(now, [198, 51, second, 1].into()));
            }
        }
        assert_eq!(flood, 4 * 10);
        // Those of one second are of one prefix.
        assert_eq!(others, 4 * 10);
        // And all together have an end.
        let all = (0..=255)
            .filter(|n| rate.allow(start + Duration::from_secs(60), [10, 0, *n, 1].into()));
        assert!((48..=64).contains(&all.count()));
        // Of IPv6 the first 56 bits count.
        let source = |n: u16| IpAddr::from([0x2001, 0xdb8, 0, n, n, 0, 0, 1]);
        let now = start + Duration::from_secs(70);
        assert_eq!((0..256).filter(|n| rate.allow(now, source(*n))).count(), 4);
    }
}
