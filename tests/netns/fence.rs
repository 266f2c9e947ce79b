//! Whoever goes around the routes: sockets that are bound to a device, and sockets that have found
//! their way before policy changed.

use std::process::{Child, Stdio};

use tests::place::{self, Capture};

use crate::internet::{EAST, Internet, PATIENCE, can_run};
use crate::marked::{MARK, Wires};

/// On west's link, and private like everybody else.
const NEIGHBOUR: [&str; 2] = ["192.0.2.77", "2001:db8:1::77"];
/// West's gateways, which stay open.
const GATEWAY: [&str; 2] = ["192.0.2.1", "2001:db8:1::1"];

/// An echo request from a socket that is bound to the device.
fn bound(internet: &Internet, to: &str, more: &[&str]) -> (bool, String) {
    let ping = ["ping", "-n", "-c", "1", "-W", "2", "-I", "eth0"];
    place::run(&internet.namespace("west"), &[&ping[..], more, &[to]].concat())
}

fn echoes(wire: &Capture, to: &str) -> Vec<String> {
    wire.packets(&format!("(icmp or icmp6) and dst host {to} and not (icmp6 and ip6[40] > 132)"))
}

#[track_caller]
fn assert_kept_in(internet: &Internet, wire: &Capture, to: &str) {
    let (answered, said) = bound(internet, to, &[]);
    assert!(!answered, "{to}: {said}");
    let got_out = echoes(wire, to);
    assert!(got_out.is_empty(), "{got_out:#?}");
}

/// Attack A39.
/// P1: any user may bind a socket to a device, and the kernel then looks at that device's routes
/// alone. What is private stays in, on the link and off it, whoever is keyed, and after a crash.
#[test]
fn nobody_binds_a_socket_past_what_is_private() {
    if !can_run("nobody_binds_a_socket_past_what_is_private") {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west", "east"]);
    let hub = internet.namespace("hub");
    for (address, length) in NEIGHBOUR.into_iter().zip(["24", "64"]) {
        let address = format!("{address}/{length}");
        let _ = place::run(&hub, &["ip", "addr", "add", &address, "dev", "west", "nodad"]);
    }
    let mut setup = internet.setup("west");
    setup.policies = vec![("private", "0.0.0.0/0\n::/0\n")];
    let west = internet.namespace("west");
    let mut node = setup.start(&west);
    let wire = internet.capture("west");
    for to in EAST.into_iter().chain(NEIGHBOUR) {
        assert_kept_in(&internet, &wire, to);
    }
    // What needs no policy has a way all the same.
    for gateway in GATEWAY {
        assert!(bound(&internet, gateway, &[]).0, "{gateway}");
    }
    // Keyed: by the trap, and by no other way.
    let east = internet.setup("east").start(&internet.namespace("east"));
    for peer in EAST {
        let _ = node.ask(&format!(r#"{{"request":"forget","address":"{peer}"}}"#));
        assert!(internet.ping("west", peer), "{peer}");
        node.await_state(peer, "keyed");
        assert_kept_in(&internet, &wire, peer);
        assert!(internet.ping("west", peer), "{peer}");
    }
    // Without us.
    node.kill();
    for to in EAST.into_iter().chain(NEIGHBOUR) {
        assert_kept_in(&internet, &wire, to);
    }
    let mut node = setup.start(&west);
    for to in EAST.into_iter().chain(NEIGHBOUR) {
        assert_kept_in(&internet, &wire, to);
    }
    for peer in EAST {
        assert!(internet.ping("west", peer), "{peer}");
    }
    drop(east);
    // An orderly end opens everything, and shows that the wire would have told.
    node.terminate();
    let policies = place::ok(&west, &["ip", "xfrm", "policy"]);
    assert!(policies.trim().is_empty(), "{policies}");
    for to in NEIGHBOUR {
        assert!(bound(&internet, to, &[]).0, "{to}");
        assert!(!echoes(&wire, to).is_empty(), "{to}");
    }
}

/// P1: the guard says the same before there is a daemon.
#[test]
fn nobody_binds_a_socket_past_the_guard() {
    if !can_run("nobody_binds_a_socket_past_the_guard") {
        return;
    }
    let internet = Internet::new();
    let mut setup = internet.setup("west");
    setup.policies = vec![("private", "0.0.0.0/0\n::/0\n")];
    let west = internet.namespace("west");
    let wire = internet.capture("west");
    let config = setup.write().display().to_string();
    let binary = tests::oe_node().display().to_string();
    let guard = |what: &str| {
        place::ok(&west, &[&binary, "guard", what, "--config", &config]);
    };
    guard("up");
    for to in EAST {
        assert_kept_in(&internet, &wire, to);
    }
    guard("down");
    let policies = place::ok(&west, &["ip", "xfrm", "policy"]);
    assert!(policies.trim().is_empty(), "{policies}");
    for to in EAST {
        let _ = bound(&internet, to, &[]);
        wire.await_packets(&format!("(icmp or icmp6) and dst host {to}"));
    }
}

/// Somebody who sends marked datagrams on sockets that were opened once.
struct Connected(Child);

impl Connected {
    fn start(internet: &Internet, host: &str, to: &[&str]) -> Self {
        let opened: String = to
            .iter()
            .zip(3..)
            .map(|(to, number)| format!("exec {number}<>/dev/udp/{to}/9; "))
            .collect();
        let sent: String =
            to.iter().zip(3..).map(|(_, number)| format!("echo {MARK} >&{number}; ")).collect();
        let script = format!("{opened} while :; do {sent} sleep 0.02; done");
        let child = place::command(&internet.namespace(host), &["bash", "-c", &script])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// P1, P6: a socket that was open before a reload made its destination private goes on nowhere. In
/// IPv6 the kernel has it keep its way until that way's own table changes.
#[test]
fn sockets_that_are_open_follow_a_reload() {
    if !can_run("sockets_that_are_open_follow_a_reload") {
        return;
    }
    // One family at a time: what is done for one must not do for the other.
    for peer in EAST {
        let mut internet = Internet::new();
        internet.serve_dns(&["west"]);
        let mut setup = internet.setup("west");
        setup.policies = vec![("private-or-clear", "0.0.0.0/0\n::/0\n")];
        let node = setup.start(&internet.namespace("west"));
        let wires = Wires::listen(&internet);
        let _sender = Connected::start(&internet, "west", &[peer]);
        node.await_state(peer, "clear-text");
        wires.await_marked();
        let (before, seen) = (wires.marked(), || wires.marked());
        place::await_some("more of them", PATIENCE, || (seen() > before + 20).then_some(()));
        setup.policies = vec![("private", "0.0.0.0/0\n::/0\n")];
        let _ = setup.write();
        let _ = node.ask(r#"{"request":"reload"}"#);
        let after = wires.marked();
        std::thread::sleep(std::time::Duration::from_millis(600));
        assert_eq!(wires.marked(), after, "{peer}: an open socket goes on in the clear");
    }
}
