//! One topology with one strongSwan in it, and our side driven over its standard input.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

/// Where charon is in Debian.
const CHARON: &str = "/usr/lib/ipsec/charon";
/// An answer takes milliseconds; a loaded machine takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether a test can run here; says so if it cannot.
pub(crate) fn can_run(test: &str) -> bool {
    let why = tests::missing(&["ip", "swanctl", "pki", "openssl", "nft", CHARON])
        .or_else(|| (!strongswan_rig().join("topo.sh").exists()).then(|| "no rig".to_owned()));
    !tests::skipped(test, why)
}

/// The same for a test whose peers are found in DNS, and whose wire is watched.
pub(crate) fn can_run_with_names(test: &str) -> bool {
    let needs = ["tcpdump", "ping", "python3", "nsd", "unbound", "ldns-keygen", "ldns-signzone"];
    let why = tests::missing(&needs)
        .or_else(|| (!tests::names::rigs().join("dns").exists()).then(|| "no rig".to_owned()));
    can_run(test) && !tests::skipped(test, why)
}

/// The same for a test whose strongSwan knows ML-KEM, which the installed one does not. Gives what
/// runs that.
pub(crate) fn can_run_with_newer(test: &str) -> Option<&'static Path> {
    static FOUND: OnceLock<Result<PathBuf, (String, bool)>> = OnceLock::new();
    if !can_run(test) {
        return None;
    }
    match FOUND.get_or_init(newer_strongswan) {
        Ok(charon) => Some(charon),
        Err(why) => {
            tests::unmade(test, &why.0, why.1);
            None
        }
    }
}

