//! Translation and connection tracking beside the node: what the kernel decided about the first
//! packet of a connection it goes on doing, whichever device the later ones leave by.

use std::sync::atomic::{AtomicU32, Ordering};

use tests::node::Node;
use tests::place;

use crate::internet::{DNS, EAST, Internet, can_run};

/// A site behind west that the Internet does not know: west translates for it.
struct Site {
    inner: String,
    // They end before their namespaces do.
    nodes: Vec<Node>,
    internet: Internet,
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = std::process::Command::new("ip").args(["netns", "del", &self.inner]).status();
    }
}

impl Site {
    fn up(rule: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mut internet = Internet::new();
        internet.serve_dns(&["west", "east"]);
        let west = internet.namespace("west");
        let inner =
            format!("oe-inner-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let script = format!(
            "set -e\nip netns add {inner}\nip -n {inner} link set lo up\n\
             ip -n {inner} link add eth0 type veth peer name inner netns {west}\n\
             ip -n {inner} link set eth0 up\nip -n {west} link set inner up\n\
             ip -n {west} addr add 10.5.0.1/24 dev inner\n\
             ip -n {inner} addr add 10.5.0.2/24 dev eth0\n\
             ip -n {inner} route add default via 10.5.0.1\n\
             ip netns exec {west} sysctl -qw net.ipv4.ip_forward=1\n\
             ip netns exec {west} nft 'add table ip nat'\n\
             ip netns exec {west} nft 'add chain ip nat post {{ type nat hook postrouting \
             priority 100; }}'\n\
             ip netns exec {west} nft 'add rule ip nat post {rule}'\n"
        );
        let made = std::process::Command::new("sh").args(["-c", &script]).status().unwrap();
        assert!(made.success());
        let nodes = ["west", "east"]
            .map(|host| internet.setup(host).start(&internet.namespace(host)))
            .into();
        Self { inner, internet, nodes }
    }
}

/// Attack A48.
/// Rule 71. What a gateway translates whichever device it leaves by is its own when it comes to us:
/// it is encrypted as that, and what goes in the clear finds its way back too, if only from the
/// second packet on: the kernel, which has seen the first before we held it, gives that another
/// port when we release it.
#[test]
fn what_a_gateway_translates_is_its_own() {
    let test = "what_a_gateway_translates_is_its_own";
    if !can_run(test) || tests::skipped(test, tests::missing(&["nft"])) {
        return;
    }
    for rule in [
        "ip saddr 10.5.0.0/24 masquerade",
        "ip saddr 10.5.0.0/24 snat to 192.0.2.11",
        "oifname { eth0, ipsec0 } masquerade",
    ] {
        let site = Site::up(rule);
        let wire = site.internet.capture("west");
        assert!(place::ping(&site.inner, EAST[0]), "{rule}: the first packet");
        wire.await_esp();
        site.nodes[0].await_state(EAST[0], "keyed");
        let clear = wire.packets("icmp");
        assert!(clear.is_empty(), "{rule}: {clear:#?}");
        let words = ["ping", "-n", "-q", "-c", "4", "-i", "0.5", "-W", "2", DNS[0]];
        assert!(place::run(&site.inner, &words).0, "{rule}: in the clear");
        let clear = wire.packets("icmp and src host 10.5.0.2");
        assert!(clear.is_empty(), "{rule}: untranslated {clear:#?}");
    }
}

/// Attack A48.
/// P2: somebody whom nobody serves sends through west to a destination that west itself has not talked
/// to. What becomes of his packets says nothing of west's own: they are held, and leave encrypted.
#[test]
fn what_passes_through_opens_nothing_for_our_own() {
    let test = "what_passes_through_opens_nothing_for_our_own";
    if !can_run(test) || tests::skipped(test, tests::missing(&["nft"])) {
        return;
    }
    let site = Site::up("ip saddr 10.99.0.0/24 masquerade");
    let west = site.internet.namespace("west");
    let wire = site.internet.capture("west");
    for _ in 0..2 {
        assert!(!place::run(&site.inner, &["ping", "-n", "-c", "1", "-W", "1", EAST[0]]).0);
    }
    assert!(!wire.packets("icmp and src host 10.5.0.2").is_empty(), "they went as they came");
    assert!(place::ping(&west, EAST[0]));
    wire.await_esp();
    let clear = wire.packets("icmp and src host 192.0.2.11");
    assert!(clear.is_empty(), "{clear:#?}");
}

/// Attack A48. Rule 8.
/// What a firewall keeps in by the device that packets leave by: forwarded packets go to ours first,
/// so that the rule must name it, or match our mark where they leave.
#[test]
fn a_firewall_that_goes_by_devices_names_ours() {
    let test = "a_firewall_that_goes_by_devices_names_ours";
    if !can_run(test) || tests::skipped(test, tests::missing(&["nft"])) {
        return;
    }
    let site = Site::up("ip saddr 10.99.0.0/24 masquerade");
    let west = site.internet.namespace("west");
    let wire = site.internet.capture("west");
    let to = DNS[0];
    let sent = || wire.packets(&format!("icmp and src host 10.5.0.2 and dst host {to}")).len();
    let knock = || {
        let _ = place::run(&site.inner, &["ping", "-n", "-c", "4", "-i", "0.3", "-W", "1", to]);
    };
    // West's own decision about it: what is forwarded follows no route that leads past us.
    knock();
    assert!(sent() > 0, "it went as it came");
    let filter = "table inet filter { chain forward { type filter hook forward priority 0; }; \
                  chain output { type filter hook output priority 0; }; }";
    place::ok(&west, &["nft", filter]);
    for (rule, keeps) in [
        ("forward oifname \"eth0\" ip daddr 203.0.113.53 drop", false),
        ("forward oifname { \"eth0\", \"ipsec0\" } ip daddr 203.0.113.53 drop", true),
        ("output meta mark 0x4322 ip saddr 10.5.0.0/24 ip daddr 203.0.113.53 drop", true),
    ] {
        place::ok(
            &west,
            &[
                "nft",
                &format!(
                    "flush chain inet filter forward; flush chain inet filter output; add rule inet filter {rule}"
                ),
            ],
        );
        let before = sent();
        knock();
        assert_eq!(sent() == before, keeps, "{rule}");
    }
}
