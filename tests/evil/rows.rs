//! The advisories of docs/THREATS.md, one by one, against the whole machine.

use std::net::SocketAddr;
use std::time::Duration;

use ike::{End, Event, Identity, Output};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;

use crate::peer::{ESP_SUITE, Evil, IKE_SUITE, Manners};
use crate::victim::{EVIL, EVIL_KEY, HONEST, NOBODYS_KEY, Owned, VICTIM, VICTIMS_KEY, inner};
use crate::wire::{
    AUTH, CREATE_CHILD_SA, Header, ID_I, ID_R, IKE_AUTH, IKE_INTERMEDIATE, IKE_SA_INIT,
    INFORMATIONAL, KE, NONCE, Payload, RESPONSE, SA, SK, SKF, TS_I, TS_R, chain, split,
};

const NO_PROPOSAL_CHOSEN: u16 = 14;
const AUTHENTICATION_FAILED: u16 = 24;
const UNSUPPORTED_CRITICAL_PAYLOAD: u16 = 1;

fn peer(key: usize, calls: bool) -> Evil {
    Evil::new(EVIL, key, calls, ChaCha20Rng::seed_from_u64(5))
}

/// A peer that has called, with IKE_SA_INIT behind it.
fn keyed(victim: &mut Owned, key: usize) -> Evil {
    let mut evil = peer(key, true);
    let request = evil.init(&evil.init_payloads());
    victim.hear(EVIL, &request);
    assert!(evil.read_init(&victim.said()[0]));
    evil
}

/// A peer that has called, and is established, with a child.
pub(crate) fn established(victim: &mut Owned) -> Evil {
    let mut evil = keyed(victim, EVIL_KEY);
    let payloads = evil.auth_payloads(inner(EVIL), inner(VICTIM));
    assert!(!ask(victim, &mut evil, IKE_AUTH, &payloads).is_empty());
    assert_eq!((victim.established.len(), victim.children.len()), (1, 1));
    evil
}

/// A peer that was called, has answered IKE_SA_INIT, and has the victim's IKE_AUTH before it.
fn called(victim: &mut Owned, key: usize) -> Evil {
    let mut evil = peer(key, false);
    victim.call(EVIL, EVIL_KEY);
    assert!(evil.read_init(&victim.said()[0]));
    let response = evil.init(&evil.init_payloads());
    victim.hear(EVIL, &response);
    evil
}

/// A peer that was called, and is established, with a child.
pub(crate) fn established_called(victim: &mut Owned) -> Evil {
    let mut evil = called(victim, EVIL_KEY);
    let heard = victim.said();
    let (asked, _) = heard.iter().find_map(|octets| evil.open(octets)).expect("IKE_AUTH");
    let payloads = evil.auth_payloads(inner(EVIL), inner(VICTIM));
    let octets = evil.seal(evil.header(IKE_AUTH, true, asked.id), &payloads);
    victim.hear(EVIL, &octets);
    victim.said();
    assert_eq!((victim.established.len(), victim.children.len()), (1, 1));
    evil
}

/// One request; the answers, opened.
pub(crate) fn ask(
    victim: &mut Owned,
    evil: &mut Evil,
    exchange: u8,
    payloads: &[Payload],
) -> Vec<(Header, Vec<Payload>)> {
    let header = evil.header(exchange, false, evil.next_id);
    evil.next_id += 1;
    let octets = evil.seal(header, payloads);
    victim.hear(EVIL, &octets);
    victim.said().iter().filter_map(|octets| evil.open(octets)).collect()
}

/// The notify types of an answer.
fn notifies(answers: &[(Header, Vec<Payload>)]) -> Vec<u16> {
    answers.iter().flat_map(|(_, payloads)| payloads).filter_map(Payload::notify_type).collect()
}

fn nothing_came_of_it(victim: &Owned) {
    assert_eq!((victim.ike.half_open(), victim.ike.len()), (0, 0));
    assert!(victim.events.is_empty(), "{:?}", victim.events);
}

/// With its length field made to agree.
fn cut(octets: &[u8], len: usize) -> Vec<u8> {
    let mut cut = octets[..len].to_vec();
    if let Some(field) = cut.get_mut(24..28) {
        field.copy_from_slice(&u32::try_from(len).unwrap().to_be_bytes());
    }
    cut
}

/// CVE-2013-4564: every length of every message of a handshake, as cut and with a header that
/// agrees; lengths that lie; major versions 0, 1, 3 and 15.
/// CVE-2018-5389.
#[test]
fn every_length_of_every_message() {
    let mut victim = Owned::victim(1);
    let mut evil = peer(EVIL_KEY, true);
    let request = evil.init(&evil.init_payloads());
    for len in 0..request.len() {
        victim.hear(EVIL, &request[..len]);
        victim.hear(EVIL, &cut(&request, len));
        let mut longer = request.clone();
        longer[24..28].copy_from_slice(&u32::try_from(len).unwrap().to_be_bytes());
        victim.hear(EVIL, &longer);
    }
    for version in [0x00, 0x10, 0x30, 0xf0, 0x01] {
        let mut other = request.clone();
        other[17] = version;
        victim.hear(EVIL, &other);
        let later = version >> 4 > 2;
        assert_eq!(victim.said().len(), usize::from(later), "{version:#x}");
    }
    nothing_came_of_it(&victim);
    victim.hear(EVIL, &request);
    assert!(evil.read_init(&victim.said()[0]));
    let payloads = evil.auth_payloads(inner(EVIL), inner(VICTIM));
    let auth = evil.seal(evil.header(IKE_AUTH, false, 1), &payloads);
    for len in 0..auth.len() {
        victim.hear(EVIL, &auth[..len]);
        victim.hear(EVIL, &cut(&auth, len));
        assert!(victim.said().is_empty(), "{len} octets were answered");
    }
    // Short datagrams from anybody, whatever they hold.
    for len in 0..=28 {
        for octet in [0, 1, 0x20, 0x2e, 0xff] {
            victim.hear(HONEST, &vec![octet; len]);
        }
    }
    assert!(victim.said().is_empty() && victim.established.is_empty());
    victim.hear(EVIL, &auth);
    assert_eq!(victim.established.len(), 1);
    victim.serves_the_honest();
}

/// CVE-2013-4564: and every length of every answer that we wait for, and of every request that
/// comes under the keys.
#[test]
fn every_length_of_every_answer() {
    let mut victim = Owned::victim(1);
    let mut evil = peer(EVIL_KEY, false);
    victim.call(EVIL, EVIL_KEY);
    assert!(evil.read_init(&victim.said()[0]));
    let response = evil.init(&evil.init_payloads());
    let spoilt = |victim: &mut Owned, whole: &[u8]| {
        for len in 0..whole.len() {
            victim.hear(EVIL, &whole[..len]);
            victim.hear(EVIL, &cut(whole, len));
            let mut longer = whole.to_vec();
            longer[24..28].copy_from_slice(&u32::try_from(len).unwrap().to_be_bytes());
            victim.hear(EVIL, &longer);
            assert!(victim.said().is_empty(), "{len} octets were answered");
        }
    };
    spoilt(&mut victim, &response);
    assert!(victim.events.is_empty(), "{:?}", victim.events);
    victim.hear(EVIL, &response);
    let request = victim.said().remove(0);
    assert!(evil.open(&request).is_some());
    let payloads = evil.auth_payloads(inner(EVIL), inner(VICTIM));
    let auth = evil.seal(evil.header(IKE_AUTH, true, 1), &payloads);
    spoilt(&mut victim, &auth);
    assert!(victim.established.is_empty());
    victim.hear(EVIL, &auth);
    assert_eq!((victim.established.len(), victim.children.len()), (1, 1));
    // Once there are keys for both: a request, and the answer to a question of ours.
    let request = evil.child_payloads(inner(EVIL), inner(VICTIM), false);
    let request = evil.seal(evil.header(CREATE_CHILD_SA, false, 0), &request);
    spoilt(&mut victim, &request);
    victim.hear(EVIL, &request);
    assert_eq!(victim.said().len(), 1);
    victim.ike.probe(victim.now, *victim.established.keys().next().unwrap());
    victim.after();
    assert_eq!(victim.said().len(), 1);
    let alive = evil.seal(evil.header(INFORMATIONAL, true, 2), &[]);
    spoilt(&mut victim, &alive);
    let is_alive = |victim: &Owned| victim.events.iter().any(|e| matches!(e, Event::Alive { .. }));
    assert!(!is_alive(&victim));
    victim.hear(EVIL, &alive);
    assert!(is_alive(&victim));
    victim.serves_the_honest();
}

