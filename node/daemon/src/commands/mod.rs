//! The command line: one file for each command.

mod config;
mod keygen;
mod lab;
mod run;
mod showhostkey;
mod status;
mod verify;
mod zone;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub(crate) use keygen::write_records;

/// Opportunistic encryption: keys from DNS, tunnels on demand, no pair configured by hand.
#[derive(Parser)]
#[command(name = "oe-node", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows a whole mesh on this machine: DNS, two nodes, a plain host, a bogus one.
    Lab(lab::Args),
    /// Runs the daemon.
    Run(run::Args),
    /// Asks the running daemon what it knows.
    Status(status::Args),
    /// Creates the host key.
    Keygen(keygen::Args),
    /// Prints the host's public key in a published form.
    Showhostkey(showhostkey::Args),
    /// Checks what a stranger sees of a host in DNS.
    Verify(verify::Args),
    /// Generates, checks, compares, publishes and serves zone records.
    Zone(zone::Args),
    /// Prints the commented example configuration.
    Config(config::Args),
}

/// Prints one line about what went wrong; exit code 1.
pub(crate) fn fail(why: &impl std::fmt::Display) -> ExitCode {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "oe-node: {why}");
    ExitCode::FAILURE
}

/// Parses the command line and does what it says.
pub(crate) fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Lab(args) => lab::main(args),
        Command::Run(args) => run::main(args),
        Command::Status(args) => status::main(args),
        Command::Keygen(args) => keygen::main(args),
        Command::Showhostkey(args) => showhostkey::main(args),
        Command::Verify(args) => verify::main(args),
        Command::Zone(args) => zone::main(args),
        Command::Config(args) => config::main(args),
    }
}
