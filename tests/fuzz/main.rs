//! Parsers against mutated input: no panic, no slow input, and what was read can be written and
//! read again. Runs on the stable toolchain, with the same inputs every time;
//! `OE_NODE_FUZZ_RUNS` says how many for each target (20 000 without it).

mod dns;
mod mutate;
