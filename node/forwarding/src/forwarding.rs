//! The plane itself: commands in, packets through, notices out.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use sa::{Command, Envelope, Flow, Notice, Policy, SaId, SaPair, Spi};

use crate::aead::Provider;
use crate::batch::{Batch, To};
use crate::coalesce::Delivery;
use crate::counters::{Counters, Reason};
use crate::ecn;
use crate::esp;
use crate::hash::Seeded;
use crate::hold::{Hold, Packet};
use crate::icmp;
use crate::offload::Offload;
use crate::packet::{IP_IN_IP, IPV6, Inner, NO_NEXT_HEADER, is_holdable};
use crate::rate::Rate;
use crate::sad::{Expiry, Refused, Sa, Sad};
use crate::segment::Plan;
use crate::spd::{Spd, Verdict};

/// The forwarding plane of one device.
///
/// One thread owns it. Call order: `handle_command`, [`Self::outgoing`], [`Self::incoming`] and
/// [`Self::handle_timeout`] as things come; after any of them drain [`Self::poll_output`], and
/// ask [`Self::poll_timeout`] before sleeping.
pub struct Forwarding {
    config: Config,
    spd: Spd,
    sad: Sad,
    hold: Hold,
    outputs: VecDeque<Output>,
    counters: Counters,
    unknown_spis: Rate,
    errors: Rate,
    /// Where released packets are sealed.
    scratch: Batch,
}

/// What the operator decides about the plane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// Who does the cryptography.
    pub provider: Provider,
    /// Copy the inner DSCP to the outer header. Off by default: it tells observers about the
    /// inside.
    pub copy_dscp: bool,
    /// Answer denied packets with ICMP "prohibited" (RFC 4322 §3.1.4).
    pub unreachable: bool,
    /// Octets of the largest IP packet on the way to peers.
    pub link_mtu: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            provider: Provider::default(),
            copy_dscp: false,
            unreachable: true,
            link_mtu: ETHERNET,
        }
    }
}

/// How an ESP packet arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outer {
    /// The peer's address; the port counts only with UDP encapsulation.
    pub remote: SocketAddr,
    /// DSCP and ECN of the outer header.
    pub tos: u8,
    /// In UDP, or as IP protocol 50.
    pub udp: bool,
}

/// What the plane has to say and to send outside of a batch, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// To the keying plane.
    Notice(Notice),
    /// A packet released from hold, sealed.
    Sealed {
        /// Where to.
        envelope: Envelope,
        /// DSCP and ECN of the outer header.
        tos: u8,
        /// The ESP packet.
        octets: Vec<u8>,
    },
    /// A packet released from hold, in the clear.
    Clear {
        /// Its destination.
        to: IpAddr,
        /// The whole IP packet.
        octets: Vec<u8>,
    },
    /// Something happened for the first time.
    Trace(Trace),
}

/// Milestones of a flow and of a pair, each told once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trace {
    /// The first packet of a flow was trapped.
    Trapped(Flow),
    /// Held packets of a flow were released, sealed or in the clear.
    Released(Flow),
    /// The first ESP packet of a pair left.
    FirstOut(SaId),
    /// The first ESP packet of a pair was accepted.
    FirstIn(SaId),
}

/// Why the plane wants to be woken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timer {
    /// Held packets have waited long enough.
    HoldExpiry,
}

impl Forwarding {
    /// An empty plane: no class, no policy, no pair. `seed` only keeps strangers from aiming at
    /// the hash tables.
    #[must_use]
    pub fn new(config: Config, seed: [u8; 32], now: Instant) -> Self {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let hasher = Seeded::new(rng.next_u64(), rng.next_u64());
        Self {
            config,
            spd: Spd::new(hasher),
            sad: Sad::new(hasher),
            hold: Hold::new(hasher),
            outputs: VecDeque::new(),
            counters: Counters::default(),
            unknown_spis: Rate::new(now, UNKNOWN_SPIS_PER_SECOND),
            errors: Rate::new(now, ERRORS_PER_SECOND),
            scratch: Batch::default(),
        }
    }

