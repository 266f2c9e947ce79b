//! CREATE_CHILD_SA: replacements of children and of the IKE SA.

use super::*;
use crate::message::{Notify, NotifyType};

fn ups(node: &Node) -> Vec<&Child> {
    node.events
        .iter()
        .filter_map(|e| if let Event::ChildUp(c) = e { Some(&**c) } else { None })
        .collect()
}

/// Rules 32, 56.
#[test]
fn a_child_is_replaced_before_it_goes() {
    for asking in 0..2 {
        let (mut net, ..) = Net::established();
        let now = net.now;
        let old = [net.nodes[0].child().id, net.nodes[1].child().id];
        net.nodes[asking].ike.rekey_child(now, old[asking]);
        net.settle();
        net.assert_children_fit();
        for (which, node) in net.nodes.iter().enumerate() {
            let new = ups(node)[1];
            assert_eq!(new.rekeys, Some(old[which]));
            assert_eq!(new.initiator, which == asking);
            assert_ne!(new.key_in, ups(node)[0].key_in);
            assert_eq!(node.child().id, new.id);
            let up =
                node.events.iter().position(|e| matches!(e, Event::ChildUp(c) if c.id == new.id));
            let down = node
                .events
                .iter()
                .position(|e| matches!(e, Event::ChildDown { sa, .. } if *sa == old[which]));
            assert!(up < down);
        }
    }
}

#[test]
fn an_ike_sa_is_replaced_and_nobody_notices() {
    for asking in 0..2 {
        let (mut net, a, b) = Net::established();
        let spis = |net: &Net| -> Vec<u64> {
            net.seen
                .last()
                .map(|p| vec![u64::from_be_bytes(p.octets[..8].try_into().unwrap())])
                .unwrap()
        };
        let before = spis(&net);
        let now = net.now;
        let events = net.nodes[0].events.len();
        net.nodes[asking].ike.rekey_ike(now, if asking == 0 { a } else { b });
        net.settle();
        assert_eq!(net.nodes[0].events.len(), events);
        // Both can ask under the new one, the same names hold, and its SPIs are others.
        net.nodes[0].ike.probe(now, a);
        net.nodes[1].ike.probe(now, b);
        net.settle();
        assert_ne!(spis(&net), before);
        let child = net.nodes[0].child().id;
        net.nodes[0].ike.rekey_child(now, child);
        net.settle();
        net.assert_children_fit();
        net.nodes[1].ike.close(now, b);
        net.settle();
        assert_eq!(net.nodes[0].ended(), [End::DeletedByPeer]);
        assert!(net.nodes.iter().all(|n| n.ike.is_empty() && n.children.is_empty()));
    }
}

#[test]
fn lives_end_and_begin_anew_for_days() {
    let (mut net, a, b) = Net::established();
    net.run(Duration::from_secs(48 * 3600));
    net.assert_children_fit();
    assert_eq!(net.nodes[0].children.len(), 1);
    assert!(net.nodes.iter().all(|n| n.ended().is_empty()));
    let count = ups(&net.nodes[0]).len();
    assert!((48..=56).contains(&count), "{count} children in 48 h of one hour each");
    // Nothing piles up.
    let now = net.now;
    net.nodes[0].ike.probe(now, a);
    net.nodes[1].ike.probe(now, b);
    net.settle();
    assert!(net.nodes.iter().all(|n| n.ike.len() == 1));
}

#[test]
fn a_peer_that_rekeys_and_never_deletes_is_tidied_up_after() {
    let (mut net, ..) = Net::established();
    let now = net.now;
    let old = net.nodes[0].child().id;
    net.nodes[0].ike.rekey_child(now, old);
    net.collect();
    // Only request and response pass; A's Delete is lost for good, and A with it.
    for _ in 0..2 {
        let packet = net.wire.pop_front().unwrap();
        net.deliver(&packet);
    }
    net.wire.clear();
    assert_eq!(net.nodes[1].children.len(), 2);
    let until = net.now + Duration::from_secs(70);
    while net.tick(until) {
        net.wire.clear();
    }
    let asked_to_delete = net.seen.iter().any(|p| p.from.ip() == addr(1) && p.octets[18] == 37);
    assert!(asked_to_delete);
}

