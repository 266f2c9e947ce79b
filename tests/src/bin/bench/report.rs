//! What came out: tables, JSON, and the ratios that the project holds itself to.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::contender::Contender;
use crate::figure::Figure;

/// Everything measured in one run.
#[derive(Default)]
pub(crate) struct Report {
    values: BTreeMap<(Contender, Figure), Vec<f64>>,
    skipped: Vec<(Contender, String)>,
    failed: BTreeMap<(Contender, Figure), String>,
}

/// The middle of some values, and how far they lie apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

/// A ratio of two contenders, and what is asked of it.
struct Aim {
    what: &'static str,
    figure: Figure,
    of: Contender,
    to: Contender,
    wanted: Wanted,
}

#[derive(Clone, Copy)]
enum Wanted {
    AtLeast(f64),
    AtMost(f64),
}

impl Report {
    pub(crate) fn add(&mut self, contender: Contender, figure: Figure, value: f64) {
        self.values.entry((contender, figure)).or_default().push(value);
    }

    pub(crate) fn skip(&mut self, contender: Contender, why: String) {
        self.skipped.push((contender, why));
    }

    pub(crate) fn fail(&mut self, contender: Contender, figure: Figure, why: String) {
        self.failed.insert((contender, figure), why);
    }

    /// What was measured of one contender.
    pub(crate) fn spread(&self, contender: Contender, figure: Figure) -> Option<Spread> {
        let mut values = self.values.get(&(contender, figure))?.clone();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let upper = *values.get(middle)?;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(*values.get(middle - 1)?, upper)
        } else {
            upper
        };
        Some(Spread { median, least, most })
    }

    /// Whoever was measured.
    pub(crate) fn contenders(&self) -> impl Iterator<Item = Contender> {
        Contender::ALL
            .into_iter()
            .filter(|contender| self.values.keys().any(|(who, _)| who == contender))
    }

    /// Whatever was measured.
    pub(crate) fn figures(&self) -> impl Iterator<Item = Figure> {
        Figure::ALL.into_iter().filter(|figure| self.values.keys().any(|(_, what)| what == figure))
    }

    /// Tables for people: medians, then least and most.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{}\n", machine());
        let figures: Vec<Figure> = self.figures().collect();
        for part in figures.chunks(6) {
            let _ = write!(text, "\n{:28}", "");
            for figure in part {
                let _ = write!(text, "{:>20}", figure.title());
            }
            text.push('\n');
            for contender in self.contenders() {
                let _ = write!(text, "{:28}", contender.name());
                for figure in part {
                    let cell = match self.spread(contender, *figure) {
                        Some(s) => {
                            format!("{} ({}-{})", short(s.median), short(s.least), short(s.most))
                        }
                        None if self.failed.contains_key(&(contender, *figure)) => "failed".into(),
                        None => "-".into(),
                    };
                    let _ = write!(text, "{cell:>20}");
                }
                text.push('\n');
            }
        }
        let aims: Vec<&Aim> = AIMS.iter().filter(|aim| self.ratio(aim).is_some()).collect();
        if !aims.is_empty() {
            text.push_str("\nratios, medians of this run\n");
        }
        for aim in aims {
            let Some(ratio) = self.ratio(aim) else { continue };
            let (wanted, met) = aim.wanted.judge(ratio);
            let verdict = if met { "" } else { "  missed" };
            let _ = writeln!(text, "{:60}{:>8}   {wanted}{verdict}", aim.what, short(ratio));
        }
        if let Some(first) = self.spread(Contender::OeNode, Figure::First) {
            let verdict = if first.median <= FIRST_PACKET_MS { "" } else { "  missed" };
            let _ = writeln!(
                text,
                "{:60}{:>8}   wanted <= {FIRST_PACKET_MS} ms{verdict}",
                "first packet's local work",
                short(first.median)
            );
        }
        for ((contender, figure), why) in &self.failed {
            let _ = writeln!(text, "failed: {}, {}: {why}", contender.name(), figure.title());
        }
        for (contender, why) in &self.skipped {
            let _ = writeln!(text, "skipped: {}: {why}", contender.name());
        }
        text
    }

    fn ratio(&self, aim: &Aim) -> Option<f64> {
        let of = self.spread(aim.of, aim.figure)?.median;
        let to = self.spread(aim.to, aim.figure)?.median;
        (to > 0.0).then_some(of / to)
    }

    /// The same for programs.
    pub(crate) fn json(&self) -> Value {
        let pairs: serde_json::Map<String, Value> = self
            .contenders()
            .map(|contender| {
                let figures: serde_json::Map<String, Value> = self
                    .figures()
                    .filter_map(|figure| {
                        let s = self.spread(contender, figure)?;
                        let values = self.values.get(&(contender, figure))?;
                        Some((
                            figure.file().to_owned(),
                            json!({
                                "median": s.median, "least": s.least, "most": s.most,
                                "values": values, "unit": figure.title(),
                            }),
                        ))
                    })
                    .collect();
                (contender.name().to_owned(), figures.into())
            })
            .collect();
        let aims: Vec<Value> = AIMS
            .iter()
            .filter_map(|aim| {
                let ratio = self.ratio(aim)?;
                let (wanted, met) = aim.wanted.judge(ratio);
                Some(json!({ "what": aim.what, "ratio": ratio, "wanted": wanted, "met": met }))
            })
            .collect();
        let skipped: Vec<Value> = self
            .skipped
            .iter()
            .map(|(contender, why)| json!({ "pair": contender.name(), "why": why }))
            .collect();
        json!({ "machine": machine(), "pairs": pairs, "ratios": aims, "skipped": skipped })
    }

    /// Writes `bench.json` and `bench.txt`.
    pub(crate) fn save(&self, directory: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(directory)?;
        std::fs::write(directory.join("bench.json"), format!("{:#}\n", self.json()))?;
        std::fs::write(directory.join("bench.txt"), self.text())?;
        Ok(())
    }
}

