//! Who lives where, and who talks to whom.

use std::net::IpAddr;
use std::time::Duration;

use dnskeys::{Gateway, Name, Outcome, RecordSet, Security};
use keying::{Connection, Group, Groups, RemoteKeys, Start};
use sa::{Mode, Prefix};

use crate::connection::connection;
use crate::dns::{Dns, records};
use crate::ip;
use crate::net::Net;
use crate::node::{Host, TestKey};

const HOSTS: [&str; 5] =
    ["192.0.2.11", "198.51.100.12", "203.0.113.13", "192.0.2.200", "198.51.100.77"];
/// Sends and takes nothing in the clear, whatever happens.
const STRICT: usize = 2;

/// What a host behind a NAT has for an address, like all the others.
const INNER: [&str; 2] = ["192.168.1.10", "192.168.1.77"];
/// The addresses of NATs: the first three at the start.
const NATS: [&str; 6] = [
    "198.51.100.1",
    "198.51.100.2",
    "198.51.100.3",
    "203.0.113.101",
    "203.0.113.102",
    "203.0.113.103",
];
/// What servers lend to those who call by name.
const POOLS: [&str; 4] = ["10.99.0.0/24", "10.98.0.0/24", "10.97.0.0/24", "10.96.0.0/24"];
/// The first of the servers.
const SERVER: usize = 3;

/// What headquarters lend, and the hosts at home that have it.
const LENT: &str = "192.0.2.128/28";
const BORROWERS: [&str; 2] = ["192.0.2.129", "192.0.2.130"];
const HQ: usize = 0;
const HOME: usize = 1;
/// Publishes nothing, and runs nothing.
const PLAIN: usize = 3;

/// The second addresses of hosts with two uplinks, or of networks with two links.
const SECONDS: [&str; 3] = ["192.0.2.111", "198.51.100.112", "203.0.113.113"];

/// Who talks to whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    /// Every host to every other.
    Hosts,
    /// Two gateways, each for two hosts, and a host for itself.
    Sites,
    /// Three networks, each connected with both others.
    Connections,
    /// Two hosts behind one NAT or another and one behind a third, and two servers with pools.
    Nats,
    /// A site behind a NAT with addresses that headquarters lend to it, which encrypt for them with a
    /// host elsewhere, and another host that knows nothing of all this.
    Extruded,
    /// Hosts that go by inner addresses and have two outer ones, one at a time.
    Uplinks,
    /// Two networks with two links.
    Links,
}

/// From which host, from what address, to what address.
pub(super) type Way = (usize, IpAddr, IpAddr);

impl Shape {
    pub(super) fn hosts(self) -> usize {
        match self {
            Self::Hosts | Self::Nats => 5,
            Self::Sites | Self::Connections | Self::Uplinks => 3,
            Self::Extruded => 4,
            Self::Links => 2,
        }
    }

    /// Those that run a node.
    pub(super) fn nodes(self) -> usize {
        if self == Self::Extruded { PLAIN } else { self.hosts() }
    }

    /// The NAT before a host at the start.
    pub(super) fn nat(self, host: usize) -> Option<usize> {
        match (self, host) {
            (Self::Nats, 0 | 1) | (Self::Extruded, HOME) => Some(0),
            (Self::Nats, STRICT) => Some(2),
            _ => None,
        }
    }

    /// The other NAT that a host may come to be behind: not one with others that are less strict.
    pub(super) fn other_nat(self, host: usize, nat: usize) -> Option<usize> {
        (self == Self::Nats && host < STRICT).then(|| 1 - nat)
    }

    pub(super) fn nats(self) -> usize {
        match self {
            Self::Nats => 3,
            Self::Extruded => 1,
            _ => 0,
        }
    }

    /// The address of a NAT that has changed it so often.
    pub(super) fn nat_address(nat: usize, times: usize) -> IpAddr {
        ip(NATS[nat + times % 2 * 3])
    }

    /// The host's own address, if it has changed it so often.
    pub(super) fn address(self, host: usize, times: usize) -> IpAddr {
        match (self, self.nat(host)) {
            (_, Some(_)) => ip(INNER[times % 2]),
            (Self::Uplinks, _) if times % 2 == 1 => ip(SECONDS[host]),
            _ => ip(HOSTS[host]),
        }
    }

