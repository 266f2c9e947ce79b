//! What changed between two versions of a zone.

use std::collections::BTreeMap;
use std::fmt;

use crate::name::Name;
use crate::record::Record;
use crate::rtype::Rtype;
use crate::zone::Zone;

/// One difference.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Only in the old version.
    Remove(Record),
    /// Only in the new version.
    Add(Record),
    /// In both, with another TTL; this is the new one.
    Ttl {
        /// The TTL it had.
        was: u32,
        /// The record now.
        record: Record,
    },
}

/// What is not compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ignore {
    /// The SOA's serial number.
    pub serial: bool,
    /// RRSIG, NSEC, NSEC3, NSEC3PARAM, DNSKEY: what signing makes.
    pub dnssec: bool,
}

impl Change {
    /// The record it is about.
    #[must_use]
    pub fn record(&self) -> &Record {
        match self {
            Self::Remove(record) | Self::Add(record) | Self::Ttl { record, .. } => record,
        }
    }
}

/// The differences, by name and type, what was removed before what was added.
#[must_use]
pub fn diff(old: &Zone, new: &Zone, ignore: Ignore) -> Vec<Change> {
    let (old, new) = (by_data(old, ignore), by_data(new, ignore));
    let mut changes = Vec::new();
    for (data, record) in &old {
        match new.get(data) {
            None => changes.push(Change::Remove((*record).clone())),
            Some(now) if now.ttl != record.ttl => {
                changes.push(Change::Ttl { was: record.ttl, record: (*now).clone() });
            }
            Some(_) => {}
        }
    }
    let added = new.iter().filter(|(data, _)| !old.contains_key(*data));
    changes.extend(added.map(|(_, record)| Change::Add((*record).clone())));
    let rank = |change: &Change| match change {
        Change::Remove(_) => 0,
        Change::Ttl { .. } => 1,
        Change::Add(_) => 2,
    };
    changes.sort_by(|a, b| {
        let key = |c: &Change| (c.record().owner.clone(), c.record().rtype, rank(c));
        key(a).cmp(&key(b))
    });
    changes
}

type Data = (Name, Rtype, Vec<u8>);

fn by_data(zone: &Zone, ignore: Ignore) -> BTreeMap<Data, &Record> {
    let compared = zone
        .records
        .iter()
        .filter(|record| !(ignore.dnssec && matches!(record.rtype.0, 46 | 47 | 48 | 50 | 51)));
    compared
        .map(|record| {
            // Names in RDATA are the same in any case.
            let mut data = crate::rdata::canonical(record.rtype, &record.rdata);
            if ignore.serial
                && record.rtype == Rtype::SOA
                && let Some(at) = data.len().checked_sub(SOA_NUMBERS)
                && let Some(serial) = data.get_mut(at..at + 4)
            {
                serial.fill(0);
            }
            ((record.owner.clone(), record.rtype, data), record)
        })
        .collect()
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remove(record) => write!(f, "- {record}"),
            Self::Add(record) => write!(f, "+ {record}"),
            Self::Ttl { was, record } => write!(f, "~ {record} ; TTL was {was}"),
        }
    }
}

/// Serial, refresh, retry, expire and minimum.
const SOA_NUMBERS: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::master::Reader;

    fn zone(text: &str) -> Zone {
        let records: Vec<Record> = Reader::of_text(text, None).map(|r| r.unwrap().record).collect();
        Zone { origin: records[0].owner.clone(), records }
    }

    const ALL: Ignore = Ignore { serial: true, dnssec: true };

    #[test]
    fn added_removed_and_changed() {
        let head = "$ORIGIN e.\n$TTL 60\n@ SOA a b ";
        let old = zone(&format!("{head} 1 2 3 4 5\nx TXT a\nx TXT b\ny NS Ns.E.\nz A 192.0.2.1\n"));
        let new = zone(&format!(
            "{head} 2 2 3 4 5\nX TXT b\nx TXT c\ny NS ns\nz 70 A 192.0.2.1\nz RRSIG A 13 1 60 1 1 1 e. AA==\n"
        ));
        let changes: Vec<String> = diff(&old, &new, ALL).iter().map(ToString::to_string).collect();
        assert_eq!(
            changes,
            [
                "- x.e.\t60\tIN\tTXT\t\"a\"",
                "+ x.e.\t60\tIN\tTXT\t\"c\"",
                "~ z.e.\t70\tIN\tA\t192.0.2.1 ; TTL was 60",
            ]
        );
        assert!(diff(&old, &old, ALL).is_empty());
        let none = Ignore { serial: false, dnssec: false };
        assert_eq!(diff(&old, &new, none).len(), 6);
    }
}
