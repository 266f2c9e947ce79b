//! Everything that happens to nodes in the field, one after the other and in any order: afterwards all
//! talk to each other again, encrypted, with one pair each and nothing left over. Hosts for themselves,
//! hosts behind gateways, and networks that somebody has connected by hand.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use dnskeys::{Failure, Security};
use keying::{ConnectionState, Group, Groups, KeptTicket, Remembered, Start, StateName};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};

use crate::connection::connection;
use crate::ip;
use crate::net::{Fate, Kind, Link, Net, Seen};
use crate::node::{Host, TestKey, seconds};

const HOSTS: [&str; 5] =
    ["192.0.2.11", "198.51.100.12", "203.0.113.13", "192.0.2.200", "198.51.100.77"];
/// Sends and takes nothing in the clear, whatever happens.
const STRICT: usize = 2;

/// Who talks to whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shape {
    /// Every host to every other.
    Hosts,
    /// Two gateways, each for two hosts, and a host for itself.
    Sites,
    /// Three networks, each connected with both others.
    Connections,
}

impl Shape {
    fn hosts(self) -> usize {
        match self {
            Self::Hosts => HOSTS.len(),
            Self::Sites | Self::Connections => 3,
        }
    }

    /// What sends from a host.
    fn sources(self, host: usize) -> Vec<IpAddr> {
        match self {
            Self::Sites if host < 2 => {
                (0..2).map(|n| ip(&format!("10.{host}.0.{}", n + 1))).collect()
            }
            Self::Hosts | Self::Sites => vec![addr(host)],
            Self::Connections => vec![ip(&format!("10.{host}.0.1"))],
        }
    }

    /// Every host with every other: whence, from what address, to what address.
    fn ways(self) -> Vec<(usize, IpAddr, IpAddr)> {
        let mut ways = Vec::new();
        for from in 0..self.hosts() {
            for to in (0..self.hosts()).filter(|to| *to != from) {
                for source in self.sources(from) {
                    ways.extend(self.sources(to).into_iter().map(|dst| (from, source, dst)));
                }
            }
        }
        ways
    }
}

/// What can happen.
#[derive(Clone, Copy, Debug)]
enum Hardship {
    /// Nothing from or to a host arrives.
    CutOff(usize),
    /// Nothing from one host to another arrives.
    OneWay(usize, usize),
    /// Its ESP is dropped on the way, and its IKE is not.
    EspLost(usize),
    /// The other way round.
    IkeLost(usize),
    /// Everything that can happen to a packet does.
    BadLinks,
    /// Its name servers never answer for it.
    DnsGone(usize),
    /// It loses all it knew and is there again.
    Crash(usize),
    /// The same, with what its disk has kept.
    CrashWithMemory(usize),
    /// It says goodbye, and is back at once.
    Restart(usize),
    /// All lose all they knew.
    PowerCut,
    /// An administrator forgets a destination.
    Forget(usize, usize),
    /// It replaces its key, and publishes the new one before it uses it.
    NewKey(usize),
    /// Groups are read again, and forbid another host for a while.
    Blocked(usize, usize),
    /// Nobody says anything for hours.
    Idle,
}

struct World {
    shape: Shape,
    net: Net,
    rng: ChaCha20Rng,
    /// What is lost, as the wire sees it.
    lost: Rc<RefCell<Option<Hardship>>>,
    keys: [usize; HOSTS.len()],
    round: usize,
}

fn addr(host: usize) -> IpAddr {
    ip(HOSTS[host])
}

fn groups(shape: Shape, host: usize) -> Groups {
    let mut groups = Groups::new();
    groups.set_default(match shape {
        Shape::Connections => Group::Clear,
        Shape::Hosts | Shape::Sites if host == STRICT => Group::Private,
        Shape::Hosts | Shape::Sites => Group::PrivateOrClear,
    });
    groups
}

/// Who calls: the later host of two when it has to, the earlier at once or never.
fn connections(host: usize) -> Vec<keying::Connection> {
    let others = (0..Shape::Connections.hosts()).filter(|other| *other != host);
    let named = others.map(|other| {
        let start = match (host, other) {
            (0, 1) => Start::Now,
            _ if host > other => Start::Trap,
            _ => Start::Accept,
        };
        let (near, far) = (format!("10.{host}.0.0/24"), format!("10.{other}.0.0/24"));
        let mut connection = connection(&[HOSTS[other]], other, &near, &far, start);
        connection.name = format!("to {other}");
        connection
    });
    named.collect()
}

