//! `oe-node peers`: the other ends of established IKE SAs.

use std::process::ExitCode;

use serde_json::Value;

use crate::control::Request;

/// Arguments of `oe-node peers`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    daemon: super::Daemon,
    /// Print everything as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn main(args: Args) -> ExitCode {
    let answer = args.daemon.ask(&Request::Peers);
    super::show(answer.map(|a| if args.json { format!("{a:#}\n") } else { table(&a) }))
}

/// Headings, and the keys under them.
const COLUMNS: [(&str, &str); 7] = [
    ("IDENTITY", "identity"),
    ("GATEWAY", "gateway"),
    ("CALLED BY", "called_by"),
    ("SINCE", "since_s"),
    ("PAIRS", "pairs"),
    ("KEY EXCHANGE", "key_exchange"),
    ("SPEAKS FOR", "speaks_for"),
];

fn table(answer: &Value) -> String {
    let none = Vec::new();
    let peers = answer.get("peers").and_then(Value::as_array).unwrap_or(&none);
    super::listing(&COLUMNS, peers, |key, peer| super::cell(peer.get(key)))
}
