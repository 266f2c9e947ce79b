//! DNS messages as the server reads and writes them (RFC 1035 §4, RFC 6891).

use std::collections::HashMap;

use crate::name::Name;
use crate::record::CLASS_IN;
use crate::rtype::Rtype;

/// A query, as far as a server looks at it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Query {
    pub(crate) id: u16,
    pub(crate) recursion_desired: bool,
    pub(crate) checking_disabled: bool,
    pub(crate) name: Name,
    pub(crate) rtype: Rtype,
    pub(crate) class: u16,
    pub(crate) edns: Option<Edns>,
}

/// The requestor's OPT record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Edns {
    pub(crate) payload: u16,
    pub(crate) version: u8,
    pub(crate) dnssec_ok: bool,
}

/// Why a message is not answered as a query.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refused {
    /// A response, or too short for a header: to answer would be to reflect.
    Ignore,
    /// Answered with a response code and no question.
    With(u16, Rcode),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rcode {
    NoError,
    FormErr,
    ServFail,
    NxDomain,
    NotImp,
    Refused,
    BadVers,
}

impl Rcode {
    /// The low four bits, and the eight of EDNS.
    fn split(self) -> (u8, u8) {
        match self {
            Self::NoError => (0, 0),
            Self::FormErr => (1, 0),
            Self::ServFail => (2, 0),
            Self::NxDomain => (3, 0),
            Self::NotImp => (4, 0),
            Self::Refused => (5, 0),
            Self::BadVers => (0, 1),
        }
    }
}

impl Query {
    /// Reads a query.
    pub(crate) fn read(message: &[u8]) -> Result<Self, Refused> {
        let mut reader = Reader { rest: message };
        let id = reader.u16().ok_or(Refused::Ignore)?;
        let flags = reader.u16().ok_or(Refused::Ignore)?;
        if flags & FLAG_QR != 0 {
            return Err(Refused::Ignore);
        }
        let malformed = Refused::With(id, Rcode::FormErr);
        let counts: [u16; 4] = [(); 4].map(|()| reader.u16().unwrap_or(u16::MAX));
        if flags & OPCODE_MASK != 0 {
            return Err(Refused::With(id, Rcode::NotImp));
        }
        let [1, answers, authorities, additionals] = counts else { return Err(malformed) };
        let name = reader.name().ok_or(malformed)?;
        let rtype = Rtype(reader.u16().ok_or(malformed)?);
        let class = reader.u16().ok_or(malformed)?;
        // IXFR brings an SOA in the authority section (RFC 1995 §3).
        for _ in 0..u32::from(answers) + u32::from(authorities) {
            reader.record().ok_or(malformed)?;
        }
        let mut edns = None;
        for _ in 0..additionals {
            let (rtype, class, ttl) = reader.record().ok_or(malformed)?;
            if rtype != Rtype::OPT {
                continue;
            }
            if edns.is_some() {
                return Err(malformed);
            }
            let [_, version, flags, _] = ttl;
            edns = Some(Edns { payload: class, version, dnssec_ok: flags & 0x80 != 0 });
        }
        Ok(Self {
            id,
            recursion_desired: flags & FLAG_RD != 0,
            checking_disabled: flags & FLAG_CD != 0,
            name,
            rtype,
            class,
            edns,
        })
    }

    pub(crate) fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec_ok)
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.rest.split_first_chunk::<N>()?;
        self.rest = tail;
        Some(*head)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    /// An uncompressed name: nothing comes before a question that it could point to.
    fn name(&mut self) -> Option<Name> {
        let (name, used) = Name::from_wire(self.rest).ok()?;
        self.rest = self.rest.get(used..)?;
        Some(name)
    }

    /// Skips a record; its type, class and TTL octets.
    fn record(&mut self) -> Option<(Rtype, u16, [u8; 4])> {
        loop {
            match self.take::<1>()? {
                [0] => break,
                [len @ 1..=63] => self.rest = self.rest.get(usize::from(len)..)?,
                [192..=255] => {
                    self.take::<1>()?;
                    break;
                }
                _ => return None,
            }
        }
        let (rtype, class) = (Rtype(self.u16()?), self.u16()?);
        let ttl = self.take()?;
        let len = usize::from(self.u16()?);
        self.rest = self.rest.get(len..)?;
        Some((rtype, class, ttl))
    }
}

/// A message being written; owner names are compressed, RDATA is not.
pub(crate) struct Writer {
    octets: Vec<u8>,
    limit: usize,
    /// Where name suffixes were written, in lower case.
    seen: HashMap<Box<[u8]>, u16>,
    counts: [u16; 4],
}

/// Sections of a message after the question.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Section {
    Answer = 1,
    Authority = 2,
    Additional = 3,
}

/// Header bits of a response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Flags {
    pub(crate) authoritative: bool,
    pub(crate) truncated: bool,
    pub(crate) rcode: Rcode,
}

