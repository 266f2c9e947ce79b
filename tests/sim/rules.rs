//! Rules of opportunism that no other file here shows: lives, ageing, rollover, order of gateways.
//! The numbers are those of docs/RULES.md.

use std::net::IpAddr;
use std::time::Duration;

use dnskeys::{Name, Outcome, Security};
use keying::{Group, Groups, OwnRecord, StateName, What};
use sa::Prefix;

use crate::dns::records;
use crate::net::{Fate, Kind, Link, Net};
use crate::node::{Host, TestKey, seconds};
use crate::{EAST, WEST, ip, west_and_east};

const MINUTE: u64 = 60;

fn key(n: usize) -> Option<dnskeys::PublicKey> {
    Some(TestKey::nth(n).dns())
}

fn state(net: &Net, host: usize, peer: &str) -> Option<keying::Destination> {
    net.hosts[host].node.as_ref().unwrap().state_of(net.now, ip(peer))
}

fn counters(net: &Net) -> keying::Counters {
    *net.hosts[0].node.as_ref().unwrap().keying.counters()
}

/// West is a node; east is whoever it is.
fn west_and(east: Host) -> Net {
    let mut net = Net::new(11, Link::default());
    let (seed, now) = (net.seed(), net.now);
    net.add(Host::node(WEST, 0, seed, now));
    net.add(east);
    net.dns.publish(ip(WEST), ip(WEST), key(0), Security::Secure);
    net.drain(0);
    net.drain(1);
    net
}

/// Sends a ping a second; panics if one is not answered before the next.
fn talk(net: &mut Net, for_seconds: u64) {
    for _ in 0..for_seconds {
        let n = net.hosts[0].inbox.len();
        net.send(0, ip(EAST), &format!("ping {n}"));
        net.run(seconds(1));
        let (now, start) = (net.now, net.start);
        assert_eq!(net.hosts[0].inbox.len(), n + 1, "no answer at {:?}", now - start);
    }
}

fn lose_ike(net: &mut Net) {
    net.filter(|_, seen| match seen.kind {
        Kind::Ike { .. } => Fate::Lost,
        Kind::Esp | Kind::Clear => Fate::Link,
    });
}

/// Rules 16, 34, 35, 37.
#[test]
fn a_clear_flow_in_use_is_asked_about_again_and_never_held() {
    let mut net = west_and(Host::plain(EAST));
    talk(&mut net, 20 * MINUTE);
    assert_eq!(counters(&net).trapped, 1, "held once only");
    // Once a minute, the TTL, and half a minute of watching at most.
    let asked = counters(&net).queries;
    assert!((10..=40).contains(&asked), "{asked}");
    assert_eq!(state(&net, 0, EAST).unwrap().state, StateName::ClearText);
}

/// Rules 18, 34.
#[test]
fn a_clear_flow_that_nobody_uses_is_forgotten() {
    let mut net = west_and(Host::plain(EAST));
    talk(&mut net, 1);
    net.run(seconds(58));
    assert!(state(&net, 0, EAST).is_some(), "left by time only");
    net.run(seconds(40));
    assert!(state(&net, 0, EAST).is_none());
    let asked = counters(&net).queries;
    net.run(seconds(60 * MINUTE));
    assert_eq!(counters(&net).queries, asked, "nobody is asked about what nobody uses");
}

/// Rule 35, P16: the record is there, so is the node that it speaks of, and that one never calls. It
/// is west that finds out, by asking again, within the life of the "no".
#[test]
fn a_key_that_was_published_meanwhile_is_used_within_a_life() {
    let mut net = west_and(Host::plain(EAST));
    talk(&mut net, 30);
    let mut groups = Groups::new();
    groups.insert(Prefix::ALL_V4, Group::ClearOrPrivate);
    let (seed, now) = (net.seed(), net.now);
    net.hosts[1].start(1, groups, seed, now, |_| {});
    net.drain(1);
    net.dns.publish(ip(EAST), ip(EAST), key(1), Security::Secure);
    // The life is a minute, the TTL of the denial; then it is watched for half a minute at most.
    talk(&mut net, 90);
    assert_eq!(state(&net, 0, EAST).unwrap().state, StateName::Keyed);
    let called = net.hosts[1].node.as_ref().unwrap().keying.counters().calls;
    assert_eq!((counters(&net).calls, called), (1, 0));
}

