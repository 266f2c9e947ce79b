//! Two machines and everything that can happen to them, in any order: datagrams late, doubled, lost,
//! damaged or from elsewhere; the owners' answers of every kind, to questions asked or not; every
//! verb; time, forwards and back. Whatever it is, every input is taken, what is installed has been
//! granted, every table has an end, and going down leaves nothing.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ike::{Identity, IkeId, Output, PeerVerdict};
use proptest::prelude::*;
use proptest::sample::Index;
use sa::SaId;

use crate::victim::{HONEST, HONEST_KEY, NOBODYS_KEY, Owned, VICTIM, VICTIMS_KEY, grant};

/// One thing that happens. The `bool` says to whom.
#[derive(Clone, Debug)]
enum Op {
    Call(bool),
    /// With a ticket, if there is one.
    Resume(bool),
    Deliver(Index),
    Repeat(Index),
    Lose(Index),
    /// Delivered with an octet changed.
    Damage(Index, Index, u8),
    /// Delivered from another address.
    Redirect(Index),
    Answer(bool),
    Verdict(bool, u8),
    Signature(bool, u8),
    /// One more host behind the other, and the request arrives.
    Beyond(bool, u8),
    /// No to one more child.
    Refuse(bool),
    /// A verdict and a signature for an SA that did not ask.
    Unasked(bool, u8),
    Verb(bool, u8, u8),
    /// Milliseconds.
    Wait(u32),
    Back(u32),
    /// Everything is delivered and answered.
    Settle,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => any::<bool>().prop_map(Op::Call),
        2 => any::<bool>().prop_map(Op::Resume),
        12 => any::<Index>().prop_map(Op::Deliver),
        3 => any::<Index>().prop_map(Op::Repeat),
        2 => any::<Index>().prop_map(Op::Lose),
        2 => (any::<Index>(), any::<Index>(), any::<u8>())
            .prop_map(|(which, at, value)| Op::Damage(which, at, value)),
        1 => any::<Index>().prop_map(Op::Redirect),
        8 => any::<bool>().prop_map(Op::Answer),
        1 => (any::<bool>(), any::<u8>()).prop_map(|(who, how)| Op::Verdict(who, how)),
        1 => (any::<bool>(), any::<u8>()).prop_map(|(who, how)| Op::Signature(who, how)),
        3 => (any::<bool>(), any::<u8>()).prop_map(|(who, which)| Op::Beyond(who, which)),
        2 => any::<bool>().prop_map(Op::Refuse),
        1 => (any::<bool>(), any::<u8>()).prop_map(|(who, which)| Op::Unasked(who, which)),
        8 => (any::<bool>(), any::<u8>(), any::<u8>())
            .prop_map(|(who, which, id)| Op::Verb(who, which, id)),
        3 => prop_oneof![0_u32..3000, 0_u32..5_000_000].prop_map(Op::Wait),
        1 => (0_u32..100_000).prop_map(Op::Back),
        2 => Just(Op::Settle),
    ]
}

struct World {
    owned: [Owned; 2],
    wire: Vec<ike::Transmit>,
}

impl World {
    fn new() -> Self {
        let mut a = Owned::equipped(VICTIM, VICTIMS_KEY, 1);
        let mut b = Owned::equipped(HONEST, HONEST_KEY, 2);
        a.knows(HONEST, HONEST_KEY);
        b.knows(VICTIM, VICTIMS_KEY);
        b.now = a.now;
        (a.prompt, b.prompt) = (false, false);
        Self { owned: [a, b], wire: Vec::new() }
    }

    fn collect(&mut self) {
        for owned in &mut self.owned {
            self.wire.extend(owned.sent.drain(..));
        }
        // What nobody delivers is lost.
        let surplus = self.wire.len().saturating_sub(200);
        self.wire.drain(..surplus);
    }

    fn deliver(&mut self, transmit: &ike::Transmit, from: SocketAddr) {
        let to = usize::from(transmit.remote.ip() == HONEST);
        self.owned[to].hear_at(from, transmit.remote.port(), &transmit.octets);
    }

    fn settle(&mut self) {
        for _ in 0..200 {
            for owned in &mut self.owned {
                while !owned.waiting.is_empty() {
                    owned.answer();
                    owned.after();
                }
            }
            self.collect();
            if self.wire.is_empty() {
                return;
            }
            for transmit in std::mem::take(&mut self.wire) {
                self.deliver(&transmit, transmit.local);
            }
        }
        // Two machines of ours do not talk for ever.
        panic!("they never stop talking");
    }