impl World {
    fn new(seed: u64, shape: Shape) -> Self {
        let link = Link { delay_us: 1_000..=60_000, dns_us: 500..=80_000, ..Link::default() };
        let mut net = Net::new(seed, link);
        let lost: Rc<RefCell<Option<Hardship>>> = Rc::default();
        let what = Rc::clone(&lost);
        net.filter(move |_, seen| {
            let lost = what.borrow().is_some_and(|hardship| hardship.loses(seen));
            if lost { Fate::Lost } else { Fate::Link }
        });
        for (host, name) in HOSTS.iter().enumerate().take(shape.hosts()) {
            let mut plain = Host::plain(name);
            let sources = shape.sources(host).into_iter().filter(|source| *source != addr(host));
            match shape {
                Shape::Sites => plain.behind.extend(sources),
                Shape::Hosts | Shape::Connections => plain.addresses.extend(sources),
            }
            net.add(plain);
        }
        let keys = std::array::from_fn(|host| host);
        let rng = ChaCha20Rng::seed_from_u64(seed ^ 0x6f65);
        let mut world = Self { shape, net, rng, lost, keys, round: 0 };
        for host in 0..shape.hosts() {
            world.publish(host);
            world.start(host, Vec::new(), Vec::new());
        }
        world
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.rng.next_u64() % u64::try_from(bound).unwrap()).unwrap()
    }

    fn between(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from * 1000 + self.rng.next_u64() % ((to - from) * 1000))
    }

    fn publish(&mut self, host: usize) {
        let key = TestKey::nth(self.keys[host]).dns();
        for named in self.shape.sources(host).into_iter().chain([addr(host)]) {
            self.net.dns.publish(named, addr(host), Some(key.clone()), Security::Secure);
        }
    }

    fn start(&mut self, host: usize, memory: Vec<Remembered>, tickets: Vec<KeptTicket>) {
        let (seed, now) = (self.net.seed(), self.net.now);
        let secret = [u8::try_from(host).unwrap(); 32];
        let wall = Duration::from_secs(1_800_000_000) + (now - self.net.start);
        let shape = self.shape;
        let served = self.net.hosts[host].behind.iter().map(|a| sa::Prefix::host(*a)).collect();
        self.net.hosts[host].start(self.keys[host], groups(shape, host), seed, now, |config| {
            config.served = served;
            if shape == Shape::Connections {
                config.connections = connections(host);
            }
            config.ike.resumption = true;
            config.ike.ticket_keys = vec![secret.into()];
            config.ike.token_secret = Some(secret.into());
            config.ike.started = wall;
        });
        let node = self.net.hosts[host].node.as_mut().unwrap();
        for ticket in tickets {
            node.keying.handle_ticket(now, ticket);
        }
        self.net.drain(host);
        let node = self.net.hosts[host].node.as_mut().unwrap();
        node.keying.handle_memory(now, memory);
        self.net.drain(host);
    }

    fn crash(&mut self, host: usize, with_memory: bool) {
        let node = self.net.hosts[host].node.as_ref().unwrap();
        let (memory, tickets) = (node.keying.remembered(), node.keying.tickets(self.net.now));
        if with_memory {
            self.start(host, memory, tickets);
        } else {
            self.start(host, Vec::new(), Vec::new());
        }
    }

    fn draw(&mut self) -> Hardship {
        let hosts = self.shape.hosts();
        let host = self.below(hosts);
        let other = (host + 1 + self.below(hosts - 1)) % hosts;
        // Of the last ones those who have it written down know nothing.
        match self.below(if self.shape == Shape::Connections { 11 } else { 14 }) {
            0 => Hardship::CutOff(host),
            1 => Hardship::OneWay(host, other),
            2 => Hardship::EspLost(host),
            3 => Hardship::IkeLost(host),
            4 => Hardship::BadLinks,
            5 => Hardship::Idle,
            6 => Hardship::Crash(host),
            7 => Hardship::CrashWithMemory(host),
            8 => Hardship::Restart(host),
            9 => Hardship::PowerCut,
            10 => Hardship::Forget(host, other),
            11 => Hardship::NewKey(host),
            12 => Hardship::Blocked(host, other),
            _ => Hardship::DnsGone(host),
        }
    }

    /// It happens, for as long as it lasts, while some talk to some.
    fn endure(&mut self, hardship: Hardship) {
        let mut lasts = self.between(1, 400);
        let good = self.net.link.clone();
        match hardship {
            Hardship::CutOff(_)
            | Hardship::OneWay(..)
            | Hardship::EspLost(_)
            | Hardship::IkeLost(_) => *self.lost.borrow_mut() = Some(hardship),
            Hardship::BadLinks => self.net.link = Link::bad(),
            Hardship::DnsGone(host) => {
                for named in self.shape.sources(host).into_iter().chain([addr(host)]) {
                    self.net.dns.failed(named, Failure::Timeout);
                }
            }
            Hardship::Crash(host) => self.crash(host, false),
            Hardship::CrashWithMemory(host) => self.crash(host, true),
            Hardship::Restart(host) => {
                self.net.shutdown(host);
                self.net.run(seconds(1));
                self.crash(host, true);
            }
            Hardship::PowerCut => (0..self.net.hosts.len()).for_each(|host| self.crash(host, true)),
            Hardship::Forget(host, other) => {
                let now = self.net.now;
                let keying = &mut self.net.hosts[host].node.as_mut().unwrap().keying;
                self.shape.sources(other).into_iter().for_each(|to| keying.forget(now, to));
                self.net.drain(host);
            }
            Hardship::NewKey(host) => {
                let used = *self.keys.iter().max().unwrap();
                self.keys[host] = used + 1;
                self.publish(host);
                self.crash(host, true);
            }
            Hardship::Blocked(host, other) => {
                let mut blocked = groups(self.shape, host);
                for to in self.shape.sources(other) {
                    blocked.insert(sa::Prefix::host(to), Group::Block);
                }
                self.reload(host, blocked);
            }
            Hardship::Idle => lasts = self.between(600, 40_000),
        }
        let end = self.net.now + lasts;
        while self.net.now < end {
            if !matches!(hardship, Hardship::Idle) {
                let ways = self.shape.ways();
                let way = ways[self.below(ways.len())];
                self.send(way, "ping meanwhile");
            }
            let pause = self.between(0, 15).min(end - self.net.now);
            self.net.run(pause.max(Duration::from_millis(1)));
        }
        *self.lost.borrow_mut() = None;
        self.net.link = good;
        match hardship {
            Hardship::DnsGone(host) => self.publish(host),
            Hardship::Blocked(host, _) => self.reload(host, groups(self.shape, host)),
            _ => {}
        }
    }

    fn reload(&mut self, host: usize, groups: Groups) {
        let now = self.net.now;
        self.net.hosts[host].node.as_mut().unwrap().keying.handle_groups(now, groups);
        self.net.drain(host);
    }

    fn send(&mut self, (host, source, to): (usize, IpAddr, IpAddr), text: &str) {
        let now = self.net.now;
        self.net.hosts[host].send_from(now, source, to, text);
        self.net.drain(host);
    }

    /// Everybody asks everybody; whether all were answered.
    fn all_talk(&mut self) -> bool {
        self.round += 1;
        for host in &mut self.net.hosts {
            host.inbox.clear();
        }
        let ways = self.shape.ways();
        let word = |n: usize| format!("{} {n}", self.round);
        let words: Vec<String> = (0..ways.len()).map(word).collect();
        for (way, word) in ways.iter().zip(&words) {
            self.send(*way, &format!("ping {word}"));
        }
        self.net.run(seconds(10));
        ways.iter().zip(&words).all(|((host, _, to), word)| {
            self.net.hosts[*host].inbox.contains(&(*to, format!("pong {word}")))
        })
    }

    /// Of each host and each other: keyed, with one pair.
    fn all_keyed(&self) -> bool {
        self.net.hosts.iter().enumerate().all(|(n, host)| {
            let keying = &host.node.as_ref().unwrap().keying;
            if self.shape == Shape::Connections {
                let connections = keying.connections(self.net.now);
                return connections.iter().all(|c| c.state == ConnectionState::Up && c.pairs == 1);
            }
            let ways = self.shape.ways().into_iter().filter(|(from, ..)| *from == n).count();
            let destinations = keying.destinations(self.net.now);
            destinations.len() == ways
                && destinations.iter().all(|d| d.state == StateName::Keyed && d.pairs == 1)
        })
    }

    fn describe(&self) -> String {
        let mut text = String::new();
        for (n, host) in self.net.hosts.iter().enumerate() {
            let keying = &host.node.as_ref().unwrap().keying;
            text += &format!("\n{n}: {} IKE SAs;", keying.peers(self.net.now).len());
            for c in keying.connections(self.net.now) {
                text += &format!(" {}: {:?} ({} pairs),", c.name, c.state, c.pairs);
            }
            for d in keying.destinations(self.net.now) {
                let why = d.reason.map(|why| why.to_string()).unwrap_or_default();
                text += &format!(
                    " {} to {}: {} {why} ({} pairs, {:?}),",
                    d.source,
                    d.destination,
                    d.state.name(),
                    d.pairs,
                    d.expires
                );
            }
        }
        text
    }
}

