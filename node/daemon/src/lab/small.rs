//! The lab as it is shown: west sends to east, to plain and to bogus.

use std::fs::{self, File};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::host::Host;
use super::internet::Internet;
use super::netns::Footing;
use super::node::{Children, Node};
use super::probe::{self, Dose, Outcome};
use super::progress::Progress;
use super::report::{Destination, Report, Traced};
use super::topology::{self, Role};
use crate::hostkey::Bits;

/// Builds the lab, sends, and reports. The lab stays up until the caller drops it.
pub(crate) fn run(
    footing: Footing,
    pcap: Option<File>,
    children: Children,
    progress: &mut Progress,
) -> anyhow::Result<(Report, Internet)> {
    let start = Instant::now();
    progress.begin("making namespaces and joining them");
    let mut internet = Internet::build(&topology::small_internet(), children)?;
    internet.start_nodes(Bits::Rsa3072, progress)?;

    let plaintext = plaintext();
    let capture = internet.watch(plaintext.as_bytes(), pcap)?;
    let west = named(&internet, "west")?;
    let plain = named(&internet, "plain")?;
    let bogus = named(&internet, "bogus")?;

    let mut outcomes = Vec::new();
    for (host, dose) in [(named(&internet, "east")?, FULL), (plain, FULL), (bogus, REFUSED)] {
        progress.begin(&format!("west → {}", host.site.name));
        outcomes.push((host, probe::send(west, host, plaintext.as_bytes(), dose)?));
    }
    progress.begin("plain → bogus, which proves that bogus is alive");
    let alive = probe::send(plain, bogus, plaintext.as_bytes(), ALIVE)?
        .iter()
        .all(|(_, outcome): &(_, Outcome)| outcome.first.answered.is_some());
    let record = capture.finish().context("the capture failed")?;
    progress.finish();

    let position =
        internet.hosts.iter().position(|host| host.site.name == west.site.name).unwrap_or_default();
    let trace = trace(&internet, "west");
    let destinations: Vec<Destination> = outcomes
        .into_iter()
        .map(|(host, outcomes)| {
            let mut destination =
                Destination::new((position, &west.site), &host.site, outcomes, &trace, &record);
            if host.site.role == Role::Bogus {
                destination.claim("alive: it answers plain", alive);
            }
            destination
        })
        .collect();
    let held = record.missed == 0 && destinations.iter().all(|destination| destination.held);
    let report = Report {
        held,
        took_ms: super::report::ms(start.elapsed()),
        unprivileged: footing == Footing::UserNamespace,
        captured: u64::try_from(record.packets.len()).unwrap_or(u64::MAX),
        missed: record.missed,
        hosts: internet.hosts.iter().map(|host| (&host.site).into()).collect(),
        destinations,
    };
    Ok((report, internet))
}

fn named<'a>(internet: &'a Internet, name: &str) -> anyhow::Result<&'a Host> {
    internet
        .hosts
        .iter()
        .find(|host| host.site.name == name)
        .with_context(|| format!("no host {name}"))
}

/// What the node on this host says it did. Lines that cannot be read are left out: the capture
/// proves what matters.
fn trace(internet: &Internet, name: &str) -> Vec<Traced> {
    let Some(node) = internet.nodes.iter().find(|node| node.name == name) else {
        return Vec::new();
    };
    fs::read_to_string(node.directory.join(Node::TRACE))
        .unwrap_or_default()
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// Nothing else on the wire looks like it, not even in another run.
fn plaintext() -> String {
    let nonce = std::process::id();
    let time = super::traffic::since_epoch().as_nanos();
    format!("oe-node lab plaintext {nonce:08x}{time:032x} ")
}

/// For who should answer.
const FULL: Dose = Dose { echoes: 10, octets: 256 << 10, patience: Duration::from_secs(5) };
/// For who must not be reached: long enough for a whole negotiation, had there been one.
const REFUSED: Dose = Dose { echoes: 0, octets: 1, patience: Duration::from_millis(1600) };
/// To see that somebody is there.
const ALIVE: Dose = Dose { echoes: 0, octets: 1, patience: Duration::from_secs(1) };
