//! Configured connections: what an administrator has written down of a peer, against all that DNS
//! may say (RFC 4322 §4.4, §12.1).
//!
//! A connection carries everything between its subnets, in one child with several selectors. What
//! lies between them is never opportunistic: it waits, or is refused, until the connection is up,
//! and no opportunistic peer may speak for an address in it. Several connections with the same
//! subnets stand in for each other, in the order of the file.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use dnskeys::{Answer, Name, Outcome, Security, Speaker};
use ike::{
    Assigned, Child, ChildRequest, Credential, End, Grant, Identity, IkeId, Initiate, NeedPeer,
    PeerVerdict,
};
use sa::{
    Command, Envelope, Flow, Mode, Policy, Prefix, SaId, Subnets, TrafficSelector, Trust, Use,
};

use crate::beside::{Fate, Wishes};
use crate::entry::Asker;
use crate::initiator::{keys_of, selectors, to_ike_key, to_speaker};
use crate::keying::Keying;
use crate::pairs::{CROSSING, GRACE, LINGER, MAX_LINGERING, QUIET};
use crate::report::{What, Why};

/// A configured connection (`[[connection]]`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Connection {
    /// Its name, for people.
    pub name: String,
    /// Whom to call, in this order; empty if it is always the peer who calls.
    pub gateways: Vec<IpAddr>,
    /// Where we call from; by default an address of ours that is in none of our subnets.
    pub local_address: Option<IpAddr>,
    /// Who we say we are; by default what the node says everywhere.
    pub local_identity: Option<Identity>,
    /// Who the peer must say it is; by default the gateway's address.
    pub remote_identity: Option<Identity>,
    /// How the peer proves it.
    pub remote_keys: RemoteKeys,
    /// Our side.
    pub local_subnets: Vec<Prefix>,
    /// The peer's side.
    pub remote_subnets: Vec<Prefix>,
    /// Tunnel or transport.
    pub mode: Mode,
    /// Who calls, and when.
    pub start: Start,
}

/// By what a configured peer proves who it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RemoteKeys {
    /// Any of these.
    Known(Vec<Credential>),
    /// Those that DNS has at its identity's name, if the answer is DNSSEC-secure.
    Dns,
}

/// When a connection is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Start {
    /// When there is a packet for it.
    #[default]
    Trap,
    /// At the start, and again whenever it ends.
    Now,
    /// When the peer calls.
    Accept,
}

/// How a connection stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectionState {
    /// It is up, and has just missed a sign of life: others carry its flows.
    Silent,
    /// Nothing has been asked of it.
    Idle,
    /// DNS is asked, or a gateway called.
    Calling,
    /// It carries packets.
    Up,
    /// No gateway could be had; it is tried again soon.
    Failed,
}

impl ConnectionState {
    /// As printed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Idle => "idle",
            Self::Calling => "calling",
            Self::Up => "up",
            Self::Failed => "failed",
        }
    }
}

/// A connection as a person is shown it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectionView {
    /// Its name.
    pub name: String,
    /// How it stands.
    pub state: ConnectionState,
    /// What it carries.
    pub subnets: Vec<Subnets>,
    /// The peer's outer address.
    pub gateway: Option<IpAddr>,
    /// The mode of the pair that is sent on.
    pub mode: Option<Mode>,
    /// How long it has stood so.
    pub since: Duration,
    /// Why it failed last.
    pub reason: Option<Why>,
    /// Pairs that exist for it.
    pub pairs: usize,
    /// How those that are sent on are used, as last asked.
    pub used: Use,
}

/// A connection at work.
#[derive(Debug)]
pub(crate) struct Configured {
    pub(crate) connection: Connection,
    pub(crate) subnets: Vec<Subnets>,
    /// Parts of them that the pair in use carries, where it does not carry them whole.
    pub(crate) pieces: Vec<Subnets>,
    pub(crate) state: ConnectionState,
    since: Instant,
    why: Option<Why>,
    /// The gateway to call next; counts on, and is taken modulo their number.
    gateway: usize,
    /// Gateways called in vain since the last success.
    tried: usize,
    /// How long the last failure was waited out.
    wait: Duration,
    deadline: Option<Instant>,
    /// The packet that made us call.
    packet: Option<Flow>,
    /// Whether another connection has subnets of this one's.
    pub(crate) has_siblings: bool,
    /// Asked whether it lives, and not answered yet.
    pub(crate) asked: bool,
    /// It has not answered in time: others carry its flows, until it does.
    pub(crate) silent: bool,
    pub(crate) pairs: BTreeMap<SaId, Joint>,
    /// The pair that is sent on.
    pub(crate) current: Option<SaId>,
    /// Pairs beside it that carry what it does not.
    pub(crate) beside: BTreeSet<SaId>,
    /// What else the peer is asked for.
    pub(crate) wishes: Wishes,
    /// The pair to send on once the peer is known to have it.
    pub(crate) next: Option<SaId>,
    /// Replaced pairs that still receive.
    pub(crate) replaced: Vec<SaId>,
}

/// One of a connection's pairs.
#[derive(Debug)]
pub(crate) struct Joint {
    pub(crate) ike: IkeId,
    pub(crate) local: Vec<TrafficSelector>,
    pub(crate) remote: Vec<TrafficSelector>,
    pub(crate) envelope: Envelope,
    mode: Mode,
    since: Instant,
    /// Whether we asked for it.
    pub(crate) ours: bool,
    /// The pair that it replaces.
    pub(crate) rekeys: Option<SaId>,
    proven: bool,
    pub(crate) doomed: bool,
    used: Use,
}

impl Connection {
    /// Every pair of subnets of one family.
    #[must_use]
    pub fn subnets(&self) -> Vec<Subnets> {
        let pairs = |local: &Prefix| {
            let local = *local;
            self.remote_subnets.iter().filter_map(move |remote| Subnets::new(local, *remote))
        };
        self.local_subnets.iter().flat_map(pairs).collect()
    }

    fn selectors(prefixes: &[Prefix]) -> Vec<TrafficSelector> {
        prefixes.iter().map(|prefix| TrafficSelector::prefix(*prefix)).collect()
    }

    fn knows(&self, identity: &Identity) -> bool {
        match &self.remote_identity {
            Some(wanted) => same(wanted, identity),
            None => self.gateways.iter().any(|g| *identity == Identity::Address(*g)),
        }
    }
}

