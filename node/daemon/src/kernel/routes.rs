//! rtnetlink: routes, rules, addresses, links.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage,
};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric,
    RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{
    RuleAction, RuleAttribute, RuleFlags, RuleMessage, RulePortRange,
};
use netlink_packet_route::{AddressFamily, IpProtocol, RouteNetlinkMessage as Message};
use netlink_sys::protocols::NETLINK_ROUTE;
use sa::Prefix;

use super::netlink::Netlink;
use super::plan::{MainRoute, Plan, Target};
use super::policies::{ANSWERS, REQUESTS};
use super::rules::LOOPBACK;
use super::steering;

/// The main table.
const MAIN: u32 = RouteHeader::RT_TABLE_MAIN as u32;

/// `RTPROT_*` number of our routes, for whoever reads `ip route`: nobody else's.
pub(super) const PROTOCOL: RouteProtocol = RouteProtocol::Other(143);

/// The same for the rules that let DHCP through, which are not of the connections'.
const DHCP_PROTOCOL: RouteProtocol = RouteProtocol::Other(144);

/// Both families, in the order in which everything is done.
pub(super) const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];

/// The kernel's routing, as far as we touch it.
pub(super) struct Routes {
    netlink: Netlink<Message>,
    mark: u32,
    table: u32,
}

/// What the main table makes of a destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Way {
    /// The source address a packet would get.
    pub(super) source: Option<IpAddr>,
    /// The interface it would leave by.
    pub(super) interface: Option<u32>,
    /// The path MTU the kernel has learnt, if it has.
    pub(super) mtu: Option<u32>,
}

/// An address of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LocalAddress {
    /// The address.
    pub(super) addr: IpAddr,
    /// Its network's broadcast address.
    pub(super) broadcast: Option<Ipv4Addr>,
    /// The interface that has it.
    pub(super) interface: u32,
    /// Not (or not yet) to be used: duplicate detection is at work, or has found one.
    pub(super) unusable: bool,
}

impl Routes {
    /// Opens the socket. Our own lookups carry `mark`; our routes are those of `table`.
    pub(super) fn open(mark: u32, table: u32) -> io::Result<Self> {
        Ok(Self { netlink: Netlink::open(NETLINK_ROUTE)?, mark, table })
    }

    /// Waits no longer for an answer of the kernel than this.
    pub(super) fn wait_at_most(&self, time: Duration) -> io::Result<()> {
        self.netlink.wait_at_most(time)
    }

    /// The port of our socket, by which events tell our deeds from those of others.
    pub(super) fn port(&self) -> u32 {
        self.netlink.port()
    }

