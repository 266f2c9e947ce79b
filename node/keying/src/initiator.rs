//! From a trapped packet to a call, or to clear text, or to nothing (RFC 4322 §3.2.4, §3.2.5).
//!
//! The rules of opportunism in their order: every gateway of the answer is tried in ascending
//! precedence, ties at random, before failure is declared (rules 25, 68); one attempt for each
//! gateway is shared by all flows that want it; silence has a short life, an authenticated
//! refusal a normal one (rules 26, 28, 29).

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use dnskeys::{
    Answer, Authorized, Candidate, Claim, Gateway, Life, Name, Outcome, Reason, Security, Speaker,
    Strictness, Verdict,
};
use ike::{ChildRequest, Credential, End, Identity, IkeId, Initiate, PublicKey};
use rand_core::Rng as _;
use sa::{Command, Flow, Mode, Policy, Ports, TrafficSelector};

use crate::anonymous;
use crate::config::{NullAuth, WhenAdvertised};
use crate::entry::{Asker, Call, Peer, Pending, Renewal, State};
use crate::keying::Keying;
use crate::own::OwnRecord;
use crate::report::{What, Why};

impl Keying {
    /// The data plane holds this packet of this flow.
    pub(crate) fn acquire(&mut self, now: Instant, flow: Flow, packet: Flow) {
        let connections = self.connections_of(flow);
        if !connections.is_empty() {
            return self.connections_wanted(now, &connections, packet);
        }
        // A notice may cross our own command on the way: say again what holds.
        let standing = self.flows.get(&flow).map(|entry| match entry.state {
            State::PotentialOe | State::PendingOe(_) | State::Keyed { quiet: true, .. } => {
                Policy::Hold
            }
            State::Keyed { current, .. } => Policy::Encrypt(current),
            State::ClearText(_) => Policy::Pass,
            State::Deny(_) => Policy::Deny,
        });
        match standing {
            Some(Policy::Hold) => {
                if let Some(entry) = self.flows.get_mut(&flow) {
                    entry.recalled = None;
                }
            }
            Some(policy) => {
                self.set_policy(flow, policy);
                // The data plane had to forget it meanwhile: that is use as well.
                self.flow_used(now, flow);
            }
            None => self.new_flow(now, flow),
        }
    }

    fn new_flow(&mut self, now: Instant, flow: Flow) {
        if self.pool.covers(flow.dst()) {
            return self.leased_flow(now, flow);
        }
        let group = self.group_of_flow(flow);
        if !group.initiates() {
            let life = self.config.lives.refused;
            return match group.strictness() {
                Strictness::Permissive => self.go_clear(now, flow, Why::Group, life),
                Strictness::Paranoid => self.go_deny(now, flow, Why::Group, life),
            };
        }
        let own = self.config.addresses.contains(&flow.src());
        let served = !own && self.serves(flow.src());
        let unknown = !own && !served;
        if unknown && self.foreign.contains(now, flow.src()) {
            return self.not_served(now, flow);
        }
        if self.undecided.is_full(flow.dst()) {
            self.counters.over_budget += 1;
            // Nothing is remembered of what there is too much of; the next packet has its chance.
            return self.command(match group.strictness() {
                Strictness::Permissive => Command::ReleaseFlow { flow },
                Strictness::Paranoid => Command::ClearPolicy { flow },
            });
        }
        if unknown {
            return self.wait_for_news(now, flow);
        }
        self.trapped(now, flow);
    }

    /// Holds a flow of which nothing is known but whose source it is, and asks (rule 19).
    pub(crate) fn trapped(&mut self, now: Instant, flow: Flow) {
        self.counters.trapped += 1;
        self.enter(now, flow, State::PotentialOe, Some(now + PATIENCE));
        self.set_policy(flow, Policy::Hold);
        self.report(now, Some(flow), What::Trapped);
        self.ask_about(now, flow);
    }

