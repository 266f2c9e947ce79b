//! `oe-node zone publish`: makes a server hold what a file says, by dynamic update.

use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use zonefiles::diff::Change;
use zonefiles::{Name, Record, Rtype};

use super::upstream::{Goal, Upstream};
use super::{files, tsig};

/// Arguments of `oe-node zone publish`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    /// Files with the records. SOA, the NS of the zone itself, and DNSSEC records are the server's
    /// own and are left out.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Remove these records instead.
    #[arg(long)]
    withdraw: bool,
    /// Say what would change, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

/// The server, the zone and the key.
#[derive(clap::Args, Clone)]
pub(crate) struct Target {
    /// The zone's primary server.
    #[arg(long, value_name = "ADDR[:PORT]", value_parser = server)]
    pub(crate) server: SocketAddr,
    /// The zone.
    #[arg(long, value_name = "NAME")]
    pub(crate) zone: Name,
    /// TSIG key: what tsig-keygen prints, or ALGORITHM:NAME:BASE64.
    #[arg(long, value_name = "FILE")]
    pub(crate) tsig: Option<PathBuf>,
}

impl Target {
    pub(crate) fn connect(&self) -> anyhow::Result<Upstream> {
        let tsig = self.tsig.as_deref().map(tsig::read).transpose()?;
        Upstream::connect(self.server, tsig)
    }
}

/// Runs the command.
pub(crate) fn main(args: &Args) -> ExitCode {
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => super::fail_unless_unread("publish", &e),
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    let zone = &args.target.zone;
    let mut records = Vec::new();
    for path in &args.files {
        records.extend(read(path, zone)?);
    }
    let total = records.len();
    let mut upstream = args.target.connect()?;
    let goal = if args.withdraw { Goal::Without } else { Goal::Exactly };
    let plan = upstream.plan(records, goal)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    if args.dry_run {
        for change in &plan.changes {
            writeln!(out, "{change}")?;
        }
    }
    let messages = if args.dry_run { 0 } else { upstream.apply(zone, &plan)? };
    let removed = plan.changes.iter().filter(|c| matches!(c, Change::Remove(_))).count();
    let set = plan.changes.len() - removed;
    let would = if args.dry_run { "would be " } else { "" };
    writeln!(
        out,
        "{zone} at {}: {total} records, {} in place, {set} {would}set, {removed} {would}removed, \
         {messages} messages",
        args.target.server, plan.right
    )?;
    out.flush()?;
    Ok(())
}

/// The records of a file that are the operator's to publish.
pub(crate) fn read(path: &std::path::Path, zone: &Name) -> anyhow::Result<Vec<Record>> {
    let mut records = files::read_zone(path, Some(zone.clone()))?.records;
    if let Some(stray) = records.iter().find(|record| !record.owner.is_within(zone)) {
        anyhow::bail!("{}: {} is not within {zone}", path.display(), stray.owner);
    }
    records.retain(|record| {
        let of_apex = record.owner == *zone && matches!(record.rtype, Rtype::SOA | Rtype::NS);
        !of_apex && !matches!(record.rtype.0, 46 | 47 | 48 | 50 | 51)
    });
    Ok(records)
}

fn server(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let address = text.trim_start_matches('[').trim_end_matches(']');
    let address: IpAddr = address.parse().map_err(|_| "expected ADDR or ADDR:PORT".to_owned())?;
    Ok(SocketAddr::new(address, DNS_PORT))
}

/// RFC 1035 §4.2.
const DNS_PORT: u16 = 53;
