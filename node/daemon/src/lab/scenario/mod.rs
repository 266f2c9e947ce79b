//! Worked examples with real packets (`oe-node lab --scenario`): each builds its own small
//! internet, does what the documentation describes, and checks what the wire shows.

mod extruded;
mod failover;
mod gateway;
mod nat;
mod policy_matrix;
mod uplinks;
mod world;

use std::fs::File;
use std::time::Instant;

use serde::Serialize;

use super::internet::Internet;
use super::netns::Footing;
use super::node::Children;
use super::progress::Progress;
use super::report::{Claim, ms};

/// Which example.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Scenario {
    /// A gateway encrypts for the hosts behind it whose records name it.
    Gateway,
    /// Of a host's two gateways one dies, and the other takes over.
    Failover,
    /// Two sites with two links between them share the load, and one link dies.
    Links,
    /// A gateway lends addresses to a distant site, which is on the Internet by them.
    Extruded,
    /// Clients behind NATs, two of them with the same address behind one, call by name.
    Nat,
    /// Every policy group against every other.
    PolicyMatrix,
}

impl Scenario {
    fn title(self) -> &'static str {
        match self {
            Self::Gateway => "hosts behind gateways",
            Self::Failover => "a host behind two gateways",
            Self::Links => "two links between two sites",
            Self::Extruded => "a subnet lent to a distant site",
            Self::Nat => "clients behind NATs",
            Self::PolicyMatrix => "every policy group against every other",
        }
    }
}

/// What came of it.
#[derive(Serialize, Debug)]
pub(crate) struct ScenarioReport {
    /// Which it was.
    pub(crate) scenario: &'static str,
    /// Whether everything held; the exit code says the same.
    pub(crate) held: bool,
    /// From start to the last verdict.
    pub(crate) took_ms: f64,
    /// Whether an unprivileged user namespace was used.
    pub(crate) unprivileged: bool,
    /// Packets the capture has seen.
    pub(crate) captured: u64,
    /// Packets the capture missed.
    pub(crate) missed: u64,
    /// What was measured.
    pub(crate) figures: Vec<Figure>,
    /// What should be true.
    pub(crate) claims: Vec<Claim>,
}

/// Something measured.
#[derive(Serialize, Clone, Copy, Debug)]
pub(crate) struct Figure {
    /// What.
    pub(crate) what: &'static str,
    /// How long it took.
    pub(crate) ms: f64,
}

/// Builds the example's world, runs it, and reports.
pub(crate) fn run(
    scenario: Scenario,
    footing: Footing,
    pcap: Option<File>,
    children: Children,
    progress: &mut Progress,
) -> anyhow::Result<(ScenarioReport, Internet)> {
    let start = Instant::now();
    let (world, found) = match scenario {
        Scenario::Gateway => gateway::run(pcap, children, progress)?,
        Scenario::Failover => failover::run(pcap, children, progress)?,
        Scenario::Links => uplinks::run(pcap, children, progress)?,
        Scenario::Extruded => extruded::run(pcap, children, progress)?,
        Scenario::Nat => nat::run(pcap, children, progress)?,
        Scenario::PolicyMatrix => policy_matrix::run(pcap, children, progress)?,
    };
    progress.finish();
    let Found { claims, figures, captured, missed } = found;
    let report = ScenarioReport {
        scenario: scenario.title(),
        held: missed == 0 && claims.iter().all(|claim| claim.held),
        took_ms: ms(start.elapsed()),
        unprivileged: footing == Footing::UserNamespace,
        captured,
        missed,
        figures,
        claims,
    };
    Ok((report, world.internet))
}

/// What an example has found.
#[derive(Default)]
struct Found {
    claims: Vec<Claim>,
    figures: Vec<Figure>,
    captured: u64,
    missed: u64,
}

impl Found {
    fn claim(&mut self, claim: &'static str, held: bool) {
        self.claims.push(Claim { claim, held });
    }

    fn figure(&mut self, what: &'static str, took: std::time::Duration) {
        self.figures.push(Figure { what, ms: ms(took) });
    }
}
