//! The peer itself: its keys are right (RFC 7296 §2.13 to §2.17), its manners are whatever a test
//! makes them.

#[path = "manners.rs"]
mod manners;
#[path = "rekeys.rs"]
mod rekeys;

use std::net::IpAddr;

use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey, X25519};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{self, KeyPair as _};
use ike::{PublicKey, SignatureScheme};
use rand_chacha::ChaCha20Rng;
use rand_core::Rng as _;

use manners::Progress;
pub(crate) use manners::{Manners, Proof};
use rekeys::Rekeys;

use super::wire::{
    AUTH, FRAGMENTATION_SUPPORTED, Header, ID_I, ID_R, IKE_SA_INIT, IKE_SESSION_RESUME, INITIATOR,
    KE, NONCE, Payload, REKEY_SA, RESPONSE, SA, SIGNATURE_HASH_ALGORITHMS, SK, SKF, TS_I, TS_R,
    chain, split,
};

/// Somebody's RSA key pair; made once for each process.
pub(crate) fn key_pair(which: usize) -> &'static KeyPair {
    static KEYS: [std::sync::OnceLock<KeyPair>; 4] = [const { std::sync::OnceLock::new() }; 4];
    KEYS[which].get_or_init(|| KeyPair::generate(KeySize::Rsa2048).unwrap())
}

pub(crate) fn public(which: usize) -> PublicKey {
    let key = key_pair(which).public_key();
    PublicKey::Rsa {
        exponent: key.exponent().big_endian_without_leading_zero().to_vec(),
        modulus: key.modulus().big_endian_without_leading_zero().to_vec(),
    }
}

pub(crate) fn sign(which: usize, scheme: SignatureScheme, octets: &[u8]) -> Vec<u8> {
    let encoding: &dyn signature::RsaEncoding = match scheme {
        SignatureScheme::RsaPssSha256 => &signature::RSA_PSS_SHA256,
        SignatureScheme::RsaPssSha384 => &signature::RSA_PSS_SHA384,
        SignatureScheme::RsaPssSha512 => &signature::RSA_PSS_SHA512,
        SignatureScheme::RsaPkcs1Sha256 => &signature::RSA_PKCS1_SHA256,
        other => panic!("nobody here signs with {other:?}"),
    };
    let pair = key_pair(which);
    let mut out = vec![0; pair.public_modulus_len()];
    pair.sign(encoding, &SystemRandom::new(), octets, &mut out).unwrap();
    out
}

/// sha256WithRSAEncryption, as RFC 7427 wants it before the signature.
const PKCS1_SHA256: [u8; 16] =
    [15, 0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11, 5, 0];

const GROUP: u16 = 31;
/// AES-256-GCM, HMAC-SHA2-256, Curve25519.
pub(crate) const IKE_SUITE: [(u8, u16, u16); 3] = [(1, 20, 256), (2, 5, 0), (4, GROUP, 0)];
/// AES-256-CBC with HMAC-SHA2-256-128 instead.
const CBC_SUITE: [(u8, u16, u16); 4] = [(1, 12, 256), (3, 12, 0), (2, 5, 0), (4, GROUP, 0)];
/// AES-256-GCM with extended sequence numbers.
pub(crate) const ESP_SUITE: [(u8, u16, u16); 2] = [(1, 20, 256), (5, 1, 0)];

/// One IKE SA's secrets.
#[derive(Clone)]
struct Keys {
    sk_d: Vec<u8>,
    /// Nothing, where the cipher has its own integrity.
    sk_ai: Vec<u8>,
    sk_ar: Vec<u8>,
    sk_ei: Vec<u8>,
    sk_er: Vec<u8>,
    sk_pi: Vec<u8>,
    sk_pr: Vec<u8>,
}

fn prf(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, &parts.concat()).as_ref().to_vec()
}

fn prf_plus(key: &[u8], seed: &[u8], len: usize) -> Vec<u8> {
    let (mut out, mut last, mut round) = (Vec::new(), Vec::new(), 1);
    while out.len() < len {
        last = prf(key, &[&last, seed, &[round]]);
        out.extend_from_slice(&last);
        round += 1;
    }
    out.truncate(len);
    out
}

impl Keys {
    fn expand(seed: &[u8], nonces: &[u8], (spi_i, spi_r): (u64, u64), cbc: bool) -> Self {
        let text = [nonces, &spi_i.to_be_bytes()[..], &spi_r.to_be_bytes()].concat();
        // A salt stands behind the key of an AEAD.
        let (integrity, cipher) = if cbc { (32, 32) } else { (0, 36) };
        let mut stream = prf_plus(seed, &text, 3 * 32 + 2 * (integrity + cipher)).into_iter();
        let mut part = |len: usize| stream.by_ref().take(len).collect::<Vec<u8>>();
        Self {
            sk_d: part(32),
            sk_ai: part(integrity),
            sk_ar: part(integrity),
            sk_ei: part(cipher),
            sk_er: part(cipher),
            sk_pi: part(32),
            sk_pr: part(32),
        }
    }
}

