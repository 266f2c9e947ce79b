//! What a peer may no longer use: its record is withdrawn or names another key, our own policy refuses
//! it now, what it was lent is not ours to lend any more. Nothing is received on its pairs from the
//! moment on that this is known. The peer is told by a Delete as it is of every other end (RFC 7296
//! §1.4.1); that may wait for its answer for minutes, and whatever comes of it finds nothing here.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use dnskeys::Authorized;
use ike::IkeId;
use sa::{Command, Flow, SaId};

use crate::keying::Keying;

impl Keying {
    /// Forgets flows and takes all their pairs from their peers; the trap stands before the pairs go.
    pub(crate) fn revoke_flows(&mut self, now: Instant, flows: &BTreeSet<Flow>) {
        for flow in flows {
            self.expire(now, *flow);
            let pairs: Vec<SaId> = self.pairs_of(*flow).map(|(sa, _)| sa).collect();
            for sa in pairs {
                self.revoke_pair(now, sa);
            }
        }
        // What was replaced a moment ago was theirs as well.
        self.revoke_lingering(flows);
    }

    /// The flows that packets are still received for, known or forgotten: of what is forgotten a pair
    /// may wait for its Delete, and what was replaced is heard for a moment longer.
    pub(crate) fn received_flows(&self) -> BTreeSet<Flow> {
        self.pairs.flows().chain(self.late_flows()).collect()
    }

    /// Flows that what was replaced a moment ago is still received for.
    pub(crate) fn late_flows(&self) -> impl Iterator<Item = Flow> {
        self.lingering.iter().filter_map(|(_, sa)| self.parted.get(sa).copied())
    }

    /// Takes what was replaced a moment ago for these flows.
    pub(crate) fn revoke_lingering(&mut self, flows: &BTreeSet<Flow>) {
        let of_them = |sa: &SaId| self.parted.get(sa).is_some_and(|flow| flows.contains(flow));
        let late = self.lingering.iter().map(|(_, sa)| *sa).filter(of_them);
        let late: BTreeSet<SaId> = late.collect();
        self.lingering.retain(|(_, sa)| !late.contains(sa));
        for sa in late {
            self.remove_pair(Command::RevokeSa(sa), sa);
        }
    }

    /// Takes a pair from its peer, who is told.
    pub(crate) fn revoke_pair(&mut self, now: Instant, sa: SaId) {
        self.close_pair(now, sa);
        if self.forget_pair(now, sa).is_some() {
            self.remove_pair(Command::RevokeSa(sa), sa);
        }
    }

    /// Takes everything from a peer, who is told.
    pub(crate) fn revoke_peer(&mut self, now: Instant, ike: IkeId) {
        let pairs = self.peers.get(&ike).map(|peer| peer.pairs.clone());
        for sa in pairs.into_iter().flatten() {
            self.revoke_pair(now, sa);
        }
        self.close_ike(now, ike);
    }

    /// A peer may not speak for this address any more: nothing is agreed on with it on the strength of
    /// what it has shown, and what else it carries to there is looked at; what it only receives on until
    /// it is deleted, or has lost to another, nobody would look at again.
    pub(crate) fn revoke_proof(&mut self, now: Instant, ike: IkeId, address: IpAddr) {
        self.forget_proof(now, ike, address);
        let Some(peer) = self.peers.get(&ike) else { return };
        let pairs = peer.pairs.iter().filter_map(|sa| Some((*sa, self.pairs.get(sa)?.flow)));
        let others: Vec<_> = pairs.filter(|(_, flow)| flow.dst() == address).collect();
        for (sa, flow) in others {
            match self.current(flow) {
                Some(current) if self.pairs.get(&current).is_some_and(|pair| pair.ike == ike) => {
                    // All that the peer has for the flow goes or stays with it.
                    if current == sa && !self.rechecks.contains_key(&flow) {
                        self.recheck(flow, sa);
                    }
                }
                Some(_) | None => self.revoke_pair(now, sa),
            }
        }
    }

    /// What a peer has shown for this address counts no longer: it has to show it again.
    pub(crate) fn forget_proof(&mut self, now: Instant, ike: IkeId, address: IpAddr) {
        if let Some(peer) = self.peers.get_mut(&ike) {
            peer.proofs.retain(|proof| proof.address() != address);
            self.ike.withdraw_grant(now, ike, address);
        }
    }

    /// Whether policy leaves a flow to a peer who has shown this. What was asked for a while ago may be
    /// granted when policy is another.
    pub(crate) fn may_carry(&self, flow: Flow, proof: &Authorized) -> bool {
        let groups = &self.config.groups;
        let by_port = || groups.port_rules(flow.dst()).any(|(_, _, listed)| listed.group.accepts());
        let accepted = proof.is_leased()
            || self.group_of_flow(flow).accepts()
            || (flow.ports().is_any() && by_port());
        // Granted for the address; the ports may be treated more strictly.
        let strict = self.group_of_flow(flow).strictness();
        accepted
            && proof.suffices(&self.config.rules, strict)
            && self.connections_of(flow).is_empty()
    }
}
