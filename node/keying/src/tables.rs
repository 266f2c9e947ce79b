//! Calls, peers and pairs with the ways in which they are looked for, so that nothing that happens to
//! one has to look at all the others.
//!
//! All are boxed: names only ever grow, and a tree whose keys do that is half empty.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use dnskeys::Answer;
use ike::{Identity, IkeId};
use sa::{Flow, SaId};

use crate::entry::{Call, Pair, Peer};

/// Calls that are not answered yet, by IKE SA, by gateway and by the flows that wait for them.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    by_ike: BTreeMap<IkeId, Box<Call>>,
    /// A call's gateway and our own address never change.
    by_gateway: BTreeSet<(IpAddr, IpAddr, IkeId)>,
    by_flow: BTreeSet<(Flow, IkeId)>,
}

impl Calls {
    pub(crate) fn get_mut(&mut self, ike: &IkeId) -> Option<&mut Call> {
        self.by_ike.get_mut(ike).map(|call| &mut **call)
    }

    pub(crate) fn insert(&mut self, ike: IkeId, call: Call) {
        self.remove(&ike);
        self.by_gateway.insert((call.gateway, call.local, ike));
        self.by_flow.extend(call.flows.iter().map(|flow| (*flow, ike)));
        self.by_ike.insert(ike, Box::new(call));
    }

    pub(crate) fn remove(&mut self, ike: &IkeId) -> Option<Call> {
        let call = self.by_ike.remove(ike)?;
        self.by_gateway.remove(&(call.gateway, call.local, *ike));
        for flow in &call.flows {
            self.by_flow.remove(&(*flow, *ike));
        }
        Some(*call)
    }

    /// One more flow waits for this call.
    pub(crate) fn join(&mut self, ike: IkeId, flow: Flow, evidence: Vec<Answer>) {
        if let Some(call) = self.by_ike.get_mut(&ike) {
            call.flows.push(flow);
            call.evidence.extend(evidence);
            self.by_flow.insert((flow, ike));
        }
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &IkeId> {
        self.by_ike.keys()
    }

    /// The calls to a gateway from this address of ours, the oldest first.
    pub(crate) fn to(
        &self,
        gateway: IpAddr,
        local: IpAddr,
    ) -> impl Iterator<Item = (IkeId, &Call)> {
        let range = (gateway, local, IkeId(0))..=(gateway, local, IkeId(u64::MAX));
        self.by_gateway
            .range(range)
            .filter_map(|(_, _, ike)| Some((*ike, &**self.by_ike.get(ike)?)))
    }

    /// The calls that a flow waits for, the oldest first.
    pub(crate) fn of(&self, flow: Flow) -> impl Iterator<Item = (IkeId, &Call)> {
        let range = (flow, IkeId(0))..=(flow, IkeId(u64::MAX));
        self.by_flow.range(range).filter_map(|(_, ike)| Some((*ike, &**self.by_ike.get(ike)?)))
    }
}

/// Established peers, by IKE SA and by identity.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    by_ike: BTreeMap<IkeId, Box<Peer>>,
    /// A peer's identity never changes.
    by_identity: BTreeSet<(Identity, IkeId)>,
}

impl Peers {
    pub(crate) fn get(&self, ike: &IkeId) -> Option<&Peer> {
        self.by_ike.get(ike).map(|peer| &**peer)
    }

    pub(crate) fn get_mut(&mut self, ike: &IkeId) -> Option<&mut Peer> {
        self.by_ike.get_mut(ike).map(|peer| &mut **peer)
    }

    pub(crate) fn insert(&mut self, ike: IkeId, peer: Peer) {
        self.remove(&ike);
        self.by_identity.insert((peer.verified.identity().clone(), ike));
        self.by_ike.insert(ike, Box::new(peer));
    }

