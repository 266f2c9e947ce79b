use super::*;
use crate::offload::{Cut, Offload};
use crate::packet::ICMP;
use crate::packet::tests::{ip, packet, pseudo, udp};
use crate::segment::tests::{cut, is_valid, payload, tcp};
use proptest::prelude::*;

const OWN: [&str; 2] = ["192.168.1.10", "fd00::10"];
const ASSIGNED: [&str; 2] = ["10.99.0.2", "2001:db8:99::2"];
const PEER: [&str; 2] = ["192.0.2.11", "2001:db8:1::11"];

fn translation(family: usize) -> Translation {
    Translation::new(ip(OWN[family]), ip(ASSIGNED[family])).unwrap()
}

fn out(family: usize, packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let inner = Inner::parse(&packet).unwrap();
    outgoing(&translation(family), &mut packet, &inner, true).unwrap();
    packet
}

fn back(family: usize, packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let inner = Inner::parse(&packet).unwrap();
    let after = incoming(&translation(family), &mut packet, &inner).unwrap();
    assert_eq!(after, Inner::parse(&packet).unwrap());
    packet
}

/// An ICMP message with a right checksum.
fn icmp(src: &str, dst: &str, kind: u8, rest: &[u8]) -> Vec<u8> {
    let v6 = src.contains(':');
    let mut upper = vec![kind, 0, 0, 0];
    upper.extend(rest);
    let start = if v6 { pseudo(ip(src), ip(dst), ICMP_V6, upper.len()) } else { Sum::default() };
    let sum = start.octets(&upper).checksum();
    upper[2..4].copy_from_slice(&sum);
    packet(src, dst, if v6 { ICMP_V6 } else { ICMP }, &upper)
}

fn icmp_is_valid(packet: &[u8]) -> bool {
    let inner = Inner::parse(packet).unwrap();
    let upper = &packet[inner.upper..inner.len];
    let start = match inner.is_v4() {
        true => Sum::default(),
        false => pseudo(inner.flow.src(), inner.flow.dst(), ICMP_V6, upper.len()),
    };
    let header = !inner.is_v4() || Sum::default().octets(&packet[..inner.upper]).is_valid();
    header && start.octets(upper).is_valid()
}

#[test]
fn both_ways_and_every_checksum_right() {
    for (family, peer) in PEER.into_iter().enumerate() {
        for ours in [tcp(OWN[family], peer, 7, 0x10, b"odd"), udp(OWN[family], peer, (5, 53), b"q")]
        {
            let sent = out(family, &ours);
            assert!(is_valid(&sent));
            assert_eq!(Inner::parse(&sent).unwrap().flow.src(), ip(ASSIGNED[family]));
        }
        let answer = udp(peer, ASSIGNED[family], (53, 5), b"answer");
        let received = back(family, &answer);
        assert!(is_valid(&received));
        assert_eq!(Inner::parse(&received).unwrap().flow.dst(), ip(OWN[family]));
        let echo = icmp(OWN[family], peer, 8, b"1234");
        assert!(icmp_is_valid(&out(family, &echo)));
    }
}

#[test]
fn a_wrong_checksum_stays_wrong() {
    let mut ours = tcp(OWN[0], PEER[0], 7, 0x10, b"data");
    ours[37] ^= 0x10;
    assert!(!is_valid(&out(0, &ours)));
}

/// RFC 768: no checksum is no checksum, and a sum of zero is sent in its other form.
#[test]
fn no_checksum_in_udp_stays_none() {
    let mut ours = udp(OWN[0], PEER[0], (5, 6), b"unchecked");
    ours[26..28].copy_from_slice(&[0, 0]);
    assert_eq!(out(0, &ours)[26..28], [0, 0]);
    let zero = (0..=u16::MAX).find_map(|port| {
        let sent = udp(ASSIGNED[0], PEER[0], (port, 6), b"xy");
        (sent[26..28] == [0, 0]).then(|| udp(OWN[0], PEER[0], (port, 6), b"xy"))
    });
    let sent = out(0, &zero.unwrap());
    assert!(is_valid(&sent));
    assert_eq!(sent[26..28], [0xff, 0xff]);
}

/// The first fragment's checksum speaks for the whole; a later one has none to be spoilt.
#[test]
fn fragments() {
    let whole = udp(OWN[0], PEER[0], (5, 6), &payload(64));
    let expected = udp(ASSIGNED[0], PEER[0], (5, 6), &payload(64));
    let mut first = packet(OWN[0], PEER[0], UDP, &whole[20..44]);
    first[6] = 0x20;
    let mut later = packet(OWN[0], PEER[0], UDP, &whole[44..]);
    later[7] = 3;
    let joined = [&out(0, &first)[20..], &out(0, &later)[20..]].concat();
    assert_eq!(joined, expected[20..]);
    // One that ends before its checksum cannot be mended, and a whole one would be wrong with it.
    let mut tiny = packet(OWN[0], PEER[0], TCP, &payload(8));
    tiny[6] = 0x20;
    let inner = Inner::parse(&tiny).unwrap();
    assert!(outgoing(&translation(0), &mut tiny, &inner, true).is_err());
}

