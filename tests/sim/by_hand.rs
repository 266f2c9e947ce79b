//! Calls that a person asks for: what a first packet would do, without one.

use dnskeys::{Outcome, Security};
use keying::{ConnectionState, Group, Groups, NextPacket, NoCall, Start};
use sa::{Flow, Prefix};

use crate::connection::{EAST_IN, WEST_IN, connection, host, net_of, view};
use crate::net::{Kind, Link, Net};
use crate::node::{Host, TestKey, seconds};
use crate::{EAST, WEST, ip, single_ports, west_and_east};

fn flow(from: &str, to: &str) -> Flow {
    Flow::new(ip(from), ip(to)).unwrap()
}

/// West calls; what holds then, and after some time.
fn call(net: &mut Net, flow: Flow, for_: u64) -> Result<[NextPacket; 2], NoCall> {
    let now = net.now;
    net.hosts[0].node.as_mut().unwrap().keying.call_by_hand(now, flow)?;
    let before = next(net, flow);
    net.drain(0);
    net.run(seconds(for_));
    Ok([before, next(net, flow)])
}

fn next(net: &Net, flow: Flow) -> NextPacket {
    net.hosts[0].node.as_ref().unwrap().keying.next_packet_of(flow)
}

fn calls(net: &Net) -> u64 {
    net.hosts[0].node.as_ref().unwrap().keying.counters().calls
}

/// Not a packet goes out but IKE, and both ends have a pair; the first packet uses it.
#[test]
fn it_is_keyed_without_a_packet() {
    use NextPacket::{Asked, Encrypted, Held};
    let mut net = west_and_east(1, Link::default());
    let flow = flow(WEST, EAST);
    assert_eq!(next(&net, flow), Asked);
    assert_eq!(call(&mut net, flow, 2), Ok([Held, Encrypted]));
    let sent = net.wire.len();
    assert!(net.wire.iter().all(|seen| matches!(seen.kind, Kind::Ike { .. })), "{:?}", net.wire);
    let now = net.now;
    for (host, other) in [(0, EAST), (1, WEST)] {
        let state = net.hosts[host].node.as_ref().unwrap().state_of(now, ip(other)).unwrap();
        assert_eq!((state.state, state.pairs), (keying::StateName::Keyed, 1));
    }
    // It stays as it is, and nobody is called for it again.
    assert_eq!(call(&mut net, flow, 2), Ok([Encrypted, Encrypted]));
    assert_eq!((calls(&net), net.wire.len()), (1, sent));
    net.send(0, ip(EAST), "hello");
    net.run(seconds(1));
    assert!(crate::connection::heard(&net, 1, "hello"));
    assert_eq!(crate::connection::clear(&net), 0);
}

/// What has failed is asked anew, not after the minutes or the hour for which that would stand.
#[test]
fn what_was_decided_is_asked_anew() {
    use NextPacket::{Clear, Encrypted, Held};
    let mut net = west_and_east(2, Link::default());
    net.dns.set(ip(EAST), Security::Secure, Outcome::NoName);
    let flow = flow(WEST, EAST);
    assert_eq!(call(&mut net, flow, 2), Ok([Held, Clear]));
    assert_eq!(calls(&net), 0);
    net.dns.publish(ip(EAST), ip(EAST), Some(TestKey::nth(1).dns()), Security::Secure);
    assert_eq!(call(&mut net, flow, 2), Ok([Held, Encrypted]));
}

/// Where no packet would have anybody called, nobody is, and it says why.
#[test]
fn nobody_is_called_who_is_not_to_be() {
    let mut net = Net::new(3, Link::default());
    let mut west = Host::plain(WEST);
    let mut groups = Groups::new();
    groups.insert(Prefix::ALL_V4, Group::PrivateOrClear);
    groups.insert("198.51.100.0/24".parse().unwrap(), Group::Clear);
    let (seed, now) = (net.seed(), net.now);
    west.start(0, groups, seed, now, |_| {});
    net.add(west);
    for (from, to, why) in [
        (WEST, EAST, NoCall::Group(Group::Clear)),
        (WEST, WEST, NoCall::Own),
        ("203.0.113.1", "203.0.113.2", NoCall::Source(ip("203.0.113.1"))),
    ] {
        assert_eq!(call(&mut net, flow(from, to), 1), Err(why));
    }
    assert!(net.wire.is_empty());
}

/// Of whom calls us, in a group that calls nobody, what is sent is encrypted.
#[test]
fn what_is_encrypted_already_stays() {
    use NextPacket::Encrypted;
    let mut net = Net::new(6, Link::default());
    for (key, addr, group) in [(0, WEST, Group::ClearOrPrivate), (1, EAST, Group::PrivateOrClear)] {
        let mut groups = Groups::new();
        groups.insert(Prefix::ALL_V4, group);
        let mut host = Host::plain(addr);
        let (seed, now) = (net.seed(), net.now);
        host.start(key, groups, seed, now, |_| {});
        let host = net.add(host);
        net.dns.publish(ip(addr), ip(addr), Some(TestKey::nth(key).dns()), Security::Secure);
        net.drain(host);
    }
    let flow = flow(WEST, EAST);
    assert_eq!(call(&mut net, flow, 1), Err(NoCall::Group(Group::ClearOrPrivate)));
    net.send(1, ip(WEST), "hello");
    net.run(seconds(2));
    assert_eq!(call(&mut net, flow, 1), Ok([Encrypted, Encrypted]));
    assert_eq!(calls(&net), 0);
}

/// Of a peer that grants single ports of one host, that host is reached, others are not, and no call
/// uses up what the peer may be asked for.
#[test]
fn a_connection_of_single_ports_is_asked_for_no_more() {
    use NextPacket::{Encrypted, Held, Refused};
    let mut net = single_ports::net();
    assert_eq!(call(&mut net, flow(WEST_IN, EAST_IN), 2), Ok([Held, Encrypted]));
    let sent = net.wire.len();
    for host in 1..40 {
        let other = flow(WEST_IN, &format!("10.2.0.{}", 100 + host));
        assert_eq!(call(&mut net, other, 1), Ok([Refused, Refused]));
    }
    assert_eq!(net.wire.len(), sent, "the peer was asked for something");
    assert!(single_ports::ping(&mut net, single_ports::GRANTED, 1));
}

/// A connection that waits for its first packet, one that has failed, and one whose peer calls.
#[test]
fn connections_are_called_too() {
    use NextPacket::{Encrypted, Held, Refused};
    let (near, far) = (net_of(WEST_IN), net_of(EAST_IN));
    let mut net = Net::new(4, Link::default());
    host(&mut net, &[WEST], WEST_IN, 0, connection(&[EAST], 1, &near, &far, Start::Trap));
    let flow = flow(WEST_IN, EAST_IN);
    // Nobody is there.
    assert_eq!(call(&mut net, flow, 10), Ok([Held, Refused]));
    assert_eq!(view(&net, 0).state, ConnectionState::Failed);
    host(&mut net, &[EAST], EAST_IN, 1, connection(&[WEST], 0, &far, &near, Start::Accept));
    assert_eq!(call(&mut net, flow, 2), Ok([Held, Encrypted]));
    assert_eq!(view(&net, 1).pairs, 1);

    let mut net = Net::new(5, Link::default());
    host(&mut net, &[WEST], WEST_IN, 0, connection(&[EAST], 1, &near, &far, Start::Accept));
    assert_eq!(call(&mut net, flow, 1), Err(NoCall::Accepts("net".to_owned())));
    assert_eq!(calls(&net), 0);
}
