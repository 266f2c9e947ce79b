//! What a captured frame is: enough of Ethernet, IP, UDP and IKE to tell clear from encrypted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IP packet seen on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Packet {
    /// IP source.
    pub(crate) source: IpAddr,
    /// IP destination.
    pub(crate) destination: IpAddr,
    /// What it carries.
    pub(crate) kind: Kind,
}

/// What an IP packet carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// ESP, as protocol 50 or in UDP (RFC 4303, RFC 3948).
    Esp {
        /// Security parameters index.
        spi: u32,
    },
    /// IKE (RFC 7296).
    Ike {
        /// Exchange type: 34 is IKE_SA_INIT, 35 IKE_AUTH.
        exchange: u8,
        /// Whether it is a response.
        response: bool,
    },
    /// NAT keepalive (RFC 3948 §2.3).
    Keepalive,
    /// A DNS message.
    Dns,
    /// Neighbour discovery, router discovery or multicast listener reports: the link's own.
    Link,
    /// ICMP of either family.
    Icmp {
        /// ICMP type.
        kind: u8,
    },
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// Any other protocol.
    Other(u8),
}

impl Kind {
    /// Whether anybody on the path can read it: neither ESP nor what negotiates ESP.
    pub(crate) fn is_clear(self) -> bool {
        !matches!(self, Self::Esp { .. } | Self::Ike { .. } | Self::Keepalive | Self::Link)
    }
}

/// Exchange type of IKE_SA_INIT.
pub(crate) const IKE_SA_INIT: u8 = 34;
/// Exchange type of IKE_AUTH.
pub(crate) const IKE_AUTH: u8 = 35;

/// Reads an Ethernet frame; `None` if it carries no IP.
pub(crate) fn parse(frame: &[u8]) -> Option<Packet> {
    let packet = frame.get(14..)?;
    match frame.get(12..14)? {
        [0x08, 0x00] => parse_v4(packet),
        [0x86, 0xdd] => parse_v6(packet),
        _ => None,
    }
}

fn parse_v4(packet: &[u8]) -> Option<Packet> {
    let header = packet.first_chunk::<20>()?;
    let length = usize::from(header[0] & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]])).min(packet.len());
    let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
    let [.., a, b, c, d, e, f, g, h] = *header;
    let payload = packet.get(length..total).unwrap_or_default();
    Some(Packet {
        source: IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
        destination: IpAddr::V4(Ipv4Addr::new(e, f, g, h)),
        kind: kind(header[9], fragment == 0, payload),
    })
}

fn parse_v6(packet: &[u8]) -> Option<Packet> {
    let (header, mut payload) = packet.split_first_chunk::<40>()?;
    let (addresses, _) = header.get(8..)?.split_first_chunk::<32>()?;
    let source: [u8; 16] = addresses.get(..16)?.try_into().ok()?;
    let destination: [u8; 16] = addresses.get(16..)?.try_into().ok()?;
    let mut protocol = header[6];
    let mut first = true;
    // Hop-by-hop, routing, destination options and fragment headers, RFC 8200 §4.
    while matches!(protocol, 0 | 43 | 44 | 60) {
        let Some(extension) = payload.first_chunk::<8>() else { break };
        let length = if protocol == 44 {
            first = u16::from_be_bytes([extension[2], extension[3]]) >> 3 == 0;
            8
        } else {
            (usize::from(extension[1]) + 1) * 8
        };
        protocol = extension[0];
        payload = payload.get(length..).unwrap_or_default();
    }
    Some(Packet {
        source: IpAddr::V6(Ipv6Addr::from(source)),
        destination: IpAddr::V6(Ipv6Addr::from(destination)),
        kind: kind(protocol, first, payload),
    })
}

/// What an IP payload is. Where its ports are in another fragment, it counts as readable.
fn kind(protocol: u8, first: bool, payload: &[u8]) -> Kind {
    match protocol {
        50 => Kind::Esp { spi: spi(payload) },
        1 | 58 if first => match payload.first() {
            Some(130..=137 | 143) if protocol == 58 => Kind::Link,
            kind => Kind::Icmp { kind: kind.copied().unwrap_or_default() },
        },
        6 => Kind::Tcp,
        17 if first => udp(payload),
        17 => Kind::Udp,
        other => Kind::Other(other),
    }
}

fn udp(datagram: &[u8]) -> Kind {
    let Some((header, payload)) = datagram.split_first_chunk::<8>() else { return Kind::Udp };
    let ports =
        [u16::from_be_bytes([header[0], header[1]]), u16::from_be_bytes([header[2], header[3]])];
    if ports.contains(&4500) {
        return match payload {
            [0xff] => Kind::Keepalive,
            [0, 0, 0, 0, message @ ..] => ike(message).unwrap_or(Kind::Udp),
            [_, _, _, _, _, _, _, _, ..] => Kind::Esp { spi: spi(payload) },
            _ => Kind::Udp,
        };
    }
    if ports.contains(&500) {
        return ike(payload).unwrap_or(Kind::Udp);
    }
    if ports.contains(&53) { Kind::Dns } else { Kind::Udp }
}

