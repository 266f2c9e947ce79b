//! Who proves what, and with what: keys of every kind, shared secrets, nothing.

use super::*;
use crate::message::{Authentication, NotifyType};

fn secret(text: &str) -> Credential {
    Credential::Secret(SharedSecret::new(text.as_bytes().to_vec()).unwrap())
}

/// What `own` grants to `peer` if that proves itself so.
fn grant(own: usize, peer: usize, key: Credential) -> Grant {
    Grant {
        key,
        remote: vec![inner(peer)],
        local: vec![inner(own)],
        transport: false,
        assigned: Assigned::Nothing,
    }
}

/// A pair of nodes with these key pairs that know each other by them.
fn pair_of_keys(keys: [usize; 2]) -> Net {
    let mut net = Net::pair();
    let now = net.now;
    for (own, key) in keys.into_iter().enumerate() {
        let config = Config { key: public(key_pair(key)), ..config(own) };
        net.nodes[own] = Node::new(own, config, now);
        net.nodes[own].pair = key_pair(key);
    }
    for (own, peer) in [(0, 1), (1, 0)] {
        let key = public(key_pair(keys[peer])).into();
        know(&mut net, own, Identity::Address(addr(peer)), Identity::Address(addr(own)), key);
    }
    net
}

/// Tells `own` whom it may expect, who it is then itself, and what the peer has to prove.
fn know(net: &mut Net, own: usize, peer: Identity, identity: Identity, key: Credential) {
    let grants = vec![grant(own, 1 - own, key)];
    net.nodes[own].verdicts.insert(peer, PeerVerdict::Known { identity, grants });
}

fn call_with(net: &mut Net, identity: Identity, peer: Identity, key: Credential) {
    let now = net.now;
    let call = Initiate { identity, peer, keys: vec![key], ..Net::call(0, 1) };
    net.nodes[0].ike.initiate(now, call);
    net.settle();
}

fn address(which: usize) -> Identity {
    Identity::Address(addr(which))
}

fn credentials(net: &Net) -> Vec<Credential> {
    net.nodes
        .iter()
        .flat_map(|n| &n.events)
        .filter_map(|e| match e {
            Event::Established { peer, .. } => Some(peer.credential().clone()),
            _ => None,
        })
        .collect()
}

#[test]
fn keys_of_every_kind_meet_keys_of_every_kind() {
    for (a, first) in KINDS.iter().enumerate() {
        for (b, second) in KINDS.iter().enumerate() {
            let keys = [a * 3, b * 3 + 1];
            let mut net = pair_of_keys(keys);
            call_with(&mut net, address(0), address(1), public(key_pair(keys[1])).into());
            net.assert_children_fit();
            assert_eq!(net.nodes[0].children.len(), 1, "{first} calls {second}");
            let [own, peer] = [1, 0].map(|at| public(key_pair(keys[at])).into());
            assert_eq!(credentials(&net), [own, peer]);
        }
    }
}

/// CVE-2020-16088: the peer's record has a key of one kind, and it signs with another kind.
#[test]
fn a_signature_of_another_kind_than_the_key_is_refused() {
    for has in 0..KINDS.len() {
        for expected in (0..KINDS.len()).filter(|kind| *kind != has) {
            let keys = [0, has * 3 + 1];
            let other: Credential = public(key_pair(expected * 3 + 2)).into();
            let mut net = pair_of_keys(keys);
            call_with(&mut net, address(0), address(1), other.clone());
            assert_eq!(net.nodes[0].ended(), [End::AuthenticationFailed]);

            let mut net = pair_of_keys([has * 3 + 1, 0]);
            know(&mut net, 1, address(0), address(1), other);
            call_with(&mut net, address(0), address(1), public(key_pair(0)).into());
            assert_eq!(net.nodes[1].ended(), [End::AuthenticationFailed]);
            assert_eq!(net.nodes[0].ended(), [End::Refused { notify: 24, authentic: false }]);
        }
    }
}

#[test]
fn a_shared_secret_proves_both() {
    let mut net = Net::pair();
    let key = secret("correct horse battery staple");
    know(&mut net, 1, address(0), address(1), key.clone());
    call_with(&mut net, address(0), address(1), key.clone());
    net.assert_children_fit();
    assert_eq!(net.nodes[0].children.len(), 1);
    assert_eq!(credentials(&net), [key.clone(), key]);
    // Nobody was asked to sign: four messages at one go.
    assert_eq!(net.seen.len(), 4);
}

