//! INFORMATIONAL: deletions from either side, liveness, addresses.

use super::*;
use crate::exchange::create_child_responder::MAX_CHILDREN;

/// Rule 54.
#[test]
fn a_child_is_deleted_as_a_pair_by_either_side() {
    for closing in 0..2 {
        let (mut net, ..) = Net::established();
        let now = net.now;
        let child = net.nodes[closing].child().id;
        net.nodes[closing].ike.close_child(now, child);
        net.settle();
        assert!(net.nodes.iter().all(|n| n.children.is_empty() && n.ike.len() == 1));
        assert_eq!(
            net.nodes[closing].events.last(),
            Some(&Event::ChildDown { sa: child, why: End::Closed })
        );
        assert!(matches!(
            net.nodes[1 - closing].events.last(),
            Some(Event::ChildDown { why: End::DeletedByPeer, .. })
        ));
    }
}

/// Rule 54.
#[test]
fn both_sides_delete_the_same_child_at_once() {
    let (mut net, ..) = Net::established();
    let now = net.now;
    for node in &mut net.nodes {
        let child = node.child().id;
        node.ike.close_child(now, child);
    }
    net.settle();
    assert!(net.nodes.iter().all(|n| n.children.is_empty() && n.ike.len() == 1));
}

#[test]
fn both_sides_delete_the_ike_sa_at_once() {
    let (mut net, a, b) = Net::established();
    let now = net.now;
    net.nodes[0].ike.close(now, a);
    net.nodes[1].ike.close(now, b);
    net.settle();
    assert!(net.nodes.iter().all(|n| n.children.is_empty() && n.ike.is_empty()));
    assert!(net.nodes.iter().all(|n| n.ended().len() == 1));
}

#[test]
fn a_node_that_goes_says_so() {
    let (mut net, ..) = Net::established();
    let now = net.now;
    net.nodes[0].ike.shutdown(now);
    net.settle();
    assert_eq!(net.nodes[0].ended(), [End::Closed]);
    assert_eq!(net.nodes[1].ended(), [End::DeletedByPeer]);
    assert!(net.nodes.iter().all(|n| n.ike.is_empty()));
}

/// P13: whatever we have asked for when an SA ends, no SPI stays taken for it.
#[test]
fn what_was_under_way_is_free_again() {
    for post_quantum in [false, true] {
        for rekeys in [false, true] {
            for deletes in [false, true] {
                let (mut net, a, b) = Net::established_with(post_quantum);
                let (now, child) = (net.now, net.nodes[0].child().id);
                if rekeys {
                    net.nodes[0].ike.rekey_child(now, child);
                } else {
                    net.nodes[0].ike.create_child(now, a, Net::call(0, 1).child);
                }
                net.collect();
                // CREATE_CHILD_SA, or IKE_FOLLOWUP_KE if there is one, is the last that is heard of.
                while post_quantum && net.wire[0].octets[18] != 44 {
                    let packet = net.wire.pop_front().unwrap();
                    net.deliver(&packet);
                }
                net.wire.clear();
                assert_eq!(net.nodes[0].ike.reserved(), (1, 2));
                let case = (post_quantum, rekeys, deletes);
                if deletes {
                    net.nodes[1].ike.close(now, b);
                    net.settle();
                    assert_eq!(net.nodes[0].ended(), [End::DeletedByPeer], "{case:?}");
                } else {
                    net.nodes[1].addr = "203.0.113.1".parse().unwrap();
                    net.run(Duration::from_secs(120));
                    assert_eq!(net.nodes[0].ended(), [End::Timeout], "{case:?}");
                }
                assert_eq!(net.nodes[0].ike.reserved(), (0, 0), "{case:?}");
            }
        }
    }
}

