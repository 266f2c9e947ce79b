//! What our policies look like in the kernel's structures (`struct xfrm_userpolicy_info`,
//! `struct xfrm_user_tmpl`).

use std::net::IpAddr;

use netlink_packet_xfrm::{
    AF_INET, AF_INET6, Address, Selector, UserPolicyInfo, UserTemplate, XFRM_MODE_TRANSPORT,
    XFRM_MODE_TUNNEL, XFRM_POLICY_ALLOW, XFRM_POLICY_BLOCK, XFRM_POLICY_OUT, XfrmAttrs,
};
use sa::{Flow, Mode, Prefix, TrafficSelector};

use super::super::policies::ESP;
use super::super::spd;

/// The request id of traps: no SA ever has it.
pub(super) const TRAP_REQID: u32 = 0x4322_0000;

/// How long an open trap stands without being renewed: so long may `private-or-clear` hold
/// packets when the daemon is dead.
pub(super) const TRAP_LIFE_SECONDS: u64 = 30;

/// What becomes of the packets of a prefix or a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Action {
    /// Left alone.
    Allow,
    /// Discarded.
    Block,
    /// Held, and an ACQUIRE is sent; `closed` outlives the daemon.
    Trap {
        /// Whether packets are held for good when no daemon runs.
        closed: bool,
    },
    /// Encrypted.
    Encrypt(Outer),
}

/// How a pair wraps its packets, as a template says it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Outer {
    /// Tunnel or transport.
    pub(super) mode: Mode,
    /// Outer source.
    pub(super) src: IpAddr,
    /// Outer destination.
    pub(super) dst: IpAddr,
    /// The SA's request id, 0 for any.
    pub(super) reqid: u32,
}

/// An outbound policy for everything to a prefix.
pub(super) fn to_prefix(prefix: Prefix, action: Action) -> (UserPolicyInfo, Vec<XfrmAttrs>) {
    let all = if prefix.addr().is_ipv4() { Prefix::ALL_V4 } else { Prefix::ALL_V6 };
    let selector = spd::between(all, prefix);
    outbound(selector, spd::of_prefix(prefix.len()), action)
}

/// An outbound policy for one flow.
pub(super) fn of_flow(flow: Flow, action: Action) -> (UserPolicyInfo, Vec<XfrmAttrs>) {
    outbound(flow_selector(flow), spd::FLOW, action)
}

/// The selector of a flow's packets.
pub(super) fn flow_selector(flow: Flow) -> Selector {
    spd::between(Prefix::host(flow.src()), Prefix::host(flow.dst()))
}

fn outbound(selector: Selector, priority: u32, action: Action) -> (UserPolicyInfo, Vec<XfrmAttrs>) {
    let mut policy = UserPolicyInfo {
        selector,
        priority,
        direction: XFRM_POLICY_OUT,
        action: XFRM_POLICY_ALLOW,
        ..UserPolicyInfo::default()
    };
    let mut nlas = Vec::new();
    match action {
        Action::Allow => {}
        Action::Block => policy.action = XFRM_POLICY_BLOCK,
        Action::Trap { closed } => {
            if !closed {
                policy.lifetime_cfg.hard_add_expires_seconds = TRAP_LIFE_SECONDS;
            }
            nlas.push(XfrmAttrs::Template(vec![trap(selector.family)]));
        }
        Action::Encrypt(outer) => nlas.push(XfrmAttrs::Template(vec![template(outer)])),
    }
    (policy, nlas)
}

/// Transport mode to nowhere in particular: the kernel then asks for one SA per destination. A
/// tunnel to a fixed gateway would ask once for all of them.
fn trap(family: u16) -> UserTemplate {
    let mut template = UserTemplate { family, ..UserTemplate::default() };
    template.protocol(ESP);
    template.mode(XFRM_MODE_TRANSPORT);
    template.reqid(TRAP_REQID);
    algorithms(template)
}

