//! One exchange in the middle of another.

use super::*;
use crate::message::{Configuration, Notify, NotifyType, TransformType};

fn children_of(net: &Net) -> [usize; 2] {
    [0, 1].map(|which| net.nodes[which].children.len())
}

/// Between `local` on this side and `remote` on the other.
fn child_between(local: usize, remote: usize) -> ChildRequest {
    ChildRequest { local: vec![inner(local)], remote: vec![inner(remote)], mode: Mode::Tunnel }
}

/// Delivers the first packet on the wire from a node.
fn deliver_from(net: &mut Net, which: usize) {
    let at = net.wire.iter().position(|packet| packet.from.ip() == addr(which)).unwrap();
    let packet = net.wire.remove(at).unwrap();
    net.deliver(&packet);
}

/// Both sides' windows are where the other believes them to be.
fn assert_in_step(net: &mut Net, ikes: [IkeId; 2]) {
    for (which, ike) in ikes.into_iter().enumerate() {
        let now = net.now;
        let alive = |net: &Net| {
            net.nodes[which].events.iter().filter(|e| matches!(e, Event::Alive { .. })).count()
        };
        let before = alive(net);
        net.nodes[which].ike.probe(now, ike);
        net.run(Duration::from_secs(120));
        assert_eq!(net.nodes[which].ended(), []);
        assert_eq!(alive(net), before + 1, "node {which}");
    }
}

/// While the owner is being asked about a child, the peer's repetition may find that it has it
/// already: a word that comes then is no answer to anything (RFC 7296 §2.2).
#[test]
fn a_request_is_answered_once_however_late_the_owners_word_is() {
    for allowed in [false, true] {
        let (mut net, a, b) = Net::established();
        net.nodes[1].prompt = false;
        let now = net.now;
        net.nodes[0].ike.create_child(now, a, child_between(5, 1));
        net.settle();
        assert!(matches!(net.nodes[1].waiting.front(), Some(Output::NeedChild(_))));
        // The other wants the very same, and may have it.
        net.nodes[1].ike.create_child(now, b, child_between(1, 5));
        net.settle();
        assert_eq!(children_of(&net), [2, 2]);
        // The first side asks again meanwhile.
        net.run(Duration::from_secs(1));
        assert_eq!(children_of(&net), [3, 3]);
        let now = net.now;
        net.nodes[1].ike.handle_child(now, b, allowed);
        net.settle();
        assert_eq!(children_of(&net), [3, 3]);
        assert_in_step(&mut net, [a, b]);
        net.assert_children_fit();
    }
}

/// The same if the peer has gone on to its next request by then, about which the owner has not been
/// asked yet.
#[test]
fn the_owners_word_about_one_child_is_not_taken_for_another() {
    let (mut net, a, b) = Net::established();
    net.nodes[1].prompt = false;
    let now = net.now;
    net.nodes[0].ike.create_child(now, a, child_between(5, 1));
    net.settle();
    net.nodes[1].ike.create_child(now, b, child_between(1, 5));
    net.settle();
    // The repetition is answered, because of what was granted meanwhile.
    net.run(Duration::from_secs(1));
    assert_eq!(children_of(&net), [3, 3]);
    let now = net.now;
    net.nodes[0].ike.create_child(now, a, child_between(6, 1));
    net.settle();
    assert_eq!(net.nodes[1].waiting.len(), 1, "one question at a time");
    let mark = net.seen.len();
    net.nodes[1].ike.handle_child(now, b, true);
    net.settle();
    assert_eq!(net.seen.len(), mark, "not what was asked");
    assert_eq!(children_of(&net), [3, 3]);
    // When that is repeated the owner is asked about it.
    net.run(Duration::from_secs(1));
    assert_eq!(children_of(&net), [3, 3]);
    let Some(Output::NeedChild(need)) = net.nodes[1].waiting.get(1) else { panic!("not asked") };
    assert_eq!(need.remote_selectors, [inner(6)]);
    let now = net.now;
    net.nodes[1].ike.handle_child(now, b, true);
    net.settle();
    assert_eq!(children_of(&net), [4, 4]);
    assert_in_step(&mut net, [a, b]);
    net.assert_children_fit();
}

/// A replacement that waits for one more key exchange and comes to nothing, because the IKE SA is
/// being replaced: the child is as it was, and whoever wants to replace it can.
#[test]
fn a_replacement_that_fails_half_way_can_be_asked_for_by_the_other_side() {
    let (mut net, a, b) = Net::established_with(true);
    let now = net.now;
    let child = net.nodes[0].child().id;
    let theirs = net.nodes[1].child().id;
    // Who is put off does not come back for a while.
    set_mangle(Some(Box::new(|exchange, response, payloads| {
        if exchange == ExchangeType::IKE_FOLLOWUP_KE && response {
            return vec![Payload::Notify(Notify::new(NotifyType::NO_ADDITIONAL_SAS, []))];
        }
        payloads
    })));
    net.nodes[0].ike.rekey_child(now, child);
    net.collect();
    while net.wire.iter().all(|packet| packet.octets[18] != 44) {
        let packet = net.wire.pop_front().unwrap();
        net.deliver(&packet);
    }
    net.nodes[1].ike.rekey_ike(now, b);
    net.settle();
    set_mangle(None);
    let now = net.now;
    net.nodes[1].ike.rekey_child(now, theirs);
    net.run(Duration::from_secs(30));
    assert_ne!(net.nodes[1].child().id, theirs, "replaced");
    net.assert_children_fit();
    assert_in_step(&mut net, [a, b]);
}

