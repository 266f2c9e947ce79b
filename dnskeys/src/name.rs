//! Domain names, and the reverse names of addresses (RFC 1035 §2.3, §3.5; RFC 3596 §2.5).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A domain name in its canonical form: absolute, lower case, with its final dot.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(String);

/// Why a name was refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum NameError {
    /// Empty, or an empty label inside.
    Empty,
    /// A label of more than 63 octets, or a name of more than 255.
    TooLong,
    /// A character that no host name has.
    Character,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "empty name or label",
            Self::TooLong => "label over 63 or name over 255 octets",
            Self::Character => "a character that no host name has",
        })
    }
}

impl std::error::Error for NameError {}

impl Name {
    /// The name at which an address publishes: `11.2.0.192.in-addr.arpa.` or nibbles under
    /// `ip6.arpa.`.
    #[must_use]
    pub fn reverse(addr: IpAddr) -> Self {
        use std::fmt::Write as _;
        let mut name = String::with_capacity(74);
        match addr {
            IpAddr::V4(a) => {
                for octet in a.octets().iter().rev() {
                    let _ = write!(name, "{octet}.");
                }
                name.push_str("in-addr.arpa.");
            }
            IpAddr::V6(a) => {
                for octet in a.octets().iter().rev() {
                    let _ = write!(name, "{:x}.{:x}.", octet & 0xf, octet >> 4);
                }
                name.push_str("ip6.arpa.");
            }
        }
        Self(name)
    }

    /// The address whose reverse name this is, if it is one.
    #[must_use]
    pub fn to_address(&self) -> Option<IpAddr> {
        let addr: IpAddr = if let Some(labels) = self.0.strip_suffix(".in-addr.arpa.") {
            let mut octets = [0; 4];
            let mut labels = labels.split('.');
            for octet in octets.iter_mut().rev() {
                *octet = labels.next()?.parse().ok()?;
            }
            labels.next().is_none().then_some(Ipv4Addr::from(octets))?.into()
        } else {
            let mut bits = 0u128;
            let mut labels = self.0.strip_suffix(".ip6.arpa.")?.split('.');
            for shift in (0..128).step_by(4) {
                bits |= u128::from_str_radix(labels.next()?, 16).ok()? << shift;
            }
            labels.next().is_none().then_some(Ipv6Addr::from(bits))?.into()
        };
        // One spelling for each: "011" and "+1" are other names.
        (Self::reverse(addr) == *self).then_some(addr)
    }

    /// The zone to which RFC 2317 delegates the block of `len` bits (25 to 31) that holds `addr`:
    /// `64/26.2.0.192.in-addr.arpa.`, or with [`Classless::Range`] `64-127.2.0.192.in-addr.arpa.`.
    /// `None` for other lengths.
    #[must_use]
    pub fn classless_zone(addr: Ipv4Addr, len: u8, style: Classless) -> Option<Self> {
        if !(25..=31).contains(&len) {
            return None;
        }
        let [a, b, c, d] = addr.octets();
        let size = 1u8.checked_shl(u32::from(32 - len))?;
        let first = d & !(size - 1);
        let block = match style {
            Classless::Slash => format!("{first}/{len}"),
            Classless::Range => format!("{first}-{}", first | (size - 1)),
        };
        Some(Self(format!("{block}.{c}.{b}.{a}.in-addr.arpa.")))
    }

    /// The name at which `addr` publishes in such a zone: `65.64/26.2.0.192.in-addr.arpa.`.
    #[must_use]
    pub fn classless(addr: Ipv4Addr, len: u8, style: Classless) -> Option<Self> {
        let zone = Self::classless_zone(addr, len, style)?;
        let [.., d] = addr.octets();
        Some(Self(format!("{d}.{zone}")))
    }

    /// As text, with the final dot.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As text, without the final dot.
    #[must_use]
    pub fn without_dot(&self) -> &str {
        self.0.strip_suffix('.').unwrap_or(&self.0)
    }

    /// The labels, leftmost first, without the root's.
    pub fn labels(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.without_dot().split('.')
    }

    /// Whether it is `zone` or below it.
    #[must_use]
    pub fn is_within(&self, zone: &Self) -> bool {
        self.0
            .strip_suffix(zone.as_str())
            .is_some_and(|above| above.is_empty() || above.ends_with('.'))
    }

    /// Uncompressed wire form (RFC 1035 §3.1).
    #[must_use]
    pub fn to_wire(&self) -> Vec<u8> {
        let mut wire = Vec::with_capacity(self.0.len() + 1);
        for label in self.labels() {
            // At most 63 octets, by from_str.
            wire.push(u8::try_from(label.len()).unwrap_or(0));
            wire.extend_from_slice(label.as_bytes());
        }
        wire.push(0);
        wire
    }

    /// Reads an uncompressed wire form; returns what follows it, too.
    ///
    /// # Errors
    /// [`NameError::Empty`] for the root or a name cut short, [`NameError::TooLong`] for
    /// compression pointers and names over 255 octets, [`NameError::Character`] as from text.
    pub fn from_wire(wire: &[u8]) -> Result<(Self, &[u8]), NameError> {
        let mut text = String::new();
        let mut rest = wire;
        loop {
            let (len, tail) = rest.split_first().ok_or(NameError::Empty)?;
            if *len == 0 {
                return Ok((text.parse()?, tail));
            }
            if *len > 63 || text.len() > 253 {
                return Err(NameError::TooLong);
            }
            let (label, tail) = tail.split_at_checked(usize::from(*len)).ok_or(NameError::Empty)?;
            // A dot inside a label would change the name's meaning as text.
            if label.contains(&b'.') || !label.is_ascii() {
                return Err(NameError::Character);
            }
            text.extend(label.iter().map(|b| char::from(*b)));
            text.push('.');
            rest = tail;
        }
    }
}

