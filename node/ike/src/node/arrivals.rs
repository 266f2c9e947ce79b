//! Whom a datagram concerns: one of our SAs, a stranger who wants one, or nobody.

use std::ops::ControlFlow;
use std::time::Instant;

use super::Ike;
use crate::api::Datagram;
use crate::exchange::crash_detection::{HEEDED, LOST};
use crate::exchange::ike_sa_init_responder::Digest;
use crate::exchange::{
    ike_auth_initiator, ike_auth_responder, ike_intermediate, ike_sa_init_initiator,
    ike_sa_init_responder, ike_session_resume,
};
use crate::failure::Failure;
use crate::half_open::Admission;
use crate::ike_sa::{Dropped, Received};
use crate::message::{
    Body, ExchangeType, Header, InvalidMessage, Message, Notify, NotifyType, Payloads,
};
use crate::path::Path;
use crate::peering::{Link, Peering, State, Turn};
use crate::shared::Shared;
use crate::ticket::Known;

impl Ike {
    /// Takes a datagram from the network.
    pub(super) fn arrived(&mut self, now: Instant, datagram: Datagram<'_>) {
        // A NAT keepalive (RFC 3948 §2.3).
        if datagram.octets == [0xff] {
            return;
        }
        self.shared.counters.messages_in += 1;
        let message = match Message::read(datagram.octets) {
            Ok(message) => message,
            Err(error) => {
                self.shared.count(error.into());
                if error == InvalidMessage::MajorVersion {
                    self.refuse_version(datagram);
                }
                return;
            }
        };
        let exchange = message.header.exchange;
        if matches!(exchange, ExchangeType::IKE_SA_INIT | ExchangeType::IKE_SESSION_RESUME) {
            if message.header.response {
                self.init_response(now, datagram, &message);
            } else {
                self.init_request(now, datagram, &message);
            }
        } else {
            let header = message.header;
            if header.exchange == ExchangeType::INFORMATIONAL
                && !header.response
                && matches!(message.body, Body::Clear { .. })
            {
                // Who is nobody's peer is not even read.
                if self.shared.has_remote(datagram.remote.ip()) {
                    self.hinted(now, datagram, &message);
                }
                return;
            }
            self.sealed(now, datagram, &message);
        }
    }

    /// RFC 7296 §2.5: a first request of a later major version is told ours. Later ones are
    /// dropped: who has an SA with us knows our version.
    fn refuse_version(&mut self, datagram: Datagram<'_>) {
        const FLAGS: usize = 19;
        let is_response = datagram.octets.get(FLAGS).is_none_or(|flags| flags & 0x20 != 0);
        let mut octets = datagram.octets.to_vec();
        if let Some(version) = octets.get_mut(17) {
            *version = 0x20;
        }
        if let Ok(Message { header, .. }) = Message::read(&octets)
            && header.exchange == ExchangeType::IKE_SA_INIT
            && !is_response
        {
            self.answer_stateless(datagram, &header, Failure::InvalidMajorVersion.notify());
        }
    }

    fn answer_stateless(&mut self, datagram: Datagram<'_>, header: &Header, notify: Notify) {
        let octets = ike_sa_init_responder::stateless(header, notify);
        self.answer_anybody(datagram, octets);
    }

    /// Answers somebody who has not shown to be where he says. Any source can be forged, so nobody
    /// gets many more octets than came in his name.
    fn answer_anybody(&mut self, datagram: Datagram<'_>, octets: Vec<u8>) {
        if is_within_budget(datagram.octets.len(), octets.len()) {
            self.shared.send(datagram.local, datagram.remote, vec![octets]);
        }
    }

