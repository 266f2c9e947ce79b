//! What is no longer authorised is not received on from the moment of the verdict, whether the peer
//! hears of it or not (RFC 7296 §1.4.1).

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use dnskeys::{Outcome, Security};
use keying::{Group, Groups, Start, StateName, What};
use sa::Prefix;

use crate::connection::{connection, net_of};
use crate::net::{Fate, Kind, Link, Net};
use crate::node::{Host, Sent, TestKey, seconds};
use crate::{EAST, WEST, ip, west_and_east};

const MINUTE: u64 = 60;

const INFORMATIONAL: u8 = 37;

/// What a Delete is said with is lost.
fn lose_deletes(net: &mut Net) {
    net.filter(|_, seen| match seen.kind {
        Kind::Ike { exchange: INFORMATIONAL, .. } => Fate::Lost,
        Kind::Ike { .. } | Kind::Esp | Kind::Clear => Fate::Link,
    });
}

/// Something is said each second until west has its verdict, and no moment longer.
fn until_refused(net: &mut Net, mut say: impl FnMut(&mut Net, u64)) {
    for n in 0..70 * MINUTE {
        let end = net.now + seconds(1);
        say(net, n);
        if net.run_until(seconds(1), is_refused) {
            return;
        }
        net.run(end - net.now);
    }
    panic!("no verdict");
}

fn heard(net: &Net, host: usize, text: &str) -> bool {
    net.hosts[host].inbox.iter().any(|(_, said)| said == text)
}

fn reload(net: &mut Net, group: Group) {
    let mut groups = Groups::packetdefault();
    groups.insert(Prefix::host(ip(EAST)), group);
    let now = net.now;
    net.hosts[0].node.as_mut().unwrap().keying.handle_groups(now, groups);
    net.drain(0);
}

fn is_refused(net: &Net) -> bool {
    let reports = &net.hosts[0].node.as_ref().unwrap().reports;
    reports.iter().any(|report| matches!(report.what, What::NoLongerAuthorized(_)))
}

fn unknown(net: &Net) -> u64 {
    net.hosts[0].node.as_ref().unwrap().plane.counters().unknown_spi
}

/// How a pair that west has with east ends for cause.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cause {
    Withdrawn,
    OtherKey,
    Policy(Group),
}

const CAUSES: [Cause; 5] = [
    Cause::Withdrawn,
    Cause::OtherKey,
    Cause::Policy(Group::Block),
    Cause::Policy(Group::Clear),
    Cause::Policy(Group::Private),
];

/// East talks to west under a pair of theirs, until west knows that east may not.
fn judged(seed: u64, cause: Cause) -> Net {
    let mut net = west_and_east(seed, Link::default());
    if cause == Cause::Policy(Group::Private) {
        // Nobody has signed for it: that is not enough for `private`.
        let key = Some(TestKey::nth(1).dns());
        net.dns.publish(ip(EAST), ip(EAST), key, Security::Insecure);
    }
    net.send(0, ip(EAST), "ping");
    net.run(seconds(2));
    net.send(1, ip(WEST), "before");
    net.run(seconds(2));
    assert!(heard(&net, 0, "pong") && heard(&net, 0, "before"));
    assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 0);
    lose_deletes(&mut net);
    match cause {
        Cause::Policy(group) => reload(&mut net, group),
        Cause::Withdrawn => net.dns.set(ip(EAST), Security::Secure, Outcome::NoRecord),
        Cause::OtherKey => {
            let key = Some(TestKey::nth(2).dns());
            net.dns.publish(ip(EAST), ip(EAST), key, Security::Secure);
        }
    }
    if !matches!(cause, Cause::Policy(_)) {
        until_refused(&mut net, |net, n| {
            net.send(1, ip(WEST), &format!("ping {n}"));
            assert!(n == 0 || heard(net, 1, &format!("pong {}", n - 1)), "{cause:?}: {n}");
        });
    }
    net
}

