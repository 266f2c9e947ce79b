//! What a stranger sees of a host, judged: the classic checks of `ipsec verify`, and below each
//! what the classic command never said.
//!
//! - [`crowd`]: many hosts at once.
//! - [`document`]: the facts for programs.
//! - [`facts`]: what was seen, as data.
//! - [`gather`]: the questions to DNS that fill it in.
//! - [`servers`]: whether the authoritative servers agree.
//! - [`judge`]: from facts to findings; pure, so that every finding has a test without a network.
//! - [`notes`]: what is said below the lines.
//! - [`machine`]: facts of this machine, and their findings.
//! - [`probe`]: is a daemon there?
//! - [`report`]: findings as lines or JSON.

pub(crate) mod crowd;
mod document;
pub(crate) mod facts;
pub(crate) mod gather;
pub(crate) mod judge;
pub(crate) mod machine;
mod notes;
pub(crate) mod probe;
pub(crate) mod report;
mod servers;
