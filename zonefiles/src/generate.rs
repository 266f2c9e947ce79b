//! Records for very many hosts, as text, without holding them: what is the same for each is
//! prepared once, and a host costs a few copies.
//!
//! A [`Stamp`] is the prepared text of what one kind of host publishes; a [`ZoneText`] writes a
//! zone's beginning, stamped hosts and its end in one of the [`Format`]s.

use std::io::{self, Write};
use std::net::IpAddr;
use std::str::FromStr;

use dnskeys::{Gateway, RsaKey};

use crate::host::{Host, Kinds};
use crate::name::Name;
use crate::record::Record;
use crate::reverse::{ReverseZone, write_octet};
use crate::rtype::Rtype;
use crate::zone::{Apex, Zone};

/// Whom the text is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// A master file (RFC 1035 §5). BIND, NSD and Knot read the same; only the hint at the top
    /// says how each is told of it.
    Master(Server),
    /// One JSON object for each zone, whose `records` are rows of PowerDNS's `records` table.
    PowerDns,
    /// Commands for nsupdate(1), in batches that fit into one message.
    Nsupdate,
}

/// Servers of master files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Server {
    /// BIND 9.
    Bind,
    /// NSD 4.
    Nsd,
    /// Knot DNS 3.
    Knot,
}

/// What hosts publish, with the parts that differ from host to host left open.
#[derive(Clone, Debug)]
pub struct Stamp {
    lines: Vec<StampedLine>,
}

#[derive(Clone, Debug)]
struct StampedLine {
    pieces: Vec<Piece>,
    /// What to write instead if the text with this host's address does not fit into one string.
    split: Option<(usize, Vec<Piece>)>,
    needs_name: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Piece {
    Text(Vec<u8>),
    Owner,
    Address,
    Name,
}

/// The name of a host, made from its address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NameTemplate {
    parts: Vec<TemplatePart>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum TemplatePart {
    Text(String),
    Dashed,
    Hex,
    Octet(usize),
}

/// A template that is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TemplateError {
    /// Not one of the placeholders.
    #[error("expected {{dashed}}, {{hex}} or {{1}} to {{4}} in braces")]
    Placeholder,
    /// What it makes is no host name.
    #[error("the template makes no valid host name")]
    Name,
}

/// Writes zones one after the other.
pub struct ZoneText<W: Write> {
    out: W,
    format: Format,
    buffer: Vec<u8>,
    owner: Vec<u8>,
    address: Vec<u8>,
    name: Vec<u8>,
    /// nsupdate: octets since the last `send`. PowerDNS: records so far.
    since: usize,
    written: u64,
}

impl Stamp {
    /// Prepares what hosts with this gateway and key publish. Which address and, if `named`, which
    /// name, is stamped later.
    #[must_use]
    pub fn new(
        gateway: &Gateway,
        key: Option<&RsaKey>,
        precedence: u16,
        ttl: u32,
        kinds: Kinds,
        named: bool,
        format: Format,
    ) -> Self {
        let mut lines = Vec::new();
        if named && kinds.ptr {
            let mut pieces = before(Rtype::PTR, ttl, format);
            pieces.push(Piece::Name);
            lines.push(finish(pieces, format, None, true));
        }
        // The address is only a place holder here.
        let address = IpAddr::from([0, 0, 0, 0]);
        let host =
            Host { address, name: None, gateway: gateway.clone(), key: key.cloned(), precedence };
        if key.is_none() && *gateway == Gateway::Own {
            return Self { lines };
        }
        if kinds.txt {
            lines.push(txt_line(&host, ttl, format));
        }
        if kinds.ipseckey {
            let mut pieces = before(Rtype::IPSECKEY, ttl, format);
            pieces.push(Piece::Text(host.ipseckey().presentation().into_bytes()));
            lines.push(finish(pieces, format, None, false));
        }
        Self { lines }
    }
}

impl FromStr for NameTemplate {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        Self::parse(text)
    }
}

