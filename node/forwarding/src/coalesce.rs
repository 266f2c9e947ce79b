//! Putting opened packets together again: neighbours of one flow become one super-packet, which
//! the device takes in one write (what the kernel calls GRO).
//!
//! Nothing is copied: a super-packet is the first packet's headers and a list of payloads where
//! they lie. Only packets that would come out the same when cut again are joined, and only with
//! checksums that were right.

use std::ops::Range;

use sa::Flow;

use crate::checksum::Sum;
use crate::offload::{Cut, Offload, pseudo_header};
use crate::packet::{Fragment, Inner, TCP, UDP};
use crate::segment::{ACK, FIN, PSH};
use crate::transport::Head;

/// Opened packets on their way to the device. Reused from drain to drain.
pub struct Delivery {
    writes: Vec<Open>,
    pieces: Vec<Piece>,
    /// Writes that may still grow, oldest first.
    open: Vec<usize>,
    /// Whether the device takes UDP super-packets.
    join_udp: bool,
}

/// One write to the device.
pub struct Write<'a> {
    /// What goes before the octets.
    pub offload: Offload,
    /// Octets that go before the pieces: the IP header, where the arena has none.
    pub head: &'a [u8],
    pieces: &'a [Piece],
    next: Option<usize>,
}

/// A range of the arena, and the piece after it.
struct Piece {
    range: Range<usize>,
    next: Option<usize>,
}

/// A packet, or a super-packet in the making.
struct Open {
    key: Key,
    /// The IP header, if it is not in the arena: offsets and lengths are then without it.
    head: Option<Head>,
    /// Where the first packet lies.
    at: usize,
    upper: usize,
    header: usize,
    /// Octets of payload of every part but the last.
    size: usize,
    payload: usize,
    parts: usize,
    next_seq: u32,
    /// FIN and PSH of the last part.
    flags: u8,
    /// The first packet's checksums were looked at, and are right.
    checked: bool,
    first: usize,
    last: usize,
    offload: Offload,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    flow: Flow,
    protocol: u8,
    ports: (u16, u16),
}

/// What is needed of a packet to join it to others.
struct Candidate {
    header: usize,
    payload: usize,
    seq: u32,
    flags: u8,
    /// It may be the last part of a super-packet, but not one before.
    closes: bool,
}

impl Delivery {
    /// `join_udp`: the device takes UDP super-packets (TUN_F_USO4 and TUN_F_USO6).
    #[must_use]
    pub fn new(join_udp: bool) -> Self {
        Self {
            writes: Vec::with_capacity(PACKETS),
            pieces: Vec::with_capacity(PACKETS),
            open: Vec::with_capacity(MAX_OPEN),
            join_udp,
        }
    }

    /// Forgets everything; the buffers stay.
    pub fn clear(&mut self) {
        self.writes.clear();
        self.pieces.clear();
        self.open.clear();
    }

    /// Nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Adds the packet at `at` of the arena; with a `head` that is what goes behind it.
    #[inline]
    pub(crate) fn push(
        &mut self,
        arena: &[u8],
        at: Range<usize>,
        inner: &Inner,
        head: Option<Head>,
    ) {
        let outside = head.as_ref().map_or(0, Head::len);
        let inner = &Inner { upper: inner.upper - outside, len: inner.len - outside, ..*inner };
        let key = Key { flow: inner.flow, protocol: inner.protocol, ports: inner.ports };
        let packet = arena.get(at.clone()).unwrap_or(&[]);
        let Some(candidate) = self.candidate(packet, inner) else {
            // It must not be overtaken by what comes after it.
            let writes = &self.writes;
            let whole = inner.fragment == Fragment::Whole;
            let same = |w: &Open| if whole { w.key == key } else { w.key.flow == key.flow };
            self.open.retain(|i| writes.get(*i).is_some_and(|w| !same(w)));
            self.start(key, head, at, inner, None);
            return;
        };
        let found =
            self.open.iter().rposition(|i| self.writes.get(*i).is_some_and(|w| w.key == key));
        let Some(place) = found else {
            let opens = !candidate.closes;
            let index = self.start(key, head, at, inner, Some(&candidate));
            if opens {
                if self.open.len() >= MAX_OPEN {
                    self.open.remove(0);
                }
                self.open.push(index);
            }
            return;
        };
        let index = self.open.get(place).copied().unwrap_or(usize::MAX);
        if self.join(index, arena, &at, inner, head.as_ref(), &candidate) {
            let full = self.writes.get(index).is_none_or(|w| candidate.payload < w.size);
            if candidate.closes || full {
                self.open.remove(place);
            }
        } else {
            self.open.remove(place);
            let opens = !candidate.closes;
            let index = self.start(key, head, at, inner, Some(&candidate));
            if opens {
                self.open.push(index);
            }
        }
    }

