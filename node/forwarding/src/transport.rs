//! Transport mode (RFC 4303 §3.1.1): ESP protects what an IP packet carries and leaves the header
//! to be the outer one. The sender takes the header off, the receiver makes one of the addresses
//! that it knows and of what it saw outside.
//!
//! Of the header nothing survives but addresses, protocol, DSCP and ECN: the outer one is written
//! by the kernel, with its own hop limit, identification and flow label. What needs more, IPv4
//! options and IPv6 extension headers that belong outside, is refused.

use std::net::IpAddr;

use sa::Flow;

use crate::checksum::Sum;
use crate::counters::Reason;
use crate::packet::{DESTINATION, Fragment, Inner, is_extension, ports, upper_of_v6};

/// The part of an outgoing packet that is protected: where it begins, and its next header. `None`
/// if the header says what a new one could not.
#[inline]
pub(crate) fn protected(inner: &Inner, packet: &[u8]) -> Option<(usize, u8)> {
    if inner.fragment != Fragment::Whole {
        return None;
    }
    if inner.is_v4() {
        return (!inner.extended).then_some((20, inner.protocol));
    }
    let next = *packet.get(6)?;
    // Destination options go with what they are about, if nothing is between the two.
    let options = next == DESTINATION && packet.get(40) == Some(&inner.protocol);
    (!is_extension(next) || options).then_some((40, next))
}

/// A header that was made anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Head {
    octets: [u8; 40],
    len: usize,
}

impl Head {
    /// The octets, as they go before what was opened.
    #[inline]
    pub(crate) fn octets(&self) -> &[u8] {
        self.octets.get(..self.len).unwrap_or(&[])
    }

    /// How many they are.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// DSCP and ECN.
    pub(crate) fn tos(&self) -> u8 {
        let [first, second, ..] = self.octets;
        if self.len == V4 { second } else { first << 4 | second >> 4 }
    }

    /// Says how long the whole packet is. `None` if that cannot be said.
    pub(crate) fn set_total(&mut self, total: usize) -> Option<()> {
        let [_, _, l2, l3, l4, l5, ..] = &mut self.octets;
        if self.len != V4 {
            [*l4, *l5] = u16::try_from(total.checked_sub(V6)?).ok()?.to_be_bytes();
            return Some(());
        }
        [*l2, *l3] = u16::try_from(total).ok()?.to_be_bytes();
        let header: &mut [u8; V4] = self.octets.first_chunk_mut()?;
        [header[10], header[11]] = [0, 0];
        let sum = Sum::default().octets(header).checksum();
        [header[10], header[11]] = sum;
        Some(())
    }
}

/// The packet that `upper`, opened, was a part of: sent along `flow`, with these DSCP and ECN.
/// Its length and offsets count the header that is made for it.
#[inline]
pub(crate) fn rebuild(
    flow: Flow,
    next_header: u8,
    upper: &[u8],
    tos: u8,
) -> Result<(Inner, Head), Reason> {
    let mut octets = [0; 40];
    let (len, protocol, behind) = match (flow.src(), flow.dst()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            // An atomic datagram (RFC 6864 §4.1): of no other may the identification be made up.
            let ([s0, s1, s2, s3], [d0, d1, d2, d3]) = (src.octets(), dst.octets());
            let header: &mut [u8; V4] = octets.first_chunk_mut().ok_or(Reason::InnerMalformed)?;
            *header = [
                0x45,
                tos,
                0,
                0,
                0,
                0,
                0x40,
                0,
                HOP_LIMIT,
                next_header,
                0,
                0,
                s0,
                s1,
                s2,
                s3,
                d0,
                d1,
                d2,
                d3,
            ];
            (V4, next_header, 0)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let (protocol, behind) = match next_header {
                DESTINATION => {
                    let (protocol, behind, _) =
                        upper_of_v6(next_header, upper, 0).map_err(|_| Reason::InnerMalformed)?;
                    // A routing or fragment header in here would be obeyed behind our check.
                    let direct = upper.first() == Some(&protocol);
                    (direct.then_some(protocol).ok_or(Reason::InnerMalformed)?, behind)
                }
                next if is_extension(next) => return Err(Reason::InnerMalformed),
                next => (next, 0),
            };
            let (fixed, addresses) = octets.split_at_mut(8);
            fixed.copy_from_slice(&[0x60 | tos >> 4, tos << 4, 0, 0, 0, 0, next_header, HOP_LIMIT]);
            let (from, to) = addresses.split_at_mut(16);
            from.copy_from_slice(&src.octets());
            to.copy_from_slice(&dst.octets());
            (V6, protocol, behind)
        }
        _ => return Err(Reason::InnerSelector),
    };
    let mut head = Head { octets, len };
    let total = len + upper.len();
    head.set_total(total).ok_or(Reason::InnerMalformed)?;
    let inner = Inner {
        flow,
        len: total,
        upper: len + behind,
        protocol,
        ports: ports(protocol, Fragment::Whole, upper.get(behind..).unwrap_or(&[])),
        tos,
        extended: behind > 0,
        fragment: Fragment::Whole,
        df: true,
    };
    Ok((inner, head))
}

