//! `oe-node explain ADDR`: why an address is treated as it is.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::process::ExitCode;

use serde_json::Value;

use crate::control::Request;

/// Arguments of `oe-node explain`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The destination.
    #[arg(value_name = "ADDR")]
    address: IpAddr,
    #[command(flatten)]
    daemon: super::Daemon,
    /// Print everything as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn main(args: Args) -> ExitCode {
    let answer = args.daemon.ask(&Request::Explain { address: args.address });
    super::show(answer.map(|a| if args.json { format!("{a:#}\n") } else { text(&a) }))
}

fn text(answer: &Value) -> String {
    let cell = |value: Option<&Value>| super::cell(value);
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{}", cell(answer.get("address")));
    let place = match answer.get("line").and_then(Value::as_u64) {
        Some(line) => format!("{}, line {line} of its file", cell(answer.get("prefix"))),
        None if answer.get("prefix").is_none_or(Value::is_null) => "no prefix covers it".to_owned(),
        None => format!("{}, by default", cell(answer.get("prefix"))),
    };
    let _ = writeln!(text, "  group        {} ({place})", cell(answer.get("group")));
    let none = Vec::new();
    for event in answer.get("history").and_then(Value::as_array).unwrap_or(&none) {
        let ago = event.get("ago_s").and_then(Value::as_f64).unwrap_or_default();
        let detail = match event.get("detail") {
            Some(Value::Object(details)) => details
                .iter()
                .map(|(key, value)| format!("{key} {}", cell(Some(value))))
                .collect::<Vec<_>>()
                .join(", "),
            _ => String::new(),
        };
        let line = format!("  {ago:>9.1} s ago  {:<12} {detail}", cell(event.get("event")));
        let _ = writeln!(text, "{}", line.trim_end());
    }
    for d in answer.get("destinations").and_then(Value::as_array).unwrap_or(&none) {
        let since = d.get("since_s").and_then(Value::as_f64).unwrap_or_default();
        let _ = write!(text, "  state        {} for {since:.0} s", cell(d.get("state")));
        if let Some(left) = d.get("expires_s").and_then(Value::as_f64) {
            let _ = write!(text, ", looked at again in {left:.0} s");
        }
        let _ = writeln!(text);
        for (label, key) in [
            ("trust", "trust"),
            ("gateway", "gateway"),
            ("identity", "identity"),
            ("because", "reason"),
        ] {
            if d.get(key).is_some_and(|value| !value.is_null() && value != "none") {
                let _ = writeln!(text, "  {label:<12} {}", cell(d.get(key)));
            }
        }
    }
    let _ = writeln!(text, "  next packet  {}", cell(answer.get("next_packet")));
    if let Some(advice) = advice(answer) {
        let _ = writeln!(text, "  to change    {advice}");
    }
    text
}

/// What would get another result.
fn advice(answer: &Value) -> Option<&'static str> {
    let state = answer.pointer("/destinations/0/state").and_then(Value::as_str);
    let reason = answer.pointer("/destinations/0/reason").and_then(Value::as_str).unwrap_or("");
    let group = answer.get("group").and_then(Value::as_str)?;
    match (state, group) {
        (Some("clear-text" | "deny"), "clear" | "block" | "clear-or-private") => {
            Some("put it into another policy group, then oe-node reload")
        }
        (Some("deny"), _) if reason.contains("DNSSEC") => {
            Some("its zone is broken (oe-node verify --ip says where); group clear overrides")
        }
        (Some("clear-text"), _) if reason.contains("no record") => {
            Some("it has to publish a key; group private refuses instead of clear text")
        }
        (Some("clear-text" | "deny"), _) => {
            Some("oe-node verify --ip says what its records lack; oe-node forget tries again")
        }
        (None, "clear") => Some("put it into group private-or-clear or private"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_way_to_a_decision_is_told_in_order() {
        let answer = json!({
            "address": "192.0.2.7", "group": "private-or-clear", "prefix": "0.0.0.0/0", "line": 3,
            "next_packet": "goes in the clear",
            "history": [
                { "ago_s": 12.0, "event": "trapped", "detail": null },
                { "ago_s": 11.9, "event": "dns-answer",
                  "detail": { "name": "7.2.0.192.in-addr.arpa.", "records": 0, "security": "secure" } },
                { "ago_s": 11.9, "event": "clear", "detail": { "reason": "no record in DNS" } },
            ],
            "destinations": [{
                "state": "clear-text", "since_s": 11.9, "expires_s": 288.1, "trust": "none",
                "reason": "no record in DNS", "gateway": null,
            }],
        });
        let text = text(&answer);
        assert!(
            text.contains("group        private-or-clear (0.0.0.0/0, line 3 of its file)"),
            "{text}"
        );
        let order =
            ["trapped", "dns-answer", "clear", "state ", "because", "next packet", "to change"];
        let at: Vec<usize> = order.iter().map(|word| text.find(word).expect(word)).collect();
        assert!(at.iter().skip(1).zip(&at[1..]).all(|(a, b)| a <= b), "{text}");
        assert!(text.contains("records 0, security secure"), "{text}");
        assert!(text.contains("it has to publish a key"), "{text}");
    }
}
