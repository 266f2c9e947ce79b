//! The ground that packets walk on: the node's routing table, the rule that leads to it, and what
//! keeps a protected peer from being spoken for in the clear.

mod diff;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use sa::{About, Class, Flow, Policy, Ports, Prefix, Subnets};

use super::fence::{ANY_DEVICE, Fence, Yard};
use super::plan::{self, BACKSTOP, GUARD, LIVE, LeftAlone, MainRoute, Plan, Target};
use super::policies::Policies;
use super::routes::{Routes, Standing, is_without_ipv6};
use super::subnets::{self, Links, SubnetGround, Surroundings};
use super::sysctl::{self, Sysctls};

/// How long a peer that fell back to clear text after a crash of ours is not heard: at the other
/// end it takes about as long until that is found out. Renewed three times as often.
const BLOCK_LIFE: Duration = Duration::from_secs(60);

/// Names and numbers under which the node is known to the kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct GroundConfig {
    /// The TUN device; it must exist.
    pub(crate) interface: String,
    /// The routing table that is ours alone.
    pub(crate) table: u32,
    /// Priority of the rule that leads to it: after `local` (0), before `main` (32766).
    pub(crate) priority: u32,
    /// The mark (`SO_MARK`) of our own sockets, which bypass the table.
    pub(crate) mark: u32,
    /// Our UDP ports, for IKE and encapsulated ESP.
    pub(crate) ports: Vec<u16>,
    /// Whether whoever sends to a denied destination is told so (RFC 4322 §3.1.4: ICMP
    /// "communication administratively prohibited").
    pub(crate) unreachable: bool,
    /// How long the blocks of clear packets of those peers whose class fails open outlive us.
    pub(crate) block_life: Duration,
    /// Hosts behind us: packets for them are not to be trapped.
    pub(crate) served: Vec<Prefix>,
    /// Single destinations that may have a route of their own.
    pub(crate) hosts: usize,
}

impl Default for GroundConfig {
    fn default() -> Self {
        Self {
            interface: "ipsec0".to_owned(),
            table: 4322,
            priority: 4322,
            mark: 0x4322,
            ports: vec![500, 4500],
            unreachable: false,
            block_life: BLOCK_LIFE,
            served: Vec::new(),
            hosts: keying::DESTINATIONS,
        }
    }
}

impl GroundConfig {
    /// The table of configured connections, beside the node's own.
    pub(super) fn subnets_table(&self) -> u32 {
        self.table + 1
    }

    /// What rules for configured connections depend on.
    pub(super) fn surroundings<'a>(
        &'a self,
        main: &'a BTreeMap<Prefix, MainRoute>,
        addresses: &'a [IpAddr],
    ) -> Surroundings<'a> {
        Surroundings {
            interface: &self.interface,
            table: self.subnets_table(),
            priority: self.priority,
            mark: self.mark,
            main,
            addresses,
            unattended: false,
        }
    }
}

/// What becomes of a prefix, or of single ports of it; nothing of its own with `None`.
pub(crate) type ClassChange = (Prefix, Ports, Option<Class>);

/// Carries out what of it is about whole prefixes.
pub(super) fn change(classes: &mut BTreeMap<Prefix, Class>, changes: &[ClassChange]) {
    for (prefix, _, class) in changes.iter().filter(|(_, ports, _)| ports.is_any()) {
        match class {
            Some(class) => classes.insert(*prefix, *class),
            None => classes.remove(prefix),
        };
    }
}

/// What the kernel refused, and while doing what.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {error}")]
pub(crate) struct KernelError {
    doing: &'static str,
    error: io::Error,
}

/// Adds what was being done to an error of the kernel.
pub(super) fn doing(doing: &'static str) -> impl FnOnce(io::Error) -> KernelError {
    move |error| KernelError { doing, error }
}

/// What becomes of one destination, whatever its class.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Host {
    Pass,
    Deny,
    /// To the device, with this source, although its class says otherwise: a peer that called.
    Device(IpAddr),
}

impl Host {
    fn target(self) -> Target {
        match self {
            Self::Pass => Target::Throw,
            Self::Deny => Target::Blackhole,
            Self::Device(source) => Target::Device { source: Some(source) },
        }
    }
}

/// What was said of the flows to one destination, by their sources.
type Said = BTreeMap<(IpAddr, Ports), (Policy, About)>;

