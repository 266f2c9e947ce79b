//! `oe-node verify` on a machine: with the daemon, without it, and from outside.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tests::{missing, oe_node, skipped};

use crate::bed::{Bed, PROGRAMS, RESOLVER, Signing, Zone, run};
use crate::keys::{Dir, make_key, stdout};
use crate::verify::txt;

/// A machine of its own, connected to the bed, with the daemon on it.
struct Machine {
    namespace: String,
    config: String,
    daemon: Option<Child>,
}

impl Machine {
    fn new(bed: &Bed, files: &Dir, key: &str) -> Self {
        let namespace = format!("{}-m", bed.namespace);
        run(&format!("ip netns add {namespace}"));
        let config = files.file("oe-node.toml");
        let machine = Self { namespace, config, daemon: None };
        bed.exec(&format!("ip link add bed0 type veth peer eth0 netns {}", machine.namespace));
        bed.exec("ip addr add 192.0.2.1/24 dev bed0");
        bed.exec("ip link set bed0 up");
        for line in [
            "ip link set lo up",
            "ip addr add 192.0.2.11/24 dev eth0",
            "ip link set eth0 up",
            "ip route add default via 192.0.2.1",
        ] {
            run(&format!("ip netns exec {} {line}", machine.namespace));
        }
        let text = format!(
            "[node]\nkey = \"{key}\"\nstate-dir = \"{}\"\ncontrol-socket = \"{}\"\n\
             [dns]\nresolvers = [\"{RESOLVER}\"]\ntrust-anchors = \"{}\"\n",
            files.file("state"),
            files.file("control.sock"),
            bed.anchor().display(),
        );
        fs::write(&machine.config, text).unwrap();
        machine
    }

    fn command(&self) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]).arg(oe_node());
        // Where the command looks whether it is installed.
        let dir = oe_node();
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", dir.parent().unwrap().display()));
        command
    }

    fn start(&mut self, files: &Dir) {
        let log = fs::File::create(files.file("daemon.log")).unwrap();
        let mut command = self.command();
        command.args(["run", "--config", &self.config]);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.daemon = Some(command.spawn().unwrap());
        let began = Instant::now();
        while !Path::new(&files.file("control.sock")).exists() {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "the daemon does not start: {}",
                fs::read_to_string(files.file("daemon.log")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn stop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = Command::new("kill").arg(daemon.id().to_string()).status();
            let _ = daemon.wait();
        }
    }

    fn verify(&self) -> Output {
        self.command().args(["verify", "--config", &self.config]).output().unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop();
        let _ = Command::new("ip").args(["netns", "del", &self.namespace]).status();
    }
}

#[test]
fn a_machine_with_and_without_its_daemon() {
    let programs = [&PROGRAMS[..], &["/dev/net/tun"]].concat();
    if skipped("cli::machine", missing(&programs)) {
        return;
    }
    let files = Dir::new("machine");
    let key = files.file("host.key");
    make_key(&key);
    let other = files.file("other.key");
    make_key(&other);
    let zone = Zone::new("2.0.192.in-addr.arpa", Signing::Good).with("11", txt(&key, "192.0.2.11"));
    let bed = Bed::start("machine", vec![zone]);
    let mut machine = Machine::new(&bed, &files, &key);
    machine.start(&files);
    in_order(&machine, &key);
    from_outside(&bed, true);
    machine.stop();
    stopped(&machine);
    from_outside(&bed, false);
    another_key(&machine, &key, &other);
}

fn in_order(machine: &Machine, key: &str) {
    // The control socket is there a moment before everything else.
    let began = Instant::now();
    let mut output = machine.verify();
    while output.status.code() != Some(0) && began.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(200));
        output = machine.verify();
    }
    let text = stdout(&output);
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("    ")).collect();
    let expected = [
        "Checking your system to see if IPsec got installed and started correctly:".to_owned(),
        "Version check and oe-node on-path                                \t[OK]".to_owned(),
        "Checking for TUN support in kernel                               \t[OK]".to_owned(),
        format!("{:<65}\t[OK]", format!("Checking for RSA private key ({key})")),
        "Checking that oe-node is running                                 \t[OK]".to_owned(),
        "Checking that it listens on UDP 500 and 4500                     \t[OK]".to_owned(),
        "Checking that packets are trapped (device ipsec0)                \t[OK]".to_owned(),
        "Checking the clock against signatures in DNS                     \t[OK]".to_owned(),
        String::new(),
        "Opportunistic Encryption DNS checks:".to_owned(),
    ];
    assert_eq!(lines[..expected.len()], expected, "{text}");
    assert!(text.contains("is published here"), "{text}");
    assert!(
        text.contains("Would a stranger encrypt to 192.0.2.11?                          \t[OK]")
    );
    assert_eq!(output.status.code(), Some(0), "{text}");
}

fn from_outside(bed: &Bed, running: bool) {
    let anchor = bed.anchor().display().to_string();
    let args = [
        "verify",
        "--resolver",
        RESOLVER,
        "--trust-anchor",
        &anchor,
        "--ip",
        "192.0.2.11",
        "--probe",
    ];
    let output = bed.output(&oe_node(), &args);
    let text = stdout(&output);
    let line = "Is a daemon there: IKE_SA_INIT to 192.0.2.11                     \t";
    if running {
        assert!(text.contains(&format!("{line}[OK]\n    IKEv2, answered after")), "{text}");
        assert_eq!(output.status.code(), Some(0), "{text}");
    } else {
        let wanted = format!("{line}[FAILED]\n    wrong: the host answers, and nobody listens");
        assert!(text.contains(&wanted), "{text}");
        assert_eq!(output.status.code(), Some(1), "{text}");
    }
}

fn stopped(machine: &Machine) {
    let output = machine.verify();
    let text = stdout(&output);
    assert!(
        text.contains(
            "Checking that oe-node is running                                 \t[FAILED]"
        )
    );
    assert!(text.contains("trapped (device ipsec0)                \t[N/A]"), "{text}");
    assert_eq!(output.status.code(), Some(1), "{text}");
}

fn another_key(machine: &Machine, key: &str, other: &str) {
    fs::copy(other, key).unwrap();
    let text = stdout(&machine.verify());
    assert!(text.contains("is not among those published"), "{text}");
}
