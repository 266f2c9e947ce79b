//! Every policy group against every other on real hosts, and what a reload leaves alone.
//!
//! Over IPv4 west begins, over IPv6 east does, at the same time; as every pair of groups comes in
//! both orders, each is tested either way in both families.

use std::fs;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;
use tests::node::{Node, Setup, text};
use tests::place::{self, Capture};

use crate::internet::{EAST, Internet, PATIENCE, WEST, can_run};

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

/// What a host has sent in a family: echo requests and replies as they are, and ESP.
#[derive(Clone, Copy, Default, Debug)]
struct Sent {
    clear: usize,
    esp: usize,
}

impl Sent {
    fn since(self, before: Self) -> Self {
        Self { clear: self.clear - before.clear, esp: self.esp - before.esp }
    }
}

/// The wire between the two, read as far as it has been written.
struct Wire<'a> {
    capture: Capture,
    internet: &'a Internet,
}

impl Wire<'_> {
    fn sent(&self, host: &Host, family: usize) -> Sent {
        let from = host.addresses[family];
        let (clear, esp) = match family {
            0 => (
                "icmp and (icmp[0] = 8 or icmp[0] = 0)",
                "ip proto 50 or (udp port 4500 and udp[8:4] != 0)",
            ),
            _ => (
                "icmp6 and ip6[40] >= 128 and ip6[40] <= 129",
                "ip6 proto 50 or (udp port 4500 and ip6[48:4] != 0)",
            ),
        };
        let count =
            |what: &str| self.capture.packets(&format!("src host {from} and ({what})")).len();
        Sent { clear: count(clear), esp: count(esp) }
    }

    /// By family and then by host.
    fn all(&self, hosts: [&Host; 2]) -> [[Sent; 2]; 2] {
        let seen = || self.capture.packets("src host 192.0.2.1 and udp dst port 9").len();
        let before = seen();
        let send = ["bash", "-c", "echo > /dev/udp/192.0.2.11/9"];
        place::ok(&self.internet.namespace("hub"), &send);
        place::await_some("the wire is read", PATIENCE, || (seen() > before).then_some(()));
        [0, 1].map(|family| hosts.map(|host| self.sent(host, family)))
    }
}

/// What a host in this group does in the clear, with nobody to encrypt with.
fn speaks_clear(group: &str) -> bool {
    !matches!(group, "private" | "block")
}

/// Who calls whom in a family, and what is to come of it.
struct Cell<'a> {
    from: &'a Host,
    to: &'a Host,
    groups: [&'static str; 2],
    family: usize,
    expected: Became,
}

impl Cell<'_> {
    /// What the wire must have of both in the end, the caller first; `None` if it is not said.
    fn on_the_wire(&self) -> [Option<Became>; 2] {
        match self.expected {
            Became::Nothing if speaks_clear(self.groups[0]) => [Some(C), Some(N)],
            // Who hears nothing has nothing to say.
            Became::Nothing => [Some(N), None],
            other => [Some(other); 2],
        }
    }

    /// What is wrong with the wire and with what is said of it, once all is decided.
    fn check(&self, sent: [Sent; 2], settled: [Sent; 2]) -> Vec<String> {
        let mut wrong = Vec::new();
        let hosts = [(self.from, self.to), (self.to, self.from)];
        for (((host, other), group), ((sent, settled), expected)) in hosts
            .into_iter()
            .zip(self.groups)
            .zip(sent.into_iter().zip(settled).zip(self.on_the_wire()))
        {
            if !speaks_clear(group) && sent.clear > 0 {
                wrong.push(format!("{} in {group} spoke in the clear", host.name));
            }
            // Nobody has to be encrypted with before he has been asked, but the caller knows.
            let held = group == "private-or-clear" && self.expected == E;
            if held && sent.clear > 0 {
                wrong.push(format!("{} in {group} did not wait", host.name));
            }
            let found = match settled {
                Sent { clear: 0, esp: 0 } => N,
                Sent { clear: 0, .. } => E,
                Sent { esp: 0, .. } => C,
                Sent { .. } => {
                    wrong.push(format!("{}: both ESP and clear", host.name));
                    continue;
                }
            };
            if expected.is_some_and(|expected| expected != found) {
                wrong.push(format!("{} sent {found:?}, not {expected:?}", host.name));
            }
            if expected.is_some() {
                wrong.extend(host.said_of(other.addresses[self.family], found));
            }
        }
        let way = format!("{} to {}, IPv{}", self.groups[0], self.groups[1], [4, 6][self.family]);
        wrong.into_iter().map(|what| format!("{way}: {what}")).collect()
    }
}

