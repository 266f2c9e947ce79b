//! This machine: installed, started, and told to the world?

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dnskeys::{Name, PublicKey};
use hickory_proto::rr::RecordType;
use serde_json::Value;

use super::facts::{AddressFacts, HostFacts};
use super::gather::{self, Wanted};
use super::judge::{self, Against};
use super::report::{Check, Note, Report, Status};
use crate::config::{Backend, Config};
use crate::control::{self, Request};
use crate::hostkey::{HostKey, HostKeyError};
use crate::kernel::{self, Looked};
use crate::resolver::Resolver;

/// What was seen of this machine.
#[derive(Debug)]
pub(crate) struct MachineFacts {
    /// Where the shell finds `oe-node`.
    pub(crate) on_path: Option<PathBuf>,
    /// Which data plane is configured.
    pub(crate) backend: Backend,
    /// Whether the kernel has what that data plane needs.
    pub(crate) supported: bool,
    /// Where the host key lies.
    pub(crate) key_file: PathBuf,
    /// The public half, or why there is none.
    pub(crate) key: Result<PublicKey, HostKeyError>,
    /// What the daemon says, or why it says nothing.
    pub(crate) daemon: Result<Value, String>,
    /// UDP ports that somebody holds.
    pub(crate) ports: BTreeSet<u16>,
    /// The device's name.
    pub(crate) interface: String,
    /// The trap in the kernel.
    pub(crate) trap: io::Result<Looked>,
    /// When a signature that must be valid now begins and ends, in seconds since 1970.
    pub(crate) window: Option<(u32, u32)>,
    /// Network devices other than `lo` and our own.
    pub(crate) devices: usize,
    /// Whether the kernel forwards IPv4.
    pub(crate) forwards: bool,
    /// Whether the configuration has us call by name.
    pub(crate) calls_by_name: bool,
    /// What is published at this host's name.
    pub(crate) host: HostFacts,
    /// What is published for its addresses.
    pub(crate) each: Vec<AddressFacts>,
    /// Whether one of them is not private.
    pub(crate) public: bool,
}

/// Looks at this machine.
pub(crate) async fn gather(
    config: &Config,
    resolver: &Arc<Resolver>,
    mut wanted: Wanted,
) -> MachineFacts {
    let key = HostKey::load(&config.key_file()).map(|key| key.public().clone());
    wanted.host_key = wanted.host_key.or_else(|| key.as_ref().ok().cloned());
    let trap = kernel::look(&config.node.interface, config.node.table, config.node.mark);
    let (addresses, public) = worth_looking_up(trap.as_ref().map_or(&[][..], |t| &t.addresses));
    let by_name = match config.identity() {
        Some(ike::Identity::Fqdn(name)) => name.parse::<Name>().ok(),
        _ => None,
    };
    let name = by_name.clone().unwrap_or_else(host_name);
    let host = HostFacts {
        forward: gather::at(resolver, &name, wanted.servers).await,
        name,
        addresses: dnskeys::Security::Secure,
        each: Vec::new(),
    };
    let mut each = Vec::new();
    for address in addresses {
        each.push(gather::address(resolver, address, &wanted).await);
    }
    let arpa = "arpa".parse::<Name>();
    let window = match &arpa {
        Ok(arpa) => gather::window(resolver, arpa, RecordType::SOA).await,
        Err(_) => None,
    };
    MachineFacts {
        on_path: on_path("oe-node"),
        backend: config.node.backend,
        supported: match config.node.backend {
            Backend::Userspace => Path::new("/dev/net/tun").exists(),
            Backend::Xfrm => Path::new("/proc/net/xfrm_stat").exists(),
        },
        key_file: config.key_file(),
        key,
        daemon: control::ask(&config.node.control_socket, &Request::Status)
            .map_err(|error| format!("{error:#}")),
        ports: held_ports(),
        interface: config.node.interface.clone(),
        trap,
        window,
        devices: devices(&config.node.interface),
        forwards: read("/proc/sys/net/ipv4/ip_forward").trim() == "1",
        calls_by_name: by_name.is_some(),
        host,
        each,
        public,
    }
}

