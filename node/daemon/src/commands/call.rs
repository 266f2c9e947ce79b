//! `oe-node call ADDR`: agree on keys with an address now, and say what came of it.

use std::net::IpAddr;
use std::process::ExitCode;

use serde_json::Value;

use crate::control::Request;

/// Arguments of `oe-node call`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The destination.
    #[arg(value_name = "ADDR", value_parser = super::address)]
    address: IpAddr,
    /// Call for this address: another one of this host, or that of a host behind it which it serves.
    /// Without it, the one that the kernel would send from.
    #[arg(long, value_name = "ADDR", value_parser = super::address)]
    from: Option<IpAddr>,
    #[command(flatten)]
    shown: super::Shown,
}

/// Runs the command.
pub(crate) fn main(args: Args) -> ExitCode {
    let request = Request::Call { address: args.address, source: args.from };
    let answer = match args.shown.daemon.ask(&request) {
        Ok(answer) => answer,
        Err(error) => return super::fail(&format!("{error:#}")),
    };
    let outcome = answer.get("outcome").and_then(Value::as_str).unwrap_or_default();
    if outcome == "held" {
        super::warn(&["nothing is decided yet; `oe-node events` shows what comes".to_owned()]);
    }
    let shown = super::explain::show(&args.shown, args.address);
    if outcome == "encrypted" { shown } else { ExitCode::FAILURE }
}
