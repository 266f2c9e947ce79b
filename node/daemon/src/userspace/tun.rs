//! The TUN device: where the kernel's routes lead, and where opened packets come out.
//!
//! With IFF_VNET_HDR every packet carries a header that says which work was left to us, and
//! TUNSETOFFLOAD makes the kernel leave it: TCP and UDP come as super-packets of up to 64 kB
//! without checksums, and are taken back that way.
#![allow(unsafe_code, reason = "ioctl has no safe wrapper in std")]

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use anyhow::Context as _;

/// An open device; it disappears when this is dropped.
pub(super) struct Tun {
    file: File,
    /// UDP super-packets are understood (Linux 6.2).
    udp_offload: bool,
}

impl Tun {
    /// Creates the device `name`, sets its MTU and brings it up.
    ///
    /// # Errors
    /// Without CAP_NET_ADMIN, without /dev/net/tun, or if the name is taken or too long.
    pub(super) fn create(name: &str, mtu: u16) -> anyhow::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")
            .context("cannot open /dev/net/tun: is the tun module there?")?;
        let mut request = request(name)?;
        let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags)?;
        let fd = file.as_raw_fd();
        // SAFETY: TUNSETIFF reads and writes one ifreq, which outlives the call.
        check(unsafe { libc::ioctl(fd, libc::TUNSETIFF, &raw mut request) })
            .map_err(|e| refused(name, e))?;
        let header = libc::c_int::try_from(forwarding::Offload::LEN)?;
        // SAFETY: TUNSETVNETHDRSZ reads one int, which outlives the call.
        check(unsafe { libc::ioctl(fd, libc::TUNSETVNETHDRSZ, &raw const header) })
            .context("cannot set the device's header size")?;
        let udp_offload = offload(fd)?;
        configure(name, mtu)?;
        if !is_forwarding() {
            let most = forwarding::segments_per_send(mtu);
            // Slower without, not wrong: a super-packet is sent in two parts then.
            if let Err(error) = limit_segments(name, most) {
                tracing::debug!(
                    "the segments of super-packets on {name} stay as they are: {error}"
                );
            }
        }
        Ok(Self { file, udp_offload })
    }

    /// Whether the device takes and gives UDP super-packets.
    pub(super) fn has_udp_offload(&self) -> bool {
        self.udp_offload
    }

    /// For epoll.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsFd as _;
        self.file.as_fd()
    }

    /// Reads one packet behind its header; `WouldBlock` when there is none.
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.file).read(buffer)
    }

    /// Writes one packet: its header, then its octets.
    pub(super) fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        (&self.file).write_vectored(slices)
    }
}

/// Why there is no such device, and what to do about it.
fn refused(name: &str, error: io::Error) -> anyhow::Error {
    let remedy = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => ": this needs root",
        Some(libc::EBUSY) => ": another program has it",
        Some(libc::EINVAL) => ": there is a device of that name already",
        _ => "",
    };
    anyhow::Error::new(error)
        .context(format!("node.interface: cannot create the device {name}{remedy}"))
}

/// Asks for as much offload as the kernel has; whether UDP is part of it.
fn offload(fd: libc::c_int) -> anyhow::Result<bool> {
    let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
    for (flags, udp) in [(tcp | libc::TUN_F_USO4 | libc::TUN_F_USO6, true), (tcp, false)] {
        // SAFETY: TUNSETOFFLOAD takes the flags by value.
        if unsafe { libc::ioctl(fd, libc::TUNSETOFFLOAD, libc::c_ulong::from(flags)) } == 0 {
            return Ok(udp);
        }
    }
    Err(io::Error::last_os_error()).context("cannot switch on the device's offloads")
}

fn configure(name: &str, mtu: u16) -> anyhow::Result<()> {
    // SAFETY: socket() takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    check(fd)?;
    // SAFETY: the descriptor was just made, and nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut request = request(name)?;
    request.ifr_ifru.ifru_mtu = mtu.into();
    // SAFETY: SIOCSIFMTU reads one ifreq, which outlives the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFMTU, &raw const request) })
        .with_context(|| format!("cannot set the MTU of {name} to {mtu}"))?;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING)?;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which outlives the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) })
        .with_context(|| format!("cannot bring {name} up"))?;
    Ok(())
}

/// Whether this host carries packets of others. Their super-packets were made elsewhere, and one
/// with too many segments for the device would be taken apart into single packets.
fn is_forwarding() -> bool {
    let files = ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"];
    files.into_iter().any(|file| {
        std::fs::read_to_string(file).is_ok_and(|text| text.trim().starts_with(['1', '2']))
    })
}

/// Keeps the host's own super-packets to so many segments (IFLA_GSO_MAX_SEGS of rtnetlink(7)), so
/// that each fits one send, and comes out in one piece at the other end.
fn limit_segments(name: &str, segments: usize) -> io::Result<()> {
    let text = CString::new(name)?;
    // SAFETY: if_nametoindex reads a string that outlives the call.
    let index = unsafe { libc::if_nametoindex(text.as_ptr()) };
    if index == 0 {
        return Err(io::Error::last_os_error());
    }
    let segments = u32::try_from(segments).map_err(io::Error::other)?;
    // struct nlmsghdr, struct ifinfomsg, one struct rtattr.
    let length: u32 = 16 + 16 + 8;
    let acknowledged = u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_ACK).unwrap_or_default();
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(libc::RTM_NEWLINK.to_ne_bytes());
    message.extend(acknowledged.to_ne_bytes());
    message.extend([0; 8 + 4]);
    message.extend(index.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(8u16.to_ne_bytes());
    message.extend(libc::IFLA_GSO_MAX_SEGS.to_ne_bytes());
    message.extend(segments.to_ne_bytes());

    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: socket() takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) };
    check(fd)?;
    // SAFETY: the descriptor was just made, and nobody else owns it.
    let socket = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    (&socket).write_all(&message)?;
    let mut answer = [0; 1024];
    let len = (&socket).read(&mut answer)?;
    // struct nlmsgerr: zero, or an error number below it.
    let error = answer.get(..len).and_then(|a| a.get(16..)).and_then(<[u8]>::first_chunk);
    match error.map(|e| i32::from_ne_bytes(*e)) {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(-error)),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// A request about the interface `name`, otherwise zero.
fn request(name: &str) -> anyhow::Result<libc::ifreq> {
    // SAFETY: an ifreq is plain data, for which all zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let ok = !name.is_empty() && name.len() < libc::IFNAMSIZ && !name.contains(['/', '%', '\0']);
    anyhow::ensure!(ok, "{name:?} is no interface name (1 to 15 octets)");
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    Ok(request)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