/// Unpacked from Debian's packages once and kept: `OE_STRONGSWAN6`, or a directory among the
/// temporary ones. If not, why not, and whether the mirror answers.
fn newer_strongswan() -> Result<PathBuf, (String, bool)> {
    let place = std::env::var_os("OE_STRONGSWAN6")
        .map_or_else(|| std::env::temp_dir().join("oe-strongswan6"), PathBuf::from);
    let (charon, complete) = (place.join("charon"), place.join("complete"));
    if complete.exists() {
        return Ok(charon);
    }
    if let Some(why) = tests::missing(&["apt-get", "dpkg"]) {
        return Err((why, true));
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/interop/strongswan6.sh");
    let made =
        Command::new(script).arg(&place).output().map_err(|error| (error.to_string(), true))?;
    if !made.status.success() {
        let said = String::from_utf8_lossy(&made.stderr);
        let why = said.lines().last().unwrap_or("no reason given");
        let answers = made.status.code() != Some(NO_MIRROR);
        return Err((format!("strongSwan 6 cannot be had: {why}"), answers));
    }
    std::fs::write(complete, "").map_err(|error| (error.to_string(), true))?;
    Ok(charon)
}

/// How strongswan6.sh ends if what it wants cannot be fetched.
const NO_MIRROR: i32 = 75;

fn strongswan_rig() -> PathBuf {
    tests::names::rigs().join("strongswan")
}

/// West, where we are, and east, where strongSwan is. Torn down when dropped.
#[derive(Debug)]
pub(crate) struct Rig {
    state: PathBuf,
    prefix: String,
    peers: Vec<String>,
    swapped: bool,
    v6: bool,
    /// The longest packet on the link, in octets.
    mtu: u16,
    /// Another strongSwan than the installed one.
    charon: Option<PathBuf>,
}

impl Rig {
    /// Two namespaces, or three with a NAT between (`nat`).
    pub(crate) fn up(topology: &str) -> Self {
        Self::up_with(topology, true)
    }

    /// The same, with IPv6 or without.
    pub(crate) fn up_with(topology: &str, v6: bool) -> Self {
        Self::up_narrow(topology, v6, 1500)
    }

    /// The same, with a link that takes no longer packets than this.
    pub(crate) fn up_narrow(topology: &str, v6: bool, mtu: u16) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("oei-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let state = std::env::temp_dir().join(&name);
        std::fs::create_dir_all(&state).expect("temporary directory");
        let rig = Self {
            state,
            prefix: format!("{name}-"),
            peers: Vec::new(),
            swapped: false,
            v6,
            mtu,
            charon: None,
        };
        rig.script("topo.sh", &["up", topology]);
        rig
    }

    /// The namespace of a side.
    pub(crate) fn namespace(&self, side: &str) -> String {
        format!("{}{side}", self.prefix)
    }

    /// Where everything of this rig lies.
    pub(crate) fn directory(&self) -> &Path {
        &self.state
    }

    /// The NAT is one of IPv6 as well (RFC 6296 has better ones; this is what people have).
    pub(crate) fn translate_v6(&self) {
        let table = "add table ip6 nat; \
                     add chain ip6 nat post { type nat hook postrouting priority srcnat; }; \
                     add rule ip6 nat post oifname out0 masquerade random";
        for (side, command) in [
            ("nat", "sysctl -qw net.ipv6.conf.all.forwarding=1"),
            ("nat", "ip addr add 2001:db8:9::1/64 dev in0 nodad"),
            ("nat", "ip addr add 2001:db8::1/64 dev out0 nodad"),
            ("west", "ip addr add 2001:db8:9::2/64 dev veth0 nodad"),
            ("west", "ip route add default via 2001:db8:9::1"),
        ] {
            let words: Vec<&str> = ["exec", side].into_iter().chain(command.split(' ')).collect();
            self.script("topo.sh", &words);
        }
        self.script("topo.sh", &["exec", "nat", "nft", table]);
    }

    /// From now on strongSwan is in west and we are in east.
    pub(crate) fn swap(&mut self) {
        self.swapped = true;
        // strongSwan wants its inner address on its own side.
        let add = ["exec", "west", "ip", "addr", "add", "10.2.0.1/32", "dev", "lo"];
        self.script("topo.sh", &add);
    }

    /// From now on strongSwan is the one that this file runs.
    pub(crate) fn with_charon(&mut self, charon: &Path) {
        self.charon = Some(charon.to_path_buf());
    }

    /// The NAT forgets its mappings: what comes next through it comes from another port.
    pub(crate) fn forget_mappings(&self) {
        let table = "add table ip nat; \
                     add chain ip nat post { type nat hook postrouting priority 100; }; \
                     add rule ip nat post oifname out0 ip protocol udp \
                     masquerade to :20000-20100 random";
        for command in [
            &["nft", "delete table ip nat"][..],
            &["nft", table],
            &["ip", "link", "set", "out0", "down"],
            &["ip", "link", "set", "out0", "up"],
            &["ip", "addr", "replace", "192.0.2.1/24", "dev", "out0"],
        ] {
            self.script("topo.sh", &[&["exec", "nat"], command].concat());
        }
    }

    fn namespaces(&self) -> (String, String) {
        let (ours, theirs) = if self.swapped { ("east", "west") } else { ("west", "east") };
        (format!("{}{ours}", self.prefix), format!("{}{theirs}", self.prefix))
    }

    fn command(&self, script: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(strongswan_rig().join(script));
        command.args(arguments).env("RIG_STATE", &self.state).env("PFX", &self.prefix);
        command.env("MTU", self.mtu.to_string());
        if !self.v6 {
            command.env("V6", "0");
        }
        if let Some(charon) = &self.charon {
            command.env("CHARON", charon);
        }
        command
    }

    /// Runs one of the rig's scripts and gives what it printed.
    pub(crate) fn script(&self, script: &str, arguments: &[&str]) -> String {
        let output = self.command(script, arguments).output().expect("rig script");
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.status.success(), "{script} {arguments:?}: {text}");
        text
    }

    /// Makes a key pair: an RSA key of so many bits, or `P-256`, `P-384`, `ED25519`.
    pub(crate) fn key(&self, name: &str, kind: &str) {
        if kind.parse::<u32>().is_ok() {
            self.script("genkey.sh", &[name, kind]);
            return;
        }
        std::fs::create_dir_all(self.state.join("keys")).expect("directory");
        let [private, der, public, public_der] =
            ["key.pem", "key.der", "pub.pem", "pub.der"].map(|ending| self.file(name, ending));
        let curve = format!("ec_paramgen_curve:{kind}");
        let make: &[&str] = match kind {
            "ED25519" => &["-algorithm", "ED25519"],
            _ => &["-algorithm", "EC", "-pkeyopt", &curve],
        };
        openssl(&[&["genpkey", "-out", &private], make].concat());
        let pkcs8 = ["pkcs8", "-topk8", "-nocrypt", "-outform", "DER"];
        openssl(&[&pkcs8[..], &["-in", &private, "-out", &der]].concat());
        openssl(&["pkey", "-in", &private, "-pubout", "-out", &public]);
        let form = ["-outform", "DER", "-out", &public_der];
        openssl(&[&["pkey", "-in", &private, "-pubout"][..], &form].concat());
    }

    /// strongSwan reads its configuration again, with these proposals.
    pub(crate) fn propose(&self, ike: &str, esp: &str) {
        let file = self.state.join("run/e/swanctl/swanctl.conf");
        let text = std::fs::read_to_string(&file).expect("swanctl.conf");
        let changed: String = text
            .lines()
            .map(|line| match line.trim().split_once(" = ") {
                Some(("proposals", _)) => format!("proposals = {ike}\n"),
                Some(("esp_proposals", _)) => format!("esp_proposals = {esp}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        std::fs::write(&file, changed).expect("swanctl.conf");
        self.control(&["sw", "--load-conns"]);
    }

    /// strongSwan knows this secret too, and both sides prove themselves with it instead of with
    /// their keys.
    pub(crate) fn share(&self, secret: &str) {
        let file = self.state.join("run/e/swanctl/swanctl.conf");
        let text = std::fs::read_to_string(&file).expect("swanctl.conf");
        let without_keys: String = text
            .lines()
            .filter(|line| !line.trim().starts_with("pubkeys = "))
            .map(|line| format!("{}\n", line.replace("auth = pubkey", "auth = psk")))
            .collect();
        let secrets = format!("secrets {{\n ike {{\n secret = \"{secret}\"\n }}\n}}\n");
        std::fs::write(&file, without_keys + &secrets).expect("swanctl.conf");
        self.control(&["sw", "--load-creds", "--noprompt"]);
        self.control(&["sw", "--load-conns"]);
    }

    /// strongSwan has these addresses to give away, under this name.
    pub(crate) fn pool(&self, name: &str, addresses: &str) {
        let file = self.state.join("run/e/swanctl/swanctl.conf");
        let text = std::fs::read_to_string(&file).expect("swanctl.conf");
        let pools = format!("pools {{\n {name} {{\n addrs = {addresses}\n }}\n}}\n");
        std::fs::write(&file, text + &pools).expect("swanctl.conf");
        self.control(&["sw", "--load-pools"]);
    }

    /// Where a key pair's file is.
    pub(crate) fn file(&self, name: &str, ending: &str) -> String {
        self.state.join("keys").join(format!("{name}.{ending}")).display().to_string()
    }

    /// Starts strongSwan in east, with `east`'s key and `west`'s public key.
    pub(crate) fn strongswan(&mut self, options: &[&str]) {
        let (_, namespace) = self.namespaces();
        let (own, peer) = (self.file("east", "key.pem"), self.file("west", "pub.pem"));
        let has = |option: &str| options.contains(&option);
        let (local, remote) = match (has("v6=yes"), has("any=yes")) {
            (true, _) if self.swapped => ("2001:db8:9::2", "2001:db8::2"),
            _ if self.swapped => ("10.9.0.2", "192.0.2.2"),
            (true, true) => ("2001:db8::2", "%any"),
            (true, _) => ("2001:db8::2", "2001:db8::1"),
            (_, true) => ("192.0.2.2", "%any"),
            _ => ("192.0.2.2", "192.0.2.1"),
        };
        let mut arguments =
            vec![namespace.as_str(), "e", local, remote, "10.2.0.1/32", "10.1.0.1/32"];
        arguments.extend([own.as_str(), peer.as_str()]);
        arguments.extend(options.iter().filter(|o| !["any=yes", "v6=yes"].contains(o)));
        // It may run even if the script fails, so it is taken down in any case.
        self.peers.push("e".to_owned());
        self.script("peer-up.sh", &arguments);
    }

    /// Tells strongSwan to do something.
    pub(crate) fn control(&self, arguments: &[&str]) -> String {
        self.script("ctl.sh", &[&["e"], arguments].concat())
    }

    /// strongSwan replaces the child (`rekey-child`) or the IKE SA (`rekey-ike`), and has done so:
    /// `swanctl` is back as soon as it is on the list.
    pub(crate) fn rekey(&self, what: &str) {
        let done = match what {
            "rekey-child" => "CHILD_SA closed",
            _ => "rekeyed between",
        };
        let words = ["generating CREATE_CHILD_SA request", done];
        let [asked, times] = words.map(|words| self.log().matches(words).count());
        self.control(&[what]);
        self.expect_log_times(done, times + 1);
        assert!(self.log().matches(words[0]).count() > asked, "who has asked? {}", self.log());
        // The next one cannot begin before the old one is gone.
        let end = Instant::now() + PATIENCE;
        let one = |sas: &str, state| sas.matches(state).count() == 1;
        loop {
            let sas = self.control(&["sas"]);
            if one(&sas, "ESTABLISHED") && one(&sas, "INSTALLED") && !sas.contains("DELETING") {
                return;
            }
            assert!(Instant::now() < end, "more than one of a kind: {sas}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The same without waiting for it, for what our side has to answer.
    pub(crate) fn control_later(&self, arguments: &[&str]) -> Child {
        self.command("ctl.sh", &[&["e"], arguments].concat())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("ctl.sh")
    }

    /// Fills strongSwan's table with half-open SAs, of ECP-256, so that it asks for
    /// cookies.
    pub(crate) fn halfopen(&self) {
        let script = strongswan_rig().join("halfopen.py").display().to_string();
        let group = ["exec", "west", "env", "GROUP=ecp256", "python3"];
        self.script("topo.sh", &[&group[..], &[&script, "192.0.2.2", "2"]].concat());
    }

    /// Ends strongSwan as a crash would.
    pub(crate) fn crash(&self) {
        self.script("peer-down.sh", &["e", "kill"]);
    }

    /// strongSwan's log so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.state.join("run/e/charon.log")).unwrap_or_default()
    }

    /// Waits until strongSwan's log holds this.
    pub(crate) fn expect_log(&self, text: &str) {
        self.expect_log_times(text, 1);
    }

    /// Waits until strongSwan's log holds this so many times.
    pub(crate) fn expect_log_times(&self, text: &str, times: usize) {
        let end = Instant::now() + PATIENCE;
        while self.log().matches(text).count() < times {
            assert!(Instant::now() < end, "not in the log: {text}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Starts our side in west.
    pub(crate) fn ours(&self, options: &[(&str, &str)]) -> Ours {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.namespaces().0])
            .arg(std::env::current_exe().expect("own path"))
            .args(["driver::inside_a_namespace", "--exact", "--nocapture"])
            .env("OE_INTEROP_DRIVER", "1")
            .env("OWN_KEY", self.file("west", "key.der"))
            .env("PEER_KEY", self.file("east", "pub.pem"))
            .envs(options.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("our side");
        let input = child.stdin.take().expect("piped");
        let output = child.stdout.take().expect("piped");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut ours = Ours { child, input: Some(input), lines, seen: Vec::new() };
        ours.expect("Ready");
        ours
    }
}

fn openssl(arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).output().expect("openssl");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments:?}: {said}");
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.log());
        }
        for peer in &self.peers {
            let _ = self.command("peer-down.sh", &[peer, "kill"]).output();
        }
        let _ = self.command("topo.sh", &["down"]).output();
        let _ = std::fs::remove_dir_all(&self.state);
    }
}

/// Our side: an [`ike::Ike`] on real sockets in another process.
#[derive(Debug)]
pub(crate) struct Ours {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Ours {
    /// Tells it to do something.
    pub(crate) fn tell(&mut self, command: &str) {
        let input = self.input.as_mut().expect("still open");
        writeln!(input, "{command}").expect("our side listens");
    }

    /// Waits for a line that begins so, and gives it.
    pub(crate) fn expect(&mut self, start: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    println!("ours: {line}");
                    let found = line.starts_with(start);
                    self.seen.push(line.clone());
                    if found {
                        return line;
                    }
                }
                Err(_) => panic!("waited for {start:?}, saw {:#?}", self.seen),
            }
        }
    }

    /// Whether a line that begins so has come by, or comes within this time.
    pub(crate) fn saw_within(&mut self, start: &str, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        while !self.saw(start) {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else { return false };
            println!("ours: {line}");
            self.seen.push(line);
        }
        true
    }

    /// Waits until it has done what it was told so far.
    pub(crate) fn catch_up(&mut self) {
        self.tell("counters");
        self.expect("Counters");
    }

    /// Whether a line that begins so has come by.
    pub(crate) fn saw(&self, start: &str) -> bool {
        self.seen.iter().any(|line| line.starts_with(start))
    }

    /// How many lines that begin so have come by.
    pub(crate) fn count(&self, start: &str) -> usize {
        self.seen.iter().filter(|line| line.starts_with(start)).count()
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}
