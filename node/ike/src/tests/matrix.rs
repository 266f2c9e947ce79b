//! Peers with good keys and bad manners: every message with payloads missing, doubled, swapped,
//! or with something else in them.

use super::*;
use crate::message::{Delete, KeyExchange, Notify, NotifyType, PayloadType, ProtocolId, Transform};

/// What is done to the payloads of one message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Harm {
    Drop(usize),
    DropTwo(usize, usize),
    Double(usize),
    Reverse,
    Empty,
    Swap(usize),
    Spoil(usize),
    Add(usize),
}

/// Something that nobody expects there.
fn surprises() -> Vec<Payload> {
    vec![
        Payload::Delete(Delete::Ike),
        Payload::Delete(Delete::Esp(vec![0, 1, 0xffff_ffff])),
        Payload::Notify(Notify::new(NotifyType::AUTHENTICATION_FAILED, [])),
        Payload::Notify(Notify::new(NotifyType::TEMPORARY_FAILURE, [])),
        Payload::Notify(Notify::new(NotifyType::USE_TRANSPORT_MODE, [])),
        Payload::Notify(Notify::new(NotifyType(65_535), vec![7; 300])),
        Payload::Notify(Notify {
            protocol: ProtocolId(0),
            spi: vec![],
            kind: NotifyType::REKEY_SA,
            data: vec![],
        }),
        Payload::Notify(Notify {
            protocol: ProtocolId::ESP,
            spi: vec![0, 0, 0, 9],
            kind: NotifyType::REKEY_SA,
            data: vec![],
        }),
    ]
}

fn spoilt(payload: Payload) -> Vec<Payload> {
    match payload {
        Payload::Sa(mut proposals) => {
            let mut none = proposals.clone();
            let mut spi = proposals.clone();
            let mut protocol = proposals.clone();
            for proposal in &mut none {
                proposal.transforms.clear();
            }
            for proposal in &mut spi {
                proposal.spi = vec![0; proposal.spi.len()];
            }
            for proposal in &mut protocol {
                proposal.protocol = ProtocolId(2);
            }
            let other = Transform::new(crate::message::TransformType::ENCR, 11, None);
            for proposal in &mut proposals {
                proposal.transforms = vec![other];
            }
            vec![Payload::Sa(none), Payload::Sa(spi), Payload::Sa(protocol), Payload::Sa(proposals)]
        }
        Payload::KeyExchange(ke) => vec![
            Payload::KeyExchange(KeyExchange { group: ke.group, data: vec![] }),
            Payload::KeyExchange(KeyExchange { group: ke.group, data: vec![0; ke.data.len()] }),
            Payload::KeyExchange(KeyExchange { group: 0, data: ke.data.clone() }),
            Payload::KeyExchange(KeyExchange { group: 1025, data: ke.data }),
        ],
        Payload::Nonce(_) => {
            vec![Payload::Nonce(vec![]), Payload::Nonce(vec![1; 15]), Payload::Nonce(vec![1; 257])]
        }
        Payload::Authentication(auth) => (0..6)
            .map(|change: usize| {
                let mut auth = auth.clone();
                match change {
                    0 => auth.method = 1,
                    1 => auth.method = 13,
                    2 => auth.data.clear(),
                    3 => auth.data.truncate(1),
                    4 => auth.data.push(0),
                    _ => {
                        if let Some(octet) = auth.data.last_mut() {
                            *octet ^= 1;
                        }
                    }
                }
                Payload::Authentication(auth)
            })
            .collect(),
        Payload::TsInitiator(_) => vec![
            Payload::TsInitiator(vec![]),
            Payload::TsInitiator(vec![TrafficSelector::prefix("::/0".parse().unwrap())]),
            Payload::TsInitiator(vec![TrafficSelector::prefix("0.0.0.0/0".parse().unwrap())]),
        ],
        Payload::TsResponder(_) => vec![
            Payload::TsResponder(vec![]),
            Payload::TsResponder(vec![TrafficSelector::prefix("::/0".parse().unwrap())]),
            Payload::TsResponder(vec![TrafficSelector::prefix("0.0.0.0/0".parse().unwrap())]),
        ],
        other => vec![other],
    }
}

fn harm(harm: Harm, mut payloads: Vec<Payload>) -> Vec<Payload> {
    match harm {
        Harm::Drop(at) if at < payloads.len() => {
            payloads.remove(at);
        }
        Harm::DropTwo(a, b) if a < b && b < payloads.len() => {
            payloads.remove(b);
            payloads.remove(a);
        }
        Harm::Double(at) if at < payloads.len() => payloads.push(payloads[at].clone()),
        Harm::Reverse => payloads.reverse(),
        Harm::Empty => payloads.clear(),
        Harm::Swap(at) if at + 1 < payloads.len() => payloads.swap(at, at + 1),
        Harm::Spoil(which) => {
            let mut all = Vec::new();
            for (at, payload) in payloads.iter().enumerate() {
                all.extend(spoilt(payload.clone()).into_iter().map(|p| (at, p)));
            }
            if let Some((at, payload)) = all.into_iter().nth(which) {
                payloads[at] = payload;
            }
        }
        Harm::Add(which) => payloads.extend(surprises().into_iter().nth(which)),
        _ => {}
    }
    payloads
}

