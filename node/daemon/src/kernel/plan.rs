//! Which routes the node's table must hold: a pure function of policy and of what the main table
//! says.

use std::collections::BTreeMap;
use std::net::IpAddr;

use sa::{Class, Prefix};

/// Metric of what applies while the daemon runs.
pub(super) const LIVE: u32 = 100;

/// Metric of what is left when the device is gone with the daemon.
pub(super) const BACKSTOP: u32 = 200;

/// Metric of the guard's, which neither a running daemon nor its end concerns.
pub(super) const GUARD: u32 = 300;

/// A route of the node's table, by prefix and metric.
pub(super) type Plan = BTreeMap<(Prefix, u32), Target>;

/// Where a route of ours leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Target {
    /// Into the device, with this source address where the application chose none.
    Device {
        /// What the main table would choose.
        source: Option<IpAddr>,
    },
    /// Back to the main table.
    Throw,
    /// Silently discarded.
    Blackhole,
    /// Discarded, and the sender is told (ICMP communication administratively prohibited).
    Prohibit,
}

/// A route of the main table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct MainRoute {
    /// Destinations.
    pub(super) dst: Prefix,
    /// Whether it forwards anything; `unreachable` and its like do not.
    pub(super) unicast: bool,
    /// The source address it would give a packet.
    pub(super) source: Option<IpAddr>,
    /// Its next hops, if they are not on the link themselves.
    pub(super) gateways: Vec<IpAddr>,
}

/// What the node's table must always leave to the main table: loopback, link-local, multicast,
/// broadcast (RFC 6890), and with them neighbour discovery and DHCP.
const NEVER: [&str; 8] = [
    "127.0.0.0/8",
    "169.254.0.0/16",
    "224.0.0.0/4",
    "255.255.255.255/32",
    "0.0.0.0/32",
    "::1/128",
    "fe80::/10",
    "ff00::/8",
];

/// Whether packets to this address are never ours to hold, whatever its group.
pub(crate) fn is_left_alone(address: IpAddr) -> bool {
    never().any(|prefix| prefix.contains(address))
}

/// Those routes of `before` that `held` has no more and that do not go by themselves: the kernel
/// takes a route to a device away with the link or its source address.
pub(super) fn lost<'a>(
    before: &'a Plan,
    held: &'a Plan,
) -> impl Iterator<Item = (Prefix, u32)> + 'a {
    before
        .iter()
        .filter(|(key, target)| {
            !matches!(target, Target::Device { .. })
                && key.1 != GUARD
                && held.get(key) != Some(target)
        })
        .map(|(key, _)| *key)
}

/// The table for these classes over this main table, but for single destinations.
///
/// `main` holds at most one route for each destination prefix, the one the kernel would take.
pub(super) fn plan(
    classes: &BTreeMap<Prefix, Class>,
    main: &BTreeMap<Prefix, MainRoute>,
    addresses: &[IpAddr],
    served: &[Prefix],
) -> Plan {
    let mut plan = Plan::new();
    for (prefix, class) in classes {
        match class {
            Class::Pass => {
                plan.insert((*prefix, LIVE), Target::Throw);
            }
            Class::Block => {
                plan.insert((*prefix, LIVE), Target::Prohibit);
            }
            Class::Trap { fail_closed } => {
                // What the main table cannot reach is not trapped: a host without IPv6 must go on
                // saying so at once, not after a negotiation that cannot be had.
                if let Some(way) = covering(main, prefix, 0) {
                    plan.insert((*prefix, LIVE), target_of(way, *fail_closed));
                }
                if *fail_closed {
                    plan.insert((*prefix, BACKSTOP), Target::Blackhole);
                } else if is_inside_closed(classes, prefix) {
                    plan.insert((*prefix, BACKSTOP), Target::Throw);
                }
            }
        }
    }
    let behind_us = |route: &&MainRoute| !served.iter().any(|prefix| prefix.covers(&route.dst));
    for route in main.values().filter(behind_us) {
        mirror(&mut plan, classes, route);
    }
    plan.extend(gateways(classes, main).map(|host| ((host, LIVE), Target::Throw)));
    // What comes out of a tunnel for a host behind us must find its way to it.
    let ours = addresses.iter().map(|addr| Prefix::host(*addr)).chain(served.iter().copied());
    for prefix in never().chain(ours) {
        plan.insert((prefix, LIVE), Target::Throw);
        plan.remove(&(prefix, BACKSTOP));
    }
    plan
}

