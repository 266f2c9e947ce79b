//! libreswan 4.10 with the ESP of a Debian kernel, in a small virtual machine: it wants a kernel
//! with XFRM, and the machines that tests run on have none. The node runs in there, too.
//!
//! What happens inside stands in `libreswan.sh`; each story ends with a line that says so.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Both keys in the reverse zone, or written down at libreswan's side, or nobody's anywhere;
/// either side calls in each.
const STORIES: [&str; 3] = ["configured", "ipseckey", "null"];
/// Both ask for transport mode, as protocol 50 and in UDP, and libreswan declines it: in each either
/// side calls. Libreswan asks for it, and we know it from DNS only. In all of them libreswan rekeys.
const TRANSPORT_STORIES: [&str; 4] = ["transport", "transport-udp", "declined", "asked"];
/// Emulated, and on a busy machine.
const SECONDS: &str = "600";

fn rig() -> PathBuf {
    tests::names::rigs().join("vm")
}

/// The machine, built once and kept: `OE_VM`, or a directory among the temporary ones.
fn machine() -> Result<PathBuf, String> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BUILT.get_or_init(build).clone()
}

fn build() -> Result<PathBuf, String> {
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

/// Has these told, if it can be had here.
fn tell(test: &str, stories: &[&str]) {
    let needs = ["qemu-system-x86_64", "perl", "python3", "bc", "ip"];
    let why = tests::missing(&needs)
        .or_else(|| (!rig().join("build.sh").exists()).then(|| "no rig".to_owned()));
    if tests::skipped(test, why) {
        return;
    }
    let machine = match machine() {
        Ok(machine) => machine,
        Err(why) => {
            // A mirror that does not answer is nobody's mistake.
            tests::absent(test, &why);
            return;
        }
    };
    let place = std::env::temp_dir().join(format!("oe-lsw-{}-{}", std::process::id(), stories[0]));
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

/// P20.
#[test]
fn libreswan_agrees() {
    tell("libreswan_agrees", &STORIES);
}

/// Between two hosts, without an inner header: libreswan's kernel says `mode transport` of every SA,
/// datagrams of any size arrive, and the wire has ESP and nothing else.
#[test]
fn libreswan_agrees_on_transport_mode() {
    tell("libreswan_agrees_on_transport_mode", &TRANSPORT_STORIES);
}
