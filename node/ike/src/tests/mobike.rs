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
    assert!(bombs <= 8, "{bombs} datagrams to the victim");
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
