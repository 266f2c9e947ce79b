//! From facts to findings. Everything here is a pure function.

use std::collections::BTreeSet;
use std::net::IpAddr;

use dnskeys::{
    Gateway, GatewayRecord, Life, Name, PublicKey, Reason, Rules, Security, Strictness, decide,
};

use super::document;
use super::facts::{AddressFacts, GatewayFacts, HostFacts, Seen, SeenOutcome};
use super::notes::{common, dnssec, ids, malformed_note, record_notes, unanswered};
use super::probe::{Answer, Probed};
use super::report::{Check, Note, Report, Status};

/// What the findings depend on besides the facts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Against {
    /// The rules a stranger goes by.
    pub(crate) rules: Rules,
    /// Seconds since 1970.
    pub(crate) now: u64,
}

/// Judges a name.
pub(crate) fn host(facts: &HostFacts, against: &Against) -> Report {
    let name = facts.name.without_dot();
    let mut checks = forward_checks(facts, against);
    for address in &facts.each {
        checks.extend(address_checks(address, against));
    }
    let title = format!("Checking {name} for Opportunistic Encryption:");
    Report::new(name.to_owned(), title, checks).with_facts(document::host(facts, &against.rules))
}

/// Judges an address.
pub(crate) fn address(facts: &AddressFacts, against: &Against) -> Report {
    let title = format!("Checking IP {} for Opportunistic Encryption:", facts.address);
    Report::new(facts.address.to_string(), title, address_checks(facts, against))
        .with_facts(document::address(facts, &against.rules))
}

/// The forward map's part.
pub(crate) fn forward_checks(facts: &HostFacts, against: &Against) -> Vec<Check> {
    let name = facts.name.without_dot();
    let mut checks = Vec::new();
    if facts.forward.old_key {
        checks.push(deprecated(format!("Looking for KEY in forward map: {name}")));
    }
    checks.push(forward_txt(facts, against));
    if facts.each.is_empty() {
        let text = format!("{name} does not resolve to an IP, no reverse lookup tests possible.");
        let remedy = "check the name, or give the address with --ip";
        let note = match facts.addresses {
            Security::Bogus => {
                Note::wrong("its addresses do not validate", "mend the zone's signatures")
            }
            Security::Indeterminate => {
                Note::unknown("its addresses could not be looked up", remedy)
            }
            _ if facts.forward.txt.present() => {
                Note::info("it can call by this name, and cannot be called")
            }
            _ => Note::wrong("it can neither call nor be called", remedy),
        };
        checks.push(Check::line(text).with([note]));
    }
    checks
}

fn forward_txt(facts: &HostFacts, against: &Against) -> Check {
    let forward = &facts.forward;
    let text = format!("Looking for TXT in forward map: {}", facts.name.without_dot());
    let mut check = Check::new(text, presence(&forward.txt));
    if !forward.txt.present() {
        let note = match &forward.txt.outcome {
            SeenOutcome::Failed(failure) => unanswered(*failure),
            SeenOutcome::Bogus => return check.with(dnssec(forward, &forward.txt, against)),
            _ if facts.each.is_empty() => Note::info("no key is published at this name"),
            _ => Note::info(
                "needed only by a host that calls by name: callers of this host look in the reverse map",
            ),
        };
        check.notes.push(note);
        return check;
    }
    let own = Gateway::Name(facts.name.clone());
    check.notes.extend(record_notes(&forward.txt, None, Some(&own)));
    check.with(common(forward, &forward.txt, against))
}

/// The reverse map's part, and everything that hangs on it.
pub(crate) fn address_checks(facts: &AddressFacts, against: &Against) -> Vec<Check> {
    let mut checks = vec![reverse_txt(facts, against)];
    checks.extend(ipseckey(facts, against));
    for gateway in &facts.gateways {
        checks.extend(gateway_checks(facts, gateway, against));
    }
    if facts.reverse.old_key {
        checks.insert(1, deprecated(looking("KEY", "reverse", &facts.reverse.name)));
    }
    for (gateway, probed) in &facts.probes {
        checks.push(probe_check(*gateway, *probed));
    }
    checks.push(conclusion(facts, against));
    checks
}

