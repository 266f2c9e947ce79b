//! Peers that renew nothing: what they have agreed to ends with its hard life, and is there anew before.

use std::collections::BTreeSet;
use std::time::Duration;

use dnskeys::Security;
use keying::{ConnectionState, Group, Groups, Start};
use sa::Prefix;

use crate::connection::{EAST_IN, WEST_IN, clear, connection, heard, net_of, view};
use crate::net::{Fate, Kind, Link, Net};
use crate::node::{Host, TestKey, seconds};
use crate::{EAST, WEST, ip};

/// Ten minutes of life and a fifth of that, three times.
const TIME: u64 = 3 * 720;

fn lives(config: &mut ike::Config, child: bool) {
    let short = Duration::from_secs(600);
    *(if child { &mut config.child_life } else { &mut config.ike_life }) = short;
}

/// West and east find each other; east renews nothing, of children or of IKE SAs, or neither does.
fn west_and_outworn_east(seed: u64, child: bool, both: bool) -> Net {
    let mut net = Net::new(seed, Link::default());
    for (key, addr) in [WEST, EAST].into_iter().enumerate() {
        let (seed, now) = (net.seed(), net.now);
        let mut host = Host::plain(addr);
        host.start(key, Groups::packetdefault(), seed, now, |config| {
            lives(&mut config.ike, child);
            config.ike.renews_nothing = both || key == 1;
        });
        net.add(host);
        net.dns.publish(ip(addr), ip(addr), Some(TestKey::nth(key).dns()), Security::Secure);
        net.drain(key);
    }
    net
}

/// Rule 32.
#[test]
fn a_pair_that_is_not_renewed_is_there_anew_before_it_ends() {
    for (seed, child, both) in
        [(1, true, true), (2, false, true), (3, true, false), (4, false, false)]
    {
        let mut net = west_and_outworn_east(seed, child, both);
        net.send(0, ip(EAST), "first");
        net.run(seconds(5));
        let trapped = |net: &Net, host: usize| {
            net.hosts[host].node.as_ref().unwrap().keying.counters().trapped
        };
        let before = (trapped(&net, 0), trapped(&net, 1));
        for n in 0..TIME / 5 {
            let text = format!("ping {n}");
            net.send(0, ip(EAST), &text);
            net.run(seconds(5));
            let pong = format!("pong {n}");
            assert!(heard(&net, 0, &pong), "seed {seed}: {pong} at {} s", 5 * n);
        }
        assert_eq!((trapped(&net, 0), trapped(&net, 1)), before, "seed {seed}: it had ended");
        assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 0);
        net.run(seconds(5));
        for (host, peer) in [(0, EAST), (1, WEST)] {
            let node = net.hosts[host].node.as_ref().unwrap();
            assert_eq!(node.state_of(net.now, ip(peer)).unwrap().pairs, 1, "seed {seed}");
        }
        let calls = |host: usize| net.hosts[host].node.as_ref().unwrap().keying.counters().calls;
        let calls = calls(0) + calls(1);
        assert!((3..=8).contains(&calls), "seed {seed}: {calls} calls");
    }
}

/// West has a connection with east, of which neither renews children, or IKE SAs.
fn connected(child: bool) -> Net {
    let mut net = Net::new(1, Link::default());
    let (near, far) = (net_of(WEST_IN), net_of(EAST_IN));
    let west = connection(&[EAST], 1, &near, &far, Start::Trap);
    let east = connection(&[WEST], 0, &far, &near, Start::Accept);
    let ends = [(WEST, WEST_IN, west), (EAST, EAST_IN, east)];
    for (key, (outer, inner, connection)) in ends.into_iter().enumerate() {
        let mut host = Host::plain(outer);
        host.addresses.push(ip(inner));
        let mut groups = Groups::new();
        groups.insert(Prefix::ALL_V4, Group::Clear);
        let (seed, now) = (net.seed(), net.now);
        host.start(key, groups, seed, now, |config| {
            lives(&mut config.ike, child);
            config.ike.renews_nothing = true;
            config.connections.push(connection);
        });
        net.add(host);
        net.drain(key);
    }
    net
}

/// Rule 32.
#[test]
fn a_connection_that_is_not_renewed_is_there_anew_before_it_ends() {
    for child in [true, false] {
        let mut net = connected(child);
        for n in 0..TIME / 5 {
            let now = net.now;
            net.hosts[0].send_from(now, ip(WEST_IN), ip(EAST_IN), &format!("ping {n}"));
            net.drain(0);
            net.run(seconds(5));
            assert!(heard(&net, 1, &format!("ping {n}")), "ping {n}");
            assert!(view(&net, 0).pairs >= 1, "gone at {} s", 5 * n);
        }
        assert_eq!(view(&net, 0).state, ConnectionState::Up);
        assert_eq!((view(&net, 0).pairs, view(&net, 1).pairs), (1, 1));
        assert_eq!(clear(&net), 0);
        let calls = net.hosts[0].node.as_ref().unwrap().keying.counters().calls;
        assert!((3..=6).contains(&calls), "{calls} calls");
    }
}

/// Rule 32.
#[test]
fn a_connection_whose_peer_cannot_be_called_anew_carries_until_it_can() {
    let mut net = connected(true);
    let calls = |net: &Net| net.hosts[0].node.as_ref().unwrap().keying.counters().calls;
    let mut states = BTreeSet::new();
    for n in 0..1300 {
        match n {
            // From before its soft life on, and almost to its hard one.
            500 => net.filter(|_, seen| match seen.kind {
                Kind::Ike { exchange: 34, .. } => Fate::Lost,
                _ => Fate::Link,
            }),
            655 => net.filter(|_, _| Fate::Link),
            _ => {}
        }
        let now = net.now;
        net.hosts[0].send_from(now, ip(WEST_IN), ip(EAST_IN), &format!("ping {n}"));
        net.drain(0);
        net.run(seconds(1));
        assert!(heard(&net, 1, &format!("ping {n}")), "ping {n}");
        let view = view(&net, 0);
        assert!(view.pairs >= 1, "gone at {n} s");
        if (500..655).contains(&n) {
            states.insert(view.state.name());
        }
    }
    // It was called, and was up between two calls.
    assert_eq!(states.into_iter().collect::<Vec<_>>(), ["calling", "up"]);
    assert!(calls(&net) >= 4, "{} calls", calls(&net));
    assert_eq!(view(&net, 0).state, ConnectionState::Up);
}
