//! IKE_SA_INIT, our request (RFC 7296 §1.2).

use std::collections::VecDeque;
use std::mem;
use std::time::{Duration, Instant};

use crate::api::{Encapsulation, End, Event, Initiate, Mobike, Timer};
use crate::crypto::{Agreement, Group, HASH_ALGORITHMS, IkeKeys, Mix, confirm_ike, offer_ike};
use crate::exchange::authentication::Proof;
use crate::exchange::ike_auth_initiator::{self, Keyed};
use crate::exchange::ike_intermediate;
use crate::ike_sa::{Again, Dropped, IkeSa, IkeSaParts, Repeat};
use crate::message::{
    ExchangeType, Header, Identification, InvalidMessage, KeyExchange, Message, Notify, NotifyType,
    Payload, Payloads,
};
use crate::path::{Detected, detect, detection_hash, pretended_hash};
use crate::peering::{State, Turn};

/// IKE_SA_INIT is sent.
#[derive(Debug)]
pub(crate) struct InitSent {
    initiate: Initiate,
    spi: u64,
    nonce: Vec<u8>,
    agreement: Agreement,
    /// What was asked before with another group: an answer to it is as good (RFC 7296 §2.21.1).
    earlier: Vec<(Agreement, Vec<u8>)>,
    cookie: Option<Vec<u8>>,
    trust: CookieTrust,
    /// Cookies that wait until the request would be repeated anyway.
    held: VecDeque<Vec<u8>>,
    rounds: u8,
    request: Vec<u8>,
    repeat: Repeat,
    /// An unauthenticated refusal, believed only if nothing better comes (RFC 7296 §2.21.1).
    refused: Option<Refusal>,
    /// How often a request was sent.
    sent: u32,
}

/// When a cookie is taken up. Anybody may have sent it, and with it our request is another one: a
/// responder that never asked for it has answered the one before already, and cannot say so
/// (RFC 7296 §2.6, §2.15), so that we sign what it did not see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CookieTrust {
    /// At once: who does ask for cookies is busy enough.
    AtOnce,
    /// One has been taken up, and IKE_AUTH failed: now the genuine answer gets its time, and a cookie
    /// goes out when the request would be repeated anyway.
    Late,
}

/// An error that anybody may have sent.
#[derive(Clone, Copy, Debug)]
struct Refusal {
    until: Instant,
    why: End,
    /// Before how many requests it came last.
    sent: u32,
    /// It came in answer to more than one request, as who refuses would send it: a single datagram
    /// ends no attempt.
    repeated: bool,
}

/// What to tell the caller if an attempt cannot even begin.
const NO_KEY_PAIR: End = End::Misbehaved("key exchange");

/// Sends the first request.
pub(crate) fn start(turn: &mut Turn<'_>, initiate: Initiate) -> State {
    begin(turn, initiate, CookieTrust::AtOnce)
}

/// The same, where it has to be thought of when to believe in cookies.
pub(crate) fn begin(turn: &mut Turn<'_>, initiate: Initiate, trust: CookieTrust) -> State {
    let spi = turn.fresh_ike_spi();
    let Ok(agreement) = Agreement::new(Group::Curve25519, &mut turn.shared.rng) else {
        turn.ended(NO_KEY_PAIR);
        return State::Over;
    };
    let nonce = turn.shared.nonce();
    let repeat = turn.shared.repeat(turn.now);
    let mut state = InitSent {
        initiate,
        spi,
        nonce,
        earlier: Vec::new(),
        agreement,
        cookie: None,
        trust,
        held: VecDeque::new(),
        rounds: 0,
        request: Vec::new(),
        repeat,
        refused: None,
        sent: 0,
    };
    state.send(turn);
    State::InitSent(Box::new(state))
}

