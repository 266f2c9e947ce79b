//! Two strongSwans of the rig against each other.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::figures::{Cpu, Figures};
use crate::ours::{BREATH, WARM};
use crate::vici::Vici;

/// Where charon is in Debian.
pub(crate) const CHARON: &str = "/usr/lib/ipsec/charon";

/// West and east, a charon in each. Torn down when dropped.
struct Charons {
    state: PathBuf,
    prefix: String,
}

/// Two strongSwans that can be made to call each other.
pub(crate) struct Theirs {
    peers: usize,
    west: Vici,
    processes: [u32; 2],
    next: usize,
    _charons: Charons,
}

impl Theirs {
    /// Starts both; with more than one peer, each side has so many connections loaded, with an
    /// identity each.
    pub(crate) fn up(bits: &str, peers: usize) -> io::Result<Self> {
        let charons = Charons::up(bits, peers)?;
        let west = Vici::connect(&charons.state.join("run/w/charon.vici"))?;
        let processes = [charons.pid("w")?, charons.pid("e")?];
        Ok(Self { peers, west, processes, next: 0, _charons: charons })
    }

    fn cpu(&self) -> io::Result<[Cpu; 2]> {
        Ok([Cpu::of(self.processes[0])?, Cpu::of(self.processes[1])?])
    }

    /// Measures so many handshakes, one after the other.
    pub(crate) fn measure(&mut self, count: usize) -> io::Result<Figures> {
        self.drive(WARM);
        std::thread::sleep(BREATH);
        let before = self.cpu()?;
        let began = Instant::now();
        let failed = self.drive(count);
        let took = began.elapsed();
        let after = self.cpu()?;
        let [initiator, responder] = [0, 1].map(|side| after[side].since(before[side]));
        Ok(Figures { count, failed, took, initiator, responder })
    }

    /// So many handshakes; how many failed.
    fn drive(&mut self, count: usize) -> usize {
        let mut failed = 0;
        for n in self.next..self.next + count {
            let name = match self.peers {
                1 => "w".to_owned(),
                peers => format!("h{}", n % peers),
            };
            let options = [("timeout", "20000"), ("loglevel", "-1")];
            let child = [&[("child", name.as_str())][..], &options].concat();
            failed += usize::from(!self.west.succeeds("initiate", &child));
            let ike = [&[("ike", name.as_str())][..], &options].concat();
            let _ = self.west.succeeds("terminate", &ike);
        }
        self.next += count;
        failed
    }
}

impl Charons {
    fn up(bits: &str, peers: usize) -> io::Result<Self> {
        let prefix = format!("oeh{}-", std::process::id());
        let state = std::env::temp_dir().join(format!("{prefix}charons"));
        fs::create_dir_all(&state)?;
        let charons = Self { state, prefix };
        for side in ["west", "east"] {
            charons.script("genkey.sh", &[side, bits])?;
        }
        charons.script("topo.sh", &["up", "direct"])?;
        // All addresses must be there before charon starts.
        for (side, net) in [("west", 1), ("east", 2)] {
            let add: String =
                (0..peers).map(|n| format!("addr replace {}/32 dev lo\n", inner(net, n))).collect();
            let namespace = format!("{}{side}", charons.prefix);
            let mut ip = Command::new("ip")
                .args(["-n", &namespace, "-batch", "-"])
                .stdin(Stdio::piped())
                .spawn()?;
            if let Some(mut input) = ip.stdin.take() {
                input.write_all(add.as_bytes())?;
            }
            ip.wait()?;
        }
        charons.start("east", "e", ["192.0.2.2", "192.0.2.1", "10.2.0.0/16", "10.1.0.0/16"])?;
        charons.start("west", "w", ["192.0.2.1", "192.0.2.2", "10.1.0.0/16", "10.2.0.0/16"])?;
        if peers > 1 {
            charons.load("e", 2, peers)?;
            charons.load("w", 1, peers)?;
        }
        Ok(charons)
    }

