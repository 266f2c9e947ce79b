//! The KEY record as FreeS/WAN before 2.01 used it (RFC 4322 §5.1, RFC 2535 §3): recognised so
//! that diagnosis can name it, written on demand, never believed.

use crate::key::{KeyError, RsaKey};

/// A KEY record's fields.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct OldKey {
    /// Flags; FreeS/WAN's are 0x4200.
    pub flags: u16,
    /// Protocol; 4 is IPsec.
    pub protocol: u8,
    /// Algorithm; 1 is RSA.
    pub algorithm: u8,
    /// The key as it stands in the record.
    pub octets: Vec<u8>,
}

/// The record type's number.
pub const TYPE: u16 = 25;

impl OldKey {
    /// The record of an IPsec host with this key.
    #[must_use]
    pub fn ipsec(key: &RsaKey) -> Self {
        Self { flags: 0x4200, protocol: 4, algorithm: 1, octets: key.to_rfc3110() }
    }

    /// Reads RDATA; `None` if it is too short to be one.
    #[must_use]
    pub fn from_rdata(rdata: &[u8]) -> Option<Self> {
        let [high, low, protocol, algorithm, octets @ ..] = rdata else { return None };
        Some(Self {
            flags: u16::from_be_bytes([*high, *low]),
            protocol: *protocol,
            algorithm: *algorithm,
            octets: octets.to_vec(),
        })
    }

    /// Writes RDATA.
    #[must_use]
    pub fn to_rdata(&self) -> Vec<u8> {
        let mut rdata = self.flags.to_be_bytes().to_vec();
        rdata.extend_from_slice(&[self.protocol, self.algorithm]);
        rdata.extend_from_slice(&self.octets);
        rdata
    }

    /// Whether Pluto would have taken it for an IPsec host's.
    #[must_use]
    pub fn is_ipsec(&self) -> bool {
        self.protocol == 4 && self.algorithm == 1 && self.flags & 0xacf0 == 0
    }

    /// Its key.
    ///
    /// # Errors
    /// What is wrong with the octets.
    pub fn key(&self) -> Result<RsaKey, KeyError> {
        RsaKey::from_rfc3110(&self.octets)
    }

    /// The fields as they stand in a zone file: `0x4200 4 1 AQ…`.
    #[must_use]
    pub fn presentation(&self) -> String {
        let key = crate::key::encode_base64(&self.octets);
        format!("{:#06x} {} {} {key}", self.flags, self.protocol, self.algorithm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::tests::key_e3;
    use proptest::prelude::*;

    #[test]
    fn the_classic_form() {
        let key = key_e3(2192, 0);
        let record = OldKey::ipsec(&key);
        assert!(record.presentation().starts_with("0x4200 4 1 AQO"));
        assert_eq!(record.to_rdata()[..4], [0x42, 0, 4, 1]);
        assert!(record.is_ipsec());
        assert_eq!(record.key(), Ok(key));
        assert!(!OldKey { flags: 0xc200, ..record.clone() }.is_ipsec(), "no key");
        assert!(!OldKey { protocol: 3, ..record.clone() }.is_ipsec(), "a DNSSEC key");
        assert!(!OldKey { algorithm: 5, ..record }.is_ipsec(), "RSA/SHA-1");
    }

    proptest! {
        #[test]
        fn rdata_reads_back(rdata in proptest::collection::vec(any::<u8>(), 4..300)) {
            let record = OldKey::from_rdata(&rdata).unwrap();
            let _ = record.key();
            prop_assert_eq!(record.to_rdata(), rdata);
        }
    }
}
