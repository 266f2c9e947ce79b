//! The AEADs of ESP: AES-GCM with a 16-octet ICV (RFC 4106) and ChaCha20-Poly1305 (RFC 7634).
//!
//! Two libraries do the work; which one is decided when the plane starts. Both give the same
//! octets, and the tests hold them against each other.

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes128Gcm, Aes256Gcm};
use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use sa::{EspCipher, EspKey};

/// Which library seals and opens.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Provider {
    /// AWS-LC: assembler for each CPU generation, constant time on those without AES instructions
    /// as well. The faster everywhere we measured.
    #[default]
    AwsLc,
    /// RustCrypto's AES-GCM, without C or assembler. ChaCha20-Poly1305 stays with AWS-LC.
    RustCrypto,
    /// Nobody: packets go as they are, behind an ICV of zeros. What a benchmark holds the others
    /// against; only where `tests/unsealed` compiles this file, never in the daemon.
    #[cfg(feature = "null-cipher")]
    Null,
}

impl Provider {
    /// Those that a node may choose from.
    pub const CANDIDATES: [Self; 2] = [Self::AwsLc, Self::RustCrypto];

    /// Seals so many packets of ordinary size with AES-128-GCM and throws them away: whoever has a
    /// clock can see which library is the faster on this CPU.
    pub fn try_out(self, packets: u64) {
        let cipher = EspCipher::Aes128Gcm16;
        let Some(key) = EspKey::new(cipher, &[0; 20]) else { return };
        let Some(key) = AeadKey::new(self, cipher, &key) else { return };
        let mut packet = [0; 1400];
        for number in 0..packets {
            let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
            let nonce = [0, 0, 0, 0, a, b, c, d, e, f, g, h];
            let _ = std::hint::black_box(key.seal(nonce, &[0; 8], &mut packet));
        }
    }

    /// The name that `status` shows.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AwsLc => "aws-lc",
            Self::RustCrypto => "rustcrypto",
            #[cfg(feature = "null-cipher")]
            Self::Null => "null",
        }
    }
}

/// A key ready for use. Wiped when dropped, by the library that holds it.
pub(crate) enum AeadKey {
    AwsLc(Box<LessSafeKey>),
    Aes128(Box<Aes128Gcm>),
    Aes256(Box<Aes256Gcm>),
    #[cfg(feature = "null-cipher")]
    Null,
}

/// The only failure there is: the ICV does not match, or the library refused the lengths.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Unauthentic;

impl AeadKey {
    /// `None` if the key's length is not the cipher's.
    pub(crate) fn new(provider: Provider, cipher: EspCipher, key: &EspKey) -> Option<Self> {
        let aws_lc = |algorithm| {
            let key = UnboundKey::new(algorithm, key.key()).ok()?;
            Some(Self::AwsLc(Box::new(LessSafeKey::new(key))))
        };
        match (provider, cipher) {
            (Provider::RustCrypto, EspCipher::Aes128Gcm16) => {
                Some(Self::Aes128(Box::new(Aes128Gcm::new_from_slice(key.key()).ok()?)))
            }
            (Provider::RustCrypto, EspCipher::Aes256Gcm16) => {
                Some(Self::Aes256(Box::new(Aes256Gcm::new_from_slice(key.key()).ok()?)))
            }
            #[cfg(feature = "null-cipher")]
            (Provider::Null, _) => Some(Self::Null),
            (Provider::AwsLc, EspCipher::Aes128Gcm16) => aws_lc(&AES_128_GCM),
            (Provider::AwsLc, EspCipher::Aes256Gcm16) => aws_lc(&AES_256_GCM),
            (_, EspCipher::ChaCha20Poly1305) => aws_lc(&CHACHA20_POLY1305),
            (_, EspCipher::Aes128Cbc(_) | EspCipher::Aes256Cbc(_)) => None,
        }
    }

    /// Encrypts `text` in place and returns the ICV.
    #[inline]
    pub(crate) fn seal(
        &self,
        nonce: [u8; 12],
        aad: &[u8],
        text: &mut [u8],
    ) -> Result<[u8; ICV], Unauthentic> {
        let icv = match self {
            Self::AwsLc(key) => {
                let nonce = Nonce::assume_unique_for_key(nonce);
                let tag = key.seal_in_place_separate_tag(nonce, Aad::from(aad), text);
                return tag.map_err(|_| Unauthentic)?.as_ref().try_into().map_err(|_| Unauthentic);
            }
            Self::Aes128(key) => key.encrypt_inout_detached(&nonce.into(), aad, text.into()),
            Self::Aes256(key) => key.encrypt_inout_detached(&nonce.into(), aad, text.into()),
            #[cfg(feature = "null-cipher")]
            Self::Null => return Ok([0; ICV]),
        };
        icv.map(Into::into).map_err(|_| Unauthentic)
    }

