//! Private leaks at transitions, if it leaks: each of them under a stream of marked packets, with
//! every wire searched for the mark. In all of them the stream must go on when the transition is
//! over, so that silence is no proof.

use std::process::Command;

use serde_json::Value;
use tests::node::{Node, Setup, text};
use tests::place;

use crate::internet::{DNS, EAST, Internet, PATIENCE, WEST, can_run};
use crate::marked::{Marked, Wires};

const ALL: &str = "0.0.0.0/0\n::/0\n";

/// West has everything private and sends marked packets to east, which has a node too.
struct Scene {
    marked: Marked,
    wires: Wires,
    west: Node,
    east: Node,
    setup: Setup,
    internet: Internet,
}

impl Scene {
    fn new() -> Self {
        let mut internet = Internet::new();
        internet.serve_dns(&["west", "east"]);
        let east = internet.setup("east").start(&internet.namespace("east"));
        let mut setup = internet.setup("west");
        setup.policies = vec![("private", ALL)];
        let west = setup.start(&internet.namespace("west"));
        let wires = Wires::listen(&internet);
        let marked = Marked::start(&internet, "west", &EAST);
        let scene = Self { marked, wires, west, east, setup, internet };
        scene.assert_flowing();
        scene
    }

    /// Marked packets arrive, by both families.
    #[track_caller]
    fn assert_flowing(&self) {
        for (own, peer) in WEST.into_iter().zip(EAST) {
            // While the host had no address, packets came from others.
            place::await_some(&format!("{own} to {peer} is keyed"), PATIENCE, || {
                let status = self.west.status();
                let flow = |d: &&Value| (text(d, "source"), text(d, "destination")) == (own, peer);
                let found = status["destinations"].as_array()?.iter().find(flow)?;
                (text(found, "state") == "keyed").then_some(())
            });
            place::await_some(&format!("{peer} answers"), PATIENCE, || {
                self.internet.ping("west", peer).then_some(())
            });
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.west.pid().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }
}

/// Attack A37.
/// P1: SIGKILL, and the start after it.
#[test]
fn killed_and_started_again() {
    if !can_run("killed_and_started_again") {
        return;
    }
    let mut scene = Scene::new();
    scene.west.kill();
    scene.marked.sent(40);
    scene.west = scene.setup.start(&scene.internet.namespace("west"));
    scene.assert_flowing();
    scene.wires.assert_unmarked();
}

/// P1: the daemon hangs for long enough to fill every queue. A stopped node decides nothing, and
/// what it had decided stands.
#[test]
fn stopped_for_ten_seconds() {
    if !can_run("stopped_for_ten_seconds") {
        return;
    }
    let scene = Scene::new();
    scene.signal("STOP");
    let flood =
        format!("for i in $(seq 3000); do echo oe-must-not-be-seen > /dev/udp/{}/9; done", EAST[0]);
    let _ = place::run(&scene.internet.namespace("west"), &["bash", "-c", &flood]);
    std::thread::sleep(std::time::Duration::from_secs(8));
    scene.marked.sent(10);
    scene.signal("CONT");
    scene.assert_flowing();
    scene.wires.assert_unmarked();
}

/// P1: the link goes down and comes back; then the host gets other addresses. LS #268 in another
/// guise: what the kernel took away must be put back before anything passes.
#[test]
fn the_link_and_the_addresses_change() {
    if !can_run("the_link_and_the_addresses_change") {
        return;
    }
    let scene = Scene::new();
    scene.internet.cut("west");
    scene.marked.sent(10);
    scene.internet.join("west");
    scene.assert_flowing();
    // The same address again, faster than anybody looks.
    let namespace = scene.internet.namespace("west");
    let flap = "ip addr del 192.0.2.11/24 dev eth0; ip addr add 192.0.2.11/24 dev eth0; \
                ip route replace default via 192.0.2.1; \
                ip addr del 2001:db8:1::11/64 dev eth0; \
                ip addr add 2001:db8:1::11/64 dev eth0 nodad; \
                ip route replace default via 2001:db8:1::1";
    place::ok(&namespace, &["sh", "-c", flap]);
    scene.assert_flowing();
    // Another address, for which nothing is published: east refuses it, and nothing gets out.
    let change = "ip addr add 192.0.2.12/24 dev eth0; ip addr del 192.0.2.11/24 dev eth0; \
                  ip addr add 192.0.2.12/24 dev eth0; ip route replace default via 192.0.2.1; \
                  ip addr add 2001:db8:1::12/64 dev eth0 nodad; \
                  ip addr del 2001:db8:1::11/64 dev eth0";
    place::ok(&namespace, &["sh", "-c", change]);
    scene.marked.sent(60);
    scene.wires.assert_unmarked();
}

/// P1 (LS #268): the peer deletes its pairs and goes, and the trap is there again.
#[test]
fn the_peer_deletes_and_returns() {
    if !can_run("the_peer_deletes_and_returns") {
        return;
    }
    let mut scene = Scene::new();
    for round in 0..2 {
        if round == 0 {
            assert!(scene.east.terminate().success());
        } else {
            scene.east.kill();
        }
        scene.marked.sent(40);
        scene.east = scene.internet.setup("east").start(&scene.internet.namespace("east"));
        // A decision stands until its life is over, unless the peer calls.
        for own in WEST {
            place::await_some("east reaches west", PATIENCE, || {
                scene.internet.ping("east", own).then_some(())
            });
        }
        scene.assert_flowing();
    }
    scene.wires.assert_unmarked();
}

/// P1, P6: DNS dies, with and without an answer to say so; what expires meanwhile stays closed.
#[test]
fn dns_dies_and_decisions_expire() {
    if !can_run("dns_dies_and_decisions_expire") {
        return;
    }
    let mut scene = Scene::new();
    // The name server's host is private too, and has no record: that is decided, stands for the
    // five seconds that its zone says, and is decided again.
    let other = Marked::start(&scene.internet, "west", &DNS[1..]);
    scene.west.await_state(DNS[1], "deny");
    place::await_some("a decision expires", PATIENCE, || {
        (scene.west.happened("expired") > 0).then_some(())
    });
    scene.west.await_state(DNS[1], "deny");
    scene.internet.stop_dns();
    let _ = scene.west.ask(&format!(r#"{{"request":"forget","address":"{}"}}"#, EAST[0]));
    scene.west.await_state(EAST[0], "deny");
    scene.marked.sent(20);
    other.stop();
    scene.wires.assert_unmarked();
    assert_eq!(scene.west.happened("clear"), 0);
}

/// P1: a prefix becomes private while packets flow to it in the clear.
#[test]
fn reload_moves_a_prefix_into_private() {
    if !can_run("reload_moves_a_prefix_into_private") {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west"]);
    let mut setup = internet.setup("west");
    setup.policies = vec![("private-or-clear", ALL), ("clear", "2001:db8:2::/64\n")];
    let west = setup.start(&internet.namespace("west"));
    for peer in EAST {
        assert!(internet.ping("west", peer), "in the clear");
    }
    let marked = Marked::start(&internet, "west", &EAST);
    Wires::listen(&internet).await_marked();
    setup.policies = vec![
        ("private-or-clear", ALL),
        ("clear", ""),
        ("private", "198.51.100.0/24\n2001:db8:2::/64\n"),
    ];
    let _ = setup.write();
    assert!(west.ask(r#"{"request":"reload"}"#)["changed"].as_u64() >= Some(2));
    let wires = Wires::listen(&internet);
    for peer in EAST {
        west.await_state(peer, "deny");
    }
    marked.sent(40);
    wires.assert_unmarked();
}

/// Rule 57, P16: who crashed takes its pairs up again by itself, before the other end has found
/// out, and although nobody sends anything.
#[test]
fn a_restarted_node_calls_whom_it_remembers() {
    if !can_run("a_restarted_node_calls_whom_it_remembers") {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west", "east"]);
    let east = internet.setup("east").start(&internet.namespace("east"));
    let setup = internet.setup("west");
    let mut west = setup.start(&internet.namespace("west"));
    for peer in EAST {
        assert!(internet.ping("west", peer), "{peer}");
    }
    let memory = setup.directory.join("state/peers");
    place::await_some("the peers are written down", PATIENCE, || {
        let text = std::fs::read_to_string(&memory).unwrap_or_default();
        EAST.iter().all(|peer| text.contains(peer)).then_some(())
    });
    west.kill();
    drop(west);
    let west = setup.start(&internet.namespace("west"));
    for (own, peer) in WEST.into_iter().zip(EAST) {
        west.await_state(peer, "keyed");
        east.await_state(own, "keyed");
    }
    assert_eq!((west.happened("recalled"), west.happened("trapped")), (2, 2));
    for own in WEST {
        assert!(internet.ping("east", own), "{own}");
    }
    // An orderly stop remembers as well: who calls meanwhile finds nobody.
    drop(west);
    let text = std::fs::read_to_string(&memory).unwrap();
    assert!(EAST.iter().all(|peer| text.contains(peer)), "{text}");
}