    /// Obeys the keying plane.
    pub fn handle_command(&mut self, now: Instant, command: Command) {
        match command {
            Command::SetClass { prefix, class } => {
                if !self.spd.set_class(prefix, class) {
                    self.counters.count(Reason::TableFull);
                }
            }
            Command::ClearClass { prefix } => self.spd.clear_class(&prefix),
            Command::SetPolicy { flow, policy } => self.set_policy(now, flow, policy),
            Command::ClearPolicy { flow } => {
                self.spd.clear(&flow);
                self.discard(&flow, Reason::HoldExpired);
            }
            Command::AddSa(pair) => self.add_sa(&pair),
            Command::MoveSa { sa, envelope } => {
                let mtu = path_mtu(self.config.link_mtu, &envelope);
                if let Some(sa) = self.sad.get_mut(sa) {
                    sa.envelope = envelope;
                    sa.mtu = mtu;
                    sa.moved = None;
                }
            }
            Command::RemoveSa(sa) => {
                self.sad.remove(sa);
            }
            Command::AskUse(sa) => {
                if let Some(used) = self.sad.get_mut(sa).map(|sa| sa.usage.report(now)) {
                    self.notify(Notice::LastUse { sa, used });
                }
            }
        }
    }

    /// A packet from the device, on its way out: cut, sealed and put into `batch`, or passed, or
    /// held, or dropped. `packet` is scratch space afterwards.
    #[inline]
    pub fn outgoing(
        &mut self,
        now: Instant,
        offload: &Offload,
        packet: &mut [u8],
        batch: &mut Batch,
    ) {
        let Ok(inner) = Inner::parse(packet) else {
            return self.counters.count(Reason::Malformed);
        };
        match self.spd.verdict(now, &inner.flow) {
            Verdict::Encrypt(sa) => match self.seal(now, sa, offload, packet, &inner, batch) {
                Ok(()) => {}
                Err(Reason::SaSpent) => self.trap(now, offload, packet, &inner),
                Err(reason) => self.counters.count(reason),
            },
            Verdict::Pass => self.pass(offload, packet, &inner, batch),
            Verdict::Hold => self.trap(now, offload, packet, &inner),
            Verdict::Deny => {
                self.counters.count(Reason::Denied);
                if self.config.unreachable {
                    self.complain(now, icmp::Error::Prohibited, packet, &inner, batch);
                }
            }
            Verdict::Unknown => self.counters.count(Reason::NoClass),
        }
    }

    /// An ESP packet from the wire, at `at` of the arena: opened in place, judged, and put into
    /// `delivery` if it may pass.
    #[inline]
    pub fn incoming(
        &mut self,
        now: Instant,
        outer: &Outer,
        arena: &mut [u8],
        at: Range<usize>,
        delivery: &mut Delivery,
    ) {
        if let Err(reason) = self.open(now, outer, arena, at, delivery) {
            self.counters.count(reason);
        }
    }

