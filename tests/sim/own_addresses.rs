//! A host with two addresses and one key: the record of the second may name the first as its gateway
//! (RFC 4322 §3.3.2; rule 46).

use std::time::Duration;

use dnskeys::{Failure, Refusal, Security};
use keying::{StateName, What};

use crate::net::{Kind, Link, Net};
use crate::node::{Host, TestKey, seconds};
use crate::{EAST, WEST, ip};

const SECOND: &str = "192.0.2.12";

fn two(seed: u64) -> Net {
    let mut net = Net::new(seed, Link::default());
    for (n, addresses) in [&[WEST, SECOND][..], &[EAST]].iter().enumerate() {
        let mut host = Host::plain(addresses[0]);
        host.addresses = addresses.iter().map(|addr| ip(addr)).collect();
        let (seed, now) = (net.seed(), net.now);
        host.start(n, keying::Groups::packetdefault(), seed, now, |_| {});
        net.add(host);
        let key = Some(TestKey::nth(n).dns());
        net.dns.publish(ip(addresses[0]), ip(addresses[0]), key, Security::Secure);
        net.drain(n);
    }
    net
}

/// The second address's record.
fn publish(net: &mut Net, gateway: &str, key: Option<usize>, security: Security) {
    let key = key.map(|n| TestKey::nth(n).dns());
    net.dns.publish(ip(SECOND), ip(gateway), key, security);
}

fn say(net: &mut Net, from: usize, source: &str, to: &str, text: &str) {
    let now = net.now;
    net.hosts[from].send_from(now, ip(source), ip(to), text);
    net.drain(from);
}

fn heard(net: &Net, host: usize, text: &str) -> bool {
    net.hosts[host].inbox.iter().any(|(_, said)| said == text)
}

fn peers(net: &Net, host: usize) -> Vec<keying::PeerView> {
    net.hosts[host].node.as_ref().unwrap().keying.peers(net.now)
}

fn refusals(net: &Net) -> Vec<Refusal> {
    let why = |report: &keying::Report| match report.what {
        What::OwnRecord { address, why } if address == ip(SECOND) => Some(why),
        _ => None,
    };
    net.hosts[0].node.as_ref().unwrap().reports.iter().filter_map(why).collect()
}

/// Rule 46: it is called for from the first address, as its record says; the first packet is not lost, and one IKE SA
/// carries both. With and without the key in the second's record, and whoever calls.
#[test]
fn the_second_is_spoken_for_by_the_first() {
    for keyless in [false, true] {
        for order in [[0, 1], [1, 0]] {
            let mut net = two(1);
            publish(&mut net, WEST, (!keyless).then_some(0), Security::Secure);
            for from in order {
                let (source, to) = [(SECOND, EAST), (EAST, SECOND)][from];
                say(&mut net, from, source, to, &format!("ping {from}"));
                net.run(seconds(3));
                assert!(heard(&net, 1 - from, &format!("ping {from}")), "{keyless} {order:?}");
                assert!(heard(&net, from, &format!("pong {from}")), "{keyless} {order:?}");
            }
            say(&mut net, 0, WEST, EAST, "ping first");
            net.run(seconds(3));
            assert!(heard(&net, 0, "pong first"));
            for host in [0, 1] {
                let peers = peers(&net, host);
                assert_eq!((peers.len(), peers[0].pairs), (1, 2), "{keyless} {order:?}");
            }
            assert_eq!(refusals(&net), []);
            assert!(net.wire.iter().all(|seen| seen.kind != Kind::Clear), "{keyless} {order:?}");
            assert!(net.wire.iter().all(|seen| seen.from != ip(SECOND)), "{keyless} {order:?}");
        }
    }
}

/// Rules 22, 23: what nobody signed for delegates to nobody, and another's address is not ours to call
/// from; that is told of, and goes as policy says.
#[test]
fn nobody_else_is_spoken_for() {
    for (gateway, key, security, why) in [
        (WEST, Some(0), Security::Insecure, Refusal::UnsignedDelegation),
        (WEST, Some(1), Security::Secure, Refusal::OtherKey),
        ("192.0.2.99", Some(0), Security::Secure, Refusal::NotNamed),
    ] {
        let mut net = two(2);
        publish(&mut net, gateway, key, security);
        say(&mut net, 0, SECOND, EAST, "ping");
        net.run(seconds(5));
        let node = net.hosts[0].node.as_ref().unwrap();
        let state = node.state_of(net.now, ip(EAST)).map(|found| found.state);
        assert_ne!(state, Some(StateName::Keyed), "{gateway}");
        assert_eq!(refusals(&net), [why], "{gateway}");
        assert_eq!((peers(&net, 0).len(), peers(&net, 1).len()), (0, 0), "{gateway}");
        assert!(heard(&net, 1, "ping"));
    }
}