    fn init_response(&mut self, now: Instant, datagram: Datagram<'_>, message: &Message<'_>) {
        let Body::Clear { first, octets } = message.body else {
            return self.shared.count(InvalidMessage::Value("next payload").into());
        };
        let Some(ike) = self.shared.spis.get(&message.header.spi_i).copied() else {
            self.shared.counters.dropped_unknown_spi += 1;
            return;
        };
        let payloads = match Payloads::read(first, octets) {
            Ok(payloads) => payloads,
            Err(error) => return self.shared.count(error.into()),
        };
        if message.header.initiator || message.header.message_id != 0 {
            return self.shared.count(Dropped::Stray);
        }
        self.with(now, ike, Some(datagram), |state, turn| match state {
            State::ResumeSent(state)
                if turn.reply.1 == turn.link.path.remote
                    && message.header.exchange == ExchangeType::IKE_SESSION_RESUME =>
            {
                ike_session_resume::receive(state, turn, message, &payloads)
            }
            State::InitSent(state)
                if turn.reply.1 == turn.link.path.remote
                    && message.header.exchange == ExchangeType::IKE_SA_INIT =>
            {
                ike_sa_init_initiator::receive(state, turn, message, &payloads)
            }
            state => {
                turn.shared.count(Dropped::Stray);
                state
            }
        });
    }

    fn init_request(&mut self, now: Instant, datagram: Datagram<'_>, message: &Message<'_>) {
        let header = message.header;
        let Body::Clear { first, octets } = message.body else {
            return self.shared.count(InvalidMessage::Value("next payload").into());
        };
        // Our own request, reflected, has an SPI of ours.
        if !header.initiator
            || header.message_id != 0
            || header.spi_r != 0
            || self.shared.spis.contains_key(&header.spi_i)
        {
            return self.shared.count(Dropped::Stray);
        }
        let digest = ike_sa_init_responder::digest(datagram.remote, datagram.octets);
        if let Some(ike) = self.inits.get(&digest).copied() {
            return self.with(now, ike, Some(datagram), |state, turn| {
                if let State::HalfOpen(half_open) = &state {
                    turn.answer(vec![half_open.response.clone()]);
                }
                state
            });
        }
        let payloads = match Payloads::read(first, octets) {
            Ok(payloads) => payloads,
            Err(error) => {
                self.shared.count(error.into());
                // The one answer that says which payload it was (RFC 7296 §2.5).
                if let InvalidMessage::Critical(_) = error {
                    let notify = Failure::from(error).notify();
                    self.answer_stateless(datagram, &header, notify);
                }
                return;
            }
        };
        if header.exchange == ExchangeType::IKE_SESSION_RESUME {
            return self.resume_request(now, datagram, message, digest, &payloads);
        }
        let request =
            match ike_sa_init_responder::read(self.shared.init_suites(), message, &payloads) {
                Ok(request) => request,
                Err(failure @ Failure::InvalidSyntax(_)) => {
                    // No answer to what nobody honest sends (RFC 7296 §2.21.1).
                    let _ = failure;
                    self.shared.counters.dropped_invalid += 1;
                    return;
                }
                Err(failure) => {
                    return self.answer_stateless(datagram, &header, failure.notify());
                }
            };
        if self.admit(now, datagram, message, &payloads) {
            self.begin(now, datagram, digest, |turn| ike_sa_init_responder::accept(&request, turn));
        }
    }

    /// Somebody comes back with a ticket (RFC 5723 §4.3.2).
    fn resume_request(
        &mut self,
        now: Instant,
        datagram: Datagram<'_>,
        message: &Message<'_>,
        digest: Digest,
        payloads: &Payloads,
    ) {
        let Some(ticket) = payloads.notify(NotifyType::TICKET_OPAQUE) else {
            return self.shared.count(InvalidMessage::Missing("ticket").into());
        };
        // Shorter than its own answer would be, and nothing can be made of it.
        let Some(nonce) = &payloads.nonce else {
            return self.shared.count(InvalidMessage::Missing("Nonce").into());
        };
        // What it says is looked at only once its bearer may come in: under load, not before it has
        // brought a cookie.
        if !self.admit(now, datagram, message, payloads) {
            return;
        }
        let unix = self.shared.unix(now);
        let known = self.shared.tickets.as_mut().and_then(|t| t.open(unix, &ticket.data));
        // A nonce too short for its prf makes it of no use (RFC 7296 §2.10).
        let fits = |known: &Known| nonce.len() >= known.resumable.suite.prf.least_nonce();
        let Some(known) = known.filter(fits) else {
            let notify = Notify::new(NotifyType::TICKET_NACK, []);
            return self.answer_stateless(datagram, &message.header, notify);
        };
        self.begin(now, datagram, digest, |turn| {
            ike_session_resume::answer(turn, message, payloads, known)
        });
    }

