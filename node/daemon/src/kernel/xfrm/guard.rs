//! The guard where the kernel carries the packets: policies that come after all others of ours.
//!
//! The kernel keeps one policy for a selector, and the daemon's own for a prefix says "from
//! anywhere": the guard's say it in two halves, and stand beside it.

use std::collections::{BTreeMap, HashMap};

use netlink_packet_xfrm::{UserPolicyInfo, XFRM_POLICY_ALLOW, XFRM_POLICY_BLOCK, XFRM_POLICY_OUT};
use sa::{Class, Prefix};

use super::super::ground::{KernelError, doing};
use super::super::guard::{Closed, GuardView};
use super::super::plan::{self, MainRoute, Plan, Target};
use super::super::policies::{self, ICMPV6, LEASES, UDP};
use super::super::routes::Routes;
use super::super::spd::{self, GUARD, Key, Spd};
use super::Xfrm;
use super::policy::ip;

/// The guard, for whoever sets it up or takes it down from outside the daemon.
pub(crate) struct XfrmGuard {
    spd: Spd,
    routes: Routes,
}

impl XfrmGuard {
    /// Opens the kernel's policy database.
    ///
    /// # Errors
    /// If the kernel gives no such socket.
    pub(crate) fn open() -> Result<Self, KernelError> {
        let spd = Spd::open().map_err(doing("opening the policy database"))?;
        let routes = Routes::open(0, 0).map_err(doing("opening a routing socket"))?;
        Ok(Self { spd, routes })
    }

    /// Closes what these classes close; again, what they close by now.
    ///
    /// # Errors
    /// If the kernel refuses; what was done stays.
    pub(crate) fn up(&mut self, closed: &Closed) -> Result<(), KernelError> {
        let main = self.routes.main_routes(0).map_err(doing("reading the main routing table"))?;
        raise(&mut self.spd, &wanted(&closed.classes, &main))
    }

    /// Takes it down; a daemon, or what a crashed one left, goes on as it was.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(crate) fn down(&mut self) -> Result<(), KernelError> {
        lower(&mut self.spd)
    }

    /// Looks at what stands, and compares it with what these classes ask for.
    ///
    /// # Errors
    /// If the kernel cannot be read.
    pub(crate) fn look(&mut self, closed: &Closed) -> Result<GuardView, KernelError> {
        let wanted = wanted(&closed.classes, &BTreeMap::new());
        let standing = standing(&mut self.spd)?;
        let wanted: HashMap<Key, UserPolicyInfo> = policies(&wanted).collect();
        let missing = wanted.iter().filter(|(key, info)| {
            standing.get(*key).is_none_or(|found| found.action != info.action)
        });
        let stale = standing.iter().filter(|(key, _)| !wanted.contains_key(*key));
        let prefixes = |all: Vec<&UserPolicyInfo>| {
            let mut prefixes: Vec<Prefix> = all.into_iter().filter_map(prefix_of).collect();
            prefixes.sort_unstable();
            prefixes.dedup();
            prefixes
        };
        let closes = |info: &&UserPolicyInfo| info.action == XFRM_POLICY_BLOCK;
        // Gateways come and go with the network: an exception too much is no leak of a prefix.
        let wide = |info: &&UserPolicyInfo| prefix_of(info).is_none_or(|p| !p.is_host());
        Ok(GuardView {
            up: !standing.is_empty(),
            rules: standing.len(),
            closed: prefixes(standing.values().filter(closes).collect()),
            missing: prefixes(missing.map(|(_, info)| info).collect()),
            stale: prefixes(stale.map(|(_, info)| info).filter(wide).collect()),
            ..GuardView::default()
        })
    }
}

impl Xfrm {
    /// Makes or removes the guard, which from then on follows the classes.
    ///
    /// # Errors
    /// If the kernel refuses a policy.
    pub(crate) fn set_guard(&mut self, up: bool) -> Result<(), KernelError> {
        self.guarded = up;
        if up { self.follow_guard() } else { lower(&mut self.spd) }
    }

    /// Whether there is a guard that stays when we go.
    pub(crate) fn is_guarded(&self) -> bool {
        self.guarded
    }

    /// Sees whether somebody has made or removed one.
    pub(super) fn look_for_guard(&mut self) -> Result<(), KernelError> {
        self.guarded = !standing(&mut self.spd)?.is_empty();
        Ok(())
    }

    /// Keeps it in step with the classes, if it is there.
    pub(super) fn follow_guard(&mut self) -> Result<(), KernelError> {
        if !self.guarded {
            return Ok(());
        }
        raise(&mut self.spd, &wanted(&self.classes, &self.main))
    }
}

