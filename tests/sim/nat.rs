//! Hosts behind NATs (RFC 4322 §5.3, RFC 7296 §2.19): each calls by name, gets an address of the
//! other end's pool, and goes by it there. Rules 69, 72.

use std::net::IpAddr;
use std::time::Duration;

use dnskeys::{Gateway, Name, Outcome, Security};
use keying::{Groups, StateName, What, Why};

use crate::dns::records;
use crate::net::{Fate, Kind, Link, Net};
use crate::node::{Host, TestKey, seconds};

const INNER: &str = "192.168.1.10";
const NAT: [&str; 2] = ["198.51.100.1", "198.51.100.2"];
const SERVER: &str = "192.0.2.11";
const POOL: &str = "10.99.0.0/24";
/// The number of the server.
const S: usize = 2;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn name(client: usize) -> String {
    format!("{}.example", ["alice", "bob"][client])
}

/// The key of a client's name, as the name itself publishes it.
fn publish(net: &mut Net, client: usize, key: usize, security: Security) {
    let owner: Name = name(client).parse().unwrap();
    let mut set = records(&[(10, ip(INNER), Some(TestKey::nth(key).dns()))]);
    set.gateways[0].gateway = Gateway::Name(owner.clone());
    net.dns.set_name(owner, security, Outcome::Records(set));
}

fn client(net: &mut Net, client: usize, change: impl FnOnce(&mut keying::Config)) -> Host {
    let (seed, now) = (net.seed(), net.now);
    let mut host = Host::plain(INNER);
    host.start(client, Groups::packetdefault(), seed, now, |config| {
        config.identity = Some(ike::Identity::Fqdn(name(client)));
        change(config);
    });
    host
}

fn server(net: &mut Net, pool: &[&str]) -> Host {
    let (seed, now) = (net.seed(), net.now);
    let mut host = Host::plain(SERVER);
    restart_server(&mut host, seed, now, pool);
    host
}

fn restart_server(host: &mut Host, seed: [u8; 32], now: std::time::Instant, pool: &[&str]) {
    let mut groups = Groups::packetdefault();
    let pool: Vec<sa::Prefix> = pool.iter().map(|prefix| prefix.parse().unwrap()).collect();
    for prefix in &pool {
        groups.set_pool(*prefix).unwrap();
    }
    host.start(S, groups, seed, now, |config| config.pool = pool);
}

/// Two clients with the same address, behind one NAT or each behind its own, and a server.
fn net_with(seed: u64, link: Link, nats: usize, pool: &[&str]) -> Net {
    let mut net = Net::new(seed, link);
    for which in 0..2 {
        let host = client(&mut net, which, |_| {});
        net.add(host);
        publish(&mut net, which, which, Security::Secure);
    }
    let host = server(&mut net, pool);
    net.add(host);
    match nats {
        1 => net.nat(ip(NAT[0]), &[0, 1]),
        _ => NAT.iter().zip([[0], [1]]).for_each(|(nat, inside)| net.nat(ip(nat), &inside)),
    }
    net.dns.publish(ip(SERVER), ip(SERVER), Some(TestKey::nth(S).dns()), Security::Secure);
    for host in 0..3 {
        net.drain(host);
    }
    net
}

fn net(nats: usize, pool: &[&str]) -> Net {
    net_with(1, Link::default(), nats, pool)
}

fn reason(net: &Net, client: usize) -> Option<Why> {
    net.hosts[client].node.as_ref().unwrap().state_of(net.now, ip(SERVER)).unwrap().reason
}

fn state(net: &Net, client: usize) -> Option<StateName> {
    Some(net.hosts[client].node.as_ref().unwrap().state_of(net.now, ip(SERVER))?.state)
}

/// The address that the server knows a client by.
fn lent(net: &Net, client: usize) -> Option<IpAddr> {
    let holder = ike::Identity::Fqdn(name(client));
    let leases = net.hosts[S].node.as_ref().unwrap().keying.leases();
    leases.into_iter().find(|lease| lease.holder == holder).map(|lease| lease.address)
}

fn refusals(net: &Net) -> Vec<Why> {
    let reports = &net.hosts[S].node.as_ref().unwrap().reports;
    let refused = |what: &What| match what {
        What::Refused { why, .. } => Some(*why),
        _ => None,
    };
    reports.iter().filter_map(|report| refused(&report.what)).collect()
}

