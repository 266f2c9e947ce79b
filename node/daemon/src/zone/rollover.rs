//! `oe-node zone rollover`: a new key beside the old one, a wait, the switch, a wait, the old one
//! out. Where it stands is in a file, so that it can be interrupted anywhere.

use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use dnskeys::RsaKey;
use serde::{Deserialize, Serialize};
use zonefiles::rollover::{Phase, Step, cache_life, with_key};
use zonefiles::{Name, Record};

use super::list::read_key;
use super::publish::{self, Target};
use super::upstream::{Goal, Upstream};
use super::{files, tsig};

/// Arguments of `oe-node zone rollover`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Sub,
}

#[derive(clap::Subcommand)]
enum Sub {
    /// Publishes the new key beside the old one.
    Start(Box<Start>),
    /// Does what is next, if its time has come.
    Continue(Continue),
    /// Says where it stands.
    Status(Status),
}

#[derive(clap::Args)]
struct Start {
    /// Where the rollover's state is kept.
    #[arg(long, value_name = "FILE")]
    state: PathBuf,
    #[command(flatten)]
    target: Target,
    /// The key that is published now, PEM.
    #[arg(long, value_name = "FILE")]
    old_key_file: PathBuf,
    /// The key that replaces it, PEM.
    #[arg(long, value_name = "FILE")]
    new_key_file: PathBuf,
    /// Run by the shell when the daemon is to use the new key; otherwise say so with --switched.
    #[arg(long, value_name = "COMMAND")]
    switch_command: Option<String>,
    /// Seconds until a change is on all of the zone's servers; added to each wait.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    propagation: u64,
    /// Files with the records that hold the old key.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

#[derive(clap::Args)]
struct Continue {
    /// Where the rollover's state is kept.
    #[arg(long, value_name = "FILE")]
    state: PathBuf,
    /// The daemon uses the new key now.
    #[arg(long)]
    switched: bool,
    /// Sleep through the waits.
    #[arg(long)]
    wait: bool,
}

#[derive(clap::Args)]
struct Status {
    /// Where the rollover's state is kept.
    #[arg(long, value_name = "FILE")]
    state: PathBuf,
    /// Print the state as it is kept.
    #[arg(long)]
    json: bool,
}

/// What the file holds. The records with the old key are beside it, as a master file.
#[derive(Serialize, Deserialize)]
struct State {
    version: u32,
    phase: Phase,
    zone: String,
    server: SocketAddr,
    tsig: Option<PathBuf>,
    old_key: String,
    new_key: String,
    wait: u64,
    switch_command: Option<String>,
}

/// Runs the command.
pub(crate) fn main(args: &Args) -> ExitCode {
    let done = match &args.command {
        Sub::Start(args) => start(args),
        Sub::Continue(args) => go_on(args),
        Sub::Status(args) => status(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => super::fail("rollover", &format!("{e:#}")),
    }
}

fn start(args: &Start) -> anyhow::Result<()> {
    if let Ok(state) = State::load(&args.state)
        && state.phase != Phase::Done
    {
        bail!("{}: a rollover is under way: use continue", args.state.display());
    }
    let (old, new) = (read_key(&args.old_key_file)?, read_key(&args.new_key_file)?);
    if old == new {
        bail!("the old and the new key are the same");
    }
    if let Some(fault) = zonefiles::gateway::key_fault(&new) {
        bail!("{}: {fault}", args.new_key_file.display());
    }
    let zone = &args.target.zone;
    let mut records = Vec::new();
    for path in &args.files {
        records.extend(publish::read(path, zone)?);
    }
    records.retain(|record| with_key(record, &old, &new).is_some());
    if records.is_empty() {
        bail!("no record holds the key {}", old.key_id());
    }
    let minimum = args.target.connect()?.minimum(zone)?;
    let state = State {
        version: 1,
        phase: Phase::Publish,
        zone: zone.to_string(),
        server: args.target.server,
        tsig: args.target.tsig.as_deref().map(fs::canonicalize).transpose()?,
        old_key: old.to_base64(),
        new_key: new.to_base64(),
        wait: cache_life(&records, minimum) + args.propagation,
        switch_command: args.switch_command.clone(),
    };
    let mut text = String::new();
    for record in &records {
        text.push_str(&format!("{record}\n"));
    }
    replace(&records_path(&args.state), text.as_bytes())?;
    state.save(&args.state)?;
    say(&format!("{} records hold the key {}", records.len(), old.key_id()))?;
    go_on(&Continue { state: args.state.clone(), switched: false, wait: false })
}

fn go_on(args: &Continue) -> anyhow::Result<()> {
    let mut state = State::load(&args.state)?;
    let mut switched = args.switched;
    loop {
        let (phase, step) = state.phase.step(now());
        state.phase = phase;
        match step {
            Step::Publish => {
                let (_, new) = state.records(&args.state)?;
                let (count, ttl) = state.make(new, Goal::AtLeast)?;
                // What caches hold is what the server said, whatever the file says.
                state.wait = state.wait.max(u64::from(ttl));
                say(&format!("{count} records with the new key published beside the old"))?;
            }
            Step::Wait(seconds) if args.wait => {
                say(&format!("waiting {seconds} s for caches"))?;
                std::thread::sleep(Duration::from_secs(seconds));
                continue;
            }
            Step::Wait(seconds) => {
                return say(&format!("caches need another {seconds} s; then: continue"));
            }
            Step::Switch if std::mem::take(&mut switched) => {}
            Step::Switch => match &state.switch_command {
                Some(command) => {
                    let status = Command::new("sh").args(["-c", command]).status()?;
                    if !status.success() {
                        bail!("the switch command failed: {status}");
                    }
                    say("switched")?;
                }
                None => {
                    state.save(&args.state)?;
                    return say("give the daemon the new key, then: continue --switched");
                }
            },
            Step::Withdraw => {
                let (old, _) = state.records(&args.state)?;
                let (count, _) = state.make(old, Goal::Without)?;
                say(&format!("{count} records with the old key withdrawn"))?;
            }
            Step::Done => return say("done: only the new key is published"),
        }
        state.phase = state.phase.done(now(), state.wait);
        state.save(&args.state)?;
    }
}

fn status(args: &Status) -> anyhow::Result<()> {
    let state = State::load(&args.state)?;
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&state)?)?;
        return Ok(());
    }
    let id = |key: &str| key.get(..9).unwrap_or(key).to_owned();
    writeln!(out, "{} at {}", state.zone, state.server)?;
    writeln!(out, "key {} is replaced by {}", id(&state.old_key), id(&state.new_key))?;
    let next = match state.phase.step(now()).1 {
        Step::Publish => "the new key is to be published".to_owned(),
        Step::Wait(seconds) => format!("waiting for caches, another {seconds} s"),
        Step::Switch => "the daemon is to be given the new key".to_owned(),
        Step::Withdraw => "the old key is to be withdrawn".to_owned(),
        Step::Done => "done".to_owned(),
    };
    writeln!(out, "{next}")?;
    Ok(())
}

