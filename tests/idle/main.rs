//! What a peer costs that says nothing: memory, and no work.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use keying::Timer;
use tests::crowd::{HUB, Party, Wanted, peer, plain, talk};
use tests::heap::{Counting, Heap};

#[global_allocator]
static COUNTING: Counting = Counting;

/// The heap is one, and so is the processor that is timed: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// What an established peer may cost on the heap: its IKE SA and one pair, in keying, IKE and
/// forwarding together.
const MAX_HEAP: usize = 8 << 10;
/// As many as a busy node may have.
const PEERS: usize = 10_000;

/// A node with pairs to these peers; every other one has called it.
fn add(hub: &mut Party, now: Instant, peers: std::ops::Range<usize>) {
    for n in peers {
        let mut one = Party::new(peer(n), n as u64, now);
        if n % 2 == 0 {
            hub.call(now, peer(n));
        } else {
            one.call(now, HUB);
        }
        let before = hub.last_pair;
        talk(now, hub, &mut one);
        assert_ne!(hub.last_pair, before, "peer {n} has no pair");
        hub.prove(now);
    }
}

#[test]
fn a_peer_takes_at_most_eight_kib() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    let mut hub = Party::new(HUB, 0, now).with_forwarding(now);
    // What is made once is made: keys, tables of the libraries.
    add(&mut hub, now, 0..2);
    let before = Heap::now();
    add(&mut hub, now, 2..PEERS);
    let each = Heap::now().for_each(before, PEERS - 2);
    println!("a peer: {} octets asked for, {} given out", each.asked, each.given);
    assert!(each.given <= MAX_HEAP && each.asked <= MAX_HEAP, "{each:?}");
}

/// What a destination in the clear may cost on the heap, in keying; forwarding forgets it, and the
/// kernel has a route for it.
const MAX_CLEAR: usize = 1024;

#[test]
fn a_clear_destination_takes_little() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    let mut hub = Party::new(HUB, 0, now).with_forwarding(now);
    // As many as the table holds: a hash table is never fuller than just before it grows.
    let number = keying::DESTINATIONS;
    let before = Heap::now();
    let learn = |hub: &mut Party, n: usize| {
        hub.call(now, plain(n));
        assert!(hub.drain(now).is_empty(), "a plain host was called");
    };
    (0..number).for_each(|n| learn(&mut hub, n));
    let each = Heap::now().for_each(before, number);
    println!("a clear destination: {} octets asked for, {} given out", each.asked, each.given);
    assert!(each.given <= MAX_CLEAR && each.asked <= MAX_CLEAR, "{each:?}");
    // As many again: the table is full, and stays as large as it is.
    (number..2 * number).for_each(|n| learn(&mut hub, n));
    let twice = Heap::now().for_each(before, number);
    assert!(twice.given <= each.given + 20, "{each:?}, then {twice:?}");
    assert_eq!(hub.keying.destinations(now).len(), number);
}

/// The shortest of many: what else runs on the machine only ever adds.
fn least(times: usize, mut work: impl FnMut() -> Duration) -> Duration {
    (0..times).map(|_| work()).min().unwrap_or_default()
}

/// How long the node works for one handshake, for a timeout of which nothing is due, and for the
/// question when the next is.
fn work(hub: &mut Party, now: Instant, first: usize) -> [Duration; 3] {
    let mut next = first;
    let handshake = least(40, || {
        let before = hub.worked;
        add(hub, now, next..next + 2);
        next += 2;
        hub.worked - before
    });
    let timeout = least(400, || {
        let began = Instant::now();
        hub.keying.handle_timeout(now);
        began.elapsed()
    });
    let poll = least(400, || {
        let began = Instant::now();
        for _ in 0..16 {
            let _ = std::hint::black_box(hub.keying.poll_timeout());
        }
        began.elapsed()
    });
    [handshake, timeout, poll]
}

