//! Answers and keys for the tests of this crate.

use std::net::IpAddr;
use std::time::Duration;

use crate::answer::{Answer, Outcome, RecordSet, Security};
use crate::decision::{RequireDnssec, Rules};
use crate::key::PublicKey;
use crate::key::tests::key;
use crate::name::Name;
use crate::record::{Gateway, GatewayRecord, Malformed, Source};

pub(crate) const TTL: Duration = Duration::from_secs(600);

pub(crate) fn ip(s: &str) -> IpAddr {
    s.parse().unwrap()
}

pub(crate) fn d() -> IpAddr {
    ip("192.0.2.11")
}

pub(crate) fn good() -> PublicKey {
    key(2048, 0).into()
}

pub(crate) fn other() -> PublicKey {
    key(2048, 7).into()
}

pub(crate) fn name(s: &str) -> Name {
    s.parse().unwrap()
}

pub(crate) fn record(precedence: u16, gateway: Gateway, key: Option<PublicKey>) -> GatewayRecord {
    GatewayRecord { precedence, gateway, key, source: Source::Txt }
}

pub(crate) fn at(gateway: &str, key: Option<PublicKey>) -> GatewayRecord {
    let gateway = match gateway {
        "own" => Gateway::Own,
        text => match text.strip_prefix('@') {
            Some(text) => Gateway::Name(name(text)),
            None => Gateway::Address(ip(text)),
        },
    };
    record(10, gateway, key)
}

pub(crate) fn broken() -> Malformed {
    Malformed { source: Source::Txt, why: "key: not base64" }
}

pub(crate) fn records(gateways: Vec<GatewayRecord>) -> Outcome {
    Outcome::Records(RecordSet { gateways, malformed: Vec::new() })
}

pub(crate) fn answer(owner: Name, security: Security, outcome: Outcome) -> Answer {
    Answer { owner, security, ttl: TTL, outcome }
}

pub(crate) fn rules(require_dnssec: RequireDnssec) -> Rules {
    Rules { require_dnssec, ..Rules::default() }
}
