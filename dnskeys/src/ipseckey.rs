//! The IPSECKEY record (RFC 4025).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::key::{PublicKey, encode_base64};
use crate::name::{Name, NameError};
use crate::record::{Gateway, Malformed, Source};

/// An IPSECKEY record.
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |  precedence   | gateway type  |  algorithm  |     gateway     |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-------------+                 +
/// ~                            gateway                            ~
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               /
/// /                          public key                           /
/// /                                                               /
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-|
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Ipseckey {
    /// Lower is tried first.
    pub precedence: u8,
    /// Who speaks for the owner.
    pub gateway: Gateway,
    /// The gateway's key.
    pub key: Option<PublicKey>,
}

/// The record type's number.
pub const TYPE: u16 = 45;

impl Ipseckey {
    /// Reads RDATA (§2.1).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_rdata(rdata: &[u8]) -> Result<Self, Malformed> {
        read(rdata).map_err(|why| Malformed { source: Source::Ipseckey, why })
    }

    /// Writes RDATA (§2.1).
    #[must_use]
    pub fn to_rdata(&self) -> Vec<u8> {
        let mut rdata = vec![self.precedence, self.gateway_type(), self.algorithm()];
        match &self.gateway {
            Gateway::Own => {}
            Gateway::Address(IpAddr::V4(addr)) => rdata.extend_from_slice(&addr.octets()),
            Gateway::Address(IpAddr::V6(addr)) => rdata.extend_from_slice(&addr.octets()),
            Gateway::Name(name) => rdata.extend_from_slice(&name.to_wire()),
        }
        if let Some(key) = &self.key {
            rdata.extend_from_slice(&key.octets());
        }
        rdata
    }

    /// The gateway's type (§2.3): 0 none, 1 IPv4, 2 IPv6, 3 name.
    #[must_use]
    pub fn gateway_type(&self) -> u8 {
        match &self.gateway {
            Gateway::Own => 0,
            Gateway::Address(IpAddr::V4(_)) => 1,
            Gateway::Address(IpAddr::V6(_)) => 2,
            Gateway::Name(_) => 3,
        }
    }

    /// The key's algorithm (§2.4), 0 without key.
    #[must_use]
    pub fn algorithm(&self) -> u8 {
        self.key.as_ref().map_or(0, PublicKey::algorithm)
    }

    /// The fields as they stand in a zone file (§3.1): `10 1 2 192.0.2.38 AQ…`.
    #[must_use]
    pub fn presentation(&self) -> String {
        let gateway = match &self.gateway {
            Gateway::Own => ".".to_owned(),
            Gateway::Address(addr) => addr.to_string(),
            Gateway::Name(name) => name.to_string(),
        };
        let head =
            format!("{} {} {} {gateway}", self.precedence, self.gateway_type(), self.algorithm());
        match &self.key {
            Some(key) => format!("{head} {}", encode_base64(&key.octets())),
            None => head,
        }
    }
}

fn read(rdata: &[u8]) -> Result<Ipseckey, &'static str> {
    let [precedence, gateway_type, algorithm, rest @ ..] = rdata else {
        return Err("header: fewer than three octets");
    };
    let (gateway, key) = read_gateway(*gateway_type, rest)?;
    let key = match (*algorithm, key) {
        (0, []) => None,
        (0, _) => return Err("algorithm: none, yet there is a key"),
        (_, []) => return Err("key: missing, yet an algorithm is named"),
        (algorithm, key) => {
            Some(PublicKey::from_octets(algorithm, key).map_err(|error| error.why())?)
        }
    };
    Ok(Ipseckey { precedence: *precedence, gateway, key })
}

