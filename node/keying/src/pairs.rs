//! Pairs of SAs come and go; calls that crossed are settled.
//!
//! When both ends call each other at once, both end up with two pairs for the same flow. They
//! settle it without a word, as RFC 7296 §2.8.1 settles simultaneous rekeying: the IKE SA with the
//! lowest of the four nonces loses, and the end that called for it closes it. Nobody closes or
//! sends before the winner is proven at the other end, by a packet on it or an answer under its IKE
//! SA, so nothing is lost on the way; a winner that never reached the other end loses.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use dnskeys::{Authorized, Security};
use ike::{Child, End, IkeId};
use rand_core::Rng as _;
use sa::{Class, Command, Envelope, Flow, Limits, Policy, SaId, SaPair, Trust};

use crate::entry::{Call, Pair, State};
use crate::initiator::flow_of;
use crate::keying::Keying;
use crate::report::What;
use crate::silence::is_silence;

/// What becomes of a new pair beside a current one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Settlement {
    /// Send on the new one at once; close the old.
    NewNow,
    /// The new one wins once it is proven; close the old then.
    NewLater,
    /// The new one wins; the peer closes the old.
    NewTheyClose,
    /// The old one stays; we close the new.
    OldWeClose,
    /// The old one stays; the peer closes the new.
    OldTheyClose,
}

impl Keying {
    /// A child is agreed: install it, with the proof that its peer may have it.
    pub(crate) fn child_up(&mut self, now: Instant, child: Child) {
        if let Some(index) = self.peers.get(&child.ike).and_then(|peer| peer.connection) {
            return self.connection_child_up(now, index, child);
        }
        let enough = |(flow, proof): &(Flow, Authorized)| !self.is_weaker(&child, *flow, proof);
        let Some((flow, proof)) = self.proof_for(&child).filter(enough) else {
            // Nothing may be installed without a proof: the peer is told that it is gone.
            self.ike.close_child(now, child.id);
            if child.initiator {
                self.narrowed(now, &child);
            }
            return self.close_if_bare(now, child.ike);
        };
        let (id, trust, proven) = (child.id, trust_of(&proof), child.initiator);
        let translation = self.peers.get(&child.ike).and_then(|peer| peer.translation);
        let aged = child.rekeys.and_then(|old| self.pairs.get(&old)).map(|old| old.proof_until);
        let pair = Pair {
            flow,
            ike: child.ike,
            trust,
            // A replacement is no younger evidence.
            proof_until: aged.unwrap_or_else(|| now + proof.life().max(MIN_PROOF)),
            proof,
            since: now,
            cipher: child.cipher,
            mode: child.mode,
            spi_in: child.spi_in,
            spi_out: child.spi_out,
            envelope: child.envelope,
            proven,
            doomed: false,
            looked_at: false,
            used: sa::Use::default(),
            last_used: now,
        };
        let ike = child.ike;
        if let Some(peer) = self.peers.get_mut(&ike) {
            peer.pairs.insert(id);
            peer.waiting.retain(|f| *f != flow);
            peer.waiting.shrink_to_fit();
        }
        self.counters.pairs += 1;
        self.pairs.insert(id, pair);
        self.set_movable(ike);
        let rekeys = child.rekeys;
        let clear = self.goes_clear(flow);
        if clear || self.current(flow).is_none() {
            // From here on its packets can be opened; what answers them must not go as before. Where
            // nothing has been said of the flow it may go anywhere: a group's class leads it to us, but
            // hosts behind us and gateways on the link are excepted from that.
            self.set_policy(flow, Policy::Hold);
        }
        let pair = SaPair { translation, ..self.pair_for(child, trust) };
        self.command(Command::AddSa(Box::new(pair)));
        match (self.current(flow), rekeys) {
            (Some(current), Some(old)) if current == old => self.replace(now, flow, id, proven),
            // What waits to be proven has already won against what is sent on.
            (Some(current), _) => {
                let winner = self.awaited(flow).unwrap_or(current);
                self.settle(now, flow, winner, id);
            }
            (None, _) if proven => self.switch(now, flow, id),
            (None, _) => self.answered(now, flow, id, clear),
        }
        if rekeys.is_some() && !self.rechecks.contains_key(&flow) {
            // Whether the key is still the published one (rules 47, 70).
            self.recheck(flow, id);
        }
    }

