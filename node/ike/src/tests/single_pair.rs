//! A peer that takes only a single pair of addresses a child (RFC 7296 §2.9).

use super::*;
use crate::failure::Failure;
use crate::message::NotifyType;
use crate::peering::bare;

/// Refuses every child of more than a pair, and that too if it is not `content` with it.
fn only_single_pairs(content: bool) {
    let nowhere = TrafficSelector::prefix("203.0.113.0/24".parse().unwrap());
    let wide = |side: &[TrafficSelector]| side.iter().any(|s| s.as_host().is_none());
    set_mangle(Some(Box::new(move |_, response, payloads| {
        let other = |payload| match payload {
            // What the peer cannot agree to it refuses, and that in other words.
            Payload::TsInitiator(side) if !response && (wide(&side) || !content) => {
                Payload::TsInitiator(vec![nowhere])
            }
            Payload::Notify(notify) if notify == Failure::TsUnacceptable.notify() => {
                bare(NotifyType::SINGLE_PAIR_REQUIRED)
            }
            payload => payload,
        };
        payloads.into_iter().map(other).collect()
    })));
}

/// All of both nets, for a packet between the two hosts or for none.
fn wide(packet: bool) -> ChildRequest {
    let net = TrafficSelector::prefix("10.0.0.0/24".parse().unwrap());
    let side = |which| if packet { vec![inner(which), net] } else { vec![net] };
    ChildRequest { local: side(0), remote: side(1), mode: Mode::Tunnel }
}

#[test]
fn who_wants_a_single_pair_is_asked_for_the_packets_own() {
    let mut net = Net::pair();
    only_single_pairs(true);
    let now = net.now;
    let call = Initiate { child: wide(true), ..Net::call(0, 1) };
    let ike = net.nodes[0].ike.initiate(now, call);
    net.settle();
    net.assert_children_fit();
    let child = net.nodes[0].child();
    assert_eq!((&child.local, &child.remote), (&vec![inner(0)], &vec![inner(1)]));
    assert_eq!(net.nodes[0].child_failed(), []);
    // And so in CREATE_CHILD_SA.
    net.nodes[0].ike.create_child(now, ike, wide(true));
    net.settle();
    assert_eq!(net.nodes[0].children.len(), 2);
    net.assert_children_fit();
    assert_eq!(net.nodes[0].child_failed(), []);
    set_mangle(None);
}

#[test]
fn it_is_asked_once_more_and_only_for_a_packet() {
    // It has no single pair either; or nothing says which it would be.
    for (content, packet) in [(false, true), (true, false)] {
        let mut net = Net::pair();
        only_single_pairs(content);
        let refused = End::Refused { notify: 34, authentic: true };
        let now = net.now;
        let call = Initiate { child: wide(packet), ..Net::call(0, 1) };
        let ike = net.nodes[0].ike.initiate(now, call);
        net.settle();
        let asked = |net: &Net| net.seen.iter().filter(|p| p.octets[18] == 36).count() / 2;
        assert_eq!(asked(&net), usize::from(packet));
        assert_eq!(net.nodes[0].child_failed(), [refused]);
        net.nodes[0].ike.create_child(now, ike, wide(packet));
        net.settle();
        assert_eq!(asked(&net), if packet { 3 } else { 1 });
        assert_eq!(net.nodes[0].child_failed(), [refused, refused]);
        set_mangle(None);
        assert!(net.nodes.iter().all(|n| n.children.is_empty() && n.ended().is_empty()));
    }
}
