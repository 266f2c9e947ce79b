//! Configured connections: they beat DNS and the policy groups, and nobody gets into them who is
//! not written down (rules 9, 41, 44).

use std::net::IpAddr;

use dnskeys::Security;
use keying::{Connection, ConnectionState, Group, Groups, RemoteKeys, Start, StateName};
use sa::{Mode, Prefix};

use crate::net::{Kind, Link, Net};
use crate::node::{Host, TestKey, seconds};
use crate::{EAST, WEST, ip};

/// Inner addresses of west and of east.
pub(crate) const WEST_IN: &str = "10.1.0.1";
pub(crate) const EAST_IN: &str = "10.2.0.1";
/// A second address of east's gateway, and somebody else's.
pub(crate) const EAST_2: &str = "198.51.100.13";
const MALLORY: &str = "203.0.113.66";

fn ike_key(n: usize) -> ike::PublicKey {
    let key = TestKey::nth(n);
    key.ike()
}

pub(crate) fn connection(
    gateways: &[&str],
    key: usize,
    local: &str,
    remote: &str,
    start: Start,
) -> Connection {
    Connection {
        name: "net".to_owned(),
        gateways: gateways.iter().map(|g| ip(g)).collect(),
        local_address: None,
        local_identity: None,
        remote_identity: None,
        remote_keys: RemoteKeys::Known(vec![ike_key(key).into()]),
        local_subnets: vec![local.parse().unwrap()],
        remote_subnets: vec![remote.parse().unwrap()],
        mode: Mode::Tunnel,
        start,
    }
}

pub(crate) fn net_of(host: &str) -> String {
    format!("{}.0/24", host.rsplit_once('.').unwrap().0)
}

/// A host with an inner address, one connection, and nothing else that is not in the clear.
pub(crate) fn host(
    net: &mut Net,
    outer: &[&str],
    inner: &str,
    key: usize,
    connection: Connection,
) -> usize {
    let mut host = Host::plain(outer[0]);
    host.addresses.extend(outer[1..].iter().chain([&inner]).map(|a| ip(a)));
    let mut groups = Groups::new();
    groups.insert(Prefix::ALL_V4, Group::Clear);
    let (seed, now) = (net.seed(), net.now);
    host.start(key, groups, seed, now, |config| config.connections.push(connection));
    let host = net.add(host);
    net.drain(host);
    host
}

/// West and east, each configured for the other; they call like this.
fn configured(seed: u64, west: Start, east: Start) -> Net {
    let mut net = Net::new(seed, Link::default());
    let (near, far) = (net_of(WEST_IN), net_of(EAST_IN));
    host(&mut net, &[WEST], WEST_IN, 0, connection(&[EAST], 1, &near, &far, west));
    host(&mut net, &[EAST, EAST_2], EAST_IN, 1, connection(&[WEST], 0, &far, &near, east));
    net
}

fn send(net: &mut Net, from: usize, source: &str, to: &str, text: &str) {
    let now = net.now;
    net.hosts[from].send_from(now, ip(source), ip(to), text);
    net.drain(from);
}

pub(crate) fn heard(net: &Net, host: usize, text: &str) -> bool {
    net.hosts[host].inbox.iter().any(|(_, said)| said == text)
}

pub(crate) fn view(net: &Net, host: usize) -> keying::ConnectionView {
    net.hosts[host].node.as_ref().unwrap().keying.connections(net.now).remove(0)
}

pub(crate) fn clear(net: &Net) -> usize {
    net.wire.iter().filter(|seen| seen.kind == Kind::Clear).count()
}

