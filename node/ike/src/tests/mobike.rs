//! Outer addresses change (RFC 4555).

use sa::Envelope;

use super::*;
use crate::message::{Notify, NotifyType};
use crate::peering::bare;

fn elsewhere() -> IpAddr {
    "198.51.100.7".parse().unwrap()
}

/// An established pair that may move.
fn mobile() -> (Net, IkeId, IkeId) {
    let (mut net, a, b) = Net::established();
    for (node, ike) in [(0, a), (1, b)] {
        let own = net.nodes[node].addr;
        net.nodes[node].ike.allow_moves(ike, true);
        let now = net.now;
        net.nodes[node].ike.set_addresses(now, vec![own]);
    }
    (net, a, b)
}

/// A node's only address is another now.
fn readdress(net: &mut Net, node: usize, to: IpAddr) {
    let now = net.now;
    let node = &mut net.nodes[node];
    node.addr = to;
    node.ike.set_addresses(now, vec![to]);
    for (ike, _) in node.ike.stranded() {
        node.ike.relocate(now, ike, to);
    }
    net.collect();
}

fn envelopes(net: &Net, node: usize) -> Vec<Envelope> {
    let moved = |event: &Event| match event {
        Event::Moved { envelope, .. } => Some(*envelope),
        _ => None,
    };
    net.nodes[node].events.iter().filter_map(moved).collect()
}

#[test]
fn the_initiator_moves_and_the_responder_follows_when_it_has_heard_from_there() {
    let (mut net, a, b) = mobile();
    let mark = net.seen.len();
    readdress(&mut net, 0, elsewhere());
    // We send from the new address at once; the old one is gone.
    assert_eq!(envelopes(&net, 0).last().unwrap().local.ip(), elsewhere());
    let update = net.wire.pop_front().unwrap();
    assert_eq!((update.from.ip(), update.from.port()), (elsewhere(), 4500));
    net.deliver(&update);
    // The responder answers there, but sends its ESP nowhere new yet.
    assert_eq!(envelopes(&net, 1), []);
    net.settle();
    assert_eq!(envelopes(&net, 1).last().unwrap().remote.ip(), elsewhere());
    // UPDATE_SA_ADDRESSES, COOKIE2 back.
    assert_eq!(net.seen.len() - mark, 4);
    assert!(net.nodes.iter().all(|n| n.ended().is_empty() && n.children.len() == 1));
    // And everything goes on from there.
    let (now, child) = (net.now, net.nodes[0].child().id);
    net.nodes[0].ike.rekey_child(now, child);
    net.settle();
    net.nodes[1].ike.rekey_ike(now, b);
    net.settle();
    net.assert_children_fit();
    assert_eq!(net.nodes[0].child().envelope.local.ip(), elsewhere());
    net.nodes[0].ike.close(now, a);
    net.settle();
    assert_eq!(net.nodes[1].ended(), [End::DeletedByPeer]);
}

#[test]
fn the_responder_moves_and_the_initiator_decides_so() {
    let (mut net, _, b) = mobile();
    readdress(&mut net, 1, elsewhere());
    assert_eq!(envelopes(&net, 1).last().unwrap().local.ip(), elsewhere());
    let told = net.wire.pop_front().unwrap();
    net.deliver(&told);
    assert_eq!(envelopes(&net, 0), []);
    net.settle();
    assert_eq!(envelopes(&net, 0).last().unwrap().remote.ip(), elsewhere());
    let (now, child) = (net.now, net.nodes[1].child().id);
    net.nodes[1].ike.rekey_child(now, child);
    net.nodes[1].ike.rekey_ike(now, b);
    net.settle();
    net.assert_children_fit();
    assert_eq!(net.nodes[0].child().envelope.remote.ip(), elsewhere());
}

