//! What is offered can be done, and nothing else is chosen.

use super::*;
use crate::crypto::schedule::{IkeKeys, Mix};
use crate::crypto::{CipherPair, Secret};
use crate::message::{InvalidMessage, PayloadType, Sealed};

const AEADS: Suites = Suites { compatibility: false, additional: false };
const ALL: Suites = Suites { compatibility: true, additional: false };

fn ike_ciphers() -> Vec<IkeCipher> {
    let cbc = Integrity::ALL.into_iter().flat_map(IkeCipher::cbc);
    IkeCipher::AEADS.into_iter().chain(cbc).collect()
}

fn esp_ciphers() -> Vec<EspCipher> {
    ESP_AEADS.into_iter().chain(Integrity::ALL.into_iter().flat_map(esp_cbc)).collect()
}

/// An offer with one cipher, and with these transforms of the other kinds.
fn only(
    offer: Vec<Proposal>,
    (id, key_length): (u16, Option<u16>),
    integrity: Option<Integrity>,
    others: &[(TransformType, u16)],
) -> Vec<Proposal> {
    let keep = |t: &Transform| match t.kind {
        TransformType::ENCR => (t.id, t.key_length) == (id, key_length),
        TransformType::INTEG => integrity.is_some_and(|i| integrity_number(i) == t.id),
        kind => others.contains(&(kind, t.id)),
    };
    offer
        .into_iter()
        .filter_map(|mut proposal| {
            proposal.transforms.retain(keep);
            let has_cipher = proposal.transforms.iter().any(|t| t.kind == TransformType::ENCR);
            has_cipher.then_some(proposal)
        })
        .collect()
}

fn keys(prf: Prf, cipher: IkeCipher) -> CipherPair {
    let secret = Secret::new(vec![7; 32]);
    let mix = Mix { nonce_i: &[1; 32], nonce_r: &[2; 32], spi_i: 3, spi_r: 4 };
    IkeKeys::initial(prf, cipher, &secret, mix).unwrap().1
}

fn sealed(message: &[u8], aad: usize) -> Sealed<'_> {
    Sealed {
        first: PayloadType::NONE,
        aad: &message[..aad],
        octets: &message[aad..],
        fragment: None,
    }
}

/// CVE-2016-3071: a suite that can be negotiated is one that works.
/// CVE-2018-10811.
#[test]
fn every_suite_we_offer_is_one_we_can_do() {
    for cipher in ike_ciphers() {
        for prf in Prf::ALL {
            for group in Group::ALL {
                let others =
                    [(TransformType::PRF, prf.number()), (TransformType::KE, group.number())];
                let one = only(offer_ike(ALL, &[]), cipher.number(), cipher.integrity(), &others);
                assert_eq!(one.len(), 1);
                let (suite, answer) = choose_ike(ALL, &one, 0, group.number(), 32).unwrap();
                assert_eq!(suite, IkeSuite { cipher, prf, group, additional: None });
                assert_eq!(confirm_ike(ALL, &[answer], 0), Some(suite));
                let pair = keys(prf, cipher);
                let (mut sealer, _) = pair.ends(true).unwrap();
                let (_, opener) = pair.ends(false).unwrap();
                for len in 0..40 {
                    let text = vec![0x5a; len];
                    let mut message = vec![1, 2, 3];
                    sealer.seal(&mut message, &text).unwrap();
                    assert_eq!(message.len(), 3 + sealer.sealed_len(len), "{cipher:?} {len}");
                    assert_eq!(opener.open(&sealed(&message, 3)).unwrap(), text);
                }
            }
        }
    }
    for cipher in esp_ciphers() {
        for esn in [0, 1] {
            let others = [(TransformType::ESN, esn)];
            let offer = offer_esp(ALL, [0, 0, 1, 0], EspOffer::WithoutKe);
            let one = only(offer, esp_number(cipher), cipher.integrity(), &others);
            let (choice, _, number) = choose_esp(ALL, &one, None).unwrap();
            assert_eq!((choice.cipher, choice.esn), (cipher, esn == 1));
            let answer = answer_esp(number, choice, [0, 0, 2, 0]);
            let confirmed =
                confirm_esp(ALL, std::slice::from_ref(&answer), EspOffer::WithoutKe, None);
            assert_eq!(confirmed, Some((choice, 0x200)));
            let aead = cipher.integrity().is_none();
            let without = confirm_esp(AEADS, &[answer], EspOffer::WithoutKe, None);
            assert_eq!(without.is_some(), aead, "{cipher:?}");
        }
    }
}

