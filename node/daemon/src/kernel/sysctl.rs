//! Kernel parameters under `/proc/sys/net`, with what they were before.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Parameters that were changed and must be set back.
#[derive(Default)]
pub(super) struct Sysctls {
    before: Vec<(PathBuf, String)>,
}

impl Sysctls {
    /// Sets a parameter (`ipv4/conf/all/rp_filter`) and remembers what it was.
    pub(super) fn set(&mut self, name: &str, value: &str) -> io::Result<()> {
        let path = Path::new("/proc/sys/net").join(name);
        let before = fs::read_to_string(&path)?.trim().to_owned();
        if before != value {
            fs::write(&path, value)?;
            self.before.push((path, before));
        }
        Ok(())
    }

    /// Sets everything back, the last change first. What vanished with its device is no loss.
    pub(super) fn restore(&mut self) {
        while let Some((path, value)) = self.before.pop() {
            let _ = fs::write(path, value);
        }
    }
}

/// Whether this machine forwards, in IPv4 and in IPv6.
pub(crate) fn forwards() -> [bool; 2] {
    ["ipv4/ip_forward", "ipv6/conf/all/forwarding"].map(|name| {
        let value = fs::read_to_string(Path::new("/proc/sys/net").join(name));
        value.is_ok_and(|text| text.trim() != "0")
    })
}

/// Whether any interface demands that the way back lead through the same interface
/// (RFC 3704 §2.2, strict): the larger of `all` and the interface's own value counts.
pub(super) fn strict_reverse_path() -> bool {
    let value = |dir: &Path| -> u8 {
        fs::read_to_string(dir.join("rp_filter"))
            .ok()
            .and_then(|t| t.trim().parse().ok())
            .unwrap_or(0)
    };
    let conf = Path::new("/proc/sys/net/ipv4/conf");
    let all = value(&conf.join("all"));
    let Ok(interfaces) = fs::read_dir(conf) else { return false };
    interfaces.flatten().any(|entry| value(&entry.path()).max(all) == 1)
}
