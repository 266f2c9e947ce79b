//! Cutting what the device hands over: a TCP or UDP super-packet into packets that fit the wire,
//! with every length, number and checksum completed (RFC 9293 §3.1, RFC 768).

use sa::Translation;

use crate::checksum::Sum;
use crate::offload::{Cut, Offload, pseudo_header};
use crate::packet::{Fragment, Inner, Malformed, TCP, UDP};
use crate::translate;

/// How a packet of the device is to be cut. A packet that needs no cutting is one part.
pub(crate) struct Plan {
    /// Octets of all headers; what follows is payload.
    header: usize,
    /// Where the upper-layer header starts.
    upper: usize,
    /// End of the packet.
    end: usize,
    /// Where what is taken of the packet starts: its IP header stays behind in transport mode.
    from: usize,
    /// Octets of payload per part; only the last may have fewer.
    size: usize,
    upper_layer: Option<Upper>,
    is_v4: bool,
    /// The pseudo-header without the length.
    pseudo: Sum,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Upper {
    Tcp,
    Udp,
}

impl Plan {
    /// Checks the offload header against the packet. A lone packet's partial checksum is completed
    /// in place.
    pub(crate) fn new(
        offload: &Offload,
        packet: &mut [u8],
        inner: &Inner,
    ) -> Result<Self, Malformed> {
        let packet = packet.get_mut(..inner.len).ok_or(Malformed)?;
        let mut plan = Self {
            header: 0,
            upper: inner.upper,
            end: inner.len,
            from: 0,
            size: inner.len,
            upper_layer: None,
            is_v4: inner.is_v4(),
            pseudo: Sum::default(),
        };
        let Some((cut, size)) = offload.cut else {
            if let Some((start, offset)) = offload.checksum {
                complete(packet, start.into(), offset.into())?;
            }
            return Ok(plan);
        };
        let (upper_layer, protocol, upper_header) = match cut {
            Cut::Tcp4 | Cut::Tcp6 => {
                let offset = packet.get(inner.upper + 12).ok_or(Malformed)? >> 4;
                (Upper::Tcp, TCP, usize::from(offset) * 4)
            }
            Cut::Udp => (Upper::Udp, UDP, 8),
        };
        let family = match cut {
            Cut::Tcp4 => plan.is_v4,
            Cut::Tcp6 => !plan.is_v4,
            Cut::Udp => true,
        };
        plan.header = inner.upper + upper_header;
        plan.size = size.into();
        let ok = family
            && inner.protocol == protocol
            && inner.fragment == Fragment::Whole
            && (upper_layer == Upper::Udp || upper_header >= 20)
            && plan.header < plan.end
            && plan.size > 0;
        if !ok {
            return Err(Malformed);
        }
        plan.pseudo = pseudo_header(inner.flow.src(), inner.flow.dst(), protocol, 0);
        plan.upper_layer = Some(upper_layer);
        Ok(plan)
    }

    /// Leaves the first `from` octets of every part out: the IP header, which transport mode does
    /// not carry (RFC 4303 §3.1.1).
    pub(crate) fn without(mut self, from: usize) -> Self {
        self.from = from.min(self.upper);
        self
    }

    /// From now on the packet comes from another address. Its parts' checksums are computed with it; a
    /// packet that is not cut has its own, and that is mended.
    pub(crate) fn translate(
        &mut self,
        translation: &Translation,
        packet: &mut [u8],
        inner: &Inner,
    ) -> Result<(), Malformed> {
        let whole = self.upper_layer.is_none();
        translate::outgoing(translation, packet, inner, whole)?;
        let (src, dst) = (translation.assigned(), inner.flow.dst());
        self.pseudo = pseudo_header(src, dst, inner.protocol, 0);
        Ok(())
    }

    /// Number of parts, at least one.
    pub(crate) fn parts(&self) -> usize {
        (self.end - self.header).div_ceil(self.size).max(1)
    }

