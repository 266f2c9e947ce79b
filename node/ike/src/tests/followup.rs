//! IKE_FOLLOWUP_KE: ML-KEM-768 in rekeys, too (RFC 9370 §2.2.4).

use super::*;
use crate::message::{Notify, NotifyType, TransformType};

fn hybrid() -> (Net, IkeId, IkeId) {
    Net::established_with(true)
}

/// Messages of this exchange so far.
fn count(net: &Net, exchange: u8) -> usize {
    net.seen.iter().filter(|p| p.octets.get(18) == Some(&exchange)).count()
}

fn key_exchanges(net: &Net, ids: [IkeId; 2]) -> [Option<&'static str>; 2] {
    [0, 1].map(|at| net.nodes[at].ike.key_exchange(ids[at]))
}

/// Nothing is reserved but what is in use.
fn assert_tidy(net: &Net) {
    for node in &net.nodes {
        assert_eq!(node.ike.reserved(), (node.ike.len(), node.children.len()));
    }
}

#[test]
fn rekeys_have_what_the_first_keys_had() {
    for asking in 0..2 {
        let (mut net, a, b) = hybrid();
        for _ in 0..3 {
            let before = count(&net, 44);
            let (now, old) = (net.now, net.nodes[asking].child().id);
            net.nodes[asking].ike.rekey_child(now, old);
            net.settle();
            net.assert_children_fit();
            assert_ne!(net.nodes[asking].child().id, old);
            // Our half takes two datagrams, the other's one or two.
            assert!((3..=4).contains(&(count(&net, 44) - before)));
            net.nodes[asking].ike.rekey_ike(now, if asking == 0 { a } else { b });
            net.settle();
            assert!(count(&net, 44) - before >= 6);
            assert_eq!(key_exchanges(&net, [a, b]), [Some("x25519+mlkem768"); 2]);
        }
        // Both still speak, and further children have it from the start.
        let now = net.now;
        net.nodes[1].ike.probe(now, b);
        net.nodes[0].ike.create_child(now, a, Net::call(0, 1).child);
        net.settle();
        assert_eq!(net.nodes[0].children.len(), 2);
        net.assert_children_fit();
        net.run(Duration::from_secs(100));
        assert_tidy(&net);
        assert!(net.nodes.iter().all(|n| n.ended().is_empty() && n.child_failed().is_empty()));
    }
}

/// The secret is in the keys: who gets another one has other keys.
#[test]
fn a_changed_ciphertext_makes_different_keys() {
    let (mut net, ..) = hybrid();
    set_mangle(Some(Box::new(|exchange, response, mut payloads| {
        if exchange == ExchangeType::IKE_FOLLOWUP_KE && response {
            for payload in &mut payloads {
                if let Payload::KeyExchange(ke) = payload {
                    ke.data[5] ^= 1;
                }
            }
        }
        payloads
    })));
    let (now, old) = (net.now, net.nodes[0].child().id);
    net.nodes[0].ike.rekey_child(now, old);
    net.settle();
    set_mangle(None);
    let (ours, theirs) = (net.nodes[0].child(), net.nodes[1].child());
    assert_eq!(ours.spi_in, theirs.spi_out);
    assert_ne!(ours.key_in, theirs.key_out);
}

#[test]
fn without_it_at_the_start_rekeys_are_as_ever() {
    for knows in 0..2 {
        let now = Instant::now();
        let mut net = Net::with(|c| c.post_quantum = true);
        let other = 1 - knows;
        let verdicts = net.nodes[other].verdicts.clone();
        net.nodes[other] = Node::new(other, config(other), now);
        net.nodes[other].verdicts = verdicts;
        let a = net.initiate(0, 1);
        net.settle();
        let b = net.nodes[1].established()[0];
        for asking in 0..2 {
            let (now, old) = (net.now, net.nodes[asking].child().id);
            net.nodes[asking].ike.rekey_child(now, old);
            net.nodes[asking].ike.rekey_ike(now, if asking == 0 { a } else { b });
            net.settle();
            net.assert_children_fit();
            assert_ne!(net.nodes[asking].child().id, old);
        }
        assert_eq!(count(&net, 44), 0);
    }
}

