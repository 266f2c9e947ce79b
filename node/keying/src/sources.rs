//! Whose packets these are, where the source is neither ours nor served.
//!
//! The kernel sends from an address as soon as it has it, at boot, with DHCP, with each new privacy
//! address of IPv6; we hear of it a moment later. So the first packets of a source that nobody knows
//! wait for that news. If it does not come they are somebody else's, which pass through us, and that
//! is remembered: those we forward for wait once, and not again while they go on sending.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use sa::{Flow, Policy};

use crate::entry::State;
use crate::keying::Keying;

/// Sources that are somebody else's.
#[derive(Debug, Default)]
pub(crate) struct Foreign {
    /// Until when that counts.
    known: BTreeMap<IpAddr, Instant>,
    by_end: BTreeSet<(Instant, IpAddr)>,
}

impl Foreign {
    /// A source is somebody else's.
    pub(crate) fn note(&mut self, now: Instant, source: IpAddr) {
        self.forget(source);
        if self.known.len() >= MAX_FOREIGN
            && let Some((_, soonest)) = self.by_end.pop_first()
        {
            self.known.remove(&soonest);
        }
        self.known.insert(source, now + FOREIGN);
        self.by_end.insert((now + FOREIGN, source));
    }

    fn forget(&mut self, source: IpAddr) {
        if let Some(end) = self.known.remove(&source) {
            self.by_end.remove(&(end, source));
        }
    }

    /// Whether a source is known to be somebody else's.
    pub(crate) fn contains(&self, now: Instant, source: IpAddr) -> bool {
        self.known.get(&source).is_some_and(|end| *end > now)
    }
}

impl Keying {
    /// A packet of a source that is neither ours nor served, as far as we know.
    pub(crate) fn wait_for_news(&mut self, now: Instant, flow: Flow) {
        self.enter(now, flow, State::PotentialOe, Some(now + NEWS));
        if let Some(entry) = self.flows.get_mut(&flow) {
            entry.waits_for_news = true;
        }
        self.set_policy(flow, Policy::Hold);
    }

    /// Our addresses have changed: what has waited for that goes on.
    pub(crate) fn news_of_sources(&mut self, now: Instant) {
        for address in &self.config.addresses {
            self.foreign.forget(*address);
        }
        let own = &self.config.addresses;
        let waiting = self.flows.iter().filter(|(_, entry)| entry.waits_for_news);
        let ours: Vec<Flow> =
            waiting.map(|(flow, _)| *flow).filter(|flow| own.contains(&flow.src())).collect();
        for flow in ours {
            self.trapped(now, flow);
        }
    }
}

/// How long the news of an address may take: the daemon gathers what changes together for a tenth of
/// a second, and then reads all addresses.
const NEWS: Duration = Duration::from_millis(400);
/// For how long a source is somebody else's after its last new flow: longer than what was decided of
/// that stands, so that who goes on sending does not wait again.
const FOREIGN: Duration = Duration::from_secs(180);
/// Sources remembered: as many hosts as a gateway serves.
const MAX_FOREIGN: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    /// P13: whoever forges sources that pass through us fills this, and no more.
    #[test]
    fn foreign_sources_are_remembered_within_bounds_and_for_a_while() {
        let (mut foreign, now) = (Foreign::default(), Instant::now());
        let nth = |n: u32| IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + n));
        let last = 2 * u32::try_from(MAX_FOREIGN).unwrap();
        for n in 0..=last {
            foreign.note(now + Duration::from_millis(n.into()), nth(n));
            assert!(foreign.known.len() <= MAX_FOREIGN);
            assert_eq!(foreign.known.len(), foreign.by_end.len());
        }
        let end = now + Duration::from_millis(last.into());
        assert!(foreign.contains(end, nth(last)) && !foreign.contains(end, nth(0)));
        assert!(!foreign.contains(end + FOREIGN, nth(last)));
        foreign.forget(nth(last));
        assert!(!foreign.contains(end, nth(last)));
        assert_eq!(foreign.known.len(), foreign.by_end.len());
    }
}
