//! IKE_SESSION_RESUME (RFC 5723), both sides: an IKE SA that both had before stands in for
//! IKE_SA_INIT's key exchange and IKE_AUTH's signatures.
//!
//! It replaces signatures, never authority: the owner is asked who the peer is, and what it may
//! have, as for any stranger, and only a grant for the very key that was proved then is taken. What
//! comes of it is as secret as the ticket was kept; so its maker rekeys it before long, with fresh
//! key exchanges.

use std::mem;
use std::time::{Duration, Instant};

use crate::api::{Credential, Event, Initiate, Ticket, Timer};
use crate::crypto::{CryptoFailure, IkeKeys, IkeSuite, Mix, Secret};
use crate::exchange::authentication::Proof;
use crate::exchange::ike_auth_initiator::{self, Keyed};
use crate::exchange::ike_auth_responder::HalfOpenSa;
use crate::exchange::ike_sa_init_initiator::{self, announced_hashes, announcements, note_asked};
use crate::exchange::ike_sa_init_responder::{echoed, note_asker};
use crate::failure::Failure;
use crate::ike_sa::{Again, Dropped, IkeSa, IkeSaParts, Repeat};
use crate::message::{
    ExchangeType, Header, Identification, InvalidMessage, Message, Notify, NotifyType, Payload,
    Payloads, Reader,
};
use crate::path::detect;
use crate::peering::{HALF_OPEN_LIFE, State, Turn};
use crate::ticket::Known;

/// What of an IKE SA a later one can be made of.
#[derive(Debug)]
pub(crate) struct Resumable {
    pub(crate) suite: IkeSuite,
    pub(crate) sk_d: Secret,
}

/// IKE_SESSION_RESUME is sent.
#[derive(Debug)]
pub(crate) struct ResumeSent {
    initiate: Initiate,
    /// By which the responder proved itself when it gave the ticket.
    peer: Credential,
    opaque: Vec<u8>,
    resumable: Resumable,
    spi: u64,
    nonce: Vec<u8>,
    cookie: Option<Vec<u8>>,
    rounds: u8,
    request: Vec<u8>,
    repeat: Repeat,
}

/// Comes back with a ticket; without a usable one, from the beginning.
pub(crate) fn start(
    turn: &mut Turn<'_>,
    initiate: Initiate,
    ticket: &Ticket,
    peer: Credential,
) -> State {
    let Some(resumable) = Resumable::read(&mut Reader::new(&ticket.secret)) else {
        return ike_sa_init_initiator::start(turn, initiate);
    };
    let mut state = ResumeSent {
        initiate,
        peer,
        opaque: ticket.opaque.clone(),
        resumable,
        spi: turn.fresh_ike_spi(),
        nonce: turn.shared.nonce(),
        cookie: None,
        rounds: 0,
        request: Vec::new(),
        repeat: turn.shared.repeat(turn.now),
    };
    state.send(turn);
    State::ResumeSent(Box::new(state))
}

impl ResumeSent {
    fn send(&mut self, turn: &mut Turn<'_>) {
        let path = turn.link.path;
        let cookie = self.cookie.clone().map(|cookie| Notify::new(NotifyType::COOKIE, cookie));
        let mut payloads: Vec<_> = cookie.map(Payload::Notify).into_iter().collect();
        payloads.push(Payload::Nonce(self.nonce.clone()));
        let ticket = Notify::new(NotifyType::TICKET_OPAQUE, self.opaque.clone());
        payloads.push(Payload::Notify(ticket));
        payloads.extend(announcements(turn, self.spi, 0, path.local, path.remote));
        self.request = header(self.spi, 0, true).write_clear(&payloads);
        turn.send(vec![self.request.clone()]);
        let first = turn.shared.config.retransmit_first;
        self.repeat = Repeat::new(turn.now, first, TRIES);
    }

    pub(crate) fn deadline(&self) -> (Instant, Timer) {
        (self.repeat.due, Timer::Retransmit)
    }

    /// Asks again, and soon no more: the responder may know nothing of tickets any more.
    pub(crate) fn timeout(mut self, turn: &mut Turn<'_>) -> State {
        if self.repeat.due <= turn.now {
            if self.repeat.again(turn.now) == Again::GiveUp {
                return self.begin_anew(turn);
            }
            turn.shared.counters.retransmissions += 1;
            turn.send(vec![self.request.clone()]);
        }
        State::ResumeSent(Box::new(self))
    }

    /// As if there had been no ticket.
    fn begin_anew(self, turn: &mut Turn<'_>) -> State {
        turn.drop_ike_spi(self.spi);
        ike_sa_init_initiator::start(turn, self.initiate)
    }
}

fn header(spi_i: u64, spi_r: u64, initiator: bool) -> Header {
    let exchange = ExchangeType::IKE_SESSION_RESUME;
    Header { spi_i, spi_r, exchange, initiator, response: !initiator, message_id: 0 }
}

/// The keys of an SA made of another (RFC 5723 §5.1).
fn resumed(
    resumable: Resumable,
    mix: Mix<'_>,
    initiator: bool,
    whole: Option<usize>,
) -> Result<IkeSa, CryptoFailure> {
    let Resumable { suite, sk_d } = resumable;
    let (keys, ciphers) = IkeKeys::resumed(suite.prf, suite.cipher, &sk_d, mix)?;
    let Mix { spi_i, spi_r, .. } = mix;
    let parts = IkeSaParts { spi_i, spi_r, initiator, suite, keys, ciphers, whole };
    IkeSa::initial(parts)
}

