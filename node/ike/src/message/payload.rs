//! The payloads of RFC 7296 §3.3 to §3.13, read and written.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sa::TrafficSelector;

use super::codec::{InvalidMessage, Reader, with_length};
use super::configuration::Configuration;
use super::number::{NotifyType, PayloadType, ProtocolId, TransformType};
use crate::api::Identity;

/// ```text
///  Next Payload |C| RESERVED | Payload Length
///  proposals …                                     RFC 7296 §3.3
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Proposal {
    pub(crate) number: u8,
    pub(crate) protocol: ProtocolId,
    pub(crate) spi: Vec<u8>,
    pub(crate) transforms: Vec<Transform>,
}

/// One transform; the only attribute there is, is the key length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Transform {
    pub(crate) kind: TransformType,
    pub(crate) id: u16,
    /// In bits.
    pub(crate) key_length: Option<u16>,
    /// It has an attribute that we do not know and must not be chosen (RFC 7296 §3.3.6).
    pub(crate) unknown_attribute: bool,
}

impl Transform {
    pub(crate) fn new(kind: TransformType, id: u16, key_length: Option<u16>) -> Self {
        Self { kind, id, key_length, unknown_attribute: false }
    }
}

/// An SA payload's proposals.
pub(crate) fn read_proposals(mut reader: Reader<'_>) -> Result<Vec<Proposal>, InvalidMessage> {
    let mut proposals = Vec::new();
    loop {
        let more = reader.u8("proposal")?;
        reader.u8("proposal")?;
        let length = reader.u16("proposal length")?;
        let mut part = reader.part(length, 4, "proposal length")?;
        let number = part.u8("proposal number")?;
        let protocol = ProtocolId(part.u8("protocol id")?);
        let spi_size = part.u8("spi size")?;
        let count = part.u8("number of transforms")?;
        let spi = part.take(spi_size.into(), "proposal spi")?.to_vec();
        let transforms = read_transforms(&mut part, count)?;
        part.end("proposal")?;
        if proposals.len() >= MAX_PROPOSALS {
            return Err(InvalidMessage::TooMany("proposal"));
        }
        proposals.push(Proposal { number, protocol, spi, transforms });
        match (more, reader.is_empty()) {
            (0, true) => return Ok(proposals),
            (2, false) => {}
            _ => return Err(InvalidMessage::Value("last proposal")),
        }
    }
}

fn read_transforms(reader: &mut Reader<'_>, count: u8) -> Result<Vec<Transform>, InvalidMessage> {
    let mut transforms = Vec::new();
    for left in (0..count).rev() {
        let more = reader.u8("transform")?;
        if more != if left == 0 { 0 } else { 3 } {
            return Err(InvalidMessage::Value("last transform"));
        }
        reader.u8("transform")?;
        let length = reader.u16("transform length")?;
        let mut part = reader.part(length, 4, "transform length")?;
        let kind = TransformType(part.u8("transform type")?);
        part.u8("transform")?;
        let id = part.u16("transform id")?;
        let mut transform = Transform::new(kind, id, None);
        while !part.is_empty() {
            read_attribute(&mut part, &mut transform)?;
        }
        transforms.push(transform);
    }
    Ok(transforms)
}

/// RFC 7296 §3.3.5: the high bit of the type says that two octets of value follow, otherwise a
/// length does.
fn read_attribute(
    reader: &mut Reader<'_>,
    transform: &mut Transform,
) -> Result<(), InvalidMessage> {
    const SHORT: u16 = 0x8000;
    const KEY_LENGTH: u16 = 14;
    let kind = reader.u16("attribute type")?;
    let value = reader.u16("attribute value")?;
    if kind & SHORT == 0 {
        reader.take(value.into(), "attribute value")?;
        transform.unknown_attribute = true;
    } else if kind == SHORT | KEY_LENGTH && transform.key_length.is_none() {
        transform.key_length = Some(value);
    } else {
        transform.unknown_attribute = true;
    }
    Ok(())
}

