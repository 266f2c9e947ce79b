//! `oe-node guard`: keeps closed what is `private` or `block` while no daemon runs.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use sa::{Prefix, Subnets};
use serde_json::{Value, json};

use crate::config::{Backend, Config};
use crate::control::{self, Request};
use crate::kernel::{Closed, Guard, GuardView, KernelError, XfrmGuard, route_classes};
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

const LONG: &str = "The guard closes what is in groups private and block (everybody else's packets to \
those prefixes included, where this machine forwards), and whatever is between the subnets of a \
connection, lent and borrowed ones included: with node.backend = \"userspace\" by rules and routes \
in the node's own tables, with \"xfrm\" by policies. It needs the configuration and the policy groups \
alone, no key and no network: run it before the network comes up (the unit oe-node-guard.service of \
`oe-node config --systemd` does). A daemon that starts puts its traps on top of it, and keeps it in \
step when the configuration is read anew; when the daemon stops or is killed, the guard is what is \
left. Hosts behind this machine ([[serve]]), loopback, link-local, multicast, the gateways of the \
routes that are there, and the renewal of DHCP leases stay open.\n\n\
Beside a connection to everywhere nobody follows the main table while no daemon runs: what leaves \
the local subnets by a better route than the default one stays open, and what would come back that \
way is kept out. In IPv4, what this machine sends without a source of its own choice is closed if \
the default route of the moment gives it one of the local subnets, or if there is no default route \
yet; run `guard up` again when that has changed.\n\n\
`status` exits with 0 if the \
guard is up and closes what is asked for, with 1 otherwise.";

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
    let (config, closed, warnings) = load(place)?;
    if up {
        super::warn(&warnings);
    }
    let Err(error) = control::ask(&config.node.control_socket, &Request::Guard { up }) else {
        return Ok(());
    };
    let alone = nobody_listens(&error);
    let mut guard = Either::open(&config)?;
    if up {
        // To close needs nobody's leave.
        guard.up(&closed)?;
    } else if alone {
        guard.down()?;
    }
    if alone { Ok(()) } else { Err(error) }
}

/// The guard beside the data plane that the configuration names.
enum Either {
    Userspace(Guard),
    Xfrm(XfrmGuard),
}

impl Either {
    fn open(config: &Config) -> Result<Self, KernelError> {
        Ok(match config.node.backend {
            Backend::Userspace => Self::Userspace(Guard::open(view::ground_config(config))?),
            Backend::Xfrm => Self::Xfrm(XfrmGuard::open()?),
        })
    }

    fn up(&mut self, closed: &Closed) -> Result<(), KernelError> {
        match self {
            Self::Userspace(guard) => guard.up(closed),
            Self::Xfrm(guard) => guard.up(closed),
        }
    }

    fn down(&mut self) -> Result<(), KernelError> {
        match self {
            Self::Userspace(guard) => guard.down(),
            Self::Xfrm(guard) => guard.down(),
        }
    }

    fn look(&mut self, closed: &Closed) -> Result<GuardView, KernelError> {
        match self {
            Self::Userspace(guard) => guard.look(closed),
            Self::Xfrm(guard) => guard.look(closed),
        }
    }
}

/// Whether there is no daemon, rather than one that does not answer or that we may not ask.
fn nobody_listens(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| {
        matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
    })
}

fn status(show: &Show) -> ExitCode {
    let look = || -> anyhow::Result<GuardView> {
        let (config, closed, _) = load(&show.place)?;
        Ok(Either::open(&config)?.look(&closed)?)
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

fn load(place: &Where) -> anyhow::Result<(Config, Closed, Vec<String>)> {
    let config = Config::load(place.config.as_deref())?;
    let (groups, warnings) = config.groups_and_warnings()?;
    let classes = groups.iter().map(|(prefix, group)| (prefix, group.class())).collect();
    let ported = groups.rules().filter(|(_, ports, _)| !ports.is_any());
    let ported = ported.map(|(prefix, _, group)| (prefix, group.class()));
    let between = config.between();
    Ok((config, Closed { classes: route_classes(classes, ported), between }, warnings))
}

fn is_good(view: &GuardView) -> bool {
    view.up && view.rules > 0 && faults(view).iter().all(|(_, what)| what.is_empty())
}

/// What is not as it should be, and by which name.
fn faults(view: &GuardView) -> [(&'static str, Vec<String>); 2] {
    let both = |prefixes: &[Prefix], between: &[Subnets]| [list(prefixes), pairs(between)].concat();
    [
        ("missing", both(&view.missing, &view.missing_between)),
        ("no longer asked for", both(&view.stale, &view.stale_between)),
    ]
}

fn list(prefixes: &[Prefix]) -> Vec<String> {
    prefixes.iter().map(Prefix::to_string).collect()
}

fn pairs(between: &[Subnets]) -> Vec<String> {
    between.iter().map(|b| format!("{}-{}", b.local(), b.remote())).collect()
}

fn document(view: &GuardView) -> Value {
    let [(_, missing), (_, stale)] = faults(view);
    let closed = [list(&view.closed), pairs(&view.between)].concat();
    json!({
        "up": view.up,
        "good": is_good(view),
        "rules": view.rules,
        "closed": closed,
        "missing": missing,
        "stale": stale,
    })
}

fn text(view: &GuardView) -> String {
    if !view.up {
        return "the guard is down: without a daemon everything goes in the clear\n".to_owned();
    }
    let closed = [list(&view.closed), pairs(&view.between)].concat();
    let mut text = if closed.is_empty() {
        "the guard is up; neither a group nor a connection asks it to close anything\n".to_owned()
    } else {
        format!("the guard is up and closes {}\n", closed.join(" "))
    };
    if view.rules == 0 {
        text.push_str("no routing rule leads to it: run `oe-node guard up`\n");
    }
    for (what, which) in faults(view).into_iter().filter(|(_, which)| !which.is_empty()) {
        text.push_str(&format!("{what}: {}; run `oe-node guard up`\n", which.join(" ")));
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
            ..GuardView::default()
        };
        assert!(is_good(&view));
        assert_eq!(text(&view), "the guard is up and closes 10.0.0.0/8 2001:db8::/32\n");
        view.missing.push(p("192.0.2.0/24"));
        assert!(!is_good(&view));
        assert!(text(&view).contains("missing: 192.0.2.0/24; run"));
        view.missing.clear();
        let between = Subnets::new(p("10.1.0.0/16"), p("10.2.0.0/16")).unwrap();
        view.between.push(between);
        assert!(text(&view).contains("2001:db8::/32 10.1.0.0/16-10.2.0.0/16\n"), "{}", text(&view));
        view.stale_between.push(between);
        assert!(!is_good(&view));
        view.up = false;
        assert!(text(&view).starts_with("the guard is down"));
    }
}