/// Takes the response. Nobody vouches for it yet.
pub(crate) fn receive(
    mut state: Box<ResumeSent>,
    turn: &mut Turn<'_>,
    message: &Message<'_>,
    payloads: &Payloads,
) -> State {
    if let Some(cookie) = payloads.notify(NotifyType::COOKIE) {
        let fits = (1..=MAX_COOKIE).contains(&cookie.data.len());
        if fits && state.rounds < MAX_ROUNDS && state.cookie.as_ref() != Some(&cookie.data) {
            state.rounds += 1;
            state.cookie = Some(cookie.data.clone());
            state.send(turn);
        } else {
            turn.shared.count(Dropped::Stray);
        }
        return State::ResumeSent(state);
    }
    if payloads.error().is_some() || payloads.notify(NotifyType::TICKET_NACK).is_some() {
        // Forged or not, the long way is open.
        return state.begin_anew(turn);
    }
    let least = state.resumable.suite.prf.least_nonce();
    let fits = |nonce: &Vec<u8>| *nonce != state.nonce && nonce.len() >= least;
    let Some(nonce_r) = payloads.nonce.clone().filter(fits) else {
        turn.shared.count(InvalidMessage::Missing("Nonce").into());
        return State::ResumeSent(state);
    };
    let spi_r = message.header.spi_r;
    if spi_r == 0 || spi_r == state.spi {
        turn.shared.count(InvalidMessage::Value("responder spi").into());
        return State::ResumeSent(state);
    }
    accept(*state, turn, message, payloads, nonce_r)
}

fn accept(
    mut state: ResumeSent,
    turn: &mut Turn<'_>,
    message: &Message<'_>,
    payloads: &Payloads,
    nonce_r: Vec<u8>,
) -> State {
    let spis = (state.spi, message.header.spi_r);
    let mix = Mix { nonce_i: &state.nonce, nonce_r: &nonce_r, spi_i: spis.0, spi_r: spis.1 };
    let whole = turn.shared.longest_whole(payloads);
    let Resumable { suite, sk_d } = &state.resumable;
    let resumable = Resumable { suite: *suite, sk_d: Secret::new(sk_d.to_vec()) };
    let Ok(sa) = resumed(resumable, mix, true, whole) else {
        return state.begin_anew(turn);
    };
    let detected = detect(payloads, spis, turn.reply.0, turn.reply.1);
    note_asked(turn, detected);
    let keyed = Keyed {
        sa,
        id: Identification::of(&state.initiate.identity),
        initiate: state.initiate,
        nonce_i: mem::take(&mut state.nonce),
        nonce_r,
        response: message.octets.to_vec(),
        resumed: Some(state.peer),
        doubtful: state.cookie.is_some(),
    };
    let ike = turn.link.id;
    let behind_nat = turn.link.path.nat.ours;
    turn.shared.event(Event::Keyed { ike, behind_nat });
    ike_auth_initiator::prove(keyed, turn, &state.request, Proof::Resumed)
}

/// Answers a request whose ticket is good; IKE_AUTH is what comes next.
pub(crate) fn answer(
    turn: &mut Turn<'_>,
    message: &Message<'_>,
    payloads: &Payloads,
    mut known: Known,
) -> Result<State, Failure> {
    let nonce_i = payloads.nonce.clone().ok_or(InvalidMessage::Missing("Nonce"))?;
    if nonce_i.len() < known.resumable.suite.prf.least_nonce() {
        return Err(Failure::InvalidSyntax("Nonce"));
    }
    let nonce_r = turn.shared.nonce();
    let (spi_i, spi_r) = (message.header.spi_i, turn.fresh_ike_spi());
    let mix = Mix { nonce_i: &nonce_i, nonce_r: &nonce_r, spi_i, spi_r };
    let whole = turn.shared.longest_whole(payloads);
    let suite = known.resumable.suite;
    let sk_d = mem::replace(&mut known.resumable.sk_d, Secret::zeros(0));
    let sa = resumed(Resumable { suite, sk_d }, mix, false, whole)
        .map_err(|_| Failure::InvalidSyntax("ticket"))?;
    let mut answers = vec![Payload::Nonce(nonce_r.clone())];
    answers.extend(echoed(turn, payloads, (spi_i, spi_r)));
    let response = header(spi_i, spi_r, false).write_clear(&answers);
    note_asker(turn, payloads, spi_i);
    turn.answer(vec![response.clone()]);
    Ok(State::HalfOpen(Box::new(HalfOpenSa {
        sa,
        request: message.octets.to_vec(),
        response,
        nonce_i,
        nonce_r,
        hashes: announced_hashes(payloads),
        owed_ke: None,
        resumed: Some(Box::new(known)),
        wants_ticket: false,
        until: turn.now + HALF_OPEN_LIFE,
    })))
}

/// Sent once more, and then the long way is taken: packets wait.
const TRIES: u32 = 1;
/// RFC 7296 §2.6.
const MAX_COOKIE: usize = 64;
/// A responder that asks for cookie upon cookie wants something else.
const MAX_ROUNDS: u8 = 4;
/// How long a ticket is good: until the day after it was made its key is there.
pub(crate) const TICKET_LIFE: Duration = Duration::from_secs(24 * 3600);