impl NameTemplate {
    /// Reads `host-{dashed}.example.net`: `{dashed}` is `192-0-2-11` (IPv6: its 32 digits), `{hex}`
    /// is `c000020b`, `{1}` to `{4}` are the octets.
    ///
    /// # Errors
    /// See [`TemplateError`].
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = text.strip_suffix('.').unwrap_or(text);
        while let Some((literal, tail)) = rest.split_once('{') {
            let (inside, tail) = tail.split_once('}').ok_or(TemplateError::Placeholder)?;
            parts.push(TemplatePart::Text(literal.to_owned()));
            parts.push(match inside {
                "dashed" => TemplatePart::Dashed,
                "hex" => TemplatePart::Hex,
                "1" => TemplatePart::Octet(0),
                "2" => TemplatePart::Octet(1),
                "3" => TemplatePart::Octet(2),
                "4" => TemplatePart::Octet(3),
                _ => return Err(TemplateError::Placeholder),
            });
            rest = tail;
        }
        parts.push(TemplatePart::Text(format!("{rest}.")));
        let template = Self { parts };
        for longest in [IpAddr::from([255, 255, 255, 255]), IpAddr::from([0xffff_u16; 8])] {
            let mut name = Vec::new();
            template.write(&mut name, longest);
            let name = std::str::from_utf8(&name).map_err(|_| TemplateError::Name)?;
            name.parse::<dnskeys::Name>().map_err(|_| TemplateError::Name)?;
        }
        Ok(template)
    }

    /// Whether every host gets a name of its own.
    #[must_use]
    pub fn varies(&self) -> bool {
        self.parts.iter().any(|part| !matches!(part, TemplatePart::Text(_)))
    }

    /// The name for an address.
    #[must_use]
    pub fn name(&self, address: IpAddr) -> Name {
        let mut text = Vec::new();
        self.write(&mut text, address);
        // Checked when it was read.
        Name::parse(&text, Some(&Name::root())).unwrap_or_else(|_| Name::root())
    }

    fn write(&self, out: &mut Vec<u8>, address: IpAddr) {
        for part in &self.parts {
            match (part, address) {
                (TemplatePart::Text(text), _) => out.extend_from_slice(text.as_bytes()),
                (TemplatePart::Dashed, IpAddr::V4(a)) => {
                    for (i, octet) in a.octets().into_iter().enumerate() {
                        if i > 0 {
                            out.push(b'-');
                        }
                        write_octet(out, octet);
                    }
                }
                (TemplatePart::Hex, IpAddr::V4(a)) => {
                    let _ = write!(out, "{:08x}", a.to_bits());
                }
                (TemplatePart::Dashed | TemplatePart::Hex, IpAddr::V6(a)) => {
                    let _ = write!(out, "{:032x}", a.to_bits());
                }
                (TemplatePart::Octet(i), IpAddr::V4(a)) => {
                    write_octet(out, a.octets().get(*i).copied().unwrap_or(0));
                }
                (TemplatePart::Octet(i), IpAddr::V6(a)) => {
                    let _ = write!(out, "{:x}", a.segments().get(4 + *i).copied().unwrap_or(0));
                }
            }
        }
    }
}

impl<W: Write> ZoneText<W> {
    /// Writes to `out`, in large pieces of its own: no other buffer is needed.
    pub fn new(out: W, format: Format) -> Self {
        Self {
            out,
            format,
            buffer: Vec::with_capacity(BUFFER + BUFFER / 4),
            owner: Vec::new(),
            address: Vec::new(),
            name: Vec::new(),
            since: 0,
            written: 0,
        }
    }

    /// Starts a zone: SOA and NS of `apex`, or without it a fragment for `$INCLUDE`.
    ///
    /// # Errors
    /// What `out` fails with.
    pub fn begin(&mut self, origin: &Name, apex: Option<&Apex>) -> io::Result<()> {
        self.since = 0;
        match self.format {
            Format::Master(server) => {
                if apex.is_some() {
                    let hint = hint(server, origin);
                    self.buffer.extend_from_slice(hint.as_bytes());
                }
                writeln!(self.buffer, "$ORIGIN {origin}")?;
            }
            Format::PowerDns => {
                let name = json_escaped(without_dot(&origin.to_string()));
                write!(self.buffer, "{{\"zone\":\"{name}\",\"records\":[")?;
            }
            Format::Nsupdate => writeln!(self.buffer, "zone {origin}")?,
        }
        if let Some(apex) = apex {
            for record in Zone::new(origin.clone(), apex).records {
                self.record(origin, &record)?;
            }
        }
        Ok(())
    }

    /// Ends a zone.
    ///
    /// # Errors
    /// What `out` fails with.
    pub fn end(&mut self) -> io::Result<()> {
        match self.format {
            Format::Master(_) => {}
            Format::PowerDns => self.buffer.extend_from_slice(b"\n]}\n"),
            Format::Nsupdate if self.since > 0 => self.buffer.extend_from_slice(b"send\n"),
            Format::Nsupdate => {}
        }
        self.since = 0;
        self.spill(0)
    }

