//! `oe-node lab`: that it shows what it promises, and leaves nothing behind.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::binary::{self, Ended, PATIENCE};
use crate::leftovers::Inventory;
use crate::pcap;

#[test]
fn everything_holds() {
    let _alone = binary::alone();
    let before = Inventory::take(&tests::oe_node());
    let ended = binary::run(&["lab", "--json"]);
    let Some(report) = report(&ended) else { return };
    assert_holds(&report);
    assert!(ended.took < Duration::from_secs(20), "took {:?}", ended.took);
    before.assert_restored(&tests::oe_node());
}

#[test]
fn the_text_says_the_same() {
    let _alone = binary::alone();
    let ended = binary::run(&["lab"]);
    if !possible(&ended) {
        return;
    }
    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    for line in ["✓ east ", "✓ plain ", "✓ bogus ", "Everything held"] {
        assert!(ended.stdout.contains(line), "no {line:?} in:\n{}", ended.stdout);
    }
    assert!(!ended.stdout.contains('\x1b'), "colours only on a terminal");
}

/// As a user without any privilege, where the kernel allows that.
#[test]
fn everything_holds_without_root() {
    let _alone = binary::alone();
    if tests::skipped("everything_holds_without_root", tests::missing(&[])) {
        return;
    }
    let place = Place::new("unprivileged");
    let copy = place.path.join("oe-node");
    // The build directory may be closed to others.
    fs::copy(tests::oe_node(), &copy).unwrap();
    open_to_all(&place.path);
    let before = Inventory::take(&copy);
    let mut command = Command::new(&copy);
    command.args(["lab", "--json"]).uid(65534).gid(65534);
    let ended = binary::start(&mut command).wait(PATIENCE);
    let Some(report) = report(&ended) else { return };
    assert_eq!(report["unprivileged"], true);
    assert_holds(&report);
    before.assert_restored(&copy);
}

/// With other code than the lab's own, the capture shows the same.
#[test]
fn the_capture_file_proves_it() {
    let _alone = binary::alone();
    let place = Place::new("pcap");
    let file = place.path.join("wire.pcap");
    let ended = binary::run(&["lab", "--json", "--pcap", file.to_str().unwrap()]);
    let Some(report) = report(&ended) else { return };
    let packets = pcap::read(&fs::read(&file).unwrap());
    for destination in report["destinations"].as_array().unwrap() {
        for way in destination["ways"].as_array().unwrap() {
            let from = way["from"].as_str().unwrap().parse().unwrap();
            let to = way["to"].as_str().unwrap().parse().unwrap();
            let sent = || {
                packets.iter().filter(|packet| (packet.source, packet.destination) == (from, to))
            };
            let esp = sent().filter(|packet| packet.is_esp()).count();
            let clear = sent().filter(|packet| !packet.is_esp() && !packet.is_ike()).count();
            let (esp, clear) = (Some(esp as u64), Some(clear as u64));
            assert_eq!(way["wire"]["esp_sent"].as_u64(), esp, "{to}");
            assert_eq!(way["wire"]["clear_sent"].as_u64(), clear, "{to}");
            match destination["name"].as_str().unwrap() {
                "east" => assert_eq!(clear, Some(0)),
                "plain" => assert_eq!(esp, Some(0)),
                _ => assert_eq!(sent().count(), 0, "something was sent to bogus"),
            }
        }
    }
}

