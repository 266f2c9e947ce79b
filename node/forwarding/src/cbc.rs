//! AES-CBC with an HMAC, for peers that can do nothing better (RFC 3602, RFC 4868): correct, not
//! fast. Encrypt, then MAC; on the way in the MAC first, and only then a look at the padding.
//!
//! ```text
//!  SPI | Sequence Number | IV (16) | inner packet | Padding, Pad Length, Next Header | ICV
//!  <------ HEADER = 24 ----------->                                  RFC 4303 §2, RFC 3602 §3
//! ```

use aws_lc_rs::cipher::{
    AES_128, AES_256, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext,
    UnboundCipherKey,
};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use sa::{EspCipher, EspKey, Integrity};

use crate::aead::Unauthentic;

/// A key of one direction, ready for use.
pub(crate) struct CbcKey {
    encrypt: EncryptingKey,
    decrypt: DecryptingKey,
    mac: hmac::Key,
    icv_len: usize,
}

impl CbcKey {
    /// `None` for a cipher that is none of these, and if the key's length is not its own.
    pub(crate) fn new(cipher: EspCipher, key: &EspKey) -> Option<Self> {
        let integrity = cipher.integrity()?;
        let hash = match integrity {
            Integrity::HmacSha2_256_128 => hmac::HMAC_SHA256,
            Integrity::HmacSha2_384_192 => hmac::HMAC_SHA384,
            Integrity::HmacSha2_512_256 => hmac::HMAC_SHA512,
        };
        let aes = if cipher.key_len() == 16 { &AES_128 } else { &AES_256 };
        let unbound = || UnboundCipherKey::new(aes, key.key()).ok();
        Some(Self {
            encrypt: EncryptingKey::cbc(unbound()?).ok()?,
            decrypt: DecryptingKey::cbc(unbound()?).ok()?,
            mac: hmac::Key::new(hash, key.rest()),
            icv_len: integrity.icv_len(),
        })
    }

    /// Turns `slot` into an ESP packet; its plaintext, trailer included, is in place already.
    /// `number` must never come twice.
    pub(crate) fn seal(
        &self,
        spi: [u8; 4],
        number: u64,
        esn: bool,
        slot: &mut [u8],
    ) -> Result<(), Unauthentic> {
        let [h3, h2, h1, h0, l3, l2, l1, l0] = number.to_be_bytes();
        let end = slot.len().checked_sub(self.icv_len).ok_or(Unauthentic)?;
        let (covered, icv) = slot.split_at_mut_checked(end).ok_or(Unauthentic)?;
        let (header, text) = covered.split_first_chunk_mut::<HEADER>().ok_or(Unauthentic)?;
        // An IV must not be foreseen; an encrypted number is not (NIST SP 800-38A appendix C).
        let mut iv = [0, 0, 0, 0, 0, 0, 0, 0, h3, h2, h1, h0, l3, l2, l1, l0];
        self.encrypt([0; BLOCK], &mut iv)?;
        self.encrypt(iv, text)?;
        let [s3, s2, s1, s0] = spi;
        let (numbers, iv_at) = header.split_at_mut(HEADER - BLOCK);
        numbers.copy_from_slice(&[s3, s2, s1, s0, l3, l2, l1, l0]);
        iv_at.copy_from_slice(&iv);
        let tag = self.tag(covered, esn.then_some([h3, h2, h1, h0]));
        icv.copy_from_slice(tag.as_ref().get(..self.icv_len).ok_or(Unauthentic)?);
        Ok(())
    }

    /// Checks the ICV and decrypts in place; gives the plaintext's length, trailer included. `high`
    /// is the upper half of an extended sequence number (RFC 4303 §2.2.1).
    pub(crate) fn open(
        &self,
        datagram: &mut [u8],
        high: Option<[u8; 4]>,
    ) -> Result<usize, Unauthentic> {
        let end = datagram.len().checked_sub(self.icv_len).ok_or(Unauthentic)?;
        let (covered, icv) = datagram.split_at_mut_checked(end).ok_or(Unauthentic)?;
        let tag = self.tag(covered, high);
        let expected = tag.as_ref().get(..self.icv_len).ok_or(Unauthentic)?;
        verify_slices_are_equal(expected, icv).map_err(|_| Unauthentic)?;
        let (header, text) = covered.split_first_chunk_mut::<HEADER>().ok_or(Unauthentic)?;
        let iv: [u8; BLOCK] = *header.last_chunk().ok_or(Unauthentic)?;
        let context = DecryptionContext::Iv128(FixedLength::from(iv));
        self.decrypt.decrypt(text, context).map_err(|_| Unauthentic)?;
        Ok(text.len())
    }

    fn encrypt(&self, iv: [u8; BLOCK], text: &mut [u8]) -> Result<(), Unauthentic> {
        let context = EncryptionContext::Iv128(FixedLength::from(iv));
        self.encrypt.less_safe_encrypt(text, context).map_err(|_| Unauthentic)?;
        Ok(())
    }

    fn tag(&self, covered: &[u8], high: Option<[u8; 4]>) -> hmac::Tag {
        let mut mac = hmac::Context::with_key(&self.mac);
        mac.update(covered);
        if let Some(high) = high {
            mac.update(&high);
        }
        mac.sign()
    }

    /// Octets of the ICV.
    pub(crate) fn icv_len(&self) -> usize {
        self.icv_len
    }

    /// Octets of the ESP packet around `inner` octets.
    pub(crate) fn sealed_len(&self, inner: usize) -> usize {
        HEADER + (inner + 2).next_multiple_of(BLOCK) + self.icv_len
    }
}

/// The largest inner packet whose ESP packet has at most `outer` octets.
pub(crate) fn inner_len(integrity: Integrity, outer: usize) -> usize {
    let text = outer.saturating_sub(HEADER + integrity.icv_len());
    (text - text % BLOCK).saturating_sub(2)
}

/// Octets before the inner packet: SPI, sequence number, IV.
pub(crate) const HEADER: usize = 8 + BLOCK;
/// Octets of a block of AES.
const BLOCK: usize = 16;
