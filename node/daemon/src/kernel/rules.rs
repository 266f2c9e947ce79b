//! Routing rules of ours (`ip rule`), told from others' by their protocol number.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::route::RouteHeader;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};
use netlink_sys::protocols::NETLINK_ROUTE;
use sa::Prefix;

use super::netlink::Netlink;
use super::routes::{FAMILIES, PROTOCOL, dump_rules, tolerate};

/// The main table.
pub(super) const MAIN: u32 = RouteHeader::RT_TABLE_MAIN as u32;

/// What a packet of this host's own comes in by, for rules.
pub(super) const LOOPBACK: &str = "lo";

/// The source of a packet that has none yet, as a rule of IPv4 sees it.
const UNBOUND: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// `FIB_RULE_FIND_SADDR` of linux/fib_rules.h.
const FIND_SADDR: u32 = 0x0001_0000;

/// One rule.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Rule {
    pub(super) priority: u32,
    pub(super) v6: bool,
    /// Only packets from here.
    pub(super) from: Option<Prefix>,
    /// Only packets to there.
    pub(super) to: Option<Prefix>,
    /// Only packets that came in by this interface; `lo` stands for what this host sends itself.
    pub(super) interface: Option<String>,
    /// Only packets with this mark.
    pub(super) mark: Option<u32>,
    /// In IPv6 also packets that have no source yet, if it would be one of those that they must come
    /// from: the kernel tries it.
    pub(super) seeks: bool,
    pub(super) verdict: Verdict,
}

/// What a rule does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Verdict {
    /// Look into this table.
    Lookup(u32),
    /// The same, but for its default route.
    LookupSpecific(u32),
    /// Discard.
    Blackhole,
    /// Go on with the rules of this priority.
    Goto(u32),
}

impl Rule {
    /// A rule that matches everything of a family.
    pub(super) fn new(priority: u32, v6: bool, verdict: Verdict) -> Self {
        let (from, to, interface, mark, seeks) = (None, None, None, None, false);
        Self { priority, v6, from, to, interface, mark, seeks, verdict }
    }

    pub(super) fn from(self, prefix: Prefix) -> Self {
        Self { from: (prefix.len() > 0).then_some(prefix), ..self }
    }

    pub(super) fn to(self, prefix: Prefix) -> Self {
        Self { to: (prefix.len() > 0).then_some(prefix), ..self }
    }

    pub(super) fn by(self, interface: &str) -> Self {
        Self { interface: Some(interface.to_owned()), ..self }
    }

    /// From there, and what this host sends that has no source yet but would get one from there.
    /// Whether it would the kernel finds out by itself in IPv6; in IPv4 `would` says so.
    pub(super) fn or_unbound(self, prefix: Prefix, would: bool) -> impl Iterator<Item = Self> {
        let unbound = Self { from: Some(Prefix::host(UNBOUND)), ..self.clone().by(LOOPBACK) };
        let unbound = Some(unbound).filter(|rule| would && !rule.v6);
        std::iter::once(Self { seeks: self.v6, ..self.from(prefix) }).chain(unbound)
    }

    pub(super) fn marked(self, mark: u32) -> Self {
        Self { mark: Some(mark), ..self }
    }

