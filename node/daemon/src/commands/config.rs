//! `oe-node config`: the commented example, or a check of a file.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::{Config, EXAMPLE};

/// Arguments of `oe-node config`.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Args {
    /// Print the example, which documents every key.
    #[arg(long)]
    example: bool,
    /// Read a configuration and its policy groups, and say what is wrong with them.
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn main(args: Args) -> ExitCode {
    let Some(file) = args.check else {
        let written = std::io::stdout().write_all(EXAMPLE.as_bytes());
        return written.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    };
    match Config::load(Some(&file)).and_then(|config| config.groups()) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => super::fail(&error),
    }
}
