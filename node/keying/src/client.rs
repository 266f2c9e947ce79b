//! Hosts behind us (`[[serve]]`): a gateway speaks for those whose own reverse record says so, and
//! for nobody else (RFC 4322 §3.2.4, §3.3.2; rule 46 seen from the other side).
//!
//! Before a destination is asked about on behalf of such a host, the host's own record is: whoever
//! we call would look there too. A host whose record names itself, or somebody else, or nobody, is
//! left to its own devices: its packets are as any clear ones to us, its ESP and IKE included.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use dnskeys::{Answer, Authorized, Claim, Gateway, Name, Outcome, Refusal, Speaker, Strictness};
use ike::{Credential, IkeId, NeedChild};
use sa::{Flow, TrafficSelector};

use crate::entry::{Asker, ChildVisitor, Entry, Renewal, State};
use crate::initiator::{flow_of, from_ike_key, to_speaker};
use crate::keying::Keying;
use crate::report::{What, Why};

/// What a client's record says of us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Standing {
    /// Our address that it names, or why it does not.
    pub(crate) gateway: Result<IpAddr, Refusal>,
    /// Until when that is known.
    pub(crate) until: Instant,
}

impl Keying {
    /// Whether an address is a host's behind us, not our own.
    pub(crate) fn serves(&self, addr: IpAddr) -> bool {
        self.config.served.iter().any(|prefix| prefix.contains(addr))
            && !self.config.addresses.contains(&addr)
    }

    /// A packet of somebody whom we serve, as far as our configuration goes: his record is asked
    /// first, unless it is known.
    pub(crate) fn new_client_flow(&mut self, now: Instant, flow: Flow) {
        match self.client(now, flow.src()) {
            Some(Standing { gateway: Ok(_), .. }) => {
                self.ask(Name::reverse(flow.dst()), Asker::Destination(flow));
            }
            Some(Standing { gateway: Err(why), until }) => {
                self.client_refused(now, flow, why, until.saturating_duration_since(now));
            }
            None => self.ask(Name::reverse(flow.src()), Asker::Client(flow)),
        }
    }

    /// What is known of a client, if that is fresh.
    pub(crate) fn client(&self, now: Instant, addr: IpAddr) -> Option<Standing> {
        self.clients.get(&addr).copied().filter(|standing| standing.until > now)
    }

    /// The record of a flow's own source is known.
    pub(crate) fn client_answered(&mut self, now: Instant, flow: Flow, answer: &Answer) {
        if self.config.addresses.contains(&flow.src()) {
            // Ours by now: no host behind us.
            return self.ask(Name::reverse(flow.dst()), Asker::Destination(flow));
        }
        let open = |e: &&mut Box<Entry>| {
            matches!((&e.state, &e.renewal), (State::PotentialOe, _) | (_, Renewal::Asked))
        };
        let Some(entry) = self.flows.get_mut(&flow).filter(open) else { return };
        entry.said(now, answer);
        self.report(now, Some(flow), What::of(answer));
        let client = Name::reverse(flow.src());
        let Some(entry) = self.flows.get(&flow) else { return };
        let Some(of_client) = entry.answer_of(&client) else { return };
        // Where it names us without a key, those we call will look for that at our own name.
        let own = self.named_without_key(of_client);
        let missing: Vec<Name> =
            own.iter().filter(|name| entry.answer_of(name).is_none()).cloned().collect();
        if !missing.is_empty() {
            for name in missing {
                self.ask(name, Asker::Client(flow));
            }
            return;
        }
        let names = own.into_iter().chain([client]);
        let evidence: Vec<Answer> =
            names.filter_map(|name| entry.answer_of(&name).cloned()).collect();
        let evidence: Vec<&Answer> = evidence.iter().collect();
        match self.judge_client(now, flow.src(), &evidence) {
            Ok(_) => self.ask(Name::reverse(flow.dst()), Asker::Destination(flow)),
            Err(why) => {
                let until = self.client(now, flow.src()).map_or(now, |standing| standing.until);
                self.client_refused(now, flow, why, until.saturating_duration_since(now));
            }
        }
    }

    /// The names of ours that a client's record leaves it to, to say our key.
    pub(crate) fn named_without_key(&self, of_client: &Answer) -> BTreeSet<Name> {
        let Outcome::Records(set) = &of_client.outcome else { return BTreeSet::new() };
        let keyless = set.gateways.iter().filter(|record| record.key.is_none());
        let ours = |gateway: &Gateway| match gateway {
            Gateway::Address(addr) if self.config.addresses.contains(addr) => {
                Some(Name::reverse(*addr))
            }
            Gateway::Name(name) if self.own_name().as_ref() == Some(name) => Some(name.clone()),
            Gateway::Own | Gateway::Address(_) | Gateway::Name(_) => None,
        };
        keyless.filter_map(|record| ours(&record.gateway)).take(MAX_OWN_NAMES).collect()
    }

