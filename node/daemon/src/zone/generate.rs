//! `oe-node zone generate`: records for prefixes and customer lists.

mod output;

use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::bail;
use dnskeys::{Gateway, RsaKey};
use zonefiles::gateway::{HostFault, faults};
use zonefiles::generate::{Format, NameTemplate, Server, Stamp};
use zonefiles::{Apex, ClasslessName, Host, Kinds, Name, Prefix, Record, ReverseZone};

use super::list::{Customer, Defaults, List, MAX_TTL, RowError, parse_gateway, read_key};
use output::Output;

/// Arguments of `oe-node zone generate`.
#[derive(clap::Args)]
#[command(
    group = clap::ArgGroup::new("whom").required(true).multiple(true),
    after_help = "Exit status: 0 all written, 1 something was wrong and is not written (nothing at \
                  all without --keep-going), 2 wrong options."
)]
pub(crate) struct Args {
    /// Every address of this prefix, or with --hosts the prefix that they must lie in.
    #[arg(long, value_name = "PREFIX", group = "whom")]
    prefix: Vec<Prefix>,
    /// Customer list: CSV, JSON (.json, one object to a line) or TOML (.toml, `[[host]]`), with
    /// address, name, gateway, key, precedence, extruded-to, ttl. - is CSV on standard input.
    #[arg(long, value_name = "FILE", group = "whom")]
    hosts: Option<PathBuf>,
    /// Who speaks for the hosts: an address, @FQDN, or self for hosts that are their own gateway.
    #[arg(long, value_name = "GW", default_value = "self", value_parser = parse_gateway)]
    gateway: Gateway,
    /// The gateway's RSA key, PEM, private or public.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Lower is tried first.
    #[arg(long, value_name = "N", default_value_t = 10)]
    precedence: u16,
    /// Names for PTR records: {dashed} is 192-0-2-11, {hex} c000020b, {1} to {4} the octets.
    #[arg(long, value_name = "TEMPLATE")]
    name: Option<NameTemplate>,
    /// Record types for each host.
    #[arg(long, value_name = "TYPES", value_delimiter = ',', default_value = "ptr,txt,ipseckey")]
    records: Vec<Kind>,
    /// Seconds that the records may be cached.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = seconds())]
    ttl: u32,
    /// Who reads the output.
    #[arg(long, value_enum, default_value_t = Reads::Bind)]
    format: Reads,
    /// Name server of the zone, the primary first.
    #[arg(long, value_name = "NAME")]
    ns: Vec<Name>,
    /// Mailbox of who is responsible, as a name.
    #[arg(long, value_name = "NAME", default_value = "hostmaster.invalid.")]
    mailbox: Name,
    /// Serial of the SOA; default: the seconds since 1970.
    #[arg(long)]
    serial: Option<u32>,
    /// Seconds that "there is no record" may be cached (SOA MINIMUM).
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = seconds())]
    minimum: u32,
    /// No SOA and NS: records to $INCLUDE in a zone that is there already.
    #[arg(long)]
    fragment: bool,
    /// One wildcard for each zone instead of a record for each address.
    #[arg(long, conflicts_with = "hosts")]
    wildcard: bool,
    /// Label of an IPv4 zone smaller than /24 (RFC 2317); none writes into the /24's zone.
    #[arg(long, value_enum, default_value_t = Classless::Slash)]
    classless: Classless,
    /// Also write what the parent zone needs: NS, and CNAMEs into RFC 2317 zones.
    #[arg(long, value_name = "FILE")]
    delegation: Option<PathBuf>,
    /// Also write address, TXT and IPSECKEY records at the hosts' names: for hosts that call under
    /// their name (RFC 4322 §5.3), and for peers that look keys up by name.
    #[arg(long, value_name = "FILE")]
    forward: Option<PathBuf>,
    /// Write to a file; it appears when it is complete.
    #[arg(short, long, value_name = "FILE", conflicts_with = "output_dir")]
    output: Option<PathBuf>,
    /// Write each zone to a file of its own.
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
    /// Leave out what is wrong and write the rest; the exit status is 1 all the same.
    #[arg(long)]
    keep_going: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    Ptr,
    Txt,
    Ipseckey,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Reads {
    /// Master file.
    Bind,
    /// Master file.
    Nsd,
    /// Master file.
    Knot,
    /// JSON rows of the table `records`, one object for each zone.
    Powerdns,
    /// A script for nsupdate.
    Nsupdate,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Classless {
    /// 96/28
    Slash,
    /// 96-28
    Dash,
    /// 96-111
    Range,
    /// Records go into the /24's zone.
    None,
}

/// What a TTL may be.
fn seconds() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(..=i64::from(MAX_TTL))
}

