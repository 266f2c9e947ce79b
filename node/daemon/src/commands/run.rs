//! `oe-node run`.

use std::process::ExitCode;

/// Arguments of `oe-node run`.
#[derive(clap::Args)]
pub(crate) struct Args {}

/// Runs the command.
pub(crate) fn main(_args: Args) -> ExitCode {
    ExitCode::FAILURE
}
