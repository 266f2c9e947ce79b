//! A node that crashed remembers whom it was keyed with, and takes them up again by itself
//! (rule 57); what it remembers is never more than a hint.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use dnskeys::{Failure, Outcome, Security};
use keying::{Group, Groups, Remembered, StateName};
use sa::{Flow, Prefix};

use crate::net::{Fate, Kind, Link, Net};
use crate::node::{Host, TestKey, seconds};
use crate::{EAST, WEST, ip, west_and_east};

const MALLORY: &str = "203.0.113.66";

/// East crashes, comes back in these groups, and remembers these.
fn come_back(net: &mut Net, groups: Groups, memory: Vec<Remembered>) {
    let (seed, now) = (net.seed(), net.now);
    net.hosts[1].start(1, groups, seed, now, |_| {});
    net.drain(1);
    net.hosts[1].node.as_mut().unwrap().keying.handle_memory(now, memory);
    net.drain(1);
}

fn remembered(net: &Net, host: usize) -> Vec<Remembered> {
    net.hosts[host].node.as_ref().unwrap().keying.remembered()
}

fn state(net: &Net, host: usize, peer: &str) -> Option<StateName> {
    let node = net.hosts[host].node.as_ref().unwrap();
    node.state_of(net.now, ip(peer)).map(|d| d.state)
}

fn of_west(gateway: &str) -> Vec<Remembered> {
    vec![Remembered { flow: Flow::new(ip(EAST), ip(WEST)).unwrap(), gateway: ip(gateway) }]
}

/// Rule 57, P16: nobody on the restarted node sends anything, and the other is silent too.
#[test]
fn the_pair_is_back_without_a_packet() {
    for seed in 0..20 {
        let mut net = west_and_east(seed, Link::default());
        net.send(0, ip(EAST), "ping 0");
        net.run(seconds(40));
        let memory = remembered(&net, 1);
        assert_eq!(memory, of_west(WEST));
        come_back(&mut net, Groups::packetdefault(), memory);
        let keyed = |net: &Net| state(net, 1, WEST) == Some(StateName::Keyed);
        assert!(net.run_until(seconds(2), keyed), "seed {seed}");
        net.run(seconds(5));
        // What the survivor sends arrives at the first attempt: no liveness check was needed.
        net.send(0, ip(EAST), "ping 1");
        net.run(seconds(1));
        assert!(net.hosts[0].inbox.contains(&(ip(EAST), "pong 1".to_owned())), "seed {seed}");
        let west = net.hosts[0].node.as_ref().unwrap();
        assert_eq!(west.state_of(net.now, ip(EAST)).unwrap().pairs, 1, "seed {seed}");
        assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 0, "seed {seed}");
        assert_eq!(remembered(&net, 1), of_west(WEST), "seed {seed}");
    }
}

/// Memory is a hint: DNS is asked again, and its answer counts.
#[test]
fn what_dns_no_longer_says_is_forgotten() {
    for outcome in [Outcome::NoRecord, Outcome::Bogus] {
        let mut net = west_and_east(3, Link::default());
        net.send(0, ip(EAST), "ping 0");
        net.run(seconds(40));
        let memory = remembered(&net, 1);
        net.dns.set(ip(WEST), Security::Secure, outcome.clone());
        let before = net.wire.len();
        come_back(&mut net, Groups::packetdefault(), memory);
        net.run(seconds(300));
        let called = net.wire[before..].iter().filter(|s| s.from == ip(EAST)).count();
        assert_eq!(called, 0, "{outcome:?}: nobody was called");
        // Nobody has sent a packet, so nothing was decided.
        assert_eq!(state(&net, 1, WEST), None, "{outcome:?}");
        assert_eq!(remembered(&net, 1), [], "{outcome:?}");
    }
}

/// A gateway that memory names and DNS does not is never called (P14).
#[test]
fn a_forged_memory_calls_nobody_else() {
    let mut net = west_and_east(4, Link::default());
    net.add(Host::plain(MALLORY));
    come_back(&mut net, Groups::packetdefault(), of_west(MALLORY));
    net.run(seconds(10));
    assert_eq!(net.between(ip(EAST), ip(MALLORY)).count(), 0);
    assert_eq!(state(&net, 1, WEST), Some(StateName::Keyed));
}

