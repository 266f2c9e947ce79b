//! `oe-node verify`: what a stranger sees of a host, or whether this machine is in order.

use std::io::{self, IsTerminal as _, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context as _, bail};
use serde::Serialize;

use crate::config::{self, Config};
use crate::hostkey;
use crate::resolver::{Resolver, ResolverConfig};
use crate::verify::crowd::Subject;
use crate::verify::gather::Wanted;
use crate::verify::judge::Against;
use crate::verify::report::{Report, Verdict};
use crate::verify::{crowd, machine};

/// Arguments of `oe-node verify`.
#[derive(clap::Args)]
#[command(
    after_help = "Without --host, --ip or --hosts this machine is checked, which takes root.\n\
    Exit status: 0 all well, 1 a check failed, 2 something could not be checked."
)]
pub(crate) struct Args {
    /// Check this name, its addresses and their gateways.
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,
    /// Check this address and its gateways.
    #[arg(long, value_name = "ADDR", value_parser = super::address)]
    ip: Vec<IpAddr>,
    /// Check every name or address in this file, one on a line, many at once ("-" for standard
    /// input).
    #[arg(long, value_name = "FILE", conflicts_with_all = ["host", "ip"])]
    hosts: Option<PathBuf>,
    /// Call the gateways, too: one IKE_SA_INIT each.
    #[arg(long)]
    probe: bool,
    /// The key that the host itself has, to compare with the published one (PEM).
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Ask this resolver instead of the configured ones.
    #[arg(long, value_name = "ADDR[:PORT]")]
    resolver: Vec<config::Resolver>,
    /// Where trust starts: DNSKEY or DS lines in master-file form.
    #[arg(long, value_name = "FILE")]
    trust_anchor: Option<PathBuf>,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
    /// Use colour even if this is no terminal.
    #[arg(long, visible_alias = "color", overrides_with = "nocolour")]
    colour: bool,
    /// Use no colour.
    #[arg(long, visible_alias = "nocolor")]
    nocolour: bool,
    /// Configuration file [default: /etc/oe-node/oe-node.toml if it exists].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Everything in one document.
#[derive(Serialize)]
struct Document<'a> {
    verdict: Verdict,
    reports: &'a [Report],
}

/// Runs the command: 0 all well, 1 a check failed, 2 could not check.
pub(crate) fn main(args: Args) -> ExitCode {
    match run(&args) {
        Ok(Verdict::Well) => ExitCode::SUCCESS,
        Ok(Verdict::Failed) => ExitCode::from(1),
        Ok(Verdict::CouldNotCheck) => ExitCode::from(2),
        Err(error) if super::is_unread(&error) => ExitCode::from(2),
        Err(error) => {
            let _ = writeln!(io::stderr(), "oe-node verify: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> anyhow::Result<Verdict> {
    let config = Config::load(args.config.as_deref())?;
    let machine = args.host.is_empty() && args.ip.is_empty() && args.hosts.is_none();
    if machine && hostkey::own_uid()? != 0 {
        bail!("to check this machine, run it as root");
    }
    let names = args
        .host
        .iter()
        // An address is told from a name.
        .map(|text| text.parse::<Subject>().with_context(|| format!("--host {text}")))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let resolver = Arc::new(resolver(args, &config)?);
    let wanted = Wanted {
        servers: args.hosts.is_none(),
        probe: args.probe,
        mark: usable(config.node.mark),
        host_key: args.key_file.as_deref().map(hostkey::load_public).transpose()?,
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let against = Against { rules: config.rules(), now };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        if let Some(file) = &args.hosts {
            return crowd(args, file, &resolver, &wanted, &against).await;
        }
        let mut reports = Vec::new();
        for subject in names.into_iter().chain(args.ip.iter().copied().map(Subject::Address)) {
            reports.push(crowd::one(&resolver, subject, &wanted, &against).await);
        }
        if machine {
            let facts = machine::gather(&config, &resolver, wanted).await;
            reports.extend(machine::judge(&facts, &against));
        }
        print(args, &reports)
    })
}

fn resolver(args: &Args, config: &Config) -> anyhow::Result<Resolver> {
    let given = if args.resolver.is_empty() { &config.dns.resolvers } else { &args.resolver };
    Ok(Resolver::new(&ResolverConfig {
        servers: given.iter().map(|resolver| resolver.0).collect(),
        trust_anchors: args.trust_anchor.clone().or_else(|| config.dns.trust_anchors.clone()),
        mark: usable(config.node.mark),
    })?)
}

/// The mark that takes our packets past this machine's own trap, if we may set it.
fn usable(mark: u32) -> Option<u32> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).ok()?;
    socket.set_mark(mark).ok().map(|()| mark)
}

fn print(args: &Args, reports: &[Report]) -> anyhow::Result<Verdict> {
    let verdict = reports.iter().map(|report| report.verdict).max().unwrap_or(Verdict::Well);
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&Document { verdict, reports })?)?;
    } else {
        let colour = colour(args);
        for (at, report) in reports.iter().enumerate() {
            if at > 0 {
                writeln!(out)?;
            }
            report.print(&mut out, colour)?;
        }
    }
    Ok(verdict)
}

fn colour(args: &Args) -> bool {
    args.colour || (!args.nocolour && io::stdout().is_terminal())
}

/// Many hosts at once: what is wrong in brief, and a summary.
async fn crowd(
    args: &Args,
    file: &Path,
    resolver: &Arc<Resolver>,
    wanted: &Wanted,
    against: &Against,
) -> anyhow::Result<Verdict> {
    let subjects = crowd::read(file)?;
    let reports = crowd::check(subjects, resolver, wanted, against).await;
    if args.json {
        return print(args, &reports);
    }
    let mut out = io::stdout().lock();
    for report in reports.iter().filter(|report| report.verdict != Verdict::Well) {
        crowd::brief(report).print(&mut out, colour(args))?;
    }
    writeln!(out, "{}", crowd::summary(&reports))?;
    Ok(reports.iter().map(|report| report.verdict).max().unwrap_or(Verdict::Well))
}
