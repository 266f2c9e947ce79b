//! Addresses: a prefix, and the (source, destination) pair that RFC 4322 §3.1 keys policy by.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An upper-layer protocol and its ports, as seen by packets on their way out; 0 is any.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Ports {
    protocol: u8,
    source: u16,
    destination: u16,
}

impl Ports {
    /// Whatever the protocol.
    pub const ANY: Self = Self { protocol: 0, source: 0, destination: 0 };
    /// The last in order.
    pub const MAX: Self = Self { protocol: u8::MAX, source: u16::MAX, destination: u16::MAX };

    /// `None` for ports of a protocol that has none (TCP, UDP, DCCP, SCTP and UDP-Lite do).
    #[must_use]
    pub fn new(protocol: u8, source: u16, destination: u16) -> Option<Self> {
        let ok = (source, destination) == (0, 0) || PORTED.contains(&protocol);
        ok.then_some(Self { protocol, source, destination })
    }

    /// Protocol, 0 for any.
    #[must_use]
    pub fn protocol(self) -> u8 {
        self.protocol
    }

    /// Source port, 0 for any.
    #[must_use]
    pub fn source(self) -> u16 {
        self.source
    }

    /// Destination port, 0 for any.
    #[must_use]
    pub fn destination(self) -> u16 {
        self.destination
    }

    /// Whether every packet matches.
    #[must_use]
    pub fn is_any(self) -> bool {
        self == Self::ANY
    }

    /// Whether everything that `other` matches also matches this.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        (self.protocol == 0 || self.protocol == other.protocol)
            && (self.source == 0 || self.source == other.source)
            && (self.destination == 0 || self.destination == other.destination)
    }

    /// Whether a packet without ports, a later fragment (RFC 4301 §7), may be one of these.
    #[must_use]
    pub fn may_match(self, protocol: u8) -> bool {
        self.protocol == 0 || self.protocol == protocol
    }

    /// The more of it is said, the more it counts: 0 for [`Self::ANY`], 3 for both ports.
    #[must_use]
    pub fn precision(self) -> u8 {
        let said = [self.protocol != 0, self.source != 0, self.destination != 0];
        said.into_iter().map(u8::from).sum()
    }

    /// Of two rules that match, the one with the higher rank decides, as [`Self::wider`] has it.
    #[must_use]
    pub fn rank(self) -> (u8, bool) {
        (self.precision(), self.destination != 0)
    }

    /// This and everything wider that covers it, most precise first; the destination's port says
    /// more than the source's.
    #[must_use]
    pub fn wider(self) -> [Self; 5] {
        let Self { protocol, source, destination } = self;
        [
            self,
            Self { protocol, source: 0, destination },
            Self { protocol, source, destination: 0 },
            Self { protocol, source: 0, destination: 0 },
            Self::ANY,
        ]
    }

    /// As seen by packets on their way in.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self { source: self.destination, destination: self.source, ..self }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.protocol, self.source, self.destination)
    }
}

/// Protocols with ports where TCP has them: TCP, UDP, DCCP, SCTP, UDP-Lite.
const PORTED: [u8; 5] = [6, 17, 33, 132, 136];

/// A (source, destination) address pair, both of one family: the key of the forwarding plane's
/// table (RFC 4322 §3.1), as seen by packets on their way out. Where a policy group is for single
/// ports, a flow is what it says of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Flow {
    src: IpAddr,
    dst: IpAddr,
    ports: Ports,
}

impl Hash for Flow {
    // Every packet is looked up by this, and hardly any flow has ports.
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.src.hash(state);
        self.dst.hash(state);
        if !self.ports.is_any() {
            self.ports.hash(state);
        }
    }
}

impl Flow {
    /// Pairs two addresses, whatever the ports; `None` if they are of different families.
    #[must_use]
    #[inline]
    pub fn new(src: IpAddr, dst: IpAddr) -> Option<Self> {
        (src.is_ipv4() == dst.is_ipv4()).then_some(Self { src, dst, ports: Ports::ANY })
    }

    /// The part of it with these ports.
    #[must_use]
    pub fn with_ports(self, ports: Ports) -> Self {
        Self { ports, ..self }
    }

    /// Its protocol and ports.
    #[must_use]
    pub fn ports(&self) -> Ports {
        self.ports
    }

    /// The local end: our address, or that of a host behind us.
    #[must_use]
    pub fn src(&self) -> IpAddr {
        self.src
    }

    /// The far end.
    #[must_use]
    pub fn dst(&self) -> IpAddr {
        self.dst
    }

    /// The same pair as seen by packets on their way in.
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self { src: self.dst, dst: self.src, ports: self.ports.reversed() }
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.src, self.dst)?;
        if self.ports.is_any() { Ok(()) } else { write!(f, " ({})", self.ports) }
    }
}

