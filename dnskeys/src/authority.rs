//! Who may speak for an address, and the proof that it was checked.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::answer::{Answer, Outcome, RecordSet, Security};
use crate::decision::{
    RequireDnssec, Rules, Strictness, authenticates, demands_signature, not_a_host,
};
use crate::key::PublicKey;
use crate::name::Name;
use crate::record::{Gateway, GatewayRecord};

/// How a peer identified itself in IKE.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Speaker {
    /// `ID_IPV4_ADDR` or `ID_IPV6_ADDR`.
    Address(IpAddr),
    /// `ID_FQDN`.
    Name(Name),
}

/// "The peer that calls itself `speaker` and signed with `key` may have `address`'s traffic."
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim<'a> {
    /// The inner address on the peer's side.
    pub address: IpAddr,
    /// Its identity in IKE.
    pub speaker: &'a Speaker,
    /// The key that verified its signature.
    pub key: &'a PublicKey,
    /// The outer address it calls from: what unsigned evidence and a [`Speaker::Name`]'s forward
    /// record can give it. `None` if it was we who called, at an address that is its gateway.
    pub outer: Option<IpAddr>,
}

/// Proof that a [`Claim`] was checked. Only [`authorize`], [`authorize_lease`] and
/// [`admit_anonymous`] make one; no child SA is installed without one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Authorized {
    address: IpAddr,
    speaker: Speaker,
    security: Security,
    life: Duration,
    anonymous: bool,
    leased: bool,
}

/// Why a claim was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// No answer was given for the address's own reverse name, or for the speaker's name.
    NoEvidence,
    /// The address is none that a host can have.
    Address,
    /// There is a record, so whoever has the address can prove it, and did not.
    Published,
    /// There is no record where one had to be.
    NoRecord,
    /// There are records, and none names the speaker.
    NotNamed,
    /// The speaker is named, with another key.
    OtherKey,
    /// The key is too weak to authenticate anybody.
    WeakKey,
    /// An unsigned record names somebody other than its owner.
    UnsignedDelegation,
    /// Unsigned, and policy demands a signature.
    Unsigned,
    /// Every record of ours is malformed.
    Malformed,
    /// DNSSEC validation failed.
    Bogus,
    /// No answer from DNS.
    DnsFailed,
}

/// Checks a claim against answers, found among `evidence` by their owners: the one at the reverse
/// name of the address must name the speaker, with this key, or without key and then the
/// speaker's own must carry it.
///
/// A [`Speaker::Name`] may also have its outer address if that address's own record carries the
/// key, or if the record at the name does (RFC 4322 §5.3) and the address's own answer, if given,
/// does not say otherwise.
///
/// # Errors
/// Says which part of the chain is missing.
pub fn authorize(
    claim: Claim<'_>,
    evidence: &[&Answer],
    rules: &Rules,
    strict: Strictness,
) -> Result<Authorized, Refusal> {
    if not_a_host(claim.address).is_some() {
        return Err(Refusal::Address);
    }
    if !authenticates(claim.key, rules) {
        return Err(Refusal::WeakKey);
    }
    let found = by_reverse_name(claim, evidence)
        .or_else(|refusal| by_forward_name(claim, evidence, refusal, strict))?;
    if found.security != Security::Secure {
        if demands_signature(rules, strict) {
            return Err(Refusal::Unsigned);
        }
        // Whoever can forge an unsigned answer can call from elsewhere under a forged key: what is
        // not signed may speak for the address it calls from, and for no other.
        if claim.outer.is_some_and(|outer| outer != claim.address) {
            return Err(Refusal::UnsignedDelegation);
        }
    }
    Ok(Authorized {
        address: claim.address,
        speaker: claim.speaker.clone(),
        security: found.security,
        life: found.ttl.min(rules.ttl_cap),
        anonymous: false,
        leased: false,
    })
}

/// Whether a name's own record carries the key that signed (RFC 4322 §5.3): who calls is then known,
/// and nothing more. No address follows from it.
///
/// # Errors
/// Says which part of the chain is missing; an address is no name.
pub fn is_known_by_name(
    speaker: &Speaker,
    key: &PublicKey,
    evidence: &[&Answer],
    rules: &Rules,
    strict: Strictness,
) -> Result<(), Refusal> {
    by_name(speaker, key, evidence, rules, strict).map(|_| ())
}

/// Whether somebody who is known by name only may have `claim.address`, which we give it ourselves
/// (RFC 7296 §2.19): an address that is ours to give takes no record of its own. The claim's outer
/// address does not matter.
///
/// # Errors
/// Says why it may not.
pub fn authorize_lease(
    claim: Claim<'_>,
    evidence: &[&Answer],
    rules: &Rules,
    strict: Strictness,
) -> Result<Authorized, Refusal> {
    if not_a_host(claim.address).is_some() {
        return Err(Refusal::Address);
    }
    let found = by_name(claim.speaker, claim.key, evidence, rules, strict)?;
    Ok(Authorized {
        address: claim.address,
        speaker: claim.speaker.clone(),
        security: found.security,
        life: found.ttl.min(rules.ttl_cap),
        anonymous: false,
        leased: true,
    })
}

