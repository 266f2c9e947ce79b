//! IKE_FOLLOWUP_KE (RFC 9370 §2.2.4), both sides: what CREATE_CHILD_SA has agreed on, a child or the
//! IKE SA's successor, gets one more key exchange before it is made. So whoever can break
//! Curve25519 one day has ML-KEM before him after a rekey too.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use rand_core::Rng as _;
use sa::SaId;

use crate::api::End;
use crate::crypto::{AdditionalKe, Decapsulation, encapsulate};
use crate::established::{Established, Which};
use crate::exchange::create_child_initiator::{self, CreateChild};
use crate::exchange::create_child_responder::{self, OwedChild};
use crate::exchange::rekey_ike::{self, OwedIke, RekeyIke};
use crate::exchange::{Pending, create_child_initiator::Agreed};
use crate::failure::Failure;
use crate::message::{
    ExchangeType, InvalidMessage, KeyExchange, Notify, NotifyType, Payload, Payloads,
};
use crate::peering::Turn;

/// Our half is sent.
#[derive(Debug)]
pub(crate) struct Followup {
    ours: Decapsulation,
    method: AdditionalKe,
    about: Unfinished,
}

/// What we have asked for and the peer agreed to.
#[derive(Debug)]
pub(crate) enum Unfinished {
    Child(Box<(CreateChild, Agreed)>),
    Ike(Box<(RekeyIke, rekey_ike::Agreed)>),
}

impl Followup {
    /// Whether it is about the IKE SA itself.
    pub(crate) fn rekeys_ike(&self) -> bool {
        matches!(self.about, Unfinished::Ike(_))
    }

    /// The child that it is to replace.
    pub(crate) fn rekeys(&self) -> Option<SaId> {
        match &self.about {
            Unfinished::Child(child) => child.0.rekeys,
            Unfinished::Ike(_) => None,
        }
    }

    /// The SPI that a successor of the IKE SA was to have.
    pub(crate) fn ike_spi(&self) -> Option<u64> {
        match &self.about {
            Unfinished::Child(_) => None,
            Unfinished::Ike(ike) => Some(ike.0.spi),
        }
    }
}

/// Sends our half, with the peer's word for what it belongs to; the window is free.
pub(crate) fn start(
    established: &mut Established,
    turn: &mut Turn<'_>,
    payloads: &Payloads,
    method: AdditionalKe,
    about: Unfinished,
) -> ControlFlow<End> {
    let link = payloads.notify(NotifyType::ADDITIONAL_KEY_EXCHANGE);
    let link = link.filter(|link| link.data.len() <= MAX_LINK);
    let (Some(link), Ok(ours)) = (link, Decapsulation::new(method)) else {
        let why = End::Misbehaved("ADDITIONAL_KEY_EXCHANGE");
        if let Unfinished::Ike(ike) = &about {
            // Nothing is made yet, and there is no rekeying with this peer.
            turn.drop_ike_spi(ike.0.spi);
            established.close(turn, why);
            return ControlFlow::Continue(());
        }
        return spoilt(established, turn, about, why);
    };
    let payloads = [
        Payload::KeyExchange(KeyExchange { group: method.number(), data: ours.public().to_vec() }),
        Payload::Notify(Notify::new(NotifyType::ADDITIONAL_KEY_EXCHANGE, link.data.clone())),
    ];
    let about = Pending::Followup(Box::new(Followup { ours, method, about }));
    established.request(turn, ExchangeType::IKE_FOLLOWUP_KE, &payloads, about);
    ControlFlow::Continue(())
}

/// Takes the other half.
pub(crate) fn receive(
    established: &mut Established,
    turn: &mut Turn<'_>,
    followup: Followup,
    payloads: &Payloads,
) -> ControlFlow<End> {
    let Followup { ours, method, about } = followup;
    let Some(ke) = &payloads.ke else {
        return match about {
            Unfinished::Child(child) => {
                turn.drop_esp_spi(child.0.spi_in);
                create_child_initiator::refused(established, turn, child.0, payloads)
            }
            Unfinished::Ike(ike) => rekey_ike::refused(established, turn, &ike.0, payloads),
        };
    };
    // One was agreed on, and no more.
    let more = payloads.notify(NotifyType::ADDITIONAL_KEY_EXCHANGE).is_some();
    let secret = match ours.open(&ke.data) {
        Ok(secret) if ke.group == method.number() && !more => secret,
        _ => return spoilt(established, turn, about, End::Misbehaved("KE")),
    };
    match about {
        Unfinished::Child(child) => {
            let (asked, agreed) = *child;
            create_child_initiator::finish(established, turn, asked, agreed, Some(&secret))
        }
        Unfinished::Ike(ike) => {
            let (asked, agreed) = *ike;
            rekey_ike::finish(established, turn, &asked, &agreed, Some(&secret))
        }
    }
}

