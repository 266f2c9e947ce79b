//! IKE_AUTH, our request (RFC 7296 §1.2, §2.15).

use std::net::IpAddr;
use std::time::{Duration, Instant};

use sa::{Mode, Spi, TrafficSelector};

use crate::api::{Credential, End, Event, Initiate, Output, Sign, SignatureScheme, Ticket};
use crate::child::{NewChild, child_up};
use crate::crypto::{EspOffer, NotVerified, child_keys, confirm_esp, offer_esp, write_auth};
use crate::established::{Authority, Established, Founding};
use crate::exchange::authentication::{Prepared, Proof};
use crate::exchange::ike_sa_init_initiator::{self, CookieTrust};
use crate::exchange::ike_session_resume::TICKET_LIFE;
use crate::exchange::mobike::{self, Mobility};
use crate::exchange::{Ask, Pending, crash_detection};
use crate::failure::Failure;
use crate::ike_sa::IkeSa;
use crate::message::{
    Authentication, Configuration, ConfigurationType, Delete, ExchangeType, Identification,
    NotifyType, Payload, Payloads,
};
use crate::narrow::{is_narrowed, to_any, to_one, to_single_pair};
use crate::peering::{HALF_OPEN_LIFE, State, Turn, bare};
use crate::verified::{Claim, Verified};

/// IKE_SA_INIT is done.
#[derive(Debug)]
pub(crate) struct Keyed {
    pub(crate) sa: IkeSa,
    pub(crate) initiate: Initiate,
    pub(crate) id: Identification,
    pub(crate) nonce_i: Vec<u8>,
    pub(crate) nonce_r: Vec<u8>,
    /// The responder's IKE_SA_INIT message: it signs that.
    pub(crate) response: Vec<u8>,
    /// What the peer proved itself with in the SA that this one is made of (RFC 5723).
    pub(crate) resumed: Option<Credential>,
    /// Somebody's cookie was taken up, so that the responder may have seen another request than the
    /// one that we sign.
    pub(crate) doubtful: bool,
}

/// Waits for our own signature.
#[derive(Debug)]
pub(crate) struct Signing {
    pub(crate) keyed: Keyed,
    pub(crate) scheme: SignatureScheme,
    pub(crate) until: Instant,
}

/// IKE_AUTH is sent.
#[derive(Debug)]
pub(crate) struct AuthSent {
    pub(crate) sa: IkeSa,
    initiate: Initiate,
    nonce_i: Vec<u8>,
    nonce_r: Vec<u8>,
    response: Vec<u8>,
    resumed: Option<Credential>,
    doubtful: bool,
    spi_in: Spi,
    /// The inner address asked for.
    asked: Option<IpAddr>,
}

/// Proves who we are, as soon as all keys are agreed.
pub(crate) fn prove(keyed: Keyed, turn: &mut Turn<'_>, request: &[u8], proof: Proof) -> State {
    let octets = keyed.sa.signed_octets(true, request, &keyed.nonce_r, &keyed.id.octets);
    match proof.prepare(&keyed.sa.keys, true, &octets) {
        Prepared::ToSign(scheme) => {
            let ike = turn.link.id;
            let sign = Sign { ike, scheme, octets, stranger: false };
            turn.shared.outputs.push_back(Output::Sign(sign));
            let until = turn.now + HALF_OPEN_LIFE;
            State::Signing(Box::new(Signing { keyed, scheme, until }))
        }
        Prepared::Ready(auth) => send(keyed, turn, auth),
    }
}

/// Sends IKE_AUTH with our signature.
pub(crate) fn signed(signing: Signing, turn: &mut Turn<'_>, signature: &[u8]) -> State {
    send(signing.keyed, turn, write_auth(signing.scheme, signature))
}

