//! What the kernel must know of a socket of ours.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::Emitable as _;
use netlink_packet_xfrm::{UserPolicyInfo, XFRM_POLICY_ALLOW, XFRM_POLICY_IN, XFRM_POLICY_OUT};
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
    allow(socket, family, XFRM_POLICY_IN)
}

/// Lets a socket of ours send and hear whatever it wants. It is excepted from our policies by its mark
/// and port as well, but those have to be looked for, packet by packet: this is only quicker.
pub(crate) fn exempt(socket: BorrowedFd<'_>, is_v4: bool) {
    let family = if is_v4 { Domain::IPV4 } else { Domain::IPV6 };
    for direction in [XFRM_POLICY_IN, XFRM_POLICY_OUT] {
        let _ = allow(&socket, family, direction);
    }
}

fn allow(socket: &impl AsFd, family: Domain, direction: u8) -> io::Result<()> {
    const IP_XFRM_POLICY: libc::c_int = 17;
    const IPV6_XFRM_POLICY: libc::c_int = 35;
    let mut policy = UserPolicyInfo::default();
    policy.selector.family = u16::try_from(i32::from(family)).unwrap_or_default();
    (policy.action, policy.direction) = (XFRM_POLICY_ALLOW, direction);
    let mut octets = vec![0; policy.buffer_len()];
    policy.emit(&mut octets);
    let (level, name) = match family {
        Domain::IPV6 => (libc::IPPROTO_IPV6, IPV6_XFRM_POLICY),
        _ => (libc::IPPROTO_IP, IP_XFRM_POLICY),
    };
    set_octets(socket.as_fd(), level, name, &octets)
}
