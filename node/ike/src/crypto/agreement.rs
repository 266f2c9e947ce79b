//! Diffie-Hellman: Curve25519 (RFC 8031), the NIST curves (RFC 5903), and MODP groups (RFC 3526).

use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey};
use rand_core::CryptoRng;
use subtle::ConstantTimeEq;

use super::modp::Modp;
use super::{CryptoFailure, Secret};

/// A key exchange method.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Group {
    Curve25519,
    Ecp256,
    Ecp384,
    Ecp521,
    /// Only as configured compatibility: slow, and for those who know no curve.
    Modp(Modp),
}

impl Group {
    /// All, best first; the last three only as compatibility.
    pub(crate) const ALL: [Self; 7] = [
        Self::Curve25519,
        Self::Ecp256,
        Self::Ecp384,
        Self::Ecp521,
        Self::Modp(Modp::Modp3072),
        Self::Modp(Modp::Modp4096),
        Self::Modp(Modp::Modp2048),
    ];

    /// Its number in transforms and KE payloads.
    pub(crate) fn number(self) -> u16 {
        match self {
            Self::Curve25519 => 31,
            Self::Ecp256 => 19,
            Self::Ecp384 => 20,
            Self::Ecp521 => 21,
            Self::Modp(Modp::Modp2048) => 14,
            Self::Modp(Modp::Modp3072) => 15,
            Self::Modp(Modp::Modp4096) => 16,
        }
    }

    /// Whether it is for peers that know no better.
    pub(crate) fn is_compatibility(self) -> bool {
        matches!(self, Self::Modp(_))
    }

    pub(crate) fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|g| g.number() == number)
    }

    /// The curve; `None` for those that have none.
    fn algorithm(self) -> Option<&'static agreement::Algorithm> {
        Some(match self {
            Self::Curve25519 => &agreement::X25519,
            Self::Ecp256 => &agreement::ECDH_P256,
            Self::Ecp384 => &agreement::ECDH_P384,
            Self::Ecp521 => &agreement::ECDH_P521,
            Self::Modp(_) => return None,
        })
    }

    fn private_len(self) -> usize {
        match self {
            Self::Curve25519 | Self::Ecp256 => 32,
            Self::Ecp384 => 48,
            Self::Ecp521 => 66,
            Self::Modp(group) => group.exponent_len(),
        }
    }

    /// Octets of a public value: one coordinate, or two without the leading 0x04 (RFC 5903 §7).
    pub(crate) fn public_len(self) -> usize {
        match self {
            Self::Curve25519 => 32,
            Self::Ecp256 => 64,
            Self::Ecp384 => 96,
            Self::Ecp521 => 132,
            Self::Modp(group) => group.len(),
        }
    }
}

/// Our half of one key exchange.
#[derive(Debug)]
pub(crate) struct Agreement {
    group: Group,
    private: Private,
    public: Vec<u8>,
}

#[derive(Debug)]
enum Private {
    Curve(PrivateKey),
    Exponent(Modp, Secret),
}

impl Agreement {
    /// A fresh key pair.
    pub(crate) fn new(group: Group, rng: &mut impl CryptoRng) -> Result<Self, CryptoFailure> {
        for _ in 0..SCALAR_TRIES {
            let mut octets = Secret::zeros(group.private_len());
            rng.fill_bytes(octets.as_mut());
            if let (Group::Ecp521, Some(top)) = (group, octets.as_mut().first_mut()) {
                // 521 bits are 65 octets and one bit.
                *top &= 1;
            }
            // Refused only if the number is not below the curve's order.
            if let Ok(agreement) = Self::with_private(group, &octets) {
                return Ok(agreement);
            }
        }
        Err(CryptoFailure)
    }