impl Configured {
    pub(crate) fn new(connection: Connection, now: Instant) -> Self {
        Self {
            subnets: connection.subnets(),
            pieces: Vec::new(),
            connection,
            state: ConnectionState::Idle,
            since: now,
            why: None,
            gateway: 0,
            tried: 0,
            wait: FIRST_WAIT,
            deadline: None,
            packet: None,
            has_siblings: false,
            asked: false,
            silent: false,
            pairs: BTreeMap::new(),
            current: None,
            beside: BTreeSet::new(),
            wishes: Wishes::default(),
            next: None,
            replaced: Vec::new(),
        }
    }

    /// Nothing of it is wanted any more: it lies between nothing, and calls nobody.
    pub(crate) fn retire(&mut self) {
        let connection = Connection {
            gateways: Vec::new(),
            local_subnets: Vec::new(),
            remote_subnets: Vec::new(),
            start: Start::Accept,
            ..self.connection.clone()
        };
        *self = Self::new(connection, self.since);
    }

    /// Whether what is not carried may be soon: it is being called, or the next packet has it called.
    pub(crate) fn may_come_up(&self) -> bool {
        match self.state {
            ConnectionState::Calling => true,
            ConnectionState::Idle => self.connection.start != Start::Accept,
            ConnectionState::Up | ConnectionState::Silent | ConnectionState::Failed => false,
        }
    }

    fn next_gateway(&self) -> Option<IpAddr> {
        let at = self.gateway.checked_rem(self.connection.gateways.len())?;
        self.connection.gateways.get(at).copied()
    }

    /// Whether it is to be there without a packet that asks for it: at all times, or beside others
    /// that would keep its packets from asking.
    pub(crate) fn stands_by(&self) -> bool {
        match self.connection.start {
            Start::Now => true,
            Start::Trap => self.has_siblings,
            Start::Accept => false,
        }
    }

    fn is_proven(&self, sa: SaId) -> bool {
        self.pairs.get(&sa).is_some_and(|pair| pair.proven)
    }

    /// The IKE SA of a pair that is to replace others and is not known to have reached the peer.
    fn unproven_winner(&self) -> Option<IkeId> {
        let replaces = |sa: &SaId| self.pairs.iter().any(|(id, pair)| pair.doomed && id != sa);
        let winner = self.next.or_else(|| self.current.filter(replaces))?;
        self.pairs.get(&winner).filter(|pair| !pair.proven).map(|pair| pair.ike)
    }

    /// The IKE SA of the pair that is sent on.
    pub(crate) fn current_ike(&self) -> Option<IkeId> {
        self.pairs.get(&self.current?).map(|pair| pair.ike)
    }

    /// The pairs that are sent on, the one that carries most first as a rule.
    pub(crate) fn in_use(&self) -> impl Iterator<Item = (SaId, &Joint)> {
        let all = self.current.iter().chain(&self.beside);
        all.filter_map(|sa| Some((*sa, self.pairs.get(sa)?)))
    }

    /// The pairs that nothing is sent on, and nothing will be.
    fn idle(&self) -> impl Iterator<Item = (SaId, &Joint)> {
        let wanted =
            |sa: &SaId| [self.current, self.next].contains(&Some(*sa)) || self.beside.contains(sa);
        self.pairs.iter().filter(move |(sa, _)| !wanted(sa)).map(|(sa, pair)| (*sa, pair))
    }

    /// The pair that carries all between two prefixes.
    pub(crate) fn carries(&self, subnets: &Subnets) -> Option<SaId> {
        let (local, remote) = (subnets.local(), subnets.remote());
        let covers = |selectors: &[TrafficSelector], prefix| {
            selectors.iter().any(|s| s.covers(&TrafficSelector::prefix(prefix)))
        };
        let whole = |pair: &Joint| covers(&pair.local, local) && covers(&pair.remote, remote);
        self.in_use().find(|(_, pair)| whole(pair)).map(|(sa, _)| sa)
    }
}

impl Keying {
    /// Announces what the connections cover, and calls those that want it.
    pub(crate) fn begin_connections(&mut self, now: Instant) {
        for index in 0..self.configured.len() {
            self.lay_subnets(index);
        }
        for index in 0..self.configured.len() {
            let wanted = |c: &Configured| {
                c.connection.start == Start::Now && c.state == ConnectionState::Idle
            };
            if self.configured.get(index).is_some_and(wanted) {
                self.connect(now, index);
            }
        }
    }

    /// The connections that a flow belongs to: those of the most specific subnets.
    pub(crate) fn connections_of(&self, flow: Flow) -> Vec<usize> {
        let specific = |s: &Subnets| (s.remote().len(), s.local().len());
        let covering =
            |c: &Configured| c.subnets.iter().filter(|s| s.contains(&flow)).map(specific).max();
        let Some(best) = self.configured.iter().filter_map(covering).max() else {
            return Vec::new();
        };
        (0..)
            .zip(&self.configured)
            .filter(|(_, c)| covering(c) == Some(best))
            .map(|(i, _)| i)
            .collect()
    }

    /// The name of the connection that a flow belongs to.
    #[must_use]
    pub fn connection_of(&self, flow: Flow) -> Option<&str> {
        let first = *self.connections_of(flow).first()?;
        self.configured.get(first).map(|c| c.connection.name.as_str())
    }

    /// The connection to a destination, for a person who asks. One to everywhere is not meant: it
    /// is for borrowed addresses only.
    pub(crate) fn connection_to(&self, address: IpAddr) -> Option<&Configured> {
        let covering = |c: &Configured| {
            let remotes = c.subnets.iter().map(Subnets::remote);
            remotes.filter(|p| p.len() > 0 && p.contains(address)).map(|p| p.len()).max()
        };
        let found = self.configured.iter().filter(|c| covering(c).is_some());
        found.max_by_key(|c| (covering(c), c.state == ConnectionState::Up))
    }

    /// Closes what the connections to a destination have. One to everywhere is not meant.
    pub(crate) fn close_connections_to(&mut self, now: Instant, dst: IpAddr) {
        let leads_there = |s: &Subnets| s.remote().len() > 0 && s.remote().contains(dst);
        let meant = self.configured.iter().filter(|c| c.subnets.iter().any(leads_there));
        let all: BTreeSet<IkeId> =
            meant.flat_map(|c| c.pairs.values().map(|pair| pair.ike)).collect();
        for ike in all {
            self.close_ike(now, ike);
        }
    }

