//! What keying tells its operator: one line for each decision.

use std::fmt;
use std::net::IpAddr;

use dnskeys::{Answer, Name, Outcome, Reason, Refusal, Security};
use ike::{End, Identity};
use sa::{About, Flow, SaId, TrafficSelector, Trust, Use};

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
    /// A flow from before a restart is taken up again; the reverse name is being asked.
    Recalled,
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
    /// A gateway that was called is of no use.
    GatewayEnded {
        /// Its address.
        gateway: IpAddr,
        /// How the call ended.
        why: End,
    },
    /// A pair carries the flow.
    Keyed {
        /// The pair.
        sa: SaId,
        /// How much is known of the peer.
        trust: Trust,
    },
    /// A peer does not answer under its IKE SA: what there is stays for a while, and it is called
    /// anew beside it.
    Silent {
        /// Its outer address.
        gateway: IpAddr,
    },
    /// It answers again: nothing was lost.
    AnswersAgain {
        /// Its outer address.
        gateway: IpAddr,
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
    /// A pair is gone, and this is what it carried.
    PairClosed {
        /// The pair.
        sa: SaId,
        /// What it carried.
        used: Box<Use>,
    },
    /// The records behind a pair are gone or changed.
    NoLongerAuthorized(Refusal),
    /// The flow goes in the clear.
    ClearText {
        /// Why.
        why: Why,
        /// Although its destination can do better, as far as anybody knows.
        downgraded: bool,
    },
    /// Asked again, the answer is the same: the flow stays in the clear.
    StillClear {
        /// For this reason now.
        why: Why,
        /// As above.
        downgraded: bool,
    },
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
    /// A pair of a configured connection is for single protocols or ports also or only, because the
    /// peer grants no more: what it has not granted goes nowhere.
    ConnectionNarrowed {
        /// The connection.
        name: String,
        /// What is granted on our side.
        local: Vec<TrafficSelector>,
        /// What is granted on the peer's.
        remote: Vec<TrafficSelector>,
        /// Whether any packet can match both sides.
        carries: bool,
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
    /// Responders that ask DNS will refuse us: our own records do not let us speak for this
    /// address.
    OwnRecord {
        /// Our address.
        address: IpAddr,
        /// What they lack.
        why: Refusal,
    },
    /// A peer that called has an address of ours now.
    Lent {
        /// The address.
        address: IpAddr,
        /// Who has it.
        identity: Identity,
        /// Its outer address.
        remote: IpAddr,
    },
    /// A gateway has given us an address: to what it carries we are known by that.
    Borrowed {
        /// The gateway.
        gateway: IpAddr,
        /// Our own address.
        own: IpAddr,
        /// What the gateway calls it.
        address: IpAddr,
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

impl What {
    pub(crate) fn of(answer: &Answer) -> Self {
        let records = match &answer.outcome {
            Outcome::Records(set) => set.gateways.len(),
            Outcome::NoRecord | Outcome::NoName | Outcome::Bogus | Outcome::Failed(_) => 0,
        };
        Self::DnsAnswer { name: answer.owner.clone(), security: answer.security, records }
    }
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
    /// We may not speak for the host behind us that sends.
    Client(Refusal),
    /// It comes from somewhere else and is for somebody else, and we are no gateway for it.
    NotServed,
    /// No address of ours can reach the gateway.
    NoLocalAddress,
    /// Our own records do not let us call.
    OwnRecord(Refusal),
    /// A NAT stands before us, and we have no name to ask for an address by.
    BehindNat,
    /// The peer needs an address of ours, and we have none to give: there is no pool.
    NoPool,
    /// The peer needs an address of ours, and has not asked for one.
    NotAsked,
    /// Every address of our pool is taken.
    PoolExhausted,
    /// The destination is an address of our pool that nobody has.
    NotLent,
}

impl Why {
    /// Whether another's packets to the same destination would fare the same.
    pub(crate) fn about(self) -> About {
        match self {
            Self::Client(_) | Self::NotServed | Self::OwnRecord(_) | Self::BehindNat => {
                About::Source
            }
            // Who calls us, or has an address of ours, does so for itself. Of an address that somebody
            // has that is said to those who may not use it.
            Self::NotLent | Self::NoLocalAddress => About::Source,
            // None that our address for this source could call.
            Self::Dns(Reason::NoUsableGateway) => About::Source,
            Self::Gateway(End::Refused { .. } | End::NoAddress) => About::Source,
            Self::Dns(_) | Self::Gateway(_) | Self::Group | Self::Budget => About::Destination,
            // Said to peers, of no flow.
            Self::Authority(_) | Self::NoPool | Self::NotAsked | Self::PoolExhausted => {
                About::Destination
            }
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(reason) => reason.fmt(f),
            Self::Gateway(end) => f.write_str(&end_text(*end)),
            Self::Authority(refusal) => write!(f, "not authorised: {refusal}"),
            Self::Group => f.write_str("by its policy group"),
            Self::Budget => f.write_str("too many negotiations at once"),
            Self::OwnRecord(refusal) => write!(f, "our own records do not name us: {refusal}"),
            Self::Client(refusal) => write!(f, "no gateway for its source: {refusal}"),
            Self::BehindNat => f.write_str(
                "behind a NAT, where an address has to be asked for by name (node.identity)",
            ),
            Self::NoPool => f.write_str("behind a NAT, and there is no pool to give it an address"),
            Self::NotAsked => f.write_str("behind a NAT, and it has not asked for an address"),
            Self::PoolExhausted => f.write_str("no address of the pool is left for it"),
            Self::NotLent => f.write_str("an address of the pool that nobody has"),
            Self::NotServed => f.write_str("its source is not served by this gateway"),
            Self::NoLocalAddress => f.write_str("no local address of the gateway's family"),
        }
    }
}

/// How a call ended, in one clause.
#[must_use]
pub fn end_text(end: End) -> String {
    match end {
        End::Timeout => "gateway did not answer".to_owned(),
        End::NoAddress => "gateway has no pool, and behind a NAT our own address counts for \
                           nothing"
            .to_owned(),
        End::Refused { notify: INTERNAL_ADDRESS_FAILURE, .. } => {
            "gateway has no address to give us: its pool is used up, or there is none".to_owned()
        }
        End::Refused { notify, authentic } => {
            let kind = if authentic { "refused" } else { "refused, unauthenticated," };
            format!("gateway {kind} with notify {notify}")
        }
        End::AuthenticationFailed => "gateway failed authentication".to_owned(),
        End::NotAuthorized => "gateway is not authorised".to_owned(),
        End::SigningFailed => "own key cannot sign".to_owned(),
        End::DeletedByPeer => "deleted by the peer".to_owned(),
        End::Closed => "closed".to_owned(),
        End::InitialContact | End::PeerLost => "peer restarted".to_owned(),
        End::Expired => "life is over".to_owned(),
        End::Misbehaved(what) => format!("peer broke the protocol: {what}"),
    }
}

/// RFC 7296 §3.10.1.
pub(crate) const INTERNAL_ADDRESS_FAILURE: u16 = 36;
