//! Packets that wait for a decision: the first and the last few of each flow (RFC 4322 §3.1.1,
//! §3.1.2), within budgets that no flood can exceed.
//!
//! RFC 4322 keeps one last packet. Where two ends call each other at once that is one too few: the
//! answers to what the peer's hold has released wait here behind packets of our own.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use sa::{Flow, Prefix, Subnets};

use crate::counters::{Counters, Reason};
use crate::hash::Seeded;
use crate::offload::Offload;

/// A packet as the device handed it over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Packet {
    pub(crate) offload: Offload,
    pub(crate) octets: Box<[u8]>,
}

/// All held packets.
pub(crate) struct Hold {
    flows: HashMap<Flow, Held, Seeded>,
    /// By order of arrival of the first packet, and when that was: the oldest goes first.
    ages: BTreeMap<u64, (Instant, Flow)>,
    by_source: HashMap<Prefix, usize, Seeded>,
    by_destination: HashMap<Prefix, usize, Seeded>,
    bytes: usize,
    next: u64,
}

/// What is held of one flow.
struct Held {
    first: Packet,
    last: VecDeque<Packet>,
    age: u64,
}

impl Hold {
    pub(crate) fn new(hasher: Seeded) -> Self {
        Self {
            flows: HashMap::with_hasher(hasher),
            ages: BTreeMap::new(),
            by_source: HashMap::with_hasher(hasher),
            by_destination: HashMap::with_hasher(hasher),
            bytes: 0,
            next: 0,
        }
    }

    /// Keeps a packet. The flows that had to make room are returned; `false` means that this
    /// packet itself was refused.
    pub(crate) fn put(
        &mut self,
        now: Instant,
        flow: Flow,
        packet: Packet,
        counters: &mut Counters,
        evicted: &mut Vec<Flow>,
    ) -> bool {
        let len = packet.octets.len();
        if let Some(held) = self.flows.get_mut(&flow) {
            self.bytes += len;
            held.last.push_back(packet);
            if held.last.len() > MAX_LAST
                && let Some(old) = held.last.pop_front()
            {
                self.bytes = self.bytes.saturating_sub(old.octets.len());
                counters.count(Reason::HoldReplaced);
            }
        } else {
            let (source, destination) = neighbourhoods(flow);
            let taken =
                |map: &HashMap<Prefix, usize, Seeded>, key| map.get(key).copied().unwrap_or(0);
            if taken(&self.by_source, &source) >= MAX_FLOWS_PER_SOURCE
                || taken(&self.by_destination, &destination) >= MAX_FLOWS_PER_DESTINATION
            {
                counters.count(Reason::HoldOverBudget);
                return false;
            }
            let age = self.next;
            self.next += 1;
            self.bytes += len;
            self.ages.insert(age, (now, flow));
            *self.by_source.entry(source).or_default() += 1;
            *self.by_destination.entry(destination).or_default() += 1;
            self.flows.insert(flow, Held { first: packet, last: VecDeque::new(), age });
        }
        counters.held += 1;
        while self.flows.len() > MAX_FLOWS || self.bytes > MAX_BYTES {
            let Some((_, &(_, oldest))) = self.ages.first_key_value() else { break };
            for _ in self.take(&oldest) {
                counters.count(Reason::HoldOverBudget);
            }
            evicted.push(oldest);
        }
        true
    }

    /// Takes out what is held of a flow, in the order it came.
    pub(crate) fn take(&mut self, flow: &Flow) -> VecDeque<Packet> {
        let Some(mut held) = self.flows.remove(flow) else { return VecDeque::new() };
        self.ages.remove(&held.age);
        let (source, destination) = neighbourhoods(*flow);
        forget(&mut self.by_source, source);
        forget(&mut self.by_destination, destination);
        self.bytes = self.bytes.saturating_sub(held.bytes());
        held.last.push_front(held.first);
        held.last
    }

    /// The flows between two prefixes of which something is held, the oldest first.
    pub(crate) fn flows_between(&self, subnets: &Subnets) -> Vec<Flow> {
        let flows = self.ages.values().map(|(_, flow)| *flow);
        flows.filter(|flow| subnets.contains(flow)).collect()
    }

    /// When the oldest flow will have waited long enough.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let (_, (since, _)) = self.ages.first_key_value()?;
        Some(*since + MAX_WAIT)
    }

    /// Drops what nobody decided about; returns one such flow, to be asked again.
    pub(crate) fn expire(&mut self, now: Instant, counters: &mut Counters) -> Option<Flow> {
        if self.deadline()? > now {
            return None;
        }
        let (_, flow) = *self.ages.first_key_value()?.1;
        for _ in self.take(&flow) {
            counters.count(Reason::HoldExpired);
        }
        Some(flow)
    }

    #[cfg(test)]
    fn is_consistent(&self) -> bool {
        let bytes: usize = self.flows.values().map(Held::bytes).sum();
        bytes == self.bytes
            && self.ages.len() == self.flows.len()
            && self.by_source.values().sum::<usize>() == self.flows.len()
            && self.by_destination.values().sum::<usize>() == self.flows.len()
    }
}

impl Held {
    fn bytes(&self) -> usize {
        self.first.octets.len() + self.last.iter().map(|p| p.octets.len()).sum::<usize>()
    }
}

fn forget(map: &mut HashMap<Prefix, usize, Seeded>, key: Prefix) {
    if let Some(count) = map.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            map.remove(&key);
        }
    }
}

/// The prefixes that share a quota: what one customer usually has (/24; /56 as source, and /48 as
/// destination, where a whole site may be named by one hostile zone).
fn neighbourhoods(flow: Flow) -> (Prefix, Prefix) {
    let of = |addr: IpAddr, v6| {
        let len = if addr.is_ipv4() { 24 } else { v6 };
        Prefix::new(addr, len).unwrap_or_else(|_| Prefix::host(addr))
    };
    (of(flow.src(), 56), of(flow.dst(), 48))
}

