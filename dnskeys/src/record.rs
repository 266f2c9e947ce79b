//! The records that carry keys: `X-IPsec-Server` TXT (RFC 4322 §5.2), IPSECKEY (RFC 4025), KEY.

use std::net::IpAddr;

use crate::key::PublicKey;
use crate::name::Name;

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
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Malformed {
    /// Which record type it came from.
    pub source: Source,
    /// What is wrong, naming the field.
    pub why: &'static str,
}
