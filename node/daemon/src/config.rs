//! The configuration file: TOML, every key documented in [`EXAMPLE`], every error one line that
//! names the file, the line, the key and the reason.

mod check;
mod connection;
mod group;
mod places;
mod pool;

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use keying::WhenAdvertised;
use serde::Deserialize;

use connection::{Borrow, Extrude, Subnet};
use places::{Fault, Places};

pub(crate) use connection::Connection;
pub(crate) use group::{CustomGroup, GroupName};

/// What `oe-node config --example` prints.
pub(crate) const EXAMPLE: &str = include_str!("example.toml");

/// Where the configuration is looked for when no `--config` is given.
pub(crate) const DEFAULT_FILE: &str = "/etc/oe-node/oe-node.toml";

/// The whole file. Every key has a default: an empty file is the *packetdefault* host.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Config {
    pub(crate) node: Node,
    pub(crate) dns: Dns,
    pub(crate) policy: Policy,
    pub(crate) ike: Ike,
    pub(crate) serve: Vec<Serve>,
    pub(crate) extrude: Vec<Extrude>,
    pub(crate) borrow: Vec<Borrow>,
    pub(crate) pool: pool::Pool,
    #[serde(rename = "connection")]
    pub(crate) connections: Vec<Connection>,
    #[serde(rename = "group")]
    pub(crate) groups: Vec<CustomGroup>,
    #[serde(skip)]
    source: Source,
}

/// Where a configuration was read from.
#[derive(Clone, Debug, Default)]
struct Source {
    /// The file that was asked for.
    asked: Option<PathBuf>,
    /// The file that was read.
    file: PathBuf,
    /// What it says, key by key.
    written: toml::Table,
    /// And where.
    places: Places,
}

/// Where something is written is no part of what it says.
impl PartialEq for Source {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Source {}

/// `[node]`: this machine.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Node {
    pub(crate) key: Option<PathBuf>,
    pub(crate) state_dir: PathBuf,
    pub(crate) remember_peers: bool,
    pub(crate) control_socket: PathBuf,
    pub(crate) interface: String,
    pub(crate) identity: Option<String>,
    pub(crate) listen: Vec<IpAddr>,
    pub(crate) backend: Backend,
    pub(crate) encapsulation: Encapsulation,
    pub(crate) table: u32,
    pub(crate) mark: u32,
    pub(crate) retransmissions: u32,
    pub(crate) destinations: usize,
    pub(crate) new_destinations: Option<u32>,
}

/// Which data plane carries packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Backend {
    /// Our own, over a TUN device.
    #[default]
    Userspace,
    /// The kernel's.
    Xfrm,
}

/// Whether ESP is wrapped in UDP where no NAT asks for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Encapsulation {
    /// Always: UDP batches, protocol 50 does not.
    #[default]
    Udp,
    /// Only behind a NAT.
    Auto,
}

/// Whether pairs go along when an outer address changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mobike {
    /// No.
    Off,
    /// Yes.
    #[default]
    On,
    /// Yes, and every peer is told all our addresses.
    Announce,
}

/// `[ike]`: what is spoken with peers.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Ike {
    pub(crate) compatibility: bool,
    pub(crate) mobike: Mobike,
    pub(crate) post_quantum: bool,
    pub(crate) resumption: bool,
    pub(crate) patience: u32,
    pub(crate) ike_life: u32,
    pub(crate) child_life: u32,
    pub(crate) fragment_size: u16,
}

impl Default for Ike {
    fn default() -> Self {
        Self {
            compatibility: false,
            mobike: Mobike::default(),
            post_quantum: true,
            resumption: true,
            patience: 180,
            ike_life: 28_800,
            child_life: 3600,
            fragment_size: 1280,
        }
    }
}

/// `[dns]`: whom to ask and whom to trust.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Dns {
    pub(crate) resolvers: Vec<Resolver>,
    pub(crate) trust_anchors: Option<PathBuf>,
}

/// A resolver's address, port 53 unless it says otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Resolver(pub(crate) SocketAddr);

impl std::str::FromStr for Resolver {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse()
            .or_else(|_| text.parse().map(|ip: IpAddr| SocketAddr::new(ip, 53)))
            .map(Self)
            .map_err(|_| format!("{text:?} is not ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT"))
    }
}

