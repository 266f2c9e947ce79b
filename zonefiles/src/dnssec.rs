//! Signing a zone: DNSKEY, RRSIG and the NSEC chain (RFC 4034, RFC 4035 §2).
//!
//! NSEC, not NSEC3: a reverse tree can be walked by counting, so hiding its names buys nothing and
//! costs every validator hashes.

use std::collections::{BTreeMap, BTreeSet};

use hickory_proto::dnssec::crypto::Digest;
use hickory_proto::dnssec::{DigestType, PublicKey as _, SigningKey, TBS};

use crate::name::Name;
use crate::rdata;
use crate::record::{CLASS_IN, Record};
use crate::rtype::Rtype;
use crate::zone::Zone;

/// The key that signs a zone: one key for keys and data alike, as a small operator wants it.
pub struct ZoneKey {
    signing: Box<dyn SigningKey>,
    dnskey: Vec<u8>,
    tag: u16,
    algorithm: u8,
}

/// From when until when signatures are valid: seconds since 1970, modulo 2³² (RFC 4034 §3.1.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Validity {
    /// Not before.
    pub inception: u32,
    /// Not after.
    pub expiration: u32,
}

/// Signatures that are there already and may be used again for what did not change.
#[derive(Clone, Copy, Debug)]
pub struct Previous<'a> {
    /// The zone as it was signed last.
    pub zone: &'a SortedZone,
    /// A signature that ends earlier is made anew.
    pub until: u32,
}

/// Why a zone could not be signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SignError {
    /// There is no SOA at the origin.
    #[error("the zone has no SOA record at its origin")]
    NoSoa,
    /// The cryptographic library refused the key.
    #[error("the key cannot sign")]
    Key,
}

/// The records of one type at one name, with their signatures.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rrset {
    /// Their type.
    pub rtype: Rtype,
    /// Their TTL: the smallest, if a file gave several (RFC 2181 §5.2).
    pub ttl: u32,
    /// RDATA in canonical order, without duplicates.
    pub rdata: Vec<Box<[u8]>>,
    /// RDATA of the RRSIGs over them.
    pub signatures: Vec<Box<[u8]>>,
}

/// A zone sorted into sets, ready to be answered from.
#[derive(Clone, Debug)]
pub struct SortedZone {
    /// The apex.
    pub origin: Name,
    /// Every name with records; in canonical order, so a denial is a neighbour.
    pub(crate) nodes: BTreeMap<Name, Vec<Rrset>>,
    /// The names at which zones are cut out.
    pub(crate) cuts: BTreeSet<Name>,
    pub(crate) signed: bool,
}

impl ZoneKey {
    /// Wraps a key whose public part becomes the zone's DNSKEY (flags 257: zone key and entry
    /// point).
    ///
    /// # Errors
    /// The library cannot tell the public key.
    pub fn new(signing: Box<dyn SigningKey>) -> Result<Self, SignError> {
        let public = signing.to_public_key().map_err(|_| SignError::Key)?;
        let algorithm = u8::from(signing.algorithm());
        let mut dnskey = vec![1, 1, 3, algorithm];
        dnskey.extend_from_slice(public.public_bytes());
        let tag = key_tag(&dnskey);
        Ok(Self { signing, dnskey, tag, algorithm })
    }

    /// The zone's DNSKEY record.
    #[must_use]
    pub fn dnskey(&self, zone: &Name, ttl: u32) -> Record {
        Record::new(zone.clone(), ttl, Rtype::DNSKEY, self.dnskey.clone())
    }

    /// The DS record for the parent (RFC 4034 §5, SHA-256).
    ///
    /// # Errors
    /// The library cannot digest.
    pub fn ds(&self, zone: &Name, ttl: u32) -> Result<Record, SignError> {
        let mut signed = zone.to_lowercase().as_wire().to_vec();
        signed.extend_from_slice(&self.dnskey);
        let digest = Digest::new(&signed, DigestType::SHA256).map_err(|_| SignError::Key)?;
        let mut rdata = self.tag.to_be_bytes().to_vec();
        rdata.extend_from_slice(&[self.algorithm, u8::from(DigestType::SHA256)]);
        rdata.extend_from_slice(digest.as_ref());
        Ok(Record::new(zone.clone(), ttl, Rtype::DS, rdata))
    }

