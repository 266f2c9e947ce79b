//! Client-side translation: our own address outside of a pair, the assigned one inside (RFC 3022
//! §4.1, RFC 5508 §4.2). Stateless, one to one, in place.
//!
//! Every checksum that covers the address is mended by what changed (RFC 1624): right ones stay
//! right, wrong ones stay wrong, and "none" in UDP stays none. A later fragment carries no checksum;
//! its first fragment's already speaks for the whole.

use std::net::IpAddr;

use sa::{Flow, Translation};

use crate::checksum::{self, Sum};
use crate::packet::{
    DCCP, Fragment, ICMP_V6, Inner, Malformed, TCP, UDP, UDP_LITE, is_error_message,
};

/// On the way out: our own address becomes the assigned one. Without `complete` the upper layer's
/// checksum is left alone: whoever cuts the packet computes it.
#[inline]
pub(crate) fn outgoing(
    translation: &Translation,
    packet: &mut [u8],
    inner: &Inner,
    complete: bool,
) -> Result<(), Malformed> {
    if inner.flow.src() != translation.own() {
        return Err(Malformed);
    }
    let change = Change { from: translation.own(), to: translation.assigned() };
    let packet = packet.get_mut(..inner.len).ok_or(Malformed)?;
    change.header(packet, Side::Source)?;
    if !complete {
        return Ok(());
    }
    change.upper(packet.get_mut(inner.upper..).ok_or(Malformed)?, inner)?;
    change.quotation(packet, inner, Side::Destination)
}

/// On the way in: the assigned address becomes our own.
#[inline]
pub(crate) fn incoming(
    translation: &Translation,
    packet: &mut [u8],
    inner: &Inner,
) -> Result<Inner, Malformed> {
    if inner.flow.dst() != translation.assigned() {
        return Err(Malformed);
    }
    let change = Change { from: translation.assigned(), to: translation.own() };
    let packet = packet.get_mut(..inner.len).ok_or(Malformed)?;
    change.header(packet, Side::Destination)?;
    change.upper(packet.get_mut(inner.upper..).ok_or(Malformed)?, inner)?;
    change.quotation(packet, inner, Side::Source)?;
    let flow = Flow::new(inner.flow.src(), translation.own()).ok_or(Malformed)?;
    Ok(Inner { flow, ..*inner })
}

/// Which address of a header.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Source,
    Destination,
}

/// One address becomes another, of the same family.
struct Change {
    from: IpAddr,
    to: IpAddr,
}

impl Change {
    /// What is added to a sum that covers the address (RFC 1624 §3, equation 3).
    fn difference(&self) -> Sum {
        match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                Sum::default().octets(&from.octets().map(|octet| !octet)).octets(&to.octets())
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                Sum::default().octets(&from.octets().map(|octet| !octet)).octets(&to.octets())
            }
            _ => Sum::default(),
        }
    }

    /// Puts the address into an IP header, and mends IPv4's checksum.
    fn header(&self, packet: &mut [u8], side: Side) -> Result<(), Malformed> {
        match self.to {
            IpAddr::V4(to) => {
                let at = if side == Side::Source { 12 } else { 16 };
                place(packet, at, to.octets())?;
                self.mend(packet, 10)
            }
            IpAddr::V6(to) => {
                let at = if side == Side::Source { 8 } else { 24 };
                place(packet, at, to.octets())
            }
        }
    }

    /// Mends the checksum of what an IP header is followed by.
    fn upper(&self, upper: &mut [u8], inner: &Inner) -> Result<(), Malformed> {
        match inner.fragment {
            Fragment::Later => Ok(()),
            Fragment::Whole | Fragment::First => match checksum_at(inner.protocol) {
                Some(at) => self.mend_upper(upper, inner.protocol, at),
                None => Ok(()),
            },
        }
    }

    fn mend_upper(&self, upper: &mut [u8], protocol: u8, at: usize) -> Result<(), Malformed> {
        if protocol != UDP {
            return self.mend(upper, at);
        }
        if read(upper, at)? == [0, 0] {
            return Ok(());
        }
        self.mend(upper, at)?;
        if read(upper, at)? == [0, 0] {
            // Zero would mean none (RFC 768).
            return place(upper, at, [0xff, 0xff]);
        }
        Ok(())
    }

    fn mend(&self, octets: &mut [u8], at: usize) -> Result<(), Malformed> {
        let old = read(octets, at)?;
        place(octets, at, checksum::changed_by(old, self.difference()))
    }

    /// An error message quotes a packet that went the other way: what it quotes is translated too,
    /// or nobody would know it again (RFC 5508 §4.2).
    fn quotation(&self, packet: &mut [u8], inner: &Inner, side: Side) -> Result<(), Malformed> {
        let upper = packet.get_mut(inner.upper..).ok_or(Malformed)?;
        let kind = upper.first().copied().unwrap_or_default();
        if inner.fragment != Fragment::Whole || !is_error_message(inner.protocol, kind) {
            return Ok(());
        }
        let Some(quoted) = upper.get_mut(QUOTATION..) else { return Ok(()) };
        let before = Sum::default().octets(quoted).folded();
        if self.requote(quoted, side).is_none() {
            return Ok(());
        }
        let after = Sum::default().octets(quoted).folded();
        let sum = read(upper, ICMP_CHECKSUM)?;
        let sum = checksum::updated(sum, u16::from_be_bytes(before), u16::from_be_bytes(after));
        place(upper, ICMP_CHECKSUM, sum)
    }

    /// Translates a quoted packet, of which the end is missing as a rule. `None` if it is none of
    /// ours, and untouched then.
    fn requote(&self, quoted: &mut [u8], side: Side) -> Option<()> {
        let flow = crate::sad::addresses(quoted)?;
        let address = if side == Side::Source { flow.src() } else { flow.dst() };
        if address != self.from {
            return None;
        }
        let (upper, protocol) = match flow.src() {
            IpAddr::V4(_) => {
                let header: &[u8; 20] = quoted.first_chunk()?;
                let later = u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0;
                let place = usize::from(header[0] & 0x0f) * 4;
                (place, (!later).then_some(header[9]))
            }
            // Behind extension headers nothing is looked for: the address alone finds its socket.
            IpAddr::V6(_) => (40, quoted.get(6).copied()),
        };
        self.header(quoted, side).ok()?;
        let at = protocol.and_then(checksum_at);
        if let (Some(protocol), Some(at), Some(upper)) = (protocol, at, quoted.get_mut(upper..)) {
            // Often it is not quoted.
            let _ = self.mend_upper(upper, protocol, at);
        }
        Some(())
    }
}

/// Where a protocol has a checksum that covers the addresses. SCTP's does not, ICMP's for IPv4
/// neither.
fn checksum_at(protocol: u8) -> Option<usize> {
    match protocol {
        TCP => Some(16),
        UDP | UDP_LITE | DCCP => Some(6),
        ICMP_V6 => Some(ICMP_CHECKSUM),
        _ => None,
    }
}

fn read(octets: &[u8], at: usize) -> Result<[u8; 2], Malformed> {
    octets.get(at..).and_then(<[u8]>::first_chunk).copied().ok_or(Malformed)
}

fn place<const N: usize>(octets: &mut [u8], at: usize, value: [u8; N]) -> Result<(), Malformed> {
    let field = octets.get_mut(at..).and_then(<[u8]>::first_chunk_mut);
    *field.ok_or(Malformed)? = value;
    Ok(())
}

const ICMP_CHECKSUM: usize = 2;
/// Octets of an ICMP error before what it quotes.
const QUOTATION: usize = 8;

#[cfg(test)]
mod tests;
