//! What is fuzzed: functions of octets that panic if something is wrong. The ordinary tests beside
//! this folder call them with mutated seeds, `libfuzzer/` with what a coverage-guided fuzzer finds.

#[path = "../../evil/chaos.rs"]
#[allow(dead_code, reason = "seeded lives are tests of their own")]
mod chaos;
pub(crate) mod dns;
pub(crate) mod files;
pub(crate) mod ike;
pub(crate) mod packets;
#[path = "../../evil/peer.rs"]
#[allow(dead_code, reason = "the advisories' rows are tests of their own")]
mod peer;
#[path = "../../evil/victim.rs"]
#[allow(dead_code, reason = "the advisories' rows are tests of their own")]
mod victim;
#[path = "../../evil/wire.rs"]
#[allow(dead_code, reason = "the advisories' rows are tests of their own")]
mod wire;
