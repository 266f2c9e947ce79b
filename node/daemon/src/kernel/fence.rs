//! The fence: XFRM policies that keep what is closed closed to whoever goes around routing (RFC 4301
//! §5.1: what leaves has met the policy, whichever way it leaves by).
//!
//! Any user may bind a socket to a device (`SO_BINDTODEVICE`, `IP_UNICAST_IF`, `IP_PKTINFO`). The
//! kernel then looks at routes of that device alone: it passes over the one to ours, and where a
//! black hole answers it takes an IPv4 destination to be on the link. Policies are asked once the
//! way has been found, whatever it is.
//!
//! In IPv4 they say which device a packet leaves by, and ours is exempt from them as a whole. In
//! IPv6 they know the device that was asked for, which is none for everybody else; so there it is
//! one policy for each device but ours.
//!
//! ```text
//! FENCE          our own sockets, by their mark; neighbour discovery; requests for a lease;
//!                the kernel's answers to IPv6 echo requests
//!      + 10      link-local, multicast, broadcast and our own addresses; what stays on this side
//!                of a connection, and what it has brought us
//!      + 20      what is between the subnets of a connection                        block
//!      + 30      what a server of leases answers
//!      + 100…    rules of the policy groups, the longest prefix first: private, block   block
//!                what is open inside them                                           allow
//! ```

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use netlink_packet_xfrm::{
    Mark, UserPolicyInfo, XFRM_POLICY_ALLOW, XFRM_POLICY_BLOCK, XFRM_POLICY_OUT, XfrmAttrs,
};
use sa::{Class, Ports, Prefix, Subnets};

use super::plan::{self, Plan, Target};
use super::policies::{self, ANSWERS, ICMPV6, REQUESTS, UDP};
use super::spd::{self, GUARD, Key, Spd};

/// The priorities of the fence, after all others of ours.
pub(super) const FENCE: RangeInclusive<u32> = *GUARD.end() + 1..=*GUARD.end() + 400;

/// In place of a device: whatever a packet leaves by.
pub(super) const ANY_DEVICE: u32 = 0;

/// What is open although a connection is around it.
const OPEN: u32 = *FENCE.start() + 10;

/// What is between the subnets of connections.
const BETWEEN: u32 = *FENCE.start() + 20;

/// What a server of leases answers, but not past a connection.
const ANSWERED: u32 = *FENCE.start() + 30;

/// Prefixes, the longest first; before a prefix its rules for single ports.
fn of_prefix(len: u8, ports: bool) -> u32 {
    *FENCE.start() + 100 + 2 * (128 - u32::from(len.min(128))) + u32::from(!ports)
}

/// The ICMPv6 type of what answers an echo request (RFC 4443 §4.2). Who may send it otherwise may set
/// our mark as well.
const ECHO_REPLY: u16 = 129;

/// As selectors name it.
const AF_INET6: u16 = 10;

/// A policy, and what it depends on beside its selector.
type Rail = (UserPolicyInfo, Vec<XfrmAttrs>);

/// What a fence is made around.
pub(super) struct Yard<'a> {
    /// What is closed by the policy groups, and open inside that: the plan of the guard.
    pub(super) closed: &'a Plan,
    /// The same for single ports of prefixes, which are looked at first.
    pub(super) ports: &'a BTreeMap<(Prefix, Ports), Class>,
    /// What is between these is closed too, but for what stays on this side.
    pub(super) between: &'a BTreeMap<Subnets, Vec<Prefix>>,
    /// Our own addresses, and those that everybody on a link hears.
    pub(super) never: &'a [IpAddr],
    /// The devices that packets could leave by, but for ours.
    pub(super) devices: &'a [u32],
    /// The mark of our own sockets.
    pub(super) mark: u32,
}

/// The fence as it stands.
pub(super) struct Fence {
    spd: Spd,
    standing: HashMap<Key, Rail>,
    /// Whether a predecessor's may stand.
    inherited: bool,
}

