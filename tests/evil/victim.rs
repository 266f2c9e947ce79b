//! The machine under attack, with an owner who answers its questions and holds it to its promises:
//! nobody is established without a verdict and a key, nothing is installed beyond a grant, what is
//! told is told in order, and every table has an end.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ike::{
    Assigned, Child, ChildRequest, Config, Credential, Datagram, Event, Grant, Identity, Ike,
    IkeId, Initiate, NeedChild, Output, PeerVerdict, Ticket, Transmit,
};
use sa::{Mode, SaId, TrafficSelector};

use super::peer::{Manners, Proof, public, sign};

pub(crate) const VICTIM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
pub(crate) const HONEST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 3));
pub(crate) const EVIL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 66));

/// Whose key pair is whose.
pub(crate) const VICTIMS_KEY: usize = 0;
pub(crate) const HONEST_KEY: usize = 1;
pub(crate) const EVIL_KEY: usize = 2;
pub(crate) const NOBODYS_KEY: usize = 3;

/// The one address behind each outer one.
pub(crate) fn inner(outer: IpAddr) -> IpAddr {
    match outer {
        IpAddr::V4(a) => IpAddr::from([10, 0, 0, a.octets()[3]]),
        IpAddr::V6(_) => outer,
    }
}

fn host(outer: IpAddr) -> Vec<TrafficSelector> {
    vec![TrafficSelector::host(inner(outer))]
}

/// A grant for whom this key proves.
pub(crate) fn grant(key: usize, own: IpAddr, peer: IpAddr) -> Grant {
    grant_by(public(key).into(), own, peer)
}

fn grant_by(key: Credential, own: IpAddr, peer: IpAddr) -> Grant {
    Grant {
        key,
        remote: host(peer),
        local: host(own),
        transport: false,
        assigned: Assigned::Nothing,
    }
}

/// Who both are to each other: who proves nothing has no name.
fn names(manners: Manners, own: IpAddr, peer: IpAddr) -> (Identity, Identity) {
    match manners.proof {
        Proof::Nothing => (Identity::Null, Identity::Null),
        Proof::Signature | Proof::Secret => (Identity::Address(own), Identity::Address(peer)),
    }
}

/// What an IKE SA may become.
#[derive(Clone, Debug)]
struct Expected {
    identity: Identity,
    remote: Vec<TrafficSelector>,
    local: Vec<TrafficSelector>,
}

/// A machine and its owner.
pub(crate) struct Owned {
    pub(crate) ike: Ike,
    pub(crate) now: Instant,
    addr: IpAddr,
    key: usize,
    pub(crate) verdicts: BTreeMap<Identity, PeerVerdict>,
    expected: BTreeMap<IkeId, Expected>,
    pub(crate) established: BTreeMap<IkeId, Identity>,
    pub(crate) children: BTreeMap<SaId, Child>,
    pub(crate) events: Vec<Event>,
    /// What it was given to come back with.
    pub(crate) tickets: Vec<Ticket>,
    /// How often it was asked for one more child.
    pub(crate) children_asked: usize,
    /// Questions not answered yet.
    pub(crate) waiting: VecDeque<Output>,
    /// Answer them at once.
    pub(crate) prompt: bool,
    /// Datagrams not looked at yet.
    pub(crate) sent: VecDeque<Transmit>,
    limit: usize,
    most: usize,
}

impl Owned {
    /// A victim, who knows an honest peer and an evil one.
    pub(crate) fn victim(seed: u64) -> Self {
        let mut victim = Self::new(VICTIM, VICTIMS_KEY, seed);
        victim.knows(HONEST, HONEST_KEY);
        victim.knows(EVIL, EVIL_KEY);
        victim
    }

    pub(crate) fn new(addr: IpAddr, key: usize, seed: u64) -> Self {
        Self::with(addr, key, seed, |_| {})
    }

    /// One that gives tickets and takes them, and knows what it has lost.
    pub(crate) fn equipped(addr: IpAddr, key: usize, seed: u64) -> Self {
        Self::with(addr, key, seed, |config| {
            config.resumption = true;
            config.compatibility = true;
            config.ticket_keys = vec![[3; 32].into()];
            config.token_secret = Some([4; 32].into());
            config.started = Duration::from_secs(1_800_000_000);
        })
    }