/// Octets of an IP header.
const V4: usize = 20;
const V6: usize = 40;
/// The outer header's is not ours to see.
const HOP_LIMIT: u8 = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tests::{ip, packet, udp};
    use crate::packet::{FRAGMENT, UDP};
    use crate::segment::tests::is_valid;
    use proptest::prelude::*;

    const PAIRS: [(&str, &str); 2] = [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")];

    fn flow(src: &str, dst: &str) -> Flow {
        Flow::new(ip(src), ip(dst)).unwrap()
    }

    #[test]
    fn what_was_taken_off_is_put_back() {
        for (src, dst) in PAIRS {
            let mut whole = udp(src, dst, (7, 9), b"payload");
            let inner = Inner::parse(&whole).unwrap();
            let (from, next) = protected(&inner, &whole).unwrap();
            assert_eq!((from, next), (inner.upper, UDP));
            let (again, head) = rebuild(flow(src, dst), next, &whole[from..], 0).unwrap();
            assert_eq!(again, Inner { df: true, ..inner });
            let joined = [head.octets(), &whole[from..]].concat();
            assert!(is_valid(&joined));
            // Only the identification was made up.
            if from == 20 {
                whole[4..6].fill(0);
                whole[10..12].copy_from_slice(&joined[10..12]);
            }
            assert_eq!(joined, whole);
            let (again, head) = rebuild(flow(src, dst), next, &whole[from..], 0xb9).unwrap();
            assert_eq!((again.tos, head.tos()), (0xb9, 0xb9));
            assert_eq!(Inner::parse(&[head.octets(), &whole[from..]].concat()).unwrap().tos, 0xb9);
        }
    }

    #[test]
    fn headers_that_a_new_one_cannot_replace_are_refused() {
        let refused = |packet: &[u8]| protected(&Inner::parse(packet).unwrap(), packet).is_none();
        let (src, dst) = PAIRS[0];
        let mut options = udp(src, dst, (1, 2), b"x");
        options.splice(20..20, [1, 1, 1, 0]);
        options[0] = 0x46;
        options[3] += 4;
        assert!(refused(&options));
        let mut fragment = udp(src, dst, (1, 2), b"12345678");
        fragment[6] = 0x20;
        assert!(refused(&fragment));

        let (src, dst) = PAIRS[1];
        let upper = &udp(src, dst, (7, 9), b"x")[40..];
        let behind = |kind: u8, header: &[u8]| packet(src, dst, kind, &[header, upper].concat());
        for kind in [0, 43] {
            assert!(refused(&behind(kind, &[UDP, 0, 1, 4, 0, 0, 0, 0])), "{kind}");
        }
        assert!(refused(&behind(FRAGMENT, &[UDP, 0, 0, 1, 0, 0, 0, 1])));
        let routed = [&[43, 0, 1, 4, 0, 0, 0, 0][..], &[UDP, 0, 4, 0, 0, 0, 0, 0]].concat();
        assert!(refused(&behind(DESTINATION, &routed)));
        // Destination options are part of what is protected.
        let about = behind(DESTINATION, &[UDP, 0, 1, 4, 0, 0, 0, 0]);
        let inner = Inner::parse(&about).unwrap();
        assert_eq!(protected(&inner, &about), Some((40, DESTINATION)));
        let (again, head) = rebuild(flow(src, dst), DESTINATION, &about[40..], 0).unwrap();
        assert_eq!((again, head.octets()), (inner, &about[..40]));
    }

    #[test]
    fn what_the_kernel_would_obey_behind_the_check_is_refused() {
        let (src, dst) = PAIRS[1];
        let upper = &udp(src, dst, (7, 9), b"x")[40..];
        for kind in [0, 43, FRAGMENT, 51, 135] {
            let text = [&[UDP, 0, 0, 1, 0, 0, 0, 1][..], upper].concat();
            assert!(rebuild(flow(src, dst), kind, &text, 0).is_err(), "{kind}");
            let behind = [&[kind, 0, 1, 4, 0, 0, 0, 0][..], &text].concat();
            assert!(rebuild(flow(src, dst), DESTINATION, &behind, 0).is_err(), "{kind}");
        }
    }

    proptest! {
        #[test]
        fn any_octets_make_a_header_that_can_be_read(
            v6 in any::<bool>(),
            next in any::<u8>(),
            upper in proptest::collection::vec(any::<u8>(), 0..100),
            tos in any::<u8>(),
        ) {
            let (src, dst) = PAIRS[usize::from(v6)];
            if let Ok((inner, head)) = rebuild(flow(src, dst), next, &upper, tos) {
                let whole = [head.octets(), &upper].concat();
                let read = Inner::parse(&whole).unwrap();
                prop_assert_eq!(read, inner);
                prop_assert_eq!(head.tos(), tos);
            }
        }
    }
}
