//! A small internet under a seed: whole nodes, links that delay, lose, reorder and duplicate, a
//! clock that jumps from one event to the next.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use dnskeys::{Answer, Name};
use keying::Output;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};
use sa::Envelope;

use crate::dns::{Cache, Dns};
use crate::node::{Host, Sent};
use crate::packet;

/// How packets fare on their way.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    /// One way, microseconds.
    pub(crate) delay_us: RangeInclusive<u64>,
    /// Packets lost, of 1000.
    pub(crate) loss: u64,
    /// Packets delivered twice, of 1000.
    pub(crate) duplicate: u64,
    /// DNS answers take this long, microseconds.
    pub(crate) dns_us: RangeInclusive<u64>,
}

impl Default for Link {
    fn default() -> Self {
        Self { delay_us: 10_000..=10_000, loss: 0, duplicate: 0, dns_us: 5_000..=5_000 }
    }
}

impl Link {
    /// A bad link: everything that can happen to a packet does.
    pub(crate) fn bad() -> Self {
        Self { delay_us: 1_000..=120_000, loss: 150, duplicate: 100, dns_us: 1_000..=200_000 }
    }
}

/// What an eavesdropper sees of one packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// An IKE message: exchange type, whether it is a response, message id.
    Ike { exchange: u8, response: bool, id: u32 },
    /// ESP, whatever it is wrapped in.
    Esp,
    /// An IP packet in the clear.
    Clear,
}

/// One packet on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Seen {
    pub(crate) at: Instant,
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    pub(crate) kind: Kind,
}

/// What a test wants done with a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// Whatever the link does.
    Link,
    /// Lost.
    Lost,
    /// Delivered twice.
    Twice,
}

/// What happens at a point in time.
enum Arrival {
    Packet {
        to: usize,
        sent: Sent,
    },
    /// A question to DNS that is repeated, since when.
    Question {
        to: usize,
        name: Name,
        since: Instant,
    },
    Answer {
        to: usize,
        answer: Box<Answer>,
    },
    Signature {
        to: usize,
        ike: ike::IkeId,
        signature: Vec<u8>,
    },
}

impl Arrival {
    fn to(&self) -> usize {
        match self {
            Self::Packet { to, .. }
            | Self::Question { to, .. }
            | Self::Answer { to, .. }
            | Self::Signature { to, .. } => *to,
        }
    }
}

/// In order of time, and of sending.
type Arrivals = BTreeMap<(Instant, u64), Arrival>;

/// A NAT before some hosts, all of which it shows as one address (RFC 3022 §4.1): others reach what it
/// has mapped.
struct Nat {
    outer: IpAddr,
    inside: Vec<usize>,
    ports: BTreeMap<u16, Mapping>,
    /// After how long without a packet a mapping is forgotten; never if not said.
    patience: Option<Duration>,
}

/// Who sends from a port of the outer address, and from where.
struct Mapping {
    host: usize,
    from: SocketAddr,
    used: Instant,
}

impl Nat {
    /// How the world sees what a host inside sends from there.
    fn map(&mut self, now: Instant, host: usize, from: SocketAddr) -> SocketAddr {
        let live = |mapping: &Mapping| mapping.is_live(now, self.patience);
        let mine = |mapping: &Mapping| (mapping.host, mapping.from) == (host, from);
        let known = self.ports.iter().find(|(_, m)| mine(m) && live(m)).map(|(port, _)| *port);
        let port = known.unwrap_or_else(|| FIRST_PORT + u16::try_from(self.ports.len()).unwrap());
        self.ports.insert(port, Mapping { host, from, used: now });
        SocketAddr::new(self.outer, port)
    }