/// Sends IKE_AUTH.
pub(crate) fn send(keyed: Keyed, turn: &mut Turn<'_>, auth: Authentication) -> State {
    let Keyed { mut sa, mut initiate, id, nonce_i, nonce_r, response, resumed, doubtful } = keyed;
    initiate.child.mode = turn.link.path.mode_for(&initiate.child);
    let asked = initiate.ask_address.filter(|_| turn.link.path.nat.ours);
    let spi_in = turn.fresh_esp_spi();
    let mut payloads = vec![Payload::IdInitiator(id)];
    if turn.shared.is_alone(turn.link.path.remote.ip()) {
        payloads.push(bare(NotifyType::INITIAL_CONTACT));
    }
    // ID_NULL as well: it says that we are content with a responder that proves nothing.
    payloads.push(Payload::IdResponder(Identification::of(&initiate.peer)));
    payloads.push(Payload::Authentication(auth));
    payloads.extend(asked.map(|address| Payload::Configuration(Configuration::request(address))));
    if initiate.child.mode == Mode::Transport {
        payloads.push(bare(NotifyType::USE_TRANSPORT_MODE));
    }
    payloads.push(Payload::Sa(offer_esp(
        turn.shared.suites(),
        spi_in.to_be_bytes(),
        EspOffer::WithoutKe,
    )));
    // The responder narrows them to what it gives (RFC 7296 §2.19).
    let local = asked.map(|_| to_any(&initiate.child.local));
    payloads.push(Payload::TsInitiator(local.unwrap_or_else(|| initiate.child.local.clone())));
    payloads.push(Payload::TsResponder(initiate.child.remote.clone()));
    payloads.extend(mobike::announce(turn));
    if turn.shared.config.resumption {
        payloads.push(bare(NotifyType::TICKET_REQUEST));
    }
    payloads.extend(crash_detection::ours(turn, (sa.spi_i, sa.spi_r), true));
    let repeat = turn.shared.repeat(turn.now);
    let datagrams = sa.request(ExchangeType::IKE_AUTH, &payloads, repeat, Pending::Auth);
    turn.send(datagrams);
    State::AuthSent(Box::new(AuthSent {
        sa,
        initiate,
        nonce_i,
        nonce_r,
        response,
        resumed,
        doubtful,
        spi_in,
        asked,
    }))
}

impl AuthSent {
    /// Gives up. The responder may have established already: it is told, once.
    pub(crate) fn abandon(&mut self, turn: &mut Turn<'_>) {
        turn.drop_esp_spi(self.spi_in);
        let datagrams = self.sa.last_request(&[Payload::Delete(Delete::Ike)]);
        turn.send(datagrams);
    }

    /// Nobody answers.
    pub(crate) fn unanswered(mut self, turn: &mut Turn<'_>) -> State {
        self.abandon(turn);
        if self.doubtful && self.resumed.is_none() {
            return self.begin_anew(turn);
        }
        turn.ended(End::Timeout);
        State::Over
    }

    /// Once more from the beginning, with a new SPI and nonce.
    fn begin_anew(self, turn: &mut Turn<'_>) -> State {
        turn.drop_ike_spi(self.sa.own_spi());
        turn.link.path = turn.link.path.at_first();
        let trust = if self.doubtful { CookieTrust::Late } else { CookieTrust::AtOnce };
        ike_sa_init_initiator::begin(turn, self.initiate, trust)
    }
}

/// Takes the response: it came under the SA's keys, which says nothing yet of who sent it.
pub(crate) fn receive(mut state: AuthSent, turn: &mut Turn<'_>, payloads: &Payloads) -> State {
    match authenticate(&state, turn, payloads) {
        Ok(peer) => establish(state, turn, payloads, peer),
        Err(why) => {
            turn.drop_esp_spi(state.spi_in);
            // The responder believes that all is well (RFC 7296 §2.21.2).
            let told = match why {
                End::AuthenticationFailed => {
                    Some(Payload::Notify(Failure::AuthenticationFailed.notify()))
                }
                End::Misbehaved(_) => Some(Payload::Delete(Delete::Ike)),
                _ => None,
            };
            if let Some(told) = told {
                let datagrams = state.sa.last_request(&[told]);
                turn.send(datagrams);
            }
            // What was known of us then may not hold now: the long way tells. And what a cookie did to
            // our request fails once.
            if state.resumed.is_some() || state.doubtful && why == SIGNATURE_REFUSED {
                return state.begin_anew(turn);
            }
            turn.ended(why);
            State::Over
        }
    }
}

/// AUTHENTICATION_FAILED in answer to IKE_AUTH.
const SIGNATURE_REFUSED: End =
    End::Refused { notify: NotifyType::AUTHENTICATION_FAILED.0, authentic: false };