/// Rules 35, 47, 70: the peer's record is withdrawn or names another key, or our own policy is
/// another; the peer hears nothing of our Delete and sends on. Not one packet is taken.
#[test]
fn nothing_is_received_on_what_is_revoked() {
    for (seed, cause) in (1..).zip(CAUSES) {
        let mut net = judged(seed, cause);
        // In the end east takes west for silent, and falls back: that is not looked at here.
        net.filter(|_, seen| match seen.kind {
            Kind::Ike { .. } | Kind::Clear => Fate::Lost,
            Kind::Esp => Fate::Link,
        });
        let (before, dropped) = (net.hosts[0].inbox.len(), unknown(&net));
        for n in 0..4 * MINUTE {
            net.send(1, ip(WEST), &format!("late {n}"));
            net.run(seconds(1));
        }
        // What was on its way when the verdict came is not taken either.
        assert_eq!(net.hosts[0].inbox.get(before), None, "{cause:?}");
        assert!(unknown(&net) - dropped >= 150, "{cause:?}: {}", unknown(&net) - dropped);
        let west = net.hosts[0].node.as_ref().unwrap();
        assert!(west.keying.is_idle() && west.keying.peers(net.now).is_empty(), "{cause:?}");
        let closed = |report: &&keying::Report| matches!(&report.what, What::PairClosed { used, .. } if used.packets_in > 0);
        assert_eq!(west.reports.iter().filter(closed).count(), 1, "its counters are told once");
    }
}

/// Rules 38, 55: the peer is told all the same, as soon as it hears again; what it answers and what it says under the
/// old IKE SA until then changes nothing.
#[test]
fn the_peer_is_told_as_soon_as_it_hears() {
    for (seed, cause) in (11..).zip(CAUSES) {
        let mut net = judged(seed, cause);
        let before = net.hosts[0].inbox.len();
        for n in 0..2 {
            net.send(1, ip(WEST), &format!("late {n}"));
            net.run(seconds(1));
        }
        // What is lost once more is the answer to the Delete.
        let mut lost = 0;
        net.filter(move |_, seen| {
            let answer =
                seen.from == ip(EAST) && matches!(seen.kind, Kind::Ike { response: true, .. });
            lost += usize::from(answer);
            if answer && lost == 1 { Fate::Lost } else { Fate::Twice }
        });
        net.run(seconds(60));
        let west = net.hosts[0].node.as_ref().unwrap();
        assert!(west.keying.is_idle(), "{cause:?}");
        let east = net.hosts[1].node.as_ref().unwrap();
        assert!(east.keying.is_idle(), "{cause:?}: east has heard of it");
        assert_eq!(net.hosts[0].inbox.len(), before, "{cause:?}");
        // The record, or the policy, is as it was: they find each other again.
        let key = Some(TestKey::nth(1).dns());
        net.dns.publish(ip(EAST), ip(EAST), key, Security::Secure);
        net.filter(|_, _| Fate::Link);
        reload(&mut net, Group::PrivateOrClear);
        net.run(seconds(20 * MINUTE));
        net.send(0, ip(EAST), "ping again");
        net.run(seconds(3));
        assert!(heard(&net, 0, "pong again"), "{cause:?}");
        let state = net.hosts[0].node.as_ref().unwrap().state_of(net.now, ip(EAST));
        assert_eq!(state.unwrap().state, StateName::Keyed, "{cause:?}");
    }
}

/// An answer that comes when policy has become another is not taken: not to a call, and not to a request
/// for a child.
#[test]
fn what_was_asked_for_under_another_policy_is_not_taken() {
    for group in [Group::Block, Group::Clear] {
        for after in 0..12 {
            let mut net = west_and_east(21, Link::default());
            net.send(0, ip(EAST), "ping");
            net.run(Duration::from_millis(10 * after));
            reload(&mut net, group);
            let node = |net: &Net, host: usize| {
                let node = net.hosts[host].node.as_ref().unwrap();
                node.keying.peers(net.now).iter().map(|peer| peer.pairs).sum::<usize>()
            };
            net.run(seconds(3));
            assert_eq!(node(&net, 0), 0, "{group} after {after}0 ms");
            net.run(seconds(30));
            assert_eq!(node(&net, 1), 0, "{group} after {after}0 ms: east was told");
            let state = net.hosts[0].node.as_ref().unwrap().state_of(net.now, ip(EAST));
            assert_ne!(state.map(|d| d.state), Some(StateName::Keyed));
        }
    }
}

