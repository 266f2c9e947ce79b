//! Rules for single ports: what they say of a destination holds for these packets and no others.

use std::time::Duration;

use dnskeys::Security;
use keying::{Group, Groups, StateName};

use crate::net::{Kind, Link, Net};
use crate::node::{Host, TestKey, seconds};
use crate::packet;
use crate::{EAST, WEST, ip};

const WEB: u16 = 443;
const MAIL: u16 = 25;

/// West with these groups, east with those; both have published their keys.
fn net(west: &[(Group, &str)], east: &[(Group, &str)]) -> Net {
    let mut net = Net::new(21, Link::default());
    for (n, (addr, files)) in [(WEST, west), (EAST, east)].into_iter().enumerate() {
        let mut groups = Groups::new();
        for (group, text) in files {
            assert_eq!(groups.read(*group, text).unwrap(), [], "{text}");
        }
        let (seed, now) = (net.seed(), net.now);
        let mut host = Host::plain(addr);
        host.start(n, groups, seed, now, |_| {});
        net.add(host);
        net.dns.publish(ip(addr), ip(addr), Some(TestKey::nth(n).dns()), Security::Secure);
        net.drain(n);
    }
    net
}

/// West says a word to a port of east.
fn say(net: &mut Net, port: u16, text: &str) {
    let octets = packet::build_with_ports(ip(WEST), ip(EAST), (40_000, port), text);
    let now = net.now;
    net.hosts[0].send_octets(now, &octets);
    net.drain(0);
}

/// Whether a ping to this port is answered, and how many packets were in the clear for it.
fn ping(net: &mut Net, port: u16, n: usize) -> (bool, usize) {
    let before = net.clear_between(ip(WEST), ip(EAST));
    say(net, port, &format!("ping {n}"));
    net.run(seconds(3));
    let answered = net.hosts[0].inbox.contains(&(ip(EAST), format!("pong {n}")));
    (answered, net.clear_between(ip(WEST), ip(EAST)) - before)
}

const EVERYWHERE: &str = "0.0.0.0/0\n";

#[test]
fn one_port_private_and_the_rest_in_the_clear() {
    let west = [(Group::Clear, EVERYWHERE), (Group::Private, "0.0.0.0/0 17 0 443\n")];
    let mut net = net(&west, &[(Group::PrivateOrClear, EVERYWHERE)]);
    assert_eq!(ping(&mut net, MAIL, 1), (true, 2), "east calls for its answer, and is refused");
    let mut net = self::net(&west, &[(Group::ClearOrPrivate, EVERYWHERE)]);
    assert_eq!(ping(&mut net, MAIL, 1), (true, 2));
    assert_eq!(ping(&mut net, WEB, 2), (true, 0));
    assert_eq!(ping(&mut net, MAIL, 3), (true, 2), "still");
    let west = net.hosts[0].node.as_ref().unwrap();
    let keyed: Vec<_> = west
        .keying
        .destinations(net.now)
        .into_iter()
        .filter(|d| d.state == StateName::Keyed)
        .map(|d| d.ports.to_string())
        .collect();
    assert_eq!(keyed, ["17 0 443"]);
}

#[test]
fn one_port_in_the_clear_at_both_ends_and_the_rest_private() {
    let west = [(Group::Private, EVERYWHERE), (Group::Clear, "0.0.0.0/0 17 0 25\n")];
    let east = [(Group::Private, EVERYWHERE), (Group::Clear, "0.0.0.0/0 17 25 0\n")];
    let mut net = net(&west, &east);
    assert_eq!(ping(&mut net, WEB, 1), (true, 0));
    say(&mut net, MAIL, "word");
    net.run(seconds(1));
    assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 1, "past the pair that is there");
}