/// SINGLE_PAIR_REQUIRED beside the peer's proof.
const ONE_PAIR: End = End::Refused { notify: NotifyType::SINGLE_PAIR_REQUIRED.0, authentic: true };

fn authenticate(state: &AuthSent, turn: &Turn<'_>, payloads: &Payloads) -> Result<Verified, End> {
    let (Some(id), Some(auth)) = (&payloads.id_responder, &payloads.auth) else {
        return Err(payloads.error().map_or(
            End::Misbehaved("IKE_AUTH response without AUTH"),
            // Under the keys that were agreed, but from nobody who has proved who he is.
            |error| End::Refused { notify: error.kind.0, authentic: false },
        ));
    };
    if !id.identity.is(&state.initiate.peer) {
        return Err(End::AuthenticationFailed);
    }
    let claim = Claim::new(&state.sa, (&state.response, &state.nonce_i), id, auth);
    if let Some(then) = &state.resumed {
        return claim.check_resumed(then).map_err(|NotVerified| End::AuthenticationFailed);
    }
    let own = &turn.shared.config.key;
    let mut keys = state.initiate.keys.iter().take(MAX_KEYS);
    keys.find_map(|key| claim.check(own, key).ok()).ok_or(End::AuthenticationFailed)
}

fn establish(state: AuthSent, turn: &mut Turn<'_>, payloads: &Payloads, peer: Verified) -> State {
    let AuthSent { mut sa, initiate, nonce_i, nonce_r, resumed, spi_in, asked, .. } = state;
    let local = local_side(&initiate, asked, payloads);
    let assigned = local.as_ref().ok().and_then(|local| local.1);
    let ticket = ticket_in(payloads, &sa).filter(|_| turn.shared.config.resumption);
    sa.peer_token = crash_detection::theirs(payloads);
    let founding = Founding {
        sa,
        peer,
        authority: Authority {
            local: local.as_ref().map_or_else(|_| Vec::new(), |local| local.0.clone()),
            remote: initiate.child.remote.clone(),
            transport: initiate.child.mode == Mode::Transport,
        },
        lowest_nonce: nonce_i.clone().min(nonce_r.clone()),
        initial_contact: payloads.notify(NotifyType::INITIAL_CONTACT).is_some(),
        assigned,
        mobility: Mobility::agree(turn, payloads),
    };
    let mut established = Established::new(turn, founding);
    let offer = local.map(|(local, _)| Offer { initiate: &initiate, local, spi_in });
    match first_child(&established, turn, payloads, offer, (&nonce_i, &nonce_r)) {
        Ok(child) => {
            child_up(&mut established, turn, child);
        }
        Err((why, exists)) => {
            if exists {
                turn.link.ask_first(turn.now, Ask::DeleteUnborn(spi_in));
            } else {
                turn.drop_esp_spi(spi_in);
            }
            let single = to_single_pair(&initiate.child).filter(|_| why == ONE_PAIR);
            match single {
                Some(single) => turn.link.ask_first(turn.now, Ask::CreateChild(single)),
                None => {
                    let request = Box::new(initiate.child);
                    turn.shared.event(Event::ChildFailed { ike: turn.link.id, request, why });
                }
            }
        }
    }
    if let Some((ticket, life)) = ticket {
        turn.shared.event(Event::Ticket { ike: turn.link.id, ticket, life });
    }
    if resumed.is_some() {
        // With key exchanges of their own they are as good as new.
        established.rekey_at = turn.shared.a_moment_after(turn.now);
        for child in established.children.values_mut() {
            child.rekey_at = turn.shared.a_moment_after(turn.now);
        }
    }
    established.pump(turn);
    State::Established(Box::new(established))
}

/// The ticket that the responder gives us, with what we keep beside it, and its life.
fn ticket_in(payloads: &Payloads, sa: &IkeSa) -> Option<(Ticket, Duration)> {
    let notify = payloads.notify(NotifyType::TICKET_LT_OPAQUE)?;
    let (life, opaque) = notify.data.split_first_chunk::<4>()?;
    if opaque.is_empty() || opaque.len() > MAX_TICKET {
        return None;
    }
    let secret = sa.resumable()?.to_octets();
    let life = Duration::from_secs(u32::from_be_bytes(*life).into()).min(TICKET_LIFE);
    Some((Ticket { opaque: opaque.to_vec(), secret }, life))
}

