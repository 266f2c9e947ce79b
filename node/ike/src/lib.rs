//! IKEv2 without I/O (RFC 7296).
//!
//! [`Ike`] is every IKE SA of a node as one machine. It is driven like every machine here:
//! `handle_*` inputs, then [`Ike::poll_output`] until it is empty, then sleep until
//! [`Ike::poll_timeout`]. It asks "whose key is this?" ([`Output::NeedPeer`]) and "sign this"
//! ([`Output::Sign`]) and waits for the answers in states of their own; it knows nothing of DNS or
//! policy groups.
#![forbid(unsafe_code)]

pub mod api;
mod node;

pub use api::*;
pub use node::{Counters, Ike};