/// Attack A35.
/// Rules 26, 34, 37, 59: one attempt in each life, which grows with the silence to ten minutes.
#[test]
fn a_silent_gateway_is_called_again_while_packets_pass() {
    let (mut net, start) = {
        let mut net = west_and_east(3, Link::default());
        lose_ike(&mut net);
        let start = net.now;
        net.send(0, ip(EAST), "ping first");
        (net, start)
    };
    // East is silent as far as IKE goes; so it must not call, or west would hear of it in the end.
    let mut groups = Groups::new();
    groups.insert(Prefix::ALL_V4, Group::ClearOrPrivate);
    let now = net.now;
    net.hosts[1].node.as_mut().unwrap().keying.handle_groups(now, groups);
    net.drain(1);
    assert!(net.run_until(seconds(20), |net| !net.hosts[0].inbox.is_empty()));
    assert!(net.now - start < seconds(10), "held for {:?}", net.now - start);
    assert!(state(&net, 0, EAST).unwrap().expires.unwrap() <= seconds(60));
    let mut called = vec![net.now];
    for _ in 0..50 * MINUTE {
        talk(&mut net, 1);
        if counters(&net).calls > u64::try_from(called.len()).unwrap() {
            called.push(net.now);
        }
    }
    // From one to the next it takes the life, the time to see that packets pass, and the call itself.
    let gaps: Vec<u64> = called.windows(2).map(|two| (two[1] - two[0]).as_secs()).collect();
    let (first, last) = (gaps[0], *gaps.last().unwrap());
    assert!((60..90).contains(&first) && (600..640).contains(&last), "{gaps:?}");
    assert!(gaps.windows(2).all(|two| two[1] <= 2 * two[0] + 40), "{gaps:?}");
    assert!(gaps.len() <= 8 && gaps.is_sorted(), "{gaps:?}");
    assert_eq!(counters(&net).trapped, 1);
    assert!(counters(&net).downgrades >= 3);
    // It answers at last.
    net.filter(|_, _| Fate::Link);
    talk(&mut net, 12 * MINUTE);
    assert_eq!(state(&net, 0, EAST).unwrap().state, StateName::Keyed);
}

/// Rule 35.
#[test]
fn a_record_that_became_bogus_ends_clear_text() {
    let mut net = west_and(Host::plain(EAST));
    talk(&mut net, 30);
    net.dns.set(ip(EAST), Security::Bogus, Outcome::Bogus);
    for _ in 0..2 * MINUTE {
        net.send(0, ip(EAST), "ping");
        net.run(seconds(1));
    }
    assert_eq!(state(&net, 0, EAST).unwrap().state, StateName::Deny);
}

/// Whom west called, in order.
fn called(net: &Net) -> Vec<IpAddr> {
    let reports = &net.hosts[0].node.as_ref().unwrap().reports;
    let gateway = |report: &keying::Report| match report.what {
        What::Calling { gateway } => Some(gateway),
        _ => None,
    };
    reports.iter().filter_map(gateway).collect()
}