/// Requests for children offer one group only, and not the one of their KE payload, so often.
fn insist_on_another_group(times: usize) {
    let mut left = times;
    set_mangle(Some(Box::new(move |exchange, response, mut payloads| {
        if exchange == ExchangeType::CREATE_CHILD_SA && !response && left > 0 {
            left -= 1;
            for payload in &mut payloads {
                if let Payload::Sa(proposals) = payload {
                    proposals.retain(|p| p.transforms.iter().any(|t| t.kind == TransformType::KE));
                    for proposal in proposals {
                        proposal.transforms.retain(|t| t.kind != TransformType::KE || t.id == 19);
                    }
                }
            }
        }
        payloads
    })));
}

/// INVALID_KE_PAYLOAD in answer to a rekey, when the child is not to be replaced any more: whoever
/// has closed it means that it is closed (RFC 7296 §2.25).
#[test]
fn a_child_that_was_closed_meanwhile_is_not_replaced_with_another_group() {
    for peer_closes in [false, true] {
        let (mut net, a, b) = Net::established();
        let now = net.now;
        let (ours, theirs) = (net.nodes[0].child().id, net.nodes[1].child().id);
        insist_on_another_group(1);
        net.nodes[0].ike.rekey_child(now, ours);
        net.collect();
        if peer_closes {
            deliver_from(&mut net, 0);
            net.nodes[1].ike.close_child(now, theirs);
            net.collect();
            // The Delete overtakes the answer.
            let delete = net.wire.remove(1).unwrap();
            net.deliver(&delete);
        } else {
            net.nodes[0].ike.close_child(now, ours);
        }
        net.settle();
        set_mangle(None);
        net.run(Duration::from_secs(10));
        assert_eq!(children_of(&net), [0, 0], "closed by the peer: {peer_closes}");
        assert_in_step(&mut net, [a, b]);
    }
}

/// INVALID_KE_PAYLOAD in answer to a rekey that has crossed the peer's own: the peer's stays.
#[test]
fn of_two_replacements_that_cross_one_stays_whatever_the_group() {
    for order in 0..64_usize {
        let (mut net, a, b) = Net::established();
        let now = net.now;
        let (ours, theirs) = (net.nodes[0].child().id, net.nodes[1].child().id);
        insist_on_another_group(1);
        net.nodes[0].ike.rekey_child(now, ours);
        net.collect();
        net.nodes[1].ike.rekey_child(now, theirs);
        net.collect();
        for step in 0..6 {
            if net.wire.is_empty() {
                break;
            }
            let from = order >> step & 1;
            let there = net.wire.iter().any(|packet| packet.from.ip() == addr(from));
            deliver_from(&mut net, if there { from } else { 1 - from });
        }
        net.settle();
        set_mangle(None);
        net.run(Duration::from_secs(10));
        assert_eq!(children_of(&net), [1, 1], "order {order:b}");
        net.assert_children_fit();
        assert_ne!(net.nodes[0].child().id, ours);
        assert_in_step(&mut net, [a, b]);
    }
}

/// However many children there are: each is replaced, and each is closed, if that is asked for.
#[test]
fn no_wish_of_many_is_lost() {
    let (mut net, a, b) = Net::established();
    let now = net.now;
    for _ in 1..150 {
        net.nodes[0].ike.create_child(now, a, Net::call(0, 1).child);
        net.settle();
    }
    assert_eq!(children_of(&net), [150, 150]);
    let before: Vec<SaId> = net.nodes[0].children.keys().copied().collect();
    for child in &before {
        net.nodes[0].ike.rekey_child(now, *child);
    }
    net.run(Duration::from_secs(30));
    assert_eq!(children_of(&net), [150, 150]);
    let kept = before.iter().filter(|child| net.nodes[0].children.contains_key(child)).count();
    assert_eq!(kept, 0, "not replaced");
    let after: Vec<SaId> = net.nodes[0].children.keys().copied().collect();
    for child in after {
        net.nodes[0].ike.close_child(now, child);
    }
    net.run(Duration::from_secs(30));
    assert_eq!(children_of(&net), [0, 0]);
    // More children wanted at once than anybody has: of those that are not asked for the owner hears.
    for which in 0..400_u16 {
        let [high, low] = which.to_be_bytes();
        let host = TrafficSelector::host(IpAddr::from([10, 1, high, low]));
        let request = ChildRequest { local: vec![host], ..Net::call(0, 1).child };
        net.nodes[0].ike.create_child(now, a, request);
    }
    net.run(Duration::from_secs(30));
    assert_eq!(net.nodes[0].child_failed().len(), 400);
    assert_in_step(&mut net, [a, b]);
}

