//! Flows whose fate is open: DNS is asked, or a gateway called. There are only so many at once, and
//! none of them may be taken by whoever causes most: a flood that concerns one part of the address
//! space leaves room for flows to the others.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// How many there are, in all and by neighbourhood.
#[derive(Debug, Default)]
pub(crate) struct Undecided {
    total: usize,
    /// By the first octet of an IPv4 destination, the first 32 bits of an IPv6 one.
    near: BTreeMap<(bool, u32), usize>,
}

impl Undecided {
    /// One more to there.
    pub(crate) fn add(&mut self, dst: IpAddr) {
        self.total += 1;
        *self.near.entry(neighbourhood(dst)).or_default() += 1;
    }

    /// One less.
    pub(crate) fn remove(&mut self, dst: IpAddr) {
        self.total = self.total.saturating_sub(1);
        if let Some(count) = self.near.get_mut(&neighbourhood(dst)) {
            *count -= 1;
            if *count == 0 {
                self.near.remove(&neighbourhood(dst));
            }
        }
    }

    /// How many in all.
    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// Whether there is no room for one more to there.
    pub(crate) fn is_full(&self, dst: IpAddr) -> bool {
        let near = self.near.get(&neighbourhood(dst)).copied().unwrap_or(0);
        self.total >= MAX_PENDING || self.total >= MAX_PENDING / 2 && near >= FAIR
    }
}

fn neighbourhood(dst: IpAddr) -> (bool, u32) {
    match dst {
        IpAddr::V4(addr) => (false, u32::from(addr) >> 24),
        // What a registry gives to one provider at least.
        IpAddr::V6(addr) => (true, u32::try_from(u128::from(addr) >> 96).unwrap_or(u32::MAX)),
    }
}

/// Names asked and gateways called at once. A scan must not turn us into a flood of either.
pub(crate) const MAX_PENDING: usize = 1024;
/// Of these, what every neighbourhood may have when half of them are taken. Until then one may
/// take all: the hosts of one network that start together are in one.
const FAIR: usize = MAX_PENDING / 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// Attack A23.
    /// P13.
    #[test]
    fn one_neighbourhood_leaves_room_for_others() {
        let mut undecided = Undecided::default();
        let mut count = 0;
        while !undecided.is_full([10, 1, 2, 3].into()) {
            undecided.add([10, 1, 2, 3].into());
            count += 1;
        }
        assert_eq!(count, MAX_PENDING / 2);
        let far = ["192.0.2.1", "2001:db8::1", "2001:db9::1"].map(|a| a.parse::<IpAddr>().unwrap());
        for dst in far {
            assert!(!undecided.is_full(dst));
            for _ in 0..FAIR {
                undecided.add(dst);
            }
            assert!(undecided.is_full(dst));
        }
        for _ in 0..count {
            undecided.remove([10, 1, 2, 3].into());
        }
        assert_eq!((undecided.total(), undecided.near.len()), (3 * FAIR, 3));
    }
}
