//! A daemon's uplink gets another address while packets flow (RFC 4555).

use std::process::Stdio;
use std::time::Duration;

use tests::place;

use crate::internet::{EAST, Internet, PATIENCE, WEST, can_run};

/// Gives a host another IPv4 address instead of the one it has.
fn readdress(internet: &Internet, host: &str, old: &str, new: &str) {
    let namespace = internet.namespace(host);
    let gateway = format!("{}.1", old.rsplit_once('.').unwrap().0);
    let script = format!(
        "ip addr del {old}/24 dev eth0 && ip addr add {new}/24 dev eth0 && \
         ip route replace default via {gateway}"
    );
    place::ok(&namespace, &["sh", "-c", &script]);
}

#[test]
fn an_uplink_that_changes_its_address_loses_no_pair() {
    if !can_run("an_uplink_that_changes_its_address_loses_no_pair") {
        return;
    }
    // What is encrypted are the IPv6 addresses, which stay; what it travels between are the IPv4
    // addresses, which their records name as gateways.
    let mut internet = Internet::new();
    internet.serve_records(&[
        ("west", WEST[0], WEST[0]),
        ("east", EAST[0], EAST[0]),
        ("west", WEST[1], WEST[0]),
        ("east", EAST[1], EAST[0]),
    ]);
    let west = internet.setup("west").start(&internet.namespace("west"));
    let east = internet.setup("east").start(&internet.namespace("east"));
    assert!(internet.ping("west", EAST[1]));
    west.await_state(EAST[1], "keyed");
    let pinging = place::command(
        &internet.namespace("west"),
        &["ping", "-n", "-i", "0.02", "-c", "400", EAST[1]],
    )
    .stdout(Stdio::piped())
    .spawn()
    .unwrap();
    // First who called, then who was called; both back again.
    let moves = [
        ("west", WEST[0], "192.0.2.77"),
        ("east", EAST[0], "198.51.100.77"),
        ("west", "192.0.2.77", WEST[0]),
        ("east", "198.51.100.77", EAST[0]),
    ];
    for (number, (host, old, new)) in moves.into_iter().enumerate() {
        std::thread::sleep(Duration::from_millis(500));
        readdress(&internet, host, old, new);
        let other = if host == "west" { &east } else { &west };
        place::await_some(&format!("the other end of {host} follows"), PATIENCE, || {
            let peer = if host == "west" { WEST[1] } else { EAST[1] };
            let found = other.destination(peer);
            (tests::node::text(&found, "gateway") == new).then_some(())
        });
        assert!(internet.ping("west", EAST[1]), "after move {number}");
        assert!(internet.ping("east", WEST[1]), "after move {number}");
    }
    let said = pinging.wait_with_output().unwrap().stdout;
    let said = String::from_utf8_lossy(&said);
    let received = said.lines().filter(|line| line.contains("time=")).count();
    println!("four moves cost {} of 400 packets, one each 20 ms", 400 - received);
    assert!(received >= 250, "{said}");
    // No call but the first, and no pair but the first.
    assert_eq!((west.happened("calling"), east.happened("calling")), (1, 0));
    assert_eq!((west.happened("keyed"), east.happened("keyed")), (1, 1));
    assert!(west.await_happened("moved", 4) >= 4 && east.await_happened("moved", 4) >= 4);
}

/// RFC 4322 §3.3.2: a host's second address, whose record names the first, is called for from that, and is
/// called there; its own packets are never in the clear.
#[test]
fn a_second_address_is_spoken_for_by_the_first() {
    const SECOND: &str = "192.0.2.12";
    if !can_run("a_second_address_is_spoken_for_by_the_first") {
        return;
    }
    for (from, to, other) in [("west", EAST[0], SECOND), ("east", SECOND, EAST[0])] {
        let mut internet = Internet::new();
        internet.serve_records(&[
            ("west", WEST[0], WEST[0]),
            ("west", SECOND, WEST[0]),
            ("east", EAST[0], EAST[0]),
        ]);
        let namespace = internet.namespace("west");
        place::ok(&namespace, &["ip", "addr", "add", &format!("{SECOND}/24"), "dev", "eth0"]);
        let west = internet.setup("west").start(&namespace);
        let east = internet.setup("east").start(&internet.namespace("east"));
        let wire = internet.capture("west");
        let ping = ["ping", "-n", "-c", "1", "-W", "8", "-I", other, to];
        assert!(place::run(&internet.namespace(from), &ping).0, "{from}");
        west.await_state(EAST[0], "keyed");
        east.await_state(SECOND, "keyed");
        let found = east.destination(SECOND);
        assert_eq!(tests::node::text(&found, "gateway"), WEST[0], "{from}");
        // By both ends' packets and by nothing else.
        assert!(
            place::run(&namespace, &["ping", "-n", "-c", "3", "-i", "0.2", "-I", SECOND, EAST[0]])
                .0
        );
        let clear = wire.packets(&format!("ip host {SECOND} and not arp"));
        assert!(clear.is_empty(), "{from}: {clear:#?}");
        assert!(!wire.packets(&format!("udp port 4500 and host {}", WEST[0])).is_empty());
    }
}