/// Every octet counts, and what a stranger may learn is that it was wrong.
#[test]
fn nothing_of_a_sealed_message_may_change_under_any_cipher() {
    for cipher in ike_ciphers() {
        let pair = keys(Prf::HmacSha2_256, cipher);
        let (mut sealer, _) = pair.ends(true).unwrap();
        let (_, opener) = pair.ends(false).unwrap();
        let mut message = vec![1, 2, 3];
        sealer.seal(&mut message, &[0x5a; 50]).unwrap();
        for at in 0..message.len() {
            let mut wrong = message.clone();
            wrong[at] ^= 1;
            let opened = opener.open(&sealed(&wrong, 3));
            assert_eq!(opened, Err(InvalidMessage::Integrity), "{cipher:?} {at}");
        }
        for len in 3..message.len() {
            assert!(opener.open(&sealed(&message[..len], 3)).is_err(), "{cipher:?} {len}");
        }
        // No two messages begin alike.
        let mut again = vec![1, 2, 3];
        sealer.seal(&mut again, &[0x5a; 50]).unwrap();
        assert_ne!(message[3..35], again[3..35]);
    }
}

#[test]
fn fragments_fit_their_room_under_any_cipher() {
    for cipher in ike_ciphers() {
        let (sealer, _) = keys(Prf::HmacSha2_256, cipher).ends(true).unwrap();
        for room in 100..1300 {
            let len = sealer.capacity(room);
            assert!(sealer.sealed_len(len) <= room, "{cipher:?} {room}");
            assert!(sealer.sealed_len(len + 1) > room, "{cipher:?} {room}");
        }
    }
}

#[test]
fn aes_cbc_is_nobodys_choice_unless_it_is_all_there_is() {
    let offer = offer_ike(ALL, &[]);
    let reversed: Vec<_> = offer.iter().rev().cloned().collect();
    for proposals in [&offer, &reversed] {
        for suites in [AEADS, ALL] {
            let (suite, _) = choose_ike(suites, proposals, 0, 31, 32).unwrap();
            assert_eq!(suite.cipher, IkeCipher::Aes256Gcm16);
        }
    }
    let cbc = &offer[1..];
    assert_eq!(choose_ike(AEADS, cbc, 0, 31, 32), None);
    let (suite, answer) = choose_ike(ALL, cbc, 0, 31, 32).unwrap();
    assert_eq!(suite.cipher, IkeCipher::Aes256Cbc(Integrity::HmacSha2_512_256));
    assert_eq!(confirm_ike(AEADS, &[answer], 0), None);
    assert_eq!(offer_ike(AEADS, &[]).len(), 1);
    let esp = offer_esp(ALL, [0, 0, 1, 0], EspOffer::WithoutKe);
    assert_eq!(choose_esp(AEADS, &esp[1..], None), None);
    assert_eq!(choose_esp(ALL, &esp, None).unwrap().0.cipher, EspCipher::Aes256Gcm16);
    assert_eq!(offer_esp(AEADS, [0, 0, 1, 0], EspOffer::WithKe).len(), 2);
}

