//! The commands as users run them: the built binary, real DNS servers.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests stop at what they do not expect"
)]

mod bed;
mod keys;
mod machine;
mod units;
mod verify;