    /// Index and MTU of an interface.
    pub(super) fn link(&mut self, name: &str) -> io::Result<(u32, u32)> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.link_by(message)
    }

    /// Index of an interface that need not be there. Any other failure is none to conclude that
    /// from.
    pub(super) fn find_link(&mut self, name: &str) -> io::Result<Option<u32>> {
        match self.link(name) {
            Ok((index, _)) => Ok(Some(index)),
            Err(error)
                if error.raw_os_error() == Some(libc::ENODEV)
                    || error.kind() == io::ErrorKind::NotFound =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn link_by(&mut self, message: LinkMessage) -> io::Result<(u32, u32)> {
        let Some(Message::NewLink(link)) = self.netlink.get(Message::GetLink(message))? else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let mtu = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        });
        Ok((link.header.index, mtu.unwrap_or(0)))
    }

    /// Every interface but this one and the loopback.
    pub(super) fn others(&mut self, device: u32) -> io::Result<Vec<u32>> {
        let all = self.netlink.dump(Message::GetLink(LinkMessage::default()))?;
        let other = |message: &Message| match message {
            Message::NewLink(link) => {
                let header = &link.header;
                let other = header.index != device && !header.flags.contains(LinkFlags::Loopback);
                other.then_some(header.index)
            }
            _ => None,
        };
        Ok(all.iter().filter_map(other).collect())
    }

    /// MTU of an interface.
    #[cfg(test)]
    pub(super) fn mtu(&mut self, interface: u32) -> io::Result<u32> {
        let mut message = LinkMessage::default();
        message.header.index = interface;
        self.link_by(message).map(|(_, mtu)| mtu)
    }

    /// Whether an interface is up.
    pub(super) fn is_up(&mut self, interface: u32) -> io::Result<bool> {
        let mut message = LinkMessage::default();
        message.header.index = interface;
        match self.netlink.get(Message::GetLink(message))? {
            Some(Message::NewLink(link)) => Ok(link.header.flags.contains(LinkFlags::Up)),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Sets an interface up.
    pub(super) fn set_up(&mut self, interface: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = interface;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.netlink.command(Message::SetLink(message), 0)
    }

    /// Every address of this host.
    pub(super) fn addresses(&mut self) -> io::Result<Vec<LocalAddress>> {
        let all = self.netlink.dump(Message::GetAddress(AddressMessage::default()))?;
        Ok(all
            .iter()
            .filter_map(|message| match message {
                Message::NewAddress(message) => local_address(message),
                _ => None,
            })
            .collect())
    }

    /// Gives an interface an IPv6 address that is used elsewhere too: without duplicate
    /// detection, without a route to its prefix.
    pub(super) fn add_address(&mut self, interface: u32, addr: Ipv6Addr) -> io::Result<()> {
        let message = address_message(interface, addr);
        tolerate(
            self.netlink.command(Message::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL),
            &[libc::EEXIST],
        )
    }

    /// Takes such an address away.
    pub(super) fn delete_address(&mut self, interface: u32, addr: Ipv6Addr) -> io::Result<()> {
        let message = address_message(interface, addr);
        tolerate(
            self.netlink.command(Message::DelAddress(message), 0),
            &[libc::EADDRNOTAVAIL, libc::ENODEV],
        )
    }

    /// Adds a route of ours, or replaces the one of the same prefix and metric.
    pub(super) fn put(
        &mut self,
        prefix: Prefix,
        metric: u32,
        target: Target,
        device: u32,
    ) -> io::Result<()> {
        let mut message = self.route(prefix, metric, target);
        if let Target::Device { source } = target {
            message.attributes.push(RouteAttribute::Oif(device));
            message.attributes.extend(source.map(|s| RouteAttribute::PrefSource(s.into())));
        }
        self.netlink.command(Message::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Removes a route of ours.
    pub(super) fn delete(&mut self, prefix: Prefix, metric: u32, target: Target) -> io::Result<()> {
        let message = self.route(prefix, metric, target);
        // A device route goes with its device.
        tolerate(self.netlink.command(Message::DelRoute(message), 0), &[libc::ESRCH, libc::ENOENT])
    }

    fn route(&self, prefix: Prefix, metric: u32, target: Target) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = family(prefix.addr());
        message.header.destination_prefix_length = prefix.len();
        message.header.protocol = PROTOCOL;
        message.header.kind = match target {
            Target::Device { .. } => RouteType::Unicast,
            Target::Throw => RouteType::Throw,
            Target::Blackhole => RouteType::BlackHole,
            Target::Prohibit => RouteType::Prohibit,
        };
        // Where a gateway is, only routes say that end on the link: ours must not, or a default
        // route that names no device would be taken to lead into ours.
        message.header.scope = RouteScope::Universe;
        if prefix.len() > 0 {
            message.attributes.push(RouteAttribute::Destination(prefix.addr().into()));
        }
        message.attributes.push(RouteAttribute::Table(self.table));
        message.attributes.push(RouteAttribute::Priority(metric));
        message
    }

    /// The routes of our table that have this metric and lead to no device.
    pub(super) fn standing(&mut self, metric: u32) -> io::Result<Plan> {
        let mut found = Plan::new();
        for family in FAMILIES {
            let all = self.dump_ours(family)?;
            let of = all.iter().filter_map(standing).filter(|s| s.metric == metric);
            found.extend(of.map(|s| ((s.prefix, s.metric), s.target)));
        }
        Ok(found)
    }

    /// What our table holds of ours, routes through `device` included.
    pub(super) fn held(&mut self, device: u32) -> io::Result<Plan> {
        let mut held = Plan::new();
        for family in FAMILIES {
            let all = self.dump_ours(family)?;
            held.extend(all.iter().filter_map(|route| held_as(route, device)));
        }
        Ok(held)
    }

    /// Removes every route of ours but for those to `keep`, which it gives back. Routes to a
    /// device are never kept.
    pub(super) fn flush(&mut self, keep: impl Fn(&Standing) -> bool) -> io::Result<Vec<Standing>> {
        let mut kept = Vec::new();
        for family in FAMILIES {
            for mut route in self.dump_ours(family)? {
                if let Some(standing) = standing(&route).filter(&keep) {
                    kept.push(standing);
                    continue;
                }
                // What a dump adds for the reader is no part of the key.
                route.attributes.retain(|attribute| {
                    matches!(
                        attribute,
                        RouteAttribute::Destination(_)
                            | RouteAttribute::Table(_)
                            | RouteAttribute::Priority(_)
                    )
                });
                route.header.flags = RouteFlags::empty();
                let gone = self.netlink.command(Message::DelRoute(route), 0);
                tolerate(gone, &[libc::ESRCH, libc::ENOENT])?;
            }
        }
        Ok(kept)
    }

    /// `not fwmark MARK lookup TABLE`, in both families, and before it the way of this machine's own
    /// DHCP. How many of them were missing.
    pub(super) fn add_rules(&mut self, priority: u32) -> io::Result<usize> {
        let mut missing = 0;
        for family in FAMILIES {
            let mut message = RuleMessage::default();
            message.header.family = family;
            message.header.action = RuleAction::ToTable;
            message.header.flags = RuleFlags::Invert;
            message.attributes = vec![
                RuleAttribute::Priority(priority),
                RuleAttribute::Table(self.table),
                RuleAttribute::FwMark(self.mark),
                RuleAttribute::FwMask(u32::MAX),
            ];
            for rule in std::iter::once(message).chain(dhcp_rules(family, priority)) {
                let added = self.netlink.command(Message::NewRule(rule), NLM_F_CREATE | NLM_F_EXCL);
                missing += usize::from(added.is_ok());
                // A kernel without IPv6 has nothing to be protected in it.
                tolerate(added, &[libc::EEXIST, libc::EAFNOSUPPORT, libc::EOPNOTSUPP])?;
            }
        }
        Ok(missing)
    }

    /// Rules that lead to our table.
    pub(super) fn count_rules(&mut self) -> io::Result<usize> {
        let mut count = 0;
        let ours = RuleAttribute::Table(self.table);
        for family in FAMILIES {
            let rules = dump_rules(&mut self.netlink, family)?;
            count += rules.iter().filter(|rule| rule.attributes.contains(&ours)).count();
        }
        Ok(count)
    }

    /// Rules of others that the kernel follows before the one to our table, as `ip rule` writes them.
    pub(super) fn rules_before_ours(&mut self) -> io::Result<Vec<String>> {
        let mut all = Vec::new();
        for family in FAMILIES {
            let rules = dump_rules(&mut self.netlink, family)?;
            // Without ours, there is nothing that they could come before.
            if rules.iter().any(|r| r.attributes.contains(&RuleAttribute::Table(self.table))) {
                all.extend(steering::before_ours(&rules, self.table, self.mark));
            }
        }
        Ok(all)
    }

    /// Routes of ours in our table.
    pub(super) fn count_routes(&mut self) -> io::Result<usize> {
        let mut count = 0;
        for family in FAMILIES {
            count += self.dump_ours(family)?.len();
        }
        Ok(count)
    }

    /// Removes every rule that leads to our table, and those of DHCP, but for what
    /// [`Self::add_rules`] makes with the priority `keep`.
    pub(super) fn delete_rules(&mut self, keep: Option<u32>) -> io::Result<()> {
        for family in FAMILIES {
            for rule in dump_rules(&mut self.netlink, family)? {
                let ours = |attribute| rule.attributes.contains(&attribute);
                let kept = keep.is_some_and(|priority| {
                    ours(RuleAttribute::Priority(priority))
                        && ours(RuleAttribute::FwMark(self.mark))
                        && rule.header.flags.contains(RuleFlags::Invert)
                });
                let dhcp = ours(RuleAttribute::Protocol(DHCP_PROTOCOL));
                let as_now = |priority| {
                    let is = |now: RuleMessage| now.attributes.into_iter().all(ours);
                    dhcp_rules(family, priority).any(is)
                };
                let kept = kept || keep.is_some_and(as_now);
                if (dhcp || ours(RuleAttribute::Table(self.table))) && !kept {
                    let gone = self.netlink.command(Message::DelRule(rule), 0);
                    tolerate(gone, &[libc::ENOENT])?;
                }
            }
        }
        Ok(())
    }

    /// The main table: for every destination the route that the kernel would take, with the
    /// source address that it would give. Routes through `except` do not count.
    pub(super) fn main_routes(&mut self, except: u32) -> io::Result<BTreeMap<Prefix, MainRoute>> {
        let mut best: BTreeMap<Prefix, (u32, RouteMessage)> = BTreeMap::new();
        for family in FAMILIES {
            for route in self.dump_table(family, MAIN)? {
                let read = Attributes::of(&route);
                if read.oif == Some(except) || route.header.flags.contains(RouteFlags::Dead) {
                    continue;
                }
                let len = route.header.destination_prefix_length;
                let Ok(dst) = Prefix::new(read.dst.unwrap_or_else(|| any(family)), len) else {
                    continue;
                };
                match best.get(&dst) {
                    Some((metric, _)) if *metric <= read.metric => {}
                    _ => {
                        best.insert(dst, (read.metric, route));
                    }
                }
            }
        }
        let mut sources = BTreeMap::new();
        Ok(best
            .into_iter()
            .map(|(dst, (_, route))| (dst, self.main_route(dst, &route, &mut sources)))
            .collect())
    }

    fn main_route(
        &mut self,
        dst: Prefix,
        route: &RouteMessage,
        sources: &mut BTreeMap<(Option<u32>, Option<IpAddr>), Option<IpAddr>>,
    ) -> MainRoute {
        let read = Attributes::of(route);
        let unicast = route.header.kind == RouteType::Unicast;
        let gateway = read.gateways.first().copied();
        let first = dst.addr();
        let source = match read.source {
            given @ Some(_) => given,
            None if !unicast => None,
            // Routes through one next hop give one source; asking for each of a million would
            // take a while.
            None => *sources
                .entry((read.oif, Some(gateway.unwrap_or(first))))
                .or_insert_with(|| self.probe(dst, read.oif, gateway)),
        };
        MainRoute { dst, unicast, source, gateways: read.gateways }
    }

    /// The source address that the kernel would choose on this route.
    fn probe(&mut self, dst: Prefix, oif: Option<u32>, gateway: Option<IpAddr>) -> Option<IpAddr> {
        let probe = match gateway {
            // Towards an IPv6 gateway the source would be link-local too.
            Some(gateway) if gateway.is_ipv4() => gateway,
            _ => within(dst),
        };
        self.way(probe, oif).ok()?.source
    }

    /// What the main table makes of this destination.
    pub(super) fn way(&mut self, dst: IpAddr, oif: Option<u32>) -> io::Result<Way> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(dst);
        message.header.destination_prefix_length = Prefix::host(dst).len();
        message.attributes.push(RouteAttribute::Destination(dst.into()));
        message.attributes.push(RouteAttribute::Mark(self.mark));
        message.attributes.extend(oif.map(RouteAttribute::Oif));
        let Some(Message::NewRoute(route)) = self.netlink.get(Message::GetRoute(message))? else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let read = Attributes::of(&route);
        Ok(Way { source: read.source, interface: read.oif, mtu: read.mtu })
    }

    /// By which device the kernel would forward what comes in by another, if it would.
    pub(super) fn forwards(
        &mut self,
        device: u32,
        from: IpAddr,
        to: IpAddr,
    ) -> io::Result<Option<u32>> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(to);
        message.header.source_prefix_length = Prefix::host(from).len();
        message.header.destination_prefix_length = Prefix::host(to).len();
        message.attributes.extend([
            RouteAttribute::Source(from.into()),
            RouteAttribute::Destination(to.into()),
            RouteAttribute::Iif(device),
            RouteAttribute::Mark(self.mark),
        ]);
        let Some(Message::NewRoute(route)) = self.netlink.get(Message::GetRoute(message))? else {
            return Ok(None);
        };
        let oif = Attributes::of(&route).oif;
        Ok(oif.filter(|_| route.header.kind == RouteType::Unicast))
    }

    /// What we have put into our table: an administrator may have put something there as well.
    fn dump_ours(&mut self, family: AddressFamily) -> io::Result<Vec<RouteMessage>> {
        let mut all = self.dump_table(family, self.table)?;
        all.retain(|route| route.header.protocol == PROTOCOL);
        Ok(all)
    }

    fn dump_table(&mut self, family: AddressFamily, table: u32) -> io::Result<Vec<RouteMessage>> {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        message.attributes.push(RouteAttribute::Table(table));
        let all = match self.netlink.dump(Message::GetRoute(message)) {
            // No such table, or no such family.
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EAFNOSUPPORT)) =>
            {
                return Ok(Vec::new());
            }
            other => other?,
        };
        Ok(all
            .into_iter()
            .filter_map(|message| match message {
                Message::NewRoute(route) => Some(route),
                _ => None,
            })
            .filter(|route| {
                table_of(route) == table
                    && route.header.address_family == family
                    && !route.header.flags.contains(RouteFlags::Cloned)
            })
            .collect())
    }
}

