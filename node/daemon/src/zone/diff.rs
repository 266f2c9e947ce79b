//! `oe-node zone diff`: what changed between two versions of a zone.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use zonefiles::Name;
use zonefiles::diff::{Change, Ignore, diff};
use zonefiles::update::nsupdate;

use super::files;

/// Arguments of `oe-node zone diff`.
#[derive(clap::Args)]
#[command(after_help = "Exit status: 0 no difference, 1 differences, 2 that cannot be told.")]
pub(crate) struct Args {
    /// The old version.
    #[arg(value_name = "OLD")]
    old: PathBuf,
    /// The new version.
    #[arg(value_name = "NEW")]
    new: PathBuf,
    /// Origin of relative names before the first $ORIGIN, and of fragments.
    #[arg(long, value_name = "NAME")]
    origin: Option<Name>,
    /// Print a script for nsupdate that makes the new version from the old one.
    #[arg(long)]
    nsupdate: bool,
    /// Another serial number is a difference.
    #[arg(long)]
    serial: bool,
    /// Signatures and what else signing makes are differences.
    #[arg(long)]
    dnssec: bool,
}

/// Runs the command: exit status 0 if the versions are the same, 1 if they differ, 2 if that cannot
/// be told.
pub(crate) fn main(args: &Args) -> ExitCode {
    match run(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(e) => {
            super::fail_unless_unread("diff", &e);
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> anyhow::Result<bool> {
    let old = files::read_zone(&args.old, args.origin.clone())?;
    let new = files::read_zone(&args.new, args.origin.clone())?;
    if old.origin != new.origin {
        bail!("different zones: {} and {}", old.origin, new.origin);
    }
    let ignore = Ignore { serial: !args.serial, dnssec: !args.dnssec };
    let changes = diff(&old, &new, ignore);
    let mut out = io::BufWriter::new(io::stdout().lock());
    if args.nsupdate {
        if !changes.is_empty() {
            out.write_all(nsupdate(&new.origin, &changes).as_bytes())?;
        }
    } else {
        for change in &changes {
            writeln!(out, "{change}")?;
        }
        let count = |wanted: fn(&Change) -> bool| changes.iter().filter(|c| wanted(c)).count();
        let added = count(|c| matches!(c, Change::Add(_)));
        let removed = count(|c| matches!(c, Change::Remove(_)));
        let ttl = changes.len() - added - removed;
        if !changes.is_empty() {
            writeln!(out, "; {added} added, {removed} removed, {ttl} with another TTL")?;
        }
    }
    out.flush()?;
    Ok(changes.is_empty())
}
