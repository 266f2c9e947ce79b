//! The command line: one file for each command.

mod call;
mod config;
mod events;
mod explain;
mod forget;
mod guard;
mod keygen;
mod lab;
mod man;
mod peers;
mod reload;
mod run;
mod showhostkey;
mod status;
mod verify;
mod zone;

use std::io::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use serde_json::Value;

use crate::config::Config;
use crate::control::{self, Request};

pub(crate) use keygen::write_records;

/// Opportunistic encryption: keys from DNS, tunnels on demand, no pair configured by hand.
#[derive(Parser)]
#[command(name = "oe-node", version, max_term_width = 100, after_long_help = LONG)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const LONG: &str = "Files: /etc/oe-node/oe-node.toml, the configuration, which may be missing (`oe-node \
config --example` documents every key); /etc/oe-node/policies, the policy groups; /var/lib/oe-node, \
the host key and what must survive a restart; /run/oe-node/control.sock, where a running daemon is \
asked.\n\n\
Environment: OE_NODE_LOG, what the daemon logs (oe_node=debug is more than the default, \
error,oe_node=info); OE_NODE_TRACE, a file for what `oe-node events` prints, from the start.\n\n\
Exit status: 0 done, 1 it could not be done, 2 wrong options; of verify, lab, guard status and zone \
diff their own pages say more.";

#[derive(Subcommand)]
enum Command {
    /// Shows a whole mesh on this machine: DNS, two nodes, a plain host, a bogus one.
    Lab(lab::Args),
    /// Runs the daemon.
    Run(run::Args),
    /// Asks the running daemon what it knows.
    Status(status::Args),
    /// Says why an address is treated as it is, and what would happen to the next packet.
    Explain(explain::Args),
    /// Has keys agreed with an address now, as the first packet to it would, and explains what came
    /// of it. What is encrypted already stays; what was decided otherwise is asked anew. Exit status
    /// 0: what is sent there is encrypted (of a connection for single ports: what those are).
    Call(call::Args),
    /// Lists the other ends of established IKE SAs.
    Peers(peers::Args),
    /// Closes what there is with an address, configured connections included; the next packet to it
    /// starts anew.
    Forget(forget::Args),
    /// Keeps private destinations closed while no daemon runs: before its start and after its end.
    Guard(guard::Args),
    /// Makes the daemon read its configuration and policy groups anew.
    Reload(reload::Args),
    /// Prints every transition as a JSON line, from now on.
    Events(events::Args),
    /// Creates the host key.
    Keygen(keygen::Args),
    /// Prints the host's public key in a published form.
    Showhostkey(showhostkey::Args),
    /// Checks what a stranger sees of a host in DNS.
    Verify(verify::Args),
    /// Generates, checks, compares, publishes and serves zone records.
    Zone(zone::Args),
    /// Writes the man pages of oe-node and of each of its commands.
    Man(man::Args),
    /// Prints the commented example configuration, checks a configuration, writes units for systemd.
    Config(config::Args),
}

/// Where the running daemon is.
#[derive(clap::Args)]
struct Daemon {
    /// Configuration file, for the control socket's place.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Daemon {
    fn socket(&self) -> anyhow::Result<PathBuf> {
        Ok(Config::load(self.config.as_deref())?.node.control_socket)
    }

    fn ask(&self, request: &Request) -> anyhow::Result<Value> {
        control::ask(&self.socket()?, request)
    }
}

/// Whom to ask, and how to print the answer.
#[derive(clap::Args)]
struct Shown {
    #[command(flatten)]
    daemon: Daemon,
    /// Print everything as JSON.
    #[arg(long)]
    json: bool,
}

impl Shown {
    /// Asks, and prints the answer, as a text for people or as it is.
    fn show(&self, request: &Request, text: impl FnOnce(&Value) -> String) -> ExitCode {
        let answer = match self.daemon.ask(request) {
            Ok(answer) if self.json => answer,
            other => return show(other.map(|answer| text(&answer))),
        };
        // A long list is some tens of megabytes of text, which nobody needs in one piece.
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        let written = serde_json::to_writer_pretty(&mut out, &answer).map_err(Into::into);
        let written = written.and_then(|()| writeln!(out)).and_then(|()| out.flush());
        written.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
    }
}

/// Prints a text, or says why there is none.
fn show(text: anyhow::Result<String>) -> ExitCode {
    let text = match text {
        Ok(text) => text,
        Err(error) => return fail(&format!("{error:#}")),
    };
    let written = std::io::stdout().write_all(text.as_bytes());
    written.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
}

/// JSON objects as a table: `columns` are headings and the keys under them, `show` makes a cell.
fn listing(
    columns: &[(&str, &str)],
    items: &[Value],
    show: impl Fn(&str, &Value) -> String,
) -> String {
    let heading = columns.iter().map(|(heading, _)| (*heading).to_owned()).collect();
    let row = |item: &Value| columns.iter().map(|(_, key)| show(key, item)).collect();
    let rows: Vec<Vec<String>> = std::iter::once(heading).chain(items.iter().map(row)).collect();
    table(&rows)
}

/// Rows of cells as a table with a heading; columns as wide as they must be.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Seconds as a cell.
fn since(seconds: Option<&Value>) -> String {
    format!("{:.0} s", seconds.and_then(Value::as_f64).unwrap_or_default())
}

/// A JSON value as a cell.
fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => {
            items.iter().map(|item| cell(Some(item))).collect::<Vec<_>>().join(" ")
        }
        Some(other) => other.to_string(),
    }
}

/// Prints one line about what went wrong; exit code 1.
pub(crate) fn fail(why: &impl std::fmt::Display) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "oe-node: {why}");
    ExitCode::FAILURE
}

/// Whether whoever reads what is printed has gone: a pipe to `head` is no mistake.
pub(crate) fn is_unread(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>();
        io.is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

/// Prints warnings, one line each.
fn warn(warnings: &[String]) {
    for warning in warnings {
        let _ = writeln!(std::io::stderr(), "oe-node: warning: {warning}");
    }
}

/// An address on the command line. IPv4 written as IPv6 is IPv4: no packet has it otherwise.
fn address(text: &str) -> Result<IpAddr, std::net::AddrParseError> {
    text.parse().map(|address: IpAddr| address.to_canonical())
}

/// Parses the command line and does what it says.
pub(crate) fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Lab(args) => lab::main(args),
        Command::Run(args) => run::main(args),
        Command::Status(args) => status::main(args),
        Command::Explain(args) => explain::main(args),
        Command::Call(args) => call::main(args),
        Command::Peers(args) => peers::main(args),
        Command::Forget(args) => forget::main(args),
        Command::Guard(args) => guard::main(args),
        Command::Reload(args) => reload::main(args),
        Command::Events(args) => events::main(args),
        Command::Keygen(args) => keygen::main(args),
        Command::Showhostkey(args) => showhostkey::main(args),
        Command::Verify(args) => verify::main(args),
        Command::Zone(args) => zone::main(args),
        Command::Man(args) => man::main(args, Cli::command()),
        Command::Config(args) => config::main(args),
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use clap::CommandFactory as _;

    /// Files below a directory with one of these endings.
    fn files(directory: &Path, endings: &[&str], found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                files(&path, endings, found);
            } else if path.extension().is_some_and(|e| endings.iter().any(|ending| e == *ending)) {
                found.push(path);
            }
        }
    }

    /// What a text says of the command line: the first thing that is not so, and how many were looked
    /// at.
    fn wrong(text: &str, cli: &clap::Command) -> (Option<String>, usize) {
        let mut options = 0;
        for (at, _) in text.match_indices("oe-node ") {
            let quoted = text[..at].ends_with('`');
            let said =
                text[at + 8..].split(['`', '"', '\n', ';', '|', '(', ')', '#']).next().unwrap();
            let said = said.split("oe-node").next().unwrap();
            let mut command = cli;
            let mut words = said.split_whitespace().peekable();
            while let Some(sub) = words.peek().and_then(|word| command.find_subcommand(word)) {
                command = sub;
                words.next();
            }
            let is_word = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase());
            if command.get_name() == "oe-node" {
                match words.peek().filter(|word| quoted && is_word(word)) {
                    Some(word) => return (Some(format!("no command {word}: {said}")), options),
                    None => continue,
                }
            }
            for option in words.filter_map(|word| word.strip_prefix("--")) {
                let name =
                    option.split(|c: char| !c.is_ascii_lowercase() && c != '-').next().unwrap();
                let known = |arg: &clap::Arg| {
                    arg.get_long() == Some(name)
                        || arg.get_all_aliases().is_some_and(|all| all.contains(&name))
                };
                options += 1;
                if name != "help" && !command.get_arguments().any(known) {
                    return (Some(format!("no option --{name}: {said}")), options);
                }
            }
        }
        (None, options)
    }

    /// Remedies, manuals and examples name commands and options that there are.
    #[test]
    fn what_is_said_of_the_command_line_is_so() {
        let cli = super::Cli::command();
        assert!(wrong("`oe-node frobnicate`", &cli).0.is_some());
        assert!(wrong("with: oe-node keygen --key-file x", &cli).0.is_some());
        assert!(wrong("`oe-node zone rollover start --tsig x`, oe-node is", &cli).0.is_none());
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut all = vec![root.join("README.md")];
        files(&root.join("docs"), &["md"], &mut all);
        files(&root.join("node/daemon/src"), &["rs", "toml", "service"], &mut all);
        let mut options = 0;
        for path in all.iter().filter(|path| !path.ends_with("commands/mod.rs")) {
            let (fault, looked_at) = wrong(&std::fs::read_to_string(path).unwrap(), &cli);
            assert_eq!(fault, None, "{}", path.display());
            options += looked_at;
        }
        assert!(options > 40, "{options}");
    }
}
