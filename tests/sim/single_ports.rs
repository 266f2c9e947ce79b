//! A peer of a configured connection that grants single protocols and ports: these are carried, in
//! both directions, and nothing else is, whoever sends it (RFC 7296 §2.9, RFC 4301 §5).

use sa::{Prefix, Subnets, TrafficSelector};

use keying::{Connection, Start};

use crate::connection::{EAST_2, EAST_IN, WEST_IN, clear, connection, heard, host, net_of, view};
use crate::net::{Fate, Kind, Link, Net};
use crate::node::{Host, seconds};
use crate::site::{Site, selector};
use crate::{EAST, WEST, ip, packet};

const UDP: u8 = 17;
const ALL: (u16, u16) = (0, u16::MAX);
pub(crate) const GRANTED: u16 = 7777;
const OTHER: u16 = 7778;

fn subnets(near: &str, far: &str) -> Subnets {
    Subnets::new(near.parse().unwrap(), far.parse().unwrap()).unwrap()
}

fn plain(prefix: &str) -> TrafficSelector {
    TrafficSelector::prefix(prefix.parse::<Prefix>().unwrap())
}

fn towards(gateway: &str, start: Start) -> Connection {
    connection(&[gateway], 1, &net_of(WEST_IN), &net_of(EAST_IN), start)
}

fn add_site(net: &mut Net, at: &str, own: Vec<TrafficSelector>, caller: Vec<TrafficSelector>) {
    let mut east = Host::plain(at);
    east.behind = vec![ip(EAST_IN), ip("10.2.0.200")];
    let (seed, now) = (net.seed(), net.now);
    let between = subnets(&net_of(EAST_IN), &net_of(WEST_IN));
    east.site = Some(Box::new(Site::new((1, 0), between, (own, caller), seed, now)));
    net.add(east);
}

/// West, which wants all between the subnets, and a peer that grants these, on its side and on west's.
fn net_with(own: Vec<TrafficSelector>, caller: Vec<TrafficSelector>) -> Net {
    let mut net = Net::new(3, Link::default());
    host(&mut net, &[WEST], WEST_IN, 0, towards(EAST, Start::Trap));
    add_site(&mut net, EAST, own, caller);
    net
}

/// One UDP port of the peer's.
pub(crate) fn net() -> Net {
    let port = selector(ip(EAST_IN), UDP, (GRANTED, GRANTED));
    net_with(vec![port], vec![selector(ip(WEST_IN), UDP, ALL)])
}

fn site(net: &mut Net) -> &mut Site {
    net.hosts[1].site.as_mut().unwrap()
}

fn put(net: &mut Net, from: usize, octets: &[u8]) {
    let now = net.now;
    net.hosts[from].send_octets(now, octets);
    net.drain(from);
    net.run(seconds(2));
}

/// West says a word to a port at an address behind the peer.
fn say(net: &mut Net, to: &str, port: u16, text: &str) {
    put(net, 0, &packet::build_with_ports(ip(WEST_IN), ip(to), (40_000, port), text));
}

/// Whether a ping to that port is answered.
pub(crate) fn ping(net: &mut Net, port: u16, n: usize) -> bool {
    say(net, EAST_IN, port, &format!("ping {n}"));
    heard(net, 0, &format!("pong {n}"))
}

fn esp(net: &Net, from: &str) -> usize {
    net.wire.iter().filter(|s| s.kind == Kind::Esp && s.from == ip(from)).count()
}

fn counters(net: &Net) -> forwarding::Counters {
    net.hosts[0].node.as_ref().unwrap().plane.counters()
}

