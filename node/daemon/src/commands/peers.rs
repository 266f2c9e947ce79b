//! `oe-node peers`: the other ends of established IKE SAs.

use std::process::ExitCode;

use serde_json::Value;

use crate::control::Request;

/// Arguments of `oe-node peers`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    shown: super::Shown,
}

/// Runs the command.
pub(crate) fn main(args: Args) -> ExitCode {
    args.shown.show(&Request::Peers, table)
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
