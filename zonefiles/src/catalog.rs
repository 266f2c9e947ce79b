//! Answers from served zones, as a pure function from a query to a response (RFC 1034 §4.3.2,
//! RFC 4035 §3.1, RFC 4592, RFC 6672).
//!
//! Zones above and below each other may be served together: what lies at a cut is answered by the
//! child, but DS by the parent, and a name that does not exist because only names below it do is
//! not denied. Two things that the general server library at hand gets wrong.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::dnssec::{Rrset, SortedZone};
use crate::name::Name;
use crate::rtype::Rtype;
use crate::wire::{self, Flags, MAX_UDP, Query, Rcode, Refused, Section, Writer, bare};

/// The zones of a server.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    zones: BTreeMap<Name, Arc<SortedZone>>,
}

/// How a query came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// Answers are at most what the query allows.
    Udp,
    /// Answers are up to 65535 octets.
    Tcp,
}

/// What to do about a message.
#[derive(Debug)]
pub enum Reply {
    /// Nothing: it was no query.
    Nothing,
    /// Send this.
    Message(Vec<u8>),
    /// A zone transfer was asked for: send the messages of [`Transfer`], if the asker may have it.
    Transfer(Transfer),
}

/// A zone transfer, message by message (RFC 5936 §2.2).
#[derive(Debug)]
pub struct Transfer {
    query: Query,
    zone: Arc<SortedZone>,
    after: Option<Name>,
    state: TransferState,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum TransferState {
    Begin,
    Middle,
    Done,
}

impl Catalog {
    /// Adds a zone or replaces it.
    pub fn insert(&mut self, zone: Arc<SortedZone>) {
        self.zones.insert(zone.origin.to_lowercase(), zone);
    }

    /// A zone by its origin.
    #[must_use]
    pub fn get(&self, origin: &Name) -> Option<&Arc<SortedZone>> {
        self.zones.get(origin)
    }

    /// The zones, by origin.
    pub fn zones(&self) -> impl Iterator<Item = &Arc<SortedZone>> {
        self.zones.values()
    }

    /// What to say to a message.
    #[must_use]
    pub fn answer(&self, message: &[u8], transport: Transport) -> Reply {
        let query = match Query::read(message) {
            Ok(query) => query,
            Err(Refused::Ignore) => return Reply::Nothing,
            Err(Refused::With(id, rcode)) => return Reply::Message(bare(id, rcode)),
        };
        if query.edns.is_some_and(|edns| edns.version != 0) {
            return refuse(&query, Rcode::BadVers);
        }
        if query.class != CLASS_IN || !(query.rtype.is_data() || query.rtype.0 >= 251) {
            return refuse(&query, Rcode::Refused);
        }
        if matches!(query.rtype, Rtype::AXFR | Rtype::IXFR) {
            return self.transfer(query, transport);
        }
        let Some(zone) = self.zone_for(&query.name, query.rtype) else {
            return refuse(&query, Rcode::Refused);
        };
        let mut found = Found::new(query.dnssec_ok());
        found.minimal = transport == Transport::Udp;
        self.look_up(zone, &query, &mut found);
        Reply::Message(found.write(&query, limit(&query, transport)))
    }

    fn transfer(&self, query: Query, transport: Transport) -> Reply {
        let Some(zone) = self.zones.get(&query.name) else {
            return refuse(&query, Rcode::Refused);
        };
        match transport {
            Transport::Tcp => {
                let zone = Arc::clone(zone);
                Reply::Transfer(Transfer { query, zone, after: None, state: TransferState::Begin })
            }
            // RFC 1995 §2: the SOA alone says "come by TCP".
            Transport::Udp if query.rtype == Rtype::IXFR => {
                let mut found = Found::new(false);
                if let Some(soa) = zone.set(&zone.origin, Rtype::SOA) {
                    found.add(Section::Answer, &zone.origin, soa);
                }
                Reply::Message(found.write(&query, limit(&query, transport)))
            }
            Transport::Udp => refuse(&query, Rcode::FormErr),
        }
    }

    /// The deepest zone that holds a name; for DS at an apex the one above it, if it is here.
    fn zone_for(&self, name: &Name, rtype: Rtype) -> Option<&Arc<SortedZone>> {
        let mut own = None;
        for above in std::iter::successors(Some(name.clone()), Name::parent) {
            let Some(zone) = self.zones.get(&above) else { continue };
            if rtype == Rtype::DS && own.is_none() && above == *name {
                own = Some(zone);
                continue;
            }
            return Some(zone);
        }
        own
    }

