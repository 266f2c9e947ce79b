//! A peer that speaks correct cryptography and wrong protocol: in opportunism every stranger can
//! authenticate, so what comes after authentication is attack surface like what comes before it.
//!
//! The peer is a second implementation of IKEv2's cryptography in octets, of which nothing is
//! shared with ours: `wire` writes whatever can be written, `peer` has the keys, `victim` holds the
//! machine under attack to its promises. `chaos` lets peers do what they like in both roles and `lives`
//! seeds thousands of them,
//! `states` goes the ways in (`ways`) that are longer than two exchanges or have no signature,
//! `collisions` is the table of RFC 7296 §2.25, `rows` are the advisories of docs/THREATS.md one by one, `interleaving` is property tests over
//! the owner's verbs.

#[allow(dead_code, reason = "tests/fuzz uses the rest")]
mod chaos;
mod collisions;
mod expiry;
mod interleaving;
mod lives;
mod peer;
mod rows;
mod states;
mod victim;
mod ways;
mod wire;
