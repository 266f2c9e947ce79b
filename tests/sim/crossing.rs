//! Both ends call each other at once: one pair is left, and traffic flows both ways.

use std::time::Duration;

use crate::net::{Fate, Kind, Link, Net};
use crate::node::seconds;
use crate::{EAST, WEST, ip, west_and_east};

/// How many seeds; each is another interleaving.
const SEEDS: u64 = 1000;

fn settled(net: &Net) -> bool {
    [(0, EAST), (1, WEST)].into_iter().all(|(host, peer)| {
        let node = net.hosts[host].node.as_ref().unwrap();
        node.state_of(net.now, ip(peer))
            .is_some_and(|d| d.state == keying::StateName::Keyed && d.pairs == 1)
    })
}

fn talk(net: &mut Net, round: usize) {
    net.send(0, ip(EAST), &format!("word west {round}"));
    net.send(1, ip(WEST), &format!("word east {round}"));
}

fn both_heard(net: &Net, round: usize) -> bool {
    let heard = |host: usize, who: &str| {
        net.hosts[host].inbox.iter().any(|(_, text)| *text == format!("word {who} {round}"))
    };
    heard(1, "west") && heard(0, "east")
}

#[test]
fn one_pair_is_left_on_a_good_link() {
    for seed in 0..SEEDS {
        let link = Link { delay_us: 1_000..=30_000, dns_us: 500..=20_000, ..Link::default() };
        let mut net = west_and_east(seed, link);
        talk(&mut net, 0);
        // The first packets are never lost.
        assert!(net.run_until(seconds(5), |net| both_heard(net, 0)), "seed {seed}");
        assert!(net.run_until(seconds(10), settled), "seed {seed}: {}", describe(&net));
        talk(&mut net, 1);
        assert!(net.run_until(seconds(2), |net| both_heard(net, 1)), "seed {seed}");
        assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 0, "seed {seed}");
        // It stays so.
        for round in 2..5 {
            net.run(seconds(15));
            talk(&mut net, round);
            assert!(net.run_until(seconds(2), |net| both_heard(net, round)), "seed {seed}");
        }
        assert!(settled(&net), "seed {seed}: {}", describe(&net));
    }
}

#[test]
fn one_pair_is_left_on_a_bad_link() {
    let mut silent = 0;
    for seed in 0..SEEDS {
        let mut net = west_and_east(seed, Link::bad());
        let mut round = 0;
        // Applications repeat what is lost, as TCP does.
        let done = loop {
            talk(&mut net, round);
            net.run(Duration::from_millis(500));
            round += 1;
            if settled(&net) && round > 20 {
                break true;
            }
            // An orphan whose other end gave up is found when its flow is looked at, after a minute.
            if round > 140 {
                break false;
            }
        };
        if fell_silent(&net) {
            // Every message of a call was lost: that is silence, and clear text by the rules.
            silent += 1;
            continue;
        }
        assert!(done, "seed {seed}: {}", describe(&net));
        assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 0, "seed {seed}: {}", describe(&net));
        net.link = Link::default();
        net.run(seconds(1));
        talk(&mut net, 999);
        assert!(net.run_until(seconds(20), |net| both_heard(net, 999)), "seed {seed}");
    }
    assert!(silent <= SEEDS / 33, "{silent} of {SEEDS} fell silent");
}

/// West's call reaches east, whose answer never reaches west, until west has given up: whichever of
/// the two calls wins by its nonces, nothing is sent into a pair that the other end does not have.
#[test]
fn a_winner_that_never_arrived_loses() {
    let (mut crossed, mut won) = (0, 0);
    for seed in 0..SEEDS {
        let link = Link { delay_us: 5_000..=5_500, dns_us: 500..=600, ..Link::default() };
        let mut net = west_and_east(seed, link);
        let until = net.now + seconds(12);
        net.filter(move |_, seen| match seen.kind {
            Kind::Ike { exchange: 35, response: true, .. }
                if seen.from == ip(EAST) && seen.at < until =>
            {
                Fate::Lost
            }
            _ => Fate::Link,
        });
        talk(&mut net, 0);
        assert!(net.run_until(seconds(5), |net| both_heard(net, 0)), "seed {seed}");
        let pairs_of_east = |net: &Net| {
            let east = net.hosts[1].node.as_ref().unwrap();
            east.state_of(net.now, ip(WEST)).map_or(0, |d| d.pairs)
        };
        net.run(seconds(1));
        if pairs_of_east(&net) < 2 {
            // They did not cross: west's call came first, or was taken back.
            continue;
        }
        crossed += 1;
        let east = net.hosts[1].node.as_ref().unwrap();
        let keyed = |r: &keying::Report| matches!(r.what, keying::What::Keyed { .. });
        won += usize::from(east.reports.iter().filter(|r| keyed(r)).count() > 1);
        for round in 1..40 {
            talk(&mut net, round);
            let heard = net.run_until(Duration::from_millis(500), |net| both_heard(net, round));
            assert!(heard, "seed {seed}, round {round}: {}", describe(&net));
            net.run(Duration::from_millis(500));
        }
        assert!(net.run_until(seconds(60), settled), "seed {seed}: {}", describe(&net));
    }
    assert!(crossed > 20, "{crossed} of {SEEDS} crossed, {won}");
}

/// Whether a gateway was ever taken for silent.
fn fell_silent(net: &Net) -> bool {
    let reports = net.hosts.iter().filter_map(|host| host.node.as_ref()).flat_map(|n| &n.reports);
    reports.into_iter().any(|report| {
        let why = keying::Why::Gateway(ike::End::Timeout);
        report.what == keying::What::ClearText { why, downgraded: true }
    })
}

fn describe(net: &Net) -> String {
    let node = |host: usize| {
        let node = net.hosts[host].node.as_ref().unwrap();
        format!("{:?}\n{:#?}", node.keying.destinations(net.now), node.reports)
    };
    format!("west {}\neast {}", node(0), node(1))
}
