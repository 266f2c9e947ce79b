//! Strangers, forgers and unlucky circumstances: what each must not achieve.

use std::time::Duration;

use dnskeys::{Outcome, Security};
use keying::{Group, Groups, StateName};
use sa::Prefix;

use crate::net::{Kind, Link, Net};
use crate::node::{Host, TestKey, seconds};
use crate::{EAST, WEST, ip, west_and_east};

/// Another address of east.
const EAST_2: &str = "198.51.100.13";
/// Somebody else's address.
const MALLORY: &str = "203.0.113.66";
/// Another address of west.
const WEST_2: &str = "192.0.2.99";

fn key(n: usize) -> Option<dnskeys::PublicKey> {
    Some(TestKey::nth(n).dns())
}

fn state(net: &Net, host: usize, peer: &str) -> Option<keying::Destination> {
    net.hosts[host].node.as_ref().unwrap().state_of(net.now, ip(peer))
}

/// West alone, its key in DNS.
fn west(seed: u64) -> Net {
    let mut net = Net::new(seed, Link::default());
    let (seed, now) = (net.seed(), net.now);
    net.add(Host::node(WEST, 0, seed, now));
    net.dns.publish(ip(WEST), ip(WEST), key(0), Security::Secure);
    net.drain(0);
    net
}

/// West, and an east with two addresses, of which the second is served by itself or the first.
fn two_addresses(seed: u64, second_by: &str) -> Net {
    let mut net = west(seed);
    let mut east = Host::plain(EAST);
    east.addresses.push(ip(EAST_2));
    let (seed, now) = (net.seed(), net.now);
    east.start(1, Groups::packetdefault(), seed, now, |_| {});
    net.add(east);
    net.dns.publish(ip(EAST), ip(EAST), key(1), Security::Secure);
    net.dns.publish(ip(EAST_2), ip(second_by), key(1), Security::Secure);
    net.drain(1);
    net
}

/// Rules 23, 46.
#[test]
fn who_forges_an_unsigned_record_gets_no_traffic() {
    // Mallory has put his key into the answer for east, and calls from his own address.
    let mut net = west(2);
    let mut mallory = Host::plain(MALLORY);
    let (seed, now) = (net.seed(), net.now);
    mallory.start(1, Groups::packetdefault(), seed, now, |config| {
        config.identity = Some(ike::Identity::Address(ip(EAST)));
    });
    // He also answers for east's address locally, to make the packets that trigger the call.
    mallory.addresses.insert(0, ip(EAST));
    net.add(mallory);
    net.dns.publish(ip(EAST), ip(EAST), key(1), Security::Insecure);
    net.drain(1);
    let now = net.now;
    net.hosts[1].send_from(now, ip(EAST), ip(WEST), "hello");
    net.drain(1);
    net.run(seconds(10));
    let before = net.wire.len();
    net.send(0, ip(EAST), "secret");
    net.run(seconds(10));
    let to_mallory = net.wire[before..].iter().filter(|s| s.to == ip(MALLORY)).count();
    assert_eq!(to_mallory, 0, "{:?}", &net.wire[before..]);
}

#[test]
fn a_bogus_record_of_the_gateway_never_ends_in_the_clear() {
    let mut net = west(3);
    net.add(Host::plain(EAST));
    net.dns.publish(ip(EAST), ip(MALLORY), None, Security::Secure);
    net.dns.set(ip(MALLORY), Security::Bogus, Outcome::Bogus);
    net.send(0, ip(EAST), "ping");
    net.run(seconds(10));
    assert_eq!(state(&net, 0, EAST).map(|d| d.state), Some(StateName::Deny));
    assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 0);
}

#[test]
fn another_zones_wrong_key_does_not_spoil_a_call() {
    let mut net = west_and_east(6, Link::default());
    net.dns.publish(ip(MALLORY), ip(EAST), key(2), Security::Secure);
    net.send(0, ip(MALLORY), "x");
    net.send(0, ip(EAST), "ping 1");
    net.run(seconds(5));
    assert_eq!(state(&net, 0, EAST).map(|d| d.state), Some(StateName::Keyed));
    assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 0);
}

