//! Which zone an address is published in: reverse names, zone cuts at octets and nibbles, and the
//! classless zones of RFC 2317.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::name::Name;
use crate::record::Record;
use crate::zone::{Apex, Zone};

/// An address prefix without host bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    address: IpAddr,
    len: u8,
}

/// Why a prefix was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PrefixError {
    /// Not an address in front of the slash.
    #[error("expected ADDRESS or ADDRESS/LENGTH")]
    Address,
    /// Not a number after it, or more than the family has.
    #[error("prefix length over {0}, or not a number")]
    Length(u8),
    /// Bits beyond the length.
    #[error("address bits beyond the prefix length")]
    HostBits,
}

/// A zone of the reverse tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReverseZone {
    /// Its apex.
    pub origin: Name,
    /// The addresses it is for.
    pub prefix: Prefix,
    /// How many labels an owner has below the apex.
    own_labels: usize,
}

/// How the apex of a classless zone is called (RFC 2317 §4, §5.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ClasslessName {
    /// `96/28`, as the RFC's examples.
    #[default]
    Slash,
    /// `96-28`, for software that takes no slash.
    Dash,
    /// `96-111`, first and last.
    Range,
}

impl Prefix {
    /// A prefix from its parts.
    ///
    /// # Errors
    /// The length is over the family's, or the address has bits beyond it.
    pub fn new(address: IpAddr, len: u8) -> Result<Self, PrefixError> {
        let width = width(address);
        if len > width {
            return Err(PrefixError::Length(width));
        }
        if bits(address) & host_mask(width, len) != 0 {
            return Err(PrefixError::HostBits);
        }
        Ok(Self { address, len })
    }

    /// The single address as a prefix.
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        Self { address, len: width(address) }
    }

    /// The prefix of that length around an address, or the address alone if it has fewer bits.
    #[must_use]
    pub fn around(address: IpAddr, len: u8) -> Self {
        let len = len.min(width(address));
        let mask = host_mask(width(address), len);
        Self { address: from_bits(address, bits(address) & !mask), len }
    }

    /// Its first address.
    #[must_use]
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// Its length in bits.
    #[must_use]
    pub fn prefix_len(self) -> u8 {
        self.len
    }

    /// Its last address.
    #[must_use]
    pub fn last(self) -> IpAddr {
        let width = width(self.address);
        from_bits(self.address, bits(self.address) | host_mask(width, self.len))
    }

    /// Whether an address is inside.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        let width = width(self.address);
        width == self::width(address)
            && bits(address) & !host_mask(width, self.len) == bits(self.address)
    }

    /// How many addresses it has; all of IPv6 saturates.
    #[must_use]
    pub fn count(self) -> u128 {
        let free = u32::from(width(self.address) - self.len);
        1_u128.checked_shl(free).unwrap_or(u128::MAX)
    }

    /// Every address, in ascending order, one at a time.
    pub fn addresses(self) -> impl Iterator<Item = IpAddr> {
        let base = bits(self.address);
        let last = base | host_mask(width(self.address), self.len);
        (base..=last).map(move |bits| from_bits(self.address, bits))
    }

    /// The prefixes of `len` bits that make it up; itself if it is longer already.
    pub fn split(self, len: u8) -> impl Iterator<Item = Self> {
        let width = width(self.address);
        let len = len.clamp(self.len, width);
        let step = 1_u128.checked_shl(u32::from(width - len)).unwrap_or(0);
        let count = 1_u128.checked_shl(u32::from(len - self.len)).unwrap_or(u128::MAX);
        let base = bits(self.address);
        (0..count).map(move |i| Self { address: from_bits(self.address, base + i * step), len })
    }
}

impl ReverseZone {
    /// The zones that the prefix consists of: cut at octets (IPv4, /8 to /24) or nibbles (IPv6).
    /// An IPv4 prefix longer than /24 is one classless zone.
    pub fn of(prefix: Prefix, style: ClasslessName) -> impl Iterator<Item = Self> {
        prefix.split(cut(prefix)).map(move |prefix| Self::at(prefix, style))
    }

    /// The one of [`Self::of`] that holds an address of the prefix.
    #[must_use]
    pub fn holding(address: IpAddr, prefix: Prefix, style: ClasslessName) -> Option<Self> {
        if !prefix.contains(address) {
            return None;
        }
        let len = cut(prefix);
        Some(Self::at(Prefix::around(address, len), style))
    }

    /// The zone at the nearest cut that holds the whole prefix: a /28 in its /24, a /20 in its /16.
    #[must_use]
    pub fn around(prefix: Prefix) -> Self {
        let (step, most) = match prefix.address {
            IpAddr::V4(_) => (8, 24),
            IpAddr::V6(_) => (4, 124),
        };
        let len = (prefix.len / step * step).min(most);
        Self::at(Prefix::around(prefix.address, len), ClasslessName::default())
    }

