//! What a person is shown of each destination.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ike::Identity;
use sa::{EspCipher, Flow, Spi, Trust, Use};

use crate::entry::{Entry, State};
use crate::group::Group;
use crate::keying::Keying;
use crate::report::Why;

/// RFC 4322 §3.2's states, by their names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum StateName {
    /// DNS is being asked.
    PotentialOe,
    /// A gateway is being called.
    PendingOe,
    /// Encrypted.
    Keyed,
    /// In the clear.
    ClearText,
    /// Nothing passes.
    Deny,
}

impl StateName {
    /// As printed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PotentialOe => "potential-oe",
            Self::PendingOe => "pending-oe",
            Self::Keyed => "keyed",
            Self::ClearText => "clear-text",
            Self::Deny => "deny",
        }
    }
}

/// One destination.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Destination {
    /// Our address.
    pub source: IpAddr,
    /// Its address.
    pub destination: IpAddr,
    /// Protocol and ports, if a rule for single ports made it a flow of its own.
    pub ports: sa::Ports,
    /// The policy group it falls in.
    pub group: Group,
    /// Where it stands.
    pub state: StateName,
    /// How much is known of its gateway; `None` unless keyed.
    pub trust: Option<Trust>,
    /// Its gateway, if one is keyed or being called.
    pub gateway: Option<IpAddr>,
    /// Who the gateway is.
    pub identity: Option<Identity>,
    /// The address that the gateway has given us, behind a NAT: by this the destination knows us.
    pub known_as: Option<IpAddr>,
    /// Why it is clear or denied.
    pub reason: Option<Why>,
    /// For how long it has been in the clear although it can be encrypted to, as far as anybody
    /// knows: its records name a gateway, or it had a pair before, and something failed or did not
    /// answer. `None` if nobody could do better, or if it is not in the clear.
    pub downgraded: Option<Duration>,
    /// How long it has been so.
    pub since: Duration,
    /// When it will be looked at again.
    pub expires: Option<Duration>,
    /// SPI of packets to us.
    pub spi_in: Option<Spi>,
    /// SPI of packets to it.
    pub spi_out: Option<Spi>,
    /// The cipher.
    pub cipher: Option<EspCipher>,
    /// Tunnel or transport.
    pub mode: Option<sa::Mode>,
    /// How the keys of the IKE SA above it were agreed on.
    pub key_exchange: Option<&'static str>,
    /// Pairs that exist for it; more than one while one replaces another.
    pub pairs: usize,
    /// How its pair is used, as last asked.
    pub used: Use,
}

/// The other end of an established IKE SA.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerView {
    /// Who it is.
    pub identity: Identity,
    /// Its outer address, once it has a pair or was called.
    pub gateway: Option<IpAddr>,
    /// The configured connection that it carries.
    pub connection: Option<String>,
    /// Whether we called.
    pub initiator: bool,
    /// For how long it has been established.
    pub since: Duration,
    /// The inner addresses it may speak for.
    pub speaks_for: Vec<IpAddr>,
    /// Its pairs.
    pub pairs: usize,
    /// Whether it answers, as far as it was asked.
    pub answers: bool,
    /// How its IKE SA's keys were agreed on, as `x25519+mlkem768`.
    pub key_exchange: Option<&'static str>,
}

impl Keying {
    /// Every peer, in the order in which they came.
    #[must_use]
    pub fn peers(&self, now: Instant) -> Vec<PeerView> {
        let view = |(ike, peer): (&ike::IkeId, &crate::entry::Peer)| PeerView {
            identity: peer.verified.identity().clone(),
            gateway: Some(peer.gateway).filter(|gateway| !gateway.is_unspecified()),
            connection: peer
                .connection
                .and_then(|index| self.configured.get(index))
                .map(|configured| configured.connection.name.clone()),
            initiator: peer.initiator,
            since: now.saturating_duration_since(peer.established),
            speaks_for: peer.proofs.iter().map(dnskeys::Authorized::address).collect(),
            pairs: peer.pairs.len(),
            answers: !peer.unanswered,
            key_exchange: self.ike.key_exchange(*ike),
        };
        self.peers.keys().zip(self.peers.values()).map(view).collect()
    }

    /// Every destination, in order of address.
    #[must_use]
    pub fn destinations(&self, now: Instant) -> Vec<Destination> {
        self.flows.iter().map(|(flow, entry)| self.describe(now, *flow, entry)).collect()
    }

    /// The same of one address, for each source that has talked to it.
    pub(crate) fn destinations_to(&self, now: Instant, address: IpAddr) -> Vec<Destination> {
        let to = self.flows.iter().filter(|(flow, _)| flow.dst() == address);
        to.map(|(flow, entry)| self.describe(now, *flow, entry)).collect()
    }

    fn describe(&self, now: Instant, flow: Flow, entry: &Entry) -> Destination {
        let (state, reason, pair) = match &entry.state {
            State::PotentialOe => (StateName::PotentialOe, None, None),
            State::PendingOe(_) => (StateName::PendingOe, None, None),
            State::Keyed { current, .. } => (StateName::Keyed, None, self.pairs.get(current)),
            State::ClearText(why) => (StateName::ClearText, Some(*why), None),
            State::Deny(why) => (StateName::Deny, Some(*why), None),
        };
        let peer = pair.and_then(|pair| self.peers.get(&pair.ike));
        Destination {
            source: flow.src(),
            destination: flow.dst(),
            ports: flow.ports(),
            group: entry.group,
            state,
            trust: pair.map(|pair| pair.trust),
            gateway: self.gateway_of(flow),
            identity: peer.map(|peer| peer.verified.identity().clone()),
            known_as: peer
                .and_then(|peer| peer.inside(flow))
                .map(|inside| inside.src())
                .filter(|src| *src != flow.src()),
            reason,
            downgraded: entry.downgraded_in_clear().map(|at| now.saturating_duration_since(at)),
            since: now.saturating_duration_since(entry.since),
            expires: entry.deadline.map(|at| at.saturating_duration_since(now)),
            spi_in: pair.map(|pair| pair.spi_in),
            spi_out: pair.map(|pair| pair.spi_out),
            cipher: pair.map(|pair| pair.cipher),
            mode: pair.map(|pair| pair.mode),
            key_exchange: pair.and_then(|pair| self.ike.key_exchange(pair.ike)),
            pairs: self.pairs_of(flow).count(),
            used: pair.map(|pair| pair.used).unwrap_or_default(),
        }
    }
}
