//! What the way has to say about packets of ours: "too big" (RFC 792, RFC 4443 §3.2). Anybody can
//! say so; it counts if it quotes a packet that we have just sent.

use std::net::IpAddr;
use std::time::Instant;

use sa::SaId;

use super::Forwarding;
use crate::counters::Reason;
use crate::packet::UDP;
use crate::sad::addresses;

impl Forwarding {
    /// An ICMP or ICMPv6 message (by `is_v4`), from its type on.
    pub fn icmp(&mut self, now: Instant, is_v4: bool, message: &[u8]) {
        let Some((said, quoted)) = too_big(is_v4, message) else { return };
        // About something else on this host, or too short to prove anything.
        let Some(quote) = Quote::parse(quoted) else { return };
        let narrowed = self.hints.allow(now).then(|| {
            let sa = self.sad.sender_of(quote.remote, quote.ports, quote.spi, quote.number)?;
            Some(sa.path.narrow(quote.len, said))
        });
        match narrowed.flatten() {
            Some(true) => self.counters.path_narrowed += 1,
            Some(false) => {}
            None => self.counters.count(Reason::PathHintRefused),
        }
    }

    /// The first link did not take a probe: it is narrower than was configured.
    pub fn probe_refused(&mut self, sa: SaId) {
        if let Some(sa) = self.sad.get_mut(sa)
            && sa.path.narrow(sa.path.outer_mtu(), 0)
        {
            self.counters.path_narrowed += 1;
        }
    }
}

/// What fits by the word of a "too big" message (0: not said), and the packet that it quotes.
fn too_big(is_v4: bool, message: &[u8]) -> Option<(usize, &[u8])> {
    let (header, quoted) = message.split_first_chunk::<8>()?;
    match (is_v4, header) {
        // Destination unreachable, fragmentation needed (RFC 1191 §4).
        (true, [3, 4, _, _, _, _, a, b]) => Some((u16::from_be_bytes([*a, *b]).into(), quoted)),
        (false, [2, 0, _, _, mtu @ ..]) => {
            Some((usize::try_from(u32::from_be_bytes(*mtu)).ok()?, quoted))
        }
        _ => None,
    }
}

/// An outer packet of ours as an error quotes it: up to the sequence number.
struct Quote {
    remote: IpAddr,
    /// In UDP.
    ports: Option<(u16, u16)>,
    spi: [u8; 4],
    number: u32,
    /// Octets of the whole packet.
    len: usize,
}

impl Quote {
    fn parse(packet: &[u8]) -> Option<Self> {
        let first = *packet.first()?;
        let field = |at: usize| Some(u16::from_be_bytes(*packet.get(at..)?.first_chunk()?));
        let (protocol, header, len) = match first >> 4 {
            4 => (*packet.get(9)?, usize::from(first & 0x0f) * 4, field(2)?.into()),
            // No extension header is ours.
            6 => (*packet.get(6)?, 40, usize::from(field(4)?) + 40),
            _ => return None,
        };
        let (ports, esp) = match protocol {
            UDP => (Some((field(header)?, field(header + 2)?)), header + 8),
            ESP => (None, header),
            _ => return None,
        };
        let (spi, rest) = packet.get(esp..)?.split_first_chunk::<4>()?;
        let number = u32::from_be_bytes(*rest.first_chunk()?);
        Some(Self { remote: addresses(packet)?.dst(), ports, spi: *spi, number, len })
    }
}

const ESP: u8 = 50;
