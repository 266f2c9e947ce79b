//! Everything that happens to nodes in the field, one after the other and in any order: afterwards all
//! talk to each other again, encrypted, with one pair each and nothing left over. Hosts for themselves,
//! hosts behind gateways and behind NATs, networks that somebody has connected by hand, by one link or
//! two, hosts that change their uplink, and a site with addresses that another lends to it.

mod shape;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use dnskeys::{Name, Outcome, Security};
use keying::{ConnectionState, Group, Groups, KeptTicket, Remembered, StateName};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};

use crate::dns::Cache;
use crate::net::{Fate, Kind, Link, Net, Seen};
use crate::node::{Node, seconds};
use shape::{Shape, Way};

/// What can happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Hardship {
    /// Nothing from or to a host arrives, and nothing from its name servers.
    CutOff(usize),
    /// Nothing from one host to another arrives.
    OneWay(usize, usize),
    /// Its ESP is dropped on the way, and its IKE is not.
    EspLost(usize),
    /// The other way round.
    IkeLost(usize),
    /// Of several links this one is out.
    LinkLost(usize),
    /// Everything that can happen to a packet does.
    BadLinks,
    /// Its name servers never answer for it.
    DnsGone(usize),
    /// It reaches no name server.
    NoResolver(usize),
    /// Its records are taken out of DNS.
    Withdrawn(usize),
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
    /// Groups are read again, and have another host in this one for a while.
    Regrouped(usize, usize, Group),
    /// Its configuration is read again, and has no connection in it for a while.
    Disconnected(usize),
    /// A NAT forgets whom its ports are for.
    Remapped(usize),
    /// A NAT gets another address.
    Renumbered(usize),
    /// It gets another address: behind its NAT, or by its other uplink.
    Moved(usize),
    /// It goes behind another NAT, with another address.
    Roamed(usize),
    /// It lends other addresses.
    Repooled(usize),
    /// It has no address for a while, and then another.
    Away(usize),
    /// It is suspended, and wakes up not knowing for how long.
    Suspended(usize),
    /// Nobody says anything for hours.
    Idle,
}

/// What is lost, as the wire sees it.
#[derive(Clone, Debug)]
struct Loss {
    what: Hardship,
    /// The addresses of the host that it happens to, and of the other.
    near: Vec<IpAddr>,
    far: Vec<IpAddr>,
}

struct World {
    shape: Shape,
    net: Net,
    rng: ChaCha20Rng,
    lost: Rc<RefCell<Vec<Loss>>>,
    keys: Vec<usize>,
    /// How often hosts, and NATs, have changed their addresses.
    moved: Vec<usize>,
    renumbered: Vec<usize>,
    /// Behind which NATs hosts are, and how often they have changed what they lend.
    nats: Vec<Option<usize>>,
    pools: Vec<usize>,
    /// Whether keys are replaced all the time.
    hasty: bool,
    /// Who knows less than others, and who wants to know more.
    simple: Vec<bool>,
    careful: Vec<bool>,
    /// What links are like when nothing happens.
    link: Link,
    round: usize,
}

