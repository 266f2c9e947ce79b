//! A pool of addresses on one side and a NAT before the other (RFC 4322 §5.3, RFC 7296 §2.19), with
//! strongSwan in either role. Rules 69, 72.

use tests::names::Names;
use tests::node::{Node, Setup, text};
use tests::place::{self, Capture};

use crate::rig::{Rig, can_run_with_names as can_run};

/// Where strongSwan or we are behind the NAT, and whom that calls.
const INNER: &str = "10.9.0.2";
const SERVER: &str = "192.0.2.2";
const NAME: &str = "alice.example";
const POOL: &str = "10.99.0.0/24";
const LENT: &str = "10.99.0.1";

/// The record of a name or an address, with the key of this file.
fn record(rig: &Rig, owner: &str, gateway: &str, key: &str) -> [String; 2] {
    let said = std::process::Command::new(tests::oe_node())
        .args(["showhostkey", "--format", "nsd", "--owner", owner, "--txt", gateway])
        .args(["--key-file", &rig.file(key, "pub.pem")])
        .output()
        .expect("oe-node");
    let line = String::from_utf8(said.stdout).expect("text");
    let (owner, record) = line.trim().split_once(char::is_whitespace).expect("a record");
    [owner.to_owned(), record.to_owned()]
}

/// The server's address and the client's name, with their keys, in the DNS of our side.
fn serve(rig: &Rig, ours: &str, [server, client]: [&str; 2]) -> Names {
    let zones = [
        ("2.0.192.in-addr.arpa", vec![record(rig, SERVER, SERVER, server)]),
        ("example", vec![record(rig, NAME, &format!("@{NAME}"), client)]),
    ];
    Names::serve(&rig.namespace(ours), &rig.directory().join("dns"), &zones)
}

/// The fields are dropped in this order.
struct Scene {
    node: Node,
    wire: Capture,
    _names: Names,
    rig: Rig,
}

impl Scene {
    /// Our node behind a NAT in west, and strongSwan with this in its configuration in east.
    fn behind_nat(pools: Option<&str>) -> Self {
        let mut rig = Rig::up("nat");
        rig.key("west", "2048");
        rig.key("east", "2048");
        let identity = format!("remote_id={NAME}");
        let mut options = vec![
            "any=yes",
            "local_id=192.0.2.2",
            &identity,
            "h2h=yes",
            "child:local_ts=192.0.2.2/32",
            "child:remote_ts=dynamic",
        ];
        options.extend(pools.map(|_| "conn:pools=lent"));
        rig.strongswan(&options);
        if let Some(addresses) = pools {
            rig.pool("lent", addresses);
        }
        let names = serve(&rig, "west", ["east", "west"]);
        let setup = Setup {
            key: Some(rig.file("west", "key.pem").into()),
            node: format!("identity = \"@{NAME}\"\n"),
            ..Setup::new(rig.directory().to_path_buf(), Names::RESOLVER, names.trust_anchors())
        };
        let east = rig.namespace("east");
        let wire = Capture::start(&east, "veth0", &rig.directory().join("wire.pcap"));
        let node = setup.start(&rig.namespace("west"));
        Self { node, wire, _names: names, rig }
    }

    fn assert_only_esp_through_the_nat(&self) {
        self.wire.await_esp();
        let clear = self.wire.in_clear();
        assert!(clear.is_empty(), "in the clear: {clear:#?}");
    }
}

/// Rules 69, 72.
#[test]
fn strongswan_gives_us_an_address() {
    if !can_run("strongswan_gives_us_an_address") {
        return;
    }
    let scene = Scene::behind_nat(Some(POOL));
    let [west, east] = ["west", "east"].map(|side| scene.rig.namespace(side));
    assert!(place::ping(&west, SERVER), "{}", scene.node.status());
    let keyed = scene.node.await_state(SERVER, "keyed");
    assert_eq!(text(&keyed, "known_as"), LENT, "{keyed}");
    assert_eq!(text(&keyed, "source"), INNER, "{keyed}");
    scene.rig.expect_log(&format!("assigning virtual IP {LENT} to peer '{NAME}'"));
    // What strongSwan's side sends to the address arrives at ours.
    assert!(place::ping(&east, LENT));
    let traffic = env!("CARGO_BIN_EXE_traffic");
    place::transfer(traffic, &west, &east, &format!("{SERVER}:7000"), "20000000");
    // Whatever is made anew keeps it.
    for what in ["rekey-child", "rekey-ike"] {
        scene.rig.control(&[what]);
        assert!(place::ping(&west, SERVER), "{what}");
        assert!(place::ping(&east, LENT), "{what}");
    }
    assert_eq!(scene.node.happened("calling"), 1);
    scene.assert_only_esp_through_the_nat();
}

