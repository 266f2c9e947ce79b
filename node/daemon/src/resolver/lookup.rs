//! One type at one name, validated; CNAME (RFC 1034 §3.6.2) and DNAME (RFC 6672) followed hop by
//! hop. Only records owned by the name that was asked for count, and the whole is as secure as
//! its weakest hop.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use dnskeys::{Failure, Security};
use hickory_net::dnssec::DnssecDnsHandle;
use hickory_net::xfer::{DnsHandle, FirstAnswer};
use hickory_net::{DnsError, NetError};
use hickory_proto::dnssec::rdata::DNSSECRData;
use hickory_proto::dnssec::{Proof, TrustAnchors};
use hickory_proto::op::{DnsRequestOptions, Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use super::FAILURE_TTL;
use super::upstream::{Exchange, Upstream, traced};
use super::wildcard;

/// Aliases followed for one question: RFC 2317 needs one, a second for a provider's change of
/// mind; BIND stops at 16, and loops must end.
const MAX_ALIASES: usize = 8;

/// Signatures remembered as verified, a kilobyte or two each: those of the zones in use. The library
/// by itself remembers a million, which a scan of the Internet fills.
const MAX_VALIDATED: usize = 1024;

/// How long the validator keeps a verdict of "bogus": as long as we keep the answer itself, so
/// that a mended zone is found mended.
const BOGUS_LIFE: Duration = FAILURE_TTL;

/// What was found at a name.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    /// The owner of what was found: the end of the aliases.
    pub(crate) owner: Name,
    /// The type that was asked for.
    pub(crate) kind: RecordType,
    /// The weakest hop.
    pub(crate) security: Security,
    /// The shortest TTL on the way, or the SOA minimum if there is nothing.
    pub(crate) ttl: Duration,
    /// The aliases that were followed.
    pub(crate) aliases: Vec<Hop>,
    /// What was there.
    pub(crate) found: Found,
    /// What asking was like.
    pub(crate) exchange: Exchange,
}

/// An alias on the way to a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Hop {
    /// The alias.
    pub(crate) from: Name,
    /// What it stands for.
    pub(crate) to: Name,
    /// CNAME or DNAME.
    pub(crate) kind: RecordType,
    /// How it was authenticated.
    pub(crate) security: Security,
    /// How long it stands.
    pub(crate) ttl: Duration,
}

/// The outcome at the last name.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    /// At least one record.
    Records(Vec<Record>),
    /// The name exists, and has no record of this type.
    NoRecord,
    /// The name does not exist.
    NoName,
    /// DNSSEC validation failed.
    Bogus,
    /// No answer.
    Failed(Failure),
}

impl Finding {
    /// A lookup that failed before it began.
    pub(super) fn failed(owner: Name, kind: RecordType, failure: Failure) -> Self {
        Self {
            owner,
            kind,
            security: Security::Indeterminate,
            ttl: FAILURE_TTL,
            aliases: Vec::new(),
            found: Found::Failed(failure),
            exchange: Exchange { failure: Some(failure), ..Exchange::default() },
        }
    }

    /// The records, if there are any.
    pub(crate) fn records(&self) -> &[Record] {
        match &self.found {
            Found::Records(records) => records,
            _ => &[],
        }
    }
}

/// What one question came to.
struct Step {
    security: Security,
    ttl: Duration,
    what: What,
}

enum What {
    Alias(Name, RecordType),
    End(Found),
}

impl Step {
    fn bogus() -> Self {
        Self { security: Security::Bogus, ttl: FAILURE_TTL, what: What::End(Found::Bogus) }
    }
}

/// The validator with its servers.
#[derive(Clone)]
pub(super) struct Validator(DnssecDnsHandle<Upstream>);

impl Validator {
    pub(super) fn new(upstream: Upstream, keys: Arc<TrustAnchors>) -> Self {
        let handle = DnssecDnsHandle::with_trust_anchor(upstream, keys)
            .validation_cache_size(MAX_VALIDATED)
            .negative_validation_ttl(Duration::ZERO..=BOGUS_LIFE);
        Self(handle)
    }