    /// Asks what has to be known of a flow's destination; of who sends it first, if that is a host
    /// behind us.
    pub(crate) fn ask_about(&mut self, now: Instant, flow: Flow) {
        if self.serves(flow.src()) {
            return self.new_client_flow(now, flow);
        }
        self.ask(Name::reverse(flow.dst()), Asker::Destination(flow));
        self.ask_own(now, flow.src());
    }

    /// Makes room for one more flow that is clear or denied: of those that are, the one that ends
    /// soonest goes first. Others are bounded by what they are ([`MAX_PENDING`], pairs) and take no
    /// room from these: whoever could fill the table with pairs would decide how we talk to others.
    ///
    /// [`MAX_PENDING`]: crate::undecided::MAX_PENDING
    fn make_room(&mut self, now: Instant) {
        while self.forgettable.len() >= self.config.destinations {
            let Some(&(_, flow)) = self.forgettable.first() else { return };
            self.expire(now, flow);
        }
    }

    /// The destination's own record is known.
    pub(crate) fn destination_answered(&mut self, now: Instant, flow: Flow, answer: &Answer) {
        let Some(entry) = self.flows.get_mut(&flow) else { return };
        let renewed = match (&entry.state, &entry.renewal) {
            (State::PotentialOe, _) => false,
            (State::ClearText(_), Renewal::Asked) => true,
            _ => return,
        };
        let before = entry.said(now, answer);
        let unchanged = renewed
            && before.is_some_and(|before| {
                (before.security, &before.outcome) == (answer.security, &answer.outcome)
            });
        let strict = entry.group.strictness();
        self.report(now, Some(flow), What::of(answer));
        match dnskeys::decide(flow.dst(), answer, &self.config.rules, strict) {
            Verdict::Negotiate { mut candidates, security, life } => {
                self.shuffle_ties(&mut candidates, self.last_gateway(flow));
                // Who has just fallen silent is tried last, whatever its precedence.
                candidates.sort_by_key(|c| self.silences.is_recent(now, c.gateway));
                let pending = Pending {
                    candidates: candidates.into(),
                    gateway: None,
                    evidence: vec![answer.clone()],
                    security,
                    until: now + self.life(life),
                    ends: Vec::new(),
                    called_again: false,
                    anew: false,
                    behind_nat: false,
                    spoilt: spoilt(answer),
                    anonymous: false,
                };
                self.negotiate(now, flow, pending, renewed, unchanged);
            }
            Verdict::Clear { reason: Reason::NoRecord, life }
                if self.config.null_auth == NullAuth::Call =>
            {
                let pending = anonymous::pending(flow, answer, now + self.life(life));
                self.negotiate(now, flow, pending, renewed, unchanged);
            }
            Verdict::Clear { reason: Reason::DnsFailed, life } => {
                let (why, life) = (Why::Dns(Reason::DnsFailed), self.life(life));
                self.dns_failed(now, flow, why, life);
            }
            Verdict::Clear { reason, life } => {
                let life = self.life(life);
                self.nothing_published(flow);
                self.clear_text(now, flow, Why::Dns(reason), life);
            }
            Verdict::Deny { reason, life } => {
                let life = self.life(life);
                self.go_deny(now, flow, Why::Dns(reason), life);
            }
        }
    }

    /// Starts to call. A flow that is in the clear because nobody answered, and whose records say
    /// what they said then, stays so until somebody does (rule 37); otherwise it is held (rule 35).
    fn negotiate(
        &mut self,
        now: Instant,
        flow: Flow,
        pending: Pending,
        renewed: bool,
        unchanged: bool,
    ) {
        let pending = Box::new(pending);
        if renewed && unchanged {
            if let Some(entry) = self.flows.get_mut(&flow) {
                entry.renewal = Renewal::Calling(pending);
            }
            self.set_deadline(flow, Some(now + PATIENCE));
        } else {
            self.enter(now, flow, State::PendingOe(pending), Some(now + PATIENCE));
            if renewed {
                self.set_policy(flow, Policy::Hold);
            }
        }
        self.next_candidate(now, flow);
    }

    fn life(&self, life: Life) -> Duration {
        match life {
            // A TTL of zero would ask again for every packet.
            Life::Ttl(ttl) => ttl.clamp(MIN_LIFE, self.config.rules.ttl_cap.max(MIN_LIFE)),
            Life::Short => self.config.lives.short,
        }
    }