    /// Checks the ICV and decrypts `text` in place. After an error `text` holds no plaintext.
    #[inline]
    pub(crate) fn open(
        &self,
        nonce: [u8; 12],
        aad: &[u8],
        text: &mut [u8],
        icv: [u8; ICV],
    ) -> Result<(), Unauthentic> {
        let opened = match self {
            Self::AwsLc(key) => {
                let nonce = Nonce::assume_unique_for_key(nonce);
                key.open_in_place_separate_tag(nonce, Aad::from(aad), &icv, text).is_ok()
            }
            Self::Aes128(key) => {
                key.decrypt_inout_detached(&nonce.into(), aad, text.into(), &icv.into()).is_ok()
            }
            Self::Aes256(key) => {
                key.decrypt_inout_detached(&nonce.into(), aad, text.into(), &icv.into()).is_ok()
            }
            #[cfg(feature = "null-cipher")]
            Self::Null => true,
        };
        if opened {
            return Ok(());
        }
        // AWS-LC decrypts before it has compared; what it leaves behind is nobody's to see.
        text.fill(0);
        Err(Unauthentic)
    }
}

/// Octets of the ICV of every cipher here.
pub(crate) const ICV: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hex(s: &str) -> Vec<u8> {
        let digits: Vec<u8> = s.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    fn key(provider: Provider, cipher: EspCipher, key: &[u8]) -> AeadKey {
        let octets = [key, &[0; 4]].concat();
        AeadKey::new(provider, cipher, &EspKey::new(cipher, &octets).unwrap()).unwrap()
    }

    fn seal_and_open(
        cipher: EspCipher,
        key_octets: &str,
        nonce: &str,
        aad: &str,
        plain: &str,
        sealed: &str,
        icv: &str,
    ) {
        for provider in [Provider::AwsLc, Provider::RustCrypto] {
            let key = key(provider, cipher, &hex(key_octets));
            let nonce = hex(nonce).try_into().unwrap();
            let mut text = hex(plain);
            let tag = key.seal(nonce, &hex(aad), &mut text).unwrap();
            assert_eq!((text.as_slice(), tag.as_slice()), (&hex(sealed)[..], &hex(icv)[..]));
            key.open(nonce, &hex(aad), &mut text, tag).unwrap();
            assert_eq!(text, hex(plain));
        }
    }

    /// McGrew and Viega, "The Galois/Counter Mode of Operation", test case 4 (96-bit IV, AAD, and
    /// a text that is no multiple of the block): the vectors that RFC 4106 §9 refers to.
    #[test]
    fn gcm_test_case_4() {
        seal_and_open(
            EspCipher::Aes128Gcm16,
            "feffe9928665731c6d6a8f9467308308",
            "cafebabefacedbaddecaf888",
            "feedfacedeadbeeffeedfacedeadbeefabaddad2",
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf\
             0e2449a6b525b16aedf5aa0de657ba637b39",
            "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f\
             6a5aac84aa051ba30b396a0aac973d58e091",
            "5bc94fbc3221a5db94fae95ae7121a47",
        );
    }

    /// The same, test case 16: AES-256.
    #[test]
    fn gcm_test_case_16() {
        seal_and_open(
            EspCipher::Aes256Gcm16,
            "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
            "cafebabefacedbaddecaf888",
            "feedfacedeadbeeffeedfacedeadbeefabaddad2",
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf\
             0e2449a6b525b16aedf5aa0de657ba637b39",
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b0\
             8b1056828838c5f61e6393ba7a0abcc9f662",
            "76fc6ece0f4e1768cddf8853bb2d551b",
        );
    }

    proptest! {
        /// RUSTSEC-2023-0096.
        #[test]
        fn both_libraries_agree(
            long in any::<bool>(),
            key_octets in any::<[u8; 32]>(),
            nonce in any::<[u8; 12]>(),
            aad in proptest::collection::vec(any::<u8>(), 0..13),
            plain in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let (cipher, len) =
                if long { (EspCipher::Aes256Gcm16, 32) } else { (EspCipher::Aes128Gcm16, 16) };
            let a = key(Provider::AwsLc, cipher, &key_octets[..len]);
            let b = key(Provider::RustCrypto, cipher, &key_octets[..len]);
            let (mut x, mut y) = (plain.clone(), plain.clone());
            let icv = a.seal(nonce, &aad, &mut x).unwrap();
            prop_assert_eq!(b.seal(nonce, &aad, &mut y).unwrap(), icv);
            prop_assert_eq!(&x, &y);
            // Each opens what the other sealed, and neither opens it damaged.
            let mut damaged = icv;
            damaged[3] ^= 0x10;
            for key in [&a, &b] {
                let mut text = x.clone();
                prop_assert_eq!(key.open(nonce, &aad, &mut text, icv), Ok(()));
                prop_assert_eq!(&text, &plain);
                let mut text = x.clone();
                prop_assert_eq!(key.open(nonce, &aad, &mut text, damaged), Err(Unauthentic));
                prop_assert!(text.iter().all(|b| *b == 0));
            }
        }
    }
}