    /// Whether one more stranger may come in. Asks for a cookie if it has to bring one.
    fn admit(
        &mut self,
        now: Instant,
        datagram: Datagram<'_>,
        message: &Message<'_>,
        payloads: &Payloads,
    ) -> bool {
        let nonce = payloads.nonce.as_deref().unwrap_or_default();
        let spi = message.header.spi_i;
        let brought = payloads.notify(NotifyType::COOKIE).map(|n| n.data.as_slice());
        let proven = brought.is_some_and(|cookie| {
            let good = self.shared.cookies.check(now, datagram.remote, spi, nonce, cookie);
            if !good {
                self.shared.counters.cookies_refused += 1;
            }
            good
        });
        if self.peerings.len() >= MAX_PEERINGS || self.shared.is_full(datagram.remote.ip()) {
            self.shared.counters.dropped_half_open += 1;
            return false;
        }
        let config = &self.shared.config;
        let (threshold, limit) = (config.cookie_threshold, config.half_open_limit);
        match self.shared.half_open.judge(datagram.remote.ip(), proven, threshold, limit) {
            Admission::Admit => true,
            Admission::Refuse => {
                self.shared.counters.dropped_half_open += 1;
                false
            }
            Admission::AskCookie => {
                self.shared.counters.cookies_sent += 1;
                let Shared { cookies, rng, .. } = &mut self.shared;
                let cookie = cookies.bake(now, rng, datagram.remote, spi, nonce);
                let notify = Notify::new(NotifyType::COOKIE, cookie);
                self.answer_stateless(datagram, &message.header, notify);
                false
            }
        }
    }

