//! Pairs for single protocols and ports (RFC 4301 §5.1, §5.2).

use super::*;

use sa::OPAQUE;

use crate::packet::TCP;
use crate::whole::tests::fragments;

const ALL: (u16, u16) = (0, u16::MAX);

fn selector(prefix: &str, protocol: u8, ports: (u16, u16)) -> TrafficSelector {
    let (first, last) = TrafficSelector::prefix(prefix.parse().unwrap()).addresses();
    TrafficSelector::new(first, last, protocol, ports).unwrap()
}

/// A configured pair with these selectors.
fn narrow(id: u64, local: &[TrafficSelector], remote: &[TrafficSelector]) -> SaPair {
    let (local, remote) = (local.to_vec(), remote.to_vec());
    SaPair { local, remote, trust: Trust::Configured, ..pair(id, &[], &[]) }
}

fn subnets() -> Subnets {
    Subnets::new("192.0.2.0/24".parse().unwrap(), "198.51.100.0/24".parse().unwrap()).unwrap()
}

fn select(plane: &mut Plane, pairs: &[u64], rest: Policy) {
    let pairs = pairs.iter().map(|id| SaId(*id)).collect();
    plane.command(Command::SelectSubnets { subnets: subnets(), pairs, rest });
}

/// A, which selects, and B, which has the same pairs.
fn between(pairs: &[SaPair], rest: Policy) -> (Plane, Plane) {
    let (mut a, mut b) = (Plane::new(), Plane::new());
    for pair in pairs {
        b.command(Command::AddSa(Box::new(mirrored(pair))));
        a.command(Command::AddSa(Box::new(pair.clone())));
    }
    select(&mut a, &pairs.iter().map(|pair| pair.id.0).collect::<Vec<_>>(), rest);
    (a, b)
}

fn one_port() -> SaPair {
    narrow(1, &[selector(A, UDP, ALL)], &[selector(B, UDP, (53, 53))])
}

fn icmp(kind: u8) -> Vec<u8> {
    packet(A, B, ICMP, &[kind, 0, 0, 0, 0, 1, 0, 1])
}

/// The SPIs of what leaves for the peer; nothing else may leave for anywhere.
fn spis(sent: Vec<(To, Vec<u8>)>) -> Vec<u32> {
    let spi = |octets: Vec<u8>| u32::from_be_bytes(*octets.first_chunk().unwrap());
    sent.into_iter()
        .filter(|(to, _)| *to != To::Device)
        .map(|s| spi(esp(vec![s]).remove(0)))
        .collect()
}

#[test]
fn each_packet_goes_through_the_pair_that_is_for_it_or_nowhere() {
    let pairs = [
        one_port(),
        narrow(2, &[selector(A, TCP, ALL)], &[selector("198.51.100.0/24", TCP, (8000, 8999))]),
        narrow(3, &[selector(A, ICMP, (0x0800, 0x08ff))], &[selector(B, ICMP, OPAQUE)]),
    ];
    let (mut a, _) = between(&pairs, Policy::Deny);
    let tcp = |port: u16| {
        let ports = [4000_u16.to_be_bytes(), port.to_be_bytes()].concat();
        packet(A, B, TCP, &[ports, vec![0; 16]].concat())
    };
    for (what, packet, spi) in [
        ("the port", udp(A, B, (9, 53), b"x"), Some(0x2001)),
        ("another", udp(A, B, (9, 54), b"x"), None),
        ("the wrong way", udp(A, B, (53, 9), b"x"), None),
        ("another host", udp("192.0.2.9", B, (9, 53), b"x"), None),
        ("the first of a range", tcp(8000), Some(0x2002)),
        ("the last", tcp(8999), Some(0x2002)),
        ("beyond", tcp(9000), None),
        ("a port of another protocol", tcp(53), None),
        ("a request", icmp(8), Some(0x2003)),
        ("an answer", icmp(0), None),
        ("what has no ports", packet(A, B, 47, &[0; 8]), None),
    ] {
        let denied = a.fwd.counters().denied;
        assert_eq!(spis(a.send(&packet)), spi.into_iter().collect::<Vec<_>>(), "{what}");
        let refused = u64::from(spi.is_none());
        assert_eq!(a.fwd.counters().denied, denied + refused, "{what}");
    }
    assert_eq!((a.fwd.counters().passed, a.fwd.counters().held), (0, 0));
}

