//! Digital signatures in IKEv2 (RFC 7427, RFC 8420, RFC 4754): AlgorithmIdentifiers are octets to
//! compare with, never a structure to parse, and RSA signatures are checked by encode-and-compare.

use std::sync::LazyLock;

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA384_ASN1,
    ECDSA_P256_SHA512_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1,
    ECDSA_P384_SHA384_FIXED, ECDSA_P384_SHA512_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
    UnparsedPublicKey,
};

use crate::api::{PublicKey, SignatureScheme};
use crate::message::Authentication;

/// Authentication method "ECDSA with SHA-256 on the P-256 curve" (RFC 4754 §3).
const AUTH_ECDSA_P256: u8 = 9;
/// Authentication method "ECDSA with SHA-384 on the P-384 curve" (RFC 4754 §3).
const AUTH_ECDSA_P384: u8 = 10;
/// Authentication method "Digital Signature" (RFC 7427 §3).
const AUTH_DIGITAL_SIGNATURE: u8 = 14;

/// SHA2-256, SHA2-384, SHA2-512 and Identity (the last is Ed25519's, RFC 8420 §2), as
/// SIGNATURE_HASH_ALGORITHMS has them (RFC 7427 §4).
pub(crate) const HASH_ALGORITHMS: [u16; 4] = [SHA2_256, SHA2_384, SHA2_512, IDENTITY];
const SHA2_256: u16 = 2;
const SHA2_384: u16 = 3;
const SHA2_512: u16 = 4;
const IDENTITY: u16 = 5;

/// The scheme that we sign with. `None` if the peer announced no hash that our key can do.
///
/// RSA: RSASSA-PSS, with the hash that fits the key if the peer announced it, else the best one it
/// did; from a peer that announced none, SHA-1 would be wanted. ECDSA: the hash of the curve's
/// size; a peer that announced none takes the bare form.
pub(crate) fn scheme_for(key: &PublicKey, announced: &[u16]) -> Option<SignatureScheme> {
    let takes = |hash: u16, scheme| announced.contains(&hash).then_some(scheme);
    let bare = |scheme| announced.is_empty().then_some(scheme);
    match key {
        PublicKey::Rsa { modulus, .. } => rsa_scheme_for(modulus.len() * 8, announced),
        PublicKey::EcdsaP256(_) => takes(SHA2_256, SignatureScheme::EcdsaSha256)
            .or_else(|| bare(SignatureScheme::EcdsaP256Bare)),
        PublicKey::EcdsaP384(_) => takes(SHA2_384, SignatureScheme::EcdsaSha384)
            .or_else(|| bare(SignatureScheme::EcdsaP384Bare)),
        PublicKey::Ed25519(_) => takes(IDENTITY, SignatureScheme::Ed25519),
    }
}

fn rsa_scheme_for(bits: usize, announced: &[u16]) -> Option<SignatureScheme> {
    let fitting = match bits {
        0..=3072 => SHA2_256,
        3073..=7680 => SHA2_384,
        _ => SHA2_512,
    };
    let hash = [fitting, SHA2_512, SHA2_384, SHA2_256]
        .into_iter()
        .find(|hash| announced.contains(hash))?;
    match hash {
        SHA2_256 => Some(SignatureScheme::RsaPssSha256),
        SHA2_384 => Some(SignatureScheme::RsaPssSha384),
        _ => Some(SignatureScheme::RsaPssSha512),
    }
}

/// The AUTH payload of a signature: for method 14 length, AlgorithmIdentifier, signature.
pub(crate) fn write_auth(scheme: SignatureScheme, signature: &[u8]) -> Authentication {
    let method = match scheme {
        SignatureScheme::EcdsaP256Bare => AUTH_ECDSA_P256,
        SignatureScheme::EcdsaP384Bare => AUTH_ECDSA_P384,
        _ => AUTH_DIGITAL_SIGNATURE,
    };
    let mut data = Vec::new();
    if let Some(identifier) = known_identifiers(scheme).first() {
        data.push(u8::try_from(identifier.len()).unwrap_or(u8::MAX));
        data.extend_from_slice(identifier);
    }
    data.extend_from_slice(signature);
    Authentication { method, data }
}

