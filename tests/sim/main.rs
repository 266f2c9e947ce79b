//! Whole nodes on a seeded network: real keying, real IKE, real ESP; fake DNS, and a clock that
//! jumps from one event to the next.

mod anonymous;
mod attacks;
mod bounds;
mod by_hand;
mod connection;
mod crash;
mod crossing;
mod dns;
mod downgrade;
mod fallback;
mod first_packet;
mod gateway;
mod half_way;
mod hardships;
mod limits;
mod links;
mod lossy;
mod matrix;
mod memory;
mod mesh;
mod nat;
mod net;
mod node;
mod outage;
mod outworn;
mod own_addresses;
mod packet;
mod plane;
mod ports;
mod reload;
mod resumption;
mod revoked;
mod rules;
mod single_ports;
mod site;
mod strangers;
mod uplinks;
mod weaker;

use std::net::IpAddr;

use dnskeys::Security;
use net::{Link, Net};
use node::{Host, TestKey};

/// An address from its text.
fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

const WEST: &str = "192.0.2.11";
const EAST: &str = "198.51.100.12";

/// Two nodes that have never met, each with its key in DNS; hosts 0 and 1.
fn west_and_east(seed: u64, link: Link) -> Net {
    let mut net = Net::new(seed, link);
    for (key, addr) in [WEST, EAST].into_iter().enumerate() {
        let (seed, now) = (net.seed(), net.now);
        net.add(Host::node(addr, key, seed, now));
        net.dns.publish(ip(addr), ip(addr), Some(TestKey::nth(key).dns()), Security::Secure);
        net.drain(key);
    }
    net
}