/// A peer, from its first message on.
pub(crate) struct Evil {
    rng: ChaCha20Rng,
    pub(crate) addr: IpAddr,
    /// Which key pair it signs with.
    pub(crate) key: usize,
    /// Whether it called.
    pub(crate) initiator: bool,
    pub(crate) spi_i: u64,
    pub(crate) spi_r: u64,
    private: Vec<u8>,
    pub(crate) nonce: Vec<u8>,
    peer_nonce: Vec<u8>,
    /// Both IKE_SA_INIT messages that count.
    pub(crate) request: Vec<u8>,
    pub(crate) response: Vec<u8>,
    keys: Option<Keys>,
    rekeys: Rekeys,
    iv: u64,
    /// The id of its next request.
    pub(crate) next_id: u32,
    pub(crate) esp_spi: [u8; 4],
    /// Which of the caller's proposals it answers with.
    number: u8,
    /// What its headers say.
    pub(crate) version: u8,
    /// The common secret and SKEYSEED of the last key exchange.
    agreed: Vec<Vec<u8>>,
    pub(crate) manners: Manners,
    /// Both want ML-KEM.
    quantum: bool,
    /// Both want AES-CBC.
    cbc: bool,
    progress: Progress,
    /// What it can come back with: the ticket, and SK_d of the SA in which it was given.
    ticket: Option<(Vec<u8>, Vec<u8>)>,
    /// SK_d of the SA in which it gave its own.
    given: Option<Vec<u8>>,
    /// It had keys that were made of earlier ones.
    pub(crate) returned: bool,
}

impl Evil {
    pub(crate) fn new(addr: IpAddr, key: usize, initiator: bool, mut rng: ChaCha20Rng) -> Self {
        let spi = rng.next_u64() | 1;
        let mut private = vec![0; 32];
        let mut nonce = vec![0; 32];
        rng.fill_bytes(&mut private);
        rng.fill_bytes(&mut nonce);
        let (spi_i, spi_r) = if initiator { (spi, 0) } else { (0, spi) };
        Self {
            rng,
            addr,
            key,
            initiator,
            spi_i,
            spi_r,
            private,
            nonce,
            peer_nonce: Vec::new(),
            request: Vec::new(),
            response: Vec::new(),
            keys: None,
            rekeys: Rekeys::default(),
            iv: 0,
            next_id: u32::from(initiator),
            esp_spi: [0, 1, 2, 3],
            number: 1,
            version: 0x20,
            agreed: Vec::new(),
            manners: Manners::default(),
            quantum: false,
            cbc: false,
            progress: Progress::default(),
            ticket: None,
            given: None,
            returned: false,
        }
    }

    /// The same with these manners.
    pub(crate) fn with(mut self, manners: Manners) -> Self {
        self.manners = manners;
        self.quantum = manners.quantum && self.initiator;
        self.cbc = manners.cbc && self.initiator;
        self
    }

    pub(crate) fn is_keyed(&self) -> bool {
        self.keys.is_some()
    }

    fn public_of(private: &[u8]) -> Vec<u8> {
        let private = PrivateKey::from_private_key(&X25519, private).unwrap();
        private.compute_public_key().unwrap().as_ref().to_vec()
    }

    fn agree(private: &[u8], peer: &[u8]) -> Option<Vec<u8>> {
        let private = PrivateKey::from_private_key(&X25519, private).unwrap();
        let peer = UnparsedPublicKey::new(&X25519, peer);
        agreement::agree(&private, peer, (), |secret| Ok(secret.to_vec())).ok()
    }

    /// SA, KE, Nonce, and what it announces; for who comes back, Nonce and ticket.
    pub(crate) fn init_payloads(&self) -> Vec<Payload> {
        if self.progress.resumed.is_some() {
            return self.resume_payloads();
        }
        let mut payloads = vec![
            self.suite(),
            Payload::ke(GROUP, &Self::public_of(&self.private)),
            Payload::new(NONCE, self.nonce.clone()),
            Payload::notify(0, &[], FRAGMENTATION_SUPPORTED, &[]),
            Payload::notify(0, &[], SIGNATURE_HASH_ALGORITHMS, &[0, 2, 0, 3, 0, 4]),
        ];
        payloads.extend(self.announcements());
        payloads
    }