#[test]
fn the_first_packet_makes_the_connection_and_arrives() {
    let mut net = configured(1, Start::Trap, Start::Accept);
    assert_eq!(view(&net, 0).state, ConnectionState::Idle);
    send(&mut net, 0, WEST_IN, EAST_IN, "one");
    net.run(seconds(2));
    assert!(heard(&net, 1, "one"), "the first packet is lost");
    send(&mut net, 1, EAST_IN, WEST_IN, "two");
    net.run(seconds(1));
    assert!(heard(&net, 0, "two"));
    assert_eq!(clear(&net), 0);
    // Configured, and DNS was never asked.
    let node = net.hosts[0].node.as_ref().unwrap();
    assert_eq!(node.keying.counters().queries, 0);
    assert_eq!(view(&net, 0).state, ConnectionState::Up);
    assert_eq!(view(&net, 1).pairs, 1);
}

#[test]
fn who_was_called_is_known_by_its_address() {
    let mut net = Net::new(1, Link::default());
    let (near, far) = (net_of(WEST_IN), net_of(EAST_IN));
    let west = connection(&[EAST], 1, &near, &far, Start::Now);
    let east = connection(&[WEST], 0, &far, &near, Start::Accept);
    for (outer, inner, key, connection) in [(WEST, WEST_IN, 0, west), (EAST, EAST_IN, 1, east)] {
        let mut host = Host::plain(outer);
        host.addresses.push(ip(inner));
        let mut groups = Groups::new();
        groups.insert(Prefix::ALL_V4, Group::Clear);
        let (seed, now) = (net.seed(), net.now);
        host.start(key, groups, seed, now, |config| {
            config.connections.push(connection);
            config.ike.resumption = true;
            config.ike.ticket_keys = vec![[9; 32].into()];
        });
        let host = net.add(host);
        net.drain(host);
    }
    net.run(seconds(2));
    let keying = &net.hosts[0].node.as_ref().unwrap().keying;
    assert_eq!(keying.peers(net.now)[0].gateway, Some(ip(EAST)));
    // Its ticket is found when it is called the next time.
    let kept = keying.tickets(net.now);
    assert_eq!(kept.iter().map(|ticket| ticket.gateway).collect::<Vec<_>>(), [ip(EAST)]);
    // And when it comes back anew, what it had before is given up (RFC 7296 §2.4).
    net.run(seconds(60));
    let (seed, now) = (net.seed(), net.now);
    let again = connection(&[WEST], 0, &far, &near, Start::Now);
    let mut groups = Groups::new();
    groups.insert(Prefix::ALL_V4, Group::Clear);
    net.hosts[1].start(1, groups, seed, now, |config| config.connections.push(again));
    net.drain(1);
    net.run(seconds(2));
    let keying = &net.hosts[0].node.as_ref().unwrap().keying;
    assert_eq!(keying.peers(net.now).len(), 1, "the old one is still there");
}

/// Attack A46.
#[test]
fn calls_that_cross_leave_one_pair() {
    for seed in 0..12 {
        let mut net = configured(seed, Start::Now, Start::Now);
        net.run(seconds(1));
        for n in 0..8 {
            send(&mut net, 0, WEST_IN, EAST_IN, &format!("to east {n}"));
            send(&mut net, 1, EAST_IN, WEST_IN, &format!("to west {n}"));
            net.run(seconds(2));
            assert!(heard(&net, 1, &format!("to east {n}")), "seed {seed}, {n}");
            assert!(heard(&net, 0, &format!("to west {n}")), "seed {seed}, {n}");
        }
        assert_eq!((view(&net, 0).pairs, view(&net, 1).pairs), (1, 1), "seed {seed}");
        assert_eq!(clear(&net), 0);
    }
}