/// RFC 7296 §2.5: a later minor version is ignored on receipt, from the first message to the last, and
/// what we send has ours.
#[test]
fn a_later_minor_version_is_none_of_our_business() {
    for minor in [0x21, 0x2f] {
        let mut victim = Owned::victim(25);
        let mut evil = peer(EVIL_KEY, true);
        evil.version = minor;
        let request = evil.init(&evil.init_payloads());
        assert_eq!(request[17], minor);
        victim.hear(EVIL, &request);
        let answer = victim.said().remove(0);
        assert_eq!(answer[17], 0x20);
        assert!(evil.read_init(&answer));
        for (exchange, payloads) in
            [(IKE_AUTH, evil.auth_payloads(inner(EVIL), inner(VICTIM))), (INFORMATIONAL, vec![])]
        {
            let header = evil.header(exchange, false, evil.next_id);
            evil.next_id += 1;
            let octets = evil.seal(header, &payloads);
            victim.hear(EVIL, &octets);
            let answer = victim.said().remove(0);
            assert_eq!(answer[17], 0x20);
            assert!(evil.open(&answer).is_some());
        }
        assert_eq!((victim.established.len(), victim.children.len()), (1, 1), "{minor:#x}");
    }
}

/// RFC 7296 §2.5, RFC 9242 §3.3.2: nor of what is signed, where the second key exchange is covered as
/// it was sent: with the sender's minor version and reserved flags.
#[test]
fn a_later_minor_version_is_signed_as_it_was_sent() {
    for (minor, reserved) in [(0x20, 0), (0x21, 0), (0x2f, 0), (0x20, 0x10), (0x2f, 0xc7)] {
        for fragments in [false, true] {
            let mut victim = Owned::with(VICTIM, VICTIMS_KEY, 27, |c| c.post_quantum = true);
            victim.knows(EVIL, EVIL_KEY);
            let manners = Manners { quantum: true, ..Manners::default() };
            let mut evil = peer(EVIL_KEY, true).with(manners);
            evil.version = minor;
            let request = evil.init(&evil.init_payloads());
            victim.hear(EVIL, &request);
            assert!(evil.read_init(&victim.said().remove(0)) && evil.owes_kem());
            let payloads = evil.kem_payloads();
            let mut header = evil.header(IKE_INTERMEDIATE, false, 1);
            header.flags |= reserved;
            let datagrams = if fragments {
                evil.seal_fragments(header, &payloads, 700)
            } else {
                vec![evil.seal(header, &payloads)]
            };
            for datagram in datagrams.iter().rev() {
                victim.hear(EVIL, datagram);
            }
            let (header, answer) = evil.open(&victim.said().remove(0)).unwrap();
            assert!(evil.take_kem(header, &answer));
            let payloads = evil.auth_payloads(inner(EVIL), inner(VICTIM));
            let octets = evil.seal(evil.header(IKE_AUTH, false, 2), &payloads);
            victim.hear(EVIL, &octets);
            let case = (minor, reserved, fragments);
            assert_eq!((victim.established.len(), victim.children.len()), (1, 1), "{case:x?}");
        }
    }
}

/// RFC 7296 §2.5, §2.21.3: an answer that ends our side ends the peer's too, which has no other way to
/// know: whatever made us end it, it is told.
#[test]
fn whom_we_leave_is_told() {
    const DELETE: u8 = 42;
    let critical = Payload { kind: 200, critical: true, body: vec![0; 4] };
    for (answer, why) in [
        (critical, End::Refused { notify: UNSUPPORTED_CRITICAL_PAYLOAD, authentic: true }),
        (Payload::new(NONCE, vec![1]), End::Misbehaved("nonce length")),
    ] {
        let mut victim = Owned::victim(28);
        let mut evil = established(&mut victim);
        let child = *victim.children.keys().next().unwrap();
        victim.ike.rekey_child(victim.now, child);
        victim.after();
        let (asked, _) = evil.open(&victim.said().remove(0)).unwrap();
        let octets = evil.seal(evil.header(CREATE_CHILD_SA, true, asked.id), &[answer]);
        victim.hear(EVIL, &octets);
        let ended = victim.events.iter().find_map(|event| match event {
            Event::Ended { why, .. } => Some(*why),
            _ => None,
        });
        assert_eq!(ended, Some(why));
        let said = victim.said();
        assert_eq!(said.len(), 1, "{why:?}");
        let (header, payloads) = evil.open(&said[0]).unwrap();
        assert_eq!((header.exchange, header.id), (INFORMATIONAL, asked.id + 1));
        assert_eq!((payloads[0].kind, &payloads[0].body[..]), (DELETE, &[1, 0, 0, 0][..]));
        victim.goes_down_clean();
    }
}

/// RFC 7296 §2.3: a window is one message unless its owner says otherwise, and nobody has to use more.
/// We never say otherwise, and whatever a peer says, we ask one thing at a time and answer its requests
/// in their order.
#[test]
fn a_window_is_one_message_whatever_is_announced() {
    const SET_WINDOW_SIZE: u16 = 16385;
    for size in [0, 1, 2, 64, u32::MAX] {
        let mut victim = Owned::victim(26);
        let mut evil = keyed(&mut victim, EVIL_KEY);
        let announced = Payload::notify(0, &[], SET_WINDOW_SIZE, &size.to_be_bytes());
        let mut payloads = evil.auth_payloads(inner(EVIL), inner(VICTIM));
        payloads.push(announced.clone());
        let answers = ask(&mut victim, &mut evil, IKE_AUTH, &payloads);
        assert!(!notifies(&answers).contains(&SET_WINDOW_SIZE), "{size}");
        assert_eq!((victim.established.len(), victim.children.len()), (1, 1), "{size}");
        let answers = ask(&mut victim, &mut evil, INFORMATIONAL, &[announced]);
        assert_eq!((answers.len(), notifies(&answers)), (1, vec![]), "{size}");
        // Three wishes, one question.
        let ike = *victim.established.keys().next().unwrap();
        let child = *victim.children.keys().next().unwrap();
        victim.ike.probe(victim.now, ike);
        victim.ike.rekey_child(victim.now, child);
        victim.ike.rekey_ike(victim.now, ike);
        victim.after();
        let asked = victim.said();
        assert_eq!(asked.len(), 1, "{size}");
        // The peer's own second request before its first: not taken, and then taken in its turn.
        let first = evil.seal(evil.header(INFORMATIONAL, false, 3), &[]);
        let second = evil.seal(evil.header(INFORMATIONAL, false, 4), &[]);
        victim.hear(EVIL, &second);
        assert!(victim.said().is_empty(), "{size}");
        victim.hear(EVIL, &first);
        victim.hear(EVIL, &second);
        assert_eq!(victim.said().len(), 2, "{size}");
    }
}