    /// Looks up one type at one name and follows aliases.
    pub(super) async fn find(&self, name: &Name, kind: RecordType) -> Finding {
        let (mut finding, exchange) = traced(self.follow(name, kind)).await;
        finding.exchange = exchange;
        // A chain that could not be fetched is not a forged one: the validator makes no
        // difference, our questions do.
        if let (Found::Bogus, Some(failure)) = (&finding.found, exchange.failure) {
            finding.found = Found::Failed(failure);
            finding.security = Security::Indeterminate;
        }
        finding
    }

    async fn follow(&self, name: &Name, kind: RecordType) -> Finding {
        let mut finding = Finding {
            owner: name.clone(),
            kind,
            security: Security::Secure,
            ttl: Duration::MAX,
            aliases: Vec::new(),
            found: Found::Failed(Failure::ServFail),
            exchange: Exchange::default(),
        };
        while finding.aliases.len() <= MAX_ALIASES {
            let step = self.ask(&finding.owner, kind).await;
            finding.security = finding.security.min(step.security);
            finding.ttl = finding.ttl.min(step.ttl);
            match step.what {
                What::End(found) => {
                    finding.found = found;
                    return finding;
                }
                What::Alias(to, by) => {
                    let from = std::mem::replace(&mut finding.owner, to.clone());
                    let Step { security, ttl, .. } = step;
                    finding.aliases.push(Hop { from, to, kind: by, security, ttl });
                }
            }
        }
        // An endless alias is a misconfiguration that a server would answer with SERVFAIL.
        finding.ttl = FAILURE_TTL;
        finding.security = Security::Indeterminate;
        finding
    }

    /// One question, validated.
    ///
    /// The future is boxed because an alias may make it ask again.
    fn ask<'a>(
        &'a self,
        name: &'a Name,
        kind: RecordType,
    ) -> Pin<Box<dyn Future<Output = Step> + Send + 'a>> {
        Box::pin(async move {
            let mut options = DnsRequestOptions::default();
            options.edns_set_dnssec_ok = true;
            let query = Query::query(name.clone(), kind);

            match self.0.lookup(query, options).first_answer().await {
                Ok(response) => read(&response, name, kind),
                Err(NetError::Dns(DnsError::Nsec { response, .. }))
                    if wildcard::is_proved(&response, name, kind) =>
                {
                    read(&response, name, kind)
                }
                // The denial beside an alias belongs to the alias' target: the validator cannot
                // judge both at once, so the alias is asked for alone.
                Err(NetError::Dns(DnsError::Nsec { response, proof, .. })) => {
                    match alias(&response, name) {
                        Some((owner, by)) if by != kind => {
                            self.alone(name, &owner.clone(), by).await
                        }
                        _ if proof == Proof::Insecure => read(&response, name, kind),
                        _ => Step::bogus(),
                    }
                }
                Err(error) => Step {
                    security: Security::Indeterminate,
                    ttl: FAILURE_TTL,
                    what: What::End(Found::Failed(as_failure(&error))),
                },
            }
        })
    }

    /// Asks for the CNAME or DNAME itself.
    async fn alone(&self, name: &Name, owner: &Name, by: RecordType) -> Step {
        let Step { security, ttl, what } = self.ask(owner, by).await;
        let records = match what {
            What::End(Found::Records(records)) => records,
            What::End(found @ (Found::Bogus | Found::Failed(_))) => {
                return Step { security, ttl, what: What::End(found) };
            }
            // It was there a moment ago.
            What::End(_) | What::Alias(..) => return Step::bogus(),
        };
        match records.first().and_then(|record| target(record, name)) {
            Some(to) => Step { security, ttl, what: What::Alias(to, by) },
            None => Step::bogus(),
        }
    }
}

/// What a validated response says about this name.
fn read(response: &Message, name: &Name, kind: RecordType) -> Step {
    let at = |owner: &Name, kind: RecordType| -> Vec<&Record> {
        let wanted = |r: &&Record| r.record_type() == kind && r.name == *owner;
        response.answers.iter().filter(wanted).collect()
    };
    let own = at(name, kind);
    if !own.is_empty() {
        let records = own.iter().map(|&r| r.clone()).collect();
        return judged(&own, What::End(Found::Records(records)));
    }
    if let Some((owner, by)) = alias(response, name) {
        let aliases = at(owner, by);
        // Two different CNAMEs at one name cannot be followed (RFC 1034 §3.6.2).
        let mut targets: Vec<Name> = aliases.iter().filter_map(|r| target(r, name)).collect();
        targets.dedup();
        return match targets.as_slice() {
            [to] => judged(&aliases, What::Alias(to.clone(), by)),
            _ => Step::bogus(),
        };
    }
    let found = match response.metadata.response_code {
        ResponseCode::NXDomain => Found::NoName,
        _ => Found::NoRecord,
    };
    denial(response, found)
}