impl TryFrom<String> for Resolver {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// `[policy]`: which destinations are treated how.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Policy {
    pub(crate) directory: Option<PathBuf>,
    pub(crate) packetdefault: Option<GroupName>,
    pub(crate) require_dnssec: RequireDnssec,
    pub(crate) when_advertised: Advertised,
    pub(crate) null_auth: NullAuth,
    pub(crate) allow_exponent_3: bool,
    pub(crate) own_record: OwnRecordKey,
    pub(crate) icmp_unreachable: bool,
}

/// `[[serve]]`: hosts behind this machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Serve {
    pub(crate) subnet: Subnet,
}

/// When a DNSSEC-secure record is demanded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RequireDnssec {
    Never,
    #[default]
    Private,
    Always,
}

/// What becomes of peers that prove nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum NullAuth {
    #[default]
    Never,
    Accept,
    Call,
}

/// What a silent gateway with a secure record means.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Advertised {
    #[default]
    Clear,
    Insist,
}

/// What the lack of a record of our own means.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum OwnRecordKey {
    #[default]
    Advise,
    Require,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            key: None,
            state_dir: "/var/lib/oe-node".into(),
            remember_peers: true,
            control_socket: "/run/oe-node/control.sock".into(),
            interface: "ipsec0".to_owned(),
            identity: None,
            listen: Vec::new(),
            backend: Backend::default(),
            encapsulation: Encapsulation::default(),
            table: 4322,
            mark: 0x4322,
            retransmissions: 3,
            destinations: keying::DESTINATIONS,
            new_destinations: None,
        }
    }
}

/// Why the configuration cannot be used: file, place, reason, in one line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Error {
    file: PathBuf,
    line: Option<usize>,
    why: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.why)
    }
}

impl std::error::Error for Error {}

impl Config {
    /// Reads the given file; without one, the default file if it is there, else nothing but
    /// defaults.
    pub(crate) fn load(asked: Option<&Path>) -> Result<Self, Error> {
        let mut config = Self::read_file(asked)?;
        config.source.asked = asked.map(Path::to_path_buf);
        Ok(config)
    }

    fn read_file(file: Option<&Path>) -> Result<Self, Error> {
        let (file, must_exist) = match file {
            Some(file) => (file, true),
            None => (Path::new(DEFAULT_FILE), false),
        };
        match std::fs::read(file) {
            Ok(octets) => match String::from_utf8(octets) {
                Ok(text) => Self::parse(file, &text),
                Err(bad) => Err(Error { file: file.into(), ..not_utf8(&bad) }),
            },
            Err(why) if why.kind() == std::io::ErrorKind::NotFound && !must_exist => {
                Ok(Self::default())
            }
            Err(why) => Err(Error { file: file.into(), line: None, why: why.to_string() }),
        }
    }

    /// Reads the same file anew.
    pub(crate) fn reread(&self) -> Result<Self, Error> {
        Self::load(self.source.asked.as_deref())
    }

    /// This configuration with what a running daemon takes from a new one.
    pub(crate) fn following(&self, new: &Self) -> Result<Self, Error> {
        let policy = Policy {
            directory: new.policy.directory.clone(),
            packetdefault: new.policy.packetdefault,
            ..self.policy.clone()
        };
        // What a restart would follow is still to be compared with what was read at the start.
        let source = Source { written: self.source.written.clone(), ..new.source.clone() };
        let followed = Self {
            policy,
            source,
            serve: new.serve.clone(),
            extrude: new.extrude.clone(),
            borrow: new.borrow.clone(),
            connections: new.connections.clone(),
            groups: new.groups.clone(),
            pool: new.pool.clone(),
            ..self.clone()
        };
        // What goes together in the file need not go with what stands.
        followed.check_all()?;
        Ok(followed)
    }

    /// The keys of a new configuration that say something else and that only a restart follows.
    pub(crate) fn restart_for(&self, new: &Self) -> Vec<String> {
        let mut keys = BTreeSet::new();
        for (here, there) in [(self, new), (new, self)] {
            for (table, value) in &here.source.written {
                let other = there.source.written.get(table);
                match (value, other.and_then(toml::Value::as_table)) {
                    _ if other == Some(value) || FOLLOWED.contains(&table.as_str()) => {}
                    (toml::Value::Table(values), others) => {
                        let differs = |(key, value): &(&String, &toml::Value)| {
                            others.and_then(|others| others.get(*key)) != Some(*value)
                        };
                        let names =
                            values.iter().filter(differs).map(|(k, _)| format!("{table}.{k}"));
                        keys.extend(names.filter(|key| !FOLLOWED.contains(&key.as_str())));
                    }
                    _ => drop(keys.insert(table.clone())),
                }
            }
        }
        keys.into_iter().collect()
    }