    /// Whether a new child's peer has shown less than the peer that the flow is sent to. It gets
    /// nothing, for a moment neither: what it sends would be heard as the other's.
    fn is_weaker(&self, child: &Child, flow: Flow, proof: &Authorized) -> bool {
        let current = self.current(flow).filter(|current| child.rekeys != Some(*current));
        let current = current.and_then(|sa| self.pairs.get(&sa));
        current.is_some_and(|pair| trust_of(proof) < pair.trust)
    }

    /// Whether packets of this flow leave in the clear as things stand.
    fn goes_clear(&self, flow: Flow) -> bool {
        match self.flows.get(&flow) {
            Some(entry) => matches!(entry.state, State::ClearText(_)),
            None => self.group_of_flow(flow).class() == Class::Pass,
        }
    }

    /// The peer called, and our answer is on its way. What we send at once may overtake it, and
    /// the peer cannot open it then: packets that wait go on waiting for a moment, until the peer
    /// has sent something, and so do those that went in the `clear` until now. If there are none:
    /// send, but not before the answer.
    fn answered(&mut self, now: Instant, flow: Flow, sa: SaId, clear: bool) {
        let waiting = self
            .flows
            .get(&flow)
            .is_some_and(|e| matches!(e.state, State::PotentialOe | State::PendingOe(_)));
        if waiting || clear {
            let state = State::Keyed { current: sa, next: None, quiet: true };
            self.enter(now, flow, state, Some(now + QUIET));
            self.withdraw_calls(now, flow, sa);
        } else {
            self.after_drain.push((flow, sa));
        }
    }

    /// The peer's call was faster than ours, which is taken back if it can be: as long as we have
    /// not sent IKE_AUTH for it. The peer has sent its own, so it stays with that, and of two calls
    /// that cross one is always left. What is not signed may be worth less than what we called for.
    pub(crate) fn withdraw_calls(&mut self, now: Instant, flow: Flow, sa: SaId) {
        if self.pairs.get(&sa).is_none_or(|pair| pair.trust < Trust::Dnssec) {
            return;
        }
        let moot = |call: &Call| call.flows.iter().all(|f| self.current(*f).is_some());
        let calls: Vec<IkeId> =
            self.calls.of(flow).filter(|(_, call)| moot(call)).map(|(ike, _)| ike).collect();
        for ike in calls {
            if self.ike.withdraw(now, ike) {
                self.calls.remove(&ike);
                self.counters.calls_withdrawn += 1;
            }
        }
    }

    /// Sends on the pairs whose answers have left.
    pub(crate) fn switch_answered(&mut self, now: Instant) {
        for (flow, sa) in std::mem::take(&mut self.after_drain) {
            if self.current(flow).is_none() {
                self.switch(now, flow, sa);
            }
        }
    }

    /// An IKE SA may move if somebody has signed for everything it carries. What nobody signed for
    /// speaks for the address it was called at or from, and moves nowhere else.
    pub(crate) fn set_movable(&mut self, ike: IkeId) {
        let Some(peer) = self.peers.get(&ike) else { return };
        let mut pairs = peer.pairs.iter().filter_map(|sa| self.pairs.get(sa));
        let movable = pairs.all(|pair| pair.trust > Trust::Unauthenticated);
        self.ike.allow_moves(ike, movable);
    }

    /// The peer has agreed to a part only of what we asked for: that is a refusal of the rest.
    fn narrowed(&mut self, now: Instant, child: &Child) {
        let Some(part) = flow_of(&child.local, &child.remote) else { return };
        let Some(peer) = self.peers.get_mut(&child.ike) else { return };
        let part = peer.outside(part);
        let ends = |flow: &Flow| (flow.src(), flow.dst()) == (part.src(), part.dst());
        let refused: Vec<Flow> = peer.waiting.iter().copied().filter(ends).collect();
        peer.waiting.retain(|flow| !ends(flow));
        let theirs = !peer.initiator;
        for flow in refused {
            let why = End::Refused { notify: TS_UNACCEPTABLE, authentic: true };
            self.child_refused(now, flow, why, theirs);
        }
    }

