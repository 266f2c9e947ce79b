//! IP packets with text in UDP, for applications that say a word to each other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const UDP: u8 = 17;
const PORT: u16 = 7;

/// An IP packet with `text` in UDP.
pub(crate) fn build(src: IpAddr, dst: IpAddr, text: &str) -> Vec<u8> {
    build_with_ports(src, dst, (PORT, PORT), text)
}

/// The same, from and to these ports.
pub(crate) fn build_with_ports(src: IpAddr, dst: IpAddr, ports: (u16, u16), text: &str) -> Vec<u8> {
    let udp_len = u16::try_from(8 + text.len()).unwrap();
    let mut udp = Vec::new();
    udp.extend(ports.0.to_be_bytes());
    udp.extend(ports.1.to_be_bytes());
    udp.extend(udp_len.to_be_bytes());
    // No checksum: nobody here verifies it.
    udp.extend([0, 0]);
    udp.extend(text.as_bytes());
    let mut packet = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => header_v4(src, dst, udp_len),
        (IpAddr::V6(src), IpAddr::V6(dst)) => header_v6(src, dst, udp_len),
        _ => panic!("two families"),
    };
    packet.extend(udp);
    packet
}

fn header_v4(src: Ipv4Addr, dst: Ipv4Addr, payload: u16) -> Vec<u8> {
    let mut header = vec![0x45, 0];
    header.extend((20 + payload).to_be_bytes());
    header.extend([0, 1, 0x40, 0, 64, UDP, 0, 0]);
    header.extend(src.octets());
    header.extend(dst.octets());
    let sum: u32 = header.chunks(2).map(|c| u32::from(u16::from_be_bytes([c[0], c[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    let checksum = !u16::try_from(folded).unwrap();
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    header
}

fn header_v6(src: Ipv6Addr, dst: Ipv6Addr, payload: u16) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0];
    header.extend(payload.to_be_bytes());
    header.extend([UDP, 64]);
    header.extend(src.octets());
    header.extend(dst.octets());
    header
}

/// Source and destination.
pub(crate) fn addresses(packet: &[u8]) -> (IpAddr, IpAddr) {
    if packet[0] >> 4 == 4 {
        let at = |i: usize| IpAddr::from(<[u8; 4]>::try_from(&packet[i..i + 4]).unwrap());
        (at(12), at(16))
    } else {
        let at = |i: usize| IpAddr::from(<[u8; 16]>::try_from(&packet[i..i + 16]).unwrap());
        (at(8), at(24))
    }
}

/// Source and destination port.
pub(crate) fn ports(packet: &[u8]) -> (u16, u16) {
    let at = if packet[0] >> 4 == 4 { 20 } else { 40 };
    let port = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    (port(at), port(at + 2))
}

/// What the application said.
pub(crate) fn text(packet: &[u8]) -> String {
    let header = if packet[0] >> 4 == 4 { 20 } else { 40 };
    String::from_utf8_lossy(&packet[header + 8..]).into_owned()
}
