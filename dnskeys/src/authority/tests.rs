use super::*;
use crate::answer::Failure;
use crate::key::tests::{key, key_e3};
use crate::record::{Malformed, Source};

const TTL: Duration = Duration::from_secs(600);

fn ip(s: &str) -> IpAddr {
    s.parse().unwrap()
}

fn d() -> IpAddr {
    ip("192.0.2.11")
}

fn good() -> PublicKey {
    key(2048, 0).into()
}

fn other() -> PublicKey {
    key(2048, 7).into()
}

fn name(s: &str) -> Name {
    s.parse().unwrap()
}

fn record(precedence: u16, gateway: Gateway, key: Option<PublicKey>) -> GatewayRecord {
    GatewayRecord { precedence, gateway, key, source: Source::Txt }
}

fn at(gateway: &str, key: Option<PublicKey>) -> GatewayRecord {
    let gateway = match gateway {
        "own" => Gateway::Own,
        text => match text.strip_prefix('@') {
            Some(text) => Gateway::Name(name(text)),
            None => Gateway::Address(ip(text)),
        },
    };
    record(10, gateway, key)
}

fn broken() -> Malformed {
    Malformed { source: Source::Txt, why: "key: not base64" }
}

fn records(gateways: Vec<GatewayRecord>) -> Outcome {
    Outcome::Records(RecordSet { gateways, malformed: Vec::new() })
}

fn answer(owner: Name, security: Security, outcome: Outcome) -> Answer {
    Answer { owner, security, ttl: TTL, outcome }
}

fn rules(require_dnssec: RequireDnssec) -> Rules {
    Rules { require_dnssec, ..Rules::default() }
}

/// What a cell of the table says, life left out for negotiations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cell {
    Call,
    Clear(Reason, Life),
    Deny(Reason, Life),
}

use Cell::{Call, Clear, Deny};

fn cell(verdict: &Verdict) -> Cell {
    match verdict {
        Verdict::Negotiate { life, .. } => {
            assert_eq!(*life, Life::Ttl(TTL));
            Call
        }
        Verdict::Clear { reason, life } => Clear(*reason, *life),
        Verdict::Deny { reason, life } => Deny(*reason, *life),
    }
}

