//! Public keys and their forms (RFC 3110, RFC 4025 §2.6).

use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// An RSA public key that passed every check of this module: an odd modulus of 512 to 8192 bits,
/// an odd exponent from 3 to 2^32, neither with leading zeros.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RsaKey {
    exponent: Vec<u8>,
    modulus: Vec<u8>,
}

/// A public key of any kind a record can carry.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum PublicKey {
    /// RSA (RFC 3110).
    Rsa(RsaKey),
    /// ECDSA on P-256: the point's coordinates, x before y (RFC 8005 §4.6, RFC 6605 §4).
    EcdsaP256([u8; 64]),
    /// ECDSA on P-384: the point's coordinates, x before y.
    EcdsaP384([u8; 96]),
    /// Ed25519 (RFC 9373, RFC 8080 §3).
    Ed25519([u8; 32]),
    /// Any other IPSECKEY key, read and written but not used.
    Other {
        /// The algorithm's number in the IPSECKEY registry: 1 DSA, 3 ECDSA, 4 EdDSA.
        algorithm: u8,
        /// The key as it stands in the record; never empty.
        octets: Vec<u8>,
    },
}

/// Why a key was refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum KeyError {
    /// Too short to hold what it announces.
    Truncated,
    /// The exponent has no octets.
    ExponentEmpty,
    /// The exponent starts with a zero octet, which RFC 3110 §2 forbids.
    ExponentLeadingZero,
    /// The exponent is even, or below 3.
    ExponentValue,
    /// The exponent is above 2^32.
    ExponentTooLarge,
    /// There is no modulus.
    ModulusEmpty,
    /// The modulus starts with a zero octet, which RFC 3110 §2 forbids.
    ModulusLeadingZero,
    /// The modulus is even.
    ModulusEven,
    /// The modulus has fewer than 512 bits.
    ModulusTooShort,
    /// The modulus has more than 8192 bits: checking a signature would cost too much.
    ModulusTooLong,
    /// It is of no length that its algorithm has.
    Length,
    /// Two keys stand one after the other; a record holds one.
    TwoKeys,
    /// The text is not base64.
    Base64,
    /// The text starts with `0s`, which belongs in ipsec.conf and not in DNS.
    ZeroS,
    /// Not PEM of a public key, or of a private RSA key.
    Pem,
}

/// Why a well-formed key authenticates nobody unless configured so.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Weakness {
    /// Below 2048 bits. No configuration makes it count.
    ShortModulus,
    /// Exponent below 65537 (FreeS/WAN's was always 3): forgeable where padding is checked
    /// carelessly.
    SmallExponent,
}

impl RsaKey {
    /// Takes exponent and modulus, big-endian.
    ///
    /// # Errors
    /// Says which of the two is wrong, and how.
    pub fn new(exponent: &[u8], modulus: &[u8]) -> Result<Self, KeyError> {
        check_exponent(exponent)?;
        check_modulus(modulus)?;
        if holds_second_key(exponent, modulus) {
            return Err(KeyError::TwoKeys);
        }
        Ok(Self { exponent: exponent.to_vec(), modulus: modulus.to_vec() })
    }

    /// Reads exponent length, exponent, modulus (RFC 3110 §2). The length is one octet, or zero
    /// and two octets.
    ///
    /// # Errors
    /// Says what is wrong with the octets.
    pub fn from_rfc3110(octets: &[u8]) -> Result<Self, KeyError> {
        let (len, rest) = match octets {
            [0, high, low, rest @ ..] => (usize::from(u16::from_be_bytes([*high, *low])), rest),
            [] | [0, ..] => return Err(KeyError::Truncated),
            [len, rest @ ..] => (usize::from(*len), rest),
        };
        let (exponent, modulus) = rest.split_at_checked(len).ok_or(KeyError::Truncated)?;
        Self::new(exponent, modulus)
    }

    /// Writes exponent length, exponent, modulus (RFC 3110 §2).
    #[must_use]
    pub fn to_rfc3110(&self) -> Vec<u8> {
        let mut octets = Vec::with_capacity(1 + self.exponent.len() + self.modulus.len());
        // At most five octets, by check_exponent.
        octets.push(u8::try_from(self.exponent.len()).unwrap_or(0));
        octets.extend_from_slice(&self.exponent);
        octets.extend_from_slice(&self.modulus);
        octets
    }

