//! A host of the simulation: its kernel in a few lines, and, if it runs one, a whole node.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keying::{Groups, Keying, Report};
use sa::{About, Class, Command, Envelope, Flow, Policy, Ports, Prefix, Subnets};
pub(crate) use tests::key::TestKey;

use crate::net::{Kind, Seen};
use crate::packet;
use crate::plane::{Out, Plane};
use crate::site::Site;

/// Something on the wire.
#[derive(Clone, Debug)]
pub(crate) enum Sent {
    Ike(ike::Transmit),
    Esp(Envelope, Vec<u8>),
    Clear(Vec<u8>),
}

impl Sent {
    pub(crate) fn ike(transmit: ike::Transmit) -> Self {
        Self::Ike(transmit)
    }

    pub(crate) fn seen(&self, at: Instant) -> Seen {
        match self {
            Self::Ike(t) => Seen {
                at,
                from: t.local.ip(),
                to: t.remote.ip(),
                kind: Kind::Ike {
                    exchange: t.octets.get(18).copied().unwrap_or(0),
                    response: t.octets.get(19).is_some_and(|flags| flags & 0x20 != 0),
                    id: t
                        .octets
                        .get(20..24)
                        .map_or(0, |id| u32::from_be_bytes(id.try_into().unwrap())),
                },
            },
            Self::Esp(envelope, _) => {
                Seen { at, from: envelope.local.ip(), to: envelope.remote.ip(), kind: Kind::Esp }
            }
            Self::Clear(octets) => {
                let (from, to) = packet::addresses(octets);
                Seen { at, from, to, kind: Kind::Clear }
            }
        }
    }
}

/// What runs on an opportunistic host.
pub(crate) struct Node {
    pub(crate) keying: Keying,
    pub(crate) plane: Plane,
    pub(crate) key: Arc<TestKey>,
    pub(crate) reports: Vec<Report>,
    /// Tickets that are to be kept.
    pub(crate) told: Vec<keying::KeptTicket>,
    /// Routing, as the daemon sets it: classes by prefix, flows thrown past the plane or refused.
    classes: BTreeMap<Prefix, Class>,
    policies: BTreeMap<IpAddr, Policies>,
    /// Prefixes with rules for single ports: all of them lead to the device.
    ported: BTreeSet<(Prefix, Ports)>,
    /// Flows in the clear that pass by the plane for a while.
    watched: BTreeSet<Flow>,
    /// Flows whose clear packets are refused on the way in.
    protected: BTreeSet<Flow>,
    /// What configured connections cover.
    subnets: BTreeSet<Subnets>,
    /// Flows of host pairs that came since [`Node::open_beside_a_pair`].
    fresh: Vec<Flow>,
}

/// Of flows to one destination, by source.
type Policies = BTreeMap<(IpAddr, Ports), (Policy, About)>;

/// Where a packet goes.
enum Way {
    Clear,
    Nowhere,
    Device,
}

/// A host.
pub(crate) struct Host {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) node: Option<Node>,
    /// Somebody else's software, instead.
    pub(crate) site: Option<Box<Site>>,
    /// Hosts behind it, for which it forwards; they are as good as its own applications here.
    pub(crate) behind: Vec<IpAddr>,
    /// Hosts elsewhere whose packets come by here, and are forwarded like those from there.
    pub(crate) onward: Vec<IpAddr>,
    /// What its applications received: from whom, what.
    pub(crate) inbox: Vec<(IpAddr, String)>,
    /// Whether it answers what starts with "ping".
    pub(crate) echo: bool,
    pub(crate) outbox: VecDeque<Sent>,
    /// Clear packets refused because their sender has a pair.
    pub(crate) refused: usize,
}

impl Host {
    /// A host that knows nothing of encryption.
    pub(crate) fn plain(addr: &str) -> Self {
        Self {
            addresses: vec![addr.parse().unwrap()],
            node: None,
            site: None,
            behind: Vec::new(),
            onward: Vec::new(),
            inbox: Vec::new(),
            echo: true,
            outbox: VecDeque::new(),
            refused: 0,
        }
    }

    /// An opportunistic host with the n-th key.
    pub(crate) fn node(addr: &str, key: usize, seed: [u8; 32], now: Instant) -> Self {
        let mut host = Self::plain(addr);
        host.start(key, Groups::packetdefault(), seed, now, |_| {});
        host
    }