fn clear(net: &Net) -> usize {
    net.wire.iter().filter(|seen| seen.kind == Kind::Clear).count()
}

/// Whether whatever arrived at the server came from what a NAT is called by, as it does in the clear.
fn only_in_clear(net: &Net) -> bool {
    net.hosts[S].inbox.iter().all(|(from, _)| *from == ip(NAT[0]))
}

/// Rule 69: with a name, and behind whatever NAT.
#[test]
fn two_clients_with_the_same_address_both_work() {
    for nats in [1, 2] {
        let mut net = net(nats, &[POOL]);
        net.send(0, ip(SERVER), "ping of alice");
        net.send(1, ip(SERVER), "ping of bob");
        net.run(seconds(3));
        for (which, word) in ["alice", "bob"].into_iter().enumerate() {
            let answer = (ip(SERVER), format!("pong of {word}"));
            assert_eq!(net.hosts[which].inbox, [answer], "{nats} NATs");
            let address = lent(&net, which).unwrap();
            assert!(net.hosts[S].inbox.contains(&(address, format!("ping of {word}"))));
            // Back again, to the one that has it and to nobody else.
            net.hosts[which].inbox.clear();
            net.send(S, address, &format!("word for {word}"));
            net.run(seconds(1));
            assert_eq!(net.hosts[which].inbox, [(ip(SERVER), format!("word for {word}"))]);
            let node = net.hosts[S].node.as_ref().unwrap();
            let seen = node.state_of(net.now, address).unwrap();
            assert_eq!((seen.state, seen.trust), (StateName::Keyed, Some(sa::Trust::Dnssec)));
        }
        assert_ne!(lent(&net, 0), lent(&net, 1));
        assert_eq!(clear(&net), 0);
    }
}

#[test]
fn on_a_bad_link() {
    for seed in 0..20 {
        let mut net = net_with(seed, Link::bad(), 1, &[POOL]);
        for round in 0..20 {
            net.send(0, ip(SERVER), &format!("ping {round}"));
            net.send(1, ip(SERVER), &format!("ping {round}"));
            net.run(seconds(2));
        }
        for which in 0..2 {
            assert_eq!(state(&net, which), Some(StateName::Keyed), "seed {seed}");
            assert!(!net.hosts[which].inbox.is_empty(), "seed {seed}");
        }
        assert_eq!(clear(&net), 0, "seed {seed}");
    }
}

/// Rules 72, 61: what cannot work says why.
#[test]
fn without_a_name_nobody_calls_from_behind_a_nat() {
    let mut net = net(1, &[POOL]);
    let (seed, now) = (net.seed(), net.now);
    net.hosts[0].start(0, Groups::packetdefault(), seed, now, |_| {});
    net.drain(0);
    net.send(0, ip(SERVER), "ping");
    net.run(seconds(5));
    assert_eq!(reason(&net, 0), Some(Why::BehindNat));
    assert!(only_in_clear(&net) && lent(&net, 0).is_none());
}

#[test]
fn a_server_without_pool_says_so() {
    let mut net = net(1, &[]);
    net.send(0, ip(SERVER), "ping");
    net.run(seconds(5));
    assert_eq!(reason(&net, 0), Some(Why::Gateway(ike::End::NoAddress)));
    assert_eq!(refusals(&net), [Why::NoPool]);
    // The call has left nothing behind.
    net.run(seconds(60));
    assert!(net.hosts[S].node.as_ref().unwrap().keying.peers(net.now).is_empty());
}

/// A pool of the other family only is none.
#[test]
fn a_pool_of_the_other_family_is_none() {
    let mut net = net(1, &["2001:db8:99::/64"]);
    net.send(0, ip(SERVER), "ping");
    net.run(seconds(5));
    assert_eq!(reason(&net, 0), Some(Why::Gateway(ike::End::NoAddress)));
}