#[test]
fn strongswan_without_pool_is_of_no_use() {
    if !can_run("strongswan_without_pool_is_of_no_use") {
        return;
    }
    let scene = Scene::behind_nat(None);
    let west = scene.rig.namespace("west");
    let _ = place::run(&west, &["ping", "-n", "-c", "1", "-W", "1", SERVER]);
    let clear = scene.node.await_state(SERVER, "clear-text");
    assert!(text(&clear, "reason").contains("no address to give"), "{clear}");
}

#[test]
fn we_give_strongswan_an_address() {
    if !can_run("we_give_strongswan_an_address") {
        return;
    }
    let mut rig = Rig::up("nat");
    rig.key("west", "2048");
    rig.key("east", "2048");
    rig.swap();
    let identity = format!("local_id={NAME}");
    rig.strongswan(&[
        &identity,
        "remote_id=192.0.2.2",
        "h2h=yes",
        "conn:vips=0.0.0.0",
        "child:local_ts=dynamic",
        "child:remote_ts=192.0.2.2/32",
    ]);
    let names = serve(&rig, "east", ["west", "east"]);
    let setup = Setup {
        key: Some(rig.file("west", "key.pem").into()),
        more: format!("[pool]\nprefixes = [\"{POOL}\"]\n"),
        ..Setup::new(rig.directory().to_path_buf(), Names::RESOLVER, names.trust_anchors())
    };
    let [west, east] = ["west", "east"].map(|side| rig.namespace(side));
    let wire = Capture::start(&east, "veth0", &rig.directory().join("wire.pcap"));
    let node = setup.start(&east);
    let scene = Scene { node, wire, _names: names, rig };
    for round in 1..3 {
        let said = scene.rig.control(&["init"]);
        assert!(said.contains("initiate completed successfully"), "{said}");
        let keyed = scene.node.await_state(LENT, "keyed");
        assert_eq!(text(&keyed, "trust"), "dnssec", "{keyed}");
        assert_eq!(text(&keyed, "identity"), format!("@{NAME}"), "{keyed}");
        scene.rig.expect_log_times(&format!("installing new virtual IP {LENT}"), round);
        assert!(place::ping(&west, SERVER), "round {round}");
        assert!(place::ping(&east, LENT), "round {round}");
        if round == 1 {
            let traffic = env!("CARGO_BIN_EXE_traffic");
            place::transfer(traffic, &west, &east, &format!("{SERVER}:7000"), "5000000");
            scene.rig.control(&["rekey-child"]);
            assert!(place::ping(&east, LENT));
        }
        // Who comes back has the address that it had.
        scene.rig.control(&["term"]);
        scene.node.await_state(LENT, "");
    }
    scene.assert_only_esp_through_the_nat();
}

/// It is told why, whoever it is: nobody's private address is believed.
#[test]
fn strongswan_that_brings_its_own_address_is_told_to_ask() {
    if !can_run("strongswan_that_brings_its_own_address_is_told_to_ask") {
        return;
    }
    let mut rig = Rig::up("nat");
    rig.key("west", "2048");
    rig.key("east", "2048");
    rig.swap();
    let identity = format!("local_id={NAME}");
    let own = format!("child:local_ts={INNER}/32");
    let far = "child:remote_ts=192.0.2.2/32";
    rig.strongswan(&[&identity, "remote_id=192.0.2.2", "h2h=yes", &own, far]);
    let names = serve(&rig, "east", ["west", "east"]);
    let setup = Setup {
        key: Some(rig.file("west", "key.pem").into()),
        more: format!("[pool]\nprefixes = [\"{POOL}\"]\n"),
        ..Setup::new(rig.directory().to_path_buf(), Names::RESOLVER, names.trust_anchors())
    };
    let node = setup.start(&rig.namespace("east"));
    let mut starting = rig.control_later(&["init"]);
    rig.expect_log("FAIL_CP_REQ");
    let _ = starting.wait();
    assert!(node.destination(INNER).is_null(), "{}", node.status());
    drop(node);
}
