//! AES-CBC with an HMAC, for peers that can do nothing better (RFC 3602, RFC 4868, RFC 7296 §3.14):
//! encrypt, then MAC; on the way in the MAC first, and only then a look at the padding.

use aws_lc_rs::cipher::{
    AES_128, AES_256, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext,
    UnboundCipherKey,
};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use sa::Integrity;

use super::CryptoFailure;
use crate::message::{InvalidMessage, Sealed};

/// Seals.
#[derive(Debug)]
pub(super) struct CbcSealer {
    key: EncryptingKey,
    mac: Mac,
}

/// Opens.
#[derive(Debug)]
pub(super) struct CbcOpener {
    key: DecryptingKey,
    mac: Mac,
}

#[derive(Debug)]
struct Mac {
    key: hmac::Key,
    icv_len: usize,
}

impl CbcSealer {
    pub(super) fn new(integrity: Integrity, key: &[u8], mac: &[u8]) -> Result<Self, CryptoFailure> {
        let key = EncryptingKey::cbc(unbound(key)?).map_err(|_| CryptoFailure)?;
        Ok(Self { key, mac: Mac::new(integrity, mac) })
    }

    /// Appends IV, ciphertext and ICV to `message`, all of which the ICV covers. `number` must
    /// never come twice.
    pub(super) fn seal(
        &self,
        message: &mut Vec<u8>,
        number: u64,
        plaintext: &[u8],
    ) -> Result<(), CryptoFailure> {
        // An IV must not be foreseen; an encrypted number is not (NIST SP 800-38A appendix C).
        let mut iv = [0; BLOCK];
        iv[BLOCK - 8..].copy_from_slice(&number.to_be_bytes());
        self.encrypt([0; BLOCK], &mut iv)?;
        let mut text = plaintext.to_vec();
        let padding = padding(plaintext.len());
        text.resize(plaintext.len() + padding, 0);
        text.push(u8::try_from(padding).map_err(|_| CryptoFailure)?);
        self.encrypt(iv, &mut text)?;
        message.extend_from_slice(&iv);
        message.extend_from_slice(&text);
        let icv = hmac::sign(&self.mac.key, message);
        message.extend_from_slice(icv.as_ref().get(..self.mac.icv_len).ok_or(CryptoFailure)?);
        Ok(())
    }

    fn encrypt(&self, iv: [u8; BLOCK], text: &mut [u8]) -> Result<(), CryptoFailure> {
        let context = EncryptionContext::Iv128(FixedLength::from(iv));
        self.key.less_safe_encrypt(text, context).map_err(|_| CryptoFailure)?;
        Ok(())
    }
}

impl CbcOpener {
    pub(super) fn new(integrity: Integrity, key: &[u8], mac: &[u8]) -> Result<Self, CryptoFailure> {
        let key = DecryptingKey::cbc(unbound(key)?).map_err(|_| CryptoFailure)?;
        Ok(Self { key, mac: Mac::new(integrity, mac) })
    }

    /// The payloads inside, without padding.
    pub(super) fn open(&self, sealed: &Sealed<'_>) -> Result<Vec<u8>, InvalidMessage> {
        let end = sealed
            .octets
            .len()
            .checked_sub(self.mac.icv_len)
            .ok_or(InvalidMessage::Missing("icv"))?;
        let (covered, icv) =
            sealed.octets.split_at_checked(end).ok_or(InvalidMessage::Missing("icv"))?;
        let mut mac = hmac::Context::with_key(&self.mac.key);
        mac.update(sealed.aad);
        mac.update(covered);
        let tag = mac.sign();
        let expected = tag.as_ref().get(..self.mac.icv_len).ok_or(InvalidMessage::Integrity)?;
        verify_slices_are_equal(expected, icv).map_err(|_| InvalidMessage::Integrity)?;
        // What follows is the peer's own work: nobody else can ask what its padding is.
        let (iv, text) =
            covered.split_first_chunk::<BLOCK>().ok_or(InvalidMessage::Missing("iv"))?;
        let mut text = text.to_vec();
        let context = DecryptionContext::Iv128(FixedLength::from(*iv));
        self.key.decrypt(&mut text, context).map_err(|_| InvalidMessage::Value("ciphertext"))?;
        Ok(text)
    }
}

impl Mac {
    fn new(integrity: Integrity, key: &[u8]) -> Self {
        let algorithm = match integrity {
            Integrity::HmacSha2_256_128 => hmac::HMAC_SHA256,
            Integrity::HmacSha2_384_192 => hmac::HMAC_SHA384,
            Integrity::HmacSha2_512_256 => hmac::HMAC_SHA512,
        };
        Self { key: hmac::Key::new(algorithm, key), icv_len: integrity.icv_len() }
    }
}

/// Octets of padding that `len` octets of payloads need before Pad Length.
pub(super) fn padding(len: usize) -> usize {
    (len + 1).next_multiple_of(BLOCK) - (len + 1)
}

fn unbound(key: &[u8]) -> Result<UnboundCipherKey, CryptoFailure> {
    let algorithm = if key.len() == 16 { &AES_128 } else { &AES_256 };
    UnboundCipherKey::new(algorithm, key).map_err(|_| CryptoFailure)
}

/// Octets of a block of AES, which is also the IV's length.
pub(super) const BLOCK: usize = 16;
