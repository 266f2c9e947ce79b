//! DNS as a table: every outcome a lookup can have, at will.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use dnskeys::{
    Answer, Failure, Gateway, GatewayRecord, Malformed, Name, Outcome, PublicKey, RecordSet,
    Security, Source,
};

/// The table; a name that is not in it does not exist, and that is signed.
#[derive(Default)]
pub(crate) struct Dns {
    answers: BTreeMap<Name, Answer>,
    silent: BTreeSet<Name>,
    /// How long a name does not exist; a minute if not said.
    pub(crate) denied_for: Option<Duration>,
}

/// How long the resolver waits for a name server, and after how long it asks once more: as that of
/// the daemon.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
pub(crate) const REPEATED: Duration = Duration::from_millis(1200);

impl Dns {
    pub(crate) fn answer(&self, name: &Name) -> Answer {
        self.answers.get(name).cloned().unwrap_or_else(|| Answer {
            owner: name.clone(),
            security: Security::Secure,
            ttl: self.denied_for.unwrap_or(Duration::from_secs(60)),
            outcome: Outcome::NoName,
        })
    }

    pub(crate) fn set(&mut self, addr: IpAddr, security: Security, outcome: Outcome) {
        self.set_name(Name::reverse(addr), security, outcome);
    }

    /// What stands at any name.
    pub(crate) fn set_name(&mut self, owner: Name, security: Security, outcome: Outcome) {
        let ttl = Duration::from_secs(300);
        self.silent.remove(&owner);
        self.answers.insert(owner.clone(), Answer { owner, security, ttl, outcome });
    }

    /// `addr` publishes `key` for the gateway `gateway`.
    pub(crate) fn publish(
        &mut self,
        addr: IpAddr,
        gateway: IpAddr,
        key: Option<PublicKey>,
        security: Security,
    ) {
        self.set(addr, security, Outcome::Records(records(&[(10, gateway, key)])));
    }

    pub(crate) fn malformed(&mut self, addr: IpAddr, security: Security) {
        let malformed = vec![Malformed { source: Source::Txt, why: "precedence" }];
        let set = RecordSet { gateways: Vec::new(), malformed };
        self.set(addr, security, Outcome::Records(set));
    }

    /// The name servers of this address never answer.
    pub(crate) fn silent(&mut self, addr: IpAddr) {
        self.silent_name(Name::reverse(addr));
    }

    /// Nor those of this name.
    pub(crate) fn silent_name(&mut self, owner: Name) {
        let failed = Outcome::Failed(Failure::Timeout);
        self.set_name(owner.clone(), Security::Indeterminate, failed);
        self.silent.insert(owner);
    }

    /// What a resolver says that has heard nothing.
    pub(crate) fn timeout(owner: &Name) -> Answer {
        Answer {
            owner: owner.clone(),
            security: Security::Indeterminate,
            ttl: FAILURE,
            outcome: Outcome::Failed(Failure::Timeout),
        }
    }

    /// How much later than others the resolver answers.
    pub(crate) fn delay(&self, name: &Name) -> Duration {
        if self.silent.contains(name) { PATIENCE } else { Duration::ZERO }
    }

    pub(crate) fn failed(&mut self, addr: IpAddr, failure: Failure) {
        self.set(addr, Security::Indeterminate, Outcome::Failed(failure));
    }
}

/// What a resolver has heard, until it is no longer good.
#[derive(Default)]
pub(crate) struct Cache(BTreeMap<Name, (Instant, Answer)>);

impl Cache {
    pub(crate) fn get(&self, now: Instant, name: &Name) -> Option<Answer> {
        let (until, answer) = self.0.get(name).filter(|(until, _)| *until > now)?;
        Some(Answer { ttl: *until - now, ..answer.clone() })
    }

    pub(crate) fn put(&mut self, now: Instant, answer: &Answer) {
        let failed = matches!(answer.outcome, Outcome::Failed(_));
        let life = if failed { answer.ttl.min(FAILURE) } else { answer.ttl };
        self.0.insert(answer.owner.clone(), (now + life, answer.clone()));
    }

    pub(crate) fn forget(&mut self, name: &Name) {
        self.0.remove(name);
    }
}

/// How long a failure is kept.
const FAILURE: Duration = Duration::from_secs(5);

/// Well-formed records: precedence, gateway, key.
pub(crate) fn records(list: &[(u16, IpAddr, Option<PublicKey>)]) -> RecordSet {
    let record = |(precedence, gateway, key): &(u16, IpAddr, Option<PublicKey>)| GatewayRecord {
        precedence: *precedence,
        gateway: Gateway::Address(*gateway),
        key: key.clone(),
        source: Source::Txt,
    };
    RecordSet { gateways: list.iter().map(record).collect(), ..RecordSet::default() }
}
