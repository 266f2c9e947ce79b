//! What ends by time (RFC 4322 §3.2.7, §3.4; oe-rules 34, 36, 50, 51).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use dnskeys::{Answer, Authorized, Claim, Name, Refusal, Speaker};
use ike::{End, IkeId};
use sa::{Command, Flow, Policy, SaId, Use};

use crate::entry::{Asker, Pair, Recheck, Renewal, State};
use crate::initiator::{PATIENCE, from_ike_key};
use crate::keying::Keying;
use crate::pairs::{CROSSING, MIN_PROOF, trust_of};
use crate::report::{What, Why};
use crate::undecided::MAX_PENDING;

impl Keying {
    /// A flow's deadline has come.
    pub(crate) fn flow_due(&mut self, now: Instant, flow: Flow) {
        let Some(entry) = self.flows.get(&flow) else { return };
        match &entry.state {
            State::PotentialOe if entry.waits_for_news => self.not_served(now, flow),
            State::PotentialOe => {
                let life = self.config.lives.short;
                let why = Why::Dns(dnskeys::Reason::DnsFailed);
                match entry.group.strictness() {
                    dnskeys::Strictness::Permissive => self.dns_failed(now, flow, why, life),
                    dnskeys::Strictness::Paranoid => self.go_deny(now, flow, why, life),
                }
            }
            State::PendingOe(_) => self.out_of_patience(now, flow),
            State::ClearText(_) => self.clear_due(now, flow),
            // Nothing passes either way: its next packet asks anew.
            State::Deny(_) => self.expire(now, flow),
            State::Keyed { current, quiet: true, .. } => {
                let current = *current;
                self.switch(now, flow, current);
            }
            State::Keyed { current, next, .. } => {
                let (current, next) = (*current, *next);
                self.look(now, flow, current, next);
            }
        }
    }

    /// The gateways of a flow took too long together.
    fn out_of_patience(&mut self, now: Instant, flow: Flow) {
        if let Some(pending) = self.pending(flow)
            && let Some(candidate) = pending.gateway.as_ref()
        {
            let gateway = candidate.gateway;
            pending.ends.push((gateway, End::Timeout));
            self.silences.note(now, gateway);
        }
        self.failed(now, flow);
    }

    /// A flow in the clear comes to the end of its life, or of what was to renew it (rule 34).
    fn clear_due(&mut self, now: Instant, flow: Flow) {
        let Some(entry) = self.flows.get_mut(&flow) else { return };
        let not_ours = matches!(entry.state, State::ClearText(Why::NotServed | Why::Client(_)));
        match entry.renewal {
            // It is its source that DNS would have to be asked about.
            Renewal::Settled if not_ours => self.expire(now, flow),
            Renewal::Settled if entry.group.initiates() => {
                entry.renewal = Renewal::Watched;
                self.command(Command::WatchFlow(flow));
                self.set_deadline(flow, Some(now + WATCH));
            }
            // Nobody uses it: the next packet starts anew.
            Renewal::Settled | Renewal::Watched => self.expire(now, flow),
            // DNS has not answered.
            Renewal::Asked => {
                let why = Why::Dns(dnskeys::Reason::DnsFailed);
                let life = self.config.lives.short;
                self.dns_failed(now, flow, why, life);
            }
            Renewal::Calling(_) => self.out_of_patience(now, flow),
        }
    }

    /// A packet of a flow passed in the clear while that was watched for: DNS is asked again, and
    /// the packets go on (rules 35, 37).
    pub(crate) fn flow_used(&mut self, now: Instant, flow: Flow) {
        let Some(entry) = self.flows.get_mut(&flow) else { return };
        if !matches!((&entry.state, &entry.renewal), (State::ClearText(_), Renewal::Watched)) {
            return;
        }
        entry.renewal = Renewal::Asked;
        // Watched packets take the slow way: that was enough of it.
        self.set_policy(flow, Policy::Pass);
        if self.asked.ours() >= MAX_PENDING {
            let life = self.config.lives.short;
            return self.stay_clear(now, flow, Why::Budget, life);
        }
        self.set_deadline(flow, Some(now + PATIENCE));
        if self.serves(flow.src()) {
            return self.new_client_flow(now, flow);
        }
        self.ask(Name::reverse(flow.dst()), Asker::Destination(flow));
        self.ask_own(now, flow.src());
    }

