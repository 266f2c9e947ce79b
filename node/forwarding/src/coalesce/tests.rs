//! Joined packets, cut again, are the packets that were joined.

use super::*;
use crate::packet::tests::{packet, udp};
use crate::segment::CWR;
use crate::segment::tests::{cut, is_valid as sums_are_right, payload, tcp, tcp_with};
use proptest::prelude::*;

const A: &str = "192.0.2.1";
const B: &str = "192.0.2.2";
const A6: &str = "2001:db8::1";
const B6: &str = "2001:db8::2";

/// Delivers packets; each write as offload header and octets.
fn deliver(packets: &[Vec<u8>]) -> Vec<(Offload, Vec<u8>)> {
    let mut arena = Vec::new();
    let mut delivery = Delivery::new(true);
    let mut places = Vec::new();
    for packet in packets {
        // ESP leaves gaps between packets.
        arena.extend([0xee; 16]);
        places.push(arena.len()..arena.len() + packet.len());
        arena.extend(packet);
    }
    for (place, packet) in places.into_iter().zip(packets) {
        delivery.push(&arena, place, &Inner::parse(packet).unwrap(), None);
    }
    delivery.finish(&mut arena);
    delivery
        .writes()
        .map(|write| (write.offload, write.flat_map(|r| arena[r].to_vec()).collect()))
        .collect()
}

/// How many packets each write consists of.
fn sizes(packets: &[Vec<u8>]) -> Vec<usize> {
    deliver(packets).iter().map(|(offload, octets)| cut(offload, octets).unwrap().len()).collect()
}

/// Delivers packets and cuts what comes out.
fn round_trip(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    deliver(packets).iter().flat_map(|(offload, octets)| cut(offload, octets).unwrap()).collect()
}

/// As the kernel numbers the parts of one super-packet: identification counts up.
fn numbered(mut packets: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    for (i, packet) in (0u16..).zip(&mut packets) {
        set_id(packet, 0x4000 + i);
    }
    packets
}

fn set_id(packet: &mut [u8], id: u16) {
    if packet[0] >> 4 == 4 {
        let old = u16::from_be_bytes([packet[4], packet[5]]);
        let sum = crate::checksum::updated([packet[10], packet[11]], old, id);
        packet[4..6].copy_from_slice(&id.to_be_bytes());
        packet[10..12].copy_from_slice(&sum);
    }
}

/// A stream of `n` full segments.
fn stream(src: &str, dst: &str, first: u32, n: u32) -> Vec<Vec<u8>> {
    numbered(
        (0..n).map(|i| tcp(src, dst, first.wrapping_add(i * 1000), ACK, &payload(1000))).collect(),
    )
}

#[test]
fn a_stream_becomes_one_write() {
    for (src, dst, kind) in [(A, B, Cut::Tcp4), (A6, B6, Cut::Tcp6)] {
        // The sequence number wraps on the way.
        let packets = stream(src, dst, u32::MAX - 3500, 10);
        let writes = deliver(&packets);
        assert_eq!(writes.len(), 1);
        let (offload, octets) = &writes[0];
        let upper = if kind == Cut::Tcp4 { 20 } else { 40 };
        assert_eq!(offload.cut, Some((kind, 1000)));
        assert_eq!(offload.checksum, Some((upper, 16)));
        assert_eq!(octets.len(), usize::from(upper) + 20 + 10_000);
        assert_eq!(round_trip(&packets), packets);
    }
}

#[test]
fn the_last_part_may_be_shorter_and_ends_the_write() {
    let mut packets = stream(A, B, 0, 3);
    packets.push(tcp(A, B, 3000, ACK, &payload(400)));
    packets.push(tcp(A, B, 3400, ACK, &payload(400)));
    let packets = numbered(packets);
    assert_eq!(sizes(&packets), [4, 1]);
    assert_eq!(round_trip(&packets), packets);
    // A longer one never fits.
    let packets =
        numbered(vec![tcp(A, B, 0, ACK, &payload(400)), tcp(A, B, 400, ACK, &payload(1000))]);
    assert_eq!(sizes(&packets), [1, 1]);
}

#[test]
fn push_and_fin_end_a_write_and_survive_it() {
    for flag in [PSH, FIN, PSH | FIN] {
        let mut packets = stream(A, B, 0, 2);
        packets.push(tcp(A, B, 2000, ACK | flag, &payload(1000)));
        packets.push(tcp(A, B, 3000, ACK, &payload(1000)));
        let packets = numbered(packets);
        assert_eq!(sizes(&packets), [3, 1]);
        assert_eq!(round_trip(&packets), packets);
    }
}