fn write_proposals(out: &mut Vec<u8>, proposals: &[Proposal]) {
    for (at, proposal) in proposals.iter().enumerate() {
        let more = if at + 1 == proposals.len() { 0 } else { 2 };
        with_length(out, &[more, 0], |out| {
            let spi_size = u8::try_from(proposal.spi.len()).unwrap_or(u8::MAX);
            let count = u8::try_from(proposal.transforms.len()).unwrap_or(u8::MAX);
            out.extend_from_slice(&[proposal.number, proposal.protocol.0, spi_size, count]);
            out.extend_from_slice(&proposal.spi);
            for (at, transform) in proposal.transforms.iter().enumerate() {
                let more = if at + 1 == proposal.transforms.len() { 0 } else { 3 };
                with_length(out, &[more, 0], |out| {
                    out.extend_from_slice(&[transform.kind.0, 0]);
                    out.extend_from_slice(&transform.id.to_be_bytes());
                    if let Some(bits) = transform.key_length {
                        out.extend_from_slice(&[0x80, 14]);
                        out.extend_from_slice(&bits.to_be_bytes());
                    }
                });
            }
        });
    }
}

/// ```text
///  Key Exchange Method Num | RESERVED
///  Key Exchange Data …                             RFC 7296 §3.4
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct KeyExchange {
    pub(crate) group: u16,
    pub(crate) data: Vec<u8>,
}

/// An identification payload with its octets as they came: AUTH covers them, RESERVED included
/// (RFC 7296 §2.15, §3.5).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Identification {
    pub(crate) identity: Identity,
    pub(crate) octets: Vec<u8>,
}

impl Identification {
    fn read(mut reader: Reader<'_>) -> Result<Self, InvalidMessage> {
        let octets = reader.rest();
        let mut reader = Reader::new(octets);
        let kind = reader.u8("id type")?;
        reader.take(3, "id")?;
        let data = reader.rest();
        if data.len() > MAX_ID_OCTETS {
            return Err(InvalidMessage::TooMany("identification octets"));
        }
        let identity = match kind {
            ID_IPV4_ADDR => {
                let octets: [u8; 4] =
                    data.try_into().map_err(|_| InvalidMessage::Value("ID_IPV4_ADDR"))?;
                Identity::Address(IpAddr::V4(Ipv4Addr::from(octets)))
            }
            ID_IPV6_ADDR => {
                let octets: [u8; 16] =
                    data.try_into().map_err(|_| InvalidMessage::Value("ID_IPV6_ADDR"))?;
                Identity::Address(IpAddr::V6(Ipv6Addr::from(octets)))
            }
            ID_FQDN => match std::str::from_utf8(data) {
                Ok(name) if !data.is_empty() && data.iter().all(u8::is_ascii_graphic) => {
                    Identity::Fqdn(name.to_owned())
                }
                _ => return Err(InvalidMessage::Value("ID_FQDN")),
            },
            ID_NULL if data.is_empty() => Identity::Null,
            ID_NULL => return Err(InvalidMessage::Value("ID_NULL")),
            kind => Identity::Other { kind, data: data.to_vec() },
        };
        Ok(Self { identity, octets: octets.to_vec() })
    }

    /// The payload's body for an identity of ours.
    pub(crate) fn of(identity: &Identity) -> Self {
        let (kind, data) = match identity {
            Identity::Address(IpAddr::V4(a)) => (ID_IPV4_ADDR, a.octets().to_vec()),
            Identity::Address(IpAddr::V6(a)) => (ID_IPV6_ADDR, a.octets().to_vec()),
            Identity::Fqdn(name) => (ID_FQDN, name.as_bytes().to_vec()),
            Identity::Null => (ID_NULL, Vec::new()),
            Identity::Other { kind, data } => (*kind, data.clone()),
        };
        let mut octets = vec![kind, 0, 0, 0];
        octets.extend_from_slice(&data);
        Self { identity: identity.clone(), octets }
    }
}

/// ```text
///  Auth Method | RESERVED
///  Authentication Data …                           RFC 7296 §3.8
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Authentication {
    pub(crate) method: u8,
    pub(crate) data: Vec<u8>,
}

/// ```text
///  Protocol ID | SPI Size | Notify Message Type
///  SPI …       | Notification Data …               RFC 7296 §3.10
/// ```
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Notify {
    pub(crate) protocol: ProtocolId,
    pub(crate) spi: Vec<u8>,
    pub(crate) kind: NotifyType,
    pub(crate) data: Vec<u8>,
}

impl fmt::Debug for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, spi, kind, data } = self;
        let mut shown = f.debug_struct("Notify");
        shown.field("protocol", protocol).field("spi", spi).field("kind", kind);
        // Whoever reads a token can end the SA that it is of.
        if *kind == NotifyType::QCD_TOKEN {
            return shown.finish_non_exhaustive();
        }
        shown.field("data", data).finish()
    }
}

