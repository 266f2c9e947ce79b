//! Against other people's daemons, as they come from the distribution.
//!
//! The rigs that start them live beside this repository (`../shared/rigs`, or wherever `OE_RIGS`
//! says). Without them, without root or without the daemon a test says that it is skipped.
#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests: what goes wrong ends the test, what is seen is told on standard output"
)]

mod connection;
mod daemon;
mod driver;
mod ike;
mod libreswan;
mod machine;
mod methods;
mod nat;
mod post_quantum;
mod rig;
mod strongswan_kernel;
