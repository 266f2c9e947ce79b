//! What the plane reads of an inner IP packet: addresses, protocol, ports, lengths (RFC 791,
//! RFC 8200).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sa::{Fields, Flow, Traffic};

/// An inner packet whose header was checked: versions and lengths agree with the octets present.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Inner {
    pub(crate) flow: Flow,
    /// Octets of the packet by its own word; what follows is padding.
    pub(crate) len: usize,
    /// Where the upper-layer header starts.
    pub(crate) upper: usize,
    /// The upper layer's protocol.
    pub(crate) protocol: u8,
    /// Source and destination port; ICMP type and code in the first (RFC 4301 §4.4.1.1), 0 where
    /// there is none or where it is in another fragment.
    pub(crate) ports: (u16, u16),
    /// DSCP and ECN.
    pub(crate) tos: u8,
    /// IPv4 options or IPv6 extension headers are present.
    pub(crate) extended: bool,
    /// A fragment, first or later.
    pub(crate) fragment: Fragment,
    /// IPv4's Don't Fragment; always so in IPv6.
    pub(crate) df: bool,
}

/// Which part of a datagram a packet is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fragment {
    Whole,
    First,
    Later,
}

/// The header contradicts itself or the octets at hand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Malformed;

impl Inner {
    /// Reads a packet; octets after its end are ignored (they may be TFC padding, RFC 4303 §2.7).
    #[inline]
    pub(crate) fn parse(packet: &[u8]) -> Result<Self, Malformed> {
        match packet.first().ok_or(Malformed)? >> 4 {
            4 => Self::parse_v4(packet),
            6 => Self::parse_v6(packet),
            _ => Err(Malformed),
        }
    }

    fn parse_v4(packet: &[u8]) -> Result<Self, Malformed> {
        let header: &[u8; 20] = packet.first_chunk().ok_or(Malformed)?;
        let upper = usize::from(header[0] & 0x0f) * 4;
        let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if upper < 20 || len < upper || len > packet.len() {
            return Err(Malformed);
        }
        let offset = u16::from_be_bytes([header[6], header[7]]);
        let fragment = match (offset & 0x1fff, offset & 0x2000) {
            (0, 0) => Fragment::Whole,
            (0, _) => Fragment::First,
            _ => Fragment::Later,
        };
        let protocol = header[9];
        let src = Ipv4Addr::new(header[12], header[13], header[14], header[15]);
        let dst = Ipv4Addr::new(header[16], header[17], header[18], header[19]);
        Ok(Self {
            flow: Flow::new(IpAddr::V4(src), IpAddr::V4(dst)).ok_or(Malformed)?,
            len,
            upper,
            protocol,
            ports: ports(protocol, fragment, packet.get(upper..len).ok_or(Malformed)?),
            tos: header[1],
            extended: upper > 20,
            fragment,
            df: offset & 0x4000 != 0,
        })
    }

    fn parse_v6(packet: &[u8]) -> Result<Self, Malformed> {
        let header: &[u8; 40] = packet.first_chunk().ok_or(Malformed)?;
        let len = 40 + usize::from(u16::from_be_bytes([header[4], header[5]]));
        let body = packet.get(..len).ok_or(Malformed)?;
        let address = |at: usize| -> Option<IpAddr> {
            let octets: [u8; 16] = header.get(at..at + 16)?.try_into().ok()?;
            Some(IpAddr::V6(Ipv6Addr::from(octets)))
        };
        let (src, dst) = (address(8).ok_or(Malformed)?, address(24).ok_or(Malformed)?);
        let (protocol, upper, fragment) = upper_of_v6(header[6], body, 40)?;
        Ok(Self {
            flow: Flow::new(src, dst).ok_or(Malformed)?,
            len,
            upper,
            protocol,
            ports: ports(protocol, fragment, body.get(upper..).ok_or(Malformed)?),
            tos: header[0] << 4 | header[1] >> 4,
            extended: upper > 40,
            fragment,
            df: true,
        })
    }

    /// What selectors look at, of a packet in either direction.
    pub(crate) fn traffic(&self) -> Traffic {
        let fields = match (self.fragment, self.protocol) {
            (Fragment::Later, _) => Fields::Hidden,
            (_, TCP | UDP | SCTP | DCCP | UDP_LITE) => Fields::Ports(self.ports.0, self.ports.1),
            (_, ICMP | ICMP_V6) => Fields::Kind(self.ports.0),
            _ => Fields::Hidden,
        };
        Traffic { src: self.flow.src(), dst: self.flow.dst(), protocol: self.protocol, fields }
    }

    /// IP version 4 rather than 6.
    pub(crate) fn is_v4(&self) -> bool {
        self.flow.dst().is_ipv4()
    }
}

