//! The key schedule: prf, prf+, SKEYSEED, SK_*, KEYMAT (RFC 7296 §2.13, §2.14, §2.17, §2.18).

use aws_lc_rs::hmac;
use sa::{EspCipher, EspKey};

use super::seal::{IkeCipher, Opener, Sealer};
use super::{CryptoFailure, Secret};

/// A pseudorandom function, always an HMAC (RFC 4868).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Prf {
    HmacSha2_256,
    HmacSha2_384,
    HmacSha2_512,
}

impl Prf {
    /// All, in the order in which we like them.
    pub(crate) const ALL: [Self; 3] = [Self::HmacSha2_256, Self::HmacSha2_384, Self::HmacSha2_512];

    /// Its number in transforms.
    pub(crate) fn number(self) -> u16 {
        match self {
            Self::HmacSha2_256 => 5,
            Self::HmacSha2_384 => 6,
            Self::HmacSha2_512 => 7,
        }
    }

    fn algorithm(self) -> hmac::Algorithm {
        match self {
            Self::HmacSha2_256 => hmac::HMAC_SHA256,
            Self::HmacSha2_384 => hmac::HMAC_SHA384,
            Self::HmacSha2_512 => hmac::HMAC_SHA512,
        }
    }

    /// Octets of output, which is also the preferred key length.
    fn len(self) -> usize {
        match self {
            Self::HmacSha2_256 => 32,
            Self::HmacSha2_384 => 48,
            Self::HmacSha2_512 => 64,
        }
    }

    /// Octets of the shortest nonce that may go into it: half as many as its key has (RFC 7296 §2.10).
    pub(crate) fn least_nonce(self) -> usize {
        self.len() / 2
    }

    /// prf(key, parts concatenated).
    pub(crate) fn of(self, key: &[u8], parts: &[&[u8]]) -> Secret {
        let key = hmac::Key::new(self.algorithm(), key);
        let mut mac = hmac::Context::with_key(&key);
        for part in parts {
            mac.update(part);
        }
        Secret::new(mac.sign().as_ref().to_vec())
    }

    /// `len` octets of prf+(key, parts concatenated); at most 255 rounds' worth.
    pub(crate) fn plus(
        self,
        key: &[u8],
        parts: &[&[u8]],
        len: usize,
    ) -> Result<Secret, CryptoFailure> {
        let mut out = Secret::zeros(len);
        let key = hmac::Key::new(self.algorithm(), key);
        let mut last: &[u8] = &[];
        // One more than is needed: what the last one leaves on the stack, which nobody can wipe, and
        // which ends up wherever something is moved over it, is then no key.
        let mut chunks = out.as_mut().chunks_mut(self.len());
        for round in (1..=u8::MAX).chain([0]) {
            let mut mac = hmac::Context::with_key(&key);
            mac.update(last);
            for part in parts {
                mac.update(part);
            }
            mac.update(&[round]);
            let tag = mac.sign();
            let Some(chunk) = chunks.next() else { return Ok(out) };
            chunk.copy_from_slice(tag.as_ref().get(..chunk.len()).ok_or(CryptoFailure)?);
            last = chunk;
        }
        Err(CryptoFailure)
    }
}

/// The keys of one IKE SA.
#[derive(Debug)]
pub(crate) struct IkeKeys {
    prf: Prf,
    sk_d: Secret,
    sk_pi: Secret,
    sk_pr: Secret,
}

/// The nonces and SPIs that go into the keys of an IKE SA.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mix<'a> {
    pub(crate) nonce_i: &'a [u8],
    pub(crate) nonce_r: &'a [u8],
    pub(crate) spi_i: u64,
    pub(crate) spi_r: u64,
}

