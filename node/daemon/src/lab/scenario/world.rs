//! The pieces of an example: sites behind the core router, hosts behind a site, records, nodes.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use dnskeys::RsaKey;

use super::super::capture::{Capture, Record, Seen};
use super::super::host::Host;
use super::super::internet::Internet;
use super::super::node::{Children, More, Node, Resolver};
use super::super::progress::Progress;
use super::super::topology::{Role, Site};
use super::super::traffic::{self, Echo, Pinger};
use super::super::{keys, links, names, netns};
use crate::hostkey::Bits;

/// A site, and behind whom it lives; nobody is the core router.
pub(super) struct Place {
    pub(super) site: Site,
    pub(super) behind: Option<&'static str>,
}

/// A place on the Internet.
pub(super) fn site(name: &str, role: Role, v4: [u8; 4], v6: [u16; 2]) -> Place {
    Place { site: make(name, role, v4, v6), behind: None }
}

/// The DNS host, and a site for each of these at an uplink of its own: three at most.
pub(super) fn sites(named: &[(&str, Role)]) -> Vec<Place> {
    let dns = site("dns", Role::Names, [203, 0, 113, 53], [0x53, 0x53]);
    let there = named.iter().zip(UPLINKS);
    let there = there.map(|((name, role), (v4, v6))| site(name, *role, v4, v6));
    std::iter::once(dns).chain(there).collect()
}

/// A place behind another: on a subnet of its own there.
pub(super) fn behind(
    gateway: &'static str,
    name: &str,
    role: Role,
    v4: [u8; 4],
    v6: [u16; 2],
) -> Place {
    Place { site: make(name, role, v4, v6), behind: Some(gateway) }
}

fn make(name: &str, role: Role, v4: [u8; 4], [subnet, host]: [u16; 2]) -> Site {
    let v6 = Ipv6Addr::new(0x2001, 0xdb8, subnet, 0, 0, 0, 0, host);
    Site::new(name, role, Ipv4Addr::from(v4), SUBNET, v6)
}

/// A record: for whom, who speaks, with whose key, how strongly.
pub(super) struct Publication {
    pub(super) owner: &'static str,
    pub(super) gateway: &'static str,
    pub(super) precedence: u16,
}

impl Publication {
    /// Of who speaks for itself.
    pub(super) fn own(owner: &'static str) -> Self {
        Self::of(owner, owner)
    }

    /// Of who has one gateway.
    pub(super) fn of(owner: &'static str, gateway: &'static str) -> Self {
        Self { owner, gateway, precedence: 10 }
    }
}

/// An example at work.
pub(super) struct World {
    pub(super) internet: Internet,
    plaintext: String,
    keys: Vec<(String, RsaKey)>,
    resolver: Option<Resolver>,
}

impl World {
    /// Makes the places and joins them, each behind whom it lives behind.
    pub(super) fn build(
        places: Vec<Place>,
        children: Children,
        progress: &mut Progress,
    ) -> anyhow::Result<Self> {
        progress.begin("making namespaces and joining them");
        let outer: Vec<Site> =
            places.iter().filter(|p| p.behind.is_none()).map(|p| p.site.clone()).collect();
        let mut internet = Internet::build(&outer, children)?;
        // In their order: whoever others live behind stands before them.
        for gateway in places.iter().map(|p| &p.site.name) {
            let inner: Vec<&Place> =
                places.iter().filter(|p| p.behind == Some(gateway.as_str())).collect();
            if inner.is_empty() {
                continue;
            }
            let hosts = inner
                .iter()
                .map(|place| Host::start(place.site.clone()))
                .collect::<io::Result<Vec<Host>>>()
                .context("cannot make a network namespace")?;
            let at = internet.named(gateway)?;
            links::join(at, &hosts).context("cannot join the namespaces")?;
            for host in &hosts {
                host.run(traffic::serve_echo)?.context("cannot start the echo service")?;
                // What is private ends at the NAT before it.
                let public = !host.site.v4.is_private() && !is_shared(host.site.v4);
                for (network, length, via) in ways(&host.site, &at.site) {
                    if public {
                        links::route(&internet.core, network, length, via)?;
                    }
                }
            }
            internet.hosts.extend(hosts);
        }
        let plaintext = format!(
            "oe-node lab plaintext {:08x}{:032x} ",
            std::process::id(),
            traffic::since_epoch().as_nanos()
        );
        Ok(Self { internet, plaintext, keys: Vec::new(), resolver: None })
    }

