//! IKEv2 without I/O (RFC 7296).
//!
//! [`Ike`] is every IKE SA of a node as one machine. It is driven like every machine here:
//! `handle_*` inputs, then [`Ike::poll_output`] until it is empty, then sleep until
//! [`Ike::poll_timeout`]. It asks "whose key is this?" ([`Output::NeedPeer`]) and "sign this"
//! ([`Output::Sign`]) and waits for the answers in states of their own; it knows nothing of DNS or
//! policy groups.
//!
//! From the wire inwards: `message` reads and writes octets; `crypto` is what the exchanges need
//! of it; `ike_sa` is one pair of SPIs with its keys and windows; `exchange` has a file for each
//! side of each exchange; `peering` says what state a peer is in, `established` holds it from
//! IKE_AUTH on; `node` finds out whom a datagram concerns.
#![forbid(unsafe_code)]

pub mod api;
mod child;
mod cookie;
mod crypto;
mod established;
mod exchange;
mod failure;
mod half_open;
mod ike_sa;
mod message;
mod narrow;
mod node;
mod path;
mod peering;
mod reassembly;
mod shared;
#[cfg(test)]
mod tests;

pub use api::*;
pub use message::InvalidMessage;
pub use node::Ike;
pub use shared::Counters;