/// CVE-2013-6467, CVE-2013-6466, CVE-2014-2037: IKE_SA_INIT with one or two payloads missing,
/// renumbered or in another order, as caller and as called.
#[test]
fn first_messages_without_what_they_need() {
    let count = peer(EVIL_KEY, true).init_payloads().len();
    for calls in [true, false] {
        for a in 0..count {
            for b in a..count {
                for how in 0..3 {
                    let mut victim = Owned::victim(2);
                    let mut evil = peer(EVIL_KEY, calls);
                    if !calls {
                        victim.call(EVIL, EVIL_KEY);
                        assert!(evil.read_init(&victim.said()[0]));
                    }
                    let mut payloads = evil.init_payloads();
                    match how {
                        0 => {
                            payloads.remove(b);
                            if a != b {
                                payloads.remove(a);
                            }
                        }
                        1 => {
                            payloads[a].kind = 60;
                            payloads[b].kind = 61;
                        }
                        _ => payloads.swap(a, b),
                    }
                    let whole =
                        [SA, KE, NONCE].iter().all(|k| payloads.iter().any(|p| p.kind == *k));
                    let octets = evil.init(&payloads);
                    victim.hear(EVIL, &octets);
                    assert!(victim.said().len() <= 1);
                    assert_eq!(
                        victim.ike.half_open(),
                        usize::from(calls && whole),
                        "{a} {b} {how}"
                    );
                    let keyed = victim.events.iter().any(|e| matches!(e, Event::Keyed { .. }));
                    assert!(whole || !keyed, "{a} {b} {how}");
                    if !calls && !keyed {
                        // A better answer may still come.
                        let octets = evil.init(&evil.init_payloads());
                        victim.hear(EVIL, &octets);
                        assert!(victim.said().len() == 1, "{a} {b} {how}");
                    }
                }
            }
        }
    }
}

/// CVE-2015-3240, CVE-2023-41913, IKED f4cf5d1: key exchange values of every group that are zero,
/// all ones, off the curve, of small order or of another length, leave nothing behind.
#[test]
fn values_that_are_no_public_values() {
    // Octets of a public value and of a private one.
    for (group, len, private) in [
        (31_u16, 32_usize, 32),
        (19, 64, 32),
        (20, 96, 48),
        (21, 132, 66),
        (14, 256, 40),
        (15, 384, 52),
        (16, 512, 60),
    ] {
        let mut values = vec![vec![0; len]];
        values.extend([0, 1, len - 1, len + 1, 4096].map(|len| vec![9; len]));
        if group == 31 {
            // Of order 1, 2, 4 and 8 (RFC 7748 §6.1), and p + 1.
            values.push([&[1][..], &[0; 31]].concat());
            values.push([&[0xec][..], &[0xff; 30], &[0x7f]].concat());
            values.push([&[0xed][..], &[0xff; 30], &[0x7f]].concat());
            values.push([&[0xee][..], &[0xff; 30], &[0x7f]].concat());
        } else if group < 19 {
            // One, and more than the modulus (RFC 6989 §2.1).
            values.extend([[&vec![0; len - 1][..], &[1]].concat(), vec![0xff; len]]);
        } else {
            values.extend([vec![0xff; len], vec![4; len]]);
        }
        let compatible = |config: &mut ike::Config| config.compatibility = true;
        for value in values {
            let mut victim = Owned::with(VICTIM, VICTIMS_KEY, 3, compatible);
            let mut evil = peer(EVIL_KEY, true);
            let suite = [IKE_SUITE[0], IKE_SUITE[1], (4, group, 0)];
            let mut payloads = evil.init_payloads();
            payloads[0] = Payload::proposal(1, &[], &suite);
            payloads[1] = Payload::ke(group, &value);
            let octets = evil.init(&payloads);
            victim.hear(EVIL, &octets);
            assert!(victim.said().len() <= 1);
            nothing_came_of_it(&victim);
        }
        // It is the value and not the group: one that is good brings an answer.
        let mut victim = Owned::with(VICTIM, VICTIMS_KEY, 3, compatible);
        let mut evil = peer(EVIL_KEY, true);
        let mut payloads = evil.init_payloads();
        payloads[0] = Payload::proposal(1, &[], &[IKE_SUITE[0], IKE_SUITE[1], (4, group, 0)]);
        let (good, _) = ike::internal::agree(group, &vec![1; private], &[]).unwrap();
        payloads[1] = Payload::ke(group, &good);
        let octets = evil.init(&payloads);
        victim.hear(EVIL, &octets);
        assert_eq!(victim.ike.half_open(), 1, "group {group}");
    }
    // As the one who is called: the answer is dropped, and a better one is taken.
    for value in [vec![0; 32], vec![], vec![9; 31], vec![9; 33]] {
        let mut victim = Owned::victim(3);
        let mut evil = peer(EVIL_KEY, false);
        victim.call(EVIL, EVIL_KEY);
        assert!(evil.read_init(&victim.said()[0]));
        let mut payloads = evil.init_payloads();
        payloads[1] = Payload::ke(31, &value);
        let octets = evil.init(&payloads);
        victim.hear(EVIL, &octets);
        assert!(victim.events.is_empty() && victim.said().is_empty());
        let octets = evil.init(&evil.init_payloads());
        victim.hear(EVIL, &octets);
        assert_eq!(victim.said().len(), 1);
    }
}

/// CVE-2016-5391: proposals without key exchange, with none, without cipher or prf, with doubled
/// transforms: refused without a trace.
#[test]
fn proposals_that_lack_something() {
    let [cipher, prf, group] = IKE_SUITE;
    for (suite, good) in [
        (vec![cipher, prf, group], true),
        (vec![cipher, prf], false),
        (vec![cipher, prf, (4, 0, 0)], false),
        (vec![prf, group], false),
        (vec![cipher, group], false),
        (vec![(1, 11, 0), prf, group], false),
        (vec![(1, 20, 0), prf, group], false),
        (vec![(1, 20, 255), prf, group], false),
        (vec![cipher, prf, group, (3, 12, 0)], false),
        (vec![cipher, prf, group, (9, 1, 0)], false),
        (vec![], false),
    ] {
        let mut victim = Owned::victim(4);
        let mut evil = peer(EVIL_KEY, true);
        let mut payloads = evil.init_payloads();
        payloads[0] = Payload::proposal(1, &[], &suite);
        let octets = evil.init(&payloads);
        victim.hear(EVIL, &octets);
        assert_eq!(victim.ike.half_open(), usize::from(good), "{suite:?}");
        if !good {
            let said = victim.said();
            let (header, first) = Header::read(&said[0]).unwrap();
            assert_eq!(header.spi_r, 0);
            assert_eq!(split(first, &said[0][28..])[0].notify_type(), Some(NO_PROPOSAL_CHOSEN));
        }
    }
}

