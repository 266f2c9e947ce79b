//! From the wire to the device: pair, window, ICV, selectors, owner (RFC 4301 §5.2).

use std::ops::Range;
use std::time::{Duration, Instant};

use sa::{Flow, Notice, Spi};

use super::{Forwarding, Outer, Output, Trace};
use crate::coalesce::Delivery;
use crate::counters::Reason;
use crate::ecn;
use crate::esp;
use crate::packet::{IP_IN_IP, IPV6, Inner, NO_NEXT_HEADER};
use crate::sad::{Inbound, Sa};
use crate::spd::Spd;
use crate::translate;
use crate::transport::{self, Head};

impl Forwarding {
    /// An ESP packet from the wire, at `at` of the arena: opened in place, judged, and put into
    /// `delivery` if it may pass.
    #[inline]
    pub fn incoming(
        &mut self,
        now: Instant,
        outer: &Outer,
        arena: &mut [u8],
        at: Range<usize>,
        delivery: &mut Delivery,
    ) {
        if let Err(reason) = self.open(now, outer, arena, at, delivery) {
            self.counters.count(reason);
        }
    }

    #[inline]
    fn open(
        &mut self,
        now: Instant,
        outer: &Outer,
        arena: &mut [u8],
        at: Range<usize>,
        delivery: &mut Delivery,
    ) -> Result<(), Reason> {
        let datagram = arena.get_mut(at.clone()).ok_or(Reason::Malformed)?;
        let spi = u32::from_be_bytes(*datagram.first_chunk().ok_or(Reason::Malformed)?);
        let Some(mut inbound) = self.sad.by_spi(spi) else {
            let len = datagram.len();
            return Err(self.unknown_spi(now, spi, len, outer));
        };
        if inbound.sa.usage.spent {
            return Err(Reason::SaSpent);
        }
        let opened = inbound.sa.opener.open(datagram)?;
        // From here on the packet is the peer's own.
        let id = inbound.sa.id;
        let first = inbound.sa.usage.packets_in == 0;
        let expiry = inbound.sa.usage.received(now, opened.len as u64);
        let told = |at: Instant| now.saturating_duration_since(at) < TELL_AGAIN;
        let moved =
            opened.newest && has_moved(inbound.sa, outer) && !inbound.sa.moved.is_some_and(told);
        if moved {
            inbound.sa.moved = Some(now);
        }

        let judged = judge(&mut inbound, &self.spd, outer, datagram, opened);
        if first {
            self.tell(Output::Trace(Trace::FirstIn(id)));
            self.notify(Notice::FirstPacket(id));
        }
        if moved {
            self.notify(Notice::PeerMoved { sa: id, remote: outer.remote });
        }
        self.expire(id, expiry);
        let (inner, head) = judged?;
        let start = at.start + opened.start;
        let len = inner.len - head.as_ref().map_or(0, Head::len);
        delivery.push(arena, start..start + len, &inner, head);
        self.counters.opened += 1;
        self.counters.opened_bytes += inner.len as u64;
        Ok(())
    }

    #[cold]
    fn unknown_spi(&mut self, now: Instant, spi: u32, len: usize, outer: &Outer) -> Reason {
        if let Some(spi) = Spi::new(spi)
            && len >= SHORTEST_ESP
            && self.unknown_spis.allow(now, outer.remote.ip())
        {
            self.notify(Notice::UnknownSpi { spi, from: outer.remote.ip() });
        }
        Reason::UnknownSpi
    }
}

/// Everything that is checked of an opened packet (RFC 4301 §5.2).
#[inline]
fn judge(
    inbound: &mut Inbound<'_>,
    spd: &Spd,
    outer: &Outer,
    datagram: &mut [u8],
    opened: esp::Opened,
) -> Result<(Inner, Option<Head>), Reason> {
    let packet =
        datagram.get_mut(opened.start..opened.start + opened.len).ok_or(Reason::BadTrailer)?;
    if opened.next_header == NO_NEXT_HEADER {
        return Err(Reason::Dummy);
    }
    if let Some(ends) = inbound.sa.ends {
        // From where it came, whatever the pair says: that is for the selectors to judge.
        let flow = Flow::new(outer.remote.ip(), ends.src()).ok_or(Reason::InnerSelector)?;
        let (inner, head) = transport::rebuild(flow, opened.next_header, packet, outer.tos)?;
        inbound.admit(&inner, &[], spd)?;
        return Ok((inner, Some(head)));
    }
    let is_v4 = match opened.next_header {
        IP_IN_IP => true,
        IPV6 => false,
        _ => return Err(Reason::InnerMalformed),
    };
    let inner = Inner::parse(packet).map_err(|_| Reason::InnerMalformed)?;
    if inner.is_v4() != is_v4 {
        return Err(Reason::InnerMalformed);
    }
    inbound.admit(&inner, packet, spd)?;
    ecn::decapsulate(packet, inner.tos, outer.tos).ok_or(Reason::Congestion)?;
    let Some(translation) = &inbound.sa.translation else { return Ok((inner, None)) };
    let inner = translate::incoming(translation, packet, &inner);
    Ok((inner.map_err(|_| Reason::InnerMalformed)?, None))
}

/// Whether the packet came from where the envelope says.
fn has_moved(sa: &Sa, outer: &Outer) -> bool {
    let known = sa.envelope.remote;
    // In transport mode the outer address is what is protected: it does not move.
    if sa.ends.is_some() && known.ip() != outer.remote.ip() {
        return false;
    }
    sa.envelope.udp == outer.udp
        && (known.ip() != outer.remote.ip() || (outer.udp && known.port() != outer.remote.port()))
}

/// A peer that has moved is reported about once a second until keying reacts.
const TELL_AGAIN: Duration = Duration::from_secs(1);
/// Header, IV, a padded trailer and an ICV of eight octets: nothing shorter is anybody's packet, and
/// the hint that it draws (forty octets) is no longer by more than half.
const SHORTEST_ESP: usize = 8 + 8 + 4 + 8;
