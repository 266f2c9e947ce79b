//! The `X-IPsec-Server` TXT record (RFC 4322 §5.2), read as it is met and written as FreeS/WAN
//! wrote it.
//!
//! ```text
//! X-IPsec-Server(10)=192.0.2.11 AwEAAc…
//!                |   |          RSA key, base64 of RFC 3110; may be missing
//!                |   gateway: IPv4, IPv6 or @FQDN
//!                precedence: lower is tried first
//! ```

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::key::{RsaKey, is_blank};
use crate::name::{Name, NameError};
use crate::record::{Gateway, Malformed, Source};

/// An `X-IPsec-Server` record.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ServerTxt {
    /// Lower is tried first.
    pub precedence: u16,
    /// Who speaks for the owner.
    pub gateway: TxtGateway,
    /// The gateway's key. Old peers may crash without one: always publish it.
    pub key: Option<RsaKey>,
}

/// A gateway as a TXT record can name it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum TxtGateway {
    /// This address.
    Address(IpAddr),
    /// `@name`: for initiators that identify themselves so.
    Name(Name),
}

/// Why a gateway's text was refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum GatewayError {
    /// Neither an address nor `@FQDN`.
    Syntax,
    /// `0.0.0.0` or `::`.
    Unspecified,
    /// The name after `@`.
    Name(NameError),
}

impl ServerTxt {
    /// Reads the character-strings of one TXT record; `None` if it is not ours.
    ///
    /// Strings may be split anywhere. Where a split stands for the blank between gateway and key,
    /// as the FreeS/WAN quickstart printed it, it is read as one.
    ///
    /// # Errors
    /// What is wrong with a record that is ours.
    pub fn from_strings<S: AsRef<[u8]>>(strings: &[S]) -> Result<Option<Self>, Malformed> {
        let mut text = Vec::new();
        let mut joints = Vec::new();
        for string in strings {
            joints.push(text.len());
            text.extend_from_slice(string.as_ref());
        }
        Self::from_text(&text, &joints).map_err(|why| Malformed { source: Source::Txt, why })
    }

    /// Reads RDATA: character-strings, each behind its length; `None` if it is not ours.
    ///
    /// # Errors
    /// What is wrong with a record that is ours. RDATA that is no TXT at all counts as not ours.
    pub fn from_rdata(rdata: &[u8]) -> Result<Option<Self>, Malformed> {
        match strings_of(rdata) {
            Some(strings) => Self::from_strings(&strings),
            None => Ok(None),
        }
    }

    /// The text, in one piece: `X-IPsec-Server(10)=192.0.2.11 AwEAA…`.
    #[must_use]
    pub fn text(&self) -> String {
        let head = self.head();
        match &self.key {
            Some(key) => format!("{head} {}", key.to_base64()),
            None => head,
        }
    }

    /// The character-strings as FreeS/WAN 2.x split them: everything in one if it fits into 255
    /// octets, otherwise the key in strings of its own, the first of which starts with the blank.
    #[must_use]
    pub fn strings(&self) -> Vec<Vec<u8>> {
        let text = self.text().into_bytes();
        if text.len() <= MAX_STRING {
            return vec![text];
        }
        // The head is at most 26 octets and a name of 254: too long only for names nobody has.
        let head = self.head().len();
        let (head, key) = match text.split_at_checked(head) {
            Some((head, key)) if head.len() < MAX_STRING => (head, key),
            _ => (&[][..], text.as_slice()),
        };
        let head = (!head.is_empty()).then(|| head.to_vec());
        head.into_iter().chain(key.chunks(MAX_STRING).map(<[u8]>::to_vec)).collect()
    }

    /// RDATA: the strings, each behind its length.
    #[must_use]
    pub fn to_rdata(&self) -> Vec<u8> {
        let mut rdata = Vec::new();
        for string in self.strings() {
            // At most MAX_STRING octets each.
            rdata.push(u8::try_from(string.len()).unwrap_or(0));
            rdata.extend_from_slice(&string);
        }
        rdata
    }

    /// The strings in quotation marks with a blank between, as they stand in a zone file.
    #[must_use]
    pub fn presentation(&self) -> String {
        let quoted = |s: &Vec<u8>| format!("\"{}\"", String::from_utf8_lossy(s));
        self.strings().iter().map(quoted).collect::<Vec<_>>().join(" ")
    }

    fn head(&self) -> String {
        format!("{ATTRIBUTE}({})={}", self.precedence, self.gateway)
    }

    fn from_text(text: &[u8], joints: &[usize]) -> Result<Option<Self>, &'static str> {
        let mut rest = Cursor { text, at: 0 };
        rest.skip_blanks();
        let ours = rest.take(ATTRIBUTE.len());
        if !ours.is_some_and(|name| name.eq_ignore_ascii_case(ATTRIBUTE.as_bytes())) {
            return Ok(None);
        }
        rest.skip_blanks();
        if rest.peek().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
            // A longer name that begins like ours.
            return Ok(None);
        }
        if text.contains(&0) {
            return Err("text: contains a NUL octet");
        }
        rest.expect(b'(').ok_or("precedence: no parenthesis after X-IPsec-Server")?;
        let precedence = rest.number()?;
        rest.expect(b')').ok_or("precedence: no closing parenthesis after the number")?;
        rest.expect(b'=').ok_or("gateway: no equals sign before it")?;
        rest.skip_blanks();
        let start = rest.at;
        let word = rest.word();
        let (gateway, key) = match TxtGateway::from_octets(word) {
            Ok(gateway) => (gateway, read_key(rest.remaining())),
            Err(error) => split_at_joint(text, start, joints).ok_or_else(|| error.why())?,
        };
        let key = key?;
        Ok(Some(Self { precedence, gateway, key }))
    }
}