#[test]
fn syn_rst_urg_and_cwr_stay_alone_and_part_the_stream() {
    for flag in [0x02, 0x04, 0x20, CWR] {
        let mut packets = stream(A, B, 0, 3);
        packets[1] = tcp(A, B, 1000, ACK | flag, &payload(1000));
        let packets = numbered(packets);
        assert_eq!(sizes(&packets), [1, 1, 1], "{flag:#x}");
        assert_eq!(round_trip(&packets), packets);
    }
}

#[test]
fn an_echo_of_congestion_is_part_of_every_segment_or_of_none() {
    let mut packets = stream(A, B, 0, 4);
    for i in [2, 3] {
        packets[i] = tcp(A, B, u32::try_from(i).unwrap() * 1000, ACK | ECE, &payload(1000));
    }
    let packets = numbered(packets);
    assert_eq!(sizes(&packets), [2, 2]);
    assert_eq!(round_trip(&packets), packets);
}

#[test]
fn what_differs_in_a_header_is_not_joined() {
    // Octets of the IPv4 header, then of TCP: DSCP, DF, TTL; acknowledgement, window, urgent.
    for at in [1, 6, 8, 20 + 11, 20 + 15, 20 + 19] {
        let mut packets = stream(A, B, 0, 3);
        packets[1][at] ^= if at == 6 { 0x40 } else { 4 };
        refresh(&mut packets[1]);
        assert_eq!(sizes(&packets), [1, 1, 1], "{at}");
        assert_eq!(round_trip(&packets), packets);
    }
    for at in [1, 3, 7] {
        let mut packets = stream(A6, B6, 0, 3);
        packets[1][at] ^= 4;
        assert_eq!(sizes(&packets), [1, 1, 1], "{at}");
        assert_eq!(round_trip(&packets), packets);
    }
}

/// Makes both checksums right again.
fn refresh(packet: &mut [u8]) {
    let inner = Inner::parse(packet).unwrap();
    if inner.is_v4() {
        packet[10..12].fill(0);
        let sum = Sum::default().octets(&packet[..inner.upper]).checksum();
        packet[10..12].copy_from_slice(&sum);
    }
    let at = inner.upper + if inner.protocol == TCP { 16 } else { 6 };
    packet[at..at + 2].fill(0);
    let upper = &packet[inner.upper..inner.len];
    let pseudo = pseudo_header(inner.flow.src(), inner.flow.dst(), inner.protocol, upper.len());
    let sum = pseudo.octets(upper).checksum();
    packet[at..at + 2].copy_from_slice(&sum);
}

#[test]
fn a_gap_or_a_repetition_parts_the_stream() {
    let all = stream(A, B, 0, 6);
    let gap = [&all[..2], &all[3..]].concat();
    assert_eq!((sizes(&gap), round_trip(&gap)), (vec![2, 3], gap));
    let again = [&all[..3], &all[1..]].concat();
    assert_eq!((sizes(&again), round_trip(&again)), (vec![3, 5], again));
}

#[test]
fn identifications_must_count_up_unless_they_mean_nothing() {
    let mut packets = stream(A, B, 0, 3);
    for packet in &mut packets {
        packet[6] = 0;
        refresh(packet);
    }
    assert_eq!(sizes(&packets), [3]);
    set_id(&mut packets[2], 7);
    assert_eq!(sizes(&packets), [2, 1]);
    assert_eq!(round_trip(&packets), packets);
    // With DF set a constant zero is common, and what the cut packets get is as good.
    let mut atomic = stream(A, B, 0, 3);
    atomic.iter_mut().for_each(|p| set_id(p, 0));
    assert_eq!(sizes(&atomic), [3]);
}

#[test]
fn timestamps_and_other_options_must_agree() {
    let with = |seq: u32, stamp: u8| {
        let options = [1, 1, 8, 10, 0, 0, 0, stamp, 0, 0, 0, 1];
        tcp_with(A6, B6, seq, ACK, &options, &payload(500))
    };
    let packets = [with(0, 1), with(500, 1), with(1000, 2), with(1500, 2)];
    assert_eq!(sizes(&packets), [2, 2]);
    assert_eq!(round_trip(&packets), packets);
    let fewer = tcp(A6, B6, 500, ACK, &payload(500));
    assert_eq!(sizes(&[with(0, 1), fewer]), [1, 1]);
}