/// Every row of the decision table, with every class and every demand for signatures.
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn the_decision_table() {
    use RequireDnssec::{Always, Never, Private};
    use Security::{Bogus, Indeterminate, Insecure, Secure};
    use Strictness::{Paranoid, Permissive};
    let ttl = Life::Ttl(TTL);
    let short = Life::Short;
    let columns = [
        (Permissive, Never),
        (Permissive, Private),
        (Permissive, Always),
        (Paranoid, Never),
        (Paranoid, Private),
        (Paranoid, Always),
    ];
    // Permissive first, then paranoid, the same whatever is demanded.
    let both = |poc: Cell, private: Cell| [poc, poc, poc, private, private, private];
    let falls = |reason, life| both(Clear(reason, life), Deny(reason, life));
    let denied = |reason| both(Deny(reason, short), Deny(reason, short));
    let unsigned = [
        Call,
        Call,
        Clear(Reason::Unsigned, ttl),
        Call,
        Deny(Reason::Unsigned, ttl),
        Deny(Reason::Unsigned, ttl),
    ];
    let own = || records(vec![at("192.0.2.11", Some(good()))]);
    let away = || records(vec![at("198.51.100.1", Some(good()))]);
    let only_malformed =
        || Outcome::Records(RecordSet { gateways: vec![], malformed: vec![broken()] });
    let mixed = |gateways| Outcome::Records(RecordSet { gateways, malformed: vec![broken()] });
    let weak = || key_e3(2192, 0).into();
    let ecdsa = || PublicKey::Other { algorithm: 3, octets: vec![7; 64] };
    let rows = [
        ("own gateway", Secure, own(), both(Call, Call)),
        (
            "IPSECKEY without gateway",
            Secure,
            records(vec![at("own", Some(good()))]),
            both(Call, Call),
        ),
        ("another gateway", Secure, away(), both(Call, Call)),
        (
            "another gateway without key",
            Secure,
            records(vec![at("198.51.100.1", None)]),
            both(Call, Call),
        ),
        ("own gateway, unsigned", Insecure, own(), unsigned),
        ("own gateway, nobody validated", Indeterminate, own(), unsigned),
        ("another gateway, unsigned", Insecure, away(), falls(Reason::UnsignedDelegation, ttl)),
        (
            "another gateway, nobody validated",
            Indeterminate,
            away(),
            falls(Reason::UnsignedDelegation, ttl),
        ),
        ("no record", Secure, Outcome::NoRecord, falls(Reason::NoRecord, ttl)),
        ("no name", Secure, Outcome::NoName, falls(Reason::NoRecord, ttl)),
        ("an empty set", Secure, records(vec![]), falls(Reason::NoRecord, ttl)),
        ("no record, unsigned", Insecure, Outcome::NoRecord, falls(Reason::NoRecord, short)),
        ("no name, unsigned", Insecure, Outcome::NoName, falls(Reason::NoRecord, short)),
        ("malformed", Secure, only_malformed(), denied(Reason::Malformed)),
        ("malformed, unsigned", Insecure, only_malformed(), denied(Reason::Malformed)),
        (
            "malformed beside a good one",
            Secure,
            mixed(vec![at("192.0.2.11", Some(good()))]),
            both(Call, Call),
        ),
        (
            "malformed beside an unsigned delegation",
            Insecure,
            mixed(vec![at("198.51.100.1", Some(good()))]),
            denied(Reason::Malformed),
        ),
        (
            "malformed beside a name",
            Secure,
            mixed(vec![at("@west.test", Some(good()))]),
            falls(Reason::NoUsableGateway, ttl),
        ),
        ("bogus", Bogus, Outcome::Bogus, denied(Reason::Bogus)),
        ("bogus outcome, whatever its status", Secure, Outcome::Bogus, denied(Reason::Bogus)),
        ("bogus status, whatever its outcome", Bogus, own(), denied(Reason::Bogus)),
        ("bogus denial", Bogus, Outcome::NoName, denied(Reason::Bogus)),
        (
            "timeout",
            Indeterminate,
            Outcome::Failed(Failure::Timeout),
            falls(Reason::DnsFailed, short),
        ),
        (
            "SERVFAIL",
            Indeterminate,
            Outcome::Failed(Failure::ServFail),
            falls(Reason::DnsFailed, short),
        ),
        (
            "REFUSED",
            Indeterminate,
            Outcome::Failed(Failure::Refused),
            falls(Reason::DnsFailed, short),
        ),
        (
            "truncated without TCP",
            Indeterminate,
            Outcome::Failed(Failure::Truncated),
            falls(Reason::DnsFailed, short),
        ),
        (
            "no network",
            Indeterminate,
            Outcome::Failed(Failure::Unreachable),
            falls(Reason::DnsFailed, short),
        ),
        (
            "only a name",
            Secure,
            records(vec![at("@west.test", Some(good()))]),
            falls(Reason::NoUsableGateway, ttl),
        ),
        (
            "only exponent 3",
            Secure,
            records(vec![at("192.0.2.11", Some(weak()))]),
            falls(Reason::WeakKey, ttl),
        ),
        (
            "only 1024 bits",
            Secure,
            records(vec![at("192.0.2.11", Some(key(1024, 0).into()))]),
            falls(Reason::WeakKey, ttl),
        ),
        (
            "only another algorithm",
            Secure,
            records(vec![at("192.0.2.11", Some(ecdsa()))]),
            falls(Reason::NoUsableGateway, ttl),
        ),
        (
            "own gateway without key",
            Secure,
            records(vec![at("192.0.2.11", None)]),
            falls(Reason::NoUsableGateway, ttl),
        ),
        (
            "weak and good",
            Secure,
            records(vec![at("192.0.2.11", Some(weak())), at("192.0.2.11", Some(good()))]),
            both(Call, Call),
        ),
        (
            "unsigned: own and away",
            Insecure,
            records(vec![at("198.51.100.1", Some(other())), at("192.0.2.11", Some(good()))]),
            unsigned,
        ),
    ];
    for (what, security, outcome, cells) in rows {
        let answer = answer(Name::reverse(d()), security, outcome);
        for ((strict, require), expected) in columns.into_iter().zip(cells) {
            let verdict = decide(d(), &answer, &rules(require), strict);
            assert_eq!(cell(&verdict), expected, "{what}, {strict:?}, {require:?}");
        }
    }
}