fn by_name(
    speaker: &Speaker,
    key: &PublicKey,
    evidence: &[&Answer],
    rules: &Rules,
    strict: Strictness,
) -> Result<Found, Refusal> {
    let Speaker::Name(_) = speaker else { return Err(Refusal::NotNamed) };
    if !authenticates(key, rules) {
        return Err(Refusal::WeakKey);
    }
    let found = by_own_record(speaker, key, evidence)?;
    if found.security != Security::Secure && demands_signature(rules, strict) {
        return Err(Refusal::Unsigned);
    }
    Ok(found)
}

/// Whether somebody who proves nothing (RFC 7619) may have the address it is at: where nothing is
/// published at the address's reverse name, so that nobody could prove it, and where packets would
/// otherwise go in the clear. `answer` is the one at that name.
///
/// # Errors
/// Says why it may not.
pub fn admit_anonymous(
    address: IpAddr,
    answer: &Answer,
    rules: &Rules,
    strict: Strictness,
) -> Result<Authorized, Refusal> {
    if not_a_host(address).is_some() {
        return Err(Refusal::Address);
    }
    if answer.owner != Name::reverse(address) {
        return Err(Refusal::NoEvidence);
    }
    if strict == Strictness::Paranoid || rules.require_dnssec == RequireDnssec::Always {
        return Err(Refusal::Unsigned);
    }
    match (answer.security, &answer.outcome) {
        (Security::Bogus, _) | (_, Outcome::Bogus) => Err(Refusal::Bogus),
        (_, Outcome::Failed(_)) => Err(Refusal::DnsFailed),
        (_, Outcome::Records(set)) if !set.gateways.is_empty() || !set.malformed.is_empty() => {
            Err(Refusal::Published)
        }
        (_, Outcome::Records(_) | Outcome::NoRecord | Outcome::NoName) => Ok(Authorized {
            address,
            speaker: Speaker::Address(address),
            // Nothing vouches for it.
            security: Security::Indeterminate,
            life: answer.ttl.min(rules.ttl_cap),
            anonymous: true,
            leased: false,
        }),
    }
}

impl Authorized {
    /// The inner address that the peer may speak for.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Who may.
    #[must_use]
    pub fn speaker(&self) -> &Speaker {
        &self.speaker
    }

    /// Whether nobody has proved anything: see [`admit_anonymous`].
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.anonymous
    }

    /// Whether the address is one that we have given: see [`authorize_lease`].
    #[must_use]
    pub fn is_leased(&self) -> bool {
        self.leased
    }

    /// The weakest link of the evidence.
    #[must_use]
    pub fn security(&self) -> Security {
        self.security
    }

    /// Whether this would have been enough for a destination that is treated so: what was shown for
    /// an address may be asked to carry ports of it that are treated more strictly, and a reload
    /// may have made it all stricter.
    #[must_use]
    pub fn suffices(&self, rules: &Rules, strict: Strictness) -> bool {
        let signed = self.security == Security::Secure;
        match self.anonymous {
            true => strict == Strictness::Permissive && !demands_signature(rules, strict),
            false => signed || !demands_signature(rules, strict),
        }
    }

    /// How long the evidence stands.
    #[must_use]
    pub fn life(&self) -> Duration {
        self.life
    }
}

impl Refusal {
    /// One clause for the log.
    #[must_use]
    pub fn why(self) -> &'static str {
        match self {
            Self::NoEvidence => "its reverse name was not asked",
            Self::Address => "no host has this address",
            Self::Published => "a key is published there, and it proved nothing",
            Self::NoRecord => "no record in DNS",
            Self::NotNamed => "its records name others",
            Self::OtherKey => "its record has another key",
            Self::WeakKey => "the key is too weak",
            Self::UnsignedDelegation => "an unsigned record names another gateway",
            Self::Unsigned => "the record is not signed",
            Self::Malformed => "every record is malformed",
            Self::Bogus => "DNSSEC validation failed",
            Self::DnsFailed => "no answer from DNS",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.why())
    }
}

impl std::error::Error for Refusal {}

/// Evidence that holds: how it was authenticated, and how long it stands.
#[derive(Clone, Copy)]
struct Found {
    security: Security,
    ttl: Duration,
}

impl Found {
    fn of(answer: &Answer) -> Self {
        Self { security: answer.security, ttl: answer.ttl }
    }

    /// Two links of a chain are as strong as the weaker.
    fn and(self, other: Self) -> Self {
        Self { security: self.security.min(other.security), ttl: self.ttl.min(other.ttl) }
    }
}

