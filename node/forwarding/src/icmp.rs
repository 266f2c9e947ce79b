//! The ICMP errors that the plane itself sends to whoever handed it a packet: too big (RFC 1191,
//! RFC 8201) and prohibited (RFC 4322 §3.1.4).

use std::net::IpAddr;

use crate::checksum::Sum;
use crate::offload::pseudo_header;
use crate::packet::{Fragment, ICMP, ICMP_V6, Inner};

/// Why a packet goes back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Error {
    /// It does not fit; packets of this many octets do.
    TooBig(u16),
    /// Policy forbids it.
    Prohibited,
}

/// Builds the IP packet of the error about `packet`, or `None` if no error may be sent about it
/// (RFC 1122 §3.2.2, RFC 4443 §2.4): never about ICMP errors, nor about later fragments.
///
/// The error seems to come from the destination: the plane has no address of its own, and the
/// host's routing would refuse a packet from itself on the device.
pub(crate) fn error(kind: Error, inner: &Inner, packet: &[u8]) -> Option<Vec<u8>> {
    if inner.fragment == Fragment::Later || is_error(inner) {
        return None;
    }
    match (inner.flow.src(), inner.flow.dst()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let quoted = packet.get(..inner.len.min(QUOTED_V4))?;
            let (code, next_mtu) = match kind {
                Error::TooBig(mtu) => (4, mtu),
                Error::Prohibited => (13, 0),
            };
            let mut message = vec![3, code, 0, 0, 0, 0];
            message.extend(next_mtu.to_be_bytes());
            message.extend(quoted);
            let sum = Sum::default().octets(&message).checksum();
            message.get_mut(2..4)?.copy_from_slice(&sum);

            let len = u16::try_from(20 + message.len()).ok()?;
            let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, ICMP, 0, 0];
            ip.get_mut(2..4)?.copy_from_slice(&len.to_be_bytes());
            ip.extend(dst.octets());
            ip.extend(src.octets());
            let sum = Sum::default().octets(&ip).checksum();
            ip.get_mut(10..12)?.copy_from_slice(&sum);
            ip.extend(message);
            Some(ip)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let quoted = packet.get(..inner.len.min(QUOTED_V6))?;
            let (kind, code, mtu) = match kind {
                Error::TooBig(mtu) => (2, 0, u32::from(mtu)),
                Error::Prohibited => (1, 1, 0),
            };
            let mut message = vec![kind, code, 0, 0];
            message.extend(mtu.to_be_bytes());
            message.extend(quoted);
            let pseudo = pseudo_header(src.into(), dst.into(), ICMP_V6, message.len());
            let sum = pseudo.octets(&message).checksum();
            message.get_mut(2..4)?.copy_from_slice(&sum);

            let len = u16::try_from(message.len()).ok()?;
            let mut ip = vec![0x60, 0, 0, 0, 0, 0, ICMP_V6, 64];
            ip.get_mut(4..6)?.copy_from_slice(&len.to_be_bytes());
            ip.extend(dst.octets());
            ip.extend(src.octets());
            ip.extend(message);
            Some(ip)
        }
        _ => None,
    }
}

/// Whether the packet is an ICMP error itself.
fn is_error(inner: &Inner) -> bool {
    let [kind, _] = inner.ports.0.to_be_bytes();
    match inner.protocol {
        ICMP => !matches!(kind, 0 | 8 | 9 | 10 | 13..=18),
        ICMP_V6 => kind < 128,
        _ => false,
    }
}

/// RFC 1812 §4.3.2.3: as much as fits into 576 octets.
const QUOTED_V4: usize = 576 - 28;
/// RFC 4443 §3.2: as much as fits into 1280 octets.
const QUOTED_V6: usize = 1280 - 48;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tests::{packet, udp};
    use crate::sad::addresses;

    fn valid(ip: &[u8]) -> bool {
        let inner = Inner::parse(ip).unwrap();
        let message = &ip[inner.upper..];
        if inner.is_v4() {
            Sum::default().octets(&ip[..20]).is_valid() && Sum::default().octets(message).is_valid()
        } else {
            let (src, dst) = (inner.flow.src(), inner.flow.dst());
            pseudo_header(src, dst, ICMP_V6, message.len()).octets(message).is_valid()
        }
    }

    #[test]
    fn too_big_names_the_size_and_quotes_the_packet() {
        for (src, dst, mtu_at) in
            [("192.0.2.1", "192.0.2.2", 26), ("2001:db8::1", "2001:db8::2", 46)]
        {
            let big = udp(src, dst, (1, 2), &[7; 1400]);
            let inner = Inner::parse(&big).unwrap();
            let answer = error(Error::TooBig(1390), &inner, &big).unwrap();
            assert!(valid(&answer));
            assert_eq!(answer[mtu_at..mtu_at + 2], 1390u16.to_be_bytes());
            let parsed = Inner::parse(&answer).unwrap();
            assert_eq!(parsed.flow, inner.flow.reversed());
            assert_eq!(addresses(&answer[parsed.upper + 8..]), Some(inner.flow));
            assert!(answer.len() <= if inner.is_v4() { 576 } else { 1280 });
        }
    }

    #[test]
    fn prohibited_is_code_13_and_code_1() {
        let v4 = udp("192.0.2.1", "192.0.2.2", (1, 2), b"x");
        let answer = error(Error::Prohibited, &Inner::parse(&v4).unwrap(), &v4).unwrap();
        assert_eq!(answer[20..22], [3, 13]);
        let v6 = udp("2001:db8::1", "2001:db8::2", (1, 2), b"x");
        let answer = error(Error::Prohibited, &Inner::parse(&v6).unwrap(), &v6).unwrap();
        assert_eq!(answer[40..42], [1, 1]);
    }

    #[test]
    fn no_error_about_errors_or_later_fragments() {
        let none = |p: &[u8]| error(Error::TooBig(500), &Inner::parse(p).unwrap(), p).is_none();
        assert!(none(&packet("192.0.2.1", "192.0.2.2", ICMP, &[3, 1, 0, 0, 0, 0, 0, 0])));
        assert!(none(&packet("2001:db8::1", "2001:db8::2", ICMP_V6, &[1, 0, 0, 0, 0, 0, 0, 0])));
        assert!(!none(&packet("192.0.2.1", "192.0.2.2", ICMP, &[8, 0, 0, 0, 0, 0, 0, 0])));
        let mut fragment = udp("192.0.2.1", "192.0.2.2", (1, 2), b"x");
        fragment[7] = 1;
        assert!(none(&fragment));
    }
}
