//! Dynamic updates (RFC 2136): what must change so that a server says what a file says, in
//! messages of a size that every server takes.

use std::fmt::Write as _;

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr as hickory;

use crate::diff::Change;
use crate::name::Name;
use crate::record::{NotOfItsType, Record};
use crate::rtype::Rtype;

/// What must change so that the set `present` becomes `wanted`; both are records of one name and
/// type. Foreign text stays: of TXT only `X-IPsec-Server` records are removed.
#[must_use]
pub fn reconcile(wanted: &[Record], present: &[Record]) -> Vec<Change> {
    let same = |a: &Record, b: &Record| a.rdata == b.rdata;
    let removed = present
        .iter()
        .filter(|p| is_ours(p) && !wanted.iter().any(|w| same(w, p)))
        .map(|p| Change::Remove(p.clone()));
    let changed = wanted.iter().filter_map(|w| match present.iter().find(|p| same(w, p)) {
        Some(p) if p.ttl == w.ttl => None,
        Some(p) => Some(Change::Ttl { was: p.ttl, record: w.clone() }),
        None => Some(Change::Add(w.clone())),
    });
    removed.chain(changed).collect()
}

/// What must change so that none of `unwanted` is there; only what is `present` is removed.
#[must_use]
pub fn withdraw(unwanted: &[Record], present: &[Record]) -> Vec<Change> {
    let is_unwanted = |p: &&Record| unwanted.iter().any(|u| u.rdata == p.rdata);
    present.iter().filter(is_unwanted).cloned().map(Change::Remove).collect()
}

/// UPDATE messages (RFC 2136 §2) for the changes. What belongs to one name stays in one message,
/// which the server applies as a whole or not at all.
///
/// # Errors
/// A record's RDATA contradicts its type.
pub fn messages(zone: &Name, changes: &[Change]) -> Result<Vec<Message>, NotOfItsType> {
    let origin = hickory_name(zone)?;
    let mut messages = Vec::new();
    let mut message = empty(&origin);
    let mut size = 0;
    for group in changes.chunk_by(|a, b| a.record().owner == b.record().owner) {
        let group_size: usize = group.iter().map(size_of).sum();
        if size > 0 && size + group_size > MAX_MESSAGE {
            messages.push(std::mem::replace(&mut message, empty(&origin)));
            size = 0;
        }
        size += group_size;
        for change in group {
            let mut record = change.record().to_hickory()?;
            if matches!(change, Change::Remove(_)) {
                // RFC 2136 §2.5.4.
                record.dns_class = hickory::DNSClass::NONE;
                record.ttl = 0;
            }
            message.authorities.push(record);
        }
    }
    if size > 0 {
        messages.push(message);
    }
    Ok(messages)
}

/// The same as a script for nsupdate(1).
#[must_use]
pub fn nsupdate(zone: &Name, changes: &[Change]) -> String {
    let mut script = format!("zone {zone}\n");
    let mut size = 0;
    for group in changes.chunk_by(|a, b| a.record().owner == b.record().owner) {
        let group_size: usize = group.iter().map(size_of).sum();
        if size > 0 && size + group_size > MAX_MESSAGE {
            script.push_str("send\n");
            size = 0;
        }
        size += group_size;
        for change in group {
            let record = change.record();
            let Record { owner, ttl, rtype, .. } = record;
            let data = record.rdata_text(&Name::root());
            let _ = match change {
                Change::Remove(_) => writeln!(script, "update delete {owner} IN {rtype} {data}"),
                _ => writeln!(script, "update add {owner} {ttl} IN {rtype} {data}"),
            };
        }
    }
    if size > 0 {
        script.push_str("send\n");
    }
    script
}

/// A query for what a server has of one name and type.
///
/// # Errors
/// The name does not fit hickory's.
pub fn query(id: u16, owner: &Name, rtype: Rtype) -> Result<Message, NotOfItsType> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(hickory_name(owner)?, hickory::RecordType::from(rtype.0)));
    Ok(message)
}

fn is_ours(record: &Record) -> bool {
    record.rtype != Rtype::TXT || !matches!(dnskeys::ServerTxt::from_rdata(&record.rdata), Ok(None))
}

fn empty(origin: &hickory::Name) -> Message {
    let mut message = Message::new(0, MessageType::Query, OpCode::Update);
    message.add_query(Query::query(origin.clone(), hickory::RecordType::SOA));
    message
}

fn hickory_name(name: &Name) -> Result<hickory::Name, NotOfItsType> {
    let labels: Vec<&[u8]> = name.labels().collect();
    let mut name = hickory::Name::from_labels(labels).map_err(|_| NotOfItsType)?;
    name.set_fqdn(true);
    Ok(name)
}

fn size_of(change: &Change) -> usize {
    let record = change.record();
    record.owner.as_wire().len() + record.rdata.len() + RR_FIXED
}

/// Type, class, TTL and length.
const RR_FIXED: usize = 10;
/// A message over TCP has at most 65535 octets; TSIG needs some, and servers apply small ones
/// faster.
const MAX_MESSAGE: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn txt(text: &str, ttl: u32) -> Record {
        Record::txt("11.2.0.192.in-addr.arpa".parse().unwrap(), ttl, text.as_bytes())
    }

    #[test]
    fn foreign_text_stays() {
        let ours = txt("X-IPsec-Server(10)=192.0.2.11", 60);
        let newer = txt("X-IPsec-Server(5)=192.0.2.11", 60);
        let foreign = txt("v=spf1 -all", 60);
        let changes = reconcile(std::slice::from_ref(&newer), &[ours.clone(), foreign.clone()]);
        assert_eq!(changes, [Change::Remove(ours.clone()), Change::Add(newer.clone())]);
        // Once done, there is nothing left to do.
        assert!(
            reconcile(std::slice::from_ref(&newer), &[foreign.clone(), newer.clone()]).is_empty()
        );
        let changes =
            reconcile(&[txt("X-IPsec-Server(5)=192.0.2.11", 61)], std::slice::from_ref(&newer));
        assert!(matches!(changes.as_slice(), [Change::Ttl { was: 60, .. }]));
        assert_eq!(
            withdraw(std::slice::from_ref(&ours), &[foreign, ours.clone()]),
            [Change::Remove(ours)]
        );
    }

    #[test]
    fn messages_stay_small_and_names_whole() {
        let changes: Vec<Change> = (0..200_u32)
            .flat_map(|i| {
                let owner: Name = format!("{}.2.0.192.in-addr.arpa", i).parse().unwrap();
                let long = "k".repeat(600);
                [Record::txt(owner.clone(), 60, long.as_bytes()), Record::txt(owner, 60, b"b")]
            })
            .map(Change::Add)
            .collect();
        let zone: Name = "2.0.192.in-addr.arpa".parse().unwrap();
        let messages = messages(&zone, &changes).unwrap();
        assert!(messages.len() > 3);
        let total: usize = messages.iter().map(|m| m.authorities.len()).sum();
        assert_eq!(total, 400);
        for message in &messages {
            assert!(message.to_vec().unwrap().len() < 40_000);
            assert_eq!(message.authorities.len() % 2, 0);
        }
        assert_eq!(nsupdate(&zone, &changes).matches("send\n").count(), messages.len());
        assert!(super::messages(&zone, &[]).unwrap().is_empty());
    }
}
