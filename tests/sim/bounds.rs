//! What a node remembers of others is bounded, whoever they are and however long it may stand; and
//! what makes room is never a pair.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use dnskeys::Security;
use keying::{Groups, StateName};

use crate::net::{Link, Net};
use crate::node::{Host, TestKey, seconds};
use crate::{WEST, ip};

/// Clear and denied flows that the node may remember.
const ROOM: usize = 128;
const PEERS: usize = 100;
const SCANNED: u32 = 1000;

fn peer(n: usize) -> IpAddr {
    IpAddr::from([198, 51, 100, u8::try_from(n).unwrap() + 1])
}

fn scanned(n: u32) -> IpAddr {
    // Over neighbourhoods, so that none of them is full.
    Ipv4Addr::from(((n % 100 + 20) << 24) + n).into()
}

/// Destinations of west in this state.
fn count(net: &Net, state: StateName) -> usize {
    let all = net.hosts[0].node.as_ref().unwrap().keying.destinations(net.now);
    all.iter().filter(|d| d.state == state).count()
}

/// Attack A29: a scan of names that a signed zone denies for an hour, beside more pairs than room
/// would be looked for among.
/// P13.
#[test]
fn a_scan_beside_many_pairs_leaves_memory_routes_and_pairs_alone() {
    let mut net = Net::new(1, Link::default());
    net.forgetful = true;
    net.dns.denied_for = Some(seconds(3600));
    for n in 0..=PEERS {
        let (seed, now) = (net.seed(), net.now);
        let addr = if n == 0 { ip(WEST) } else { peer(n) };
        let key = TestKey::cheap(n);
        let mut host = Host::plain(&addr.to_string());
        host.start_with(key.clone(), Groups::packetdefault(), seed, now, |config| {
            config.destinations = ROOM;
        });
        net.add(host);
        net.dns.publish(addr, addr, Some(key.dns()), Security::Secure);
        net.drain(n);
    }
    for n in 1..=PEERS {
        net.send(0, peer(n), "ping 0");
    }
    net.run(seconds(5));
    assert_eq!(count(&net, StateName::Keyed), PEERS);
    for n in 0..SCANNED {
        net.send(0, scanned(n), "who is there");
        if n % 50 == 49 {
            net.run(Duration::from_millis(500));
            assert!(count(&net, StateName::ClearText) <= ROOM, "after {n}");
        }
    }
    net.run(seconds(2));
    let decided = |net: &Net| net.hosts[0].node.as_ref().unwrap().keying.counters().clear;
    assert_eq!(decided(&net), u64::from(SCANNED), "all were asked about, and let through");
    assert_eq!((count(&net, StateName::ClearText), count(&net, StateName::Keyed)), (ROOM, PEERS));
    let routes = net.hosts[0].node.as_ref().unwrap().policies();
    assert_eq!(routes, ROOM + PEERS, "what was forgotten has no route of its own either");
    // Pairs work, and who was forgotten is asked about again.
    let inbox = net.hosts[0].inbox.len();
    for n in 1..=PEERS {
        net.send(0, peer(n), "ping 1");
    }
    net.send(0, scanned(0), "again");
    net.run(seconds(5));
    assert_eq!(net.hosts[0].inbox.len() - inbox, PEERS);
    let clear: Vec<IpAddr> = net.wire.iter().map(|seen| seen.to).collect();
    assert!(!clear.iter().any(|to| (1..=PEERS).any(|n| peer(n) == *to)));
    assert_eq!(decided(&net), u64::from(SCANNED) + 1);
}
