//! What a gateway carries in the clear for hosts that it does not serve, beside what its kernel
//! carries without it: the same daemon on the same machine in the same run, by turns.
//!
//! `cargo build --release -p daemon && cargo run --release -p tests --bin passing [ROUNDS]`, as root,
//! with iperf3. Three namespaces in a row: a host, a gateway with a node, the rest of the world. To
//! and from one address the kernel forwards past the node (group `clear`), to and from another the
//! node passes every packet itself. Printed are medians with the least and the most, and the ratio.
#![allow(clippy::print_stdout, reason = "a program for people")]

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use serde_json::Value;
use tests::node::Setup;
use tests::place;

/// The host's and the world's address of each way.
const WAYS: [(&str, [(&str, &str); 2]); 2] = [
    ("kernel", [("10.5.0.2", "198.51.100.22"), ("fd05::2", "2001:db8:2::22")]),
    ("node", [("10.5.0.3", "198.51.100.23"), ("fd05::3", "2001:db8:2::23")]),
];
const RESOLVER: &str = "192.0.2.1";
const PATIENCE: Duration = Duration::from_secs(20);

/// What is measured: its name, its unit, whether in IPv6, and iperf3's arguments.
const FIGURES: [(&str, &str, usize, &[&str]); 5] = [
    ("one TCP stream", "Gbit/s", 0, &[]),
    ("the same in IPv6", "Gbit/s", 1, &[]),
    ("four TCP streams", "Gbit/s", 0, &["-P", "4"]),
    ("UDP, 1200 octets", "kpps", 0, &["-u", "-b", "0", "-l", "1200"]),
    ("UDP, 64 octets", "kpps", 0, &["-u", "-b", "0", "-l", "64"]),
];

/// Namespaces and servers, gone when this is.
struct Place {
    prefix: String,
    directory: PathBuf,
    servers: Vec<Child>,
}