/// Rules 25, 68, 73: every one is tried, the lowest precedence first, equal ones in random order.
#[test]
fn ties_are_tried_in_random_order() {
    let gateways = ["203.0.113.1", "203.0.113.2", "203.0.113.3"].map(ip);
    let last = ip("203.0.113.9");
    let mut firsts = std::collections::BTreeSet::new();
    for seed in 0..30 {
        let mut net = Net::new(seed, Link::default());
        let (seed, now) = (net.seed(), net.now);
        net.add(Host::node(WEST, 0, seed, now));
        net.drain(0);
        let mut list = vec![(20, last, key(1))];
        list.extend(gateways.map(|gateway| (10, gateway, key(1))));
        net.dns.set(ip(EAST), Security::Secure, Outcome::Records(records(&list)));
        net.send(0, ip(EAST), "ping");
        net.run(seconds(31));
        let order = called(&net);
        let mut sorted = order.clone();
        sorted.sort();
        assert_eq!(sorted[..3], gateways, "{order:?}");
        assert_eq!(order.last(), Some(&last), "{order:?}");
        firsts.insert(order[0]);
    }
    assert_eq!(firsts.len(), 3, "{firsts:?}");
}

/// Attack A3.
/// Rule 28: an authenticated refusal stands for the normal life.
#[test]
fn a_refusal_that_is_authentic_stands_for_longer() {
    // East is who it says, and does not serve the other address that names it.
    let other = "198.51.100.77";
    let mut net = west_and_east(4, Link::default());
    net.dns.publish(ip(other), ip(EAST), key(1), Security::Secure);
    net.send(0, ip(EAST), "ping");
    net.run(seconds(5));
    net.send(0, ip(other), "ping");
    net.run(seconds(5));
    let found = state(&net, 0, other).unwrap();
    assert_eq!(found.state, StateName::ClearText);
    assert!(found.expires.unwrap() > seconds(50 * MINUTE), "{found:?}");
}

/// Rule 29: a signature under another key stands for what is left of the answer.
#[test]
fn a_wrong_key_stands_for_the_rest_of_the_answer() {
    let mut net = west_and_east(5, Link::default());
    net.dns.publish(ip(EAST), ip(EAST), key(3), Security::Secure);
    net.send(0, ip(EAST), "ping");
    net.run(seconds(20));
    let found = state(&net, 0, EAST).unwrap();
    assert_eq!(found.state, StateName::ClearText);
    // The TTL is 300 s, and 20 of them are over.
    let left = found.expires.unwrap();
    assert!((seconds(270)..=seconds(281)).contains(&left), "{left:?}");
}

/// Rules 36, 50, 51: either direction alone is use.
#[test]
fn use_in_one_direction_keeps_a_pair() {
    for talker in [0, 1] {
        let mut net = west_and_east(6, Link::default());
        net.hosts[0].echo = false;
        net.hosts[1].echo = false;
        let peer = [EAST, WEST][talker];
        for n in 0..50 * MINUTE / 10 {
            net.send(talker, ip(peer), &format!("word {n}"));
            net.run(seconds(10));
        }
        for (host, peer) in [(0, EAST), (1, WEST)] {
            assert_eq!(state(&net, host, peer).unwrap().state, StateName::Keyed, "{talker}");
        }
        // Nobody else speaks: both ends close it.
        net.run(seconds(25 * MINUTE));
        assert!(state(&net, 0, EAST).is_none() && state(&net, 1, WEST).is_none(), "{talker}");
    }
}

/// Attack A33.
/// Rules 38, 55: who hears no answer to its Delete repeats it, and then forgets all the same.
#[test]
fn a_delete_that_nobody_answers_is_repeated_and_ends() {
    let mut net = west_and_east(7, Link::default());
    net.send(0, ip(EAST), "ping");
    net.run(seconds(2));
    lose_ike(&mut net);
    let before = net.wire.len();
    let now = net.now;
    net.hosts[0].node.as_mut().unwrap().keying.forget(now, ip(EAST));
    net.drain(0);
    net.run(seconds(30));
    let deletes = net.wire[before..].iter().filter(|s| matches!(s.kind, Kind::Ike { .. })).count();
    assert!(deletes >= 3, "{deletes}");
    let west = net.hosts[0].node.as_ref().unwrap();
    assert!(west.keying.peers(net.now).is_empty() && west.keying.is_idle());
    let closed = |report: &&keying::Report| matches!(&report.what, What::PairClosed { used, .. } if used.packets_out == 1);
    assert_eq!(west.reports.iter().filter(closed).count(), 1, "its counters are told");
}