    /// Octets that are taken of part `index`, headers included.
    #[inline]
    pub(crate) fn part_len(&self, index: usize) -> usize {
        let rest = (self.end - self.header).saturating_sub(index.saturating_mul(self.size));
        self.header + rest.min(self.size) - self.from
    }

    /// Octets that are taken of the largest part.
    pub(crate) fn largest(&self) -> usize {
        self.part_len(0)
    }

    /// Writes part `index` into `out`, which has [`Self::part_len`] octets.
    #[inline]
    pub(crate) fn write(
        &self,
        index: usize,
        packet: &[u8],
        out: &mut [u8],
    ) -> Result<(), Malformed> {
        // What needs no cutting is all payload.
        let end = self.header.max(self.from);
        let (header, payload) = out.split_at_mut_checked(end - self.from).ok_or(Malformed)?;
        let from = end + index * self.size;
        header.copy_from_slice(packet.get(self.from..end).ok_or(Malformed)?);
        payload.copy_from_slice(packet.get(from..from + payload.len()).ok_or(Malformed)?);
        match self.upper_layer {
            None => Ok(()),
            Some(upper_layer) => self.complete_part(upper_layer, index, out),
        }
    }

    fn complete_part(&self, upper: Upper, index: usize, out: &mut [u8]) -> Result<(), Malformed> {
        let len = out.len();
        let (ip, transport) = out.split_at_mut_checked(self.upper - self.from).ok_or(Malformed)?;
        if self.from > 0 {
            // Lengths and checksum of the IP header are those of the outer one.
        } else if self.is_v4 {
            complete_v4(ip, len, index)?;
        } else {
            let payload = u16::try_from(len - 40).map_err(|_| Malformed)?;
            *ip.get_mut(4..6).and_then(|f| f.first_chunk_mut()).ok_or(Malformed)? =
                payload.to_be_bytes();
        }
        let transport_len = u16::try_from(transport.len()).map_err(|_| Malformed)?;
        let pseudo = self.pseudo.word(transport_len);
        match upper {
            Upper::Tcp => {
                let last = index + 1 == self.parts();
                complete_tcp(transport, index * self.size, index == 0, last, pseudo)
            }
            Upper::Udp => {
                let header: &mut [u8; 8] = transport.first_chunk_mut().ok_or(Malformed)?;
                [header[4], header[5]] = transport_len.to_be_bytes();
                [header[6], header[7]] = [0, 0];
                let sum = udp_checksum(pseudo.octets(transport));
                transport.get_mut(6..8).ok_or(Malformed)?.copy_from_slice(&sum);
                Ok(())
            }
        }
    }
}

/// Length, identification and header checksum. Identifications count up, as the kernel's own
/// segmentation does.
fn complete_v4(ip: &mut [u8], len: usize, index: usize) -> Result<(), Malformed> {
    let len = u16::try_from(len).map_err(|_| Malformed)?;
    let index = u16::try_from(index).map_err(|_| Malformed)?;
    let header: &mut [u8; 20] = ip.first_chunk_mut().ok_or(Malformed)?;
    let id = u16::from_be_bytes([header[4], header[5]]).wrapping_add(index);
    [header[2], header[3]] = len.to_be_bytes();
    [header[4], header[5]] = id.to_be_bytes();
    [header[10], header[11]] = [0, 0];
    let sum = Sum::default().octets(ip).checksum();
    ip.get_mut(10..12).ok_or(Malformed)?.copy_from_slice(&sum);
    Ok(())
}

/// Sequence number, flags and checksum. FIN and PSH belong to the last part, CWR to the first
/// (RFC 3168 §6.1.2: it answers once).
fn complete_tcp(
    segment: &mut [u8],
    before: usize,
    first: bool,
    last: bool,
    pseudo: Sum,
) -> Result<(), Malformed> {
    let header: &mut [u8; 20] = segment.first_chunk_mut().ok_or(Malformed)?;
    let before = u32::try_from(before).map_err(|_| Malformed)?;
    let seq = u32::from_be_bytes([header[4], header[5], header[6], header[7]]).wrapping_add(before);
    [header[4], header[5], header[6], header[7]] = seq.to_be_bytes();
    if !last {
        header[13] &= !(FIN | PSH);
    }
    if !first {
        header[13] &= !CWR;
    }
    [header[16], header[17]] = [0, 0];
    let sum = pseudo.octets(segment).checksum();
    segment.get_mut(16..18).ok_or(Malformed)?.copy_from_slice(&sum);
    Ok(())
}

/// Completes a partial checksum: its field already holds the pseudo-header's sum.
fn complete(packet: &mut [u8], start: usize, offset: usize) -> Result<(), Malformed> {
    let covered = packet.get(start..).ok_or(Malformed)?;
    let mut sum = Sum::default().octets(covered).checksum();
    if offset == UDP_CHECKSUM && sum == [0, 0] {
        sum = [0xff, 0xff];
    }
    let field = packet.get_mut(start + offset..).and_then(<[u8]>::first_chunk_mut);
    *field.ok_or(Malformed)? = sum;
    Ok(())
}

/// In UDP zero means "none", so a sum of zero is sent as its other form (RFC 768).
fn udp_checksum(sum: Sum) -> [u8; 2] {
    match sum.checksum() {
        [0, 0] => [0xff, 0xff],
        sum => sum,
    }
}

pub(crate) const FIN: u8 = 0x01;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const CWR: u8 = 0x80;
/// Place of the checksum in a UDP header; TCP's is at 16.
const UDP_CHECKSUM: usize = 6;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::packet::tests::{ip, packet, pseudo};

