//! Tickets (RFC 5723 §6): all that a responder wants to know of a peer that comes back, sealed under
//! a key of its own and kept by the peer.
//!
//! A ticket is good once, and that is certain while the node runs: what was used is remembered until
//! it would not be good any more. Strangers cannot turn that against others. Nobody can have more
//! than a share of what is remembered; and if there are so many that it must end somewhere, what
//! would end first is forgotten, and no ticket is good any more that would end as soon.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::digest;
use rand_core::Rng;
use zeroize::Zeroizing;

use crate::api::{Identity, NodeSecret, PublicKey};
use crate::crypto::{CryptoFailure, IkeSuite, Secret};
use crate::exchange::ike_session_resume::Resumable;
use crate::message::{Identification, Reader};

/// The keys that tickets are sealed with, and the tickets that have been used.
#[derive(Debug)]
pub(crate) struct Tickets {
    current: LessSafeKey,
    previous: Option<LessSafeKey>,
    /// Until when they would be good, and their serial numbers: the first to be forgotten first.
    /// Whose they are.
    used: BTreeMap<(u64, [u8; SERIAL]), Holder>,
    /// How many of them are somebody's.
    holders: BTreeMap<Holder, u32>,
    /// What is good until then or less may have been used, and forgotten.
    floor: u64,
}

/// Whose a ticket is: the beginning of the name of the key. Who makes keys until two have the same
/// shares his own share.
type Holder = [u8; 8];

/// What a ticket says.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) resumable: Resumable,
    serial: [u8; SERIAL],
    /// Seconds since 1970.
    until: u64,
    /// Who the peer said it was, as its ID payload has it.
    identification: Vec<u8>,
    /// Digest of the key it proved that with.
    key: [u8; 32],
}

impl Known {
    /// Whether this is who was known then.
    pub(crate) fn is(&self, peer: &Identification, key: &PublicKey) -> bool {
        self.identification == Identification::of(&peer.identity).octets && self.key == named(key)
    }
}

impl Known {
    fn holder(&self) -> Holder {
        let [a, b, c, d, e, f, g, h, ..] = self.key;
        [a, b, c, d, e, f, g, h]
    }
}

/// A key in 32 octets.
pub(crate) fn named(key: &PublicKey) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    let parts: [&[u8]; 3] = match key {
        PublicKey::Rsa { exponent, modulus } => [b"rsa", exponent, modulus],
        PublicKey::EcdsaP256(point) => [b"p256", point, &[]],
        PublicKey::EcdsaP384(point) => [b"p384", point, &[]],
        PublicKey::Ed25519(point) => [b"ed25519", point, &[]],
    };
    for part in parts {
        let len = u32::try_from(part.len()).unwrap_or(u32::MAX);
        context.update(&len.to_be_bytes());
        context.update(part);
    }
    let mut named = [0; 32];
    named.copy_from_slice(context.finish().as_ref());
    named
}

impl Tickets {
    /// The key in use first, then the one before it.
    pub(crate) fn new(keys: &[NodeSecret]) -> Option<Self> {
        let mut keys = keys
            .iter()
            .filter_map(|key| UnboundKey::new(&AES_256_GCM, key.octets()).ok())
            .map(LessSafeKey::new);
        let current = keys.next()?;
        Some(Self {
            current,
            previous: keys.next(),
            used: BTreeMap::new(),
            holders: BTreeMap::new(),
            floor: 0,
        })
    }

    /// The same tickets are used as before, under other keys.
    pub(crate) fn rotate(&mut self, keys: &[NodeSecret]) {
        if let Some(new) = Self::new(keys) {
            (self.current, self.previous) = (new.current, new.previous);
        }
    }

