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

use crate::figures::{Figures, head};
use crate::ours::{Calls, Keys, Ours, Setting};
use crate::theirs::Theirs;

/// Measures handshakes between two nodes, and between two strongSwans. Needs root.
#[derive(Parser, Debug)]
#[command(name = "handshakes")]
struct Arguments {
    /// Handshakes in each run.
    #[arg(long, default_value_t = 1600, value_name = "N")]
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
    Drive(Calls),
    /// Calls as many strangers would, and measures what that does to others.
    #[command(hide = true)]
    Load(load::Wanted),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.inside {
        Some(Inside::Echo) => ours::echo(),
        Some(Inside::Drive(calls)) => ours::drive(calls),
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

/// One comparison: two strongSwans, and our ways against them. All are up at the same time and work
/// in turn, so that whatever else the machine is busy with hits them alike.
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
    println!("{title}");
    let wanted = |name: &str| name.contains(&arguments.only);
    let mut theirs = match no_strongswan {
        Some(why) => {
            println!("  {STRONGSWAN:<34} skipped: {why}");
            None
        }
        None => wanted(STRONGSWAN).then(|| Theirs::up(bits, peers)).transpose()?,
    };
    let ways = ways(bits, peers, count);
    let ways: Vec<_> = ways.into_iter().filter(|(name, _)| wanted(name)).collect();
    let up = |n: usize, setting: &Setting| Ours::up(&format!("oeh{n}"), setting.clone());
    let mut ours = Vec::new();
    for (n, (_, setting)) in ways.iter().enumerate() {
        ours.push((!setting.resumed).then(|| up(n, setting)).transpose()?);
    }
    let mut sums: Vec<Option<Figures>> = vec![None; ways.len() + 1];
    let add = |sum: &mut Option<Figures>, figures: Figures| {
        *sum = Some(match sum.take() {
            Some(sum) => sum.and(&figures),
            None => figures,
        });
    };
    for _ in 0..ROUNDS {
        if let Some(theirs) = &mut theirs {
            add(&mut sums[0], theirs.measure(count / ROUNDS)?);
        }
        for (n, (_, setting)) in ways.iter().enumerate() {
            let figures = match &mut ours[n] {
                Some(ours) => ours.measure(count / ROUNDS)?,
                // Tickets are not to be had again: two nodes for each round.
                None => up(n, setting)?.measure(setting.peers)?,
            };
            add(&mut sums[n + 1], figures);
        }
    }
    println!("{}", head());
    let mut all = serde_json::Map::new();
    let theirs = sums.remove(0);
    if let Some(theirs) = &theirs {
        println!("{}", theirs.line(STRONGSWAN));
        all.insert(STRONGSWAN.to_owned(), theirs.json());
    }
    for ((name, _), ours) in ways.iter().zip(sums.into_iter().flatten()) {
        println!("{}", ours.line(name));
        let mut json = ours.json();
        if let (Some(theirs), Some(json)) = (&theirs, json.as_object_mut()) {
            let ratio = ours.per_cpu_second() / theirs.per_cpu_second();
            println!("  {:<34} {ratio:.1} times strongSwan's for each CPU second", "");
            json.insert("ratio".to_owned(), ratio.into());
        }
        all.insert((*name).to_owned(), json);
    }
    println!();
    Ok((title, Value::from(all)))
}

/// What of ours is compared. strongSwan has no resumption: ours stands against its full handshake.
fn ways(bits: &str, peers: usize, count: usize) -> [(&'static str, Setting); 7] {
    // One pair of addresses would call again before its last Delete is answered.
    let written = Setting {
        bits: bits.to_owned(),
        peers: peers.max(16),
        keys: Keys::Written,
        post_quantum: false,
        resumed: false,
        datagram: false,
    };
    let dns = Setting { keys: Keys::Dns, ..written.clone() };
    // A ticket is good once, and so many of one key a day: more of them sign again.
    let resumed = Setting { peers: count.min(TICKETS), resumed: true, ..written.clone() };
    [
        ("oe-node, same suite, keys written", written.clone()),
        ("oe-node, and a datagram each way", Setting { datagram: true, ..written }),
        ("oe-node, keys in DNS with DNSSEC", dns.clone()),
        ("oe-node, and with ML-KEM-768", Setting { post_quantum: true, ..dns }),
        ("oe-node, resumed, keys written", resumed.clone()),
        ("oe-node, resumed, and a datagram", Setting { datagram: true, ..resumed.clone() }),
        ("oe-node, resumed, keys in DNS", Setting { keys: Keys::Dns, ..resumed }),
    ]
}

const STRONGSWAN: &str = "strongSwan, keys written";
/// Resumptions of a key that a node remembers.
const TICKETS: usize = 56;
/// Each does a part of its work in each.
const ROUNDS: usize = 8;
