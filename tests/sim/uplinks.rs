//! A host's outer address changes under its pairs (RFC 4555).

use std::time::Duration;

use dnskeys::Security;
use keying::{Group, Groups, StateName, What};
use sa::Prefix;

use crate::net::{Kind, Link, Net};
use crate::node::{Host, TestKey, seconds};
use crate::{EAST, WEST, ip, west_and_east};

/// Where west turns up.
const WEST_2: &str = "203.0.113.11";
/// What west and east serve behind their addresses, and keep.
const INNER: [&str; 2] = ["2001:db8:1::11", "2001:db8:2::12"];

fn happened(net: &Net, host: usize, which: impl Fn(&What) -> bool) -> usize {
    let reports = &net.hosts[host].node.as_ref().unwrap().reports;
    reports.iter().filter(|report| which(&report.what)).count()
}

fn moved(what: &What) -> bool {
    matches!(what, What::Moved { .. })
}

fn calling(what: &What) -> bool {
    matches!(what, What::Calling { .. })
}

/// West and east, each with an address of the other family that its own address is the gateway of.
fn with_inner_addresses(seed: u64, security: Security) -> Net {
    let mut net = west_and_east(seed, Link::default());
    for (host, (inner, outer)) in INNER.into_iter().zip([WEST, EAST]).enumerate() {
        let key = Some(TestKey::nth(host).dns());
        net.dns.publish(ip(inner), ip(outer), key, security);
        let addresses = vec![ip(outer), ip(inner)];
        net.readdress(host, addresses);
    }
    net
}

#[test]
fn a_pair_between_addresses_that_stay_outlives_the_one_that_goes() {
    for seed in 0..10 {
        // Either end moves: the one that called, and the one that was called.
        for (mover, stays) in INNER.iter().enumerate() {
            let mut net = with_inner_addresses(seed, Security::Secure);
            net.send(0, ip(INNER[1]), "ping 1");
            net.run(seconds(5));
            assert!(net.hosts[0].inbox.contains(&(ip(INNER[1]), "pong 1".to_owned())));
            net.readdress(mover, vec![ip(WEST_2), ip(stays)]);
            net.run(seconds(2));
            for (from, to) in [(0, 1), (1, 0)] {
                net.send(from, ip(INNER[to]), "ping 2");
                net.run(seconds(1));
                let pong = (ip(INNER[to]), "pong 2".to_owned());
                assert!(net.hosts[from].inbox.contains(&pong), "{seed} {mover} {from}");
            }
            assert_eq!(happened(&net, 0, calling) + happened(&net, 1, calling), 1);
            assert!(happened(&net, 0, moved) > 0 && happened(&net, 1, moved) > 0);
        }
    }
}

/// An inner address whose record names our outer one, with or without its key, is well published: who
/// requires that of itself calls for it, also from an address that it has got since.
#[test]
fn an_inner_address_that_names_the_outer_one_may_call() {
    for keyless in [false, true] {
        let mut net = with_inner_addresses(1, Security::Secure);
        let key = Some(TestKey::nth(0).dns());
        net.dns.publish(ip(WEST_2), ip(WEST_2), key.clone(), Security::Secure);
        if keyless {
            net.dns.publish(ip(INNER[0]), ip(WEST), None, Security::Secure);
        }
        let (seed, now) = (net.seed(), net.now);
        net.hosts[0].start(0, Groups::packetdefault(), seed, now, |config| {
            config.own_record = keying::OwnRecord::Require;
        });
        net.drain(0);
        net.send(0, ip(INNER[1]), "ping 1");
        net.run(seconds(5));
        assert!(net.hosts[0].inbox.contains(&(ip(INNER[1]), "pong 1".to_owned())), "{keyless}");
        // Elsewhere, where its record does not say so: refused, until it does.
        let forget = |net: &mut Net| {
            for (host, to) in [(0, INNER[1]), (1, INNER[0])] {
                let now = net.now;
                net.hosts[host].node.as_mut().unwrap().keying.forget(now, ip(to));
                net.drain(host);
            }
            net.run(seconds(20));
        };
        forget(&mut net);
        net.readdress(0, vec![ip(WEST_2), ip(INNER[0])]);
        let calls = happened(&net, 0, calling);
        net.send(0, ip(INNER[1]), "ping 2");
        net.run(seconds(5));
        assert_eq!(happened(&net, 0, calling), calls, "{keyless}");
        net.dns.publish(ip(INNER[0]), ip(WEST_2), key.filter(|_| !keyless), Security::Secure);
        net.run(seconds(310));
        forget(&mut net);
        net.send(0, ip(INNER[1]), "ping 3");
        net.run(seconds(5));
        assert!(net.hosts[0].inbox.contains(&(ip(INNER[1]), "pong 3".to_owned())), "{keyless}");
    }
}

