//! Ten thousand packets a second that each concern an address nobody has heard of: memory, pairs
//! and new peers under it (P13).

use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use tests::place;

use crate::internet::{EAST, Internet, PATIENCE, WEST, can_run};

/// A program that ends when dropped.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn flood(internet: &Internet, host: &str, words: &[&str]) -> Program {
    let binary = tests::oe_node().with_file_name("flood").display().to_string();
    let all = [&[binary.as_str()], words].concat();
    let mut command = place::command(&internet.namespace(host), &all);
    Program(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

/// Octets a second of a TCP stream from west to east.
fn stream(internet: &Internet, seconds: &str) -> f64 {
    let binary = tests::oe_node().with_file_name("flood").display().to_string();
    let to = format!("{}:7777", EAST[0]);
    let said = place::ok(&internet.namespace("west"), &[&binary, "stream", &to, seconds]);
    said.trim().parse().unwrap()
}

/// Resident memory of a process, KiB.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// P13, P14: three floods at once, each of ten thousand a second: from a local program to fresh
/// addresses, from fresh addresses to a service that answers, and IKE_SA_INIT from fresh addresses.
#[test]
fn floods_leave_memory_pairs_and_new_peers_alone() {
    if !can_run("floods_leave_memory_pairs_and_new_peers_alone") {
        return;
    }
    let given = std::env::var("OE_NODE_FLOOD_S").ok().and_then(|s| s.parse().ok());
    let seconds: u64 = given.unwrap_or(if cfg!(debug_assertions) { 20 } else { 60 });
    let rate = "10000";
    let mut internet = Internet::alone();
    internet.serve_dns(&["west", "east"]);
    // Any source of 10/8 is the hub's own, so that it may send from there.
    let hub = internet.namespace("hub");
    place::ok(&hub, &["ip", "route", "add", "local", "10.0.0.0/8", "dev", "lo"]);
    let _east = internet.setup("east").start(&internet.namespace("east"));
    let mut setup = internet.setup("west");
    setup.quiet = true;
    setup.log = "warn".to_owned();
    let west = setup.start(&internet.namespace("west"));
    let _sink = flood(&internet, "east", &["sink", "0.0.0.0:7777"]);
    let _echo = flood(&internet, "west", &["echo", "0.0.0.0:7"]);
    place::await_some("the pair is up", PATIENCE, || internet.ping("west", EAST[0]).then_some(()));
    // Once before it counts: buffers take their places.
    stream(&internet, "2");
    let before = (stream(&internet, "4"), resident(west.pid()));

    let long = (seconds + 30).to_string();
    let echo = format!("{}:7", WEST[0]);
    let ike = format!("{}:500", WEST[0]);
    let floods = [
        flood(&internet, "west", &["to", "11.0.0.0", rate, &long]),
        flood(&internet, "hub", &["from", "10.0.0.0", &echo, rate, &long]),
        flood(&internet, "hub", &["init", "10.0.0.0", &ike, rate, &long]),
    ];
    let start = Instant::now();
    let (mut largest, mut slowest, mut total, mut count) = (0, f64::MAX, 0.0, 0.0);
    let mut served = None;
    while start.elapsed() < Duration::from_secs(seconds) {
        let speed = stream(&internet, "4");
        slowest = speed.min(slowest);
        (total, count) = (total + speed, count + 1.0);
        largest = largest.max(resident(west.pid()));
        if served.is_none() && start.elapsed() > Duration::from_secs(seconds / 2) {
            // A peer that west has not heard of: east's other address.
            let asked = Instant::now();
            place::await_some("a new peer is served", PATIENCE, || {
                let _ = place::run(
                    &internet.namespace("west"),
                    &["ping", "-n", "-c", "1", "-W", "1", EAST[1]],
                );
                // Not the whole status: that has a line for every address of the flood.
                let asked = format!(r#"{{"request":"explain","address":"{}"}}"#, EAST[1]);
                (west.ask(&asked)["destinations"][0]["state"] == "keyed").then_some(())
            });
            served = Some(asked.elapsed());
        }
    }
    largest = largest.max(resident(west.pid()));
    let status = west.status();
    drop(floods);
    let grown = largest.saturating_sub(before.1) / 1024;
    let ratio = total / count / before.0;
    println!(
        "resident {} KiB before, {largest} KiB at most: {grown} MiB more; stream {:.0} Mbit/s \
         before, {:.0} on average ({:.0} %), {:.0} at worst; a new peer after {served:?}; {}",
        before.1,
        before.0 * 8e-6,
        total / count * 8e-6,
        ratio * 100.0,
        slowest * 8e-6,
        status["counters"],
    );
    assert!(grown <= 64, "{grown} MiB more");
    // The machine carries three floods and both ends beside it, and an unoptimised build is many
    // times slower: the promise is for a release build on a machine of its own.
    let optimised = !cfg!(debug_assertions);
    let patience = Duration::from_secs(if optimised { 5 } else { 20 });
    assert!(served.unwrap() < patience, "{served:?}");
    assert!(ratio > if optimised { 0.05 } else { 0.0 }, "{ratio}");
    assert!(internet.ping("west", EAST[0]) && internet.ping("east", WEST[1]));
}
