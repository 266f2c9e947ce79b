//! What peers would reject, or read differently than was meant, in a zone: record by record, so
//! that any size fits. What belongs together (the records of one name) is compared as long as it
//! stands together.

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;

use dnskeys::{Gateway, Ipseckey, OldKey, PublicKey, RsaKey, ServerTxt};

use crate::gateway::{HostFault, gateway_fault, key_fault};
use crate::master::{Located, Position};
use crate::name::Name;
use crate::record::Record;
use crate::reverse::address_of;
use crate::rtype::Rtype;

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// Good to know.
    Note,
    /// Some peers stumble, or it is not what is usually meant.
    Warning,
    /// Peers reject the record, or servers the zone.
    Error,
}

/// One finding about one record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Where the record stands.
    pub position: Position,
    /// Its owner.
    pub owner: Name,
    /// Its type.
    pub rtype: Rtype,
    /// What was found.
    pub what: What,
}

/// What can be wrong with a record.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum What {
    /// Cannot be read as what it claims to be.
    #[error("{0}")]
    Malformed(&'static str),
    /// See [`HostFault`].
    #[error("{0}")]
    Host(HostFault),
    /// RFC 4322 §5.2.1 allows blanks inside the key, Pluto stops at them.
    #[error("blank inside the key: FreeS/WAN and Openswan read only what is in front of it")]
    BlankInKey,
    /// The quickstart's misprint.
    #[error("no blank between gateway and key where the strings meet: Openswan cannot read it")]
    NoBlank,
    /// `(010)` is 8 for Pluto.
    #[error("precedence with a leading zero: FreeS/WAN reads it as octal or hexadecimal")]
    RadixPrecedence,
    /// Draft 4's name of the attribute.
    #[error("X-IPsec-Gateway is the name of a draft: peers look for X-IPsec-Server")]
    DraftName,
    /// More than an old peer's buffer.
    #[error("key of {0} octets: FreeS/WAN and Openswan hold at most 514")]
    LargeKey(usize),
    /// `@name` below the reverse tree.
    #[error("gateway is a name: nobody can call this address, the record only authorises")]
    NamedGateway,
    /// Nothing but DNSSEC makes another's gateway credible.
    #[error("names another host as gateway: counts only where the zone is signed")]
    Delegation,
    /// Algorithm 1, or a number nobody uses.
    #[error("algorithm {0}: peers know RSA (2), ECDSA (3) and EdDSA (4)")]
    Algorithm(u8),
    /// ECDSA and EdDSA, of RFC 4025's registry.
    #[error("key is not RSA: nodes of this kind use it, RFC 4322's peers cannot")]
    NotRsa,
    /// libreswan's reading.
    #[error("gateway in IPSECKEY: libreswan ignores all but \".\"")]
    GatewayInIpseckey,
    /// Ties are broken arbitrarily.
    #[error("precedence {0} twice with different gateways: which is tried first is arbitrary")]
    SamePrecedence(u16),
    /// A record twice.
    #[error("says the same as the record above")]
    Twice,
    /// TXT and IPSECKEY of a name.
    #[error("TXT and IPSECKEY of this name hold different keys")]
    Disagree,
    /// RFC 3445.
    #[error("KEY for IPsec was withdrawn by RFC 3445; nobody looks it up")]
    OldKey,
    /// RFC 2181 §5.2.
    #[error("TTL {found}, the others of the same name and type have {expected}")]
    Ttl {
        /// The first one's.
        expected: u32,
        /// This one's.
        found: u32,
    },
    /// RFC 1034 §3.6.2.
    #[error("CNAME beside other records of the same name")]
    CnameAndOther,
    /// Not at or below the SOA's owner.
    #[error("outside the zone")]
    OutOfZone,
    /// A second start of authority.
    #[error("second SOA")]
    SecondSoa,
    /// RFC 4322 §5.2: addresses, not subnets.
    #[error("owner is no single address: nobody looks up a subnet")]
    NotAHost,
    /// The tree before RFC 3152.
    #[error("ip6.int is gone: peers look in ip6.arpa")]
    Ip6Int,
    /// RFC 4592 §3.3.1: the closest name that exists has no wildcard of its own.
    #[error("names near this one that do not exist no longer match the wildcard above")]
    UnderWildcard,
    /// Rough size of the answer.
    #[error("the answer has more than 1232 octets: it is fetched by TCP")]
    Large,
}