    /// Reads the base64 of the RFC 3110 form, blanks anywhere (RFC 4322 §5.2.1), with or without
    /// padding.
    ///
    /// # Errors
    /// [`KeyError::Base64`], [`KeyError::ZeroS`], or what is wrong with the octets.
    pub fn from_base64(text: &[u8]) -> Result<Self, KeyError> {
        Self::from_rfc3110(&decode_base64(text)?)
    }

    /// The base64 of the RFC 3110 form: `AwEAA…`, or `AQ…` for exponent 3.
    #[must_use]
    pub fn to_base64(&self) -> String {
        BASE64.encode(self.to_rfc3110())
    }

    /// The first nine characters of the base64, by which the classic tools name a key.
    #[must_use]
    pub fn key_id(&self) -> String {
        let mut id = self.to_base64();
        id.truncate(9);
        id
    }

    /// Big-endian public exponent without leading zeros.
    #[must_use]
    pub fn exponent(&self) -> &[u8] {
        &self.exponent
    }

    /// The public exponent as a number.
    #[must_use]
    pub fn exponent_value(&self) -> u64 {
        self.exponent.iter().fold(0, |value, octet| value << 8 | u64::from(*octet))
    }

    /// Big-endian modulus without leading zeros.
    #[must_use]
    pub fn modulus(&self) -> &[u8] {
        &self.modulus
    }

    /// The modulus's length in bits.
    #[must_use]
    pub fn bits(&self) -> usize {
        bits(&self.modulus)
    }

    /// Why it should authenticate nobody, if so; the graver reason first.
    #[must_use]
    pub fn weakness(&self) -> Option<Weakness> {
        if self.bits() < SAFE_BITS {
            Some(Weakness::ShortModulus)
        } else if self.exponent_value() < SAFE_EXPONENT {
            Some(Weakness::SmallExponent)
        } else {
            None
        }
    }
}

impl fmt::Debug for RsaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RsaKey({} {} bits e={})", self.key_id(), self.bits(), self.exponent_value())
    }
}

impl PublicKey {
    /// The RSA key, if it is one.
    #[must_use]
    pub fn rsa(&self) -> Option<&RsaKey> {
        match self {
            Self::Rsa(key) => Some(key),
            Self::EcdsaP256(_) | Self::EcdsaP384(_) | Self::Ed25519(_) | Self::Other { .. } => None,
        }
    }

    /// Reads a key as it stands in an IPSECKEY record of this algorithm (RFC 4025 §2.4, §2.6).
    ///
    /// # Errors
    /// Says what is wrong with the octets. Keys of algorithms or curves that nobody here verifies
    /// with are [`Self::Other`].
    pub fn from_octets(algorithm: u8, octets: &[u8]) -> Result<Self, KeyError> {
        let other = || Self::Other { algorithm, octets: octets.to_vec() };
        match (algorithm, octets.len()) {
            (_, 0) => Err(KeyError::Truncated),
            (ALGORITHM_RSA, _) => RsaKey::from_rfc3110(octets).map(Self::Rsa),
            (ALGORITHM_ECDSA, 64) => {
                Ok(octets.try_into().map_or_else(|_| other(), Self::EcdsaP256))
            }
            (ALGORITHM_ECDSA, 96) => {
                Ok(octets.try_into().map_or_else(|_| other(), Self::EcdsaP384))
            }
            (ALGORITHM_EDDSA, 32) => Ok(octets.try_into().map_or_else(|_| other(), Self::Ed25519)),
            // Ed448 (RFC 8080 §3).
            (ALGORITHM_EDDSA, 57) => Ok(other()),
            (ALGORITHM_ECDSA | ALGORITHM_EDDSA, _) => Err(KeyError::Length),
            _ => Ok(other()),
        }
    }