/// Its peer came back and says that there is nothing but what it has made since. Of what we were
/// about to make it may know nevertheless: that is taken back.
#[test]
fn a_call_that_is_abandoned_leaves_nothing() {
    let mut net = Net::pair();
    let a = net.initiate(0, 1);
    for _ in 0..2 {
        let packet = net.wire.pop_front().unwrap();
        net.deliver(&packet);
    }
    assert_eq!(net.nodes[0].ike.reserved(), (1, 1));
    let now = net.now;
    net.nodes[0].ike.abandon(now, a);
    net.settle();
    assert_eq!(net.nodes[0].ended(), [End::InitialContact]);
    assert_eq!(net.nodes[1].ended(), [End::DeletedByPeer]);
    assert!(net.nodes.iter().all(|n| n.ike.reserved() == (0, 0) && n.ike.is_empty()));
}

#[test]
fn liveness_is_answered_both_ways() {
    let (mut net, a, b) = Net::established();
    let now = net.now;
    net.nodes[0].ike.probe(now, a);
    net.nodes[1].ike.probe(now, b);
    net.settle();
    assert_eq!(net.seen.len(), 8);
    net.run(Duration::from_secs(100));
    assert_eq!(net.seen.len(), 8);
}

/// Rule 54.
#[test]
fn unknown_handles_are_ignored() {
    let (mut net, ..) = Net::established();
    let now = net.now;
    let nobody = IkeId(999);
    let none = SaId(999);
    let ike = &mut net.nodes[0].ike;
    ike.close(now, nobody);
    ike.close_child(now, none);
    ike.rekey_child(now, none);
    ike.rekey_ike(now, nobody);
    ike.probe(now, nobody);
    ike.create_child(now, nobody, Net::call(0, 1).child);
    ike.handle_peer(now, nobody, PeerVerdict::Unknown);
    ike.handle_signature(now, nobody, None);
    ike.handle_moved(now, none, "192.0.2.7:4500".parse().unwrap());
    assert_eq!(ike.poll_output(), None);
}

#[test]
fn a_second_child_is_made_by_either_side() {
    for asking in 0..2 {
        let (mut net, a, b) = Net::established();
        let now = net.now;
        let id = if asking == 0 { a } else { b };
        net.nodes[asking].ike.create_child(now, id, Net::call(asking, 1 - asking).child);
        net.settle();
        net.assert_children_fit();
        assert_eq!(net.nodes[0].children.len(), 2);
    }
}

#[test]
fn a_peer_may_not_ask_for_more_than_it_was_granted() {
    let (mut net, a, b) = Net::established();
    let now = net.now;
    let stolen = TrafficSelector::host("10.99.0.1".parse().unwrap());
    for (node, id) in [(0, a), (1, b)] {
        let mut request = Net::call(node, 1 - node).child;
        request.local = vec![stolen];
        net.nodes[node].ike.create_child(now, id, request);
        net.settle();
        assert_eq!(net.nodes[node].child_failed(), [End::Refused { notify: 38, authentic: true }]);
    }
    assert_eq!(net.nodes[0].children.len(), 1);
}

/// Attack A28.
#[test]
fn no_more_children_than_allowed() {
    let (mut net, a, _) = Net::established();
    let now = net.now;
    for _ in 0..MAX_CHILDREN {
        net.nodes[0].ike.create_child(now, a, Net::call(0, 1).child);
        net.settle();
    }
    assert_eq!(net.nodes[0].children.len(), MAX_CHILDREN);
    assert_eq!(net.nodes[0].child_failed(), [End::Refused { notify: 35, authentic: true }]);
    // Replacing one is not having one more.
    let child = *net.nodes[0].children.keys().next().unwrap();
    net.nodes[0].ike.rekey_child(now, child);
    net.settle();
    assert_eq!(net.nodes[0].child_failed().len(), 1);
    assert_eq!(net.nodes[1].children.len(), MAX_CHILDREN);
}

/// A NAT in front of node 0, which maps its ports.
struct Mapped {
    outside: IpAddr,
    shift: u16,
}

