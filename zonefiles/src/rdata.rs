//! RDATA between wire form and text, driven by the table of [`crate::rtype`].

use std::fmt::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use dnskeys::RsaKey;

use crate::name::{Name, NameError, unescape};
use crate::record::GatewayField;
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

/// Writes RDATA: in the type's own form, or RFC 3597's if there is none or it does not fit.
pub(crate) fn write(out: &mut dyn Write, rtype: Rtype, wire: &[u8], origin: &Name) -> fmt::Result {
    let mut text = String::with_capacity(wire.len() * 2);
    if let Some(fields) = rtype.fields()
        && write_fields(&mut text, fields, wire, origin).is_some()
    {
        return out.write_str(&text);
    }
    write!(out, "\\# {}", wire.len())?;
    if !wire.is_empty() {
        out.write_char(' ')?;
    }
    wire.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
}

/// Whether RDATA parses as its type says; unknown types always do.
pub(crate) fn is_of_type(rtype: Rtype, wire: &[u8]) -> bool {
    let mut sink = String::new();
    rtype.fields().is_none_or(|f| write_fields(&mut sink, f, wire, &Name::root()).is_some())
}

/// RDATA in DNSSEC's canonical form (RFC 4034 §6.2): names of the old types in lower case.
pub(crate) fn canonical(rtype: Rtype, wire: &[u8]) -> Vec<u8> {
    let mut bytes = wire.to_vec();
    if !rtype.lowers_names() {
        return bytes;
    }
    let mut at = 0;
    for field in rtype.fields().unwrap_or_default() {
        let rest = bytes.get_mut(at..).unwrap_or_default();
        let used = match field {
            Field::Name => match Name::from_wire(rest) {
                Ok((_, used)) => {
                    rest.get_mut(..used).unwrap_or_default().make_ascii_lowercase();
                    used
                }
                Err(_) => return bytes,
            },
            Field::U8 => 1,
            Field::U16 | Field::Rtype => 2,
            Field::U32 | Field::Period | Field::Time => 4,
            Field::Text => 1 + usize::from(rest.first().copied().unwrap_or(0)),
            _ => return bytes,
        };
        at += used;
    }
    bytes
}

/// `X-IPsec-Server` as strings: one if it fits, otherwise split before the key, whose first string
/// starts with the blank, so that plain concatenation reads it (what FreeS/WAN's showhostkey did).
pub(crate) fn x_ipsec_server(precedence: u16, gateway: &str, key: Option<&RsaKey>) -> Vec<u8> {
    let head = format!("X-IPsec-Server({precedence})={gateway}");
    let tail = key.map(|key| format!(" {}", BASE64.encode(rfc3110(key)))).unwrap_or_default();
    let mut wire = Vec::with_capacity(head.len() + tail.len() + 8);
    let mut push = |chunk: &[u8]| {
        wire.push(u8::try_from(chunk.len()).unwrap_or(u8::MAX));
        wire.extend_from_slice(chunk);
    };
    if head.len() + tail.len() <= MAX_STRING {
        push((head + &tail).as_bytes());
    } else {
        // A gateway name can itself be over 255 octets with its prefix.
        head.as_bytes().chunks(MAX_STRING).for_each(&mut push);
        tail.as_bytes().chunks(MAX_STRING).for_each(push);
    }
    wire
}

pub(crate) fn ipseckey(precedence: u8, gateway: &GatewayField, key: Option<&RsaKey>) -> Vec<u8> {
    let gateway_type = match gateway {
        GatewayField::Own => 0,
        GatewayField::Address(IpAddr::V4(_)) => 1,
        GatewayField::Address(IpAddr::V6(_)) => 2,
        GatewayField::Name(_) => 3,
    };
    let mut wire = vec![precedence, gateway_type, if key.is_some() { ALGORITHM_RSA } else { 0 }];
    match gateway {
        GatewayField::Own => {}
        GatewayField::Address(IpAddr::V4(a)) => wire.extend_from_slice(&a.octets()),
        GatewayField::Address(IpAddr::V6(a)) => wire.extend_from_slice(&a.octets()),
        GatewayField::Name(n) => wire.extend_from_slice(n.as_wire()),
    }
    if let Some(key) = key {
        wire.extend_from_slice(&rfc3110(key));
    }
    wire
}

/// Exponent length, exponent, modulus (RFC 3110 §2).
pub(crate) fn rfc3110(key: &RsaKey) -> Vec<u8> {
    let (exponent, modulus) = (key.exponent(), key.modulus());
    let mut wire = Vec::with_capacity(3 + exponent.len() + modulus.len());
    match u8::try_from(exponent.len()) {
        Ok(len) if len > 0 => wire.push(len),
        _ => {
            wire.push(0);
            let len = u16::try_from(exponent.len()).unwrap_or(u16::MAX);
            wire.extend_from_slice(&len.to_be_bytes());
        }
    }
    wire.extend_from_slice(exponent);
    wire.extend_from_slice(modulus);
    wire
}