    /// The flow of a child, and why its peer may carry it.
    fn proof_for(&self, child: &Child) -> Option<(Flow, Authorized)> {
        let inside = flow_of(&child.local, &child.remote)?;
        let flow = self.peers.get(&child.ike).map_or(inside, |peer| peer.outside(inside));
        if let Some(old) = child.rekeys.and_then(|old| self.pairs.get(&old))
            && old.flow == flow
        {
            return Some((flow, old.proof.clone()));
        }
        let peer = self.peers.get(&child.ike)?;
        let proof = peer.proofs.iter().find(|proof| proof.address() == flow.dst())?;
        // The whole flow is sent into it: one that carries a part only would lose the rest.
        let waited = peer.waiting.contains(&flow);
        let own = self.serves(flow.src()) || self.config.addresses.contains(&flow.src());
        // What the peer has been granted may be for a host that we served then.
        let ours = own && (waited || !child.initiator);
        (ours && self.may_carry(flow, proof)).then(|| (flow, proof.clone()))
    }

    /// The pair that a flow is sent on.
    pub(crate) fn current(&self, flow: Flow) -> Option<SaId> {
        match self.flows.get(&flow)?.state {
            State::Keyed { current, .. } => Some(current),
            State::PotentialOe | State::PendingOe(_) | State::ClearText(_) | State::Deny(_) => None,
        }
    }

    /// The pair that a flow is to be sent on as soon as it is proven.
    fn awaited(&self, flow: Flow) -> Option<SaId> {
        match self.flows.get(&flow)?.state {
            State::Keyed { next, .. } => next.filter(|sa| self.pairs.get(sa).is_some()),
            State::PotentialOe | State::PendingOe(_) | State::ClearText(_) | State::Deny(_) => None,
        }
    }

    /// Sends a flow on a pair from now on.
    pub(crate) fn switch(&mut self, now: Instant, flow: Flow, sa: SaId) {
        let Some(pair) = self.pairs.get_mut(&sa) else { return };
        pair.doomed = false;
        let trust = pair.trust;
        let first_look = now + self.config.lives.first_look;
        let state = State::Keyed { current: sa, next: None, quiet: false };
        self.enter(now, flow, state, Some(first_look));
        self.set_policy(flow, Policy::Encrypt(sa));
        self.report(now, Some(flow), What::Keyed { sa, trust });
        self.reap(now, flow);
    }

    /// A replacement for the current pair is up (RFC 7296 §2.8: make before break).
    fn replace(&mut self, now: Instant, flow: Flow, new: SaId, ours: bool) {
        if ours {
            self.switch(now, flow, new);
        } else {
            self.switch_when_proven(now, flow, new);
        }
    }

    fn switch_when_proven(&mut self, now: Instant, flow: Flow, new: SaId) {
        if let Some(entry) = self.flows.get_mut(&flow)
            && let State::Keyed { next, .. } = &mut entry.state
        {
            *next = Some(new);
        }
        self.set_deadline(flow, Some(now + GRACE));
    }

    /// Two pairs for one flow: which stays?
    fn settle(&mut self, now: Instant, flow: Flow, old: SaId, new: SaId) {
        match self.settlement(now, old, new) {
            Settlement::NewNow => {
                self.doom(old);
                self.switch(now, flow, new);
            }
            Settlement::NewLater => {
                self.doom(old);
                self.switch_when_proven(now, flow, new);
            }
            Settlement::NewTheyClose => {
                let ours = self.pairs.get(&new).is_some_and(|pair| pair.proven);
                self.replace(now, flow, new, ours);
            }
            Settlement::OldWeClose if self.is_proven(new) && !self.is_proven(old) => {
                self.switch(now, flow, new);
                self.doom(new);
                self.switch_when_proven(now, flow, old);
            }
            Settlement::OldWeClose => {
                self.doom(new);
                self.reap(now, flow);
                self.set_deadline(flow, Some(now + GRACE));
            }
            Settlement::OldTheyClose => {}
        }
    }

