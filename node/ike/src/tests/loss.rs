//! Messages that are lost, repeated, late.

use super::*;

fn assert_nothing_is_left(net: &Net) {
    assert!(net.nodes.iter().all(|n| n.ike.reserved() == (0, 0)));
}

#[test]
fn a_loss_at_any_place_is_made_good() {
    for first in 0..6 {
        for second in first..6 {
            let mut net = Net::pair();
            net.initiate(0, 1);
            net.run_losing(&[first, second], Duration::from_secs(20));
            net.assert_children_fit();
            assert_eq!(net.nodes[0].children.len(), 1, "{first} {second}");
            assert_eq!(net.nodes[1].children.len(), 1);
        }
    }
}

#[test]
fn a_loss_in_a_rekey_or_delete_is_made_good() {
    for lost in 0..6 {
        let (mut net, a, _) = Net::established();
        let child = net.nodes[0].child().id;
        let now = net.now;
        net.nodes[0].ike.rekey_child(now, child);
        net.nodes[0].ike.rekey_ike(now, a);
        net.collect();
        net.run_losing(&[4 + lost], Duration::from_secs(20));
        net.assert_children_fit();
        assert_ne!(net.nodes[0].child().id, child);
        let now = net.now;
        let b = net.nodes[1].established()[0];
        net.nodes[1].ike.probe(now, b);
        net.settle();
        net.nodes[0].ike.close(now, a);
        net.collect();
        let at = net.seen.len();
        net.run_losing(&[at - 1 + lost % 2], Duration::from_secs(90));
        assert!(net.nodes.iter().all(|n| n.ike.is_empty()), "{lost}");
        assert_eq!(net.nodes[0].ended(), [End::Closed]);
        assert_eq!(net.nodes[1].ended(), [End::DeletedByPeer]);
        assert_nothing_is_left(&net);
    }
}

#[test]
fn the_answer_to_a_last_request_is_given_again() {
    // To the Delete of an IKE SA, and to an IKE_AUTH that was refused.
    let (mut net, a, _) = Net::established();
    let now = net.now;
    net.nodes[0].ike.close(now, a);
    net.collect();
    net.run_losing(&[5], Duration::from_secs(1));
    assert_eq!(net.nodes[0].ended(), [End::Closed]);

    let mut net = Net::pair();
    net.nodes[1].verdicts.clear();
    net.initiate(0, 1);
    net.run_losing(&[3], Duration::from_secs(1));
    assert_eq!(net.nodes[0].ended(), [End::Refused { notify: 24, authentic: false }]);
    // Not for ever.
    net.run(Duration::from_secs(31));
    assert!(net.nodes.iter().all(|n| n.ike.poll_timeout().is_none()));
}

#[test]
fn every_message_twice_is_as_good_as_once() {
    let mut net = Net::pair();
    let a = net.initiate(0, 1);
    let twice = |net: &mut Net| {
        net.collect();
        while let Some(packet) = net.wire.pop_front() {
            net.deliver(&packet);
            net.deliver(&packet);
            assert!(net.seen.len() < 200);
        }
    };
    twice(&mut net);
    net.assert_children_fit();
    assert_eq!(net.nodes[0].children.len(), 1);
    assert_eq!(net.nodes[1].asked.len(), 1);
    let now = net.now;
    let child = net.nodes[0].child().id;
    net.nodes[0].ike.rekey_child(now, child);
    twice(&mut net);
    net.assert_children_fit();
    net.nodes[0].ike.rekey_ike(now, a);
    twice(&mut net);
    net.nodes[0].ike.close(now, a);
    twice(&mut net);
    assert!(net.nodes.iter().all(|n| n.ike.is_empty() && n.ended().len() == 1));
    assert_nothing_is_left(&net);
}

#[test]
fn old_messages_played_back_change_nothing() {
    let (mut net, a, _) = Net::established();
    let now = net.now;
    let child = net.nodes[0].child().id;
    net.nodes[0].ike.rekey_child(now, child);
    net.settle();
    let b = net.nodes[1].established()[0];
    net.nodes[1].ike.probe(now, b);
    net.settle();
    let before: Vec<_> = net.nodes.iter().map(|n| n.events.len()).collect();
    for packet in net.seen.clone() {
        // From elsewhere, too: nothing follows it there.
        let elsewhere = Packet { from: "198.51.100.9:4500".parse().unwrap(), ..packet.clone() };
        net.deliver(&packet);
        net.deliver(&elsewhere);
        net.wire.clear();
    }
    for (node, before) in net.nodes.iter().zip(before) {
        assert_eq!(node.events[before..], []);
    }
    net.nodes[0].ike.close(now, a);
    // An old IKE_SA_INIT is half-open for a while.
    net.run(Duration::from_secs(31));
    assert_eq!(net.nodes[1].ended(), [End::DeletedByPeer]);
    assert_nothing_is_left(&net);
}