    pub(crate) fn remove(&mut self, ike: &IkeId) -> Option<Peer> {
        let peer = self.by_ike.remove(ike)?;
        self.by_identity.remove(&(peer.verified.identity().clone(), *ike));
        Some(*peer)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_ike.len()
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &IkeId> {
        self.by_ike.keys()
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &Peer> {
        self.by_ike.values().map(|peer| &**peer)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (IkeId, &mut Peer)> {
        self.by_ike.iter_mut().map(|(ike, peer)| (*ike, &mut **peer))
    }

    /// Those who call themselves so, the oldest first.
    pub(crate) fn known_as(&self, identity: &Identity) -> impl Iterator<Item = (IkeId, &Peer)> {
        let range = (identity.clone(), IkeId(0))..=(identity.clone(), IkeId(u64::MAX));
        self.by_identity.range(range).filter_map(|(_, ike)| Some((*ike, self.get(ike)?)))
    }
}

/// Pairs, by name and by flow.
#[derive(Debug, Default)]
pub(crate) struct Pairs {
    by_id: BTreeMap<SaId, Box<Pair>>,
    /// A pair's flow never changes.
    by_flow: BTreeSet<(Flow, SaId)>,
}

impl Pairs {
    pub(crate) fn get(&self, sa: &SaId) -> Option<&Pair> {
        self.by_id.get(sa).map(|pair| &**pair)
    }

    pub(crate) fn get_mut(&mut self, sa: &SaId) -> Option<&mut Pair> {
        self.by_id.get_mut(sa).map(|pair| &mut **pair)
    }

    pub(crate) fn insert(&mut self, sa: SaId, pair: Pair) {
        self.remove(&sa);
        self.by_flow.insert((pair.flow, sa));
        self.by_id.insert(sa, Box::new(pair));
    }

    pub(crate) fn remove(&mut self, sa: &SaId) -> Option<Pair> {
        let pair = self.by_id.remove(sa)?;
        self.by_flow.remove(&(pair.flow, *sa));
        Some(*pair)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &SaId> {
        self.by_id.keys()
    }

    /// Every flow that has a pair.
    pub(crate) fn flows(&self) -> impl Iterator<Item = Flow> {
        self.by_flow.iter().map(|(flow, _)| *flow)
    }

    /// The pairs of a flow, the oldest first.
    pub(crate) fn of(&self, flow: Flow) -> impl Iterator<Item = (SaId, &Pair)> {
        let range = (flow, SaId(0))..=(flow, SaId(u64::MAX));
        self.by_flow.range(range).filter_map(|(_, sa)| Some((*sa, self.get(sa)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_found_by_gateway_and_by_every_flow_that_waits() {
        let address = |n: u8| IpAddr::from([192, 0, 2, n]);
        let flow = |n: u8| Flow::new(address(1), address(n)).unwrap();
        let call = |gateway: u8, first: u8| Call {
            gateway: address(gateway),
            local: address(1),
            keys: Vec::new(),
            flows: vec![flow(first)],
            evidence: Vec::new(),
            keyed: false,
        };
        let mut calls = Calls::default();
        let to = |calls: &Calls, gateway| {
            calls.to(address(gateway), address(1)).map(|(ike, _)| ike.0).collect::<Vec<_>>()
        };
        let of = |calls: &Calls, n| calls.of(flow(n)).map(|(ike, _)| ike.0).collect::<Vec<_>>();
        calls.insert(IkeId(3), call(7, 10));
        calls.insert(IkeId(2), call(7, 11));
        calls.insert(IkeId(4), call(8, 11));
        calls.join(IkeId(3), flow(12), Vec::new());
        calls.join(IkeId(9), flow(13), Vec::new());
        assert_eq!((to(&calls, 7), to(&calls, 8), to(&calls, 9)), (vec![2, 3], vec![4], vec![]));
        assert_eq!(calls.to(address(7), address(2)).count(), 0, "from another address of ours");
        assert_eq!((of(&calls, 10), of(&calls, 12)), (vec![3], vec![3]));
        assert_eq!((of(&calls, 11), of(&calls, 13)), (vec![2, 4], vec![]));
        let gone = calls.remove(&IkeId(3)).unwrap();
        assert_eq!(gone.flows, [flow(10), flow(12)]);
        assert_eq!((of(&calls, 10), of(&calls, 12), to(&calls, 7)), (vec![], vec![], vec![2]));
        // Another call under the same name leaves nothing of the first.
        calls.insert(IkeId(2), call(8, 12));
        assert_eq!((of(&calls, 11), of(&calls, 12)), (vec![4], vec![2]));
        assert_eq!((to(&calls, 7), to(&calls, 8)), (vec![], vec![2, 4]));
        assert_eq!(calls.keys().map(|ike| ike.0).collect::<Vec<_>>(), [2, 4]);
    }
}
