//! What every IKE SA of a node draws on: randomness, names, SPIs, the one output queue.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use sa::{Prefix, SaId, Spi};
use zeroize::Zeroizing;

use crate::api::{Config, Event, IkeId, Output, Transmit};
use crate::cookie::Cookies;
use crate::crypto::Suites;
use crate::exchange::crash_detection::{Hints, TokenMaker};
use crate::exchange::ike_sa_init_responder::Digest;
use crate::half_open::{HalfOpen, prefix};
use crate::ike_sa::{Dropped, Repeat};
use crate::message::{InvalidMessage, NotifyType, Payloads};
use crate::path::NAT_PORT;
use crate::ticket::Tickets;

/// What has passed through since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Datagrams received.
    pub messages_in: u64,
    /// Datagrams sent, retransmissions included.
    pub messages_out: u64,
    /// Requests sent again because no answer came.
    pub retransmissions: u64,
    /// Dropped: not a well-formed IKEv2 message.
    pub dropped_invalid: u64,
    /// Dropped: the integrity check failed.
    pub dropped_integrity: u64,
    /// Dropped: no IKE SA has these SPIs.
    pub dropped_unknown_spi: u64,
    /// Dropped: outside the window, of the wrong role, or not awaited.
    pub dropped_stray: u64,
    /// Dropped: too many half-open SAs.
    pub dropped_half_open: u64,
    /// Requests answered with INVALID_IKE_SPI and a token.
    pub lost_told: u64,
    /// Cookies asked for.
    pub cookies_sent: u64,
    /// Cookies brought that were not ours, or too old.
    pub cookies_refused: u64,
    /// IKE SAs established, as initiator.
    pub established_initiator: u64,
    /// IKE SAs established, as responder.
    pub established_responder: u64,
    /// Peers that did not authenticate, as either.
    pub authentication_failed: u64,
    /// Children agreed on, rekeyed ones included.
    pub children_up: u64,
}

/// What every IKE SA draws on.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) rng: ChaCha20Rng,
    pub(crate) outputs: VecDeque<Output>,
    pub(crate) counters: Counters,
    /// Makes our tokens (RFC 6290).
    pub(crate) tokens: Option<TokenMaker>,
    /// Tickets that we give (RFC 5723).
    pub(crate) tickets: Option<Tickets>,
    started: Instant,
    /// Answers that an IKE SA is lost.
    pub(crate) lost_told: Hints,
    /// Hints that an ESP SA is lost.
    pub(crate) hints_sent: Hints,
    /// Unprotected hints that we heed.
    pub(crate) hints_heeded: Hints,
    pub(crate) cookies: Cookies,
    pub(crate) half_open: HalfOpen,
    /// Our own IKE SPIs.
    pub(crate) spis: BTreeMap<u64, IkeId>,
    /// Children, by the IKE SA above them.
    pub(crate) children: BTreeMap<SaId, IkeId>,
    /// The same children by the SPIs that their peers have chosen; of several that are the same, one.
    outward: BTreeMap<u32, SaId>,
    /// The others of those, by where their peers are as well.
    namesakes: BTreeSet<(u32, IpAddr, SaId)>,
    /// IKE SAs of whatever state, by the peer's address.
    remotes: BTreeMap<IpAddr, usize>,
    /// The same by the prefix that the address is in.
    neighbours: BTreeMap<Prefix, usize>,
    /// Our own ESP SPIs.
    pub(crate) esp_spis: BTreeSet<u32>,
    /// Our own addresses, as far as we were told.
    pub(crate) addresses: Vec<IpAddr>,
    next_ike: u64,
    next_sa: u64,
    /// Answers to the last requests of SAs that are gone.
    pub(crate) graves: Graves,
}

/// Answers to last requests by our SPI, and these by the time when they are forgotten: all are
/// kept equally long.
#[derive(Debug, Default)]
pub(crate) struct Graves {
    by_spi: BTreeMap<u64, Grave>,
    by_age: VecDeque<(Instant, u64)>,
}

impl Graves {
    pub(crate) fn get(&self, spi: u64) -> Option<&Grave> {
        self.by_spi.get(&spi)
    }

    /// When the oldest is to be forgotten.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.by_age.front().map(|(until, _)| *until)
    }

    /// Forgets what is old enough.
    pub(crate) fn clear_until(&mut self, now: Instant) {
        while self.deadline().is_some_and(|until| until <= now) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, spi)) = self.by_age.pop_front() {
            self.by_spi.remove(&spi);
        }
    }
}

