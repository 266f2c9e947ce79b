//! Who is behind a NAT, and known by name only (RFC 4322 §5.3), gets an address of ours (RFC 7296
//! §2.19); and where we are the one behind a NAT, we ask for one.
//!
//! The name's own record says who calls and nothing else. Which address goes with it is for whoever
//! gives it to say, so no address that the caller brings along is believed: not the one it has behind
//! its NAT, which many have, and not the NAT's own, which is not the caller's alone.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use dnskeys::{Answer, Candidate, Claim, Security, Speaker};
use ike::{Assigned, Credential, Grant, Identity, IkeId, NeedPeer, PeerVerdict};
use sa::{Flow, Prefix, TrafficSelector, Translation};

use crate::entry::{Call, Peer, Pending, State, Visit, Visitor};
use crate::initiator::{PATIENCE, selectors, to_ike_key};
use crate::keying::Keying;
use crate::pool::LeaseView;
use crate::report::{What, Why};
use crate::responder::published_keys;

impl Peer {
    /// A flow of ours as the peer sees it; `None` if it sees us by another address of ours only.
    pub(crate) fn inside(&self, flow: Flow) -> Option<Flow> {
        let Some(translation) = self.translation else { return Some(flow) };
        if translation.own().is_ipv4() != flow.src().is_ipv4() {
            return Some(flow);
        }
        let ours = translation.own() == flow.src();
        let inside = Flow::new(translation.assigned(), flow.dst()).filter(|_| ours)?;
        Some(inside.with_ports(flow.ports()))
    }

    /// Our address is another since the peer gave us its: what it gave stays.
    pub(crate) fn follow(&mut self, flow: Flow, own: &[IpAddr]) {
        let gone = self.translation.filter(|translation| !own.contains(&translation.own()));
        if let Some(translation) = gone {
            let now = Translation::new(flow.src(), translation.assigned());
            self.translation = now.or(self.translation);
        }
    }

    /// A flow that the peer sees, as our own packets show it.
    pub(crate) fn outside(&self, flow: Flow) -> Flow {
        let translation = self.translation.filter(|t| t.assigned() == flow.src());
        let outside = translation.and_then(|t| Flow::new(t.own(), flow.dst()));
        outside.map_or(flow, |outside| outside.with_ports(flow.ports()))
    }
}

/// Where we are the one behind a NAT.
impl Keying {
    /// The address to ask a gateway for if a NAT turns out to stand before us: the one that it gave
    /// us last, or any. `None` if asking would be of no use: without a name, or for somebody else.
    pub(crate) fn address_wanted(
        &self,
        flow: Flow,
        local: IpAddr,
        gateway: IpAddr,
    ) -> Option<IpAddr> {
        let named = matches!(self.config.identity, Some(Identity::Fqdn(_)));
        // Of an inner address that is not the outer one a NAT there says nothing.
        let ours = flow.src() == local && self.config.addresses.contains(&local);
        let any: IpAddr = match local {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let last = self.borrowed.get(&gateway).copied();
        let last = last.filter(|last| last.is_ipv4() == local.is_ipv4());
        (named && ours && self.config.translates).then(|| last.unwrap_or(any))
    }

    /// A gateway has answered a call, perhaps with an address for us.
    pub(crate) fn address_given(
        &mut self,
        now: Instant,
        call: &Call,
        assigned: Option<IpAddr>,
    ) -> Option<Translation> {
        let first = call.flows.first().copied()?;
        let (own, address, gateway) = (first.src(), assigned?, call.gateway);
        let translation = Translation::new(own, address)?;
        if self.borrowed.len() < MAX_BORROWED || self.borrowed.contains_key(&gateway) {
            self.borrowed.insert(gateway, address);
        }
        self.report(now, Some(first), What::Borrowed { gateway, own, address });
        Some(translation)
    }
}

/// Where the other end is.
impl Keying {
    /// Whether a caller asks for an address of ours rather than to bring one along.
    pub(crate) fn asks_address(need: &NeedPeer, speaker: &Speaker, ours: IpAddr) -> bool {
        let of_family = |wish: &IpAddr| wish.is_ipv4() == ours.is_ipv4();
        matches!(speaker, Speaker::Name(_)) && need.wishes.iter().any(of_family)
    }

