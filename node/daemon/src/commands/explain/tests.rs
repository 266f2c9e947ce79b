//! What an administrator reads, for each state, from a running `Keying`.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use dnskeys::{Answer, Failure, Name, Outcome, RecordSet, Security};
use keying::{File, Group, Groups, Keying, Output, OwnRecord, WhenAdvertised};
use sa::{Flow, Notice};

use super::*;

const WEST: &str = "192.0.2.11";
const EAST: &str = "198.51.100.7";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn groups(group: Group, lines: &str) -> Groups {
    let mut groups = Groups::new();
    let file = File { name: group.to_string(), path: format!("/p/{group}") };
    groups.read_file(group, file, lines).unwrap();
    groups
}

fn keying(groups: Groups, now: Instant) -> Keying {
    let key = ike::PublicKey::Rsa { exponent: vec![1, 0, 1], modulus: vec![0xc5; 256] };
    let config = keying::Config {
        groups,
        connections: Vec::new(),
        served: Vec::new(),
        rules: dnskeys::Rules::default(),
        when_advertised: WhenAdvertised::Clear,
        null_auth: keying::NullAuth::Never,
        own_record: OwnRecord::Advise,
        pool: Vec::new(),
        translates: true,
        identity: None,
        addresses: vec![ip(WEST)],
        ike: ike::Config::new(key),
        destinations: keying::DESTINATIONS,
        lives: keying::Lives::default(),
    };
    Keying::new(config, [1; 32], now)
}

/// A packet is trapped, and DNS says this of its destination; twelve seconds later somebody asks.
fn explained(groups: Groups, outcome: Option<(Outcome, Security)>) -> String {
    let now = Instant::now();
    let mut keying = keying(groups, now);
    let flow = Flow::new(ip(WEST), ip(EAST)).unwrap();
    keying.handle_notice(now, Notice::Acquire { flow, protocol: 6, ports: (0, 0) });
    if let Some((outcome, security)) = outcome {
        let ttl = Duration::from_secs(300);
        let answer = |owner, outcome, security| Answer { owner, security, ttl, outcome };
        let own = answer(Name::reverse(ip(WEST)), Outcome::NoName, Security::Secure);
        keying.handle_answer(now, &own);
        keying.handle_answer(now, &answer(Name::reverse(ip(EAST)), outcome, security));
    }
    while let Some(output) = keying.poll_output() {
        drop::<Output>(output);
    }
    let later = now + Duration::from_secs(12);
    text(&crate::view::explanation(&keying.explain(later, ip(EAST)), None))
}

/// Every one of these stands in the text, in this order.
#[track_caller]
fn assert_says(text: &str, facts: &[&str]) {
    let mut rest = text;
    for fact in facts {
        let Some(at) = rest.find(fact) else { panic!("no {fact:?}, or not in order:\n{text}") };
        rest = &rest[at + fact.len()..];
    }
}

#[test]
fn clear_because_nothing_is_published() {
    let groups = groups(Group::PrivateOrClear, "# all\n0.0.0.0/0\n");
    let text = explained(groups, Some((Outcome::NoName, Security::Secure)));
    assert_says(
        &text,
        &[
            "198.51.100.7\n",
            "group        private-or-clear (0.0.0.0/0, /p/private-or-clear:2)",
            "dns          7.100.51.198.in-addr.arpa.: no such name, secure, 288 s left",
            "our record   192.0.2.11: no record in DNS",
            "12.0 s ago  trapped",
            "12.0 s ago  dns-answer",
            "12.0 s ago  clear ",
            "state        clear-text for 12 s, looked at again in 288 s",
            "because      no record in DNS",
            "next packet  goes in the clear",
            "to change    it has to publish a key; group private sends nothing instead",
        ],
    );
}

#[test]
fn denied_because_nothing_is_published() {
    let text = explained(
        groups(Group::Private, "198.51.100.0/24"),
        Some((Outcome::NoRecord, Security::Secure)),
    );
    assert_says(
        &text,
        &[
            "group        private (198.51.100.0/24, /p/private:1)",
            ": no key record, secure",
            "state        deny for 12 s",
            "because      no record in DNS",
            "next packet  is refused",
            "group private-or-clear talks to it in the clear",
        ],
    );
}