/// West has just replaced its pair with east, whose record may be withdrawn; what east sent on the old
/// one, and has not arrived yet.
fn replaced(seed: u64, withdrawn: bool) -> (Net, Vec<Sent>) {
    let mut net = west_and_east(seed, Link { dns_us: 300_000..=300_000, ..Link::default() });
    net.hosts[0].node.as_mut().unwrap().plane.hard_packets = Some(100);
    net.tapped = Some(Vec::new());
    let delayed = Rc::new(Cell::new(false));
    let hold_up = Rc::clone(&delayed);
    net.filter(move |_, seen| match seen.kind {
        Kind::Esp if seen.from == ip(EAST) && hold_up.get() => Fate::Lost,
        Kind::Esp | Kind::Ike { .. } | Kind::Clear => Fate::Link,
    });
    net.send(0, ip(EAST), "ping");
    net.run(seconds(2));
    let spi = |net: &Net| {
        let found = net.hosts[0].node.as_ref().unwrap().state_of(net.now, ip(EAST));
        found.and_then(|d| d.spi_in)
    };
    let first = spi(&net);
    assert!(first.is_some());
    if withdrawn {
        net.dns.set(ip(EAST), Security::Secure, Outcome::NoRecord);
    }
    let mut late = Vec::new();
    while spi(&net) == first {
        delayed.set(true);
        net.send(1, ip(WEST), &format!("late {}", late.len()));
        delayed.set(false);
        late.extend(net.tapped.as_ref().unwrap().last().cloned());
        net.send(0, ip(EAST), "ping");
        net.run(Duration::from_millis(50));
        assert!(late.len() < 200);
    }
    // The old one is deleted at both ends by now, and nobody has had an answer of DNS.
    net.run(Duration::from_millis(100));
    (net, late)
}

/// It arrives now.
fn arrives(net: &mut Net, host: usize, (sent, text): (&Sent, &str)) -> bool {
    net.inject(sent.clone());
    net.run(Duration::from_millis(5));
    heard(net, host, text)
}

/// What was replaced a moment ago is heard no longer either if policy is another, also if the flow has been
/// forgotten meanwhile.
#[test]
fn what_was_replaced_is_not_heard_under_another_policy() {
    for group in [Group::PrivateOrClear, Group::ClearOrPrivate, Group::Block, Group::Clear] {
        let (mut net, late) = replaced(42, false);
        let now = net.now;
        net.hosts[0].node.as_mut().unwrap().keying.forget(now, ip(EAST));
        net.drain(0);
        assert!(arrives(&mut net, 0, (&late[late.len() - 2], &format!("late {}", late.len() - 2))));
        reload(&mut net, group);
        let at = late.len() - 3;
        let taken = arrives(&mut net, 0, (&late[at], &format!("late {at}")));
        assert_eq!(taken, group.accepts(), "{group}");
    }
}

/// Rules 47, 56: a pair that another has replaced is heard for a moment longer, because packets are on
/// their way; and no longer, if the records that are asked for again at every replacement say that its
/// peer may have neither.
#[test]
fn what_was_replaced_is_heard_for_as_long_as_its_peer_may_speak() {
    for withdrawn in [false, true] {
        let (mut net, late) = replaced(41, withdrawn);
        let say = |net: &mut Net, back: usize| {
            let at = late.len() - back;
            arrives(net, 0, (&late[at], &format!("late {at}")))
        };
        assert!(say(&mut net, 2), "{withdrawn}");
        assert!(!is_refused(&net));
        net.run(Duration::from_millis(300));
        assert_eq!(is_refused(&net), withdrawn);
        assert_eq!(say(&mut net, 3), !withdrawn);
        net.run(seconds(3));
        assert!(!say(&mut net, 4), "{withdrawn}");
    }
}

