//! The encrypted payload's AEADs (RFC 5282, RFC 7634).

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};

use super::{CryptoFailure, Secret};
use crate::message::{InvalidMessage, Sealed};

/// An IKE SA's cipher; all have an IV of eight octets, a salt of four and an ICV of sixteen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum IkeCipher {
    Aes256Gcm16,
    Aes128Gcm16,
    ChaCha20Poly1305,
}

impl IkeCipher {
    /// All, best first.
    pub(crate) const ALL: [Self; 3] =
        [Self::Aes256Gcm16, Self::Aes128Gcm16, Self::ChaCha20Poly1305];

    /// Its number and key length in transforms.
    pub(crate) fn number(self) -> (u16, Option<u16>) {
        match self {
            Self::Aes256Gcm16 => (20, Some(256)),
            Self::Aes128Gcm16 => (20, Some(128)),
            Self::ChaCha20Poly1305 => (28, None),
        }
    }

    /// Octets of SK_ei or SK_er: key, then salt.
    pub(crate) fn keymat_len(self) -> usize {
        self.algorithm().key_len() + SALT_LEN
    }

    fn algorithm(self) -> &'static aead::Algorithm {
        match self {
            Self::Aes256Gcm16 => &aead::AES_256_GCM,
            Self::Aes128Gcm16 => &aead::AES_128_GCM,
            Self::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        }
    }
}

/// One direction's key as it comes from the key schedule. What the library makes of it takes forty
/// times the room and half a microsecond, and most SAs say nothing for hours: it is made anew for
/// each message.
#[derive(Debug)]
struct Key {
    cipher: IkeCipher,
    keymat: Secret,
}

impl Key {
    fn new(cipher: IkeCipher, keymat: &[u8]) -> Result<Self, CryptoFailure> {
        let key = Self { cipher, keymat: Secret::new(keymat.to_vec()) };
        key.ready()?;
        Ok(key)
    }

    /// The key as the library wants it, and the salt.
    fn ready(&self) -> Result<(LessSafeKey, [u8; SALT_LEN]), CryptoFailure> {
        let algorithm = self.cipher.algorithm();
        let (key, salt) = self.keymat.split_at_checked(algorithm.key_len()).ok_or(CryptoFailure)?;
        let key = UnboundKey::new(algorithm, key).map_err(|_| CryptoFailure)?;
        Ok((LessSafeKey::new(key), salt.try_into().map_err(|_| CryptoFailure)?))
    }
}

/// Octets that sealing adds to a plaintext: IV, Pad Length, ICV.
pub(crate) const SEALING_COST: usize = IV_LEN + 1 + TAG_LEN;

/// Seals what we send under one IKE SA.
#[derive(Debug)]
pub(crate) struct Sealer {
    key: Key,
    next_iv: u64,
}

impl Sealer {
    pub(super) fn new(cipher: IkeCipher, keymat: &[u8]) -> Result<Self, CryptoFailure> {
        Ok(Self { key: Key::new(cipher, keymat)?, next_iv: 0 })
    }

    /// Appends IV, ciphertext and ICV to `message`, all of which so far is covered by the ICV.
    pub(crate) fn seal(
        &mut self,
        message: &mut Vec<u8>,
        plaintext: &[u8],
    ) -> Result<(), CryptoFailure> {
        // A counter: never the same twice under one key (RFC 5282 §3.1).
        let iv = self.next_iv.to_be_bytes();
        self.next_iv = self.next_iv.checked_add(1).ok_or(CryptoFailure)?;
        let mut text = Vec::with_capacity(plaintext.len() + 1 + TAG_LEN);
        text.extend_from_slice(plaintext);
        // Pad Length: an AEAD needs no padding.
        text.push(0);
        let (key, salt) = self.key.ready()?;
        key.seal_in_place_append_tag(nonce(salt, iv), Aad::from(&message[..]), &mut text)
            .map_err(|_| CryptoFailure)?;
        message.extend_from_slice(&iv);
        message.extend_from_slice(&text);
        Ok(())
    }
}

/// Opens what the peer sends under one IKE SA.
#[derive(Debug)]
pub(crate) struct Opener {
    key: Key,
}

impl Opener {
    pub(crate) fn new(cipher: IkeCipher, keymat: &[u8]) -> Result<Self, CryptoFailure> {
        Ok(Self { key: Key::new(cipher, keymat)? })
    }

    /// The payloads inside, without padding.
    pub(crate) fn open(&self, sealed: &Sealed<'_>) -> Result<Vec<u8>, InvalidMessage> {
        let (iv, text) =
            sealed.octets.split_first_chunk::<IV_LEN>().ok_or(InvalidMessage::Missing("iv"))?;
        let mut text = text.to_vec();
        let (key, salt) = self.key.ready().map_err(|_| InvalidMessage::Integrity)?;
        let len = key
            .open_in_place(nonce(salt, *iv), Aad::from(sealed.aad), &mut text)
            .map_err(|_| InvalidMessage::Integrity)?
            .len();
        text.truncate(len);
        let padding = text.pop().ok_or(InvalidMessage::Missing("pad length"))?;
        let len =
            text.len().checked_sub(padding.into()).ok_or(InvalidMessage::Value("pad length"))?;
        text.truncate(len);
        Ok(text)
    }
}

fn nonce(salt: [u8; SALT_LEN], iv: [u8; IV_LEN]) -> Nonce {
    let mut octets = [0; SALT_LEN + IV_LEN];
    let (head, tail) = octets.split_at_mut(SALT_LEN);
    head.copy_from_slice(&salt);
    tail.copy_from_slice(&iv);
    Nonce::assume_unique_for_key(octets)
}

const SALT_LEN: usize = 4;
const IV_LEN: usize = 8;
const TAG_LEN: usize = 16;