#[test]
fn idle_peers_make_no_work() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    let mut hub = Party::new(HUB, 0, now).with_forwarding(now);
    add(&mut hub, now, 0..100);
    let few = work(&mut hub, now, 100);
    add(&mut hub, now, 1000..PEERS);
    let many = work(&mut hub, now, PEERS);
    for (what, few, many) in
        [("handshake", few[0], many[0]), ("timeout", few[1], many[1]), ("poll", few[2], many[2])]
    {
        println!("{what}: {few:?} with 100 peers, {many:?} with {PEERS}");
        // A hundred times the peers: what looks at all of them takes a hundred times as long.
        let allowed = few.max(Duration::from_micros(5)) * 4;
        assert!(many <= allowed, "{what}: {few:?} with 100 peers, {many:?} with {PEERS}");
    }
}

/// Peers of which nobody sends anything for an hour.
const IDLE: usize = 1000;
const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

/// A party whose keys last so long that in an hour an IKE SA is replaced once and a child twice, and
/// whose pairs stay, because they count as used.
fn patient(address: IpAddr, number: u64, now: Instant) -> Party {
    let mut party = Party::configured(address, number, now, |config| {
        config.ike.ike_life = 40 * MINUTE;
        config.ike.child_life = 25 * MINUTE;
        // Each replacement is one exchange, in one datagram each way.
        config.ike.post_quantum = false;
    });
    party.ttl = 24 * HOUR;
    party.in_use = true;
    party.with_forwarding(now)
}

/// A node, its peers, and what wakes it.
struct Crowd {
    hub: Party,
    peers: Vec<Party>,
    /// When a peer wants to be woken, if it still does.
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    /// How often the node was woken, and for what.
    woken: BTreeMap<Timer, usize>,
    /// And how often nothing that anybody sees came of it.
    in_vain: BTreeMap<Timer, usize>,
    /// How often the peers were woken.
    theirs: BTreeMap<Timer, usize>,
}

impl Crowd {
    /// So many peers within a minute, every other one of which has called.
    fn gather(began: Instant, number: usize) -> (Self, Instant) {
        let mut crowd = Self {
            hub: patient(HUB, 0, began),
            peers: Vec::new(),
            due: BinaryHeap::new(),
            woken: BTreeMap::new(),
            in_vain: BTreeMap::new(),
            theirs: BTreeMap::new(),
        };
        let mut now = began;
        for n in 0..number {
            // No two timers of two peers fall together.
            now = began + Duration::from_micros(60_001) * u32::try_from(n).unwrap();
            crowd.run(now);
            crowd.peers.push(patient(peer(n), n as u64, now));
            if n % 2 == 0 {
                crowd.hub.call(now, peer(n));
            } else {
                crowd.peers[n].call(now, HUB);
            }
            crowd.talk(now, n);
            // The first packets, both ways.
            crowd.hub.prove(now);
            crowd.peers[n].prove(now);
            crowd.talk(now, n);
        }
        (crowd, now)
    }

    /// Lets time pass. Nobody sends anything.
    fn run(&mut self, until: Instant) {
        loop {
            let hubs = self.hub.keying.poll_timeout();
            let others = self.due.peek().map(|Reverse((at, n))| (*at, *n));
            let hub_first = match (hubs, others) {
                (Some((at, _)), Some((other, _))) => at <= other,
                (hubs, _) => hubs.is_some(),
            };
            if let (true, Some((at, timer))) = (hub_first, hubs) {
                if at > until {
                    return;
                }
                *self.woken.entry(timer).or_default() += 1;
                let before = self.hub.wanted;
                self.hub.keying.handle_timeout(at);
                self.carry(at);
                if self.hub.wanted == before {
                    *self.in_vain.entry(timer).or_default() += 1;
                }
                let next = self.hub.keying.poll_timeout();
                assert!(next.is_none_or(|(next, _)| next > at), "{timer:?}, and again {next:?}");
            } else if let Some((at, n)) = others {
                if at > until {
                    return;
                }
                self.due.pop();
                let one = &mut self.peers[n];
                if let Some((_, timer)) = one.keying.poll_timeout().filter(|(due, _)| *due <= at) {
                    *self.theirs.entry(timer).or_default() += 1;
                    one.keying.handle_timeout(at);
                }
                self.talk(at, n);
            } else {
                return;
            }
            // The other plane has nothing to do for a pair that nobody uses.
            let forwarding = self.hub.forwarding.as_ref().expect("the node has one");
            assert_eq!(forwarding.poll_timeout(), None);
        }
    }

