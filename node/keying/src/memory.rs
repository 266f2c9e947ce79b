//! Peers from before a restart (oe-rules 57).
//!
//! A node that crashed knows nobody, and whoever had a pair with it goes on sending into nothing
//! until a liveness check fails. So the keyed flows are remembered outside, and after a restart
//! each is tried again without waiting for a packet. Memory is a hint and never authority: a
//! recalled flow asks DNS as any other does, and one that comes to nothing leaves nothing behind,
//! because nobody has sent a packet that a decision would be about.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use sa::Flow;

use crate::entry::State;
use crate::keying::Keying;
use crate::report::What;

/// A flow that was keyed, and with whom.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Remembered {
    /// Our address and the destination's.
    pub flow: Flow,
    /// The gateway that carried it: tried first among those of equal precedence.
    pub gateway: IpAddr,
}

/// A remembered flow on its way back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Recall {
    pub(crate) peer: Remembered,
    tries: u32,
}

/// Flows to be recalled, soonest first.
#[derive(Debug, Default)]
pub(crate) struct Recalls {
    waiting: VecDeque<(Instant, Recall)>,
}

impl Recalls {
    /// When the next one is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.waiting.front().map(|(at, _)| *at)
    }

    fn put(&mut self, at: Instant, recall: Recall) {
        if self.waiting.len() < MAX_REMEMBERED {
            let place = self.waiting.partition_point(|(other, _)| *other <= at);
            self.waiting.insert(place, (at, recall));
        }
    }

    fn take(&mut self, now: Instant) -> Option<Recall> {
        self.due().filter(|at| *at <= now)?;
        self.waiting.pop_front().map(|(_, recall)| recall)
    }
}

impl Keying {
    /// What is worth remembering: the keyed flows, who was used last first, as far as the data plane
    /// has said, and those that are still to be recalled. At most [`MAX_REMEMBERED`].
    #[must_use]
    pub fn remembered(&self) -> Vec<Remembered> {
        let keyed = self.flows.iter().filter_map(|(flow, entry)| {
            let (last, gateway) = match &entry.state {
                State::Keyed { current, .. } => {
                    (Some(self.pairs.get(current)?.last_used), self.gateway_of(*flow)?)
                }
                State::PotentialOe | State::PendingOe(_) => (None, entry.recalled?.peer.gateway),
                State::ClearText(_) | State::Deny(_) => return None,
            };
            // Who has an address of ours calls; we cannot.
            let peer = Remembered { flow: *flow, gateway };
            (!self.pool.covers(flow.dst())).then_some((last, peer))
        });
        let waiting = self.recalls.waiting.iter().map(|(_, recall)| (None, recall.peer));
        latest(keyed.chain(waiting).collect())
    }

    /// Tries these again, a few at a time.
    pub fn handle_memory(&mut self, now: Instant, peers: impl IntoIterator<Item = Remembered>) {
        let mut at = now;
        for (count, peer) in (1..).zip(peers.into_iter().take(MAX_REMEMBERED)) {
            self.note_remembered(&peer);
            self.recalls.put(at, Recall { peer, tries: 0 });
            if count % AT_ONCE == 0 {
                at += PACE;
            }
        }
        self.recall_due(now);
        self.drain(now);
    }

    /// Recalls whom it is time for.
    pub(crate) fn recall_due(&mut self, now: Instant) {
        while let Some(recall) = self.recalls.take(now) {
            self.recall(now, recall);
        }
    }

    fn recall(&mut self, now: Instant, recall: Recall) {
        let flow = recall.peer.flow;
        let dst_is_ours =
            self.config.addresses.contains(&flow.dst()) || self.pool.covers(flow.dst());
        if self.flows.contains_key(&flow) || dst_is_ours || !self.group_of_flow(flow).initiates() {
            return;
        }
        // What a connection covers since then is not opportunistic any more.
        if !self.connections_of(flow).is_empty() {
            return;
        }
        // An address that is not there yet may come with the network.
        let ours = self.config.addresses.contains(&flow.src()) || self.serves(flow.src());
        if !ours || self.undecided.total() >= MAX_RECALLING {
            return self.recall_later(now, recall);
        }
        self.counters.recalled += 1;
        self.enter(now, flow, State::PotentialOe, Some(now + crate::initiator::PATIENCE));
        if let Some(entry) = self.flows.get_mut(&flow) {
            entry.recalled = Some(recall);
        }
        // No policy is set: the data plane says so when a packet comes to wait.
        self.report(now, Some(flow), What::Recalled);
        // A host behind us has to name us still.
        self.ask_about(now, flow);
    }

    fn recall_later(&mut self, now: Instant, recall: Recall) {
        if let Some(pause) = PAUSES.get(recall.tries as usize) {
            self.recalls.put(now + *pause, Recall { tries: recall.tries + 1, ..recall });
        }
    }

    /// Whether nobody waits for this flow: it was recalled, and no packet has come since.
    pub(crate) fn nobody_waits(&self, flow: Flow) -> bool {
        self.flows.get(&flow).is_some_and(|entry| entry.recalled.is_some())
    }

    /// A flow came to clear text or to nothing. If nobody waits for it that is no decision: it is
    /// forgotten, and tried again later. Whether it was so.
    pub(crate) fn drop_recalled(&mut self, now: Instant, flow: Flow) -> bool {
        let Some(recall) = self.flows.get(&flow).and_then(|entry| entry.recalled) else {
            return false;
        };
        self.expire(now, flow);
        self.recall_later(now, recall);
        true
    }

    /// The gateway that carried a recalled flow.
    pub(crate) fn last_gateway(&self, flow: Flow) -> Option<IpAddr> {
        Some(self.flows.get(&flow)?.recalled?.peer.gateway)
    }
}

/// Those that were used last, and the very last first: they are recalled in this order. Whoever has
/// not been used since the start comes after all that have been.
fn latest(mut peers: Vec<(Option<Instant>, Remembered)>) -> Vec<Remembered> {
    peers.sort_by_key(|(last, peer)| (Reverse(*last), *peer));
    peers.into_iter().map(|(_, peer)| peer).take(MAX_REMEMBERED).collect()
}

/// Flows remembered: whoever talks to more will find the others by their packets.
pub const MAX_REMEMBERED: usize = 1024;
/// Recalled together, without making a flood of a restart.
const AT_ONCE: usize = 4;
/// Between two such handfuls: forty a second.
const PACE: Duration = Duration::from_millis(100);
/// Flows under way beyond which none is recalled: those with packets come first.
const MAX_RECALLING: usize = 256;
/// Before each further try: after a power cut the network and the name server may take minutes to
/// come back.
const PAUSES: [Duration; 5] = [
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(45),
    Duration::from_secs(120),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_used_last_is_remembered_rather_than_who_has_a_low_address() {
        let (start, many) = (Instant::now(), u32::try_from(MAX_REMEMBERED).unwrap() + 100);
        let peer = |n: u32| {
            let addr = IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + n));
            Remembered { flow: Flow::new([192, 0, 2, 1].into(), addr).unwrap(), gateway: addr }
        };
        let used = |n: u32| (n != 0).then(|| start + Duration::from_secs(n.into()));
        let found = latest((0..many).map(|n| (used(n), peer(n))).collect());
        let expected: Vec<Remembered> = (100..many).rev().map(peer).collect();
        assert_eq!(found, expected);
        assert_eq!(latest(vec![(None, peer(1)), (used(9), peer(2))]), [peer(2), peer(1)]);
    }
}
