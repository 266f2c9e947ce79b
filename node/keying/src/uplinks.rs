//! Our own addresses come and go (RFC 4555 §3.5; RFC 4322 §3.4).
//!
//! Two things hang on an address of ours. The outer way of an IKE SA moves with it: the owner says
//! where to ([`Keying::relocate`]), and MOBIKE tells the peer. The inner address of a flow does
//! not: packets from an address that is not ours any more are nobody's, or soon somebody else's, so
//! the pair is closed, at both ends, and the peer does not go on sending us what is meant for
//! whoever gets that address next.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ike::IkeId;
use sa::Flow;

use crate::keying::Keying;

impl Keying {
    /// Our addresses are now these. Ask [`Keying::stranded`] afterwards.
    pub fn handle_addresses(&mut self, now: Instant, addresses: Vec<IpAddr>) {
        self.ike.set_addresses(now, addresses.clone());
        let old = std::mem::replace(&mut self.config.addresses, addresses);
        // An address that comes back, as after a cable was pulled, was never gone.
        let own = &self.config.addresses;
        self.lost.retain(|(_, addr)| !own.contains(addr));
        for &addr in &old {
            if !self.config.addresses.contains(&addr) && self.lost.len() < MAX_LOST {
                self.lost.push_back((now + LOST, addr));
            }
        }
        // What strangers see of us depends on where we call from. Routes come and go more often.
        if old.iter().collect::<BTreeSet<_>>() != self.config.addresses.iter().collect() {
            self.forget_own();
        }
        self.news_of_sources(now);
        self.close_mistaken(now);
        self.drain(now);
    }

    /// The IKE SAs whose outer address is not ours any more, each with the peer's address: for
    /// whoever knows the routes to say which address of ours leads there now.
    #[must_use]
    pub fn stranded(&self) -> Vec<(IkeId, IpAddr)> {
        self.ike.stranded()
    }

    /// From now on this IKE SA uses this address of ours.
    pub fn relocate(&mut self, now: Instant, ike: IkeId, local: IpAddr) {
        if !self.config.addresses.contains(&local) {
            return;
        }
        self.ike.relocate(now, ike, local);
        self.drain(now);
        // There is a way again, and the address did not come back on it.
        let of_it = |flow: &Flow| self.lost.iter().any(|(_, addr)| *addr == flow.src());
        let pairs = self.peers.get(&ike).into_iter().flat_map(|peer| &peer.pairs);
        let flows = pairs.filter_map(|sa| self.pairs.get(sa)).map(|pair| pair.flow);
        let dead: Vec<Flow> = flows.filter(of_it).collect();
        for flow in dead {
            self.close_flow(now, flow);
        }
        self.drain(now);
    }

    /// Closes what speaks from addresses that have been gone for too long.
    pub(crate) fn close_lost(&mut self, now: Instant) {
        while let Some((at, addr)) = self.lost.front().copied() {
            if at > now {
                break;
            }
            self.lost.pop_front();
            let flows: Vec<Flow> =
                self.flows.keys().copied().filter(|flow| flow.src() == addr).collect();
            for flow in flows {
                self.close_flow(now, flow);
            }
        }
    }
}

/// How long an address may be gone before what speaks from it is closed: a cable pulled and put
/// back, a lease renewed.
const LOST: Duration = Duration::from_secs(10);
/// Addresses that are gone, at once: more than a host has.
const MAX_LOST: usize = 64;
