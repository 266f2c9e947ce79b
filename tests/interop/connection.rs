//! A configured connection with strongSwan at the other end, net to net.
//!
//! Neither side asks DNS: each has the other's key in a file. The inner addresses are on `lo`.

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
        let mut rig = Rig::up("direct");
        if let Some(charon) = charon {
            rig.with_charon(charon);
        }
        rig.key("west", "2048");
        rig.key("east", "2048");
        rig.strongswan(options);
        let (west, directory) = (rig.namespace("west"), rig.directory().to_path_buf());
        let anchor = directory.join("anchor");
        std::fs::write(&anchor, ANCHOR).expect("anchor");
        let mut setup = Setup::new(directory.clone(), "192.0.2.53", anchor);
        setup.key = Some(rig.file("west", "key.pem").into());
        setup.policies = vec![("clear", "0.0.0.0/0\n::/0\n")];
        setup.more = format!(
            "{tables}[[connection]]\nname = \"net\"\ngateway = \"192.0.2.2\"\n\
             remote-key = \"{}\"\nlocal-subnets = [\"{WEST_IN}\"]\n\
             remote-subnets = [\"{EAST_IN}\"]\nstart = \"{start}\"\n",
            rig.file("east", "pub.pem")
        );
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
