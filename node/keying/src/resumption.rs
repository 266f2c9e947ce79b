//! Coming back to gateways with the tickets that they gave us (RFC 5723).
//!
//! A ticket replaces signatures and nothing else: which gateway may be called, and by which of its
//! keys, has been found in DNS before one is looked for here; and the gateway asks DNS about us.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ike::{Credential, IkeId, Initiate, NodeSecret, Ticket};

use crate::keying::{Keying, Output};

/// A ticket, for whom it is, and for how long it is good. A secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeptTicket {
    /// Who gave it.
    pub gateway: IpAddr,
    /// The key that it proved itself with ([`ike::PublicKey::digest`]).
    pub key: [u8; 32],
    /// The ticket.
    pub ticket: Ticket,
    /// How long it is good.
    pub life: Duration,
}

/// Tickets by gateway and key, each with its end.
pub(crate) type Tickets = BTreeMap<(IpAddr, [u8; 32]), (Instant, Ticket)>;

impl Keying {
    /// Calls, with a ticket if there is one for any of the keys that will do.
    pub(crate) fn call(&mut self, now: Instant, initiate: Initiate) -> IkeId {
        for credential in &initiate.keys {
            let Credential::Key(key) = credential else { continue };
            // Once, whatever comes of it.
            let kept = self.tickets.remove(&(initiate.remote, key.digest()));
            if let Some((until, ticket)) = kept
                && until > now
            {
                let key = key.clone();
                return self.ike.resume(now, initiate, &ticket, key);
            }
        }
        self.ike.initiate(now, initiate)
    }

    /// A gateway has given us a ticket.
    pub(crate) fn ticket_given(
        &mut self,
        now: Instant,
        ike: IkeId,
        ticket: Ticket,
        life: Duration,
    ) {
        let Some(peer) = self.peers.get(&ike) else { return };
        let Credential::Key(key) = peer.verified.credential() else { return };
        let kept = KeptTicket { gateway: peer.gateway, key: key.digest(), ticket, life };
        self.handle_ticket(now, kept.clone());
        self.outputs.push_back(Output::Ticket(kept));
    }

    /// A ticket that was kept over a restart.
    pub fn handle_ticket(&mut self, now: Instant, kept: KeptTicket) {
        if self.tickets.len() >= MAX_TICKETS {
            self.tickets.retain(|_, (until, _)| *until > now);
        }
        if self.tickets.len() < MAX_TICKETS {
            let KeptTicket { gateway, key, ticket, life } = kept;
            self.tickets.insert((gateway, key), (now + life, ticket));
        }
    }

    /// Every ticket that has not been used.
    #[must_use]
    pub fn tickets(&self, now: Instant) -> Vec<KeptTicket> {
        let kept = self.tickets.iter().filter(|(_, (until, _))| *until > now);
        let kept = kept.map(|((gateway, key), (until, ticket))| KeptTicket {
            gateway: *gateway,
            key: *key,
            ticket: ticket.clone(),
            life: until.saturating_duration_since(now),
        });
        kept.collect()
    }

    /// Our own tickets are sealed with the first of these from now on.
    pub fn set_ticket_keys(&mut self, keys: &[NodeSecret]) {
        self.ike.set_ticket_keys(keys);
    }
}

/// Tickets kept; some 300 octets each.
const MAX_TICKETS: usize = 16_384;
