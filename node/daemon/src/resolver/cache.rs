//! Answers kept until their TTL ends, and no longer than we care to.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use dnskeys::{Answer, Name};

/// Answers kept. A name costs under 2 kB with its keys; a scan through addresses of ours must not
/// cost more than a few megabytes.
const MAX_ANSWERS: usize = 4096;

/// The longest life, whatever a TTL says: somebody may want to withdraw a key.
const MAX_LIFE: Duration = Duration::from_secs(3600);

/// Answers by name; the one unused for longest makes room. A negative answer is the common case
/// and is kept like any other.
#[derive(Default)]
pub(super) struct Cache {
    answers: HashMap<Name, Entry>,
    /// Names by when they were last used.
    used: BTreeMap<u64, Name>,
    clock: u64,
}

struct Entry {
    answer: Answer,
    until: Instant,
    used: u64,
}

impl Cache {
    /// The answer for this name, with the TTL that is left of it.
    pub(super) fn get(&mut self, name: &Name, now: Instant) -> Option<Answer> {
        let left = self.answers.get(name)?.until.saturating_duration_since(now);
        if left.is_zero() {
            self.forget(Some(name));
            return None;
        }
        self.clock += 1;
        let entry = self.answers.get_mut(name)?;
        self.used.remove(&entry.used);
        self.used.insert(self.clock, name.clone());
        entry.used = self.clock;
        let mut answer = entry.answer.clone();
        answer.ttl = left;
        Some(answer)
    }

    /// Keeps an answer for its TTL.
    pub(super) fn put(&mut self, answer: &Answer, now: Instant) {
        self.forget(Some(&answer.owner));
        let life = answer.ttl.min(MAX_LIFE);
        if life.is_zero() {
            return;
        }
        while self.answers.len() >= MAX_ANSWERS {
            let Some((_, oldest)) = self.used.pop_first() else { break };
            self.answers.remove(&oldest);
        }
        self.clock += 1;
        self.used.insert(self.clock, answer.owner.clone());
        let entry = Entry { answer: answer.clone(), until: now + life, used: self.clock };
        self.answers.insert(answer.owner.clone(), entry);
    }

    /// Forgets one name, or all.
    pub(super) fn forget(&mut self, name: Option<&Name>) {
        match name {
            Some(name) => {
                if let Some(entry) = self.answers.remove(name) {
                    self.used.remove(&entry.used);
                }
            }
            None => {
                self.answers.clear();
                self.used.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use dnskeys::{Outcome, Security};

    use super::*;

    fn answer(n: usize, ttl: u64) -> Answer {
        Answer {
            owner: format!("n{n}.test").parse().unwrap(),
            security: Security::Secure,
            ttl: Duration::from_secs(ttl),
            outcome: Outcome::NoRecord,
        }
    }

    /// Rule 16.
    #[test]
    fn life_is_the_ttl_and_capped() {
        let mut cache = Cache::default();
        let now = Instant::now();
        let (short, long) = (answer(1, 10), answer(2, 1_000_000));
        cache.put(&short, now);
        cache.put(&long, now);
        let later = now + Duration::from_secs(9);
        assert_eq!(cache.get(&short.owner, later).unwrap().ttl, Duration::from_secs(1));
        assert!(cache.get(&short.owner, now + Duration::from_secs(10)).is_none());
        assert!(cache.get(&long.owner, now + MAX_LIFE - Duration::from_secs(1)).is_some());
        assert!(cache.get(&long.owner, now + MAX_LIFE).is_none());
    }

    #[test]
    fn nothing_is_kept_for_no_time() {
        let mut cache = Cache::default();
        let now = Instant::now();
        cache.put(&answer(1, 60), now);
        cache.put(&answer(1, 0), now);
        assert!(cache.get(&answer(1, 0).owner, now).is_none());
    }

    /// CVE-2021-41991.
    #[test]
    fn the_longest_unused_makes_room() {
        let mut cache = Cache::default();
        let now = Instant::now();
        for n in 0..MAX_ANSWERS {
            cache.put(&answer(n, 60), now);
        }
        assert!(cache.get(&answer(0, 60).owner, now).is_some());
        cache.put(&answer(MAX_ANSWERS, 60), now);
        assert_eq!(cache.answers.len(), MAX_ANSWERS);
        assert_eq!(cache.used.len(), MAX_ANSWERS);
        assert!(cache.get(&answer(0, 60).owner, now).is_some(), "used a moment ago");
        assert!(cache.get(&answer(1, 60).owner, now).is_none(), "unused for longest");
    }
}
