//! IKEv2 messages (RFC 7296 §3), read in two stages.
//!
//! [`Message::read`] needs no key: it gives the header and, for IKE_SA_INIT, the payloads. What is
//! inside an encrypted payload comes out of [`Sealed`] with the keys of an
//! [`IkeSa`](crate::ike_sa::IkeSa).

mod codec;
mod configuration;
mod number;
mod payload;
#[cfg(test)]
mod tests;

pub use codec::InvalidMessage;
pub(crate) use codec::Reader;
pub(crate) use configuration::{Configuration, ConfigurationType};
pub(crate) use number::{ExchangeType, NotifyType, PayloadType, ProtocolId, TransformType};
pub(crate) use payload::{
    Authentication, Delete, Identification, KeyExchange, Notify, Payload, Payloads, Proposal,
    Transform, write_chain,
};

/// ```text
///  IKE SA Initiator's SPI
///  IKE SA Responder's SPI
///  Next Payload | MjVer | MnVer | Exchange Type | Flags
///  Message ID
///  Length                                          RFC 7296 §3.1
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) spi_i: u64,
    pub(crate) spi_r: u64,
    pub(crate) exchange: ExchangeType,
    /// Whether the sender is the IKE SA's original initiator.
    pub(crate) initiator: bool,
    pub(crate) response: bool,
    pub(crate) message_id: u32,
}

impl Header {
    /// Octets of a header.
    pub(crate) const LEN: usize = 28;

    pub(crate) fn write(&self, out: &mut Vec<u8>, next: PayloadType, length: usize) {
        out.extend_from_slice(&self.spi_i.to_be_bytes());
        out.extend_from_slice(&self.spi_r.to_be_bytes());
        let mut flags = 0;
        if self.initiator {
            flags |= INITIATOR;
        }
        if self.response {
            flags |= RESPONSE;
        }
        out.extend_from_slice(&[next.0, VERSION, self.exchange.0, flags]);
        out.extend_from_slice(&self.message_id.to_be_bytes());
        out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    }

    /// A whole message that nothing protects.
    pub(crate) fn write_clear(&self, payloads: &[Payload]) -> Vec<u8> {
        let mut chain = Vec::new();
        let first = write_chain(&mut chain, payloads);
        let mut out = Vec::with_capacity(Self::LEN + chain.len());
        self.write(&mut out, first, Self::LEN + chain.len());
        out.extend_from_slice(&chain);
        out
    }
}

/// The header of a message and its encrypted payload's generic one: all that stands before what is
/// encrypted, and is not written anew for every fragment (RFC 9242 §3.3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Head([u8; Self::LEN]);

impl Head {
    const LEN: usize = Header::LEN + 4;

    /// That of a message of ours.
    pub(crate) fn new(header: &Header, first: PayloadType) -> Self {
        let mut octets = Vec::with_capacity(Self::LEN);
        header.write(&mut octets, PayloadType::SK, Self::LEN);
        octets.extend_from_slice(&[first.0, 0, 0, 0]);
        Self(octets.try_into().unwrap_or([0; Self::LEN]))
    }

    /// That of a message that came, or of its first fragment.
    pub(crate) fn read(sealed: &Sealed<'_>) -> Option<Self> {
        sealed.aad.first_chunk().copied().map(Self)
    }

    /// The same of the whole message before it was encrypted, with so many octets inside.
    pub(crate) fn of(self, inside: usize) -> [u8; Self::LEN] {
        const NEXT: usize = 16;
        const LENGTH: usize = 24;
        let mut octets = self.0;
        if let Some(next) = octets.get_mut(NEXT) {
            *next = PayloadType::SK.0;
        }
        let message = u32::try_from(Self::LEN + inside).unwrap_or(u32::MAX);
        if let Some(length) = octets.get_mut(LENGTH..Header::LEN) {
            length.copy_from_slice(&message.to_be_bytes());
        }
        let payload = u16::try_from(4 + inside).unwrap_or(u16::MAX);
        if let Some(length) = octets.last_chunk_mut() {
            *length = payload.to_be_bytes();
        }
        octets
    }
}

/// A message as far as it can be read without keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Message<'a> {
    pub(crate) header: Header,
    /// The whole message, header included.
    pub(crate) octets: &'a [u8],
    pub(crate) body: Body<'a>,
}

