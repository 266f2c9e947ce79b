//! CREATE_CHILD_SA for the IKE SA itself, both sides (RFC 7296 §1.3.2, §2.8.1, §2.18, §2.25.2).

use std::ops::ControlFlow;

use crate::api::{End, Event};
use crate::crypto::{
    Agreement, Group, IkeSuite, Mix, Secret, Suites, choose_ike, confirm_ike, offer_ike,
};
use crate::established::{Candidate, Established, REKEY_AGAIN, Which};
use crate::exchange::create_child_initiator::{MAX_LOST, MAX_PUT_OFF};
use crate::exchange::ike_followup_ke::{self, Owing, Unfinished};
use crate::exchange::{Ask, Pending, crash_detection};
use crate::failure::Failure;
use crate::ike_sa::{IkeSa, IkeSaParts};
use crate::message::{ExchangeType, InvalidMessage, KeyExchange, NotifyType, Payload, Payloads};
use crate::peering::{Queued, Tries, Turn};

/// What we asked.
#[derive(Debug)]
pub(crate) struct RekeyIke {
    agreement: Agreement,
    suites: Suites,
    nonce: Vec<u8>,
    pub(crate) spi: u64,
    tries: Tries,
}

/// What the peer has agreed to; it lacks the keys.
#[derive(Debug)]
pub(crate) struct Agreed {
    suite: IkeSuite,
    spi: u64,
    secret: Secret,
    nonce_r: Vec<u8>,
    peer_token: Option<Secret>,
}

/// Sends the request; the window is free.
pub(crate) fn start(
    established: &mut Established,
    turn: &mut Turn<'_>,
    group: Group,
    tries: Tries,
) {
    let Ok(agreement) = Agreement::new(group, &mut turn.shared.rng) else { return };
    let spi = turn.fresh_ike_spi();
    let nonce = turn.shared.nonce();
    let suites = turn.shared.init_suites();
    let payloads = [
        Payload::Sa(offer_ike(suites, &spi.to_be_bytes())),
        Payload::Nonce(nonce.clone()),
        Payload::KeyExchange(KeyExchange {
            group: group.number(),
            data: agreement.public().to_vec(),
        }),
    ];
    let about = RekeyIke { agreement, suites, nonce, spi, tries };
    established.request(
        turn,
        ExchangeType::CREATE_CHILD_SA,
        &payloads,
        Pending::RekeyIke(Box::new(about)),
    );
}

/// Takes the response.
pub(crate) fn receive(
    established: &mut Established,
    turn: &mut Turn<'_>,
    asked: RekeyIke,
    payloads: &Payloads,
) -> ControlFlow<End> {
    if payloads.sa.is_none() {
        return refused(established, turn, &asked, payloads);
    }
    let agreed = match read(&asked, payloads) {
        Ok(agreed) => agreed,
        // The peer believes that the SA is replaced, and there is no successor that works.
        Err(why) => return ControlFlow::Break(why),
    };
    let Some(method) = agreed.suite.additional else {
        return finish(established, turn, &asked, &agreed, None);
    };
    let lowest_nonce = (&asked.nonce).min(&agreed.nonce_r);
    let theirs = established.candidate.as_ref().map(|candidate| &candidate.lowest_nonce);
    if theirs.or_else(|| established.owed_ike()).is_some_and(|theirs| lowest_nonce < theirs) {
        // RFC 9370 §2.2.4: ours goes no further, and there is nothing to delete.
        turn.drop_ike_spi(asked.spi);
        established.adopt_candidate(turn);
        return ControlFlow::Continue(());
    }
    if established.owed_ike().is_some() {
        // The peer's goes no further.
        established.forget_owed(turn);
    }
    let about = Unfinished::Ike(Box::new((asked, agreed)));
    ike_followup_ke::start(established, turn, payloads, method, about)
}

