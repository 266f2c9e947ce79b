//! The guard: rules and routes that keep closed prefixes closed while no daemon runs, and what is
//! between the subnets of configured connections.
//!
//! It is made from the configuration alone, before there is a network, and stands until it is
//! taken down: beneath a daemon that starts, runs, crashes or stops. Nothing of it runs.
//!
//! ```text
//! table T, by metric    100  the daemon's: ipsec0, throw, black holes    gone with the daemon
//!                       200  black holes under its private traps         left by a crash
//!                       300  the guard's: black hole for private, prohibit for block, and throw
//!                            for what is open inside them                left until `guard down`
//! table T+1             the same for connections: everything that gets there is for them
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use sa::{Class, Prefix, Subnets};

use super::fence::{ANY_DEVICE, FENCE, Fence, Yard};
use super::ground::{GroundConfig, KernelError, doing};
use super::plan::{self, GUARD, LIVE, MainRoute, Plan, Target};
use super::routes::{Routes, Standing, is_without_ipv6};
use super::rules::Rules;
use super::spd::Spd;
use super::subnets::{self, SubnetGround, Surroundings};

/// What the guard is to close.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Closed {
    /// The policy groups.
    pub(crate) classes: BTreeMap<Prefix, Class>,
    /// Subnets of configured connections, those lent and borrowed included: whatever is between
    /// them, whatever the groups say.
    pub(crate) between: BTreeSet<Subnets>,
}

/// The guard as one may look at it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct GuardView {
    /// Whether any of it stands.
    pub(crate) up: bool,
    /// Rules that lead to the table, of both families together.
    pub(crate) rules: usize,
    /// What it closes.
    pub(crate) closed: Vec<Prefix>,
    /// What the policy groups ask of it and it does not have.
    pub(crate) missing: Vec<Prefix>,
    /// What it has and the policy groups do not ask of it.
    pub(crate) stale: Vec<Prefix>,
    /// Connections that are closed.
    pub(crate) between: Vec<Subnets>,
    /// Connections that are configured and not closed.
    pub(crate) missing_between: Vec<Subnets>,
    /// Connections that are closed and not configured.
    pub(crate) stale_between: Vec<Subnets>,
}

/// The guard, for whoever sets it up or takes it down from outside the daemon.
pub(crate) struct Guard {
    config: GroundConfig,
    routes: Routes,
}

impl Guard {
    /// Opens the kernel's routing.
    ///
    /// # Errors
    /// If the kernel gives no such socket.
    pub(crate) fn open(config: GroundConfig) -> Result<Self, KernelError> {
        let routes =
            Routes::open(config.mark, config.table).map_err(doing("opening a routing socket"))?;
        Ok(Self { config, routes })
    }

    /// Closes what is to be closed; again, what is by now. Routes come before the rules that lead
    /// to them, new ones before old ones go: nothing is open in between.
    ///
    /// # Errors
    /// If the kernel refuses; what was done stays.
    pub(crate) fn up(&mut self, closed: &Closed) -> Result<(), KernelError> {
        let device = self.device()?;
        let main = self.routes.main_routes(device.unwrap_or(0));
        let main = main.map_err(doing("reading the main routing table"))?;
        let wanted = plan::guard(&closed.classes, &main, &self.config.served);
        let standing = self.standing()?;
        put_missing(&mut self.routes, &wanted, &standing)?;
        self.routes.add_rules(self.config.priority).map_err(doing("adding the routing rule"))?;
        for ((prefix, metric), target) in standing {
            if !wanted.contains_key(&(prefix, metric)) {
                self.routes
                    .delete(prefix, metric, target)
                    .map_err(doing("removing a route of the guard"))?;
            }
        }
        let routes = subnets::guard_routes(closed.between.iter().copied());
        if device.is_some() {
            // The rules are the daemon's, and say the same.
            let mut subnets = self.subnets()?;
            let standing = subnets.standing(GUARD).map_err(doing("reading the routing table"))?;
            return put_missing(&mut subnets, &routes, &standing);
        }
        // What a daemon that crashed had found to be clear is for the next one to find.
        let found = |s: &Standing| s.metric != LIVE || s.target != Target::Throw;
        self.routes.flush(found).map_err(doing("removing old routes"))?;
        self.fence(closed, &main, &wanted)?;
        self.close_between(closed, &main, &routes)
    }

    /// What keeps those in who bind sockets to devices. No daemon runs, so there is none to spare.
    fn fence(
        &mut self,
        closed: &Closed,
        main: &BTreeMap<Prefix, MainRoute>,
        plan: &Plan,
    ) -> Result<(), KernelError> {
        // No XFRM, no fence.
        let Ok(mut fence) = Fence::open() else { return Ok(()) };
        let addresses = self.routes.addresses().map_err(doing("reading the addresses"))?;
        let broadcasts = addresses.iter().filter_map(|a| a.broadcast.map(IpAddr::V4));
        let never: Vec<IpAddr> = addresses.iter().map(|a| a.addr).chain(broadcasts).collect();
        let staying = |between: &Subnets| (*between, subnets::staying(between, main));
        let yard = Yard {
            closed: plan,
            ports: &BTreeMap::new(),
            between: &closed.between.iter().map(staying).collect(),
            never: &never,
            devices: &[ANY_DEVICE],
            mark: self.config.mark,
        };
        fence.follow(&yard, true).map_err(doing("making the fence"))
    }

