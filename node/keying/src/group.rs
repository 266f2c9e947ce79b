//! Policy groups: which class of destinations an address belongs to, by longest prefix
//! (RFC 4322 §1.2, §3.2; the classic files of FreeS/WAN).

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use dnskeys::Strictness;
use sa::{Class, Ports, Prefix, PrefixError};

/// The five classic groups.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Group {
    /// Encrypted or not at all (RFC 4322's OE-paranoid).
    Private,
    /// Encrypted if possible, in the clear otherwise (OE-permissive).
    PrivateOrClear,
    /// In the clear unless the peer asks for encryption; never asks itself.
    ClearOrPrivate,
    /// Always in the clear; refuses to negotiate.
    Clear,
    /// Never at all.
    Block,
}

impl Group {
    /// All of them, in the order in which their files are read.
    pub const ALL: [Self; 5] =
        [Self::Private, Self::PrivateOrClear, Self::ClearOrPrivate, Self::Clear, Self::Block];

    /// The classic name, which is also the file's.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::PrivateOrClear => "private-or-clear",
            Self::ClearOrPrivate => "clear-or-private",
            Self::Clear => "clear",
            Self::Block => "block",
        }
    }

    /// Whether a packet to such a destination makes us call.
    #[must_use]
    pub fn initiates(self) -> bool {
        matches!(self, Self::Private | Self::PrivateOrClear)
    }

    /// Whether such a peer may call us.
    #[must_use]
    pub fn accepts(self) -> bool {
        !matches!(self, Self::Clear | Self::Block)
    }

    /// Whether its destinations get nothing in the clear from us, whatever fails.
    #[must_use]
    pub fn closes(self) -> bool {
        matches!(self, Self::Private | Self::Block)
    }

    /// Whether failure means clear text or nothing.
    #[must_use]
    pub fn strictness(self) -> Strictness {
        match self {
            Self::Private | Self::Block => Strictness::Paranoid,
            Self::PrivateOrClear | Self::ClearOrPrivate | Self::Clear => Strictness::Permissive,
        }
    }

    /// What the data plane does with packets of which it knows no more than the group.
    #[must_use]
    pub fn class(self) -> Class {
        match self {
            Self::Private => Class::Trap { fail_closed: true },
            Self::PrivateOrClear => Class::Trap { fail_closed: false },
            Self::ClearOrPrivate | Self::Clear => Class::Pass,
            Self::Block => Class::Block,
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which prefixes belong to which group.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Groups {
    entries: BTreeMap<(Prefix, Ports), Listed>,
    /// Lengths of the prefixes there are, of IPv4 and of IPv6: every event of a flow asks for its rule,
    /// and few of 33 or 129 lengths have any.
    lengths: [BTreeSet<u8>; 2],
    files: Vec<File>,
}

/// A file that lists what belongs to a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct File {
    /// The group's own name: a classic one, or one that the administrator gave it.
    pub name: String,
    /// Where it lies, as the administrator wrote it.
    pub path: String,
}

/// A prefix's place in the group files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listed {
    /// The group it belongs to.
    pub group: Group,
    /// The file that says so, see [`Groups::file`]; `None` if none does.
    pub file: Option<usize>,
    /// The line of it; `None` if no file does.
    pub line: Option<usize>,
}

/// A line of a group file that cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LineError {
    /// Counted from 1.
    pub line: usize,
    /// What was expected.
    pub why: String,
}

/// A line that can be used, and does not say what it seems to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Warning {
    /// Counted from 1.
    pub line: usize,
    /// What is made of it.
    pub what: String,
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

impl std::error::Error for LineError {}

impl Groups {
    /// No prefix in any group.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The *packetdefault* host: private-or-clear to everywhere.
    #[must_use]
    pub fn packetdefault() -> Self {
        let mut groups = Self::new();
        groups.set_default(Group::PrivateOrClear);
        groups
    }

    /// What no file covers belongs to this group.
    pub fn set_default(&mut self, group: Group) {
        self.insert(Prefix::ALL_V4, group);
        self.insert(Prefix::ALL_V6, group);
    }

    /// Puts a prefix into a group. A prefix belongs to one group only: an earlier one is kept and
    /// returned (the first file read wins, as with the classic implementations).
    pub fn insert(&mut self, prefix: Prefix, group: Group) -> Option<Group> {
        self.insert_ports(prefix, Ports::ANY, group)
    }