    /// This packet waits for these connections.
    pub(crate) fn connections_wanted(&mut self, now: Instant, connections: &[usize], packet: Flow) {
        for index in connections {
            let Some(configured) = self.configured.get_mut(*index) else { continue };
            match configured.state {
                ConnectionState::Idle if configured.connection.start != Start::Accept => {
                    configured.packet = Some(packet);
                    self.connect(now, *index);
                }
                state => {
                    let wished = state == ConnectionState::Up && self.wish(now, *index, packet);
                    // The notice has crossed our own command, or the data plane has used the pair
                    // up.
                    if !wished {
                        self.say_subnets(*index);
                    }
                }
            }
        }
    }

    /// Calls the next gateway, or gives up for a while.
    pub(crate) fn connect(&mut self, now: Instant, index: usize) {
        let own = self.config.identity.clone();
        loop {
            let Some(configured) = self.configured.get(index) else { return };
            let exhausted = configured.tried >= configured.connection.gateways.len();
            let Some(gateway) = configured.next_gateway().filter(|_| !exhausted) else {
                return self.connection_failed(now, index);
            };
            let connection = &configured.connection;
            let peer = connection.remote_identity.clone().unwrap_or(Identity::Address(gateway));
            let Some(local) = self.connection_address(connection, gateway) else {
                self.next_gateway(index, Why::NoLocalAddress);
                continue;
            };
            match &connection.remote_keys {
                RemoteKeys::Known(keys) => {
                    let identity = connection.local_identity.clone().or(own);
                    let initiate = Initiate {
                        local,
                        remote: gateway,
                        identity: identity.unwrap_or(Identity::Address(local)),
                        peer,
                        keys: keys.clone(),
                        child: request(connection, configured.packet),
                        ask_address: None,
                    };
                    self.call_configured(now, index, initiate);
                }
                RemoteKeys::Dns => match name_of(&peer) {
                    Some(name) => {
                        self.enter_connection(now, index, ConnectionState::Calling);
                        self.ask(name, Asker::Connection(index));
                    }
                    None => {
                        self.next_gateway(index, Why::Dns(dnskeys::Reason::NoRecord));
                        continue;
                    }
                },
            }
            return;
        }
    }

    fn next_gateway(&mut self, index: usize, why: Why) {
        if let Some(configured) = self.configured.get_mut(index) {
            configured.gateway = configured.gateway.wrapping_add(1);
            configured.tried += 1;
            configured.why = Some(why);
        }
    }

    fn call_configured(&mut self, now: Instant, index: usize, initiate: Initiate) {
        self.enter_connection(now, index, ConnectionState::Calling);
        self.counters.calls += 1;
        let (local, gateway) = (initiate.local, initiate.remote);
        self.report_connection(now, index, |name| What::ConnectionCalling { name, gateway });
        let ike = self.call(now, initiate);
        self.configured_calls.insert(ike, (index, local, gateway));
    }

    /// DNS has the keys of a configured peer, or has not.
    pub(crate) fn connection_answered(&mut self, now: Instant, index: usize, answer: &Answer) {
        let Some(configured) = self.configured.get(index) else { return };
        if configured.state != ConnectionState::Calling {
            return;
        }
        let Some(gateway) = configured.next_gateway() else { return };
        let connection = &configured.connection;
        let peer = connection.remote_identity.clone().unwrap_or(Identity::Address(gateway));
        let local = self.connection_address(connection, gateway);
        let own = connection.local_identity.clone().or_else(|| self.config.identity.clone());
        match (configured_keys(answer, &peer), local) {
            (Ok(keys), Some(local)) => {
                let identity = own.unwrap_or(Identity::Address(local));
                let child = request(connection, configured.packet);
                let remote = gateway;
                let ask_address = None;
                let initiate = Initiate { local, remote, identity, peer, keys, child, ask_address };
                self.call_configured(now, index, initiate);
            }
            (Err(why), _) => {
                self.next_gateway(index, why);
                self.connect(now, index);
            }
            (_, None) => {
                self.next_gateway(index, Why::NoLocalAddress);
                self.connect(now, index);
            }
        }
    }

    /// Our outer address towards a configured gateway. An inner address of ours will do only if
    /// there is no other, or if it has to be one.
    fn connection_address(&self, connection: &Connection, gateway: IpAddr) -> Option<IpAddr> {
        let fits = |a: &IpAddr| a.is_ipv4() == gateway.is_ipv4();
        let inner =
            |a: &IpAddr| connection.local_subnets.iter().any(|p| p.len() > 0 && p.contains(*a));
        let own = || self.config.addresses.iter().copied().filter(fits);
        match connection.local_address {
            Some(address) => Some(address).filter(fits),
            // In transport mode what is protected goes between the outer addresses themselves.
            None if connection.mode == Mode::Transport => own().find(inner),
            None => own().find(|a| !inner(a)).or_else(|| own().next()),
        }
    }

    /// No gateway is left: what waits is refused, and after a while all are tried again.
    fn connection_failed(&mut self, now: Instant, index: usize) {
        let Some(configured) = self.configured.get_mut(index) else { return };
        let wait = configured.wait;
        configured.wait = (wait * 2).min(LONGEST_WAIT);
        configured.tried = 0;
        let why = configured.why.unwrap_or(Why::NoLocalAddress);
        self.report_connection(now, index, |name| What::ConnectionFailed { name, why });
        if self.configured.get(index).is_some_and(|c| c.current.is_none()) {
            self.enter_connection(now, index, ConnectionState::Failed);
        }
        self.set_connection_deadline(index, Some(now + wait));
        self.stays_up(now, index);
    }

    /// The peer renews nothing: it is called anew, and what there is carries until that does.
    pub(crate) fn connect_anew(&mut self, now: Instant, index: usize) {
        let Some(configured) = self.configured.get_mut(index) else { return };
        let called = self.configured_calls.values().any(|call| call.0 == index);
        let up = configured.state == ConnectionState::Up;
        if up && configured.connection.start != Start::Accept && !called && !self.stopping {
            // All its gateways, again.
            configured.tried = 0;
            self.connect(now, index);
        }
    }

