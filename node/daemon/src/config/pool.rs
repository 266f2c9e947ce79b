//! `[pool]`: addresses to give to who is behind a NAT.

use std::net::IpAddr;

use sa::Prefix;
use serde::Deserialize;

use super::connection::Subnet;
use super::places::Fault;
use super::{Backend, Config, Error};

/// The table.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Pool {
    pub(crate) prefixes: Vec<Subnet>,
}

impl Config {
    /// The prefixes of the pool.
    pub(crate) fn pool(&self) -> Vec<Prefix> {
        self.pool.prefixes.iter().map(|subnet| subnet.0).collect()
    }

    /// What the types cannot say.
    pub(super) fn check_pool(&self) -> Result<(), Fault> {
        let pool = self.pool();
        if !pool.is_empty() && self.node.backend == Backend::Xfrm {
            return Err(Fault::new("pool", "needs node.backend = \"userspace\""));
        }
        for (index, prefix) in pool.iter().enumerate() {
            let error = |why: String| Err(in_pool(index, prefix, &why));
            if prefix.len() < WIDEST || !is_for_hosts(prefix.addr()) {
                return error("is none that hosts can be given addresses of".to_owned());
            }
            let before = pool.iter().take(index);
            if let Some(other) = before.copied().find(|other| overlap(prefix, other)) {
                return error(format!("overlaps {other}, which stands before it"));
            }
            if let Some((field, other)) = self.subnets().find(|(_, other)| overlap(prefix, other)) {
                return error(format!("overlaps {other} of {field}"));
            }
        }
        Ok(())
    }

    /// Which address of this machine lies in the pool, if one does: it would be somebody else's.
    pub(crate) fn check_pool_against(&self, own: &[IpAddr]) -> Result<(), Error> {
        for (index, prefix) in self.pool().iter().enumerate() {
            if let Some(address) = own.iter().find(|address| prefix.contains(**address)) {
                let why = format!("holds {address}, an address of this machine");
                return Err(self.error(in_pool(index, prefix, &why)));
            }
        }
        Ok(())
    }

    /// Every prefix that is somebody's by configuration, with the key that says so.
    fn subnets(&self) -> impl Iterator<Item = (&'static str, Prefix)> {
        let served = self.serve.iter().map(|s| ("serve.subnet", s.subnet.0));
        let extruded = self.extrude.iter().map(|e| ("extrude.subnet", e.subnet.0));
        let borrowed = self.borrow.iter().map(|b| ("borrow.subnet", b.subnet.0));
        let near = self.connections.iter().flat_map(|c| &c.local_subnets);
        let far = self.connections.iter().flat_map(|c| &c.remote_subnets);
        let near = near.map(|s| ("connection.local-subnets", s.0));
        let far = far.map(|s| ("connection.remote-subnets", s.0));
        served.chain(extruded).chain(borrowed).chain(near).chain(far)
    }
}

fn in_pool(index: usize, prefix: &Prefix, why: &str) -> Fault {
    Fault::new(format!("pool.prefixes[{index}]"), format!("{prefix} {why}"))
}

fn overlap(one: &Prefix, other: &Prefix) -> bool {
    one.covers(other) || other.covers(one)
}

fn is_for_hosts(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => {
            !(a.is_loopback() || a.is_multicast() || a.is_link_local() || a.octets()[0] == 0)
                && a.octets()[0] < 240
        }
        IpAddr::V6(a) => {
            !(a.is_loopback() || a.is_multicast() || a.is_unicast_link_local())
                && a.to_ipv4_mapped().is_none()
        }
    }
}

/// Whoever gives more than a whole class A has mistyped it.
const WIDEST: u8 = 8;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("x.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_pool_is_nobodys_already() {
        let with = |more: &str| {
            parse(&format!("{more}\n[pool]\nprefixes = [\"10.99.0.0/24\", \"2001:db8:99::/64\"]\n"))
        };
        let config = with("").unwrap();
        assert_eq!(config.pool().len(), 2);
        for (more, words) in [
            (
                "[[serve]]\nsubnet = \"10.99.0.128/25\"",
                "10.99.0.0/24 overlaps 10.99.0.128/25 of serve",
            ),
            ("[[serve]]\nsubnet = \"10.0.0.0/8\"", "overlaps 10.0.0.0/8 of serve.subnet"),
            ("[[serve]]\nsubnet = \"2001:db8::/32\"", "2001:db8:99::/64 overlaps 2001:db8::/32"),
            ("[node]\nbackend = \"xfrm\"", "pool: needs node.backend"),
        ] {
            let error = with(more).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        for (prefix, words) in [
            ("0.0.0.0/0", "none that hosts"),
            ("127.0.0.0/8", "none that hosts"),
            ("224.1.0.0/16", "none that hosts"),
            ("fe80::/64", "none that hosts"),
            ("10.99.0.0/33", "pool.prefixes: "),
        ] {
            let error = parse(&format!("[pool]\nprefixes = [\"{prefix}\"]\n")).unwrap_err();
            assert!(error.contains(words) && error.contains("pool.prefixes"), "{error}");
        }
        let twice = parse("[pool]\nprefixes = [\"10.99.0.0/24\", \"10.99.0.0/16\"]\n").unwrap_err();
        assert!(twice.contains("10.99.0.0/16 overlaps 10.99.0.0/24, which stands"), "{twice}");
    }

    #[test]
    fn none_of_its_addresses_is_ours() {
        let config = parse("[pool]\nprefixes = [\"10.99.0.0/24\"]\n").unwrap();
        let own = |address: &str| [address.parse().unwrap()];
        assert!(config.check_pool_against(&own("192.0.2.1")).is_ok());
        let error = config.check_pool_against(&own("10.99.0.1")).unwrap_err().to_string();
        assert_eq!(
            error,
            "x.toml:2: pool.prefixes: 10.99.0.0/24 holds 10.99.0.1, an address of this machine"
        );
    }
}