    fn outwards(&mut self, now: Instant, host: usize, sent: Sent) -> Sent {
        match sent {
            Sent::Ike(t) => Sent::Ike(ike::Transmit { local: self.map(now, host, t.local), ..t }),
            Sent::Esp(envelope, octets) => {
                let local = self.map(now, host, envelope.local);
                Sent::Esp(Envelope { local, ..envelope }, octets)
            }
            Sent::Clear(octets) => {
                let ((from, to), (port, theirs)) =
                    (packet::addresses(&octets), packet::ports(&octets));
                let ours = self.map(now, host, SocketAddr::new(from, port));
                let text = packet::text(&octets);
                let ports = (ours.port(), theirs);
                Sent::Clear(packet::build_with_ports(ours.ip(), to, ports, &text))
            }
        }
    }

    /// For whom it is, and as it arrives there; `None` for what nobody waits for.
    fn inwards(&mut self, now: Instant, sent: &Sent) -> Option<(usize, Sent)> {
        let patience = self.patience;
        let mut waits = |port: u16| {
            let live = |mapping: &&mut Mapping| mapping.is_live(now, patience);
            let mapping = self.ports.get_mut(&port).filter(live)?;
            mapping.used = now;
            Some((mapping.host, mapping.from))
        };
        Some(match sent {
            Sent::Ike(t) => {
                let (host, remote) = waits(t.remote.port())?;
                (host, Sent::Ike(ike::Transmit { remote, ..t.clone() }))
            }
            Sent::Esp(envelope, octets) => {
                let (host, remote) = waits(envelope.remote.port())?;
                (host, Sent::Esp(Envelope { remote, ..*envelope }, octets.clone()))
            }
            Sent::Clear(octets) => {
                let (theirs, port) = packet::ports(octets);
                let (host, own) = waits(port)?;
                let (from, text) = (packet::addresses(octets).0, packet::text(octets));
                let ports = (theirs, own.port());
                (host, Sent::Clear(packet::build_with_ports(from, own.ip(), ports, &text)))
            }
        })
    }
}

impl Mapping {
    fn is_live(&self, now: Instant, patience: Option<Duration>) -> bool {
        let idle = now.saturating_duration_since(self.used);
        self.host != usize::MAX && patience.is_none_or(|patience| idle < patience)
    }
}

const FIRST_PORT: u16 = 20_000;

type Filter = Box<dyn FnMut(usize, &Seen) -> Fate>;

/// The world.
pub(crate) struct Net {
    pub(crate) now: Instant,
    pub(crate) start: Instant,
    pub(crate) hosts: Vec<Host>,
    pub(crate) dns: Dns,
    pub(crate) link: Link,
    /// Everything that was ever put on the wire, lost or not.
    pub(crate) wire: Vec<Seen>,
    /// Whether only clear packets are kept of it, and nothing of what nodes report: with hundreds of
    /// nodes it is a gigabyte.
    pub(crate) forgetful: bool,
    /// How many packets were put on the wire.
    sent: usize,
    /// Signatures made by anybody.
    pub(crate) signatures: usize,
    /// The packets themselves, for an attacker who listens; only if somebody does.
    pub(crate) tapped: Option<Vec<Sent>>,
    filter: Option<Filter>,
    /// What the resolvers of hosts remember; nothing if there are none.
    pub(crate) caches: Vec<Cache>,
    /// Hosts that are suspended, since when; and for how long they have been in all.
    asleep: BTreeMap<usize, Instant>,
    slept: BTreeMap<usize, Duration>,
    /// Hosts whose resolvers reach nobody.
    pub(crate) without_dns: BTreeSet<usize>,
    nats: Vec<Nat>,
    rng: ChaCha20Rng,
    arrivals: Arrivals,
    /// The same for each host, while hosts take turns.
    turns: Option<Vec<Arrivals>>,
    count: u64,
    /// When each host wants to be woken, as last asked; and the same by time.
    due: Vec<Option<Instant>>,
    timers: BTreeSet<(Instant, usize)>,
    /// Who had this address when it was last looked for.
    places: HashMap<IpAddr, usize>,
}

