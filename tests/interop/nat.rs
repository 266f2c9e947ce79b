//! A pool of addresses on one side and a NAT before the other (RFC 4322 §5.3, RFC 7296 §2.19), with
//! strongSwan in either role. Rules 69, 72.

use tests::names::Names;
use tests::node::{Node, Setup, text};
use tests::place::{self, Capture};

use crate::rig::{Rig, can_run_with_names as can_run};

/// One of the two families, outside and inside.
struct Family {
    /// Where strongSwan or we are behind the NAT, and whom that calls.
    inner: &'static str,
    server: &'static str,
    /// The server alone, as a selector.
    host: &'static str,
    /// What is asked for, what there is to give, and what is given.
    any: &'static str,
    pool: &'static str,
    lent: &'static str,
}

const V4: Family = Family {
    inner: "10.9.0.2",
    server: "192.0.2.2",
    host: "192.0.2.2/32",
    any: "0.0.0.0",
    pool: "10.99.0.0/24",
    lent: "10.99.0.1",
};
const V6: Family = Family {
    inner: "2001:db8:9::2",
    server: "2001:db8::2",
    host: "2001:db8::2/128",
    any: "::",
    pool: "2001:db8:99::/64",
    lent: "2001:db8:99::1",
};
const NAME: &str = "alice.example";

impl Family {
    fn is_v6(&self) -> bool {
        self.server.contains(':')
    }

    /// West behind a NAT, with keys for both sides.
    fn rig(&self) -> Rig {
        let rig = Rig::up("nat");
        if self.is_v6() {
            rig.translate_v6();
        }
        rig.key("west", "2048");
        rig.key("east", "2048");
        rig
    }

    /// Tells strongSwan which family is outside, and more.
    fn strongswan(&self, rig: &mut Rig, options: &[&str]) {
        let more = self.is_v6().then_some("v6=yes");
        let options: Vec<&str> = options.iter().copied().chain(more).collect();
        rig.strongswan(&options);
    }

