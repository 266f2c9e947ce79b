//! The key pair itself, whatever its kind: made, read, and used.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING,
    ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384,
    RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaKeyPair,
    RsaSignatureEncoding,
};
use dnskeys::{PublicKey, RsaKey};
use ike::SignatureScheme;
use rsa::pkcs8::PrivateKeyInfoRef;
use rsa::pkcs8::der::asn1::ObjectIdentifier;
use rsa::pkcs8::der::{Decode as _, SecretDocument};

use super::Kind;

/// A key pair, ready to sign.
pub(super) enum Pair {
    Rsa(Box<RsaKeyPair>),
    EcdsaP256(Ecdsa),
    EcdsaP384(Ecdsa),
    Ed25519(Ed25519KeyPair),
}

/// The same key twice: for signatures in ASN.1 (RFC 7427), and bare ones (RFC 4754).
pub(super) struct Ecdsa {
    asn1: EcdsaKeyPair,
    bare: EcdsaKeyPair,
}

impl Ecdsa {
    fn new(
        asn1: &'static EcdsaSigningAlgorithm,
        bare: &'static EcdsaSigningAlgorithm,
        pkcs8: &[u8],
    ) -> Option<Self> {
        let of = |algorithm| EcdsaKeyPair::from_pkcs8(algorithm, pkcs8).ok();
        Some(Self { asn1: of(asn1)?, bare: of(bare)? })
    }

    /// Its public key's coordinates, if they have this length.
    fn point<const N: usize>(&self) -> Option<[u8; N]> {
        // SEC 1 §2.3.3: 4, then both coordinates.
        self.asn1.public_key().as_ref().strip_prefix(&[4])?.try_into().ok()
    }
}

/// Makes a key that is not RSA, as PKCS#8.
pub(super) fn generate(kind: Kind) -> Option<SecretDocument> {
    let ecdsa = |algorithm| {
        let pair = EcdsaKeyPair::generate(algorithm).ok()?;
        SecretDocument::try_from(pair.to_pkcs8v1().ok()?.as_ref()).ok()
    };
    match kind {
        Kind::Rsa => None,
        Kind::EcdsaP256 => ecdsa(&ECDSA_P256_SHA256_ASN1_SIGNING),
        Kind::EcdsaP384 => ecdsa(&ECDSA_P384_SHA384_ASN1_SIGNING),
        Kind::Ed25519 => {
            let pair = Ed25519KeyPair::generate().ok()?;
            SecretDocument::try_from(pair.to_pkcs8v1().ok()?.as_ref()).ok()
        }
    }
}

impl Pair {
    /// Reads PKCS#8, and checks that its parts fit together.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn from_pkcs8(pkcs8: &SecretDocument) -> Result<(Self, PublicKey), &'static str> {
        let der = pkcs8.as_bytes();
        let info = PrivateKeyInfoRef::from_der(der).map_err(|_| "not a PKCS#8 private key")?;
        match info.algorithm.oid {
            rsa::pkcs1::ALGORITHM_OID => {
                let public = RsaKey::from_pkcs8_der(der).map_err(|error| error.why())?;
                if public.weakness() == Some(dnskeys::Weakness::ShortModulus) {
                    return Err("below 2048 bits, which no peer accepts");
                }
                let pair = RsaKeyPair::from_pkcs8(der)
                    .map_err(|_| "a private RSA key whose parts do not fit together")?;
                Ok((Self::Rsa(Box::new(pair)), public.into()))
            }
            EC_PUBLIC_KEY => {
                let (p256, p384) = (
                    Ecdsa::new(
                        &ECDSA_P256_SHA256_ASN1_SIGNING,
                        &ECDSA_P256_SHA256_FIXED_SIGNING,
                        der,
                    ),
                    Ecdsa::new(
                        &ECDSA_P384_SHA384_ASN1_SIGNING,
                        &ECDSA_P384_SHA384_FIXED_SIGNING,
                        der,
                    ),
                );
                let wrong =
                    "an elliptic key that is not on P-256 or P-384, or does not fit together";
                if let Some(pair) = p256 {
                    let public = PublicKey::EcdsaP256(pair.point().ok_or(wrong)?);
                    return Ok((Self::EcdsaP256(pair), public));
                }
                let pair = p384.ok_or(wrong)?;
                let public = PublicKey::EcdsaP384(pair.point().ok_or(wrong)?);
                Ok((Self::EcdsaP384(pair), public))
            }
            ED25519 => {
                let wrong = "not a private Ed25519 key";
                // OpenSSL writes no public half beside the private one, which the strict reader
                // wants to see.
                let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|_| wrong)?;
                let point = pair.public_key().as_ref().try_into().map_err(|_| wrong)?;
                Ok((Self::Ed25519(pair), PublicKey::Ed25519(point)))
            }
            _ => Err("neither RSA nor ECDSA nor Ed25519"),
        }
    }

    /// Signs a message (not its digest). `None` if a key of this kind has no such scheme.
    pub(super) fn sign(&self, scheme: SignatureScheme, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        let ecdsa = |pair: &EcdsaKeyPair| {
            pair.sign(&random, message).ok().map(|signature| signature.as_ref().to_vec())
        };
        match (self, scheme) {
            (Self::Rsa(pair), scheme) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(rsa_encoding(scheme)?, &random, message, &mut signature).ok()?;
                Some(signature)
            }
            (Self::EcdsaP256(pair), SignatureScheme::EcdsaSha256)
            | (Self::EcdsaP384(pair), SignatureScheme::EcdsaSha384) => ecdsa(&pair.asn1),
            (Self::EcdsaP256(pair), SignatureScheme::EcdsaP256Bare)
            | (Self::EcdsaP384(pair), SignatureScheme::EcdsaP384Bare) => ecdsa(&pair.bare),
            (Self::Ed25519(pair), SignatureScheme::Ed25519) => {
                Some(pair.sign(message).as_ref().to_vec())
            }
            _ => None,
        }
    }
}

fn rsa_encoding(scheme: SignatureScheme) -> Option<&'static RsaSignatureEncoding> {
    Some(match scheme {
        SignatureScheme::RsaPssSha256 => &RSA_PSS_SHA256,
        SignatureScheme::RsaPssSha384 => &RSA_PSS_SHA384,
        SignatureScheme::RsaPssSha512 => &RSA_PSS_SHA512,
        SignatureScheme::RsaPkcs1Sha256 => &RSA_PKCS1_SHA256,
        SignatureScheme::RsaPkcs1Sha384 => &RSA_PKCS1_SHA384,
        SignatureScheme::RsaPkcs1Sha512 => &RSA_PKCS1_SHA512,
        _ => return None,
    })
}

/// id-ecPublicKey (RFC 5480 §2.1.1).
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// id-Ed25519 (RFC 8410 §3).
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
