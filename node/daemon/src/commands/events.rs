//! `oe-node events`: every transition as a JSON line.

use std::process::ExitCode;

use crate::control::{self, Request};

/// Arguments of `oe-node events`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    daemon: super::Daemon,
}

/// Runs the command.
pub(crate) fn main(args: Args) -> ExitCode {
    let listening = args.daemon.socket().and_then(|path| control::put(&path, &Request::Events));
    match listening {
        Ok(mut events) => match std::io::copy(&mut events, &mut std::io::stdout()) {
            // The daemon hung up, or whoever reads us did.
            Ok(_) | Err(_) => ExitCode::SUCCESS,
        },
        Err(error) => super::fail(&format!("{error:#}")),
    }
}
