//! `extruded`: hq has more addresses than it needs and lends a block of them to home, which sits
//! behind another provider. Desk, at home, is on the Internet by an address of hq's.

use std::fs::File;
use std::net::IpAddr;

use super::super::capture::Record;
use super::super::node::Children;
use super::super::progress::Progress;
use super::super::topology::Role;
use super::Found;
use super::world::{PATIENCE, Publication, REFUSED, World, behind, esp, sites};

/// Runs it.
pub(super) fn run(
    pcap: Option<File>,
    children: Children,
    progress: &mut Progress,
) -> anyhow::Result<(World, Found)> {
    let mut places = sites(&[("hq", Role::Node), ("home", Role::Node), ("plain", Role::Plain)]);
    places.extend([
        behind("hq", "office", Role::Plain, [192, 0, 2, 66], [0x11, 2]),
        behind("home", "printer", Role::Plain, [198, 51, 100, 66], [0x21, 2]),
        behind("home", "desk", Role::Plain, [192, 0, 2, 130], [0x1f, 2]),
    ]);
    let mut world = World::build(places, children, progress)?;
    let hq_route = world.addresses("hq")?;
    // To the Internet the block is hq's.
    world.reroute("desk", hq_route)?;
    world.publish(
        &["hq", "home"],
        &[Publication::own("hq"), Publication::own("home")],
        progress,
    )?;
    progress.begin("starting the nodes");
    let hq_tables = peer("home", "", &world.addresses("home")?, &world.public_key("home")?)
        + &LENT.map(|lent| format!("[[extrude]]\nsubnet = \"{lent}\"\nto = \"home\"\n")).concat();
    let home_tables = peer("hq", "now", &world.addresses("hq")?, &world.public_key("hq")?)
        + &LENT.map(|lent| format!("[[borrow]]\nsubnet = \"{lent}\"\nfrom = \"hq\"\n")).concat();
    world.start("hq", &hq_tables)?;
    world.start("home", &home_tables)?;

    let mut found = Found::default();
    let capture = world.watch(pcap)?;
    let (hq, home) = (world.addresses("hq")?, world.addresses("home")?);
    let (desk, plain) = (world.addresses("desk")?, world.addresses("plain")?);
    progress.begin("desk → plain, somewhere on the Internet");
    let first = world.ping("desk", plain[0], PATIENCE)?;
    found.claim("desk's first packet to the Internet is answered", first.is_some());
    if let Some(took) = first {
        found.figure("first packet answered", took);
    }
    found.claim("and in IPv6", world.ping("desk", plain[1], PATIENCE)?.is_some());
    found.claim("a TCP transfer, both families", world.transfers("desk", "plain")?);
    progress.begin("plain → desk, office → desk, desk → printer");
    found.claim("the Internet reaches desk", world.pings("plain", "desk")?);
    found.claim("hq's other machines reach desk", world.pings("office", "desk")?);
    found.claim("desk reaches the printer, which is at home too", world.pings("desk", "printer")?);
    found.claim("home goes its own way", world.pings("home", "plain")?);
    let record = capture.finish()?;
    let (from_home, from_hq) = (world.position("home")?, world.position("hq")?);
    found.claim(
        "nothing of desk's leaves home but in ESP to hq",
        seen(&record, from_home, &desk) == 0 && esp(&record, &home, &hq) > 700,
    );
    found.claim("beyond hq desk has its own address", seen(&record, from_hq, &desk) > 300);
    let printer = world.addresses("printer")?;
    let local =
        desk.iter().all(|d| printer.iter().all(|p| record.between(*d, *p).next().is_none()));
    found.claim("what stays at home is not seen outside", local);
    (found.captured, found.missed) = tally(&record);

    outage(&mut world, &mut found, &hq_tables, progress)?;
    Ok((world, found))
}

/// The lender is gone for a while.
fn outage(
    world: &mut World,
    found: &mut Found,
    hq_tables: &str,
    progress: &mut Progress,
) -> anyhow::Result<()> {
    let (from_home, from_hq) = (world.position("home")?, world.position("hq")?);
    let (desk, plain) = (world.addresses("desk")?, world.addresses("plain")?);
    progress.begin("hq dies, and comes back");
    let capture = world.watch(None)?;
    world.kill("hq")?;
    found.claim(
        "without hq desk reaches nobody outside",
        world.ping("desk", plain[0], REFUSED)?.is_none()
            && world.ping("desk", plain[1], REFUSED)?.is_none(),
    );
    found.claim(
        "and nobody outside reaches desk",
        world.ping("plain", desk[0], REFUSED)?.is_none()
            && world.ping("plain", desk[1], REFUSED)?.is_none(),
    );
    found.claim("desk still reaches the printer", world.pings("desk", "printer")?);
    let record = capture.finish()?;
    found.claim(
        "nothing of desk's leaves home in the clear, and nothing for desk leaves hq",
        seen(&record, from_home, &desk) == 0 && seen(&record, from_hq, &desk) == 0,
    );
    let (captured, missed) = tally(&record);
    found.captured += captured;
    found.missed += missed;
    world.start("hq", hq_tables)?;
    let back = world.until_answered("desk", plain[0], COMES_BACK)?;
    found.claim("hq is back, and so is desk", back.is_some());
    if let Some(took) = back {
        found.figure("from hq's start to desk's first answer", took);
    }
    found.claim("and in IPv6", world.until_answered("desk", plain[1], COMES_BACK)?.is_some());
    Ok(())
}

/// The other end of the connection.
fn peer(name: &str, start: &str, addresses: &[IpAddr; 2], key: &str) -> String {
    let start = if start.is_empty() { "accept" } else { start };
    format!(
        "[[connection]]\nname = \"{name}\"\ngateway = \"{}\"\nremote-key = \"{key}\"\n\
         start = \"{start}\"\n",
        addresses[0]
    )
}

/// Packets with one of these addresses that came from a host's link and anybody could read.
fn seen(record: &Record, host: usize, addresses: &[IpAddr]) -> usize {
    let ours = |address| addresses.contains(&address);
    let packets = record.packets.iter().filter(|seen| seen.host == host);
    packets
        .filter(|seen| ours(seen.packet.source) || ours(seen.packet.destination))
        .filter(|seen| seen.packet.kind.is_clear())
        .count()
}

fn tally(record: &Record) -> (u64, u64) {
    (u64::try_from(record.packets.len()).unwrap_or(u64::MAX), record.missed)
}

/// The block, in both families.
const LENT: [&str; 2] = ["192.0.2.128/28", "2001:db8:1f::/64"];
/// Silence has to be noticed, asked after and believed before the peer is called anew.
const COMES_BACK: std::time::Duration = std::time::Duration::from_secs(60);