/// Forgetting an address closes the connection to it at both ends; the next packet makes it anew,
/// with the ticket that the gateway gave and without signatures (RFC 5723).
#[test]
fn what_is_forgotten_comes_back_with_a_ticket() {
    let mut net = Net::new(5, Link::default());
    let (near, far) = (net_of(WEST_IN), net_of(EAST_IN));
    let west = connection(&[EAST], 1, &near, &far, Start::Trap);
    let east = connection(&[WEST], 0, &far, &near, Start::Accept);
    for (n, (outer, inner, connection)) in
        [(WEST, WEST_IN, west), (EAST, EAST_IN, east)].into_iter().enumerate()
    {
        let mut host = Host::plain(outer);
        host.addresses.push(ip(inner));
        let mut groups = Groups::new();
        groups.insert(Prefix::ALL_V4, Group::Clear);
        let (seed, now) = (net.seed(), net.now);
        host.start(n, groups, seed, now, |config| {
            config.connections.push(connection);
            config.ike.resumption = true;
            config.ike.ticket_keys = vec![[7; 32].into()];
        });
        let host = net.add(host);
        net.drain(host);
    }
    send(&mut net, 0, WEST_IN, EAST_IN, "one");
    net.run(seconds(2));
    assert!(heard(&net, 1, "one"));
    assert_eq!(net.signatures, 2);
    let now = net.now;
    for (address, left) in [("10.9.0.1", 1), (EAST_IN, 0)] {
        net.hosts[0].node.as_mut().unwrap().keying.forget(now, ip(address));
        net.drain(0);
        net.run(seconds(1));
        assert_eq!((view(&net, 0).pairs, view(&net, 1).pairs), (left, left), "{address}");
    }
    assert_eq!(view(&net, 0).state, ConnectionState::Idle);
    send(&mut net, 0, WEST_IN, EAST_IN, "two");
    net.run(seconds(2));
    assert!(heard(&net, 1, "two"));
    assert_eq!(net.signatures, 2, "it came back with signatures");
    assert_eq!(clear(&net), 0);
}

/// The next gateway is called when the first does not answer, and what waits is not lost.
#[test]
fn gateways_are_tried_in_order() {
    let mut net = Net::new(3, Link::default());
    let (near, far) = (net_of(WEST_IN), net_of(EAST_IN));
    let west = connection(&[MALLORY, EAST_2, EAST], 1, &near, &far, Start::Trap);
    host(&mut net, &[WEST], WEST_IN, 0, west);
    let mut east = connection(&[WEST], 0, &far, &near, Start::Accept);
    east.local_identity = Some(ike::Identity::Address(ip(EAST_2)));
    host(&mut net, &[EAST, EAST_2], EAST_IN, 1, east);
    send(&mut net, 0, WEST_IN, EAST_IN, "patient");
    net.run(seconds(12));
    assert!(heard(&net, 1, "patient"));
    assert_eq!(view(&net, 0).gateway, Some(ip(EAST_2)));
}

/// Somebody else at the gateway's address is not let in, and nothing goes in the clear.
#[test]
fn another_key_is_refused_and_nothing_leaves_in_the_clear() {
    let mut net = Net::new(4, Link::default());
    let (near, far) = (net_of(WEST_IN), net_of(EAST_IN));
    host(&mut net, &[WEST], WEST_IN, 0, connection(&[EAST], 1, &near, &far, Start::Trap));
    host(&mut net, &[EAST], EAST_IN, 2, connection(&[WEST], 0, &far, &near, Start::Trap));
    for n in 0..20 {
        send(&mut net, 0, WEST_IN, EAST_IN, &format!("secret {n}"));
        send(&mut net, 1, EAST_IN, WEST_IN, &format!("forged {n}"));
        net.run(seconds(3));
    }
    assert_eq!((clear(&net), net.hosts[1].inbox.len(), net.hosts[0].inbox.len()), (0, 0, 0));
    assert_eq!(view(&net, 0).pairs, 0);
}

/// Clear packets from the other side's subnet are not believed.
#[test]
fn clear_packets_cannot_speak_for_the_other_side() {
    let mut net = configured(5, Start::Trap, Start::Accept);
    let mut mallory = Host::plain(MALLORY);
    mallory.addresses.push(ip(EAST_IN));
    let mallory = net.add(mallory);
    send(&mut net, mallory, EAST_IN, WEST_IN, "forged");
    net.run(seconds(1));
    assert!(net.hosts[0].inbox.is_empty());
    assert_eq!(net.hosts[0].refused, 1);
}

