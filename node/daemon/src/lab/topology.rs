//! Who lives where: hosts, each on a subnet of its own behind one core router.
//!
//! Addresses are those reserved for documentation (RFC 5737, RFC 3849), so that nothing the lab
//! does could mean anything outside it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a host of the lab is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// Forwards, and is where the wire is watched. All others live behind it.
    Core,
    /// Serves the signed reverse zones.
    Names,
    /// Runs `oe-node run` and publishes its key.
    Node,
    /// Publishes nothing.
    Plain,
    /// Publishes a record that fails DNSSEC validation.
    Bogus,
}

/// A host and its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Site {
    /// Its name, also that of the core router's interface to it.
    pub(crate) name: String,
    /// What it is.
    pub(crate) role: Role,
    /// Its IPv4 address.
    pub(crate) v4: Ipv4Addr,
    /// The core router's address on its subnet, and the subnet's prefix length.
    pub(crate) v4_gateway: (Ipv4Addr, u8),
    /// Its IPv6 address.
    pub(crate) v6: Ipv6Addr,
    /// The core router's address on its subnet, and the subnet's prefix length.
    pub(crate) v6_gateway: (Ipv6Addr, u8),
}

impl Site {
    pub(crate) fn new(name: &str, role: Role, v4: Ipv4Addr, length: u8, v6: Ipv6Addr) -> Self {
        let network = u32::from(v4) & u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
        let network6 = u128::from(v6) & (u128::MAX << 64);
        Self {
            name: name.to_owned(),
            role,
            v4,
            v4_gateway: (Ipv4Addr::from(network + 1), length),
            v6,
            v6_gateway: (Ipv6Addr::from(network6 + 1), 64),
        }
    }

    /// Both addresses, IPv4 first.
    pub(crate) fn addresses(&self) -> [IpAddr; 2] {
        [IpAddr::V4(self.v4), IpAddr::V6(self.v6)]
    }

    /// The address of `peer`'s family.
    pub(crate) fn address_like(&self, peer: IpAddr) -> IpAddr {
        if peer.is_ipv4() { IpAddr::V4(self.v4) } else { IpAddr::V6(self.v6) }
    }
}

/// The core router. Its addresses are those of its ends of the links.
pub(crate) fn core() -> Site {
    Site::new("core", Role::Core, Ipv4Addr::UNSPECIFIED, 32, Ipv6Addr::UNSPECIFIED)
}

/// The lab as it is shown: a resolver's DNS host, two nodes, a plain and a bogus host.
pub(crate) fn small_internet() -> Vec<Site> {
    let v6 = |subnet, host| Ipv6Addr::new(0x2001, 0xdb8, subnet, 0, 0, 0, 0, host);
    vec![
        names(),
        Site::new("west", Role::Node, Ipv4Addr::new(192, 0, 2, 11), 24, v6(1, 0x11)),
        Site::new("east", Role::Node, Ipv4Addr::new(198, 51, 100, 22), 24, v6(2, 0x22)),
        Site::new("plain", Role::Plain, Ipv4Addr::new(203, 0, 113, 133), 27, v6(3, 0x33)),
        Site::new("bogus", Role::Bogus, Ipv4Addr::new(203, 0, 113, 244), 27, v6(4, 0x44)),
    ]
}

/// A DNS host and `count` nodes, which must be at most [`MOST_NODES`].
pub(crate) fn mesh(count: u8) -> Vec<Site> {
    let node = |index: u8| {
        let name = format!("n{:02}", index + 1);
        let v4 = Ipv4Addr::new(192, 0, 2, index * 4 + 2);
        let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0x100 + u16::from(index), 0, 0, 0, 0, 2);
        Site::new(&name, Role::Node, v4, 30, v6)
    };
    std::iter::once(names()).chain((0..count.min(MOST_NODES)).map(node)).collect()
}

/// The prefixes whose reverse zones hold the sites' names.
pub(crate) const REVERSE_PREFIXES: [(IpAddr, u8); 4] = [
    (IpAddr::V4(Ipv4Addr::new(192, 0, 2, 0)), 24),
    (IpAddr::V4(Ipv4Addr::new(198, 51, 100, 0)), 24),
    (IpAddr::V4(Ipv4Addr::new(203, 0, 113, 0)), 24),
    (IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0)), 32),
];

/// As many /30 subnets as fit half a /24, and all that two cores can key in seconds.
pub(crate) const MOST_NODES: u8 = 32;

fn names() -> Site {
    let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0x53, 0, 0, 0, 0, 0x53);
    Site::new("dns", Role::Names, Ipv4Addr::new(203, 0, 113, 53), 27, v6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn subnets_do_not_overlap_and_gateways_are_not_hosts() {
        for sites in [small_internet(), mesh(MOST_NODES)] {
            let networks: BTreeSet<u32> =
                sites.iter().map(|site| u32::from(site.v4_gateway.0) - 1).collect();
            assert_eq!(networks.len(), sites.len());
            for site in &sites {
                assert_ne!(site.v4, site.v4_gateway.0);
                assert_ne!(site.v6, site.v6_gateway.0);
                let length = u32::from(site.v4_gateway.1);
                let host = u32::from(site.v4) & !(u32::MAX << (32 - length));
                assert!(host > 1 && host < (1 << (32 - length)) - 1, "{}: {host}", site.name);
            }
            let v6: BTreeSet<_> = sites.iter().map(|site| site.v6_gateway.0).collect();
            assert_eq!(v6.len(), sites.len());
        }
    }

    #[test]
    fn every_address_has_a_zone() {
        for site in small_internet().iter().chain(&mesh(MOST_NODES)) {
            for address in site.addresses() {
                let covered = REVERSE_PREFIXES.iter().any(|(prefix, length)| {
                    zonefiles::Prefix::new(*prefix, *length).unwrap().contains(address)
                });
                assert!(covered, "no zone for {address}");
            }
        }
    }
}
