//! Host keys for tests, and what they sign.

use std::sync::{Arc, OnceLock};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self, RsaKeyPair};
use ike::SignatureScheme;

/// A host key for tests.
#[derive(Debug)]
pub struct TestKey {
    pair: RsaKeyPair,
    /// Its public half.
    pub public: dnskeys::RsaKey,
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
        use aws_lc_rs::signature::KeyPair as _;
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let public = pair.public_key();
        let exponent = public.exponent().big_endian_without_leading_zero().to_vec();
        let modulus = public.modulus().big_endian_without_leading_zero().to_vec();
        let der = pair.as_der().unwrap();
        let pair = RsaKeyPair::from_pkcs8(der.as_ref()).unwrap();
        Self { pair, public: dnskeys::RsaKey::new(&exponent, &modulus).unwrap() }
    }

    /// As records publish it.
    #[must_use]
    pub fn dns(&self) -> dnskeys::PublicKey {
        dnskeys::PublicKey::Rsa(self.public.clone())
    }

    /// As IKE takes it.
    #[must_use]
    pub fn ike(&self) -> ike::PublicKey {
        ike::PublicKey::Rsa {
            exponent: self.public.exponent().to_vec(),
            modulus: self.public.modulus().to_vec(),
        }
    }

    /// Signs a message.
    ///
    /// # Panics
    /// If the library cannot.
    #[must_use]
    pub fn sign(&self, scheme: SignatureScheme, message: &[u8]) -> Vec<u8> {
        let encoding: &dyn signature::RsaEncoding = match scheme {
            SignatureScheme::RsaPssSha256 => &signature::RSA_PSS_SHA256,
            SignatureScheme::RsaPssSha384 => &signature::RSA_PSS_SHA384,
            SignatureScheme::RsaPssSha512 => &signature::RSA_PSS_SHA512,
            SignatureScheme::RsaPkcs1Sha256 => &signature::RSA_PKCS1_SHA256,
            SignatureScheme::RsaPkcs1Sha384 => &signature::RSA_PKCS1_SHA384,
            SignatureScheme::RsaPkcs1Sha512 => &signature::RSA_PKCS1_SHA512,
            other => panic!("{other:?} is not RSA's"),
        };
        let mut out = vec![0; self.pair.public_modulus_len()];
        self.pair.sign(encoding, &SystemRandom::new(), message, &mut out).unwrap();
        out
    }
}