    /// Gateways of equal precedence are tried in random order (RFC 4322 §5.2), but the one that
    /// is known to have answered first.
    fn shuffle_ties(&mut self, candidates: &mut [Candidate], last: Option<IpAddr>) {
        let lot = |rng: &mut rand_chacha::ChaCha20Rng, gateway| match last {
            Some(last) if last == gateway => 0,
            _ => rng.next_u64(),
        };
        let mut keyed: Vec<(u16, u64, Candidate)> = candidates
            .iter()
            .map(|c| (c.precedence, lot(&mut self.rng, c.gateway), c.clone()))
            .collect();
        keyed.sort_by_key(|(precedence, lot, _)| (*precedence, *lot));
        for (slot, (_, _, candidate)) in candidates.iter_mut().zip(keyed) {
            *slot = candidate;
        }
    }

    /// Tries the next gateway of a pending flow, or declares failure.
    pub(crate) fn next_candidate(&mut self, now: Instant, flow: Flow) {
        let anonymous = self.pending(flow).is_some_and(|pending| pending.anonymous);
        if !anonymous {
            let first = self.pending(flow).is_some_and(|pending| pending.gateway.is_none());
            if first && self.waits_for_own(flow.src()) {
                return;
            }
            let required = self.config.own_record == OwnRecord::Require;
            if required && self.own_refusal(flow.src()).is_some() {
                return self.failed(now, flow);
            }
        }
        loop {
            let Some(pending) = self.pending(flow) else { return };
            let Some(candidate) = pending.candidates.pop_front() else {
                return self.failed(now, flow);
            };
            pending.gateway = Some(candidate.clone());
            if self.config.addresses.contains(&candidate.gateway) {
                continue;
            }
            if candidate.keys.is_empty() && !anonymous {
                let name = Name::reverse(candidate.gateway);
                return self.ask(name, Asker::Gateway(flow));
            }
            if self.call_gateway(now, flow, &candidate) {
                return;
            }
        }
    }

    /// The record of a gateway that a keyless record named.
    pub(crate) fn gateway_answered(&mut self, now: Instant, flow: Flow, answer: &Answer) {
        let Some(pending) = self.pending(flow) else { return };
        let Some(mut candidate) = pending.gateway.clone() else { return };
        if Name::reverse(candidate.gateway) != answer.owner || !candidate.keys.is_empty() {
            return;
        }
        if let Some(entry) = self.flows.get_mut(&flow) {
            entry.said(now, answer);
        }
        self.report(now, Some(flow), What::of(answer));
        let Some(pending) = self.pending(flow) else { return };
        candidate.keys = keys_of(answer, &Speaker::Address(candidate.gateway));
        pending.spoilt = pending.spoilt.or_else(|| spoilt(answer));
        pending.evidence.push(answer.clone());
        pending.gateway = Some(candidate.clone());
        if candidate.keys.is_empty() || !self.call_gateway(now, flow, &candidate) {
            self.next_candidate(now, flow);
        }
    }

    /// Calls a gateway, or joins a call or an SA that is there. False if that is impossible.
    fn call_gateway(&mut self, now: Instant, flow: Flow, candidate: &Candidate) -> bool {
        let Some(pending) = self.pending(flow) else { return false };
        let (anew, anonymous) = (pending.anew, pending.anonymous);
        let evidence = pending.evidence.clone();
        self.call_with(now, flow, candidate, evidence, (anew, anonymous))
    }

