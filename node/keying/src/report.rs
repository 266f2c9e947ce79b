//! What keying tells its operator: one line for each decision.

use std::fmt;
use std::net::IpAddr;

use dnskeys::{Name, Reason, Refusal, Security};
use ike::{End, Identity};
use sa::{Flow, SaId, Trust};

/// One transition, with what it rests on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// The flow it concerns; `None` if it concerns a peer before any flow is known.
    pub flow: Option<Flow>,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    /// A packet was held; the reverse name is being asked.
    Trapped,
    /// DNS answered.
    DnsAnswer {
        /// The name that was asked.
        name: Name,
        /// Its DNSSEC status.
        security: Security,
        /// The number of usable records.
        records: usize,
    },
    /// A gateway is being called.
    Calling {
        /// Its address.
        gateway: IpAddr,
    },
    /// IKE_SA_INIT is done.
    InitDone {
        /// The gateway's address.
        gateway: IpAddr,
    },
    /// IKE_AUTH is done.
    Authenticated {
        /// The gateway's address.
        gateway: IpAddr,
        /// Who it is.
        identity: Identity,
        /// Whether we called.
        initiator: bool,
    },
    /// A pair carries the flow.
    Keyed {
        /// The pair.
        sa: SaId,
        /// How much is known of the peer.
        trust: Trust,
    },
    /// The outer way of a peer's pairs is another.
    Moved {
        /// Our outer address.
        local: IpAddr,
        /// The peer's.
        remote: IpAddr,
    },
    /// A pair was replaced by another, or one of two that crossed was dropped.
    PairDropped {
        /// The pair.
        sa: SaId,
    },
    /// The records behind a pair are gone or changed.
    NoLongerAuthorized(Refusal),
    /// The flow goes in the clear.
    ClearText(Why),
    /// The flow goes nowhere.
    Denied(Why),
    /// The flow is forgotten: its next packet starts anew.
    Expired,
    /// A gateway of a configured connection is being called.
    ConnectionCalling {
        /// The connection.
        name: String,
        /// The gateway's address.
        gateway: IpAddr,
    },
    /// A pair carries a configured connection.
    ConnectionUp {
        /// The connection.
        name: String,
        /// The pair.
        sa: SaId,
        /// The peer's outer address.
        gateway: IpAddr,
    },
    /// A configured connection has lost its last pair.
    ConnectionDown {
        /// The connection.
        name: String,
        /// Why.
        why: Why,
    },
    /// No gateway of a configured connection could be had.
    ConnectionFailed {
        /// The connection.
        name: String,
        /// How the last ended.
        why: Why,
    },
    /// A peer that called was refused.
    Refused {
        /// Its outer address.
        remote: IpAddr,
        /// Who it said it was.
        identity: Identity,
        /// Why.
        why: Why,
    },
}

/// Why a flow is clear or denied, or a peer refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// DNS decided.
    Dns(Reason),
    /// Every gateway was called; this is how the last ended.
    Gateway(End),
    /// The peer is not entitled to what it claims.
    Authority(Refusal),
    /// The group alone decides.
    Group,
    /// Too much is going on already.
    Budget,
    /// No address of ours can reach the gateway.
    NoLocalAddress,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(reason) => reason.fmt(f),
            Self::Gateway(end) => end_text(f, *end),
            Self::Authority(refusal) => write!(f, "not authorised: {refusal}"),
            Self::Group => f.write_str("by its policy group"),
            Self::Budget => f.write_str("too many negotiations at once"),
            Self::NoLocalAddress => f.write_str("no local address of the gateway's family"),
        }
    }
}

fn end_text(f: &mut fmt::Formatter<'_>, end: End) -> fmt::Result {
    match end {
        End::Timeout => f.write_str("gateway did not answer"),
        End::Refused { notify, authentic } => {
            let kind = if authentic { "refused" } else { "refused, unauthenticated," };
            write!(f, "gateway {kind} with notify {notify}")
        }
        End::AuthenticationFailed => f.write_str("gateway failed authentication"),
        End::NotAuthorized => f.write_str("gateway is not authorised"),
        End::SigningFailed => f.write_str("own key cannot sign"),
        End::DeletedByPeer => f.write_str("deleted by the peer"),
        End::Closed => f.write_str("closed"),
        End::InitialContact => f.write_str("peer restarted"),
        End::Expired => f.write_str("life is over"),
        End::Misbehaved(what) => write!(f, "peer broke the protocol: {what}"),
    }
}
