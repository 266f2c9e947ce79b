//! The ground under configured connections: which packets belong to them is a matter of source and
//! destination, so it is rules that lead to the device, and rules that keep everybody else's
//! packets out.
//!
//! ```text
//! P    our own marked packets                        → rules of the node's own table
//! P+1  what stays on our side                        → main, but for its default route
//! P+2  from local to remote                          → table T+1: the device, else nothing
//! P+3  what came out of the device                   → main
//! P+5  from remote to local, by any other way        → nowhere
//! ```
//!
//! The guard is the same rules, and a black hole in table T+1 at its own metric. Nobody follows the
//! main table for it, so it takes nothing that comes from elsewhere to be near.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use sa::{Prefix, Subnets};

use super::plan::{self, BACKSTOP, GUARD, LIVE, MainRoute, Plan, Target};
use super::routes::{Routes, Standing, is_without_ipv6};
use super::rules::{LOOPBACK, MAIN, Rule, Rules, Verdict};

/// Which of the connections between two prefixes are up: their places in the configuration.
pub(super) type Links = BTreeSet<u32>;

/// What the rules depend on besides the connections themselves.
pub(super) struct Surroundings<'a> {
    pub(super) interface: &'a str,
    /// The table of the connections' own.
    pub(super) table: u32,
    /// Of the rule that leads to the node's own table; ours come right before it.
    pub(super) priority: u32,
    pub(super) mark: u32,
    pub(super) main: &'a BTreeMap<Prefix, MainRoute>,
    pub(super) addresses: &'a [IpAddr],
    /// Whether nobody is there to follow the addresses: any of a local prefix may come to be ours.
    pub(super) unattended: bool,
}

/// The rules for these subnets.
pub(super) fn rules(
    subnets: &BTreeMap<Subnets, Links>,
    around: &Surroundings<'_>,
) -> BTreeSet<Rule> {
    let first = around.priority.saturating_sub(RULES);
    let nothing = BTreeMap::new();
    // What is near today need not be tomorrow.
    let near = if around.unattended { &nothing } else { around.main };
    let mut rules = BTreeSet::new();
    for v6 in [false, true] {
        let of_family = |s: &&Subnets| s.local().addr().is_ipv6() == v6;
        if !subnets.keys().any(|s| of_family(&s)) {
            continue;
        }
        let at = |step: u32, verdict| Rule::new(first + step, v6, verdict);
        rules.insert(at(0, Verdict::Goto(around.priority)).marked(around.mark));
        rules.insert(at(3, Verdict::Lookup(MAIN)).by(around.interface));
        for between in subnets.keys().filter(of_family) {
            let (local, remote) = (between.local(), between.remote());
            for ours in staying(between, near) {
                rules.insert(at(1, Verdict::Lookup(MAIN)).from(ours).to(local));
            }
            if remote.len() == 0 {
                // Where everything else is remote, what the main table knows better is not.
                let would = sends_from(local, around);
                rules.extend(at(1, Verdict::LookupSpecific(MAIN)).or_unbound(local, would));
                rules.extend(at(2, Verdict::Lookup(around.table)).or_unbound(local, would));
            } else {
                rules.insert(at(2, Verdict::Lookup(around.table)).from(local).to(remote));
            }
            if remote.len() > 0 && (around.unattended || own(local, around).is_some()) {
                let unbound = at(2, Verdict::Lookup(around.table)).to(remote);
                rules.insert(unbound.by(LOOPBACK));
            }
            // The reverse-path filter asks so for what local hosts send to remote ones.
            rules.insert(at(4, Verdict::Lookup(MAIN)).from(remote).to(local).by(LOOPBACK));
            rules.insert(at(5, Verdict::Blackhole).from(remote).to(local));
        }
    }
    rules
}

