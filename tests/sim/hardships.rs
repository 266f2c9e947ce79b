//! Everything that happens to nodes in the field, one after the other and in any order: afterwards all
//! talk to each other again, encrypted, with one pair each and nothing left over.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use dnskeys::{Failure, Security};
use keying::{Group, Groups, KeptTicket, Remembered, StateName};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};

use crate::ip;
use crate::net::{Fate, Kind, Link, Net, Seen};
use crate::node::{Host, TestKey, seconds};

const HOSTS: [&str; 5] =
    ["192.0.2.11", "198.51.100.12", "203.0.113.13", "192.0.2.200", "198.51.100.77"];
/// Sends and takes nothing in the clear, whatever happens.
const STRICT: usize = 2;

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

fn groups(host: usize) -> Groups {
    let mut groups = Groups::new();
    groups.set_default(if host == STRICT { Group::Private } else { Group::PrivateOrClear });
    groups
}

impl World {
    fn new(seed: u64) -> Self {
        let link = Link { delay_us: 1_000..=60_000, dns_us: 500..=80_000, ..Link::default() };
        let mut net = Net::new(seed, link);
        let lost: Rc<RefCell<Option<Hardship>>> = Rc::default();
        let what = Rc::clone(&lost);
        net.filter(move |_, seen| {
            let lost = what.borrow().is_some_and(|hardship| hardship.loses(seen));
            if lost { Fate::Lost } else { Fate::Link }
        });
        for name in HOSTS {
            net.add(Host::plain(name));
        }
        let keys = std::array::from_fn(|host| host);
        let rng = ChaCha20Rng::seed_from_u64(seed ^ 0x6f65);
        let mut world = Self { net, rng, lost, keys, round: 0 };
        for host in 0..HOSTS.len() {
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
        self.net.dns.publish(addr(host), addr(host), Some(key), Security::Secure);
    }

    fn start(&mut self, host: usize, memory: Vec<Remembered>, tickets: Vec<KeptTicket>) {
        let (seed, now) = (self.net.seed(), self.net.now);
        let secret = [u8::try_from(host).unwrap(); 32];
        let wall = Duration::from_secs(1_800_000_000) + (now - self.net.start);
        self.net.hosts[host].start(self.keys[host], groups(host), seed, now, |config| {
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
        let host = self.below(HOSTS.len());
        let other = (host + 1 + self.below(HOSTS.len() - 1)) % HOSTS.len();
        match self.below(14) {
            0 => Hardship::CutOff(host),
            1 => Hardship::OneWay(host, other),
            2 => Hardship::EspLost(host),
            3 => Hardship::IkeLost(host),
            4 => Hardship::BadLinks,
            5 => Hardship::DnsGone(host),
            6 => Hardship::Crash(host),
            7 => Hardship::CrashWithMemory(host),
            8 => Hardship::Restart(host),
            9 => Hardship::PowerCut,
            10 => Hardship::Forget(host, other),
            11 => Hardship::NewKey(host),
            12 => Hardship::Blocked(host, other),
            _ => Hardship::Idle,
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
            Hardship::DnsGone(host) => self.net.dns.failed(addr(host), Failure::Timeout),
            Hardship::Crash(host) => self.crash(host, false),
            Hardship::CrashWithMemory(host) => self.crash(host, true),
            Hardship::Restart(host) => {
                self.net.shutdown(host);
                self.net.run(seconds(1));
                self.crash(host, true);
            }
            Hardship::PowerCut => (0..HOSTS.len()).for_each(|host| self.crash(host, true)),
            Hardship::Forget(host, other) => {
                let now = self.net.now;
                self.net.hosts[host].node.as_mut().unwrap().keying.forget(now, addr(other));
                self.net.drain(host);
            }
            Hardship::NewKey(host) => {
                let used = *self.keys.iter().max().unwrap();
                self.keys[host] = used + 1;
                self.publish(host);
                self.crash(host, true);
            }
            Hardship::Blocked(host, other) => {
                let mut blocked = groups(host);
                blocked.insert(sa::Prefix::host(addr(other)), Group::Block);
                self.reload(host, blocked);
            }
            Hardship::Idle => lasts = self.between(600, 40_000),
        }
        let end = self.net.now + lasts;
        while self.net.now < end {
            if !matches!(hardship, Hardship::Idle) {
                let from = self.below(HOSTS.len());
                let to = (from + 1 + self.below(HOSTS.len() - 1)) % HOSTS.len();
                self.net.send(from, addr(to), "ping meanwhile");
            }
            let pause = self.between(0, 15).min(end - self.net.now);
            self.net.run(pause.max(Duration::from_millis(1)));
        }
        *self.lost.borrow_mut() = None;
        self.net.link = good;
        match hardship {
            Hardship::DnsGone(host) => self.publish(host),
            Hardship::Blocked(host, _) => self.reload(host, groups(host)),
            _ => {}
        }
    }

    fn reload(&mut self, host: usize, groups: Groups) {
        let now = self.net.now;
        self.net.hosts[host].node.as_mut().unwrap().keying.handle_groups(now, groups);
        self.net.drain(host);
    }

    /// Everybody asks everybody; whether all were answered.
    fn all_talk(&mut self) -> bool {
        self.round += 1;
        let word = self.round.to_string();
        for host in &mut self.net.hosts {
            host.inbox.clear();
        }
        for from in 0..HOSTS.len() {
            for to in (0..HOSTS.len()).filter(|to| *to != from) {
                self.net.send(from, addr(to), &format!("ping {word}"));
            }
        }
        self.net.run(seconds(10));
        let pong = format!("pong {word}");
        self.net.hosts.iter().all(|host| {
            host.inbox.iter().filter(|(_, text)| *text == pong).count() == HOSTS.len() - 1
        })
    }

    /// Of each host and each other: keyed, with one pair.
    fn all_keyed(&self) -> bool {
        self.net.hosts.iter().all(|host| {
            let destinations = host.node.as_ref().unwrap().keying.destinations(self.net.now);
            destinations.len() == HOSTS.len() - 1
                && destinations.iter().all(|d| d.state == StateName::Keyed && d.pairs == 1)
        })
    }

    fn describe(&self) -> String {
        let mut text = String::new();
        for (n, host) in self.net.hosts.iter().enumerate() {
            let keying = &host.node.as_ref().unwrap().keying;
            text += &format!("\n{n}: {} IKE SAs;", keying.peers(self.net.now).len());
            for d in keying.destinations(self.net.now) {
                let to = HOSTS.iter().position(|name| ip(name) == d.destination);
                let why = d.reason.map(|why| why.to_string()).unwrap_or_default();
                text += &format!(
                    " {}: {} {why} ({} pairs, {:?}),",
                    to.unwrap(),
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
fn live(seed: u64, hardships: usize) {
    let mut world = World::new(seed);
    for _ in 0..hardships {
        let hardship = world.draw();
        world.endure(hardship);
        let since = world.net.now;
        while !(world.all_talk() && world.all_keyed()) {
            let waited = world.net.now - since;
            assert!(waited < AT_MOST, "seed {seed}, {hardship:?}: {}", world.describe());
        }
        if std::env::var("OE_NODE_HARDSHIPS").is_ok() {
            println!("seed {seed}: {hardship:?}: {:?}", world.net.now - since);
        }
        // Nothing is left over of what it was like.
        world.net.run(LEFT_OVERS_GO);
        for host in &world.net.hosts {
            let peers = host.node.as_ref().unwrap().keying.peers(world.net.now).len();
            assert!(peers < HOSTS.len(), "seed {seed}, {hardship:?}: {}", world.describe());
        }
        let strict = addr(STRICT);
        let open =
            world.net.wire.iter().find(|seen| seen.kind == Kind::Clear && (seen.from == strict));
        assert_eq!(open, None, "seed {seed}, {hardship:?}");
        world.net.wire.clear();
    }
}

/// A silent gateway is tried again after as long as it was silent, while packets pass.
const AT_MOST: Duration = Duration::from_secs(480);
/// Time for what was agreed twice to be ended.
const LEFT_OVERS_GO: Duration = Duration::from_secs(240);

#[test]
fn whatever_happens_all_is_well_afterwards() {
    let asked = std::env::var("OE_NODE_HARDSHIPS").ok().and_then(|n| n.parse().ok());
    let seeds = asked.unwrap_or(if cfg!(debug_assertions) { 2 } else { 20 });
    for seed in 0..seeds {
        live(seed, 10);
    }
}
