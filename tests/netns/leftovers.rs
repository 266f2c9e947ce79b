//! What a command may leave behind on a machine.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// What there is: devices, named namespaces, mounts, files, and processes of the binary.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Inventory(BTreeSet<String>);

impl Inventory {
    /// Looks around.
    pub(crate) fn take(binary: &Path) -> Self {
        let mut found = BTreeSet::new();
        for directory in ["/sys/class/net", "/run/netns", "/dev/shm", "/run"] {
            found.extend(names(directory));
        }
        // Others use the temporary directory too; the lab's own would bear its name.
        found.extend(names(std::env::temp_dir()).filter(|name| name.contains("oe-node")));
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let ours = |line: &&str| line.contains("oe-node") || line.contains("nsfs");
        found.extend(mounts.lines().filter(ours).map(|line| format!("mount {line}")));
        for process in fs::read_dir("/proc").unwrap().flatten() {
            let exe = fs::read_link(process.path().join("exe")).unwrap_or_default();
            if exe == binary {
                found.insert(format!("process {}", process.file_name().display()));
            }
        }
        for file in ["/proc/net/route", "/proc/net/ipv6_route"] {
            let text = fs::read_to_string(file).unwrap_or_default();
            // Devices by name only: counters change by themselves.
            let devices = text.lines().filter_map(|line| line.split_whitespace().last());
            found.extend(devices.filter(|last| last.starts_with("ipsec")).map(str::to_owned));
        }
        Self(found)
    }

    /// Panics unless everything is soon as it was: the kernel takes namespaces apart on its own
    /// time.
    pub(crate) fn assert_restored(&self, binary: &Path) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let now = Self::take(binary);
            let left: Vec<_> = now.0.difference(&self.0).collect();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "left behind: {left:?}");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn names(directory: impl AsRef<Path>) -> impl Iterator<Item = String> {
    let directory = directory.as_ref().to_owned();
    let entries = fs::read_dir(&directory).map(Iterator::flatten).into_iter().flatten();
    entries.map(move |entry| directory.join(entry.file_name()).display().to_string())
}
