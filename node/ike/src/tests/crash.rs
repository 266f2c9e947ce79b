//! A peer loses all it knew and says so, provably (RFC 6290).

use sa::Spi;

use super::*;
use crate::exchange::crash_detection::TokenMaker;
use crate::message::{Body, Header, Message, Notify, NotifyType, Payloads};

const SECRETS: [[u8; 32]; 2] = [[11; 32], [22; 32]];

fn with_tokens() -> (Net, IkeId, IkeId) {
    let mut net = Net::pair();
    for (node, secret) in SECRETS.into_iter().enumerate() {
        start(&mut net, node, Some(secret));
    }
    let a = net.initiate(0, 1);
    net.settle();
    let b = net.nodes[1].established()[0];
    (net, a, b)
}

/// A node starts anew: everything is forgotten but what is on its disk.
fn start(net: &mut Net, node: usize, secret: Option<[u8; 32]>) {
    let mut config = config(node);
    config.token_secret = secret.map(Into::into);
    let verdicts = net.nodes[node].verdicts.clone();
    net.nodes[node] = Node::new(node, config, net.now);
    net.nodes[node].verdicts = verdicts;
}

#[test]
fn who_lost_it_is_believed_at_once() {
    // Either side, before and after a rekey from either side.
    for (lost, secret) in SECRETS.into_iter().enumerate() {
        for rekeyed in 0..3 {
            let (mut net, a, b) = with_tokens();
            let now = net.now;
            match rekeyed {
                0 => {}
                1 => net.nodes[0].ike.rekey_ike(now, a),
                _ => net.nodes[1].ike.rekey_ike(now, b),
            }
            net.run(Duration::from_secs(6));
            let now = net.now;
            let holder = 1 - lost;
            start(&mut net, lost, Some(secret));
            let mark = net.seen.len();
            net.nodes[holder].ike.probe(now, if holder == 0 { a } else { b });
            net.settle();
            assert_eq!(net.now, now);
            assert_eq!(net.nodes[holder].ended(), [End::PeerLost], "{lost} {rekeyed}");
            assert!(net.nodes[holder].children.is_empty());
            assert_eq!(net.seen.len() - mark, 2);
            assert_eq!(net.nodes[lost].ike.counters().lost_told, 1);
        }
    }
}

/// P18: no token is printed, neither of a machine that holds it nor of a message that brings it;
/// and the tests of the daemon know the tokens by the same words.
#[test]
fn no_token_is_printed() {
    let (net, ..) = with_tokens();
    let init = net.seen.iter().find(|packet| packet.octets[19] & 0x20 != 0).unwrap();
    let spi = |at: usize| u64::from_be_bytes(init.octets[at..at + 8].try_into().unwrap());
    let spis = (spi(0), spi(8));
    for (holder, initiator) in [(0, false), (1, true)] {
        let maker = 1 - holder;
        let token = crate::internal::token(&SECRETS[maker], spis, initiator);
        // What the maker says once it has lost the SA.
        let exchange = ExchangeType::INFORMATIONAL;
        let (spi_i, spi_r) = spis;
        let asked = Header {
            spi_i,
            spi_r,
            exchange,
            initiator: !initiator,
            response: false,
            message_id: 1,
        };
        let said = TokenMaker::new(&SECRETS[maker]).lost(&asked);
        assert!(said.windows(token.len()).any(|octets| octets == token), "it is another");
        let message = Message::read(&said).unwrap();
        let Body::Clear { first, octets } = message.body else { panic!("in the clear") };
        let payloads = Payloads::read(first, octets).unwrap();
        let shown = token[4..12].iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
        let texts = [
            format!("{:?}", net.nodes[holder].ike),
            format!("{:?}", net.nodes[maker].ike),
            format!("{payloads:?}"),
        ];
        assert!(texts[2].contains("QCD_TOKEN") || texts[2].contains("16419"), "{}", texts[2]);
        assert!(texts.iter().all(|text| !text.contains(&shown)), "{shown}");
    }
}

#[test]
fn without_its_secret_it_is_not_believed() {
    for secret in [None, Some([33; 32])] {
        let (mut net, a, _) = with_tokens();
        start(&mut net, 1, secret);
        let now = net.now;
        net.nodes[0].ike.probe(now, a);
        net.settle();
        assert_eq!(net.nodes[0].ended(), []);
        net.run(Duration::from_secs(120));
        assert_eq!(net.nodes[0].ended(), [End::Timeout]);
    }
}