    fn close_between(
        &self,
        closed: &Closed,
        main: &BTreeMap<Prefix, MainRoute>,
        routes: &Plan,
    ) -> Result<(), KernelError> {
        let around = Surroundings { unattended: true, ..self.config.surroundings(main, &[]) };
        let subnets =
            closed.between.iter().map(|between| (*between, subnets::Links::new())).collect();
        let rules = subnets::rules(&subnets, &around);
        let mut ground = SubnetGround::open(self.config.mark, self.config.subnets_table())
            .map_err(doing("reading the routing rules"))?;
        ground.settle();
        ground.follow(0, rules, routes).map_err(doing("adding the rules of connections"))
    }

    /// Takes it down. If no daemon runs, what a crashed one left goes too, or it would go on
    /// keeping closed what is meant to be open.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(crate) fn down(&mut self) -> Result<(), KernelError> {
        if self.device()?.is_some() {
            // A daemon runs, and all the rest is its own.
            let mut subnets = self.subnets()?;
            for routes in [&mut self.routes, &mut subnets] {
                let standing =
                    routes.standing(GUARD).map_err(doing("reading the routing table"))?;
                for ((prefix, metric), target) in standing {
                    routes
                        .delete(prefix, metric, target)
                        .map_err(doing("removing the guard's routes"))?;
                }
            }
            return Ok(());
        }
        self.routes.delete_rules(None).map_err(doing("removing the routing rule"))?;
        self.routes.flush(|_| false).map_err(doing("emptying the routing table"))?;
        SubnetGround::open(self.config.mark, self.config.subnets_table())
            .and_then(|mut subnets| subnets.down())
            .map_err(doing("removing the rules of connections"))?;
        // No XFRM, nothing left in it.
        let Ok(mut spd) = Spd::open() else { return Ok(()) };
        spd.clear()
            .and_then(|()| spd.clear_range(&FENCE))
            .map_err(doing("removing old XFRM policies"))
    }

    /// Looks at what stands, and compares it with what is to be closed.
    ///
    /// # Errors
    /// If the kernel cannot be read.
    pub(crate) fn look(&mut self, closed: &Closed) -> Result<GuardView, KernelError> {
        let wanted = plan::guard(&closed.classes, &BTreeMap::new(), &self.config.served);
        let standing = self.standing()?;
        let closes = |target: &Target| matches!(target, Target::Blackhole | Target::Prohibit);
        let missing = wanted.iter().filter(|(key, target)| standing.get(key) != Some(target));
        // Gateways come and go with the network: a throw too much is no leak of a prefix.
        let stale =
            standing.iter().filter(|(key, _)| !wanted.contains_key(key) && !key.0.is_host());
        let between = self.closed_between()?;
        Ok(GuardView {
            up: !standing.is_empty(),
            rules: self.routes.count_rules().map_err(doing("reading the routing rules"))?,
            closed: standing.iter().filter(|(_, t)| closes(t)).map(|((p, _), _)| *p).collect(),
            missing: missing.map(|((prefix, _), _)| *prefix).collect(),
            stale: stale.map(|((prefix, _), _)| *prefix).collect(),
            missing_between: closed.between.difference(&between).copied().collect(),
            stale_between: between.difference(&closed.between).copied().collect(),
            between: between.into_iter().collect(),
        })
    }

    /// The connections that rules and the guard's routes keep closed.
    fn closed_between(&mut self) -> Result<BTreeSet<Subnets>, KernelError> {
        let rules = Rules::open().and_then(|mut rules| rules.list());
        let rules = rules.map_err(doing("reading the routing rules"))?;
        let mut led = subnets::led(&rules, self.config.subnets_table(), self.config.priority);
        let routes = self.subnets()?.standing(GUARD).map_err(doing("reading the routing table"))?;
        let closed = |all: Prefix| routes.get(&(all, GUARD)) == Some(&Target::Blackhole);
        led.retain(|between| {
            let v4 = between.remote().addr().is_ipv4();
            closed(if v4 { Prefix::ALL_V4 } else { Prefix::ALL_V6 })
        });
        Ok(led)
    }

    /// The device of a daemon, if one runs.
    fn device(&mut self) -> Result<Option<u32>, KernelError> {
        let device = self.routes.find_link(&self.config.interface);
        device.map_err(doing("looking for a daemon's device"))
    }

    /// The table of connections.
    fn subnets(&self) -> Result<Routes, KernelError> {
        let routes = Routes::open(self.config.mark, self.config.subnets_table());
        routes.map_err(doing("opening a routing socket"))
    }

    fn standing(&mut self) -> Result<Plan, KernelError> {
        self.routes.standing(GUARD).map_err(doing("reading the routing table"))
    }
}

fn put_missing(routes: &mut Routes, wanted: &Plan, standing: &Plan) -> Result<(), KernelError> {
    for ((prefix, metric), target) in wanted {
        if standing.get(&(*prefix, *metric)) == Some(target) {
            continue;
        }
        match routes.put(*prefix, *metric, *target, 0) {
            Err(error) if is_without_ipv6(&error, prefix) => {}
            put => put.map_err(doing("adding a route of the guard"))?,
        }
    }
    Ok(())
}
