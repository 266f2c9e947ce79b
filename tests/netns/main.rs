//! The built binary in network namespaces.
//!
//! What cannot run here says `skipped:` and why.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests stop at what they do not expect, and say what they skip"
)]

mod binary;
mod crash;
mod daemon;
mod every_policy;
mod fence;
mod filters;
mod flood;
mod guard;
mod hardening;
mod icmp;
mod internet;
mod keyfile;
mod lab;
mod leaks;
mod leftovers;
mod load;
mod marked;
mod matrix;
mod onward;
mod pcap;
mod recipe;
mod reconfigured;
mod renewals;
mod scenarios;
mod secrets;
mod served;
mod steering;
mod tracking;
mod transfer;
mod transitions;
mod transport;
mod uplinks;
