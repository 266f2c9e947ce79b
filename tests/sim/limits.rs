//! Pairs that have carried what they may (RFC 4301 §4.4.2.1): replaced while traffic goes on, and
//! closed if they cannot be.

use std::time::Duration;

use keying::StateName;

use crate::net::{Fate, Kind, Link, Net};
use crate::node::seconds;
use crate::{EAST, WEST, ip, west_and_east};

/// West and east, one of them or both with pairs that end after so many packets.
fn limited(seed: u64, hard: [Option<u64>; 2]) -> Net {
    let mut net = west_and_east(seed, Link::default());
    for (host, hard) in net.hosts.iter_mut().zip(hard) {
        host.node.as_mut().unwrap().plane.hard_packets = hard;
    }
    net
}

/// One ping every 50 ms; each is answered within a second.
fn conversation(net: &mut Net, pings: usize) {
    for n in 0..pings {
        net.send(0, ip(EAST), &format!("ping {n}"));
        net.run(Duration::from_millis(50));
    }
    net.run(seconds(1));
    let heard: Vec<&str> = net.hosts[0].inbox.iter().map(|(_, text)| text.as_str()).collect();
    let all: Vec<String> = (0..pings).map(|n| format!("pong {n}")).collect();
    assert_eq!(heard, all, "nothing is lost, doubled or late");
}

/// `CREATE_CHILD_SA` requests of west and of east.
fn asked(net: &Net) -> [usize; 2] {
    [WEST, EAST].map(|from| {
        let asks = |kind| matches!(kind, Kind::Ike { exchange: 36, response: false, .. });
        net.wire.iter().filter(|seen| seen.from == ip(from) && asks(seen.kind)).count()
    })
}

/// Rules 32, 56.
/// Whoever comes to its limit replaces the pair, and no packet notices.
#[test]
fn a_pair_is_replaced_before_it_is_used_up() {
    for hard in [[Some(100), None], [None, Some(100)], [Some(100), Some(100)]] {
        for seed in 0..5 {
            let mut net = limited(seed, hard);
            conversation(&mut net, 400);
            let node = net.hosts[0].node.as_ref().unwrap();
            assert!(node.keying.counters().pairs >= 5, "seed {seed} {hard:?}");
            assert_eq!(node.state_of(net.now, ip(EAST)).unwrap().pairs, 1, "seed {seed} {hard:?}");
            let [west, east] = asked(&net);
            assert!(west + east >= 4, "seed {seed} {hard:?}");
            assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 0);
        }
    }
}

/// Both ends count the same packets; still only one of them asks, because who asked for the pair does
/// so a little sooner.
#[test]
fn both_ends_do_not_ask_at_the_same_packet() {
    for seed in 0..5 {
        let mut net = limited(seed, [Some(1000); 2]);
        conversation(&mut net, 2500);
        let [west, east] = asked(&net);
        assert!(west >= 2 && east == 0, "seed {seed}: {west} {east}");
    }
}

/// Rules 15, 32.
/// A pair that cannot be replaced carries what it may and no packet more; then traffic waits for
/// another, and never goes in the clear.
#[test]
fn a_pair_that_cannot_be_replaced_ends() {
    let mut net = limited(3, [Some(50), None]);
    net.send(0, ip(EAST), "ping 0");
    net.run(seconds(40));
    // No request to replace anything arrives any more; nor does its retransmission.
    let until = net.now + seconds(60);
    net.filter(move |_, seen| {
        let rekey = matches!(seen.kind, Kind::Ike { exchange: 36, .. });
        if rekey && seen.at < until { Fate::Lost } else { Fate::Link }
    });
    let before = net.wire.len();
    for n in 1..100 {
        net.send(0, ip(EAST), &format!("ping {n}"));
        net.run(Duration::from_millis(20));
    }
    let esp = |net: &Net, before: usize| {
        let of_west = |seen: &&crate::net::Seen| seen.from == ip(WEST) && seen.kind == Kind::Esp;
        net.wire[before..].iter().filter(of_west).count()
    };
    assert_eq!(esp(&net, before), 49, "one went before, and the limit is fifty");
    net.run(seconds(60));
    net.send(0, ip(EAST), "ping again");
    net.run(seconds(10));
    assert!(net.hosts[0].inbox.contains(&(ip(EAST), "pong again".to_owned())));
    let node = net.hosts[0].node.as_ref().unwrap();
    assert_eq!(node.state_of(net.now, ip(EAST)).unwrap().state, StateName::Keyed);
    assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 0);
}
