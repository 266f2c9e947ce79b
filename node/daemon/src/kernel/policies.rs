//! The XFRM policies that drop clear packets of a protected peer (RFC 4301 §5.2: what arrives
//! must have arrived the way policy says).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use netlink_packet_xfrm::{
    UserPolicyInfo, XFRM_POLICY_ALLOW, XFRM_POLICY_BLOCK, XFRM_POLICY_FWD, XFRM_POLICY_IN,
};
use sa::{Flow, Ports, Prefix, Subnets};

use super::renewals::Renewals;
use super::spd::{self, Spd};

/// ICMPv6 types of neighbour discovery (RFC 4861 §4): a protected peer on the link is still to be
/// found on it.
const NEIGHBOUR_DISCOVERY: std::ops::RangeInclusive<u16> = 133..=137;

/// Renewed in one go: the main loop has other things to do.
const RENEWED_AT_ONCE: usize = 64;

pub(super) const UDP: u8 = 17;
pub(super) const ESP: u8 = 50;
pub(super) const ICMPV6: u8 = 58;

/// The inbound policies of the kernel.
pub(super) struct Policies {
    spd: Spd,
    ports: Vec<u16>,
    /// The device that what we decrypted comes out of.
    device: u32,
    exceptions: bool,
    blocked: HashMap<Flow, Block>,
    /// Those of configured connections.
    between: BTreeMap<(Prefix, Prefix, u8), UserPolicyInfo>,
    /// Blocks that end by themselves, in the order in which they are to be renewed.
    renewals: Renewals,
    /// How long such a block outlives us.
    life: Duration,
    /// What rules for single ports let in.
    excepted: BTreeSet<(Prefix, Ports)>,
    /// What the kernel had counted before us.
    counted_before: u64,
}

/// The block of a flow.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Block {
    /// In which a policy of ours blocks it.
    directions: Vec<u8>,
    /// Whether it stays when we are gone.
    lasting: bool,
}

impl Policies {
    /// Opens the kernel's policy database. `ports` are our UDP ports, through which protected
    /// packets come; `device` is where they come out; `life` is how long a block that is not
    /// lasting outlives us.
    pub(super) fn open(ports: &[u16], device: u32, life: Duration) -> io::Result<Self> {
        Ok(Self {
            spd: Spd::open()?,
            ports: ports.to_vec(),
            device,
            exceptions: false,
            blocked: HashMap::new(),
            between: BTreeMap::new(),
            renewals: Renewals::default(),
            life,
            excepted: BTreeSet::new(),
            counted_before: counted(),
        })
    }

    /// Drops what comes from the flow's far end to its near end otherwise than through the
    /// device. A `lasting` block stays if we are killed; another one is the kernel's to remove
    /// then, because whoever would talk in the clear without us is to be reachable without us.
    pub(super) fn block(&mut self, now: Instant, flow: Flow, lasting: bool) -> io::Result<()> {
        self.make_exceptions()?;
        let mut block = Block { directions: Vec::new(), lasting };
        for policy in blocks(flow, self.life_of(lasting)) {
            if self.spd.add(policy)? {
                block.directions.push(policy.direction);
            }
        }
        self.blocked.insert(flow, block);
        self.schedule(now, flow, lasting);
        Ok(())
    }

    /// Makes a block lasting, or one that ends by itself.
    pub(super) fn set_lasting(
        &mut self,
        now: Instant,
        flow: Flow,
        lasting: bool,
    ) -> io::Result<()> {
        let Some(block) = self.blocked.get_mut(&flow).filter(|block| block.lasting != lasting)
        else {
            return Ok(());
        };
        block.lasting = lasting;
        self.schedule(now, flow, lasting);
        self.put(flow)
    }

    fn schedule(&mut self, now: Instant, flow: Flow, lasting: bool) {
        match lasting {
            true => self.renewals.remove(flow),
            false => self.renewals.put(now + self.life / 3, flow),
        }
    }

    /// When [`Self::renew`] is due.
    pub(super) fn renewal_due(&self) -> Option<Instant> {
        self.renewals.due()
    }

