//! A stranger calls (RFC 4322 §3.3): unauthenticated, authenticated, authorised.
//!
//! IKE pauses inside IKE_AUTH and asks who this is. We ask DNS for the record of the identity and
//! for the record of every address it wants to speak for, and answer with the keys that those
//! records entitle, each with what it entitles to. Nobody speaks for another's address unless that
//! address's own reverse record says so.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use dnskeys::{Answer, Authorized, Claim, Name, Outcome, Refusal, Speaker, Strictness};
use ike::{Assigned, Credential, Grant, Identity, IkeId, NeedPeer, PeerVerdict};
use sa::{Flow, Prefix, TrafficSelector};

use crate::entry::{Asker, Peer, Visit, Visitor};
use crate::group::Group;
use crate::initiator::{selectors, to_ike_key, to_speaker};
use crate::keying::Keying;
use crate::report::{What, Why};

impl Keying {
    /// IKE asks: who is this, and what may it have?
    pub(crate) fn visited(&mut self, now: Instant, need: NeedPeer) {
        // What is written down comes before what DNS says (rule 41).
        if let Some(index) = self.connection_wanted_by(&need) {
            return self.connection_visited(now, need, index);
        }
        let ike = need.ike;
        let speaker = match &need.identity {
            Identity::Null => self.anonymous_claim(&need).map(Speaker::Address),
            identity => to_speaker(identity),
        };
        let Some(speaker) = speaker else {
            return self.refuse(now, &need, Why::Authority(Refusal::NoEvidence));
        };
        let Some(ours) = self.wanted_address(&need) else {
            return self.refuse(now, &need, Why::NoLocalAddress);
        };
        // What a connection carries is not to be had by opportunism (rule 9).
        let opportunistic = |addr: &IpAddr| {
            Flow::new(ours, *addr).is_some_and(|flow| self.connections_of(flow).is_empty())
        };
        let asks = Self::asks_address(&need, &speaker, ours);
        let claimed = match (&need.identity, &speaker) {
            _ if asks => Vec::new(),
            (Identity::Null, Speaker::Address(itself)) => vec![*itself],
            _ => claims(&need, &speaker),
        };
        let claims: Vec<IpAddr> = claimed
            .into_iter()
            .filter(opportunistic)
            .filter(|addr| {
                !self.granted(ours, *addr, Strictness::Paranoid).0.is_empty()
                    && !self.config.addresses.contains(addr)
                    // Those are ours to give, whoever else's some zone says they are.
                    && !self.pool.covers(*addr)
            })
            .take(MAX_CLAIMS)
            .collect();
        if claims.is_empty() && !asks {
            return self.refuse(now, &need, Why::Group);
        }
        if !self.places().has_one_for(need.remote.ip()) {
            // A refusal would be believed for minutes, and what keeps us busy passes in seconds.
            if self.visitors_waiting.len() >= MAX_WAITING {
                self.counters.over_budget += 1;
                return self.refuse(now, &need, Why::Budget);
            }
            return self.visitors_waiting.push_back((now, need));
        }
        let own = match &speaker {
            Speaker::Address(addr) => Name::reverse(*addr),
            Speaker::Name(name) => name.clone(),
        };
        // Whether we may speak for whom it wants is to be seen from his record, as it was for the
        // caller.
        let client = self.serves(ours).then(|| self.client_names(ours, need.local.ip()));
        let client = client.into_iter().flatten();
        let names = claims.iter().map(|addr| Name::reverse(*addr)).chain([own]).chain(client);
        let answers: BTreeMap<Name, Option<Answer>> = names.map(|name| (name, None)).collect();
        let asked: Vec<Name> = answers.keys().cloned().collect();
        self.visitors.insert(ike, Visitor { need, speaker, ours, claims, answers });
        for name in asked {
            self.ask(name, Asker::Visitor(ike));
        }
    }

