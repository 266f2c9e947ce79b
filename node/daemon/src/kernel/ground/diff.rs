//! What the kernel holds, against what it must hold. Others who may change routes do: a network
//! daemon that takes what it does not know for leftovers, an administrator who flushes a table.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Ground, KernelError, doing, keeps_closed};
use crate::kernel::plan::{self, GUARD, Plan, Target};
use crate::kernel::routes::{LocalAddress, Standing};

impl Ground {
    /// Reads what stands of our tables and rules, and puts the rules back at once: without them
    /// every packet goes in the clear. The routes are for [`Self::follow`].
    pub(super) fn look(&mut self) -> Result<(), KernelError> {
        let mut lost = 0;
        if self.settled {
            let added = self.routes.add_rules(self.config.priority);
            lost += added.map_err(doing("adding the routing rule"))?;
        }
        if self.settled
            && !self.routes.is_up(self.device).map_err(doing("looking at the device"))?
        {
            lost += 1;
            self.routes.set_up(self.device).map_err(doing("setting the device up"))?;
        }
        let held = self.routes.held(self.device).map_err(doing("reading the routing table"))?;
        let held = self.of_our_time(held);
        lost += plan::lost(&self.installed, &held).count();
        lost += self.subnet_ground.look(self.device).map_err(doing("reading the routing rules"))?;
        if self.settled {
            // The guard is removed without a word to us, too, but nothing else with it.
            let stands = held.keys().any(|(_, metric)| *metric == GUARD);
            self.guarded = stands || self.guarded && lost > 0;
        }
        self.installed = held;
        if lost > 0 {
            tracing::warn!(
                "{lost} routing rules and routes of ours had been removed, and are put back: \
                 something else on this machine takes them for its own (systemd-networkd wants \
                 ManageForeignRoutes=no and ManageForeignRoutingPolicyRules=no)"
            );
        }
        Ok(())
    }

    /// Without what a predecessor left: as long as not all classes are set, that is nobody's.
    fn of_our_time(&self, mut held: Plan) -> Plan {
        if !self.settled {
            let left = |key: &(_, u32), target: &Target| {
                let (prefix, metric) = *key;
                metric == GUARD || keeps_closed(&Standing { prefix, metric, target: *target })
            };
            held.retain(|key, target| self.installed.contains_key(key) || !left(key, target));
        }
        held
    }

    /// Addresses that we lent to the device are ours to give again where it has lost them.
    pub(super) fn look_for_lent(&mut self, all: &[LocalAddress]) {
        let on_device: BTreeSet<IpAddr> =
            all.iter().filter(|a| a.interface == self.device).map(|a| a.addr).collect();
        self.lent.retain(|addr| on_device.contains(&IpAddr::V6(*addr)));
    }

    /// Makes the kernel hold what it must, whatever others have done to it: routes, rules, and
    /// the policies that drop clear packets of protected peers.
    ///
    /// # Errors
    /// If the kernel cannot be read, or refuses.
    pub(crate) fn reconcile(&mut self) -> Result<(), KernelError> {
        let refreshed = self.refresh().and_then(|()| self.protect_the_rest());
        let Some(policies) = &mut self.policies else { return refreshed };
        let mut lost = policies.restore().map_err(doing("restoring XFRM policies"))?;
        if let Some(fence) = &mut self.fence {
            lost += fence.restore().map_err(doing("restoring XFRM policies"))?;
        }
        if lost > 0 {
            tracing::warn!(
                "{lost} XFRM policies of ours had been removed, and are put back: something else \
                 on this machine flushes them"
            );
        }
        refreshed
    }

    /// Warns of rules of others that come before ours, of each once.
    pub(super) fn look_for_steering(&mut self) {
        let found = match self.routes.rules_before_ours() {
            Ok(found) => found,
            Err(error) => return tracing::debug!(%error, "the routing rules cannot be read"),
        };
        for rule in found.iter().filter(|rule| !self.steering.contains(rule)) {
            tracing::warn!(
                "a routing rule of somebody else's comes before ours ({rule}): what it matches goes \
                 past this node, in the clear, also in IPv6 to what is private or blocked (in IPv4 \
                 that is dropped)"
            );
        }
        for rule in self.steering.iter().filter(|rule| !found.contains(rule)) {
            tracing::info!("it comes before ours no more: {rule}");
        }
        self.steering = found;
    }

    /// Rules of others that come before ours, as `ip rule` writes them.
    pub(crate) fn steering(&self) -> &[String] {
        &self.steering
    }

    /// The sockets through which we change rules and routes, as events call them.
    pub(crate) fn ports(&self) -> Vec<u32> {
        let mut ports = vec![self.routes.port()];
        ports.extend(self.subnet_ground.ports());
        ports
    }
}
