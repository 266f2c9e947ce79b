//! A daemon is killed and comes back: how long until traffic flows again (RFC 6290).

use std::time::{Duration, Instant};

use tests::place;

use crate::internet::{EAST, Internet, WEST, can_run};

#[test]
fn a_node_that_was_killed_is_back_as_soon_as_it_runs_again() {
    if !can_run("a_node_that_was_killed_is_back_as_soon_as_it_runs_again") {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west", "east"]);
    let west = internet.setup("west").start(&internet.namespace("west"));
    let setup = internet.setup("east");
    let mut east = setup.start(&internet.namespace("east"));
    assert!(internet.ping("west", EAST[0]));
    west.await_state(EAST[0], "keyed");
    east.kill();
    let east = setup.start(&internet.namespace("east"));
    // East remembers west, and calls; or what west sends tells east that somebody thinks it is there.
    let start = Instant::now();
    let back = place::await_some("traffic flows again", Duration::from_secs(30), || {
        let once = ["ping", "-n", "-c", "1", "-W", "0.3", EAST[0]];
        place::run(&internet.namespace("west"), &once).0.then(|| start.elapsed())
    });
    println!("back {back:?} after it runs again");
    // Silence alone is taken for death after five seconds, and probed for seven and a half.
    assert!(back < Duration::from_secs(8), "{back:?}");
    east.await_state(WEST[0], "keyed");
}