#[test]
fn a_silent_peer_is_given_up() {
    let mut net = Net::pair();
    net.nodes[1].addr = "203.0.113.1".parse().unwrap();
    net.initiate(0, 1);
    net.run(Duration::from_secs(120));
    assert_eq!(net.nodes[0].ended(), [End::Timeout]);
    assert_eq!(net.seen.len(), 6);
    assert!(net.nodes[0].ike.poll_timeout().is_none());
    // The intervals double.
    assert!(net.nodes[0].ike.is_empty());
    assert_nothing_is_left(&net);
}

#[test]
fn a_half_open_sa_is_forgotten() {
    let mut net = Net::pair();
    net.initiate(0, 1);
    let packet = net.wire.pop_front().unwrap();
    net.deliver(&packet);
    net.nodes[0].addr = "203.0.113.1".parse().unwrap();
    assert_eq!(net.nodes[1].ike.half_open(), 1);
    net.run(Duration::from_secs(31));
    assert_eq!(net.nodes[1].ike.half_open(), 0);
    assert!(net.nodes[1].ike.is_empty() && net.nodes[1].events.is_empty());
}

#[test]
fn a_peer_that_dies_is_noticed_by_a_probe() {
    let (mut net, _, b) = Net::established();
    net.nodes[0].addr = "203.0.113.1".parse().unwrap();
    let now = net.now;
    net.nodes[1].ike.probe(now, b);
    net.run(Duration::from_secs(120));
    assert_eq!(net.nodes[1].ended(), [End::Timeout]);
    assert!(net.nodes[1].children.is_empty());
    assert_eq!(net.nodes[1].ike.reserved(), (0, 0));
}

fn said(node: &Node, which: impl Fn(&Event) -> bool) -> usize {
    node.events.iter().filter(|event| which(event)).count()
}

/// RFC 7296 §2.4: whatever we were asking for when the way was lost is asked for until it is there
/// again, and nothing ends.
#[test]
fn an_outage_ends_nothing() {
    type Begin = fn(&mut Ike, Instant, IkeId, SaId);
    let begin: [Begin; 5] = [
        |ike, now, a, _| ike.probe(now, a),
        |ike, now, _, child| ike.rekey_child(now, child),
        |ike, now, a, _| ike.rekey_ike(now, a),
        |ike, now, _, child| ike.close_child(now, child),
        |ike, now, a, _| ike.relocate(now, a, "192.0.2.77".parse().unwrap()),
    ];
    for (which, begin) in begin.into_iter().enumerate() {
        // Longer than a call may take, which is half a minute here.
        let (mut net, a, b) = Net::established();
        net.nodes[1].ike.allow_moves(b, true);
        let (now, child, there) = (net.now, net.nodes[0].child().id, net.nodes[1].addr);
        net.nodes[1].addr = "203.0.113.1".parse().unwrap();
        begin(&mut net.nodes[0].ike, now, a, child);
        if which == 4 {
            net.nodes[0].addr = "192.0.2.77".parse().unwrap();
        }
        net.run(Duration::from_secs(70));
        let unanswered = |net: &Net| said(&net.nodes[0], |e| matches!(e, Event::Unanswered { .. }));
        assert!((2..=4).contains(&unanswered(&net)), "{which}: {}", unanswered(&net));
        net.nodes[1].addr = there;
        net.run(Duration::from_secs(16));
        let in_all = unanswered(&net);
        assert!(net.nodes.iter().all(|n| n.ended().is_empty() && n.ike.len() == 1), "{which}");
        assert!(said(&net.nodes[0], |e| matches!(e, Event::Alive { .. })) > 0, "{which}");
        net.assert_children_fit();
        assert_eq!(net.nodes[0].children.len(), usize::from(which != 3), "{which}");
        assert_eq!(net.nodes[0].children.contains_key(&child), ![1, 3].contains(&which));
        // It is over: nothing is said of it any more.
        net.run(Duration::from_secs(100));
        assert!(net.nodes.iter().all(|n| n.ended().is_empty()), "{which}");
        assert_eq!(unanswered(&net), in_all, "{which}");
    }
}