    /// A TCP segment with a valid checksum in an IP packet.
    pub(crate) fn tcp(src: &str, dst: &str, seq: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
        tcp_with(src, dst, seq, flags, &[], payload)
    }

    pub(crate) fn tcp_with(
        src: &str,
        dst: &str,
        seq: u32,
        flags: u8,
        options: &[u8],
        payload: &[u8],
    ) -> Vec<u8> {
        let mut upper = vec![0x9c, 0x40, 0, 80];
        upper.extend(seq.to_be_bytes());
        upper.extend([0, 0, 0, 9]);
        upper.extend([u8::try_from((20 + options.len()) / 4 * 16).unwrap(), flags]);
        upper.extend([0x01, 0xf6, 0, 0, 0, 0]);
        upper.extend(options);
        upper.extend(payload);
        let sum = pseudo(ip(src), ip(dst), TCP, upper.len()).octets(&upper).checksum();
        upper[16..18].copy_from_slice(&sum);
        packet(src, dst, TCP, &upper)
    }

    /// Cuts `packet` and returns the parts.
    pub(crate) fn cut(offload: &Offload, packet: &[u8]) -> Result<Vec<Vec<u8>>, Malformed> {
        let mut packet = packet.to_vec();
        let inner = Inner::parse(&packet)?;
        let plan = Plan::new(offload, &mut packet, &inner)?;
        (0..plan.parts())
            .map(|i| {
                let mut out = vec![0; plan.part_len(i)];
                plan.write(i, &packet, &mut out)?;
                Ok(out)
            })
            .collect()
    }

    /// Whether every checksum in the packet is right.
    pub(crate) fn is_valid(packet: &[u8]) -> bool {
        let inner = Inner::parse(packet).unwrap();
        let upper = &packet[inner.upper..inner.len];
        let sum = pseudo(inner.flow.src(), inner.flow.dst(), inner.protocol, upper.len());
        let header = !inner.is_v4() || Sum::default().octets(&packet[..inner.upper]).is_valid();
        header && sum.octets(upper).is_valid()
    }

    pub(crate) fn payload(len: usize) -> Vec<u8> {
        (0..=250u8).cycle().take(len).collect()
    }