    /// The same with this evidence; `anew` if only an IKE SA of our own will do, `anonymous` if
    /// nothing need be proved.
    pub(crate) fn call_with(
        &mut self,
        now: Instant,
        flow: Flow,
        candidate: &Candidate,
        evidence: Vec<Answer>,
        (anew, anonymous): (bool, bool),
    ) -> bool {
        let gateway = candidate.gateway;
        let Some(local) = self.outer_address(flow, gateway) else { return false };
        if !anew && let Some(ike) = self.peer_at(local, gateway, candidate) {
            return self.add_child(now, flow, ike, &evidence);
        }
        let mut keys: Vec<Credential> = candidate.keys.iter().filter_map(to_ike_key).collect();
        keys.extend(anonymous.then_some(Credential::Null));
        keys.sort();
        keys.dedup();
        let fits = |call: &Call| call.keys == keys && call.flows.len() < MAX_FLOWS_OF_CALL;
        let shared = self.calls.to(gateway, local).find(|(_, call)| fits(call)).map(|(ike, _)| ike);
        if let Some(ike) = shared {
            self.calls.join(ike, flow, evidence);
            return true;
        }
        let calls = self.calls.to(gateway, local).count();
        if keys.is_empty() || calls >= MAX_CALLS_TO_GATEWAY {
            return false;
        }
        let ask_address = self.address_wanted(flow, local, gateway).filter(|_| !anonymous);
        let (identity, peer) = if anonymous {
            (Identity::Null, Identity::Null)
        } else {
            let ours = self.config.identity.clone().unwrap_or(Identity::Address(local));
            (ours, Identity::Address(gateway))
        };
        self.counters.calls += 1;
        self.report(now, Some(flow), What::Calling { gateway });
        let ike = self.call(
            now,
            Initiate {
                local,
                remote: gateway,
                identity,
                peer,
                keys: keys.clone(),
                child: child_request(flow),
                ask_address,
            },
        );
        let call = Call { gateway, local, keys, flows: vec![flow], evidence, keyed: false };
        self.calls.insert(ike, call);
        true
    }

    /// An established IKE SA with this gateway under one of the candidate's keys.
    fn peer_at(&self, local: IpAddr, gateway: IpAddr, candidate: &Candidate) -> Option<IkeId> {
        let keys: Vec<Credential> = candidate.keys.iter().filter_map(to_ike_key).collect();
        self.peers
            .known_as(&Identity::Address(gateway))
            .find(|(_, peer)| {
                peer.takes_more()
                    && peer.connection.is_none()
                    && peer.gateway == gateway
                    && peer.local == local
                    && keys.contains(peer.verified.credential())
            })
            .map(|(ike, _)| ike)
    }

    /// Asks for one more child under an IKE SA. False if its peer may not speak for the flow's
    /// destination.
    pub(crate) fn add_child(
        &mut self,
        now: Instant,
        flow: Flow,
        ike: IkeId,
        evidence: &[Answer],
    ) -> bool {
        if !self.prove(flow, ike, evidence) {
            return false;
        }
        self.ask_child(now, flow, ike)
    }

    /// The same for a flow that is proved already.
    pub(crate) fn ask_child(&mut self, now: Instant, flow: Flow, ike: IkeId) -> bool {
        let Some(peer) = self.peers.get_mut(&ike) else { return false };
        peer.follow(flow, &self.config.addresses);
        let Some(inside) = peer.inside(flow) else { return false };
        if peer.waiting.len() >= MAX_FLOWS_OF_CALL {
            return false;
        }
        peer.waiting.push(flow);
        self.ike.create_child(now, ike, child_request(inside));
        true
    }

    /// Checks a flow's evidence against the key that authenticated the IKE SA, and keeps the
    /// proof.
    fn prove(&mut self, flow: Flow, ike: IkeId, evidence: &[Answer]) -> bool {
        if self.peers.get(&ike).is_some_and(|peer| *peer.verified.credential() == Credential::Null)
        {
            return self.prove_anonymous(flow, ike, evidence);
        }
        let strict = self.group_of_flow(flow).strictness();
        let Some(peer) = self.peers.get_mut(&ike) else { return false };
        let Some(key) = from_ike_key(peer.verified.credential()) else { return false };
        let Some(speaker) = to_speaker(peer.verified.identity()) else { return false };
        let claim = Claim { address: flow.dst(), speaker: &speaker, key: &key, outer: None };
        let evidence: Vec<&Answer> = evidence.iter().collect();
        let Ok(proof) = dnskeys::authorize(claim, &evidence, &self.config.rules, strict) else {
            return false;
        };
        self.keep_proof(ike, proof);
        true
    }