/// Walks IPv6 extension headers (RFC 8200 §4), of which the `first` stands at `at`: protocol and
/// place of the upper-layer header.
pub(crate) fn upper_of_v6(
    first: u8,
    packet: &[u8],
    mut at: usize,
) -> Result<(u8, usize, Fragment), Malformed> {
    let (mut next, mut fragment) = (first, Fragment::Whole);
    for _ in 0..MAX_EXTENSIONS {
        let unit = match next {
            HOP_BY_HOP | ROUTING | DESTINATION | MOBILITY => 8,
            AH => 4,
            FRAGMENT => 0,
            _ => return Ok((next, at, fragment)),
        };
        let header: &[u8; 8] = packet.get(at..).and_then(<[u8]>::first_chunk).ok_or(Malformed)?;
        let units = usize::from(header[1]);
        at += match unit {
            8 => (units + 1) * 8,
            4 => (units + 2) * 4,
            _ => 8,
        };
        if next == FRAGMENT {
            let offset = u16::from_be_bytes([header[2], header[3]]);
            fragment = match (offset >> 3, offset & 1) {
                (0, 0) => fragment,
                (0, _) => Fragment::First,
                _ => Fragment::Later,
            };
        }
        next = header[0];
        if at > packet.len() {
            return Err(Malformed);
        }
        if fragment == Fragment::Later {
            // What follows is the middle of something.
            return Ok((next, at, fragment));
        }
    }
    Err(Malformed)
}

/// Whether this next header is an extension header of IPv6, behind which there is another.
pub(crate) fn is_extension(next: u8) -> bool {
    matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | AH | DESTINATION | MOBILITY)
}

/// Source and destination port, as [`Inner::ports`] has them.
pub(crate) fn ports(protocol: u8, fragment: Fragment, upper: &[u8]) -> (u16, u16) {
    let Some(head) = upper.first_chunk::<4>() else { return (0, 0) };
    match (protocol, fragment) {
        (_, Fragment::Later) => (0, 0),
        (TCP | UDP | SCTP | DCCP | UDP_LITE, _) => {
            (u16::from_be_bytes([head[0], head[1]]), u16::from_be_bytes([head[2], head[3]]))
        }
        (ICMP | ICMP_V6, _) => (u16::from_be_bytes([head[0], head[1]]), 0),
        _ => (0, 0),
    }
}

/// Whether an ICMP message of this type reports an error, and so quotes a packet. Not redirect.
pub(crate) fn is_error_message(protocol: u8, kind: u8) -> bool {
    match protocol {
        // Destination unreachable, time exceeded, parameter problem.
        ICMP => matches!(kind, 3 | 11 | 12),
        ICMP_V6 => matches!(kind, 1..=4),
        _ => false,
    }
}

/// Whether packets for `dst` may wait for a security association. Multicast, broadcast and
/// link-local traffic has no peer to negotiate with; loopback and "nobody" never leave a host.
pub(crate) fn is_holdable(dst: IpAddr) -> bool {
    match dst {
        IpAddr::V4(a) => {
            !(a.is_multicast()
                || a.is_broadcast()
                || a.is_link_local()
                || a.is_loopback()
                || a.octets()[0] == 0)
        }
        IpAddr::V6(a) => {
            !(a.is_multicast()
                || a.is_unicast_link_local()
                || a.is_loopback()
                || a.is_unspecified()
                || a.to_ipv4_mapped().is_some())
        }
    }
}

