//! From the device to the wire: verdict, cut, seal; or hold, or pass (RFC 4301 §5.1).

use std::time::Instant;

use sa::{Flow, Notice, Policy, SaId};

use super::{Forwarding, IPV6_MIN_MTU, Output, Trace};
use crate::batch::{Batch, To};
use crate::counters::Reason;
use crate::ecn;
use crate::hold::Packet;
use crate::icmp;
use crate::offload::Offload;
use crate::packet::{Fragment, ICMP, ICMP_V6, IP_IN_IP, IPV6, Inner, NO_NEXT_HEADER, is_holdable};
use crate::sad::{Sa, Silence};
use crate::segment::Plan;
use crate::spd::Verdict;
use crate::{transport, whole};

impl Forwarding {
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
        let Ok(mut inner) = Inner::parse(packet) else {
            return self.counters.count(Reason::Malformed);
        };
        if self.spd.minds_ports() {
            let Some(flow) = self.spd.flow_of(&inner) else {
                return self.counters.count(Reason::Fragment);
            };
            inner.flow = flow;
        }
        match self.spd.verdict(now, &inner.flow) {
            Verdict::Encrypt(sa) => match self.seal(now, sa, offload, packet, &inner, batch) {
                Ok(()) => {}
                Err(Reason::SaSpent) => self.trap(now, offload, packet, &inner),
                Err(reason) => self.counters.count(reason),
            },
            Verdict::Share => {
                let sealed = match self.spd.share(&inner) {
                    Some(sa) => self.seal(now, sa, offload, packet, &inner, batch),
                    None => Err(Reason::SaSpent),
                };
                match sealed {
                    Ok(()) => {}
                    Err(Reason::SaSpent) => self.trap(now, offload, packet, &inner),
                    Err(reason) => self.counters.count(reason),
                }
            }
            Verdict::Select => self.through_selected(now, offload, packet, &inner, batch),
            Verdict::Pass => self.pass_on(now, offload, packet, &inner, batch),
            Verdict::PassAndTell => {
                self.notify(Notice::FlowUsed(inner.flow));
                self.pass_on(now, offload, packet, &inner, batch);
            }
            Verdict::Hold => self.trap(now, offload, packet, &inner),
            denied @ (Verdict::Deny | Verdict::Refuse) => {
                self.counters.count(Reason::Denied);
                if self.config.unreachable || denied == Verdict::Refuse {
                    self.complain(now, icmp::Error::Prohibited, packet, &inner, batch);
                }
            }
            Verdict::Unknown => self.counters.count(Reason::NoClass),
        }
    }

    /// Sends a packet through the pair whose selectors match it, or nowhere (RFC 4301 §5.1).
    #[inline(never)]
    fn through_selected(
        &mut self,
        now: Instant,
        offload: &Offload,
        packet: &mut [u8],
        inner: &Inner,
        batch: &mut Batch,
    ) {
        if inner.fragment != Fragment::Whole && self.is_for_transport(inner) {
            return match self.whole.add(now, inner, packet) {
                Ok(None) => {}
                Ok(Some(mut whole)) => match whole::parse(&whole) {
                    Some(inner) => {
                        self.through_selected(now, &Offload::NONE, &mut whole, &inner, batch);
                    }
                    None => self.counters.count(Reason::Untransportable),
                },
                Err(_) => self.counters.count(Reason::Untransportable),
            };
        }
        let sealed = match self.selected(inner) {
            (Some(sa), _) => self.seal(now, sa, offload, packet, inner, batch),
            // Nobody can say whose it is (RFC 4301 §7).
            (None, _) if inner.fragment == Fragment::Later => Err(Reason::Fragment),
            (None, Policy::Hold) => Err(Reason::SaSpent),
            (None, _) => {
                if self.config.unreachable {
                    self.complain(now, icmp::Error::Prohibited, packet, inner, batch);
                }
                Err(Reason::Denied)
            }
        };
        match sealed {
            Ok(()) => {}
            Err(Reason::SaSpent) => self.trap(now, offload, packet, inner),
            Err(reason) => self.counters.count(reason),
        }
    }

    /// Whether a pair in transport mode may carry what this is a fragment of.
    fn is_for_transport(&mut self, inner: &Inner) -> bool {
        let sad = &mut self.sad;
        let between = |ends: Flow| (ends.src(), ends.dst()) == (inner.flow.src(), inner.flow.dst());
        let is_for = |sa| sad.get_mut(sa).and_then(|sa| sa.ends).is_some_and(between);
        self.spd.select(inner, is_for).0.is_some()
    }

    /// Holds a packet of a flow without usable policy, and asks for one.
    #[cold]
    fn trap(&mut self, now: Instant, offload: &Offload, packet: &[u8], inner: &Inner) {
        if !is_holdable(inner.flow.dst()) {
            return self.counters.count(Reason::NotHoldable);
        }
        if !self.spd.is_known(&inner.flow) && !self.newcomers.admit(now, &inner.flow) {
            return self.counters.count(Reason::Newcomer);
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

    /// A pair has sent all that it may.
    #[cold]
    fn spend(&mut self, id: SaId) -> Reason {
        let expiry = self.sad.get_mut(id).and_then(|sa| sa.usage.spend());
        self.expire(id, expiry);
        Reason::SaSpent
    }

    /// Cuts a packet and seals the parts. `SaSpent` if the pair cannot carry it: nothing was sent.
    #[inline]
    pub(super) fn seal(
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
        // Before anything is done to the packet: it is held as it came.
        if sa.usage.packets_left() == 0 {
            return Err(self.spend(id));
        }
        if sa.ends.is_some() && inner.fragment != Fragment::Whole {
            return self.seal_whole(now, id, packet, inner, batch);
        }
        let plan = Plan::new(offload, packet, inner).map_err(|_| Reason::Malformed)?;
        let (from, next_header) = part(sa, inner, packet)?;
        let mut plan = plan.without(from);
        let largest = plan.largest();
        let widest = sa.path.mtu();
        if largest > widest && inner.df && (inner.is_v4() || largest + from > IPV6_MIN_MTU) {
            let mtu = widest + from;
            let mtu = if inner.is_v4() { mtu } else { mtu.max(IPV6_MIN_MTU) };
            let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
            self.complain(now, icmp::Error::TooBig(mtu), packet, inner, batch);
            return Err(Reason::TooBig);
        }
        let parts = plan.parts();
        if sa.usage.packets_left() < parts as u64 {
            return Err(self.spend(id));
        }
        if let Some(translation) = &sa.translation {
            plan.translate(translation, packet, inner).map_err(|_| Reason::Malformed)?;
        }
        let first = sa.usage.packets_out == 0;
        // Without an inner header there is none to hide a DSCP in.
        let tos = ecn::outer(inner.tos, self.config.copy_dscp || from > 0);
        let (sealed, text) = seal_parts(sa, &plan, packet, next_header, tos, batch);
        let bytes = text + sealed * from as u64;
        let probe = sa.path.probe(now, largest).and_then(|len| probe(sa, len));
        let expiry = sa.usage.sent(now, sealed + u64::from(probe.is_some()), bytes);
        let silence = sa.usage.silence(now);
        self.counters.sealed += sealed;
        self.counters.sealed_bytes += bytes;
        if first {
            self.tell(Output::Trace(Trace::FirstOut(id)));
        }
        if let Some(probe) = probe {
            self.tell(probe);
        }
        match silence {
            Some(Silence::Unanswered) => self.notify(Notice::Unanswered(id)),
            Some(Silence::Doubtful) => self.notify(Notice::Doubtful(id)),
            None => {}
        }
        self.expire(id, expiry);
        if sealed < parts as u64 { Err(Reason::Malformed) } else { Ok(()) }
    }

    /// Keeps a fragment for a pair in transport mode until its datagram is complete.
    #[cold]
    fn seal_whole(
        &mut self,
        now: Instant,
        id: SaId,
        packet: &[u8],
        inner: &Inner,
        batch: &mut Batch,
    ) -> Result<(), Reason> {
        let whole = self.whole.add(now, inner, packet).map_err(|_| Reason::Untransportable)?;
        let Some(mut whole) = whole else { return Ok(()) };
        let inner = whole::parse(&whole).ok_or(Reason::Untransportable)?;
        self.seal(now, id, &Offload::NONE, &mut whole, &inner, batch)
    }

    /// Sends a packet in the clear, whole if it may be.
    fn pass_on(
        &mut self,
        now: Instant,
        offload: &Offload,
        packet: &mut [u8],
        inner: &Inner,
        batch: &mut Batch,
    ) {
        let Some(whole) = packet.get(..inner.len) else {
            return self.counters.count(Reason::Malformed);
        };
        if !self.trials.takes(now, offload, whole, inner) {
            return self.pass(offload, packet, inner, batch);
        }
        let Ok(plan) = Plan::new(offload, packet, inner) else {
            return self.counters.count(Reason::Malformed);
        };
        self.counters.passed += plan.parts() as u64;
        if let Some(whole) = packet.get(..inner.len) {
            batch.slot(inner.len).copy_from_slice(whole);
            batch.keep(To::Whole(*offload), inner.tos, inner.len);
        }
    }

    /// Sends a packet in the clear.
    pub(super) fn pass(
        &mut self,
        offload: &Offload,
        packet: &mut [u8],
        inner: &Inner,
        batch: &mut Batch,
    ) {
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
}

/// What of a packet a pair seals: where it begins, and its next header.
#[inline]
fn part(sa: &Sa, inner: &Inner, packet: &[u8]) -> Result<(usize, u8), Reason> {
    let Some(ends) = sa.ends else {
        return Ok((0, if inner.is_v4() { IP_IN_IP } else { IPV6 }));
    };
    // The peer will read the addresses off the outer header.
    if (inner.flow.src(), inner.flow.dst()) != (ends.src(), ends.dst()) {
        return Err(Reason::Untransportable);
    }
    transport::protected(inner, packet).ok_or(Reason::Untransportable)
}

/// Seals every part of a plan; returns packets and octets of plaintext. Stops at the first that
/// fails.
#[inline]
fn seal_parts(
    sa: &mut Sa,
    plan: &Plan,
    packet: &[u8],
    next_header: u8,
    tos: u8,
    batch: &mut Batch,
) -> (u64, u64) {
    let (mut sealed, mut bytes) = (0, 0);
    for index in 0..plan.parts() {
        let len = plan.part_len(index);
        let outer = sa.sealer.sealed_len(len);
        let slot = batch.slot(outer);
        let Some(number) = sa.sealer.number() else { break };
        let start = sa.sealer.header();
        let Some(text) = slot.get_mut(start..start + len) else { break };
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

/// A dummy packet as large as the way is thought to be (RFC 4303 §2.6).
#[cold]
fn probe(sa: &mut Sa, len: usize) -> Option<Output> {
    let number = sa.sealer.number()?;
    let mut octets = vec![0; sa.sealer.sealed_len(len)];
    sa.sealer.seal(number, &mut octets, len, NO_NEXT_HEADER).ok()?;
    Some(Output::Probe { sa: sa.id, envelope: sa.envelope, octets })
}

/// The ports as a notice shows them: 0 where the protocol has none.
fn acquire_ports(inner: &Inner) -> (u16, u16) {
    match inner.protocol {
        ICMP | ICMP_V6 => (0, 0),
        _ => inner.ports,
    }
}
