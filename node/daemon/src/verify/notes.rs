//! What is said below the lines: records, DNSSEC, servers.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use dnskeys::{Failure, Gateway, GatewayRecord, PublicKey, Security, Source, Weakness, unusable};

use super::facts::{ChainEnd, NameFacts, Seen, SeenOutcome, ServerSaid, ServerSilence};
use super::judge::Against;
use super::report::Note;

/// One note for each record, in the order in which they are tried.
pub(super) fn record_notes(
    seen: &Seen,
    address: Option<IpAddr>,
    own_name: Option<&Gateway>,
) -> Vec<Note> {
    let Some(set) = seen.records() else { return Vec::new() };
    let mut records: Vec<&GatewayRecord> = set.gateways.iter().collect();
    records.sort();
    let mut notes = Vec::new();
    for record in &records {
        notes.push(Note::info(describe(record, address)));
        notes.extend(gateway_note(record, address, own_name));
        notes.extend(key_note(record));
        if record.source == Source::Ipseckey && record.gateway != Gateway::Own {
            notes.push(Note::info("libreswan reads only IPSECKEY records whose gateway is \".\""));
        }
    }
    notes.extend(set.malformed.iter().map(|m| malformed_note(m.why)));
    notes
}

fn describe(record: &GatewayRecord, address: Option<IpAddr>) -> String {
    let itself = match &record.gateway {
        Gateway::Own => true,
        Gateway::Address(addr) => Some(*addr) == address,
        Gateway::Name(_) => false,
    };
    let gateway = match (&record.gateway, itself, address) {
        (Gateway::Own, _, Some(address)) => address.to_string(),
        (gateway, ..) => gateway.to_string(),
    };
    let itself = if itself { ", itself" } else { "" };
    let key = match &record.key {
        None => "no key".to_owned(),
        Some(PublicKey::Rsa(key)) => {
            format!("RSA {} bits, e = {}, {}", key.bits(), key.exponent_value(), key.key_id())
        }
        Some(key) => format!("{}, {}", key.algorithm_name(), key.key_id()),
    };
    format!("gateway {gateway}{itself}; precedence {}; {key}", record.precedence)
}

fn gateway_note(
    record: &GatewayRecord,
    address: Option<IpAddr>,
    own_name: Option<&Gateway>,
) -> Option<Note> {
    match (&record.gateway, address, own_name) {
        (Gateway::Address(gateway), Some(address), _) => {
            let why = unusable(*gateway, address)?;
            Some(Note::weak(
                format!("nobody calls {gateway}: {why}"),
                "name an address at which strangers reach the gateway",
            ))
        }
        (Gateway::Name(name), Some(_), _) => Some(Note::info(format!(
            "nobody calls through this record; {} may speak for this address when it calls",
            name.without_dot()
        ))),
        (gateway, None, Some(own)) if gateway != own && *gateway != Gateway::Own => {
            Some(Note::weak(
                format!("at a forward name only {own} counts"),
                format!("publish what `oe-node showhostkey --txt {own}` prints"),
            ))
        }
        _ => None,
    }
}

fn key_note(record: &GatewayRecord) -> Option<Note> {
    let replace =
        "make a new key with `oe-node keygen`, publish it beside this one, then change over";
    let key = match &record.key {
        None => {
            return Some(Note::weak(
                "without a key in the record the gateway's own must be asked; old peers may crash",
                "publish the key in the record itself",
            ));
        }
        Some(PublicKey::Rsa(key)) => key,
        Some(PublicKey::EcdsaP256(_) | PublicKey::EcdsaP384(_) | PublicKey::Ed25519(_)) => {
            return None;
        }
        Some(PublicKey::Other { .. }) => {
            return Some(Note::info("keys of this kind authenticate nobody here"));
        }
    };
    match key.weakness() {
        Some(Weakness::ShortModulus) => {
            Some(Note::weak("a key below 2048 bits authenticates nobody", replace))
        }
        Some(Weakness::SmallExponent) => Some(Note::weak(
            format!("exponent {}: authenticates nobody unless configured so", key.exponent_value()),
            replace,
        )),
        None if key.to_rfc3110().len() > OLD_PEERS => {
            Some(Note::info("too large for FreeS/WAN and Openswan, which read 514 octets of key"))
        }
        None => None,
    }
}

pub(super) fn malformed_note(why: &str) -> Note {
    Note::wrong(
        format!("a malformed record: {why}; FreeS/WAN refuses the whole answer for it"),
        "remove it, or replace it by what `oe-node showhostkey` prints",
    )
}

/// What holds for the name as a whole.
pub(super) fn common(facts: &NameFacts, seen: &Seen, against: &Against) -> Vec<Note> {
    let mut notes = Vec::new();
    for alias in &seen.aliases {
        let status = alias.security.name();
        let text = format!("{} {} -> {} ({status})", alias.kind, alias.from, alias.to);
        notes.push(Note::info(text));
    }
    notes.extend(dnssec(facts, seen, against));
    if seen.truncated && seen.tcp && seen.present() {
        notes.push(Note::weak(
            "the answer does not fit into a UDP datagram; FreeS/WAN does not ask again over TCP",
            "publish fewer or shorter TXT records at this name",
        ));
    }
    notes.extend(server_notes(&facts.servers, seen));
    notes
}

