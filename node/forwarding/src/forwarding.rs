//! The plane itself: commands in, packets through, notices out.

mod hints;
mod incoming;
mod outgoing;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use sa::{Command, Envelope, Flow, Notice, Policy, SaId, SaPair, Subnets};

use crate::aead::Provider;
use crate::batch::{Batch, MAX_DATAGRAMS, MAX_SEGMENTS, To};
use crate::counters::{Counters, Reason};
use crate::esp;
use crate::hash::Seeded;
use crate::hold::{Hold, Packet};
use crate::newcomers::Newcomers;
use crate::onward::Trials;
use crate::packet::Inner;
use crate::path::Path;
use crate::rate::{Rate, RateBySource};
use crate::sad::{Expiry, Refused, Sad};
use crate::spd::Spd;
use crate::whole::Whole;

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
    /// Fragments for pairs in transport mode.
    whole: Whole,
    newcomers: Newcomers,
    trials: Trials,
    outputs: VecDeque<Output>,
    counters: Counters,
    unknown_spis: RateBySource,
    errors: Rate,
    hints: Rate,
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
    /// Flows without policy that are taken into hold each second, on average. Some thousands may
    /// come at once, and as many again of those that were refused and come for the second time.
    pub newcomers: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            provider: Provider::default(),
            copy_dscp: false,
            unreachable: true,
            link_mtu: ETHERNET,
            newcomers: NEWCOMERS,
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
    /// A packet without content that must not be fragmented: whether it arrives tells how wide
    /// the way is. If the first link refuses it, [`Forwarding::probe_refused`] wants to know.
    Probe {
        /// Whose way it is.
        sa: SaId,
        /// Where to.
        envelope: Envelope,
        /// The ESP packet.
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
            whole: Whole::default(),
            newcomers: Newcomers::new(now, hasher, config.newcomers),
            trials: Trials::new(hasher),
            outputs: VecDeque::new(),
            counters: Counters::default(),
            unknown_spis: RateBySource::new(now, hasher, UNKNOWN_SPIS, UNKNOWN_SPIS_EACH),
            errors: Rate::new(now, ERRORS_PER_SECOND),
            hints: Rate::new(now, PATH_HINTS_PER_SECOND),
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
            Command::SetPortClass { prefix, ports, class } => {
                if !self.spd.set_port_class(prefix, ports, class) {
                    self.counters.count(Reason::TableFull);
                }
            }
            Command::ClearPortClass { prefix, ports } => {
                self.spd.clear_port_class(&prefix, ports);
            }
            Command::ClearClass { prefix } => self.spd.clear_class(&prefix),
            Command::SetPolicy { flow, policy, about: _ } => self.set_policy(now, flow, policy),
            Command::ClearPolicy { flow } => {
                self.spd.clear(&flow);
                self.discard(&flow, Reason::HoldExpired);
            }
            Command::ReleaseFlow { flow } => {
                self.release(now, &flow, Policy::Pass);
                self.spd.clear(&flow);
            }
            Command::SetSubnets { subnets, policy } => {
                self.set_subnets(now, subnets, policy, Vec::new());
            }
            Command::ShareSubnets { subnets, mut pairs } => {
                pairs.retain(|sa| self.usable(Policy::Encrypt(*sa)) != Policy::Hold);
                let policy = pairs.first().map_or(Policy::Hold, |first| Policy::Encrypt(*first));
                self.set_subnets(now, subnets, policy, pairs);
            }
            Command::SelectSubnets { subnets, pairs, rest } => {
                self.select_subnets(now, subnets, pairs, rest);
            }
            // It is for those who watch the kernel.
            Command::LinksUp { .. } => {}
            Command::ClearSubnets { subnets } => {
                self.spd.clear_subnets(&subnets);
                self.discard_between(&subnets, Reason::HoldExpired);
            }
            Command::AddSa(pair) => self.add_sa(&pair),
            Command::MoveSa { sa, envelope } => {
                let link_mtu = self.config.link_mtu;
                self.sad.relocate(sa, envelope);
                if let Some(sa) = self.sad.get_mut(sa) {
                    sa.path = sa.path.elsewhere(link_mtu, &envelope);
                    sa.moved = None;
                }
            }
            Command::RemoveSa(sa) | Command::RevokeSa(sa) => {
                self.sad.remove(sa);
            }
            Command::WatchFlow(flow) => self.spd.watch(&flow),
            Command::AskUse(sa) => {
                if let Some(used) = self.sad.get_mut(sa).map(|sa| sa.usage.report(now)) {
                    self.notify(Notice::LastUse { sa, used });
                }
            }
        }
    }

    /// A pair will be removed as soon as all sockets have been looked at: what came on it before is
    /// still taken, and what comes on others is judged as if it had gone.
    pub fn leave(&mut self, sa: SaId) {
        self.sad.leave(sa);
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
        let path = Path::new(self.config.link_mtu, pair.cipher, &pair.envelope);
        match self.sad.add(pair, self.config.provider, path) {
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
        let policy = self.usable(policy);
        if !self.spd.set(now, flow, policy) {
            self.counters.count(Reason::TableFull);
        }
        match policy {
            Policy::Hold => {}
            Policy::Deny => self.discard(&flow, Reason::Denied),
            Policy::Pass | Policy::Encrypt(_) => self.release(now, &flow, policy),
        }
    }

    fn set_subnets(&mut self, now: Instant, subnets: Subnets, policy: Policy, pairs: Vec<SaId>) {
        let policy = self.usable(policy);
        if !self.spd.set_subnets(subnets, policy, pairs) {
            return self.counters.count(Reason::TableFull);
        }
        match policy {
            Policy::Hold => {}
            Policy::Deny => self.discard_between(&subnets, Reason::Denied),
            Policy::Pass | Policy::Encrypt(_) => {
                for flow in self.hold.flows_between(&subnets) {
                    // A more specific entry may say otherwise about this one.
                    if self.spd.entry_of(&flow) == Some(subnets) {
                        self.release(now, &flow, policy);
                    }
                }
            }
        }
    }

    /// What is held between two prefixes leaves through the pairs that carry it; the rest waits on, or
    /// is refused.
    fn select_subnets(&mut self, now: Instant, subnets: Subnets, pairs: Vec<SaId>, rest: Policy) {
        if pairs.is_empty() || matches!(rest, Policy::Pass | Policy::Encrypt(_)) {
            // Nobody may say this, and what nobody may say lets nothing through.
            return self.set_subnets(now, subnets, Policy::Deny, Vec::new());
        }
        for pair in &pairs {
            // Those that are used up take no packet: see `Sa::takes`.
            let _ = self.usable(Policy::Encrypt(*pair));
        }
        if !self.spd.set_subnets(subnets, rest, pairs) {
            return self.counters.count(Reason::TableFull);
        }
        let mut batch = std::mem::take(&mut self.scratch);
        for flow in self.hold.flows_between(&subnets) {
            if self.spd.entry_of(&flow) == Some(subnets) {
                self.release_selected(now, &flow, &mut batch);
            }
        }
        self.scratch = batch;
    }

    /// The same for one flow.
    fn release_selected(&mut self, now: Instant, flow: &Flow, batch: &mut Batch) {
        let before = self.counters.released;
        for Packet { offload, mut octets } in self.hold.take(flow) {
            let Ok(inner) = Inner::parse(&octets) else { continue };
            let sent = match self.selected(&inner) {
                (Some(sa), _) => self.seal(now, sa, &offload, &mut octets, &inner, batch),
                (None, Policy::Hold) => {
                    let packet = Packet { offload, octets };
                    let (counters, mut evicted) = (&mut self.counters, Vec::new());
                    // It has been counted, and there was room.
                    self.hold.put(now, *flow, packet, counters, &mut evicted);
                    self.counters.held = self.counters.held.saturating_sub(1);
                    continue;
                }
                (None, _) => Err(Reason::Denied),
            };
            match sent {
                Ok(()) => self.counters.released += 1,
                Err(reason) => self.counters.count(reason),
            }
        }
        if self.counters.released > before {
            self.tell(Output::Trace(Trace::Released(*flow)));
        }
        self.emit(batch);
    }

    /// The pair that carries a packet, or what becomes of it.
    fn selected(&mut self, inner: &Inner) -> (Option<SaId>, Policy) {
        let sad = &mut self.sad;
        self.spd.select(inner, |sa| sad.get_mut(sa).is_some_and(|sa| sa.takes(inner)))
    }

    /// What becomes of packets that are to go on this pair: they wait where it is gone or used up.
    /// Whoever orders it has not heard of that, and would order it again for each that waits.
    fn usable(&mut self, policy: Policy) -> Policy {
        let Policy::Encrypt(id) = policy else { return policy };
        if self.sad.get_mut(id).is_some_and(|sa| !sa.usage.spent) {
            return policy;
        }
        self.notify(Notice::HardExpire(id));
        Policy::Hold
    }

    fn discard_between(&mut self, subnets: &Subnets, reason: Reason) {
        for flow in self.hold.flows_between(subnets) {
            self.discard(&flow, reason);
        }
    }

    /// Sends what is held of a flow, first before last.
    fn release(&mut self, now: Instant, flow: &Flow, policy: Policy) {
        let held = self.hold.take(flow);
        if held.is_empty() {
            return;
        }
        self.tell(Output::Trace(Trace::Released(*flow)));
        let mut batch = std::mem::take(&mut self.scratch);
        for Packet { offload, mut octets } in held {
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
        self.emit(&mut batch);
        self.scratch = batch;
    }

    /// Puts out what was sealed or passed of held packets.
    fn emit(&mut self, batch: &mut Batch) {
        for send in batch.sends() {
            for packet in batch.packets(send) {
                let octets = packet.to_vec();
                self.outputs.push_back(match send.to {
                    To::Peer(envelope) => Output::Sealed { envelope, tos: send.tos, octets },
                    To::Clear(to) => Output::Clear { to, octets },
                    // Nobody is told why a held packet did not fit: its sender tries again. What is
                    // held is cut.
                    To::Device | To::Whole(_) => continue,
                });
            }
        }
        batch.clear();
    }

    fn discard(&mut self, flow: &Flow, reason: Reason) {
        for _ in self.hold.take(flow) {
            self.counters.count(reason);
        }
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

/// The MTU of the device: inner packets of this size, sealed with an AEAD, fit a link of `link_mtu`
/// octets in UDP, over
/// IPv4 or, with `ipv6`, over either. Never below IPv6's minimum of 1280 (RFC 8200 §5).
#[must_use]
pub fn device_mtu(link_mtu: u16, ipv6: bool) -> u16 {
    let ip = if ipv6 { 40 } else { 20 };
    let inner = esp::inner_len(usize::from(link_mtu).saturating_sub(ip + 8));
    u16::try_from(inner.max(IPV6_MIN_MTU)).unwrap_or(u16::MAX)
}

/// Packets of a device with this MTU that leave in one go, in UDP: a super-packet with more of them
/// would be sent in two parts.
#[must_use]
pub fn segments_per_send(device_mtu: u16) -> usize {
    (MAX_DATAGRAMS / esp::sealed_len(device_mtu.into())).clamp(1, MAX_SEGMENTS)
}

/// RFC 8200 §5.
const IPV6_MIN_MTU: usize = 1280;
const ETHERNET: u16 = 1500;
/// Each costs a third of a millisecond in all.
const NEWCOMERS: u32 = 256;
/// Notices that may wait to be collected: the keying plane is asked again anyway.
const MAX_OUTPUTS: usize = 8192;
/// Hints of unknown SPIs that are passed on in a second: forgeable, so that they need not be many.
const UNKNOWN_SPIS: u32 = 64;
/// The same from one source prefix.
const UNKNOWN_SPIS_EACH: u8 = 4;
/// "Too big" messages looked into. Each may cost a walk over all pairs; the honest ones are as rare
/// as probes.
const PATH_HINTS_PER_SECOND: u32 = 20;
/// ICMP errors towards the device; Linux itself sends a thousand a second at most.
const ERRORS_PER_SECOND: u32 = 200;

#[cfg(test)]
mod tests;