    fn settlement(&self, now: Instant, old: SaId, new: SaId) -> Settlement {
        let (Some(a), Some(b)) = (self.pairs.get(&old), self.pairs.get(&new)) else {
            return Settlement::NewNow;
        };
        let (Some(pa), Some(pb)) = (self.peers.get(&a.ike), self.peers.get(&b.ike)) else {
            return Settlement::NewNow;
        };
        let same_peer = pa.verified == pb.verified;
        let young = now.saturating_duration_since(pa.established) < CROSSING;
        let crossed = young && !pa.unanswered && pa.initiator != pb.initiator;
        if a.ike == b.ike || !same_peer || !crossed {
            // The peer came back anew: what it asks for last is what it has.
            return Settlement::NewNow;
        }
        let old_loses = pa.lowest_nonce < pb.lowest_nonce;
        match (old_loses, pa.initiator) {
            (true, true) => Settlement::NewLater,
            (true, false) => Settlement::NewTheyClose,
            (false, true) => Settlement::OldTheyClose,
            (false, false) => Settlement::OldWeClose,
        }
    }

    fn doom(&mut self, sa: SaId) {
        if let Some(pair) = self.pairs.get_mut(&sa) {
            pair.doomed = true;
        }
    }

    fn spare(&mut self, sa: SaId) {
        if let Some(pair) = self.pairs.get_mut(&sa) {
            pair.doomed = false;
        }
    }

    fn is_proven(&self, sa: SaId) -> bool {
        self.pairs.get(&sa).is_some_and(|pair| pair.proven)
    }

    /// No traffic has proved a winner so far: the peer is asked under the IKE SA, which it does not
    /// have if our answer to its call was lost for good. It is asked until it answers, and if it
    /// does not, the pair ends and the other stays.
    pub(crate) fn ask_winner(&mut self, now: Instant, flow: Flow, sa: SaId) {
        if self.is_proven(sa) {
            let first_look = now + self.config.lives.first_look;
            self.set_deadline(flow, Some(first_look));
            return self.pair_proven(now, sa);
        }
        self.set_deadline(flow, Some(now + GRACE));
        if let Some(ike) = self.pairs.get(&sa).map(|pair| pair.ike) {
            self.ike.probe(now, ike);
        }
    }

    /// The peer has answered under this IKE SA, so it has what came with it.
    pub(crate) fn peer_alive(&mut self, now: Instant, ike: IkeId) {
        let Some(peer) = self.peers.get(&ike) else { return };
        let there: Vec<SaId> = peer
            .pairs
            .iter()
            .filter(|sa| self.pairs.get(sa).is_some_and(|pair| !pair.proven))
            .copied()
            .collect();
        for sa in there {
            self.pair_proven(now, sa);
        }
        self.joints_proven(now, ike);
    }

    /// Closes the pairs that lost, once the winner is proven.
    pub(crate) fn reap(&mut self, now: Instant, flow: Flow) {
        let Some(current) = self.current(flow) else { return };
        if !self.is_proven(current) {
            return;
        }
        let doomed: Vec<SaId> = self
            .pairs_of(flow)
            .filter(|(sa, pair)| pair.doomed && *sa != current)
            .map(|(sa, _)| sa)
            .collect();
        for sa in doomed {
            self.report(now, Some(flow), What::PairDropped { sa });
            self.close_pair(now, sa);
        }
    }

    /// The peer has this pair too: it sent on it.
    pub(crate) fn pair_proven(&mut self, now: Instant, sa: SaId) {
        if self.joint_proven(now, sa) {
            return;
        }
        let Some(pair) = self.pairs.get_mut(&sa) else { return };
        pair.proven = true;
        let flow = pair.flow;
        let awaited = self.flows.get(&flow).is_some_and(|entry| match entry.state {
            State::Keyed { current, quiet: true, .. } if current == sa => true,
            State::Keyed { next, .. } => next == Some(sa),
            State::PotentialOe | State::PendingOe(_) | State::ClearText(_) | State::Deny(_) => {
                false
            }
        });
        if awaited {
            self.switch(now, flow, sa);
        } else {
            self.reap(now, flow);
        }
    }

    /// Closes a pair, and its IKE SA with it if that has no other use.
    pub(crate) fn close_pair(&mut self, now: Instant, sa: SaId) {
        let Some(pair) = self.pairs.get(&sa) else { return };
        let ike = pair.ike;
        let alone = self
            .peers
            .get(&ike)
            .is_none_or(|peer| peer.waiting.is_empty() && peer.pairs.iter().all(|p| *p == sa));
        if alone || self.is_outlived(ike) {
            self.close_ike(now, ike);
        } else {
            self.ike.close_child(now, sa);
        }
    }