/// A rekey that took long, because there was no way, is not made twice.
#[test]
fn an_ike_sa_that_was_replaced_late_is_replaced_once() {
    let life = Duration::from_secs(600);
    let mut net = Net::with(|config| config.ike_life = life);
    let verdicts = net.nodes[1].verdicts.clone();
    let now = net.now;
    // The other side never asks.
    net.nodes[1] = Node::new(1, config(1), now);
    net.nodes[1].verdicts = verdicts;
    let a = net.initiate(0, 1);
    net.settle();
    let b = net.nodes[1].established()[0];
    let rekeys = |net: &Net| {
        let mut requests: Vec<_> = net
            .seen
            .iter()
            .filter(|p| p.octets.get(18) == Some(&36) && p.octets[19] & 0x20 == 0)
            .map(|p| p.octets.clone())
            .collect();
        requests.dedup();
        requests.len()
    };
    let until = net.now + life;
    while rekeys(&net) == 0 {
        assert!(net.tick(until));
    }
    // No way for more than a minute.
    let until = net.now + Duration::from_secs(75);
    while net.tick(until) {
        net.wire.clear();
    }
    assert_eq!(rekeys(&net), 1);
    net.run(Duration::from_secs(60));
    assert_eq!(rekeys(&net), 1);
    assert_in_step(&mut net, [a, b]);
}

/// INVALID_SYNTAX is fatal on both sides, and nobody needs to say so (RFC 7296 §2.21.3).
#[test]
fn what_is_badly_formed_ends_the_ike_sa_on_both_sides() {
    // The peer says so.
    for wish in 0..4 {
        let (mut net, a, _) = Net::established_with(wish == 3);
        let (now, child) = (net.now, net.nodes[0].child().id);
        let about = if wish == 3 {
            ExchangeType::IKE_FOLLOWUP_KE
        } else if wish == 2 {
            ExchangeType::INFORMATIONAL
        } else {
            ExchangeType::CREATE_CHILD_SA
        };
        set_mangle(Some(Box::new(move |exchange, response, payloads| {
            if exchange == about && response {
                return vec![Payload::Notify(Notify::new(NotifyType::INVALID_SYNTAX, []))];
            }
            payloads
        })));
        match wish {
            0 => net.nodes[0].ike.rekey_ike(now, a),
            2 => net.nodes[0].ike.probe(now, a),
            _ => net.nodes[0].ike.rekey_child(now, child),
        }
        net.settle();
        set_mangle(None);
        let notify = NotifyType::INVALID_SYNTAX.0;
        assert_eq!(net.nodes[0].ended(), [End::Refused { notify, authentic: true }], "{wish}");
        net.run(Duration::from_secs(5));
        // One that means it has no successor either.
        if wish != 0 {
            assert_eq!(net.nodes[1].ended(), [End::DeletedByPeer], "{wish}");
        }
    }
    // We say so.
    for ike in [false, true] {
        let (mut net, a, _) = Net::established();
        let (now, child) = (net.now, net.nodes[0].child().id);
        set_mangle(Some(Box::new(move |exchange, response, mut payloads| {
            if exchange == ExchangeType::CREATE_CHILD_SA && !response {
                payloads.retain(|payload| !matches!(payload, Payload::Nonce(_)));
            }
            payloads
        })));
        if ike {
            net.nodes[0].ike.rekey_ike(now, a);
        } else {
            net.nodes[0].ike.rekey_child(now, child);
        }
        net.collect();
        deliver_from(&mut net, 0);
        set_mangle(None);
        assert_eq!(net.nodes[1].ended(), [End::Misbehaved("Nonce")], "{ike}");
        net.run(Duration::from_secs(5));
        assert_eq!(net.nodes[0].ended().len(), 1);
    }
}

/// Who says INVALID_SYNTAX may keep the IKE SA, and is told that it is over until it has heard it.
#[test]
fn who_calls_us_badly_formed_and_stays_is_told_of_the_end_whatever_is_lost() {
    let (mut net, a, _) = Net::established();
    let now = net.now;
    set_mangle(Some(Box::new(|exchange, response, payloads| {
        if exchange == ExchangeType::INFORMATIONAL && response {
            return vec![Payload::Notify(Notify::new(NotifyType::INVALID_SYNTAX, []))];
        }
        payloads
    })));
    net.nodes[0].ike.probe(now, a);
    net.collect();
    deliver_from(&mut net, 0);
    set_mangle(None);
    deliver_from(&mut net, 1);
    assert_eq!(net.wire.len(), 1, "Delete");
    net.wire.clear();
    net.run(Duration::from_secs(10));
    let notify = NotifyType::INVALID_SYNTAX.0;
    assert_eq!(net.nodes[0].ended(), [End::Refused { notify, authentic: true }]);
    assert_eq!(net.nodes[1].ended(), [End::DeletedByPeer]);
}