/// The node's routing table and inbound policies, from [`Self::up`] to [`Self::down`].
///
/// Every change is a few system calls that return at once. If the daemon dies without
/// [`Self::down`], the device is gone with it and the routes that are left do what they must:
/// black-hole what is private, leave the rest to the main table.
pub(crate) struct Ground {
    config: GroundConfig,
    device: u32,
    routes: Routes,
    policies: Option<Policies>,
    fence: Option<Fence>,
    /// Whether open IPv6 sockets are to look for their way again.
    turning: bool,
    sysctls: Sysctls,
    classes: BTreeMap<Prefix, Class>,
    /// Rules for single ports. Routes know no ports: such a prefix leads to the device as a whole.
    port_classes: BTreeMap<(Prefix, Ports), Class>,
    hosts: HashMap<IpAddr, Host>,
    /// Policies of flows, by destination and then source: routes know destinations only.
    flows: HashMap<IpAddr, Said>,
    /// The main table, as last read.
    main: BTreeMap<Prefix, MainRoute>,
    /// Interfaces but for ours and the loopback, as last read.
    devices: Vec<u32>,
    /// Addresses whose packets are never ours to trap, as last read.
    never: Vec<IpAddr>,
    /// What the table must hold but for [`Self::hosts`].
    base: Plan,
    /// What it does hold.
    installed: Plan,
    /// Routes of a predecessor that still keep prefixes closed.
    leftover: Vec<Standing>,
    /// Whether there is a guard: it follows the classes then, and stays when we go.
    guarded: bool,
    /// Whether there was one when we came.
    guard_found: bool,
    /// Whether all classes have been set.
    settled: bool,
    protected: HashSet<Flow>,
    /// Prefixes of configured connections, and which of those between them are up.
    subnets: BTreeMap<Subnets, Links>,
    subnet_ground: SubnetGround,
    /// Flows in the clear whose packets are to be seen by us for a while.
    watched: HashSet<Flow>,
    /// Our IPv6 addresses, which the device has too.
    lent: BTreeSet<Ipv6Addr>,
    addresses: Vec<IpAddr>,
    /// Rules of others that come before ours, as last read.
    steering: Vec<String>,
}

/// The classes of whole prefixes and those of single ports, as far as routes can tell them apart:
/// the strictest rule of a prefix decides what is left of it without the daemon.
pub(crate) fn route_classes(
    mut classes: BTreeMap<Prefix, Class>,
    ported: impl Iterator<Item = (Prefix, Class)>,
) -> BTreeMap<Prefix, Class> {
    let closed = |class: &Class| *class == Class::Trap { fail_closed: true };
    for (prefix, class) in ported {
        let around = (0..=prefix.len()).rev().find_map(|len| {
            let wider = Prefix::new(prefix.addr(), len).ok()?;
            classes.get(&wider)
        });
        let fail_closed = closed(&class) || around.is_some_and(closed);
        classes.insert(prefix, Class::Trap { fail_closed });
    }
    classes
}

/// Whether a route of a daemon that is no more keeps something closed: what is private, and what
/// is blocked.
fn keeps_closed(standing: &Standing) -> bool {
    let Standing { metric, target, .. } = standing;
    matches!((*metric, target), (BACKSTOP, Target::Blackhole) | (LIVE, Target::Prohibit))
}

impl Ground {
    /// Takes hold of the kernel: clears what a predecessor left, prepares the device, sets the
    /// rule. Nothing is trapped yet.
    ///
    /// # Errors
    /// Says what could not be done; what had been done is undone.
    pub(crate) fn up(config: GroundConfig) -> Result<Self, KernelError> {
        let mut routes =
            Routes::open(config.mark, config.table).map_err(doing("opening a routing socket"))?;
        let (device, _) = routes.link(&config.interface).map_err(doing("finding the device"))?;
        let subnet_ground = SubnetGround::open(config.mark, config.subnets_table())
            .map_err(doing("reading the routing rules"))?;
        let policies = match Policies::open(&config.ports, device, config.block_life) {
            Ok(policies) => Some(policies),
            Err(error) => {
                tracing::warn!(
                    %error,
                    "no XFRM: clear packets of protected peers will be accepted, and whoever binds \
                     a socket to a device walks past what is private"
                );
                None
            }
        };
        let fence = policies.is_some().then(Fence::open).and_then(Result::ok);
        let mut ground = Self {
            config,
            device,
            routes,
            policies,
            fence,
            turning: false,
            sysctls: Sysctls::default(),
            classes: BTreeMap::new(),
            port_classes: BTreeMap::new(),
            hosts: HashMap::new(),
            flows: HashMap::new(),
            main: BTreeMap::new(),
            devices: Vec::new(),
            never: Vec::new(),
            base: Plan::new(),
            installed: Plan::new(),
            leftover: Vec::new(),
            guarded: false,
            guard_found: false,
            settled: false,
            protected: HashSet::new(),
            subnets: BTreeMap::new(),
            subnet_ground,
            watched: HashSet::new(),
            lent: BTreeSet::new(),
            addresses: Vec::new(),
            steering: Vec::new(),
        };
        match ground.take_hold() {
            Ok(()) => Ok(ground),
            Err(error) => {
                ground.undo();
                Err(error)
            }
        }
    }

