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
    /// families or either range is empty, [`OPAQUE`] excepted.
    #[must_use]
    pub fn new(first: IpAddr, last: IpAddr, protocol: u8, ports: (u16, u16)) -> Option<Self> {
        let some_ports = ports.0 <= ports.1 || ports == OPAQUE;
        let ok = first.is_ipv4() == last.is_ipv4() && first <= last && some_ports;
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

    /// First and last port, or [`OPAQUE`].
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
        let ports = match (self.ports(), other.ports()) {
            (ports, ANY) | (ANY, ports) => ports,
            (one, other) if one == other => one,
            (OPAQUE, _) | (_, OPAQUE) => return None,
            // Of two ranges that do not meet the ends are not a range, and may be OPAQUE's.
            (one, other) if one.1 < other.0 || other.1 < one.0 => return None,
            (one, other) => (one.0.max(other.0), one.1.min(other.1)),
        };
        Self::new(self.first.max(other.first), self.last.min(other.last), protocol, ports)
    }

    /// For all protocols and ports: addresses alone decide.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.protocol == 0 && self.ports() == ANY
    }

    /// Whether every packet that `other` matches also matches this selector.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.intersection(other) == Some(*other)
    }
}

/// A port range that stands for "not there to be looked at": in a later fragment, in a protocol that
/// has no ports (RFC 4301 §4.4.1.1, RFC 7296 §3.13.1). All ports encompass it.
pub const OPAQUE: (u16, u16) = (u16::MAX, 0);
/// All ports, and what has none.
const ANY: (u16, u16) = (0, u16::MAX);

/// What selectors look at of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Traffic {
    /// Inner source.
    pub src: IpAddr,
    /// Inner destination.
    pub dst: IpAddr,
    /// Upper-layer protocol.
    pub protocol: u8,
    /// What of that can be seen.
    pub fields: Fields,
}

/// The fields of a packet's upper layer (RFC 4301 §4.4.1.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fields {
    /// Source and destination port.
    Ports(u16, u16),
    /// ICMP type and code, the type in the high octet.
    Kind(u16),
    /// The protocol has none, or they are in another fragment.
    Hidden,
}

impl Traffic {
    /// Whether one of the sender's selectors and one of the receiver's match this packet.
    ///
    /// The sender's side says which ICMP messages it sends (RFC 4301 §4.4.1.3). Where that side says
    /// nothing the other side's word counts, which is what the Linux kernel holds both to.
    #[must_use]
    pub fn matches(&self, from: &[TrafficSelector], to: &[TrafficSelector]) -> bool {
        let here = |ts: &TrafficSelector, addr| {
            ts.contains(addr) && (ts.protocol == 0 || ts.protocol == self.protocol)
        };
        let has = |ts: &TrafficSelector, port| (ts.first_port..=ts.last_port).contains(&port);
        let unseen = |ts: &TrafficSelector| matches!(ts.ports(), ANY | OPAQUE);
        let fits = |from: &TrafficSelector, to: &TrafficSelector| match self.fields {
            Fields::Ports(source, destination) => has(from, source) && has(to, destination),
            Fields::Kind(kind) if from.ports() == ANY => unseen(to) || has(to, kind),
            Fields::Kind(kind) => has(from, kind),
            Fields::Hidden => unseen(from) && unseen(to),
        };
        from.iter()
            .filter(|ts| here(ts, self.src))
            .any(|from| to.iter().filter(|ts| here(ts, self.dst)).any(|to| fits(from, to)))
    }
}

