//! CREATE_CHILD_SA, the peer's request for a child or for a child's replacement (RFC 7296 §1.3.1,
//! §1.3.3, §2.8, §2.25).

use std::ops::ControlFlow;

use sa::{Mode, SaId, Spi, TrafficSelector};

use crate::api::{End, NeedChild, Output};
use crate::child::{NewChild, Standing, child_up};
use crate::crypto::{Agreement, EspChoice, Secret, answer_esp, child_keys, choose_esp};
use crate::established::{Authority, Beyond, Established, Which};
use crate::exchange::create_child_initiator::Crossed;
use crate::exchange::ike_followup_ke::{self, Owing};
use crate::exchange::{Ask, Pending};
use crate::failure::Failure;
use crate::message::{
    ExchangeType, InvalidMessage, KeyExchange, NotifyType, Payload, Payloads, ProtocolId,
};
use crate::narrow::{narrow, share_family};
use crate::peering::{Turn, bare};

/// Answers the request.
pub(crate) fn answer(
    established: &mut Established,
    turn: &mut Turn<'_>,
    which: Which,
    payloads: &Payloads,
) -> ControlFlow<End> {
    let answer = if which == Which::Current {
        agree(established, turn, payloads)
    } else {
        // An SA that has a successor makes no more children.
        Err(Failure::TemporaryFailure)
    };
    let failure = answer.as_ref().err().copied();
    let answer = answer.unwrap_or_else(|failure| vec![Payload::Notify(failure.notify())]);
    let datagrams = established.sa_mut(which).respond(ExchangeType::CREATE_CHILD_SA, &answer);
    turn.answer(datagrams);
    Failure::outcome(failure)
}

/// Whether this asks for a child between single addresses that the peer was not granted yet.
pub(crate) fn is_beyond(established: &Established, payloads: &Payloads) -> bool {
    let (Some(remote), Some(local)) = (&payloads.ts_initiator, &payloads.ts_responder) else {
        return false;
    };
    let single = |selectors: &[TrafficSelector]| {
        selectors.len() <= MAX_SINGLE && selectors.iter().all(|s| s.as_host().is_some())
    };
    let Authority { local: ours, remote: theirs, .. } = &established.authority;
    payloads.notify(NotifyType::REKEY_SA).is_none()
        && single(remote)
        && single(local)
        && !share_family(&narrow(local, ours), &narrow(remote, theirs))
}

/// Asks the owner, once; the peer repeats its request meanwhile, perhaps from elsewhere.
pub(crate) fn ask(established: &mut Established, turn: &mut Turn<'_>, payloads: Payloads) {
    if let Some(beyond) = &mut established.beyond {
        beyond.reply = turn.reply;
        return;
    }
    turn.shared.outputs.push_back(Output::NeedChild(NeedChild {
        ike: turn.link.id,
        remote_selectors: payloads.ts_initiator.clone().unwrap_or_default(),
        local_selectors: payloads.ts_responder.clone().unwrap_or_default(),
    }));
    let (own_spi, message_id) = (established.current.own_spi(), established.current.awaited());
    let reply = turn.reply;
    established.beyond = Some(Box::new(Beyond { own_spi, message_id, reply, payloads }));
}

/// The owner has said whether the peer may have what it asks for. If the request was answered
/// meanwhile, because the peer has been granted what it asks for since, there is nothing to say.
pub(crate) fn told(
    established: &mut Established,
    turn: &mut Turn<'_>,
    allowed: bool,
) -> ControlFlow<End> {
    let Some(beyond) = established.beyond.take() else { return ControlFlow::Continue(()) };
    let Beyond { own_spi, message_id, reply, payloads } = *beyond;
    let Some(which) = established
        .find(own_spi)
        .filter(|which| established.sa_mut(*which).awaited() == message_id)
    else {
        return ControlFlow::Continue(());
    };
    // RFC 7296 §2.11.
    turn.reply = reply;
    // For this child only; its replacements ask for what it has.
    let before = established.authority.clone();
    if allowed {
        established.authority.remote = payloads.ts_initiator.clone().unwrap_or_default();
        established.authority.local = payloads.ts_responder.clone().unwrap_or_default();
    }
    let outcome = answer(established, turn, which, &payloads);
    established.authority = before;
    outcome
}

