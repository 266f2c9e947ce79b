//! Network namespaces for tests: one for each test, gone with its thread.
#![allow(unsafe_code)] // unshare(2) has no safe wrapper among our dependencies.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::{Duration, Instant};

/// Runs a test in a network namespace of its own, with `lo` up and a single-threaded runtime.
/// Without root it says so and runs nothing.
pub(crate) fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    // SAFETY: geteuid reads a number and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return skipped("a network namespace needs root");
    }
    let name = std::thread::current().name().unwrap_or("test").to_owned();
    let thread = std::thread::Builder::new().name(name).spawn(|| {
        // SAFETY: unshare changes only the calling thread's namespace, and this thread was made
        // for that.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            return skipped(&format!("unshare: {}", std::io::Error::last_os_error()));
        }
        run("ip link set lo up");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
    });
    if let Err(panic) = thread.unwrap().join() {
        std::panic::resume_unwind(panic);
    }
}

/// Says that a test, or the rest of it, does not run here. Fails if `OE_MUST_RUN` says that all do.
pub(crate) fn skipped(why: &str) {
    assert!(std::env::var_os("OE_MUST_RUN").is_none(), "OE_MUST_RUN, and this cannot: {why}");
    absent(why);
}

/// The same for what nobody can install, as a feature of the kernel: it fails nowhere. Unlike what
/// `eprintln!` prints, what is written to the descriptor is seen although the test passes. Where
/// `OE_SKIPPED` names a file, that has the list.
pub(crate) fn absent(why: &str) {
    let test = std::thread::current().name().map_or(String::new(), |name| format!("{name}: "));
    let line = format!("skipped: {test}{why}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(list) = std::env::var_os("OE_SKIPPED")
        && let Ok(mut list) = File::options().create(true).append(true).open(list)
    {
        let _ = list.write_all(line.as_bytes());
    }
}

/// Runs a command line (words separated by blanks) and returns its output.
pub(crate) fn run(line: &str) -> String {
    let (ok, output) = try_run(line);
    assert!(ok, "{line}: {output}");
    output
}

/// As [`run`], for commands that may fail.
pub(crate) fn try_run(line: &str) -> (bool, String) {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

/// A loaded machine takes its time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Asks until there is an answer.
pub(crate) fn await_some<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "still waiting: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether every one of these programs is installed; says which is not.
pub(crate) fn has(programs: &[&str]) -> bool {
    for program in programs {
        let found = std::env::var_os("PATH").is_some_and(|path| {
            std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
        });
        if !found {
            skipped(&format!("{program} is not installed"));
            return false;
        }
    }
    true
}

/// Another namespace, for a peer; deleted when dropped.
pub(crate) struct Peer(String);

impl Peer {
    pub(crate) fn new(test: &str) -> Self {
        let name = format!("oe-{test}-{}", std::process::id());
        run(&format!("ip netns add {name}"));
        run(&format!("ip -n {name} link set lo up"));
        Self(name)
    }

    /// Connects `near` here with `far` there.
    pub(crate) fn connect(&self, near: &str, far: &str) {
        run(&format!("ip link add {near} type veth peer name {far} netns {}", self.0));
        run(&format!("ip link set {near} up"));
        self.run(&format!("ip link set {far} up"));
        // The kernel finds out by and by, and its routes say so until then.
        await_some(&format!("{near} is up"), || {
            let both = [
                run(&format!("ip -o link show {near}")),
                self.run(&format!("ip -o link show {far}")),
            ];
            both.iter().all(|link| link.contains("state UP")).then_some(())
        });
    }

    pub(crate) fn run(&self, line: &str) -> String {
        run(&format!("ip netns exec {} {line}", self.0))
    }

    /// A command there, to be given arguments and spawned.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0, program]);
        command
    }

    pub(crate) fn try_run(&self, line: &str) -> (bool, String) {
        try_run(&format!("ip netns exec {} {line}", self.0))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = try_run(&format!("ip netns del {}", self.0));
    }
}

/// A TUN device that is gone when it is dropped, as the daemon's is when it dies.
pub(crate) struct Tun {
    file: Option<File>,
    name: String,
}

impl Tun {
    pub(crate) fn open(name: &str) -> Self {
        let file = File::options().read(true).write(true).open("/dev/net/tun").unwrap();
        // struct ifreq: a name of 16 octets, then the flags.
        let mut request = [0_u8; 40];
        request[..name.len()].copy_from_slice(name.as_bytes());
        let flags = u16::try_from(libc::IFF_TUN | libc::IFF_NO_PI).unwrap();
        request[16..18].copy_from_slice(&flags.to_ne_bytes());
        // SAFETY: the descriptor is open and `request` is as large as struct ifreq.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &mut request) };
        assert_eq!(result, 0, "TUNSETIFF: {}", std::io::Error::last_os_error());
        // SAFETY: the descriptor is open; only its status flags change.
        unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
        Self { file: Some(file), name: name.to_owned() }
    }

    pub(crate) fn write(&mut self, packet: &[u8]) {
        self.file.as_mut().unwrap().write_all(packet).unwrap();
    }

    /// The next packet that `wanted` accepts.
    pub(crate) fn read(&mut self, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        self.read_within(PATIENCE, wanted)
    }

    /// Whether none comes that `wanted` accepts.
    pub(crate) fn is_silent(&mut self, wanted: impl Fn(&[u8]) -> bool) -> bool {
        self.read_within(Duration::from_millis(500), wanted).is_none()
    }

    fn read_within(
        &mut self,
        patience: Duration,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> Option<Vec<u8>> {
        let end = Instant::now() + patience;
        let mut buffer = [0; 2048];
        while Instant::now() < end {
            match self.file.as_mut()?.read(&mut buffer) {
                Ok(len) if wanted(&buffer[..len]) => return Some(buffer[..len].to_vec()),
                Ok(_) => {}
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        None
    }
}

impl Drop for Tun {
    fn drop(&mut self) {
        self.file = None;
        // Processes that other tests are starting have a copy of the descriptor until they are another
        // program, and the device stays as long.
        let line = format!("{}:", self.name);
        let is_gone = || {
            let devices = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
            !devices.lines().any(|device| device.trim_start().starts_with(&line))
        };
        // A test that has failed already has said why.
        if !std::thread::panicking() {
            await_some("the device goes", || is_gone().then_some(()));
        }
    }
}