/// CVE-2024-3652: a key length that the cipher does not have, NULL encryption, authentication only.
/// CVE-2016-5391, CVE-2014-9221.
#[test]
fn a_proposal_that_lacks_or_spoils_a_transform_is_not_chosen() {
    let aead = choose_ike(AEADS, &offer_ike(AEADS, &[]), 0, 31, 32).unwrap().1;
    let cbc = choose_ike(ALL, &offer_ike(ALL, &[])[1..], 0, 31, 32).unwrap().1;
    for whole in [&aead, &cbc] {
        for gone in 0..whole.transforms.len() {
            let mut proposal = whole.clone();
            proposal.transforms.remove(gone);
            assert_eq!(choose_ike(ALL, &[proposal], 0, 31, 32), None, "{gone}");
        }
        let wrong = [0, 1, 64, 127, 129, 192, 255, 257, 512, 65_535].map(Some);
        for key_length in wrong.into_iter().chain([None]) {
            for id in [12, 20, 11, 21, 28] {
                let good = id == 28 && key_length.is_none() && whole == &aead;
                let mut proposal = whole.clone();
                (proposal.transforms[0].id, proposal.transforms[0].key_length) = (id, key_length);
                let chosen = choose_ike(ALL, &[proposal], 0, 31, 32);
                assert_eq!(chosen.is_some(), good, "{id} {key_length:?}");
            }
        }
        let mut proposal = whole.clone();
        proposal.transforms[0].unknown_attribute = true;
        assert_eq!(choose_ike(ALL, &[proposal], 0, 31, 32), None);
    }
    for (at, id, key_length) in [
        (0, 28, Some(256)),
        (1, 2, None),
        (1, 5, Some(256)),
        (2, 0, None),
        (2, 1025, None),
        (2, 5, None),
    ] {
        let mut proposal = aead.clone();
        (proposal.transforms[at].id, proposal.transforms[at].key_length) = (id, key_length);
        assert_eq!(choose_ike(ALL, &[proposal], 0, 31, 32), None, "{at} {id} {key_length:?}");
    }
    let extra = |kind: u8, id| {
        let mut proposal = aead.clone();
        proposal.transforms.push(transform(TransformType(kind), id));
        choose_ike(ALL, &[proposal], 0, 31, 32).is_some()
    };
    assert!(extra(3, 0) && !extra(3, 12) && !extra(5, 0) && !extra(6, 36) && !extra(200, 1));
}

/// CVE-2014-9221: whatever number a transform has, it is known or it is not.
#[test]
fn every_number_of_every_transform_is_judged() {
    let aead = choose_ike(AEADS, &offer_ike(AEADS, &[]), 0, 31, 32).unwrap().1;
    let cbc = choose_ike(ALL, &offer_ike(ALL, &[])[1..], 0, 31, 32).unwrap().1;
    let esp = only(
        offer_esp(ALL, [0, 0, 1, 0], EspOffer::WithKe),
        (20, Some(256)),
        None,
        &[(TransformType::KE, 31), (TransformType::ESN, 0)],
    )
    .swap_remove(0);
    for id in 0..=u16::MAX {
        let ike = |whole: &Proposal, at: usize| {
            let mut proposal = whole.clone();
            proposal.transforms[at].id = id;
            choose_ike(ALL, &[proposal], 0, id, 32).is_some()
        };
        assert_eq!(ike(&aead, 0), id == 20, "ENCR {id}");
        assert_eq!(ike(&aead, 1), [5, 6, 7].contains(&id), "PRF {id}");
        // No MODP group below 2048 bits, none above 4096, none of RFC 5114.
        let group = [14, 15, 16, 19, 20, 21, 31].contains(&id);
        assert_eq!(ike(&aead, 2), group, "KE {id}");
        let mut modern = aead.clone();
        modern.transforms[2].id = id;
        let modern = choose_ike(AEADS, &[modern], 0, id, 32).is_some();
        assert_eq!(modern, group && id > 16, "KE {id} without compatibility");
        assert_eq!(ike(&cbc, 0), id == 12, "ENCR {id} beside an HMAC");
        assert_eq!(ike(&cbc, 2), [12, 13, 14].contains(&id), "INTEG {id}");
        let child = |at: usize| {
            let mut proposal = esp.clone();
            proposal.transforms[at].id = id;
            choose_esp(ALL, &[proposal], Some(id)).is_some()
        };
        let at = |kind| esp.transforms.iter().position(|t| t.kind == kind).unwrap();
        assert_eq!(child(at(TransformType::ENCR)), id == 20, "ESP ENCR {id}");
        assert_eq!(child(at(TransformType::KE)), group || id == 0, "ESP KE {id}");
        assert_eq!(child(at(TransformType::ESN)), id < 2, "ESN {id}");
    }
}

