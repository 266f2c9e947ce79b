//! The first packet to an unknown peer is held, keyed and delivered; nothing goes in the clear.

use crate::net::{Kind, Link};
use crate::node::seconds;
use crate::{EAST, WEST, ip, west_and_east};

/// Rules 5, 10, 19, 24, 45.
#[test]
fn the_first_packet_is_answered_through_esp() {
    let mut net = west_and_east(1, Link::default());
    net.send(0, ip(EAST), "ping 1");
    assert!(net.run_until(seconds(2), |net| !net.hosts[0].inbox.is_empty()));
    assert_eq!(net.hosts[0].inbox, [(ip(EAST), "pong 1".to_owned())]);
    assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 0);
    assert_eq!(net.between(ip(WEST), ip(EAST)).filter(|s| s.kind == Kind::Esp).count(), 2);
    // Two round trips of IKE, one of DNS on each side, one of the packet itself.
    assert!(net.now - net.start < seconds(1), "{:?}", net.now - net.start);
    for (host, peer) in [(0, EAST), (1, WEST)] {
        let node = net.hosts[host].node.as_ref().unwrap();
        let state = node.state_of(net.now, ip(peer)).unwrap();
        assert_eq!(state.state, keying::StateName::Keyed);
        assert_eq!(state.trust, Some(sa::Trust::Dnssec));
        assert_eq!(state.pairs, 1);
    }
}

/// Rules 11, 13.
#[test]
fn the_first_and_the_last_few_held_packets_are_delivered_in_order() {
    let mut net = west_and_east(2, Link::default());
    for n in 1..=8 {
        net.send(0, ip(EAST), &format!("word {n}"));
    }
    net.run(seconds(2));
    let heard: Vec<&str> = net.hosts[1].inbox.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(heard, ["word 1", "word 5", "word 6", "word 7", "word 8"]);
    net.send(0, ip(EAST), "word 9");
    net.run(seconds(1));
    assert_eq!(net.hosts[1].inbox.len(), 6);
    assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 0);
}

/// Rules 31, 38, 39, 57.
#[test]
fn a_clean_shutdown_deletes_at_both_ends() {
    let mut net = west_and_east(3, Link::default());
    net.send(0, ip(EAST), "ping 1");
    net.run(seconds(2));
    net.shutdown(0);
    net.run(seconds(2));
    let east = net.hosts[1].node.as_ref().unwrap();
    assert!(east.state_of(net.now, ip(WEST)).is_none(), "{:?}", east.state_of(net.now, ip(WEST)));
    assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 0);
}

/// Rules 50, 51, 53.
/// libreswan issues 185.
#[test]
fn an_idle_pair_is_closed_and_comes_back_by_itself() {
    let mut net = west_and_east(4, Link::default());
    net.send(0, ip(EAST), "ping 1");
    net.run(seconds(200));
    for (host, peer) in [(0, EAST), (1, WEST)] {
        assert!(net.hosts[host].node.as_ref().unwrap().state_of(net.now, ip(peer)).is_none());
    }
    net.send(1, ip(WEST), "ping 2");
    net.run(seconds(2));
    assert!(net.hosts[1].inbox.contains(&(ip(WEST), "pong 2".to_owned())));
    assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 0);
}
