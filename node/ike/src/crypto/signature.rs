//! Digital signatures in IKEv2 (RFC 7427): AlgorithmIdentifiers are octets to compare with, never
//! a structure to parse, and RSA signatures are checked by encode-and-compare.

use aws_lc_rs::signature::{
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters,
    RsaPublicKeyComponents,
};

use crate::api::{PublicKey, SignatureScheme};

/// Authentication method "Digital Signature" (RFC 7427 §3).
pub(crate) const AUTH_DIGITAL_SIGNATURE: u8 = 14;

/// SHA2-256, SHA2-384, SHA2-512, as SIGNATURE_HASH_ALGORITHMS has them (RFC 7427 §4).
pub(crate) const HASH_ALGORITHMS: [u16; 3] = [2, 3, 4];

/// The scheme that we sign with: RSASSA-PSS, with the hash that fits the key if the peer
/// announced it, else the best one it did. `None` if it announced none of ours: then it would
/// take SHA-1 only.
pub(crate) fn scheme_for(key: &PublicKey, announced: &[u16]) -> Option<SignatureScheme> {
    let PublicKey::Rsa { modulus, .. } = key;
    let fitting = match modulus.len() * 8 {
        0..=3072 => 2,
        3073..=7680 => 3,
        _ => 4,
    };
    let hash = std::iter::once(fitting)
        .chain(HASH_ALGORITHMS.into_iter().rev())
        .find(|hash| announced.contains(hash))?;
    match hash {
        2 => Some(SignatureScheme::RsaPssSha256),
        3 => Some(SignatureScheme::RsaPssSha384),
        _ => Some(SignatureScheme::RsaPssSha512),
    }
}

/// The AUTH payload's data: length, AlgorithmIdentifier, signature.
pub(crate) fn write_auth(scheme: SignatureScheme, signature: &[u8]) -> Vec<u8> {
    let identifier = identifiers(scheme).into_iter().next().unwrap_or_default();
    let mut out = vec![u8::try_from(identifier.len()).unwrap_or(u8::MAX)];
    out.extend_from_slice(&identifier);
    out.extend_from_slice(signature);
    out
}

/// The scheme and the signature of an AUTH payload's data; `None` unless the
/// AlgorithmIdentifier is, octet for octet, one that honest implementations send.
pub(crate) fn read_auth(data: &[u8]) -> Option<(SignatureScheme, &[u8])> {
    let (len, rest) = data.split_first()?;
    let (identifier, signature) = rest.split_at_checked(usize::from(*len))?;
    let scheme = SCHEMES
        .into_iter()
        .find(|scheme| identifiers(*scheme).iter().any(|known| known == identifier))?;
    Some((scheme, signature))
}

/// Whether `key` made `signature` over `octets`.
pub(crate) fn verify(
    key: &PublicKey,
    scheme: SignatureScheme,
    octets: &[u8],
    signature: &[u8],
) -> bool {
    let PublicKey::Rsa { exponent, modulus } = key;
    let parameters: &RsaParameters = match scheme {
        SignatureScheme::RsaPssSha256 => &RSA_PSS_2048_8192_SHA256,
        SignatureScheme::RsaPssSha384 => &RSA_PSS_2048_8192_SHA384,
        SignatureScheme::RsaPssSha512 => &RSA_PSS_2048_8192_SHA512,
        SignatureScheme::RsaPkcs1Sha256 => &RSA_PKCS1_2048_8192_SHA256,
        SignatureScheme::RsaPkcs1Sha384 => &RSA_PKCS1_2048_8192_SHA384,
        SignatureScheme::RsaPkcs1Sha512 => &RSA_PKCS1_2048_8192_SHA512,
    };
    key_is_usable(key)
        && signature.len() == modulus.len()
        && RsaPublicKeyComponents { n: modulus, e: exponent }
            .verify(parameters, octets, signature)
            .is_ok()
}

/// Whether a key has the form that the library's preconditions want: canonical integers, odd
/// modulus, odd exponent of at most four octets and above one.
pub(crate) fn key_is_usable(key: &PublicKey) -> bool {
    let PublicKey::Rsa { exponent, modulus } = key;
    let canonical = |n: &[u8]| n.first().is_some_and(|top| *top != 0);
    let odd = |n: &[u8]| n.last().is_some_and(|low| low & 1 == 1);
    canonical(exponent)
        && canonical(modulus)
        && odd(exponent)
        && odd(modulus)
        && exponent.len() <= 4
        && exponent.as_slice() != [1]
        && (256..=1024).contains(&modulus.len())
}

/// Whether a key that is said to be a peer's is our own: a reflected AUTH would verify with it.
pub(crate) fn is_own(own: &PublicKey, key: &PublicKey) -> bool {
    let (PublicKey::Rsa { modulus: a, .. }, PublicKey::Rsa { modulus: b, .. }) = (own, key);
    a == b
}

const SCHEMES: [SignatureScheme; 6] = [
    SignatureScheme::RsaPssSha256,
    SignatureScheme::RsaPssSha384,
    SignatureScheme::RsaPssSha512,
    SignatureScheme::RsaPkcs1Sha256,
    SignatureScheme::RsaPkcs1Sha384,
    SignatureScheme::RsaPkcs1Sha512,
];

/// Every DER form of the scheme's AlgorithmIdentifier that RFC 4055 §2.1, §3.1 and §5 let stand;
/// the first is the one we send.
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