/// An address prefix with its host bits zero. IPv4 sorts before IPv6.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    addr: IpAddr,
    len: u8,
}

/// A pair of prefixes of one family, as seen by packets on their way out: what a configured
/// connection carries (RFC 4301 §4.4.1, an SPD entry's address selectors).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Subnets {
    local: Prefix,
    remote: Prefix,
}

impl Subnets {
    /// Pairs two prefixes; `None` if they are of different families.
    #[must_use]
    pub fn new(local: Prefix, remote: Prefix) -> Option<Self> {
        (local.addr.is_ipv4() == remote.addr.is_ipv4()).then_some(Self { local, remote })
    }

    /// The near end.
    #[must_use]
    pub fn local(&self) -> Prefix {
        self.local
    }

    /// The far end.
    #[must_use]
    pub fn remote(&self) -> Prefix {
        self.remote
    }

    /// Whether a flow lies between the two.
    #[must_use]
    pub fn contains(&self, flow: &Flow) -> bool {
        self.local.contains(flow.src) && self.remote.contains(flow.dst)
    }
}

impl fmt::Display for Subnets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.local, self.remote)
    }
}

/// Why a prefix was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PrefixError {
    /// The address part is not an IPv4 or IPv6 address.
    Address,
    /// The length is not a number, or longer than the family allows (32 or 128 bits).
    Length,
}

impl fmt::Display for PrefixError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Address => "not an IPv4 or IPv6 address",
            Self::Length => "prefix length must be a number from 0 to 32 (IPv4) or 128 (IPv6)",
        })
    }
}

impl std::error::Error for PrefixError {}

impl Prefix {
    /// Every IPv4 address.
    pub const ALL_V4: Self = Self { addr: IpAddr::V4(Ipv4Addr::UNSPECIFIED), len: 0 };
    /// Every IPv6 address.
    pub const ALL_V6: Self = Self { addr: IpAddr::V6(Ipv6Addr::UNSPECIFIED), len: 0 };

    /// The prefix of `len` bits that holds `addr`; host bits are zeroed.
    ///
    /// # Errors
    /// [`PrefixError::Length`] if `len` exceeds the family's bits.
    pub fn new(addr: IpAddr, len: u8) -> Result<Self, PrefixError> {
        let addr = match addr {
            IpAddr::V4(a) => {
                let mask = mask(len, 32).ok_or(PrefixError::Length)?;
                // The mask of a 32-bit family sits in the low half.
                let bits = u128::from(u32::from(a)) & mask;
                IpAddr::V4(Ipv4Addr::from(u32::try_from(bits).unwrap_or(0)))
            }
            IpAddr::V6(a) => {
                let mask = mask(len, 128).ok_or(PrefixError::Length)?;
                IpAddr::V6(Ipv6Addr::from(u128::from(a) & mask))
            }
        };
        Ok(Self { addr, len })
    }

    /// The fewest prefixes that make up `first..=last`, both of one family.
    #[must_use]
    pub fn of_range(first: IpAddr, last: IpAddr) -> Vec<Self> {
        let bits = if first.is_ipv4() { 32 } else { 128 };
        let number = |addr| match addr {
            IpAddr::V4(a) => u128::from(u32::from(a)),
            IpAddr::V6(a) => u128::from(a),
        };
        let address = |n: u128| match first {
            IpAddr::V4(_) => IpAddr::V4(u32::try_from(n).unwrap_or(u32::MAX).into()),
            IpAddr::V6(_) => IpAddr::V6(n.into()),
        };
        let (mut at, end) = (number(first), number(last));
        let mut prefixes = Vec::new();
        while at <= end {
            // The largest block that starts here and does not pass the end.
            let mut host = at.trailing_zeros().min(bits);
            let block_end = |host: u32| at | u128::MAX.checked_shr(128 - host).unwrap_or(0);
            while block_end(host) > end {
                host -= 1;
            }
            let len = u8::try_from(bits - host).unwrap_or(0);
            prefixes.extend(Self::new(address(at), len));
            match block_end(host).checked_add(1) {
                Some(next) => at = next,
                None => break,
            }
        }
        prefixes
    }

    /// The prefix of this one address, /32 or /128.
    #[must_use]
    pub fn host(addr: IpAddr) -> Self {
        Self { addr, len: if addr.is_ipv4() { 32 } else { 128 } }
    }

    /// The first address.
    #[must_use]
    pub fn addr(&self) -> IpAddr {
        self.addr
    }

    /// The number of leading bits that are fixed.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "the RFCs' own word; a prefix is never empty")]
    pub fn len(&self) -> u8 {
        self.len
    }

    /// Whether it is a single address.
    #[must_use]
    pub fn is_host(&self) -> bool {
        self.len == if self.addr.is_ipv4() { 32 } else { 128 }
    }