#[test]
fn a_pool_that_is_used_up_says_so() {
    let mut net = net(1, &["10.99.0.1/32"]);
    net.send(0, ip(SERVER), "ping");
    net.run(seconds(3));
    assert_eq!(state(&net, 0), Some(StateName::Keyed));
    net.send(1, ip(SERVER), "ping");
    net.run(seconds(3));
    let refused = ike::End::Refused { notify: 36, authentic: true };
    assert_eq!(reason(&net, 1), Some(Why::Gateway(refused)));
    assert_eq!(refusals(&net), [Why::PoolExhausted]);
    // Until somebody gives one back; and the failure does not stand for long.
    net.shutdown(0);
    net.run(seconds(120));
    net.send(1, ip(SERVER), "ping again");
    net.run(seconds(3));
    assert_eq!(state(&net, 1), Some(StateName::Keyed));
    assert_eq!(lent(&net, 1), Some(ip("10.99.0.1")));
}

/// Rule 42, P4: a name that nobody signed for gets nothing, and neither does a key of another's.
#[test]
fn only_a_signed_name_with_this_key_gets_an_address() {
    for (key, security) in [(0, Security::Insecure), (1, Security::Secure)] {
        let mut net = net(1, &[POOL]);
        publish(&mut net, 0, key, security);
        net.send(0, ip(SERVER), "ping");
        net.run(seconds(5));
        assert_ne!(state(&net, 0), Some(StateName::Keyed), "{security:?}");
        assert!(only_in_clear(&net) && lent(&net, 0).is_none());
    }
}

/// Attack A6.
/// Rule 72, P4: an address from behind a NAT is never believed, whoever asks for it and however; nor is the
/// NAT's own, which others use as well.
#[test]
fn no_address_that_the_caller_brings_along_is_believed() {
    for pool in [&[POOL][..], &[]] {
        let mut net = net(1, pool);
        let (seed, now) = (net.seed(), net.now);
        net.hosts[0].start(0, Groups::packetdefault(), seed, now, |config| {
            config.identity = Some(ike::Identity::Fqdn(name(0)));
            // It proposes its own address and asks for none.
            config.translates = false;
        });
        net.drain(0);
        net.send(0, ip(SERVER), "ping");
        net.run(seconds(5));
        let expected = if pool.is_empty() { Why::NoPool } else { Why::NotAsked };
        assert_eq!(refusals(&net), [expected]);
        assert_eq!(reason(&net, 0), Some(Why::BehindNat));
        assert!(only_in_clear(&net));
        let peers = net.hosts[S].node.as_ref().unwrap().keying.peers(net.now);
        assert!(peers.iter().all(|peer| peer.speaks_for.is_empty()), "{peers:?}");
    }
}

/// Connections go on only if the address stays: over a restart of either end.
#[test]
fn whoever_comes_back_has_the_same_address() {
    let mut net = net(1, &[POOL]);
    for which in [1, 0] {
        net.send(which, ip(SERVER), "ping");
        net.run(seconds(3));
    }
    let had = lent(&net, 0).unwrap();
    assert_ne!(had, ip("10.99.0.1"), "bob was first");
    // The client crashes, and bob leaves; the client gets its own and not the first that is free.
    let (seed, now) = (net.seed(), net.now);
    net.hosts[0] = client(&mut net, 0, |_| {});
    net.drain(0);
    net.shutdown(1);
    net.run(seconds(1));
    net.send(0, ip(SERVER), "ping again");
    net.run(seconds(3));
    assert_eq!((state(&net, 0), lent(&net, 0)), (Some(StateName::Keyed), Some(had)));
    // The server crashes and knows nobody: the client asks for what it had.
    restart_server(&mut net.hosts[S], seed, now, &[POOL]);
    net.drain(S);
    for round in 0..40 {
        net.send(0, ip(SERVER), &format!("ping {round}"));
        net.run(seconds(1));
    }
    assert_eq!((state(&net, 0), lent(&net, 0)), (Some(StateName::Keyed), Some(had)));
    assert_eq!(net.hosts[0].inbox.last().unwrap().1, "pong 39");
    assert_eq!(clear(&net), 0);
}

/// An address of the pool that nobody has goes nowhere: not to DNS, not in the clear.
#[test]
fn nobodys_address_is_nobodys() {
    let mut net = net(1, &[POOL]);
    net.send(S, ip("10.99.0.77"), "who is there");
    net.run(seconds(3));
    let server = net.hosts[S].node.as_ref().unwrap();
    let seen = server.state_of(net.now, ip("10.99.0.77")).unwrap();
    assert_eq!((seen.state, seen.reason), (StateName::Deny, Some(Why::NotLent)));
    assert!(net.wire.is_empty());
}

