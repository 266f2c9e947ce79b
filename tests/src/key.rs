//! Host keys for tests, and what they sign.

use std::sync::{Arc, OnceLock};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self, Ed25519KeyPair, KeyPair as _, RsaKeyPair};
use ike::SignatureScheme;

/// A host key for tests.
#[derive(Debug)]
pub struct TestKey {
    pair: Pair,
}

#[derive(Debug)]
enum Pair {
    Rsa(Box<RsaKeyPair>, dnskeys::RsaKey),
    Ed25519(Box<Ed25519KeyPair>, [u8; 32]),
}

impl TestKey {
    /// The n-th key; made once for each process, because making one takes a while.
    ///
    /// # Panics
    /// If there are not so many.
    #[must_use]
    pub fn nth(n: usize) -> Arc<Self> {
        static KEYS: [OnceLock<Arc<TestKey>>; 64] = [const { OnceLock::new() }; 64];
        Arc::clone(KEYS[n].get_or_init(|| Arc::new(Self::generate())))
    }

    fn generate() -> Self {
        use aws_lc_rs::encoding::AsDer as _;
        use aws_lc_rs::rsa::{KeyPair, KeySize};
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let public = pair.public_key();
        let exponent = public.exponent().big_endian_without_leading_zero().to_vec();
        let modulus = public.modulus().big_endian_without_leading_zero().to_vec();
        let der = pair.as_der().unwrap();
        let pair = RsaKeyPair::from_pkcs8(der.as_ref()).unwrap();
        let public = dnskeys::RsaKey::new(&exponent, &modulus).unwrap();
        Self { pair: Pair::Rsa(Box::new(pair), public) }
    }

    /// One of a kind that costs little to make and to use: Ed25519.
    ///
    /// # Panics
    /// If the library cannot.
    #[must_use]
    pub fn cheap(n: usize) -> Arc<Self> {
        let mut seed = [0x5e; 32];
        for (octet, of_n) in seed.iter_mut().zip(n.to_be_bytes()) {
            *octet = of_n;
        }
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
        let public = pair.public_key().as_ref().try_into().unwrap();
        Arc::new(Self { pair: Pair::Ed25519(Box::new(pair), public) })
    }

    /// Reads PKCS#8 PEM.
    ///
    /// # Panics
    /// If it is something else.
    #[must_use]
    pub fn from_pem(text: &str) -> Self {
        use rsa::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _};
        let private = rsa::RsaPrivateKey::from_pkcs8_pem(text).unwrap();
        let der = private.to_pkcs8_der().unwrap();
        let public = dnskeys::RsaKey::from_pkcs8_der(der.as_bytes()).unwrap();
        let pair = RsaKeyPair::from_pkcs8(der.as_bytes()).unwrap();
        Self { pair: Pair::Rsa(Box::new(pair), public) }
    }

    /// As records publish it.
    #[must_use]
    pub fn dns(&self) -> dnskeys::PublicKey {
        match &self.pair {
            Pair::Rsa(_, public) => dnskeys::PublicKey::Rsa(public.clone()),
            Pair::Ed25519(_, point) => dnskeys::PublicKey::Ed25519(*point),
        }
    }

    /// As IKE takes it.
    #[must_use]
    pub fn ike(&self) -> ike::PublicKey {
        match &self.pair {
            Pair::Rsa(_, public) => ike::PublicKey::Rsa {
                exponent: public.exponent().to_vec(),
                modulus: public.modulus().to_vec(),
            },
            Pair::Ed25519(_, point) => ike::PublicKey::Ed25519(*point),
        }
    }

    /// Signs a message.
    ///
    /// # Panics
    /// If the library cannot.
    #[must_use]
    pub fn sign(&self, scheme: SignatureScheme, message: &[u8]) -> Vec<u8> {
        let pair = match &self.pair {
            Pair::Rsa(pair, _) => pair,
            Pair::Ed25519(pair, _) => return pair.sign(message).as_ref().to_vec(),
        };
        let encoding: &dyn signature::RsaEncoding = match scheme {
            SignatureScheme::RsaPssSha256 => &signature::RSA_PSS_SHA256,
            SignatureScheme::RsaPssSha384 => &signature::RSA_PSS_SHA384,
            SignatureScheme::RsaPssSha512 => &signature::RSA_PSS_SHA512,
            SignatureScheme::RsaPkcs1Sha256 => &signature::RSA_PKCS1_SHA256,
            SignatureScheme::RsaPkcs1Sha384 => &signature::RSA_PKCS1_SHA384,
            SignatureScheme::RsaPkcs1Sha512 => &signature::RSA_PKCS1_SHA512,
            other => panic!("{other:?} is not RSA's"),
        };
        let mut out = vec![0; pair.public_modulus_len()];
        pair.sign(encoding, &SystemRandom::new(), message, &mut out).unwrap();
        out
    }
}