type Key = Result<Option<RsaKey>, &'static str>;

/// Reads what follows the gateway.
fn read_key(text: &[u8]) -> Key {
    if text.iter().all(|b| is_blank(*b)) {
        return Ok(None);
    }
    RsaKey::from_base64(text).map(Some).map_err(|error| error.why())
}

/// Finds the join of two strings that stands for the blank between gateway and key: the last one
/// behind which there is a good key, else the last one that ends a gateway.
fn split_at_joint(text: &[u8], start: usize, joints: &[usize]) -> Option<(TxtGateway, Key)> {
    let mut fallback = None;
    for joint in joints.iter().rev() {
        let Some(len) = joint.checked_sub(start) else { break };
        if len == 0 || len > MAX_GATEWAY {
            continue;
        }
        let Some(Ok(gateway)) = text.get(start..*joint).map(TxtGateway::from_octets) else {
            continue;
        };
        let key = read_key(text.get(*joint..).unwrap_or(&[]));
        if key.is_ok() {
            return Some((gateway, key));
        }
        fallback.get_or_insert((gateway, key));
    }
    fallback
}

impl TxtGateway {
    fn from_octets(octets: &[u8]) -> Result<Self, GatewayError> {
        if octets.len() > MAX_GATEWAY {
            return Err(GatewayError::Name(NameError::TooLong));
        }
        std::str::from_utf8(octets).map_err(|_| GatewayError::Syntax)?.parse()
    }
}

impl FromStr for TxtGateway {
    type Err = GatewayError;

    /// Dotted IPv4, IPv6 or `@FQDN`.
    fn from_str(s: &str) -> Result<Self, GatewayError> {
        if let Some(name) = s.strip_prefix('@') {
            return name.parse().map(Self::Name).map_err(GatewayError::Name);
        }
        let addr: IpAddr = s.parse().map_err(|_| GatewayError::Syntax)?;
        if addr.is_unspecified() {
            return Err(GatewayError::Unspecified);
        }
        Ok(Self::Address(addr))
    }
}

impl fmt::Display for TxtGateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(addr) => addr.fmt(f),
            // Without the final dot, as the classic tools wrote and compared it.
            Self::Name(name) => write!(f, "@{}", name.without_dot()),
        }
    }
}

impl From<IpAddr> for TxtGateway {
    fn from(addr: IpAddr) -> Self {
        Self::Address(addr)
    }
}

impl From<TxtGateway> for Gateway {
    fn from(gateway: TxtGateway) -> Self {
        match gateway {
            TxtGateway::Address(addr) => Self::Address(addr),
            TxtGateway::Name(name) => Self::Name(name),
        }
    }
}

impl GatewayError {
    /// One clause that names the field.
    #[must_use]
    pub fn why(self) -> &'static str {
        match self {
            Self::Syntax => "gateway: neither an IPv4 or IPv6 address nor @FQDN",
            Self::Unspecified => "gateway: the unspecified address",
            Self::Name(NameError::Empty) => "gateway: empty name or label after @",
            Self::Name(NameError::TooLong) => "gateway: name or label too long",
            Self::Name(NameError::Character) => "gateway: a character that no host name has",
        }
    }
}

impl fmt::Display for GatewayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.why())
    }
}

impl std::error::Error for GatewayError {}

/// The character-strings of TXT RDATA; `None` if a length leads beyond the end.
#[must_use]
pub fn strings_of(rdata: &[u8]) -> Option<Vec<&[u8]>> {
    let mut strings = Vec::new();
    let mut rest = rdata;
    while let [len, tail @ ..] = rest {
        let (string, tail) = tail.split_at_checked(usize::from(*len))?;
        strings.push(string);
        rest = tail;
    }
    Some(strings)
}

/// A place in the text.
struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn remaining(&self) -> &'a [u8] {
        self.text.get(self.at..).unwrap_or(&[])
    }

    fn peek(&self) -> Option<u8> {
        self.remaining().first().copied()
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let taken = self.remaining().get(..len)?;
        self.at += len;
        Some(taken)
    }

    fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = self.remaining();
        let len = rest.iter().position(|b| !wanted(*b)).unwrap_or(rest.len());
        self.take(len).unwrap_or(&[])
    }

    fn skip_blanks(&mut self) {
        self.take_while(is_blank);
    }

    fn word(&mut self) -> &'a [u8] {
        self.take_while(|b| !is_blank(b))
    }

    /// Blanks, then this octet.
    fn expect(&mut self, octet: u8) -> Option<()> {
        self.skip_blanks();
        (self.take(1)? == [octet]).then_some(())
    }

    /// A number as C's `strtoul` with base 0 reads it: Pluto accepted `0x10` and octal `010`.
    fn number(&mut self) -> Result<u16, &'static str> {
        self.skip_blanks();
        let digits = self.take_while(|b| b.is_ascii_alphanumeric());
        let digits = std::str::from_utf8(digits).map_err(|_| NO_NUMBER)?;
        let (digits, radix) = match digits.as_bytes() {
            [b'0', b'x' | b'X', ..] => (digits.get(2..).unwrap_or(""), 16),
            [b'0', _, ..] => (digits.get(1..).unwrap_or(""), 8),
            _ => (digits, 10),
        };
        if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
            return Err(NO_NUMBER);
        }
        u16::from_str_radix(digits, radix).map_err(|_| "precedence: above 65535")
    }
}

const NO_NUMBER: &str = "precedence: not a number";

const ATTRIBUTE: &str = "X-IPsec-Server";

/// A character-string's limit (RFC 1035 §3.3).
const MAX_STRING: usize = 255;

/// `@`, a name of 253 octets and its final dot.
const MAX_GATEWAY: usize = 255;

#[cfg(test)]
mod tests;
