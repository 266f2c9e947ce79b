//! Super-packets that policy lets pass, handed to the kernel whole: it forwards them as it does
//! without us, and cuts them where they leave, if the device does not.
//!
//! The kernel takes them for packets that come in by a device, so they meet its rules for what is
//! forwarded once more, and a firewall may keep there what it let into our device. Nobody tells us.
//! But a sender whose first super-packet is lost sends it again, and then this connection's are cut
//! here from then on. Rules change, so one is watched again every few seconds.

use std::hash::BuildHasher as _;
use std::time::{Duration, Instant};

use sa::Flow;

use crate::hash::Seeded;
use crate::offload::{Cut, Offload};
use crate::packet::{Inner, TCP};
use crate::segment::{CWR, Plan};

/// What goes before the octets of a super-packet on a packet socket: the offload header, and an
/// Ethernet header from nobody to nobody.
///
/// The packet stays as it is, so the kernel counts a hop of it, which it does not of the single
/// packets that we send. To add one before would make a loop without an end where a firewall takes
/// our mark off, and what we hand over is led to us once more.
pub struct Onward {
    octets: [u8; Offload::LEN + ETHERNET],
}

impl Onward {
    /// For a packet that [`To::Whole`](crate::To) was said of.
    #[must_use]
    pub fn of(offload: &Offload, packet: &[u8]) -> Option<Self> {
        let is_v4 = packet.first()? >> 4 == 4;
        let ip = if is_v4 { IPV4 } else { IPV6 };
        let moved = u16::try_from(ETHERNET).ok()?;
        let tcp = usize::from(packet.get(ip + 12)? >> 4) * 4;
        let offload = Offload {
            checksum: offload.checksum.map(|(start, offset)| (start + moved, offset)),
            header: u16::try_from(ETHERNET + ip + tcp).ok()?,
            ..*offload
        };
        let kind: u16 = if is_v4 { 0x0800 } else { 0x86dd };
        let mut octets = [0; Offload::LEN + ETHERNET];
        octets.get_mut(..Offload::LEN)?.copy_from_slice(&offload.to_octets());
        octets.get_mut(Offload::LEN + ETHERNET - 2..)?.copy_from_slice(&kind.to_be_bytes());
        Some(Self { octets })
    }

    /// What is written before the packet.
    #[must_use]
    pub fn head(&self) -> &[u8] {
        &self.octets
    }
}

/// Where a packet that [`To::Whole`](crate::To) was said of comes from and goes to.
#[must_use]
pub fn ends(packet: &[u8]) -> Option<Flow> {
    Inner::parse(packet).ok().map(|inner| inner.flow)
}

/// Cuts a super-packet after all: gives each of its packets, in order.
pub fn cut(offload: &Offload, packet: &[u8], mut each: impl FnMut(&[u8])) {
    let mut packet = packet.to_vec();
    let Ok(inner) = Inner::parse(&packet) else { return };
    let Ok(plan) = Plan::new(offload, &mut packet, &inner) else { return };
    let mut part = vec![0; plan.largest()];
    for index in 0..plan.parts() {
        let Some(part) = part.get_mut(..plan.part_len(index)) else { return };
        if plan.write(index, &packet, part).is_ok() {
            each(part);
        }
    }
}

/// Which connections' super-packets go on whole.
pub(crate) struct Trials {
    slots: Vec<Option<Trial>>,
    hasher: Seeded,
    /// Of IPv4 and of IPv6.
    tallies: [Tally; 2],
}

/// What became of the connections that were tried.
#[derive(Clone, Copy, Default)]
struct Tally {
    tried: u32,
    lost: u32,
    /// Until then nothing more is tried.
    off_until: Option<Instant>,
}

impl Tally {
    fn tries(&mut self, now: Instant) -> bool {
        let may = self.off_until.is_none_or(|until| now >= until);
        if may {
            self.tried += 1;
            if self.tried > MANY {
                (self.tried, self.lost) = (self.tried / 2, self.lost / 2);
            }
        }
        may
    }

    fn loses(&mut self, now: Instant) {
        self.lost += 1;
        if self.lost >= FAILURES && self.lost * 2 >= self.tried {
            *self = Self { off_until: Some(now + OFF), ..Self::default() };
        }
    }
}

/// One connection.
#[derive(Clone, Copy)]
struct Trial {
    key: Key,
    /// The sequence number of the super-packet that is watched.
    watched: u32,
    since: Instant,
    found: Found,
}

impl Trial {
    /// Watches another super-packet.
    fn watch(&mut self, now: Instant, seq: u32, found: Found) {
        (self.watched, self.since, self.found) = (seq, now, found);
    }
}