/// The answer to an SA's last request, kept in case it was lost (RFC 7296 §2.1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Grave {
    /// The request, digested.
    pub(crate) request: Digest,
    pub(crate) datagrams: Vec<Vec<u8>>,
}

impl Shared {
    pub(crate) fn new(config: Config, rng: ChaCha20Rng, now: Instant) -> Self {
        Self {
            // What seals is replaced one day, and forgotten then.
            tickets: Tickets::new(&config.ticket_keys),
            started: now,
            tokens: config.token_secret.as_ref().map(|s| TokenMaker::new(s.octets())),
            lost_told: Hints::default(),
            hints_sent: Hints::default(),
            hints_heeded: Hints::default(),
            config: config.without_secrets(),
            rng,
            outputs: VecDeque::new(),
            counters: Counters::default(),
            cookies: Cookies::default(),
            half_open: HalfOpen::default(),
            spis: BTreeMap::new(),
            children: BTreeMap::new(),
            outward: BTreeMap::new(),
            namesakes: BTreeSet::new(),
            remotes: BTreeMap::new(),
            neighbours: BTreeMap::new(),
            esp_spis: BTreeSet::new(),
            addresses: Vec::new(),
            next_ike: 1,
            next_sa: 1,
            graves: Graves::default(),
        }
    }

