//! A resource record: owner, TTL, type, and RDATA as it goes over the wire (RFC 1035 §3.2.1).
//!
//! The class is IN throughout; RDATA is uncompressed. Whatever was constructed here or read by
//! [`crate::master`] can be emitted.

use std::fmt;
use std::net::IpAddr;

use dnskeys::{Ipseckey, ServerTxt};
use hickory_proto::rr as hickory;
use hickory_proto::serialize::binary::{
    BinDecodable, BinDecoder, BinEncodable, BinEncoder, NameEncoding,
};

use crate::name::Name;
use crate::rdata;
use crate::rtype::Rtype;

/// One resource record.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Record {
    /// The name it belongs to.
    pub owner: Name,
    /// Its type.
    pub rtype: Rtype,
    /// Uncompressed RDATA of at most 65535 octets.
    pub rdata: Box<[u8]>,
    /// Seconds that it may be cached.
    pub ttl: u32,
}

/// Start of authority (RFC 1035 §3.3.13); times in seconds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Soa {
    /// The primary server.
    pub primary: Name,
    /// The mailbox of who is responsible, as a name.
    pub mailbox: Name,
    /// Version of the zone.
    pub serial: u32,
    /// How often secondaries look.
    pub refresh: u32,
    /// How often they try again.
    pub retry: u32,
    /// When they give up.
    pub expire: u32,
    /// How long "there is none" may be cached (RFC 2308 §4).
    pub minimum: u32,
}

/// What a hickory record could not be made for: RDATA that contradicts its type.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("RDATA does not fit its type")]
pub struct NotOfItsType;

impl Record {
    /// A record of any type from wire-form RDATA.
    #[must_use]
    pub fn new(owner: Name, ttl: u32, rtype: Rtype, rdata: Vec<u8>) -> Self {
        Self { owner, rtype, rdata: rdata.into(), ttl }
    }

    /// SOA.
    #[must_use]
    pub fn soa(owner: Name, ttl: u32, soa: &Soa) -> Self {
        let mut rdata = soa.primary.as_wire().to_vec();
        rdata.extend_from_slice(soa.mailbox.as_wire());
        for number in [soa.serial, soa.refresh, soa.retry, soa.expire, soa.minimum] {
            rdata.extend_from_slice(&number.to_be_bytes());
        }
        Self::new(owner, ttl, Rtype::SOA, rdata)
    }

    /// NS.
    #[must_use]
    pub fn ns(owner: Name, ttl: u32, server: &Name) -> Self {
        Self::new(owner, ttl, Rtype::NS, server.as_wire().to_vec())
    }

    /// PTR.
    #[must_use]
    pub fn ptr(owner: Name, ttl: u32, host: &Name) -> Self {
        Self::new(owner, ttl, Rtype::PTR, host.as_wire().to_vec())
    }

    /// CNAME.
    #[must_use]
    pub fn cname(owner: Name, ttl: u32, target: &Name) -> Self {
        Self::new(owner, ttl, Rtype::CNAME, target.as_wire().to_vec())
    }