#[test]
fn what_is_granted_passes_both_ways_and_nothing_else_leaves() {
    let mut net = net();
    assert!(ping(&mut net, GRANTED, 1), "the first packet");
    assert!(ping(&mut net, GRANTED, 2));
    let before = (esp(&net, WEST), counters(&net).sealed);
    assert!(!ping(&mut net, OTHER, 3));
    let datagram = packet::build_with_ports(ip(WEST_IN), ip(EAST_IN), (40_000, GRANTED), "word");
    let mut icmp = datagram.clone();
    icmp[9] = 1;
    put(&mut net, 0, &icmp);
    // A later fragment shows no port, whatever stands where ports would be.
    let mut later = datagram.clone();
    (later[6], later[7]) = (0, 9);
    let fragments = counters(&net).fragment;
    put(&mut net, 0, &later);
    assert_eq!(counters(&net).fragment, fragments + 1, "{:?}", counters(&net));
    assert_eq!((esp(&net, WEST), counters(&net).sealed), before, "something has left");
    assert_eq!((clear(&net), heard(&net, 1, "word")), (0, false));
    put(&mut net, 0, &datagram);
    assert!(heard(&net, 1, "word"), "what is granted is carried still");
    // The peer begins, from its port.
    put(&mut net, 1, &packet::build_with_ports(ip(EAST_IN), ip(WEST_IN), (GRANTED, 9), "hello"));
    assert!(heard(&net, 0, "hello"));
}

/// RFC 4301 §5.2, step 4.
#[test]
fn what_was_not_granted_is_dropped_when_it_comes_nevertheless() {
    let mut net = net();
    site(&mut net).lies = true;
    assert!(ping(&mut net, GRANTED, 1));
    let before = counters(&net).inner_selector;
    for (from, source) in [(EAST_IN, OTHER), (EAST_IN, 0), ("10.2.0.200", GRANTED)] {
        let octets = packet::build_with_ports(ip(from), ip(WEST_IN), (source, 9), "lie");
        put(&mut net, 1, &octets);
    }
    let mut fragment =
        packet::build_with_ports(ip(EAST_IN), ip(WEST_IN), (GRANTED, 9), "lie").clone();
    (fragment[6], fragment[7]) = (0, 9);
    put(&mut net, 1, &fragment);
    assert_eq!(counters(&net).inner_selector, before + 4);
    assert!(!heard(&net, 0, "lie"));
    put(&mut net, 1, &packet::build_with_ports(ip(EAST_IN), ip(WEST_IN), (GRANTED, 9), "truth"));
    assert!(heard(&net, 0, "truth"));
}

/// RFC 7296 §2.9: the peer is asked for what it has not granted, once, and goes on carrying the rest
/// while it is asked in vain.
#[test]
fn what_is_refused_is_not_asked_for_again_and_again() {
    let mut net = net();
    assert!(ping(&mut net, GRANTED, 1));
    assert_eq!(site(&mut net).made, 1);
    for n in 0..20 {
        assert!(!ping(&mut net, OTHER, 100 + n));
        assert!(ping(&mut net, GRANTED, 200 + n), "{n}");
    }
    assert_eq!(site(&mut net).made, 2, "asked once");
    for n in 0..100 {
        let port = 8000 + u16::try_from(n).unwrap();
        say(&mut net, EAST_IN, port, "ping");
        assert!(ping(&mut net, GRANTED, 300 + n), "{n}");
    }
    let made = site(&mut net).made;
    assert!((10..=20).contains(&made), "{made} children for a hundred ports");
    assert_eq!((site(&mut net).children.len(), view(&net, 0).pairs), (1, 1));
    assert_eq!(clear(&net), 0);
    // Whether it has more by now is asked when the pair is replaced.
    net.run(seconds(3 * 3600));
    say(&mut net, EAST_IN, OTHER, "ping");
    assert!(site(&mut net).made > made + 1);
    assert!(ping(&mut net, GRANTED, 3));
}

#[test]
fn what_comes_apart_is_carried_together() {
    let mut net = net();
    assert!(ping(&mut net, GRANTED, 1) && !ping(&mut net, OTHER, 2));
    let now = net.now;
    let more = vec![selector(ip(EAST_IN), UDP, (OTHER, OTHER + 1))];
    site(&mut net).offer(now, more);
    net.hosts[1].collect();
    net.drain(1);
    net.run(seconds(2));
    for n in 0..3 {
        let port = GRANTED + u16::try_from(n).unwrap();
        assert!(ping(&mut net, port, 10 + n), "{port}");
    }
    assert!(!ping(&mut net, GRANTED + 3, 20));
    assert_eq!(view(&net, 0).pairs, 2);
    // Each is replaced for itself.
    net.run(seconds(3 * 3600));
    assert!(ping(&mut net, GRANTED, 30) && ping(&mut net, OTHER, 31));
    assert_eq!((view(&net, 0).pairs, site(&mut net).children.len()), (2, 2));
    // One goes, the other stays; the next packet asks for it again, and gets it.
    let now = net.now;
    let last = site(&mut net).children.last().unwrap().2.clone();
    site(&mut net).withdraw(now);
    net.hosts[1].collect();
    net.drain(1);
    net.run(seconds(2));
    let (gone, left) = match last.iter().any(|s| s.ports().0 == GRANTED) {
        true => (GRANTED, OTHER),
        false => (OTHER, GRANTED),
    };
    assert_eq!(view(&net, 0).pairs, 1);
    assert!(ping(&mut net, left, 40));
    assert!(ping(&mut net, gone, 41), "it was not asked for again");
    assert!(ping(&mut net, left, 42));
    assert_eq!(clear(&net), 0);
}