/// Judges it: first the machine, then what DNS says of it.
pub(crate) fn judge(facts: &MachineFacts, against: &Against) -> Vec<Report> {
    let mut machine = vec![installed(facts), supported(facts), key(facts)];
    machine.extend([running(facts), listening(facts), trapping(facts), clock(facts, against.now)]);
    machine.extend(forwarding(facts));
    let mut dns = judge::forward_checks(&facts.host, against);
    // Its addresses are taken from the machine, not from its name.
    dns.retain(|check| check.status.is_some());
    if facts.calls_by_name && !facts.host.forward.txt.present() {
        let name = facts.host.name.without_dot();
        let note = Note::wrong(
            format!("node.identity says that this host calls as @{name}, and its key is not there"),
            format!("publish at {name} what `oe-node showhostkey --txt @{name}` prints"),
        );
        if let Some(last) = dns.last_mut() {
            last.notes.push(note);
        }
    }
    dns.push(public(facts));
    dns.extend(facts.each.iter().flat_map(|address| judge::address_checks(address, against)));
    let machine_title =
        "Checking your system to see if IPsec got installed and started correctly:".to_owned();
    let dns_title = "Opportunistic Encryption DNS checks:".to_owned();
    vec![
        Report::new("this machine".to_owned(), machine_title, machine),
        Report::new("this machine in DNS".to_owned(), dns_title, dns),
    ]
}

fn installed(facts: &MachineFacts) -> Check {
    let text = "Version check and oe-node on-path";
    let version = env!("CARGO_PKG_VERSION");
    match &facts.on_path {
        Some(path) => Check::new(text, Status::Ok)
            .with([Note::info(format!("oe-node {version}, {}", path.display()))]),
        None => Check::new(text, Status::Missing).with([Note::weak(
            format!("oe-node {version} runs, and is not in PATH"),
            "install it where root's PATH leads",
        )]),
    }
}

fn supported(facts: &MachineFacts) -> Check {
    let (what, remedy) = match facts.backend {
        Backend::Userspace => ("TUN", "load the module: modprobe tun"),
        Backend::Xfrm => ("XFRM", "load the module: modprobe xfrm_user"),
    };
    let text = format!("Checking for {what} support in kernel");
    if facts.supported {
        Check::new(text, Status::Ok)
    } else {
        Check::new(text, Status::Failed)
            .with([Note::wrong(format!("the kernel offers no {what}"), remedy)])
    }
}

fn key(facts: &MachineFacts) -> Check {
    let text = format!("Checking for RSA private key ({})", facts.key_file.display());
    match &facts.key {
        Ok(key) => {
            let rsa = key.rsa();
            let size = rsa.map_or_else(String::new, |rsa| {
                format!(" {} bits, e = {}", rsa.bits(), rsa.exponent_value())
            });
            let what = format!("{}{size}, {}", key.algorithm_name(), key.key_id());
            // The classic line, unless it is not true.
            let text = match rsa {
                Some(_) => text,
                None => format!("Checking for private key ({})", facts.key_file.display()),
            };
            let mut check = Check::new(text, Status::Ok).with([Note::info(what)]);
            if rsa.is_some_and(|rsa| rsa.weakness().is_some()) {
                check.notes.push(Note::weak(
                    "strangers refuse it",
                    "make a new key with `oe-node keygen`, publish it, then change over",
                ));
            }
            check
        }
        Err(error) => {
            let remedy = match error {
                HostKeyError::Missing(_) => "make one with: oe-node keygen".to_owned(),
                HostKeyError::Open { path, .. } => {
                    format!("repair with: chmod 600 {}", path.display())
                }
                _ => "see what is in the file, and whose it is".to_owned(),
            };
            Check::new(text, Status::Failed).with([Note::wrong(error.to_string(), remedy)])
        }
    }
}