fn candidates(outcome: Outcome) -> Vec<Candidate> {
    let answer = answer(Name::reverse(d()), Security::Secure, outcome);
    match decide(d(), &answer, &Rules::default(), Strictness::Permissive) {
        Verdict::Negotiate { candidates, .. } => candidates,
        other => panic!("{other:?}"),
    }
}

#[test]
fn candidates_are_gateways_in_order() {
    let found = candidates(records(vec![
        record(20, Gateway::Address(ip("198.51.100.2")), Some(good())),
        record(10, Gateway::Address(ip("198.51.100.1")), None),
        record(30, Gateway::Own, Some(good())),
        record(5, Gateway::Address(d()), Some(other())),
        record(40, Gateway::Address(d()), Some(good())),
        record(1, Gateway::Name(name("west.test")), Some(good())),
        record(0, Gateway::Address(ip("127.0.0.1")), Some(good())),
        record(0, Gateway::Address(ip("198.51.100.9")), Some(key_e3(2048, 0).into())),
    ]));
    let expected = [
        Candidate { precedence: 5, gateway: d(), keys: vec![good(), other()] },
        Candidate { precedence: 10, gateway: ip("198.51.100.1"), keys: vec![] },
        Candidate { precedence: 20, gateway: ip("198.51.100.2"), keys: vec![good()] },
    ];
    assert_eq!(found, expected);
}

#[test]
fn configured_exponent_3_counts() {
    let outcome = records(vec![at("192.0.2.11", Some(key_e3(2192, 0).into()))]);
    let answer = answer(Name::reverse(d()), Security::Secure, outcome);
    let rules = Rules { allow_exponent_3: true, ..Rules::default() };
    assert_eq!(cell(&decide(d(), &answer, &rules, Strictness::Paranoid)), Call);
}

#[test]
fn life_is_capped() {
    let mut answer = answer(Name::reverse(d()), Security::Secure, Outcome::NoName);
    answer.ttl = Duration::from_secs(1 << 31);
    let verdict = decide(d(), &answer, &Rules::default(), Strictness::Permissive);
    assert_eq!(cell(&verdict), Clear(Reason::NoRecord, Life::Ttl(Rules::default().ttl_cap)));
}

#[test]
fn gateways_that_nobody_calls() {
    for gateway in [
        "0.1.2.3",
        "127.0.0.1",
        "127.255.255.254",
        "169.254.1.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "::",
        "::1",
        "ff02::1",
        "fe80::1",
        "::ffff:192.0.2.1",
        "::192.0.2.1",
        "fd00::1",
    ] {
        assert!(unusable(ip(gateway), d()).is_some(), "{gateway}");
        let outcome = records(vec![at(gateway, Some(good()))]);
        let answer = answer(Name::reverse(d()), Security::Secure, outcome);
        let verdict = decide(d(), &answer, &Rules::default(), Strictness::Permissive);
        assert_eq!(cell(&verdict), Clear(Reason::NoUsableGateway, Life::Ttl(TTL)), "{gateway}");
    }
    for (gateway, dest) in [
        ("192.0.2.1", "192.0.2.11"),
        ("192.0.2.1", "10.0.0.1"),
        ("10.0.0.2", "10.0.0.1"),
        ("192.168.7.1", "fd00::1"),
        ("172.32.0.1", "192.0.2.11"),
        ("100.128.0.1", "192.0.2.11"),
        ("2001:db8::1", "192.0.2.11"),
        ("169.253.1.1", "192.0.2.11"),
    ] {
        assert_eq!(unusable(ip(gateway), ip(dest)), None, "{gateway} for {dest}");
    }
}

/// One claim and what it must come to.
struct Case {
    what: &'static str,
    address: &'static str,
    speaker: &'static str,
    outer: Option<&'static str>,
    evidence: Vec<Answer>,
    expected: Result<Security, Refusal>,
}

fn speaker(text: &str) -> Speaker {
    text.parse().map_or_else(|_| Speaker::Name(name(text)), Speaker::Address)
}

