//! What the planes say to each other: commands down, notices up (RFC 4322 §3.1).
//!
//! One ordered stream each way. Order between kinds matters: the pair is added before the message
//! leaves that lets the peer use it, and before the policy that sends packets into it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::addr::{Flow, Ports, Prefix, Subnets};
use crate::association::{Envelope, SaId, SaPair, Spi};

/// How long traffic may go unanswered before [`Notice::Unanswered`] asks for a liveness check:
/// longer than a slow server's think time, short enough to find a rebooted peer within 15 s.
pub const UNANSWERED: Duration = Duration::from_secs(5);

/// After how long [`Notice::Unanswered`] is said again, if packets still go out and none come in: a
/// peer that was asked and was there may have lost the pair since, or ESP is lost on the way and IKE
/// is not. One question a minute is little where packets go one way only.
pub const UNANSWERED_AGAIN: Duration = Duration::from_secs(60);

/// The same for [`Notice::Doubtful`]: where somebody else could carry the packets, asking costs a
/// message. Longer than a round trip to anywhere.
pub const DOUBTFUL: Duration = Duration::from_millis(700);

/// What happens to packets of a prefix of which nothing else is known: how the ground lies.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    /// Unknown destinations are held and a [`Notice::Acquire`] is sent. With `fail_closed`,
    /// nothing passes when no daemon runs (`private`); otherwise everything does.
    Trap {
        /// Whether the prefix is black-holed when the daemon is gone.
        fail_closed: bool,
    },
    /// Packets pass in the clear without being seen.
    Pass,
    /// Packets are refused.
    Block,
}

/// What happens to packets of one flow (RFC 4322 §3.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Policy {
    /// Keep the first packet and the last few, forward none.
    Hold,
    /// Forward in the clear.
    Pass,
    /// Discard.
    Deny,
    /// Forward through this pair.
    Encrypt(SaId),
}

/// What a flow's policy was made from: whether it says anything of other flows to the same
/// destination. A data plane that cannot tell flows by their source, as a route cannot, opens and
/// closes a destination on account of [`Self::Destination`] alone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum About {
    /// Its destination: whoever else sends there fares the same, until something else is known.
    Destination,
    /// Its source: another's packets to the same destination may be better off.
    Source,
}