#[test]
fn nobody_gets_the_token_of_an_sa_that_stands() {
    let (mut net, _, _) = with_tokens();
    let auth = net.seen.iter().find(|p| p.octets[18] == 35).unwrap().clone();
    let mut answers = Vec::new();
    for initiator in [true, false] {
        for swapped in [true, false] {
            // The SA's own SPIs, in either role, either way around, to either node.
            for to in 0..2 {
                let mut octets = auth.octets.clone();
                octets[19] = if initiator { 0x08 } else { 0 };
                if swapped {
                    octets[..16].rotate_left(8);
                }
                let from: SocketAddr = "203.0.113.66:4500".parse().unwrap();
                let to = SocketAddr::new(addr(to), 4500);
                net.deliver(&Packet { from, to, octets });
                while let Some(answer) = net.wire.pop_front() {
                    assert_eq!(answer.to, from);
                    answers.push(answer);
                }
            }
        }
    }
    // Whatever was drawn ends nothing, at neither end.
    for answer in answers {
        for node in 0..2 {
            for flags in [0x20, 0x28] {
                let mut forged = answer.clone();
                forged.to = SocketAddr::new(addr(node), 4500);
                forged.from = SocketAddr::new(addr(1 - node), 4500);
                forged.octets[19] = flags;
                forged.octets[..8].copy_from_slice(&auth.octets[..8]);
                forged.octets[8..16].copy_from_slice(&auth.octets[8..16]);
                net.deliver(&forged);
            }
        }
    }
    assert!(net.nodes.iter().all(|n| n.ended().is_empty() && n.children.len() == 1));
}

/// A request under SPIs that nobody here has, of so many octets in all.
fn under(spi: u64, octets: usize, from: &str) -> Packet {
    let exchange = ExchangeType::INFORMATIONAL;
    let (initiator, response) = (true, false);
    let header = Header { spi_i: spi, spi_r: spi, exchange, initiator, response, message_id: 9 };
    let mut message = Vec::new();
    header.write(&mut message, crate::message::PayloadType::SK, octets);
    message.extend([0, 0]);
    message.extend(u16::try_from(octets - Header::LEN).unwrap().to_be_bytes());
    message.resize(octets, 7);
    let to = SocketAddr::new(addr(1), 500);
    Packet { from: from.parse().unwrap(), to, octets: message }
}

/// P14.
#[test]
fn answers_are_rationed() {
    let (mut net, _, _) = with_tokens();
    for number in 1..=1000 {
        net.deliver(&under(number, SHORTEST_REQUEST, "203.0.113.66:500"));
    }
    let told = net.nodes[1].ike.counters().lost_told;
    assert!((1..=50).contains(&told), "{told}");
    // Nor are they without end for whoever forges ever other sources.
    for number in 0..5000_u16 {
        let [high, low] = number.to_be_bytes();
        let from = format!("10.{high}.{low}.1:500");
        net.deliver(&under(u64::from(number) + 2000, SHORTEST_REQUEST, &from));
    }
    let told = net.nodes[1].ike.counters().lost_told;
    assert!((900..=1000).contains(&told), "{told}");
    assert!(net.wire.iter().all(|p| 2 * p.octets.len() <= 3 * SHORTEST_REQUEST));
}

/// Attack A26.
/// CVE-2016-5361.
/// P14: anybody can write a request that nobody could have meant. What it would draw is twice as
/// long.
#[test]
fn what_is_too_short_to_be_a_request_is_not_answered() {
    let (mut net, _, _) = with_tokens();
    let mark = net.seen.len();
    for octets in 32..SHORTEST_REQUEST + 8 {
        net.deliver(&under(u64::try_from(octets).unwrap(), octets, "203.0.113.66:500"));
        net.now += Duration::from_secs(1);
        if let Some(answer) = net.wire.pop_front() {
            assert!(2 * answer.octets.len() <= 3 * octets);
        } else {
            assert!(octets < SHORTEST_REQUEST, "{octets}: nobody is told");
        }
    }
    assert!(net.seen.len() > mark);
}