fn check(
    case: &Case,
    key: &PublicKey,
    rules: &Rules,
    strict: Strictness,
) -> Result<Security, Refusal> {
    let speaker = speaker(case.speaker);
    let claim =
        Claim { address: ip(case.address), speaker: &speaker, key, outer: case.outer.map(ip) };
    let evidence: Vec<&Answer> = case.evidence.iter().collect();
    authorize(claim, &evidence, rules, strict).map(|proof| {
        assert_eq!(proof.address(), claim.address);
        assert_eq!(*proof.speaker(), speaker);
        assert!(proof.life() <= TTL);
        proof.security()
    })
}

fn rev(addr: &str, security: Security, gateways: Vec<GatewayRecord>) -> Answer {
    answer(Name::reverse(ip(addr)), security, records(gateways))
}

fn fwd(owner: &str, security: Security, gateways: Vec<GatewayRecord>) -> Answer {
    answer(name(owner), security, records(gateways))
}

fn none(addr: &str, outcome: Outcome) -> Answer {
    answer(Name::reverse(ip(addr)), Security::Insecure, outcome)
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn nobody_speaks_for_anothers_address() {
    use Security::{Bogus, Insecure, Secure};
    let v = "192.0.2.11";
    let g = "198.51.100.1";
    let k = || Some(good());
    let case = |what, speaker, evidence, expected| Case {
        what,
        address: v,
        speaker,
        outer: None,
        evidence,
        expected,
    };
    let by_name = |what, evidence, expected| Case {
        what,
        address: v,
        speaker: "west.test",
        outer: Some(v),
        evidence,
        expected,
    };
    let west = || fwd("west.test", Secure, vec![at("@west.test", k())]);
    let cases = vec![
        case("its own record", v, vec![rev(v, Secure, vec![at(v, k())])], Ok(Secure)),
        case(
            "its own record, IPSECKEY without gateway",
            v,
            vec![rev(v, Secure, vec![at("own", k())])],
            Ok(Secure),
        ),
        case("its own record, unsigned", v, vec![rev(v, Insecure, vec![at(v, k())])], Ok(Insecure)),
        case("no evidence", v, vec![], Err(Refusal::NoEvidence)),
        case(
            "evidence of another address",
            v,
            vec![rev(g, Secure, vec![at(v, k())])],
            Err(Refusal::NoEvidence),
        ),
        case(
            "another key",
            v,
            vec![rev(v, Secure, vec![at(v, Some(other()))])],
            Err(Refusal::OtherKey),
        ),
        case(
            "two keys, one of them this",
            v,
            vec![rev(v, Secure, vec![at(v, Some(other())), at(v, k())])],
            Ok(Secure),
        ),
        case(
            "keyless for itself",
            v,
            vec![rev(v, Secure, vec![at(v, None)])],
            Err(Refusal::OtherKey),
        ),
        case(
            "a key for itself beside a keyless record",
            v,
            vec![rev(v, Secure, vec![at(v, None), at("own", k())])],
            Ok(Secure),
        ),
        case("no record", v, vec![none(v, Outcome::NoRecord)], Err(Refusal::NoRecord)),
        case("no name", v, vec![none(v, Outcome::NoName)], Err(Refusal::NoRecord)),
        case("bogus", v, vec![rev(v, Bogus, vec![at(v, k())])], Err(Refusal::Bogus)),
        case("bogus outcome", v, vec![none(v, Outcome::Bogus)], Err(Refusal::Bogus)),
        case(
            "no answer",
            v,
            vec![none(v, Outcome::Failed(Failure::Timeout))],
            Err(Refusal::DnsFailed),
        ),
        case(
            "malformed",
            v,
            vec![none(
                v,
                Outcome::Records(RecordSet { gateways: vec![], malformed: vec![broken()] }),
            )],
            Err(Refusal::Malformed),
        ),
        // A gateway that claims the address of a host.
        case("named gateway", g, vec![rev(v, Secure, vec![at(g, k())])], Ok(Secure)),
        case(
            "gateway that is not named",
            g,
            vec![rev(v, Secure, vec![at(v, k())])],
            Err(Refusal::NotNamed),
        ),
        case(
            "gateway with a record of its own only",
            g,
            vec![rev(g, Secure, vec![at(g, k())])],
            Err(Refusal::NoEvidence),
        ),
        case(
            "gateway with a record of its own, victim silent",
            g,
            vec![none(v, Outcome::NoName), rev(g, Secure, vec![at(g, k())])],
            Err(Refusal::NoRecord),
        ),
        case(
            "IPSECKEY without gateway names only itself",
            g,
            vec![rev(v, Secure, vec![at("own", k())])],
            Err(Refusal::NotNamed),
        ),
        case(
            "named gateway, unsigned",
            g,
            vec![rev(v, Insecure, vec![at(g, k())])],
            Err(Refusal::UnsignedDelegation),
        ),
        case(
            "named with another key",
            g,
            vec![rev(v, Secure, vec![at(g, Some(other()))]), rev(g, Secure, vec![at(g, k())])],
            Err(Refusal::OtherKey),
        ),
        case(
            "named without key, own not asked",
            g,
            vec![rev(v, Secure, vec![at(g, None)])],
            Err(Refusal::NoEvidence),
        ),
        case(
            "named without key, own carries it",
            g,
            vec![rev(v, Secure, vec![at(g, None)]), rev(g, Secure, vec![at(g, k())])],
            Ok(Secure),
        ),
        case(
            "named without key, own unsigned",
            g,
            vec![rev(v, Secure, vec![at(g, None)]), rev(g, Insecure, vec![at("own", k())])],
            Ok(Insecure),
        ),
        case(
            "named without key, own has another",
            g,
            vec![rev(v, Secure, vec![at(g, None)]), rev(g, Secure, vec![at(g, Some(other()))])],
            Err(Refusal::OtherKey),
        ),
        case(
            "named without key, own delegates away",
            g,
            vec![rev(v, Secure, vec![at(g, None)]), rev(g, Secure, vec![at("198.51.100.2", k())])],
            Err(Refusal::NotNamed),
        ),
        case(
            "named without key, own bogus",
            g,
            vec![rev(v, Secure, vec![at(g, None)]), rev(g, Bogus, vec![at(g, k())])],
            Err(Refusal::Bogus),
        ),
        // Names.
        case(
            "named by name",
            "west.test",
            vec![rev(v, Secure, vec![at("@west.test", k())])],
            Ok(Secure),
        ),
        case(
            "another name",
            "east.test",
            vec![rev(v, Secure, vec![at("@west.test", k())])],
            Err(Refusal::NotNamed),
        ),
        case(
            "name without key",
            "west.test",
            vec![rev(v, Secure, vec![at("@west.test", None)]), west()],
            Ok(Secure),
        ),
        case(
            "named by name, unsigned",
            "west.test",
            vec![rev(v, Insecure, vec![at("@west.test", k())])],
            Err(Refusal::UnsignedDelegation),
        ),
        case(
            "a name has no address but its outer one",
            "west.test",
            vec![none(v, Outcome::NoName), west()],
            Err(Refusal::NoRecord),
        ),
        by_name("its outer address", vec![none(v, Outcome::NoName), west()], Ok(Secure)),
        by_name("its outer address, reverse not asked", vec![west()], Ok(Secure)),
        by_name(
            "its outer address, forward without gateway",
            vec![fwd("west.test", Secure, vec![at("own", k())])],
            Ok(Secure),
        ),
        by_name(
            "its outer address, forward unsigned",
            vec![fwd("west.test", Insecure, vec![at("@west.test", k())])],
            Ok(Insecure),
        ),
        by_name(
            "its outer address, reverse lame",
            vec![none(v, Outcome::Failed(Failure::ServFail)), west()],
            Ok(Secure),
        ),
        by_name(
            "its outer address, reverse names it, unsigned",
            vec![rev(v, Insecure, vec![at("@west.test", k())]), west()],
            Ok(Secure),
        ),
        by_name(
            "the address belongs to another",
            vec![rev(v, Secure, vec![at(v, Some(other()))]), west()],
            Err(Refusal::NotNamed),
        ),
        by_name(
            "the address names it with another key",
            vec![rev(v, Secure, vec![at("@west.test", Some(other()))]), west()],
            Err(Refusal::OtherKey),
        ),
        by_name("the address is bogus", vec![none(v, Outcome::Bogus), west()], Err(Refusal::Bogus)),
        by_name(
            "forward names another",
            vec![fwd("west.test", Secure, vec![at("@east.test", k())])],
            Err(Refusal::NotNamed),
        ),
        by_name(
            "forward has another key",
            vec![fwd("west.test", Secure, vec![at("@west.test", Some(other()))])],
            Err(Refusal::OtherKey),
        ),
        by_name(
            "forward of another name",
            vec![fwd("east.test", Secure, vec![at("@west.test", k())])],
            Err(Refusal::NoEvidence),
        ),
        Case {
            what: "the outer address of somebody else",
            address: v,
            speaker: "west.test",
            outer: Some(g),
            evidence: vec![west()],
            expected: Err(Refusal::NoEvidence),
        },
        Case {
            what: "an address no host has",
            address: "127.0.0.1",
            speaker: "127.0.0.1",
            outer: None,
            evidence: vec![rev("127.0.0.1", Secure, vec![at("own", k())])],
            expected: Err(Refusal::Address),
        },
        Case {
            what: "IPv6",
            address: "2001:db8::b",
            speaker: "2001:db8::b",
            outer: None,
            evidence: vec![rev("2001:db8::b", Secure, vec![at("2001:db8::b", k())])],
            expected: Ok(Secure),
        },
    ];
    let permissive = Rules::default();
    for case in &cases {
        let got = check(case, &good(), &permissive, Strictness::Permissive);
        assert_eq!(got, case.expected, "{}", case.what);
        // What policy demands is on top of what evidence shows.
        let strict = check(case, &good(), &permissive, Strictness::Paranoid);
        match case.expected {
            Ok(Secure) if case.what.ends_with("reverse lame") => {
                assert_eq!(strict, Err(Refusal::DnsFailed), "{}", case.what);
            }
            Ok(Secure) => assert_eq!(strict, got, "{}", case.what),
            Ok(_) => assert_eq!(strict, Err(Refusal::Unsigned), "{}", case.what),
            Err(_) => assert!(strict.is_err(), "{}", case.what),
        }
        let always = check(case, &good(), &rules(RequireDnssec::Always), Strictness::Permissive);
        assert_eq!(always.is_ok(), case.expected == Ok(Secure), "{}", case.what);
        let never = check(case, &good(), &rules(RequireDnssec::Never), Strictness::Permissive);
        assert_eq!(never, case.expected, "{}", case.what);
    }
}

#[test]
fn weak_keys_authenticate_nobody() {
    let v = "192.0.2.11";
    let e3: PublicKey = key_e3(2192, 0).into();
    let short: PublicKey = key(1024, 0).into();
    let ec = PublicKey::Other { algorithm: 3, octets: vec![7; 64] };
    let all = vec![at(v, Some(e3.clone())), at(v, Some(short.clone())), at(v, Some(ec.clone()))];
    let case = Case {
        what: "weak",
        address: v,
        speaker: v,
        outer: None,
        evidence: vec![rev(v, Security::Secure, all)],
        expected: Err(Refusal::WeakKey),
    };
    for key in [&e3, &short, &ec] {
        let got = check(&case, key, &Rules::default(), Strictness::Permissive);
        assert_eq!(got, case.expected);
    }
    let lenient = Rules { allow_exponent_3: true, ..Rules::default() };
    assert_eq!(check(&case, &e3, &lenient, Strictness::Permissive), Ok(Security::Secure));
    assert_eq!(check(&case, &short, &lenient, Strictness::Permissive), case.expected);
}

#[test]
fn a_proof_lives_as_long_as_its_evidence() {
    let (v, g) = ("192.0.2.11", "198.51.100.1");
    let mut near = rev(v, Security::Secure, vec![at(g, None)]);
    near.ttl = Duration::from_secs(86400);
    let mut far = rev(g, Security::Secure, vec![at(g, Some(good()))]);
    far.ttl = Duration::from_secs(30);
    let speaker = Speaker::Address(ip(g));
    let key = good();
    let claim = Claim { address: ip(v), speaker: &speaker, key: &key, outer: None };
    let proof = authorize(claim, &[&near, &far], &Rules::default(), Strictness::Paranoid).unwrap();
    assert_eq!(proof.life(), Duration::from_secs(30));
    far.ttl = Duration::from_secs(86400);
    let proof = authorize(claim, &[&near, &far], &Rules::default(), Strictness::Paranoid).unwrap();
    assert_eq!(proof.life(), Rules::default().ttl_cap);
}