    /// The records of a caller that asks for an address are known.
    pub(crate) fn judge_lease(&mut self, now: Instant, visitor: &Visitor) {
        let (ours, need) = (visitor.ours, &visitor.need);
        let keys = match self.known_keys(visitor) {
            Ok(keys) => keys,
            Err(why) => return self.refuse(now, need, why),
        };
        let v4 = ours.is_ipv4();
        if !self.pool.has(v4) {
            return self.no_address(now, visitor, keys, (Assigned::Nothing, Why::NoPool));
        }
        let wish = need.wishes.iter().copied().find(|wish| wish.is_ipv4() == v4);
        let outer = need.remote.ip();
        let own = &self.config.addresses;
        let offered =
            wish.and_then(|wish| self.pool.offer(need.ike, &need.identity, outer, wish, own));
        let Some(flow) = offered.and_then(|address| Flow::new(ours, address)) else {
            return self.no_address(now, visitor, keys, (Assigned::Exhausted, Why::PoolExhausted));
        };
        let evidence: Vec<&Answer> = visitor.answers.values().flatten().collect();
        let strict = self.group_of(flow.dst()).strictness();
        let (local, remote) = selectors(flow);
        let (mut grants, mut proofs) = (Vec::new(), Vec::new());
        for (key, credential) in keys {
            let speaker = &visitor.speaker;
            let claim = Claim { address: flow.dst(), speaker, key: &key, outer: None };
            let rules = &self.config.rules;
            let Ok(proof) = dnskeys::authorize_lease(claim, &evidence, rules, strict) else {
                continue;
            };
            proofs.push((credential.clone(), proof));
            let assigned = Assigned::Address(flow.dst());
            grants.push(grant(credential, vec![local], vec![remote], assigned));
        }
        let (local, gateway) = (need.local.ip(), need.remote.ip());
        self.visits.insert(need.ike, Visit { local, gateway, proofs });
        self.let_in_as(now, need, grants);
    }

    /// A caller by name has no claim to the address that it brings along, and a NAT stands before
    /// it: it is told to ask for one, if its name proves who it is. Whether it was told so.
    pub(crate) fn must_ask(&mut self, now: Instant, visitor: &Visitor) -> bool {
        let named = matches!(visitor.speaker, Speaker::Name(_));
        if !named || !visitor.need.peer_natted {
            return false;
        }
        let Ok(keys) = self.known_keys(visitor) else { return false };
        let outcome = match self.pool.has(visitor.ours.is_ipv4()) {
            true => (Assigned::Required, Why::NotAsked),
            false => (Assigned::Nothing, Why::NoPool),
        };
        self.no_address(now, visitor, keys, outcome);
        true
    }

    /// The keys that a caller's name is known by.
    fn known_keys(&self, visitor: &Visitor) -> Result<Vec<(dnskeys::PublicKey, Credential)>, Why> {
        let evidence: Vec<&Answer> = visitor.answers.values().flatten().collect();
        let strict = self.config.pool.first().map_or(dnskeys::Strictness::Paranoid, |prefix| {
            self.group_of(prefix.addr()).strictness()
        });
        let mut refusal = dnskeys::Refusal::NoEvidence;
        let mut known = Vec::new();
        for key in published_keys(visitor) {
            let Some(credential) = to_ike_key(&key) else { continue };
            let (speaker, rules) = (&visitor.speaker, &self.config.rules);
            match dnskeys::is_known_by_name(speaker, &key, &evidence, rules, strict) {
                Ok(()) => known.push((key, credential)),
                Err(why) => refusal = why,
            }
        }
        if known.is_empty() { Err(Why::Authority(refusal)) } else { Ok(known) }
    }

    /// Lets a caller in as far as it takes to tell it why there is no child.
    fn no_address(
        &mut self,
        now: Instant,
        visitor: &Visitor,
        keys: Vec<(dnskeys::PublicKey, Credential)>,
        (assigned, why): (Assigned, Why),
    ) {
        let need = &visitor.need;
        self.counters.visitors_refused += 1;
        let (remote, identity) = (need.remote.ip(), need.identity.clone());
        self.report(now, None, What::Refused { remote, identity, why });
        let nothing = |(_, key)| grant(key, Vec::new(), Vec::new(), assigned);
        let grants = keys.into_iter().map(nothing).collect();
        let (local, gateway) = (need.local.ip(), need.remote.ip());
        self.visits.insert(need.ike, Visit { local, gateway, proofs: Vec::new() });
        self.let_in_as(now, need, grants);
    }

    fn let_in_as(&mut self, now: Instant, need: &NeedPeer, grants: Vec<Grant>) {
        let ours = Identity::Address(need.local.ip());
        let identity = self.config.identity.clone().unwrap_or(ours);
        self.ike.handle_peer(now, need.ike, PeerVerdict::Known { identity, grants });
    }

