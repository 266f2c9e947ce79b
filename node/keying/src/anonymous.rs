//! Peers that prove nothing (RFC 7619): opportunism where nothing is published, one step above
//! clear text and one below everything else.
//!
//! An anonymous peer may have the address that it is at, and only where nobody could prove to have
//! it: as soon as a key is published there, it has to be shown. Whoever is on the way may be that
//! peer; eavesdroppers are shut out, and nobody else. It never takes anything from a pair whose
//! peer has proved something, and its INITIAL_CONTACT ends nobody else's (RFC 7619 §2.3).

use std::net::IpAddr;
use std::time::{Duration, Instant};

use dnskeys::{Answer, Candidate, Name, Reason, Refusal, Strictness};
use ike::{Assigned, Credential, Grant, Identity, IkeId, NeedPeer, PeerVerdict};
use sa::{Flow, Trust};

use crate::config::NullAuth;
use crate::entry::{Pending, Visit, Visitor};
use crate::keying::Keying;
use crate::report::Why;

/// A call to a destination for which nothing is published.
pub(crate) fn pending(flow: Flow, answer: &Answer, until: Instant) -> Pending {
    let itself = Candidate { precedence: 0, gateway: flow.dst(), keys: Vec::new() };
    Pending {
        candidates: [itself].into(),
        gateway: None,
        evidence: vec![answer.clone()],
        security: answer.security,
        until,
        ends: Vec::new(),
        called_again: false,
        anew: false,
        behind_nat: false,
        spoilt: None,
        anonymous: true,
    }
}

impl Keying {
    /// A destination for which nothing is published did not answer, or will not talk to somebody
    /// anonymous: it is treated as if it had not been called.
    pub(crate) fn nobody_there(&mut self, now: Instant, flow: Flow, life: Duration) {
        let why = Why::Dns(Reason::NoRecord);
        match self.group_of_flow(flow).strictness() {
            Strictness::Permissive => {
                self.nothing_published(flow);
                self.clear_text(now, flow, why, life);
            }
            Strictness::Paranoid => self.go_deny(now, flow, why, life),
        }
    }

    /// The address that an anonymous stranger may want: the one it is at, and no other.
    pub(crate) fn anonymous_claim(&self, need: &NeedPeer) -> Option<IpAddr> {
        let address = need.remote.ip();
        let wanted = need.remote_selectors.iter().any(|selector| selector.contains(address));
        let welcome = self.config.null_auth != NullAuth::Never;
        // Behind a NAT its address is not its own.
        (welcome && wanted && !need.peer_natted).then_some(address)
    }

    /// What is published for an anonymous stranger's address is known.
    pub(crate) fn judge_anonymous(&mut self, now: Instant, visitor: &Visitor, ours: IpAddr) {
        let need = &visitor.need;
        let address = need.remote.ip();
        let own = visitor.answers.get(&Name::reverse(address)).and_then(Option::as_ref);
        // To hosts behind us nobody anonymous is let through.
        let own = own.filter(|_| self.config.addresses.contains(&ours));
        let proof = own.map_or(Err(Refusal::NoEvidence), |answer| {
            let strict = Strictness::Permissive;
            dnskeys::admit_anonymous(address, answer, &self.config.rules, strict)
        });
        // Where something has to be shown, they have no place.
        let (local, remote) = self.granted(ours, address, Strictness::Permissive);
        let proof = proof.and_then(|proof| match local.is_empty() {
            true => Err(Refusal::Unsigned),
            false => Ok(proof),
        });
        let better = Flow::new(ours, address)
            .and_then(|flow| self.current(flow))
            .and_then(|sa| self.pairs.get(&sa))
            .is_some_and(|pair| pair.trust > Trust::Anonymous);
        let proof = match proof {
            Ok(proof) if !better => proof,
            Ok(_) => return self.refuse(now, need, Why::Authority(Refusal::Published)),
            Err(why) => return self.refuse(now, need, Why::Authority(why)),
        };
        let called = need.local.ip();
        let proofs = vec![(Credential::Null, proof)];
        self.visits.insert(need.ike, Visit { local: called, gateway: address, proofs });
        // Who wants to know with whom it talks is told.
        let identity = match &need.wanted {
            None | Some(Identity::Null) => Identity::Null,
            Some(_) => self.config.identity.clone().unwrap_or(Identity::Address(called)),
        };
        let grants = vec![Grant {
            key: Credential::Null,
            remote,
            local,
            transport: true,
            assigned: Assigned::Nothing,
        }];
        self.ike.handle_peer(now, need.ike, PeerVerdict::Known { identity, grants });
    }

    /// The proof for an anonymous peer that we called.
    pub(crate) fn prove_anonymous(&mut self, flow: Flow, ike: IkeId, evidence: &[Answer]) -> bool {
        let strict = self.group_of_flow(flow).strictness();
        let Some(peer) = self.peers.get_mut(&ike) else { return false };
        if peer.gateway != flow.dst() {
            return false;
        }
        let admit = |answer: &Answer| {
            dnskeys::admit_anonymous(flow.dst(), answer, &self.config.rules, strict).ok()
        };
        let Some(proof) = evidence.iter().find_map(admit) else { return false };
        peer.proofs = vec![proof];
        true
    }
}