/// Looks at the records of one file, in order.
#[derive(Debug, Default)]
pub struct Checker {
    zone: Option<Name>,
    owner: Option<Name>,
    /// The records of `owner` so far, at most [`MAX_TOGETHER`].
    together: Vec<Seen>,
    findings: VecDeque<Finding>,
    counts: Counts,
    signed: bool,
    delegates: Option<Finding>,
    /// Parents of wildcards, until the first name deeper than one label below is met.
    wildcards: Vec<Name>,
}

/// How much was seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// All records.
    pub records: u64,
    /// `X-IPsec-Server` among them.
    pub txt: u64,
    /// IPSECKEY among them.
    pub ipseckey: u64,
}

#[derive(Debug)]
struct Seen {
    rtype: Rtype,
    ttl: u32,
    size: usize,
    says: Option<Says>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Says {
    precedence: u16,
    gateway: Gateway,
    key: Option<RsaKey>,
}

impl What {
    /// How bad it is.
    #[must_use]
    pub fn severity(self) -> Severity {
        match self {
            Self::Malformed(_)
            | Self::CnameAndOther
            | Self::OutOfZone
            | Self::SecondSoa
            | Self::Ip6Int
            | Self::DraftName => Severity::Error,
            Self::Host(fault) if fault.is_fatal() => Severity::Error,
            Self::LargeKey(_)
            | Self::Delegation
            | Self::GatewayInIpseckey
            | Self::NotRsa
            | Self::Large => Severity::Note,
            _ => Severity::Warning,
        }
    }
}

impl Checker {
    /// Looks at one record.
    pub fn record(&mut self, located: &Located) {
        let record = &located.record;
        self.counts.records += 1;
        if self.owner.as_ref() != Some(&record.owner) {
            self.owner = Some(record.owner.clone());
            self.together.clear();
        }
        if matches!(record.rtype, Rtype::RRSIG | Rtype::DNSKEY) {
            self.signed = true;
        }
        self.place(located);
        self.wildcard(located);
        let says = match record.rtype {
            Rtype::TXT => self.txt(located),
            Rtype::IPSECKEY => self.ipseckey(located),
            Rtype::KEY => {
                if OldKey::from_rdata(&record.rdata).is_some_and(|key| key.is_ipsec()) {
                    self.find(located, What::OldKey);
                }
                None
            }
            _ => None,
        };
        self.compare(located, says);
    }

    /// What was found since the last call.
    pub fn findings(&mut self) -> impl Iterator<Item = Finding> {
        self.findings.drain(..)
    }

    /// What can only be said at the end of a file, and how much was seen. Then it is ready for the
    /// next file.
    pub fn finish(&mut self) -> (Counts, Option<Finding>) {
        let Self { counts, signed, delegates, .. } = std::mem::take(self);
        (counts, delegates.filter(|_| !signed))
    }

    fn place(&mut self, located: &Located) {
        let Record { owner, rtype, .. } = &located.record;
        match &self.zone {
            None if *rtype == Rtype::SOA => self.zone = Some(owner.clone()),
            Some(_) if *rtype == Rtype::SOA => self.find(located, What::SecondSoa),
            Some(zone) if !owner.is_within(zone) => self.find(located, What::OutOfZone),
            _ => {}
        }
    }

    /// An IPv6 host beside a wildcard makes its nibbles exist, and with them most of the addresses
    /// near it stop to match.
    fn wildcard(&mut self, located: &Located) {
        let owner = &located.record.owner;
        let Some(parent) = owner.parent() else { return };
        if owner.is_wildcard() {
            if self.wildcards.len() < MAX_WILDCARDS && !self.wildcards.contains(&parent) {
                self.wildcards.push(parent);
            }
            return;
        }
        let under = |wildcard: &Name| parent != *wildcard && parent.is_within(wildcard);
        if let Some(at) = self.wildcards.iter().position(under) {
            self.wildcards.swap_remove(at);
            self.find(located, What::UnderWildcard);
        }
    }