/// Reads the IKE header, RFC 7296 §3.1; `None` if it is not of version 2.
fn ike(message: &[u8]) -> Option<Kind> {
    let header = message.first_chunk::<28>()?;
    (header[17] >> 4 == 2)
        .then_some(Kind::Ike { exchange: header[18], response: header[19] & 0x20 != 0 })
}

fn spi(esp: &[u8]) -> u32 {
    esp.first_chunk().map_or(0, |spi| u32::from_be_bytes(*spi))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let total = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00]);
        frame.extend([0x45, 0, total[0], total[1], 0, 0, 0, 0, 64, protocol, 0, 0]);
        frame.extend([192, 0, 2, 11, 198, 51, 100, 22]);
        frame.extend(payload);
        frame
    }

    fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, next, 64]);
        frame.extend("2001:db8:1::11".parse::<Ipv6Addr>().unwrap().octets());
        frame.extend("2001:db8:2::22".parse::<Ipv6Addr>().unwrap().octets());
        frame.extend(payload);
        frame
    }

    fn udp_to(port: u16, payload: &[u8]) -> Vec<u8> {
        let mut datagram = vec![0xc0, 0x00];
        datagram.extend(port.to_be_bytes());
        datagram.extend([0, 0, 0, 0]);
        datagram.extend(payload);
        datagram
    }

    fn ike_message(exchange: u8, flags: u8) -> Vec<u8> {
        let mut message = vec![1; 28];
        message[17] = 0x20;
        message[18] = exchange;
        message[19] = flags;
        message
    }

    fn kind_of(frame: &[u8]) -> Kind {
        parse(frame).unwrap().kind
    }

    #[test]
    fn reads_addresses_of_both_families() {
        let packet = parse(&v4(6, &[0; 20])).unwrap();
        assert_eq!(packet.source, "192.0.2.11".parse::<IpAddr>().unwrap());
        assert_eq!(packet.destination, "198.51.100.22".parse::<IpAddr>().unwrap());
        let packet = parse(&v6(6, &[0; 20])).unwrap();
        assert_eq!(packet.source, "2001:db8:1::11".parse::<IpAddr>().unwrap());
        assert_eq!(packet.destination, "2001:db8:2::22".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn tells_encrypted_from_clear() {
        let encrypted = [
            v4(50, &[0, 0, 1, 2, 0, 0, 0, 1]),
            v4(17, &udp_to(4500, &[0, 0, 1, 2, 0, 0, 0, 1])),
            v6(50, &[0, 0, 1, 2, 0, 0, 0, 1]),
        ];
        for frame in &encrypted {
            assert_eq!(kind_of(frame), Kind::Esp { spi: 0x0102 });
            assert!(!kind_of(frame).is_clear());
        }
        let clear = [
            v4(1, &[8, 0, 0, 0]),
            v6(58, &[128, 0, 0, 0]),
            v4(6, &[0; 20]),
            v4(17, &udp_to(9, b"x")),
            v4(17, &udp_to(4500, b"x")),
            v4(17, &udp_to(500, b"not IKE")),
            v4(47, &[]),
        ];
        for frame in &clear {
            assert!(kind_of(frame).is_clear(), "{:?}", kind_of(frame));
        }
    }

    #[test]
    fn reads_the_ike_header_on_both_ports() {
        let request = Kind::Ike { exchange: IKE_SA_INIT, response: false };
        assert_eq!(kind_of(&v4(17, &udp_to(500, &ike_message(34, 0x08)))), request);
        let marked = [&[0; 4], ike_message(35, 0x20).as_slice()].concat();
        let response = Kind::Ike { exchange: IKE_AUTH, response: true };
        assert_eq!(kind_of(&v4(17, &udp_to(4500, &marked))), response);
        let mut version_1 = ike_message(34, 0);
        version_1[17] = 0x10;
        assert_eq!(kind_of(&v4(17, &udp_to(500, &version_1))), Kind::Udp);
    }

    #[test]
    fn later_fragments_count_as_readable() {
        let mut frame = v4(17, &[0; 64]);
        frame[14 + 7] = 1;
        assert_eq!(kind_of(&frame), Kind::Udp);
    }

    #[test]
    fn looks_behind_extension_headers() {
        let mut payload = vec![58, 0, 5, 2, 0, 0, 1, 0];
        payload.extend([143, 0, 0, 0]);
        assert_eq!(kind_of(&v6(0, &payload)), Kind::Link);
    }

    #[test]
    fn no_prefix_of_a_frame_panics() {
        let whole = v4(17, &udp_to(500, &ike_message(34, 0)));
        for length in 0..whole.len() {
            let _ = parse(&whole[..length]);
        }
        let whole = v6(0, &[17, 0, 0, 0, 0, 0, 0, 0, 0]);
        for length in 0..whole.len() {
            let _ = parse(&whole[..length]);
        }
    }
}
