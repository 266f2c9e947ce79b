//! What a peer costs that says nothing: memory, and no work.
#![expect(clippy::print_stdout, reason = "the figures are told on standard output")]

mod heap;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tests::crowd::{HUB, Party, peer, talk};

use crate::heap::Heap;

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