#[test]
fn a_move_is_made_good_whatever_is_lost_and_whatever_is_under_way() {
    for lost in 0..8 {
        for what in 0..4 {
            let (mut net, a, b) = mobile();
            let (now, child) = (net.now, net.nodes[0].child().id);
            // Under way as the address goes: none of these is answered at the old address.
            match what {
                0 => {}
                1 => net.nodes[0].ike.rekey_child(now, child),
                2 => net.nodes[0].ike.rekey_ike(now, a),
                _ => net.nodes[1].ike.rekey_ike(now, b),
            }
            net.collect();
            net.wire.clear();
            readdress(&mut net, 0, elsewhere());
            let until = net.now + Duration::from_secs(20);
            let mut place = 0;
            loop {
                while let Some(packet) = net.wire.pop_front() {
                    if place != lost {
                        net.deliver(&packet);
                    }
                    place += 1;
                }
                if !net.tick(until) {
                    break;
                }
            }
            assert_eq!(net.nodes[1].ended(), [], "{lost} {what}");
            assert_eq!(
                envelopes(&net, 1).last().map(|e| e.remote.ip()),
                Some(elsewhere()),
                "{lost} {what}"
            );
            assert_eq!(net.nodes[0].children.len(), 1, "{lost} {what}");
            assert_eq!(net.nodes[1].children.len(), 1, "{lost} {what}");
        }
    }
}

/// Where a node's ESP goes, and how.
fn way(net: &Net, node: usize) -> Envelope {
    let newest = |event: &Event| match event {
        Event::Moved { envelope, .. } => Some(*envelope),
        Event::ChildUp(child) => Some(child.envelope),
        _ => None,
    };
    net.nodes[node].events.iter().rev().find_map(newest).unwrap()
}

/// Both ends have come to the same pair of addresses, and nothing is between them.
fn assert_way(net: &Net, of_a: IpAddr, what: &str) {
    let ends: Vec<_> = net.nodes.iter().map(Node::ended).collect();
    assert_eq!(ends, [[], []], "{what}");
    assert!(net.nodes.iter().all(|n| n.children.len() == 1), "{what}");
    let (a, b) = (way(net, 0), way(net, 1));
    assert_eq!((a.local.ip(), a.remote.ip()), (of_a, addr(1)), "{what}");
    assert_eq!((b.local.ip(), b.remote.ip()), (addr(1), of_a), "{what}");
    assert_eq!((a.udp, b.udp), (false, false), "{what}");
}

#[test]
fn a_check_that_is_lost_with_its_ike_sa_is_made_under_the_next() {
    let (mut net, a, _) = mobile();
    readdress(&mut net, 0, elsewhere());
    let update = net.wire.pop_front().unwrap();
    net.deliver(&update);
    let (answer, _lost) = (net.wire.pop_front().unwrap(), net.wire.pop_front().unwrap());
    net.deliver(&answer);
    assert!(net.wire.is_empty());
    let now = net.now;
    net.nodes[0].ike.rekey_ike(now, a);
    net.settle();
    assert_way(&net, elsewhere(), "check");
}

#[test]
fn an_update_that_is_lost_with_its_ike_sa_is_made_under_the_next() {
    let (mut net, _, b) = mobile();
    readdress(&mut net, 0, elsewhere());
    net.wire.clear();
    let now = net.now;
    net.nodes[1].ike.rekey_ike(now, b);
    net.collect();
    // It still asks the old address, which leads here for a while.
    let mut rekey = net.wire.pop_front().unwrap();
    rekey.to.set_ip(elsewhere());
    net.deliver(&rekey);
    net.settle();
    assert_way(&net, elsewhere(), "update");
}

#[test]
fn an_answer_that_is_overtaken_by_a_rekey_shows_no_nat_where_none_is() {
    let (mut net, _, b) = mobile();
    let now = net.now;
    net.nodes[1].ike.rekey_ike(now, b);
    net.collect();
    net.wire.clear();
    readdress(&mut net, 0, elsewhere());
    let update = net.wire.pop_front().unwrap();
    net.deliver(&update);
    // The answer, and the rekey again.
    let (answer, rekey) = (net.wire.pop_front().unwrap(), net.wire.pop_front().unwrap());
    net.deliver(&rekey);
    net.deliver(&answer);
    net.run(Duration::from_secs(20));
    assert_way(&net, elsewhere(), "overtaken");
    assert!(net.nodes.iter().flat_map(|n| &n.events).all(|event| match event {
        Event::Moved { envelope, .. } => !envelope.udp,
        _ => true,
    }));
}

