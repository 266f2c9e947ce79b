//! Names and keys in a real DNS: the rig's NSD and validating Unbound, in one namespace.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::place;

/// Where the rigs are that start other people's daemons.
#[must_use]
pub fn rigs() -> PathBuf {
    let given = std::env::var_os("OE_RIGS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/rigs"),
        PathBuf::from,
    );
    // In one form: inside a virtual machine it is seen at the same place.
    given.canonicalize().unwrap_or(given)
}

/// A signed tree from the root down, answered on 127.0.0.1 of a namespace.
#[derive(Debug)]
pub struct Names {
    directory: PathBuf,
}

impl Names {
    /// The resolver's address, in the namespace.
    pub const RESOLVER: &'static str = "127.0.0.1";

    /// Serves these zones; a record is an owner relative to its zone, and type and data.
    ///
    /// # Panics
    /// If NSD or Unbound do not start.
    #[must_use]
    pub fn serve(namespace: &str, directory: &Path, zones: &[(&str, Vec<[String; 2]>)]) -> Self {
        let zone = |records: &Vec<[String; 2]>| json!({ "signed": true, "ttl": 60, "negttl": 5, "records": records });
        let zones: serde_json::Map<String, Value> =
            zones.iter().map(|(name, records)| ((*name).to_owned(), zone(records))).collect();
        let hosts = json!({ "server": Self::RESOLVER, "zones": zones }).to_string();
        let file = directory.with_extension("json");
        let written = fs::write(&file, hosts);
        assert!(written.is_ok(), "{}: {written:?}", file.display());
        let names = Self { directory: directory.to_path_buf() };
        let rig = rigs().join("dns/dnsrig.py").display().to_string();
        let (place, file) = (directory.display().to_string(), file.display().to_string());
        place::ok(namespace, &["python3", &rig, "build", &place, &file]);
        place::ok(namespace, &["python3", &rig, "start", &place, Self::RESOLVER]);
        names
    }

    /// The file with the root's key.
    #[must_use]
    pub fn trust_anchors(&self) -> PathBuf {
        self.directory.join("anchor.key")
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        let rig = rigs().join("dns/dnsrig.py");
        let _ = Command::new("python3").arg(rig).arg("stop").arg(&self.directory).output();
    }
}