    /// All addresses of a host by which others may see it.
    pub(super) fn outer(self, host: usize) -> Vec<IpAddr> {
        match (self, self.nat(host)) {
            (_, Some(nat)) => {
                let nats = [Some(nat), self.other_nat(host, nat)];
                let both = |nat| [0, 1].map(|times| Self::nat_address(nat, times));
                nats.into_iter().flatten().flat_map(both).collect()
            }
            (Self::Uplinks | Self::Links, _) => vec![ip(HOSTS[host]), ip(SECONDS[host])],
            _ => vec![ip(HOSTS[host])],
        }
    }

    /// What sends from a host.
    pub(super) fn sources(self, host: usize) -> Vec<IpAddr> {
        match self {
            Self::Sites if host < 2 => {
                (0..2).map(|n| ip(&format!("10.{host}.0.{}", n + 1))).collect()
            }
            Self::Extruded if host == HOME => BORROWERS.map(ip).into(),
            Self::Connections => vec![ip(&format!("10.{host}.0.1"))],
            Self::Links => (1..=4).map(|n| ip(&format!("10.{host}.0.{n}"))).collect(),
            Self::Uplinks => vec![ip(&format!("2001:db8:{host}::11"))],
            Self::Hosts | Self::Sites | Self::Extruded | Self::Nats => vec![ip(HOSTS[host])],
        }
    }

    /// Every host with every other, but for those behind NATs, of which servers have to learn the
    /// address first.
    pub(super) fn ways(self, own: impl Fn(usize) -> IpAddr) -> Vec<Way> {
        let mut ways = Vec::new();
        for from in 0..self.hosts() {
            for to in (0..self.hosts()).filter(|to| *to != from) {
                let unknown = self == Self::Nats && to < SERVER;
                let closed = self == Self::Extruded && [from, to].iter().all(|h| *h >= STRICT);
                if unknown || closed {
                    continue;
                }
                let natted = self == Self::Nats && from < SERVER;
                let sources = if natted { vec![own(from)] } else { self.sources(from) };
                for source in sources {
                    ways.extend(self.sources(to).into_iter().map(|dst| (from, source, dst)));
                }
            }
        }
        ways
    }

    /// The flows that a host is to have pairs for, but for those that are known once they are there.
    pub(super) fn keyed(self, host: usize, ways: &[Way]) -> Vec<(IpAddr, IpAddr)> {
        let own = ways.iter().filter(|(from, ..)| *from == host).map(|(_, src, dst)| (*src, *dst));
        match (self, host) {
            (Self::Connections | Self::Links, _) | (Self::Extruded, HOME | PLAIN) => Vec::new(),
            (Self::Extruded, _) => {
                // Headquarters speak for the addresses that they lend.
                let all = ways.iter().filter(|(from, ..)| *from == host || host == HQ);
                let flows = all.map(|(_, src, dst)| (*src, *dst));
                let lent = |addr: &IpAddr| BORROWERS.map(ip).contains(addr);
                let here = |src: &IpAddr| *src == ip(HOSTS[host]) || (host == HQ && lent(src));
                let far = |dst: &IpAddr| {
                    *dst != ip(HOSTS[PLAIN])
                        && *dst != ip(HOSTS[host])
                        && (host != HQ || !lent(dst))
                };
                flows.filter(|(src, dst)| here(src) && far(dst)).collect()
            }
            _ => own.collect(),
        }
    }

    /// The addresses on the wire from which nothing may be in the clear.
    pub(super) fn closed(self) -> Vec<IpAddr> {
        match self {
            Self::Connections | Self::Links => {
                (0..self.hosts()).flat_map(|host| self.sources(host)).collect()
            }
            Self::Nats => [ip(HOSTS[4])].into_iter().chain(self.outer(STRICT)).collect(),
            Self::Extruded => self.outer(STRICT).into_iter().chain(self.outer(HOME)).collect(),
            Self::Hosts | Self::Sites | Self::Uplinks => {
                self.outer(STRICT).into_iter().chain(self.sources(STRICT)).collect()
            }
        }
    }

    pub(super) fn is_strict(self, host: usize) -> bool {
        match self {
            Self::Nats => host == STRICT || host == 4,
            Self::Connections | Self::Links => false,
            _ => host == STRICT,
        }
    }