#[test]
fn a_pair_of_the_address_that_goes_ends_at_both_ends() {
    for seed in 0..10 {
        let mut net = west_and_east(seed, Link::default());
        net.dns.publish(ip(WEST_2), ip(WEST_2), Some(TestKey::nth(0).dns()), Security::Secure);
        net.send(0, ip(EAST), "ping 1");
        net.run(seconds(5));
        net.readdress(0, vec![ip(WEST_2)]);
        net.run(seconds(2));
        // Whoever gets that address next is not taken for west.
        let east = net.hosts[1].node.as_ref().unwrap();
        assert!(east.state_of(net.now, ip(WEST)).is_none(), "seed {seed}");
        net.send(0, ip(EAST), "ping 2");
        net.run(seconds(5));
        assert!(net.hosts[0].inbox.contains(&(ip(EAST), "pong 2".to_owned())), "seed {seed}");
        let east = net.hosts[1].node.as_ref().unwrap();
        let new = east.state_of(net.now, ip(WEST_2)).unwrap();
        assert_eq!(new.state, StateName::Keyed, "seed {seed}");
        assert_eq!(net.clear_between(ip(WEST_2), ip(EAST)), 0);
    }
}

#[test]
fn an_address_that_comes_back_was_never_gone() {
    let mut net = west_and_east(1, Link::default());
    net.send(0, ip(EAST), "ping 1");
    net.run(seconds(5));
    net.readdress(0, vec![]);
    net.run(seconds(5));
    net.readdress(0, vec![ip(WEST)]);
    net.send(0, ip(EAST), "ping 2");
    net.run(seconds(5));
    assert!(net.hosts[0].inbox.contains(&(ip(EAST), "pong 2".to_owned())));
    assert_eq!(happened(&net, 0, calling), 1);
}

/// Speaks from another address, and has the old one no more.
fn go_elsewhere(net: &mut Net) {
    let now = net.now;
    let west = net.hosts[0].node.as_mut().unwrap();
    west.keying.handle_addresses(now, vec![ip(WEST_2)]);
    for (ike, _) in west.keying.stranded() {
        west.keying.relocate(now, ike, ip(WEST_2));
    }
    net.drain(0);
    net.run(seconds(2));
}

#[test]
fn what_nobody_signs_for_any_more_does_not_move_either() {
    for (unsigned, moves) in [(false, true), (true, false)] {
        let mut net = west_and_east(3, Link::default());
        net.send(0, ip(EAST), "ping 1");
        net.run(seconds(5));
        if unsigned {
            let key = Some(TestKey::nth(0).dns());
            net.dns.publish(ip(WEST), ip(WEST), key, Security::Insecure);
        }
        // Until the record's TTL is over and it is asked for again.
        for _ in 0..60 {
            net.send(0, ip(EAST), "ping");
            net.run(seconds(10));
        }
        net.readdress(0, vec![ip(WEST_2), ip(WEST)]);
        let before = net.wire.len();
        go_elsewhere(&mut net);
        // Whether east asks there if west is there: the way to go along.
        let asked = net.wire[before..].iter().any(|seen| {
            (seen.from, seen.to) == (ip(EAST), ip(WEST_2))
                && matches!(seen.kind, Kind::Ike { response: false, .. })
        });
        assert_eq!(asked, moves, "unsigned: {unsigned}");
    }
}

/// Attack A14.
#[test]
fn what_nobody_signed_for_does_not_move() {
    // The key came from unsigned DNS: its authority is the address that calls.
    for seed in 0..10 {
        let mut net = west_and_east(seed, Link::default());
        for (host, addr) in [WEST, EAST].into_iter().enumerate() {
            let key = Some(TestKey::nth(host).dns());
            net.dns.publish(ip(addr), ip(addr), key, Security::Insecure);
        }
        net.send(0, ip(EAST), "ping 1");
        net.run(seconds(5));
        net.readdress(0, vec![ip(WEST_2), ip(WEST)]);
        net.run(seconds(1));
        go_elsewhere(&mut net);
        assert_eq!(happened(&net, 1, moved), 0, "seed {seed}");
    }
}