    /// As [`Self::insert`], for single ports of a prefix.
    pub fn insert_ports(&mut self, prefix: Prefix, ports: Ports, group: Group) -> Option<Group> {
        self.list(prefix, ports, Listed { group, file: None, line: None }).map(|held| held.group)
    }

    fn list(&mut self, prefix: Prefix, ports: Ports, listed: Listed) -> Option<Listed> {
        self.note_length(prefix);
        match self.entries.entry((prefix, ports)) {
            Entry::Occupied(held) => Some(*held.get()),
            Entry::Vacant(free) => {
                free.insert(listed);
                None
            }
        }
    }

    /// Reads one classic group file: a prefix or address a line, then protocol, source port and
    /// destination port if it is for single ports (0 is any), `#` comments.
    ///
    /// The files may hold names of hosts, which were looked up when they were read. Here they are
    /// not: whoever answered for such a name would write policy. A line with one is passed over,
    /// with a warning, where what it names can only be treated more strictly for it than the file
    /// says or as clear as the file allows; in a group that closes, it is an error.
    ///
    /// # Errors
    /// The first bad line; nothing of the file is taken then.
    pub fn read(&mut self, group: Group, text: &str) -> Result<Vec<Warning>, LineError> {
        self.read_file(group, File { name: group.to_string(), path: group.to_string() }, text)
    }

