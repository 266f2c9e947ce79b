//! What else a peer can be than one who signs: one who knows a secret, or proves nothing (RFC 7296
//! §2.15, RFC 7619); one with ML-KEM in its keys (RFC 9242, RFC 9370); one who comes back with a ticket
//! (RFC 5723).

use std::collections::BTreeMap;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{
    AES_256, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::kem::{Ciphertext, DecapsulationKey, EncapsulationKey, ML_KEM_768};
use ike::{Credential, SharedSecret};
use rand_core::Rng as _;

use super::super::wire::{
    AUTH, FRAGMENTATION_SUPPORTED, Header, IKE_INTERMEDIATE, INITIATOR, KE, NONCE, Payload,
    RESPONSE, SIGNATURE_HASH_ALGORITHMS, SK, SKF, TICKET_LT_OPAQUE, TICKET_OPAQUE, TICKET_REQUEST,
    chain, split,
};
use super::{Evil, Keys, prf, public};

/// By what it proves who it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Proof {
    /// With its key pair.
    #[default]
    Signature,
    /// With a secret that the other knows too.
    Secret,
    /// Not at all, and it says so.
    Nothing,
}

/// What a peer is like, from its first message on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Manners {
    pub(crate) proof: Proof,
    /// It offers ML-KEM, or takes it where it is offered.
    pub(crate) quantum: bool,
    /// It offers AES-CBC, or takes it where it is offered (RFC 7296 §3.14).
    pub(crate) cbc: bool,
    /// It asks for tickets, gives one, and comes back.
    pub(crate) returns: bool,
}

/// What is shared with whom has this key pair.
fn secret(which: usize) -> Vec<u8> {
    [&b"correct horse battery staple "[..], &which.to_be_bytes()].concat()
}

impl Manners {
    /// What a secret of both is, if it is what they prove themselves with, and what AUTH makes of it
    /// (RFC 7296 §2.15).
    #[allow(dead_code, reason = "tests/wiped uses it")]
    pub(crate) fn secrets(self, key: usize) -> Vec<Vec<u8>> {
        match self.proof {
            Proof::Secret => vec![secret(key), prf(&secret(key), &[b"Key Pad for IKEv2"])],
            Proof::Signature | Proof::Nothing => vec![],
        }
    }

    /// What the other takes for a proof of whom has this key pair.
    pub(crate) fn credential(self, key: usize) -> Credential {
        match self.proof {
            Proof::Signature => public(key).into(),
            Proof::Secret => Credential::Secret(SharedSecret::new(secret(key)).unwrap()),
            Proof::Nothing => Credential::Null,
        }
    }
}

/// What of it there is while a handshake goes on.
#[derive(Default)]
pub(super) struct Progress {
    /// The private half of its key encapsulation.
    decapsulation: Option<DecapsulationKey>,
    /// The keys that the other will use once it has heard our half.
    next: Option<Keys>,
    /// IntAuth_i and IntAuth_r (RFC 9242 §3.3.2).
    covered: [Vec<u8>; 2],
    /// The second key exchange is over.
    pub(super) strengthened: bool,
    /// SK_d of the SA that this one is made of.
    pub(super) resumed: Option<Vec<u8>>,
    /// Fragments of the message under way, and what the first one says comes first.
    pieces: BTreeMap<u16, (u8, Vec<u8>)>,
    piece_of: (u32, u8),
}

/// The ML-KEM-768 transform of type "additional key exchange 1".
pub(super) const ML_KEM: (u8, u16, u16) = (6, 36, 0);
const INTERMEDIATE_SUPPORTED: u16 = 16438;
/// The ticket that it gives.
const OWN_TICKET: &[u8] = b"a ticket of the evil peer's own";

