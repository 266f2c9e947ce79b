//! The SPD as RFC 4322 §3.1 has it: a state per flow, and classes that say what unknown flows do.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use sa::{Class, Flow, Policy, Ports, Prefix, SaId, Subnets};

use crate::hash::Seeded;
use crate::packet::{Fragment, Inner, is_extension};
use crate::prefixes::PrefixTable;

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    Encrypt(SaId),
    /// Through one of several pairs: [`Spd::share`] says which.
    Share,
    /// Through the pair whose selectors match, if any: [`Spd::select`] says which.
    Select,
    Pass,
    /// Pass, and say so: somebody wants to know.
    PassAndTell,
    Deny,
    /// Deny, and say so: the class itself refuses.
    Refuse,
    Hold,
    /// No class covers the destination; nothing is known, so nothing is sent.
    Unknown,
}

/// Policies of flows, classes of prefixes.
pub(crate) struct Spd {
    flows: HashMap<Flow, State, Seeded>,
    classes: PrefixTable<Class>,
    /// Classes of single ports, the most precise first.
    port_classes: PrefixTable<Vec<(Ports, Class)>>,
    /// Flows with ports of their own.
    port_flows: usize,
    /// Configured connections: by remote prefix, then by local one, the longest first.
    configured: PrefixTable<Vec<Configured>>,
    hasher: Seeded,
}

/// A flow's policy. `Hold` remembers when keys were last asked for.
#[derive(Clone, Copy)]
struct State {
    policy: Policy,
    /// In `Hold`, the last time keys were asked for; otherwise the last packet.
    at: Instant,
    /// Whether the next packet that passes is to be told of.
    watched: bool,
}

/// What happens between a local prefix and the remote one that it is listed under.
struct Configured {
    local: Prefix,
    policy: Policy,
    /// With `Encrypt`: several pairs that share the flows. Otherwise those that carry what their
    /// selectors match, before the policy counts.
    pairs: Vec<SaId>,
    /// When keys were last asked for, and how often since [`ASK_AGAIN`] began.
    asked: Option<(Instant, u32)>,
}

impl Spd {
    pub(crate) fn new(hasher: Seeded) -> Self {
        Self {
            flows: HashMap::with_hasher(hasher),
            classes: PrefixTable::new(hasher),
            port_classes: PrefixTable::new(hasher),
            port_flows: 0,
            configured: PrefixTable::new(hasher),
            hasher,
        }
    }

    /// What to do with a packet of this flow.
    #[inline]
    pub(crate) fn verdict(&mut self, now: Instant, flow: &Flow) -> Verdict {
        if self.configured.len() > 0
            && let Some(entry) = self.configured_for(flow)
        {
            return match entry.policy {
                Policy::Encrypt(_) if entry.pairs.len() > 1 => Verdict::Share,
                Policy::Encrypt(sa) => Verdict::Encrypt(sa),
                Policy::Pass => Verdict::Pass,
                _ if !entry.pairs.is_empty() => Verdict::Select,
                Policy::Deny => Verdict::Deny,
                Policy::Hold => Verdict::Hold,
            };
        }
        let Some(state) = self.flows.get_mut(flow) else { return self.unknown(flow) };
        match state.policy {
            Policy::Hold => Verdict::Hold,
            policy => {
                state.at = now;
                match policy {
                    Policy::Encrypt(sa) => Verdict::Encrypt(sa),
                    Policy::Pass if std::mem::take(&mut state.watched) => Verdict::PassAndTell,
                    Policy::Pass => Verdict::Pass,
                    Policy::Deny | Policy::Hold => Verdict::Deny,
                }
            }
        }
    }

    /// Whether there is an entry for a flow, or for what it is part of.
    pub(crate) fn is_known(&self, flow: &Flow) -> bool {
        self.flows.contains_key(flow) || self.entry_of(flow).is_some()
    }

    /// Whether ports decide about anything.
    #[inline]
    pub(crate) fn minds_ports(&self) -> bool {
        self.port_flows > 0 || self.port_classes.len() > 0
    }