    /// Renews what is due, a part of it if that is much.
    pub(super) fn renew(&mut self, now: Instant) -> io::Result<()> {
        let mut done = Ok(());
        for _ in 0..RENEWED_AT_ONCE {
            let Some(flow) = self.renewals.take(now) else { break };
            self.schedule(now, flow, false);
            let put = self.put(flow);
            done = done.and(put);
        }
        done
    }

    fn put(&mut self, flow: Flow) -> io::Result<()> {
        let Some(block) = self.blocked.get(&flow) else { return Ok(()) };
        let ours = |policy: &UserPolicyInfo| block.directions.contains(&policy.direction);
        for policy in blocks(flow, self.life_of(block.lasting)).into_iter().filter(ours) {
            self.spd.put(policy, Vec::new())?;
        }
        Ok(())
    }

    fn life_of(&self, lasting: bool) -> Option<Duration> {
        (!lasting).then_some(self.life)
    }

    /// Packets that came in the clear and were dropped, since we opened the database.
    pub(super) fn dropped(&self) -> u64 {
        counted().saturating_sub(self.counted_before)
    }

    /// Ends [`Self::block`] for this flow.
    pub(super) fn unblock(&mut self, flow: Flow) -> io::Result<()> {
        let Some(block) = self.blocked.remove(&flow) else { return Ok(()) };
        self.renewals.remove(flow);
        for policy in blocks(flow, None) {
            if block.directions.contains(&policy.direction) {
                self.spd.delete(policy.selector, policy.direction)?;
            }
        }
        Ok(())
    }

    /// Lets in what a rule for single ports sends in the clear; with `false` no longer.
    pub(super) fn except(&mut self, prefix: Prefix, ports: Ports, on: bool) -> io::Result<()> {
        for policy in port_exceptions(prefix, ports) {
            if on {
                self.spd.add(policy)?;
            } else {
                self.spd.delete(policy.selector, policy.direction)?;
            }
        }
        match on {
            true => self.excepted.insert((prefix, ports)),
            false => self.excepted.remove(&(prefix, ports)),
        };
        Ok(())
    }

    /// Puts back what somebody has removed: whoever flushes the database flushes ours as well. How
    /// many were gone, but for those whose life was over.
    pub(super) fn restore(&mut self) -> io::Result<usize> {
        let held = self.spd.keys()?;
        let mut gone: Vec<UserPolicyInfo> = Vec::new();
        if self.exceptions {
            gone.extend(exceptions(&self.ports));
            gone.push(decrypted(self.device));
        }
        gone.extend(
            self.excepted.iter().flat_map(|(prefix, ports)| port_exceptions(*prefix, *ports)),
        );
        gone.extend(self.between.values());
        for (flow, block) in &self.blocked {
            let all = blocks(*flow, self.life_of(block.lasting));
            gone.extend(all.into_iter().filter(|p| block.directions.contains(&p.direction)));
        }
        gone.retain(|policy| !held.contains(&spd::key(policy, &[])));
        let lost = gone.len();
        for policy in gone {
            self.spd.put(policy, Vec::new())?;
        }
        Ok(lost)
    }

    /// Drops what comes to this host between these prefixes otherwise than through the device, but
    /// for what comes from the given prefixes. Replaces what was said before.
    pub(super) fn block_between(
        &mut self,
        subnets: BTreeMap<Subnets, Vec<Prefix>>,
    ) -> io::Result<()> {
        let mut wanted = BTreeMap::new();
        for (between, staying) in &subnets {
            let local = between.local();
            let mut put = |from: Prefix, action, priority| {
                let policy = inbound(from, local, action, priority);
                wanted.entry((from, local, action)).or_insert(policy);
            };
            put(between.remote(), XFRM_POLICY_BLOCK, spd::BETWEEN);
            for from in staying {
                put(*from, XFRM_POLICY_ALLOW, spd::STAYING);
            }
        }
        // One selector has one policy: what stays local is not blocked.
        let allowed: Vec<(Prefix, Prefix)> = wanted
            .keys()
            .filter(|(_, _, action)| *action == XFRM_POLICY_ALLOW)
            .map(|(from, to, _)| (*from, *to))
            .collect();
        wanted.retain(|(from, to, action), _| {
            *action == XFRM_POLICY_ALLOW || !allowed.contains(&(*from, *to))
        });
        if !wanted.is_empty() {
            self.make_exceptions()?;
        }
        let stale: Vec<_> =
            self.between.keys().filter(|key| !wanted.contains_key(key)).copied().collect();
        for key in stale {
            if let Some(policy) = self.between.remove(&key) {
                self.spd.delete(policy.selector, policy.direction)?;
            }
        }
        for (key, policy) in wanted {
            if self.between.contains_key(&key) {
                continue;
            }
            let (from, local, _) = key;
            let stands = if self.take_from_flow(from, local) {
                self.spd.put(policy, Vec::new()).map(|()| true)
            } else {
                self.spd.add(policy)
            };
            if stands? {
                self.between.insert(key, policy);
            }
        }
        Ok(())
    }

