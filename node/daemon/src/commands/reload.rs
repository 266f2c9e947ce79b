//! `oe-node reload`: read the policy groups anew.

use std::process::ExitCode;

use crate::control::Request;

/// Arguments of `oe-node reload`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    daemon: super::Daemon,
}

/// Runs the command.
pub(crate) fn main(args: Args) -> ExitCode {
    let answer = args.daemon.ask(&Request::Reload);
    super::show(answer.map(|done| {
        let count = |key: &str| super::cell(done.get(key));
        format!(
            "{} prefixes changed, {} removed, {} flows start anew\n",
            count("changed"),
            count("removed"),
            count("flows")
        )
    }))
}