/// All key exchanges are done: the successor takes over.
pub(crate) fn finish(
    established: &mut Established,
    turn: &mut Turn<'_>,
    asked: &RekeyIke,
    agreed: &Agreed,
    additional: Option<&Secret>,
) -> ControlFlow<End> {
    let (sa, lowest_nonce) = match make(established, asked, agreed, additional) {
        Ok(made) => made,
        Err(why) => return ControlFlow::Break(why),
    };
    match established.candidate.take() {
        Some(candidate) if lowest_nonce < candidate.lowest_nonce => {
            // Ours is the redundant one: we close it, the peer closes the old one.
            established.succeed(turn, candidate.sa, false);
            established.close_old(turn, sa);
        }
        Some(candidate) => {
            established.succeed(turn, sa, true);
            // The peer closes its own.
            established.keep_old(turn, candidate.sa);
        }
        None => established.succeed(turn, sa, true),
    }
    ControlFlow::Continue(())
}

fn read(asked: &RekeyIke, payloads: &Payloads) -> Result<Agreed, End> {
    let proposals = payloads.sa.as_ref().ok_or(End::Misbehaved("SA"))?;
    let nonce_r = payloads.nonce.as_ref().ok_or(End::Misbehaved("Nonce"))?;
    let ke = payloads.ke.as_ref().ok_or(End::Misbehaved("KE"))?;
    let suite = confirm_ike(asked.suites, proposals, 8).ok_or(End::Misbehaved("SA"))?;
    if nonce_r.len() < suite.prf.least_nonce() {
        return Err(End::Misbehaved("Nonce"));
    }
    let spi = proposals
        .first()
        .and_then(|p| <[u8; 8]>::try_from(p.spi.as_slice()).ok())
        .map(u64::from_be_bytes)
        .filter(|spi| *spi != 0 && *spi != asked.spi)
        .ok_or(End::Misbehaved("SPI"))?;
    if suite.group != asked.agreement.group() || ke.group != suite.group.number() {
        return Err(End::Misbehaved("KE"));
    }
    let secret = asked.agreement.agree(&ke.data).map_err(|_| End::Misbehaved("KE"))?;
    let (nonce_r, peer_token) = (nonce_r.clone(), crash_detection::theirs(payloads));
    Ok(Agreed { suite, spi, secret, nonce_r, peer_token })
}

fn make(
    established: &Established,
    asked: &RekeyIke,
    agreed: &Agreed,
    additional: Option<&Secret>,
) -> Result<(IkeSa, Vec<u8>), End> {
    let Agreed { suite, spi, secret, nonce_r, peer_token } = agreed;
    let mix = Mix { nonce_i: &asked.nonce, nonce_r, spi_i: asked.spi, spi_r: *spi };
    let old = &established.current;
    let (keys, ciphers) = old
        .keys
        .rekeyed(suite.prf, suite.cipher, (secret, additional), mix)
        .map_err(|_| End::Misbehaved("SKEYSEED"))?;
    let parts = IkeSaParts {
        spi_i: asked.spi,
        spi_r: *spi,
        initiator: true,
        suite: *suite,
        keys,
        ciphers,
        whole: old.whole,
    };
    let mut sa = IkeSa::rekeyed(parts).map_err(|_| End::Misbehaved("SKEYSEED"))?;
    sa.peer_token.clone_from(peer_token);
    Ok((sa, asked.nonce.clone().min(nonce_r.clone())))
}

pub(crate) fn refused(
    established: &mut Established,
    turn: &mut Turn<'_>,
    asked: &RekeyIke,
    payloads: &Payloads,
) -> ControlFlow<End> {
    turn.drop_ike_spi(asked.spi);
    if established.adopt_candidate(turn) {
        return ControlFlow::Continue(());
    }
    let again = asked.tries.put_off < MAX_PUT_OFF;
    let error = payloads.error();
    match error.map(|e| e.kind) {
        Some(NotifyType::INVALID_KE_PAYLOAD) if again => {
            let group = error
                .and_then(|e| <[u8; 2]>::try_from(e.data.as_slice()).ok())
                .and_then(|wanted| turn.shared.suites().group(u16::from_be_bytes(wanted)))
                .filter(|group| *group != asked.agreement.group());
            if let Some(group) = group {
                let tries = asked.tries.again(NotifyType::INVALID_KE_PAYLOAD);
                start(established, turn, group, tries);
                return ControlFlow::Continue(());
            }
        }
        Some(NotifyType::STATE_NOT_FOUND) if asked.tries.lost >= MAX_LOST => {
            // RFC 9370 §2.2.4.
            let notify = NotifyType::STATE_NOT_FOUND.0;
            established.close(turn, End::Refused { notify, authentic: true });
            return ControlFlow::Continue(());
        }
        Some(why @ (NotifyType::TEMPORARY_FAILURE | NotifyType::STATE_NOT_FOUND)) if again => {
            let not_before = turn.shared.soon(turn.now);
            let tries = asked.tries.again(why);
            turn.link.asks.push_back(Queued { ask: Ask::RekeyIke, not_before, tries });
            return ControlFlow::Continue(());
        }
        _ => {}
    }
    // It lives on; its hard life ends it.
    established.rekey_at = turn.now + REKEY_AGAIN;
    turn.shared.event(Event::NotRenewed { ike: turn.link.id, child: None });
    ControlFlow::Continue(())
}

