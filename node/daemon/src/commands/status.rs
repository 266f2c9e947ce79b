//! `oe-node status`.

use std::process::ExitCode;

/// Arguments of `oe-node status`.
#[derive(clap::Args)]
pub(crate) struct Args {}

/// Runs the command.
pub(crate) fn main(_args: Args) -> ExitCode {
    ExitCode::FAILURE
}
