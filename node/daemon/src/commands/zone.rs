//! `oe-node zone`: zone records for those who run zones.

use std::process::ExitCode;

use clap::Subcommand;

use crate::zone::{check, diff, generate, publish, rollover, serving};

/// Arguments of `oe-node zone`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Writes the records of every address of a prefix, or of a customer list.
    Generate(Box<generate::Args>),
    /// Says what peers would reject in a zone file.
    Check(check::Args),
    /// Says what changed between two versions of a zone.
    Diff(diff::Args),
    /// Makes a server hold what a file says (RFC 2136).
    Publish(publish::Args),
    /// Replaces a published key without anybody noticing.
    Rollover(rollover::Args),
    /// Serves zone files, signing them.
    Serve(serving::Args),
}

/// Runs the command.
pub(crate) fn main(args: Args) -> ExitCode {
    match args.command {
        Command::Generate(args) => generate::main(&args),
        Command::Check(args) => check::main(&args),
        Command::Diff(args) => diff::main(&args),
        Command::Publish(args) => publish::main(&args),
        Command::Rollover(args) => rollover::main(&args),
        Command::Serve(args) => serving::main(&args),
    }
}