    const PAIRS: [(&str, &str); 2] = [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")];

    #[test]
    fn tcp_is_cut_as_the_kernel_would() {
        for (src, dst) in PAIRS {
            let data = payload(2500);
            let flags = FIN | PSH | ACK | CWR;
            let super_packet = tcp(src, dst, 0xffff_fff0, flags, &data);
            let cut_as = if src.contains('.') { Cut::Tcp4 } else { Cut::Tcp6 };
            let upper = super_packet.len() - 2520;
            let offload = Offload { cut: Some((cut_as, 1000)), ..Offload::NONE };
            let parts = cut(&offload, &super_packet).unwrap();
            assert_eq!(
                parts.iter().map(|p| p.len() - upper - 20).collect::<Vec<_>>(),
                [1000, 1000, 500]
            );
            let expected = [(0xffff_fff0, ACK | CWR), (984, ACK), (1984, FIN | PSH | ACK)];
            for (i, (part, (seq, flags))) in (0u16..).zip(parts.iter().zip(expected)) {
                assert!(is_valid(part), "{i}");
                assert_eq!(part[upper + 4..upper + 8], u32::to_be_bytes(seq));
                assert_eq!(part[upper + 13], flags);
                if upper == 20 {
                    assert_eq!(part[4..6], u16::to_be_bytes(0x1234 + i));
                }
            }
            let joined: Vec<u8> = parts.iter().flat_map(|p| &p[upper + 20..]).copied().collect();
            assert_eq!(joined, data);
        }
    }

    #[test]
    fn udp_is_cut_into_datagrams() {
        for (src, dst) in PAIRS {
            let data = payload(901);
            let super_packet = crate::packet::tests::udp(src, dst, (5, 6), &data);
            let offload = Offload { cut: Some((Cut::Udp, 300)), ..Offload::NONE };
            let parts = cut(&offload, &super_packet).unwrap();
            assert_eq!(parts.len(), 4);
            assert!(parts.iter().all(|p| is_valid(p)));
            let upper = super_packet.len() - 909;
            let joined: Vec<u8> = parts.iter().flat_map(|p| &p[upper + 8..]).copied().collect();
            assert_eq!(joined, data);
        }
    }

    #[test]
    fn a_partial_checksum_is_completed() {
        for (src, dst) in PAIRS {
            let whole = tcp(src, dst, 1, ACK, b"odd");
            let inner = Inner::parse(&whole).unwrap();
            let mut partial = whole.clone();
            let at = inner.upper + 16;
            let sum = pseudo(ip(src), ip(dst), TCP, inner.len - inner.upper).folded();
            partial[at..at + 2].copy_from_slice(&sum);
            let start = u16::try_from(inner.upper).unwrap();
            let offload = Offload { checksum: Some((start, 16)), ..Offload::NONE };
            assert_eq!(cut(&offload, &partial).unwrap(), [whole]);
        }
    }

    #[test]
    fn a_complete_checksum_is_left_alone_even_if_wrong() {
        let mut wrong = tcp("192.0.2.1", "192.0.2.2", 1, ACK, b"abc");
        wrong[36] ^= 0x55;
        assert_eq!(cut(&Offload::NONE, &wrong).unwrap(), [wrong.clone()]);
    }

    #[test]
    fn an_offload_header_that_lies_is_refused() {
        let tcp = tcp("192.0.2.1", "192.0.2.2", 1, ACK, &payload(100));
        let with = |checksum, cut| Offload { checksum, cut, header: 0 };
        for offload in [
            with(None, Some((Cut::Tcp6, 10))),
            with(None, Some((Cut::Udp, 10))),
            with(None, Some((Cut::Tcp4, 0))),
            with(Some((200, 16)), None),
            with(Some((100, 60)), None),
            with(Some((u16::MAX, u16::MAX)), None),
        ] {
            assert!(cut(&offload, &tcp).is_err(), "{offload:?}");
        }
        let mut fragment = tcp.clone();
        fragment[6] = 0x20;
        assert!(cut(&with(None, Some((Cut::Tcp4, 10))), &fragment).is_err());
        let mut short = tcp;
        short[32] = 0x10;
        assert!(cut(&with(None, Some((Cut::Tcp4, 10))), &short).is_err());
    }
}