    /// RFC 4034 appendix B.
    #[must_use]
    pub fn tag(&self) -> u16 {
        self.tag
    }

    /// RDATA of the RRSIG over one set.
    fn sign(
        &self,
        zone: &Name,
        owner: &Name,
        set: &Rrset,
        validity: Validity,
    ) -> Result<Box<[u8]>, SignError> {
        let labels = owner.count_labels() - usize::from(owner.is_wildcard());
        let mut rrsig = set.rtype.0.to_be_bytes().to_vec();
        rrsig.extend_from_slice(&[self.algorithm, u8::try_from(labels).unwrap_or(u8::MAX)]);
        rrsig.extend_from_slice(&set.ttl.to_be_bytes());
        rrsig.extend_from_slice(&validity.expiration.to_be_bytes());
        rrsig.extend_from_slice(&validity.inception.to_be_bytes());
        rrsig.extend_from_slice(&self.tag.to_be_bytes());
        rrsig.extend_from_slice(zone.to_lowercase().as_wire());
        // RFC 4034 §3.1.8.1.
        let mut signed = rrsig.clone();
        let owner = owner.to_lowercase();
        let mut canonical: Vec<Vec<u8>> =
            set.rdata.iter().map(|rdata| rdata::canonical(set.rtype, rdata)).collect();
        canonical.sort_unstable();
        for rdata in canonical {
            signed.extend_from_slice(owner.as_wire());
            signed.extend_from_slice(&set.rtype.0.to_be_bytes());
            signed.extend_from_slice(&CLASS_IN.to_be_bytes());
            signed.extend_from_slice(&set.ttl.to_be_bytes());
            signed.extend_from_slice(&u16::try_from(rdata.len()).unwrap_or(u16::MAX).to_be_bytes());
            signed.extend_from_slice(&rdata);
        }
        let signature =
            self.signing.sign(&TBS::from(signed.as_slice())).map_err(|_| SignError::Key)?;
        rrsig.extend_from_slice(&signature);
        Ok(rrsig.into())
    }
}

impl SortedZone {
    /// Sorts a zone. Its own DNSSEC records (a file that was signed elsewhere) are kept as they
    /// are.
    ///
    /// # Errors
    /// [`SignError::NoSoa`].
    pub fn new(zone: &Zone) -> Result<Self, SignError> {
        let mut nodes: BTreeMap<Name, Vec<Rrset>> = BTreeMap::new();
        let mut cuts = BTreeSet::new();
        let mut signed = false;
        for record in zone.records.iter().filter(|r| r.owner.is_within(&zone.origin)) {
            if record.rtype == Rtype::NS && record.owner != zone.origin {
                cuts.insert(record.owner.clone());
            }
            let sets = nodes.entry(record.owner.clone()).or_default();
            if record.rtype == Rtype::RRSIG {
                signed = true;
                let covered = record.rdata.first_chunk().map_or(0, |c| u16::from_be_bytes(*c));
                let set = entry(sets, Rtype(covered), record.ttl);
                set.signatures.push(record.rdata.clone());
            } else {
                let set = entry(sets, record.rtype, record.ttl);
                set.ttl = set.ttl.min(record.ttl);
                set.rdata.push(record.rdata.clone());
            }
        }
        for sets in nodes.values_mut() {
            sets.retain(|set| !set.rdata.is_empty());
            for set in sets {
                set.rdata.sort_unstable();
                set.rdata.dedup();
            }
        }
        nodes.retain(|_, sets| !sets.is_empty());
        let sorted = Self { origin: zone.origin.clone(), nodes, cuts, signed };
        match sorted.set(&sorted.origin, Rtype::SOA) {
            Some(_) => Ok(sorted),
            None => Err(SignError::NoSoa),
        }
    }

