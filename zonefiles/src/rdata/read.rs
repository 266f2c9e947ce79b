//! RDATA from the words of a master file.

use std::net::{Ipv4Addr, Ipv6Addr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::encoding::{base32hex, hex, time_from_text, write_bitmap};
use super::write::is_of_type;
use crate::name::{Name, NameError, unescape};
use crate::rtype::{Field, Rtype};

/// Why the RDATA of a line was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RdataError {
    /// A field is not what the type wants there.
    #[error("expected {0}")]
    Expected(&'static str),
    /// The line ends too early.
    #[error("the line ends where {0} was expected")]
    Missing(&'static str),
    /// The line goes on after the last field.
    #[error("unexpected text after the last field")]
    Trailing,
    /// A name is malformed.
    #[error("{0}")]
    Name(#[from] NameError),
    /// A character string is over 255 octets.
    #[error("string of {0} octets; at most 255 fit (split it)")]
    LongString(usize),
    /// RFC 3597's count and its digits differ.
    #[error("\\# announces {announced} octets, {found} follow")]
    Length {
        /// The number after `\#`.
        announced: usize,
        /// The octets after that.
        found: usize,
    },
    /// Generic RDATA of a known type that contradicts the type.
    #[error("RDATA does not fit its type")]
    NotOfItsType,
    /// Only the generic form can be read for this type.
    #[error("type without a known presentation form: expected \\# LENGTH HEX (RFC 3597)")]
    OnlyGeneric,
    /// RDATA over 65535 octets.
    #[error("RDATA of more than 65535 octets")]
    TooLong,
}

/// One word of a master file: escapes are still in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Token {
    pub(crate) text: Vec<u8>,
    pub(crate) quoted: bool,
    pub(crate) line: u32,
    pub(crate) column: u32,
}

/// Reads the RDATA of a type. An error comes with the index of the token it is about.
pub(crate) fn parse(
    rtype: Rtype,
    tokens: &[Token],
    origin: Option<&Name>,
) -> Result<Vec<u8>, (usize, RdataError)> {
    if let [first, rest @ ..] = tokens
        && !first.quoted
        && first.text == b"\\#"
    {
        let wire = generic(rest).map_err(|(at, e)| (at + 1, e))?;
        return if is_of_type(rtype, &wire) {
            Ok(wire)
        } else {
            Err((0, RdataError::NotOfItsType))
        };
    }
    let fields = rtype.fields().ok_or((0, RdataError::OnlyGeneric))?;
    let mut reader = TextReader { tokens, at: 0, origin };
    let mut wire = Vec::new();
    for &field in fields {
        read_field(&mut reader, field, &mut wire).map_err(|e| (reader.at.saturating_sub(1), e))?;
    }
    if reader.at < tokens.len() {
        return Err((reader.at, RdataError::Trailing));
    }
    if wire.len() > usize::from(u16::MAX) {
        return Err((0, RdataError::TooLong));
    }
    Ok(wire)
}

struct TextReader<'a> {
    tokens: &'a [Token],
    at: usize,
    origin: Option<&'a Name>,
}

impl<'a> TextReader<'a> {
    fn next(&mut self, what: &'static str) -> Result<&'a Token, RdataError> {
        let token = self.tokens.get(self.at);
        self.at += 1;
        token.ok_or(RdataError::Missing(what))
    }

    fn str(&mut self, what: &'static str) -> Result<&'a str, RdataError> {
        std::str::from_utf8(&self.next(what)?.text).map_err(|_| RdataError::Expected(what))
    }

    fn number(&mut self, what: &'static str) -> Result<u32, RdataError> {
        let text = self.str(what)?;
        // The classic `KEY 0x4200 4 1` is written so.
        let number = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            Some(hex) => u32::from_str_radix(hex, 16),
            None => text.parse(),
        };
        number.map_err(|_| RdataError::Expected(what))
    }

    fn rest(&mut self) -> &'a [Token] {
        let rest = self.tokens.get(self.at..).unwrap_or_default();
        self.at = self.at.max(self.tokens.len());
        rest
    }

    fn joined(&mut self) -> Vec<u8> {
        self.rest().iter().flat_map(|token| token.text.iter().copied()).collect()
    }
}

fn read_field(
    reader: &mut TextReader<'_>,
    field: Field,
    wire: &mut Vec<u8>,
) -> Result<(), RdataError> {
    use RdataError::Expected;
    match field {
        Field::U8 => {
            const WHAT: &str = "a number up to 255";
            let text = reader.str(WHAT)?;
            let number = match text.parse::<u8>() {
                Ok(number) => number,
                Err(_) => algorithm(text).ok_or(Expected(WHAT))?,
            };
            wire.push(number);
        }
        Field::U16 => {
            const WHAT: &str = "a number up to 65535";
            let number = u16::try_from(reader.number(WHAT)?).map_err(|_| Expected(WHAT))?;
            wire.extend_from_slice(&number.to_be_bytes());
        }
        Field::U32 => {
            let number = reader.number("a number up to 4294967295")?;
            wire.extend_from_slice(&number.to_be_bytes());
        }
        Field::Period => {
            const WHAT: &str = "seconds, or a period such as 1h30m";
            let period = parse_period(&reader.next(WHAT)?.text).ok_or(Expected(WHAT))?;
            wire.extend_from_slice(&period.to_be_bytes());
        }
        Field::Time => {
            const WHAT: &str = "a time as YYYYMMDDHHmmSS";
            let time = time_from_text(reader.str(WHAT)?).ok_or(Expected(WHAT))?;
            wire.extend_from_slice(&time.to_be_bytes());
        }
        Field::Ipv4 => {
            const WHAT: &str = "an IPv4 address";
            let address: Ipv4Addr = reader.str(WHAT)?.parse().map_err(|_| Expected(WHAT))?;
            wire.extend_from_slice(&address.octets());
        }
        Field::Ipv6 => {
            const WHAT: &str = "an IPv6 address";
            let address: Ipv6Addr = reader.str(WHAT)?.parse().map_err(|_| Expected(WHAT))?;
            wire.extend_from_slice(&address.octets());
        }
        Field::Name => {
            let name = Name::parse(&reader.next("a name")?.text, reader.origin)?;
            wire.extend_from_slice(name.as_wire());
        }
        Field::Rtype => {
            const WHAT: &str = "a record type";
            let rtype = Rtype::from_mnemonic(reader.str(WHAT)?).ok_or(Expected(WHAT))?;
            wire.extend_from_slice(&rtype.0.to_be_bytes());
        }
        Field::Text | Field::Texts | Field::Quoted => read_strings(reader, field, wire)?,
        Field::Salt | Field::Hash32 | Field::Hex | Field::Base64 => {
            read_octets(reader, field, wire)?;
        }
        Field::Bitmap => {
            let mut types = Vec::new();
            for token in reader.rest() {
                let text = std::str::from_utf8(&token.text).ok();
                types.push(text.and_then(Rtype::from_mnemonic).ok_or(Expected("record types"))?);
            }
            write_bitmap(wire, types);
        }
        Field::Ipseckey => read_ipseckey(reader, wire)?,
    }
    Ok(())
}

fn read_strings(
    reader: &mut TextReader<'_>,
    field: Field,
    wire: &mut Vec<u8>,
) -> Result<(), RdataError> {
    let mut push = |text: Vec<u8>| {
        let len = u8::try_from(text.len()).map_err(|_| RdataError::LongString(text.len()))?;
        wire.push(len);
        wire.extend_from_slice(&text);
        Ok(())
    };
    match field {
        Field::Texts => {
            push(plain(&reader.next("a string")?.text)?)?;
            while reader.at < reader.tokens.len() {
                push(plain(&reader.next("a string")?.text)?)?;
            }
            Ok(())
        }
        Field::Quoted => {
            let text = plain(&reader.next("a string")?.text)?;
            wire.extend_from_slice(&text);
            Ok(())
        }
        _ => push(plain(&reader.next("a string")?.text)?),
    }
}

fn read_octets(
    reader: &mut TextReader<'_>,
    field: Field,
    wire: &mut Vec<u8>,
) -> Result<(), RdataError> {
    use RdataError::Expected;
    match field {
        Field::Hex => {
            let octets = hex(&reader.joined()).ok_or(Expected("hexadecimal digits"))?;
            wire.extend_from_slice(&octets);
        }
        Field::Base64 => {
            let octets = BASE64.decode(reader.joined()).map_err(|_| Expected("base 64"))?;
            wire.extend_from_slice(&octets);
        }
        _ => {
            const WHAT: &str = "hexadecimal salt or -, or a base 32 hash";
            let text = &reader.next(WHAT)?.text;
            let octets = match field {
                Field::Salt if text == b"-" => Vec::new(),
                Field::Salt => hex(text).ok_or(Expected(WHAT))?,
                _ => base32hex(text).ok_or(Expected(WHAT))?,
            };
            wire.push(u8::try_from(octets.len()).map_err(|_| Expected(WHAT))?);
            wire.extend_from_slice(&octets);
        }
    }
    Ok(())
}

fn read_ipseckey(reader: &mut TextReader<'_>, wire: &mut Vec<u8>) -> Result<(), RdataError> {
    const TYPE: &str = "a gateway type, 0 to 3";
    let gateway_type = reader.number(TYPE)?;
    let algorithm = reader.number("an algorithm number")?;
    let algorithm = u8::try_from(algorithm).map_err(|_| RdataError::Expected("an algorithm"))?;
    wire.push(u8::try_from(gateway_type).map_err(|_| RdataError::Expected(TYPE))?);
    wire.push(algorithm);
    match gateway_type {
        0 => {
            const WHAT: &str = "\".\" as the gateway of type 0";
            if reader.next(WHAT)?.text != b"." {
                return Err(RdataError::Expected(WHAT));
            }
        }
        1 => read_field(reader, Field::Ipv4, wire)?,
        2 => read_field(reader, Field::Ipv6, wire)?,
        3 => read_field(reader, Field::Name, wire)?,
        _ => {
            // Point at the type, not at what follows it.
            reader.at = reader.at.saturating_sub(1);
            return Err(RdataError::Expected(TYPE));
        }
    }
    read_octets(reader, Field::Base64, wire)
}

fn generic(tokens: &[Token]) -> Result<Vec<u8>, (usize, RdataError)> {
    const WHAT: &str = "the length of the RDATA";
    let (len, digits) = tokens.split_first().ok_or((0, RdataError::Missing(WHAT)))?;
    let announced: u16 = std::str::from_utf8(&len.text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or((0, RdataError::Expected(WHAT)))?;
    let joined: Vec<u8> = digits.iter().flat_map(|token| token.text.iter().copied()).collect();
    let wire = hex(&joined).ok_or((1, RdataError::Expected("hexadecimal digits")))?;
    if wire.len() != usize::from(announced) {
        let (announced, found) = (usize::from(announced), wire.len());
        return Err((0, RdataError::Length { announced, found }));
    }
    Ok(wire)
}

/// Takes the escapes out of a string.
pub(crate) fn plain(text: &[u8]) -> Result<Vec<u8>, RdataError> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.iter().copied();
    while let Some(byte) = rest.next() {
        octets.push(if byte == b'\\' { unescape(&mut rest)? } else { byte });
    }
    Ok(octets)
}

/// Seconds, or RFC 1035-by-BIND periods such as `1h30m`, `2w`.
pub(crate) fn parse_period(text: &[u8]) -> Option<u32> {
    if text.is_empty() {
        return None;
    }
    let (mut total, mut number) = (0_u32, None::<u32>);
    for &byte in text {
        if byte.is_ascii_digit() {
            let digit = u32::from(byte - b'0');
            number = Some(number.unwrap_or(0).checked_mul(10)?.checked_add(digit)?);
            continue;
        }
        let unit = match byte.to_ascii_lowercase() {
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            b'd' => 86_400,
            b'w' => 604_800,
            _ => return None,
        };
        total = total.checked_add(number.take()?.checked_mul(unit)?)?;
    }
    // Bare digits after a unit ("1h30") are refused, as BIND does.
    match number {
        Some(seconds) if total == 0 => Some(seconds),
        Some(_) => None,
        None => Some(total),
    }
}

fn algorithm(text: &str) -> Option<u8> {
    ALGORITHMS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|&(_, number)| number)
}

/// IANA's DNSSEC algorithm mnemonics, as old key files write them.
#[rustfmt::skip]
const ALGORITHMS: &[(&str, u8)] = &[
    ("RSAMD5", 1), ("DH", 2), ("DSA", 3), ("RSASHA1", 5), ("NSEC3RSASHA1", 7), ("RSASHA256", 8),
    ("RSASHA512", 10), ("ECDSAP256SHA256", 13), ("ECDSAP384SHA384", 14), ("ED25519", 15), ("ED448", 16),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods() {
        assert_eq!(parse_period(b"3600"), Some(3600));
        assert_eq!(parse_period(b"1h30m"), Some(5400));
        assert_eq!(parse_period(b"2W"), Some(1_209_600));
        assert_eq!(parse_period(b"h"), None);
        assert_eq!(parse_period(b"4294967296"), None);
        assert_eq!(parse_period(b"5x"), None);
    }
}