    /// What carries will do: a call beside it is taken back, if it can be.
    pub(crate) fn withdraw_connection_calls(&mut self, now: Instant, index: usize) {
        let calls = self.configured_calls.iter().filter(|(_, call)| call.0 == index);
        for ike in calls.map(|(ike, _)| *ike).collect::<Vec<_>>() {
            if self.ike.withdraw(now, ike) {
                self.configured_calls.remove(&ike);
                self.counters.calls_withdrawn += 1;
            }
        }
        if self.configured_calls.values().all(|call| call.0 != index) {
            self.stays_up(now, index);
        }
    }

    /// A call beside what carries has ended in vain.
    fn stays_up(&mut self, now: Instant, index: usize) {
        let up = |c: &Configured| c.state == ConnectionState::Calling && c.current.is_some();
        if self.configured.get(index).is_some_and(up) {
            self.enter_connection(now, index, ConnectionState::Up);
        }
    }

    /// A call of ours for a connection has ended in vain.
    pub(crate) fn connection_call_ended(&mut self, now: Instant, index: usize, why: End) {
        self.next_gateway(index, Why::Gateway(why));
        let up = self.configured.get(index).is_none_or(|c| c.current.is_some());
        self.stays_up(now, index);
        if !up && !self.stopping {
            self.connect(now, index);
        }
    }

    /// Which connection a peer that calls us wants.
    pub(crate) fn connection_wanted_by(&self, need: &NeedPeer) -> Option<usize> {
        let meets = |selectors: &[TrafficSelector], prefixes: &[Prefix]| {
            let prefixes = Connection::selectors(prefixes);
            selectors.iter().any(|s| prefixes.iter().any(|p| p.intersection(s).is_some()))
        };
        let wants_us = |connection: &Connection| match (&need.wanted, &connection.local_identity) {
            (Some(wanted), Some(own)) => same(wanted, own),
            _ => true,
        };
        let fits = |c: &Configured| {
            c.connection.knows(&need.identity)
                && wants_us(&c.connection)
                && meets(&need.remote_selectors, &c.connection.remote_subnets)
                && meets(&need.local_selectors, &c.connection.local_subnets)
        };
        // Of several links with one peer the one that it calls by; else one that is not up.
        let likely = |c: &Configured| {
            let connection = &c.connection;
            (
                connection.gateways.contains(&need.remote.ip()),
                connection.local_address == Some(need.local.ip()),
                c.current.is_none(),
            )
        };
        let fitting = self.configured.iter().enumerate().filter(|(_, c)| fits(c));
        // The first of equals.
        fitting.rev().max_by_key(|(_, c)| likely(c)).map(|(index, _)| index)
    }

    /// A configured peer calls.
    pub(crate) fn connection_visited(&mut self, now: Instant, need: NeedPeer, index: usize) {
        let Some(configured) = self.configured.get(index) else { return };
        match &configured.connection.remote_keys {
            RemoteKeys::Known(keys) => {
                let keys = keys.clone();
                self.grant_connection(now, &need, index, keys);
            }
            RemoteKeys::Dns => {
                let Some(name) = name_of(&need.identity) else {
                    return self.refuse(now, &need, Why::Authority(dnskeys::Refusal::NoEvidence));
                };
                if self.configured_visitors.len() >= MAX_VISITORS {
                    self.counters.over_budget += 1;
                    return self.refuse(now, &need, Why::Budget);
                }
                let ike = need.ike;
                self.configured_visitors.insert(ike, (index, need));
                self.ask(name, Asker::ConnectionVisitor(ike));
            }
        }
    }

    /// DNS has the keys of a configured peer that calls, or has not.
    pub(crate) fn connection_visitor_answered(
        &mut self,
        now: Instant,
        ike: IkeId,
        answer: &Answer,
    ) {
        let Some((index, need)) = self.configured_visitors.remove(&ike) else { return };
        match configured_keys(answer, &need.identity) {
            Ok(keys) => self.grant_connection(now, &need, index, keys),
            Err(why) => self.refuse(now, &need, why),
        }
    }

    fn grant_connection(
        &mut self,
        now: Instant,
        need: &NeedPeer,
        index: usize,
        keys: Vec<Credential>,
    ) {
        let Some(configured) = self.configured.get(index) else { return };
        let connection = &configured.connection;
        let (local, remote) = (
            Connection::selectors(&connection.local_subnets),
            Connection::selectors(&connection.remote_subnets),
        );
        let ours = connection.local_identity.clone().or_else(|| self.config.identity.clone());
        let identity = ours.unwrap_or_else(|| Identity::Address(need.local.ip()));
        let transport = connection.mode == Mode::Transport;
        let grant = |key| Grant {
            key,
            remote: remote.clone(),
            local: local.clone(),
            transport,
            assigned: Assigned::Nothing,
        };
        let grants = keys.into_iter().map(grant).collect();
        self.configured_visits.insert(need.ike, (index, need.local.ip(), need.remote.ip()));
        self.ike.handle_peer(now, need.ike, PeerVerdict::Known { identity, grants });
    }

