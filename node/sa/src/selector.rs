//! Traffic selectors (RFC 7296 §3.13.1; RFC 4301 §4.4.1.1).

use std::fmt;
use std::net::IpAddr;

use crate::addr::Prefix;

/// One traffic selector: an address range, an upper-layer protocol, a port range.
///
/// ```text
///  TS Type | IP Protocol ID | Selector Length
///  Start Port               | End Port
///  Starting Address … Ending Address               RFC 7296 §3.13.1
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TrafficSelector {
    first: IpAddr,
    last: IpAddr,
    protocol: u8,
    first_port: u16,
    last_port: u16,
}

impl TrafficSelector {
    /// A selector over `first..=last`; protocol 0 means any. `None` if the addresses are of two
    /// families or either range is empty.
    ///
    /// The one exception is OPAQUE, the port range 65535..=0 (RFC 7296 §3.13.1), which no packet
    /// of ours ever matches and which is refused here like any other empty range.
    #[must_use]
    pub fn new(first: IpAddr, last: IpAddr, protocol: u8, ports: (u16, u16)) -> Option<Self> {
        let ok = first.is_ipv4() == last.is_ipv4() && first <= last && ports.0 <= ports.1;
        ok.then_some(Self { first, last, protocol, first_port: ports.0, last_port: ports.1 })
    }

    /// Everything to or from one address.
    #[must_use]
    pub fn host(addr: IpAddr) -> Self {
        Self::prefix(Prefix::host(addr))
    }

    /// Everything to or from a prefix.
    #[must_use]
    pub fn prefix(prefix: Prefix) -> Self {
        Self {
            first: prefix.addr(),
            last: prefix.last(),
            protocol: 0,
            first_port: 0,
            last_port: u16::MAX,
        }
    }

    /// First and last address.
    #[must_use]
    pub fn addresses(&self) -> (IpAddr, IpAddr) {
        (self.first, self.last)
    }

    /// Upper-layer protocol, 0 for any.
    #[must_use]
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// First and last port.
    #[must_use]
    pub fn ports(&self) -> (u16, u16) {
        (self.first_port, self.last_port)
    }

    /// The one address of a single-address selector.
    #[must_use]
    pub fn as_host(&self) -> Option<IpAddr> {
        (self.first == self.last).then_some(self.first)
    }

    /// Whether a packet with this address, protocol and port (0 where the protocol has none)
    /// matches.
    #[must_use]
    pub fn matches(&self, addr: IpAddr, protocol: u8, port: u16) -> bool {
        self.contains(addr)
            && (self.protocol == 0 || self.protocol == protocol)
            && (self.first_port..=self.last_port).contains(&port)
    }

    /// Whether the address lies in the range, whatever the protocol.
    #[must_use]
    pub fn contains(&self, addr: IpAddr) -> bool {
        addr.is_ipv4() == self.first.is_ipv4() && self.first <= addr && addr <= self.last
    }

    /// The part that both selectors match, as narrowing wants it (RFC 7296 §2.9).
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        if self.first.is_ipv4() != other.first.is_ipv4() {
            return None;
        }
        let protocol = match (self.protocol, other.protocol) {
            (a, 0) => a,
            (0, b) => b,
            (a, b) if a == b => a,
            _ => return None,
        };
        Self::new(
            self.first.max(other.first),
            self.last.min(other.last),
            protocol,
            (self.first_port.max(other.first_port), self.last_port.min(other.last_port)),
        )
    }

    /// Whether every packet that `other` matches also matches this selector.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.intersection(other) == Some(*other)
    }
}

impl fmt::Display for TrafficSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_host() {
            Some(addr) => write!(f, "{addr}")?,
            None => write!(f, "{}-{}", self.first, self.last)?,
        }
        if self.protocol != 0 || self.ports() != (0, u16::MAX) {
            write!(f, "[{}/{}-{}]", self.protocol, self.first_port, self.last_port)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(s: &str) -> IpAddr {
        s.parse().unwrap()
    }

    #[test]
    fn narrowing_takes_the_common_part() {
        let wide = TrafficSelector::prefix("10.0.0.0/8".parse().unwrap());
        let host = TrafficSelector::host(ip("10.1.2.3"));
        assert_eq!(wide.intersection(&host), Some(host));
        assert!(wide.covers(&host) && !host.covers(&wide));
        let tcp = TrafficSelector::new(ip("10.1.2.3"), ip("10.1.2.3"), 6, (80, 80)).unwrap();
        assert_eq!(host.intersection(&tcp), Some(tcp));
        let udp = TrafficSelector::new(ip("10.1.2.3"), ip("10.1.2.3"), 17, (80, 80)).unwrap();
        assert_eq!(tcp.intersection(&udp), None);
        assert_eq!(wide.intersection(&TrafficSelector::host(ip("2001:db8::1"))), None);
    }

    #[test]
    fn empty_and_mixed_ranges_are_refused() {
        assert!(TrafficSelector::new(ip("10.0.0.2"), ip("10.0.0.1"), 0, (0, 65535)).is_none());
        assert!(TrafficSelector::new(ip("10.0.0.1"), ip("::1"), 0, (0, 65535)).is_none());
        assert!(TrafficSelector::new(ip("10.0.0.1"), ip("10.0.0.1"), 6, (65535, 0)).is_none());
    }

    #[test]
    fn matching_minds_protocol_and_port() {
        let ts = TrafficSelector::new(ip("10.0.0.1"), ip("10.0.0.9"), 6, (80, 443)).unwrap();
        assert!(ts.matches(ip("10.0.0.5"), 6, 443));
        assert!(!ts.matches(ip("10.0.0.5"), 17, 443));
        assert!(!ts.matches(ip("10.0.0.5"), 6, 444));
        assert!(!ts.matches(ip("10.0.0.10"), 6, 80));
    }
}
