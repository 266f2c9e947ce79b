//! Attempts to make two nodes talk in the clear that could talk through a pair.

use std::net::IpAddr;
use std::time::Duration;

use dnskeys::{Failure, Outcome, Security};
use keying::{Destination, Group, Groups, StateName, What};
use sa::Prefix;

use crate::net::{Fate, Kind, Link, Net};
use crate::node::{Sent, TestKey, seconds};
use crate::{EAST, WEST, ip, packet, west_and_east};

/// Attack A18.
/// A clear packet "proves" that its sender has no encryption: anybody can send one in his name,
/// before there is a decision, while there is none yet, and after it. It opens nothing: what answers
/// it is held, and leaves through a pair.
#[test]
fn a_clear_packet_from_somebody_proves_nothing_about_him() {
    for group in [Group::PrivateOrClear, Group::Private] {
        for during in [false, true] {
            let case = format!("{group} {during}");
            let mut net = west_and_east(1, Link::default());
            let mut groups = Groups::new();
            groups.insert(Prefix::ALL_V4, group);
            let (seed, now) = (net.seed(), net.now);
            net.hosts[0].start(0, groups, seed, now, |_| {});
            net.drain(0);
            if during {
                net.send(0, ip(EAST), "ping first");
            }
            // West answers what it hears, as applications do: an echo, and a word of its own.
            for n in 0..20 {
                let forged = packet::build(ip(EAST), ip(WEST), &format!("ping forged {n}"));
                net.inject(Sent::Clear(forged));
                net.run(Duration::from_millis(5));
            }
            net.send(0, ip(EAST), "ping last");
            net.run(seconds(3));
            let from_west = |kind: Kind| {
                let of = |s: &&crate::net::Seen| s.kind == kind && s.from == ip(WEST);
                net.wire.iter().filter(of).count()
            };
            assert_eq!(from_west(Kind::Clear), 0, "{case}");
            assert!(from_west(Kind::Esp) > 0, "{case}");
            let west = net.hosts[0].node.as_ref().unwrap();
            assert_eq!(west.state_of(net.now, ip(EAST)).unwrap().state, StateName::Keyed, "{case}");
            let answer: (IpAddr, String) = (ip(EAST), "pong last".to_owned());
            assert!(net.hosts[0].inbox.contains(&answer), "{case}");
        }
    }
}

/// Attack A34.
/// West has decided that east is clear, and has an hour to think so; then east publishes a key and
/// calls. From then on west's packets are encrypted, those of the flow that was in the clear as well.
#[test]
fn who_was_clear_is_encrypted_to_when_it_calls() {
    let mut net = west_and_east(2, Link::default());
    net.dns.set(ip(EAST), Security::Secure, Outcome::NoRecord);
    net.hosts[1].echo = false;
    net.send(0, ip(EAST), "word");
    net.run(seconds(2));
    let state = |net: &Net| {
        let west = net.hosts[0].node.as_ref().unwrap();
        west.state_of(net.now, ip(EAST)).unwrap().state
    };
    assert_eq!(state(&net), StateName::ClearText);
    assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 1);
    let key = Some(TestKey::nth(1).dns());
    net.dns.publish(ip(EAST), ip(EAST), key, Security::Secure);
    net.send(1, ip(WEST), "ping");
    net.run(seconds(2));
    assert_eq!(net.hosts[1].inbox.last(), Some(&(ip(WEST), "pong".to_owned())));
    assert_eq!(state(&net), StateName::Keyed);
    net.send(0, ip(EAST), "word again");
    net.run(seconds(1));
    assert_eq!(net.hosts[1].inbox.last(), Some(&(ip(WEST), "word again".to_owned())));
    assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 1);
}

fn west_of_east(net: &Net) -> Option<Destination> {
    net.hosts[0].node.as_ref().unwrap().state_of(net.now, ip(EAST))
}

/// For how long west has been kept from encrypting to east.
fn downgraded(net: &Net) -> Option<Duration> {
    west_of_east(net).and_then(|d| d.downgraded)
}

/// Flows that went to clear text since the start, and which of them were said to be downgraded.
fn told(net: &Net) -> Vec<bool> {
    let reports = net.hosts[0].node.as_ref().unwrap().reports.iter();
    let clear = reports.filter_map(|report| match report.what {
        What::ClearText { downgraded, .. } => Some(downgraded),
        _ => None,
    });
    clear.collect()
}

fn lose_ike(net: &mut Net) {
    net.filter(|_, seen| match seen.kind {
        Kind::Ike { .. } => Fate::Lost,
        Kind::Esp | Kind::Clear => Fate::Link,
    });
}

fn talk(net: &mut Net, for_seconds: u64) {
    for _ in 0..for_seconds {
        net.send(0, ip(EAST), "ping");
        net.run(seconds(1));
    }
}