impl Fence {
    /// Opens the kernel's policy database. What a predecessor left stands until [`Self::follow`]
    /// is told that all has been said.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { spd: Spd::open()?, standing: HashMap::new(), inherited: true })
    }

    /// Makes it what it must be: first what is new, so that nothing is open in between. With
    /// `settled`, whatever else stands goes.
    pub(super) fn follow(&mut self, yard: &Yard<'_>, settled: bool) -> io::Result<()> {
        let mut wanted: HashMap<Key, Rail> = HashMap::new();
        for rail in rails(yard) {
            // One selector has one policy: what is said first is what matters more.
            wanted.entry(spd::key(&rail.0, &rail.1)).or_insert(rail);
        }
        let said = |rail: &Rail| (rail.0.action, rail.0.priority);
        let is_new =
            |(key, rail): &(&Key, &Rail)| self.standing.get(key).map(said) != Some(said(rail));
        let mut new: Vec<(Key, Rail)> =
            wanted.iter().filter(is_new).map(|(key, rail)| (*key, rail.clone())).collect();
        // What is open inside comes before what is closed around it.
        new.sort_by_key(|(key, (policy, _))| (policy.priority, *key));
        let mut done = Ok(());
        for (key, (policy, nlas)) in new {
            // One that the kernel refuses does not keep the others from it.
            match self.spd.put(policy, nlas.clone()) {
                Ok(()) => {
                    self.standing.insert(key, (policy, nlas));
                }
                Err(error) if is_without_ipv6(&error, &policy) => {}
                Err(error) => done = done.and(Err(error)),
            }
        }
        let removed = if settled { self.remove_all_but(&wanted) } else { Ok(()) };
        done.and(removed)
    }

    fn remove_all_but(&mut self, wanted: &HashMap<Key, Rail>) -> io::Result<()> {
        if !self.inherited && self.standing.len() == wanted.len() {
            return Ok(());
        }
        let mut stale = self.spd.list(&FENCE)?;
        stale.retain(|p| !wanted.contains_key(&spd::key(&p.user_policy_info, &p.nlas)));
        // What is closed opens before what was open inside it could be closed.
        stale.sort_by_key(|policy| std::cmp::Reverse(policy.user_policy_info.priority));
        for policy in stale {
            self.standing.remove(&spd::key(&policy.user_policy_info, &policy.nlas));
            self.spd.delete_exactly(policy)?;
        }
        self.standing.retain(|key, _| wanted.contains_key(key));
        self.inherited = false;
        Ok(())
    }

    /// Puts back what somebody has removed. How many were gone.
    pub(super) fn restore(&mut self) -> io::Result<usize> {
        let held = self.spd.list(&FENCE)?;
        let held: HashSet<Key> =
            held.iter().map(|p| spd::key(&p.user_policy_info, &p.nlas)).collect();
        let mut gone: Vec<Rail> = self
            .standing
            .iter()
            .filter(|(key, _)| !held.contains(key))
            .map(|(_, rail)| rail.clone())
            .collect();
        gone.sort_by_key(|(policy, _)| policy.priority);
        let lost = gone.len();
        for (policy, nlas) in gone {
            self.spd.put(policy, nlas)?;
        }
        Ok(lost)
    }

    /// Removes it, a predecessor's included.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.standing.clear();
        self.spd.clear_range(&FENCE)
    }

    /// Has open IPv6 sockets look for their way again. They keep the one they have as long as its
    /// own table does not change, and what ours says is news to them only then; a policy that comes
    /// and goes changes all tables (IPv4 needs none of this).
    pub(super) fn turn_ipv6(&mut self) -> io::Result<()> {
        let nobody = Prefix::host(IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED));
        let policy = rail(spd::between(nobody, nobody), XFRM_POLICY_ALLOW, *FENCE.end()).0;
        match self.spd.put(policy, Vec::new()) {
            Err(error) if is_without_ipv6(&error, &policy) => Ok(()),
            put => put.and_then(|()| self.spd.delete(policy.selector, policy.direction)),
        }
    }
}

/// Whether this is a kernel without IPv6 that was given a policy of it.
fn is_without_ipv6(error: &io::Error, policy: &UserPolicyInfo) -> bool {
    policy.selector.family == AF_INET6
        && matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP))
}

