//! What strangers see of us: our own records, asked as a responder would ask them.
//!
//! A call is in vain while the other end finds no record that lets us speak for our address, or
//! one with another key: during a rollover (RFC 4322 §5.4) the new key may not be used before its
//! record is out. By default that only explains refusals and shortens their lives, because a peer
//! may know our key from elsewhere; with [`OwnRecord::Require`] no call is made.
//!
//! The record of one of several addresses of ours may name another as its gateway: then that one calls
//! for it, as it would for a host behind us.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use dnskeys::{Answer, Claim, Name, Refusal, Speaker, Strictness};
use ike::Identity;

use crate::entry::Asker;
use crate::initiator::{MIN_LIFE, from_ike_key, to_speaker};
use crate::keying::Keying;
use crate::report::What;

/// What the lack of a record of our own means (`[policy] own-record`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OwnRecord {
    /// Calls are made nevertheless.
    #[default]
    Advise,
    /// No call is made: failure is declared at once.
    Require,
}

/// What is known of the records of one of our addresses.
#[derive(Debug, Default)]
pub(crate) struct Own {
    answers: BTreeMap<Name, Option<Answer>>,
    /// The address of ours that a responder would believe: this one, or another that its record names
    /// (RFC 4322 §3.3.2). Or what a responder would say, or that DNS has failed; `None` while nothing has
    /// been heard of it, or not for long.
    verdict: Option<Result<IpAddr, Refusal>>,
    /// When the verdict is to be made anew; `None` while it is.
    until: Option<Instant>,
}

impl Own {
    /// Whether DNS is being asked.
    pub(crate) fn is_open(&self) -> bool {
        self.until.is_none()
    }
}

impl Keying {
    /// Asks for the records of an address of ours, unless they are known.
    pub(crate) fn ask_own(&mut self, now: Instant, address: IpAddr) {
        let fresh = |own: &Own| own.until.is_none_or(|until| until > now);
        if self.own.get(&address).is_some_and(fresh)
            || (self.own.len() >= MAX_OWN && !self.own.contains_key(&address))
        {
            return;
        }
        let mut names = BTreeSet::from([Name::reverse(address)]);
        if let Some(Speaker::Name(name)) = self.config.identity.as_ref().and_then(to_speaker) {
            names.insert(name);
        }
        let own = self.own.entry(address).or_default();
        if own.until.take().is_some_and(|until| until + LONGEST <= now) {
            own.verdict = None;
        }
        own.answers = names.iter().map(|name| (name.clone(), None)).collect();
        for name in names {
            self.ask(name, Asker::Own(address));
        }
    }

    /// One of our own records is known.
    pub(crate) fn own_answered(&mut self, now: Instant, address: IpAddr, answer: &Answer) {
        let Some(own) = self.own.get_mut(&address) else { return };
        if let Some(slot) = own.answers.get_mut(&answer.owner) {
            *slot = Some(answer.clone());
        }
        if own.answers.values().any(Option::is_none) {
            return;
        }
        let Some(own) = self.own.get(&address) else { return };
        let evidence: Vec<&Answer> = own.answers.values().flatten().collect();
        // Where it names us without a key, those we call will look for that at our own name.
        let of_it = evidence.iter().find(|answer| answer.owner == Name::reverse(address));
        let named = of_it.map(|answer| self.named_without_key(answer)).unwrap_or_default();
        let missing: Vec<Name> =
            named.into_iter().filter(|name| !own.answers.contains_key(name)).collect();
        let ttl = evidence.iter().map(|a| a.ttl).min().unwrap_or_default();
        let (mut verdict, mut life) =
            (self.own_verdict(address, &evidence), ttl.clamp(MIN_LIFE, LONGEST));
        if verdict == Err(Refusal::DnsFailed) {
            // What was good is not worse for it.
            verdict = own.verdict.filter(Result::is_ok).unwrap_or(verdict);
            if self.config.own_record == OwnRecord::Advise {
                life = FAILED;
            }
        }
        let Some(own) = self.own.get_mut(&address) else { return };
        if !missing.is_empty() {
            own.answers.extend(missing.iter().map(|name| (name.clone(), None)));
            return missing.into_iter().for_each(|name| self.ask(name, Asker::Own(address)));
        }
        let before = own.verdict.replace(verdict);
        own.until = Some(now + life);
        if before != Some(verdict)
            && let Some(why) = self.own_refusal(address)
        {
            self.report(now, None, What::OwnRecord { address, why });
        }
        self.own_known(now, address);
    }

