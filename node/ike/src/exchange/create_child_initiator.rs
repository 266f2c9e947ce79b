//! CREATE_CHILD_SA, our request for a child or for a child's replacement (RFC 7296 §1.3.1,
//! §1.3.3, §2.8.1).

use std::ops::ControlFlow;

use sa::{Mode, SaId, Spi, TrafficSelector};

use crate::api::{ChildRequest, End, Event};
use crate::child::{NewChild, Standing, child_down, child_up};
use crate::crypto::{
    Agreement, EspChoice, EspOffer, Group, Prf, Secret, Suites, child_keys, confirm_esp, offer_esp,
};
use crate::established::Established;
use crate::exchange::ike_auth_initiator::agreed_mode;
use crate::exchange::ike_followup_ke::{self, Unfinished};
use crate::exchange::{Ask, Pending};
use crate::message::{ExchangeType, KeyExchange, Notify, NotifyType, Payload, Payloads};
use crate::narrow::{is_narrowed, to_single_pair};
use crate::peering::{Queued, Tries, Turn, bare};

/// What we asked.
#[derive(Debug)]
pub(crate) struct CreateChild {
    request: ChildRequest,
    pub(crate) rekeys: Option<SaId>,
    agreement: Agreement,
    suites: Suites,
    nonce: Vec<u8>,
    pub(crate) spi_in: Spi,
    tries: Tries,
    /// The peer's replacement of the same child, which crossed ours.
    pub(crate) crossed: Option<Crossed>,
}

/// A replacement that the peer made while ours was under way.
#[derive(Debug)]
pub(crate) struct Crossed {
    /// `None` while it waits for one more key exchange.
    pub(crate) child: Option<SaId>,
    pub(crate) lowest_nonce: Vec<u8>,
}

/// What the peer has agreed to; it lacks the keys.
#[derive(Debug)]
pub(crate) struct Agreed {
    choice: EspChoice,
    spi_out: Spi,
    secret: Option<Secret>,
    nonce_r: Vec<u8>,
    mode: Mode,
    local: Vec<TrafficSelector>,
    remote: Vec<TrafficSelector>,
}

/// Sends the request; the window is free.
pub(crate) fn start(
    established: &mut Established,
    turn: &mut Turn<'_>,
    mut request: ChildRequest,
    rekeys: Option<SaId>,
    group: Group,
    tries: Tries,
) {
    request.mode = turn.link.path.mode_for(&request);
    let Ok(agreement) = Agreement::new(group, &mut turn.shared.rng) else { return };
    established.stillborn = None;
    let spi_in = turn.fresh_esp_spi();
    let nonce = turn.shared.nonce();
    let mut payloads = Vec::new();
    if let Some(child) = rekeys.and_then(|id| established.children.get_mut(&id)) {
        child.standing = Standing::Rekeying;
        let spi = child.spi_in.to_be_bytes();
        payloads.push(Payload::Notify(Notify::about_esp(NotifyType::REKEY_SA, &spi)));
    }
    if request.mode == Mode::Transport {
        payloads.push(bare(NotifyType::USE_TRANSPORT_MODE));
    }
    let suites = turn.shared.init_suites();
    payloads.push(Payload::Sa(offer_esp(suites, spi_in.to_be_bytes(), EspOffer::WithKe)));
    payloads.push(Payload::Nonce(nonce.clone()));
    payloads.push(Payload::KeyExchange(KeyExchange {
        group: group.number(),
        data: agreement.public().to_vec(),
    }));
    payloads.push(Payload::TsInitiator(request.local.clone()));
    payloads.push(Payload::TsResponder(request.remote.clone()));
    let about =
        CreateChild { request, rekeys, agreement, suites, nonce, spi_in, tries, crossed: None };
    established.request(
        turn,
        ExchangeType::CREATE_CHILD_SA,
        &payloads,
        Pending::CreateChild(Box::new(about)),
    );
}

/// Takes the response.
pub(crate) fn receive(
    established: &mut Established,
    turn: &mut Turn<'_>,
    asked: CreateChild,
    payloads: &Payloads,
) -> ControlFlow<End> {
    if payloads.sa.is_none() {
        turn.drop_esp_spi(asked.spi_in);
        return refused(established, turn, asked, payloads);
    }
    let agreed = match read(&asked, established.current.suite.prf, payloads) {
        Ok(agreed) => agreed,
        Err(why) => return disowned(established, turn, &asked, why),
    };
    let Some(method) = agreed.choice.exchanges.method() else {
        return finish(established, turn, asked, agreed, None);
    };
    if loses(established, &asked, &agreed) {
        // RFC 9370 §2.2.4: ours goes no further, and there is nothing to delete.
        turn.drop_esp_spi(asked.spi_in);
        yielded(established, turn, &asked);
        return ControlFlow::Continue(());
    }
    if asked.crossed.as_ref().is_some_and(|crossed| crossed.child.is_none()) {
        // The peer's goes no further.
        established.forget_owed(turn);
        if let Some(old) = asked.rekeys.and_then(|old| established.children.get_mut(&old))
            && old.standing == Standing::Up
        {
            old.standing = Standing::Rekeying;
        }
    }
    let about = Unfinished::Child(Box::new((asked, agreed)));
    ike_followup_ke::start(established, turn, payloads, method, about)
}

