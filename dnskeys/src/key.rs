//! Public keys and their forms (RFC 3110, RFC 4025 §2.6).

/// An RSA public key that passed every check of this module.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct RsaKey {
    exponent: Vec<u8>,
    modulus: Vec<u8>,
}

/// A public key of any kind a record can carry.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum PublicKey {
    /// RSA (RFC 3110).
    Rsa(RsaKey),
}

/// Why a key was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyError {
    /// Too short to hold what it announces.
    Truncated,
}

impl RsaKey {
    /// Reads exponent length, exponent, modulus (RFC 3110 §2).
    ///
    /// # Errors
    /// Says what is wrong with the octets.
    pub fn from_rfc3110(_octets: &[u8]) -> Result<Self, KeyError> {
        Err(KeyError::Truncated)
    }

    /// Big-endian public exponent without leading zeros.
    #[must_use]
    pub fn exponent(&self) -> &[u8] {
        &self.exponent
    }

    /// Big-endian modulus without leading zeros.
    #[must_use]
    pub fn modulus(&self) -> &[u8] {
        &self.modulus
    }
}