#[test]
fn a_mesh_comes_up_all_at_once() {
    let _alone = binary::alone();
    let before = Inventory::take(&tests::oe_node());
    let ended = binary::run(&["lab", "--nodes", "5", "--json"]);
    let Some(report) = report(&ended) else { return };
    // Ten pairs of hosts, two families.
    assert_eq!(report["pairs"], 20);
    assert_eq!(report["working"], 20);
    assert_eq!(report["tunnels"], 20);
    assert_eq!(report["duplicates"], 0);
    assert_eq!(report["first_packets_lost"], 0);
    assert_eq!(report["clear"], 0);
    assert!(report["full_mesh_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(ended.code, 0);
    before.assert_restored(&tests::oe_node());
}

/// Thirty-two nodes, everybody to everybody in the same second: 496 pairs of hosts in each family.
/// An unoptimised build, whose signatures take some thirty times as long, makes do with fewer.
#[test]
fn a_mesh_of_thirty_two_comes_up_all_at_once() {
    let nodes: usize = if cfg!(debug_assertions) { 10 } else { 32 };
    let _alone = binary::alone();
    let before = Inventory::take(&tests::oe_node());
    let ended = binary::run(&["lab", "--nodes", &nodes.to_string(), "--json"]);
    let Some(report) = report(&ended) else { return };
    let pairs = nodes * (nodes - 1);
    println!(
        "{nodes} nodes: {pairs} pairs after {} ms, one pair each after {} ms",
        report["full_mesh_ms"], report["settled_ms"]
    );
    assert_eq!(report["pairs"], pairs);
    assert_eq!(report["working"], pairs, "both ways");
    assert_eq!(report["tunnels"], pairs, "one pair of SAs for each pair of addresses");
    assert_eq!(report["duplicates"], 0);
    assert_eq!(report["first_packets_lost"], 0);
    assert_eq!(report["clear"], 0);
    assert!(report["full_mesh_ms"].as_f64().unwrap() < MESH_PATIENCE_MS, "{report}");
    assert_eq!(ended.code, 0);
    before.assert_restored(&tests::oe_node());
}

/// Whenever the signal comes, everything goes.
#[test]
fn nothing_is_left_after_a_signal() {
    let _alone = binary::alone();
    let binary = tests::oe_node();
    let before = Inventory::take(&binary);
    for (signal, code) in [("INT", 130), ("TERM", 130), ("KILL", 137)] {
        for after in [5, 60, 300, 900, 1500] {
            let mut running =
                binary::start(Command::new(&binary).args(["lab", "--keep", "--json"]));
            thread::sleep(Duration::from_millis(after));
            if !running.is_running() {
                let ended = running.wait(PATIENCE);
                assert!(!possible(&ended), "{}", ended.stderr);
                return;
            }
            running.signal(signal);
            let ended = running.wait(PATIENCE);
            // Before anything is set up the signal does what it does to any process; after the
            // report it is the expected end.
            let plain = if signal == "INT" { 130 } else { 143 };
            assert!(
                [code, plain, 0].contains(&ended.code),
                "{signal} after {after} ms: code {}, {}",
                ended.code,
                ended.stderr
            );
            before.assert_restored(&binary);
        }
    }
}

#[test]
fn a_kept_lab_can_be_entered() {
    let _alone = binary::alone();
    if tests::skipped("a_kept_lab_can_be_entered", tests::missing(&["nsenter"])) {
        return;
    }
    let before = Inventory::take(&tests::oe_node());
    let place = Place::new("keep");
    let said = place.path.join("said");
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!(
        "exec '{}' lab --keep 2>'{}'",
        tests::oe_node().display(),
        said.display()
    ));
    let mut running = binary::start(&mut command);
    let enter = loop {
        let said = fs::read_to_string(&said).unwrap_or_default();
        let line = said.lines().find(|line| line.starts_with("  east") && line.contains("nsenter"));
        if let Some(line) = line {
            break line.split_once("nsenter").unwrap().1.to_owned();
        }
        if !running.is_running() {
            let mut ended = running.wait(PATIENCE);
            ended.stderr = said;
            assert!(!possible(&ended), "{}", ended.stderr);
            return;
        }
        thread::sleep(Duration::from_millis(50));
    };
    let inside = Command::new("nsenter")
        .args(enter.split_whitespace())
        .args(["cat", "/proc/net/if_inet6", "/dev/shm/east/oe-node.toml"])
        .output()
        .unwrap();
    let inside = String::from_utf8_lossy(&inside.stdout).into_owned();
    assert!(inside.contains("20010db8000200000000000000000022"), "{inside}");
    assert!(inside.contains("[dns]"), "{inside}");
    running.signal("INT");
    assert_eq!(running.wait(PATIENCE).code, 0);
    before.assert_restored(&tests::oe_node());
}

/// Where namespaces are refused, the lab says what is missing and how to get it.
#[test]
fn a_missing_permission_is_named() {
    let _alone = binary::alone();
    // Inside a user namespace that allows no further one, with no capability left.
    let script = format!(
        "echo 0 > /proc/sys/user/max_user_namespaces && \
         exec setpriv --bounding-set=-all --inh-caps=-all '{}' lab",
        tests::oe_node().display()
    );
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "sh", "-c", &script]);
    let probe =
        Command::new("unshare").args(["--user", "--map-root-user", "setpriv", "-V"]).output();
    let works = probe.is_ok_and(|probe| probe.status.success());
    if !works {
        // A container may forbid it to root.
        return tests::absent("a_missing_permission_is_named", "unshare or setpriv does not work");
    }
    let ended = binary::start(&mut command).wait(PATIENCE);
    assert_eq!(ended.code, 2, "{}", ended.stderr);
    for word in ["CAP_NET_ADMIN", "user namespace", "sudo", "max_user_namespaces=10000"] {
        assert!(ended.stderr.contains(word), "no {word:?} in:\n{}", ended.stderr);
    }
    assert!(ended.stdout.is_empty(), "nothing to show: {}", ended.stdout);
}