    /// A caller has proved who it is, and got this address or none.
    pub(crate) fn lease_taken(&mut self, now: Instant, ike: IkeId, assigned: Option<IpAddr>) {
        let Some(address) = assigned else { return self.pool.release(now, ike) };
        if !self.pool.commit(ike) {
            // The pool has become another meanwhile: it may ask again.
            return self.close_ike(now, ike);
        }
        let Some(peer) = self.peers.get(&ike) else { return };
        let (identity, remote) = (peer.verified.identity().clone(), peer.gateway);
        self.report(now, None, What::Lent { address, identity, remote });
    }

    /// Puts another pool into force. Leases that fit it stay; the others are ended by a Delete, and
    /// who had one may ask for another. Whatever else was decided of addresses that are in the pool
    /// now, or are no longer, is decided anew. Gives back how many leases were ended.
    pub(crate) fn handle_pool(&mut self, now: Instant, prefixes: Vec<Prefix>) -> usize {
        if prefixes == self.config.pool {
            return 0;
        }
        let before = std::mem::replace(&mut self.config.pool, prefixes);
        let was = |address| before.iter().any(|prefix: &Prefix| prefix.contains(address));
        let ended = self.pool.reshape(&self.config.pool);
        let lives = |ike: &&IkeId| self.peers.get(ike).is_some_and(|peer| !peer.closing);
        let leases = ended.iter().filter(lives).count();
        let has = |flow: &Flow| self.pool.users(flow.dst()).next().is_some();
        let other = |flow: &Flow| (was(flow.dst()) || self.pool.covers(flow.dst())) && !has(flow);
        let all = self.flows.keys().copied().chain(self.received_flows());
        let flows: BTreeSet<Flow> = all.filter(other).collect();
        self.revoke_flows(now, &flows);
        for ike in ended {
            // Those who have not proved yet who they are learn it then.
            if let Some(visit) = self.visits.get_mut(&ike) {
                visit.proofs.clear();
            } else {
                self.revoke_peer(now, ike);
            }
        }
        leases
    }

    /// Whether an established peer may have one more child for the address that we have given it;
    /// `None` if it is about another.
    pub(crate) fn leased_child(&self, ike: IkeId, flow: Flow) -> Option<bool> {
        if !self.pool.covers(flow.dst()) {
            return None;
        }
        let peer = self.peers.get(&ike)?;
        let has = peer.proofs.iter().any(|proof| proof.address() == flow.dst());
        let ours = self.config.addresses.contains(&flow.src());
        Some(has && ours && !peer.closing && self.connections_of(flow).is_empty())
    }

    /// A packet for an address of our pool. Who has it has called us; nobody else can be called.
    pub(crate) fn leased_flow(&mut self, now: Instant, flow: Flow) {
        let usable = |ike: &IkeId| {
            let peer = self.peers.get(ike).filter(|peer| !peer.closing);
            peer.is_some_and(|p| p.proofs.iter().any(|proof| proof.address() == flow.dst()))
        };
        let holder = self.pool.users(flow.dst()).filter(usable).max();
        let ours = self.config.addresses.contains(&flow.src());
        let Some(ike) = holder.filter(|_| ours && !self.undecided.is_full(flow.dst())) else {
            let life = self.config.lives.short;
            return self.go_deny(now, flow, Why::NotLent, life);
        };
        // From another address of ours than it has called.
        let gateway = self.peers.get(&ike).map_or_else(|| flow.dst(), |peer| peer.gateway);
        let pending = Pending {
            candidates: [].into(),
            gateway: Some(Candidate { precedence: 0, gateway, keys: Vec::new() }),
            evidence: Vec::new(),
            security: Security::Secure,
            until: now + PATIENCE,
            ends: Vec::new(),
            called_again: true,
            anew: true,
            behind_nat: false,
            spoilt: None,
            anonymous: false,
        };
        self.enter(now, flow, State::PendingOe(Box::new(pending)), Some(now + PATIENCE));
        self.set_policy(flow, sa::Policy::Hold);
        if !self.ask_child(now, flow, ike) {
            self.next_candidate(now, flow);
        }
    }

    /// Every address of the pool that somebody has, or had last.
    #[must_use]
    pub fn leases(&self) -> Vec<LeaseView> {
        self.pool.leases().collect()
    }
}

fn grant(
    key: Credential,
    local: Vec<TrafficSelector>,
    remote: Vec<TrafficSelector>,
    assigned: Assigned,
) -> Grant {
    Grant { key, remote, local, transport: false, assigned }
}

/// Gateways of which it is remembered what they gave us.
const MAX_BORROWED: usize = 4096;