    /// As [`Self::read`], for a group with a name and a file of its own.
    ///
    /// # Errors
    /// The first bad line; nothing of the file is taken then.
    pub fn read_file(
        &mut self,
        group: Group,
        file: File,
        text: &str,
    ) -> Result<Vec<Warning>, LineError> {
        let (mut found, mut warnings) = (Vec::new(), Vec::new());
        // A byte-order mark is what some editors put in front.
        for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let line = (index + 1, line.split('#').next().unwrap_or_default());
            let (number, words) = line;
            if let Some(name) = name_in(words).filter(|_| !group.closes()) {
                let what = format!("{name}: names are not looked up; passed over");
                warnings.push(Warning { line: number, what });
                continue;
            }
            let rule = read_line(words).map_err(|why| LineError { line: number, why })?;
            if let Some((prefix, ports, host_bits)) = rule {
                if host_bits {
                    let what = format!("host bits are set; taken as {prefix}");
                    warnings.push(Warning { line: number, what });
                }
                found.push((number, prefix, ports));
            }
        }
        self.files.push(file);
        let file = Some(self.files.len() - 1);
        for (number, prefix, ports) in found {
            let listed = Listed { group, file, line: Some(number) };
            if let Some(held) = self.list(prefix, ports, listed) {
                let what = format!("{prefix} already belongs to {}", self.place(held));
                warnings.push(Warning { line: number, what });
            }
        }
        Ok(warnings)
    }

    /// Puts a prefix of the pool into group `private`, whatever lies around it: what is for one of its
    /// addresses goes to who has it, or nowhere.
    ///
    /// # Errors
    /// Says which entry is about the same addresses or some of them.
    pub fn set_pool(&mut self, prefix: Prefix) -> Result<(), String> {
        let inside = self.entries.iter().find(|((listed, _), _)| prefix.covers(listed));
        if let Some(((listed, _), entry)) = inside {
            return Err(format!("{prefix} overlaps {listed} of {}", self.place(*entry)));
        }
        let name = |file: &File| file.name == POOL;
        let file = self.files.iter().position(name).unwrap_or_else(|| {
            self.files.push(File { name: POOL.to_owned(), path: POOL.to_owned() });
            self.files.len() - 1
        });
        let listed = Listed { group: Group::Private, file: Some(file), line: None };
        self.note_length(prefix);
        self.entries.insert((prefix, Ports::ANY), listed);
        Ok(())
    }

    fn note_length(&mut self, prefix: Prefix) {
        let [v4, v6] = &mut self.lengths;
        let lengths = if prefix.addr().is_ipv4() { v4 } else { v6 };
        lengths.insert(prefix.len());
    }

    /// A file by its number.
    #[must_use]
    pub fn file(&self, number: usize) -> Option<&File> {
        self.files.get(number)
    }

    /// The name of the group that an entry is in.
    #[must_use]
    pub fn name_of(&self, listed: Listed) -> &str {
        let file = listed.file.and_then(|number| self.file(number));
        file.map_or_else(|| listed.group.name(), |file| &file.name)
    }

    /// The group and place of an entry, for people.
    fn place(&self, listed: Listed) -> String {
        let name = self.name_of(listed);
        match (listed.file.and_then(|number| self.file(number)), listed.line) {
            (Some(file), Some(line)) => format!("group {name} ({}:{line})", file.path),
            _ => format!("group {name}"),
        }
    }

    /// The group of an address whatever the ports, and the prefix that decided; `None` if no
    /// prefix covers it.
    #[must_use]
    pub fn lookup(&self, addr: IpAddr) -> Option<(Prefix, Group)> {
        self.listed(addr).map(|(prefix, listed)| (prefix, listed.group))
    }

    /// As [`Self::lookup`], with the place in the files.
    #[must_use]
    pub fn listed(&self, addr: IpAddr) -> Option<(Prefix, Listed)> {
        self.rule(addr, Ports::ANY).map(|(prefix, _, listed)| (prefix, listed))
    }

    /// The rule for these ports of an address: of the longest prefix that has one the most precise.
    #[must_use]
    pub fn rule(&self, addr: IpAddr, ports: Ports) -> Option<(Prefix, Ports, Listed)> {
        let [v4, v6] = &self.lengths;
        let lengths = if addr.is_ipv4() { v4 } else { v6 };
        let any = [Ports::ANY];
        let all = ports.wider();
        let wider: &[Ports] = if ports.is_any() { &any } else { &all };
        lengths.iter().rev().find_map(|len| {
            let prefix = Prefix::new(addr, *len).ok()?;
            wider.iter().find_map(|wider| {
                let listed = self.entries.get(&(prefix, *wider))?;
                Some((prefix, *wider, *listed))
            })
        })
    }

    /// The rules for single ports that an address may fall under, the most decisive first.
    pub fn port_rules(&self, addr: IpAddr) -> impl Iterator<Item = (Prefix, Ports, Listed)> {
        let longest = Prefix::host(addr).len();
        // A rule under a longer prefix that is for all ports never decides.
        let plain = self.listed(addr).map_or(0, |(prefix, _)| prefix.len());
        (plain..=longest).rev().filter_map(move |len| Prefix::new(addr, len).ok()).flat_map(
            move |prefix| {
                let of_prefix = (prefix, Ports::ANY)..=(prefix, Ports::MAX);
                let mut rules: Vec<_> = self
                    .entries
                    .range(of_prefix)
                    .filter(|((_, ports), _)| !ports.is_any())
                    .map(|((prefix, ports), listed)| (*prefix, *ports, *listed))
                    .collect();
                rules.sort_by_key(|(_, ports, _)| std::cmp::Reverse(ports.rank()));
                rules
            },
        )
    }

    /// Whether any rule is for single ports.
    #[must_use]
    pub fn minds_ports(&self) -> Option<Listed> {
        self.entries.iter().find(|((_, ports), _)| !ports.is_any()).map(|(_, listed)| *listed)
    }

    /// Every prefix with its group; rules for single ports are left out.
    pub fn iter(&self) -> impl Iterator<Item = (Prefix, Group)> {
        self.rules()
            .filter(|(_, ports, _)| ports.is_any())
            .map(|(prefix, _, group)| (prefix, group))
    }

    /// Every prefix, the ports of it, and their group.
    pub fn rules(&self) -> impl Iterator<Item = (Prefix, Ports, Group)> {
        self.entries.iter().map(|((prefix, ports), listed)| (*prefix, *ports, listed.group))
    }
}

/// One line of a group file without its comment: prefix, ports, and whether host bits were set.
fn read_line(line: &str) -> Result<Option<(Prefix, Ports, bool)>, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let Some(word) = words.first() else { return Ok(None) };
    let prefix: Prefix = word.parse().map_err(|why: PrefixError| match name_in(line) {
        Some(name) => format!(
            "{name}: names are not looked up, and what it names would be open without this line; \
             write the address"
        ),
        None => format!("{}: {why}", word.escape_default()),
    })?;
    let address = word.split('/').next().and_then(|addr| addr.parse::<IpAddr>().ok());
    let host_bits = address.is_some_and(|addr| addr != prefix.addr());
    let ports = match words.as_slice() {
        [_] => Ports::ANY,
        [_, protocol, source, destination] => read_ports(protocol, source, destination)?,
        _ => {
            return Err("expected PREFIX, or PREFIX PROTOCOL SOURCE-PORT DESTINATION-PORT, the \
                        ports as numbers, 0 for any"
                .to_owned());
        }
    };
    Ok(Some((prefix, ports, host_bits)))
}

