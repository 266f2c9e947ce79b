//! Reading capture files, by other code than what wrote them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IP packet of a capture.
#[derive(Debug)]
pub(crate) struct Packet {
    /// Source.
    pub(crate) source: IpAddr,
    /// Destination.
    pub(crate) destination: IpAddr,
    /// IP protocol, or IPv6 next header.
    pub(crate) protocol: u8,
    /// What follows the IP header.
    pub(crate) payload: Vec<u8>,
}

impl Packet {
    /// ESP as RFC 4303 or RFC 3948 have it.
    pub(crate) fn is_esp(&self) -> bool {
        self.protocol == 50 || self.is_natt() && self.payload[8..12] != [0; 4]
    }

    /// An IKE message.
    pub(crate) fn is_ike(&self) -> bool {
        self.is_natt() && self.payload[8..12] == [0; 4]
            || self.protocol == 17 && self.payload[2..4] == 500_u16.to_be_bytes()
    }

    /// The SPIs in an IKE message's header, the initiator's first (RFC 7296 §3.1).
    pub(crate) fn ike_spis(&self) -> Option<(u64, u64)> {
        let message = &self.payload[if self.is_natt() { 12 } else { 8 }..];
        let (initiator, rest) = message.split_first_chunk().filter(|_| self.is_ike())?;
        let responder = rest.first_chunk()?;
        Some((u64::from_be_bytes(*initiator), u64::from_be_bytes(*responder)))
    }

    fn is_natt(&self) -> bool {
        let port = 4500_u16.to_be_bytes();
        self.protocol == 17
            && self.payload.len() > 12
            && (self.payload[..2] == port || self.payload[2..4] == port)
    }
}

/// The IP packets of a capture file with nanoseconds, as ours are.
pub(crate) fn read(file: &[u8]) -> Vec<Packet> {
    assert_eq!(file[..4], 0xa1b2_3c4d_u32.to_ne_bytes(), "not a pcap file with nanoseconds");
    let (packets, rest) = packets(file);
    assert!(rest.is_empty(), "{} octets behind the last packet", rest.len());
    packets
}

/// Those of a capture file that tcpdump still writes: the last may be half written.
pub(crate) fn read_running(file: &[u8]) -> Vec<Packet> {
    assert_eq!(file[..4], 0xa1b2_c3d4_u32.to_ne_bytes(), "not a pcap file with microseconds");
    packets(file).0
}

fn packets(file: &[u8]) -> (Vec<Packet>, &[u8]) {
    let mut packets = Vec::new();
    let mut rest = &file[24..];
    while let Some(length) = rest.get(8..12) {
        let length = u32::from_ne_bytes(length.try_into().unwrap()) as usize;
        let Some(octets) = rest.get(16..16 + length) else { break };
        packets.extend(packet(octets));
        rest = &rest[16 + length..];
    }
    (packets, rest)
}

fn packet(frame: &[u8]) -> Option<Packet> {
    let ip = &frame[14..];
    let v4 = |octets: &[u8]| IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(octets).unwrap()));
    let v6 = |octets: &[u8]| IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(octets).unwrap()));
    match frame[12..14] {
        [0x08, 0x00] => Some(Packet {
            source: v4(&ip[12..16]),
            destination: v4(&ip[16..20]),
            protocol: ip[9],
            payload: ip[usize::from(ip[0] & 15) * 4..].to_vec(),
        }),
        [0x86, 0xdd] => Some(Packet {
            source: v6(&ip[8..24]),
            destination: v6(&ip[24..40]),
            protocol: ip[6],
            payload: ip[40..].to_vec(),
        }),
        _ => None,
    }
}
