//! Replacements of its IKE SA and of its children, asked for and answered as by a peer that keeps to
//! RFC 7296 §1.3 and RFC 9370 §2.2.4; and the IKE SAs that it has had meanwhile, under which it can go
//! on speaking.

use std::net::IpAddr;

use aws_lc_rs::kem::{Ciphertext, DecapsulationKey, EncapsulationKey, ML_KEM_768};
use rand_core::Rng as _;

use super::super::wire::{
    ADDITIONAL_KEY_EXCHANGE, Header, KE, NONCE, NOTIFY, Payload, SA, TS_I, TS_R,
};
use super::manners::{ML_KEM, proposal_of};
use super::{ESP_SUITE, Evil, GROUP, Keys, prf, prf_plus};

/// An IKE SA that it can speak under.
struct Line {
    keys: Option<Keys>,
    spi_i: u64,
    spi_r: u64,
    initiator: bool,
    next_id: u32,
    /// The newest has the most.
    age: u32,
    /// Made as the other asked for it, and not used by the other so far.
    unproven: bool,
}

/// What it has asked for by CREATE_CHILD_SA.
struct Asked {
    private: Vec<u8>,
    nonce: Vec<u8>,
    /// Of an IKE SA's successor.
    spi: Option<u64>,
}

/// What both agree on.
struct Agreed {
    /// The successor's SPIs, if it is one.
    successor: Option<(u64, u64)>,
    /// Whether the peer asked the other for it.
    asked: bool,
    secret: Vec<u8>,
    nonces: Vec<u8>,
    /// What the second key exchange refers to.
    link: Vec<u8>,
    ours: Option<DecapsulationKey>,
}

/// All that it remembers of replacements.
#[derive(Default)]
pub(super) struct Rekeys {
    lines: Vec<Line>,
    age: u32,
    unproven: bool,
    asked: Option<Asked>,
    agreed: Option<Agreed>,
    /// Of the other's SAs that it has made, those under which the other has spoken.
    pub(super) proven: usize,
    /// Second key exchanges that it has come to the end of: as the one who asked, and as the other.
    pub(super) followups: [usize; 2],
    /// Every key of a child, and what went into it.
    pub(super) keymat: Vec<Vec<u8>>,
}

fn of(payloads: &[Payload], kind: u8) -> Option<&[u8]> {
    payloads.iter().find(|p| p.kind == kind).map(|p| p.body.as_slice())
}

fn link_of(payloads: &[Payload]) -> Option<Vec<u8>> {
    let link = payloads.iter().find(|p| p.notify_type() == Some(ADDITIONAL_KEY_EXCHANGE))?;
    link.body.get(4..).map(<[u8]>::to_vec)
}

impl Evil {
    fn fresh(&mut self) -> (Vec<u8>, Vec<u8>) {
        let (mut private, mut nonce) = (vec![0; 32], vec![0; 32]);
        self.rng.fill_bytes(&mut private);
        self.rng.fill_bytes(&mut nonce);
        (private, nonce)
    }

    /// A replacement of the IKE SA.
    pub(crate) fn rekey_payloads(&mut self) -> Vec<Payload> {
        let (private, nonce) = self.fresh();
        let spi = self.rng.next_u64() | 1;
        let payloads = vec![
            Payload::proposal(1, &spi.to_be_bytes(), &self.transforms(self.manners.quantum)),
            Payload::new(NONCE, nonce.clone()),
            Payload::ke(GROUP, &Self::public_of(&private)),
        ];
        self.rekeys.asked = Some(Asked { private, nonce, spi: Some(spi) });
        payloads
    }

    /// It has asked for a child with this nonce, and without a key exchange.
    pub(super) fn asks_child(&mut self, nonce: Vec<u8>) {
        self.rekeys.asked = Some(Asked { private: Vec::new(), nonce, spi: None });
    }

