//! Other people's daemons.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tests::place;

use crate::contender::Up;
use crate::site::{ENDS, Running, Site, shell};

/// Inner addresses of the two ends.
const INSIDE: [&str; 2] = ["10.1.0.1", "10.2.0.1"];
/// Where charon is in Debian.
const CHARON: &str = "/usr/lib/ipsec/charon";

/// Two WireGuard daemons; both kinds are driven by `wg`.
pub(crate) fn wireguard(word: &str, program: &str) -> anyhow::Result<Up> {
    let built = PathBuf::from("target/tools/bin").join(program);
    let program = if built.exists() { built.display().to_string() } else { program.to_owned() };
    if let Some(why) = tests::missing(&["wg", &program]) {
        anyhow::bail!("{why}");
    }
    let site = Site::new(word)?;
    let mut running = Vec::new();
    let mut keys = Vec::new();
    for side in 0..2 {
        let file = site.directory.join(format!("{side}.key"));
        shell(&format!("umask 077; wg genkey > {}", file.display()))?;
        let public =
            Command::new("sh").args(["-c", &format!("wg pubkey < {}", file.display())]).output()?;
        keys.push((file, String::from_utf8_lossy(&public.stdout).trim().to_owned()));
    }
    for (side, name) in site.names.iter().enumerate() {
        // Its control socket is named after the device, in one directory for all namespaces.
        let device = format!("{word}{side}-{}", std::process::id());
        let mut words = vec![program.as_str(), "-f"];
        if program.ends_with("boringtun-cli") {
            words.push("--disable-drop-privileges");
        }
        words.push(&device);
        let mut command = place::command(name, &words);
        command.env("LOG_LEVEL", "error").stderr(Stdio::null());
        let log = std::fs::File::create(site.directory.join(format!("{side}.log")))?;
        running.push(Running::start_saying_to(command, log)?);
        place::await_some("the device", PATIENCE, || {
            site.ip(side, &format!("link show {device}")).is_ok().then_some(())
        });
        let ((own, _), (_, peer)) = (&keys[side], &keys[1 - side]);
        let (own, far, inside) = (own.display(), ENDS[1 - side], INSIDE[1 - side]);
        let configure = format!(
            "wg set {device} listen-port 51820 private-key {own} peer {peer} \
             allowed-ips {inside}/32 endpoint {far}:51820"
        );
        place::await_some("the control socket", PATIENCE, || {
            shell(&format!("ip netns exec {name} {configure}")).is_ok().then_some(())
        });
        site.ip(side, &format!("addr add {}/32 dev {device}", INSIDE[side]))?;
        site.ip(side, &format!("link set {device} mtu 1420 up"))?;
        site.ip(side, &format!("route add {inside} dev {device} src {}", INSIDE[side]))?;
    }
    ensure!(place::ping(&site.names[0], INSIDE[1]), "no answer through {program}");
    let pids = running.iter().map(Running::pid).collect();
    Ok(Up {
        names: site.names.clone(),
        target: INSIDE[1].parse()?,
        pids,
        node: None,
        _keep: vec![Box::new(running), Box::new(site)],
    })
}

/// Two strongSwans with ESP in user space, as the rig sets them up.
pub(crate) fn strongswan() -> anyhow::Result<Up> {
    let rig = tests::names::rigs().join("strongswan");
    let rig = std::path::absolute(rig)?;
    let why = tests::missing(&["swanctl", "pki", "openssl", "nft", CHARON])
        .or_else(|| (!rig.join("topo.sh").exists()).then(|| "no rig; set OE_RIGS".to_owned()));
    if let Some(why) = why {
        anyhow::bail!("{why}");
    }
    let word = format!("oeb{}-ss", std::process::id());
    let rig = Rig { rig, state: std::env::temp_dir().join(&word), prefix: format!("{word}-") };
    std::fs::create_dir_all(&rig.state)?;
    rig.script("topo.sh", &["up", "direct"])?;
    let names = ["west", "east"].map(|side| format!("{}{side}", rig.prefix));
    for name in ["w", "e"] {
        rig.script("genkey.sh", &[name, "2048"])?;
    }
    let key = |name: &str, ending: &str| {
        rig.state.join("keys").join(format!("{name}.{ending}")).display().to_string()
    };
    for (side, (name, peer)) in [("e", "w"), ("w", "e")].into_iter().enumerate() {
        let (own, far) = (ENDS[1 - side], ENDS[side]);
        let nets = ["10.2.0.0/24", "10.1.0.0/24"];
        let words = [names[1 - side].as_str(), name, own, far, nets[side], nets[1 - side]];
        let (private, public) = (key(name, "key.pem"), key(peer, "pub.pem"));
        let quiet = [
            "log=0",
            "charon:filelog.rig.default=0",
            "charon:filelog.rig.net=0",
            "charon:filelog.rig.esp=0",
        ];
        rig.script("peer-up.sh", &[&words[..], &[&private, &public], &quiet].concat())?;
    }
    rig.script("ctl.sh", &["w", "init"])?;
    let pids = ["w", "e"].map(|name| rig.pid(name)).into_iter().collect::<anyhow::Result<_>>()?;
    ensure!(place::ping(&names[0], INSIDE[1]), "no answer through strongSwan");
    Ok(Up { names, target: INSIDE[1].parse()?, pids, node: None, _keep: vec![Box::new(rig)] })
}

/// The scripts that start strongSwan in namespaces. Everything is taken down when it is dropped.
struct Rig {
    rig: PathBuf,
    state: PathBuf,
    prefix: String,
}

impl Rig {
    fn command(&self, script: &str, words: &[&str]) -> Command {
        let mut command = Command::new(self.rig.join(script));
        command.args(words).env("RIG_STATE", &self.state).env("PFX", &self.prefix);
        command
    }

    fn script(&self, script: &str, words: &[&str]) -> anyhow::Result<()> {
        let output = self.command(script, words).stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{script} {words:?}: {}", said.trim());
        Ok(())
    }

    fn pid(&self, name: &str) -> anyhow::Result<u32> {
        let file: &Path = &self.state.join("run").join(name).join("charon.pid");
        let text = std::fs::read_to_string(file)?;
        text.trim().parse().with_context(|| format!("{}: {text:?}", file.display()))
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for name in ["w", "e"] {
            let _ = self.command("peer-down.sh", &[name, "kill"]).output();
        }
        let _ = self.command("topo.sh", &["down"]).output();
        let _ = std::fs::remove_dir_all(&self.state);
    }
}

/// A loaded machine takes its time.
const PATIENCE: Duration = Duration::from_secs(10);