    fn txt(&mut self, located: &Located) -> Option<Says> {
        let rdata = &located.record.rdata;
        let text: Vec<u8> = dnskeys::txt::strings_of(rdata)?.concat();
        let start = text.trim_ascii_start();
        if has_prefix(start, b"X-IPsec-Gateway") {
            self.find(located, What::DraftName);
            return None;
        }
        let txt = match ServerTxt::from_rdata(rdata) {
            Ok(Some(txt)) => txt,
            Ok(None) => return None,
            Err(malformed) => {
                self.find(located, What::Malformed(malformed.why));
                return None;
            }
        };
        self.counts.txt += 1;
        if let Some(what) = as_pluto_reads(start, &txt) {
            self.find(located, what);
        }
        let gateway = Gateway::from(txt.gateway);
        let says = Says { precedence: txt.precedence, gateway, key: txt.key };
        self.spoken(located, &says);
        if says.key.is_none() {
            self.find(located, What::Host(HostFault::NoKey));
        }
        if matches!(says.gateway, Gateway::Name(_)) && is_reverse(&located.record.owner) {
            self.find(located, What::NamedGateway);
        }
        Some(says)
    }

    fn ipseckey(&mut self, located: &Located) -> Option<Says> {
        self.counts.ipseckey += 1;
        let rdata = &located.record.rdata;
        let ipseckey = match Ipseckey::from_rdata(rdata) {
            Ok(ipseckey) => ipseckey,
            Err(malformed) => {
                self.find(located, What::Malformed(malformed.why));
                return None;
            }
        };
        let key = match ipseckey.key {
            Some(PublicKey::Rsa(key)) => Some(key),
            Some(other) if matches!(other.algorithm(), 3 | 4) => {
                self.find(located, What::NotRsa);
                return None;
            }
            Some(other) => {
                self.find(located, What::Algorithm(other.algorithm()));
                return None;
            }
            None => {
                self.find(located, What::Host(HostFault::NoKey));
                None
            }
        };
        if ipseckey.gateway != Gateway::Own {
            self.find(located, What::GatewayInIpseckey);
        }
        let precedence = u16::from(ipseckey.precedence);
        let says = Says { precedence, gateway: ipseckey.gateway, key };
        self.spoken(located, &says);
        Some(says)
    }

    /// What TXT and IPSECKEY can have wrong in common.
    fn spoken(&mut self, located: &Located, says: &Says) {
        let owner = &located.record.owner;
        let host = address_of(owner);
        if let Some(key) = &says.key {
            if let Some(fault) = key_fault(key) {
                self.find(located, What::Host(fault));
            }
            let octets = key.to_rfc3110().len();
            if octets > MAX_OLD_KEY {
                self.find(located, What::LargeKey(octets));
            }
        }
        if let Gateway::Address(gateway) = says.gateway {
            // Below a classless apex the address is not in the name: judged as a public host.
            let judged = host.unwrap_or_else(|| IpAddr::from([192, 0, 2, 1]));
            if let Some(fault) = gateway_fault(judged, gateway) {
                self.find(located, What::Host(fault));
            } else if host.is_some_and(|host| host != gateway) && self.delegates.is_none() {
                self.delegates = Some(finding(located, What::Delegation));
            }
        }
        let labels: Vec<&[u8]> = owner.labels().collect();
        let ends_in = |top: &[u8], tree: &[u8]| match labels.as_slice() {
            [.., a, b] => a.eq_ignore_ascii_case(tree) && b.eq_ignore_ascii_case(top),
            _ => false,
        };
        if ends_in(b"int", b"ip6") {
            self.find(located, What::Ip6Int);
        } else if host.is_none() && !owner.is_wildcard() {
            let full = if ends_in(b"arpa", b"in-addr") { 6 } else { 34 };
            if is_reverse(owner) && labels.len() < full {
                self.find(located, What::NotAHost);
            }
        }
    }

