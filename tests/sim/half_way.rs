//! Strangers who have come to IKE_AUTH: they make us ask DNS and verify signatures, and that is what
//! they have to earn, and to share.

use std::net::IpAddr;
use std::time::Duration;

use dnskeys::Security;

use crate::net::{Fate, Kind, Link, Net};
use crate::node::{Host, Sent, TestKey, seconds};
use crate::{WEST, ip};

const MALLORY: &str = "203.0.113.66";
const HONEST: &str = "198.51.100.99";
const IKE_AUTH: u8 = 35;

fn key(n: usize) -> Option<dnskeys::PublicKey> {
    Some(TestKey::nth(n).dns())
}

/// One more node with the n-th key.
fn add(net: &mut Net, addr: &str, n: usize) -> usize {
    let (seed, now) = (net.seed(), net.now);
    let host = net.add(Host::node(addr, n, seed, now));
    net.dns.publish(ip(addr), ip(addr), key(n), Security::Secure);
    net.drain(host);
    host
}

fn counters(net: &Net) -> keying::Counters {
    *net.hosts[0].node.as_ref().unwrap().keying.counters()
}

fn is_auth(sent: &Sent) -> Option<&ike::Transmit> {
    match sent {
        Sent::Ike(t) if t.octets.get(18) == Some(&IKE_AUTH) && t.octets[19] & 0x20 == 0 => Some(t),
        _ => None,
    }
}

/// Attacks A25, A27.
/// P13: DNS is asked for nobody whose second message did not authenticate under the keys
/// of the first exchange, and nothing is signed for it. Of one that did, it is.
#[test]
fn nobody_makes_us_ask_before_the_second_message_is_authentic() {
    let mut net = Net::new(1, Link::default());
    add(&mut net, WEST, 0);
    add(&mut net, MALLORY, 2);
    net.tapped = Some(Vec::new());
    net.filter(|_, seen| match seen.kind {
        Kind::Ike { exchange: IKE_AUTH, .. } => Fate::Lost,
        _ => Fate::Link,
    });
    net.send(1, ip(WEST), "x");
    net.run(seconds(1));
    let tapped = net.tapped.take().unwrap_or_default();
    let auth = tapped.iter().find_map(is_auth).expect("the second message").clone();
    let before = (counters(&net).queries, net.signatures);
    let with = |octets: Vec<u8>| Sent::Ike(ike::Transmit { octets, ..auth.clone() });
    for at in 28..auth.octets.len() {
        let mut octets = auth.octets.clone();
        octets[at] ^= 0x40;
        net.inject(with(octets));
    }
    // Under no SPIs that there are, and without protection.
    for at in [0, 8] {
        let mut octets = auth.octets.clone();
        octets[at] ^= 0x40;
        net.inject(with(octets));
    }
    let mut plain = auth.octets[..28].to_vec();
    plain[16] = 0;
    plain[24..28].copy_from_slice(&28_u32.to_be_bytes());
    net.inject(with(plain));
    net.run(Duration::from_millis(50));
    assert_eq!((counters(&net).queries, net.signatures), before);
    assert_eq!((counters(&net).visitors_refused, counters(&net).visitors_accepted), (0, 0));
    net.inject(with(auth.octets.clone()));
    net.run(Duration::from_millis(50));
    assert!(counters(&net).queries > before.0, "and the real one is asked about");
    assert_eq!(counters(&net).visitors_accepted, 1);
}

/// Attack A25.
/// P13: two hundred hosts of one prefix call, each with a signature that takes effort and
/// a reverse name whose servers never answer. They take so many places, and whoever comes from
/// elsewhere is let in at once; so is the next.
#[test]
fn a_prefix_of_callers_leaves_room_for_others() {
    let mut net = Net::new(2, Link::default());
    add(&mut net, WEST, 0);
    let crowd: Vec<usize> =
        (1..=200).map(|n| add(&mut net, &format!("203.0.113.{n}"), 2)).collect();
    for n in 1..=200 {
        net.dns.silent(IpAddr::from([203, 0, 113, n]));
    }
    for host in crowd {
        net.send(host, ip(WEST), "x");
    }
    net.run(seconds(1));
    let asked = counters(&net).queries;
    assert!((32..=72).contains(&asked), "{asked} questions for one prefix");
    for round in 0..3 {
        let addr = format!("198.51.{}.99", 101 + round);
        let honest = add(&mut net, &addr, 3);
        net.send(honest, ip(WEST), "ping");
        let served = |net: &Net| !net.hosts[honest].inbox.is_empty();
        assert!(net.run_until(seconds(2), served), "round {round}");
        assert_eq!(net.clear_between(ip(&addr), ip(WEST)), 0, "round {round}");
    }
    // The crowd is served as far as its name servers go: refused, and it gives up or goes clear.
    let calm = |net: &Net| counters(net).visitors_refused > 0;
    assert!(net.run_until(seconds(20), calm));
    net.run(seconds(60));
    let honest = add(&mut net, HONEST, 3);
    net.send(honest, ip(WEST), "ping");
    net.run(seconds(2));
    assert!(!net.hosts[honest].inbox.is_empty());
}