    /// The next thing to do on behalf of the plane, in order, until `None`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        Some((self.hold.deadline()?, Timer::HoldExpiry))
    }

    /// Time has passed. Early or repeated calls are harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(flow) = self.hold.expire(now, &mut self.counters) {
            // Whoever tries again is asked about again.
            self.spd.clear_hold(&flow);
        }
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn add_sa(&mut self, pair: &SaPair) {
        let mtu = path_mtu(self.config.link_mtu, &pair.envelope);
        match self.sad.add(pair, self.config.provider, mtu) {
            Ok(()) => {}
            Err(Refused::Full) => {
                self.counters.count(Reason::TableFull);
                self.notify(Notice::HardExpire(pair.id));
            }
            // A name that is in use is the pair in use: leave that alone.
            Err(Refused::Duplicate) if self.sad.get_mut(pair.id).is_some() => {}
            Err(Refused::Duplicate | Refused::Unusable) => {
                self.notify(Notice::HardExpire(pair.id));
            }
        }
    }

    fn set_policy(&mut self, now: Instant, flow: Flow, policy: Policy) {
        let usable = match policy {
            Policy::Encrypt(sa) => self.sad.get_mut(sa).is_some_and(|sa| !sa.usage.spent),
            Policy::Hold | Policy::Pass | Policy::Deny => true,
        };
        let policy = if usable { policy } else { Policy::Hold };
        if !self.spd.set(now, flow, policy) {
            self.counters.count(Reason::TableFull);
        }
        match policy {
            Policy::Hold => {}
            Policy::Deny => self.discard(&flow, Reason::Denied),
            Policy::Pass | Policy::Encrypt(_) => self.release(now, &flow, policy),
        }
    }

    /// Sends what is held of a flow, first before last.
    fn release(&mut self, now: Instant, flow: &Flow, policy: Policy) {
        let held = self.hold.take(flow);
        if held.iter().all(Option::is_none) {
            return;
        }
        self.tell(Output::Trace(Trace::Released(*flow)));
        let mut batch = std::mem::take(&mut self.scratch);
        for Packet { offload, mut octets } in held.into_iter().flatten() {
            let Ok(inner) = Inner::parse(&octets) else { continue };
            let sent = match policy {
                Policy::Encrypt(sa) => {
                    self.seal(now, sa, &offload, &mut octets, &inner, &mut batch)
                }
                Policy::Pass => {
                    self.pass(&offload, &mut octets, &inner, &mut batch);
                    Ok(())
                }
                Policy::Hold | Policy::Deny => Err(Reason::Denied),
            };
            match sent {
                Ok(()) => self.counters.released += 1,
                Err(reason) => self.counters.count(reason),
            }
        }
        for send in batch.sends() {
            for packet in batch.packets(send) {
                let octets = packet.to_vec();
                self.outputs.push_back(match send.to {
                    To::Peer(envelope) => Output::Sealed { envelope, tos: send.tos, octets },
                    To::Clear(to) => Output::Clear { to, octets },
                    // Nobody is told why a held packet did not fit: its sender tries again.
                    To::Device => continue,
                });
            }
        }
        batch.clear();
        self.scratch = batch;
    }

    fn discard(&mut self, flow: &Flow, reason: Reason) {
        for _ in self.hold.take(flow).into_iter().flatten() {
            self.counters.count(reason);
        }
    }

    /// Holds a packet of a flow without usable policy, and asks for one.
    #[cold]
    fn trap(&mut self, now: Instant, offload: &Offload, packet: &[u8], inner: &Inner) {
        if !is_holdable(inner.flow.dst()) {
            return self.counters.count(Reason::NotHoldable);
        }
        let octets = packet.get(..inner.len).unwrap_or(&[]).into();
        let packet = Packet { offload: *offload, octets };
        let mut evicted = Vec::new();
        let kept = self.hold.put(now, inner.flow, packet, &mut self.counters, &mut evicted);
        for flow in &evicted {
            self.spd.clear_hold(flow);
        }
        if !kept {
            return;
        }
        match self.spd.hold(now, inner.flow) {
            Some(true) => {
                self.tell(Output::Trace(Trace::Trapped(inner.flow)));
                self.notify(Notice::Acquire {
                    flow: inner.flow,
                    protocol: inner.protocol,
                    ports: acquire_ports(inner),
                });
            }
            Some(false) => {}
            None => self.discard(&inner.flow, Reason::TableFull),
        }
    }

    /// Cuts a packet and seals the parts. `SaSpent` if the pair cannot carry it: nothing was sent.
    #[inline]
    fn seal(
        &mut self,
        now: Instant,
        id: SaId,
        offload: &Offload,
        packet: &mut [u8],
        inner: &Inner,
        batch: &mut Batch,
    ) -> Result<(), Reason> {
        let sa = self.sad.get_mut(id).ok_or(Reason::SaSpent)?;
        if sa.usage.spent {
            return Err(Reason::SaSpent);
        }
        let plan = Plan::new(offload, packet, inner).map_err(|_| Reason::Malformed)?;
        let largest = plan.largest();
        if largest > sa.mtu && inner.df && (inner.is_v4() || largest > IPV6_MIN_MTU) {
            let mtu = if inner.is_v4() { sa.mtu } else { sa.mtu.max(IPV6_MIN_MTU) };
            let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
            self.complain(now, icmp::Error::TooBig(mtu), packet, inner, batch);
            return Err(Reason::TooBig);
        }
        let parts = plan.parts();
        if sa.usage.packets_left() < parts as u64 {
            let expiry = sa.usage.spend();
            self.expire(id, expiry);
            return Err(Reason::SaSpent);
        }
        let first = sa.usage.packets_out == 0;
        let tos = ecn::outer(inner.tos, self.config.copy_dscp);
        let (sealed, bytes) = seal_parts(sa, &plan, packet, inner, tos, batch);
        let expiry = sa.usage.sent(now, sealed, bytes);
        let unanswered = sa.usage.is_unanswered(now);
        self.counters.sealed += sealed;
        self.counters.sealed_bytes += bytes;
        if first {
            self.tell(Output::Trace(Trace::FirstOut(id)));
        }
        if unanswered {
            self.notify(Notice::Unanswered(id));
        }
        self.expire(id, expiry);
        if sealed < parts as u64 { Err(Reason::Malformed) } else { Ok(()) }
    }

    /// Sends a packet in the clear.
    fn pass(&mut self, offload: &Offload, packet: &mut [u8], inner: &Inner, batch: &mut Batch) {
        let Ok(plan) = Plan::new(offload, packet, inner) else {
            return self.counters.count(Reason::Malformed);
        };
        for index in 0..plan.parts() {
            let len = plan.part_len(index);
            if plan.write(index, packet, batch.slot(len)).is_err() {
                return self.counters.count(Reason::Malformed);
            }
            batch.keep(To::Clear(inner.flow.dst()), inner.tos, len);
            self.counters.passed += 1;
        }
    }

    /// Tells the sender of a packet why it goes no further.
    #[cold]
    fn complain(
        &mut self,
        now: Instant,
        error: icmp::Error,
        packet: &[u8],
        inner: &Inner,
        batch: &mut Batch,
    ) {
        if !self.errors.allow(now) {
            return;
        }
        if let Some(answer) = icmp::error(error, inner, packet) {
            batch.slot(answer.len()).copy_from_slice(&answer);
            batch.keep(To::Device, 0, answer.len());
        }
    }

    #[inline]
    fn open(
        &mut self,
        now: Instant,
        outer: &Outer,
        arena: &mut [u8],
        at: Range<usize>,
        delivery: &mut Delivery,
    ) -> Result<(), Reason> {
        let datagram = arena.get_mut(at.clone()).ok_or(Reason::Malformed)?;
        let spi = u32::from_be_bytes(*datagram.first_chunk().ok_or(Reason::Malformed)?);
        let Some(mut inbound) = self.sad.by_spi(spi) else {
            return Err(self.unknown_spi(now, spi, outer));
        };
        if inbound.sa.usage.spent {
            return Err(Reason::SaSpent);
        }
        let opened = inbound.sa.opener.open(datagram)?;
        // From here on the packet is the peer's own.
        let id = inbound.sa.id;
        let first = inbound.sa.usage.packets_in == 0;
        let expiry = inbound.sa.usage.received(now, opened.len as u64);
        let told = |at: Instant| now.saturating_duration_since(at) < TELL_AGAIN;
        let moved =
            opened.newest && has_moved(inbound.sa, outer) && !inbound.sa.moved.is_some_and(told);
        if moved {
            inbound.sa.moved = Some(now);
        }

        let judged = judge(&mut inbound, outer.tos, datagram, opened);
        if first {
            self.tell(Output::Trace(Trace::FirstIn(id)));
            self.notify(Notice::FirstPacket(id));
        }
        if moved {
            self.notify(Notice::PeerMoved { sa: id, remote: outer.remote });
        }
        self.expire(id, expiry);
        let inner = judged?;
        let start = at.start + esp::HEADER;
        delivery.push(arena, start..start + inner.len, &inner);
        self.counters.opened += 1;
        self.counters.opened_bytes += inner.len as u64;
        Ok(())
    }

    #[cold]
    fn unknown_spi(&mut self, now: Instant, spi: u32, outer: &Outer) -> Reason {
        if let Some(spi) = Spi::new(spi)
            && self.unknown_spis.allow(now)
        {
            self.notify(Notice::UnknownSpi { spi, from: outer.remote.ip() });
        }
        Reason::UnknownSpi
    }

    #[inline]
    fn expire(&mut self, id: SaId, expiry: Option<Expiry>) {
        match expiry {
            None => {}
            Some(Expiry::Soft) => self.notify(Notice::SoftExpire(id)),
            Some(Expiry::Hard) => self.notify(Notice::HardExpire(id)),
        }
    }

    fn notify(&mut self, notice: Notice) {
        self.tell(Output::Notice(notice));
    }

    fn tell(&mut self, output: Output) {
        if self.outputs.len() >= MAX_OUTPUTS {
            return self.counters.count(Reason::OutputFull);
        }
        self.outputs.push_back(output);
    }
}