    /// IKE_SA_INIT (or IKE_SESSION_RESUME) of these payloads, remembered as its own.
    pub(crate) fn init(&mut self, payloads: &[Payload]) -> Vec<u8> {
        let flags = if self.initiator { INITIATOR } else { RESPONSE };
        let header = Header {
            spi_i: self.spi_i,
            spi_r: if self.initiator { 0 } else { self.spi_r },
            exchange: self.first_exchange(),
            flags,
            id: 0,
        };
        let (first, body) = chain(payloads);
        let mut octets = header.write(first, &body);
        octets[17] = self.version;
        if self.initiator {
            self.request.clone_from(&octets);
        } else {
            self.response.clone_from(&octets);
        }
        octets
    }

    /// How a handshake of its begins.
    pub(crate) fn first_exchange(&self) -> u8 {
        if self.progress.resumed.is_some() { IKE_SESSION_RESUME } else { IKE_SA_INIT }
    }

    /// Takes the other's IKE_SA_INIT (or IKE_SESSION_RESUME); whether there are keys now.
    pub(crate) fn read_init(&mut self, octets: &[u8]) -> bool {
        let Some((header, first)) = Header::read(octets) else { return false };
        let payloads = split(first, &octets[28..]);
        let of = |kind| payloads.iter().find(|p| p.kind == kind).map(|p| p.body.as_slice());
        let Some(nonce) = of(NONCE) else { return false };
        let secret = if self.progress.resumed.is_some() {
            Vec::new()
        } else {
            let (Some(ke), Some(sa)) = (of(KE), of(SA)) else { return false };
            if !self.initiator {
                self.choose(sa);
            } else {
                self.chosen(sa);
            }
            let Some(secret) = Self::agree(&self.private, &ke[4..]) else { return false };
            secret
        };
        self.peer_nonce = nonce.to_vec();
        if self.initiator {
            self.spi_r = header.spi_r;
            self.response = octets.to_vec();
        } else {
            self.spi_i = header.spi_i;
            self.request = octets.to_vec();
        }
        let nonces = self.nonces(nonce);
        let seed = match &self.progress.resumed {
            Some(sk_d) => {
                self.returned = true;
                prf(sk_d, &[b"Resumption", &nonces])
            }
            None => prf(&nonces, &[&secret]),
        };
        self.keys = Some(Keys::expand(&seed, &nonces, (self.spi_i, self.spi_r), self.cbc));
        self.agreed = vec![secret, seed];
        true
    }

    fn nonces(&self, peer: &[u8]) -> Vec<u8> {
        if self.initiator { [&self.nonce, peer].concat() } else { [peer, &self.nonce].concat() }
    }

    /// ID, AUTH, SA, TSi, TSr: what makes an IKE SA of it and a child for `own` and `peer`.
    pub(crate) fn auth_payloads(&mut self, own: IpAddr, peer: IpAddr) -> Vec<Payload> {
        let id = match self.addr {
            _ if self.manners.proof == Proof::Nothing => Payload::id(self.id_kind(), 13, &[]),
            IpAddr::V4(a) => Payload::id(self.id_kind(), 1, &a.octets()),
            IpAddr::V6(a) => Payload::id(self.id_kind(), 5, &a.octets()),
        };
        let auth = self.auth(&id.body);
        let (ts_i, ts_r) = if self.initiator { (own, peer) } else { (peer, own) };
        let mut payloads = vec![
            id,
            auth,
            Payload::proposal(3, &self.esp_spi, &ESP_SUITE),
            Payload::selector(TS_I, ts_i),
            Payload::selector(TS_R, ts_r),
        ];
        payloads.extend(self.about_tickets());
        payloads
    }

    fn id_kind(&self) -> u8 {
        if self.initiator { ID_I } else { ID_R }
    }

    /// AUTH over an identification payload's body.
    pub(crate) fn auth(&self, id: &[u8]) -> Payload {
        let signed = self.signed(id);
        if let Some(auth) = self.unsigned(&signed) {
            return auth;
        }
        let signature = sign(self.key, SignatureScheme::RsaPkcs1Sha256, &signed);
        Payload::new(AUTH, [&[14, 0, 0, 0][..], &PKCS1_SHA256, &signature].concat())
    }

    /// Everything that only it and the other may know.
    pub(crate) fn secrets(&self) -> Vec<Vec<u8>> {
        let Some(Keys { sk_d, sk_ai, sk_ar, sk_ei, sk_er, sk_pi, sk_pr }) = self.keys.clone()
        else {
            return vec![self.private.clone()];
        };
        // The first child's KEYMAT (RFC 7296 §2.17).
        let nonces = self.nonces(&self.peer_nonce);
        let keymat = prf_plus(&sk_d, &nonces, 72);
        let (first, second) = keymat.split_at(36);
        let esp = [&first[..32], &second[..32]].map(<[u8]>::to_vec);
        let ends = [&sk_ei[..32], &sk_er[..32]].map(<[u8]>::to_vec);
        let signing = vec![self.private.clone(), sk_d, sk_pi, sk_pr];
        let all = [signing, ends.to_vec(), esp.to_vec(), self.agreed.clone(), vec![sk_ai, sk_ar]];
        all.concat().into_iter().filter(|secret| !secret.is_empty()).collect()
    }