    /// The flow that a packet belongs to: the widest that the rules for it allow, or a narrower one
    /// that a peer has asked for. `None` for a later fragment that nobody can tell the flow of
    /// (RFC 4301 §7: it has no ports, and a rule with ports might be for it).
    #[cold]
    pub(crate) fn flow_of(&self, inner: &Inner) -> Option<Flow> {
        let whole = inner.flow;
        if inner.fragment == Fragment::Later {
            // Its header names what comes first in the whole, not what comes last.
            let hidden = !inner.is_v4() && is_extension(inner.protocol);
            let rules = self.port_classes.matches(whole.dst()).flat_map(|(_, rules)| rules);
            let unclear = rules
                .map(|(ports, _)| *ports)
                .any(|ports| hidden || (ports.precision() > 1 && ports.may_match(inner.protocol)));
            if unclear {
                return None;
            }
        }
        let (source, destination) = inner.ports;
        let exact = Ports::new(inner.protocol, source, destination)
            .or_else(|| Ports::new(inner.protocol, 0, 0))
            .unwrap_or_default();
        let (rule, _) = self.rule(whole.dst(), exact);
        let narrower = exact.wider().into_iter().take_while(|ports| *ports != rule);
        let known = narrower
            .map(|ports| whole.with_ports(ports))
            .find(|flow| self.port_flows > 0 && self.flows.contains_key(flow));
        Some(known.unwrap_or_else(|| whole.with_ports(rule)))
    }

    /// The rule for these ports of a destination, and its class if any covers it.
    fn rule(&self, dst: IpAddr, exact: Ports) -> (Ports, Option<Class>) {
        let plain = self.classes.matches(dst).next();
        let longer = |prefix: &Prefix| plain.is_none_or(|(own, _)| own.len() <= prefix.len());
        let found = self
            .port_classes
            .matches(dst)
            .take_while(|(prefix, _)| longer(prefix))
            .find_map(|(_, rules)| rules.iter().find(|(ports, _)| ports.covers(exact)));
        match found {
            Some((ports, class)) => (*ports, Some(*class)),
            None => (Ports::ANY, plain.map(|(_, class)| *class)),
        }
    }

    fn unknown(&self, flow: &Flow) -> Verdict {
        let class = if self.port_classes.len() == 0 {
            self.classes.longest(flow.dst()).copied()
        } else {
            self.rule(flow.dst(), flow.ports()).1
        };
        match class {
            Some(Class::Trap { .. }) => Verdict::Hold,
            Some(Class::Pass) => Verdict::Pass,
            Some(Class::Block) => Verdict::Refuse,
            None if self.is_led_here(flow.dst()) => Verdict::Pass,
            None => Verdict::Unknown,
        }
    }

    /// Whether a destination without a class is led to us on account of a connection that is for
    /// other sources, or of a rule that is for other ports.
    fn is_led_here(&self, dst: IpAddr) -> bool {
        self.port_classes.longest(dst).is_some() || self.configured.longest(dst).is_some()
    }

    /// The configured entry that a flow falls under.
    fn configured_for(&mut self, flow: &Flow) -> Option<&mut Configured> {
        let subnets = self.entry_of(flow)?;
        let entries = self.configured.get_mut(&subnets.remote())?;
        entries.iter_mut().find(|entry| entry.local == subnets.local())
    }

    /// Which of several pairs carries a packet: all packets of one upper-layer flow the same, so
    /// that nothing is reordered. Fragments show no ports, and go by their addresses.
    pub(crate) fn share(&mut self, inner: &Inner) -> Option<SaId> {
        let whole = inner.fragment == Fragment::Whole;
        let ports = if whole { inner.ports } else { (0, 0) };
        let lot = self.hasher.hash_one((inner.flow, inner.protocol, ports));
        let entry = self.configured_for(&inner.flow)?;
        drawn(lot, entry.pairs.len()).and_then(|at| entry.pairs.get(at).copied())
    }

    /// Which pair carries a packet where each carries what its selectors match, and what becomes of it
    /// if none does. `takes` says whether a pair carries it.
    pub(crate) fn select(
        &mut self,
        inner: &Inner,
        mut takes: impl FnMut(SaId) -> bool,
    ) -> (Option<SaId>, Policy) {
        let lot = self.hasher.hash_one((inner.flow, inner.protocol, inner.ports));
        let Some(entry) = self.configured_for(&inner.flow) else { return (None, Policy::Hold) };
        let fit = entry.pairs.iter().filter(|sa| takes(**sa)).count();
        let mut fitting = entry.pairs.iter().copied().filter(|sa| takes(*sa));
        (drawn(lot, fit).and_then(|at| fitting.nth(at)), entry.policy)
    }