    fn at(prefix: Prefix, style: ClasslessName) -> Self {
        let reverse = Name::reverse(prefix.address);
        let step = if prefix.address.is_ipv4() { 8 } else { 4 };
        let below = usize::from((width(prefix.address) - prefix.len).div_ceil(step));
        if prefix.address.is_ipv4() && prefix.len > 24 {
            let parent = skip_labels(&reverse, 1);
            let origin = parent.prepend(classless_label(prefix, style).as_bytes());
            return Self { origin: origin.unwrap_or(parent), prefix, own_labels: 1 };
        }
        Self { origin: skip_labels(&reverse, below), prefix, own_labels: below }
    }

    /// Where an address publishes in this zone. An address outside the prefix gets its plain
    /// reverse name.
    #[must_use]
    pub fn owner(&self, address: IpAddr) -> Name {
        let reverse = Name::reverse(address);
        if !self.is_classless() || !self.prefix.contains(address) {
            return reverse;
        }
        let label = reverse.labels().next().unwrap_or_default();
        self.origin.prepend(label).unwrap_or(reverse)
    }

    /// Writes the labels of an address's owner below the apex, as [`Self::owner`] would be written
    /// relative to it: `11`, `3.2.0`, `1.0.0.0`.
    pub(crate) fn write_own_labels(&self, out: &mut Vec<u8>, address: IpAddr) {
        match address {
            IpAddr::V4(a) => {
                for (i, octet) in a.octets().iter().rev().take(self.own_labels).enumerate() {
                    if i > 0 {
                        out.push(b'.');
                    }
                    write_octet(out, *octet);
                }
            }
            IpAddr::V6(a) => {
                let bits = a.to_bits();
                for i in 0..self.own_labels {
                    if i > 0 {
                        out.push(b'.');
                    }
                    let digit = (bits >> (4 * i)) & 0xf;
                    out.extend(HEX.get(usize::try_from(digit).unwrap_or(0)));
                }
            }
        }
    }

    /// Whether it is a zone of RFC 2317, which the parent's CNAMEs must point into.
    #[must_use]
    pub fn is_classless(&self) -> bool {
        self.prefix.address.is_ipv4() && self.prefix.len > 24
    }

    /// What the parent needs so that this zone is found: NS, and a CNAME for each address if it is
    /// classless (RFC 2317 §4).
    pub fn in_parent<'a>(&'a self, apex: &'a Apex) -> impl Iterator<Item = Record> {
        let delegation = apex.servers.iter().map(|s| Record::ns(self.origin.clone(), apex.ttl, s));
        let aliases = self.is_classless().then(|| self.prefix.addresses());
        let aliases = aliases
            .into_iter()
            .flatten()
            .map(|a| Record::cname(Name::reverse(a), apex.ttl, &self.owner(a)));
        delegation.chain(aliases)
    }

    /// The zone that holds the delegation.
    #[must_use]
    pub fn parent_origin(&self) -> Name {
        self.origin.parent().unwrap_or_else(Name::root)
    }

    /// SOA and NS.
    #[must_use]
    pub fn empty(&self, apex: &Apex) -> Zone {
        Zone::new(self.origin.clone(), apex)
    }
}

/// The address whose reverse name this is, if it is one.
#[must_use]
pub fn address_of(name: &Name) -> Option<IpAddr> {
    let labels: Vec<&[u8]> = name.labels().collect();
    let (own, suffix) = labels.split_at_checked(labels.len().checked_sub(2)?)?;
    let &[family, arpa] = suffix else { return None };
    if !arpa.eq_ignore_ascii_case(b"arpa") {
        return None;
    }
    if family.eq_ignore_ascii_case(b"in-addr") {
        let mut octets = [0_u8; 4];
        if own.len() != octets.len() {
            return None;
        }
        for (octet, label) in octets.iter_mut().rev().zip(own) {
            *octet = std::str::from_utf8(label).ok()?.parse().ok()?;
        }
        return Some(Ipv4Addr::from(octets).into());
    }
    if !family.eq_ignore_ascii_case(b"ip6") || own.len() != 32 {
        return None;
    }
    let mut bits = 0_u128;
    for label in own.iter().rev() {
        let &[digit] = *label else { return None };
        bits = bits << 4 | u128::from(char::from(digit).to_digit(16)?);
    }
    Some(Ipv6Addr::from(bits).into())
}

impl FromStr for Prefix {
    type Err = PrefixError;