    /// Reads the base64 of a record's key. Of which kind it is, its length tells: an RSA key of so
    /// few octets as the others have would be weaker than any that counts.
    ///
    /// # Errors
    /// As [`RsaKey::from_base64`].
    pub fn from_base64(text: &[u8]) -> Result<Self, KeyError> {
        let octets = decode_base64(text)?;
        let algorithm = match octets.len() {
            32 => ALGORITHM_EDDSA,
            64 | 96 => ALGORITHM_ECDSA,
            _ => ALGORITHM_RSA,
        };
        Self::from_octets(algorithm, &octets)
    }

    /// The algorithm's number in the IPSECKEY registry (RFC 4025 §2.4): 2 for RSA.
    #[must_use]
    pub fn algorithm(&self) -> u8 {
        match self {
            Self::Rsa(_) => ALGORITHM_RSA,
            Self::EcdsaP256(_) | Self::EcdsaP384(_) => ALGORITHM_ECDSA,
            Self::Ed25519(_) => ALGORITHM_EDDSA,
            Self::Other { algorithm, .. } => *algorithm,
        }
    }

    /// The key as it stands in an IPSECKEY record (RFC 4025 §2.6).
    #[must_use]
    pub fn octets(&self) -> Vec<u8> {
        match self {
            Self::Rsa(key) => key.to_rfc3110(),
            Self::EcdsaP256(point) => point.to_vec(),
            Self::EcdsaP384(point) => point.to_vec(),
            Self::Ed25519(point) => point.to_vec(),
            Self::Other { octets, .. } => octets.clone(),
        }
    }

    /// The base64 of [`Self::octets`].
    #[must_use]
    pub fn to_base64(&self) -> String {
        BASE64.encode(self.octets())
    }

    /// The first nine characters of the base64, by which the classic tools name a key.
    #[must_use]
    pub fn key_id(&self) -> String {
        let mut id = self.to_base64();
        id.truncate(9);
        id
    }

    /// The name of the algorithm, as people know it.
    #[must_use]
    pub fn algorithm_name(&self) -> &'static str {
        match self {
            Self::EcdsaP256(_) => "ECDSA P-256",
            Self::EcdsaP384(_) => "ECDSA P-384",
            Self::Ed25519(_) => "Ed25519",
            Self::Rsa(_) => "RSA",
            Self::Other { algorithm: 1, .. } => "DSA",
            Self::Other { algorithm: ALGORITHM_ECDSA, .. } => "ECDSA",
            Self::Other { algorithm: ALGORITHM_EDDSA, .. } => "EdDSA",
            Self::Other { .. } => "unknown algorithm",
        }
    }
}

impl From<RsaKey> for PublicKey {
    fn from(key: RsaKey) -> Self {
        Self::Rsa(key)
    }
}

impl KeyError {
    /// One clause that names the field.
    #[must_use]
    pub fn why(self) -> &'static str {
        match self {
            Self::Truncated => "key: shorter than it announces",
            Self::ExponentEmpty => "key: no exponent",
            Self::ExponentLeadingZero => "key: exponent starts with a zero octet",
            Self::ExponentValue => "key: exponent is even or below 3",
            Self::ExponentTooLarge => "key: exponent above 2^32",
            Self::ModulusEmpty => "key: no modulus",
            Self::ModulusLeadingZero => "key: modulus starts with a zero octet",
            Self::ModulusEven => "key: modulus is even",
            Self::ModulusTooShort => "key: modulus below 512 bits",
            Self::ModulusTooLong => "key: modulus above 8192 bits",
            Self::Length => "key: of no length that its algorithm has",
            Self::TwoKeys => "key: two keys in one record",
            Self::Base64 => "key: not base64",
            Self::ZeroS => "key: starts with 0s, which belongs in ipsec.conf and not in DNS",
            Self::Pem => "not PEM of a public key",
        }
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.why())
    }
}

impl std::error::Error for KeyError {}

/// Decodes base64 with blanks anywhere.
pub(crate) fn decode_base64(text: &[u8]) -> Result<Vec<u8>, KeyError> {
    let solid = text.iter().copied().filter(|b| !is_blank(*b));
    let bare: Vec<u8> = solid.take(MAX_BASE64 + 1).collect();
    if bare.is_empty() {
        return Err(KeyError::Truncated);
    }
    if bare.starts_with(b"0sA") {
        return Err(KeyError::ZeroS);
    }
    if bare.len() > MAX_BASE64 {
        return Err(KeyError::ModulusTooLong);
    }
    BASE64.decode(&bare).map_err(|_| KeyError::Base64)
}