#[test]
fn a_wrong_checksum_stays_wrong() {
    for damaged in 0..4 {
        for at in [12, 20 + 16, 20 + 20 + 500] {
            let mut packets = stream(A, B, 0, 4);
            packets[damaged][at] ^= 0x10;
            // Octet 12 is part of the address: the header's checksum is wrong then, and the flow
            // another one.
            let out = round_trip(&packets);
            assert_eq!(out, packets, "packet {damaged}, octet {at}");
            assert!(!sums_are_right(&out[damaged]));
        }
    }
    let mut datagrams: Vec<_> = (0..4).map(|_| udp(A6, B6, (5, 6), &payload(700))).collect();
    datagrams[2][60] ^= 1;
    assert_eq!((sizes(&datagrams), round_trip(&datagrams)), (vec![2, 1, 1], datagrams));
}

#[test]
fn datagrams_of_equal_size_are_joined() {
    for (src, dst) in [(A, B), (A6, B6)] {
        let mut packets: Vec<_> = (0..5).map(|_| udp(src, dst, (5, 6), &payload(700))).collect();
        packets.push(udp(src, dst, (5, 6), &payload(33)));
        packets.push(udp(src, dst, (5, 6), &payload(33)));
        let packets = numbered(packets);
        let writes = deliver(&packets);
        assert_eq!(writes[0].0.cut, Some((Cut::Udp, 700)));
        assert_eq!(sizes(&packets), [6, 1]);
        assert_eq!(round_trip(&packets), packets);
    }
    let mut delivery = Delivery::new(false);
    let datagram = udp(A, B, (5, 6), b"x");
    let inner = Inner::parse(&datagram).unwrap();
    for _ in 0..3 {
        delivery.push(&datagram, 0..datagram.len(), &inner, None);
    }
    assert_eq!(delivery.writes().count(), 3, "the device does not take them");
}

#[test]
fn datagrams_without_checksum_stay_without() {
    let mut packets: Vec<_> = (0..3).map(|_| udp(A, B, (5, 6), &payload(700))).collect();
    for packet in &mut packets {
        packet[26..28].fill(0);
    }
    assert_eq!((sizes(&packets), round_trip(&packets)), (vec![1, 1, 1], packets));
}

#[test]
fn fragments_extensions_and_other_protocols_pass_singly() {
    let mut fragments = stream(A, B, 0, 3);
    for (i, packet) in (0u8..).zip(&mut fragments) {
        packet[6..8].copy_from_slice(&[0x20, i]);
        refresh(packet);
    }
    assert_eq!((sizes(&fragments), round_trip(&fragments)), (vec![1, 1, 1], fragments));
    let chain = |seq| {
        let inner = tcp(A6, B6, seq, ACK, &payload(100));
        packet(A6, B6, 60, &[&[TCP, 0, 1, 4, 0, 0, 0, 0][..], &inner[40..]].concat())
    };
    let extended = [chain(0), chain(100)];
    assert_eq!((sizes(&extended), round_trip(&extended)), (vec![1, 1], extended.to_vec()));
    let mut options = stream(A, B, 0, 2);
    for packet in &mut options {
        packet.splice(20..20, [1, 1, 1, 1]);
        packet[0] = 0x46;
        let len = u16::try_from(packet.len()).unwrap();
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        refresh(packet);
    }
    assert_eq!((sizes(&options), round_trip(&options)), (vec![1, 1], options));
    let icmp = vec![packet(A, B, 1, &[8, 0, 0, 0, 0, 1, 0, 1]); 3];
    assert_eq!(sizes(&icmp), [1, 1, 1]);
}

#[test]
fn an_acknowledgement_is_not_overtaken() {
    let all = stream(A, B, 0, 4);
    let ack = tcp(A, B, 2000, ACK, b"");
    let mixed = [&all[..2], &[ack], &all[2..]].concat();
    assert_eq!((sizes(&mixed), round_trip(&mixed)), (vec![2, 1, 2], mixed));
}

#[test]
fn interleaved_flows_grow_side_by_side() {
    let (a, b) = (stream(A, B, 0, 4), stream(B, A, 9, 4));
    let mixed: Vec<_> = a.iter().zip(&b).flat_map(|(x, y)| [x.clone(), y.clone()]).collect();
    assert_eq!(sizes(&mixed), [4, 4]);
    assert_eq!(round_trip(&mixed), [a, b].concat());
    // Twenty at once are too many; then nothing is lost but the joining.
    let many: Vec<_> = (0..3u32)
        .flat_map(|i| {
            (0..20u8).map(move |h| tcp(&format!("10.0.0.{h}"), B, i * 1000, ACK, &payload(1000)))
        })
        .collect();
    assert_eq!(round_trip(&many).len(), 60);
}

#[test]
fn a_write_ends_before_it_grows_too_large() {
    let large: Vec<_> = (0..50u32).map(|i| tcp(A, B, i * 1400, ACK, &payload(1400))).collect();
    assert_eq!(sizes(&numbered(large)), [46, 4]);
    let small: Vec<_> = (0..100u32).map(|i| tcp(A, B, i * 10, ACK, &payload(10))).collect();
    assert_eq!(sizes(&numbered(small)), [64, 36]);
}