/// What follows the header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Body<'a> {
    /// Payloads in the clear: IKE_SA_INIT.
    Clear { first: PayloadType, octets: &'a [u8] },
    /// One encrypted payload.
    Sealed(Sealed<'a>),
}

/// An Encrypted and Authenticated payload, whole or a fragment.
///
/// ```text
///  Next Payload |C| RESERVED | Payload Length
///  [ Fragment Number | Total Fragments ]
///  Initialization Vector, ciphertext, Integrity Checksum Data
///                                                  RFC 7296 §3.14, RFC 7383 §2.5
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sealed<'a> {
    /// The first payload inside.
    pub(crate) first: PayloadType,
    /// What the integrity check covers besides: all that comes before the IV.
    pub(crate) aad: &'a [u8],
    /// IV, ciphertext, ICV.
    pub(crate) octets: &'a [u8],
    /// Fragment number and their total.
    pub(crate) fragment: Option<(u16, u16)>,
}

impl<'a> Message<'a> {
    /// Reads what needs no key.
    ///
    /// The encrypted payload has to be the only one. RFC 7296 §3.14 wants it last; nothing that
    /// stands before it has a meaning.
    pub(crate) fn read(octets: &'a [u8]) -> Result<Self, InvalidMessage> {
        let mut reader = Reader::new(octets);
        let spi_i = reader.u64("initiator spi")?;
        let spi_r = reader.u64("responder spi")?;
        let first = PayloadType(reader.u8("next payload")?);
        let version = reader.u8("version")?;
        let exchange = ExchangeType(reader.u8("exchange type")?);
        let flags = reader.u8("flags")?;
        let message_id = reader.u32("message id")?;
        let length = reader.u32("length")?;
        match version >> 4 {
            2 => {}
            major if major > 2 => return Err(InvalidMessage::MajorVersion),
            _ => return Err(InvalidMessage::Value("version")),
        }
        if usize::try_from(length) != Ok(octets.len()) {
            return Err(InvalidMessage::Value("length"));
        }
        if octets.len() > MAX_MESSAGE {
            return Err(InvalidMessage::TooMany("message octets"));
        }
        let header = Header {
            spi_i,
            spi_r,
            exchange,
            initiator: flags & INITIATOR != 0,
            response: flags & RESPONSE != 0,
            message_id,
        };
        let body = match first {
            PayloadType::SK | PayloadType::SKF => {
                Body::Sealed(Sealed::read(first, octets, reader)?)
            }
            _ => Body::Clear { first, octets: reader.rest() },
        };
        // Who knows of no IKE SA may say so with zeros (RFC 7296 §1.5); nobody else.
        let is_hint = exchange == ExchangeType::INFORMATIONAL
            && !header.response
            && matches!(body, Body::Clear { .. });
        if spi_i == 0 && !is_hint {
            return Err(InvalidMessage::Value("initiator spi"));
        }
        Ok(Self { header, octets, body })
    }
}

impl<'a> Sealed<'a> {
    fn read(
        kind: PayloadType,
        message: &'a [u8],
        mut reader: Reader<'a>,
    ) -> Result<Self, InvalidMessage> {
        let first = PayloadType(reader.u8("next payload")?);
        reader.u8("payload flags")?;
        let length = reader.u16("payload length")?;
        let mut body = reader.part(length, 4, "encrypted payload length")?;
        reader.end("encrypted payload")?;
        let fragment = if kind == PayloadType::SKF {
            let number = body.u16("fragment number")?;
            let total = body.u16("total fragments")?;
            if number == 0 || number > total {
                return Err(InvalidMessage::Value("fragment number"));
            }
            Some((number, total))
        } else {
            None
        };
        let octets = body.rest();
        let aad = message
            .get(..message.len() - octets.len())
            .ok_or(InvalidMessage::Missing("encrypted payload"))?;
        Ok(Self { first, aad, octets, fragment })
    }
}

const VERSION: u8 = 0x20;
const INITIATOR: u8 = 0x08;
const RESPONSE: u8 = 0x20;

/// Octets of the longest message that is looked at; strongSwan's bound too. RSA keys of 8192 bits make
/// messages of 2 kB.
pub const MAX_MESSAGE: usize = 10_000;