    /// One of a stranger's records is known.
    pub(crate) fn visitor_answered(&mut self, now: Instant, ike: IkeId, answer: &Answer) {
        let Some(visitor) = self.visitors.get_mut(&ike) else { return };
        if let Some(slot) = visitor.answers.get_mut(&answer.owner) {
            *slot = Some(answer.clone());
        }
        if visitor.answers.values().any(Option::is_none) {
            return;
        }
        if let Some(visitor) = self.visitors.remove(&ike) {
            self.judge(now, &visitor);
            self.let_in(now);
        }
    }

    /// The next that waits and for whom there is room; who has waited for too long has given up.
    pub(crate) fn let_in(&mut self, now: Instant) {
        let late = |(since, _): &(Instant, NeedPeer)| now.saturating_duration_since(*since) >= WAIT;
        while self.visitors_waiting.front().is_some_and(late) {
            self.visitors_waiting.pop_front();
        }
        loop {
            let places = self.places();
            let has_place = |(_, need): &(Instant, NeedPeer)| places.has_one_for(need.remote.ip());
            let Some(next) = self.visitors_waiting.iter().position(has_place) else { return };
            if let Some((_, need)) = self.visitors_waiting.remove(next) {
                self.visited(now, need);
            }
        }
    }

    /// The places of strangers whose records are being asked.
    fn places(&self) -> Places {
        let mut places = Places { taken: self.visitors.len(), near: BTreeMap::new() };
        if places.taken >= MAX_VISITORS / 2 {
            for visitor in self.visitors.values() {
                *places.near.entry(ike::source_prefix(visitor.need.remote.ip())).or_default() += 1;
            }
        }
        places
    }

    /// All records are known: which keys entitle to what?
    fn judge(&mut self, now: Instant, visitor: &Visitor) {
        for answer in visitor.answers.values().flatten() {
            self.report(now, None, What::of(answer));
        }
        let ours = visitor.ours;
        if self.serves(ours) {
            let evidence: Vec<&Answer> = visitor.answers.values().flatten().collect();
            if let Err(why) = self.judge_client(now, ours, &evidence) {
                return self.refuse(now, &visitor.need, Why::Client(why));
            }
        }
        if visitor.need.identity == Identity::Null {
            return self.judge_anonymous(now, visitor, ours);
        }
        if visitor.claims.is_empty() {
            return self.judge_lease(now, visitor);
        }
        let mut refusal = Refusal::NoEvidence;
        let (mut grants, mut proofs) = (Vec::new(), Vec::new());
        for key in published_keys(visitor) {
            let Some(ike_key) = to_ike_key(&key) else { continue };
            // One child, one address: the first that the key may speak for.
            for address in &visitor.claims {
                match self.check(visitor, *address, &key) {
                    Ok((proof, (local, remote))) => {
                        proofs.push((ike_key.clone(), proof));
                        // We do not ask for it, but some peers leave who declines.
                        let assigned = Assigned::Nothing;
                        grants.push(Grant {
                            key: ike_key,
                            remote,
                            local,
                            transport: true,
                            assigned,
                        });
                        break;
                    }
                    Err(why) => refusal = why,
                }
            }
        }
        if grants.is_empty() && self.must_ask(now, visitor) {
            return;
        }
        if grants.is_empty() {
            return self.refuse(now, &visitor.need, Why::Authority(refusal));
        }
        let (local, gateway) = (visitor.need.local.ip(), visitor.need.remote.ip());
        self.visits.insert(visitor.need.ike, Visit { local, gateway, proofs });
        let ours = Identity::Address(local);
        let identity = self.config.identity.clone().unwrap_or(ours);
        let verdict = PeerVerdict::Known { identity, grants };
        self.ike.handle_peer(now, visitor.need.ike, verdict);
    }