    /// What a predecessor left goes, but for its rule and for what keeps private prefixes closed:
    /// those stay until [`Self::settled`], so that nothing is open in between.
    fn take_hold(&mut self) -> Result<(), KernelError> {
        let priority = self.config.priority;
        let kept = self
            .routes
            .flush(|standing| keeps_closed(standing) || standing.metric == GUARD)
            .map_err(doing("emptying the routing table"))?;
        self.leftover = kept.iter().filter(|s| keeps_closed(s)).copied().collect();
        let guarded = kept.iter().any(|standing| standing.metric == GUARD);
        self.prepare_device()?;
        self.refresh()?;
        self.routes.add_rules(priority).map_err(doing("adding the routing rule"))?;
        self.routes.delete_rules(Some(priority)).map_err(doing("removing old routing rules"))?;
        // Last, or a start that fails would let in what a predecessor kept out.
        self.clear_policies()?;
        // Only now, or the guard would follow classes that are not set yet.
        self.guard_found = guarded;
        Ok(())
    }

    /// All classes have been set: what a predecessor kept closed and we do not is opened.
    ///
    /// # Errors
    /// If the kernel refuses to remove a route.
    pub(crate) fn settled(&mut self) -> Result<(), KernelError> {
        self.subnet_ground.settle();
        self.guarded = self.guard_found;
        self.settled = true;
        self.look_for_steering();
        self.follow_subnets()?;
        for Standing { prefix, metric, target } in std::mem::take(&mut self.leftover) {
            if !self.installed.contains_key(&(prefix, metric)) {
                self.routes
                    .delete(prefix, metric, target)
                    .map_err(doing("removing an old route"))?;
            }
        }
        if self.guard_found { self.set_guard(true) } else { Ok(()) }
    }

    /// Makes or removes the guard, which from then on follows the classes.
    ///
    /// # Errors
    /// If the kernel refuses a route.
    pub(crate) fn set_guard(&mut self, up: bool) -> Result<(), KernelError> {
        self.look_for_guard()?;
        self.guarded = up;
        let followed = self.follow();
        followed.and_then(|()| self.follow_subnets())
    }

    /// Sees what stands of the guard, which others make and remove, too.
    fn look_for_guard(&mut self) -> Result<(), KernelError> {
        let standing = self.routes.standing(GUARD).map_err(doing("reading the routing table"))?;
        self.guarded = !standing.is_empty();
        self.installed.retain(|(_, metric), _| *metric != GUARD);
        self.installed.extend(standing);
        self.subnet_ground.look_for_guard().map_err(doing("reading the connections' table"))
    }

    /// Whether there is a guard that stays when we go.
    pub(crate) fn is_guarded(&self) -> bool {
        self.guarded
    }

    fn clear_leftovers(&mut self) -> Result<(), KernelError> {
        // Asked of the kernel: somebody may have removed it behind our back, or made one.
        self.look_for_guard()?;
        if self.guarded {
            self.leave_subnets_guarded()?;
            // Ours is no more to be spared: what comes now is closed too.
            self.devices = vec![ANY_DEVICE];
            self.follow_fence()?;
        } else {
            if let Some(fence) = &mut self.fence {
                fence.clear().map_err(doing("removing the fence"))?;
            }
            self.subnet_ground.down().map_err(doing("removing old routing rules"))?;
            self.routes.delete_rules(None).map_err(doing("removing old routing rules"))?;
        }
        self.routes
            .flush(|standing| standing.metric == GUARD)
            .map_err(doing("emptying the routing table"))?;
        self.installed.clear();
        self.clear_policies()
    }

    fn clear_policies(&mut self) -> Result<(), KernelError> {
        if let Some(policies) = &mut self.policies {
            policies.clear().map_err(doing("removing old XFRM policies"))?;
        }
        Ok(())
    }

    fn prepare_device(&mut self) -> Result<(), KernelError> {
        let name = &self.config.interface;
        let conf = |family: &str, what: &str| format!("{family}/conf/{name}/{what}");
        // What comes out of the device was decrypted by us: it has met its policy.
        for (parameter, value) in [
            (conf("ipv4", "disable_policy"), "1"),
            // What goes into it is not yet on its way out: the fence is for the other devices.
            (conf("ipv4", "disable_xfrm"), "1"),
            (conf("ipv4", "accept_redirects"), "0"),
            (conf("ipv4", "send_redirects"), "0"),
        ] {
            self.sysctls.set(&parameter, value).map_err(doing("setting up the device"))?;
        }
        // A device that is no link needs no router and no address of its own making.
        for (parameter, value) in [
            (conf("ipv6", "disable_policy"), "1"),
            (conf("ipv6", "accept_redirects"), "0"),
            (conf("ipv6", "accept_ra"), "0"),
            (conf("ipv6", "addr_gen_mode"), "1"),
        ] {
            // No IPv6, no parameter.
            let _ = self.sysctls.set(&parameter, value);
        }
        // A trapped peer's packets arrive where the trap's routes do not point back to.
        if sysctl::strict_reverse_path() {
            let all = "ipv4/conf/all/rp_filter";
            self.sysctls.set(all, "2").map_err(doing("relaxing the reverse-path filter"))?;
            tracing::info!("net.ipv4.conf.all.rp_filter is now 2 (loose)");
        }
        self.routes.set_up(self.device).map_err(doing("setting the device up"))
    }