    /// A connection's child is agreed.
    pub(crate) fn connection_child_up(&mut self, now: Instant, index: usize, child: Child) {
        let (id, ike, rekeys, ours) = (child.id, child.ike, child.rekeys, child.initiator);
        let within = |selectors: &[TrafficSelector], prefixes: &[Prefix]| {
            let prefixes = Connection::selectors(prefixes);
            selectors.iter().all(|s| prefixes.iter().any(|p| p.covers(s)))
        };
        let Some(configured) = self.configured.get_mut(index) else { return };
        let connection = &configured.connection;
        if !within(&child.local, &connection.local_subnets)
            || !within(&child.remote, &connection.remote_subnets)
        {
            return self.ike.close_child(now, id);
        }
        let is_late =
            rekeys.and_then(|old| configured.pairs.get(&old)).is_some_and(|old| old.doomed);
        let joint = Joint {
            ike,
            local: child.local.clone(),
            remote: child.remote.clone(),
            envelope: child.envelope,
            mode: child.mode,
            since: now,
            ours,
            rekeys,
            proven: ours,
            // What replaces a pair that is to go has to go as well.
            doomed: is_late,
            used: Use::default(),
        };
        configured.pairs.insert(id, joint);
        let fate = configured.fate(id);
        let (current, awaited) = (configured.current, configured.next);
        let calling = configured.state == ConnectionState::Calling;
        self.joints.insert(id, index);
        // Whose key this machine's owner has written down may be anywhere.
        self.ike.allow_moves(ike, true);
        if let Some(peer) = self.peers.get_mut(&ike) {
            peer.pairs.insert(id);
        }
        self.counters.pairs += 1;
        // The peer's first packet may be answered before we send on the pair.
        self.lay_subnets(index);
        let pair = self.pair_for(child, Trust::Configured);
        self.command(Command::AddSa(Box::new(pair)));
        match current {
            Some(old) if rekeys == Some(old) && ours => self.use_pair(now, index, id),
            Some(old) if rekeys == Some(old) => self.use_when_proven(now, index, id, GRACE),
            _ if is_late && current.is_some() => {
                self.set_connection_deadline(index, Some(now + GRACE));
            }
            _ if fate == Fate::Beside && ours => self.use_beside(now, index, id),
            _ if fate == Fate::Beside => self.configured_after_drain.push((index, id)),
            _ if fate == Fate::Superfluous => self.ike.close_child(now, id),
            // What waits to be proven has already won against what is sent on.
            _ if awaited.is_some_and(|old| rekeys != Some(old)) => {
                self.settle_connection(now, index, awaited.unwrap_or(id), id);
            }
            Some(old) => self.settle_connection(now, index, old, id),
            None if ours => self.use_pair(now, index, id),
            // What waits may overtake our answer: a moment, until the peer has sent something.
            None if calling => self.use_when_proven(now, index, id, QUIET),
            None => self.configured_after_drain.push((index, id)),
        }
        if ours && rekeys.is_none() {
            self.wish_answered(now, index, Some(id));
        }
        // A call beside what carries has come to this, and may have lost against the peer's own.
        if self.configured_calls.values().all(|call| call.0 != index) {
            self.stays_up(now, index);
        }
    }

    /// Sends on the pairs whose answers have left.
    pub(crate) fn use_answered(&mut self, now: Instant) {
        for (index, id) in std::mem::take(&mut self.configured_after_drain) {
            match self.configured.get(index) {
                Some(configured) if configured.current.is_none() => self.use_pair(now, index, id),
                Some(configured) if configured.fate(id) == Fate::Beside => {
                    self.use_beside(now, index, id);
                }
                _ => {}
            }
        }
    }

    fn use_when_proven(&mut self, now: Instant, index: usize, id: SaId, patience: Duration) {
        if let Some(configured) = self.configured.get_mut(index) {
            configured.next = Some(id);
        }
        self.set_connection_deadline(index, Some(now + patience));
    }

    /// Sends on a pair from now on.
    fn use_pair(&mut self, now: Instant, index: usize, id: SaId) {
        let Some(configured) = self.configured.get_mut(index) else { return };
        let Some(pair) = configured.pairs.get_mut(&id) else { return };
        pair.doomed = false;
        let gateway = pair.envelope.remote.ip();
        configured.turn_to(id);
        configured.next = None;
        configured.tried = 0;
        configured.why = None;
        configured.wait = FIRST_WAIT;
        (configured.asked, configured.silent) = (false, false);
        let has_siblings = configured.has_siblings;
        let doomed = configured.pairs.values().any(|pair| pair.doomed);
        let idle = configured.idle().next().is_some();
        let patience = doomed.then_some(GRACE).or_else(|| idle.then_some(CROSSING));
        self.set_connection_deadline(index, patience.map(|patience| now + patience));
        self.enter_connection(now, index, ConnectionState::Up);
        if has_siblings {
            self.pulse_at.get_or_insert(now + crate::links::PULSE);
        }
        self.report_connection(now, index, |name| What::ConnectionUp { name, sa: id, gateway });
        self.report_narrowed(now, index, id);
    }

    /// Two pairs for one connection, of which neither replaces the other: calls that crossed are
    /// settled as those for a flow; otherwise the peer came back anew, and the new one is what it
    /// has.
    fn settle_connection(&mut self, now: Instant, index: usize, old: SaId, new: SaId) {
        let Some(configured) = self.configured.get_mut(index) else { return };
        let peer = |sa: SaId| self.peers.get(&configured.pairs.get(&sa)?.ike);
        let crossed = match (peer(old), peer(new)) {
            (Some(a), Some(b)) => {
                let young = now.saturating_duration_since(a.established) < CROSSING;
                (a.initiator != b.initiator && young && !a.unanswered)
                    .then(|| (a.lowest_nonce < b.lowest_nonce, a.initiator))
            }
            _ => None,
        };
        // Who called for the loser closes it.
        let (new_wins, doomed) = match crossed {
            None => (true, Some(old)),
            Some((true, old_is_ours)) => (true, old_is_ours.then_some(old)),
            Some((false, old_is_ours)) => (false, (!old_is_ours).then_some(new)),
        };
        if let Some(pair) = doomed.and_then(|sa| configured.pairs.get_mut(&sa)) {
            pair.doomed = true;
        }
        let ours = configured.is_proven(new);
        let old_is_there = configured.is_proven(old);
        match (new_wins, ours) {
            (true, true) => self.use_pair(now, index, new),
            (false, true) if !old_is_there => {
                self.use_pair(now, index, new);
                if let Some(configured) = self.configured.get_mut(index)
                    && let Some(pair) = configured.pairs.get_mut(&new)
                {
                    pair.doomed = doomed.is_some();
                }
                self.use_when_proven(now, index, old, GRACE);
            }
            (true, false) => self.use_when_proven(now, index, new, GRACE),
            (false, _) => {
                let waits = self.configured.get(index).is_some_and(|c| c.current.is_none());
                let patience = if waits { QUIET } else { GRACE };
                self.set_connection_deadline(index, Some(now + patience));
            }
        }
    }

    /// The peer has answered under this IKE SA, and has the pairs of connections under it.
    pub(crate) fn joints_proven(&mut self, now: Instant, ike: IkeId) {
        let under = |(sa, index): (&SaId, &usize)| {
            let pair = self.configured.get(*index)?.pairs.get(sa)?;
            (pair.ike == ike && !pair.proven).then_some(*sa)
        };
        let there: Vec<SaId> = self.joints.iter().filter_map(under).collect();
        for sa in there {
            self.joint_proven(now, sa);
        }
    }