/// The pairs live through rekeys of everything, and the address with them.
#[test]
fn a_lease_outlives_its_keys() {
    let mut net = net(2, &[POOL]);
    for round in 0..200 {
        net.send(0, ip(SERVER), &format!("ping {round}"));
        net.send(1, ip(SERVER), &format!("ping {round}"));
        net.run(Duration::from_secs(29));
    }
    for which in 0..2 {
        assert_eq!(net.hosts[which].inbox.len(), 200);
        assert_eq!(state(&net, which), Some(StateName::Keyed));
    }
    assert!(lent(&net, 0).is_some() && clear(&net) == 0);
}

/// P6: the record is looked at again, and who is no longer in it has no address any more.
#[test]
fn a_name_without_record_loses_its_address() {
    let mut net = net(1, &[POOL]);
    net.send(0, ip(SERVER), "ping");
    net.run(seconds(3));
    assert_eq!(state(&net, 0), Some(StateName::Keyed));
    net.dns.set_name(name(0).parse().unwrap(), Security::Secure, Outcome::NoRecord);
    for _ in 0..80 {
        net.send(0, ip(SERVER), "more");
        net.run(seconds(20));
    }
    assert_ne!(state(&net, 0), Some(StateName::Keyed));
    let leases = net.hosts[S].node.as_ref().unwrap().keying.leases();
    assert!(leases.iter().all(|lease| !lease.used));
}

/// A NAT that restarts gives out other ports: the pair goes on.
#[test]
fn other_ports_are_followed() {
    let mut net = net(1, &[POOL]);
    for which in 0..2 {
        net.send(which, ip(SERVER), "ping");
    }
    net.run(seconds(3));
    let had = [lent(&net, 0), lent(&net, 1)];
    net.forget_ports(0);
    for which in 0..2 {
        net.hosts[which].inbox.clear();
        net.send(which, ip(SERVER), "ping anew");
        net.run(seconds(1));
        net.send(which, ip(SERVER), "ping once more");
        net.run(seconds(1));
        let last = net.hosts[which].inbox.last().map(|(_, text)| text.as_str());
        assert_eq!(last, Some("pong once more"));
    }
    assert_eq!([lent(&net, 0), lent(&net, 1)], had);
}

/// A NAT gets another address, before anybody has ever asked how the world sees the client, and once
/// more (RFC 4555 §3.8): the pair goes on.
#[test]
fn another_address_of_the_nat_is_found() {
    let mut net = net(1, &[POOL]);
    net.send(0, ip(SERVER), "ping");
    net.run(seconds(3));
    let had = lent(&net, 0);
    for (outer, round) in [(NAT[1], 1), (NAT[0], 2)] {
        net.renumber_nat(0, ip(outer));
        let mut tries = 0;
        let answered = |net: &Net, tries: usize| {
            let pong = format!("pong {round} {tries}");
            net.hosts[0].inbox.iter().any(|(_, text)| *text == pong)
        };
        while !answered(&net, tries) {
            tries += 1;
            assert!(tries < 12, "round {round}");
            net.send(0, ip(SERVER), &format!("ping {round} {tries}"));
            net.run(seconds(1));
        }
    }
    assert_eq!((lent(&net, 0), calls(&net, 0), clear(&net)), (had, 1, 0));
}

/// What `reload` does: groups with the pool in them, and the pool.
fn reload(net: &mut Net, pool: &[&str]) -> usize {
    let mut groups = Groups::packetdefault();
    let pool: Vec<sa::Prefix> = pool.iter().map(|prefix| prefix.parse().unwrap()).collect();
    for prefix in &pool {
        groups.set_pool(*prefix).unwrap();
    }
    let now = net.now;
    let node = net.hosts[S].node.as_mut().unwrap();
    let done = node.keying.handle_configuration(now, groups, Vec::new(), pool);
    net.drain(S);
    done.leases_ended
}

fn calls(net: &Net, client: usize) -> u64 {
    net.hosts[client].node.as_ref().unwrap().keying.counters().calls
}

