//! A configured connection with strongSwan at the other end, net to net.
//!
//! Neither side asks DNS: each has the other's key in a file. The inner addresses are on `lo`.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use tests::node::{Node, Setup, text};
use tests::place::{self, Capture};

use crate::rig::{self, Rig};

pub(crate) const WEST_IN: &str = "10.1.0.1";
pub(crate) const EAST_IN: &str = "10.2.0.1";

/// The root's trust anchor of 2017: a node wants one, and here nothing is ever asked.
const ANCHOR: &str =
    ". IN DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D\n";

fn can_run(test: &str) -> bool {
    rig::can_run(test) && !tests::skipped(test, tests::missing(&["tcpdump", "ping"]))
}

/// oe-node in west and strongSwan in east. The fields are dropped in this order.
pub(crate) struct Scene {
    pub(crate) node: Node,
    wire: Capture,
    pub(crate) rig: Rig,
}

impl Scene {
    fn up(start: &str, options: &[&str]) -> Self {
        Self::up_with(None, start, options, "")
    }

    /// The same with another strongSwan than the installed one, and more tables for the node's
    /// configuration.
    pub(crate) fn up_with(
        charon: Option<&Path>,
        start: &str,
        options: &[&str],
        tables: &str,
    ) -> Self {
        let rig = peer(charon, options);
        let lines = format!(
            "remote-key = \"{}\"\nlocal-subnets = [\"{WEST_IN}\"]\n\
             remote-subnets = [\"{EAST_IN}\"]\nstart = \"{start}\"\n",
            rig.file("east", "pub.pem")
        );
        Self::of(rig, tables, &lines)
    }

    /// With the strongSwan of this rig, the connection having these lines.
    fn of(rig: Rig, tables: &str, lines: &str) -> Self {
        let (west, directory) = (rig.namespace("west"), rig.directory().to_path_buf());
        let anchor = directory.join("anchor");
        std::fs::write(&anchor, ANCHOR).expect("anchor");
        let mut setup = Setup::new(directory.clone(), "192.0.2.53", anchor);
        setup.key = Some(rig.file("west", "key.pem").into());
        setup.policies = vec![("clear", "0.0.0.0/0\n::/0\n")];
        setup.more =
            format!("{tables}[[connection]]\nname = \"net\"\ngateway = \"192.0.2.2\"\n{lines}");
        let wire = Capture::start(&west, "veth0", &directory.join("wire.pcap"));
        let node = setup.start(&west);
        Self { node, wire, rig }
    }

    pub(crate) fn ping(&self, from: &str, source: &str, to: &str) -> bool {
        let namespace = self.rig.namespace(from);
        place::run(&namespace, &["ping", "-n", "-c", "1", "-W", "8", "-I", source, to]).0
    }

    pub(crate) fn assert_nothing_in_clear(&self) {
        self.wire.await_esp();
        let inner = self.wire.packets("net 10.0.0.0/8");
        assert!(inner.is_empty(), "in the clear: {inner:#?}");
    }
}

/// strongSwan in east, and both keys.
fn peer(charon: Option<&Path>, options: &[&str]) -> Rig {
    let mut rig = Rig::up("direct");
    if let Some(charon) = charon {
        rig.with_charon(charon);
    }
    rig.key("west", "2048");
    rig.key("east", "2048");
    rig.strongswan(options);
    rig
}

#[test]
fn we_call_strongswan_for_the_first_packet() {
    if !can_run("we_call_strongswan_for_the_first_packet") {
        return;
    }
    let scene = Scene::up("trap", &[]);
    assert_eq!(text(&scene.node.connection("net"), "state"), "idle");
    assert!(scene.ping("west", WEST_IN, EAST_IN), "the first packet is not answered");
    let up = scene.node.await_connection("net", "up");
    assert_eq!(text(&up, "trust"), "configured");
    assert_eq!(text(&up, "gateway"), "192.0.2.2");
    assert!(scene.ping("east", EAST_IN, WEST_IN));
    // Without a source the node's own address in the subnet is taken.
    assert!(place::ping(&scene.rig.namespace("west"), EAST_IN));
    scene.assert_nothing_in_clear();
    // What strongSwan ends is made again by the next packet, and never left to the clear.
    scene.rig.control(&["term"]);
    scene.node.await_connection("net", "idle");
    assert!(scene.ping("west", WEST_IN, EAST_IN));
    assert_eq!(scene.node.happened("dns-answer"), 0);
    scene.assert_nothing_in_clear();
}

