//! The SAD (RFC 4301 §4.4.2): pairs by SPI and by name, and whose address is whose.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use sa::{
    DOUBTFUL, Envelope, Flow, Limits, Mode, SaId, SaPair, TrafficSelector, Translation, Trust,
    UNANSWERED, UNANSWERED_AGAIN, Use,
};

use crate::aead::Provider;
use crate::counters::Reason;
use crate::esp::{Key, Opener, Sealer};
use crate::hash::Seeded;
use crate::packet::{Fragment, Inner, is_error_message};
use crate::path::Path;
use crate::prefixes::PrefixTable;
use crate::spd::Spd;

/// One pair at work.
pub(crate) struct Sa {
    pub(crate) id: SaId,
    pub(crate) envelope: Envelope,
    pub(crate) sealer: Sealer,
    pub(crate) opener: Opener,
    pub(crate) usage: Usage,
    /// What our own address is inside, if not itself.
    pub(crate) translation: Option<Translation>,
    /// What fits the way to the peer.
    pub(crate) path: Path,
    /// When the peer was last seen at another address, to say so once a second at most.
    pub(crate) moved: Option<Instant>,
    /// In transport mode: the only flow that it carries, from us to the peer.
    pub(crate) ends: Option<Flow>,
    spi_in: u32,
    local: Selectors,
    remote: Selectors,
    configured: bool,
    /// The flow that the last inbound packet was admitted with, and the owner table's generation
    /// at that time: the next packet is most likely of the same flow.
    admitted: Option<(Flow, u64)>,
}

/// What a pair has carried, and what it still may.
pub(crate) struct Usage {
    pub(crate) packets_in: u64,
    pub(crate) packets_out: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    last_in: Option<Instant>,
    last_out: Option<Instant>,
    limits: Limits,
    soft_sent: bool,
    /// The first packet sent since the last one that came in.
    waiting: Option<Instant>,
    /// What has been told of nothing having come in since, and when.
    told: Option<(Silence, Instant)>,
    /// Used up: nothing more in either direction.
    pub(crate) spent: bool,
}

/// What [`Usage`] has to say after packets went through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Expiry {
    Soft,
    Hard,
}

/// For how long nothing has come in although something was sent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Silence {
    Doubtful,
    Unanswered,
}

impl Usage {
    fn new(limits: Limits) -> Self {
        Self {
            packets_in: 0,
            packets_out: 0,
            bytes_in: 0,
            bytes_out: 0,
            last_in: None,
            last_out: None,
            limits,
            soft_sent: false,
            waiting: None,
            told: None,
            spent: false,
        }
    }

    #[inline]
    pub(crate) fn sent(&mut self, now: Instant, packets: u64, bytes: u64) -> Option<Expiry> {
        self.packets_out = self.packets_out.saturating_add(packets);
        self.bytes_out = self.bytes_out.saturating_add(bytes);
        self.last_out = Some(now);
        self.expiry(self.packets_out, self.bytes_out)
    }

    #[inline]
    pub(crate) fn received(&mut self, now: Instant, bytes: u64) -> Option<Expiry> {
        self.packets_in = self.packets_in.saturating_add(1);
        self.bytes_in = self.bytes_in.saturating_add(bytes);
        self.last_in = Some(now);
        self.waiting = None;
        self.told = None;
        self.expiry(self.packets_in, self.bytes_in)
    }

    /// What to say, on sending, of nothing having come in for too long.
    #[inline]
    pub(crate) fn silence(&mut self, now: Instant) -> Option<Silence> {
        let since = *self.waiting.get_or_insert(now);
        let silence = match now.saturating_duration_since(since) {
            long if long >= UNANSWERED => Silence::Unanswered,
            long if long >= DOUBTFUL => Silence::Doubtful,
            _ => return None,
        };
        let known = self.told.is_some_and(|(told, at)| {
            let lately = now.saturating_duration_since(at) < UNANSWERED_AGAIN;
            told > silence || (told == silence && (lately || silence == Silence::Doubtful))
        });
        if known {
            return None;
        }
        self.told = Some((silence, now));
        Some(silence)
    }

    /// Packets that may still be sent.
    #[inline]
    pub(crate) fn packets_left(&self) -> u64 {
        self.limits.hard_packets.saturating_sub(self.packets_out)
    }

    #[inline]
    fn expiry(&mut self, packets: u64, bytes: u64) -> Option<Expiry> {
        if packets >= self.limits.hard_packets || bytes >= self.limits.hard_bytes {
            return self.spend();
        }
        if packets >= self.limits.soft_packets || bytes >= self.limits.soft_bytes {
            return (!std::mem::replace(&mut self.soft_sent, true)).then_some(Expiry::Soft);
        }
        None
    }

