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
    super::listing(&COLUMNS, peers, |key, peer| match (key, peer.get(key)) {
        ("since_s", seconds) => super::since(seconds),
        (_, value) => super::cell(value),
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_peer_on_a_line() {
        let answer = serde_json::json!({ "peers": [{
            "identity": "192.0.2.12", "gateway": "192.0.2.12", "called_by": "us", "since_s": 1.944,
            "pairs": 1, "key_exchange": "x25519", "speaks_for": ["192.0.2.12"],
        }]});
        let text = super::table(&answer);
        assert!(text.contains("us         2 s    1      x25519"), "{text}");
    }
}