    /// Parses and checks a file's text.
    fn parse(file: &Path, text: &str) -> Result<Self, Error> {
        let places = Places::of(text);
        let mut config: Self = toml::from_str(text).map_err(|error| {
            let start = error.span().map(|span| span.start);
            let line =
                start.map(|start| text.get(..start).unwrap_or_default().matches('\n').count() + 1);
            // One line: the parser's own message may quote and point over several.
            let mut why = error.message().replace('\n', " ");
            let key = start.and_then(|start| places.key_at(start));
            if let Some(key) = key.or_else(|| key_of_line(text, line?)) {
                why = format!("{key}: {why}");
            }
            Error { file: file.into(), line, why }
        })?;
        config.source.file = file.into();
        // It was parsed a moment ago.
        config.source.written = toml::from_str(text).unwrap_or_default();
        config.source.places = places;
        config.check_all()?;
        Ok(config)
    }

    /// Where it is written, and what is wrong.
    fn error(&self, Fault { key, why }: Fault) -> Error {
        Error { file: self.source.file.clone(), line: self.source.places.line(&key), why }
    }

    /// An error that begins with the name of a key, with the place of that key in the file.
    pub(crate) fn located(&self, error: anyhow::Error) -> anyhow::Error {
        let why = format!("{error:#}");
        let key = why.split(':').next().unwrap_or_default();
        match self.source.places.is_written(key) {
            true => self.error(Fault { key: key.to_owned(), why }).into(),
            false => error,
        }
    }

    /// The host key's file.
    pub(crate) fn key_file(&self) -> PathBuf {
        self.node.key.clone().unwrap_or_else(|| self.node.state_dir.join("host.key"))
    }

    /// Our identity in IKE, if it is not our address.
    pub(crate) fn identity(&self) -> Option<ike::Identity> {
        self.node.identity.as_deref().and_then(|text| parse_identity(text).ok())
    }

    /// Whether the machine has to forward for what is configured, in IPv4 and in IPv6.
    pub(crate) fn needs_forwarding(&self) -> [bool; 2] {
        let served = self.serve.iter().map(|s| s.subnet.0);
        let lent = self.extrude.iter().map(|e| e.subnet.0);
        let all = served.chain(lent).chain(self.borrow.iter().map(|b| b.subnet.0));
        let inner = self.connections.iter().flat_map(|c| &c.local_subnets).map(|s| s.0);
        let wide: Vec<_> = all.chain(inner.filter(|prefix| !prefix.is_host())).collect();
        [wide.iter().any(|p| p.addr().is_ipv4()), wide.iter().any(|p| p.addr().is_ipv6())]
    }

    /// Whether addresses are lent or borrowed over this connection.
    fn lends_over(&self, name: &str) -> bool {
        self.extrude.iter().any(|e| e.to == name) || self.borrow.iter().any(|b| b.from == name)
    }

    /// The prefixes of the hosts behind us.
    pub(crate) fn served(&self) -> Vec<sa::Prefix> {
        self.serve.iter().map(|serve| serve.subnet.0).collect()
    }

    /// What lies between the subnets of configured connections, lent and borrowed ones included:
    /// known without any key.
    pub(crate) fn between(&self) -> BTreeSet<sa::Subnets> {
        self.connections
            .iter()
            .flat_map(|connection| self.parts(connection, &connection.to_subnets()))
            .flat_map(|part| part.subnets())
            .collect()
    }

    /// A connection as it is written, and what is lent or borrowed over it.
    fn parts(
        &self,
        connection: &Connection,
        written: &keying::Connection,
    ) -> Vec<keying::Connection> {
        let lent = self.extrude.iter().filter(|e| e.to == connection.name);
        let borrowed = self.borrow.iter().filter(|b| b.from == connection.name);
        let mut all: Vec<_> = lent.map(|extrude| extrude.over(written)).collect();
        all.extend(borrowed.map(|borrow| borrow.over(written)));
        if !written.local_subnets.is_empty() {
            all.push(written.clone());
        }
        all
    }