    fn address(&self) -> String {
        match self.is_v6() {
            true => format!("[{}]:7000", self.server),
            false => format!("{}:7000", self.server),
        }
    }
}

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
        ("2.0.192.in-addr.arpa", vec![record(rig, V4.server, V4.server, server)]),
        ("8.b.d.0.1.0.0.2.ip6.arpa", vec![record(rig, V6.server, V6.server, server)]),
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
    /// Our node behind a NAT in west, and strongSwan in east, which has addresses to give or not.
    fn behind_nat(family: &Family, pool: bool) -> Self {
        let mut rig = family.rig();
        let (identity, own) = (format!("remote_id={NAME}"), format!("local_id={}", family.server));
        let near = format!("child:local_ts={}", family.host);
        let mut options =
            vec!["any=yes", &own, &identity, "h2h=yes", &near, "child:remote_ts=dynamic"];
        options.extend(pool.then_some("conn:pools=lent"));
        family.strongswan(&mut rig, &options);
        if pool {
            rig.pool("lent", family.pool);
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
    if can_run("strongswan_gives_us_an_address") {
        strongswan_gives(&V4);
    }
}

/// Rule 72: the same with INTERNAL_IP6_ADDRESS (RFC 7296 §3.15.1).
#[test]
fn strongswan_gives_us_an_ipv6_address() {
    if can_run("strongswan_gives_us_an_ipv6_address") {
        strongswan_gives(&V6);
    }
}

fn strongswan_gives(family: &Family) {
    let scene = Scene::behind_nat(family, true);
    let Family { server, lent, inner, .. } = *family;
    let [west, east] = ["west", "east"].map(|side| scene.rig.namespace(side));
    assert!(place::ping(&west, server), "{}", scene.node.status());
    let keyed = scene.node.await_state(server, "keyed");
    assert_eq!(text(&keyed, "known_as"), lent, "{keyed}");
    assert_eq!(text(&keyed, "source"), inner, "{keyed}");
    scene.rig.expect_log(&format!("assigning virtual IP {lent} to peer '{NAME}'"));
    // What strongSwan's side sends to the address arrives at ours.
    assert!(place::ping(&east, lent));
    let traffic = env!("CARGO_BIN_EXE_traffic");
    place::transfer(traffic, &west, &east, &family.address(), "20000000");
    // Whatever is made anew keeps it.
    for what in ["rekey-child", "rekey-ike"] {
        let before = text(&scene.node.destination(server), "spi_in").to_owned();
        scene.rig.rekey(what);
        let now = scene.node.await_state(server, "keyed");
        assert_eq!(text(&now, "spi_in") != before, what == "rekey-child", "{now}");
        assert!(place::ping(&west, server), "{what}");
        assert!(place::ping(&east, lent), "{what}");
    }
    assert_eq!(scene.node.happened("calling"), 1);
    scene.assert_only_esp_through_the_nat();
}

#[test]
fn strongswan_without_pool_is_of_no_use() {
    if !can_run("strongswan_without_pool_is_of_no_use") {
        return;
    }
    let scene = Scene::behind_nat(&V4, false);
    let west = scene.rig.namespace("west");
    let _ = place::run(&west, &["ping", "-n", "-c", "1", "-W", "1", V4.server]);
    let clear = scene.node.await_state(V4.server, "clear-text");
    assert!(text(&clear, "reason").contains("no address to give"), "{clear}");
}

#[test]
fn we_give_strongswan_an_address() {
    if can_run("we_give_strongswan_an_address") {
        we_give(&V4);
    }
}

/// Rule 72: the same with INTERNAL_IP6_ADDRESS.
#[test]
fn we_give_strongswan_an_ipv6_address() {
    if can_run("we_give_strongswan_an_ipv6_address") {
        we_give(&V6);
    }
}

fn we_give(family: &Family) {
    let Family { server, lent, .. } = *family;
    let mut rig = family.rig();
    rig.swap();
    let (identity, peer) = (format!("local_id={NAME}"), format!("remote_id={server}"));
    let (vips, far) =
        (format!("conn:vips={}", family.any), format!("child:remote_ts={}", family.host));
    family.strongswan(
        &mut rig,
        &[&identity, &peer, "h2h=yes", &vips, "child:local_ts=dynamic", &far],
    );
    let names = serve(&rig, "east", ["west", "east"]);
    let setup = Setup {
        key: Some(rig.file("west", "key.pem").into()),
        more: format!("[pool]\nprefixes = [\"{}\"]\n", family.pool),
        ..Setup::new(rig.directory().to_path_buf(), Names::RESOLVER, names.trust_anchors())
    };
    let [west, east] = ["west", "east"].map(|side| rig.namespace(side));
    let wire = Capture::start(&east, "veth0", &rig.directory().join("wire.pcap"));
    let node = setup.start(&east);
    let scene = Scene { node, wire, _names: names, rig };
    for round in 1..3 {
        let said = scene.rig.control(&["init"]);
        assert!(said.contains("initiate completed successfully"), "{said}");
        let keyed = scene.node.await_state(lent, "keyed");
        assert_eq!(text(&keyed, "trust"), "dnssec", "{keyed}");
        assert_eq!(text(&keyed, "identity"), format!("@{NAME}"), "{keyed}");
        scene.rig.expect_log_times(&format!("installing new virtual IP {lent}"), round);
        assert!(place::ping(&west, server), "round {round}");
        assert!(place::ping(&east, lent), "round {round}");
        if round == 1 {
            let traffic = env!("CARGO_BIN_EXE_traffic");
            place::transfer(traffic, &west, &east, &family.address(), "5000000");
            for what in ["rekey-child", "rekey-ike"] {
                let before = text(&scene.node.destination(lent), "spi_in").to_owned();
                scene.rig.rekey(what);
                let now = scene.node.await_state(lent, "keyed");
                assert_eq!(text(&now, "known_as"), text(&keyed, "known_as"), "{now}");
                assert_eq!(text(&now, "spi_in") != before, what == "rekey-child", "{now}");
                assert!(place::ping(&east, lent), "{what}");
            }
        }
        // Who comes back has the address that it had.
        scene.rig.control(&["term"]);
        scene.node.await_state(lent, "");
    }
    scene.assert_only_esp_through_the_nat();
}

/// It is told why, whoever it is: nobody's private address is believed.
#[test]
fn strongswan_that_brings_its_own_address_is_told_to_ask() {
    if !can_run("strongswan_that_brings_its_own_address_is_told_to_ask") {
        return;
    }
    let mut rig = V4.rig();
    rig.swap();
    let identity = format!("local_id={NAME}");
    let own = format!("child:local_ts={}/32", V4.inner);
    let far = "child:remote_ts=192.0.2.2/32";
    rig.strongswan(&[&identity, "remote_id=192.0.2.2", "h2h=yes", &own, far]);
    let names = serve(&rig, "east", ["west", "east"]);
    let setup = Setup {
        key: Some(rig.file("west", "key.pem").into()),
        more: format!("[pool]\nprefixes = [\"{}\"]\n", V4.pool),
        ..Setup::new(rig.directory().to_path_buf(), Names::RESOLVER, names.trust_anchors())
    };
    let node = setup.start(&rig.namespace("east"));
    let mut starting = rig.control_later(&["init"]);
    rig.expect_log("FAIL_CP_REQ");
    let _ = starting.wait();
    assert!(node.destination(V4.inner).is_null(), "{}", node.status());
    drop(node);
}