    /// Signs it: whatever DNSSEC records it had but DS are replaced. The work is spread over
    /// `threads`. Gives the earliest end of a signature.
    ///
    /// # Errors
    /// [`SignError::Key`].
    pub fn sign(
        &mut self,
        key: &ZoneKey,
        validity: Validity,
        previous: Option<Previous<'_>>,
        threads: usize,
    ) -> Result<u32, SignError> {
        for sets in self.nodes.values_mut() {
            sets.retain(|set| !matches!(set.rtype.0, 47 | 48 | 50 | 51));
            sets.iter_mut().for_each(|set| set.signatures.clear());
        }
        self.nodes.retain(|_, sets| !sets.is_empty());
        let ttl = self.set(&self.origin, Rtype::SOA).map_or(3600, |soa| soa.ttl);
        let dnskey = Rrset {
            rtype: Rtype::DNSKEY,
            ttl,
            rdata: vec![key.dnskey.clone().into()],
            signatures: Vec::new(),
        };
        self.nodes.entry(self.origin.clone()).or_default().push(dnskey);
        self.chain();
        let Self { origin, nodes, cuts, signed } = self;
        *signed = true;
        // Glue, and what lies hidden under a cut, is not ours to sign (RFC 4035 §2.2).
        let mut work: Vec<(&Name, bool, &mut Vec<Rrset>)> = nodes
            .iter_mut()
            .filter(|(owner, _)| !is_occluded(cuts, origin, owner))
            .map(|(owner, sets)| (owner, cuts.contains(owner), sets))
            .collect();
        // Two keys can have the same tag.
        let previous = previous.filter(|previous| {
            let before = previous.zone.set(&previous.zone.origin, Rtype::DNSKEY);
            before.is_some_and(|set| set.rdata.iter().any(|rdata| **rdata == *key.dnskey))
        });
        let share = work.len().div_ceil(threads.max(1)).max(1);
        let origin = &*origin;
        std::thread::scope(|scope| {
            let parts: Vec<_> = work
                .chunks_mut(share)
                .map(|part| scope.spawn(move || sign_part(part, origin, key, validity, previous)))
                .collect();
            parts.into_iter().try_fold(validity.expiration, |earliest, part| {
                let ends = part.join().map_err(|_| SignError::Key)??;
                Ok(earlier(earliest, ends))
            })
        })
    }

    /// Every record, signatures included, the SOA first and the rest in canonical order.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        let apex = self.set(&self.origin, Rtype::SOA).map(|soa| (&self.origin, soa));
        let others =
            self.nodes.iter().flat_map(|(owner, sets)| sets.iter().map(move |s| (owner, s)));
        let others = others.filter(|(owner, s)| s.rtype != Rtype::SOA || **owner != self.origin);
        apex.into_iter().chain(others).flat_map(|(owner, set)| {
            let record = |rtype, rdata: &[u8]| Record {
                owner: owner.clone(),
                rtype,
                rdata: rdata.into(),
                ttl: set.ttl,
            };
            let data = set.rdata.iter().map(move |rdata| record(set.rtype, rdata));
            data.chain(set.signatures.iter().map(move |rdata| record(Rtype::RRSIG, rdata)))
        })
    }

    /// Whether it has signatures.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        self.signed
    }

    /// The set of a type at a name.
    #[must_use]
    pub fn set(&self, owner: &Name, rtype: Rtype) -> Option<&Rrset> {
        self.nodes.get(owner)?.iter().find(|set| set.rtype == rtype)
    }

    /// The same, to be changed: what is changed after signing no longer validates.
    pub fn set_mut(&mut self, owner: &Name, rtype: Rtype) -> Option<&mut Rrset> {
        self.nodes.get_mut(owner)?.iter_mut().find(|set| set.rtype == rtype)
    }

    /// The SOA's serial.
    #[must_use]
    pub fn serial(&self) -> u32 {
        self.soa_number(SERIAL_FROM_END)
    }

    /// How long a denial may be cached: RFC 2308 §5, RFC 9077 §3.
    pub(crate) fn negative_ttl(&self) -> u32 {
        let ttl = self.set(&self.origin, Rtype::SOA).map_or(0, |soa| soa.ttl);
        self.soa_number(MINIMUM_FROM_END).min(ttl)
    }

    fn soa_number(&self, from_end: usize) -> u32 {
        self.set(&self.origin, Rtype::SOA)
            .and_then(|soa| soa.rdata.first())
            .and_then(|rdata| rdata.get(rdata.len().checked_sub(from_end)?..)?.first_chunk())
            .map_or(0, |chunk| u32::from_be_bytes(*chunk))
    }

    /// Adds the NSEC records (RFC 4035 §2.3).
    fn chain(&mut self) {
        let ttl = self.negative_ttl();
        let Self { origin, nodes, cuts, .. } = self;
        let owners: Vec<Name> =
            nodes.keys().filter(|owner| !is_occluded(cuts, origin, owner)).cloned().collect();
        let next = owners.iter().cycle().skip(1);
        for (owner, next) in owners.iter().zip(next) {
            let Some(sets) = nodes.get_mut(owner) else { continue };
            let is_cut = cuts.contains(owner);
            let visible = |rtype: &Rtype| !is_cut || matches!(*rtype, Rtype::NS | Rtype::DS);
            let mut types: Vec<Rtype> = sets.iter().map(|set| set.rtype).filter(visible).collect();
            types.extend([Rtype::NSEC, Rtype::RRSIG]);
            let mut rdata = next.as_wire().to_vec();
            rdata::write_bitmap(&mut rdata, types);
            let (rdata, signatures) = (vec![rdata.into()], Vec::new());
            sets.push(Rrset { rtype: Rtype::NSEC, ttl, rdata, signatures });
        }
    }
}