/// CVE-2020-1763, CVE-2022-23094, CVE-2009-0790: sealed messages, sound or not, for SPIs that
/// nobody has, that are gone, or that have expired, are not answered.
#[test]
fn messages_for_nobody() {
    let mut victim = Owned::victim(5);
    let mut evil = established(&mut victim);
    let liveness = evil.seal(evil.header(INFORMATIONAL, false, 2), &[]);
    for flip in 0..16 {
        let mut octets = liveness.clone();
        octets[flip] ^= 0x55;
        victim.hear(EVIL, &octets);
        octets[40] ^= 1;
        victim.hear(EVIL, &octets);
    }
    for exchange in 0..=255 {
        let header = Header { spi_i: 1, spi_r: 2, exchange, flags: 0x08, id: 0 };
        let octets = evil.seal(header, &[]);
        victim.hear(EVIL, &octets);
    }
    assert!(victim.said().is_empty());
    // The answer to a Delete is kept for those who lost it, and for no other request.
    let closed = ask(&mut victim, &mut evil, INFORMATIONAL, &[Payload::delete(1, 0, 0, &[])]);
    assert_eq!(closed.len(), 1);
    assert_eq!(victim.ike.len(), 0);
    for id in 0..10 {
        let octets = evil.seal(evil.header(INFORMATIONAL, false, id), &[]);
        victim.hear(EVIL, &octets);
    }
    victim.pass(Duration::from_secs(120));
    victim.hear(EVIL, &liveness);
    assert!(victim.said().is_empty());
    victim.goes_down_clean();
}

/// CVE-2023-30570: a refused IKE_SA_INIT leaves no SPI to refer to, and no request brings one.
#[test]
fn a_refusal_leaves_nothing_to_follow_up_on() {
    let mut victim = Owned::victim(6);
    let mut evil = peer(EVIL_KEY, true);
    // A key exchange of another group than the proposal's.
    let mut payloads = evil.init_payloads();
    payloads[1] = Payload::ke(19, &[9; 64]);
    let octets = evil.init(&payloads);
    victim.hear(EVIL, &octets);
    let refusal = victim.said().remove(0);
    let (header, first) = Header::read(&refusal).unwrap();
    assert_eq!((header.spi_r, header.flags), (0, RESPONSE));
    assert_eq!(split(first, &refusal[28..])[0].notify_type(), Some(17));
    nothing_came_of_it(&victim);
    for spi_r in [header.spi_r, 1, evil.spi_i, u64::MAX] {
        let (first, body) = chain(&evil.init_payloads());
        for id in [0, 1] {
            let header = Header { spi_i: evil.spi_i, spi_r, exchange: IKE_SA_INIT, flags: 8, id };
            if (spi_r, id) != (0, 0) {
                victim.hear(EVIL, &header.write(first, &body));
            }
            let header = Header { exchange: IKE_AUTH, ..header };
            victim.hear(EVIL, &header.write(SK, &[0; 60]));
        }
    }
    assert!(victim.said().is_empty());
    nothing_came_of_it(&victim);
}

/// CVE-2019-12312, CVE-2014-2338: every other exchange under the agreed keys, before IKE_AUTH: not
/// answered, nothing made, and IKE_AUTH still does its work.
#[test]
fn any_exchange_before_authentication() {
    // An additional key exchange that nobody agreed to ends the attempt, and nothing else.
    let mut victim = Owned::victim(7);
    let mut evil = keyed(&mut victim, EVIL_KEY);
    let refused = ask(&mut victim, &mut evil, IKE_INTERMEDIATE, &[Payload::ke(35, &[9; 1184])]);
    assert_eq!((refused.len(), victim.ike.len(), victim.ike.half_open()), (1, 0, 0));

    let mut victim = Owned::victim(7);
    let mut evil = keyed(&mut victim, EVIL_KEY);
    let others = || (0..=255).filter(|e| ![IKE_AUTH, IKE_INTERMEDIATE].contains(e));
    let child = evil.child_payloads(inner(EVIL), inner(VICTIM), false);
    let rekey = evil.rekey_payloads();
    let delete = vec![Payload::delete(1, 0, 0, &[])];
    for payloads in [&child, &rekey, &delete, &vec![]] {
        for exchange in others() {
            for id in [0, 1, 2] {
                for response in [false, true] {
                    let octets = evil.seal(evil.header(exchange, response, id), payloads);
                    victim.hear(EVIL, &octets);
                    assert!(victim.said().is_empty(), "{exchange} {id} {response}");
                    assert!(victim.events.is_empty(), "{:?}", victim.events);
                }
            }
        }
    }
    let payloads = evil.auth_payloads(inner(EVIL), inner(VICTIM));
    ask(&mut victim, &mut evil, IKE_AUTH, &payloads);
    assert_eq!((victim.established.len(), victim.children.len()), (1, 1));
    // The same of the one who is called: nothing but the response to its IKE_AUTH counts.
    let mut victim = Owned::victim(7);
    let mut evil = called(&mut victim, EVIL_KEY);
    victim.said();
    for exchange in others() {
        for response in [false, true] {
            let octets = evil.seal(evil.header(exchange, response, 1), &child);
            victim.hear(EVIL, &octets);
        }
    }
    assert!(victim.said().is_empty() && victim.established.is_empty());
    let payloads = evil.auth_payloads(inner(EVIL), inner(VICTIM));
    let octets = evil.seal(evil.header(IKE_AUTH, true, 1), &payloads);
    victim.hear(EVIL, &octets);
    assert_eq!((victim.established.len(), victim.children.len()), (1, 1));
}

/// CVE-2021-45079, CVE-2015-8023, CVE-2015-4171: answers that nobody asked for, and a response
/// that says it is well without a proof.
#[test]
fn success_that_nobody_has_earned() {
    let mut victim = Owned::victim(8);
    let mut evil = called(&mut victim, NOBODYS_KEY);
    victim.said();
    let all = evil.auth_payloads(inner(EVIL), inner(VICTIM));
    for without in [vec![], vec![ID_R], vec![AUTH], vec![ID_R, AUTH]] {
        let mut victim = Owned::victim(8);
        let mut evil = called(&mut victim, NOBODYS_KEY);
        victim.said();
        let mut payloads = all.clone();
        payloads.retain(|p| !without.contains(&p.kind));
        // INITIAL_CONTACT and an address, for good measure.
        payloads.push(Payload::notify(0, &[], 16384, &[]));
        let octets = evil.seal(evil.header(IKE_AUTH, true, 1), &payloads);
        victim.hear(EVIL, &octets);
        assert!(victim.established.is_empty() && victim.children.is_empty(), "{without:?}");
        assert_eq!(victim.ike.len(), 0);
    }
    // Before the question is asked, and after.
    let mut victim = Owned::victim(8);
    let mut evil = established(&mut victim);
    for id in 0..4 {
        for exchange in [IKE_AUTH, CREATE_CHILD_SA, INFORMATIONAL] {
            let octets = evil.seal(evil.header(exchange, true, id), &all);
            victim.hear(EVIL, &octets);
        }
    }
    assert!(victim.said().is_empty());
    assert_eq!((victim.established.len(), victim.children.len()), (1, 1));
}

