//! The fast way must say what the slow way says: super-packets, runs and joined writes through a
//! network that loses, repeats, reorders and marks, against the same packets one by one.

use super::*;

use crate::segment::tests::{cut, is_valid, tcp_with};

const A6: &str = "2001:db8::1";
const B6: &str = "2001:db8:1::7";

/// What an application sends.
#[derive(Clone, Debug)]
enum Sent {
    /// A TCP super-packet: connection, octets, size of a part, flags, whether with timestamps.
    Stream { flow: u8, len: usize, size: u16, flags: u8, stamp: bool },
    /// A UDP super-packet or a single datagram.
    Datagrams { flow: u8, len: usize, size: Option<u16> },
    /// An IPv4 fragment or an IPv6 packet with extension headers.
    Odd { flow: u8, len: usize, more: bool },
    /// A datagram whose checksum is wrong.
    Damaged { flow: u8, len: usize },
}

fn sent() -> impl Strategy<Value = Sent> {
    let flow = 0u8..4;
    let size = prop_oneof![3 => Just(1200u16), 1 => 100u16..1300];
    let flags = prop_oneof![6 => Just(0x10u8), 1 => Just(0x18), 1 => Just(0x90), 1 => Just(0x50)];
    prop_oneof![
        6 => (flow.clone(), 1usize..20_000, size.clone(), flags, any::<bool>())
            .prop_map(|(flow, len, size, flags, stamp)| Sent::Stream { flow, len, size, flags, stamp }),
        2 => (flow.clone(), 1usize..9000, size)
            .prop_map(|(flow, len, size)| Sent::Datagrams { flow, len, size: Some(size) }),
        2 => (flow.clone(), 0usize..1300)
            .prop_map(|(flow, len)| Sent::Datagrams { flow, len, size: None }),
        1 => (flow.clone(), 8usize..1000, any::<bool>())
            .prop_map(|(flow, len, more)| Sent::Odd { flow, len, more }),
        1 => (flow, 1usize..1000).prop_map(|(flow, len)| Sent::Damaged { flow, len }),
    ]
}

/// What the network does to the packet that is at this place in turn.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Arrives,
    IsLost,
    IsDoubled,
    /// Arrives this many places later.
    IsLate(u8),
    /// Congestion is marked on the way.
    IsMarked,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        12 => Just(Fate::Arrives),
        1 => Just(Fate::IsLost),
        1 => Just(Fate::IsDoubled),
        2 => (1u8..40).prop_map(Fate::IsLate),
        1 => Just(Fate::IsMarked),
    ]
}

/// Both ends of the flows; two connections of one address pair, and two of IPv6.
fn hosts(flow: u8) -> (&'static str, &'static str) {
    if flow < 2 { (A, B) } else { (A6, B6) }
}

/// Packets as the device hands them over, with what the kernel would make of each one by one.
fn play(script: &[Sent]) -> Vec<(Offload, Vec<u8>)> {
    let mut seqs = [u32::MAX - 5000, 7, u32::MAX - 100, 99];
    script
        .iter()
        .map(|sent| match *sent {
            Sent::Stream { flow, len, size, flags, stamp } => {
                let (src, dst) = hosts(flow);
                let seq = &mut seqs[usize::from(flow)];
                let options: &[u8] =
                    if stamp { &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2] } else { &[] };
                let mut whole = tcp_with(src, dst, *seq, flags, options, &payload(len));
                *seq = seq.wrapping_add(u32::try_from(len).unwrap());
                capable(&mut whole);
                let kind = if flow < 2 { Cut::Tcp4 } else { Cut::Tcp6 };
                (Offload { cut: Some((kind, size)), ..Offload::NONE }, whole)
            }
            Sent::Datagrams { flow, len, size } => {
                let (src, dst) = hosts(flow);
                let whole = udp(src, dst, (5, u16::from(flow)), &payload(len));
                (Offload { cut: size.map(|size| (Cut::Udp, size)), ..Offload::NONE }, whole)
            }
            Sent::Odd { flow, len, more } => (Offload::NONE, odd(flow, len, more)),
            Sent::Damaged { flow, len } => {
                let (src, dst) = hosts(flow);
                let mut packet = udp(src, dst, (5, 6), &payload(len));
                let at = packet.len() - 1;
                packet[at] ^= 0x55;
                (Offload::NONE, packet)
            }
        })
        .collect()
}

/// Sets ECT(0), so that congestion can be marked.
fn capable(packet: &mut [u8]) {
    if packet[0] >> 4 == 4 {
        packet[1] = 2;
        packet[10..12].fill(0);
        let sum = crate::checksum::Sum::default().octets(&packet[..20]).checksum();
        packet[10..12].copy_from_slice(&sum);
    } else {
        packet[1] = 0x20;
    }
}