/// What may happen to a stream next.
#[derive(Clone, Debug)]
enum Step {
    Data { flow: u8, len: usize, flags: u8, stamp: bool },
    Datagram { flow: u8, len: usize },
    Ack { flow: u8 },
    Damage,
    Skip { flow: u8 },
    Mark,
}

fn step() -> impl Strategy<Value = Step> {
    let flow = 0u8..3;
    let len = prop_oneof![4 => Just(300usize), 1 => 1usize..400, 1 => Just(301usize)];
    let flags = prop_oneof![8 => Just(ACK), 1 => any::<u8>()];
    prop_oneof![
        12 => (flow.clone(), len.clone(), flags, any::<bool>())
            .prop_map(|(flow, len, flags, stamp)| Step::Data { flow, len, flags, stamp }),
        6 => (flow.clone(), len).prop_map(|(flow, len)| Step::Datagram { flow, len }),
        1 => flow.clone().prop_map(|flow| Step::Ack { flow }),
        1 => Just(Step::Damage),
        1 => flow.prop_map(|flow| Step::Skip { flow }),
        1 => Just(Step::Mark),
    ]
}

/// Plays the steps: packets of three flows, of both families.
fn play(steps: &[Step]) -> Vec<Vec<u8>> {
    let hosts = [(A, B), (A6, B6), (B, A)];
    let mut seqs = [0u32, u32::MAX - 500, 77];
    let mut id = 0u16;
    let mut packets: Vec<Vec<u8>> = Vec::new();
    for step in steps {
        let mut add = |mut packet: Vec<u8>| {
            id = id.wrapping_add(1);
            set_id(&mut packet, id);
            packets.push(packet);
        };
        match *step {
            Step::Data { flow, len, flags, stamp } => {
                let (src, dst) = hosts[usize::from(flow)];
                let seq = &mut seqs[usize::from(flow)];
                let options: &[u8] =
                    if stamp { &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2] } else { &[] };
                add(tcp_with(src, dst, *seq, flags, options, &payload(len)));
                *seq = seq.wrapping_add(u32::try_from(len).unwrap());
            }
            Step::Datagram { flow, len } => {
                let (src, dst) = hosts[usize::from(flow)];
                add(udp(src, dst, (5, 6), &payload(len)));
            }
            Step::Ack { flow } => {
                let (src, dst) = hosts[usize::from(flow)];
                add(tcp(src, dst, seqs[usize::from(flow)], ACK, b""));
            }
            Step::Damage => {
                if let Some(packet) = packets.last_mut() {
                    let at = packet.len() - 1;
                    packet[at] ^= 0xff;
                }
            }
            Step::Skip { flow } => {
                let seq = &mut seqs[usize::from(flow)];
                *seq = seq.wrapping_add(100);
            }
            Step::Mark => {
                if let Some(packet) = packets.last_mut()
                    && packet[0] >> 4 == 6
                {
                    packet[1] ^= 0x10;
                }
            }
        }
    }
    packets
}

/// Packets of one flow, without the identification where it means nothing.
fn of_flow(packets: &[Vec<u8>]) -> Vec<(Flow, Vec<Vec<u8>>)> {
    let mut flows: Vec<(Flow, Vec<Vec<u8>>)> = Vec::new();
    for packet in packets {
        let inner = Inner::parse(packet).unwrap();
        let mut packet = packet.clone();
        if inner.is_v4() && inner.df {
            packet[4..6].fill(0);
            packet[10..12].fill(0);
        }
        match flows.iter_mut().find(|(flow, _)| *flow == inner.flow) {
            Some((_, packets)) => packets.push(packet),
            None => flows.push((inner.flow, vec![packet])),
        }
    }
    flows.sort_by_key(|(flow, _)| *flow);
    flows
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever comes: nothing is lost, nothing is invented, and the order within a connection
    /// stays. Two connections of one address pair may pass each other, as on any network.
    #[test]
    fn any_sequence_comes_out_as_it_went_in(
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let packets = play(&steps);
        let out = round_trip(&packets);
        let key = |p: &Vec<u8>| {
            let inner = Inner::parse(p).unwrap();
            (inner.protocol, inner.ports)
        };
        let (mut before, mut after) = (of_flow(&packets), of_flow(&out));
        for flows in [&mut before, &mut after] {
            // Stable, so that only connections are told apart.
            flows.iter_mut().for_each(|(_, packets)| packets.sort_by_key(key));
        }
        prop_assert_eq!(before, after);
    }
}
