//! The way to a peer is lost for a while, or the peer is: nobody can tell which.

use dnskeys::{Failure, Security};
use keying::{ConnectionState, Group, Groups, RemoteKeys, Start, StateName};
use sa::{Prefix, Spi};

use crate::connection::{EAST_IN, WEST_IN, clear, connection, heard, host, net_of, view};
use crate::net::{Fate, Kind, Link, Net};
use crate::node::{Host, TestKey, seconds};
use crate::{EAST, WEST, ip, west_and_east};

/// West and east, each with its policy.
fn two(seed: u64, groups: impl Fn() -> Groups) -> Net {
    let mut net = Net::new(seed, Link::default());
    for (key, addr) in [WEST, EAST].into_iter().enumerate() {
        let (seed, now) = (net.seed(), net.now);
        let mut host = Host::plain(addr);
        host.start(key, groups(), seed, now, |_| {});
        net.add(host);
        net.dns.publish(ip(addr), ip(addr), Some(TestKey::nth(key).dns()), Security::Secure);
        net.drain(key);
    }
    net
}

fn private() -> Groups {
    let mut groups = Groups::new();
    groups.insert(Prefix::ALL_V4, Group::Private);
    groups
}

fn pair(net: &Net, host: usize, peer: &str) -> Option<Spi> {
    let node = net.hosts[host].node.as_ref().unwrap();
    let found = node.state_of(net.now, ip(peer))?;
    if found.state == StateName::Keyed { found.spi_in } else { None }
}

fn established(net: &Net, host: usize) -> u64 {
    let counters = net.hosts[host].node.as_ref().unwrap().keying.ike_counters();
    counters.established_initiator + counters.established_responder
}

fn talk(net: &mut Net, both: bool, from: u64, until: u64) {
    for n in from..until {
        net.send(0, ip(EAST), &format!("ping {n}"));
        if both {
            net.send(1, ip(WEST), &format!("ping {n}"));
        }
        net.run(seconds(1));
    }
}

/// Rules 33, 57, P16: the net is gone for some time, whoever talks meanwhile. Nothing ends, nobody is
/// called anew when it is back, and what is sent arrives at once.
#[test]
fn an_outage_costs_nobody_his_pair() {
    for (seed, groups) in [(1, private as fn() -> Groups), (2, Groups::packetdefault)] {
        for both in [false, true] {
            for lasts in [10, 60, 150] {
                let mut net = two(seed, groups);
                talk(&mut net, both, 0, 40);
                let before = (pair(&net, 0, EAST), pair(&net, 1, WEST));
                assert!(before.0.is_some() && before.1.is_some());
                let made = (established(&net, 0), established(&net, 1));
                net.filter(|_, _| Fate::Lost);
                talk(&mut net, both, 40, 40 + lasts);
                net.filter(|_, _| Fate::Link);
                talk(&mut net, both, 1000, 1060);
                let case = format!("seed {seed}, both {both}, {lasts} s");
                for n in 1000..1060 {
                    let pong = (ip(EAST), format!("pong {n}"));
                    assert!(net.hosts[0].inbox.contains(&pong), "{case}: {n}");
                }
                assert_eq!((pair(&net, 0, EAST), pair(&net, 1, WEST)), before, "{case}");
                assert_eq!((established(&net, 0), established(&net, 1)), made, "{case}");
                assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 0, "{case}");
            }
        }
    }
}

/// Rules 26, 33: not for ever. Whose silence lasts is treated as one that was never there, as its
/// policy says.
#[test]
fn who_stays_away_is_given_up() {
    for (seed, groups, after) in [
        (3, private as fn() -> Groups, StateName::Deny),
        (4, Groups::packetdefault, StateName::ClearText),
    ] {
        let mut net = two(seed, groups);
        talk(&mut net, false, 0, 40);
        net.hosts[1].node = None;
        talk(&mut net, false, 40, 40 + 180);
        assert!(pair(&net, 0, EAST).is_some(), "too soon");
        assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 0);
        talk(&mut net, false, 220, 250);
        let west = net.hosts[0].node.as_ref().unwrap();
        assert_eq!(west.state_of(net.now, ip(EAST)).unwrap().state, after);
    }
}

