//! Hosts behind a gateway that serves them: one that has published nothing, beside one that has, and
//! the gateway itself.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use tests::node::{Node, text};
use tests::place::{self, Capture};

use crate::internet::{EAST, Internet, WEST, can_run};

/// A host that is served, and has no record.
const MUTE: [&str; 2] = ["192.0.2.66", "2001:db8:1:1::66"];
/// A host that is served, and whose record names west.
const NAMED: [&str; 2] = ["192.0.2.67", "2001:db8:1:1::67"];

/// West with both of them behind it, east with a node of its own.
struct Site {
    inner: String,
    // They end before their namespaces do.
    nodes: Vec<Node>,
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
        let own = [("west", WEST), ("east", EAST)].map(|(host, a)| a.map(|a| (host, a, a)));
        let of_west = [("west", NAMED[0], WEST[0]), ("west", NAMED[1], WEST[1])];
        internet.serve_records(&[own.concat(), of_west.to_vec()].concat());
        let (west, hub) = (internet.namespace("west"), internet.namespace("hub"));
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let inner = format!("oe-served-{}-{number}", std::process::id());
        let mut script = format!(
            "set -e\nip netns add {inner}\nip -n {inner} link set lo up\n\
             ip -n {inner} link add eth0 type veth peer name inner netns {west}\n\
             ip -n {inner} link set eth0 up\nip -n {west} link set inner up\n\
             ip -n {west} addr add 192.0.2.65/26 dev inner\n\
             ip -n {west} addr add 2001:db8:1:1::1/64 dev inner nodad\n\
             ip netns exec {west} sysctl -qw net.ipv4.ip_forward=1\n\
             ip netns exec {west} sysctl -qw net.ipv6.conf.all.forwarding=1\n\
             ip -n {hub} route add 192.0.2.64/26 via {}\n\
             ip -n {hub} route add 2001:db8:1:1::/64 via {}\n",
            WEST[0], WEST[1],
        );
        for [v4, v6] in [MUTE, NAMED] {
            script += &format!(
                "ip -n {inner} addr add {v4}/26 dev eth0\n\
                 ip -n {inner} addr add {v6}/64 dev eth0 nodad\n"
            );
        }
        script += &format!(
            "ip -n {inner} route add default via 192.0.2.65 src {}\n\
             ip -n {inner} route add default via 2001:db8:1:1::1 src {}\n",
            MUTE[0], MUTE[1],
        );
        let made = Command::new("sh").args(["-c", &script]).status().unwrap();
        assert!(made.success());
        let nodes = ["west", "east"].map(|host| {
            let mut setup = internet.setup(host);
            if host == "west" {
                setup.more = "[[serve]]\nsubnet = \"192.0.2.64/26\"\n\
                              [[serve]]\nsubnet = \"2001:db8:1:1::/64\"\n"
                    .to_owned();
            }
            setup.start(&internet.namespace(host))
        });
        Self { inner, internet, nodes: nodes.into() }
    }

    /// Whether east answers an echo request from an address behind west.
    fn ping_from(&self, source: &str, to: &str) -> bool {
        let words = ["ping", "-n", "-q", "-c", "1", "-W", "20", "-I", source, to];
        place::run(&self.inner, &words).0
    }
}

/// How a flow stands with west.
fn state(node: &Node, source: &str, destination: &str) -> String {
    let status = node.ask(r#"{"request":"status"}"#);
    let flows = status["destinations"].as_array().cloned().unwrap_or_default();
    let of =
        |flow: &&serde_json::Value| flow["source"] == source && flow["destination"] == destination;
    flows.iter().find(of).map_or_else(String::new, |flow| text(flow, "state").to_owned())
}

/// What went in the clear from an address.
fn clear(wire: &Capture, source: &str) -> Vec<String> {
    let neighbours = "icmp6 and ip6[40] >= 133 and ip6[40] <= 137";
    wire.packets(&format!("(icmp or icmp6 or tcp) and src host {source} and not ({neighbours})"))
}

/// Attack A48.
/// P2: a host that is served talks to east, which publishes a key, and has itself no record: it goes in
/// the clear. West's own first packet to east, and that of a host with a good record, are held,
/// encrypted and answered through ESP all the same; then and after that nobody disturbs the other.
#[test]
fn what_a_host_without_a_record_sends_opens_nothing_for_others() {
    let test = "what_a_host_without_a_record_sends_opens_nothing_for_others";
    if !can_run(test) {
        return;
    }
    let site = Site::up();
    let west = site.internet.namespace("west");
    let wire = site.internet.capture("west");
    for ((family, east), own) in EAST.into_iter().enumerate().zip(WEST) {
        let (mute, named) = (MUTE[family], NAMED[family]);
        for _ in 0..2 {
            assert!(site.ping_from(mute, east), "{mute} is answered in the clear");
        }
        assert_eq!(state(&site.nodes[0], mute, east), "clear-text");
        assert!(clear(&wire, mute).len() >= 2);

        assert!(place::ping(&west, east), "{own}");
        assert!(site.ping_from(named, east), "{named}");
        wire.await_esp();
        for source in [own, named] {
            assert_eq!(state(&site.nodes[0], source, east), "keyed", "{source}");
            let clear = clear(&wire, source);
            assert!(clear.is_empty(), "{source}: {clear:#?}");
        }
        // What passes goes on doing so beside the pairs, super-packets included.
        assert!(site.ping_from(mute, east), "{mute}");
        let at = if family == 0 { format!("{east}:7000") } else { format!("[{east}]:7000") };
        let traffic = env!("CARGO_BIN_EXE_traffic");
        place::transfer(traffic, &site.inner, &site.internet.namespace("east"), &at, "20000000");
        assert_eq!(state(&site.nodes[0], mute, east), "clear-text");
        for source in [own, named] {
            let clear = clear(&wire, source);
            assert!(clear.is_empty(), "{source}: {clear:#?}");
        }
    }
    for node in &site.nodes {
        assert!(!node.log().contains("ERROR"), "{}", node.log());
    }
}