fn reverse_txt(facts: &AddressFacts, against: &Against) -> Check {
    let reverse = &facts.reverse;
    let text = looking("TXT", "reverse", &reverse.name);
    let mut check = Check::new(text, presence(&reverse.txt));
    let publish = || {
        format!(
            "publish at {} what `oe-node showhostkey --txt {}` prints",
            reverse.name, facts.address
        )
    };
    match &reverse.txt.outcome {
        SeenOutcome::Records(_) => {
            check.notes.extend(record_notes(&reverse.txt, Some(facts.address), None));
        }
        SeenOutcome::Failed(failure) => check.notes.push(unanswered(*failure)),
        SeenOutcome::NoRecord | SeenOutcome::NoName if reverse.ipseckey.present() => {
            check.notes.push(Note::weak(
                "only IPSECKEY is there: FreeS/WAN and Openswan look for TXT alone",
                publish(),
            ));
        }
        SeenOutcome::NoName => {
            check.notes.push(Note::wrong("there is no such name: no key is published", publish()));
        }
        SeenOutcome::NoRecord => {
            check.notes.push(Note::wrong("no key is published", publish()));
        }
        SeenOutcome::Bogus => {}
    }
    check.notes.extend(host_key(facts));
    check.with(common(reverse, &reverse.txt, against))
}

/// A line of its own only if there is something to see.
fn ipseckey(facts: &AddressFacts, against: &Against) -> Option<Check> {
    let reverse = &facts.reverse;
    let seen = &reverse.ipseckey;
    let txt = reverse.txt.records();
    let text = looking("IPSECKEY", "reverse", &reverse.name);
    let set = match &seen.outcome {
        SeenOutcome::Records(set) => set,
        // Said once is enough.
        SeenOutcome::Bogus if reverse.txt.outcome != SeenOutcome::Bogus => {
            return Some(Check::new(text, Status::Failed).with(dnssec(reverse, seen, against)));
        }
        _ => return None,
    };
    let mut check = Check::new(text, presence(seen));
    check.notes.extend(record_notes(seen, Some(facts.address), None));
    if let Some(txt) = txt {
        let resolved = |record: &GatewayRecord| {
            let gateway = match record.gateway {
                Gateway::Own => Gateway::Address(facts.address),
                ref other => other.clone(),
            };
            (gateway, record.key.clone())
        };
        let here: BTreeSet<_> = set.gateways.iter().map(resolved).collect();
        let there: BTreeSet<_> = txt.gateways.iter().map(resolved).collect();
        check.notes.push(if here == there {
            Note::info("agrees with TXT")
        } else {
            Note::wrong(
                "disagrees with TXT: another gateway or another key",
                "publish the same in both: `oe-node showhostkey --txt` and `--ipseckey`",
            )
        });
        // What holds for TXT at the same name is said there.
        if seen.security >= reverse.txt.security {
            return Some(check);
        }
    }
    Some(check.with(dnssec(reverse, seen, against)))
}

fn gateway_checks(facts: &AddressFacts, gateway: &GatewayFacts, against: &Against) -> Vec<Check> {
    let own = &gateway.own;
    let (map, name) = match &gateway.gateway {
        Gateway::Name(name) => ("forward", name.without_dot().to_owned()),
        Gateway::Address(_) | Gateway::Own => ("reverse", own.name.to_string()),
    };
    let mut checks = Vec::new();
    if own.old_key {
        checks.push(deprecated(format!("Looking for KEY in {map} map: {name}")));
    }
    let mut check = Check::new(format!("Looking for TXT in {map} map: {name}"), presence(&own.txt));
    check.notes.push(same_key(facts, gateway));
    if let SeenOutcome::Failed(failure) = own.txt.outcome {
        check.notes.push(unanswered(failure));
    }
    let malformed = own.txt.records().into_iter().flat_map(|set| &set.malformed);
    check.notes.extend(malformed.map(|m| malformed_note(m.why)));
    let quiet = own.txt.security == Security::Secure && !own.txt.present();
    if !quiet {
        check.notes.extend(common(own, &own.txt, against));
    }
    checks.push(check);
    checks
}

