//! Addresses that are ours to give: who has which (RFC 7296 §2.19).
//!
//! A lease belongs to a name that has proved itself, not to an IKE SA: who comes back gets what it
//! had, so that its connections go on, and only who needs an address when all others are taken gets
//! one that somebody left, the longest unused first. Until a caller has proved itself, its address is
//! set aside and nothing else changes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use ike::{Identity, IkeId};
use sa::Prefix;

/// The prefixes, and what is taken of them.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    ranges: Vec<Range>,
    leases: BTreeMap<IpAddr, Lease>,
    /// By holder and whether it is of IPv4.
    held: BTreeMap<(Identity, bool), IpAddr>,
    /// Leases that nobody uses, the longest unused first.
    idle: BTreeSet<(Instant, IpAddr)>,
    /// By IKE SA: what is set aside for it, or in use by it.
    uses: BTreeMap<IkeId, Use>,
    /// What is set aside, for whom, and for how many calls.
    aside: BTreeMap<IpAddr, (Identity, usize)>,
    /// What was set aside and came to nothing: nobody ever had it.
    returned: BTreeSet<IpAddr>,
    /// Addresses set aside or in use, by where their users are.
    near: BTreeMap<(IpAddr, bool), usize>,
}

/// A prefix, and how much of it has ever been given.
#[derive(Debug)]
struct Range {
    prefix: Prefix,
    /// The first and the last address that can be given.
    first: u128,
    last: u128,
    /// The next that was never given.
    next: u128,
}

/// An address that somebody has, or had last.
#[derive(Debug)]
struct Lease {
    holder: Identity,
    users: BTreeSet<IkeId>,
    /// Since when nobody uses it.
    idle: Option<Instant>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Use {
    address: IpAddr,
    holder: Identity,
    near: (IpAddr, bool),
    /// The caller has proved who it is.
    proven: bool,
}

/// An address and who has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaseView {
    /// The address.
    pub address: IpAddr,
    /// Who has it, or had it last.
    pub holder: Identity,
    /// Whether it is in use.
    pub used: bool,
}

impl Pool {
    pub(crate) fn new(prefixes: &[Prefix]) -> Self {
        Self { ranges: prefixes.iter().copied().map(Range::new).collect(), ..Self::default() }
    }

    /// Puts other prefixes in force. Whoever has an address that can be given no longer loses it:
    /// gives back the IKE SAs by which those have it, or are about to.
    pub(crate) fn reshape(&mut self, prefixes: &[Prefix]) -> Vec<IkeId> {
        let mut old = std::mem::take(&mut self.ranges);
        let kept = |prefix: &Prefix| {
            let at = old.iter().position(|range| range.prefix == *prefix);
            at.map_or_else(|| Range::new(*prefix), |at| old.swap_remove(at))
        };
        let ranges: Vec<Range> = prefixes.iter().map(kept).collect();
        let stays = |address: &IpAddr| ranges.iter().any(|range| range.holds(*address));
        let gone = self.uses.iter().filter(|(_, use_)| !stays(&use_.address));
        let gone: Vec<IkeId> = gone.map(|(ike, _)| *ike).collect();
        for ike in &gone {
            if let Some(use_) = self.uses.remove(ike) {
                self.not_near(use_.near);
            }
        }
        self.leases.retain(|address, _| stays(address));
        self.held.retain(|_, address| stays(address));
        self.idle.retain(|(_, address)| stays(address));
        self.aside.retain(|address, _| stays(address));
        self.returned.retain(stays);
        self.ranges = ranges;
        gone
    }