/// The attributes of a route that matter to us.
#[derive(Default)]
struct Attributes {
    dst: Option<IpAddr>,
    source: Option<IpAddr>,
    oif: Option<u32>,
    metric: u32,
    mtu: Option<u32>,
    gateways: Vec<IpAddr>,
}

impl Attributes {
    fn of(route: &RouteMessage) -> Self {
        let mut read = Self::default();
        for attribute in &route.attributes {
            match attribute {
                RouteAttribute::Destination(addr) => read.dst = ip(addr),
                RouteAttribute::PrefSource(addr) => read.source = ip(addr),
                RouteAttribute::Gateway(addr) => read.gateways.extend(ip(addr)),
                RouteAttribute::Oif(index) => read.oif = Some(*index),
                RouteAttribute::Priority(metric) => read.metric = *metric,
                RouteAttribute::Metrics(metrics) => {
                    read.mtu = metrics.iter().find_map(|metric| match metric {
                        RouteMetric::Mtu(mtu) => Some(*mtu),
                        _ => None,
                    });
                }
                RouteAttribute::MultiPath(hops) => {
                    for hop in hops {
                        read.oif = read.oif.or(Some(hop.interface_index));
                        for attribute in &hop.attributes {
                            if let RouteAttribute::Gateway(addr) = attribute {
                                read.gateways.extend(ip(addr));
                            }
                        }
                    }
                }
                _ => {}
            }
        }
        read
    }
}