/// Rules 47, 70, P16: a second key stands beside the first, and either is accepted; the pair outlives
/// the removal of the key that did not sign it, and not the removal of the one that did.
#[test]
fn a_rollover_with_two_records_breaks_nothing() {
    let both = |net: &mut Net, keys: &[usize]| {
        let list: Vec<_> = keys.iter().map(|k| (10, ip(EAST), key(*k))).collect();
        net.dns.set(ip(EAST), Security::Secure, Outcome::Records(records(&list)));
    };
    for (removed, stays) in [(&[1][..], true), (&[2][..], false)] {
        let mut net = west_and_east(8, Link::default());
        both(&mut net, &[2, 1]);
        net.send(0, ip(EAST), "ping 1");
        net.run(seconds(2));
        assert_eq!(state(&net, 0, EAST).unwrap().state, StateName::Keyed, "signs with key 1");
        both(&mut net, removed);
        for n in 0..70 * MINUTE {
            net.send(0, ip(EAST), &format!("word {n}"));
            net.run(seconds(1));
            if state(&net, 0, EAST).is_none_or(|d| d.state != StateName::Keyed) {
                break;
            }
        }
        let keyed = state(&net, 0, EAST).is_some_and(|d| d.state == StateName::Keyed);
        assert_eq!(keyed, stays, "{removed:?}");
    }
}

/// Rules 47, 70: a caller may sign with any of the keys that are published for it, wherever it
/// stands among them, and with no other.
#[test]
fn a_caller_may_use_any_of_its_published_keys() {
    for (published, accepted) in
        [(&[2, 0][..], true), (&[0, 2], true), (&[2, 3, 4, 0], true), (&[2, 3], false)]
    {
        let mut net = west_and_east(19, Link::default());
        let list: Vec<_> = published.iter().map(|k| (10, ip(WEST), key(*k))).collect();
        net.dns.set(ip(WEST), Security::Secure, Outcome::Records(records(&list)));
        net.hosts[1].echo = false;
        net.send(0, ip(EAST), "word");
        net.run(seconds(5));
        assert_eq!(counters(&net).calls, 1, "{published:?}");
        let found = state(&net, 1, WEST).map(|d| (d.state, d.trust));
        let pair = Some((StateName::Keyed, Some(sa::Trust::Dnssec)));
        assert_eq!(found == pair, accepted, "{published:?}: {found:?}");
        assert_eq!(net.clear_between(ip(WEST), ip(EAST)) == 0, accepted, "{published:?}");
    }
}

/// Rule 70: a key whose record is not out yet is not used.
#[test]
fn no_call_is_made_with_a_key_that_is_not_published() {
    for (policy, calls) in [(OwnRecord::Advise, 1), (OwnRecord::Require, 0)] {
        let mut net = Net::new(9, Link::default());
        let (seed, now) = (net.seed(), net.now);
        let mut west = Host::plain(WEST);
        west.start(0, Groups::packetdefault(), seed, now, |config| config.own_record = policy);
        net.add(west);
        let seed = net.seed();
        net.add(Host::node(EAST, 1, seed, now));
        net.dns.publish(ip(EAST), ip(EAST), key(1), Security::Secure);
        // Another key stands there: ours is still to come.
        net.dns.publish(ip(WEST), ip(WEST), key(2), Security::Secure);
        net.drain(0);
        net.drain(1);
        net.hosts[1].echo = false;
        net.send(0, ip(EAST), "word");
        net.run(seconds(5));
        assert_eq!(counters(&net).calls, calls, "{policy:?}");
        let found = state(&net, 0, EAST).unwrap();
        assert_eq!(found.state, StateName::ClearText, "{policy:?}");
        assert!(found.expires.unwrap() <= seconds(60), "{found:?}");
        let why = found.reason.unwrap().to_string();
        assert!(why.contains("our own records"), "{why}");
        let told = |r: &keying::Report| matches!(r.what, What::OwnRecord { .. });
        assert!(net.hosts[0].node.as_ref().unwrap().reports.iter().any(told));
        // It is published, and found within a short life.
        net.dns.publish(ip(WEST), ip(WEST), key(0), Security::Secure);
        for n in 0..7 * MINUTE {
            net.send(0, ip(EAST), &format!("word {n}"));
            net.run(seconds(1));
        }
        assert_eq!(state(&net, 0, EAST).unwrap().state, StateName::Keyed, "{policy:?}");
    }
}