/// Where only one of IKE_SA_INIT's ends said that it knows IKE_INTERMEDIATE, and both know
/// IKE_FOLLOWUP_KE: what began without is rekeyed with it, whoever asks (RFC 9370 §2.2.4).
#[test]
fn what_began_without_it_gets_it_in_rekeys() {
    for asking in 0..2 {
        let mut net = Net::with(|c| c.post_quantum = true);
        set_mangle(Some(Box::new(|exchange, response, mut payloads| {
            if exchange == ExchangeType::IKE_SA_INIT && !response {
                payloads.retain(|payload| {
                    let kind = NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED;
                    !matches!(payload, Payload::Notify(notify) if notify.kind == kind)
                });
            }
            payloads
        })));
        net.initiate(0, 1);
        net.settle();
        set_mangle(None);
        let ikes = [0, 1].map(|which: usize| net.nodes[which].established()[0]);
        let exchange = |net: &Net| net.nodes[0].ike.key_exchange(ikes[0]);
        assert_eq!(exchange(&net), Some("x25519"));
        let (now, old) = (net.now, net.nodes[asking].child().id);
        net.nodes[asking].ike.rekey_child(now, old);
        net.nodes[asking].ike.rekey_ike(now, ikes[asking]);
        net.settle();
        net.assert_children_fit();
        assert_ne!(net.nodes[asking].child().id, old);
        assert_eq!(exchange(&net), Some("x25519+mlkem768"));
        assert!(count(&net, 44) >= 4, "{}", count(&net, 44));
    }
}

/// A peer that has it in IKE only declines it for children: they are replaced without.
#[test]
fn who_declines_it_gets_the_proposal_without() {
    let (mut net, a, b) = hybrid();
    set_mangle(Some(Box::new(|exchange, response, mut payloads| {
        if exchange == ExchangeType::CREATE_CHILD_SA && !response {
            for payload in &mut payloads {
                if let Payload::Sa(proposals) = payload {
                    // As if it were a type of which the peer knows nothing.
                    for transform in proposals.iter_mut().flat_map(|p| &mut p.transforms) {
                        if transform.kind == TransformType::ADDKE1 {
                            transform.kind = TransformType(77);
                        }
                    }
                }
            }
        }
        payloads
    })));
    let (now, old) = (net.now, net.nodes[0].child().id);
    net.nodes[0].ike.rekey_child(now, old);
    net.nodes[0].ike.rekey_ike(now, a);
    net.settle();
    set_mangle(None);
    net.assert_children_fit();
    assert_ne!(net.nodes[0].child().id, old);
    assert_eq!(count(&net, 44), 0);
    assert_eq!(key_exchanges(&net, [a, b]), [Some("x25519"); 2]);
}

#[test]
fn a_loss_at_any_place_is_made_good() {
    for first in 0..14 {
        for second in [first, first + 1] {
            let (mut net, a, b) = hybrid();
            let (now, old) = (net.now, net.nodes[0].child().id);
            net.nodes[0].ike.rekey_child(now, old);
            net.nodes[0].ike.rekey_ike(now, a);
            let at = net.seen.len();
            net.run_losing(&[at + first, at + second], Duration::from_secs(40));
            net.assert_children_fit();
            assert_ne!(net.nodes[0].child().id, old, "{first}");
            assert_eq!(key_exchanges(&net, [a, b]), [Some("x25519+mlkem768"); 2]);
            assert!(net.nodes.iter().all(|n| n.ended().is_empty()));
            net.run(Duration::from_secs(100));
            assert_tidy(&net);
        }
    }
}

#[test]
fn every_message_twice_is_as_good_as_once() {
    let (mut net, a, _) = hybrid();
    let (now, old) = (net.now, net.nodes[0].child().id);
    net.nodes[0].ike.rekey_child(now, old);
    net.nodes[0].ike.rekey_ike(now, a);
    net.collect();
    while let Some(packet) = net.wire.pop_front() {
        net.deliver(&packet);
        net.deliver(&packet);
        assert!(net.seen.len() < 200);
    }
    net.assert_children_fit();
    assert_ne!(net.nodes[0].child().id, old);
}

