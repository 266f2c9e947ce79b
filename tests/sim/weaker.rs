//! Who has proved less takes nothing from who has proved more, and INITIAL_CONTACT ends nobody's SAs
//! but those of who says it.

use std::time::Duration;

use dnskeys::{Outcome, Security};
use keying::{Destination, Groups, NullAuth, StateName};
use sa::Trust;

use crate::dns::records;
use crate::net::{Kind, Link, Net, Seen};
use crate::node::{Host, Node, TestKey, seconds};
use crate::{EAST, WEST, ip};

const MALLORY: &str = "203.0.113.66";

fn key(n: usize) -> Option<dnskeys::PublicKey> {
    Some(TestKey::nth(n).dns())
}

fn state(net: &Net, host: usize, peer: &str) -> Option<Destination> {
    net.hosts[host].node.as_ref().unwrap().state_of(net.now, ip(peer))
}

fn heard(net: &Net, host: usize, text: &str) -> bool {
    net.hosts[host].inbox.iter().any(|(_, said)| said == text)
}

/// Two nodes that would also talk to somebody anonymous; their keys are in DNS, signed.
fn two(seed: u64) -> Net {
    let mut net = Net::new(seed, Link::default());
    for (n, addr) in [WEST, EAST].into_iter().enumerate() {
        net.add(Host::plain(addr));
        start(&mut net, n, n);
        net.dns.publish(ip(addr), ip(addr), key(n), Security::Secure);
    }
    net
}

/// A node with this key on that host, whatever ran there before.
fn start(net: &mut Net, host: usize, with: usize) {
    let (seed, now) = (net.seed(), net.now);
    net.hosts[host].start(with, Groups::packetdefault(), seed, now, |config| {
        config.null_auth = NullAuth::Call;
    });
    net.drain(host);
}

/// Mallory is at east's address for a while, as who is on the way may be; east itself is not heard
/// of meanwhile.
fn mallory_instead_of_east(net: &mut Net, with: usize) -> Option<Node> {
    let east = net.hosts[1].node.take();
    start(net, 1, with);
    east
}

/// West's pair with east, and how west trusts it.
fn pair(net: &Net) -> (StateName, Option<Trust>, usize, Option<Destination>) {
    let found = state(net, 0, EAST);
    let at = |d: &Destination| (d.state, d.trust, d.pairs);
    let (state, trust, pairs) = found.as_ref().map(at).unwrap();
    (state, trust, pairs, found)
}

/// What a weaker caller may show.
#[derive(Clone, Copy, Debug)]
enum Shows {
    /// Nothing, while the signed key is published.
    Nothing,
    /// Nothing, while a forged answer says that nothing is published.
    NothingForged,
    /// A key, for which a forged answer without signatures stands.
    Unsigned,
}

/// Attack A7.
/// Whoever is at the address of a peer that DNSSEC
/// speaks for gets neither its traffic nor its place, whichever end called for the good pair, and
/// east goes on with it.
#[test]
fn a_weaker_caller_takes_nothing_from_a_stronger_pair() {
    for caller in [0, 1] {
        for shows in [Shows::Nothing, Shows::NothingForged, Shows::Unsigned] {
            let case = format!("{caller} {shows:?}");
            let mut net = two(1);
            net.send(caller, ip([EAST, WEST][caller]), "ping 0");
            net.run(seconds(40));
            let (_, trust, ..) = pair(&net);
            assert_eq!(trust, Some(Trust::Dnssec), "{case}");
            let gone = Outcome::NoRecord;
            match shows {
                Shows::Nothing => {}
                Shows::NothingForged => net.dns.set(ip(EAST), Security::Insecure, gone.clone()),
                Shows::Unsigned => {
                    net.dns.publish(ip(EAST), ip(EAST), key(2), Security::Insecure);
                }
            }
            let east = mallory_instead_of_east(&mut net, 2);
            if !matches!(shows, Shows::Unsigned) {
                // It calls whom it takes for somebody that publishes nothing.
                net.dns.set(ip(WEST), Security::Secure, gone);
            }
            net.send(1, ip(WEST), "forged");
            net.run(Duration::from_millis(900));
            assert!(net.hosts[1].node.as_ref().unwrap().keying.counters().calls > 0, "{case}");
            assert!(!heard(&net, 0, "forged"), "{case}");
            let (state, trust, pairs, found) = pair(&net);
            let expected = (StateName::Keyed, Some(Trust::Dnssec), 1);
            assert_eq!((state, trust, pairs), expected, "{case}: {found:?}");
            // What west says meanwhile is for east.
            net.send(0, ip(EAST), "secret");
            net.run(Duration::from_millis(100));
            assert!(!heard(&net, 1, "secret"), "{case}");
            // East is back, and knows of nothing.
            net.hosts[1].node = east;
            let calls = net.hosts[0].node.as_ref().unwrap().keying.counters().calls;
            net.send(0, ip(EAST), "ping 1");
            net.run(seconds(1));
            assert!(heard(&net, 0, "pong 1"), "{case}");
            assert_eq!(net.hosts[0].node.as_ref().unwrap().keying.counters().calls, calls);
            let clear = |seen: &&Seen| seen.kind == Kind::Clear && seen.from == ip(WEST);
            assert_eq!(net.wire.iter().filter(clear).count(), 0, "{case}");
        }
    }
}

