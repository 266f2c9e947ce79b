//! Customer lists: one row for an address or a prefix, from CSV, JSON or TOML, with the place of
//! every field, so that an error in line 7 of a million says so.

mod csv;
mod structured;

use std::collections::HashMap;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use dnskeys::{Gateway, Name, RsaKey};
use zonefiles::Prefix;
use zonefiles::generate::NameTemplate;

use crate::hostkey;

/// A field and where it stands; columns count from 1.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub(crate) text: String,
    pub(crate) line: u32,
    pub(crate) column: u32,
}

/// The fields of one row, in the order of [`COLUMNS`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Row {
    pub(crate) line: u32,
    pub(crate) fields: [Option<Field>; COLUMNS.len()],
}

/// What a row can say.
pub(crate) const COLUMNS: [&str; 7] =
    ["address", "name", "gateway", "key", "precedence", "extruded-to", "ttl"];

/// What is wrong with a row, and where.
#[derive(Debug)]
pub(crate) struct RowError {
    pub(crate) line: u32,
    pub(crate) column: u32,
    pub(crate) what: String,
}

/// A row understood: one host or a prefix of them.
#[derive(Clone, Debug)]
pub(crate) struct Customer {
    pub(crate) line: u32,
    /// Where the address stands.
    pub(crate) column: u32,
    pub(crate) prefix: Prefix,
    pub(crate) name: Option<NameTemplate>,
    pub(crate) gateway: Gateway,
    pub(crate) key: Option<Arc<RsaKey>>,
    pub(crate) precedence: u16,
    pub(crate) ttl: Option<u32>,
}

/// What a row that does not say it gets.
#[derive(Clone, Debug)]
pub(crate) struct Defaults {
    pub(crate) name: Option<NameTemplate>,
    pub(crate) gateway: Gateway,
    pub(crate) key: Option<Arc<RsaKey>>,
    pub(crate) precedence: u16,
}

/// A list being read.
pub(crate) struct List {
    name: String,
    rows: Box<dyn Iterator<Item = Result<Row, RowError>>>,
    keys: KeyFiles,
}

/// Keys that rows name by file, read once.
struct KeyFiles {
    directory: PathBuf,
    known: HashMap<String, Arc<RsaKey>>,
}

impl List {
    /// Opens a list; what it is, its name's ending tells. `-` is CSV on standard input.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let name = path.display().to_string();
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("");
        let input: Box<dyn BufRead> = if name == "-" {
            Box::new(BufReader::new(io::stdin()))
        } else {
            let file = fs::File::open(path).with_context(|| format!("cannot read {name}"))?;
            Box::new(BufReader::with_capacity(BUFFER, file))
        };
        let rows: Box<dyn Iterator<Item = _>> = match extension {
            "json" | "jsonl" | "ndjson" => structured::json(input),
            "toml" => structured::toml(input),
            _ => Box::new(csv::Rows::new(input)),
        };
        let directory = path.parent().map(Path::to_owned).unwrap_or_default();
        Ok(Self { name, rows, keys: KeyFiles { directory, known: HashMap::new() } })
    }

    /// The list's name in messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The next row, completed by what it leaves out.
    pub(crate) fn next(&mut self, defaults: &Defaults) -> Option<Result<Customer, RowError>> {
        let row = match self.rows.next()? {
            Ok(row) => row,
            Err(e) => return Some(Err(e)),
        };
        Some(self.keys.customer(&row, defaults))
    }
}