impl InitSent {
    /// Writes the request anew and sends it.
    fn send(&mut self, turn: &mut Turn<'_>) {
        let path = turn.link.path;
        let mut payloads = Vec::new();
        if let Some(cookie) = &self.cookie {
            payloads.push(Payload::Notify(Notify::new(NotifyType::COOKIE, cookie.clone())));
        }
        payloads.push(Payload::Sa(offer_ike(turn.shared.init_suites(), &[])));
        payloads.push(Payload::KeyExchange(KeyExchange {
            group: self.agreement.group().number(),
            data: self.agreement.public().to_vec(),
        }));
        payloads.push(Payload::Nonce(self.nonce.clone()));
        payloads.extend(announcements(turn, self.spi, 0, path.local, path.remote));
        let header = Header {
            spi_i: self.spi,
            spi_r: 0,
            exchange: ExchangeType::IKE_SA_INIT,
            initiator: true,
            response: false,
            message_id: 0,
        };
        #[cfg(test)]
        let payloads = crate::tests::mangled(header.exchange, false, &payloads);
        self.request = header.write_clear(&payloads);
        turn.send(vec![self.request.clone()]);
        self.sent = self.sent.saturating_add(1);
        self.repeat = turn.shared.repeat(turn.now);
    }

    pub(crate) fn deadline(&self) -> (Instant, Timer) {
        let due = (self.repeat.due, Timer::Retransmit);
        match self.refused {
            Some(Refusal { until, repeated: true, .. }) if until < due.0 => {
                (until, Timer::Retransmit)
            }
            _ => due,
        }
    }

    /// Repeats the request, or gives up.
    pub(crate) fn timeout(&mut self, turn: &mut Turn<'_>) -> Option<End> {
        if let Some(Refusal { until, why, repeated: true, .. }) = self.refused
            && until <= turn.now
        {
            return Some(why);
        }
        if self.repeat.due > turn.now {
            return None;
        }
        if let Some(cookie) = self.held.pop_front() {
            self.bring(turn, cookie);
            return None;
        }
        if self.repeat.again(turn.now) == Again::GiveUp {
            return Some(self.refused.map_or(End::Timeout, |refusal| refusal.why));
        }
        turn.shared.counters.retransmissions += 1;
        self.sent = self.sent.saturating_add(1);
        turn.send(vec![self.request.clone()]);
        None
    }

    /// Asks with this cookie.
    fn bring(&mut self, turn: &mut Turn<'_>, cookie: Vec<u8>) {
        self.cookie = Some(cookie);
        self.send(turn);
    }

    fn refuse(&mut self, now: Instant, why: End) {
        let sent = self.sent;
        match &mut self.refused {
            None => {
                let until = now + REFUSAL_GRACE;
                self.refused = Some(Refusal { until, why, sent, repeated: false });
            }
            Some(refusal) => refusal.repeated |= refusal.sent != sent,
        }
    }

    /// Exchanges what is asked now for what was asked earlier.
    fn swap(&mut self, place: usize) {
        if let Some((agreement, request)) = self.earlier.get_mut(place) {
            mem::swap(&mut self.agreement, agreement);
            mem::swap(&mut self.request, request);
        }
    }

    /// Where what was asked earlier with this group stands.
    fn earlier(&self, group: u16) -> Option<usize> {
        self.earlier.iter().position(|(agreement, _)| agreement.group().number() == group)
    }
}

/// What both sides say of themselves: NAT detection, fragmentation, hash algorithms.
pub(crate) fn announcements(
    turn: &Turn<'_>,
    spi_i: u64,
    spi_r: u64,
    local: std::net::SocketAddr,
    remote: std::net::SocketAddr,
) -> Vec<Payload> {
    let source = match turn.shared.config.encapsulation {
        Encapsulation::WhenNatted => detection_hash(spi_i, spi_r, local),
        Encapsulation::Force => pretended_hash(spi_i, spi_r, local),
    };
    let destination = detection_hash(spi_i, spi_r, remote);
    let hashes: Vec<u8> = HASH_ALGORITHMS.into_iter().flat_map(u16::to_be_bytes).collect();
    let intermediate = turn
        .shared
        .config
        .post_quantum
        .then_some((NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED, Vec::new()));
    [
        (NotifyType::NAT_DETECTION_SOURCE_IP, source),
        (NotifyType::NAT_DETECTION_DESTINATION_IP, destination),
        (NotifyType::IKEV2_FRAGMENTATION_SUPPORTED, Vec::new()),
        (NotifyType::SIGNATURE_HASH_ALGORITHMS, hashes),
    ]
    .into_iter()
    .chain(intermediate)
    .map(|(kind, data)| Payload::Notify(Notify::new(kind, data)))
    .collect()
}

