//! Every policy group against every other on real hosts, and what a reload leaves alone.
//!
//! Over IPv4 west begins, over IPv6 east does, at the same time; as every pair of groups comes in
//! both orders, each is tested either way in both families.

use std::fs;
use std::process::{Child, Stdio};
use std::time::Duration;

use tests::node::{Node, Setup, text};
use tests::place;

use crate::internet::{EAST, Internet, WEST, can_run};

/// What becomes of traffic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Became {
    Encrypted,
    Clear,
    Nothing,
}
use Became::{Clear as C, Encrypted as E, Nothing as N};

const GROUPS: [&str; 5] = ["private", "private-or-clear", "clear-or-private", "clear", "block"];

/// Who begins in rows, who is talked to in columns, both in the order of [`GROUPS`].
const TABLE: [[Became; 5]; 5] =
    [[E, E, E, N, N], [E, E, E, C, N], [E, E, C, C, N], [N, C, C, C, N], [N, N, N, N, N]];

/// A host and its node.
struct Host {
    name: &'static str,
    addresses: [&'static str; 2],
    setup: Setup,
    node: Node,
}

impl Host {
    fn start(internet: &Internet, name: &'static str, addresses: [&'static str; 2]) -> Self {
        let setup = internet.setup(name);
        let node = setup.start(&internet.namespace(name));
        Self { name, addresses, setup, node }
    }

