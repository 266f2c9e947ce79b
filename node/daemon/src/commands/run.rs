//! `oe-node run`: the daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::Config;
use crate::hostkey;

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
        Err(error) => super::fail(&format!("{error:#}{}", leave(&error))),
    }
}

/// What may be missing if something was not permitted.
fn leave(error: &anyhow::Error) -> &'static str {
    let denied = |cause: &(dyn std::error::Error + 'static)| {
        let io = cause.downcast_ref::<std::io::Error>();
        io.is_some_and(|io| io.kind() == std::io::ErrorKind::PermissionDenied)
    };
    if error.chain().any(denied) && !hostkey::own_uid().is_ok_and(|uid| uid == 0) {
        return "; it runs as root, or with what the unit of `oe-node config --systemd` gives it";
    }
    ""
}