/// P13: whoever floods a node that has lost everything keeps nobody from being told so.
#[test]
fn a_flood_hides_no_lost_sa() {
    for esp in [false, true] {
        let (mut net, a, _) = with_tokens();
        let spi = net.nodes[0].child().spi_out;
        start(&mut net, 1, Some(SECRETS[1]));
        let now = net.now;
        for number in 1..=1000_u32 {
            // Requests without an SA, ESP without one, and hints to the one that asks.
            let mut request = under(number.into(), SHORTEST_REQUEST, "203.0.113.66:500");
            net.deliver(&request);
            let (stray, from) = (Spi::new(number + 300).unwrap(), "203.0.113.66".parse().unwrap());
            net.nodes[1].ike.handle_unknown_spi(now, stray, addr(1), from);
            request.to = SocketAddr::new(addr(0), 500);
            request.octets = hint(stray);
            net.deliver(&request);
        }
        net.collect();
        net.wire.clear();
        if esp {
            net.nodes[1].ike.handle_unknown_spi(now, spi, addr(1), addr(0));
        } else {
            net.nodes[0].ike.probe(now, a);
        }
        net.settle();
        assert_eq!((net.now, net.nodes[0].ended()), (now, vec![End::PeerLost]), "{esp}");
    }
}

/// What is said of an ESP packet that nobody knows.
fn hint(spi: Spi) -> Vec<u8> {
    let notify = Notify::new(NotifyType::INVALID_SPI, spi.to_be_bytes());
    let header = Header {
        spi_i: 1,
        spi_r: 0,
        exchange: ExchangeType::INFORMATIONAL,
        initiator: true,
        response: false,
        message_id: 0,
    };
    header.write_clear(&[Payload::Notify(notify)])
}

/// The shortest that any cipher of ours makes, and with an AEAD anybody's "are you there?".
const SHORTEST_REQUEST: usize = 57;

#[test]
fn an_unknown_esp_packet_makes_its_sender_ask() {
    let (mut net, _, _) = with_tokens();
    let spi = net.nodes[0].child().spi_out;
    start(&mut net, 1, Some(SECRETS[1]));
    let now = net.now;
    net.nodes[1].ike.handle_unknown_spi(now, spi, addr(1), addr(0));
    net.settle();
    assert_eq!(net.nodes[0].ended(), [End::PeerLost]);
}

/// Two peers have chosen the same SPI, because they draw the same numbers here. Each is asked when it says
/// that it has lost that, and the other is not.
#[test]
fn of_two_peers_with_the_same_spi_each_is_found() {
    for (lost, moves) in [(1, false), (2, false), (1, true), (2, true)] {
        let mut net = Net::pair();
        let now = net.now;
        start(&mut net, 0, Some(SECRETS[0]));
        start(&mut net, 1, Some(SECRETS[1]));
        let third = |seed: u8| {
            let config = Config { token_secret: Some([33; 32].into()), ..config(2) };
            Node { ike: Ike::new(config, [seed; 32], now), ..Node::new(2, self::config(2), now) }
        };
        // As the second has it.
        net.nodes.push(third(2));
        let grant = Grant {
            key: public(key_pair(0)).into(),
            remote: vec![inner(0)],
            local: vec![inner(2)],
            transport: false,
            assigned: Assigned::Nothing,
        };
        let known =
            PeerVerdict::Known { identity: Identity::Address(addr(2)), grants: vec![grant] };
        net.nodes[2].verdicts.insert(Identity::Address(addr(0)), known);
        let calls = [1, 2].map(|peer| net.initiate(0, peer));
        net.settle();
        let spis: Vec<Spi> = net.nodes[0].children.values().map(|child| child.spi_out).collect();
        assert!(spis.len() == 2 && spis[0] == spis[1], "{spis:?}");
        let at = if moves { addr(10 + lost) } else { addr(lost) };
        let under = net.nodes[lost].established()[0];
        net.nodes[0].ike.allow_moves(calls[lost - 1], true);
        net.nodes[lost].addr = at;
        net.nodes[lost].ike.set_addresses(now, vec![at]);
        net.nodes[lost].ike.relocate(now, under, at);
        net.settle();
        match lost {
            1 => start(&mut net, 1, Some(SECRETS[1])),
            _ => net.nodes[2] = third(9),
        }
        net.nodes[lost].addr = at;
        net.nodes[lost].ike.handle_unknown_spi(now, spis[0], at, addr(0));
        net.settle();
        assert_eq!(net.nodes[0].ended(), [End::PeerLost], "{lost}");
        let left = &net.nodes[0].children.values().next().unwrap().ike;
        assert_eq!((net.now, *left), (now, calls[2 - lost]), "{lost}");
        net.nodes[0].ike.abandon(now, calls[2 - lost]);
        assert!(net.nodes[0].ike.names_nobody(), "{lost}");
    }
}