#[test]
fn a_move_under_a_successor_that_is_not_settled_yet_is_followed() {
    let mut under_candidate = 0;
    for probes in 0..8 {
        let (mut net, a, b) = mobile();
        // Other nonces.
        for _ in 0..probes {
            let now = net.now;
            net.nodes[0].ike.probe(now, a);
            net.nodes[1].ike.probe(now, b);
            net.settle();
        }
        let now = net.now;
        net.nodes[0].ike.rekey_ike(now, a);
        net.nodes[1].ike.rekey_ike(now, b);
        net.collect();
        let (of_a, of_b) = (net.wire.pop_front().unwrap(), net.wire.pop_front().unwrap());
        net.deliver(&of_b);
        net.wire.clear();
        net.deliver(&of_a);
        let answer = net.wire.pop_front().unwrap();
        net.deliver(&answer);
        // Whatever they say now is lost, but for the move.
        net.wire.clear();
        readdress(&mut net, 0, elsewhere());
        let mark = net.seen.len();
        net.settle();
        under_candidate += usize::from(net.seen.len() > mark);
        net.run(Duration::from_secs(60));
        assert_way(&net, elsewhere(), &format!("{probes}"));
    }
    assert!(under_candidate > 0);
}

#[test]
fn a_move_is_made_good_in_whatever_order_rekeys_go_with_it() {
    for seed in 0..400_u64 {
        let (mut net, a, b) = mobile();
        // Knuth's MMIX; the upper bits are the good ones.
        let mut state = seed;
        let mut draw = |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let start = net.now;
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut plan = vec![(at(draw(3000)), 0), (at(draw(3000)), 1), (at(draw(3000)), 2)];
        plan.push((at(draw(3000)), 3 + draw(2)));
        plan.sort();
        let until = at(90_000);
        // Fewer than any request has tries.
        let mut losses = 3;
        loop {
            net.collect();
            // Some time may pass before the next one arrives, and not in order.
            while !net.wire.is_empty() && draw(4) != 0 {
                let place = usize::try_from(draw(net.wire.len() as u64)).unwrap();
                let packet = net.wire.remove(place).unwrap();
                if losses > 0 && draw(5) == 0 {
                    losses -= 1;
                } else {
                    net.deliver(&packet);
                }
            }
            let next = plan.first().map_or(until, |event| event.0);
            if net.tick(next.min(net.now + Duration::from_millis(200)).min(until)) {
                continue;
            }
            let now = net.now;
            if now >= until && net.wire.is_empty() {
                break;
            }
            if plan.first().is_some_and(|event| event.0 <= now) {
                match plan.remove(0).1 {
                    0 => readdress(&mut net, 0, elsewhere()),
                    1 => net.nodes[0].ike.rekey_ike(now, a),
                    2 => net.nodes[1].ike.rekey_ike(now, b),
                    3 => net.nodes[0].ike.probe(now, a),
                    _ => net.nodes[1].ike.probe(now, b),
                }
            }
        }
        assert_way(&net, elsewhere(), &format!("seed {seed}"));
    }
}

#[test]
fn two_moves_in_a_row_end_at_the_second() {
    let (mut net, _, _) = mobile();
    readdress(&mut net, 0, "198.51.100.6".parse().unwrap());
    // The check of the first address is on its way when the second takes over.
    for _ in 0..2 {
        let packet = net.wire.pop_front().unwrap();
        net.deliver(&packet);
    }
    readdress(&mut net, 0, elsewhere());
    net.run(Duration::from_secs(20));
    assert_eq!(envelopes(&net, 1).last().unwrap().remote.ip(), elsewhere());
    assert!(envelopes(&net, 1).iter().all(|e| e.remote.ip() == elsewhere()));
    net.run(Duration::from_secs(60));
    assert!(net.nodes.iter().all(|n| n.ended().is_empty()));
}

/// Attack A14.
#[test]
fn esp_does_not_go_to_an_address_that_does_not_answer() {
    // The peer names a victim: whoever forges the source, or asks for it, has to answer there.
    let (mut net, _, _) = mobile();
    readdress(&mut net, 0, elsewhere());
    let mut update = net.wire.pop_front().unwrap();
    update.from.set_ip("203.0.113.99".parse().unwrap());
    net.deliver(&update);
    net.wire.clear();
    // Whatever is asked for meanwhile stays where it was, too.
    let (now, child) = (net.now, net.nodes[1].child().id);
    net.nodes[1].ike.rekey_child(now, child);
    net.run(Duration::from_secs(120));
    assert_eq!(envelopes(&net, 1), []);
    assert_eq!(net.nodes[1].ended(), [End::Timeout]);
    let bombs = net.seen.iter().filter(|p| p.to.ip() == update.from.ip()).count();
    assert!(bombs <= 12, "{bombs} datagrams to the victim");
}

