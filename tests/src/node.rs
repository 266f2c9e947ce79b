//! A running `oe-node run`, with files and a control socket of its own.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use serde_json::Value;

use crate::place;

/// What a node is told.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Where everything of it lies.
    pub directory: PathBuf,
    /// Its private key; without one it makes one.
    pub key: Option<PathBuf>,
    /// `ADDRESS` or `ADDRESS:PORT`.
    pub resolver: String,
    /// File of trust anchors.
    pub trust_anchors: PathBuf,
    /// Policy groups: name and prefixes.
    pub policies: Vec<(&'static str, &'static str)>,
    /// More lines for `[node]`.
    pub node: String,
    /// More lines for `[policy]`.
    pub policy: String,
    /// More tables.
    pub more: String,
    /// What it logs, as `OE_NODE_LOG` has it.
    pub log: String,
    /// It writes no trace and logs only what is wrong: for measuring.
    pub quiet: bool,
    /// It writes no trace, and logs as it does for everybody.
    pub plain: bool,
}

impl Setup {
    /// The packetdefault host, in this directory.
    #[must_use]
    pub fn new(directory: PathBuf, resolver: &str, trust_anchors: PathBuf) -> Self {
        Self {
            log: "debug".to_owned(),
            directory,
            key: None,
            resolver: resolver.to_owned(),
            trust_anchors,
            policies: vec![("private-or-clear", "0.0.0.0/0\n::/0\n")],
            node: String::new(),
            policy: String::new(),
            more: String::new(),
            quiet: false,
            plain: false,
        }
    }

    /// Writes the configuration, and gives its file's name.
    ///
    /// # Panics
    /// If it cannot be written.
    #[must_use]
    pub fn write(&self) -> PathBuf {
        let policies = self.directory.join("policies");
        let file = self.directory.join("oe-node.toml");
        let written = fs::create_dir_all(&policies)
            .and_then(|()| {
                self.policies
                    .iter()
                    .try_for_each(|(group, lines)| fs::write(policies.join(group), lines))
            })
            .and_then(|()| fs::write(&file, self.configuration(&policies)));
        assert!(written.is_ok(), "{}: {written:?}", file.display());
        file
    }

    fn configuration(&self, policies: &Path) -> String {
        let key = self.key.as_ref().map(|key| format!("key = \"{}\"\n", key.display()));
        format!(
            "[node]\n{}state-dir = \"{directory}/state\"\ncontrol-socket = \"{}\"\n{}\n\
             [dns]\nresolvers = [\"{}\"]\ntrust-anchors = \"{}\"\n\n\
             [policy]\ndirectory = \"{}\"\n{}\n{}\n",
            key.unwrap_or_default(),
            self.socket().display(),
            self.node,
            self.resolver,
            self.trust_anchors.display(),
            policies.display(),
            self.policy,
            self.more,
            directory = self.directory.display(),
        )
    }

    /// Where the node's control socket is.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.join("control.sock")
    }

    /// The command that runs the node in this namespace.
    #[must_use]
    pub fn command(&self, namespace: &str) -> Command {
        let (binary, file) = (crate::oe_node(), self.write());
        let words = [&binary.display().to_string(), "run", "--config", &file.display().to_string()];
        let mut command = place::command(namespace, &words);
        if !self.quiet && !self.plain {
            command.env("OE_NODE_TRACE", self.directory.join("trace"));
        }
        command
    }

    /// Starts the node in this namespace, and waits until it answers.
    ///
    /// # Panics
    /// If it does not.
    #[must_use]
    pub fn start(&self, namespace: &str) -> Node {
        let mut command = self.command(namespace);
        let log_level = if self.quiet { "warn" } else { &self.log };
        // The daemon's own default.
        let log_level = if self.plain { "error,oe_node=info" } else { log_level };
        let log = File::options().create(true).append(true).open(self.directory.join("log"));
        let Ok(log) = log else { panic!("log: {log:?}") };
        let Ok(copy) = log.try_clone() else { panic!("log") };
        let spawned = command.stdout(copy).stderr(log).env("OE_NODE_LOG", log_level).spawn();
        let Ok(child) = spawned else { panic!("oe-node: {spawned:?}") };
        let mut node = Node { child, setup: self.clone() };
        place::await_some("oe-node answers", PATIENCE, || {
            if let Ok(Some(status)) = node.child.try_wait() {
                panic!("oe-node ended at once, {status}: {}", node.log());
            }
            ask(&node.setup.socket(), r#"{"request":"status"}"#)
        });
        node
    }
}

