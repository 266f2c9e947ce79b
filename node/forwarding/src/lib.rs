//! The forwarding plane of opportunistic encryption: hold, pass, deny, encrypt (RFC 4322 §3.1),
//! and ESP itself (RFC 4303). Sans-I/O.
//!
//! [`Forwarding`] is owned by one thread and answers at once. Packets come as the TUN device hands
//! them over, super-packets with unfinished checksums, and leave as runs of equal ESP packets
//! ready for UDP_SEGMENT; on the way back opened packets are put together again where their
//! headers allow. Everything per packet happens in place; in the steady state nothing allocates.
//!
//! ```text
//!  device → outgoing: Spd → Plan (cut) → Sealer → Batch → wire
//!  wire → incoming: Sad → Opener (window, ICV) → selectors, owner → Delivery (join) → device
//!  handle_command → Spd, Sad, Hold;  poll_output ← notices, released packets
//! ```
//!
//! It cannot tell why a policy is what it is: that is the keying plane's knowledge, and
//! [`sa::Command`] and [`sa::Notice`] are all that is said between the two.
#![forbid(unsafe_code)]

mod aead;
mod batch;
mod cbc;
mod checksum;
mod coalesce;
mod counters;
mod ecn;
mod esp;
mod forwarding;
mod hash;
mod hold;
mod icmp;
#[doc(hidden)]
pub mod internal;
mod newcomers;
mod offload;
mod onward;
mod packet;
mod path;
mod prefixes;
mod rate;
mod replay;
mod sad;
mod segment;
mod spd;
mod translate;
mod transport;
mod whole;

pub use aead::Provider;
pub use batch::{Batch, Send, To};
pub use coalesce::{Delivery, Write};
pub use counters::Counters;
pub use forwarding::{
    Config, Forwarding, Outer, Output, Timer, Trace, device_mtu, segments_per_send,
};
pub use offload::Offload;
pub use onward::{Onward, cut, ends};