    /// Ends the pair; says so once.
    pub(crate) fn spend(&mut self) -> Option<Expiry> {
        (!std::mem::replace(&mut self.spent, true)).then_some(Expiry::Hard)
    }

    pub(crate) fn report(&self, now: Instant) -> Use {
        Use {
            packets_in: self.packets_in,
            packets_out: self.packets_out,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            idle_in: self.last_in.map(|at| now.saturating_duration_since(at)),
            idle_out: self.last_out.map(|at| now.saturating_duration_since(at)),
        }
    }
}

/// The selectors of one side of a pair.
struct Selectors(Vec<TrafficSelector>);

impl Selectors {
    /// Whether they have all of a protocol's messages at an address.
    fn has_all(&self, addr: IpAddr, protocol: u8) -> bool {
        self.0.iter().any(|ts| ts.ports() == (0, u16::MAX) && ts.matches(addr, protocol, 0))
    }

    fn contains(&self, addr: IpAddr) -> bool {
        self.0.iter().any(|ts| ts.contains(addr))
    }

    /// Addresses alone decide.
    fn is_plain(&self) -> bool {
        self.0.iter().all(TrafficSelector::is_plain)
    }
}

impl Sa {
    /// Whether this packet may leave by it: what its selectors let out, as long as it is not used up.
    pub(crate) fn takes(&self, inner: &Inner) -> bool {
        !self.usage.spent && inner.traffic().matches(&self.local.0, &self.remote.0)
    }
}

/// All pairs.
pub(crate) struct Sad {
    pairs: Vec<Option<Box<Sa>>>,
    free: Vec<usize>,
    by_spi: HashMap<u32, usize, Seeded>,
    by_id: HashMap<u64, usize, Seeded>,
    owners: PrefixTable<Vec<Owner>>,
    /// Changes whenever `owners` does.
    generation: u64,
}

/// Who may send from a prefix.
#[derive(Clone)]
struct Owner {
    sa: SaId,
    /// For a configured pair: to whom. What it says of a prefix it says of traffic with these, and of no
    /// other.
    configured: Option<Arc<Selectors>>,
    /// It may go on, and stands in nobody's way.
    leaving: bool,
    /// For single protocols or ports also or only.
    in_part: bool,
    /// The peer's outer address.
    peer: SocketAddr,
}

impl Owner {
    /// Whether both are one configured peer's, which has the ports of an address apart.
    fn is_beside(&self, other: &Self) -> bool {
        let configured = self.configured.is_some() && other.configured.is_some();
        configured && self.peer == other.peer && (self.in_part || other.in_part)
    }
}

/// Why a pair was not added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refused {
    Full,
    Duplicate,
    Unusable,
}

impl Sad {
    pub(crate) fn new(hasher: Seeded) -> Self {
        Self {
            pairs: Vec::new(),
            free: Vec::new(),
            by_spi: HashMap::with_hasher(hasher),
            by_id: HashMap::with_hasher(hasher),
            owners: PrefixTable::new(hasher),
            generation: 0,
        }
    }

    /// Adds a pair, ready to receive and to send.
    pub(crate) fn add(
        &mut self,
        pair: &SaPair,
        provider: Provider,
        path: Path,
    ) -> Result<(), Refused> {
        if self.by_id.len() >= MAX_PAIRS {
            return Err(Refused::Full);
        }
        if self.by_spi.contains_key(&pair.spi_in.get()) || self.by_id.contains_key(&pair.id.0) {
            return Err(Refused::Duplicate);
        }
        let prefixes = prefixes(&pair.remote);
        if prefixes.len() > MAX_PREFIXES {
            return Err(Refused::Unusable);
        }
        let ends = match pair.mode {
            Mode::Tunnel => None,
            Mode::Transport => Some(ends(pair).ok_or(Refused::Unusable)?),
        };
        let key = |key| Key::new(provider, pair.cipher, key).ok_or(Refused::Unusable);
        let sealer = Sealer::new(
            key(&pair.key_out)?,
            pair.key_out.salt(),
            pair.spi_out.to_be_bytes(),
            pair.esn,
        );
        let opener = Opener::new(key(&pair.key_in)?, pair.key_in.salt(), pair.esn);
        let sa = Box::new(Sa {
            id: pair.id,
            envelope: pair.envelope,
            sealer,
            opener,
            usage: Usage::new(pair.limits),
            translation: pair.translation,
            path,
            moved: None,
            ends,
            spi_in: pair.spi_in.get(),
            local: Selectors(pair.local.clone()),
            remote: Selectors(pair.remote.clone()),
            configured: pair.trust == Trust::Configured,
            admitted: None,
        });
        let owner = Owner {
            sa: sa.id,
            configured: sa.configured.then(|| Arc::new(Selectors(pair.local.clone()))),
            leaving: false,
            in_part: !sa.local.is_plain() || !sa.remote.is_plain(),
            peer: pair.envelope.remote,
        };
        self.own(&prefixes, &owner);
        let slot = self.free.pop().unwrap_or(self.pairs.len());
        self.by_spi.insert(sa.spi_in, slot);
        self.by_id.insert(sa.id.0, slot);
        match self.pairs.get_mut(slot) {
            Some(place) => *place = Some(sa),
            None => self.pairs.push(Some(sa)),
        }
        Ok(())
    }