pub(super) fn dnssec(facts: &NameFacts, seen: &Seen, against: &Against) -> Vec<Note> {
    if matches!(seen.outcome, SeenOutcome::Failed(_)) {
        return Vec::new();
    }
    let ttl = seen.ttl.as_secs();
    let mut notes = Vec::new();
    match seen.security {
        Security::Secure => notes.push(Note::info(format!("DNSSEC: secure; TTL {ttl} s"))),
        Security::Insecure => {
            let zone = match &facts.chain {
                Some(ChainEnd::Unsigned { zone }) => zone.as_str(),
                _ => "the zone",
            };
            let text = format!("DNSSEC: insecure, {zone} is not signed; TTL {ttl} s");
            notes.push(if seen.present() {
                Note::weak(text, format!("sign {zone} and publish its DS in the zone above; until then this protects against eavesdroppers only, and `private` refuses it"))
            } else {
                Note::info(text)
            });
        }
        Security::Indeterminate => notes.push(Note::unknown(
            "DNSSEC: indeterminate, nobody validated this answer",
            "give a trust anchor with --trust-anchor",
        )),
        Security::Bogus => notes.push(bogus(facts.chain.as_ref(), against.now)),
    }
    if seen.present() && seen.ttl > LONG_TTL {
        notes.push(Note::weak(
            format!("TTL {ttl} s: a new key is not seen by everybody before that"),
            "lower it to an hour",
        ));
    }
    notes
}

fn bogus(chain: Option<&ChainEnd>, now: u64) -> Note {
    let harm = "everybody who validates sends nothing at all";
    let (text, window) = match chain {
        Some(ChainEnd::BrokenZone { zone, window }) => {
            (format!("nothing in {zone} validates"), *window)
        }
        Some(ChainEnd::BrokenRecord { zone, window }) => {
            (format!("{zone} is sound, and this record does not fit its signature"), *window)
        }
        Some(ChainEnd::Unsigned { .. }) | None => ("the chain of trust is broken".to_owned(), None),
    };
    let (text, remedy) = match window {
        Some((_, end)) if u64::from(end) < now => (
            format!("{text}: the signatures ended on {}", date(end)),
            "sign the zone again, and see to it that this happens by itself",
        ),
        Some((start, _)) if u64::from(start) > now => (
            format!("{text}: the signatures begin on {}", date(start)),
            "set this machine's clock, or that of the machine that signs",
        ),
        _ => match chain {
            Some(ChainEnd::BrokenRecord { .. }) => {
                (text, "sign the zone again: the record was changed after signing")
            }
            _ => (text, "publish in the zone above the DS of the key that signs this one"),
        },
    };
    Note::wrong(format!("DNSSEC: bogus: {text}; {harm}"), remedy)
}

fn server_notes(servers: &[ServerSaid], seen: &Seen) -> Vec<Note> {
    let said: Vec<&Vec<String>> = servers.iter().filter_map(|s| s.said.as_ref().ok()).collect();
    let mut notes = Vec::new();
    match said.split_first() {
        Some((first, rest)) if rest.iter().all(|other| other == first) => {
            if **first == seen.texts {
                if !rest.is_empty() && seen.present() {
                    notes.push(Note::info(format!("{} authoritative servers agree", said.len())));
                }
            } else if seen.outcome != SeenOutcome::Bogus {
                notes.push(Note::weak(
                    format!(
                        "the zone's servers have {} record(s) of ours by now, and the resolver an older answer",
                        first.len()
                    ),
                    format!("wait {} s, or clear the resolver's cache", seen.ttl.as_secs()),
                ));
            }
        }
        _ => notes.extend(servers.iter().filter_map(|server| differs(server, seen))),
    }
    notes.extend(servers.iter().filter_map(silence));
    notes
}

fn differs(server: &ServerSaid, seen: &Seen) -> Option<Note> {
    let texts = server.said.as_ref().ok().filter(|texts| **texts != seen.texts)?;
    Some(Note::wrong(
        format!(
            "{} ({}) has {} record(s) of ours, and not the same as the answer",
            server.name,
            server.address.ip(),
            texts.len()
        ),
        "compare the zone's serial numbers on its servers, and transfer it again",
    ))
}

fn silence(server: &ServerSaid) -> Option<Note> {
    let who = format!("{} ({})", server.name, server.address.ip());
    match server.said.as_ref().err()? {
        ServerSilence::Lame => Some(Note::weak(
            format!("{who} is named as a server of the zone, and is not authoritative for it"),
            "serve the zone there, or remove it from the NS records",
        )),
        ServerSilence::Failed(failure) => {
            Some(Note::info(format!("{who} gave no answer from here: {}", word(*failure))))
        }
    }
}

pub(super) fn unanswered(failure: Failure) -> Note {
    Note::unknown(
        format!("no answer from DNS: {}", word(failure)),
        "check the resolver (--resolver) and the zone's servers",
    )
}

fn word(failure: Failure) -> &'static str {
    match failure {
        Failure::Timeout => "timeout",
        Failure::ServFail => "SERVFAIL",
        Failure::Refused => "refused",
        Failure::Truncated => "truncated, and TCP did not work",
        Failure::Unreachable => "cannot be reached",
    }
}

pub(super) fn ids(keys: &BTreeSet<&PublicKey>) -> String {
    keys.iter().map(|key| key.key_id()).collect::<Vec<_>>().join(", ")
}

/// A day in UTC, as ISO 8601 writes it.
fn date(seconds: u32) -> String {
    // Days since 1 March of year 0, in eras of 400 years.
    let days = u64::from(seconds) / 86400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// `RSA_MAX_ENCODING_BYTES` of Pluto: 4096 bits with exponent 3.
const OLD_PEERS: usize = 514;

/// A key that must be replaced in a hurry should not linger for longer.
const LONG_TTL: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_iso_days() {
        for (seconds, day) in [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_795_219_200, "2026-11-21"),
            (u32::MAX, "2106-02-07"),
        ] {
            assert_eq!(date(seconds), day);
        }
    }
}