#[test]
fn a_peer_that_makes_pairs_without_end_gets_sixteen() {
    let mut net = net();
    assert!(ping(&mut net, GRANTED, 1));
    for port in 8000..8040 {
        let now = net.now;
        site(&mut net).offer(now, vec![selector(ip(EAST_IN), UDP, (port, port))]);
        net.hosts[1].collect();
        net.drain(1);
        net.run(seconds(1));
    }
    net.run(seconds(10));
    assert_eq!((view(&net, 0).pairs, site(&mut net).children.len()), (16, 16));
    for port in [GRANTED, 8000, 8014] {
        assert!(ping(&mut net, port, port.into()), "{port}");
    }
    assert!(!ping(&mut net, 8020, 2));
    assert_eq!(clear(&net), 0);
}

#[test]
fn a_whole_part_and_a_port_of_another() {
    let own = vec![plain("10.2.0.0/25"), selector(ip("10.2.0.200"), UDP, (GRANTED, GRANTED))];
    let mut net = net_with(own, vec![plain(&net_of(WEST_IN))]);
    assert!(ping(&mut net, OTHER, 1), "a port of the whole part");
    assert!(ping(&mut net, GRANTED, 2));
    for (port, text, carried) in [(GRANTED, "yes", true), (OTHER, "no", false)] {
        say(&mut net, "10.2.0.200", port, text);
        assert_eq!(heard(&net, 1, text), carried, "{text}");
    }
    // And all of it, when the peer has that to give.
    let now = net.now;
    site(&mut net).offer(now, vec![plain(&net_of(EAST_IN))]);
    net.hosts[1].collect();
    net.drain(1);
    net.run(seconds(2));
    say(&mut net, "10.2.0.200", OTHER, "all");
    assert!(heard(&net, 1, "all"));
    assert!(ping(&mut net, OTHER, 3));
    assert_eq!(clear(&net), 0);
}

/// Of two links the one carries everything, and the other one port: that port alone is left when the
/// first dies.
#[test]
fn a_link_with_one_port_beside_a_whole_one() {
    let mut net = Net::new(3, Link::default());
    let (all, port) = (plain(&net_of(EAST_IN)), selector(ip(EAST_IN), UDP, (GRANTED, GRANTED)));
    let near = plain(&net_of(WEST_IN));
    let west = host(&mut net, &[WEST], WEST_IN, 0, towards(EAST, Start::Now));
    add_site(&mut net, EAST, vec![port], vec![near]);
    add_site(&mut net, EAST_2, vec![all], vec![near]);
    let second = Connection { name: "second".to_owned(), ..towards(EAST_2, Start::Now) };
    let now = net.now;
    let connections = vec![towards(EAST, Start::Now), second];
    net.hosts[west].node.as_mut().unwrap().keying.handle_connections(now, connections);
    net.drain(west);
    net.run(seconds(3));
    for (n, port) in [GRANTED, OTHER].into_iter().enumerate() {
        assert!(ping(&mut net, port, n), "{port} with both");
    }
    net.filter(
        |_, seen| {
            if [seen.from, seen.to].contains(&ip(EAST_2)) { Fate::Lost } else { Fate::Link }
        },
    );
    net.run(seconds(3));
    assert!(ping(&mut net, GRANTED, 3), "through the link that is left");
    assert!(!ping(&mut net, OTHER, 4));
    assert_eq!(clear(&net), 0);
}