    /// A new child, or a replacement, with a key exchange of its own; with a second one if it is so
    /// inclined.
    pub(crate) fn strong_child_payloads(
        &mut self,
        own: IpAddr,
        peer: IpAddr,
        rekeys: bool,
    ) -> Vec<Payload> {
        let mut payloads = self.child_payloads(own, peer, rekeys);
        let (private, _) = self.fresh();
        let mut suite = ESP_SUITE.to_vec();
        suite.push((4, GROUP, 0));
        suite.extend(self.manners.quantum.then_some(ML_KEM));
        let proposal = Payload::proposal(3, &self.esp_spi, &suite);
        let at = payloads.iter().position(|p| p.kind == SA).unwrap();
        payloads[at] = proposal;
        payloads.insert(at + 2, Payload::ke(GROUP, &Self::public_of(&private)));
        self.rekeys.asked.as_mut().unwrap().private = private;
        payloads
    }

    /// The other has agreed to what it asked for; it is made, or waits for a second key exchange.
    pub(crate) fn rekeyed(&mut self, payloads: &[Payload]) -> bool {
        let (Some(sa), Some(nonce)) = (of(payloads, SA), of(payloads, NONCE)) else { return false };
        let Some(asked) = self.rekeys.asked.take() else { return false };
        if (sa.get(5) == Some(&1)) != asked.spi.is_some() {
            return false;
        }
        let secret = match of(payloads, KE).and_then(|ke| ke.get(4..)) {
            Some(ke) if !asked.private.is_empty() => Self::agree(&asked.private, ke),
            _ => asked.spi.is_none().then(Vec::new),
        };
        let Some(secret) = secret else { return false };
        let theirs = sa.get(8..16).and_then(|spi| spi.try_into().ok()).map(u64::from_be_bytes);
        let agreed = Agreed {
            successor: asked.spi.zip(theirs),
            asked: true,
            secret,
            nonces: [&asked.nonce, nonce].concat(),
            link: link_of(payloads).unwrap_or_default(),
            ours: None,
        };
        if agreed.link.is_empty() {
            self.make(agreed, &[]);
        } else {
            self.rekeys.agreed = Some(agreed);
        }
        true
    }

    /// Its half of the second key exchange, if one is due.
    pub(crate) fn followup_payloads(&mut self) -> Option<Vec<Payload>> {
        let agreed = self.rekeys.agreed.as_mut().filter(|agreed| agreed.asked)?;
        let ours = agreed
            .ours
            .get_or_insert_with(|| DecapsulationKey::generate(&ML_KEM_768).unwrap())
            .encapsulation_key()
            .and_then(|key| key.key_bytes().map(|octets| octets.as_ref().to_vec()))
            .unwrap();
        let link = Payload::notify(0, &[], ADDITIONAL_KEY_EXCHANGE, &agreed.link);
        Some(vec![Payload::ke(ML_KEM.1, &ours), link])
    }

    /// Whether what it has asked for waits for its half.
    pub(crate) fn is_halfway(&self) -> bool {
        self.rekeys.agreed.as_ref().is_some_and(|agreed| agreed.asked)
    }

    /// The other half has come.
    pub(crate) fn take_followup(&mut self, payloads: &[Payload]) -> bool {
        let Some(ke) = of(payloads, KE).and_then(|ke| ke.get(4..)) else { return false };
        let Some(mut agreed) = self.rekeys.agreed.take_if(|agreed| agreed.asked) else {
            return false;
        };
        let ours = agreed.ours.take();
        let Some(secret) = ours.and_then(|ours| ours.decapsulate(Ciphertext::from(ke)).ok()) else {
            return false;
        };
        self.rekeys.followups[0] += 1;
        self.make(agreed, secret.as_ref());
        true
    }

