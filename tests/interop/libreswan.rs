//! libreswan 4.10 with the ESP of a Debian kernel, in a small virtual machine: it wants a kernel
//! with XFRM, and the machines that tests run on have none. The node runs in there, too.
//!
//! What happens inside stands in `libreswan.sh`; each story ends with a line that says so.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Both keys in the reverse zone, or written down at libreswan's side, or nobody's anywhere;
/// either side calls in each.
const STORIES: [&str; 3] = ["configured", "ipseckey", "null"];
/// Emulated, and on a busy machine.
const SECONDS: &str = "600";

fn rig() -> PathBuf {
    tests::names::rigs().join("vm")
}

/// The machine, built once and kept: `OE_VM`, or a directory among the temporary ones.
fn machine() -> Result<PathBuf, String> {
    let place = std::env::var_os("OE_VM")
        .map_or_else(|| std::env::temp_dir().join("oe-node-vm"), PathBuf::from);
    if place.join("complete").exists() {
        return Ok(place);
    }
    let built = Command::new(rig().join("build.sh"))
        .arg(&place)
        .output()
        .map_err(|error| format!("build.sh: {error}"))?;
    if !built.status.success() {
        let said = String::from_utf8_lossy(&built.stderr);
        return Err(format!(
            "the virtual machine cannot be built: {}",
            said.lines().last().unwrap_or("no reason given")
        ));
    }
    std::fs::write(place.join("complete"), "").map_err(|error| error.to_string())?;
    Ok(place)
}

/// The node's binary and key, and the record with the key.
fn prepare(place: &Path) {
    std::fs::create_dir_all(place).expect("directory");
    std::fs::copy(tests::oe_node(), place.join("oe-node")).expect("oe-node");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/interop/libreswan.sh");
    std::fs::copy(script, place.join("run.sh")).expect("libreswan.sh");
    let key = place.join("host.key");
    let run = |arguments: &[&str]| {
        let output = Command::new(tests::oe_node()).args(arguments).output().expect("oe-node");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let file = key.display().to_string();
    // The emulated processor is slow at this.
    run(&["keygen", "--bits", "2048", "--output", &file]);
    let record = run(&["showhostkey", "--ipseckey", "--key-file", &file]);
    let (_, rdata) = record.trim().split_once("IPSECKEY").expect("a record");
    std::fs::write(place.join("ipseckey"), rdata.trim()).expect("record");
}

#[test]
fn libreswan_agrees() {
    let needs = ["qemu-system-x86_64", "perl", "python3", "bc", "ip"];
    let why = tests::missing(&needs)
        .or_else(|| (!rig().join("build.sh").exists()).then(|| "no rig".to_owned()));
    if tests::skipped("libreswan_agrees", why) {
        return;
    }
    let machine = match machine() {
        Ok(machine) => machine,
        Err(why) => {
            let _ = tests::skipped("libreswan_agrees", Some(why));
            return;
        }
    };
    let place = std::env::temp_dir().join(format!("oe-lsw-{}", std::process::id()));
    prepare(&place);
    let inside = rig().join("tests");
    let output = Command::new(machine.join("vm-run.sh"))
        .args(["--engine", "tcg", "--timeout", SECONDS, "--ro-dir"])
        .arg(&inside)
        .arg("--ro-dir")
        .arg(&place)
        .arg(place.join("run.sh"))
        .arg(&inside)
        .arg(place.join("oe-node"))
        .arg(&place)
        .args(STORIES)
        .output()
        .expect("vm-run.sh");
    let _ = std::fs::remove_dir_all(&place);
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}{}", String::from_utf8_lossy(&output.stderr));
    for story in STORIES {
        assert!(said.contains(&format!("STORY {story}: ok")), "{story}");
    }
    assert!(output.status.success(), "{}", output.status);
}