    /// One record of any type.
    ///
    /// # Errors
    /// What `out` fails with.
    pub fn record(&mut self, origin: &Name, record: &Record) -> io::Result<()> {
        let mut owner = String::new();
        let rdata = match self.format {
            Format::Master(_) => {
                let _ = record.owner.write_relative(&mut owner, origin);
                record.rdata_text(&Name::root())
            }
            Format::PowerDns => {
                owner = json_escaped(without_dot(&record.owner.to_string()));
                powerdns_content(record)
            }
            Format::Nsupdate => {
                owner = record.owner.to_string();
                record.rdata_text(&Name::root())
            }
        };
        let mut pieces = before(record.rtype, record.ttl, self.format);
        pieces.push(Piece::Text(rdata.into_bytes()));
        let line = finish(pieces, self.format, None, false);
        self.owner.clear();
        self.owner.extend_from_slice(owner.as_bytes());
        self.line(&line)?;
        self.spill(BUFFER)
    }

    /// One host, stamped. `name` is needed only if the stamp has PTR records.
    ///
    /// # Errors
    /// What `out` fails with.
    pub fn host(
        &mut self,
        zone: &ReverseZone,
        suffix: &OwnerSuffix,
        address: IpAddr,
        stamp: &Stamp,
        name: Option<&NameTemplate>,
    ) -> io::Result<()> {
        self.owner.clear();
        zone.write_own_labels(&mut self.owner, address);
        self.owner.extend_from_slice(&suffix.0);
        self.address.clear();
        match address {
            IpAddr::V4(a) => {
                for (i, octet) in a.octets().into_iter().enumerate() {
                    if i > 0 {
                        self.address.push(b'.');
                    }
                    write_octet(&mut self.address, octet);
                }
            }
            IpAddr::V6(a) => write!(self.address, "{a}")?,
        }
        self.name.clear();
        if let Some(template) = name {
            template.write(&mut self.name, address);
            if self.format == Format::PowerDns {
                self.name.pop();
            }
        }
        for line in &stamp.lines {
            if !line.needs_name || name.is_some() {
                self.line(line)?;
            }
        }
        self.spill(BUFFER)
    }

    /// Writes what is left and gives the memory back, until more comes.
    ///
    /// # Errors
    /// What the output fails with.
    pub fn park(&mut self) -> io::Result<&mut W> {
        self.spill(0)?;
        self.buffer = Vec::new();
        Ok(&mut self.out)
    }

