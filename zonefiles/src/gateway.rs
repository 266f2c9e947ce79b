//! Which gateways can speak for which addresses: what a generator refuses and a check reports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dnskeys::{Gateway, RsaKey, Weakness};

use crate::host::Host;
use crate::reverse::Prefix;

/// What is wrong with what a host would publish.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum HostFault {
    /// The list and the prefix are of different families.
    #[error("address of the other family than the prefix")]
    Family,
    /// Not in the prefix that is being written.
    #[error("address outside the prefix")]
    Outside,
    /// Nobody can be called there.
    #[error("address is {0}: no host has it")]
    Address(Scope),
    /// Nobody can be called there.
    #[error("gateway is {0}")]
    Gateway(Scope),
    /// Who sees the public host cannot reach the gateway.
    #[error("gateway is private, but the host is public: strangers cannot reach it")]
    PrivateGateway,
    /// Too weak to authenticate anybody.
    #[error("RSA key of {0} bits; peers refuse less than 2048")]
    ShortKey(usize),
    /// FreeS/WAN's keys.
    #[error("RSA key with exponent {0}; peers refuse it unless they are configured for old keys")]
    Exponent(u64),
    /// A gateway without its key.
    #[error("gateway without a key: peers must ask for the gateway's own record, old ones crash")]
    NoKey,
    /// IPSECKEY's precedence has one octet.
    #[error("precedence {0}; IPSECKEY holds at most 255")]
    Precedence(u16),
}

/// A special kind of address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Scope {
    /// `0.0.0.0`, `::`.
    Unspecified,
    /// `127.0.0.0/8`, `::1`.
    Loopback,
    /// `169.254.0.0/16`, `fe80::/10`.
    LinkLocal,
    /// `224.0.0.0/4`, `ff00::/8`.
    Multicast,
    /// `255.255.255.255`.
    Broadcast,
    /// RFC 1918, RFC 6598, RFC 4193.
    Private,
    /// Anything else.
    Public,
}

impl Scope {
    /// The kind of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            a if a.is_unspecified() => Self::Unspecified,
            a if a.is_loopback() => Self::Loopback,
            a if a.is_multicast() => Self::Multicast,
            IpAddr::V4(a) => Self::of_v4(a),
            IpAddr::V6(a) => Self::of_v6(a),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        let [first, second, ..] = address.octets();
        let shared = first == 100 && second & 0xc0 == 64;
        match address {
            a if a.is_broadcast() => Self::Broadcast,
            a if a.is_link_local() => Self::LinkLocal,
            a if a.is_private() || shared => Self::Private,
            _ => Self::Public,
        }
    }

    fn of_v6(address: Ipv6Addr) -> Self {
        match address {
            a if a.is_unicast_link_local() => Self::LinkLocal,
            a if a.is_unique_local() => Self::Private,
            _ => Self::Public,
        }
    }

    /// Whether a packet can be sent to one such host from elsewhere.
    #[must_use]
    pub fn is_reachable(self) -> bool {
        matches!(self, Self::Private | Self::Public)
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unspecified => "unspecified",
            Self::Loopback => "loopback",
            Self::LinkLocal => "link-local",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
            Self::Private => "private",
            Self::Public => "public",
        })
    }
}

impl HostFault {
    /// Whether it is a reason not to write the host. The others are told and written.
    #[must_use]
    pub fn is_fatal(self) -> bool {
        !matches!(self, Self::Exponent(_) | Self::NoKey | Self::Precedence(_))
    }
}

/// Everything that is wrong with a host, which should lie in one of the prefixes if there are any.
#[must_use]
pub fn faults(host: &Host, prefixes: &[Prefix]) -> Vec<HostFault> {
    let mut faults = Vec::new();
    if !prefixes.is_empty() && !prefixes.iter().any(|prefix| prefix.contains(host.address)) {
        let family = prefixes.iter().any(|p| p.address().is_ipv4() == host.address.is_ipv4());
        faults.push(if family { HostFault::Outside } else { HostFault::Family });
    }
    let scope = Scope::of(host.address);
    if !scope.is_reachable() {
        faults.push(HostFault::Address(scope));
    }
    if let Gateway::Address(gateway) = host.gateway {
        faults.extend(gateway_fault(host.address, gateway));
    }
    match &host.key {
        Some(key) => faults.extend(key_fault(key)),
        None if host.gateway != Gateway::Own => faults.push(HostFault::NoKey),
        None => {}
    }
    if host.precedence > u16::from(u8::MAX) {
        faults.push(HostFault::Precedence(host.precedence));
    }
    faults
}

/// What is wrong with a gateway for an address.
#[must_use]
pub fn gateway_fault(host: IpAddr, gateway: IpAddr) -> Option<HostFault> {
    match Scope::of(gateway) {
        Scope::Private if Scope::of(host) == Scope::Public => Some(HostFault::PrivateGateway),
        scope if !scope.is_reachable() => Some(HostFault::Gateway(scope)),
        _ => None,
    }
}

/// What is wrong with a key.
#[must_use]
pub fn key_fault(key: &RsaKey) -> Option<HostFault> {
    key.weakness().map(|weakness| match weakness {
        Weakness::ShortModulus => HostFault::ShortKey(key.bits()),
        Weakness::SmallExponent => HostFault::Exponent(key.exponent_value()),
    })
}
