//! A limit on how often something is done on behalf of strangers.

use std::time::{Duration, Instant};

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
}