#[test]
fn a_wrong_secret_is_refused_like_a_wrong_key() {
    let right = secret("correct horse battery staple");
    let wrong = secret("correct horse battery stable");
    let mut by_secret = Net::pair();
    know(&mut by_secret, 1, address(0), address(1), right.clone());
    call_with(&mut by_secret, address(0), address(1), wrong.clone());
    let mut by_key = Net::pair();
    know(&mut by_key, 1, address(0), address(1), public(key_pair(2)).into());
    call_with(&mut by_key, address(0), address(1), public(key_pair(1)).into());
    // A secret where a key is expected, and the other way round.
    let mut mixed = Net::pair();
    know(&mut mixed, 1, address(0), address(1), public(key_pair(0)).into());
    call_with(&mut mixed, address(0), address(1), right.clone());
    let mut mixed_too = Net::pair();
    know(&mut mixed_too, 1, address(0), address(1), right.clone());
    call_with(&mut mixed_too, address(0), address(1), public(key_pair(1)).into());
    let mut answers = Vec::new();
    for net in [&by_secret, &by_key, &mixed, &mixed_too] {
        assert_eq!(net.nodes[0].ended(), [End::Refused { notify: 24, authentic: false }]);
        assert_eq!(net.nodes[1].ended(), [End::AuthenticationFailed]);
        // The answer has one length, whatever was wrong.
        answers.push(net.seen.last().unwrap().octets.len());
    }
    assert!(answers.windows(2).all(|w| w[0] == w[1]), "{answers:?}");

    // The responder has the wrong one: the initiator notices.
    let mut net = Net::pair();
    let now = net.now;
    know(&mut net, 1, address(0), address(1), right.clone());
    set_mangle(Some(Box::new(|exchange, response, mut payloads| {
        if (exchange, response) == (ExchangeType::IKE_AUTH, true) {
            for payload in &mut payloads {
                if let Payload::Authentication(auth) = payload {
                    *auth.data.last_mut().unwrap() ^= 1;
                }
            }
        }
        payloads
    })));
    net.nodes[0].ike.initiate(now, Initiate { keys: vec![right], ..Net::call(0, 1) });
    net.settle();
    set_mangle(None);
    assert_eq!(net.nodes[0].ended(), [End::AuthenticationFailed]);
}

#[test]
fn short_secrets_cannot_be_made() {
    assert!(SharedSecret::new(vec![7; SharedSecret::MIN_OCTETS - 1]).is_none());
    let secret = SharedSecret::new(vec![7; SharedSecret::MIN_OCTETS]).unwrap();
    assert_eq!(format!("{secret:?}"), "SharedSecret(..)");
}

#[test]
fn nobody_can_talk_to_nobody() {
    let mut net = Net::pair();
    know(&mut net, 1, Identity::Null, Identity::Null, Credential::Null);
    call_with(&mut net, Identity::Null, Identity::Null, Credential::Null);
    net.assert_children_fit();
    assert_eq!(net.nodes[0].children.len(), 1);
    assert_eq!(credentials(&net), [Credential::Null, Credential::Null]);
    let asked = &net.nodes[1].asked[0];
    assert_eq!((&asked.identity, &asked.wanted), (&Identity::Null, &Some(Identity::Null)));
}

/// RFC 7619 §1.1: a client that stays anonymous with a server that does not.
#[test]
fn an_anonymous_client_can_demand_proof() {
    let mut net = Net::pair();
    know(&mut net, 1, Identity::Null, address(1), Credential::Null);
    call_with(&mut net, Identity::Null, address(1), public(key_pair(1)).into());
    net.assert_children_fit();
    assert_eq!(credentials(&net), [public(key_pair(1)).into(), Credential::Null]);
    // And gets none from an impostor.
    let mut net = Net::pair();
    know(&mut net, 1, Identity::Null, address(1), Credential::Null);
    call_with(&mut net, Identity::Null, address(1), public(key_pair(2)).into());
    assert_eq!(net.nodes[0].ended(), [End::AuthenticationFailed]);
}

/// NULL authentication proves nothing where a proof is wanted: neither under a name, nor to who
/// has no grant for it, nor in the place of a signature.
#[test]
fn nothing_proves_nothing() {
    // No grant for anonymous peers.
    let mut net = Net::pair();
    call_with(&mut net, Identity::Null, address(1), public(key_pair(1)).into());
    assert_eq!(net.nodes[1].ended(), [End::NotAuthorized]);
    // A grant for a key, claimed by nobody.
    let mut net = Net::pair();
    know(&mut net, 1, Identity::Null, address(1), public(key_pair(0)).into());
    call_with(&mut net, Identity::Null, address(1), public(key_pair(1)).into());
    assert_eq!(net.nodes[1].ended(), [End::AuthenticationFailed]);
    // The responder stays anonymous where we want it to prove itself.
    let mut net = Net::pair();
    know(&mut net, 1, address(0), Identity::Null, public(key_pair(0)).into());
    call_with(&mut net, address(0), address(1), public(key_pair(1)).into());
    assert_eq!(net.nodes[0].ended(), [End::AuthenticationFailed]);
}