/// From keying to the data plane.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Sets the class of a prefix. The longest prefix decides.
    SetClass {
        /// Destinations it concerns.
        prefix: Prefix,
        /// What becomes of them.
        class: Class,
    },
    /// Sets the class of single ports of a prefix, whatever the prefix's own. Of one prefix the
    /// most precise rule decides, and a longer prefix before that.
    SetPortClass {
        /// Destinations it concerns.
        prefix: Prefix,
        /// Protocol and ports; never [`Ports::ANY`].
        ports: Ports,
        /// What becomes of them.
        class: Class,
    },
    /// Forgets an earlier [`Command::SetPortClass`].
    ClearPortClass {
        /// Its prefix.
        prefix: Prefix,
        /// Its ports.
        ports: Ports,
    },
    /// Forgets a prefix.
    ClearClass {
        /// The prefix of an earlier [`Command::SetClass`].
        prefix: Prefix,
    },
    /// Enters or replaces a flow's policy. Going to `Pass` or `Encrypt` releases the packets held
    /// for it, going to `Deny` discards them.
    SetPolicy {
        /// The flow, as outgoing packets show it.
        flow: Flow,
        /// Its new policy.
        policy: Policy,
        /// What that was made from.
        about: About,
    },
    /// Forgets a flow's policy: the next packet is handled by its class.
    ClearPolicy {
        /// The flow, as outgoing packets show it.
        flow: Flow,
    },
    /// Sends in the clear what is held of a flow, and forgets it: there are too many to remember
    /// what becomes of each. The next packet is handled by its class.
    ReleaseFlow {
        /// The flow, as outgoing packets show it.
        flow: Flow,
    },
    /// Enters or replaces what happens to everything between two prefixes: a configured
    /// connection. It beats every class, and every policy of a flow, whatever the prefix lengths.
    /// Between several that cover a packet the longest remote prefix decides, then the longest
    /// local one. `Hold` asks by [`Notice::Acquire`] as a class does.
    SetSubnets {
        /// The prefixes, as outgoing packets show them.
        subnets: Subnets,
        /// What becomes of packets between them.
        policy: Policy,
    },
    /// As [`Command::SetSubnets`] with [`Policy::Encrypt`], over several pairs at once: each flow of
    /// the upper layers goes through one of them, as long as they stay the same.
    ShareSubnets {
        /// The prefixes, as outgoing packets show them.
        subnets: Subnets,
        /// The pairs, at least one.
        pairs: Vec<SaId>,
    },
    /// As [`Command::SetSubnets`], where the peer carries single protocols or ports only: a packet
    /// goes through one of those pairs of which the own selectors match it, its flow always through the
    /// same, and what none of them carries meets `rest`.
    SelectSubnets {
        /// The prefixes, as outgoing packets show them.
        subnets: Subnets,
        /// The pairs, at least one.
        pairs: Vec<SaId>,
        /// [`Policy::Hold`] or [`Policy::Deny`].
        rest: Policy,
    },
    /// Which of the connections between two prefixes live: their places in the order of the
    /// configuration. For those who watch; what happens to packets is said by the
    /// other commands.
    LinksUp {
        /// The prefixes of a [`Command::SetSubnets`].
        subnets: Subnets,
        /// Places, counted from 0.
        links: Vec<u32>,
    },
    /// Forgets a configured pair of prefixes: flows and classes count again.
    ClearSubnets {
        /// The prefixes of an earlier [`Command::SetSubnets`].
        subnets: Subnets,
    },
    /// Adds a pair; it receives at once, and sends when a policy names it.
    AddSa(Box<SaPair>),
    /// The outer addresses changed (authenticated NAT rebinding, MOBIKE).
    MoveSa {
        /// The pair.
        sa: SaId,
        /// Its new outer way.
        envelope: Envelope,
    },
    /// Removes both halves of a pair; its keys are wiped. What came on it before may still be taken.
    RemoveSa(SaId),
    /// The same for a pair that its peer may no longer use: nothing more is taken on it, whenever it came.
    RevokeSa(SaId),
    /// Asks for a [`Notice::LastUse`] of this pair.
    AskUse(SaId),
    /// Asks for a [`Notice::FlowUsed`] at the next packet of a flow that passes in the clear. Its
    /// packets go on passing; the next [`Command::SetPolicy`] ends the watch.
    WatchFlow(Flow),
}

/// How a pair has been used so far.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Use {
    /// Packets received and accepted.
    pub packets_in: u64,
    /// Packets sent.
    pub packets_out: u64,
    /// Inner octets received and accepted.
    pub bytes_in: u64,
    /// Inner octets sent.
    pub bytes_out: u64,
    /// Since the last accepted packet; `None` if there was none.
    pub idle_in: Option<Duration>,
    /// Since the last packet sent; `None` if there was none.
    pub idle_out: Option<Duration>,
}

/// From the data plane to keying.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// A packet of a flow without policy was held.
    Acquire {
        /// The flow, as outgoing packets show it.
        flow: Flow,
        /// Upper-layer protocol of the packet.
        protocol: u8,
        /// Source and destination port, 0 where the protocol has none.
        ports: (u16, u16),
    },
    /// The first packet was accepted on this pair: the peer has it too.
    FirstPacket(SaId),
    /// Nearly used up (bytes, packets or sequence numbers): replace it.
    SoftExpire(SaId),
    /// Used up; it carries nothing more.
    HardExpire(SaId),
    /// Answer to [`Command::AskUse`].
    LastUse {
        /// The pair.
        sa: SaId,
        /// How it was used.
        used: Use,
    },
    /// Answer to [`Command::WatchFlow`]: a packet has passed. Told once.
    FlowUsed(Flow),
    /// Packets have gone out on this pair for [`UNANSWERED`] and none came in since the first of
    /// them: the peer may have lost the pair. Sent again each [`UNANSWERED_AGAIN`] until something
    /// comes in.
    Unanswered(SaId),
    /// The same after [`DOUBTFUL`].
    Doubtful(SaId),
    /// An *authenticated* packet came from another outer address than the envelope names.
    PeerMoved {
        /// The pair.
        sa: SaId,
        /// Where it came from.
        remote: SocketAddr,
    },
    /// An ESP packet with an SPI that nobody here knows. A hint, forgeable; sent at most a few
    /// times a second.
    UnknownSpi {
        /// The SPI.
        spi: Spi,
        /// The outer source.
        from: IpAddr,
    },
}
