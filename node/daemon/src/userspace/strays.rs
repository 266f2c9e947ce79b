//! ESP on its way to the packet thread by a detour: the kernel joins datagrams of one sender before
//! it knows whose they are, so that ESP can arrive behind an IKE message at IKE's socket.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::sys::Wake;

/// One packet of ESP in UDP.
pub(super) struct Stray {
    pub(super) remote: SocketAddr,
    pub(super) tos: u8,
    pub(super) octets: Vec<u8>,
}

/// Where they go in.
pub(super) struct Strays {
    into: SyncSender<Stray>,
    wake: Arc<Wake>,
    lost: Cell<u64>,
}

impl Strays {
    /// An entry, which wakes the thread, and its other end.
    pub(super) fn new(wake: Arc<Wake>) -> (Self, Receiver<Stray>) {
        let (into, out) = sync_channel(ROOM);
        (Self { into, wake, lost: Cell::new(0) }, out)
    }

    /// Puts one in. When there are too many it is lost, as it might have been on the way.
    pub(super) fn put(&self, stray: Stray) {
        if self.into.try_send(stray).is_ok() {
            self.wake.wake();
        } else {
            self.lost.update(|lost| lost + 1);
        }
    }

    /// How many were lost.
    pub(super) fn lost(&self) -> u64 {
        self.lost.get()
    }
}

/// More than one receive can hold of packets of ordinary size.
const ROOM: usize = 256;