#[test]
fn strongswan_calls_us_and_rekeys() {
    if !can_run("strongswan_calls_us_and_rekeys") {
        return;
    }
    let scene = Scene::up("accept", &[]);
    assert!(
        !place::run(
            &scene.rig.namespace("west"),
            &["ping", "-n", "-c", "1", "-W", "1", "-I", WEST_IN, EAST_IN]
        )
        .0
    );
    let said = scene.rig.control(&["init"]);
    assert!(said.contains("initiate completed successfully"), "{said}");
    scene.node.await_connection("net", "up");
    assert!(scene.ping("east", EAST_IN, WEST_IN));
    for what in ["rekey-child", "rekey-ike", "rekey-child"] {
        scene.rig.rekey(what);
        assert!(scene.ping("west", WEST_IN, EAST_IN), "after {what}");
        assert!(scene.ping("east", EAST_IN, WEST_IN), "after {what}");
    }
    place::await_some("one pair is left", Duration::from_secs(20), || {
        (scene.node.connection("net")["pairs"] == 1).then_some(())
    });
    scene.assert_nothing_in_clear();
}

/// With the wrong key in the file nothing comes up, and nothing leaves.
#[test]
fn a_stranger_in_strongswans_place_is_not_let_in() {
    if !can_run("a_stranger_in_strongswans_place_is_not_let_in") {
        return;
    }
    let mut rig = Rig::up("direct");
    for name in ["west", "east", "other"] {
        rig.key(name, "2048");
    }
    rig.strongswan(&[]);
    let (west, directory) = (rig.namespace("west"), rig.directory().to_path_buf());
    std::fs::write(directory.join("anchor"), ANCHOR).expect("anchor");
    let mut setup = Setup::new(directory.clone(), "192.0.2.53", directory.join("anchor"));
    setup.key = Some(rig.file("west", "key.pem").into());
    setup.policies = vec![("clear", "0.0.0.0/0\n::/0\n")];
    setup.more = format!(
        "[[connection]]\nname = \"net\"\ngateway = \"192.0.2.2\"\nremote-key = \"{}\"\n\
         local-subnets = [\"{WEST_IN}\"]\nremote-subnets = [\"{EAST_IN}\"]\n",
        rig.file("other", "pub.pem")
    );
    let wire = Capture::start(&west, "veth0", &directory.join("wire.pcap"));
    let node = setup.start(&west);
    assert!(!place::ping(&west, EAST_IN));
    node.await_happened("connection-failed", 1);
    rig.control_later(&["init"]).wait().expect("ctl.sh");
    assert!(!place::ping(&west, EAST_IN));
    let inner = wire.packets("net 10.0.0.0/8");
    assert!(inner.is_empty(), "in the clear: {inner:#?}");
}

/// RFC 7296 §2.9: strongSwan has less than we ask for, and what serves our packet. It is told of
/// which one that is, before all that we would like.
#[test]
fn strongswan_narrows_to_what_serves_the_packet() {
    if !can_run("strongswan_narrows_to_what_serves_the_packet") {
        return;
    }
    let rig = peer(None, &["child:local_ts=10.2.0.0/24", "child:remote_ts=10.1.0.0/24"]);
    let lines = format!(
        "remote-key = \"{}\"\nlocal-subnets = [\"10.1.0.0/16\"]\n\
         remote-subnets = [\"10.3.0.0/16\", \"10.2.0.0/16\"]\n",
        rig.file("east", "pub.pem")
    );
    let scene = Scene::of(rig, "", &lines);
    assert!(scene.ping("west", WEST_IN, EAST_IN), "the first packet is not answered");
    scene.node.await_connection("net", "up");
    // In this order it looks at them.
    scene.rig.expect_log("config: 10.2.0.0/24, received: 10.2.0.1/32[icmp");
    scene.rig.expect_log("config: 10.1.0.0/24, received: 10.1.0.1/32[icmp");
    scene.rig.expect_log("TS 10.2.0.0/24 === 10.1.0.0/24");
    let log = scene.rig.log();
    let at = |words: &str| log.find(words).unwrap_or_else(|| panic!("{words}: {log}"));
    assert!(at("received: 10.2.0.1/32[icmp") < at("received: 10.2.0.0/16"));
    assert!(scene.ping("east", EAST_IN, WEST_IN));
    scene.assert_nothing_in_clear();
}

/// Answers UDP at some ports of an address, until dropped.
struct Echo(Child);