/// The answer that replaces the IKE SA is lost, and then the way, for longer than something replaced
/// is kept as a rule: who asked finds the other end as it was, whether that has tried to speak under
/// the successor or not.
#[test]
fn an_outage_in_a_rekey_ends_nothing() {
    for asks in [false, true] {
        let mut net = Net::with(|config| {
            config.patience = Duration::from_secs(180);
            config.token_secret = Some([7_u8; 32].into());
        });
        let a = net.initiate(0, 1);
        net.settle();
        let b = net.nodes[1].established()[0];
        let (now, child) = (net.now, net.nodes[0].child().id);
        net.nodes[0].ike.rekey_ike(now, a);
        net.collect();
        let request = net.wire.pop_front().unwrap();
        net.deliver(&request);
        net.nodes[0].addr = "203.0.113.1".parse().unwrap();
        net.nodes[1].addr = "203.0.113.2".parse().unwrap();
        if asks {
            net.nodes[1].ike.probe(now, b);
        }
        net.run(Duration::from_secs(90));
        (net.nodes[0].addr, net.nodes[1].addr) = (addr(0), addr(1));
        net.run(Duration::from_secs(20));
        assert!(net.nodes.iter().all(|n| n.ended().is_empty() && n.ike.len() == 1), "{asks}");
        let alive = |e: &Event| matches!(e, Event::Alive { .. });
        assert!(said(&net.nodes[0], alive) > 0, "{asks}");
        assert_eq!(said(&net.nodes[1], alive) > 0, asks);
        // Both speak under the successor, and nothing is left of the old one that ends it later.
        let now = net.now;
        net.nodes[0].ike.probe(now, a);
        net.nodes[1].ike.probe(now, b);
        net.run(Duration::from_secs(300));
        assert!(net.nodes.iter().all(|n| n.ended().is_empty() && n.ike.len() == 1), "{asks}");
        net.assert_children_fit();
        assert_eq!(net.nodes[0].child().id, child);
        let spi = |packet: &Packet| u64::from_be_bytes(packet.octets[..8].try_into().unwrap());
        assert_ne!(net.seen.last().map(spi), Some(spi(&request)), "{asks}");
    }
}

/// Our rekey is not answered, and is moot when the peer's own succeeds: that it lives is heard all the
/// same, from the successor.
#[test]
fn a_peer_that_replaces_what_it_does_not_answer_is_alive() {
    let (mut net, a, b) = Net::established();
    let (now, there) = (net.now, net.nodes[1].addr);
    net.nodes[1].addr = "203.0.113.1".parse().unwrap();
    net.nodes[0].ike.rekey_ike(now, a);
    net.run(Duration::from_secs(33));
    assert!(said(&net.nodes[0], |e| matches!(e, Event::Unanswered { .. })) > 0);
    net.nodes[1].addr = there;
    let now = net.now;
    net.nodes[1].ike.rekey_ike(now, b);
    net.collect();
    while let Some(packet) = net.wire.pop_front() {
        // Ours is lost again: CREATE_CHILD_SA, and no response.
        let ours = packet.octets[18] == 36 && packet.octets[19] & 0x20 == 0;
        if packet.from.ip() != addr(0) || !ours {
            net.deliver(&packet);
        }
    }
    assert!(said(&net.nodes[0], |e| matches!(e, Event::Alive { .. })) > 0);
    net.run(Duration::from_secs(300));
    assert!(net.nodes.iter().all(|n| n.ended().is_empty() && n.ike.len() == 1));
}

/// More than a dozen times over several minutes (RFC 7296 §2.4), and never long after the last.
#[test]
fn what_nodes_do_by_default_is_what_the_rfc_wants() {
    let default = Config::new(public(key_pair(0)));
    let mut net = Net::with(|config| {
        config.retransmit_tries = default.retransmit_tries;
        config.patience = default.patience;
    });
    let a = net.initiate(0, 1);
    net.settle();
    net.nodes[1].addr = "203.0.113.1".parse().unwrap();
    let (now, before) = (net.now, net.seen.len());
    net.nodes[0].ike.probe(now, a);
    net.run(Duration::from_secs(170));
    assert_eq!(net.nodes[0].ended(), []);
    assert!(net.seen.len() - before > 12, "{}", net.seen.len() - before);
    net.run(Duration::from_secs(30));
    assert_eq!(net.nodes[0].ended(), [End::Timeout]);
}

/// Who leaves does not wait for an answer for as long: neither to its Delete, nor to what it had asked
/// before.
#[test]
fn who_leaves_a_silent_peer_is_soon_gone() {
    for asked in [None, Some(0), Some(50)] {
        let (mut net, a, _) = Net::established();
        net.nodes[1].addr = "203.0.113.1".parse().unwrap();
        if let Some(before) = asked {
            let now = net.now;
            net.nodes[0].ike.probe(now, a);
            net.run(Duration::from_secs(before));
        }
        let now = net.now;
        net.nodes[0].ike.close(now, a);
        net.run(Duration::from_secs(32));
        assert_eq!(net.nodes[0].ended(), [End::Closed], "{asked:?}");
    }
}

/// Who asks us has a way to us, and most likely we have one to it.
#[test]
fn a_peer_that_asks_is_asked_at_once() {
    let (mut net, a, b) = Net::established();
    let (now, there) = (net.now, net.nodes[1].addr);
    net.nodes[1].addr = "203.0.113.1".parse().unwrap();
    net.nodes[0].ike.probe(now, a);
    net.run(Duration::from_secs(33));
    net.nodes[1].addr = there;
    let (now, alive) = (net.now, |e: &Event| matches!(e, Event::Alive { .. }));
    assert_eq!(said(&net.nodes[0], alive), 0);
    net.nodes[1].ike.probe(now, b);
    net.run(Duration::from_millis(1));
    assert!(said(&net.nodes[0], alive) > 0);
}
