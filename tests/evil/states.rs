//! The ways into an IKE SA that take more than two exchanges, or no signature: ML-KEM in
//! IKE_INTERMEDIATE, IKE_SESSION_RESUME with a ticket, shared secrets, and nothing at all. Each is gone
//! in both roles, and every message of it is lost, doubled, held back, cut short, damaged and said
//! again. Whatever it is, nobody is established and nothing installed before its AUTH, what is damaged
//! changes nothing, and who then goes on as he should is served.

use std::time::Duration;

use ike::Event;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;

use crate::peer::{Evil, Manners, Proof};
use crate::victim::{EVIL, EVIL_KEY, NOBODYS_KEY, Owned, VICTIM, inner};
use crate::ways::{REPLACEMENTS, Replace, Way, Witness, begin, evil_says, exchanges, walk, ways};
use crate::wire::{CREATE_CHILD_SA, IKE_AUTH, IKE_INTERMEDIATE, INFORMATIONAL, Payload};

fn children_up(victim: &Owned) -> usize {
    victim.events.iter().filter(|event| matches!(event, Event::ChildUp(_))).count()
}

/// Nobody has got anywhere.
#[track_caller]
fn nothing_yet(victim: &Owned, what: &str) {
    assert_eq!((victim.established.len(), children_up(victim)), (0, 0), "{what}");
}

/// Goes a way, with `trouble` before each message of the peer's arrives.
fn go(way: Way, mut trouble: impl FnMut(&mut Owned, &mut Evil, usize, &[u8])) {
    let (mut victim, mut evil) = begin(way, EVIL_KEY);
    let mut heard = victim.said();
    for step in 0..exchanges(way) {
        let octets = evil_says(&mut evil, &heard).unwrap_or_else(|| panic!("{way:?}: step {step}"));
        trouble(&mut victim, &mut evil, step, &octets);
        nothing_yet(&victim, &format!("{way:?}: step {step}"));
        assert!(victim.ike.len() <= 2 && victim.ike.half_open() <= 1, "{way:?}: step {step}");
        victim.hear(EVIL, &octets);
        heard = victim.said();
    }
    assert_eq!((victim.established.len(), victim.children.len()), (1, 1), "{way:?}");
    // The answer to it, or nothing.
    let _ = evil_says(&mut evil, &heard);
    victim.knows(crate::victim::HONEST, crate::victim::HONEST_KEY);
    victim.serves_the_honest();
    victim.goes_down_clean();
}

/// The peer's cryptography is right in every one of them: otherwise nothing else here says anything.
/// And whoever has another key or secret, or damages one octet of AUTH, is nobody.
#[test]
fn every_way_leads_in_and_only_for_those_who_prove_it() {
    for way in ways() {
        go(way, |_, _, _, _| {});
        if way.again || way.manners.proof == Proof::Nothing {
            continue;
        }
        let (mut victim, mut evil) = begin(way, NOBODYS_KEY);
        let mut heard = victim.said();
        for _ in 0..exchanges(way) {
            let Some(octets) = evil_says(&mut evil, &heard) else { break };
            victim.hear(EVIL, &octets);
            heard = victim.said();
        }
        nothing_yet(&victim, &format!("{way:?} with another's"));
        victim.goes_down_clean();
    }
}

/// CVE-2013-4564, CVE-2019-10155: every message cut short at every length, with a header that says so
/// and one that does not, and with every octet changed: nobody is established by it, nothing is
/// installed. Of what is encrypted nothing counts; what is not may end an attempt, and no more.
#[test]
fn every_message_of_every_way_cut_and_damaged() {
    for way in ways() {
        go(way, |victim, _, step, octets| {
            // Of the first message of all, which nobody vouches for, others would make states.
            if step == 0 {
                return;
            }
            let before = (victim.ike.half_open(), victim.ike.len());
            for len in (0..octets.len()).step_by(3) {
                victim.hear(EVIL, &octets[..len]);
                let mut cut = octets[..len].to_vec();
                if let Some(field) = cut.get_mut(24..28) {
                    field.copy_from_slice(&u32::try_from(len).unwrap().to_be_bytes());
                }
                victim.hear(EVIL, &cut);
            }
            for at in 16..octets.len() {
                let mut damaged = octets.to_vec();
                damaged[at] ^= 1 << (at % 8);
                victim.hear(EVIL, &damaged);
            }
            let what = format!("{way:?}: step {step}");
            assert_eq!(before, (victim.ike.half_open(), victim.ike.len()), "{what}");
            nothing_yet(victim, &what);
            victim.said();
        });
    }
}

