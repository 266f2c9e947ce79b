//! The lab as a full mesh: everybody talks to everybody at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Serialize;

use super::capture::Record;
use super::internet::Internet;
use super::netns::Footing;
use super::node::{Children, Node};
use super::progress::Progress;
use super::report::{Claim, ms};
use super::sweep::{self, Sweep};
use super::topology::{self, Role};
use super::wire::Kind;
use crate::hostkey::Bits;

/// What came of a full mesh.
#[derive(Serialize, Debug)]
pub(crate) struct MeshReport {
    /// Whether everything held; the exit code says the same.
    pub(crate) held: bool,
    /// From start to the last verdict.
    pub(crate) took_ms: f64,
    /// Whether an unprivileged user namespace was used.
    pub(crate) unprivileged: bool,
    /// Nodes.
    pub(crate) nodes: usize,
    /// Pairs of addresses of one family: what a full mesh is made of.
    pub(crate) pairs: usize,
    /// Pairs that work both ways, from both sides.
    pub(crate) working: usize,
    /// From the first packet of all until the last pair worked; `None` if one does not.
    pub(crate) full_mesh_ms: Option<f64>,
    /// First packets sent, one from each address to each other.
    pub(crate) first_packets: usize,
    /// Those that got no answer.
    pub(crate) first_packets_lost: usize,
    /// From and to whom those were.
    pub(crate) lost: Vec<(IpAddr, IpAddr)>,
    /// Median and slowest answer to a first packet.
    pub(crate) first_packet_ms: Option<(f64, f64)>,
    /// SA pairs that were made, whether kept or not: outbound SPIs seen on the wire, halved.
    pub(crate) tunnels_seen: usize,
    /// SA pairs that the nodes hold at the end, seen from both sides and halved.
    pub(crate) tunnels: usize,
    /// SA pairs beyond one for each pair of addresses, at the end.
    pub(crate) duplicates: usize,
    /// From the first packet of all until there were none; `None` if some are left.
    pub(crate) settled_ms: Option<f64>,
    /// Packets between nodes that could be read.
    pub(crate) clear: usize,
    /// Packets the capture has seen.
    pub(crate) captured: u64,
    /// Packets the capture missed.
    pub(crate) missed: u64,
    /// What should be true.
    pub(crate) claims: Vec<Claim>,
}

/// Builds the mesh, lets all talk to all, and reports.
pub(crate) fn run(
    nodes: u8,
    footing: Footing,
    pcap: Option<File>,
    children: Children,
    progress: &mut Progress,
) -> anyhow::Result<(MeshReport, Internet)> {
    let start = Instant::now();
    progress.begin(&format!("making {nodes} namespaces and joining them"));
    let mut internet = Internet::build(&topology::mesh(nodes), children)?;
    internet.start_nodes(Bits::Rsa3072, progress)?;
    let capture = internet.watch(&[], pcap)?;
    progress.begin("everybody talks to everybody");
    let began = Instant::now();
    let sweeps = talk(&internet)?;
    progress.begin("waiting for duplicates to go");
    let (held_pairs, duplicates) = settle(&internet)?;
    let settled_ms = (duplicates == 0).then(|| ms(began.elapsed()));
    let record = capture.finish().context("the capture failed")?;
    progress.finish();
    let mut report = summarize(&internet, &sweeps, &record);
    report.unprivileged = footing == Footing::UserNamespace;
    report.tunnels = held_pairs;
    report.duplicates = duplicates;
    report.settled_ms = settled_ms;
    report.claims = claims(&report);
    report.held = report.claims.iter().all(|claim| claim.held);
    report.took_ms = ms(start.elapsed());
    Ok((report, internet))
}

/// One sweep for each node and family, all started together.
fn talk(internet: &Internet) -> anyhow::Result<Vec<Sweep>> {
    let nodes: Vec<_> = internet.hosts.iter().filter(|host| host.site.role == Role::Node).collect();
    // All threads are up before the first packet leaves.
    let begin = Instant::now() + Duration::from_millis(50);
    let mut jobs = Vec::new();
    for host in &nodes {
        for own in host.site.addresses() {
            let peers: Vec<IpAddr> = nodes
                .iter()
                .map(|peer| peer.site.address_like(own))
                .filter(|peer| *peer != own)
                .collect();
            jobs.push(host.start_job(move || {
                thread::sleep(begin.saturating_duration_since(Instant::now()));
                sweep::run(own, &peers, begin, PATIENCE)
            })?);
        }
    }
    let sweeps: io::Result<Vec<Sweep>> = jobs
        .into_iter()
        .map(|job| job.join().map_err(|_| io::Error::other("a sender has panicked"))?)
        .collect();
    sweeps.context("cannot send")
}

