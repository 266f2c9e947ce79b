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
    #[arg(value_name = "ADDR", value_parser = super::address)]
    address: IpAddr,
    #[command(flatten)]
    shown: super::Shown,
}

/// Runs the command.
pub(crate) fn main(args: Args) -> ExitCode {
    show(&args.shown, args.address)
}

/// Explains an address.
pub(super) fn show(shown: &super::Shown, address: IpAddr) -> ExitCode {
    shown.show(&Request::Explain { address }, text)
}

fn text(answer: &Value) -> String {
    let mut text = String::new();
    line(&mut text, "", &super::cell(answer.get("address")));
    line(&mut text, "group", &group(answer));
    for rule in list(answer, "port_rules") {
        let ports = format!(
            "protocol {}, ports {} to {}",
            super::cell(rule.get("protocol")),
            port(rule.get("source_port")),
            port(rule.get("destination_port"))
        );
        let said = format!("{} for {ports}{}", super::cell(rule.get("group")), place(rule));
        line(&mut text, "but", &said);
    }
    if answer.get("connection").is_some_and(|name| !name.is_null()) {
        line(&mut text, "connection", &super::cell(answer.get("connection")));
    }
    for said in list(answer, "dns") {
        let left = number(said, "ttl_left_s");
        let said = ["name", "outcome", "security"].map(|key| super::cell(said.get(key)));
        let [name, outcome, security] = said;
        line(&mut text, "dns", &format!("{name}: {outcome}, {security}, {left:.0} s left"));
    }
    for own in list(answer, "own_record") {
        let said = ["address", "lacks"].map(|key| super::cell(own.get(key)));
        line(&mut text, "our record", &said.join(": "));
    }
    for call in list(answer, "gateways") {
        let ended = call.get("ended").and_then(Value::as_str).unwrap_or("called");
        line(&mut text, "gateway", &format!("{}: {ended}", super::cell(call.get("gateway"))));
    }
    for event in list(answer, "history") {
        let name = super::cell(event.get("event"));
        let said = format!("{:>9.1} s ago  {name:<14} {}", number(event, "ago_s"), detail(event));
        text.push_str(&format!("  {}", said.trim_end()));
        text.push('\n');
    }
    for destination in list(answer, "destinations") {
        state(&mut text, destination);
    }
    line(&mut text, "next packet", &super::cell(answer.get("next_packet")));
    if let Some(advice) = answer.get("advice").and_then(Value::as_str) {
        line(&mut text, "to change", advice);
    }
    text
}

fn line(text: &mut String, label: &str, said: &str) {
    // Writing to a string cannot fail.
    let _ = match label {
        "" => writeln!(text, "{said}"),
        _ => writeln!(text, "  {label:<12} {said}"),
    };
}

fn list<'a>(object: &'a Value, member: &str) -> impl Iterator<Item = &'a Value> {
    object.get(member).and_then(Value::as_array).into_iter().flatten()
}

fn number(object: &Value, member: &str) -> f64 {
    object.get(member).and_then(Value::as_f64).unwrap_or_default()
}

/// The group, and what put the address into it.
fn group(answer: &Value) -> String {
    let (name, kind) = (super::cell(answer.get("group_name")), super::cell(answer.get("group")));
    let named = if name == kind || name == "-" { kind } else { format!("{name}, a {kind}") };
    match answer.get("prefix").and_then(Value::as_str) {
        None => format!("{named} (no prefix covers it)"),
        Some(prefix) if answer.get("line").is_none_or(Value::is_null) => {
            format!("{named} ({prefix}, by default)")
        }
        Some(prefix) => format!("{named} ({prefix}{})", place(answer)),
    }
}

/// Where a rule is written.
fn place(rule: &Value) -> String {
    match (rule.get("file").and_then(Value::as_str), rule.get("line").and_then(Value::as_u64)) {
        (Some(file), Some(line)) => format!(", {file}:{line}"),
        _ => String::new(),
    }
}

fn port(value: Option<&Value>) -> String {
    match value.and_then(Value::as_u64) {
        None | Some(0) => "any".to_owned(),
        Some(port) => port.to_string(),
    }
}

fn detail(event: &Value) -> String {
    let Some(Value::Object(details)) = event.get("detail") else { return String::new() };
    let said = details.iter().map(|(key, value)| format!("{key} {}", super::cell(Some(value))));
    said.collect::<Vec<_>>().join(", ")
}

/// How it stands from one of our addresses.
fn state(text: &mut String, d: &Value) {
    let since = number(d, "since_s");
    let mut said = format!("{} for {since:.0} s", super::cell(d.get("state")));
    if d.get("protocol").and_then(Value::as_u64).is_some_and(|protocol| protocol != 0) {
        said += &format!(
            ", protocol {}, ports {} to {}",
            super::cell(d.get("protocol")),
            port(d.get("source_port")),
            port(d.get("destination_port"))
        );
    }
    if let Some(left) = d.get("expires_s").and_then(Value::as_f64) {
        said += &format!(", looked at again in {left:.0} s");
    }
    line(text, "state", &said);
    let known = [
        ("trust", "trust"),
        ("gateway", "gateway"),
        ("identity", "identity"),
        ("known as", "known_as"),
        ("because", "reason"),
    ];
    for (label, key) in known {
        if d.get(key).is_some_and(|value| !value.is_null() && value != "none") {
            line(text, label, &super::cell(d.get(key)));
        }
    }
    if let Some(since) = d.get("downgraded_since_s").and_then(Value::as_f64) {
        let said = "it can be encrypted to, as far as anybody knows";
        line(text, "downgraded", &format!("for {since:.0} s: {said}"));
    }
}

#[cfg(test)]
mod tests;