/// The running node. Ended when dropped, kindly.
#[derive(Debug)]
pub struct Node {
    child: Child,
    setup: Setup,
}

impl Node {
    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// One request on the control socket; null if there is no answer.
    #[must_use]
    pub fn ask(&self, request: &str) -> Value {
        ask(&self.setup.socket(), request).unwrap_or_default()
    }

    /// Everything it knows.
    #[must_use]
    pub fn status(&self) -> Value {
        self.ask(r#"{"request":"status"}"#)
    }

    /// What it knows of this destination; null if nothing.
    #[must_use]
    pub fn destination(&self, address: &str) -> Value {
        let status = self.status();
        let all = status.get("destinations").and_then(Value::as_array);
        let found = all.and_then(|all| all.iter().find(|one| text(one, "destination") == address));
        found.cloned().unwrap_or_default()
    }

    /// What it knows of this configured connection; null if nothing.
    #[must_use]
    pub fn connection(&self, name: &str) -> Value {
        let status = self.status();
        let all = status.get("connections").and_then(Value::as_array);
        let found = all.and_then(|all| all.iter().find(|one| text(one, "name") == name));
        found.cloned().unwrap_or_default()
    }

    /// Waits until a configured connection is in this state.
    ///
    /// # Panics
    /// If it does not get there.
    pub fn await_connection(&self, name: &str, state: &str) -> Value {
        place::await_some(&format!("{name} is {state:?}"), PATIENCE, || {
            let found = self.connection(name);
            (text(&found, "state") == state).then_some(found)
        })
    }

    /// Waits until a destination is in this state; the empty state is "not known".
    ///
    /// # Panics
    /// If it does not get there.
    pub fn await_state(&self, address: &str, state: &str) -> Value {
        place::await_some(&format!("{address} is {state:?}"), PATIENCE, || {
            let found = self.destination(address);
            (text(&found, "state") == state).then_some(found)
        })
    }

    /// Waits until a destination has so many SA pairs: calls that crossed leave two for a moment.
    ///
    /// # Panics
    /// If it does not get there.
    pub fn await_pairs(&self, address: &str, pairs: u64) {
        place::await_some(&format!("{address} has {pairs} pairs"), PATIENCE, || {
            (self.destination(address).get("pairs")? == pairs).then_some(())
        });
    }

    /// How often this happened, as the trace has it.
    #[must_use]
    pub fn happened(&self, event: &str) -> usize {
        let trace = fs::read_to_string(self.setup.directory.join("trace")).unwrap_or_default();
        let events = trace.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.filter(|line| text(line, "event") == event).count()
    }

    /// Waits until this has happened so often, and gives back how often it has: the trace is written
    /// a moment after what it tells of.
    ///
    /// # Panics
    /// If it does not in time.
    pub fn await_happened(&self, event: &str, times: usize) -> usize {
        place::await_some(&format!("{event} {times} times"), PATIENCE, || {
            let happened = self.happened(event);
            (happened >= times).then_some(happened)
        })
    }

    /// Everything it logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.setup.directory.join("log")).unwrap_or_default()
    }

    /// Asks it to end, and waits for that.
    ///
    /// # Panics
    /// If it does not end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signalled("TERM")
    }

    /// Sends it a signal, as `kill` names it, and waits for its end.
    ///
    /// # Panics
    /// If it does not end.
    pub fn signalled(&mut self, signal: &str) -> ExitStatus {
        self.signal(signal);
        place::await_some("oe-node ends", PATIENCE, || self.child.try_wait().ok().flatten())
    }

    /// As a crash would end it.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn signal(&self, signal: &str) {
        let _ = Command::new("kill").args(["-s", signal, &self.child.id().to_string()]).output();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The harness shows what a failing test has printed.
            #[expect(clippy::print_stdout, reason = "for whoever looks into the failure")]
            {
                println!("{}\n{:#}", self.log(), self.status());
            }
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal("TERM");
            let deadline = std::time::Instant::now() + PATIENCE;
            while matches!(self.child.try_wait(), Ok(None)) && std::time::Instant::now() < deadline
            {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        self.kill();
    }
}

/// A member of a JSON object as text; empty if it is not there.
#[must_use]
pub fn text<'a>(object: &'a Value, member: &str) -> &'a str {
    object.get(member).and_then(Value::as_str).unwrap_or_default()
}

fn ask(socket: &Path, request: &str) -> Option<Value> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    writeln!(stream, "{request}").ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    serde_json::from_str(&line).ok()
}

/// A loaded machine takes its time.
const PATIENCE: Duration = Duration::from_secs(60);
