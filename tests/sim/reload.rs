//! New policy groups for a running node: what changed is changed, nothing else is touched.

use dnskeys::Security;
use keying::{Group, Groups, StateName};
use sa::Prefix;

use crate::net::{Link, Net};
use crate::node::{Host, TestKey, seconds};
use crate::{EAST, WEST, ip, west_and_east};

fn groups(east: Option<Group>) -> Groups {
    let mut groups = Groups::packetdefault();
    if let Some(group) = east {
        groups.insert(Prefix::host(ip(EAST)), group);
    }
    groups
}

fn reload(net: &mut Net, east: Option<Group>) -> keying::Reloaded {
    let now = net.now;
    let node = net.hosts[0].node.as_mut().unwrap();
    let done = node.keying.handle_groups(now, groups(east));
    net.drain(0);
    done
}

fn state(net: &Net) -> Option<StateName> {
    net.hosts[0].node.as_ref().unwrap().state_of(net.now, ip(EAST)).map(|d| d.state)
}

#[test]
fn a_pair_that_the_new_groups_allow_stays() {
    let mut net = west_and_east(1, Link::default());
    net.send(0, ip(EAST), "ping 1");
    net.run(seconds(2));
    let before = net.wire.len();
    let done = reload(&mut net, Some(Group::Private));
    assert_eq!((done.changed, done.removed, done.flows), (1, 0, 0));
    net.run(seconds(1));
    assert_eq!(net.wire.len(), before, "nothing was said on the wire");
    net.send(0, ip(EAST), "ping 2");
    net.run(seconds(1));
    assert!(net.hosts[0].inbox.contains(&(ip(EAST), "pong 2".to_owned())));
    assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 0);
}

#[test]
fn a_pair_that_they_forbid_goes_and_its_packets_with_it() {
    let mut net = west_and_east(2, Link::default());
    net.send(0, ip(EAST), "ping 1");
    net.run(seconds(2));
    assert_eq!(reload(&mut net, Some(Group::Block)).flows, 1);
    net.run(seconds(1));
    net.send(0, ip(EAST), "ping 2");
    net.run(seconds(2));
    assert_eq!(net.hosts[0].inbox.len(), 1);
    assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 0);
    assert_eq!(net.hosts[1].node.as_ref().unwrap().state_of(net.now, ip(WEST)), None);
}

#[test]
fn clear_text_ends_when_the_group_becomes_private() {
    let mut net = Net::new(3, Link::default());
    let (seed, now) = (net.seed(), net.now);
    net.add(Host::node(WEST, 0, seed, now));
    net.add(Host::plain(EAST));
    net.drain(0);
    net.send(0, ip(EAST), "ping 1");
    net.run(seconds(2));
    assert_eq!(state(&net), Some(StateName::ClearText));
    assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 2);
    assert_eq!(reload(&mut net, Some(Group::Private)).flows, 1);
    net.send(0, ip(EAST), "ping 2");
    net.run(seconds(2));
    assert_eq!(state(&net), Some(StateName::Deny));
    assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 2);
    // And back.
    reload(&mut net, None);
    net.send(0, ip(EAST), "ping 3");
    net.run(seconds(2));
    assert_eq!(state(&net), Some(StateName::ClearText));
}

/// Rule 20.
#[test]
fn a_keyless_record_is_completed_by_the_gateways_own() {
    // East's record names itself without a key, and a second one carries it: rule 20.
    let mut net = Net::new(4, Link::default());
    let (seed, now) = (net.seed(), net.now);
    net.add(Host::node(WEST, 0, seed, now));
    let seed = net.seed();
    net.add(Host::node(EAST, 1, seed, now));
    let key = |n| Some(TestKey::nth(n).dns());
    net.dns.publish(ip(WEST), ip(WEST), key(0), Security::Secure);
    let set = crate::dns::records(&[(10, ip(EAST), None), (10, ip(EAST), key(1))]);
    net.dns.set(ip(EAST), Security::Secure, dnskeys::Outcome::Records(set));
    net.drain(0);
    net.drain(1);
    net.send(0, ip(EAST), "ping 1");
    net.run(seconds(2));
    assert_eq!(state(&net), Some(StateName::Keyed));
}
