//! A gateway falls silent, and DNS names another for the same flows (RFC 4322 §5.2): the other is
//! called beside it, and takes over when it has answered.
//!
//! What everybody else's liveness takes, five seconds of traffic and a request repeated in vain, is
//! right where nobody else could carry the packets. Here somebody can, so doubt comes early; and
//! because the pair that there is stays until there is a better one, a mistake costs a call.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use dnskeys::{Answer, Candidate, Gateway, Name, Outcome, Speaker, Verdict};
use sa::{Flow, SaId};

use crate::entry::Asker;
use crate::initiator::keys_of;
use crate::keying::Keying;

impl Keying {
    /// Packets go out on a pair, and for a moment nothing has come back.
    pub(crate) fn doubt(&mut self, now: Instant, sa: SaId) {
        let Some(pair) = self.pairs.get(&sa) else { return };
        let (flow, ike, gateway) = (pair.flow, pair.ike, pair.envelope.remote.ip());
        let room = self.doubts.len() < MAX_DOUBTS && !self.doubts.contains_key(&ike);
        if room && self.current(flow) == Some(sa) && self.has_another(now, flow, gateway) {
            self.doubts.insert(ike, now + DOUBT);
            self.ike.probe(now, ike);
        }
    }

    /// Whether DNS has named another gateway for a flow, and that has not been silent lately.
    fn has_another(&self, now: Instant, flow: Flow, gateway: IpAddr) -> bool {
        let Some(entry) = self.flows.get(&flow) else { return false };
        let Some(answer) = entry.answer_of(&Name::reverse(flow.dst())) else { return false };
        let Outcome::Records(set) = &answer.outcome else { return false };
        set.gateways.iter().any(|record| match record.gateway {
            Gateway::Address(other) => other != gateway && !self.silences.is_recent(now, other),
            Gateway::Own | Gateway::Name(_) => false,
        })
    }

    /// Looks for others in place of the gateways that have not answered in time.
    pub(crate) fn leave_silent(&mut self, now: Instant) {
        let late: Vec<_> =
            self.doubts.iter().filter(|(_, at)| **at <= now).map(|(ike, _)| *ike).collect();
        for ike in late {
            self.doubts.remove(&ike);
            let Some(peer) = self.peers.get(&ike) else { continue };
            let pairs: Vec<SaId> = peer.pairs.iter().copied().collect();
            let gateway = peer.gateway;
            self.silences.note(now, gateway);
            for sa in pairs {
                let Some(flow) = self.pairs.get(&sa).map(|pair| pair.flow) else { continue };
                if self.current(flow) == Some(sa) && self.has_another(now, flow, gateway) {
                    // What it said may have changed meanwhile, and costs nothing if it has not.
                    self.ask(Name::reverse(flow.dst()), Asker::Elsewhere(flow));
                }
            }
        }
    }

    /// The record of a destination whose gateway is silent or renews nothing, or of another gateway that it names
    /// without a key: the next gateway is called.
    pub(crate) fn elsewhere_answered(&mut self, now: Instant, flow: Flow, answer: &Answer) {
        if !self.wants_another(now, flow) {
            return;
        }
        let Some(entry) = self.flows.get_mut(&flow) else { return };
        entry.said(now, answer);
        let destination = Name::reverse(flow.dst());
        let Some(record) = entry.answer_of(&destination).cloned() else { return };
        let mut candidates = self.elsewhere(now, flow, &record);
        if answer.owner != destination {
            // Those before it have been tried.
            let at = candidates.iter().position(|c| Name::reverse(c.gateway) == answer.owner);
            let Some(candidate) = at.and_then(|at| candidates.drain(..=at).next_back()) else {
                return;
            };
            let keys = keys_of(answer, &Speaker::Address(candidate.gateway));
            let candidate = Candidate { keys, ..candidate };
            let evidence = vec![record.clone(), answer.clone()];
            if self.call_with(now, flow, &candidate, evidence, (false, false)) {
                return;
            }
        }
        for candidate in candidates {
            if candidate.keys.is_empty() {
                return self.ask(Name::reverse(candidate.gateway), Asker::Elsewhere(flow));
            }
            if self.call_with(now, flow, &candidate, vec![record.clone()], (false, false)) {
                return;
            }
        }
    }

    /// Whether a keyed flow is still to be called for elsewhere: its peer may have answered meanwhile.
    fn wants_another(&self, now: Instant, flow: Flow) -> bool {
        let Some(pair) = self.current(flow).and_then(|sa| self.pairs.get(&sa)) else {
            return false;
        };
        self.peers
            .get(&pair.ike)
            .is_none_or(|peer| !peer.takes_more() || self.silences.is_recent(now, peer.gateway))
    }

    /// The gateways of a destination that have not been silent lately, or all if there are none such,
    /// in their order.
    fn elsewhere(&self, now: Instant, flow: Flow, record: &Answer) -> Vec<Candidate> {
        let strict = self.group_of_flow(flow).strictness();
        let Verdict::Negotiate { mut candidates, .. } =
            dnskeys::decide(flow.dst(), record, &self.config.rules, strict)
        else {
            return Vec::new();
        };
        candidates.retain(|c| !self.config.addresses.contains(&c.gateway));
        if candidates.iter().any(|c| !self.silences.is_recent(now, c.gateway)) {
            candidates.retain(|c| !self.silences.is_recent(now, c.gateway));
        }
        // One that answers, and only renews nothing, before all others; and so if all are silent.
        let here = self.gateway_of(flow);
        candidates.sort_by_key(|c| (Some(c.gateway) != here, c.precedence));
        candidates
    }
}

/// How long a gateway may take to answer before another is called as well: a round trip to
/// anywhere, so that with [`sa::DOUBTFUL`] and the call it stays below two seconds.
const DOUBT: Duration = Duration::from_millis(700);
/// Gateways that are asked at once: more are asked by their own later.
const MAX_DOUBTS: usize = 1024;
