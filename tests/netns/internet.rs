//! Three hosts around a router, each in a namespace: west, east, and one that serves DNS.
//!
//! DNS is one signed zone, the root, which `oe-node zone serve` serves.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use tests::node::Setup;
use tests::place::{self, Capture};

use crate::binary;

/// West's addresses.
pub(crate) const WEST: [&str; 2] = ["192.0.2.11", "2001:db8:1::11"];
/// East's addresses.
pub(crate) const EAST: [&str; 2] = ["198.51.100.22", "2001:db8:2::22"];
/// The DNS host's addresses; it publishes no key.
pub(crate) const DNS: [&str; 2] = ["203.0.113.53", "2001:db8:3::53"];

/// A loaded machine takes its time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Whether these tests can run here; says so if not.
pub(crate) fn can_run(test: &str) -> bool {
    let needs = ["ip", "tcpdump", "ping", "openssl", "setpriv", "sysctl", "/dev/net/tun"];
    !tests::skipped(test, tests::missing(&needs))
}

/// Who else may run meanwhile.
enum Company {
    Others(#[expect(dead_code, reason = "held")] RwLockReadGuard<'static, ()>),
    Nobody(#[expect(dead_code, reason = "held")] RwLockWriteGuard<'static, ()>),
}

/// The namespaces and what runs in them. All is gone when it is dropped.
pub(crate) struct Internet {
    /// Where files lie.
    pub(crate) directory: PathBuf,
    prefix: String,
    server: Option<Child>,
    _company: Company,
}

impl Internet {
    /// Hosts and links, but no DNS yet.
    pub(crate) fn new() -> Self {
        Self::in_company(Company::Others(binary::among_others()))
    }

    /// The same, while no other test runs: for what is measured.
    pub(crate) fn alone() -> Self {
        Self::in_company(Company::Nobody(binary::alone()))
    }

    fn in_company(company: Company) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("oed-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(&prefix);
        fs::create_dir_all(&directory).unwrap();
        let internet = Self { directory, prefix, server: None, _company: company };
        for (name, key) in ["west", "east"].into_iter().zip(&*KEYS) {
            internet.write_key(&format!("{name}.key"), key);
        }
        shell(&internet.plan());
        internet
    }

    /// A host's namespace.
    pub(crate) fn namespace(&self, host: &str) -> String {
        format!("{}-{host}", self.prefix)
    }

    /// How it is built, for the shell.
    fn plan(&self) -> String {
        let hub = self.namespace("hub");
        let quiet = "for f in /proc/sys/net/ipv6/conf/*/accept_dad; do echo 0 > $f; done";
        let mut plan = format!(
            "set -e\nip netns add {hub}\nip netns exec {hub} sh -c '{quiet}\n\
             echo 1 > /proc/sys/net/ipv4/ip_forward\n\
             echo 1 > /proc/sys/net/ipv6/conf/all/forwarding'\n"
        );
        for (host, [v4, v6]) in [("west", WEST), ("east", EAST), ("dns", DNS)] {
            let namespace = self.namespace(host);
            let gateway =
                |address: &str, by: char| format!("{}{by}1", address.rsplit_once(by).unwrap().0);
            let (g4, g6) = (gateway(v4, '.'), gateway(v6, ':'));
            plan += &format!(
                "ip netns add {namespace}\nip netns exec {namespace} sh -c '{quiet}'\n\
                 ip -n {namespace} link add eth0 type veth peer name {host} netns {hub}\n\
                 ip -n {namespace} link set lo up\nip -n {namespace} link set eth0 up\n\
                 ip -n {hub} link set {host} up\n\
                 ip -n {hub} addr add {g4}/24 dev {host}\n\
                 ip -n {hub} addr add {g6}/64 dev {host} nodad\n\
                 ip -n {namespace} addr add {v4}/24 dev eth0\n\
                 ip -n {namespace} addr add {v6}/64 dev eth0 nodad\n\
                 ip -n {namespace} route add default via {g4}\n\
                 ip -n {namespace} route add default via {g6}\n"
            );
        }
        plan
    }

    /// Takes a host's link down, and with it all that the kernel takes along.
    pub(crate) fn cut(&self, host: &str) {
        place::ok(&self.namespace(host), &["ip", "link", "set", "eth0", "down"]);
    }

    /// Sets a host's link up again, with the addresses and routes it had.
    pub(crate) fn join(&self, host: &str) {
        let namespace = self.namespace(host);
        let [v4, v6] = if host == "west" { WEST } else { EAST };
        let gateway =
            |address: &str, by: char| format!("{}{by}1", address.rsplit_once(by).unwrap().0);
        shell(&format!(
            "set -e\nip -n {namespace} link set eth0 up\n\
             ip -n {namespace} addr replace {v4}/24 dev eth0\n\
             ip -n {namespace} addr replace {v6}/64 dev eth0 nodad\n\
             ip -n {namespace} route replace default via {}\n\
             ip -n {namespace} route replace default via {}\n",
            gateway(v4, '.'),
            gateway(v6, ':'),
        ));
    }

    /// Serves DNS in which these hosts have published their keys.
    pub(crate) fn serve_dns(&mut self, published: &[&str]) {
        let hosts = [("west", WEST), ("east", EAST)];
        let hosts = hosts.into_iter().filter(|(host, _)| published.contains(host));
        let own = hosts.flat_map(|(host, addresses)| addresses.map(|a| (host, a, a)));
        self.serve_records(&own.collect::<Vec<_>>());
    }

    /// Serves DNS with these records: whose key, of which address, and the gateway it names.
    pub(crate) fn serve_records(&mut self, records: &[(&str, &str, &str)]) {
        let mut zone = ". 60 IN SOA ns.test. root.test. 1 3600 600 86400 5\n\
             . 60 IN NS ns.test.\nns.test. 60 IN A 203.0.113.53\n"
            .to_owned();
        zone.extend(records.iter().map(|(host, owner, gateway)| self.record(host, owner, gateway)));
        let file = |name: &str| self.directory.join(name).display().to_string();
        fs::write(file("root.zone"), zone).unwrap();
        let binary = tests::oe_node().display().to_string();
        let (listen, keys) = (format!("{}:53", DNS[0]), file("zone-keys"));
        let (anchor, zone) = (file("anchor"), file("root.zone"));
        let words = [
            &[&binary, "zone", "serve", "--listen", &listen, "--key-dir", &keys][..],
            &["--write-trust-anchor", &anchor, &zone],
        ];
        let mut command = place::command(&self.namespace("dns"), &words.concat());
        let log = fs::File::create(self.directory.join("dns.log")).unwrap();
        self.server = Some(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        place::await_some("the name server answers", PATIENCE, || {
            fs::read_to_string(file("dns.log")).unwrap().contains("answering on").then_some(())
        });
    }

    /// A reverse record as a user gets it.
    fn record(&self, host: &str, owner: &str, gateway: &str) -> String {
        let key = self.directory.join(format!("{host}.key"));
        let Output { status, stdout, stderr } = Command::new(tests::oe_node())
            .args(["showhostkey", "--format", "nsd", "--txt", gateway, "--owner", owner])
            .arg("--key-file")
            .arg(key)
            .output()
            .unwrap();
        assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).unwrap()
    }

    /// Nobody answers DNS any more.
    pub(crate) fn stop_dns(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    /// A trust anchor that no zone here was signed with.
    pub(crate) fn wrong_anchor(&self) -> PathBuf {
        let right = fs::read_to_string(self.directory.join("anchor")).unwrap();
        let mut words: Vec<String> = right.split_whitespace().map(str::to_owned).collect();
        let key = words.last_mut().unwrap();
        // A point of P-256 it need not be: nothing is ever verified with it.
        let other = if key.starts_with('A') { 'B' } else { 'A' };
        key.replace_range(..1, &other.to_string());
        let file = self.directory.join("wrong-anchor");
        fs::write(&file, words.join(" ") + "\n").unwrap();
        file
    }

    /// What a host's node is told; files in a directory of its own.
    pub(crate) fn setup(&self, host: &str) -> Setup {
        let directory = self.directory.join(host);
        fs::create_dir_all(&directory).unwrap();
        let mut setup = Setup::new(directory, DNS[0], self.directory.join("anchor"));
        setup.key = Some(self.directory.join(format!("{host}.key")));
        setup
    }

    /// Writes a file that only its owner can read.
    pub(crate) fn write_key(&self, name: &str, pem: &str) {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let file = self.directory.join(name);
        let mut file =
            fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(file).unwrap();
        file.write_all(pem.as_bytes()).unwrap();
    }

    /// Captures what a host sends and receives.
    pub(crate) fn capture(&self, host: &str) -> Capture {
        let file = self.directory.join(format!("{host}.pcap"));
        Capture::start(&self.namespace(host), "eth0", &file)
    }

    /// Whether a host answers another's echo request.
    pub(crate) fn ping(&self, from: &str, to: &str) -> bool {
        place::ping(&self.namespace(from), to)
    }

    /// Sends some packets of each kind to an address, and waits for no answer.
    pub(crate) fn knock(&self, from: &str, to: &str) {
        let namespace = self.namespace(from);
        let (done, said) =
            place::run(&namespace, &["ping", "-n", "-q", "-c", "3", "-i", "0.3", "-W", "1", to]);
        assert!(!done, "{to} answered: {said}");
        let _ = place::run(&namespace, &["bash", "-c", &format!("echo x > /dev/udp/{to}/9999")]);
        let connect = format!("echo x > /dev/tcp/{to}/9999");
        let _ = place::run(&namespace, &["timeout", "1.5", "bash", "-c", &connect]);
    }

    /// Waits until the device's own address is no longer tentative, which `traces` would show.
    pub(crate) fn await_settled(&self, host: &str) {
        let own = ["ip", "-o", "-6", "addr", "show", "dev", "ipsec0"];
        place::await_some("the device's own address is settled", PATIENCE, || {
            let addresses = place::ok(&self.namespace(host), &own);
            (addresses.contains("fe80") && !addresses.contains("tentative")).then_some(())
        });
    }

    /// What the kernel of a host knows that a node could leave behind.
    pub(crate) fn traces(&self, host: &str) -> String {
        let namespace = self.namespace(host);
        [
            &["ip", "rule"][..],
            &["ip", "-6", "rule"],
            &["ip", "route", "show", "table", "all"],
            &["ip", "-6", "route", "show", "table", "all"],
            &["ip", "xfrm", "policy"],
            &["ip", "xfrm", "state"],
            &["ip", "-o", "link"],
            &["ip", "-o", "addr"],
            &["ss", "-Hlnxut"],
            &["sysctl", "-e", "-a", "--pattern", r"^net\.ipv[46]\.(conf|ip_forward)"],
        ]
        .map(|words| format!("{words:?}\n{}", place::ok(&namespace, words)))
        .concat()
    }
}

impl Drop for Internet {
    fn drop(&mut self) {
        self.stop_dns();
        for host in ["west", "east", "dns", "hub"] {
            let _ = Command::new("ip").args(["netns", "del", &self.namespace(host)]).output();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Panics unless nothing has changed.
pub(crate) fn assert_same(before: &str, after: &str) {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let (before, after) = (lines(before), lines(after));
    let gone: Vec<_> = before.iter().filter(|line| !after.contains(line)).collect();
    let new: Vec<_> = after.iter().filter(|line| !before.contains(line)).collect();
    assert!(gone.is_empty() && new.is_empty(), "gone: {gone:#?}\nnew: {new:#?}");
}

fn shell(script: &str) {
    let output = Command::new("sh").args(["-c", script]).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Two keys for all tests: making one takes seconds.
static KEYS: LazyLock<[String; 2]> = LazyLock::new(|| {
    [(); 2].map(|()| {
        let output = Command::new("openssl")
            .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    })
});
