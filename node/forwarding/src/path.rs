//! How large a packet the way to a peer takes (RFC 1191, RFC 8201, RFC 4301 §8.2).
//!
//! What is sent may always be fragmented on its way, so a way that swallows ICMP costs speed and
//! never a connection. To learn of a narrow place nevertheless, full-sized traffic is accompanied
//! now and then by a dummy packet (RFC 4303 §2.6) of the same size which may not be fragmented.
//! The "too big" that it provokes counts only if it quotes what only the way can know: a pair's
//! SPI and a sequence number of the last few.

use std::time::{Duration, Instant};

use sa::{Envelope, EspCipher};

use crate::esp;

/// The way to one peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Path {
    /// The largest inner packet that fits.
    mtu: usize,
    /// The largest outer one.
    outer: usize,
    /// What the link itself takes.
    link: usize,
    /// Octets around the ESP packet.
    around: usize,
    is_v4: bool,
    cipher: EspCipher,
    /// Probes still to be sent at this size.
    left: u8,
    /// When the next one may be; `None`: with the next large packet.
    next: Option<Instant>,
}

impl Path {
    /// As wide as the link.
    pub(crate) fn new(link_mtu: u16, cipher: EspCipher, envelope: &Envelope) -> Self {
        let is_v4 = envelope.remote.is_ipv4();
        let around = if is_v4 { 20 } else { 40 } + if envelope.udp { 8 } else { 0 };
        let link = usize::from(link_mtu);
        let mut path = Self { mtu: 0, outer: 0, link, around, is_v4, cipher, left: 0, next: None };
        path.set(link);
        path
    }

    /// The same pair on another way, of which nothing is known yet.
    pub(crate) fn elsewhere(self, link_mtu: u16, envelope: &Envelope) -> Self {
        Self::new(link_mtu, self.cipher, envelope)
    }

    fn set(&mut self, outer: usize) {
        self.outer = outer;
        self.mtu = esp::inner_len_of(self.cipher, outer.saturating_sub(self.around));
        self.left = PROBES;
    }

    /// The largest inner packet that needs no fragmentation outside, as far as is known.
    #[inline]
    pub(crate) fn mtu(&self) -> usize {
        self.mtu
    }

    /// The largest outer IP packet, as far as is known.
    pub(crate) fn outer_mtu(&self) -> usize {
        self.outer
    }

    /// An inner packet of `len` octets leaves: the inner length of the probe that should follow
    /// it, if any.
    #[inline]
    pub(crate) fn probe(&mut self, now: Instant, len: usize) -> Option<usize> {
        if len + NEARLY < self.mtu || self.next.is_some_and(|at| now < at) {
            return None;
        }
        if self.left == 0 {
            // What was learned has aged: the way may have become wider.
            self.set(self.link);
        }
        self.left -= 1;
        self.next = now.checked_add(if self.left == 0 { AGE } else { AGAIN });
        Some(self.mtu)
    }

    /// A packet of `outer` octets was too big, and `said` is what fits (0: not said). Whether that
    /// was news.
    pub(crate) fn narrow(&mut self, outer: usize, said: usize) -> bool {
        let said = if said == 0 { plateau_below(outer) } else { said };
        let said = said.max(if self.is_v4 { FLOOR_V4 } else { FLOOR_V6 });
        let news = said < self.outer;
        if news {
            self.set(said);
            self.next = None;
        }
        news
    }
}

/// The usual MTU below this size (RFC 1191 §7.1, with the tunnels that came since).
pub(crate) fn plateau_below(outer: usize) -> usize {
    PLATEAUS.into_iter().find(|plateau| *plateau < outer).unwrap_or(FLOOR_V4)
}

/// Wide links, Ethernet, PPPoE, then what tunnels leave.
const PLATEAUS: [usize; 14] =
    [9000, 4352, 1500, 1492, 1480, 1460, 1440, 1420, 1400, 1380, 1350, 1300, 1280, 1006];
/// Nobody need send less because of a message that could be forged after all: every IPv4 host takes
/// this much (RFC 791 §3.1), and IPv6 links carry [`FLOOR_V6`] (RFC 8200 §5).
const FLOOR_V4: usize = 576;
const FLOOR_V6: usize = 1280;
/// A packet this close to the largest shows that the size matters.
const NEARLY: usize = 100;
/// Probes at one size, for they may get lost like anything else.
const PROBES: u8 = 3;
const AGAIN: Duration = Duration::from_secs(2);
/// RFC 1191 §6.3, RFC 8201 §4: ten minutes.
const AGE: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    fn path(remote: &str, udp: bool) -> Path {
        let remote = remote.parse().unwrap();
        Path::new(1500, EspCipher::Aes128Gcm16, &Envelope { local: remote, remote, udp })
    }

    #[test]
    fn the_floor_holds_whatever_is_said() {
        for (remote, floor) in [("192.0.2.1:4500", FLOOR_V4), ("[2001:db8::1]:4500", FLOOR_V6)] {
            let mut path = path(remote, true);
            assert!(path.narrow(1500, 68));
            assert!(path.outer_mtu() <= floor && path.outer_mtu() > floor - 4);
            assert!(!path.narrow(1500, 68) && !path.narrow(1500, 1400), "never wider by a message");
        }
    }

    #[test]
    fn what_is_not_said_is_the_next_plateau() {
        let mut path = path("192.0.2.1:4500", false);
        assert!(path.narrow(path.outer_mtu(), 0));
        assert!(path.outer_mtu() <= 1492 && path.outer_mtu() > 1480, "{}", path.outer_mtu());
    }

    #[test]
    fn large_traffic_is_probed_a_few_times_and_again_when_it_has_aged() {
        let (mut path, start) = (path("192.0.2.1:4500", true), Instant::now());
        let full = path.mtu();
        let sent = |path: &mut Path, from: u64, to: u64| {
            (from..to)
                .filter(|s| path.probe(start + Duration::from_secs(*s), full).is_some())
                .count()
        };
        assert_eq!(path.probe(start, 900), None, "small packets fit anywhere");
        assert_eq!(sent(&mut path, 0, 600), 3);
        assert!(path.narrow(1500, 1400));
        let narrow = path.mtu();
        assert!(narrow < full);
        assert_eq!(sent(&mut path, 600, 1100), 3, "the next hop may be narrower still");
        assert_eq!(path.mtu(), narrow);
        assert_eq!(sent(&mut path, 1100, 1300), 3);
        assert_eq!(path.mtu(), full, "and after ten minutes the way may be wider");
    }
}