    /// The configured prefixes that a flow falls between: the longest remote one first, then the
    /// longest local one.
    pub(crate) fn entry_of(&self, flow: &Flow) -> Option<Subnets> {
        self.configured.matches(flow.dst()).find_map(|(remote, entries)| {
            let entry = entries.iter().find(|entry| entry.local.contains(flow.src()))?;
            Subnets::new(entry.local, remote)
        })
    }

    /// Whether what a configuration has between these addresses goes through this pair.
    pub(crate) fn names(&self, flow: &Flow, sa: SaId) -> bool {
        let mut all = self.configured.matches(flow.dst()).map(|(_, entries)| entries);
        all.find_map(|entries| entries.iter().find(|entry| entry.local.contains(flow.src())))
            .is_some_and(|entry| entry.policy == Policy::Encrypt(sa) || entry.pairs.contains(&sa))
    }

    /// Sets what happens between two prefixes; `false` if there is no room.
    pub(crate) fn set_subnets(
        &mut self,
        subnets: Subnets,
        policy: Policy,
        pairs: Vec<SaId>,
    ) -> bool {
        let (local, remote) = (subnets.local(), subnets.remote());
        let new = Configured { local, policy, pairs, asked: None };
        let room = self.configured.len() < MAX_CONFIGURED;
        let Some(entries) = self.configured.get_mut(&remote) else {
            if room {
                self.configured.insert(remote, vec![new]);
            }
            return room;
        };
        entries.retain(|entry| entry.local != local);
        if entries.len() >= MAX_CONFIGURED {
            return false;
        }
        entries.push(new);
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.local.len()));
        true
    }

    /// Forgets a configured pair of prefixes.
    pub(crate) fn clear_subnets(&mut self, subnets: &Subnets) {
        let remote = subnets.remote();
        let Some(entries) = self.configured.get_mut(&remote) else { return };
        entries.retain(|entry| entry.local != subnets.local());
        if entries.is_empty() {
            self.configured.remove(&remote);
        }
    }

    /// Puts a flow into hold, or finds it there; whether keys should be asked for now (RFC 4322
    /// §3.1.2: repeated, because a request may be lost, but less than once a second).
    /// `None` if there is no room for another flow.
    pub(crate) fn hold(&mut self, now: Instant, flow: Flow) -> Option<bool> {
        if let Some(entry) = self.configured_for(&flow) {
            let selects = !matches!(entry.policy, Policy::Encrypt(_)) && !entry.pairs.is_empty();
            if !selects {
                entry.policy = Policy::Hold;
                entry.pairs.clear();
            }
            let recent = |at: Instant| now.saturating_duration_since(at) < ASK_AGAIN;
            // What one port gets says nothing of the others.
            let most = if selects { ASK_TOGETHER } else { 1 };
            let (since, times) = entry.asked.filter(|(at, _)| recent(*at)).unwrap_or((now, 0));
            let due = times < most;
            if due {
                entry.asked = Some((since, times + 1));
            }
            return Some(due);
        }
        if !self.has_room_for(&flow) {
            return None;
        }
        let fresh = State { policy: Policy::Hold, at: now, watched: false };
        match self.flows.entry(flow) {
            Entry::Vacant(place) => {
                if !flow.ports().is_any() {
                    self.port_flows += 1;
                }
                place.insert(fresh);
                Some(true)
            }
            Entry::Occupied(mut state) if state.get().policy == Policy::Hold => {
                let due = now.saturating_duration_since(state.get().at) >= ASK_AGAIN;
                if due {
                    state.get_mut().at = now;
                }
                Some(due)
            }
            Entry::Occupied(mut state) => {
                state.insert(fresh);
                Some(true)
            }
        }
    }

    /// Sets a flow's policy by command; `false` if there is no room.
    pub(crate) fn set(&mut self, now: Instant, flow: Flow, policy: Policy) -> bool {
        let room = self.has_room_for(&flow);
        if room {
            let before = self.flows.insert(flow, State { policy, at: now, watched: false });
            if before.is_none() && !flow.ports().is_any() {
                self.port_flows += 1;
            }
        }
        room
    }

    /// Wants to know of the next packet that passes. A flow that is not known is trapped instead.
    pub(crate) fn watch(&mut self, flow: &Flow) {
        if let Some(state) = self.flows.get_mut(flow) {
            state.watched = true;
        }
    }

    /// Forgets a flow.
    pub(crate) fn clear(&mut self, flow: &Flow) {
        if self.flows.remove(flow).is_some() && !flow.ports().is_any() {
            self.port_flows -= 1;
        }
    }

    /// Forgets a flow if it is on hold.
    pub(crate) fn clear_hold(&mut self, flow: &Flow) {
        if self.flows.get(flow).is_some_and(|state| state.policy == Policy::Hold) {
            self.clear(flow);
        }
    }

    /// Sets the class of a prefix; `false` if there is no room.
    pub(crate) fn set_class(&mut self, prefix: Prefix, class: Class) -> bool {
        let room = self.classes.len() < MAX_CLASSES || self.classes.contains(&prefix);
        if room {
            self.classes.insert(prefix, class);
        }
        room
    }

    /// Forgets a prefix.
    pub(crate) fn clear_class(&mut self, prefix: &Prefix) {
        self.classes.remove(prefix);
    }

    /// Sets the class of single ports of a prefix; `false` if there is no room.
    pub(crate) fn set_port_class(&mut self, prefix: Prefix, ports: Ports, class: Class) -> bool {
        if self.port_classes.len() >= MAX_CLASSES && !self.port_classes.contains(&prefix) {
            return false;
        }
        if !self.port_classes.contains(&prefix) {
            self.port_classes.insert(prefix, Vec::new());
        }
        let Some(rules) = self.port_classes.get_mut(&prefix) else { return false };
        rules.retain(|(other, _)| *other != ports);
        if rules.len() >= MAX_PORT_RULES {
            return false;
        }
        rules.push((ports, class));
        rules.sort_by_key(|(ports, _)| std::cmp::Reverse(ports.rank()));
        true
    }

    /// Forgets the class of single ports.
    pub(crate) fn clear_port_class(&mut self, prefix: &Prefix, ports: Ports) {
        let Some(rules) = self.port_classes.get_mut(prefix) else { return };
        rules.retain(|(other, _)| *other != ports);
        if rules.is_empty() {
            self.port_classes.remove(prefix);
        }
    }

    /// Makes room if there is none: of the flows that are passed or denied the longer unused half
    /// goes. Nothing is lost by that but a question, because their next packet is trapped again.
    fn has_room_for(&mut self, flow: &Flow) -> bool {
        if self.flows.len() < MAX_FLOWS || self.flows.contains_key(flow) {
            return true;
        }
        let can_go = |state: &State| matches!(state.policy, Policy::Pass | Policy::Deny);
        let mut ages: Vec<_> =
            self.flows.values().filter(|s| can_go(s)).map(|state| state.at).collect();
        ages.sort_unstable();
        let Some(middle) = ages.get(ages.len() / 2).copied() else { return false };
        self.flows.retain(|_, state| !can_go(state) || state.at > middle);
        self.port_flows = self.flows.keys().filter(|flow| !flow.ports().is_any()).count();
        self.flows.len() < MAX_FLOWS
    }
}