fn agree(
    established: &mut Established,
    turn: &mut Turn<'_>,
    payloads: &Payloads,
) -> Result<Vec<Payload>, Failure> {
    if !may_make(established) {
        return Err(Failure::TemporaryFailure);
    }
    let old = rekeyed_child(established, payloads)?;
    if let Some(Pending::Followup(ours)) = established.current.pending()
        && old.is_some()
        && ours.rekeys() == old
    {
        // RFC 9370 §2.2.4: ours has come too far.
        return Err(Failure::TemporaryFailure);
    }
    let proposals = payloads.sa.as_ref().ok_or(InvalidMessage::Missing("SA"))?;
    let nonce_i = payloads.nonce.as_ref().ok_or(InvalidMessage::Missing("Nonce"))?;
    if nonce_i.len() < established.current.suite.prf.least_nonce() {
        return Err(Failure::InvalidSyntax("Nonce"));
    }
    let remote = payloads.ts_initiator.as_ref().ok_or(InvalidMessage::Missing("TSi"))?;
    let local = payloads.ts_responder.as_ref().ok_or(InvalidMessage::Missing("TSr"))?;
    let limit = if old.is_some() { 2 * MAX_CHILDREN } else { MAX_CHILDREN };
    let refused = turn.shared.config.renews_nothing && old.is_some();
    if refused || established.children.len() >= limit {
        return Err(Failure::NoAdditionalSas);
    }
    let ke_group = payloads.ke.as_ref().map(|ke| ke.group);
    let (choice, spi, number) = choose_esp(turn.shared.init_suites(), proposals, ke_group)
        .ok_or(Failure::NoProposalChosen)?;
    let spi_out = Spi::new(spi).ok_or(Failure::NoProposalChosen)?;
    let allowed = allowed(established, old);
    let (local, remote) = (narrow(local, &allowed.local), narrow(remote, &allowed.remote));
    if !share_family(&local, &remote) {
        return Err(Failure::TsUnacceptable);
    }
    let transport = allowed.transport
        && payloads.notify(NotifyType::USE_TRANSPORT_MODE).is_some()
        && turn.link.path.carries_transport(&local, &remote);
    let mode = if transport { Mode::Transport } else { Mode::Tunnel };
    let agreement = match (choice.group, &payloads.ke) {
        (Some(group), Some(ke)) if group.number() == ke.group => {
            let agreement = Agreement::new(group, &mut turn.shared.rng)
                .map_err(|_| Failure::TemporaryFailure)?;
            let secret = agreement.agree(&ke.data).map_err(|_| Failure::InvalidSyntax("KE"))?;
            Some((agreement, secret))
        }
        (Some(group), _) => return Err(Failure::InvalidKe(group.number())),
        (None, _) => None,
    };
    let nonce_r = turn.shared.nonce();
    let spi_in = turn.fresh_esp_spi();

    let mut answer = Vec::new();
    if mode == Mode::Transport {
        answer.push(bare(NotifyType::USE_TRANSPORT_MODE));
    }
    answer.push(Payload::Sa(vec![answer_esp(number, choice, spi_in.to_be_bytes())]));
    answer.push(Payload::Nonce(nonce_r.clone()));
    answer.extend(agreement.as_ref().map(|(agreement, _)| {
        Payload::KeyExchange(KeyExchange {
            group: agreement.group().number(),
            data: agreement.public().to_vec(),
        })
    }));
    answer.push(Payload::TsInitiator(remote.clone()));
    answer.push(Payload::TsResponder(local.clone()));
    let owed = OwedChild {
        old,
        choice,
        spi_in,
        spi_out,
        secret: agreement.map(|(_, secret)| secret),
        nonces: (nonce_i.clone(), nonce_r),
        mode,
        local,
        remote,
    };
    if choice.exchanges.method().is_none() {
        make(established, turn, owed, None)?;
        return Ok(answer);
    }
    awaited(established, turn, &owed);
    answer.push(ike_followup_ke::owe(established, turn, Owing::Child(Box::new(owed))));
    Ok(answer)
}

/// The peer is about to replace a child; so we need not.
fn awaited(established: &mut Established, turn: &mut Turn<'_>, owed: &OwedChild) {
    let Some(old) = owed.old else { return };
    turn.link.asks.retain(|q| q.ask != Ask::RekeyChild(old));
    let lowest_nonce = owed.lowest_nonce().clone();
    if !has_crossed(established, old, Crossed { child: None, lowest_nonce })
        && let Some(child) = established.children.get_mut(&old)
    {
        child.standing = Standing::Rekeying;
    }
}

/// Whether a child can be made now (RFC 7296 §2.25.2).
fn may_make(established: &Established) -> bool {
    let pending = established.current.pending();
    !established.closing
        && !matches!(pending, Some(Pending::DeleteIke(_)))
        && !pending.is_some_and(Pending::rekeys_ike)
}

/// A child that the peer and we have agreed on, but for the keys.
#[derive(Debug)]
pub(crate) struct OwedChild {
    pub(crate) old: Option<SaId>,
    pub(crate) choice: EspChoice,
    pub(crate) spi_in: Spi,
    spi_out: Spi,
    secret: Option<Secret>,
    nonces: (Vec<u8>, Vec<u8>),
    mode: Mode,
    local: Vec<TrafficSelector>,
    remote: Vec<TrafficSelector>,
}