    /// What responders would say of a call for an address of ours, and where to make it from: from the
    /// address itself or, if its record names another of ours, from that.
    fn own_verdict(&self, address: IpAddr, evidence: &[&Answer]) -> Result<IpAddr, Refusal> {
        let Some(key) = from_ike_key(&self.config.ike.key.clone().into()) else {
            return Ok(address);
        };
        let others = self.config.addresses.iter().copied().filter(|own| *own != address);
        let mut refusal = None;
        for outer in [address].into_iter().chain(others) {
            let ours = Identity::Address(outer);
            let identity = self.config.identity.as_ref().unwrap_or(&ours);
            // What DNS cannot speak for.
            let Some(speaker) = to_speaker(identity) else { return Ok(address) };
            let claim = Claim { address, speaker: &speaker, key: &key, outer: Some(outer) };
            let strict = Strictness::Permissive;
            match dnskeys::authorize(claim, evidence, &self.config.rules, strict) {
                Ok(_) => return Ok(outer),
                // What is wrong with the record that names us says more than that others do not.
                Err(why) if refusal.is_none_or(|before| before == Refusal::NotNamed) => {
                    refusal = Some(why);
                }
                Err(_) => {}
            }
        }
        refusal.map_or(Ok(address), Err)
    }

    /// The address of ours to call from for this one: another, if its record names that. `None` if
    /// that is not known.
    pub(crate) fn gateway_of_own(&self, address: IpAddr) -> Option<IpAddr> {
        self.own.get(&address)?.verdict?.ok()
    }

    /// Our addresses are others now: any of them may be the one that a record names.
    pub(crate) fn forget_own(&mut self) {
        self.own.retain(|_, own| own.is_open());
        self.own.values_mut().for_each(|own| own.verdict = None);
    }

    /// Why responders that ask DNS would refuse us; `None` if they would not, or if nothing is
    /// known.
    #[must_use]
    pub fn own_refusal(&self, address: IpAddr) -> Option<Refusal> {
        self.own.get(&address)?.verdict?.err().filter(|why| *why != Refusal::DnsFailed)
    }

    /// Whether a call must wait until our own records are known: if they must be good; or if another
    /// address of ours may be the one to call from, and nothing has been heard of that. What was heard
    /// and is asked again meanwhile is good enough to begin with: else a zone of ours that does not
    /// answer would hold up all that is new.
    pub(crate) fn waits_for_own(&self, address: IpAddr) -> bool {
        let Some(own) = self.own.get(&address) else { return false };
        let other = |a: &IpAddr| *a != address && a.is_ipv4() == address.is_ipv4();
        let several = || self.config.addresses.iter().any(other);
        match self.config.own_record {
            OwnRecord::Require => own.is_open(),
            OwnRecord::Advise => {
                own.verdict.is_none() && self.config.identity.is_none() && several()
            }
        }
    }

    /// Goes on with the flows that waited.
    fn own_known(&mut self, now: Instant, address: IpAddr) {
        let flows: Vec<_> = self.flows.keys().filter(|f| f.src() == address).copied().collect();
        for flow in flows {
            if self.pending(flow).is_some_and(|pending| pending.gateway.is_none()) {
                self.next_candidate(now, flow);
            }
        }
    }
}

/// Addresses of ours, and of hosts behind us, whose records are remembered.
const MAX_OWN: usize = 1024;
/// How long a verdict stands at most: a key that was just published should not wait. And for how
/// long after that it is good to begin with.
const LONGEST: Duration = Duration::from_secs(300);
/// How long DNS is not asked again after it has failed: every new flow would, and it says little.
const FAILED: Duration = Duration::from_secs(60);