/// Where nobody can say whom the second names, it is called from that; the first is none the worse for
/// it. What is published later counts.
#[test]
fn a_record_that_cannot_be_had_delays_no_other() {
    for silent in [false, true] {
        let mut net = two(3);
        match silent {
            true => net.dns.silent(ip(SECOND)),
            false => net.dns.failed(ip(SECOND), Failure::ServFail),
        }
        say(&mut net, 0, SECOND, EAST, "ping second");
        say(&mut net, 0, WEST, EAST, "ping first");
        net.run(seconds(1));
        assert!(heard(&net, 0, "pong first"), "{silent}");
        net.run(seconds(20));
        assert!(heard(&net, 1, "ping second"), "{silent}: as policy says, and soon");
        if silent {
            continue;
        }
        publish(&mut net, WEST, Some(0), Security::Secure);
        net.run(seconds(600));
        let now = net.now;
        net.hosts[0].node.as_mut().unwrap().keying.forget(now, ip(EAST));
        net.drain(0);
        let before = net.wire.len();
        say(&mut net, 0, SECOND, EAST, "ping again");
        net.run(seconds(3));
        assert!(heard(&net, 0, "pong again"));
        assert!(net.wire[before..].iter().all(|seen| seen.kind != Kind::Clear));
    }
}

/// Rule 57: a peer that has lost everything is called beside the old pair from the address that it
/// believed, also where what our record says was never asked (it had called us), or may be another by now
/// (our addresses have changed).
#[test]
fn the_call_beside_a_silent_peer_leaves_from_where_it_was_believed() {
    const THIRD: &str = "192.0.2.13";
    for caller in [0, 1] {
        for addresses in [None, Some(&[WEST, SECOND][..]), Some(&[WEST, SECOND, THIRD])] {
            let mut net = two(4);
            publish(&mut net, WEST, Some(0), Security::Secure);
            let (source, to) = [(SECOND, EAST), (EAST, SECOND)][caller];
            say(&mut net, caller, source, to, "ping first");
            net.run(seconds(3));
            assert!(heard(&net, caller, "pong first"));
            if let Some(addresses) = addresses {
                net.readdress(0, addresses.iter().map(|addr| ip(addr)).collect());
            }
            let (seed, now) = (net.seed(), net.now);
            net.hosts[1].start(1, keying::Groups::packetdefault(), seed, now, |_| {});
            net.drain(1);
            let case = format!("{caller} {addresses:?}");
            let back = (0..40).find(|n| {
                say(&mut net, 0, SECOND, EAST, &format!("ping {n}"));
                net.run(seconds(1));
                heard(&net, 0, &format!("pong {n}"))
            });
            assert!(back.is_some(), "{case}");
            assert!(net.wire.iter().all(|seen| seen.kind != Kind::Clear), "{case}");
            assert!(net.wire.iter().all(|seen| seen.from != ip(SECOND)), "{case}");
        }
    }
}

/// How long the first call for the second address to this new destination takes to leave.
fn held(net: &mut Net, last: u8) -> Duration {
    let to = format!("198.51.100.{last}");
    net.dns.publish(ip(&to), ip(&to), Some(TestKey::nth(1).dns()), Security::Secure);
    let before = net.now;
    say(net, 0, SECOND, &to, "ping");
    let called = |net: &Net| net.wire.iter().any(|seen| seen.to == ip(&to));
    assert!(net.run_until(seconds(20), called), "{to}");
    net.now - before
}

/// A zone of ours that does not answer holds up the first call, and not all others: whether nothing was
/// ever heard of it or what was heard has run out; nor does a route that comes or goes make us forget.
#[test]
fn a_zone_that_does_not_answer_is_waited_for_once() {
    let at_once = Duration::from_millis(100);
    for known in [false, true] {
        let mut net = two(5);
        if known {
            publish(&mut net, WEST, Some(0), Security::Secure);
            assert!(held(&mut net, 100) < at_once);
        }
        net.dns.silent(ip(SECOND));
        if !known {
            assert!(held(&mut net, 101) > at_once);
        }
        for n in 102..140 {
            net.run(seconds(27));
            if n % 5 == 0 {
                net.readdress(0, vec![ip(WEST), ip(SECOND)]);
            }
            let held = held(&mut net, n);
            assert!(held < at_once, "{known} {n}: {held:?}");
        }
        let calls = || net.wire.iter().filter(|seen| matches!(seen.kind, Kind::Ike { .. }));
        let from = |from: &str| calls().any(|seen| seen.from == ip(from));
        assert_eq!((from(WEST), from(SECOND)), (known, !known), "what was good stays so");
        let (first, third) = (ip(WEST), ip("192.0.2.13"));
        net.readdress(0, vec![first, ip(SECOND), third]);
        assert!(held(&mut net, 140) > at_once, "any address may be the one");
    }
}

/// Where our zone answers, no call leaves from an address that was right long ago.
#[test]
fn what_was_heard_long_ago_is_asked_first() {
    let mut net = two(6);
    publish(&mut net, SECOND, Some(0), Security::Secure);
    say(&mut net, 0, SECOND, EAST, "ping");
    net.run(seconds(3));
    assert!(heard(&net, 0, "pong"));
    publish(&mut net, WEST, Some(0), Security::Secure);
    net.run(seconds(900));
    let before = net.wire.len();
    held(&mut net, 100);
    let to = ip("198.51.100.100");
    let mut calls = net.wire[before..].iter().filter(|seen| seen.to == to);
    assert!(calls.all(|seen| seen.from == ip(WEST)));
}
