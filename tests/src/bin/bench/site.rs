//! Two namespaces and a cable, and processes in them. All is gone when it is dropped.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, ensure};
use tests::place;

/// Addresses at the two ends of the cable.
pub(crate) const ENDS: [&str; 2] = ["192.0.2.1", "192.0.2.2"];

/// Two namespaces joined by a cable.
pub(crate) struct Site {
    pub(crate) names: [String; 2],
    /// For files.
    pub(crate) directory: PathBuf,
}

impl Site {
    /// Namespaces with this word in their names.
    pub(crate) fn new(word: &str) -> anyhow::Result<Self> {
        let prefix = format!("oeb{}-{word}", std::process::id());
        let names = ["a", "b"].map(|side| format!("{prefix}-{side}"));
        let directory = std::env::temp_dir().join(&prefix);
        std::fs::create_dir_all(&directory)?;
        let site = Self { names, directory };
        for name in &site.names {
            shell(&format!("ip netns add {name} && ip -n {name} link set lo up"))?;
        }
        let [a, b] = &site.names;
        shell(&format!("ip -n {a} link add wire type veth peer name wire netns {b}"))?;
        for (name, address) in site.names.iter().zip(ENDS) {
            shell(&format!("ip -n {name} addr add {address}/24 dev wire"))?;
            shell(&format!("ip -n {name} link set wire up"))?;
        }
        Ok(site)
    }

    /// `ip` in one of the two.
    pub(crate) fn ip(&self, side: usize, line: &str) -> anyhow::Result<()> {
        let name = self.names.get(side).context("two sides")?;
        shell(&format!("ip -n {name} {line}"))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Runs a line of shell.
pub(crate) fn shell(line: &str) -> anyhow::Result<()> {
    let output = Command::new("sh").args(["-c", line]).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{line}: {}", said.trim());
    Ok(())
}

/// A process that ends with this.
pub(crate) struct Running {
    child: Child,
    /// What it listens to; some end when it is closed.
    pub(crate) input: Option<ChildStdin>,
    /// What it says.
    pub(crate) output: Option<BufReader<ChildStdout>>,
}

impl Running {
    /// Starts a command with pipes to and from it.
    pub(crate) fn start(mut command: Command) -> anyhow::Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take();
        let output = child.stdout.take().map(BufReader::new);
        Ok(Self { child, input, output })
    }

    /// Starts a command whose output goes to a file.
    pub(crate) fn start_saying_to(mut command: Command, file: File) -> anyhow::Result<Self> {
        let child = command.stdin(Stdio::null()).stdout(file).spawn()?;
        Ok(Self { child, input: None, output: None })
    }

    /// Starts this very program in a namespace.
    pub(crate) fn ourselves(namespace: &str, words: &[&str]) -> anyhow::Result<Self> {
        let own = std::env::current_exe()?.display().to_string();
        Self::start(place::command(namespace, &[&[own.as_str()], words].concat()))
    }

    /// The next line that it says.
    pub(crate) fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        let output = self.output.as_mut().context("nothing to read from")?;
        ensure!(output.read_line(&mut line)? > 0, "it ended without a word");
        Ok(line.trim().to_owned())
    }

    /// Its process; `ip netns exec` becomes the command.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> anyhow::Result<()> {
        drop(self.input.take());
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
