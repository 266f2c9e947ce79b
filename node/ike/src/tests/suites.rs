//! Every suite that can be offered, from the first message to the last (CVE-2016-3071).

use super::*;
use crate::message::{
    Body, KeyExchange, Message, Notify, NotifyType, Payloads, Proposal, TransformType,
};

/// One way to fill in an offer: cipher with key length, prf, HMAC, group, ESN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Fill {
    encr: (u16, Option<u16>),
    prf: u16,
    integ: Option<u16>,
    ke: u16,
    esn: u16,
}

impl Fill {
    /// Leaves of an offer what fits.
    fn narrow(self, proposals: Vec<Proposal>) -> Vec<Proposal> {
        let mut left: Vec<Proposal> = proposals
            .into_iter()
            .filter_map(|mut proposal| {
                proposal.transforms.retain(|t| match t.kind {
                    TransformType::ENCR => (t.id, t.key_length) == self.encr,
                    TransformType::PRF => t.id == self.prf,
                    TransformType::INTEG => Some(t.id) == self.integ,
                    TransformType::KE => t.id == self.ke,
                    _ => t.id == self.esn,
                });
                proposal
                    .transforms
                    .iter()
                    .any(|t| t.kind == TransformType::ENCR)
                    .then_some(proposal)
            })
            .collect();
        left.truncate(1);
        left
    }
}

fn fills() -> Vec<Fill> {
    let ciphers = [
        ((20, Some(256)), None),
        ((20, Some(128)), None),
        ((28, None), None),
        ((12, Some(256)), Some(14)),
        ((12, Some(128)), Some(14)),
        ((12, Some(256)), Some(13)),
        ((12, Some(128)), Some(13)),
        ((12, Some(256)), Some(12)),
        ((12, Some(128)), Some(12)),
    ];
    let mut all = Vec::new();
    for (encr, integ) in ciphers {
        for prf in [5, 6, 7] {
            for ke in [31, 19, 20, 21] {
                all.push(Fill { encr, prf, integ, ke, esn: u16::from(ke != 19) });
            }
        }
    }
    all
}

/// Two nodes with fast keys that take AES-CBC as well.
fn elliptic() -> Net {
    let mut net = Net::pair();
    let now = net.now;
    for (own, peer) in [(0, 1), (1, 0)] {
        let key = |which: usize| public(key_pair(9 + which));
        let config = Config { key: key(own), compatibility: true, ..config(own) };
        net.nodes[own] = Node::new(own, config, now);
        net.nodes[own].pair = key_pair(9 + own);
        let identity = Identity::Address(addr(own));
        let grants = vec![Grant {
            key: key(peer).into(),
            remote: vec![inner(peer)],
            local: vec![inner(own)],
            transport: false,
            assigned: Assigned::Nothing,
        }];
        net.nodes[own]
            .verdicts
            .insert(Identity::Address(addr(peer)), PeerVerdict::Known { identity, grants });
    }
    net
}

fn call() -> Initiate {
    Initiate { keys: vec![public(key_pair(10)).into()], ..Net::call(0, 1) }
}

#[test]
fn every_suite_goes_all_the_way() {
    for fill in fills() {
        set_mangle(Some(Box::new(move |_, response, payloads| {
            let narrow = |payload| match payload {
                Payload::Sa(proposals) if !response => Payload::Sa(fill.narrow(proposals)),
                other => other,
            };
            payloads.into_iter().map(narrow).collect()
        })));
        let mut net = elliptic();
        let now = net.now;
        let ike = net.nodes[0].ike.initiate(now, call());
        net.settle();
        let suite = net.nodes[0].ike.suite(ike).unwrap_or_else(|| panic!("{fill:?}"));
        let numbers = (suite.cipher.number(), suite.prf.number(), suite.group.number());
        assert_eq!(numbers, (fill.encr, fill.prf, fill.ke));
        let fits = |net: &Net| {
            net.assert_children_fit();
            let child = net.nodes[0].child();
            let bits = child.cipher.key_len() * 8;
            assert_eq!(child.cipher.integrity().is_some(), fill.integ.is_some(), "{fill:?}");
            assert!(fill.encr.1.is_none_or(|wanted| usize::from(wanted) == bits), "{fill:?}");
            assert_eq!(child.esn, fill.esn == 1);
        };
        fits(&net);
        // Replaced from both sides, with and without a key exchange, child and IKE SA.
        for node in 0..2 {
            let now = net.now;
            let child = net.nodes[node].child().id;
            net.nodes[node].ike.rekey_child(now, child);
            net.settle();
            fits(&net);
            let ike = net.nodes[node].established()[0];
            net.nodes[node].ike.rekey_ike(now, ike);
            net.settle();
            net.nodes[node].ike.probe(now, ike);
            net.run(Duration::from_secs(20));
            fits(&net);
        }
        let counters = net.nodes[0].ike.counters();
        assert_eq!((counters.retransmissions, counters.dropped_integrity), (0, 0), "{fill:?}");
        set_mangle(None);
    }
}