    /// What AUTH signs (RFC 7296 §2.15, RFC 9242 §3.3.2).
    fn signed(&self, id: &[u8]) -> Vec<u8> {
        let keys = self.keys.as_ref().unwrap();
        let (message, key) = if self.initiator {
            (&self.request, &keys.sk_pi)
        } else {
            (&self.response, &keys.sk_pr)
        };
        [message, &self.peer_nonce[..], &prf(key, &[id]), &self.covered()].concat()
    }

    /// A new child, or the replacement of the one with this SPI of its.
    pub(crate) fn child_payloads(
        &mut self,
        own: IpAddr,
        peer: IpAddr,
        rekeys: bool,
    ) -> Vec<Payload> {
        let mut nonce = vec![0; 32];
        self.rng.fill_bytes(&mut nonce);
        let mut payloads = Vec::new();
        if rekeys {
            payloads.push(Payload::notify(3, &self.esp_spi, REKEY_SA, &[]));
            self.rng.fill_bytes(&mut self.esp_spi[1..]);
        }
        payloads.extend([
            Payload::proposal(3, &self.esp_spi, &ESP_SUITE),
            Payload::new(NONCE, nonce.clone()),
            Payload::selector(TS_I, own),
            Payload::selector(TS_R, peer),
        ]);
        self.asks_child(nonce);
        payloads
    }

    pub(crate) fn header(&self, exchange: u8, response: bool, id: u32) -> Header {
        let flags =
            if self.initiator { INITIATOR } else { 0 } | if response { RESPONSE } else { 0 };
        Header { spi_i: self.spi_i, spi_r: self.spi_r, exchange, flags, id }
    }

    /// Payloads in an encrypted payload under this header.
    pub(crate) fn seal(&mut self, header: Header, payloads: &[Payload]) -> Vec<u8> {
        self.cover(header, payloads);
        let (first, plaintext) = chain(payloads);
        self.seal_octets(header, SK, first, None, &plaintext, &[])
    }

    /// Any octets in an encrypted payload, or in a fragment of one (RFC 7383 §2.5), behind `outer`
    /// payloads in the clear. What is covered by the ICV is covered rightly.
    pub(crate) fn seal_octets(
        &mut self,
        header: Header,
        kind: u8,
        first: u8,
        fragment: Option<(u16, u16)>,
        plaintext: &[u8],
        outer: &[Payload],
    ) -> Vec<u8> {
        let fragment: Vec<u8> = fragment
            .into_iter()
            .flat_map(|(number, total)| [number.to_be_bytes(), total.to_be_bytes()].concat())
            .collect();
        let mut text = plaintext.to_vec();
        let (iv, icv) = if self.cbc { (16, 16) } else { (8, 16) };
        let padding = if self.cbc { 15 - text.len() % 16 } else { 0 };
        text.resize(text.len() + padding, 0);
        text.push(u8::try_from(padding).unwrap());
        let len = 4 + fragment.len() + iv + text.len() + icv;
        let len = u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes();
        // The chain in the clear ends in the encrypted payload.
        let mut clear = outer.to_vec();
        clear.push(Payload::new(kind, vec![]));
        let (outermost, mut body) = chain(&clear);
        body.truncate(body.len() - 4);
        body.extend_from_slice(&[first, 0]);
        body.extend_from_slice(&len);
        body.extend_from_slice(&fragment);
        let whole = body.len() + iv + text.len() + icv;
        let mut out = header.write(outermost, &vec![0; whole]);
        out.truncate(28);
        out[17] = self.version;
        out.extend_from_slice(&body);
        self.encrypt(&mut out, text);
        out
    }

    /// The same in fragments of `size` octets.
    pub(crate) fn seal_fragments(
        &mut self,
        header: Header,
        payloads: &[Payload],
        size: usize,
    ) -> Vec<Vec<u8>> {
        self.cover(header, payloads);
        let (first, plaintext) = chain(payloads);
        let chunks: Vec<&[u8]> = plaintext.chunks(size.max(1)).collect();
        let total = u16::try_from(chunks.len()).unwrap();
        (1..=total)
            .zip(chunks)
            .map(|(number, chunk)| {
                let first = if number == 1 { first } else { 0 };
                self.seal_octets(header, SKF, first, Some((number, total)), chunk, &[])
            })
            .collect()
    }

    /// Opens a message of the other's, if it is one and not a fragment.
    pub(crate) fn open(&self, octets: &[u8]) -> Option<(Header, Vec<Payload>)> {
        let (header, outermost) = Header::read(octets)?;
        let plaintext = self.decrypt(octets, 32).filter(|_| outermost == SK)?;
        Some((header, split(octets[28], &plaintext)))
    }
}