/// CVE-2014-2338, CVE-2015-3991, CVE-2021-45079: what belongs elsewhere: each exchange before its time
/// and after it, under the keys of the moment, with what it should consist of. Only AUTH leads in, and only
/// in its place.
#[test]
fn every_exchange_before_its_time() {
    for way in ways() {
        for exchange in [IKE_INTERMEDIATE, IKE_AUTH, CREATE_CHILD_SA, INFORMATIONAL, 44] {
            for early in 0..2 {
                let (mut victim, mut evil) = begin(way, EVIL_KEY);
                let mut heard = victim.said();
                let what = format!("{way:?}: exchange {exchange}, {early}");
                for step in 0..exchanges(way) {
                    let Some(octets) = evil_says(&mut evil, &heard) else { break };
                    if evil.is_keyed() && step == 1 + early {
                        let payloads = match exchange {
                            IKE_INTERMEDIATE => evil.kem_payloads(),
                            CREATE_CHILD_SA => {
                                evil.child_payloads(inner(EVIL), inner(VICTIM), false)
                            }
                            _ => vec![],
                        };
                        let response = !evil.initiator;
                        let header = evil.header(exchange, response, u32::try_from(step).unwrap());
                        let strange = evil.seal(header, &payloads);
                        victim.hear(EVIL, &strange);
                        nothing_yet(&victim, &what);
                    }
                    victim.hear(EVIL, &octets);
                    heard = victim.said();
                }
                assert!(victim.ike.len() <= 2, "{what}");
                assert_eq!(victim.established.len(), victim.children.len(), "{what}");
                victim.goes_down_clean();
            }
        }
    }
}

/// IKE_AUTH without the second key exchange that both agreed to, and with the first one's keys after
/// it: somebody would have to break Curve25519 only.
#[test]
fn the_second_key_exchange_cannot_be_left_out() {
    for proof in [Proof::Signature, Proof::Secret, Proof::Nothing] {
        let manners = Manners { proof, quantum: true, ..Manners::default() };
        for calls in [true, false] {
            let way = Way { manners, calls, again: false };
            let (mut victim, mut evil) = begin(way, EVIL_KEY);
            let init = evil_says(&mut evil, &victim.said()).unwrap();
            victim.hear(EVIL, &init);
            let heard = victim.said();
            if calls {
                assert!(evil.read_init(&heard[0]) && evil.owes_kem());
            }
            let payloads = evil.auth_payloads(inner(EVIL), inner(VICTIM));
            for id in [1, 2] {
                let early = evil.seal(evil.header(IKE_AUTH, !calls, id), &payloads);
                victim.hear(EVIL, &early);
                nothing_yet(&victim, &format!("{way:?}"));
            }
            victim.pass(Duration::from_secs(100));
            assert_eq!((victim.ike.half_open(), victim.ike.len()), (0, 0), "{way:?}");
            victim.goes_down_clean();
        }
    }
}

/// CVE-2016-5361: every message said twice and three times, at once and after the next one: an answer is the same
/// octets again or nothing, and no second state, SA or child comes of it.
#[test]
fn every_message_of_every_way_said_again() {
    for way in ways() {
        let mut past: Vec<Vec<u8>> = Vec::new();
        go(way, |victim, _, step, octets| {
            let before = (victim.ike.half_open(), victim.ike.len());
            for old in past.iter().rev().chain(&past) {
                victim.hear(EVIL, old);
                assert!(victim.said().len() <= 3, "{way:?}: step {step}");
            }
            assert_eq!(before, (victim.ike.half_open(), victim.ike.len()), "{way:?}: step {step}");
            past.push(octets.to_vec());
        });
        // And when all is done.
        let (mut victim, mut evil) = begin(way, EVIL_KEY);
        let mut heard = victim.said();
        let mut past: Vec<Vec<u8>> = Vec::new();
        for _ in 0..exchanges(way) {
            let octets = evil_says(&mut evil, &heard).unwrap();
            past.push(octets.clone());
            victim.hear(EVIL, &octets);
            heard = victim.said();
        }
        let ups = children_up(&victim);
        for old in past.iter().chain(past.iter().rev()) {
            victim.hear(EVIL, old);
            assert!(victim.said().len() <= 3, "{way:?}");
        }
        assert_eq!((victim.established.len(), children_up(&victim)), (1, ups), "{way:?}");
        assert!(victim.ike.half_open() <= 1, "{way:?}");
        victim.pass(Duration::from_secs(100));
        assert_eq!(victim.ike.half_open(), 0, "{way:?}");
        victim.goes_down_clean();
    }
}

