//! Who may speak for an address: the decision table as a pure function, and the proof that its
//! verdict was asked for.

use std::net::IpAddr;
use std::time::Duration;

use crate::answer::{Answer, Security};
use crate::key::PublicKey;
use crate::name::Name;

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
    /// Whether RSA keys with exponent 3 count.
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
    /// Every record of ours is malformed.
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
    /// Its outer address if nothing was seen to translate it: the one address that a
    /// [`Speaker::Name`] may have by its forward record alone.
    pub outer: Option<IpAddr>,
}

/// Proof that a [`Claim`] was checked. Only [`authorize`] makes one; no child SA is installed
/// without one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Authorized {
    address: IpAddr,
    speaker: Speaker,
    security: Security,
    life: Duration,
}

/// Why a claim was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// No answer was given for the address's own reverse name.
    NoEvidence,
}

/// The decision table of the rules of opportunism: what an answer for a destination means.
#[must_use]
pub fn decide(_dest: IpAddr, _answer: &Answer, _rules: &Rules, _strict: Strictness) -> Verdict {
    Verdict::Deny { reason: Reason::DnsFailed, life: Life::Short }
}

/// Checks a claim against answers, found among `evidence` by their owners: the one at the reverse
/// name of the address must name the speaker, with this key, or without key and then the
/// speaker's own must carry it.
///
/// # Errors
/// Says which part of the chain is missing.
pub fn authorize(
    _claim: Claim<'_>,
    _evidence: &[&Answer],
    _rules: &Rules,
    _strict: Strictness,
) -> Result<Authorized, Refusal> {
    Err(Refusal::NoEvidence)
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

    /// The weakest link of the evidence.
    #[must_use]
    pub fn security(&self) -> Security {
        self.security
    }

    /// How long the evidence stands.
    #[must_use]
    pub fn life(&self) -> Duration {
        self.life
    }
}