    /// What may be between an address of ours and a stranger's, if what the stranger shows is good
    /// for groups as strict as this: everything, or what our policy groups leave of it. Which of
    /// ours goes with which of its is looked at once a child is agreed.
    pub(crate) fn granted(&self, ours: IpAddr, theirs: IpAddr, enough: Strictness) -> Granted {
        let Some(flow) = Flow::new(ours, theirs) else { return (Vec::new(), Vec::new()) };
        let has_it = |group: Group| {
            let strict = group.strictness();
            group.accepts() && (strict == enough || strict == Strictness::Permissive)
        };
        if has_it(self.group_of(theirs)) {
            let (local, remote) = selectors(flow);
            return (vec![local], vec![remote]);
        }
        let rules = self.config.groups.port_rules(theirs);
        rules
            .filter(|(_, _, listed)| has_it(listed.group))
            .map(|(_, ports, _)| selectors(flow.with_ports(ports)))
            .take(MAX_SELECTORS)
            .unzip()
    }

    /// Whether a key may speak for an address, and for how much of it: what is not good enough for
    /// one port may be for another.
    fn check(
        &self,
        visitor: &Visitor,
        address: IpAddr,
        key: &dnskeys::PublicKey,
    ) -> Result<(Authorized, Granted), Refusal> {
        // Seen from here. Whether a NAT made it so is the identity's affair: an address that was
        // translated is not the one that the identity names.
        let outer = Some(visitor.need.remote.ip());
        let claim = Claim { address, speaker: &visitor.speaker, key, outer };
        // What the NAT is called by is not the caller's alone: its name does not give it that.
        let (natted, itself) = (visitor.need.peer_natted, outer == Some(address));
        let forward = match &visitor.speaker {
            Speaker::Name(name) if natted && itself => Some(name),
            Speaker::Name(_) | Speaker::Address(_) => None,
        };
        let answers = visitor.answers.values().flatten();
        let evidence: Vec<&Answer> =
            answers.filter(|answer| forward != Some(&answer.owner)).collect();
        let mut refusal = Refusal::Unsigned;
        for strict in [Strictness::Paranoid, Strictness::Permissive] {
            let granted = self.granted(visitor.ours, address, strict);
            if granted.0.is_empty() {
                continue;
            }
            match dnskeys::authorize(claim, &evidence, &self.config.rules, strict) {
                Ok(proof) => return Ok((proof, granted)),
                Err(why) => refusal = why,
            }
        }
        Err(refusal)
    }

    pub(crate) fn refuse(&mut self, now: Instant, need: &NeedPeer, why: Why) {
        self.counters.visitors_refused += 1;
        let (remote, identity) = (need.remote.ip(), need.identity.clone());
        self.report(now, None, What::Refused { remote, identity, why });
        self.ike.handle_peer(now, need.ike, PeerVerdict::Unknown);
    }

    /// A stranger's signature verified under one of the granted keys.
    pub(crate) fn visitor_authenticated(&mut self, ike: IkeId, mut peer: Peer) {
        if let Some(visit) = self.visits.remove(&ike) {
            (peer.local, peer.gateway) = (visit.local, visit.gateway);
            let ours =
                visit.proofs.into_iter().filter(|(key, _)| key == peer.verified.credential());
            peer.proofs = ours.map(|(_, proof)| proof).collect();
            peer.proofs.shrink_to_fit();
        }
        self.counters.visitors_accepted += 1;
        self.peers.insert(ike, peer);
    }

    /// The peer says that it knows no other SA with us. What is old is stale, the peer has
    /// restarted; what is young may be the other of two calls that crossed, and must prove itself.
    pub(crate) fn initial_contact(&mut self, now: Instant, ike: IkeId) {
        let Some(peer) = self.peers.get(&ike) else { return };
        // Of nobody in particular there may be many (RFC 7619 §2.3).
        if *peer.verified.credential() == Credential::Null {
            return;
        }
        // Between the same two addresses: the peer may know us by another of ours.
        let others: Vec<(IkeId, Instant)> = self
            .peers
            .known_as(peer.verified.identity())
            .filter(|(id, p)| *id != ike && (&p.verified, p.local) == (&peer.verified, peer.local))
            .map(|(id, p)| (id, p.established))
            .collect();
        for (other, established) in others {
            if now.saturating_duration_since(established) >= crate::pairs::CROSSING {
                self.ike.abandon(now, other);
            } else {
                self.ike.probe(now, other);
            }
        }
    }
}

