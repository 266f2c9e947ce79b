//! `oe-node zone serve`: files in, signed zones out, for as long as it runs.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use tokio::net::UdpSocket;
use tokio::signal::unix::{SignalKind, signal};
use zonefiles::catalog::notify;
use zonefiles::{Catalog, Prefix, Record, Zone};

use super::files::read_zone_of;
use super::keys::{ZoneKeys, file_stem};
use super::serve::{Sockets, ZoneServer};
use super::signed::{ServedZone, SignedZones, sign_zones_again};

/// Arguments of `oe-node zone serve`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Master files, one for each zone; parents and children may be served together.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Address to answer on, UDP and TCP.
    #[arg(long, value_name = "ADDR[:PORT]", value_parser = listen, required = true)]
    listen: Vec<SocketAddr>,
    /// Where the zones' signing keys and serial numbers are kept.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/oe-node/zones")]
    key_dir: PathBuf,
    /// Serve the files as they are: unsigned, or signed by somebody else.
    #[arg(long)]
    no_sign: bool,
    /// How long signatures are valid; they are renewed when a quarter of that is left.
    #[arg(long, value_name = "PERIOD", default_value = "14d", value_parser = period)]
    lifetime: Duration,
    /// Who may transfer the zones. A single address, with port if it is not 53, is told of changes.
    #[arg(long, value_name = "ADDR[:PORT] or PREFIX", value_parser = secondary)]
    secondary: Vec<Secondary>,
    /// Write the DNSKEYs that a validator must trust to this file.
    #[arg(long, value_name = "FILE")]
    write_trust_anchor: Option<PathBuf>,
}

/// A secondary server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Secondary {
    prefix: Prefix,
    notify: Option<SocketAddr>,
}

/// Runs the command until a signal ends it.
pub(crate) fn main(args: &Args) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let served = match runtime {
        Ok(runtime) => runtime.block_on(run(args)),
        Err(e) => Err(e.into()),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => super::fail("serve", &format!("{e:#}")),
    }
}

async fn run(args: &Args) -> anyhow::Result<()> {
    // Before anything that takes time: a port in use should not wait for signatures.
    let sockets = args
        .listen
        .iter()
        .map(|address| Sockets::bind(*address).with_context(|| format!("cannot bind {address}")))
        .collect::<anyhow::Result<Vec<Sockets>>>()?;
    let mut source = Source::new(args);
    let signed = source.load(None)?;
    let prefixes = args.secondary.iter().map(|secondary| secondary.prefix).collect();
    announce(args, &signed)?;
    let mut due = renewal(args, &signed);
    let mut server = ZoneServer::start(sockets, signed.catalog, prefixes)?;
    for address in server.addresses() {
        writeln!(io::stdout(), "answering on {address}")?;
    }
    tell(args, &server.catalog()).await;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut look = tokio::time::interval(LOOK);
    loop {
        let why = tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            () = server.failed() => bail!("a socket failed"),
            _ = hangup.recv() => "asked to",
            _ = look.tick() => {
                if source.changed() {
                    "the files changed"
                } else if due.is_some_and(|due| SystemTime::now() >= due) {
                    "signatures end soon"
                } else {
                    continue;
                }
            }
        };
        // Signing takes processor time; queries go on being answered meanwhile.
        let loaded;
        let previous = server.catalog();
        (source, loaded) = tokio::task::spawn_blocking(move || {
            let loaded = source.load(Some(&previous));
            (source, loaded)
        })
        .await?;
        match loaded {
            Ok(signed) => {
                say(&format!("loaded again: {why}"));
                announce(args, &signed)?;
                due = renewal(args, &signed);
                server.replace(signed.catalog);
                tell(args, &server.catalog()).await;
            }
            Err(e) => {
                say(&format!("{e:#}"));
                say("the zones are served as they were");
                due = due.map(|due| due.max(SystemTime::now() + RETRY));
            }
        }
    }
}

/// The files, what they looked like, and the keys.
struct Source {
    files: Vec<PathBuf>,
    seen: HashMap<PathBuf, Option<Stamp>>,
    keys: ZoneKeys,
    directory: PathBuf,
    sign: bool,
    lifetime: Duration,
}

/// What tells one version of a file from the next.
#[derive(PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    len: u64,
    inode: u64,
}

impl Source {
    fn new(args: &Args) -> Self {
        Self {
            files: args.files.clone(),
            seen: HashMap::new(),
            keys: ZoneKeys::kept_in(&args.key_dir),
            directory: args.key_dir.clone(),
            sign: !args.no_sign,
            lifetime: args.lifetime,
        }
    }

