//! Diffie-Hellman in the MODP groups 14, 15 and 16 (RFC 3526), for peers that know no curve. The
//! arithmetic is crypto-bigint's, in constant time; here are the groups' numbers and the checks.

use std::sync::OnceLock;

use crypto_bigint::modular::{BoxedMontyForm, BoxedMontyParams};
use crypto_bigint::{BoxedUint, Odd};
use zeroize::Zeroize;

use super::{CryptoFailure, Secret};

/// One of the groups. The generator of each is 2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Modp {
    Modp2048,
    Modp3072,
    Modp4096,
}

impl Modp {
    /// Octets of the prime, of a public value and of a common secret (RFC 7296 §2.14, §3.4).
    pub(super) fn len(self) -> usize {
        match self {
            Self::Modp2048 => 256,
            Self::Modp3072 => 384,
            Self::Modp4096 => 512,
        }
    }

    /// Octets of a private exponent: above the upper estimate of RFC 3526 §8 for the strength.
    pub(super) fn exponent_len(self) -> usize {
        match self {
            Self::Modp2048 => 40,
            Self::Modp3072 => 52,
            Self::Modp4096 => 60,
        }
    }

    fn prime(self) -> &'static str {
        match self {
            Self::Modp2048 => PRIME_2048,
            Self::Modp3072 => PRIME_3072,
            Self::Modp4096 => PRIME_4096,
        }
    }

    /// What the arithmetic prepares for this prime, once.
    fn params(self) -> Option<&'static BoxedMontyParams> {
        static PREPARED: [OnceLock<Option<BoxedMontyParams>>; 3] = [const { OnceLock::new() }; 3];
        let [a, b, c] = &PREPARED;
        let cell = match self {
            Self::Modp2048 => a,
            Self::Modp3072 => b,
            Self::Modp4096 => c,
        };
        let prepare = || {
            let prime = BoxedUint::from_be_hex(self.prime(), self.bits()).into_option()?;
            Some(BoxedMontyParams::new(Odd::new(prime).into_option()?))
        };
        cell.get_or_init(prepare).as_ref()
    }

    fn bits(self) -> u32 {
        match self {
            Self::Modp2048 => 2048,
            Self::Modp3072 => 3072,
            Self::Modp4096 => 4096,
        }
    }

    /// The public value of a private exponent.
    pub(super) fn public(self, exponent: &[u8]) -> Result<Vec<u8>, CryptoFailure> {
        let two = BoxedUint::from_be_slice(&[2], self.bits()).map_err(|_| CryptoFailure)?;
        Ok(self.power(two, exponent)?.to_vec())
    }

    /// The common secret, with all its leading zeros. Refuses values out of range: 0, 1, and p - 1
    /// and above (RFC 6989 §2.1; the primes are safe ones, so that is all there is to check).
    pub(super) fn agree(self, exponent: &[u8], peer: &[u8]) -> Result<Secret, CryptoFailure> {
        let peer = BoxedUint::from_be_slice(peer, self.bits()).map_err(|_| CryptoFailure)?;
        let prime = self.params().ok_or(CryptoFailure)?.modulus().as_ref().clone();
        let one = BoxedUint::one_with_precision(self.bits());
        if peer <= one || peer >= prime.wrapping_sub(&one) {
            return Err(CryptoFailure);
        }
        self.power(peer, exponent)
    }

    fn power(self, base: BoxedUint, exponent: &[u8]) -> Result<Secret, CryptoFailure> {
        let params = self.params().ok_or(CryptoFailure)?;
        let bits = u32::try_from(exponent.len() * 8).map_err(|_| CryptoFailure)?;
        let mut exponent = BoxedUint::from_be_slice(exponent, bits).map_err(|_| CryptoFailure)?;
        let mut form = BoxedMontyForm::new(base, params).pow_bounded_exp(&exponent, bits);
        let mut power = form.retrieve();
        let octets = Secret::new(power.to_be_bytes().into_vec());
        exponent.zeroize();
        form.zeroize();
        power.zeroize();
        if octets.len() == self.len() { Ok(octets) } else { Err(CryptoFailure) }
    }
}

/// RFC 3526 §3.
const PRIME_2048: &str = "\
    FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22\
    514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6\
    F44C42E9A637ED6B0BFF5CB6F406B7EDEE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3D\
    C2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB\
    9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3BE39E772C180E8603\
    9B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510\
    15728E5A8AACAA68FFFFFFFFFFFFFFFF";
