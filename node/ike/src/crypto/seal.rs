//! The encrypted payload (RFC 7296 §3.14, RFC 5282, RFC 7634).

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use sa::Integrity;

use super::cbc::{self, CbcOpener, CbcSealer};
use super::{CryptoFailure, Secret};
use crate::message::{InvalidMessage, Sealed};

/// An IKE SA's cipher. The AEADs have an IV of eight octets, a salt of four and an ICV of sixteen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum IkeCipher {
    Aes256Gcm16,
    Aes128Gcm16,
    ChaCha20Poly1305,
    Aes256Cbc(Integrity),
    Aes128Cbc(Integrity),
}

impl IkeCipher {
    /// Those that need no HMAC, best first.
    pub(crate) const AEADS: [Self; 3] =
        [Self::Aes256Gcm16, Self::Aes128Gcm16, Self::ChaCha20Poly1305];

    /// AES-CBC with this HMAC, best first.
    pub(crate) fn cbc(integrity: Integrity) -> [Self; 2] {
        [Self::Aes256Cbc(integrity), Self::Aes128Cbc(integrity)]
    }

    /// Its number and key length in transforms.
    pub(crate) fn number(self) -> (u16, Option<u16>) {
        match self {
            Self::Aes256Gcm16 => (20, Some(256)),
            Self::Aes128Gcm16 => (20, Some(128)),
            Self::ChaCha20Poly1305 => (28, None),
            Self::Aes256Cbc(_) => (12, Some(256)),
            Self::Aes128Cbc(_) => (12, Some(128)),
        }
    }

    /// The HMAC beside it.
    pub(crate) fn integrity(self) -> Option<Integrity> {
        match self {
            Self::Aes256Gcm16 | Self::Aes128Gcm16 | Self::ChaCha20Poly1305 => None,
            Self::Aes256Cbc(integrity) | Self::Aes128Cbc(integrity) => Some(integrity),
        }
    }

    /// Octets of SK_ei or SK_er: key, then an AEAD's salt.
    pub(crate) fn keymat_len(self) -> usize {
        match self {
            Self::Aes256Gcm16 | Self::ChaCha20Poly1305 => 32 + SALT_LEN,
            Self::Aes128Gcm16 => 16 + SALT_LEN,
            Self::Aes256Cbc(_) => 32,
            Self::Aes128Cbc(_) => 16,
        }
    }

    /// Octets of SK_ai or SK_ar; AEADs have none (RFC 5282 §5.1).
    pub(crate) fn integrity_keymat_len(self) -> usize {
        self.integrity().map_or(0, Integrity::key_len)
    }
}

/// One direction's keys as they come from the key schedule. What the library makes of them takes
/// forty times the room and half a microsecond, and most SAs say nothing for hours: it is made anew
/// for each message.
#[derive(Debug)]
struct Key {
    cipher: IkeCipher,
    sk_e: Secret,
    /// Empty for AEADs.
    sk_a: Secret,
}

impl Key {
    fn new(cipher: IkeCipher, sk_e: &[u8], sk_a: &[u8]) -> Result<Self, CryptoFailure> {
        let lengths = (cipher.keymat_len(), cipher.integrity_keymat_len());
        if (sk_e.len(), sk_a.len()) != lengths {
            return Err(CryptoFailure);
        }
        let secret = |octets: &[u8]| Secret::new(octets.to_vec());
        Ok(Self { cipher, sk_e: secret(sk_e), sk_a: secret(sk_a) })
    }

    /// An AEAD's key as the library wants it, and the salt.
    fn aead(&self) -> Result<(LessSafeKey, [u8; SALT_LEN]), CryptoFailure> {
        let algorithm = match self.cipher {
            IkeCipher::Aes256Gcm16 => &aead::AES_256_GCM,
            IkeCipher::Aes128Gcm16 => &aead::AES_128_GCM,
            IkeCipher::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
            IkeCipher::Aes256Cbc(_) | IkeCipher::Aes128Cbc(_) => return Err(CryptoFailure),
        };
        let (key, salt) = self.sk_e.split_at_checked(algorithm.key_len()).ok_or(CryptoFailure)?;
        let key = UnboundKey::new(algorithm, key).map_err(|_| CryptoFailure)?;
        Ok((LessSafeKey::new(key), salt.try_into().map_err(|_| CryptoFailure)?))
    }
}

