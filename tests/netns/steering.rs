//! Routing rules that somebody else puts before ours.

use std::fs;

use tests::node::text;
use tests::place;

use crate::internet::{EAST, Internet, PATIENCE, can_run};
use crate::marked::{Marked, Wires};

/// P1: a rule that is followed before ours takes packets past the trap. It is named in the log, by
/// `status` and by `verify`, also one that comes later, until it is gone. In IPv4 what is private is
/// dropped all the same (in IPv6 the kernel asks no policy about what no socket binds to a device).
#[test]
fn rules_of_others_before_ours_are_told() {
    if !can_run("rules_of_others_before_ours_are_told") {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west"]);
    let west = internet.namespace("west");
    let ip = |words: &str| {
        let words: Vec<&str> = words.split_whitespace().collect();
        place::ok(&west, &[&["ip"], &words[..]].concat())
    };
    ip("rule add pref 100 to 198.51.100.0/24 lookup main");
    let mut setup = internet.setup("west");
    setup.policies = vec![("private", "198.51.100.0/24\n2001:db8:2::/64\n")];
    let node = setup.start(&west);
    let first = "ip rule: 100: from all to 198.51.100.0/24 lookup main";
    place::await_some("it is told", PATIENCE, || node.log().contains(first).then_some(()));
    ip("-6 rule add pref 101 fwmark 0x7/0xf uidrange 0-65535 lookup 77");
    ip("-6 rule add pref 102 to 2001:db8:2::/64 lookup main suppress_prefixlength 7");
    let second = "ip -6 rule: 101: from all fwmark 0x7/0xf uidrange 0-65535 lookup 77";
    let third = "ip -6 rule: 102: from all to 2001:db8:2::/64 lookup main suppress_prefixlength 7";
    let told = |rules: &[&str]| {
        place::await_some(&format!("{rules:?}"), PATIENCE, || {
            (node.status()["rules_before_ours"] == serde_json::json!(rules)).then_some(())
        });
    };
    told(&[first, second, third]);
    ip("-6 rule del pref 102");
    ip("-6 rule add pref 102 to 2001:db8:2::/64 lookup main");
    let third = "ip -6 rule: 102: from all to 2001:db8:2::/64 lookup main";
    told(&[first, second, third]);
    let file = setup.write().display().to_string();
    let binary = tests::oe_node().display().to_string();
    let (_, said) = place::run(&west, &[&binary, "verify", "--config", &file]);
    assert!(said.contains(first) && said.contains(second), "{said}");
    let (_, said) = place::run(&west, &[&binary, "status", "--config", &file]);
    assert!(said.contains(first) && said.contains(third), "{said}");

    // A next hop has a way whatever its group.
    let next_hop = node.ask(r#"{"request":"explain","address":"198.51.100.1"}"#);
    assert!(text(&next_hop, "next_packet").contains("held"), "{next_hop}");
    ip("route add 10.9.0.0/16 via 198.51.100.1 dev eth0 onlink");
    place::await_some("a next hop is named", PATIENCE, || {
        let next_hop = node.ask(r#"{"request":"explain","address":"198.51.100.1"}"#);
        text(&next_hop, "next_packet").contains("next hop").then_some(())
    });

    let wires = Wires::listen(&internet);
    let marked = Marked::start(&internet, "west", &EAST[..1]);
    marked.sent(20);
    wires.assert_unmarked();
    // What is not private goes as the rules say: the wire would have told.
    fs::write(setup.directory.join("policies/private"), "").unwrap();
    fs::write(setup.directory.join("policies/block"), "0.0.0.0/0\n::/0\n").unwrap();
    assert!(text(&node.ask(r#"{"request":"reload"}"#), "error").is_empty());
    marked.sent(20);
    wires.assert_unmarked();
    fs::write(setup.directory.join("policies/block"), "").unwrap();
    assert!(text(&node.ask(r#"{"request":"reload"}"#), "error").is_empty());
    wires.await_marked();

    for rule in ["rule del pref 100", "-6 rule del pref 101", "-6 rule del pref 102"] {
        ip(rule);
    }
    told(&[]);
    assert_eq!(node.log().matches(first).count(), 2, "once when it came, once when it went");
}
