//! Every IKE SA of a node as one machine.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use sa::SaId;

use crate::api::{ChildRequest, Config, Datagram, IkeId, Initiate, Output, PeerVerdict, Timer};

/// Every IKE SA of a node.
#[derive(Debug)]
pub struct Ike {
    config: Config,
    outputs: VecDeque<Output>,
    counters: Counters,
    next_id: u64,
}

/// What has passed through, since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// IKE messages received.
    pub messages_in: u64,
    /// IKE messages sent, retransmissions included.
    pub messages_out: u64,
}

impl Ike {
    /// A node without SAs. The seed feeds every random number the machine will ever use.
    #[must_use]
    pub fn new(config: Config, _seed: [u8; 32], _now: Instant) -> Self {
        Self { config, outputs: VecDeque::new(), counters: Counters::default(), next_id: 1 }
    }

    /// Takes a datagram from the network.
    pub fn handle_datagram(&mut self, _now: Instant, _datagram: Datagram<'_>) {
        self.counters.messages_in += 1;
    }

    /// Answers [`Output::NeedPeer`].
    pub fn handle_peer(&mut self, _now: Instant, _ike: IkeId, _verdict: PeerVerdict) {}

    /// Answers [`Output::Sign`]; `None` if our key could not sign.
    pub fn handle_signature(&mut self, _now: Instant, _ike: IkeId, _signature: Option<Vec<u8>>) {}

    /// An authenticated ESP packet of this pair came from a new outer address.
    pub fn handle_moved(&mut self, _now: Instant, _sa: SaId, _remote: SocketAddr) {}

    /// Calls a peer.
    pub fn initiate(&mut self, _now: Instant, _initiate: Initiate) -> IkeId {
        let _ = &self.config;
        let id = IkeId(self.next_id);
        self.next_id += 1;
        id
    }

    /// Asks for another child under an IKE SA.
    pub fn create_child(&mut self, _now: Instant, _ike: IkeId, _child: ChildRequest) {}

    /// Replaces a child pair.
    pub fn rekey_child(&mut self, _now: Instant, _sa: SaId) {}

    /// Replaces an IKE SA; its [`IkeId`] stays.
    pub fn rekey_ike(&mut self, _now: Instant, _ike: IkeId) {}

    /// Asks whether the peer lives.
    pub fn probe(&mut self, _now: Instant, _ike: IkeId) {}

    /// Deletes a child pair.
    pub fn close_child(&mut self, _now: Instant, _sa: SaId) {}

    /// Deletes an IKE SA and its children.
    pub fn close(&mut self, _now: Instant, _ike: IkeId) {}

    /// Tells every peer that we go.
    pub fn shutdown(&mut self, _now: Instant) {}

    /// Does what is due. Early or repeated calls are harmless.
    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// The next deadline.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        None
    }

    /// The next thing to do, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// What has passed through.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }
}