/// CVE-2015-3240, CVE-2023-41913: a public value of another length than its group's, or one that
/// makes the secret zero, ends in no SA and in nothing worse.
#[test]
fn public_values_of_the_wrong_length_or_none_at_all_are_refused() {
    for (group, len) in [(31, 32), (19, 64), (20, 96), (21, 132)] {
        let lengths = [0, 1, len - 1, len, len + 1, 2 * len, 4096];
        for (len, octet) in lengths.iter().flat_map(|len| [(*len, 0), (*len, 0xff)]) {
            // An all-ones X25519 value is an honest one (RFC 7748 §5: the top bit is ignored).
            if (group, len, octet) == (31, 32, 0xff) {
                continue;
            }
            set_mangle(Some(Box::new(move |exchange, response, payloads| {
                let spoil = |payload| match payload {
                    Payload::KeyExchange(_)
                        if exchange == ExchangeType::IKE_SA_INIT && !response =>
                    {
                        Payload::KeyExchange(KeyExchange { group, data: vec![octet; len] })
                    }
                    other => other,
                };
                payloads.into_iter().map(spoil).collect()
            })));
            let mut net = elliptic();
            let now = net.now;
            net.nodes[0].ike.initiate(now, call());
            net.run(Duration::from_secs(60));
            set_mangle(None);
            assert!(net.nodes[1].established().is_empty(), "{group} {len} {octet}");
            assert_eq!((net.nodes[1].ike.len(), net.nodes[1].ike.half_open()), (0, 0));
            assert_eq!(net.nodes[1].ike.reserved(), (0, 0));
        }
    }
}

/// RFC 6023, the other way round: a peer that leaves the child out still has an IKE SA, under which
/// it can ask for one.
#[test]
fn an_ike_sa_without_a_child_stands() {
    let mut net = elliptic();
    set_mangle(Some(Box::new(|exchange, response, payloads| {
        let child = |payload: &Payload| {
            matches!(payload, Payload::Sa(_) | Payload::TsInitiator(_) | Payload::TsResponder(_))
        };
        let drop = exchange == ExchangeType::IKE_AUTH && !response;
        payloads.into_iter().filter(|payload| !drop || !child(payload)).collect()
    })));
    let now = net.now;
    let ike = net.nodes[0].ike.initiate(now, call());
    net.settle();
    set_mangle(None);
    assert_eq!(net.nodes[1].established().len(), 1);
    assert!(net.nodes.iter().all(|n| n.children.is_empty()));
    net.nodes[0].ike.create_child(now, ike, call().child);
    net.settle();
    net.assert_children_fit();
    assert_eq!(net.nodes[0].children.len(), 1);
}

/// RFC 7296 §2.21: a notify that nobody knows is passed over, in every message.
#[test]
fn unknown_notifies_are_passed_over() {
    for kind in [16_383, 16_500, 40_000, 65_535] {
        set_mangle(Some(Box::new(move |_, response, mut payloads| {
            // Error types nobody knows are errors only in answers (RFC 7296 §3.10.1).
            if kind >= 16_384 || !response {
                payloads.push(Payload::Notify(Notify::new(NotifyType(kind), vec![1, 2, 3])));
            }
            payloads
        })));
        let mut net = elliptic();
        let now = net.now;
        net.nodes[0].ike.initiate(now, call());
        net.settle();
        let child = net.nodes[0].child().id;
        net.nodes[0].ike.rekey_child(now, child);
        net.settle();
        set_mangle(None);
        net.assert_children_fit();
        assert_eq!(net.nodes[0].children.len(), 1, "{kind}");
    }
}

/// RFC 7296 §2.10: a nonce has half as many octets as the key of the prf that it goes into, or more.
#[test]
fn nonces_are_as_long_as_the_prf_wants() {
    for (prf, least) in [(5, 16), (6, 24), (7, 32)] {
        for (exchange, ike) in [(34, false), (36, false), (36, true)] {
            for responses in [false, true] {
                for octets in [least - 1, least] {
                    let case = (prf, exchange, ike, responses, octets);
                    let goes_on = goes_on(prf, ExchangeType(exchange), ike, responses, octets);
                    assert_eq!(goes_on, octets == least, "{case:?}");
                }
            }
        }
    }
}