    /// The name that we are called by, if it is one.
    fn own_name(&self) -> Option<Name> {
        match self.config.identity.as_ref().and_then(to_speaker) {
            Some(Speaker::Name(name)) => Some(name),
            Some(Speaker::Address(_)) | None => None,
        }
    }

    /// What has to be asked to see whether we may speak for a client to somebody who has called this
    /// address of ours.
    pub(crate) fn client_names(&self, client: IpAddr, called: IpAddr) -> BTreeSet<Name> {
        let own = self.own_name().unwrap_or_else(|| Name::reverse(called));
        [Name::reverse(client), own].into()
    }

    /// Judges a client's record as those we call will, and remembers it.
    pub(crate) fn judge_client(
        &mut self,
        now: Instant,
        client: IpAddr,
        evidence: &[&Answer],
    ) -> Result<IpAddr, Refusal> {
        let (gateway, life) = match self.own_proof(client, evidence) {
            Ok((gateway, proof)) => (Ok(gateway), proof.life()),
            Err(why) => {
                let owner = Name::reverse(client);
                let answer = evidence.iter().find(|answer| answer.owner == owner);
                let ttl = answer.map_or(Duration::ZERO, |answer| answer.ttl);
                (Err(why), ttl.min(self.config.rules.ttl_cap))
            }
        };
        let shortest = self.config.lives.short;
        if self.clients.len() >= MAX_CLIENTS {
            self.clients.retain(|_, standing| standing.until > now);
        }
        if self.clients.len() >= MAX_CLIENTS {
            // Strangers may have asked for all of them: they take nobody's place for long, and
            // whoever is asked about now is needed now.
            let soonest =
                self.clients.iter().min_by_key(|(_, s)| s.until).map(|(client, _)| *client);
            soonest.map(|client| self.clients.remove(&client));
        }
        let until = now + life.max(shortest);
        self.clients.insert(client, Standing { gateway, until });
        gateway
    }

    /// The proof that one of our own addresses may speak for a client, with our key.
    fn own_proof(
        &self,
        client: IpAddr,
        evidence: &[&Answer],
    ) -> Result<(IpAddr, Authorized), Refusal> {
        let key = from_ike_key(&Credential::from(self.config.ike.key.clone()));
        let key = key.ok_or(Refusal::WeakKey)?;
        let mut refusal = Refusal::NotNamed;
        for own in &self.config.addresses {
            let named = match &self.config.identity {
                Some(identity) => to_speaker(identity),
                None => Some(Speaker::Address(*own)),
            };
            let Some(speaker) = named else { continue };
            let claim = Claim { address: client, speaker: &speaker, key: &key, outer: None };
            match dnskeys::authorize(claim, evidence, &self.config.rules, Strictness::Permissive) {
                Ok(proof) => return Ok((*own, proof)),
                Err(Refusal::NotNamed) => {}
                Err(why) => refusal = why,
            }
        }
        Err(refusal)
    }

    /// We may not speak for a flow's source.
    fn client_refused(&mut self, now: Instant, flow: Flow, why: Refusal, life: Duration) {
        let life = life.max(self.config.lives.short);
        let why_not = Why::Client(why);
        let strict = self.group_of_flow(flow).strictness();
        match (strict, why) {
            // Neither presence nor absence is known, as with a destination's own record (rule 22).
            (_, Refusal::Bogus | Refusal::Malformed) | (Strictness::Paranoid, _) => {
                self.go_deny(now, flow, why_not, life);
            }
            (Strictness::Permissive, Refusal::DnsFailed) => {
                self.dns_failed(now, flow, why_not, life);
            }
            (Strictness::Permissive, _) => self.clear_text(now, flow, why_not, life),
        }
    }

    /// A packet that passes through us from somebody whom we do not serve: no concern of
    /// opportunism, and of `private` only that it must not leave in the clear.
    pub(crate) fn not_served(&mut self, now: Instant, flow: Flow) {
        self.foreign.note(now, flow.src());
        // Short: the news of an address of our own may have taken longer than was waited for it.
        let life = self.config.lives.short;
        match self.group_of_flow(flow).strictness() {
            Strictness::Permissive => self.go_clear(now, flow, Why::NotServed, life),
            Strictness::Paranoid => self.go_deny(now, flow, Why::NotServed, life),
        }
    }

    /// What was taken for somebody else's, and is our own as we know now, starts anew.
    pub(crate) fn close_mistaken(&mut self, now: Instant) {
        let ours = |(flow, entry): (&Flow, &Entry)| {
            let mistaken = match entry.state {
                State::ClearText(why) | State::Deny(why) => {
                    matches!(why, Why::NotServed | Why::Client(_))
                }
                State::PotentialOe | State::PendingOe(_) | State::Keyed { .. } => false,
            };
            (mistaken && self.config.addresses.contains(&flow.src())).then_some(*flow)
        };
        let mistaken: Vec<Flow> =
            self.flows.iter().map(|(flow, entry)| (flow, &**entry)).filter_map(ours).collect();
        for flow in mistaken {
            self.close_flow(now, flow);
        }
    }