    fn look_up<'a>(&'a self, zone: &'a SortedZone, query: &Query, found: &mut Found<'a>) {
        let mut zone = zone;
        let mut name = query.name.clone();
        for _ in 0..MAX_ALIASES {
            let Some(target) = found.step(zone, &name, query.rtype) else { return };
            if let Some(next) = self.zone_for(&target, query.rtype) {
                zone = next;
                name = target;
            } else {
                return;
            }
        }
    }
}

/// Tells a secondary that a zone changed (RFC 1996).
#[must_use]
pub fn notify(id: u16, zone: &Name) -> Vec<u8> {
    wire::notify(id, zone)
}

impl Iterator for Transfer {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        if self.state == TransferState::Done {
            return None;
        }
        let zone = Arc::clone(&self.zone);
        let soa = zone.set(&zone.origin, Rtype::SOA)?;
        let mut writer = Writer::new(&self.query, MAX_TRANSFER);
        if self.state == TransferState::Begin {
            write_set(&mut writer, &zone.origin, soa);
            self.state = TransferState::Middle;
        }
        let from = match &self.after {
            Some(after) => std::ops::Bound::Excluded(after.clone()),
            None => std::ops::Bound::Unbounded,
        };
        for (owner, sets) in zone.nodes.range((from, std::ops::Bound::Unbounded)) {
            let mut sets = sets.iter().filter(|s| s.rtype != Rtype::SOA || *owner != zone.origin);
            if writer.len() + node_size(owner, sets.clone()) > TRANSFER_TARGET && !writer.is_empty()
            {
                return Some(writer.finish(&self.query, AUTHORITATIVE));
            }
            // A node is never split: RRsets of one name are far below a message.
            if !sets.all(|set| write_set(&mut writer, owner, set)) {
                self.state = TransferState::Done;
                return Some(
                    Writer::new(&self.query, MAX_TRANSFER)
                        .finish(&self.query, Flags { rcode: Rcode::ServFail, ..AUTHORITATIVE }),
                );
            }
            self.after = Some(owner.clone());
        }
        if let Some(rdata) = soa.rdata.first() {
            writer.record(Section::Answer, &zone.origin, soa.rtype, soa.ttl, rdata);
        }
        self.state = TransferState::Done;
        Some(writer.finish(&self.query, AUTHORITATIVE))
    }
}

impl Transfer {
    /// The zone that is asked for.
    #[must_use]
    pub fn zone(&self) -> &Name {
        &self.zone.origin
    }

    /// The answer to one who may not have it.
    #[must_use]
    pub fn refuse(&self) -> Vec<u8> {
        Writer::new(&self.query, usize::from(MAX_UDP))
            .finish(&self.query, Flags { rcode: Rcode::Refused, ..PLAIN })
    }
}

/// What a lookup gathered, by section.
struct Found<'a> {
    sets: Vec<(Section, Name, Part<'a>)>,
    dnssec: bool,
    minimal: bool,
    authoritative: bool,
    rcode: Rcode,
}