/// RFC 7296 §2.21.2: with one of these in a request the peer has no IKE SA any more, and does not
/// wait for a Delete.
#[test]
fn a_request_that_says_that_we_failed_is_the_end() {
    for kind in [
        NotifyType::AUTHENTICATION_FAILED,
        NotifyType::INVALID_SYNTAX,
        NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD,
        NotifyType::TEMPORARY_FAILURE,
    ] {
        let (mut net, a, _) = Net::established();
        let now = net.now;
        set_mangle(Some(Box::new(move |exchange, response, payloads| {
            if exchange == ExchangeType::INFORMATIONAL && !response {
                return vec![Payload::Notify(Notify::new(kind, []))];
            }
            payloads
        })));
        net.nodes[0].ike.probe(now, a);
        net.collect();
        set_mangle(None);
        deliver_from(&mut net, 0);
        assert_eq!(net.wire.len(), 1, "an answer, and no Delete");
        let ended = net.nodes[1].ended();
        if kind == NotifyType::TEMPORARY_FAILURE {
            assert_eq!(ended, []);
        } else {
            assert_eq!(ended, [End::Refused { notify: kind.0, authentic: true }]);
        }
    }
}

/// To be put off is not to be lost: a peer that has lost a key exchange is given up when it has done
/// so often, however it has answered besides (RFC 9370 §2.2.4).
#[test]
fn who_loses_key_exchanges_is_given_up_by_how_often_it_has() {
    let (busy, lost) = (NotifyType::TEMPORARY_FAILURE, NotifyType::STATE_NOT_FOUND);
    for ike in [false, true] {
        for (answers, ends) in [
            ([busy, busy, busy, lost], false),
            ([lost, busy, lost, lost], false),
            ([lost, lost, lost, lost], true),
        ] {
            let (mut net, a, b) = Net::established_with(true);
            let (now, child) = (net.now, net.nodes[0].child().id);
            let spis = |net: &Net| net.seen.last().unwrap().octets[..16].to_vec();
            let before = spis(&net);
            let mut left = answers.into_iter();
            set_mangle(Some(Box::new(move |exchange, response, payloads| {
                if exchange == ExchangeType::CREATE_CHILD_SA
                    && response
                    && let Some(kind) = left.next()
                {
                    return vec![Payload::Notify(Notify::new(kind, []))];
                }
                payloads
            })));
            if ike {
                net.nodes[0].ike.rekey_ike(now, a);
            } else {
                net.nodes[0].ike.rekey_child(now, child);
            }
            net.run(Duration::from_secs(40));
            set_mangle(None);
            if ends {
                let why = End::Refused { notify: lost.0, authentic: true };
                assert_eq!(net.nodes[0].ended(), [why], "{ike}");
                continue;
            }
            assert_in_step(&mut net, [a, b]);
            net.assert_children_fit();
            assert_eq!(spis(&net) != before, ike, "replaced");
            assert_eq!(net.nodes[0].child().id != child, !ike, "replaced");
        }
    }
}

/// Names are compared as DNS compares them.
#[test]
fn a_name_in_other_letters_is_the_same_name() {
    let mut net = Net::pair();
    let verdict = net.nodes[1].verdicts.get_mut(&Identity::Address(addr(0))).unwrap();
    let PeerVerdict::Known { identity, .. } = verdict else { panic!() };
    *identity = Identity::Fqdn("GW.Example.org".into());
    let call = Initiate { peer: Identity::Fqdn("gw.example.ORG".into()), ..Net::call(0, 1) };
    let now = net.now;
    net.nodes[0].ike.initiate(now, call);
    net.settle();
    assert_eq!(net.nodes[0].ended(), []);
    assert_eq!(net.nodes[0].established().len(), 1);
    net.assert_children_fit();
}

/// Who does not want tickets, or inner addresses, takes none.
#[test]
fn what_was_not_asked_for_is_not_taken() {
    let mut net = Net::pair();
    set_mangle(Some(Box::new(|exchange, response, mut payloads| {
        if exchange == ExchangeType::IKE_AUTH && response {
            let ticket = [&[0, 0, 14, 16][..], &[7; 100]].concat();
            payloads.push(Payload::Notify(Notify::new(NotifyType::TICKET_LT_OPAQUE, ticket)));
            payloads.push(Payload::Configuration(Configuration::reply([10, 9, 9, 9].into())));
        }
        payloads
    })));
    net.initiate(0, 1);
    net.settle();
    set_mangle(None);
    let ticket = |e: &Event| matches!(e, Event::Ticket { .. });
    assert!(!net.nodes[0].events.iter().any(ticket));
    let assigned = |e: &Event| matches!(e, Event::Established { assigned: Some(_), .. });
    assert!(!net.nodes[0].events.iter().any(assigned));
    assert_eq!(net.nodes[0].child().local, [inner(0)]);
}

