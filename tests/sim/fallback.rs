//! The decision table of the rules of opportunism, row by row, end to end: what DNS says decides
//! whether a destination is encrypted to, talked to in the clear, or not talked to.

use std::net::IpAddr;

use dnskeys::{Failure, Malformed, Outcome, Reason, RecordSet, Security, Source};
use keying::{Group, Groups, StateName, WhenAdvertised, Why};
use sa::Prefix;

use crate::dns::records;
use crate::net::{Fate, Kind, Link, Net};
use crate::node::{Host, TestKey, seconds};
use crate::{EAST, WEST, ip};

const GATEWAY: &str = "203.0.113.1";

/// What became of the first packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Became {
    Encrypted,
    Clear,
    Nothing,
}
use Became::{Clear, Encrypted, Nothing};

/// West in a group towards east; what east's record says; what becomes of a packet, and why.
fn outcome(group: Group, prepare: impl Fn(&mut Net)) -> (Became, keying::Destination) {
    outcome_with(group, |_| {}, prepare)
}

fn outcome_with(
    group: Group,
    change: impl FnOnce(&mut keying::Config),
    prepare: impl Fn(&mut Net),
) -> (Became, keying::Destination) {
    let mut net = Net::new(7, Link::default());
    let mut groups = Groups::new();
    groups.insert(Prefix::ALL_V4, group);
    let (seed, now) = (net.seed(), net.now);
    let mut west = Host::plain(WEST);
    west.start(0, groups, seed, now, change);
    net.add(west);
    let seed = net.seed();
    net.add(Host::node(EAST, 1, seed, now));
    let seed = net.seed();
    net.add(Host::node(GATEWAY, 2, seed, now));
    net.dns.publish(ip(WEST), ip(WEST), Some(TestKey::nth(0).dns()), Security::Secure);
    prepare(&mut net);
    for host in 0..3 {
        net.drain(host);
    }
    net.send(0, ip(EAST), "ping 1");
    net.run(seconds(20));
    let became = became(&net);
    let west = net.hosts[0].node.as_ref().unwrap();
    (became, west.state_of(net.now, ip(EAST)).expect("a state"))
}

fn became(net: &Net) -> Became {
    let answered = net.hosts[0].inbox.contains(&(ip(EAST), "pong 1".to_owned()));
    let clear = net.clear_between(ip(WEST), ip(EAST)) > 0;
    match (answered, clear) {
        (true, true) => Clear,
        (true, false) => Encrypted,
        (false, false) => Nothing,
        (false, true) => panic!("sent in the clear and not answered"),
    }
}

fn key(n: usize) -> Option<dnskeys::PublicKey> {
    Some(TestKey::nth(n).dns())
}

fn publish(gateway: &'static str, key_of: usize, security: Security) -> impl Fn(&mut Net) {
    move |net| net.dns.publish(ip(EAST), ip(gateway), key(key_of), security)
}

/// Rule 6.
#[test]
fn secure_record_of_its_own() {
    for group in [Group::PrivateOrClear, Group::Private] {
        let (became, state) = outcome(group, publish(EAST, 1, Security::Secure));
        assert_eq!((became, state.state), (Encrypted, StateName::Keyed), "{group}");
    }
}

/// Rule 24.
#[test]
fn secure_record_that_names_a_gateway_is_followed() {
    // The gateway does not serve east here, so the call is made and comes to nothing; what counts
    // is who was called.
    let gateway_called = |security| {
        let mut net = Net::new(8, Link::default());
        let (seed, now) = (net.seed(), net.now);
        net.add(Host::node(WEST, 0, seed, now));
        net.add(Host::plain(GATEWAY));
        net.dns.publish(ip(EAST), ip(GATEWAY), key(2), security);
        net.drain(0);
        net.send(0, ip(EAST), "ping 1");
        net.run(seconds(5));
        net.between(ip(WEST), ip(GATEWAY)).any(|s| matches!(s.kind, Kind::Ike { .. }))
    };
    assert!(gateway_called(Security::Secure));
    assert!(!gateway_called(Security::Insecure), "unsigned DNS may delegate only to itself");
}

