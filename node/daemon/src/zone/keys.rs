//! The keys that sign zones: made when first needed, kept if there is a place to keep them.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hickory_proto::dnssec::Algorithm;
use hickory_proto::dnssec::crypto::EcdsaSigningKey;
use zonefiles::{Name, ZoneKey};

use crate::whole;

/// Where zone keys come from.
pub(crate) struct ZoneKeys {
    directory: Option<PathBuf>,
    known: HashMap<Name, Arc<ZoneKey>>,
}

impl ZoneKeys {
    /// Keys that live as long as the process.
    pub(crate) fn ephemeral() -> Self {
        Self { directory: None, known: HashMap::new() }
    }

    /// Keys kept as PKCS#8 PEM files, one for each zone, readable by the owner only.
    pub(crate) fn kept_in(directory: &Path) -> Self {
        Self { directory: Some(directory.to_owned()), known: HashMap::new() }
    }

    /// The key of a zone (ECDSA P-256, RFC 6605), made if there is none.
    pub(crate) fn key(&mut self, zone: &Name) -> anyhow::Result<Arc<ZoneKey>> {
        if let Some(key) = self.known.get(zone) {
            return Ok(Arc::clone(key));
        }
        let pkcs8 = match &self.directory {
            None => generate()?,
            Some(directory) => {
                let path = directory.join(file_name(zone));
                match fs::read_to_string(&path) {
                    Ok(pem) => from_pem(&pem).with_context(|| path.display().to_string())?,
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {
                        let pkcs8 = generate()?;
                        write_new(&path, &to_pem(&pkcs8))
                            .with_context(|| format!("cannot keep {}", path.display()))?;
                        pkcs8
                    }
                    Err(e) => bail!("cannot read {}: {e}", path.display()),
                }
            }
        };
        let signing = EcdsaSigningKey::from_pkcs8(&pkcs8.into(), Algorithm::ECDSAP256SHA256)
            .map_err(|e| anyhow!("the key of {zone} is no ECDSA P-256 key: {e}"))?;
        let key = Arc::new(ZoneKey::new(Box::new(signing))?);
        self.known.insert(zone.clone(), Arc::clone(&key));
        Ok(key)
    }
}

/// A file name for a zone, which may have slashes in its name (RFC 2317).
pub(crate) fn file_stem(zone: &Name) -> String {
    let text = zone.to_lowercase().to_string();
    let bare = text.strip_suffix('.').filter(|bare| !bare.is_empty()).unwrap_or("root");
    bare.chars().map(|c| if c == '/' || c == '\\' { '_' } else { c }).collect()
}

fn file_name(zone: &Name) -> String {
    format!("{}.key.pem", file_stem(zone))
}

fn generate() -> anyhow::Result<Vec<u8>> {
    let pkcs8 = EcdsaSigningKey::generate_pkcs8(Algorithm::ECDSAP256SHA256)?;
    Ok(pkcs8.secret_pkcs8_der().to_vec())
}

fn to_pem(pkcs8: &[u8]) -> String {
    let mut pem = String::from("-----BEGIN PRIVATE KEY-----\n");
    let text = BASE64.encode(pkcs8);
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().copied().map(char::from));
        pem.push('\n');
    }
    pem.push_str("-----END PRIVATE KEY-----\n");
    pem
}

fn from_pem(pem: &str) -> anyhow::Result<Vec<u8>> {
    let body = pem
        .split_once("-----BEGIN PRIVATE KEY-----")
        .and_then(|(_, rest)| rest.split_once("-----END PRIVATE KEY-----"))
        .context("expected a PKCS#8 private key in PEM")?
        .0;
    let text: String = body.split_whitespace().collect();
    BASE64.decode(text).context("damaged PEM")
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    whole::create(path, text.as_bytes())
}