#[test]
fn a_gateway_that_rebooted_is_called_anew_for_its_second_address() {
    let mut net = two_addresses(5, EAST);
    net.send(0, ip(EAST), "ping 0");
    net.run(seconds(5));
    let (seed, now) = (net.seed(), net.now);
    net.hosts[1].start(1, Groups::packetdefault(), seed, now, |_| {});
    net.drain(1);
    net.send(0, ip(EAST_2), "ping 1");
    net.run(seconds(20));
    assert_eq!(state(&net, 0, EAST_2).map(|d| d.state), Some(StateName::Keyed));
    assert_eq!(net.clear_between(ip(WEST), ip(EAST_2)), 0);
}

#[test]
fn forgetting_a_busy_peer_leaks_nothing() {
    let mut net = west_and_east(1, Link::default());
    net.send(0, ip(EAST), "ping 0");
    net.run(seconds(5));
    let now = net.now;
    net.hosts[0].node.as_mut().unwrap().keying.forget(now, ip(EAST));
    net.drain(0);
    net.send(0, ip(EAST), "ping 1");
    net.run(seconds(10));
    assert!(net.hosts[0].inbox.contains(&(ip(EAST), "pong 1".to_owned())));
    assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 0);
}

/// libreswan issues 185.
#[test]
fn a_call_to_another_address_of_a_peer_ends_nothing() {
    let mut net = two_addresses(7, EAST_2);
    for n in 0..40 {
        net.send(0, ip(EAST), &format!("ping {n}"));
        net.run(seconds(1));
    }
    net.send(0, ip(EAST_2), "word");
    net.run(seconds(1));
    for n in 0..10 {
        net.send(0, ip(EAST), &format!("data {n}"));
        net.run(Duration::from_millis(500));
    }
    let heard = net.hosts[1].inbox.iter().filter(|(_, t)| t.starts_with("data")).count();
    assert_eq!(heard, 10);
}

/// libreswan issues 185.
#[test]
fn no_ike_sa_stays_without_a_pair() {
    let mut net = two_addresses(8, EAST);
    for _ in 0..7 {
        net.send(0, ip(EAST), "ping 0");
        net.send(0, ip(EAST_2), "ping 1");
        net.run(seconds(10));
    }
    net.run(seconds(2 * 3600));
    for host in [0, 1] {
        assert!(net.hosts[host].node.as_ref().unwrap().keying.is_idle(), "host {host}");
    }
}

/// Rule 35: records that lose their signatures, and get them back, are worth less meanwhile.
#[test]
fn a_pair_is_trusted_as_far_as_its_records_are_now() {
    use sa::Trust::{Dnssec, Unauthenticated};
    let mut net = west_and_east(14, Link::default());
    let both = |net: &mut Net, security| {
        for (n, addr) in [WEST, EAST].into_iter().enumerate() {
            net.dns.publish(ip(addr), ip(addr), key(n), security);
        }
    };
    net.send(0, ip(EAST), "ping");
    net.run(seconds(5));
    for (security, trust) in [
        (Security::Secure, Dnssec),
        (Security::Insecure, Unauthenticated),
        (Security::Secure, Dnssec),
    ] {
        both(&mut net, security);
        // The records are asked for again when their TTL of five minutes is over.
        for _ in 0..80 {
            net.send(0, ip(EAST), "ping");
            net.run(seconds(10));
        }
        for (host, peer) in [(0, EAST), (1, WEST)] {
            assert_eq!(state(&net, host, peer).unwrap().trust, Some(trust), "{host} {security:?}");
        }
    }
    assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 0);
}