impl State {
    fn load(path: &Path) -> anyhow::Result<Self> {
        let name = path.display();
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
        let state: Self = serde_json::from_str(&text)
            .with_context(|| format!("{name} is no state of a rollover"))?;
        if state.version != 1 {
            bail!("{name} was written by another version");
        }
        Ok(state)
    }

    fn save(&self, path: &Path) -> anyhow::Result<()> {
        replace(path, serde_json::to_string_pretty(self)?.as_bytes())
    }

    /// The records with the old key, and the same with the new one.
    fn records(&self, path: &Path) -> anyhow::Result<(Vec<Record>, Vec<Record>)> {
        let key = |text: &str| RsaKey::from_base64(text.as_bytes());
        let (old_key, new_key) = (key(&self.old_key)?, key(&self.new_key)?);
        let old = files::read_zone(&records_path(path), Some(Name::root()))?.records;
        let new = old.iter().filter_map(|record| with_key(record, &old_key, &new_key)).collect();
        Ok((old, new))
    }

    /// How many records changed, and the longest TTL that was found.
    fn make(&self, records: Vec<Record>, goal: Goal) -> anyhow::Result<(usize, u32)> {
        let tsig = self.tsig.as_deref().map(tsig::read).transpose()?;
        let mut upstream = Upstream::connect(self.server, tsig)?;
        let plan = upstream.plan(records, goal)?;
        upstream.apply(&self.zone.parse()?, &plan)?;
        Ok((plan.changes.len(), plan.longest_ttl))
    }
}

/// Complete or not there, whenever the power fails.
fn replace(path: &Path, text: &[u8]) -> anyhow::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let write = || -> io::Result<()> {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

fn records_path(state: &Path) -> PathBuf {
    let mut path = state.as_os_str().to_owned();
    path.push(".records");
    PathBuf::from(path)
}

fn say(text: &str) -> anyhow::Result<()> {
    Ok(writeln!(io::stdout(), "{text}")?)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
