//! Attempts to make two nodes talk in the clear that could talk through a pair.

use std::net::IpAddr;

use dnskeys::{Outcome, Security};
use keying::{Group, Groups, StateName};
use sa::Prefix;

use crate::net::{Kind, Link};
use crate::node::{Sent, TestKey, seconds};
use crate::{EAST, WEST, ip, packet, west_and_east};

/// Attack A18.
/// A clear packet "proves" that its sender has no encryption: anybody can send one in his name,
/// before there is a decision, while there is none yet, and after it. It opens nothing: what answers
/// it is held, and leaves through a pair.
#[test]
fn a_clear_packet_from_somebody_proves_nothing_about_him() {
    for group in [Group::PrivateOrClear, Group::Private] {
        for during in [false, true] {
            let case = format!("{group} {during}");
            let mut net = west_and_east(1, Link::default());
            let mut groups = Groups::new();
            groups.insert(Prefix::ALL_V4, group);
            let (seed, now) = (net.seed(), net.now);
            net.hosts[0].start(0, groups, seed, now, |_| {});
            net.drain(0);
            if during {
                net.send(0, ip(EAST), "ping first");
            }
            // West answers what it hears, as applications do: an echo, and a word of its own.
            for n in 0..20 {
                let forged = packet::build(ip(EAST), ip(WEST), &format!("ping forged {n}"));
                net.inject(Sent::Clear(forged));
                net.run(std::time::Duration::from_millis(5));
            }
            net.send(0, ip(EAST), "ping last");
            net.run(seconds(3));
            let from_west = |kind: Kind| {
                let of = |s: &&crate::net::Seen| s.kind == kind && s.from == ip(WEST);
                net.wire.iter().filter(of).count()
            };
            assert_eq!(from_west(Kind::Clear), 0, "{case}");
            assert!(from_west(Kind::Esp) > 0, "{case}");
            let west = net.hosts[0].node.as_ref().unwrap();
            assert_eq!(west.state_of(net.now, ip(EAST)).unwrap().state, StateName::Keyed, "{case}");
            let answer: (IpAddr, String) = (ip(EAST), "pong last".to_owned());
            assert!(net.hosts[0].inbox.contains(&answer), "{case}");
        }
    }
}

/// Attack A34.
/// West has decided that east is clear, and has an hour to think so; then east publishes a key and
/// calls. From then on west's packets are encrypted, those of the flow that was in the clear as well.
#[test]
fn who_was_clear_is_encrypted_to_when_it_calls() {
    let mut net = west_and_east(2, Link::default());
    net.dns.set(ip(EAST), Security::Secure, Outcome::NoRecord);
    net.hosts[1].echo = false;
    net.send(0, ip(EAST), "word");
    net.run(seconds(2));
    let state = |net: &crate::net::Net| {
        let west = net.hosts[0].node.as_ref().unwrap();
        west.state_of(net.now, ip(EAST)).unwrap().state
    };
    assert_eq!(state(&net), StateName::ClearText);
    assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 1);
    let key = Some(TestKey::nth(1).dns());
    net.dns.publish(ip(EAST), ip(EAST), key, Security::Secure);
    net.send(1, ip(WEST), "ping");
    net.run(seconds(2));
    assert_eq!(net.hosts[1].inbox.last(), Some(&(ip(WEST), "pong".to_owned())));
    assert_eq!(state(&net), StateName::Keyed);
    net.send(0, ip(EAST), "word again");
    net.run(seconds(1));
    assert_eq!(net.hosts[1].inbox.last(), Some(&(ip(WEST), "word again".to_owned())));
    assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 1);
}