    /// Reads and signs everything.
    fn load(&mut self, previous: Option<&Catalog>) -> anyhow::Result<SignedZones> {
        self.seen.clear();
        let mut zones = Vec::with_capacity(self.files.len());
        for path in &self.files {
            // The looks come first: what changes while it is read is read again.
            let before = stamp(path);
            let (opened, zone) = read_zone_of(path, None);
            for file in opened {
                let now = stamp(&file);
                self.seen.insert(file, now);
            }
            self.seen.insert(path.clone(), before);
            let mut zone = zone?;
            if zones.iter().any(|other: &ServedZone| other.zone.origin == zone.origin) {
                bail!("{}: {} is in another file already", path.display(), zone.origin);
            }
            if self.sign {
                self.advance_serial(&mut zone)?;
            }
            let served = if self.sign { ServedZone::signed } else { ServedZone::as_is };
            zones.push(served(zone));
        }
        sign_zones_again(zones, &mut self.keys, self.lifetime, previous, None)
    }

    fn changed(&self) -> bool {
        self.seen.iter().any(|(path, seen)| stamp(path) != *seen)
    }

    /// Signing anew changes the zone, so its serial must grow or secondaries keep old signatures:
    /// the file's number if that is ahead, otherwise one more than was served last.
    fn advance_serial(&self, zone: &mut Zone) -> anyhow::Result<()> {
        let path = self.directory.join(format!("{}.serial", file_stem(&zone.origin)));
        let kept = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<u32>().ok());
        let apex = zone.origin.clone();
        let soa = zone.records.iter_mut().find(|r| r.owner == apex && r.as_soa().is_some());
        let Some(record) = soa else { bail!("{apex} has no SOA record") };
        let Some(mut soa) = record.as_soa() else { return Ok(()) };
        if let Some(kept) = kept {
            let is_ahead = soa.serial.wrapping_sub(kept);
            // RFC 1982: half of all numbers are ahead of any.
            if is_ahead == 0 || is_ahead >= 1 << 31 {
                soa.serial = kept.wrapping_add(1);
            }
        }
        *record = Record::soa(apex, record.ttl, &soa);
        fs::create_dir_all(&self.directory)
            .and_then(|()| fs::write(&path, format!("{}\n", soa.serial)))
            .with_context(|| format!("cannot keep {}", path.display()))
    }
}

fn announce(args: &Args, signed: &SignedZones) -> anyhow::Result<()> {
    for zone in signed.catalog.zones() {
        let how = if zone.is_signed() { "signed" } else { "not signed" };
        say(&format!("{}: serial {}, {how}", zone.origin, zone.serial()));
    }
    if let Some(path) = &args.write_trust_anchor {
        fs::write(path, &signed.trust_anchors)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    for line in signed.delegation_signers.lines() {
        say(&format!("for the parent: {line}"));
    }
    Ok(())
}

fn renewal(args: &Args, signed: &SignedZones) -> Option<SystemTime> {
    signed.expires.map(|expires| expires - args.lifetime / 4)
}

/// NOTIFY (RFC 1996). A secondary that misses it looks by itself, every SOA REFRESH.
async fn tell(args: &Args, catalog: &Arc<Catalog>) {
    for address in args.secondary.iter().filter_map(|secondary| secondary.notify) {
        let from: IpAddr = match args.listen.iter().find(|l| l.is_ipv4() == address.is_ipv4()) {
            // Secondaries take NOTIFY only from the primary's own address.
            Some(listen) => listen.ip(),
            None => continue,
        };
        let Ok(socket) = UdpSocket::bind((from, 0)).await else { continue };
        for (zone, id) in catalog.zones().zip(1_u16..) {
            if let Err(e) = socket.send_to(&notify(id, &zone.origin), address).await {
                say(&format!("cannot notify {address}: {e}"));
            }
        }
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    let (len, inode) = (metadata.len(), metadata.ino());
    Some(Stamp { modified: metadata.modified().ok(), len, inode })
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    socket_address(text).ok_or_else(|| "expected ADDR or ADDR:PORT".to_owned())
}

fn socket_address(text: &str) -> Option<SocketAddr> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    text.parse().ok().or_else(|| Some(SocketAddr::new(bare.parse().ok()?, DNS_PORT)))
}

fn secondary(text: &str) -> Result<Secondary, String> {
    if let Some(address) = socket_address(text) {
        return Ok(Secondary { prefix: Prefix::host(address.ip()), notify: Some(address) });
    }
    let prefix = text.parse().map_err(|e: zonefiles::PrefixError| e.to_string())?;
    Ok(Secondary { prefix, notify: None })
}

fn period(text: &str) -> Result<Duration, String> {
    zonefiles::period(text)
        .filter(|seconds| *seconds > 0)
        .map(|seconds| Duration::from_secs(u64::from(seconds)))
        .ok_or_else(|| "expected seconds, or a period such as 14d".to_owned())
}

fn say(text: &str) {
    let _ = writeln!(io::stderr(), "oe-node zone serve: {text}");
}

/// How often files are looked at: soon enough for a person who waits for it.
const LOOK: Duration = Duration::from_secs(1);
/// After a failed renewal.
const RETRY: Duration = Duration::from_secs(60);
/// RFC 1035 §4.2.
const DNS_PORT: u16 = 53;