fn sign_part(
    part: &mut [(&Name, bool, &mut Vec<Rrset>)],
    origin: &Name,
    key: &ZoneKey,
    validity: Validity,
    previous: Option<Previous<'_>>,
) -> Result<u32, SignError> {
    let mut earliest = validity.expiration;
    for (owner, is_cut, sets) in part {
        for set in sets.iter_mut() {
            if *is_cut && !matches!(set.rtype, Rtype::DS | Rtype::NSEC) {
                continue;
            }
            let kept = previous.and_then(|p| p.signature(owner, set, key.tag));
            let signature = match kept {
                Some((signature, ends)) => {
                    earliest = earlier(earliest, ends);
                    signature.into()
                }
                None => key.sign(origin, owner, set, validity)?,
            };
            set.signatures = vec![signature];
        }
    }
    Ok(earliest)
}

impl<'a> Previous<'a> {
    /// The signature over the same set by the same key, and when it ends.
    fn signature(&self, owner: &Name, set: &Rrset, tag: u16) -> Option<(&'a [u8], u32)> {
        let before = self.zone.set(owner, set.rtype)?;
        if before.rdata != set.rdata || before.ttl != set.ttl {
            return None;
        }
        let [signature] = before.signatures.as_slice() else { return None };
        let number = |at: usize| signature.get(at..)?.first_chunk().copied();
        let ends = u32::from_be_bytes(number(8)?);
        let [high, low, ..] = number(16)?;
        let same_key = u16::from_be_bytes([high, low]) == tag;
        let lasts = earlier(ends, self.until) == self.until;
        (same_key && lasts).then_some((&**signature, ends))
    }
}

/// The earlier of two times (RFC 1982).
fn earlier(a: u32, b: u32) -> u32 {
    if b.wrapping_sub(a) < 1 << 31 { a } else { b }
}

/// Whether a name lies below a cut.
pub(crate) fn is_occluded(cuts: &BTreeSet<Name>, origin: &Name, owner: &Name) -> bool {
    if cuts.is_empty() {
        return false;
    }
    std::iter::successors(owner.parent(), Name::parent)
        .take_while(|name| name.is_within(origin))
        .any(|name| cuts.contains(&name))
}

fn entry(sets: &mut Vec<Rrset>, rtype: Rtype, ttl: u32) -> &mut Rrset {
    let at = sets.iter().position(|set| set.rtype == rtype).unwrap_or_else(|| {
        sets.push(Rrset { rtype, ttl, rdata: Vec::new(), signatures: Vec::new() });
        sets.len() - 1
    });
    #[expect(clippy::indexing_slicing, reason = "the index was found or made just above")]
    &mut sets[at]
}

/// RFC 4034 appendix B.
fn key_tag(dnskey: &[u8]) -> u16 {
    let sum = dnskey.chunks(2).fold(0_u32, |sum, pair| {
        let high = u32::from(pair.first().copied().unwrap_or(0)) << 8;
        sum + high + u32::from(pair.get(1).copied().unwrap_or(0))
    });
    u16::try_from((sum + (sum >> 16)) & 0xffff).unwrap_or(0)
}

const SERIAL_FROM_END: usize = 20;
const MINIMUM_FROM_END: usize = 4;
