//! One measurement of one contender.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tests::place;

use crate::contender::Up;
use crate::figure::Figure;
use crate::site::Running;

/// Measures a figure, and what comes along with it.
pub(crate) fn figure(
    figure: Figure,
    up: &Up,
    length: Duration,
) -> anyhow::Result<Vec<(Figure, f64)>> {
    Ok(match figure {
        Figure::Tcp1 => {
            let (rate, cpu) = tcp(up, 1, length)?;
            if up.pids.is_empty() {
                vec![(Figure::Tcp1, rate)]
            } else {
                vec![(Figure::Tcp1, rate), (Figure::Cpu, cpu)]
            }
        }
        Figure::Tcp4 => vec![(figure, tcp(up, 4, length)?.0)],
        Figure::Udp1400 => vec![(figure, flood(up, LARGE, length)? / 1e3)],
        Figure::Udp64 => vec![(figure, flood(up, 64, length)? / 1e3)],
        Figure::Clean1400 => vec![(figure, clean(up, LARGE)? / 1e3)],
        Figure::Clean64 => vec![(figure, clean(up, 64)? / 1e3)],
        Figure::Rtt => {
            let (median, late) = round_trip(up)?;
            vec![(Figure::Rtt, median), (Figure::Rtt99, late)]
        }
        Figure::Memory => {
            let sum: f64 = up.pids.iter().map(|pid| resident(*pid)).sum();
            vec![(figure, sum)]
        }
        Figure::First => vec![(figure, first_packet(up)?)],
        Figure::Rtt99 | Figure::Cpu => Vec::new(),
    })
}

/// A sink in the receiver's namespace.
struct Sink(Running);

/// What a sink had taken at some moment.
#[derive(Clone, Copy)]
struct Taken {
    nanoseconds: f64,
    octets: f64,
    packets: f64,
}

impl Sink {
    fn start(up: &Up, kind: &str, at: SocketAddr) -> anyhow::Result<Self> {
        let [_, there] = &up.names;
        let mut sink = Running::ourselves(there, &["load", kind, &at.to_string()])?;
        ensure!(sink.line()? == "ready", "the sink does not start");
        Ok(Self(sink))
    }

    fn taken(&mut self) -> anyhow::Result<Taken> {
        writeln!(self.0.input.as_mut().context("the sink is closed")?)?;
        let line = self.0.line()?;
        let numbers: Vec<f64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
        let [nanoseconds, octets, packets] = *numbers.as_slice() else {
            anyhow::bail!("the sink said {line:?}");
        };
        Ok(Taken { nanoseconds, octets, packets })
    }

    /// What is taken within this time, and the seconds that it really was.
    fn during(&mut self, length: Duration) -> anyhow::Result<(Taken, f64)> {
        let before = self.taken()?;
        std::thread::sleep(length);
        let after = self.taken()?;
        let seconds = (after.nanoseconds - before.nanoseconds) / 1e9;
        let octets = after.octets - before.octets;
        let packets = after.packets - before.packets;
        Ok((Taken { nanoseconds: 0.0, octets, packets }, seconds))
    }
}

/// Gbit/s, and CPU seconds of the daemons per GB.
fn tcp(up: &Up, streams: usize, length: Duration) -> anyhow::Result<(f64, f64)> {
    let at = SocketAddr::new(up.target, 7001);
    let mut sink = Sink::start(up, "tcp-sink", at)?;
    let [here, _] = &up.names;
    let words = ["load", "tcp", &at.to_string(), &streams.to_string()];
    let sender = Running::ourselves(here, &words)?;
    std::thread::sleep(WARM_UP);
    let before = cpu(up);
    let (taken, seconds) = sink.during(length)?;
    let cpu = cpu(up) - before;
    drop(sender);
    ensure!(taken.octets > 0.0, "nothing arrived");
    Ok((taken.octets * 8.0 / seconds / 1e9, cpu / (taken.octets / 1e9)))
}

/// Datagrams a second that arrive while as many are sent as go.
fn flood(up: &Up, size: usize, length: Duration) -> anyhow::Result<f64> {
    let at = SocketAddr::new(up.target, 7002);
    let mut sink = Sink::start(up, "udp-sink", at)?;
    let sender = datagrams(up, at, size, 0, WARM_UP + length + WARM_UP)?;
    std::thread::sleep(WARM_UP);
    let (taken, seconds) = sink.during(length)?;
    drop(sender);
    ensure!(taken.packets > 0.0, "nothing arrived");
    Ok(taken.packets / seconds)
}