    fn happen(&mut self, op: Op) {
        match op {
            Op::Call(who) => {
                let (peer, key) = if who { (VICTIM, VICTIMS_KEY) } else { (HONEST, HONEST_KEY) };
                self.owned[usize::from(who)].call(peer, key);
            }
            Op::Resume(who) => {
                let (peer, key) = if who { (VICTIM, VICTIMS_KEY) } else { (HONEST, HONEST_KEY) };
                self.owned[usize::from(who)].resume(peer, key);
            }
            Op::Deliver(which) if !self.wire.is_empty() => {
                let transmit = self.wire.remove(which.index(self.wire.len()));
                self.deliver(&transmit, transmit.local);
            }
            Op::Repeat(which) if !self.wire.is_empty() => {
                let transmit = which.get(&self.wire).clone();
                self.deliver(&transmit, transmit.local);
            }
            Op::Lose(which) if !self.wire.is_empty() => {
                self.wire.remove(which.index(self.wire.len()));
            }
            Op::Damage(which, at, value) if !self.wire.is_empty() => {
                let mut transmit = which.get(&self.wire).clone();
                let at = at.index(transmit.octets.len());
                transmit.octets[at] = value;
                self.deliver(&transmit, transmit.local);
            }
            Op::Redirect(which) if !self.wire.is_empty() => {
                let transmit = which.get(&self.wire).clone();
                self.deliver(&transmit, "203.0.113.5:4500".parse().unwrap());
            }
            Op::Answer(who) => self.owned[usize::from(who)].answer(),
            Op::Verdict(who, how) => verdict(&mut self.owned[usize::from(who)], how),
            Op::Signature(who, how) => signature(&mut self.owned[usize::from(who)], how),
            Op::Beyond(who, which) => {
                let owned = &mut self.owned[usize::from(who)];
                let Some(ike) = owned.established.keys().next_back().copied() else { return };
                owned.create_child_beyond(ike, IpAddr::from([10, 0, 1, which % 8]));
                owned.after();
                self.collect();
                for transmit in std::mem::take(&mut self.wire) {
                    self.deliver(&transmit, transmit.local);
                }
            }
            Op::Refuse(who) => refuse(&mut self.owned[usize::from(who)]),
            Op::Unasked(who, which) => unasked(&mut self.owned[usize::from(who)], which),
            Op::Verb(who, which, id) => {
                let peer = if who { VICTIM } else { HONEST };
                verb(&mut self.owned[usize::from(who)], which, id, peer);
            }
            Op::Wait(time) => {
                let time = Duration::from_millis(time.into());
                self.owned.iter_mut().for_each(|owned| owned.pass(time));
            }
            Op::Back(time) => {
                // No clock of ours goes back; if one did, nothing would break.
                let time = Duration::from_millis(time.into());
                for owned in &mut self.owned {
                    owned.ike.handle_timeout(owned.now - time);
                    owned.ike.probe(owned.now - time, IkeId(1));
                    owned.after();
                }
            }
            Op::Settle => self.settle(),
            _ => {}
        }
        self.owned.iter_mut().for_each(Owned::after);
        self.collect();
    }
}

/// An address that either may move to.
const ELSEWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 77));

fn own(peer: IpAddr) -> IpAddr {
    if peer == VICTIM { HONEST } else { VICTIM }
}

/// Answers who the peer is in a way that a confused owner might.
fn verdict(owned: &mut Owned, how: u8) {
    let at = owned.waiting.iter().position(|question| matches!(question, Output::NeedPeer(_)));
    let Some(Output::NeedPeer(need)) = at.and_then(|at| owned.waiting.remove(at)) else { return };
    let (own, peer) = (need.local.ip(), need.remote.ip());
    let good = if own == VICTIM { HONEST_KEY } else { VICTIMS_KEY };
    let mut narrow = grant(good, own, peer);
    narrow.remote.clear();
    let grants = match how % 6 {
        0 => return owned.tell(need.ike, need.identity, PeerVerdict::Unknown),
        1 => vec![],
        2 => vec![grant(NOBODYS_KEY, own, peer); 100],
        3 => vec![grant(if own == VICTIM { VICTIMS_KEY } else { HONEST_KEY }, own, peer)],
        4 => vec![narrow],
        _ => vec![grant(NOBODYS_KEY, own, peer), grant(good, own, peer)],
    };
    let identity = if how & 0x80 == 0 {
        Identity::Address(own)
    } else {
        Identity::Other { kind: 200, data: vec![7; 255] }
    };
    owned.tell(need.ike, need.identity, PeerVerdict::Known { identity, grants });
}