/// Message IDs end one day (RFC 7296 §2.2): before that the IKE SA is replaced, and no request is ever
/// taken for two.
#[test]
fn message_ids_do_not_run_out() {
    let (mut net, a, b) = Net::established();
    let (many, few) = ((1 << 31) - 1, 7);
    net.nodes[0].ike.wear(a, many, few);
    net.nodes[1].ike.wear(b, few, many);
    let now = net.now;
    let last_spis = |net: &Net| net.seen.last().unwrap().octets[..16].to_vec();
    let before = last_spis(&net);
    net.nodes[0].ike.probe(now, a);
    net.run(Duration::from_secs(70));
    assert_in_step(&mut net, [a, b]);
    assert_ne!(last_spis(&net), before, "replaced");
    let id = net.seen.last().unwrap().octets[20..24].try_into().unwrap();
    assert!(u32::from_be_bytes(id) < 10, "both begin anew");
    net.assert_children_fit();

    // Nobody has replaced it in time: the last is not used, and the other side can replace it yet.
    let (mut net, a, b) = Net::established();
    net.nodes[0].ike.wear(a, u32::MAX - 1, few);
    net.nodes[1].ike.wear(b, few, u32::MAX - 1);
    let now = net.now;
    for _ in 0..3 {
        net.nodes[0].ike.probe(now, a);
        net.settle();
    }
    net.run(Duration::from_secs(100));
    let id = |id: u32| net.seen.iter().filter(|p| p.octets[20..24] == id.to_be_bytes()).count();
    assert_eq!((id(u32::MAX - 1), id(u32::MAX)), (2, 0));
    assert_in_step(&mut net, [a, b]);
    net.assert_children_fit();
}

/// A fragment that comes again takes no room (RFC 7383 §2.6).
#[test]
fn repeated_fragments_of_a_long_message_are_no_longer_message() {
    let part = |number, len| (1, number, 3, 41, vec![7; len]);
    let parts = [part(1, 4900), part(2, 4900), part(2, 4900), part(1, 4900), part(3, 100)];
    let whole = crate::internal::reassemble(&parts);
    assert_eq!(whole.len(), 1);
    assert_eq!(whole[0].1.len(), 9900);
}

/// xorshift64.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn below(&mut self, sides: u64) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 11) % sides).unwrap()
    }

    pub(super) fn one_in(&mut self, sides: u64) -> bool {
        self.below(sides) == 0
    }

    /// Any of what is on the wire, of which some is lost first.
    pub(super) fn arrival(&mut self, wire: &mut VecDeque<Packet>, lossy: bool) -> Option<Packet> {
        while !wire.is_empty() {
            let at = self.below(wire.len() as u64);
            let packet = wire.remove(at);
            if !(lossy && self.one_in(6)) {
                return packet;
            }
        }
        None
    }
}

/// Two nodes that may both move, with what lies between them.
struct World {
    net: Net,
    ikes: [IkeId; 2],
    dice: Dice,
    /// Which of them moves, if one does: where both do, neither finds the other.
    mover: Option<usize>,
    /// A NAT before the first, and how often it has chosen other ports.
    nat: Option<u16>,
    mobike: bool,
    /// Packets that arrived.
    heard: Vec<Packet>,
    /// Nobody plays anything back any more.
    ends: bool,
}

