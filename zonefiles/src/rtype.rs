//! Record types and the shape of their RDATA: one table from which text is read and written and
//! names are found for DNSSEC's canonical form.

use std::fmt;

/// A record type; unknown numbers are types like any other (RFC 3597).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rtype(pub u16);

/// One field of RDATA in presentation form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Field {
    U8,
    U16,
    U32,
    /// Seconds, also as `1h30m`.
    Period,
    /// `YYYYMMDDHHmmSS` or seconds (RFC 4034 §3.2).
    Time,
    Ipv4,
    Ipv6,
    Name,
    /// One `<character-string>` of up to 255 octets.
    Text,
    /// One or more of them, to the end.
    Texts,
    /// Octets without a length, to the end, as one quoted string.
    Quoted,
    /// A length octet and hexadecimal digits, `-` for none (NSEC3's salt).
    Salt,
    /// A length octet and base32hex without padding (NSEC3's next hash).
    Hash32,
    /// Hexadecimal to the end.
    Hex,
    /// Base 64 to the end.
    Base64,
    /// A record type's mnemonic.
    Rtype,
    /// Mnemonics to the end (RFC 4034 §4.1.2).
    Bitmap,
    /// Gateway type, algorithm, gateway, key (RFC 4025 §3.1).
    Ipseckey,
}

struct Known {
    rtype: u16,
    name: &'static str,
    fields: &'static [Field],
}

use Field as F;

#[rustfmt::skip]
const KNOWN: &[Known] = &[
    Known { rtype: 1, name: "A", fields: &[F::Ipv4] },
    Known { rtype: 2, name: "NS", fields: &[F::Name] },
    Known { rtype: 5, name: "CNAME", fields: &[F::Name] },
    Known { rtype: 6, name: "SOA", fields: &[F::Name, F::Name, F::U32, F::Period, F::Period, F::Period, F::Period] },
    Known { rtype: 12, name: "PTR", fields: &[F::Name] },
    Known { rtype: 13, name: "HINFO", fields: &[F::Text, F::Text] },
    Known { rtype: 15, name: "MX", fields: &[F::U16, F::Name] },
    Known { rtype: 16, name: "TXT", fields: &[F::Texts] },
    Known { rtype: 17, name: "RP", fields: &[F::Name, F::Name] },
    Known { rtype: 18, name: "AFSDB", fields: &[F::U16, F::Name] },
    Known { rtype: 25, name: "KEY", fields: &[F::U16, F::U8, F::U8, F::Base64] },
    Known { rtype: 28, name: "AAAA", fields: &[F::Ipv6] },
    Known { rtype: 33, name: "SRV", fields: &[F::U16, F::U16, F::U16, F::Name] },
    Known { rtype: 35, name: "NAPTR", fields: &[F::U16, F::U16, F::Text, F::Text, F::Text, F::Name] },
    Known { rtype: 36, name: "KX", fields: &[F::U16, F::Name] },
    Known { rtype: 39, name: "DNAME", fields: &[F::Name] },
    Known { rtype: 43, name: "DS", fields: &[F::U16, F::U8, F::U8, F::Hex] },
    Known { rtype: 44, name: "SSHFP", fields: &[F::U8, F::U8, F::Hex] },
    Known { rtype: 45, name: "IPSECKEY", fields: &[F::U8, F::Ipseckey] },
    Known { rtype: 46, name: "RRSIG", fields: &[F::Rtype, F::U8, F::U8, F::U32, F::Time, F::Time, F::U16, F::Name, F::Base64] },
    Known { rtype: 47, name: "NSEC", fields: &[F::Name, F::Bitmap] },
    Known { rtype: 48, name: "DNSKEY", fields: &[F::U16, F::U8, F::U8, F::Base64] },
    Known { rtype: 50, name: "NSEC3", fields: &[F::U8, F::U8, F::U16, F::Salt, F::Hash32, F::Bitmap] },
    Known { rtype: 51, name: "NSEC3PARAM", fields: &[F::U8, F::U8, F::U16, F::Salt] },
    Known { rtype: 52, name: "TLSA", fields: &[F::U8, F::U8, F::U8, F::Hex] },
    Known { rtype: 53, name: "SMIMEA", fields: &[F::U8, F::U8, F::U8, F::Hex] },
    Known { rtype: 59, name: "CDS", fields: &[F::U16, F::U8, F::U8, F::Hex] },
    Known { rtype: 60, name: "CDNSKEY", fields: &[F::U16, F::U8, F::U8, F::Base64] },
    Known { rtype: 61, name: "OPENPGPKEY", fields: &[F::Base64] },
    Known { rtype: 62, name: "CSYNC", fields: &[F::U32, F::U16, F::Bitmap] },
    Known { rtype: 63, name: "ZONEMD", fields: &[F::U32, F::U8, F::U8, F::Hex] },
    Known { rtype: 99, name: "SPF", fields: &[F::Texts] },
    Known { rtype: 252, name: "AXFR", fields: &[] },
    Known { rtype: 255, name: "ANY", fields: &[] },
    Known { rtype: 256, name: "URI", fields: &[F::U16, F::U16, F::Quoted] },
    Known { rtype: 257, name: "CAA", fields: &[F::U8, F::Text, F::Quoted] },
];

