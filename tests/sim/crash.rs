//! A peer dies without a word and comes back: traffic flows again, encrypted, in 15 seconds.

use std::net::SocketAddr;

use keying::{Groups, StateName};
use sa::Envelope;

use crate::net::{Link, Net};
use crate::node::{Sent, seconds};
use crate::{EAST, WEST, ip, west_and_east};

fn keyed(net: &Net, host: usize, peer: &str) -> bool {
    let Some(node) = net.hosts[host].node.as_ref() else { return false };
    node.state_of(net.now, ip(peer)).is_some_and(|d| d.state == StateName::Keyed)
}

/// East loses all it knew.
fn crash(net: &mut Net) {
    let (seed, now) = (net.seed(), net.now);
    net.hosts[1].start(1, Groups::packetdefault(), seed, now, |_| {});
    net.drain(1);
}

/// Attack A32.
/// Rules 33, 57.
/// P16.
#[test]
fn the_survivor_talks_and_finds_out() {
    for seed in 0..20 {
        let mut net = west_and_east(seed, Link::default());
        net.send(0, ip(EAST), "ping 0");
        net.run(seconds(40));
        crash(&mut net);
        let before = net.now;
        let mut n = 1;
        while !net.hosts[0].inbox.iter().any(|(_, t)| t.starts_with("pong") && t != "pong 0") {
            net.send(0, ip(EAST), &format!("ping {n}"));
            net.run(std::time::Duration::from_millis(500));
            n += 1;
            assert!(net.now - before < seconds(15), "seed {seed}: not back after 15 s");
        }
        assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 0, "seed {seed}");
    }
}

/// Rules 44, 57.
#[test]
fn the_one_that_came_back_talks_first() {
    for seed in 0..20 {
        let mut net = west_and_east(seed, Link::default());
        net.send(0, ip(EAST), "ping 0");
        net.run(seconds(40));
        crash(&mut net);
        net.send(1, ip(WEST), "ping back");
        let heard = |net: &Net| net.hosts[1].inbox.contains(&(ip(WEST), "pong back".to_owned()));
        assert!(net.run_until(seconds(5), heard), "seed {seed}");
        assert!(keyed(&net, 0, EAST) && keyed(&net, 1, WEST));
        net.run(seconds(5));
        let west = net.hosts[0].node.as_ref().unwrap();
        assert_eq!(west.state_of(net.now, ip(EAST)).unwrap().pairs, 1, "seed {seed}");
        assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 0, "seed {seed}");
    }
}

#[test]
fn a_crash_during_set_up_leaves_nothing_standing() {
    // East dies at every tenth of a second of the first second.
    for tenth in 0..10 {
        let mut net = west_and_east(tenth, Link { delay_us: 60_000..=60_000, ..Link::default() });
        net.send(0, ip(EAST), "ping 1");
        net.run(std::time::Duration::from_millis(tenth * 100));
        crash(&mut net);
        let before = net.now;
        let mut n = 2;
        while !net.hosts[0].inbox.iter().any(|(_, t)| t.starts_with("pong")) {
            net.send(0, ip(EAST), &format!("ping {n}"));
            net.run(std::time::Duration::from_millis(500));
            n += 1;
            assert!(net.now - before < seconds(20), "tenth {tenth}: never answered");
        }
        assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 0, "tenth {tenth}");
    }
}

/// East's disk, if it keeps one.
fn with_disk(net: &mut Net, keeps: bool) {
    let (seed, now) = (net.seed(), net.now);
    net.hosts[1].start(1, Groups::packetdefault(), seed, now, |config| {
        config.ike.token_secret = keeps.then(|| [7; 32].into());
    });
    net.drain(1);
}

/// Attack A32.
#[test]
fn who_keeps_its_secret_is_back_in_a_moment() {
    // RFC 6290: the packet that finds no SA draws a hint, the hint a question, the question a token.
    let mut took = [std::time::Duration::ZERO; 2];
    for keeps in [true, false] {
        for seed in 0..10 {
            let mut net = west_and_east(seed, Link::default());
            with_disk(&mut net, keeps);
            net.send(0, ip(EAST), "ping 0");
            net.run(seconds(40));
            with_disk(&mut net, keeps);
            let before = net.now;
            let mut n = 1;
            while !net.hosts[0].inbox.iter().any(|(_, t)| t.starts_with("pong") && t != "pong 0") {
                net.send(0, ip(EAST), &format!("ping {n}"));
                net.run(std::time::Duration::from_millis(100));
                n += 1;
                assert!(net.now - before < seconds(15), "seed {seed}: not back after 15 s");
            }
            let took = &mut took[usize::from(keeps)];
            *took = (*took).max(net.now - before);
            assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 0, "seed {seed}");
        }
    }
    println!("back after {:?} with a token, after {:?} without", took[1], took[0]);
    assert!(took[1] < seconds(2) && took[0] > seconds(5), "{took:?}");
}

/// Attack A32.
/// P13: nor does it take longer while somebody floods it with packets of SAs that there never were.
#[test]
fn a_flood_keeps_nobody_from_being_told() {
    for seed in 0..5 {
        let mut net = west_and_east(seed, Link::default());
        with_disk(&mut net, true);
        net.send(0, ip(EAST), "ping 0");
        net.run(seconds(40));
        with_disk(&mut net, true);
        let flooder = SocketAddr::new(ip("203.0.113.66"), 500);
        let east = SocketAddr::new(ip(EAST), 500);
        let before = net.now;
        let mut n = 1_u32;
        while !net.hosts[0].inbox.iter().any(|(_, t)| t.starts_with("pong") && t != "pong 0") {
            // A hundred of each in a tenth of a second.
            for m in 0..100 {
                let spi = n * 1000 + m;
                let mut esp = vec![0; 60];
                esp[..4].copy_from_slice(&spi.to_be_bytes());
                let envelope = Envelope { local: flooder, remote: east, udp: false };
                net.inject(Sent::Esp(envelope, esp));
                let mut octets = vec![0; 57];
                octets[..4].copy_from_slice(&spi.to_be_bytes());
                octets[8..12].copy_from_slice(&spi.to_be_bytes());
                // Next payload SK, version 2.0, INFORMATIONAL, from the initiator.
                octets[16..20].copy_from_slice(&[46, 0x20, 37, 0x08]);
                octets[27] = 57;
                octets[31] = 29;
                let (local, remote, marker) = (flooder, east, false);
                net.inject(Sent::Ike(ike::Transmit { local, remote, marker, octets }));
            }
            if n % 10 == 1 {
                net.send(0, ip(EAST), &format!("ping {n}"));
            }
            net.run(std::time::Duration::from_millis(100));
            n += 1;
            assert!(net.now - before < seconds(4), "seed {seed}: not back after 4 s");
        }
        let counters = net.hosts[1].node.as_ref().unwrap().keying.ike_counters();
        assert!(counters.lost_told > 1, "seed {seed}: {counters:?}");
    }
}
