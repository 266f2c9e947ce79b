//! A host's outer address changes under its pairs (RFC 4555).

use dnskeys::Security;
use keying::{StateName, What};

use crate::net::{Kind, Link, Net};
use crate::node::{TestKey, seconds};
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