    /// The last address.
    #[must_use]
    pub fn last(&self) -> IpAddr {
        match self.addr {
            IpAddr::V4(a) => {
                let host = u32::MAX.checked_shr(self.len.into()).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from(u32::from(a) | host))
            }
            IpAddr::V6(a) => {
                let host = u128::MAX.checked_shr(self.len.into()).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from(u128::from(a) | host))
            }
        }
    }

    /// Whether `addr` lies in this prefix. Families never match each other.
    #[must_use]
    pub fn contains(&self, addr: IpAddr) -> bool {
        Self::new(addr, self.len).is_ok_and(|p| p.addr == self.addr)
    }

    /// Whether every address of `other` lies in this prefix.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.len <= other.len && self.contains(other.addr)
    }
}

/// The mask of `len` leading bits in a family of `bits` bits; `None` if `len` is too long.
fn mask(len: u8, bits: u8) -> Option<u128> {
    let host = bits.checked_sub(len)?;
    let all = u128::MAX.checked_shr(u32::from(128 - bits)).unwrap_or(0);
    Some(all & u128::MAX.checked_shl(host.into()).unwrap_or(0))
}

impl FromStr for Prefix {
    type Err = PrefixError;

    /// `192.0.2.0/24`, `2001:db8::/32`, or a bare address, which is its own host prefix.
    fn from_str(s: &str) -> Result<Self, PrefixError> {
        let Some((addr, len)) = s.split_once('/') else {
            return s.parse().map(Self::host).map_err(|_| PrefixError::Address);
        };
        let addr = addr.parse().map_err(|_| PrefixError::Address)?;
        // Digits only: `u8::from_str` would also take "+24".
        if len.is_empty() || !len.bytes().all(|b| b.is_ascii_digit()) {
            return Err(PrefixError::Length);
        }
        Self::new(addr, len.parse().map_err(|_| PrefixError::Length)?)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(s: &str) -> Prefix {
        s.parse().unwrap()
    }

    #[test]
    fn ranges_become_prefixes() {
        let ip = |s: &str| s.parse::<IpAddr>().unwrap();
        let text = |a: &str, b: &str| {
            Prefix::of_range(ip(a), ip(b)).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(text("10.0.0.0", "10.0.0.255"), ["10.0.0.0/24"]);
        assert_eq!(text("10.0.0.1", "10.0.0.1"), ["10.0.0.1/32"]);
        assert_eq!(text("0.0.0.0", "255.255.255.255"), ["0.0.0.0/0"]);
        let all = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        assert_eq!(text("::", all), ["::/0"]);
        assert_eq!(
            text("10.0.0.1", "10.0.0.6"),
            ["10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/31", "10.0.0.6/32"]
        );
        assert_eq!(Prefix::of_range(ip("::1"), ip(all)).len(), 128);
    }

    #[test]
    fn host_bits_are_zeroed() {
        assert_eq!(p("192.0.2.77/28").to_string(), "192.0.2.64/28");
        assert_eq!(p("2001:db8::ffff/112").to_string(), "2001:db8::/112");
        assert_eq!(p("255.255.255.255/0"), Prefix::ALL_V4);
        assert_eq!(p("ffff::/0"), Prefix::ALL_V6);
    }

    #[test]
    fn containment_and_cover() {
        assert!(p("192.0.2.64/28").contains("192.0.2.79".parse().unwrap()));
        assert!(!p("192.0.2.64/28").contains("192.0.2.80".parse().unwrap()));
        assert!(Prefix::ALL_V4.covers(&p("10.0.0.0/8")));
        assert!(!p("10.0.0.0/8").covers(&Prefix::ALL_V4));
        assert!(!Prefix::ALL_V4.contains("::1".parse().unwrap()));
        assert_eq!(p("192.0.2.64/28").last(), "192.0.2.79".parse::<IpAddr>().unwrap());
        assert_eq!(p("::/0").last(), IpAddr::V6(Ipv6Addr::from(u128::MAX)));
    }

    #[test]
    fn bad_text_is_refused() {
        for (text, error) in [
            ("", PrefixError::Address),
            ("300.0.0.1", PrefixError::Address),
            ("192.0.2.0/33", PrefixError::Length),
            ("192.0.2.0/+24", PrefixError::Length),
            ("192.0.2.0/", PrefixError::Length),
            ("::/129", PrefixError::Length),
        ] {
            assert_eq!(text.parse::<Prefix>(), Err(error), "{text}");
        }
    }

    #[test]
    fn flows_are_of_one_family() {
        let v4 = "192.0.2.1".parse().unwrap();
        let v6 = "2001:db8::1".parse().unwrap();
        assert!(Flow::new(v4, v6).is_none());
        let flow = Flow::new(v4, "192.0.2.2".parse().unwrap()).unwrap();
        assert_eq!(flow.reversed().reversed(), flow);
    }
}