/// Waits for the nodes to agree on one SA pair for each pair of addresses; returns how many pairs
/// they hold and how many of them are too many.
fn settle(internet: &Internet) -> anyhow::Result<(usize, usize)> {
    let deadline = Instant::now() + SETTLE;
    loop {
        let mut held = 0;
        let mut duplicates = 0;
        for node in &internet.nodes {
            let pairs = pairs_of(node)?;
            held += pairs.values().sum::<usize>();
            duplicates += pairs.values().map(|count| count.saturating_sub(1)).sum::<usize>();
        }
        if duplicates == 0 || Instant::now() > deadline {
            return Ok((held.div_ceil(2), duplicates.div_ceil(2)));
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// How many SA pairs a node holds for each destination.
fn pairs_of(node: &Node) -> anyhow::Result<BTreeMap<String, usize>> {
    let status = node.status().with_context(|| format!("node {} is silent", node.name))?;
    let mut pairs = BTreeMap::new();
    let destinations = status.get("destinations").and_then(|list| list.as_array());
    for entry in destinations.into_iter().flatten() {
        let destination = entry.get("destination").and_then(|name| name.as_str());
        let count = entry.get("pairs").and_then(serde_json::Value::as_u64).unwrap_or(0);
        if let (Some(destination), Ok(count @ 1..)) = (destination, usize::try_from(count)) {
            *pairs.entry(destination.to_owned()).or_default() += count;
        }
    }
    Ok(pairs)
}

fn summarize(internet: &Internet, sweeps: &[Sweep], record: &Record) -> MeshReport {
    let nodes = internet.nodes.len();
    let mut working: BTreeSet<(IpAddr, IpAddr)> = BTreeSet::new();
    let mut first: Vec<Duration> = Vec::new();
    let mut first_packets = 0;
    let mut lost = Vec::new();
    let mut last = Duration::ZERO;
    for sweep in sweeps {
        for peer in &sweep.peers {
            first_packets += 1;
            first.extend(peer.first);
            if peer.first.is_none() {
                lost.push((sweep.own, peer.address));
            }
            if let Some(time) = peer.working {
                working.insert((sweep.own, peer.address));
                last = last.max(time);
            }
        }
    }
    let both = working.iter().filter(|(one, other)| working.contains(&(*other, *one))).count() / 2;
    first.sort_unstable();
    let own: BTreeSet<IpAddr> = sweeps.iter().map(|sweep| sweep.own).collect();
    let between = record
        .packets
        .iter()
        .filter(|seen| own.contains(&seen.packet.source) && own.contains(&seen.packet.destination));
    let mut clear = 0;
    let mut spis = BTreeSet::new();
    for seen in between {
        clear += usize::from(seen.packet.kind.is_clear());
        if let Kind::Esp { spi } = seen.packet.kind {
            spis.insert((seen.packet.source, seen.packet.destination, spi));
        }
    }
    let middle = first.get(first.len() / 2).zip(first.last());
    MeshReport {
        held: false,
        took_ms: 0.0,
        unprivileged: false,
        nodes,
        pairs: first_packets / 2,
        working: both,
        full_mesh_ms: (both * 2 == first_packets).then_some(ms(last)),
        first_packets,
        first_packets_lost: lost.len(),
        lost,
        first_packet_ms: middle.map(|(median, slowest)| (ms(*median), ms(*slowest))),
        tunnels_seen: spis.len().div_ceil(2),
        tunnels: 0,
        duplicates: 0,
        settled_ms: None,
        clear,
        captured: u64::try_from(record.packets.len()).unwrap_or(u64::MAX),
        missed: record.missed,
        claims: Vec::new(),
    }
}

fn claims(report: &MeshReport) -> Vec<Claim> {
    let claim = |claim, held| Claim { claim, held };
    vec![
        claim("every pair works both ways", report.full_mesh_ms.is_some()),
        claim("no first packet lost", report.first_packets_lost == 0),
        claim("no packet in clear", report.clear == 0),
        claim("no duplicate left", report.duplicates == 0 && report.tunnels == report.pairs),
        claim("the capture missed nothing", report.missed == 0),
    ]
}

/// For the last pair of the largest mesh on a slow machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// For nodes to drop what they have twice: longer than calls can be said to have crossed, because one
/// machine that carries all of them is slow.
const SETTLE: Duration = Duration::from_secs(40);
