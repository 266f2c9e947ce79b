//! Gateways that do not answer, and for how long: they are tried after others, and again after as
//! long as they have been silent.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ike::End;

use crate::config::Lives;

/// Gateways that have not answered of late.
#[derive(Debug, Default)]
pub(crate) struct Silences {
    gateways: BTreeMap<IpAddr, Silence>,
}

#[derive(Clone, Copy, Debug)]
struct Silence {
    /// When it was first seen not to answer, without an answer since.
    since: Instant,
    /// When it was last seen so.
    last: Instant,
}

impl Silence {
    /// It did not answer once more. If longer ago than whoever is called in vain again and again is
    /// called, nobody knows what it would have done between.
    fn note(&mut self, now: Instant) {
        let lasted = self.last.saturating_duration_since(self.since);
        if now.saturating_duration_since(self.last) > (2 * lasted).max(BETWEEN_CALLS) {
            self.since = now;
        }
        self.last = now;
    }
}

impl Silences {
    /// A gateway has not answered.
    pub(crate) fn note(&mut self, now: Instant, gateway: IpAddr) {
        self.gateways.retain(|_, silence| now.saturating_duration_since(silence.last) < FORGOTTEN);
        if let Some(silence) = self.gateways.get_mut(&gateway) {
            silence.note(now);
            return;
        }
        if self.gateways.len() >= MAX_SILENT
            && let Some(oldest) = self.gateways.iter().min_by_key(|(_, s)| s.last).map(|(g, _)| *g)
        {
            self.gateways.remove(&oldest);
        }
        self.gateways.insert(gateway, Silence { since: now, last: now });
    }

    /// It has.
    pub(crate) fn answered(&mut self, gateway: IpAddr) {
        self.gateways.remove(&gateway);
    }

    /// Whether a gateway has not answered just now.
    pub(crate) fn is_recent(&self, now: Instant, gateway: IpAddr) -> bool {
        let silence = self.gateways.get(&gateway);
        silence.is_some_and(|silence| now.saturating_duration_since(silence.last) < RECENT)
    }

    /// How long a failure stands that ended like this. Silence stands for as long as it has lasted,
    /// from [`Lives::short`] to [`Lives::silent`]: who was away for a moment is called again soon, and
    /// so the clear text or the closed way that his silence meant is over soon; who is never there is
    /// called seldom.
    pub(crate) fn life(
        &self,
        now: Instant,
        lives: &Lives,
        (gateway, end): (IpAddr, End),
        left: Duration,
    ) -> Duration {
        let longest = lives.after(end, left);
        if !is_silence(end) {
            return longest;
        }
        let silence = self.gateways.get(&gateway);
        let lasted = silence.map_or(longest, |s| now.saturating_duration_since(s.since));
        lasted.max(lives.short).min(longest)
    }
}

/// Whether a call that ended like this was not answered by anybody who could prove to be the gateway.
pub(crate) fn is_silence(end: End) -> bool {
    matches!(end, End::Timeout | End::Refused { authentic: false, .. })
}

/// Gateways remembered as silent; beyond that those are forgotten that were so longest ago, and called
/// again sooner, within the bounds of all calls.
const MAX_SILENT: usize = 1024;
/// Who was silent this long ago is tried after others.
const RECENT: Duration = Duration::from_secs(60);
/// Longer than from one call to the next of who is always called in vain: the life of a failure, and
/// the time in which to see whether it matters to anybody.
const FORGOTTEN: Duration = Duration::from_secs(15 * 60);

/// From the first call that is not answered to the next, at most: the shortest life, the time to see
/// whether it matters, and the call.
const BETWEEN_CALLS: Duration = Duration::from_secs(150);

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn life(silences: &Silences, now: Instant) -> u64 {
        let lives = Lives::default();
        silences.life(now, &lives, (GATEWAY, End::Timeout), Duration::from_secs(5)).as_secs()
    }

    /// A gateway that never answers, called whenever a life is over.
    #[test]
    fn lives_grow_with_silence_and_begin_anew_after_an_answer() {
        let mut now = Instant::now();
        let mut silences = Silences::default();
        let mut lives = Vec::new();
        for _ in 0..7 {
            silences.note(now, GATEWAY);
            let life = life(&silences, now);
            lives.push(life);
            now += Duration::from_secs(life + 30);
        }
        assert_eq!(lives, [60, 90, 210, 450, 600, 600, 600]);
        silences.answered(GATEWAY);
        silences.note(now, GATEWAY);
        assert_eq!(life(&silences, now), 60);
    }

    /// Two silences with time between in which nobody asked are not one long one.
    #[test]
    fn what_nobody_has_seen_is_not_counted() {
        let start = Instant::now();
        let mut silences = Silences::default();
        silences.note(start, GATEWAY);
        let later = start + Duration::from_secs(14 * 60);
        silences.note(later, GATEWAY);
        assert_eq!(life(&silences, later), 60);
    }

    #[test]
    fn they_are_bounded_and_the_oldest_make_room() {
        let now = Instant::now();
        let mut silences = Silences::default();
        assert_eq!(life(&silences, now), 600, "never heard of");
        silences.note(now, GATEWAY);
        let later = now + Duration::from_secs(1);
        for n in 0..MAX_SILENT {
            assert!(silences.is_recent(later, GATEWAY));
            silences.note(later, IpAddr::V6((0x2001_0db8_u128 << 96 | n as u128).into()));
        }
        assert_eq!(silences.gateways.len(), MAX_SILENT);
        assert!(!silences.is_recent(later, GATEWAY));
        silences.note(later + FORGOTTEN, GATEWAY);
        assert_eq!(silences.gateways.len(), 1, "the others are forgotten");
    }

    /// What somebody who could prove himself said stands for as long as ever.
    #[test]
    fn refusals_that_are_authentic_are_no_silence() {
        let now = Instant::now();
        let mut silences = Silences::default();
        silences.note(now, GATEWAY);
        let end = End::Refused { notify: 14, authentic: true };
        let lives = Lives::default();
        let left = Duration::from_secs(5);
        assert_eq!(silences.life(now, &lives, (GATEWAY, end), left), lives.refused);
        let end = End::Refused { notify: 14, authentic: false };
        assert_eq!(silences.life(now, &lives, (GATEWAY, end), left), lives.short);
    }
}
