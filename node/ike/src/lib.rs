//! IKEv2 without I/O (RFC 7296).
//!
//! [`Ike`] is every IKE SA of a node as one machine. It is driven like every machine here:
//! `handle_*` inputs, then [`Ike::poll_output`] until it is empty, then sleep until
//! [`Ike::poll_timeout`]. It asks "whose key is this?" ([`Output::NeedPeer`]) and "sign this"
//! ([`Output::Sign`]) and waits for the answers in states of their own; it knows nothing of DNS or
//! policy groups.
//!
//! ```no_run
//! # use std::time::Instant;
//! # use ike::{Config, Datagram, Event, Ike, Initiate, NeedChild, NeedPeer, Output, PeerVerdict, Sign, Transmit};
//! # fn clock() -> Instant { unimplemented!() }
//! # fn config() -> Config { unimplemented!() }
//! # fn call() -> Initiate { unimplemented!() }
//! # fn send(_: Transmit) {}
//! # fn sign(_: &Sign) -> Option<Vec<u8>> { None }
//! # fn look_up(_: &NeedPeer) -> PeerVerdict { PeerVerdict::Unknown }
//! # fn note(_: Event) {}
//! # fn receive(_until: Option<Instant>) -> Option<Datagram<'static>> { None }
//! let mut ike = Ike::new(config(), [7; 32], clock());
//! ike.initiate(clock(), call());
//! loop {
//!     while let Some(output) = ike.poll_output() {
//!         let now = clock();
//!         match output {
//!             Output::Transmit(transmit) => send(transmit),
//!             Output::Sign(job) => ike.handle_signature(now, job.ike, sign(&job)),
//!             Output::NeedPeer(need) => ike.handle_peer(now, need.ike, look_up(&need)),
//!             Output::NeedChild(need) => ike.handle_child(now, need.ike, false),
//!             Output::Event(event) => note(event),
//!         }
//!     }
//!     match receive(ike.poll_timeout().map(|(at, _)| at)) {
//!         Some(datagram) => ike.handle_datagram(clock(), datagram),
//!         None => ike.handle_timeout(clock()),
//!     }
//! }
//! ```
//!
//! From the wire inwards: `message` reads and writes octets; `crypto` is what the exchanges need
//! of it; `ike_sa` is one pair of SPIs with its keys and windows; `exchange` has a file for each
//! side of each exchange; `peering` says what state a peer is in, `established` holds it from
//! IKE_AUTH on; `node` has the verbs and finds out whom a datagram concerns.
//!
//! Not spoken: IKEv1, certificates, EAP, SHA-1, IPComp, AH. Shared secrets, NULL authentication,
//! transport mode and inner addresses are asked for when the owner wants them, and granted to those
//! to whom it grants them. Ciphers are AEADs; AES-CBC with an HMAC is offered, and taken, if
//! [`Config::compatibility`] says so.
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
#[doc(hidden)]
pub mod internal;
mod message;
mod narrow;
mod node;
mod path;
mod peering;
mod reassembly;
mod shared;
#[cfg(test)]
mod tests;
mod ticket;
mod verified;

pub use api::*;
pub use half_open::prefix as source_prefix;
pub use message::{InvalidMessage, MAX_MESSAGE};
pub use node::Ike;
pub use shared::Counters;
pub use verified::Verified;
