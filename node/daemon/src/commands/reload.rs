//! `oe-node reload`: read the configuration and the policy groups anew.

use std::process::ExitCode;

use serde_json::Value;

use crate::control::Request;

/// Arguments of `oe-node reload`.
#[derive(clap::Args)]
#[command(after_long_help = LONG)]
pub(crate) struct Args {
    #[command(flatten)]
    daemon: super::Daemon,
}

const LONG: &str = "Policy groups, [policy] directory and packetdefault, [[group]], [[serve]], \
[[connection]], [[extrude]], [[borrow]] and [pool] are followed at once: what has not changed keeps \
its pairs, and nothing is open in between. Whoever has an address that is not in the pool any more \
loses it, is told so, and may ask for another. Of all other keys it is said which have changed and wait for \
a restart. A file with an error changes nothing. The host key's file is looked at: if it is gone, cannot \
be used or has another key, that is said, and the key in use stays until a restart.";

/// Runs the command.
pub(crate) fn main(args: Args) -> ExitCode {
    let answer = args.daemon.ask(&Request::Reload);
    super::show(answer.map(|done| text(&done)))
}

fn text(done: &Value) -> String {
    let count = |key: &str| super::cell(done.get(key));
    let mut text = format!(
        "{} prefixes changed, {} removed, {} flows start anew\n",
        count("changed"),
        count("removed"),
        count("flows")
    );
    let any = |key: &str| done.get(key).and_then(Value::as_u64) > Some(0);
    if any("connections_new") || any("connections_gone") {
        text.push_str(&format!(
            "{} connections new, {} gone\n",
            count("connections_new"),
            count("connections_gone")
        ));
    }
    if any("leases_ended") {
        text.push_str(&format!("{} leases ended\n", count("leases_ended")));
    }
    let restart = done.get("restart").and_then(Value::as_array);
    let keys: Vec<&str> = restart.into_iter().flatten().filter_map(Value::as_str).collect();
    if !keys.is_empty() {
        text.push_str(&format!("in force after a restart only: {}\n", keys.join(", ")));
    }
    let told = done.get("policy_warnings").and_then(Value::as_array).into_iter().flatten();
    for warning in told.chain(done.get("warning")).filter_map(Value::as_str) {
        text.push_str(&format!("warning: {warning}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_a_restart_is_said() {
        let mut done = serde_json::json!({
            "changed": 1, "removed": 0, "flows": 2,
            "connections_new": 0, "connections_gone": 0, "restart": [],
        });
        let plain = "1 prefixes changed, 0 removed, 2 flows start anew\n";
        assert_eq!(text(&done), plain);
        done["connections_gone"] = 1.into();
        done["leases_ended"] = 3.into();
        done["restart"] = serde_json::json!(["node.mark", "ike.mobike"]);
        done["policy_warnings"] = serde_json::json!(["privat: not read"]);
        done["warning"] = "node.key: gone".into();
        let more = "0 connections new, 1 gone\n\
            3 leases ended\n\
            in force after a restart only: node.mark, ike.mobike\n\
            warning: privat: not read\n\
            warning: node.key: gone\n";
        assert_eq!(text(&done), format!("{plain}{more}"));
    }
}
