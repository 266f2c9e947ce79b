//! Domain names, and the reverse names of addresses (RFC 1035 §2.3, §3.5; RFC 3596 §2.5).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A domain name in its canonical form: absolute, lower case, with its final dot.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(String);

/// Why a name was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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

    /// As text, with the final dot.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
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