    /// Makes a half-open SA.
    fn begin(
        &mut self,
        now: Instant,
        datagram: Datagram<'_>,
        digest: Digest,
        accept: impl FnOnce(&mut Turn<'_>) -> Result<State, Failure>,
    ) {
        let id = self.shared.fresh_ike_id();
        let source = datagram.remote.ip();
        let mut link = Link::new(id, false, Path::new(datagram.local, datagram.remote));
        link.half_open = Some(source);
        link.init_digest = Some(digest);
        self.shared.half_open.add(source);
        self.shared.add_remote(source);
        self.inits.insert(digest, id);
        self.peerings.insert(id, Peering::new(link));
        self.with(now, id, Some(datagram), |_, turn| {
            accept(turn).unwrap_or_else(|_| {
                turn.shared.counters.dropped_invalid += 1;
                State::Over
            })
        });
    }

    /// A message of an SA that is not here. If it was lost, its peer is told so, and can know that it
    /// was we who said it (RFC 6290 §4.4).
    fn unknown(&mut self, now: Instant, datagram: Datagram<'_>, message: &Message<'_>) {
        self.shared.counters.dropped_unknown_spi += 1;
        let Body::Sealed(_) = message.body else { return };
        if message.header.response || message.header.spi_r == 0 {
            return;
        }
        let Shared { tokens: Some(tokens), lost_told, .. } = &mut self.shared else { return };
        let octets = tokens.lost(&message.header);
        // No cipher of ours, nor any that is in use, makes a request that is too short for this.
        if is_within_budget(datagram.octets.len(), octets.len())
            && lost_told.allow(now, datagram.remote.ip(), LOST)
        {
            self.shared.counters.lost_told += 1;
            self.shared.send(datagram.local, datagram.remote, vec![octets]);
        }
    }

    /// A hint that cannot be trusted: the peer of one of our children may not have it any more
    /// (RFC 7296 §1.5). All it does is to have the peer asked, now and then. What names no child is
    /// not counted: it costs nothing, and takes nothing from what does.
    fn hinted(&mut self, now: Instant, datagram: Datagram<'_>, message: &Message<'_>) {
        let Body::Clear { first, octets } = message.body else { return };
        let Ok(payloads) = Payloads::read(first, octets) else { return };
        let spi = payloads.notify(NotifyType::INVALID_SPI).map(|n| n.data.as_slice());
        let Some(spi) = spi.and_then(|spi| <[u8; 4]>::try_from(spi).ok()) else { return };
        let (spi, remote) = (u32::from_be_bytes(spi), datagram.remote.ip());
        let mut found = self.shared.named(spi, remote);
        found.retain(|ike| {
            let peering = self.peerings.get(ike);
            peering.is_some_and(|peering| peering.link.path.remote.ip() == remote)
        });
        if found.is_empty() || !self.shared.hints_heeded.allow(now, remote, HEEDED) {
            return;
        }
        for ike in found {
            // What it is asked already it is asked again, and need not wait for its turn.
            self.with(now, ike, None, |mut state, turn| {
                if let State::Established(established) = &mut state {
                    established.ask_besides(turn);
                }
                state
            });
            self.probe(now, ike);
        }
    }

    /// A message of an SA that has keys.
    fn sealed(&mut self, now: Instant, datagram: Datagram<'_>, message: &Message<'_>) {
        let header = message.header;
        let own_spi = if header.initiator { header.spi_r } else { header.spi_i };
        let Some(ike) = self.shared.spis.get(&own_spi).copied() else {
            let digest = ike_sa_init_responder::digest(datagram.remote, datagram.octets);
            match self.shared.graves.get(own_spi) {
                Some(grave) if grave.request == digest => {
                    let datagrams = grave.datagrams.clone();
                    self.shared.send(datagram.local, datagram.remote, datagrams);
                }
                _ => self.unknown(now, datagram, message),
            }
            return;
        };
        self.with(now, ike, Some(datagram), |state, turn| receive(state, turn, message, own_spi));
    }
}

/// A message of an SA that has keys, in whatever state that is.
fn receive(state: State, turn: &mut Turn<'_>, message: &Message<'_>, own_spi: u64) -> State {
    match state {
        State::Established(mut established) => match established.receive(turn, message, own_spi) {
            ControlFlow::Continue(()) => State::Established(established),
            ControlFlow::Break(why) => established.part(turn, why),
        },
        // It is the address that has answered us that is half-open; a NAT may change the port. Who
        // has the keys could otherwise speak from an address where nobody hears us.
        State::HalfOpen(half_open) if turn.reply.1.ip() != turn.link.path.remote.ip() => {
            State::HalfOpen(half_open)
        }
        State::HalfOpen(mut half_open) => match half_open.sa.receive(message) {
            Ok(Received::Request(ExchangeType::IKE_INTERMEDIATE, payloads)) => {
                ike_intermediate::answer(*half_open, turn, payloads)
            }
            Ok(Received::Repeated(datagrams)) => {
                turn.answer(datagrams);
                State::HalfOpen(half_open)
            }
            Ok(Received::Request(ExchangeType::IKE_AUTH, payloads)) => {
                ike_auth_responder::receive(*half_open, turn, payloads)
            }
            outcome => {
                drop_unless_fragment(turn, outcome);
                State::HalfOpen(half_open)
            }
        },
        State::KeSent(mut sent) => match sent.keyed.sa.receive(message) {
            Ok(Received::Response(_, payloads)) => ike_intermediate::receive(*sent, turn, payloads),
            outcome => {
                drop_unless_fragment(turn, outcome);
                State::KeSent(sent)
            }
        },
        State::AuthSent(mut sent) => match sent.sa.receive(message) {
            Ok(Received::Response(_, Ok(payloads))) => {
                ike_auth_initiator::receive(*sent, turn, &payloads)
            }
            Ok(Received::Response(_, Err(error))) => {
                sent.abandon(turn);
                turn.ended(Failure::from(error).end());
                State::Over
            }
            outcome => {
                drop_unless_fragment(turn, outcome);
                State::AuthSent(sent)
            }
        },
        // A repeated IKE_AUTH while we wait for our own side is left alone.
        state => {
            turn.shared.count(Dropped::Stray);
            state
        }
    }
}

/// Whether so long an answer may go to somebody who has not shown to be where he says: at most half
/// as long again as what came.
fn is_within_budget(came: usize, answer: usize) -> bool {
    2 * answer <= 3 * came
}

fn drop_unless_fragment(turn: &mut Turn<'_>, outcome: Result<Received, Dropped>) {
    match outcome {
        Ok(Received::Fragment) => {}
        Ok(_) => turn.shared.count(Dropped::Stray),
        Err(dropped) => turn.shared.count(dropped),
    }
}

/// More peers than one node can serve, at some ten kilobytes each.
pub(crate) const MAX_PEERINGS: usize = 1 << 16;
