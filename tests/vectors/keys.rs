//! Public keys as strangers publish them: RFC 3110 and RFC 4025 records, and what verification makes
//! of keys that are none.

use dnskeys::{Gateway, Ipseckey, RsaKey};
use ike::internal::{is_usable, verify};
use ike::{PublicKey, SignatureScheme};

use crate::number::Number;
use crate::unhex;

const SCHEMES: [SignatureScheme; 6] = [
    SignatureScheme::RsaPssSha256,
    SignatureScheme::RsaPssSha384,
    SignatureScheme::RsaPssSha512,
    SignatureScheme::RsaPkcs1Sha256,
    SignatureScheme::RsaPkcs1Sha384,
    SignatureScheme::RsaPkcs1Sha512,
];

fn refuses(exponent: &[u8], modulus: &[u8]) {
    let key = PublicKey::Rsa { exponent: exponent.to_vec(), modulus: modulus.to_vec() };
    // A modulus of 2047 bits has its 256 octets: the library counts bits.
    assert!(!is_usable(&key) || modulus.len() == 256);
    let mut one = vec![0; modulus.len()];
    if let Some(last) = one.last_mut() {
        *last = 1;
    }
    for scheme in SCHEMES {
        for signature in [vec![], vec![0; modulus.len()], one.clone(), vec![0xff; modulus.len()]] {
            let (e, n) = (exponent.len(), modulus.len() * 8);
            assert!(!verify(&key, scheme, b"text", &signature), "e of {e} octets, {n} bits");
        }
    }
}

/// CVE-2018-17540: moduli smaller than a DigestInfo, and every other odd size.
#[test]
fn moduli_of_odd_sizes() {
    for octets in (0..=80).chain([127, 128, 129, 254, 255, 1025, 1026, 2048, 65_536]) {
        for exponent in [&[3][..], &[1, 0, 1]] {
            refuses(exponent, &vec![0xff; octets]);
        }
    }
    // Bits, not octets: a modulus of 2047 bits has 256 octets.
    for top in [0x7f, 0x01] {
        let mut modulus = vec![0xff; 256];
        modulus[0] = top;
        refuses(&[1, 0, 1], &modulus);
    }
}

/// CVE-2017-9022, CVE-2026-14957: even moduli, even exponents, exponents 0 and 1, leading zeros,
/// exponents as large as the modulus.
#[test]
fn keys_that_break_a_librarys_preconditions() {
    let modulus = vec![0xff; 256];
    let mut even = modulus.clone();
    even[255] = 0xfe;
    for exponent in [&[3][..], &[1, 0, 1]] {
        refuses(exponent, &even);
        let key = PublicKey::Rsa { exponent: exponent.to_vec(), modulus: even.clone() };
        assert!(!is_usable(&key));
        refuses(exponent, &[&[0], &modulus[..]].concat());
        let mut zero = vec![0; 256];
        refuses(exponent, &zero);
        zero[0] = 0x80;
        refuses(exponent, &zero);
    }
    let long = [&[1][..], &[0; 7], &[1]].concat();
    for exponent in
        [&[][..], &[0], &[1], &[2], &[0, 3], &[1, 0, 0], &[0xff, 0xff, 0xff, 0xfe], &long, &modulus]
    {
        refuses(exponent, &modulus);
        let key = PublicKey::Rsa { exponent: exponent.to_vec(), modulus: modulus.clone() };
        assert!(!is_usable(&key), "{exponent:?}");
    }
}

/// RFC 3110 §2: the exponent's length in one octet, or 0 and two; RFC 4025 §2.6 has the same form.
#[test]
fn records_of_rfc_3110_and_rfc_4025() {
    let modulus = [vec![0xc5; 255], vec![0x01]].concat();
    let short = [&unhex("03010001")[..], &modulus].concat();
    let long = [&unhex("000003010001")[..], &modulus].concat();
    for octets in [&short, &long] {
        let key = RsaKey::from_rfc3110(octets).unwrap();
        assert_eq!((key.exponent_value(), key.modulus()), (65537, &modulus[..]));
        // The shorter form is the one to write.
        assert_eq!(key.to_rfc3110(), short);
    }
    // The key of RFC 4025 §3.2, 51 octets of base64, is an exponent of 3 and a modulus of 272 bits.
    let example = "AQNRU3mG7TVTO2BkR47usntb102uFJtugbo6BSGvgqt4AQ==";
    assert!(RsaKey::from_base64(example.as_bytes()).is_err(), "too short for anybody");
    // Precedence 10, gateway type 1, algorithm 2, 192.0.2.38.
    let rdata = [&[10, 1, 2, 192, 0, 2, 38][..], &short].concat();
    let record = Ipseckey::from_rdata(&rdata).unwrap();
    assert_eq!(record.precedence, 10);
    assert_eq!(record.gateway, Gateway::Address("192.0.2.38".parse().unwrap()));
    assert_eq!(record.key.as_ref().and_then(|key| key.rsa()).unwrap().modulus(), modulus);
    assert_eq!(record.to_rdata(), rdata);
}

/// What DNS lets pass, verification lets pass too, and the other way round, for keys of the sizes
/// that both know.
#[test]
fn dns_and_verification_are_of_one_mind() {
    let one = Number::from_octets(&[1]);
    for (exponent, octets) in [(vec![3], 256), (vec![1, 0, 1], 384), (vec![1, 0, 1], 1024)] {
        let mut modulus = vec![0xd7; octets];
        modulus[octets - 1] = 0x0b;
        let blob = [&[u8::try_from(exponent.len()).unwrap()], &exponent[..], &modulus].concat();
        assert!(RsaKey::from_rfc3110(&blob).is_ok());
        // The number 1 is its own power: a key that is taken computes with it and finds no padding.
        let key = PublicKey::Rsa { exponent, modulus };
        assert!(is_usable(&key));
        assert!(!verify(&key, SCHEMES[3], b"text", &one.to_octets(octets)));
    }
}