    /// Whether a connection's pair has lost against another that is sent on.
    pub(crate) fn is_doomed_joint(&self, sa: SaId) -> bool {
        let configured = self.joints.get(&sa).and_then(|index| self.configured.get(*index));
        configured.is_some_and(|c| {
            c.current != Some(sa) && c.pairs.get(&sa).is_some_and(|joint| joint.doomed)
        })
    }

    /// The peer has sent on this pair; false if it belongs to no connection.
    pub(crate) fn joint_proven(&mut self, now: Instant, sa: SaId) -> bool {
        let Some(index) = self.joints.get(&sa).copied() else { return false };
        let Some(configured) = self.configured.get_mut(index) else { return true };
        if let Some(pair) = configured.pairs.get_mut(&sa) {
            pair.proven = true;
        }
        if configured.next == Some(sa) {
            self.use_pair(now, index, sa);
        }
        true
    }

    /// A child is gone; false if it belonged to no connection.
    pub(crate) fn joint_down(&mut self, now: Instant, sa: SaId, why: End) -> bool {
        let Some(index) = self.joints.remove(&sa) else { return false };
        let Some(configured) = self.configured.get_mut(index) else { return true };
        let Some(pair) = configured.pairs.remove(&sa) else { return true };
        if configured.next == Some(sa) {
            configured.next = None;
            let stays = configured.current.and_then(|current| configured.pairs.get_mut(&current));
            if let Some(stays) = stays {
                stays.doomed = false;
            }
        }
        let was_beside = configured.beside.remove(&sa);
        let newest = || configured.pairs.iter().max_by_key(|(id, p)| (!p.doomed, **id));
        let other = configured.next.or_else(|| newest().map(|(id, _)| *id));
        if configured.current == Some(sa) {
            configured.current = None;
            match other {
                Some(other) => self.use_pair(now, index, other),
                None => self.connection_down(now, index, why),
            }
        } else if configured.current.is_none() && configured.next.is_none() {
            // The pair that was to be sent on has gone before its time: ours, that was to go, will
            // do; without one nobody else would wake what waits.
            let calling = self.configured_calls.values().any(|call| call.0 == index);
            match other {
                Some(other) => self.use_pair(now, index, other),
                None if calling => {}
                None => self.connection_down(now, index, why),
            }
        }
        if was_beside {
            self.lay_subnets(index);
        }
        if let Some(peer) = self.peers.get_mut(&pair.ike) {
            peer.pairs.remove(&sa);
        }
        if other.is_some() && self.lingering.len() < MAX_LINGERING {
            self.lingering.push_back((now + LINGER, sa));
            let lingering = &self.lingering;
            if let Some(configured) = self.configured.get_mut(index) {
                configured.replaced.push(sa);
                configured.replaced.retain(|old| lingering.iter().any(|(_, sa)| sa == old));
            }
        } else {
            self.command(Command::RemoveSa(sa));
        }
        self.close_if_bare(now, pair.ike);
        true
    }

    /// A connection has lost its last pair.
    fn connection_down(&mut self, now: Instant, index: usize, why: End) {
        let Some(configured) = self.configured.get_mut(index) else { return };
        configured.why = Some(Why::Gateway(why));
        if why == End::Timeout {
            // This gateway has fallen silent: another is called first.
            configured.gateway = configured.gateway.wrapping_add(1);
        }
        let again = configured.stands_by() && !self.stopping;
        let why = Why::Gateway(why);
        self.report_connection(now, index, |name| What::ConnectionDown { name, why });
        self.enter_connection(now, index, ConnectionState::Idle);
        self.set_connection_deadline(index, again.then_some(now + AGAIN));
    }

    /// A connection's deadline has come.
    pub(crate) fn connection_due(&mut self, now: Instant, index: usize) {
        let Some(configured) = self.configured.get(index) else { return };
        let current = configured.current;
        if let Some(next) = configured.next
            && (current.is_none() || configured.is_proven(next))
        {
            // Nothing else is there for what waits.
            return self.use_pair(now, index, next);
        }
        if let Some(ike) = configured.unproven_winner() {
            // As with a flow's: what it replaces stays until the peer is known to have it.
            self.set_connection_deadline(index, Some(now + GRACE));
            return self.ike.probe(now, ike);
        }
        // Whoever made what has lost deletes it, unless that has not come through.
        let over =
            |pair: &Joint| pair.doomed || now.saturating_duration_since(pair.since) >= CROSSING;
        let idle = configured.idle();
        let (over, young): (Vec<_>, Vec<_>) = idle.partition(|(_, pair)| over(pair));
        let young = young.iter().map(|(_, pair)| pair.since + CROSSING).min();
        let over: Vec<(SaId, IkeId)> = over.into_iter().map(|(sa, pair)| (sa, pair.ike)).collect();
        if configured.current.is_some() {
            self.set_connection_deadline(index, young);
        }
        for (sa, ike) in over {
            let alone = self.peers.get(&ike).is_none_or(|p| p.pairs.iter().all(|p| *p == sa));
            if alone { self.close_ike(now, ike) } else { self.ike.close_child(now, sa) }
        }
        let Some(configured) = self.configured.get(index) else { return };
        match (configured.state, configured.stands_by() && !self.stopping) {
            (ConnectionState::Failed, false) => {
                self.enter_connection(now, index, ConnectionState::Idle);
            }
            (ConnectionState::Failed | ConnectionState::Idle, true) => self.connect(now, index),
            _ => {}
        }
    }

    fn enter_connection(&mut self, now: Instant, index: usize, state: ConnectionState) {
        let Some(configured) = self.configured.get_mut(index) else { return };
        if configured.state != state {
            configured.state = state;
            configured.since = now;
        }
        if state != ConnectionState::Calling {
            configured.packet = None;
        }
        self.lay_subnets(index);
    }