/// Changes what links the second exchange to the first.
fn lose_links(times: u32) {
    let mut left = times;
    set_mangle(Some(Box::new(move |exchange, response, mut payloads| {
        if exchange == ExchangeType::IKE_FOLLOWUP_KE && !response && left > 0 {
            left -= 1;
            for payload in &mut payloads {
                if let Payload::Notify(notify) = payload {
                    notify.data[0] ^= 1;
                }
            }
        }
        payloads
    })));
}

/// STATE_NOT_FOUND: it is tried again, but not for ever.
#[test]
fn what_the_peer_has_forgotten_is_asked_anew() {
    for (times, lives) in [(1, true), (3, true), (4, false)] {
        for ike in [false, true] {
            let (mut net, a, b) = hybrid();
            lose_links(times);
            let (now, old) = (net.now, net.nodes[0].child().id);
            if ike {
                net.nodes[0].ike.rekey_ike(now, a);
            } else {
                net.nodes[0].ike.rekey_child(now, old);
            }
            net.run(Duration::from_secs(30));
            set_mangle(None);
            net.assert_children_fit();
            if lives {
                assert_eq!(net.nodes[0].child().id == old, ike, "{times}");
                assert_eq!(key_exchanges(&net, [a, b]), [Some("x25519+mlkem768"); 2]);
                net.run(Duration::from_secs(100));
                assert_tidy(&net);
            } else {
                let why = End::Refused { notify: 47, authentic: true };
                assert_eq!(net.nodes[0].ended(), [why]);
                assert!(net.nodes.iter().all(|n| n.ike.is_empty()));
            }
        }
    }
}

/// An initiator that never goes on: what waits for it is forgotten, and everything else goes on.
#[test]
fn what_never_comes_is_forgotten() {
    for ike in [false, true] {
        let (mut net, a, b) = hybrid();
        let (now, old) = (net.now, net.nodes[0].child().id);
        if ike {
            net.nodes[0].ike.rekey_ike(now, a);
        } else {
            net.nodes[0].ike.rekey_child(now, old);
        }
        // CREATE_CHILD_SA there; its answer is lost, and with it all that would follow.
        net.collect();
        let packet = net.wire.pop_front().unwrap();
        net.deliver(&packet);
        net.wire.clear();
        assert_eq!(net.nodes[1].ike.reserved(), if ike { (2, 1) } else { (1, 2) });
        net.now += Duration::from_secs(20);
        let now = net.now;
        net.nodes[1].ike.handle_timeout(now);
        net.wire.clear();
        assert_eq!(net.nodes[1].ike.reserved(), (1, 1));
        // The first asks again, and hears that nothing is known of it; the second time it works.
        net.run(Duration::from_secs(60));
        net.assert_children_fit();
        assert_eq!(net.nodes[0].child().id == old, ike);
        assert_eq!(key_exchanges(&net, [a, b]), [Some("x25519+mlkem768"); 2]);
        net.run(Duration::from_secs(100));
        assert_tidy(&net);
    }
}

/// Who asks for another has given the last one up: one waits, and no more.
#[test]
fn one_waits_at_a_time() {
    let (mut net, a, _) = hybrid();
    for _ in 0..10 {
        let now = net.now;
        net.nodes[0].ike.create_child(now, a, Net::call(0, 1).child);
    }
    // Every IKE_FOLLOWUP_KE becomes a message that fits nothing.
    lose_links(u32::MAX);
    net.run(Duration::from_secs(5));
    let (_, esp) = net.nodes[1].ike.reserved();
    assert!(esp <= net.nodes[1].children.len() + 1, "{esp}");
    set_mangle(None);
    net.run(Duration::from_secs(100));
    net.assert_children_fit();
    assert_tidy(&net);
}

