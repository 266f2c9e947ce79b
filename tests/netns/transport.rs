//! Two nodes with a configured connection between their own addresses, in transport mode.

use std::fmt::Write as _;

use tests::node::{Node, text};
use tests::pairbed::PairBed;
use tests::place::{self, Capture};

const WEST: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const EAST: [&str; 2] = ["192.0.2.2", "2001:db8::2"];
/// The names of the connections, one for each family.
const NAMES: [&str; 2] = ["four", "six"];

struct Scene {
    west: Node,
    east: Node,
    wire: Capture,
    bed: PairBed,
}

impl Scene {
    /// The mode that each side's connections ask for, and what both say in `[node]`.
    fn up(name: &str, modes: [&str; 2], lines: &str) -> Self {
        let bed = PairBed::up(name, "2048", 0);
        for (side, address) in ["west", "east"].into_iter().zip([WEST[1], EAST[1]]) {
            let address = format!("{address}/64");
            let add = ["ip", "addr", "add", &address, "dev", "eth0", "nodad"];
            place::ok(&bed.namespace(side), &add);
        }
        let node = |own: &str, addresses: [&str; 2], peer: &str, peers: [&str; 2], mode, start| {
            let mut setup = bed.setup(own);
            setup.policies = vec![("clear", "0.0.0.0/0\n::/0\n")];
            setup.node = lines.to_owned();
            let public = setup.directory.join("peer.pem").display().to_string();
            let private = bed.key_file(peer).display().to_string();
            let out = ["openssl", "pkey", "-in", &private, "-pubout", "-out", &public];
            place::ok(&bed.namespace(own), &out);
            for ((name, local), remote) in NAMES.iter().zip(addresses).zip(peers) {
                let _ = write!(
                    setup.more,
                    "[[connection]]\nname = \"{name}\"\ngateway = \"{remote}\"\n\
                     remote-key = \"{public}\"\nlocal-subnets = [\"{local}\"]\n\
                     remote-subnets = [\"{remote}\"]\nmode = \"{mode}\"\nstart = \"{start}\"\n"
                );
            }
            setup.start(&bed.namespace(own))
        };
        let east = node("east", EAST, "west", WEST, modes[1], "accept");
        let file = bed.directory.join("wire.pcap");
        let wire = Capture::start(&bed.namespace("west"), "eth0", &file);
        let west = node("west", WEST, "east", EAST, modes[0], "trap");
        Self { west, east, wire, bed }
    }

    fn ping(&self, from: &str, to: &str, size: &str) -> bool {
        let words = ["ping", "-n", "-c", "1", "-W", "8", "-s", size, to];
        place::run(&self.bed.namespace(from), &words).0
    }

    /// Every way of using the connections; they are to come up in this mode.
    fn carries(&self, mode: &str) {
        for (i, name) in NAMES.into_iter().enumerate() {
            assert!(self.ping("west", EAST[i], "56"), "{name}: the first packet is not answered");
            for node in [&self.west, &self.east] {
                assert_eq!(text(&node.await_connection(name, "up"), "mode"), mode, "{name}");
            }
            // The large ones are fragments when they come to the device.
            for size in ["0", "1", "1000", "1400", "3000", "20000"] {
                assert!(self.ping("west", EAST[i], size), "{name}: {size}");
                assert!(self.ping("east", WEST[i], size), "{name}: {size} back");
            }
            let [west, east] = ["west", "east"].map(|side| self.bed.namespace(side));
            let address = if i == 0 { EAST[0].to_owned() } else { format!("[{}]", EAST[1]) };
            let traffic = env!("CARGO_BIN_EXE_traffic");
            place::transfer(traffic, &west, &east, &format!("{address}:7000"), "30000000");
        }
        self.wire.await_esp();
        let clear = self.wire.in_clear();
        // Later fragments of ESP in UDP have no ports for the filter to see.
        let clear: Vec<&String> = clear.iter().filter(|line| !is_fragment(line)).collect();
        assert!(clear.is_empty(), "in the clear: {clear:#?}");
        for node in [&self.west, &self.east] {
            let plane = &node.status()["counters"]["plane"];
            for none in ["untransportable", "inner_selector", "inner_malformed", "unauthentic"] {
                assert_eq!(plane[none], 0, "{none}: {plane:#}");
            }
            assert!(!node.log().contains("ERROR"), "{}", node.log());
        }
    }

    /// Echo requests bore no inner header; a segment of the transfer may by chance be as long as one
    /// that did.
    fn assert_without_inner_headers(&self) {
        let (bare, within) = (self.of_length(PING), self.of_length(PING_IN_TUNNEL));
        assert!(bare > within, "{bare} without, {within} as long as with an inner header");
    }

    /// How many ESP packets of this length crossed the wire.
    fn of_length(&self, length: usize) -> usize {
        let end = format!(", length {length}");
        self.wire.packets("").iter().filter(|line| line.ends_with(&end)).count()
    }
}

fn is_fragment(line: &str) -> bool {
    line.contains("ip-proto-17") || line.contains("ip-proto-50") || line.contains("frag (")
}

/// ESP around the echo request of `ping`, 64 octets and, in tunnel mode, an IPv4 header: header
/// and IV, padding to four, trailer, ICV.
const PING: usize = 16 + 68 + 16;
const PING_IN_TUNNEL: usize = 16 + 88 + 16;

fn can_run(test: &str) -> bool {
    let why = tests::missing(&PairBed::NEEDS);
    let why = why.or_else(|| tests::missing(&["tcpdump", "ping", "ss"]));
    !tests::skipped(test, why)
}

#[test]
fn transport_mode_carries_everything_in_udp() {
    if !can_run("transport_mode_carries_everything_in_udp") {
        return;
    }
    let scene = Scene::up("oe-trans-u", ["transport"; 2], "");
    scene.carries("transport");
    scene.assert_without_inner_headers();
}

#[test]
fn transport_mode_carries_everything_as_protocol_50() {
    if !can_run("transport_mode_carries_everything_as_protocol_50") {
        return;
    }
    let scene = Scene::up("oe-trans-e", ["transport"; 2], "encapsulation = \"auto\"\n");
    scene.carries("transport");
    assert!(!scene.wire.packets("ip proto 50").is_empty());
    scene.assert_without_inner_headers();
}

/// RFC 7296 §1.3.1: who declines makes it tunnel mode, from either side.
#[test]
fn a_peer_that_wants_a_tunnel_gets_one() {
    if !can_run("a_peer_that_wants_a_tunnel_gets_one") {
        return;
    }
    for (name, modes) in
        [("oe-trans-a", ["transport", "tunnel"]), ("oe-trans-b", ["tunnel", "transport"])]
    {
        let scene = Scene::up(name, modes, "");
        scene.carries("tunnel");
        assert!(scene.of_length(PING) == 0 && scene.of_length(PING_IN_TUNNEL) > 0);
    }
}
