//! Coming back with a ticket (RFC 5723).

use super::*;
use crate::message::{Body, Header, Message, Notify, NotifyType, Payloads};

const KEY: [u8; 32] = [5; 32];

fn start(net: &mut Net, node: usize, keys: &[[u8; 32]], change: impl Fn(&mut Config)) {
    let mut config = config(node);
    config.resumption = true;
    config.ticket_keys = keys.iter().map(|key| (*key).into()).collect();
    config.started = Duration::from_secs(1_800_000_000) + net.now.duration_since(net.born);
    change(&mut config);
    let verdicts = net.nodes[node].verdicts.clone();
    net.nodes[node] = Node::new(node, config, net.now);
    net.nodes[node].verdicts = verdicts;
}

/// Two nodes, an SA between them, and the ticket that came of it.
fn with_ticket() -> (Net, Ticket) {
    let mut net = Net::pair();
    for node in 0..2 {
        start(&mut net, node, &[KEY], |_| {});
    }
    net.initiate(0, 1);
    net.settle();
    let ticket = ticket_of(&net);
    (net, ticket)
}

fn ticket_of(net: &Net) -> Ticket {
    let ticket = |event: &Event| match event {
        Event::Ticket { ticket, life, .. } => {
            assert_eq!(*life, Duration::from_secs(86_400));
            Some(ticket.clone())
        }
        _ => None,
    };
    net.nodes[0].events.iter().filter_map(ticket).next_back().expect("a ticket")
}

/// How many tickets the first node has been given.
fn tickets(net: &Net) -> usize {
    net.nodes[0].events.iter().filter(|e| matches!(e, Event::Ticket { .. })).count()
}

fn resume(net: &mut Net, ticket: &Ticket) {
    let now = net.now;
    let kept = Ticket::from_octets(&ticket.to_octets()).unwrap();
    net.nodes[0].ike.resume(now, Net::call(0, 1), &kept, public(key_pair(1)));
    net.collect();
}

/// The exchange types so far, from this packet on.
fn exchanges(net: &Net, mark: usize) -> Vec<u8> {
    net.seen[mark..].iter().map(|p| p.octets[18]).collect()
}

/// Signatures made.
fn signatures(net: &Net) -> usize {
    net.nodes.iter().map(|n| n.signed).sum()
}

#[test]
fn who_restarts_comes_back_without_a_signature() {
    // Either end, or both: the one that calls has its ticket, the one that is called its key.
    for restarted in [&[0][..], &[1], &[0, 1]] {
        let (mut net, ticket) = with_ticket();
        for node in restarted {
            start(&mut net, *node, &[KEY], |_| {});
        }
        for node in &mut net.nodes {
            (node.signed, node.children) = (0, BTreeMap::new());
        }
        let (mark, asked) = (net.seen.len(), net.nodes[1].asked.len());
        let given = tickets(&net);
        resume(&mut net, &ticket);
        net.settle();
        assert_eq!(signatures(&net), 0, "{restarted:?}");
        net.assert_children_fit();
        assert_eq!(net.nodes[0].children.len(), 1);
        // Its authority was asked for, as any stranger's.
        assert_eq!(net.nodes[1].asked.len(), asked + 1);
        // IKE_SESSION_RESUME and IKE_AUTH; and soon key exchanges, for the IKE SA and its child, with
        // the old ones' Deletes.
        assert_eq!(exchanges(&net, mark), [38, 38, 35, 35]);
        net.run(Duration::from_secs(4));
        assert_eq!(exchanges(&net, mark).len(), 4);
        net.run(Duration::from_secs(22));
        let exchanges = exchanges(&net, mark);
        assert_eq!(exchanges.iter().filter(|e| **e == 36).count(), 4);
        assert_eq!(exchanges.len(), 12);
        net.assert_children_fit();
        // None for the next time: that comes with the next signature.
        assert_eq!(tickets(&net), given);
    }
}

#[test]
fn a_ticket_is_good_once() {
    let (mut net, ticket) = with_ticket();
    resume(&mut net, &ticket);
    net.settle();
    let mark = net.seen.len();
    resume(&mut net, &ticket);
    net.settle();
    // TICKET_NACK, and the long way.
    assert_eq!(exchanges(&net, mark)[..6], [38, 38, 34, 34, 35, 35]);
    assert!(net.nodes.iter().all(|n| n.ended().is_empty()));
}