    /// Whether the address is one of those that can be given, or lies between them.
    pub(crate) fn covers(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.prefix.contains(address))
    }

    /// Whether there are addresses of this family at all.
    pub(crate) fn has(&self, v4: bool) -> bool {
        self.ranges.iter().any(|range| range.prefix.addr().is_ipv4() == v4)
    }

    /// Sets an address aside for a caller at `outer` that says it is `holder`: the one that it has,
    /// the one that it wishes for, one that nobody ever had, or one that nobody uses. Never one of
    /// `own`. `None` if all are taken, or if too many are by callers from there.
    pub(crate) fn offer(
        &mut self,
        ike: IkeId,
        holder: &Identity,
        outer: IpAddr,
        wish: IpAddr,
        own: &[IpAddr],
    ) -> Option<IpAddr> {
        let v4 = wish.is_ipv4();
        let near = (neighbourhood(outer), v4);
        let crowd = self.near.get(&near).copied().unwrap_or(0);
        if self.uses.contains_key(&ike) || crowd >= self.fair_share(v4) {
            return None;
        }
        let had = self.held.get(&(holder.clone(), v4)).copied();
        let wished = Some(wish).filter(|wish| !wish.is_unspecified() && self.may_give(*wish, own));
        let address = had
            .filter(|address| !own.contains(address) && !self.is_set_aside(*address, holder))
            .or_else(|| wished.filter(|address| self.is_free(*address)))
            .or_else(|| self.fresh(v4, own))
            .or_else(|| self.left(v4, own))?;
        *self.near.entry(near).or_default() += 1;
        self.returned.remove(&address);
        self.aside.entry(address).or_insert_with(|| (holder.clone(), 0)).1 += 1;
        let use_ = Use { address, holder: holder.clone(), near, proven: false };
        self.uses.insert(ike, use_);
        Some(address)
    }

    /// The caller has proved who it is: the address is its own now. Whether it is still there to
    /// be given.
    pub(crate) fn commit(&mut self, ike: IkeId) -> bool {
        let Some(use_) = self.uses.get_mut(&ike) else { return false };
        if use_.proven {
            return true;
        }
        use_.proven = true;
        let (address, holder) = (use_.address, use_.holder.clone());
        self.not_aside(address);
        if let Some(lease) = self.leases.get_mut(&address) {
            if let Some(since) = lease.idle.take() {
                self.idle.remove(&(since, address));
            }
            if lease.holder == holder {
                lease.users.insert(ike);
                return true;
            }
            self.held.remove(&(lease.holder.clone(), address.is_ipv4()));
        }
        self.held.insert((holder.clone(), address.is_ipv4()), address);
        self.leases.insert(address, Lease { holder, users: [ike].into(), idle: None });
        true
    }

    /// The IKE SA is gone. Its holder keeps the address for as long as nobody else needs it.
    pub(crate) fn release(&mut self, now: Instant, ike: IkeId) {
        let Some(use_) = self.uses.remove(&ike) else { return };
        self.not_near(use_.near);
        if !use_.proven {
            self.not_aside(use_.address);
            if self.is_free(use_.address) {
                self.returned.insert(use_.address);
            }
        } else if let Some(lease) = self.leases.get_mut(&use_.address) {
            lease.users.remove(&ike);
            if lease.users.is_empty() {
                lease.idle = Some(now);
                self.idle.insert((now, use_.address));
            }
        }
    }

    fn not_near(&mut self, near: (IpAddr, bool)) {
        if let Some(count) = self.near.get_mut(&near) {
            *count -= 1;
            if *count == 0 {
                self.near.remove(&near);
            }
        }
    }

    fn not_aside(&mut self, address: IpAddr) {
        if let Some((_, count)) = self.aside.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.aside.remove(&address);
            }
        }
    }

    /// The IKE SAs of who has this address now.
    pub(crate) fn users(&self, address: IpAddr) -> impl Iterator<Item = IkeId> {
        self.leases.get(&address).into_iter().flat_map(|lease| lease.users.iter().copied())
    }

    /// Every lease, in the order of addresses.
    pub(crate) fn leases(&self) -> impl Iterator<Item = LeaseView> {
        self.leases.iter().map(|(address, lease)| LeaseView {
            address: *address,
            holder: lease.holder.clone(),
            used: !lease.users.is_empty(),
        })
    }

    /// How many addresses of a family there are.
    pub(crate) fn size(&self, v4: bool) -> usize {
        let of = self.ranges.iter().filter(|range| range.prefix.addr().is_ipv4() == v4);
        let size: u128 = of.map(|range| range.last.saturating_sub(range.first) + 1).sum();
        usize::try_from(size).unwrap_or(usize::MAX).min(MAX_LEASES)
    }

    /// What callers from one neighbourhood may have at most: whoever has many names of its own must
    /// not have all the addresses.
    fn fair_share(&self, v4: bool) -> usize {
        (self.size(v4) / 2).max(FAIR)
    }

    fn may_give(&self, address: IpAddr, own: &[IpAddr]) -> bool {
        !own.contains(&address) && self.ranges.iter().any(|range| range.holds(address))
    }

    /// Nobody has it, had it, or is about to have it.
    fn is_free(&self, address: IpAddr) -> bool {
        !self.leases.contains_key(&address) && !self.aside.contains_key(&address)
    }

    /// It is about to be somebody else's.
    fn is_set_aside(&self, address: IpAddr, holder: &Identity) -> bool {
        self.aside.get(&address).is_some_and(|(other, _)| other != holder)
    }

    /// One that nobody ever had.
    fn fresh(&mut self, v4: bool, own: &[IpAddr]) -> Option<IpAddr> {
        if self.leases.len() >= MAX_LEASES {
            return None;
        }
        for at in 0..self.ranges.len() {
            while let Some(address) = self.ranges.get_mut(at).and_then(|range| range.take(v4)) {
                if !own.contains(&address) && self.is_free(address) {
                    return Some(address);
                }
            }
        }
        let returned = self.returned.iter().copied().filter(|address| address.is_ipv4() == v4);
        returned.into_iter().find(|address| !own.contains(address))
    }

    /// One that somebody left, the longest unused first.
    fn left(&self, v4: bool, own: &[IpAddr]) -> Option<IpAddr> {
        let aside = |address: &IpAddr| self.aside.contains_key(address);
        let left = self.idle.iter().map(|(_, address)| *address);
        left.filter(|a| a.is_ipv4() == v4).find(|a| !own.contains(a) && !aside(a))
    }
}