fn harms() -> Vec<Harm> {
    let mut all = vec![Harm::Reverse, Harm::Empty];
    for at in 0..8 {
        all.extend([Harm::Drop(at), Harm::Double(at), Harm::Swap(at), Harm::Add(at)]);
        all.extend((at + 1..8).map(|b| Harm::DropTwo(at, b)));
    }
    all.extend((0..20).map(Harm::Spoil));
    all
}

/// Harms the `nth` sealed message of an exchange, in one direction.
fn story(exchange: ExchangeType, response: bool, nth: usize, what: Harm) -> Net {
    let mut left = nth;
    set_mangle(Some(Box::new(move |of, is_response, payloads| {
        if of != exchange || is_response != response {
            return payloads;
        }
        let now = left == 0;
        left = left.wrapping_sub(1);
        if now { harm(what, payloads) } else { payloads }
    })));
    let mut net = Net::pair();
    let a = net.initiate(0, 1);
    net.settle();
    let now = net.now;
    net.nodes[0].ike.create_child(now, a, Net::call(0, 1).child);
    net.settle();
    if let Some(child) = net.nodes[0].children.keys().next().copied() {
        net.nodes[0].ike.rekey_child(now, child);
        net.settle();
    }
    net.nodes[0].ike.rekey_ike(now, a);
    net.settle();
    if let Some(child) = net.nodes[0].children.keys().next().copied() {
        net.nodes[0].ike.close_child(now, child);
        net.settle();
    }
    set_mangle(None);
    net
}

/// CVE-2013-6467, CVE-2023-38710.
#[test]
fn payloads_missing_doubled_swapped_or_spoilt_break_nothing_else() {
    let auth = ExchangeType::IKE_AUTH;
    let create = ExchangeType::CREATE_CHILD_SA;
    for (exchange, count) in [(auth, 1), (create, 3)] {
        for response in [false, true] {
            for nth in 0..count {
                for what in harms() {
                    let mut net = story(exchange, response, nth, what);
                    let text = format!("{exchange:?} {response} {nth} {what:?}");
                    assert!(net.seen.len() < 60, "{text}");
                    // Both are of one opinion, or one has told the other that it is over.
                    let gone = net.nodes.iter().filter(|n| n.ike.established_count() == 0).count();
                    if gone == 0 {
                        net.assert_children_fit();
                    }
                    // Nobody got an address that is not his.
                    for node in &net.nodes {
                        for child in node.children.values() {
                            assert!(child.local.iter().all(|s| s.as_host().is_some()), "{text}");
                            assert!(child.remote.iter().all(|s| s.as_host().is_some()), "{text}");
                        }
                    }
                    // And both can begin anew.
                    net.run(Duration::from_secs(130));
                    let before = net.nodes[0].established().len();
                    net.initiate(0, 1);
                    net.settle();
                    assert_eq!(net.nodes[0].established().len(), before + 1, "{text}");
                }
            }
        }
    }
}

/// CVE-2021-45079.
#[test]
fn nobody_is_established_without_identity_and_signature() {
    let is = |payload: &Payload, kinds: &[PayloadType]| {
        kinds.iter().any(|kind| {
            matches!(
                (payload, *kind),
                (Payload::IdInitiator(_), PayloadType::ID_INITIATOR)
                    | (Payload::IdResponder(_), PayloadType::ID_RESPONDER)
                    | (Payload::Authentication(_), PayloadType::AUTH)
            )
        })
    };
    for kinds in [
        &[PayloadType::ID_INITIATOR][..],
        &[PayloadType::AUTH],
        &[PayloadType::ID_INITIATOR, PayloadType::AUTH],
    ] {
        for response in [false, true] {
            let kinds = kinds.to_vec();
            set_mangle(Some(Box::new(move |_, is_response, mut payloads| {
                if is_response == response {
                    let mut kinds = kinds.clone();
                    if response && kinds[0] == PayloadType::ID_INITIATOR {
                        kinds[0] = PayloadType::ID_RESPONDER;
                    }
                    payloads.retain(|p| !is(p, &kinds));
                }
                payloads
            })));
            let mut net = Net::pair();
            net.initiate(0, 1);
            net.settle();
            set_mangle(None);
            let wronged = usize::from(!response);
            assert!(net.nodes[wronged].established().is_empty());
            assert!(net.nodes[wronged].children.is_empty());
        }
    }
}