#[test]
fn who_comes_back_all_the_time_signs_again_and_keeps_nobody_from_it() {
    let (mut net, _) = with_ticket();
    let mut cheap = 0;
    for _ in 0..70 {
        let ike = net.initiate(0, 1);
        net.settle();
        let ticket = ticket_of(&net);
        let now = net.now;
        net.nodes[0].ike.close(now, ike);
        net.settle();
        let (before, mark) = (net.nodes[0].established().len(), net.seen.len());
        resume(&mut net, &ticket);
        net.settle();
        let ikes = net.nodes[0].established();
        assert_eq!(ikes.len(), before + 1);
        cheap += usize::from(exchanges(&net, mark)[..4] == [38, 38, 35, 35]);
        net.nodes[0].ike.close(now, *ikes.last().unwrap());
        net.settle();
    }
    assert_eq!(cheap, 64);
}

#[test]
fn what_is_no_good_ticket_costs_a_round_and_nothing_else() {
    let day = Duration::from_secs(86_400);
    for what in 0..5 {
        let (mut net, mut ticket) = with_ticket();
        match what {
            // Its key is gone; it is too old; it was changed; nobody answers; tickets are off.
            0 => start(&mut net, 1, &[[6; 32], [7; 32]], |_| {}),
            1 => net.now += day + Duration::from_secs(1),
            2 => ticket.opaque[20] ^= 1,
            3 => set_mangle(None),
            _ => start(&mut net, 1, &[], |_| {}),
        }
        let before = net.nodes[0].established().len();
        resume(&mut net, &ticket);
        if what == 3 {
            net.wire.clear();
            let until = net.now + Duration::from_millis(1600);
            while net.tick(until) {
                net.wire.retain(|p| p.octets[18] != 38);
                net.settle();
            }
        }
        net.settle();
        assert_eq!(net.nodes[0].established().len(), before + 1, "{what}");
        let ike = *net.nodes[0].established().last().unwrap();
        assert!(net.nodes[0].children.values().any(|c| c.ike == ike), "{what}");
    }
}

#[test]
fn the_key_before_still_opens() {
    let (mut net, ticket) = with_ticket();
    net.nodes[1].ike.set_ticket_keys(&[[6; 32].into(), KEY.into()]);
    let mark = net.seen.len();
    resume(&mut net, &ticket);
    net.settle();
    assert_eq!(exchanges(&net, mark)[..4], [38, 38, 35, 35]);
}

#[test]
fn it_never_replaces_authority() {
    // The peer's record is gone, or has another key now.
    for gone in [true, false] {
        let (mut net, ticket) = with_ticket();
        let before = net.nodes[1].established().len();
        if gone {
            net.nodes[1].verdicts.clear();
        } else {
            let verdict = net.nodes[1].verdicts.values_mut().next().unwrap();
            let PeerVerdict::Known { grants, .. } = verdict else { panic!() };
            grants[0].key = public(key_pair(2)).into();
        }
        resume(&mut net, &ticket);
        net.settle();
        assert_eq!(net.nodes[1].established().len(), before);
        assert_eq!(net.nodes[0].ended(), [End::Refused { notify: 24, authentic: false }]);
    }
}

#[test]
fn a_ticket_without_its_secret_is_nothing() {
    let (mut net, ticket) = with_ticket();
    let mut stolen = ticket.clone();
    let last = stolen.secret.len() - 1;
    stolen.secret[last] ^= 1;
    resume(&mut net, &stolen);
    net.run(Duration::from_secs(31));
    assert_eq!(net.nodes[1].established().len(), 1);
    // And it is not spent by that.
    let mark = net.seen.len();
    resume(&mut net, &ticket);
    net.settle();
    assert_eq!(exchanges(&net, mark)[..4], [38, 38, 35, 35]);
}

#[test]
fn losses_and_repetitions_are_made_good() {
    for lost in 0..8 {
        let (mut net, ticket) = with_ticket();
        start(&mut net, 0, &[KEY], |_| {});
        net.nodes[0].children.clear();
        resume(&mut net, &ticket);
        let until = net.now + Duration::from_secs(20);
        let mut place = 0;
        loop {
            while let Some(packet) = net.wire.pop_front() {
                if place != lost {
                    net.deliver(&packet);
                    net.deliver(&packet);
                }
                place += 1;
            }
            if !net.tick(until) {
                break;
            }
        }
        assert_eq!(net.nodes[0].children.len(), 1, "{lost}");
        assert_eq!(net.nodes[0].ended(), [], "{lost}");
    }
}