    /// Nothing has changed: a flow stays in the clear for another life.
    pub(crate) fn stay_clear(&mut self, now: Instant, flow: Flow, why: Why, life: Duration) {
        let before = self.about(flow);
        let Some(entry) = self.flows.get_mut(&flow) else { return };
        entry.renewal = Renewal::Settled;
        entry.state = State::ClearText(why);
        if self.about(flow) != before {
            self.set_policy(flow, Policy::Pass);
        }
        self.set_deadline(flow, Some(now + life));
        let downgraded = self.is_downgraded(flow);
        self.report(now, Some(flow), What::StillClear { why, downgraded });
    }

    /// Looks at a keyed flow: settles what waits, drops what should be gone, asks for its use.
    fn look(&mut self, now: Instant, flow: Flow, current: SaId, next: Option<SaId>) {
        let awaited = next.unwrap_or(current);
        let settling = next.is_some() || self.pairs_of(flow).any(|(_, pair)| pair.doomed);
        if settling {
            return self.ask_winner(now, flow, awaited);
        }
        let orphans: Vec<SaId> = self
            .pairs_of(flow)
            .filter(|(sa, pair)| {
                *sa != current && now.saturating_duration_since(pair.since) >= CROSSING
            })
            .map(|(sa, _)| sa)
            .collect();
        for sa in orphans {
            self.close_pair(now, sa);
        }
        self.command(Command::AskUse(current));
        let mut next_look = now + self.config.lives.next_look;
        if let Some(pair) = self.pairs.get_mut(&current) {
            pair.looked_at = true;
            next_look = next_look.min(pair.proof_until.max(now + MIN_PROOF));
            if pair.proof_until <= now {
                self.recheck(flow, current);
            }
        }
        self.set_deadline(flow, Some(next_look));
    }

    /// The evidence for a pair has aged: asks for it again (rule 35; removal of the record ends the
    /// pair).
    pub(crate) fn recheck(&mut self, flow: Flow, current: SaId) {
        let Some(names) = self.pairs.get(&current).map(names_behind) else { return };
        self.recheck_with(flow, Recheck { answers: BTreeMap::new() }, names);
    }

    /// Asks for these names too, in a recheck.
    fn recheck_with(&mut self, flow: Flow, mut recheck: Recheck, names: BTreeSet<Name>) {
        recheck.answers.extend(names.iter().map(|name| (name.clone(), None)));
        self.rechecks.insert(flow, recheck);
        for name in names {
            self.ask(name, Asker::Recheck(flow));
        }
    }

    /// One of the records behind a pair is known again.
    pub(crate) fn recheck_answered(&mut self, now: Instant, flow: Flow, answer: &Answer) {
        let Some(recheck) = self.rechecks.get_mut(&flow) else { return };
        if let Some(slot) = recheck.answers.get_mut(&answer.owner) {
            *slot = Some(answer.clone());
        }
        if recheck.answers.values().any(Option::is_none) {
            return;
        }
        let Some(recheck) = self.rechecks.remove(&flow) else { return };
        let Some(current) = self.current(flow) else { return };
        let Some(pair) = self.pairs.get(&current) else { return };
        // Another peer may have taken over: that its records are not among these says nothing of it.
        let mut names = names_behind(pair);
        names.retain(|name| !recheck.answers.contains_key(name));
        if !names.is_empty() {
            if recheck.answers.len() < MAX_NAMES {
                return self.recheck_with(flow, recheck, names);
            }
            return self.undecided_yet(now, current);
        }
        let evidence: Vec<&Answer> = recheck.answers.values().flatten().collect();
        let ike = pair.ike;
        match self.judge_again(pair, &evidence) {
            Ok(proof) => self.proved_again(now, flow, ike, &proof),
            // Whoever can stop DNS could end every pair: that decides nothing.
            Err(Refusal::DnsFailed) => self.undecided_yet(now, current),
            Err(why) => {
                self.report(now, Some(flow), What::NoLongerAuthorized(why));
                self.revoke_flows(now, &BTreeSet::from([flow]));
                self.revoke_proof(now, ike, flow.dst());
            }
        }
    }

    /// A recheck has come to nothing: there will be another soon.
    fn undecided_yet(&mut self, now: Instant, current: SaId) {
        if let Some(pair) = self.pairs.get_mut(&current) {
            pair.proof_until = now + MIN_PROOF;
        }
    }