    /// A ticket for a peer.
    pub(crate) fn seal(
        &self,
        rng: &mut impl Rng,
        until: u64,
        resumable: &Resumable,
        peer: &Identity,
        key: &PublicKey,
    ) -> Result<Vec<u8>, CryptoFailure> {
        let mut nonce = [0; NONCE];
        let mut serial = [0; SERIAL];
        rng.fill_bytes(&mut nonce);
        rng.fill_bytes(&mut serial);
        let identification = Identification::of(peer).octets;
        let (secret, name) = (resumable.to_octets(), named(key));
        let parts: [&[u8]; 5] = [&serial, &until.to_be_bytes(), &secret, &name, &identification];
        // In one piece, which is wiped: what grows leaves copies behind.
        let mut text = Zeroizing::new(parts.concat());
        let tag = self
            .current
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(PURPOSE),
                &mut text,
            )
            .map_err(|_| CryptoFailure)?;
        Ok([&nonce, &text[..], tag.as_ref()].concat())
    }

    /// What a ticket of ours says, if it is still good.
    pub(crate) fn open(&mut self, now: u64, ticket: &[u8]) -> Option<Known> {
        while self.used.first_key_value().is_some_and(|((until, _), _)| *until <= now) {
            self.forget_first();
        }
        let (nonce, text) = ticket.split_first_chunk::<NONCE>()?;
        let open = |key: &LessSafeKey| {
            let mut text = Zeroizing::new(text.to_vec());
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let len = key.open_in_place(nonce, Aad::from(PURPOSE), &mut text).ok()?.len();
            text.truncate(len);
            Some(text)
        };
        let text = open(&self.current).or_else(|| open(self.previous.as_ref()?))?;
        let mut reader = Reader::new(&text);
        let serial = reader.array("serial").ok()?;
        let until = reader.u64("until").ok()?;
        let resumable = Resumable::read(&mut reader)?;
        let key = reader.array("key").ok()?;
        let identification = reader.rest().to_vec();
        let known = Known { resumable, serial, until, identification, key };
        (until > now && self.is_good(&known)).then_some(known)
    }

    /// It was not used before, as far as that is certain, and its holder has not had his share.
    fn is_good(&self, known: &Known) -> bool {
        let had = self.holders.get(&known.holder()).copied().unwrap_or_default();
        let used = || self.used.contains_key(&(known.until, known.serial));
        had < MAX_OF_ONE && known.until > self.floor && !used()
    }

    /// It was used, and its peer has proved that it is its own. False if it was before, or if its
    /// holder has used up his share since this was opened: many may be opened before the first is
    /// spent.
    pub(crate) fn spend(&mut self, known: &Known) -> bool {
        if !self.is_good(known) {
            return false;
        }
        self.used.insert((known.until, known.serial), known.holder());
        *self.holders.entry(known.holder()).or_default() += 1;
        if self.used.len() > MAX_USED {
            self.floor = self.forget_first().map_or(self.floor, |until| until.max(self.floor));
        }
        true
    }

    /// Until when it would have been good.
    fn forget_first(&mut self) -> Option<u64> {
        let ((until, _), holder) = self.used.pop_first()?;
        if let Entry::Occupied(mut count) = self.holders.entry(holder) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        Some(until)
    }
}

/// What a suite and a secret are kept as.
impl Resumable {
    pub(crate) fn to_octets(&self) -> Zeroizing<Vec<u8>> {
        let numbers = self.suite.numbers().map(u16::to_be_bytes);
        let len = u16::try_from(self.sk_d.len()).unwrap_or(u16::MAX);
        Zeroizing::new([numbers.as_flattened(), &len.to_be_bytes(), &self.sk_d[..]].concat())
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let mut numbers = [0; IkeSuite::NUMBERS];
        for number in &mut numbers {
            *number = reader.u16("suite").ok()?;
        }
        let suite = IkeSuite::from_numbers(numbers)?;
        let len = reader.u16("length").ok()?;
        let sk_d = reader.take(len.into(), "secret").ok()?;
        Some(Self { suite, sk_d: Secret::new(sk_d.to_vec()) })
    }
}