type Key = (Flow, (u16, u16));

#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    /// The one that is watched may still come again.
    Nothing,
    /// One before it did not come again.
    Arrives,
    /// It came again, but the one before had not: the next is watched.
    Doubted,
    /// It came again: it was lost.
    Lost,
}

impl Trials {
    pub(crate) fn new(hasher: Seeded) -> Self {
        Self { slots: vec![None; SLOTS], hasher, tallies: [Tally::default(); 2] }
    }

    /// Whether a packet that is passed goes on whole. To be asked of every TCP packet that is
    /// passed, also of those that are no super-packets: one of them may be what was lost.
    #[inline]
    pub(crate) fn takes(
        &mut self,
        now: Instant,
        offload: &Offload,
        packet: &[u8],
        inner: &Inner,
    ) -> bool {
        if inner.protocol != TCP {
            return false;
        }
        let Some(seq) = packet.get(inner.upper + 4..).and_then(<[u8]>::first_chunk) else {
            return false;
        };
        let seq = u32::from_be_bytes(*seq);
        let able = is_able(offload, packet, inner);
        let key = (inner.flow, inner.ports);
        let [v4, v6] = &mut self.tallies;
        let tally = if inner.is_v4() { v4 } else { v6 };
        let place = usize::try_from(self.hasher.hash_one(key)).unwrap_or(0) % SLOTS;
        let Some(slot) = self.slots.get_mut(place) else { return false };
        let known = slot.as_mut().filter(|trial| trial.key == key);
        let Some(trial) = known else {
            let takes = able && tally.tries(now);
            if takes {
                *slot = Some(Trial { key, watched: seq, since: now, found: Found::Nothing });
            }
            return takes;
        };
        let age = now.saturating_duration_since(trial.since);
        let again = seq == trial.watched && has_payload(packet, inner);
        if again && trial.found == Found::Arrives {
            // Every network loses one now and then, and not two running.
            trial.found = Found::Doubted;
        }
        match trial.found {
            Found::Nothing if again => {
                (trial.found, trial.since) = (Found::Lost, now);
                tally.loses(now);
                false
            }
            Found::Nothing | Found::Arrives if able && age >= PROOF => {
                trial.watch(now, seq, Found::Arrives);
                true
            }
            Found::Doubted if able => {
                trial.watch(now, seq, Found::Nothing);
                true
            }
            Found::Nothing | Found::Arrives | Found::Doubted => able,
            Found::Lost => {
                if age >= OFF {
                    *slot = None;
                }
                false
            }
        }
    }
}

fn has_payload(packet: &[u8], inner: &Inner) -> bool {
    let header = packet.get(inner.upper + 12).map_or(0, |offset| usize::from(offset >> 4) * 4);
    inner.len > inner.upper + header
}

/// Whether the kernel can take it as it is: a super-packet of TCP with nothing between its headers,
/// and with a hop left that is counted here. One that says CWR says so in its first packet only
/// (RFC 3168 §6.1.2), which is left to us.
fn is_able(offload: &Offload, packet: &[u8], inner: &Inner) -> bool {
    let hops = packet.get(if inner.is_v4() { 8 } else { 7 });
    let flags = packet.get(inner.upper + 13);
    let whole = u16::try_from(inner.upper).map(|start| Some((start, TCP_CHECKSUM)));
    matches!(offload.cut, Some((Cut::Tcp4 | Cut::Tcp6, size)) if size > 0)
        && !inner.extended
        && whole == Ok(offload.checksum)
        && hops.is_some_and(|hops| *hops > 1)
        && flags.is_some_and(|flags| flags & CWR == 0)
}

const IPV4: usize = 20;
const IPV6: usize = 40;
/// Octets of an Ethernet header.
const ETHERNET: usize = 14;
/// Place of the checksum in a TCP header.
const TCP_CHECKSUM: u16 = 16;
/// Connections that are known at a time; one that takes another's place is tried anew, as it was
/// at first.
const SLOTS: usize = 4096;
/// Longer than any sender waits before it sends again what got no answer (RFC 6298 §2: a second at
/// first, and twice that); then another is watched.
const PROOF: Duration = Duration::from_secs(4);
/// Connections that must fail, and half of those that were tried, before nobody's is tried for a
/// while: what one loses may be the network's fault.
const FAILURES: u32 = 3;
/// Connections after which what became of earlier ones counts half.
const MANY: u32 = 64;
/// How long what was found out counts, if it was bad: firewalls change seldom.
const OFF: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests;