    /// Ends a start that failed before [`Self::settled`]: what it made goes, and what a predecessor
    /// or a guard keeps closed stays closed.
    pub(crate) fn undo(&mut self) {
        let closed = |s: &Standing| s.metric == GUARD || keeps_closed(s);
        let undone = self.routes.flush(closed).and_then(|kept| match kept.as_slice() {
            [] => self.routes.delete_rules(None),
            _ => Ok(()),
        });
        if let Err(error) = undone {
            tracing::warn!(%error, "not everything was undone");
        }
        self.abandon();
    }

    /// Ends it by an error: the kernel goes on as after a crash, closed where policy says so, until
    /// the next start.
    pub(crate) fn abandon(&mut self) {
        for addr in std::mem::take(&mut self.lent) {
            let _ = self.routes.delete_address(self.device, addr);
        }
        self.sysctls.restore();
    }

    /// Removes everything that was made. Errors are logged: there is nothing else to be done
    /// about them.
    pub(crate) fn down(&mut self) {
        let lent = std::mem::take(&mut self.lent);
        for addr in lent {
            let _ = self.routes.delete_address(self.device, addr);
        }
        if let Err(error) = self.clear_leftovers() {
            tracing::warn!(%error, "not everything was removed");
        }
        self.sysctls.restore();
        self.classes.clear();
        self.port_classes.clear();
        self.hosts.clear();
        self.flows.clear();
        self.base.clear();
        self.protected.clear();
        self.subnets.clear();
        self.watched.clear();
    }

    /// Leads everything between two prefixes to the device, and keeps out what comes between them
    /// by another way; or no longer. Without the device nothing passes.
    ///
    /// # Errors
    /// If the kernel refuses a rule, a route or a policy.
    pub(crate) fn set_subnets(
        &mut self,
        subnets: Subnets,
        wanted: bool,
    ) -> Result<(), KernelError> {
        let links = self.subnets.get(&subnets).cloned().unwrap_or_default();
        self.replace_links(subnets, wanted.then_some(links))
    }

    /// Says which of the connections between two prefixes are up. That shows in the metrics of
    /// routes, for routing daemons: 50 and the place among those between the same prefixes.
    ///
    /// # Errors
    /// If the kernel refuses a route.
    pub(crate) fn set_links(&mut self, subnets: Subnets, up: &[u32]) -> Result<(), KernelError> {
        if !self.subnets.contains_key(&subnets) {
            return Ok(());
        }
        self.replace_links(subnets, Some(up.iter().copied().collect()))
    }

    fn replace_links(&mut self, subnets: Subnets, links: Option<Links>) -> Result<(), KernelError> {
        let before = match links.clone() {
            Some(links) => self.subnets.insert(subnets, links),
            None => self.subnets.remove(&subnets),
        };
        // Until all has been said, what a predecessor left stands for it.
        if before == links || !self.settled {
            return Ok(());
        }
        if before.is_some() && links.is_some() {
            let around = self.config.surroundings(&self.main, &self.addresses);
            let remote = subnets.remote();
            let ground = &mut self.subnet_ground;
            let followed = ground.follow_one(self.device, remote, &self.subnets, &around);
            return followed.map_err(doing("changing a route"));
        }
        self.follow_subnets()
    }

    /// What the guard keeps closed of the connections is all that is left of them.
    fn leave_subnets_guarded(&mut self) -> Result<(), KernelError> {
        let around = Surroundings {
            unattended: true,
            ..self.config.surroundings(&self.main, &self.addresses)
        };
        let rules = subnets::rules(&self.subnets, &around);
        let routes = subnets::guard_routes(self.subnets.keys().copied());
        self.subnet_ground.settle();
        let left = self.subnet_ground.follow(self.device, rules, &routes);
        left.map_err(doing("changing routing rules"))
    }

    fn follow_subnets(&mut self) -> Result<(), KernelError> {
        let around = self.config.surroundings(&self.main, &self.addresses);
        let rules = subnets::rules(&self.subnets, &around);
        let mut routes = subnets::routes(&self.subnets, &around);
        if self.guarded {
            routes.extend(subnets::guard_routes(self.subnets.keys().copied()));
        }
        let mut blocked = Ok(());
        if let Some(policies) = &mut self.policies {
            let staying = self.subnets.keys().map(|s| (*s, subnets::staying(s, &self.main)));
            let staying = staying.collect();
            blocked = policies.block_between(staying).map_err(doing("changing XFRM policies"));
        }
        let followed = self.subnet_ground.follow(self.device, rules, &routes);
        let followed = followed.map_err(doing("changing routing rules"));
        let fenced = self.follow_fence();
        blocked.and(followed).and(fenced)
    }

