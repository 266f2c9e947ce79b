//! Packets that pass through this machine between hosts that it does not serve: nobody's concern
//! here, so they follow the kernel's ordinary tables, and what they would meet there (a rule that
//! translates what leaves by one device, say) is as if there were no node.
//!
//! ```text
//! P-3  what this host sends, or those whom it serves     → as ever
//! P-2  from these hosts; to those                        → past the rule that leads to our table
//! P    all but our own marked packets                    → the node's own table
//! P+1  nothing is done here; it is where they go on
//! ```
//!
//! Who it is shows when a packet has come to the device untranslated. What the kernel translates
//! before that is our own when it comes (RFC 4322 §6.1), so nothing may be let by unseen. And only
//! while nothing of a family is closed: a rule knows no policy groups.

use std::collections::BTreeSet;
use std::net::IpAddr;

use sa::Prefix;

use super::routes::before;
use super::rules::{LOOPBACK, Rule, Verdict};

/// Hosts whose packets pass.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Passing {
    from: BTreeSet<IpAddr>,
    to: BTreeSet<IpAddr>,
}

/// Which end of a flow is near.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Near {
    Source(IpAddr),
    Destination(IpAddr),
}

impl Passing {
    /// Packets of this host, or to it, pass from now on; whether that is new.
    pub(super) fn add(&mut self, near: Near) -> bool {
        let (hosts, host) = match near {
            Near::Source(host) => (&mut self.from, host),
            Near::Destination(host) => (&mut self.to, host),
        };
        hosts.len() < MAX_PASSING && hosts.insert(host)
    }

    /// Forgets all but these; whether there were others.
    pub(super) fn retain(&mut self, keep: impl Fn(&IpAddr) -> bool) -> bool {
        let before = self.from.len() + self.to.len();
        self.from.retain(&keep);
        self.to.retain(&keep);
        self.from.len() + self.to.len() < before
    }

    /// The rules for them, around the one of this priority.
    pub(super) fn rules(&self, priority: u32, served: &[Prefix]) -> BTreeSet<Rule> {
        let mut rules = BTreeSet::new();
        for v6 in [false, true] {
            let of = |hosts: &BTreeSet<IpAddr>| -> Vec<Prefix> {
                hosts.iter().filter(|host| host.is_ipv6() == v6).map(|h| Prefix::host(*h)).collect()
            };
            let (from, to) = (of(&self.from), of(&self.to));
            if from.is_empty() && to.is_empty() {
                continue;
            }
            let past = Rule::new(priority.saturating_sub(2), v6, Verdict::Goto(priority + 1));
            rules.extend(from.into_iter().map(|host| past.clone().from(host)));
            rules.extend(to.into_iter().map(|host| past.clone().to(host)));
            rules.insert(Rule::new(priority + 1, v6, Verdict::Nothing));
            let as_ever =
                Rule::new(priority.saturating_sub(3), v6, Verdict::Goto(before(priority)));
            rules.insert(as_ever.clone().by(LOOPBACK));
            let served = served.iter().filter(|prefix| prefix.addr().is_ipv6() == v6);
            rules.extend(served.map(|prefix| as_ever.clone().from(*prefix)));
        }
        rules
    }
}

/// Hosts of each kind at once. Whatever is forwarded is compared with each, one after the other; the
/// packets of the others go the slow way, through us.
const MAX_PASSING: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn host(n: u8) -> IpAddr {
        [10, 5, n / 128, n % 128].into()
    }

    /// P13, P2: so many and no more; and what is ours is led to our table before any of them counts.
    #[test]
    fn they_are_bounded_and_come_after_what_is_ours() {
        let mut passing = Passing::default();
        assert!(passing.rules(4322, &[]).is_empty());
        let added = (0..=255).filter(|n| passing.add(Near::Source(host(*n)))).count();
        assert_eq!(added, 128);
        assert!(!passing.add(Near::Source(host(0))));
        assert!(passing.add(Near::Destination(host(0))));
        let served: Prefix = "10.5.1.0/24".parse().unwrap();
        let rules = passing.rules(4322, &[served]);
        let as_ever: Vec<&Rule> =
            rules.iter().filter(|rule| rule.verdict == Verdict::Goto(4321)).collect();
        assert_eq!(as_ever.len(), 2);
        assert!(as_ever.iter().any(|rule| rule.interface.as_deref() == Some("lo")));
        assert!(as_ever.iter().any(|rule| rule.from == Some(served)));
        let past: Vec<&Rule> =
            rules.iter().filter(|rule| rule.verdict == Verdict::Goto(4323)).collect();
        assert_eq!(past.len(), 129);
        assert!(
            past.iter().all(|rule| rule.priority > as_ever[0].priority && rule.priority < 4321)
        );
        assert!(passing.retain(|addr| *addr == host(0)) && !passing.retain(|_| true));
        assert_eq!(passing.rules(4322, &[]).len(), 4);
    }
}