    /// The configured connections, with the keys of their peers.
    pub(crate) fn connections(&self) -> Result<Vec<keying::Connection>, Error> {
        let rules = self.rules();
        let mut all = Vec::new();
        for (index, connection) in self.connections.iter().enumerate() {
            let error =
                |(field, why): (&str, String)| self.error(connection.fault(index, field, &why));
            let written = connection.to_keying(&rules).map_err(error)?;
            all.extend(self.parts(connection, &written));
        }
        Ok(all)
    }

    /// What counts as authority.
    pub(crate) fn rules(&self) -> dnskeys::Rules {
        dnskeys::Rules {
            require_dnssec: match self.policy.require_dnssec {
                RequireDnssec::Never => dnskeys::RequireDnssec::Never,
                RequireDnssec::Private => dnskeys::RequireDnssec::Private,
                RequireDnssec::Always => dnskeys::RequireDnssec::Always,
            },
            allow_exponent_3: self.policy.allow_exponent_3,
            ..dnskeys::Rules::default()
        }
    }

    /// What the lack of a record of our own means.
    pub(crate) fn own_record(&self) -> keying::OwnRecord {
        match self.policy.own_record {
            OwnRecordKey::Advise => keying::OwnRecord::Advise,
            OwnRecordKey::Require => keying::OwnRecord::Require,
        }
    }

    /// What becomes of peers that prove nothing.
    pub(crate) fn null_auth(&self) -> keying::NullAuth {
        match self.policy.null_auth {
            NullAuth::Never => keying::NullAuth::Never,
            NullAuth::Accept => keying::NullAuth::Accept,
            NullAuth::Call => keying::NullAuth::Call,
        }
    }

    /// What a silent gateway means.
    pub(crate) fn when_advertised(&self) -> WhenAdvertised {
        match self.policy.when_advertised {
            Advertised::Clear => WhenAdvertised::Clear,
            Advertised::Insist => WhenAdvertised::Insist,
        }
    }
}

/// What a running daemon takes from a file that is read anew.
const FOLLOWED: [&str; 8] = [
    "serve",
    "pool",
    "extrude",
    "borrow",
    "connection",
    "group",
    "policy.directory",
    "policy.packetdefault",
];

/// Where a file stops being text.
fn not_utf8(bad: &std::string::FromUtf8Error) -> Error {
    let good = bad.as_bytes().iter().take(bad.utf8_error().valid_up_to());
    let line = good.filter(|octet| **octet == b'\n').count() + 1;
    Error { file: PathBuf::new(), line: Some(line), why: "not UTF-8".to_owned() }
}