/// Whether our replacement has the lowest of the four nonces of two that crossed, and is the
/// redundant one (RFC 7296 §2.8.1).
fn loses(established: &Established, asked: &CreateChild, agreed: &Agreed) -> bool {
    let Some(crossed) = &asked.crossed else { return false };
    let stands = match crossed.child {
        Some(child) => established.children.contains_key(&child),
        None => asked.rekeys.is_some_and(|old| established.owes(old)),
    };
    stands && (&asked.nonce).min(&agreed.nonce_r) < &crossed.lowest_nonce
}

/// The peer's replacement stays. The peer deletes the old child, which its replacement outlives.
fn yielded(established: &mut Established, turn: &Turn<'_>, asked: &CreateChild) {
    let made = asked.crossed.as_ref().is_some_and(|crossed| crossed.child.is_some());
    if let Some(old) = asked.rekeys.filter(|_| made) {
        established.is_replaced(turn, old);
    }
}

/// The peer has the child; there is no agreeing on it any more.
pub(crate) fn disowned(
    established: &mut Established,
    turn: &mut Turn<'_>,
    asked: &CreateChild,
    why: End,
) -> ControlFlow<End> {
    failed(established, turn, asked, why);
    turn.link.ask_first(turn.now, Ask::DeleteUnborn(asked.spi_in));
    ControlFlow::Continue(())
}

/// All key exchanges are done: the child comes up.
pub(crate) fn finish(
    established: &mut Established,
    turn: &mut Turn<'_>,
    asked: CreateChild,
    agreed: Agreed,
    additional: Option<&Secret>,
) -> ControlFlow<End> {
    let lost = loses(established, &asked, &agreed);
    if established.stillborn.take() == Some(agreed.spi_out.get()) {
        turn.drop_esp_spi(asked.spi_in);
        if let Some(old) = asked.rekeys.filter(|old| established.children.contains_key(old)) {
            turn.link.ask_first(turn.now, Ask::DeleteChild(old, End::DeletedByPeer));
        }
        return ControlFlow::Continue(());
    }
    let new = match make(established, turn, &asked, agreed, additional) {
        Ok(new) => new,
        Err(why) => return disowned(established, turn, &asked, why),
    };
    let unwanted = asked
        .rekeys
        .and_then(|old| established.children.get(&old))
        .is_some_and(|old| old.standing == Standing::Deleting);
    if unwanted {
        // The old one was closed meanwhile, and its replacement is not to outlive it.
        turn.link.ask_first(turn.now, Ask::DeleteUnborn(asked.spi_in));
        return ControlFlow::Continue(());
    }
    if lost {
        turn.link.ask_first(turn.now, Ask::DeleteUnborn(asked.spi_in));
        yielded(established, turn, &asked);
        return ControlFlow::Continue(());
    }
    let old = new.rekeys;
    child_up(established, turn, new);
    if let Some(old) = old {
        if let Some(child) = established.children.get_mut(&old) {
            child.standing = Standing::Deleting;
        }
        turn.link.ask_first(turn.now, Ask::DeleteChild(old, End::Closed));
    }
    ControlFlow::Continue(())
}

fn read(asked: &CreateChild, prf: Prf, payloads: &Payloads) -> Result<Agreed, End> {
    let proposals = payloads.sa.as_ref().ok_or(End::Misbehaved("SA"))?;
    let nonce_r = payloads.nonce.as_ref().filter(|nonce| nonce.len() >= prf.least_nonce());
    let nonce_r = nonce_r.ok_or(End::Misbehaved("Nonce"))?;
    let local = payloads.ts_initiator.as_ref().ok_or(End::Misbehaved("TSi"))?;
    let remote = payloads.ts_responder.as_ref().ok_or(End::Misbehaved("TSr"))?;
    let ke_group = payloads.ke.as_ref().map(|ke| ke.group);
    let (choice, spi) = confirm_esp(asked.suites, proposals, EspOffer::WithKe, ke_group)
        .ok_or(End::Misbehaved("SA"))?;
    let spi_out = Spi::new(spi).ok_or(End::Misbehaved("SPI"))?;
    let secret = match (choice.group, &payloads.ke) {
        (None, _) => None,
        (Some(group), Some(ke)) if group == asked.agreement.group() => {
            Some(asked.agreement.agree(&ke.data).map_err(|_| End::Misbehaved("KE"))?)
        }
        _ => return Err(End::Misbehaved("KE")),
    };
    if !is_narrowed(local, &asked.request.local) || !is_narrowed(remote, &asked.request.remote) {
        return Err(End::Misbehaved("traffic selectors"));
    }
    let mode = agreed_mode(asked.request.mode, payloads)?;
    let (nonce_r, local, remote) = (nonce_r.clone(), local.clone(), remote.clone());
    Ok(Agreed { choice, spi_out, secret, nonce_r, mode, local, remote })
}