/// P7.
#[test]
fn insecure_record_of_its_own() {
    let (became, state) = outcome(Group::PrivateOrClear, publish(EAST, 1, Security::Insecure));
    assert_eq!(became, Encrypted);
    assert_eq!(state.trust, Some(sa::Trust::Unauthenticated));
    let (became, state) = outcome(Group::Private, publish(EAST, 1, Security::Insecure));
    assert_eq!((became, state.state), (Nothing, StateName::Deny));
    let never = |config: &mut keying::Config| {
        config.rules.require_dnssec = dnskeys::RequireDnssec::Never;
    };
    let (became, _) = outcome_with(Group::Private, never, publish(EAST, 1, Security::Insecure));
    assert_eq!(became, Encrypted);
}

/// Attack A1.
/// Rule 23.
#[test]
fn insecure_record_that_names_another_is_no_record() {
    let (became, _) = outcome(Group::PrivateOrClear, publish(GATEWAY, 2, Security::Insecure));
    assert_eq!(became, Clear);
    let (became, state) = outcome(Group::Private, publish(GATEWAY, 2, Security::Insecure));
    assert_eq!((became, state.state), (Nothing, StateName::Deny));
}

/// Rules 6, 21.
#[test]
fn no_record() {
    for security in [Security::Secure, Security::Insecure] {
        for found in [Outcome::NoName, Outcome::NoRecord] {
            let set = |net: &mut Net| net.dns.set(ip(EAST), security, found.clone());
            assert_eq!(outcome(Group::PrivateOrClear, set).0, Clear);
            assert_eq!(outcome(Group::Private, set).0, Nothing);
        }
    }
}

/// Rule 22.
#[test]
fn malformed_record_is_not_the_absence_of_one() {
    for security in [Security::Secure, Security::Insecure] {
        for group in [Group::PrivateOrClear, Group::Private] {
            let (became, state) = outcome(group, |net| net.dns.malformed(ip(EAST), security));
            assert_eq!((became, state.state), (Nothing, StateName::Deny), "{group} {security:?}");
        }
    }
}

/// Rule 22.
/// P6.
#[test]
fn bogus_never_lowers_protection() {
    for group in [Group::PrivateOrClear, Group::Private] {
        let set = |net: &mut Net| net.dns.set(ip(EAST), Security::Bogus, Outcome::Bogus);
        assert_eq!(outcome(group, set).0, Nothing, "{group}");
        // Neither does a record that is there and does not validate.
        assert_eq!(outcome(group, publish(EAST, 1, Security::Bogus)).0, Nothing, "{group}");
    }
}

/// Rules 7, 21, 58.
#[test]
fn dns_failure_is_short_and_counted() {
    for failure in [Failure::Timeout, Failure::ServFail, Failure::Refused, Failure::Truncated] {
        let (became, state) =
            outcome(Group::PrivateOrClear, |net| net.dns.failed(ip(EAST), failure));
        assert_eq!(became, Clear, "{failure:?}");
        assert!(state.expires.unwrap() <= seconds(60));
        let (became, _) = outcome(Group::Private, |net| net.dns.failed(ip(EAST), failure));
        assert_eq!(became, Nothing, "{failure:?}");
    }
}

/// East's record is secure and nobody answers there.
fn silent(net: &mut Net) {
    net.dns.publish(ip(EAST), ip(EAST), key(1), Security::Secure);
    net.filter(|_, seen| match seen.kind {
        Kind::Ike { .. } => Fate::Lost,
        Kind::Esp | Kind::Clear => Fate::Link,
    });
}

/// Attack A15.
/// Rules 26, 59.
#[test]
fn silent_gateway_of_a_secure_record() {
    let (became, state) = outcome(Group::PrivateOrClear, silent);
    assert_eq!(became, Clear);
    assert!(state.expires.unwrap() <= seconds(60));
    let insist = |config: &mut keying::Config| config.when_advertised = WhenAdvertised::Insist;
    assert_eq!(outcome_with(Group::PrivateOrClear, insist, silent).0, Nothing);
    assert_eq!(outcome(Group::Private, silent).0, Nothing);
}

