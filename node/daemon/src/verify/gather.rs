//! The questions to DNS that fill in the facts.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use dnskeys::{Gateway, Name, OldKey, PublicKey, Security};
use hickory_proto::dnssec::rdata::DNSSECRData;
use hickory_proto::rr::{RData, Record, RecordType};

use super::facts::{
    AddressFacts, Alias, ChainEnd, GatewayFacts, HostFacts, NameFacts, Seen, SeenOutcome,
};
use super::{probe, servers};
use crate::resolver::{
    Exchange, Finding, Found, IPSECKEY, Resolver, from_hickory, records_of_ours,
};

/// What to ask beyond the records themselves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// Ask every authoritative server of the zone, and compare.
    pub(crate) servers: bool,
    /// Call the gateways: one IKE_SA_INIT each.
    pub(crate) probe: bool,
    /// The mark that makes our packets bypass the trap of this machine.
    pub(crate) mark: Option<u32>,
    /// The key that the host itself has.
    pub(crate) host_key: Option<PublicKey>,
}

/// Everything about a name.
pub(crate) async fn host(resolver: &Arc<Resolver>, name: &Name, wanted: &Wanted) -> HostFacts {
    let (forward, (security, addresses)) =
        tokio::join!(at(resolver, name, wanted.servers), resolver.addresses(name));
    let mut each = Vec::new();
    for address in addresses.into_iter().take(MAX_ADDRESSES) {
        each.push(self::address(resolver, address, wanted).await);
    }
    HostFacts { name: name.clone(), forward, addresses: security, each }
}

/// Everything about an address.
pub(crate) async fn address(
    resolver: &Arc<Resolver>,
    address: IpAddr,
    wanted: &Wanted,
) -> AddressFacts {
    let reverse = at(resolver, &Name::reverse(address), wanted.servers).await;
    let mut named: Vec<Gateway> = Vec::new();
    for record in reverse.gateways() {
        let gateway = match &record.gateway {
            Gateway::Own => continue,
            Gateway::Address(addr) if *addr == address => continue,
            // What is published for addresses that nobody has concerns nobody.
            Gateway::Address(addr) if dnskeys::unusable(*addr, address).is_some() => continue,
            other => other,
        };
        if !named.contains(gateway) && named.len() < MAX_GATEWAYS {
            named.push(gateway.clone());
        }
    }
    let mut gateways = Vec::new();
    let mut called = Vec::new();
    for gateway in named {
        let own = match &gateway {
            Gateway::Address(addr) => {
                called.push(*addr);
                Name::reverse(*addr)
            }
            Gateway::Name(name) => name.clone(),
            Gateway::Own => continue,
        };
        gateways.push(GatewayFacts { gateway, own: at(resolver, &own, wanted.servers).await });
    }
    let own = |gateway: &Gateway| match gateway {
        Gateway::Own => true,
        Gateway::Address(addr) => *addr == address,
        Gateway::Name(_) => false,
    };
    if reverse.gateways().any(|record| own(&record.gateway)) {
        called.insert(0, address);
    }
    let mut probes = Vec::new();
    if wanted.probe {
        for gateway in called {
            probes.push((gateway, probe::call(gateway, wanted.mark).await));
        }
    }
    AddressFacts { address, reverse, gateways, probes, host_key: wanted.host_key.clone() }
}

/// What is published at one name.
pub(super) async fn at(resolver: &Arc<Resolver>, name: &Name, compare: bool) -> NameFacts {
    let (txt, ipseckey, key) = tokio::join!(
        resolver.lookup(name, RecordType::TXT),
        resolver.lookup(name, IPSECKEY),
        resolver.lookup(name, RecordType::KEY),
    );
    let weakest = if txt.security <= ipseckey.security { &txt } else { &ipseckey };
    let (chain, servers) = tokio::join!(chain_end(resolver, weakest), async {
        // Also for what is missing: it may be there already, and not yet seen by everybody.
        if compare && !matches!(txt.found, Found::Failed(_)) {
            servers::compare(resolver, &txt.owner).await
        } else {
            Vec::new()
        }
    });
    NameFacts {
        name: name.clone(),
        txt: seen(&txt),
        ipseckey: seen(&ipseckey),
        old_key: key.records().iter().any(is_ipsec_key),
        chain,
        servers,
    }
}

fn seen(finding: &Finding) -> Seen {
    let Exchange { truncated, tcp, .. } = finding.exchange;
    Seen {
        security: finding.security,
        ttl: if finding.ttl == Duration::MAX { Duration::ZERO } else { finding.ttl },
        aliases: finding
            .aliases
            .iter()
            .map(|hop| Alias {
                from: text(&hop.from),
                to: text(&hop.to),
                kind: if hop.kind == RecordType::CNAME { "CNAME" } else { "DNAME" },
                security: hop.security,
            })
            .collect(),
        outcome: match &finding.found {
            Found::Records(records) => match records_of_ours(records) {
                set if set.is_empty() => SeenOutcome::NoRecord,
                set => SeenOutcome::Records(set),
            },
            Found::NoRecord => SeenOutcome::NoRecord,
            Found::NoName => SeenOutcome::NoName,
            Found::Bogus => SeenOutcome::Bogus,
            Found::Failed(failure) => SeenOutcome::Failed(*failure),
        },
        texts: servers::texts(finding.records()),
        truncated,
        tcp,
    }
}