impl World {
    fn new(seed: u64, shape: Shape) -> Self {
        let mut link = Link { delay_us: 1_000..=60_000, dns_us: 500..=80_000, ..Link::default() };
        if seed % 5 == 4 {
            link = Link { delay_us: 1_000..=300_000, loss: 10, duplicate: 50, ..link };
        }
        let mut net = Net::new(seed, link.clone());
        let lost: Rc<RefCell<Vec<Loss>>> = Rc::default();
        let what = Rc::clone(&lost);
        net.filter(move |_, seen| {
            let lost = what.borrow().iter().any(|loss| loss.takes(seen));
            if lost { Fate::Lost } else { Fate::Link }
        });
        for host in 0..shape.hosts() {
            net.add(shape.host(host));
        }
        shape.lay_nats(&mut net);
        let rng = ChaCha20Rng::seed_from_u64(seed ^ 0x6f65);
        let keys = (0..shape.hosts()).collect();
        let (moved, renumbered) = (vec![0; shape.hosts()], vec![0; shape.nats()]);
        let hasty = seed % 3 == 1;
        if seed % 2 == 1 {
            net.caches = (0..shape.hosts()).map(|_| Cache::default()).collect();
        }
        let nats = (0..shape.hosts()).map(|host| shape.nat(host)).collect();
        let pools = vec![0; shape.hosts()];
        let mut world = Self {
            shape,
            net,
            rng,
            lost,
            keys,
            moved,
            renumbered,
            nats,
            pools,
            hasty,
            simple: vec![false; shape.hosts()],
            careful: vec![false; shape.hosts()],
            link,
            round: 0,
        };
        if seed % 4 > 1 {
            for host in 0..shape.hosts() {
                world.simple[host] = world.below(3) == 0;
                world.careful[host] = world.below(3) == 0;
            }
        }
        for host in 0..shape.nodes() {
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
        self.shape.publish(&mut self.net.dns, host, self.keys[host]);
    }

    fn node(&self, host: usize) -> &Node {
        self.net.hosts[host].node.as_ref().unwrap()
    }

    /// Has a node do something.
    fn with<T>(&mut self, host: usize, work: impl FnOnce(&mut keying::Keying) -> T) -> T {
        let done = work(&mut self.net.hosts[host].node.as_mut().unwrap().keying);
        self.net.drain(host);
        done
    }

    fn start(&mut self, host: usize, memory: Vec<Remembered>, tickets: Vec<KeptTicket>) {
        self.net.resume(host);
        let (seed, now) = (self.net.seed(), self.net.time(host));
        if let Some(cache) = self.net.caches.get_mut(host) {
            *cache = Cache::default();
        }
        let secret = [u8::try_from(host).unwrap(); 32];
        let wall = Duration::from_secs(1_800_000_000) + (self.net.now - self.net.start);
        let (shape, hasty, pools) = (self.shape, self.hasty, self.pools[host]);
        let (simple, careful) = (self.simple[host], self.careful[host]);
        self.net.hosts[host].start(
            self.keys[host],
            shape.groups(host, pools),
            seed,
            now,
            |config| {
                config.served = shape.served(host);
                config.connections = shape.connections(host);
                config.identity = shape.identity(host);
                config.pool = shape.pool(host, pools);
                config.ike.resumption = true;
                config.ike.ticket_keys = vec![secret.into()];
                config.ike.token_secret = Some(secret.into());
                config.ike.started = wall;
                if simple {
                    config.ike.mobike = ike::Mobike::Off;
                    config.ike.post_quantum = false;
                    config.ike.resumption = false;
                    config.ike.ticket_keys = Vec::new();
                    config.ike.token_secret = None;
                }
                if careful {
                    config.own_record = keying::OwnRecord::Require;
                    config.when_advertised = keying::WhenAdvertised::Insist;
                }
                if hasty {
                    config.ike.child_life = seconds(110);
                    config.ike.ike_life = seconds(290);
                }
            },
        );
        self.net.drain(host);
        self.with(host, |keying| {
            tickets.into_iter().for_each(|ticket| keying.handle_ticket(now, ticket));
        });
        self.with(host, |keying| keying.handle_memory(now, memory));
    }

    fn crash(&mut self, host: usize, with_memory: bool) {
        let keying = &self.node(host).keying;
        let (memory, tickets) = (keying.remembered(), keying.tickets(self.net.time(host)));
        if with_memory {
            self.start(host, memory, tickets);
        } else {
            self.start(host, Vec::new(), Vec::new());
        }
    }

    /// What passes at once, of which there may be one in the middle of something else.
    fn draw_sudden(&mut self) -> Hardship {
        let shape = self.shape;
        let host = self.below(shape.nodes());
        let other = (host + 1 + self.below(shape.nodes() - 1)) % shape.nodes();
        let mut all = vec![
            Hardship::Crash(host),
            Hardship::CrashWithMemory(host),
            Hardship::Restart(host),
            Hardship::PowerCut,
            Hardship::Forget(host, other),
        ];
        if !shape.is_written_down(host) {
            all.push(Hardship::NewKey(host));
        }
        if shape.nats() > 0 {
            let nat = self.below(shape.nats());
            all.extend([Hardship::Remapped(nat), Hardship::Renumbered(nat)]);
        }
        if shape.nat(host).is_some() || shape == Shape::Uplinks {
            all.push(Hardship::Moved(host));
        }
        if shape.other_nat(host, 0).is_some() {
            all.push(Hardship::Roamed(host));
        }
        if !shape.pool(host, 0).is_empty() {
            all.push(Hardship::Repooled(host));
        }
        let drawn = self.below(all.len());
        all[drawn]
    }

    fn draw(&mut self) -> Hardship {
        let shape = self.shape;
        let host = self.below(shape.nodes());
        let other = (host + 1 + self.below(shape.nodes() - 1)) % shape.nodes();
        let mut all = vec![
            Hardship::CutOff(host),
            Hardship::OneWay(host, other),
            Hardship::EspLost(host),
            Hardship::IkeLost(host),
            Hardship::BadLinks,
            Hardship::Idle,
            Hardship::NoResolver(host),
            Hardship::Suspended(host),
        ];
        if shape.is_opportunistic(host) {
            all.extend([Hardship::DnsGone(host), Hardship::Withdrawn(host)]);
        }
        if shape.is_opportunistic(host)
            && shape.is_opportunistic(other)
            && shape.nat(other).is_none()
        {
            let groups: &[Group] =
                if shape.is_strict(host) { &[Group::Block] } else { &Group::ALL };
            let group = groups[self.below(groups.len())];
            all.push(Hardship::Regrouped(host, other, group));
        }
        if shape.is_written_down(host) {
            all.push(Hardship::Disconnected(host));
        }
        if shape == Shape::Links {
            all.push(Hardship::LinkLost(self.below(2)));
        }
        if shape.nat(host).is_some() || shape == Shape::Uplinks {
            all.push(Hardship::Away(host));
        }
        let drawn = self.below(all.len() * 2);
        if drawn < all.len() { all[drawn] } else { self.draw_sudden() }
    }

    /// It happens, for as long as it lasts, while some talk to some, and perhaps something else: what,
    /// and for how long.
    fn endure(&mut self, hardship: Hardship) -> (Option<Hardship>, Duration) {
        self.begins(hardship);
        let idle = hardship == Hardship::Idle;
        let lasts = match self.below(8) {
            _ if idle => self.between(600, 40_000),
            0 => self.between(400, 4_000),
            _ => self.between(1, 400),
        };
        let end = self.net.now + lasts;
        let mut besides = (self.below(3) == 0).then(|| self.draw());
        let mut left = besides.map(|_| self.below(20));
        while self.net.now < end {
            let pause = if idle { self.between(600, 6000) } else { self.between(0, 15) };
            let ways = self.ways();
            if !idle && !ways.is_empty() {
                let way = ways[self.below(ways.len())];
                self.send(way, "ping meanwhile");
            }
            self.net.run(pause.min(end - self.net.now).max(Duration::from_millis(1)));
            match left {
                Some(0) => {
                    besides.into_iter().for_each(|besides| self.begins(besides));
                    left = None;
                }
                more => left = more.map(|more| more - 1),
            }
        }
        if left.is_some() {
            besides = None;
        }
        self.ends(hardship);
        besides.into_iter().for_each(|besides| self.ends(besides));
        (besides, lasts)
    }

    fn begins(&mut self, hardship: Hardship) {
        let shape = self.shape;
        match hardship {
            Hardship::CutOff(host) => {
                let together = |other: &usize| {
                    *other == host
                        || (shape.nat(host).is_some() && shape.nat(*other) == shape.nat(host))
                };
                let cut_off = (0..shape.hosts()).filter(together);
                self.net.without_dns.extend(cut_off);
                self.lose(hardship, host, host);
            }
            Hardship::OneWay(host, other) => self.lose(hardship, host, other),
            Hardship::EspLost(host) | Hardship::IkeLost(host) => self.lose(hardship, host, host),
            Hardship::LinkLost(link) => {
                let near = (0..2).map(|host| shape.outer(host)[link]).collect();
                self.lost.borrow_mut().push(Loss { what: hardship, near, far: Vec::new() });
            }
            Hardship::BadLinks => self.net.link = Link::bad(),
            Hardship::DnsGone(host) => {
                for (name, _) in shape.records(host, 0) {
                    self.net.dns.silent_name(name);
                }
            }
            Hardship::NoResolver(host) => {
                self.net.without_dns.insert(host);
            }
            Hardship::Withdrawn(host) => {
                for (name, _) in shape.records(host, 0) {
                    self.net.dns.set_name(name, Security::Secure, Outcome::NoName);
                }
            }
            Hardship::Crash(host) => self.crash(host, false),
            Hardship::CrashWithMemory(host) => self.crash(host, true),
            Hardship::Restart(host) => {
                self.net.shutdown(host);
                self.net.run(seconds(1));
                self.crash(host, true);
            }
            Hardship::PowerCut => (0..shape.nodes()).for_each(|host| self.crash(host, true)),
            Hardship::Forget(host, other) => {
                let now = self.net.time(host);
                let lent = self.leases(host).into_iter().filter(|(who, _)| *who == other);
                let all: Vec<IpAddr> =
                    shape.spoken_for(other).into_iter().chain(lent.map(|(_, a)| a)).collect();
                for to in all {
                    if let Some(cache) = self.net.caches.get_mut(host) {
                        cache.forget(&Name::reverse(to));
                    }
                    self.with(host, |keying| keying.forget(now, to));
                }
            }
            Hardship::NewKey(host) => {
                let used = *self.keys.iter().max().unwrap();
                self.keys[host] = used + 1;
                self.publish(host);
                self.crash(host, true);
            }
            Hardship::Regrouped(host, other, group) => {
                let mut groups = shape.groups(host, self.pools[host]);
                for to in shape.spoken_for(other) {
                    groups.insert(sa::Prefix::host(to), group);
                }
                self.reload(host, groups);
            }
            Hardship::Disconnected(host) => {
                let now = self.net.time(host);
                self.with(host, |keying| keying.handle_connections(now, Vec::new()));
            }
            Hardship::Remapped(nat) => self.net.forget_ports(nat),
            Hardship::Renumbered(nat) => {
                self.renumbered[nat] += 1;
                self.net.renumber_nat(nat, Shape::nat_address(nat, self.renumbered[nat]));
            }
            Hardship::Moved(host) => self.moves(host),
            Hardship::Roamed(host) => {
                let other = self.nats[host].and_then(|nat| shape.other_nat(host, nat)).unwrap();
                self.nats[host] = Some(other);
                self.net.move_behind(host, other);
                self.moves(host);
            }
            Hardship::Repooled(host) => {
                self.pools[host] += 1;
                let (now, times) = (self.net.time(host), self.pools[host]);
                let (groups, pool) = (shape.groups(host, times), shape.pool(host, times));
                self.with(host, |keying| {
                    keying.handle_configuration(now, groups, Vec::new(), pool)
                });
            }
            Hardship::Away(host) => self.net.readdress(host, Vec::new()),
            Hardship::Suspended(host) => self.net.suspend(host),
            Hardship::Idle => {}
        }
    }

    fn ends(&mut self, hardship: Hardship) {
        self.lost.borrow_mut().clear();
        self.net.without_dns = BTreeSet::new();
        self.net.link = self.link.clone();
        match hardship {
            Hardship::DnsGone(host) | Hardship::Withdrawn(host) => self.publish(host),
            Hardship::Regrouped(host, ..) => {
                self.reload(host, self.shape.groups(host, self.pools[host]));
            }
            Hardship::Disconnected(host) => {
                let (now, connections) = (self.net.time(host), self.shape.connections(host));
                self.with(host, |keying| keying.handle_connections(now, connections));
            }
            Hardship::Away(host) => self.moves(host),
            Hardship::Suspended(host) => self.net.resume(host),
            _ => {}
        }
    }

    fn lose(&mut self, what: Hardship, near: usize, far: usize) {
        let (near, far) = (self.shape.outer(near), self.shape.outer(far));
        self.lost.borrow_mut().push(Loss { what, near, far });
    }

    fn moves(&mut self, host: usize) {
        self.moved[host] += 1;
        let addresses = self.shape.addresses(host, self.moved[host]);
        self.net.readdress(host, addresses);
    }

    fn reload(&mut self, host: usize, groups: Groups) {
        let now = self.net.time(host);
        self.with(host, |keying| keying.handle_groups(now, groups));
    }

    /// Whom a host has lent addresses, and which.
    fn leases(&self, host: usize) -> Vec<(usize, IpAddr)> {
        let of = |holder: &ike::Identity| {
            (0..self.shape.hosts()).find(|host| self.shape.identity(*host).as_ref() == Some(holder))
        };
        let leases = self.node(host).keying.leases();
        let used = leases.into_iter().filter(|lease| lease.used);
        used.filter_map(|lease| Some((of(&lease.holder)?, lease.address))).collect()
    }

    fn ways(&self) -> Vec<Way> {
        let own = |host: usize| self.shape.address(host, self.moved[host]);
        // Who has no address says nothing, and who is asleep.
        let there = |way: &Way| self.net.hosts[way.0].has(way.1) && !self.net.sleeps(way.0);
        self.shape.ways(own).into_iter().filter(there).collect()
    }

    /// The ways back to those who have borrowed an address.
    fn ways_back(&self) -> Vec<Way> {
        let mut ways = Vec::new();
        for host in (0..self.shape.nodes()).filter(|host| !self.shape.pool(*host, 0).is_empty()) {
            let own = self.shape.address(host, 0);
            ways.extend(self.leases(host).into_iter().map(|(_, lease)| (host, own, lease)));
        }
        ways
    }

    fn send(&mut self, (host, source, to): Way, text: &str) {
        let now = self.net.time(host);
        self.net.hosts[host].send_from(now, source, to, text);
        self.net.drain(host);
    }

    /// Everybody asks everybody; whether all were answered.
    fn all_talk(&mut self) -> bool {
        let there = self.all_answer(&self.ways());
        let back = self.ways_back();
        there && (back.is_empty() || self.all_answer(&back))
    }

    fn all_answer(&mut self, ways: &[Way]) -> bool {
        self.round += 1;
        for host in &mut self.net.hosts {
            host.inbox.clear();
        }
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
        let (ways, back) = (self.ways(), self.ways_back());
        (0..self.shape.nodes()).all(|host| {
            let keying = &self.node(host).keying;
            let connections = keying.connections(self.net.time(host));
            let up = |c: &keying::ConnectionView| c.state == ConnectionState::Up && c.pairs == 1;
            let mut wanted = self.shape.keyed(host, &ways);
            let lent = back.iter().filter(|(from, ..)| *from == host);
            wanted.extend(lent.map(|(_, src, dst)| (*src, *dst)));
            let flows = keying.destinations(self.net.time(host));
            let keyed: Vec<_> = flows.iter().filter(|d| d.state == StateName::Keyed).collect();
            let found = |(src, dst): &(IpAddr, IpAddr)| {
                keyed.iter().any(|d| (d.source, d.destination) == (*src, *dst) && d.pairs == 1)
            };
            connections.iter().all(up) && keyed.len() == wanted.len() && wanted.iter().all(found)
        })
    }

    fn describe(&self) -> String {
        let mut text = String::new();
        for host in 0..self.shape.nodes() {
            let keying = &self.node(host).keying;
            text += &format!("\n{host}: {} IKE SAs;", keying.peers(self.net.time(host)).len());
            for c in keying.connections(self.net.time(host)) {
                text +=
                    &format!("\n   {}: {:?} ({} pairs, {:?})", c.name, c.state, c.pairs, c.reason);
            }
            for d in keying.destinations(self.net.time(host)) {
                let why = d.reason.map(|why| why.to_string()).unwrap_or_default();
                text += &format!(
                    "\n   {} to {}: {} {why} ({} pairs, {:?})",
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

impl Loss {
    fn takes(&self, seen: &Seen) -> bool {
        let of_it = self.near.contains(&seen.from) || self.near.contains(&seen.to);
        match self.what {
            Hardship::OneWay(..) => self.near.contains(&seen.from) && self.far.contains(&seen.to),
            Hardship::EspLost(_) => of_it && seen.kind == Kind::Esp,
            Hardship::IkeLost(_) => of_it && matches!(seen.kind, Kind::Ike { .. }),
            _ => of_it,
        }
    }
}

/// One life of some hardships.
fn live(seed: u64, shape: Shape, hardships: usize) {
    let mut world = World::new(seed, shape);
    let told = std::env::var("OE_NODE_HARDSHIPS").is_ok();
    let (mut story, mut hard) = (Vec::new(), Duration::ZERO);
    for nth in 1..=hardships {
        let hardship = world.draw();
        let (besides, lasted) = world.endure(hardship);
        story.push((hardship, besides));
        hard += lasted;
        // Now and then before they have got over the last.
        if nth < hardships && world.below(4) == 0 {
            continue;
        }
        let what = format!("{shape:?} {seed}, {story:?}");
        let at_most = if hard > LONG { AT_MOST_AFTER_LONG } else { AT_MOST };
        let since = world.net.now;
        while !(world.all_talk() && world.all_keyed()) {
            let waited = world.net.now - since;
            assert!(waited < at_most, "{what}: {}", world.describe());
        }
        if told {
            println!("{what}: {:?}", world.net.now - since);
        }
        hard = Duration::ZERO;
        // Nothing is left over of what it was like.
        world.net.run(LEFT_OVERS_GO);
        for host in 0..shape.nodes() {
            let peers = world.node(host).keying.peers(world.net.time(host)).len();
            assert!(peers <= shape.most_peers(host), "{what}: {}", world.describe());
        }
        let mut closed = shape.closed();
        for happened in story.drain(..).flat_map(|(one, other)| [Some(one), other]).flatten() {
            let Hardship::Disconnected(host) = happened else { continue };
            // As its groups said meanwhile; what comes by headquarters without one is forwarded.
            let forwards = shape == Shape::Extruded;
            closed.retain(|_| !forwards);
            closed.retain(|a| !shape.sources(host).contains(a) && !shape.outer(host).contains(a));
        }
        let open = |seen: &&Seen| seen.kind == Kind::Clear && closed.contains(&seen.from);
        let open = world.net.wire.iter().find(open);
        assert_eq!(open, None, "{what}");
        world.net.wire.clear();
    }
}

/// Lives of each shape; `OE_NODE_HARDSHIPS` says how many, or which (`40..80`), and has each hardship
/// told with what it took to get over it.
fn lives(shape: Shape) {
    let asked = std::env::var("OE_NODE_HARDSHIPS").ok();
    let seeds = match asked.as_deref().map(|asked| asked.split_once("..").unwrap_or(("0", asked))) {
        Some((from, to)) => from.parse().unwrap()..to.parse().unwrap(),
        // Links are asked whether they live all the time.
        None if shape == Shape::Links => 0..if cfg!(debug_assertions) { 1 } else { 5 },
        None => 0..if cfg!(debug_assertions) { 3 } else { 20 },
    };
    for seed in seeds {
        live(seed, shape, 10);
    }
}

/// A silent gateway is tried again after as long as it was silent, while packets pass.
const AT_MOST: Duration = Duration::from_secs(480);
/// The same after longer: silence counts for ten minutes at the most, and who is asked in vain may
/// remember for a while what DNS said.
const AT_MOST_AFTER_LONG: Duration = Duration::from_secs(900);
const LONG: Duration = Duration::from_secs(300);
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

#[test]
fn hosts_behind_nats_get_over_whatever_happens() {
    lives(Shape::Nats);
}

#[test]
fn lent_addresses_get_over_whatever_happens() {
    lives(Shape::Extruded);
}

#[test]
fn hosts_with_two_uplinks_get_over_whatever_happens() {
    lives(Shape::Uplinks);
}

#[test]
fn links_get_over_whatever_happens() {
    lives(Shape::Links);
}
