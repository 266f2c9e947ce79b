//! Destinations in the clear that could be encrypted to, as far as anybody knows (oe-rules 26, 58).
//!
//! Whoever can drop UDP 500, 4500 or DNS can keep a `private-or-clear` destination in the clear, and
//! nothing prevents it: RFC 4322 §9.1 leaves it to policy. It must not look as if nobody had
//! published a key, though. A flow is *downgraded* from when it falls back to clear text although
//! its destination's records name a gateway, or although it had a pair before, until a pair comes
//! up or DNS says that nothing is published.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use sa::Flow;

use crate::entry::State;
use crate::keying::Keying;
use crate::memory::Remembered;
use crate::report::Why;

/// Who had a pair, or published a gateway when last asked. It outlives flows, which are forgotten
/// when nobody uses them; it is for showing only and decides nothing.
#[derive(Debug, Default)]
pub(crate) struct Capable {
    known: BTreeMap<IpAddr, Known>,
    /// By when they were last heard of.
    order: BTreeMap<u64, IpAddr>,
    next: u64,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    number: u64,
    /// Since when it has been in the clear all the same.
    since: Option<Instant>,
}

impl Capable {
    /// A destination that can be encrypted to, and since when it is in the clear all the same.
    fn note(&mut self, dst: IpAddr, since: Option<Instant>) {
        self.forget(dst);
        if self.known.len() >= MAX_CAPABLE
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.known.remove(&oldest);
        }
        self.order.insert(self.next, dst);
        self.known.insert(dst, Known { number: self.next, since });
        self.next += 1;
    }

    pub(crate) fn forget(&mut self, dst: IpAddr) {
        if let Some(known) = self.known.remove(&dst) {
            self.order.remove(&known.number);
        }
    }

    fn get(&self, dst: IpAddr) -> Option<Known> {
        self.known.get(&dst).copied()
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        assert_eq!(self.known.len(), self.order.len());
        self.known.len()
    }
}

impl Keying {
    /// Whether a destination is known to have been able to do better than clear text.
    pub(crate) fn is_capable(&self, dst: IpAddr) -> bool {
        self.capable.get(dst).is_some()
    }

    /// Whether a flow is in the clear although its destination can do better.
    pub(crate) fn is_downgraded(&self, flow: Flow) -> bool {
        self.flows.get(&flow).is_some_and(|entry| entry.downgraded_in_clear().is_some())
    }

    /// A flow falls back to clear text, or stays there, and not because nobody could do better:
    /// something failed or did not answer. If nobody waits for the flow, nothing is sent either.
    pub(crate) fn fall_back(&mut self, now: Instant, flow: Flow, why: Why, life: Duration) {
        if !self.nobody_waits(flow) {
            self.counters.downgrades += 1;
            let since = self.capable.get(flow.dst()).and_then(|known| known.since);
            if let Some(entry) = self.flows.get_mut(&flow) {
                let since = *entry.downgraded.get_or_insert_with(|| since.unwrap_or(now));
                self.capable.note(flow.dst(), Some(since));
            }
        }
        self.clear_text(now, flow, why, life);
    }

    /// The same without an answer of DNS. Of who has never been heard of nobody knows what it could
    /// do: broken reverse zones are too many for more than a count.
    pub(crate) fn dns_failed(&mut self, now: Instant, flow: Flow, why: Why, life: Duration) {
        let before = self.flows.get(&flow).is_some_and(|entry| entry.downgraded.is_some());
        if before || self.is_capable(flow.dst()) {
            return self.fall_back(now, flow, why, life);
        }
        self.counters.downgrades += u64::from(!self.nobody_waits(flow));
        self.clear_text(now, flow, why, life);
    }

    /// Into clear text, or on in it.
    pub(crate) fn clear_text(&mut self, now: Instant, flow: Flow, why: Why, life: Duration) {
        let entry = self.flows.get(&flow);
        if entry.is_some_and(|entry| matches!(entry.state, State::ClearText(_))) {
            self.stay_clear(now, flow, why, life);
        } else {
            self.go_clear(now, flow, why, life);
        }
    }

    /// A flow has come into another state: a pair, or that nothing passes, ends a downgrade.
    pub(crate) fn note_state(&mut self, flow: Flow) {
        let Some(entry) = self.flows.get_mut(&flow) else { return };
        let keyed = match entry.state {
            State::Keyed { .. } => true,
            State::Deny(_) => false,
            State::PotentialOe | State::PendingOe(_) | State::ClearText(_) => return,
        };
        entry.downgraded = None;
        if keyed || self.is_capable(flow.dst()) {
            self.capable.note(flow.dst(), None);
        }
    }

    /// DNS says that nothing is published for a flow's destination.
    pub(crate) fn nothing_published(&mut self, flow: Flow) {
        self.capable.forget(flow.dst());
        if let Some(entry) = self.flows.get_mut(&flow) {
            entry.downgraded = None;
        }
    }

    /// Those from before a restart had a pair.
    pub(crate) fn note_remembered(&mut self, peer: &Remembered) {
        self.capable.note(peer.flow.dst(), None);
    }
}

/// Destinations remembered to be able to do better than clear text: four times as many as are
/// remembered over a restart, some hundred octets each. Of one that falls out a failure of DNS is
/// only counted.
const MAX_CAPABLE: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    /// P13: whoever makes us talk to address after address fills this, and no more.
    #[test]
    fn who_could_do_better_is_remembered_within_bounds() {
        let (mut capable, now) = (Capable::default(), Instant::now());
        let nth = |n: u32| IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + n));
        for n in 0..3 * 4096 {
            capable.note(nth(n), Some(now));
            // Who is heard of again and again stays.
            capable.note(nth(0), None);
            assert!(capable.len() <= 4096);
        }
        assert!(capable.get(nth(0)).is_some_and(|known| known.since.is_none()));
        assert!(capable.get(nth(1)).is_none() && capable.get(nth(3 * 4096 - 1)).is_some());
        capable.forget(nth(0));
        assert!(capable.get(nth(0)).is_none());
        assert_eq!(capable.len(), 4095);
    }
}
