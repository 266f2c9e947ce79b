//! The facts for programs: what the notes say in words, as fields.

use dnskeys::{Gateway, GatewayRecord, PublicKey, Rules, Strictness, Verdict as Decision, decide};
use serde_json::{Value, json};

use super::facts::{AddressFacts, HostFacts, NameFacts, Seen, SeenOutcome};

/// A name with its addresses.
pub(super) fn host(facts: &HostFacts, rules: &Rules) -> Value {
    let each: Vec<Value> = facts.each.iter().map(|facts| address(facts, rules)).collect();
    json!({
        "name": facts.name.as_str(),
        "forward": name(&facts.forward),
        "addresses": each,
    })
}

/// An address, and what strangers make of it.
pub(super) fn address(facts: &AddressFacts, rules: &Rules) -> Value {
    let answer = facts.reverse.answer();
    let decision = |strict| decision(&decide(facts.address, &answer, rules, strict));
    let gateways: Vec<Value> = facts
        .gateways
        .iter()
        .map(|gateway| json!({ "gateway": gateway.gateway.to_string(), "own": name(&gateway.own) }))
        .collect();
    json!({
        "address": facts.address.to_string(),
        "reverse": name(&facts.reverse),
        "gateways": gateways,
        "private-or-clear": decision(Strictness::Permissive),
        "private": decision(Strictness::Paranoid),
    })
}

fn name(facts: &NameFacts) -> Value {
    json!({
        "name": facts.name.as_str(),
        "txt": seen(&facts.txt),
        "ipseckey": seen(&facts.ipseckey),
        "old_key": facts.old_key,
    })
}

fn seen(seen: &Seen) -> Value {
    let aliases: Vec<Value> = seen
        .aliases
        .iter()
        .map(|a| json!({ "from": a.from, "to": a.to, "dnssec": a.security.name() }))
        .collect();
    let outcome = match seen.outcome {
        SeenOutcome::Records(_) => "records",
        SeenOutcome::NoRecord => "no-record",
        SeenOutcome::NoName => "no-name",
        SeenOutcome::Bogus => "bogus",
        SeenOutcome::Failed(_) => "failed",
    };
    let set = seen.records();
    let records: Vec<Value> = set.into_iter().flat_map(|s| &s.gateways).map(record).collect();
    let malformed: Vec<&str> =
        set.into_iter().flat_map(|s| &s.malformed).map(|malformed| malformed.why).collect();
    json!({
        "outcome": outcome,
        "dnssec": seen.security.name(),
        "ttl": seen.ttl.as_secs(),
        "aliases": aliases,
        "records": records,
        "malformed": malformed,
    })
}

fn record(record: &GatewayRecord) -> Value {
    let key = record.key.as_ref().map(|key| match key {
        PublicKey::Rsa(rsa) => json!({
            "algorithm": "RSA",
            "bits": rsa.bits(),
            "exponent": rsa.exponent_value(),
            "key_id": rsa.key_id(),
            "key": rsa.to_base64(),
        }),
        PublicKey::Other { algorithm, .. } => json!({
            "algorithm": algorithm,
            "key_id": key.key_id(),
            "key": key.to_base64(),
        }),
        elliptic => json!({
            "algorithm": elliptic.algorithm_name(),
            "key_id": key.key_id(),
            "key": key.to_base64(),
        }),
    });
    let gateway = match &record.gateway {
        Gateway::Own => None,
        named => Some(named.to_string()),
    };
    json!({ "precedence": record.precedence, "gateway": gateway, "key": key })
}

fn decision(decision: &Decision) -> Value {
    match decision {
        Decision::Negotiate { candidates, security, .. } => {
            let gateways: Vec<String> = candidates.iter().map(|c| c.gateway.to_string()).collect();
            json!({ "does": "negotiate", "with": gateways, "dnssec": security.name() })
        }
        Decision::Clear { reason, .. } => json!({ "does": "clear", "why": reason.why() }),
        Decision::Deny { reason, .. } => json!({ "does": "deny", "why": reason.why() }),
    }
}