impl Mapped {
    fn settle(&self, net: &mut Net) {
        net.collect();
        while let Some(mut packet) = net.wire.pop_front() {
            if packet.from.ip() == addr(0) {
                packet.from = SocketAddr::new(self.outside, packet.from.port() + self.shift);
            } else if packet.to.ip() == self.outside {
                let port = packet.to.port().wrapping_sub(self.shift);
                if port != 500 && port != 4500 {
                    continue;
                }
                packet.to = SocketAddr::new(addr(0), port);
            }
            net.deliver(&packet);
        }
    }
}

#[test]
fn behind_a_nat_everything_goes_to_4500_and_follows_a_rebinding() {
    for mobike in [Mobike::Off, Mobike::On] {
        follows_a_rebinding(mobike);
    }
}

fn follows_a_rebinding(mobike: Mobike) {
    let mut nat = Mapped { outside: "198.51.100.1".parse().unwrap(), shift: 20_000 };
    let mut net = Net::with(|c| c.mobike = mobike);
    let a = net.initiate(0, 1);
    nat.settle(&mut net);
    let envelope = net.nodes[1].child().envelope;
    assert!(envelope.udp && net.nodes[0].child().envelope.udp);
    assert_eq!(envelope.remote, "198.51.100.1:24500".parse().unwrap());
    assert!(net.nodes[1].asked[0].peer_natted);
    // Keepalives, from the side behind the NAT only.
    let seen = net.seen.len();
    let until = net.now + Duration::from_secs(61);
    while net.tick(until) {
        nat.settle(&mut net);
    }
    let keepalives = &net.seen[seen..];
    assert_eq!(keepalives.len(), 3);
    assert!(keepalives.iter().all(|p| p.octets == [0xff] && p.from.ip() == addr(0)));
    if mobike == Mobike::On {
        // How the mapping was; without MOBIKE that is nobody's concern.
        let now = net.now;
        net.nodes[0].ike.probe(now, a);
        nat.settle(&mut net);
    }
    // The mapping changes; the next authenticated request tells, or brings an answer that does.
    nat.shift = 30_000;
    let now = net.now;
    net.nodes[0].ike.probe(now, a);
    nat.settle(&mut net);
    let moved = net.nodes[1].events.last();
    assert!(matches!(moved, Some(Event::Moved { envelope, children, .. })
        if envelope.remote == "198.51.100.1:34500".parse().unwrap() && children.len() == 1));
    // And ESP can tell as well.
    let child = net.nodes[1].child().id;
    let now = net.now;
    net.nodes[1].ike.handle_moved(now, child, "198.51.100.1:44500".parse().unwrap());
    net.collect();
    assert!(matches!(net.nodes[1].events.last(), Some(Event::Moved { envelope, .. })
        if envelope.remote == "198.51.100.1:44500".parse().unwrap()));
}

