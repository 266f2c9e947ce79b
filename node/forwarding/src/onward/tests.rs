use super::*;
use crate::packet::tests::udp;
use crate::segment::tests as segment;
use crate::segment::{ACK, PSH};

const PAIRS: [(&str, &str); 2] = [("10.5.0.2", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")];

/// A super-packet as the device hands it over, but for its checksum, which nobody looks at here.
fn sent(pair: (&str, &str), seq: u32, flags: u8) -> (Offload, Vec<u8>) {
    let packet = segment::tcp(pair.0, pair.1, seq, flags, &segment::payload(3000));
    let (cut, upper) = if pair.0.contains('.') { (Cut::Tcp4, 20) } else { (Cut::Tcp6, 40) };
    (Offload { checksum: Some((upper, 16)), cut: Some((cut, 1000)), header: 0 }, packet)
}

fn trials() -> Trials {
    Trials::new(Seeded::new(7, 0x9e37_79b9_7f4a_7c15))
}

fn takes(trials: &mut Trials, now: Instant, (offload, packet): &(Offload, Vec<u8>)) -> bool {
    trials.takes(now, offload, packet, &Inner::parse(packet).unwrap())
}

/// One connection of many: another port.
fn of(number: u8, mut sent: (Offload, Vec<u8>)) -> (Offload, Vec<u8>) {
    let upper = usize::from(sent.0.checksum.unwrap().0);
    sent.1[upper + 1] = number;
    sent
}

#[test]
fn a_super_packet_gets_headers_before_it() {
    for pair in PAIRS {
        let (offload, packet) = sent(pair, 1, ACK);
        let (ip, kind) = if pair.0.contains('.') { (20, [8, 0]) } else { (40, [0x86, 0xdd]) };
        let onward = Onward::of(&offload, &packet).unwrap();
        let head = onward.head();
        let header = Offload::parse(*head.first_chunk().unwrap()).unwrap();
        assert_eq!(header.cut, offload.cut);
        assert_eq!(header.checksum, offload.checksum.map(|(start, place)| (start + 14, place)));
        assert_eq!(usize::from(header.header), 14 + ip + 20);
        assert_eq!((&head[10..22], &head[22..]), (&[0; 12][..], &kind[..]));
    }
}

#[test]
fn what_does_not_go_on_whole_is_cut_as_ever() {
    for pair in PAIRS {
        let (offload, packet) = sent(pair, 1, ACK | PSH);
        let mut parts = Vec::new();
        cut(&offload, &packet, |part| parts.push(part.to_vec()));
        assert_eq!(parts, segment::cut(&offload, &packet).unwrap());
        assert_eq!(parts.len(), 3);
        let flow = ends(&packet).unwrap();
        assert!(parts.iter().all(|part| ends(part) == Some(flow)));
    }
}

#[test]
fn only_plain_super_packets_of_tcp_go_on_whole() {
    let now = Instant::now();
    for pair in PAIRS {
        let good = sent(pair, 1, ACK);
        assert!(takes(&mut trials(), now, &good));
        let refused = |offload: Offload, packet: Vec<u8>| {
            assert!(!takes(&mut trials(), now, &(offload, packet)), "{offload:?}");
        };
        let (offload, packet) = good;
        refused(Offload { cut: None, ..offload }, packet.clone());
        refused(Offload { checksum: None, ..offload }, packet.clone());
        refused(Offload { checksum: Some((0, 16)), ..offload }, packet.clone());
        refused(
            Offload { cut: Some((Cut::Udp, 9)), ..offload },
            udp(pair.0, pair.1, (5, 6), &[0; 99]),
        );
        let (offload, with_cwr) = sent(pair, 1, ACK | CWR);
        refused(offload, with_cwr);
        // The kernel would drop it, and say so; a loop ends here.
        for hops in [0, 1] {
            let mut far = packet.clone();
            far[if pair.0.contains('.') { 8 } else { 7 }] = hops;
            refused(offload, far);
        }
    }
}

#[test]
fn a_connection_whose_first_comes_again_is_cut() {
    let now = Instant::now();
    for pair in PAIRS {
        let mut trials = trials();
        let (later, lone) = (sent(pair, 3001, ACK), segment::tcp(pair.0, pair.1, 1, ACK, b"again"));
        assert!(takes(&mut trials, now, &sent(pair, 1, ACK)));
        assert!(takes(&mut trials, now, &later));
        // An acknowledgement has the number of what comes next, and nothing that was lost.
        let bare = segment::tcp(pair.0, pair.1, 1, ACK, &[]);
        assert!(!takes(&mut trials, now, &(Offload::NONE, bare)));
        assert!(takes(&mut trials, now, &later));
        assert!(!takes(&mut trials, now, &(Offload::NONE, lone.clone())));
        for seconds in [0, 100] {
            assert!(!takes(&mut trials, now + Duration::from_secs(seconds), &later));
        }
        // Others are tried, and it is tried again when everything may have changed.
        assert!(takes(&mut trials, now, &of(1, sent(pair, 1, ACK))));
        assert!(!takes(&mut trials, now + OFF, &later));
        assert!(takes(&mut trials, now + OFF, &later));
    }
}

#[test]
fn a_connection_that_went_on_for_long_is_not_doubted() {
    let now = Instant::now();
    let (first, later) = (sent(PAIRS[0], 1, ACK), sent(PAIRS[0], 3001, ACK));
    let mut trials = trials();
    assert!(takes(&mut trials, now, &first));
    assert!(takes(&mut trials, now + PROOF, &later));
    // Its numbers have come round.
    assert!(takes(&mut trials, now + PROOF, &first));
}

#[test]
fn a_connection_that_is_kept_later_is_cut() {
    let now = Instant::now();
    for pair in PAIRS {
        let mut trials = trials();
        let super_packet = |seq| sent(pair, seq, ACK);
        assert!(takes(&mut trials, now, &super_packet(1)));
        let (then, watched) = (now + PROOF, super_packet(3001));
        assert!(takes(&mut trials, then, &watched));
        assert!(takes(&mut trials, then, &super_packet(6001)));
        // Once is the network's fault; it is watched, and comes again.
        assert!(takes(&mut trials, then, &watched));
        assert!(!takes(&mut trials, then, &watched));
        assert!(!takes(&mut trials, then + PROOF, &super_packet(9001)));
    }
}

#[test]
fn what_comes_again_singly_has_the_next_watched() {
    let now = Instant::now();
    for pair in PAIRS {
        let single = (Offload::NONE, segment::tcp(pair.0, pair.1, 3001, ACK, b"again"));
        for lost in [true, false] {
            let mut trials = trials();
            let then = now + PROOF;
            assert!(takes(&mut trials, now, &sent(pair, 1, ACK)));
            assert!(takes(&mut trials, then, &sent(pair, 3001, ACK)));
            for _ in 0..2 {
                assert!(!takes(&mut trials, then, &single));
            }
            assert!(takes(&mut trials, then, &sent(pair, 6001, ACK)));
            let end = then + if lost { Duration::ZERO } else { PROOF };
            assert!(takes(&mut trials, end, &sent(pair, 9001, ACK)));
            assert_eq!(takes(&mut trials, end, &sent(pair, 6001, ACK)), !lost);
        }
    }
}

#[test]
fn where_all_fail_nobody_is_tried() {
    let now = Instant::now();
    let mut trials = trials();
    for number in 0..3 {
        assert!(takes(&mut trials, now, &of(number, sent(PAIRS[0], 1, ACK))));
        assert!(!takes(&mut trials, now, &of(number, sent(PAIRS[0], 1, ACK))));
    }
    assert!(!takes(&mut trials, now, &of(9, sent(PAIRS[0], 1, ACK))));
    // The other family has another firewall.
    assert!(takes(&mut trials, now, &of(9, sent(PAIRS[1], 1, ACK))));
    assert!(takes(&mut trials, now + OFF, &of(9, sent(PAIRS[0], 1, ACK))));
}

#[test]
fn what_the_network_loses_now_and_then_stops_nobody() {
    let now = Instant::now();
    let mut trials = trials();
    for number in 0..200 {
        assert!(takes(&mut trials, now, &of(number, sent(PAIRS[0], 1, ACK))));
        let lost = number % 10 == 9;
        assert_eq!(
            takes(&mut trials, now, &of(number, sent(PAIRS[0], if lost { 1 } else { 2 }, ACK))),
            !lost
        );
    }
}
