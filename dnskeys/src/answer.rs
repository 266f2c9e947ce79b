//! What a lookup came back with, as data.

use std::time::Duration;

use crate::ipseckey::Ipseckey;
use crate::name::Name;
use crate::record::{GatewayRecord, Malformed};
use crate::txt::ServerTxt;

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

impl RecordSet {
    /// Takes the RDATA of a TXT record; ignores it if it is not ours.
    pub fn add_txt(&mut self, rdata: &[u8]) {
        self.add(ServerTxt::from_rdata(rdata).map(|ours| ours.map(GatewayRecord::from)));
    }

    /// Takes the character-strings of a TXT record; ignores it if it is not ours.
    pub fn add_txt_strings<S: AsRef<[u8]>>(&mut self, strings: &[S]) {
        self.add(ServerTxt::from_strings(strings).map(|ours| ours.map(GatewayRecord::from)));
    }

    /// Takes the RDATA of an IPSECKEY record.
    pub fn add_ipseckey(&mut self, rdata: &[u8]) {
        self.add(Ipseckey::from_rdata(rdata).map(|record| Some(record.into())));
    }

    /// Whether there is nothing of ours.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.gateways.is_empty() && self.malformed.is_empty()
    }

    fn add(&mut self, record: Result<Option<GatewayRecord>, Malformed>) {
        match record {
            Ok(None) => {}
            Ok(Some(record)) if self.gateways.len() < MAX_RECORDS => self.gateways.push(record),
            Err(malformed) if self.malformed.len() < MAX_RECORDS => self.malformed.push(malformed),
            Ok(Some(_)) | Err(_) => {}
        }
    }
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

impl Answer {
    /// An answer with these records, or [`Outcome::NoRecord`] if nothing among them is ours.
    #[must_use]
    pub fn new(owner: Name, security: Security, ttl: Duration, records: RecordSet) -> Self {
        let outcome = match records {
            _ if security == Security::Bogus => Outcome::Bogus,
            records if records.is_empty() => Outcome::NoRecord,
            records => Outcome::Records(records),
        };
        Self { owner, security, ttl, outcome }
    }
}

impl Security {
    /// The word `verify` and `status` use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bogus => "bogus",
            Self::Indeterminate => "indeterminate",
            Self::Insecure => "insecure",
            Self::Secure => "secure",
        }
    }
}

/// A name has a record for each gateway and each key: several of both during a rollover. More
/// than this is a mistake or an attack.
const MAX_RECORDS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_bad_record_spoils_nothing() {
        let mut set = RecordSet::default();
        set.add_txt(b"\x0bv=spf1 -all");
        assert!(set.is_empty());
        set.add_txt(b"\x1fX-IPsec-Server(10)=192.0.2.1 A*");
        set.add_txt(b"\x1cX-IPsec-Server(10)=192.0.2.1");
        set.add_ipseckey(&[1, 9, 2]);
        assert_eq!(set.gateways.len(), 1);
        let why: Vec<_> = set.malformed.iter().map(|m| m.why).collect();
        assert_eq!(why, ["key: not base64", "gateway type: above 3"]);
    }

    /// CVE-2021-41991.
    #[test]
    fn hostile_numbers_of_records_are_bounded() {
        let mut set = RecordSet::default();
        for _ in 0..10_000 {
            set.add_txt(b"\x1cX-IPsec-Server(10)=192.0.2.1");
            set.add_ipseckey(&[]);
        }
        assert_eq!((set.gateways.len(), set.malformed.len()), (MAX_RECORDS, MAX_RECORDS));
    }

    proptest! {
        #[test]
        fn no_octets_panic(rdata in proptest::collection::vec(any::<u8>(), 0..600)) {
            let mut set = RecordSet::default();
            set.add_txt(&rdata);
            set.add_ipseckey(&rdata);
        }
    }
}