impl Notify {
    pub(crate) fn new(kind: NotifyType, data: impl Into<Vec<u8>>) -> Self {
        Self { protocol: ProtocolId::NONE, spi: Vec::new(), kind, data: data.into() }
    }

    /// About one ESP SA.
    pub(crate) fn about_esp(kind: NotifyType, spi: &[u8]) -> Self {
        Self { protocol: ProtocolId::ESP, spi: spi.to_vec(), kind, data: Vec::new() }
    }

    fn read(mut reader: Reader<'_>) -> Result<Self, InvalidMessage> {
        let protocol = ProtocolId(reader.u8("notify protocol")?);
        let spi_size = reader.u8("notify spi size")?;
        let kind = NotifyType(reader.u16("notify type")?);
        let spi = reader.take(spi_size.into(), "notify spi")?.to_vec();
        Ok(Self { protocol, spi, kind, data: reader.rest().to_vec() })
    }

    fn write(&self, out: &mut Vec<u8>) {
        let spi_size = u8::try_from(self.spi.len()).unwrap_or(u8::MAX);
        out.extend_from_slice(&[self.protocol.0, spi_size]);
        out.extend_from_slice(&self.kind.0.to_be_bytes());
        out.extend_from_slice(&self.spi);
        out.extend_from_slice(&self.data);
    }
}

/// What a Delete payload names (RFC 7296 §3.11).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Delete {
    /// The IKE SA that carries it.
    Ike,
    /// ESP SAs, by the SPIs that the sender receives on.
    Esp(Vec<u32>),
    /// SAs of a protocol we have none of.
    Other,
}

impl Delete {
    fn read(mut reader: Reader<'_>) -> Result<Self, InvalidMessage> {
        let protocol = ProtocolId(reader.u8("delete protocol")?);
        let spi_size = reader.u8("delete spi size")?;
        let count = reader.u16("number of spis")?;
        match (protocol, spi_size) {
            (ProtocolId::IKE, 0) if count == 0 => {
                reader.end("delete")?;
                Ok(Self::Ike)
            }
            (ProtocolId::ESP, 4) => {
                if usize::from(count) * 4 != reader.len() {
                    return Err(InvalidMessage::Value("number of spis"));
                }
                (0..count).map(|_| reader.u32("spi")).collect::<Result<_, _>>().map(Self::Esp)
            }
            (ProtocolId::IKE | ProtocolId::ESP, _) => Err(InvalidMessage::Value("delete spi size")),
            _ => {
                if usize::from(count) * usize::from(spi_size) != reader.len() {
                    return Err(InvalidMessage::Value("number of spis"));
                }
                Ok(Self::Other)
            }
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Ike => out.extend_from_slice(&[ProtocolId::IKE.0, 0, 0, 0]),
            Self::Esp(spis) => {
                out.extend_from_slice(&[ProtocolId::ESP.0, 4]);
                let count = u16::try_from(spis.len()).unwrap_or(u16::MAX);
                out.extend_from_slice(&count.to_be_bytes());
                for spi in spis {
                    out.extend_from_slice(&spi.to_be_bytes());
                }
            }
            Self::Other => out.extend_from_slice(&[0, 0, 0, 0]),
        }
    }
}

/// Traffic selectors (RFC 7296 §3.13). Those of unknown type and those with an empty range are left
/// out: none of our packets can match them.
fn read_selectors(mut reader: Reader<'_>) -> Result<Vec<TrafficSelector>, InvalidMessage> {
    let count = reader.u8("number of selectors")?;
    reader.take(3, "traffic selectors")?;
    let mut selectors = Vec::new();
    for _ in 0..count {
        let kind = reader.u8("selector type")?;
        let protocol = reader.u8("selector protocol")?;
        let length = reader.u16("selector length")?;
        let mut part = reader.part(length, 4, "selector length")?;
        let (first, last, ports) = match kind {
            TS_IPV4_ADDR_RANGE => {
                let ports = (part.u16("start port")?, part.u16("end port")?);
                let first = IpAddr::from(part.array::<4>("starting address")?);
                (first, IpAddr::from(part.array::<4>("ending address")?), ports)
            }
            TS_IPV6_ADDR_RANGE => {
                let ports = (part.u16("start port")?, part.u16("end port")?);
                let first = IpAddr::from(part.array::<16>("starting address")?);
                (first, IpAddr::from(part.array::<16>("ending address")?), ports)
            }
            _ => continue,
        };
        part.end("selector")?;
        selectors.extend(TrafficSelector::new(first, last, protocol, ports));
    }
    reader.end("traffic selectors")?;
    Ok(selectors)
}