    fn start(&self, side: &str, name: &str, addresses: [&str; 4]) -> io::Result<()> {
        let namespace = format!("{}{side}", self.prefix);
        let other = if side == "west" { "east" } else { "west" };
        let keys = self.state.join("keys");
        let own = keys.join(format!("{side}.key.pem")).display().to_string();
        let peer = keys.join(format!("{other}.pub.pem")).display().to_string();
        let mut words = vec![namespace.as_str(), name];
        words.extend(addresses);
        words.extend([own.as_str(), &peer]);
        // As quiet as it can be, and no limits on how many may be half-way in.
        words.extend(["log=0", "cookie=0", "charon:block_threshold=100000"]);
        words.extend(["charon:init_limit_half_open=0", "charon:filelog.rig.default=0"]);
        words.extend(["charon:filelog.rig.net=0", "charon:filelog.rig.esp=0"]);
        self.script("peer-up.sh", &words)
    }

    /// Loads so many more connections, with identities and selectors of their own.
    fn load(&self, name: &str, net: u8, peers: usize) -> io::Result<()> {
        let place = self.state.join("run").join(name);
        let directory = place.join("swanctl");
        let file = directory.join("swanctl.conf");
        let (local, remote, other) = match name {
            "w" => ("192.0.2.1", "192.0.2.2", "e"),
            _ => ("192.0.2.2", "192.0.2.1", "w"),
        };
        let mut text = fs::read_to_string(&file)? + "connections {\n";
        let keys = directory.join("pubkey").display().to_string();
        for n in 0..peers {
            let (ours, theirs) = (inner(net, n), inner(3 - net, n));
            // Writing to memory cannot fail.
            let _ = writeln!(
                text,
                "h{n} {{\nversion = 2\nlocal_addrs = {local}\nremote_addrs = {remote}\n\
                 proposals = aes128gcm16-prfsha256-x25519\n\
                 local {{\nauth = pubkey\nid = {name}{n}.rig\npubkeys = {keys}/local.pub\n}}\n\
                 remote {{\nauth = pubkey\nid = {other}{n}.rig\npubkeys = {keys}/remote.pub\n}}\n\
                 children {{\nh{n} {{\nlocal_ts = {ours}/32\nremote_ts = {theirs}/32\n\
                 esp_proposals = aes128gcm16\n}}\n}}\n}}"
            );
        }
        text.push_str("}\n");
        fs::write(&file, text)?;
        let done = Command::new("swanctl")
            .args(["--load-conns", "--uri"])
            .arg(format!("unix://{}", place.join("charon.vici").display()))
            .env("STRONGSWAN_CONF", place.join("strongswan.conf"))
            .env("SWANCTL_DIR", &directory)
            .output()?;
        let said = String::from_utf8_lossy(&done.stdout);
        let loaded = format!("successfully loaded {} connections", peers + 1);
        if said.contains(&loaded) {
            return Ok(());
        }
        Err(io::Error::other(format!("{said}{}", String::from_utf8_lossy(&done.stderr))))
    }

    fn pid(&self, name: &str) -> io::Result<u32> {
        let file = self.state.join("run").join(name).join("charon.pid");
        fs::read_to_string(file)?.trim().parse().map_err(io::Error::other)
    }

    fn command(&self, script: &str, words: &[&str]) -> Command {
        let mut command = Command::new(tests::names::rigs().join("strongswan").join(script));
        command.args(words).env("RIG_STATE", &self.state).env("PFX", &self.prefix);
        command.env("V6", "0");
        command
    }

    fn script(&self, script: &str, words: &[&str]) -> io::Result<()> {
        let output = self.command(script, words).output()?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].concat();
        Err(io::Error::other(format!("{script}: {}", String::from_utf8_lossy(&said))))
    }
}

impl Drop for Charons {
    fn drop(&mut self) {
        for name in ["w", "e"] {
            let _ = self.command("peer-down.sh", &[name, "kill"]).output();
        }
        let _ = self.command("topo.sh", &["down"]).output();
        let _ = fs::remove_dir_all(&self.state);
    }
}

fn inner(net: u8, n: usize) -> String {
    format!("10.{net}.{}.{}", 1 + n / 250, 1 + n % 250)
}