/// One quoted `<character-string>`.
pub(crate) fn write_quoted(out: &mut dyn Write, text: &[u8]) -> fmt::Result {
    out.write_char('"')?;
    for &byte in text {
        match byte {
            b'"' | b'\\' => {
                out.write_char('\\')?;
                out.write_char(char::from(byte))?;
            }
            b' '..=b'~' => out.write_char(char::from(byte))?,
            _ => write!(out, "\\{byte:03}")?,
        }
    }
    out.write_char('"')
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

fn write_fields(out: &mut String, fields: &[Field], wire: &[u8], origin: &Name) -> Option<()> {
    let mut rest = wire;
    for (i, &field) in fields.iter().enumerate() {
        if i > 0 && !(matches!(field, Field::Bitmap | Field::Base64) && rest.is_empty()) {
            out.push(' ');
        }
        write_field(out, field, &mut rest, origin)?;
    }
    rest.is_empty().then_some(())
}

fn write_field(out: &mut String, field: Field, rest: &mut &[u8], origin: &Name) -> Option<()> {
    match field {
        Field::U8 => write!(out, "{}", take::<1>(rest)?[0]).ok()?,
        Field::U16 => write!(out, "{}", u16::from_be_bytes(take(rest)?)).ok()?,
        Field::U32 | Field::Period => write!(out, "{}", u32::from_be_bytes(take(rest)?)).ok()?,
        Field::Time => write_time(out, u32::from_be_bytes(take(rest)?)),
        Field::Ipv4 => write!(out, "{}", Ipv4Addr::from(take::<4>(rest)?)).ok()?,
        Field::Ipv6 => write!(out, "{}", Ipv6Addr::from(take::<16>(rest)?)).ok()?,
        Field::Rtype => write!(out, "{}", Rtype(u16::from_be_bytes(take(rest)?))).ok()?,
        Field::Name => {
            let (name, used) = Name::from_wire(rest).ok()?;
            *rest = rest.get(used..)?;
            name.write_relative(out, origin).ok()?;
        }
        Field::Text => write_quoted(out, take_string(rest)?).ok()?,
        Field::Texts => {
            write_quoted(out, take_string(rest)?).ok()?;
            while !rest.is_empty() {
                out.push(' ');
                write_quoted(out, take_string(rest)?).ok()?;
            }
        }
        Field::Quoted => write_quoted(out, std::mem::take(rest)).ok()?,
        Field::Hex => {
            if rest.is_empty() {
                return None;
            }
            write_hex(out, std::mem::take(rest));
        }
        Field::Base64 => BASE64.encode_string(std::mem::take(rest), out),
        Field::Salt => match take_string(rest)? {
            [] => out.push('-'),
            salt => write_hex(out, salt),
        },
        Field::Hash32 => write_base32hex(out, take_string(rest)?)?,
        Field::Bitmap => write_bitmap_text(out, std::mem::take(rest))?,
        Field::Ipseckey => {
            let [gateway_type, algorithm] = take(rest)?;
            write!(out, "{gateway_type} {algorithm} ").ok()?;
            match gateway_type {
                0 => out.push('.'),
                1 => write_field(out, Field::Ipv4, rest, origin)?,
                2 => write_field(out, Field::Ipv6, rest, origin)?,
                3 => write_field(out, Field::Name, rest, &Name::root())?,
                _ => return None,
            }
            if !rest.is_empty() {
                out.push(' ');
                write_field(out, Field::Base64, rest, origin)?;
            }
        }
    }
    Some(())
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

fn take_string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (&len, tail) = rest.split_first()?;
    let (text, tail) = tail.split_at_checked(usize::from(len))?;
    *rest = tail;
    Some(text)
}

fn hex(text: &[u8]) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_chunks::<2>() else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect()
}

fn write_hex(out: &mut String, octets: &[u8]) {
    for byte in octets {
        let _ = write!(out, "{byte:02X}");
    }
}