impl fmt::Display for TrafficSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_host() {
            Some(addr) => write!(f, "{addr}")?,
            None => write!(f, "{}-{}", self.first, self.last)?,
        }
        if self.ports() == OPAQUE {
            write!(f, "[{}/opaque]", self.protocol)?;
        } else if !self.is_plain() {
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
        assert!(TrafficSelector::new(ip("10.0.0.1"), ip("10.0.0.1"), 6, (65535, 1)).is_none());
    }

    #[test]
    fn matching_minds_protocol_and_port() {
        let ts = TrafficSelector::new(ip("10.0.0.1"), ip("10.0.0.9"), 6, (80, 443)).unwrap();
        assert!(ts.matches(ip("10.0.0.5"), 6, 443));
        assert!(!ts.matches(ip("10.0.0.5"), 17, 443));
        assert!(!ts.matches(ip("10.0.0.5"), 6, 444));
        assert!(!ts.matches(ip("10.0.0.10"), 6, 80));
    }

    fn selector(protocol: u8, ports: (u16, u16)) -> TrafficSelector {
        TrafficSelector::new(ip("10.0.0.0"), ip("10.0.0.255"), protocol, ports).unwrap()
    }

    fn packet(protocol: u8, fields: Fields) -> Traffic {
        Traffic { src: ip("10.0.0.1"), dst: ip("10.0.0.2"), protocol, fields }
    }

    /// RFC 4301 §4.4.1.1: ANY encompasses OPAQUE, and nothing else does.
    #[test]
    fn opaque_is_a_range_of_its_own() {
        let (any, opaque) = (selector(6, ANY), selector(6, OPAQUE));
        let (low, high) = (selector(6, (0, 0)), selector(6, (65535, 65535)));
        assert_eq!(any.intersection(&opaque), Some(opaque));
        assert!(any.covers(&opaque) && !opaque.covers(&any) && opaque.covers(&opaque));
        for port in [low, high, selector(6, (0, 65534))] {
            assert_eq!(port.intersection(&opaque), None);
            assert!(any.covers(&port) && !opaque.covers(&port));
        }
        assert_eq!(low.intersection(&high), None, "two ports that do not meet are not OPAQUE");
        assert_eq!(opaque.to_string(), "10.0.0.0-10.0.0.255[6/opaque]");
    }

    #[test]
    fn both_sides_must_match_and_for_one_protocol() {
        let (from, to) = (selector(17, (1024, 65535)), selector(0, (53, 99)));
        let ports = |a, b| packet(17, Fields::Ports(a, b));
        assert!(ports(1024, 53).matches(&[from], &[to]));
        assert!(ports(65535, 99).matches(&[from], &[to]));
        for (source, destination) in [(1023, 53), (1024, 52), (1024, 100), (53, 1024)] {
            assert!(!ports(source, destination).matches(&[from], &[to]), "{source}");
        }
        assert!(!packet(6, Fields::Ports(1024, 53)).matches(&[from], &[to]));
        // UDP from the one, TCP to the other: that is nothing.
        let tcp = selector(6, ANY);
        for protocol in [6, 17] {
            assert!(!packet(protocol, Fields::Ports(1024, 53)).matches(&[from], &[tcp]));
        }
        assert!(!packet(17, Fields::Hidden).matches(&[from], &[to]));
        let stranger = Traffic { src: ip("10.0.1.1"), ..ports(1024, 53) };
        assert!(!stranger.matches(&[from], &[to]));
        assert!(ports(1, 2).matches(&[from, selector(0, ANY)], &[tcp, selector(17, ANY)]));
    }

    #[test]
    fn what_has_no_ports_needs_selectors_that_ask_for_none() {
        let hidden = packet(17, Fields::Hidden);
        let (any, opaque, one) = (selector(17, ANY), selector(0, OPAQUE), selector(17, (7, 7)));
        for (from, to, fits) in
            [(any, any, true), (opaque, any, true), (one, any, false), (any, one, false)]
        {
            assert_eq!(hidden.matches(&[from], &[to]), fits, "{from} {to}");
            assert_eq!(packet(17, Fields::Ports(7, 7)).matches(&[from], &[to]), from != opaque);
        }
    }

    /// RFC 4301 §4.4.1.3, its own example of what may be sent and not received; and what a peer says
    /// that can say one thing only.
    #[test]
    fn the_sender_of_icmp_says_which() {
        let (all, opaque) = (selector(1, ANY), selector(1, OPAQUE));
        let (echo, reply) = (selector(1, (0x0800, 0x08ff)), selector(1, (0, 0xff)));
        let kind = |kind| packet(1, Fields::Kind(kind));
        for (from, to, request_fits, reply_fits) in [
            (echo, opaque, true, false),
            (opaque, echo, false, false),
            (echo, echo, true, false),
            (echo, reply, true, false),
            (reply, echo, false, true),
            (all, opaque, true, true),
            (all, all, true, true),
            (all, echo, true, false),
        ] {
            assert_eq!(kind(0x0800).matches(&[from], &[to]), request_fits, "{from} {to}");
            assert_eq!(kind(0).matches(&[from], &[to]), reply_fits, "{from} {to}");
        }
    }
}