enum Part<'a> {
    Set(&'a Rrset),
    /// With another TTL than the set's own.
    Denial(&'a Rrset, u32),
    /// A CNAME made from a DNAME (RFC 6672 §3.1).
    Made(Name, u32),
}

impl<'a> Found<'a> {
    fn new(dnssec: bool) -> Self {
        Self {
            sets: Vec::new(),
            dnssec,
            minimal: false,
            authoritative: true,
            rcode: Rcode::NoError,
        }
    }

    fn add(&mut self, section: Section, owner: &Name, set: &'a Rrset) {
        self.sets.push((section, owner.clone(), Part::Set(set)));
    }

    /// One name in one zone; an alias's target if there is something to follow.
    fn step(&mut self, zone: &'a SortedZone, name: &Name, rtype: Rtype) -> Option<Name> {
        let above: Vec<Name> = std::iter::successors(Some(name.clone()), Name::parent)
            .take_while(|n| n.is_within(&zone.origin))
            .collect();
        if !zone.cuts.is_empty()
            && let Some(cut) = above.iter().rev().find(|n| zone.cuts.contains(*n))
            && !(rtype == Rtype::DS && cut == name)
        {
            self.refer(zone, cut);
            return None;
        }
        let aliased = above.iter().skip(1).rev();
        for dname in aliased {
            if let Some(set) = zone.set(dname, Rtype::DNAME) {
                return self.rename(dname, set, name);
            }
        }
        if let Some(sets) = zone.nodes.get(name) {
            return self.node(zone, name, name, sets, rtype);
        }
        if zone.has_below(name) {
            self.deny(zone, name, None);
            return None;
        }
        let encloser = above
            .iter()
            .skip(1)
            .find(|n| zone.nodes.contains_key(*n) || zone.has_below(n))
            .unwrap_or(&zone.origin);
        let wildcard = encloser.prepend(b"*").ok()?;
        let Some(sets) = zone.nodes.get(&wildcard) else {
            // A wildcard that is only on the way to others has no records, but it exists
            // (RFC 4592 §4.9).
            if !zone.has_below(&wildcard) {
                self.rcode = Rcode::NxDomain;
            }
            self.deny(zone, name, Some(&wildcard));
            return None;
        };
        let target = self.node(zone, &wildcard, name, sets, rtype);
        // The wildcard counts only because nothing closer exists (RFC 4035 §3.1.3.3).
        self.cover(zone, name);
        target
    }

    /// A name that exists, at `node`; the answer's owner is `name`.
    fn node(
        &mut self,
        zone: &'a SortedZone,
        node: &Name,
        name: &Name,
        sets: &'a [Rrset],
        rtype: Rtype,
    ) -> Option<Name> {
        // Signatures have no set of their own here: who asks for them gets them with what they sign.
        if matches!(rtype, Rtype::ANY | Rtype::RRSIG) {
            // RFC 8482: over UDP one set says that there is something, and amplifies little.
            for set in sets.iter().take(if self.minimal { 1 } else { usize::MAX }) {
                self.add(Section::Answer, name, set);
            }
            return None;
        }
        if let Some(set) = sets.iter().find(|set| set.rtype == rtype) {
            self.add(Section::Answer, name, set);
            return None;
        }
        if let Some(set) = sets.iter().find(|set| set.rtype == Rtype::CNAME) {
            self.add(Section::Answer, name, set);
            return set.rdata.first().and_then(|r| Name::from_wire(r).ok()).map(|(n, _)| n);
        }
        self.deny(zone, node, None);
        None
    }

    fn rename(&mut self, dname: &Name, set: &'a Rrset, name: &Name) -> Option<Name> {
        self.add(Section::Answer, dname, set);
        let (target, _) = Name::from_wire(set.rdata.first()?).ok()?;
        let keep = name.count_labels() - dname.count_labels();
        let labels: Vec<&[u8]> = name.labels().take(keep).collect();
        let renamed = labels.iter().rev().try_fold(target, |n, label| n.prepend(label)).ok()?;
        self.sets.push((Section::Answer, name.clone(), Part::Made(renamed.clone(), set.ttl)));
        Some(renamed)
    }

    /// A referral (RFC 1034 §4.3.2 3b, RFC 4035 §3.1.4).
    fn refer(&mut self, zone: &'a SortedZone, cut: &Name) {
        if self.sets.is_empty() {
            self.authoritative = false;
        }
        let Some(ns) = zone.set(cut, Rtype::NS) else { return };
        self.add(Section::Authority, cut, ns);
        if let Some(ds) = zone.set(cut, Rtype::DS) {
            if self.dnssec {
                self.add(Section::Authority, cut, ds);
            }
        } else {
            self.matching(zone, cut);
        }
        for server in ns.rdata.iter().filter_map(|r| Name::from_wire(r).ok()).map(|(n, _)| n) {
            for glue in [Rtype::A, Rtype::AAAA].iter().filter_map(|t| zone.set(&server, *t)) {
                self.add(Section::Additional, &server, glue);
            }
        }
    }

    /// SOA, and the NSECs that prove it: `name` has no such type, or with `wildcard` neither of
    /// the two exists.
    fn deny(&mut self, zone: &'a SortedZone, name: &Name, wildcard: Option<&Name>) {
        if let Some(soa) = zone.set(&zone.origin, Rtype::SOA) {
            let part = Part::Denial(soa, zone.negative_ttl());
            self.sets.push((Section::Authority, zone.origin.clone(), part));
        }
        if !self.matching(zone, name) {
            self.cover(zone, name);
        }
        if let Some(wildcard) = wildcard {
            self.cover(zone, wildcard);
        }
    }

    /// The NSEC at a name.
    fn matching(&mut self, zone: &'a SortedZone, name: &Name) -> bool {
        let Some(nsec) = zone.set(name, Rtype::NSEC).filter(|_| self.dnssec) else { return false };
        self.add_once(name, nsec);
        true
    }

    /// The NSEC whose gap a name falls into.
    fn cover(&mut self, zone: &'a SortedZone, name: &Name) {
        if !self.dnssec || !zone.signed {
            return;
        }
        // Glue has none, so look further back.
        let before = zone.nodes.range(..name.clone()).rev();
        let nsec = before
            .filter_map(|(owner, sets)| {
                Some((owner, sets.iter().find(|set| set.rtype == Rtype::NSEC)?))
            })
            .next();
        if let Some((owner, set)) = nsec {
            self.add_once(owner, set);
        }
    }

    fn add_once(&mut self, owner: &Name, set: &'a Rrset) {
        let same = |(section, name, part): &(Section, Name, Part<'a>)| {
            *section == Section::Authority
                && name == owner
                && matches!(part, Part::Set(s) if s.rtype == set.rtype)
        };
        if !self.sets.iter().any(same) {
            self.add(Section::Authority, owner, set);
        }
    }

    fn write(mut self, query: &Query, limit: usize) -> Vec<u8> {
        self.sets.sort_by_key(|(section, ..)| *section);
        let mut writer = Writer::new(query, limit);
        let mut flags =
            Flags { authoritative: self.authoritative, truncated: false, rcode: self.rcode };
        for (section, owner, part) in &self.sets {
            if !self.write_part(&mut writer, *section, owner, part) {
                // Half an answer is of no use to a validator: come by TCP.
                flags.truncated = true;
                return Writer::new(query, limit).finish(query, flags);
            }
        }
        writer.finish(query, flags)
    }

    fn write_part(
        &self,
        writer: &mut Writer,
        section: Section,
        owner: &Name,
        part: &Part<'_>,
    ) -> bool {
        let (set, ttl) = match part {
            Part::Set(set) => (set, set.ttl),
            Part::Denial(set, ttl) => (set, *ttl),
            Part::Made(target, ttl) => {
                return writer.record(section, owner, Rtype::CNAME, *ttl, target.as_wire());
            }
        };
        let mut signatures = set.signatures.iter().filter(|_| self.dnssec);
        set.rdata.iter().all(|rdata| writer.record(section, owner, set.rtype, ttl, rdata))
            && signatures.all(|rdata| writer.record(section, owner, Rtype::RRSIG, ttl, rdata))
    }
}

impl SortedZone {
    /// Whether names exist below this one.
    fn has_below(&self, name: &Name) -> bool {
        let after = (std::ops::Bound::Excluded(name), std::ops::Bound::Unbounded);
        self.nodes.range::<Name, _>(after).next().is_some_and(|(next, _)| next.is_within(name))
    }
}

fn write_set(writer: &mut Writer, owner: &Name, set: &Rrset) -> bool {
    let mut write =
        |rtype, rdata: &[u8]| writer.record(Section::Answer, owner, rtype, set.ttl, rdata);
    set.rdata.iter().all(|rdata| write(set.rtype, rdata))
        && set.signatures.iter().all(|rdata| write(Rtype::RRSIG, rdata))
}

fn node_size<'a>(owner: &Name, sets: impl Iterator<Item = &'a Rrset>) -> usize {
    let fixed = owner.as_wire().len() + 10;
    sets.flat_map(|set| set.rdata.iter().chain(&set.signatures)).map(|r| r.len() + fixed).sum()
}

fn refuse(query: &Query, rcode: Rcode) -> Reply {
    let writer = Writer::new(query, usize::from(MAX_UDP));
    Reply::Message(writer.finish(query, Flags { rcode, ..PLAIN }))
}

fn limit(query: &Query, transport: Transport) -> usize {
    match transport {
        Transport::Tcp => MAX_TRANSFER,
        Transport::Udp => {
            usize::from(query.edns.map_or(512, |edns| edns.payload.clamp(512, MAX_UDP)))
        }
    }
}

const PLAIN: Flags = Flags { authoritative: false, truncated: false, rcode: Rcode::NoError };
const AUTHORITATIVE: Flags = Flags { authoritative: true, ..PLAIN };
const CLASS_IN: u16 = crate::record::CLASS_IN;
/// Length of a message over TCP (RFC 1035 §4.2.2).
const MAX_TRANSFER: usize = 65_535;
/// Pointers reach 16384 octets; beyond, compression of owner names ends.
const TRANSFER_TARGET: usize = 16_384;
/// Longer chains are loops or mistakes; resolvers stop between 8 and 16.
const MAX_ALIASES: usize = 8;

#[cfg(test)]
mod tests;
