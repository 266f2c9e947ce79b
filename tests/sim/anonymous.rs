//! NULL authentication (RFC 7619): opportunism between hosts that publish nothing.

use dnskeys::{Outcome, Security};
use keying::{Destination, Group, Groups, NullAuth, StateName};
use sa::{Prefix, Trust};

use crate::net::{Kind, Link, Net};
use crate::node::{Host, TestKey, seconds};
use crate::{EAST, WEST, ip};

/// West and east with these settings; nothing is published for either.
fn unpublished(seed: u64, settings: [NullAuth; 2]) -> Net {
    let mut net = Net::new(seed, Link::default());
    for (key, addr) in [WEST, EAST].into_iter().enumerate() {
        let (seed, now) = (net.seed(), net.now);
        let mut host = Host::plain(addr);
        host.start(key, Groups::packetdefault(), seed, now, |config| {
            config.null_auth = settings[key];
        });
        net.add(host);
        net.dns.set(ip(addr), Security::Secure, Outcome::NoRecord);
        net.drain(key);
    }
    net
}

fn state(net: &Net, host: usize, peer: &str) -> Option<Destination> {
    net.hosts[host].node.as_ref().unwrap().state_of(net.now, ip(peer))
}

fn esp(net: &Net) -> usize {
    net.between(ip(WEST), ip(EAST)).filter(|s| s.kind == Kind::Esp).count()
}

#[test]
fn who_publishes_nothing_is_encrypted_to_all_the_same() {
    for called in [NullAuth::Accept, NullAuth::Call] {
        let mut net = unpublished(1, [NullAuth::Call, called]);
        net.send(0, ip(EAST), "ping 1");
        assert!(net.run_until(seconds(5), |net| !net.hosts[0].inbox.is_empty()), "{called:?}");
        assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 0);
        assert_eq!(esp(&net), 2);
        for (host, peer) in [(0, EAST), (1, WEST)] {
            let found = state(&net, host, peer).unwrap();
            assert_eq!((found.state, found.trust), (StateName::Keyed, Some(Trust::Anonymous)));
        }
    }
}

/// Off unless configured, at either end: then it is as if nobody had called.
#[test]
fn nobody_is_anonymous_unless_both_want_it() {
    for settings in [
        [NullAuth::Never, NullAuth::Call],
        [NullAuth::Accept, NullAuth::Call],
        [NullAuth::Call, NullAuth::Never],
    ] {
        let mut net = unpublished(2, settings);
        net.hosts[1].echo = false;
        net.send(0, ip(EAST), "word");
        net.run(seconds(20));
        assert_eq!(net.hosts[1].inbox.len(), 1, "{settings:?}");
        assert_eq!(esp(&net), 0, "{settings:?}");
        let found = state(&net, 0, EAST).unwrap();
        assert_eq!(found.state, StateName::ClearText, "{settings:?}");
        let why = found.reason.unwrap().to_string();
        assert!(why.contains("no record"), "{why}");
    }
}

/// Whoever publishes a key has to show it: anonymity is no way around it.
#[test]
fn a_published_key_must_be_shown() {
    let mut net = unpublished(3, [NullAuth::Call, NullAuth::Call]);
    // East can find west's record, west cannot: it calls east anonymously all the same.
    let key = TestKey::nth(5).dns();
    net.dns.publish(ip(WEST), ip(WEST), Some(key), Security::Secure);
    net.hosts[1].echo = false;
    net.send(0, ip(EAST), "word");
    net.run(seconds(20));
    assert_eq!(esp(&net), 0);
    assert!(state(&net, 1, WEST).is_none_or(|d| d.state != StateName::Keyed));
    assert_eq!(net.hosts[1].node.as_ref().unwrap().keying.counters().visitors_refused, 1);
}

/// `private` wants to know with whom it talks.
#[test]
fn private_has_nothing_to_do_with_nobody() {
    let mut net = Net::new(4, Link::default());
    for (key, addr) in [WEST, EAST].into_iter().enumerate() {
        let (seed, now) = (net.seed(), net.now);
        let mut groups = Groups::new();
        let all: Prefix = "0.0.0.0/0".parse().unwrap();
        let group = if key == 0 { Group::Private } else { Group::PrivateOrClear };
        groups.insert(all, group);
        let mut host = Host::plain(addr);
        host.start(key, groups, seed, now, |config| config.null_auth = NullAuth::Call);
        net.add(host);
        net.dns.set(ip(addr), Security::Secure, Outcome::NoRecord);
        net.drain(key);
    }
    net.send(0, ip(EAST), "word");
    net.send(1, ip(WEST), "word");
    net.run(seconds(20));
    assert_eq!(esp(&net), 0);
    assert!(net.hosts[1].inbox.is_empty());
    assert_eq!(state(&net, 0, EAST).unwrap().state, StateName::Deny);
}

/// P16: nobody can be called beside a pair with nobody, so a restart ends it, and is found as soon.
#[test]
fn who_publishes_nothing_and_restarts_is_found_by_traffic() {
    let mut net = unpublished(7, [NullAuth::Call, NullAuth::Accept]);
    net.send(0, ip(EAST), "ping 1");
    net.run(seconds(40));
    let (seed, now) = (net.seed(), net.now);
    let accepts = |config: &mut keying::Config| config.null_auth = NullAuth::Accept;
    net.hosts[1].start(1, Groups::packetdefault(), seed, now, accepts);
    net.hosts[1].echo = false;
    net.drain(1);
    net.hosts[1].inbox.clear();
    for n in 0..30 {
        net.send(0, ip(EAST), &format!("word {n}"));
        net.run(seconds(1));
    }
    assert!(!net.hosts[1].inbox.is_empty(), "not found in half a minute");
    assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 0);
}
