//! Parsers against mutated input: no panic, no slow input, and what was read can be written and
//! read again. Runs on the stable toolchain, with the same inputs every time;
//! `OE_NODE_FUZZ_RUNS` says how many for each target (20 000 without it).

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests stop at what they do not expect"
)]

mod dns;
mod mutate;