/// The address of the NAT, if there is one.
const NAT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 9));

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let (hybrid, mobike, natted) = (dice.one_in(2), dice.one_in(2), dice.one_in(3));
        let fragment_size = [1280, 600, 300][dice.below(3)];
        let mut net = Net::with(|config| {
            config.post_quantum = hybrid;
            config.mobike = if mobike { Mobike::Announce } else { Mobike::Off };
            config.patience = Duration::from_secs(400);
            config.fragment_size = fragment_size;
            config.child_life = Duration::from_secs(900);
            config.ike_life = Duration::from_secs(1500);
        });
        for (which, node) in net.nodes.iter_mut().enumerate() {
            node.ike.set_addresses(net.now, vec![addr(which)]);
        }
        let a = net.initiate(0, 1);
        let mover = (mobike && !natted).then(|| dice.below(2));
        let nat = natted.then_some(0);
        let mut world =
            Self { net, ikes: [a, a], dice, mover, nat, mobike, heard: vec![], ends: false };
        for _ in 0..20 {
            world.net.collect();
            for packet in std::mem::take(&mut world.net.wire) {
                world.deliver(packet);
            }
        }
        world.ikes[1] = world.net.nodes[1].established()[0];
        for (node, ike) in world.net.nodes.iter_mut().zip(world.ikes) {
            node.prompt = false;
            node.ike.allow_moves(ike, true);
        }
        world
    }

    /// Where the NAT has an address and port of the first for.
    fn outside(&self, port: u16) -> Option<SocketAddr> {
        self.nat.map(|times| SocketAddr::new(NAT, port + 10_000 + 100 * times))
    }

    fn wish(&mut self) {
        let (which, now) = (self.dice.below(2), self.net.now);
        let (ike, what) = (self.ikes[which], self.dice.below(13));
        let far = 2 + self.dice.below(4);
        let place = self.dice.below(4);
        let node = &mut self.net.nodes[which];
        let some = node.children.keys().copied().nth(place);
        match (what, some) {
            (0..=2, Some(child)) => node.ike.rekey_child(now, child),
            (3 | 4, Some(child)) if node.children.len() > 2 => node.ike.close_child(now, child),
            (5 | 6, _) => node.ike.rekey_ike(now, ike),
            (7, _) => node.ike.create_child(now, ike, Net::call(which, 1 - which).child),
            (8 | 9, _) => {
                let request = match self.dice.one_in(2) {
                    true => child_between(far, 1 - which),
                    false => child_between(which, far),
                };
                node.ike.create_child(now, ike, request);
            }
            (10, _) => node.ike.probe(now, ike),
            (11, _) => match &mut self.nat {
                Some(times) => *times += 1,
                None => self.relocate(),
            },
            (12, _) => {
                // A packet of the first's arrives, through the NAT.
                let outside = self.outside(4500);
                let node = &mut self.net.nodes[1];
                let some = node.children.keys().copied().nth(place);
                if let (Some(outside), Some(child)) = (outside, some) {
                    node.ike.handle_moved(now, child, outside);
                }
            }
            _ => {}
        }
    }

    /// One of them goes elsewhere.
    fn relocate(&mut self) {
        let (now, Some(which)) = (self.net.now, self.mover) else { return };
        let new = addr(which + 10 * (1 + self.dice.below(2)));
        let node = &mut self.net.nodes[which];
        node.addr = new;
        node.ike.set_addresses(now, vec![new]);
        node.ike.relocate(now, self.ikes[which], new);
    }

    /// Delivers a packet, through the NAT if there is one.
    fn deliver(&mut self, mut packet: Packet) {
        if let Some(times) = self.nat {
            let shift = 10_000 + 100 * times;
            if packet.from.ip() == addr(0) {
                packet.from = SocketAddr::new(NAT, packet.from.port() + shift);
            }
            if packet.to.ip() == addr(0) {
                return;
            }
            if packet.to.ip() == NAT {
                let port = packet.to.port().wrapping_sub(shift);
                if port != 500 && port != 4500 {
                    return;
                }
                packet.to = SocketAddr::new(addr(0), port);
            }
        }
        self.net.deliver(&packet);
        self.heard.push(packet);
    }

    /// Delivers what is on the wire in any order, some of it twice, and lets time pass.
    fn pass(&mut self, lossy: bool, time: Duration) {
        let until = self.net.now + time;
        loop {
            self.net.collect();
            while let Some(packet) = self.dice.arrival(&mut self.net.wire, lossy) {
                self.deliver(packet.clone());
                if self.dice.one_in(12) {
                    self.deliver(packet);
                }
                self.play_back();
                self.answer(false);
            }
            if !self.net.tick(until) {
                return;
            }
            let at_once = self.dice.one_in(3);
            self.answer(at_once);
            if self.nat.is_some() {
                // Who has a NAT before it speaks now and then: nobody else finds a way through.
                let now = self.net.now;
                self.net.nodes[0].ike.probe(now, self.ikes[0]);
            }
        }
    }

    /// The owners answer, some time.
    fn answer(&mut self, at_once: bool) {
        for which in 0..2 {
            if at_once || self.dice.one_in(4) {
                let (now, allowed) = (self.net.now, self.dice.one_in(2));
                if let Some(Output::NeedChild(need)) = self.net.nodes[which].waiting.pop_front() {
                    self.net.nodes[which].ike.handle_child(now, need.ike, allowed);
                }
            }
        }
        self.net.collect();
    }

    /// Somebody has kept a packet, and sends it again from where he is, or in another's name. Not before the
    /// peer itself is heard: a request that moves us is followed to where it came from first.
    fn play_back(&mut self) {
        if self.dice.one_in(8) && !self.ends && !self.heard.is_empty() {
            let at = self.dice.below(self.heard.len() as u64);
            let kept = self.heard[at].clone();
            let from = match self.dice.below(3) {
                0 => kept.from,
                1 => SocketAddr::new(kept.from.ip(), 4600),
                _ => SocketAddr::new(IpAddr::from([198, 51, 100, 66]), 4500),
            };
            // Whichever of them it was for.
            for which in 0..2 {
                let to = SocketAddr::new(self.net.nodes[which].addr, kept.to.port());
                self.net.deliver(&Packet { from, to, octets: kept.octets.clone() });
            }
        }
    }

    /// Nothing arrives.
    fn outage(&mut self, time: Duration) {
        let until = self.net.now + time;
        while self.net.tick(until) {
            self.net.wire.clear();
        }
    }

    fn calm(&mut self, time: Duration) {
        let until = self.net.now + time;
        while self.net.now < until {
            self.pass(false, Duration::from_millis(500));
            self.answer(true);
        }
    }

    fn assert_children_fit(&self, seed: u64) {
        if self.nat.is_none() {
            return self.net.assert_children_fit();
        }
        let keys = |which: usize, turned: bool| {
            let children = self.net.nodes[which].children.values();
            let mut keys: Vec<_> = children
                .map(|c| {
                    let mut spis = [c.spi_in, c.spi_out];
                    if turned {
                        spis.reverse();
                    }
                    (spis, c.envelope.udp)
                })
                .collect();
            keys.sort();
            keys
        };
        assert_eq!(keys(0, false), keys(1, true), "seed {seed}");
        let outside = self.outside(4500);
        for child in self.net.nodes[1].children.values() {
            assert_eq!(Some(child.envelope.remote), outside, "seed {seed}");
        }
    }
}