    fn message(&self) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = if self.v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
        if self.seeks {
            message.header.flags = RuleFlags::from_bits_retain(FIND_SADDR);
        }
        message.header.src_len = self.from.map_or(0, |prefix| prefix.len());
        message.header.dst_len = self.to.map_or(0, |prefix| prefix.len());
        let attributes = &mut message.attributes;
        attributes.push(RuleAttribute::Priority(self.priority));
        attributes.push(RuleAttribute::Protocol(PROTOCOL));
        attributes.extend(self.from.map(|prefix| RuleAttribute::Source(prefix.addr())));
        attributes.extend(self.to.map(|prefix| RuleAttribute::Destination(prefix.addr())));
        attributes.extend(self.interface.clone().map(RuleAttribute::Iifname));
        if let Some(mark) = self.mark {
            attributes.extend([RuleAttribute::FwMark(mark), RuleAttribute::FwMask(u32::MAX)]);
        }
        message.header.action = match self.verdict {
            Verdict::Lookup(table) => {
                attributes.push(RuleAttribute::Table(table));
                RuleAction::ToTable
            }
            Verdict::LookupSpecific(table) => {
                attributes.push(RuleAttribute::Table(table));
                attributes.push(RuleAttribute::SuppressPrefixLen(0));
                RuleAction::ToTable
            }
            Verdict::Blackhole => RuleAction::Blackhole,
            Verdict::Goto(priority) => {
                attributes.push(RuleAttribute::Goto(priority));
                RuleAction::Goto
            }
        };
        message
    }

    /// A rule of ours, read back.
    fn read(message: &RuleMessage) -> Option<Self> {
        let mut rule = Self::new(
            0,
            message.header.family == AddressFamily::Inet6,
            match message.header.action {
                RuleAction::ToTable => Verdict::Lookup(message.header.table.into()),
                RuleAction::Blackhole => Verdict::Blackhole,
                RuleAction::Goto => Verdict::Goto(0),
                _ => return None,
            },
        );
        rule.seeks = message.header.flags.bits() & FIND_SADDR != 0;
        let (mut ours, mut specific) = (false, false);
        let prefix = |addr: &IpAddr, len| Prefix::new(*addr, len).ok();
        for attribute in &message.attributes {
            match attribute {
                RuleAttribute::Priority(priority) => rule.priority = *priority,
                RuleAttribute::Protocol(protocol) => ours = *protocol == PROTOCOL,
                RuleAttribute::Source(addr) => rule.from = prefix(addr, message.header.src_len),
                RuleAttribute::Destination(addr) => rule.to = prefix(addr, message.header.dst_len),
                RuleAttribute::Iifname(name) => rule.interface = Some(name.clone()),
                RuleAttribute::FwMark(mark) => rule.mark = Some(*mark),
                RuleAttribute::SuppressPrefixLen(0) => specific = true,
                RuleAttribute::Goto(priority) => rule.verdict = Verdict::Goto(*priority),
                RuleAttribute::Table(table) if matches!(rule.verdict, Verdict::Lookup(_)) => {
                    rule.verdict = Verdict::Lookup(*table);
                }
                _ => {}
            }
        }
        if let (Verdict::Lookup(table), true) = (rule.verdict, specific) {
            rule.verdict = Verdict::LookupSpecific(table);
        }
        ours.then_some(rule)
    }
}

/// The kernel's rules, as far as they are ours.
pub(super) struct Rules {
    netlink: Netlink<Message>,
}

impl Rules {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { netlink: Netlink::open(NETLINK_ROUTE)? })
    }

    /// The port of our socket, by which events tell our deeds from those of others.
    pub(super) fn port(&self) -> u32 {
        self.netlink.port()
    }

    /// Those that are there.
    pub(super) fn list(&mut self) -> io::Result<Vec<Rule>> {
        let mut rules = Vec::new();
        for family in FAMILIES {
            rules.extend(dump_rules(&mut self.netlink, family)?.iter().filter_map(Rule::read));
        }
        Ok(rules)
    }

    pub(super) fn add(&mut self, rule: &Rule) -> io::Result<()> {
        let message = Message::NewRule(rule.message());
        let added = self.netlink.command(message, NLM_F_CREATE | NLM_F_EXCL);
        // A kernel without IPv6 has nothing to be protected in it.
        tolerate(added, &[libc::EEXIST, libc::EAFNOSUPPORT, libc::EOPNOTSUPP])
    }

    pub(super) fn delete(&mut self, rule: &Rule) -> io::Result<()> {
        let gone = self.netlink.command(Message::DelRule(rule.message()), 0);
        tolerate(gone, &[libc::ENOENT, libc::EAFNOSUPPORT, libc::EOPNOTSUPP])
    }
}
