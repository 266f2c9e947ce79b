//! Policy groups, peers, DNS answers and their composition with IKE (RFC 4322 §3.2 to §3.4).
//!
//! [`Keying`] is the one place where DNS meets IKE. A packet that the data plane holds becomes a
//! question to DNS; the answer becomes a decision ([`dnskeys::decide`]); the decision becomes a
//! call, clear text or nothing; and a child SA is installed only with an [`dnskeys::Authorized`]
//! in hand. From the top:
//!
//! - [`connection`]: what an administrator has written down of a peer; it beats all the rest.
//! - `narrowed`, `beside`: a peer grants a part of one only, or the parts in several pairs.
//! - `links`: connections with the same subnets share the load and stand in for each other.
//! - [`group`]: which destinations are treated how.
//! - [`keying`]: the machine: its inputs, its one queue of outputs, its deadlines.
//! - [`initiator`]: potential OE, pending OE and what follows (RFC 4322 §3.2).
//! - `own`: what strangers see of us.
//! - `leases`, `pool`: who is behind a NAT gets an address of ours, and we get one of a peer's.
//! - `client`: hosts behind a gateway, which speaks for those whose records name it.
//! - `sources`: packets from an address that may be ours already.
//! - [`responder`]: a stranger calls (RFC 4322 §3.3).
//! - [`pairs`]: pairs of SAs come and go; calls that crossed are settled.
//! - `elsewhere`, `outage`, `silence`, [`outworn`]: a peer does not answer, or renews nothing.
//! - [`ageing`]: what ends by time (RFC 4322 §3.2.7, §3.4).
//! - `downgrade`: who is in the clear although it could be encrypted to.
//! - `by_hand`: calls that a person asks for. [`memory`]: peers from before a restart.
//! - `revoked`: what a peer may no longer use.
//! - `reload`: new groups and connections for a running node. [`uplinks`]: new addresses.
//!   [`resumption`]: old acquaintances.
//! - [`status`], [`explain`]: what a person is shown. [`report`]: what is logged.
#![forbid(unsafe_code)]

pub mod ageing;
mod anonymous;
mod beside;
mod by_hand;
mod client;
pub mod config;
pub mod connection;
mod downgrade;
mod elsewhere;
mod entry;
pub mod explain;
pub mod group;
pub mod initiator;
pub mod keying;
mod leases;
mod links;
pub mod memory;
mod narrowed;
mod outage;
pub mod outworn;
mod own;
pub mod pairs;
mod pool;
pub mod questions;
mod reload;
pub mod report;
pub mod responder;
pub mod resumption;
mod revoked;
mod silence;
mod sources;
pub mod status;
mod tables;
mod undecided;
pub mod uplinks;

pub use by_hand::NoCall;
pub use config::{Config, DESTINATIONS, Lives, NullAuth, WhenAdvertised};
pub use connection::{Connection, ConnectionState, ConnectionView, RemoteKeys, Start};
pub use explain::{Explanation, NextPacket, PortRule};
pub use group::{File, Group, Groups, LineError, Listed, Warning};
pub use initiator::ike_key;
pub use keying::{Counters, Keying, Output, Timer, class_command};
pub use memory::{MAX_REMEMBERED, Remembered};
pub use own::OwnRecord;
pub use pool::LeaseView;
pub use reload::Reloaded;
pub use report::{Report, What, Why, end_text};
pub use resumption::KeptTicket;
pub use status::{Destination, PeerView, StateName};
