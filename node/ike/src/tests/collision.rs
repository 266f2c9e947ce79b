//! Requests that cross (RFC 7296 §2.8.1, §2.25).

use super::*;

/// What one side wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wish {
    RekeyChild,
    RekeyIke,
    CloseChild,
    CreateChild,
    Probe,
    Close,
}

const WISHES: [Wish; 6] = [
    Wish::RekeyChild,
    Wish::RekeyIke,
    Wish::CloseChild,
    Wish::CreateChild,
    Wish::Probe,
    Wish::Close,
];

fn wish(net: &mut Net, which: usize, id: IkeId, wish: Wish) {
    let now = net.now;
    let child = net.nodes[which].children.keys().next().copied();
    let ike = &mut net.nodes[which].ike;
    match (wish, child) {
        (Wish::RekeyChild, Some(child)) => ike.rekey_child(now, child),
        (Wish::CloseChild, Some(child)) => ike.close_child(now, child),
        (Wish::RekeyIke, _) => ike.rekey_ike(now, id),
        (Wish::CreateChild, _) => {
            ike.create_child(now, id, Net::call(which, 1 - which).child);
        }
        (Wish::Probe, _) => ike.probe(now, id),
        (Wish::Close, _) => ike.close(now, id),
        _ => {}
    }
}

/// Delivers what is on the wire in an order that `order` picks, dropping what `lose` says.
fn shuffle(net: &mut Net, mut order: u64, lose: bool, time: Duration) {
    let until = net.now + time;
    let mut next = move || {
        order ^= order << 13;
        order ^= order >> 7;
        order ^= order << 17;
        order
    };
    loop {
        net.collect();
        while !net.wire.is_empty() {
            let at = usize::try_from(next()).unwrap() % net.wire.len();
            let packet = net.wire.remove(at).unwrap();
            if lose && next() % 8 == 0 {
                continue;
            }
            net.deliver(&packet);
            if next() % 16 == 0 {
                net.deliver(&packet);
            }
        }
        if !net.tick(until) {
            return;
        }
    }
}

/// IKED 7bd8441.
#[test]
fn both_rekey_the_same_child() {
    for seed in 1..80 {
        let (mut net, a, b) = Net::established_with(seed % 2 == 0);
        wish(&mut net, 0, a, Wish::RekeyChild);
        wish(&mut net, 1, b, Wish::RekeyChild);
        shuffle(&mut net, seed, false, Duration::from_secs(100));
        net.assert_children_fit();
        assert_eq!(net.nodes[0].children.len(), 1, "seed {seed}");
        assert_ne!(net.nodes[0].child().id, SaId(1));
    }
}

/// IKED 7bd8441.
#[test]
fn both_rekey_the_ike_sa() {
    for seed in 1..80 {
        let (mut net, a, b) = Net::established_with(seed % 2 == 0);
        wish(&mut net, 0, a, Wish::RekeyIke);
        wish(&mut net, 1, b, Wish::RekeyIke);
        shuffle(&mut net, seed, false, Duration::from_secs(100));
        net.assert_children_fit();
        // They still agree on which one it is.
        for (node, id) in [(0, a), (1, b)] {
            wish(&mut net, node, id, Wish::Probe);
            net.settle();
            wish(&mut net, node, id, Wish::RekeyChild);
            net.settle();
        }
        net.run(Duration::from_secs(200));
        net.assert_children_fit();
        assert!(net.nodes.iter().all(|n| n.ended().is_empty()), "seed {seed}");
        assert_eq!(net.nodes[0].children.len(), 1);
    }
}