#[test]
fn denied_because_dnssec_fails() {
    let groups = groups(Group::PrivateOrClear, "0.0.0.0/0");
    let text = explained(groups, Some((Outcome::Bogus, Security::Bogus)));
    assert_says(
        &text,
        &[
            ": does not validate, bogus",
            "state        deny",
            "because      DNSSEC validation failed",
            "next packet  is refused",
            "oe-node verify --ip 198.51.100.7 says where; group clear overrides",
        ],
    );
}

#[test]
fn denied_because_of_malformed_records() {
    let malformed = vec![dnskeys::Malformed { source: dnskeys::Source::Txt, why: "precedence" }];
    let set = RecordSet { gateways: Vec::new(), malformed };
    let groups = groups(Group::PrivateOrClear, "0.0.0.0/0");
    let text = explained(groups, Some((Outcome::Records(set), Security::Secure)));
    assert_says(
        &text,
        &[
            "0 records, 1 malformed",
            "deny",
            "malformed records, and none that will do",
            "its zone is broken",
        ],
    );
}

#[test]
fn clear_for_a_minute_because_dns_does_not_answer() {
    let groups = groups(Group::PrivateOrClear, "0.0.0.0/0");
    let failed = Outcome::Failed(Failure::Timeout);
    let text = explained(groups, Some((failed, Security::Indeterminate)));
    assert_says(
        &text,
        &[
            "no answer (timeout)",
            "state        clear-text for 12 s, looked at again in 48 s",
            "because      no answer from DNS",
            "see that the resolver answers",
        ],
    );
}

#[test]
fn held_while_dns_is_asked_and_while_a_gateway_is_called() {
    let text = explained(groups(Group::Private, "0.0.0.0/0"), None);
    assert_says(
        &text,
        &["state        potential-oe", "next packet  is held until what is under way is decided"],
    );
    let key = dnskeys::RsaKey::new(&[1, 0, 1], &[0xc5; 256]).unwrap();
    let record = dnskeys::GatewayRecord {
        precedence: 10,
        gateway: dnskeys::Gateway::Address(ip("203.0.113.1")),
        key: Some(dnskeys::PublicKey::Rsa(key)),
        source: dnskeys::Source::Txt,
    };
    let set = RecordSet { gateways: vec![record], malformed: Vec::new() };
    let groups = groups(Group::Private, "0.0.0.0/0");
    let text = explained(groups, Some((Outcome::Records(set), Security::Secure)));
    assert_says(
        &text,
        &[
            ": 1 records, secure, 288 s left",
            "gateway      203.0.113.1: called",
            "calling",
            "state        pending-oe",
            "gateway      203.0.113.1",
            "next packet  is held",
        ],
    );
}

#[test]
fn what_was_never_talked_to() {
    let now = Instant::now();
    let of = |groups: Groups, address: &str| {
        text(&crate::view::explanation(&keying(groups, now).explain(now, ip(address)), None))
    };
    let said = of(groups(Group::Clear, "0.0.0.0/0"), EAST);
    assert_says(&said, &["group        clear", "next packet  goes in the clear", "to change"]);
    let said = of(groups(Group::Block, "0.0.0.0/0"), EAST);
    assert_says(&said, &["group        block", "next packet  is refused"]);
    let said = of(groups(Group::Private, "10.0.0.0/8"), EAST);
    assert_says(&said, &["group        clear (no prefix covers it)", "goes in the clear"]);
    let said = of(groups(Group::Private, "0.0.0.0/0"), EAST);
    assert_says(&said, &["next packet  is held while DNS is asked"]);
    let said = of(groups(Group::Private, "0.0.0.0/0"), WEST);
    assert_says(&said, &["next packet  never leaves this host"]);
}

#[test]
fn rules_for_single_ports_and_groups_of_ones_own() {
    let mut groups = groups(Group::Clear, "0.0.0.0/0\n198.51.100.0/24 6 0 25\n");
    let file = File { name: "shops".to_owned(), path: "/p/shops".to_owned() };
    groups.read_file(Group::Private, file, "198.51.100.0/24\n198.51.100.7/32 17 53 0").unwrap();
    let now = Instant::now();
    let said = text(&crate::view::explanation(&keying(groups, now).explain(now, ip(EAST)), None));
    assert_says(
        &said,
        &[
            "group        shops, a private (198.51.100.0/24, /p/shops:1)",
            "but          shops for protocol 17, ports 53 to any, /p/shops:2",
            "but          clear for protocol 6, ports any to 25, /p/clear:2",
            "next packet  is held while DNS is asked",
        ],
    );
}