    /// Seconds since 1970.
    pub(crate) fn unix(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.started);
        self.config.started.saturating_add(since).as_secs()
    }

    /// What algorithms will do.
    pub(crate) fn suites(&self) -> Suites {
        Suites { compatibility: self.config.compatibility, additional: false }
    }

    /// The same, with an additional key exchange if there may be one: for a new IKE SA, and for what
    /// either side asks for under one, however that began (RFC 9370 §2.2.4).
    pub(crate) fn init_suites(&self) -> Suites {
        Suites { additional: self.config.post_quantum, ..self.suites() }
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    pub(crate) fn send(&mut self, local: SocketAddr, remote: SocketAddr, datagrams: Vec<Vec<u8>>) {
        for octets in datagrams {
            self.counters.messages_out += 1;
            let marker = local.port() == NAT_PORT;
            self.outputs.push_back(Output::Transmit(Transmit { local, remote, marker, octets }));
        }
    }

    pub(crate) fn count(&mut self, dropped: Dropped) {
        match dropped {
            Dropped::Invalid(InvalidMessage::Integrity) => self.counters.dropped_integrity += 1,
            Dropped::Invalid(_) => self.counters.dropped_invalid += 1,
            Dropped::Stray => self.counters.dropped_stray += 1,
        }
    }

    /// Forgets how the numbers so far were made: the generator goes on from a key of its own making.
    /// Who reads this memory later learns nothing of the key exchanges that are over.
    pub(crate) fn forget_what_was_drawn(&mut self) {
        if self.rng.get_word_pos() != 0 {
            let mut seed = Zeroizing::new([0; 32]);
            self.rng.fill_bytes(&mut seed[..]);
            self.rng = ChaCha20Rng::from_seed(*seed);
        }
    }

    pub(crate) fn fresh_ike_id(&mut self) -> IkeId {
        let id = IkeId(self.next_ike);
        self.next_ike += 1;
        id
    }

    pub(crate) fn fresh_sa_id(&mut self, ike: IkeId) -> SaId {
        let id = SaId(self.next_sa);
        self.next_sa += 1;
        self.children.insert(id, ike);
        id
    }

    /// A new IKE SPI of ours: random, never zero (RFC 7296 §2.6).
    pub(crate) fn fresh_ike_spi(&mut self, ike: IkeId) -> u64 {
        loop {
            let spi = self.rng.next_u64();
            if spi != 0 && !self.spis.contains_key(&spi) {
                self.spis.insert(spi, ike);
                return spi;
            }
        }
    }

    /// A new ESP SPI of ours, random.
    pub(crate) fn fresh_esp_spi(&mut self) -> Spi {
        loop {
            if let Some(spi) = Spi::new(self.rng.next_u32())
                && self.esp_spis.insert(spi.get())
            {
                return spi;
            }
        }
    }

    pub(crate) fn drop_esp_spi(&mut self, spi: Spi) {
        self.esp_spis.remove(&spi.get());
    }

    /// 32 octets: half the key length of every prf of ours, or more (RFC 7296 §2.10).
    pub(crate) fn nonce(&mut self) -> Vec<u8> {
        let mut nonce = vec![0; 32];
        self.rng.fill_bytes(&mut nonce);
        nonce
    }

    /// The longest message that goes whole to a peer who said this, in octets; `None` if it takes no
    /// fragments.
    pub(crate) fn longest_whole(&self, said: &Payloads) -> Option<usize> {
        said.notify(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED)?;
        Some(self.config.fragment_size.saturating_sub(OUTSIDE))
    }

    /// A life, less up to a tenth, so that both sides and all SAs do not rekey at once.
    pub(crate) fn shortened(&mut self, life: Duration) -> Duration {
        life - life / 1000 * (self.rng.next_u32() % 100)
    }

    /// When an SA that was made of a ticket is to have a key exchange of its own.
    pub(crate) fn a_moment_after(&mut self, now: Instant) -> Instant {
        let spread = u32::try_from(RESUMED_SPREAD.as_millis()).unwrap_or(u32::MAX);
        now + RESUMED_LEAST + Duration::from_millis((self.rng.next_u32() % spread).into())
    }

    /// When to try again what could not be done now.
    pub(crate) fn soon(&mut self, now: Instant) -> Instant {
        now + RETRY_LEAST + Duration::from_millis(u64::from(self.rng.next_u32() % 2000))
    }

    /// How what comes before an IKE SA stands is repeated, and what ends one.
    pub(crate) fn repeat(&self, now: Instant) -> Repeat {
        Repeat::new(now, self.config.retransmit_first, self.config.retransmit_tries)
    }

    /// How what is asked under an IKE SA that is to go on standing is repeated.
    pub(crate) fn repeat_patiently(&self, now: Instant) -> Repeat {
        self.repeat(now).patient(self.config.patience)
    }

    /// The peer at this address receives on this SPI for a child.
    pub(crate) fn name_child(&mut self, spi: Spi, remote: IpAddr, sa: SaId) {
        if *self.outward.entry(spi.get()).or_insert(sa) != sa {
            self.namesakes.insert((spi.get(), remote, sa));
        }
    }

    /// And no longer.
    pub(crate) fn unname_child(&mut self, spi: Spi, remote: IpAddr, sa: SaId) {
        if self.outward.get(&spi.get()) == Some(&sa) {
            self.outward.remove(&spi.get());
        } else {
            self.namesakes.remove(&(spi.get(), remote, sa));
        }
    }

    /// And from another address.
    pub(crate) fn move_child(&mut self, spi: Spi, (from, to): (IpAddr, IpAddr), sa: SaId) {
        if self.namesakes.remove(&(spi.get(), from, sa)) {
            self.namesakes.insert((spi.get(), to, sa));
        }
    }

    /// The IKE SAs whose peers may receive on this SPI at this address. It is one, but for a NAT before
    /// several, or somebody who plays.
    pub(crate) fn named(&self, spi: u32, remote: IpAddr) -> BTreeSet<IkeId> {
        let there = (spi, remote, SaId(0))..=(spi, remote, SaId(u64::MAX));
        let others = self.namesakes.range(there).map(|(_, _, sa)| sa);
        let all = self.outward.get(&spi).into_iter().chain(others.take(MAX_NAMED));
        all.filter_map(|sa| self.children.get(sa).copied()).collect()
    }

    #[cfg(test)]
    pub(crate) fn names_nobody(&self) -> bool {
        self.outward.is_empty() && self.namesakes.is_empty()
    }

    pub(crate) fn add_remote(&mut self, remote: IpAddr) {
        *self.remotes.entry(remote).or_default() += 1;
        *self.neighbours.entry(prefix(remote)).or_default() += 1;
    }

    pub(crate) fn remove_remote(&mut self, remote: IpAddr) {
        one_less(&mut self.remotes, remote);
        one_less(&mut self.neighbours, prefix(remote));
    }

    /// Whether this address, or the prefix it is in, has as many IKE SAs as one may have.
    pub(crate) fn is_full(&self, remote: IpAddr) -> bool {
        self.remotes.get(&remote).is_some_and(|count| *count >= MAX_PER_ADDRESS)
            || self.neighbours.get(&prefix(remote)).is_some_and(|n| *n >= MAX_PER_PREFIX)
    }

    /// Whether any IKE SA, in whatever state, is with this address.
    pub(crate) fn has_remote(&self, remote: IpAddr) -> bool {
        self.remotes.contains_key(&remote)
    }

    /// Whether no other IKE SA, in whatever state, is with this address.
    pub(crate) fn is_alone(&self, remote: IpAddr) -> bool {
        self.remotes.get(&remote).is_none_or(|count| *count <= 1)
    }

    /// Keeps the answer to the last request of an SA that is gone.
    pub(crate) fn bury(&mut self, now: Instant, spi: u64, grave: Grave) {
        if self.graves.by_age.len() >= MAX_GRAVES {
            self.graves.forget_oldest();
        }
        self.graves.by_age.push_back((now + GRAVE_LIFE, spi));
        self.graves.by_spi.insert(spi, grave);
    }
}