/// Rule 27.
#[test]
fn how_long_an_outage_may_last_can_be_set() {
    // Traffic goes unanswered for five seconds before anybody is asked.
    for (patience, least, most) in [(0, 12, 14), (60, 65, 80), (180, 185, 200)] {
        let mut net = west_and_east(12, Link::default());
        let (seed, now) = (net.seed(), net.now);
        net.hosts[0].start(0, Groups::packetdefault(), seed, now, |config| {
            config.ike.patience = seconds(patience);
        });
        net.drain(0);
        talk(&mut net, false, 0, 40);
        assert!(pair(&net, 0, EAST).is_some());
        net.hosts[1].node = None;
        let mut lasted = 0;
        while pair(&net, 0, EAST).is_some() {
            talk(&mut net, false, lasted, lasted + 1);
            lasted += 1;
        }
        assert!((least..=most).contains(&lasted), "{patience}: {lasted}");
    }
}

/// Rule 57, P16: it had lost everything, and was away for so long that the first calls beside the old
/// pair went unanswered.
#[test]
fn who_comes_back_with_nothing_is_called_beside_the_old_pair() {
    for away in [0, 5, 30, 90] {
        for lost in [false, true] {
            let mut net = two(5 + away, private);
            talk(&mut net, false, 0, 40);
            net.hosts[1].node = None;
            if lost {
                net.filter(|_, _| Fate::Lost);
            }
            talk(&mut net, false, 40, 40 + away);
            net.filter(|_, _| Fate::Link);
            let (seed, now) = (net.seed(), net.now);
            net.hosts[1].start(1, private(), seed, now, |_| {});
            net.drain(1);
            let mut n = 1000;
            let back = |net: &Net| {
                net.hosts[0].inbox.iter().any(|(_, text)| text.starts_with("pong 1"))
                    && net.hosts[0].inbox.iter().any(|(_, text)| text.len() == 9)
            };
            while !back(&net) {
                net.send(0, ip(EAST), &format!("ping {n}"));
                net.run(seconds(1));
                n += 1;
                assert!(n < 1016, "away {away} s: not back after 16 s");
            }
            net.run(seconds(20));
            let west = net.hosts[0].node.as_ref().unwrap();
            assert_eq!(west.state_of(net.now, ip(EAST)).unwrap().pairs, 1);
            assert_eq!(west.keying.peers(net.now).len(), 1, "the old one is closed");
            assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 0);
        }
    }
}

/// The peer had lost nothing: what it says under the old IKE SA takes the call back.
#[test]
fn an_answer_takes_the_call_back() {
    let mut net = west_and_east(9, Link::default());
    talk(&mut net, true, 0, 40);
    let (before, made) = (pair(&net, 0, EAST), established(&net, 0));
    net.filter(|_, _| Fate::Lost);
    // Just after the call beside it has begun.
    talk(&mut net, false, 40, 53);
    let calls = net.hosts[0].node.as_ref().unwrap().keying.counters().calls;
    assert!(calls > 1, "{calls}");
    // The call goes on being lost, and the liveness check is answered at its next repetition.
    net.filter(|_, seen| match seen.kind {
        Kind::Ike { exchange: 34, .. } => Fate::Lost,
        Kind::Ike { .. } | Kind::Esp | Kind::Clear => Fate::Link,
    });
    talk(&mut net, true, 53, 70);
    let west = net.hosts[0].node.as_ref().unwrap();
    assert!(west.keying.counters().calls <= calls + 1);
    assert!(west.keying.counters().calls_withdrawn > 0);
    assert_eq!((pair(&net, 0, EAST), established(&net, 0)), (before, made));
}

