//! Domain names in wire form, written and read as a master file does (RFC 1035 §3.1, §5.1).
//!
//! A zone may hold names that no host has (`*`, `\046`, RFC 2317's `96/28`), so these are octets;
//! [`dnskeys::Name`] is the narrower thing that a gateway may be called.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::str::FromStr;

/// An absolute domain name, uncompressed, in the case it was written in.
///
/// Equality, hash and order ignore case; the order is DNSSEC's canonical one (RFC 4034 §6.1).
#[derive(Clone)]
pub struct Name(Box<[u8]>);

/// Why a name was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NameError {
    /// No character at all.
    #[error("empty name")]
    Empty,
    /// Two dots in a row, or a dot at the start.
    #[error("empty label")]
    EmptyLabel,
    /// RFC 1035 §2.3.4.
    #[error("label of more than 63 octets")]
    LabelTooLong,
    /// RFC 1035 §2.3.4.
    #[error("name of more than 255 octets")]
    NameTooLong,
    /// `\` at the end, `\25`, `\256`.
    #[error("bad escape: expected \\X or \\DDD up to 255")]
    Escape,
    /// `www` where no `$ORIGIN` is known.
    #[error("relative name without an origin ($ORIGIN)")]
    Relative,
    /// Wire form: a pointer, a truncated label.
    #[error("malformed wire form of a name")]
    Wire,
}

impl Name {
    /// The root, `.`.
    #[must_use]
    pub fn root() -> Self {
        Self(Box::new([0]))
    }

    /// Reads presentation form; a name without a final dot is completed with `origin`.
    ///
    /// # Errors
    /// Says which rule of RFC 1035 the text breaks.
    pub fn parse(text: &[u8], origin: Option<&Self>) -> Result<Self, NameError> {
        match text {
            [] => return Err(NameError::Empty),
            b"." => return Ok(Self::root()),
            b"@" => return origin.cloned().ok_or(NameError::Relative),
            _ => {}
        }
        let mut wire = Vec::with_capacity(text.len() + 2);
        let mut label_at = 0;
        wire.push(0);
        let mut rest = text.iter().copied();
        let mut absolute = false;
        while let Some(byte) = rest.next() {
            if byte == b'.' {
                close_label(&mut wire, label_at)?;
                absolute = rest.len() == 0;
                if !absolute {
                    label_at = wire.len();
                    wire.push(0);
                }
                continue;
            }
            wire.push(if byte == b'\\' { unescape(&mut rest)? } else { byte });
            if wire.len() > MAX_NAME + MAX_LABEL {
                return Err(NameError::NameTooLong);
            }
        }
        if absolute {
            wire.push(0);
        } else {
            close_label(&mut wire, label_at)?;
            wire.extend_from_slice(&origin.ok_or(NameError::Relative)?.0);
        }
        if wire.len() > MAX_NAME {
            return Err(NameError::NameTooLong);
        }
        Ok(Self(wire.into()))
    }

    /// Reads an uncompressed name at the start of `wire`; gives it and how long it is.
    ///
    /// # Errors
    /// [`NameError::Wire`] for pointers and truncation, [`NameError::NameTooLong`].
    pub fn from_wire(wire: &[u8]) -> Result<(Self, usize), NameError> {
        let mut at = 0;
        loop {
            let len = usize::from(*wire.get(at).ok_or(NameError::Wire)?);
            if len > MAX_LABEL {
                return Err(NameError::Wire);
            }
            at += 1 + len;
            if at > MAX_NAME {
                return Err(NameError::NameTooLong);
            }
            if len == 0 {
                let name = wire.get(..at).ok_or(NameError::Wire)?;
                return Ok((Self(name.into()), at));
            }
        }
    }

    /// The name at which an address publishes (RFC 1035 §3.5, RFC 3596 §2.5).
    #[must_use]
    pub fn reverse(address: IpAddr) -> Self {
        Self::from(&dnskeys::Name::reverse(address))
    }

    /// Uncompressed wire form, with the root's zero octet.
    #[must_use]
    pub fn as_wire(&self) -> &[u8] {
        &self.0
    }

