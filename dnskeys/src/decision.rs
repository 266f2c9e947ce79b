//! What an answer for a destination means: the decision table of the rules of opportunism as a
//! pure function.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::answer::{Answer, Outcome, Security};
use crate::key::{PublicKey, Weakness};
use crate::record::{Gateway, GatewayRecord};

/// When a secure answer is demanded (`[policy] require-dnssec`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RequireDnssec {
    /// Never: unsigned self-delegation counts everywhere.
    Never,
    /// Where the policy is paranoid (`private`).
    #[default]
    Private,
    /// Everywhere.
    Always,
}

/// RFC 4322 §3.2's two opportunistic classes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Strictness {
    /// Falls back to clear text (`private-or-clear`).
    Permissive,
    /// Falls back to nothing (`private`).
    Paranoid,
}

/// The configuration the decision depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// When a secure answer is demanded.
    pub require_dnssec: RequireDnssec,
    /// Longest life of anything learnt from DNS.
    pub ttl_cap: Duration,
    /// Whether RSA keys with exponents below 65537 count: FreeS/WAN's was always 3.
    pub allow_exponent_3: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            require_dnssec: RequireDnssec::Private,
            ttl_cap: Duration::from_secs(3600),
            allow_exponent_3: false,
        }
    }
}

/// How long a decision stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Life {
    /// This long, from DNS.
    Ttl(Duration),
    /// The short life of failures: a minute at most.
    Short,
}

/// Why a destination is clear or denied; shown by `status` and `explain`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// No record, or no such name.
    NoRecord,
    /// Only records this side cannot use to call (`@FQDN`, unusable gateways).
    NoUsableGateway,
    /// An unsigned record names somebody else.
    UnsignedDelegation,
    /// Unsigned, and policy demands a signature.
    Unsigned,
    /// Records of ours are malformed, and no other will do.
    Malformed,
    /// Every key is too weak.
    WeakKey,
    /// DNSSEC validation failed.
    Bogus,
    /// No answer from DNS.
    DnsFailed,
}

/// A gateway worth calling.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// Lower is tried first; ties are the caller's to shuffle.
    pub precedence: u16,
    /// Whom to call.
    pub gateway: IpAddr,
    /// The keys the answer gives it; empty if its own record must be asked.
    pub keys: Vec<PublicKey>,
}

/// What to do about a destination.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Call these, in order; what is learnt lives for `life`.
    Negotiate {
        /// In ascending order of precedence.
        candidates: Vec<Candidate>,
        /// How the answer was authenticated.
        security: Security,
        /// How long the answer stands.
        life: Life,
    },
    /// Send in the clear.
    Clear {
        /// Why.
        reason: Reason,
        /// For how long.
        life: Life,
    },
    /// Send nothing.
    Deny {
        /// Why.
        reason: Reason,
        /// For how long.
        life: Life,
    },
}

/// The decision table of the rules of opportunism: what an answer for a destination means.
#[must_use]
pub fn decide(dest: IpAddr, answer: &Answer, rules: &Rules, strict: Strictness) -> Verdict {
    let ttl = Life::Ttl(answer.ttl.min(rules.ttl_cap));
    let signed = answer.security == Security::Secure;
    let records = match &answer.outcome {
        // Neither presence nor absence is known: never lowers protection.
        _ if answer.security == Security::Bogus => return deny(Reason::Bogus, Life::Short),
        Outcome::Bogus => return deny(Reason::Bogus, Life::Short),
        Outcome::Failed(_) => return fall_back(strict, Reason::DnsFailed, Life::Short),
        Outcome::Records(records) if !records.is_empty() => records,
        Outcome::Records(_) | Outcome::NoRecord | Outcome::NoName => {
            let life = if signed { ttl } else { Life::Short };
            return fall_back(strict, Reason::NoRecord, life);
        }
    };
    let mut survey = Survey::default();
    for record in &records.gateways {
        survey.take(dest, signed, record, rules);
    }
    let candidates = survey.candidates(dest);
    let reason = if candidates.is_empty() {
        survey.reason().unwrap_or(Reason::NoUsableGateway)
    } else if !signed && demands_signature(rules, strict) {
        Reason::Unsigned
    } else {
        return Verdict::Negotiate { candidates, security: answer.security, life: ttl };
    };
    if records.malformed.is_empty() {
        return fall_back(strict, reason, ttl);
    }
    // None that can be read will do, and who knows what the others say: a broken announcement is
    // not the absence of one.
    deny(Reason::Malformed, Life::Short)
}

/// Why a gateway is not called although its record is well-formed; `None` if it may be.
#[must_use]
pub fn unusable(gateway: IpAddr, dest: IpAddr) -> Option<&'static str> {
    let why = not_a_host(gateway);
    if why.is_some() {
        return why;
    }
    // A stranger's record must not point this host's packets into its own network.
    (is_private(gateway) && !is_private(dest))
        .then_some("a private address cannot speak for a public one")
}

impl Reason {
    /// One clause for `status` and `explain`.
    #[must_use]
    pub fn why(self) -> &'static str {
        match self {
            Self::NoRecord => "no record in DNS",
            Self::NoUsableGateway => "no record names a gateway that can be called",
            Self::UnsignedDelegation => "an unsigned record names another gateway",
            Self::Unsigned => "the record is not signed",
            Self::Malformed => "malformed records, and none that will do",
            Self::WeakKey => "every key is too weak",
            Self::Bogus => "DNSSEC validation failed",
            Self::DnsFailed => "no answer from DNS",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.why())
    }
}

