//! `oe-node lab`.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::lab::{self, MOST_NODES, Options, Refusal, Scenario};

/// Arguments of `oe-node lab`.
#[derive(clap::Args)]
#[command(after_long_help = LONG_HELP)]
pub(crate) struct Args {
    /// Instead, a full mesh of N nodes in which all talk to all at once.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(2..=i64::from(MOST_NODES)))]
    nodes: Option<u8>,
    /// Instead, a worked example with its own small internet.
    #[arg(long, value_enum, value_name = "NAME", conflicts_with = "nodes")]
    scenario: Option<Scenario>,
    /// Prints the result as JSON.
    #[arg(long)]
    json: bool,
    /// Writes all captured packets to FILE, for tcpdump and Wireshark.
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// Stays up afterwards, and says how to enter the namespaces.
    #[arg(long)]
    keep: bool,
}

/// Runs the command.
pub(crate) fn main(args: Args) -> ExitCode {
    // Opened first: the lab has a file system of its own.
    let pcap = match args.pcap.as_ref().map(File::create).transpose() {
        Ok(pcap) => pcap,
        Err(error) => {
            let path = args.pcap.unwrap_or_default();
            return fail(&format!("cannot write {}: {error}", path.display()), 1);
        }
    };
    let Args { nodes, scenario, json, keep, .. } = args;
    match lab::run(Options { nodes, scenario, json, pcap, keep }) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) if error.is::<Refusal>() => fail(&error.to_string(), 2),
        Err(error) if super::is_unread(&error) => ExitCode::FAILURE,
        Err(error) => fail(&format!("{error:#}"), 1),
    }
}

fn fail(message: &str, code: u8) -> ExitCode {
    // Nobody to tell if even stderr is gone.
    let _ = writeln!(io::stderr(), "oe-node lab: {message}");
    ExitCode::from(code)
}

const LONG_HELP: &str = "\
Builds a small internet from network namespaces on this machine: a host that serves signed reverse
zones, two opportunistic nodes that have never heard of each other, a host that publishes nothing,
and one whose record fails validation. Sends real traffic, captures the wire, and shows what
happened when, and what the capture proves. Nothing of the machine's own network is touched, and
nothing is left behind.

Runs as root, or as anybody where unprivileged user namespaces are allowed.

Exit status: 0 if everything held, 1 if something did not, 2 if a permission is missing.";
