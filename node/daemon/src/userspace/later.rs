//! Notices that nobody waits for: they go with the next that somebody does, or after a while, and
//! one wake-up of the main loop carries all of them.

use std::time::{Duration, Instant};

use sa::Notice;

/// What has gathered, in its order.
#[derive(Debug, Default)]
pub(super) struct Later {
    notices: Vec<Notice>,
    due: Option<Instant>,
}

impl Later {
    /// Puts one in. If there are many already, all of them come out.
    pub(super) fn put(&mut self, now: Instant, notice: Notice) -> Vec<Notice> {
        self.notices.push(notice);
        self.due.get_or_insert(now + PATIENCE);
        if self.notices.len() < MANY { Vec::new() } else { self.take() }
    }

    /// When [`Self::take_due`] is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// All, if they have waited long enough.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Notice> {
        if self.due.is_some_and(|due| due <= now) { self.take() } else { Vec::new() }
    }

    /// All there are.
    pub(super) fn take(&mut self) -> Vec<Notice> {
        self.due = None;
        std::mem::take(&mut self.notices)
    }
}

/// How long a notice waits while no packets are held: a pair that a peer has begun to use takes over
/// from its predecessor that much later, and the predecessor works until then.
const PATIENCE: Duration = Duration::from_millis(50);
/// As many are not kept waiting: they need room, and a wake-up is cheap for so many.
const MANY: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use sa::SaId;

    #[test]
    fn they_wait_for_company_and_not_for_ever() {
        let (mut later, now) = (Later::default(), Instant::now());
        let first = |n| Notice::FirstPacket(SaId(n));
        assert_eq!((later.due(), later.take_due(now + PATIENCE)), (None, Vec::new()));
        assert_eq!(later.put(now, first(1)), []);
        assert_eq!(later.put(now + PATIENCE / 2, first(2)), []);
        assert_eq!(later.due(), Some(now + PATIENCE), "the second does not put it off");
        assert_eq!(later.take_due(now + PATIENCE / 2), []);
        assert_eq!(later.take_due(now + PATIENCE), [first(1), first(2)]);
        assert_eq!(later.due(), None);
        assert_eq!(later.put(now, first(3)), []);
        assert_eq!(later.take(), [first(3)]);
        let all: Vec<_> = (0..MANY as u64).flat_map(|n| later.put(now, first(n))).collect();
        assert_eq!((all.len(), later.due()), (MANY, None));
    }
}