    /// One selector has one policy: what blocked a flow between two hosts is the connection's from
    /// now on, and does not go with the flow. Whether there was such a block.
    fn take_from_flow(&mut self, from: Prefix, local: Prefix) -> bool {
        let hosts = from.is_host() && local.is_host();
        let flow = Flow::new(local.addr(), from.addr()).filter(|_| hosts);
        let Some(block) = flow.and_then(|flow| self.blocked.get_mut(&flow)) else { return false };
        let before = block.directions.len();
        block.directions.retain(|direction| *direction != XFRM_POLICY_IN);
        block.directions.len() < before
    }

    fn make_exceptions(&mut self) -> io::Result<()> {
        if !self.exceptions {
            for exception in exceptions(&self.ports) {
                self.spd.add(exception)?;
            }
            self.spd.add(decrypted(self.device))?;
            self.exceptions = true;
        }
        Ok(())
    }

    /// Removes every policy of ours, those of a predecessor included.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.exceptions = false;
        self.blocked.clear();
        self.between.clear();
        self.excepted.clear();
        self.renewals.clear();
        self.spd.clear()
    }
}

/// A policy for what arrives here from one prefix for another.
fn inbound(from: Prefix, to: Prefix, action: u8, priority: u32) -> UserPolicyInfo {
    let selector = spd::between(from, to);
    let mut policy = UserPolicyInfo { selector, ..UserPolicyInfo::default() };
    policy.priority = priority;
    policy.action = action;
    policy.direction = XFRM_POLICY_IN;
    policy
}

/// Packets that inbound policies have blocked, in this network namespace since it was made; zero
/// if the kernel does not count them.
fn counted() -> u64 {
    let text = std::fs::read_to_string("/proc/net/xfrm_stat").unwrap_or_default();
    let of = |line: &str| line.strip_prefix("XfrmInPolBlock")?.trim().parse().ok();
    text.lines().find_map(of).unwrap_or(0)
}

/// The blocks of a flow, inbound as its packets show themselves; with a `life`, the kernel removes
/// them after it.
fn blocks(flow: Flow, life: Option<Duration>) -> Vec<UserPolicyInfo> {
    let selector = spd::between(Prefix::host(flow.dst()), Prefix::host(flow.src()));
    let mut policy = UserPolicyInfo { selector, ..UserPolicyInfo::default() };
    set_ports(&mut policy, flow.ports().reversed());
    policy.priority = spd::FLOW;
    policy.action = XFRM_POLICY_BLOCK;
    // At least a second: zero is for ever.
    policy.lifetime_cfg.hard_add_expires_seconds = life.map_or(0, |life| life.as_secs().max(1));
    DIRECTIONS.iter().map(|direction| UserPolicyInfo { direction: *direction, ..policy }).collect()
}

/// Packets for us, and those for hosts behind us.
const DIRECTIONS: [u8; 2] = [XFRM_POLICY_IN, XFRM_POLICY_FWD];

/// Lets through what came out of the device. For forwarded IPv6 packets the kernel does not ask
/// whether the device they came through is exempt, so it is told here.
fn decrypted(device: u32) -> UserPolicyInfo {
    let mut policy = inbound(Prefix::ALL_V6, Prefix::ALL_V6, XFRM_POLICY_ALLOW, spd::EXCEPTION);
    policy.direction = XFRM_POLICY_FWD;
    policy.selector.ifindex = i32::try_from(device).unwrap_or(0);
    policy
}

