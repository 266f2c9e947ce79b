//! Several pairs for one connection. A peer may have single protocols or ports of its subnets in
//! several children, and make them all itself, or one at a time as it is asked for more (RFC 7296 §2.9):
//! for each packet that nothing carries so far, within bounds, and never twice for what it has refused.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use ike::IkeId;
use sa::{Fields, Flow, Policy, Ports, Prefix, SaId, Subnets, Traffic, TrafficSelector};

use crate::connection::{Configured, ConnectionState, Joint, Start, request_for};
use crate::keying::Keying;
use crate::pairs::GRACE;
use crate::report::What;

/// What a peer is asked for beside what it has granted.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    /// The packet for which it is being asked, and under which IKE SA.
    asked: Option<(IkeId, Flow)>,
    /// Packets for which it will be asked next.
    waiting: VecDeque<Flow>,
    /// What it has refused since it made the pair that is in use: any source port.
    refused: BTreeSet<Flow>,
}

/// What becomes of a new pair beside those that a connection has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// It is for the same as the one in use, and one of them goes.
    Settled,
    /// It carries what they do not.
    Beside,
    /// It carries nothing that they do not, or there are too many.
    Superfluous,
}

impl Joint {
    fn takes(&self, traffic: &Traffic) -> bool {
        traffic.matches(&self.local, &self.remote)
    }

    /// Whether everything that `other` carries this one carries too.
    fn covers(&self, other: &Self) -> bool {
        let covers = |a: &[TrafficSelector], b: &[TrafficSelector]| {
            b.iter().all(|b| a.iter().any(|a| a.covers(b)))
        };
        covers(&self.local, &other.local) && covers(&self.remote, &other.remote)
    }

    /// Whether single protocols or ports are all that it has of some addresses.
    pub(crate) fn has_single_ports(&self) -> bool {
        let single = |selectors: &[TrafficSelector]| {
            let plain = || selectors.iter().filter(|s| s.is_plain());
            selectors.iter().any(|s| !s.is_plain() && !plain().any(|all| all.covers(s)))
        };
        single(&self.local) || single(&self.remote)
    }

    /// Whether some of it lies between two prefixes.
    fn meets(&self, subnets: &Subnets) -> bool {
        let meet = |selectors: &[TrafficSelector], prefix| {
            let whole = TrafficSelector::prefix(prefix);
            selectors.iter().any(|s| s.intersection(&whole).is_some())
        };
        meet(&self.local, subnets.local()) && meet(&self.remote, subnets.remote())
    }

    /// Whether any packet can match both sides.
    fn carries_something(&self) -> bool {
        let meet = |a: &TrafficSelector, b: &TrafficSelector| {
            a.addresses().0.is_ipv4() == b.addresses().0.is_ipv4()
                && (a.protocol() == 0 || b.protocol() == 0 || a.protocol() == b.protocol())
        };
        self.local.iter().any(|a| self.remote.iter().any(|b| meet(a, b)))
    }
}

impl Configured {
    /// What becomes of one of its pairs that is not in use yet.
    pub(crate) fn fate(&self, id: SaId) -> Fate {
        let Some(new) = self.pairs.get(&id) else { return Fate::Settled };
        let base = self.current.or(self.next).filter(|base| *base != id);
        let Some(base) = base.and_then(|base| self.pairs.get(&base)) else { return Fate::Settled };
        if new.rekeys.is_some_and(|old| self.beside.contains(&old)) {
            return Fate::Beside;
        }
        if new.rekeys.is_some() || base.ike != new.ike {
            return Fate::Settled;
        }
        if new.ours && self.has_all_of(id, new) {
            // Asked for more, the peer has given what it had given.
            Fate::Superfluous
        } else if new.covers(base) {
            Fate::Settled
        } else if self.beside.len() >= MAX_BESIDE {
            Fate::Superfluous
        } else {
            Fate::Beside
        }
    }

    /// Whether the other pairs in use carry together what this one does.
    fn has_all_of(&self, id: SaId, new: &Joint) -> bool {
        let covered = |local: &TrafficSelector, remote: &TrafficSelector| {
            let covers = |side: &[TrafficSelector], one| side.iter().any(|s| s.covers(one));
            let mut others = self.in_use().filter(|(sa, _)| *sa != id);
            others.any(|(_, other)| covers(&other.local, local) && covers(&other.remote, remote))
        };
        new.local.iter().all(|local| new.remote.iter().all(|remote| covered(local, remote)))
    }