/// Attack A21.
/// CVE-2024-3652.
#[test]
fn an_answer_must_have_been_offered() {
    let esp = |offer| offer_esp(AEADS, [0, 0, 1, 0], offer);
    let (choice, _, number) = choose_esp(AEADS, &esp(EspOffer::WithKe), Some(31)).unwrap();
    assert_eq!((choice.group, number, choice.esn), (Some(Group::Curve25519), 1, true));
    let answer = answer_esp(number, choice, [0, 0, 2, 0]);
    let confirm = |answer: &Proposal, offer, group| {
        confirm_esp(AEADS, std::slice::from_ref(answer), offer, group)
    };
    assert_eq!(confirm(&answer, EspOffer::WithKe, Some(31)), Some((choice, 0x200)));
    assert_eq!(confirm(&answer, EspOffer::WithKe, Some(19)), None);
    assert_eq!(confirm(&answer, EspOffer::WithKe, None), None);
    assert_eq!(confirm(&answer, EspOffer::WithoutKe, None), None);
    // Without a KE payload the second proposal is the one.
    let (choice, _, number) = choose_esp(AEADS, &esp(EspOffer::WithKe), None).unwrap();
    assert_eq!((choice.group, number), (None, 2));
    let answer = answer_esp(number, choice, [0, 0, 2, 0]);
    assert_eq!(confirm(&answer, EspOffer::WithKe, None), Some((choice, 0x200)));
    assert_eq!(confirm(&answer, EspOffer::WithoutKe, None), None);
    // Two transforms of one type are no choice.
    let mut two = answer.clone();
    two.transforms.push(two.transforms[0]);
    assert_eq!(confirm(&two, EspOffer::WithKe, None), None);
    // ENCR_NULL and authentication-only ciphers are none.
    for (id, bits) in [(11, None), (21, Some(128)), (12, Some(128)), (20, Some(192))] {
        let mut other = answer.clone();
        (other.transforms[0].id, other.transforms[0].key_length) = (id, bits);
        assert_eq!(confirm(&other, EspOffer::WithKe, None), None);
    }
    // AES-CBC under the number of the AEADs, and the other way round.
    for (wrong, number) in [(0, 2), (1, 1)] {
        let offer = offer_ike(ALL, &[]);
        let (suite, mut answer) = choose_ike(ALL, &offer[wrong..=wrong], 0, 31, 32).unwrap();
        assert_eq!(confirm_ike(ALL, std::slice::from_ref(&answer), 0), Some(suite));
        answer.number = number;
        assert_eq!(confirm_ike(ALL, &[answer], 0), None);
    }
    // Only "no" is offered: "no" it is.
    let mut silent = esp(EspOffer::WithoutKe);
    silent[0].transforms.retain(|t| t.kind.0 != 5 || t.id == 0);
    assert!(!choose_esp(AEADS, &silent, None).unwrap().0.esn);
    silent[0].transforms.retain(|t| t.kind.0 != 5);
    assert!(!choose_esp(AEADS, &silent, None).unwrap().0.esn);
}

/// RFC 7296 §2.10: of the prfs that are offered one that the nonce is long enough for.
#[test]
fn the_nonce_limits_the_choice_of_prf() {
    let offer = offer_ike(ALL, &[]);
    let chosen = |nonce| choose_ike(ALL, &offer, 0, 31, nonce).map(|(suite, _)| suite.prf);
    for prf in Prf::ALL {
        let others = Prf::ALL.into_iter().filter(|other| *other != prf);
        let mut only = offer.clone();
        for proposal in &mut only {
            proposal.transforms.retain(|t| {
                t.kind != TransformType::PRF || others.clone().all(|other| t.id != other.number())
            });
        }
        let least = prf.least_nonce();
        assert!(choose_ike(ALL, &only, 0, 31, least).is_some(), "{prf:?}");
        assert_eq!(choose_ike(ALL, &only, 0, 31, least - 1), None, "{prf:?}");
        // One is there for every nonce that may be at all.
        assert!(chosen(least).is_some_and(|prf| prf.least_nonce() <= least));
    }
    assert_eq!(chosen(16), Some(Prf::HmacSha2_256));
}