fn is_ipsec_key(record: &Record) -> bool {
    let RData::DNSSEC(DNSSECRData::KEY(_)) = &record.data else { return false };
    // The wire form, because the library does not keep the old flags.
    use hickory_proto::serialize::binary::BinEncodable as _;
    let rdata = record.data.to_bytes().ok();
    rdata.and_then(|octets| OldKey::from_rdata(&octets)).is_some_and(|key| key.is_ipsec())
}

/// Where the chain of trust to a finding ends.
async fn chain_end(resolver: &Arc<Resolver>, finding: &Finding) -> Option<ChainEnd> {
    let bogus = match (&finding.found, finding.security) {
        (Found::Bogus, _) | (_, Security::Bogus) => true,
        (Found::Failed(_), _) | (_, Security::Secure | Security::Indeterminate) => return None,
        (_, Security::Insecure) => false,
    };
    // An unsigned alias makes the whole unsigned: its zone is the one to blame.
    let insecure_alias = finding.aliases.iter().find(|hop| hop.security < Security::Secure);
    let name = insecure_alias.map_or(&finding.owner, |hop| &hop.from);
    let walk = walk_down(resolver, name, finding.kind, bogus);
    tokio::time::timeout(MAX_WALK, walk).await.ok().flatten()
}

/// Goes down from the root and asks each name for an SOA: only the tops of zones have one.
async fn walk_down(
    resolver: &Arc<Resolver>,
    name: &hickory_proto::rr::Name,
    kind: RecordType,
    bogus: bool,
) -> Option<ChainEnd> {
    let owner = from_hickory(name)?;
    let labels: Vec<&str> = owner.labels().collect();
    let mut sound = ".".to_owned();
    for from in (0..labels.len()).rev() {
        let zone: Name = labels.get(from..)?.join(".").parse().ok()?;
        let soa = resolver.lookup(&zone, RecordType::SOA).await;
        match (&soa.found, soa.security) {
            // A bogus denial at a name that is no zone belongs to the zone above.
            (Found::Bogus, _) if bogus && is_top(resolver, &zone).await => {
                let window = window(resolver, &zone, RecordType::SOA).await;
                return Some(ChainEnd::BrokenZone { zone: zone.to_string(), window });
            }
            (Found::Records(_), Security::Insecure) if !bogus => {
                return Some(ChainEnd::Unsigned { zone: zone.to_string() });
            }
            (Found::Records(_), _) => sound = zone.to_string(),
            _ => {}
        }
    }
    if !bogus {
        return None;
    }
    let window = window(resolver, &owner, kind).await;
    Some(ChainEnd::BrokenRecord { zone: sound, window })
}

/// Whether a zone begins here, by what nobody validated.
async fn is_top(resolver: &Resolver, name: &Name) -> bool {
    let reply = resolver.unvalidated(name, RecordType::SOA).await;
    reply.is_ok_and(|reply| {
        let soa = |record: &Record| record.record_type() == RecordType::SOA;
        reply
            .answers
            .iter()
            .any(|record| soa(record) && from_hickory(&record.name).as_ref() == Some(name))
    })
}

/// A name as people read it.
fn text(name: &hickory_proto::rr::Name) -> String {
    from_hickory(name).map_or_else(|| name.to_ascii(), |name| name.to_string())
}

/// When the signatures over a record begin and end, not validated.
pub(super) async fn window(
    resolver: &Resolver,
    name: &Name,
    kind: RecordType,
) -> Option<(u32, u32)> {
    let reply = resolver.unvalidated(name, kind).await.ok()?;
    let windows = reply.answers.iter().filter_map(|record| match &record.data {
        RData::DNSSEC(DNSSECRData::RRSIG(signature)) => {
            let input = signature.input();
            (input.type_covered == kind)
                .then(|| (input.sig_inception.get(), input.sig_expiration.get()))
        }
        _ => None,
    });
    windows.max_by_key(|(_, end)| *end)
}

/// Addresses of one name that are looked at: a host has a few, a content network has many.
const MAX_ADDRESSES: usize = 8;

/// Gateways of one address that are looked at: RFC 4322 §8 speaks of two.
const MAX_GATEWAYS: usize = 8;

/// The walk from the root for one name: up to 34 zones under `ip6.arpa`.
const MAX_WALK: Duration = Duration::from_secs(10);
