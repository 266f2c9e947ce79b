//! The DNS host: reverse zones with the nodes' keys, signed, and one host's records broken
//! afterwards.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context as _;
use dnskeys::RsaKey;
use zonefiles::chain::root_chain;
use zonefiles::{Apex, ClasslessName, Kinds, Name, Prefix, ReverseZone, Rtype, SortedZone, Zone};

use super::host::Host;
use super::netns;
use super::topology::{REVERSE_PREFIXES, Role, Site};
use crate::zone::keys::ZoneKeys;
use crate::zone::serve::{Sockets, ZoneServer};
use crate::zone::signed::{ServedZone, make_bogus, sign_zones};

/// Serves, on the DNS host, the zones from the root down to the reverse names of these sites with
/// their keys. Returns the file with the trust anchor.
pub(crate) fn serve(dns: &Host, published: &[(&Site, RsaKey)]) -> anyhow::Result<PathBuf> {
    let zones = zones(&dns.site, published)?;
    let broken: Vec<Name> = published
        .iter()
        .filter(|(site, _)| site.role == Role::Bogus)
        .flat_map(|(site, _)| site.addresses().map(Name::reverse))
        .collect();
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
    let trust_anchor = Path::new(netns::SCRATCH).join("trust-anchor");
    std::fs::write(&trust_anchor, &signed.trust_anchors)?;

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
    Ok(trust_anchor)
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
fn zones(dns: &Site, published: &[(&Site, RsaKey)]) -> anyhow::Result<Vec<Zone>> {
    let server = host_name(&dns.name)?;
    let apex = Apex::new(server.clone(), 1);
    let mut hosts = Vec::new();
    for (site, key) in published {
        let name = host_name(&site.name)?;
        for address in site.addresses() {
            hosts.push(zonefiles::Host::own(address, key.clone()).named(name.clone()));
        }
    }
    let mut leaves = Vec::new();
    for (address, length) in REVERSE_PREFIXES {
        let prefix = Prefix::new(address, length).context("a reverse prefix")?;
        for zone in ReverseZone::of(prefix, ClasslessName::default()) {
            leaves.push(zonefiles::reverse_zone(&zone, &apex, &hosts, Kinds::default()));
        }
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