    /// What it answers to CREATE_CHILD_SA if it means well. A successor is there at once; the answer goes
    /// under the old SA ([`Self::select`]).
    pub(crate) fn answer_create(&mut self, asked: &[Payload]) -> Vec<Payload> {
        let refused = |kind| vec![Payload::notify(0, &[], kind, &[])];
        let (Some(sa), Some(nonce_i)) = (of(asked, SA), of(asked, NONCE)) else {
            return refused(7);
        };
        let (sa, nonce_i) = (sa.to_vec(), nonce_i.to_vec());
        let for_ike = sa.get(5) == Some(&1);
        let (private, nonce_r) = self.fresh();
        let theirs = of(asked, KE).filter(|ke| ke.starts_with(&GROUP.to_be_bytes()));
        let secret = theirs.and_then(|ke| Self::agree(&private, &ke[4..]));
        let cipher = if for_ike { self.transforms(false)[0].1 } else { ESP_SUITE[0].1 };
        let fits = |strong: bool| {
            proposal_of(&sa, |transforms| {
                let has = |kind| transforms.iter().any(|t| t.0 == kind);
                transforms.contains(&(1, cipher))
                    && has(4) == secret.is_some()
                    && (6..13).any(has) == strong
            })
        };
        let strong = fits(true).filter(|_| self.manners.quantum && secret.is_some());
        let Some(number) = strong.or_else(|| fits(false)) else { return refused(14) };
        let own = self.rng.next_u64() | 1;
        let mut payloads = if for_ike {
            vec![Payload::proposal(1, &own.to_be_bytes(), &self.transforms(strong.is_some()))]
        } else {
            self.rng.fill_bytes(&mut self.esp_spi[1..]);
            let mut suite = ESP_SUITE.to_vec();
            suite.extend(secret.as_ref().map(|_| (4, GROUP, 0)));
            suite.extend(strong.map(|_| ML_KEM));
            vec![Payload::proposal(3, &self.esp_spi, &suite)]
        };
        payloads[0].body[4] = number;
        payloads.push(Payload::new(NONCE, nonce_r.clone()));
        if secret.is_some() {
            payloads.push(Payload::ke(GROUP, &Self::public_of(&private)));
        }
        payloads.extend(asked.iter().filter(|p| [TS_I, TS_R].contains(&p.kind)).cloned());
        let mut link = vec![0; 12];
        self.rng.fill_bytes(&mut link);
        payloads.extend(strong.map(|_| Payload::notify(0, &[], ADDITIONAL_KEY_EXCHANGE, &link)));
        let theirs = sa.get(8..16).and_then(|spi| spi.try_into().ok()).map(u64::from_be_bytes);
        let agreed = Agreed {
            successor: theirs.filter(|_| for_ike).map(|spi| (spi, own)),
            asked: false,
            secret: secret.unwrap_or_default(),
            nonces: [nonce_i, nonce_r].concat(),
            link,
            ours: None,
        };
        match strong {
            Some(_) => self.rekeys.agreed = Some(agreed),
            None => self.make(agreed, &[]),
        }
        payloads
    }

    /// And to the second key exchange.
    pub(crate) fn answer_followup(&mut self, asked: &[Payload]) -> Vec<Payload> {
        let link = link_of(asked);
        let ours = |agreed: &mut Agreed| !agreed.asked && link.as_ref() == Some(&agreed.link);
        let key =
            of(asked, KE).and_then(|ke| EncapsulationKey::new(&ML_KEM_768, ke.get(4..)?).ok());
        let (Some(agreed), Some(key)) = (self.rekeys.agreed.take_if(ours), key) else {
            // STATE_NOT_FOUND.
            return vec![Payload::new(NOTIFY, [0, 0, 0, 47])];
        };
        let (ciphertext, secret) = key.encapsulate().unwrap();
        self.rekeys.followups[1] += 1;
        self.make(agreed, secret.as_ref());
        vec![Payload::ke(ML_KEM.1, ciphertext.as_ref())]
    }

