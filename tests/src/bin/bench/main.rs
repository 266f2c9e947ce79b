//! How fast it is, beside others, in one run on one machine.
//!
//! Every contender gets two network namespaces joined by a cable and is brought up once; then all
//! are measured in turn, again and again, so that whatever else the machine does hits all alike.
//! What is printed are medians with their spread, and the ratios that the project holds itself to.
//! Absolute figures are this machine's and this hour's; the ratios carry over.
//!
//! `cargo build --release -p daemon && cargo run --release -p tests --bin bench`, as root. What
//! cannot run here is listed as skipped, and why.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a program for people, about measured quantities"
)]

// The daemon's packet thread, taken in by path, says `forwarding`, and finds the one with the cipher
// that does nothing.
extern crate unsealed as forwarding;

mod chart;
mod contender;
mod figure;
mod load;
mod measure;
mod others;
mod ours;
mod plane;
mod report;
mod site;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::contender::Contender;
use crate::figure::Figure;
use crate::report::Report;

/// Measures oe-node beside others on this machine, in network namespaces. Needs root.
#[derive(Parser, Debug)]
#[command(name = "bench")]
struct Arguments {
    /// Who takes part; everybody if not given.
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pairs: Vec<Contender>,
    /// What is measured; everything if not given.
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    figures: Vec<Figure>,
    /// Length of one measurement.
    #[arg(long, default_value_t = 2.0, value_name = "N")]
    seconds: f64,
    /// Rounds; in each, everybody is measured once.
    #[arg(long, default_value_t = 3, value_name = "N")]
    repeats: usize,
    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,
    /// Where bench.json and the charts go.
    #[arg(long, default_value = "target/bench", value_name = "DIRECTORY")]
    out: PathBuf,
    #[command(subcommand)]
    inside: Option<Inside>,
}

/// What this program does for itself, inside a namespace.
#[derive(clap::Subcommand, Debug)]
enum Inside {
    /// Makes or takes traffic.
    #[command(hide = true, subcommand)]
    Load(load::Load),
    /// Runs the packet thread of oe-node alone, with keys that everybody knows.
    #[command(hide = true)]
    Plane(plane::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.inside {
        Some(Inside::Load(load)) => load.run().map_err(Into::into),
        Some(Inside::Plane(plane)) => plane::run(plane),
        None => bench(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench(arguments: &Arguments) -> anyhow::Result<()> {
    if let Some(why) = tests::missing(&["ip", "ping", "sysctl", "/dev/net/tun"]) {
        anyhow::bail!("{why}");
    }
    let wanted: &[Contender] =
        if arguments.pairs.is_empty() { &Contender::ALL } else { &arguments.pairs };
    let figures: &[Figure] =
        if arguments.figures.is_empty() { &Figure::ALL } else { &arguments.figures };
    let length = Duration::from_secs_f64(arguments.seconds.max(0.2));
    let mut report = Report::default();
    let mut ready = Vec::new();
    for contender in wanted {
        eprint!("{}: ", contender.name());
        match contender.up() {
            Ok(up) => {
                eprintln!("ready");
                ready.push((*contender, up));
            }
            Err(why) => {
                eprintln!("skipped: {why:#}");
                report.skip(*contender, format!("{why:#}"));
            }
        }
    }
    for round in 1..=arguments.repeats {
        for figure in figures {
            for (contender, up) in &ready {
                if !figure.is_measured_for(*contender) {
                    continue;
                }
                match measure::figure(*figure, up, length) {
                    Ok(values) => {
                        for (figure, value) in values {
                            report.add(*contender, figure, value);
                        }
                    }
                    Err(why) => {
                        eprintln!("{}, {}: {why:#}", contender.name(), figure.title());
                        report.fail(*contender, *figure, format!("{why:#}"));
                    }
                }
            }
        }
        eprintln!("round {round} of {} done", arguments.repeats);
    }
    // Whoever is still needed to answer a signal is answered before the tables.
    drop(ready);
    report.save(&arguments.out)?;
    chart::draw(&report, &arguments.out)?;
    if arguments.json {
        println!("{:#}", report.json());
    } else {
        print!("{}", report.text());
    }
    Ok(())
}