    /// A or AAAA.
    #[must_use]
    pub fn address(owner: Name, ttl: u32, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(a) => Self::new(owner, ttl, Rtype::A, a.octets().to_vec()),
            IpAddr::V6(a) => Self::new(owner, ttl, Rtype::AAAA, a.octets().to_vec()),
        }
    }

    /// TXT: `text` in strings of at most 255 octets.
    #[must_use]
    pub fn txt(owner: Name, ttl: u32, text: &[u8]) -> Self {
        let mut rdata = Vec::with_capacity(text.len() + text.len() / 255 + 1);
        if text.is_empty() {
            rdata.push(0);
        }
        for chunk in text.chunks(255) {
            rdata.push(u8::try_from(chunk.len()).unwrap_or(u8::MAX));
            rdata.extend_from_slice(chunk);
        }
        Self::new(owner, ttl, Rtype::TXT, rdata)
    }

    /// `X-IPsec-Server(precedence)=gateway key` (RFC 4322 §5.2), split as FreeS/WAN did.
    #[must_use]
    pub fn x_ipsec_server(owner: Name, ttl: u32, txt: &ServerTxt) -> Self {
        Self::new(owner, ttl, Rtype::TXT, txt.to_rdata())
    }

    /// IPSECKEY (RFC 4025 §2).
    #[must_use]
    pub fn ipseckey(owner: Name, ttl: u32, ipseckey: &Ipseckey) -> Self {
        Self::new(owner, ttl, Rtype::IPSECKEY, ipseckey.to_rdata())
    }

    /// The same as hickory knows it; what it has no type for becomes `RData::Unknown`.
    ///
    /// # Errors
    /// The RDATA contradicts the type.
    pub fn to_hickory(&self) -> Result<hickory::Record, NotOfItsType> {
        let mut wire = self.owner.as_wire().to_vec();
        wire.extend_from_slice(&self.rtype.0.to_be_bytes());
        wire.extend_from_slice(&CLASS_IN.to_be_bytes());
        wire.extend_from_slice(&self.ttl.to_be_bytes());
        let len = u16::try_from(self.rdata.len()).map_err(|_| NotOfItsType)?;
        wire.extend_from_slice(&len.to_be_bytes());
        wire.extend_from_slice(&self.rdata);
        hickory::Record::read(&mut BinDecoder::new(&wire)).map_err(|_| NotOfItsType)
    }

    /// From what hickory read off the wire.
    ///
    /// # Errors
    /// Hickory cannot write it again.
    pub fn from_hickory(record: &hickory::Record) -> Result<Self, NotOfItsType> {
        let mut wire = Vec::new();
        let mut encoder = BinEncoder::new(&mut wire);
        encoder.set_name_encoding(NameEncoding::Uncompressed);
        record.emit(&mut encoder).map_err(|_| NotOfItsType)?;
        let (owner, used) = Name::from_wire(&wire).map_err(|_| NotOfItsType)?;
        let rest = wire.get(used..).unwrap_or_default();
        let (&[high, low, _, _, a, b, c, d, _, _], rdata) =
            rest.split_first_chunk().ok_or(NotOfItsType)?;
        let rtype = Rtype(u16::from_be_bytes([high, low]));
        Ok(Self::new(owner, u32::from_be_bytes([a, b, c, d]), rtype, rdata.to_vec()))
    }

    /// RDATA in presentation form, names relative to `origin`.
    #[must_use]
    pub fn rdata_text(&self, origin: &Name) -> String {
        let mut text = String::new();
        let _ = rdata::write(&mut text, self.rtype, &self.rdata, origin);
        text
    }

    /// One line of a master file without the line's end; the owner relative to `origin`.
    ///
    /// # Errors
    /// Only what `out` fails with.
    pub fn write_line(&self, out: &mut dyn fmt::Write, origin: &Name) -> fmt::Result {
        self.owner.write_relative(out, origin)?;
        write!(out, "\t{}\tIN\t{}\t", self.ttl, self.rtype)?;
        rdata::write(out, self.rtype, &self.rdata, origin)
    }

    /// The fields of an SOA record.
    #[must_use]
    pub fn as_soa(&self) -> Option<Soa> {
        if self.rtype != Rtype::SOA {
            return None;
        }
        let (primary, used) = Name::from_wire(&self.rdata).ok()?;
        let rest = self.rdata.get(used..)?;
        let (mailbox, used) = Name::from_wire(rest).ok()?;
        let (numbers, []) = rest.get(used..)?.as_chunks::<4>() else { return None };
        let &[serial, refresh, retry, expire, minimum] = numbers else { return None };
        Some(Soa {
            primary,
            mailbox,
            serial: u32::from_be_bytes(serial),
            refresh: u32::from_be_bytes(refresh),
            retry: u32::from_be_bytes(retry),
            expire: u32::from_be_bytes(expire),
            minimum: u32::from_be_bytes(minimum),
        })
    }

    /// The single name that NS, CNAME, PTR and DNAME point to.
    #[must_use]
    pub fn target(&self) -> Option<Name> {
        if !matches!(self.rtype, Rtype::NS | Rtype::CNAME | Rtype::PTR | Rtype::DNAME) {
            return None;
        }
        Name::from_wire(&self.rdata).ok().map(|(name, _)| name)
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_line(f, &Name::root())
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// RFC 1035 §3.2.4.
pub(crate) const CLASS_IN: u16 = 1;