/// A step with the security and TTL of the records it rests on.
fn judged(records: &[&Record], what: What) -> Step {
    let security = records.iter().map(|r| security(r.proof)).min().unwrap_or(Security::Bogus);
    if security == Security::Bogus {
        return Step::bogus();
    }
    let ttl = records.iter().map(|r| r.ttl).min().unwrap_or_default();
    Step { security, ttl: Duration::from_secs(ttl.into()), what }
}

/// An absence. The validator has checked the denial; what is left to see is whether there was
/// one, or only a proof that none is owed.
fn denial(response: &Message, found: Found) -> Step {
    let is_denial = |r: &&Record| {
        matches!(&r.data, RData::DNSSEC(DNSSECRData::NSEC(_) | DNSSECRData::NSEC3(_)))
    };
    let is_soa = |r: &&Record| matches!(&r.data, RData::SOA(_));
    let denied = response.authorities.iter().filter(is_denial).map(|r| security(r.proof)).min();
    let soa = response.authorities.iter().find(is_soa);
    let denied = denied.unwrap_or(Security::Insecure);
    let security = soa.map_or(denied, |r| security(r.proof).min(denied));
    if security == Security::Bogus {
        return Step::bogus();
    }
    // RFC 2308 §5: the smaller of the SOA's TTL and its minimum; without SOA not to be kept.
    let ttl = soa.map_or(0, |r| match &r.data {
        RData::SOA(soa) => soa.minimum.min(r.ttl),
        _ => 0,
    });
    Step { security, ttl: Duration::from_secs(ttl.into()), what: What::End(found) }
}

/// The alias in a response that concerns this name: owner and type. A DNAME above the name goes
/// before the CNAME that the server made from it, for which there is no signature
/// (RFC 6672 §5.3.1).
fn alias<'a>(response: &'a Message, name: &Name) -> Option<(&'a Name, RecordType)> {
    let answers = || response.answers.iter();
    let above = |r: &&Record| {
        r.record_type() == RecordType::DNAME && r.name.zone_of(name) && r.name != *name
    };
    let here = |r: &&Record| r.record_type() == RecordType::CNAME && r.name == *name;
    answers()
        .find(above)
        .map(|r| (&r.name, RecordType::DNAME))
        .or_else(|| answers().find(here).map(|r| (&r.name, RecordType::CNAME)))
}

/// What a CNAME or DNAME makes of this name.
fn target(record: &Record, name: &Name) -> Option<Name> {
    match &record.data {
        RData::CNAME(to) => Some(to.0.clone()),
        RData::Unknown { code, rdata } if *code == RecordType::DNAME => {
            let suffix = Name::read(&mut BinDecoder::new(&rdata.anything)).ok()?;
            let keep = usize::from(name.num_labels().checked_sub(record.name.num_labels())?);
            let prefix = Name::from_labels(name.iter().take(keep)).ok()?;
            prefix.append_domain(&suffix).ok()
        }
        _ => None,
    }
}

/// hickory's verdict in our words. What it could not decide was never validated.
fn security(proof: Proof) -> Security {
    match proof {
        Proof::Secure => Security::Secure,
        Proof::Insecure => Security::Insecure,
        Proof::Indeterminate => Security::Indeterminate,
        Proof::Bogus => Security::Bogus,
    }
}

fn as_failure(error: &NetError) -> Failure {
    match error {
        NetError::Timeout => Failure::Timeout,
        NetError::Truncated => Failure::Truncated,
        NetError::Dns(DnsError::ResponseCode(ResponseCode::Refused)) => Failure::Refused,
        NetError::NoConnections | NetError::Io(_) => Failure::Unreachable,
        _ => Failure::ServFail,
    }
}