/// Rule 10: the kernel sends from a new address before we have heard of it. What comes from an address
/// that nobody knows waits for that news, and is never in the clear on account of it.
/// P1, P2.
#[test]
fn what_an_address_sends_before_we_hear_of_it_is_encrypted() {
    for group in [Group::PrivateOrClear, Group::Private] {
        let mut net = Net::new(41, Link::default());
        let mut groups = Groups::new();
        groups.insert(Prefix::ALL_V4, group);
        for (n, addr) in [WEST, EAST].into_iter().enumerate() {
            let (seed, now) = (net.seed(), net.now);
            let mut host = Host::plain(addr);
            host.start(n, groups.clone(), seed, now, |_| {});
            net.add(host);
            net.dns.publish(ip(addr), ip(addr), Some(TestKey::nth(n).dns()), Security::Secure);
            net.drain(n);
        }
        net.dns.publish(ip(WEST_2), ip(WEST_2), Some(TestKey::nth(0).dns()), Security::Secure);
        net.hosts[0].addresses.push(ip(WEST_2));
        send_from(&mut net, WEST_2, EAST, "ping 1");
        net.run(Duration::from_millis(300));
        assert!(net.wire.is_empty(), "{group}: {:?}", net.wire);
        net.readdress(0, vec![ip(WEST), ip(WEST_2)]);
        net.run(seconds(2));
        assert!(net.hosts[0].inbox.contains(&(ip(EAST), "pong 1".to_owned())), "{group}");
        assert_eq!(net.clear_between(ip(WEST_2), ip(EAST)), 0, "{group}");
        let flows = net.hosts[0].node.as_ref().unwrap().keying.destinations(net.now);
        let [flow] = &flows[..] else { panic!("{group}: {flows:?}") };
        assert_eq!((flow.source, flow.state), (ip(WEST_2), StateName::Keyed), "{group}");
    }
}

/// A host that we forward for and do not serve waits once, for its first packet; `private` stays
/// closed to it.
#[test]
fn who_passes_through_waits_once() {
    const PASSING: &str = "192.0.2.77";
    const OTHER: &str = "203.0.113.5";
    for (group, passes) in [(Group::PrivateOrClear, 1), (Group::Private, 0)] {
        let mut net = Net::new(42, Link::default());
        let mut groups = Groups::new();
        groups.insert(Prefix::ALL_V4, group);
        let mut west = Host::plain(WEST);
        west.behind.push(ip(PASSING));
        let (seed, now) = (net.seed(), net.now);
        west.start(0, groups, seed, now, |_| {});
        net.add(west);
        net.add(Host::plain(EAST));
        net.add(Host::plain(OTHER));
        net.drain(0);
        let passed = |net: &Net, to| net.clear_between(ip(PASSING), ip(to));
        send_from(&mut net, PASSING, EAST, "word");
        net.run(Duration::from_millis(300));
        assert_eq!(passed(&net, EAST), 0, "{group}: it may be ours");
        net.run(Duration::from_millis(300));
        assert_eq!(passed(&net, EAST), passes, "{group}: it is not");
        send_from(&mut net, PASSING, OTHER, "word");
        net.run(Duration::from_millis(50));
        assert_eq!(passed(&net, OTHER), passes, "{group}: and we know");
        let counters = *net.hosts[0].node.as_ref().unwrap().keying.counters();
        assert_eq!((counters.queries, counters.calls), (0, 0), "{group}");
        // Long after, nobody knows any more.
        net.run(seconds(200));
        send_from(&mut net, PASSING, EAST, "word");
        net.run(Duration::from_millis(300));
        assert_eq!(passed(&net, EAST), passes, "{group}: it may be ours by now");
        net.run(seconds(1));
        assert_eq!(passed(&net, EAST), 2 * passes, "{group}: it is not");
    }
}

/// An application behind or on west sends from this address.
fn send_from(net: &mut Net, from: &str, to: &str, text: &str) {
    let now = net.now;
    net.hosts[0].send_from(now, ip(from), ip(to), text);
    net.drain(0);
}