/// What the peer says makes no sense.
fn spoilt(
    established: &mut Established,
    turn: &mut Turn<'_>,
    about: Unfinished,
    why: End,
) -> ControlFlow<End> {
    match about {
        Unfinished::Child(child) => {
            create_child_initiator::disowned(established, turn, &child.0, why)
        }
        // As of any successor that does not work.
        Unfinished::Ike(_) => ControlFlow::Break(why),
    }
}

/// What the peer has asked for and we agreed to: it is made when the peer's half comes.
#[derive(Debug)]
pub(crate) struct Owed {
    link: [u8; 8],
    /// Of the IKE SA under which it was asked for.
    own_spi: u64,
    pub(crate) until: Instant,
    pub(crate) about: Owing,
}

/// What is owed.
#[derive(Debug)]
pub(crate) enum Owing {
    Child(Box<OwedChild>),
    Ike(Box<OwedIke>),
}

impl Owing {
    fn method(&self) -> Option<AdditionalKe> {
        match self {
            Self::Child(child) => child.choice.exchanges.method(),
            Self::Ike(ike) => ike.suite.additional,
        }
    }
}

/// Waits for the peer's half, and gives what links it to this. Only the last is kept: who asks for
/// another has given this one up.
pub(crate) fn owe(established: &mut Established, turn: &mut Turn<'_>, about: Owing) -> Payload {
    // What is replaced for the same child leaves its place to this.
    established.forget_owed_for(turn, &about);
    let mut link = [0; 8];
    turn.shared.rng.fill_bytes(&mut link);
    let own_spi = established.current.own_spi();
    established.owed = Some(Box::new(Owed { link, own_spi, until: turn.now + PATIENCE, about }));
    Payload::Notify(Notify::new(NotifyType::ADDITIONAL_KEY_EXCHANGE, link))
}

/// Answers the peer's half with ours.
pub(crate) fn answer(
    established: &mut Established,
    turn: &mut Turn<'_>,
    which: Which,
    payloads: &Payloads,
) -> ControlFlow<End> {
    let link = payloads.notify(NotifyType::ADDITIONAL_KEY_EXCHANGE);
    let own_spi = established.current.own_spi();
    let meant = |owed: &mut Box<Owed>| {
        which == Which::Current
            && owed.own_spi == own_spi
            && owed.until > turn.now
            && link.is_some_and(|link| link.data == owed.link)
    };
    let made = match established.owed.take_if(meant) {
        None => Err(Failure::StateNotFound),
        Some(owed) => agree(established, turn, owed.about, payloads),
    };
    let failure = made.as_ref().err().copied();
    let exchange = ExchangeType::IKE_FOLLOWUP_KE;
    let (answer, successor) = match made {
        Ok((data, method, successor)) => {
            let ke = KeyExchange { group: method.number(), data };
            (Payload::KeyExchange(ke), successor)
        }
        Err(failure) => (Payload::Notify(failure.notify()), None),
    };
    let datagrams = established.sa_mut(which).respond(exchange, &[answer]);
    turn.answer(datagrams);
    if let Some(successor) = successor {
        rekey_ike::succeeded(established, turn, successor);
    }
    Failure::outcome(failure)
}

type Made = (Vec<u8>, AdditionalKe, Option<crate::established::Candidate>);

fn agree(
    established: &mut Established,
    turn: &mut Turn<'_>,
    about: Owing,
    payloads: &Payloads,
) -> Result<Made, Failure> {
    let exchanged = payloads.ke.as_ref().ok_or(InvalidMessage::Missing("KE"));
    let exchanged = exchanged.map_err(Failure::from).and_then(|ke| {
        let method = about.method().filter(|method| method.number() == ke.group);
        let method = method.ok_or(Failure::InvalidSyntax("KE"))?;
        let (data, secret) =
            encapsulate(method, &ke.data).map_err(|_| Failure::InvalidSyntax("KE"))?;
        Ok((method, data, secret))
    });
    let (method, data, secret) = match exchanged {
        Ok(exchanged) => exchanged,
        Err(failure) => {
            established.disown(turn, about);
            return Err(failure);
        }
    };
    match about {
        Owing::Child(child) => {
            create_child_responder::finish(established, turn, *child, &secret)?;
            Ok((data, method, None))
        }
        Owing::Ike(ike) => {
            let successor = rekey_ike::owed(established, turn, *ike, &secret)?;
            Ok((data, method, Some(successor)))
        }
    }
}

/// Blobs are the peer's own affair, but not without end.
const MAX_LINK: usize = 256;
/// How long the peer may take for its half (RFC 9370 §2.2.4: 5 to 20 seconds).
const PATIENCE: Duration = Duration::from_secs(20);