/// Rule 43.
#[test]
fn a_key_that_is_not_the_published_one_gets_nothing() {
    // East signs with its own key; DNS has another for it.
    for (group, expected) in [(Group::PrivateOrClear, Clear), (Group::Private, Nothing)] {
        let (became, _) = outcome(group, publish(EAST, 3, Security::Secure));
        assert_eq!(became, expected, "{group}");
    }
}

/// Rule 22: what can be read beside a record that cannot is tried. If it will not do, what is left
/// is a broken announcement, which is not the absence of one.
#[test]
fn a_malformed_record_beside_a_good_one() {
    let mixed = |net: &mut Net| {
        let mut set: RecordSet = records(&[(10, ip(EAST), key(1))]);
        set.malformed = vec![Malformed { source: Source::Txt, why: "precedence" }];
        net.dns.set(ip(EAST), Security::Secure, Outcome::Records(set));
    };
    for group in [Group::PrivateOrClear, Group::Private] {
        assert_eq!(outcome(group, mixed).0, Encrypted, "{group}");
        let (became, state) = outcome(group, |net| {
            silent(net);
            mixed(net);
        });
        assert_eq!((became, state.state), (Nothing, StateName::Deny), "{group}");
        assert_eq!(state.reason, Some(Why::Dns(Reason::Malformed)), "{group}");
        assert!(state.expires.unwrap() <= seconds(60), "{group}");
    }
}

/// Rule 22: beside one that cannot be read, records that nobody here can use are no more than none
/// at all. So it is where a gateway is named without a key, of that gateway's own record.
/// P6.
#[test]
fn a_malformed_record_beside_one_of_no_use() {
    let spoil = |mut set: RecordSet| {
        set.malformed = vec![Malformed { source: Source::Txt, why: "precedence" }];
        Outcome::Records(set)
    };
    for group in [Group::PrivateOrClear, Group::Private] {
        for unusable in
            [records(&[(10, ip("127.0.0.1"), key(1))]), records(&[(10, ip(EAST), None)])]
        {
            let answer = spoil(unusable);
            let set = |net: &mut Net| net.dns.set(ip(EAST), Security::Secure, answer.clone());
            let (became, state) = outcome(group, set);
            assert_eq!((became, state.state), (Nothing, StateName::Deny), "{group}");
            assert_eq!(state.reason, Some(Why::Dns(Reason::Malformed)), "{group}");
        }
        let (became, state) = outcome(group, |net| {
            net.dns.publish(ip(EAST), ip(GATEWAY), None, Security::Secure);
            let own = spoil(records(&[(10, ip("203.0.113.99"), key(2))]));
            net.dns.set(ip(GATEWAY), Security::Secure, own);
        });
        assert_eq!((became, state.state), (Nothing, StateName::Deny), "{group}");
        assert_eq!(state.reason, Some(Why::Dns(Reason::Malformed)), "{group}");
    }
}

/// Rules 25, 68.
#[test]
fn every_gateway_is_tried_in_order_of_precedence() {
    let dead: IpAddr = ip("203.0.113.99");
    let (became, state) = outcome(Group::Private, |net| {
        let set: RecordSet = records(&[(20, ip(EAST), key(1)), (10, dead, key(2))]);
        net.dns.set(ip(EAST), Security::Secure, Outcome::Records(set));
    });
    assert_eq!((became, state.state), (Encrypted, StateName::Keyed));
}

/// Rules 2, 7.
#[test]
fn groups_that_never_call() {
    let publish = publish(EAST, 1, Security::Secure);
    let run = |group| {
        let mut net = Net::new(9, Link::default());
        let mut groups = Groups::new();
        groups.insert(Prefix::ALL_V4, group);
        let (seed, now) = (net.seed(), net.now);
        let mut west = Host::plain(WEST);
        west.start(0, groups, seed, now, |_| {});
        net.add(west);
        net.add(Host::plain(EAST));
        publish(&mut net);
        net.drain(0);
        net.send(0, ip(EAST), "ping 1");
        net.run(seconds(5));
        became(&net)
    };
    assert_eq!(run(Group::Clear), Clear);
    assert_eq!(run(Group::ClearOrPrivate), Clear);
    assert_eq!(run(Group::Block), Nothing);
}
