//! CREATE_CHILD_SA for the IKE SA itself, both sides (RFC 7296 §1.3.2, §2.8.1, §2.18, §2.25.2).

use std::ops::ControlFlow;

use crate::api::End;
use crate::crypto::{Agreement, Group, Mix, Suites, choose_ike, confirm_ike, offer_ike};
use crate::established::{Candidate, Established, REKEY_AGAIN, Which};
use crate::exchange::create_child_initiator::MAX_PUT_OFF;
use crate::exchange::{Ask, Pending, crash_detection};
use crate::failure::Failure;
use crate::ike_sa::{IkeSa, IkeSaParts};
use crate::message::{ExchangeType, InvalidMessage, KeyExchange, NotifyType, Payload, Payloads};
use crate::peering::{Queued, Turn};

/// What we asked.
#[derive(Debug)]
pub(crate) struct RekeyIke {
    agreement: Agreement,
    nonce: Vec<u8>,
    pub(crate) spi: u64,
    put_off: u8,
}

/// Sends the request; the window is free.
pub(crate) fn start(established: &mut Established, turn: &mut Turn<'_>, group: Group, put_off: u8) {
    let Ok(agreement) = Agreement::new(group, &mut turn.shared.rng) else { return };
    let spi = turn.fresh_ike_spi();
    let nonce = turn.shared.nonce();
    let payloads = [
        Payload::Sa(offer_ike(turn.shared.suites(), &spi.to_be_bytes())),
        Payload::Nonce(nonce.clone()),
        Payload::KeyExchange(KeyExchange {
            group: group.number(),
            data: agreement.public().to_vec(),
        }),
    ];
    let about = RekeyIke { agreement, nonce, spi, put_off };
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
    let (sa, lowest_nonce) = match read(established, turn.shared.suites(), &asked, payloads) {
        Ok(read) => read,
        // The peer believes that the SA is replaced, and there is no successor that works.
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

fn read(
    established: &Established,
    suites: Suites,
    asked: &RekeyIke,
    payloads: &Payloads,
) -> Result<(IkeSa, Vec<u8>), End> {
    let proposals = payloads.sa.as_ref().ok_or(End::Misbehaved("SA"))?;
    let nonce_r = payloads.nonce.as_ref().ok_or(End::Misbehaved("Nonce"))?;
    let ke = payloads.ke.as_ref().ok_or(End::Misbehaved("KE"))?;
    let suite = confirm_ike(suites, proposals, 8).ok_or(End::Misbehaved("SA"))?;
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
    let mix = Mix { nonce_i: &asked.nonce, nonce_r, spi_i: asked.spi, spi_r: spi };
    let old = &established.current;
    let (keys, ciphers) = old
        .keys
        .rekeyed(suite.prf, suite.cipher, &secret, mix)
        .map_err(|_| End::Misbehaved("SKEYSEED"))?;
    let parts = IkeSaParts {
        spi_i: asked.spi,
        spi_r: spi,
        initiator: true,
        suite,
        keys,
        ciphers,
        fragmentation: old.fragmentation,
    };
    let mut sa = IkeSa::rekeyed(parts).map_err(|_| End::Misbehaved("SKEYSEED"))?;
    sa.peer_token = crash_detection::theirs(payloads);
    Ok((sa, asked.nonce.clone().min(nonce_r.clone())))
}

fn refused(
    established: &mut Established,
    turn: &mut Turn<'_>,
    asked: &RekeyIke,
    payloads: &Payloads,
) -> ControlFlow<End> {
    turn.drop_ike_spi(asked.spi);
    if established.adopt_candidate(turn) {
        return ControlFlow::Continue(());
    }
    let again = asked.put_off < MAX_PUT_OFF;
    let error = payloads.error();
    match error.map(|e| e.kind) {
        Some(NotifyType::INVALID_KE_PAYLOAD) if again => {
            let group = error
                .and_then(|e| <[u8; 2]>::try_from(e.data.as_slice()).ok())
                .and_then(|wanted| turn.shared.suites().group(u16::from_be_bytes(wanted)))
                .filter(|group| *group != asked.agreement.group());
            if let Some(group) = group {
                start(established, turn, group, asked.put_off + 1);
                return ControlFlow::Continue(());
            }
        }
        Some(NotifyType::TEMPORARY_FAILURE) if again => {
            let not_before = turn.shared.soon(turn.now);
            let put_off = asked.put_off + 1;
            turn.link.asks.push_back(Queued { ask: Ask::RekeyIke, not_before, put_off });
            return ControlFlow::Continue(());
        }
        _ => {}
    }
    // It lives on; its hard life ends it.
    established.rekey_at = turn.now + REKEY_AGAIN;
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
        Ok((answer, successor)) => {
            let sa = established.sa_mut(which);
            let datagrams = sa.respond(ExchangeType::CREATE_CHILD_SA, &answer);
            turn.answer(datagrams);
            turn.link.asks.retain(|q| q.ask != Ask::RekeyIke);
            if matches!(established.current.pending(), Some(Pending::RekeyIke(_))) {
                // Both rekey at once; the nonces decide when the answer to ours is here.
                established.candidate = Some(Box::new(successor));
            } else {
                established.succeed(turn, successor.sa, false);
            }
        }
        Err(failure) => {
            let notify = [Payload::Notify(failure.notify())];
            let sa = established.sa_mut(which);
            let datagrams = sa.respond(ExchangeType::CREATE_CHILD_SA, &notify);
            turn.answer(datagrams);
        }
    }
    ControlFlow::Continue(())
}

fn agree(
    established: &Established,
    turn: &mut Turn<'_>,
    payloads: &Payloads,
) -> Result<(Vec<Payload>, Candidate), Failure> {
    match established.current.pending() {
        // The children of this SA are on the move (RFC 7296 §2.25.2).
        Some(
            Pending::CreateChild(_)
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
            | Pending::CheckAddress(_)
            | Pending::DeleteOld
            | Pending::RekeyIke(_),
        )
        | None => {}
    }
    if established.closing || established.candidate.is_some() {
        return Err(Failure::TemporaryFailure);
    }
    let proposals = payloads.sa.as_ref().ok_or(InvalidMessage::Missing("SA"))?;
    let nonce_i = payloads.nonce.as_ref().ok_or(InvalidMessage::Missing("Nonce"))?;
    let ke = payloads.ke.as_ref().ok_or(InvalidMessage::Missing("KE"))?;
    let (suite, mut proposal) = choose_ike(turn.shared.suites(), proposals, 8, ke.group)
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
    let mix = Mix { nonce_i, nonce_r: &nonce_r, spi_i, spi_r };
    let old = &established.current;
    let (keys, ciphers) =
        old.keys.rekeyed(suite.prf, suite.cipher, &secret, mix).map_err(invalid)?;
    let parts = IkeSaParts {
        spi_i,
        spi_r,
        initiator: false,
        suite,
        keys,
        ciphers,
        fragmentation: old.fragmentation,
    };
    let sa = IkeSa::rekeyed(parts).map_err(invalid)?;
    let mut answer = vec![
        Payload::Sa(vec![proposal]),
        Payload::Nonce(nonce_r.clone()),
        Payload::KeyExchange(KeyExchange { group: ke.group, data: agreement.public().to_vec() }),
    ];
    // The peer tells its own later: it did not know our SPI yet (RFC 6290 §4.3).
    answer.extend(crash_detection::ours(turn, (spi_i, spi_r), false));
    let lowest_nonce = nonce_i.clone().min(nonce_r);
    Ok((answer, Candidate { sa, lowest_nonce }))
}