fn write_selectors(out: &mut Vec<u8>, selectors: &[TrafficSelector]) {
    let count = u8::try_from(selectors.len()).unwrap_or(u8::MAX);
    out.extend_from_slice(&[count, 0, 0, 0]);
    for selector in selectors.iter().take(count.into()) {
        let (first, last) = selector.addresses();
        let kind = if first.is_ipv4() { TS_IPV4_ADDR_RANGE } else { TS_IPV6_ADDR_RANGE };
        with_length(out, &[kind, selector.protocol()], |out| {
            out.extend_from_slice(&selector.ports().0.to_be_bytes());
            out.extend_from_slice(&selector.ports().1.to_be_bytes());
            for addr in [first, last] {
                match addr {
                    IpAddr::V4(a) => out.extend_from_slice(&a.octets()),
                    IpAddr::V6(a) => out.extend_from_slice(&a.octets()),
                }
            }
        });
    }
}

/// A payload to write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Payload {
    Sa(Vec<Proposal>),
    KeyExchange(KeyExchange),
    IdInitiator(Identification),
    IdResponder(Identification),
    Authentication(Authentication),
    Nonce(Vec<u8>),
    Notify(Notify),
    Delete(Delete),
    TsInitiator(Vec<TrafficSelector>),
    TsResponder(Vec<TrafficSelector>),
    Configuration(Configuration),
}

impl Payload {
    fn kind(&self) -> PayloadType {
        match self {
            Self::Sa(_) => PayloadType::SA,
            Self::KeyExchange(_) => PayloadType::KE,
            Self::IdInitiator(_) => PayloadType::ID_INITIATOR,
            Self::IdResponder(_) => PayloadType::ID_RESPONDER,
            Self::Authentication(_) => PayloadType::AUTH,
            Self::Nonce(_) => PayloadType::NONCE,
            Self::Notify(_) => PayloadType::NOTIFY,
            Self::Delete(_) => PayloadType::DELETE,
            Self::TsInitiator(_) => PayloadType::TS_INITIATOR,
            Self::TsResponder(_) => PayloadType::TS_RESPONDER,
            Self::Configuration(_) => PayloadType::CP,
        }
    }

    fn write_body(&self, out: &mut Vec<u8>) {
        match self {
            Self::Sa(proposals) => write_proposals(out, proposals),
            Self::KeyExchange(ke) => {
                out.extend_from_slice(&ke.group.to_be_bytes());
                out.extend_from_slice(&[0, 0]);
                out.extend_from_slice(&ke.data);
            }
            Self::IdInitiator(id) | Self::IdResponder(id) => out.extend_from_slice(&id.octets),
            Self::Authentication(auth) => {
                out.extend_from_slice(&[auth.method, 0, 0, 0]);
                out.extend_from_slice(&auth.data);
            }
            Self::Nonce(nonce) => out.extend_from_slice(nonce),
            Self::Notify(notify) => notify.write(out),
            Self::Delete(delete) => delete.write(out),
            Self::TsInitiator(ts) | Self::TsResponder(ts) => write_selectors(out, ts),
            Self::Configuration(configuration) => configuration.write(out),
        }
    }
}

/// Writes a chain of payloads and says what the first one is.
pub(crate) fn write_chain(out: &mut Vec<u8>, payloads: &[Payload]) -> PayloadType {
    out.reserve(ONE_DATAGRAM);
    let mut rest = payloads.iter().peekable();
    while let Some(payload) = rest.next() {
        let next = rest.peek().map_or(PayloadType::NONE, |p| p.kind());
        with_length(out, &[next.0, 0], |out| payload.write_body(out));
    }
    payloads.first().map_or(PayloadType::NONE, Payload::kind)
}

/// The payloads of one message, each in its place.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Payloads {
    pub(crate) sa: Option<Vec<Proposal>>,
    pub(crate) ke: Option<KeyExchange>,
    pub(crate) id_initiator: Option<Identification>,
    pub(crate) id_responder: Option<Identification>,
    pub(crate) auth: Option<Authentication>,
    pub(crate) nonce: Option<Vec<u8>>,
    pub(crate) notifies: Vec<Notify>,
    pub(crate) deletes: Vec<Delete>,
    pub(crate) ts_initiator: Option<Vec<TrafficSelector>>,
    pub(crate) ts_responder: Option<Vec<TrafficSelector>>,
    pub(crate) configuration: Option<Configuration>,
}