/// Seals what we send under one IKE SA.
#[derive(Debug)]
pub(crate) struct Sealer {
    key: Key,
    next_iv: u64,
}

impl Sealer {
    /// `sk_e` is SK_ei or SK_er, `sk_a` the same side's SK_ai or SK_ar.
    pub(super) fn new(cipher: IkeCipher, sk_e: &[u8], sk_a: &[u8]) -> Result<Self, CryptoFailure> {
        Ok(Self { key: Key::new(cipher, sk_e, sk_a)?, next_iv: 0 })
    }

    /// An AEAD that has sealed so many messages already.
    pub(crate) fn from_number(
        cipher: IkeCipher,
        sk_e: &[u8],
        number: u64,
    ) -> Result<Self, CryptoFailure> {
        Ok(Self { next_iv: number, ..Self::new(cipher, sk_e, &[])? })
    }

    /// Octets of IV, ciphertext and ICV of so many octets of payloads.
    pub(crate) fn sealed_len(&self, len: usize) -> usize {
        match self.key.cipher.integrity() {
            None => IV_LEN + len + 1 + TAG_LEN,
            Some(mac) => cbc::BLOCK + cbc::padding(len) + len + 1 + mac.icv_len(),
        }
    }

    /// The most octets of payloads that [`Self::sealed_len`] brings into `room`.
    pub(crate) fn capacity(&self, room: usize) -> usize {
        match self.key.cipher.integrity() {
            None => room.saturating_sub(IV_LEN + 1 + TAG_LEN),
            Some(mac) => {
                let text = room.saturating_sub(cbc::BLOCK + mac.icv_len());
                (text - text % cbc::BLOCK).saturating_sub(1)
            }
        }
    }

    /// Appends IV, ciphertext and ICV to `message`, all of which so far is covered by the ICV.
    pub(crate) fn seal(
        &mut self,
        message: &mut Vec<u8>,
        plaintext: &[u8],
    ) -> Result<(), CryptoFailure> {
        // A counter: never the same twice under one key (RFC 5282 §3.1).
        let number = self.next_iv;
        self.next_iv = number.checked_add(1).ok_or(CryptoFailure)?;
        if let Some(mac) = self.key.cipher.integrity() {
            let key = CbcSealer::new(mac, &self.key.sk_e, &self.key.sk_a)?;
            return key.seal(message, number, plaintext);
        }
        let iv = number.to_be_bytes();
        let mut text = Vec::with_capacity(plaintext.len() + 1 + TAG_LEN);
        text.extend_from_slice(plaintext);
        // Pad Length: an AEAD needs no padding.
        text.push(0);
        let (key, salt) = self.key.aead()?;
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
    /// `sk_e` is SK_ei or SK_er, `sk_a` the same side's SK_ai or SK_ar.
    pub(crate) fn new(cipher: IkeCipher, sk_e: &[u8], sk_a: &[u8]) -> Result<Self, CryptoFailure> {
        Ok(Self { key: Key::new(cipher, sk_e, sk_a)? })
    }

    /// The payloads inside, without padding.
    pub(crate) fn open(&self, sealed: &Sealed<'_>) -> Result<Vec<u8>, InvalidMessage> {
        let mut text = match self.key.cipher.integrity() {
            None => self.open_aead(sealed)?,
            Some(mac) => CbcOpener::new(mac, &self.key.sk_e, &self.key.sk_a)
                .map_err(|_| InvalidMessage::Integrity)?
                .open(sealed)?,
        };
        let padding = text.pop().ok_or(InvalidMessage::Missing("pad length"))?;
        let len =
            text.len().checked_sub(padding.into()).ok_or(InvalidMessage::Value("pad length"))?;
        text.truncate(len);
        Ok(text)
    }

    fn open_aead(&self, sealed: &Sealed<'_>) -> Result<Vec<u8>, InvalidMessage> {
        let (iv, text) =
            sealed.octets.split_first_chunk::<IV_LEN>().ok_or(InvalidMessage::Missing("iv"))?;
        let mut text = text.to_vec();
        let (key, salt) = self.key.aead().map_err(|_| InvalidMessage::Integrity)?;
        let len = key
            .open_in_place(nonce(salt, *iv), Aad::from(sealed.aad), &mut text)
            .map_err(|_| InvalidMessage::Integrity)?
            .len();
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
