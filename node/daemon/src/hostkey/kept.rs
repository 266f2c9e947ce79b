//! The host key where the configuration says that it lies: made on the first start, read at every
//! other, looked at when the configuration is read anew.

use std::net::IpAddr;
use std::path::Path;

use anyhow::Context as _;
use dnskeys::PublicKey;

use super::{Bits, HostKey, HostKeyError};
use crate::config::Config;
use crate::{commands, secret, view};

/// The host key, and whether it had to be made: the first start does. No later one: who has run with
/// another key would be taken for somebody else by everybody, and would not know why.
pub(crate) fn load_or_make(config: &Config) -> anyhow::Result<(HostKey, bool)> {
    let file = config.key_file();
    if std::fs::symlink_metadata(&file).is_ok() {
        return Ok((HostKey::load(&file).context("node.key")?, false));
    }
    let trace = config.node.state_dir.join(secret::CRASH);
    if trace.exists() {
        return Err(HostKeyError::Lost { path: file, trace }).context("node.key");
    }
    if let Some(directory) = file.parent() {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("node.key: {}", directory.display()))?;
    }
    let key = HostKey::generate(Bits::default())?;
    key.save(&file).context("node.key")?;
    Ok((key, true))
}

/// What to publish, in the reverse zones of these addresses, so that others encrypt to us.
pub(crate) fn announce(key: &HostKey, file: &Path, addresses: &[IpAddr]) {
    tracing::info!(
        "made the host key {} (key id {}); publish these records:",
        file.display(),
        key.public().key_id()
    );
    for address in addresses.iter().filter(|a| view::is_reachable(**a)) {
        let mut records = Vec::new();
        let gateway = dnskeys::TxtGateway::Address(*address);
        // Writing to memory cannot fail.
        let _ = commands::write_records(&mut records, gateway, key.public());
        for line in String::from_utf8_lossy(&records).lines() {
            tracing::info!("{}", line.replace('\t', " "));
        }
    }
}

/// What is wrong with the key's file for who signs with this key, and would be found by a restart.
pub(crate) fn warning(config: &Config, used: &PublicKey) -> Option<String> {
    let file = config.key_file();
    let why = match HostKey::load(&file) {
        Ok(key) if key.public() == used => return None,
        Ok(key) => format!(
            "{}: another key (key id {}) than the one in use (key id {}), which stays until a restart",
            file.display(),
            key.public().key_id(),
            used.key_id()
        ),
        Err(error) => format!("{error}; the key in use stays, and a restart would fail"),
    };
    Some(format!("{:#}", config.located(anyhow::anyhow!("node.key: {why}"))))
}
