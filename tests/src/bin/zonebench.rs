//! How fast zones are generated and checked, beside what the same octets cost without us:
//! `cargo run --release -p tests --bin zonebench [HOSTS [DIRECTORY]]`.
//!
//! Each number is the median of several runs, alternating with what it is compared to; ratios
//! above 1 mean that we are slower.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench that fails should say where")]

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dnskeys::{Gateway, RsaKey};
use zonefiles::check::Checker;
use zonefiles::generate::{Format, OwnerSuffix, Server, Stamp, ZoneText};
use zonefiles::{Apex, ClasslessName, Kinds, Name, Prefix, Reader, ReverseZone};

fn main() {
    let mut args = std::env::args().skip(1);
    let hosts: u64 = args.next().and_then(|n| n.parse().ok()).unwrap_or(1 << 18);
    let directory = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let work = Work::new(hosts);
    let octets = work.generate(io::sink()).unwrap();
    println!("{} hosts, {:.1} MB of master file", work.prefix.count(), octets as f64 / 1e6);

    let nowhere = median(|| time(|| work.generate(io::sink()).unwrap()));
    report("generated, thrown away", nowhere, octets);

    let (mut ours, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        ours.push(into_pipe(|pipe| work.generate(pipe).unwrap()));
        plain.push(into_pipe(|pipe| write_plain(pipe, octets)));
    }
    compare("into a pipe", &mut ours, "the same octets, only written", &mut plain, octets);

    if octets > MAX_FILE {
        println!("skipped: what needs a file, of {:.1} GB", octets as f64 / 1e9);
        return;
    }
    let path = directory.join("zonebench.zone");
    let (mut ours, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        ours.push(into_file(&path, |file| work.generate(file).unwrap()));
        plain.push(into_file(&path, |file| write_plain(file, octets)));
    }
    compare("into a file, synced", &mut ours, "the same octets, only written", &mut plain, octets);

    work.generate(File::create(&path).unwrap()).unwrap();
    let checked = time(|| check(&path));
    report("zone check reads it", checked, octets);
    for (program, args) in [
        ("named-compilezone", vec!["-q", "-j", "-F", "raw", "-o", "/dev/null"]),
        ("nsd-checkzone", vec![]),
    ] {
        match other(program, &args, &work.zone.origin, &path) {
            Some(elapsed) => {
                report(&format!("{program} reads it"), elapsed, octets);
                println!("  generate / {program}: {:.3}", ratio(nowhere, elapsed));
                println!("  zone check / {program}: {:.3}", ratio(checked, elapsed));
            }
            None => println!("skipped: {program} is not installed, or refuses the zone"),
        }
    }
    std::fs::remove_file(path).unwrap();
}

struct Work {
    prefix: Prefix,
    zone: ReverseZone,
    key: RsaKey,
}

impl Work {
    fn new(hosts: u64) -> Self {
        let free = 63 - hosts.clamp(256, 1 << 24).leading_zeros();
        let prefix = Prefix::around([10, 0, 0, 0].into(), u8::try_from(32 - free).unwrap());
        // One zone for all: what a server must load at once.
        let all = Prefix::around([10, 0, 0, 0].into(), 8);
        let zone = ReverseZone::of(all, ClasslessName::Slash).next().unwrap();
        let mut modulus = [0xa5; 384];
        modulus[0] = 0xc1;
        Self { prefix, zone, key: RsaKey::new(&[1, 0, 1], &modulus).unwrap() }
    }

    fn generate(&self, out: impl Write) -> io::Result<u64> {
        let format = Format::Master(Server::Bind);
        let stamp =
            Stamp::new(&Gateway::Own, Some(&self.key), 10, 3600, Kinds::default(), false, format);
        let suffix = OwnerSuffix::new(&self.zone, format);
        let apex = Apex::new(self.zone.origin.clone(), 1);
        let mut text = ZoneText::new(out, format);
        text.begin(&self.zone.origin, Some(&apex))?;
        for address in self.prefix.addresses() {
            text.host(&self.zone, &suffix, address, &stamp, None)?;
        }
        text.end()?;
        let written = text.written();
        text.finish()?;
        Ok(written)
    }
}

/// As large pieces as the generator writes, of text that is there already.
fn write_plain(mut out: impl Write, octets: u64) {
    let piece = vec![b'x'; 256 * 1024];
    let mut left = usize::try_from(octets).unwrap();
    while left > 0 {
        let len = left.min(piece.len());
        out.write_all(piece.get(..len).unwrap()).unwrap();
        left -= len;
    }
    out.flush().unwrap();
}

fn into_pipe<T>(write: impl FnOnce(io::PipeWriter) -> T) -> Duration {
    let (mut reader, writer) = io::pipe().unwrap();
    std::thread::scope(|scope| {
        let drain = scope.spawn(move || {
            let mut buffer = vec![0; 256 * 1024];
            while reader.read(&mut buffer).unwrap() > 0 {}
        });
        let elapsed = time(|| write(writer));
        drain.join().unwrap();
        elapsed
    })
}

fn into_file<T>(path: &Path, write: impl FnOnce(&File) -> T) -> Duration {
    let _ = std::fs::remove_file(path);
    let file = File::create(path).unwrap();
    time(|| {
        write(&file);
        file.sync_data().unwrap();
    })
}

fn check(path: &Path) {
    let input = Box::new(BufReader::with_capacity(256 * 1024, File::open(path).unwrap()));
    let none = |_: &str| Err(io::ErrorKind::Unsupported.into());
    let mut checker = Checker::default();
    let mut findings = 0;
    for entry in Reader::new("zone", input, None, Box::new(none)) {
        checker.record(&entry.unwrap());
        findings += checker.findings().count();
    }
    assert_eq!(findings, 0);
}

fn other(program: &str, args: &[&str], origin: &Name, path: &Path) -> Option<Duration> {
    let mut command = Command::new(program);
    command.args(args).arg(origin.to_string()).arg(path);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let start = Instant::now();
    let status = command.status().ok()?;
    status.success().then(|| start.elapsed())
}

fn time<T>(work: impl FnOnce() -> T) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn median(mut run: impl FnMut() -> Duration) -> Duration {
    middle(&mut (0..RUNS).map(|_| run()).collect::<Vec<_>>())
}

fn middle(times: &mut [Duration]) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn compare(what: &str, ours: &mut [Duration], other: &str, theirs: &mut [Duration], octets: u64) {
    let (ours, theirs) = (middle(ours), middle(theirs));
    report(&format!("generated {what}"), ours, octets);
    report(other, theirs, octets);
    println!("  ratio: {:.2}", ratio(ours, theirs));
}

fn report(what: &str, elapsed: Duration, octets: u64) {
    let speed = octets as f64 / 1e6 / elapsed.as_secs_f64();
    println!("{what:<34} {:>9.1} ms {speed:>9.0} MB/s", elapsed.as_secs_f64() * 1e3);
}

fn ratio(ours: Duration, theirs: Duration) -> f64 {
    ours.as_secs_f64() / theirs.as_secs_f64()
}

/// Larger ones are for pipes.
const MAX_FILE: u64 = 4 << 30;
/// Odd, so that there is a middle.
const RUNS: usize = 5;
