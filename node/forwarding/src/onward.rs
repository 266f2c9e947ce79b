//! Super-packets that policy lets pass, handed to the kernel whole: it forwards them as it does
//! without us, and cuts them where they leave, if the device does not.
//!
//! The kernel takes them for packets that come in by a device, so they meet its rules for what is
//! forwarded once more, and a firewall may keep there what it let into our device. Nobody tells us.
//! But a sender whose first super-packet is lost sends it again, and then this connection's are cut
//! here from then on.

use std::hash::BuildHasher as _;
use std::time::{Duration, Instant};

use sa::Flow;

use crate::checksum::Sum;
use crate::hash::Seeded;
use crate::offload::{Cut, Offload};
use crate::packet::{Inner, TCP};
use crate::segment::{CWR, Plan};

/// What goes before the octets of a super-packet behind its IP header on a packet socket: the
/// offload header, an Ethernet header from nobody to nobody, and the IP header, which says that
/// there is one hop more to go, because the kernel counts one for us.
pub struct Onward {
    octets: [u8; Offload::LEN + ETHERNET + IPV6],
    ip: usize,
}

impl Onward {
    /// For a packet that [`To::Whole`](crate::To) was said of.
    #[must_use]
    pub fn of(offload: &Offload, packet: &[u8]) -> Option<Self> {
        let is_v4 = packet.first()? >> 4 == 4;
        let ip = if is_v4 { IPV4 } else { IPV6 };
        let mut octets = [0; Offload::LEN + ETHERNET + IPV6];
        let moved = u16::try_from(ETHERNET).ok()?;
        let tcp = usize::from(packet.get(ip + 12)? >> 4) * 4;
        let offload = Offload {
            checksum: offload.checksum.map(|(start, offset)| (start + moved, offset)),
            header: u16::try_from(ETHERNET + ip + tcp).ok()?,
            ..*offload
        };
        octets.get_mut(..Offload::LEN)?.copy_from_slice(&offload.to_octets());
        let kind: u16 = if is_v4 { 0x0800 } else { 0x86dd };
        let (ethernet, header) = octets.get_mut(Offload::LEN..)?.split_at_mut_checked(ETHERNET)?;
        ethernet.get_mut(12..)?.copy_from_slice(&kind.to_be_bytes());
        let header = header.get_mut(..ip)?;
        header.copy_from_slice(packet.get(..ip)?);
        let hops = header.get_mut(if is_v4 { 8 } else { 7 })?;
        *hops = hops.checked_add(1)?;
        if is_v4 {
            header.get_mut(10..12)?.fill(0);
            let sum = Sum::default().octets(header).checksum();
            header.get_mut(10..12)?.copy_from_slice(&sum);
        }
        Some(Self { octets, ip })
    }

    /// What is written before the rest.
    #[must_use]
    pub fn head(&self) -> &[u8] {
        self.octets.get(..Offload::LEN + ETHERNET + self.ip).unwrap_or_default()
    }

    /// What of the packet comes behind it.
    #[must_use]
    pub fn rest<'a>(&self, packet: &'a [u8]) -> &'a [u8] {
        packet.get(self.ip..).unwrap_or_default()
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
    /// The sequence number of the first super-packet that went on.
    first: u32,
    since: Instant,
    found: Found,
}

type Key = (Flow, (u16, u16));

#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    /// It may still come again.
    Nothing,
    Arrives,
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
                *slot = Some(Trial { key, first: seq, since: now, found: Found::Nothing });
            }
            return takes;
        };
        let age = now.saturating_duration_since(trial.since);
        match trial.found {
            Found::Nothing if seq == trial.first && has_payload(packet, inner) => {
                (trial.found, trial.since) = (Found::Lost, now);
                tally.loses(now);
                false
            }
            Found::Nothing if age >= PROOF => {
                trial.found = Found::Arrives;
                able
            }
            Found::Nothing | Found::Arrives => able,
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
/// and with room for one more hop. One that says CWR says so in its first packet only (RFC 3168
/// §6.1.2), which is left to us.
fn is_able(offload: &Offload, packet: &[u8], inner: &Inner) -> bool {
    let hops = packet.get(if inner.is_v4() { 8 } else { 7 });
    let flags = packet.get(inner.upper + 13);
    let whole = u16::try_from(inner.upper).map(|start| Some((start, TCP_CHECKSUM)));
    matches!(offload.cut, Some((Cut::Tcp4 | Cut::Tcp6, size)) if size > 0)
        && !inner.extended
        && whole == Ok(offload.checksum)
        && hops.is_some_and(|hops| *hops < u8::MAX)
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
/// first, and twice that).
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
