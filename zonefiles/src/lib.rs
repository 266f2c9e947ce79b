//! Zone records for opportunistic encryption, for those who run zones: generate, read, check,
//! diff, sign and answer.
//!
//! Pure functions over names, records and text. Files, sockets and the clock belong to whoever
//! calls.
//!
//! - [`name`], [`rtype`], [`record`], [`zone`]: the nouns.
//! - [`reverse`]: which zone an address is published in; RFC 2317.
//! - [`host`]: what is published for an address; [`chain`]: the zones above.
//! - [`generate`]: the same for millions of hosts, as a stream of text.
//! - [`master`]: master files, read.
//! - [`gateway`], [`check`]: what peers would reject.
//! - [`diff`], [`update`], [`rollover`]: what changed, as dynamic updates, and changes of keys.
//! - [`dnssec`]: signing; [`catalog`]: answering.
#![forbid(unsafe_code)]

pub mod catalog;
pub mod chain;
pub mod check;
pub mod diff;
pub mod dnssec;
pub mod gateway;
pub mod generate;
pub mod host;
pub mod master;
pub mod name;
mod rdata;
pub mod record;
pub mod reverse;
pub mod rollover;
pub mod rtype;
pub mod update;
mod wire;
pub mod zone;

pub use catalog::{Catalog, Reply, Transport};
pub use dnssec::{Previous, SignError, SortedZone, Validity, ZoneKey};
pub use host::{Host, Kinds, reverse_zone};
pub use master::{Located, MasterError, Position, Problem, Reader};
pub use name::{Name, NameError};
pub use rdata::RdataError;
pub use record::{Record, Soa};
pub use reverse::{ClasslessName, Prefix, PrefixError, ReverseZone};
pub use rtype::Rtype;
pub use zone::{Apex, Zone};

/// Seconds, or a period as master files write it: `1h30m`, `14d`.
#[must_use]
pub fn period(text: &str) -> Option<u32> {
    rdata::parse_period(text.as_bytes())
}
