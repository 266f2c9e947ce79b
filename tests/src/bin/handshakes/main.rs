//! Handshakes: how many for a second of processor time, beside strongSwan's, in one run on one
//! machine; and what five hundred of them at once do to everybody else.
//!
//! `cargo build --release -p daemon && cargo run --release -p tests --bin handshakes`, as root.
//! Ratios of processor time are what it is about: absolute figures are this machine's. Only the
//! daemons' own time counts, not that of whoever makes them call each other.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a program for people, about measured quantities"
)]

mod figures;
mod load;
mod ours;
mod theirs;
mod vici;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde_json::{Value, json};
use tests::pairbed::PairBed;

use crate::figures::{Figures, head};

/// Measures handshakes between two nodes, and between two strongSwans. Needs root.
#[derive(Parser, Debug)]
#[command(name = "handshakes")]
struct Arguments {
    /// Handshakes in each run.
    #[arg(long, default_value_t = 300, value_name = "N")]
    count: usize,
    /// Lengths of the RSA keys.
    #[arg(long, value_delimiter = ',', default_value = "2048,3072", value_name = "LIST")]
    bits: Vec<String>,
    /// Different peers in the runs with many; 0 leaves them out.
    #[arg(long, default_value_t = 400, value_name = "N")]
    peers: usize,
    /// Handshakes in flight at once while others are to be served; 0 leaves that out.
    #[arg(long, default_value_t = 500, value_name = "N")]
    load: usize,
    /// Write the figures to this file too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(subcommand)]
    inside: Option<Inside>,
}

/// What runs inside a namespace.
#[derive(Subcommand, Debug)]
enum Inside {
    /// Answers datagrams.
    #[command(hide = true)]
    Echo,
    /// Calls and hangs up.
    #[command(hide = true)]
    Drive {
        /// How often.
        count: usize,
        /// Whom, in turn.
        peers: usize,
        /// The node's control socket.
        control: PathBuf,
    },
    /// Calls as many strangers would, and measures what that does to others.
    #[command(hide = true)]
    Load(load::Wanted),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.inside {
        Some(Inside::Echo) => ours::echo(),
        Some(Inside::Drive { count, peers, control }) => ours::drive(*count, *peers, control),
        Some(Inside::Load(wanted)) => load::run(wanted),
        None => measure(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("handshakes: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> io::Result<()> {
    if let Some(why) = tests::missing(&PairBed::NEEDS) {
        println!("skipped: {why}");
        return Ok(());
    }
    let rig = tests::names::rigs().join("strongswan/topo.sh");
    let no_strongswan = tests::missing(&["swanctl", "pki", theirs::CHARON])
        .or_else(|| (!rig.exists()).then(|| format!("no rig: {}", rig.display())));
    let mut all = serde_json::Map::new();
    for bits in &arguments.bits {
        for peers in [1, arguments.peers] {
            if peers == 0 {
                continue;
            }
            let (title, count) = if peers == 1 {
                (format!("RSA-{bits}, one after the other"), arguments.count)
            } else {
                (format!("RSA-{bits}, {peers} different peers"), peers)
            };
            println!("{title}\n{}", head());
            // One pair of addresses would call again before its last Delete is answered.
            let ours = ours::measure(bits, count, peers.max(16))?;
            println!("{}", ours.line("oe-node"));
            let theirs = match &no_strongswan {
                Some(why) => {
                    println!("  strongSwan   skipped: {why}");
                    None
                }
                None => {
                    let theirs = theirs::measure(bits, count, peers)?;
                    println!("{}", theirs.line("strongSwan"));
                    Some(theirs)
                }
            };
            all.insert(title, compare(ours, theirs));
        }
    }
    if arguments.load > 0 {
        let bits = arguments.bits.first().map_or("2048", String::as_str);
        all.insert("load".to_owned(), load::measure(bits, arguments.load)?);
    }
    if let Some(file) = &arguments.json {
        std::fs::write(file, format!("{:#}\n", Value::from(all)))?;
    }
    Ok(())
}

fn compare(ours: Figures, theirs: Option<Figures>) -> Value {
    let Some(theirs) = theirs else { return json!({ "oe-node": ours.json() }) };
    let ratio = ours.per_cpu_second() / theirs.per_cpu_second();
    println!("  {ratio:.1} times as many handshakes for a second of processor time\n");
    json!({ "oe-node": ours.json(), "strongSwan": theirs.json(), "ratio": ratio })
}