impl Payloads {
    /// Reads a chain whose first payload is of type `first`.
    pub(crate) fn read(first: PayloadType, octets: &[u8]) -> Result<Self, InvalidMessage> {
        let mut reader = Reader::new(octets);
        let mut payloads = Self::default();
        let mut kind = first;
        for _ in 0..MAX_PAYLOADS {
            if kind == PayloadType::NONE {
                reader.end("payloads")?;
                return Ok(payloads);
            }
            let next = PayloadType(reader.u8("next payload")?);
            let critical = reader.u8("payload flags")? & 0x80 != 0;
            let length = reader.u16("payload length")?;
            let body = reader.part(length, 4, "payload length")?;
            payloads.take(kind, critical, body)?;
            kind = next;
        }
        Err(InvalidMessage::TooMany("payload"))
    }

    fn take(
        &mut self,
        kind: PayloadType,
        critical: bool,
        mut body: Reader<'_>,
    ) -> Result<(), InvalidMessage> {
        match kind {
            PayloadType::SA => once(&mut self.sa, read_proposals(body)?, "SA"),
            PayloadType::KE => {
                let group = body.u16("key exchange method")?;
                body.take(2, "key exchange")?;
                let ke = KeyExchange { group, data: body.rest().to_vec() };
                once(&mut self.ke, ke, "KE")
            }
            PayloadType::ID_INITIATOR => {
                once(&mut self.id_initiator, Identification::read(body)?, "IDi")
            }
            PayloadType::ID_RESPONDER => {
                once(&mut self.id_responder, Identification::read(body)?, "IDr")
            }
            PayloadType::AUTH => {
                let method = body.u8("auth method")?;
                body.take(3, "AUTH")?;
                let auth = Authentication { method, data: body.rest().to_vec() };
                once(&mut self.auth, auth, "AUTH")
            }
            PayloadType::NONCE => {
                if !(MIN_NONCE..=MAX_NONCE).contains(&body.len()) {
                    return Err(InvalidMessage::Value("nonce length"));
                }
                once(&mut self.nonce, body.rest().to_vec(), "Nonce")
            }
            PayloadType::NOTIFY => {
                self.notifies.push(Notify::read(body)?);
                Ok(())
            }
            PayloadType::DELETE => {
                self.deletes.push(Delete::read(body)?);
                Ok(())
            }
            PayloadType::TS_INITIATOR => once(&mut self.ts_initiator, read_selectors(body)?, "TSi"),
            PayloadType::TS_RESPONDER => once(&mut self.ts_responder, read_selectors(body)?, "TSr"),
            PayloadType::CP => once(&mut self.configuration, Configuration::read(body)?, "CP"),
            // An encrypted payload inside another, or beside clear ones.
            PayloadType::SK | PayloadType::SKF => Err(InvalidMessage::Value("next payload")),
            kind if critical && !kind.is_of_rfc7296() => Err(InvalidMessage::Critical(kind.0)),
            _ => Ok(()),
        }
    }

    /// The first notify of this type.
    pub(crate) fn notify(&self, kind: NotifyType) -> Option<&Notify> {
        self.notifies.iter().find(|n| n.kind == kind)
    }

    /// The first notify that reports an error.
    pub(crate) fn error(&self) -> Option<&Notify> {
        self.notifies.iter().find(|n| n.kind.is_error())
    }
}

fn once<T>(slot: &mut Option<T>, value: T, field: &'static str) -> Result<(), InvalidMessage> {
    if slot.replace(value).is_some() { Err(InvalidMessage::Twice(field)) } else { Ok(()) }
}

const ID_IPV4_ADDR: u8 = 1;
const ID_FQDN: u8 = 2;
const ID_IPV6_ADDR: u8 = 5;
const ID_NULL: u8 = 13;
const TS_IPV4_ADDR_RANGE: u8 = 7;
const TS_IPV6_ADDR_RANGE: u8 = 8;

/// The largest honest IKE_AUTH has some twenty.
const MAX_PAYLOADS: usize = 64;
/// strongSwan's default has two or three, libreswan's five.
const MAX_PROPOSALS: usize = 32;
/// RFC 7296 §2.10 and §3.9; some prfs want more, which is seen when they are known.
const MIN_NONCE: usize = 16;
const MAX_NONCE: usize = 256;
/// A domain name is no longer; what is, we could not look up.
const MAX_ID_OCTETS: usize = 255;
/// Octets to begin with when writing: most messages are one datagram, and do not grow on the way.
const ONE_DATAGRAM: usize = 1280;