    fn compare(&mut self, located: &Located, says: Option<Says>) {
        let record = &located.record;
        let same_type = self.together.iter().find(|seen| seen.rtype == record.rtype);
        if let Some(first) = same_type.filter(|first| first.ttl != record.ttl)
            && record.rtype != Rtype::RRSIG
        {
            let (expected, found) = (first.ttl, record.ttl);
            self.find(located, What::Ttl { expected, found });
        }
        let is_dnssec = |rtype| matches!(rtype, Rtype::RRSIG | Rtype::NSEC);
        let others = self.together.iter().filter(|seen| !is_dnssec(seen.rtype));
        let aliased = if record.rtype == Rtype::CNAME {
            others.count() > 0
        } else {
            !is_dnssec(record.rtype) && others.into_iter().any(|seen| seen.rtype == Rtype::CNAME)
        };
        if aliased {
            self.find(located, What::CnameAndOther);
        }
        let before: Vec<(Rtype, Says)> = self
            .together
            .iter()
            .filter_map(|seen| Some((seen.rtype, seen.says.clone()?)))
            .collect();
        if let Some(says) = &says {
            self.compare_says(located, says, &before);
        }
        let size = record.rdata.len() + RR_OVERHEAD;
        let total: usize =
            self.together.iter().filter(|s| s.rtype == record.rtype).map(|s| s.size).sum();
        if total <= MAX_UDP && total + size > MAX_UDP {
            self.find(located, What::Large);
        }
        if self.together.len() < MAX_TOGETHER {
            self.together.push(Seen { rtype: record.rtype, ttl: record.ttl, size, says });
        }
    }

    fn compare_says(&mut self, located: &Located, says: &Says, before: &[(Rtype, Says)]) {
        let rtype = located.record.rtype;
        let same = || before.iter().filter(|(t, _)| *t == rtype).map(|(_, says)| says);
        if same().any(|other| other == says) {
            self.find(located, What::Twice);
        } else if same().any(|o| o.precedence == says.precedence && o.gateway != says.gateway) {
            self.find(located, What::SamePrecedence(says.precedence));
        }
        // During a rollover either type may be ahead, but some key must be common.
        let others = || before.iter().filter(|(t, _)| *t != rtype).map(|(_, says)| says);
        if rtype == Rtype::IPSECKEY
            && others().count() > 0
            && says.key.is_some()
            && others().all(|other| other.key.is_some() && other.key != says.key)
        {
            self.find(located, What::Disagree);
        }
    }

    fn find(&mut self, located: &Located, what: What) {
        self.findings.push_back(finding(located, what));
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { position, owner, rtype, what } = self;
        write!(f, "{position}: {}: {owner} {rtype}: {what}", what.severity())
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

fn finding(located: &Located, what: What) -> Finding {
    let Located { record, position } = located;
    Finding { position: position.clone(), owner: record.owner.clone(), rtype: record.rtype, what }
}

fn is_reverse(owner: &Name) -> bool {
    let labels: Vec<&[u8]> = owner.labels().collect();
    match labels.as_slice() {
        [.., tree, top] => {
            top.eq_ignore_ascii_case(b"arpa")
                && (tree.eq_ignore_ascii_case(b"in-addr") || tree.eq_ignore_ascii_case(b"ip6"))
        }
        _ => false,
    }
}

fn has_prefix(text: &[u8], prefix: &[u8]) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// How a record that reads well here reads by plain concatenation, with no tolerance.
fn as_pluto_reads(text: &[u8], txt: &ServerTxt) -> Option<What> {
    let after = |byte| text.iter().position(|&b| b == byte).and_then(|at| text.get(at + 1..));
    let precedence = after(b'(').map(<[u8]>::trim_ascii_start).unwrap_or_default();
    if matches!(precedence, [b'0', next, ..] if next.is_ascii_alphanumeric()) {
        return Some(What::RadixPrecedence);
    }
    txt.key.as_ref()?;
    let rest = after(b'=')?.trim_ascii();
    let mut words = rest.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let gateway = words.next().unwrap_or_default();
    if !gateway.eq_ignore_ascii_case(txt.gateway.to_string().as_bytes()) && words.next().is_none() {
        return Some(What::NoBlank);
    }
    (words.count() > 1).then_some(What::BlankInKey)
}

/// 512 octets of modulus and two in front of it (FreeS/WAN's `RSA_MAX_ENCODING_BYTES`).
const MAX_OLD_KEY: usize = 514;
/// Records of one name that are compared with each other; nobody has more gateways.
const MAX_TOGETHER: usize = 64;
/// Zones have one wildcard, or one for each /64.
const MAX_WILDCARDS: usize = 64;
/// Type, class, TTL, length and a compressed owner.
const RR_OVERHEAD: usize = 12;
/// What resolvers ask for, less header, question and OPT.
const MAX_UDP: usize = 1232 - 12 - 11 - 60;

#[cfg(test)]
mod tests;