/// Attack A11.
/// A stranger whose DNS says that it may speak for an address of the other side is refused
/// (rule 9): what is written down is not to be had by opportunism, whatever DNS says.
/// Rules 9, 41.
#[test]
fn nobody_gets_into_a_connection_by_opportunism() {
    let mut net = Net::new(6, Link::default());
    let (near, far) = (net_of(WEST_IN), net_of(EAST_IN));
    let mut west = Host::plain(WEST);
    west.addresses.push(ip(WEST_IN));
    let (seed, now) = (net.seed(), net.now);
    let connection = connection(&[EAST], 1, &near, &far, Start::Accept);
    west.start(0, Groups::packetdefault(), seed, now, |c| c.connections.push(connection));
    net.add(west);
    let mut mallory = Host::plain(MALLORY);
    mallory.addresses.push(ip(EAST_IN));
    let seed = net.seed();
    mallory.start(2, Groups::packetdefault(), seed, now, |_| {});
    net.add(mallory);
    let key = |n: usize| Some(TestKey::nth(n).dns());
    net.dns.publish(ip(WEST), ip(WEST), key(0), Security::Secure);
    net.dns.publish(ip(WEST_IN), ip(WEST), key(0), Security::Secure);
    net.dns.publish(ip(MALLORY), ip(MALLORY), key(2), Security::Secure);
    net.dns.publish(ip(EAST_IN), ip(MALLORY), key(2), Security::Secure);
    net.drain(0);
    net.drain(1);
    send(&mut net, 1, EAST_IN, WEST_IN, "forged");
    net.run(seconds(40));
    assert!(net.hosts[0].inbox.is_empty(), "{:?}", net.hosts[0].inbox);
    let node = net.hosts[0].node.as_ref().unwrap();
    assert!(node.keying.counters().visitors_refused > 0);
    // As itself it is as welcome as anybody.
    send(&mut net, 1, MALLORY, WEST, "hello");
    net.run(seconds(5));
    assert!(heard(&net, 0, "hello"));
    let state = net.hosts[0].node.as_ref().unwrap().state_of(net.now, ip(MALLORY));
    assert_eq!(state.map(|d| d.state), Some(StateName::Keyed));
}

/// A peer that lost everything is found out by traffic, and called again.
#[test]
fn a_peer_that_restarted_is_called_again() {
    let mut net = configured(7, Start::Trap, Start::Accept);
    send(&mut net, 0, WEST_IN, EAST_IN, "before");
    net.run(seconds(2));
    let (seed, now) = (net.seed(), net.now);
    let (near, far) = (net_of(WEST_IN), net_of(EAST_IN));
    let accept = connection(&[WEST], 0, &far, &near, Start::Accept);
    net.hosts[1].start(1, Groups::new(), seed, now, |c| c.connections.push(accept));
    net.drain(1);
    for n in 0..30 {
        send(&mut net, 0, WEST_IN, EAST_IN, &format!("after {n}"));
        net.run(seconds(1));
    }
    assert!(heard(&net, 1, "after 29"));
    assert_eq!(clear(&net), 0);
}

/// With the peer's key from DNS only a valid chain will do.
#[test]
fn keys_from_dns_need_a_valid_chain() {
    for (security, comes_up) in [(Security::Secure, true), (Security::Insecure, false)] {
        let mut net = Net::new(8, Link::default());
        let (near, far) = (net_of(WEST_IN), net_of(EAST_IN));
        let mut west = connection(&[EAST], 1, &near, &far, Start::Trap);
        west.remote_keys = RemoteKeys::Dns;
        let mut east = connection(&[WEST], 0, &far, &near, Start::Accept);
        east.remote_keys = RemoteKeys::Dns;
        net.dns.publish(ip(WEST), ip(WEST), Some(TestKey::nth(0).dns()), Security::Secure);
        net.dns.publish(ip(EAST), ip(EAST), Some(TestKey::nth(1).dns()), security);
        host(&mut net, &[WEST], WEST_IN, 0, west);
        host(&mut net, &[EAST], EAST_IN, 1, east);
        send(&mut net, 0, WEST_IN, EAST_IN, "hello");
        net.run(seconds(10));
        assert_eq!(heard(&net, 1, "hello"), comes_up, "{security:?}");
        assert_eq!(clear(&net), 0);
    }
}

