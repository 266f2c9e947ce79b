//! What the kernel must know of a socket of ours.
#![allow(unsafe_code)] // setsockopt(2): the option has no safe wrapper among our dependencies.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// `ESPINUDP` of `UDP_ENCAP` (RFC 3948): ESP behind a UDP header.
const ESP_IN_UDP: libc::c_int = 2;

/// Has the kernel take encapsulated ESP from this UDP socket and leave us the rest: IKE behind
/// the non-ESP marker (RFC 3948 §2.2), and keepalives to nobody.
///
/// # Errors
/// What setsockopt says.
pub(super) fn accept_encapsulated(socket: &impl AsFd) -> io::Result<()> {
    const UDP_ENCAP: libc::c_int = 100;
    let value = ESP_IN_UDP;
    let len = libc::socklen_t::try_from(size_of_val(&value)).unwrap_or_default();
    // SAFETY: the descriptor is borrowed and so open; `value` is `len` octets long and outlives
    // the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_UDP,
            UDP_ENCAP,
            (&raw const value).cast(),
            len,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