fn running(facts: &MachineFacts) -> Check {
    let text = "Checking that oe-node is running";
    match &facts.daemon {
        Ok(status) => {
            let known = status.get("destinations").and_then(Value::as_array).map_or(0, Vec::len);
            let mut check = Check::new(text, Status::Ok)
                .with([Note::info(format!("{known} destinations known"))]);
            let downgraded = status.pointer("/downgraded/destinations").and_then(Value::as_u64);
            if let Some(downgraded @ 1..) = downgraded {
                check.notes.push(Note::weak(
                    format!("{downgraded} destinations in the clear that can be encrypted to"),
                    "see which and why: oe-node status",
                ));
            }
            let downgrades = status.pointer("/counters/keying/downgrades").and_then(Value::as_u64);
            if let Some(downgrades @ 1..) = downgrades {
                check.notes.push(Note::weak(
                    format!("{downgrades} times a destination went clear because something did not answer"),
                    "see which and why: oe-node status",
                ));
            }
            check
        }
        Err(why) => Check::new(text, Status::Failed)
            .with([Note::wrong(why.as_str(), "start it: systemctl start oe-node, or oe-node run")]),
    }
}

fn listening(facts: &MachineFacts) -> Check {
    let text = "Checking that it listens on UDP 500 and 4500";
    let held: Vec<u16> = [500, 4500].into_iter().filter(|p| facts.ports.contains(p)).collect();
    match (&facts.daemon, held.as_slice()) {
        (Ok(_), [500, 4500]) => Check::new(text, Status::Ok),
        (Ok(_), _) => Check::new(text, Status::Failed).with([Note::wrong(
            "the daemon runs, and nobody listens there",
            "check node.listen in the configuration",
        )]),
        (Err(_), []) => Check::new(text, Status::NotApplicable),
        (Err(_), ports) => {
            let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
            Check::new(text, Status::Failed).with([Note::wrong(
                format!("another program holds UDP {}", ports.join(" and ")),
                "stop the other IKE daemon (ss -ulpn tells which)",
            )])
        }
    }
}

fn trapping(facts: &MachineFacts) -> Check {
    let text = format!("Checking that packets are trapped (device {})", facts.interface);
    let trap = match &facts.trap {
        Ok(trap) => trap,
        Err(error) => {
            let note = Note::unknown(format!("the kernel does not tell: {error}"), "run as root");
            return Check::new(text, Status::Unknown).with([note]);
        }
    };
    let stands = format!("{} rules and {} routes lead to it", trap.rules, trap.routes);
    match (&facts.daemon, facts.backend, trap.device) {
        (Ok(_), Backend::Userspace, Some(mtu)) if trap.rules > 0 && trap.routes > 0 => {
            let stands = Note::info(format!("MTU {mtu}; {stands}"));
            Check::new(text, Status::Ok).with(std::iter::once(stands).chain(steering(trap)))
        }
        (Ok(_), Backend::Xfrm, _) => Check::new(text, Status::NotApplicable)
            .with([Note::info("the kernel's own policies trap; see: ip xfrm policy")]),
        (Ok(_), Backend::Userspace, device) => {
            let device = if device.is_some() { "there" } else { "not there" };
            Check::new(text, Status::Failed).with([Note::wrong(
                format!("the daemon runs, the device is {device}, {stands}"),
                "somebody else removed them: restart oe-node",
            )])
        }
        (Err(_), ..) if trap.rules > 0 => Check::new(text, Status::Failed).with([Note::wrong(
            format!("the daemon is gone, and {stands}: private destinations cannot be reached"),
            "start oe-node, or remove the rules: ip rule",
        )]),
        (Err(_), ..) => Check::new(text, Status::NotApplicable),
    }
}

/// Rules of others that come before ours.
fn steering(trap: &Looked) -> impl Iterator<Item = Note> {
    trap.before.iter().map(|rule| {
        Note::weak(
            format!("a routing rule of somebody else's comes before ours: {rule}"),
            "what it matches goes past this node: give it a priority after 4322, or none",
        )
    })
}

