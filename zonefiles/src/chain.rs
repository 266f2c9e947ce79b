//! The zones above the given ones, up to the root, so that a closed world has a chain of trust.

use std::net::IpAddr;

use crate::name::Name;
use crate::record::Record;
use crate::rtype::Rtype;
use crate::zone::{Apex, Zone};

/// `leaves` and what is missing above them: `.`, and every first-level and second-level zone on
/// the way (`arpa.`, `in-addr.arpa.`, `ip6.arpa.`, `example.`), each delegating to the next. The
/// servers' addresses are written where the servers' names lie. DS records are the signer's to add.
#[must_use]
pub fn root_chain(leaves: Vec<Zone>, apex: &Apex, addresses: &[(Name, IpAddr)]) -> Vec<Zone> {
    let mut zones = vec![Zone::new(Name::root(), apex)];
    let mut leaves = leaves;
    let mut origins: Vec<Name> = leaves.iter().flat_map(|leaf| above(&leaf.origin)).collect();
    origins.sort();
    origins.dedup();
    origins.retain(|origin| leaves.iter().all(|leaf| leaf.origin != *origin));
    zones.extend(origins.iter().map(|origin| Zone::new(origin.clone(), apex)));
    if leaves.iter().any(|leaf| leaf.origin.is_root()) {
        zones.remove(0);
    }
    zones.append(&mut leaves);
    for (name, address) in addresses {
        if let Some(zone) = enclosing_mut(&mut zones, name, false) {
            zone.push(Record::address(name.clone(), apex.ttl, *address));
        }
    }
    delegate(&mut zones);
    zones
}

/// Adds to each zone the NS records, and the glue, of the zones cut out of it that lack them.
pub fn delegate(zones: &mut [Zone]) {
    let cuts: Vec<(Name, Vec<Record>)> = zones
        .iter()
        .map(|zone| {
            let apex_ns = zone.records.iter().filter(|r| r.rtype == Rtype::NS);
            let mut needed: Vec<Record> =
                apex_ns.filter(|r| r.owner == zone.origin).cloned().collect();
            let glue =
                needed.iter().filter_map(Record::target).filter(|t| t.is_within(&zone.origin));
            let glue: Vec<Record> = glue
                .flat_map(|t| zone.records.iter().filter(move |r| r.owner == t))
                .filter(|r| matches!(r.rtype, Rtype::A | Rtype::AAAA))
                .cloned()
                .collect();
            needed.extend(glue);
            (zone.origin.clone(), needed)
        })
        .collect();
    for (origin, needed) in cuts {
        let Some(parent) = enclosing_mut(zones, &origin, true) else { continue };
        if parent.records.iter().any(|r| r.rtype == Rtype::NS && r.owner == origin) {
            continue;
        }
        parent.records.extend(needed);
    }
}

/// The deepest zone that a name lies in; `strictly` leaves out the zone of that very name.
fn enclosing_mut<'a>(zones: &'a mut [Zone], name: &Name, strictly: bool) -> Option<&'a mut Zone> {
    zones
        .iter_mut()
        .filter(|zone| name.is_within(&zone.origin) && !(strictly && zone.origin == *name))
        .max_by_key(|zone| zone.origin.count_labels())
}

/// The zones between the root and an origin as the public tree has them: the first label, and
/// under `arpa.` the second.
fn above(origin: &Name) -> Vec<Name> {
    let mut names: Vec<Name> = std::iter::successors(origin.parent(), Name::parent)
        .filter(|name| !name.is_root())
        .collect();
    let arpa = names.last().is_some_and(|top| top.labels().eq([b"arpa".as_slice()]));
    names.retain(|name| name.count_labels() <= if arpa { 2 } else { 1 });
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaf_gets_its_parents() {
        let server: Name = "ns.lab".parse().unwrap();
        let apex = Apex::new(server.clone(), 1);
        let leaf = Zone::new("2.0.192.in-addr.arpa".parse().unwrap(), &apex);
        let zones = root_chain(vec![leaf], &apex, &[(server, [10, 0, 0, 1].into())]);
        let origins: Vec<String> = zones.iter().map(|z| z.origin.to_string()).collect();
        assert_eq!(origins, [".", "arpa.", "in-addr.arpa.", "2.0.192.in-addr.arpa."]);
        assert!(zones[0].to_string().contains("ns.lab.\t3600\tIN\tA\t10.0.0.1"));
        assert!(zones[0].to_string().contains("arpa.\t3600\tIN\tNS\tns.lab."));
        assert!(zones[2].to_string().contains("2.0.192\t3600\tIN\tNS\tns.lab."));
    }
}
