//! The built binary, from outside. Standing here makes `cargo test` build it, which the tests of
//! the `tests` package rely on.

#![expect(clippy::unwrap_used, reason = "a test that panics has found something")]

use std::process::{Command, Output};

fn oe_node(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_oe-node")).args(args).output().unwrap()
}

#[test]
fn it_says_its_version_and_its_commands() {
    let version = oe_node(&["--version"]);
    let text = String::from_utf8(version.stdout).unwrap();
    assert_eq!(text.trim(), concat!("oe-node ", env!("CARGO_PKG_VERSION")));
    let help = String::from_utf8(oe_node(&["--help"]).stdout).unwrap();
    let commands = [
        "lab",
        "run",
        "status",
        "explain",
        "peers",
        "forget",
        "reload",
        "events",
        "keygen",
        "showhostkey",
        "verify",
        "zone",
        "man",
        "config",
    ];
    for command in commands {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is missing from\n{help}");
    }
}

#[test]
fn the_example_configuration_passes_its_own_check() {
    let example = oe_node(&["config", "--example"]);
    assert!(example.status.success());
    let file = std::env::temp_dir().join(format!("oe-example-{}.toml", std::process::id()));
    std::fs::write(&file, &example.stdout).unwrap();
    let check = oe_node(&["config", "--check", file.to_str().unwrap()]);
    std::fs::remove_file(&file).unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
}

#[test]
fn a_bad_configuration_is_one_line_and_exit_code_1() {
    let file = std::env::temp_dir().join(format!("oe-bad-{}.toml", std::process::id()));
    std::fs::write(&file, "[dns]\nresolver = []\n").unwrap();
    let run = oe_node(&["run", "--config", file.to_str().unwrap()]);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(run.status.code(), Some(1));
    let error = String::from_utf8(run.stderr).unwrap();
    let start = format!("oe-node: {}:2: dns.resolver: unknown field", file.display());
    assert!(error.starts_with(&start), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}
