//! A small internet in network namespaces (`oe-node lab`).
//!
//! One thread for each host, in a network namespace of its own ([`host`]); one veth pair from each
//! to a core router that forwards ([`links`]) and watches ([`capture`], [`wire`]); a DNS host with
//! signed reverse zones ([`names`]); nodes that are processes of their own ([`node`]); traffic as
//! applications send it ([`traffic`], [`probe`]); and what can be said of it afterwards
//! ([`report`], [`text`]). Nothing has a name outside this process, so nothing can be left behind.

mod capture;
mod host;
mod internet;
mod interrupt;
mod keep;
mod keys;
mod links;
mod mesh;
mod names;
mod netns;
mod node;
mod probe;
mod progress;
mod report;
mod ring;
mod scenario;
mod small;
mod sweep;
mod text;
mod topology;
mod traffic;
mod wire;

use std::fs::File;
use std::io::{self, Write as _};

use anyhow::Context as _;
use serde::Serialize;

pub(crate) use netns::Refusal;
pub(crate) use scenario::Scenario;
pub(crate) use topology::MOST_NODES;

use interrupt::Interrupt;
use node::Children;
use progress::Progress;
use text::Style;

/// What the user wants of the lab.
#[derive(Debug)]
pub(crate) struct Options {
    /// A full mesh of so many nodes instead of the small internet.
    pub(crate) nodes: Option<u8>,
    /// A worked example instead.
    pub(crate) scenario: Option<Scenario>,
    /// Write the result as JSON.
    pub(crate) json: bool,
    /// Where the captured packets go.
    pub(crate) pcap: Option<File>,
    /// Stay up after the report.
    pub(crate) keep: bool,
}

/// Builds the lab, lets it work, and prints what came of it; tells whether everything held. Must
/// be called before the process starts its first thread.
pub(crate) fn run(options: Options) -> anyhow::Result<bool> {
    let footing = netns::enter()?;
    netns::check_tun()?;
    let children = Children::default();
    let interrupt = Interrupt::watch(children.clone()).context("cannot watch for signals")?;
    let mut progress = Progress::new(options.json);
    let style = Style::of_stdout();
    let (held, internet) = if let Some(scenario) = options.scenario {
        let (report, internet) =
            scenario::run(scenario, footing, options.pcap, children, &mut progress)?;
        print(&report, options.json, || text::scenario(&report, style))?;
        if !report.held && !options.json {
            show_logs(&internet)?;
        }
        (report.held, internet)
    } else if let Some(nodes) = options.nodes {
        let (report, internet) = mesh::run(nodes, footing, options.pcap, children, &mut progress)?;
        print(&report, options.json, || text::mesh(&report, style))?;
        (report.held, internet)
    } else {
        if !options.json {
            let picture = text::picture(&topology::small_internet(), style);
            write_out(&format!("{}\n", text::introduction(&picture, footing, style)))?;
        }
        let (report, internet) = small::run(footing, options.pcap, children, &mut progress)?;
        print(&report, options.json, || text::report(&report, style))?;
        if !report.held && !options.json {
            show_logs(&internet)?;
        }
        (report.held, internet)
    };
    if options.keep {
        interrupt.expect(u8::from(!held));
        keep::wait(&internet, footing)?;
    }
    Ok(held)
}

fn print(report: &impl Serialize, json: bool, text: impl FnOnce() -> String) -> anyhow::Result<()> {
    if json {
        write_out(&format!("{}\n", serde_json::to_string_pretty(report)?))
    } else {
        write_out(&text())
    }
}

fn write_out(text: &str) -> anyhow::Result<()> {
    io::stdout().write_all(text.as_bytes()).context("cannot write the report")
}

/// What the nodes have logged, where that may tell why something did not hold.
fn show_logs(internet: &internet::Internet) -> anyhow::Result<()> {
    let mut stderr = io::stderr().lock();
    for node in &internet.nodes {
        let tail = node.log_tail();
        if !tail.is_empty() {
            writeln!(stderr, "\nlog of {}, its end:\n{tail}", node.name)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::capture::Capture;
    use super::host::Host;
    use super::topology::Site;
    use super::traffic::{self, Pinger};
    use super::wire::Kind;
    use super::{links, topology};
    use crate::kernel::namespace::skipped;

    /// The middle of an internet, and its hosts, joined; `None` where there are no namespaces.
    pub(super) fn started(sites: Vec<Site>) -> Option<(Host, Vec<Host>)> {
        let core = Host::start(topology::core())
            .map_err(|error| skipped(&format!("no network namespaces here (run as root): {error}")))
            .ok()?;
        let hosts: Vec<Host> =
            sites.into_iter().map(|site| Host::start(site).expect("a namespace")).collect();
        links::join(&core, &hosts).expect("links");
        Some((core, hosts))
    }

    /// With no daemon anywhere, all hosts reach each other, and the capture sees all of it.
    #[test]
    fn hosts_reach_each_other_and_the_capture_sees_it() {
        let Some((core, hosts)) = started(topology::small_internet()) else { return };
        let capture = Capture::start(&core, b"attack at dawn".to_vec(), None).expect("a capture");
        let [_, west, _, plain, _] = hosts.as_slice() else { unreachable!() };
        plain.run(traffic::serve_echo).expect("the host").expect("an echo service");
        for to in plain.site.addresses() {
            let echo = west
                .run(move || Pinger::new(to, 7)?.ping(1, b"attack at dawn", PATIENCE))
                .expect("the host")
                .expect("an echo request");
            assert!(echo.answered.is_some(), "{to} does not answer its first echo request");
            let transfer = west
                .run(move || traffic::transfer(to, OCTETS, b"attack at dawn", PATIENCE))
                .expect("the host")
                .expect("a transfer");
            assert_eq!(transfer.octets, OCTETS);
            assert_eq!(transfer.retransmitted, 0);
        }
        let record = capture.finish().expect("a record");
        assert_eq!(record.missed, 0);
        for to in plain.site.addresses() {
            let from = west.site.address_like(to);
            let sent: Vec<_> = record.sent(from, to).collect();
            let requests = if to.is_ipv4() { 8 } else { 128 };
            let echoes = sent
                .iter()
                .filter(|seen| seen.packet.kind == Kind::Icmp { kind: requests })
                .count();
            assert_eq!(echoes, 1);
            // At an MTU of 1500 this many octets take this many segments; super-packets would
            // be fewer.
            let segments = sent.iter().filter(|seen| seen.packet.kind == Kind::Tcp).count();
            assert!(segments > OCTETS / 1460, "{segments} segments");
            assert!(sent.iter().all(|seen| seen.host == 1), "all of it came from west");
            assert!(sent.iter().filter(|seen| seen.readable).count() > OCTETS / 1460);
        }
    }

    const PATIENCE: Duration = Duration::from_secs(5);
    const OCTETS: usize = 1 << 20;
}