/// West with east where DNS says this of east.
fn west_and(security: Security, outcome: Outcome) -> Net {
    let mut net = west_and_east(3, Link::default());
    net.dns.set(ip(EAST), security, outcome);
    net
}

/// Attack A15.
/// Rules 26, 58, P2: whoever drops IKE keeps the destination in the clear, and it shows: since when,
/// through every further attempt and through a time in which nobody used the flow, until a pair comes
/// up.
#[test]
fn a_downgrade_shows_until_a_pair_comes_up() {
    let mut net = west_and_east(4, Link::default());
    // East would call by itself, and hear nothing.
    net.hosts[1].node = None;
    lose_ike(&mut net);
    let start = net.now;
    net.send(0, ip(EAST), "ping");
    assert_eq!(downgraded(&net), None, "held");
    assert!(net.run_until(seconds(60), |net| downgraded(net).is_some()));
    assert_eq!(west_of_east(&net).unwrap().state, StateName::ClearText);
    assert_eq!(told(&net), [true]);
    let first = net.now - downgraded(&net).unwrap();
    assert!(first - start < seconds(60));
    talk(&mut net, 25 * 60);
    assert_eq!(net.now - downgraded(&net).unwrap(), first, "the same through attempt and attempt");
    // Nobody talks: the flow is forgotten, and since when it has been so is not.
    net.run(seconds(30 * 60));
    assert_eq!(west_of_east(&net), None);
    net.send(0, ip(EAST), "ping");
    assert!(net.run_until(seconds(60), |net| downgraded(net).is_some()));
    assert_eq!(net.now - downgraded(&net).unwrap(), first);
    assert_eq!(told(&net), [true, true]);
    // At last they may.
    net.filter(|_, _| Fate::Link);
    let (seed, now) = (net.seed(), net.now);
    net.hosts[1].start(1, Groups::packetdefault(), seed, now, |_| {});
    net.drain(1);
    net.send(1, ip(WEST), "ping");
    net.run(seconds(5));
    let west = west_of_east(&net).unwrap();
    assert_eq!((west.state, west.downgraded), (StateName::Keyed, None));
    // And what happens to it later begins anew.
    lose_ike(&mut net);
    net.hosts[1].node = None;
    talk(&mut net, 220);
    let again = net.now - downgraded(&net).expect("in the clear again");
    assert!(again > now, "{:?}", again - start);
}

/// Rule 58: who publishes nothing is in the clear and not downgraded, and of whom nobody has heard, a
/// failure of DNS is counted only.
#[test]
fn who_publishes_nothing_is_not_downgraded() {
    for outcome in [Outcome::NoRecord, Outcome::NoName] {
        let mut net = west_and(Security::Insecure, outcome);
        talk(&mut net, 200);
        assert_eq!(west_of_east(&net).unwrap().state, StateName::ClearText);
        assert_eq!((downgraded(&net), told(&net)), (None, vec![false]));
        assert_eq!(net.hosts[0].node.as_ref().unwrap().keying.counters().downgrades, 0);
    }
    let mut net = west_and(Security::Indeterminate, Outcome::Failed(Failure::Timeout));
    talk(&mut net, 20);
    assert_eq!(west_of_east(&net).unwrap().state, StateName::ClearText);
    assert_eq!((downgraded(&net), told(&net)), (None, vec![false]));
    assert_eq!(net.hosts[0].node.as_ref().unwrap().keying.counters().downgrades, 1);
}

/// Attack A15.
/// Rule 58: whoever had a pair before, since this start or the one before it, and whose DNS does not
/// answer now, is downgraded, until DNS says that it publishes nothing any more.
#[test]
fn dns_that_dies_after_a_pair_is_a_downgrade() {
    for restarted in [false, true] {
        let mut net = west_and_east(5, Link::default());
        talk(&mut net, 3);
        assert_eq!(west_of_east(&net).unwrap().state, StateName::Keyed, "{restarted}");
        let memory = net.hosts[0].node.as_ref().unwrap().keying.remembered();
        net.dns.failed(ip(EAST), Failure::Timeout);
        net.hosts[1].node = None;
        if restarted {
            let (seed, now) = (net.seed(), net.now);
            net.hosts[0].start(0, Groups::packetdefault(), seed, now, |_| {});
            let west = net.hosts[0].node.as_mut().unwrap();
            west.keying.handle_memory(now, memory);
            net.drain(0);
        }
        talk(&mut net, 220);
        assert!(downgraded(&net).is_some(), "{restarted}: {:?}", west_of_east(&net));
        assert_eq!(told(&net), [true], "{restarted}");
        net.dns.set(ip(EAST), Security::Secure, Outcome::NoRecord);
        talk(&mut net, 200);
        assert_eq!(west_of_east(&net).unwrap().state, StateName::ClearText, "{restarted}");
        assert_eq!(downgraded(&net), None, "{restarted}");
    }
}