/// RFC 7296 §2.10: who offers nothing but prfs that its nonce is too short for is told so.
#[test]
fn a_nonce_that_fits_no_prf_is_answered() {
    for (prf, octets, ends) in [(7, 31, true), (6, 16, true), (7, 32, false), (5, 16, false)] {
        assert_eq!(goes_on(prf, ExchangeType::IKE_SA_INIT, false, false, octets), !ends);
        let mut net = elliptic();
        let now = net.now;
        net.nodes[0].ike.initiate(now, call());
        net.collect();
        let mut request = net.wire.pop_front().unwrap();
        cut_nonce(&mut request.octets, octets);
        keep_prf(&mut request.octets, prf);
        net.deliver(&request);
        let answer = net.wire.pop_front().expect("an answer");
        let Body::Clear { first, octets } = Message::read(&answer.octets).unwrap().body else {
            panic!("in the clear");
        };
        let payloads = Payloads::read(first, octets).unwrap();
        let refused = payloads.notify(NotifyType::NO_PROPOSAL_CHOSEN).is_some();
        assert_eq!((refused, payloads.sa.is_some()), (ends, !ends), "{prf}");
    }
}

/// Makes every other prf of an offer one that nobody knows.
fn keep_prf(message: &mut [u8], prf: u16) {
    // Last or not, reserved, length 8, type PRF, reserved.
    for at in 28..message.len() - 8 {
        let [last, 0, 0, 8, 2, 0, high, low] = message[at..at + 8] else { continue };
        if matches!(last, 0 | 3) && u16::from_be_bytes([high, low]) != prf {
            message[at + 6..at + 8].copy_from_slice(&[0xfe, 0xfe]);
        }
    }
}

/// Whether a message is taken whose nonce is cut to so many octets.
fn goes_on(prf: u16, exchange: ExchangeType, ike: bool, responses: bool, octets: usize) -> bool {
    let fill = Fill { encr: (20, Some(256)), prf, integ: None, ke: 31, esn: 1 };
    set_mangle(Some(Box::new(move |of, response, payloads| {
        let change = |payload| match payload {
            Payload::Sa(proposals) if !response => Payload::Sa(fill.narrow(proposals)),
            Payload::Nonce(mut nonce) if (of, response) == (exchange, responses) => {
                nonce.truncate(octets);
                Payload::Nonce(nonce)
            }
            other => other,
        };
        payloads.into_iter().map(change).collect()
    })));
    let mut net = elliptic();
    let now = net.now;
    let id = net.nodes[0].ike.initiate(now, call());
    net.collect();
    if exchange == ExchangeType::IKE_SA_INIT && responses {
        let request = net.wire.pop_front().unwrap();
        net.deliver(&request);
        cut_nonce(&mut net.wire[0].octets, octets);
    }
    net.settle();
    let mark = net.seen.len();
    if exchange == ExchangeType::CREATE_CHILD_SA && ike {
        net.nodes[0].ike.rekey_ike(now, id);
    } else if exchange == ExchangeType::CREATE_CHILD_SA {
        net.nodes[0].ike.create_child(now, id, Net::call(0, 1).child);
    }
    net.settle();
    set_mangle(None);
    match (exchange, responses) {
        (ExchangeType::IKE_SA_INIT, false) => !net.nodes[1].ike.is_empty(),
        (ExchangeType::IKE_SA_INIT, true) => net.seen.iter().any(|p| p.octets[18] == 35),
        // Both believe that there is a successor, if only with keys of their own, and the old one is
        // deleted.
        _ if ike => net.nodes.iter().all(|n| n.ended().is_empty()) && net.seen.len() - mark == 4,
        _ => net.nodes.iter().all(|n| n.children.len() == 2),
    }
}

/// Leaves so many octets of the nonce of a message that nothing protects.
fn cut_nonce(message: &mut Vec<u8>, octets: usize) {
    let (mut kind, mut at) = (message[16], 28);
    while kind != 40 {
        let length = u16::from_be_bytes([message[at + 2], message[at + 3]]);
        (kind, at) = (message[at], at + usize::from(length));
    }
    let length = usize::from(message[at + 3]);
    message.drain(at + 4 + octets..at + length);
    message[at + 3] = u8::try_from(4 + octets).unwrap();
    let whole = u32::try_from(message.len()).unwrap();
    message[24..28].copy_from_slice(&whole.to_be_bytes());
}