impl Hardship {
    fn loses(self, seen: &Seen) -> bool {
        let of = |host: usize| seen.from == addr(host) || seen.to == addr(host);
        match self {
            Self::CutOff(host) => of(host),
            Self::OneWay(from, to) => seen.from == addr(from) && seen.to == addr(to),
            Self::EspLost(host) => of(host) && seen.kind == Kind::Esp,
            Self::IkeLost(host) => of(host) && matches!(seen.kind, Kind::Ike { .. }),
            _ => false,
        }
    }
}

/// One life of some hardships.
fn live(seed: u64, shape: Shape, hardships: usize) {
    let mut world = World::new(seed, shape);
    for _ in 0..hardships {
        let hardship = world.draw();
        world.endure(hardship);
        let since = world.net.now;
        while !(world.all_talk() && world.all_keyed()) {
            let waited = world.net.now - since;
            assert!(waited < AT_MOST, "{shape:?} {seed}, {hardship:?}: {}", world.describe());
        }
        if std::env::var("OE_NODE_HARDSHIPS").is_ok() {
            println!("{shape:?} {seed}: {hardship:?}: {:?}", world.net.now - since);
        }
        // Nothing is left over of what it was like.
        world.net.run(LEFT_OVERS_GO);
        // Gateways that called each other for different hosts at once may keep both IKE SAs.
        let each = if shape == Shape::Sites { 2 } else { 1 };
        for host in &world.net.hosts {
            let peers = host.node.as_ref().unwrap().keying.peers(world.net.now).len();
            assert!(
                peers <= each * (shape.hosts() - 1),
                "{shape:?} {seed}, {hardship:?}: {}",
                world.describe()
            );
        }
        let closed: Vec<IpAddr> = match shape {
            Shape::Connections => (0..3).flat_map(|host| shape.sources(host)).collect(),
            Shape::Hosts | Shape::Sites => vec![addr(STRICT)],
        };
        let open = |seen: &&Seen| seen.kind == Kind::Clear && closed.contains(&seen.from);
        let open = world.net.wire.iter().find(open);
        assert_eq!(open, None, "{shape:?} {seed}, {hardship:?}");
        world.net.wire.clear();
    }
}

/// Lives of each shape; `OE_NODE_HARDSHIPS` says how many, and has each hardship told with what it took
/// to get over it.
fn lives(shape: Shape) {
    let asked = std::env::var("OE_NODE_HARDSHIPS").ok().and_then(|n| n.parse().ok());
    let seeds = asked.unwrap_or(if cfg!(debug_assertions) { 3 } else { 40 });
    for seed in 0..seeds {
        live(seed, shape, 10);
    }
}

/// A silent gateway is tried again after as long as it was silent, while packets pass.
const AT_MOST: Duration = Duration::from_secs(480);
/// Time for what was agreed twice to be ended.
const LEFT_OVERS_GO: Duration = Duration::from_secs(240);

#[test]
fn hosts_get_over_whatever_happens() {
    lives(Shape::Hosts);
}

#[test]
fn gateways_get_over_whatever_happens() {
    lives(Shape::Sites);
}

#[test]
fn connections_get_over_whatever_happens() {
    lives(Shape::Connections);
}