    /// Forgets a flow and closes all its pairs; the trap stands before the pairs go.
    pub(crate) fn close_flow(&mut self, now: Instant, flow: Flow) {
        self.expire(now, flow);
        let pairs: Vec<SaId> = self.pairs_of(flow).map(|(sa, _)| sa).collect();
        for sa in pairs {
            self.close_pair(now, sa);
        }
    }

    /// A child is gone.
    pub(crate) fn child_down(&mut self, now: Instant, sa: SaId, why: End) {
        if self.joint_down(now, sa, why) {
            return;
        }
        // Nothing of it is here any more if its peer lost the right to it before.
        let Some(pair) = self.forget_pair(now, sa) else { return };
        // Packets under way on a pair that another replaces still arrive.
        let replaced = self.pairs_of(pair.flow).next().is_some();
        if replaced && self.lingering.len() < MAX_LINGERING {
            self.lingering.push_back((now + LINGER, sa));
        } else {
            self.remove_pair(Command::RemoveSa(sa), sa);
        }
        self.close_if_bare(now, pair.ike);
    }

    /// Nothing is sent on a pair any more; the data plane still has it.
    pub(crate) fn forget_pair(&mut self, now: Instant, sa: SaId) -> Option<Pair> {
        let pair = self.pairs.remove(&sa)?;
        let flow = pair.flow;
        if let Some(peer) = self.peers.get_mut(&pair.ike) {
            peer.pairs.remove(&sa);
            let address = flow.dst();
            let spoken_for = peer
                .pairs
                .iter()
                .filter_map(|p| self.pairs.get(p))
                .any(|p| p.flow.dst() == address);
            if !spoken_for && peer.waiting.iter().all(|f| f.dst() != address) {
                self.forget_proof(now, pair.ike, address);
            }
        }
        if let Some(entry) = self.flows.get_mut(&flow)
            && let State::Keyed { current, next, .. } = &mut entry.state
            && *next == Some(sa)
        {
            let stays = *current;
            *next = None;
            self.spare(stays);
        }
        if self.current(flow) == Some(sa) {
            // What remains, the newest first: a replacement that has not been proven yet will do.
            let other =
                self.pairs_of(flow).max_by_key(|(id, p)| (!p.doomed, *id)).map(|(id, _)| id);
            match other {
                Some(other) => self.switch(now, flow, other),
                None => self.expire(now, flow),
            }
        }
        if self.parted.len() < MAX_LINGERING {
            self.parted.insert(sa, flow);
        }
        Some(pair)
    }

    /// Removes the replaced pairs whose last packets have arrived by now.
    pub(crate) fn remove_lingering(&mut self, now: Instant) {
        while let Some((at, sa)) = self.lingering.front().copied() {
            if at > now + TOGETHER {
                break;
            }
            self.lingering.pop_front();
            self.remove_pair(Command::RemoveSa(sa), sa);
        }
    }

    /// Removes a pair from the data plane by this command; what it carried is said first (rule 38).
    pub(crate) fn remove_pair(&mut self, command: Command, sa: SaId) {
        if self.parted.contains_key(&sa) {
            self.command(Command::AskUse(sa));
        }
        self.command(command);
    }

    /// An IKE SA is gone; its children went before it.
    pub(crate) fn ike_ended(&mut self, now: Instant, ike: IkeId, why: End) {
        self.visitors_waiting.retain(|(_, need)| need.ike != ike);
        if self.visitors.remove(&ike).is_some() {
            self.let_in(now);
        }
        self.visits.remove(&ike);
        self.doubts.remove(&ike);
        self.pool.release(now, ike);
        self.configured_visitors.remove(&ike);
        self.configured_visits.remove(&ike);
        if let Some((index, ..)) = self.configured_calls.remove(&ike) {
            return self.connection_call_ended(now, index, why);
        }
        let (mut failed, mut again) = (Vec::new(), Vec::new());
        let call = self.calls.remove(&ike);
        if let Some(call) = &call
            && is_silence(why)
        {
            self.silences.note(now, call.gateway);
        }
        match call {
            Some(call) if call.keyed && why == End::Timeout => again = call.flows,
            Some(call) => failed = call.flows,
            None => {}
        }
        self.child_visitors.remove(&ike);
        if let Some(peer) = self.peers.remove(&ike) {
            if why == End::Timeout {
                self.silences.note(now, peer.gateway);
            }
            again.extend(peer.waiting);
        }
        for flow in again {
            self.call_again(now, flow, why);
        }
        for flow in failed {
            self.gateway_ended(now, flow, why);
        }
    }

