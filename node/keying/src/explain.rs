//! Why a destination is treated as it is, for a person who asks (`oe-node explain`).

use std::net::IpAddr;
use std::time::{Duration, Instant};

use sa::Prefix;

use crate::entry::State;
use crate::group::{Group, Listed};
use crate::keying::Keying;
use crate::report::What;
use crate::status::Destination;

/// What would happen to the next packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NextPacket {
    /// It never leaves this host.
    Own,
    /// In the clear, unseen by us.
    Clear,
    /// Nothing.
    Refused,
    /// It is held, and DNS is asked.
    Asked,
    /// It is held until what is under way is decided.
    Held,
    /// Through ESP.
    Encrypted,
}

/// Everything that is known of one address, in the order in which it came about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    /// The address.
    pub address: IpAddr,
    /// The prefix that decides its group, and where that is written; `None` if nothing covers it.
    pub listed: Option<(Prefix, Listed)>,
    /// Its group.
    pub group: Group,
    /// What would happen to the next packet.
    pub next: NextPacket,
    /// How it stands, for each source address that has talked to it.
    pub destinations: Vec<Destination>,
    /// What happened, how long ago, oldest first.
    pub history: Vec<(Duration, What)>,
}

impl Keying {
    /// Explains an address.
    #[must_use]
    pub fn explain(&self, now: Instant, address: IpAddr) -> Explanation {
        let group = self.group_of(address);
        let entry = self.flows.iter().find(|(flow, _)| flow.dst() == address);
        let next = match entry.map(|(_, entry)| &entry.state) {
            _ if self.config.addresses.contains(&address) => NextPacket::Own,
            Some(State::PotentialOe | State::PendingOe(_) | State::Keyed { quiet: true, .. }) => {
                NextPacket::Held
            }
            Some(State::Keyed { .. }) => NextPacket::Encrypted,
            Some(State::ClearText(_)) => NextPacket::Clear,
            Some(State::Deny(_)) => NextPacket::Refused,
            None if group.initiates() => NextPacket::Asked,
            None if group == Group::Block => NextPacket::Refused,
            None => NextPacket::Clear,
        };
        let ago = |at: Instant| now.saturating_duration_since(at);
        let history = entry.map(|(_, entry)| entry.history.iter());
        Explanation {
            address,
            listed: self.config.groups.listed(address),
            group,
            next,
            destinations: self
                .destinations(now)
                .into_iter()
                .filter(|d| d.destination == address)
                .collect(),
            history: history
                .into_iter()
                .flatten()
                .map(|(at, what)| (ago(*at), what.clone()))
                .collect(),
        }
    }
}