/// A NAT that changes its mind before the two have compared how they see each other: after IKE_AUTH, and
/// after each IKE SA's replacement (RFC 4555 §3.8).
#[test]
fn a_nat_that_changes_its_mind_early_is_found_out() {
    let mut seed = 0;
    for rekeys in [None, Some(0), Some(1)] {
        let mut world = loop {
            seed += 1;
            let world = World::new(seed);
            if world.nat.is_some() && world.mobike {
                break world;
            }
        };
        if let Some(which) = rekeys {
            let now = world.net.now;
            world.net.nodes[0].ike.probe(now, world.ikes[0]);
            world.calm(Duration::from_secs(1));
            let now = world.net.now;
            world.net.nodes[which].ike.rekey_ike(now, world.ikes[which]);
            world.calm(Duration::from_secs(1));
        }
        world.nat = Some(1);
        let now = world.net.now;
        world.net.nodes[0].ike.probe(now, world.ikes[0]);
        world.calm(Duration::from_secs(1));
        let now = world.net.now;
        world.net.nodes[1].ike.probe(now, world.ikes[1]);
        world.calm(Duration::from_secs(1));
        let alive = |e: &Event| matches!(e, Event::Alive { .. });
        assert!(world.net.nodes[1].events.iter().any(alive), "{rekeys:?}");
        assert_eq!(world.net.nodes[1].child().envelope.remote.port(), 4500 + 10_100, "{rekeys:?}");
    }
}

/// Two behind a NAT that know MOBIKE, before they have compared how they see each other.
fn natted() -> World {
    let mut worlds = (1..).map(World::new);
    worlds.find(|world| world.nat.is_some() && world.mobike).unwrap()
}

/// Requests of a node that went out since then, without repetitions.
fn requests_since(net: &Net, mark: usize, from: usize) -> usize {
    let from = net.nodes[from].addr;
    let request =
        |p: &&Packet| p.from.ip() == from && p.octets.len() > 28 && p.octets[19] & 0x20 == 0;
    let mut ids: Vec<_> =
        net.seen[mark..].iter().filter(request).map(|p| &p.octets[20..24]).collect();
    ids.sort();
    ids.dedup();
    ids.len()
}

/// Somebody has copied an UPDATE_SA_ADDRESSES and is faster with it, from where the peer may not be:
/// the refusal is said to the peer, too, because that is the answer to this message (RFC 7296 §2.1).
#[test]
fn a_copy_from_where_nobody_may_be_is_no_refusal_of_where_we_are() {
    let mut world = natted();
    let now = world.net.now;
    world.net.nodes[1].ike.allow_moves(world.ikes[1], false);
    world.net.nodes[0].ike.probe(now, world.ikes[0]);
    world.net.collect();
    for _ in 0..2 {
        let packet = world.net.wire.pop_front().unwrap();
        world.deliver(packet);
    }
    let update = world.net.wire.pop_front().unwrap();
    let mark = world.net.seen.len();
    let from = SocketAddr::new(IpAddr::from([198, 51, 100, 66]), 4500);
    world.net.deliver(&Packet { from, ..update.clone() });
    assert_eq!(world.net.wire.pop_front().map(|refusal| refusal.to), Some(from));
    world.deliver(update);
    world.calm(Duration::from_secs(5));
    assert!(world.net.nodes.iter().all(|node| node.ended().is_empty()));
    assert_eq!(requests_since(&world.net, mark, 0), 1, "asked once more");
    world.assert_children_fit(0);
    let ikes = world.ikes;
    for (which, ike) in ikes.into_iter().enumerate() {
        let now = world.net.now;
        world.net.nodes[which].ike.rekey_ike(now, ike);
        world.calm(Duration::from_secs(5));
        assert!(world.net.nodes.iter().all(|node| node.ended().is_empty()));
    }
}

/// Who leaves has nothing to say but that.
#[test]
fn whoever_leaves_does_not_say_first_where_it_is() {
    let mut world = natted();
    let now = world.net.now;
    world.net.nodes[0].ike.probe(now, world.ikes[0]);
    world.net.collect();
    let probe = world.net.wire.pop_front().unwrap();
    world.deliver(probe);
    let mark = world.net.seen.len();
    world.net.nodes[0].ike.close(now, world.ikes[0]);
    world.calm(Duration::from_secs(5));
    assert_eq!(world.net.nodes[0].ended(), [End::Closed]);
    assert_eq!(world.net.nodes[1].ended(), [End::DeletedByPeer]);
    assert_eq!(requests_since(&world.net, mark, 0), 1, "Delete");
}

/// RFC 4555 §3.5: only the original initiator says UPDATE_SA_ADDRESSES.
#[test]
fn the_responder_updates_nothing_whatever_it_is_answered() {
    let mut world = natted();
    let (now, mark) = (world.net.now, world.net.seen.len());
    set_mangle(Some(Box::new(|exchange, response, mut payloads| {
        if exchange == ExchangeType::INFORMATIONAL && response {
            let hash = Notify::new(NotifyType::NAT_DETECTION_DESTINATION_IP, [7; 20]);
            payloads.push(Payload::Notify(hash));
        }
        payloads
    })));
    world.net.nodes[1].ike.probe(now, world.ikes[1]);
    world.net.collect();
    for _ in 0..4 {
        for packet in std::mem::take(&mut world.net.wire) {
            world.deliver(packet);
        }
    }
    set_mangle(None);
    assert_eq!(requests_since(&world.net, mark, 1), 1, "the liveness check");
}