impl Net {
    pub(crate) fn new(seed: u64, link: Link) -> Self {
        let now = Instant::now();
        Self {
            now,
            start: now,
            hosts: Vec::new(),
            dns: Dns::default(),
            link,
            wire: Vec::new(),
            forgetful: false,
            sent: 0,
            signatures: 0,
            tapped: None,
            filter: None,
            caches: Vec::new(),
            asleep: BTreeMap::new(),
            slept: BTreeMap::new(),
            without_dns: BTreeSet::new(),
            nats: Vec::new(),
            rng: ChaCha20Rng::seed_from_u64(seed),
            arrivals: Arrivals::new(),
            turns: None,
            count: 0,
            due: Vec::new(),
            timers: BTreeSet::new(),
            places: HashMap::new(),
        }
    }

    /// Lets a test decide over each packet, by its number on the wire.
    pub(crate) fn filter(&mut self, filter: impl FnMut(usize, &Seen) -> Fate + 'static) {
        self.filter = Some(Box::new(filter));
    }

    /// From now on others see a host at this address, and reach it only where it has been first.
    pub(crate) fn put_behind_nat(&mut self, host: usize, outside: IpAddr) {
        self.nat(outside, &[host]);
    }

    pub(crate) fn add(&mut self, host: Host) -> usize {
        self.hosts.push(host);
        self.due.push(None);
        if let Some(turns) = &mut self.turns {
            turns.push(Arrivals::new());
        }
        self.hosts.len() - 1
    }