    /// Makes keys for these hosts, and serves these records.
    pub(super) fn publish(
        &mut self,
        keys_for: &[&str],
        records: &[Publication],
        progress: &mut Progress,
    ) -> anyhow::Result<()> {
        self.publish_with(keys_for, records, &[], progress)
    }

    /// The same, with records of who is known by name only.
    pub(super) fn publish_with(
        &mut self,
        keys_for: &[&str],
        records: &[Publication],
        by_name: &[&str],
        progress: &mut Progress,
    ) -> anyhow::Result<()> {
        progress.begin("making host keys");
        let wanted: Vec<String> = keys_for.iter().map(|name| (*name).to_owned()).collect();
        let made = keys::make(&wanted, Bits::Rsa2048).context("cannot make host keys")?;
        self.keys = wanted.into_iter().zip(made).collect();
        progress.begin("signing the reverse zones and serving them");
        let mut hosts = Vec::new();
        for record in records {
            let owner = &self.internet.named(record.owner)?.site;
            let gateway = &self.internet.named(record.gateway)?.site;
            let key = self.key(record.gateway)?;
            for (address, by) in owner.addresses().into_iter().zip(gateway.addresses()) {
                let host = zonefiles::Host::own(address, key.clone()).behind(by, key.clone());
                hosts.push(zonefiles::Host { precedence: record.precedence, ..host });
            }
        }
        let own_key = |name: &&str| Ok(((*name).to_owned(), self.key(name)?.clone()));
        let by_name = by_name.iter().map(own_key).collect::<anyhow::Result<Vec<_>>>()?;
        let dns = self.internet.host(Role::Names).context("no DNS host")?;
        let trust_anchor = Path::new(netns::SCRATCH).join("trust-anchor");
        fs::write(&trust_anchor, names::serve_hosts(dns, &hosts, &by_name, &[])?)?;
        let address = format!("{}:53", dns.site.v4);
        self.resolver = Some(Resolver { address, trust_anchor });
        Ok(())
    }

    fn key(&self, name: &str) -> anyhow::Result<&RsaKey> {
        let found = self.keys.iter().find(|(owner, _)| owner == name);
        found.map(|(_, key)| key).with_context(|| format!("no key for {name}"))
    }

    /// A file with the public half of a host's key.
    pub(super) fn public_key(&self, name: &str) -> anyhow::Result<String> {
        let file = Path::new(netns::SCRATCH).join(format!("{name}.pub"));
        fs::write(&file, self.key(name)?.to_base64())?;
        Ok(file.display().to_string())
    }

    /// Starts a node on a host, with these tables in its configuration.
    pub(super) fn start(&mut self, name: &str, tables: &str) -> anyhow::Result<()> {
        self.start_more(name, &More { tables, ..More::default() })
    }

    /// Starts a node that calls by name.
    pub(super) fn start_named(&mut self, name: &str) -> anyhow::Result<()> {
        let identity = format!("@{name}.example");
        self.start_more(name, &More { identity: Some(&identity), ..More::default() })
    }

    fn start_more(&mut self, name: &str, more: &More<'_>) -> anyhow::Result<()> {
        let resolver = self.resolver.as_ref().context("nobody serves DNS yet")?;
        let host = self.internet.named(name)?;
        let children = self.internet.children();
        let node = Node::start_with(host, resolver, more, children)
            .with_context(|| format!("cannot start a node on {name}"))?;
        node.await_ready(children, START_PATIENCE)?;
        self.internet.nodes.retain(|node| node.name != name);
        self.internet.nodes.push(node);
        Ok(())
    }

    /// Ends a node as a crash would.
    pub(super) fn kill(&self, name: &str) -> anyhow::Result<()> {
        let node = self.internet.nodes.iter().find(|node| node.name == name);
        let node = node.with_context(|| format!("no node on {name}"))?;
        self.internet.children().kill(node.pid);
        Ok(())
    }

