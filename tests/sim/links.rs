//! Several links between the same two sites: they stand side by side, share the flows, and one
//! that dies gives its flows to the others within two seconds.

use std::net::IpAddr;
use std::time::Duration;

use keying::{Connection, ConnectionState, Group, Groups, RemoteKeys, Start};
use sa::{Mode, Prefix};

use crate::ip;
use crate::net::{Fate, Kind, Link, Net};
use crate::node::{Host, TestKey, seconds};

/// Two outer addresses of each side, one for each link, and the inner ones.
const WEST: [&str; 2] = ["192.0.2.11", "192.0.2.111"];
const EAST: [&str; 2] = ["198.51.100.12", "198.51.100.112"];
const WEST_NET: &str = "10.1.0.0/24";
const EAST_NET: &str = "10.2.0.0/24";

fn link(near: &str, far: &str, key: usize, nets: (&str, &str), start: Start) -> Connection {
    Connection {
        name: near.to_owned(),
        gateways: vec![ip(far)],
        local_address: Some(ip(near)),
        local_identity: None,
        remote_identity: None,
        remote_keys: RemoteKeys::Known(vec![TestKey::nth(key).ike().into()]),
        local_subnets: vec![nets.0.parse().unwrap()],
        remote_subnets: vec![nets.1.parse().unwrap()],
        mode: Mode::Tunnel,
        start,
    }
}

/// Hosts behind a site; many, because flows of one pair of addresses go one way.
fn inner(net: &str) -> Vec<IpAddr> {
    let start = net.trim_end_matches("0/24");
    (1..=24).map(|n| ip(&format!("{start}{n}"))).collect()
}

fn two_links(seed: u64, west: Start, east: Start) -> Net {
    let mut net = Net::new(seed, Link::default());
    for (key, (near, far, nets, start)) in
        [(WEST, EAST, (WEST_NET, EAST_NET), west), (EAST, WEST, (EAST_NET, WEST_NET), east)]
            .into_iter()
            .enumerate()
    {
        let mut host = Host::plain(near[0]);
        host.addresses.push(ip(near[1]));
        host.behind = inner(nets.0);
        let links = [0, 1].map(|n| link(near[n], far[n], 1 - key, nets, start));
        let mut groups = Groups::new();
        groups.insert(Prefix::ALL_V4, Group::Clear);
        let (seed, now) = (net.seed(), net.now);
        host.start(key, groups, seed, now, |config| config.connections.extend(links));
        net.add(host);
        net.drain(key);
    }
    net
}

/// Every host of west pings its like of east; how many were answered.
fn ping_all(net: &mut Net, text: &str) -> usize {
    for (source, to) in inner(WEST_NET).into_iter().zip(inner(EAST_NET)) {
        let now = net.now;
        net.hosts[0].send_from(now, source, to, &format!("ping {text}"));
        net.drain(0);
    }
    net.run(Duration::from_millis(200));
    let pong = format!("pong {text}");
    net.hosts[0].inbox.iter().filter(|(_, said)| *said == pong).count()
}

fn states(net: &Net, host: usize) -> Vec<ConnectionState> {
    let views = net.hosts[host].node.as_ref().unwrap().keying.connections(net.now);
    views.iter().map(|view| view.state).collect()
}

fn esp(net: &Net, from: usize, to: &str) -> usize {
    net.wire[from..].iter().filter(|s| s.kind == Kind::Esp && s.to == ip(to)).count()
}

#[test]
fn two_links_share_the_flows() {
    let mut net = two_links(1, Start::Now, Start::Accept);
    net.run(seconds(2));
    assert_eq!(states(&net, 0), [ConnectionState::Up, ConnectionState::Up]);
    assert_eq!(states(&net, 1), [ConnectionState::Up, ConnectionState::Up]);
    let mark = net.wire.len();
    assert_eq!(ping_all(&mut net, "x"), 24);
    for side in [WEST, EAST] {
        for address in side {
            let packets = esp(&net, mark, address);
            assert!((4..=20).contains(&packets), "{packets} to {address}");
        }
    }
    assert!(net.wire.iter().all(|seen| seen.kind != Kind::Clear));
}

/// With traffic all the while, no flow is without an answer for two seconds.
#[test]
fn a_link_that_dies_costs_less_than_two_seconds() {
    for dead in [0, 1] {
        let mut net = two_links(2 + dead as u64, Start::Now, Start::Accept);
        net.run(seconds(2));
        assert_eq!(ping_all(&mut net, "before"), 24);
        let gone = [ip(WEST[dead]), ip(EAST[dead])];
        net.filter(move |_, seen| if gone.contains(&seen.to) { Fate::Lost } else { Fate::Link });
        let died = net.now;
        let mut rounds = 0;
        let whole = loop {
            rounds += 1;
            if ping_all(&mut net, &format!("round {rounds}")) == 24 {
                break net.now.saturating_duration_since(died);
            }
            assert!(rounds < 60, "link {dead} was never given up: {:?}", states(&net, 0));
        };
        assert!(whole < seconds(2), "link {dead}: {whole:?}");
        // The link comes back, and takes its share again.
        net.filter(|_, _| Fate::Link);
        net.run(seconds(90));
        assert_eq!(states(&net, 0), [ConnectionState::Up, ConnectionState::Up]);
        let mark = net.wire.len();
        assert_eq!(ping_all(&mut net, "after"), 24);
        assert!(esp(&net, mark, EAST[dead]) > 3, "link {dead} is not used again");
        assert!(net.wire.iter().all(|seen| seen.kind != Kind::Clear));
    }
}

/// Made by the first packet, from both sides at once: still one pair for each link.
#[test]
fn each_link_keeps_one_pair() {
    for seed in 10..16 {
        let mut net = two_links(seed, Start::Trap, Start::Now);
        for n in 0..8 {
            ping_all(&mut net, &format!("{n}"));
            net.run(seconds(2));
        }
        for host in [0, 1] {
            let views = net.hosts[host].node.as_ref().unwrap().keying.connections(net.now);
            let pairs: Vec<usize> = views.iter().map(|view| view.pairs).collect();
            assert_eq!(pairs, [1, 1], "seed {seed}, host {host}");
        }
    }
}
