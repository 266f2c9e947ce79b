//! IKE_SA_INIT and IKE_AUTH between two machines.

use std::time::Duration;

use sa::{EspCipher, Mode, TrafficSelector};

use super::*;
use crate::message::{Body, Message, NotifyType, Payloads};

fn first_payloads(packet: &Packet) -> Payloads {
    match Message::read(&packet.octets).unwrap().body {
        Body::Clear { first, octets } => Payloads::read(first, octets).unwrap(),
        Body::Sealed(_) => panic!("sealed"),
    }
}

#[test]
fn four_messages_make_an_ike_sa_and_a_child() {
    let (net, a, b) = Net::established();
    assert_eq!(net.seen.len(), 4);
    net.assert_children_fit();
    let [node_a, node_b] = &net.nodes[..] else { panic!() };
    assert_eq!(node_a.child().cipher, EspCipher::Aes256Gcm16);
    assert!(node_a.child().esn && node_a.child().initiator && !node_b.child().initiator);
    assert!(!node_a.child().envelope.udp);
    let nonces: Vec<_> = [node_a, node_b]
        .iter()
        .flat_map(|n| &n.events)
        .filter_map(|e| match e {
            Event::Established { lowest_nonce, .. } => Some(lowest_nonce.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(nonces[0], nonces[1]);
    assert!(matches!(node_a.events[..], [
        Event::Keyed { ike: k, .. },
        Event::Established { ike: e, initiator: true, .. },
        Event::ChildUp(_),
    ] if k == a && e == a));
    assert!(matches!(node_b.events[..], [
        Event::Established { ike: e, initiator: false, .. },
        Event::ChildUp(_),
    ] if e == b));
    assert_eq!(node_b.asked.len(), 1);
    assert_eq!(node_b.asked[0].wanted, Some(Identity::Address(addr(1))));
    assert_eq!(node_b.asked[0].remote_selectors, [inner(0)]);
    assert_eq!(node_b.ike.half_open(), 0);
}

/// Rule 48.
#[test]
fn the_responders_events_come_before_its_answer() {
    let mut net = Net::pair();
    net.initiate(0, 1);
    for _ in 0..2 {
        let packet = net.wire.pop_front().unwrap();
        net.deliver(&packet);
    }
    // IKE_AUTH reaches B, which is asked everything by hand.
    let auth = net.wire.pop_front().unwrap();
    let now = net.now;
    let node = &mut net.nodes[1];
    node.prompt = false;
    node.ike
        .handle_datagram(now, Datagram { local: auth.to, remote: auth.from, octets: &auth.octets });
    let Some(Output::NeedPeer(need)) = node.ike.poll_output() else { panic!() };
    assert_eq!(node.ike.poll_output(), None);
    // Meanwhile the request comes again and is left alone.
    node.ike
        .handle_datagram(now, Datagram { local: auth.to, remote: auth.from, octets: &auth.octets });
    assert_eq!(node.ike.poll_output(), None);
    let verdict = node.verdicts[&need.identity].clone();
    node.ike.handle_peer(now, need.ike, verdict);
    let Some(Output::Sign(s)) = node.ike.poll_output() else { panic!() };
    assert_eq!(s.scheme, SignatureScheme::RsaPssSha256);
    node.ike.handle_signature(now, s.ike, Some(sign(key_pair(1), s.scheme, &s.octets)));
    assert!(matches!(node.ike.poll_output(), Some(Output::Event(Event::Established { .. }))));
    assert!(matches!(node.ike.poll_output(), Some(Output::Event(Event::ChildUp(_)))));
    assert!(matches!(node.ike.poll_output(), Some(Output::Transmit(_))));
    // And now its repetition is answered with the same octets.
    for _ in 0..2 {
        node.ike.handle_datagram(
            now,
            Datagram { local: auth.to, remote: auth.from, octets: &auth.octets },
        );
        assert!(matches!(node.ike.poll_output(), Some(Output::Transmit(_))));
        assert_eq!(node.ike.poll_output(), None);
    }
}

#[test]
fn a_forced_encapsulation_moves_to_4500() {
    for forcing in 0..2 {
        let mut net = Net::pair();
        let now = net.now;
        let mut config = config(forcing);
        config.encapsulation = Encapsulation::Force;
        let verdicts = net.nodes[forcing].verdicts.clone();
        net.nodes[forcing] = Node::new(forcing, config, now);
        net.nodes[forcing].verdicts = verdicts;
        net.initiate(0, 1);
        net.settle();
        net.assert_children_fit();
        for node in &net.nodes {
            let envelope = node.child().envelope;
            assert!(envelope.udp);
            assert_eq!((envelope.local.port(), envelope.remote.port()), (4500, 4500));
        }
        // Pretended, and known to be.
        assert!(!net.nodes[1].asked[0].peer_natted);
        assert_eq!(net.seen[2].from.port(), 4500);
        assert_eq!(net.seen[3].to.port(), 4500);
        // Nobody pretends to be behind a NAT himself: no keepalives.
        net.run(Duration::from_secs(100));
        assert_eq!(net.seen.len(), 4);
    }
}

#[test]
fn the_first_message_is_what_peers_expect() {
    let mut net = Net::pair();
    net.initiate(0, 1);
    let payloads = first_payloads(&net.wire[0]);
    for kind in [
        NotifyType::NAT_DETECTION_SOURCE_IP,
        NotifyType::NAT_DETECTION_DESTINATION_IP,
        NotifyType::IKEV2_FRAGMENTATION_SUPPORTED,
        NotifyType::SIGNATURE_HASH_ALGORITHMS,
    ] {
        assert!(payloads.notify(kind).is_some(), "{kind:?}");
    }
    assert_eq!(
        payloads.notify(NotifyType::SIGNATURE_HASH_ALGORITHMS).unwrap().data,
        [0, 2, 0, 3, 0, 4, 0, 5]
    );
    assert_eq!(payloads.ke.unwrap().group, 31);
    assert_eq!(payloads.nonce.unwrap().len(), 32);
}

#[test]
fn same_seed_same_octets() {
    let run = || {
        let mut net = Net::pair();
        net.initiate(0, 1);
        net.wire.pop_front().unwrap()
    };
    assert_eq!(run(), run());
}

/// CVE-2013-2944.
#[test]
fn a_wrong_key_is_refused_by_the_responder() {
    let mut net = Net::pair();
    for verdict in net.nodes[1].verdicts.values_mut() {
        if let PeerVerdict::Known { grants, .. } = verdict {
            grants[0].key = public(key_pair(2)).into();
        }
    }
    net.initiate(0, 1);
    net.settle();
    assert_eq!(net.nodes[0].ended(), [End::Refused { notify: 24, authentic: false }]);
    assert_eq!(net.nodes[1].ended(), [End::AuthenticationFailed]);
    assert!(net.nodes.iter().all(|n| n.ike.is_empty() && n.ike.half_open() == 0));
}

/// CVE-2020-16088.
#[test]
fn a_wrong_key_is_refused_by_the_initiator_and_the_responder_hears_of_it() {
    let mut net = Net::pair();
    let now = net.now;
    let mut call = Net::call(0, 1);
    call.keys = vec![public(key_pair(2)).into()];
    net.nodes[0].ike.initiate(now, call);
    net.settle();
    assert_eq!(net.nodes[0].ended(), [End::AuthenticationFailed]);
    // From an initiator that had proved who it is.
    assert_eq!(net.nodes[1].ended(), [End::Refused { notify: 24, authentic: true }]);
    assert!(net.nodes.iter().all(|n| n.ike.is_empty() && n.children.is_empty()));
}

/// Rule 47.
#[test]
fn any_of_several_keys_will_do() {
    let mut net = Net::pair();
    let now = net.now;
    let mut call = Net::call(0, 1);
    call.keys.insert(0, public(key_pair(2)).into());
    net.nodes[0].ike.initiate(now, call);
    net.settle();
    net.assert_children_fit();
    assert_eq!(net.nodes[0].children.len(), 1);
}

#[test]
fn another_identity_is_refused() {
    let mut net = Net::pair();
    let now = net.now;
    let mut call = Net::call(0, 1);
    call.peer = Identity::Fqdn("other.example".into());
    net.nodes[0].ike.initiate(now, call);
    net.settle();
    assert_eq!(net.nodes[0].ended(), [End::AuthenticationFailed]);
}

/// Rule 43.
#[test]
fn a_stranger_is_not_authorized() {
    let mut net = Net::pair();
    net.nodes[1].verdicts.clear();
    net.initiate(0, 1);
    net.settle();
    assert_eq!(net.nodes[1].ended(), [End::NotAuthorized]);
    assert_eq!(net.nodes[0].ended(), [End::Refused { notify: 24, authentic: false }]);
}

/// reflection (Cremers 2011) and the deviation attack.
#[test]
fn our_own_key_is_nobody_elses() {
    // B believes that A has B's key: what B signs could be played back at it.
    let mut net = Net::pair();
    let now = net.now;
    let mut call = Net::call(0, 1);
    call.keys = vec![public(key_pair(0)).into()];
    net.nodes[0].ike.initiate(now, call);
    net.nodes[1].pair = key_pair(0);
    net.settle();
    assert_eq!(net.nodes[0].ended(), [End::AuthenticationFailed]);
}

/// Attack A40.
#[test]
fn our_own_key_opens_no_door() {
    // A signs with B's key, and B is told that this key is A's.
    let mut net = Net::pair();
    net.nodes[0].pair = key_pair(1);
    for verdict in net.nodes[1].verdicts.values_mut() {
        if let PeerVerdict::Known { grants, .. } = verdict {
            grants[0].key = public(key_pair(1)).into();
        }
    }
    net.initiate(0, 1);
    net.settle();
    assert_eq!(net.nodes[1].ended(), [End::AuthenticationFailed]);
}

#[test]
fn our_own_messages_are_not_for_us() {
    let mut net = Net::pair();
    net.initiate(0, 1);
    let packet = net.wire.pop_front().unwrap();
    net.deliver(&Packet { from: packet.to, to: packet.from, octets: packet.octets });
    assert!(net.wire.is_empty());
    assert_eq!(net.nodes[0].ike.half_open(), 0);
}

/// CVE-2024-2357.
#[test]
fn a_signer_that_fails_ends_the_exchange_only() {
    for failing in 0..2 {
        let mut net = Net::pair();
        net.nodes[failing].prompt = false;
        net.initiate(0, 1);
        net.settle();
        let now = net.now;
        if failing == 1 {
            net.nodes[1].serve(now);
            net.settle();
        }
        let Some(Output::Sign(s)) = net.nodes[failing].waiting.pop_front() else { panic!() };
        net.nodes[failing].ike.handle_signature(now, s.ike, None);
        net.settle();
        assert_eq!(net.nodes[failing].ended(), [End::SigningFailed]);
        net.nodes[failing].prompt = true;
        net.run(Duration::from_secs(60));
        net.initiate(0, 1);
        net.settle();
        net.assert_children_fit();
        assert_eq!(net.nodes[0].children.len(), 1);
    }
}

/// Attack A4.
/// Rule 62.
#[test]
fn selectors_are_narrowed_to_the_grant() {
    let mut net = Net::pair();
    let now = net.now;
    let mut call = Net::call(0, 1);
    let all = TrafficSelector::prefix("0.0.0.0/0".parse().unwrap());
    call.child.local = vec![inner(0), all];
    call.child.remote = vec![inner(1), all];
    net.nodes[0].ike.initiate(now, call);
    net.settle();
    net.assert_children_fit();
    assert_eq!(net.nodes[0].child().local, [inner(0)]);
    assert_eq!(net.nodes[0].child().remote, [inner(1)]);
}

#[test]
fn unacceptable_selectors_leave_the_ike_sa_standing() {
    let mut net = Net::pair();
    let now = net.now;
    let mut call = Net::call(0, 1);
    call.child.remote = vec![TrafficSelector::host("10.7.7.7".parse().unwrap())];
    let a = net.nodes[0].ike.initiate(now, call);
    net.settle();
    assert_eq!(net.nodes[0].child_failed(), [End::Refused { notify: 38, authentic: true }]);
    assert_eq!((net.nodes[0].ike.len(), net.nodes[1].ike.len()), (1, 1));
    // And a better one can be had under it.
    let request = Net::call(0, 1).child;
    net.nodes[0].ike.create_child(now, a, request);
    net.settle();
    net.assert_children_fit();
    assert_eq!(net.nodes[0].child().local, [inner(0)]);
}

#[test]
fn transport_mode_is_declined_and_tunnel_mode_agreed() {
    let mut net = Net::pair();
    let now = net.now;
    let mut call = Net::call(0, 1);
    call.child.mode = Mode::Transport;
    net.nodes[0].ike.initiate(now, call);
    net.settle();
    net.assert_children_fit();
    assert_eq!(net.nodes[0].child().mode, Mode::Tunnel);
}

/// Rule 40.
#[test]
fn cookies_are_asked_for_and_brought() {
    let mut net = Net::with(|c| c.cookie_threshold = 0);
    net.initiate(0, 1);
    net.settle();
    net.assert_children_fit();
    assert_eq!(net.nodes[0].children.len(), 1);
    assert_eq!(net.seen.len(), 6);
    assert_eq!(net.nodes[1].ike.counters().cookies_sent, 1);
    assert!(first_payloads(&net.seen[1]).notify(NotifyType::COOKIE).is_some());
    // No state before the cookie came back, and the answer is smaller than the question.
    assert!(net.seen[1].octets.len() < net.seen[0].octets.len());
}

fn contacts(node: &Node) -> Vec<bool> {
    node.events
        .iter()
        .filter_map(|e| match e {
            Event::Established { initial_contact, .. } => Some(*initial_contact),
            _ => None,
        })
        .collect()
}

#[test]
fn a_cookie_that_we_did_not_bake_is_no_cookie() {
    let mut net = Net::with(|c| c.cookie_threshold = 0);
    net.initiate(0, 1);
    let request = net.wire.pop_front().unwrap();
    net.deliver(&request);
    let answer = net.wire.pop_front().unwrap();
    net.deliver(&answer);
    let good = net.wire.pop_front().unwrap();
    // The cookie begins behind the header and the head of its notify.
    for at in [36, 37, 60, 68] {
        let mut bad = good.clone();
        bad.octets[at] ^= 1;
        net.deliver(&bad);
        let again = net.wire.pop_front().unwrap();
        assert!(first_payloads(&again).notify(NotifyType::COOKIE).is_some());
    }
    let elsewhere = Packet { from: "192.0.2.77:500".parse().unwrap(), ..good.clone() };
    net.deliver(&elsewhere);
    net.wire.clear();
    assert_eq!(net.nodes[1].ike.half_open(), 0);
    assert_eq!(net.nodes[1].ike.counters().cookies_refused, 5);
    net.deliver(&good);
    assert_eq!(net.nodes[1].ike.half_open(), 1);
}

#[test]
fn initial_contact_is_sent_to_a_peer_with_no_other_sa() {
    let (mut net, _, old) = Net::established();
    assert_eq!(contacts(&net.nodes[1]), [true]);
    // A second call knows of the first.
    net.initiate(0, 1);
    net.settle();
    assert_eq!(contacts(&net.nodes[1]), [true, false]);
    // A forgets everything.
    let now = net.now;
    let verdicts = net.nodes[0].verdicts.clone();
    net.nodes[0] = Node::new(0, config(0), now);
    net.nodes[0].ike = Ike::new(config(0), [9; 32], now);
    net.nodes[0].verdicts = verdicts;
    net.initiate(0, 1);
    net.settle();
    assert_eq!(contacts(&net.nodes[1]), [true, false, true]);
    // What that means is the owner's to decide.
    assert!(net.nodes[1].ended().is_empty());
    let sent = net.seen.len();
    net.nodes[1].ike.abandon(now, old);
    net.settle();
    assert_eq!(net.nodes[1].ended(), [End::InitialContact]);
    assert_eq!(net.seen.len(), sent);
}

/// Attack A46.
#[test]
fn two_that_call_each_other_at_once_do_not_destroy_each_other() {
    let mut net = Net::pair();
    net.initiate(0, 1);
    net.initiate(1, 0);
    net.settle();
    assert!(net.nodes.iter().all(|n| n.ended().is_empty() && n.children.len() == 2));
    net.assert_children_fit();
}

/// Attack A17.
#[test]
fn an_unauthenticated_refusal_is_not_believed_at_once() {
    let mut net = Net::pair();
    net.initiate(0, 1);
    let request = net.wire[0].clone();
    let header = Message::read(&request.octets).unwrap().header;
    let forged = crate::exchange::ike_sa_init_responder::stateless(
        &header,
        crate::failure::Failure::NoProposalChosen.notify(),
    );
    let forged = Packet { from: request.to, to: request.from, octets: forged };
    net.deliver(&forged);
    assert!(net.nodes[0].ended().is_empty());
    net.settle();
    assert_eq!(net.nodes[0].children.len(), 1);

    // Nothing better comes: who refuses says so again, and is believed soon; a single datagram is
    // not, however often it is repeated at once.
    for again in [true, false] {
        let mut net = Net::pair();
        net.initiate(0, 1);
        net.wire.clear();
        net.deliver(&forged);
        net.deliver(&forged);
        let before = net.now;
        while net.nodes[0].ended().is_empty() {
            net.tick(before + Duration::from_secs(60));
            if again && !net.wire.is_empty() {
                net.deliver(&forged);
            }
            net.wire.clear();
        }
        assert_eq!(net.nodes[0].ended(), [End::Refused { notify: 14, authentic: false }]);
        let (waited, tries) = (net.now - before, Duration::from_millis(500 * 31));
        assert!(if again { waited <= Duration::from_secs(3) } else { waited >= tries });
    }
}

/// A forged INVALID_KE_PAYLOAD ends no attempt: the answer to what was asked first is taken, and a
/// peer that wants that group after all gets it again.
#[test]
fn an_answer_to_what_was_asked_first_is_still_good() {
    for answered in [true, false] {
        let mut net = Net::pair();
        net.initiate(0, 1);
        let request = net.wire.pop_front().unwrap();
        let header = Message::read(&request.octets).unwrap().header;
        let forge = |group| {
            let notify = crate::failure::Failure::InvalidKe(group).notify();
            let octets = crate::exchange::ike_sa_init_responder::stateless(&header, notify);
            Packet { from: request.to, to: request.from, octets }
        };
        net.deliver(&forge(20));
        let second = net.wire.pop_front().unwrap();
        assert_eq!(first_payloads(&second).ke.unwrap().group, 20);
        if answered {
            // The second request is lost.
            net.deliver(&request);
        } else {
            // The first was; the peer knows that group only.
            for _ in 0..20 {
                net.deliver(&forge(31));
                net.deliver(&forge(20));
            }
            assert!(net.wire.len() <= 8, "bounded: {}", net.wire.len());
            let third = net.wire.pop_front().unwrap();
            assert_eq!(first_payloads(&third).ke.unwrap().group, 31);
            net.wire.clear();
            net.deliver(&third);
        }
        net.settle();
        net.assert_children_fit();
        assert_eq!(net.nodes[0].children.len(), 1, "{answered}");
    }
}

#[test]
fn an_invalid_ke_payload_changes_the_group_once_for_each() {
    let mut net = Net::pair();
    net.initiate(0, 1);
    let request = net.wire.pop_front().unwrap();
    let header = Message::read(&request.octets).unwrap().header;
    let forge = |group| {
        let notify = crate::failure::Failure::InvalidKe(group).notify();
        let octets = crate::exchange::ike_sa_init_responder::stateless(&header, notify);
        Packet { from: request.to, to: request.from, octets }
    };
    for group in [14, 31, 2, 0] {
        net.deliver(&forge(group));
        assert!(net.wire.is_empty(), "{group} was not offered, or was tried");
    }
    for group in [19, 20] {
        net.deliver(&forge(group));
        let again = net.wire.pop_front().unwrap();
        assert_eq!(first_payloads(&again).ke.unwrap().group, group);
        net.deliver(&forge(group));
        assert!(net.wire.is_empty());
        if group == 20 {
            net.deliver(&again);
            net.settle();
            net.assert_children_fit();
            assert_eq!(net.nodes[0].children.len(), 1);
        }
    }
}

#[test]
fn a_cookie_is_repeated_with_another_group() {
    let mut net = Net::with(|c| c.cookie_threshold = 0);
    net.initiate(0, 1);
    let request = net.wire.pop_front().unwrap();
    net.deliver(&request);
    let cookie = net.wire.pop_front().unwrap();
    net.deliver(&cookie);
    let second = net.wire.pop_front().unwrap();
    let header = Message::read(&second.octets).unwrap().header;
    let notify = crate::failure::Failure::InvalidKe(19).notify();
    let octets = crate::exchange::ike_sa_init_responder::stateless(&header, notify);
    net.deliver(&Packet { from: request.to, to: request.from, octets });
    let third = net.wire.pop_front().unwrap();
    let payloads = first_payloads(&third);
    assert_eq!(payloads.ke.as_ref().unwrap().group, 19);
    assert_eq!(
        payloads.notify(NotifyType::COOKIE).unwrap().data,
        first_payloads(&cookie).notify(NotifyType::COOKIE).unwrap().data
    );
    net.deliver(&third);
    net.settle();
    assert_eq!(net.nodes[0].children.len(), 1);
}