impl Rtype {
    /// IPv4 address.
    pub const A: Self = Self(1);
    /// Name server.
    pub const NS: Self = Self(2);
    /// Alias.
    pub const CNAME: Self = Self(5);
    /// Start of authority.
    pub const SOA: Self = Self(6);
    /// Name of an address.
    pub const PTR: Self = Self(12);
    /// Text; `X-IPsec-Server` lives here.
    pub const TXT: Self = Self(16);
    /// Public key of the years before RFC 3445.
    pub const KEY: Self = Self(25);
    /// IPv6 address.
    pub const AAAA: Self = Self(28);
    /// Alias of a whole subtree.
    pub const DNAME: Self = Self(39);
    /// EDNS (RFC 6891).
    pub const OPT: Self = Self(41);
    /// Delegation signer.
    pub const DS: Self = Self(43);
    /// RFC 4025.
    pub const IPSECKEY: Self = Self(45);
    /// Signature.
    pub const RRSIG: Self = Self(46);
    /// Next owner: denial of existence.
    pub const NSEC: Self = Self(47);
    /// Public key of a zone.
    pub const DNSKEY: Self = Self(48);
    /// Zone transfer (RFC 5936).
    pub const AXFR: Self = Self(252);
    /// Incremental transfer (RFC 1995).
    pub const IXFR: Self = Self(251);
    /// Everything at a name.
    pub const ANY: Self = Self(255);

    /// From a mnemonic or `TYPE45`, in any case.
    #[must_use]
    pub fn from_mnemonic(text: &str) -> Option<Self> {
        if let Some(known) = KNOWN.iter().find(|known| known.name.eq_ignore_ascii_case(text)) {
            return Some(Self(known.rtype));
        }
        let (prefix, digits) = text.split_at_checked(4)?;
        if !prefix.eq_ignore_ascii_case("TYPE") || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        digits.parse().ok().map(Self)
    }

    /// What the RDATA consists of, if it is a type this crate knows.
    pub(crate) fn fields(self) -> Option<&'static [Field]> {
        let known = KNOWN.iter().find(|known| known.rtype == self.0)?;
        (!known.fields.is_empty()).then_some(known.fields)
    }

    /// Whether names inside its RDATA are signed in lower case (RFC 4034 §6.2, RFC 6840 §5.1).
    pub(crate) fn lowers_names(self) -> bool {
        matches!(self.0, 2 | 5 | 6 | 12 | 15 | 17 | 18 | 33 | 35 | 36 | 39 | 46)
    }

    /// Whether it may stand in a zone file at all: OPT, TSIG and the query types may not
    /// (RFC 6895 §3.1).
    #[must_use]
    pub fn is_data(self) -> bool {
        self.0 != 0 && self != Self::OPT && !(128..=255).contains(&self.0)
    }
}

impl fmt::Display for Rtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match KNOWN.iter().find(|known| known.rtype == self.0) {
            Some(known) => f.write_str(known.name),
            None => write!(f, "TYPE{}", self.0),
        }
    }
}

impl fmt::Debug for Rtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
