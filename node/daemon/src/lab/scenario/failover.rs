//! `failover`: bob is behind two gateways, which his record names in order. The first dies.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::super::links::{self, SecondLink};
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
    let mut places = sites(&[("west", Role::Node), ("east", Role::Node), ("north", Role::Node)]);
    places.extend([behind("east", "bob", Role::Plain, [198, 51, 100, 66], [0x21, 2])]);
    let mut world = World::build(places, children, progress)?;
    let bob = world.addresses("bob")?;
    let north_side = SecondLink {
        router: (Ipv4Addr::new(203, 0, 113, 193), "2001:db8:31::1".parse()?),
        host: (Ipv4Addr::new(203, 0, 113, 194), "2001:db8:31::2".parse()?),
    };
    let north = world.internet.named("north")?;
    links::join_second(north, world.internet.named("bob")?, &north_side, "bob")?;
    links::route(north, bob[0], 32, north_side.host.0.into())?;
    links::route(north, bob[1], 128, north_side.host.1.into())?;
    let by = |owner, gateway, precedence| Publication { owner, gateway, precedence };
    let records = [
        by("west", "west", 10),
        by("east", "east", 10),
        by("north", "north", 10),
        by("bob", "east", 10),
        by("bob", "north", 20),
    ];
    world.publish(&["west", "east", "north"], &records, progress)?;
    progress.begin("starting the nodes");
    let served =
        format!("[[serve]]\nsubnet = \"{}\"\n[[serve]]\nsubnet = \"{}\"\n", bob[0], bob[1]);
    world.start("west", "")?;
    world.start("east", &served)?;
    world.start("north", &served)?;

    let mut found = Found::default();
    let capture = world.watch(pcap)?;
    let (west, east, north) =
        (world.addresses("west")?, world.addresses("east")?, world.addresses("north")?);
    progress.begin("west → bob, by the gateway that his record prefers");
    let first = world.ping("west", bob[0], PATIENCE)?;
    found.claim("west's first packet to bob is answered", first.is_some());
    if let Some(took) = first {
        found.figure("first packet answered", took);
    }
    found.claim("and in IPv6", world.ping("west", bob[1], PATIENCE)?.is_some());
    found.claim(
        "through east, whose precedence is the stronger",
        keyed_by(&world, bob[0], east[0])?,
    );

    progress.begin("east dies; bob's site sends by north now");
    world.kill("east")?;
    links::set_link(&world.internet.core, "east", false)?;
    // What a routing daemon or VRRP does at bob's site.
    links::default_route(world.internet.named("bob")?, &north_side)?;
    let back = world.until_answered("west", bob[0], TAKE_OVER)?;
    found.claim("north takes over", back.is_some() && keyed_by(&world, bob[0], north[0])?);
    if let Some(took) = back {
        found.figure("without answer while the gateways changed", took);
        found.claim("within two seconds", took < Duration::from_secs(2));
    }
    let back6 = world.until_answered("west", bob[1], TAKE_OVER)?;
    found.claim("and in IPv6", back6.is_some());
    found.claim("a TCP transfer, both families", world.transfers("west", "bob")?);
    let record = capture.finish()?;
    found.claim(
        "nothing between west and bob in the clear, at any time",
        in_clear(&record, &west, &bob).next().is_none(),
    );
    found.claim(
        "ESP to both gateways",
        esp(&record, &west, &east) > 2 && esp(&record, &west, &north) > 300,
    );
    found.captured = u64::try_from(record.packets.len()).unwrap_or(u64::MAX);
    found.missed = record.missed;
    Ok((world, found))
}

/// Whether west has a pair for this destination by this gateway.
fn keyed_by(world: &World, destination: IpAddr, gateway: IpAddr) -> anyhow::Result<bool> {
    let status = world.status("west")?;
    let all = status.get("destinations").and_then(serde_json::Value::as_array);
    let (destination, gateway) = (destination.to_string(), gateway.to_string());
    Ok(all.into_iter().flatten().any(|d| {
        let is = |key: &str, value: &str| d.get(key).is_some_and(|found| found == value);
        is("destination", &destination) && is("gateway", &gateway) && is("state", "keyed")
    }))
}

/// For a machine that has other things to do.
const TAKE_OVER: Duration = Duration::from_secs(60);
