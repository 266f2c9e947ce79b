//! Doors for the workspace's own tests, and for nobody else: published vectors and fuzzed octets go
//! through the very functions that peers' octets go through. Nothing here is part of the interface.

use crate::api::{PublicKey, SignatureScheme};
use crate::crypto;
use crate::exchange::crash_detection::TokenMaker;
use crate::message::{Body, Message, PayloadType, Payloads, Sealed};
use crate::reassembly::Reassembly;

/// How many IKE and ESP SPIs are taken.
#[must_use]
pub fn reserved(ike: &crate::Ike) -> (usize, usize) {
    ike.reserved()
}

/// Whether `key` made `signature` over `octets`.
#[must_use]
pub fn verify(key: &PublicKey, scheme: SignatureScheme, octets: &[u8], signature: &[u8]) -> bool {
    crypto::verify(key, scheme, octets, signature).is_ok()
}

/// Whether a key has the form that a library may be given. AWS-LC checks most of it again, so that
/// [`verify`] alone would not show that we do.
#[must_use]
pub fn is_usable(key: &PublicKey) -> bool {
    crypto::key_is_usable(key)
}

/// prf(key, text) of the transform with this number.
#[must_use]
pub fn prf(number: u16, key: &[u8], text: &[u8]) -> Option<Vec<u8>> {
    let prf = crypto::Prf::ALL.into_iter().find(|prf| prf.number() == number)?;
    Some(prf.of(key, &[text]).to_vec())
}

/// `len` octets of prf+(key, seed).
#[must_use]
pub fn prf_plus(number: u16, key: &[u8], seed: &[u8], len: usize) -> Option<Vec<u8>> {
    let prf = crypto::Prf::ALL.into_iter().find(|prf| prf.number() == number)?;
    Some(prf.plus(key, &[seed], len).ok()?.to_vec())
}

/// Our public value and the common secret of the key exchange method with this number, as KE
/// payloads have them. The secret is `None` if `peer` is refused.
#[must_use]
pub fn agree(group: u16, private: &[u8], peer: &[u8]) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
    let group = crypto::Group::from_number(group)?;
    let own = crypto::Agreement::with_private(group, private).ok()?;
    Some((own.public().to_vec(), own.agree(peer).ok().map(|secret| secret.to_vec())))
}

/// The common secret of a ciphertext, with a whole decapsulation key of the additional key exchange
/// method with this number.
#[must_use]
pub fn decapsulate(method: u16, key: &[u8], ciphertext: &[u8]) -> Option<Vec<u8>> {
    let method = crypto::AdditionalKe::from_number(method)?;
    let key = crypto::Decapsulation::with_private(method, key).ok()?;
    key.open(ciphertext).ok().map(|secret| secret.to_vec())
}

/// A ciphertext for this encapsulation key, and the common secret.
#[must_use]
pub fn encapsulate(method: u16, key: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let method = crypto::AdditionalKe::from_number(method)?;
    let (ciphertext, secret) = crypto::encapsulate(method, key).ok()?;
    Some((ciphertext, secret.to_vec()))
}

/// Seals payloads as the message with this number under a key, padding added; gives IV, ciphertext
/// and ICV.
#[must_use]
pub fn seal(
    cipher: (u16, Option<u16>),
    keymat: &[u8],
    number: u64,
    aad: &[u8],
    payloads: &[u8],
) -> Option<Vec<u8>> {
    let cipher = crypto::IkeCipher::AEADS.into_iter().find(|c| c.number() == cipher)?;
    let mut message = aad.to_vec();
    crypto::Sealer::from_number(cipher, keymat, number).ok()?.seal(&mut message, payloads).ok()?;
    Some(message.split_off(aad.len()))
}

/// Opens what an encrypted payload holds (IV, ciphertext, ICV) with the AEAD of this number and
/// key length; gives the payloads inside, padding removed.
#[must_use]
pub fn open(
    cipher: (u16, Option<u16>),
    keymat: &[u8],
    aad: &[u8],
    octets: &[u8],
) -> Option<Vec<u8>> {
    let cipher = crypto::IkeCipher::AEADS.into_iter().find(|c| c.number() == cipher)?;
    let sealed = Sealed { first: PayloadType::NONE, aad, octets, fragment: None };
    crypto::Opener::new(cipher, keymat, &[]).ok()?.open(&sealed).ok()
}

/// The token (RFC 6290) that a node with this secret tells for an IKE SA with these SPIs, of which
/// it is the initiator or not.
#[must_use]
pub fn token(secret: &[u8; 32], spis: (u64, u64), initiator: bool) -> Vec<u8> {
    TokenMaker::new(secret).token(spis, initiator)
}

/// Reads a message as far as that goes without keys, then `octets` as the inside of an encrypted
/// payload whose first payload is of type `first`. Gives what was read as a log would have it.
#[must_use]
pub fn read(first: u8, octets: &[u8]) -> [Option<String>; 2] {
    let message = Message::read(octets).ok().map(|message| {
        let inside = match message.body {
            Body::Clear { first, octets } => Payloads::read(first, octets).ok(),
            Body::Sealed(_) => None,
        };
        format!("{message:?} {inside:?}")
    });
    let payloads = Payloads::read(PayloadType(first), octets).ok();
    [message, payloads.map(|payloads| format!("{payloads:?}"))]
}

/// Puts opened fragments together: message id, fragment number, total, first payload, plaintext.
/// Gives every message that became whole.
#[must_use]
pub fn reassemble(fragments: &[(u32, u16, u16, u8, Vec<u8>)]) -> Vec<(u8, Vec<u8>)> {
    let mut reassembly = Reassembly::default();
    fragments
        .iter()
        .filter_map(|(id, number, total, first, plaintext)| {
            let sealed = Sealed {
                first: PayloadType(*first),
                aad: &[0; 36],
                octets: &[],
                fragment: Some((*number, *total)),
            };
            let whole = reassembly.take(&sealed, *id, plaintext.clone()).ok().flatten()?;
            Some((whole.first.0, whole.plaintext))
        })
        .collect()
}