    pub(crate) fn with(
        addr: IpAddr,
        key: usize,
        seed: u64,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let mut octets = [7; 32];
        octets[..8].copy_from_slice(&seed.to_be_bytes());
        let mut config = Config::new(public(key));
        change(&mut config);
        config.half_open_limit = 24;
        config.cookie_threshold = 8;
        let limit = config.half_open_limit;
        // Far from zero, so that a clock that goes back stays representable.
        let now = Instant::now() + Duration::from_secs(1 << 20);
        Self {
            ike: Ike::new(config, octets, now),
            now,
            addr,
            key,
            verdicts: BTreeMap::new(),
            expected: BTreeMap::new(),
            established: BTreeMap::new(),
            children: BTreeMap::new(),
            events: Vec::new(),
            tickets: Vec::new(),
            children_asked: 0,
            waiting: VecDeque::new(),
            prompt: true,
            sent: VecDeque::new(),
            limit,
            most: 0,
        }
    }

    /// Whom it knows, and by what key.
    pub(crate) fn knows(&mut self, peer: IpAddr, key: usize) {
        let verdict = PeerVerdict::Known {
            identity: Identity::Address(self.addr),
            grants: vec![grant(key, self.addr, peer)],
        };
        self.verdicts.insert(Identity::Address(peer), verdict);
    }

    /// Whom it knows otherwise than by a key: by a secret, or as nobody at all.
    pub(crate) fn knows_by(&mut self, peer: IpAddr, manners: Manners, key: usize) {
        let (own, peers) = names(manners, self.addr, peer);
        let grants = vec![grant_by(manners.credential(key), self.addr, peer)];
        self.verdicts.insert(peers, PeerVerdict::Known { identity: own, grants });
    }

    /// Calls.
    pub(crate) fn call(&mut self, peer: IpAddr, key: usize) -> IkeId {
        self.call_by(peer, Manners::default(), key)
    }

    /// Calls somebody who proves it in this way.
    pub(crate) fn call_by(&mut self, peer: IpAddr, manners: Manners, key: usize) -> IkeId {
        let names = names(manners, self.addr, peer);
        self.call_whom(peer, names, manners.credential(key))
    }

    /// Calls somebody who is to prove it with this.
    pub(crate) fn call_holder(&mut self, peer: IpAddr, credential: Credential) -> IkeId {
        let names = names(Manners::default(), self.addr, peer);
        self.call_whom(peer, names, credential)
    }

    fn call_whom(
        &mut self,
        peer: IpAddr,
        (identity, peers): (Identity, Identity),
        credential: Credential,
    ) -> IkeId {
        let initiate = Initiate {
            identity,
            peer: peers.clone(),
            keys: vec![credential],
            ..self.initiate(peer, EVIL_KEY)
        };
        let ike = self.ike.initiate(self.now, initiate);
        self.expects(ike, peer, peers);
        ike
    }

    /// Calls with what it was given last; whether it had anything.
    pub(crate) fn resume(&mut self, peer: IpAddr, key: usize) -> bool {
        let Some(ticket) = self.tickets.pop() else { return false };
        let initiate = self.initiate(peer, key);
        let ike = self.ike.resume(self.now, initiate, &ticket, public(key));
        self.expects(ike, peer, Identity::Address(peer));
        true
    }

    fn expects(&mut self, ike: IkeId, peer: IpAddr, identity: Identity) {
        let expected = Expected { identity, remote: host(peer), local: host(self.addr) };
        self.expected.insert(ike, expected);
        self.after();
    }

    fn initiate(&self, peer: IpAddr, key: usize) -> Initiate {
        Initiate {
            local: self.addr,
            remote: peer,
            identity: Identity::Address(self.addr),
            peer: Identity::Address(peer),
            keys: vec![public(key).into()],
            child: self.wish(peer),
            ask_address: None,
        }
    }

    fn wish(&self, peer: IpAddr) -> ChildRequest {
        ChildRequest { local: host(self.addr), remote: host(peer), mode: Mode::Tunnel }
    }

    /// Asks for another child, which is to authorise it as well.
    pub(crate) fn create_child(&mut self, ike: IkeId, peer: IpAddr) {
        self.create(ike, self.wish(peer));
    }

    /// Asks for a child to another host behind the peer.
    pub(crate) fn create_child_beyond(&mut self, ike: IkeId, beyond: IpAddr) {
        self.create(
            ike,
            ChildRequest { remote: vec![TrafficSelector::host(beyond)], ..self.wish(beyond) },
        );
    }