/// The highest rate of datagrams of which less than [`LOSS`] get lost.
fn clean(up: &Up, size: usize) -> anyhow::Result<f64> {
    let delivered = flood(up, size, PROBE)?;
    // Under a flood less may arrive than at a lower rate, and more than without loss.
    let (mut good, mut bad) = (0.0, delivered * 1.5);
    let mut rate = delivered * 0.75;
    for _ in 0..PROBES {
        if loss(up, size, rate)? < LOSS {
            good = rate;
        } else {
            bad = rate;
        }
        rate = f64::midpoint(good, bad);
    }
    Ok(good)
}

/// The part of datagrams lost at this rate.
fn loss(up: &Up, size: usize, rate: f64) -> anyhow::Result<f64> {
    let at = SocketAddr::new(up.target, 7002);
    let mut sink = Sink::start(up, "udp-sink", at)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate")]
    let mut sender = datagrams(up, at, size, rate.max(1.0) as u64, PROBE)?;
    let line = sender.line()?;
    let (_, sent) = line.split_once(' ').context("the sender said nothing")?;
    let sent: f64 = sent.parse()?;
    sender.wait()?;
    std::thread::sleep(SETTLE);
    Ok(1.0 - sink.taken()?.packets / sent.max(1.0))
}

fn datagrams(
    up: &Up,
    to: SocketAddr,
    size: usize,
    rate: u64,
    length: Duration,
) -> anyhow::Result<Running> {
    let [here, _] = &up.names;
    let [size, rate] = [size as u64, rate].map(|number| number.to_string());
    let length = length.as_millis().to_string();
    Running::ourselves(here, &["load", "udp", &to.to_string(), &size, &rate, &length])
}

/// Median and 99th percentile of the round trip in microseconds.
fn round_trip(up: &Up) -> anyhow::Result<(f64, f64)> {
    let [here, _] = &up.names;
    let target = up.target.to_string();
    let (_, said) =
        place::run(here, &["ping", "-n", "-i", "0.004", "-c", "300", "-W", "1", &target]);
    let mut times = times(&said);
    ensure!(times.len() > 200, "{} of 300 echo requests were answered", times.len());
    times.sort_by(f64::total_cmp);
    let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or(0.0) * 1e3;
    Ok((at(50), at(99)))
}

/// The milliseconds of each answer that ping printed.
fn times(said: &str) -> Vec<f64> {
    let after = said.lines().filter_map(|line| line.split_once("time="));
    after.filter_map(|(_, rest)| rest.split(' ').next()?.parse().ok()).collect()
}

/// Milliseconds from a first packet to its answer, less what the network and the DNS server take:
/// IKE_SA_INIT, IKE_AUTH and the packet itself, and one question at each end.
fn first_packet(up: &Up) -> anyhow::Result<f64> {
    let (node, resolver) = up.node.as_ref().context("no daemon to watch")?;
    let [here, _] = &up.names;
    let target = up.target.to_string();
    let name = "2.2.0.192.in-addr.arpa";
    let mut asker = Running::ourselves(here, &["load", "dns", &resolver.to_string(), name])?;
    let dns = asker.line()?.parse::<f64>()? / 1e3;
    drop(asker);
    let forget = format!(r#"{{"request":"forget","address":"{target}"}}"#);
    let _ = node.ask(&forget);
    // The peer's pair goes with a Delete and its answer.
    std::thread::sleep(Duration::from_millis(700));
    let (done, said) = place::run(here, &["ping", "-n", "-c", "1", "-W", "8", &target]);
    let first = times(&said).first().copied();
    let total = first.filter(|_| done).with_context(|| format!("no answer: {said}"))?;
    Ok(total - 3.0 * CABLE_MS - 2.0 * dns)
}

/// CPU seconds that the daemons have used so far.
fn cpu(up: &Up) -> f64 {
    up.pids.iter().map(|pid| cpu_of(*pid)).sum()
}

/// From the scheduler, which counts nanoseconds, thread by thread.
fn cpu_of(pid: u32) -> f64 {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return 0.0 };
    let each = threads.flatten().filter_map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    });
    each.sum::<f64>() / 1e9
}

/// Resident memory in MB.
fn resident(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilo = line.and_then(|rest| rest.trim().split(' ').next()?.parse::<f64>().ok());
    kilo.unwrap_or(0.0) * 1024.0 / 1e6
}

/// Payload of a UDP packet of 1400 octets, which fits everybody's device whole.
const LARGE: usize = 1400 - 28;
/// Until a stream's window is open and a flood's queues are full.
const WARM_UP: Duration = Duration::from_millis(500);
/// One probe of a rate.
const PROBE: Duration = Duration::from_millis(600);
/// Probes of the search: the last step is some 2 % of the rate.
const PROBES: usize = 6;
/// What may get lost.
const LOSS: f64 = 0.005;
/// For what is still under way.
const SETTLE: Duration = Duration::from_millis(100);
/// A round trip on a cable between namespaces, in milliseconds.
const CABLE_MS: f64 = 0.03;