    /// Watches the wire at the core.
    pub(super) fn watch(&self, pcap: Option<File>) -> anyhow::Result<Capture> {
        self.internet.watch(self.plaintext.as_bytes(), pcap)
    }

    /// Whether an echo request from one host is answered by another, and how fast. Sent once.
    pub(super) fn ping(
        &self,
        from: &str,
        to: IpAddr,
        patience: Duration,
    ) -> anyhow::Result<Option<Duration>> {
        let (payload, host) = (self.plaintext.clone().into_bytes(), self.internet.named(from)?);
        let echo = host.run(move || Pinger::new(to, IDENTIFIER)?.ping(1, &payload, patience))??;
        Ok(echo.answered)
    }

    /// Which of some addresses answer an echo request, all sent at once. What the kernel itself
    /// refuses is not answered.
    pub(super) fn who_answers(
        &self,
        from: &str,
        to: &[IpAddr],
        patience: Duration,
    ) -> anyhow::Result<Vec<bool>> {
        let host = self.internet.named(from)?;
        let start = |to: &IpAddr| {
            let (to, payload) = (*to, self.plaintext.clone().into_bytes());
            host.start_job(move || Pinger::new(to, IDENTIFIER)?.ping(1, &payload, patience))
        };
        let jobs = to.iter().map(start).collect::<io::Result<Vec<_>>>()?;
        let answered = |echo| matches!(echo, Ok(Ok(Echo { answered: Some(_), .. })));
        Ok(jobs.into_iter().map(|job| answered(job.join())).collect())
    }

    /// Whether both families' addresses of a host answer another's first packet.
    pub(super) fn pings(&self, from: &str, to: &str) -> anyhow::Result<bool> {
        let mut all = true;
        for address in self.internet.named(to)?.site.addresses() {
            all &= self.ping(from, address, PATIENCE)?.is_some();
        }
        Ok(all)
    }

    /// Whether a quarter of a MiB there and back arrives unchanged, over both families.
    pub(super) fn transfers(&self, from: &str, to: &str) -> anyhow::Result<bool> {
        let mut all = true;
        for address in self.internet.named(to)?.site.addresses() {
            let pattern = self.plaintext.clone().into_bytes();
            let done = self
                .internet
                .named(from)?
                .run(move || traffic::transfer(address, 256 << 10, &pattern, PATIENCE))?;
            all &= done.is_ok();
        }
        Ok(all)
    }

