//! Calls that a person asks for (`oe-node call`): all that a first packet would set off, without one.

use std::fmt;
use std::net::IpAddr;
use std::time::Instant;

use sa::Flow;

use crate::connection::{ConnectionState, Start};
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
    /// stays as it is; what was decided otherwise is asked anew. [`Self::next_packet_of`] says when
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
            self.call_for_connections(now, &connections, flow)?;
        }
        self.drain(now);
        Ok(())
    }

    fn call_for_flow(&mut self, now: Instant, flow: Flow) -> Result<(), NoCall> {
        if !self.config.addresses.contains(&flow.src()) && !self.serves(flow.src()) {
            return Err(NoCall::Source(flow.src()));
        }
        let group = self.group_of_flow(flow);
        if !group.initiates() {
            return Err(NoCall::Group(group));
        }
        let state = self.flows.get(&flow).map(|entry| &entry.state);
        if let Some(State::ClearText(_) | State::Deny(_)) = state {
            self.close_flow(now, flow);
        }
        self.acquire(now, flow, flow);
        Ok(())
    }

    fn call_for_connections(
        &mut self,
        now: Instant,
        connections: &[usize],
        flow: Flow,
    ) -> Result<(), NoCall> {
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
            match state {
                ConnectionState::Failed => self.connect_now(now, index, flow),
                _ => self.connections_wanted(now, &[index], flow),
            }
        }
        Ok(())
    }

    /// What happens to a packet of this flow now: [`NextPacket::Held`] as long as something is under
    /// way that decides it, [`NextPacket::Asked`] if nothing is known or under way.
    #[must_use]
    pub fn next_packet_of(&self, flow: Flow) -> NextPacket {
        let connections = self.connections_of(flow);
        let best = connections.iter().filter_map(|index| self.configured.get(*index));
        let best =
            best.map(|c| (c.state, c.connection.start)).max_by_key(|(state, _)| match state {
                ConnectionState::Up | ConnectionState::Silent => 2,
                ConnectionState::Calling => 1,
                ConnectionState::Idle | ConnectionState::Failed => 0,
            });
        match best {
            Some((state, start)) => NextPacket::by_connection(state, start),
            None => NextPacket::by_state(
                self.flows.get(&flow).map(|entry| &entry.state),
                self.group_of_flow(flow),
            ),
        }
    }
}