    fn create(&mut self, ike: IkeId, wish: ChildRequest) {
        if let Some(expected) = self.expected.get_mut(&ike) {
            expected.remote.extend(&wish.remote);
            expected.local.extend(&wish.local);
        }
        self.ike.create_child(self.now, ike, wish);
    }

    /// A datagram comes in from port 500.
    pub(crate) fn hear(&mut self, from: IpAddr, octets: &[u8]) {
        self.hear_at(SocketAddr::new(from, 500), 500, octets);
    }

    pub(crate) fn hear_at(&mut self, remote: SocketAddr, port: u16, octets: &[u8]) {
        let local = SocketAddr::new(self.addr, port);
        self.ike.handle_datagram(self.now, Datagram { local, remote, octets });
        self.after();
    }

    /// How often somebody was established.
    pub(crate) fn times_established(&self) -> usize {
        self.events.iter().filter(|e| matches!(e, Event::Established { .. })).count()
    }

    /// What it has sent since this was last asked.
    pub(crate) fn said(&mut self) -> Vec<Vec<u8>> {
        self.sent.drain(..).map(|t| t.octets).collect()
    }

    /// Drains the outputs and holds the machine to its bounds. To be called after every input.
    pub(crate) fn after(&mut self) {
        let before = self.sent.len();
        while let Some(output) = self.ike.poll_output() {
            match output {
                Output::Transmit(transmit) => self.sent.push_back(transmit),
                Output::Event(event) => self.note(event),
                question => {
                    self.children_asked += usize::from(matches!(question, Output::NeedChild(_)));
                    self.waiting.push_back(question);
                    if self.prompt {
                        self.answer();
                    }
                }
            }
        }
        let datagrams = self.sent.len() - before;
        // The longest signature that anybody makes here goes in sixty; others may be due with it.
        assert!(datagrams <= 96, "{datagrams} datagrams for one input");
        assert!(self.ike.half_open() <= self.limit, "{} half-open", self.ike.half_open());
        assert_eq!(self.ike.established_count(), self.established.len());
        assert!(self.ike.len() <= 300, "{} IKE SAs", self.ike.len());
        for ike in self.established.keys() {
            let children = self.children.values().filter(|c| c.ike == *ike).count();
            assert!(children <= 64, "{children} children");
        }
        self.most = self.most.max(self.ike.len());
    }

    /// Answers one question as the verdicts have it.
    pub(crate) fn answer(&mut self) {
        match self.waiting.pop_front() {
            Some(Output::NeedPeer(need)) => {
                let verdict =
                    self.verdicts.get(&need.identity).cloned().unwrap_or(PeerVerdict::Unknown);
                self.tell(need.ike, need.identity, verdict);
            }
            Some(Output::NeedChild(need)) => self.allow(&need, true),
            Some(Output::Sign(job)) => {
                let signature = sign(self.key, job.scheme, &job.octets);
                self.ike.handle_signature(self.now, job.ike, Some(signature));
            }
            _ => {}
        }
    }

    /// Says whether an established peer may have one more child.
    pub(crate) fn allow(&mut self, need: &NeedChild, allowed: bool) {
        if let Some(expected) = self.expected.get_mut(&need.ike).filter(|_| allowed) {
            expected.remote.extend(&need.remote_selectors);
            expected.local.extend(&need.local_selectors);
        }
        self.ike.handle_child(self.now, need.ike, allowed);
    }

    /// Gives this verdict on whoever says to be `identity`.
    pub(crate) fn tell(&mut self, ike: IkeId, identity: Identity, verdict: PeerVerdict) {
        if let PeerVerdict::Known { grants, .. } = &verdict {
            let all = |of: fn(&Grant) -> &Vec<TrafficSelector>| {
                grants.iter().flat_map(|g| of(g).iter().copied()).collect()
            };
            let (remote, local) = (all(|g| &g.remote), all(|g| &g.local));
            self.expected.entry(ike).or_insert(Expected { identity, remote, local });
        }
        self.ike.handle_peer(self.now, ike, verdict);
    }