/// The key that a line sets, with its table: `policy.require-dnssec`.
fn key_of_line(text: &str, line: usize) -> Option<String> {
    let mut table = String::new();
    for (index, content) in text.lines().enumerate().take(line) {
        let content = content.trim();
        let heading = content.strip_prefix('[').map(|c| c.trim_start_matches('['));
        if let Some(name) = heading.and_then(|c| c.split(']').next()) {
            name.clone_into(&mut table);
        } else if index + 1 == line {
            let key = content.split('=').next()?.trim();
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if key.is_empty() || !key.chars().all(plain) {
                return None;
            }
            return Some(if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") });
        }
    }
    None
}

/// `@NAME` or a bare name, or an address.
fn parse_identity(text: &str) -> Result<ike::Identity, String> {
    if let Ok(addr) = text.parse() {
        return Ok(ike::Identity::Address(addr));
    }
    let name = text.strip_prefix('@').unwrap_or(text);
    match name.parse::<dnskeys::Name>() {
        Ok(name) => Ok(ike::Identity::Fqdn(name.as_str().trim_end_matches('.').to_owned())),
        Err(why) => Err(format!("{text:?} is neither an address nor @NAME: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Config::parse(Path::new("x.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn the_example_is_the_default() {
        // Every key stands in the example with its default, as a comment or in force.
        let config = Config::parse(Path::new("example.toml"), EXAMPLE).unwrap();
        assert_eq!(config, Config::default());
        let bare: String = EXAMPLE
            .lines()
            .map(|line| {
                let shown = line.strip_prefix("# = ").or_else(|| line.strip_prefix("# - "));
                shown.unwrap_or(line)
            })
            .collect::<Vec<_>>()
            .join("\n");
        assert!(Config::parse(Path::new("example.toml"), &bare).is_ok(), "{bare}");
        for key in [
            "key",
            "state-dir",
            "remember-peers",
            "control-socket",
            "interface",
            "identity",
            "listen",
            "backend",
            "encapsulation",
            "mobike",
            "post-quantum",
            "resumption",
            "patience",
            "ike-life",
            "child-life",
            "fragment-size",
            "table",
            "mark",
            "compatibility",
            "retransmissions",
            "own-record",
            "icmp-unreachable",
            "destinations",
            "new-destinations",
            "resolvers",
            "trust-anchors",
            "directory",
            "packetdefault",
            "failure",
            "initiate",
            "require-dnssec",
            "allow-exponent-3",
            "when-advertised",
            "null-auth",
            "subnet",
            "prefixes",
            "to",
            "from",
            "name",
            "gateway",
            "local-address",
            "local-id",
            "remote-id",
            "remote-key",
            "local-subnets",
            "remote-subnets",
            "mode",
            "start",
        ] {
            assert!(EXAMPLE.lines().any(|line| line.contains(&format!("{key} ="))), "{key}");
        }
    }

    #[test]
    fn errors_name_file_line_and_key() {
        let text = error("[node]\nstate-dir = \"/x\"\ncolour = 1\n");
        assert!(text.starts_with("x.toml:3: node.colour: unknown field"), "{text}");
        assert!(!text.contains('\n'));
        let text = error("[policy]\nrequire-dnssec = \"sometimes\"\n");
        assert!(text.starts_with("x.toml:2: policy.require-dnssec: "), "{text}");
        assert!(text.contains("sometimes"), "{text}");
        let text = error("[dns]\nresolvers = [\"one\"]\n");
        assert!(text.starts_with("x.toml:2: dns.resolvers: ") && text.contains("one"), "{text}");
        let text = error("[node]\ninterface = \"far-too-long-a-name\"\n");
        assert!(text.starts_with("x.toml:2: node.interface: "), "{text}");
        for (key, value) in
            [("ike-life", 9), ("child-life", 86_401), ("fragment-size", 575), ("patience", 3601)]
        {
            let text = error(&format!("[ike]\n{key} = {value}\n"));
            assert!(text.starts_with(&format!("x.toml:2: ike.{key}: {value} is not ")), "{text}");
        }
        let text = error("[pool]\nprefixes = [\n  \"10.0.0.0/8\",\n  \"10.0.0.0/16\",\n]\n");
        assert!(text.starts_with("x.toml:4: pool.prefixes: 10.0.0.0/16 overlaps"), "{text}");
        let text = error("[node]\ninterface = \"x\"\n\n\n[policy]\n\nown-record = 7\n");
        assert!(text.starts_with("x.toml:7: policy.own-record: "), "{text}");
        assert!(error("[node\n").starts_with("x.toml:1: "));
    }

    /// What shows only when several parts are put beside each other has a place, too.
    #[test]
    fn errors_between_tables_name_file_line_and_key() {
        let whole = "[pool]\nprefixes = [\"10.9.0.0/16\"]\n\n[[connection]]\nname = \"hq\"\n\
            gateway = \"192.0.2.2\"\nremote-key = \"dns\"\n\n[[serve]]\n\
            subnet = \"10.1.0.0/16\"\n[[serve]]\nsubnet = \"10.2.0.0/16\"\n\n[[extrude]]\n\
            subnet = \"10.3.0.0/16\"\nto = \"hq\"\n\n[[borrow]]\nsubnet = \"10.4.0.0/16\"\n\
            from = \"hq\"\n\n[[group]]\nname = \"lan\"\nfailure = \"drop\"\n";
        Config::parse(Path::new("x.toml"), whole).unwrap();
        for (from, to, at) in [
            ("10.2.0.0/16", "0.0.0.0/0", "x.toml:12: serve.subnet: "),
            ("10.2.0.0/16", "10.9.1.0/24", "x.toml:2: pool.prefixes: 10.9.0.0/16 overlaps"),
            ("to = \"hq\"", "to = \"nobody\"", "x.toml:16: extrude.to: no connection"),
            ("from = \"hq\"", "from = \"nobody\"", "x.toml:20: borrow.from: no connection"),
            ("10.3.0.0/16", "::/0", "x.toml:15: extrude.subnet: nobody"),
            ("10.4.0.0/16", "0.0.0.0/0", "x.toml:19: borrow.subnet: nobody"),
            ("gateway = \"192.0.2.2\"", "", "x.toml:4: connection hq: gateway: missing"),
            ("remote-key = \"dns\"", "", "x.toml:4: connection hq: remote-key: missing"),
            ("\"dns\"", "\"dns\"\nmode = \"transport\"", "x.toml:8: connection hq: mode: "),
            (
                "\"dns\"",
                "\"dns\"\nlocal-subnets = [\"10.5.0.0/16\"]\nremote-subnets = [\"2001:db8::/32\"]",
                "x.toml:9: connection hq: remote-subnets: no subnet of a family",
            ),
            ("failure", "initiate = false\nfailure", "x.toml:25: group.failure: "),
            ("\"lan\"", "\"clear\"", "x.toml:23: group.name: "),
            ("[pool]", "node.backend = \"xfrm\"\n[pool]", "x.toml:5: connection: needs"),
        ] {
            let said = error(&whole.replacen(from, to, 1));
            assert!(said.starts_with(at), "{from}: {said}");
        }
    }

    /// What is wrong with the machine rather than with the file is said with its place as well.
    #[test]
    fn errors_of_the_start_are_located() {
        let file = "[node]\nkey = \"/nowhere\"\n";
        let config = Config::parse(Path::new("node.toml"), file).unwrap();
        let located = |why: &str| config.located(anyhow::Error::msg(why.to_owned())).to_string();
        assert_eq!(located("node.key: /nowhere: gone"), "node.toml:2: node.key: /nowhere: gone");
        for why in ["node.listen: in use", "no memory", "node.toml:1: node.key: it is bad"] {
            assert_eq!(located(why), why, "nothing to add");
        }
    }

    #[test]
    fn connections_say_what_they_lack() {
        let whole = "[[connection]]\nname = \"office\"\ngateway = \"192.0.2.2\"\n\
            remote-key = \"dns\"\nlocal-subnets = [\"10.1.0.0/16\"]\n\
            remote-subnets = [\"10.2.0.0/16\"]\n";
        let config = Config::parse(Path::new("x"), whole).unwrap();
        assert_eq!(config.connections().unwrap()[0].gateways.len(), 1);
        assert!(
            error(&whole.replace("10.2.0.0/16", "10.2.0.0/33"))
                .starts_with("x.toml:6: connection.remote-subnets: ")
        );
        for (without, names) in [
            ("remote-key", "connection office: remote-key: missing"),
            ("gateway", "connection office: gateway: missing"),
        ] {
            let text: String =
                whole.lines().filter(|l| !l.starts_with(without)).flat_map(|l| [l, "\n"]).collect();
            assert!(error(&text).contains(names), "{}", error(&text));
        }
        let both = error(&format!("{whole}psk-file = \"/x\"\n"));
        assert!(both.contains("connection office: psk-file: one of"), "{both}");
        let secret = whole.replace("remote-key = \"dns\"", "psk-file = \"/nowhere/psk\"");
        let config = Config::parse(Path::new("x"), &secret).unwrap();
        let lost = config.connections().unwrap_err().to_string();
        assert!(lost.starts_with("x:4: connection office: psk-file: /nowhere/psk: "), "{lost}");
        let two = error(&format!("{whole}{whole}"));
        assert!(two.starts_with("x.toml:8: connection office: name: there are two"), "{two}");
        let other = error(&whole.replace("10.2.0.0/16", "2001:db8::/32"));
        assert!(other.contains("office: remote-subnets: no subnet of a family"), "{other}");
        let weird = error(&whole.replace("[[", "[node]\nbackend = \"xfrm\"\n[["));
        assert!(weird.contains("userspace"), "{weird}");
    }

    /// Transport mode is between the two ends themselves, and says so.
    #[test]
    fn transport_mode_is_between_two_hosts() {
        let whole = "[[connection]]\nname = \"db\"\ngateway = \"192.0.2.2\"\n\
            remote-key = \"dns\"\nlocal-subnets = [\"192.0.2.1\"]\n\
            remote-subnets = [\"192.0.2.2\"]\nmode = \"transport\"\n";
        let config = Config::parse(Path::new("x"), whole).unwrap();
        assert_eq!(config.connections().unwrap()[0].mode, sa::Mode::Transport);
        for (from, to, field) in [
            ("[\"192.0.2.1\"]", "[\"192.0.2.0/24\"]", "local-subnets"),
            ("[\"192.0.2.1\"]", "[\"192.0.2.1\", \"192.0.2.3\"]", "local-subnets"),
            ("[\"192.0.2.2\"]", "[\"192.0.2.3\"]", "remote-subnets"),
            ("[\"192.0.2.2\"]", "[\"192.0.2.2\", \"192.0.2.4\"]", "remote-subnets"),
            (
                "\"192.0.2.2\"\nremote-key",
                "[\"192.0.2.2\", \"192.0.2.3\"]\nremote-key",
                "remote-subnets",
            ),
            ("mode", "local-address = \"192.0.2.9\"\nmode", "local-address"),
        ] {
            let said = error(&whole.replacen(from, to, 1));
            assert!(said.contains(&format!("connection db: {field}: ")), "{from}: {said}");
        }
    }

    #[test]
    fn what_a_reload_cannot_follow_is_named() {
        let parse = |text: &str| Config::parse(Path::new("x"), text).unwrap();
        let whole = "[[connection]]\nname = \"office\"\ngateway = \"192.0.2.2\"\n\
            remote-key = \"dns\"\nlocal-subnets = [\"10.1.0.0/16\"]\n\
            remote-subnets = [\"10.2.0.0/16\"]\n";
        let old = parse(&format!("[node]\nmark = 7\n[policy]\npacketdefault = \"clear\"\n{whole}"));
        let new = parse(
            "[node]\nmark = 8\nlisten = [\"192.0.2.1\"]\n[ike]\nmobike = \"off\"\n\
             [policy]\npacketdefault = \"private\"\nrequire-dnssec = \"always\"\n\
             [[serve]]\nsubnet = \"10.5.0.0/16\"\n",
        );
        let keys = ["ike.mobike", "node.listen", "node.mark", "policy.require-dnssec"];
        assert_eq!(old.restart_for(&new), keys);
        assert_eq!(new.restart_for(&old), keys);
        assert!(
            old.restart_for(&parse("[node]\nmark = 7\n[[serve]]\nsubnet = \"10.5.0.0/16\"\n"))
                .is_empty()
        );
        let followed = old.following(&new).unwrap();
        assert_eq!(
            (followed.node.mark, followed.policy.require_dnssec),
            (7, RequireDnssec::Private)
        );
        assert_eq!((followed.serve.len(), followed.connections.len()), (1, 0));
        assert_eq!(followed.policy.packetdefault, new.policy.packetdefault);
        // What the file allows need not be allowed by what stands.
        let xfrm = parse("[node]\nbackend = \"xfrm\"\n");
        let error = xfrm.following(&old).unwrap_err().to_string();
        assert_eq!(error, "x:5: connection: needs node.backend = \"userspace\"");
    }

    #[test]
    fn what_is_no_text_is_placed() {
        let file = std::env::temp_dir().join(format!("oe-not-utf8-{}.toml", std::process::id()));
        std::fs::write(&file, b"\xef\xbb\xbf[node]\r\nmark = 7\r\n").unwrap();
        assert_eq!(Config::load(Some(&file)).unwrap().node.mark, 7, "a byte-order mark, CRLF");
        std::fs::write(&file, b"[node]\n# f\xfcr alle\n").unwrap();
        let error = Config::load(Some(&file)).unwrap_err().to_string();
        assert!(error.ends_with(".toml:2: not UTF-8"), "{error}");
        std::fs::remove_file(&file).unwrap();
    }

    #[test]
    fn resolvers_may_name_a_port() {
        let text = "[dns]\nresolvers = [\"192.0.2.53\", \"192.0.2.53:5353\", \"2001:db8::53\"]\n";
        let config = Config::parse(Path::new("x"), text).unwrap();
        let ports: Vec<u16> = config.dns.resolvers.iter().map(|r| r.0.port()).collect();
        assert_eq!(ports, [53, 5353, 53]);
    }
}