pub(crate) const ICMP: u8 = 1;
pub(crate) const IP_IN_IP: u8 = 4;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const DCCP: u8 = 33;
pub(crate) const IPV6: u8 = 41;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
pub(crate) const FRAGMENT: u8 = 44;
const AH: u8 = 51;
pub(crate) const ICMP_V6: u8 = 58;
pub(crate) const NO_NEXT_HEADER: u8 = 59;
pub(crate) const DESTINATION: u8 = 60;
const SCTP: u8 = 132;
const MOBILITY: u8 = 135;
pub(crate) const UDP_LITE: u8 = 136;
/// More extension headers than any sender has a use for (each kind once, destination options
/// twice: RFC 8200 §4.1).
const MAX_EXTENSIONS: usize = 8;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::checksum::Sum;
    use proptest::prelude::*;

    pub(crate) fn ip(s: &str) -> IpAddr {
        s.parse().unwrap()
    }

    /// An IP packet with a valid header around `upper`.
    pub(crate) fn packet(src: &str, dst: &str, protocol: u8, upper: &[u8]) -> Vec<u8> {
        match (ip(src), ip(dst)) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let mut p = vec![0x45, 0, 0, 0, 0x12, 0x34, 0x40, 0, 64, protocol, 0, 0];
                p.extend(src.octets());
                p.extend(dst.octets());
                let len = u16::try_from(20 + upper.len()).unwrap();
                p[2..4].copy_from_slice(&len.to_be_bytes());
                let sum = Sum::default().octets(&p).checksum();
                p[10..12].copy_from_slice(&sum);
                p.extend(upper);
                p
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let mut p = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
                p[4..6].copy_from_slice(&u16::try_from(upper.len()).unwrap().to_be_bytes());
                p.extend(src.octets());
                p.extend(dst.octets());
                p.extend(upper);
                p
            }
            _ => panic!("two families"),
        }
    }

    /// A UDP datagram with a valid checksum in an IP packet.
    pub(crate) fn udp(src: &str, dst: &str, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
        let mut upper = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
        upper.extend(u16::try_from(8 + payload.len()).unwrap().to_be_bytes());
        upper.extend([0, 0]);
        upper.extend(payload);
        let sum = pseudo(ip(src), ip(dst), UDP, upper.len()).octets(&upper).checksum();
        upper[6..8].copy_from_slice(&sum);
        packet(src, dst, UDP, &upper)
    }

    pub(crate) fn pseudo(src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> Sum {
        crate::offload::pseudo_header(src, dst, protocol, len)
    }

    #[test]
    fn fields_of_both_versions() {
        for (src, dst) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")] {
            let mut p = udp(src, dst, (1000, 53), b"question");
            let len = p.len();
            p.extend([0; 7]);
            let inner = Inner::parse(&p).unwrap();
            assert_eq!((inner.flow.src(), inner.flow.dst()), (ip(src), ip(dst)));
            assert_eq!((inner.len, inner.protocol, inner.ports), (len, UDP, (1000, 53)));
            assert_eq!((inner.fragment, inner.extended), (Fragment::Whole, false));
        }
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let good = udp("192.0.2.1", "192.0.2.2", (1, 2), b"abc");
        assert!(Inner::parse(&good[..good.len() - 1]).is_err());
        for (at, value) in [(0, 0x44), (0, 0x4f), (0, 0x65), (2, 0xff), (3, 19)] {
            let mut p = good.clone();
            p[at] = value;
            assert!(Inner::parse(&p).is_err(), "{at} {value}");
        }
        assert!(Inner::parse(&[]).is_err());
    }

    #[test]
    fn extension_headers_are_walked() {
        let udp = udp("2001:db8::1", "2001:db8::2", (7, 9), b"x")[40..].to_vec();
        let chain = [&[FRAGMENT, 0, 1, 4, 0, 0, 0, 0][..], &[UDP, 0, 0, 1, 0, 0, 0, 1], &udp];
        let p = packet("2001:db8::1", "2001:db8::2", HOP_BY_HOP, &chain.concat());
        let inner = Inner::parse(&p).unwrap();
        assert_eq!((inner.upper, inner.protocol, inner.ports), (56, UDP, (7, 9)));
        assert_eq!((inner.fragment, inner.extended), (Fragment::First, true));
        // A later fragment has no ports, whatever its octets look like.
        let later = [&[UDP, 0, 0, 9, 0, 0, 0, 1][..], &udp].concat();
        let inner = Inner::parse(&packet("2001:db8::1", "2001:db8::2", FRAGMENT, &later)).unwrap();
        assert_eq!((inner.fragment, inner.ports), (Fragment::Later, (0, 0)));
        // A chain that runs out of the packet, or never ends.
        let p = packet("2001:db8::1", "2001:db8::2", HOP_BY_HOP, &[UDP, 3, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Inner::parse(&p), Err(Malformed));
        let p = packet("2001:db8::1", "2001:db8::2", HOP_BY_HOP, &[0; 400]);
        assert_eq!(Inner::parse(&p), Err(Malformed));
    }

    #[test]
    fn nobody_negotiates_with_a_multicast_group() {
        for addr in ["224.0.0.251", "255.255.255.255", "169.254.1.1", "127.0.0.1", "0.0.0.0"] {
            assert!(!is_holdable(ip(addr)), "{addr}");
        }
        for addr in ["ff02::1", "fe80::1", "::1", "::", "::ffff:192.0.2.1"] {
            assert!(!is_holdable(ip(addr)), "{addr}");
        }
        assert!(is_holdable(ip("192.0.2.1")) && is_holdable(ip("2001:db8::1")));
        assert!(is_holdable(ip("10.0.0.1")) && is_holdable(ip("fd00::1")));
    }

    proptest! {
        #[test]
        fn any_octets_are_survived(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(inner) = Inner::parse(&octets) {
                prop_assert!(inner.upper <= inner.len && inner.len <= octets.len());
            }
        }
    }
}
