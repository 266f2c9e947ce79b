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
use serde_json::Value;
use tests::pairbed::PairBed;

use crate::figures::head;
use crate::ours::{Keys, Setting};

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
    /// Only ways of which the name contains this.
    #[arg(long, default_value = "", value_name = "TEXT")]
    only: String,
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
            if peers > 0 {
                let (title, figures) = series(arguments, bits, peers, no_strongswan.as_deref())?;
                all.insert(title, figures);
            }
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

/// One comparison: a strongSwan, and our ways against it.
fn series(
    arguments: &Arguments,
    bits: &str,
    peers: usize,
    no_strongswan: Option<&str>,
) -> io::Result<(String, Value)> {
    let (title, count) = match peers {
        1 => (format!("RSA-{bits}, one peer again and again"), arguments.count),
        _ => (format!("RSA-{bits}, {peers} different peers"), peers),
    };
    println!("{title}\n{}", head());
    let unwanted = (!STRONGSWAN.contains(&arguments.only)).then_some("not asked for");
    let theirs = match no_strongswan.or(unwanted) {
        Some(why) => {
            println!("  {:<34} skipped: {why}", STRONGSWAN);
            None
        }
        None => {
            let theirs = theirs::measure(bits, count, peers)?;
            println!("{}", theirs.line(STRONGSWAN));
            Some(theirs)
        }
    };
    let mut all = serde_json::Map::new();
    if let Some(theirs) = &theirs {
        all.insert(STRONGSWAN.to_owned(), theirs.json());
    }
    // One pair of addresses would call again before its last Delete is answered.
    let setting = Setting {
        bits,
        count,
        peers: peers.max(16),
        keys: Keys::Written,
        post_quantum: false,
        resumed: false,
    };
    let ways = [
        ("oe-node, same suite, keys written", setting),
        ("oe-node, keys in DNS with DNSSEC", Setting { keys: Keys::Dns, ..setting }),
        (
            "oe-node, and with ML-KEM-768",
            Setting { keys: Keys::Dns, post_quantum: true, ..setting },
        ),
        ("oe-node, resumed, keys written", Setting { peers: count, resumed: true, ..setting }),
        (
            "oe-node, resumed, keys in DNS",
            Setting { peers: count, resumed: true, keys: Keys::Dns, ..setting },
        ),
    ];
    for (name, setting) in ways {
        if !name.contains(&arguments.only) {
            continue;
        }
        let ours = ours::measure(setting)?;
        println!("{}", ours.line(name));
        let mut json = ours.json();
        if let (Some(theirs), Some(json)) = (&theirs, json.as_object_mut()) {
            let ratio = ours.per_cpu_second() / theirs.per_cpu_second();
            println!("  {:<34} {ratio:.1} times strongSwan's for each CPU second", "");
            json.insert("ratio".to_owned(), ratio.into());
        }
        all.insert(name.to_owned(), json);
    }
    println!();
    Ok((title, Value::from(all)))
}

const STRONGSWAN: &str = "strongSwan, keys written";