    fn note(&mut self, event: Event) {
        match &event {
            Event::Established { ike, peer, .. } => {
                let expected = self.expected.get(ike).expect("established without a verdict");
                assert_eq!(*peer.identity(), expected.identity, "established as somebody else");
                let again = self.established.insert(*ike, peer.identity().clone());
                assert_eq!(again, None, "established twice");
            }
            Event::ChildUp(child) => {
                assert!(self.established.contains_key(&child.ike), "installed before authority");
                let expected = &self.expected[&child.ike];
                let within = |have: &[TrafficSelector], may: &[TrafficSelector]| {
                    !have.is_empty() && have.iter().all(|h| may.iter().any(|m| m.covers(h)))
                };
                assert!(within(&child.remote, &expected.remote), "{child:?}");
                assert!(within(&child.local, &expected.local), "{child:?}");
                assert_ne!(child.key_in, child.key_out);
                assert_eq!(self.children.insert(child.id, (**child).clone()), None, "up twice");
            }
            Event::ChildDown { sa, .. } => {
                assert!(self.children.remove(sa).is_some(), "down and never up: {sa:?}");
            }
            Event::Ended { ike, .. } => {
                assert!(self.children.values().all(|c| c.ike != *ike), "children go first");
                self.established.remove(ike);
                self.expected.remove(ike);
            }
            Event::Ticket { ike, ticket, .. } => {
                assert!(self.established.contains_key(ike), "a ticket before authority");
                self.tickets.push(ticket.clone());
            }
            Event::Moved { ike, .. } => {
                assert!(self.established.contains_key(ike), "moved before authority");
            }
            _ => {}
        }
        self.events.push(event);
    }

    /// Lets time pass. The machine never asks to be woken again and again for nothing.
    pub(crate) fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        for _ in 0..10_000 {
            let Some((at, _)) = self.ike.poll_timeout().filter(|(at, _)| *at <= until) else {
                self.now = until;
                return;
            };
            self.now = self.now.max(at);
            let mut turns = 0;
            while self.ike.poll_timeout().is_some_and(|(at, _)| at <= self.now) {
                turns += 1;
                assert!(turns <= 50, "it wants to be woken again and again");
                self.ike.handle_timeout(self.now);
                self.after();
            }
            // What nobody delivers does not pile up.
            if self.sent.len() > 4096 {
                self.sent.clear();
            }
        }
        panic!("timers never stop");
    }

    /// Whether an honest peer is served, both ways: a whole handshake with a machine of our own.
    pub(crate) fn serves_the_honest(&mut self) {
        self.prompt = true;
        while !self.waiting.is_empty() {
            self.answer();
            self.after();
        }
        self.sent.clear();
        let mut honest = Self::new(HONEST, HONEST_KEY, u64::MAX);
        honest.now = self.now;
        honest.knows(VICTIM, VICTIMS_KEY);
        honest.call(VICTIM, VICTIMS_KEY);
        for _ in 0..40 {
            let mut quiet = true;
            for transmit in honest.sent.drain(..).collect::<Vec<_>>() {
                quiet = false;
                self.hear_at(transmit.local, transmit.remote.port(), &transmit.octets);
            }
            for transmit in self.sent.drain(..).collect::<Vec<_>>() {
                if transmit.remote.ip() == HONEST {
                    quiet = false;
                    honest.hear_at(transmit.local, transmit.remote.port(), &transmit.octets);
                }
            }
            if quiet {
                break;
            }
        }
        assert_eq!(honest.children.len(), 1, "the honest are not served: {:?}", honest.events);
        let child = honest.children.values().next().unwrap();
        let other = self.children.values().find(|c| c.spi_in == child.spi_out).expect("its child");
        assert_eq!((&other.key_in, &other.key_out), (&child.key_out, &child.key_in));
    }

    /// Goes down, and leaves nothing.
    pub(crate) fn goes_down_clean(&mut self) {
        self.ike.shutdown(self.now);
        while let Some(output) = self.ike.poll_output() {
            if let Output::Event(event) = output {
                self.note(event);
            }
        }
        assert!(self.ike.is_empty() && self.ike.half_open() == 0);
        assert_eq!(ike::internal::reserved(&self.ike), (0, 0));
        assert!(self.children.is_empty() && self.established.is_empty());
        // Answers to the dead are late: nothing comes of them.
        for question in std::mem::take(&mut self.waiting) {
            match question {
                Output::NeedPeer(need) => {
                    self.ike.handle_peer(self.now, need.ike, PeerVerdict::Unknown);
                }
                Output::NeedChild(need) => self.ike.handle_child(self.now, need.ike, true),
                Output::Sign(job) => self.ike.handle_signature(self.now, job.ike, Some(vec![0])),
                _ => {}
            }
        }
        assert!(self.ike.poll_output().is_none());
        // Cookie secrets and answers kept for the dead end by themselves.
        self.pass(Duration::from_secs(600));
        assert_eq!(self.ike.poll_timeout(), None);
    }
}