const NONCE: usize = 12;
const SERIAL: usize = 16;
/// The key is for this and nothing else.
const PURPOSE: &[u8] = b"oe-node ticket 1";
/// Used tickets remembered: as many peers as a node has.
const MAX_USED: usize = 1 << 16;
/// Of these, how many may be tickets that one key was given: more restarts than a node has in a day.
const MAX_OF_ONE: u32 = 64;

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng as _;
    use std::time::Instant;

    use super::*;

    const NOW: u64 = 1_800_000_000;
    /// HMAC-SHA2-256, AES-GCM of 256 bits, X25519 and no more.
    const SUITE: [u16; IkeSuite::NUMBERS] = [5, 20, 256, 31, 0];

    fn spent(serial: u32, until: u64) -> ((u64, [u8; SERIAL]), Holder) {
        let mut octets = [0; SERIAL];
        octets[..4].copy_from_slice(&serial.to_be_bytes());
        ((until, octets), [0; 8])
    }

    /// A ticket given to this holder, good until then.
    fn given(tickets: &Tickets, rng: &mut ChaCha20Rng, holder: u32, until: u64) -> Vec<u8> {
        let mut point = [0; 32];
        point[..4].copy_from_slice(&holder.to_be_bytes());
        let key = PublicKey::Ed25519(point);
        let suite = IkeSuite::from_numbers(SUITE).unwrap();
        let resumable = Resumable { suite, sk_d: Secret::new(vec![3; 32]) };
        tickets.seal(rng, until, &resumable, &Identity::Null, &key).unwrap()
    }

    fn is_taken(tickets: &mut Tickets, ticket: &[u8]) -> bool {
        tickets.open(NOW, ticket).is_some_and(|known| tickets.spend(&known))
    }

    fn some() -> (Tickets, ChaCha20Rng) {
        (Tickets::new(&[[5; 32].into()]).unwrap(), ChaCha20Rng::from_seed([1; 32]))
    }

    /// How long a stranger's worthless ticket takes; the best of some.
    fn cost(tickets: &mut Tickets) -> std::time::Duration {
        let worthless = [7; 200];
        let once = || {
            let begun = Instant::now();
            for _ in 0..50 {
                assert!(tickets.open(NOW, &worthless).is_none());
            }
            begun.elapsed()
        };
        std::iter::repeat_with(once).take(10).min().unwrap_or_default()
    }

    #[test]
    fn one_holder_has_its_share_and_no_more() {
        let (mut tickets, mut rng) = some();
        let all: Vec<_> =
            (0..MAX_OF_ONE).map(|_| given(&tickets, &mut rng, 1, NOW + 100)).collect();
        assert!(all.iter().all(|ticket| is_taken(&mut tickets, ticket)));
        let (more, others) =
            (given(&tickets, &mut rng, 1, NOW + 200), given(&tickets, &mut rng, 2, NOW + 100));
        assert!(!is_taken(&mut tickets, &more));
        assert!(is_taken(&mut tickets, &others));
        // Nor by opening all of them before the first is spent.
        let hoard: Vec<_> =
            (0..2 * MAX_OF_ONE).map(|_| given(&tickets, &mut rng, 3, NOW + 100)).collect();
        let opened: Vec<_> =
            hoard.iter().map(|ticket| tickets.open(NOW, ticket).unwrap()).collect();
        let spent = opened.iter().filter(|known| tickets.spend(known)).count();
        assert_eq!(spent, usize::try_from(MAX_OF_ONE).unwrap());
        // When its own are over it begins anew.
        assert!(tickets.open(NOW + 100, &more).is_some());
        assert!(tickets.holders.is_empty());
    }

    #[test]
    fn many_holders_can_make_tickets_old_and_never_good_twice() {
        let (mut tickets, mut rng) = some();
        let patient = given(&tickets, &mut rng, 0, NOW + 50);
        let early: Vec<_> = (1..20).map(|n| given(&tickets, &mut rng, n, NOW + 50)).collect();
        assert!(early.iter().all(|ticket| is_taken(&mut tickets, ticket)));
        // One that was looked at, and will not be proved before the others are forgotten.
        let slow = given(&tickets, &mut rng, 30, NOW + 50);
        let slow = tickets.open(NOW, &slow).unwrap();
        let mut last = Vec::new();
        for n in 0..u32::try_from(MAX_USED).unwrap() {
            last = given(&tickets, &mut rng, 100 + n / MAX_OF_ONE, NOW + 100);
            assert!(is_taken(&mut tickets, &last), "{n}");
        }
        assert_eq!(tickets.used.len(), MAX_USED);
        assert!(tickets.used.keys().all(|(until, _)| *until == NOW + 100));
        // Nobody remembers these, and yet they are not good; who never came back has lost by it.
        assert!(!early.iter().any(|ticket| is_taken(&mut tickets, ticket)));
        assert!(!tickets.spend(&slow));
        assert!(!is_taken(&mut tickets, &last));
        assert!(!is_taken(&mut tickets, &patient));
        // Whoever gets one now can come back with it.
        let new = given(&tickets, &mut rng, 0, NOW + 101);
        assert!(is_taken(&mut tickets, &new));
        assert!(!is_taken(&mut tickets, &new));
        assert!(tickets.used.len() <= MAX_USED);
    }

    #[test]
    fn a_strangers_ticket_costs_the_same_whatever_was_spent() {
        let mut tickets = Tickets::new(&[[5; 32].into()]).unwrap();
        let before = cost(&mut tickets);
        tickets.used.extend((1..60_000).map(|serial| spent(serial, NOW + u64::from(serial))));
        let after = cost(&mut tickets);
        assert!(after < 10 * before, "{before:?}, {after:?}");
    }

    #[test]
    fn what_was_spent_is_forgotten_when_it_would_not_be_good_any_more() {
        let mut tickets = Tickets::new(&[[5; 32].into()]).unwrap();
        tickets.used.extend((0..100).map(|serial| spent(serial, NOW + u64::from(serial))));
        assert!(tickets.open(NOW + 49, &[]).is_none());
        assert_eq!(tickets.used.len(), 50);
        assert!(tickets.open(NOW + 1000, &[]).is_none());
        assert!(tickets.used.is_empty());
    }
}