/// West with one host behind it, east with two, all under one IKE SA.
fn site(seed: u64) -> Net {
    let mut net = Net::new(seed, Link::default());
    for (n, (gateway, behind)) in [(WEST, &[ALICE][..]), (EAST, &[BOB, BETTY])].iter().enumerate() {
        let mut host = Host::plain(gateway);
        host.behind = behind.iter().map(|addr| ip(addr)).collect();
        let served = host.behind.iter().map(|addr| Prefix::host(*addr)).collect();
        let (seed, now) = (net.seed(), net.now);
        host.start(n, Groups::packetdefault(), seed, now, |config| config.served = served);
        net.add(host);
        for addr in [&[*gateway], *behind].concat() {
            net.dns.publish(ip(addr), ip(gateway), Some(TestKey::nth(n).dns()), Security::Secure);
        }
        net.drain(n);
    }
    net
}

const ALICE: &str = "192.0.2.101";
const BOB: &str = "198.51.100.101";
const BETTY: &str = "198.51.100.102";

fn say(net: &mut Net, from: usize, source: &str, to: &str, text: &str) {
    let now = net.now;
    net.hosts[from].send_from(now, ip(source), ip(to), text);
    net.drain(from);
}

/// Alice speaks to Bob, or he to her: the IKE SA is made for that flow.
fn first_word(net: &mut Net, first: &str) {
    match first {
        ALICE => say(net, 0, ALICE, BOB, "ping 0"),
        _ => say(net, 1, BOB, ALICE, "ping 0"),
    }
}

/// Rule 46: one host of two takes its gateway's name out of its record, and in again. The other is
/// none the worse for it, under the same IKE SA, and the first is carried again as soon as that is so.
#[test]
fn a_host_that_leaves_its_gateway_may_come_back() {
    for first in [ALICE, BOB] {
        let mut net = site(31);
        first_word(&mut net, first);
        net.run(seconds(2));
        say(&mut net, 0, ALICE, BETTY, "ping 1");
        net.run(seconds(2));
        net.dns.set(ip(BOB), Security::Secure, Outcome::NoRecord);
        until_refused(&mut net, |net, n| {
            say(net, 1, BOB, ALICE, &format!("bob {n}"));
            say(net, 1, BETTY, ALICE, &format!("ping betty {n}"));
        });
        net.dns.publish(ip(BOB), ip(EAST), Some(TestKey::nth(1).dns()), Security::Secure);
        let mut clear = 0;
        for n in 0..20 * MINUTE {
            clear = net.clear_between(ip(ALICE), ip(BOB));
            say(&mut net, 1, BOB, ALICE, &format!("ping bob {n}"));
            say(&mut net, 1, BETTY, ALICE, &format!("ping betty {}", 10_000 + n));
            net.run(seconds(1));
            assert!(heard(&net, 1, &format!("pong betty {}", 10_000 + n)), "{first} {n}");
        }
        assert_eq!(net.clear_between(ip(ALICE), ip(BETTY)), 0);
        assert_eq!(net.clear_between(ip(ALICE), ip(BOB)), clear, "{first}: it is encrypted again");
        let last = format!("pong bob {}", 20 * MINUTE - 1);
        assert!(heard(&net, 1, &last), "{first}: and heard");
    }
}

