//! `nat`: alice and bob, each behind a NAT at home and both behind their carrier's, and carol behind
//! one of her own, all have the same address. Each calls a server by name and gets an address of its
//! pool.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};

use serde_json::Value;

use super::super::node::Children;
use super::super::progress::Progress;
use super::super::topology::Role;
use super::Found;
use super::world::{PATIENCE, Publication, World, behind, esp, in_clear, sites};

/// Runs it.
pub(super) fn run(
    pcap: Option<File>,
    children: Children,
    progress: &mut Progress,
) -> anyhow::Result<(World, Found)> {
    let mut places =
        sites(&[("server", Role::Node), ("carrier", Role::Plain), ("cafe", Role::Plain)]);
    places.extend([
        behind("carrier", "home1", Role::Plain, [100, 64, 0, 18], [0x21, 2]),
        behind("carrier", "home2", Role::Plain, [100, 64, 0, 34], [0x22, 2]),
        behind("home1", "alice", Role::Node, INNER, [0x31, 2]),
        behind("home2", "bob", Role::Node, INNER, [0x32, 2]),
        behind("cafe", "carol", Role::Node, INNER, [0x33, 2]),
        behind("cafe", "dora", Role::Node, [192, 168, 1, 26], [0x34, 2]),
    ]);
    let mut world = World::build(places, children, progress)?;
    for nat in ["carrier", "home1", "home2", "cafe"] {
        world.masquerade(nat)?;
    }
    let keys = ["server", "alice", "bob", "carol", "dora"];
    world.publish_with(&keys, &[Publication::own("server")], &CLIENTS, progress)?;
    progress.begin("starting the nodes");
    world.start("server", "[pool]\nprefixes = [\"10.99.0.0/24\"]\n")?;
    for name in CLIENTS {
        world.start_named(name)?;
    }
    world.start("dora", "")?;

    let mut found = Found::default();
    let server = world.addresses("server")?;
    let nats = [world.addresses("carrier")?[0], world.addresses("cafe")?[0]];
    let capture = world.watch(pcap)?;
    for (name, claim, figure) in [
        ("alice", "alice's first packet is answered", "alice's first packet, answered"),
        ("bob", "bob's, from the same address behind the same NAT", "bob's"),
        ("carol", "carol's, from the same address behind another", "carol's"),
    ] {
        progress.begin(&format!("{name} → server"));
        let took = world.ping(name, server[0], PATIENCE)?;
        found.claim(claim, took.is_some());
        if let Some(took) = took {
            found.figure(figure, took);
        }
    }
    progress.begin("all three at once");
    found.claim("all three transfer at once", world.transfers_at_once(&CLIENTS, server[0])?);
    let lent = lent(&world.status("server")?);
    found.claim("each has an address of its own in the pool", lent.len() == CLIENTS.len());
    progress.begin("the server → each of them");
    let mut reached = true;
    for address in &lent {
        reached &= world.ping("server", *address, PATIENCE)?.is_some();
    }
    found.claim("and the server reaches each by it", reached);
    let record = capture.finish()?;
    let readable = record.packets.iter().filter(|seen| seen.readable).count();
    found.claim(
        "nothing of it could be read on the wire",
        readable == 0 && in_clear(&record, &nats, &server).count() == 0,
    );
    found.claim(
        "but ESP, through both NATs",
        nats.iter().all(|nat| esp(&record, &[*nat], &server) > 350),
    );

    progress.begin("dora, who has no name to call by");
    let reached = world.ping("dora", server[0], PATIENCE)?.is_some();
    found.claim("dora goes in the clear, and is told why", {
        reached && world.status("dora")?.to_string().contains("behind a NAT")
    });
    found.captured = u64::try_from(record.packets.len()).unwrap_or(u64::MAX);
    found.missed = record.missed;
    Ok((world, found))
}

/// The addresses of the pool that a node encrypts to, with a key that DNS has signed for.
fn lent(status: &Value) -> Vec<IpAddr> {
    let destinations = status["destinations"].as_array().into_iter().flatten();
    let keyed = destinations.filter(|d| d["state"] == "keyed" && d["trust"] == "dnssec");
    let addresses = keyed.filter_map(|d| d["destination"].as_str()?.parse::<Ipv4Addr>().ok());
    let mut pool: Vec<IpAddr> =
        addresses.filter(|a| matches!(a.octets(), [10, 99, ..])).map(IpAddr::from).collect();
    pool.sort_unstable();
    pool.dedup();
    pool
}

/// Who has a name in DNS and nothing else.
const CLIENTS: [&str; 3] = ["alice", "bob", "carol"];
/// What they all believe to be.
const INNER: [u8; 4] = [192, 168, 1, 10];
