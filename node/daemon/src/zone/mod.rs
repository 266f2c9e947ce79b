//! The parts of `oe-node zone` that touch files, sockets and the clock. What records mean is in
//! the crate `zonefiles`.

pub(crate) mod keys;
pub(crate) mod serve;
pub(crate) mod signed;
