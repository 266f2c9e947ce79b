//! A zone that fits in memory: origin and records. What is too large for that is streamed by
//! [`crate::generate`].

use std::fmt;

use crate::name::Name;
use crate::record::{Record, Soa};
use crate::rtype::Rtype;

/// A zone: everything authoritative at and below its origin down to its cuts, and glue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Zone {
    /// The name of its apex.
    pub origin: Name,
    /// The SOA first, the others in the order they were added.
    pub records: Vec<Record>,
}

/// What a new zone's SOA and NS records are made from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Apex {
    /// The zone's name servers, the primary first. Without one the SOA names the origin itself.
    pub servers: Vec<Name>,
    /// The mailbox of who is responsible, as a name.
    pub mailbox: Name,
    /// Version of the zone.
    pub serial: u32,
    /// TTL of every record that brings none of its own, in seconds.
    pub ttl: u32,
    /// How long "there is no key" may be cached, in seconds.
    pub minimum: u32,
}

impl Apex {
    /// One server and sensible times: an hour for records, five minutes for "there is none", so
    /// that a new customer need not wait long.
    #[must_use]
    pub fn new(server: Name, serial: u32) -> Self {
        let mailbox = Name::root().prepend(b"hostmaster").unwrap_or_else(|_| Name::root());
        Self { servers: vec![server], mailbox, serial, ttl: 3600, minimum: 300 }
    }

    /// The SOA record's fields for a zone.
    #[must_use]
    pub fn soa(&self, origin: &Name) -> Soa {
        Soa {
            primary: self.servers.first().unwrap_or(origin).clone(),
            mailbox: self.mailbox.clone(),
            serial: self.serial,
            refresh: 3600,
            retry: 600,
            expire: 1_209_600,
            minimum: self.minimum,
        }
    }
}

impl Zone {
    /// SOA and NS, and nothing else yet.
    #[must_use]
    pub fn new(origin: Name, apex: &Apex) -> Self {
        let mut records = vec![Record::soa(origin.clone(), apex.ttl, &apex.soa(&origin))];
        records.extend(apex.servers.iter().map(|s| Record::ns(origin.clone(), apex.ttl, s)));
        Self { origin, records }
    }

    /// Adds a record.
    pub fn push(&mut self, record: Record) {
        self.records.push(record);
    }

    /// The fields of its SOA record.
    #[must_use]
    pub fn soa(&self) -> Option<Soa> {
        self.records
            .iter()
            .find(|r| r.rtype == Rtype::SOA && r.owner == self.origin)
            .and_then(Record::as_soa)
    }

    /// The records at one name.
    pub fn at<'a>(&'a self, owner: &'a Name) -> impl Iterator<Item = &'a Record> {
        self.records.iter().filter(move |r| r.owner == *owner)
    }
}

impl fmt::Display for Zone {
    /// A master file (RFC 1035 §5).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "$ORIGIN {}", self.origin)?;
        for record in &self.records {
            record.write_line(f, &self.origin)?;
            writeln!(f)?;
        }
        Ok(())
    }
}