    /// Outer addresses changed.
    pub(crate) fn moved(
        &mut self,
        now: Instant,
        ike: IkeId,
        children: &[SaId],
        envelope: Envelope,
    ) {
        if let Some(peer) = self.peers.get_mut(&ike) {
            peer.local = envelope.local.ip();
        }
        let flow = children.first().and_then(|sa| self.pairs.get(sa)).map(|pair| pair.flow);
        let (local, remote) = (envelope.local.ip(), envelope.remote.ip());
        self.report(now, flow, What::Moved { local, remote });
        for sa in children {
            if let Some(pair) = self.pairs.get_mut(sa) {
                pair.envelope = envelope;
                self.command(Command::MoveSa { sa: *sa, envelope });
            }
            self.joint_moved(*sa, envelope);
        }
    }

    pub(crate) fn pairs_of(&self, flow: Flow) -> impl Iterator<Item = (SaId, &Pair)> {
        self.pairs.of(flow)
    }

    /// A child as the data plane is told of it.
    pub(crate) fn pair_for(&mut self, child: Child, trust: Trust) -> SaPair {
        let mut limits = Limits::of_esp(child.esn);
        if child.initiator {
            // Who asked for it replaces it first, as with its life (RFC 7296 §2.8).
            limits = limits.sooner(LEAST_SOONER + self.rng.next_u32() % SOONER);
        }
        SaPair {
            id: child.id,
            cipher: child.cipher,
            spi_in: child.spi_in,
            spi_out: child.spi_out,
            key_in: child.key_in,
            key_out: child.key_out,
            esn: child.esn,
            mode: child.mode,
            local: child.local,
            remote: child.remote,
            envelope: child.envelope,
            limits,
            trust,
            translation: None,
        }
    }

    /// The gateway of a flow that is keyed or being keyed.
    pub(crate) fn gateway_of(&self, flow: Flow) -> Option<IpAddr> {
        match &self.flows.get(&flow)?.state {
            State::Keyed { current, .. } => Some(self.pairs.get(current)?.envelope.remote.ip()),
            State::PendingOe(pending) => pending.gateway.as_ref().map(|c| c.gateway),
            State::PotentialOe | State::ClearText(_) | State::Deny(_) => None,
        }
    }
}

/// How much is known of who has shown this.
pub(crate) fn trust_of(proof: &Authorized) -> Trust {
    match proof.security() {
        _ if proof.is_anonymous() => Trust::Anonymous,
        Security::Secure => Trust::Dnssec,
        Security::Insecure | Security::Indeterminate | Security::Bogus => Trust::Unauthenticated,
    }
}

/// Thousandths by which the one end is sooner than the other at least: more packets than are under
/// way during a rekey.
const LEAST_SOONER: u32 = 20;
/// And up to as many more, so that not all pairs are renewed at once.
const SOONER: u32 = 80;
/// RFC 7296 §3.10.1.
const TS_UNACCEPTABLE: u16 = 38;
/// Calls made within this time of each other may have crossed: longer than all retransmissions of
/// a call together.
pub(crate) const CROSSING: Duration = Duration::from_secs(30);
/// The shortest time after which evidence is asked for again, whatever its TTL.
pub(crate) const MIN_PROOF: Duration = Duration::from_secs(60);
/// How long a replaced pair still receives: longer than any packet is under way.
pub(crate) const LINGER: Duration = Duration::from_secs(2);
/// Who is removed takes along who would be this much later.
const TOGETHER: Duration = Duration::from_millis(200);
/// Replaced pairs that still receive, at once; more are removed at once.
pub(crate) const MAX_LINGERING: usize = 4096;
/// How long packets that wait go on waiting for a sign that the peer has our answer: longer than
/// a busy peer takes to read it. The sign comes at once as a rule: who calls has something to send.
pub(crate) const QUIET: Duration = Duration::from_secs(1);
/// How long a winner may take to prove itself by traffic before the peer is asked for it.
pub(crate) const GRACE: Duration = Duration::from_secs(3);