/// One of so many.
fn drawn(lot: u64, count: usize) -> Option<usize> {
    usize::try_from(lot.checked_rem(u64::try_from(count).ok()?)?).ok()
}

/// Flows at once, some 80 octets each. The kernel's routes carry the clear ones, but each is
/// remembered here as well: a busy host knows a hundred thousand.
const MAX_FLOWS: usize = 262_144;
/// Prefixes with a class: the lines of the policy group files.
const MAX_CLASSES: usize = 65_536;
/// Remote prefixes of configured connections, and local ones under each: a file's worth.
const MAX_CONFIGURED: usize = 4096;
/// Rules for ports of one prefix: each costs every packet there a comparison.
const MAX_PORT_RULES: usize = 256;
/// RFC 4322 §3.1.2 wants repeated requests slower than one a second.
const ASK_AGAIN: Duration = Duration::from_millis(1100);
/// How many packets ask together where each may be for another port: what a host opens at once.
const ASK_TOGETHER: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn flow(host: u32) -> Flow {
        Flow::new([192, 0, 2, 1].into(), Ipv4Addr::from(0x0a00_0000 + host).into()).unwrap()
    }

    fn spd() -> Spd {
        let mut spd = Spd::new(Seeded::new(1, 0x9e37_79b9_7f4a_7c15));
        for (prefix, class) in [
            ("0.0.0.0/0", Class::Trap { fail_closed: false }),
            ("10.0.1.0/24", Class::Pass),
            ("10.0.1.9/32", Class::Block),
        ] {
            assert!(spd.set_class(prefix.parse().unwrap(), class));
        }
        spd
    }

    #[test]
    fn the_class_decides_about_unknown_flows() {
        let (mut spd, now) = (spd(), Instant::now());
        assert_eq!(spd.verdict(now, &flow(1)), Verdict::Hold);
        assert_eq!(spd.verdict(now, &flow(256)), Verdict::Pass);
        assert_eq!(spd.verdict(now, &flow(256 + 9)), Verdict::Refuse);
        let v6 = Flow::new("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap()).unwrap();
        assert_eq!(spd.verdict(now, &v6), Verdict::Unknown);
        spd.clear_class(&"10.0.1.9/32".parse().unwrap());
        assert_eq!(spd.verdict(now, &flow(256 + 9)), Verdict::Pass);
    }

    #[test]
    fn what_no_class_covers_passes_only_where_a_narrower_rule_led_it_here() {
        let (mut spd, now) = (Spd::new(Seeded::new(1, 0x9e37_79b9_7f4a_7c15)), Instant::now());
        let ssh = Ports::new(6, 0, 22).unwrap();
        let closed = Class::Trap { fail_closed: true };
        assert!(spd.set_port_class("10.0.1.0/24".parse().unwrap(), ssh, closed));
        assert_eq!(spd.verdict(now, &flow(256)), Verdict::Pass);
        assert_eq!(spd.verdict(now, &flow(1)), Verdict::Unknown, "a rule for somebody else");
        let between =
            Subnets::new("192.0.2.9/32".parse().unwrap(), "10.0.2.0/24".parse().unwrap()).unwrap();
        assert!(spd.set_subnets(between, Policy::Hold, Vec::new()));
        assert_eq!(spd.verdict(now, &flow(512)), Verdict::Pass);
        assert_eq!(spd.verdict(now, &flow(1)), Verdict::Unknown);
    }

    /// Attack A42.
    /// RFC 8200 §4.5: a later fragment names the first header of what was cut up, which may be an
    /// extension header before the one that a rule is for.
    #[test]
    fn a_later_fragment_of_who_knows_what_escapes_no_rule() {
        use crate::packet::tests::packet;
        let mut spd = spd();
        let rule = |ports| (ports, Class::Block);
        let v6: Prefix = "2001:db8::/32".parse().unwrap();
        let later = |next: u8| {
            let fragment = [next, 0, 0, 9, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8];
            Inner::parse(&packet("2001:db8::1", "2001:db8::2", 44, &fragment)).unwrap()
        };
        for ports in [Ports::new(6, 0, 0).unwrap(), Ports::new(6, 0, 25).unwrap()] {
            assert!(spd.flow_of(&later(60)).is_some(), "no rule, no doubt");
            let (ports, class) = rule(ports);
            assert!(spd.set_port_class(v6, ports, class));
            for next in [0, 43, 51, 60, 135] {
                assert_eq!(spd.flow_of(&later(next)), None, "{next} before {ports:?}");
            }
            assert!(spd.flow_of(&later(17)).is_some(), "UDP for sure");
            spd.clear_port_class(&v6, ports);
        }
    }

    #[test]
    fn the_flow_beats_the_class() {
        let (mut spd, now) = (spd(), Instant::now());
        assert!(spd.set(now, flow(265), Policy::Encrypt(SaId(7))));
        assert_eq!(spd.verdict(now, &flow(265)), Verdict::Encrypt(SaId(7)));
        spd.clear(&flow(265));
        assert_eq!(spd.verdict(now, &flow(265)), Verdict::Refuse);
    }

    #[test]
    fn configured_prefixes_beat_flows_and_classes() {
        let (mut spd, now) = (spd(), Instant::now());
        let between = |local: &str, remote: &str| {
            Subnets::new(local.parse().unwrap(), remote.parse().unwrap()).unwrap()
        };
        assert!(spd.set(now, flow(265), Policy::Pass));
        let wide = between("192.0.2.0/24", "10.0.0.0/8");
        assert!(spd.set_subnets(wide, Policy::Encrypt(SaId(3)), Vec::new()));
        assert_eq!(spd.verdict(now, &flow(265)), Verdict::Encrypt(SaId(3)), "not the flow's own");
        // The longer remote prefix decides, then the longer local one; other sources do not count.
        assert!(spd.set_subnets(between("192.0.2.0/24", "10.0.1.0/24"), Policy::Deny, Vec::new()));
        assert!(spd.set_subnets(between("192.0.2.1/32", "10.0.1.0/24"), Policy::Hold, Vec::new()));
        assert!(spd.set_subnets(between("192.0.2.9/32", "10.0.1.9/32"), Policy::Pass, Vec::new()));
        assert_eq!(spd.verdict(now, &flow(265)), Verdict::Hold);
        assert_eq!(spd.hold(now, flow(265)), Some(true));
        assert_eq!(spd.hold(now, flow(266)), Some(false), "asked for once for all of it");
        spd.clear_subnets(&between("192.0.2.1/32", "10.0.1.0/24"));
        assert_eq!(spd.verdict(now, &flow(265)), Verdict::Deny);
        spd.clear_subnets(&between("192.0.2.0/24", "10.0.1.0/24"));
        spd.clear_subnets(&wide);
        assert_eq!(spd.verdict(now, &flow(265)), Verdict::Pass);
    }

    #[test]
    fn several_pairs_share_the_flows_and_keep_each_together() {
        use crate::packet::tests::udp;
        let mut spd = spd();
        let all = Subnets::new("192.0.2.0/24".parse().unwrap(), "10.0.0.0/8".parse().unwrap());
        let pairs = vec![SaId(1), SaId(2), SaId(3)];
        assert!(spd.set_subnets(all.unwrap(), Policy::Encrypt(SaId(1)), pairs));
        assert_eq!(spd.verdict(Instant::now(), &flow(1)), Verdict::Share);
        let mut counts = [0; 4];
        for port in 0..3000 {
            let packet = udp("192.0.2.1", "10.0.0.1", (port, 53), b"x");
            let inner = Inner::parse(&packet).unwrap();
            let sa = spd.share(&inner).unwrap();
            assert_eq!(spd.share(&inner), Some(sa));
            counts[usize::try_from(sa.0).unwrap()] += 1;
        }
        assert!(counts[1..].iter().all(|n| (800..1200).contains(n)), "{counts:?}");
    }

    /// Attack A22.
    /// Rule 12: a request for keys that was lost is repeated, less than once a second.
    #[test]
    fn keys_are_asked_for_again_but_slowly() {
        let (mut spd, now) = (spd(), Instant::now());
        let asked: Vec<_> = (0..50)
            .filter(|i| spd.hold(now + Duration::from_millis(i * 100), flow(1)).unwrap())
            .collect();
        assert_eq!(asked, [0, 11, 22, 33, 44]);
        // An order to hold is no reason to ask at once; the loss of a pair is.
        spd.set(now, flow(2), Policy::Hold);
        assert_eq!(spd.hold(now, flow(2)), Some(false));
        spd.set(now, flow(3), Policy::Encrypt(SaId(1)));
        assert_eq!(spd.hold(now, flow(3)), Some(true));
        assert_eq!(spd.verdict(now, &flow(3)), Verdict::Hold);
    }

    #[test]
    fn a_full_table_forgets_idle_clear_flows_only() {
        let (mut spd, start) = (spd(), Instant::now());
        assert!(spd.set(start, flow(0), Policy::Encrypt(SaId(1))));
        for i in 1..u32::try_from(MAX_FLOWS).unwrap() {
            let at = start + Duration::from_millis(i.into());
            assert!(spd.set(at, flow(i), Policy::Pass));
        }
        let late = start + Duration::from_secs(1000);
        assert_eq!(spd.verdict(late, &flow(300)), Verdict::Pass);
        assert!(spd.set(late, flow(1 << 20), Policy::Deny));
        assert_eq!(spd.verdict(late, &flow(0)), Verdict::Encrypt(SaId(1)));
        assert_eq!(spd.verdict(late, &flow(1)), Verdict::Hold);
        // Flow 300 lies in 10.0.1.0/24; it was used late, so its own state is still there.
        assert!(spd.flows.contains_key(&flow(300)));
        assert!(spd.flows.len() < MAX_FLOWS / 2 + 10);
    }
}