/// CVE-2012-2388, CVE-2026-50721: AUTH that is empty, zero, of another method, cut short at any
/// place, or followed by something.
#[test]
fn authentication_that_is_none() {
    let mut bodies = vec![vec![], vec![14, 0, 0, 0], vec![0; 276], vec![14; 4]];
    let mut victim = Owned::victim(9);
    let good = keyed(&mut victim, EVIL_KEY).auth_payloads(inner(EVIL), inner(VICTIM))[1].clone();
    let head = good.body[..20].to_vec();
    bodies.extend((0..32).map(|cut| good.body[..good.body.len() * cut / 32].to_vec()));
    for tail in [0, 1, 255, 256, 257, 1024, 4000] {
        bodies.push([&head[..], &vec![0; tail]].concat());
        bodies.push([&head[..], &vec![0xff; tail]].concat());
    }
    bodies.push([&good.body[..], &[0]].concat());
    bodies.push([&head[..], &[0], &good.body[20..]].concat());
    for method in (0..=255).filter(|method| *method != 14) {
        bodies.push([&[method][..], &good.body[1..]].concat());
    }
    for body in bodies {
        let mut victim = Owned::victim(9);
        let mut evil = keyed(&mut victim, EVIL_KEY);
        let mut payloads = evil.auth_payloads(inner(EVIL), inner(VICTIM));
        assert_eq!(payloads[1].body[..20], head[..]);
        payloads[1].body.clone_from(&body);
        let answers = ask(&mut victim, &mut evil, IKE_AUTH, &payloads);
        assert!(victim.established.is_empty(), "{} octets", body.len());
        assert_eq!((answers.len(), victim.ike.len()), (1, 0));
    }
}

/// CVE-2023-38711, CVE-2013-6075, IKED 2695060: identities of every type and of odd lengths, as
/// caller and as called, each with a good signature over it. The owner is asked about what stands
/// there, and nobody becomes somebody else.
/// CVE-2010-2628, IKED f3cf80c.
#[test]
fn identities_of_every_kind() {
    let mut kinds: Vec<(u8, Vec<u8>)> = (0..=255).map(|kind| (kind, vec![192, 0, 2, 66])).collect();
    for kind in [1, 2, 5, 11, 13] {
        kinds.extend([0, 1, 3, 5, 16, 255, 256, 3000].map(|len| (kind, vec![b'a'; len])));
    }
    for calls in [true, false] {
        for (kind, data) in &kinds {
            let mut victim = Owned::victim(10);
            let mut evil =
                if calls { keyed(&mut victim, EVIL_KEY) } else { called(&mut victim, EVIL_KEY) };
            victim.said();
            let id = Payload::id(if calls { ID_I } else { ID_R }, *kind, data);
            let mut payloads = evil.auth_payloads(inner(EVIL), inner(VICTIM));
            payloads[1] = evil.auth(&id.body);
            payloads[0] = id;
            let octets = evil.seal(evil.header(IKE_AUTH, !calls, 1), &payloads);
            victim.hear(EVIL, &octets);
            let own = (*kind, data.as_slice()) == (1, &[192, 0, 2, 66]);
            assert_eq!(victim.established.len(), usize::from(own), "{kind} {data:?}");
            assert!(victim.established.values().all(|id| *id == Identity::Address(EVIL)));
            assert_eq!(victim.ike.len(), usize::from(own));
        }
    }
}

/// CVE-2023-38712: Delete of the IKE SA with more behind it; of the same SPI twice, of none, of
/// foreign ones; counts and sizes that do not agree. A child goes once.
#[test]
fn deletions_of_every_kind() {
    let spi = peer(EVIL_KEY, true).esp_spi;
    let twice = [spi, spi].concat();
    let none = Payload::delete(3, 4, 0, &[]);
    let ours = Payload::delete(3, 4, 1, &spi);
    let all = Payload::delete(1, 0, 0, &[]);
    for (payloads, ike, child) in [
        (vec![none.clone()], 1, 1),
        (vec![ours.clone()], 1, 0),
        (vec![ours.clone(), ours.clone()], 1, 0),
        (vec![Payload::delete(3, 4, 2, &twice)], 1, 0),
        (vec![Payload::delete(3, 4, 1, &[0, 0, 0, 0])], 1, 1),
        (vec![Payload::delete(3, 4, 1, &[9, 9, 9, 9]), none.clone()], 1, 1),
        (vec![Payload::delete(2, 4, 1, &spi)], 1, 1),
        (vec![all.clone(), ours.clone()], 0, 0),
        (vec![ours.clone(), all.clone(), all.clone(), ours.clone()], 0, 0),
        (vec![all.clone(), Payload::notify(0, &[], 24, &[]), all.clone()], 0, 0),
        // These do not add up: a peer that sends them is not kept.
        (vec![Payload::delete(1, 8, 1, &[0; 8])], 0, 0),
        (vec![Payload::delete(1, 0, 1, &[])], 0, 0),
        (vec![Payload::delete(3, 4, u16::MAX, &spi)], 0, 0),
        (vec![Payload::delete(3, 0, u16::MAX, &[])], 0, 0),
        (vec![Payload::delete(3, 255, 255, &spi)], 0, 0),
        (vec![Payload::delete(3, 4, 1, &spi[..3])], 0, 0),
    ] {
        let mut victim = Owned::victim(11);
        let mut evil = established(&mut victim);
        let answers = ask(&mut victim, &mut evil, INFORMATIONAL, &payloads);
        assert!(!answers.is_empty());
        let counts = (victim.established.len(), victim.children.len());
        assert_eq!(counts, (ike, child), "{payloads:?}");
    }
}

/// CVE-2024-3652, CVE-2014-9221: ESP without encryption, with authentication only, with key
/// lengths that are none: no child, whoever asks.
#[test]
fn children_without_encryption() {
    let esn = ESP_SUITE[1];
    for suite in [
        vec![(1, 11, 0), esn],
        vec![(1, 11, 0), (3, 12, 0), esn],
        vec![(1, 21, 128), esn],
        vec![(1, 20, 0), esn],
        vec![(1, 20, 1), esn],
        vec![(1, 20, 192), esn],
        vec![(1, 20, 65_535), esn],
        vec![(1, 28, 256), esn],
        vec![(1, 1025, 0), esn],
        vec![esn],
        vec![],
    ] {
        let mut victim = Owned::victim(12);
        let mut evil = keyed(&mut victim, EVIL_KEY);
        let mut payloads = evil.auth_payloads(inner(EVIL), inner(VICTIM));
        payloads[2] = Payload::proposal(3, &evil.esp_spi, &suite);
        let answers = ask(&mut victim, &mut evil, IKE_AUTH, &payloads);
        assert_eq!(notifies(&answers), [NO_PROPOSAL_CHOSEN], "{suite:?}");
        assert_eq!((victim.established.len(), victim.children.len()), (1, 0));
        // As the one who is called.
        let mut victim = Owned::victim(12);
        let mut evil = called(&mut victim, EVIL_KEY);
        let mut payloads = evil.auth_payloads(inner(EVIL), inner(VICTIM));
        payloads[2] = Payload::proposal(3, &evil.esp_spi, &suite);
        let octets = evil.seal(evil.header(IKE_AUTH, true, 1), &payloads);
        victim.hear(EVIL, &octets);
        assert!(victim.children.is_empty(), "{suite:?}");
    }
    // SPIs that are reserved (RFC 4303 §2.1).
    for spi in [0_u32, 1, 255] {
        let mut victim = Owned::victim(12);
        let mut evil = keyed(&mut victim, EVIL_KEY);
        evil.esp_spi = spi.to_be_bytes();
        let payloads = evil.auth_payloads(inner(EVIL), inner(VICTIM));
        ask(&mut victim, &mut evil, IKE_AUTH, &payloads);
        assert!(victim.children.is_empty(), "{spi}");
    }
}

