//! What must never be on the wire in the clear, whatever goes wrong.

use std::fs;

use tests::node::{Node, text};
use tests::place::{self, Capture};

use crate::internet::{DNS, EAST, Internet, PATIENCE, WEST, can_run};
use crate::marked::{Marked, Wires};

/// Everything that `private` covers: east, and the DNS host too. DNS itself gets through, because
/// the node asks on sockets of its own.
const PRIVATE: &str = "0.0.0.0/0\n::/0\n";

/// West with everything private, and its wire.
fn private(internet: &Internet, change: impl FnOnce(&mut tests::node::Setup)) -> (Node, Capture) {
    let mut setup = internet.setup("west");
    setup.policies = vec![("private", PRIVATE)];
    change(&mut setup);
    let wire = internet.capture("west");
    (setup.start(&internet.namespace("west")), wire)
}

/// What west sent in the clear, but for its questions to the name server.
fn sent(wire: &Capture) -> Vec<String> {
    let packets = wire.packets(
        "(ip or ip6) and (src host 192.0.2.11 or src host 2001:db8:1::11) \
         and not (icmp6 and ip6[40] >= 133 and ip6[40] <= 137) and not ip6 multicast \
         and not ((udp or tcp) and dst host 203.0.113.53 and dst port 53)",
    );
    let keyed = |line: &&String| !line.contains(".500: ") && !line.contains(".4500: ");
    packets.iter().filter(keyed).cloned().collect()
}

#[track_caller]
fn assert_none(clear: &[String]) {
    assert!(clear.is_empty(), "in the clear: {clear:#?}");
}

/// Knocks at both of east's addresses, and checks what was decided and that nothing got out.
#[track_caller]
fn assert_closed(internet: &Internet, node: &Node, wire: &Capture, reason: &str) {
    for peer in EAST {
        internet.knock("west", peer);
        let denied = node.await_state(peer, "deny");
        assert!(text(&denied, "reason").contains(reason), "{reason:?}: {denied}");
        // Decided, it stays so.
        internet.knock("west", peer);
    }
    assert_none(&sent(wire));
}