/// After a power cut the name server comes back later than the node.
#[test]
fn it_waits_for_dns() {
    let mut net = west_and_east(5, Link::default());
    net.dns.failed(ip(WEST), Failure::Timeout);
    come_back(&mut net, Groups::packetdefault(), of_west(WEST));
    net.run(seconds(20));
    assert_eq!(state(&net, 1, WEST), None);
    let node = net.hosts[1].node.as_ref().unwrap();
    assert_eq!((node.keying.counters().downgrades, node.keying.counters().clear), (0, 0));
    assert_eq!(remembered(&net, 1), of_west(WEST), "a second crash forgets nobody");
    net.dns.publish(ip(WEST), ip(WEST), Some(TestKey::nth(0).dns()), Security::Secure);
    net.run(seconds(60));
    assert_eq!(state(&net, 1, WEST), Some(StateName::Keyed));
}

/// Once a packet waits, failure is a decision as ever.
#[test]
fn a_packet_makes_a_recalled_flow_an_ordinary_one() {
    let mut net = west_and_east(6, Link { dns_us: 2_000_000..=2_000_000, ..Link::default() });
    net.dns.set(ip(WEST), Security::Secure, Outcome::NoRecord);
    come_back(&mut net, Groups::packetdefault(), of_west(WEST));
    net.run(seconds(1));
    net.send(1, ip(WEST), "ping 1");
    net.run(Duration::from_millis(500));
    assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 0, "held");
    net.run(seconds(5));
    assert!(net.hosts[1].inbox.contains(&(ip(WEST), "pong 1".to_owned())));
    assert_eq!(state(&net, 1, WEST), Some(StateName::ClearText));
}

/// Whoever does not call strangers does not call those it remembers.
#[test]
fn groups_that_do_not_call_do_not_recall() {
    for group in [Group::Clear, Group::ClearOrPrivate, Group::Block] {
        let mut net = west_and_east(7, Link::default());
        let mut groups = Groups::new();
        groups.insert(Prefix::ALL_V4, group);
        come_back(&mut net, groups, of_west(WEST));
        net.run(seconds(60));
        assert!(net.wire.is_empty(), "{group}: {:?}", net.wire);
    }
}

/// A restart is no flood, however many were remembered and whoever they are (P14).
#[test]
fn recalls_are_paced_and_bounded() {
    let mut net = Net::new(8, Link::default());
    net.filter(|_, seen| match seen.kind {
        Kind::Ike { .. } => Fate::Lost,
        Kind::Esp | Kind::Clear => Fate::Link,
    });
    let (seed, now) = (net.seed(), net.now);
    net.add(Host::plain(WEST));
    net.add(Host::node(EAST, 1, seed, now));
    let peers: Vec<Remembered> = (0..3000_u32)
        .map(|n| {
            let peer = IpAddr::from(Ipv4Addr::from(0x0a00_0000 + n));
            net.dns.publish(peer, peer, Some(TestKey::nth(0).dns()), Security::Secure);
            Remembered { flow: Flow::new(ip(EAST), peer).unwrap(), gateway: peer }
        })
        .collect();
    come_back(&mut net, Groups::packetdefault(), peers);
    let started = net.now;
    net.run(seconds(1));
    let first = net.wire.iter().filter(|s| s.at - started <= seconds(1)).count();
    assert!((20..=60).contains(&first), "{first} calls in the first second");
    net.run(seconds(600));
    let node = net.hosts[1].node.as_ref().unwrap();
    let called: std::collections::BTreeSet<IpAddr> = net.wire.iter().map(|s| s.to).collect();
    assert_eq!(called.len(), keying::MAX_REMEMBERED);
    assert!(node.keying.destinations(net.now).is_empty());
    assert_eq!(remembered(&net, 1), []);
}