/// Signatures have a beginning and an end: a wrong clock makes good zones bogus.
fn clock(facts: &MachineFacts, now: u64) -> Check {
    let text = "Checking the clock against signatures in DNS";
    let remedy = "set the clock, and keep it right with NTP";
    match facts.window {
        None => Check::new(text, Status::NotApplicable)
            .with([Note::info("no signed answer to compare with")]),
        Some((start, _)) if now < u64::from(start) => {
            Check::new(text, Status::Failed).with([Note::wrong(
                "the clock is behind: signatures of today are not valid yet",
                remedy,
            )])
        }
        Some((_, end)) if now > u64::from(end) => Check::new(text, Status::Failed)
            .with([Note::wrong("the clock is ahead: signatures of today are over", remedy)]),
        Some(_) => Check::new(text, Status::Ok),
    }
}

/// The classic lines for gateways.
fn forwarding(facts: &MachineFacts) -> Vec<Check> {
    if facts.devices < 2 {
        return Vec::new();
    }
    let text = "Two or more interfaces found, checking IP forwarding";
    if !facts.forwards {
        let note = Note::info("off: right for a host, wrong for the gateway of others");
        return vec![Check::new(text, Status::NotApplicable).with([note])];
    }
    let nat =
        Note::info("not looked at: what a gateway encrypts for others must not be translated");
    vec![
        Check::new(text, Status::Ok),
        Check::new("Checking NAT and MASQUERADEing", Status::NotApplicable).with([nat]),
    ]
}

fn public(facts: &MachineFacts) -> Check {
    let text = "Does the machine have at least one non-private address?";
    if facts.public {
        return Check::new(text, Status::Ok);
    }
    let note = if facts.calls_by_name {
        Note::info("it calls by name; strangers cannot call it")
    } else {
        Note::weak(
            "strangers cannot call it; hosts of the same private network can",
            "give it a name with a key (node.identity = \"@NAME\"), so that it can call",
        )
    };
    Check::new(text, if facts.calls_by_name { Status::NotApplicable } else { Status::Missing })
        .with([note])
}

/// The public addresses; without any, the private ones.
fn worth_looking_up(addresses: &[IpAddr]) -> (Vec<IpAddr>, bool) {
    // An address that a stranger could be sent to: what no record may name is no use.
    let anyone = IpAddr::from([192, 0, 2, 1]);
    let public = |addr: &&IpAddr| dnskeys::unusable(**addr, anyone).is_none();
    let private = |addr: &&IpAddr| dnskeys::unusable(**addr, **addr).is_none();
    let found: BTreeSet<IpAddr> = addresses.iter().filter(public).copied().collect();
    if !found.is_empty() {
        return (found.into_iter().take(MAX_ADDRESSES).collect(), true);
    }
    let found: BTreeSet<IpAddr> = addresses.iter().filter(private).copied().collect();
    (found.into_iter().take(MAX_ADDRESSES).collect(), false)
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// This host's name as the kernel has it.
fn host_name() -> Name {
    let text = read("/proc/sys/kernel/hostname");
    text.trim().parse().unwrap_or_else(|_| Name::reverse(std::net::Ipv4Addr::LOCALHOST.into()))
}

fn held_ports() -> BTreeSet<u16> {
    let mut ports = BTreeSet::new();
    for file in ["/proc/net/udp", "/proc/net/udp6"] {
        ports.extend(local_ports(&read(file)));
    }
    ports
}

/// The second column of `/proc/net/udp`: hexadecimal address, colon, hexadecimal port.
fn local_ports(table: &str) -> impl Iterator<Item = u16> {
    table.lines().skip(1).filter_map(|line| {
        let (_, port) = line.split_whitespace().nth(1)?.rsplit_once(':')?;
        u16::from_str_radix(port, 16).ok()
    })
}

fn devices(ours: &str) -> usize {
    let Ok(dir) = std::fs::read_dir("/sys/class/net") else { return 0 };
    let others = dir.flatten().filter(|entry| {
        let name = entry.file_name();
        name != "lo" && name != ours
    });
    others.count()
}

fn read(file: &str) -> String {
    std::fs::read_to_string(file).unwrap_or_default()
}

/// Addresses of this machine that are looked up.
const MAX_ADDRESSES: usize = 16;

#[cfg(test)]
mod tests;