impl Keying {
    /// The address of ours that a stranger wants to talk to.
    fn wanted_address(&self, need: &NeedPeer) -> Option<IpAddr> {
        let wanted = |addr: &IpAddr| need.local_selectors.iter().any(|ts| ts.contains(*addr));
        let called = need.local.ip();
        let own = self.config.addresses.iter().copied();
        // What it calls may be a translated address; what it wants must be ours.
        let ours = |addr: &IpAddr| self.config.addresses.contains(addr);
        Some(called)
            .filter(wanted)
            .or_else(|| own.into_iter().find(wanted))
            .filter(ours)
            .or_else(|| self.wanted_client(&need.local_selectors))
    }
}

/// The inner addresses a stranger wants to speak for: single addresses only. A wider selector is
/// taken for the stranger's own address if it holds it.
fn claims(need: &NeedPeer, speaker: &Speaker) -> Vec<IpAddr> {
    let mut hosts: Vec<IpAddr> = Vec::new();
    for selector in &need.remote_selectors {
        if let Some(host) = selector.as_host()
            && !hosts.contains(&host)
        {
            hosts.push(host);
        }
    }
    if hosts.is_empty() {
        let own = match speaker {
            Speaker::Address(addr) => *addr,
            Speaker::Name(_) => need.remote.ip(),
        };
        if need.remote_selectors.iter().any(|selector| selector.contains(own)) {
            hosts.push(own);
        }
    }
    hosts
}

/// Every key that the records give the stranger.
pub(crate) fn published_keys(visitor: &Visitor) -> Vec<dnskeys::PublicKey> {
    let mut keys: Vec<dnskeys::PublicKey> = Vec::new();
    for answer in visitor.answers.values().flatten() {
        let Outcome::Records(set) = &answer.outcome else { continue };
        // Whether a key entitles to anything is for `authorize` to say.
        for key in set.gateways.iter().filter_map(|record| record.key.as_ref()) {
            if !keys.contains(key) && keys.len() < MAX_KEYS {
                keys.push(key.clone());
            }
        }
    }
    keys
}

/// Who has the places of strangers. One prefix may have half of them, and more only as long as it
/// is one of many: whose reverse zone never answers must not keep all others waiting.
struct Places {
    taken: usize,
    /// By source prefix; counted from where it matters.
    near: BTreeMap<Prefix, usize>,
}

impl Places {
    fn has_one_for(&self, source: IpAddr) -> bool {
        let near = self.near.get(&ike::source_prefix(source)).copied().unwrap_or(0);
        self.taken < MAX_VISITORS && (self.taken < MAX_VISITORS / 2 || near < FAIR)
    }
}

/// Selectors on our side, and on a stranger's.
type Granted = (Vec<TrafficSelector>, Vec<TrafficSelector>);

/// Addresses one stranger may claim in one call; each costs a DNS question.
const MAX_CLAIMS: usize = 4;
/// Selectors granted to one stranger: rules for single ports of its address.
const MAX_SELECTORS: usize = 16;
/// Strangers whose records are being asked at once.
const MAX_VISITORS: usize = 128;
/// Of these, what every source prefix may have when half of them are taken.
const FAIR: usize = MAX_VISITORS / 16;
/// Strangers that wait for their turn: a mesh of some hundreds that starts at once.
const MAX_WAITING: usize = 1024;
/// How long one may wait: about as long as it goes on asking.
const WAIT: std::time::Duration = std::time::Duration::from_secs(8);
/// Keys tried for one stranger: each costs a signature check.
const MAX_KEYS: usize = 8;
