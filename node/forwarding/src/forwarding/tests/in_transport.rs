//! Pairs in transport mode (RFC 4303 §3.1.1).

use super::*;

use crate::whole::tests::fragments;

const A6: &str = "2001:db8::1";
const B6: &str = "2001:db8:1::7";

/// A pair in transport mode between two addresses.
pub(super) fn between(id: u64, a: &str, b: &str) -> SaPair {
    SaPair {
        mode: Mode::Transport,
        envelope: Envelope { local: outer(a, 4500), remote: outer(b, 4500), udp: true },
        ..pair(id, &[a], &[b])
    }
}

/// Two planes with a pair for each family.
pub(super) fn ends() -> (Plane, Plane) {
    ends_with(EspCipher::Aes128Gcm16)
}

fn ends_with(cipher: EspCipher) -> (Plane, Plane) {
    let (mut a, mut b) = (Plane::new(), Plane::new());
    for (id, src, dst) in [(1, A, B), (2, A6, B6)] {
        let octets = vec![7; cipher.keymat_len()];
        let key = || EspKey::new(cipher, &octets).unwrap();
        let pair = SaPair { cipher, key_in: key(), key_out: key(), ..between(id, src, dst) };
        b.command(Command::AddSa(Box::new(mirrored(&pair))));
        a.command(Command::AddSa(Box::new(pair)));
        a.encrypt(src, dst, id);
        b.encrypt(dst, src, id);
    }
    (a, b)
}

/// Without what the receiver makes up: identification, hop limit, and the checksum over them.
fn said(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 4 {
        packet[4..6].fill(0);
        packet[8] = 0;
        packet[10..12].fill(0);
    } else {
        packet[7] = 0;
    }
    packet
}

#[test]
fn the_header_stays_behind_and_is_made_anew() {
    for cipher in [EspCipher::Aes128Gcm16, EspCipher::Aes256Cbc(sa::Integrity::HmacSha2_256_128)] {
        let (mut a, mut b) = ends_with(cipher);
        for (src, dst, id) in [(A, B, 1), (A6, B6, 2)] {
            let request = udp(src, dst, (1000, 53), b"request");
            let sealed = esp(a.send(&request));
            let header = if id == 1 { 20 } else { 40 };
            let sealer = &a.fwd.sad.get_mut(SaId(id)).unwrap().sealer;
            assert_eq!(sealed[0].len(), sealer.sealed_len(request.len() - header));
            let received = b.receive_from(outer(src, 4500), 0, &sealed);
            assert!(crate::segment::tests::is_valid(&received[0]));
            assert_eq!(said(received[0].clone()), said(request));
            let answer = tcp(dst, src, 5, 0x12, b"");
            let sealed = esp(b.send(&answer));
            let received = a.receive_from(outer(dst, 4500), 0, &sealed);
            assert_eq!(said(received[0].clone()), said(answer));
        }
        let (sealed, opened) = (a.fwd.counters().sealed_bytes, b.fwd.counters().opened_bytes);
        assert_eq!(sealed, opened);
    }
}

#[test]
fn a_super_packet_makes_one_run_and_one_write() {
    for (src, dst, kind) in [(A, B, Cut::Tcp4), (A6, B6, Cut::Tcp6)] {
        let (mut a, mut b) = ends();
        let whole = tcp(src, dst, 77, 0x18, &payload(40_000));
        let offload = Offload { cut: Some((kind, 1380)), ..Offload::NONE };
        let sealed = esp(a.send_super(&offload, &whole));
        assert_eq!((a.batch.sends().len(), sealed.len()), (1, 29));
        let received = b.receive_from(outer(src, 4500), 0, &sealed);
        assert_eq!(b.delivery.writes().count(), 1);
        let expected = crate::segment::tests::cut(&offload, &whole).unwrap();
        assert!(received.iter().all(|p| crate::segment::tests::is_valid(p)));
        assert_eq!(
            received.into_iter().map(said).collect::<Vec<_>>(),
            expected.into_iter().map(said).collect::<Vec<_>>()
        );
    }
}

