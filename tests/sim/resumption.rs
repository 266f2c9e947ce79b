//! A node restarts and comes back to its peers with tickets (RFC 5723).

use dnskeys::{Outcome, Security};
use keying::{Groups, KeptTicket};

use crate::net::{Link, Net};
use crate::node::{Host, TestKey, seconds};
use crate::{EAST, WEST, ip, west_and_east};

const KEYS: [[u8; 32]; 2] = [[1; 32], [2; 32]];

/// Starts a node anew; the ticket key is what its disk has kept, and what else is given to it.
fn start(net: &mut Net, host: usize, kept: &[KeptTicket]) {
    start_as(net, host, host, kept);
}

/// The same with any of the keys.
fn start_as(net: &mut Net, host: usize, key: usize, kept: &[KeptTicket]) {
    let (seed, now) = (net.seed(), net.now);
    net.hosts[host].start(key, Groups::packetdefault(), seed, now, |config| {
        config.ike.resumption = true;
        config.ike.ticket_keys = vec![KEYS[key % 2].into()];
        config.ike.token_secret = Some(KEYS[key % 2].into());
        config.ike.started = std::time::Duration::from_secs(1_800_000_000);
    });
    let node = net.hosts[host].node.as_mut().unwrap();
    for ticket in kept {
        node.keying.handle_ticket(now, ticket.clone());
    }
    net.drain(host);
}

fn tickets(net: &Net, host: usize) -> Vec<KeptTicket> {
    net.hosts[host].node.as_ref().unwrap().keying.tickets(net.now)
}

fn pong(net: &mut Net, word: &str) {
    net.send(0, ip(EAST), &format!("ping {word}"));
    net.run(seconds(5));
    assert!(net.hosts[0].inbox.contains(&(ip(EAST), format!("pong {word}"))), "{word}");
}

#[test]
fn a_restart_costs_no_signature() {
    for seed in 0..10 {
        for restarted in [&[0][..], &[1], &[0, 1]] {
            let mut net = west_and_east(seed, Link::default());
            for host in 0..2 {
                start(&mut net, host, &[]);
            }
            pong(&mut net, "first");
            let kept = tickets(&net, 0);
            assert_eq!(kept.len(), 1);
            net.run(seconds(40));
            let before = net.signatures;
            assert_eq!(before, 2);
            for host in restarted {
                start(&mut net, *host, if *host == 0 { &kept } else { &[] });
            }
            // The survivor has to find out first.
            net.run(seconds(1));
            net.send(0, ip(EAST), "ping hello");
            net.run(seconds(15));
            pong(&mut net, "again");
            assert_eq!(net.signatures, before, "seed {seed} {restarted:?}");
            assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 0);
        }
    }
}

#[test]
fn a_record_that_is_gone_is_not_made_up_for_by_a_ticket() {
    let mut net = west_and_east(3, Link::default());
    for host in 0..2 {
        start(&mut net, host, &[]);
    }
    pong(&mut net, "first");
    let kept = tickets(&net, 0);
    net.run(seconds(40));
    // West's record goes; east restarts and has nothing but its ticket key.
    net.dns.set(ip(WEST), Security::Secure, Outcome::NoRecord);
    start(&mut net, 0, &kept);
    start(&mut net, 1, &[]);
    net.send(0, ip(EAST), "ping again");
    net.run(seconds(40));
    let east = net.hosts[1].node.as_ref().unwrap();
    assert!(east.state_of(net.now, ip(WEST)).is_none_or(|d| d.spi_in.is_none()));
}

/// What keying wants kept is what it gives at its end.
#[test]
fn what_is_told_is_what_is_there() {
    let mut net = west_and_east(4, Link::default());
    for host in 0..2 {
        start(&mut net, host, &[]);
    }
    pong(&mut net, "first");
    let told = &net.hosts[0].node.as_ref().unwrap().told;
    assert_eq!(told.len(), 1);
    let kept = tickets(&net, 0);
    assert_eq!((told[0].gateway, told[0].key), (kept[0].gateway, kept[0].key));
    assert_eq!(told[0].ticket, kept[0].ticket);
}

/// P16: a gateway with a thousand peers restarts. Each of them has a ticket, and whether it is the
/// gateway that takes them up again or they that call, nobody signs anything.
#[test]
fn a_thousand_peers_are_back_without_a_signature() {
    const PEERS: usize = 1000;
    let mut net = Net::new(7, Link::default());
    let gateway = "198.51.100.12";
    let peer = |n: usize| format!("10.1.{}.{}", n / 250, n % 250 + 1);
    for n in 0..=PEERS {
        let addr = if n == 0 { gateway.to_owned() } else { peer(n - 1) };
        // Keys take long to make, and nobody here compares two peers'.
        let key = if n == 0 { 0 } else { 1 + n % 3 };
        net.add(Host::plain(&addr));
        net.dns.publish(ip(&addr), ip(&addr), Some(TestKey::nth(key).dns()), Security::Secure);
        start_as(&mut net, n, key, &[]);
    }
    for n in 0..PEERS {
        net.send(0, ip(&peer(n)), "ping first");
        // A node calls so many at once and no more.
        if n % 20 == 19 {
            net.run(seconds(2));
        }
    }
    net.run(seconds(60));
    let pongs = |net: &Net, word: &str| {
        let word = format!("pong {word}");
        net.hosts[0].inbox.iter().filter(|(_, text)| *text == word).count()
    };
    assert_eq!(pongs(&net, "first"), PEERS);
    let kept = tickets(&net, 0);
    assert_eq!(kept.len(), PEERS);
    let before = net.signatures;
    assert_eq!(before, 2 * PEERS);
    start_as(&mut net, 0, 0, &kept);
    for n in 0..PEERS {
        net.send(0, ip(&peer(n)), "ping again");
        if n % 20 == 19 {
            net.run(seconds(2));
        }
    }
    net.run(seconds(60));
    assert_eq!(pongs(&net, "again"), PEERS);
    assert_eq!(net.signatures, before, "a thousand peers back");
    for n in 0..PEERS {
        assert_eq!(net.clear_between(ip(gateway), ip(&peer(n))), 0);
    }
}
