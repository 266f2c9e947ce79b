//! Exchanges that cross (RFC 7296 §2.25): every request of the peer's in every state of ours with the
//! answer that the RFC has for it, and every refusal of the peer's with what has to come of it.

use std::time::Duration;

use ike::{End, Event};

use crate::peer::Evil;
use crate::rows::{ask, established, established_called};
use crate::victim::{EVIL, Owned, VICTIM, inner};
use crate::wire::{
    CREATE_CHILD_SA, DELETE, Header, INFORMATIONAL, INITIATOR, KE, NONCE, NOTIFY, Payload,
    REKEY_SA, RESPONSE, SA, TS_I, TS_R,
};

const TEMPORARY_FAILURE: u16 = 43;
const CHILD_SA_NOT_FOUND: u16 = 44;

/// What we have asked for and have no answer to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ours {
    Nothing,
    Creating,
    RekeyingChild,
    ClosingChild,
    RekeyingIke,
    ClosingIke,
}

const OURS: [Ours; 6] = [
    Ours::Nothing,
    Ours::Creating,
    Ours::RekeyingChild,
    Ours::ClosingChild,
    Ours::RekeyingIke,
    Ours::ClosingIke,
];

/// What the peer asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Theirs {
    Create,
    RekeyChild,
    /// Of a child that is none.
    RekeyUnknown,
    CloseChild,
    CloseUnknown,
    RekeyIke,
    CloseIke,
}

const THEIRS: [Theirs; 7] = [
    Theirs::Create,
    Theirs::RekeyChild,
    Theirs::RekeyUnknown,
    Theirs::CloseChild,
    Theirs::CloseUnknown,
    Theirs::RekeyIke,
    Theirs::CloseIke,
];

/// An answer, as far as the table has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Answer {
    /// A child, with the key exchange that was asked for.
    Child,
    /// A successor of the IKE SA.
    Successor,
    /// TEMPORARY_FAILURE, which is about no SA (RFC 7296 §3.10.1), and nothing else.
    NotNow,
    /// CHILD_SA_NOT_FOUND with the SPI that was asked about, and nothing else.
    NotFound([u8; 4]),
    /// Delete of our half of the child, and nothing else.
    Deleted,
    /// Nothing at all.
    Empty,
}

/// An SPI that is nobody's.
const UNKNOWN: [u8; 4] = [9; 4];

/// The table of RFC 7296 §2.25.1 and §2.25.2.
fn table(ours: Ours, theirs: Theirs) -> Answer {
    match (ours, theirs) {
        (_, Theirs::CloseUnknown | Theirs::CloseIke) => Answer::Empty,
        // "If a peer receives a request to close a Child SA that it is currently trying to close".
        (Ours::ClosingChild, Theirs::CloseChild) => Answer::Empty,
        (_, Theirs::CloseChild) => Answer::Deleted,
        (Ours::RekeyingIke | Ours::ClosingIke, Theirs::Create | Theirs::RekeyChild) => {
            Answer::NotNow
        }
        // It may be the one that we have asked for, if the answer comes later than the request.
        (
            Ours::Creating | Ours::RekeyingChild | Ours::RekeyingIke | Ours::ClosingIke,
            Theirs::RekeyUnknown,
        ) => Answer::NotNow,
        (Ours::Nothing | Ours::ClosingChild, Theirs::RekeyUnknown) => Answer::NotFound(UNKNOWN),
        (Ours::ClosingChild, Theirs::RekeyChild) => Answer::NotNow,
        (_, Theirs::Create | Theirs::RekeyChild) => Answer::Child,
        (Ours::Nothing | Ours::RekeyingIke, Theirs::RekeyIke) => Answer::Successor,
        (_, Theirs::RekeyIke) => Answer::NotNow,
    }
}

/// A victim with a peer that has called it, or was called, and a child.
fn pair(calls: bool) -> (Owned, Evil) {
    let mut victim = Owned::victim(25);
    let evil = if calls { established(&mut victim) } else { established_called(&mut victim) };
    (victim, evil)
}