    /// Starts a node on this host, or starts it anew as after a crash.
    pub(crate) fn start(
        &mut self,
        key: usize,
        groups: Groups,
        seed: [u8; 32],
        now: Instant,
        change: impl FnOnce(&mut keying::Config),
    ) {
        self.start_with(TestKey::nth(key), groups, seed, now, change);
    }

    /// The same with any key.
    pub(crate) fn start_with(
        &mut self,
        key: Arc<TestKey>,
        groups: Groups,
        seed: [u8; 32],
        now: Instant,
        change: impl FnOnce(&mut keying::Config),
    ) {
        let mut config = keying::Config {
            groups,
            rules: dnskeys::Rules::default(),
            when_advertised: keying::WhenAdvertised::Clear,
            null_auth: keying::NullAuth::default(),
            own_record: keying::OwnRecord::Advise,
            identity: None,
            served: Vec::new(),
            connections: Vec::new(),
            addresses: self.addresses.clone(),
            ike: ike::Config::new(key.ike()),
            lives: keying::Lives::default(),
            destinations: keying::DESTINATIONS,
            pool: Vec::new(),
            translates: true,
        };
        change(&mut config);
        let keying = Keying::new(config, seed, now);
        let mut plane_seed = seed;
        plane_seed[0] ^= 0xff;
        self.node = Some(Node {
            keying,
            plane: Plane::new(plane_seed, now),
            key,
            reports: Vec::new(),
            told: Vec::new(),
            classes: BTreeMap::new(),
            policies: BTreeMap::new(),
            ported: BTreeSet::new(),
            watched: BTreeSet::new(),
            protected: BTreeSet::new(),
            subnets: BTreeSet::new(),
            fresh: Vec::new(),
        });
    }

    pub(crate) fn has(&self, addr: IpAddr) -> bool {
        [&self.addresses, &self.behind, &self.onward].into_iter().any(|all| all.contains(&addr))
    }

    /// Whether what is sent there goes no further.
    fn is_at(&self, addr: IpAddr) -> bool {
        self.addresses.contains(&addr) || self.behind.contains(&addr)
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        if let Some(site) = &self.site {
            return site.poll_timeout();
        }
        let node = self.node.as_ref()?;
        let keying = node.keying.poll_timeout().map(|(at, _)| at);
        keying.into_iter().chain(node.plane.poll_timeout()).min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if let Some(node) = &mut self.node {
            node.keying.handle_timeout(now);
            node.plane.handle_timeout(now);
        }
        if let Some(site) = &mut self.site {
            site.handle_timeout(now);
        }
        self.collect();
    }

    /// An application sends: the kernel's routing decides, then the plane.
    pub(crate) fn send(&mut self, now: Instant, to: IpAddr, text: &str) {
        let from = self.addresses.iter().copied().find(|a| a.is_ipv4() == to.is_ipv4());
        self.send_from(now, from.expect("an address of the family"), to, text);
    }

    /// An application sends from one of the host's addresses.
    pub(crate) fn send_from(&mut self, now: Instant, from: IpAddr, to: IpAddr, text: &str) {
        self.send_octets(now, &packet::build(from, to, text));
    }

    /// An application sends a packet.
    pub(crate) fn send_octets(&mut self, now: Instant, octets: &[u8]) {
        let (from, to) = packet::addresses(octets);
        if let Some(site) = &mut self.site {
            site.plane.send(now, octets);
            return self.collect();
        }
        let Some(node) = &mut self.node else {
            return self.outbox.push_back(Sent::Clear(octets.to_vec()));
        };
        let flow = Flow::new(from, to).unwrap();
        match node.way(flow) {
            Way::Clear => self.outbox.push_back(Sent::Clear(octets.to_vec())),
            Way::Nowhere => {}
            Way::Device => node.plane.send(now, octets),
        }
        self.collect();
    }