    /// The labels from the leftmost to the top, without the root's.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || {
            let (&len, tail) = rest.split_first()?;
            let (label, tail) = tail.split_at_checked(usize::from(len))?;
            rest = tail;
            (len != 0).then_some(label)
        })
    }

    /// How many labels there are; the root has none.
    #[must_use]
    pub fn count_labels(&self) -> usize {
        self.labels().count()
    }

    /// Whether it is the root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.len() == 1
    }

    /// Whether its leftmost label is `*` (RFC 4592).
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with(b"\x01*")
    }

    /// The name without its leftmost label.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let (&len, rest) = self.0.split_first()?;
        (len != 0).then(|| Self(rest.get(usize::from(len)..).unwrap_or(&[0]).into()))
    }

    /// `label` in front of this name.
    ///
    /// # Errors
    /// The label or the whole is too long, or the label empty.
    pub fn prepend(&self, label: &[u8]) -> Result<Self, NameError> {
        let len = u8::try_from(label.len()).map_err(|_| NameError::LabelTooLong)?;
        if usize::from(len) > MAX_LABEL {
            return Err(NameError::LabelTooLong);
        }
        if len == 0 {
            return Err(NameError::EmptyLabel);
        }
        if self.0.len() + label.len() + 1 > MAX_NAME {
            return Err(NameError::NameTooLong);
        }
        let mut wire = Vec::with_capacity(self.0.len() + label.len() + 1);
        wire.push(len);
        wire.extend_from_slice(label);
        wire.extend_from_slice(&self.0);
        Ok(Self(wire.into()))
    }

    /// Whether this name is `zone` or below it.
    #[must_use]
    pub fn is_within(&self, zone: &Self) -> bool {
        let mut at = 0;
        while self.0.len().saturating_sub(at) >= zone.0.len() {
            let tail = self.0.get(at..).unwrap_or_default();
            if tail.eq_ignore_ascii_case(&zone.0) {
                return true;
            }
            let len = tail.first().copied().unwrap_or(0);
            if len == 0 {
                return false;
            }
            at += 1 + usize::from(len);
        }
        false
    }

    /// In lower case, as DNSSEC signs it (RFC 4034 §6.2).
    #[must_use]
    pub fn to_lowercase(&self) -> Self {
        // Length octets are at most 63, below 'A'.
        Self(self.0.to_ascii_lowercase().into())
    }

    /// Writes presentation form, relative to `origin` if it is within (`@` for the origin itself).
    ///
    /// # Errors
    /// Only what `out` fails with.
    pub fn write_relative(&self, out: &mut dyn fmt::Write, origin: &Self) -> fmt::Result {
        if origin.is_root() || !self.is_within(origin) {
            return write!(out, "{self}");
        }
        let own = self.count_labels() - origin.count_labels();
        if own == 0 {
            return out.write_char('@');
        }
        for (i, label) in self.labels().take(own).enumerate() {
            if i > 0 {
                out.write_char('.')?;
            }
            write_label(out, label)?;
        }
        Ok(())
    }

    fn label_starts(&self) -> ([u8; MAX_LABELS], usize) {
        let mut starts = [0; MAX_LABELS];
        let mut count = 0;
        let mut at = 0_u8;
        while let Some(&len) = self.0.get(usize::from(at)) {
            let Some(slot) = starts.get_mut(count) else { break };
            if len == 0 {
                break;
            }
            *slot = at;
            count += 1;
            at = at.saturating_add(1 + len);
        }
        (starts, count)
    }

    fn label_at(&self, start: u8) -> &[u8] {
        let start = usize::from(start);
        let len = usize::from(self.0.get(start).copied().unwrap_or(0));
        self.0.get(start + 1..start + 1 + len).unwrap_or_default()
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        let (ours, our_count) = self.label_starts();
        let (theirs, their_count) = other.label_starts();
        let ours = ours.iter().take(our_count).rev();
        let theirs = theirs.iter().take(their_count).rev();
        for (&a, &b) in ours.zip(theirs) {
            let a = self.label_at(a).iter().map(u8::to_ascii_lowercase);
            let b = other.label_at(b).iter().map(u8::to_ascii_lowercase);
            match a.cmp(b) {
                Ordering::Equal => {}
                unequal => return unequal,
            }
        }
        our_count.cmp(&their_count)
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for Name {}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for byte in &self.0 {
            state.write_u8(byte.to_ascii_lowercase());
        }
    }
}

impl From<&dnskeys::Name> for Name {
    fn from(name: &dnskeys::Name) -> Self {
        // Its alphabet and lengths are a part of ours.
        Self::parse(name.as_str().as_bytes(), None).unwrap_or_else(|_| Self::root())
    }
}

impl FromStr for Name {
    type Err = NameError;

