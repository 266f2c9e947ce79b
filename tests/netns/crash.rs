//! A daemon ends and comes back: how long until traffic flows again (RFC 6290), and at what cost
//! (RFC 5723).

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use tests::place;

use crate::internet::{EAST, Internet, PATIENCE, WEST, can_run};

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
    assert!(back < Duration::from_secs(12), "{back:?}");
    east.await_state(WEST[0], "keyed");
}

#[test]
fn a_node_that_comes_back_does_so_with_a_ticket() {
    if !can_run("a_node_that_comes_back_does_so_with_a_ticket") {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west", "east"]);
    let wire = internet.capture("west");
    let east = internet.setup("east").start(&internet.namespace("east"));
    let setup = internet.setup("west");
    let state = |name: &str| setup.directory.join("state").join(name);
    // By SIGKILL, and in good order.
    for orderly in [false, true] {
        let mut west = setup.start(&internet.namespace("west"));
        assert!(internet.ping("west", EAST[0]));
        west.await_state(EAST[0], "keyed");
        for name in ["tickets", "ticket.secret", "crash.secret"] {
            let mode = std::fs::metadata(state(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        let mark = (wire.packets(INIT).len(), wire.packets(RESUME).len());
        if orderly {
            assert!(west.terminate().success());
        } else {
            west.kill();
        }
        let west = setup.start(&internet.namespace("west"));
        assert!(internet.ping("west", EAST[0]));
        let keyed = west.await_state(EAST[0], "keyed");
        assert_eq!(tests::node::text(&keyed, "trust"), "dnssec");
        wire.await_esp();
        place::await_some("IKE_SESSION_RESUME", PATIENCE, || {
            (wire.packets(RESUME).len() >= mark.1 + 2).then_some(())
        });
        assert_eq!(wire.packets(INIT).len(), mark.0, "a whole handshake");
    }
    drop(east);
}

/// IKE_SA_INIT.
const INIT: &str = "udp port 500 and udp[26] = 34";
/// IKE_SESSION_RESUME.
const RESUME: &str = "udp port 500 and udp[26] = 38";