/// Signs badly, or not at all.
fn signature(owned: &mut Owned, how: u8) {
    let at = owned.waiting.iter().position(|question| matches!(question, Output::Sign(_)));
    let Some(Output::Sign(job)) = at.and_then(|at| owned.waiting.remove(at)) else { return };
    let octets = match how % 6 {
        0 => None,
        1 => Some(vec![]),
        2 => Some(vec![0; 256]),
        3 => Some(vec![9; 255]),
        4 => Some(vec![9; 9000]),
        _ => Some(vec![9; 70_000]),
    };
    owned.ike.handle_signature(owned.now, job.ike, octets);
}

fn refuse(owned: &mut Owned) {
    let at = owned.waiting.iter().position(|question| matches!(question, Output::NeedChild(_)));
    if let Some(Output::NeedChild(need)) = at.and_then(|at| owned.waiting.remove(at)) {
        owned.allow(&need, false);
    }
}

fn unasked(owned: &mut Owned, which: u8) {
    let ike = IkeId(u64::from(which % 16));
    let asks = owned.waiting.iter().any(|question| match question {
        Output::NeedPeer(need) => need.ike == ike,
        Output::NeedChild(need) => need.ike == ike,
        Output::Sign(job) => job.ike == ike,
        _ => false,
    });
    if !asks {
        let grants = vec![grant(HONEST_KEY, VICTIM, HONEST), grant(VICTIMS_KEY, HONEST, VICTIM)];
        let verdict = PeerVerdict::Known { identity: Identity::Null, grants };
        owned.ike.handle_peer(owned.now, ike, verdict);
        owned.ike.handle_child(owned.now, ike, true);
        owned.ike.handle_signature(owned.now, ike, Some(vec![1; 256]));
    }
}

/// Every verb, for SAs that are there and for some that are not.
fn verb(owned: &mut Owned, which: u8, id: u8, peer: IpAddr) {
    let now = owned.now;
    let pick = usize::from(id / 2);
    let some = owned.established.keys().nth(pick % owned.established.len().max(1)).copied();
    let ike = some.filter(|_| id.is_multiple_of(2)).unwrap_or_else(|| IkeId(u64::from(id)));
    let some = owned.children.keys().nth(pick % owned.children.len().max(1)).copied();
    let child = some.filter(|_| id.is_multiple_of(2)).unwrap_or_else(|| SaId(u64::from(id)));
    let addresses = [vec![own(peer)], vec![], vec![ELSEWHERE], vec![ELSEWHERE, own(peer)]];
    match which % 20 {
        0 | 1 => owned.create_child(ike, peer),
        12 | 13 => owned.create_child_beyond(ike, IpAddr::from([10, 0, 1, id % 8])),
        14 => owned.ike.set_addresses(now, addresses[pick % addresses.len()].clone()),
        15 => owned.ike.relocate(now, ike, if id & 2 == 0 { ELSEWHERE } else { own(peer) }),
        16 => owned.ike.allow_moves(ike, id & 2 == 0),
        17 => {
            owned.ike.withdraw(now, ike);
        }
        18 => {
            let spi = sa::Spi::new(256 + u32::from(id)).unwrap();
            owned.ike.handle_unknown_spi(now, spi, own(peer), peer);
        }
        19 => {
            let keys = (0..id % 4).map(|n| [n + 3; 32].into()).collect::<Vec<_>>();
            owned.ike.set_ticket_keys(&keys);
        }
        2 | 3 => owned.ike.rekey_child(now, child),
        4 | 5 => owned.ike.rekey_ike(now, ike),
        6 => owned.ike.probe(now, ike),
        7 => owned.ike.close_child(now, child),
        8 => owned.ike.close(now, ike),
        9 => owned.ike.abandon(now, ike),
        10 => owned.ike.handle_moved(now, child, SocketAddr::new(peer, 7777)),
        _ if id == 77 => owned.ike.shutdown(now),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// CVE-2011-3380, CVE-2011-4073, CVE-2014-2338, gotatun 0.3.0: whatever is cancelled, doubled,
    /// late or out of order, at every point where the machine waits.
    #[test]
    fn whatever_happens(begun: bool, ops in proptest::collection::vec(op(), 1..60)) {
        let mut world = World::new();
        world.happen(Op::Call(false));
        if begun {
            world.happen(Op::Settle);
        }
        for op in ops {
            world.happen(op);
        }
        // They end up speaking to each other, if they are let.
        for (owned, addr) in world.owned.iter_mut().zip([VICTIM, HONEST]) {
            owned.ike.set_addresses(owned.now, vec![addr]);
            owned.after();
            owned.pass(Duration::from_secs(300));
        }
        world.wire.clear();
        world.settle();
        world.owned[0].serves_the_honest();
        for owned in &mut world.owned {
            assert!(!format!("{:?}", owned.ike).is_empty());
            owned.pass(Duration::from_secs(100));
            owned.goes_down_clean();
        }
    }
}