    /// Keeps what a peer may speak for. Of what came to nothing only so much: whoever has a reverse
    /// zone can show that for as many addresses as it likes.
    pub(crate) fn keep_proof(&mut self, ike: IkeId, proof: Authorized) {
        let Some(peer) = self.peers.get_mut(&ike) else { return };
        peer.proofs.retain(|p| p.address() != proof.address());
        if peer.proofs.len() >= MAX_PROOFS {
            let pairs = peer.pairs.iter().filter_map(|sa| self.pairs.get(sa));
            let spoken_for: BTreeSet<IpAddr> = pairs
                .map(|pair| pair.flow)
                .chain(peer.waiting.iter().copied())
                .map(|f| f.dst())
                .collect();
            peer.proofs.retain(|p| spoken_for.contains(&p.address()));
        }
        // One, as a rule.
        peer.proofs.reserve_exact(1);
        peer.proofs.push(proof);
    }

    /// IKE_SA_INIT of a call is done.
    pub(crate) fn call_keyed(&mut self, now: Instant, ike: IkeId, behind_nat: bool) {
        let Some(call) = self.calls.get_mut(&ike) else { return };
        call.keyed = true;
        let (flows, gateway) = (call.flows.clone(), call.gateway);
        for flow in flows {
            if let Some(pending) = self.pending(flow) {
                pending.behind_nat |= behind_nat;
            }
            self.report(now, Some(flow), What::InitDone { gateway });
        }
    }

    /// A call was answered and the gateway is who it says.
    pub(crate) fn call_answered(
        &mut self,
        now: Instant,
        ike: IkeId,
        mut peer: Peer,
        assigned: Option<IpAddr>,
    ) {
        let Some(call) = self.calls.remove(&ike) else {
            return self.ike.close(now, ike);
        };
        peer.gateway = call.gateway;
        peer.local = call.local;
        peer.translation = self.address_given(now, &call, assigned);
        let identity = peer.verified.identity().clone();
        self.peers.insert(ike, peer);
        let mut flows = call.flows.into_iter();
        if let Some(first) = flows.next() {
            self.report(
                now,
                Some(first),
                What::Authenticated { gateway: call.gateway, identity, initiator: true },
            );
            if self.prove(first, ike, &call.evidence) {
                if let Some(peer) = self.peers.get_mut(&ike) {
                    peer.waiting.push(first);
                }
            } else {
                self.gateway_ended(now, first, End::NotAuthorized);
                self.close_if_bare(now, ike);
            }
        }
        for flow in flows {
            let carried =
                self.current(flow).and_then(|sa| self.pairs.get(&sa)).map(|pair| pair.ike);
            let stuck = carried.and_then(|old| self.peers.get(&old)).is_some_and(|p| p.unanswered);
            let wanted = stuck || self.pending(flow).is_some();
            if wanted && !self.add_child(now, flow, ike, &call.evidence) {
                self.gateway_ended(now, flow, End::NotAuthorized);
            }
        }
    }

    /// A child that we asked for was refused.
    pub(crate) fn child_failed(
        &mut self,
        now: Instant,
        ike: IkeId,
        request: &ChildRequest,
        why: End,
    ) {
        if let Some(index) = self.peers.get(&ike).and_then(|peer| peer.connection) {
            if self.wish_answered(now, index, None) {
                return;
            }
            self.close_if_bare(now, ike);
            return self.connection_call_ended(now, index, why);
        }
        let Some(mut flow) = flow_of(&request.local, &request.remote) else { return };
        let (mut theirs, mut waited) = (false, false);
        if let Some(peer) = self.peers.get_mut(&ike) {
            flow = peer.outside(flow);
            waited = peer.waiting.contains(&flow);
            peer.waiting.retain(|f| *f != flow);
            theirs = !peer.initiator;
        }
        // Else it has been called for elsewhere meanwhile, and that is what counts.
        if waited {
            self.child_refused(now, flow, why, theirs);
        }
        self.close_if_bare(now, ike);
    }