#[test]
fn a_cookie_is_asked_for_as_ever() {
    let (mut net, ticket) = with_ticket();
    start(&mut net, 1, &[KEY], |c| c.cookie_threshold = 0);
    let mark = net.seen.len();
    resume(&mut net, &ticket);
    net.settle();
    assert_eq!(exchanges(&net, mark)[..6], [38, 38, 38, 38, 35, 35]);
    assert_eq!(net.nodes[1].ike.counters().cookies_sent, 1);
}

#[test]
fn under_load_no_ticket_is_looked_at_before_the_cookie() {
    let (mut net, mut ticket) = with_ticket();
    start(&mut net, 1, &[KEY], |c| c.cookie_threshold = 0);
    ticket.opaque[20] ^= 1;
    let mark = net.seen.len();
    resume(&mut net, &ticket);
    let request = net.wire.pop_front().unwrap();
    net.deliver(&request);
    // Its answer is the cookie and not what the ticket is worth.
    assert_eq!(net.nodes[1].ike.counters().cookies_sent, 1);
    net.settle();
    assert_eq!(exchanges(&net, mark)[..6], [38, 38, 38, 38, 34, 34]);
    assert_eq!(net.nodes[1].ike.counters().cookies_sent, 2, "the long way asks for its own");
}

/// Attack A26.
/// P14: what has no nonce can only be forged, and a cookie is longer.
#[test]
fn who_brings_no_nonce_is_asked_for_no_cookie() {
    let (mut net, _) = with_ticket();
    start(&mut net, 1, &[KEY], |c| c.cookie_threshold = 0);
    let header = Header {
        spi_i: 7,
        spi_r: 0,
        exchange: ExchangeType::IKE_SESSION_RESUME,
        initiator: true,
        response: false,
        message_id: 0,
    };
    let ticket = || Payload::Notify(Notify::new(NotifyType::TICKET_OPAQUE, []));
    let nonce = Payload::Nonce(vec![1; 16]);
    for (payloads, cookies) in [(vec![ticket()], 0), (vec![nonce, ticket()], 1)] {
        let octets = header.write_clear(&payloads);
        let (from, to) = ("198.51.100.1:500".parse().unwrap(), SocketAddr::new(addr(1), 500));
        let came = octets.len();
        net.deliver(&Packet { from, to, octets });
        let answers: Vec<_> = net.wire.drain(..).map(|packet| packet.octets.len()).collect();
        assert_eq!(answers.len(), cookies, "{came} octets");
        assert!(answers.iter().all(|answer| 2 * answer <= 3 * came), "{answers:?} for {came}");
    }
    assert_eq!(net.nodes[1].ike.counters().cookies_sent, 1);
}

#[test]
fn a_call_with_a_ticket_can_be_taken_back() {
    let (mut net, ticket) = with_ticket();
    let (now, mark) = (net.now, net.seen.len());
    let before = net.nodes[0].ike.reserved();
    let ike = net.nodes[0].ike.resume(now, Net::call(0, 1), &ticket, public(key_pair(1)));
    assert!(net.nodes[0].ike.withdraw(now, ike));
    // Its answer finds nobody, and nothing is said of it.
    net.run(Duration::from_secs(31));
    assert_eq!(exchanges(&net, mark), [38, 38]);
    assert_eq!(net.nodes[0].ended(), []);
    assert_eq!((net.nodes[0].ike.len(), net.nodes[0].ike.reserved()), (1, before));
    assert_eq!(net.nodes[1].ike.half_open(), 0);
}

#[test]
fn the_ticket_says_nothing_to_others() {
    let (mut net, ticket) = with_ticket();
    let mark = net.seen.len();
    resume(&mut net, &ticket);
    let first = &net.seen[mark];
    let Body::Clear { first, octets } = Message::read(&first.octets).unwrap().body else {
        panic!()
    };
    let payloads = Payloads::read(first, octets).unwrap();
    let opaque = &payloads.notify(NotifyType::TICKET_OPAQUE).unwrap().data;
    for secret in [&ticket.secret[12..], &public(key_pair(0)).digest()[..], &[192, 0, 2, 1]] {
        assert!(!opaque.windows(secret.len()).any(|w| w == secret));
    }
    assert!(net.seen[mark].octets.len() < 600);
}
