//! The Configuration payload (RFC 7296 §3.15), as far as addresses go.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::codec::{InvalidMessage, Reader};

/// ```text
///  CFG Type | RESERVED (3)
///  R| Attribute Type | Length | Value …            RFC 7296 §3.15, §3.15.1
/// ```
///
/// Attributes that are not about an inner address are skipped, as the RFC wants it of those that
/// are not supported.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Configuration {
    pub(crate) kind: ConfigurationType,
    /// Addresses asked for or given; the unspecified one asks for any of its family.
    pub(crate) addresses: Vec<IpAddr>,
}

/// CFG Type (RFC 7296 §3.15).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ConfigurationType(pub(crate) u8);

impl ConfigurationType {
    pub(crate) const CFG_REQUEST: Self = Self(1);
    pub(crate) const CFG_REPLY: Self = Self(2);
}

impl Configuration {
    /// Asks for an address: this one, or any of its family if it is unspecified.
    pub(crate) fn request(address: IpAddr) -> Self {
        Self { kind: ConfigurationType::CFG_REQUEST, addresses: vec![address] }
    }

    /// Gives an address.
    pub(crate) fn reply(address: IpAddr) -> Self {
        Self { kind: ConfigurationType::CFG_REPLY, addresses: vec![address] }
    }

    pub(super) fn read(mut reader: Reader<'_>) -> Result<Self, InvalidMessage> {
        let kind = ConfigurationType(reader.u8("cfg type")?);
        reader.take(3, "configuration")?;
        let mut addresses = Vec::new();
        let mut attributes = 0;
        while !reader.is_empty() {
            attributes += 1;
            if attributes > MAX_ATTRIBUTES {
                return Err(InvalidMessage::TooMany("configuration attribute"));
            }
            // The high bit is reserved, and ignored on receipt.
            let attribute = reader.u16("attribute type")? & 0x7fff;
            let length = reader.u16("attribute length")?;
            let value = reader.part(length, 0, "attribute value")?;
            if let Some(address) = read_address(attribute, value)?
                && addresses.len() < MAX_ADDRESSES
            {
                addresses.push(address);
            }
        }
        Ok(Self { kind, addresses })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.kind.0, 0, 0, 0]);
        for address in &self.addresses {
            let (kind, mut value) = match address {
                IpAddr::V4(a) => (INTERNAL_IP4_ADDRESS, a.octets().to_vec()),
                IpAddr::V6(a) => (INTERNAL_IP6_ADDRESS, [&a.octets()[..], &[HOST_PREFIX]].concat()),
            };
            if address.is_unspecified() {
                value.clear();
            }
            out.extend_from_slice(&kind.to_be_bytes());
            out.extend_from_slice(&u16::try_from(value.len()).unwrap_or(0).to_be_bytes());
            out.extend_from_slice(&value);
        }
    }

    /// The first address of this family.
    pub(crate) fn address_like(&self, other: IpAddr) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|address| address.is_ipv4() == other.is_ipv4())
    }
}

/// The value of an attribute, if it is about an address. Empty: any.
fn read_address(attribute: u16, mut value: Reader<'_>) -> Result<Option<IpAddr>, InvalidMessage> {
    let address = match attribute {
        INTERNAL_IP4_ADDRESS if value.is_empty() => Ipv4Addr::UNSPECIFIED.into(),
        INTERNAL_IP4_ADDRESS => value.array::<4>("INTERNAL_IP4_ADDRESS")?.into(),
        INTERNAL_IP6_ADDRESS if value.is_empty() => Ipv6Addr::UNSPECIFIED.into(),
        INTERNAL_IP6_ADDRESS => {
            let address = value.array::<16>("INTERNAL_IP6_ADDRESS")?;
            // Its prefix length: what else may be on the link is no concern of ours.
            value.u8("INTERNAL_IP6_ADDRESS")?;
            address.into()
        }
        _ => return Ok(None),
    };
    value.end("internal address")?;
    Ok(Some(address))
}

const INTERNAL_IP4_ADDRESS: u16 = 1;
const INTERNAL_IP6_ADDRESS: u16 = 8;
/// A single address.
const HOST_PREFIX: u8 = 128;
/// A telephone asks for a dozen.
const MAX_ATTRIBUTES: usize = 64;
/// One of each family is what anybody can use.
const MAX_ADDRESSES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(octets: &[u8]) -> Result<Configuration, InvalidMessage> {
        Configuration::read(Reader::new(octets))
    }

    #[test]
    fn what_is_written_is_read() {
        for address in ["10.99.0.2", "0.0.0.0", "2001:db8::2", "::"] {
            let address: IpAddr = address.parse().unwrap();
            for configuration in [Configuration::request(address), Configuration::reply(address)] {
                let mut octets = Vec::new();
                configuration.write(&mut octets);
                assert_eq!(read(&octets), Ok(configuration));
            }
        }
    }

    /// As strongSwan sends it: any IPv4 address, a name server, a subnet.
    #[test]
    fn what_else_is_asked_for_is_skipped() {
        let octets = [1, 0, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0x80, 13, 0, 2, 7, 7];
        let any = Ipv4Addr::UNSPECIFIED.into();
        assert_eq!(read(&octets), Ok(Configuration::request(any)));
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        for octets in [
            &[2, 0, 0][..],
            &[2, 0, 0, 0, 0, 1, 0],
            &[2, 0, 0, 0, 0, 1, 0, 4, 10, 99, 0],
            &[2, 0, 0, 0, 0, 1, 0, 3, 10, 99, 0],
            &[2, 0, 0, 0, 0, 1, 0, 5, 10, 99, 0, 2, 9],
            &[2, 0, 0, 0, 0, 8, 0, 4, 10, 99, 0, 2],
            &[2, 0, 0, 0, 0, 8, 0, 16, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
            &[2, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
        ] {
            assert!(read(octets).is_err(), "{octets:?}");
        }
    }

    #[test]
    fn attributes_without_end_are_refused() {
        let mut octets = vec![1, 0, 0, 0];
        octets.extend([0, 1, 0, 0].repeat(MAX_ATTRIBUTES));
        assert_eq!(read(&octets).unwrap().addresses.len(), MAX_ADDRESSES);
        octets.extend([0, 1, 0, 0]);
        assert_eq!(read(&octets), Err(InvalidMessage::TooMany("configuration attribute")));
    }
}
