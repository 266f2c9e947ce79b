//! What passes through a gateway in the clear, between hosts that it does not serve: super-packets
//! go on as super-packets.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use tests::node::Node;
use tests::place;

use crate::internet::{EAST, Internet, WEST, can_run};

/// Nobody serves it.
const INNER: [&str; 2] = ["10.5.0.2", "fd05::2"];

/// A host behind west; east has a node of its own, but no key published, so that all is clear.
struct Site {
    inner: String,
    // It ends before its namespace does.
    node: Node,
    internet: Internet,
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.inner]).status();
    }
}

impl Site {
    fn up() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mut internet = Internet::new();
        internet.serve_dns(&["west"]);
        let (west, hub) = (internet.namespace("west"), internet.namespace("hub"));
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let inner = format!("oe-onward-{}-{number}", std::process::id());
        let script = format!(
            "set -e\nip netns add {inner}\nip -n {inner} link set lo up\n\
             ip -n {inner} link add eth0 type veth peer name inner netns {west}\n\
             ip -n {inner} link set eth0 up\nip -n {west} link set inner up\n\
             ip -n {west} addr add 10.5.0.1/24 dev inner\n\
             ip -n {west} addr add fd05::1/64 dev inner nodad\n\
             ip -n {inner} addr add {}/24 dev eth0\n\
             ip -n {inner} addr add {}/64 dev eth0 nodad\n\
             ip -n {inner} route add default via 10.5.0.1\n\
             ip -n {inner} route add default via fd05::1\n\
             ip netns exec {west} sysctl -qw net.ipv4.ip_forward=1\n\
             ip netns exec {west} sysctl -qw net.ipv6.conf.all.forwarding=1\n\
             ip -n {hub} route add 10.5.0.0/24 via {}\n\
             ip -n {hub} route add fd05::/64 via {}\n",
            INNER[0], INNER[1], WEST[0], WEST[1],
        );
        let made = Command::new("sh").args(["-c", &script]).status().unwrap();
        assert!(made.success());
        let node = internet.setup("west").start(&west);
        Self { inner, internet, node }
    }

    /// Octets from the inner host to east and back, every one of them checked.
    fn transfer(&self, east: &str) {
        let at = if east.contains('.') { format!("{east}:7000") } else { format!("[{east}]:7000") };
        let traffic = env!("CARGO_BIN_EXE_traffic");
        place::transfer(traffic, &self.inner, &self.internet.namespace("east"), &at, "20000000");
    }
}

/// What passes arrives as it left, by the wire's own device as the super-packets that came, with two
/// hops counted, so that no loop is for ever, and one of what goes on singly.
#[test]
fn what_passes_goes_on_whole() {
    let test = "what_passes_goes_on_whole";
    if !can_run(test) {
        return;
    }
    let site = Site::up();
    let wire = site.internet.capture("west");
    for (inner, east) in INNER.into_iter().zip(EAST) {
        site.transfer(east);
        let from = format!("tcp and src host {inner}");
        let whole = wire.packets(&format!("{from} and greater 3000"));
        assert!(whole.len() > 20, "{}: {whole:#?}", site.node.log());
        let hops = if inner.contains('.') { "ip[8]" } else { "ip6[7]" };
        let other = wire.packets(&format!("{from} and greater 3000 and {hops} != 62"));
        assert!(other.is_empty(), "{other:#?}");
        let other = wire.packets(&format!("{from} and {hops} != 62 and {hops} != 63"));
        assert!(other.is_empty(), "{other:#?}");
    }
    assert!(!site.node.log().contains("ERROR"), "{}", site.node.log());
}

/// A firewall that names devices and knows none of ours but the one of the node lets super-packets
/// pass, if it lets established connections pass.
#[test]
fn super_packets_are_of_a_connection_that_firewalls_know() {
    let test = "super_packets_are_of_a_connection_that_firewalls_know";
    if !can_run(test) || tests::skipped(test, tests::missing(&["nft"])) {
        return;
    }
    let site = Site::up();
    let west = site.internet.namespace("west");
    let rules = "table inet keep { chain forward { type filter hook forward priority 0; policy drop; \
                 ct state established,related accept; meta l4proto ipv6-icmp accept; \
                 iifname \"inner\" oifname { \"eth0\", \"ipsec0\" } accept; }; }";
    place::ok(&west, &["nft", rules]);
    let wire = site.internet.capture("west");
    for (inner, east) in INNER.into_iter().zip(EAST) {
        site.transfer(east);
        let whole = wire.packets(&format!("tcp and src host {inner} and greater 3000"));
        assert!(whole.len() > 20, "{}: {whole:#?}", site.node.log());
    }
}

/// A firewall lets what is forwarded into our device, and keeps what comes in by the loopback device:
/// connections find out, and go on packet by packet.
#[test]
fn a_firewall_that_keeps_super_packets_stops_nobody() {
    let test = "a_firewall_that_keeps_super_packets_stops_nobody";
    if !can_run(test) || tests::skipped(test, tests::missing(&["nft"])) {
        return;
    }
    let site = Site::up();
    let west = site.internet.namespace("west");
    let rules = "table inet keep { chain forward { type filter hook forward priority 0; \
                 iifname \"lo\" counter drop; }; }";
    place::ok(&west, &["nft", rules]);
    for east in EAST {
        site.transfer(east);
    }
    let counted = place::ok(&west, &["nft", "list", "ruleset"]);
    assert!(!counted.contains("packets 0 "), "nothing was tried: {counted}");
}