#[test]
fn what_is_no_second_half_ends_the_attempt() {
    for what in 0..6 {
        for ike in [false, true] {
            let (mut net, a, b) = hybrid();
            set_mangle(Some(Box::new(move |exchange, response, mut payloads| {
                let followup = exchange == ExchangeType::IKE_FOLLOWUP_KE;
                if followup && response == (what < 3) {
                    for payload in &mut payloads {
                        if let Payload::KeyExchange(ke) = payload {
                            match what % 3 {
                                0 => ke.data.truncate(100),
                                1 => ke.group = 37,
                                _ => ke.data.clear(),
                            }
                        }
                    }
                }
                payloads
            })));
            let (now, old) = (net.now, net.nodes[0].child().id);
            if ike {
                net.nodes[0].ike.rekey_ike(now, a);
            } else {
                net.nodes[0].ike.rekey_child(now, old);
            }
            net.run(Duration::from_secs(30));
            set_mangle(None);
            net.run(Duration::from_secs(100));
            if what >= 3 {
                // INVALID_SYNTAX is fatal on both sides (RFC 7296 §2.21.3).
                assert!(net.nodes.iter().all(|n| n.ended().len() == 1), "{what}");
            } else if ike {
                // The peer has a successor that we cannot use.
                assert_eq!(net.nodes[0].ended().len(), 1, "{what}");
            } else {
                net.assert_children_fit();
                assert_eq!(key_exchanges(&net, [a, b]), [Some("x25519+mlkem768"); 2], "{what}");
                assert_tidy(&net);
            }
        }
    }
}

/// The notify that links is missing, endless, or there when all is done.
#[test]
fn links_that_make_no_sense() {
    for what in 0..3 {
        for ike in [false, true] {
            let (mut net, a, _) = hybrid();
            set_mangle(Some(Box::new(move |exchange, response, mut payloads| {
                let is_link = |payload: &Payload| {
                    matches!(payload, Payload::Notify(n)
                        if n.kind == NotifyType::ADDITIONAL_KEY_EXCHANGE)
                };
                let link = |data: &[u8]| {
                    Payload::Notify(Notify::new(NotifyType::ADDITIONAL_KEY_EXCHANGE, data))
                };
                match (exchange, response, what) {
                    (ExchangeType::CREATE_CHILD_SA, true, 0) => payloads.retain(|p| !is_link(p)),
                    (ExchangeType::CREATE_CHILD_SA, true, 1) => {
                        payloads.retain(|p| !is_link(p));
                        payloads.push(link(&[7; 300]));
                    }
                    (ExchangeType::IKE_FOLLOWUP_KE, true, 2) => payloads.push(link(b"more")),
                    _ => {}
                }
                payloads
            })));
            let (now, old) = (net.now, net.nodes[0].child().id);
            if ike {
                net.nodes[0].ike.rekey_ike(now, a);
            } else {
                net.nodes[0].ike.rekey_child(now, old);
            }
            net.run(Duration::from_secs(30));
            set_mangle(None);
            net.run(Duration::from_secs(100));
            if ike {
                assert_eq!(net.nodes[0].ended().len(), 1, "{what}");
                assert!(what == 2 || net.nodes[1].ike.is_empty(), "{what}");
            } else {
                net.assert_children_fit();
                assert!(net.nodes[0].ended().is_empty(), "{what}");
                assert_tidy(&net);
            }
        }
    }
}

/// RFC 9370 §2.2.4: the exchange with the lowest nonce goes no further.
#[test]
fn of_two_that_cross_one_goes_on() {
    for round in 0..8 {
        for ike in [false, true] {
            let (mut net, a, b) = hybrid();
            // Nonces differ with what was drawn before.
            for _ in 0..round {
                let now = net.now;
                net.nodes[0].ike.create_child(now, a, Net::call(0, 1).child);
                net.settle();
            }
            let before = count(&net, 44);
            let now = net.now;
            for (node, id) in [(0, a), (1, b)] {
                let child = *net.nodes[node].children.keys().next().unwrap();
                if ike {
                    net.nodes[node].ike.rekey_ike(now, id);
                } else {
                    net.nodes[node].ike.rekey_child(now, child);
                }
            }
            net.settle();
            net.assert_children_fit();
            assert_eq!(net.nodes[0].children.len(), 1 + round);
            // One pair of messages, of two fragments each at the most.
            assert!(count(&net, 44) - before <= 4);
            net.run(Duration::from_secs(100));
            net.assert_children_fit();
            assert_eq!(key_exchanges(&net, [a, b]), [Some("x25519+mlkem768"); 2]);
            assert_tidy(&net);
            assert!(net.nodes.iter().all(|n| n.ended().is_empty()));
        }
    }
}
