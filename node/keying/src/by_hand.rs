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
    /// of the source too. [`Self::next_packet_of`] says when
    /// it is done.
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
        if let Some(State::Keyed { .. }) = self.flows.get(&flow).map(|entry| &entry.state) {
            return Ok(());
        }
        let source = flow.src();
        if !self.config.addresses.contains(&source) && !self.serves(source) {
            return Err(NoCall::Source(source));
        }
        let group = self.group_of_flow(flow);
        if !group.initiates() {
            return Err(NoCall::Group(group));
        }
        let state = self.flows.get(&flow).map(|entry| &entry.state);
        if let Some(State::ClearText(_) | State::Deny(_)) = state {
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
        let mut accepting = None;
        let mut ours = Vec::new();
        for index in connections {
            let Some(configured) = self.configured.get(*index) else { continue };
            let down = matches!(configured.state, ConnectionState::Idle | ConnectionState::Failed);
            if down && configured.connection.start == Start::Accept {
                accepting = Some(configured.connection.name.clone());
            } else {
                ours.push((*index, configured.state));
            }
        }
        if let Some(name) = accepting.filter(|_| ours.is_empty()) {
            return Err(NoCall::Accepts(name));
        }
        for (index, state) in ours {
            // For its subnets as they are: a peer that grants single ports cannot be asked for more of
            // them on account of no port.
            if let ConnectionState::Idle | ConnectionState::Failed = state {
                self.connect(now, index);
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
        if all().any(|c| c.carries_some_of(flow)) {
            NextPacket::Encrypted
        } else if all().any(Configured::may_come_up) {
            NextPacket::Held
        } else {
            NextPacket::Refused
        }
    }
}
