//! IKEv2 as octets (RFC 7296 §3), written a second time and without any care: whatever can be
//! written down can be sent.

use std::net::IpAddr;

pub(crate) const SA: u8 = 33;
pub(crate) const KE: u8 = 34;
pub(crate) const ID_I: u8 = 35;
pub(crate) const ID_R: u8 = 36;
pub(crate) const AUTH: u8 = 39;
pub(crate) const NONCE: u8 = 40;
pub(crate) const NOTIFY: u8 = 41;
pub(crate) const DELETE: u8 = 42;
pub(crate) const TS_I: u8 = 44;
pub(crate) const TS_R: u8 = 45;
pub(crate) const SK: u8 = 46;
pub(crate) const CP: u8 = 47;
pub(crate) const SKF: u8 = 53;

pub(crate) const IKE_SA_INIT: u8 = 34;
pub(crate) const IKE_AUTH: u8 = 35;
pub(crate) const CREATE_CHILD_SA: u8 = 36;
pub(crate) const INFORMATIONAL: u8 = 37;
pub(crate) const IKE_SESSION_RESUME: u8 = 38;
pub(crate) const IKE_INTERMEDIATE: u8 = 43;
pub(crate) const IKE_FOLLOWUP_KE: u8 = 44;

pub(crate) const INITIATOR: u8 = 0x08;
pub(crate) const RESPONSE: u8 = 0x20;

pub(crate) const SET_WINDOW_SIZE: u16 = 16385;
pub(crate) const NAT_SOURCE: u16 = 16388;
pub(crate) const NAT_DESTINATION: u16 = 16389;
pub(crate) const USE_TRANSPORT_MODE: u16 = 16391;
pub(crate) const REKEY_SA: u16 = 16393;
pub(crate) const MOBIKE_SUPPORTED: u16 = 16396;
pub(crate) const ADDITIONAL_IP4_ADDRESS: u16 = 16397;
pub(crate) const NO_ADDITIONAL_ADDRESSES: u16 = 16399;
pub(crate) const UPDATE_SA_ADDRESSES: u16 = 16400;
pub(crate) const COOKIE2: u16 = 16401;
pub(crate) const NO_NATS_ALLOWED: u16 = 16402;
pub(crate) const TICKET_LT_OPAQUE: u16 = 16409;
pub(crate) const TICKET_REQUEST: u16 = 16410;
pub(crate) const TICKET_OPAQUE: u16 = 16413;
pub(crate) const QCD_TOKEN: u16 = 16419;
pub(crate) const ADDITIONAL_KEY_EXCHANGE: u16 = 16441;
pub(crate) const SIGNATURE_HASH_ALGORITHMS: u16 = 16431;
pub(crate) const FRAGMENTATION_SUPPORTED: u16 = 16430;

/// A header, as far as it is not lengths.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) spi_i: u64,
    pub(crate) spi_r: u64,
    pub(crate) exchange: u8,
    pub(crate) flags: u8,
    pub(crate) id: u32,
}

impl Header {
    /// A header and what follows it.
    pub(crate) fn write(&self, first: u8, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.spi_i.to_be_bytes());
        out.extend_from_slice(&self.spi_r.to_be_bytes());
        out.extend_from_slice(&[first, 0x20, self.exchange, self.flags]);
        out.extend_from_slice(&self.id.to_be_bytes());
        out.extend_from_slice(&u32::try_from(28 + body.len()).unwrap().to_be_bytes());
        out.extend_from_slice(body);
        out
    }

    pub(crate) fn read(octets: &[u8]) -> Option<(Self, u8)> {
        let header = Self {
            spi_i: u64::from_be_bytes(octets.get(..8)?.try_into().ok()?),
            spi_r: u64::from_be_bytes(octets.get(8..16)?.try_into().ok()?),
            exchange: *octets.get(18)?,
            flags: *octets.get(19)?,
            id: u32::from_be_bytes(octets.get(20..24)?.try_into().ok()?),
        };
        Some((header, *octets.get(16)?))
    }
}

/// A payload of any kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Payload {
    pub(crate) kind: u8,
    pub(crate) critical: bool,
    pub(crate) body: Vec<u8>,
}

