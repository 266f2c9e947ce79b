//! Traffic selector negotiation (RFC 7296 §2.9).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sa::TrafficSelector;

use crate::api::ChildRequest;

/// The responder's answer: the common part of what is proposed and what is allowed, in the order
/// of the proposal, so that the packet that caused it (its first selector) is served first.
/// Empty if there is none.
pub(crate) fn narrow(
    proposed: &[TrafficSelector],
    allowed: &[TrafficSelector],
) -> Vec<TrafficSelector> {
    let mut common: Vec<TrafficSelector> = Vec::new();
    for selector in proposed.iter().take(MAX_SELECTORS) {
        for part in allowed.iter().filter_map(|a| selector.intersection(a)) {
            if !common.iter().any(|c| c.covers(&part)) && common.len() < MAX_SELECTORS {
                common.push(part);
            }
        }
    }
    // What a later, wider one covers need not be said.
    let wider = common.clone();
    common.retain(|part| !wider.iter().any(|w| w != part && w.covers(part)));
    common
}

/// Whether an answer stays within what we proposed and leaves something.
pub(crate) fn is_narrowed(answer: &[TrafficSelector], proposed: &[TrafficSelector]) -> bool {
    !answer.is_empty()
        && answer.len() <= MAX_SELECTORS
        && answer.iter().all(|a| proposed.iter().any(|p| p.covers(a)))
}

/// The same protocols and ports, of every address of their families.
pub(crate) fn to_any(selectors: &[TrafficSelector]) -> Vec<TrafficSelector> {
    let all = |selector: &TrafficSelector| match selector.addresses().0 {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::BROADCAST.into()),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::from([0xff; 16]).into()),
    };
    let any = |selector: &TrafficSelector| {
        let (first, last): (IpAddr, IpAddr) = all(selector);
        TrafficSelector::new(first, last, selector.protocol(), selector.ports())
    };
    let mut wide: Vec<TrafficSelector> = selectors.iter().filter_map(any).collect();
    wide.dedup();
    wide
}

/// The same protocols and ports, of this address.
pub(crate) fn to_one(selectors: &[TrafficSelector], address: IpAddr) -> Vec<TrafficSelector> {
    let like = |selector: &&TrafficSelector| selector.addresses().0.is_ipv4() == address.is_ipv4();
    let one = |selector: &TrafficSelector| {
        TrafficSelector::new(address, address, selector.protocol(), selector.ports())
    };
    selectors.iter().filter(like).filter_map(one).collect()
}

/// What is left of a request for a peer that takes only a single pair of addresses a child (RFC 7296
/// §2.9): its first selectors' addresses, which are the triggering packet's. `None` if these are
/// several, or there was nothing else in it.
pub(crate) fn to_single_pair(request: &ChildRequest) -> Option<ChildRequest> {
    let one = |side: &[TrafficSelector]| {
        let (first, last) = side.first()?.addresses();
        (first == last).then(|| narrow(side, &[TrafficSelector::host(first)]))
    };
    let (local, remote) = (one(&request.local)?, one(&request.remote)?);
    let single = ChildRequest { local, remote, mode: request.mode };
    (single != *request).then_some(single)
}

/// Whether some packet can match both sides: they share a family.
pub(crate) fn share_family(local: &[TrafficSelector], remote: &[TrafficSelector]) -> bool {
    local
        .iter()
        .any(|l| remote.iter().any(|r| l.addresses().0.is_ipv4() == r.addresses().0.is_ipv4()))
}

/// Opportunistic children have one selector a side, configured subnets a few.
pub(crate) const MAX_SELECTORS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn ts(s: &str) -> TrafficSelector {
        TrafficSelector::prefix(s.parse().unwrap())
    }

    #[test]
    fn a_wide_proposal_is_narrowed_to_what_is_allowed() {
        let host = ts("192.0.2.7/32");
        assert_eq!(narrow(&[ts("0.0.0.0/0")], &[host]), [host]);
        assert_eq!(narrow(&[host], &[ts("192.0.2.0/24")]), [host]);
        assert!(narrow(&[host], &[ts("192.0.2.8/32")]).is_empty());
        assert!(narrow(&[host], &[]).is_empty());
    }

    #[test]
    fn the_first_proposed_comes_first() {
        let (a, b) = (ts("10.0.0.1/32"), ts("10.9.0.0/16"));
        assert_eq!(narrow(&[b, a], &[a, b]), [b, a]);
    }

    #[test]
    fn what_a_wider_one_covers_is_left_out() {
        let host = ts("10.0.0.1/32");
        let port = TrafficSelector::new(
            "10.0.0.1".parse().unwrap(),
            "10.0.0.1".parse().unwrap(),
            6,
            (80, 80),
        )
        .unwrap();
        assert_eq!(narrow(&[port, host], &[host]), [host]);
        assert_eq!(narrow(&[port], &[host]), [port]);
    }

    #[test]
    fn an_answer_may_not_be_wider() {
        assert!(is_narrowed(&[ts("10.0.0.1/32")], &[ts("10.0.0.0/8")]));
        assert!(!is_narrowed(&[ts("10.0.0.0/8")], &[ts("10.0.0.1/32")]));
        assert!(!is_narrowed(&[], &[ts("10.0.0.1/32")]));
    }

    #[test]
    fn families_must_meet() {
        assert!(share_family(&[ts("10.0.0.1/32"), ts("::1/128")], &[ts("::/0")]));
        assert!(!share_family(&[ts("10.0.0.1/32")], &[ts("::/0")]));
    }
}