    /// A child was refused. On an IKE SA that the peer called for it grants what it called for; a
    /// call of ours may get more.
    pub(crate) fn child_refused(&mut self, now: Instant, flow: Flow, why: End, theirs: bool) {
        let Some(pending) = self.pending(flow) else { return };
        if theirs
            && !std::mem::replace(&mut pending.anew, true)
            && let Some(candidate) = pending.gateway.take()
        {
            pending.candidates.push_front(candidate);
            return self.next_candidate(now, flow);
        }
        self.gateway_ended(now, flow, why);
    }

    /// The gateway being tried for a flow is of no use.
    pub(crate) fn gateway_ended(&mut self, now: Instant, flow: Flow, why: End) {
        let Some(pending) = self.pending(flow) else { return };
        let gateway = pending.gateway.as_ref().map(|candidate| candidate.gateway);
        if let Some(gateway) = gateway {
            pending.ends.push((gateway, why));
            self.report(now, Some(flow), What::GatewayEnded { gateway, why });
        }
        self.next_candidate(now, flow);
    }

    /// A gateway fell silent between IKE_SA_INIT and IKE_AUTH, or the IKE SA that a child was asked
    /// of went away: somebody was there, and may have restarted. It is called once more, anew,
    /// before that counts as its answer.
    pub(crate) fn call_again(&mut self, now: Instant, flow: Flow, why: End) {
        let Some(pending) = self.pending(flow) else { return };
        if !pending.called_again
            && let Some(candidate) = pending.gateway.take()
        {
            pending.called_again = true;
            pending.candidates.push_front(candidate);
            self.set_deadline(flow, Some(now + PATIENCE));
            return self.next_candidate(now, flow);
        }
        self.set_deadline(flow, Some(now + PATIENCE));
        self.gateway_ended(now, flow, why);
    }

    /// No gateway is left (rules 25 to 29).
    pub(crate) fn failed(&mut self, now: Instant, flow: Flow) {
        let Some(entry) = self.flows.get(&flow) else { return };
        let strict = entry.group.strictness();
        let tried = (&entry.state, &entry.renewal);
        let ((State::PendingOe(pending), _) | (State::ClearText(_), Renewal::Calling(pending))) =
            tried
        else {
            return;
        };
        let lives = self.config.lives;
        let left = pending.until.saturating_duration_since(now).max(MIN_LIFE);
        // Of several gateways the one that may come round first decides.
        let life = |end: &_| self.silences.life(now, &lives, *end, left);
        let life = pending.ends.iter().map(life).min();
        let life = life.unwrap_or(lives.short);
        if pending.anonymous {
            return self.nobody_there(now, flow, left);
        }
        let secure = pending.security == Security::Secure;
        let last = pending.ends.last().map(|(_, end)| *end);
        let mut why = last.map_or(Why::Dns(Reason::NoUsableGateway), Why::Gateway);
        let refused = matches!(last, Some(End::Refused { .. }));
        let required = last.is_none() && self.config.own_record == OwnRecord::Require;
        let own = self.own_refusal(flow.src()).filter(|_| refused || required);
        // Who refused us asked DNS most likely, and will find our record as soon as it is there.
        let life = if own.is_some() { life.min(lives.short) } else { life };
        if let Some(refusal) = own {
            why = Why::OwnRecord(refusal);
        }
        // A name is what it takes there; and who gives out no addresses has refused as well.
        let nameless = !matches!(self.config.identity, Some(Identity::Fqdn(_)));
        if refused && pending.behind_nat && (nameless || !self.config.translates) {
            why = Why::BehindNat;
        }
        if let Some(reason) = pending.spoilt {
            let life = lives.short;
            return self.go_deny(now, flow, Why::Dns(reason), life);
        }
        let insist = secure && self.config.when_advertised == WhenAdvertised::Insist;
        match strict {
            Strictness::Permissive if !insist => self.fall_back(now, flow, why, life),
            Strictness::Permissive | Strictness::Paranoid => self.go_deny(now, flow, why, life),
        }
    }