/// How RFC 2317 §4 and its users spell a block's label.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Classless {
    /// First address and length: `64/26`.
    Slash,
    /// First and last address: `64-127`, for servers that dislike the slash.
    Range,
}

impl FromStr for Name {
    type Err = NameError;

    /// Letters, digits, `-`, `_` and `/` (RFC 2317 zones) in labels; the final dot may be missing.
    fn from_str(s: &str) -> Result<Self, NameError> {
        let bare = s.strip_suffix('.').unwrap_or(s);
        if bare.is_empty() {
            return Err(NameError::Empty);
        }
        if bare.len() > 253 {
            return Err(NameError::TooLong);
        }
        for label in bare.split('.') {
            if label.is_empty() {
                return Err(NameError::Empty);
            }
            if label.len() > 63 {
                return Err(NameError::TooLong);
            }
            let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'/');
            if !label.bytes().all(ok) {
                return Err(NameError::Character);
            }
        }
        Ok(Self(format!("{}.", bare.to_ascii_lowercase())))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn any_name() -> impl Strategy<Value = Name> {
        "[a-z0-9_/-]{1,20}(\\.[a-zA-Z0-9_/-]{1,63}){0,3}".prop_map(|s| s.parse().unwrap())
    }

    #[test]
    fn reverse_names() {
        for (addr, name) in [
            ("192.0.2.11", "11.2.0.192.in-addr.arpa."),
            ("0.0.0.255", "255.0.0.0.in-addr.arpa."),
            (
                "2001:db8::b",
                "b.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.",
            ),
        ] {
            let addr: IpAddr = addr.parse().unwrap();
            assert_eq!(Name::reverse(addr).as_str(), name);
            assert_eq!(name.parse::<Name>().unwrap().to_address(), Some(addr));
        }
        for name in [
            "011.2.0.192.in-addr.arpa.",
            "256.2.0.192.in-addr.arpa.",
            "1.11.2.0.192.in-addr.arpa.",
            "2.0.192.in-addr.arpa.",
            "in-addr.arpa.",
            "b.0.ip6.arpa.",
            "west.test.",
        ] {
            assert_eq!(name.parse::<Name>().unwrap().to_address(), None, "{name}");
        }
    }

    #[test]
    fn classless_names() {
        let addr = Ipv4Addr::new(192, 0, 2, 65);
        let slash = Name::classless(addr, 26, Classless::Slash).unwrap();
        assert_eq!(slash.as_str(), "65.64/26.2.0.192.in-addr.arpa.");
        let range = Name::classless(addr, 25, Classless::Range).unwrap();
        assert_eq!(range.as_str(), "65.0-127.2.0.192.in-addr.arpa.");
        let zone = Name::classless_zone(addr, 31, Classless::Slash).unwrap();
        assert_eq!(zone.as_str(), "64/31.2.0.192.in-addr.arpa.");
        for len in [0, 24, 32, 33, 255] {
            assert_eq!(Name::classless_zone(addr, len, Classless::Slash), None);
        }
        assert_eq!(slash.as_str().parse(), Ok(slash.clone()));
    }

    #[test]
    fn names_are_canonical() {
        let name: Name = "West.Example.COM".parse().unwrap();
        assert_eq!(name.as_str(), "west.example.com.");
        assert_eq!(name.without_dot(), "west.example.com");
        assert!(name.is_within(&"example.com".parse().unwrap()));
        assert!(name.is_within(&name));
        assert!(!name.is_within(&"ample.com".parse().unwrap()));
        for (text, error) in [
            ("", NameError::Empty),
            (".", NameError::Empty),
            ("a..b", NameError::Empty),
            (".a", NameError::Empty),
            ("a b", NameError::Character),
            ("a\0b", NameError::Character),
            ("a=b", NameError::Character),
            ("bücher.example", NameError::Character),
            (&"a".repeat(64), NameError::TooLong),
            (&"a.".repeat(128), NameError::TooLong),
        ] {
            assert_eq!(text.parse::<Name>(), Err(error), "{text}");
        }
        assert!("a.".repeat(127).parse::<Name>().is_ok());
    }

    proptest! {
        #[test]
        fn wire_reads_back(name in any_name(), tail: [u8; 3]) {
            let mut wire = name.to_wire();
            wire.extend_from_slice(&tail);
            prop_assert_eq!(Name::from_wire(&wire), Ok((name, &tail[..])));
        }

        #[test]
        fn no_octets_panic(wire in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Name::from_wire(&wire);
            let _ = String::from_utf8_lossy(&wire).parse::<Name>();
        }

        #[test]
        fn reverse_reads_back(v4: u32, v6: u128) {
            for addr in [IpAddr::from(Ipv4Addr::from(v4)), Ipv6Addr::from(v6).into()] {
                let name = Name::reverse(addr);
                prop_assert_eq!(name.to_address(), Some(addr));
                prop_assert_eq!(name.as_str().parse::<Name>(), Ok(name.clone()));
            }
        }
    }
}