/// RFC 7296 §1.5: who knows of no IKE SA may call itself nobody, in this message and in no other.
#[test]
fn a_hint_from_nobody_is_heeded() {
    let (mut net, _, _) = with_tokens();
    let spi = net.nodes[0].child().spi_out;
    start(&mut net, 1, Some(SECRETS[1]));
    let (from, to) = (SocketAddr::new(addr(1), 500), SocketAddr::new(addr(0), 500));
    let mut octets = hint(spi);
    octets[..8].fill(0);
    // A response, another exchange, and what is not in the clear.
    for (at, value) in [(19, 0x28), (18, 34), (18, 36), (16, 46)] {
        let mut other = octets.clone();
        other[at] = value;
        assert!(Message::read(&other).is_err(), "{at}");
    }
    net.deliver(&Packet { from, to, octets });
    net.settle();
    assert_eq!(net.nodes[0].ended(), [End::PeerLost]);
}

/// Rule 33.
#[test]
fn a_forged_hint_costs_a_question_and_nothing_else() {
    let (mut net, _, _) = with_tokens();
    let octets = hint(net.nodes[0].child().spi_out);
    let mark = net.seen.len();
    for from in ["192.0.2.2:500", "203.0.113.66:500"] {
        let (from, to) = (from.parse().unwrap(), SocketAddr::new(addr(0), 500));
        net.deliver(&Packet { from, to, octets: octets.clone() });
        net.settle();
    }
    assert_eq!(net.seen.len() - mark, 2);
    assert!(net.nodes.iter().all(|n| n.ended().is_empty() && n.children.len() == 1));
}

/// P13: whoever forges the peer's own address, and does not know its SPIs, takes nothing from what the
/// peer itself has to say.
#[test]
fn a_hint_that_names_nothing_is_not_counted() {
    let (mut net, _, _) = with_tokens();
    let spi = net.nodes[0].child().spi_out;
    start(&mut net, 1, Some(SECRETS[1]));
    let (from, to) = (SocketAddr::new(addr(1), 500), SocketAddr::new(addr(0), 500));
    for number in 1..=1000 {
        let octets = hint(Spi::new(number + 300).unwrap());
        net.deliver(&Packet { from, to, octets });
    }
    assert!(net.wire.is_empty());
    net.deliver(&Packet { from, to, octets: hint(spi) });
    net.settle();
    assert_eq!(net.nodes[0].ended(), [End::PeerLost]);
}

/// P16: it was away for so long that it is asked seldom; when it is back and says that it has lost
/// us, it is asked at once. Nobody has it asked more often than once a second by saying so, nor given
/// up any sooner (P12).
#[test]
fn a_hint_does_not_wait_for_the_next_repetition() {
    let (mut net, a, _) = with_tokens();
    let spi = net.nodes[0].child().spi_out;
    net.nodes[1].addr = "203.0.113.1".parse().unwrap();
    let now = net.now;
    net.nodes[0].ike.probe(now, a);
    // Half a minute of doubling, and then one each fifteen seconds.
    net.run(Duration::from_secs(33));
    let (from, to) = (SocketAddr::new(addr(1), 500), SocketAddr::new(addr(0), 500));
    let forged = Packet { from, to, octets: hint(spi) };
    let mark = net.seen.len();
    for _ in 0..30 {
        net.deliver(&forged);
        net.run(Duration::from_millis(100));
    }
    assert!((1..=3).contains(&(net.seen.len() - mark)), "{}", net.seen.len() - mark);
    for _ in 0..50 {
        net.deliver(&forged);
        net.run(Duration::from_secs(1));
    }
    assert_eq!(net.nodes[0].ended(), []);
    net.run(Duration::from_secs(2));
    start(&mut net, 1, Some(SECRETS[1]));
    net.nodes[1].addr = addr(1);
    net.deliver(&forged);
    net.run(Duration::from_millis(1));
    assert_eq!(net.nodes[0].ended(), [End::PeerLost]);
}