/// What the device left undone is done before the header is taken off.
#[test]
fn a_partial_checksum_is_completed() {
    for (src, dst) in [(A, B), (A6, B6)] {
        let (mut a, mut b) = ends();
        let whole = tcp(src, dst, 1, 0x10, b"odd");
        let inner = Inner::parse(&whole).unwrap();
        let mut partial = whole.clone();
        let at = inner.upper + 16;
        let pseudo = crate::packet::tests::pseudo(ip(src), ip(dst), 6, inner.len - inner.upper);
        partial[at..at + 2].copy_from_slice(&pseudo.folded());
        let start = u16::try_from(inner.upper).unwrap();
        let offload = Offload { checksum: Some((start, 16)), ..Offload::NONE };
        let sealed = esp(a.send_super(&offload, &partial));
        let received = b.receive_from(outer(src, 4500), 0, &sealed);
        assert_eq!(said(received[0].clone()), said(whole));
    }
}

/// Whoever has the keys is heard from its own address only, and does not move by them.
#[test]
fn another_source_is_refused_and_followed_nowhere() {
    let (mut a, mut b) = ends();
    let sealed = esp(a.send(&udp(A, B, (1, 2), b"x")));
    assert!(b.receive_from(outer("192.0.2.99", 4500), 0, &sealed).is_empty());
    assert_eq!(b.fwd.counters().inner_selector, 1);
    assert_eq!(b.notices(), [Notice::FirstPacket(SaId(1))]);
    // Of the other family not even a header can be made.
    let sealed = esp(a.send(&udp(A, B, (1, 2), b"x")));
    assert!(b.receive_from(outer(A6, 4500), 0, &sealed).is_empty());
    assert_eq!(b.fwd.counters().inner_selector, 2);
    let sealed = esp(a.send(&udp(A, B, (1, 2), b"x")));
    assert_eq!(b.receive(&sealed).len(), 1);
}

#[test]
fn selectors_of_ports_and_protocols_are_kept() {
    let port = |addr: &str, port| TrafficSelector::new(ip(addr), ip(addr), UDP, port).unwrap();
    let pair = SaPair {
        local: vec![port(A, (0, u16::MAX))],
        remote: vec![port(B, (53, 53))],
        ..between(1, A, B)
    };
    let (mut a, mut b) = both_with(pair);
    for (packet, passes) in [
        (udp(A, B, (1000, 53), b"x"), true),
        (udp(A, B, (1000, 54), b"x"), false),
        (tcp(A, B, 1, 0x10, b"x"), false),
        // What is in it is for the host's own stack, and for this pair no UDP.
        (packet(A, B, IP_IN_IP, &udp(A, B, (1000, 53), b"x")), false),
    ] {
        let sealed = esp(a.send(&packet));
        assert_eq!(!b.receive(&sealed).is_empty(), passes, "{packet:?}");
    }
    assert_eq!(b.fwd.counters().inner_selector, 3);
}

/// RFC 4303 §3.3.4: the datagram is put together, sealed, and its ESP packet fragmented outside.
#[test]
fn fragments_leave_as_one_datagram() {
    for (src, dst) in [(A, B), (A6, B6)] {
        let (mut a, mut b) = ends();
        let whole = udp(src, dst, (1, 2), &payload(9000));
        let mut sealed = Vec::new();
        for fragment in fragments(&whole, 1400, 9) {
            sealed.extend(esp(a.send(&fragment)));
        }
        assert_eq!(sealed.len(), 1);
        let received = b.receive_from(outer(src, 4500), 0, &sealed);
        assert!(crate::segment::tests::is_valid(&received[0]));
        let header = if src == A { 20 } else { 40 };
        assert_eq!(received[0][header..], whole[header..]);
        // One without its predecessor is lost.
        let mut late = fragments(&whole, 1400, 10);
        late.remove(1);
        assert!(late.iter().all(|fragment| a.send(fragment).is_empty()));
        assert!(a.fwd.counters().untransportable > 0);
        assert_eq!(a.fwd.counters().too_big, 0);
    }
}