/// P12: who is on the way can be faster than the peer with the peer's own ESP packet. That moves
/// nothing to another address; a peer that is there says so under its IKE SA.
#[test]
fn esp_from_another_address_is_a_hint_and_no_more() {
    for mobike in [Mobike::Off, Mobike::On] {
        let mut nat = Mapped { outside: "198.51.100.1".parse().unwrap(), shift: 20_000 };
        let mut net = Net::with(|c| c.mobike = mobike);
        let a = net.initiate(0, 1);
        nat.settle(&mut net);
        let b = net.nodes[1].established()[0];
        net.nodes[1].ike.allow_moves(b, true);
        let now = net.now;
        // How the mapping was.
        net.nodes[0].ike.probe(now, a);
        nat.settle(&mut net);
        let (child, mark) = (net.nodes[1].child().id, net.seen.len());
        net.nodes[1].ike.handle_moved(now, child, "203.0.113.66:24500".parse().unwrap());
        nat.settle(&mut net);
        // It was asked where it is known to be, and is there.
        assert_eq!(net.seen[mark].to, "198.51.100.1:24500".parse().unwrap());
        assert!(matches!(net.nodes[1].events.last(), Some(Event::Alive { .. })));
        let moved = |net: &Net| {
            let mut all = net.nodes[1].events.iter().rev();
            all.find_map(|event| match event {
                Event::Moved { envelope, .. } => Some(envelope.remote),
                _ => None,
            })
        };
        assert_eq!(moved(&net), None, "{mobike:?}");
        // The NAT has another address: nothing reaches the old one.
        nat.outside = "198.51.100.2".parse().unwrap();
        net.nodes[1].ike.handle_moved(now, child, "198.51.100.2:24500".parse().unwrap());
        net.collect();
        net.wire.clear();
        net.now += Duration::from_secs(5);
        let now = net.now;
        net.nodes[0].ike.probe(now, a);
        nat.settle(&mut net);
        assert_eq!(moved(&net), Some("198.51.100.2:24500".parse().unwrap()), "{mobike:?}");
        // The question that went nowhere was asked again, and ends nothing.
        let until = net.now + Duration::from_secs(30);
        while net.tick(until) {
            nat.settle(&mut net);
        }
        assert!(net.nodes.iter().all(|node| node.ended().is_empty()), "{mobike:?}");
    }
}

/// IKED baf0c8e.
#[test]
fn without_a_nat_nobody_moves() {
    let (mut net, a, _) = Net::established();
    let now = net.now;
    let child = net.nodes[1].child().id;
    net.nodes[1].ike.handle_moved(now, child, "198.51.100.1:44500".parse().unwrap());
    net.nodes[0].ike.probe(now, a);
    net.collect();
    let mut packet = net.wire.pop_front().unwrap();
    packet.from = "198.51.100.1:500".parse().unwrap();
    net.deliver(&packet);
    assert!(net.nodes[1].events.iter().all(|e| !matches!(e, Event::Moved { .. })));
}

/// Who goes while the IKE SA is being replaced says so under whatever the peer goes on with: a
/// successor of the peer's making, of two that crossed, or the old one, if our answer was lost.
#[test]
fn who_goes_during_a_rekey_is_heard() {
    for crossed in [false, true] {
        let (mut net, a, b) = Net::established();
        let now = net.now;
        if crossed {
            net.nodes[0].ike.rekey_ike(now, a);
            net.collect();
            net.wire.clear();
        }
        net.nodes[1].ike.rekey_ike(now, b);
        net.collect();
        let rekey = net.wire.pop_front().unwrap();
        net.deliver(&rekey);
        let answer = net.wire.pop_front().unwrap();
        if crossed {
            net.deliver(&answer);
            // It has moved on, and deletes the old one.
            net.wire.clear();
        }
        net.nodes[0].ike.shutdown(now);
        net.settle();
        assert_eq!(net.nodes[0].ended(), [End::Closed], "{crossed}");
        assert_eq!(net.nodes[1].ended(), [End::DeletedByPeer], "{crossed}");
        assert!(net.nodes[1].ike.is_empty());
    }
}

/// The same, when it had asked something under the old one that did not arrive: the peer takes
/// requests in their order.
#[test]
fn who_goes_says_first_what_it_had_asked() {
    let (mut net, a, b) = Net::established();
    let (now, there) = (net.now, net.nodes[1].addr);
    net.nodes[1].ike.rekey_ike(now, b);
    net.collect();
    let rekey = net.wire.pop_front().unwrap();
    net.deliver(&rekey);
    net.nodes[1].addr = "203.0.113.1".parse().unwrap();
    net.nodes[0].ike.probe(now, a);
    net.run(Duration::from_millis(3200));
    net.nodes[1].addr = there;
    let now = net.now;
    net.nodes[0].ike.shutdown(now);
    net.settle();
    assert_eq!(net.nodes[0].ended(), [End::Closed]);
    assert_eq!(net.nodes[1].ended(), [End::DeletedByPeer]);
    assert!(net.nodes[1].ike.is_empty());
}
