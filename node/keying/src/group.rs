//! Policy groups: which class of destinations an address belongs to, by longest prefix
//! (RFC 4322 §1.2, §3.2; the classic files of FreeS/WAN).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::net::IpAddr;

use dnskeys::Strictness;
use sa::{Class, Prefix};

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
    entries: BTreeMap<Prefix, Listed>,
}

/// A prefix's place in the group files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listed {
    /// The group it belongs to.
    pub group: Group,
    /// The line of the group's file that says so; `None` if no file does.
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
        groups.insert(Prefix::ALL_V4, Group::PrivateOrClear);
        groups.insert(Prefix::ALL_V6, Group::PrivateOrClear);
        groups
    }

    /// Puts a prefix into a group. A prefix belongs to one group only: an earlier one is kept and
    /// returned (the first file read wins, as with the classic implementations).
    pub fn insert(&mut self, prefix: Prefix, group: Group) -> Option<Group> {
        self.list(prefix, Listed { group, line: None })
    }

    fn list(&mut self, prefix: Prefix, listed: Listed) -> Option<Group> {
        match self.entries.entry(prefix) {
            Entry::Occupied(held) => Some(held.get().group),
            Entry::Vacant(free) => {
                free.insert(listed);
                None
            }
        }
    }

    /// Reads one classic group file: a prefix or address a line, `#` comments.
    ///
    /// # Errors
    /// The first bad line; nothing of the file is taken then.
    pub fn read(&mut self, group: Group, text: &str) -> Result<(), LineError> {
        let mut found = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let words = line.split('#').next().unwrap_or_default();
            let mut words = words.split_whitespace();
            let Some(word) = words.next() else { continue };
            let error = |why: String| LineError { line: index + 1, why };
            let prefix: Prefix =
                word.parse().map_err(|why| error(format!("{}: {why}", word.escape_default())))?;
            if words.next().is_some() {
                return Err(error("rules for single ports are not supported yet".to_owned()));
            }
            found.push((index, prefix));
        }
        for (index, prefix) in found {
            let listed = Listed { group, line: Some(index + 1) };
            if let Some(held) = self.list(prefix, listed)
                && held != group
            {
                let why = format!("{prefix} already belongs to group {held}");
                return Err(LineError { line: index + 1, why });
            }
        }
        Ok(())
    }

    /// The group of an address and the prefix that decided; `None` if no prefix covers it.
    #[must_use]
    pub fn lookup(&self, addr: IpAddr) -> Option<(Prefix, Group)> {
        self.listed(addr).map(|(prefix, listed)| (prefix, listed.group))
    }

    /// As [`Self::lookup`], with the place in the files.
    #[must_use]
    pub fn listed(&self, addr: IpAddr) -> Option<(Prefix, Listed)> {
        let longest = Prefix::host(addr).len();
        (0..=longest).rev().find_map(|len| {
            let prefix = Prefix::new(addr, len).ok()?;
            self.entries.get(&prefix).map(|listed| (prefix, *listed))
        })
    }

    /// Every prefix with its group.
    pub fn iter(&self) -> impl Iterator<Item = (Prefix, Group)> {
        self.entries.iter().map(|(prefix, listed)| (*prefix, listed.group))
    }
}

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
        let error = groups.read(Group::Clear, "# x\n192.0.2.0/24").unwrap_err();
        assert_eq!(error.to_string(), "line 2: 192.0.2.0/24 already belongs to group private");
    }
}
