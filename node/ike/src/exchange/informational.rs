//! INFORMATIONAL: deletions, liveness, and notifies (RFC 7296 §1.4); addresses are `mobike`'s.

use std::ops::ControlFlow;

use crate::api::End;
use crate::child::{Standing, child_down};
use crate::established::{Established, Which};
use crate::exchange::{Pending, crash_detection, mobike};
use crate::message::{Delete, ExchangeType, NotifyType, Payload, Payloads};
use crate::peering::Turn;
use crate::shared::Grave;

/// Answers the peer's request.
pub(crate) fn answer(
    established: &mut Established,
    turn: &mut Turn<'_>,
    which: Which,
    payloads: &Payloads,
) -> ControlFlow<End> {
    if payloads.deletes.contains(&Delete::Ike) {
        return deleted(established, turn, which);
    }
    let mut spis = Vec::new();
    for spi in payloads.deletes.iter().flat_map(|delete| match delete {
        Delete::Esp(spis) => spis.as_slice(),
        Delete::Ike | Delete::Other => &[],
    }) {
        let found = established
            .children
            .iter()
            .find(|(_, child)| child.spi_out.get() == *spi)
            .map(|(id, child)| (*id, child.standing));
        let Some((id, standing)) = found else {
            if established.current.pending().is_some_and(Pending::makes_child) {
                // Its Delete has overtaken the answer that made it.
                established.stillborn = Some(*spi);
            }
            continue;
        };
        let asked = matches!(
            established.current.pending(),
            Some(Pending::DeleteChild(ours, _)) if *ours == id
        );
        if let Some(child) = child_down(established, turn, id, End::DeletedByPeer) {
            // Both sides delete it at once: neither answer names it (RFC 7296 §1.4.1).
            if !(standing == Standing::Deleting && asked) {
                spis.push(child.spi_in.get());
            }
        }
    }
    crash_detection::note(established, which, payloads);
    let mut answer = mobike::answer(established, turn, which, payloads);
    if !spis.is_empty() {
        answer.push(Payload::Delete(Delete::Esp(spis)));
    }
    let datagrams = established.sa_mut(which).respond(ExchangeType::INFORMATIONAL, &answer);
    turn.answer(datagrams);
    // RFC 7296 §2.21.2: the initiator found our IKE_AUTH response wanting, and has no IKE SA.
    match ENDING.iter().find_map(|kind| payloads.notify(*kind)) {
        Some(notify) if which == Which::Current => {
            established.gone = true;
            ControlFlow::Break(End::Refused { notify: notify.kind.0, authentic: true })
        }
        _ => ControlFlow::Continue(()),
    }
}

/// The peer deletes an IKE SA: the answer is empty (RFC 7296 §1.4.1).
fn deleted(established: &mut Established, turn: &mut Turn<'_>, which: Which) -> ControlFlow<End> {
    let sa = established.sa_mut(which);
    let datagrams = sa.respond(ExchangeType::INFORMATIONAL, &[]);
    let spi = sa.own_spi();
    // Both sides delete it at once: ours has its reason.
    let closing = match sa.pending() {
        Some(Pending::DeleteIke(why)) => Some(*why),
        _ => None,
    };
    turn.answer(datagrams.clone());
    let request = turn.digest();
    turn.shared.bury(turn.now, spi, Grave { request, datagrams });
    match which {
        Which::Current => {
            // The peer has a successor that we know of, while our own rekey never reached it.
            if established.adopt_candidate(turn) {
                established.forget_old(turn, spi);
                return ControlFlow::Continue(());
            }
            established.gone = true;
            ControlFlow::Break(closing.unwrap_or(End::DeletedByPeer))
        }
        Which::Candidate => {
            established.drop_candidate(turn);
            ControlFlow::Continue(())
        }
        Which::Old(_) => {
            established.forget_old(turn, spi);
            ControlFlow::Continue(())
        }
    }
}

/// What ends an IKE SA without a Delete when a request says it.
const ENDING: [NotifyType; 3] = [
    NotifyType::AUTHENTICATION_FAILED,
    NotifyType::INVALID_SYNTAX,
    NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD,
];
