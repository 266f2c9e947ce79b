//! Fragments of our own host's, put together again: transport mode protects datagrams, not
//! fragments (RFC 4303 §3.3.4). The datagram is sealed whole, and what comes of it is fragmented
//! outside.
//!
//! A host's fragments come out of the device one after the other and complete, so one that is not
//! the next of its datagram is given up, with the datagram.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::packet::{FRAGMENT, Fragment, Inner};

/// Datagrams that are not complete yet, oldest first.
#[derive(Default)]
pub(crate) struct Whole {
    parts: VecDeque<Part>,
}

struct Part {
    key: Key,
    since: Instant,
    /// Header, and payload so far.
    octets: Vec<u8>,
    /// Octets of the header.
    header: usize,
}

/// RFC 791 §3.2, RFC 8200 §4.5.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    id: u32,
}

/// What a fragment says of itself.
struct Piece<'a> {
    key: Key,
    offset: usize,
    more: bool,
    payload: &'a [u8],
}

/// The fragment fits nothing, or nothing fits it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Misfit;

impl Whole {
    /// Adds a fragment. If it was the last, the datagram, as if it had never been cut.
    pub(crate) fn add(
        &mut self,
        now: Instant,
        inner: &Inner,
        packet: &[u8],
    ) -> Result<Option<Vec<u8>>, Misfit> {
        let piece = Piece::parse(inner, packet).ok_or(Misfit)?;
        self.parts.retain(|part| now.saturating_duration_since(part.since) < PATIENCE);
        let known = self.parts.iter().position(|part| part.key == piece.key);
        let mut part = match known.and_then(|at| self.parts.remove(at)) {
            _ if piece.offset == 0 => Part::new(now, &piece, inner, packet).ok_or(Misfit)?,
            Some(part) if part.octets.len() == part.header + piece.offset => part,
            Some(_) | None => return Err(Misfit),
        };
        if part.octets.len() + piece.payload.len() > LARGEST {
            return Err(Misfit);
        }
        part.octets.extend_from_slice(piece.payload);
        if !piece.more {
            return part.finish().map(Some).ok_or(Misfit);
        }
        if self.parts.len() >= MAX_PARTS {
            self.parts.pop_front();
        }
        self.parts.push_back(part);
        Ok(None)
    }
}

impl<'a> Piece<'a> {
    fn parse(inner: &Inner, packet: &'a [u8]) -> Option<Self> {
        let (src, dst) = (inner.flow.src(), inner.flow.dst());
        let field = |at: usize| Some(u16::from_be_bytes(*packet.get(at..)?.first_chunk()?));
        let (key, offset, more, payload) = if inner.is_v4() {
            let word = field(6)?;
            let (protocol, id) = (inner.protocol, u32::from(field(4)?));
            let payload = packet.get(inner.upper..inner.len)?;
            (Key { src, dst, protocol, id }, (word & 0x1fff) << 3, word & 0x2000 != 0, payload)
        } else {
            // What stands before the fragment header has to stay outside.
            let [protocol, _, w1, w0, id @ ..] = *packet.get(40..)?.first_chunk::<8>()?;
            let word = (*packet.get(6)? == FRAGMENT).then(|| u16::from_be_bytes([w1, w0]))?;
            let id = u32::from_be_bytes(id);
            let payload = packet.get(48..inner.len)?;
            (Key { src, dst, protocol, id }, word & 0xfff8, word & 1 != 0, payload)
        };
        let fits = !inner.is_v4() || !inner.extended;
        let whole_units = !more || payload.len().is_multiple_of(8);
        (fits && whole_units).then_some(Self { key, offset: offset.into(), more, payload })
    }
}

impl Part {
    fn new(now: Instant, piece: &Piece<'_>, inner: &Inner, packet: &[u8]) -> Option<Self> {
        let header = if inner.is_v4() { 20 } else { 40 };
        let mut octets = packet.get(..header)?.to_vec();
        if inner.is_v4() {
            octets.get_mut(6..8)?.fill(0);
        } else {
            *octets.get_mut(6)? = piece.key.protocol;
        }
        Some(Self { key: piece.key, since: now, octets, header })
    }

    /// The length is the datagram's; a checksum in the header is nobody's, for the header is not
    /// sent.
    fn finish(mut self) -> Option<Vec<u8>> {
        let (at, len) = match self.header {
            20 => (2, self.octets.len()),
            header => (4, self.octets.len() - header),
        };
        let len = u16::try_from(len).ok()?.to_be_bytes();
        *self.octets.get_mut(at..)?.first_chunk_mut()? = len;
        Some(self.octets)
    }
}

/// The packet as the plane reads it, free to be fragmented again.
pub(crate) fn parse(packet: &[u8]) -> Option<Inner> {
    let inner = Inner::parse(packet).ok()?;
    (inner.fragment == Fragment::Whole).then_some(Inner { df: false, ..inner })
}