    /// Sends on this pair first from now on. Others stay beside it if the peer has them still, and they
    /// carry what it does not.
    pub(crate) fn turn_to(&mut self, id: SaId) {
        let Some(new) = self.pairs.get(&id) else { return };
        let (ike, rekeys) = (new.ike, new.rekeys);
        self.beside.remove(&id);
        let old = self.current.replace(id).filter(|old| *old != id);
        let old = old.and_then(|sa| Some((sa, self.pairs.get(&sa)?)));
        let stays = old.filter(|(sa, pair)| {
            let replaced = rekeys == Some(*sa) || new.covers(pair);
            !pair.doomed && pair.ike == ike && !replaced
        });
        let elsewhere = old.is_none_or(|(_, pair)| pair.ike != ike);
        self.beside.extend(stays.map(|(sa, _)| sa));
        if elsewhere {
            self.wishes = Wishes::default();
        } else if rekeys.is_some() {
            // It may have more by now.
            self.wishes.refused.clear();
        }
        for (sa, pair) in self.pairs.iter_mut().filter(|(_, pair)| pair.ike != ike) {
            // The peer has come back anew, without them.
            pair.doomed |= self.beside.remove(sa);
        }
    }

    /// The pairs that carry single protocols or ports between two of its subnets.
    pub(crate) fn selects(&self, subnets: &Subnets) -> impl Iterator<Item = SaId> {
        let mine = self.subnets.contains(subnets);
        let of = move |(_, pair): &(SaId, &Joint)| {
            mine && pair.has_single_ports() && pair.meets(subnets)
        };
        self.in_use().filter(of).map(|(sa, _)| sa)
    }

    /// Whether something in use carries packets between these two hosts: some of them, if the peer has
    /// granted single ports.
    pub(crate) fn carries_some_of(&self, flow: Flow) -> bool {
        let hosts = Subnets::new(Prefix::host(flow.src()), Prefix::host(flow.dst()));
        hosts.is_some_and(|hosts| self.in_use().any(|(_, pair)| pair.meets(&hosts)))
    }

    /// Whether something in use carries this packet.
    fn takes(&self, packet: Flow) -> bool {
        let traffic = traffic(packet);
        self.in_use().any(|(_, pair)| pair.takes(&traffic))
    }

    /// Whether the peer may be asked for more.
    fn may_wish(&self) -> bool {
        self.connection.start != Start::Accept
            && self.beside.len() < MAX_BESIDE
            && self.wishes.refused.len() < MAX_REFUSED
            && self.in_use().any(|(_, pair)| pair.has_single_ports())
    }
}

impl Keying {
    /// Sends on a pair beside the others.
    pub(crate) fn use_beside(&mut self, now: Instant, index: usize, id: SaId) {
        let Some(configured) = self.configured.get_mut(index) else { return };
        let Some(new) = configured.pairs.get(&id) else { return };
        let (gateway, rekeys) = (new.envelope.remote.ip(), new.rekeys);
        // Who asks anew for what it has means this one.
        let same = |(sa, old): &(SaId, &Joint)| {
            *sa != id && old.ours == new.ours && new.covers(old) && Some(*sa) != rekeys
        };
        let all = configured.beside.iter().filter_map(|sa| Some((*sa, configured.pairs.get(sa)?)));
        let replaced: Vec<SaId> = all.filter(same).map(|(sa, _)| sa).collect();
        configured.beside.insert(id);
        if let Some(old) = rekeys {
            configured.beside.remove(&old);
        }
        for sa in &replaced {
            configured.beside.remove(sa);
            if let Some(pair) = configured.pairs.get_mut(sa) {
                pair.doomed = true;
            }
        }
        if !replaced.is_empty() {
            self.set_connection_deadline(index, Some(now + GRACE));
        }
        self.lay_subnets(index);
        self.report_connection(now, index, |name| What::ConnectionUp { name, sa: id, gateway });
        self.report_narrowed(now, index, id);
    }