/// Rule 46: a host is served no more; what its peers go on sending to it is not taken for it, and another
/// that is served still loses nothing.
#[test]
fn a_host_that_is_served_no_more_receives_nothing() {
    let mut net = site(33);
    say(&mut net, 0, ALICE, BOB, "ping bob");
    say(&mut net, 0, ALICE, BETTY, "ping betty");
    net.run(seconds(3));
    assert!(heard(&net, 0, "pong bob") && heard(&net, 0, "pong betty"));
    lose_deletes(&mut net);
    let now = net.now;
    let east = net.hosts[1].node.as_mut().unwrap();
    assert!(east.keying.handle_served(now, vec![Prefix::host(ip(BETTY))]) > 0);
    net.drain(1);
    for n in 0..5 {
        say(&mut net, 0, ALICE, BOB, &format!("late bob {n}"));
        say(&mut net, 0, ALICE, BETTY, &format!("late betty {n}"));
        net.run(seconds(1));
        assert!(heard(&net, 1, &format!("late betty {n}")));
        assert!(!heard(&net, 1, &format!("late bob {n}")));
    }
}

/// Packets of one host behind west to one behind east, as they are on the wire; they do not arrive.
fn held_up(net: &mut Net, to: &str, texts: &[&str]) -> Vec<Sent> {
    net.filter(|_, _| Fate::Lost);
    net.tapped = Some(Vec::new());
    for text in texts {
        say(net, 0, ALICE, to, text);
    }
    let held = net.tapped.take().unwrap();
    assert_eq!(held.len(), texts.len());
    net.filter(|_, _| Fate::Link);
    held
}

/// Rule 46: a flow was closed a moment ago, and its peer has not heard of it yet; then the host that it is
/// for is served no more.
#[test]
fn what_waits_to_be_deleted_is_not_received_for_a_host_that_is_served_no_more() {
    let mut net = site(34);
    say(&mut net, 0, ALICE, BOB, "ping bob");
    say(&mut net, 0, ALICE, BETTY, "ping betty");
    net.run(seconds(3));
    let bobs = held_up(&mut net, BOB, &["bob 0", "bob 1"]);
    let bettys = held_up(&mut net, BETTY, &["betty 0"]);
    lose_deletes(&mut net);
    let now = net.now;
    net.hosts[1].node.as_mut().unwrap().keying.forget(now, ip(ALICE));
    net.drain(1);
    net.run(seconds(1));
    assert!(arrives(&mut net, 1, (&bobs[0], "bob 0")), "what is closed still receives");
    let now = net.now;
    let east = net.hosts[1].node.as_mut().unwrap();
    assert_eq!(east.keying.handle_served(now, vec![Prefix::host(ip(BETTY))]), 0, "no flow");
    net.drain(1);
    assert!(!arrives(&mut net, 1, (&bobs[1], "bob 1")));
    assert!(arrives(&mut net, 1, (&bettys[0], "betty 0")));
}

/// Rules 35, 46: a host's record is withdrawn; what one of ours has with it and is used ends with that, and
/// so does what another had with it and only waits to be deleted.
#[test]
fn what_waits_to_be_deleted_ends_with_the_proof() {
    let mut net = site(35);
    say(&mut net, 0, ALICE, BOB, "ping bob");
    let mut late = Vec::new();
    for n in 0..320 {
        match n {
            // Its pair is looked at after a minute, and bob's record is good for five.
            200 => say(&mut net, 0, ALICE, BETTY, "ping betty"),
            205 => late = held_up(&mut net, BETTY, &["betty 0", "betty 1"]),
            250 => {
                net.dns.set(ip(ALICE), Security::Secure, Outcome::NoRecord);
                net.filter(|_, seen| match seen.kind {
                    Kind::Ike { .. } => Fate::Lost,
                    Kind::Esp | Kind::Clear => Fate::Link,
                });
            }
            295 => {
                let east = net.hosts[1].node.as_ref().unwrap();
                let keyed = east.keying.destinations(net.now);
                assert_eq!(keyed.len(), 1, "betty's flow is closed: {keyed:#?}");
                assert!(arrives(&mut net, 1, (&late[0], "betty 0")), "and not her pair");
                assert!(!east_refused(&net));
            }
            _ => say(&mut net, 0, ALICE, BOB, &format!("ping {n}")),
        }
        net.run(seconds(1));
    }
    assert!(east_refused(&net));
    assert!(!arrives(&mut net, 1, (&late[1], "betty 1")));
}

