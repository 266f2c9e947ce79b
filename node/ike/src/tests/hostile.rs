//! What strangers send, and what peers should not.

use super::*;

/// CVE-2019-10155.
#[test]
fn every_octet_of_every_sealed_message_counts() {
    let (mut net, a, _) = Net::established();
    let now = net.now;
    let child = net.nodes[0].child().id;
    net.nodes[0].ike.rekey_child(now, child);
    net.settle();
    net.nodes[0].ike.rekey_ike(now, a);
    net.settle();
    let _ = a;
    let sealed: Vec<_> = net.seen.iter().filter(|p| p.octets[18] != 34).cloned().collect();
    assert!(sealed.len() >= 8);
    let packets = sealed.len();
    for at in 0..packets {
        // A world in which this packet arrives broken first, and then whole.
        let (mut net, a, _) = Net::established_to(at, child);
        let Some(packet) = net.wire.pop_front() else { continue };
        let before: Vec<_> = net.nodes.iter().map(|n| n.events.len()).collect();
        for octet in 0..packet.octets.len() {
            let mut broken = packet.clone();
            broken.octets[octet] ^= 0x40;
            net.deliver(&broken);
            assert!(net.wire.is_empty(), "packet {at}, octet {octet} was answered");
        }
        for (node, before) in net.nodes.iter().zip(before) {
            assert_eq!(node.events[before..], []);
        }
        net.deliver(&packet);
        net.settle();
        net.assert_children_fit();
        let now = net.now;
        net.nodes[0].ike.close(now, a);
        net.settle();
        assert!(net.nodes.iter().all(|n| n.ike.is_empty()));
    }
}

impl Net {
    /// The story of [`every_octet_of_every_sealed_message_counts`], stopped before its sealed
    /// packet `at`.
    fn established_to(at: usize, _child: SaId) -> (Self, IkeId, ()) {
        let mut net = Self::pair();
        let a = net.initiate(0, 1);
        let mut sealed = 0;
        let mut step = 0;
        loop {
            net.collect();
            match net.wire.front() {
                Some(packet) => {
                    if packet.octets[18] != 34 {
                        if sealed == at {
                            return (net, a, ());
                        }
                        sealed += 1;
                    }
                    let packet = net.wire.pop_front().unwrap();
                    net.deliver(&packet);
                }
                None if step == 0 => {
                    let (now, child) = (net.now, net.nodes[0].child().id);
                    net.nodes[0].ike.rekey_child(now, child);
                    step = 1;
                }
                None if step == 1 => {
                    let now = net.now;
                    net.nodes[0].ike.rekey_ike(now, a);
                    step = 2;
                }
                None => return (net, a, ()),
            }
        }
    }
}

/// CVE-2020-1763.
#[test]
fn noise_is_counted_and_forgotten() {
    let (mut net, ..) = Net::established();
    let before = net.nodes[1].events.len();
    let mut state: u64 = 88_172_645_463_325_252;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let real: Vec<_> = net.seen.clone();
    for round in 0..20_000_usize {
        let mut octets = real[round % real.len()].octets.clone();
        for _ in 0..=random() % 6 {
            let at = usize::try_from(random()).unwrap() % octets.len();
            octets[at] = u8::try_from(random() & 0xff).unwrap();
        }
        if random() % 3 == 0 {
            let len = usize::try_from(random()).unwrap() % octets.len();
            octets.truncate(len);
        }
        if random() % 2 == 0 && octets.len() >= 28 {
            let len = u32::try_from(octets.len()).unwrap();
            octets[24..28].copy_from_slice(&len.to_be_bytes());
        }
        let packet = Packet {
            from: "198.51.100.1:500".parse().unwrap(),
            to: "192.0.2.2:500".parse().unwrap(),
            octets,
        };
        net.deliver(&packet);
        net.wire.clear();
    }
    assert_eq!(net.nodes[1].events[before..], []);
    assert!(net.nodes[1].ike.half_open() <= 64, "{}", net.nodes[1].ike.half_open());
    net.run(Duration::from_secs(120));
    assert_eq!(net.nodes[1].ike.half_open(), 0);
    assert_eq!(net.nodes[1].ike.len(), 1);
}

/// Attack A24.
/// Rule 40.
/// CVE-2022-40617.
#[test]
fn a_flood_leaves_bounded_state_and_lets_others_in() {
    let mut net = Net::with(|c| {
        c.cookie_threshold = 20;
        c.half_open_limit = 50;
    });
    let now = net.now;
    let mut flood = Ike::new(config(2), [7; 32], now);
    for round in 0..500_u16 {
        let [high, low] = round.to_be_bytes();
        let mut call = Net::call(0, 1);
        call.local = IpAddr::from([10, high, low, 1]);
        flood.initiate(now, call);
        while let Some(output) = flood.poll_output() {
            if let Output::Transmit(t) = output {
                net.deliver(&Packet { from: t.local, to: t.remote, octets: t.octets });
            }
        }
    }
    assert!(net.nodes[1].ike.half_open() <= 20);
    // Answers to those who showed no cookie are no longer than what they sent.
    net.wire.clear();
    net.initiate(0, 1);
    net.settle();
    assert_eq!(net.nodes[0].children.len(), 1);
}

/// CVE-2018-5389.
#[test]
fn a_later_major_version_is_told_ours() {
    let mut net = Net::pair();
    net.initiate(0, 1);
    let mut packet = net.wire.pop_front().unwrap();
    packet.octets[17] = 0x30;
    net.deliver(&packet);
    let answer = net.wire.pop_front().unwrap();
    assert_eq!(answer.octets[17], 0x20);
    assert_eq!(answer.octets[19], 0x20);
    assert_eq!(&answer.octets[28..], [0, 0, 0, 8, 0, 0, 0, 5]);
    // A response is never answered, and neither is IKEv1.
    packet.octets[19] = 0x28;
    net.deliver(&packet);
    packet.octets[17] = 0x10;
    packet.octets[19] = 0x08;
    net.deliver(&packet);
    assert!(net.wire.is_empty());
}

#[test]
fn a_peer_that_announces_no_hash_algorithms_fails_clearly() {
    let mut net = Net::pair();
    net.initiate(0, 1);
    let packet = net.wire.pop_front().unwrap();
    net.deliver(&packet);
    let mut answer = net.wire.pop_front().unwrap();
    // SIGNATURE_HASH_ALGORITHMS becomes a private status notify.
    let at = answer.octets.windows(2).position(|w| w == 16431_u16.to_be_bytes()).unwrap();
    answer.octets[at..at + 2].copy_from_slice(&50_000_u16.to_be_bytes());
    net.deliver(&answer);
    let until = net.now + Duration::from_secs(60);
    while net.nodes[0].ended().is_empty() && net.tick(until) {
        net.wire.clear();
    }
    assert_eq!(net.nodes[0].ended(), [End::Misbehaved("no signature hash algorithm in common")]);
}