#[test]
fn what_does_not_fit_is_told_what_would() {
    for (src, dst, header, around) in [(A, B, 20, 28), (A6, B6, 40, 48)] {
        let (mut a, _) = ends();
        let id = if src == A { 1 } else { 2 };
        let fits = a.fwd.sad.get_mut(SaId(id)).unwrap().path.mtu() + header;
        let sealed = esp(a.send(&udp(src, dst, (1, 2), &vec![0; fits - header - 8])));
        assert!(sealed[0].len() + around <= 1500 && sealed[0].len() + around > 1496);
        let sent = a.send(&udp(src, dst, (1, 2), &vec![0; fits - header - 7]));
        let (to, answer) = &sent[0];
        assert_eq!(*to, To::Device);
        let said = &answer[header + 4..header + 8];
        assert_eq!(u32::from_be_bytes(said.try_into().unwrap()), u32::try_from(fits).unwrap());
        assert_eq!(a.fwd.counters().too_big, 1);
    }
}

/// The receiver reads the addresses off the outer header, so no others may be sent.
#[test]
fn addresses_that_are_not_the_pairs_are_not_sent() {
    let (mut a, _) = ends();
    a.encrypt("192.0.2.77", B, 1);
    a.encrypt(A, "198.51.100.8", 1);
    assert!(a.send(&udp("192.0.2.77", B, (1, 2), b"x")).is_empty());
    assert!(a.send(&udp(A, "198.51.100.8", (1, 2), b"x")).is_empty());
    assert_eq!(a.fwd.counters().untransportable, 2);
    for wide in ["192.0.2.0/24", "192.0.2.9"] {
        let mut pair = between(7, A, B);
        pair.local.push(TrafficSelector::prefix(wide.parse().unwrap()));
        a.command(Command::AddSa(Box::new(pair)));
        assert_eq!(a.notices().pop(), Some(Notice::HardExpire(SaId(7))), "{wide}");
    }
}

/// There is one header: what it says of service and congestion is said outside.
#[test]
fn dscp_and_ecn_are_those_outside() {
    for (src, dst, capable) in [(A, B, 0xba), (A6, B6, 0xba)] {
        let (mut a, mut b) = ends();
        let mut packet = udp(src, dst, (1, 2), b"x");
        if src == A {
            packet[1] = capable;
        } else {
            packet[0] |= capable >> 4;
            packet[1] |= capable << 4;
        }
        let sealed = esp(a.send(&packet));
        assert_eq!(a.batch.sends()[0].tos, capable);
        let marked = capable | 3;
        let received = b.receive_from(outer(src, 4500), marked, &sealed);
        assert_eq!(Inner::parse(&received[0]).unwrap().tos, marked);
    }
}

#[test]
fn dummies_and_old_numbers_are_dropped() {
    let (mut a, mut b) = ends();
    let packet = udp(A, B, (1, 2), b"once");
    let sealed = esp(a.send(&packet));
    assert_eq!(b.receive(&sealed).len(), 1);
    assert!(b.receive(&sealed).is_empty());
    assert_eq!(b.fwd.counters().replayed, 1);
    let sa = a.fwd.sad.get_mut(SaId(1)).unwrap();
    let mut slot = vec![0; esp::sealed_len(64)];
    let number = sa.sealer.number().unwrap();
    sa.sealer.seal(number, &mut slot, 64, NO_NEXT_HEADER).unwrap();
    assert!(b.receive(&[slot]).is_empty());
    assert_eq!(b.fwd.counters().dummy, 1);
}

/// A pair may be replaced by one of the other mode: neighbours of the two are not joined.
#[test]
fn both_modes_in_one_batch_keep_apart() {
    let (mut a, mut b) = ends();
    let tunnel = pair(5, &[A], &[B]);
    b.command(Command::AddSa(Box::new(mirrored(&tunnel))));
    a.command(Command::AddSa(Box::new(tunnel)));
    let mut sealed = Vec::new();
    for i in 0..8u32 {
        a.encrypt(A, B, if i % 2 == 0 { 1 } else { 5 });
        sealed.extend(esp(a.send(&tcp(A, B, i * 100, 0x10, &payload(100)))));
    }
    let received = b.receive(&sealed);
    assert_eq!(b.delivery.writes().count(), 8);
    for (i, packet) in (0u32..).zip(received) {
        assert!(crate::segment::tests::is_valid(&packet));
        assert_eq!(packet[24..28], (i * 100).to_be_bytes());
    }
}