    /// Whoever goes around the routes meets policies that say the same.
    fn follow_fence(&mut self) -> Result<(), KernelError> {
        let closed = plan::guard(&self.classes, &self.main, &self.config.served);
        let staying = self.subnets.keys().map(|s| (*s, subnets::staying(s, &self.main)));
        let yard = Yard {
            closed: &closed,
            ports: &self.port_classes,
            between: &staying.collect(),
            never: &self.never,
            devices: &self.devices,
            mark: self.config.mark,
        };
        match &mut self.fence {
            Some(fence) => fence.follow(&yard, self.settled).map_err(doing("making the fence")),
            None => Ok(()),
        }
    }

    /// Where a way in the open has been taken away, what goes it in IPv6 looks for another. Not at each
    /// one that expires: it costs a walk over all tables.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(crate) fn turn_if_due(&mut self) -> Result<(), KernelError> {
        if std::mem::take(&mut self.turning) { self.turn_ipv6() } else { Ok(()) }
    }

    /// What is open in IPv6 looks for its way again.
    fn turn_ipv6(&mut self) -> Result<(), KernelError> {
        match &mut self.fence {
            Some(fence) => fence.turn_ipv6().map_err(doing("turning IPv6 sockets")),
            None => Ok(()),
        }
    }

    /// Prefixes, or single ports of them, get these classes, or none; the longest prefix decides. The
    /// whole table is planned anew for it, so what changes together is to be given together.
    ///
    /// # Errors
    /// If the kernel refuses a route or a policy.
    pub(crate) fn change_classes(&mut self, changes: &[ClassChange]) -> Result<(), KernelError> {
        if self.settled {
            // Somebody may have made or removed a guard without a word to us.
            self.look_for_guard()?;
        }
        change(&mut self.classes, changes);
        let mut excepted = Ok(());
        for (prefix, ports, class) in changes.iter().filter(|(_, ports, _)| !ports.is_any()) {
            let done = self.change_port_class(*prefix, *ports, *class);
            excepted = excepted.and(done);
        }
        self.follow().and(excepted)
    }

    /// Other hosts are behind us now: packets for them are not to be trapped.
    ///
    /// # Errors
    /// If the kernel refuses a route.
    pub(crate) fn set_served(&mut self, served: Vec<Prefix>) -> Result<(), KernelError> {
        self.config.served = served;
        self.follow()
    }

    fn change_port_class(
        &mut self,
        prefix: Prefix,
        ports: Ports,
        class: Option<Class>,
    ) -> Result<(), KernelError> {
        let before = match class {
            Some(class) => self.port_classes.insert((prefix, ports), class),
            None => self.port_classes.remove(&(prefix, ports)),
        };
        let (was, is) = (before == Some(Class::Pass), class == Some(Class::Pass));
        match &mut self.policies {
            Some(policies) if was != is => {
                policies.except(prefix, ports, is).map_err(doing("changing an XFRM policy"))
            }
            _ => Ok(()),
        }
    }

    /// The classes as far as routes can tell them apart.
    fn route_classes(&self) -> BTreeMap<Prefix, Class> {
        let ported = self.port_classes.iter().map(|((prefix, _), class)| (*prefix, *class));
        route_classes(self.classes.clone(), ported)
    }

    /// Whether the longest prefix of a destination has rules for single ports.
    fn minds_ports(&self, dst: IpAddr) -> bool {
        if self.port_classes.is_empty() {
            return false;
        }
        (0..=Prefix::host(dst).len())
            .rev()
            .filter_map(|len| Prefix::new(dst, len).ok())
            .find_map(|prefix| {
                let rules = (prefix, Ports::ANY)..=(prefix, Ports::MAX);
                let ported = self.port_classes.range(rules).next().is_some();
                (ported || self.classes.contains_key(&prefix)).then_some(ported)
            })
            .unwrap_or(false)
    }

    /// Why packets to an address go past us, whatever its class; `None` if they do not, or something
    /// has been decided of that address itself.
    pub(crate) fn left_alone(&self, addr: IpAddr) -> Option<LeftAlone> {
        if self.hosts.contains_key(&addr) {
            return None;
        }
        plan::left_alone(addr, &self.classes, &self.main, &self.never, &self.config.served)
    }

    /// Follows a flow's policy; `None` leaves it to its class. A destination is thrown or
    /// black-holed only when all flows to it agree, and at least one of them on account of the
    /// destination: a route knows no source, and one flow's failure must not take another's
    /// protection away, nor that of one which nobody has heard of yet.
    ///
    /// # Errors
    /// If the kernel refuses a route or a policy.
    pub(crate) fn set_policy(
        &mut self,
        flow: Flow,
        policy: Option<(Policy, About)>,
    ) -> Result<(), KernelError> {
        let flows = self.flows.entry(flow.dst()).or_default();
        match policy {
            Some(policy) => flows.insert((flow.src(), flow.ports()), policy),
            None => flows.remove(&(flow.src(), flow.ports())),
        };
        if flows.is_empty() {
            self.flows.remove(&flow.dst());
        }
        let policy = policy.map(|(policy, _)| policy);
        self.watched.remove(&flow);
        // Protection first when it comes, last when it goes.
        let protected = match policy {
            Some(Policy::Encrypt(_)) => self.protect(flow),
            _ => Ok(()),
        };
        let led = self.set_host(flow.dst(), self.host_for(flow.dst()));
        let turned = match policy {
            Some(Policy::Hold | Policy::Deny | Policy::Encrypt(_)) => self.turn_if_due(),
            // It has time until all has been said.
            Some(Policy::Pass) | None => Ok(()),
        };
        // Whatever becomes of one: a route that stays as it was would leave a pair unused.
        led.and(turned).and(protected)?;
        match policy {
            Some(Policy::Pass) | None => self.unprotect(flow),
            Some(Policy::Hold | Policy::Deny | Policy::Encrypt(_)) => Ok(()),
        }
    }

    /// Leads a flow's packets past us although they pass: whether there are any is to be seen.
    ///
    /// # Errors
    /// If the kernel refuses a route.
    pub(crate) fn watch(&mut self, flow: Flow) -> Result<(), KernelError> {
        let dst = flow.dst();
        let key = (flow.src(), flow.ports());
        if !self.flows.get(&dst).is_some_and(|flows| flows.contains_key(&key)) {
            return Ok(());
        }
        self.watched.insert(flow);
        self.set_host(dst, self.host_for(dst))
    }

    /// The route that a destination needs of its own.
    fn host_for(&self, dst: IpAddr) -> Option<Host> {
        let flows = self.flows.get(&dst)?;
        let watched = |(src, ports): &(IpAddr, Ports)| {
            let flow = Flow::new(*src, dst).map(|flow| flow.with_ports(*ports));
            flow.is_some_and(|flow| self.watched.contains(&flow))
        };
        if !self.watched.is_empty() && flows.keys().any(watched) {
            return None;
        }
        // What is said of single ports says nothing of others.
        let all = |wanted| {
            flows.iter().all(|((_, ports), (policy, _))| ports.is_any() && *policy == wanted)
                && flows.values().any(|(_, about)| *about == About::Destination)
                && !self.minds_ports(dst)
        };
        if all(Policy::Pass) {
            return Some(Host::Pass);
        }
        if all(Policy::Deny) {
            return Some(Host::Deny);
        }
        let ours = |(_, (policy, _)): &(_, &(Policy, About))| {
            matches!(policy, Policy::Hold | Policy::Encrypt(_))
        };
        let ((source, _), _) = flows.iter().find(ours)?;
        (!self.leads_to_device(dst)).then_some(Host::Device(*source))
    }

    /// Whether the class of a destination sends it to the device.
    fn leads_to_device(&self, dst: IpAddr) -> bool {
        let longest = Prefix::host(dst).len();
        (0..=longest)
            .rev()
            .find_map(|len| self.base.get(&(Prefix::new(dst, len).ok()?, LIVE)))
            .is_some_and(|target| matches!(target, Target::Device { .. }))
    }

    pub(super) fn set_host(&mut self, dst: IpAddr, host: Option<Host>) -> Result<(), KernelError> {
        match host {
            // A peer that called is answered through the device, however many there are.
            Some(Host::Pass | Host::Deny)
                if self.hosts.len() >= self.config.hosts && !self.hosts.contains_key(&dst) =>
            {
                let error = io::Error::from(io::ErrorKind::QuotaExceeded);
                return Err(KernelError { doing: "adding a route for one destination", error });
            }
            Some(host) => self.hosts.insert(dst, host),
            None => self.hosts.remove(&dst),
        };
        let key = (Prefix::host(dst), LIVE);
        let is_open = |ground: &Self| ground.installed.get(&key) == Some(&Target::Throw);
        let was_open = is_open(self);
        let led = match self.wanted(key) {
            Some(target) => self.put(key, target),
            None => self.remove(key),
        };
        self.turning |= dst.is_ipv6() && was_open && !is_open(self);
        led
    }

    /// Drops what arrives in the clear from the flow's far end.
    ///
    /// # Errors
    /// If the kernel refuses the policy.
    pub(super) fn protect(&mut self, flow: Flow) -> Result<(), KernelError> {
        if self.protected.contains(&flow) {
            return Ok(());
        }
        let lasting = self.is_closed(flow);
        if let Some(policies) = &mut self.policies {
            policies
                .block(Instant::now(), flow, lasting)
                .map_err(doing("adding an XFRM policy"))?;
        }
        self.protected.insert(flow);
        Ok(())
    }

    /// Does what the kernel refused when it was to be done.
    fn protect_the_rest(&mut self) -> Result<(), KernelError> {
        let keyed = self.flows.iter().flat_map(|(dst, flows)| {
            let encrypted = flows.iter().filter(|(_, (p, _))| matches!(p, Policy::Encrypt(_)));
            encrypted
                .filter_map(|((src, ports), _)| Some(Flow::new(*src, *dst)?.with_ports(*ports)))
        });
        let bare: Vec<Flow> = keyed.filter(|flow| !self.protected.contains(flow)).collect();
        bare.into_iter().try_for_each(|flow| self.protect(flow))
    }

    /// Whether the class of a flow, which may be that of its ports, stays closed without us.
    fn is_closed(&self, flow: Flow) -> bool {
        let dst = flow.dst();
        let class = (0..=Prefix::host(dst).len()).rev().find_map(|len| {
            let prefix = Prefix::new(dst, len).ok()?;
            let rules = self.port_classes.range((prefix, Ports::ANY)..=(prefix, Ports::MAX));
            let of_ports = rules
                .filter(|((_, ports), _)| ports.covers(flow.ports()))
                .max_by_key(|((_, ports), _)| ports.rank())
                .map(|(_, class)| *class);
            of_ports.or_else(|| self.classes.get(&prefix).copied())
        });
        matches!(class, Some(Class::Block | Class::Trap { fail_closed: true }))
    }

    /// When [`Self::renew`] is due.
    pub(crate) fn renewal_due(&self) -> Option<Instant> {
        self.policies.as_ref()?.renewal_due()
    }

    /// Renews the blocks that would end by themselves.
    ///
    /// # Errors
    /// If the kernel refuses a policy.
    pub(crate) fn renew(&mut self) -> Result<(), KernelError> {
        match &mut self.policies {
            Some(policies) => {
                policies.renew(Instant::now()).map_err(doing("renewing an XFRM policy"))
            }
            None => Ok(()),
        }
    }

    /// Packets of protected peers that came in the clear and were dropped.
    pub(crate) fn dropped_in_clear(&self) -> u64 {
        self.policies.as_ref().map_or(0, Policies::dropped)
    }

    /// Ends [`Self::protect`].
    ///
    /// # Errors
    /// If the kernel refuses to remove the policy.
    pub(super) fn unprotect(&mut self, flow: Flow) -> Result<(), KernelError> {
        if !self.protected.remove(&flow) {
            return Ok(());
        }
        if let Some(policies) = &mut self.policies {
            policies.unblock(flow).map_err(doing("removing an XFRM policy"))?;
        }
        Ok(())
    }

    /// Gives the device our IPv6 addresses. The kernel exempts IPv6 packets from policy by the
    /// device that has their destination address, not by the one they came through; with two
    /// devices having it, it takes the one they came through. All of them from the start: the
    /// kernel makes an address usable some time after it was added, and a flow's first packet
    /// does not wait for that.
    fn lend(&mut self) -> Result<(), KernelError> {
        let needed: BTreeSet<Ipv6Addr> = self
            .addresses
            .iter()
            .filter_map(|addr| match addr {
                IpAddr::V6(addr) => Some(*addr),
                IpAddr::V4(_) => None,
            })
            .filter(|addr| !addr.is_loopback() && !addr.is_unicast_link_local())
            .collect();
        for addr in needed.difference(&self.lent) {
            self.routes
                .add_address(self.device, *addr)
                .map_err(doing("giving the device an address"))?;
        }
        for addr in self.lent.difference(&needed) {
            self.routes
                .delete_address(self.device, *addr)
                .map_err(doing("taking an address from the device"))?;
        }
        self.lent = needed;
        Ok(())
    }

    /// Reads addresses, routes and rules anew, ours among them, and follows them. To be called when
    /// [`Changes::next`](super::Changes::next) says so.
    ///
    /// # Errors
    /// If the kernel cannot be read, or refuses a route.
    pub(crate) fn refresh(&mut self) -> Result<(), KernelError> {
        // First, because what somebody has removed leaves packets in the clear.
        self.look()?;
        if self.settled {
            self.look_for_steering();
        }
        let all = self.routes.addresses().map_err(doing("reading the addresses"))?;
        let own = all.iter().filter(|a| a.interface != self.device && !a.unusable);
        self.addresses = own.clone().map(|a| a.addr).collect();
        let broadcasts = own.filter_map(|a| a.broadcast.map(IpAddr::V4));
        self.never = self.addresses.iter().copied().chain(broadcasts).collect();
        self.main = self
            .routes
            .main_routes(self.device)
            .map_err(doing("reading the main routing table"))?;
        self.devices = self.routes.others(self.device).map_err(doing("reading the interfaces"))?;
        self.look_for_lent(&all);
        self.lend()?;
        let followed = self.follow_subnets();
        self.follow().and(followed)
    }

    /// Makes the table hold what it must: first what is new, so that nothing is open in between.
    /// One route that the kernel refuses does not keep the others from it.
    fn follow(&mut self) -> Result<(), KernelError> {
        let classes = self.route_classes();
        self.base = plan::plan(&classes, &self.main, &self.never, &self.config.served);
        if self.guarded {
            self.base.extend(plan::guard(&classes, &self.main, &self.config.served));
        }
        let called: Vec<IpAddr> = self.flows.keys().copied().collect();
        for dst in called {
            match self.host_for(dst) {
                Some(host) => self.hosts.insert(dst, host),
                None => self.hosts.remove(&dst),
            };
        }
        let mut result = Ok(());
        let now = Instant::now();
        let lasting: Vec<(Flow, bool)> =
            self.protected.iter().map(|flow| (*flow, self.is_closed(*flow))).collect();
        for (flow, lasting) in lasting {
            if let Some(policies) = &mut self.policies {
                let set = policies.set_lasting(now, flow, lasting);
                let set = set.map_err(doing("changing an XFRM policy"));
                result = result.and(set);
            }
        }
        let keys: BTreeSet<(Prefix, u32)> = self
            .base
            .keys()
            .copied()
            .chain(self.hosts.keys().map(|host| (Prefix::host(*host), LIVE)))
            .collect();
        // First, or who knows no way any more would find the one around.
        let fenced = self.follow_fence();
        result = result.and(fenced);
        let mut turns = false;
        for key in &keys {
            if let Some(target) = self.wanted(*key) {
                let opens = target == Target::Throw || self.installed.get(key) == Some(&target);
                turns |= key.0.addr().is_ipv6() && !opens;
                let put = self.put(*key, target);
                result = result.and(put);
            }
        }
        let stale: Vec<_> =
            self.installed.keys().filter(|key| !keys.contains(key)).copied().collect();
        for key in stale {
            turns |= key.0.addr().is_ipv6() && self.installed.get(&key) == Some(&Target::Throw);
            let removed = self.remove(key);
            result = result.and(removed);
        }
        let turned = if turns { self.turn_ipv6() } else { Ok(()) };
        result.and(turned)
    }

    fn wanted(&self, key: (Prefix, u32)) -> Option<Target> {
        let (prefix, metric) = key;
        let host = (prefix.is_host() && metric == LIVE).then(|| self.hosts.get(&prefix.addr()));
        let target = |host: &Host| match host.target() {
            Target::Blackhole if self.config.unreachable => Target::Prohibit,
            target => target,
        };
        host.flatten().map(target).or_else(|| self.base.get(&key).copied())
    }

    fn put(&mut self, key: (Prefix, u32), target: Target) -> Result<(), KernelError> {
        if self.installed.get(&key) == Some(&target) {
            return Ok(());
        }
        let (prefix, metric) = key;
        let mut put = self.routes.put(prefix, metric, target, self.device);
        if let (Err(error), Target::Device { source: Some(_) }) = (&put, target) {
            // The address went away a moment ago; better trapped with the wrong source than not
            // at all. The event that tells us of it sets it right.
            tracing::debug!(%error, %prefix, "no route with the preferred source");
            put = self.routes.put(prefix, metric, Target::Device { source: None }, self.device);
        }
        match put {
            Err(error) if is_without_ipv6(&error, &prefix) => Ok(()),
            Err(error) => Err(KernelError { doing: "adding a route", error }),
            Ok(()) => {
                self.installed.insert(key, target);
                Ok(())
            }
        }
    }

    fn remove(&mut self, key: (Prefix, u32)) -> Result<(), KernelError> {
        let Some(target) = self.installed.remove(&key) else { return Ok(()) };
        self.routes.delete(key.0, key.1, target).map_err(doing("removing a route"))
    }

    /// The addresses of this host, as last read.
    pub(crate) fn local_addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// The source address that the main table gives packets for this destination.
    #[cfg(test)]
    pub(crate) fn source_for(&mut self, dst: IpAddr) -> Option<IpAddr> {
        self.routes.way(dst, None).ok()?.source
    }

    /// The path MTU towards this destination: what the kernel has learnt, else the interface's.
    #[cfg(test)]
    pub(crate) fn mtu_for(&mut self, dst: IpAddr) -> Option<u32> {
        let way = self.routes.way(dst, None).ok()?;
        way.mtu.or_else(|| self.routes.mtu(way.interface?).ok())
    }
}