/// Whether the gateway says of itself what the address says of it.
fn same_key(facts: &AddressFacts, gateway: &GatewayFacts) -> Note {
    let named: BTreeSet<&PublicKey> = facts
        .reverse
        .gateways()
        .filter(|record| record.gateway == gateway.gateway)
        .filter_map(|record| record.key.as_ref())
        .collect();
    let itself = |record: &&GatewayRecord| {
        record.gateway == Gateway::Own || record.gateway == gateway.gateway
    };
    let own: BTreeSet<&PublicKey> =
        gateway.own.gateways().filter(itself).filter_map(|record| record.key.as_ref()).collect();
    let who = &gateway.gateway;
    match (named.is_empty(), own.is_empty()) {
        (true, true) => Note::wrong(
            format!("no key of {who} is published anywhere"),
            format!("publish its key at {}", gateway.own.name),
        ),
        (true, false) => Note::info(format!("the key of {who} is taken from here: {}", ids(&own))),
        (false, true) if matches!(who, Gateway::Name(_)) => {
            Note::info("not needed: the record above has its key")
        }
        (false, true) => Note::weak(
            format!("{who} publishes no key of its own: nobody can call it for itself"),
            format!("publish its key at {}, too", gateway.own.name),
        ),
        (false, false) if named == own => {
            Note::info(format!("{who} says the same of itself: {}", ids(&own)))
        }
        (false, false) if named.is_disjoint(&own) => Note::wrong(
            format!(
                "{who} has another key here, {}, than {} gives it, {}",
                ids(&own),
                facts.address,
                ids(&named)
            ),
            "one of the two is out of date: publish the gateway's present key in both",
        ),
        (false, false) => Note::weak(
            format!(
                "{who} has {} here, and {} in the record of {}",
                ids(&own),
                ids(&named),
                facts.address
            ),
            "publish the same keys in both, unless one is being replaced right now",
        ),
    }
}

/// What the host itself signs with, against what strangers are told.
fn host_key(facts: &AddressFacts) -> Option<Note> {
    let key = facts.host_key.as_ref()?;
    let own: Vec<&GatewayRecord> = facts
        .reverse
        .gateways()
        .filter(|record| match &record.gateway {
            Gateway::Own => true,
            Gateway::Address(addr) => *addr == facts.address,
            Gateway::Name(_) => false,
        })
        .collect();
    if own.is_empty() {
        return None;
    }
    let published = own.iter().any(|r| r.key.as_ref() == Some(key));
    let form = match key.rsa() {
        Some(_) => format!("--txt {}", facts.address),
        None => "--ipseckey".to_owned(),
    };
    Some(if published {
        Note::info(format!("the host key {} is published here", key.key_id()))
    } else {
        Note::wrong(
            format!("the host key {} is not among those published", key.key_id()),
            format!(
                "replace the record at {} by what `oe-node showhostkey {form}` prints",
                facts.reverse.name
            ),
        )
    })
}

fn probe_check(gateway: IpAddr, probed: Probed) -> Check {
    let text = format!("Is a daemon there: IKE_SA_INIT to {gateway}");
    let (status, note) = match probed {
        Probed::Answered { answer, millis } => {
            let after = format!("after {millis} ms");
            match answer {
                Answer::Accepted => (Status::Ok, Note::info(format!("IKEv2, answered {after}"))),
                Answer::Cookie => {
                    (Status::Ok, Note::info(format!("IKEv2, asked for a cookie {after}")))
                }
                Answer::Refused(notify) => (
                    Status::Ok,
                    Note::weak(
                        format!("IKEv2, refused {after}: {}", notify_name(notify)),
                        "allow a modern proposal there: AES-GCM, SHA-2, X25519",
                    ),
                ),
                Answer::OtherVersion(version) => (
                    Status::Failed,
                    Note::wrong(
                        format!("only IKE version {version} is spoken there"),
                        "run an IKEv2 daemon there",
                    ),
                ),
                Answer::Other => {
                    (Status::Ok, Note::info(format!("IKEv2, answered strangely {after}")))
                }
            }
        }
        Probed::Silent => (
            Status::Failed,
            Note::wrong(
                "no answer on UDP 500",
                "start the daemon there, and let UDP 500 and 4500 through every firewall on the way",
            ),
        ),
        Probed::PortClosed => (
            Status::Failed,
            Note::wrong(
                "the host answers, and nobody listens on UDP 500",
                "start the daemon there",
            ),
        ),
        Probed::Unsendable => {
            (Status::Unknown, Note::unknown("this machine has no way to it", "check its routes"))
        }
    };
    Check::new(text, status).with([note])
}