    /// Says what the peer has granted, if some of it is for single protocols or ports.
    pub(crate) fn report_narrowed(&mut self, now: Instant, index: usize, id: SaId) {
        let pair = self.configured.get(index).and_then(|c| c.pairs.get(&id));
        let Some(pair) = pair.filter(|pair| pair.has_single_ports()) else { return };
        let (local, remote) = (pair.local.clone(), pair.remote.clone());
        let carries = pair.carries_something();
        self.report_connection(now, index, |name| What::ConnectionNarrowed {
            name,
            local,
            remote,
            carries,
        });
    }

    /// What happens between two of a connection's prefixes that no pair carries whole, and the pairs
    /// that carry some of it by protocol and port.
    pub(crate) fn selected_between(&self, subnets: &Subnets) -> (Policy, Vec<SaId>) {
        let of = || self.configured.iter().filter(|c| c.subnets.contains(subnets));
        let mut pairs: Vec<SaId> =
            of().filter(|c| !c.silent).flat_map(|c| c.selects(subnets)).collect();
        if pairs.is_empty() {
            pairs = of().flat_map(|c| c.selects(subnets)).collect();
        }
        if pairs.is_empty() {
            return (self.policy_between(subnets), pairs);
        }
        let coming = |c: &Configured| c.state == ConnectionState::Calling || c.may_wish();
        let rest = if of().any(coming) { Policy::Hold } else { Policy::Deny };
        (rest, pairs)
    }

    /// A packet waits that a connection does not carry so far. False if it does, or never will.
    pub(crate) fn wish(&mut self, now: Instant, index: usize, packet: Flow) -> bool {
        let Some(configured) = self.configured.get_mut(index) else { return false };
        if self.stopping || configured.takes(packet) || !configured.may_wish() {
            return false;
        }
        let ike = configured.current_ike();
        let wishes = &mut configured.wishes;
        if wishes.refused.contains(&wished(packet)) {
            return true;
        }
        if wishes.asked.is_some_and(|(under, _)| Some(under) == ike) {
            if wishes.waiting.len() < MAX_WAITING && !wishes.waiting.contains(&packet) {
                wishes.waiting.push_back(packet);
            }
            return true;
        }
        self.ask_for(now, index, packet);
        true
    }

    fn ask_for(&mut self, now: Instant, index: usize, packet: Flow) {
        let Some(configured) = self.configured.get_mut(index) else { return };
        let Some(ike) = configured.current_ike() else { return };
        configured.wishes.asked = Some((ike, packet));
        let request = request_for(&configured.connection, packet);
        self.ike.create_child(now, ike, request);
    }

    /// The peer has answered, with this pair or with none. False if it was not asked.
    pub(crate) fn wish_answered(&mut self, now: Instant, index: usize, id: Option<SaId>) -> bool {
        let Some(configured) = self.configured.get_mut(index) else { return false };
        let Some((ike, packet)) = configured.wishes.asked.take() else { return false };
        let new = id.and_then(|id| configured.pairs.get(&id));
        if new.is_some_and(|new| new.ike != ike) {
            return false;
        }
        if !new.is_some_and(|new| new.takes(&traffic(packet))) {
            configured.wishes.refused.insert(wished(packet));
        }
        while let Some(next) = configured.wishes.waiting.pop_front() {
            let moot = configured.takes(next) || configured.wishes.refused.contains(&wished(next));
            if !moot && configured.may_wish() {
                self.ask_for(now, index, next);
                break;
            }
        }
        // It may have been the last that we ask for.
        self.lay_subnets(index);
        true
    }
}

/// A packet as selectors see it. Of ICMP nobody has told us the type.
fn traffic(packet: Flow) -> Traffic {
    let ports = packet.ports();
    let fields = match (ports.source(), ports.destination()) {
        (0, 0) => Fields::Hidden,
        (source, destination) => Fields::Ports(source, destination),
    };
    Traffic { src: packet.src(), dst: packet.dst(), protocol: ports.protocol(), fields }
}

/// What is asked for on account of a packet: the next one has another source port.
fn wished(packet: Flow) -> Flow {
    let ports = packet.ports();
    packet.with_ports(Ports::new(ports.protocol(), 0, ports.destination()).unwrap_or_default())
}

/// Pairs of a connection beside the first: services of a site that somebody has written down one by
/// one. A peer that wants more should grant ranges.
const MAX_BESIDE: usize = 15;
/// Refusals until the peer is believed to have no more: each costs both ends an exchange.
const MAX_REFUSED: usize = 16;
/// Packets that wait for the answer to another's question.
const MAX_WAITING: usize = 8;