/// The number of the first proposal whose transforms, types and ids, are like this.
pub(super) fn proposal_of(mut sa: &[u8], fits: impl Fn(&[(u8, u16)]) -> bool) -> Option<u8> {
    while let [_, _, l0, l1, number, _, spi, _, ..] = *sa {
        let len = usize::from(u16::from_be_bytes([l0, l1]));
        let mut transforms = sa.get(8 + usize::from(spi)..len)?;
        let mut all = Vec::new();
        while let [_, _, l0, l1, kind, _, i0, i1, ..] = *transforms {
            all.push((kind, u16::from_be_bytes([i0, i1])));
            transforms = transforms.get(usize::from(u16::from_be_bytes([l0, l1])).max(1)..)?;
        }
        if fits(&all) {
            return Some(number);
        }
        sa = sa.get(len.max(1)..)?;
    }
    None
}

/// Whether these are with ML-KEM alone, or without anything, beside a key exchange; with this cipher.
fn like(strong: bool, cbc: bool) -> impl Fn(&[(u8, u16)]) -> bool {
    move |transforms| {
        let mut beside = transforms.iter().filter(|(kind, _)| (6..13).contains(kind));
        let cipher = if cbc { (1, 12) } else { (1, 20) };
        transforms.contains(&cipher)
            && beside.clone().count() == usize::from(strong)
            && beside.all(|beside| *beside == (ML_KEM.0, ML_KEM.1))
    }
}

impl Evil {
    /// Its suite, with the additional key exchange or without.
    pub(super) fn suite(&self) -> Payload {
        let mut suite = Payload::proposal(1, &[], &self.transforms(self.quantum));
        suite.body[4] = self.number;
        suite
    }

    /// The transforms of an IKE SA of its.
    pub(super) fn transforms(&self, strong: bool) -> Vec<(u8, u16, u16)> {
        let suite = if self.cbc { &super::CBC_SUITE[..] } else { &super::IKE_SUITE };
        suite.iter().copied().chain(strong.then_some(ML_KEM)).collect()
    }

    /// What it takes of a caller's proposals.
    pub(super) fn choose(&mut self, sa: &[u8]) {
        let Manners { quantum, cbc, .. } = self.manners;
        let strong = proposal_of(sa, like(true, false)).filter(|_| quantum && !cbc);
        let old = proposal_of(sa, like(false, true)).filter(|_| cbc);
        (self.quantum, self.cbc) = (strong.is_some(), old.is_some());
        let plain = || proposal_of(sa, like(false, false));
        self.number = strong.or(old).or_else(plain).unwrap_or(1);
    }

    /// What the other has taken of its own.
    pub(super) fn chosen(&mut self, sa: &[u8]) {
        self.quantum &= proposal_of(sa, like(true, self.cbc)).is_some();
    }

    /// What it announces besides.
    pub(super) fn announcements(&self) -> Option<Payload> {
        self.quantum.then(|| Payload::notify(0, &[], INTERMEDIATE_SUPPORTED, &[]))
    }

    /// Whether a second key exchange has to come before IKE_AUTH.
    pub(crate) fn owes_kem(&self) -> bool {
        self.quantum && !self.progress.strengthened && self.progress.resumed.is_none()
    }

    /// Whether both speak AES-CBC.
    pub(crate) fn is_cbc(&self) -> bool {
        self.cbc
    }

    /// Whether both have made it.
    pub(crate) fn is_strengthened(&self) -> bool {
        self.progress.strengthened
    }

    /// The caller's half of it.
    pub(crate) fn kem_payloads(&mut self) -> Vec<Payload> {
        let ours = self
            .progress
            .decapsulation
            .get_or_insert_with(|| DecapsulationKey::generate(&ML_KEM_768).unwrap());
        let key =
            ours.encapsulation_key().and_then(|key| key.key_bytes().map(|b| b.as_ref().to_vec()));
        vec![Payload::ke(ML_KEM.1, &key.unwrap())]
    }

    /// The other half came: what follows is under the keys of both exchanges.
    pub(crate) fn take_kem(&mut self, header: Header, payloads: &[Payload]) -> bool {
        let Some(ours) = self.progress.decapsulation.take() else { return false };
        let ke = payloads.iter().find(|p| p.kind == KE).and_then(|ke| ke.body.get(4..));
        let Some(secret) = ke.and_then(|ke| ours.decapsulate(Ciphertext::from(ke)).ok()) else {
            return false;
        };
        self.cover(header, payloads);
        let keys = self.strengthened(secret.as_ref());
        self.keys = Some(keys);
        self.progress.strengthened = true;
        true
    }

