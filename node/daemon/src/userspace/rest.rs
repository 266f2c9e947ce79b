//! Whether the packet thread sleeps, and over what: who gives it orders wakes it only if it must.

use std::sync::atomic::{AtomicU8, Ordering, fence};

/// What the packet thread does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Resting {
    /// It works, and looks for orders before it sleeps.
    Awake,
    /// It sleeps and holds no packets; before it looks at the next packet it looks for orders.
    Empty,
    /// It sleeps over packets that somebody has to decide about.
    Holding,
}

/// Shared by the thread and those who give it orders.
///
/// The thread says that it sleeps and looks for orders then; who orders puts the order in its place
/// and looks then whether the thread sleeps. With a fence between the two on either side, one of
/// them sees what the other did.
#[derive(Debug, Default)]
pub(super) struct Rest(AtomicU8);

impl Rest {
    /// The thread is about to sleep. It looks for orders once more after this.
    pub(super) fn rest(&self, holding: bool) {
        self.0.store(if holding { HOLDING } else { EMPTY }, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The thread works again.
    pub(super) fn awake(&self) {
        self.0.store(AWAKE, Ordering::Relaxed);
    }

    /// What the thread does, as one who has just given an order is to believe.
    pub(super) fn look(&self) -> Resting {
        fence(Ordering::SeqCst);
        match self.0.load(Ordering::Relaxed) {
            HOLDING => Resting::Holding,
            EMPTY => Resting::Empty,
            _ => Resting::Awake,
        }
    }
}

const AWAKE: u8 = 0;
const EMPTY: u8 = 1;
const HOLDING: u8 = 2;