/// What strangers do in the end: the same function decides in the daemon.
fn conclusion(facts: &AddressFacts, against: &Against) -> Check {
    let text = format!("Would a stranger encrypt to {}?", facts.address);
    let answer = facts.reverse.answer();
    let permissive = decide(facts.address, &answer, &against.rules, Strictness::Permissive);
    let paranoid = decide(facts.address, &answer, &against.rules, Strictness::Paranoid);
    let status = match &permissive {
        dnskeys::Verdict::Negotiate { candidates, .. }
            if candidates.iter().any(|c| !c.keys.is_empty() || has_own_key(facts, c.gateway)) =>
        {
            Status::Ok
        }
        dnskeys::Verdict::Negotiate { .. } => Status::Failed,
        dnskeys::Verdict::Clear { reason: Reason::NoRecord, .. } => Status::Missing,
        dnskeys::Verdict::Clear { reason: Reason::DnsFailed, .. } => Status::Unknown,
        dnskeys::Verdict::Clear { .. } | dnskeys::Verdict::Deny { .. } => Status::Failed,
    };
    Check::new(text, status)
        .with([policy_note("private-or-clear", &permissive), policy_note("private", &paranoid)])
}

/// Whether a gateway that is named without key publishes one of its own.
fn has_own_key(facts: &AddressFacts, gateway: IpAddr) -> bool {
    let named = Gateway::Address(gateway);
    facts.gateways.iter().filter(|g| g.gateway == named).any(|g| {
        g.own
            .gateways()
            .any(|r| (r.gateway == Gateway::Own || r.gateway == named) && r.key.is_some())
    })
}

fn policy_note(group: &str, verdict: &dnskeys::Verdict) -> Note {
    match verdict {
        dnskeys::Verdict::Negotiate { candidates, .. } => {
            let gateways: Vec<String> =
                candidates.iter().map(|candidate| candidate.gateway.to_string()).collect();
            Note::info(format!("{group} negotiates with {}", gateways.join(", then ")))
        }
        dnskeys::Verdict::Clear { reason, life } => {
            Note::info(format!("{group} sends in the clear: {reason}{}", lasting(*life)))
        }
        dnskeys::Verdict::Deny { reason, life } => {
            Note::info(format!("{group} sends nothing: {reason}{}", lasting(*life)))
        }
    }
}

fn lasting(life: Life) -> String {
    match life {
        Life::Ttl(ttl) => format!(", for {} s", ttl.as_secs()),
        Life::Short => ", for a minute at most".to_owned(),
    }
}

fn presence(seen: &Seen) -> Status {
    match &seen.outcome {
        SeenOutcome::Records(set) if set.gateways.is_empty() => Status::Failed,
        SeenOutcome::Records(_) => Status::Ok,
        SeenOutcome::NoRecord | SeenOutcome::NoName => Status::Missing,
        SeenOutcome::Bogus => Status::Failed,
        SeenOutcome::Failed(_) => Status::Unknown,
    }
}

fn deprecated(text: String) -> Check {
    Check::new(text, Status::Deprecated).with([Note::weak(
        "RFC 3445 leaves KEY to DNSSEC; nobody looks for it since FreeS/WAN 2.01",
        "remove it: TXT and IPSECKEY carry the key",
    )])
}

fn looking(kind: &str, map: &str, name: &Name) -> String {
    format!("Looking for {kind} in {map} map: {name}")
}

fn notify_name(notify: u16) -> String {
    match notify {
        14 => "NO_PROPOSAL_CHOSEN".to_owned(),
        17 => "INVALID_KE_PAYLOAD".to_owned(),
        other => format!("notify {other}"),
    }
}

#[cfg(test)]
mod tests;
