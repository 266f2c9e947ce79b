//! The node processes: `oe-node run`, each in its host's namespace with its own configuration.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::host::Host;
use super::netns;
use crate::control;

/// What all nodes are told: where to ask, and whom to believe.
#[derive(Clone, Debug)]
pub(crate) struct Resolver {
    /// The DNS host's address and port.
    pub(crate) address: String,
    /// File with the trust anchor, in master-file form.
    pub(crate) trust_anchor: PathBuf,
}

/// A running node.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// The name of its host.
    pub(crate) name: String,
    /// Its process.
    pub(crate) pid: u32,
    /// Where its configuration, key and log lie.
    pub(crate) directory: PathBuf,
}

/// What stands in a node's configuration besides.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct More<'a> {
    /// Who it says it is.
    pub(crate) identity: Option<&'a str>,
    /// Whole tables.
    pub(crate) tables: &'a str,
}

/// The processes the lab has started, to be ended together.
#[derive(Clone, Default)]
pub(crate) struct Children(Arc<Mutex<Vec<Child>>>);

impl Node {
    /// Where a host's files lie; its private key has to be there, as [`Node::KEY`], before it
    /// starts.
    pub(crate) fn directory(name: &str) -> PathBuf {
        Path::new(netns::SCRATCH).join(name)
    }

    /// Starts `oe-node run` in the host's namespace.
    pub(crate) fn start(host: &Host, resolver: &Resolver, children: &Children) -> io::Result<Self> {
        Self::start_with(host, resolver, &More::default(), children)
    }

    /// The same with more in its configuration.
    pub(crate) fn start_with(
        host: &Host,
        resolver: &Resolver,
        more: &More<'_>,
        children: &Children,
    ) -> io::Result<Self> {
        let name = host.site.name.clone();
        let directory = Self::directory(&name);
        let config = directory.join("oe-node.toml");
        fs::write(&config, configuration(&directory, resolver, more))?;
        // Its own, so that this machine's real policies do not count.
        fs::create_dir_all(directory.join(Self::POLICIES))?;
        fs::write(directory.join(Self::POLICIES).join("private-or-clear"), "0.0.0.0/0\n::/0\n")?;
        let log = File::create(directory.join(Self::LOG))?;
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("oe-node")
            .args(["run", "--config"])
            .arg(&config)
            .env("OE_NODE_TRACE", directory.join(Self::TRACE))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        netns::bind_to_parent(&mut command);
        let child = host.run(move || command.spawn())??;
        let pid = child.id();
        children.adopt(child);
        Ok(Self { name, pid, directory })
    }

    /// Waits until the node answers on its control socket.
    pub(crate) fn await_ready(&self, children: &Children, patience: Duration) -> io::Result<()> {
        let start = Instant::now();
        loop {
            let Err(error) = self.status() else { return Ok(()) };
            if let Some(status) = children.status(self.pid)? {
                return Err(self.failure(&format!("ended at once ({status})")));
            }
            if start.elapsed() > patience {
                return Err(self.failure(&format!("does not answer: {error:#}")));
            }
            thread::sleep(POLL);
        }
    }

    /// Asks the running node how things stand.
    pub(crate) fn status(&self) -> anyhow::Result<Value> {
        control::ask(&self.directory.join(Self::CONTROL), &control::Request::Status)
    }

    /// The last lines of its log.
    pub(crate) fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.directory.join(Self::LOG)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(TAIL_LINES)..).unwrap_or_default().join("\n")
    }

    fn failure(&self, what: &str) -> io::Error {
        let tail = self.log_tail();
        let tail = if tail.is_empty() { "(its log is empty)".to_owned() } else { tail };
        io::Error::other(format!("node {} {what}\n{tail}", self.name))
    }

    /// File name of the private key.
    pub(crate) const KEY: &str = "key.pem";
    /// File name of the trace of what it decided and when, one JSON object a line.
    pub(crate) const TRACE: &str = "trace.jsonl";
    const LOG: &str = "log";
    const CONTROL: &str = "control.sock";
    const POLICIES: &str = "policies";
}

impl Children {
    /// Ends all of them, first kindly, and waits for that.
    pub(crate) fn end(&self) {
        let mut children = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for child in children.iter() {
            netns::terminate(child.id());
        }
        let deadline = Instant::now() + KINDNESS;
        for mut child in children.drain(..) {
            while Instant::now() < deadline && matches!(child.try_wait(), Ok(None)) {
                thread::sleep(POLL);
            }
            // Failing means that it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Ends one of them as a crash would.
    pub(crate) fn kill(&self, pid: u32) {
        let mut children = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = children.iter().position(|child| child.id() == pid) {
            let mut child = children.swap_remove(at);
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn adopt(&self, child: Child) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(child);
    }

    fn status(&self, pid: u32) -> io::Result<Option<ExitStatus>> {
        let mut children = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        children.iter_mut().find(|child| child.id() == pid).map_or(Ok(None), Child::try_wait)
    }
}

fn configuration(directory: &Path, resolver: &Resolver, more: &More<'_>) -> String {
    let identity = more.identity.map(|name| format!("identity = \"{name}\"\n"));
    let path = |name: &str| directory.join(name).display().to_string();
    format!(
        "[node]\n\
         key = \"{}\"\n\
         state-dir = \"{}\"\n\
         control-socket = \"{}\"\n\
         {}\n\
         [dns]\n\
         resolvers = [\"{}\"]\n\
         trust-anchors = \"{}\"\n\
         \n\
         [policy]\n\
         directory = \"{}\"\n\
         \n\
         {}",
        path(Node::KEY),
        directory.display(),
        path(Node::CONTROL),
        identity.unwrap_or_default(),
        resolver.address,
        resolver.trust_anchor.display(),
        path(Node::POLICIES),
        more.tables,
    )
}

const POLL: Duration = Duration::from_millis(10);
/// Time to say good-bye to peers before the namespaces vanish.
const KINDNESS: Duration = Duration::from_secs(1);
const TAIL_LINES: usize = 20;