pub(crate) fn encode_base64(octets: &[u8]) -> String {
    BASE64.encode(octets)
}

/// What separates fields (RFC 4322 §5.2).
pub(crate) fn is_blank(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\r' | b'\n')
}

fn check_exponent(exponent: &[u8]) -> Result<(), KeyError> {
    match exponent {
        [] => Err(KeyError::ExponentEmpty),
        [0] => Err(KeyError::ExponentValue),
        [0, ..] => Err(KeyError::ExponentLeadingZero),
        [1] => Err(KeyError::ExponentValue),
        // 2^32 itself is even, so four octets hold every value that is allowed.
        [_, _, _, _, _, ..] => Err(KeyError::ExponentTooLarge),
        [.., last] if last & 1 == 0 => Err(KeyError::ExponentValue),
        _ => Ok(()),
    }
}

fn check_modulus(modulus: &[u8]) -> Result<(), KeyError> {
    match modulus {
        [] => Err(KeyError::ModulusEmpty),
        [0, ..] => Err(KeyError::ModulusLeadingZero),
        [.., last] if last & 1 == 0 => Err(KeyError::ModulusEven),
        _ if bits(modulus) < MIN_BITS => Err(KeyError::ModulusTooShort),
        _ if bits(modulus) > MAX_BITS => Err(KeyError::ModulusTooLong),
        _ => Ok(()),
    }
}

/// Two keys of one size and exponent, written one after the other, read as a single odd modulus
/// of an odd length. Real moduli have a whole number of 64-bit words, or (rsasigkey) of 16 bits,
/// where this mistakes one key in 2^18.
fn holds_second_key(exponent: &[u8], modulus: &[u8]) -> bool {
    if modulus.len().is_multiple_of(8) {
        return false;
    }
    let head = 1 + exponent.len();
    let Some(both) = modulus.len().checked_sub(head) else { return false };
    let Some((first, rest)) = modulus.split_at_checked(both / 2) else { return false };
    let Some((second_head, second)) = rest.split_at_checked(head) else { return false };
    let [len, second_exponent @ ..] = second_head else { return false };
    usize::from(*len) == exponent.len()
        && second_exponent == exponent
        && first.len() == second.len()
        && check_modulus(first).is_ok()
        && check_modulus(second).is_ok()
}

/// Bits of a big-endian number without leading zeros.
fn bits(number: &[u8]) -> usize {
    let unused = number.first().map_or(0, |b| b.leading_zeros());
    (number.len() * 8).saturating_sub(usize::try_from(unused).unwrap_or(0))
}

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// IPSECKEY algorithm type of RSA (RFC 4025 §2.4).
pub(crate) const ALGORITHM_RSA: u8 = 2;
/// ECDSA's (RFC 8005 §6).
const ALGORITHM_ECDSA: u8 = 3;
/// EdDSA's (RFC 9373 §2).
const ALGORITHM_EDDSA: u8 = 4;

/// What FreeS/WAN's Pluto read at least; smaller ones are not keys but mistakes.
const MIN_BITS: usize = 512;

/// A public operation grows with the square of the length, and strangers choose it.
const MAX_BITS: usize = 8192;

/// The least modulus that authenticates anybody; also the library's own limit.
const SAFE_BITS: usize = 2048;

/// The least exponent that authenticates anybody by default.
const SAFE_EXPONENT: u64 = 65537;

