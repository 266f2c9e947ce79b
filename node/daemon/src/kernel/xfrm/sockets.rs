//! What the kernel must know of a socket of ours.

use std::io;
use std::os::fd::AsFd;

use netlink_packet_core::Emitable as _;
use netlink_packet_xfrm::{UserPolicyInfo, XFRM_POLICY_ALLOW, XFRM_POLICY_IN};
use socket2::Domain;

use crate::userspace::set_octets;

/// `ESPINUDP` of `UDP_ENCAP` (RFC 3948): ESP behind a UDP header.
const ESP_IN_UDP: libc::c_int = 2;

/// Has the kernel take encapsulated ESP from this UDP socket and leave us the rest: IKE behind
/// the non-ESP marker (RFC 3948 §2.2), and keepalives to nobody.
///
/// # Errors
/// What setsockopt says.
pub(super) fn accept_encapsulated(socket: &impl AsFd) -> io::Result<()> {
    const UDP_ENCAP: libc::c_int = 100;
    set_octets(socket.as_fd(), libc::IPPROTO_UDP, UDP_ENCAP, &ESP_IN_UDP.to_ne_bytes())
}

/// Lets in whatever arrives for this socket, from peers too whose clear packets are blocked: a policy
/// of the socket's own goes before all others. Takes `CAP_NET_ADMIN`.
///
/// # Errors
/// What setsockopt says.
pub(crate) fn hear_answers(socket: &impl AsFd, family: Domain) -> io::Result<()> {
    const IP_XFRM_POLICY: libc::c_int = 17;
    const IPV6_XFRM_POLICY: libc::c_int = 35;
    let mut policy = UserPolicyInfo::default();
    policy.selector.family = u16::try_from(i32::from(family)).unwrap_or_default();
    (policy.action, policy.direction) = (XFRM_POLICY_ALLOW, XFRM_POLICY_IN);
    let mut octets = vec![0; policy.buffer_len()];
    policy.emit(&mut octets);
    let (level, name) = match family {
        Domain::IPV6 => (libc::IPPROTO_IPV6, IPV6_XFRM_POLICY),
        _ => (libc::IPPROTO_IP, IP_XFRM_POLICY),
    };
    set_octets(socket.as_fd(), level, name, &octets)
}