/// Attack A7.
/// The other way round: who proves more takes over at once.
#[test]
fn a_stronger_caller_replaces_a_weaker_pair() {
    let mut net = two(2);
    for addr in [WEST, EAST] {
        net.dns.set(ip(addr), Security::Secure, Outcome::NoRecord);
    }
    let mut before = None;
    for (security, trust) in [
        (None, Trust::Anonymous),
        (Some(Security::Insecure), Trust::Unauthenticated),
        (Some(Security::Secure), Trust::Dnssec),
    ] {
        for (n, addr) in [WEST, EAST].into_iter().enumerate() {
            if let Some(security) = security {
                net.dns.publish(ip(addr), ip(addr), key(n), security);
            }
        }
        // East starts anew, so that it is east that calls.
        start(&mut net, 1, 1);
        net.send(1, ip(WEST), "ping");
        net.run(seconds(5));
        let (state, now, _, found) = pair(&net);
        assert_eq!((state, now), (StateName::Keyed, Some(trust)), "{found:?}");
        assert!(before < now, "{before:?} {now:?}");
        before = now;
    }
}

/// Attack A8.
/// Who begins anew says that it knows of no other SA with
/// west. That ends what it had itself, and nothing of whoever else: another identity, another key
/// under the same identity, or nobody in particular.
#[test]
fn initial_contact_ends_only_the_callers_own() {
    /// Who says so: the host that it is on, its key, and what its address publishes.
    type Case = (usize, usize, Option<(Security, &'static [usize])>);
    let cases: [(&str, Case); 4] = [
        ("another identity", (2, 2, Some((Security::Secure, &[2])))),
        ("nobody in particular", (2, 2, None)),
        ("another key that is not published", (1, 2, Some((Security::Secure, &[1])))),
        ("another key that nobody signed", (1, 2, Some((Security::Insecure, &[1, 2])))),
    ];
    for (case, (host, with, published)) in cases {
        let mut net = two(3);
        net.add(Host::plain(MALLORY));
        net.send(0, ip(EAST), "ping 0");
        net.run(seconds(40));
        let at = ip([WEST, EAST, MALLORY][host]);
        match published {
            Some((security, keys)) => {
                let list: Vec<_> = keys.iter().map(|n| (10, at, key(*n))).collect();
                net.dns.set(at, security, Outcome::Records(records(&list)));
            }
            None => {
                net.dns.set(at, Security::Secure, Outcome::NoRecord);
                net.dns.set(ip(WEST), Security::Secure, Outcome::NoRecord);
            }
        }
        let east = (host == 1).then(|| net.hosts[1].node.take()).flatten();
        start(&mut net, host, with);
        net.send(host, ip(WEST), "hello");
        net.run(seconds(2));
        assert!(net.hosts[host].node.as_ref().unwrap().keying.counters().calls > 0, "{case}");
        let (state, trust, pairs, found) = pair(&net);
        let expected = (StateName::Keyed, Some(Trust::Dnssec), 1);
        assert_eq!((state, trust, pairs), expected, "{case}: {found:?}");
        if host == 1 {
            net.hosts[1].node = east;
        }
        let calls = net.hosts[0].node.as_ref().unwrap().keying.counters().calls;
        net.send(0, ip(EAST), "ping 1");
        net.run(seconds(1));
        assert!(heard(&net, 0, "pong 1"), "{case}");
        let after = net.hosts[0].node.as_ref().unwrap().keying.counters().calls;
        assert_eq!(after, calls, "{case}: nobody had to be called anew");
    }
}