impl Writer {
    /// Starts a response; the octets of an OPT record are kept free if the query had one.
    pub(crate) fn new(query: &Query, limit: usize) -> Self {
        let limit = limit.saturating_sub(if query.edns.is_some() { OPT_LEN } else { 0 });
        let mut writer =
            Self { octets: vec![0; HEADER_LEN], limit, seen: HashMap::new(), counts: [1, 0, 0, 0] };
        writer.name(&query.name);
        writer.octets.extend_from_slice(&query.rtype.0.to_be_bytes());
        writer.octets.extend_from_slice(&query.class.to_be_bytes());
        writer
    }

    /// Adds a record; false, and nothing added, if it does not fit.
    pub(crate) fn record(
        &mut self,
        section: Section,
        owner: &Name,
        rtype: Rtype,
        ttl: u32,
        rdata: &[u8],
    ) -> bool {
        let start = self.octets.len();
        self.name(owner);
        self.octets.extend_from_slice(&rtype.0.to_be_bytes());
        self.octets.extend_from_slice(&CLASS_IN.to_be_bytes());
        self.octets.extend_from_slice(&ttl.to_be_bytes());
        let len = u16::try_from(rdata.len()).unwrap_or(u16::MAX);
        self.octets.extend_from_slice(&len.to_be_bytes());
        self.octets.extend_from_slice(rdata);
        if self.octets.len() > self.limit {
            self.octets.truncate(start);
            self.seen.retain(|_, at| usize::from(*at) < start);
            return false;
        }
        if let Some(count) = self.counts.get_mut(section as usize) {
            *count += 1;
        }
        true
    }

    pub(crate) fn len(&self) -> usize {
        self.octets.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.counts == [1, 0, 0, 0]
    }

    /// Writes header and OPT.
    pub(crate) fn finish(mut self, query: &Query, flags: Flags) -> Vec<u8> {
        let (low, high) = flags.rcode.split();
        if let Some(edns) = query.edns {
            self.octets.push(0);
            self.octets.extend_from_slice(&Rtype::OPT.0.to_be_bytes());
            self.octets.extend_from_slice(&MAX_UDP.to_be_bytes());
            let dnssec_ok = if edns.dnssec_ok { 0x80 } else { 0 };
            self.octets.extend_from_slice(&[high, 0, dnssec_ok, 0, 0, 0]);
            self.counts[3] += 1;
        }
        let mut bits = FLAG_QR | u16::from(low);
        for (set, bit) in [
            (flags.authoritative, FLAG_AA),
            (flags.truncated, FLAG_TC),
            (query.recursion_desired, FLAG_RD),
            (query.checking_disabled, FLAG_CD),
        ] {
            bits |= if set { bit } else { 0 };
        }
        let header = header(query.id, bits, self.counts);
        if let Some(slot) = self.octets.first_chunk_mut() {
            *slot = header;
        }
        self.octets
    }

    fn name(&mut self, name: &Name) {
        let wire = name.as_wire();
        let mut at = 0;
        loop {
            let suffix = wire.get(at..).unwrap_or_default();
            let len = usize::from(suffix.first().copied().unwrap_or(0));
            if len == 0 {
                self.octets.push(0);
                return;
            }
            let key = suffix.to_ascii_lowercase().into_boxed_slice();
            if let Some(pointer) = self.seen.get(&key) {
                self.octets.extend_from_slice(&(POINTER | pointer).to_be_bytes());
                return;
            }
            if let Ok(here @ ..POINTER_LIMIT) = u16::try_from(self.octets.len()) {
                self.seen.insert(key, here);
            }
            self.octets.extend_from_slice(suffix.get(..=len).unwrap_or_default());
            at += 1 + len;
        }
    }
}

/// A response of nothing but a header.
pub(crate) fn bare(id: u16, rcode: Rcode) -> Vec<u8> {
    header(id, FLAG_QR | u16::from(rcode.split().0), [0; 4]).to_vec()
}

/// NOTIFY for a zone (RFC 1996).
pub(crate) fn notify(id: u16, zone: &Name) -> Vec<u8> {
    let mut message = header(id, OPCODE_NOTIFY | FLAG_AA, [1, 0, 0, 0]).to_vec();
    message.extend_from_slice(zone.as_wire());
    message.extend_from_slice(&Rtype::SOA.0.to_be_bytes());
    message.extend_from_slice(&CLASS_IN.to_be_bytes());
    message
}

fn header(id: u16, flags: u16, counts: [u16; 4]) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    let words = [id, flags].into_iter().chain(counts);
    for (slot, word) in header.chunks_mut(2).zip(words) {
        slot.copy_from_slice(&word.to_be_bytes());
    }
    header
}

const HEADER_LEN: usize = 12;
const OPT_LEN: usize = 11;
const FLAG_QR: u16 = 0x8000;
const FLAG_AA: u16 = 0x0400;
const FLAG_TC: u16 = 0x0200;
const FLAG_RD: u16 = 0x0100;
const FLAG_CD: u16 = 0x0010;
const OPCODE_MASK: u16 = 0x7800;
const OPCODE_NOTIFY: u16 = 4 << 11;
const POINTER: u16 = 0xc000;
const POINTER_LIMIT: u16 = 0x4000;
/// What passes every path without fragments (the DNS flag day of 2020).
pub(crate) const MAX_UDP: u16 = 1232;
