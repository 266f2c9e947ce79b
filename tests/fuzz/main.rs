//! Parsers against mutated input: no panic, no slow input, and what was read can be written and
//! read again. Runs on the stable toolchain, with the same inputs every time;
//! `OE_NODE_FUZZ_RUNS` says how many for each target (20 000 without it, fewer where one costs more).
//!
//! The targets are functions of octets in `targets/`; `libfuzzer/` is a package of its own that
//! gives the same functions to cargo-fuzz. `corpus/` holds what both begin with.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests stop at what they do not expect"
)]

mod dns;
mod machines;
mod mutate;
mod targets;
