//! Directories, keys, ports, and programs that are ended with the test.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use dnskeys::RsaKey;

/// A temporary directory.
pub(crate) struct Place(PathBuf);

impl Place {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("oe-zones-{}-{count}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// A key that parses and that nobody can sign with, as PEM.
    pub(crate) fn key(&self, name: &str, bits: usize, last: u8) -> PathBuf {
        self.write(name, &key(bits, last).to_pem().unwrap())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn key(bits: usize, last: u8) -> RsaKey {
    let mut modulus = vec![0xa5; bits / 8];
    modulus[0] = 0xc1;
    *modulus.last_mut().unwrap() = last | 1;
    RsaKey::new(&[1, 0, 1], &modulus).unwrap()
}

/// What a program printed and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) code: i32,
}

impl Ran {
    /// Standard output, of a program that must succeed.
    #[track_caller]
    pub(crate) fn good(self) -> String {
        assert_eq!(self.code, 0, "{}\n{}", self.out, self.err);
        self.out
    }
}

/// Runs a program in a directory.
pub(crate) fn run(place: &Place, program: impl AsRef<Path>, args: &[&str]) -> Ran {
    let output = Command::new(find(program.as_ref()))
        .args(args)
        .current_dir(&place.0)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{}: {e}", program.as_ref().display()));
    Ran {
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
        code: output.status.code().unwrap_or(-1),
    }
}

/// Runs `oe-node zone`.
pub(crate) fn zone(place: &Place, args: &[&str]) -> Ran {
    let mut all = vec!["zone"];
    all.extend(args);
    run(place, tests::oe_node(), &all)
}

/// Says so and returns true if one of the programs is not here.
pub(crate) fn lacks(test: &str, programs: &[&str]) -> bool {
    let missing =
        programs.iter().find(|program| find(Path::new(program)).parent() == Some(Path::new("")));
    tests::skipped(test, missing.map(|program| format!("{program} is not installed")))
}

/// Daemons are in directories that are not always in the path.
fn find(program: &Path) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let extra = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let found = std::env::split_paths(&path).chain(extra).map(|d| d.join(program));
    found.into_iter().find(|p| p.is_file()).unwrap_or_else(|| program.to_owned())
}

/// A port that was free for UDP and TCP a moment ago.
pub(crate) fn free_port() -> u16 {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = tcp.local_addr().unwrap().port();
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A program in the background; it ends with the test.
pub(crate) struct Daemon(Child);

impl Daemon {
    pub(crate) fn start(place: &Place, program: &str, args: &[&str]) -> Self {
        let log = fs::File::create(place.path(&format!("{program}.log"))).unwrap();
        let child = Command::new(find(Path::new(program)))
            .args(args)
            .current_dir(&place.0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self(child)
    }

    /// `oe-node zone serve` on a free port, once it answers.
    pub(crate) fn serve(place: &Place, args: &[&str]) -> (Self, u16) {
        let mut child = Command::new(tests::oe_node())
            .args(["zone", "serve", "--listen", "127.0.0.1:0", "--key-dir", "keys"])
            .args(args)
            .current_dir(&place.0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(place.path("serve.log")).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let daemon = Self(child);
        let port = line.trim().rsplit(':').next().and_then(|port| port.parse().ok());
        let port = port.unwrap_or_else(|| panic!("{line:?} {}", place.read("serve.log")));
        (daemon, port)
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        let status =
            Command::new("kill").args([format!("-{name}"), self.id().to_string()]).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Tries until it is true.
#[track_caller]
pub(crate) fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while Instant::now() < end {
        if check() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("never: {what}");
}

/// dig's answer section, one record to a line, base 64 in one piece.
pub(crate) fn dig(place: &Place, port: u16, args: &[&str]) -> String {
    let port = port.to_string();
    let mut all =
        vec!["@127.0.0.1", "-p", &port, "+nosplit", "+noall", "+answer", "+time=2", "+tries=1"];
    all.extend(args);
    run(place, "dig", &all).out
}