/// Attack A5.
/// Rules 42, 61, 69, 74: who has no say in the reverse map calls by name, and cannot be called.
#[test]
fn a_host_without_a_reverse_record_calls_by_name() {
    let mut net = Net::new(10, Link::default());
    let (seed, now) = (net.seed(), net.now);
    let mut west = Host::plain(WEST);
    let name: Name = "west.example.".parse().unwrap();
    west.start(0, Groups::packetdefault(), seed, now, |config| {
        config.identity = Some(ike::Identity::Fqdn("west.example".to_owned()));
    });
    net.add(west);
    let seed = net.seed();
    net.add(Host::node(EAST, 1, seed, now));
    net.dns.publish(ip(EAST), ip(EAST), key(1), Security::Secure);
    net.drain(0);
    net.drain(1);
    let own = |key| {
        let mut set = records(&[(10, ip(WEST), key)]);
        set.gateways[0].gateway = dnskeys::Gateway::Name("west.example.".parse().unwrap());
        Outcome::Records(set)
    };
    // The name has another key: nothing.
    net.dns.set_name(name.clone(), Security::Secure, own(key(2)));
    net.send(0, ip(EAST), "ping 1");
    net.run(seconds(5));
    assert_eq!(state(&net, 0, EAST).unwrap().state, StateName::ClearText);
    net.dns.set_name(name, Security::Secure, own(key(0)));
    let now = net.now;
    net.hosts[0].node.as_mut().unwrap().keying.forget(now, ip(EAST));
    net.hosts[1].node.as_mut().unwrap().keying.forget(now, ip(WEST));
    net.drain(0);
    net.drain(1);
    net.send(0, ip(EAST), "ping 2");
    net.run(seconds(5));
    assert_eq!(state(&net, 0, EAST).unwrap().state, StateName::Keyed);
    let seen = state(&net, 1, WEST).unwrap();
    assert_eq!(seen.trust, Some(sa::Trust::Unauthenticated), "a name is no proof of an address");
    // And from the other side, once the pair is gone, nobody finds it.
    net.shutdown(0);
    net.run(seconds(2));
    net.send(1, ip(WEST), "word");
    net.run(seconds(5));
    assert_eq!(state(&net, 1, WEST).unwrap().state, StateName::ClearText);
}

/// Rule 27: how long silence is waited for can be set.
#[test]
fn how_long_a_silent_gateway_is_waited_for_can_be_set() {
    // Half a second at first, and twice as long each time.
    for (tries, millis) in [(0, 500), (1, 1500), (3, 7500), (4, 15_500)] {
        let mut net = Net::new(15, Link::default());
        let (seed, now) = (net.seed(), net.now);
        let mut west = Host::plain(WEST);
        west.start(0, Groups::packetdefault(), seed, now, |config| {
            config.ike.retransmit_tries = tries;
        });
        net.add(west);
        net.add(Host::plain(EAST));
        net.dns.publish(ip(EAST), ip(EAST), key(1), Security::Secure);
        net.drain(0);
        net.send(0, ip(EAST), "ping");
        assert!(net.run_until(seconds(40), |net| !net.hosts[0].inbox.is_empty()));
        let waited = net.now - net.start;
        let expected = Duration::from_millis(millis);
        assert!((expected..expected + seconds(1) / 5).contains(&waited), "{tries}: {waited:?}");
    }
}

