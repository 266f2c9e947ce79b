//! Every IKE message lost, and every one duplicated, one at a time: the first packet still
//! arrives, and nothing goes in the clear.

use std::cell::Cell;
use std::rc::Rc;

use crate::net::{Fate, Kind, Link};
use crate::node::seconds;
use crate::{EAST, WEST, ip, west_and_east};

/// Runs one conversation, doing `fate` to the n-th IKE message; how many there were.
fn conversation(position: usize, fate: Fate) -> usize {
    let mut net = west_and_east(40, Link::default());
    let count = Rc::new(Cell::new(0));
    let counter = Rc::clone(&count);
    net.filter(move |_, seen| {
        if !matches!(seen.kind, Kind::Ike { .. }) {
            return Fate::Link;
        }
        let number = counter.replace(counter.get() + 1);
        if number == position { fate } else { Fate::Link }
    });
    net.send(0, ip(EAST), "ping 1");
    let done = net.run_until(seconds(20), |net| !net.hosts[0].inbox.is_empty());
    assert!(done, "position {position} {fate:?}: {:?}", net.wire);
    net.shutdown(0);
    net.run(seconds(20));
    let east = net.hosts[1].node.as_ref().unwrap();
    assert!(east.state_of(net.now, ip(WEST)).is_none(), "position {position} {fate:?}");
    assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 0);
    count.get()
}

#[test]
fn each_message_lost_or_duplicated() {
    let messages = conversation(usize::MAX, Fate::Lost);
    assert!(messages >= 6, "SA_INIT, AUTH and Delete, both ways: {messages}");
    for position in 0..messages {
        conversation(position, Fate::Lost);
        conversation(position, Fate::Twice);
    }
}

#[test]
fn a_bad_link_delays_and_loses_nothing_else() {
    for seed in 0..200 {
        let mut net = west_and_east(seed, Link::bad());
        net.send(0, ip(EAST), "ping 1");
        let keyed = net.run_until(seconds(30), |net| {
            let node = net.hosts[0].node.as_ref().unwrap();
            node.state_of(net.now, ip(EAST)).is_some_and(|d| d.state == keying::StateName::Keyed)
        });
        let clear = net.clear_between(ip(WEST), ip(EAST));
        // All tries lost is possible, and then private-or-clear is clear, and says so.
        let downgraded = net.hosts[0].node.as_ref().unwrap().keying.counters().downgrades;
        assert!(keyed || downgraded == 1, "seed {seed}");
        assert!(clear == 0 || downgraded == 1, "seed {seed}");
    }
}
