//! Security associations and the words both planes share (RFC 4301, RFC 4322 §3).
//!
//! The keying plane decides, the forwarding plane obeys, and [`Command`] and [`Notice`] are
//! everything they say to each other ([`channel`]). This crate knows only `std`, so that neither
//! plane can learn through it what the other is made of: the forwarding plane cannot tell why a
//! policy is what it is, and keying cannot tell whether it drives our own ESP over a TUN device
//! or the kernel's XFRM.
//!
//! - [`addr`]: prefixes and (source, destination) pairs.
//! - [`selector`]: traffic selectors, RFC 7296 §3.13.1.
//! - [`association`]: what an ESP security association is made of.
//! - [`channel`]: commands down, notices up.
#![forbid(unsafe_code)]

pub mod addr;
pub mod association;
pub mod channel;
pub mod selector;

pub use addr::{Flow, Ports, Prefix, PrefixError, Subnets};
pub use association::{
    Direction, Envelope, EspCipher, EspKey, Integrity, Limits, Mode, SaId, SaPair, Spi,
    Translation, Trust,
};
pub use channel::{
    About, Class, Command, DOUBTFUL, Notice, Policy, UNANSWERED, UNANSWERED_AGAIN, Use,
};
pub use selector::{Fields, OPAQUE, Traffic, TrafficSelector};