/// The victim asks for something; what it says then.
fn begin(victim: &mut Owned, ours: Ours) -> Vec<Vec<u8>> {
    let now = victim.now;
    let ike = *victim.established.keys().next().unwrap();
    let child = *victim.children.keys().next().unwrap();
    match ours {
        Ours::Nothing => {}
        Ours::Creating => victim.create_child(ike, EVIL),
        Ours::RekeyingChild => victim.ike.rekey_child(now, child),
        Ours::ClosingChild => victim.ike.close_child(now, child),
        Ours::RekeyingIke => victim.ike.rekey_ike(now, ike),
        Ours::ClosingIke => victim.ike.close(now, ike),
    }
    victim.after();
    victim.said()
}

/// The request of the victim's that is among this, opened.
fn request(evil: &Evil, said: &[Vec<u8>]) -> Option<(Header, Vec<Payload>)> {
    let opened: Vec<_> = said.iter().filter_map(|octets| evil.open(octets)).collect();
    let mut requests = opened.into_iter().filter(|(header, _)| header.flags & RESPONSE == 0);
    let first = requests.next();
    assert!(requests.next().is_none(), "more than one at a time");
    first
}

/// What a peer would ask.
fn payloads(evil: &mut Evil, theirs: Theirs) -> (u8, Vec<Payload>) {
    let own = evil.esp_spi;
    match theirs {
        Theirs::Create => {
            let payloads = evil.child_payloads(inner(EVIL), inner(VICTIM), false);
            (CREATE_CHILD_SA, payloads)
        }
        Theirs::RekeyChild => {
            (CREATE_CHILD_SA, evil.child_payloads(inner(EVIL), inner(VICTIM), true))
        }
        Theirs::RekeyUnknown => {
            let mut payloads = evil.child_payloads(inner(EVIL), inner(VICTIM), false);
            payloads.insert(0, Payload::notify(3, &UNKNOWN, REKEY_SA, &[]));
            (CREATE_CHILD_SA, payloads)
        }
        Theirs::CloseChild => (INFORMATIONAL, vec![Payload::delete(3, 4, 1, &own)]),
        Theirs::CloseUnknown => (INFORMATIONAL, vec![Payload::delete(3, 4, 1, &UNKNOWN)]),
        Theirs::RekeyIke => (CREATE_CHILD_SA, evil.rekey_payloads()),
        Theirs::CloseIke => (INFORMATIONAL, vec![Payload::delete(1, 0, 0, &[])]),
    }
}

/// Whether it is this and nothing else.
fn is(answer: Answer, payloads: &[Payload], spi_in: [u8; 4]) -> bool {
    let kinds: Vec<u8> = payloads.iter().map(|payload| payload.kind).collect();
    let first = payloads.first().map(|payload| payload.body.as_slice());
    let notify = |kind: u16, protocol: u8, spi: &[u8]| {
        let size = u8::try_from(spi.len()).unwrap();
        let body = [&[protocol, size][..], &kind.to_be_bytes(), spi].concat();
        kinds == [NOTIFY] && first == Some(&body)
    };
    match answer {
        Answer::Child => kinds == [SA, NONCE, TS_I, TS_R],
        // A token may be beside it.
        Answer::Successor => kinds.starts_with(&[SA, NONCE, KE]) && kinds.len() <= 4,
        Answer::NotNow => notify(TEMPORARY_FAILURE, 0, &[]),
        Answer::NotFound(spi) => notify(CHILD_SA_NOT_FOUND, 3, &spi),
        Answer::Deleted => {
            kinds == [DELETE] && first == Some(&[&[3, 4, 0, 1], &spi_in[..]].concat())
        }
        Answer::Empty => kinds.is_empty(),
    }
}

