//! Reading and writing octets: a reader that cannot overrun, lengths that are written last.

use std::fmt;

/// What is wrong with a message's form. The word names the field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InvalidMessage {
    /// The octets end before this field does.
    Missing(&'static str),
    /// Octets are left over behind this field.
    Trailing(&'static str),
    /// This field holds a value that it cannot have.
    Value(&'static str),
    /// A payload that may stand only once stands twice.
    Twice(&'static str),
    /// More of these than anyone needs.
    TooMany(&'static str),
    /// A payload type that we do not know has its critical bit set (RFC 7296 §2.5).
    Critical(u8),
    /// A major version above 2 (RFC 7296 §2.5).
    MajorVersion,
    /// The integrity check failed, or there is no key to check with.
    Integrity,
}

impl fmt::Display for InvalidMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(field) => write!(f, "{field} is cut short"),
            Self::Trailing(field) => write!(f, "octets left over after {field}"),
            Self::Value(field) => write!(f, "{field} has an impossible value"),
            Self::Twice(field) => write!(f, "{field} stands twice"),
            Self::TooMany(field) => write!(f, "too many of {field}"),
            Self::Critical(kind) => write!(f, "unknown critical payload {kind}"),
            Self::MajorVersion => f.write_str("major version above 2"),
            Self::Integrity => f.write_str("integrity check failed"),
        }
    }
}

impl std::error::Error for InvalidMessage {}

/// Octets not yet read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(octets: &'a [u8]) -> Self {
        Self { rest: octets }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn take(
        &mut self,
        len: usize,
        field: &'static str,
    ) -> Result<&'a [u8], InvalidMessage> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(InvalidMessage::Missing(field))?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(
        &mut self,
        field: &'static str,
    ) -> Result<[u8; N], InvalidMessage> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(InvalidMessage::Missing(field))?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, InvalidMessage> {
        self.array::<1>(field).map(|[octet]| octet)
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, InvalidMessage> {
        self.array(field).map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, InvalidMessage> {
        self.array(field).map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, InvalidMessage> {
        self.array(field).map(u64::from_be_bytes)
    }

    /// Everything that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// A part whose length, `header` octets of which were read already, stands in the message.
    pub(crate) fn part(
        &mut self,
        length: u16,
        header: usize,
        field: &'static str,
    ) -> Result<Self, InvalidMessage> {
        let len = usize::from(length).checked_sub(header).ok_or(InvalidMessage::Value(field))?;
        self.take(len, field).map(Self::new)
    }

    /// Nothing may be left.
    pub(crate) fn end(&self, field: &'static str) -> Result<(), InvalidMessage> {
        if self.rest.is_empty() { Ok(()) } else { Err(InvalidMessage::Trailing(field)) }
    }
}

/// Writes a part that begins with `head`, then its own length in two octets, then what `body`
/// writes. A part longer than its length field can say is cut off at nothing: its length reads
/// 65535 and the peer refuses it, which no message of ours comes near.
pub(crate) fn with_length(out: &mut Vec<u8>, head: &[u8], body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(head);
    let at = out.len();
    out.extend_from_slice(&[0xff, 0xff]);
    body(out);
    let len = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
    if let Some(field) = out.get_mut(at..at + 2) {
        field.copy_from_slice(&len.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_stops_at_the_end() {
        let mut reader = Reader::new(&[1, 2, 3]);
        assert_eq!(reader.u16("a"), Ok(0x0102));
        assert_eq!(reader.u16("b"), Err(InvalidMessage::Missing("b")));
        assert_eq!(reader.end("c"), Err(InvalidMessage::Trailing("c")));
        assert_eq!(reader.rest(), [3]);
        assert_eq!(reader.end("c"), Ok(()));
    }

    #[test]
    fn lengths_count_from_the_start_of_the_part() {
        let mut out = vec![9];
        with_length(&mut out, &[7, 0], |out| out.extend_from_slice(&[1, 2, 3]));
        assert_eq!(out, [9, 7, 0, 0, 7, 1, 2, 3]);
    }
}