/// A configured connection keeps what it has as well, and whoever lost it is called anew.
#[test]
fn a_connection_outlives_an_outage() {
    for loses in [false, true] {
        let mut net = Net::new(11, Link::default());
        let (near, far) = (net_of(WEST_IN), net_of(EAST_IN));
        let west = connection(&[EAST], 1, &near, &far, Start::Trap);
        let east = || connection(&[WEST], 0, &far, &near, Start::Accept);
        let start = |net: &mut Net, at: usize, inner: &str, connection| {
            let (seed, now) = (net.seed(), net.now);
            let outer = [WEST, EAST][at];
            if net.hosts.len() <= at {
                let mut host = Host::plain(outer);
                host.addresses.push(ip(inner));
                net.add(host);
            }
            let mut groups = Groups::new();
            groups.insert(Prefix::ALL_V4, Group::Clear);
            net.hosts[at].start(at, groups, seed, now, |c| c.connections.push(connection));
            net.drain(at);
        };
        start(&mut net, 0, WEST_IN, west);
        start(&mut net, 1, EAST_IN, east());
        let say = |net: &mut Net, n: u64| {
            let now = net.now;
            net.hosts[0].send_from(now, ip(WEST_IN), ip(EAST_IN), &format!("ping {n}"));
            net.drain(0);
            net.run(seconds(1));
        };
        (0..40).for_each(|n| say(&mut net, n));
        assert_eq!(view(&net, 0).state, ConnectionState::Up);
        let made = established(&net, 0);
        net.filter(|_, _| Fate::Lost);
        (40..100).for_each(|n| say(&mut net, n));
        net.filter(|_, _| Fate::Link);
        if loses {
            start(&mut net, 1, EAST_IN, east());
        }
        (100..130).for_each(|n| say(&mut net, n));
        assert!(heard(&net, 1, "ping 129"), "{loses}");
        let pings = (100..130).filter(|n| heard(&net, 1, &format!("ping {n}"))).count();
        assert!(if loses { pings >= 14 } else { pings == 30 }, "{loses}: {pings}");
        assert_eq!(established(&net, 0) - made, u64::from(loses));
        assert_eq!((view(&net, 0).state, view(&net, 0).pairs), (ConnectionState::Up, 1));
        assert_eq!(clear(&net), 0);
    }
}

/// A connection's end calls beside a young pair, hears that the peer is there after all when the call
/// cannot be taken back any more, and its call loses as calls that cross do: it is up nonetheless, and
/// gets over the next outage as well.
#[test]
fn a_call_beside_a_pair_that_loses_leaves_the_connection_up() {
    let mut lost = 0;
    for seed in 0..8 {
        let mut net = Net::new(seed, Link::default());
        let (near, far) = (net_of(WEST_IN), net_of(EAST_IN));
        let west = connection(&[EAST], 1, &near, &far, Start::Trap);
        host(&mut net, &[WEST], WEST_IN, 0, west);
        let east = connection(&[WEST], 0, &far, &near, Start::Trap);
        host(&mut net, &[EAST], EAST_IN, 1, east);
        let say = |net: &mut Net, at: usize, word: &str| {
            let (from, to) = [(WEST_IN, EAST_IN), (EAST_IN, WEST_IN)][at];
            let now = net.now;
            net.hosts[at].send_from(now, ip(from), ip(to), word);
            net.drain(at);
            net.run(seconds(1));
        };
        say(&mut net, 1, "hello");
        let outage = |net: &mut Net| {
            // IKE_AUTH waits for the answer under the old IKE SA, and that for a call.
            // Its first messages come through late, so that this comes to pass before the call ends.
            let (mut called, mut answered) = (false, false);
            let start = net.now;
            net.filter(move |_, seen| {
                let Kind::Ike { exchange, response, .. } = seen.kind else { return Fate::Lost };
                called |= exchange == 35;
                answered |= called && exchange == 37 && response;
                let passes = match exchange {
                    34 => seen.at > start + seconds(15),
                    43 => seen.at > start + seconds(19),
                    35 => answered,
                    _ => called,
                };
                if passes { Fate::Link } else { Fate::Lost }
            });
            (0..23).for_each(|n| say(net, 0, &format!("word {n}")));
            net.filter(|_, _| Fate::Link);
        };
        outage(&mut net);
        net.run(seconds(60));
        let peers = net.hosts[0].node.as_ref().unwrap().keying.peers(net.now);
        lost += usize::from(!peers[0].initiator);
        let up = |net: &Net| [0, 1].map(|host| (view(net, host).state, view(net, host).pairs));
        assert_eq!(up(&net), [(ConnectionState::Up, 1); 2], "seed {seed}");
        // Nobody there knows anything any more.
        let (seed_2, now) = (net.seed(), net.now);
        let east = connection(&[WEST], 0, &far, &near, Start::Accept);
        net.hosts[1].start(1, Groups::new(), seed_2, now, |config| config.connections.push(east));
        net.drain(1);
        (0..20).for_each(|n| say(&mut net, 0, &format!("more {n}")));
        assert!(heard(&net, 1, "more 19"), "seed {seed}");
    }
    assert!((1..8).contains(&lost), "either wins now and then: {lost}");
}

