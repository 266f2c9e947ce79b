//! The DNS host: reverse zones with the nodes' keys, signed, and one host's records broken
//! afterwards.

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context as _;
use dnskeys::RsaKey;
use zonefiles::chain::root_chain;
use zonefiles::{Apex, ClasslessName, Kinds, Name, Prefix, ReverseZone, Rtype, SortedZone, Zone};

use super::host::Host;
use super::topology::{REVERSE_PREFIXES, Role, Site};
use crate::zone::keys::ZoneKeys;
use crate::zone::serve::{Sockets, ZoneServer};
use crate::zone::signed::{ServedZone, make_bogus, sign_zones};

/// Serves, on the DNS host, the zones from the root down to the reverse names of these sites with
/// their keys. Returns the trust anchor, in master-file form.
pub(crate) fn serve(dns: &Host, published: &[(&Site, RsaKey)]) -> anyhow::Result<String> {
    let mut hosts = Vec::new();
    for (site, key) in published {
        let name = host_name(&site.name)?;
        for address in site.addresses() {
            hosts.push(zonefiles::Host::own(address, key.clone()).named(name.clone()));
        }
    }
    let broken: Vec<Name> = published
        .iter()
        .filter(|(site, _)| site.role == Role::Bogus)
        .flat_map(|(site, _)| site.addresses().map(Name::reverse))
        .collect();
    serve_hosts(dns, &hosts, &[], &broken)
}

/// The same with these records, and with those of who is known by name only; what some owners have
/// is broken after it was signed.
pub(crate) fn serve_hosts(
    dns: &Host,
    hosts: &[zonefiles::Host],
    by_name: &[(String, RsaKey)],
    broken: &[Name],
) -> anyhow::Result<String> {
    let zones = zones(&dns.site, hosts, by_name)?;
    let broken = broken.to_vec();
    let tamper = |zone: &mut SortedZone| {
        for owner in &broken {
            for rtype in [Rtype::TXT, Rtype::IPSECKEY] {
                make_bogus(zone, owner, rtype);
            }
        }
    };
    let zones = zones.into_iter().map(ServedZone::signed).collect();
    let signed = sign_zones(zones, &mut ZoneKeys::ephemeral(), LIFETIME, Some(&tamper))
        .context("cannot sign the zones")?;
    let (tell, told) = mpsc::sync_channel(1);
    let catalog = signed.catalog;
    // The thread lasts as long as the process.
    drop(dns.start_job(move || {
        let served = serve_here(catalog, &tell);
        if let Err(error) = served {
            let _ = tell.send(Err(error));
        }
    })?);
    told.recv().context("the DNS host has ended")?.context("cannot serve the zones")?;
    Ok(signed.trust_anchors)
}

/// Serves in the calling thread's namespace, and says when it does.
fn serve_here(
    catalog: zonefiles::Catalog,
    tell: &mpsc::SyncSender<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let sockets = Sockets::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, DNS_PORT)))?;
        let mut server = ZoneServer::start(vec![sockets], catalog, Vec::new())?;
        let _ = tell.send(Ok(()));
        server.failed().await;
        anyhow::bail!("the DNS server's socket failed")
    })
}

/// One zone for each documentation prefix, and what is above them.
fn zones(
    dns: &Site,
    hosts: &[zonefiles::Host],
    by_name: &[(String, RsaKey)],
) -> anyhow::Result<Vec<Zone>> {
    let server = host_name(&dns.name)?;
    let apex = Apex::new(server.clone(), 1);
    let mut leaves = Vec::new();
    for (address, length) in REVERSE_PREFIXES {
        let prefix = Prefix::new(address, length).context("a reverse prefix")?;
        for zone in ReverseZone::of(prefix, ClasslessName::default()) {
            leaves.push(zonefiles::reverse_zone(&zone, &apex, hosts, Kinds::default()));
        }
    }
    if !by_name.is_empty() {
        let mut example = Zone::new("example.".parse().context("a zone's name")?, &apex);
        for (host, key) in by_name {
            let owner = host_name(host)?;
            let gateway = format!("{host}.example.").parse().context("a gateway's name")?;
            let txt = dnskeys::ServerTxt {
                precedence: 10,
                gateway: dnskeys::TxtGateway::Name(gateway),
                key: Some(key.clone()),
            };
            example.push(zonefiles::Record::x_ipsec_server(owner, apex.ttl, &txt));
        }
        leaves.push(example);
    }
    let addresses = dns.addresses().map(|address| (server.clone(), address));
    Ok(root_chain(leaves, &apex, &addresses))
}

/// Reserved for examples (RFC 6761 §6.5), as the addresses are.
fn host_name(name: &str) -> anyhow::Result<Name> {
    format!("{name}.example.").parse().context("a host name")
}

const DNS_PORT: u16 = 53;
/// Longer than anyone keeps a lab up.
const LIFETIME: Duration = Duration::from_secs(30 * 86_400);

#[cfg(test)]
mod tests {
    use dnskeys::{Outcome, Security};

    use super::super::tests::started;
    use super::super::topology::small_internet;
    use super::*;
    use crate::hostkey::{Bits, HostKey};
    use crate::resolver::{Resolver, ResolverConfig};

    /// What west's resolver finds: a secure key for east, a proof that plain has none, and that
    /// something is wrong with bogus.
    #[test]
    fn each_host_publishes_what_it_should() {
        let Some((_core, hosts)) = started(small_internet()) else { return };
        let [dns, west, east, plain, bogus] = hosts.as_slice() else { unreachable!() };
        let key = HostKey::generate(Bits::Rsa2048).unwrap().public().rsa().unwrap().clone();
        let published: Vec<_> =
            [west, east, bogus].map(|host| (&host.site, key.clone())).into_iter().collect();
        let anchor = serve(dns, &published).unwrap();
        let file = std::env::temp_dir().join(format!("lab-anchor-{}", std::process::id()));
        std::fs::write(&file, anchor).unwrap();

        let servers = dns.site.addresses().map(|address| SocketAddr::new(address, DNS_PORT));
        for server in servers {
            let config = ResolverConfig {
                servers: vec![server],
                trust_anchors: Some(file.clone()),
                ..ResolverConfig::default()
            };
            let asked: Vec<dnskeys::Name> = [east, plain, bogus]
                .iter()
                .flat_map(|host| host.site.addresses().map(dnskeys::Name::reverse))
                .collect();
            let answers = west
                .run(move || {
                    let runtime =
                        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    runtime.block_on(async {
                        let resolver = Resolver::new(&config).unwrap();
                        let mut answers = Vec::new();
                        for name in &asked {
                            answers.push(resolver.answer(name).await);
                        }
                        answers
                    })
                })
                .unwrap();
            for answer in answers.iter().take(2) {
                assert_eq!(answer.security, Security::Secure, "{answer:?}");
                assert!(
                    matches!(&answer.outcome, Outcome::Records(set)
                    if set.malformed.is_empty() && !set.gateways.is_empty()),
                    "{answer:?}"
                );
            }
            for answer in answers.iter().skip(2).take(2) {
                assert_eq!(answer.security, Security::Secure, "{answer:?}");
                assert!(matches!(answer.outcome, Outcome::NoName | Outcome::NoRecord));
            }
            for answer in answers.iter().skip(4) {
                assert_eq!(answer.outcome, Outcome::Bogus, "{answer:?}");
            }
        }
        std::fs::remove_file(file).unwrap();
    }
}