/// CVE-2023-38710: REKEY_SA that names any protocol, any SPI, of any size, is answered.
#[test]
fn a_rekey_of_anything_is_answered() {
    for protocol in [0, 1, 2, 3, 4, 50, 51, 127, 128, 255] {
        for spi in [&[][..], &[1], &[0, 1, 2, 3], &[9; 4], &[0; 8], &[7; 255]] {
            let mut victim = Owned::victim(13);
            let mut evil = established(&mut victim);
            let mut payloads = evil.child_payloads(inner(EVIL), inner(VICTIM), false);
            payloads.insert(0, Payload::notify(protocol, spi, 16393, &[]));
            let answers = ask(&mut victim, &mut evil, CREATE_CHILD_SA, &payloads);
            let known = (protocol, spi) == (3, &[0, 1, 2, 3]);
            // CHILD_SA_NOT_FOUND about what it asks about, or INVALID_SYNTAX, with which all is over
            // (RFC 7296 §2.21.3).
            let formed = spi.len() == 4;
            let refusal = match formed {
                true => Payload::notify(protocol, spi, 44, &[]),
                false => Payload::notify(0, &[], 7, &[]),
            };
            assert_eq!(answers.len(), if formed { 1 } else { 2 }, "{protocol} {spi:?}");
            assert_eq!(answers[0].1 == [refusal], !known, "{protocol} {spi:?}: {answers:?}");
            let left = usize::from(formed) + usize::from(known);
            assert_eq!(victim.children.len(), left, "{protocol} {spi:?}");
            victim.goes_down_clean();
        }
    }
}

/// CVE-2023-23009, IKED f3cf80c: traffic selectors whose count, lengths, types, addresses or ports
/// are not what they should be. Nothing is installed but what was granted.
#[test]
fn selectors_of_every_kind() {
    let good = Payload::selector(TS_I, inner(EVIL)).body;
    let mut bodies = vec![vec![], vec![0; 4], vec![255, 0, 0, 0], [&good[..], &good[4..]].concat()];
    for at in 0..good.len() {
        for value in [0, 1, 7, 8, 15, 17, 127, 255] {
            let mut body = good.clone();
            body[at] = value;
            bodies.push(body);
        }
        bodies.push(good[..at].to_vec());
    }
    // Everything, in both families.
    let all = [&[1, 0, 0, 0, 7, 0, 0, 16, 0, 0, 255, 255][..], &[0; 4], &[255; 4]].concat();
    bodies.push(all);
    bodies.push([&[1, 0, 0, 0, 8, 0, 0, 40, 0, 0, 255, 255][..], &[0; 16], &[255; 16]].concat());
    bodies.push([&[255, 0, 0, 0][..], &good[4..].repeat(255)].concat());
    let mut installed = 0;
    for body in bodies {
        for (kind, at) in [(TS_I, 3), (TS_R, 4)] {
            let mut victim = Owned::victim(14);
            let mut evil = keyed(&mut victim, EVIL_KEY);
            let mut payloads = evil.auth_payloads(inner(EVIL), inner(VICTIM));
            payloads[at] = Payload::new(kind, body.clone());
            ask(&mut victim, &mut evil, IKE_AUTH, &payloads);
            // What may be installed is asserted by the victim's owner.
            installed += victim.children.len();
        }
    }
    assert!(installed > 20, "{installed}");
}

/// CVE-2026-12413: fragments behind any number of payloads in the clear that nobody knows. None is
/// taken, and fragments alone still are.
#[test]
fn fragments_behind_unknown_payloads() {
    let mut victim = Owned::victim(15);
    let mut evil = keyed(&mut victim, EVIL_KEY);
    let payloads = evil.auth_payloads(inner(EVIL), inner(VICTIM));
    let (first, plaintext) = chain(&payloads);
    let (head, tail) = plaintext.split_at(plaintext.len() / 2);
    let header = evil.header(IKE_AUTH, false, 1);
    for count in (1..=70).chain([127, 128, 255, 256, 1000]) {
        let outer = vec![Payload::new(200, vec![0; 4]); count];
        for (number, first, chunk) in [(1, first, head), (2, 0, tail)] {
            let pair = Some((number, 2));
            let octets = evil.seal_octets(header, SKF, first, pair, chunk, &outer);
            victim.hear(EVIL, &octets);
        }
        let octets = evil.seal_octets(header, SK, first, None, &plaintext, &outer);
        victim.hear(EVIL, &octets);
        assert!(victim.said().is_empty() && victim.established.is_empty(), "{count}");
    }
    for octets in evil.seal_fragments(header, &payloads, 300) {
        victim.hear(EVIL, &octets);
    }
    assert_eq!(victim.established.len(), 1);
}

/// CVE-2016-10396, CVE-2018-5391, CVE-2013-6076: fragments in any order, lone, doubled, too many or
/// too large. A thousand cost what one costs.
/// CVE-2013-6075.
#[test]
fn fragments_of_every_kind() {
    let mut victim = Owned::victim(16);
    let mut evil = keyed(&mut victim, EVIL_KEY);
    let header = evil.header(IKE_AUTH, false, 1);
    // Lone ones, of messages that never become whole; more than there may be; octets beyond bound.
    for round in 0..1000_u16 {
        for (number, total) in [(2, 2), (32, 32), (33, 33), (65_535, 65_535), (1, 2)] {
            let chunk = vec![0; usize::from(round) % 1200];
            let octets = evil.seal_octets(header, SKF, 35, Some((number, total)), &chunk, &[]);
            victim.hear(EVIL, &octets);
        }
    }
    assert!(victim.said().is_empty() && victim.established.is_empty());
    let payloads = evil.auth_payloads(inner(EVIL), inner(VICTIM));
    let mut fragments = evil.seal_fragments(header, &payloads, 20);
    assert!(fragments.len() > 8);
    fragments.reverse();
    for fragment in &fragments {
        victim.hear(EVIL, fragment);
        victim.hear(EVIL, fragment);
    }
    // Fewer than were announced before are none of the same message.
    assert!(fragments.len() < 32 && victim.established.is_empty());
    let mut whole = evil.seal(header, &payloads);
    victim.hear(EVIL, &whole);
    assert_eq!(victim.established.len(), 1);
    // Larger than any message may be.
    whole = evil.seal(evil.header(INFORMATIONAL, false, 2), &[Payload::new(200, vec![0; 10_000])]);
    victim.said();
    victim.hear(EVIL, &whole);
    assert!(victim.said().is_empty());
}

/// CVE-2015-3991: payloads of every type, IKEv1's among them, critical or not, inside what is
/// encrypted. Unknown critical ones are named in the answer; none ends in anything worse.
#[test]
fn payloads_of_every_type() {
    let mut victim = Owned::victim(17);
    let mut evil = established(&mut victim);
    for kind in 1..=255 {
        for critical in [false, true] {
            if victim.established.is_empty() {
                victim = Owned::victim(17);
                evil = established(&mut victim);
            }
            let payload = Payload { kind, critical, body: vec![0, 0, 0, 0] };
            let answers = ask(&mut victim, &mut evil, INFORMATIONAL, &[payload]);
            let unknown = !(33..=48).contains(&kind) && kind != SKF;
            assert!(!answers.is_empty(), "{kind} {critical}");
            if unknown {
                let expected: &[u16] = if critical { &[UNSUPPORTED_CRITICAL_PAYLOAD] } else { &[] };
                assert_eq!(notifies(&answers), expected, "{kind} {critical}");
                assert_eq!(victim.established.len(), 1, "{kind} {critical}");
            }
        }
    }
}

