//! A mesh that starts all at once: everyone to everyone in the same second, and every pair of
//! hosts ends with one pair of SAs and traffic both ways.

use std::io::Write as _;
use std::net::IpAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use dnskeys::Security;
use keying::{Groups, StateName};

use crate::net::{Kind, Link, Net};
use crate::node::{Host, TestKey, seconds};

/// Spread over prefixes, as hosts that start at once are.
fn addr(n: usize) -> IpAddr {
    let (high, low) = (n / 200, n % 200);
    format!("198.51.{}.{}", 100 + high, low + 1).parse().unwrap()
}

fn mesh(seed: u64, nodes: usize, link: Link, cheap: bool) -> Net {
    let mut net = Net::new(seed, link);
    net.forgetful = true;
    if nodes > 10 {
        net.take_turns();
    }
    for n in 0..nodes {
        let key = if cheap { TestKey::cheap(n) } else { TestKey::nth(n) };
        let (seed, now) = (net.seed(), net.now);
        let mut host = Host::plain(&addr(n).to_string());
        host.start_with(key.clone(), Groups::packetdefault(), seed, now, |_| {});
        net.add(host);
        net.dns.publish(addr(n), addr(n), Some(key.dns()), Security::Secure);
        net.drain(n);
    }
    net
}

fn everyone_talks(net: &mut Net, nodes: usize, round: usize) {
    for from in 0..nodes {
        for to in (0..nodes).filter(|to| *to != from) {
            net.send(from, addr(to), &format!("word {round}"));
        }
    }
}

fn everyone_heard(net: &Net, nodes: usize, round: usize) -> bool {
    let word = format!("word {round}");
    net.hosts
        .iter()
        .all(|host| host.inbox.iter().filter(|(_, text)| *text == word).count() == nodes - 1)
}

fn one_pair_each(net: &Net, nodes: usize) -> bool {
    net.hosts.iter().all(|host| {
        let destinations = host.node.as_ref().unwrap().keying.destinations(net.now);
        destinations.len() == nodes - 1
            && destinations.iter().all(|d| d.state == StateName::Keyed && d.pairs == 1)
    })
}

/// Runs until `done`, which is looked at every twentieth of a second.
fn run_until(net: &mut Net, at_most: Duration, done: impl Fn(&Net) -> bool) -> bool {
    let end = net.now + at_most;
    while net.now < end {
        net.run(Duration::from_millis(50));
        if done(net) {
            return true;
        }
    }
    false
}

/// One seed; after what time every pair of hosts had one pair of SAs.
fn run(seed: u64, nodes: usize, cheap: bool) -> Duration {
    let link = Link { delay_us: 1_000..=40_000, dns_us: 500..=50_000, ..Link::default() };
    let mut net = mesh(seed, nodes, link, cheap);
    everyone_talks(&mut net, nodes, 0);
    let heard = run_until(&mut net, seconds(10), |net| everyone_heard(net, nodes, 0));
    assert!(heard, "seed {seed}: a first packet was lost; {}", describe(&net, nodes));
    let settled = run_until(&mut net, seconds(10), |net| one_pair_each(net, nodes));
    assert!(settled, "seed {seed}: duplicates; {}", describe(&net, nodes));
    let took = net.now - net.start;
    assert!(took <= seconds(10), "seed {seed}: {took:?}");
    everyone_talks(&mut net, nodes, 1);
    assert!(run_until(&mut net, seconds(2), |net| everyone_heard(net, nodes, 1)), "seed {seed}");
    let clear = net.wire.iter().filter(|seen| seen.kind == Kind::Clear).count();
    assert_eq!(clear, 0, "seed {seed}");
    took
}

/// What is amiss, in a line.
fn describe(net: &Net, nodes: usize) -> String {
    let mut states = std::collections::BTreeMap::<String, usize>::new();
    for host in &net.hosts {
        let destinations = host.node.as_ref().unwrap().keying.destinations(net.now);
        let missing = nodes - 1 - destinations.len();
        *states.entry("unknown".to_owned()).or_default() += missing;
        for d in destinations {
            let why = d.reason.map(|why| why.to_string()).unwrap_or_default();
            *states.entry(format!("{} {why} ({} pairs)", d.state.name(), d.pairs)).or_default() +=
                1;
        }
    }
    format!("{states:?}")
}

#[test]
fn ten_nodes_many_seeds() {
    let seeds = if cfg!(debug_assertions) { 20 } else { 100 };
    for seed in 0..seeds {
        run(seed, 10, true);
    }
}

#[test]
fn thirty_two_nodes() {
    run(1, 32, false);
}

/// 32 nodes under fifty seeds and 128 under one, in a release build; fewer otherwise, and others by
/// `OE_NODE_MESH=NODES[xSEEDS][+FIRST]`, as `500x50+50` for the seeds from 50 to 99: 500 nodes are
/// 124,750 pairs. Each seed has its line as soon as it has held.
#[test]
fn a_mesh_that_starts_at_once() {
    let asked = std::env::var("OE_NODE_MESH").ok();
    let plan: Vec<(usize, Range<u64>)> = match &asked {
        Some(text) => {
            let (text, first) = text.split_once('+').unwrap_or((text, "0"));
            let (nodes, seeds) = text.split_once('x').unwrap_or((text, "1"));
            let (first, seeds): (u64, u64) = (first.parse().unwrap(), seeds.parse().unwrap());
            vec![(nodes.parse().unwrap(), first..first + seeds)]
        }
        None if cfg!(debug_assertions) => vec![(32, 0..3)],
        None => vec![(32, 0..50), (128, 0..1)],
    };
    for (nodes, seeds) in plan {
        let pairs = nodes * (nodes - 1) / 2;
        for seed in seeds {
            let began = Instant::now();
            let settled = run(seed, nodes, true);
            let took = began.elapsed();
            println!(
                "{nodes} nodes, {pairs} pairs, seed {seed}: settled {settled:?}, took {took:?}"
            );
            std::io::stdout().flush().unwrap();
        }
    }
}
