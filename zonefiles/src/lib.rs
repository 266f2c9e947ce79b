//! Zone records for opportunistic encryption: generate, read, check, diff.
#![forbid(unsafe_code)]
