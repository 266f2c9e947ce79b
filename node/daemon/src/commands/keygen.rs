//! `oe-node keygen`: makes the host key.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use dnskeys::{Gateway, Ipseckey, Name, PublicKey, ServerTxt, TxtGateway};

use super::showhostkey::parse_gateway;
use crate::config::Config;
use crate::hostkey::{self, Bits, HostKey, Kind};

/// Arguments of `oe-node keygen`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// File for the key; must not exist [default: from the configuration].
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Configuration file [default: /etc/oe-node/oe-node.toml if it exists].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Kind of key: rsa is what every peer understands; the others are smaller and faster, and are
    /// published as IPSECKEY only.
    #[arg(long = "type", value_enum, default_value_t, value_name = "TYPE")]
    kind: Kind,
    /// Length of an RSA key's modulus [default: 3072].
    #[arg(long, value_enum)]
    bits: Option<Bits>,
    /// Also print the records to publish for this gateway: the host's own address, or @FQDN.
    #[arg(long, value_name = "GW")]
    txt: Option<String>,
}

/// Runs the command.
pub(crate) fn main(args: Args) -> ExitCode {
    match run(&args, &mut io::stdout().lock(), &mut io::stderr().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "oe-node keygen: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args, out: &mut impl Write, notes: &mut impl Write) -> anyhow::Result<()> {
    let gateway = args.txt.as_deref().map(parse_gateway).transpose()?;
    if args.kind != Kind::Rsa && args.bits.is_some() {
        bail!("--bits is for RSA keys: the other kinds have one length each");
    }
    let configured = Config::load(args.config.as_deref())?.key_file();
    let path = args.output.as_deref().unwrap_or(&configured);
    // Before the seconds that making it takes; the file is created exclusively all the same.
    if path.symlink_metadata().is_ok() {
        bail!(hostkey::HostKeyError::Exists(path.to_path_buf()));
    }
    let key = match args.kind {
        Kind::Rsa => HostKey::generate(args.bits.unwrap_or_default())?,
        other => HostKey::generate_kind(other)?,
    };
    if args.output.is_none() {
        hostkey::make_directory(path)?;
    }
    key.save(path)?;
    let public = key.public();
    let bits = public.rsa().map_or_else(String::new, |rsa| format!(" of {} bits", rsa.bits()));
    writeln!(
        notes,
        "oe-node keygen: {}: {} key{bits}, key id {}",
        path.display(),
        public.algorithm_name(),
        public.key_id()
    )?;
    match gateway {
        Some(gateway) => write_records(out, gateway, public).context("standard output"),
        None => {
            let form = if public.rsa().is_some() { "--txt ADDRESS" } else { "--ipseckey" };
            write_hint(notes, path, path == configured, form).context("standard error")
        }
    }
}

fn write_hint(notes: &mut impl Write, path: &Path, configured: bool, form: &str) -> io::Result<()> {
    let file = if configured { String::new() } else { format!(" --key-file {}", path.display()) };
    writeln!(notes, "oe-node keygen: publish it: oe-node showhostkey{file} {form}")
}

/// TXT, which carries RSA keys only, and IPSECKEY at the name where a stranger looks for them. The
/// latter names the owner itself: libreswan takes no other gateway type.
pub(crate) fn write_records(
    out: &mut impl Write,
    gateway: TxtGateway,
    key: &PublicKey,
) -> io::Result<()> {
    let owner = match &gateway {
        TxtGateway::Address(addr) => Name::reverse(*addr),
        TxtGateway::Name(name) => name.clone(),
    };
    let ipseckey = Ipseckey { precedence: 10, gateway: Gateway::Own, key: Some(key.clone()) };
    if let Some(rsa) = key.rsa() {
        let txt = ServerTxt { precedence: 10, gateway, key: Some(rsa.clone()) };
        writeln!(out, "{owner}\tIN\tTXT\t{}", txt.presentation())?;
    }
    writeln!(out, "{owner}\tIN\tIPSECKEY\t{}", ipseckey.presentation())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makes_a_key_once_and_prints_its_records() {
        let path = std::env::temp_dir().join(format!("oe-keygen-{}", std::process::id()));
        let args = Args {
            output: Some(path.clone()),
            config: None,
            kind: Kind::Rsa,
            bits: Some(Bits::Rsa2048),
            txt: Some("192.0.2.11".to_owned()),
        };
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        run(&args, &mut out, &mut notes).unwrap();
        let key = HostKey::load(&path).unwrap();
        let out = String::from_utf8(out).unwrap();
        let text = key.public().to_base64();
        let expected = format!(
            "11.2.0.192.in-addr.arpa.\tIN\tTXT\t\"X-IPsec-Server(10)=192.0.2.11\" \" {}\" \"{}\"\n\
             11.2.0.192.in-addr.arpa.\tIN\tIPSECKEY\t10 0 2 . {text}\n",
            &text[..254],
            &text[254..],
        );
        assert_eq!(out, expected);
        let notes = String::from_utf8(notes).unwrap();
        assert!(notes.contains("RSA key of 2048 bits, key id AwEAA"), "{notes}");

        let error = run(&args, &mut io::sink(), &mut io::sink()).unwrap_err();
        assert!(error.to_string().contains("never overwritten"), "{error}");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn elliptic_keys_are_published_as_ipseckey_only() {
        for (kind, algorithm, name) in [
            (Kind::EcdsaP256, 3, "ECDSA P-256"),
            (Kind::EcdsaP384, 3, "ECDSA P-384"),
            (Kind::Ed25519, 4, "Ed25519"),
        ] {
            let file = format!("oe-keygen-{algorithm}-{kind:?}-{}", std::process::id());
            let path = std::env::temp_dir().join(file);
            let args = Args {
                output: Some(path.clone()),
                config: None,
                kind,
                bits: None,
                txt: Some("192.0.2.11".to_owned()),
            };
            let (mut out, mut notes) = (Vec::new(), Vec::new());
            run(&args, &mut out, &mut notes).unwrap();
            let key = HostKey::load(&path).unwrap();
            let text = key.public().to_base64();
            assert_eq!(
                String::from_utf8(out).unwrap(),
                format!("11.2.0.192.in-addr.arpa.\tIN\tIPSECKEY\t10 0 {algorithm} . {text}\n")
            );
            let notes = String::from_utf8(notes).unwrap();
            assert!(notes.contains(&format!("{name} key, key id ")), "{notes}");
            std::fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn bits_are_rsas() {
        let args = Args {
            output: Some("/nonexistent/key".into()),
            config: None,
            kind: Kind::Ed25519,
            bits: Some(Bits::Rsa4096),
            txt: None,
        };
        let error = run(&args, &mut io::sink(), &mut io::sink()).unwrap_err();
        assert!(error.to_string().starts_with("--bits is for RSA keys"), "{error}");
    }

    #[test]
    fn a_bad_gateway_costs_no_key() {
        let path = std::env::temp_dir().join(format!("oe-keygen-bad-{}", std::process::id()));
        let args = Args {
            output: Some(path.clone()),
            config: None,
            kind: Kind::Rsa,
            bits: Some(Bits::Rsa2048),
            txt: Some("west".to_owned()),
        };
        let error = run(&args, &mut io::sink(), &mut io::sink()).unwrap_err();
        let text = "gateway must be @FQDN or an IPv4 or IPv6 address, not \"west\"";
        assert!(error.to_string().starts_with(text), "{error}");
        assert!(!path.exists());
    }
}
