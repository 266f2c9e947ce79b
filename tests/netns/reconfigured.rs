//! Connections that come and go by a reload, and what keeps them closed while no daemon runs.

use std::fs;

use tests::node::{Setup, text};
use tests::place;

use crate::internet::{DNS, EAST, Internet, PATIENCE, WEST, can_run};
use crate::marked::{Marked, Wires};

/// A connection from one host to the other, in both families.
fn connection(gateway: &str, local: [&str; 2], remote: [&str; 2]) -> String {
    format!(
        "[[connection]]\nname = \"net\"\ngateway = \"{gateway}\"\nremote-key = \"dns\"\n\
         local-subnets = {local:?}\nremote-subnets = {remote:?}\n"
    )
}

/// Both ends of it.
fn both(internet: &Internet) -> [Setup; 2] {
    let mut setups = [internet.setup("west"), internet.setup("east")];
    setups[0].more = connection(EAST[0], WEST, EAST);
    // One of the two calls, so that no calls cross.
    setups[1].more = connection(WEST[0], EAST, WEST) + "start = \"accept\"\n";
    setups
}

const RELOAD: &str = r#"{"request":"reload"}"#;

/// P1: what a file that is read anew says of connections is followed, what is wrong with it changes
/// nothing, and what it cannot follow it says.
#[test]
fn a_reload_follows_connections() {
    if !can_run("a_reload_follows_connections") {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west", "east"]);
    let [mut west, mut east] = both(&internet);
    let said = [std::mem::take(&mut west.more), std::mem::take(&mut east.more)];
    let nodes = [west.start(&internet.namespace("west")), east.start(&internet.namespace("east"))];
    assert!(internet.ping("west", EAST[0]) && internet.ping("west", DNS[0]));
    nodes[0].await_pairs(EAST[0], 1);
    let wire = internet.capture("west");

    // New: what was opportunistic is the connection's.
    (west.more, east.more) = (said[0].clone(), said[1].clone());
    for (setup, node) in [(&east, &nodes[1]), (&west, &nodes[0])] {
        let _ = setup.write();
        let done = node.ask(RELOAD);
        assert_eq!((&done["connections_new"], &done["connections_gone"]), (&1.into(), &0.into()));
        assert_eq!(done["restart"].as_array().map(Vec::len), Some(0), "{done}");
    }
    for peer in EAST {
        assert!(internet.ping("west", peer), "{peer}");
    }
    nodes[0].await_connection("net", "up");
    let ups = nodes[0].await_happened("connection-up", 1);
    assert!(nodes[0].destination(EAST[0]).is_null());
    // Again, and nothing happens; with an error in it, and nothing happens either.
    let done = nodes[0].ask(RELOAD);
    assert_eq!((&done["connections_new"], &done["changed"]), (&0.into(), &0.into()));
    let good = fs::read_to_string(west.write()).unwrap();
    let file = west.write();
    let line = 1 + good.lines().position(|line| line.starts_with("remote-key")).unwrap();
    fs::write(&file, good.replace("\"dns\"", "\"/nowhere.pem\"")).unwrap();
    let refused = nodes[0].ask(RELOAD);
    let place = format!("{}:{line}: connection net: remote-key: /nowhere.pem", file.display());
    assert!(text(&refused, "error").starts_with(&place), "{refused}");
    fs::write(&file, good.replace("[node]", "[node]\nmark = 77\nlisten = [\"192.0.2.11\"]"))
        .unwrap();
    let done = nodes[0].ask(RELOAD);
    assert_eq!(done["restart"], serde_json::json!(["node.listen", "node.mark"]));
    assert!(internet.ping("west", EAST[0]));
    assert_eq!(nodes[0].happened("connection-up"), ups, "the pair is the one that was");

    // Gone: the peer is opportunistic again, and nothing has been in the clear.
    west.more.clear();
    east.more.clear();
    for (setup, node) in [(&west, &nodes[0]), (&east, &nodes[1])] {
        let _ = setup.write();
        assert_eq!(node.ask(RELOAD)["connections_gone"], 1);
    }
    assert!(internet.ping("west", EAST[0]));
    nodes[0].await_pairs(EAST[0], 1);
    let clear = wire.packets("(icmp or icmp6) and (host 198.51.100.22 or host 2001:db8:2::22)");
    assert!(
        clear.iter().all(|line| line.contains("neighbor") || line.contains("router")),
        "{clear:#?}"
    );
}

/// RFC 7296 §1.4.1: a reload refuses the peer, which cannot hear of it, because its IKE is cut off.
/// What it goes on sending under the old SPI is not received from then on.
#[test]
fn what_a_reload_refuses_is_not_received_on() {
    const NAME: &str = "what_a_reload_refuses_is_not_received_on";
    if !can_run(NAME) || tests::skipped(NAME, tests::missing(&["nft"])) {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west", "east"]);
    let mut west = internet.setup("west");
    let nodes = [
        west.start(&internet.namespace("west")),
        internet.setup("east").start(&internet.namespace("east")),
    ];
    let count = |which: &str| nodes[0].status()["counters"]["plane"][which].as_u64().unwrap();
    let pings = |times: &str| {
        let all = ["ping", "-n", "-q", "-c", times, "-i", "0.1", "-W", "1", WEST[0]];
        place::run(&internet.namespace("east"), &all).0
    };
    assert!(internet.ping("west", EAST[0]) && pings("3"));
    nodes[1].await_pairs(WEST[0], 1);
    let hub = internet.namespace("hub");
    place::ok(&hub, &["nft", "add", "table", "inet", "mute"]);
    place::ok(&hub, &["nft", "add chain inet mute way { type filter hook forward priority 0 ; }"]);
    for ike in ["udp dport 500", "udp dport 4500 @th,64,32 0"] {
        place::ok(&hub, &["nft", &format!("add rule inet mute way {ike} drop")]);
    }
    assert!(pings("3"), "what is not IKE still passes");
    place::await_some("it is counted", PATIENCE, || (count("opened") >= 6).then_some(()));
    let (opened, unknown) = (count("opened"), count("unknown_spi"));
    west.policies =
        vec![("private-or-clear", "0.0.0.0/0\n::/0\n"), ("clear", "198.51.100.22/32\n")];
    let _ = west.write();
    assert!(nodes[0].ask(RELOAD)["error"].is_null());
    assert!(!pings("20"), "nobody answers");
    place::await_some("it is counted", PATIENCE, || {
        (count("unknown_spi") >= unknown + 20).then_some(())
    });
    assert_eq!(count("opened"), opened);
    assert!(nodes[0].destination(EAST[0]).is_null());
}

/// Attack A11.
/// P1: the guard keeps what is between the subnets of a connection closed: before the first start,
/// between two, after a crash.
#[test]
fn the_guard_keeps_connections_closed() {
    if !can_run("the_guard_keeps_connections_closed") {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west", "east"]);
    let [west, east] = both(&internet);
    let east = east.start(&internet.namespace("east"));
    let file = west.write().display().to_string();
    let binary = tests::oe_node().display().to_string();
    let guard = |words: &[&str]| {
        let all = [&[binary.as_str(), "guard"], words, &["--config", &file]].concat();
        place::run(&internet.namespace("west"), &all)
    };
    let wires = Wires::listen(&internet);
    internet.cut("west");
    let (up, said) = guard(&["up"]);
    assert!(up, "{said}");
    internet.join("west");
    let marked = Marked::start(&internet, "west", &EAST);
    marked.sent(20);
    assert!(internet.ping("west", DNS[0]), "what no connection has is not concerned");
    for crash in [true, false] {
        let mut node = west.start(&internet.namespace("west"));
        place::await_some("east answers", PATIENCE, || {
            internet.ping("west", EAST[0]).then_some(())
        });
        node.await_connection("net", "up");
        east.await_connection("net", "up");
        if crash {
            node.kill();
        } else {
            assert!(node.terminate().success());
        }
        drop(node);
        marked.sent(20);
        let (good, said) = guard(&["status"]);
        assert!(good && said.contains("192.0.2.11/32-198.51.100.22/32"), "{said}");
    }
    marked.stop();
    wires.assert_unmarked();
    let (down, said) = guard(&["down"]);
    assert!(down, "{said}");
    let rules = place::ok(&internet.namespace("west"), &["ip", "rule"]);
    assert!(!rules.contains("43"), "{rules}");
    let marked = Marked::start(&internet, "west", &EAST);
    wires.await_marked();
    marked.stop();
}

fn pool(prefixes: &[&str]) -> String {
    format!("[pool]\nprefixes = {prefixes:?}\n")
}

/// Rule 72: a pool that a file read anew changes. Who has an address of it still goes on as before;
/// who has none any more is told, asks again and gets one that there is; without a pool it hears why
/// it gets none.
#[test]
fn a_reload_follows_the_pool() {
    let test = "a_reload_follows_the_pool";
    if !can_run(test) || tests::skipped(test, tests::missing(&["nft"])) {
        return;
    }
    let mut internet = Internet::new();
    let name = "west.test";
    let named = format!("@{name}");
    internet.serve_records(&[("east", EAST[0], EAST[0]), ("west", name, &named)]);
    // West is behind a NAT for everybody but the one who serves DNS.
    for words in [
        "add table ip nat",
        "add chain ip nat post { type nat hook postrouting priority 100; }",
        "add rule ip nat post oifname east masquerade",
    ] {
        place::ok(&internet.namespace("hub"), &["nft", words]);
    }
    let (mut west, mut east) = (internet.setup("west"), internet.setup("east"));
    west.node = format!("identity = \"{named}\"\n");
    east.more = pool(&["10.99.0.0/24"]);
    let east_node = east.start(&internet.namespace("east"));
    let node = west.start(&internet.namespace("west"));
    let mut reload = |prefixes: Option<&[&str]>| {
        east.more = prefixes.map(pool).unwrap_or_default();
        let file = east.write();
        (east_node.ask(RELOAD), file)
    };
    let wire = internet.capture("east");
    assert!(internet.ping("west", EAST[0]));
    east_node.await_state("10.99.0.1", "keyed");

    // It still fits; then a pool that cannot be, which changes nothing.
    let (done, _) = reload(Some(&["10.97.0.0/24", "10.99.0.0/28"]));
    assert_eq!((&done["leases_ended"], &done["restart"]), (&0.into(), &serde_json::json!([])));
    let (refused, file) = reload(Some(&["10.97.0.0/24", "198.51.100.0/24"]));
    let line =
        fs::read_to_string(&file).unwrap().lines().position(|line| line == "[pool]").unwrap();
    let place = format!("{}:{}: pool.prefixes: 198.51.100.0/24 holds", file.display(), line + 2);
    assert!(text(&refused, "error").starts_with(&place), "{refused}");
    assert!(internet.ping("west", EAST[0]));
    assert_eq!(text(&east_node.destination("10.99.0.1"), "state"), "keyed");
    assert_eq!(node.happened("calling"), 1);

    // It does not fit.
    let (done, _) = reload(Some(&["10.97.0.0/24"]));
    assert_eq!(done["leases_ended"], 1, "{done}");
    east_node.await_state("10.99.0.1", "");
    node.await_state(EAST[0], "");
    assert!(internet.ping("west", EAST[0]));
    east_node.await_state("10.97.0.1", "keyed");
    assert_eq!(text(&node.await_state(EAST[0], "keyed"), "known_as"), "10.97.0.1");
    assert!(internet.ping("east", "10.97.0.1"));
    let routes = place::ok(&internet.namespace("east"), &["ip", "route", "show", "table", "4322"]);
    assert!(routes.contains("blackhole 10.97.0.0/24") && !routes.contains("10.99."), "{routes}");
    let clear = wire.packets("icmp and not icmp[icmptype] = icmp-unreach");
    assert!(clear.is_empty(), "{clear:#?}");

    // Away with the section, and back with it.
    let (done, _) = reload(None);
    assert_eq!(done["leases_ended"], 1, "{done}");
    node.await_state(EAST[0], "");
    assert!(internet.ping("west", EAST[0]), "in the clear");
    let clear = node.await_state(EAST[0], "clear-text");
    assert!(text(&clear, "reason").contains("no pool"), "{clear}");
    assert_eq!(east_node.status()["leases"], serde_json::json!([]));
    assert_eq!(reload(Some(&["10.98.0.0/24"])).0["leases_ended"], 0);
    let forgotten = node.ask(&format!(r#"{{"request":"forget","address":"{}"}}"#, EAST[0]));
    assert_eq!(forgotten["forgotten"], EAST[0]);
    assert!(internet.ping("west", EAST[0]));
    east_node.await_state("10.98.0.1", "keyed");
}
