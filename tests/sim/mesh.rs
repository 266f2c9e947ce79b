//! A mesh that starts all at once: everyone to everyone in the same second, and every pair of
//! hosts ends with one pair of SAs and traffic both ways.

use std::net::IpAddr;

use dnskeys::Security;
use keying::StateName;

use crate::net::{Link, Net};
use crate::node::{Host, TestKey, seconds};

fn addr(n: usize) -> IpAddr {
    format!("198.51.100.{}", n + 1).parse().unwrap()
}

fn mesh(seed: u64, nodes: usize, link: Link) -> Net {
    let mut net = Net::new(seed, link);
    for n in 0..nodes {
        let (seed, now) = (net.seed(), net.now);
        net.add(Host::node(&addr(n).to_string(), n, seed, now));
        net.dns.publish(addr(n), addr(n), Some(TestKey::nth(n).dns()), Security::Secure);
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

fn run(seed: u64, nodes: usize) {
    let link = Link { delay_us: 1_000..=40_000, dns_us: 500..=50_000, ..Link::default() };
    let mut net = mesh(seed, nodes, link);
    everyone_talks(&mut net, nodes, 0);
    let heard = net.run_until(seconds(10), |net| everyone_heard(net, nodes, 0));
    assert!(heard, "seed {seed}: a first packet was lost");
    assert!(net.run_until(seconds(10), |net| one_pair_each(net, nodes)), "seed {seed}: duplicates");
    assert!(net.now - net.start < seconds(10), "seed {seed}: {:?}", net.now - net.start);
    everyone_talks(&mut net, nodes, 1);
    assert!(net.run_until(seconds(2), |net| everyone_heard(net, nodes, 1)), "seed {seed}");
    let clear = net.wire.iter().filter(|seen| seen.kind == crate::net::Kind::Clear).count();
    assert_eq!(clear, 0, "seed {seed}");
}

#[test]
fn ten_nodes_many_seeds() {
    for seed in 0..20 {
        run(seed, 10);
    }
}

#[test]
fn thirty_two_nodes() {
    run(1, 32);
}
