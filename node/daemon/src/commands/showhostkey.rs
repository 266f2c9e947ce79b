//! `oe-node showhostkey`: the host's public key in the forms in which it is published, byte for
//! byte as the classic tools printed them.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use dnskeys::{
    Gateway, Ipseckey, Name, OldKey, PublicKey, RsaKey, ServerTxt, TxtGateway, ipseckey, old_key,
};
use serde_json::json;

use crate::config::Config;
use crate::hostkey;

/// Arguments of `oe-node showhostkey`.
#[derive(clap::Args)]
#[command(
    group = clap::ArgGroup::new("form").multiple(false),
    after_help = "Exit status: 0 printed, 1 no usable key or gateway, 2 wrong options."
)]
pub(crate) struct Args {
    /// TXT record that names this gateway: the host's own address, its gateway's, or @FQDN. RSA only.
    #[arg(long, value_name = "GW", group = "form")]
    txt: Option<String>,
    /// IPSECKEY record (RFC 4025).
    #[arg(long, group = "form")]
    ipseckey: bool,
    /// KEY record, as FreeS/WAN before 2.01 looked it up.
    #[arg(long, group = "form")]
    key: bool,
    /// leftrsasigkey line for ipsec.conf; leftpubkey for keys that are not RSA.
    #[arg(long, group = "form")]
    left: bool,
    /// rightrsasigkey line for ipsec.conf; rightpubkey for keys that are not RSA.
    #[arg(long, group = "form")]
    right: bool,
    /// PEM, SubjectPublicKeyInfo.
    #[arg(long, group = "form")]
    pem: bool,
    /// Key id and CKAID.
    #[arg(long, visible_alias = "dump", group = "form")]
    list: bool,
    /// Gateway of the IPSECKEY record: an address or a name; without it the owner itself.
    #[arg(long, value_name = "GW")]
    gateway: Option<String>,
    /// The key, private or public, PEM [default: from the configuration].
    #[arg(long, alias = "file", value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Configuration file [default: /etc/oe-node/oe-node.toml if it exists].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Lower is tried first; up to 65535 for TXT, 255 for IPSECKEY.
    #[arg(long, value_name = "N", default_value_t = 10)]
    precedence: u16,
    /// The record's name; an address stands for its reverse name.
    #[arg(long, value_name = "NAME")]
    owner: Option<String>,
    /// How the record is written.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// How a record is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
enum Format {
    /// As the classic tools printed it, for BIND.
    #[default]
    Bind,
    /// One line with its full name, for NSD, Knot and others.
    Nsd,
    /// RFC 3597, for servers that do not know the type.
    Raw,
    /// For programs.
    Json,
}

/// What went wrong, and the classic exit status for it.
enum Failure {
    /// 2: the command line.
    Usage(String),
    /// 1: everything else.
    Other(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

/// Runs the command.
pub(crate) fn main(args: Args) -> ExitCode {
    let (text, status) = match show(&args) {
        Ok(text) => match io::stdout().write_all(text.as_bytes()) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(error) => (format!("standard output: {error}"), 1),
        },
        Err(Failure::Usage(text)) => (text, 2),
        Err(Failure::Other(error)) => (format!("{error:#}"), 1),
    };
    let _ = writeln!(io::stderr(), "oe-node showhostkey: {text}");
    ExitCode::from(status)
}

/// Reads a gateway as the classic option took it.
pub(super) fn parse_gateway(text: &str) -> anyhow::Result<TxtGateway> {
    text.parse().map_err(|error: dnskeys::GatewayError| match error {
        dnskeys::GatewayError::Syntax => {
            anyhow::anyhow!("gateway must be @FQDN or an IPv4 or IPv6 address, not \"{text}\"")
        }
        error => anyhow::anyhow!("{error}: \"{text}\""),
    })
}

fn show(args: &Args) -> Result<String, Failure> {
    let usage = |text: &str| Err(Failure::Usage(text.to_owned()));
    let forms = [args.ipseckey, args.key, args.left, args.right, args.pem, args.list];
    if args.txt.is_none() && !forms.contains(&true) {
        return usage("must specify a format for the result");
    }
    if args.txt.as_deref() == Some("") {
        return usage("--txt gateway value cannot be empty");
    }
    if args.gateway.is_some() && !args.ipseckey {
        return usage("--gateway goes with --ipseckey only; --txt names its gateway itself");
    }
    let txt_gateway = args.txt.as_deref().map(parse_gateway).transpose()?;
    let owner = args.owner.as_deref().map(parse_owner).transpose()?;
    let key_file = match &args.key_file {
        Some(file) => file.clone(),
        None => Config::load(args.config.as_deref())?.key_file(),
    };
    let key = hostkey::load_public(&key_file)?;
    if let Some(gateway) = txt_gateway {
        let key = Some(only_rsa(&key, "a TXT")?.clone());
        let record = ServerTxt { precedence: args.precedence, gateway, key };
        return Ok(show_txt(&record, owner, args.format));
    }
    if args.ipseckey {
        let Ok(precedence) = u8::try_from(args.precedence) else {
            return usage("--precedence of an IPSECKEY record is at most 255");
        };
        let gateway = match args.gateway.as_deref() {
            None => Gateway::Own,
            Some(text) => parse_ipseckey_gateway(text)?,
        };
        let record = Ipseckey { precedence, gateway, key: Some(key) };
        return Ok(show_ipseckey(&record, owner, args.format));
    }
    if args.key {
        return Ok(show_key(only_rsa(&key, "a KEY")?, owner, args.format));
    }
    if args.format == Format::Json {
        return Ok(line(&describe(&key)));
    }
    Ok(match (args.left, args.right, args.pem) {
        (true, ..) => show_side("left", &key)?,
        (_, true, _) => show_side("right", &key)?,
        (.., true) => key.to_pem()?,
        _ => {
            let ckaid = key.rsa().map_or_else(String::new, |rsa| format!(" ckaid: {}", ckaid(rsa)));
            format!("< 1> {} keyid: {}{ckaid}\n", key.algorithm_name(), key.key_id())
        }
    })
}

/// The records before IPSECKEY know no other kind of key.
fn only_rsa<'a>(key: &'a PublicKey, record: &str) -> Result<&'a RsaKey, Failure> {
    let Some(rsa) = key.rsa() else {
        return Err(Failure::Other(anyhow::anyhow!(
            "{record} record carries RSA keys only, and this is an {} key; use --ipseckey",
            key.algorithm_name()
        )));
    };
    Ok(rsa)
}

