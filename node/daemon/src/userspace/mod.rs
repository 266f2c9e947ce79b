//! The data plane in user space: our forwarding plane between a TUN device and sockets.
//!
//! [`start`] opens everything and hands packets to one thread of their own; the async runtime reads
//! IKE's sockets and opens none. What the rest of the daemon sees is [`Plane`]: commands and IKE
//! datagrams in, notices and IKE datagrams out. Addresses, routes and rules are the `kernel`
//! module's.

mod acquires;
pub(crate) mod bpf;
mod gather;
mod lanes;
mod later;
mod natt;
mod onward;
mod plane;
mod post;
mod provider;
mod rest;
mod sockets;
mod strays;
mod sys;
mod tun;
mod worker;

#[cfg(test)]
mod tests;

pub(crate) use lanes::{Datagram, Entry, Lanes, lanes};
pub(crate) use natt::{Natt, marked};
pub(crate) use onward::Leads;
pub(crate) use plane::{Config, Counters, Plane, start};
pub(crate) use provider::fastest;
pub(crate) use sys::{forbid_dumps, give_way, set_octets};