    /// Absolute whether the final dot is written or not.
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text.as_bytes(), Some(&Self::root()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return f.write_str(".");
        }
        for label in self.labels() {
            write_label(f, label)?;
            f.write_str(".")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads what follows a backslash: three digits or one other character (RFC 1035 §5.1).
pub(crate) fn unescape(rest: &mut dyn Iterator<Item = u8>) -> Result<u8, NameError> {
    let first = rest.next().ok_or(NameError::Escape)?;
    if !first.is_ascii_digit() {
        return Ok(first);
    }
    let mut value = u16::from(first - b'0');
    for _ in 0..2 {
        match rest.next() {
            Some(digit @ b'0'..=b'9') => value = value * 10 + u16::from(digit - b'0'),
            _ => return Err(NameError::Escape),
        }
    }
    u8::try_from(value).map_err(|_| NameError::Escape)
}

fn close_label(wire: &mut [u8], label_at: usize) -> Result<(), NameError> {
    let len = wire.len() - label_at - 1;
    if len == 0 {
        return Err(NameError::EmptyLabel);
    }
    if len > MAX_LABEL {
        return Err(NameError::LabelTooLong);
    }
    if let (Some(slot), Ok(len)) = (wire.get_mut(label_at), u8::try_from(len)) {
        *slot = len;
    }
    Ok(())
}

fn write_label(out: &mut dyn fmt::Write, label: &[u8]) -> fmt::Result {
    for &byte in label {
        match byte {
            b'.' | b'\\' | b'"' | b';' | b'(' | b')' | b'@' | b'$' => {
                out.write_char('\\')?;
                out.write_char(char::from(byte))?;
            }
            b'!'..=b'~' => out.write_char(char::from(byte))?,
            _ => write!(out, "\\{byte:03}")?,
        }
    }
    Ok(())
}

/// RFC 1035 §2.3.4.
const MAX_LABEL: usize = 63;
/// RFC 1035 §2.3.4, in wire form.
const MAX_NAME: usize = 255;
/// A name of 255 octets with labels of one.
const MAX_LABELS: usize = 127;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn canonical_order_is_that_of_rfc_4034() {
        // RFC 4034 §6.1.
        let sorted = [
            "example.",
            "a.example.",
            "yljkjljk.a.example.",
            "Z.a.example.",
            "zABC.a.EXAMPLE.",
            "z.example.",
            "\\001.z.example.",
            "*.z.example.",
            "\\200.z.example.",
        ];
        let mut names: Vec<Name> = sorted.iter().rev().map(|n| name(n)).collect();
        names.sort();
        let text: Vec<String> = names.iter().map(ToString::to_string).collect();
        assert_eq!(text, sorted);
    }

    #[test]
    fn relative_names() {
        let origin = name("2.0.192.in-addr.arpa");
        assert_eq!(Name::parse(b"11", Some(&origin)), Ok(name("11.2.0.192.in-addr.arpa.")));
        assert_eq!(Name::parse(b"@", Some(&origin)), Ok(origin.clone()));
        assert_eq!(Name::parse(b"11", None), Err(NameError::Relative));
        let mut text = String::new();
        name("96/28.2.0.192.in-addr.arpa.").write_relative(&mut text, &origin).unwrap();
        assert_eq!(text, "96/28");
    }

    #[test]
    fn limits() {
        let label = "a".repeat(64);
        assert_eq!(Name::from_str(&label), Err(NameError::LabelTooLong));
        let long = "abcdefg.".repeat(32);
        assert_eq!(Name::from_str(&long), Err(NameError::NameTooLong));
        assert_eq!(Name::from_str("a..b"), Err(NameError::EmptyLabel));
        assert_eq!(Name::from_str("a\\25"), Err(NameError::Escape));
        assert_eq!(Name::from_str("a\\256."), Err(NameError::Escape));
    }

    #[test]
    fn within() {
        assert!(name("a.b.c").is_within(&name("B.c")));
        assert!(!name("ab.c").is_within(&name("b.c")));
        assert!(name("c").is_within(&Name::root()));
    }

    fn labels() -> impl Strategy<Value = Name> {
        prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..8).prop_map(|labels| {
            labels.iter().rev().fold(Name::root(), |name, label| name.prepend(label).unwrap())
        })
    }

    proptest! {
        #[test]
        fn presentation_and_back(name in labels(), origin in labels()) {
            let text = name.to_string();
            let back = Name::parse(text.as_bytes(), None).unwrap();
            prop_assert_eq!(back.as_wire(), name.as_wire());
            let mut relative = String::new();
            name.write_relative(&mut relative, &origin).unwrap();
            prop_assert_eq!(&Name::parse(relative.as_bytes(), Some(&origin)).unwrap(), &name);
        }

        #[test]
        fn arbitrary_octets_do_no_harm(text in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = Name::parse(&text, Some(&Name::root()));
            let _ = Name::from_wire(&text);
        }
    }
}
