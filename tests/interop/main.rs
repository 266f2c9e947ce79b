//! Against other people's daemons, as they come from the distribution.
//!
//! The rigs that start them live beside this repository (`../shared/rigs`, or wherever `OE_RIGS`
//! says). Without them, without root or without the daemon a test says that it is skipped.

mod driver;
mod ike;
mod rig;
