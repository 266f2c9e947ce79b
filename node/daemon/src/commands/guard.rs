//! `oe-node guard`: keeps closed what is `private` or `block` while no daemon runs.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use sa::{Class, Prefix};
use serde_json::{Value, json};

use crate::config::{Backend, Config};
use crate::control::{self, Request};
use crate::kernel::{Guard, GuardView, route_classes};
use crate::view;

/// Arguments of `oe-node guard`.
#[derive(clap::Args)]
#[command(after_long_help = LONG)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Closes what the policy groups close, from now on; again, what they close by now.
    Up(Where),
    /// Says what is closed, and whether that is what the policy groups ask for.
    Status(Show),
    /// Opens it again. A running daemon goes on as it was.
    Down(Where),
}

#[derive(clap::Args)]
struct Where {
    /// Configuration file [default: /etc/oe-node/oe-node.toml if it exists].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(clap::Args)]
struct Show {
    #[command(flatten)]
    place: Where,
    /// Print everything as JSON.
    #[arg(long)]
    json: bool,
}

const LONG: &str = "The guard is a rule and routes in the node's own table: a black hole for every \
prefix in group private, \"prohibited\" for every prefix in group block, nothing for the rest. It \
needs the policy groups alone, and no network: run it before the network comes up (the unit \
oe-node-guard.service of `oe-node config --systemd` does). A daemon that starts puts its traps on \
top of it, and keeps it in step with the groups when they are read anew; when the daemon stops or \
is killed, the guard is what is left. Loopback, link-local, multicast, the gateways of the routes \
that are there, and the renewal of DHCP leases stay open.\n\n`status` exits with 0 if the guard is \
up and closes what the groups ask for, with 1 otherwise.";

/// Runs the command.
pub(crate) fn main(args: Args) -> ExitCode {
    let done = match args.what {
        What::Up(place) => set(&place, true),
        What::Down(place) => set(&place, false),
        What::Status(show) => return status(&show),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => super::fail(&format!("{error:#}")),
    }
}

/// A running daemon does it itself, so that it knows; if none does, we do.
fn set(place: &Where, up: bool) -> anyhow::Result<()> {
    let (config, classes) = load(place)?;
    let Err(error) = control::ask(&config.node.control_socket, &Request::Guard { up }) else {
        return Ok(());
    };
    let alone = nobody_listens(&error);
    let mut guard = Guard::open(view::ground_config(&config))?;
    if up {
        // To close needs nobody's leave.
        guard.up(&classes)?;
    } else if alone {
        guard.down()?;
    }
    if alone { Ok(()) } else { Err(error) }
}

/// Whether there is no daemon, rather than one that does not answer or that we may not ask.
fn nobody_listens(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| {
        matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
    })
}

fn status(show: &Show) -> ExitCode {
    let look = || -> anyhow::Result<GuardView> {
        let (config, classes) = load(&show.place)?;
        Ok(Guard::open(view::ground_config(&config))?.look(&classes)?)
    };
    let view = match look() {
        Ok(view) => view,
        Err(error) => return super::fail(&format!("{error:#}")),
    };
    let good = is_good(&view);
    let text = if show.json { format!("{:#}\n", document(&view)) } else { text(&view) };
    match super::show(Ok(text)) {
        ExitCode::SUCCESS if !good => ExitCode::FAILURE,
        shown => shown,
    }
}

fn load(place: &Where) -> anyhow::Result<(Config, BTreeMap<Prefix, Class>)> {
    let config = Config::load(place.config.as_deref())?;
    if config.node.backend == Backend::Xfrm {
        anyhow::bail!("node.backend: there is no guard for \"xfrm\", only for \"userspace\"");
    }
    let groups = config.groups()?;
    let classes = groups.iter().map(|(prefix, group)| (prefix, group.class())).collect();
    let ported = groups.rules().filter(|(_, ports, _)| !ports.is_any());
    let ported = ported.map(|(prefix, _, group)| (prefix, group.class()));
    Ok((config, route_classes(classes, ported)))
}

fn is_good(view: &GuardView) -> bool {
    view.up && view.rules > 0 && view.missing.is_empty() && view.stale.is_empty()
}

fn list(prefixes: &[Prefix]) -> Vec<String> {
    prefixes.iter().map(Prefix::to_string).collect()
}

fn document(view: &GuardView) -> Value {
    json!({
        "up": view.up,
        "good": is_good(view),
        "rules": view.rules,
        "closed": list(&view.closed),
        "missing": list(&view.missing),
        "stale": list(&view.stale),
    })
}

fn text(view: &GuardView) -> String {
    if !view.up {
        return "the guard is down: without a daemon everything goes in the clear\n".to_owned();
    }
    let mut text = match view.closed.as_slice() {
        [] => "the guard is up; no group asks it to close anything\n".to_owned(),
        closed => format!("the guard is up and closes {}\n", list(closed).join(" ")),
    };
    if view.rules == 0 {
        text.push_str("no routing rule leads to it: run `oe-node guard up`\n");
    }
    for (what, prefixes) in [("missing", &view.missing), ("no longer asked for", &view.stale)] {
        if !prefixes.is_empty() {
            let list = list(prefixes).join(" ");
            text.push_str(&format!("{what}: {list}; run `oe-node guard up`\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_where_nobody_listens_do_we_open_by_ourselves() {
        let asked =
            |path: &std::path::Path| control::ask(path, &Request::Guard { up: false }).unwrap_err();
        let folder = std::env::temp_dir().join(format!("oe-guard-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("control");
        assert!(nobody_listens(&asked(&path)), "no socket");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let deaf = std::thread::spawn(move || drop(listener.accept()));
        assert!(!nobody_listens(&asked(&path)), "a daemon that hangs up");
        deaf.join().unwrap();
        assert!(nobody_listens(&asked(&path)), "the socket of a daemon that was killed");
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(!nobody_listens(&io::Error::from(io::ErrorKind::PermissionDenied).into()));
    }

    #[test]
    fn people_are_told_what_is_closed_and_what_is_wrong() {
        let p = |text: &str| text.parse::<Prefix>().unwrap();
        let mut view = GuardView {
            up: true,
            rules: 2,
            closed: vec![p("10.0.0.0/8"), p("2001:db8::/32")],
            missing: Vec::new(),
            stale: Vec::new(),
        };
        assert!(is_good(&view));
        assert_eq!(text(&view), "the guard is up and closes 10.0.0.0/8 2001:db8::/32\n");
        view.missing.push(p("192.0.2.0/24"));
        assert!(!is_good(&view));
        assert!(text(&view).contains("missing: 192.0.2.0/24; run"));
        view.up = false;
        assert!(text(&view).starts_with("the guard is down"));
    }
}