fn read_gateway(kind: u8, rest: &[u8]) -> Result<(Gateway, &[u8]), &'static str> {
    const SHORT: &str = "gateway: shorter than its type";
    let (addr, rest): (IpAddr, &[u8]) = match kind {
        0 => return Ok((Gateway::Own, rest)),
        1 => {
            let (octets, rest) = rest.split_first_chunk::<4>().ok_or(SHORT)?;
            (Ipv4Addr::from(*octets).into(), rest)
        }
        2 => {
            let (octets, rest) = rest.split_first_chunk::<16>().ok_or(SHORT)?;
            (Ipv6Addr::from(*octets).into(), rest)
        }
        3 => {
            let (name, rest) = Name::from_wire(rest).map_err(|error| match error {
                NameError::Empty => "gateway: the root, or a name cut short",
                NameError::TooLong => "gateway: compressed, or a name too long",
                NameError::Character => "gateway: a character that no host name has",
            })?;
            return Ok((Gateway::Name(name), rest));
        }
        _ => return Err("gateway type: above 3"),
    };
    if addr.is_unspecified() {
        return Err("gateway: the unspecified address");
    }
    Ok((Gateway::Address(addr), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::tests::{any_key, key};
    use crate::name::tests::any_name;
    use proptest::prelude::*;

    fn any_gateway() -> impl Strategy<Value = Gateway> {
        prop_oneof![
            Just(Gateway::Own),
            (1u32..).prop_map(|a| Gateway::Address(Ipv4Addr::from(a).into())),
            (1u128..).prop_map(|a| Gateway::Address(Ipv6Addr::from(a).into())),
            any_name().prop_map(Gateway::Name),
        ]
    }

    fn any_public_key() -> impl Strategy<Value = Option<PublicKey>> {
        let other = (5u8.., proptest::collection::vec(any::<u8>(), 1..100))
            .prop_map(|(algorithm, octets)| PublicKey::Other { algorithm, octets });
        let elliptic = (any::<[u8; 32]>(), any::<u8>()).prop_map(|(octets, kind)| {
            let long = [octets, octets, octets].concat();
            match kind % 3 {
                0 => PublicKey::Ed25519(octets),
                1 => PublicKey::EcdsaP256(long[..64].try_into().unwrap()),
                _ => PublicKey::EcdsaP384(long.try_into().unwrap()),
            }
        });
        prop_oneof![
            Just(None),
            any_key().prop_map(|k| Some(k.into())),
            elliptic.prop_map(Some),
            other.prop_map(Some)
        ]
    }

    proptest! {
        #[test]
        fn rdata_reads_back(precedence: u8, gateway in any_gateway(), key in any_public_key()) {
            let record = Ipseckey { precedence, gateway, key };
            prop_assert_eq!(Ipseckey::from_rdata(&record.to_rdata()), Ok(record));
        }

        #[test]
        fn no_octets_panic(rdata in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(record) = Ipseckey::from_rdata(&rdata) {
                prop_assert_eq!(Ipseckey::from_rdata(&record.to_rdata()), Ok(record));
            }
        }
    }

    /// The five examples of RFC 4025 §3.2, whose key is 01 03 and 16 more octets, with a real one.
    #[test]
    fn the_forms_of_rfc_4025() {
        let key = key(2048, 0);
        let text = key.to_base64();
        let name: Name = "mygateway.example.com".parse().unwrap();
        let v4: IpAddr = "192.0.2.38".parse().unwrap();
        let v6: IpAddr = "2001:db8:0:8002::2000:1".parse().unwrap();
        for (gateway, with_key, expected) in [
            (Gateway::Address(v4), true, format!("10 1 2 192.0.2.38 {text}")),
            (Gateway::Own, true, format!("10 0 2 . {text}")),
            (Gateway::Name(name), true, format!("10 3 2 mygateway.example.com. {text}")),
            (Gateway::Address(v6), true, format!("10 2 2 2001:db8:0:8002::2000:1 {text}")),
            (Gateway::Address(v4), false, "10 1 0 192.0.2.38".to_owned()),
        ] {
            let key = with_key.then(|| key.clone().into());
            let record = Ipseckey { precedence: 10, gateway, key };
            assert_eq!(record.presentation(), expected);
        }
    }

    /// RFC 9373 appendix A.
    #[test]
    fn the_example_of_rfc_9373() {
        let text = "3WTXgUvpn1RlCXnm80gGY2LZ/ErUUEZtZ33IDi8yfhM=";
        let octets = crate::key::decode_base64(text.as_bytes()).unwrap();
        let key = PublicKey::from_octets(4, &octets).unwrap();
        assert_eq!(key.algorithm_name(), "Ed25519");
        let record = Ipseckey { precedence: 10, gateway: Gateway::Own, key: Some(key) };
        assert_eq!(record.presentation(), format!("10 0 4 . {text}"));
        assert_eq!(Ipseckey::from_rdata(&record.to_rdata()), Ok(record));
    }

    /// RUSTSEC-2018-0007.
    #[test]
    fn malformed_rdata() {
        let name = [&[3, 3, 2, 3][..], b"a.b", &[0, 1, 1, 1]].concat();
        for (rdata, why) in [
            (&[][..], "header: fewer than three octets"),
            (&[10, 1], "header: fewer than three octets"),
            (&[10, 1, 2, 192, 0, 2], "gateway: shorter than its type"),
            (&[10, 2, 2, 192, 0, 2, 1], "gateway: shorter than its type"),
            (&[10, 4, 2, 1, 3, 5], "gateway type: above 3"),
            (&[10, 0, 0, 1], "algorithm: none, yet there is a key"),
            (&[10, 0, 2], "key: missing, yet an algorithm is named"),
            (&[10, 0, 2, 1], "key: shorter than it announces"),
            (&[&[10, 0, 3][..], &[7; 65]].concat(), "key: of no length that its algorithm has"),
            (&[&[10, 0, 3][..], &[7; 63]].concat(), "key: of no length that its algorithm has"),
            (&[&[10, 0, 3][..], &[7; 132]].concat(), "key: of no length that its algorithm has"),
            (&[&[10, 0, 4][..], &[7; 33]].concat(), "key: of no length that its algorithm has"),
            (&[10, 1, 0, 0, 0, 0, 0], "gateway: the unspecified address"),
            (&[10, 3, 0, 0], "gateway: the root, or a name cut short"),
            (&[10, 3, 0, 5, b'a'], "gateway: the root, or a name cut short"),
            (&[10, 3, 0, 0xc0, 12], "gateway: compressed, or a name too long"),
            (&name, "gateway: a character that no host name has"),
        ] {
            let error = Malformed { source: Source::Ipseckey, why };
            assert_eq!(Ipseckey::from_rdata(rdata), Err(error), "{rdata:?}");
        }
    }
}