/// Every message lost: what was begun ends, and leaves nothing.
#[test]
fn every_message_of_every_way_lost() {
    for way in ways() {
        for lost in 0..exchanges(way) {
            let (mut victim, mut evil) = begin(way, EVIL_KEY);
            let mut heard = victim.said();
            for _ in 0..lost {
                let octets = evil_says(&mut evil, &heard).unwrap();
                victim.hear(EVIL, &octets);
                heard = victim.said();
            }
            victim.pass(Duration::from_secs(100));
            nothing_yet(&victim, &format!("{way:?}: {lost}"));
            assert_eq!((victim.ike.half_open(), victim.ike.len()), (0, 0), "{way:?}: {lost}");
            victim.goes_down_clean();
        }
    }
}

/// A message before the one that it follows: it counts for nothing, and is taken in its turn.
#[test]
fn messages_of_every_way_in_another_order() {
    for way in ways().into_iter().filter(|way| way.calls) {
        let (mut victim, mut evil) = begin(way, EVIL_KEY);
        // A second handshake of the same peer's, whose keys are others, in between.
        let mut other = Evil::new(EVIL, EVIL_KEY, true, ChaCha20Rng::seed_from_u64(6));
        if !way.again {
            other = other.with(way.manners);
        }
        let (mut heard, mut others) = (victim.said(), Vec::new());
        for step in 0..exchanges(way) {
            let Some(next) = evil_says(&mut other, &others) else { break };
            let octets = evil_says(&mut evil, &heard).unwrap();
            // Each has the other's SPIs over its own octets.
            for (a, b) in [(&octets, &next), (&next, &octets)] {
                let mut mixed = a.clone();
                mixed[..16].copy_from_slice(&b[..16]);
                if step > 0 {
                    victim.hear(EVIL, &mixed);
                    assert!(victim.said().is_empty(), "{way:?}: step {step}");
                }
            }
            victim.hear(EVIL, &next);
            others = victim.said();
            victim.hear(EVIL, &octets);
            heard = victim.said();
        }
        assert!(!victim.established.is_empty() && victim.established.len() <= 2, "{way:?}");
        victim.goes_down_clean();
    }
}

/// CVE-2023-41913: encapsulation keys and ciphertexts that are none, in every length that may matter,
/// with coefficients out of range (FIPS 203 §7.2), of another method, or not there at all: it ends the
/// attempt, and nothing else. What is as long as it should be and wrong makes keys that nobody has.
#[test]
fn halves_of_the_second_key_exchange_that_are_none() {
    let manners = Manners { quantum: true, ..Manners::default() };
    for calls in [true, false] {
        let right = if calls { 1184 } else { 1088 };
        let mut values: Vec<Vec<Payload>> = [0, 1, 32, right - 1, right + 1, 4096]
            .map(|len| vec![Payload::ke(36, &vec![7; len])])
            .to_vec();
        values.push(vec![Payload::ke(36, &vec![0xff; right])]);
        values.push(vec![Payload::ke(31, &vec![7; right])]);
        values.push(vec![Payload::ke(0, &[])]);
        values.push(vec![]);
        for (at, value) in values.into_iter().enumerate() {
            let way = Way { manners, calls, again: false };
            let (mut victim, mut evil) = begin(way, EVIL_KEY);
            let init = evil_says(&mut evil, &victim.said()).unwrap();
            victim.hear(EVIL, &init);
            let heard = victim.said();
            let header = if calls {
                assert!(evil.read_init(&heard[0]));
                evil.header(IKE_INTERMEDIATE, false, 1)
            } else {
                evil.header(IKE_INTERMEDIATE, true, 1)
            };
            let octets = evil.seal(header, &value);
            victim.hear(EVIL, &octets);
            assert!(victim.said().len() <= 2, "{calls} {at}");
            nothing_yet(&victim, &format!("{calls} {at}"));
            victim.pass(Duration::from_secs(100));
            assert_eq!((victim.ike.half_open(), victim.ike.len()), (0, 0), "{calls} {at}");
            victim.goes_down_clean();
        }
    }
}