    /// `192.0.2.96/28`; a bare address is the prefix of itself alone.
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let Some((address, len)) = text.split_once('/') else {
            return text.parse().map(Self::host).map_err(|_| PrefixError::Address);
        };
        let address: IpAddr = address.parse().map_err(|_| PrefixError::Address)?;
        let len = len.parse().map_err(|_| PrefixError::Length(width(address)))?;
        Self::new(address, len)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Decimal without the machinery of formatting: this is written for every host of a /8.
pub(crate) fn write_octet(out: &mut Vec<u8>, octet: u8) {
    if octet >= 100 {
        out.push(b'0' + octet / 100);
    }
    if octet >= 10 {
        out.push(b'0' + octet / 10 % 10);
    }
    out.push(b'0' + octet % 10);
}

fn skip_labels(name: &Name, count: usize) -> Name {
    (0..count).fold(name.clone(), |name, _| name.parent().unwrap_or_else(Name::root))
}

fn cut(prefix: Prefix) -> u8 {
    match prefix.address {
        IpAddr::V4(_) if prefix.len > 24 => prefix.len,
        IpAddr::V4(_) => prefix.len.div_ceil(8).max(1) * 8,
        IpAddr::V6(_) => prefix.len.div_ceil(4).max(1) * 4,
    }
}

fn classless_label(prefix: Prefix, style: ClasslessName) -> String {
    let last_octet = |address: IpAddr| bits(address) & 0xff;
    let first = last_octet(prefix.address);
    match style {
        ClasslessName::Slash => format!("{first}/{}", prefix.len),
        ClasslessName::Dash => format!("{first}-{}", prefix.len),
        ClasslessName::Range => format!("{first}-{}", last_octet(prefix.last())),
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(a.to_bits()),
        IpAddr::V6(a) => a.to_bits(),
    }
}

fn from_bits(like: IpAddr, bits: u128) -> IpAddr {
    match like {
        // Only IPv4's own bits ever get here.
        IpAddr::V4(_) => Ipv4Addr::from_bits(u32::try_from(bits).unwrap_or(u32::MAX)).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(bits).into(),
    }
}

fn host_mask(width: u8, len: u8) -> u128 {
    let free = u32::from(width.saturating_sub(len));
    1_u128.checked_shl(free).map_or(u128::MAX, |bit| bit - 1)
}

const HEX: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(prefix: &str) -> Vec<String> {
        let prefix = prefix.parse().unwrap();
        ReverseZone::of(prefix, ClasslessName::Slash).map(|z| z.origin.to_string()).collect()
    }

    #[test]
    fn zones_of_a_prefix() {
        assert_eq!(origins("192.0.2.0/24"), ["2.0.192.in-addr.arpa."]);
        assert_eq!(origins("198.51.100.0/23").len(), 2);
        assert_eq!(origins("198.51.100.0/23")[1], "101.51.198.in-addr.arpa.");
        assert_eq!(origins("10.0.0.0/8"), ["10.in-addr.arpa."]);
        assert_eq!(origins("192.0.2.96/28"), ["96/28.2.0.192.in-addr.arpa."]);
        assert_eq!(origins("2001:db8::/32"), ["8.b.d.0.1.0.0.2.ip6.arpa."]);
        assert_eq!(origins("2001:db8::/31").len(), 2);
        assert_eq!(origins("0.0.0.0/0").len(), 256);
    }

    #[test]
    fn classless_zones_are_reached_by_cnames() {
        let zone =
            ReverseZone::of("192.0.2.96/28".parse().unwrap(), ClasslessName::Range).next().unwrap();
        assert_eq!(zone.origin.to_string(), "96-111.2.0.192.in-addr.arpa.");
        let apex = Apex::new("ns.example.net".parse().unwrap(), 1);
        let parent: Vec<String> = zone.in_parent(&apex).map(|r| r.to_string()).collect();
        assert_eq!(parent.len(), 17);
        assert_eq!(
            parent[2],
            "97.2.0.192.in-addr.arpa.\t3600\tIN\tCNAME\t97.96-111.2.0.192.in-addr.arpa."
        );
        let host = "192.0.2.97".parse().unwrap();
        assert_eq!(zone.owner(host).to_string(), "97.96-111.2.0.192.in-addr.arpa.");
    }

    #[test]
    fn around() {
        for (prefix, origin) in [
            ("192.0.2.96/28", "2.0.192.in-addr.arpa."),
            ("192.0.2.7", "2.0.192.in-addr.arpa."),
            ("198.51.96.0/20", "51.198.in-addr.arpa."),
            (
                "2001:db8::1",
                "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.",
            ),
        ] {
            let zone = ReverseZone::around(prefix.parse().unwrap());
            assert_eq!(zone.origin.to_string(), origin, "{prefix}");
        }
    }

    #[test]
    fn reverse_names_lead_back() {
        for text in ["192.0.2.11", "2001:db8::1"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(address_of(&Name::reverse(address)), Some(address));
        }
        assert_eq!(address_of(&"2.0.192.in-addr.arpa".parse().unwrap()), None);
        assert_eq!(address_of(&"256.2.0.192.in-addr.arpa".parse().unwrap()), None);
    }

    #[test]
    fn bad_prefixes() {
        assert_eq!(Prefix::from_str("192.0.2.1/24"), Err(PrefixError::HostBits));
        assert_eq!(Prefix::from_str("192.0.2.0/33"), Err(PrefixError::Length(32)));
        assert_eq!(Prefix::from_str("host/24"), Err(PrefixError::Address));
    }
}
