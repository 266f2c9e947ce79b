//! Why a destination is treated as it is, for a person who asks (`oe-node explain`).

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use dnskeys::{Answer, Refusal};
use ike::End;
use sa::{Flow, Ports, Prefix};

use crate::entry::State;
use crate::group::{File, Group, Listed};
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

/// A rule for single ports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortRule {
    /// Destinations.
    pub prefix: Prefix,
    /// Protocol and ports.
    pub ports: Ports,
    /// The name of their group.
    pub group: String,
    /// File and line, if one says so.
    pub place: Option<(String, usize)>,
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
    /// The group's name and the file that lists it.
    pub place: Option<File>,
    /// Rules for single ports that it may fall under, the most decisive first.
    pub port_rules: Vec<PortRule>,
    /// The configured connection that it belongs to, from the first of our addresses that has one.
    pub connection: Option<String>,
    /// What DNS last said of it, of gateways that its record names without a key, and of hosts behind
    /// us that talk to it; and how long that still stands.
    pub answers: Vec<(Answer, Duration)>,
    /// The gateways called since the last decision, and how each ended; `None` if it has not. For the
    /// source that [`Self::next`] is about, as is [`Self::history`].
    pub gateways: Vec<(IpAddr, Option<End>)>,
    /// Why responders that ask DNS would refuse us, by our own address or that of a host behind us.
    pub own: Vec<(IpAddr, Refusal)>,
    /// What would happen to the next packet: from an address of our own, if one has talked to it.
    /// [`Self::destinations`] has all who have.
    pub next: NextPacket,
    /// How it stands, for each source address that has talked to it.
    pub destinations: Vec<Destination>,
    /// What happened, how long ago, oldest first.
    pub history: Vec<(Duration, What)>,
}

impl NextPacket {
    /// As a configured connection stands: whether it carries the packet, or may soon.
    pub(crate) fn by_connection(carries: bool, may_come_up: bool) -> Self {
        match (carries, may_come_up) {
            (true, _) => Self::Encrypted,
            (false, true) => Self::Held,
            (false, false) => Self::Refused,
        }
    }

    /// As a flow stands, or its destination's group if nothing is known of it.
    pub(crate) fn by_state(state: Option<&State>, group: Group) -> Self {
        match state {
            Some(State::PotentialOe | State::PendingOe(_) | State::Keyed { quiet: true, .. }) => {
                Self::Held
            }
            Some(State::Keyed { .. }) => Self::Encrypted,
            Some(State::ClearText(_)) => Self::Clear,
            Some(State::Deny(_)) => Self::Refused,
            None if group.initiates() => Self::Asked,
            None if group == Group::Block => Self::Refused,
            None => Self::Clear,
        }
    }
}

impl Keying {
    /// Explains an address.
    #[must_use]
    pub fn explain(&self, now: Instant, address: IpAddr) -> Explanation {
        let group = self.group_of(address);
        let of_address = self.flows.iter().filter(|(flow, _)| flow.dst() == address);
        // From an address of our own rather than from a host behind us.
        let entry = of_address.min_by_key(|(flow, _)| !self.config.addresses.contains(&flow.src()));
        let by_connection = self
            .connection_to(address)
            .map(|c| NextPacket::by_connection(c.current.is_some(), c.may_come_up()));
        let by_flow = NextPacket::by_state(entry.map(|(_, entry)| &entry.state), group);
        let files = &self.config.groups;
        let file_of = |listed: Listed| listed.file.and_then(|number| files.file(number));
        let place = files.listed(address).and_then(|(_, listed)| file_of(listed).cloned());
        let port_rules = files.port_rules(address).map(|(prefix, ports, listed)| {
            let place = file_of(listed).map(|file| file.path.clone()).zip(listed.line);
            PortRule { prefix, ports, group: files.name_of(listed).to_owned(), place }
        });
        let of_address = self.flows.iter().filter(|(flow, _)| flow.dst() == address);
        let mut answers: Vec<(Answer, Duration)> = Vec::new();
        for (at, said) in of_address.flat_map(|(_, entry)| &entry.answers) {
            if answers.iter().all(|(known, _)| known.owner != said.owner) {
                let left = said.ttl.saturating_sub(now.saturating_duration_since(*at));
                answers.push((said.clone(), left));
            }
        }
        let own = self.config.addresses.iter().filter(|a| a.is_ipv4() == address.is_ipv4());
        let connection = own.clone().find_map(|ours| {
            let index = *self.connections_of(Flow::new(*ours, address)?).first()?;
            Some(self.configured.get(index)?.connection.name.clone())
        });
        let connection =
            connection.or_else(|| Some(self.connection_to(address)?.connection.name.clone()));
        let own = own.filter_map(|ours| Some((*ours, self.own_refusal(*ours)?)));
        let sources: BTreeSet<IpAddr> =
            self.flows.keys().filter(|flow| flow.dst() == address).map(|flow| flow.src()).collect();
        let clients = sources
            .into_iter()
            .filter_map(|source| Some((source, self.client(now, source)?.gateway.err()?)));
        let next = if self.config.addresses.contains(&address) {
            NextPacket::Own
        } else {
            by_connection.unwrap_or(by_flow)
        };
        let ago = |at: Instant| now.saturating_duration_since(at);
        let history = entry.map(|(_, entry)| entry.story()).unwrap_or_default();
        Explanation {
            address,
            listed: self.config.groups.listed(address),
            group,
            place,
            port_rules: port_rules.collect(),
            connection,
            answers,
            gateways: entry.map(|(_, entry)| gateways(&entry.history)).unwrap_or_default(),
            own: own.chain(clients).collect(),
            next,
            destinations: self.destinations_to(now, address),
            history: history.into_iter().map(|(at, what)| (ago(at), what)).collect(),
        }
    }
}

/// Who was called since DNS last answered, and how each call ended.
fn gateways(history: &VecDeque<(Instant, What)>) -> Vec<(IpAddr, Option<End>)> {
    let mut called: Vec<(IpAddr, Option<End>)> = Vec::new();
    for (_, what) in history {
        match what {
            What::Calling { gateway } => called.push((*gateway, None)),
            What::GatewayEnded { gateway, why } => {
                match called.iter_mut().rev().find(|(called, _)| called == gateway) {
                    Some(call) => call.1 = Some(*why),
                    None => called.push((*gateway, Some(*why))),
                }
            }
            What::Trapped => called.clear(),
            _ => {}
        }
    }
    called
}