    /// Tells the data plane what holds between a connection's subnets, if that is new.
    pub(crate) fn lay_subnets(&mut self, index: usize) {
        let left = self.cut_pieces(index);
        let Some(configured) = self.configured.get(index) else { return };
        let all = configured.subnets.iter().chain(&configured.pieces).copied();
        for subnets in all.chain(left).collect::<Vec<_>>() {
            let pairs = self.pairs_between(&subnets);
            let (policy, pairs) = match pairs.first() {
                Some(sa) => (Policy::Encrypt(*sa), pairs),
                None => self.selected_between(&subnets),
            };
            let links = self.links_up(&subnets);
            let news = (policy, pairs);
            let before = self.said.insert(subnets, (news.clone(), links.clone()));
            let same_links = before.as_ref().map_or(&Vec::new(), |(_, links)| links) == &links;
            if !same_links {
                self.command(Command::LinksUp { subnets, links });
            }
            if before.is_some_and(|(before, _)| before == news) {
                continue;
            }
            self.command(match news {
                (Policy::Encrypt(_), pairs) if pairs.len() > 1 => {
                    Command::ShareSubnets { subnets, pairs }
                }
                (rest @ (Policy::Hold | Policy::Deny), pairs) if !pairs.is_empty() => {
                    Command::SelectSubnets { subnets, pairs, rest }
                }
                (policy, _) => Command::SetSubnets { subnets, policy },
            });
        }
    }

    /// Tells it again.
    pub(crate) fn say_subnets(&mut self, index: usize) {
        let Some(configured) = self.configured.get(index) else { return };
        for subnets in configured.subnets.iter().chain(&configured.pieces) {
            self.said.remove(subnets);
        }
        self.lay_subnets(index);
    }

    /// What happens between two prefixes while no connection carries it.
    pub(crate) fn policy_between(&self, subnets: &Subnets) -> Policy {
        let of = || self.configured.iter().filter(|c| c.subnets.contains(subnets));
        let coming = of().any(|c| {
            !c.pairs.is_empty()
                || c.connection.start != Start::Accept
                    && matches!(c.state, ConnectionState::Idle | ConnectionState::Calling)
        });
        if coming { Policy::Hold } else { Policy::Deny }
    }

    pub(crate) fn set_connection_deadline(&mut self, index: usize, deadline: Option<Instant>) {
        let Some(configured) = self.configured.get_mut(index) else { return };
        if let Some(old) = configured.deadline {
            self.configured_deadlines.remove(&(old, index));
        }
        configured.deadline = deadline;
        self.configured_deadlines.extend(deadline.map(|at| (at, index)));
    }

    /// The outer way of a connection's pairs changed.
    pub(crate) fn joint_moved(&mut self, sa: SaId, envelope: Envelope) {
        let Some(index) = self.joints.get(&sa) else { return };
        let pair = self.configured.get_mut(*index).and_then(|c| c.pairs.get_mut(&sa));
        if let Some(pair) = pair {
            pair.envelope = envelope;
            self.command(Command::MoveSa { sa, envelope });
        }
    }

    /// The IKE SA of a connection's pair.
    pub(crate) fn joint_ike(&self, sa: SaId) -> Option<IkeId> {
        let index = self.joints.get(&sa)?;
        Some(self.configured.get(*index)?.pairs.get(&sa)?.ike)
    }

    /// The data plane says how a connection's pair is used.
    pub(crate) fn joint_used(&mut self, sa: SaId, used: Use) {
        let Some(index) = self.joints.get(&sa) else { return };
        if let Some(pair) = self.configured.get_mut(*index).and_then(|c| c.pairs.get_mut(&sa)) {
            pair.used = used;
        }
    }

    /// Every pair that carries a connection.
    pub(crate) fn joints(&self) -> BTreeSet<SaId> {
        self.joints.keys().copied().collect()
    }

    /// Every connection, in the order of the file.
    #[must_use]
    pub fn connections(&self, now: Instant) -> Vec<ConnectionView> {
        let used =
            |c: &Configured| c.in_use().map(|(_, pair)| pair.used).fold(Use::default(), both);
        let view = |c: &Configured| {
            let pair = c.current.and_then(|sa| c.pairs.get(&sa));
            ConnectionView {
                name: c.connection.name.clone(),
                state: if c.silent { ConnectionState::Silent } else { c.state },
                subnets: c.subnets.clone(),
                gateway: pair.map(|pair| pair.envelope.remote.ip()),
                mode: pair.map(|pair| pair.mode),
                since: now.saturating_duration_since(c.since),
                reason: c.why,
                pairs: c.pairs.len(),
                used: used(c),
            }
        };
        self.configured.iter().map(view).collect()
    }

    pub(crate) fn report_connection(
        &mut self,
        now: Instant,
        index: usize,
        what: impl FnOnce(String) -> What,
    ) {
        let Some(configured) = self.configured.get(index) else { return };
        let name = configured.connection.name.clone();
        self.report(now, None, what(name));
    }
}

/// The selectors of a connection, behind those of the packet that made us call: a peer that must
/// narrow them leaves the part that serves it (RFC 7296 §2.9).
fn request(connection: &Connection, packet: Option<Flow>) -> ChildRequest {
    let mut local = Connection::selectors(&connection.local_subnets);
    let mut remote = Connection::selectors(&connection.remote_subnets);
    let is_host = |side: &[TrafficSelector]| matches!(side, [one] if one.as_host().is_some());
    let narrow = is_host(&local) && is_host(&remote);
    let full = local.len().max(remote.len()) >= MAX_SELECTORS;
    if let Some(packet) = packet.filter(|_| !narrow && !full) {
        let (source, destination) = selectors(packet);
        local.insert(0, source);
        remote.insert(0, destination);
    }
    ChildRequest { local, remote, mode: connection.mode }
}

/// The same for a packet that a connection's pairs do not carry: it comes first whatever it pushes out.
pub(crate) fn request_for(connection: &Connection, packet: Flow) -> ChildRequest {
    let (source, destination) = selectors(packet);
    let all = |first, prefixes: &[Prefix]| {
        let all = std::iter::once(first).chain(Connection::selectors(prefixes));
        all.take(MAX_SELECTORS).collect()
    };
    ChildRequest {
        local: all(source, &connection.local_subnets),
        remote: all(destination, &connection.remote_subnets),
        mode: connection.mode,
    }
}

