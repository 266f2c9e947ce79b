use super::super::facts::{Alias, ChainEnd, NameFacts, ServerSaid, ServerSilence};
use super::super::report::{Verdict, Weight};
use super::*;
use dnskeys::{Failure, Malformed, RecordSet, RsaKey, Source};
use std::time::Duration;

const NOW: u64 = 1_795_219_200;

fn against() -> Against {
    Against { rules: Rules::default(), now: NOW }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn key_of(exponent: &[u8], octets: usize, salt: u8) -> RsaKey {
    RsaKey::new(exponent, &vec![0x81 | salt; octets]).unwrap()
}

fn key() -> RsaKey {
    key_of(&[1, 0, 1], 384, 0x40)
}

fn other() -> RsaKey {
    key_of(&[1, 0, 1], 384, 0x20)
}

fn gateway(text: &str) -> Gateway {
    match text.strip_prefix('@') {
        Some(name) => Gateway::Name(name.parse().unwrap()),
        None if text == "." => Gateway::Own,
        None => Gateway::Address(ip(text)),
    }
}

fn record(gw: &str, key: Option<RsaKey>) -> GatewayRecord {
    let key = key.map(PublicKey::Rsa);
    GatewayRecord { precedence: 10, gateway: gateway(gw), key, source: Source::Txt }
}

fn seen(security: Security, outcome: SeenOutcome) -> Seen {
    Seen {
        security,
        ttl: Duration::from_secs(3600),
        aliases: vec![],
        outcome,
        texts: vec!["one".to_owned()],
        truncated: false,
        tcp: false,
    }
}

fn with(gateways: Vec<GatewayRecord>) -> SeenOutcome {
    SeenOutcome::Records(RecordSet { gateways, malformed: vec![] })
}

fn at(name: Name, txt: SeenOutcome) -> NameFacts {
    NameFacts {
        name,
        txt: seen(Security::Secure, txt),
        ipseckey: seen(Security::Secure, SeenOutcome::NoRecord),
        old_key: false,
        chain: None,
        servers: vec![],
    }
}

const D: &str = "192.0.2.11";
const G: &str = "198.51.100.1";

fn facts(txt: SeenOutcome) -> AddressFacts {
    AddressFacts {
        address: ip(D),
        reverse: at(Name::reverse(ip(D)), txt),
        gateways: vec![],
        probes: vec![],
        host_key: None,
    }
}

fn behind(own: SeenOutcome) -> AddressFacts {
    let mut facts = facts(with(vec![record(G, Some(key()))]));
    let own = at(Name::reverse(ip(G)), own);
    facts.gateways.push(GatewayFacts { gateway: gateway(G), own });
    facts
}

/// The line's text and word, for the classic part.
fn lines(checks: &[Check]) -> Vec<(String, &'static str)> {
    let word = |check: &Check| check.status.map_or("", Status::word);
    checks.iter().map(|check| (check.text.clone(), word(check))).collect()
}

#[track_caller]
fn says(report: &Report, weight: Weight, text: &str) {
    let notes: Vec<&Note> = report.checks.iter().flat_map(|check| &check.notes).collect();
    let found = notes.iter().any(|note| note.weight == weight && note.text.contains(text));
    assert!(found, "no {weight:?} note with {text:?} in {notes:#?}");
    for note in notes {
        let remedy = note.remedy.is_some();
        assert_eq!(remedy, note.weight != Weight::Info, "what is to be done? {note:?}");
    }
}

#[test]
fn a_host_in_order() {
    let facts = facts(with(vec![record(D, Some(key()))]));
    let report = address(&facts, &against());
    assert_eq!(report.title, "Checking IP 192.0.2.11 for Opportunistic Encryption:");
    assert_eq!(
        lines(&report.checks),
        [
            ("Looking for TXT in reverse map: 11.2.0.192.in-addr.arpa.".to_owned(), "OK"),
            ("Would a stranger encrypt to 192.0.2.11?".to_owned(), "OK"),
        ]
    );
    assert_eq!(report.verdict, Verdict::Well);
    let id = key().key_id();
    says(
        &report,
        Weight::Info,
        &format!("gateway 192.0.2.11, itself; precedence 10; RSA 3072 bits, e = 65537, {id}"),
    );
    says(&report, Weight::Info, "DNSSEC: secure; TTL 3600 s");
    says(&report, Weight::Info, "private negotiates with 192.0.2.11");
}

/// The classic lines of `ipsec verify --host`, in their order.
#[test]
fn the_classic_order() {
    let mut each = behind(with(vec![record(G, Some(key()))]));
    each.reverse.old_key = true;
    each.gateways[0].own.old_key = true;
    let name: Name = "west.test".parse().unwrap();
    let mut forward = at(name.clone(), SeenOutcome::NoRecord);
    forward.old_key = true;
    let facts = HostFacts { name, forward, addresses: Security::Secure, each: vec![each] };
    let report = host(&facts, &against());
    assert_eq!(report.title, "Checking west.test for Opportunistic Encryption:");
    let expected = [
        ("Looking for KEY in forward map: west.test", "DEPRECATED"),
        ("Looking for TXT in forward map: west.test", "MISSING"),
        ("Looking for TXT in reverse map: 11.2.0.192.in-addr.arpa.", "OK"),
        ("Looking for KEY in reverse map: 11.2.0.192.in-addr.arpa.", "DEPRECATED"),
        ("Looking for KEY in reverse map: 1.100.51.198.in-addr.arpa.", "DEPRECATED"),
        ("Looking for TXT in reverse map: 1.100.51.198.in-addr.arpa.", "OK"),
        ("Would a stranger encrypt to 192.0.2.11?", "OK"),
    ];
    assert_eq!(lines(&report.checks), expected.map(|(text, word)| (text.to_owned(), word)));
    assert_eq!(report.verdict, Verdict::Well, "the forward map is not needed to be called");
}

#[test]
fn a_name_without_address() {
    let name: Name = "road.test".parse().unwrap();
    let own = with(vec![record("@road.test", Some(key()))]);
    let facts = |outcome, addresses| HostFacts {
        name: name.clone(),
        forward: at(name.clone(), outcome),
        addresses,
        each: vec![],
    };
    let text = "road.test does not resolve to an IP, no reverse lookup tests possible.";
    let report = host(&facts(own.clone(), Security::Secure), &against());
    assert_eq!(report.checks.last().map(|c| (c.text.as_str(), c.status)), Some((text, None)));
    assert_eq!(report.verdict, Verdict::Well, "it can call by name");
    for (outcome, security, verdict) in [
        (SeenOutcome::NoName, Security::Secure, Verdict::Failed),
        (SeenOutcome::NoName, Security::Indeterminate, Verdict::CouldNotCheck),
        (own.clone(), Security::Bogus, Verdict::Failed),
        (SeenOutcome::Failed(Failure::Timeout), Security::Indeterminate, Verdict::CouldNotCheck),
    ] {
        assert_eq!(host(&facts(outcome, security), &against()).verdict, verdict);
    }
    let strange = with(vec![record("192.0.2.7", Some(key()))]);
    let report = host(&facts(strange, Security::Secure), &against());
    says(&report, Weight::Weak, "at a forward name only @road.test counts");
}

/// What can be wrong with an address, what is said about it, and what it comes to.
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn findings() {
    use Security::{Bogus, Indeterminate, Insecure};
    use Verdict::{CouldNotCheck, Failed, Well};
    use Weight::{Info, Unknown, Weak, Wrong};
    let good = || facts(with(vec![record(D, Some(key()))]));
    let one = |r: GatewayRecord| facts(with(vec![r]));
    let change = |mut facts: AddressFacts, change: &dyn Fn(&mut AddressFacts)| {
        change(&mut facts);
        facts
    };
    let malformed = Malformed { source: Source::Txt, why: "key: not base64" };
    let bad = |gateways| SeenOutcome::Records(RecordSet { gateways, malformed: vec![malformed] });
    let unsigned = |f: &mut AddressFacts| {
        f.reverse.txt.security = Insecure;
        f.reverse.chain = Some(ChainEnd::Unsigned { zone: "192.in-addr.arpa.".to_owned() });
    };
    let bogus = |chain: Option<ChainEnd>| {
        let mut facts = facts(SeenOutcome::Bogus);
        facts.reverse.txt.security = Bogus;
        facts.reverse.chain = chain;
        facts
    };
    let zone = || "2.0.192.in-addr.arpa.".to_owned();
    let said = |name: &str, said| ServerSaid {
        name: name.to_owned(),
        address: "192.0.2.53:53".parse().unwrap(),
        said,
    };
    let rows: Vec<(AddressFacts, Weight, &str, Verdict)> = vec![
        (facts(SeenOutcome::NoRecord), Wrong, "no key is published", Failed),
        (facts(SeenOutcome::NoName), Wrong, "there is no such name", Failed),
        (
            facts(SeenOutcome::Failed(Failure::ServFail)),
            Unknown,
            "no answer from DNS: SERVFAIL",
            CouldNotCheck,
        ),
        (facts(bad(vec![])), Wrong, "key: not base64", Failed),
        (
            facts(bad(vec![record(D, Some(key()))])),
            Wrong,
            "FreeS/WAN refuses the whole answer",
            Failed,
        ),
        (
            one(record(D, Some(key_of(&[3], 274, 0)))),
            Weak,
            "exponent 3: authenticates nobody",
            Failed,
        ),
        (one(record(D, Some(key_of(&[1, 0, 1], 128, 0)))), Weak, "below 2048 bits", Failed),
        (one(record(D, Some(key_of(&[1, 0, 1], 512, 0)))), Info, "which read 514 octets", Well),
        (
            one(record("127.0.0.1", Some(key()))),
            Weak,
            "nobody calls 127.0.0.1: a loopback address",
            Failed,
        ),
        (
            one(record("@west.test", Some(key()))),
            Info,
            "west.test may speak for this address",
            Failed,
        ),
        (one(record(D, None)), Weak, "old peers may crash", Failed),
        (change(good(), &unsigned), Weak, "insecure, 192.in-addr.arpa. is not signed", Well),
        (change(good(), &unsigned), Info, "private sends nothing: the record is not signed", Well),
        (
            change(behind(with(vec![])), &unsigned),
            Info,
            "an unsigned record names another gateway",
            Failed,
        ),
        (
            change(good(), &|f| f.reverse.txt.security = Indeterminate),
            Unknown,
            "nobody validated",
            CouldNotCheck,
        ),
        (bogus(None), Wrong, "the chain of trust is broken", Failed),
        (
            bogus(Some(ChainEnd::BrokenZone { zone: zone(), window: None })),
            Wrong,
            "nothing in 2.0.192.in-addr.arpa. validates",
            Failed,
        ),
        (
            bogus(Some(ChainEnd::BrokenZone { zone: zone(), window: Some((1, 1_795_132_800)) })),
            Wrong,
            "the signatures ended on 2026-11-20",
            Failed,
        ),
        (
            bogus(Some(ChainEnd::BrokenRecord {
                zone: zone(),
                window: Some((1_795_305_600, u32::MAX)),
            })),
            Wrong,
            "the signatures begin on 2026-11-22",
            Failed,
        ),
        (
            bogus(Some(ChainEnd::BrokenRecord { zone: zone(), window: None })),
            Wrong,
            "this record does not fit its signature",
            Failed,
        ),
        (
            change(good(), &|f| f.reverse.txt.ttl = Duration::from_secs(86_401)),
            Weak,
            "TTL 86401 s: a new key is not seen",
            Well,
        ),
        (
            change(good(), &|f| (f.reverse.txt.truncated, f.reverse.txt.tcp) = (true, true)),
            Weak,
            "does not fit into a UDP datagram",
            Well,
        ),
        (
            change(good(), &|f| {
                f.reverse.txt.aliases.push(Alias {
                    from: "11.2.0.192.in-addr.arpa.".to_owned(),
                    to: "11.0/26.2.0.192.in-addr.arpa.".to_owned(),
                    kind: "CNAME",
                    security: Security::Secure,
                });
            }),
            Info,
            "CNAME 11.2.0.192.in-addr.arpa. -> 11.0/26.2.0.192.in-addr.arpa. (secure)",
            Well,
        ),
        (
            change(good(), &|f| {
                f.reverse.servers =
                    vec![said("a.", Ok(vec!["one".to_owned()])), said("b.", Ok(vec![]))]
            }),
            Wrong,
            "b. (192.0.2.53) has 0 record(s) of ours",
            Failed,
        ),
        (
            change(good(), &|f| {
                f.reverse.servers = vec![said("a.", Ok(vec!["one".to_owned()])); 2]
            }),
            Info,
            "2 authoritative servers agree",
            Well,
        ),
        (
            change(facts(SeenOutcome::NoRecord), &|f| {
                f.reverse.txt.texts.clear();
                f.reverse.servers = vec![said("a.", Ok(vec!["one".to_owned()])); 2];
            }),
            Weak,
            "the zone's servers have 1 record(s) of ours by now",
            Failed,
        ),
        (
            change(good(), &|f| f.reverse.servers = vec![said("a.", Err(ServerSilence::Lame))]),
            Weak,
            "not authoritative",
            Well,
        ),
        (
            change(good(), &|f| {
                f.reverse.servers = vec![said("a.", Err(ServerSilence::Failed(Failure::Timeout)))]
            }),
            Info,
            "gave no answer from here: timeout",
            Well,
        ),
        (
            change(facts(SeenOutcome::NoRecord), &|f| {
                f.reverse.ipseckey.outcome = with(vec![record(".", Some(key()))])
            }),
            Weak,
            "only IPSECKEY is there",
            Well,
        ),
        (
            change(good(), &|f| f.reverse.ipseckey.outcome = with(vec![record(".", Some(key()))])),
            Info,
            "agrees with TXT",
            Well,
        ),
        (
            change(good(), &|f| {
                f.reverse.ipseckey.outcome = with(vec![record(".", Some(other()))])
            }),
            Wrong,
            "disagrees with TXT",
            Failed,
        ),
        (change(good(), &|f| f.host_key = Some(key().into())), Info, "is published here", Well),
        (
            change(good(), &|f| f.host_key = Some(other().into())),
            Wrong,
            "is not among those published",
            Failed,
        ),
        (
            behind(with(vec![record(".", Some(key()))])),
            Info,
            "198.51.100.1 says the same of itself",
            Well,
        ),
        (
            behind(with(vec![record(G, Some(other()))])),
            Wrong,
            "198.51.100.1 has another key here",
            Failed,
        ),
        (
            behind(with(vec![record(G, Some(other())), record(G, Some(key()))])),
            Weak,
            "publish",
            Well,
        ),
        (behind(SeenOutcome::NoRecord), Weak, "publishes no key of its own", Well),
        (
            change(behind(SeenOutcome::NoRecord), &|f| {
                f.reverse.txt.outcome = with(vec![record(G, None)])
            }),
            Wrong,
            "no key of 198.51.100.1 is published anywhere",
            Failed,
        ),
        (
            change(behind(with(vec![record(G, Some(key()))])), &|f| {
                f.reverse.txt.outcome = with(vec![record(G, None)])
            }),
            Info,
            "the key of 198.51.100.1 is taken from here",
            Well,
        ),
        (
            change(good(), &|f| f.probes = vec![(ip(D), Probed::Silent)]),
            Wrong,
            "no answer on UDP 500",
            Failed,
        ),
        (
            change(good(), &|f| f.probes = vec![(ip(D), Probed::PortClosed)]),
            Wrong,
            "nobody listens on UDP 500",
            Failed,
        ),
        (
            change(good(), &|f| f.probes = vec![(ip(D), Probed::Unsendable)]),
            Unknown,
            "no way to it",
            CouldNotCheck,
        ),
        (
            change(good(), &|f| {
                f.probes = vec![(ip(D), Probed::Answered { answer: Answer::Accepted, millis: 7 })]
            }),
            Info,
            "answered after 7 ms",
            Well,
        ),
        (
            change(good(), &|f| {
                f.probes =
                    vec![(ip(D), Probed::Answered { answer: Answer::Refused(14), millis: 7 })]
            }),
            Weak,
            "NO_PROPOSAL_CHOSEN",
            Well,
        ),
        (
            change(good(), &|f| {
                f.probes =
                    vec![(ip(D), Probed::Answered { answer: Answer::OtherVersion(1), millis: 7 })]
            }),
            Wrong,
            "only IKE version 1",
            Failed,
        ),
    ];
    for (facts, weight, text, verdict) in rows {
        let report = address(&facts, &against());
        if text != "publish" {
            says(&report, weight, text);
        }
        assert_eq!(report.verdict, verdict, "{text}: {:#?}", report.checks);
    }
}

#[test]
fn records_stand_in_the_order_in_which_they_are_tried() {
    let mut last = record(G, Some(key()));
    last.precedence = 20;
    let facts = facts(with(vec![last, record(D, Some(key()))]));
    let report = address(&facts, &against());
    let notes: Vec<&str> = report.checks[0].notes.iter().map(|n| n.text.as_str()).collect();
    assert!(notes[0].starts_with("gateway 192.0.2.11, itself; precedence 10"), "{notes:?}");
    assert!(notes[1].starts_with("gateway 198.51.100.1; precedence 20"), "{notes:?}");
    says(&report, Weight::Info, "negotiates with 192.0.2.11, then 198.51.100.1");
}