/// The selectors of our side that the response may be narrowed from, and the inner address that it
/// gives us. [`End::NoAddress`] if we asked for one and got none.
fn local_side(
    initiate: &Initiate,
    asked: Option<IpAddr>,
    payloads: &Payloads,
) -> Result<(Vec<TrafficSelector>, Option<IpAddr>), End> {
    let Some(asked) = asked else { return Ok((initiate.child.local.clone(), None)) };
    let reply = payloads.configuration.as_ref();
    let given = reply
        .filter(|reply| reply.kind == ConfigurationType::CFG_REPLY)
        .and_then(|reply| reply.address_like(asked))
        .filter(|address| is_usable(*address));
    let given = given.ok_or(End::NoAddress)?;
    Ok((to_one(&initiate.child.local, given), Some(given)))
}

/// Whether a host can be known by this address.
fn is_usable(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(a) if a.is_broadcast());
    !(address.is_unspecified() || address.is_multicast() || address.is_loopback() || broadcast)
}

/// What the response is measured against.
struct Offer<'a> {
    initiate: &'a Initiate,
    local: Vec<TrafficSelector>,
    spi_in: Spi,
}

/// The child in the response, or why there is none, and whether the peer has it nevertheless.
fn first_child(
    established: &Established,
    turn: &Turn<'_>,
    payloads: &Payloads,
    offer: Result<Offer<'_>, End>,
    (nonce_i, nonce_r): (&[u8], &[u8]),
) -> Result<NewChild, (End, bool)> {
    let (Some(proposals), Some(local), Some(remote)) =
        (&payloads.sa, &payloads.ts_initiator, &payloads.ts_responder)
    else {
        return Err(match payloads.error() {
            // Who knows nothing of addresses to give is left with selectors that fit nobody.
            Some(error) if offer.is_err() && error.kind == NotifyType::TS_UNACCEPTABLE => {
                (End::NoAddress, false)
            }
            Some(error) => (End::Refused { notify: error.kind.0, authentic: true }, false),
            None => (End::Misbehaved("IKE_AUTH response without child"), true),
        });
    };
    let Offer { initiate, local: ours, spi_in } = offer.map_err(|why| (why, true))?;
    let (choice, spi) = confirm_esp(turn.shared.suites(), proposals, EspOffer::WithoutKe, None)
        .ok_or((End::Misbehaved("SA"), true))?;
    let spi_out = Spi::new(spi).ok_or((End::Misbehaved("SPI"), true))?;
    if !is_narrowed(local, &ours) || !is_narrowed(remote, &initiate.child.remote) {
        return Err((End::Misbehaved("traffic selectors"), true));
    }
    let mode = agreed_mode(initiate.child.mode, payloads).map_err(|why| (why, true))?;
    let (key_out, key_in) =
        child_keys(&established.current.keys, choice.cipher, [None; 2], nonce_i, nonce_r)
            .map_err(|_| (End::Misbehaved("KEYMAT"), true))?;
    Ok(NewChild {
        rekeys: None,
        initiator: true,
        choice,
        spi_in,
        spi_out,
        key_in,
        key_out,
        mode,
        local: local.clone(),
        remote: remote.clone(),
        envelope: turn.link.envelope(),
    })
}

/// The mode of a child that we asked for (RFC 7296 §1.3.1): transport if both want it, else
/// tunnel.
pub(crate) fn agreed_mode(wanted: Mode, payloads: &Payloads) -> Result<Mode, End> {
    match (wanted, payloads.notify(NotifyType::USE_TRANSPORT_MODE).is_some()) {
        (Mode::Transport, true) => Ok(Mode::Transport),
        (_, false) => Ok(Mode::Tunnel),
        (Mode::Tunnel, true) => Err(End::Misbehaved("USE_TRANSPORT_MODE")),
    }
}

/// Octets of a ticket that still fits a datagram of IPv6's least MTU with all else.
const MAX_TICKET: usize = 900;
/// More keys than any name has; each costs a signature check.
pub(crate) const MAX_KEYS: usize = 16;