/// A family's rules, in the kernel's order.
pub(super) fn dump_rules(
    netlink: &mut Netlink<Message>,
    family: AddressFamily,
) -> io::Result<Vec<RuleMessage>> {
    let mut message = RuleMessage::default();
    message.header.family = family;
    let rules = netlink.dump(Message::GetRule(message))?.into_iter();
    Ok(rules
        .filter_map(|message| match message {
            Message::NewRule(rule) => Some(rule),
            _ => None,
        })
        .collect())
}

/// Whoever renews a lease of this machine writes to its server from the client's port, and has no
/// other way to keep the address that everything else depends on, connections included. A server on
/// this machine answers past the trap, but not past a connection. What is forwarded is a packet as
/// any other.
fn dhcp_rules(family: AddressFamily, priority: u32) -> impl Iterator<Item = RuleMessage> {
    let v4 = family == AddressFamily::Inet;
    let requests = REQUESTS.into_iter().map(move |ports| (before_connections(priority), ports));
    let answers = ANSWERS.into_iter().map(move |ports| (before(priority), ports));
    requests
        .chain(answers)
        .filter(move |(_, (all, ..))| all.addr().is_ipv4() == v4)
        .map(move |(at, (_, from, to))| dhcp_rule(family, at, from, to))
}

fn dhcp_rule(family: AddressFamily, priority: u32, from: u16, to: u16) -> RuleMessage {
    let port = |port| RulePortRange { start: port, end: port };
    let mut message = RuleMessage::default();
    message.header.family = family;
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Priority(priority),
        RuleAttribute::Table(MAIN),
        RuleAttribute::Iifname(LOOPBACK.to_owned()),
        RuleAttribute::Protocol(DHCP_PROTOCOL),
        RuleAttribute::IpProtocol(IpProtocol::Udp),
        RuleAttribute::SourcePortRange(port(from)),
        RuleAttribute::DestinationPortRange(port(to)),
    ];
    message
}

