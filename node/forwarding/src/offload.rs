//! The header that goes before each packet of the device: which work the kernel left to us, and
//! which we leave to it (struct virtio_net_hdr of the virtio specification, §5.1.6).

use std::net::IpAddr;

use crate::checksum::Sum;

/// What is still to be done to a packet before it may go on a wire.
///
/// ```text
///  flags | gso_type | hdr_len (2) | gso_size (2) | csum_start (2) | csum_offset (2)   host order
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Offload {
    /// Where the checksum begins and how far from there its field is; the field holds the sum of
    /// the pseudo-header. `None`: the checksum is complete.
    pub(crate) checksum: Option<(u16, u16)>,
    /// How to cut it, and the octets of payload per part.
    pub(crate) cut: Option<(Cut, u16)>,
    /// Octets of all headers; a hint.
    pub(crate) header: u16,
}

/// Which kind of super-packet it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cut {
    Tcp4,
    Tcp6,
    Udp,
}

impl Offload {
    /// Octets of the header.
    pub const LEN: usize = 10;
    /// Nothing is left to do.
    pub const NONE: Self = Self { checksum: None, cut: None, header: 0 };

    /// Reads the header; `None` for a kind that was never asked for.
    #[must_use]
    pub fn parse(header: [u8; Self::LEN]) -> Option<Self> {
        let [flags, kind, h0, h1, s0, s1, c0, c1, o0, o1] = header;
        let size = u16::from_ne_bytes([s0, s1]);
        let cut = match kind & !GSO_ECN {
            GSO_NONE => None,
            GSO_TCPV4 => Some((Cut::Tcp4, size)),
            GSO_TCPV6 => Some((Cut::Tcp6, size)),
            GSO_UDP_L4 => Some((Cut::Udp, size)),
            _ => return None,
        };
        let checksum = (flags & NEEDS_CSUM != 0)
            .then_some((u16::from_ne_bytes([c0, c1]), u16::from_ne_bytes([o0, o1])));
        Some(Self { checksum, cut, header: u16::from_ne_bytes([h0, h1]) })
    }

    /// Writes the header.
    #[must_use]
    pub fn to_octets(self) -> [u8; Self::LEN] {
        let (flags, (start, offset)) = match self.checksum {
            Some(places) => (NEEDS_CSUM, places),
            None => (0, (0, 0)),
        };
        let (kind, size) = match self.cut {
            None => (GSO_NONE, 0),
            Some((Cut::Tcp4, size)) => (GSO_TCPV4, size),
            Some((Cut::Tcp6, size)) => (GSO_TCPV6, size),
            Some((Cut::Udp, size)) => (GSO_UDP_L4, size),
        };
        let [h0, h1] = self.header.to_ne_bytes();
        let [s0, s1] = size.to_ne_bytes();
        let [c0, c1] = start.to_ne_bytes();
        let [o0, o1] = offset.to_ne_bytes();
        [flags, kind, h0, h1, s0, s1, c0, c1, o0, o1]
    }
}

/// The pseudo-header's sum (RFC 9293 §3.1, RFC 8200 §8.1); `len` counts the upper-layer header
/// and its payload.
pub(crate) fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> Sum {
    let sum = Sum::default().word(protocol.into()).word(u16::try_from(len).unwrap_or(u16::MAX));
    [src, dst].into_iter().fold(sum, |sum, addr| match addr {
        IpAddr::V4(a) => sum.octets(&a.octets()),
        IpAddr::V6(a) => sum.octets(&a.octets()),
    })
}

const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_survive() {
        for offload in [
            Offload::NONE,
            Offload { checksum: Some((20, 16)), cut: Some((Cut::Tcp4, 1348)), header: 52 },
            Offload { checksum: Some((40, 6)), cut: Some((Cut::Udp, 1200)), header: 48 },
            Offload { checksum: Some((20, 6)), cut: None, header: 0 },
        ] {
            assert_eq!(Offload::parse(offload.to_octets()), Some(offload));
        }
        // UFO, which is never asked for.
        assert_eq!(Offload::parse([0, 3, 0, 0, 0, 0, 0, 0, 0, 0]), None);
    }
}