/// CVE-2026-25075, CVE-2026-35328, CVE-2026-35330, CVE-2026-35333: attributes, transforms and
/// proposals of no length make nobody walk in circles.
#[test]
fn parts_of_no_length() {
    for at in [2, 3, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20] {
        for value in [0, 1, 3, 4, 7, 8, 255] {
            let mut victim = Owned::victim(18);
            let mut evil = peer(EVIL_KEY, true);
            let mut payloads = evil.init_payloads();
            payloads[0].body[at] = value;
            let octets = evil.init(&payloads);
            victim.hear(EVIL, &octets);
            assert!(victim.said().len() <= 1 && victim.ike.half_open() <= 1);
        }
    }
    // A transform with four thousand empty attributes.
    let attributes = [0, 99, 0, 0].repeat(1000);
    let len = u16::try_from(8 + attributes.len()).unwrap().to_be_bytes();
    let transform = [&[0, 0, len[0], len[1], 1, 0, 0, 20][..], &attributes].concat();
    let len = u16::try_from(8 + transform.len()).unwrap().to_be_bytes();
    let body = [&[0, 0, len[0], len[1], 1, 1, 0, 1][..], &transform].concat();
    let mut victim = Owned::victim(18);
    let mut evil = peer(EVIL_KEY, true);
    let mut payloads = evil.init_payloads();
    payloads[0] = Payload::new(SA, body);
    let octets = evil.init(&payloads);
    victim.hear(EVIL, &octets);
    assert_eq!(victim.ike.half_open(), 0);
}

/// IKED baf0c8e, gotatun 0.8.0: what comes from another address moves nobody unless it
/// authenticates and a NAT is there; not in IKE_SA_INIT, not later.
#[test]
fn a_spoofed_source_moves_nobody() {
    let elsewhere: SocketAddr = "203.0.113.9:4500".parse().unwrap();
    let mut victim = Owned::victim(19);
    let mut evil = established(&mut victim);
    let child = *victim.children.keys().next().unwrap();
    let liveness = evil.seal(evil.header(INFORMATIONAL, false, 2), &[]);
    for octet in 0..liveness.len() {
        let mut broken = liveness.clone();
        broken[octet] ^= 1;
        victim.hear_at(elsewhere, 4500, &broken);
    }
    assert!(victim.said().is_empty());
    // Sound, but there is no NAT: answered, and nobody moves.
    victim.hear_at(elsewhere, 4500, &liveness);
    victim.ike.handle_moved(victim.now, child, elsewhere);
    victim.after();
    assert!(!victim.events.iter().any(|e| matches!(e, Event::Moved { .. })));
    victim.said();
    victim.ike.probe(victim.now, *victim.established.keys().next().unwrap());
    victim.after();
    assert_eq!(victim.sent[0].remote.ip(), EVIL);
    // A cookie, a refusal, or a whole answer to our call, from somebody else.
    let mut victim = Owned::victim(19);
    let mut evil = peer(EVIL_KEY, false);
    victim.call(EVIL, EVIL_KEY);
    assert!(evil.read_init(&victim.said()[0]));
    for payloads in [
        vec![Payload::notify(0, &[], 16390, &[7; 16])],
        vec![Payload::notify(0, &[], 14, &[])],
        vec![Payload::notify(0, &[], 17, &[0, 19])],
        evil.init_payloads(),
    ] {
        let octets = evil.init(&payloads);
        victim.hear_at(SocketAddr::new(HONEST, 500), 500, &octets);
        assert!(victim.said().is_empty() && victim.events.is_empty());
    }
}

/// The deviation and reflection attacks (Cremers 2011): our own nonce, key exchange value or SPI come
/// back as the peer's, or our own messages do.
/// reflection (Cremers 2011) and the deviation attack.
#[test]
fn our_own_values_are_nobody_elses() {
    for what in 0..4 {
        let mut victim = Owned::victim(20);
        let mut evil = peer(EVIL_KEY, false);
        victim.call(EVIL, EVIL_KEY);
        let request = victim.said().remove(0);
        assert!(evil.read_init(&request));
        let own = split(request[16], &request[28..]);
        let of = |kind| own.iter().find(|p| p.kind == kind).unwrap().clone();
        let mut payloads = evil.init_payloads();
        let spi = evil.spi_r;
        match what {
            0 => payloads[1] = of(KE),
            1 => payloads[2] = of(NONCE),
            2 => evil.spi_r = evil.spi_i,
            _ => evil.spi_r = 0,
        }
        let octets = evil.init(&payloads);
        victim.hear(EVIL, &octets);
        assert!(victim.said().is_empty() && victim.events.is_empty(), "{what}");
        victim.hear(EVIL, &request);
        assert!(victim.said().is_empty() && victim.ike.half_open() == 0);
        evil.spi_r = spi;
        let octets = evil.init(&evil.init_payloads());
        victim.hear(EVIL, &octets);
        assert_eq!(victim.said().len(), 1, "{what}");
    }
}

/// CVE-2011-3380, CVE-2011-4073: the answers of owner and signer come when the SA they are for is
/// gone, or for the second time, or never.
#[test]
fn answers_that_come_too_late() {
    for late in 0..3 {
        let mut victim = Owned::victim(21);
        victim.prompt = false;
        let mut evil = keyed(&mut victim, EVIL_KEY);
        let payloads = evil.auth_payloads(inner(EVIL), inner(VICTIM));
        ask(&mut victim, &mut evil, IKE_AUTH, &payloads);
        let Some(Output::NeedPeer(need)) = victim.waiting.front() else { panic!("it asks first") };
        let ike = need.ike;
        if late > 0 {
            victim.answer();
            victim.after();
            assert!(matches!(victim.waiting[0], Output::Sign(_)));
        }
        match late {
            2 => victim.ike.close(victim.now, ike),
            _ => victim.pass(Duration::from_secs(60)),
        }
        victim.after();
        assert_eq!(victim.ike.len(), 0);
        victim.answer();
        victim.ike.handle_signature(victim.now, ike, Some(vec![1; 256]));
        victim.after();
        assert!(victim.established.is_empty() && victim.children.is_empty());
        let ended = victim.events.iter().filter(|e| matches!(e, Event::Ended { .. })).count();
        assert_eq!(ended, 1);
        victim.serves_the_honest();
    }
}

/// RUSTSEC-2023-0041: a response, whatever is wrong with it, is never answered.
#[test]
fn no_response_is_answered() {
    let mut victim = Owned::victim(22);
    let mut evil = established(&mut victim);
    for version in [0x20, 0x30, 0x10] {
        for exchange in 0..=255 {
            let mut octets = evil.seal(evil.header(exchange, true, 3), &[]);
            octets[17] = version;
            victim.hear(EVIL, &octets);
            let header = Header { spi_i: 9, spi_r: 0, exchange, flags: RESPONSE, id: 0 };
            let mut octets = header.write(SA, &[1, 2, 3]);
            octets[17] = version;
            victim.hear(EVIL, &octets);
        }
    }
    assert!(victim.said().is_empty());
    assert_eq!(victim.events.iter().filter(|e| matches!(e, Event::Ended { .. })).count(), 0);
}

/// A peer that breaks the protocol under its keys is told, once, and not kept (RFC 7296 §2.21.3).
#[test]
fn who_misbehaves_is_told_and_forgotten() {
    let mut victim = Owned::victim(23);
    let mut evil = established(&mut victim);
    let answers = ask(&mut victim, &mut evil, INFORMATIONAL, &[Payload::new(NONCE, vec![1])]);
    assert_eq!(answers.len(), 2, "the refusal, and a Delete");
    let ended = victim.events.iter().find_map(|e| match e {
        Event::Ended { why, .. } => Some(*why),
        _ => None,
    });
    assert!(matches!(ended, Some(End::Misbehaved(_))), "{ended:?}");
    assert_eq!(victim.ike.len(), 0);
    victim.serves_the_honest();
}