fn rail(selector: netlink_packet_xfrm::Selector, action: u8, priority: u32) -> Rail {
    let mut policy = UserPolicyInfo { selector, ..UserPolicyInfo::default() };
    policy.direction = XFRM_POLICY_OUT;
    policy.action = action;
    policy.priority = priority;
    (policy, Vec::new())
}

/// Everything that the fence is made of; nothing where nothing is closed. Of several with one
/// selector the first counts.
fn rails(yard: &Yard<'_>) -> Vec<Rail> {
    let closes = |target: &Target| matches!(target, Target::Blackhole | Target::Prohibit);
    let closed = |class: &Class| matches!(class, Class::Block | Class::Trap { fail_closed: true });
    if yard.between.is_empty()
        && !yard.closed.values().any(closes)
        && !yard.ports.values().any(closed)
    {
        return Vec::new();
    }
    let mut all = gates(yard.mark);
    let mut add = |from: Prefix, to: Prefix, ports: Ports, action: u8, priority: u32| {
        let (mut policy, nlas) = rail(spd::between(from, to), action, priority);
        policies::set_ports(&mut policy, ports);
        all.extend(on_devices((policy, nlas), yard.devices));
    };
    let hosts = yard.never.iter().map(|addr| Prefix::host(*addr));
    let hosts = hosts.filter(|host| !plan::never().any(|prefix| prefix.covers(host)));
    for prefix in plan::never().chain(hosts) {
        add(any(prefix), prefix, Ports::ANY, XFRM_POLICY_ALLOW, OPEN);
    }
    for (between, staying) in yard.between {
        let (local, remote) = (between.local(), between.remote());
        for to in staying {
            add(local, *to, Ports::ANY, XFRM_POLICY_ALLOW, OPEN);
        }
        // Where the way back is a connection as well, that says what becomes of it.
        let back = Subnets::new(remote, local);
        if !back.is_some_and(|back| yard.between.contains_key(&back)) {
            add(remote, local, Ports::ANY, XFRM_POLICY_ALLOW, OPEN);
        }
        add(local, remote, Ports::ANY, XFRM_POLICY_BLOCK, BETWEEN);
    }
    let action = |closed: bool| if closed { XFRM_POLICY_BLOCK } else { XFRM_POLICY_ALLOW };
    for ((prefix, ports), class) in yard.ports {
        let priority = of_prefix(prefix.len(), true);
        add(any(*prefix), *prefix, *ports, action(closed(class)), priority);
    }
    for ((prefix, _), target) in yard.closed {
        let priority = of_prefix(prefix.len(), false);
        add(any(*prefix), *prefix, Ports::ANY, action(closes(target)), priority);
    }
    all
}

/// A block stands on each device; what is open is open on all of them.
fn on_devices(rail: Rail, devices: &[u32]) -> Vec<Rail> {
    let (policy, nlas) = rail;
    // What has an IPv4 address says so in its family.
    let v6 = policy.selector.family == AF_INET6;
    if policy.action == XFRM_POLICY_ALLOW || !v6 {
        return vec![(policy, nlas)];
    }
    let on = |device: &u32| {
        let mut policy = policy;
        policy.selector.ifindex = i32::try_from(*device).unwrap_or(0);
        (policy, nlas.clone())
    };
    devices.iter().map(on).collect()
}

fn any(prefix: Prefix) -> Prefix {
    if prefix.addr().is_ipv4() { Prefix::ALL_V4 } else { Prefix::ALL_V6 }
}

