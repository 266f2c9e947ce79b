//! `oe-node run`: the daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::Config;

/// Arguments of `oe-node run`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Configuration file [default: /etc/oe-node/oe-node.toml if it exists].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn main(args: Args) -> ExitCode {
    let config = match Config::load(args.config.as_deref()) {
        Ok(config) => config,
        Err(error) => return super::fail(&error),
    };
    match crate::run::run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => super::fail(&format!("{error:#}")),
    }
}
