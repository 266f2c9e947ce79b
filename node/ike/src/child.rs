//! A pair of ESP SAs as its IKE SA sees it (RFC 7296 §2.8, §2.17).

use std::net::IpAddr;
use std::time::{Duration, Instant};

use sa::{Envelope, EspKey, Mode, SaId, Spi, TrafficSelector};

use crate::api::{Child, ChildRequest, End, Event};
use crate::crypto::EspChoice;
use crate::established::Established;
use crate::peering::Turn;

/// A child.
#[derive(Debug)]
pub(crate) struct ChildSa {
    pub(crate) spi_in: Spi,
    pub(crate) spi_out: Spi,
    /// What was agreed; its replacement asks for the same.
    pub(crate) agreed: ChildRequest,
    pub(crate) standing: Standing,
    pub(crate) rekey_at: Instant,
    pub(crate) expire_at: Instant,
}

/// Where a child stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// In use.
    Up,
    /// We have asked, or are about to ask, for its replacement.
    Rekeying,
    /// It has a replacement; whoever made that deletes this.
    Replaced,
    /// We have asked, or are about to ask, for its deletion.
    Deleting,
}

/// A child just agreed on.
#[derive(Debug)]
pub(crate) struct NewChild {
    pub(crate) rekeys: Option<SaId>,
    pub(crate) initiator: bool,
    pub(crate) choice: EspChoice,
    pub(crate) spi_in: Spi,
    pub(crate) spi_out: Spi,
    pub(crate) key_in: EspKey,
    pub(crate) key_out: EspKey,
    pub(crate) mode: Mode,
    pub(crate) local: Vec<TrafficSelector>,
    pub(crate) remote: Vec<TrafficSelector>,
    pub(crate) envelope: Envelope,
}

/// Enters a child and announces it.
pub(crate) fn child_up(established: &mut Established, turn: &mut Turn<'_>, new: NewChild) -> SaId {
    let id = turn.shared.fresh_sa_id(turn.link.id);
    turn.shared.name_child(new.spi_out, turn.link.counted, id);
    let life = turn.shared.config.child_life;
    // Who asked for it replaces it first; the other only if that fails.
    let rekey_in = if new.initiator { turn.shared.shortened(life) } else { life };
    established.children.insert(
        id,
        Box::new(ChildSa {
            spi_in: new.spi_in,
            spi_out: new.spi_out,
            agreed: ChildRequest {
                local: new.local.clone(),
                remote: new.remote.clone(),
                mode: new.mode,
            },
            standing: Standing::Up,
            rekey_at: turn.now + rekey_in,
            expire_at: turn.now + hard_life(life),
        }),
    );
    turn.shared.counters.children_up += 1;
    turn.shared.event(Event::ChildUp(Box::new(Child {
        id,
        ike: turn.link.id,
        rekeys: new.rekeys,
        initiator: new.initiator,
        cipher: new.choice.cipher,
        spi_in: new.spi_in,
        spi_out: new.spi_out,
        key_in: new.key_in,
        key_out: new.key_out,
        esn: new.choice.esn,
        mode: new.mode,
        local: new.local,
        remote: new.remote,
        envelope: new.envelope,
    })));
    id
}

/// Takes a child out and says so.
pub(crate) fn child_down(
    established: &mut Established,
    turn: &mut Turn<'_>,
    id: SaId,
    why: End,
) -> Option<Box<ChildSa>> {
    let child = established.children.remove(&id)?;
    turn.shared.children.remove(&id);
    turn.shared.unname_child(child.spi_out, turn.link.counted, id);
    turn.drop_esp_spi(child.spi_in);
    turn.shared.event(Event::ChildDown { sa: id, why });
    Some(child)
}

/// The peer is at another address: what it says of its SPIs comes from there.
pub(crate) fn follow_peer(established: &Established, turn: &mut Turn<'_>, before: IpAddr) {
    let now = turn.link.counted;
    for (id, child) in established.children.iter().filter(|_| before != now) {
        turn.shared.move_child(child.spi_out, (before, now), *id);
    }
}

/// When a life that should have been renewed ends for good: a fifth later.
pub(crate) fn hard_life(life: Duration) -> Duration {
    life.saturating_add(life / 5)
}