/// Base64 of 8192 bits with the longest header, rounded up.
const MAX_BASE64: usize = 1400;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::{Duration, Instant};

    /// An odd number of `octets` octets with its top bit set, that no library would factor.
    pub(crate) fn modulus(octets: usize, salt: u8) -> Vec<u8> {
        let mut n: Vec<u8> = (0..=250).cycle().take(octets).map(|i: u8| i ^ salt).collect();
        n[0] |= 0x80;
        n[octets - 1] |= 1;
        n
    }

    pub(crate) fn key(bits: usize, salt: u8) -> RsaKey {
        RsaKey::new(&[1, 0, 1], &modulus(bits / 8, salt)).unwrap()
    }

    pub(crate) fn key_e3(bits: usize, salt: u8) -> RsaKey {
        RsaKey::new(&[3], &modulus(bits / 8, salt)).unwrap()
    }

    /// The best of some runs: the machine may be busy with others.
    pub(crate) fn quickest<T>(work: impl Fn() -> T) -> Duration {
        let run = |_| {
            let start = Instant::now();
            std::hint::black_box(work());
            start.elapsed()
        };
        (0..5).map(run).min().unwrap()
    }

    /// Keys as they occur: any allowed exponent, any allowed size.
    pub(crate) fn any_key() -> impl Strategy<Value = RsaKey> {
        let exponent = prop_oneof![
            Just(vec![3]),
            Just(vec![17]),
            Just(vec![1, 0, 1]),
            Just(vec![0xff, 0xff, 0xff, 0xff])
        ];
        (exponent, 64usize..=1024, any::<u8>())
            .prop_map(|(e, octets, salt)| RsaKey::new(&e, &modulus(octets, salt)).unwrap())
    }

    fn blob(header: &[u8], modulus: &[u8]) -> Vec<u8> {
        [header, modulus].concat()
    }

    /// The table of keys that strangers send: each is refused, or read and called weak, at once.
    /// CVE-2026-14957.
    #[test]
    fn hostile_keys() {
        let good = modulus(256, 0);
        let even = [&good[..255], &[2]].concat();
        let zeros = vec![0; 256];
        let led = [&[0], &good[..]].concat();
        let rows: &[(&str, Vec<u8>, KeyError)] = &[
            ("length 0", vec![], KeyError::Truncated),
            ("long form without its length", vec![0], KeyError::Truncated),
            ("long form with half its length", vec![0, 1], KeyError::Truncated),
            ("long form of zero octets", blob(&[0, 0, 0], &good), KeyError::ExponentEmpty),
            ("exponent beyond the data", vec![200, 1, 2, 3], KeyError::Truncated),
            ("long exponent beyond the data", vec![0, 0xff, 0xff, 1], KeyError::Truncated),
            ("e = 0", blob(&[1, 0], &good), KeyError::ExponentValue),
            ("e = 1", blob(&[1, 1], &good), KeyError::ExponentValue),
            ("e = 2", blob(&[1, 2], &good), KeyError::ExponentValue),
            ("e = 65536", blob(&[3, 1, 0, 0], &good), KeyError::ExponentValue),
            ("e with a leading zero", blob(&[2, 0, 3], &good), KeyError::ExponentLeadingZero),
            ("e = 2^32 + 1", blob(&[5, 1, 0, 0, 0, 1], &good), KeyError::ExponentTooLarge),
            ("e of 255 octets", blob(&[255], &[3; 512]), KeyError::ExponentTooLarge),
            ("no modulus", vec![3, 1, 0, 1], KeyError::ModulusEmpty),
            ("n even", blob(&[3, 1, 0, 1], &even), KeyError::ModulusEven),
            ("n = 0", blob(&[3, 1, 0, 1], &zeros), KeyError::ModulusLeadingZero),
            ("n = 0, one octet", blob(&[3, 1, 0, 1], &[0]), KeyError::ModulusLeadingZero),
            ("n with a leading zero", blob(&[3, 1, 0, 1], &led), KeyError::ModulusLeadingZero),
            ("n of 8 bits", blob(&[1, 3], &[0xff]), KeyError::ModulusTooShort),
            ("n of 64 bits", blob(&[1, 3], &modulus(8, 0)), KeyError::ModulusTooShort),
            ("n of 511 bits", blob(&[1, 3], &[0x7f; 64]), KeyError::ModulusTooShort),
            ("n of 8208 bits", blob(&[1, 3], &modulus(1026, 0)), KeyError::ModulusTooLong),
            ("n of 64 kB", blob(&[1, 3], &modulus(65533, 0)), KeyError::ModulusTooLong),
            (
                "trailing octet that is even",
                blob(&[1, 3], &[&good[..], &[0]].concat()),
                KeyError::ModulusEven,
            ),
            (
                "two keys",
                [key(2048, 1).to_rfc3110(), key(2048, 2).to_rfc3110()].concat(),
                KeyError::TwoKeys,
            ),
            (
                "two keys, e = 3",
                [key_e3(2192, 1).to_rfc3110(), key_e3(2192, 2).to_rfc3110()].concat(),
                KeyError::TwoKeys,
            ),
        ];
        for (what, octets, error) in rows {
            assert_eq!(RsaKey::from_rfc3110(octets), Err(*error), "{what}");
            let took = quickest(|| RsaKey::from_rfc3110(octets));
            assert!(took < Duration::from_millis(1), "{what} took {took:?}");
        }
        for (what, octets, weakness) in [
            ("n of 512 bits", blob(&[3, 1, 0, 1], &modulus(64, 0)), Some(Weakness::ShortModulus)),
            ("n of 1024 bits", blob(&[3, 1, 0, 1], &modulus(128, 0)), Some(Weakness::ShortModulus)),
            ("n of 2047 bits", blob(&[3, 1, 0, 1], &[0x7f; 256]), Some(Weakness::ShortModulus)),
            ("e = 3", blob(&[1, 3], &good), Some(Weakness::SmallExponent)),
            ("e = 65537", blob(&[3, 1, 0, 1], &good), None),
            ("e = 65537 in the long form", blob(&[0, 0, 3, 1, 0, 1], &good), None),
            ("e = 2^32 - 1", blob(&[4, 0xff, 0xff, 0xff, 0xff], &good), None),
            ("n of 8192 bits", blob(&[3, 1, 0, 1], &modulus(1024, 0)), None),
        ] {
            assert_eq!(RsaKey::from_rfc3110(&octets).unwrap().weakness(), weakness, "{what}");
            let took = quickest(|| RsaKey::from_rfc3110(&octets));
            assert!(took < Duration::from_millis(1), "{what} took {took:?}");
        }
    }

    #[test]
    fn base64_of_strangers() {
        let key = key(2048, 0);
        let text = key.to_base64();
        assert!(text.starts_with("AwEAA"));
        assert!(key_e3(2048, 0).to_base64().starts_with("AQO"));
        assert_eq!(key.key_id(), &text[..9]);
        let spaced: String = text
            .chars()
            .enumerate()
            .flat_map(|(i, c)| if i % 7 == 0 { vec![' ', '\t', '\n', c] } else { vec![c] })
            .collect();
        assert_eq!(RsaKey::from_base64(spaced.as_bytes()), Ok(key.clone()));
        assert_eq!(RsaKey::from_base64(text.trim_end_matches('=').as_bytes()), Ok(key));
        for (bad, error) in [
            (format!("0s{text}"), KeyError::ZeroS),
            (format!("{text}="), KeyError::Base64),
            (text.replace('A', "\0"), KeyError::Base64),
            (text.replace('A', "*"), KeyError::Base64),
            (text[..text.len() - 3].to_owned(), KeyError::Base64),
            (String::new(), KeyError::Truncated),
            (" \t\n".to_owned(), KeyError::Truncated),
            ("A".repeat(1 << 16), KeyError::ModulusTooLong),
        ] {
            assert_eq!(RsaKey::from_base64(bad.as_bytes()), Err(error), "{bad:.20}");
        }
    }

    proptest! {
        #[test]
        fn forms_read_back(key in any_key()) {
            prop_assert_eq!(RsaKey::from_rfc3110(&key.to_rfc3110()), Ok(key.clone()));
            prop_assert_eq!(RsaKey::from_base64(key.to_base64().as_bytes()), Ok(key));
        }

        #[test]
        fn no_octets_panic(octets in proptest::collection::vec(any::<u8>(), 0..1200)) {
            if let Ok(key) = RsaKey::from_rfc3110(&octets) {
                prop_assert_eq!(RsaKey::from_rfc3110(&key.to_rfc3110()), Ok(key));
            }
            let _ = RsaKey::from_base64(&octets);
        }
    }
}