    /// Octets written so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Writes what is left and gives back where it went.
    ///
    /// # Errors
    /// What `out` fails with.
    pub fn finish(mut self) -> io::Result<W> {
        self.spill(0)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn line(&mut self, line: &StampedLine) -> io::Result<()> {
        let start = self.buffer.len();
        match self.format {
            Format::Master(_) => {}
            Format::PowerDns => {
                self.buffer.extend_from_slice(if self.since == 0 { b"\n" } else { b",\n" });
            }
            Format::Nsupdate if self.since > MAX_UPDATE => {
                self.buffer.extend_from_slice(b"send\n");
                self.since = 0;
            }
            Format::Nsupdate => {}
        }
        let pieces = match &line.split {
            Some((room, pieces)) if self.address.len() > *room => pieces,
            _ => &line.pieces,
        };
        for piece in pieces {
            self.buffer.extend_from_slice(match piece {
                Piece::Text(text) => text,
                Piece::Owner => &self.owner,
                Piece::Address => &self.address,
                Piece::Name => &self.name,
            });
        }
        self.since += self.buffer.len() - start;
        Ok(())
    }

    fn spill(&mut self, above: usize) -> io::Result<()> {
        if self.buffer.len() > above {
            self.out.write_all(&self.buffer)?;
            self.written += u64::try_from(self.buffer.len()).unwrap_or(0);
            self.buffer.clear();
        }
        Ok(())
    }
}

/// What follows a host's own labels in a format; made once for a zone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnerSuffix(Vec<u8>);

impl OwnerSuffix {
    /// The suffix for a zone.
    #[must_use]
    pub fn new(zone: &ReverseZone, format: Format) -> Self {
        let origin = zone.origin.to_string();
        Self(match format {
            Format::Master(_) => Vec::new(),
            Format::PowerDns => format!(".{}", json_escaped(without_dot(&origin))).into_bytes(),
            Format::Nsupdate => format!(".{origin}").into_bytes(),
        })
    }
}

/// The line up to its RDATA.
fn before(rtype: Rtype, ttl: u32, format: Format) -> Vec<Piece> {
    let text = |text: String| Piece::Text(text.into_bytes());
    match format {
        Format::Master(_) => vec![Piece::Owner, text(format!("\t{ttl}\tIN\t{rtype}\t"))],
        Format::PowerDns => vec![
            text("{\"name\":\"".to_owned()),
            Piece::Owner,
            text(format!("\",\"type\":\"{rtype}\",\"ttl\":{ttl},\"content\":\"")),
        ],
        Format::Nsupdate => {
            vec![text("update add ".to_owned()), Piece::Owner, text(format!(" {ttl} IN {rtype} "))]
        }
    }
}

/// The line behind its RDATA; what is in RDATA is escaped for JSON.
fn finish(
    pieces: Vec<Piece>,
    format: Format,
    split: Option<(usize, Vec<Piece>)>,
    needs_name: bool,
) -> StampedLine {
    let close = |mut pieces: Vec<Piece>| {
        if format == Format::PowerDns {
            for piece in pieces.iter_mut().skip(3) {
                if let Piece::Text(text) = piece {
                    *text = json_escaped(&String::from_utf8_lossy(text)).into_bytes();
                }
            }
        }
        let end: &[u8] = match format {
            Format::Master(_) | Format::Nsupdate => b"\n",
            Format::PowerDns => b"\"}",
        };
        pieces.push(Piece::Text(end.to_vec()));
        merged(pieces)
    };
    let split = split.map(|(room, pieces)| (room, close(pieces)));
    StampedLine { pieces: close(pieces), split, needs_name }
}

/// `X-IPsec-Server`: as one string if it fits, else split before the key; which of the two can
/// depend on the length of the address.
fn txt_line(host: &Host, ttl: u32, format: Format) -> StampedLine {
    if host.gateway != Gateway::Own {
        let mut pieces = before(Rtype::TXT, ttl, format);
        pieces.push(Piece::Text(host.server_txt().presentation().into_bytes()));
        return finish(pieces, format, None, false);
    }
    let head = format!("X-IPsec-Server({})=", host.precedence);
    let key = host.key.as_ref().map(|key| format!(" {}", key.to_base64())).unwrap_or_default();
    let text = |text: &str| Piece::Text(text.as_bytes().to_vec());
    let mut one = before(Rtype::TXT, ttl, format);
    one.extend([text(&format!("\"{head}")), Piece::Address, text(&format!("{key}\""))]);
    let mut many = before(Rtype::TXT, ttl, format);
    let strings: Vec<String> = key
        .as_bytes()
        .chunks(MAX_STRING)
        .map(|chunk| format!(" \"{}\"", String::from_utf8_lossy(chunk)))
        .collect();
    many.extend([
        text(&format!("\"{head}")),
        Piece::Address,
        text(&format!("\"{}", strings.concat())),
    ]);
    match MAX_STRING.checked_sub(head.len() + key.len()) {
        Some(room) => finish(one, format, Some((room, many)), false),
        None => finish(many, format, None, false),
    }
}

/// Adjacent texts as one: a host then costs fewer copies.
fn merged(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut merged: Vec<Piece> = Vec::with_capacity(pieces.len());
    for piece in pieces {
        match (merged.last_mut(), piece) {
            (Some(Piece::Text(before)), Piece::Text(text)) => before.extend_from_slice(&text),
            (_, piece) => merged.push(piece),
        }
    }
    merged
}

/// PowerDNS stores names without the final dot.
fn powerdns_content(record: &Record) -> String {
    let text = record.rdata_text(&Name::root());
    if record.rtype.fields().is_some_and(|fields| fields.contains(&crate::rtype::Field::Name)) {
        return text.split(' ').map(without_dot).collect::<Vec<_>>().join(" ");
    }
    text
}

fn without_dot(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

fn json_escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

fn hint(server: Server, origin: &Name) -> String {
    let name = without_dot(&origin.to_string()).to_owned();
    let file = format!("{}.zone", name.replace('/', "_"));
    match server {
        Server::Bind => {
            format!("; named.conf: zone \"{name}\" {{ type primary; file \"{file}\"; }};\n")
        }
        Server::Nsd => format!("; nsd.conf: zone: name: \"{name}\" zonefile: \"{file}\"\n"),
        Server::Knot => format!("; knot.conf: zone: - domain: {name} file: {file}\n"),
    }
}

/// Pieces that a pipe and a disk both take well.
const BUFFER: usize = 256 * 1024;
/// nsupdate sends one message at `send`, which is at most 65535 octets. Text is longer than wire
/// form, so this leaves room.
const MAX_UPDATE: usize = 48 * 1024;
/// RFC 1035 §3.3.
const MAX_STRING: usize = 255;

#[cfg(test)]
mod tests;