    pub(crate) fn go_clear(&mut self, now: Instant, flow: Flow, why: Why, life: Duration) {
        if self.drop_recalled(now, flow) {
            return;
        }
        self.counters.clear += 1;
        self.make_room(now);
        self.enter(now, flow, State::ClearText(why), Some(now + life));
        self.set_policy(flow, Policy::Pass);
        let downgraded = self.is_downgraded(flow);
        self.report(now, Some(flow), What::ClearText { why, downgraded });
    }

    pub(crate) fn go_deny(&mut self, now: Instant, flow: Flow, why: Why, life: Duration) {
        if self.drop_recalled(now, flow) {
            return;
        }
        self.counters.denied += 1;
        self.make_room(now);
        self.enter(now, flow, State::Deny(why), Some(now + life));
        self.set_policy(flow, Policy::Deny);
        self.report(now, Some(flow), What::Denied(why));
    }

    pub(crate) fn pending(&mut self, flow: Flow) -> Option<&mut Pending> {
        let entry = self.flows.get_mut(&flow)?;
        match (&mut entry.state, &mut entry.renewal) {
            (State::PendingOe(pending), _) | (State::ClearText(_), Renewal::Calling(pending)) => {
                Some(pending)
            }
            _ => None,
        }
    }
}

/// Why no failure may end in the clear after this answer: not all of it can be read or believed. The
/// gateways of what can are tried, and if none of them will do, what is left is as if it were all
/// there is (rules 20, 22).
fn spoilt(answer: &Answer) -> Option<Reason> {
    match &answer.outcome {
        _ if answer.security == Security::Bogus => Some(Reason::Bogus),
        Outcome::Bogus => Some(Reason::Bogus),
        Outcome::Records(set) if !set.malformed.is_empty() => Some(Reason::Malformed),
        Outcome::Records(_) | Outcome::NoRecord | Outcome::NoName | Outcome::Failed(_) => None,
    }
}

/// One address to one address: opportunistic selectors are never wider, so they are those of the
/// packet already (RFC 7296 §2.9). Whatever the protocol, unless a policy group says otherwise.
fn child_request(flow: Flow) -> ChildRequest {
    let (local, remote) = selectors(flow);
    ChildRequest { local: vec![local], remote: vec![remote], mode: Mode::Tunnel }
}

/// What a packet says of itself: its protocol, and its ports if that has any.
pub(crate) fn ports_of(protocol: u8, (source, destination): (u16, u16)) -> Ports {
    Ports::new(protocol, source, destination)
        .or_else(|| Ports::new(protocol, 0, 0))
        .unwrap_or(Ports::ANY)
}

/// A flow as selectors: our side, the far side.
pub(crate) fn selectors(flow: Flow) -> (TrafficSelector, TrafficSelector) {
    let ports = flow.ports();
    let selector = |addr, port| {
        let range = if port == 0 { (0, u16::MAX) } else { (port, port) };
        TrafficSelector::new(addr, addr, ports.protocol(), range)
            .unwrap_or_else(|| TrafficSelector::host(addr))
    };
    (selector(flow.src(), ports.source()), selector(flow.dst(), ports.destination()))
}

/// The flow of single-address selectors. There may be several on a side, because the triggering
/// packet's own may come first (RFC 7296 §2.9), but all of one address; then the widest counts.
pub(crate) fn flow_of(local: &[TrafficSelector], remote: &[TrafficSelector]) -> Option<Flow> {
    let the_one = |selectors: &[TrafficSelector]| {
        let host = selectors.first()?.as_host()?;
        selectors.iter().all(|s| s.as_host() == Some(host)).then_some(host)
    };
    let flow = Flow::new(the_one(local)?, the_one(remote)?)?;
    let widest = |selectors: &[TrafficSelector]| {
        selectors.iter().copied().find(|one| selectors.iter().all(|other| one.covers(other)))
    };
    let (local, remote) = (widest(local)?, widest(remote)?);
    let port = |selector: TrafficSelector| match selector.ports() {
        (0, u16::MAX) => Some(0),
        (one, other) => (one == other && one != 0).then_some(one),
    };
    if local.protocol() != remote.protocol() {
        return None;
    }
    let ports = Ports::new(local.protocol(), port(local)?, port(remote)?)?;
    // A port of any protocol is none that a packet could be told by.
    (ports.protocol() != 0 || ports.is_any()).then(|| flow.with_ports(ports))
}

