//! Routing rules of others that the kernel follows before ours.

use std::fmt::Write as _;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::RouteHeader;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};

use super::routes::is_of_ours;

/// The table of local addresses, which comes first everywhere.
const LOCAL: u32 = 255;

/// As many as that are named.
const MOST: usize = 16;

/// Those of a family's rules, in the kernel's order, that can lead packets past the rule to our table,
/// as `ip rule` writes them.
pub(super) fn before_ours(rules: &[RuleMessage], table: u32, mark: u32) -> Vec<String> {
    let ours = |rule: &&RuleMessage| rule.attributes.contains(&RuleAttribute::Table(table));
    rules
        .iter()
        .take_while(|rule| !ours(rule))
        .filter(|rule| !is_of_ours(rule) && leads_on(rule) && !is_of_mark(rule, mark))
        .take(MOST)
        .map(text)
        .collect()
}

/// Whether it leads anywhere: what discards packets opens nothing.
fn leads_on(rule: &RuleMessage) -> bool {
    match rule.header.action {
        RuleAction::ToTable => table_of(rule) != LOCAL,
        RuleAction::Goto => true,
        _ => false,
    }
}

/// Whether it is about our own sockets alone.
fn is_of_mark(rule: &RuleMessage, mark: u32) -> bool {
    let has = |attribute| rule.attributes.contains(&attribute);
    !rule.header.flags.contains(RuleFlags::Invert)
        && has(RuleAttribute::FwMark(mark))
        && has(RuleAttribute::FwMask(u32::MAX))
}

/// The table that it leads to: the attribute counts, the header has only eight bits for it.
fn table_of(rule: &RuleMessage) -> u32 {
    let table = |attribute: &RuleAttribute| match attribute {
        RuleAttribute::Table(table) => Some(*table),
        _ => None,
    };
    rule.attributes.iter().find_map(table).unwrap_or_else(|| rule.header.table.into())
}

/// As `ip rule` has it; what is not known here is left out.
fn text(rule: &RuleMessage) -> String {
    let (mut priority, mut from, mut to) = (0, "all".to_owned(), String::new());
    let (mut mark, mut mask, mut specific) = (None, u32::MAX, String::new());
    let (mut said, mut goto, mut device) = (String::new(), None, false);
    // Writing to a string cannot fail.
    for attribute in &rule.attributes {
        let _ = match attribute {
            RuleAttribute::Priority(number) => {
                priority = *number;
                Ok(())
            }
            RuleAttribute::Source(addr) => {
                from = format!("{addr}/{}", rule.header.src_len);
                Ok(())
            }
            RuleAttribute::Destination(addr) => write!(to, " to {addr}/{}", rule.header.dst_len),
            RuleAttribute::FwMark(number) => {
                mark = Some(*number);
                Ok(())
            }
            RuleAttribute::FwMask(number) => {
                mask = *number;
                Ok(())
            }
            RuleAttribute::Iifname(name) => write!(said, " iif {name}"),
            RuleAttribute::Oifname(name) => write!(said, " oif {name}"),
            RuleAttribute::UidRange(uids) => write!(said, " uidrange {}-{}", uids.start, uids.end),
            RuleAttribute::IpProtocol(protocol) => {
                write!(said, " ipproto {}", u8::from(*protocol))
            }
            RuleAttribute::SourcePortRange(ports) => {
                write!(said, " sport {}-{}", ports.start, ports.end)
            }
            RuleAttribute::DestinationPortRange(ports) => {
                write!(said, " dport {}-{}", ports.start, ports.end)
            }
            RuleAttribute::SuppressPrefixLen(len) if *len != u32::MAX => {
                write!(specific, " suppress_prefixlength {len}")
            }
            RuleAttribute::Goto(number) => {
                goto = Some(*number);
                Ok(())
            }
            RuleAttribute::L3MDev(is) => {
                device = *is;
                Ok(())
            }
            _ => Ok(()),
        };
    }
    let marked = match mark {
        Some(mark) if mask == u32::MAX => format!(" fwmark {mark:#x}"),
        Some(mark) => format!(" fwmark {mark:#x}/{mask:#x}"),
        None => String::new(),
    };
    let not = if rule.header.flags.contains(RuleFlags::Invert) { "not " } else { "" };
    let v6 = if rule.header.family == AddressFamily::Inet6 { "-6 " } else { "" };
    let leads = match (goto, device, table_of(rule)) {
        (Some(number), ..) => format!("goto {number}"),
        (None, true, _) => "lookup [l3mdev-table]".to_owned(),
        (None, false, table) if table == u32::from(RouteHeader::RT_TABLE_MAIN) => {
            "lookup main".to_owned()
        }
        (None, false, table) => format!("lookup {table}"),
    };
    format!("ip {v6}rule: {priority}: {not}from {from}{to}{marked}{said} {leads}{specific}")
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::route::RouteProtocol;

    use super::*;

    fn rule(priority: u32, table: u32, more: Vec<RuleAttribute>) -> RuleMessage {
        let mut rule = RuleMessage::default();
        rule.header.family = AddressFamily::Inet;
        rule.header.action = RuleAction::ToTable;
        rule.attributes = vec![RuleAttribute::Priority(priority), RuleAttribute::Table(table)];
        rule.attributes.extend(more);
        rule
    }

    #[test]
    fn what_comes_before_ours_and_leads_somewhere_is_named() {
        let mut inside = rule(100, 77, vec![RuleAttribute::Source("10.1.0.0".parse().unwrap())]);
        inside.header.src_len = 16;
        let mut drops = rule(105, 77, vec![]);
        drops.header.action = RuleAction::Blackhole;
        let whole = |mark| vec![RuleAttribute::FwMark(mark), RuleAttribute::FwMask(u32::MAX)];
        let mut not_of_ours = rule(106, 254, whole(0x4322));
        not_of_ours.header.flags = RuleFlags::Invert;
        not_of_ours.attributes.push(RuleAttribute::SuppressPrefixLen(0));
        let of_ours = RuleAttribute::Protocol(RouteProtocol::Other(143));
        let rules = [
            rule(0, LOCAL, vec![]),
            inside,
            rule(101, 78, vec![RuleAttribute::FwMark(1), RuleAttribute::FwMask(0xff)]),
            rule(102, 79, whole(0x4322)),
            drops,
            not_of_ours,
            rule(4316, 4323, vec![of_ours]),
            rule(4322, 4322, vec![]),
            rule(32766, 254, vec![]),
        ];
        assert_eq!(
            before_ours(&rules, 4322, 0x4322),
            [
                "ip rule: 100: from 10.1.0.0/16 lookup 77",
                "ip rule: 101: from all fwmark 0x1/0xff lookup 78",
                "ip rule: 106: not from all fwmark 0x4322 lookup main suppress_prefixlength 0",
            ]
        );
    }
}