/// The name of a host where a line should have an address.
fn name_in(line: &str) -> Option<&str> {
    let word = line.split_whitespace().next()?;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let name = word.contains(|c: char| c.is_ascii_alphabetic()) && word.chars().all(fits);
    (name && word.parse::<Prefix>() == Err(PrefixError::Address)).then_some(word)
}

fn read_ports(protocol: &str, source: &str, destination: &str) -> Result<Ports, String> {
    let shown = protocol.escape_default();
    let named = PROTOCOLS.iter().find(|(name, _)| *name == protocol).map(|(_, number)| *number);
    let protocol: u8 = match named {
        Some(number) => number,
        None => {
            protocol.parse().map_err(|_| format!("{shown}: not a protocol number (1 to 255)"))?
        }
    };
    if matches!(protocol, 0 | ESP | AH) {
        return Err(format!("{protocol}: no protocol that a rule can be for"));
    }
    let port = |word: &str| {
        word.parse::<u16>()
            .map_err(|_| format!("{}: not a port number (0 to 65535)", word.escape_default()))
    };
    let (source, destination) = (port(source)?, port(destination)?);
    Ports::new(protocol, source, destination)
        .ok_or_else(|| format!("protocol {protocol} has no ports: write 0 0"))
}

/// What the pool is called among the groups.
const POOL: &str = "pool";
/// Protocols that classic files name, for instance in their own examples.
const PROTOCOLS: [(&str, u8); 6] =
    [("icmp", 1), ("tcp", 6), ("udp", 17), ("ipv6-icmp", 58), ("icmpv6", 58), ("sctp", 132)];