/// The routes of the connections' table: everything that gets there is for the device, or for
/// nobody.
pub(super) fn routes(subnets: &BTreeMap<Subnets, Links>, around: &Surroundings<'_>) -> Plan {
    let mut plan = Plan::new();
    for (between, links) in subnets {
        let remote = between.remote();
        let all = if remote.addr().is_ipv4() { Prefix::ALL_V4 } else { Prefix::ALL_V6 };
        plan.entry((all, LIVE)).or_insert(Target::Device { source: None });
        plan.insert((all, BACKSTOP), Target::Blackhole);
        let device = target(between, around);
        if device != (Target::Device { source: None }) {
            plan.insert((remote, LIVE), device);
            plan.insert((remote, BACKSTOP), Target::Blackhole);
        }
        plan.extend(metrics(links).map(|metric| ((remote, metric), device)));
    }
    for prefix in plan::never() {
        let same = |s: &Subnets| s.remote().addr().is_ipv4() == prefix.addr().is_ipv4();
        if subnets.keys().any(same) {
            plan.insert((prefix, LIVE), Target::Throw);
        }
    }
    plan
}

/// The metrics of the routes that show which links are up.
fn metrics(links: &Links) -> impl Iterator<Item = u32> {
    links
        .iter()
        .filter(|place| UP.contains(&(UP.start() + **place)))
        .map(|place| UP.start() + place)
}

/// The way to a remote prefix: the device, with a source of ours if we have one in the local prefix;
/// where everything is remote, if it is the one that we would send from otherwise.
fn target(between: &Subnets, around: &Surroundings<'_>) -> Target {
    let local = between.local();
    let source = match between.remote().len() {
        0 => {
            usual_source(local, around).filter(|source| local.len() > 0 && local.contains(*source))
        }
        _ => own(local, around),
    };
    Target::Device { source }
}

/// Whether what this host sends without saying from where goes from the local prefix. If nobody is
/// there to follow the routes, and there is no default route yet, it may.
fn sends_from(local: Prefix, around: &Surroundings<'_>) -> bool {
    match usual_source(local, around) {
        Some(source) => local.contains(source),
        None => around.unattended,
    }
}

/// The source that the default route gives in a prefix's family.
fn usual_source(local: Prefix, around: &Surroundings<'_>) -> Option<IpAddr> {
    let all = if local.addr().is_ipv4() { Prefix::ALL_V4 } else { Prefix::ALL_V6 };
    around.main.get(&all).filter(|route| route.unicast)?.source
}

/// The guard's routes of the connections' table, which stand without a daemon.
pub(super) fn guard_routes(subnets: impl Iterator<Item = Subnets>) -> Plan {
    let mut plan = Plan::new();
    for remote in subnets.map(|between| between.remote()) {
        let v4 = remote.addr().is_ipv4();
        let all = if v4 { Prefix::ALL_V4 } else { Prefix::ALL_V6 };
        if plan.insert((all, GUARD), Target::Blackhole).is_none() {
            let never = plan::never().filter(|prefix| prefix.addr().is_ipv4() == v4);
            plan.extend(never.map(|prefix| ((prefix, GUARD), Target::Throw)));
        }
    }
    plan
}

/// The connections whose packets these rules lead to the connections' table.
pub(super) fn led(rules: &[Rule], table: u32, priority: u32) -> BTreeSet<Subnets> {
    let leads = |rule: &&Rule| {
        rule.priority == priority.saturating_sub(RULES) + 2
            && rule.verdict == Verdict::Lookup(table)
            && rule.interface.is_none()
    };
    let between = |rule: &Rule| {
        let all = if rule.v6 { Prefix::ALL_V6 } else { Prefix::ALL_V4 };
        Subnets::new(rule.from.unwrap_or(all), rule.to.unwrap_or(all))
    };
    rules.iter().filter(leads).filter_map(between).collect()
}