/// Datagrams in the making at the same time, one for each CPU that sends: a megabyte at most.
const MAX_PARTS: usize = 16;
/// What a length field can say.
const LARGEST: usize = 65_535;
/// A host's own fragments follow each other at once.
const PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::packet::tests::udp;
    use proptest::prelude::*;

    const PAIRS: [(&str, &str); 2] = [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")];

    /// Fragments as the kernel makes them, `size` octets of payload each (a multiple of eight).
    pub(crate) fn fragments(whole: &[u8], size: usize, id: u16) -> Vec<Vec<u8>> {
        let v4 = whole[0] >> 4 == 4;
        let header = if v4 { 20 } else { 40 };
        let pieces: Vec<_> = whole[header..].chunks(size).collect();
        (0..)
            .zip(&pieces)
            .map(|(i, piece)| {
                let more = u16::from(i + 1 < pieces.len());
                let offset = u16::try_from(i * size).unwrap();
                let mut packet = whole[..header].to_vec();
                if v4 {
                    packet[4..6].copy_from_slice(&id.to_be_bytes());
                    packet[6..8].copy_from_slice(&(offset >> 3 | more << 13).to_be_bytes());
                    let len = u16::try_from(20 + piece.len()).unwrap();
                    packet[2..4].copy_from_slice(&len.to_be_bytes());
                } else {
                    let next = std::mem::replace(&mut packet[6], FRAGMENT);
                    let [w1, w0] = (offset | more).to_be_bytes();
                    let [i1, i0] = id.to_be_bytes();
                    packet.extend([next, 0, w1, w0, 0, 0, i1, i0]);
                    let len = u16::try_from(8 + piece.len()).unwrap();
                    packet[4..6].copy_from_slice(&len.to_be_bytes());
                }
                packet.extend_from_slice(piece);
                packet
            })
            .collect()
    }

    #[expect(clippy::unwrap_in_result, reason = "a test makes no packet that does not parse")]
    fn add(whole: &mut Whole, now: Instant, packet: &[u8]) -> Result<Option<Vec<u8>>, Misfit> {
        whole.add(now, &Inner::parse(packet).unwrap(), packet)
    }

    #[test]
    fn interleaved_datagrams_come_out_whole() {
        for (src, dst) in PAIRS {
            let (mut whole, now) = (Whole::default(), Instant::now());
            let one = udp(src, dst, (1, 2), &vec![1; 3000]);
            let other = udp(src, dst, (3, 4), &vec![2; 2000]);
            let (mut a, mut b) = (fragments(&one, 1400, 7), fragments(&other, 1400, 8));
            let (last_a, last_b) = (a.pop().unwrap(), b.pop().unwrap());
            for packet in a.iter().chain(&b) {
                assert_eq!(add(&mut whole, now, packet), Ok(None));
            }
            for (last, sent) in [(last_b, other), (last_a, one)] {
                let mut got = add(&mut whole, now, &last).unwrap().unwrap();
                let header = if src.contains('.') { 20 } else { 40 };
                assert_eq!(got[header..], sent[header..]);
                assert_eq!(parse(&got).unwrap().len, sent.len());
                if header == 40 {
                    assert_eq!(got, sent);
                }
                got.truncate(8);
                assert_eq!(got[2..4], sent[2..4]);
            }
            assert!(whole.parts.is_empty());
        }
    }

    #[test]
    fn what_does_not_follow_is_given_up() {
        for (src, dst) in PAIRS {
            let (mut whole, now) = (Whole::default(), Instant::now());
            let packets = fragments(&udp(src, dst, (1, 2), &vec![1; 5000]), 1000, 7);
            assert_eq!(add(&mut whole, now, &packets[1]), Err(Misfit), "the first is missing");
            assert_eq!(add(&mut whole, now, &packets[0]), Ok(None));
            assert_eq!(add(&mut whole, now, &packets[2]), Err(Misfit), "the second is missing");
            assert_eq!(add(&mut whole, now, &packets[1]), Err(Misfit), "the datagram is gone");
            assert_eq!(add(&mut whole, now, &packets[0]), Ok(None));
            assert_eq!(add(&mut whole, now, &packets[1]), Ok(None));
            assert_eq!(add(&mut whole, now + PATIENCE, &packets[2]), Err(Misfit), "too late");
        }
    }

    #[test]
    fn so_many_and_no_more() {
        let (mut whole, now) = (Whole::default(), Instant::now());
        let (src, dst) = PAIRS[0];
        let datagram = udp(src, dst, (1, 2), &vec![1; 2000]);
        let all: Vec<_> = (0..40).map(|id| fragments(&datagram, 1000, id)).collect();
        for packets in &all {
            assert_eq!(add(&mut whole, now, &packets[0]), Ok(None));
        }
        assert_eq!(whole.parts.len(), MAX_PARTS);
        assert_eq!(add(&mut whole, now, &all[0][1]), Err(Misfit));
        assert_eq!(add(&mut whole, now, &all[39][1]), Ok(None));
    }

    #[test]
    fn no_datagram_is_larger_than_its_length_can_say() {
        let (mut whole, now) = (Whole::default(), Instant::now());
        let (src, dst) = PAIRS[0];
        let mut packet = fragments(&udp(src, dst, (1, 2), &vec![1; 60_000]), 59_992, 7).remove(0);
        assert_eq!(add(&mut whole, now, &packet), Ok(None));
        packet[6..8].copy_from_slice(&(59_992u16 >> 3).to_be_bytes());
        assert_eq!(add(&mut whole, now, &packet), Err(Misfit));
    }

    proptest! {
        #[test]
        fn any_fragments_are_survived(
            packets in proptest::collection::vec(
                (any::<bool>(), any::<u16>(), 0u16..3, proptest::collection::vec(any::<u8>(), 0..80)),
                0..40,
            ),
        ) {
            let (mut whole, now) = (Whole::default(), Instant::now());
            for (v6, word, id, payload) in packets {
                let (src, dst) = PAIRS[usize::from(v6)];
                let mut packet = fragments(&udp(src, dst, (1, 2), &payload), 800, id).remove(0);
                let at = if v6 { 42 } else { 6 };
                packet[at..at + 2].copy_from_slice(&word.to_be_bytes());
                if let Ok(Some(got)) = add(&mut whole, now, &packet) {
                    prop_assert!(Inner::parse(&got).is_ok());
                }
            }
        }
    }
}
