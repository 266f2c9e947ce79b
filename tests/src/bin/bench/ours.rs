//! Our own contenders: the cable, the packet thread alone, two daemons.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, ensure};
use tests::node::Setup;
use tests::place;

use crate::contender::Up;
use crate::plane::MARK;
use crate::site::{ENDS, Running, Site, shell};

/// Nothing but the cable.
pub(crate) fn raw() -> anyhow::Result<Up> {
    let site = Site::new("raw")?;
    Ok(Up {
        names: site.names.clone(),
        target: ENDS[1].parse()?,
        pids: Vec::new(),
        node: None,
        _keep: vec![Box::new(site)],
    })
}

/// The packet thread alone at both ends.
pub(crate) fn plane(word: &str, more: &[&str], clear_destinations: bool) -> anyhow::Result<Up> {
    let site = Site::new(word)?;
    let mut running = Vec::new();
    for (side, name) in site.names.iter().enumerate() {
        let number = side.to_string();
        let words = [&["plane", "--side", &number], more].concat();
        let mut plane = Running::ourselves(name, &words)?;
        ensure!(plane.line()? == "ready", "the packet thread does not start");
        running.push(plane);
        let (own, far) = (ENDS[side], ENDS[1 - side]);
        site.ip(side, &format!("rule add not fwmark {MARK:#x} lookup 77 pref 50"))?;
        site.ip(side, &format!("route add {far} dev ipsec0 src {own} table 77"))?;
        if clear_destinations {
            // As the daemon lays them: one route for each destination.
            let lines = crate::plane::clear_destinations().fold(String::new(), |mut all, to| {
                let _ = writeln!(all, "route add throw {to} table 77");
                all
            });
            batch(name, &lines)?;
        }
    }
    let pids = running.iter().map(Running::pid).collect();
    ensure!(place::ping(&site.names[0], ENDS[1]), "no answer through the packet threads");
    Ok(Up {
        names: site.names.clone(),
        target: ENDS[1].parse()?,
        pids,
        node: None,
        _keep: vec![Box::new(running), Box::new(site)],
    })
}

fn batch(namespace: &str, lines: &str) -> anyhow::Result<()> {
    let mut ip = Running::start(place::command(namespace, &["ip", "-batch", "-"]))?;
    ip.input.as_mut().context("no pipe")?.write_all(lines.as_bytes())?;
    ip.wait()
}

/// Two daemons that find each other's keys in DNS, or one and a host without a key.
pub(crate) fn oe_node(word: &str, encapsulation: &str, both: bool) -> anyhow::Result<Up> {
    if let Some(why) = tests::missing(&["openssl"]) {
        anyhow::bail!("{why}");
    }
    let built = std::env::current_exe()?.with_file_name("oe-node");
    ensure!(built.exists(), "oe-node is not built: cargo build --release -p daemon");
    let site = Site::new(word)?;
    let ends = if both { &ENDS[..] } else { &ENDS[..1] };
    for (side, _) in ends.iter().enumerate() {
        let key = site.directory.join(format!("{side}.key"));
        shell(&format!(
            "umask 077; openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out {} 2>&1",
            key.display()
        ))?;
    }
    let dns = Dns::up(&site, &built, ends)?;
    let mut nodes = Vec::new();
    for (side, _) in ends.iter().enumerate() {
        let directory = site.directory.join(side.to_string());
        std::fs::create_dir_all(&directory)?;
        let mut setup = Setup::new(directory, RESOLVERS[side], site.directory.join("anchor"));
        setup.key = Some(site.directory.join(format!("{side}.key")));
        setup.node = format!("encapsulation = \"{encapsulation}\"");
        nodes.push(setup.start(&site.names[side]));
    }
    ensure!(place::ping(&site.names[0], ENDS[1]), "the first packet is not answered");
    let first = nodes.first().context("one node at least")?;
    first.await_state(ENDS[1], if both { "keyed" } else { "clear-text" });
    let pids = nodes.iter().map(tests::node::Node::pid).collect();
    let node = Some((nodes.remove(0), RESOLVERS[0].parse()?));
    Ok(Up {
        names: site.names.clone(),
        target: ENDS[1].parse()?,
        pids,
        node,
        _keep: vec![Box::new(nodes), Box::new(dns), Box::new(site)],
    })
}

/// A name server in a namespace of its own, on a cable to each of the two.
struct Dns {
    name: String,
    _server: Running,
}

impl Dns {
    fn up(site: &Site, oe_node: &Path, ends: &[&str]) -> anyhow::Result<Self> {
        let name = site.names[0].replace("-a", "-d");
        shell(&format!("ip netns add {name} && ip -n {name} link set lo up"))?;
        for (side, (end, resolver)) in site.names.iter().zip(RESOLVERS).enumerate() {
            shell(&format!("ip -n {end} link add dns type veth peer name d{side} netns {name}"))?;
            shell(&format!("ip -n {end} addr add {}/30 dev dns", CLIENTS[side]))?;
            shell(&format!("ip -n {name} addr add {resolver}/30 dev d{side}"))?;
            shell(&format!("ip -n {end} link set dns up && ip -n {name} link set d{side} up"))?;
        }
        let mut zone = ". 60 IN SOA ns.test. root.test. 1 3600 600 86400 5\n. 60 IN NS ns.test.\n\
                        ns.test. 60 IN A 203.0.113.2\n"
            .to_owned();
        for (side, end) in ends.iter().enumerate() {
            let key = site.directory.join(format!("{side}.key"));
            let Output { status, stdout, stderr } = Command::new(oe_node)
                .args(["showhostkey", "--format", "nsd", "--txt", end, "--owner", end])
                .arg("--key-file")
                .arg(key)
                .output()?;
            ensure!(status.success(), "{}", String::from_utf8_lossy(&stderr));
            zone += &String::from_utf8_lossy(&stdout);
        }
        let file = |name: &str| site.directory.join(name).display().to_string();
        std::fs::write(file("root.zone"), zone)?;
        let (binary, keys, anchor) =
            (oe_node.display().to_string(), file("zone-keys"), file("anchor"));
        let zone = file("root.zone");
        let listen = RESOLVERS.map(|address| format!("{address}:53"));
        let words = [
            &[binary.as_str(), "zone", "serve", "--key-dir", &keys, "--write-trust-anchor"][..],
            &[&anchor, "--listen", &listen[0], "--listen", &listen[1], &zone],
        ];
        let mut command = place::command(&name, &words.concat());
        let log = std::fs::File::create(file("dns.log"))?;
        command.stderr(Stdio::from(log.try_clone()?));
        let server = Running::start_saying_to(command, log)?;
        let dns = Self { name, _server: server };
        let log = file("dns.log");
        place::await_some("the name server answers", std::time::Duration::from_secs(20), || {
            std::fs::read_to_string(&log).ok()?.contains("answering on").then_some(())
        });
        Ok(dns)
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

/// The name server's addresses, one for each end.
const RESOLVERS: [&str; 2] = ["203.0.113.2", "203.0.113.6"];
/// The ends' addresses on the cables to it.
const CLIENTS: [&str; 2] = ["203.0.113.1", "203.0.113.5"];