impl Echo {
    fn start(namespace: &str, address: &str, ports: &[u16]) -> Self {
        let script = format!(
            "import select, socket\n\
             all = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in {ports:?}]\n\
             [s.bind((\"{address}\", port)) for s, port in zip(all, {ports:?})]\n\
             print(\"ready\", flush=True)\n\
             while True:\n    \
                 for s in select.select(all, [], [])[0]:\n        \
                     s.sendto(*s.recvfrom(2000))\n"
        );
        let mut command = place::command(namespace, &["python3", "-c", &script]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("python3");
        let mut line = String::new();
        let output = child.stdout.take().expect("piped");
        BufReader::new(output).read_line(&mut line).expect("its first line");
        assert_eq!(line, "ready\n");
        Self(child)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether a UDP datagram is answered, from a port or from any (0).
fn asks(namespace: &str, (from, source): (&str, u16), (to, port): (&str, u16), wait: u8) -> bool {
    let script = format!(
        "import socket\n\
         s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
         s.bind((\"{from}\", {source}))\n\
         s.settimeout({wait})\n\
         s.sendto(b\"must-not-be-seen\", (\"{to}\", {port}))\n\
         s.recvfrom(2000)\n"
    );
    place::run(namespace, &["python3", "-c", &script]).0
}

impl Scene {
    /// ESP packets that west has sent.
    fn sent(&self) -> usize {
        let esp = "src host 192.0.2.1 and (proto 50 or (udp port 4500 and udp[4:2] > 20 \
                   and udp[8:4] != 0))";
        self.wire.packets(esp).len()
    }

    /// West asks a port of east.
    fn ask(&self, port: u16, wait: u8) -> bool {
        asks(&self.rig.namespace("west"), (WEST_IN, 0), (EAST_IN, port), wait)
    }

    /// What is not granted leaves neither in ESP nor in the clear.
    fn assert_nothing_else_leaves(&self, ports: &[u16]) {
        let before = self.sent();
        for port in ports {
            assert!(!self.ask(*port, 1), "{port} is answered");
        }
        let west = self.rig.namespace("west");
        for size in ["56", "4000"] {
            let ping = ["ping", "-n", "-c", "1", "-s", size, "-W", "1", "-I", WEST_IN, EAST_IN];
            assert!(!place::run(&west, &ping).0);
        }
        let line = format!("echo must-not-be-seen > /dev/tcp/{EAST_IN}/{}", ports[0]);
        assert!(!place::run(&west, &["timeout", "2", "bash", "-c", &line]).0);
        assert_eq!(self.sent(), before, "something has left");
        self.assert_nothing_in_clear();
    }
}

fn can_run_udp(test: &str) -> bool {
    can_run(test) && !tests::skipped(test, tests::missing(&["python3"]))
}

/// RFC 7296 §2.9: strongSwan grants one port of what we ask for, or calls for no more: that is carried
/// both ways, and nothing else leaves, encrypted or in the clear.
#[test]
fn a_connection_that_is_granted_one_port_carries_that_and_nothing_else() {
    if !can_run_udp("a_connection_that_is_granted_one_port_carries_that_and_nothing_else") {
        return;
    }
    for start in ["trap", "accept"] {
        let granted = ["child:local_ts=10.2.0.1[udp/7777]", "child:remote_ts=10.1.0.1[udp]"];
        let scene = Scene::up(start, &granted);
        let (west, east) = (scene.rig.namespace("west"), scene.rig.namespace("east"));
        let _east = Echo::start(&east, EAST_IN, &[7777, 7778]);
        if start == "accept" {
            let said = scene.rig.control(&["init"]);
            assert!(said.contains("initiate completed successfully"), "{said}");
        }
        assert!(scene.ask(7777, 8), "{start}: the first packet is not answered");
        scene.node.await_connection("net", "up");
        scene.node.await_happened("connection-narrowed", 1);
        scene.rig.expect_log("TS 10.2.0.1/32[udp/7777] === 10.1.0.1/32[udp]");
        scene.assert_nothing_else_leaves(&[7778, 7776]);
        assert!(scene.ask(7777, 8), "{start}: no answer any more");
        {
            let _west = Echo::start(&west, WEST_IN, &[5555]);
            // It has the port on that side, too.
            drop(_east);
            assert!(asks(&east, (EAST_IN, 7777), (WEST_IN, 5555), 8), "{start}: from east");
            assert!(!asks(&east, (EAST_IN, 7778), (WEST_IN, 5555), 1));
        }
        let log = scene.node.log();
        let line = log.lines().find(|line| line.contains("single protocols or ports only"));
        let line = line.unwrap_or_else(|| panic!("{log}"));
        for words in ["WARN", "connection net", "10.2.0.1[17/7777-7777]", "10.1.0.1[17/0-65535]"] {
            assert!(line.contains(words), "no {words:?}: {line}");
        }
        scene.assert_nothing_in_clear();
    }
}

/// RFC 7296 §2.9: what strongSwan has in two children is asked for apart when there is a packet for
/// it, or comes when strongSwan calls for it; each port goes through its own pair, also after a rekey.
#[test]
fn what_strongswan_has_apart_is_carried_together() {
    if !can_run_udp("what_strongswan_has_apart_is_carried_together") {
        return;
    }
    let second = "child:local_ts=10.2.0.1[udp/7777]\n      }\n      second {\n        \
                  local_ts = 10.2.0.1[udp/7778-7779]\n        remote_ts = 10.1.0.1\n        \
                  esp_proposals = aes128gcm16";
    for start in ["trap", "accept"] {
        let scene = Scene::up(start, &[second]);
        let east = scene.rig.namespace("east");
        let _echo = Echo::start(&east, EAST_IN, &[7776, 7777, 7778, 7779]);
        if start == "accept" {
            for child in ["e", "second"] {
                let said = scene.rig.control(&["init", child]);
                assert!(said.contains("initiate completed successfully"), "{said}");
            }
        }
        for port in [7777, 7778, 7779, 7777] {
            assert!(scene.ask(port, 8), "{start}: {port} is not answered");
        }
        assert_eq!(scene.node.connection("net")["pairs"], 2);
        scene.assert_nothing_else_leaves(&[7776]);
        for child in ["second", "e"] {
            scene.rig.control(&["rekey-child", child]);
            for port in [7777, 7778] {
                assert!(scene.ask(port, 8), "{start}: {port} after {child} is rekeyed");
            }
        }
        place::await_some("two pairs are left", Duration::from_secs(20), || {
            (scene.node.connection("net")["pairs"] == 2).then_some(())
        });
        for port in [7777, 7778] {
            assert!(scene.ask(port, 8), "{start}: {port} in the end");
        }
        // One ends, and the other goes on; where we may ask, it is asked for again.
        scene.rig.control(&["term-child", "second"]);
        assert!(scene.ask(7777, 8), "{start}: without the other");
        assert_eq!(scene.ask(7778, if start == "trap" { 8 } else { 1 }), start == "trap");
        scene.assert_nothing_in_clear();
    }
}

const SECRET: &str = "correct horse battery staple";

/// A connection whose proof is this secret, in a file; strongSwan has `SECRET`.
fn with_secret(secret: &str) -> Scene {
    let rig = peer(None, &[]);
    rig.share(SECRET);
    let file = rig.directory().join("psk");
    std::fs::write(&file, format!("{secret}\n")).expect("secret");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("mode");
    let lines = format!(
        "psk-file = \"{}\"\nlocal-subnets = [\"{WEST_IN}\"]\nremote-subnets = [\"{EAST_IN}\"]\n",
        file.display()
    );
    Scene::of(rig, "", &lines)
}

#[test]
fn a_secret_from_a_file_proves_both() {
    if !can_run("a_secret_from_a_file_proves_both") {
        return;
    }
    let scene = with_secret(SECRET);
    assert!(scene.ping("west", WEST_IN, EAST_IN), "the first packet is not answered");
    let up = scene.node.await_connection("net", "up");
    assert_eq!(text(&up, "trust"), "configured");
    scene.rig.expect_log("authentication of '192.0.2.1' with pre-shared key successful");
    scene.rig.control(&["term"]);
    scene.node.await_connection("net", "idle");
    let said = scene.rig.control(&["init"]);
    assert!(said.contains("initiate completed successfully"), "{said}");
    scene.node.await_connection("net", "up");
    assert!(scene.ping("east", EAST_IN, WEST_IN));
    scene.rig.expect_log_times("with pre-shared key successful", 2);
    scene.assert_nothing_in_clear();
}

#[test]
fn another_secret_in_the_file_lets_nothing_through() {
    if !can_run("another_secret_in_the_file_lets_nothing_through") {
        return;
    }
    let scene = with_secret("correct horse battery stable");
    let once = ["ping", "-n", "-c", "1", "-W", "2", "-I", WEST_IN, EAST_IN];
    assert!(!place::run(&scene.rig.namespace("west"), &once).0);
    scene.rig.expect_log("tried 1 shared key for");
    scene.node.await_happened("connection-failed", 1);
    let said = scene.rig.control_later(&["init"]).wait().expect("ctl.sh");
    assert!(!said.success());
    scene.rig.expect_log("received AUTHENTICATION_FAILED notify error");
    assert!(!place::run(&scene.rig.namespace("west"), &once).0);
    let inner = scene.wire.packets("net 10.0.0.0/8");
    assert!(inner.is_empty(), "in the clear: {inner:#?}");
}
