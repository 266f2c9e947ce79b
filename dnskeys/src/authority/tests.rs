use super::*;
use crate::answer::Failure;
use crate::decision::RequireDnssec;
use crate::fixtures::*;
use crate::key::tests::{key, key_e3};
use crate::record::GatewayRecord;

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

/// Attack A5.
/// Rules 42, 46, 73.
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
            "a name has no address but its outer one, whatever its key",
            "west.test",
            vec![rev(v, Secure, vec![at(v, k())]), west()],
            Err(Refusal::NotNamed),
        ),
        case(
            "a name has no address but its outer one",
            "west.test",
            vec![none(v, Outcome::NoName), west()],
            Err(Refusal::NoRecord),
        ),
        // A name proves who calls, not that it may have the address.
        by_name("its outer address", vec![none(v, Outcome::NoName), west()], Ok(Insecure)),
        by_name("its outer address, reverse not asked", vec![west()], Ok(Insecure)),
        by_name(
            "its outer address, forward without gateway",
            vec![fwd("west.test", Secure, vec![at("own", k())])],
            Ok(Insecure),
        ),
        by_name(
            "its outer address, forward unsigned",
            vec![fwd("west.test", Insecure, vec![at("@west.test", k())])],
            Ok(Insecure),
        ),
        by_name(
            "its outer address, reverse lame",
            vec![none(v, Outcome::Failed(Failure::ServFail)), west()],
            Ok(Insecure),
        ),
        by_name(
            "its outer address, reverse names it, unsigned",
            vec![rev(v, Insecure, vec![at("@west.test", k())]), west()],
            Ok(Insecure),
        ),
        by_name(
            "the address belongs to another",
            vec![rev(v, Secure, vec![at(v, Some(other()))]), west()],
            Err(Refusal::OtherKey),
        ),
        by_name(
            "the address belongs to another, IPSECKEY",
            vec![rev(v, Secure, vec![at("own", Some(other()))]), west()],
            Err(Refusal::OtherKey),
        ),
        by_name(
            "the address has the same key and calls by name",
            vec![rev(v, Secure, vec![at(v, k())])],
            Ok(Secure),
        ),
        by_name(
            "the address has the same key, unsigned, and calls by name",
            vec![rev(v, Insecure, vec![at("own", k())])],
            Ok(Insecure),
        ),
        by_name(
            "the address names a gateway with the same key",
            vec![rev(v, Secure, vec![at(g, k())]), west()],
            Err(Refusal::NotNamed),
        ),
        by_name(
            "the address has a record without key",
            vec![rev(v, Secure, vec![at(v, None)]), west()],
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
            Ok(Secure) => assert_eq!(strict, got, "{}", case.what),
            Ok(_) if case.what.ends_with("reverse lame") => {
                assert_eq!(strict, Err(Refusal::DnsFailed), "{}", case.what);
            }
            Ok(_) => assert_eq!(strict, Err(Refusal::Unsigned), "{}", case.what),
            Err(_) => assert!(strict.is_err(), "{}", case.what),
        }
        let always = check(case, &good(), &rules(RequireDnssec::Always), Strictness::Permissive);
        assert_eq!(always.is_ok(), case.expected == Ok(Secure), "{}", case.what);
        let never = check(case, &good(), &rules(RequireDnssec::Never), Strictness::Permissive);
        assert_eq!(never, case.expected, "{}", case.what);
    }
}

/// Who forges an unsigned answer can put his key into it, but he cannot call from the address.
/// Rule 23.
#[test]
fn unsigned_evidence_speaks_only_for_the_address_that_calls() {
    use Security::{Insecure, Secure};
    let v = "192.0.2.11";
    for (security, outer, expected) in [
        (Insecure, Some(v), Ok(Insecure)),
        (Insecure, Some("203.0.113.66"), Err(Refusal::UnsignedDelegation)),
        (Insecure, None, Ok(Insecure)),
        (Secure, Some("203.0.113.66"), Ok(Secure)),
    ] {
        let case = Case {
            what: "a caller from elsewhere",
            address: v,
            speaker: v,
            outer,
            evidence: vec![rev(v, security, vec![at(v, Some(good()))])],
            expected,
        };
        let got = check(&case, &good(), &Rules::default(), Strictness::Permissive);
        assert_eq!(got, expected, "{security:?} {outer:?}");
    }
}

/// CVE-2018-15836.
#[test]
fn weak_keys_authenticate_nobody() {
    let v = "192.0.2.11";
    let e3: PublicKey = key_e3(2192, 0).into();
    let short: PublicKey = key(1024, 0).into();
    let ec = PublicKey::Other { algorithm: 4, octets: vec![7; 57] };
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

/// Attack A10.
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