    /// Puts everything into one group, and waits until nothing is known of anybody.
    fn be(&self, group: &str) {
        let directory = self.setup.directory.join("policies");
        for other in GROUPS {
            let _ = fs::remove_file(directory.join(other));
        }
        fs::write(directory.join(group), "0.0.0.0/0\n::/0\n").unwrap();
        let done = self.node.ask(r#"{"request":"reload"}"#);
        assert!(done.get("error").is_none() && !done.is_null(), "{}: {done}", self.name);
    }

    fn forget(&self, peer: &Self) {
        for address in peer.addresses {
            let _ = self.node.ask(&format!(r#"{{"request":"forget","address":"{address}"}}"#));
        }
    }

    fn is_keyed_with(&self, address: &str) -> bool {
        text(&self.node.destination(address), "state") == "keyed"
    }

    /// Starts to ping; packets come often enough for the whole of a negotiation.
    fn ping(&self, internet: &Internet, address: &str) -> Child {
        let words = ["ping", "-n", "-q", "-c", "6", "-i", "0.25", "-W", "2", address];
        let mut command = place::command(&internet.namespace(self.name), &words);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }
}

/// Whether the last of some pings is answered; one that is held is answered late.
fn answered(internet: &Internet, from: &Host, to: &str) -> bool {
    let words = ["ping", "-n", "-q", "-c", "1", "-W", "1", to];
    (0..3).any(|_| place::run(&internet.namespace(from.name), &words).0)
}

fn became(internet: &Internet, from: &Host, to: &Host, family: usize) -> Became {
    let (there, here) = (to.addresses[family], from.addresses[family]);
    if !answered(internet, from, there) {
        return N;
    }
    if from.is_keyed_with(there) && to.is_keyed_with(here) { E } else { C }
}

/// Rules 2, 6, 7, 49.
#[test]
fn every_group_against_every_other() {
    if !can_run("every_group_against_every_other") {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west", "east"]);
    let west = Host::start(&internet, "west", WEST);
    let east = Host::start(&internet, "east", EAST);
    let wire = internet.capture("west");
    let clear_from = |host: &Host| {
        let [v4, v6] = host.addresses;
        wire.packets(&format!("(icmp and src host {v4}) or (icmp6 and ip6[40] >= 128 and ip6[40] <= 129 and src host {v6})")).len()
    };
    let strict = |group: &str| matches!(group, "private" | "block");
    let mut wrong = Vec::new();
    for (w, west_group) in GROUPS.into_iter().enumerate() {
        for (e, east_group) in GROUPS.into_iter().enumerate() {
            west.be(west_group);
            east.be(east_group);
            west.forget(&east);
            east.forget(&west);
            let before = [clear_from(&west), clear_from(&east)];
            let mut pings = [west.ping(&internet, EAST[0]), east.ping(&internet, WEST[1])];
            for ping in &mut pings {
                let _ = ping.wait();
            }
            // Nothing takes long to be sure of: of both at once.
            let (v4, v6) = std::thread::scope(|both| {
                let v4 = both.spawn(|| became(&internet, &west, &east, 0));
                let v6 = became(&internet, &east, &west, 1);
                (v4.join().unwrap(), v6)
            });
            let found =
                [(v4, TABLE[w][e], "west to east, IPv4"), (v6, TABLE[e][w], "east to west, IPv6")];
            for (found, expected, way) in found {
                if found != expected {
                    wrong.push(format!(
                        "west {west_group}, east {east_group}, {way}: {found:?}, not {expected:?}"
                    ));
                }
            }
            for (host, group, before) in
                [(&west, west_group, before[0]), (&east, east_group, before[1])]
            {
                if strict(group) && clear_from(host) > before {
                    wrong.push(format!("{} in {group} spoke in the clear", host.name));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What a reload does not concern, it does not touch: a hundred pings a second go on through the
/// pair, over reloads that change other prefixes, and over a file that cannot be read.
#[test]
fn a_reload_costs_other_pairs_nothing() {
    if !can_run("a_reload_costs_other_pairs_nothing") {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west", "east"]);
    let west = Host::start(&internet, "west", WEST);
    let east = Host::start(&internet, "east", EAST);
    let target = EAST[0];
    assert!(internet.ping("west", target));
    west.node.await_state(target, "keyed");
    let pair = |host: &Host, peer: &str| text(&host.node.destination(peer), "spi_out").to_owned();
    let before = (pair(&west, target), pair(&east, WEST[0]));
    let words = ["ping", "-n", "-q", "-c", "500", "-i", "0.01", "-W", "2", target];
    let mut command = place::command(&internet.namespace("west"), &words);
    let pings = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let directory = west.setup.directory.join("policies");
    for round in 0..8_u8 {
        let lines: String = (0..=round).map(|n| format!("10.{n}.0.0/16\n")).collect();
        let name = GROUPS[usize::from(round) % 5];
        let file = directory.join(name);
        let own = if name == "private-or-clear" { "0.0.0.0/0\n::/0\n" } else { "" };
        // Another group each time: what was in the last one moves.
        for other in GROUPS.into_iter().filter(|other| *other != "private-or-clear") {
            let _ = fs::remove_file(directory.join(other));
        }
        fs::write(&file, format!("{own}{lines}203.0.113.64/28 6 0 {}\n", 1000 + u16::from(round)))
            .unwrap();
        let done = west.node.ask(r#"{"request":"reload"}"#);
        assert!(done.get("error").is_none() && !done.is_null(), "{done}");
        std::thread::sleep(Duration::from_millis(400));
    }
    fs::write(directory.join("block"), "10.0.0.0/8\n10.0.0.0/99\n").unwrap();
    let refused = west.node.ask(r#"{"request":"reload"}"#);
    let error = text(&refused, "error");
    assert!(error.contains("block:2: ") && error.contains("stay in force"), "{refused}");
    let said = pings.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("500 packets transmitted, 500 received"), "{said}");
    assert_eq!((pair(&west, target), pair(&east, WEST[0])), before, "the same pair");
}

/// A port in the clear, and everything else private: what travels is seen on the wire.
#[test]
fn rules_for_single_ports_hold_on_the_wire() {
    if !can_run("rules_for_single_ports_hold_on_the_wire") {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west", "east"]);
    let mut setup = internet.setup("west");
    setup.policies =
        vec![("private", "0.0.0.0/0\n::/0\n"), ("clear", "0.0.0.0/0 17 0 9999\n::/0 17 0 9999\n")];
    let node = setup.start(&internet.namespace("west"));
    let east = Host::start(&internet, "east", EAST);
    let wire = internet.capture("west");
    let west = internet.namespace("west");
    for target in EAST {
        let say = |port: u16| {
            let _ =
                place::run(&west, &["bash", "-c", &format!("echo x > /dev/udp/{target}/{port}")]);
        };
        say(9999);
        wire.await_packets(&format!("dst host {target} and udp dst port 9999"));
        say(7777);
        node.await_state(target, "keyed");
        say(9999);
        say(7777);
    }
    wire.await_esp();
    let leaked = wire.packets("udp dst port 7777");
    assert!(leaked.is_empty(), "{leaked:#?}");
    assert_eq!(wire.packets("udp dst port 9999").len(), 4, "before and beside the pair");
    let said = node.ask(&format!(r#"{{"request":"explain","address":"{}"}}"#, EAST[0]));
    assert!(said.to_string().contains("\"destination_port\":9999"), "{said}");
    drop(east);
}
