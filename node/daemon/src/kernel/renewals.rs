//! When what ends by itself is to be renewed: each flow once, whatever becomes of it meanwhile.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use sa::Flow;

/// Flows by the time of their next renewal.
#[derive(Debug, Default)]
pub(super) struct Renewals {
    order: BTreeSet<(Instant, Flow)>,
    times: HashMap<Flow, Instant>,
}

impl Renewals {
    /// A flow is to be renewed then, and not when it was said before.
    pub(super) fn put(&mut self, at: Instant, flow: Flow) {
        self.remove(flow);
        self.times.insert(flow, at);
        self.order.insert((at, flow));
    }

    /// It is not to be renewed any more.
    pub(super) fn remove(&mut self, flow: Flow) {
        if let Some(at) = self.times.remove(&flow) {
            self.order.remove(&(at, flow));
        }
    }

    /// When the first is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// The first, if it is due.
    pub(super) fn take(&mut self, now: Instant) -> Option<Flow> {
        let (_, flow) = *self.order.first().filter(|(at, _)| *at <= now)?;
        self.remove(flow);
        Some(flow)
    }

    /// None is to be renewed.
    pub(super) fn clear(&mut self) {
        self.order.clear();
        self.times.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn flow(n: u32) -> Flow {
        let to = std::net::Ipv4Addr::from(n).into();
        Flow::new([192, 0, 2, 1].into(), to).unwrap()
    }

    #[test]
    fn each_is_renewed_once_and_at_its_last_time() {
        let (mut renewals, now) = (Renewals::default(), Instant::now());
        let after = |n| now + Duration::from_secs(n);
        renewals.put(after(3), flow(1));
        renewals.put(after(1), flow(2));
        renewals.put(after(2), flow(3));
        // What becomes lasting and back again, over and over, still stands there once.
        for n in 4..50 {
            renewals.remove(flow(2));
            renewals.put(after(n), flow(2));
            renewals.put(after(n), flow(2));
        }
        renewals.remove(flow(3));
        assert_eq!(renewals.due(), Some(after(3)));
        assert_eq!(renewals.take(after(2)), None);
        assert_eq!(renewals.take(after(60)), Some(flow(1)));
        assert_eq!(renewals.take(after(60)), Some(flow(2)));
        assert_eq!((renewals.take(after(60)), renewals.due()), (None, None));
        assert!(renewals.times.is_empty());
    }

    #[test]
    fn a_peer_that_goes_does_not_look_at_all_the_others() {
        let (mut renewals, now) = (Renewals::default(), Instant::now());
        let cost = |renewals: &mut Renewals, flows: std::ops::Range<u32>| {
            let begun = Instant::now();
            flows.clone().for_each(|n| renewals.put(now, flow(n)));
            flows.for_each(|n| renewals.remove(flow(n)));
            begun.elapsed()
        };
        let least = |renewals: &mut Renewals| {
            (0..20).map(|_| cost(renewals, 1_000_000..1_000_100)).min().unwrap()
        };
        let few = least(&mut renewals);
        (0..50_000).for_each(|n| renewals.put(now, flow(n)));
        let many = least(&mut renewals);
        assert!(many < few * 20, "{few:?}, {many:?}");
    }
}