    pub(super) fn groups(self, host: usize, pools: usize) -> Groups {
        let mut groups = Groups::new();
        groups.set_default(match self {
            Self::Connections | Self::Links => Group::Clear,
            _ if self.is_strict(host) => Group::Private,
            _ => Group::PrivateOrClear,
        });
        // That one is known to be of no use.
        if self == Self::Extruded && self.is_strict(host) {
            groups.insert(Prefix::host(ip(HOSTS[PLAIN])), Group::Block);
        }
        for prefix in self.pool(host, pools) {
            groups.set_pool(prefix).unwrap();
        }
        groups
    }

    /// What a host lends, if that has changed so often.
    pub(super) fn pool(self, host: usize, times: usize) -> Vec<Prefix> {
        let lends = self == Self::Nats && host >= SERVER;
        let prefix = || POOLS[host - SERVER + times % 2 * 2].parse().unwrap();
        if lends { vec![prefix()] } else { Vec::new() }
    }

    pub(super) fn served(self, host: usize) -> Vec<Prefix> {
        match self {
            Self::Sites if host < 2 => self.sources(host).into_iter().map(Prefix::host).collect(),
            Self::Extruded if host == HQ => vec![LENT.parse().unwrap()],
            _ => Vec::new(),
        }
    }

    /// The addresses that others reach by a host's node.
    pub(super) fn spoken_for(self, host: usize) -> Vec<IpAddr> {
        let mut all = self.sources(host);
        if self == Self::Extruded && host == HQ {
            all.extend(BORROWERS.map(ip));
        }
        all
    }

    /// The name that a host calls by.
    pub(super) fn identity(self, host: usize) -> Option<ike::Identity> {
        self.nat(host).map(|_| ike::Identity::Fqdn(format!("host{host}.example")))
    }

    /// Who calls: the later host of two when it has to, the earlier at once or never.
    pub(super) fn connections(self, host: usize) -> Vec<Connection> {
        match self {
            Self::Connections => (0..self.hosts())
                .filter(|other| *other != host)
                .map(|other| {
                    let start = match (host, other) {
                        (0, 1) => Start::Now,
                        _ if host > other => Start::Trap,
                        _ => Start::Accept,
                    };
                    let (near, far) = (format!("10.{host}.0.0/24"), format!("10.{other}.0.0/24"));
                    let connection = connection(&[HOSTS[other]], other, &near, &far, start);
                    Connection { name: format!("to {other}"), ..connection }
                })
                .collect(),
            Self::Links => {
                let other = 1 - host;
                let (near, far) = (format!("10.{host}.0.0/24"), format!("10.{other}.0.0/24"));
                let starts = [[Start::Now, Start::Trap], [Start::Accept, Start::Now]];
                let link = |n: usize| {
                    let [near_end, far_end] = [host, other].map(|host| [HOSTS, SECONDS2][n][host]);
                    let connection = connection(&[far_end], other, &near, &far, starts[host][n]);
                    let local_address = Some(ip(near_end));
                    Connection { name: format!("link {n}"), local_address, ..connection }
                };
                (0..2).map(link).collect()
            }
            Self::Extruded if host == HQ || host == HOME => vec![self.lending(host)],
            _ => Vec::new(),
        }
    }

    /// As `[[extrude]]` and `[[borrow]]` make them.
    fn lending(self, host: usize) -> Connection {
        let (lent, all) = (LENT.parse().unwrap(), Prefix::ALL_V4);
        let key = |n: usize| RemoteKeys::Known(vec![TestKey::nth(n).ike().into()]);
        let home = Connection {
            name: "hq".to_owned(),
            gateways: vec![ip(HOSTS[HQ])],
            local_address: None,
            local_identity: None,
            remote_identity: None,
            remote_keys: key(HQ),
            local_subnets: vec![lent],
            remote_subnets: vec![all],
            mode: Mode::Tunnel,
            start: Start::Now,
        };
        if host == HOME {
            return home;
        }
        Connection {
            name: "home".to_owned(),
            gateways: Vec::new(),
            remote_identity: self.identity(HOME),
            remote_keys: key(HOME),
            local_subnets: vec![all],
            remote_subnets: vec![lent],
            start: Start::Accept,
            ..home
        }
    }