/// Whether a signature by this key proves anything here.
#[must_use]
pub fn authenticates(key: &PublicKey, rules: &Rules) -> bool {
    match key {
        PublicKey::Rsa(key) => match key.weakness() {
            None => true,
            Some(Weakness::SmallExponent) => rules.allow_exponent_3,
            Some(Weakness::ShortModulus) => false,
        },
        PublicKey::EcdsaP256(_) | PublicKey::EcdsaP384(_) | PublicKey::Ed25519(_) => true,
        PublicKey::Other { .. } => false,
    }
}

fn deny(reason: Reason, life: Life) -> Verdict {
    Verdict::Deny { reason, life }
}

fn fall_back(strict: Strictness, reason: Reason, life: Life) -> Verdict {
    match strict {
        Strictness::Permissive => Verdict::Clear { reason, life },
        Strictness::Paranoid => deny(reason, life),
    }
}

pub(crate) fn demands_signature(rules: &Rules, strict: Strictness) -> bool {
    match rules.require_dnssec {
        RequireDnssec::Never => false,
        RequireDnssec::Private => strict == Strictness::Paranoid,
        RequireDnssec::Always => true,
    }
}

/// What the records of an answer come to.
#[derive(Default)]
struct Survey {
    /// One for each gateway, in order of appearance, and whether a keyless record named it.
    gateways: Vec<(Candidate, bool)>,
    weak: bool,
    unsigned_delegation: bool,
    unusable: bool,
}

impl Survey {
    fn take(&mut self, dest: IpAddr, signed: bool, record: &GatewayRecord, rules: &Rules) {
        let gateway = match &record.gateway {
            Gateway::Own => dest,
            Gateway::Address(addr) => *addr,
            Gateway::Name(_) => {
                self.unusable = true;
                return;
            }
        };
        if !signed && gateway != dest {
            self.unsigned_delegation = true;
        } else if unusable(gateway, dest).is_some() {
            self.unusable = true;
        } else {
            match &record.key {
                None => self.add(record.precedence, gateway, None),
                Some(key) if authenticates(key, rules) => {
                    self.add(record.precedence, gateway, Some(key));
                }
                Some(PublicKey::Rsa(_)) => self.weak = true,
                Some(_) => self.unusable = true,
            }
        }
    }

    fn add(&mut self, precedence: u16, gateway: IpAddr, key: Option<&PublicKey>) {
        let known = self.gateways.iter().position(|(known, _)| known.gateway == gateway);
        let at = known.unwrap_or(self.gateways.len());
        if known.is_none() {
            self.gateways.push((Candidate { precedence, gateway, keys: Vec::new() }, false));
        }
        let Some((candidate, keyless)) = self.gateways.get_mut(at) else { return };
        candidate.precedence = candidate.precedence.min(precedence);
        match key {
            None => *keyless = true,
            Some(key) if candidate.keys.contains(key) => {}
            Some(key) => candidate.keys.push(key.clone()),
        }
    }

    /// A keyless record sends us to the gateway's own; the destination's own is the one at hand.
    fn candidates(&mut self, dest: IpAddr) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        for (candidate, _) in std::mem::take(&mut self.gateways) {
            if candidate.keys.is_empty() && candidate.gateway == dest {
                self.unusable = true;
            } else {
                candidates.push(candidate);
            }
        }
        candidates.sort_by_key(|candidate| candidate.precedence);
        candidates
    }

    /// Why there is nobody to call; `None` if no record was well-formed.
    fn reason(&self) -> Option<Reason> {
        if self.weak {
            Some(Reason::WeakKey)
        } else if self.unusable {
            Some(Reason::NoUsableGateway)
        } else {
            self.unsigned_delegation.then_some(Reason::UnsignedDelegation)
        }
    }
}

/// Why no host on the Internet or a private network has this address; `None` if one may.
pub(crate) fn not_a_host(addr: IpAddr) -> Option<&'static str> {
    match addr {
        IpAddr::V4(a) => {
            let [first, ..] = a.octets();
            match first {
                0 => Some("in 0.0.0.0/8, which no host has"),
                127 => Some("a loopback address"),
                169 if a.is_link_local() => Some("a link-local address"),
                224..=239 => Some("a multicast address"),
                240..=255 => Some("in 240.0.0.0/4, which no host has"),
                _ => None,
            }
        }
        IpAddr::V6(a) => {
            let bits = u128::from(a);
            if a.is_unspecified() {
                Some("the unspecified address")
            } else if a.is_loopback() {
                Some("a loopback address")
            } else if a.is_multicast() {
                Some("a multicast address")
            } else if a.is_unicast_link_local() {
                Some("a link-local address")
            } else if a.to_ipv4_mapped().is_some() || bits >> 32 == 0 {
                Some("an IPv4 address in the clothes of an IPv6 one")
            } else {
                None
            }
        }
    }
}

/// Addresses that mean something else in every network (RFC 1918, RFC 6598, RFC 4193).
fn is_private(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(a) => {
            let [first, second, ..] = a.octets();
            a.is_private() || (first == 100 && second & 0xc0 == 64)
        }
        IpAddr::V6(a) => a.is_unique_local(),
    }
}

#[cfg(test)]
mod tests;