    /// RFC 7296 §2.17, §2.18, with what RFC 9370 §2.2.4 adds.
    fn make(&mut self, agreed: Agreed, additional: &[u8]) {
        let Agreed { successor, asked, secret, nonces, .. } = agreed;
        let Some(Keys { sk_d, .. }) = &self.keys else { return };
        let Some((spi_i, spi_r)) = successor else {
            let seed = [&secret, &nonces, additional].concat();
            let keymat = prf_plus(sk_d, &seed, 72);
            let (first, second) = keymat.split_at(36);
            let all = [first, second, &secret, additional].map(<[u8]>::to_vec);
            self.rekeys.keymat.extend(all.into_iter().filter(|octets| !octets.is_empty()));
            return;
        };
        let seed = prf(sk_d, &[&secret, &nonces, additional]);
        let keys = Keys::expand(&seed, &nonces, (spi_i, spi_r), self.cbc);
        self.agreed = vec![secret, additional.to_vec(), seed];
        let next_id = 0;
        let age = self.rekeys.lines.iter().map(|line| line.age).chain([self.rekeys.age]).max();
        let age = age.unwrap_or_default() + 1;
        let line = Line {
            keys: Some(keys),
            spi_i,
            spi_r,
            initiator: asked,
            next_id,
            age,
            unproven: !asked,
        };
        if self.rekeys.lines.len() >= MAX_LINES {
            self.rekeys.lines.remove(0);
        }
        self.rekeys.lines.push(line);
        if asked {
            self.select_newest();
        }
    }

    fn swap(&mut self, at: usize) {
        let Some(line) = self.rekeys.lines.get_mut(at) else { return };
        std::mem::swap(&mut self.keys, &mut line.keys);
        std::mem::swap(&mut self.spi_i, &mut line.spi_i);
        std::mem::swap(&mut self.spi_r, &mut line.spi_r);
        std::mem::swap(&mut self.initiator, &mut line.initiator);
        std::mem::swap(&mut self.next_id, &mut line.next_id);
        std::mem::swap(&mut self.rekeys.age, &mut line.age);
        std::mem::swap(&mut self.rekeys.unproven, &mut line.unproven);
    }

    /// Speaks under the SA of this header from now on, if it has it.
    pub(crate) fn select(&mut self, header: Header) -> bool {
        let spis = (header.spi_i, header.spi_r);
        if spis == (self.spi_i, self.spi_r) {
            return true;
        }
        let found = self.rekeys.lines.iter().position(|line| (line.spi_i, line.spi_r) == spis);
        found.map(|at| self.swap(at)).is_some()
    }

    /// The other has spoken under this SA.
    pub(super) fn is_used(&mut self) {
        self.rekeys.proven += usize::from(std::mem::take(&mut self.rekeys.unproven));
    }

    /// Speaks under any of the others.
    pub(crate) fn select_other(&mut self, which: usize) {
        if let Some(at) = which.checked_rem(self.rekeys.lines.len()) {
            self.swap(at);
        }
    }

    /// Whether there is more than one SA that it could speak under.
    pub(crate) fn has_others(&self) -> bool {
        !self.rekeys.lines.is_empty()
    }

    /// Speaks under its newest SA.
    pub(crate) fn select_newest(&mut self) {
        let lines = self.rekeys.lines.iter().enumerate();
        if let Some((at, line)) = lines.max_by_key(|(_, line)| line.age)
            && line.age > self.rekeys.age
        {
            self.swap(at);
        }
    }

    /// Whether it speaks under what IKE_AUTH has made.
    pub(crate) fn is_first(&self) -> bool {
        self.rekeys.age == 0
    }

    /// It begins anew, and nothing that was helps.
    pub(super) fn forget_lines(&mut self) {
        self.rekeys.lines.clear();
        (self.rekeys.age, self.rekeys.unproven) = (0, false);
        (self.rekeys.asked, self.rekeys.agreed) = (None, None);
    }

    /// What it has come to: SAs that it made as the other asked and that the other then used, and second
    /// key exchanges, asked for and answered.
    pub(crate) fn came_to(&self) -> [usize; 3] {
        let [asked, answered] = self.rekeys.followups;
        [self.rekeys.proven, asked, answered]
    }

    /// Every key of a child that was made by CREATE_CHILD_SA, and what went into it.
    pub(crate) fn keymat(&self) -> &[Vec<u8>] {
        &self.rekeys.keymat
    }
}

/// As many as the other keeps, and more.
const MAX_LINES: usize = 8;