fn wanted(classes: &BTreeMap<Prefix, Class>, main: &BTreeMap<Prefix, MainRoute>) -> Plan {
    plan::guard(classes, main, &[])
}

/// Puts what is new before what is old goes: nothing is open in between.
fn raise(spd: &mut Spd, plan: &Plan) -> Result<(), KernelError> {
    let wanted: HashMap<Key, UserPolicyInfo> = policies(plan).collect();
    let standing = standing(spd)?;
    for (key, info) in &wanted {
        let same =
            |found: &UserPolicyInfo| (found.action, found.priority) == (info.action, info.priority);
        if !standing.get(key).is_some_and(same) {
            spd.put(*info, Vec::new()).map_err(doing("adding a policy of the guard"))?;
        }
    }
    for (key, info) in standing {
        if !wanted.contains_key(&key) {
            spd.delete(info.selector, info.direction)
                .map_err(doing("removing a policy of the guard"))?;
        }
    }
    Ok(())
}

fn lower(spd: &mut Spd) -> Result<(), KernelError> {
    spd.clear_range(&GUARD).map_err(doing("removing the guard's policies"))
}

fn standing(spd: &mut Spd) -> Result<HashMap<Key, UserPolicyInfo>, KernelError> {
    let all = spd.list(&GUARD).map_err(doing("reading the policy database"))?;
    Ok(all
        .into_iter()
        .map(|policy| (spd::key(&policy.user_policy_info, &policy.nlas), policy.user_policy_info))
        .collect())
}

/// The policies of a plan, the longest prefixes first, and what is never closed before them:
/// neighbour discovery, and what is said of DHCP leases (RFC 2131 §4.4.5, RFC 9915 §7.2).
fn policies(plan: &Plan) -> impl Iterator<Item = (Key, UserPolicyInfo)> {
    let of_prefix = plan.iter().flat_map(|((prefix, _), target)| {
        let action = match target {
            Target::Blackhole | Target::Prohibit => XFRM_POLICY_BLOCK,
            Target::Throw | Target::Device { .. } => XFRM_POLICY_ALLOW,
        };
        let after = 10 + u32::from(128 - prefix.len().min(128));
        halves(*prefix).map(|half| outbound(half, *prefix, action, GUARD.start() + after))
    });
    let leases = LEASES.into_iter().flat_map(|(all, sport, dport)| {
        halves(all).map(move |half| {
            let mut info = outbound(half, all, XFRM_POLICY_ALLOW, *GUARD.start());
            info.selector.proto = UDP;
            (info.selector.sport, info.selector.sport_mask) = (sport, u16::MAX);
            (info.selector.dport, info.selector.dport_mask) = (dport, u16::MAX);
            info
        })
    });
    let exceptions = policies::exceptions(&[]).into_iter();
    let discovery = exceptions.filter(|info| info.selector.proto == ICMPV6).flat_map(|info| {
        halves(Prefix::ALL_V6).map(|half| {
            let mut info = info;
            let everybody = spd::between(half, Prefix::ALL_V6);
            (info.selector.saddr, info.selector.prefixlen_s) =
                (everybody.saddr, everybody.prefixlen_s);
            (info.direction, info.priority) = (XFRM_POLICY_OUT, *GUARD.start());
            info
        })
    });
    let all: Vec<_> = of_prefix.chain(leases).chain(discovery).collect();
    all.into_iter().map(|info| (spd::key(&info, &[]), info))
}

fn outbound(from: Prefix, to: Prefix, action: u8, priority: u32) -> UserPolicyInfo {
    let mut info = UserPolicyInfo { direction: XFRM_POLICY_OUT, ..UserPolicyInfo::default() };
    info.selector = spd::between(from, to);
    (info.action, info.priority) = (action, priority);
    info
}

/// All sources of a prefix's family, in two halves.
fn halves(prefix: Prefix) -> [Prefix; 2] {
    let texts =
        if prefix.addr().is_ipv4() { ["0.0.0.0/1", "128.0.0.0/1"] } else { ["::/1", "8000::/1"] };
    texts.map(|text| text.parse().unwrap_or(prefix))
}

/// The destinations of a policy.
fn prefix_of(info: &UserPolicyInfo) -> Option<Prefix> {
    let addr = ip(info.selector.daddr, info.selector.family)?;
    Prefix::new(addr, info.selector.prefixlen_d).ok()
}