#[test]
fn one_port_blocked() {
    let west = [(Group::PrivateOrClear, EVERYWHERE), (Group::Block, "0.0.0.0/0 17 0 25\n")];
    let mut net = net(&west, &[(Group::PrivateOrClear, EVERYWHERE)]);
    assert_eq!(ping(&mut net, MAIL, 1), (false, 0));
    assert_eq!(ping(&mut net, WEB, 2), (true, 0));
    assert_eq!(ping(&mut net, MAIL, 3), (false, 0));
}

#[test]
fn a_peer_that_asks_for_one_port_gets_that_and_the_rest_is_asked_for_apart() {
    // East is private for the web only, towards a packetdefault west; east calls.
    let east = [(Group::ClearOrPrivate, EVERYWHERE), (Group::Private, "0.0.0.0/0 17 0 443\n")];
    let mut net = net(&[(Group::PrivateOrClear, EVERYWHERE)], &east);
    let octets = packet::build_with_ports(ip(EAST), ip(WEST), (50_000, WEB), "ping east");
    let now = net.now;
    net.hosts[1].send_octets(now, &octets);
    net.drain(1);
    net.run(seconds(2));
    assert!(net.hosts[1].inbox.contains(&(ip(WEST), "pong east".to_owned())));
    assert_eq!(ping(&mut net, MAIL, 1), (true, 0));
    let west = net.hosts[0].node.as_ref().unwrap();
    let flows: Vec<_> =
        west.keying.destinations(net.now).iter().map(|d| d.ports.to_string()).collect();
    assert_eq!(flows, ["0 0 0", "17 443 0"]);
    assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 0);
}

/// What a caller shows is held against the rules for what it is granted, not against the rest of
/// its address.
#[test]
fn a_caller_gets_the_ports_that_its_evidence_is_good_for() {
    let web = "0.0.0.0/0 17 443 0\n";
    let caller = [(Group::Clear, EVERYWHERE), (Group::PrivateOrClear, "0.0.0.0/0 17 0 443\n")];
    // Everything else is refused, or kept for those whose records are signed.
    for rest in [Group::Block, Group::Private] {
        let mut net = net(&caller, &[(rest, EVERYWHERE), (Group::PrivateOrClear, web)]);
        unsign(&mut net);
        assert_eq!(ping(&mut net, WEB, 1), (true, 0), "{rest:?}");
        assert_eq!(east(&net).counters().visitors_refused, 0, "{rest:?}");
    }
    // The web alone is for those whose records are signed: who has none gets no IKE SA for it.
    let mut net = net(&caller, &[(Group::Clear, EVERYWHERE), (Group::Private, web)]);
    unsign(&mut net);
    assert!(!ping(&mut net, WEB, 1).0);
    assert_eq!(east(&net).counters().visitors_accepted, 0);
    assert!(east(&net).counters().visitors_refused > 0);
}

fn east(net: &Net) -> &keying::Keying {
    &net.hosts[1].node.as_ref().unwrap().keying
}

/// Nobody signs the records any more.
fn unsign(net: &mut Net) {
    for (n, addr) in [WEST, EAST].into_iter().enumerate() {
        net.dns.publish(ip(addr), ip(addr), Some(TestKey::nth(n).dns()), Security::Insecure);
    }
}

/// Attack A42.
/// RFC 4301 §7: nobody can tell which rule a later fragment falls under.
#[test]
fn later_fragments_do_not_slip_past_a_rule() {
    let west = [(Group::Clear, EVERYWHERE), (Group::Private, "0.0.0.0/0 17 0 443\n")];
    let mut net = net(&west, &[(Group::ClearOrPrivate, EVERYWHERE)]);
    let mut octets = packet::build_with_ports(ip(WEST), ip(EAST), (40_000, WEB), "secret");
    // Offset 8, no more fragments; the header's checksum is nobody's business here.
    octets[6] = 0;
    octets[7] = 1;
    let now = net.now;
    net.hosts[0].send_octets(now, &octets);
    net.drain(0);
    net.run(Duration::from_secs(2));
    assert_eq!(net.wire.iter().filter(|s| s.kind == Kind::Clear).count(), 0);
}