impl Range {
    fn new(prefix: Prefix) -> Self {
        let (first, last) = (to_bits(prefix.addr()), to_bits(prefix.last()));
        // What routers and broadcasts have (RFC 1122 §3.2.1.3, RFC 4291 §2.6.1) is given to nobody.
        let (first, last) = match (prefix.addr().is_ipv4(), last - first) {
            (_, 0 | 1) => (first, last),
            (true, _) => (first + 1, last - 1),
            (false, _) => (first + 1, last),
        };
        Self { prefix, first, last, next: first }
    }

    fn holds(&self, address: IpAddr) -> bool {
        self.prefix.contains(address) && (self.first..=self.last).contains(&to_bits(address))
    }

    fn take(&mut self, v4: bool) -> Option<IpAddr> {
        if self.prefix.addr().is_ipv4() != v4 || self.next > self.last {
            return None;
        }
        let address = to_address(self.next, v4);
        self.next += 1;
        Some(address)
    }
}

fn to_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u32::from(a).into(),
        IpAddr::V6(a) => a.into(),
    }
}

fn to_address(bits: u128, v4: bool) -> IpAddr {
    match u32::try_from(bits) {
        Ok(bits) if v4 => Ipv4Addr::from(bits).into(),
        _ => Ipv6Addr::from(bits).into(),
    }
}

/// Where a caller is: an IPv4 address, or what a site has of IPv6.
fn neighbourhood(outer: IpAddr) -> IpAddr {
    match outer {
        IpAddr::V4(_) => outer,
        IpAddr::V6(a) => Ipv6Addr::from(u128::from(a) & (u128::MAX << 64)).into(),
    }
}

/// Leases remembered, those that nobody uses included; some 200 octets each. As many as there can be
/// peers.
const MAX_LEASES: usize = 65_536;
/// What one neighbourhood may have of a small pool: the hosts of a household.
const FAIR: usize = 16;

#[cfg(test)]
mod tests;
