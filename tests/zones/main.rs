//! `oe-node zone` as its users meet it: the built binary, and the name servers, validators and
//! checkers that they run.
//!
//! Everything happens on loopback and in temporary directories, so none of it needs root.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on should panic"
)]

mod check;
mod generate;
mod publish;
mod rig;
mod serve;