/// Every cell, whoever called: the answer is what the RFC says, to the octet where it is a notify or a
/// Delete; what stands then is what was answered.
#[test]
fn every_request_in_every_state_is_answered_as_the_rfc_says() {
    for calls in [true, false] {
        for ours in OURS {
            for theirs in THEIRS {
                let what = format!("{ours:?}, {theirs:?}, calls {calls}");
                let (mut victim, mut evil) = pair(calls);
                let child = victim.children.values().next().unwrap().clone();
                let asked = request(&evil, &begin(&mut victim, ours));
                assert_eq!(asked.is_some(), ours != Ours::Nothing, "{what}");
                let (exchange, payloads) = payloads(&mut evil, theirs);
                let answers = ask(&mut victim, &mut evil, exchange, &payloads);
                let answers: Vec<_> = answers
                    .into_iter()
                    .filter(|(header, _)| header.flags & RESPONSE != 0)
                    .collect();
                let [(header, answered)] = &answers[..] else { panic!("{what}: {answers:?}") };
                assert_eq!((header.exchange, header.id), (exchange, evil.next_id - 1), "{what}");
                let wanted = table(ours, theirs);
                let spi = child.spi_in.to_be_bytes();
                assert!(is(wanted, answered, spi), "{what}: not {wanted:?} but {answered:?}");
                // And the machine means what it says.
                let (ikes, children) = match theirs {
                    Theirs::CloseIke => (0, 0),
                    Theirs::CloseChild => (1, 0),
                    _ => (1, if wanted == Answer::Child { 2 } else { 1 }),
                };
                assert_eq!(victim.established.len(), ikes, "{what}");
                assert_eq!(victim.children.len(), children, "{what}");
                let rekeys = victim.children.values().filter_map(|child| child.rekeys).next();
                let is_rekey = (wanted, theirs) == (Answer::Child, Theirs::RekeyChild);
                assert_eq!(rekeys, is_rekey.then_some(child.id), "{what}");
                victim.goes_down_clean();
            }
        }
    }
}

/// A refusal of the victim's request by this notify.
fn refuse(victim: &mut Owned, evil: &mut Evil, asked: Header, kind: u16, spi: &[u8]) {
    let reply = Header { flags: asked.flags ^ (RESPONSE | INITIATOR), ..asked };
    let protocol = if spi.is_empty() { 0 } else { 3 };
    let octets = evil.seal(reply, &[Payload::notify(protocol, spi, kind, &[])]);
    victim.hear(EVIL, &octets);
}

/// What we ask for by CREATE_CHILD_SA, which alone can be refused.
const REFUSED: [Ours; 3] = [Ours::Creating, Ours::RekeyingChild, Ours::RekeyingIke];

/// The same wish, not a word for word repetition: the SPIs and nonces are new.
fn alike(one: &[Payload], other: &[Payload]) -> bool {
    let kinds = |payloads: &[Payload]| payloads.iter().map(|p| p.kind).collect::<Vec<_>>();
    let rekeyed =
        |payloads: &[Payload]| payloads.iter().find(|p| p.notify_type() == Some(REKEY_SA)).cloned();
    kinds(one) == kinds(other) && rekeyed(one) == rekeyed(other) && one != other
}

/// §2.25: on TEMPORARY_FAILURE nothing is said at once; it is asked anew after a while, several times, and
/// not for ever. What was to be replaced stays meanwhile; after several minutes the IKE SA is closed,
/// because the two sides do not agree about where it stands.
#[test]
fn what_is_refused_for_now_is_asked_again_later() {
    for calls in [true, false] {
        for ours in REFUSED {
            let what = format!("{ours:?}, calls {calls}");
            let (mut victim, mut evil) = pair(calls);
            let began = victim.now;
            let mut said = begin(&mut victim, ours);
            let mut rounds = 0;
            let mut last: Option<Vec<Payload>> = None;
            // Several minutes are what the RFC calls it.
            while victim.now - began < Duration::from_secs(600) {
                let Some((header, payloads)) = request(&evil, &said) else {
                    victim.pass(Duration::from_millis(100));
                    said = victim.said();
                    continue;
                };
                assert_eq!(header.exchange, CREATE_CHILD_SA, "{what}");
                if let Some(last) = last.replace(payloads.clone()) {
                    assert!(alike(&last, &payloads), "{what}: {last:?}, then {payloads:?}");
                }
                rounds += 1;
                // Bursts of nine, a minute apart.
                assert!(rounds <= 90, "{what}: again and again");
                let asked_at = victim.now;
                refuse(&mut victim, &mut evil, header, TEMPORARY_FAILURE, &[]);
                let at_once = victim.said();
                if victim.now - began >= Duration::from_secs(300) && !at_once.is_empty() {
                    let (delete, payloads) = request(&evil, &at_once).unwrap();
                    assert_eq!((delete.exchange, payloads.len()), (INFORMATIONAL, 1), "{what}");
                    assert_eq!(payloads[0], Payload::delete(1, 0, 0, &[]), "{what}");
                    let reply = Header { flags: delete.flags ^ (RESPONSE | INITIATOR), ..delete };
                    let octets = evil.seal(reply, &[]);
                    victim.hear(EVIL, &octets);
                    break;
                }
                assert!(at_once.is_empty(), "{what}: at once");
                victim.pass(Duration::from_millis(450));
                assert!(victim.said().is_empty(), "{what}: after {:?}", victim.now - asked_at);
                said = Vec::new();
                if victim.events.iter().any(|e| matches!(e, Event::ChildFailed { .. })) {
                    break;
                }
            }
            let all = if ours == Ours::Creating { 9..=9 } else { 27..=60 };
            assert!(all.contains(&rounds), "{what}: {rounds}");
            assert!(victim.now - began < Duration::from_secs(400), "{what}");
            let failed = victim.events.iter().find_map(|event| match event {
                Event::ChildFailed { why, .. } => Some(*why),
                _ => None,
            });
            let refused = End::Refused { notify: TEMPORARY_FAILURE, authentic: true };
            let creating = ours == Ours::Creating;
            assert_eq!(failed, creating.then_some(refused), "{what}");
            let left = usize::from(creating);
            assert_eq!((victim.established.len(), victim.children.len()), (left, left), "{what}");
            let ended = |e: &Event| matches!(e, Event::Ended { why, .. } if *why == refused);
            assert_eq!(victim.events.iter().any(ended), !creating, "{what}");
            victim.goes_down_clean();
        }
    }
}