/// The use of two pairs together.
fn both(a: Use, b: Use) -> Use {
    let sooner = |a: Option<Duration>, b: Option<Duration>| a.into_iter().chain(b).min();
    Use {
        packets_in: a.packets_in.saturating_add(b.packets_in),
        packets_out: a.packets_out.saturating_add(b.packets_out),
        bytes_in: a.bytes_in.saturating_add(b.bytes_in),
        bytes_out: a.bytes_out.saturating_add(b.bytes_out),
        idle_in: sooner(a.idle_in, b.idle_in),
        idle_out: sooner(a.idle_out, b.idle_out),
    }
}

/// Names are compared as DNS compares them.
fn same(a: &Identity, b: &Identity) -> bool {
    match (a, b) {
        (Identity::Fqdn(a), Identity::Fqdn(b)) => a.eq_ignore_ascii_case(b),
        (a, b) => a == b,
    }
}

/// Where DNS has the keys of an identity.
fn name_of(identity: &Identity) -> Option<Name> {
    match to_speaker(identity)? {
        Speaker::Address(addr) => Some(Name::reverse(addr)),
        Speaker::Name(name) => Some(name),
    }
}

/// The keys that DNS gives a configured peer: with nothing less than a valid chain.
fn configured_keys(answer: &Answer, identity: &Identity) -> Result<Vec<Credential>, Why> {
    use dnskeys::Reason;
    let reason = match &answer.outcome {
        _ if answer.security == Security::Bogus => Some(Reason::Bogus),
        Outcome::Bogus => Some(Reason::Bogus),
        Outcome::Failed(_) => Some(Reason::DnsFailed),
        Outcome::Records(_) if answer.security != Security::Secure => Some(Reason::Unsigned),
        Outcome::Records(_) => None,
        Outcome::NoRecord | Outcome::NoName => Some(Reason::NoRecord),
    };
    if let Some(reason) = reason {
        return Err(Why::Dns(reason));
    }
    let speaker = to_speaker(identity).ok_or(Why::Dns(Reason::NoRecord))?;
    let keys: Vec<Credential> = keys_of(answer, &speaker).iter().filter_map(to_ike_key).collect();
    if keys.is_empty() { Err(Why::Dns(Reason::NoUsableGateway)) } else { Ok(keys) }
}

/// How long a failure is waited out at first; it doubles.
const FIRST_WAIT: Duration = Duration::from_secs(5);
/// How long at most.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Selectors a side that peers of our kind look at: with as many subnets, the packet's own would
/// push one out.
const MAX_SELECTORS: usize = 32;
/// How soon a connection that should always be up is made again after it has ended: long enough
/// for a peer that restarts.
const AGAIN: Duration = Duration::from_secs(1);
/// Configured peers that wait for DNS at once.
const MAX_VISITORS: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::initiator::ports_of;

    fn connection(local: &[&str], remote: &[&str]) -> Connection {
        let prefixes = |of: &[&str]| of.iter().map(|one| one.parse().unwrap()).collect();
        Connection {
            name: "net".to_owned(),
            gateways: Vec::new(),
            local_address: None,
            local_identity: None,
            remote_identity: None,
            remote_keys: RemoteKeys::Dns,
            local_subnets: prefixes(local),
            remote_subnets: prefixes(remote),
            mode: Mode::Tunnel,
            start: Start::Trap,
        }
    }

    /// RFC 7296 §2.9: what the packet says of itself comes first, then all that is wanted.
    #[test]
    fn the_packets_own_selectors_come_first() {
        let connection = connection(&["10.1.0.0/16"], &["10.2.0.0/16", "10.3.0.0/16"]);
        let flow = Flow::new("10.1.0.1".parse().unwrap(), "10.3.0.1".parse().unwrap()).unwrap();
        let without = request(&connection, None);
        assert_eq!((without.local.len(), without.remote.len()), (1, 2));
        for (protocol, said, source, destination) in [
            (6, (4000, 22), (4000, 4000), (22, 22)),
            (17, (53, 0), (53, 53), (0, u16::MAX)),
            (1, (0, 0), (0, u16::MAX), (0, u16::MAX)),
        ] {
            let packet = flow.with_ports(ports_of(protocol, said));
            let with = request(&connection, Some(packet));
            let ours = TrafficSelector::new(flow.src(), flow.src(), protocol, source).unwrap();
            let theirs =
                TrafficSelector::new(flow.dst(), flow.dst(), protocol, destination).unwrap();
            assert_eq!(with.local, [&[ours], &without.local[..]].concat());
            assert_eq!(with.remote, [&[theirs], &without.remote[..]].concat());
        }
    }

    /// Between two hosts there is nothing to choose, and of 32 subnets none is pushed out.
    #[test]
    fn the_packets_own_selectors_stay_away_where_they_say_nothing() {
        let flow = Flow::new("10.1.0.1".parse().unwrap(), "10.2.0.1".parse().unwrap()).unwrap();
        let many: Vec<String> = (0..MAX_SELECTORS).map(|n| format!("10.2.{n}.0/24")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        for (local, remote) in
            [(&["10.1.0.1/32"][..], &["10.2.0.1/32"][..]), (&["10.1.0.0/16"], &many)]
        {
            let connection = connection(local, remote);
            assert_eq!(request(&connection, Some(flow)), request(&connection, None));
        }
    }

    /// What the pairs so far do not carry is named first, whatever else there is to name.
    #[test]
    fn a_packet_that_nothing_carries_comes_first_everywhere() {
        let flow = Flow::new("10.1.0.1".parse().unwrap(), "10.2.0.1".parse().unwrap()).unwrap();
        let packet = flow.with_ports(ports_of(17, (4000, 53)));
        let many: Vec<String> = (0..MAX_SELECTORS).map(|n| format!("10.2.{n}.0/24")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        for (local, remote) in
            [(&["10.1.0.1/32"][..], &["10.2.0.1/32"][..]), (&["10.1.0.0/16"], &many)]
        {
            let request = request_for(&connection(local, remote), packet);
            let named = |side: &[TrafficSelector]| (side[0].protocol(), side[0].ports());
            assert_eq!(named(&request.local), (17, (4000, 4000)));
            assert_eq!(named(&request.remote), (17, (53, 53)));
            assert_eq!(request.local.len(), local.len() + 1);
            assert_eq!(request.remote.len(), MAX_SELECTORS.min(remote.len() + 1));
        }
    }
}