#[test]
fn who_may_not_move_is_told_so_and_nothing_moves() {
    let (mut net, _, b) = mobile();
    net.nodes[1].ike.allow_moves(b, false);
    readdress(&mut net, 0, elsewhere());
    net.settle();
    assert_eq!(envelopes(&net, 1), []);
    // UNACCEPTABLE_ADDRESSES: the pair is of no use, and goes at both ends.
    assert_eq!(net.nodes[0].ended(), [End::Refused { notify: 40, authentic: true }]);
    assert_eq!(net.nodes[1].ended(), [End::DeletedByPeer]);
}

#[test]
fn nothing_moves_without_the_keys() {
    let (mut net, _, _) = mobile();
    readdress(&mut net, 0, elsewhere());
    let update = net.wire.pop_front().unwrap();
    for at in 0..update.octets.len() {
        let mut forged = update.clone();
        forged.octets[at] ^= 1;
        net.deliver(&forged);
    }
    assert!(net.wire.is_empty());
    assert_eq!(envelopes(&net, 1), []);
    net.deliver(&update);
    net.settle();
    assert_eq!(envelopes(&net, 1).len(), 1);
    // Played back from elsewhere it is answered, and nothing else.
    let mut again = update;
    again.from.set_ip("203.0.113.99".parse().unwrap());
    net.deliver(&again);
    net.settle();
    assert_eq!(envelopes(&net, 1).len(), 1);
}

#[test]
fn a_wrong_cookie_closes_the_sa() {
    let (mut net, _, _) = mobile();
    readdress(&mut net, 0, elsewhere());
    set_mangle(Some(Box::new(|exchange, response, mut payloads| {
        if exchange == ExchangeType::INFORMATIONAL && response {
            for payload in &mut payloads {
                if let Payload::Notify(n) = payload
                    && n.kind == NotifyType::COOKIE2
                {
                    n.data[0] ^= 1;
                }
            }
        }
        payloads
    })));
    net.settle();
    set_mangle(None);
    net.run(Duration::from_secs(30));
    assert_eq!(net.nodes[0].ended(), [End::Misbehaved("COOKIE2")]);
}

#[test]
fn a_nat_that_must_not_be_there_is_said() {
    for honest in [true, false] {
        let (mut net, _, _) = mobile();
        let mut tuple = vec![198, 51, 100, 7, 192, 0, 2, 2, 0x11, 0x94, 0x11, 0x94];
        if !honest {
            tuple[3] = 8;
        }
        set_mangle(Some(Box::new(move |_, response, mut payloads| {
            if !response {
                let notify = Notify::new(NotifyType::NO_NATS_ALLOWED, tuple.clone());
                payloads.push(Payload::Notify(notify));
            }
            payloads
        })));
        readdress(&mut net, 0, elsewhere());
        net.settle();
        set_mangle(None);
        assert_eq!(envelopes(&net, 1).len(), usize::from(honest));
        let refused = End::Refused { notify: 41, authentic: true };
        assert_eq!(net.nodes[0].ended(), if honest { vec![] } else { vec![refused] });
    }
}

#[test]
fn probes_of_other_paths_are_answered_where_they_come_from_and_move_nothing() {
    let (mut net, a, _) = mobile();
    let now = net.now;
    net.nodes[0].ike.probe(now, a);
    net.collect();
    let probe = net.wire.pop_front().unwrap();
    for last in [9, 8, 1] {
        // The same request on several paths, as strongSwan looks for one.
        let from = SocketAddr::new(IpAddr::from([198, 51, 100, last]), 4500);
        net.deliver(&Packet { from, ..probe.clone() });
        let answer = net.wire.pop_front().unwrap();
        assert_eq!(answer.to, from);
    }
    assert_eq!(envelopes(&net, 1), []);
}