/// Answers the peer's request.
pub(crate) fn answer(
    established: &mut Established,
    turn: &mut Turn<'_>,
    which: Which,
    payloads: &Payloads,
) -> ControlFlow<End> {
    let made = if which == Which::Current {
        agree(established, turn, payloads)
    } else {
        Err(Failure::TemporaryFailure)
    };
    match made {
        Ok((mut answer, owed)) => {
            turn.link.asks.retain(|q| q.ask != Ask::RekeyIke);
            let made = if owed.suite.additional.is_some() {
                let owing = Owing::Ike(Box::new(owed));
                answer.push(ike_followup_ke::owe(established, turn, owing));
                Ok(None)
            } else {
                make_owed(established, owed, None).map(Some)
            };
            let failure = made.as_ref().err().copied();
            let made = made.unwrap_or_else(|failure| {
                answer = vec![Payload::Notify(failure.notify())];
                None
            });
            let sa = established.sa_mut(which);
            let datagrams = sa.respond(ExchangeType::CREATE_CHILD_SA, &answer);
            turn.answer(datagrams);
            if let Some(successor) = made {
                succeeded(established, turn, successor);
            }
            Failure::outcome(failure)
        }
        Err(failure) => {
            let notify = [Payload::Notify(failure.notify())];
            let sa = established.sa_mut(which);
            let datagrams = sa.respond(ExchangeType::CREATE_CHILD_SA, &notify);
            turn.answer(datagrams);
            Failure::outcome(Some(failure))
        }
    }
}

fn agree(
    established: &Established,
    turn: &mut Turn<'_>,
    payloads: &Payloads,
) -> Result<(Vec<Payload>, OwedIke), Failure> {
    match established.current.pending() {
        // The children of this SA are on the move (RFC 7296 §2.25.2), or ours has come too far
        // (RFC 9370 §2.2.4).
        Some(
            Pending::CreateChild(_)
            | Pending::Followup(_)
            | Pending::DeleteChild(..)
            | Pending::DeleteUnborn
            | Pending::DeleteIke(_),
        ) => return Err(Failure::TemporaryFailure),
        Some(
            Pending::Auth
            | Pending::Intermediate
            | Pending::Liveness
            | Pending::UpdateAddresses(_)
            | Pending::TellAddresses(_)
            | Pending::TellOld
            | Pending::CheckAddress(_)
            | Pending::DeleteOld
            | Pending::RekeyIke(_),
        )
        | None => {}
    }
    if turn.shared.config.renews_nothing {
        return Err(Failure::NoAdditionalSas);
    }
    if established.closing || established.candidate.is_some() {
        return Err(Failure::TemporaryFailure);
    }
    let proposals = payloads.sa.as_ref().ok_or(InvalidMessage::Missing("SA"))?;
    let nonce_i = payloads.nonce.as_ref().ok_or(InvalidMessage::Missing("Nonce"))?;
    let ke = payloads.ke.as_ref().ok_or(InvalidMessage::Missing("KE"))?;
    let suites = turn.shared.init_suites();
    let (suite, mut proposal) = choose_ike(suites, proposals, 8, ke.group, nonce_i.len())
        .ok_or(Failure::NoProposalChosen)?;
    let spi_i = proposals
        .iter()
        .find(|p| p.number == proposal.number)
        .and_then(|p| <[u8; 8]>::try_from(p.spi.as_slice()).ok())
        .map(u64::from_be_bytes)
        .filter(|spi| *spi != 0)
        .ok_or(Failure::InvalidSyntax("SPI"))?;
    if suite.group.number() != ke.group {
        return Err(Failure::InvalidKe(suite.group.number()));
    }
    let invalid = |_| Failure::InvalidSyntax("KE");
    let agreement = Agreement::new(suite.group, &mut turn.shared.rng).map_err(invalid)?;
    let secret = agreement.agree(&ke.data).map_err(invalid)?;
    let nonce_r = turn.shared.nonce();
    let spi_r = turn.fresh_ike_spi();
    proposal.spi = spi_r.to_be_bytes().to_vec();
    let mut answer = vec![
        Payload::Sa(vec![proposal]),
        Payload::Nonce(nonce_r.clone()),
        Payload::KeyExchange(KeyExchange { group: ke.group, data: agreement.public().to_vec() }),
    ];
    // The peer tells its own later: it did not know our SPI yet (RFC 6290 §4.3).
    answer.extend(crash_detection::ours(turn, (spi_i, spi_r), false));
    let nonces = (nonce_i.clone(), nonce_r);
    Ok((answer, OwedIke { suite, spis: (spi_i, spi_r), secret, nonces }))
}