/// The template of an outer way.
pub(super) fn template(outer: Outer) -> UserTemplate {
    let mut template = UserTemplate::default();
    match outer.mode {
        Mode::Tunnel => {
            template.source(&outer.src);
            template.destination(&outer.dst);
            template.mode(XFRM_MODE_TUNNEL);
        }
        Mode::Transport => {
            template.family = if outer.src.is_ipv4() { AF_INET } else { AF_INET6 };
            template.mode(XFRM_MODE_TRANSPORT);
        }
    }
    template.protocol(ESP);
    template.reqid(outer.reqid);
    algorithms(template)
}

/// Any algorithm: which one is the SA's business.
fn algorithms(mut template: UserTemplate) -> UserTemplate {
    template.aalgos = u32::MAX;
    template.ealgos = u32::MAX;
    template.calgos = u32::MAX;
    template
}

/// The selector of packets from `src` to `dst`; `None` if a range is not a prefix, or ports are
/// neither one nor all, which the kernel has no way to say.
pub(super) fn between(src: &TrafficSelector, dst: &TrafficSelector) -> Option<Selector> {
    let (from, to) = (prefix_of(src)?, prefix_of(dst)?);
    let mut selector = spd::between(from, to);
    selector.proto = match (src.protocol(), dst.protocol()) {
        (one, other) if one == other => one,
        _ => return None,
    };
    (selector.sport, selector.sport_mask) = ports(src.ports())?;
    (selector.dport, selector.dport_mask) = ports(dst.ports())?;
    Some(selector)
}

fn prefix_of(selector: &TrafficSelector) -> Option<Prefix> {
    let (first, last) = selector.addresses();
    let bits = Prefix::host(first).len();
    (0..=bits)
        .filter_map(|len| Prefix::new(first, len).ok())
        .find(|prefix| prefix.addr() == first && prefix.last() == last)
}

/// Port and mask.
fn ports(range: (u16, u16)) -> Option<(u16, u16)> {
    match range {
        (0, u16::MAX) => Some((0, 0)),
        (one, other) if one == other => Some((one, u16::MAX)),
        _ => None,
    }
}

/// An address of the kernel's, whose structures keep the family elsewhere.
pub(super) fn ip(addr: Address, family: u16) -> Option<IpAddr> {
    match family {
        AF_INET => Some(addr.to_ipv4().into()),
        AF_INET6 => Some(addr.to_ipv6().into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ts(prefix: &str) -> TrafficSelector {
        TrafficSelector::prefix(prefix.parse().unwrap())
    }

    #[test]
    fn selectors_are_prefixes_or_nothing() {
        let selector = between(&ts("192.0.2.0/24"), &ts("198.51.100.7/32")).unwrap();
        assert_eq!((selector.prefixlen_s, selector.prefixlen_d), (24, 32));
        assert_eq!((selector.proto, selector.sport_mask, selector.dport_mask), (0, 0, 0));
        let odd = TrafficSelector::new(
            "192.0.2.1".parse().unwrap(),
            "192.0.2.5".parse().unwrap(),
            0,
            (0, u16::MAX),
        );
        assert_eq!(between(&odd.unwrap(), &ts("198.51.100.7/32")), None);
        let web = TrafficSelector::new(
            "192.0.2.1".parse().unwrap(),
            "192.0.2.1".parse().unwrap(),
            6,
            (443, 443),
        )
        .unwrap();
        assert_eq!(between(&web, &ts("198.51.100.7/32")), None, "one protocol for both ends");
        let selector = between(&web, &web).unwrap();
        assert_eq!((selector.proto, selector.sport, selector.sport_mask), (6, 443, u16::MAX));
    }

    #[test]
    fn longer_prefixes_go_first_and_flows_before_them() {
        let priority = |text: &str| to_prefix(text.parse().unwrap(), Action::Allow).0.priority;
        assert!(priority("192.0.2.0/24") < priority("0.0.0.0/0"));
        assert!(priority("::1/128") < priority("::/0"));
        assert!(spd::FLOW < priority("::1/128") && spd::EXCEPTION < spd::FLOW);
        assert!(spd::OURS.contains(&priority("::/0")));
    }
}