#[test]
fn wrong_arguments_are_refused_at_once() {
    for arguments in [&["lab", "--nodes", "1"][..], &["lab", "--nodes", "33"], &["lab", "--nope"]] {
        let ended = binary::run(arguments);
        assert_eq!(ended.code, 2, "{arguments:?}");
        assert!(!ended.stderr.is_empty());
    }
    let ended = binary::run(&["lab", "--pcap", "/nonexistent/wire.pcap"]);
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("/nonexistent/wire.pcap"), "{}", ended.stderr);
}

fn assert_holds(report: &Value) {
    assert_eq!(report["held"], true, "{report:#}");
    assert_eq!(report["missed"], 0);
    let destinations = report["destinations"].as_array().unwrap();
    let names: Vec<_> = destinations.iter().map(|d| d["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["east", "plain", "bogus"]);
    for destination in destinations {
        let ways = destination["ways"].as_array().unwrap();
        assert_eq!(ways.len(), 2, "IPv4 and IPv6");
        for way in ways {
            match destination["name"].as_str().unwrap() {
                "east" => assert_encrypted(way),
                "plain" => assert_clear(way),
                _ => assert_refused(way),
            }
        }
    }
}

fn assert_encrypted(way: &Value) {
    assert!(way["first_packet_ms"].is_f64(), "{way:#}");
    assert_eq!(way["wire"]["clear_sent"], 0);
    assert_eq!(way["wire"]["clear_received"], 0);
    assert_eq!(way["wire"]["readable"], 0);
    // 256 KiB there and back in packets of at most 1500 octets.
    assert!(way["wire"]["esp_sent"].as_u64().unwrap() > 180, "{way:#}");
    assert!(way["wire"]["esp_received"].as_u64().unwrap() > 180, "{way:#}");
    assert_eq!(way["transfer"]["octets"], 256 << 10);
    assert_eq!(way["transfer"]["syn_retransmissions"], 0);
    let at = |event: &str| {
        let timeline = way["timeline"].as_array().unwrap();
        let moment = timeline.iter().find(|moment| moment["event"] == event);
        let moment = moment.unwrap_or_else(|| panic!("no {event} in {timeline:#?}"));
        moment["at_ms"].as_f64().unwrap()
    };
    let order = ["trapped", "dns-answer", "ike-sa-init", "ike-auth", "first-esp", "answered"];
    for pair in order.windows(2) {
        assert!(at(pair[0]) <= at(pair[1]), "{} after {}: {way:#}", pair[0], pair[1]);
    }
}

fn assert_clear(way: &Value) {
    assert!(way["first_packet_ms"].is_f64(), "{way:#}");
    assert_eq!(way["wire"]["esp_sent"], 0);
    assert!(way["wire"]["clear_sent"].as_u64().unwrap() > 180, "{way:#}");
    assert!(way["wire"]["readable"].as_u64().unwrap() > 180, "{way:#}");
    assert_eq!(way["transfer"]["syn_retransmissions"], 0);
}

fn assert_refused(way: &Value) {
    assert_eq!(way["wire"]["sent"], 0, "{way:#}");
    assert!(way["first_packet_ms"].is_null());
    assert!(way["transfer"].is_null());
    let claims = way["claims"].as_array().unwrap();
    assert!(claims.iter().any(|c| c["claim"] == "alive: it answers plain" && c["held"] == true));
}

/// The report, unless the lab cannot run here.
fn report(ended: &Ended) -> Option<Value> {
    if !possible(ended) {
        return None;
    }
    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    Some(serde_json::from_str(&ended.stdout).unwrap())
}

fn possible(ended: &Ended) -> bool {
    let why = (ended.code == 2).then(|| ended.stderr.trim().to_owned());
    !tests::skipped("the lab", why)
}

/// A directory of the test's own.
struct Place {
    path: PathBuf,
}

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("netns-test-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self { path }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn open_to_all(directory: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
}

/// How long the whole mesh may take on two cores that have other work too: 992 handshakes, each of
/// some ten milliseconds at either end.
const MESH_PATIENCE_MS: f64 = 20_000.0;