/// Seals every part of a plan; returns packets and inner octets. Stops at the first that fails.
#[inline]
fn seal_parts(
    sa: &mut Sa,
    plan: &Plan,
    packet: &[u8],
    inner: &Inner,
    tos: u8,
    batch: &mut Batch,
) -> (u64, u64) {
    let next_header = if inner.is_v4() { IP_IN_IP } else { IPV6 };
    let (mut sealed, mut bytes) = (0, 0);
    for index in 0..plan.parts() {
        let len = plan.part_len(index);
        let outer = esp::sealed_len(len);
        let slot = batch.slot(outer);
        let Some(number) = sa.sealer.number() else { break };
        let Some(text) = slot.get_mut(esp::HEADER..esp::HEADER + len) else { break };
        if plan.write(index, packet, text).is_err()
            || sa.sealer.seal(number, slot, len, next_header).is_err()
        {
            break;
        }
        batch.keep(To::Peer(sa.envelope), tos, outer);
        sealed += 1;
        bytes += len as u64;
    }
    (sealed, bytes)
}

/// Everything that is checked of an opened packet (RFC 4301 §5.2).
#[inline]
fn judge(
    inbound: &mut crate::sad::Inbound<'_>,
    outer_tos: u8,
    datagram: &mut [u8],
    opened: esp::Opened,
) -> Result<Inner, Reason> {
    let packet =
        datagram.get_mut(esp::HEADER..esp::HEADER + opened.len).ok_or(Reason::BadTrailer)?;
    let is_v4 = match opened.next_header {
        IP_IN_IP => true,
        IPV6 => false,
        NO_NEXT_HEADER => return Err(Reason::Dummy),
        _ => return Err(Reason::InnerMalformed),
    };
    let inner = Inner::parse(packet).map_err(|_| Reason::InnerMalformed)?;
    if inner.is_v4() != is_v4 {
        return Err(Reason::InnerMalformed);
    }
    inbound.admit(&inner, packet)?;
    ecn::decapsulate(packet, inner.tos, outer_tos).ok_or(Reason::Congestion)?;
    Ok(inner)
}