/// The scheme and the signature of an AUTH payload; `None` unless the AlgorithmIdentifier is,
/// octet for octet, one that honest implementations send.
pub(crate) fn read_auth(auth: &Authentication) -> Option<(SignatureScheme, &[u8])> {
    match auth.method {
        AUTH_ECDSA_P256 => return Some((SignatureScheme::EcdsaP256Bare, &auth.data)),
        AUTH_ECDSA_P384 => return Some((SignatureScheme::EcdsaP384Bare, &auth.data)),
        AUTH_DIGITAL_SIGNATURE => {}
        _ => return None,
    }
    let (len, rest) = auth.data.split_first()?;
    let (identifier, signature) = rest.split_at_checked(usize::from(*len))?;
    let scheme = SCHEMES
        .into_iter()
        .find(|scheme| known_identifiers(*scheme).iter().any(|known| known == identifier))?;
    Some((scheme, signature))
}

/// [`identifiers`], made once: they are looked at for every peer.
fn known_identifiers(scheme: SignatureScheme) -> &'static [Vec<u8>] {
    static KNOWN: LazyLock<Vec<(SignatureScheme, Vec<Vec<u8>>)>> =
        LazyLock::new(|| SCHEMES.map(|scheme| (scheme, identifiers(scheme))).to_vec());
    KNOWN.iter().find(|(of, _)| *of == scheme).map_or(&[], |(_, known)| known)
}

/// The signature is another's, or over other octets, or there was no telling.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NotVerified;

impl From<Unspecified> for NotVerified {
    fn from(_: Unspecified) -> Self {
        Self
    }
}

/// Whether `key` made `signature` over `octets`. A key of one kind never verifies a scheme of
/// another.
pub(crate) fn verify(
    key: &PublicKey,
    scheme: SignatureScheme,
    octets: &[u8],
    signature: &[u8],
) -> Result<(), NotVerified> {
    if !key_is_usable(key) {
        return Err(NotVerified);
    }
    match key {
        PublicKey::Rsa { exponent, modulus } => {
            let parameters = rsa_parameters(scheme).ok_or(NotVerified)?;
            // RFC 8017 §8.2.2 step 1. AWS-LC does not take other lengths either.
            if signature.len() != modulus.len() {
                return Err(NotVerified);
            }
            let key = RsaPublicKeyComponents { n: modulus, e: exponent };
            key.verify(parameters, octets, signature)?;
        }
        PublicKey::EcdsaP256(point) => {
            let algorithm = match scheme {
                SignatureScheme::EcdsaSha256 => &ECDSA_P256_SHA256_ASN1,
                SignatureScheme::EcdsaSha384 => &ECDSA_P256_SHA384_ASN1,
                SignatureScheme::EcdsaSha512 => &ECDSA_P256_SHA512_ASN1,
                SignatureScheme::EcdsaP256Bare => &ECDSA_P256_SHA256_FIXED,
                _ => return Err(NotVerified),
            };
            UnparsedPublicKey::new(algorithm, uncompressed(point)).verify(octets, signature)?;
        }
        PublicKey::EcdsaP384(point) => {
            let algorithm = match scheme {
                SignatureScheme::EcdsaSha256 => &ECDSA_P384_SHA256_ASN1,
                SignatureScheme::EcdsaSha384 => &ECDSA_P384_SHA384_ASN1,
                SignatureScheme::EcdsaSha512 => &ECDSA_P384_SHA512_ASN1,
                SignatureScheme::EcdsaP384Bare => &ECDSA_P384_SHA384_FIXED,
                _ => return Err(NotVerified),
            };
            UnparsedPublicKey::new(algorithm, uncompressed(point)).verify(octets, signature)?;
        }
        PublicKey::Ed25519(point) => {
            if scheme != SignatureScheme::Ed25519 {
                return Err(NotVerified);
            }
            UnparsedPublicKey::new(&ED25519, point).verify(octets, signature)?;
        }
    }
    Ok(())
}