/// Attack A42. RFC 4301 §7: where ports matter, only what shows them goes.
#[test]
fn later_fragments_go_where_no_port_is_asked_for() {
    let whole = udp(A, B, (9, 53), &[7; 3000]);
    let any = narrow(1, &[selector(A, UDP, ALL)], &[selector(B, UDP, ALL)]);
    let opaque = narrow(2, &[selector(A, 0, OPAQUE)], &[selector(B, UDP, OPAQUE)]);
    let parts = fragments(&whole, 1400, 7);
    assert_eq!(parts.len(), 3);
    for (pairs, expected) in [
        (vec![one_port()], [vec![0x2001], vec![], vec![]]),
        (vec![any], [vec![0x2001], vec![0x2001], vec![0x2001]]),
        (vec![one_port(), opaque], [vec![0x2001], vec![0x2002], vec![0x2002]]),
    ] {
        let (mut a, mut b) = between(&pairs, Policy::Hold);
        for (part, expected) in parts.iter().zip(&expected) {
            let sent = a.send(part);
            assert_eq!(spis(sent.clone()), *expected);
            // The other end thinks the same of it.
            assert_eq!(b.receive(&esp(sent)).len(), expected.len());
        }
        let dropped = expected.iter().filter(|spis| spis.is_empty()).count();
        assert_eq!(a.fwd.counters().fragment, u64::try_from(dropped).unwrap());
        assert_eq!(a.fwd.counters().held, 0, "nobody could release it");
    }
}

#[test]
fn of_what_is_held_each_packet_finds_its_pair() {
    let (mut a, mut b) = (Plane::new(), Plane::new());
    a.command(Command::SetSubnets { subnets: subnets(), policy: Policy::Hold });
    let [port, other, third] = [53, 54, 55].map(|port| udp(A, B, (9, port), b"x"));
    let again = udp(A, B, (10, 53), b"x");
    for packet in [&port, &other, &again, &third] {
        assert!(a.send(packet).is_empty());
    }
    let sealed = |plane: &mut Plane| -> Vec<Vec<u8>> {
        let sealed = |output| match output {
            Output::Sealed { octets, .. } => Some(octets),
            Output::Clear { .. } => panic!("in the clear"),
            _ => None,
        };
        plane.outputs().into_iter().filter_map(sealed).collect()
    };
    let second = narrow(2, &[selector(A, UDP, ALL)], &[selector(B, UDP, (54, 54))]);
    for pair in [one_port(), second] {
        b.command(Command::AddSa(Box::new(mirrored(&pair))));
        a.command(Command::AddSa(Box::new(pair)));
    }
    sealed(&mut a);
    select(&mut a, &[1], Policy::Hold);
    assert_eq!(b.receive(&sealed(&mut a)), [port.clone(), again]);
    select(&mut a, &[1, 2], Policy::Hold);
    assert_eq!(b.receive(&sealed(&mut a)), [other]);
    select(&mut a, &[1, 2], Policy::Deny);
    assert_eq!(sealed(&mut a), Vec::<Vec<u8>>::new());
    let counters = a.fwd.counters();
    assert_eq!((counters.held, counters.released, counters.denied), (4, 3, 1));
    // What holds when nothing is held any more holds on.
    assert_eq!(spis(a.send(&port)), [0x2001]);
    assert_eq!(spis(a.send(&third)), []);
}

/// What one port gets says nothing of the others: each is asked for, but a scan is not answered with as
/// many questions.
#[test]
fn each_port_is_asked_for_within_bounds() {
    let (mut a, _) = between(&[one_port()], Policy::Hold);
    a.notices();
    for port in 1000..1100 {
        assert!(a.send(&udp(A, B, (9, port), b"x")).is_empty());
    }
    let asked: Vec<_> = a.notices();
    assert!((2..10).contains(&asked.len()), "{}", asked.len());
    let ports = |notice: &Notice| matches!(notice, Notice::Acquire { ports: (9, 1001), .. });
    assert!(asked.iter().any(ports));
    assert_eq!(spis(a.send(&udp(A, B, (9, 53), b"x"))), [0x2001], "the pair is still there");
    a.now += Duration::from_secs(2);
    assert!(a.send(&udp(A, B, (9, 2000), b"x")).is_empty());
    assert_eq!(a.notices().len(), 1);
}

