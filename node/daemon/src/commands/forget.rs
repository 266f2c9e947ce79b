//! `oe-node forget ADDR`: close what there is with an address.

use std::net::IpAddr;
use std::process::ExitCode;

use crate::control::Request;

/// Arguments of `oe-node forget`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The destination, or a host behind us whose record is to be asked for again.
    #[arg(value_name = "ADDR", value_parser = super::address)]
    address: IpAddr,
    #[command(flatten)]
    daemon: super::Daemon,
}

/// Runs the command.
pub(crate) fn main(args: Args) -> ExitCode {
    let answer = args.daemon.ask(&Request::Forget { address: args.address });
    super::show(answer.map(|_| String::new()))
}
