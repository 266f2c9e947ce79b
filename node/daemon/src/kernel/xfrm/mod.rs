//! The kernel's own data plane: traps, policies and SAs in XFRM, behind the same
//! [`sa::Command`]s and [`sa::Notice`]s as ours.
//!
//! ```text
//! class  Trap   OUT policy, ESP transport template to nowhere, no SA: ACQUIRE per destination
//!        Pass   OUT policy, allow            Block  OUT policy, block
//! flow   Hold   the trap again, for this flow alone, with a queue of its own
//!        Pass, Deny, Encrypt: allow, block, a template with the pair's request id
//! pair   two states, and an IN and a FWD policy that accept its packets and no clear ones
//! ```
//!
//! The kernel queues packets of a policy whose SA is missing (`xfrm_larval_drop = 0`), one queue
//! for each policy. A wide trap therefore hands a flow over to a policy of its own at the first
//! ACQUIRE, and its queue is looked at anew whenever a flow is decided.

mod guard;
mod ike;
mod notices;
mod pairs;
mod plane;
mod policy;
mod sockets;
mod state;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use netlink_packet_xfrm::{
    Mark, UserPolicyInfo, XFRM_POLICY_OUT, XFRMNLGRP_ACQUIRE, XFRMNLGRP_EXPIRE, XFRMNLGRP_MAPPING,
    XfrmAttrs, XfrmMessage,
};
use netlink_sys::protocols::NETLINK_XFRM;
use sa::{Class, Command, Flow, Notice, Policy, Ports, Prefix};
use tokio::time::{Interval, MissedTickBehavior};

pub(crate) use self::guard::XfrmGuard;
use self::pairs::{Pairs, Request};
pub(crate) use self::plane::KernelPlane;
use self::policy::Action;
use self::sockets::accept_encapsulated;
pub(crate) use self::sockets::hear_answers;
use super::ground::{ClassChange, KernelError, change, doing};
use super::netlink::Events;
use super::plan::{self, BACKSTOP, LIVE, MainRoute, Target};
use super::policies;
use super::routes::Routes;
use super::spd::{self, Spd};
use super::sysctl::Sysctls;

/// How often counters are read and open traps renewed: a third of a trap's life, and often enough
/// for [`sa::channel::UNANSWERED`].
const TICK: Duration = Duration::from_secs(2);

/// Open traps are renewed at every so many ticks.
const TICKS_PER_RENEWAL: u32 = 5;

/// Names and numbers under which the node is known to the kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct XfrmConfig {
    /// The mark (`SO_MARK`) of our own sockets, which no policy concerns.
    pub(crate) mark: u32,
    /// Addresses to listen on for IKE; empty for all of ours.
    pub(crate) listen: Vec<IpAddr>,
    /// IKE (RFC 7296 §2): 500.
    pub(crate) ike_port: u16,
    /// IKE and ESP in UDP (RFC 3948): 4500.
    pub(crate) natt_port: u16,
    /// Flows with a policy of their own.
    pub(crate) flows: usize,
}

impl Default for XfrmConfig {
    fn default() -> Self {
        Self {
            mark: 0x4322,
            listen: Vec::new(),
            ike_port: 500,
            natt_port: 4500,
            flows: keying::DESTINATIONS,
        }
    }
}

/// The kernel as a data plane, from [`Self::start`] to [`Self::stop`].
pub(crate) struct Xfrm {
    config: XfrmConfig,
    spd: Spd,
    routes: Routes,
    events: Events<XfrmMessage>,
    tick: Interval,
    ticks: u32,
    sysctls: Sysctls,
    classes: BTreeMap<Prefix, Class>,
    flows: HashMap<Flow, Policy>,
    /// Flows in the clear of which the next packet is to be told.
    watched: HashSet<Flow>,
    /// What the kernel asked for, by flow: as long as it remembers, it does not ask again.
    requests: HashMap<Flow, Request>,
    pairs: Pairs,
    /// What the kernel holds for prefixes.
    installed: BTreeMap<Prefix, Action>,
    addresses: Vec<IpAddr>,
    main: BTreeMap<Prefix, MainRoute>,
    never: Vec<IpAddr>,
    notices: VecDeque<Notice>,
    /// Whether a predecessor has left something.
    succeeds: bool,
    /// Whether all classes have been set.
    settled: bool,
    /// Whether there is a guard, which follows the classes then and stays when we go.
    guarded: bool,
}

