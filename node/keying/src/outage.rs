//! An established peer does not answer. Either it has lost what we have in common, and waits to be
//! called; or the way to it is lost, and will be there again. Nobody can tell which, so both are
//! provided for: what there is stays for as long as the IKE machine is patient, and beside it the
//! peer is called anew. The call that is answered takes over, and an answer under the old IKE SA
//! takes back the call.
//!
//! So a peer that restarted is back as soon as if the old one had been given up at once, and an
//! outage costs nobody his pair, nor leads to what a policy says of peers that are silent.

use std::time::Instant;

use dnskeys::Name;
use ike::{Credential, End, IkeId};
use sa::{Flow, SaId};

use crate::entry::Asker;
use crate::keying::Keying;
use crate::report::What;
use crate::undecided::MAX_PENDING;

impl Keying {
    /// A request under this IKE SA is unanswered for as long as a call may be, or for longer.
    pub(crate) fn unanswered(&mut self, now: Instant, ike: IkeId) {
        let Some(peer) = self.peers.get_mut(&ike).filter(|peer| !peer.closing) else { return };
        let before = std::mem::replace(&mut peer.unanswered, true);
        let (gateway, connection) = (peer.gateway, peer.connection);
        let waiting = std::mem::take(&mut peer.waiting);
        let pairs: Vec<SaId> = peer.pairs.iter().copied().collect();
        let nameless = *peer.verified.credential() == Credential::Null;
        self.silences.note(now, gateway);
        // A child for these was asked for: it would come too late.
        for flow in waiting {
            self.call_again(now, flow, End::Timeout);
        }
        // Of whom nothing is published nobody can be called beside: its flows begin anew.
        if nameless || self.is_outlived(ike) {
            return self.close_ike(now, ike);
        }
        if !before {
            self.report(now, self.flow_of_any(&pairs), What::Silent { gateway });
        }
        match connection {
            Some(index) if self.carries_connection(index, ike) => self.connect_anew(now, index),
            Some(_) => {}
            None => self.call_beside(pairs),
        }
    }

    /// Whether a peer does not answer and everything that it carries has been replaced: one after the
    /// other would wait for an answer.
    pub(crate) fn is_outlived(&self, ike: IkeId) -> bool {
        let doomed = |sa: &SaId| match self.pairs.get(sa) {
            Some(pair) => pair.doomed && self.current(pair.flow) != Some(*sa),
            None => self.is_doomed_joint(*sa),
        };
        self.peers.get(&ike).is_some_and(|peer| {
            peer.unanswered && peer.waiting.is_empty() && peer.pairs.iter().all(doomed)
        })
    }

    /// Whether what a connection is sent on is under this IKE SA.
    fn carries_connection(&self, index: usize, ike: IkeId) -> bool {
        let configured = self.configured.get(index);
        configured.is_some_and(|c| c.in_use().any(|(_, pair)| pair.ike == ike))
    }

    /// The peer answers under this IKE SA: it has not lost it.
    pub(crate) fn answers_again(&mut self, now: Instant, ike: IkeId) {
        let Some(peer) = self.peers.get_mut(&ike) else { return };
        self.silences.answered(peer.gateway);
        if !std::mem::take(&mut peer.unanswered) || peer.closing {
            return;
        }
        let (gateway, connection) = (peer.gateway, peer.connection);
        let pairs: Vec<SaId> = peer.pairs.iter().copied().collect();
        self.report(now, self.flow_of_any(&pairs), What::AnswersAgain { gateway });
        if let Some(index) = connection {
            if self.carries_connection(index, ike) {
                self.withdraw_connection_calls(now, index);
            }
            return;
        }
        for sa in pairs {
            if let Some(flow) = self.pairs.get(&sa).map(|pair| pair.flow)
                && self.current(flow) == Some(sa)
            {
                self.withdraw_calls(now, flow, sa);
            }
        }
    }

    /// A flow that is told of for all.
    fn flow_of_any(&self, pairs: &[SaId]) -> Option<Flow> {
        pairs.first().and_then(|sa| self.pairs.get(sa)).map(|pair| pair.flow)
    }

    /// Calls for the flows that are sent on these pairs. Whom to call DNS says, and by which keys it
    /// is known now.
    pub(crate) fn call_beside(&mut self, pairs: Vec<SaId>) {
        for sa in pairs {
            let Some(flow) = self.pairs.get(&sa).map(|pair| pair.flow) else { continue };
            let called = self.calls.of(flow).next().is_some();
            let ours = self.group_of_flow(flow).initiates();
            // The others next time: a lost uplink is all peers at once, and who waits for a first
            // answer comes before them.
            if self.asked.ours() >= MAX_PENDING / 2 {
                return;
            }
            if self.current(flow) == Some(sa) && ours && !called {
                self.ask(Name::reverse(flow.dst()), Asker::Elsewhere(flow));
            }
        }
    }
}
