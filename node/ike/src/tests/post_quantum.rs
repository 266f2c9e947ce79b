//! ML-KEM-768 beside Curve25519 (RFC 9242, RFC 9370).

use super::*;
use crate::message::{KeyExchange, Notify, NotifyType};

fn hybrid() -> Net {
    Net::with(|c| c.post_quantum = true)
}

fn key_exchanges(net: &Net) -> Vec<Option<&'static str>> {
    net.nodes.iter().map(|n| n.ike.key_exchange(n.established()[0])).collect()
}

#[test]
fn both_go_into_the_keys_if_both_know_both() {
    let mut net = hybrid();
    net.initiate(0, 1);
    net.settle();
    net.assert_children_fit();
    assert_eq!(key_exchanges(&net), [Some("x25519+mlkem768"); 2]);
    // IKE_SA_INIT, IKE_INTERMEDIATE whose request takes two datagrams, IKE_AUTH.
    assert_eq!(net.seen.len(), 7);
    assert!(net.seen.iter().all(|p| p.octets.len() <= 1280 - 40 - 8 - 4));
    // And life goes on under those keys.
    let (now, a) = (net.now, net.nodes[0].established()[0]);
    let child = net.nodes[0].child().id;
    net.nodes[0].ike.rekey_child(now, child);
    net.nodes[0].ike.rekey_ike(now, a);
    net.settle();
    net.assert_children_fit();
    let b = net.nodes[1].established()[0];
    net.nodes[1].ike.close(now, b);
    net.settle();
    assert!(net.nodes.iter().all(|n| n.ike.is_empty()));
}

#[test]
fn who_does_not_know_it_is_not_put_off() {
    for knows in 0..2 {
        let mut net = hybrid();
        let (other, now) = (1 - knows, net.now);
        let verdicts = net.nodes[other].verdicts.clone();
        net.nodes[other] = Node::new(other, config(other), now);
        net.nodes[other].verdicts = verdicts;
        net.initiate(0, 1);
        net.settle();
        net.assert_children_fit();
        assert_eq!(net.seen.len(), 4);
        assert_eq!(key_exchanges(&net), [Some("x25519"); 2]);
    }
}

#[test]
fn a_loss_at_any_place_is_made_good() {
    for first in 0..8 {
        for second in first..8 {
            let mut net = hybrid();
            net.initiate(0, 1);
            net.run_losing(&[first, second], Duration::from_secs(20));
            net.assert_children_fit();
            assert_eq!(net.nodes[0].children.len(), 1, "{first} {second}");
            assert_eq!(key_exchanges(&net), [Some("x25519+mlkem768"); 2], "{first} {second}");
        }
    }
}

#[test]
fn every_message_twice_is_as_good_as_once() {
    let mut net = hybrid();
    net.initiate(0, 1);
    net.collect();
    while let Some(packet) = net.wire.pop_front() {
        net.deliver(&packet);
        net.deliver(&packet);
        assert!(net.seen.len() < 100);
    }
    net.assert_children_fit();
    assert_eq!(net.nodes[0].children.len(), 1);
    assert_eq!(net.nodes[1].asked.len(), 1);
}

/// Changes KE payloads of IKE_INTERMEDIATE on one way.
fn spoil(responses: bool, change: impl Fn(&mut KeyExchange) + 'static) {
    set_mangle(Some(Box::new(move |exchange, response, mut payloads| {
        if exchange == ExchangeType::IKE_INTERMEDIATE && response == responses {
            for payload in &mut payloads {
                if let Payload::KeyExchange(ke) = payload {
                    change(ke);
                }
            }
        }
        payloads
    })));
}

#[test]
fn what_is_not_a_key_or_ciphertext_ends_it() {
    for responses in [false, true] {
        for what in 0..3 {
            let mut net = hybrid();
            spoil(responses, move |ke| match what {
                0 => ke.data.truncate(100),
                1 => ke.group = 37,
                _ => ke.data.clear(),
            });
            net.initiate(0, 1);
            net.run(Duration::from_secs(31));
            set_mangle(None);
            assert!(net.nodes.iter().all(|n| n.ike.is_empty() && n.children.is_empty()));
            assert_eq!(net.nodes[0].ended().len(), 1, "{responses} {what}");
        }
    }
}

#[test]
fn a_changed_ciphertext_makes_two_different_keys_and_no_sa() {
    let mut net = hybrid();
    spoil(true, |ke| ke.data[5] ^= 1);
    net.initiate(0, 1);
    net.run(Duration::from_secs(60));
    set_mangle(None);
    assert_eq!(net.nodes[0].ended(), [End::Timeout]);
    assert!(net.nodes.iter().all(|n| n.children.is_empty()));
}

#[test]
fn the_exchange_cannot_be_left_out() {
    // An initiator that goes on to IKE_AUTH without its second half.
    let mut net = hybrid();
    set_mangle(Some(Box::new(|exchange, response, mut payloads| {
        if exchange == ExchangeType::IKE_INTERMEDIATE && !response {
            payloads.clear();
        }
        payloads
    })));
    net.initiate(0, 1);
    net.run(Duration::from_secs(31));
    set_mangle(None);
    assert!(net.nodes.iter().all(|n| n.ike.is_empty() && n.children.is_empty()));
    assert_eq!(net.nodes[1].asked, []);
}

/// Attack A21.
#[test]
fn what_was_exchanged_between_is_signed() {
    // Both believe the same keys, but have seen different messages: one more notify on one side's
    // account only.
    let mut net = hybrid();
    set_mangle(Some(Box::new(|exchange, response, mut payloads| {
        if exchange == ExchangeType::IKE_INTERMEDIATE && response {
            payloads.push(Payload::Notify(Notify::new(NotifyType(40_000), vec![1])));
        }
        payloads
    })));
    net.initiate(0, 1);
    net.settle();
    set_mangle(None);
    // It is part of what both saw, so that it does no harm.
    net.assert_children_fit();
    assert_eq!(net.nodes[0].children.len(), 1);
}

#[test]
fn a_proposal_without_intermediate_support_is_answered_without() {
    // Somebody on the way takes the announcement out: no additional exchange then, and the
    // signatures, which cover IKE_SA_INIT, do not fit.
    let mut net = hybrid();
    net.initiate(0, 1);
    let mut packet = net.wire.pop_front().unwrap();
    let needle = 16438_u16.to_be_bytes();
    let at = packet.octets.windows(2).rposition(|w| w == needle).unwrap();
    packet.octets[at..at + 2].copy_from_slice(&40_000_u16.to_be_bytes());
    net.deliver(&packet);
    net.run(Duration::from_secs(31));
    assert!(net.nodes.iter().all(|n| n.children.is_empty()));
    assert_eq!(net.nodes[1].established(), []);
}