#[test]
fn what_is_closed_in_order_stays_closed() {
    let mut net = configured(9, Start::Now, Start::Accept);
    net.run(seconds(3));
    assert_eq!(view(&net, 1).state, ConnectionState::Up);
    net.shutdown(0);
    net.run(seconds(30));
    assert!(net.hosts[0].node.as_ref().unwrap().keying.is_idle(), "it called again");
    assert_eq!(view(&net, 1).state, ConnectionState::Idle);
    let _: IpAddr = ip(EAST_2);
}

/// P1: what a reload finds as it was stays as it was; what is new works, and what is gone is closed at
/// both ends.
#[test]
fn a_reload_touches_only_what_has_changed() {
    const THIRD_IN: &str = "10.3.0.1";
    let mut net = configured(61, Start::Trap, Start::Accept);
    send(&mut net, 0, WEST_IN, EAST_IN, "one");
    net.run(seconds(2));
    assert!(heard(&net, 1, "one"));
    let (near, far, third) = (net_of(WEST_IN), net_of(EAST_IN), net_of(THIRD_IN));
    let first = connection(&[EAST], 1, &near, &far, Start::Trap);
    let more = Connection {
        name: "more".to_owned(),
        ..connection(&[EAST], 1, &near, &third, Start::Trap)
    };
    let back = connection(&[WEST], 0, &far, &near, Start::Accept);
    let more_back = Connection {
        name: "more".to_owned(),
        ..connection(&[WEST], 0, &third, &near, Start::Accept)
    };
    net.hosts[1].addresses.push(ip(THIRD_IN));
    let reload = |net: &mut Net, host: usize, connections: Vec<Connection>| {
        let now = net.now;
        let node = net.hosts[host].node.as_mut().unwrap();
        let done = node.keying.handle_connections(now, connections);
        net.drain(host);
        done
    };
    // One more, before the old one: that keeps its pair, and not a word is said of it.
    let before = net.wire.len();
    assert_eq!(reload(&mut net, 1, vec![more_back, back.clone()]), (1, 0));
    assert_eq!(reload(&mut net, 0, vec![more.clone(), first.clone()]), (1, 0));
    assert_eq!(reload(&mut net, 0, vec![more.clone(), first.clone()]), (0, 0));
    net.run(seconds(2));
    assert_eq!(net.wire.len(), before, "nothing was said on the wire");
    let states = |net: &Net, host: usize| -> Vec<_> {
        let all = net.hosts[host].node.as_ref().unwrap().keying.connections(net.now);
        all.into_iter().map(|c| (c.name, c.state, c.pairs)).collect()
    };
    let (idle, up) = (ConnectionState::Idle, ConnectionState::Up);
    assert_eq!(states(&net, 0), [("more".into(), idle, 0), ("net".into(), up, 1)]);
    send(&mut net, 0, WEST_IN, EAST_IN, "two");
    send(&mut net, 0, WEST_IN, THIRD_IN, "three");
    net.run(seconds(2));
    assert!(heard(&net, 1, "two") && heard(&net, 1, "three"));
    assert_eq!(states(&net, 0), [("more".into(), up, 1), ("net".into(), up, 1)]);
    // A rekeying finds its connection under its new number.
    net.run(seconds(3 * 3600));
    send(&mut net, 1, EAST_IN, WEST_IN, "much later");
    net.run(seconds(2));
    assert!(heard(&net, 0, "much later"));

    // One less: closed at both ends, the other untouched, and nothing in the clear meanwhile.
    assert_eq!(clear(&net), 0);
    assert_eq!(reload(&mut net, 0, vec![more]), (0, 1));
    net.run(seconds(2));
    assert_eq!(states(&net, 0), [("more".into(), up, 1)]);
    assert_eq!(states(&net, 1), [("more".into(), up, 1), ("net".into(), idle, 0)]);
    send(&mut net, 0, WEST_IN, THIRD_IN, "four");
    net.run(seconds(1));
    assert!(heard(&net, 1, "four"));
    assert_eq!(clear(&net), 0);
    // What was its is the policy groups' again, which say clear here.
    send(&mut net, 0, WEST_IN, EAST_IN, "five");
    net.run(seconds(1));
    assert_eq!(clear(&net), 1);
    // And it comes back.
    let more = reload(&mut net, 0, vec![first.clone()]);
    assert_eq!(more, (1, 1));
    send(&mut net, 0, WEST_IN, EAST_IN, "six");
    net.run(seconds(3));
    assert!(heard(&net, 1, "six"));
    assert_eq!(clear(&net), 1);

    // Changed while it is being called: the new one is called instead.
    let nowhere = connection(&[MALLORY], 1, &near, &far, Start::Now);
    assert_eq!(reload(&mut net, 0, vec![nowhere]), (1, 1));
    send(&mut net, 0, WEST_IN, EAST_IN, "seven");
    net.run(seconds(1));
    assert_eq!(reload(&mut net, 0, vec![first]), (1, 1));
    send(&mut net, 0, WEST_IN, EAST_IN, "eight");
    net.run(seconds(3));
    assert!(heard(&net, 1, "eight"));
    assert_eq!(clear(&net), 1);
    assert_eq!(reload(&mut net, 0, Vec::new()), (0, 1));
    assert_eq!(reload(&mut net, 1, Vec::new()), (0, 2));
    net.run(seconds(5));
    for host in [0, 1] {
        assert!(net.hosts[host].node.as_ref().unwrap().keying.is_idle());
    }
}

