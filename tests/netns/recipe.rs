//! What GATEWAYS and the README print of addresses lent to a distant site, done as it stands there.

use std::process::Command;

use tests::place;

use crate::internet::{DNS, Internet, PATIENCE, can_run};

const GATEWAYS: &str = include_str!("../../docs/GATEWAYS.md");
const README: &str = include_str!("../../README.md");

/// The blocks of code of a section, without their fences.
fn blocks(text: &'static str, heading: &str) -> Vec<&'static str> {
    let (_, section) = text.split_once(heading).unwrap();
    let section = section.split("\n## ").next().unwrap();
    section.split("```").skip(1).step_by(2).map(|block| block.split_once('\n').unwrap().1).collect()
}

/// A line without what is said about it.
fn bare(line: &str) -> String {
    let line = line.split('#').next().unwrap_or_default();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Rules of the connections, or routes of their table, as documents print them: without whose they
/// are.
fn held(namespace: &str, what: &[&str]) -> Vec<String> {
    let said = place::ok(namespace, what);
    let ours = said.lines().filter(|line| line.contains("proto 143"));
    let line = |line: &str| line.replace("proto 143", "").replace("scope link", "");
    ours.map(|text| line(text).split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// The namespace of a machine at home, behind its router.
struct Inner(String);

impl Drop for Inner {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

impl Inner {
    fn up(internet: &Internet) -> Self {
        let inner = format!("oe-recipe-{}", std::process::id());
        let [west, east, hub] = ["west", "east", "hub"].map(|host| internet.namespace(host));
        let script = format!(
            "set -e\nip netns add {inner}\nip -n {inner} link set lo up\n\
             ip -n {inner} link add eth0 type veth peer name inner netns {east}\n\
             ip -n {inner} link set eth0 up\nip -n {east} link set inner up\n\
             ip -n {east} addr add 192.0.2.129/28 dev inner\n\
             ip -n {inner} addr add 192.0.2.130/28 dev eth0\n\
             ip -n {inner} route add default via 192.0.2.129\n\
             ip -n {hub} route add 192.0.2.128/28 via 192.0.2.11\n\
             ip netns exec {west} sysctl -qw net.ipv4.ip_forward=1\n\
             ip netns exec {east} sysctl -qw net.ipv4.ip_forward=1\n"
        );
        let made = Command::new("sh").args(["-c", &script]).status().unwrap();
        assert!(made.success());
        Self(inner)
    }
}

/// The recipe's text is the test's: the configuration that is printed is what the two nodes get, but
/// for where the keys lie, and the rules and routes that are printed are those that stand then.
#[test]
fn the_recipe_of_an_extruded_subnet_works_as_it_is_printed() {
    if !can_run("the_recipe_of_an_extruded_subnet_works_as_it_is_printed") {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west"]);
    let directory = internet.directory.display().to_string();
    for (host, name) in [("west", "hq"), ("east", "home")] {
        let [from, to] = [format!("{directory}/{host}.key"), format!("{directory}/{name}.pem")];
        let words = ["pkey", "-in", &from, "-pubout", "-out", &to];
        assert!(Command::new("openssl").args(words).status().unwrap().success());
    }
    let printed = blocks(GATEWAYS, "## Addresses lent to a distant site");
    let [hq, home, rules_at_home, rules_at_hq] = printed.as_slice() else { panic!("{printed:?}") };
    let short = blocks(README, "### Lend addresses to a distant site");
    assert_eq!(short, [*hq, *home, *rules_at_home], "the README prints the same");
    let placed = |text: &str| text.replace("/etc/oe-node", &directory);
    let (mut west, mut east) = (internet.setup("west"), internet.setup("east"));
    west.more = placed(hq);
    let (node, more) = home.split_once("[[").unwrap();
    assert!(node.starts_with("[node]"), "{node}");
    east.node = node.lines().skip(1).map(|line| format!("{line}\n")).collect();
    east.more = placed(&format!("[[{more}"));
    let inner = Inner::up(&internet);
    let wire = internet.capture("east");
    let nodes = [west.start(&internet.namespace("west")), east.start(&internet.namespace("east"))];
    nodes[1].await_connection("hq 192.0.2.128/28", "up");
    nodes[0].await_connection("home 192.0.2.128/28", "up");
    for (namespace, to) in [(inner.0.clone(), DNS[0]), (internet.namespace("dns"), "192.0.2.130")] {
        place::await_some(to, PATIENCE, || place::ping(&namespace, to).then_some(()));
    }
    wire.await_esp();
    let clear = wire.packets("net 192.0.2.128/28");
    assert!(clear.is_empty(), "{clear:#?}");

    let [at_hq, at_home] = ["west", "east"].map(|host| internet.namespace(host));
    // The route that says that it is up comes a moment later.
    let routes = place::await_some("the route of the link", PATIENCE, || {
        let routes = held(&at_home, &["ip", "route", "show", "table", "4323"]);
        routes.iter().any(|route| route.ends_with("metric 50")).then_some(routes)
    });
    let standing = held(&at_home, &["ip", "rule"]);
    let listed = |text: &str| -> Vec<String> {
        let lines = text.lines().map(bare);
        lines.filter(|line| !line.is_empty() && !line.starts_with("ip ")).collect()
    };
    assert_eq!(listed(rules_at_home), [standing, routes].concat(), "at home");
    assert_eq!(listed(rules_at_hq), held(&at_hq, &["ip", "rule"]), "at hq");
}