const ESP: u8 = 50;
const AH: u8 = 51;

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(s: &str) -> IpAddr {
        s.parse().unwrap()
    }

    /// Rules 1, 3, 4.
    #[test]
    fn longest_prefix_decides() {
        let mut groups = Groups::packetdefault();
        groups.read(Group::Private, "192.0.2.0/24 # the office\n\n2001:db8::/32\n").unwrap();
        groups.read(Group::Clear, "192.0.2.7\n").unwrap();
        let group = |addr| groups.lookup(ip(addr)).map(|(_, group)| group);
        assert_eq!(group("192.0.2.8"), Some(Group::Private));
        assert_eq!(group("192.0.2.7"), Some(Group::Clear));
        assert_eq!(group("198.51.100.1"), Some(Group::PrivateOrClear));
        assert_eq!(group("2001:db8::1"), Some(Group::Private));
        assert_eq!(Groups::new().lookup(ip("192.0.2.7")), None);
    }

    #[test]
    fn bad_lines_are_named_and_nothing_is_taken() {
        let mut groups = Groups::new();
        let error = groups.read(Group::Private, "192.0.2.0/24\n300.0.0.1\n").unwrap_err();
        assert_eq!(error.line, 2);
        assert_eq!(groups, Groups::new());
        groups.read(Group::Private, "192.0.2.0/24").unwrap();
        let warnings = groups.read(Group::Clear, "# x\n192.0.2.0/24").unwrap();
        let said: Vec<(usize, &str)> = warnings.iter().map(|w| (w.line, w.what.as_str())).collect();
        assert_eq!(said, [(2, "192.0.2.0/24 already belongs to group private (private:1)")]);
        assert_eq!(groups.lookup(ip("192.0.2.1")).unwrap().1, Group::Private, "the first wins");
    }

    /// A file as FreeS/WAN and libreswan ship them: long comments, both line ends, host bits,
    /// repetitions, ports.
    #[test]
    fn files_of_the_classic_kind() {
        let text = "# This file lists the CIDRs of nodes with which communication\r\n\
            # should be private if possible, and in the clear otherwise.\r\n#\r\n\r\n\
            # See the documentation for the format.\r\n\
            10.1.2.3/16\t# a whole site\r\n   192.0.2.7   \r\n2001:db8:1::/48\r\n\
            10.1.0.0/16\r\n\
            198.51.100.0/24 tcp 25 0\r\n\
            198.51.100.0/24   6   0   443\r\n198.51.100.0/24 17 5060 0\n0.0.0.0/0";
        let mut groups = Groups::new();
        let warnings = groups.read(Group::PrivateOrClear, text).unwrap();
        let lines: Vec<usize> = warnings.iter().map(|w| w.line).collect();
        assert_eq!(lines, [6, 9], "{warnings:?}");
        assert!(warnings[0].what.contains("10.1.0.0/16"), "{warnings:?}");
        let rules: Vec<String> =
            groups.rules().map(|(prefix, ports, _)| format!("{prefix} {ports}")).collect();
        assert_eq!(
            rules,
            [
                "0.0.0.0/0 0 0 0",
                "10.1.0.0/16 0 0 0",
                "192.0.2.7/32 0 0 0",
                "198.51.100.0/24 6 0 443",
                "198.51.100.0/24 6 25 0",
                "198.51.100.0/24 17 5060 0",
                "2001:db8:1::/48 0 0 0",
            ]
        );
    }

    #[test]
    fn what_libreswan_refuses_is_refused() {
        for (line, words) in [
            ("host.example.net", "names are not looked up"),
            ("192.0.2.0/24 http 0 443", "protocol number"),
            ("192.0.2.0/24 TCP 0 443", "protocol number"),
            ("192.0.2.0/24 6 0 https", "port number"),
            ("192.0.2.0/24 6 0 65536", "port number"),
            ("192.0.2.0/24 6 443", "expected PREFIX"),
            ("192.0.2.0/24 6 0 443 more", "expected PREFIX"),
            ("192.0.2.0/24 0 0 443", "no protocol that a rule"),
            ("192.0.2.0/24 50 0 0", "no protocol that a rule"),
            ("192.0.2.0/24 51 0 0", "no protocol that a rule"),
            ("192.0.2.0/24 1 8 0", "has no ports"),
            ("192.0.2.0/33", "prefix length"),
            ("192.0.2.0/24, 10.0.0.0/8", "prefix length"),
        ] {
            let mut groups = Groups::new();
            let text = format!("10.0.0.0/8\n\n{line}\n");
            let error = groups.read(Group::Private, &text).unwrap_err();
            assert_eq!(error.line, 3, "{line}");
            assert!(error.why.contains(words), "{line}: {}", error.why);
            assert_eq!(groups, Groups::new(), "nothing of it is taken");
        }
    }

    /// What would be open without its line is refused; what would only be treated as what lies
    /// around it is passed over.
    #[test]
    fn names_open_nothing() {
        let text = "10.0.0.0/8\nwww.example.net # our partner\n192.0.2.7\n";
        for group in Group::ALL {
            let mut groups = Groups::new();
            let read = groups.read(group, text);
            if group.closes() {
                let error = read.unwrap_err();
                assert_eq!(error.line, 2, "{group}");
                assert!(error.why.contains("www.example.net: names are not looked up"), "{error}");
                assert_eq!(groups, Groups::new());
            } else {
                let warnings = read.unwrap();
                let said: Vec<_> = warnings.iter().map(|w| (w.line, w.what.as_str())).collect();
                let what = "www.example.net: names are not looked up; passed over";
                assert_eq!(said, [(2, what)], "{group}");
                assert_eq!(groups.lookup(ip("192.0.2.7")).unwrap().1, group);
            }
        }
    }

    #[test]
    fn the_longest_prefix_decides_and_then_the_most_precise_ports() {
        let mut groups = Groups::new();
        groups.read(Group::Clear, "0.0.0.0/0\n10.0.0.0/8 6 0 25\n10.1.0.0/16\n").unwrap();
        groups.read(Group::Private, "10.0.0.0/8 6 0 0\n10.0.0.0/8 6 1000 25\n").unwrap();
        groups.read(Group::Block, "10.9.0.0/16 17 0 53\n").unwrap();
        let of = |addr: &str, protocol, source, destination| {
            let ports = Ports::new(protocol, source, destination).unwrap();
            groups.rule(ip(addr), ports).map(|(_, _, listed)| listed.group)
        };
        assert_eq!(of("10.0.0.1", 6, 5, 80), Some(Group::Private));
        assert_eq!(of("10.0.0.1", 6, 5, 25), Some(Group::Clear));
        assert_eq!(of("10.0.0.1", 6, 1000, 25), Some(Group::Private));
        assert_eq!(of("10.0.0.1", 17, 5, 80), Some(Group::Clear), "by the prefix around it");
        assert_eq!(of("10.1.0.1", 6, 5, 80), Some(Group::Clear), "the longer prefix");
        assert_eq!(of("10.9.0.1", 17, 5, 53), Some(Group::Block));
        assert_eq!(of("10.9.0.1", 6, 5, 80), Some(Group::Private), "past a rule for other ports");
    }
}