    /// The half of who is called, if what came is the caller's; the other uses what both make of it
    /// from then on.
    pub(crate) fn answer_kem(&mut self, header: Header, payloads: &[Payload]) -> Vec<Payload> {
        let ke = payloads.iter().find(|p| p.kind == KE).and_then(|ke| ke.body.get(4..));
        let key = ke.and_then(|ke| EncapsulationKey::new(&ML_KEM_768, ke).ok());
        let Some((ciphertext, secret)) = key.and_then(|key| key.encapsulate().ok()) else {
            return vec![];
        };
        self.cover(header, payloads);
        let next = self.strengthened(secret.as_ref());
        self.progress.next = Some(next);
        vec![Payload::ke(ML_KEM.1, ciphertext.as_ref())]
    }

    /// SKEYSEED = prf(SK_d, SK(1) | Ni | Nr) (RFC 9370 §2.2.2).
    fn strengthened(&mut self, secret: &[u8]) -> Keys {
        let nonces = self.nonces(&self.peer_nonce);
        let seed = prf(&self.keys.as_ref().unwrap().sk_d, &[secret, &nonces]);
        let keys = Keys::expand(&seed, &nonces, (self.spi_i, self.spi_r), self.cbc);
        self.agreed.extend([secret.to_vec(), seed]);
        keys
    }

    /// An IKE_INTERMEDIATE message as AUTH covers it, of which the last one counts: whole, in the
    /// clear, with lengths that count nothing of encryption (RFC 9242 §3.3.2).
    pub(super) fn cover(&mut self, header: Header, payloads: &[Payload]) {
        if header.exchange != IKE_INTERMEDIATE || self.progress.strengthened {
            return;
        }
        let Some(keys) = &self.keys else { return };
        let (first, plaintext) = chain(payloads);
        let len = u16::try_from(4 + plaintext.len()).unwrap_or(u16::MAX).to_be_bytes();
        let mut message = header.write(SK, &[&[first, 0][..], &len, &plaintext].concat());
        let by_caller = header.flags & INITIATOR != 0;
        if by_caller == self.initiator {
            message[17] = self.version;
        }
        let key = if by_caller { &keys.sk_pi } else { &keys.sk_pr };
        self.progress.covered[usize::from(!by_caller)] = prf(key, &[&message]);
    }

    /// What of the second key exchange is signed.
    pub(super) fn covered(&self) -> Vec<u8> {
        if !self.progress.strengthened {
            return vec![];
        }
        let [by_caller, by_called] = &self.progress.covered;
        // The message ID of the first IKE_AUTH.
        [by_caller, by_called, &[0, 0, 0, 2][..]].concat()
    }

    /// AUTH over these octets by what is no signature.
    pub(super) fn unsigned(&self, octets: &[u8]) -> Option<Payload> {
        let keys = self.keys.as_ref().unwrap();
        let own = if self.initiator { &keys.sk_pi } else { &keys.sk_pr };
        let padded = |secret: &[u8]| prf(&prf(secret, &[b"Key Pad for IKEv2"]), &[octets]);
        let (method, data) = match (&self.progress.resumed, self.manners.proof) {
            // RFC 5723 §5.1.
            (Some(_), _) => (2, prf(own, &[octets])),
            (None, Proof::Signature) => return None,
            (None, Proof::Secret) => (2, padded(&secret(self.key))),
            (None, Proof::Nothing) => (13, padded(own)),
        };
        Some(Payload::new(AUTH, [&[method, 0, 0, 0][..], &data].concat()))
    }

    /// What it says of tickets in IKE_AUTH.
    pub(super) fn about_tickets(&mut self) -> Option<Payload> {
        if !self.manners.returns || self.progress.resumed.is_some() {
            return None;
        }
        if self.initiator {
            return Some(Payload::notify(0, &[], TICKET_REQUEST, &[]));
        }
        self.given = self.keys.as_ref().map(|keys| keys.sk_d.clone());
        let life = 3600_u32.to_be_bytes();
        Some(Payload::notify(0, &[], TICKET_LT_OPAQUE, &[&life, OWN_TICKET].concat()))
    }