    /// The addresses that a host has, if it has changed its own so often.
    pub(super) fn addresses(self, host: usize, times: usize) -> Vec<IpAddr> {
        let own = self.address(host, times);
        let inner = match self {
            Self::Connections | Self::Uplinks => self.sources(host),
            Self::Links => {
                let second = ip(SECONDS[host]);
                [second].into_iter().chain(self.sources(host)).collect()
            }
            _ => Vec::new(),
        };
        [own].into_iter().chain(inner).collect()
    }

    /// A host without a node.
    pub(super) fn host(self, host: usize) -> Host {
        let mut plain = Host::plain(HOSTS[host]);
        plain.addresses = self.addresses(host, 0);
        match self {
            Self::Sites if host < 2 => plain.behind = self.sources(host),
            Self::Extruded if host == HOME => plain.behind = self.sources(host),
            Self::Extruded if host == HQ => plain.onward = self.sources(HOME),
            _ => {}
        }
        plain
    }

    /// What a host publishes, and what it is then.
    pub(super) fn records(self, host: usize, key: usize) -> Vec<(Name, RecordSet)> {
        let key = Some(TestKey::nth(key).dns());
        if let Some(ike::Identity::Fqdn(name)) = self.identity(host) {
            let name: Name = name.parse().unwrap();
            let mut set = records(&[(10, ip(INNER[0]), key)]);
            set.gateways[0].gateway = Gateway::Name(name.clone());
            return vec![(name, set)];
        }
        let own = ip(HOSTS[host]);
        let of = |named: IpAddr, gateways: &[IpAddr]| {
            let all: Vec<_> = gateways.iter().map(|gateway| (10, *gateway, key.clone())).collect();
            (Name::reverse(named), records(&all))
        };
        match self {
            Self::Uplinks => {
                let outer = self.outer(host);
                let mut all: Vec<_> = outer.iter().map(|addr| of(*addr, &[*addr])).collect();
                all.extend(self.sources(host).into_iter().map(|inner| of(inner, &outer)));
                all
            }
            Self::Extruded if host == PLAIN => Vec::new(),
            Self::Extruded if host == HQ => {
                let lent = BORROWERS.map(ip);
                [own].into_iter().chain(lent).map(|named| of(named, &[own])).collect()
            }
            _ => self.sources(host).into_iter().chain([own]).map(|n| of(n, &[own])).collect(),
        }
    }

    pub(super) fn publish(self, dns: &mut Dns, host: usize, key: usize) {
        for (name, set) in self.records(host, key) {
            dns.set_name(name, Security::Secure, Outcome::Records(set));
        }
    }

    /// Puts hosts behind their NATs.
    pub(super) fn lay_nats(self, net: &mut Net) {
        for nat in 0..self.nats() {
            let inside: Vec<usize> =
                (0..self.hosts()).filter(|host| self.nat(*host) == Some(nat)).collect();
            net.nat(Self::nat_address(nat, 0), &inside);
            net.forget_unused_ports(nat, FORGETFUL);
        }
    }

    /// Whether DNS has a say in what becomes of a host.
    pub(super) fn is_opportunistic(self, host: usize) -> bool {
        match self {
            Self::Connections | Self::Links => false,
            Self::Extruded => host == HQ || host == STRICT,
            _ => true,
        }
    }

    /// Whether somebody has a host's key written down.
    pub(super) fn is_written_down(self, host: usize) -> bool {
        matches!((self, host), (Self::Connections | Self::Links, _) | (Self::Extruded, HQ | HOME))
    }

    /// IKE SAs of a host when all is as it should be, at the most.
    pub(super) fn most_peers(self, host: usize) -> usize {
        match (self, host) {
            // Gateways that called each other for different hosts at once may keep both IKE SAs.
            (Self::Sites, _) => 4,
            (Self::Extruded, HQ) => 3,
            (Self::Extruded, HOME) => 1,
            (Self::Extruded, _) => 2,
            (Self::Nats, host) if host < SERVER => 2,
            (Self::Links, _) => 2,
            _ => self.hosts() - 1,
        }
    }
}

const SECONDS2: [&str; 5] = [SECONDS[0], SECONDS[1], SECONDS[2], "", ""];
/// Many NATs forget as soon (RFC 4787 §4.3 wants five minutes).
const FORGETFUL: Duration = Duration::from_secs(60);