impl KeyFiles {
    fn customer(&mut self, row: &Row, defaults: &Defaults) -> Result<Customer, RowError> {
        let [address, name, gateway, key, precedence, extruded, ttl] = &row.fields;
        let Some(address) = address else {
            let what = "no address: expected ADDRESS or PREFIX/LENGTH".to_owned();
            return Err(RowError { line: row.line, column: 1, what });
        };
        let prefix: Prefix = address.parse("address")?;
        let gateway_field = match (gateway, extruded) {
            (Some(gateway), Some(extruded)) if gateway.text != extruded.text => {
                return Err(extruded.error("extruded-to and gateway differ: give one of them"));
            }
            // An extruded address is spoken for by the gateway it was lent to (RFC 4322 §7).
            (gateway, extruded) => extruded.as_ref().or(gateway.as_ref()),
        };
        let gateway = match gateway_field {
            Some(field) => parse_gateway(&field.text).map_err(|e| field.error(&e))?,
            None => defaults.gateway.clone(),
        };
        let key = match key {
            Some(field) => Some(self.key(field)?),
            None => defaults.key.clone(),
        };
        let name = match name {
            Some(field) => Some(
                NameTemplate::parse(&field.text).map_err(|e| field.error(&format!("name: {e}")))?,
            ),
            None => defaults.name.clone(),
        };
        let number = |field: &Option<Field>, what: &str| {
            field.as_ref().map(|f| f.parse::<u32>(what)).transpose()
        };
        let precedence = match number(precedence, "precedence: expected a number up to 65535")? {
            Some(number) => u16::try_from(number).map_err(|_| {
                let field = precedence.as_ref();
                field.map_or_else(
                    || RowError { line: row.line, column: 1, what: String::new() },
                    |f| f.error("precedence: expected a number up to 65535"),
                )
            })?,
            None => defaults.precedence,
        };
        let ttl_field = ttl;
        let ttl = number(ttl, "ttl: expected seconds")?;
        if let (Some(field), true) = (ttl_field, ttl > Some(MAX_TTL)) {
            return Err(field.error("ttl: above 2147483647 (RFC 2181 §8)"));
        }
        let (line, column) = (address.line, address.column);
        Ok(Customer { line, column, prefix, name, gateway, key, precedence, ttl })
    }

    /// Base 64 as it stands in DNS, or a PEM file, relative to the list.
    fn key(&mut self, field: &Field) -> Result<Arc<RsaKey>, RowError> {
        let text = field.text.trim();
        let is_path = text.contains('.') || text.starts_with('/');
        if !is_path {
            let key = RsaKey::from_base64(text.as_bytes()).map_err(|e| field.error(e.why()))?;
            return Ok(Arc::new(key));
        }
        if let Some(key) = self.known.get(text) {
            return Ok(Arc::clone(key));
        }
        let key =
            read_key(&self.directory.join(text)).map_err(|e| field.error(&format!("{e:#}")))?;
        if self.known.len() < MAX_KEY_FILES {
            self.known.insert(text.to_owned(), Arc::clone(&key));
        }
        Ok(key)
    }
}

impl Field {
    fn error(&self, what: &str) -> RowError {
        RowError { line: self.line, column: self.column, what: what.to_owned() }
    }

    fn parse<T: std::str::FromStr>(&self, what: &str) -> Result<T, RowError>
    where
        T::Err: std::fmt::Display,
    {
        self.text.trim().parse().map_err(|e| self.error(&format!("{what}: {e}")))
    }
}

/// An RSA key from PEM, private or public.
pub(crate) fn read_key(path: &Path) -> anyhow::Result<Arc<RsaKey>> {
    let name = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
    let key = RsaKey::from_pem(&text).map_err(|e| match hostkey::load_public(path) {
        // It is in order, and no TXT record can carry it.
        Ok(key) => anyhow::anyhow!("{name}: {}: not an RSA key", key.algorithm_name()),
        Err(_) => anyhow::anyhow!("{name}: {e}"),
    })?;
    Ok(Arc::new(key))
}

/// `192.0.2.11`, `2001:db8::1`, `@gw.example.net` or `self`.
pub(crate) fn parse_gateway(text: &str) -> Result<Gateway, String> {
    let text = text.trim();
    if text == "self" {
        return Ok(Gateway::Own);
    }
    if let Some(name) = text.strip_prefix('@') {
        return name.parse::<Name>().map(Gateway::Name).map_err(|e| format!("gateway: {e}"));
    }
    text.parse::<IpAddr>()
        .map(Gateway::Address)
        .map_err(|_| "gateway: expected an address, @FQDN or self".to_owned())
}

/// Large enough that reading is not what takes the time.
const BUFFER: usize = 256 * 1024;
/// Of a TTL (RFC 2181 §8).
pub(crate) const MAX_TTL: u32 = i32::MAX.unsigned_abs();
/// A list that names more files than that reads some of them again.
const MAX_KEY_FILES: usize = 4096;