fn base32hex(text: &[u8]) -> Option<Vec<u8>> {
    let mut octets = Vec::with_capacity(text.len() * 5 / 8);
    let (mut bits, mut count) = (0_u32, 0);
    for &byte in text {
        let digit = char::from(byte).to_digit(32)?;
        bits = (bits << 5 | digit) & 0xfff;
        count += 5;
        if count >= 8 {
            count -= 8;
            octets.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    Some(octets)
}

fn write_base32hex(out: &mut String, octets: &[u8]) -> Option<()> {
    // Without padding only multiples of five octets come back; SHA-1 has twenty.
    let (groups, []) = octets.as_chunks::<5>() else { return None };
    for group in groups {
        let bits = group.iter().fold(0_u64, |bits, &byte| bits << 8 | u64::from(byte));
        for shift in (0..8).rev() {
            let digit = u32::try_from(bits >> (5 * shift) & 31).ok()?;
            out.push(char::from_digit(digit, 32)?.to_ascii_uppercase());
        }
    }
    Some(())
}

/// The window blocks of RFC 4034 §4.1.2.
pub(crate) fn write_bitmap(wire: &mut Vec<u8>, mut types: Vec<Rtype>) {
    types.sort_unstable();
    types.dedup();
    for block in types.chunk_by(|a, b| a.0 >> 8 == b.0 >> 8) {
        let mut bits = [0_u8; 32];
        let mut len = 0_u8;
        let mut window = 0;
        for rtype in block {
            let [high, low] = rtype.0.to_be_bytes();
            window = high;
            if let Some(octet) = bits.get_mut(usize::from(low >> 3)) {
                *octet |= 0x80 >> (low & 7);
            }
            len = len.max((low >> 3) + 1);
        }
        wire.push(window);
        wire.push(len);
        wire.extend_from_slice(bits.get(..usize::from(len)).unwrap_or_default());
    }
}

fn write_bitmap_text(out: &mut String, mut wire: &[u8]) -> Option<()> {
    let mut last_window = None;
    let mut first = true;
    while let Some((&window, rest)) = wire.split_first() {
        let mut rest = rest;
        let bits = take_string(&mut rest)?;
        // Anything else would not come back as it was.
        let canonical = !bits.is_empty() && bits.len() <= 32 && bits.last() != Some(&0);
        if !canonical || last_window.is_some_and(|last| last >= window) {
            return None;
        }
        last_window = Some(window);
        for (octet, low) in bits.iter().zip((0_u16..).step_by(8)) {
            for bit in (0..8).filter(|bit| octet & (0x80 >> bit) != 0) {
                let separator = if std::mem::take(&mut first) { "" } else { " " };
                let rtype = Rtype((u16::from(window) << 8) | (low + bit));
                write!(out, "{separator}{rtype}").ok()?;
            }
        }
        wire = rest;
    }
    Some(())
}

fn algorithm(text: &str) -> Option<u8> {
    ALGORITHMS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|&(_, number)| number)
}

fn time_from_text(text: &str) -> Option<u32> {
    if text.len() != 14 {
        return text.parse().ok();
    }
    let part = |range| text.get(range).and_then(|digits: &str| digits.parse::<i64>().ok());
    let (year, month, day) = (part(0..4)?, part(4..6)?, part(6..8)?);
    let (hour, minute, second) = (part(8..10)?, part(10..12)?, part(12..14)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days from the civil calendar, with years that start in March.
    let shifted = if month > 2 { year } else { year - 1 };
    let year_of_era = shifted.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = shifted.div_euclid(400) * 146_097 + day_of_era - 719_468;
    // Serial arithmetic: times wrap every 136 years (RFC 4034 §3.1.5).
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second;
    u32::try_from(seconds.rem_euclid(1 << 32)).ok()
}

fn write_time(out: &mut String, time: u32) {
    let (days, second) = (i64::from(time / 86_400) + 719_468, time % 86_400);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + days.div_euclid(146_097) * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let _ = write!(out, "{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}");
}

/// IANA's DNSSEC algorithm mnemonics, as old key files write them.
#[rustfmt::skip]
const ALGORITHMS: &[(&str, u8)] = &[
    ("RSAMD5", 1), ("DH", 2), ("DSA", 3), ("RSASHA1", 5), ("NSEC3RSASHA1", 7), ("RSASHA256", 8),
    ("RSASHA512", 10), ("ECDSAP256SHA256", 13), ("ECDSAP384SHA384", 14), ("ED25519", 15), ("ED448", 16),
];

/// RFC 1035 §3.3.
pub(crate) const MAX_STRING: usize = 255;
/// RFC 4025 §2.4.
const ALGORITHM_RSA: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_rfc_4034_writes_them() {
        for (text, seconds) in [
            ("19700101000000", 0),
            ("20030322173103", 1_048_354_263),
            ("20260101000000", 1_767_225_600),
        ] {
            assert_eq!(time_from_text(text), Some(seconds), "{text}");
            let mut back = String::new();
            write_time(&mut back, seconds);
            assert_eq!(back, text);
        }
        assert_eq!(time_from_text("20261301000000"), None);
    }

    #[test]
    fn periods() {
        assert_eq!(parse_period(b"3600"), Some(3600));
        assert_eq!(parse_period(b"1h30m"), Some(5400));
        assert_eq!(parse_period(b"2W"), Some(1_209_600));
        assert_eq!(parse_period(b"h"), None);
        assert_eq!(parse_period(b"4294967296"), None);
        assert_eq!(parse_period(b"5x"), None);
    }

    #[test]
    fn base32hex_of_rfc_4648() {
        assert_eq!(base32hex(b"CPNMUOJ1"), Some(b"fooba".to_vec()));
        let mut text = String::new();
        write_base32hex(&mut text, b"fooba").unwrap();
        assert_eq!(text, "CPNMUOJ1");
    }
}