    /// Begins a new write with this packet.
    fn start(
        &mut self,
        key: Key,
        head: Option<Head>,
        at: Range<usize>,
        inner: &Inner,
        candidate: Option<&Candidate>,
    ) -> usize {
        let piece = self.pieces.len();
        let (header, payload, seq, flags) =
            candidate.map_or((0, 0, 0, 0), |c| (c.header, c.payload, c.seq, c.flags));
        self.writes.push(Open {
            key,
            head,
            at: at.start,
            upper: inner.upper,
            header,
            size: payload,
            payload,
            parts: 1,
            next_seq: seq.wrapping_add(u32::try_from(payload).unwrap_or(0)),
            flags,
            checked: false,
            first: piece,
            last: piece,
            offload: Offload::NONE,
        });
        self.pieces.push(Piece { range: at, next: None });
        self.writes.len() - 1
    }

    /// Appends the packet to a write, if the two allow it.
    fn join(
        &mut self,
        index: usize,
        arena: &[u8],
        at: &Range<usize>,
        inner: &Inner,
        head: Option<&Head>,
        new: &Candidate,
    ) -> bool {
        let Some(write) = self.writes.get_mut(index) else { return false };
        let total = write.outside() + write.header + write.payload + new.payload;
        if new.payload > write.size
            || new.header != write.header
            || total > MAX_SUPER
            || write.parts >= Write::MAX_PIECES
        {
            return false;
        }
        let first = arena.get(write.at..write.at + write.header).unwrap_or(&[]);
        let packet = arena.get(at.clone()).unwrap_or(&[]);
        let same = match inner.protocol {
            TCP => new.seq == write.next_seq && same_tcp(first, packet, write.upper, new.header),
            _ => true,
        };
        let same_ip = match (&write.head, head) {
            (None, None) => same_ip(first, packet, inner.df, write.parts),
            (Some(a), Some(b)) => a.tos() == b.tos(),
            _ => false,
        };
        if !same || !same_ip {
            return false;
        }
        if !write.checked {
            let whole = arena.get(write.at..write.at + write.header + write.payload);
            write.checked = whole.is_some_and(|p| is_valid(p, write));
        }
        if !write.checked || !is_valid(packet, write) {
            return false;
        }
        let piece = self.pieces.len();
        self.pieces.push(Piece { range: at.start + new.header..at.end, next: None });
        if let Some(last) = self.pieces.get_mut(write.last) {
            last.next = Some(piece);
        }
        write.last = piece;
        write.payload += new.payload;
        write.parts += 1;
        write.next_seq = new.seq.wrapping_add(u32::try_from(new.payload).unwrap_or(0));
        write.flags = new.flags;
        true
    }

    /// Whether a packet may be joined to others at all.
    #[inline]
    fn candidate(&self, packet: &[u8], inner: &Inner) -> Option<Candidate> {
        if inner.fragment != Fragment::Whole || inner.extended {
            return None;
        }
        let upper = packet.get(inner.upper..)?;
        match inner.protocol {
            TCP => {
                let fixed: &[u8; 20] = upper.first_chunk()?;
                let flags = fixed[13];
                // No SYN, RST, URG; no CWR, which belongs to one part only.
                if flags & ACK == 0 || flags & !(ACK | PSH | FIN | ECE) != 0 {
                    return None;
                }
                let header = inner.upper + usize::from(fixed[12] >> 4) * 4;
                let payload = inner.len.checked_sub(header)?;
                (payload > 0 && header >= inner.upper + 20).then_some(Candidate {
                    header,
                    payload,
                    seq: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
                    flags,
                    closes: flags & (PSH | FIN) != 0,
                })
            }
            UDP if self.join_udp => {
                let fixed: &[u8; 8] = upper.first_chunk()?;
                let len = usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
                let header = inner.upper + 8;
                let payload = inner.len.checked_sub(header)?;
                // A checksum of zero is none, and must stay none.
                let ok = payload > 0 && len == payload + 8 && [fixed[6], fixed[7]] != [0, 0];
                ok.then_some(Candidate { header, payload, seq: 0, flags: 0, closes: false })
            }
            _ => None,
        }
    }

    /// Writes the headers of the super-packets into the arena. To be called once, after the last
    /// packet and before [`Self::writes`].
    pub fn finish(&mut self, arena: &mut [u8]) {
        for write in &mut self.writes {
            if write.parts > 1 {
                // A write whose first packet is where it was pushed from cannot fail.
                write.offload = finish(write, arena).unwrap_or(Offload::NONE);
            }
        }
    }

    /// What is to be written, in order.
    pub fn writes(&self) -> impl Iterator<Item = Write<'_>> {
        self.writes.iter().map(|write| Write {
            offload: write.offload,
            head: write.head.as_ref().map_or(&[], Head::octets),
            pieces: &self.pieces,
            next: Some(write.first),
        })
    }
}

impl Open {
    /// Octets of the IP header that are not in the arena.
    fn outside(&self) -> usize {
        self.head.as_ref().map_or(0, Head::len)
    }
}

impl Write<'_> {
    /// Pieces of one write at the most. It is what UDP_MAX_SEGMENTS was before Linux 6.6, and more
    /// than 64 kB of full-sized packets need.
    pub const MAX_PIECES: usize = 64;
}