/// Whether the packet came from where the envelope says.
fn has_moved(sa: &Sa, outer: &Outer) -> bool {
    let known = sa.envelope.remote;
    sa.envelope.udp == outer.udp
        && (known.ip() != outer.remote.ip() || (outer.udp && known.port() != outer.remote.port()))
}

/// The ports as a notice shows them: 0 where the protocol has none.
fn acquire_ports(inner: &Inner) -> (u16, u16) {
    match inner.protocol {
        crate::packet::ICMP | crate::packet::ICMP_V6 => (0, 0),
        _ => inner.ports,
    }
}

/// The largest inner packet that needs no fragmentation outside.
fn path_mtu(link_mtu: u16, envelope: &Envelope) -> usize {
    let ip = if envelope.remote.is_ipv4() { 20 } else { 40 };
    let udp = if envelope.udp { 8 } else { 0 };
    esp::inner_len(usize::from(link_mtu).saturating_sub(ip + udp))
}

/// The MTU of the device: inner packets of this size fit a link of `link_mtu` octets in UDP, over
/// IPv4 or, with `ipv6`, over either. Never below IPv6's minimum of 1280 (RFC 8200 §5).
#[must_use]
pub fn device_mtu(link_mtu: u16, ipv6: bool) -> u16 {
    let ip = if ipv6 { 40 } else { 20 };
    let inner = esp::inner_len(usize::from(link_mtu).saturating_sub(ip + 8));
    u16::try_from(inner.max(IPV6_MIN_MTU)).unwrap_or(u16::MAX)
}

/// RFC 8200 §5.
const IPV6_MIN_MTU: usize = 1280;
const ETHERNET: u16 = 1500;
/// Notices that may wait to be collected: the keying plane is asked again anyway.
const MAX_OUTPUTS: usize = 8192;
/// Forgeable hints need not be many.
const UNKNOWN_SPIS_PER_SECOND: u32 = 4;
/// ICMP errors towards the device; Linux itself sends a thousand a second at most.
const ERRORS_PER_SECOND: u32 = 200;
/// A peer that has moved is reported about once a second until keying reacts.
const TELL_AGAIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