    /// An established peer asks for a child between two more addresses.
    pub(crate) fn child_wanted(&mut self, now: Instant, need: NeedChild) {
        let ike = need.ike;
        let refused = |keying: &mut Self| keying.ike.handle_child(now, ike, false);
        let Some(flow) = flow_of(&need.local_selectors, &need.remote_selectors) else {
            return refused(self);
        };
        let Some(peer) = self.peers.get(&ike) else { return refused(self) };
        let flow = peer.outside(flow);
        if let Some(allowed) = self.leased_child(ike, flow) {
            return self.ike.handle_child(now, ike, allowed);
        }
        let Some(peer) = self.peers.get(&ike) else { return refused(self) };
        let Some(speaker) = to_speaker(peer.verified.identity()) else { return refused(self) };
        let (ours, theirs) = (flow.src(), flow.dst());
        let welcome = peer.connection.is_none()
            && !peer.closing
            && (self.config.addresses.contains(&ours) || self.serves(ours))
            && !self.config.addresses.contains(&theirs)
            && self.group_of_flow(flow).accepts()
            && self.connections_of(flow).is_empty();
        if !welcome || self.child_visitors.len() >= MAX_CHILD_VISITORS {
            return refused(self);
        }
        let own = match &speaker {
            Speaker::Address(addr) => Name::reverse(*addr),
            Speaker::Name(name) => name.clone(),
        };
        let client = self.serves(ours).then(|| self.client_names(ours, peer.local));
        let names = client.into_iter().flatten().chain([Name::reverse(theirs), own]);
        let answers: BTreeMap<Name, Option<Answer>> = names.map(|name| (name, None)).collect();
        let asked: Vec<Name> = answers.keys().cloned().collect();
        self.child_visitors.insert(ike, ChildVisitor { flow, speaker, answers });
        for name in asked {
            self.ask(name, Asker::Child(ike));
        }
    }

    /// One of the records behind a wanted child is known.
    pub(crate) fn child_evidence(&mut self, now: Instant, ike: IkeId, answer: &Answer) {
        let Some(visitor) = self.child_visitors.get_mut(&ike) else { return };
        if let Some(slot) = visitor.answers.get_mut(&answer.owner) {
            *slot = Some(answer.clone());
        }
        if visitor.answers.values().any(Option::is_none) {
            return;
        }
        let Some(visitor) = self.child_visitors.remove(&ike) else { return };
        let proof = self.judge_child(now, ike, &visitor);
        let allowed = proof.is_ok();
        match proof {
            Ok(proof) => self.keep_proof(ike, proof),
            Err(why) => {
                self.counters.visitors_refused += 1;
                if let Some(peer) = self.peers.get(&ike) {
                    let (remote, identity) = (peer.gateway, peer.verified.identity().clone());
                    let why = Why::Authority(why);
                    self.report(now, None, What::Refused { remote, identity, why });
                }
            }
        }
        self.ike.handle_child(now, ike, allowed);
    }

    fn judge_child(
        &mut self,
        now: Instant,
        ike: IkeId,
        visitor: &ChildVisitor,
    ) -> Result<Authorized, Refusal> {
        let evidence: Vec<&Answer> = visitor.answers.values().flatten().collect();
        let (ours, theirs) = (visitor.flow.src(), visitor.flow.dst());
        if self.serves(ours) {
            self.judge_client(now, ours, &evidence)?;
        }
        let peer = self.peers.get(&ike).ok_or(Refusal::NoEvidence)?;
        let key = from_ike_key(peer.verified.credential()).ok_or(Refusal::NotNamed)?;
        let outer = (!peer.initiator).then_some(peer.gateway);
        let claim = Claim { address: theirs, speaker: &visitor.speaker, key: &key, outer };
        let strict = self.group_of_flow(visitor.flow).strictness();
        dnskeys::authorize(claim, &evidence, &self.config.rules, strict)
    }

    /// What a caller that wants to talk to somebody else than ourselves wants: one host that we
    /// serve.
    pub(crate) fn wanted_client(&self, selectors: &[TrafficSelector]) -> Option<IpAddr> {
        let hosts = selectors.iter().filter_map(TrafficSelector::as_host);
        hosts.into_iter().find(|host| self.serves(*host))
    }

    /// Our identity and address towards those who look our client up, as last known: they see for
    /// themselves whether it holds.
    pub(crate) fn client_gateway(&self, flow: Flow) -> Option<IpAddr> {
        let named = self.clients.get(&flow.src()).and_then(|standing| standing.gateway.ok());
        let carrier = || self.pairs.get(&self.current(flow)?).map(|pair| pair.envelope.local.ip());
        named.or_else(carrier)
    }
}

/// Hosts behind us of which the record is remembered; the resolver remembers the others'.
const MAX_CLIENTS: usize = 16_384;
/// Wanted children whose records are being asked at once, one for each peer at the most.
const MAX_CHILD_VISITORS: usize = 256;
/// Names of ours asked about for one client: a gateway has few addresses.
const MAX_OWN_NAMES: usize = 4;