/// Packets kept of a flow besides the first: a few seconds of what retries, and their answers.
pub(crate) const MAX_LAST: usize = 4;
/// Flows with held packets. A host opens far fewer connections to strangers within the seconds
/// that a negotiation takes.
pub(crate) const MAX_FLOWS: usize = 4096;
/// Octets of held packets: four thousand flows of ordinary packets, or sixty super-packets.
pub(crate) const MAX_BYTES: usize = 4 << 20;
/// Flows from one neighbourhood: one host behind a gateway that scans cannot take it all.
const MAX_FLOWS_PER_SOURCE: usize = 2048;
/// Flows to one neighbourhood: forged packets that we would answer arrive from one as a rule.
const MAX_FLOWS_PER_DESTINATION: usize = 256;
/// Longer than any negotiation is waited for; the sender has given up as well by then.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    fn flow(host: u32) -> Flow {
        Flow::new([192, 0, 2, 1].into(), Ipv4Addr::from(0x0a00_0000 + host).into()).unwrap()
    }

    fn packet(len: usize, tag: u8) -> Packet {
        Packet { offload: Offload::NONE, octets: vec![tag; len].into() }
    }

    struct Bench {
        hold: Hold,
        counters: Counters,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let hold = Hold::new(Seeded::new(3, 0x9e37_79b9_7f4a_7c15));
            Self { hold, counters: Counters::default(), now: Instant::now() }
        }

        fn put(&mut self, flow: Flow, packet: Packet) -> (bool, Vec<Flow>) {
            let mut evicted = Vec::new();
            let kept = self.hold.put(self.now, flow, packet, &mut self.counters, &mut evicted);
            assert!(self.hold.is_consistent());
            (kept, evicted)
        }
    }

    #[test]
    fn the_first_and_the_last_few_are_kept() {
        let mut bench = Bench::new();
        for tag in 1..=8 {
            bench.put(flow(1), packet(100, tag));
        }
        let tags: Vec<u8> = bench.hold.take(&flow(1)).iter().map(|p| p.octets[0]).collect();
        assert_eq!(tags, [1, 5, 6, 7, 8]);
        assert_eq!((bench.counters.held, bench.counters.hold_replaced), (8, 3));
        assert!(bench.hold.take(&flow(1)).is_empty());
    }

    #[test]
    fn the_oldest_flow_makes_room() {
        let mut bench = Bench::new();
        // 256 addresses apart, so that no neighbourhood is full.
        for i in 0..u32::try_from(MAX_FLOWS).unwrap() {
            let source = Ipv4Addr::from(0xac10_0000 + (i % 4) * 256);
            let f = Flow::new(source.into(), flow(i * 256).dst()).unwrap();
            assert_eq!(bench.put(f, packet(10, 1)), (true, vec![]));
        }
        let (kept, evicted) = bench.put(flow(9_999 * 256), packet(10, 1));
        let oldest = Flow::new([172, 16, 0, 0].into(), flow(0).dst()).unwrap();
        assert_eq!((kept, evicted), (true, vec![oldest]));
        assert_eq!(bench.counters.hold_over_budget, 1);
    }

    #[test]
    fn octets_are_bounded_as_well() {
        let mut bench = Bench::new();
        let mut gone = 0;
        for i in 0..100 {
            gone += bench.put(flow(i * 256), packet(65_000, 1)).1.len();
            assert!(bench.hold.bytes <= MAX_BYTES);
        }
        assert_eq!(gone, 100 - MAX_BYTES / 65_000);
    }

    #[test]
    fn one_neighbourhood_cannot_take_it_all() {
        let mut bench = Bench::new();
        let kept = (0..1000).filter(|i| bench.put(flow(i % 256), packet(10, 1)).0).count();
        assert_eq!(kept, 1000, "the same 256 flows again and again");
        let far = |i: u32| {
            Flow::new(
                Ipv4Addr::from(0xc633_6400 + i).into(),
                Ipv4Addr::from(0x0a01_0000 + i / 4).into(),
            )
            .unwrap()
        };
        let kept = (0..1000).filter(|i| bench.put(far(*i), packet(10, 1)).0).count();
        assert_eq!(kept, MAX_FLOWS_PER_DESTINATION);
        assert!(bench.put(flow(70_000), packet(10, 1)).0, "others are not concerned");
    }

    #[test]
    fn nobody_waits_for_ever() {
        let mut bench = Bench::new();
        bench.put(flow(1), packet(10, 1));
        bench.now += Duration::from_secs(1);
        bench.put(flow(2), packet(10, 1));
        let deadline = bench.hold.deadline().unwrap();
        assert_eq!(deadline, bench.now - Duration::from_secs(1) + MAX_WAIT);
        assert_eq!(bench.hold.expire(bench.now, &mut bench.counters), None);
        assert_eq!(bench.hold.expire(deadline, &mut bench.counters), Some(flow(1)));
        assert_eq!(bench.hold.expire(deadline, &mut bench.counters), None);
        assert_eq!(bench.counters.hold_expired, 1);
    }

    proptest! {
        #[test]
        fn the_books_balance(steps in proptest::collection::vec((0u32..30, 0usize..3), 0..200)) {
            let mut bench = Bench::new();
            for (host, what) in steps {
                match what {
                    0 => drop(bench.hold.take(&flow(host))),
                    n => drop(bench.put(flow(host), packet(n * 40_000, 1))),
                }
                prop_assert!(bench.hold.is_consistent());
            }
        }
    }
}