/// Prefixes inside the remote one that are on our side all the same: the local one itself, and,
/// where everything is remote, what the main table knows better than by its default route.
pub(super) fn staying(between: &Subnets, main: &BTreeMap<Prefix, MainRoute>) -> Vec<Prefix> {
    let (local, remote) = (between.local(), between.remote());
    let mut prefixes = BTreeSet::new();
    // A whole family is nobody's own side.
    if remote.covers(&local) && local.len() > 0 {
        prefixes.insert(local);
    }
    if remote.len() == 0 {
        let specific = main.values().filter(|route| route.unicast && route.dst.len() > 0);
        let same = |prefix: &Prefix| prefix.addr().is_ipv4() == remote.addr().is_ipv4();
        prefixes.extend(specific.map(|route| route.dst).filter(same).take(MAX_STAYING));
    }
    prefixes.into_iter().collect()
}

/// An address of ours inside a local prefix: what this host sends of itself may go through the
/// connection then. Where everything is local, no address tells that.
fn own(local: Prefix, around: &Surroundings<'_>) -> Option<IpAddr> {
    around.addresses.iter().copied().find(|addr| local.len() > 0 && local.contains(*addr))
}

/// The connections' table and rules as they stand.
pub(super) struct SubnetGround {
    rules: Rules,
    routes: Routes,
    installed_rules: BTreeSet<Rule>,
    installed_routes: Plan,
    /// What a predecessor left stays until all has been said anew.
    keep: bool,
}

impl SubnetGround {
    /// Takes over what a predecessor left: its rules and black holes stand until [`Self::settle`],
    /// and so do the guard's routes.
    pub(super) fn open(mark: u32, table: u32) -> io::Result<Self> {
        let mut rules = Rules::open()?;
        let mut routes = Routes::open(mark, table)?;
        let installed_rules = rules.list()?.into_iter().collect();
        let stays = |s: &Standing| {
            s.metric == GUARD || (s.metric, s.target) == (BACKSTOP, Target::Blackhole)
        };
        let kept = routes.flush(stays)?;
        let installed_routes = kept.into_iter().map(|s| ((s.prefix, s.metric), s.target)).collect();
        Ok(Self { rules, routes, installed_rules, installed_routes, keep: true })
    }

    /// Sees what stands, so that the next [`Self::follow`] puts back what is gone: the kernel takes
    /// routes to a device away with their source address or the link, and others take what they
    /// please. How many rules and routes to nowhere were gone that only others take.
    pub(super) fn look(&mut self, device: u32) -> io::Result<usize> {
        let rules: BTreeSet<Rule> = self.rules.list()?.into_iter().collect();
        let routes = self.routes.held(device)?;
        let lost = self.installed_rules.difference(&rules).count()
            + plan::lost(&self.installed_routes, &routes).count();
        self.installed_rules = rules;
        self.installed_routes = routes;
        Ok(lost)
    }

    /// The ports of our sockets.
    pub(super) fn ports(&self) -> [u32; 2] {
        [self.rules.port(), self.routes.port()]
    }

    /// Sees what stands of the guard: others make and remove it, too.
    pub(super) fn look_for_guard(&mut self) -> io::Result<()> {
        let standing = self.routes.standing(GUARD)?;
        self.installed_routes.retain(|(_, metric), _| *metric != GUARD);
        self.installed_routes.extend(standing);
        Ok(())
    }

    /// From now on only what is wanted stands.
    pub(super) fn settle(&mut self) {
        self.keep = false;
    }

