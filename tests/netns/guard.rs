//! `oe-node guard`: what is private stays closed while no daemon runs. Every packet that must not
//! get out bears a mark, and every wire is searched for it.

use tests::place;

use crate::internet::{DNS, EAST, Internet, PATIENCE, WEST, assert_same, can_run};
use crate::marked::{Marked, Wires};

/// Private towards east; the rest as it comes.
const PRIVATE_EAST: [(&str, &str); 3] = [
    ("private", "198.51.100.0/24\n2001:db8:2::/64\n"),
    ("clear", "198.51.100.64/26\n"),
    ("private-or-clear", "0.0.0.0/0\n::/0\n"),
];

/// Runs `oe-node guard` in west's namespace; its exit code's success and what it said.
fn guard(internet: &Internet, words: &[&str], file: &str) -> (bool, String) {
    let binary = tests::oe_node().display().to_string();
    let all = [&[binary.as_str(), "guard"], words, &["--config", file]].concat();
    place::run(&internet.namespace("west"), &all)
}

/// Attack A37.
/// P1, P17: before the network and the daemon, between daemons, after a crash.
#[test]
fn private_is_closed_from_before_the_network_until_the_guard_goes() {
    if !can_run("private_is_closed_from_before_the_network_until_the_guard_goes") {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west", "east"]);
    let east = internet.setup("east").start(&internet.namespace("east"));
    let mut setup = internet.setup("west");
    setup.policies = PRIVATE_EAST.to_vec();
    let file = setup.write().display().to_string();
    let wires = Wires::listen(&internet);

    // The machine boots: the guard, then the network.
    internet.cut("west");
    let (up, said) = guard(&internet, &["up"], &file);
    assert!(up, "{said}");
    let (good, said) = guard(&internet, &["status"], &file);
    assert!(good && said.contains("198.51.100.0/24"), "{said}");
    let guarded = internet.traces("west");
    internet.join("west");
    let marked = Marked::start(&internet, "west", &EAST);
    marked.sent(20);
    assert!(internet.ping("west", DNS[0]), "what is not private is not concerned");
    assert!(internet.ping("west", "192.0.2.1"), "the gateway");

    // The daemon comes, goes orderly, comes again, crashes, comes again: P1.
    for round in 0..2 {
        let mut node = setup.start(&internet.namespace("west"));
        assert_eq!(node.status()["guard"], true);
        for (own, peer) in WEST.into_iter().zip(EAST) {
            // The kernel takes a moment to make an address of the new device usable.
            place::await_some(&format!("{peer} answers, round {round}"), PATIENCE, || {
                internet.ping("west", peer).then_some(())
            });
            east.await_state(own, "keyed");
        }
        if round == 0 {
            assert!(node.terminate().success());
        } else {
            node.kill();
        }
        drop(node);
        marked.sent(20);
        assert!(internet.ping("west", DNS[0]), "round {round}");
        let (good, said) = guard(&internet, &["status", "--json"], &file);
        assert!(good, "{said}");
    }
    marked.stop();
    wires.assert_unmarked();

    // Down, and what the crashed daemon left goes with it.
    let (down, said) = guard(&internet, &["down"], &file);
    assert!(down, "{said}");
    let (good, said) = guard(&internet, &["status"], &file);
    assert!(!good && said.contains("down"), "{said}");
    let marked = Marked::start(&internet, "west", &EAST);
    wires.await_marked();
    marked.stop();
    let (up, _) = guard(&internet, &["up"], &file);
    assert!(up);
    let rules = |traces: &str| {
        let ours =
            |line: &&str| line.contains("4322") || line.contains("4313") || line.contains("4321");
        traces.lines().filter(ours).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(rules(&internet.traces("west")), rules(&guarded));
}

/// It may come and go under a running daemon, as often as one likes, and follows a reload.
#[test]
fn a_guard_under_a_running_daemon() {
    if !can_run("a_guard_under_a_running_daemon") {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west", "east"]);
    let before = internet.traces("west");
    let _east = internet.setup("east").start(&internet.namespace("east"));
    let mut setup = internet.setup("west");
    let mut node = setup.start(&internet.namespace("west"));
    let file = setup.write().display().to_string();
    assert!(internet.ping("west", EAST[0]) && internet.ping("west", DNS[0]));
    internet.await_settled("west");
    let running = internet.traces("west");
    for words in [["up"], ["up"], ["down"], ["down"]] {
        let (done, said) = guard(&internet, &words, &file);
        assert!(done, "{words:?}: {said}");
        assert!(internet.ping("west", EAST[0]) && internet.ping("west", DNS[0]), "{words:?}");
    }
    assert_same(&running, &internet.traces("west"));

    // Private only since the guard was made: the daemon keeps the guard in step.
    assert!(guard(&internet, &["up"], &file).0);
    setup.policies = PRIVATE_EAST.to_vec();
    let _ = setup.write();
    let (good, said) = guard(&internet, &["status"], &file);
    assert!(!good && said.contains("missing: 198.51.100.0/24"), "{said}");
    assert!(node.ask(r#"{"request":"reload"}"#)["changed"].as_u64() > Some(0));
    let (good, said) = guard(&internet, &["status"], &file);
    assert!(good, "{said}");
    let wires = Wires::listen(&internet);
    let marked = Marked::start(&internet, "west", &EAST);
    assert!(node.terminate().success());
    marked.sent(20);
    marked.stop();
    wires.assert_unmarked();
    // A clear prefix inside the private one stays open.
    let route = place::ok(&internet.namespace("west"), &["ip", "route", "get", "198.51.100.70"]);
    assert!(route.contains("dev eth0"), "{route}");
    assert!(guard(&internet, &["down"], &file).0);
    assert_same(&before, &internet.traces("west"));
}