/// Attack A4. RFC 4301 §5.2, step 4.
#[test]
fn what_comes_must_be_for_the_pairs_own_ports() {
    let (mut a, mut b) = between(&[one_port()], Policy::Deny);
    // The peer has another opinion of what it may send.
    a.command(Command::RemoveSa(SaId(1)));
    let liar =
        SaPair { trust: Trust::Configured, ..pair(1, &["192.0.2.0/24"], &["198.51.100.0/24"]) };
    a.command(Command::AddSa(Box::new(liar)));
    a.command(Command::SetSubnets { subnets: subnets(), policy: Policy::Encrypt(SaId(1)) });
    let later = fragments(&udp(A, B, (9, 53), &[7; 3000]), 1400, 7).remove(1);
    for (n, packet) in (1..).zip([udp(A, B, (9, 54), b"x"), icmp(8), icmp(3), later]) {
        let sealed = esp(a.send(&packet));
        assert_eq!((sealed.len(), b.receive(&sealed).len()), (1, 0), "{n}");
        assert_eq!(b.fwd.counters().inner_selector, n);
    }
    let good = udp(A, B, (9, 53), b"x");
    let sealed = esp(a.send(&good));
    assert_eq!(b.receive(&sealed), [good]);
}

/// A peer that has an address's ports in several pairs may use them all; another peer's claim to the
/// address still counts.
#[test]
fn pairs_of_one_peer_do_not_hinder_each_other() {
    let wide = narrow(1, &[selector("192.0.2.0/24", TCP, ALL)], &[selector(B, TCP, ALL)]);
    let host = narrow(2, &[selector(A, UDP, ALL)], &[selector(B, UDP, ALL)]);
    let (mut a, mut b) = between(&[wide, host], Policy::Deny);
    let tcp = packet(A, B, TCP, &[7; 20]);
    let sealed = esp(a.send(&tcp));
    assert_eq!(b.receive(&sealed).len(), 1);
    // Also when they have moved together.
    let envelope = Envelope { local: outer(B, 4500), remote: outer("192.0.2.99", 4500), udp: true };
    for sa in [SaId(1), SaId(2)] {
        b.command(Command::MoveSa { sa, envelope });
    }
    let sealed = esp(a.send(&tcp));
    assert_eq!(b.receive(&sealed).len(), 1);
    b.command(Command::MoveSa { sa: SaId(2), envelope: mirrored(&pair(2, &[], &[])).envelope });
    let sealed = esp(a.send(&tcp));
    assert_eq!((b.receive(&sealed).len(), b.fwd.counters().inner_owner), (0, 1));
}

#[test]
fn several_links_share_what_each_carries() {
    let port =
        |id| SaPair { ..narrow(id, &[selector(A, UDP, ALL)], &[selector(B, UDP, (53, 53))]) };
    let other = narrow(3, &[selector(A, UDP, ALL)], &[selector(B, UDP, (54, 54))]);
    let (mut a, _) = between(&[port(1), port(2), other], Policy::Deny);
    let mut counts = [0; 4];
    for source in 1000..1200 {
        let packet = udp(A, B, (source, 53), b"x");
        let first = spis(a.send(&packet));
        assert_eq!(spis(a.send(&packet)), first, "a flow stays where it is");
        counts[usize::try_from(first[0] - 0x2000).unwrap()] += 1;
        assert_eq!(spis(a.send(&udp(A, B, (source, 54), b"x"))), [0x2003]);
    }
    assert!(counts[1] > 50 && counts[2] > 50 && counts[3] == 0, "{counts:?}");
    // With one of them gone the others go on.
    a.command(Command::RemoveSa(SaId(1)));
    assert_eq!(spis(a.send(&udp(A, B, (1000, 53), b"x"))), [0x2002]);
}

/// Only whole datagrams are protected there, so that the port is known of all of it.
#[test]
fn in_transport_mode_fragments_are_put_together_first() {
    let pair = SaPair { ..in_transport::between(1, A, B) };
    let (local, remote) = (one_port().local, one_port().remote);
    let pair = SaPair { local, remote, trust: Trust::Configured, ..pair };
    let (mut a, mut b) = between(&[pair], Policy::Deny);
    for (port, arrives) in [(53, 1), (54, 0)] {
        let whole = udp(A, B, (9, port), &[7; 3000]);
        let sealed: Vec<Vec<u8>> = fragments(&whole, 1400, 7)
            .iter()
            .flat_map(|part| a.send(part))
            .filter_map(|(to, octets)| matches!(to, To::Peer(_)).then_some(octets))
            .collect();
        assert_eq!(b.receive_from(outer(A, 4500), 0, &sealed).len(), arrives, "{port}");
    }
}
