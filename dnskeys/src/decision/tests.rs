use super::*;
use crate::answer::{Failure, RecordSet};
use crate::fixtures::*;
use crate::key::tests::{key, key_e3};
use crate::name::Name;

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
    let ed448 = || PublicKey::Other { algorithm: 4, octets: vec![7; 57] };
    let rows = [
        ("own gateway", Secure, own(), both(Call, Call)),
        (
            "IPSECKEY without gateway",
            Secure,
            records(vec![at("own", Some(good()))]),
            both(Call, Call),
        ),
        (
            "an elliptic key",
            Secure,
            records(vec![at("192.0.2.11", Some(PublicKey::EcdsaP256([7; 64])))]),
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
            denied(Reason::Malformed),
        ),
        (
            "malformed beside a weak key",
            Secure,
            mixed(vec![at("192.0.2.11", Some(weak()))]),
            denied(Reason::Malformed),
        ),
        (
            "malformed beside another algorithm",
            Secure,
            mixed(vec![at("192.0.2.11", Some(ed448()))]),
            denied(Reason::Malformed),
        ),
        (
            "malformed beside a gateway that no host is",
            Secure,
            mixed(vec![at("127.0.0.1", Some(good()))]),
            denied(Reason::Malformed),
        ),
        (
            "malformed beside a keyless record",
            Secure,
            mixed(vec![at("192.0.2.11", None)]),
            denied(Reason::Malformed),
        ),
        (
            "malformed beside an unsigned one",
            Insecure,
            mixed(vec![at("192.0.2.11", Some(good()))]),
            [
                Call,
                Call,
                Deny(Reason::Malformed, short),
                Call,
                Deny(Reason::Malformed, short),
                Deny(Reason::Malformed, short),
            ],
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
            records(vec![at("192.0.2.11", Some(ed448()))]),
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
