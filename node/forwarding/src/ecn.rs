//! Explicit congestion notification through ESP in tunnel mode (RFC 6040), and DSCP (RFC 4301
//! §5.1.2).

use crate::checksum;

/// The outer DSCP and ECN octet of a packet with this inner one: ECN is copied (RFC 6040 §4.1,
/// normal mode), DSCP only when configured, because it tells an observer about the inside.
pub(crate) fn outer(inner: u8, copy_dscp: bool) -> u8 {
    if copy_dscp { inner } else { inner & ECN }
}

/// Marks a decapsulated packet as its outer header asks (RFC 6040 §4.2, figure 4). `None` if it
/// must be dropped: congestion was signalled and the sender would never learn of it.
#[inline]
pub(crate) fn decapsulate(packet: &mut [u8], inner: u8, outer: u8) -> Option<()> {
    let marked = arriving(inner & ECN, outer & ECN)?;
    if marked == inner & ECN {
        return Some(());
    }
    let tos = inner & !ECN | marked;
    match packet.first()? >> 4 {
        4 => {
            let header: &mut [u8; 20] = packet.first_chunk_mut()?;
            let old = u16::from_be_bytes([header[0], header[1]]);
            let new = u16::from_be_bytes([header[0], tos]);
            header[1] = tos;
            let sum = checksum::updated([header[10], header[11]], old, new);
            [header[10], header[11]] = sum;
        }
        _ => {
            let header: &mut [u8; 2] = packet.first_chunk_mut()?;
            header[0] = header[0] & 0xf0 | tos >> 4;
            header[1] = header[1] & 0x0f | tos << 4;
        }
    }
    Some(())
}

/// Figure 4 of RFC 6040.
fn arriving(inner: u8, outer: u8) -> Option<u8> {
    match (inner, outer) {
        (NOT_ECT, CE) => None,
        (NOT_ECT, _) => Some(NOT_ECT),
        (ECT_0, ECT_1) => Some(ECT_1),
        (_, CE) => Some(CE),
        (inner, _) => Some(inner),
    }
}

/// The two low bits of the octet.
const ECN: u8 = 0b11;
const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const ECT_0: u8 = 0b10;
const CE: u8 = 0b11;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::Sum;
    use crate::packet::Inner;
    use crate::packet::tests::udp;

    /// The sixteen rows of RFC 6040 figure 4.
    #[test]
    fn figure_4() {
        let rows = [
            (NOT_ECT, NOT_ECT, Some(NOT_ECT)),
            (NOT_ECT, ECT_0, Some(NOT_ECT)),
            (NOT_ECT, ECT_1, Some(NOT_ECT)),
            (NOT_ECT, CE, None),
            (ECT_0, NOT_ECT, Some(ECT_0)),
            (ECT_0, ECT_0, Some(ECT_0)),
            (ECT_0, ECT_1, Some(ECT_1)),
            (ECT_0, CE, Some(CE)),
            (ECT_1, NOT_ECT, Some(ECT_1)),
            (ECT_1, ECT_0, Some(ECT_1)),
            (ECT_1, ECT_1, Some(ECT_1)),
            (ECT_1, CE, Some(CE)),
            (CE, NOT_ECT, Some(CE)),
            (CE, ECT_0, Some(CE)),
            (CE, ECT_1, Some(CE)),
            (CE, CE, Some(CE)),
        ];
        for (inner, outer, expected) in rows {
            assert_eq!(arriving(inner, outer), expected, "{inner:02b} in {outer:02b}");
        }
    }

    #[test]
    fn the_inner_header_carries_the_mark_and_stays_valid() {
        for (src, dst) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")] {
            let mut p = udp(src, dst, (1, 2), b"payload");
            // DSCP AF21, ECT(0), set by the same code path that the test examines last.
            assert_eq!(decapsulate(&mut p, 0, ECT_0), Some(()));
            let ect = 0b0100_1010;
            if src.contains('.') {
                p[1] = ect;
                p[10..12].fill(0);
                let sum = Sum::default().octets(&p[..20]).checksum();
                p[10..12].copy_from_slice(&sum);
            } else {
                p[0] |= ect >> 4;
                p[1] |= ect << 4;
            }
            assert_eq!(decapsulate(&mut p, ect, CE), Some(()));
            assert_eq!(Inner::parse(&p).unwrap().tos, ect | CE);
            assert!(src.contains(':') || Sum::default().octets(&p[..20]).is_valid());
        }
    }

    /// Attack A45.
    #[test]
    fn dscp_goes_outside_only_when_asked() {
        assert_eq!(outer(0b1011_1010, false), 0b10);
        assert_eq!(outer(0b1011_1010, true), 0b1011_1010);
    }
}
