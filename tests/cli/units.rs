//! `oe-node config --systemd`: units that systemd takes, and finds well protected.

use std::fs;
use std::process::Command;

use tests::{missing, skipped};

use crate::keys::{Dir, oe};

#[test]
fn units_are_written_and_systemd_takes_them() {
    let dir = Dir::new("units");
    let written = oe(&["config", "--systemd", &dir.0.display().to_string()]);
    assert!(written.status.success(), "{written:?}");
    let units = ["oe-node.service", "oe-node-guard.service"];
    for unit in units {
        let text = fs::read_to_string(dir.file(unit)).unwrap();
        let start = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        assert!(start.starts_with(&tests::oe_node().display().to_string()), "{start}");
        assert!(!text.contains('@') || text.contains("@system-service"), "{text}");
    }
    assert!(!oe(&["config", "--systemd", "/nonexistent"]).status.success());
    let test = "units_are_written_and_systemd_takes_them";
    if skipped(test, missing(&["systemd-analyze"])) {
        return;
    }
    for unit in units {
        let file = dir.file(unit);
        let verified = Command::new("systemd-analyze").args(["verify", "--man=no", &file]).output();
        let said = verified.unwrap();
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        let ours: Vec<&str> = text.lines().filter(|line| line.contains("oe-node")).collect();
        assert!(ours.is_empty(), "{ours:?}");
        // 2.3 of 10, where less is better; 0.1 of it is setpriority, by which signers make way, and
        // 0.2 the packet socket by which super-packets that pass go on whole. Whoever has that could
        // listen on every link, and with CAP_NET_RAW a raw socket hears nearly as much.
        let secure = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--threshold=23", "--no-pager", &file])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&secure.stdout).into_owned();
        assert!(secure.status.success(), "{text}");
    }
}
