//! A DNS of its own in a network namespace: a signed tree from the root down, two authoritative
//! servers (NSD) and a validating resolver (Unbound) before them.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// What a test that needs a bed needs.
pub(crate) const PROGRAMS: [&str; 6] =
    ["ip", "nsd", "unbound", "ldns-keygen", "ldns-signzone", "ldns-key2ds"];

/// The resolver's address.
pub(crate) const RESOLVER: &str = "203.0.113.1";

/// The two authoritative servers' addresses.
const SERVERS: [&str; 2] = ["203.0.113.53", "203.0.113.54"];

/// How a zone is signed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signing {
    /// Well, with a DS in its parent.
    Good,
    /// Not at all, and without DS.
    None,
    /// Well, and then a record was changed.
    Tampered,
    /// Signatures ended yesterday.
    Expired,
}

/// A zone.
pub(crate) struct Zone {
    pub(crate) name: &'static str,
    pub(crate) signing: Signing,
    /// Owner below the zone, then the rest of the line.
    pub(crate) records: Vec<(String, String)>,
    /// Lines that the second server does not have.
    pub(crate) only_first: Vec<(String, String)>,
}

impl Zone {
    pub(crate) fn new(name: &'static str, signing: Signing) -> Self {
        Self { name, signing, records: Vec::new(), only_first: Vec::new() }
    }

    pub(crate) fn with(mut self, owner: &str, line: impl Into<String>) -> Self {
        self.records.push((owner.to_owned(), line.into()));
        self
    }

    pub(crate) fn only_first(mut self, owner: &str, line: impl Into<String>) -> Self {
        self.only_first.push((owner.to_owned(), line.into()));
        self
    }
}

/// Runs until it is dropped.
pub(crate) struct Bed {
    pub(crate) dir: PathBuf,
    pub(crate) namespace: String,
    running: Vec<Child>,
}

impl Bed {
    /// Signs and serves. The root, `arpa`, `in-addr.arpa` and `test` are there without being
    /// asked for.
    pub(crate) fn start(test: &str, mut zones: Vec<Zone>) -> Self {
        let namespace = format!("oecli-{}-{test}", std::process::id());
        let dir = std::env::temp_dir().join(&namespace);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        for name in [".", "arpa", "in-addr.arpa"] {
            zones.push(Zone::new(name, Signing::Good));
        }
        let mut test_zone = Zone::new("test", Signing::Good);
        for (at, server) in SERVERS.iter().enumerate() {
            test_zone = test_zone.with(&format!("ns{}", at + 1), format!("IN A {server}"));
        }
        zones.push(test_zone);
        // Children first: their DS goes into the parent.
        zones.sort_by_key(|zone| std::cmp::Reverse(depth(zone.name)));
        let mut bed = Self { dir, namespace, running: Vec::new() };
        run(&format!("ip netns add {}", bed.namespace));
        bed.exec("ip link set lo up");
        for address in SERVERS.iter().chain(&[RESOLVER]) {
            bed.exec(&format!("ip addr add {address}/32 dev lo"));
        }
        bed.sign(&zones);
        bed.serve(&zones);
        bed
    }

    /// The root's key, in master-file form.
    pub(crate) fn anchor(&self) -> PathBuf {
        self.dir.join("anchor.key")
    }

    /// Runs a command line in the bed; it must succeed.
    pub(crate) fn exec(&self, line: &str) -> String {
        run(&format!("ip netns exec {} {line}", self.namespace))
    }

    /// Runs a program in the bed.
    pub(crate) fn output(&self, program: &Path, args: &[&str]) -> Output {
        Command::new("ip")
            .args(["netns", "exec", &self.namespace])
            .arg(program)
            .args(args)
            .output()
            .unwrap()
    }

    /// Starts a program in the bed; it is stopped with it.
    pub(crate) fn spawn(&mut self, program: &str, args: &[&str]) {
        let log = fs::File::create(self.dir.join(format!("log.{}", self.running.len()))).unwrap();
        let child = Command::new("ip")
            .args(["netns", "exec", &self.namespace, program])
            .args(args)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.running.push(child);
    }

    fn sign(&self, zones: &[Zone]) {
        let mut signers: Vec<(&str, String)> = Vec::new();
        for zone in zones {
            let dot = dotted(zone.name);
            let children = zones.iter().filter(|z| parent(z.name, zones) == Some(zone.name));
            let mut delegations = String::new();
            for child in children {
                let owner = dotted(child.name);
                for server in ["ns1.test.", "ns2.test."] {
                    writeln!(delegations, "{owner} IN NS {server}").unwrap();
                }
                for (_, ds) in signers.iter().filter(|(name, _)| *name == child.name) {
                    writeln!(delegations, "{ds}").unwrap();
                }
            }
            if zone.name == "." {
                for (at, server) in SERVERS.iter().enumerate() {
                    writeln!(delegations, "ns{}.test. IN A {server}", at + 1).unwrap();
                }
            }
            let key = (zone.signing != Signing::None).then(|| {
                let keygen = format!("ldns-keygen -a ECDSAP256SHA256 -k {dot}");
                run_in(&self.dir, &keygen).trim().to_owned()
            });
            for (server, extra) in [(1, &zone.only_first[..]), (2, &[])] {
                let mut text = format!(
                    "$ORIGIN {dot}\n$TTL 3600\n\
                     @ IN SOA ns1.test. root.test. 1 3600 600 86400 60\n\
                     @ IN NS ns1.test.\n@ IN NS ns2.test.\n{delegations}"
                );
                for (owner, line) in zone.records.iter().chain(extra) {
                    writeln!(text, "{owner} {line}").unwrap();
                }
                let file = self.file(zone.name, server);
                fs::write(&file, text).unwrap();
                if let Some(key) = &key {
                    self.sign_file(zone, &file, key);
                }
            }
            if let Some(key) = key {
                let ds = run_in(&self.dir, &format!("ldns-key2ds -n -2 {key}.key"));
                signers.push((zone.name, ds.trim().to_owned()));
                if zone.name == "." {
                    fs::copy(self.dir.join(format!("{key}.key")), self.anchor()).unwrap();
                }
            }
        }
    }