/// The record at the address's own reverse name.
fn by_reverse_name(claim: Claim<'_>, evidence: &[&Answer]) -> Result<Found, Refusal> {
    let (own, records) = records_at(evidence, &Name::reverse(claim.address))?;
    let mut refusal = Refusal::NotNamed;
    for record in &records.gateways {
        let Some(to_itself) = names_speaker(record, claim) else { continue };
        if !to_itself && own.security != Security::Secure {
            if refusal != Refusal::OtherKey {
                refusal = Refusal::UnsignedDelegation;
            }
            continue;
        }
        match &record.key {
            Some(key) if key == claim.key => return Ok(Found::of(own)),
            Some(_) => refusal = Refusal::OtherKey,
            None => match by_own_record(claim.speaker, claim.key, evidence) {
                Ok(found) => return Ok(found.and(Found::of(own))),
                Err(other) => refusal = other,
            },
        }
    }
    Err(refusal)
}

/// Whether a record of the claimed address names the speaker, and if so, whether that is the
/// address itself.
fn names_speaker(record: &GatewayRecord, claim: Claim<'_>) -> Option<bool> {
    let itself = match &record.gateway {
        Gateway::Own => true,
        Gateway::Address(gateway) => *gateway == claim.address,
        Gateway::Name(_) => false,
    };
    let named = match (&record.gateway, claim.speaker) {
        (Gateway::Own, Speaker::Address(addr)) => *addr == claim.address,
        (Gateway::Address(gateway), Speaker::Address(addr)) => gateway == addr,
        (Gateway::Name(gateway), Speaker::Name(name)) => gateway == name,
        // A host that is its own gateway and calls by name: the key in the record is its own.
        (_, Speaker::Name(_)) => {
            itself && record.key.is_some() && claim.outer == Some(claim.address)
        }
        (Gateway::Name(_), Speaker::Address(_)) => false,
    };
    named.then_some(itself)
}

/// The record at the speaker's own name, naming itself, with this key.
fn by_own_record(
    speaker: &Speaker,
    key: &PublicKey,
    evidence: &[&Answer],
) -> Result<Found, Refusal> {
    let owner = match speaker {
        Speaker::Address(addr) => Name::reverse(*addr),
        Speaker::Name(name) => name.clone(),
    };
    let (answer, records) = records_at(evidence, &owner)?;
    let mut refusal = Refusal::NotNamed;
    for record in &records.gateways {
        let itself = match (&record.gateway, speaker) {
            (Gateway::Own, _) => true,
            (Gateway::Address(gateway), Speaker::Address(addr)) => gateway == addr,
            (Gateway::Name(gateway), Speaker::Name(name)) => gateway == name,
            _ => false,
        };
        if itself {
            if record.key.as_ref() == Some(key) {
                return Ok(Found::of(answer));
            }
            refusal = Refusal::OtherKey;
        }
    }
    Err(refusal)
}

/// RFC 4322 §5.3: who has no say in the reverse map may call from its own address by name.
/// `refusal` is what the reverse name came to.
fn by_forward_name(
    claim: Claim<'_>,
    evidence: &[&Answer],
    refusal: Refusal,
    strict: Strictness,
) -> Result<Found, Refusal> {
    let silent = match refusal {
        Refusal::NoEvidence | Refusal::NoRecord | Refusal::UnsignedDelegation => true,
        // Whoever can stop the lookup could hide a record that says otherwise.
        Refusal::DnsFailed => strict == Strictness::Permissive,
        _ => false,
    };
    let named = matches!(claim.speaker, Speaker::Name(_));
    if silent && named && claim.outer == Some(claim.address) {
        // A name says who calls, not that it may have this address: no better than unsigned.
        let found = by_own_record(claim.speaker, claim.key, evidence)?;
        Ok(Found { security: found.security.min(Security::Insecure), ..found })
    } else {
        Err(refusal)
    }
}

/// The answer at `owner`, if it has records that can be read.
fn records_at<'a>(
    evidence: &[&'a Answer],
    owner: &Name,
) -> Result<(&'a Answer, &'a RecordSet), Refusal> {
    let mut refusal = Refusal::NoEvidence;
    let mut found = None;
    for answer in evidence.iter().copied().filter(|answer| answer.owner == *owner) {
        match &answer.outcome {
            _ if answer.security == Security::Bogus => return Err(Refusal::Bogus),
            Outcome::Bogus => return Err(Refusal::Bogus),
            Outcome::Failed(_) => refusal = Refusal::DnsFailed,
            Outcome::Records(records) if !records.gateways.is_empty() => {
                found = found.or(Some((answer, records)));
            }
            Outcome::Records(records) if !records.malformed.is_empty() => {
                refusal = Refusal::Malformed;
            }
            Outcome::Records(_) | Outcome::NoRecord | Outcome::NoName => {
                refusal = Refusal::NoRecord;
            }
        }
    }
    found.ok_or(refusal)
}

#[cfg(test)]
mod tests;
