//! Every policy group against every other, called and calling: encrypted wherever one side calls
//! and the other accepts, otherwise as the stricter side has it.

use dnskeys::Security;
use keying::{Group, Groups, StateName};
use sa::Prefix;

use crate::net::{Link, Net};
use crate::node::{Host, TestKey, seconds};
use crate::{EAST, WEST, ip};

/// What becomes of a packet and its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Became {
    Encrypted,
    Clear,
    Nothing,
}

/// What must become of a word from a host in the first group's place to one in the second's.
fn expected(west: Group, east: Group) -> Became {
    let calls = |a: Group, b: Group| a.initiates() && b.accepts();
    let silent = |group: Group| matches!(group, Group::Private | Group::Block);
    match (west, east) {
        (Group::Block, _) | (_, Group::Block) => Became::Nothing,
        // West calls; or it lets the first packet go in the clear, and east's answer calls.
        (w, e) if calls(w, e) || (calls(e, w) && w.accepts()) => Became::Encrypted,
        (w, e) if silent(w) || silent(e) => Became::Nothing,
        _ => Became::Clear,
    }
}

fn only(group: Group) -> Groups {
    let mut groups = Groups::new();
    groups.insert(Prefix::ALL_V4, group);
    groups
}

fn run(west: Group, east: Group) -> (Became, Net) {
    let mut net = Net::new(7, Link::default());
    for (key, (addr, group)) in [(WEST, west), (EAST, east)].into_iter().enumerate() {
        let (seed, now) = (net.seed(), net.now);
        let mut host = Host::plain(addr);
        host.start(key, only(group), seed, now, |_| {});
        net.add(host);
        net.dns.publish(ip(addr), ip(addr), Some(TestKey::nth(key).dns()), Security::Secure);
        net.drain(key);
    }
    // Applications repeat what is not answered.
    for n in 1..=20 {
        net.send(0, ip(EAST), &format!("ping {n}"));
        net.run(seconds(1));
    }
    let answered = |n: usize| net.hosts[0].inbox.contains(&(ip(EAST), format!("pong {n}")));
    let keyed = [(0, EAST), (1, WEST)].iter().all(|(host, peer)| {
        let node = net.hosts[*host].node.as_ref().unwrap();
        node.state_of(net.now, ip(peer)).is_some_and(|d| d.state == StateName::Keyed)
    });
    let became = match (answered(20), keyed) {
        (true, true) => Became::Encrypted,
        (true, false) => Became::Clear,
        (false, _) => Became::Nothing,
    };
    (became, net)
}

/// Rules 2, 6, 7, 49.
#[test]
fn all_pairs_of_groups() {
    for west in Group::ALL {
        for east in Group::ALL {
            let (became, net) = run(west, east);
            assert_eq!(became, expected(west, east), "{west} to {east}");
            let strict = |group| matches!(group, Group::Private | Group::Block);
            let from = |a: &str| {
                let clear = |s: &&crate::net::Seen| s.kind == crate::net::Kind::Clear;
                net.between(ip(WEST), ip(EAST)).filter(clear).filter(|s| s.from == ip(a)).count()
            };
            if strict(west) {
                assert_eq!(from(WEST), 0, "{west} to {east}: clear text");
            }
            if strict(east) {
                assert_eq!(from(EAST), 0, "{west} to {east}: clear text back");
            }
        }
    }
}
