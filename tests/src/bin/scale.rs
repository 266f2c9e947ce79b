//! What a node costs as it grows, without a network: memory and processor time for each
//! destination in the clear, each look-up, each handshake and each peer.
//!
//! `cargo run --release -p tests --bin scale -- [CLEAR [PEERS]]`; by default a million
//! destinations in the clear and ten thousand peers with a pair each, in one process. The model of
//! docs/SCALE.md is fitted to what this prints.
#![allow(clippy::print_stdout, reason = "the figures are told on standard output")]

use std::net::IpAddr;
use std::time::{Duration, Instant};

use sa::{Flow, Notice};
use tests::crowd::{HUB, Party, peer, plain, talk};
use tests::heap::{Counting, Heap};

#[global_allocator]
static COUNTING: Counting = Counting;

fn main() {
    let mut arguments = std::env::args().skip(1).map(|word| word.parse::<usize>());
    let mut number = |default| match arguments.next() {
        None => default,
        Some(Ok(number)) if (1..1 << 24).contains(&number) => number,
        Some(_) => {
            eprintln!("scale [CLEAR [PEERS]], each between 1 and 16777215");
            std::process::exit(2);
        }
    };
    let (clear, peers) = (number(1_000_000), number(10_000));

    let now = Instant::now();
    let room = clear + peers + 1000;
    let mut hub = Party::remembering(HUB, 0, now, room).with_forwarding(now);
    println!("{:<46} {:>12} {:>12}", "", "octets each", "µs each");
    let empty = steps(&mut hub, now, clear);
    learn(&mut hub, now, clear);
    keyed(&mut hub, now, peers);
    let loaded = steps(&mut hub, now, clear + 1);

    println!("\n{:<46} {:>12} {:>12}", "one step, in µs", "empty", "loaded");
    for ((what, empty), (_, loaded)) in empty.into_iter().zip(loaded) {
        println!("{what:<46} {:>12.2} {:>12.2}", micros(empty), micros(loaded));
    }
    let known = hub.keying.destinations(now).len();
    assert_eq!(known, clear + peers, "something was forgotten on the way");
    println!("\n{known} destinations are known, {peers} of them with a pair");
}

/// Learns that these destinations have no record.
fn learn(hub: &mut Party, now: Instant, clear: usize) {
    let (before, worked) = (Heap::now(), hub.worked);
    let notices: Duration = (0..clear).map(|n| trap(hub, now, plain(n))).sum();
    let each = Heap::now().for_each(before, clear);
    tell("a destination in the clear", each, hub.worked - worked + notices, clear);
}

/// One pair with each of these peers, who call us and whom we call by turns.
fn keyed(hub: &mut Party, now: Instant, peers: usize) {
    let (before, worked, signed) = (Heap::now(), hub.worked, hub.signed);
    for n in 0..peers {
        let mut one = Party::new(peer(n), n as u64, now);
        if n % 2 == 0 {
            hub.call(now, peer(n));
        } else {
            one.call(now, HUB);
        }
        talk(now, hub, &mut one);
        hub.prove(now);
    }
    let each = Heap::now().for_each(before, peers);
    tell("a peer with a pair; a handshake but for RSA", each, hub.worked - worked, peers);
    let signing = (hub.signed - signed) / u32::try_from(peers).unwrap_or(u32::MAX);
    println!("{:<46} {:>12} {:>12.1}", "its signature (RSA-2048)", "", micros(signing));
}

/// How long a node takes for things that happen all the time: the least of many tries.
fn steps(hub: &mut Party, now: Instant, fresh: usize) -> [(&'static str, Duration); 4] {
    let mut next = fresh;
    let look_up = least(|| {
        let worked = hub.worked;
        let noticed = trap(hub, now, plain(next));
        next += 1;
        let took = hub.worked - worked + noticed;
        hub.keying.forget(now, plain(next - 1));
        let _ = hub.drain(now);
        took
    });
    let known = plain(fresh + TRIES);
    let again = least(|| trap(hub, now, known));
    hub.keying.forget(now, known);
    let _ = hub.drain(now);
    let timeout = least(|| {
        let began = Instant::now();
        hub.keying.handle_timeout(now);
        began.elapsed()
    });
    let poll = least(|| {
        let began = Instant::now();
        let _ = std::hint::black_box(hub.keying.poll_timeout());
        began.elapsed()
    });
    [
        ("a packet to a fresh destination, until clear", look_up),
        ("a packet to a destination known as clear", again),
        ("a timeout of which nothing is due", timeout),
        ("the question when the next one is", poll),
    ]
}

/// A packet to this address is trapped; how long the notice took.
fn trap(hub: &mut Party, now: Instant, to: IpAddr) -> Duration {
    let Some(flow) = Flow::new(HUB, to) else { return Duration::ZERO };
    let began = Instant::now();
    hub.keying.handle_notice(now, Notice::Acquire { flow, protocol: 17, ports: (1, 1) });
    let took = began.elapsed();
    let sent = hub.drain(now);
    assert!(sent.is_empty(), "a host without a record was called");
    took
}

fn least(mut work: impl FnMut() -> Duration) -> Duration {
    (0..TRIES).map(|_| work()).min().unwrap_or_default()
}

fn tell(what: &str, each: Heap, worked: Duration, number: usize) {
    let worked = worked / u32::try_from(number).unwrap_or(u32::MAX);
    println!("{what:<46} {:>12} {:>12.1}", each.given, micros(worked));
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// Enough for the shortest to be free of what else the machine does.
const TRIES: usize = 100;