fn one_less<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

/// Who has one prefix has all its addresses, and a signed zone for them: a quarter of what there is
/// room for leaves the rest to others.
const MAX_PER_PREFIX: usize = crate::node::MAX_PEERINGS / 4;
/// In opportunism every stranger can authenticate. A NAT may have many honest ones behind it.
const MAX_PER_ADDRESS: usize = 256;
/// Children that one hint may be about. SPIs are random, so of an honest two behind one address it is
/// about one.
const MAX_NAMED: usize = 4;
/// Who comes back with a thousand tickets has the packets of a thousand peers to care for first; the
/// key exchanges follow when that is done, and not at the same moment.
const RESUMED_LEAST: Duration = Duration::from_secs(5);
const RESUMED_SPREAD: Duration = Duration::from_secs(20);
/// RFC 7296 §2.25 leaves the time open; long enough for the other's exchange to end.
const RETRY_LEAST: Duration = Duration::from_millis(500);
/// What stands before an IKE message in a packet: headers of IPv6 and UDP, and the non-ESP marker.
const OUTSIDE: usize = 40 + 8 + 4;
/// As long as the peer may go on asking.
const GRAVE_LIFE: Duration = crate::peering::HALF_OPEN_LIFE;
/// A lost answer to a Delete costs the peer some retransmissions and nothing else.
const MAX_GRAVES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    /// gotatun 0.3.0: SPIs tell nothing of what was before them, are never reserved ones, and never
    /// twice. Each bit of ten thousand is a coin's toss: 5000, with a deviation of 50.
    #[test]
    fn spis_are_random() {
        let mut shared =
            Shared::new(crate::tests::config(0), ChaCha20Rng::from_seed([2; 32]), Instant::now());
        let esp: Vec<u64> = (0..10_000).map(|_| u64::from(shared.fresh_esp_spi().get())).collect();
        let ike: Vec<u64> = (0..10_000).map(|n| shared.fresh_ike_spi(IkeId(n))).collect();
        for (spis, bits) in [(&esp, 32), (&ike, 64)] {
            let distinct: BTreeSet<_> = spis.iter().collect();
            assert_eq!(distinct.len(), spis.len());
            assert!(spis.iter().all(|spi| *spi > 255));
            for bit in 0..bits {
                let set = spis.iter().filter(|spi| *spi >> bit & 1 == 1).count();
                assert!((4700..5300).contains(&set), "bit {bit} of {bits}: {set}");
                let steps = spis.windows(2).filter(|w| (w[0] ^ w[1]) >> bit & 1 == 1).count();
                assert!((4700..5300).contains(&steps), "bit {bit} of {bits}: {steps} changes");
            }
        }
        let mut other =
            Shared::new(crate::tests::config(0), ChaCha20Rng::from_seed([3; 32]), Instant::now());
        assert!((0..100).all(|_| !esp.contains(&u64::from(other.fresh_esp_spi().get()))));
    }

    /// P13.
    #[test]
    fn who_has_a_prefix_does_not_take_all_the_room() {
        let config = crate::tests::config(0);
        let rng = ChaCha20Rng::from_seed([1; 32]);
        let mut shared = Shared::new(config, rng, Instant::now());
        let at =
            |n: usize| IpAddr::from(std::net::Ipv6Addr::from_bits((0x2001_0db8 << 96) + n as u128));
        let mut count = 0;
        while !shared.is_full(at(count)) {
            shared.add_remote(at(count));
            count += 1;
        }
        assert_eq!(count, MAX_PER_PREFIX);
        let other = "2001:db8:0:100::1".parse().unwrap();
        assert!(!shared.is_full(other));
        shared.remove_remote(at(7));
        assert!(!shared.is_full(at(7)));
        (0..count).for_each(|n| shared.remove_remote(at(n)));
        assert!(shared.neighbours.len() <= 1 && shared.remotes.len() <= 1);
    }
}