    /// The key pair of this private key.
    pub(crate) fn with_private(group: Group, private: &[u8]) -> Result<Self, CryptoFailure> {
        let algorithm = match (group, group.algorithm()) {
            (_, Some(algorithm)) => algorithm,
            (Group::Modp(modp), None) => {
                let public = modp.public(private)?;
                let private = Private::Exponent(modp, Secret::new(private.to_vec()));
                return Ok(Self { group, private, public });
            }
            (_, None) => return Err(CryptoFailure),
        };
        let private =
            PrivateKey::from_private_key(algorithm, private).map_err(|_| CryptoFailure)?;
        let public = private.compute_public_key().map_err(|_| CryptoFailure)?;
        let octets = public.as_ref();
        let skip = octets.len().checked_sub(group.public_len()).ok_or(CryptoFailure)?;
        let public = octets.get(skip..).ok_or(CryptoFailure)?.to_vec();
        Ok(Self { group, private: Private::Curve(private), public })
    }

    pub(crate) fn group(&self) -> Group {
        self.group
    }

    /// The value for our KE payload.
    pub(crate) fn public(&self) -> &[u8] {
        &self.public
    }

    /// The common secret. Fails for values of wrong length, points off the curve, and values
    /// that make the secret all zero.
    pub(crate) fn agree(&self, peer: &[u8]) -> Result<Secret, CryptoFailure> {
        if peer.len() != self.group.public_len() || peer == self.public {
            return Err(CryptoFailure);
        }
        let private = match &self.private {
            Private::Curve(private) => private,
            Private::Exponent(modp, exponent) => return modp.agree(exponent, peer),
        };
        let mut point = Vec::with_capacity(1 + peer.len());
        if self.group != Group::Curve25519 {
            point.push(UNCOMPRESSED);
        }
        point.extend_from_slice(peer);
        let algorithm = private.algorithm();
        let secret = agreement::agree(
            private,
            UnparsedPublicKey::new(algorithm, point),
            CryptoFailure,
            |secret| Ok(Secret::new(secret.to_vec())),
        )?;
        let zero = vec![0; secret.len()];
        if bool::from(secret.ct_eq(&zero)) { Err(CryptoFailure) } else { Ok(secret) }
    }
}

/// Each try fails once in 2^32 for P-256 and less often for the others.
const SCALAR_TRIES: usize = 8;
/// SEC 1 §2.3.3.
const UNCOMPRESSED: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    #[test]
    fn both_sides_agree() {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        for group in Group::ALL {
            let a = Agreement::new(group, &mut rng).unwrap();
            let b = Agreement::new(group, &mut rng).unwrap();
            assert_eq!(a.public().len(), group.public_len());
            assert_eq!(a.agree(b.public()).unwrap(), b.agree(a.public()).unwrap());
        }
    }

    /// CVE-2015-3240.
    #[test]
    fn bad_values_are_refused() {
        let mut rng = ChaCha20Rng::from_seed([2; 32]);
        for group in Group::ALL {
            let a = Agreement::new(group, &mut rng).unwrap();
            let own = a.public().to_vec();
            for len in [0, 1, group.public_len() - 1, group.public_len() + 1, 65_536] {
                assert!(a.agree(&vec![9; len]).is_err(), "{group:?} {len}");
            }
            assert!(a.agree(&vec![0; group.public_len()]).is_err(), "{group:?} zero");
            assert!(
                a.agree(&vec![0xff; group.public_len()]).is_err() || group == Group::Curve25519
            );
            assert!(a.agree(&own).is_err(), "{group:?} reflected");
        }
        // The small-order points of Curve25519 (RFC 7748 §6.1 tells to check the result).
        let a = Agreement::new(Group::Curve25519, &mut rng).unwrap();
        let mut one = [0; 32];
        one[0] = 1;
        assert!(a.agree(&one).is_err());
        let p_minus_1: Vec<u8> = std::iter::once(0xec).chain([0xff; 30]).chain([0x7f]).collect();
        assert!(a.agree(&p_minus_1).is_err());
    }
}