/// The method's number alone does not make an AUTH payload of another kind.
#[test]
fn a_method_that_was_not_granted_is_refused() {
    for (method, grants) in [
        (1, vec![grant(1, 0, public(key_pair(0)).into())]),
        (2, vec![grant(1, 0, public(key_pair(0)).into())]),
        (13, vec![grant(1, 0, public(key_pair(0)).into()), grant(1, 0, Credential::Null)]),
        (9, vec![grant(1, 0, public(key_pair(0)).into())]),
        (0, vec![grant(1, 0, Credential::Null)]),
        (255, vec![grant(1, 0, secret("correct horse battery staple"))]),
    ] {
        let mut net = Net::pair();
        let identity = address(1);
        net.nodes[1].verdicts.insert(address(0), PeerVerdict::Known { identity, grants });
        set_mangle(Some(Box::new(move |exchange, response, mut payloads| {
            if (exchange, response) == (ExchangeType::IKE_AUTH, false) {
                for payload in &mut payloads {
                    if let Payload::Authentication(auth) = payload {
                        *auth = Authentication { method, data: auth.data.clone() };
                    }
                }
            }
            payloads
        })));
        net.initiate(0, 1);
        net.settle();
        set_mangle(None);
        assert_eq!(net.nodes[1].ended(), [End::AuthenticationFailed], "method {method}");
    }
}

/// A pair of hosts that protect what is between their outer addresses.
fn hosts(grants: [bool; 2]) -> (Net, Initiate) {
    let mut net = Net::pair();
    let host = |which| vec![TrafficSelector::host(addr(which))];
    for (own, peer) in [(0, 1), (1, 0)] {
        let identity = address(own);
        let grants = vec![Grant {
            key: public(key_pair(peer)).into(),
            remote: host(peer),
            local: host(own),
            transport: grants[own],
            assigned: Assigned::Nothing,
        }];
        net.nodes[own].verdicts.insert(address(peer), PeerVerdict::Known { identity, grants });
    }
    let child = ChildRequest { local: host(0), remote: host(1), mode: Mode::Transport };
    (net, Initiate { child, ..Net::call(0, 1) })
}

fn modes(net: &Net) -> Vec<Mode> {
    net.nodes.iter().flat_map(|n| n.children.values()).map(|child| child.mode).collect()
}

#[test]
fn transport_mode_is_had_by_who_may_have_it_and_keeps_through_rekeying() {
    for granted in [true, false] {
        let (mut net, call) = hosts([false, granted]);
        let now = net.now;
        let wanted = if granted { Mode::Transport } else { Mode::Tunnel };
        let ike = net.nodes[0].ike.initiate(now, call.clone());
        net.settle();
        net.assert_children_fit();
        assert_eq!(modes(&net), [wanted; 2]);
        for node in 0..2 {
            let now = net.now;
            let child = net.nodes[node].child().id;
            net.nodes[node].ike.rekey_child(now, child);
            net.settle();
            net.assert_children_fit();
            assert_eq!(modes(&net), [wanted; 2], "rekeyed by {node}");
        }
        // Another child under the same IKE SA.
        net.nodes[0].ike.create_child(now, ike, call.child);
        net.settle();
        assert_eq!(modes(&net), [wanted; 4]);
    }
}

#[test]
fn transport_mode_is_between_outer_addresses_only() {
    let (mut net, mut call) = hosts([true, true]);
    let now = net.now;
    call.child.local = vec![inner(0)];
    if let Some(PeerVerdict::Known { grants, .. }) = net.nodes[1].verdicts.get_mut(&address(0)) {
        grants[0].remote = vec![inner(0)];
    }
    net.nodes[0].ike.initiate(now, call);
    net.settle();
    assert_eq!(modes(&net), [Mode::Tunnel; 2]);
}

/// RFC 7296 §1.3.1: who wanted tunnel mode is not given transport mode by an answer.
#[test]
fn transport_mode_that_nobody_asked_for_is_refused() {
    let mut net = Net::pair();
    set_mangle(Some(Box::new(|exchange, response, mut payloads| {
        if (exchange, response) == (ExchangeType::IKE_AUTH, true) {
            payloads.push(crate::peering::bare(NotifyType::USE_TRANSPORT_MODE));
        }
        payloads
    })));
    net.initiate(0, 1);
    net.settle();
    set_mangle(None);
    assert_eq!(net.nodes[0].child_failed(), [End::Misbehaved("USE_TRANSPORT_MODE")]);
    assert!(net.nodes.iter().all(|n| n.children.is_empty()));
}
