//! Who is measured.

use std::any::Any;
use std::net::IpAddr;

use clap::ValueEnum;
use tests::node::Node;

use crate::{others, ours};

/// One way from a host to another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub(crate) enum Contender {
    /// The cable itself.
    Raw,
    /// Our packet thread with a cipher that does nothing: what the design allows at most.
    Ceiling,
    /// Two daemons that found each other in DNS; ESP in UDP.
    OeNode,
    /// The same with IP protocol 50.
    OeNode50,
    /// Our packet thread with a cipher that does nothing and protocol 50.
    Ceiling50,
    /// Our packet thread with AES-128-GCM, and nothing in its tables but one pair.
    Plane,
    /// The same with 10,000 pairs and 100,000 destinations known as clear.
    PlaneLoaded,
    /// A daemon on one side, and a destination that it knows as clear.
    Clear,
    /// strongSwan with ESP in user space (kernel-libipsec).
    Strongswan,
    /// wireguard-go.
    WireguardGo,
    /// boringtun.
    Boringtun,
}

impl Contender {
    /// All, in the order of the tables.
    pub(crate) const ALL: [Self; 11] = [
        Self::Raw,
        Self::Ceiling,
        Self::OeNode,
        Self::Ceiling50,
        Self::OeNode50,
        Self::Plane,
        Self::PlaneLoaded,
        Self::Clear,
        Self::Strongswan,
        Self::WireguardGo,
        Self::Boringtun,
    ];

    /// The row's head.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw cable",
            Self::Ceiling => "no cryptography",
            Self::OeNode => "oe-node",
            Self::OeNode50 => "oe-node, protocol 50",
            Self::Ceiling50 => "no cryptography, protocol 50",
            Self::Plane => "packet thread alone",
            Self::PlaneLoaded => "packet thread, 10k pairs",
            Self::Clear => "clear beside oe-node",
            Self::Strongswan => "strongSwan libipsec",
            Self::WireguardGo => "wireguard-go",
            Self::Boringtun => "boringtun",
        }
    }

    /// Brings it up in namespaces of its own.
    pub(crate) fn up(self) -> anyhow::Result<Up> {
        match self {
            Self::Raw => ours::raw(),
            Self::Ceiling => ours::plane("ceil", &["--cipher", "null"], false),
            Self::Ceiling50 => ours::plane("ceil50", &["--cipher", "null", "--bare"], false),
            Self::Plane => ours::plane("plane", &[], false),
            Self::PlaneLoaded => ours::plane("load", &["--pairs", "10000"], true),
            Self::OeNode => ours::oe_node("oe", "udp", true),
            Self::OeNode50 => ours::oe_node("oe50", "auto", true),
            Self::Clear => ours::oe_node("clear", "udp", false),
            Self::Strongswan => others::strongswan(),
            Self::WireguardGo => others::wireguard("wg", "wireguard-go"),
            Self::Boringtun => others::wireguard("bt", "boringtun-cli"),
        }
    }
}

/// A contender that is up: where to send from, where to, and whose CPU time counts.
pub(crate) struct Up {
    /// Namespaces of the sender and the receiver.
    pub(crate) names: [String; 2],
    /// The receiver's address.
    pub(crate) target: IpAddr,
    /// The daemons.
    pub(crate) pids: Vec<u32>,
    /// The sender's daemon, and its resolver's address, where a first packet can be watched.
    pub(crate) node: Option<(Node, IpAddr)>,
    /// Ended and taken down in this order.
    pub(crate) _keep: Vec<Box<dyn Any>>,
}