/// The keys that an answer gives to a speaker.
pub(crate) fn keys_of(answer: &Answer, speaker: &Speaker) -> Vec<dnskeys::PublicKey> {
    let Outcome::Records(set) = &answer.outcome else { return Vec::new() };
    let owns = match speaker {
        Speaker::Address(addr) => answer.owner == Name::reverse(*addr),
        Speaker::Name(name) => answer.owner == *name,
    };
    let names = |gateway: &Gateway| match (gateway, speaker) {
        (Gateway::Own, _) => owns,
        (Gateway::Address(a), Speaker::Address(b)) => a == b,
        (Gateway::Name(a), Speaker::Name(b)) => a == b,
        (Gateway::Address(_), Speaker::Name(_)) | (Gateway::Name(_), Speaker::Address(_)) => false,
    };
    let mut keys: Vec<dnskeys::PublicKey> = Vec::new();
    for record in set.gateways.iter().filter(|r| names(&r.gateway)) {
        if let Some(key) = &record.key
            && !keys.contains(key)
        {
            keys.push(key.clone());
        }
    }
    keys
}

/// What proves a peer's identity by a key that was published for it; `None` for keys that IKE
/// cannot verify with.
pub(crate) fn to_ike_key(key: &dnskeys::PublicKey) -> Option<Credential> {
    ike_key(key).map(Credential::Key)
}

/// A published key as IKE has it; `None` for keys that IKE cannot verify with.
#[must_use]
pub fn ike_key(key: &dnskeys::PublicKey) -> Option<PublicKey> {
    Some(match key {
        dnskeys::PublicKey::Rsa(rsa) => {
            PublicKey::Rsa { exponent: rsa.exponent().to_vec(), modulus: rsa.modulus().to_vec() }
        }
        dnskeys::PublicKey::EcdsaP256(point) => PublicKey::EcdsaP256(*point),
        dnskeys::PublicKey::EcdsaP384(point) => PublicKey::EcdsaP384(*point),
        dnskeys::PublicKey::Ed25519(point) => PublicKey::Ed25519(*point),
        dnskeys::PublicKey::Other { .. } => return None,
    })
}

/// The published key that proved a peer's identity; `None` if something else did.
pub(crate) fn from_ike_key(key: &Credential) -> Option<dnskeys::PublicKey> {
    match key.key()? {
        PublicKey::Rsa { exponent, modulus } => {
            dnskeys::RsaKey::new(exponent, modulus).ok().map(dnskeys::PublicKey::Rsa)
        }
        PublicKey::EcdsaP256(point) => Some(dnskeys::PublicKey::EcdsaP256(*point)),
        PublicKey::EcdsaP384(point) => Some(dnskeys::PublicKey::EcdsaP384(*point)),
        PublicKey::Ed25519(point) => Some(dnskeys::PublicKey::Ed25519(*point)),
    }
}

pub(crate) fn to_speaker(identity: &Identity) -> Option<Speaker> {
    match identity {
        Identity::Address(addr) => Some(Speaker::Address(*addr)),
        Identity::Fqdn(name) => name.parse().ok().map(Speaker::Name),
        Identity::Null | Identity::Other { .. } => None,
    }
}

/// Calls to one gateway at once. Records of many zones may name it, some of them to its harm.
const MAX_CALLS_TO_GATEWAY: usize = 4;
/// What one peer may speak for, kept at once: twice as many addresses as it can have children, so
/// that looking for what is of no use any more is rare.
const MAX_PROOFS: usize = 512;
/// Flows that share one call.
const MAX_FLOWS_OF_CALL: usize = 64;
/// A flow is never held for longer than this, whatever DNS and gateways do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// The shortest life of a decision that DNS limits.
pub(crate) const MIN_LIFE: Duration = Duration::from_secs(5);