/// Narrows a policy to what packets say of themselves as they come.
pub(super) fn set_ports(policy: &mut UserPolicyInfo, ports: Ports) {
    let mask = |port: u16| if port == 0 { 0 } else { u16::MAX };
    let selector = &mut policy.selector;
    selector.proto = ports.protocol();
    (selector.sport, selector.sport_mask) = (ports.source(), mask(ports.source()));
    (selector.dport, selector.dport_mask) = (ports.destination(), mask(ports.destination()));
}

/// What comes in the clear by a rule for single ports, whoever is protected otherwise; only what
/// a configured connection protects is protected all the same.
fn port_exceptions(prefix: Prefix, ports: Ports) -> Vec<UserPolicyInfo> {
    let any = Prefix::new(prefix.addr(), 0).unwrap_or(prefix);
    let mut policy = inbound(prefix, any, XFRM_POLICY_ALLOW, spd::PORTS);
    set_ports(&mut policy, ports.reversed());
    DIRECTIONS.iter().map(|direction| UserPolicyInfo { direction: *direction, ..policy }).collect()
}

/// A lease is renewed from the client's port to the server's, and the answer comes the other way
/// (RFC 2131 §4.4.5, RFC 9915 §7.2). Neither waits for a pair, whoever the server is: the address that
/// everything else depends on would be lost for it, and a client that listens on its device alone hears
/// nothing that comes out of ours. On this machine it takes privilege to send from these ports, where
/// `net.ipv4.ip_unprivileged_port_start` (which is for IPv6, too) is above them, as it is by default; of
/// who sends from elsewhere they say nothing.
pub(super) const LEASES: [(Prefix, u16, u16); 4] =
    [REQUESTS[0], ANSWERS[0], REQUESTS[1], ANSWERS[1]];

/// From the client's port to the server's. What this machine asks for its own lease, and what it is
/// answered, passes configured connections as well.
pub(super) const REQUESTS: [(Prefix, u16, u16); 2] =
    [(Prefix::ALL_V4, 68, 67), (Prefix::ALL_V6, 546, 547)];

/// From the server's port to the client's. Where this machine is the server, connections come first.
pub(super) const ANSWERS: [(Prefix, u16, u16); 2] =
    [(Prefix::ALL_V4, 67, 68), (Prefix::ALL_V6, 547, 546)];

/// What a protected peer may always send: IKE and ESP, which are how it is protected, what is said of
/// leases, and neighbour discovery.
pub(super) fn exceptions(ports: &[u16]) -> Vec<UserPolicyInfo> {
    let allow = |any: IpAddr, proto: u8, sport: Option<u16>, dport: Option<u16>| {
        let mut policy = UserPolicyInfo::default();
        policy.selector.source_prefix(&any, 0);
        policy.selector.destination_prefix(&any, 0);
        policy.selector.proto = proto;
        policy.selector.sport = sport.unwrap_or(0);
        policy.selector.sport_mask = if sport.is_some() { u16::MAX } else { 0 };
        policy.selector.dport = dport.unwrap_or(0);
        policy.selector.dport_mask = if dport.is_some() { u16::MAX } else { 0 };
        policy.direction = XFRM_POLICY_IN;
        policy.action = XFRM_POLICY_ALLOW;
        policy.priority = spd::EXCEPTION;
        policy
    };
    let v6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let mut all = Vec::new();
    for any in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), v6] {
        all.push(allow(any, ESP, None, None));
        all.extend(ports.iter().map(|port| allow(any, UDP, None, Some(*port))));
    }
    let requests = REQUESTS.iter().map(|ports| (spd::PORTS, ports));
    let answers = ANSWERS.iter().map(|ports| (spd::EXCEPTION, ports));
    all.extend(requests.chain(answers).map(|(priority, (all, from, to))| {
        let policy = allow(all.addr(), UDP, Some(*from), Some(*to));
        UserPolicyInfo { priority, ..policy }
    }));
    // The kernel keeps an ICMP type where other protocols have the source port.
    all.extend(NEIGHBOUR_DISCOVERY.map(|kind| allow(v6, ICMPV6, Some(kind), None)));
    all
}