/// CVE-2025-62291: a responder that asks for EAP instead of proving who it is, with
/// failures of MSCHAPv2 whose lengths lie, gets nothing.
#[test]
fn eap_is_not_spoken() {
    const EAP: u8 = 48;
    for (code, len, size, with_auth) in [
        (1_u8, 4_u16, 4_u8, false),
        (1, 5, 1, true),
        (4, 0, 0, false),
        (1, 65_535, 255, true),
        (3, 4, 4, false),
    ] {
        let mut victim = Owned::victim(28);
        let mut evil = called(&mut victim, NOBODYS_KEY);
        assert!(!victim.said().is_empty());
        let [l0, l1] = len.to_be_bytes();
        // Type 26, its own code 4: a failure.
        let eap = Payload::new(EAP, [code, 1, l0, l1, 26, 4, 1, 0, size, b'E']);
        let mut payloads = evil.auth_payloads(inner(EVIL), inner(VICTIM));
        payloads.truncate(if with_auth { 2 } else { 1 });
        payloads.push(eap);
        let octets = evil.seal(evil.header(IKE_AUTH, true, 1), &payloads);
        victim.hear(EVIL, &octets);
        victim.pass(Duration::from_secs(60));
        assert!(victim.established.is_empty() && victim.children.is_empty(), "{code} {len}");
        victim.serves_the_honest();
    }
}

/// CVE-2013-2944: keys that make the library fail, not say no: points that are on no curve, numbers
/// that are no modulus, with signatures that look like some, in IKE_AUTH of who calls and of who
/// was called. What is not a plain yes is a no.
#[test]
fn a_library_that_fails_says_no() {
    use ike::PublicKey;
    // ecdsa-with-SHA256, -384, -512 and Ed25519, as RFC 7427 wants them before the signature.
    let ecdsa = |hash| vec![12, 0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, hash];
    let ed25519 = vec![7, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70];
    let pkcs1 = vec![15, 0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11, 5, 0];
    let der = vec![0x30, 6, 2, 1, 1, 2, 1, 1];
    let even = [vec![0xff; 255], vec![0xfe]].concat();
    let cases: Vec<(PublicKey, Vec<u8>, Vec<u8>)> = vec![
        (PublicKey::EcdsaP256([9; 64]), ecdsa(2), der.clone()),
        (PublicKey::EcdsaP256([0; 64]), ecdsa(3), der.clone()),
        (PublicKey::EcdsaP384([9; 96]), ecdsa(3), der.clone()),
        (PublicKey::EcdsaP384([0; 96]), ecdsa(4), der),
        // y = 2 is no point's.
        (
            PublicKey::Ed25519(std::array::from_fn(|at| if at == 0 { 2 } else { 0 })),
            ed25519,
            vec![0; 64],
        ),
        (PublicKey::Rsa { exponent: vec![3], modulus: even }, pkcs1.clone(), vec![1; 256]),
        (PublicKey::Rsa { exponent: vec![], modulus: vec![0xff; 256] }, pkcs1, vec![1; 256]),
    ];
    for (key, identifier, signature) in cases {
        let auth = || Payload::new(AUTH, [&[14, 0, 0, 0][..], &identifier, &signature].concat());
        let mut victim = Owned::victim(27);
        let mut evil = peer(EVIL_KEY, false);
        victim.call_holder(EVIL, key.clone().into());
        assert!(evil.read_init(&victim.said()[0]));
        let response = evil.init(&evil.init_payloads());
        victim.hear(EVIL, &response);
        assert!(!victim.said().is_empty());
        let mut payloads = evil.auth_payloads(inner(EVIL), inner(VICTIM));
        payloads[1] = auth();
        let octets = evil.seal(evil.header(IKE_AUTH, true, 1), &payloads);
        victim.hear(EVIL, &octets);
        let ended = |e: &Event| matches!(e, Event::Ended { why: End::AuthenticationFailed, .. });
        assert!(victim.events.iter().any(ended), "{key:?}");
        assert!(victim.established.is_empty() && victim.children.is_empty());
        victim.goes_down_clean();

        let mut victim = Owned::victim(27);
        let mut grant = crate::victim::grant(EVIL_KEY, VICTIM, EVIL);
        grant.key = key.clone().into();
        let identity = Identity::Address(VICTIM);
        let verdict = ike::PeerVerdict::Known { identity, grants: vec![grant] };
        victim.verdicts.insert(Identity::Address(EVIL), verdict);
        let mut evil = keyed(&mut victim, EVIL_KEY);
        let mut payloads = evil.auth_payloads(inner(EVIL), inner(VICTIM));
        payloads[1] = auth();
        let answers = ask(&mut victim, &mut evil, IKE_AUTH, &payloads);
        assert_eq!(notifies(&answers), [AUTHENTICATION_FAILED], "{key:?}");
        assert!(victim.established.is_empty() && victim.children.is_empty());
        victim.goes_down_clean();
    }
}

/// What a secret could look like in a text: hexadecimal, base64, or as Rust prints octets.
fn shapes(secret: &[u8]) -> Vec<String> {
    let hex: String = secret[4..12].iter().map(|octet| format!("{octet:02x}")).collect();
    let list = format!("{:?}", &secret[4..12]);
    let mut shapes = vec![hex.to_uppercase(), hex, list[1..list.len() - 1].to_owned()];
    // Base64 takes three octets at a time, from wherever it begins.
    shapes.extend((0..3).map(|from| base64(&secret[from..from + 12])));
    shapes
}

fn base64(octets: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (groups, _) = octets.as_chunks::<3>();
    let digits = groups.iter().flat_map(|[a, b, c]| {
        let group = u32::from_be_bytes([0, *a, *b, *c]);
        [18, 12, 6, 0].map(|shift| DIGITS[usize::try_from(group >> shift & 63).unwrap()])
    });
    digits.map(char::from).collect()
}

/// The gotatun audit of 2026 and P18: no key of an IKE SA or a child is printed, whatever is
/// printed. The peer knows them all.
/// gotatun audit 2026.
#[test]
fn no_key_is_printed() {
    for calls in [true, false] {
        let mut victim = Owned::victim(24);
        let evil = if calls {
            established(&mut victim)
        } else {
            let mut evil = called(&mut victim, EVIL_KEY);
            let payloads = evil.auth_payloads(inner(EVIL), inner(VICTIM));
            let octets = evil.seal(evil.header(IKE_AUTH, true, 1), &payloads);
            victim.hear(EVIL, &octets);
            evil
        };
        let child = victim.children.values().next().unwrap();
        let secrets = evil.secrets();
        // They are the ones: the peer's child keys are the victim's.
        assert!(secrets.iter().any(|secret| secret == child.key_in.key()));
        assert!(secrets.iter().any(|secret| secret == child.key_out.key()));
        let texts = [
            format!("{:?}", victim.ike),
            format!("{:#?}", victim.ike),
            format!("{:?}", victim.events),
            format!("{child:?}"),
        ];
        for text in texts {
            for secret in &secrets {
                for shape in shapes(secret) {
                    assert!(!text.contains(&shape), "a secret, as {shape}");
                }
            }
        }
    }
}