impl Iterator for Write<'_> {
    type Item = Range<usize>;

    /// The octets of the packet, as ranges of the arena.
    fn next(&mut self) -> Option<Range<usize>> {
        let piece = self.pieces.get(self.next?)?;
        self.next = piece.next;
        Some(piece.range.clone())
    }
}

/// The headers of two packets of one flow agree in what cutting would repeat.
fn same_ip(first: &[u8], packet: &[u8], df: bool, parts: usize) -> bool {
    match (first.first_chunk::<20>(), packet.first_chunk::<20>()) {
        (Some(a), Some(b)) if a[0] >> 4 == 4 => {
            let id = |h: &[u8; 20]| u16::from_be_bytes([h[4], h[5]]);
            let next = u16::try_from(parts).map(|parts| id(a).wrapping_add(parts));
            // An atomic datagram's identification means nothing (RFC 6864 §4.1).
            let id_fits = df || next == Ok(id(b));
            id_fits && a[0] == b[0] && a[1] == b[1] && a[6..10] == b[6..10]
        }
        // Traffic class and flow label; next header and hop limit.
        (Some(a), Some(b)) => a[..4] == b[..4] && a[6..8] == b[6..8],
        _ => false,
    }
}

/// Acknowledgement, header length, flags but FIN and PSH, window, urgent pointer, options.
fn same_tcp(first: &[u8], packet: &[u8], upper: usize, header: usize) -> bool {
    let (Some(a), Some(b)) = (first.get(upper..header), packet.get(upper..header)) else {
        return false;
    };
    let (Some((a, a_options)), Some((b, b_options))) =
        (a.split_first_chunk::<20>(), b.split_first_chunk::<20>())
    else {
        return false;
    };
    a[8..13] == b[8..13]
        && (a[13] ^ b[13]) & !(FIN | PSH) == 0
        && a[14..16] == b[14..16]
        && a[18..20] == b[18..20]
        && a_options == b_options
}

/// Whether the checksums of the IPv4 header and of the upper layer are right in a packet that is to
/// become part of a write.
fn is_valid(packet: &[u8], write: &Open) -> bool {
    let Some((ip, transport)) = packet.split_at_checked(write.upper) else { return false };
    let key = &write.key;
    if write.head.is_none() && key.flow.src().is_ipv4() && !Sum::default().octets(ip).is_valid() {
        return false;
    }
    pseudo_header(key.flow.src(), key.flow.dst(), key.protocol, transport.len())
        .octets(transport)
        .is_valid()
}

fn finish(write: &mut Open, arena: &mut [u8]) -> Option<Offload> {
    let headers = arena.get_mut(write.at..write.at + write.header)?;
    let total = write.header + write.payload;
    let (ip, transport) = headers.split_at_mut_checked(write.upper)?;
    let is_v4 = write.key.flow.src().is_ipv4();
    let outside = write.outside();
    if let Some(head) = &mut write.head {
        head.set_total(outside + total)?;
    } else if is_v4 {
        let len = u16::try_from(total).ok()?;
        *ip.get_mut(2..4)?.first_chunk_mut()? = len.to_be_bytes();
        ip.get_mut(10..12)?.fill(0);
        let sum = Sum::default().octets(ip).checksum();
        ip.get_mut(10..12)?.copy_from_slice(&sum);
    } else {
        let len = u16::try_from(total - 40).ok()?;
        *ip.get_mut(4..6)?.first_chunk_mut()? = len.to_be_bytes();
    }
    let len = total - write.upper;
    let (src, dst) = (write.key.flow.src(), write.key.flow.dst());
    let partial = pseudo_header(src, dst, write.key.protocol, len).folded();
    let (cut, checksum) = if write.key.protocol == TCP {
        *transport.get_mut(13)? |= write.flags & (FIN | PSH);
        (if is_v4 { Cut::Tcp4 } else { Cut::Tcp6 }, 16)
    } else {
        let len = u16::try_from(len).ok()?;
        *transport.get_mut(4..6)?.first_chunk_mut()? = len.to_be_bytes();
        (Cut::Udp, 6)
    };
    *transport.get_mut(checksum..)?.first_chunk_mut()? = partial;
    Some(Offload {
        checksum: Some((u16::try_from(outside + write.upper).ok()?, u16::try_from(checksum).ok()?)),
        cut: Some((cut, u16::try_from(write.size).ok()?)),
        header: u16::try_from(outside + write.header).ok()?,
    })
}

const ECE: u8 = 0x40;
/// What an IP length field can say; IPv6's own header counts, to keep one rule.
const MAX_SUPER: usize = 65_535;
/// Flows that may grow at the same time: those that are interleaved within one drain. The kernel's
/// own GRO keeps eight as well.
const MAX_OPEN: usize = 8;
/// Packets of one drain, to begin with.
const PACKETS: usize = 4096;

#[cfg(test)]
mod tests;
