//! A configured connection with strongSwan at the other end, net to net.
//!
//! Neither side asks DNS: each has the other's key in a file. The inner addresses are on `lo`.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
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
        scene.rig.control(&[what]);
        std::thread::sleep(Duration::from_millis(300));
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

/// RFC 7296 §2.9: strongSwan grants one port of what we ask for, which no connection of ours can be
/// cut to: nothing is sent, encrypted or in the clear, whoever calls, and we say why.
#[test]
fn a_connection_that_is_granted_one_port_carries_nothing_and_says_so() {
    if !can_run("a_connection_that_is_granted_one_port_carries_nothing_and_says_so") {
        return;
    }
    let granted = ["child:local_ts=10.2.0.1[udp/7777]", "child:remote_ts=10.1.0.1[udp]"];
    let scene = Scene::up("trap", &granted);
    let send = || {
        let west = scene.rig.namespace("west");
        for port in [7777, 7778] {
            let line = format!("echo must-not-be-seen > /dev/udp/{EAST_IN}/{port}");
            let _ = place::run(&west, &["bash", "-c", &line]);
        }
        assert!(!place::run(&west, &["ping", "-n", "-c", "1", "-W", "1", EAST_IN]).0);
    };
    for we_call in [true, false] {
        if we_call {
            send();
        } else {
            scene.rig.control(&["term"]);
            scene.node.await_connection("net", "idle");
            let said = scene.rig.control(&["init"]);
            assert!(said.contains("initiate completed successfully"), "{said}");
        }
        scene.node.await_connection("net", "up");
        scene.node.await_happened("connection-narrowed", if we_call { 1 } else { 2 });
        send();
    }
    scene.rig.expect_log("TS 10.2.0.1/32[udp/7777] === 10.1.0.1/32[udp]");
    let log = scene.node.log();
    let line = log.lines().find(|line| line.contains("so that it carries nothing"));
    let line = line.unwrap_or_else(|| panic!("{log}"));
    for words in ["WARN", "connection net", "10.2.0.1[17/7777-7777]", "10.1.0.1[17/0-65535]"] {
        assert!(line.contains(words), "no {words:?}: {line}");
    }
    let up = scene.node.connection("net");
    assert_eq!((&up["packets_out"], &up["pairs"]), (&0.into(), &1.into()), "{up}");
    let inner = scene.wire.packets("net 10.0.0.0/8");
    assert!(inner.is_empty(), "in the clear: {inner:#?}");
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