/// Rule 72: a pool that becomes another. Who has an address of it still keeps it and hears nothing
/// of it; the others are told, ask again, and get one that there is.
#[test]
fn another_pool_ends_the_leases_that_do_not_fit_it() {
    let mut net = net(1, &["10.99.0.0/29", "10.98.0.0/31"]);
    for which in 0..2 {
        net.send(which, ip(SERVER), "ping");
        net.run(seconds(3));
    }
    assert_eq!((lent(&net, 0), lent(&net, 1)), (Some(ip("10.99.0.1")), Some(ip("10.99.0.2"))));
    assert_eq!(reload(&mut net, &["10.97.0.0/24", "10.99.0.1/32"]), 1);
    net.run(seconds(2));
    assert_eq!(state(&net, 1), None, "it knows at once");
    for which in 0..2 {
        net.send(which, ip(SERVER), "ping anew");
        net.run(seconds(3));
        assert_eq!(net.hosts[which].inbox.last().unwrap().1, "pong anew");
    }
    assert_eq!((lent(&net, 0), lent(&net, 1)), (Some(ip("10.99.0.1")), Some(ip("10.97.0.1"))));
    assert_eq!((calls(&net, 0), calls(&net, 1)), (1, 2));
    // What is in the pool no longer is anybody's; what is nobody's goes nowhere.
    net.send(S, ip("10.97.0.77"), "who is there");
    net.run(seconds(1));
    let seen = net.hosts[S].node.as_ref().unwrap().state_of(net.now, ip("10.97.0.77")).unwrap();
    assert_eq!((seen.state, seen.reason), (StateName::Deny, Some(Why::NotLent)));
    // The same again changes nothing.
    assert_eq!(reload(&mut net, &["10.97.0.0/24", "10.99.0.1/32"]), 0);
    assert_eq!(clear(&net), 0);
    // No pool any more: both lose theirs, and hear why they get no other.
    assert_eq!(reload(&mut net, &[]), 2);
    net.run(seconds(2));
    for which in 0..2 {
        net.send(which, ip(SERVER), "ping without");
        net.run(seconds(5));
        assert_eq!(reason(&net, which), Some(Why::Gateway(ike::End::NoAddress)));
    }
    let node = net.hosts[S].node.as_ref().unwrap();
    assert!(node.state_of(net.now, ip("10.97.0.77")).is_none(), "decided anew");
    assert!(node.keying.leases().is_empty());
    // And there is one again.
    assert_eq!(reload(&mut net, &[POOL]), 0);
    net.run(seconds(3700));
    net.send(0, ip(SERVER), "ping at last");
    net.run(seconds(3));
    assert_eq!((state(&net, 0), lent(&net, 0)), (Some(StateName::Keyed), Some(ip("10.99.0.1"))));
}

/// Rule 72: groups that accept nobody at a lent address take it from nobody: what is lent asks no group.
#[test]
fn groups_take_no_lease() {
    let mut net = net(1, &[POOL]);
    net.send(0, ip(SERVER), "ping");
    net.run(seconds(3));
    let address = lent(&net, 0).unwrap();
    let mut groups = Groups::packetdefault();
    groups.set_pool(POOL.parse().unwrap()).unwrap();
    groups.insert(sa::Prefix::host(address), keying::Group::Block);
    let now = net.now;
    let done = net.hosts[S].node.as_mut().unwrap().keying.handle_groups(now, groups);
    net.drain(S);
    assert_eq!(done.flows, 0);
    net.send(0, ip(SERVER), "ping again");
    net.run(seconds(1));
    assert_eq!(net.hosts[0].inbox.last().unwrap().1, "pong again");
    assert_eq!((lent(&net, 0), calls(&net, 0)), (Some(address), 1));
}

/// Who cannot hear that his address is lent to him no more is not received from under it.
#[test]
fn nothing_is_received_from_what_is_lent_no_more() {
    let mut net = net(1, &["10.99.0.0/29"]);
    net.send(0, ip(SERVER), "ping");
    net.run(seconds(3));
    assert_eq!(lent(&net, 0), Some(ip("10.99.0.1")));
    net.filter(|_, seen| match seen.kind {
        Kind::Ike { .. } => Fate::Lost,
        Kind::Esp | Kind::Clear => Fate::Link,
    });
    assert_eq!(reload(&mut net, &["10.97.0.0/24"]), 1);
    for n in 0..5 {
        net.send(0, ip(SERVER), &format!("late {n}"));
        net.run(seconds(1));
    }
    assert_eq!(net.hosts[S].inbox.len(), 1, "{:?}", net.hosts[S].inbox);
    assert!(net.hosts[S].node.as_ref().unwrap().plane.counters().unknown_spi >= 5);
}