    /// Pings until there is an answer; how long that took.
    pub(super) fn until_answered(
        &self,
        from: &str,
        to: IpAddr,
        patience: Duration,
    ) -> anyhow::Result<Option<Duration>> {
        let start = Instant::now();
        while start.elapsed() < patience {
            if self.ping(from, to, Duration::from_millis(300))?.is_some() {
                return Ok(Some(start.elapsed()));
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(None)
    }

    /// The addresses of a host.
    pub(super) fn addresses(&self, name: &str) -> anyhow::Result<[IpAddr; 2]> {
        Ok(self.internet.named(name)?.site.addresses())
    }

    /// Position of a host among those that the core sees.
    pub(super) fn position(&self, name: &str) -> anyhow::Result<usize> {
        let at = self.internet.hosts.iter().position(|host| host.site.name == name);
        at.with_context(|| format!("no host {name}"))
    }

    /// From now on the core sends what is for a host by somebody else.
    pub(super) fn reroute(&self, host: &str, by: [IpAddr; 2]) -> anyhow::Result<()> {
        let (host, mut by_site) =
            (&self.internet.named(host)?.site, self.internet.core.site.clone());
        for address in by {
            match address {
                IpAddr::V4(address) => by_site.v4 = address,
                IpAddr::V6(address) => by_site.v6 = address,
            }
        }
        for (network, length, via) in ways(host, &by_site) {
            links::route(&self.internet.core, network, length, via)?;
        }
        Ok(())
    }

    /// Makes a host a NAT for all that lives behind it.
    pub(super) fn masquerade(&self, name: &str) -> anyhow::Result<()> {
        let host = self.internet.named(name)?;
        let done = host.run(|| {
            let mut command = Command::new("nft");
            command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null());
            let mut child = command.stderr(Stdio::null()).spawn()?;
            if let Some(mut rules) = child.stdin.take() {
                rules.write_all(MASQUERADE.as_bytes())?;
            }
            child.wait()
        })?;
        match done {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => anyhow::bail!("nft could not set up a NAT ({status})"),
            Err(error) => anyhow::bail!("nft is needed to set up a NAT: {error}"),
        }
    }

    /// A quarter of a MiB there and back from several hosts at the same time; whether all arrived
    /// unchanged.
    pub(super) fn transfers_at_once(&self, from: &[&str], to: IpAddr) -> anyhow::Result<bool> {
        let mut jobs = Vec::new();
        for name in from {
            let pattern = self.plaintext.clone().into_bytes();
            let job = move || traffic::transfer(to, 256 << 10, &pattern, PATIENCE);
            jobs.push(self.internet.named(name)?.start_job(job)?);
        }
        let done = jobs.into_iter().map(|job| matches!(job.join(), Ok(Ok(_))));
        Ok(done.fold(true, |all, one| all & one))
    }

    /// What a node says of all its destinations.
    pub(super) fn status(&self, name: &str) -> anyhow::Result<serde_json::Value> {
        let node = self.internet.nodes.iter().find(|node| node.name == name);
        node.with_context(|| format!("no node on {name}"))?.status()
    }
}

/// Between a carrier and its customers (RFC 6598).
fn is_shared(address: Ipv4Addr) -> bool {
    matches!(address.octets(), [100, 64..=127, ..])
}

/// How the core gets to a host behind a gateway.
fn ways(host: &Site, gateway: &Site) -> [(IpAddr, u8, IpAddr); 2] {
    let v6 = u128::from(host.v6) & (u128::MAX << 64);
    let v4 = u32::from(host.v4) & u32::MAX.checked_shl(32 - u32::from(SUBNET)).unwrap_or(0);
    [
        (Ipv4Addr::from(v4).into(), SUBNET, gateway.v4.into()),
        (Ipv6Addr::from(v6).into(), 64, gateway.v6.into()),
    ]
}

/// Packets that the core saw and anybody could read, between two hosts.
pub(super) fn in_clear<'a>(
    record: &'a Record,
    one: &'a [IpAddr],
    other: &'a [IpAddr],
) -> impl Iterator<Item = &'a Seen> {
    let pairs = one.iter().flat_map(move |a| other.iter().map(move |b| (*a, *b)));
    pairs.flat_map(|(a, b)| record.between(a, b)).filter(|seen| seen.packet.kind.is_clear())
}

/// ESP packets that the core saw between two hosts.
pub(super) fn esp(record: &Record, one: &[IpAddr], other: &[IpAddr]) -> usize {
    use super::super::wire::Kind;
    let pairs = one.iter().flat_map(|a| other.iter().map(move |b| (*a, *b)));
    pairs
        .flat_map(|(a, b)| record.between(a, b))
        .filter(|seen| matches!(seen.packet.kind, Kind::Esp { .. }))
        .count()
}

/// Where sites are.
const UPLINKS: [([u8; 4], [u16; 2]); 3] = [
    ([192, 0, 2, 11], [1, 0x11]),
    ([198, 51, 100, 22], [2, 0x22]),
    ([203, 0, 113, 133], [3, 0x33]),
];
/// The prefix length of every IPv4 subnet here.
const SUBNET: u8 = 28;
/// Whatever leaves by the first interface leaves as if from there (RFC 3022 §2.2).
const MASQUERADE: &str = "table ip nat {\n chain out {\n  type nat hook postrouting priority \
                          srcnat;\n  oifname \"eth0\" masquerade\n }\n}\n";
const IDENTIFIER: u16 = 0x6f66;
/// Starting takes milliseconds, but the machine may be busy.
const START_PATIENCE: Duration = Duration::from_secs(20);
/// For an answer that should come: a negotiation, on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// For an answer that should not come: longer than a negotiation takes.
pub(super) const REFUSED: Duration = Duration::from_millis(1600);