/// A first or later fragment (IPv4), a packet behind destination options (IPv6).
fn odd(flow: u8, len: usize, more: bool) -> Vec<u8> {
    let (src, dst) = hosts(flow);
    let mut packet = udp(src, dst, (5, 6), &payload(len));
    if flow < 2 {
        packet[6..8].copy_from_slice(&if more { [0x20, 0] } else { [0, 0x20] });
        packet[10..12].fill(0);
        let sum = crate::checksum::Sum::default().octets(&packet[..20]).checksum();
        packet[10..12].copy_from_slice(&sum);
    } else {
        // Destination options of eight octets: PadN.
        packet.splice(40..40, [UDP, 0, 1, 4, 0, 0, 0, 0]);
        packet[6] = 60;
        let len = u16::try_from(packet.len() - 40).unwrap();
        packet[4..6].copy_from_slice(&len.to_be_bytes());
    }
    packet
}

/// What arrives, in order, each with its outer ECN.
fn network(packets: Vec<Vec<u8>>, fates: &[Fate]) -> Vec<(u8, Vec<u8>)> {
    let mut arrivals = Vec::new();
    for (place, packet) in packets.into_iter().enumerate() {
        match fates[place % fates.len()] {
            Fate::Arrives => arrivals.push((place, 0, packet)),
            Fate::IsLost => {}
            Fate::IsDoubled => {
                arrivals.push((place, 0, packet.clone()));
                arrivals.push((place, 0, packet));
            }
            Fate::IsLate(by) => arrivals.push((place + usize::from(by), 0, packet)),
            Fate::IsMarked => arrivals.push((place, 3, packet)),
        }
    }
    arrivals.sort_by_key(|(place, ..)| *place);
    arrivals.into_iter().map(|(_, tos, packet)| (tos, packet)).collect()
}

/// Two planes with a pair for everything that [`play`] sends.
fn ends() -> (Plane, Plane) {
    let (mut a, b) = both_with(pair(1, &[A, A6], &[B, B6]));
    a.encrypt(A6, B6, 1);
    (a, b)
}

/// Where an ESP packet of those planes came from: one pair is of IPv4, if there are two.
fn source(packet: &[u8]) -> SocketAddr {
    outer(if packet[..4] == 0x2002u32.to_be_bytes() { A6 } else { A }, 4500)
}