/// §2.25: on CHILD_SA_NOT_FOUND the child is taken down without a word to the peer, who has none; the
/// owner hears of it, and makes another if there is traffic. Of what is no child nothing is taken down.
#[test]
fn a_child_that_the_peer_does_not_find_is_taken_down() {
    for calls in [true, false] {
        for ours in REFUSED {
            let what = format!("{ours:?}, calls {calls}");
            let (mut victim, mut evil) = pair(calls);
            let child = victim.children.values().next().unwrap().clone();
            let (header, payloads) = request(&evil, &begin(&mut victim, ours)).expect("a request");
            let rekeyed = payloads.iter().find(|p| p.notify_type() == Some(REKEY_SA));
            let spi = child.spi_in.to_be_bytes();
            if ours == Ours::RekeyingChild {
                // ESP, with the SPI that we receive on (§1.3.3).
                let body = [&[3, 4][..], &REKEY_SA.to_be_bytes(), &spi].concat();
                assert_eq!(rekeyed.map(|p| &p.body), Some(&body), "{what}");
            } else {
                assert_eq!(rekeyed, None, "{what}");
            }
            let before = victim.events.len();
            refuse(&mut victim, &mut evil, header, CHILD_SA_NOT_FOUND, &spi);
            assert!(victim.said().is_empty(), "{what}: silently");
            let mut kept = 0;
            let why = victim.events[before..].iter().filter_map(|event| match event {
                Event::ChildDown { sa, why } if *sa == child.id => Some(*why),
                Event::ChildFailed { why, .. } => Some(*why),
                Event::NotRenewed { child: None, .. } => {
                    kept += 1;
                    None
                }
                other => panic!("{what}: {other:?}"),
            });
            let why: Vec<End> = why.collect();
            let refused = End::Refused { notify: CHILD_SA_NOT_FOUND, authentic: true };
            let wanted = match ours {
                Ours::RekeyingChild => vec![End::DeletedByPeer],
                Ours::Creating => vec![refused],
                _ => vec![],
            };
            assert_eq!(why, wanted, "{what}");
            // What is not replaced the owner hears of.
            assert_eq!(kept, usize::from(ours == Ours::RekeyingIke), "{what}");
            let left = usize::from(ours != Ours::RekeyingChild);
            assert_eq!((victim.established.len(), victim.children.len()), (1, left), "{what}");
            // The IKE SA is as good as before: a child can be made anew.
            let payloads = evil.child_payloads(inner(EVIL), inner(VICTIM), false);
            ask(&mut victim, &mut evil, CREATE_CHILD_SA, &payloads);
            assert_eq!(victim.children.len(), left + 1, "{what}");
            victim.goes_down_clean();
        }
    }
}