    /// A pair is about to be removed: what its peer has sent on it is taken for a last time, and others
    /// have the addresses already.
    pub(crate) fn leave(&mut self, id: SaId) {
        let Some(sa) = self.get_mut(id) else { return };
        let prefixes = prefixes(&sa.remote.0);
        self.generation += 1;
        for prefix in prefixes {
            let owners = self.owners.get_mut(&prefix).into_iter().flatten();
            owners.filter(|owner| owner.sa == id).for_each(|owner| owner.leaving = true);
        }
    }

    /// A pair's peer is elsewhere from now on.
    pub(crate) fn relocate(&mut self, id: SaId, envelope: Envelope) {
        let Some(sa) = self.get_mut(id) else { return };
        sa.envelope = envelope;
        let prefixes = prefixes(&sa.remote.0);
        self.generation += 1;
        for prefix in prefixes {
            let owners = self.owners.get_mut(&prefix).into_iter().flatten();
            owners.filter(|owner| owner.sa == id).for_each(|owner| owner.peer = envelope.remote);
        }
    }

    /// Removes a pair; its keys are wiped as they drop.
    pub(crate) fn remove(&mut self, id: SaId) -> bool {
        let Some(slot) = self.by_id.remove(&id.0) else { return false };
        let Some(sa) = self.pairs.get_mut(slot).and_then(Option::take) else { return false };
        self.by_spi.remove(&sa.spi_in);
        self.free.push(slot);
        self.disown(&prefixes(&sa.remote.0), id);
        true
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: SaId) -> Option<&mut Sa> {
        let slot = *self.by_id.get(&id.0)?;
        self.pairs.get_mut(slot)?.as_deref_mut()
    }

    #[inline]
    pub(crate) fn by_spi(&mut self, spi: u32) -> Option<Inbound<'_>> {
        let slot = *self.by_spi.get(&spi)?;
        let sa = self.pairs.get_mut(slot)?.as_deref_mut()?;
        Some(Inbound { sa, owners: &self.owners, generation: self.generation })
    }

    /// The pair that sent an ESP packet with this SPI and number to `remote` a moment ago, in UDP
    /// between these ports or without. Looks at all: for rare questions.
    pub(crate) fn sender_of(
        &mut self,
        remote: IpAddr,
        ports: Option<(u16, u16)>,
        spi: [u8; 4],
        number: u32,
    ) -> Option<&mut Sa> {
        self.pairs.iter_mut().flatten().map(Box::as_mut).find(|sa| {
            let Envelope { local, remote: known, udp } = sa.envelope;
            known.ip() == remote
                && ports == udp.then_some((local.port(), known.port()))
                && sa.sealer.has_just_sent(spi, number)
        })
    }

    fn own(&mut self, prefixes: &[sa::Prefix], owner: &Owner) {
        self.generation += 1;
        for prefix in prefixes {
            match self.owners.get_mut(prefix) {
                Some(owners) => owners.push(owner.clone()),
                None => self.owners.insert(*prefix, vec![owner.clone()]),
            }
        }
    }

    fn disown(&mut self, prefixes: &[sa::Prefix], id: SaId) {
        self.generation += 1;
        for prefix in prefixes {
            let Some(owners) = self.owners.get_mut(prefix) else { continue };
            owners.retain(|owner| owner.sa != id);
            if owners.is_empty() {
                self.owners.remove(prefix);
            }
        }
    }
}

/// The two addresses of a pair in transport mode: what it protects is between the ends themselves.
fn ends(pair: &SaPair) -> Option<Flow> {
    let only = |selectors: &[TrafficSelector]| {
        let (addr, _) = selectors.first()?.addresses();
        selectors.iter().all(|ts| ts.addresses() == (addr, addr)).then_some(addr)
    };
    Flow::new(only(&pair.local)?, only(&pair.remote)?)
}

fn prefixes(selectors: &[TrafficSelector]) -> Vec<sa::Prefix> {
    let mut prefixes: Vec<_> = selectors
        .iter()
        .flat_map(|ts| {
            let (first, last) = ts.addresses();
            sa::Prefix::of_range(first, last)
        })
        .collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    prefixes
}