/// P9: the keys of a replaced pair do not follow from those of its IKE SA. Each replacement, whoever
/// asks for it, has a key exchange of its own, with values that were never seen before.
#[test]
fn every_replacement_has_a_key_exchange_of_its_own() {
    let (mut net, _, _) = Net::established();
    let seen = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let log = std::rc::Rc::clone(&seen);
    set_mangle(Some(Box::new(move |exchange, _, payloads| {
        if exchange == ExchangeType::CREATE_CHILD_SA {
            let values = payloads.iter().filter_map(|payload| match payload {
                Payload::KeyExchange(ke) => Some(ke.data.clone()),
                _ => None,
            });
            log.borrow_mut().push(values.collect::<Vec<_>>());
        }
        payloads
    })));
    for round in 0..4 {
        let (now, old) = (net.now, net.nodes[round % 2].child().id);
        net.nodes[round % 2].ike.rekey_child(now, old);
        net.settle();
        net.assert_children_fit();
        assert_ne!(net.nodes[round % 2].child().id, old);
    }
    set_mangle(None);
    let seen = seen.borrow();
    assert!(seen.len() >= 8, "{}", seen.len());
    // A message may have been sealed more than once, but each with one value.
    assert!(seen.iter().all(|values| values.len() == 1), "{seen:?}");
    let fresh: std::collections::BTreeSet<_> = seen.iter().flatten().collect();
    assert_eq!(fresh.len(), 8, "four times two values");
}

/// RFC 7296 §2.25: a peer that puts us off and off is not busy. After several minutes the IKE SA is
/// closed; the owner has been told before that nothing is renewed. Who was busy for a moment, now and
/// again, is none.
#[test]
fn a_peer_that_puts_us_off_for_ever_is_left() {
    for (ike, relents) in [(true, false), (false, false), (true, true), (false, true)] {
        let mut net = Net::with(|config| {
            config.ike_life = Duration::from_secs(if ike { 600 } else { 4 * 3600 });
            config.child_life = Duration::from_secs(if ike { 7200 } else { 600 });
            config.renews_nothing = true;
        });
        let a = net.initiate(0, 1);
        net.settle();
        let (now, child) = (net.now, net.nodes[0].child().id);
        let mut asked = 0;
        set_mangle(Some(Box::new(move |of, response, payloads| {
            if of != ExchangeType::CREATE_CHILD_SA || !response {
                return payloads;
            }
            asked += 1;
            // Once in a while it says something else.
            if relents && asked % 5 == 0 {
                return vec![Payload::Notify(Notify::new(NotifyType::NO_ADDITIONAL_SAS, []))];
            }
            vec![Payload::Notify(Notify::new(NotifyType::TEMPORARY_FAILURE, []))]
        })));
        if ike {
            net.nodes[0].ike.rekey_ike(now, a);
        } else {
            net.nodes[0].ike.rekey_child(now, child);
        }
        net.run(Duration::from_secs(290));
        let case = (ike, relents);
        assert_eq!(net.nodes[0].ended(), [], "{case:?}");
        let told = |e: &Event| matches!(e, Event::NotRenewed { .. });
        assert!(net.nodes[0].events.iter().any(told), "{case:?}");
        net.run(Duration::from_secs(100));
        set_mangle(None);
        let notify = NotifyType::TEMPORARY_FAILURE.0;
        let refused = vec![End::Refused { notify, authentic: true }];
        let (ours, theirs) = (net.nodes[0].ended(), net.nodes[1].ended());
        if relents {
            assert_eq!((ours, theirs), (vec![], vec![]), "{case:?}");
        } else {
            assert_eq!((ours, theirs), (refused, vec![End::DeletedByPeer]), "{case:?}");
        }
    }
}
