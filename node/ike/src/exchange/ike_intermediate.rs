//! IKE_INTERMEDIATE (RFC 9242), both sides: an additional key exchange between IKE_SA_INIT and
//! IKE_AUTH (RFC 9370), so that whoever records today and can break Curve25519 one day still has
//! ML-KEM before him.

use std::time::Instant;

use crate::api::End;
use crate::crypto::{AdditionalKe, Decapsulation, encapsulate};
use crate::exchange::Pending;
use crate::exchange::authentication::Proof;
use crate::exchange::ike_auth_initiator::{self, Keyed};
use crate::exchange::ike_auth_responder::{HalfOpenSa, refuse};
use crate::failure::Failure;
use crate::ike_sa::Repeat;
use crate::message::{ExchangeType, InvalidMessage, KeyExchange, Payload, Payloads};
use crate::peering::{State, Turn};

/// IKE_INTERMEDIATE is sent.
#[derive(Debug)]
pub(crate) struct KeSent {
    pub(crate) keyed: Keyed,
    /// Our IKE_SA_INIT message, which we have yet to sign.
    request: Vec<u8>,
    proof: Proof,
    method: AdditionalKe,
    ours: Decapsulation,
}

/// Sends our half.
pub(crate) fn start(
    mut keyed: Keyed,
    turn: &mut Turn<'_>,
    request: Vec<u8>,
    proof: Proof,
    method: AdditionalKe,
) -> State {
    let Ok(ours) = Decapsulation::new(method) else {
        turn.ended(End::Misbehaved("key exchange"));
        return State::Over;
    };
    let ke = KeyExchange { group: method.number(), data: ours.public().to_vec() };
    // Somebody is there, and it takes two datagrams to ask.
    let (first, tries) = (turn.shared.config.retransmit_first, turn.shared.config.retransmit_tries);
    let repeat = Repeat::new(turn.now, first, tries.saturating_add(1));
    let datagrams = keyed.sa.request(
        ExchangeType::IKE_INTERMEDIATE,
        &[Payload::KeyExchange(ke)],
        repeat,
        Pending::Intermediate,
    );
    turn.send(datagrams);
    State::KeSent(Box::new(KeSent { keyed, request, proof, method, ours }))
}

/// Takes the other half, and goes on to IKE_AUTH.
pub(crate) fn receive(
    state: KeSent,
    turn: &mut Turn<'_>,
    payloads: Result<Payloads, InvalidMessage>,
) -> State {
    let KeSent { mut keyed, request, proof, method, ours } = state;
    // Nobody has proved yet who he is.
    let agreed = match payloads {
        Err(error) => Err(Failure::from(error).end()),
        Ok(Payloads { ke: Some(ke), .. }) if ke.group == method.number() => {
            let secret = ours.open(&ke.data).map_err(|_| End::Misbehaved("KE"));
            secret.and_then(|secret| {
                let (nonce_i, nonce_r) = (&keyed.nonce_i, &keyed.nonce_r);
                let keyed = keyed.sa.strengthen(&secret, nonce_i, nonce_r);
                keyed.map_err(|_| End::Misbehaved("KE"))
            })
        }
        Ok(payloads) => Err(payloads.error().map_or(End::Misbehaved("KE"), |error| End::Refused {
            notify: error.kind.0,
            authentic: false,
        })),
    };
    match agreed {
        Ok(()) => ike_auth_initiator::prove(keyed, turn, &request, proof),
        Err(why) => {
            turn.ended(why);
            State::Over
        }
    }
}

impl KeSent {
    /// When to ask again.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.keyed.sa.due()
    }
}

/// Answers the peer's half with ours.
pub(crate) fn answer(
    mut state: HalfOpenSa,
    turn: &mut Turn<'_>,
    payloads: Result<Payloads, InvalidMessage>,
) -> State {
    // From where the peer is now: port 4500, and whatever a NAT made of its address.
    turn.move_to_reply();
    let made = payloads.map_err(Failure::from).and_then(|payloads| {
        let method = state.owed_ke.ok_or(Failure::InvalidSyntax("exchange type"))?;
        let ke = payloads.ke.ok_or(InvalidMessage::Missing("KE"))?;
        if ke.group != method.number() {
            return Err(Failure::InvalidSyntax("KE"));
        }
        encapsulate(method, &ke.data).map_err(|_| Failure::InvalidSyntax("KE"))
    });
    let (data, secret) = match made {
        Ok(made) => made,
        Err(failure) => {
            let digest = turn.digest();
            refuse(&mut state.sa, turn, ExchangeType::IKE_INTERMEDIATE, digest, failure);
            return State::Over;
        }
    };
    let group = state.owed_ke.take().map_or(0, AdditionalKe::number);
    let ke = Payload::KeyExchange(KeyExchange { group, data });
    let datagrams = state.sa.respond(ExchangeType::IKE_INTERMEDIATE, &[ke]);
    turn.answer(datagrams);
    if state.sa.strengthen(&secret, &state.nonce_i, &state.nonce_r).is_err() {
        return State::Over;
    }
    State::HalfOpen(Box::new(state))
}
