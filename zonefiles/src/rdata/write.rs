//! RDATA as text, and in DNSSEC's canonical form.

use std::fmt::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::encoding::{write_base32hex, write_hex, write_time};
use crate::name::Name;
use crate::rtype::{Field, Rtype};

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

/// One quoted `<character-string>`.
fn write_quoted(out: &mut dyn Write, text: &[u8]) -> fmt::Result {
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