#[test]
fn without_mobike_it_is_shown_from_where_we_speak() {
    let mut net = Net::with(|c| {
        c.mobike = Mobike::Off;
        c.encapsulation = Encapsulation::WhenNatted;
    });
    let a = net.initiate(0, 1);
    net.settle();
    let b = net.nodes[1].established()[0];
    net.nodes[1].ike.allow_moves(b, true);
    let own = net.nodes[0].addr;
    let now = net.now;
    net.nodes[0].ike.set_addresses(now, vec![own]);
    readdress(&mut net, 0, elsewhere());
    let probe = net.wire.pop_front().unwrap();
    assert_eq!(probe.from.ip(), elsewhere());
    // An UPDATE_SA_ADDRESSES that was not agreed on is nothing.
    set_mangle(Some(Box::new(|_, _, mut payloads| {
        payloads.push(bare(NotifyType::UPDATE_SA_ADDRESSES));
        payloads
    })));
    net.settle();
    let now = net.now;
    net.nodes[0].ike.probe(now, a);
    net.settle();
    set_mangle(None);
    assert_eq!(envelopes(&net, 1), []);
}

#[test]
fn while_there_is_no_address_nobody_is_given_up() {
    let (mut net, a, _) = mobile();
    let home = net.nodes[0].addr;
    let nowhere: IpAddr = "127.0.0.2".parse().unwrap();
    let now = net.now;
    net.nodes[0].ike.set_addresses(now, vec![nowhere]);
    net.nodes[0].addr = nowhere;
    let now = net.now;
    net.nodes[0].ike.probe(now, a);
    net.collect();
    net.wire.clear();
    let until = net.now + Duration::from_secs(300);
    while net.tick(until) {
        net.wire.clear();
    }
    assert_eq!(net.nodes[0].ended(), []);
    assert_eq!(net.nodes[0].ike.stranded(), [(a, addr(1))]);
    net.nodes[0].addr = home;
    let now = net.now;
    net.nodes[0].ike.set_addresses(now, vec![home]);
    net.run(Duration::from_secs(61));
    assert_eq!(net.nodes[0].ended(), []);
    assert_eq!(net.nodes[0].ike.stranded(), []);
}

#[test]
fn other_addresses_are_told_only_if_wanted() {
    for mobike in [Mobike::On, Mobike::Announce] {
        let mut net = Net::with(|c| c.mobike = mobike);
        for node in 0..2 {
            let own = net.nodes[node].addr;
            let now = net.now;
            net.nodes[node]
                .ike
                .set_addresses(now, vec![own, elsewhere(), "2001:db8::5".parse().unwrap()]);
        }
        let told = std::rc::Rc::new(std::cell::Cell::new(0));
        let count = told.clone();
        set_mangle(Some(Box::new(move |_, _, payloads| {
            let additional = |p: &&Payload| {
                matches!(p, Payload::Notify(n) if n.kind == NotifyType::ADDITIONAL_IP4_ADDRESS
                    || n.kind == NotifyType::ADDITIONAL_IP6_ADDRESS)
            };
            count.set(count.get() + payloads.iter().filter(additional).count());
            payloads
        })));
        net.initiate(0, 1);
        net.settle();
        set_mangle(None);
        assert_eq!(told.get(), if mobike == Mobike::On { 0 } else { 4 });
    }
}

/// Whoever copies the answers, and is faster with them from where he is, gets nothing of it: an answer says
/// that the peer is where it was asked, wherever it seems to come from (A14).
#[test]
fn a_copied_answer_says_nothing_of_where_it_came_from() {
    let thief = SocketAddr::new("203.0.113.66".parse().unwrap(), 4500);
    for mover in 0..2 {
        let (mut net, a, b) = mobile();
        readdress(&mut net, mover, elsewhere());
        while let Some(packet) = net.wire.pop_front() {
            if packet.octets[19] & 0x20 != 0 {
                net.deliver(&Packet { from: thief, ..packet.clone() });
            }
            net.deliver(&packet);
        }
        for (which, ike) in [(0, a), (1, b)] {
            assert!(!envelopes(&net, which).iter().any(|e| e.remote.ip() == thief.ip()), "{which}");
            let (now, before) = (net.now, net.nodes[which].events.len());
            net.nodes[which].ike.probe(now, ike);
            net.settle();
            assert!(net.nodes[which].events.len() > before, "{which}");
        }
        assert_eq!(envelopes(&net, 1 - mover).last().unwrap().remote.ip(), elsewhere());
        net.assert_children_fit();
    }
}
