//! `gateway`: alice behind west and bob behind east know nothing of encryption; their gateways,
//! which their reverse records name, do it for them.

use std::fs::File;

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
    let mut places = sites(&[("west", Role::Node), ("east", Role::Node), ("plain", Role::Plain)]);
    places.extend([
        behind("west", "alice", Role::Plain, [192, 0, 2, 66], [0x11, 2]),
        behind("west", "carl", Role::Plain, [192, 0, 2, 82], [0x12, 2]),
        behind("west", "dora", Role::Node, [192, 0, 2, 98], [0x13, 2]),
        behind("east", "bob", Role::Plain, [198, 51, 100, 66], [0x21, 2]),
    ]);
    let mut world = World::build(places, children, progress)?;
    // Carl has no record; dora, behind the same gateway, has a node of her own.
    let records = [
        Publication::own("west"),
        Publication::own("east"),
        Publication::own("dora"),
        Publication::of("alice", "west"),
        Publication::of("bob", "east"),
    ];
    world.publish(&["west", "east", "dora"], &records, progress)?;
    progress.begin("starting the nodes");
    world.start(
        "west",
        "[[serve]]\nsubnet = \"192.0.2.64/26\"\n[[serve]]\nsubnet = \"2001:db8:10::/44\"\n",
    )?;
    world.start(
        "east",
        "[[serve]]\nsubnet = \"198.51.100.64/26\"\n[[serve]]\nsubnet = \"2001:db8:20::/44\"\n",
    )?;
    world.start("dora", "")?;

    let mut found = Found::default();
    let capture = world.watch(pcap)?;
    let [alice, bob, carl, dora, plain, west, east] =
        ["alice", "bob", "carl", "dora", "plain", "west", "east"].map(|n| world.addresses(n));
    let (alice, bob, carl, dora) = (alice?, bob?, carl?, dora?);
    let (plain, west, east) = (plain?, west?, east?);

    progress.begin("alice → bob, each behind a gateway");
    let first = world.ping("alice", bob[0], PATIENCE)?;
    found.claim("alice's first packet to bob is answered", first.is_some());
    if let Some(took) = first {
        found.figure("alice's first packet to bob, answered", took);
    }
    found.claim("and in IPv6", world.ping("alice", bob[1], PATIENCE)?.is_some());
    found.claim("bob's to alice too", world.pings("bob", "alice")?);
    found.claim("a TCP transfer each way, both families", world.transfers("alice", "bob")?);
    progress.begin("carl, who is behind west and has published nothing");
    found.claim("carl reaches bob", world.pings("carl", "bob")?);
    progress.begin("dora, who is behind west and has a node of her own");
    found.claim("dora reaches bob", world.pings("dora", "bob")?);
    found.claim("and transfers", world.transfers("dora", "bob")?);
    found.claim("dora reaches west, her gateway", world.pings("dora", "west")?);
    progress.begin("plain, who has published nothing");
    found.claim("plain reaches bob, and alice", {
        world.pings("plain", "bob")? && world.pings("plain", "alice")?
    });
    let status = world.status("west")?.to_string();
    let record = capture.finish()?;

    found.claim(
        "nothing between alice and bob was seen on the wire, not even their addresses",
        alice.iter().all(|a| bob.iter().all(|b| record.between(*a, *b).next().is_none())),
    );
    found.claim("but ESP between their gateways", esp(&record, &west, &east) > 700);
    found.claim(
        "carl goes in the clear: nobody speaks for him",
        in_clear(&record, &carl, &bob).count() > 0 && status.contains("no gateway for its source"),
    );
    found.claim(
        "dora's own ESP passes her gateway as it is",
        esp(&record, &dora, &east) > 350 && in_clear(&record, &dora, &bob).count() == 0,
    );
    found.claim("plain is served in the clear", in_clear(&record, &plain, &bob).count() > 0);
    found.captured = u64::try_from(record.packets.len()).unwrap_or(u64::MAX);
    found.missed = record.missed;
    Ok((world, found))
}