fn rsa_parameters(scheme: SignatureScheme) -> Option<&'static RsaParameters> {
    Some(match scheme {
        SignatureScheme::RsaPssSha256 => &RSA_PSS_2048_8192_SHA256,
        SignatureScheme::RsaPssSha384 => &RSA_PSS_2048_8192_SHA384,
        SignatureScheme::RsaPssSha512 => &RSA_PSS_2048_8192_SHA512,
        SignatureScheme::RsaPkcs1Sha256 => &RSA_PKCS1_2048_8192_SHA256,
        SignatureScheme::RsaPkcs1Sha384 => &RSA_PKCS1_2048_8192_SHA384,
        SignatureScheme::RsaPkcs1Sha512 => &RSA_PKCS1_2048_8192_SHA512,
        _ => return None,
    })
}

/// A point as SEC 1 §2.3.3 writes it. The library checks that it is on the curve.
fn uncompressed(coordinates: &[u8]) -> Vec<u8> {
    [&[4], coordinates].concat()
}

/// Whether a key has the form that the library's preconditions want. RSA: canonical integers, odd
/// modulus, odd exponent of at most four octets and above one. Ed25519: not a point of small
/// order, under which one signature fits every message.
pub(crate) fn key_is_usable(key: &PublicKey) -> bool {
    let canonical = |n: &[u8]| n.first().is_some_and(|top| *top != 0);
    let odd = |n: &[u8]| n.last().is_some_and(|low| low & 1 == 1);
    match key {
        PublicKey::Rsa { exponent, modulus } => {
            canonical(exponent)
                && canonical(modulus)
                && odd(exponent)
                && odd(modulus)
                && exponent.len() <= 4
                && exponent.as_slice() != [1]
                && (256..=1024).contains(&modulus.len())
        }
        PublicKey::EcdsaP256(_) | PublicKey::EcdsaP384(_) => true,
        PublicKey::Ed25519(point) => {
            let mut y = *point;
            let [.., top] = &mut y;
            // The sign of x.
            *top &= 0x7f;
            !SMALL_ORDER.contains(&y)
        }
    }
}

/// Whether a key that is said to be a peer's is our own: a reflected AUTH would verify with it.
pub(crate) fn is_own(own: &PublicKey, key: &PublicKey) -> bool {
    match (own, key) {
        (PublicKey::Rsa { modulus: a, .. }, PublicKey::Rsa { modulus: b, .. }) => a == b,
        (own, key) => own == key,
    }
}

/// The y of every point of small order on Ed25519's curve, in all encodings: 0, 1, -1, the two of
/// order eight, and 0 and 1 with p added.
const SMALL_ORDER: [[u8; 32]; 7] = [
    [0; 32],
    ends(1, 0, 0),
    ends(0xec, 0xff, 0x7f),
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
        0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
        0x03, 0x7a,
    ],
    ends(0xed, 0xff, 0x7f),
    ends(0xee, 0xff, 0x7f),
];

/// A little-endian number by its first octet, those between, and its last.
const fn ends(first: u8, between: u8, last: u8) -> [u8; 32] {
    let mut octets = [between; 32];
    octets[0] = first;
    octets[31] = last;
    octets
}

/// Those with an AlgorithmIdentifier.
const SCHEMES: [SignatureScheme; 10] = [
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
];