fn make(
    established: &Established,
    turn: &Turn<'_>,
    asked: &CreateChild,
    agreed: Agreed,
    additional: Option<&Secret>,
) -> Result<NewChild, End> {
    let Agreed { choice, spi_out, secret, nonce_r, mode, local, remote } = agreed;
    let (keys, secrets) = (&established.current.keys, [secret.as_ref(), additional]);
    let (key_out, key_in) = child_keys(keys, choice.cipher, secrets, &asked.nonce, &nonce_r)
        .map_err(|_| End::Misbehaved("KEYMAT"))?;
    Ok(NewChild {
        rekeys: asked.rekeys.filter(|old| established.children.contains_key(old)),
        initiator: true,
        choice,
        spi_in: asked.spi_in,
        spi_out,
        key_in,
        key_out,
        mode,
        local,
        remote,
        envelope: turn.link.envelope(),
    })
}

/// The peer made none (RFC 7296 §2.25).
pub(crate) fn refused(
    established: &mut Established,
    turn: &mut Turn<'_>,
    asked: CreateChild,
    payloads: &Payloads,
) -> ControlFlow<End> {
    let Some(error) = payloads.error() else {
        failed(established, turn, &asked, End::Misbehaved("CREATE_CHILD_SA response"));
        // Perhaps it made one nevertheless.
        turn.link.ask_first(turn.now, Ask::DeleteUnborn(asked.spi_in));
        return ControlFlow::Continue(());
    };
    let standing = asked.rekeys.map(|old| established.children.get(&old).map(|c| c.standing));
    if matches!(standing, Some(None | Some(Standing::Deleting))) {
        // It is not to be replaced any more.
        return ControlFlow::Continue(());
    }
    let crossed = asked.crossed.is_some();
    match error.kind {
        NotifyType::INVALID_KE_PAYLOAD if !crossed => {
            let group = <[u8; 2]>::try_from(error.data.as_slice())
                .ok()
                .and_then(|wanted| turn.shared.suites().group(u16::from_be_bytes(wanted)))
                .filter(|group| *group != asked.agreement.group());
            if let (Some(group), true) = (group, asked.tries.put_off < MAX_PUT_OFF) {
                let tries = asked.tries.again(error.kind);
                start(established, turn, asked.request, asked.rekeys, group, tries);
                return ControlFlow::Continue(());
            }
        }
        NotifyType::SINGLE_PAIR_REQUIRED if asked.rekeys.is_none() => {
            if let Some(single) = to_single_pair(&asked.request) {
                let group = asked.agreement.group();
                start(established, turn, single, None, group, asked.tries);
                return ControlFlow::Continue(());
            }
        }
        NotifyType::STATE_NOT_FOUND if asked.tries.lost >= MAX_LOST => {
            // RFC 9370 §2.2.4.
            established.close(turn, End::Refused { notify: error.kind.0, authentic: true });
            return ControlFlow::Continue(());
        }
        NotifyType::TEMPORARY_FAILURE | NotifyType::STATE_NOT_FOUND
            if !crossed && asked.tries.put_off < MAX_PUT_OFF =>
        {
            let ask = match asked.rekeys {
                Some(old) => Ask::RekeyChild(old),
                None => Ask::CreateChild(asked.request),
            };
            let not_before = turn.shared.soon(turn.now);
            let tries = asked.tries.again(error.kind);
            turn.link.asks.push_back(Queued { ask, not_before, tries });
            return ControlFlow::Continue(());
        }
        NotifyType::CHILD_SA_NOT_FOUND if !crossed => {
            if let Some(old) = asked.rekeys {
                child_down(established, turn, old, End::DeletedByPeer);
                return ControlFlow::Continue(());
            }
        }
        _ => {}
    }
    let why = End::Refused { notify: error.kind.0, authentic: true };
    failed(established, turn, &asked, why);
    ControlFlow::Continue(())
}

/// A new child failed: the owner hears of it. A replacement failed: the old child lives on, and
/// is tried again later.
fn failed(established: &mut Established, turn: &mut Turn<'_>, asked: &CreateChild, why: End) {
    let Some(old) = asked.rekeys else {
        let request = Box::new(asked.request.clone());
        turn.shared.event(Event::ChildFailed { ike: turn.link.id, request, why });
        return;
    };
    if asked.crossed.as_ref().is_some_and(|crossed| crossed.child.is_some()) {
        established.is_replaced(turn, old);
    } else if !established.owes(old) {
        established.stays(turn, old);
        turn.shared.event(Event::NotRenewed { ike: turn.link.id, child: Some(old) });
    }
}

/// Times that a key exchange may be lost on the peer before it is no peer to rekey with.
pub(crate) const MAX_LOST: u8 = 3;
/// Times that one wish is put off or asked again in another way.
pub(crate) const MAX_PUT_OFF: u8 = 8;
