//! What a peer costs that says nothing: memory, and no work.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tests::crowd::{HUB, Party, peer, plain, talk};
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