#[test]
fn asking_for_the_status_closes_nothing() {
    let mut net = west_and_east(9, Link::default());
    for n in 0..70 {
        net.send(0, ip(EAST), &format!("ping {n}"));
        net.run(seconds(1));
    }
    net.run(seconds(40));
    net.hosts[0].node.as_mut().unwrap().keying.ask_use();
    net.drain(0);
    net.run(seconds(1));
    assert_eq!(state(&net, 0, EAST).map(|d| d.state), Some(StateName::Keyed));
}

/// Rules 7, 17.
#[test]
fn who_only_accepts_calls_answers_through_the_pair() {
    let mut net = Net::new(10, Link::default());
    let (seed, now) = (net.seed(), net.now);
    let mut groups = Groups::new();
    groups.insert(Prefix::ALL_V4, Group::ClearOrPrivate);
    let mut west = Host::plain(WEST);
    west.start(0, groups, seed, now, |_| {});
    net.add(west);
    let seed = net.seed();
    net.add(Host::node(EAST, 1, seed, now));
    net.dns.publish(ip(WEST), ip(WEST), key(0), Security::Secure);
    net.dns.publish(ip(EAST), ip(EAST), key(1), Security::Secure);
    net.drain(0);
    net.drain(1);
    net.send(1, ip(WEST), "ping 1");
    net.run(seconds(5));
    assert_eq!(net.hosts[1].inbox, [(ip(WEST), "pong 1".to_owned())]);
    assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 0);
}

/// Rules 5, 30.
/// libreswan bare shunts.
#[test]
fn a_second_source_that_fails_takes_nothing_from_the_first() {
    let mut net = Net::new(11, Link::default());
    let (seed, now) = (net.seed(), net.now);
    let mut west = Host::plain(WEST);
    west.addresses.push(ip(WEST_2));
    west.start(0, Groups::packetdefault(), seed, now, |_| {});
    net.add(west);
    let seed = net.seed();
    net.add(Host::node(EAST, 1, seed, now));
    // West's second address has no record: east refuses it.
    net.dns.publish(ip(WEST), ip(WEST), key(0), Security::Secure);
    net.dns.publish(ip(EAST), ip(EAST), key(1), Security::Secure);
    net.drain(0);
    net.drain(1);
    net.send(0, ip(EAST), "ping 0");
    net.run(seconds(2));
    let now = net.now;
    net.hosts[0].send_from(now, ip(WEST_2), ip(EAST), "other");
    net.drain(0);
    net.run(seconds(10));
    let before = net.wire.len();
    net.send(0, ip(EAST), "ping secret");
    net.run(seconds(2));
    assert!(net.hosts[0].inbox.contains(&(ip(EAST), "pong secret".to_owned())));
    let clear = net.wire[before..].iter().filter(|s| s.kind == Kind::Clear).count();
    assert_eq!(clear, 0, "{:?}", &net.wire[before..]);
}

/// Attack A10.
/// Rule 35.
#[test]
fn removing_the_records_ends_the_pair() {
    let mut net = west_and_east(12, Link::default());
    net.send(0, ip(EAST), "ping 0");
    net.run(seconds(2));
    net.dns.set(ip(EAST), Security::Secure, Outcome::NoName);
    net.dns.set(ip(WEST), Security::Secure, Outcome::NoName);
    for n in 0..60 {
        net.send(0, ip(EAST), &format!("ping {n}"));
        net.run(seconds(10));
    }
    assert_eq!(state(&net, 0, EAST).map(|d| d.state), Some(StateName::ClearText));
    // A name server that fails ends nothing.
    let mut net = west_and_east(13, Link::default());
    net.send(0, ip(EAST), "ping 0");
    net.run(seconds(2));
    net.dns.failed(ip(EAST), dnskeys::Failure::ServFail);
    net.dns.failed(ip(WEST), dnskeys::Failure::ServFail);
    for n in 0..60 {
        net.send(0, ip(EAST), &format!("ping {n}"));
        net.run(seconds(10));
    }
    assert_eq!(state(&net, 0, EAST).map(|d| d.state), Some(StateName::Keyed));
    assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 0);
}