/// Takes into account what NAT detection found in a first response, and leaves port 500 if there is a
/// reason: whoever knows MOBIKE and NAT traversal has one in any case (RFC 4555 §3.3).
pub(crate) fn note_asked(turn: &mut Turn<'_>, detected: Option<Detected>) {
    if let Some(detected) = detected {
        turn.note(detected);
    }
    let mobike = turn.shared.config.mobike != Mobike::Off && detected.is_some();
    if turn.link.path.encapsulate || mobike {
        turn.link.path.float();
    }
}

/// The hash algorithms that a peer announced.
pub(crate) fn announced_hashes(payloads: &Payloads) -> Vec<u16> {
    payloads
        .notify(NotifyType::SIGNATURE_HASH_ALGORITHMS)
        .map(|n| n.data.as_chunks::<2>().0.iter().map(|o| u16::from_be_bytes(*o)).collect())
        .unwrap_or_default()
}

/// Takes the response. Nobody vouches for it: it either lets us go on, or is remembered, or
/// dropped.
pub(crate) fn receive(
    mut state: Box<InitSent>,
    turn: &mut Turn<'_>,
    message: &Message<'_>,
    payloads: &Payloads,
) -> State {
    let outcome = if payloads.sa.is_some() {
        // Perhaps it answers what was asked before somebody spoke of another group.
        let place = payloads.ke.as_ref().and_then(|ke| state.earlier(ke.group));
        place.inspect(|place| state.swap(*place));
        let read = Answer::read(&state, turn, message, payloads);
        place.filter(|_| read.is_err()).inspect(|place| state.swap(*place));
        read.map(Some)
    } else {
        read_refusal(&mut state, turn, payloads).map(|()| None)
    };
    match outcome {
        Ok(Some(answer)) => accept(*state, turn, message, answer),
        Ok(None) => State::InitSent(state),
        Err(dropped) => {
            turn.shared.count(dropped);
            State::InitSent(state)
        }
    }
}

/// A response without SA: COOKIE, INVALID_KE_PAYLOAD, or an error.
fn read_refusal(
    state: &mut InitSent,
    turn: &mut Turn<'_>,
    payloads: &Payloads,
) -> Result<(), Dropped> {
    if let Some(cookie) = payloads.notify(NotifyType::COOKIE) {
        if !(1..=MAX_COOKIE).contains(&cookie.data.len()) {
            return Err(InvalidMessage::Value("cookie").into());
        }
        let known = state.cookie.iter().chain(&state.held).any(|known| *known == cookie.data);
        if state.rounds >= MAX_ROUNDS || known {
            return Err(Dropped::Stray);
        }
        state.rounds += 1;
        match state.trust {
            CookieTrust::AtOnce => state.bring(turn, cookie.data.clone()),
            CookieTrust::Late => state.held.push_back(cookie.data.clone()),
        }
        return Ok(());
    }
    let error = payloads.error().ok_or(InvalidMessage::Missing("SA"))?;
    if error.kind == NotifyType::INVALID_KE_PAYLOAD {
        let wanted = <[u8; 2]>::try_from(error.data.as_slice())
            .map_err(|_| InvalidMessage::Value("INVALID_KE_PAYLOAD"))?;
        let group = turn
            .shared
            .suites()
            .group(u16::from_be_bytes(wanted))
            .filter(|group| *group != state.agreement.group())
            .ok_or(Dropped::Stray)?;
        if let Some(place) = state.earlier(group.number()) {
            // Somebody else may have named the other one.
            if state.rounds >= MAX_ROUNDS {
                return Err(Dropped::Stray);
            }
            state.rounds += 1;
            state.swap(place);
        } else {
            let agreement =
                Agreement::new(group, &mut turn.shared.rng).map_err(|_| Dropped::Stray)?;
            let request = mem::take(&mut state.request);
            state.earlier.push((mem::replace(&mut state.agreement, agreement), request));
        }
        state.send(turn);
        return Ok(());
    }
    state.refuse(turn.now, End::Refused { notify: error.kind.0, authentic: false });
    Ok(())
}

