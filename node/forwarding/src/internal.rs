//! Doors for the workspace's own tests, and for nobody else: published vectors go through the very
//! functions that packets go through. Nothing here is part of the interface.

use sa::{EspCipher, EspKey};

use crate::aead::{AeadKey, ICV, Provider};

fn ready(provider: Provider, cipher: EspCipher, key: &[u8]) -> Option<AeadKey> {
    AeadKey::new(provider, cipher, &EspKey::new(cipher, &[key, &[0; 4]].concat())?)
}

/// Encrypts `text` in place and gives the ICV; `None` if the key has another length.
#[must_use]
pub fn seal(
    (provider, cipher): (Provider, EspCipher),
    key: &[u8],
    nonce: [u8; 12],
    aad: &[u8],
    text: &mut [u8],
) -> Option<[u8; ICV]> {
    ready(provider, cipher, key)?.seal(nonce, aad, text).ok()
}

/// Checks the ICV and decrypts `text` in place; whether the ICV was right.
#[must_use]
pub fn open(
    (provider, cipher): (Provider, EspCipher),
    key: &[u8],
    nonce: [u8; 12],
    aad: &[u8],
    text: &mut [u8],
    icv: [u8; ICV],
) -> bool {
    ready(provider, cipher, key).is_some_and(|key| key.open(nonce, aad, text, icv).is_ok())
}