impl Host {
    /// What `explain` and `peers` say of an address, if that is not what was on the wire.
    fn said_of(&self, address: &str, wire: Became) -> Option<String> {
        let words = match wire {
            E => "goes through ESP",
            C => "goes in the clear",
            N => "is refused",
        };
        let ask = format!(r#"{{"request":"explain","address":"{address}"}}"#);
        let explained = self.node.ask(&ask);
        let next = text(&explained, "next_packet");
        // What was decided may be over, and is decided again with the next packet.
        let right = next == words || next.starts_with("is held") && !(wire == E);
        let peers = self.node.ask(r#"{"request":"peers"}"#);
        let peers = peers["peers"].as_array().cloned().unwrap_or_default();
        let speaks = |peer: &Value| {
            peer["speaks_for"].as_array().is_some_and(|all| all.iter().any(|one| one == address))
        };
        let peered = peers.iter().any(speaks);
        (!right || peered != (wire == E)).then(|| {
            format!("{}: the wire says {wire:?}, explain {next:?}, peers {peered}", self.name)
        })
    }
}

/// Rules 2, 6, 7, 49.
/// P2: in every cell, and by either family, the wire has what the table says, and the daemons say of
/// it what it has.
#[test]
fn every_group_against_every_other() {
    if !can_run("every_group_against_every_other") {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west", "east"]);
    let west = Host::start(&internet, "west", WEST);
    let east = Host::start(&internet, "east", EAST);
    let wire = Wire { capture: internet.capture("west"), internet: &internet };
    let mut wrong = Vec::new();
    for (w, west_group) in GROUPS.into_iter().enumerate() {
        for (e, east_group) in GROUPS.into_iter().enumerate() {
            west.be(west_group);
            east.be(east_group);
            west.forget(&east);
            east.forget(&west);
            let hosts = [&west, &east];
            let before = wire.all(hosts);
            let mut pings = [west.ping(&internet, EAST[0]), east.ping(&internet, WEST[1])];
            for ping in &mut pings {
                let _ = ping.wait();
            }
            let settled = wire.all(hosts);
            // Nothing takes long to be sure of: of both at once.
            let (v4, v6) = std::thread::scope(|both| {
                let v4 = both.spawn(|| became(&internet, &west, &east, 0));
                let v6 = became(&internet, &east, &west, 1);
                (v4.join().unwrap(), v6)
            });
            let after = wire.all(hosts);
            let cells = [
                (
                    v4,
                    Cell {
                        from: &west,
                        to: &east,
                        groups: [west_group, east_group],
                        family: 0,
                        expected: TABLE[w][e],
                    },
                ),
                (
                    v6,
                    Cell {
                        from: &east,
                        to: &west,
                        groups: [east_group, west_group],
                        family: 1,
                        expected: TABLE[e][w],
                    },
                ),
            ];
            for (found, cell) in cells {
                let [from, to] = if cell.family == 0 { [0, 1] } else { [1, 0] };
                let of = |then: &[[Sent; 2]; 2]| {
                    [from, to].map(|host| after[cell.family][host].since(then[cell.family][host]))
                };
                if found != cell.expected {
                    let (groups, family) = (cell.groups, cell.family);
                    let expected = cell.expected;
                    wrong.push(format!("{groups:?}, {family}: {found:?}, not {expected:?}"));
                }
                wrong.extend(cell.check(of(&before), of(&settled)));
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