/// A response that we can go on with.
struct Answer {
    sa: IkeSa,
    nonce_r: Vec<u8>,
    hashes: Vec<u16>,
    detected: Option<Detected>,
}

impl Answer {
    fn read(
        state: &InitSent,
        turn: &Turn<'_>,
        message: &Message<'_>,
        payloads: &Payloads,
    ) -> Result<Self, Dropped> {
        let header = message.header;
        if header.spi_r == 0 || header.spi_r == state.spi {
            return Err(InvalidMessage::Value("responder spi").into());
        }
        let proposals = payloads.sa.as_ref().ok_or(InvalidMessage::Missing("SA"))?;
        let suite = confirm_ike(turn.shared.init_suites(), proposals, 0)
            .ok_or(InvalidMessage::Value("SA"))?;
        let intermediate = payloads.notify(NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED);
        if suite.additional.is_some() && intermediate.is_none() {
            return Err(InvalidMessage::Value("SA").into());
        }
        let ke = payloads.ke.as_ref().ok_or(InvalidMessage::Missing("KE"))?;
        let nonce_r = payloads.nonce.clone().ok_or(InvalidMessage::Missing("Nonce"))?;
        let group = state.agreement.group();
        if suite.group != group || ke.group != group.number() {
            return Err(InvalidMessage::Value("KE").into());
        }
        if nonce_r == state.nonce || nonce_r.len() < suite.prf.least_nonce() {
            return Err(InvalidMessage::Value("Nonce").into());
        }
        let secret = state.agreement.agree(&ke.data).map_err(|_| InvalidMessage::Value("KE"))?;
        let mix =
            Mix { nonce_i: &state.nonce, nonce_r: &nonce_r, spi_i: state.spi, spi_r: header.spi_r };
        let (keys, ciphers) = IkeKeys::initial(suite.prf, suite.cipher, &secret, mix)
            .map_err(|_| InvalidMessage::Value("KE"))?;
        let sa = IkeSa::initial(IkeSaParts {
            spi_i: state.spi,
            spi_r: header.spi_r,
            initiator: true,
            suite,
            keys,
            ciphers,
            whole: turn.shared.longest_whole(payloads),
        })
        .map_err(|_| InvalidMessage::Value("KE"))?;
        let detected = {
            let spis = (header.spi_i, header.spi_r);
            detect(payloads, spis, turn.reply.0, turn.reply.1)
        };
        Ok(Self { sa, nonce_r, hashes: announced_hashes(payloads), detected })
    }
}

fn accept(
    mut state: InitSent,
    turn: &mut Turn<'_>,
    message: &Message<'_>,
    answer: Answer,
) -> State {
    let Initiate { identity, keys, .. } = &state.initiate;
    let own = &turn.shared.config.key;
    let Some(proof) = Proof::ours(own, identity, keys.first(), &answer.hashes) else {
        // It would sign and verify with SHA-1 only (RFC 7427 §4). Somebody may have stripped the
        // notify, so a better answer may still come.
        state.refuse(turn.now, End::Misbehaved("no signature hash algorithm in common"));
        return State::InitSent(Box::new(state));
    };
    note_asked(turn, answer.detected);
    let id = Identification::of(&state.initiate.identity);
    let additional = answer.sa.suite.additional;
    let doubtful = state.cookie.is_some() && state.trust == CookieTrust::AtOnce;
    let keyed = Keyed {
        sa: answer.sa,
        initiate: state.initiate,
        id,
        nonce_i: mem::take(&mut state.nonce),
        nonce_r: answer.nonce_r,
        response: message.octets.to_vec(),
        resumed: None,
        doubtful,
    };
    let ike = turn.link.id;
    let behind_nat = turn.link.path.nat.ours;
    turn.shared.event(Event::Keyed { ike, behind_nat });
    match additional {
        Some(method) => ike_intermediate::start(keyed, turn, state.request, proof, method),
        None => ike_auth_initiator::prove(keyed, turn, &state.request, proof),
    }
}

/// RFC 7296 §2.6.
const MAX_COOKIE: usize = 64;
/// A responder that asks for cookie upon cookie wants something else.
const MAX_ROUNDS: u8 = 4;
/// How long a better answer may take after an unauthenticated refusal.
const REFUSAL_GRACE: Duration = Duration::from_secs(2);
