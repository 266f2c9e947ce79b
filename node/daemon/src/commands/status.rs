//! `oe-node status`: what the daemon knows of each destination.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::Value;

use crate::config::Config;
use crate::control::{self, Request};

/// Arguments of `oe-node status`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Configuration file, for the control socket's place.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print everything as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn main(args: Args) -> ExitCode {
    let config = match Config::load(args.config.as_deref()) {
        Ok(config) => config,
        Err(error) => return super::fail(&error),
    };
    let answer = match control::ask(&config.node.control_socket, &Request::Status) {
        Ok(answer) => answer,
        Err(error) => return super::fail(&format!("{error:#}")),
    };
    let text = if args.json { format!("{answer:#}\n") } else { table(&answer) };
    let written = std::io::stdout().write_all(text.as_bytes());
    written.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
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

fn table(answer: &Value) -> String {
    let none = Vec::new();
    let destinations = answer.get("destinations").and_then(Value::as_array).unwrap_or(&none);
    let mut rows: Vec<Vec<String>> = vec![COLUMNS.iter().map(|c| c.0.to_owned()).collect()];
    for destination in destinations {
        let cell = |key: &str| match destination.get(key) {
            None | Some(Value::Null) => "-".to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            Some(other) => other.to_string(),
        };
        rows.push(
            COLUMNS
                .iter()
                .map(|(_, key)| match *key {
                    "since_s" => {
                        let seconds = destination.get(*key).and_then(Value::as_f64);
                        format!("{:.0} s", seconds.unwrap_or_default())
                    }
                    key => cell(key),
                })
                .collect(),
        );
    }
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    if destinations.is_empty() {
        text.push_str("no destination has been talked to yet\n");
    }
    if let Some(counters) = answer.pointer("/counters/keying").and_then(Value::as_object) {
        let shown: Vec<String> = counters
            .iter()
            .filter(|(_, value)| value.as_u64() != Some(0))
            .map(|(name, value)| format!("{} {value}", name.replace('_', "-")))
            .collect();
        text.push_str(&format!("\n{}\n", shown.join(", ")));
    }
    text
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
            ],
            "counters": { "keying": { "trapped": 2, "calls": 1, "clear": 0 } },
        });
        let text = table(&answer);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("DESTINATION   GROUP             STATE"), "{text}");
        assert!(lines[1].contains("keyed  dnssec  192.0.2.12  12 s"), "{text}");
        assert!(lines[2].ends_with("no key record in DNS"), "{text}");
        assert!(text.contains("calls 1, trapped 2") && !text.contains("clear 0"), "{text}");
    }
}