impl Xfrm {
    /// Takes hold of the kernel's policy database. Nothing is trapped yet. Must be called inside
    /// a runtime.
    ///
    /// # Errors
    /// If the kernel has no ESP, or refuses.
    pub(crate) fn start(config: XfrmConfig) -> Result<Self, KernelError> {
        let mut xfrm = Self::open(config)?;
        xfrm.probe()?;
        match xfrm.take_hold() {
            Ok(()) => Ok(xfrm),
            Err(error) => {
                xfrm.undo();
                Err(error)
            }
        }
    }

    fn open(config: XfrmConfig) -> Result<Self, KernelError> {
        let groups = [XFRMNLGRP_ACQUIRE, XFRMNLGRP_EXPIRE, XFRMNLGRP_MAPPING];
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            spd: Spd::open().map_err(doing("opening the policy database"))?,
            routes: Routes::open(config.mark, 0).map_err(doing("opening a routing socket"))?,
            events: Events::join(NETLINK_XFRM, &groups)
                .map_err(doing("listening to the kernel"))?,
            tick,
            ticks: 0,
            sysctls: Sysctls::default(),
            classes: BTreeMap::new(),
            flows: HashMap::new(),
            watched: HashSet::new(),
            requests: HashMap::new(),
            pairs: Pairs::default(),
            installed: BTreeMap::new(),
            addresses: Vec::new(),
            main: BTreeMap::new(),
            never: Vec::new(),
            notices: VecDeque::new(),
            succeeds: false,
            settled: false,
            guarded: false,
            config,
        })
    }

    /// What a predecessor left stands until [`Self::settled`], so that nothing is open in between;
    /// only its SAs go, and what needed them is asked for anew.
    fn take_hold(&mut self) -> Result<(), KernelError> {
        self.succeeds = self.spd.take_over().map_err(doing("reading the policy database"))?;
        self.clear_states().map_err(doing("removing old states"))?;
        // Packets wait instead of being lost while keys are made.
        self.sysctls
            .set("core/xfrm_larval_drop", "0")
            .map_err(doing("having the kernel hold packets"))?;
        for policy in policies::exceptions(&[self.config.ike_port, self.config.natt_port]) {
            self.spd.add(policy).map_err(doing("adding an exception"))?;
        }
        for (policy, nlas) in self.outbound_exceptions() {
            self.spd.put(policy, nlas).map_err(doing("adding an exception"))?;
        }
        self.refresh()
    }

    /// All classes have been set: what a predecessor left and we have not put there goes.
    ///
    /// # Errors
    /// If the kernel refuses to remove a policy.
    pub(crate) fn settled(&mut self) -> Result<(), KernelError> {
        self.spd.settle().map_err(doing("removing old policies"))?;
        self.settled = true;
        self.look_for_guard()?;
        self.follow_guard()
    }

    /// Ends a start that failed before [`Self::settled`]: what a predecessor keeps closed stays
    /// closed, and without one nothing is left.
    pub(crate) fn undo(&mut self) {
        if self.succeeds {
            self.sysctls.restore();
        } else {
            self.stop();
        }
    }

    fn clear_leftovers(&mut self) -> Result<(), KernelError> {
        self.spd.clear().map_err(doing("removing old policies"))?;
        self.clear_states().map_err(doing("removing old states"))?;
        self.installed.clear();
        Ok(())
    }

    /// What is never trapped: packets of our own sockets, what is said of leases, and neighbour
    /// discovery, without which no peer on the link would be found.
    fn outbound_exceptions(&self) -> Vec<(UserPolicyInfo, Vec<XfrmAttrs>)> {
        let mark = XfrmAttrs::Mark(Mark { value: self.config.mark, mask: u32::MAX });
        let mut all = Vec::new();
        for prefix in [Prefix::ALL_V4, Prefix::ALL_V6] {
            let mut policy = policy::to_prefix(prefix, Action::Allow).0;
            policy.priority = spd::EXCEPTION;
            all.push((policy, vec![mark.clone()]));
        }
        let discovery = policies::exceptions(&[]);
        let always = |p: &UserPolicyInfo| {
            let leases = policies::LEASES.iter().any(|(_, from, _)| p.selector.sport == *from);
            p.selector.proto == policies::ICMPV6 || p.selector.proto == policies::UDP && leases
        };
        let always = discovery.into_iter().filter(always);
        all.extend(
            always.map(|p| (UserPolicyInfo { direction: XFRM_POLICY_OUT, ..p }, Vec::new())),
        );
        all
    }

    /// Removes every policy and SA of ours.
    pub(crate) fn stop(&mut self) {
        if let Err(error) = self.clear_leftovers() {
            tracing::warn!(%error, "not everything was removed");
        }
        self.sysctls.restore();
        self.classes.clear();
        self.flows.clear();
        self.requests.clear();
        self.pairs = Pairs::default();
    }

    /// Does what keying says.
    ///
    /// # Errors
    /// If the kernel refuses; what was before still stands.
    pub(crate) fn command(&mut self, command: Command) -> Result<(), KernelError> {
        match command {
            Command::SetClass { prefix, class } => {
                self.change_classes(&[(prefix, Ports::ANY, Some(class))])
            }
            Command::ClearClass { prefix } => self.change_classes(&[(prefix, Ports::ANY, None)]),
            Command::SetPortClass { prefix, ports, class } => {
                self.change_classes(&[(prefix, ports, Some(class))])
            }
            Command::ClearPortClass { prefix, ports } => {
                self.change_classes(&[(prefix, ports, None)])
            }
            // Its policies know sources as well as destinations.
            Command::SetPolicy { flow, policy, about: _ } => self.set_policy(flow, policy),
            Command::ClearPolicy { flow } => self.clear_policy(flow),
            // The kernel holds a packet and tells of it once; it does not give it back.
            Command::ReleaseFlow { flow } => self.clear_policy(flow),
            // The configuration refuses connections with this data plane.
            Command::SetSubnets { .. }
            | Command::ShareSubnets { .. }
            | Command::SelectSubnets { .. }
            | Command::LinksUp { .. }
            | Command::ClearSubnets { .. } => {
                let error = io::Error::from(io::ErrorKind::Unsupported);
                Err(doing("configuring a connection")(error))
            }
            Command::AddSa(pair) => self.add_pair(*pair),
            Command::MoveSa { sa, envelope } => self.move_pair(sa, envelope),
            Command::RemoveSa(sa) | Command::RevokeSa(sa) => self.remove_pair(sa),
            Command::AskUse(sa) => self.ask_use(sa, Instant::now()),
            Command::WatchFlow(flow) => self.watch(flow),
        }
    }

    /// Prefixes get these classes, or none: what changes together is planned once.
    ///
    /// # Errors
    /// If the kernel refuses; what was before still stands.
    pub(crate) fn change_classes(&mut self, changes: &[ClassChange]) -> Result<(), KernelError> {
        if changes.iter().any(|(_, ports, _)| !ports.is_any()) {
            // The configuration refuses such rules with this data plane.
            let error = io::Error::from(io::ErrorKind::Unsupported);
            return Err(doing("setting a class for single ports")(error));
        }
        if self.settled {
            // Somebody may have made or removed a guard without a word to us.
            self.look_for_guard()?;
        }
        change(&mut self.classes, changes);
        self.follow()
    }

    fn set_policy(&mut self, flow: Flow, policy: Policy) -> Result<(), KernelError> {
        let Some(action) = self.action(flow, policy) else {
            let error = io::Error::from(io::ErrorKind::NotFound);
            return Err(doing("encrypting with a pair that is not there")(error));
        };
        if self.flows.len() >= self.config.flows && !self.flows.contains_key(&flow) {
            let error = io::Error::from(io::ErrorKind::QuotaExceeded);
            return Err(doing("adding a flow's policy")(error));
        }
        let (info, nlas) = policy::of_flow(flow, action);
        self.spd.put(info, nlas).map_err(doing("setting a flow's policy"))?;
        self.flows.insert(flow, policy);
        self.watched.remove(&flow);
        // Its first packet may wait in the queue of the prefix's trap: putting the same policy
        // there again has the kernel look at the queue now.
        match self.trap_over(flow.dst()) {
            Some((prefix, trap)) if policy != Policy::Hold => self.put(prefix, trap),
            _ => Ok(()),
        }
    }

    /// Watches for the next packet of a flow that passes: the kernel notes when a policy was last
    /// looked up, and a policy put anew has not been.
    fn watch(&mut self, flow: Flow) -> Result<(), KernelError> {
        if self.flows.get(&flow) != Some(&Policy::Pass) {
            return Ok(());
        }
        self.set_policy(flow, Policy::Pass)?;
        self.watched.insert(flow);
        Ok(())
    }

    /// Tells of the watched flows that were used.
    fn look_at_watched(&mut self) {
        let used = |xfrm: &mut Self, flow: &Flow| {
            xfrm.spd.was_used(policy::flow_selector(*flow), XFRM_POLICY_OUT).unwrap_or(false)
        };
        let watched: Vec<Flow> = self.watched.iter().copied().collect();
        for flow in watched {
            if used(self, &flow) {
                self.watched.remove(&flow);
                self.notices.push_back(Notice::FlowUsed(flow));
            }
        }
    }

    fn clear_policy(&mut self, flow: Flow) -> Result<(), KernelError> {
        self.flows.remove(&flow);
        self.watched.remove(&flow);
        if let Some(request) = self.requests.remove(&flow) {
            // If it ran out meanwhile, so much the better.
            let _ = self.forget_request(request);
        }
        self.spd
            .delete(policy::flow_selector(flow), XFRM_POLICY_OUT)
            .map_err(doing("removing a flow's policy"))
    }

    fn action(&self, flow: Flow, policy: Policy) -> Option<Action> {
        Some(match policy {
            Policy::Hold => {
                // As open as the trap that it was taken from.
                let closed = self
                    .trap_over(flow.dst())
                    .is_some_and(|(_, action)| action == Action::Trap { closed: true });
                Action::Trap { closed }
            }
            Policy::Pass => Action::Allow,
            Policy::Deny => Action::Block,
            Policy::Encrypt(sa) => Action::Encrypt(self.pairs.outer(sa)?),
        })
    }

    /// The trap that decides about a destination, if one does.
    fn trap_over(&self, dst: IpAddr) -> Option<(Prefix, Action)> {
        let host = Prefix::host(dst);
        let (prefix, action) = (0..=host.len()).rev().find_map(|len| {
            let prefix = Prefix::new(dst, len).ok()?;
            Some((prefix, *self.installed.get(&prefix)?))
        })?;
        matches!(action, Action::Trap { .. }).then_some((prefix, action))
    }

    /// Reads addresses and routes anew and follows them. To be called when
    /// [`Changes::next`](super::Changes::next) says so.
    ///
    /// # Errors
    /// If the kernel cannot be read, or refuses a policy.
    pub(crate) fn refresh(&mut self) -> Result<(), KernelError> {
        let all = self.routes.addresses().map_err(doing("reading the addresses"))?;
        let own = all.iter().filter(|a| !a.unusable);
        self.addresses = own.clone().map(|a| a.addr).collect();
        let broadcasts = own.filter_map(|a| a.broadcast.map(IpAddr::V4));
        self.never = self.addresses.iter().copied().chain(broadcasts).collect();
        let main = self.routes.main_routes(0).map_err(doing("reading the main routing table"))?;
        // The kernel chooses sources after routes, before policies: here they matter to nobody.
        self.main = main
            .into_iter()
            .map(|(dst, route)| (dst, MainRoute { source: None, ..route }))
            .collect();
        self.follow()
    }

    /// Makes the database hold what it must, whatever others have done to it: whoever flushes it
    /// flushes ours as well.
    ///
    /// # Errors
    /// If the kernel cannot be read, or refuses a policy.
    pub(crate) fn reconcile(&mut self) -> Result<(), KernelError> {
        let held = self.spd.keys().map_err(doing("reading the policy database"))?;
        let mut lost = 0;
        let inbound = policies::exceptions(&[self.config.ike_port, self.config.natt_port]);
        let inbound = inbound.into_iter().map(|policy| (policy, Vec::new()));
        for (policy, nlas) in inbound.chain(self.outbound_exceptions()) {
            if !held.contains(&spd::key(&policy, &nlas)) {
                lost += 1;
                self.spd.put(policy, nlas).map_err(doing("adding an exception"))?;
            }
        }
        let before = self.installed.len();
        self.installed.retain(|prefix, action| {
            let (policy, nlas) = policy::to_prefix(*prefix, *action);
            held.contains(&spd::key(&policy, &nlas))
        });
        lost += before - self.installed.len();
        // Traps before what is narrower than they.
        self.refresh()?;
        let flows: Vec<(Flow, Policy)> = self.flows.iter().map(|(f, p)| (*f, *p)).collect();
        for (flow, policy) in flows {
            let Some(action) = self.action(flow, policy) else { continue };
            let (info, nlas) = policy::of_flow(flow, action);
            // A trap that falls open ends by itself, and is asked for anew.
            let ends = action == Action::Trap { closed: false };
            if !ends && !held.contains(&spd::key(&info, &nlas)) {
                lost += 1;
                self.spd.put(info, nlas).map_err(doing("setting a flow's policy"))?;
            }
        }
        if lost > 0 {
            tracing::warn!(
                "{lost} XFRM policies of ours had been removed, and are put back: something else \
                 on this machine flushes them"
            );
        }
        Ok(())
    }

    /// Makes the database hold what classes, addresses and routes ask for.
    fn follow(&mut self) -> Result<(), KernelError> {
        let plan = plan::plan(&self.classes, &self.main, &self.never, &[]);
        let wanted: BTreeMap<Prefix, Action> =
            plan.keys().map(|(prefix, _)| (*prefix, action_of(&plan, *prefix))).collect();
        let mut result = Ok(());
        for (prefix, action) in &wanted {
            if self.installed.get(prefix) != Some(action) {
                let put = self.put(*prefix, *action);
                result = result.and(put);
            }
        }
        let stale: Vec<Prefix> =
            self.installed.keys().filter(|prefix| !wanted.contains_key(prefix)).copied().collect();
        for prefix in stale {
            let selector = policy::to_prefix(prefix, Action::Allow).0.selector;
            let gone = self.spd.delete(selector, XFRM_POLICY_OUT);
            let gone = gone.map_err(doing("removing a prefix's policy"));
            result = result.and(gone);
            self.installed.remove(&prefix);
        }
        result.and_then(|()| self.follow_guard())
    }

    fn put(&mut self, prefix: Prefix, action: Action) -> Result<(), KernelError> {
        let (info, nlas) = policy::to_prefix(prefix, action);
        self.spd.put(info, nlas).map_err(doing("setting a prefix's policy"))?;
        self.installed.insert(prefix, action);
        Ok(())
    }

    /// Renews what ends by itself when the daemon dies.
    fn renew(&mut self) -> Result<(), KernelError> {
        const OPEN: Action = Action::Trap { closed: false };
        let open: Vec<Prefix> =
            self.installed.iter().filter(|(_, a)| **a == OPEN).map(|(p, _)| *p).collect();
        for prefix in open {
            self.put(prefix, OPEN)?;
        }
        let held: Vec<Flow> =
            self.flows.iter().filter(|(_, p)| **p == Policy::Hold).map(|(f, _)| *f).collect();
        for flow in held {
            self.set_policy(flow, Policy::Hold)?;
        }
        Ok(())
    }

    /// The addresses of this host, as last read.
    pub(crate) fn local_addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// The source address that the main table gives packets for this destination.
    pub(crate) fn source_for(&mut self, dst: IpAddr) -> Option<IpAddr> {
        self.routes.way(dst, None).ok()?.source
    }
}

/// What a plan for a routing table says of a prefix, in the words of a policy database: a device
/// route is a trap, a black hole as backstop under it makes it closed, one alone blocks.
fn action_of(plan: &plan::Plan, prefix: Prefix) -> Action {
    let backstop = plan.get(&(prefix, BACKSTOP));
    let closed = backstop == Some(&Target::Blackhole);
    match plan.get(&(prefix, LIVE)).or(backstop) {
        Some(Target::Device { .. }) => Action::Trap { closed },
        Some(Target::Throw) => Action::Allow,
        Some(Target::Blackhole | Target::Prohibit) | None => Action::Block,
    }
}