/// An address stands for its reverse name.
fn parse_owner(text: &str) -> anyhow::Result<Name> {
    match text.parse::<IpAddr>() {
        Ok(addr) => Ok(Name::reverse(addr)),
        Err(_) => match text.parse() {
            Ok(name) => Ok(name),
            Err(error) => bail!("owner must be a name or an address, not \"{text}\": {error}"),
        },
    }
}

fn parse_ipseckey_gateway(text: &str) -> anyhow::Result<Gateway> {
    if text == "." {
        return Ok(Gateway::Own);
    }
    match text.parse::<IpAddr>() {
        Ok(addr) if !addr.is_unspecified() => Ok(Gateway::Address(addr)),
        _ => match text.strip_prefix('@').unwrap_or(text).parse() {
            // "300.0.0.1" would pass for a name.
            Ok(name) if !looks_numeric(text) => Ok(Gateway::Name(name)),
            _ => bail!("gateway must be a name or an IPv4 or IPv6 address, not \"{text}\""),
        },
    }
}

fn looks_numeric(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

/// A record in the forms that all types share.
struct Shown {
    owner: Option<Name>,
    /// Where a stranger looks for it.
    default_owner: Name,
    kind: &'static str,
    number: u16,
    presentation: String,
    rdata: Vec<u8>,
    key: PublicKey,
    precedence: Option<u16>,
    gateway: Option<String>,
}

impl Shown {
    /// `classic` makes the line of the old tool from the owner, if one was given.
    fn print(self, format: Format, classic: impl FnOnce(Option<&Name>, &str) -> String) -> String {
        let owner = self.owner.as_ref().unwrap_or(&self.default_owner);
        match format {
            Format::Bind => classic(self.owner.as_ref(), &self.presentation),
            Format::Nsd => format!("{owner} IN {} {}\n", self.kind, self.presentation),
            Format::Raw => format!(
                "{owner}\tIN\tTYPE{}\t\\# {} {}\n",
                self.number,
                self.rdata.len(),
                hex(&self.rdata)
            ),
            Format::Json => {
                let mut object = describe(&self.key);
                if let Some(map) = object.as_object_mut() {
                    map.insert("owner".into(), owner.as_str().into());
                    map.insert("type".into(), self.kind.into());
                    if let Some(precedence) = self.precedence {
                        map.insert("precedence".into(), precedence.into());
                    }
                    if let Some(gateway) = &self.gateway {
                        map.insert("gateway".into(), gateway.as_str().into());
                    }
                    map.insert("presentation".into(), self.presentation.as_str().into());
                    map.insert("rdata".into(), hex(&self.rdata).into());
                }
                line(&object)
            }
        }
    }
}

/// FreeS/WAN 2.x: no owner unless one is asked for, tabs between.
fn show_txt(record: &ServerTxt, owner: Option<Name>, format: Format) -> String {
    let Some(key) = &record.key else { return String::new() };
    let default_owner = match &record.gateway {
        TxtGateway::Address(addr) => Name::reverse(*addr),
        TxtGateway::Name(name) => name.clone(),
    };
    let shown = Shown {
        owner,
        default_owner,
        kind: "TXT",
        number: 16,
        presentation: record.presentation(),
        rdata: record.to_rdata(),
        key: key.clone().into(),
        precedence: Some(record.precedence),
        gateway: Some(record.gateway.to_string()),
    };
    shown.print(format, |owner, text| {
        format!("{}\tIN\tTXT\t{text}\n", owner.map_or("", Name::as_str))
    })
}

/// libreswan: the host's name as owner, runs of blanks between.
fn show_ipseckey(record: &Ipseckey, owner: Option<Name>, format: Format) -> String {
    let Some(key) = record.key.clone() else { return String::new() };
    let shown = Shown {
        owner,
        default_owner: host_name(),
        kind: "IPSECKEY",
        number: ipseckey::TYPE,
        presentation: record.presentation(),
        rdata: record.to_rdata(),
        key,
        precedence: Some(record.precedence.into()),
        gateway: match &record.gateway {
            Gateway::Own => None,
            Gateway::Address(addr) => Some(addr.to_string()),
            Gateway::Name(name) => Some(name.to_string()),
        },
    };
    let default = shown.default_owner.clone();
    shown.print(format, |owner, text| {
        format!("{}    IN    IPSECKEY  {text}\n", owner.unwrap_or(&default))
    })
}

fn show_key(key: &RsaKey, owner: Option<Name>, format: Format) -> String {
    let record = OldKey::ipsec(key);
    let shown = Shown {
        owner,
        default_owner: host_name(),
        kind: "KEY",
        number: old_key::TYPE,
        presentation: record.presentation(),
        rdata: record.to_rdata(),
        key: key.clone().into(),
        precedence: None,
        gateway: None,
    };
    let default = shown.default_owner.clone();
    shown.print(format, |owner, text| format!("{}\tIN\tKEY\t{text}\n", owner.unwrap_or(&default)))
}

/// libreswan: RSA as it always was, other kinds as SubjectPublicKeyInfo.
fn show_side(side: &str, key: &PublicKey) -> anyhow::Result<String> {
    let line = match key.rsa() {
        Some(rsa) => format!("rsasigkey=0s{}", rsa.to_base64()),
        None => format!("pubkey={}", BASE64.encode(key.to_spki_der()?)),
    };
    Ok(format!("\t# {side} keyid: {}\n\t{side}{line}\n", key.key_id()))
}

fn describe(key: &PublicKey) -> serde_json::Value {
    match key.rsa() {
        Some(rsa) => json!({
            "algorithm": "RSA",
            "bits": rsa.bits(),
            "exponent": rsa.exponent_value(),
            "key_id": rsa.key_id(),
            "ckaid": ckaid(rsa),
            "key": rsa.to_base64(),
        }),
        None => json!({
            "algorithm": key.algorithm_name(),
            "key_id": key.key_id(),
            "key": key.to_base64(),
        }),
    }
}

/// The name NSS gives a key, which libreswan's users go by: SHA-1 of the modulus.
fn ckaid(key: &RsaKey) -> String {
    hex(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, key.modulus()).as_ref())
}

fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::with_capacity(octets.len() * 2), |mut text, octet| {
        let _ = write!(text, "{octet:02x}");
        text
    })
}

fn line(value: &serde_json::Value) -> String {
    format!("{value}\n")
}

/// This host's name as the kernel has it.
fn host_name() -> Name {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    // A host without a usable name: the reader sees at once that the name must be given.
    text.trim().parse().unwrap_or_else(|_| Name::reverse(std::net::Ipv4Addr::LOCALHOST.into()))
}

#[cfg(test)]
mod tests;
