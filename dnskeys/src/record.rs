//! What the records that carry keys have in common; the forms themselves are in [`crate::txt`],
//! [`crate::ipseckey`] and [`crate::old_key`].

use std::fmt;
use std::net::IpAddr;

use crate::ipseckey::Ipseckey;
use crate::key::PublicKey;
use crate::name::Name;
use crate::txt::ServerTxt;

/// Who a record names as the gateway of its owner.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Gateway {
    /// The owner itself (IPSECKEY gateway type 0).
    Own,
    /// This address.
    Address(IpAddr),
    /// This name: authorises an initiator that identifies itself so, is never looked up.
    Name(Name),
}

/// Which record type it came from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Source {
    /// `X-IPsec-Server` in a TXT record.
    Txt,
    /// IPSECKEY.
    Ipseckey,
}

/// One well-formed record that names a gateway.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct GatewayRecord {
    /// Lower is tried first.
    pub precedence: u16,
    /// Who speaks for the owner.
    pub gateway: Gateway,
    /// The gateway's key; without one its own record must be asked for it.
    pub key: Option<PublicKey>,
    /// Which record type it came from.
    pub source: Source,
}

/// A record that is ours by its name but cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Malformed {
    /// Which record type it came from.
    pub source: Source,
    /// What is wrong, naming the field.
    pub why: &'static str,
}

impl GatewayRecord {
    /// Whether two records say the same, whatever their type and precedence.
    #[must_use]
    pub fn agrees_with(&self, other: &Self) -> bool {
        self.gateway == other.gateway && self.key == other.key
    }
}

impl From<ServerTxt> for GatewayRecord {
    fn from(record: ServerTxt) -> Self {
        Self {
            precedence: record.precedence,
            gateway: record.gateway.into(),
            key: record.key.map(PublicKey::Rsa),
            source: Source::Txt,
        }
    }
}

impl From<Ipseckey> for GatewayRecord {
    fn from(record: Ipseckey) -> Self {
        Self {
            precedence: record.precedence.into(),
            gateway: record.gateway,
            key: record.key,
            source: Source::Ipseckey,
        }
    }
}

impl fmt::Display for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own => f.write_str("the owner itself"),
            Self::Address(addr) => addr.fmt(f),
            Self::Name(name) => write!(f, "@{}", name.without_dot()),
        }
    }
}

impl Source {
    /// The record type's mnemonic.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Txt => "TXT",
            Self::Ipseckey => "IPSECKEY",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.source, self.why)
    }
}

impl std::error::Error for Malformed {}