/// A pair that a packet has arrived for, and what is needed to judge the packet.
pub(crate) struct Inbound<'a> {
    pub(crate) sa: &'a mut Sa,
    owners: &'a PrefixTable<Vec<Owner>>,
    generation: u64,
}

impl Inbound<'_> {
    /// Whether this pair may carry this packet (RFC 4301 §5.2, step 4): its selectors match, and
    /// no other pair has the better claim to the source address.
    #[inline]
    pub(crate) fn admit(&mut self, inner: &Inner, packet: &[u8], spd: &Spd) -> Result<(), Reason> {
        if self.sa.admitted == Some((inner.flow, self.generation)) {
            return Ok(());
        }
        self.judge(inner, packet, spd)
    }

    fn judge(&mut self, inner: &Inner, packet: &[u8], spd: &Spd) -> Result<(), Reason> {
        let sa = &mut *self.sa;
        let (src, dst) = (inner.flow.src(), inner.flow.dst());
        if inner.traffic().matches(&sa.remote.0, &sa.local.0) {
            if !may_send(self.owners, sa.id, src, dst) {
                // Of several links another may have a part of the addresses only, and be the closer
                // owner of that; what we send there through this one may come back through it.
                let named = sa.configured && spd.names(&inner.flow.reversed(), sa.id);
                return if named { Ok(()) } else { Err(Reason::InnerOwner) };
            }
            if sa.local.is_plain() && sa.remote.is_plain() {
                sa.admitted = Some((inner.flow, self.generation));
            }
            return Ok(());
        }
        if !sa.local.has_all(dst, inner.protocol) {
            return Err(Reason::InnerSelector);
        }
        // A machine on the way behind the peer answers to a packet that we sent through this
        // pair: path MTU discovery and traceroute depend on it (RFC 4301 §6).
        let about = icmp_error_about(inner, packet).ok_or(Reason::InnerSelector)?;
        let ours = sa.local.contains(about.src()) && sa.remote.contains(about.dst());
        if !ours || about.src() != dst {
            return Err(Reason::InnerSelector);
        }
        match self.owners.longest(src) {
            Some(owners)
                if owners.iter().any(|o| !o.leaving) && !owners.iter().any(|o| o.sa == sa.id) =>
            {
                Err(Reason::InnerOwner)
            }
            _ => Ok(()),
        }
    }
}

/// Whether `id` has the best claim to `addr` as the source of packets to `dst`: configured beats
/// opportunistic whatever the prefix lengths, between the subnets of the connection; otherwise the
/// longer prefix wins. Equals share, as old and new pair do in a rekey, and so do the pairs of one
/// configured peer that has an address's ports apart.
fn may_send(owners: &PrefixTable<Vec<Owner>>, id: SaId, addr: IpAddr, dst: IpAddr) -> bool {
    let all =
        || owners.matches(addr).flat_map(|(prefix, all)| all.iter().map(move |o| (prefix, o)));
    // The longest of its prefixes comes first.
    let Some((prefix, own)) = all().find(|(_, owner)| owner.sa == id) else { return false };
    if own.leaving {
        return true;
    }
    let claim = (own.configured.is_some(), prefix.len());
    let concerned = |other: &Owner| other.configured.as_ref().is_none_or(|to| to.contains(dst));
    !all().any(|(prefix, other)| {
        !other.leaving
            && concerned(other)
            && (other.configured.is_some(), prefix.len()) > claim
            && !own.is_beside(other)
    })
}

/// The flow of the packet that an ICMP error quotes (RFC 792, RFC 4443 §3).
fn icmp_error_about(inner: &Inner, packet: &[u8]) -> Option<Flow> {
    if inner.fragment != Fragment::Whole {
        return None;
    }
    let message = packet.get(inner.upper..inner.len)?;
    let kind = *message.first()?;
    if !is_error_message(inner.protocol, kind) {
        return None;
    }
    addresses(message.get(8..)?)
}

/// The addresses of a packet of which perhaps only the header is there.
pub(crate) fn addresses(packet: &[u8]) -> Option<Flow> {
    match packet.first()? >> 4 {
        4 => {
            let src: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
            let dst: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
            Flow::new(src.into(), dst.into())
        }
        6 => {
            let src: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
            let dst: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
            Flow::new(src.into(), dst.into())
        }
        _ => None,
    }
}

/// Pairs at once: some 3 kB each, so 100 MB at the most.
const MAX_PAIRS: usize = 32_768;
/// Prefixes that the selectors of one pair may take apart into: more than any range needs.
const MAX_PREFIXES: usize = 512;