    /// Whether the peer of a pair may still have it, by what DNS says now of the names behind it.
    fn judge_again(&self, pair: &Pair, evidence: &[&Answer]) -> Result<Authorized, Refusal> {
        let (address, rules) = (pair.flow.dst(), &self.config.rules);
        let strict = self.group_of_flow(pair.flow).strictness();
        if pair.proof.is_anonymous() {
            let own = evidence.iter().find(|answer| answer.owner == Name::reverse(address));
            return own.map_or(Err(Refusal::NoEvidence), |answer| {
                dnskeys::admit_anonymous(address, answer, rules, strict)
            });
        }
        let peer = self.peers.get(&pair.ike).ok_or(Refusal::NoEvidence)?;
        let key = from_ike_key(peer.verified.credential()).ok_or(Refusal::NoEvidence)?;
        let outer = (!peer.initiator).then_some(peer.gateway);
        let claim = Claim { address, speaker: pair.proof.speaker(), key: &key, outer };
        match pair.proof.is_leased() {
            true => dnskeys::authorize_lease(claim, evidence, rules, strict),
            false => dnskeys::authorize(claim, evidence, rules, strict),
        }
    }

    /// The evidence holds, and may be worth more or less than it was.
    fn proved_again(&mut self, now: Instant, flow: Flow, ike: IkeId, proof: &Authorized) {
        let until = now + proof.life().max(MIN_PROOF);
        let same: Vec<SaId> =
            self.pairs_of(flow).filter(|(_, pair)| pair.ike == ike).map(|(sa, _)| sa).collect();
        for sa in same {
            if let Some(pair) = self.pairs.get_mut(&sa) {
                (pair.proof_until, pair.proof) = (until, proof.clone());
                pair.trust = trust_of(proof);
            }
        }
        // What is agreed on with the peer from now on rests on it as well.
        let proofs = self.peers.get_mut(&ike).map(|peer| &mut peer.proofs);
        let before = proofs.and_then(|all| all.iter_mut().find(|p| p.address() == proof.address()));
        if let Some(before) = before {
            before.clone_from(proof);
        }
        self.set_movable(ike);
    }

    /// The data plane says how a pair is used: one that neither end uses is closed.
    pub(crate) fn last_use(&mut self, now: Instant, sa: SaId, used: Use) {
        self.joint_used(sa, used);
        if let Some(flow) = self.parted.remove(&sa) {
            return self.report(now, Some(flow), What::PairClosed { sa, used: Box::new(used) });
        }
        let Some(pair) = self.pairs.get_mut(&sa) else { return };
        pair.used = used;
        let idle = [used.idle_in, used.idle_out].into_iter().flatten().min();
        if let Some(last) = idle.and_then(|idle| now.checked_sub(idle)) {
            pair.last_used = last;
        }
        // Somebody may only have wanted to see the counters.
        if !std::mem::take(&mut pair.looked_at) {
            return;
        }
        let (flow, since) = (pair.flow, pair.since);
        let idle = self.config.lives.idle;
        let old = now.saturating_duration_since(since) >= self.config.lives.first_look;
        let unused =
            used.idle_in.is_none_or(|t| t > idle) && used.idle_out.is_none_or(|t| t > idle);
        if old && unused && self.current(flow) == Some(sa) {
            self.close_flow(now, flow);
        }
    }
}

/// Whose records say whether the peer of a pair may have it.
fn names_behind(pair: &Pair) -> BTreeSet<Name> {
    let own = match pair.proof.speaker() {
        Speaker::Address(addr) => Name::reverse(*addr),
        Speaker::Name(name) => name.clone(),
    };
    // Of an address that is ours to give DNS says nothing.
    let reverse = (!pair.proof.is_leased()).then(|| Name::reverse(pair.flow.dst()));
    reverse.into_iter().chain([own]).collect()
}

/// Names that one recheck asks for, until a flow that changes from one peer to the next again and
/// again is left for a later one: its destination, and a few peers.
const MAX_NAMES: usize = 5;
/// How long a flow in the clear may be unused before it is forgotten: longer than the silence
/// between two packets of a flow that somebody would call in use (rule 51 has the same number).
const WATCH: Duration = Duration::from_secs(30);