/// The priority of what is looked at before, but after the rules of connections.
const fn before(priority: u32) -> u32 {
    priority.saturating_sub(1)
}

/// The priority of what is looked at before the rules of connections as well.
const fn before_connections(priority: u32) -> u32 {
    priority.saturating_sub(9)
}

/// A route that leads to no device: it outlives ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Standing {
    /// Its destinations.
    pub(super) prefix: Prefix,
    /// Its metric.
    pub(super) metric: u32,
    /// Where it leads.
    pub(super) target: Target,
}

fn standing(route: &RouteMessage) -> Option<Standing> {
    let target = match route.header.kind {
        RouteType::Throw => Target::Throw,
        RouteType::BlackHole => Target::Blackhole,
        RouteType::Prohibit => Target::Prohibit,
        _ => return None,
    };
    let read = Attributes::of(route);
    let addr = read.dst.unwrap_or_else(|| any(route.header.address_family));
    let prefix = Prefix::new(addr, route.header.destination_prefix_length).ok()?;
    Some(Standing { prefix, metric: read.metric, target })
}

/// A route of ours as a plan says it: where it leads, if that is `device` or nowhere.
fn held_as(route: &RouteMessage, device: u32) -> Option<((Prefix, u32), Target)> {
    if let Some(standing) = standing(route) {
        return Some(((standing.prefix, standing.metric), standing.target));
    }
    let read = Attributes::of(route);
    let addr = read.dst.unwrap_or_else(|| any(route.header.address_family));
    let prefix = Prefix::new(addr, route.header.destination_prefix_length).ok()?;
    let target = Target::Device { source: read.source };
    (read.oif == Some(device)).then_some(((prefix, read.metric), target))
}