    /// Makes rules and routes what they must be: what is new first. One that the kernel refuses
    /// does not keep the others from it.
    pub(super) fn follow(
        &mut self,
        device: u32,
        rules: BTreeSet<Rule>,
        routes: &Plan,
    ) -> io::Result<()> {
        let mut done = Ok(());
        for ((prefix, metric), target) in routes {
            if self.installed_routes.get(&(*prefix, *metric)) != Some(target) {
                let put = match self.routes.put(*prefix, *metric, *target, device) {
                    Err(error) if is_without_ipv6(&error, prefix) => continue,
                    put => put,
                };
                if put.is_ok() {
                    self.installed_routes.insert((*prefix, *metric), *target);
                }
                done = done.and(put);
            }
        }
        for rule in rules.difference(&self.installed_rules.clone()) {
            let added = self.rules.add(rule);
            if added.is_ok() {
                self.installed_rules.insert(rule.clone());
            }
            done = done.and(added);
        }
        if self.keep {
            return done;
        }
        for rule in self.installed_rules.clone().difference(&rules) {
            let deleted = self.rules.delete(rule);
            if deleted.is_ok() {
                self.installed_rules.remove(rule);
            }
            done = done.and(deleted);
        }
        let stale = |key: &&(Prefix, u32)| !routes.contains_key(key);
        let stale: Vec<_> = self.installed_routes.keys().filter(stale).copied().collect();
        for key in stale {
            if let Some(target) = self.installed_routes.remove(&key) {
                let deleted = self.routes.delete(key.0, key.1, target);
                done = done.and(deleted);
            }
        }
        done
    }

    /// A connection to `remote` has come up or gone down, and nothing else has changed: what
    /// [`Self::follow`] would do for it, without looking at all the others.
    pub(super) fn follow_one(
        &mut self,
        device: u32,
        remote: Prefix,
        subnets: &BTreeMap<Subnets, Links>,
        around: &Surroundings<'_>,
    ) -> io::Result<()> {
        let mut wanted = Plan::new();
        for (between, links) in subnets.iter().filter(|(between, _)| between.remote() == remote) {
            let device = target(between, around);
            wanted.extend(metrics(links).map(|metric| ((remote, metric), device)));
        }
        let mut stale = self.installed_routes.range((remote, *UP.start())..=(remote, *UP.end()));
        let stale: Vec<_> = stale
            .by_ref()
            .filter(|(key, _)| !wanted.contains_key(key))
            .map(|(key, target)| (*key, *target))
            .collect();
        for (key, wanted) in wanted {
            if self.installed_routes.get(&key) == Some(&wanted) {
                continue;
            }
            match self.routes.put(remote, key.1, wanted, device) {
                Err(error) if is_without_ipv6(&error, &remote) => continue,
                put => put?,
            }
            self.installed_routes.insert(key, wanted);
        }
        for (key, old) in stale {
            self.installed_routes.remove(&key);
            self.routes.delete(remote, key.1, old)?;
        }
        Ok(())
    }

    /// Removes everything.
    pub(super) fn down(&mut self) -> io::Result<()> {
        self.keep = false;
        for rule in std::mem::take(&mut self.installed_rules) {
            self.rules.delete(&rule)?;
        }
        self.installed_routes.clear();
        self.routes.flush(|_| false).map(drop)
    }
}