    pub(crate) fn receive(&mut self, now: Instant, sent: Sent) {
        match sent {
            Sent::Ike(t) => {
                if let Some(site) = &mut self.site {
                    site.hear(now, &t);
                    return self.collect();
                }
                let Some(node) = &mut self.node else { return };
                let (local, remote) = (t.remote, t.local);
                // A keepalive ends at the socket.
                if t.octets != [0xff] {
                    let octets = &t.octets;
                    node.keying.handle_datagram(now, ike::Datagram { local, remote, octets });
                }
            }
            Sent::Esp(envelope, octets) => {
                let plane = match (&mut self.node, &mut self.site) {
                    (Some(node), _) => &mut node.plane,
                    (_, Some(site)) => &mut site.plane,
                    _ => return,
                };
                let (local, remote) = (envelope.remote, envelope.local);
                plane.receive(now, Envelope { local, remote, udp: envelope.udp }, &octets);
            }
            Sent::Clear(octets) => {
                let (from, to) = packet::addresses(&octets);
                let flow = Flow::new(to, from).unwrap();
                if self.node.as_ref().is_some_and(|node| node.is_protected(&flow)) {
                    self.refused += 1;
                    return;
                }
                self.deliver(now, &octets);
            }
        }
        self.collect();
        self.deliver_opened(now);
    }

    /// Hands what the plane decrypted to the applications.
    fn deliver_opened(&mut self, now: Instant) {
        let opened = match (&mut self.node, &mut self.site) {
            (Some(node), _) => std::mem::take(&mut node.plane.opened),
            (_, Some(site)) => std::mem::take(&mut site.plane.opened),
            _ => Vec::new(),
        };
        for octets in opened {
            self.deliver(now, &octets);
        }
    }

    fn deliver(&mut self, now: Instant, octets: &[u8]) {
        let (from, to) = packet::addresses(octets);
        if self.onward.iter().any(|host| [from, to].contains(host)) && !self.is_at(to) {
            return self.send_octets(now, octets);
        }
        if !self.has(to) {
            return;
        }
        let text = packet::text(octets);
        self.inbox.push((from, text.clone()));
        if self.echo && text.starts_with("ping") {
            let (theirs, ours) = packet::ports(octets);
            let answer = text.replacen("ping", "pong", 1);
            let octets = packet::build_with_ports(to, from, (ours, theirs), &answer);
            self.send_octets(now, &octets);
        }
    }

    /// A command of the keying plane, for the kernel and for the plane.
    pub(crate) fn obey(&mut self, now: Instant, command: Command) {
        let Some(node) = &mut self.node else { return };
        match &command {
            Command::SetClass { prefix, class } => {
                node.classes.insert(*prefix, *class);
            }
            Command::ClearClass { prefix } => {
                node.classes.remove(prefix);
            }
            Command::SetPolicy { flow, policy, about } => {
                node.set_policy(*flow, Some((*policy, *about)));
            }
            Command::ClearPolicy { flow } => node.set_policy(*flow, None),
            Command::ReleaseFlow { .. } => {}
            Command::SetSubnets { subnets, .. }
            | Command::ShareSubnets { subnets, .. }
            | Command::SelectSubnets { subnets, .. } => {
                node.subnets.insert(*subnets);
            }
            Command::LinksUp { .. } => {}
            Command::ClearSubnets { subnets } => {
                node.subnets.remove(subnets);
            }
            Command::SetPortClass { prefix, ports, .. } => {
                node.ported.insert((*prefix, *ports));
            }
            Command::ClearPortClass { prefix, ports } => {
                node.ported.remove(&(*prefix, *ports));
            }
            Command::WatchFlow(flow) => {
                node.watched.insert(*flow);
            }
            Command::AddSa(pair) => {
                let host = |selectors: &[sa::TrafficSelector]| selectors.first()?.as_host();
                let near = pair.translation.map(|t| t.own()).or_else(|| host(&pair.local));
                let ends = near.zip(host(&pair.remote));
                node.fresh.extend(ends.and_then(|(near, far)| Flow::new(near, far)));
            }
            Command::MoveSa { .. }
            | Command::RemoveSa(_)
            | Command::RevokeSa(_)
            | Command::AskUse(_) => {}
        }
        node.plane.obey(now, command);
        self.collect();
    }

    /// Takes over what the plane put out.
    pub(crate) fn collect(&mut self) {
        if let Some(site) = &mut self.site {
            self.outbox.extend(site.take());
        }
        let Some(node) = &mut self.node else { return };
        for out in node.plane.take() {
            self.outbox.push_back(match out {
                Out::Esp(envelope, octets) => Sent::Esp(envelope, octets),
                Out::Clear(octets) => Sent::Clear(octets),
            });
        }
    }
}