    /// Keeps a ticket, if these payloads give one.
    pub(crate) fn keep_ticket(&mut self, payloads: &[Payload]) {
        let ticket = payloads.iter().find(|p| p.notify_type() == Some(TICKET_LT_OPAQUE));
        if let (Some(ticket), Some(keys)) = (ticket, &self.keys) {
            let opaque = ticket.body.get(8..).unwrap_or_default().to_vec();
            self.ticket = Some((opaque, keys.sk_d.clone()));
        }
    }

    /// Begins anew, as one who was there before; whether it has a ticket for that. It keeps it, and
    /// can come with the same one again.
    pub(crate) fn come_back(&mut self) -> bool {
        let Some((_, sk_d)) = self.ticket.clone() else { return false };
        self.begin_anew(sk_d);
        (self.initiator, self.spi_i, self.spi_r) = (true, self.rng.next_u64() | 1, 0);
        self.next_id = 1;
        true
    }

    fn begin_anew(&mut self, sk_d: Vec<u8>) {
        self.progress = Progress { resumed: Some(sk_d), ..Progress::default() };
        self.rng.fill_bytes(&mut self.nonce);
        self.keys = None;
        self.quantum = false;
        self.forget_lines();
    }

    /// Takes IKE_SESSION_RESUME from who comes back with the ticket that it gave.
    pub(crate) fn taken_back(&mut self, header: Header, payloads: &[Payload]) -> bool {
        let shown = payloads.iter().find(|p| p.notify_type() == Some(TICKET_OPAQUE));
        let known = shown.is_some_and(|ticket| ticket.body.get(4..) == Some(OWN_TICKET));
        let Some(sk_d) = self.given.clone().filter(|_| known) else { return false };
        self.begin_anew(sk_d);
        (self.initiator, self.spi_i, self.spi_r) = (false, header.spi_i, self.rng.next_u64() | 1);
        self.next_id = 0;
        true
    }

    /// What IKE_SESSION_RESUME consists of.
    pub(super) fn resume_payloads(&self) -> Vec<Payload> {
        let mut payloads = vec![Payload::new(NONCE, self.nonce.clone())];
        if self.initiator {
            let (opaque, _) = self.ticket.clone().unwrap_or_default();
            payloads.push(Payload::notify(0, &[], TICKET_OPAQUE, &opaque));
        }
        payloads.push(Payload::notify(0, &[], FRAGMENTATION_SUPPORTED, &[]));
        payloads.push(Payload::notify(0, &[], SIGNATURE_HASH_ALGORITHMS, &[0, 2, 0, 3, 0, 4]));
        payloads
    }

    /// Opens a message of the other's, or the last of its fragments that was missing.
    pub(crate) fn take(&mut self, octets: &[u8]) -> Option<(Header, Vec<Payload>)> {
        if let Some(taken) = self.take_under(octets) {
            self.is_used();
            return taken;
        }
        let spis = (self.spi_i, self.spi_r);
        if let Some((header, _)) = Header::read(octets)
            && (header.spi_i, header.spi_r) != spis
            && self.select(header)
        {
            let taken = self.take_under(octets);
            if taken.is_some() {
                self.is_used();
                return taken.flatten();
            }
            self.select(Header { spi_i: spis.0, spi_r: spis.1, ..header });
            return None;
        }
        // The other may have heard our half.
        let next = self.progress.next.take()?;
        let before = self.keys.replace(next);
        let taken = self.take_under(octets);
        if taken.is_some() {
            self.progress.strengthened = true;
        } else {
            self.progress.next = std::mem::replace(&mut self.keys, before);
        }
        taken.flatten()
    }

