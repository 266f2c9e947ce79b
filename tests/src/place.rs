//! Network namespaces with names: commands in them, and what is on their wires.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A command that will run in this namespace.
#[must_use]
pub fn command(namespace: &str, words: &[&str]) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).args(words).stdin(Stdio::null());
    command
}

/// Runs a command in this namespace; whether it succeeded, and all that it said.
///
/// # Panics
/// If it cannot be started.
#[must_use]
pub fn run(namespace: &str, words: &[&str]) -> (bool, String) {
    let (done, stdout, stderr) = finish(namespace, words);
    (done, stdout + &stderr)
}

/// Runs a command in this namespace and gives its standard output.
///
/// # Panics
/// If it fails.
pub fn ok(namespace: &str, words: &[&str]) -> String {
    let (done, stdout, stderr) = finish(namespace, words);
    assert!(done, "{namespace}: {words:?}: {stdout}{stderr}");
    stdout
}

fn finish(namespace: &str, words: &[&str]) -> (bool, String, String) {
    let output = command(namespace, words).output();
    let Ok(Output { status, stdout, stderr }) = output else { panic!("{words:?}: {output:?}") };
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    (status.success(), text(&stdout), text(&stderr))
}

/// Asks until there is an answer.
///
/// # Panics
/// If there is none in `patience`; then `what` says what was missing.
pub fn await_some<T>(what: &str, patience: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether one echo request is answered. The first one has to wait for DNS and a negotiation.
#[must_use]
pub fn ping(namespace: &str, target: &str) -> bool {
    run(namespace, &["ping", "-n", "-c", "1", "-W", "8", target]).0
}

/// So many octets from one namespace to `address` in another and as many back, every one of them
/// checked. `traffic` is this package's program of that name.
///
/// # Panics
/// If one octet is not what it was, or if it takes too long without progress.
pub fn transfer(traffic: &str, from: &str, to: &str, address: &str, octets: &str) {
    let spawned = command(to, &[traffic, "serve", address]).stdout(Stdio::null()).spawn();
    let Ok(mut server) = spawned else { panic!("{traffic}: {spawned:?}") };
    let port = address.rsplit(':').next().unwrap_or_default();
    await_some("the server listens", PATIENCE, || {
        let listening = ok(to, &["ss", "-Hltn", "sport", "=", port]);
        (!listening.is_empty()).then_some(())
    });
    let (done, said) = run(from, &[traffic, "transfer", address, octets]);
    if !done {
        let _ = server.kill();
    }
    let served = server.wait().is_ok_and(|status| status.success());
    assert!(done && served, "{from} to {address}: {said}");
}

/// `tcpdump` on a device of a namespace.
#[derive(Debug)]
pub struct Capture {
    child: Child,
    file: PathBuf,
}

impl Capture {
    /// Starts, and waits until it listens.
    ///
    /// # Panics
    /// If it does not.
    #[must_use]
    pub fn start(namespace: &str, device: &str, file: &Path) -> Self {
        let path = file.display().to_string();
        // Headers are enough; -U and immediate mode, because the end comes by signal.
        let words = ["tcpdump", "-i", device, "-n", "-p", "-U", "--immediate-mode"];
        let options = ["-s", "128", "-B", "8192", "-Z", "root", "-w", &path];
        let spawned = command(namespace, &[&words[..], &options].concat())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut child) = spawned else { panic!("tcpdump: {spawned:?}") };
        let Some(stderr) = child.stderr.take() else { panic!("tcpdump without stderr") };
        let mut said = String::new();
        let mut lines = BufReader::new(stderr);
        while !said.contains("listening on") {
            let read = lines.read_line(&mut said);
            assert!(matches!(read, Ok(1..)), "tcpdump: {said}");
        }
        // Kept open, or the closing summary would kill it.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        Self { child, file: file.to_path_buf() }
    }

    /// The packets so far that a filter lets through, one line each.
    ///
    /// # Panics
    /// If tcpdump does not read its own file.
    #[must_use]
    pub fn packets(&self, filter: &str) -> Vec<String> {
        let output =
            Command::new("tcpdump").args(["-n", "-r"]).arg(&self.file).arg(filter).output();
        let Ok(output) = output else { panic!("tcpdump: {output:?}") };
        let said = String::from_utf8_lossy(&output.stderr);
        // The last packet may be half written.
        assert!(output.status.success() || said.contains("truncated"), "tcpdump: {said}");
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }

    /// What travelled in the clear: everything but IKE, ESP and the neighbours' finding each
    /// other.
    #[must_use]
    pub fn in_clear(&self) -> Vec<String> {
        self.packets(CLEAR)
    }

    /// Waits until there is ESP, bare or in UDP: what was sent is in the file a little later.
    ///
    /// # Panics
    /// If none comes.
    pub fn await_esp(&self) {
        self.await_packets(ESP);
    }

    /// Waits until a filter lets packets through.
    ///
    /// # Panics
    /// If none comes.
    pub fn await_packets(&self, filter: &str) {
        await_some(filter, PATIENCE, || (!self.packets(filter).is_empty()).then_some(()));
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Neighbour and router discovery are ICMPv6 133 to 137, and multicast listeners report (143).
const CLEAR: &str = "(ip or ip6) and not (udp port 500 or udp port 4500) and not ip proto 50 \
    and not ip6 proto 50 and not (icmp6 and ip6[40] >= 133 and ip6[40] <= 137) \
    and not (ip6 multicast)";
/// The SPI of ESP in UDP is not zero (RFC 3948 §2.2).
const ESP: &str = "ip proto 50 or ip6 proto 50 or (ip and udp port 4500 and udp[8:4] != 0) \
    or (ip6 and udp port 4500 and ip6[48:4] != 0)";
/// A loaded machine takes its time.
const PATIENCE: Duration = Duration::from_secs(60);