/// The guard for these classes: what must stay closed while no daemon runs, and inside it what is
/// open, hosts behind us among it. Without any class it still holds [`NEVER`], by which it is known
/// to be there.
pub(super) fn guard(
    classes: &BTreeMap<Prefix, Class>,
    main: &BTreeMap<Prefix, MainRoute>,
    served: &[Prefix],
) -> Plan {
    let mut plan = Plan::new();
    for (prefix, class) in classes {
        let target = match class {
            Class::Trap { fail_closed: true } => Target::Blackhole,
            Class::Block => Target::Prohibit,
            Class::Trap { fail_closed: false } | Class::Pass
                if is_inside_closed(classes, prefix) =>
            {
                Target::Throw
            }
            Class::Trap { fail_closed: false } | Class::Pass => continue,
        };
        plan.insert((*prefix, GUARD), target);
    }
    let closed = gateways(classes, main).filter(|host| is_inside_closed(classes, host));
    plan.extend(closed.map(|host| ((host, GUARD), Target::Throw)));
    let closes = |target: &Target| matches!(target, Target::Blackhole | Target::Prohibit);
    for prefix in served {
        let closed = plan.get(&(*prefix, GUARD)).is_some_and(closes);
        if closed || is_inside_closed(classes, prefix) {
            plan.insert((*prefix, GUARD), Target::Throw);
        }
    }
    plan.extend(never().map(|prefix| ((prefix, GUARD), Target::Throw)));
    plan
}

/// The gateways of the main table. An administrator who names one's own address means it.
fn gateways(
    classes: &BTreeMap<Prefix, Class>,
    main: &BTreeMap<Prefix, MainRoute>,
) -> impl Iterator<Item = Prefix> {
    let all = main.values().flat_map(|route| &route.gateways).map(|addr| Prefix::host(*addr));
    all.filter(|host| !classes.contains_key(host))
}

/// Why the node's table leaves an address to the main table whatever its class; `None` if it does not.
pub(super) fn left_alone(
    addr: IpAddr,
    classes: &BTreeMap<Prefix, Class>,
    main: &BTreeMap<Prefix, MainRoute>,
    addresses: &[IpAddr],
    served: &[Prefix],
) -> Option<LeftAlone> {
    if is_left_alone(addr) || addresses.contains(&addr) {
        return Some(LeftAlone::OfTheLink);
    }
    if served.iter().any(|prefix| prefix.contains(addr)) {
        return Some(LeftAlone::BehindUs);
    }
    gateways(classes, main).any(|host| host == Prefix::host(addr)).then_some(LeftAlone::NextHop)
}

/// What packets go past us for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LeftAlone {
    /// Loopback, link-local, multicast, broadcast.
    OfTheLink,
    /// A host behind us.
    BehindUs,
    /// A gateway of the main table.
    NextHop,
}

/// Whether what is around a prefix stays closed while no daemon runs.
fn is_inside_closed(classes: &BTreeMap<Prefix, Class>, prefix: &Prefix) -> bool {
    let around = (0..prefix.len())
        .rev()
        .find_map(|len| classes.get(&Prefix::new(prefix.addr(), len).ok()?).copied());
    matches!(around, Some(Class::Block | Class::Trap { fail_closed: true }))
}