/// CVE-2019-12312.
#[test]
fn any_exchange_before_ike_auth_is_ignored() {
    for exchange in [
        ExchangeType::CREATE_CHILD_SA,
        ExchangeType::INFORMATIONAL,
        ExchangeType(34),
        ExchangeType(38),
        ExchangeType(255),
    ] {
        let mut net = Net::pair();
        net.initiate(0, 1);
        for _ in 0..2 {
            let packet = net.wire.pop_front().unwrap();
            net.deliver(&packet);
        }
        // The exchange type is covered by the integrity check, so a stranger cannot change it; a
        // peer can.
        let mut packet = net.wire.pop_front().unwrap();
        packet.octets[18] = exchange.0;
        net.deliver(&packet);
        assert!(net.wire.is_empty());
        assert!(net.nodes[1].established().is_empty() && net.nodes[1].asked.is_empty());
    }
}

#[test]
fn large_messages_are_fragmented_and_put_together() {
    // Many selectors make an IKE_AUTH of several kilobytes.
    let mut net = Net::pair();
    let many: Vec<_> = (0..30_u8)
        .map(|n| TrafficSelector::host(IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 1, u16::from(n)])))
        .collect();
    for verdict in net.nodes[1].verdicts.values_mut() {
        if let PeerVerdict::Known { grants, .. } = verdict {
            grants[0].remote.extend(many.iter().copied());
            grants[0].local.push(TrafficSelector::host("2001:db8::2".parse().unwrap()));
        }
    }
    let now = net.now;
    let mut call = Net::call(0, 1);
    call.child.local.extend(many.iter().copied());
    call.child.remote.push(TrafficSelector::host("2001:db8::2".parse().unwrap()));
    net.nodes[0].ike.initiate(now, call);
    net.collect();
    // Last fragment first, and each of them twice.
    while !net.wire.is_empty() {
        let mut batch: Vec<_> = net.wire.drain(..).collect();
        batch.reverse();
        for packet in batch {
            net.deliver(&packet);
            net.deliver(&packet);
        }
    }
    net.assert_children_fit();
    assert_eq!(net.nodes[1].child().remote.len(), 31);
    let fragments = net.seen.iter().filter(|p| p.octets[16] == 53).count();
    assert!(fragments >= 4, "{fragments}");
    assert!(net.seen.iter().all(|p| p.octets.len() <= 1228));
    assert_eq!(net.nodes[1].asked.len(), 1);
}

#[test]
fn no_secret_is_printed() {
    let (net, ..) = Net::established();
    let text = format!("{:?}", net.nodes[0].ike);
    assert!(text.contains("Secret(..)"));
    let child = net.nodes[0].child();
    let key = format!("{:?}", child.key_in.key());
    assert!(!text.contains(&key[1..key.len() - 1]));
}

/// Attack A26.
/// CVE-2016-5361.
#[test]
fn a_forged_request_draws_no_more_octets_than_it_has_by_half() {
    let mut net = Net::with(|c| {
        c.token_secret = Some([5; 32].into());
        c.post_quantum = true;
    });
    // The smallest request that can be answered, alone and with whatever draws more in its smallest
    // form.
    let header = crate::message::Header {
        spi_i: 77,
        spi_r: 0,
        exchange: ExchangeType::IKE_SA_INIT,
        initiator: true,
        response: false,
        message_id: 0,
    };
    let suites = crate::crypto::Suites { compatibility: false, additional: false };
    let smallest = [(28, None), (5, None), (31, None)];
    let mut offer = crate::crypto::offer_ike(suites, &[]);
    offer[0].transforms.retain(|t| smallest.contains(&(t.id, t.key_length)));
    let mut public = vec![0; 32];
    public[0] = 9;
    let smallest = [
        Payload::Sa(offer),
        Payload::KeyExchange(KeyExchange { group: 31, data: public }),
        Payload::Nonce(vec![3; 16]),
    ];
    let asks = [16388_u16, 16389, 16430, 16431, 16438];
    let forms = 1 << asks.len();
    for form in 0..forms {
        let header = crate::message::Header { spi_i: 77 + form, ..header };
        let asked = asks.iter().enumerate().filter(|(bit, _)| form >> bit & 1 == 1);
        let asked = asked.map(|(_, kind)| Payload::Notify(Notify::new(NotifyType(*kind), [])));
        let octets = header.write_clear(&smallest.iter().cloned().chain(asked).collect::<Vec<_>>());
        let packet = Packet {
            from: SocketAddr::new(IpAddr::from([198, 51, u8::try_from(form).unwrap(), 1]), 500),
            to: "192.0.2.2:500".parse().unwrap(),
            octets,
        };
        net.deliver(&packet);
        let answer = net.wire.pop_front().unwrap();
        assert_eq!(net.nodes[1].ike.half_open(), usize::try_from(form).unwrap() + 1);
        let (answer, came) = (answer.octets.len(), packet.octets.len());
        assert!(2 * answer <= 3 * came, "{form:05b}: {answer} for {came}");
    }
    // And nothing more by itself.
    net.run(Duration::from_secs(40));
    assert_eq!(net.seen.len(), usize::try_from(forms).unwrap());
}