impl IkeKeys {
    /// From IKE_SA_INIT's secret: SKEYSEED = prf(Ni | Nr, g^ir). Gives the keys and the two
    /// directions' ciphers, the original initiator's first.
    pub(crate) fn initial(
        prf: Prf,
        cipher: IkeCipher,
        secret: &Secret,
        mix: Mix<'_>,
    ) -> Result<(Self, CipherPair), CryptoFailure> {
        let key = [mix.nonce_i, mix.nonce_r].concat();
        let seed = prf.of(&key, &[secret]);
        Self::expand(prf, cipher, &seed, mix)
    }

    /// From an earlier SA's SK_d: SKEYSEED = prf(SK_d, "Resumption" | Ni | Nr) (RFC 5723 §5.1).
    pub(crate) fn resumed(
        prf: Prf,
        cipher: IkeCipher,
        sk_d: &Secret,
        mix: Mix<'_>,
    ) -> Result<(Self, CipherPair), CryptoFailure> {
        let seed = prf.of(sk_d, &[b"Resumption", mix.nonce_i, mix.nonce_r]);
        Self::expand(prf, cipher, &seed, mix)
    }

    /// SK_d, for an SA that is to be made of this one.
    pub(crate) fn sk_d(&self) -> Secret {
        Secret::new(self.sk_d.to_vec())
    }

    /// AUTH of an SA that was made of another: prf(SK_p, octets) (RFC 5723 §5.1).
    pub(crate) fn resumed_auth(&self, by_initiator: bool, octets: &[u8]) -> Secret {
        let key = if by_initiator { &self.sk_pi } else { &self.sk_pr };
        self.prf.of(key, &[octets])
    }

    /// From a rekey's secret: SKEYSEED = prf(SK_d (old), g^ir (new) | Ni | Nr) with the old SA's
    /// prf, and behind that the secret of an additional key exchange (RFC 9370 §2.2.4); what follows
    /// uses the new one.
    pub(crate) fn rekeyed(
        &self,
        prf: Prf,
        cipher: IkeCipher,
        (secret, additional): (&Secret, Option<&Secret>),
        mix: Mix<'_>,
    ) -> Result<(Self, CipherPair), CryptoFailure> {
        let additional: &[u8] = additional.map_or(&[], |s| s);
        let seed = self.prf.of(&self.sk_d, &[secret, mix.nonce_i, mix.nonce_r, additional]);
        Self::expand(prf, cipher, &seed, mix)
    }

    fn expand(
        prf: Prf,
        cipher: IkeCipher,
        seed: &Secret,
        mix: Mix<'_>,
    ) -> Result<(Self, CipherPair), CryptoFailure> {
        let parts: [&[u8]; 4] =
            [mix.nonce_i, mix.nonce_r, &mix.spi_i.to_be_bytes(), &mix.spi_r.to_be_bytes()];
        let total = 3 * prf.len() + 2 * cipher.integrity_keymat_len() + 2 * cipher.keymat_len();
        let stream = prf.plus(seed, &parts, total)?;
        let mut rest = &stream[..];
        let mut next = |len: usize| -> Result<Secret, CryptoFailure> {
            let (head, tail) = rest.split_at_checked(len).ok_or(CryptoFailure)?;
            rest = tail;
            Ok(Secret::new(head.to_vec()))
        };
        let sk_d = next(prf.len())?;
        let sk_ai = next(cipher.integrity_keymat_len())?;
        let sk_ar = next(cipher.integrity_keymat_len())?;
        let sk_ei = next(cipher.keymat_len())?;
        let sk_er = next(cipher.keymat_len())?;
        let sk_pi = next(prf.len())?;
        let sk_pr = next(prf.len())?;
        let pair = CipherPair { cipher, sk_ai, sk_ar, sk_ei, sk_er };
        Ok((Self { prf, sk_d, sk_pi, sk_pr }, pair))
    }

