//! `oe-node status`: what the daemon knows of each destination.

use std::process::ExitCode;

use serde_json::Value;

use crate::control::Request;

/// Arguments of `oe-node status`.
#[derive(clap::Args)]
#[command(
    after_help = "A destination is called downgraded for as long as it has been in the clear although \
                  it can be encrypted to, as far as anybody knows: its records name a gateway, or it \
                  had a pair before, and something fails or does not answer. That is what somebody \
                  who drops UDP 500 and 4500 or DNS looks like, and what an outage looks like."
)]
pub(crate) struct Args {
    #[command(flatten)]
    shown: super::Shown,
}

/// Runs the command.
pub(crate) fn main(args: Args) -> ExitCode {
    args.shown.show(&Request::Status, table)
}

/// The columns a person wants, in this order.
const COLUMNS: [(&str, &str); 9] = [
    ("DESTINATION", "destination"),
    ("GROUP", "group"),
    ("STATE", "state"),
    ("TRUST", "trust"),
    ("GATEWAY", "gateway"),
    ("SINCE", "since_s"),
    ("IN", "bytes_in"),
    ("OUT", "bytes_out"),
    ("WHY", "reason"),
];

/// The same of connections.
const CONNECTION_COLUMNS: [(&str, &str); 9] = [
    ("CONNECTION", "name"),
    ("STATE", "state"),
    ("GATEWAY", "gateway"),
    ("MODE", "mode"),
    ("SINCE", "since_s"),
    ("IN", "bytes_in"),
    ("OUT", "bytes_out"),
    ("SUBNETS", "subnets"),
    ("WHY", "reason"),
];

/// The same of addresses of the pool.
const LEASE_COLUMNS: [(&str, &str); 3] =
    [("LENT", "address"), ("TO", "identity"), ("USED", "used")];

fn column(key: &str, object: &Value) -> String {
    match (key, object.get(key)) {
        ("since_s", seconds) => super::since(seconds),
        ("reason", why) => match object.get("downgraded_since_s").and_then(Value::as_f64) {
            Some(since) => format!("{}; downgraded for {since:.0} s", super::cell(why)),
            None => super::cell(why),
        },
        (_, Some(Value::Array(list))) => {
            let cells: Vec<String> = list.iter().map(|one| super::cell(Some(one))).collect();
            cells.join(", ")
        }
        (_, value) => super::cell(value),
    }
}

fn table(answer: &Value) -> String {
    let none = Vec::new();
    let destinations = answer.get("destinations").and_then(Value::as_array).unwrap_or(&none);
    let connections = answer.get("connections").and_then(Value::as_array).unwrap_or(&none);
    let mut text = String::new();
    if !connections.is_empty() {
        text.push_str(&super::listing(&CONNECTION_COLUMNS, connections, column));
        text.push('\n');
    }
    text.push_str(&super::listing(&COLUMNS, destinations, column));
    if destinations.is_empty() {
        text.push_str("no destination has been talked to yet\n");
    }
    text.push_str(&downgraded(answer));
    text.push_str(&steering(answer));
    let leases = answer.get("leases").and_then(Value::as_array).unwrap_or(&none);
    if !leases.is_empty() {
        text.push('\n');
        text.push_str(&super::listing(&LEASE_COLUMNS, leases, column));
    }
    let word = |at| answer.pointer(at).and_then(Value::as_str);
    if let (Some(backend), Some(by)) = (word("/plane/backend"), word("/plane/cryptography")) {
        text.push_str(&format!("\nbackend {backend}, cryptography {by}\n"));
    }
    for (what, at) in [("keying", "/counters/keying"), ("packets", "/counters/plane")] {
        if let Some(counters) = answer.pointer(at).and_then(Value::as_object) {
            text.push_str(&counted(what, counters));
        }
    }
    text
}

/// How many destinations are kept in the clear, on a line.
fn downgraded(answer: &Value) -> String {
    let count = answer.pointer("/downgraded/destinations").and_then(Value::as_u64);
    let since = answer.pointer("/downgraded/since_s").and_then(Value::as_f64);
    let (Some(count), Some(since)) = (count, since) else { return String::new() };
    format!(
        "\n{count} in the clear that can be encrypted to, as far as anybody knows; the first for \
         {since:.0} s\n"
    )
}

/// Rules of others that come before ours.
fn steering(answer: &Value) -> String {
    let rules = answer.get("rules_before_ours").and_then(Value::as_array).into_iter().flatten();
    let lines = rules.map(|rule| format!("  {}\n", super::cell(Some(rule))));
    let lines: String = lines.collect();
    if lines.is_empty() {
        return lines;
    }
    format!(
        "\nrouting rules of others come before ours, and what they match goes past us:\n{lines}"
    )
}

/// What is not zero, on one line.
fn counted(what: &str, counters: &serde_json::Map<String, Value>) -> String {
    let shown: Vec<String> = counters
        .iter()
        .filter(|(_, value)| value.as_u64() != Some(0))
        .map(|(name, value)| format!("{} {value}", name.replace('_', "-")))
        .collect();
    if shown.is_empty() { String::new() } else { format!("{what}: {}\n", shown.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_table_is_for_people() {
        let answer = json!({
            "destinations": [
                { "destination": "192.0.2.12", "group": "private-or-clear", "state": "keyed",
                  "trust": "dnssec", "gateway": "192.0.2.12", "since_s": 12.4, "bytes_in": 840,
                  "bytes_out": 84, "reason": null },
                { "destination": "198.51.100.7", "group": "private", "state": "deny",
                  "trust": "none", "gateway": null, "since_s": 0.2, "bytes_in": 0, "bytes_out": 0,
                  "reason": "no key record in DNS" },
                { "destination": "198.51.100.8", "group": "private-or-clear",
                  "state": "clear-text", "trust": "none", "gateway": null, "since_s": 0.2,
                  "bytes_in": 0, "bytes_out": 0, "reason": "gateway did not answer",
                  "downgraded_since_s": 90.2 },
            ],
            "downgraded": { "destinations": 1, "since_s": 90.2 },
            "rules_before_ours": ["ip rule: 100: from 10.1.0.0/16 lookup 77"],
            "leases": [
                { "address": "10.99.0.1", "identity": "@alice.example", "used": true },
            ],
            "plane": { "backend": "userspace", "cryptography": "aws-lc" },
            "counters": {
                "keying": { "trapped": 2, "calls": 1, "clear": 0 },
                "plane": { "sealed": 7, "path_narrowed": 1, "replayed": 0 },
            },
        });
        let text = table(&answer);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("DESTINATION   GROUP             STATE"), "{text}");
        assert!(lines[1].contains("keyed       dnssec  192.0.2.12  12 s"), "{text}");
        assert!(lines[2].ends_with("no key record in DNS"), "{text}");
        assert!(lines[3].ends_with("gateway did not answer; downgraded for 90 s"), "{text}");
        assert!(lines[5].starts_with("1 in the clear that can be encrypted to"), "{text}");
        assert!(text.contains("10.99.0.1  @alice.example  true"), "{text}");
        assert!(text.contains("goes past us:\n  ip rule: 100: from 10.1.0.0/16"), "{text}");
        assert!(text.contains("calls 1, trapped 2") && !text.contains("clear 0"), "{text}");
        assert!(text.contains("packets: path-narrowed 1, sealed 7\n"), "{text}");
        assert!(text.contains("backend userspace, cryptography aws-lc\n"), "{text}");
    }
}