/// What passes whatever is closed.
fn gates(mark: u32) -> Vec<Rail> {
    let mut all = Vec::new();
    for prefix in [Prefix::ALL_V4, Prefix::ALL_V6] {
        let (policy, _) = rail(spd::between(prefix, prefix), XFRM_POLICY_ALLOW, *FENCE.start());
        all.push((policy, vec![XfrmAttrs::Mark(Mark { value: mark, mask: u32::MAX })]));
    }
    let requests = REQUESTS.into_iter().map(|ports| (*FENCE.start(), ports));
    let answers = ANSWERS.into_iter().map(|ports| (ANSWERED, ports));
    for (priority, (prefix, from, to)) in requests.chain(answers) {
        let (mut policy, nlas) = rail(spd::between(prefix, prefix), XFRM_POLICY_ALLOW, priority);
        let selector = &mut policy.selector;
        selector.proto = UDP;
        (selector.sport, selector.sport_mask) = (from, u16::MAX);
        (selector.dport, selector.dport_mask) = (to, u16::MAX);
        all.push((policy, nlas));
    }
    let discovery = policies::exceptions(&[]).into_iter().filter(|p| p.selector.proto == ICMPV6);
    all.extend(discovery.map(|inbound| rail(inbound.selector, XFRM_POLICY_ALLOW, *FENCE.start())));
    // The kernel names the device that the question came by, and goes where the routes lead.
    let (mut reply, nlas) =
        rail(spd::between(Prefix::ALL_V6, Prefix::ALL_V6), XFRM_POLICY_ALLOW, *FENCE.start());
    reply.selector.proto = ICMPV6;
    (reply.selector.sport, reply.selector.sport_mask) = (ECHO_REPLY, u16::MAX);
    all.push((reply, nlas));
    all
}

#[cfg(test)]
mod tests {
    use netlink_packet_xfrm::Selector;

    use super::*;

    fn p(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn nothing_closed_needs_no_fence() {
        let closed = Plan::from([((p("169.254.0.0/16"), 300), Target::Throw)]);
        let yard = Yard {
            closed: &closed,
            ports: &BTreeMap::new(),
            between: &BTreeMap::new(),
            never: &[],
            devices: &[2],
            mark: 1,
        };
        assert!(rails(&yard).is_empty());
    }

    #[test]
    fn ipv6_is_fenced_device_by_device_and_what_is_open_inside_comes_first() {
        let closed = Plan::from([
            ((p("2001:db8::/32"), 300), Target::Blackhole),
            ((p("2001:db8:5::/48"), 300), Target::Throw),
            ((p("10.0.0.0/8"), 300), Target::Prohibit),
        ]);
        let never = ["10.0.0.255".parse().unwrap()];
        let between = BTreeMap::from([(
            Subnets::new(p("10.5.0.0/16"), p("0.0.0.0/0")).unwrap(),
            vec![p("10.5.0.0/16")],
        )]);
        let open = Ports::new(17, 0, 53).unwrap();
        let ports = BTreeMap::from([((p("10.0.0.0/8"), open), Class::Pass)]);
        let yard = Yard {
            closed: &closed,
            ports: &ports,
            between: &between,
            never: &never,
            devices: &[2, 7],
            mark: 1,
        };
        let rails = rails(&yard);
        let blocks: Vec<_> =
            rails.iter().map(|(p, _)| p).filter(|p| p.action == XFRM_POLICY_BLOCK).collect();
        let devices: Vec<_> = blocks.iter().map(|p| p.selector.ifindex).collect();
        assert_eq!(devices, [0, 0, 2, 7], "{blocks:?}");
        let priority = |prefix: &str, from: &str| {
            let wanted = spd::between(p(from), p(prefix));
            let same = |q: &&Rail| {
                let of = |s: &Selector| (s.daddr, s.prefixlen_d, s.prefixlen_s, s.proto);
                of(&q.0.selector) == of(&wanted)
            };
            rails.iter().find(same).unwrap().0.priority
        };
        assert!(priority("2001:db8:5::/48", "::/0") < priority("2001:db8::/32", "::/0"));
        assert!(priority("10.0.0.255/32", "0.0.0.0/0") < priority("10.0.0.0/8", "0.0.0.0/0"));
        assert!(priority("10.5.0.0/16", "10.5.0.0/16") < priority("0.0.0.0/0", "10.5.0.0/16"));
        // A connection to everywhere does not take the link's own traffic away.
        assert!(priority("224.0.0.0/4", "0.0.0.0/0") < priority("0.0.0.0/0", "10.5.0.0/16"));
        let ported = rails.iter().find(|(p, _)| (p.selector.proto, p.selector.dport) == (17, 53));
        let (ported, _) = ported.unwrap();
        assert_eq!(ported.action, XFRM_POLICY_ALLOW);
        assert!(ported.priority < priority("10.0.0.0/8", "0.0.0.0/0"));
        assert!(rails.iter().all(|(policy, _)| FENCE.contains(&policy.priority)));
    }
}