/// Every DER form of the scheme's AlgorithmIdentifier that RFC 4055 §2.1, §3.1 and §5 let stand;
/// the first is the one we send. ECDSA and Ed25519 have one each, without parameters (RFC 5758
/// §3.2, RFC 8410 §3); the bare forms have none.
///
/// A hash's parameters may be NULL or absent, an explicit default trailer field breaks DER's rule
/// but is what RFC 7427's own appendix A.4 prints, and the PKCS#1 v1.5 identifiers carry NULL,
/// which some leave out.
fn identifiers(scheme: SignatureScheme) -> Vec<Vec<u8>> {
    let (hash, pss) = match scheme {
        SignatureScheme::RsaPssSha256 => (1, true),
        SignatureScheme::RsaPssSha384 => (2, true),
        SignatureScheme::RsaPssSha512 => (3, true),
        SignatureScheme::RsaPkcs1Sha256 => (1, false),
        SignatureScheme::RsaPkcs1Sha384 => (2, false),
        SignatureScheme::RsaPkcs1Sha512 => (3, false),
        SignatureScheme::EcdsaSha256 => return vec![ecdsa_identifier(2)],
        SignatureScheme::EcdsaSha384 => return vec![ecdsa_identifier(3)],
        SignatureScheme::EcdsaSha512 => return vec![ecdsa_identifier(4)],
        SignatureScheme::Ed25519 => return vec![der(SEQUENCE, &[&der(OID, &[&ED25519_ARC])])],
        SignatureScheme::EcdsaP256Bare | SignatureScheme::EcdsaP384Bare => return Vec::new(),
    };
    if !pss {
        // sha256WithRSAEncryption and its sisters: 1.2.840.113549.1.1.11 to 13.
        let oid = der(OID, &[&PKCS1_ARC, &[10 + hash]]);
        return vec![der(SEQUENCE, &[&oid, &NULL]), der(SEQUENCE, &[&oid])];
    }
    let oid = der(OID, &[&PKCS1_ARC, &[10]]);
    let mgf1 = der(OID, &[&PKCS1_ARC, &[8]]);
    let sha2 = der(OID, &[&NIST_HASH_ARC, &[hash]]);
    let salt_len = 16 + 16 * hash;
    let salt = der(TAG_2, &[&der(INTEGER, &[&[salt_len]])]);
    let mut all = Vec::new();
    for null in [&NULL[..], &[]] {
        for inner_null in [&NULL[..], &[]] {
            for trailer in [Vec::new(), der(TAG_3, &[&der(INTEGER, &[&[1]])])] {
                let hash = der(TAG_0, &[&der(SEQUENCE, &[&sha2, null])]);
                let inner = der(SEQUENCE, &[&sha2, inner_null]);
                let mask = der(TAG_1, &[&der(SEQUENCE, &[&mgf1, &inner])]);
                let parameters = der(SEQUENCE, &[&hash, &mask, &salt, &trailer]);
                all.push(der(SEQUENCE, &[&oid, &parameters]));
            }
        }
    }
    all
}

/// ecdsa-with-SHA256 and its sisters: 1.2.840.10045.4.3.2 to 4.
fn ecdsa_identifier(last: u8) -> Vec<u8> {
    der(SEQUENCE, &[&der(OID, &[&ECDSA_ARC, &[last]])])
}

/// Tag, length, parts. All our values are shorter than 128 octets.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut out = vec![tag, u8::try_from(body.len()).unwrap_or(0x7f)];
    out.extend_from_slice(&body);
    out
}

const SEQUENCE: u8 = 0x30;
const OID: u8 = 0x06;
const INTEGER: u8 = 0x02;
const NULL: [u8; 2] = [0x05, 0x00];
const TAG_0: u8 = 0xa0;
const TAG_1: u8 = 0xa1;
const TAG_2: u8 = 0xa2;
const TAG_3: u8 = 0xa3;
/// 1.2.840.113549.1.1
const PKCS1_ARC: [u8; 8] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
/// 2.16.840.1.101.3.4.2
const NIST_HASH_ARC: [u8; 8] = [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];
/// 1.2.840.10045.4.3
const ECDSA_ARC: [u8; 7] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03];
/// 1.3.101.112
const ED25519_ARC: [u8; 3] = [0x2b, 0x65, 0x70];