/// Rule 64: a lookup keeps nobody waiting but the flow that it is for.
#[test]
fn a_slow_lookup_keeps_no_negotiation_waiting() {
    let slow = ip("203.0.113.50");
    for caller in [0, 1] {
        let mut net = west_and_east(16, Link::default());
        let quick = net.link.dns_us.clone();
        net.link.dns_us = 20_000_000..=20_000_000;
        net.send(0, slow, "word");
        net.link.dns_us = quick;
        let peer = [EAST, WEST][caller];
        net.send(caller, ip(peer), "ping");
        net.run(seconds(1));
        assert_eq!(net.hosts[caller].inbox, [(ip(peer), "pong".to_owned())], "{caller}");
        assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 0, "{caller}");
        let waits = state(&net, 0, "203.0.113.50").unwrap();
        assert_eq!(waits.state, StateName::PotentialOe, "{caller}");
        net.run(seconds(20));
        let found = state(&net, 0, "203.0.113.50").unwrap();
        assert_eq!(found.state, StateName::ClearText, "{caller}");
    }
}

/// Attack A6.
/// Rule 72: behind a NAT one can call, if one's own address is signed for; what nobody signed
/// speaks for the address that is seen. And one cannot be called.
#[test]
fn behind_a_nat_one_can_call_and_not_be_called() {
    let outside = ip("203.0.113.5");
    for (security, keyed) in [(Security::Secure, true), (Security::Insecure, false)] {
        let mut net = west_and_east(17, Link::default());
        net.put_behind_nat(0, outside);
        net.dns.publish(ip(WEST), ip(WEST), key(0), security);
        net.send(0, ip(EAST), "ping");
        net.run(seconds(5));
        assert_eq!(net.hosts[0].inbox, [(ip(EAST), "pong".to_owned())], "{security:?}");
        let found = state(&net, 0, EAST).unwrap();
        assert_eq!(found.state == StateName::Keyed, keyed, "{security:?}");
        assert_eq!(net.clear_between(outside, ip(EAST)) == 0, keyed, "{security:?}");
        let east = net.hosts[1].node.as_ref().unwrap();
        assert_eq!(east.keying.counters().visitors_refused == 0, keyed, "{security:?}");
        if keyed {
            // The way back is there for as long as the pair is.
            net.send(1, ip(WEST), "ping back");
            net.run(seconds(1));
            assert_eq!(net.hosts[1].inbox.last(), Some(&(ip(WEST), "pong back".to_owned())));
        }
    }
    let mut net = west_and_east(18, Link::default());
    net.put_behind_nat(0, outside);
    net.send(1, ip(WEST), "ping");
    net.run(seconds(31));
    let found = state(&net, 1, WEST).unwrap();
    assert_eq!(found.state, StateName::ClearText);
    assert_eq!(found.reason, Some(keying::Why::Gateway(ike::End::Timeout)));
    assert!(net.hosts[0].inbox.is_empty() && net.hosts[1].inbox.is_empty());
}

/// Attack A33.
/// Rules 31, 54, 57: a Delete ends both directions at both ends, and nobody calls anew for it.
#[test]
fn a_delete_from_the_peer_ends_both_directions() {
    let mut net = west_and_east(12, Link::default());
    net.send(0, ip(EAST), "ping");
    net.run(seconds(2));
    let now = net.now;
    net.hosts[1].node.as_mut().unwrap().keying.forget(now, ip(WEST));
    net.drain(1);
    net.run(seconds(5));
    for (host, peer) in [(0, EAST), (1, WEST)] {
        assert!(state(&net, host, peer).is_none());
        assert!(net.hosts[host].node.as_ref().unwrap().keying.is_idle());
    }
    let quiet = net.wire.len();
    net.run(Duration::from_secs(600));
    assert_eq!(net.wire.len(), quiet);
}
