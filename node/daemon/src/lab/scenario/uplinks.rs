//! `links`: west and east have two providers each, and a connection over each of the two ways.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::thread;
use std::time::{Duration, Instant};

use super::super::links::{self, SecondLink};
use super::super::node::Children;
use super::super::progress::Progress;
use super::super::topology::Role;
use super::Found;
use super::world::{PATIENCE, Publication, World, behind, esp, sites};

/// Runs it.
pub(super) fn run(
    pcap: Option<File>,
    children: Children,
    progress: &mut Progress,
) -> anyhow::Result<(World, Found)> {
    let mut places = sites(&[("west", Role::Node), ("east", Role::Node)]);
    places.extend([
        behind("west", "alice", Role::Plain, [192, 0, 2, 66], [0x11, 2]),
        behind("east", "bob", Role::Plain, [198, 51, 100, 66], [0x21, 2]),
    ]);
    let mut world = World::build(places, children, progress)?;
    let west2 = second([203, 0, 113, 193], 0x31)?;
    let east2 = second([203, 0, 113, 209], 0x32)?;
    for (name, link, other) in [("west", &west2, &east2), ("east", &east2, &west2)] {
        let (core, host) = (&world.internet.core, world.internet.named(name)?);
        links::join_second(core, host, link, &format!("{name}2"))?;
        // The other's second address is reached by one's own second link.
        links::route(host, other.host.0.into(), 32, link.router.0.into())?;
    }
    world.publish(
        &["west", "east"],
        &[Publication::own("west"), Publication::own("east")],
        progress,
    )?;
    progress.begin("starting the nodes");
    let firsts = [world.addresses("west")?[0], world.addresses("east")?[0]];
    let seconds: [IpAddr; 2] = [west2.host.0.into(), east2.host.0.into()];
    let (west_key, east_key) = (world.public_key("west")?, world.public_key("east")?);
    let [west_nets, east_nets] = NETS;
    let ways = [("first", firsts), ("second", seconds)];
    let east_tables = ways.map(|(name, [west, east])| {
        connection(name, [east, west], [east_nets, west_nets], &west_key, "accept")
    });
    let west_tables =
        ways.map(|(name, ends)| connection(name, ends, [west_nets, east_nets], &east_key, "now"));
    world.start("east", &east_tables.concat())?;
    world.start("west", &west_tables.concat())?;

    let mut found = Found::default();
    let bob = world.addresses("bob")?;
    progress.begin("both links come up");
    let both = until(PATIENCE, || Ok(states(&world)?.iter().all(|state| state == "up")))?;
    found.claim("both links are up, side by side", both);
    found.claim("alice reaches bob", world.pings("alice", "bob")?);
    let capture = world.watch(pcap)?;
    progress.begin("alice → bob, many flows");
    let mut transferred = true;
    for _ in 0..12 {
        transferred &= world.transfers("alice", "bob")?;
    }
    found.claim("24 TCP transfers", transferred);
    let record = capture.finish()?;
    let over = |ends: [IpAddr; 2]| esp(&record, &[ends[0]], &[ends[1]]);
    found.claim("both links carry their share", over(firsts) > 500 && over(seconds) > 500);
    found.captured = u64::try_from(record.packets.len()).unwrap_or(u64::MAX);
    found.missed = record.missed;

    found.claim("each link that is up has a route of its own", shown(&world)? == [50, 51, 100]);
    for (name, what, left) in
        [("west", "the first link dies", 51), ("west2", "the second link dies", 50)]
    {
        progress.begin(what);
        links::set_link(&world.internet.core, name, false)?;
        let gap = bob.iter().try_fold(Duration::ZERO, |gap, address| {
            let back = world.until_answered("alice", *address, PATIENCE)?;
            anyhow::Ok(gap + back.unwrap_or(PATIENCE))
        })?;
        found.figure(what, gap);
        found.claim("alice and bob go on talking within two seconds", gap < Duration::from_secs(2));
        // A link that nothing is sent on is not missed: new flows go on all.
        let gone = until(ROUTE_GOES, || {
            world.transfers("alice", "bob")?;
            Ok(shown(&world)? == [left, 100])
        })?;
        found.claim("the dead link's route is gone", gone);
        links::set_link(&world.internet.core, name, true)?;
        let again = until(COMES_BACK, || Ok(states(&world)?.iter().all(|state| state == "up")))?;
        found.claim("and the link comes back", again);
    }
    Ok((world, found))
}

/// A connection over one way: our end and theirs.
fn connection(
    name: &str,
    [near, far]: [IpAddr; 2],
    [local, remote]: [&str; 2],
    key: &str,
    start: &str,
) -> String {
    format!(
        "[[connection]]\nname = \"{name}\"\ngateway = \"{far}\"\nlocal-address = \"{near}\"\n\
         remote-key = \"{key}\"\nlocal-subnets = [{local}]\nremote-subnets = [{remote}]\n\
         start = \"{start}\"\n"
    )
}

fn second(router: [u8; 4], subnet: u16) -> anyhow::Result<SecondLink> {
    let [a, b, c, d] = router;
    Ok(SecondLink {
        router: (Ipv4Addr::from(router), format!("2001:db8:{subnet:x}::1").parse()?),
        host: (Ipv4Addr::new(a, b, c, d + 1), format!("2001:db8:{subnet:x}::2").parse()?),
    })
}

/// The metrics of west's routes to bob's site.
fn shown(world: &World) -> anyhow::Result<Vec<u32>> {
    let bobs: sa::Prefix = "198.51.100.64/28".parse()?;
    let ground = crate::kernel::GroundConfig::default();
    let look = move || crate::kernel::metrics_to(bobs, &ground.interface, ground.table);
    Ok(world.internet.named("west")?.run(look)??)
}

/// How west's connections stand.
fn states(world: &World) -> anyhow::Result<Vec<String>> {
    let status = world.status("west")?;
    let all = status.get("connections").and_then(serde_json::Value::as_array);
    let state = |c: &serde_json::Value| c.get("state")?.as_str().map(str::to_owned);
    Ok(all.into_iter().flatten().filter_map(state).collect())
}

fn until(
    patience: Duration,
    mut done: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<bool> {
    let start = Instant::now();
    while start.elapsed() < patience {
        if done()? {
            return Ok(true);
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(false)
}

/// Where alice is, and where bob is.
const NETS: [&str; 2] =
    ["\"192.0.2.64/28\", \"2001:db8:11::/64\"", "\"198.51.100.64/28\", \"2001:db8:21::/64\""];
/// For the routes to follow what happens to a link: a flow of its has to miss it first, and they wait
/// a tenth of a second.
const ROUTE_GOES: Duration = Duration::from_secs(5);
/// A link that was given up is tried again at growing intervals, of a minute at most.
const COMES_BACK: Duration = Duration::from_secs(80);