impl OwedChild {
    fn lowest_nonce(&self) -> &Vec<u8> {
        (&self.nonces.0).min(&self.nonces.1)
    }
}

/// Its last key exchange has come: it comes up, if it still can.
pub(crate) fn finish(
    established: &mut Established,
    turn: &mut Turn<'_>,
    owed: OwedChild,
    additional: &Secret,
) -> Result<(), Failure> {
    let standing = owed.old.map(|old| established.children.get(&old).map(|c| c.standing));
    let replaceable = |s: Option<Standing>| matches!(s, Some(Standing::Up | Standing::Rekeying));
    if !may_make(established) || !standing.is_none_or(replaceable) {
        established.disown(turn, Owing::Child(Box::new(owed)));
        return Err(Failure::TemporaryFailure);
    }
    make(established, turn, owed, Some(additional))
}

fn make(
    established: &mut Established,
    turn: &mut Turn<'_>,
    owed: OwedChild,
    additional: Option<&Secret>,
) -> Result<(), Failure> {
    let lowest_nonce = owed.lowest_nonce().clone();
    let OwedChild { old, choice, spi_in, spi_out, secret, nonces, mode, local, remote } = owed;
    let (keys, secrets) = (&established.current.keys, [secret.as_ref(), additional]);
    let (key_in, key_out) = child_keys(keys, choice.cipher, secrets, &nonces.0, &nonces.1)
        .map_err(|_| Failure::NoProposalChosen)?;
    let new = NewChild {
        rekeys: old,
        initiator: false,
        choice,
        spi_in,
        spi_out,
        key_in,
        key_out,
        mode,
        local,
        remote,
        envelope: turn.link.envelope(),
    };
    let child = child_up(established, turn, new);
    if let Some(old) = old {
        replaced(established, turn, old, child, lowest_nonce);
    }
    Ok(())
}

/// Which child REKEY_SA names, if it stands there. Its SPI is the one that the peer receives on
/// (RFC 7296 §1.3.3).
fn rekeyed_child(established: &Established, payloads: &Payloads) -> Result<Option<SaId>, Failure> {
    let Some(notify) = payloads.notify(NotifyType::REKEY_SA) else { return Ok(None) };
    let spi = <[u8; 4]>::try_from(notify.spi.as_slice())
        .map_err(|_| Failure::InvalidSyntax("REKEY_SA"))?;
    let is_esp = notify.protocol == ProtocolId::ESP;
    let (id, child) = established
        .children
        .iter()
        .find(|(_, child)| is_esp && child.spi_out.to_be_bytes() == spi)
        .ok_or_else(|| match established.current.pending() {
            // The answer that made it may be under way.
            Some(pending) if is_esp && pending.makes_child() => Failure::TemporaryFailure,
            _ => Failure::ChildSaNotFound(notify.protocol, spi),
        })?;
    match child.standing {
        Standing::Up | Standing::Rekeying => Ok(Some(*id)),
        Standing::Replaced | Standing::Deleting => Err(Failure::TemporaryFailure),
    }
}

/// What the peer may have: a replacement what its predecessor had, a new child what the peer was
/// granted.
fn allowed(established: &Established, old: Option<SaId>) -> Authority {
    match old.and_then(|id| established.children.get(&id)) {
        None => established.authority.clone(),
        Some(old) => Authority {
            local: old.agreed.local.clone(),
            remote: old.agreed.remote.clone(),
            transport: old.agreed.mode == Mode::Transport,
        },
    }
}

/// The old child waits for the peer to delete it. If our own replacement of it is under way, the
/// nonces will decide (RFC 7296 §2.8.1); if we only meant to ask, we need not.
fn replaced(
    established: &mut Established,
    turn: &mut Turn<'_>,
    old: SaId,
    child: SaId,
    lowest_nonce: Vec<u8>,
) {
    turn.link.asks.retain(|q| q.ask != Ask::RekeyChild(old));
    if !has_crossed(established, old, Crossed { child: Some(child), lowest_nonce }) {
        established.is_replaced(turn, old);
    }
}

/// Takes note of the peer's replacement of a child if our own is under way.
fn has_crossed(established: &mut Established, old: SaId, crossed: Crossed) -> bool {
    match established.current.pending_mut() {
        Some(Pending::CreateChild(ours)) if ours.rekeys == Some(old) => {
            ours.crossed = Some(crossed);
            true
        }
        _ => false,
    }
}

/// Hosts need one, gateways one for each pair of hosts behind them.
pub(crate) const MAX_CHILDREN: usize = 256;
/// The triggering packet's own, and its addresses' (RFC 7296 §2.9).
const MAX_SINGLE: usize = 2;