/// RFC 7296 §2.11: an answer goes to where the request came from, however late it is.
#[test]
fn a_late_answer_goes_to_where_the_request_came_from() {
    let (mut net, a, b) = Net::established();
    net.nodes[1].prompt = false;
    let now = net.now;
    net.nodes[0].ike.create_child(now, a, child_between(5, 1));
    net.collect();
    let request = net.wire.pop_front().unwrap();
    for port in [4501, 4502] {
        let from = SocketAddr::new(addr(0), port);
        net.deliver(&Packet { from, ..request.clone() });
    }
    net.nodes[1].ike.handle_child(now, b, true);
    net.collect();
    assert_eq!(net.wire[0].to, SocketAddr::new(addr(0), 4502));
}

/// What we had asked under an IKE SA never arrived; the peer replaces it, and does not get our answer,
/// because we are elsewhere by then. It takes what we say of that under the old one only after the
/// question that is missing (RFC 7296 §2.3).
#[test]
fn a_question_that_was_lost_with_its_ike_sa_keeps_no_later_one_from_being_heard() {
    let (mut net, a, b) = Net::established();
    for (which, ike) in [(0, a), (1, b)] {
        let own = net.nodes[which].addr;
        net.nodes[which].ike.allow_moves(ike, true);
        net.nodes[which].ike.set_addresses(net.now, vec![own]);
    }
    let now = net.now;
    net.nodes[0].ike.probe(now, a);
    net.collect();
    net.wire.clear();
    net.nodes[1].ike.rekey_ike(now, b);
    net.collect();
    let request = net.wire.pop_front().unwrap();
    net.deliver(&request);
    net.wire.clear();
    net.nodes[0].addr = addr(10);
    net.nodes[0].ike.set_addresses(now, vec![addr(10)]);
    net.nodes[0].ike.relocate(now, a, addr(10));
    net.run(Duration::from_secs(60));
    assert_eq!(net.nodes[1].child().envelope.remote.ip(), addr(10));
    assert_in_step(&mut net, [a, b]);
    net.assert_children_fit();
}

/// Whatever two honest nodes ask of each other, in whatever order it arrives, on however bad a link:
/// in the end both are of one opinion, nothing is reserved that is not in use, and nothing waits for
/// what never comes: each can still replace whatever there is.
#[test]
fn a_long_life_leaves_nothing_undone() {
    let seeds = std::env::var("SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(30);
    let first = std::env::var("FIRST").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    for seed in first..first + seeds {
        let mut world = World::new(seed);
        for _ in 0..30 {
            for _ in 0..=world.dice.below(3) {
                world.wish();
            }
            if world.dice.one_in(6) {
                insist_on_another_group(1);
            }
            let lossy = world.dice.one_in(3);
            let time = Duration::from_millis(world.dice.below(2500) as u64);
            match world.dice.below(12) {
                0 => world.outage(time * 20),
                // Lives end.
                1 => world.pass(lossy, time * 400),
                _ => world.pass(lossy, time),
            }
        }
        set_mangle(None);
        world.ends = true;
        world.calm(Duration::from_secs(450));
        let tidy = |world: &World| {
            world.net.nodes.iter().all(|n| n.ike.reserved() == (1, n.children.len()))
        };
        // What is replaced in this very moment is done soon.
        for _ in 0..3 {
            if !tidy(&world) {
                world.calm(Duration::from_secs(20));
            }
        }
        let ended: Vec<_> = world.net.nodes.iter().map(Node::ended).collect();
        assert!(ended.iter().all(Vec::is_empty), "seed {seed}: {ended:?}");
        world.assert_children_fit(seed);
        assert!(tidy(&world), "seed {seed}");
        for which in 0..2 {
            let now = world.net.now;
            let node = &mut world.net.nodes[which];
            let before: Vec<SaId> = node.children.keys().copied().collect();
            for child in &before {
                node.ike.rekey_child(now, *child);
            }
            world.calm(Duration::from_secs(30));
            let node = &world.net.nodes[which];
            assert_eq!(node.children.len(), before.len(), "seed {seed}");
            let stuck = before.iter().filter(|child| node.children.contains_key(child)).count();
            assert_eq!(stuck, 0, "seed {seed}, node {which}");
            world.assert_children_fit(seed);
        }
        assert!(world.net.nodes.iter().all(|n| n.ended().is_empty()), "seed {seed}");
        let (which, now) = (world.dice.below(2), world.net.now);
        world.net.nodes[which].ike.close(now, world.ikes[which]);
        world.calm(Duration::from_secs(10));
        for node in &world.net.nodes {
            assert_eq!((node.ike.reserved(), node.ike.len()), ((0, 0), 0), "seed {seed}");
            assert!(node.ike.names_nobody() && node.children.is_empty(), "seed {seed}");
        }
    }
}