/// The pool becomes another while somebody calls who was promised an address of the old one: it does
/// not come to have it.
#[test]
fn another_pool_in_the_middle_of_a_call() {
    for step in 0..20 {
        let mut net = net(1, &[POOL]);
        net.send(0, ip(SERVER), "ping");
        net.run(Duration::from_millis(10 * step));
        if step == 0 {
            // The caller's signature, and our own, which is not there yet.
            while net.signatures < 2 {
                net.run(Duration::from_micros(50));
            }
            assert_eq!(lent(&net, 0), None);
        }
        reload(&mut net, &["10.97.0.0/24"]);
        for round in 0..4 {
            net.send(0, ip(SERVER), &format!("ping {round}"));
            net.run(seconds(3));
        }
        assert_eq!(lent(&net, 0), Some(ip("10.97.0.1")), "step {step}");
        assert_eq!(net.hosts[0].inbox.last().map(|(_, text)| text.as_str()), Some("pong 3"));
        let node = net.hosts[S].node.as_ref().unwrap();
        let old = |from: &IpAddr| from.to_string().starts_with("10.99.");
        let leases = node.keying.leases();
        assert!(leases.iter().all(|lease| !old(&lease.address)), "step {step}: {leases:?}");
        let peers = node.keying.peers(net.now);
        assert!(peers.iter().all(|peer| !peer.speaks_for.iter().any(old)), "step {step}");
    }
}

/// P4: whatever a zone says of an address of the pool, it is its holder's.
#[test]
fn nobody_claims_an_address_of_the_pool() {
    let mut net = net(1, &["198.51.100.0/24"]);
    let claimed = ip("198.51.100.77");
    let (seed, now) = (net.seed(), net.now);
    let mut host = Host::plain("198.51.100.77");
    host.start(3, Groups::packetdefault(), seed, now, |_| {});
    let stranger = net.add(host);
    net.dns.publish(claimed, claimed, Some(TestKey::nth(3).dns()), Security::Secure);
    net.drain(stranger);
    net.send(stranger, ip(SERVER), "ping");
    net.run(seconds(5));
    assert!(refusals(&net).contains(&Why::Group), "{:?}", refusals(&net));
    let server = net.hosts[S].node.as_ref().unwrap();
    assert!(server.state_of(net.now, claimed).is_none_or(|seen| seen.state != StateName::Keyed));
}

/// The network that a client is in gives it another address: what the server knows it by stays.
#[test]
fn another_address_behind_the_nat_is_the_same_client() {
    let mut net = net(1, &[POOL]);
    net.send(0, ip(SERVER), "ping");
    net.run(seconds(3));
    let had = lent(&net, 0).unwrap();
    net.readdress(0, vec![ip("192.168.1.77")]);
    for round in 0..20 {
        net.send(0, ip(SERVER), &format!("ping {round}"));
        net.run(seconds(1));
    }
    assert_eq!(net.hosts[0].inbox.last().unwrap().1, "pong 19");
    assert_eq!((state(&net, 0), lent(&net, 0)), (Some(StateName::Keyed), Some(had)));
    assert_eq!(clear(&net), 0);
}

/// The server has two addresses, and calls back from the one that the client has not called.
#[test]
fn a_second_address_of_the_server_reaches_the_client() {
    let mut net = net(1, &[POOL]);
    let second = "192.0.2.12";
    net.hosts[S].addresses.push(ip(second));
    let addresses = net.hosts[S].addresses.clone();
    let now = net.now;
    net.hosts[S].node.as_mut().unwrap().keying.handle_addresses(now, addresses);
    net.dns.publish(ip(second), ip(SERVER), Some(TestKey::nth(S).dns()), Security::Secure);
    net.send(0, ip(SERVER), "ping");
    net.run(seconds(3));
    let address = lent(&net, 0).unwrap();
    let now = net.now;
    net.hosts[S].send_from(now, ip(second), address, "from elsewhere");
    net.drain(S);
    net.run(seconds(5));
    assert_eq!(net.hosts[0].inbox.last(), Some(&(ip(second), "from elsewhere".to_owned())));
    assert_eq!(clear(&net), 0);
}