/// The connection, and what is compared of a packet: all of it, but for an identification that
/// means nothing.
fn told(packet: &[u8]) -> (Connection, Vec<u8>) {
    let inner = Inner::parse(packet).unwrap();
    let mut packet = packet.to_vec();
    if inner.is_v4() && inner.df {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
    ((packet[0] >> 4, inner.protocol, inner.ports), packet)
}

/// IP version, protocol and ports.
type Connection = (u8, u8, (u16, u16));

/// Stable, so that only connections are told apart.
fn by_connection(packets: &[Vec<u8>]) -> Vec<(Connection, Vec<u8>)> {
    let mut packets: Vec<_> = packets.iter().map(|p| told(p)).collect();
    packets.sort_by_key(|(connection, _)| *connection);
    packets
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Cut, sealed as runs, through a bad network, opened in batches, joined: the device gets what
    /// it gets when every packet is sent, opened and written by itself.
    #[test]
    fn the_fast_way_is_the_slow_way(
        script in proptest::collection::vec(sent(), 1..12),
        fates in proptest::collection::vec(fate(), 1..60),
        batch in 1usize..80,
        mode in prop_oneof![Just(Mode::Tunnel), Just(Mode::Transport)],
    ) {
        let script = play(&script);
        let ends = if mode == Mode::Tunnel { ends } else { in_transport::ends };
        let (mut a, mut fast) = ends();
        let (mut one, mut slow) = ends();
        let (mut runs, mut singles) = (Vec::new(), Vec::new());
        for (offload, packet) in &script {
            runs.extend(esp(a.send_super(offload, packet)));
            for part in cut(offload, packet).unwrap() {
                singles.extend(esp(one.send(&part)));
            }
        }
        prop_assert_eq!(runs.len(), singles.len());

        let mut received = Vec::new();
        // A batch has one outer ECN and one source: they part it, as on the wire.
        let arrivals = network(runs, &fates);
        for same in arrivals.chunk_by(|a, b| a.0 == b.0 && source(&a.1) == source(&b.1)) {
            for chunk in same.chunks(batch) {
                let packets: Vec<Vec<u8>> = chunk.iter().map(|(_, p)| p.clone()).collect();
                received.extend(fast.receive_from(source(&packets[0]), chunk[0].0, &packets));
            }
        }
        let mut expected = Vec::new();
        for (tos, packet) in network(singles, &fates) {
            expected.extend(slow.receive_from(source(&packet), tos, &[packet]));
        }
        prop_assert_eq!(by_connection(&received), by_connection(&expected));
        prop_assert_eq!(fast.fwd.counters(), slow.fwd.counters());
    }
}

/// A bad checksum must not become good: neither in a lone packet nor among good neighbours.
#[test]
fn a_bad_checksum_stays_bad_all_the_way() {
    let (mut a, mut b) = ends();
    let mut sealed = Vec::new();
    for i in 0..9u32 {
        let mut packet = tcp(A, B, 1000 + i * 100, 0x10, &payload(100));
        if i == 4 {
            packet[60] ^= 1;
        }
        sealed.extend(esp(a.send(&packet)));
    }
    let received = b.receive(&sealed);
    let valid: Vec<bool> = received.iter().map(|p| is_valid(p)).collect();
    assert_eq!(valid, [true, true, true, true, false, true, true, true, true]);
    // Without the flag that tells the device not to look.
    assert!(b.delivery.writes().any(|write| write.offload == Offload::NONE));
}

/// A pair is replaced while packets of the old one are on their way, and of both in one batch.
#[test]
fn a_rekey_in_the_middle_of_a_batch_loses_nothing() {
    let (mut a, mut b) = both();
    let whole = |seq| tcp(A, B, seq, 0x10, &payload(13_000));
    let offload = Offload { cut: Some((Cut::Tcp4, 1300)), ..Offload::NONE };
    let old = esp(a.send_super(&offload, &whole(0)));
    let new = SaPair {
        key_out: EspKey::new(EspCipher::Aes128Gcm16, &[9; 20]).unwrap(),
        ..pair(2, &[A], &[B])
    };
    b.command(Command::AddSa(Box::new(mirrored(&new))));
    a.command(Command::AddSa(Box::new(new)));
    a.encrypt(A, B, 2);
    let new = esp(a.send_super(&offload, &whole(13_000)));
    // New and old alternate, as two ways of the network would make it.
    let mixed: Vec<Vec<u8>> = new.into_iter().zip(old).flat_map(|(n, o)| [n, o]).collect();
    let received = b.receive(&mixed);
    let mut seqs: Vec<u32> =
        received.iter().map(|p| u32::from_be_bytes(p[24..28].try_into().unwrap())).collect();
    seqs.sort_unstable();
    assert_eq!(seqs, (0..20).map(|i| i * 1300).collect::<Vec<_>>());
    assert!(received.iter().all(|p| is_valid(p)));
}

/// An SPI that was another pair's a moment ago opens nothing that was sealed for that one.
#[test]
fn a_reused_spi_is_another_pairs() {
    let (mut a, mut b) = both();
    let old = esp(a.send(&udp(A, B, (1, 2), b"old")));
    b.command(Command::RemoveSa(SaId(1)));
    let again = SaPair {
        spi_out: pair(1, &[A], &[B]).spi_out,
        key_out: EspKey::new(EspCipher::Aes128Gcm16, &[9; 20]).unwrap(),
        ..pair(2, &[A], &[B])
    };
    b.command(Command::AddSa(Box::new(mirrored(&again))));
    assert!(b.receive(&old).is_empty());
    assert_eq!(b.fwd.counters().unauthentic, 1);
    a.command(Command::RemoveSa(SaId(1)));
    a.command(Command::AddSa(Box::new(again)));
    a.encrypt(A, B, 2);
    let packet = udp(A, B, (1, 2), b"new");
    let sealed = esp(a.send(&packet));
    assert_eq!(b.receive(&sealed), [packet]);
}

/// Packets of hardly more than a header, a whole batch of them: each arrives, none grows.
#[test]
fn the_smallest_packets_pass_in_numbers() {
    let (mut a, mut b) = both();
    let packets: Vec<Vec<u8>> = (0..500u16).map(|i| udp(A, B, (i, 2), b"")).collect();
    let sealed: Vec<Vec<u8>> = packets.iter().flat_map(|p| esp(a.send(p))).collect();
    let received = b.receive(&sealed);
    assert_eq!(by_connection(&received), by_connection(&packets));
}

/// A device with jumbo frames: parts of 8,900 octets, cut and joined like any other.
#[test]
fn jumbo_frames_are_cut_and_joined() {
    let config = Config { link_mtu: 9000, ..Config::default() };
    let (mut a, mut b) = (Plane::with(config), Plane::with(config));
    let pair = pair(1, &[A], &[B]);
    b.command(Command::AddSa(Box::new(mirrored(&pair))));
    a.command(Command::AddSa(Box::new(pair)));
    a.encrypt(A, B, 1);
    let size = device_mtu(9000, false) - 40;
    let offload = Offload { cut: Some((Cut::Tcp4, size)), ..Offload::NONE };
    let whole = tcp(A, B, 7, 0x10, &payload(60_000));
    let sealed = esp(a.send_super(&offload, &whole));
    assert!(sealed.iter().all(|p| p.len() + 28 <= 9000), "{:?}", sealed[0].len());
    assert_eq!(sealed.len(), 60_000usize.div_ceil(size.into()));
    assert_eq!(b.receive(&sealed), cut(&offload, &whole).unwrap());
    assert_eq!(b.delivery.writes().count(), 1);
}
