//! Calls that a person asks for (`oe-node call`): all that a first packet would set off, without one.

use std::fmt;
use std::net::IpAddr;
use std::time::Instant;

use sa::Flow;

use crate::connection::{Configured, ConnectionState, Start};
use crate::entry::State;
use crate::explain::NextPacket;
use crate::group::Group;
use crate::keying::Keying;

/// Why no packet of a flow would have us call anybody.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NoCall {
    /// The destination is an address of ours.
    Own,
    /// The source is neither ours nor that of a host behind us.
    Source(IpAddr),
    /// The destination is in this group, which calls nobody.
    Group(Group),
    /// It belongs to this connection, whose peer calls (`start = "accept"`).
    Accepts(String),
}

impl fmt::Display for NoCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own => f.write_str("the address is one of this host"),
            Self::Source(address) => {
                write!(f, "{address} is neither an address of this host nor one that it serves")
            }
            Self::Group(group) => write!(f, "its group is {}: nobody is called", group.name()),
            Self::Accepts(name) => {
                write!(f, "connection {name} has start = \"accept\": its peer has to call")
            }
        }
    }
}

impl Keying {
    /// Calls whoever is responsible for a flow, as its first packet would. A flow that is encrypted
    /// stays as it is, and so does a connection that is up; what was decided otherwise is asked anew,
    /// of the source too. [`Self::next_packet_of`] says when it is done.
    ///
    /// # Errors
    /// If no packet of this flow would have us call anybody.
    pub fn call_by_hand(&mut self, now: Instant, flow: Flow) -> Result<(), NoCall> {
        if self.config.addresses.contains(&flow.dst()) {
            return Err(NoCall::Own);
        }
        let connections = self.connections_of(flow);
        if connections.is_empty() {
            self.call_for_flow(now, flow)?;
        } else {
            self.call_for_connections(now, &connections)?;
        }
        self.drain(now);
        Ok(())
    }

    fn call_for_flow(&mut self, now: Instant, flow: Flow) -> Result<(), NoCall> {
        let decided = match self.flows.get(&flow).map(|entry| &entry.state) {
            Some(State::Keyed { .. }) => return Ok(()),
            Some(State::ClearText(_) | State::Deny(_)) => true,
            Some(State::PotentialOe | State::PendingOe(_)) | None => false,
        };
        let source = flow.src();
        if !self.config.addresses.contains(&source) && !self.serves(source) {
            return Err(NoCall::Source(source));
        }
        let group = self.group_of_flow(flow);
        if !group.initiates() {
            return Err(NoCall::Group(group));
        }
        if decided {
            // What there was to say against its source may be of yesterday too.
            self.clients.remove(&source);
            if self.own.get(&source).is_some_and(|own| !own.is_open()) {
                self.own.remove(&source);
            }
            self.close_flow(now, flow);
        }
        self.acquire(now, flow, flow);
        Ok(())
    }

    fn call_for_connections(&mut self, now: Instant, connections: &[usize]) -> Result<(), NoCall> {
        let down =
            |c: &Configured| matches!(c.state, ConnectionState::Idle | ConnectionState::Failed);
        let accepts = |c: &Configured| down(c) && c.connection.start == Start::Accept;
        let all: Vec<&Configured> =
            connections.iter().filter_map(|index| self.configured.get(*index)).collect();
        if let Some(last) = all.last().filter(|_| all.iter().all(|c| accepts(c))) {
            return Err(NoCall::Accepts(last.connection.name.clone()));
        }
        for index in connections {
            // For its subnets as they are: a peer that grants single ports cannot be asked for more of
            // them on account of no port.
            if self.configured.get(*index).is_some_and(|c| down(c) && !accepts(c)) {
                self.connect(now, *index);
            }
        }
        Ok(())
    }

    /// What happens to packets of this flow now: [`NextPacket::Held`] as long as something is under
    /// way that decides it, [`NextPacket::Asked`] if nothing is known or under way. Of a connection
    /// that its peer has granted for single ports: to those that are granted between these hosts.
    #[must_use]
    pub fn next_packet_of(&self, flow: Flow) -> NextPacket {
        let connections = self.connections_of(flow);
        if connections.is_empty() {
            let state = self.flows.get(&flow).map(|entry| &entry.state);
            return NextPacket::by_state(state, self.group_of_flow(flow));
        }
        let all = || connections.iter().filter_map(|index| self.configured.get(*index));
        let carries = all().any(|c| c.carries_some_of(flow));
        NextPacket::by_connection(carries, all().any(Configured::may_come_up))
    }
}