impl Drop for Place {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
        for host in ["lan", "west", "hub"] {
            let _ = Command::new("ip").args(["netns", "del", &self.namespace(host)]).status();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Place {
    fn up() -> Self {
        let prefix = format!("oe-passing-{}", std::process::id());
        let directory = std::env::temp_dir().join(&prefix);
        let mut place = Self { prefix, directory, servers: Vec::new() };
        let [lan, west, hub] = ["lan", "west", "hub"].map(|host| place.namespace(host));
        let mut script = format!(
            "set -e\nfor n in {lan} {west} {hub}; do ip netns add $n; ip -n $n link set lo up; done\n\
             ip -n {lan} link add eth0 type veth peer name inner netns {west}\n\
             ip -n {west} link add eth0 type veth peer name west netns {hub}\n\
             ip -n {lan} link set eth0 up\nip -n {west} link set inner up\n\
             ip -n {west} link set eth0 up\nip -n {hub} link set west up\n\
             ip -n {west} addr add 10.5.0.1/24 dev inner\n\
             ip -n {west} addr add fd05::1/64 dev inner nodad\n\
             ip -n {west} addr add 192.0.2.11/24 dev eth0\n\
             ip -n {west} addr add 2001:db8:1::11/64 dev eth0 nodad\n\
             ip -n {hub} addr add {RESOLVER}/24 dev west\n\
             ip -n {hub} addr add 2001:db8:1::1/64 dev west nodad\n"
        );
        for (inner, outer) in WAYS.into_iter().flat_map(|(_, ends)| ends) {
            let (length, own) = if inner.contains('.') { (24, 32) } else { (64, 128) };
            let quiet = if own == 128 { "nodad" } else { "" };
            script += &format!(
                "ip -n {lan} addr add {inner}/{length} dev eth0 {quiet}\n\
                 ip -n {hub} addr add {outer}/{own} dev lo {quiet}\n"
            );
        }
        script += &format!(
            "ip -n {lan} route add default via 10.5.0.1\nip -n {lan} route add default via fd05::1\n\
             ip -n {west} route add default via {RESOLVER}\n\
             ip -n {west} route add default via 2001:db8:1::1\n\
             ip -n {hub} route add 10.5.0.0/24 via 192.0.2.11\n\
             ip -n {hub} route add fd05::/64 via 2001:db8:1::11\n\
             ip netns exec {west} sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1\n"
        );
        let made = Command::new("sh").args(["-c", &script]).status();
        assert!(made.as_ref().is_ok_and(std::process::ExitStatus::success), "{made:?}");
        place.serve(&hub);
        place
    }

    fn namespace(&self, host: &str) -> String {
        format!("{}-{host}", self.prefix)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// A name server that knows no keys, and a server for each address.
    fn serve(&mut self, hub: &str) {
        let zone = ". 60 IN SOA ns.test. root.test. 1 3600 600 86400 5\n. 60 IN NS ns.test.\n\
                    ns.test. 60 IN A 192.0.2.1\n";
        let written = fs::create_dir_all(&self.directory)
            .and_then(|()| fs::write(self.file("root.zone"), zone));
        assert!(written.is_ok(), "{written:?}");
        let text = |name: &str| self.file(name).display().to_string();
        let binary = tests::oe_node().display().to_string();
        let (listen, keys, anchor) = (format!("{RESOLVER}:53"), text("zone-keys"), text("anchor"));
        let words = [
            &[&binary, "zone", "serve", "--listen", &listen, "--key-dir", &keys][..],
            &["--write-trust-anchor", &anchor, &text("root.zone")],
        ];
        self.start(hub, &words.concat());
        for (_, outer) in WAYS.into_iter().flat_map(|(_, ends)| ends) {
            self.start(hub, &["iperf3", "-s", "-B", outer]);
        }
        place::await_some("the servers listen", PATIENCE, || {
            let listening = place::ok(hub, &["ss", "-Hltn", "sport", "=", "5201"]);
            (listening.lines().count() == 4 && self.file("anchor").exists()).then_some(())
        });
    }

    fn start(&mut self, namespace: &str, words: &[&str]) {
        let mut command = place::command(namespace, words);
        let log = fs::File::create(self.file("servers.log"));
        let log = log.and_then(|log| Ok((log.try_clone()?, log)));
        let Ok((copy, log)) = log else { panic!("{log:?}") };
        let spawned = command.stdout(copy).stderr(log).spawn();
        let Ok(server) = spawned else { panic!("{words:?}: {spawned:?}") };
        self.servers.push(server);
    }

    /// One figure between two ends.
    fn measure(&self, (inner, outer): (&str, &str), arguments: &[&str]) -> f64 {
        let words = [&["iperf3", "-J", "-t", "2", "-B", inner, "-c", outer], arguments].concat();
        let said = place::ok(&self.namespace("lan"), &words);
        let end = serde_json::from_str::<Value>(&said).unwrap_or_default()["end"].take();
        let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
        if arguments.contains(&"-u") {
            let sum = &end["sum"];
            (number(&sum["packets"]) - number(&sum["lost_packets"])) / number(&sum["seconds"]) / 1e3
        } else {
            number(&end["sum_received"]["bits_per_second"]) / 1e9
        }
    }
}

fn main() {
    let rounds = std::env::args().nth(1).and_then(|word| word.parse().ok()).unwrap_or(3);
    if let Some(why) = tests::missing(&["ip", "iperf3", "ss", "sysctl", "/dev/net/tun"]) {
        println!("skipped: {why}");
        return;
    }
    let place = Place::up();
    let mut setup = Setup::new(place.file("node"), RESOLVER, place.file("anchor"));
    setup.quiet = true;
    let [(_, past), (_, through)] = WAYS;
    let clear: String = past.into_iter().map(|(a, b)| format!("{a}\n{b}\n")).collect();
    setup.policies.push(("clear", Box::leak(clear.into_boxed_str())));
    let _node = setup.start(&place.namespace("west"));

    println!("the first TCP stream through the node: {:.1} Gbit/s", place.measure(through[0], &[]));
    let mut found = vec![[const { Vec::new() }; 2]; FIGURES.len()];
    for _ in 0..rounds {
        for ((_, _, family, arguments), found) in FIGURES.into_iter().zip(&mut found) {
            for ((_, ends), found) in WAYS.into_iter().zip(found) {
                let Some(ends) = ends.get(family) else { continue };
                found.push(place.measure(*ends, arguments));
            }
        }
    }
    println!("{:<18} {:<8} {:>22} {:>22} {:>7}", "", "", "kernel", "node", "ratio");
    for ((name, unit, ..), found) in FIGURES.into_iter().zip(found) {
        let [kernel, node] = found.map(spread);
        let told =
            |(least, median, most): (f64, f64, f64)| format!("{median:.1} ({least:.1}-{most:.1})");
        let (a, b) = (told(kernel), told(node));
        println!("{name:<18} {unit:<8} {a:>22} {b:>22} {:>7.2}", node.1 / kernel.1);
    }
}

/// The least, the median, the most.
fn spread(mut all: Vec<f64>) -> (f64, f64, f64) {
    all.sort_by(f64::total_cmp);
    let at = |place: usize| all.get(place).copied().unwrap_or(f64::NAN);
    (at(0), at(all.len() / 2), at(all.len().saturating_sub(1)))
}