    /// `None` if it is not under these keys; nothing within if it is not yet whole.
    fn take_under(&mut self, octets: &[u8]) -> Option<Option<(Header, Vec<Payload>)>> {
        let (header, outermost) = Header::read(octets)?;
        if outermost != SKF {
            return self.open(octets).map(Some);
        }
        let piece = self.decrypt(octets, 36)?;
        let of = (header.id, header.flags & RESPONSE);
        if self.progress.piece_of != of {
            self.progress.pieces.clear();
            self.progress.piece_of = of;
        }
        let number = u16::from_be_bytes([octets[32], octets[33]]);
        let total = u16::from_be_bytes([octets[34], octets[35]]);
        self.progress.pieces.insert(number, (octets[28], piece));
        if self.progress.pieces.len() < usize::from(total) {
            return Some(None);
        }
        let pieces = std::mem::take(&mut self.progress.pieces);
        let first = pieces.first_key_value()?.1.0;
        let whole: Vec<u8> = pieces.into_values().flat_map(|(_, piece)| piece).collect();
        Some(Some((header, split(first, &whole))))
    }

    /// The other's plaintext behind so many octets in the clear.
    pub(super) fn decrypt(&self, octets: &[u8], clear: usize) -> Option<Vec<u8>> {
        let keys = self.keys.as_ref()?;
        if self.cbc {
            return self.decrypt_cbc(octets, clear);
        }
        let (key, salt) = if self.initiator { &keys.sk_er } else { &keys.sk_ei }.split_at(32);
        let (aad, rest) = octets.split_at_checked(clear)?;
        let (iv, text) = rest.split_at_checked(8)?;
        let nonce = Nonce::try_assume_unique_for_key(&[salt, iv].concat()).ok()?;
        let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap());
        let mut text = text.to_vec();
        let plaintext = cipher.open_in_place(nonce, Aad::from(aad), &mut text).ok()?;
        let (padding, plaintext) = plaintext.split_last()?;
        Some(plaintext.get(..plaintext.len().checked_sub(usize::from(*padding))?)?.to_vec())
    }

    /// Seals behind what is there, with an IV of its own.
    pub(super) fn encrypt(&mut self, out: &mut Vec<u8>, mut text: Vec<u8>) {
        let keys = self.keys.as_ref().unwrap();
        let key = if self.initiator { &keys.sk_ei } else { &keys.sk_er };
        self.iv += 1;
        if self.cbc {
            let iv = [self.iv.to_be_bytes(), [7; 8]].concat();
            let cipher = UnboundCipherKey::new(&AES_256, key).unwrap();
            let cipher = EncryptingKey::cbc(cipher).unwrap();
            let context = FixedLength::<16>::try_from(&iv[..]).unwrap();
            cipher.less_safe_encrypt(&mut text, EncryptionContext::Iv128(context)).unwrap();
            out.extend_from_slice(&iv);
            out.extend_from_slice(&text);
            let own = if self.initiator { &keys.sk_ai } else { &keys.sk_ar };
            let icv = prf(own, &[out]);
            out.extend_from_slice(&icv[..16]);
            return;
        }
        let (key, salt) = key.split_at(32);
        let iv = self.iv.to_be_bytes();
        let nonce = Nonce::try_assume_unique_for_key(&[salt, &iv].concat()).unwrap();
        let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap());
        cipher.seal_in_place_append_tag(nonce, Aad::from(&*out), &mut text).unwrap();
        out.extend_from_slice(&iv);
        out.extend_from_slice(&text);
    }

    fn decrypt_cbc(&self, octets: &[u8], clear: usize) -> Option<Vec<u8>> {
        let keys = self.keys.as_ref()?;
        let (key, mac) = match self.initiator {
            true => (&keys.sk_er, &keys.sk_ar),
            false => (&keys.sk_ei, &keys.sk_ai),
        };
        let (covered, icv) = octets.split_at_checked(octets.len().checked_sub(16)?)?;
        if prf(mac, &[covered])[..16] != *icv {
            return None;
        }
        let (iv, text) = covered.get(clear..)?.split_at_checked(16)?;
        let cipher = DecryptingKey::cbc(UnboundCipherKey::new(&AES_256, key).ok()?).ok()?;
        let mut text = text.to_vec();
        let context = DecryptionContext::Iv128(FixedLength::<16>::try_from(iv).ok()?);
        let plaintext = cipher.decrypt(&mut text, context).ok()?;
        let (padding, plaintext) = plaintext.split_last()?;
        Some(plaintext.get(..plaintext.len().checked_sub(usize::from(*padding))?)?.to_vec())
    }
}