/// A successor that the peer and we have agreed on, but for the keys.
#[derive(Debug)]
pub(crate) struct OwedIke {
    pub(crate) suite: IkeSuite,
    /// Its initiator's, and ours.
    pub(crate) spis: (u64, u64),
    secret: Secret,
    nonces: (Vec<u8>, Vec<u8>),
}

impl OwedIke {
    pub(crate) fn lowest_nonce(&self) -> &Vec<u8> {
        (&self.nonces.0).min(&self.nonces.1)
    }
}

/// The last key exchange of the peer's successor has come: it is made, if it still may be.
pub(crate) fn owed(
    established: &Established,
    turn: &mut Turn<'_>,
    owed: OwedIke,
    additional: &Secret,
) -> Result<Candidate, Failure> {
    let pending = established.current.pending();
    let (_, own) = owed.spis;
    // Only our own request for the same may be under way: it has not been answered yet.
    let free = !matches!(
        pending,
        Some(
            Pending::CreateChild(_)
                | Pending::Followup(_)
                | Pending::DeleteChild(..)
                | Pending::DeleteUnborn
                | Pending::DeleteIke(_)
        )
    );
    let made = if free && !established.closing && established.candidate.is_none() {
        make_owed(established, owed, Some(additional))
    } else {
        Err(Failure::TemporaryFailure)
    };
    if made.is_err() {
        turn.drop_ike_spi(own);
    }
    made
}

fn make_owed(
    established: &Established,
    owed: OwedIke,
    additional: Option<&Secret>,
) -> Result<Candidate, Failure> {
    let lowest_nonce = owed.lowest_nonce().clone();
    let OwedIke { suite, spis: (spi_i, spi_r), secret, nonces } = owed;
    let mix = Mix { nonce_i: &nonces.0, nonce_r: &nonces.1, spi_i, spi_r };
    let invalid = |_| Failure::InvalidSyntax("KE");
    let old = &established.current;
    let (keys, ciphers) =
        old.keys.rekeyed(suite.prf, suite.cipher, (&secret, additional), mix).map_err(invalid)?;
    let parts =
        IkeSaParts { spi_i, spi_r, initiator: false, suite, keys, ciphers, whole: old.whole };
    let sa = IkeSa::rekeyed(parts).map_err(invalid)?;
    Ok(Candidate { sa, lowest_nonce })
}

/// The peer has made a successor, and has our answer.
pub(crate) fn succeeded(established: &mut Established, turn: &mut Turn<'_>, successor: Candidate) {
    if matches!(established.current.pending(), Some(Pending::RekeyIke(_))) {
        // Both rekey at once; the nonces decide when the answer to ours is here.
        established.candidate = Some(Box::new(successor));
    } else {
        established.succeed(turn, successor.sa, false);
    }
}