impl Payload {
    pub(crate) fn new(kind: u8, body: impl Into<Vec<u8>>) -> Self {
        Self { kind, critical: false, body: body.into() }
    }

    pub(crate) fn notify(protocol: u8, spi: &[u8], kind: u16, data: &[u8]) -> Self {
        let size = u8::try_from(spi.len()).unwrap();
        let body = [&[protocol, size][..], &kind.to_be_bytes(), spi, data].concat();
        Self::new(NOTIFY, body)
    }

    pub(crate) fn ke(group: u16, data: &[u8]) -> Self {
        Self::new(KE, [&group.to_be_bytes()[..], &[0, 0], data].concat())
    }

    /// Delete of SAs of a protocol; the SPIs' size and number as given.
    pub(crate) fn delete(protocol: u8, size: u8, count: u16, spis: &[u8]) -> Self {
        Self::new(DELETE, [&[protocol, size][..], &count.to_be_bytes(), spis].concat())
    }

    /// One host on each, all ports and protocols.
    pub(crate) fn selector(kind: u8, addr: IpAddr) -> Self {
        let (of, octets) = match addr {
            IpAddr::V4(a) => (7, a.octets().to_vec()),
            IpAddr::V6(a) => (8, a.octets().to_vec()),
        };
        let len = u16::try_from(8 + 2 * octets.len()).unwrap();
        let body =
            [&[1, 0, 0, 0, of, 0][..], &len.to_be_bytes(), &[0, 0, 0xff, 0xff], &octets, &octets]
                .concat();
        Self::new(kind, body)
    }

    /// One proposal with these transforms: type, id, key length in bits or 0.
    pub(crate) fn proposal(protocol: u8, spi: &[u8], transforms: &[(u8, u16, u16)]) -> Self {
        let mut body = Vec::new();
        for (at, (kind, id, bits)) in transforms.iter().enumerate() {
            let more = if at + 1 == transforms.len() { 0 } else { 3 };
            let len = if *bits == 0 { 8 } else { 12 };
            body.extend_from_slice(&[more, 0, 0, len, *kind, 0]);
            body.extend_from_slice(&id.to_be_bytes());
            if *bits != 0 {
                body.extend_from_slice(&[0x80, 14]);
                body.extend_from_slice(&bits.to_be_bytes());
            }
        }
        let size = u8::try_from(spi.len()).unwrap();
        let count = u8::try_from(transforms.len()).unwrap();
        let len = u16::try_from(8 + spi.len() + body.len()).unwrap();
        let head = [&[0, 0][..], &len.to_be_bytes(), &[1, protocol, size, count], spi].concat();
        Self::new(SA, [head, body].concat())
    }

    pub(crate) fn id(kind: u8, of: u8, data: &[u8]) -> Self {
        Self::new(kind, [&[of, 0, 0, 0][..], data].concat())
    }

    /// The type of a notify, if it is one.
    pub(crate) fn notify_type(&self) -> Option<u16> {
        let kind = self.body.get(2..4).filter(|_| self.kind == NOTIFY)?;
        Some(u16::from_be_bytes(kind.try_into().ok()?))
    }
}

/// Payloads in a row, and what the first one is.
pub(crate) fn chain(payloads: &[Payload]) -> (u8, Vec<u8>) {
    let mut out = Vec::new();
    for (at, payload) in payloads.iter().enumerate() {
        let next = payloads.get(at + 1).map_or(0, |p| p.kind);
        let len = u16::try_from(4 + payload.body.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&[next, if payload.critical { 0x80 } else { 0 }]);
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(&payload.body);
    }
    (payloads.first().map_or(0, |p| p.kind), out)
}

/// The payloads of a chain, as far as it goes.
pub(crate) fn split(first: u8, mut octets: &[u8]) -> Vec<Payload> {
    let mut payloads = Vec::new();
    let mut kind = first;
    while let [next, flags, l0, l1, ..] = *octets {
        let len = usize::from(u16::from_be_bytes([l0, l1]));
        let Some(body) = octets.get(4..len) else { break };
        payloads.push(Payload { kind, critical: flags & 0x80 != 0, body: body.to_vec() });
        kind = next;
        octets = &octets[len..];
    }
    payloads
}
