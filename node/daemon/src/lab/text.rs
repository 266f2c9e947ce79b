//! The report for people: a picture, a table for each destination, and what held.

use std::fmt::Write as _;
use std::io::IsTerminal;

use super::mesh::MeshReport;
use super::netns::Footing;
use super::report::{Destination, Event, Publishes, Report, Way};
use super::scenario::ScenarioReport;
use super::topology::Site;

/// How to write: with colours or without.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Style {
    colour: bool,
}

impl Style {
    /// Colours only on a terminal whose user has not declined them (`NO_COLOR`).
    pub(crate) fn of_stdout() -> Self {
        let declined = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { colour: std::io::stdout().is_terminal() && !declined }
    }

    /// Without colours.
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self { colour: false }
    }

    /// Emphasised.
    pub(crate) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// Said in passing.
    pub(crate) fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    /// A check mark or a cross.
    pub(crate) fn mark(self, held: bool) -> String {
        if held { self.paint("32", "✓") } else { self.paint("1;31", "✗") }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// The topology. Expects the five sites of [`super::topology::small_internet`].
pub(crate) fn picture(sites: &[Site], style: Style) -> String {
    let [dns, west, east, plain, bogus] = sites else { return String::new() };
    let left = |site: &Site| (format!("{:<5} {}", site.name, site.v4), site.v6.to_string());
    let right = |site: &Site, what: &str| {
        (format!("{:<6} {:<15} {}", site.name, site.v4.to_string(), style.dim(what)), site.v6)
    };
    let ((west, west6), (dns, dns6)) = (left(west), left(dns));
    let (east, east6) = right(east, "key in DNS");
    let (plain, plain6) = right(plain, "nothing in DNS");
    let (bogus, bogus6) = right(bogus, "record tampered");
    format!(
        "  {west:<21} ──┐          ┌── {east}\n\
         {:8}{west6:<15}   │          │          {east6}\n\
         {:26}├── core ──┼── {plain}\n\
         {:26}│ captured │          {plain6}\n\
         {:2}{dns:<21} ──┘          └── {bogus}\n\
         {:8}{dns6:<15}                         {bogus6}\n",
        "", "", "", "", ""
    )
}

/// What this is, before it begins.
pub(crate) fn introduction(picture: &str, footing: Footing, style: Style) -> String {
    let footing = match footing {
        Footing::Root => "as root",
        Footing::UserNamespace => "in an unprivileged user namespace",
    };
    format!(
        "{} a small internet in network namespaces, {footing}\n\n{picture}\n  \
         dns serves the reverse zones, signed with DNSSEC. west and east are processes\n  \
         that know its address and the trust anchor, and nothing of each other.\n",
        style.bold("oe-node lab:")
    )
}

/// The report of a mesh.
pub(crate) fn mesh(report: &MeshReport, style: Style) -> String {
    let mut text = format!(
        "{}\n",
        style.bold(&format!(
            "{} nodes, everybody to everybody at once, IPv4 and IPv6",
            report.nodes
        ))
    );
    let mut row = |label: &str, value: String| {
        let _ = writeln!(text, "  {label:<46}{value:>16}");
    };
    row("pairs of addresses", report.pairs.to_string());
    row("working both ways", report.working.to_string());
    row(
        "time to full mesh",
        report.full_mesh_ms.map_or_else(|| "never".to_owned(), |ms| format!("{ms:.0} ms")),
    );
    if let Some((median, slowest)) = report.first_packet_ms {
        row("first packet answered, median / slowest", format!("{median:.0} / {slowest:.0} ms"));
    }
    row("first packets lost", format!("{} of {}", report.first_packets_lost, report.first_packets));
    row("tunnels that carried something", report.tunnels_seen.to_string());
    row(
        "tunnels left / duplicates among them",
        format!("{} / {}", report.tunnels, report.duplicates),
    );
    row(
        "time until there were no duplicates",
        report.settled_ms.map_or_else(|| "never".to_owned(), |ms| format!("{ms:.0} ms")),
    );
    row("packets in clear", report.clear.to_string());
    text.push('\n');
    for claim in &report.claims {
        let _ = writeln!(text, "  {} {}", style.mark(claim.held), claim.claim);
    }
    text.push_str(&last_line(report.held, report.took_ms, report.captured, style));
    text
}

/// The whole report.
pub(crate) fn report(report: &Report, style: Style) -> String {
    let mut text = String::new();
    for destination in &report.destinations {
        let _ = writeln!(text, "{}", table(destination, style));
    }
    for destination in &report.destinations {
        let _ = writeln!(text, "{}", verdict(destination, style));
    }
    if report.missed > 0 {
        let _ = writeln!(
            text,
            "  {} the capture missed {} packets and proves nothing",
            style.mark(false),
            report.missed
        );
    }
    text.push_str(&last_line(report.held, report.took_ms, report.captured, style));
    text
}

/// The report of a worked example.
pub(crate) fn scenario(report: &ScenarioReport, style: Style) -> String {
    let mut text = format!("{} {}\n\n", style.bold("oe-node lab:"), report.scenario);
    for figure in &report.figures {
        let _ = writeln!(text, "  {:<52}{:>10.1} ms", figure.what, figure.ms);
    }
    text.push('\n');
    for claim in &report.claims {
        let _ = writeln!(text, "  {} {}", style.mark(claim.held), claim.claim);
    }
    if report.missed > 0 {
        let _ = writeln!(text, "  the capture missed {} packets and proves nothing", report.missed);
    }
    text.push_str(&last_line(report.held, report.took_ms, report.captured, style));
    text
}

fn last_line(held: bool, took_ms: f64, captured: u64, style: Style) -> String {
    format!(
        "\n  {} in {:.1} s, {captured} packets captured at the core\n",
        style.bold(if held { "Everything held" } else { "NOT everything held" }),
        took_ms / 1e3
    )
}

fn table(destination: &Destination, style: Style) -> String {
    let mut text = String::new();
    let publishes = match destination.publishes {
        Publishes::Key => "publishes its key",
        Publishes::Nothing => "publishes nothing",
        Publishes::Bogus => "publishes a record that fails validation",
    };
    let title = format!("west → {}", destination.name);
    let _ = write!(text, "{} {}", style.bold(&format!("{title:<14}")), style.dim(publishes));
    let gap = TITLE_WIDTH.saturating_sub(15 + publishes.len());
    let _ = write!(text, "{:gap$}", "");
    for way in &destination.ways {
        let family = if way.to.is_ipv4() { "IPv4" } else { "IPv6" };
        let _ = write!(text, "{}", style.dim(&format!("{family:>12}")));
    }
    text.push('\n');
    let mut row = |label: &str, cell: &dyn Fn(&Way) -> Option<String>| {
        let cells: Vec<Option<String>> = destination.ways.iter().map(cell).collect();
        if cells.iter().all(Option::is_none) {
            return;
        }
        let _ = write!(text, "  {label:<width$}", width = TITLE_WIDTH - 2);
        for cell in cells {
            let _ = write!(text, "{:>12}", cell.unwrap_or_else(|| "–".to_owned()));
        }
        text.push('\n');
    };
    for (event, label) in EVENTS {
        let label = match detail(destination, event) {
            Some(detail) => format!("{label}: {detail}"),
            None => label.to_owned(),
        };
        row(&label, &|way| way.moment(event).map(|moment| format!("{:.1} ms", moment.at_ms)));
    }
    if destination.publishes != Publishes::Bogus {
        row("later packets, median", &|way| {
            median(&way.later_ms).map(|median| format!("{median:.2} ms"))
        });
        let octets = destination
            .ways
            .iter()
            .find_map(|way| way.transfer)
            .map_or(0, |transfer| transfer.octets);
        row(&format!("{} KiB over TCP and back", octets / 1024), &|way| {
            way.transfer.map(|transfer| format!("{:.0} ms", transfer.ms))
        });
    }
    row("on the wire: in clear, sent + received", &|way| {
        Some(format!("{} + {}", way.wire.clear_sent, way.wire.clear_received))
    });
    row("on the wire: ESP, sent + received", &|way| {
        Some(format!("{} + {}", way.wire.esp_sent, way.wire.esp_received))
    });
    text
}

/// What the node says about an event, if all families agree on it.
fn detail(destination: &Destination, event: Event) -> Option<String> {
    let mut details =
        destination.ways.iter().filter_map(|way| way.moment(event)).filter_map(|moment| {
            ["status", "security", "reason", "trust"]
                .iter()
                .find_map(|key| moment.detail.get(key)?.as_str())
        });
    let first = details.next()?;
    details.all(|other| other == first).then(|| first.to_owned())
}

fn verdict(destination: &Destination, style: Style) -> String {
    let meaning = match destination.publishes {
        Publishes::Key => "first packet held, then sent through ESP and answered; nothing in clear",
        Publishes::Nothing => "reachable in clear, first packet delivered",
        Publishes::Bogus => "nothing at all was sent to it",
    };
    let name = style.bold(&format!("{:<6}", destination.name));
    if destination.held {
        return format!("  {} {name} {meaning}", style.mark(true));
    }
    let mut text = format!("  {} {name} did not hold:", style.mark(false));
    for way in &destination.ways {
        for claim in way.claims.iter().filter(|claim| !claim.held) {
            let _ = write!(text, "\n      {} {}: {}", style.mark(false), way.to, claim.claim);
        }
        if let (Some(error), true) =
            (&way.transfer_error, destination.publishes != Publishes::Bogus)
        {
            let _ = write!(text, "\n        TCP: {error}");
        }
    }
    text
}

fn median(values: &[Option<f64>]) -> Option<f64> {
    let mut values: Vec<f64> = values.iter().copied().flatten().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

const EVENTS: [(Event, &str); 8] = [
    (Event::Trapped, "first packet trapped and held"),
    (Event::DnsAnswer, "DNS answer"),
    (Event::IkeSaInit, "IKE_SA_INIT done"),
    (Event::IkeAuth, "IKE_AUTH done"),
    (Event::FirstEsp, "first ESP packet"),
    (Event::Clear, "decided: in the clear"),
    (Event::Deny, "decided: deny"),
    (Event::Answered, "first packet answered"),
];

/// Columns of the labels.
const TITLE_WIDTH: usize = 56;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::report::{Claim, Moment, Source, TransferReport, Wire};
    use super::super::topology;
    use super::*;

    fn way(to: &str, held: bool) -> Way {
        let moment = |at_ms, event, detail| Moment { at_ms, event, source: Source::Node, detail };
        Way {
            from: "192.0.2.11".parse().unwrap(),
            to: to.parse().unwrap(),
            timeline: vec![
                moment(0.04, Event::Trapped, json!(null)),
                moment(3.1, Event::DnsAnswer, json!({"security": "secure"})),
                moment(12.34, Event::Answered, json!(null)),
            ],
            first_packet_ms: Some(12.34),
            later_ms: vec![Some(0.3), None, Some(0.1)],
            transfer: Some(TransferReport { octets: 1 << 18, ms: 20.0, syn_retransmissions: 0 }),
            transfer_error: None,
            wire: Wire { clear_sent: usize::from(!held), esp_sent: 200, ..Wire::default() },
            claims: vec![Claim { claim: "no packet in clear", held }],
        }
    }

    fn sample(held: bool) -> Report {
        let east = Destination {
            name: "east".to_owned(),
            publishes: Publishes::Key,
            held,
            ways: vec![way("198.51.100.22", held), way("2001:db8:2::22", true)],
        };
        Report {
            held,
            took_ms: 2500.0,
            unprivileged: false,
            captured: 1234,
            missed: 0,
            hosts: Vec::new(),
            destinations: vec![east],
        }
    }

    #[test]
    fn a_good_report_has_its_figures_in_columns() {
        let text = report(&sample(true), Style::plain());
        for line in [
            "west → east    publishes its key                                IPv4        IPv6",
            "  first packet trapped and held                               0.0 ms      0.0 ms",
            "  DNS answer: secure                                          3.1 ms      3.1 ms",
            "  first packet answered                                      12.3 ms     12.3 ms",
            "  later packets, median                                      0.30 ms     0.30 ms",
            "  ✓ east   first packet held, then sent through ESP and answered; nothing in clear",
            "  Everything held in 2.5 s, 1234 packets captured at the core",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line:?} in\n{text}");
        }
    }

    #[test]
    fn what_did_not_hold_is_named_with_its_address() {
        let text = report(&sample(false), Style::plain());
        for line in [
            "  ✗ east   did not hold:",
            "      ✗ 198.51.100.22: no packet in clear",
            "  NOT everything held in 2.5 s, 1234 packets captured at the core",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line:?} in\n{text}");
        }
        assert!(!text.contains("2001:db8:2::22"), "IPv6 held:\n{text}");
        let blind = Report { missed: 3, ..sample(false) };
        assert!(report(&blind, Style::plain()).contains("missed 3 packets and proves nothing"));
    }

    #[test]
    fn the_picture_names_every_host_and_address() {
        let sites = topology::small_internet();
        let text = picture(&sites, Style::plain());
        for site in &sites {
            assert!(text.contains(&site.name));
            for address in site.addresses() {
                assert!(text.contains(&address.to_string()), "no {address} in\n{text}");
            }
        }
        assert!(text.lines().all(|line| line.chars().count() <= 80), "too wide:\n{text}");
    }
}