/// RFC 5723 §4.3: a ticket is good once, for who was given it, as it was given; whatever else is shown
/// makes no SA, and what is refused costs nothing.
#[test]
fn tickets_that_are_none() {
    let manners = Manners { returns: true, ..Manners::default() };
    let way = Way { manners, calls: true, again: true };
    // The same one twice: the second time it is spent.
    let (mut victim, mut evil) = begin(way, EVIL_KEY);
    walk(&mut victim, &mut evil, false);
    assert_eq!(victim.established.len(), 1);
    assert!(evil.come_back());
    walk(&mut victim, &mut evil, false);
    assert_eq!((victim.established.len(), victim.times_established()), (1, 1), "spent");
    victim.goes_down_clean();
    // Two at the same time, of which one has come further.
    let (mut victim, mut evil) = begin(way, EVIL_KEY);
    let first = evil_says(&mut evil, &[]).unwrap();
    victim.hear(EVIL, &first);
    let heard = victim.said();
    let auth = evil_says(&mut evil, &heard).unwrap();
    assert!(evil.come_back());
    let second = evil_says(&mut evil, &[]).unwrap();
    victim.hear(EVIL, &second);
    let heard = victim.said();
    let other = evil_says(&mut evil, &heard);
    victim.hear(EVIL, &auth);
    if let Some(other) = other {
        victim.hear(EVIL, &other);
    }
    assert_eq!((victim.established.len(), victim.times_established()), (1, 1), "twice at once");
    victim.goes_down_clean();
    // Damaged in every octet, and cut short: the message is in the clear, so that everybody can.
    let (mut victim, mut evil) = begin(way, EVIL_KEY);
    let first = evil_says(&mut evil, &[]).unwrap();
    for at in 28..first.len() {
        let mut damaged = first.clone();
        damaged[at] ^= 1 << (at % 8);
        // Each from a caller of its own.
        damaged[..8].copy_from_slice(&u64::try_from(at).unwrap().to_be_bytes());
        victim.hear(EVIL, &damaged);
        assert!(victim.said().len() <= 1);
        assert!(victim.ike.half_open() <= 24);
        victim.pass(Duration::from_secs(2));
    }
    nothing_yet(&victim, "damaged");
    victim.pass(Duration::from_secs(200));
    assert_eq!((victim.ike.half_open(), victim.ike.len()), (0, 0));
    // And it is as good as it was.
    walk(&mut victim, &mut evil, false);
    assert_eq!(victim.established.len(), 1, "a ticket that others have shown damaged");
    victim.goes_down_clean();
}

/// Every replacement of keys by either side, after every way in: with the second key exchange where the
/// peer has ML-KEM, under AES-CBC where it has that. Both have the same keys of each child, and both go on
/// under each successor.
#[test]
fn every_replacement_is_understood() {
    for way in ways() {
        let (mut victim, mut evil) = begin(way, EVIL_KEY);
        let mut witness = Witness {
            victim: |victim: &mut Owned, act: &mut dyn FnMut(&mut Owned)| act(victim),
            peer: |_: &Evil| {},
        };
        witness.converse(&mut victim, &mut evil);
        assert_eq!((victim.established.len(), victim.children.len()), (1, 1), "{way:?}");
        for (round, what) in REPLACEMENTS.into_iter().enumerate() {
            let before = children_up(&victim);
            witness.replace(&mut victim, &mut evil, what);
            let what = format!("{way:?}: {round}, {what:?}");
            let ups = children_up(&victim) - before;
            let is_child = matches!(REPLACEMENTS[round], Replace::OurChild | Replace::TheirChild);
            assert_eq!(ups, usize::from(is_child), "{what}: {:?}", victim.events.last());
            if is_child {
                let child = victim.children.values().next_back();
                let child = child.unwrap_or_else(|| {
                    panic!("{what}: {:?}", &victim.events[victim.events.len() - 3..])
                });
                assert!(child.rekeys.is_some(), "{what}");
                for key in [&child.key_in, &child.key_out] {
                    let octets = [key.key(), key.rest()].concat();
                    let known = evil.keymat().contains(&octets);
                    assert!(known, "{what}: other keys");
                }
            }
            assert!(witness.ask(&mut victim, &mut evil, &[]), "{what}: not heard");
        }
        let strong = usize::from(way.manners.quantum);
        // Twice we have replaced the IKE SA, and a child; twice the peer a child, and once the IKE SA.
        assert_eq!(evil.came_to(), [2, 3 * strong, 4 * strong], "{way:?}");
        assert!(witness.ask(&mut victim, &mut evil, &[Payload::delete(1, 0, 0, &[])]));
        assert_eq!((victim.ike.len(), victim.children.len()), (0, 0), "{way:?}");
        victim.goes_down_clean();
    }
}
