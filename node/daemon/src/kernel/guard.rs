//! The guard: routes that keep closed prefixes closed while no daemon runs.
//!
//! It is made from the policy groups alone, before there is a network, and stands until it is
//! taken down: beneath a daemon that starts, runs, crashes or stops. Nothing of it runs.
//!
//! ```text
//! table T, by metric    100  the daemon's: ipsec0, throw, black holes    gone with the daemon
//!                       200  black holes under its private traps         left by a crash
//!                       300  the guard's: black hole for private, prohibit for block, and throw
//!                            for what is open inside them                left until `guard down`
//! ```

use std::collections::BTreeMap;

use sa::{Class, Prefix};

use super::ground::{GroundConfig, KernelError, doing};
use super::plan::{self, GUARD, Plan, Target};
use super::routes::{Routes, is_without_ipv6};
use super::spd::Spd;
use super::subnets::SubnetGround;

/// The guard as one may look at it.
#[derive(Clone, PartialEq, Eq, Debug)]
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

    /// Closes what these classes close; again, what they close by now. Routes come before the rule
    /// that leads to them, new ones before old ones go: nothing is open in between.
    ///
    /// # Errors
    /// If the kernel refuses; what was done stays.
    pub(crate) fn up(&mut self, classes: &BTreeMap<Prefix, Class>) -> Result<(), KernelError> {
        let wanted = self.wanted(classes)?;
        let standing = self.standing()?;
        for ((prefix, metric), target) in &wanted {
            if standing.get(&(*prefix, *metric)) == Some(target) {
                continue;
            }
            match self.routes.put(*prefix, *metric, *target, 0) {
                Err(error) if is_without_ipv6(&error, prefix) => {}
                put => put.map_err(doing("adding a route of the guard"))?,
            }
        }
        self.routes.add_rules(self.config.priority).map_err(doing("adding the routing rule"))?;
        for ((prefix, metric), target) in standing {
            if !wanted.contains_key(&(prefix, metric)) {
                self.routes
                    .delete(prefix, metric, target)
                    .map_err(doing("removing a route of the guard"))?;
            }
        }
        Ok(())
    }

    /// Takes it down. If no daemon runs, what a crashed one left goes too, or it would go on
    /// keeping closed what is meant to be open.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(crate) fn down(&mut self) -> Result<(), KernelError> {
        let device = self.routes.find_link(&self.config.interface);
        if device.map_err(doing("looking for a daemon's device"))?.is_some() {
            // A daemon runs, and all the rest is its own.
            for ((prefix, metric), target) in self.standing()? {
                self.routes
                    .delete(prefix, metric, target)
                    .map_err(doing("removing the guard's routes"))?;
            }
            return Ok(());
        }
        self.routes.delete_rules(None).map_err(doing("removing the routing rule"))?;
        self.routes.flush(|_| false).map_err(doing("emptying the routing table"))?;
        SubnetGround::open(self.config.mark, self.config.table + 1)
            .and_then(|mut subnets| subnets.down())
            .map_err(doing("removing the rules of connections"))?;
        // No XFRM, nothing left in it.
        let Ok(mut spd) = Spd::open() else { return Ok(()) };
        spd.clear().map_err(doing("removing old XFRM policies"))
    }

    /// Looks at what stands, and compares it with what these classes ask for.
    ///
    /// # Errors
    /// If the kernel cannot be read.
    pub(crate) fn look(
        &mut self,
        classes: &BTreeMap<Prefix, Class>,
    ) -> Result<GuardView, KernelError> {
        let wanted = plan::guard(classes, &BTreeMap::new());
        let standing = self.standing()?;
        let closes = |target: &Target| matches!(target, Target::Blackhole | Target::Prohibit);
        let closed = standing.iter().filter(|(_, target)| closes(target));
        let missing = wanted.iter().filter(|(key, target)| standing.get(key) != Some(target));
        // Gateways come and go with the network: a throw too much is no leak of a prefix.
        let stale =
            standing.iter().filter(|(key, _)| !wanted.contains_key(key) && !key.0.is_host());
        Ok(GuardView {
            up: !standing.is_empty(),
            rules: self.routes.count_rules().map_err(doing("reading the routing rules"))?,
            closed: closed.map(|((prefix, _), _)| *prefix).collect(),
            missing: missing.map(|((prefix, _), _)| *prefix).collect(),
            stale: stale.map(|((prefix, _), _)| *prefix).collect(),
        })
    }

    fn wanted(&mut self, classes: &BTreeMap<Prefix, Class>) -> Result<Plan, KernelError> {
        let device = self.routes.find_link(&self.config.interface);
        let device = device.map_err(doing("looking for a daemon's device"))?.unwrap_or(0);
        let main =
            self.routes.main_routes(device).map_err(doing("reading the main routing table"))?;
        Ok(plan::guard(classes, &main))
    }

    fn standing(&mut self) -> Result<Plan, KernelError> {
        self.routes.standing(GUARD).map_err(doing("reading the routing table"))
    }
}
