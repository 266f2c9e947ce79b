//! `oe-node zone`: zone records for those who run zones.

use std::process::ExitCode;

use clap::Subcommand;

use crate::zone::{check, generate};

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
}

/// Runs the command.
pub(crate) fn main(args: Args) -> ExitCode {
    match args.command {
        Command::Generate(args) => generate::main(&args),
        Command::Check(args) => check::main(&args),
    }
}