#[test]
fn private_without_a_record() {
    if !can_run("private_without_a_record") {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west"]);
    let (node, wire) = private(&internet, |_| ());
    assert_closed(&internet, &node, &wire, "no record");
}

#[test]
fn private_without_dns() {
    if !can_run("private_without_dns") {
        return;
    }
    // Refused by the name server's host, and no answer of any kind.
    for silent in [false, true] {
        let mut internet = Internet::new();
        internet.serve_dns(&["west", "east"]);
        if silent {
            place::ok(&internet.namespace("dns"), &["ip", "link", "set", "eth0", "down"]);
        } else {
            internet.stop_dns();
        }
        let (node, wire) = private(&internet, |_| ());
        assert_closed(&internet, &node, &wire, "DNS");
        assert_eq!(node.happened("clear"), 0);
    }
}

#[test]
fn private_with_records_that_do_not_validate() {
    if !can_run("private_with_records_that_do_not_validate") {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west", "east"]);
    let wrong = internet.wrong_anchor();
    let (node, wire) = private(&internet, |setup| setup.trust_anchors = wrong);
    assert_closed(&internet, &node, &wire, "DNSSEC validation failed");
}

#[test]
fn what_does_not_validate_is_closed_under_private_or_clear_too() {
    if !can_run("what_does_not_validate_is_closed_under_private_or_clear_too") {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west", "east"]);
    let wrong = internet.wrong_anchor();
    let (node, wire) = private(&internet, |setup| {
        setup.policies = vec![("private-or-clear", PRIVATE)];
        setup.trust_anchors = wrong;
    });
    assert_closed(&internet, &node, &wire, "DNSSEC validation failed");
}

/// East publishes a key, but nobody answers there; its kernel even says so, in ICMP.
#[test]
fn private_with_a_silent_peer() {
    if !can_run("private_with_a_silent_peer") {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west", "east"]);
    let (node, wire) = private(&internet, |_| ());
    assert_closed(&internet, &node, &wire, "");
    assert_eq!(node.await_happened("calling", 2), 2);
    assert_eq!(node.happened("clear"), 0);
}

/// libreswan issue 268.
#[test]
fn private_after_the_peer_left() {
    if !can_run("private_after_the_peer_left") {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west", "east"]);
    let mut east = internet.setup("east").start(&internet.namespace("east"));
    let (node, wire) = private(&internet, |_| ());
    for peer in EAST {
        assert!(internet.ping("west", peer), "{peer}");
    }
    wire.await_esp();
    east.terminate();
    for peer in EAST {
        node.await_state(peer, "");
    }
    assert_closed(&internet, &node, &wire, "");
    assert_eq!(node.happened("clear"), 0);
}

/// Openswan issue 32.
#[test]
fn private_after_sigkill_and_open_after_sigterm() {
    if !can_run("private_after_sigkill_and_open_after_sigterm") {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west", "east"]);
    let _east = internet.setup("east").start(&internet.namespace("east"));
    let (mut node, wire) = private(&internet, |_| ());
    for peer in EAST {
        assert!(internet.ping("west", peer), "{peer}");
    }
    node.kill();
    for peer in EAST.into_iter().chain(DNS) {
        internet.knock("west", peer);
    }
    assert_none(&sent(&wire));
    drop(node);
    drop(wire);

    // An administrator who stops the daemon has the machine as it was without it.
    let (mut node, wire) = private(&internet, |_| ());
    internet.knock("west", DNS[0]);
    assert_none(&sent(&wire));
    assert!(node.terminate().success());
    assert!(internet.ping("west", DNS[0]));
    wire.await_packets("icmp and src host 192.0.2.11 and dst host 203.0.113.53");
}

/// The trap asks for the mark, which only the privileged can set, and never for the port.
#[test]
fn nobody_walks_around_the_trap() {
    if !can_run("nobody_walks_around_the_trap") {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west"]);
    let (node, wire) = private(&internet, |_| ());
    let namespace = internet.namespace("west");
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let to = |address: &str| format!("dst host {address} and not dst port 53");
    for (target, family) in EAST.into_iter().zip(["-4", "-6"]) {
        for port in ["500", "4500", "53", "9"] {
            let send = format!("echo around > /dev/udp/{target}/{port}");
            let _ = place::run(&namespace, &[&nobody[..], &["bash", "-c", &send]].concat());
            let _ = place::run(&namespace, &["bash", "-c", &send]);
        }
        let marked = |patience: &'static str| {
            ["ping", family, "-n", "-c", "1", "-W", patience, "-m", "17186", target]
        };
        let (_, said) = place::run(&namespace, &[&nobody[..], &marked("1")].concat());
        assert!(said.contains("not permitted") || said.contains("mark"), "{said}");
        node.await_state(target, "deny");
        let got_out = wire.packets(&to(target));
        assert!(got_out.is_empty(), "{got_out:#?}");
        // Root can, which also shows that the capture would have seen it.
        let (answered, said) = place::run(&namespace, &marked("8"));
        assert!(answered, "{said}");
        wire.await_packets(&to(target));
    }
}

/// Under private-or-clear, who was in the clear stays reachable. Who was protected is not, because
/// both ends go on dropping its clear packets, until the daemon is back.
#[test]
fn killed_under_private_or_clear_it_comes_back() {
    if !can_run("killed_under_private_or_clear_it_comes_back") {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west", "east"]);
    let east = internet.setup("east").start(&internet.namespace("east"));
    let setup = internet.setup("west");
    let mut node = setup.start(&internet.namespace("west"));
    assert!(internet.ping("west", EAST[0]) && internet.ping("west", DNS[0]));
    node.kill();
    assert!(internet.ping("west", DNS[0]));
    let node = setup.start(&internet.namespace("west"));
    assert!(internet.ping("west", EAST[0]) && internet.ping("east", WEST[0]));
    node.await_pairs(EAST[0], 1);
    // The one that was killed calls whom it remembers, and the other may call at the same time.
    assert!((2..=3).contains(&east.await_happened("keyed", 2)));
}

/// Attack A36.
/// Somebody on the way, or the peer itself, puts clear packets in front of a protected address.
/// Rule 9. P8.
/// CVE-2019-14899.
#[test]
fn clear_packets_of_a_protected_peer_are_dropped() {
    if !can_run("clear_packets_of_a_protected_peer_are_dropped") {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west", "east"]);
    let _east = internet.setup("east").start(&internet.namespace("east"));
    let node = internet.setup("west").start(&internet.namespace("west"));
    let blocked = || {
        let file = ["cat", "/proc/net/xfrm_stat"];
        let text = place::ok(&internet.namespace("west"), &file);
        let line = text.lines().find(|line| line.starts_with("XfrmInPolBlock")).unwrap();
        line.split_whitespace().last().unwrap().parse::<u64>().unwrap()
    };
    if !fs::exists("/proc/net/xfrm_stat").unwrap() {
        let why = "the kernel has no /proc/net/xfrm_stat";
        tests::absent("clear_packets_of_a_protected_peer_are_dropped", why);
        return;
    }
    for (own, peer) in WEST.into_iter().zip(EAST) {
        assert!(internet.ping("west", peer));
        node.await_state(peer, "keyed");
        let before = blocked();
        let wire = internet.capture("west");
        let marked = ["ping", "-n", "-c", "3", "-i", "0.2", "-W", "1", "-m", "17186", own];
        let (answered, said) = place::run(&internet.namespace("east"), &marked);
        assert!(!answered, "{said}");
        assert_eq!(blocked() - before, 3);
        let status = node.status();
        assert!(status["counters"]["plane"]["dropped_in_clear"].as_u64() >= Some(3), "{status}");
        let seen = |filter: &str| wire.packets(&format!("(icmp or icmp6) and {filter}")).len();
        place::await_some("the three on the wire", PATIENCE, || {
            (seen(&format!("src host {peer} and dst host {own}")) == 3).then_some(())
        });
        assert_eq!(seen(&format!("src host {own} and dst host {peer}")), 0);
        // The pair has not suffered.
        assert!(internet.ping("west", peer) && internet.ping("east", own));
        node.await_pairs(peer, 1);
    }
}

/// P1: who takes our rules and routes for leftovers of somebody (`ip rule flush`, a network daemon
/// that manages what it did not make) opens nothing for longer than it takes to hear of it.
#[test]
fn private_when_others_remove_the_rule_and_the_black_hole() {
    if !can_run("private_when_others_remove_the_rule_and_the_black_hole") {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west"]);
    let mut setup = internet.setup("west");
    setup.policies = vec![("private", PRIVATE)];
    let west = internet.namespace("west");
    let wires = Wires::listen(&internet);
    let node = setup.start(&west);
    let marked = Marked::start(&internet, "west", &EAST);
    marked.sent(5);
    wires.assert_unmarked();
    let stands = || ["", "-6"].map(|family| place::ok(&west, &words(&format!("ip {family} rule"))));
    let routes = || {
        ["", "-6"]
            .map(|family| place::ok(&west, &words(&format!("ip {family} route show table 4322"))))
    };
    let (rules_before, routes_before) = (stands(), routes());
    assert!(routes_before.iter().all(|routes| routes.contains("blackhole default")));
    for deed in [
        "ip rule del pref 4322",
        "ip -6 rule del pref 4322",
        "ip route flush table 4322",
        "ip -6 route flush table 4322",
    ] {
        let before = wires.marked();
        place::ok(&west, &words(deed));
        place::await_some(deed, PATIENCE, || {
            (stands() == rules_before && routes() == routes_before).then_some(())
        });
        let meanwhile = wires.marked();
        marked.sent(40);
        assert_eq!(wires.marked(), meanwhile, "{deed}: still open");
        eprintln!("{deed}: {} marked packets until it was mended", meanwhile - before);
        assert!(meanwhile - before < 40, "{deed}: open for half a second and more");
    }
    assert!(node.log().contains("had been removed"), "{}", node.log());
    marked.stop();
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// Attack A39.
/// Nobody in particular can send as the node does: the mark takes a capability, and its ports, which
/// are there to be sent to, lead nobody's datagrams past the trap.
#[test]
fn a_local_user_cannot_borrow_our_way_out() {
    const NAME: &str = "a_local_user_cannot_borrow_our_way_out";
    if !can_run(NAME) || tests::skipped(NAME, tests::missing(&["python3"])) {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west"]);
    let (node, wire) = private(&internet, |_| ());
    let west = internet.namespace("west");
    let rules = place::ok(&west, &["ip", "rule"]);
    let mark = rules.split("fwmark ").nth(1).and_then(|rest| rest.split_whitespace().next());
    let mark = mark.unwrap().split('/').next().unwrap().to_owned();
    let script = internet.directory.join("borrow.py");
    fs::write(&script, BORROW).unwrap();
    let script = script.display().to_string();
    for peer in EAST {
        let borrow = || place::ok(&west, &["python3", &script, peer, &mark]);
        assert_eq!(borrow().trim(), "refused", "{peer}");
        node.await_state(peer, "deny");
        assert_eq!(borrow().trim(), "refused", "{peer}");
    }
    // Nobody calls east, so that what goes to its ports would be theirs.
    let out = wire.packets("src host 192.0.2.11 and dst host 198.51.100.22");
    assert_none(&out);
    assert_none(&sent(&wire));
}

/// Becomes nobody in particular, tries to mark a socket, and sends to the ports of IKE.
const BORROW: &str = r#"
import os, socket, sys
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
peer, mark = sys.argv[1], int(sys.argv[2], 0)
said = "marked"
for port in (500, 4500, 53):
    family = socket.AF_INET6 if ":" in peer else socket.AF_INET
    s = socket.socket(family, socket.SOCK_DGRAM)
    try:
        s.setsockopt(socket.SOL_SOCKET, 36, mark)
    except PermissionError:
        said = "refused"
    try:
        s.sendto(b"borrowed", (peer, port))
    except OSError:
        pass
print(said)
"#;
