//! What the tests share: the built binary, and an honest way to say that a test cannot run here.

pub mod crowd;
pub mod heap;
pub mod key;
pub mod names;
pub mod node;
pub mod pairbed;
pub mod place;

use std::path::PathBuf;
use std::process::Command;

/// The `oe-node` that was built with these tests.
///
/// # Panics
/// If it is not there: `cargo test --workspace` builds it, `cargo test -p tests` alone does not.
#[must_use]
pub fn oe_node() -> PathBuf {
    let mut path = std::env::current_exe().unwrap_or_default();
    // target/PROFILE/deps/TEST-HASH
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    path.push("oe-node");
    assert!(path.exists(), "{} is not built: run cargo build -p daemon", path.display());
    path
}

/// What keeps a test that needs root and these programs from running; `None` if nothing does.
#[must_use]
pub fn missing(programs: &[&str]) -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let root = status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))
        .and_then(|uids| uids.split_whitespace().nth(1))
        == Some("0");
    if !root {
        return Some("needs root".to_owned());
    }
    programs.iter().find(|program| !installed(program)).map(|p| format!("{p} is not installed"))
}

fn installed(program: &str) -> bool {
    if program.contains('/') {
        return std::path::Path::new(program).exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let extra = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(extra).any(|folder| folder.join(program).exists())
}

/// Says that a test did not run, and why; returns whether it did not.
#[must_use]
pub fn skipped(test: &str, why: Option<String>) -> bool {
    let Some(why) = why else { return false };
    // Straight to the descriptor: the test harness swallows what a passing test prints.
    let _ = Command::new("sh")
        .args(["-c", "echo \"skipped: $0\" >&2"])
        .arg(format!("{test}: {why}"))
        .status();
    true
}