impl Node {
    fn class(&self, to: IpAddr) -> Option<Class> {
        let covering = self.classes.iter().filter(|(prefix, _)| prefix.contains(to));
        covering.max_by_key(|(prefix, _)| prefix.len()).map(|(_, class)| *class)
    }

    /// Where the node's routes lead: as the daemon lays the ground.
    fn way(&self, flow: Flow) -> Way {
        if self.subnets.iter().any(|subnets| subnets.contains(&flow)) {
            return Way::Device;
        }
        let to = flow.dst();
        let policies: Vec<(Policy, About)> =
            self.policies.get(&to).into_iter().flat_map(BTreeMap::values).copied().collect();
        let ported = self.ported.iter().any(|(prefix, _)| prefix.contains(to));
        if ported || self.watched.iter().any(|flow| flow.dst() == to) {
            return Way::Device;
        }
        let all = |policy| {
            policies.iter().any(|(_, about)| *about == About::Destination)
                && policies.iter().all(|(p, _)| *p == policy)
        };
        if all(Policy::Pass) {
            return Way::Clear;
        }
        if all(Policy::Deny) {
            return Way::Nowhere;
        }
        if policies.iter().any(|(p, _)| matches!(p, Policy::Hold | Policy::Encrypt(_))) {
            return Way::Device;
        }
        match self.class(to) {
            None | Some(Class::Pass) => Way::Clear,
            Some(Class::Block) => Way::Nowhere,
            Some(Class::Trap { .. }) => Way::Device,
        }
    }

    /// Flows that go in the clear although a pair of theirs is received on since last asked: who
    /// answers what comes out of it would answer in the clear. That a class leads them to the plane
    /// is not enough: the kernel excepts hosts behind a gateway, and gateways on the link.
    pub(crate) fn open_beside_a_pair(&mut self) -> Vec<Flow> {
        let fresh = std::mem::take(&mut self.fresh);
        fresh.into_iter().filter(|flow| self.is_open(*flow)).collect()
    }

    /// Flows of which the kernel has been told, and not that they are forgotten.
    pub(crate) fn policies(&self) -> usize {
        self.policies.values().map(BTreeMap::len).sum()
    }

    fn is_open(&self, flow: Flow) -> bool {
        let said = self.policies.get(&flow.dst()).into_iter().flat_map(|of| of.keys());
        let known = said.into_iter().any(|(src, _)| *src == flow.src())
            || self.subnets.iter().any(|subnets| subnets.contains(&flow));
        !known || matches!(self.way(flow), Way::Clear)
    }

    /// Whether what comes to a flow's near end in the clear is refused.
    fn is_protected(&self, flow: &Flow) -> bool {
        self.protected.contains(flow) || self.subnets.iter().any(|subnets| subnets.contains(flow))
    }

    fn set_policy(&mut self, flow: Flow, policy: Option<(Policy, About)>) {
        self.watched.remove(&flow);
        let policies = self.policies.entry(flow.dst()).or_default();
        match policy {
            Some(policy) => policies.insert((flow.src(), flow.ports()), policy),
            None => policies.remove(&(flow.src(), flow.ports())),
        };
        match policy.map(|(policy, _)| policy) {
            Some(Policy::Encrypt(_)) => {
                self.protected.insert(flow);
            }
            Some(Policy::Pass) | None => {
                self.protected.remove(&flow);
            }
            Some(Policy::Hold | Policy::Deny) => {}
        }
    }

    /// Hands the plane's notices to keying; whether there were any.
    pub(crate) fn drain_notices(&mut self, now: Instant) -> bool {
        let notices = self.plane.notices();
        let any = !notices.is_empty();
        for notice in notices {
            self.keying.handle_notice(now, notice);
        }
        any
    }

    /// How the first destination with this address stands.
    pub(crate) fn state_of(&self, now: Instant, dst: IpAddr) -> Option<keying::Destination> {
        self.keying.destinations(now).into_iter().find(|d| d.destination == dst)
    }
}

/// A short while, for tests that wait.
pub(crate) fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}