#[test]
fn whatever_crosses_both_sides_agree_in_the_end() {
    for (x, first) in (0u64..).zip(WISHES) {
        for (y, second) in (0u64..).zip(WISHES) {
            for seed in 1..12 {
                for lose in [false, true] {
                    let (mut net, a, b) = Net::established_with(seed % 2 == 0);
                    wish(&mut net, 0, a, first);
                    wish(&mut net, 1, b, second);
                    let seed = seed * 1000 + x * 100 + y * 10 + 1;
                    shuffle(&mut net, seed, lose, Duration::from_secs(300));
                    let text = format!("{first:?} x {second:?}, seed {seed}, loss {lose}");
                    let gone = net.nodes.iter().filter(|n| n.ike.is_empty()).count();
                    if first == Wish::Close || second == Wish::Close {
                        assert_eq!(gone, 2, "{text}");
                    } else {
                        assert_eq!(
                            gone,
                            0,
                            "{text} {:?} {:?}",
                            net.nodes[0].ended(),
                            net.nodes[1].ended()
                        );
                    }
                    net.assert_children_fit();
                    for node in &net.nodes {
                        // Nothing is reserved but what is in use.
                        let used = (node.ike.len(), node.children.len());
                        assert_eq!(node.ike.reserved(), used, "{text}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_long_life_of_crossing_wishes_on_a_bad_link() {
    for seed in 1..100_u64 {
        let (mut net, a, b) = Net::established_with(seed % 2 == 0);
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for _ in 0..40 {
            let which = usize::try_from(next() % 2).unwrap();
            let what = WISHES[usize::try_from(next() % 5).unwrap()];
            wish(&mut net, which, if which == 0 { a } else { b }, what);
            // A wish of the other side while this one is under way.
            if next() % 2 == 0 {
                let what = WISHES[usize::try_from(next() % 5).unwrap()];
                wish(&mut net, 1 - which, if which == 0 { b } else { a }, what);
            }
            let time = Duration::from_millis(next() % 3000);
            shuffle(&mut net, next() | 1, next() % 4 == 0, time);
        }
        net.run(Duration::from_secs(300));
        for (node, id) in [(0, a), (1, b)] {
            wish(&mut net, node, id, Wish::Probe);
        }
        net.run(Duration::from_secs(60));
        let gone = net.nodes.iter().filter(|n| n.ike.is_empty()).count();
        assert!(gone != 1, "seed {seed}: {:?} {:?}", net.nodes[0].ended(), net.nodes[1].ended());
        net.assert_children_fit();
        // All that was ever reserved is free again, or in use.
        for node in &net.nodes {
            let (ike_spis, esp_spis) = node.ike.reserved();
            assert_eq!(ike_spis, node.ike.len(), "seed {seed}");
            assert_eq!(esp_spis, node.children.len(), "seed {seed}");
        }
    }
}

#[test]
fn a_child_waits_while_the_ike_sa_is_replaced() {
    for (first, second) in
        [(Wish::RekeyIke, Wish::CreateChild), (Wish::CreateChild, Wish::RekeyIke)]
    {
        let (mut net, a, b) = Net::established();
        wish(&mut net, 0, a, first);
        wish(&mut net, 1, b, second);
        net.collect();
        // Both have asked before they hear each other.
        let asked = |net: &Net| {
            let of_b = |p: &&Packet| p.from.ip() == addr(1) && p.octets[18..20] == [36, 0];
            let of_b_later = |p: &&Packet| p.from.ip() == addr(1) && p.octets[18..20] == [36, 8];
            net.seen.iter().filter(of_b).count() + net.seen.iter().filter(of_b_later).count()
        };
        net.settle();
        assert_eq!(asked(&net), 1);
        net.run(Duration::from_secs(10));
        // TEMPORARY_FAILURE (RFC 7296 §2.25.2), and once more.
        assert_eq!(asked(&net), 2, "{second:?}");
        net.assert_children_fit();
        assert_eq!(net.nodes[0].children.len(), 2);
        for (node, id) in [(0, a), (1, b)] {
            wish(&mut net, node, id, Wish::Probe);
        }
        net.run(Duration::from_secs(100));
        assert!(net.nodes.iter().all(|n| n.ended().is_empty()));
    }
}