/// Runs the command.
pub(crate) fn main(args: &Args) -> ExitCode {
    match Job::new(args).and_then(Job::run) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(problems) => {
            say(&format!("{problems} problem{}", if problems == 1 { "" } else { "s" }));
            ExitCode::FAILURE
        }
        Err(error) => super::fail_unless_unread("generate", &error),
    }
}

struct Job<'a> {
    args: &'a Args,
    kinds: Kinds,
    format: Format,
    defaults: Defaults,
    apex: Apex,
    style: ClasslessName,
    output: Output,
    problems: u64,
    warned: u64,
    stamped: Option<(Stamped, Arc<Stamp>)>,
}

/// For whom the stamp made last is good.
#[derive(PartialEq, Eq)]
struct Stamped {
    gateway: Gateway,
    key: Option<Arc<RsaKey>>,
    precedence: u16,
    ttl: u32,
    named: bool,
}

impl<'a> Job<'a> {
    fn new(args: &'a Args) -> anyhow::Result<Self> {
        let format = args.format.format();
        let wanted = |kind| args.records.contains(&kind);
        let kinds = Kinds {
            ptr: wanted(Kind::Ptr),
            txt: wanted(Kind::Txt),
            ipseckey: wanted(Kind::Ipseckey),
        };
        let key = args.key_file.as_deref().map(read_key).transpose()?;
        if args.hosts.is_none() && key.is_none() {
            if args.gateway != Gateway::Own {
                bail!("--gateway needs --key-file: old peers crash on a record without a key");
            }
            if args.name.is_none() {
                bail!("nothing to write: give --key-file, --name or --hosts");
            }
        }
        let whole = !args.fragment && !matches!(format, Format::Nsupdate);
        if whole && args.ns.is_empty() {
            bail!("a whole zone needs --ns NAME; or write a --fragment to $INCLUDE");
        }
        let style = match args.classless {
            Classless::Slash | Classless::None => ClasslessName::Slash,
            Classless::Dash => ClasslessName::Dash,
            Classless::Range => ClasslessName::Range,
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let apex = Apex {
            servers: args.ns.clone(),
            mailbox: args.mailbox.clone(),
            serial: args.serial.unwrap_or_else(|| u32::try_from(now).unwrap_or(u32::MAX)),
            ttl: args.ttl,
            minimum: args.minimum,
        };
        let defaults = Defaults {
            name: args.name.clone(),
            gateway: args.gateway.clone(),
            key,
            precedence: args.precedence,
        };
        let output = Output::new(
            format,
            whole.then(|| apex.clone()),
            args.output.as_deref(),
            args.output_dir.as_deref(),
            args.forward.as_deref(),
        )?;
        let (problems, warned, stamped) = (0, 0, None);
        Ok(Self { args, kinds, format, defaults, apex, style, output, problems, warned, stamped })
    }

    /// The number of problems.
    fn run(mut self) -> anyhow::Result<u64> {
        match &self.args.hosts {
            Some(path) => self.list(List::open(path)?)?,
            None => self.prefixes()?,
        }
        if let Some(path) = &self.args.delegation {
            let mut text = Vec::new();
            for zone in self.args.prefix.iter().flat_map(|prefix| self.zones(*prefix)) {
                for record in zone.in_parent(&self.apex) {
                    writeln!(text, "{record}")?;
                }
            }
            output::write_whole(path, &text)?;
        }
        self.output.finish()?;
        Ok(self.problems)
    }

    fn prefixes(&mut self) -> anyhow::Result<()> {
        for prefix in &self.args.prefix {
            let customer = Customer {
                line: 0,
                column: 0,
                prefix: *prefix,
                name: self.defaults.name.clone(),
                gateway: self.defaults.gateway.clone(),
                key: self.defaults.key.clone(),
                precedence: self.defaults.precedence,
                ttl: None,
            };
            if self.report("", &customer)? {
                continue;
            }
            if self.args.wildcard {
                self.wildcards(&customer)?;
            } else if prefix.count() > MAX_HOSTS {
                bail!("{prefix} has more than {MAX_HOSTS} addresses: use --wildcard or --hosts");
            } else {
                self.hosts(&customer)?;
            }
        }
        Ok(())
    }

    fn list(&mut self, mut list: List) -> anyhow::Result<()> {
        let mut rows = 0_u64;
        while let Some(row) = list.next(&self.defaults) {
            rows += 1;
            let customer = match row {
                Ok(customer) => customer,
                Err(error) => {
                    self.problem(list.name(), &error)?;
                    continue;
                }
            };
            if self.report(list.name(), &customer)? {
                continue;
            }
            let what = if customer.prefix.count() > MAX_HOSTS {
                format!("prefix with more than {MAX_HOSTS} addresses")
            } else if customer.key.is_none() && customer.name.is_none() {
                "neither key nor name: nothing to publish".to_owned()
            } else {
                self.hosts(&customer)?;
                continue;
            };
            let Customer { line, column, .. } = customer;
            self.problem(list.name(), &RowError { line, column, what })?;
        }
        if rows == 0 {
            // Most likely whatever writes the list has failed, and what stands is better than nothing.
            bail!("{}: no host in it (nothing written)", list.name());
        }
        Ok(())
    }

    /// Every address of a customer's prefix.
    fn hosts(&mut self, customer: &Customer) -> anyhow::Result<()> {
        let ttl = customer.ttl.unwrap_or(self.args.ttl);
        let stamp = self.stamp(customer, ttl);
        let mut zone: Option<ReverseZone> = None;
        for address in customer.prefix.addresses() {
            if !zone.as_ref().is_some_and(|zone| zone.prefix.contains(address)) {
                let entered = self.zone_of(address);
                self.output.enter(&entered)?;
                zone = Some(entered);
            }
            let Some(zone) = &zone else { continue };
            self.output.host(zone, address, &stamp, customer.name.as_ref())?;
            if self.args.forward.is_some() {
                for record in self.forward_records(customer, address, ttl) {
                    self.output.forward(&record)?;
                }
            }
        }
        Ok(())
    }

    fn wildcards(&mut self, customer: &Customer) -> anyhow::Result<()> {
        if self.kinds.txt && customer.gateway == Gateway::Own && customer.key.is_some() {
            bail!(
                "--wildcard: X-IPsec-Server cannot say \"the host itself\": give --gateway, or \
                 --records ptr,ipseckey"
            );
        }
        let zones: Vec<ReverseZone> = self.zones(customer.prefix).take(MAX_ZONES).collect();
        for zone in zones {
            self.output.enter(&zone)?;
            let owner = zone.origin.prepend(b"*")?;
            let name = customer.name.as_ref().filter(|name| !name.varies());
            let host = self.host(customer, customer.prefix.address(), name);
            for record in host.records(&owner, self.args.ttl, self.kinds) {
                self.output.record(&record)?;
            }
        }
        Ok(())
    }

    fn host(&self, customer: &Customer, address: IpAddr, name: Option<&NameTemplate>) -> Host {
        Host {
            address,
            name: name.map(|name| name.name(address)),
            gateway: customer.gateway.clone(),
            key: customer.key.as_deref().cloned(),
            precedence: customer.precedence,
        }
    }

    /// What is found at a host's name, for those who look keys up by name.
    fn forward_records(&self, customer: &Customer, address: IpAddr, ttl: u32) -> Vec<Record> {
        let host = self.host(customer, address, customer.name.as_ref());
        let Some(name) = host.name.clone() else { return Vec::new() };
        let mut records = vec![Record::address(name.clone(), ttl, address)];
        let identity = name.to_string().parse::<dnskeys::Name>();
        // Who is behind another's gateway has no key of its own to be recognised by.
        if let (Ok(identity), Gateway::Own, Some(_)) = (identity, &host.gateway, &host.key) {
            if self.kinds.txt {
                let by_name = Host { gateway: Gateway::Name(identity), ..host.clone() };
                records.push(Record::x_ipsec_server(name.clone(), ttl, &by_name.server_txt()));
            }
            if self.kinds.ipseckey {
                records.push(Record::ipseckey(name, ttl, &host.ipseckey()));
            }
        }
        records
    }

    fn stamp(&mut self, customer: &Customer, ttl: u32) -> Arc<Stamp> {
        let wanted = Stamped {
            gateway: customer.gateway.clone(),
            key: customer.key.clone(),
            precedence: customer.precedence,
            ttl,
            named: customer.name.is_some(),
        };
        if let Some((made, stamp)) = &self.stamped
            && *made == wanted
        {
            return Arc::clone(stamp);
        }
        let Stamped { gateway, key, precedence, named, .. } = &wanted;
        let key = key.as_deref();
        let stamp = Stamp::new(gateway, key, *precedence, ttl, self.kinds, *named, self.format);
        let stamp = Arc::new(stamp);
        self.stamped = Some((wanted, Arc::clone(&stamp)));
        stamp
    }

    fn zones(&self, prefix: Prefix) -> Box<dyn Iterator<Item = ReverseZone>> {
        let small = prefix.address().is_ipv4() && prefix.prefix_len() > 24;
        if small && self.args.classless == Classless::None {
            return Box::new(std::iter::once(ReverseZone::around(prefix)));
        }
        Box::new(ReverseZone::of(prefix, self.style))
    }

    fn zone_of(&self, address: IpAddr) -> ReverseZone {
        let given = self.args.prefix.iter().find(|prefix| prefix.contains(address));
        let prefix = match given {
            Some(prefix) if self.args.classless == Classless::None && address.is_ipv4() => {
                Prefix::around(address, prefix.prefix_len().min(24))
            }
            Some(prefix) => *prefix,
            None => Prefix::around(address, if address.is_ipv4() { 24 } else { 64 }),
        };
        ReverseZone::holding(address, prefix, self.style)
            .unwrap_or_else(|| ReverseZone::around(prefix))
    }

    /// Says what is wrong with a customer; true if nothing is to be written for it.
    fn report(&mut self, list: &str, customer: &Customer) -> anyhow::Result<bool> {
        let mut found: Vec<HostFault> = Vec::new();
        for address in [customer.prefix.address(), customer.prefix.last()] {
            for fault in faults(&self.host(customer, address, None), &self.args.prefix) {
                if !found.contains(&fault) {
                    found.push(fault);
                }
            }
        }
        let mut fatal = false;
        let Customer { line, column, .. } = *customer;
        for fault in found {
            let error = RowError { line, column, what: format!("{}: {fault}", customer.prefix) };
            if fault.is_fatal() {
                fatal = true;
                self.problem(list, &error)?;
            } else {
                self.warned += 1;
                match self.warned {
                    ..=MAX_WARNINGS => {
                        say(&format!("{}warning: {}", error.place(list), error.what))
                    }
                    n if n == MAX_WARNINGS + 1 => say("more warnings are not shown"),
                    _ => {}
                }
            }
        }
        Ok(fatal)
    }

    fn problem(&mut self, list: &str, error: &RowError) -> anyhow::Result<()> {
        self.problems += 1;
        let text = format!("{}{}", error.place(list), error.what);
        if !self.args.keep_going {
            bail!("{text} (nothing written; --keep-going leaves it out)");
        }
        say(&text);
        Ok(())
    }
}

impl RowError {
    fn place(&self, list: &str) -> String {
        match (list, self.line) {
            ("", _) => String::new(),
            (list, 0) => format!("{list}: "),
            (list, line) => format!("{list}:{line}:{}: ", self.column),
        }
    }
}

impl Reads {
    fn format(self) -> Format {
        match self {
            Self::Bind => Format::Master(Server::Bind),
            Self::Nsd => Format::Master(Server::Nsd),
            Self::Knot => Format::Master(Server::Knot),
            Self::Powerdns => Format::PowerDns,
            Self::Nsupdate => Format::Nsupdate,
        }
    }
}

fn say(text: &str) {
    let _ = writeln!(io::stderr(), "oe-node zone generate: {text}");
}

/// The whole of IPv4. An IPv6 prefix of that size is a mistake.
const MAX_HOSTS: u128 = 1 << 32;
/// More wildcards than a /8 has /24s is a mistake.
const MAX_ZONES: usize = 65_536;
/// A list of a million old keys needs no million lines about them.
const MAX_WARNINGS: u64 = 20;