    /// What the initiator (or responder) signs: its first message, the other's nonce, and a MAC
    /// over its identification payload's body (RFC 7296 §2.15).
    pub(crate) fn signed_octets(
        &self,
        by_initiator: bool,
        message: &[u8],
        nonce: &[u8],
        identification: &[u8],
    ) -> Vec<u8> {
        let key = if by_initiator { &self.sk_pi } else { &self.sk_pr };
        let mac = self.prf.of(key, &[identification]);
        [message, nonce, &mac].concat()
    }

    /// IntAuth after one more IKE_INTERMEDIATE message of the initiator (or responder): a MAC over
    /// the one before and the message (RFC 9242 §3.3.2).
    pub(crate) fn int_auth(&self, by_initiator: bool, last: &[u8], message: &[&[u8]]) -> Secret {
        let key = if by_initiator { &self.sk_pi } else { &self.sk_pr };
        let mut parts = vec![last];
        parts.extend_from_slice(message);
        self.prf.of(key, &parts)
    }

    /// AUTH without signature: prf(prf(secret, "Key Pad for IKEv2"), octets), where the secret of
    /// who has none is its own SK_p (RFC 7296 §2.15, RFC 7619 §2.1).
    pub(crate) fn shared_auth(
        &self,
        by_initiator: bool,
        secret: Option<&[u8]>,
        octets: &[u8],
    ) -> Secret {
        let sk_p = if by_initiator { &self.sk_pi } else { &self.sk_pr };
        let key = self.prf.of(secret.unwrap_or(sk_p), &[b"Key Pad for IKEv2"]);
        self.prf.of(&key, &[octets])
    }

    /// Both have signed: what only signatures need is wiped.
    pub(crate) fn forget_signing(&mut self) {
        self.sk_pi = Secret::zeros(0);
        self.sk_pr = Secret::zeros(0);
    }

    #[cfg(test)]
    pub(super) fn parts(&self) -> (&[u8], &[u8], &[u8]) {
        (&self.sk_d, &self.sk_pi, &self.sk_pr)
    }
}

/// Both directions' keys of one IKE SA, before they are given to their ends.
#[derive(Debug)]
pub(crate) struct CipherPair {
    cipher: IkeCipher,
    /// Empty for AEADs.
    sk_ai: Secret,
    sk_ar: Secret,
    sk_ei: Secret,
    sk_er: Secret,
}

impl CipherPair {
    /// What we seal with and what we open with.
    pub(crate) fn ends(&self, initiator: bool) -> Result<(Sealer, Opener), CryptoFailure> {
        let sides = [(&self.sk_ei, &self.sk_ai), (&self.sk_er, &self.sk_ar)];
        let [own, peer] = if initiator { sides } else { [sides[1], sides[0]] };
        Ok((Sealer::new(self.cipher, own.0, own.1)?, Opener::new(self.cipher, peer.0, peer.1)?))
    }

    #[cfg(test)]
    pub(super) fn parts(&self) -> (&[u8], &[u8]) {
        (&self.sk_ei, &self.sk_er)
    }
}

/// The keys of a child: KEYMAT = prf+(SK_d, [g^ir |] Ni | Nr). First the key for what the
/// exchange's initiator sends, then the one for what its responder sends (RFC 7296 §2.17).
pub(crate) fn child_keys(
    keys: &IkeKeys,
    cipher: EspCipher,
    [secret, additional]: [Option<&Secret>; 2],
    nonce_i: &[u8],
    nonce_r: &[u8],
) -> Result<(EspKey, EspKey), CryptoFailure> {
    let len = cipher.keymat_len();
    let [secret, additional] = [secret, additional].map(|s| -> &[u8] { s.map_or(&[], |s| s) });
    let keymat = keys.prf.plus(&keys.sk_d, &[secret, nonce_i, nonce_r, additional], 2 * len)?;
    let (first, second) = keymat.split_at_checked(len).ok_or(CryptoFailure)?;
    let key = |octets| EspKey::new(cipher, octets).ok_or(CryptoFailure);
    Ok((key(first)?, key(second)?))
}