/// Attack A46.
/// Both ends of a connection call beside what they have, and their calls cross. What has lost is for the
/// end that made it to delete; that its Delete is lost leaves nothing behind.
#[test]
fn what_has_lost_goes_without_a_delete() {
    for seed in 0..6 {
        let link = Link { delay_us: 1_000..=60_000, ..Link::default() };
        let mut net = Net::new(seed, link);
        let (near, far) = (net_of(WEST_IN), net_of(EAST_IN));
        let west = connection(&[EAST], 1, &near, &far, Start::Now);
        host(&mut net, &[WEST], WEST_IN, 0, west);
        let east = connection(&[WEST], 0, &far, &near, Start::Now);
        host(&mut net, &[EAST], EAST_IN, 1, east);
        let say = |net: &mut Net, n: u64| {
            for (at, from, to) in [(0, WEST_IN, EAST_IN), (1, EAST_IN, WEST_IN)] {
                let now = net.now;
                net.hosts[at].send_from(now, ip(from), ip(to), &format!("word {n}"));
                net.drain(at);
            }
            net.run(seconds(1));
        };
        (0..40).for_each(|n| say(&mut net, n));
        net.filter(|_, _| Fate::Lost);
        (40..53 + seed % 3).for_each(|n| say(&mut net, n));
        net.filter(|_, seen| match seen.kind {
            Kind::Ike { exchange: 37, .. } => Fate::Lost,
            Kind::Ike { .. } | Kind::Esp | Kind::Clear => Fate::Link,
        });
        (100..120).for_each(|n| say(&mut net, n));
        net.filter(|_, _| Fate::Link);
        (200..260).for_each(|n| say(&mut net, n));
        for host in [0, 1] {
            let seen = view(&net, host);
            assert_eq!((seen.state, seen.pairs), (ConnectionState::Up, 1), "{seed}, {host}");
            assert!(heard(&net, host, "word 259"), "{seed}, {host}");
        }
    }
}

/// A connection's peer comes back with nothing while DNS does not say by which key it is known now. What
/// carried nothing can be done about until then; the connection counts as up, and the peer is called with
/// the next repetition of what it leaves unanswered, not when that is given up.
#[test]
fn a_connection_is_called_for_again_when_dns_says_its_keys() {
    for silent in [1, 15, 40] {
        let mut net = Net::new(21, Link::default());
        let (near, far) = (net_of(WEST_IN), net_of(EAST_IN));
        let mut west = connection(&[EAST], 1, &near, &far, Start::Trap);
        west.remote_keys = RemoteKeys::Dns;
        let east = || connection(&[WEST], 0, &far, &near, Start::Accept);
        let publish = |net: &mut Net| {
            let key = Some(TestKey::nth(1).dns());
            net.dns.publish(ip(EAST), ip(EAST), key, Security::Secure);
        };
        publish(&mut net);
        host(&mut net, &[WEST], WEST_IN, 0, west);
        host(&mut net, &[EAST], EAST_IN, 1, east());
        let say = |net: &mut Net, n: u64| {
            let now = net.now;
            net.hosts[0].send_from(now, ip(WEST_IN), ip(EAST_IN), &format!("word {n}"));
            net.drain(0);
            net.run(seconds(1));
        };
        (0..5).for_each(|n| say(&mut net, n));
        assert!(heard(&net, 1, "word 4"));
        let (seed, now) = (net.seed(), net.now);
        net.hosts[1].start(1, Groups::new(), seed, now, |config| config.connections.push(east()));
        net.drain(1);
        net.dns.failed(ip(EAST), Failure::Timeout);
        // Five seconds until it is asked for, and 7.5 until it counts as silent.
        (5..19 + silent).for_each(|n| say(&mut net, n));
        let calls = |net: &Net| net.hosts[0].node.as_ref().unwrap().keying.counters().calls;
        assert_eq!((view(&net, 0).state, calls(&net)), (ConnectionState::Up, 1), "{silent}");
        publish(&mut net);
        (100..118).for_each(|n| say(&mut net, n));
        assert!(heard(&net, 1, "word 117"), "{silent}");
        assert_eq!(calls(&net), 2, "{silent}");
    }
}
