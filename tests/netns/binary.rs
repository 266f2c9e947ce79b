//! Running `oe-node`.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread;
use std::time::{Duration, Instant};

/// What a command has said and how it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Exit code, or 128 and the signal's number.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
    /// How long it ran.
    pub(crate) took: Duration,
}

/// A command under way.
pub(crate) struct Running {
    child: Child,
    start: Instant,
    stdout: thread::JoinHandle<String>,
    stderr: thread::JoinHandle<String>,
}

/// Keeps other tests out while this one runs, because it looks at what the whole machine has.
pub(crate) fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps tests out that want to be alone.
pub(crate) fn among_others() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}

static MACHINE: RwLock<()> = RwLock::new(());

/// Starts a command with its output collected.
pub(crate) fn start(command: &mut Command) -> Running {
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let stdout = collect(child.stdout.take().unwrap());
    let stderr = collect(child.stderr.take().unwrap());
    Running { child, start, stdout, stderr }
}

/// Runs `oe-node` to its end.
pub(crate) fn run(arguments: &[&str]) -> Ended {
    start(Command::new(tests::oe_node()).args(arguments)).wait(PATIENCE)
}

impl Running {
    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal, named as `kill` names it.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args(["-s", name, "--", &pid]).status().unwrap();
        assert!(sent.success(), "cannot send SIG{name}");
    }

    /// Whether it has not ended yet.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end; one that takes longer is killed, and the test with it.
    pub(crate) fn wait(mut self, patience: Duration) -> Ended {
        use std::os::unix::process::ExitStatusExt;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if self.start.elapsed() > patience {
                self.child.kill().unwrap();
                self.child.wait().unwrap();
                panic!("still running after {patience:?}; {}", self.stderr.join().unwrap());
            }
            thread::sleep(Duration::from_millis(10));
        };
        Ended {
            code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()),
            stdout: self.stdout.join().unwrap(),
            stderr: self.stderr.join().unwrap(),
            took: self.start.elapsed(),
        }
    }
}

fn collect(mut stream: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut octets = Vec::new();
        stream.read_to_end(&mut octets).unwrap();
        String::from_utf8_lossy(&octets).into_owned()
    })
}

/// Three times what the lab promises.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