fn east_refused(net: &Net) -> bool {
    let reports = &net.hosts[1].node.as_ref().unwrap().reports;
    reports.iter().any(|report| matches!(report.what, What::NoLongerAuthorized(_)))
}

/// Rule 9: what a new connection carries is not received by opportunism any more, on nothing.
#[test]
fn what_waits_to_be_deleted_gives_way_to_a_connection() {
    let mut net = site(36);
    say(&mut net, 0, ALICE, BOB, "ping bob");
    net.run(seconds(3));
    let bobs = held_up(&mut net, BOB, &["bob 0", "bob 1"]);
    lose_deletes(&mut net);
    let now = net.now;
    net.hosts[1].node.as_mut().unwrap().keying.forget(now, ip(ALICE));
    net.drain(1);
    net.run(seconds(1));
    assert!(arrives(&mut net, 1, (&bobs[0], "bob 0")), "what is closed still receives");
    let (near, far) = (net_of(BOB), net_of(ALICE));
    let connections = vec![connection(&[WEST], 0, &near, &far, Start::Accept)];
    let now = net.now;
    net.hosts[1].node.as_mut().unwrap().keying.handle_connections(now, connections);
    net.drain(1);
    assert!(!arrives(&mut net, 1, (&bobs[1], "bob 1")));
}

/// Rule 46: a peer asks for a child for a host that it was granted when that was served. It gets none,
/// whatever that host sends itself.
#[test]
fn a_host_that_is_served_no_more_gets_no_child() {
    let mut net = site(37);
    say(&mut net, 0, ALICE, BOB, "ping bob");
    net.run(seconds(3));
    say(&mut net, 0, ALICE, BETTY, "ping betty");
    net.run(seconds(3));
    assert!(heard(&net, 0, "pong bob") && heard(&net, 0, "pong betty"));
    let now = net.now;
    let east = net.hosts[1].node.as_mut().unwrap();
    assert_eq!(east.keying.handle_served(now, vec![Prefix::host(ip(BETTY))]), 1);
    net.drain(1);
    net.run(seconds(2));
    say(&mut net, 1, BOB, ALICE, "in passing");
    net.run(seconds(2));
    for n in 0..5 {
        say(&mut net, 0, ALICE, BOB, &format!("late bob {n}"));
        say(&mut net, 0, ALICE, BETTY, &format!("ping betty {n}"));
        net.run(seconds(1));
        assert!(heard(&net, 0, &format!("pong betty {n}")));
    }
    let peers = net.hosts[1].node.as_ref().unwrap().keying.peers(net.now);
    assert_eq!(peers.iter().map(|peer| peer.pairs).sum::<usize>(), 1, "{peers:#?}");
}

/// Rules 46, 51: a host says nothing for so long that its pair is closed, while another keeps its
/// gateway's IKE SA in use. It is carried again when it speaks, whoever called.
#[test]
fn a_host_that_was_idle_is_carried_again() {
    for first in [ALICE, BOB] {
        let mut net = site(32);
        first_word(&mut net, first);
        for n in 0..25 * MINUTE {
            net.run(seconds(1));
            say(&mut net, 0, ALICE, BETTY, &format!("ping betty {n}"));
        }
        net.run(seconds(1));
        let peers = net.hosts[0].node.as_ref().unwrap().keying.peers(net.now);
        assert_eq!((peers.len(), peers[0].pairs), (1, 1), "{first}: bob's is closed");
        say(&mut net, 1, BOB, ALICE, "ping bob");
        net.run(seconds(3));
        assert!(heard(&net, 1, "pong bob"), "{first}");
        let peers = net.hosts[0].node.as_ref().unwrap().keying.peers(net.now);
        assert_eq!((peers.len(), peers[0].pairs), (1, 2), "{first}: under the same IKE SA");
        assert_eq!(net.wire.iter().filter(|seen| seen.kind == Kind::Clear).count(), 0);
    }
}
