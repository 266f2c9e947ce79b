//! Key encapsulation as an additional key exchange: ML-KEM-768 (FIPS 203;
//! draft-ietf-ipsecme-ikev2-mlkem), which stays secret from who has a quantum computer one day.
//!
//! Alone among our primitives it takes no seed: the library draws from its own generator. What is
//! drawn is seen by nobody but the two ends, so a simulation runs the same way every time
//! nevertheless.

use aws_lc_rs::kem::{Ciphertext, DecapsulationKey, EncapsulationKey, ML_KEM_768};

use super::{CryptoFailure, Secret};

/// An additional key exchange method (RFC 9370).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AdditionalKe {
    MlKem768,
}

impl AdditionalKe {
    /// Its number in transforms and KE payloads.
    pub(crate) fn number(self) -> u16 {
        match self {
            Self::MlKem768 => 36,
        }
    }

    /// The method of this number.
    pub(crate) fn from_number(number: u16) -> Option<Self> {
        (number == Self::MlKem768.number()).then_some(Self::MlKem768)
    }
}

/// The initiator's half.
#[derive(Debug)]
pub(crate) struct Decapsulation {
    key: DecapsulationKey,
    public: Vec<u8>,
}

impl Decapsulation {
    /// A fresh key pair.
    pub(crate) fn new(method: AdditionalKe) -> Result<Self, CryptoFailure> {
        let AdditionalKe::MlKem768 = method;
        let key = DecapsulationKey::generate(&ML_KEM_768).map_err(|_| CryptoFailure)?;
        let public =
            key.encapsulation_key().and_then(|k| k.key_bytes().map(|b| b.as_ref().to_vec()));
        Ok(Self { key, public: public.map_err(|_| CryptoFailure)? })
    }

    /// A key pair that was published, of which nothing but the private half is known.
    pub(crate) fn with_private(method: AdditionalKe, key: &[u8]) -> Result<Self, CryptoFailure> {
        let AdditionalKe::MlKem768 = method;
        let key = DecapsulationKey::new(&ML_KEM_768, key).map_err(|_| CryptoFailure)?;
        Ok(Self { key, public: Vec::new() })
    }

    /// The value for our KE payload: the encapsulation key.
    pub(crate) fn public(&self) -> &[u8] {
        &self.public
    }

    /// The common secret. Fails only for a ciphertext of wrong length: one that is wrong otherwise
    /// gives a secret that nobody else has (FIPS 203 §6.3).
    pub(crate) fn open(&self, ciphertext: &[u8]) -> Result<Secret, CryptoFailure> {
        if ciphertext.len() != CIPHERTEXT_LEN {
            return Err(CryptoFailure);
        }
        let secret = self.key.decapsulate(Ciphertext::from(ciphertext));
        secret.map(|s| Secret::new(s.as_ref().to_vec())).map_err(|_| CryptoFailure)
    }
}

/// The responder's half: the value for its KE payload, a ciphertext, and the common secret. Fails
/// for encapsulation keys of wrong length or with coefficients out of range (FIPS 203 §7.2).
pub(crate) fn encapsulate(
    method: AdditionalKe,
    peer: &[u8],
) -> Result<(Vec<u8>, Secret), CryptoFailure> {
    let AdditionalKe::MlKem768 = method;
    if peer.len() != KEY_LEN {
        return Err(CryptoFailure);
    }
    let key = EncapsulationKey::new(&ML_KEM_768, peer).map_err(|_| CryptoFailure)?;
    let (ciphertext, secret) = key.encapsulate().map_err(|_| CryptoFailure)?;
    Ok((ciphertext.as_ref().to_vec(), Secret::new(secret.as_ref().to_vec())))
}

/// Octets of an encapsulation key and of a ciphertext (FIPS 203 §8).
const KEY_LEN: usize = 1184;
const CIPHERTEXT_LEN: usize = 1088;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_agree_and_nobody_else() {
        let ours = Decapsulation::new(AdditionalKe::MlKem768).unwrap();
        assert_eq!(ours.public().len(), KEY_LEN);
        let (ciphertext, secret) = encapsulate(AdditionalKe::MlKem768, ours.public()).unwrap();
        assert_eq!(ciphertext.len(), CIPHERTEXT_LEN);
        assert_eq!(ours.open(&ciphertext).unwrap(), secret);
        assert_eq!(secret.len(), 32);
        let mut other = ciphertext.clone();
        other[0] ^= 1;
        assert_ne!(ours.open(&other).unwrap(), secret);
        let another = Decapsulation::new(AdditionalKe::MlKem768).unwrap();
        assert_ne!(another.open(&ciphertext).unwrap(), secret);
        assert_ne!(another.public(), ours.public());
    }

    /// CVE-2015-3240.
    #[test]
    fn bad_values_are_refused() {
        let ours = Decapsulation::new(AdditionalKe::MlKem768).unwrap();
        for len in [0, 1, CIPHERTEXT_LEN - 1, CIPHERTEXT_LEN + 1, 65_536] {
            assert!(ours.open(&vec![9; len]).is_err(), "{len}");
        }
        for len in [0, 1, KEY_LEN - 1, KEY_LEN + 1, 65_536] {
            assert!(encapsulate(AdditionalKe::MlKem768, &vec![9; len]).is_err(), "{len}");
        }
        // Coefficients of 4095, above the modulus 3329.
        assert!(encapsulate(AdditionalKe::MlKem768, &[0xff; KEY_LEN]).is_err());
    }
}