/// Adds a trapping route for a destination of the main table that lies inside a trapped prefix
/// and has a way, and with it a source address, of its own.
fn mirror(plan: &mut Plan, classes: &BTreeMap<Prefix, Class>, route: &MainRoute) {
    let class = (0..=route.dst.len()).rev().find_map(|len| {
        let prefix = Prefix::new(route.dst.addr(), len).ok()?;
        Some((prefix, *classes.get(&prefix)?))
    });
    let Some((prefix, Class::Trap { fail_closed })) = class else { return };
    // A connected fe80::/64 would be longer than the throw that must win over it.
    if prefix == route.dst || never().any(|never| never.covers(&route.dst)) {
        return;
    }
    let target = target_of(route, fail_closed);
    let around = (prefix.len()..route.dst.len())
        .rev()
        .find_map(|len| plan.get(&(Prefix::new(route.dst.addr(), len).ok()?, LIVE)).copied());
    if around != Some(target) {
        plan.insert((route.dst, LIVE), target);
    }
}

/// Where a trapping prefix leads that the main table reaches like this. A main table that says
/// "unreachable" today may say something else before we hear of it, so what must never go in the
/// clear is not left to it.
fn target_of(route: &MainRoute, fail_closed: bool) -> Target {
    match (route.unicast, fail_closed) {
        (true, _) => Target::Device { source: route.source },
        (false, true) => Target::Blackhole,
        (false, false) => Target::Throw,
    }
}

/// The prefixes of [`NEVER`].
pub(super) fn never() -> impl Iterator<Item = Prefix> {
    NEVER.iter().filter_map(|text| text.parse().ok())
}