/// RFC 5508 §4.2: whoever gets an error must find its own packet in it.
#[test]
fn what_an_error_quotes_is_translated() {
    for (family, peer) in PEER.into_iter().enumerate() {
        let sent = udp(ASSIGNED[family], peer, (5, 53), b"question");
        let kind = if family == 0 { 3 } else { 1 };
        for len in [sent.len(), sent.len() - 8, sent.len() - 14] {
            let rest = [&[0, 0, 5, 0][..], &sent[..len]].concat();
            let received = back(family, &icmp(peer, ASSIGNED[family], kind, &rest));
            assert!(icmp_is_valid(&received));
            let upper = Inner::parse(&received).unwrap().upper;
            let ours = udp(OWN[family], peer, (5, 53), b"question");
            let end = if len == sent.len() - 14 { len.min(ours.len() - 14) } else { len };
            assert_eq!(received[upper + 8..upper + 8 + end], ours[..end]);
        }
        // The other way round: we complain about what came to us.
        let came = udp(peer, OWN[family], (53, 5), b"answer");
        let rest = [&[0, 0, 0, 0][..], &came].concat();
        let complaint = out(family, &icmp(OWN[family], peer, kind, &rest));
        assert!(icmp_is_valid(&complaint));
        let upper = Inner::parse(&complaint).unwrap().upper;
        assert_eq!(complaint[upper + 8..], udp(peer, ASSIGNED[family], (53, 5), b"answer"));
        // About somebody else's packet.
        let other = udp(peer, PEER[family], (53, 5), b"x");
        let complaint =
            out(family, &icmp(OWN[family], peer, kind, &[&[0; 4][..], &other].concat()));
        assert!(icmp_is_valid(&complaint));
        assert_eq!(complaint[upper + 8..], other);
    }
}

#[test]
fn who_is_not_us_is_not_translated() {
    let mut other = udp("192.168.1.11", PEER[0], (5, 6), b"x");
    let inner = Inner::parse(&other).unwrap();
    assert!(outgoing(&translation(0), &mut other, &inner, true).is_err());
    let mut other = udp(PEER[0], OWN[0], (5, 6), b"x");
    let inner = Inner::parse(&other).unwrap();
    assert!(incoming(&translation(0), &mut other, &inner).is_err());
}

/// What the device hands over: a super-packet with a partial checksum comes out as if the assigned
/// address had sent it.
#[test]
fn super_packets() {
    use crate::segment::Plan;
    for (family, peer) in PEER.into_iter().enumerate() {
        let data = payload(2500);
        let kind = if family == 0 { Cut::Tcp4 } else { Cut::Tcp6 };
        let offload = Offload { cut: Some((kind, 1000)), ..Offload::NONE };
        let expected = cut(&offload, &tcp(ASSIGNED[family], peer, 9, 0x18, &data)).unwrap();
        let mut ours = tcp(OWN[family], peer, 9, 0x18, &data);
        let inner = Inner::parse(&ours).unwrap();
        let mut plan = Plan::new(&offload, &mut ours, &inner).unwrap();
        plan.translate(&translation(family), &mut ours, &inner).unwrap();
        for (index, expected) in expected.iter().enumerate() {
            let mut part = vec![0; plan.part_len(index)];
            plan.write(index, &ours, &mut part).unwrap();
            assert_eq!(part, *expected, "{index}");
        }
    }
}

#[test]
fn a_lone_packet_with_a_partial_checksum() {
    use crate::segment::Plan;
    for (family, peer) in PEER.into_iter().enumerate() {
        let whole = tcp(OWN[family], peer, 1, 0x10, b"odd");
        let inner = Inner::parse(&whole).unwrap();
        let mut partial = whole;
        let at = inner.upper + 16;
        let sum = pseudo(ip(OWN[family]), ip(peer), TCP, inner.len - inner.upper).folded();
        partial[at..at + 2].copy_from_slice(&sum);
        let start = u16::try_from(inner.upper).unwrap();
        let offload = Offload { checksum: Some((start, 16)), ..Offload::NONE };
        let mut plan = Plan::new(&offload, &mut partial, &inner).unwrap();
        plan.translate(&translation(family), &mut partial, &inner).unwrap();
        let mut sent = vec![0; plan.part_len(0)];
        plan.write(0, &partial, &mut sent).unwrap();
        assert_eq!(sent, tcp(ASSIGNED[family], peer, 1, 0x10, b"odd"));
    }
}

proptest! {
    /// One way, and the same addresses the other way round: the same octets again, but for the two
    /// forms that zero has.
    #[test]
    fn there_and_back_is_where_it_was(data in proptest::collection::vec(any::<u8>(), 0..120)) {
        for (family, peer) in PEER.into_iter().enumerate() {
            let mut ours = tcp(OWN[family], peer, 7, 0x10, &data);
            let before = ours.clone();
            let inner = Inner::parse(&ours).unwrap();
            outgoing(&translation(family), &mut ours, &inner, true).unwrap();
            prop_assert_eq!(&ours, &tcp(ASSIGNED[family], peer, 7, 0x10, &data));
            let reversed = Translation::new(ip(ASSIGNED[family]), ip(OWN[family])).unwrap();
            let inner = Inner::parse(&ours).unwrap();
            outgoing(&reversed, &mut ours, &inner, true).unwrap();
            prop_assert_eq!(ours, before);
        }
    }

    #[test]
    fn any_octets_are_survived(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut octets = octets;
        if let Ok(inner) = Inner::parse(&octets) {
            let pairs = [(inner.flow.src(), ip(ASSIGNED[0])), (inner.flow.src(), ip(ASSIGNED[1]))];
            for (own, assigned) in pairs {
                let Some(translation) = Translation::new(own, assigned) else { continue };
                let _ = outgoing(&translation, &mut octets, &inner, true);
            }
        }
    }
}