/// Metrics of the routes to a remote prefix while connections to it are up, one for each of those
/// between the same prefixes; more than these are not shown. They change nothing about where
/// packets go: they are for those who watch routes.
const UP: RangeInclusive<u32> = 50..=81;
/// Priorities before the node's own rule that belong to connections.
const RULES: u32 = 8;
/// Prefixes of the main table that stay local beside a connection to everywhere; a host with more
/// routes than this knows the Internet, and has no use for a default route.
const MAX_STAYING: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn p(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn between(local: &str, remote: &str) -> BTreeMap<Subnets, Links> {
        [(Subnets::new(p(local), p(remote)).unwrap(), Links::new())].into()
    }

    fn main(routes: &[(&str, &str)]) -> BTreeMap<Prefix, MainRoute> {
        let route = |(dst, source): &(&str, &str)| {
            let source = Some(source.parse().unwrap());
            (p(dst), MainRoute { dst: p(dst), unicast: true, source, gateways: Vec::new() })
        };
        routes.iter().map(route).collect()
    }

    fn around<'a>(
        main: &'a BTreeMap<Prefix, MainRoute>,
        addresses: &'a [IpAddr],
    ) -> Surroundings<'a> {
        Surroundings {
            interface: "ipsec0",
            table: 4323,
            priority: 4322,
            mark: 0x4322,
            main,
            addresses,
            unattended: false,
        }
    }

    #[test]
    fn a_borrower_sends_by_source_and_keeps_its_own_local() {
        let main = main(&[("0.0.0.0/0", "192.0.2.1"), ("10.0.0.0/24", "10.0.0.1")]);
        let addresses = ["203.0.113.1".parse().unwrap()];
        let around = around(&main, &addresses);
        let rules = rules(&between("203.0.113.0/28", "0.0.0.0/0"), &around);
        let all: Vec<Rule> = rules.iter().cloned().collect();
        let known = between("203.0.113.0/28", "0.0.0.0/0").into_keys().collect();
        assert_eq!(led(&all, 4323, 4322), known);
        let has = |rule: Rule| assert!(rules.contains(&rule), "{rule:?} is not in {rules:#?}");
        let lent = p("203.0.113.0/28");
        has(Rule::new(4316, false, Verdict::Lookup(4323)).from(lent));
        has(Rule::new(4315, false, Verdict::LookupSpecific(MAIN)).from(lent));
        has(Rule::new(4315, false, Verdict::Lookup(MAIN)).from(p("10.0.0.0/24")).to(lent));
        has(Rule::new(4319, false, Verdict::Blackhole).to(lent));
        // What this host sends of itself has an address of its own.
        assert!(!rules.iter().any(|r| r.priority == 4316 && r.interface.is_some()));
        let routes = routes(&between("203.0.113.0/28", "0.0.0.0/0"), &around);
        let device = Target::Device { source: None };
        assert_eq!(routes.get(&(Prefix::ALL_V4, LIVE)), Some(&device));
        assert_eq!(routes.get(&(Prefix::ALL_V4, BACKSTOP)), Some(&Target::Blackhole));
        assert_eq!(routes.get(&(p("127.0.0.0/8"), LIVE)), Some(&Target::Throw));
        let v6 = routes.keys().find(|(prefix, _)| prefix.addr().is_ipv6());
        assert_eq!(v6, None, "the kernel need not know a family that nobody speaks");
    }

    #[test]
    fn a_gateway_inside_its_own_subnet_sends_from_there() {
        let main = main(&[("0.0.0.0/0", "192.0.2.1")]);
        let addresses = ["10.1.0.1".parse().unwrap()];
        let around = around(&main, &addresses);
        let subnets = between("10.1.0.0/16", "10.0.0.0/8");
        let rules = rules(&subnets, &around);
        let stays = Rule::new(4315, false, Verdict::Lookup(MAIN)).from(p("10.1.0.0/16"));
        assert!(rules.contains(&stays.to(p("10.1.0.0/16"))), "{rules:#?}");
        let routes = routes(&subnets, &around);
        let unbound = Rule::new(4316, false, Verdict::Lookup(4323)).to(p("10.0.0.0/8")).by("lo");
        let away: [IpAddr; 0] = [];
        for (addresses, unattended, led) in
            [(&addresses[..], false, true), (&away[..], false, false), (&away[..], true, true)]
        {
            let around = Surroundings { addresses, unattended, ..around };
            assert_eq!(super::rules(&subnets, &around).contains(&unbound), led, "{addresses:?}");
        }
        let own = Target::Device { source: Some(addresses[0]) };
        assert_eq!(routes.get(&(p("10.0.0.0/8"), LIVE)), Some(&own));
        assert_eq!(routes.get(&(p("10.0.0.0/8"), 50)), None, "it is down");
        let up = subnets.into_keys().map(|s| (s, Links::from([0, 2]))).collect();
        let routes = super::routes(&up, &around);
        let shown = |metric| routes.get(&(p("10.0.0.0/8"), metric)).copied();
        assert_eq!([50, 51, 52].map(shown), [Some(own), None, Some(own)]);
    }
}