/// The main table's route for a whole prefix.
fn covering<'a>(
    main: &'a BTreeMap<Prefix, MainRoute>,
    prefix: &Prefix,
    shortest: u8,
) -> Option<&'a MainRoute> {
    (shortest..=prefix.len()).rev().find_map(|len| main.get(&Prefix::new(prefix.addr(), len).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn route(dst: &str, source: &str, gateway: Option<&str>) -> (Prefix, MainRoute) {
        let gateways = gateway.into_iter().map(ip).collect();
        (p(dst), MainRoute { dst: p(dst), unicast: true, source: Some(ip(source)), gateways })
    }

    #[test]
    fn connected_link_local_prefixes_are_never_trapped() {
        let trap = Class::Trap { fail_closed: false };
        let classes = BTreeMap::from([(Prefix::ALL_V6, trap)]);
        let main = BTreeMap::from([
            route("::/0", "2001:db8::11", Some("2001:db8::1")),
            route("fe80::/64", "fe80::11", None),
            route("2001:db8:7::/64", "2001:db8:7::11", None),
        ]);
        let plan = plan(&classes, &main, &[], &[]);
        assert_eq!(plan.get(&(p("fe80::/64"), LIVE)), None);
        assert_eq!(plan.get(&(p("fe80::/10"), LIVE)), Some(&Target::Throw));
        assert!(plan.contains_key(&(p("2001:db8:7::/64"), LIVE)));
    }

    fn device(source: &str) -> Option<Target> {
        Some(Target::Device { source: Some(ip(source)) })
    }

    const CLOSED: Class = Class::Trap { fail_closed: true };
    const OPEN: Class = Class::Trap { fail_closed: false };

    /// CVE-2023-35838, CVE-2023-36671, CVE-2023-36672, CVE-2023-36673, CVE-2024-3661: whatever a
    /// DHCP server says is near, or behind another gateway, is trapped like everything else, and no
    /// peer's address is exempt.
    #[test]
    fn a_prefix_is_trapped_where_it_can_be_reached() {
        let main = BTreeMap::from([
            route("0.0.0.0/0", "192.0.2.1", Some("192.0.2.254")),
            route("192.0.2.0/24", "192.0.2.1", None),
            route("10.5.0.0/16", "10.5.0.1", None),
            // Option 121 (RFC 3442).
            route("128.0.0.0/1", "10.5.0.1", Some("10.5.0.254")),
        ]);
        let classes = BTreeMap::from([(p("0.0.0.0/0"), OPEN), (p("::/0"), CLOSED)]);
        let plan = plan(&classes, &main, &[ip("192.0.2.1")], &[]);
        let at = |prefix: &str, metric| plan.get(&(p(prefix), metric)).copied();
        assert_eq!(at("0.0.0.0/0", LIVE), device("192.0.2.1"));
        assert_eq!(at("0.0.0.0/0", BACKSTOP), None, "private-or-clear fails open");
        assert_eq!(at("10.5.0.0/16", LIVE), device("10.5.0.1"), "another source");
        assert_eq!(at("128.0.0.0/1", LIVE), device("10.5.0.1"), "another way");
        assert_eq!(at("192.0.2.0/24", LIVE), device("192.0.2.1"), "another source than around it");
        let thrown = plan.iter().filter(|(_, target)| **target == Target::Throw);
        assert!(thrown.clone().all(|((prefix, _), _)| !prefix.contains(ip("203.0.113.7"))));
        assert_eq!(at("192.0.2.254/32", LIVE), Some(Target::Throw), "the gateway");
        let alone = |addr: &str| left_alone(ip(addr), &classes, &main, &[ip("192.0.2.255")], &[]);
        assert_eq!(alone("192.0.2.254"), Some(LeftAlone::NextHop));
        assert_eq!(alone("10.5.0.254"), Some(LeftAlone::NextHop), "whoever said so");
        assert_eq!(alone("192.0.2.255"), Some(LeftAlone::OfTheLink));
        assert_eq!(alone("ff02::1"), Some(LeftAlone::OfTheLink));
        assert_eq!(alone("192.0.2.77"), None);
        assert_eq!(at("192.0.2.1/32", LIVE), Some(Target::Throw), "our own address");
        assert_eq!(at("224.0.0.0/4", LIVE), Some(Target::Throw));
        assert_eq!(at("::/0", LIVE), None, "there is no way to anywhere in IPv6");
        assert_eq!(at("::/0", BACKSTOP), Some(Target::Blackhole), "but private stays closed");
    }

    #[test]
    fn hosts_behind_us_are_never_trapped() {
        let main = BTreeMap::from([
            route("0.0.0.0/0", "192.0.2.1", None),
            route("10.5.0.0/24", "10.5.0.1", None),
        ]);
        let classes = BTreeMap::from([(p("0.0.0.0/0"), CLOSED)]);
        let plan = plan(&classes, &main, &[], &[p("10.5.0.0/16")]);
        assert_eq!(plan.get(&(p("10.5.0.0/16"), LIVE)), Some(&Target::Throw));
        assert_eq!(plan.get(&(p("10.5.0.0/24"), LIVE)), None);
    }

    #[test]
    fn the_longest_class_decides_what_is_mirrored() {
        let main = BTreeMap::from([
            route("0.0.0.0/0", "192.0.2.1", None),
            route("10.5.0.0/16", "10.5.0.1", None),
            route("172.16.9.0/24", "172.16.9.1", None),
        ]);
        let classes = BTreeMap::from([
            (p("0.0.0.0/0"), OPEN),
            (p("10.0.0.0/8"), Class::Pass),
            (p("172.16.0.0/12"), CLOSED),
            (p("198.51.100.0/24"), Class::Block),
        ]);
        let plan = plan(&classes, &main, &[], &[]);
        let at = |prefix: &str, metric| plan.get(&(p(prefix), metric)).copied();
        assert_eq!(at("10.0.0.0/8", LIVE), Some(Target::Throw));
        assert_eq!(at("10.5.0.0/16", LIVE), None, "inside a clear prefix");
        assert_eq!(at("172.16.0.0/12", LIVE), device("192.0.2.1"));
        assert_eq!(at("172.16.0.0/12", BACKSTOP), Some(Target::Blackhole));
        assert_eq!(at("172.16.9.0/24", LIVE), device("172.16.9.1"));
        assert_eq!(at("198.51.100.0/24", LIVE), Some(Target::Prohibit));
    }

    #[test]
    fn what_fails_open_inside_of_what_is_closed_still_does() {
        let main = BTreeMap::from([route("0.0.0.0/0", "192.0.2.1", None)]);
        let classes = BTreeMap::from([
            (p("0.0.0.0/0"), CLOSED),
            (p("10.0.0.0/8"), OPEN),
            (p("10.5.0.0/16"), OPEN),
        ]);
        let plan = plan(&classes, &main, &[], &[]);
        let at = |prefix: &str, metric| plan.get(&(p(prefix), metric)).copied();
        assert_eq!(at("0.0.0.0/0", BACKSTOP), Some(Target::Blackhole));
        assert_eq!(at("10.0.0.0/8", LIVE), device("192.0.2.1"));
        assert_eq!(at("10.0.0.0/8", BACKSTOP), Some(Target::Throw));
        assert_eq!(at("10.5.0.0/16", BACKSTOP), None, "open inside of what is open");
    }

    #[test]
    fn the_guard_closes_what_is_closed_and_opens_what_is_open_inside() {
        let main = BTreeMap::from([route("0.0.0.0/0", "10.5.0.1", Some("10.5.0.254"))]);
        let classes = BTreeMap::from([
            (p("0.0.0.0/0"), OPEN),
            (p("10.0.0.0/8"), CLOSED),
            (p("10.5.0.0/16"), Class::Pass),
            (p("10.5.0.0/24"), CLOSED),
            (p("10.6.0.0/16"), OPEN),
            (p("10.6.7.0/24"), Class::Pass),
            (p("198.51.100.0/24"), Class::Block),
            (p("203.0.113.0/24"), Class::Pass),
            (p("::/0"), CLOSED),
        ]);
        let plan = guard(&classes, &main, &[p("10.7.0.0/16"), p("192.168.0.0/16")]);
        let at = |prefix: &str| plan.get(&(p(prefix), GUARD)).copied();
        assert_eq!(at("10.0.0.0/8"), Some(Target::Blackhole));
        assert_eq!(at("10.5.0.0/16"), Some(Target::Throw));
        assert_eq!(at("10.5.0.0/24"), Some(Target::Blackhole));
        assert_eq!(at("10.5.0.254/32"), Some(Target::Throw), "the gateway");
        assert_eq!(at("10.6.0.0/16"), Some(Target::Throw));
        assert_eq!(at("10.6.7.0/24"), None, "open inside of what is open");
        assert_eq!(at("198.51.100.0/24"), Some(Target::Prohibit));
        assert_eq!(at("10.7.0.0/16"), Some(Target::Throw), "hosts behind us");
        assert_eq!(at("192.168.0.0/16"), None, "hosts behind us that nothing closes");
        assert_eq!(at("::/0"), Some(Target::Blackhole));
        assert_eq!(at("fe80::/10"), Some(Target::Throw), "P17");
        assert_eq!((at("0.0.0.0/0"), at("203.0.113.0/24")), (None, None));
        assert_eq!(guard(&BTreeMap::new(), &main, &[]).len(), NEVER.len());
    }

    #[test]
    fn what_main_refuses_stays_refused_by_main() {
        let mut main = BTreeMap::from([
            route("0.0.0.0/0", "192.0.2.1", None),
            route("10.0.0.0/8", "192.0.2.1", None),
        ]);
        main.get_mut(&p("10.0.0.0/8")).unwrap().unicast = false;
        let plan = plan(&BTreeMap::from([(p("0.0.0.0/0"), OPEN)]), &main, &[], &[]);
        assert_eq!(plan.get(&(p("10.0.0.0/8"), LIVE)), Some(&Target::Throw));
    }
}