    /// The node's datagrams reach their peers, and what these answer reaches the node.
    fn carry(&mut self, now: Instant) {
        for transmit in self.hub.drain(now) {
            let IpAddr::V4(to) = transmit.remote.ip() else { panic!("{transmit:?}") };
            let n = usize::try_from(u32::from(to) - (10 << 24)).unwrap();
            self.peers[n].hear(now, &transmit);
            self.talk(now, n);
        }
    }

    /// The node and one peer talk until they have no more to say.
    fn talk(&mut self, now: Instant, n: usize) {
        talk(now, &mut self.hub, &mut self.peers[n]);
        self.due.extend(self.peers[n].keying.poll_timeout().map(|(at, _)| Reverse((at, n))));
    }
}

fn between(before: Wanted, after: Wanted) -> Wanted {
    Wanted {
        datagrams: after.datagrams - before.datagrams,
        questions: after.questions - before.questions,
        signatures: after.signatures - before.signatures,
        told: after.told - before.told,
        made: after.made - before.made,
        removed: after.removed - before.removed,
        looks: after.looks - before.looks,
        policies: after.policies - before.policies,
    }
}

/// An hour with a thousand established peers that say nothing: the node is woken for each replacement
/// of keys that is its to make, for each look at a pair, and once to forget what it keeps for a while;
/// for nothing else, and what it does then is that and no more. Its forwarding plane is not woken at
/// all.
#[test]
fn an_hour_of_idle_peers_is_their_timers_and_nothing_else() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut crowd, now) = Crowd::gather(Instant::now(), IDLE);
    let before = crowd.hub.wanted;
    crowd.run(now + HOUR);
    let Crowd { hub, woken, in_vain, theirs, .. } = &crowd;
    println!("{woken:?}, in vain {in_vain:?}, the peers {theirs:?}");
    let count = |of: &BTreeMap<Timer, usize>, timer| of.get(&timer).copied().unwrap_or_default();
    let [child, ike, kept] =
        [ike::Timer::RekeyChild, ike::Timer::RekeyIke, ike::Timer::HalfOpen].map(Timer::Ike);
    // Whoever has made something replaces it. Where both would at the same moment, one does.
    assert_eq!(count(woken, child) + count(theirs, child), 2 * IDLE);
    assert_eq!(count(woken, ike) + count(theirs, ike), IDLE);
    for of in [woken, theirs] {
        assert!(count(of, child) > 9 * IDLE / 10 && count(of, ike) > 4 * IDLE / 10, "{of:?}");
    }
    // The last answer under an IKE SA that the peer has replaced is kept for a while.
    assert_eq!(count(woken, kept), count(theirs, ike));
    // Looks: a minute after a pair was made, and twenty minutes later; it is made three times, the last
    // time less than twenty minutes before the end.
    assert_eq!(count(woken, Timer::Flow), 5 * IDLE);
    // Whether each caller has a pair by then.
    assert_eq!(count(woken, Timer::Bare), IDLE);
    // Those that are replaced at about the same time go together.
    assert!((1..=2 * IDLE).contains(&count(woken, Timer::Linger)));
    let known = [child, ike, kept, Timer::Flow, Timer::Bare, Timer::Linger];
    assert!(woken.keys().all(|timer| known.contains(timer)), "{woken:?}");
    let forgets = [(kept, count(woken, kept)), (Timer::Bare, IDLE)];
    assert_eq!(*in_vain, BTreeMap::from(forgets), "woken for nothing");
    // Three replacements of two exchanges, of each of which one datagram is ours; with a child's the
    // evidence is asked for again, and what the old pair has carried.
    let all = Wanted {
        datagrams: 6 * IDLE,
        questions: 2 * IDLE,
        signatures: 0,
        told: 4 * IDLE,
        made: 2 * IDLE,
        removed: 2 * IDLE,
        looks: (5 + 2) * IDLE,
        policies: 2 * IDLE,
    };
    assert_eq!(between(before, hub.wanted), all);
}
