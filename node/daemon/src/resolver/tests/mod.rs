//! Lookups against real servers, and against servers that lie.

mod bed;
mod loopback;