impl Wanted {
    fn judge(self, ratio: f64) -> (String, bool) {
        match self {
            Self::AtLeast(least) => (format!("wanted >= {least}"), ratio >= least),
            Self::AtMost(most) => (format!("wanted <= {most}"), ratio <= most),
        }
    }
}

/// Three digits that mean something.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("?");
    let cpus = info.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    format!(
        "{cpus} x {}, Linux {}, load {}",
        model.trim_start_matches([' ', '\t', ':']),
        kernel.trim(),
        load.split(' ').next().unwrap_or("?")
    )
}

const fn aim(
    what: &'static str,
    figure: Figure,
    of: Contender,
    to: Contender,
    wanted: Wanted,
) -> Aim {
    Aim { what, figure, of, to, wanted }
}

/// The first packet's local work, at most.
const FIRST_PACKET_MS: f64 = 5.0;

/// What the packet path is held to: ratios, because they carry over to other machines.
const AIMS: [Aim; 15] = [
    // Both without a daemon around them, and with the same cipher in every run: what two daemons
    // agree on is theirs to say.
    aim(
        "TCP1: AES-128-GCM / no cryptography",
        Figure::Tcp1,
        Contender::Plane,
        Contender::Ceiling,
        Wanted::AtLeast(0.9),
    ),
    aim(
        "TCP1: oe-node / strongSwan",
        Figure::Tcp1,
        Contender::OeNode,
        Contender::Strongswan,
        Wanted::AtLeast(12.0),
    ),
    aim(
        "TCP1: oe-node / wireguard-go",
        Figure::Tcp1,
        Contender::OeNode,
        Contender::WireguardGo,
        Wanted::AtLeast(3.0),
    ),
    aim(
        "TCP1: oe-node / boringtun",
        Figure::Tcp1,
        Contender::OeNode,
        Contender::Boringtun,
        Wanted::AtLeast(8.0),
    ),
    aim(
        "TCP1: oe-node with protocol 50 / strongSwan",
        Figure::Tcp1,
        Contender::OeNode50,
        Contender::Strongswan,
        Wanted::AtLeast(7.0),
    ),
    aim(
        "UDP 1400: oe-node / wireguard-go",
        Figure::Udp1400,
        Contender::OeNode,
        Contender::WireguardGo,
        Wanted::AtLeast(4.0),
    ),
    aim(
        "UDP 64: oe-node / strongSwan",
        Figure::Udp64,
        Contender::OeNode,
        Contender::Strongswan,
        Wanted::AtLeast(2.5),
    ),
    aim(
        "UDP 64: oe-node / boringtun",
        Figure::Udp64,
        Contender::OeNode,
        Contender::Boringtun,
        Wanted::AtLeast(1.6),
    ),
    aim(
        "CPU s/GB: oe-node / wireguard-go",
        Figure::Cpu,
        Contender::OeNode,
        Contender::WireguardGo,
        Wanted::AtMost(0.25),
    ),
    aim(
        "RTT: oe-node / boringtun",
        Figure::Rtt,
        Contender::OeNode,
        Contender::Boringtun,
        Wanted::AtMost(1.0),
    ),
    aim(
        "RTT, 99th percentile: oe-node / boringtun",
        Figure::Rtt99,
        Contender::OeNode,
        Contender::Boringtun,
        Wanted::AtMost(1.0),
    ),
    aim(
        "TCP1: clear beside oe-node / raw cable",
        Figure::Tcp1,
        Contender::Clear,
        Contender::Raw,
        Wanted::AtLeast(0.98),
    ),
    aim(
        "UDP 64: clear beside oe-node / raw cable",
        Figure::Udp64,
        Contender::Clear,
        Contender::Raw,
        Wanted::AtLeast(0.98),
    ),
    aim(
        "TCP1: 10,000 pairs and 100,000 clear destinations / empty",
        Figure::Tcp1,
        Contender::PlaneLoaded,
        Contender::Plane,
        Wanted::AtLeast(0.95),
    ),
    aim(
        "UDP 64: 10,000 pairs and 100,000 clear destinations / empty",
        Figure::Udp64,
        Contender::PlaneLoaded,
        Contender::Plane,
        Wanted::AtLeast(0.95),
    ),
];
