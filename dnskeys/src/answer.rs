//! What a lookup came back with, as data.

use std::time::Duration;

use crate::name::Name;
use crate::record::{GatewayRecord, Malformed};

/// What DNSSEC says of an answer: the minimum over every hop that led to it (RFC 4035 §4.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Security {
    /// Should be signed, and does not validate.
    Bogus,
    /// Nobody validated.
    Indeterminate,
    /// Proved to be unsigned.
    Insecure,
    /// A valid chain from a trust anchor.
    Secure,
}

/// The answer to "who speaks for this name?": TXT and IPSECKEY records at one owner, CNAME and
/// DNAME already followed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The name that was asked for.
    pub owner: Name,
    /// The minimum over every hop.
    pub security: Security,
    /// How long it may be kept: the smallest TTL on the way, or the SOA minimum if there is nothing.
    pub ttl: Duration,
    /// What there was.
    pub outcome: Outcome,
}

/// What a lookup found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// At least one record of ours, well-formed or not.
    Records(RecordSet),
    /// The name exists and has no record of ours.
    NoRecord,
    /// The name does not exist.
    NoName,
    /// DNSSEC validation failed: neither presence nor absence is known.
    Bogus,
    /// No answer.
    Failed(Failure),
}

/// The records of ours at one name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RecordSet {
    /// The well-formed ones.
    pub gateways: Vec<GatewayRecord>,
    /// The others: reported, and they spoil nothing unless they are all there is.
    pub malformed: Vec<Malformed>,
}

/// Why there was no answer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Failure {
    /// Nobody answered in time.
    Timeout,
    /// The server failed (SERVFAIL).
    ServFail,
    /// The server refused (REFUSED), or answered with another error code.
    Refused,
    /// Truncated, and TCP did not work.
    Truncated,
    /// The resolver itself could not ask.
    Unreachable,
}