    fn sign_file(&self, zone: &Zone, file: &Path, key: &str) {
        let times = if zone.signing == Signing::Expired {
            // Long over, whenever this runs.
            "-i 20200101 -e 20200201"
        } else {
            ""
        };
        let file = file.display();
        run_in(&self.dir, &format!("ldns-signzone {times} -f {file}.signed {file} {key}"));
        let signed = format!("{file}.signed");
        let mut text = fs::read_to_string(&signed).unwrap();
        if zone.signing == Signing::Tampered {
            let changed = text.replace("X-IPsec-Server(10)", "X-IPsec-Server(11)");
            assert_ne!(text, changed, "nothing to change in {}", zone.name);
            text = changed;
        }
        fs::write(file.to_string(), text).unwrap();
    }

    fn file(&self, zone: &str, server: usize) -> PathBuf {
        let name = if zone == "." { "root" } else { zone };
        self.dir.join(format!("zone{server}.{name}"))
    }

    fn serve(&mut self, zones: &[Zone]) {
        let dir = self.dir.display().to_string();
        for (at, address) in SERVERS.iter().enumerate() {
            let server = at + 1;
            let mut conf = format!(
                "server:\n ip-address: {address}\n username: \"\"\n zonesdir: \"{dir}\"\n \
                 database: \"\"\n pidfile: \"{dir}/nsd{server}.pid\"\n \
                 xfrdfile: \"{dir}/xfrd{server}\"\n zonelistfile: \"{dir}/zones{server}\"\n \
                 server-count: 1\nremote-control:\n control-enable: no\n"
            );
            for zone in zones {
                let file = self.file(zone.name, server);
                writeln!(
                    conf,
                    "zone:\n name: \"{}\"\n zonefile: \"{}\"",
                    zone.name,
                    file.display()
                )
                .unwrap();
            }
            let path = self.dir.join(format!("nsd{server}.conf"));
            fs::write(&path, conf).unwrap();
            self.spawn("nsd", &["-d", "-c", &path.display().to_string()]);
        }
        let mut conf = format!(
            "server:\n interface: {RESOLVER}\n username: \"\"\n chroot: \"\"\n \
             directory: \"{dir}\"\n pidfile: \"{dir}/unbound.pid\"\n logfile: \"\"\n \
             use-syslog: no\n access-control: 0.0.0.0/0 allow\n \
             trust-anchor-file: \"{}\"\n module-config: \"validator iterator\"\n \
             do-not-query-localhost: no\n unblock-lan-zones: yes\n insecure-lan-zones: no\n",
            self.anchor().display()
        );
        for zone in zones.iter().filter(|zone| zone.name != ".") {
            writeln!(conf, " local-zone: \"{}.\" nodefault", zone.name).unwrap();
        }
        conf.push_str("remote-control:\n control-enable: no\n");
        for zone in zones {
            let first = SERVERS[0];
            writeln!(conf, "stub-zone:\n name: \"{}\"\n stub-addr: {first}", dotted(zone.name))
                .unwrap();
        }
        let path = self.dir.join("unbound.conf");
        fs::write(&path, conf).unwrap();
        self.spawn("unbound", &["-d", "-c", &path.display().to_string()]);
        self.wait_for_dns();
    }

    fn wait_for_dns(&self) {
        let ports = || self.exec("cat /proc/net/udp").matches(":0035 ").count();
        let began = Instant::now();
        while ports() < SERVERS.len() + 1 {
            assert!(began.elapsed() < Duration::from_secs(60), "the servers do not start");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        for child in &self.running {
            // NSD's children go only if it is asked to end.
            let _ = Command::new("kill").arg(child.id().to_string()).status();
        }
        for child in &mut self.running {
            let _ = child.wait();
        }
        let _ = Command::new("ip").args(["netns", "del", &self.namespace]).status();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn dotted(name: &str) -> String {
    if name == "." { ".".to_owned() } else { format!("{name}.") }
}

fn depth(name: &str) -> usize {
    if name == "." { 0 } else { name.split('.').count() }
}

/// The nearest zone above.
fn parent<'a>(name: &str, zones: &'a [Zone]) -> Option<&'a str> {
    let above = |zone: &&Zone| {
        zone.name != name && (zone.name == "." || name.ends_with(&format!(".{}", zone.name)))
    };
    if name == "." {
        return None;
    }
    zones.iter().filter(above).max_by_key(|zone| depth(zone.name)).map(|zone| zone.name)
}

/// Runs a command line; it must succeed.
pub(crate) fn run(line: &str) -> String {
    run_in(Path::new("/"), line)
}

fn run_in(dir: &Path, line: &str) -> String {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).current_dir(dir).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{line}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}
