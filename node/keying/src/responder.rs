//! A stranger calls (RFC 4322 §3.3): unauthenticated, authenticated, authorised.
//!
//! IKE pauses inside IKE_AUTH and asks who this is. We ask DNS for the record of the identity and
//! for the record of every address it wants to speak for, and answer with the keys that those
//! records entitle, each with what it entitles to. Nobody speaks for another's address unless that
//! address's own reverse record says so.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use dnskeys::{Answer, Authorized, Claim, Name, Outcome, Refusal, Speaker};
use ike::{Grant, Identity, IkeId, NeedPeer, PeerVerdict, PublicKey};
use sa::TrafficSelector;

use crate::entry::{Asker, Peer, Visitor};
use crate::initiator::{keys_of, to_ike_key, to_speaker};
use crate::keying::Keying;
use crate::report::{What, Why};

impl Keying {
    /// IKE asks: who is this, and what may it have?
    pub(crate) fn visited(&mut self, now: Instant, need: NeedPeer) {
        let ike = need.ike;
        let Some(speaker) = to_speaker(&need.identity) else {
            return self.refuse(now, &need, Why::Authority(Refusal::NoEvidence));
        };
        let claims: Vec<IpAddr> = claims(&need, &speaker)
            .into_iter()
            .filter(|addr| self.group_of(*addr).accepts() && !self.config.addresses.contains(addr))
            .take(MAX_CLAIMS)
            .collect();
        if claims.is_empty() {
            return self.refuse(now, &need, Why::Group);
        }
        if self.visitors.len() >= MAX_VISITORS {
            self.counters.over_budget += 1;
            return self.refuse(now, &need, Why::Budget);
        }
        let own = match &speaker {
            Speaker::Address(addr) => Name::reverse(*addr),
            Speaker::Name(name) => name.clone(),
        };
        let names = claims.iter().map(|addr| Name::reverse(*addr)).chain([own]);
        let answers: BTreeMap<Name, Option<Answer>> = names.map(|name| (name, None)).collect();
        let asked: Vec<Name> = answers.keys().cloned().collect();
        self.visitors.insert(ike, Visitor { need, speaker, claims, answers });
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
        }
    }

    /// All records are known: which keys entitle to what?
    fn judge(&mut self, now: Instant, visitor: &Visitor) {
        for answer in visitor.answers.values().flatten() {
            let records = match &answer.outcome {
                Outcome::Records(set) => set.gateways.len(),
                Outcome::NoRecord | Outcome::NoName | Outcome::Bogus | Outcome::Failed(_) => 0,
            };
            let (name, security) = (answer.owner.clone(), answer.security);
            self.report(now, None, What::DnsAnswer { name, security, records });
        }
        let local: Vec<TrafficSelector> =
            self.config.addresses.iter().map(|addr| TrafficSelector::host(*addr)).collect();
        let mut refusal = Refusal::NoEvidence;
        let (mut grants, mut proofs) = (Vec::new(), Vec::new());
        for key in published_keys(visitor) {
            let Some(ike_key) = to_ike_key(&key) else { continue };
            let mut remote = Vec::new();
            for address in &visitor.claims {
                match self.check(visitor, *address, &key) {
                    Ok(proof) => {
                        remote.push(TrafficSelector::host(*address));
                        proofs.push((ike_key.clone(), proof));
                    }
                    Err(why) => refusal = why,
                }
            }
            if !remote.is_empty() {
                grants.push(Grant { key: ike_key, remote, local: local.clone() });
            }
        }
        if grants.is_empty() {
            return self.refuse(now, &visitor.need, Why::Authority(refusal));
        }
        self.proofs.insert(visitor.need.ike, proofs);
        let ours = Identity::Address(visitor.need.local.ip());
        let identity = self.config.identity.clone().unwrap_or(ours);
        let verdict = PeerVerdict::Known { identity, grants };
        self.ike.handle_peer(now, visitor.need.ike, verdict);
    }

    fn check(
        &self,
        visitor: &Visitor,
        address: IpAddr,
        key: &dnskeys::PublicKey,
    ) -> Result<Authorized, Refusal> {
        let strict = self.group_of(address).strictness();
        let outer = (!visitor.need.peer_natted).then_some(visitor.need.remote.ip());
        let claim = Claim { address, speaker: &visitor.speaker, key, outer };
        let evidence: Vec<&Answer> = visitor.answers.values().flatten().collect();
        dnskeys::authorize(claim, &evidence, &self.config.rules, strict)
    }

    fn refuse(&mut self, now: Instant, need: &NeedPeer, why: Why) {
        self.counters.visitors_refused += 1;
        let (remote, identity) = (need.remote.ip(), need.identity.clone());
        self.report(now, None, What::Refused { remote, identity, why });
        self.ike.handle_peer(now, need.ike, PeerVerdict::Unknown);
    }

    /// A stranger's signature verified under one of the granted keys.
    pub(crate) fn visitor_authenticated(&mut self, ike: IkeId, mut peer: Peer) {
        let proofs = self.proofs.remove(&ike).unwrap_or_default();
        peer.proofs =
            proofs.into_iter().filter(|(key, _)| *key == peer.key).map(|(_, p)| p).collect();
        self.counters.visitors_accepted += 1;
        self.peers.insert(ike, peer);
    }

    /// The peer says that it knows no other SA with us. What is old is stale, the peer has
    /// restarted; what is young may be the other of two calls that crossed, and must prove itself.
    pub(crate) fn initial_contact(&mut self, now: Instant, ike: IkeId, peer: &Peer) {
        let others: Vec<(IkeId, Instant)> = self
            .peers
            .iter()
            .filter(|(id, p)| **id != ike && p.identity == peer.identity && p.key == peer.key)
            .map(|(id, p)| (*id, p.established))
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
fn published_keys(visitor: &Visitor) -> Vec<dnskeys::PublicKey> {
    let mut keys: Vec<dnskeys::PublicKey> = Vec::new();
    for answer in visitor.answers.values().flatten() {
        for key in keys_of(answer, &visitor.speaker) {
            if !keys.contains(&key) && keys.len() < MAX_KEYS {
                keys.push(key);
            }
        }
    }
    keys
}

/// Addresses one stranger may claim in one call; each costs a DNS question.
const MAX_CLAIMS: usize = 4;
/// Strangers whose records are being asked at once.
const MAX_VISITORS: usize = 512;
/// Keys tried for one stranger: each costs a signature check.
const MAX_KEYS: usize = 8;

/// The key with which a proof was made; see [`Keying::visitor_authenticated`].
pub(crate) type Proof = (PublicKey, Authorized);