/// RFC 7296 §2.9: the peer has less than is asked for. What both have goes through, and nothing else
/// anywhere; with the pair its part of the subnets ends.
#[test]
fn a_peer_that_has_less_gets_what_both_have() {
    for narrow_calls in [false, true] {
        let mut net = Net::new(9, Link::default());
        let (calls, accepts) = (Start::Trap, Start::Accept);
        let west = connection(&[EAST], 1, "10.1.0.0/16", "10.2.0.0/16", calls);
        let other_end = if narrow_calls { calls } else { accepts };
        let east = connection(&[WEST], 0, &net_of(EAST_IN), &net_of(WEST_IN), other_end);
        host(&mut net, &[WEST, "10.1.7.1"], WEST_IN, 0, west);
        host(&mut net, &[EAST, "10.2.7.1"], EAST_IN, 1, east);
        let (first, source, to) =
            if narrow_calls { (1, EAST_IN, WEST_IN) } else { (0, WEST_IN, EAST_IN) };
        for round in ["one", "two"] {
            send(&mut net, first, source, to, round);
            net.run(seconds(3));
            assert!(heard(&net, 1 - first, round), "{narrow_calls}: the first packet is lost");
            send(&mut net, 1 - first, to, source, round);
            net.run(seconds(1));
            assert!(heard(&net, first, round), "{narrow_calls}: no answer");
            // Outside of what both have nothing goes, either way.
            for (from, to) in [("10.1.7.1", EAST_IN), (WEST_IN, "10.2.7.1")] {
                send(&mut net, 0, from, to, "outside");
            }
            net.run(seconds(1));
            assert!(!heard(&net, 1, "outside"));
            assert_eq!(view(&net, 0).state, ConnectionState::Up);
            let now = net.now;
            net.hosts[first].node.as_mut().unwrap().keying.forget(now, ip(to));
            net.drain(first);
            net.run(seconds(2));
        }
        assert_eq!(clear(&net), 0);
    }
}