/// Whether this is a kernel without IPv6 that was given a route of it: it has nothing to be
/// protected there.
pub(super) fn is_without_ipv6(error: &io::Error, prefix: &Prefix) -> bool {
    prefix.addr().is_ipv6()
        && matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP))
}

/// Whether a rule says that it is ours: one of connections, or that of DHCP.
pub(super) fn is_of_ours(rule: &RuleMessage) -> bool {
    [PROTOCOL, DHCP_PROTOCOL]
        .map(RuleAttribute::Protocol)
        .iter()
        .any(|p| rule.attributes.contains(p))
}

/// The metric of a route.
pub(super) fn metric_of(route: &RouteMessage) -> u32 {
    Attributes::of(route).metric
}

/// The table of a route: the attribute counts, the header has only eight bits for it.
pub(super) fn table_of(route: &RouteMessage) -> u32 {
    route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Table(table) => Some(*table),
            _ => None,
        })
        .unwrap_or_else(|| route.header.table.into())
}

fn local_address(message: &AddressMessage) -> Option<LocalAddress> {
    // On point-to-point links `Address` is the other end, and `Local` is ours.
    let mut address = None;
    let mut local = None;
    let mut broadcast = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(addr) => address = Some(*addr),
            AddressAttribute::Local(addr) => local = Some(*addr),
            AddressAttribute::Broadcast(addr) => broadcast = Some(*addr),
            _ => {}
        }
    }
    let flags = message.header.flags;
    let unusable = flags.intersects(AddressHeaderFlags::Tentative | AddressHeaderFlags::Dadfailed)
        && !flags.contains(AddressHeaderFlags::Optimistic);
    Some(LocalAddress {
        addr: local.or(address)?,
        broadcast,
        interface: message.header.index,
        unusable,
    })
}

fn address_message(interface: u32, addr: Ipv6Addr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet6;
    message.header.prefix_len = 128;
    message.header.index = interface;
    message.attributes = vec![
        AddressAttribute::Local(addr.into()),
        AddressAttribute::Address(addr.into()),
        AddressAttribute::Flags(AddressFlags::Nodad | AddressFlags::Noprefixroute),
    ];
    message
}

fn family(addr: IpAddr) -> AddressFamily {
    if addr.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn any(family: AddressFamily) -> IpAddr {
    match family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        _ => Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn ip(addr: &RouteAddress) -> Option<IpAddr> {
    match addr {
        RouteAddress::Inet(addr) => Some((*addr).into()),
        RouteAddress::Inet6(addr) => Some((*addr).into()),
        _ => None,
    }
}

/// An address of this prefix that is likely to have no route of its own.
fn within(prefix: Prefix) -> IpAddr {
    match prefix.addr() {
        addr if prefix.is_host() => addr,
        IpAddr::V4(addr) if addr.is_unspecified() => Ipv4Addr::new(1, 0, 0, 1).into(),
        IpAddr::V4(addr) => Ipv4Addr::from(u32::from(addr) | 1).into(),
        // The first of global unicast (RFC 4291 §2.4).
        IpAddr::V6(addr) if addr.is_unspecified() => {
            Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 1).into()
        }
        IpAddr::V6(addr) => Ipv6Addr::from(u128::from(addr) | 1).into(),
    }
}

/// Treats these error codes as success: what was asked for is already so.
pub(super) fn tolerate(result: io::Result<()>, codes: &[i32]) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error().is_some_and(|code| codes.contains(&code)) => Ok(()),
        other => other,
    }
}
