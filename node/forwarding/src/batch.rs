//! What goes out of the plane in one go: one buffer, and a list of what lies where.

use std::net::IpAddr;
use std::ops::Range;

use sa::Envelope;

use crate::offload::Offload;

/// Packets on their way out, in order. Reused from drain to drain, so that in the steady state
/// nothing is allocated.
#[derive(Default)]
pub struct Batch {
    octets: Vec<u8>,
    used: usize,
    sends: Vec<Send>,
}

/// One entry of a [`Batch`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Send {
    /// Where to.
    pub to: To,
    /// DSCP and ECN of the outer header.
    pub tos: u8,
    /// The octets: `count` packets of `segment` octets each, of which the last may be shorter.
    /// With UDP encapsulation that is what UDP_SEGMENT takes.
    pub range: Range<usize>,
    /// Octets of each packet.
    pub segment: usize,
    /// Number of packets.
    pub count: usize,
}

/// Where packets of a [`Batch`] go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum To {
    /// ESP packets to a peer.
    Peer(Envelope),
    /// One whole IP packet to the wire, in the clear.
    Clear(IpAddr),
    /// A super-packet for the kernel to forward as it is, in the clear; [`cut`](crate::cut) if it
    /// cannot.
    Whole(Offload),
    /// One whole IP packet to the device: an ICMP error to whoever sent.
    Device,
}

impl Batch {
    /// A batch with room for what the limits below let gather in one drain.
    #[must_use]
    pub fn new() -> Self {
        Self { octets: vec![0; ROOM], used: 0, sends: Vec::with_capacity(SENDS) }
    }

    /// What is to be sent, in order.
    #[must_use]
    pub fn sends(&self) -> &[Send] {
        &self.sends
    }

    /// The octets of one send.
    #[must_use]
    pub fn octets(&self, send: &Send) -> &[u8] {
        self.octets.get(send.range.clone()).unwrap_or(&[])
    }

    /// The packets of one send, one by one.
    pub fn packets(&self, send: &Send) -> impl Iterator<Item = &[u8]> {
        self.octets(send).chunks(send.segment.max(1))
    }

    /// Whether it should be sent before more is put in.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.used > FULL || self.sends.len() > SENDS - 64
    }

    /// Nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sends.is_empty()
    }

    /// Forgets everything; the buffer stays.
    pub fn clear(&mut self) {
        self.used = 0;
        self.sends.clear();
    }

    /// Makes room for one packet of `len` octets and returns it. Its old octets are anything.
    #[inline]
    pub(crate) fn slot(&mut self, len: usize) -> &mut [u8] {
        let end = self.used + len;
        if end > self.octets.len() {
            // Only for super-packets of absurdly small parts.
            self.octets.resize(end.next_power_of_two(), 0);
        }
        self.octets.get_mut(self.used..end).unwrap_or_default()
    }

    /// Keeps the packet that was written to the last [`Self::slot`] of this length.
    #[inline]
    pub(crate) fn keep(&mut self, to: To, tos: u8, len: usize) {
        let range = self.used..self.used + len;
        self.used = range.end;
        if let Some(send) = self.sends.last_mut() {
            let open = send.range.len() == send.segment * send.count;
            let fits = len <= send.segment
                && send.count < MAX_SEGMENTS
                && send.range.len() + len <= MAX_DATAGRAMS;
            if open && fits && send.to == to && send.tos == tos && matches!(to, To::Peer(_)) {
                send.range.end = range.end;
                send.count += 1;
                return;
            }
        }
        self.sends.push(Send { to, tos, range, segment: len, count: 1 });
    }
}

/// Packets that UDP_SEGMENT takes at once (UDP_MAX_SEGMENTS of Linux before 6.6).
pub(crate) const MAX_SEGMENTS: usize = 64;
/// Octets that UDP_SEGMENT takes at once: they pass through the stack as one IP packet.
pub(crate) const MAX_DATAGRAMS: usize = 65_535 - 48;
/// From here on a batch is sent before more is read: eight super-packets.
const FULL: usize = 512 * 1024;
/// One more super-packet, cut into small parts, must still fit.
const ROOM: usize = FULL + 512 * 1024;
/// Entries, as many as the smallest packets make of a full batch's worth of reads.
const SENDS: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(port: u16) -> To {
        let addr = |host: u8| ([192, 0, 2, host], port).into();
        To::Peer(Envelope { local: addr(1), remote: addr(2), udp: true })
    }

    fn runs(puts: &[(To, u8, usize)]) -> Vec<(usize, usize)> {
        let mut batch = Batch::new();
        for (to, tos, len) in puts {
            batch.slot(*len).fill(7);
            batch.keep(*to, *tos, *len);
        }
        for send in batch.sends() {
            assert_eq!(batch.packets(send).count(), send.count);
            assert!(batch.octets(send).iter().all(|o| *o == 7));
        }
        batch.sends().iter().map(|s| (s.segment, s.count)).collect()
    }

    #[test]
    fn equal_packets_to_one_peer_make_one_send() {
        let a = peer(4500);
        assert_eq!(runs(&[(a, 0, 100), (a, 0, 100), (a, 0, 60)]), [(100, 3)]);
        // After a shorter one nothing more fits; a longer one never did.
        assert_eq!(runs(&[(a, 0, 100), (a, 0, 60), (a, 0, 60)]), [(100, 2), (60, 1)]);
        assert_eq!(runs(&[(a, 0, 60), (a, 0, 100)]), [(60, 1), (100, 1)]);
        // Another peer, another outer octet.
        assert_eq!(runs(&[(a, 0, 100), (peer(4501), 0, 100)]).len(), 2);
        assert_eq!(runs(&[(a, 0, 100), (a, 2, 100)]).len(), 2);
        // Packets in the clear stay single.
        let clear = To::Clear([192, 0, 2, 9].into());
        assert_eq!(runs(&[(clear, 0, 100), (clear, 0, 100)]).len(), 2);
    }

    #[test]
    fn a_send_keeps_within_what_the_kernel_takes() {
        let many = vec![(peer(1), 0, 100); 130];
        assert_eq!(runs(&many), [(100, 64), (100, 64), (100, 2)]);
        let large = vec![(peer(1), 0, 1450); 50];
        assert_eq!(runs(&large), [(1450, 45), (1450, 5)]);
    }

    #[test]
    fn it_grows_rather_than_loses() {
        let mut batch = Batch::new();
        for _ in 0..40 {
            batch.slot(60_000).fill(1);
            batch.keep(peer(1), 0, 60_000);
        }
        assert!(batch.is_full());
        assert_eq!(batch.sends().iter().map(|s| batch.octets(s).len()).sum::<usize>(), 2_400_000);
        batch.clear();
        assert!(batch.is_empty() && !batch.is_full());
    }
}
