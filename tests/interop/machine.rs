//! A small virtual machine with a Debian kernel: other people's daemons that want a kernel with
//! XFRM, which the machines that tests run on have none of, and the node with them.
//!
//! What happens inside stands in a script for each of them; each story ends with a line that says so.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Emulated, and on a busy machine.
const SECONDS: &str = "600";

fn rig() -> PathBuf {
    tests::names::rigs().join("vm")
}

/// The machine, or why there is none and whether mirrors answer. Built once and kept: `OE_VM`, or a directory among the temporary ones.
fn machine() -> Result<PathBuf, (String, bool)> {
    static BUILT: OnceLock<Result<PathBuf, (String, bool)>> = OnceLock::new();
    BUILT.get_or_init(build).clone()
}

fn build() -> Result<PathBuf, (String, bool)> {
    let place = std::env::var_os("OE_VM")
        .map_or_else(|| std::env::temp_dir().join("oe-node-vm"), PathBuf::from);
    if place.join("complete").exists() {
        return Ok(place);
    }
    let built = Command::new(rig().join("build.sh"))
        .arg(&place)
        .output()
        .map_err(|error| (format!("build.sh: {error}"), true))?;
    if !built.status.success() {
        let said = String::from_utf8_lossy(&built.stderr);
        let why = said.lines().last().unwrap_or("no reason given");
        let why = format!("the virtual machine cannot be built: {why}");
        return Err((why, tests::mirrors_answer()));
    }
    std::fs::write(place.join("complete"), "").map_err(|error| (error.to_string(), true))?;
    Ok(place)
}

/// The scripts and the node's binary; a key for each end, and what its record says.
fn prepare(place: &Path, script: &str) {
    std::fs::create_dir_all(place).expect("directory");
    std::fs::copy(tests::oe_node(), place.join("oe-node")).expect("oe-node");
    let scripts = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/interop"));
    for (from, to) in [(script, "run.sh"), ("guest.sh", "guest.sh")] {
        std::fs::copy(scripts.join(from), place.join(to)).expect(from);
    }
    let run = |arguments: &[&str]| {
        let output = Command::new(tests::oe_node()).args(arguments).output().expect("oe-node");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    for end in ["host", "peer"] {
        let key = place.join(format!("{end}.key")).display().to_string();
        // The emulated processor is slow at this.
        run(&["keygen", "--bits", "2048", "--output", &key]);
        let record = run(&["showhostkey", "--ipseckey", "--key-file", &key]);
        let (_, rdata) = record.trim().split_once("IPSECKEY").expect("a record");
        std::fs::write(place.join(format!("{end}.ipseckey")), rdata.trim()).expect("record");
        let public = run(&["showhostkey", "--pem", "--key-file", &key]);
        std::fs::write(place.join(format!("{end}.pub")), public).expect("public key");
    }
}

/// Has these stories of this script told, if it can be had here.
pub(crate) fn tell(test: &str, script: &str, stories: &[&str]) {
    let needs = ["qemu-system-x86_64", "perl", "python3", "bc", "ip"];
    let why = tests::missing(&needs)
        .or_else(|| (!rig().join("build.sh").exists()).then(|| "no rig".to_owned()));
    if tests::skipped(test, why) {
        return;
    }
    let machine = match machine() {
        Ok(machine) => machine,
        Err(why) => {
            return tests::unmade(test, &why.0, why.1);
        }
    };
    let place = std::env::temp_dir().join(format!("oe-vm-{}-{test}", std::process::id()));
    prepare(&place, script);
    let inside = rig().join("tests");
    let output = Command::new(machine.join("vm-run.sh"))
        .args(["--engine", "tcg", "--timeout", SECONDS, "--ro-dir"])
        .arg(&inside)
        .arg("--ro-dir")
        .arg(&place)
        .arg(place.join("run.sh"))
        .arg(&inside)
        .arg(&place)
        .args(stories)
        .output()
        .expect("vm-run.sh");
    let _ = std::fs::remove_dir_all(&place);
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}{}", String::from_utf8_lossy(&output.stderr));
    for story in stories {
        assert!(said.contains(&format!("STORY {story}: ok")), "{story}");
    }
    assert!(output.status.success(), "{}", output.status);
}