/// RFC 3526 §4.
const PRIME_3072: &str = "\
    FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22\
    514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6\
    F44C42E9A637ED6B0BFF5CB6F406B7EDEE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3D\
    C2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB\
    9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3BE39E772C180E8603\
    9B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510\
    15728E5A8AAAC42DAD33170D04507A33A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7D\
    B3970F85A6E1E4C7ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864\
    D87602733EC86A64521F2B18177B200CBBE117577A615D6C770988C0BAD946E208E24FA074E5AB31\
    43DB5BFCE0FD108E4B82D120A93AD2CAFFFFFFFFFFFFFFFF";
/// RFC 3526 §5.
const PRIME_4096: &str = "\
    FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22\
    514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6\
    F44C42E9A637ED6B0BFF5CB6F406B7EDEE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3D\
    C2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB\
    9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3BE39E772C180E8603\
    9B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510\
    15728E5A8AAAC42DAD33170D04507A33A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7D\
    B3970F85A6E1E4C7ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864\
    D87602733EC86A64521F2B18177B200CBBE117577A615D6C770988C0BAD946E208E24FA074E5AB31\
    43DB5BFCE0FD108E4B82D120A92108011A723C12A787E6D788719A10BDBA5B2699C327186AF4E23C\
    1A946834B6150BDA2583E9CA2AD44CE8DBBBC2DB04DE8EF92E8EFC141FBECAA6287C59474E6BC05D\
    99B2964FA090C3A2233BA186515BE7ED1F612970CEE2D7AFB81BDD762170481CD0069127D5B05AA9\
    93B4EA988D8FDDC186FFB7DC90A6C08F4DF435C934063199FFFFFFFFFFFFFFFF";

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::digest::{SHA256, digest};

    const ALL: [Modp; 3] = [Modp::Modp2048, Modp::Modp3072, Modp::Modp4096];

    fn digest_of(octets: &[u8]) -> String {
        digest(&SHA256, octets).as_ref().iter().map(|b| format!("{b:02x}")).collect()
    }

    /// SHA-256 of the public value of the exponent 0x0102..28, of that of 0x0707..07 (40 octets
    /// each), and of what the two have in common, by Python's own arithmetic with the primes of
    /// RFC 3526 computed from their formula.
    #[test]
    fn another_arithmetic_agrees() {
        let known = [
            [
                "3ae26e14ac54744ba175a8b2c76205eebfc4fdb8314c4c40ae2ea47b3c0e28a3",
                "04f95ffdb1cfd3f0fd842fd01274883d8b00eee49a164641da931ddf96aa829b",
                "14c7e7d0a2f318eb07d9a69696c95183ea6975f7a0a91928d1258ffb673f34b0",
            ],
            [
                "71cd9b27251732586c6a41ac0f0a75656b6a8230b1ec2452d3bca7a4da036034",
                "cd85f55516effb694b32033cb3e8fd99394c662b91dd4acc79f55aa6b9bfc310",
                "37dd8b15d639be6a4332542c0ec91ef769239addeb35cfc0277e274bec003113",
            ],
            [
                "fc916cbbbf2d65c638734f4328faf64611b7f43fc26016c21cb8024c5eeac22d",
                "0bbd5efa12c4406080b7324439d6d376e56d7cb1852f044eefbac00abc528c7d",
                "ad93d6554fe96c37c22ba8cfcabab7fceb59a43c8f367b16734095ab28f8f15f",
            ],
        ];
        let ours: Vec<u8> = (1..=40).collect();
        let theirs = [7; 40];
        for (group, [own, peer, common]) in ALL.into_iter().zip(known) {
            let public = group.public(&theirs).unwrap();
            assert_eq!(digest_of(&group.public(&ours).unwrap()), own);
            assert_eq!(digest_of(&public), peer);
            assert_eq!(digest_of(&group.agree(&ours, &public).unwrap()), common);
        }
    }

    /// CVE-2005-3672 and its like: values that make the secret known to everybody.
    #[test]
    fn values_out_of_range_are_refused() {
        for group in ALL {
            let exponent = vec![5; group.exponent_len()];
            let prime = BoxedUint::from_be_hex(group.prime(), group.bits()).unwrap();
            let mut small = vec![0; group.len()];
            for low in [0, 1] {
                *small.last_mut().unwrap() = low;
                assert_eq!(group.agree(&exponent, &small), Err(CryptoFailure), "{group:?}");
            }
            *small.last_mut().unwrap() = 2;
            assert!(group.agree(&exponent, &small).is_ok());
            let one = BoxedUint::one_with_precision(group.bits());
            let last = prime.wrapping_sub(&one);
            for high in [&last, &prime, &prime.wrapping_add(&one)] {
                assert_eq!(group.agree(&exponent, &high.to_be_bytes()), Err(CryptoFailure));
            }
            assert!(group.agree(&exponent, &last.wrapping_sub(&one).to_be_bytes()).is_ok());
        }
    }
}
