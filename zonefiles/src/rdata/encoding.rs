//! Hexadecimal, base32hex, type bitmaps and times.

use std::fmt::Write as _;

use crate::rtype::Rtype;

pub(super) fn hex(text: &[u8]) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_chunks::<2>() else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect()
}

pub(super) fn write_hex(out: &mut String, octets: &[u8]) {
    for byte in octets {
        let _ = write!(out, "{byte:02X}");
    }
}

pub(super) fn base32hex(text: &[u8]) -> Option<Vec<u8>> {
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

pub(super) fn write_base32hex(out: &mut String, octets: &[u8]) -> Option<()> {
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

pub(super) fn time_from_text(text: &str) -> Option<u32> {
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

pub(super) fn write_time(out: &mut String, time: u32) {
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
    fn base32hex_of_rfc_4648() {
        assert_eq!(base32hex(b"CPNMUOJ1"), Some(b"fooba".to_vec()));
        let mut text = String::new();
        write_base32hex(&mut text, b"fooba").unwrap();
        assert_eq!(text, "CPNMUOJ1");
    }
}