    pub(crate) fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        seed
    }

    /// Puts hosts behind a NAT with this address. Their own addresses need not differ.
    pub(crate) fn nat(&mut self, outer: IpAddr, inside: &[usize]) {
        let inside = inside.to_vec();
        self.nats.push(Nat { outer, inside, ports: BTreeMap::new(), patience: None });
    }

    /// A NAT forgets whom its ports are for: whoever sends next gets another.
    pub(crate) fn forget_ports(&mut self, nat: usize) {
        for who in self.nats[nat].ports.values_mut() {
            who.host = usize::MAX;
        }
    }

    /// A NAT forgets a mapping that nothing uses for this long.
    pub(crate) fn forget_unused_ports(&mut self, nat: usize, patience: Duration) {
        self.nats[nat].patience = Some(patience);
    }

    /// From now on a host is behind this NAT, and no longer behind another.
    pub(crate) fn move_behind(&mut self, host: usize, nat: usize) {
        self.nats.iter_mut().for_each(|nat| nat.inside.retain(|inside| *inside != host));
        self.nats[nat].inside.push(host);
    }

    /// A NAT gets another address, and has no mapping any more.
    pub(crate) fn renumber_nat(&mut self, nat: usize, outer: IpAddr) {
        self.forget_ports(nat);
        self.nats[nat].outer = outer;
    }

    /// An application on `from` sends one packet.
    pub(crate) fn send(&mut self, from: usize, to: IpAddr, text: &str) {
        let now = self.time(from);
        self.hosts[from].send(now, to, text);
        self.drain(from);
    }

    /// A host's addresses are these now; its node goes on from the first of the family.
    pub(crate) fn readdress(&mut self, host: usize, addresses: Vec<IpAddr>) {
        let now = self.time(host);
        self.hosts[host].addresses.clone_from(&addresses);
        if let Some(node) = &mut self.hosts[host].node {
            node.keying.handle_addresses(now, addresses.clone());
            for (ike, peer) in node.keying.stranded() {
                if let Some(local) = addresses.iter().find(|a| a.is_ipv4() == peer.is_ipv4()) {
                    node.keying.relocate(now, ike, *local);
                }
            }
        }
        self.drain(host);
    }

    /// An attacker puts a packet on the wire; it arrives whatever the link does.
    pub(crate) fn inject(&mut self, sent: Sent) {
        let to = sent.seen(self.now).to;
        if let Some(to) = self.hosts.iter().position(|host| host.has(to)) {
            self.schedule(Duration::from_millis(1), Arrival::Packet { to, sent });
        }
    }

    pub(crate) fn shutdown(&mut self, host: usize) {
        let now = self.time(host);
        if let Some(node) = &mut self.hosts[host].node {
            node.keying.close_all(now);
        }
        self.drain(host);
    }

    /// A host is suspended: it hears nothing, and its clock stands still.
    pub(crate) fn suspend(&mut self, host: usize) {
        self.asleep.entry(host).or_insert(self.now);
        self.ask(host);
    }

    /// It goes on as if nothing had been.
    pub(crate) fn resume(&mut self, host: usize) {
        if let Some(since) = self.asleep.remove(&host) {
            *self.slept.entry(host).or_default() += self.now - since;
        }
        self.ask(host);
    }

    pub(crate) fn sleeps(&self, host: usize) -> bool {
        self.asleep.contains_key(&host)
    }

    fn slept(&self, host: usize) -> Duration {
        self.slept.get(&host).copied().unwrap_or_default()
    }

    /// What a host takes the time for.
    pub(crate) fn time(&self, host: usize) -> Instant {
        self.asleep.get(&host).copied().unwrap_or(self.now) - self.slept(host)
    }

    /// From now on each host in turn lives through as much time as no packet is faster than, so that
    /// what it knows stays at hand: with hundreds of hosts most of the time goes for fetching it.
    /// Nothing else changes, but that packets of different hosts are put on the wire out of order.
    pub(crate) fn take_turns(&mut self) {
        assert!(self.hosts.is_empty() && self.link.delay_us.start() > &0);
        self.turns = Some(Vec::new());
    }

    /// Runs until nothing is left to happen before `for_` has passed.
    pub(crate) fn run(&mut self, for_: Duration) {
        let end = self.now + for_;
        self.ask_all();
        if self.turns.is_some() {
            while self.round(end) {}
        } else {
            while self.step(end) {}
        }
        self.now = end;
    }

    /// Runs until `done`, at most for `at_most`; whether it was done in time.
    pub(crate) fn run_until(&mut self, at_most: Duration, done: impl Fn(&Self) -> bool) -> bool {
        assert!(self.turns.is_none(), "there is no order of events to look between");
        let end = self.now + at_most;
        self.ask_all();
        loop {
            if done(self) {
                return true;
            }
            if !self.step(end) {
                return false;
            }
        }
    }

    /// Jumps to the next event before `end`; false if there is none.
    fn step(&mut self, end: Instant) -> bool {
        let arrival = self.arrivals.keys().next().map(|(at, _)| *at);
        let timeout = self.timers.first().map(|(at, _)| *at);
        let Some(next) = arrival.into_iter().chain(timeout).min().filter(|at| *at <= end) else {
            return false;
        };
        self.now = self.now.max(next);
        let now = self.now;
        if let Some(entry) = self.arrivals.first_entry()
            && entry.key().0 <= now
        {
            let arrival = entry.remove();
            self.arrive(arrival);
            return true;
        }
        while let Some(&(at, host)) = self.timers.first() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            self.due[host] = None;
            let now = self.time(host);
            self.hosts[host].handle_timeout(now);
            self.drain(host);
        }
        true
    }

    /// One turn for each host; false if nothing happens before `end`.
    fn round(&mut self, end: Instant) -> bool {
        let first = (0..self.hosts.len()).filter_map(|host| self.next(host)).min();
        let Some(first) = first.filter(|at| *at <= end) else { return false };
        let until = first + Duration::from_micros(*self.link.delay_us.start());
        let until = until.min(end + Duration::from_nanos(1));
        let since = self.now;
        for host in 0..self.hosts.len() {
            while let Some(next) = self.next(host).filter(|at| *at < until) {
                self.now = next.max(since);
                self.happen(host);
            }
        }
        true
    }

    /// When something happens to a host that takes turns.
    fn next(&self, host: usize) -> Option<Instant> {
        let arrival = self.turns.as_ref()?[host].first_key_value().map(|((at, _), _)| *at);
        arrival.into_iter().chain(self.due[host]).min()
    }

    fn happen(&mut self, host: usize) {
        let now = self.now;
        let arrivals = self.turns.as_mut().map(|turns| &mut turns[host]);
        if let Some(arrival) = arrivals.and_then(BTreeMap::first_entry)
            && arrival.key().0 <= now
        {
            let arrival = arrival.remove();
            return self.arrive(arrival);
        }
        self.hosts[host].handle_timeout(now);
        self.drain(host);
    }

    /// Asks every host when it wants to be woken: a test may have done something to it.
    fn ask_all(&mut self) {
        for host in 0..self.hosts.len() {
            self.ask(host);
        }
    }

    fn ask(&mut self, host: usize) {
        let due = self.hosts[host].poll_timeout().map(|at| at + self.slept(host));
        let due = due.filter(|_| !self.asleep.contains_key(&host));
        if self.turns.is_some() {
            self.due[host] = due;
            return;
        }
        if self.due[host] == due {
            return;
        }
        if let Some(old) = std::mem::replace(&mut self.due[host], due) {
            self.timers.remove(&(old, host));
        }
        self.timers.extend(due.map(|at| (at, host)));
    }

    /// The host that has this address.
    fn place(&mut self, addr: IpAddr) -> Option<usize> {
        if let Some(host) = self.places.get(&addr)
            && self.hosts[*host].has(addr)
        {
            return Some(*host);
        }
        let host = self.hosts.iter().position(|host| host.has(addr))?;
        self.places.insert(addr, host);
        Some(host)
    }

    fn arrive(&mut self, arrival: Arrival) {
        let to = arrival.to();
        if self.asleep.contains_key(&to) {
            // What it has itself is there when it wakes up.
            if !matches!(arrival, Arrival::Packet { .. }) {
                self.schedule(Duration::from_secs(1), arrival);
            }
            return;
        }
        let now = self.time(to);
        let to = match arrival {
            Arrival::Packet { to, sent } => {
                self.hosts[to].receive(now, sent);
                to
            }
            Arrival::Question { to, name, since } => return self.query(to, &name, since),
            Arrival::Answer { to, answer } => {
                if let Some(node) = &mut self.hosts[to].node {
                    node.keying.handle_answer(now, &answer);
                }
                to
            }
            Arrival::Signature { to, ike, signature } => {
                if let Some(node) = &mut self.hosts[to].node {
                    node.keying.handle_signature(now, ike, Some(signature));
                }
                to
            }
        };
        self.drain(to);
    }

    /// Carries out everything a host wants done.
    pub(crate) fn drain(&mut self, host: usize) {
        self.carry_out(host);
        self.ask(host);
    }

    fn carry_out(&mut self, host: usize) {
        let now = self.time(host);
        loop {
            while let Some(sent) = self.hosts[host].outbox.pop_front() {
                self.leave(host, sent);
            }
            let Some(node) = &mut self.hosts[host].node else { return };
            let Some(output) = node.keying.poll_output() else {
                if node.drain_notices(now) || !self.hosts[host].outbox.is_empty() {
                    continue;
                }
                return;
            };
            match output {
                Output::Command(command) => self.hosts[host].obey(now, command),
                Output::Transmit(transmit) => {
                    // From here on the peer may send through what was agreed.
                    let open = node.open_beside_a_pair();
                    if is_answer(&transmit.octets) {
                        assert_eq!(open, [], "open when the answer leaves");
                    }
                    self.leave(host, Sent::ike(transmit));
                }
                Output::Query { name, .. } => self.query(host, &name, self.now),
                Output::Sign(job) => {
                    self.signatures += 1;
                    let signature = node.key.sign(job.scheme, &job.octets);
                    let arrival = Arrival::Signature { to: host, ike: job.ike, signature };
                    self.schedule(Duration::from_micros(300), arrival);
                }
                Output::Ticket(ticket) => node.told.push(ticket),
                Output::Report(_) if self.forgetful => {}
                Output::Report(report) => node.reports.push(report),
            }
        }
    }

    /// A resolver asks, and asks again until it is answered or out of patience.
    fn query(&mut self, host: usize, name: &Name, since: Instant) {
        let known = self.caches.get(host).and_then(|cache| cache.get(self.now, name));
        if let Some(answer) = known {
            let answer = Box::new(answer);
            let at_once = Duration::from_micros(100);
            return self.schedule(at_once, Arrival::Answer { to: host, answer });
        }
        let mut delay = self.pick(self.link.dns_us.clone()) + self.dns.delay(name);
        let mut answer = self.dns.answer(name);
        if self.without_dns.contains(&host) {
            if self.now - since < crate::dns::PATIENCE {
                let (to, name) = (host, name.clone());
                let again = Arrival::Question { to, name, since };
                return self.schedule(crate::dns::REPEATED, again);
            }
            delay = Duration::ZERO;
            answer = Dns::timeout(name);
        }
        if let Some(cache) = self.caches.get_mut(host) {
            cache.put(self.now + delay, &answer);
        }
        self.schedule(delay, Arrival::Answer { to: host, answer: Box::new(answer) });
    }

    /// A packet leaves a host, perhaps through a NAT.
    fn leave(&mut self, host: usize, mut sent: Sent) {
        if let Some(nat) = self.nats.iter_mut().find(|nat| nat.inside.contains(&host)) {
            sent = nat.outwards(self.now, host, sent);
        }
        self.put_on_wire(host, sent);
    }

    fn put_on_wire(&mut self, from: usize, mut sent: Sent) {
        let seen = sent.seen(self.now);
        let number = self.sent;
        self.sent += 1;
        if !self.forgetful || seen.kind == Kind::Clear {
            self.wire.push(seen);
        }
        if let Some(tapped) = &mut self.tapped {
            tapped.push(sent.clone());
        }
        let to = match self.nats.iter_mut().find(|nat| nat.outer == seen.to) {
            Some(nat) => {
                let Some((host, inwards)) = nat.inwards(self.now, &sent) else { return };
                sent = inwards;
                host
            }
            None => {
                // What comes back to who forwards it does so until its hops are used up.
                let Some(to) = self.place(seen.to).filter(|to| *to != from) else { return };
                // Its own address means nothing to others.
                if self.nats.iter().any(|nat| nat.inside.contains(&to)) {
                    return;
                }
                to
            }
        };
        let fate = self.filter.as_mut().map_or(Fate::Link, |filter| filter(number, &seen));
        let copies = match fate {
            Fate::Lost => 0,
            Fate::Twice => 2,
            Fate::Link if self.chance(self.link.loss) => 0,
            Fate::Link if self.chance(self.link.duplicate) => 2,
            Fate::Link => 1,
        };
        if copies > 1 {
            let delay = self.pick(self.link.delay_us.clone());
            self.schedule(delay, Arrival::Packet { to, sent: sent.clone() });
        }
        if copies > 0 {
            let delay = self.pick(self.link.delay_us.clone());
            self.schedule(delay, Arrival::Packet { to, sent });
        }
    }

    fn schedule(&mut self, delay: Duration, arrival: Arrival) {
        self.count += 1;
        let arrivals = match &mut self.turns {
            Some(turns) => &mut turns[arrival.to()],
            None => &mut self.arrivals,
        };
        arrivals.insert((self.now + delay, self.count), arrival);
    }

    fn chance(&mut self, per_mille: u64) -> bool {
        self.rng.next_u64() % 1000 < per_mille
    }

    fn pick(&mut self, range: RangeInclusive<u64>) -> Duration {
        let span = range.end() - range.start() + 1;
        Duration::from_micros(range.start() + self.rng.next_u64() % span)
    }

    /// Packets in the clear between two addresses, either way.
    pub(crate) fn clear_between(&self, a: IpAddr, b: IpAddr) -> usize {
        self.between(a, b).filter(|seen| seen.kind == Kind::Clear).count()
    }

    pub(crate) fn between(&self, a: IpAddr, b: IpAddr) -> impl Iterator<Item = &Seen> {
        self.wire.iter().filter(move |s| (s.from, s.to) == (a, b) || (s.from, s.to) == (b, a))
    }
}

/// Whether a message answers IKE_AUTH or CREATE_CHILD_SA (RFC 7296 §3.1).
fn is_answer(message: &[u8]) -> bool {
    matches!(message.get(18..20), Some([35 | 36, flags]) if flags & 0x20 != 0)
}
