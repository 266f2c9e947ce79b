//! The system calls of the packet path that std has no words for: batched and segmented sends,
//! receives with ancillary data, epoll.
//!
//! Everything here works on buffers that the caller owns; nothing allocates.
#![allow(unsafe_code, reason = "recvmsg, sendmsg, epoll and their ancillary data")]

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::mem::{MaybeUninit, size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd};
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use libc::c_int;
use socket2::Socket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::bpf::{JUMP_IF_EQUAL, LOAD_WORD, RETURN};

/// A datagram, or several of one sender that the kernel has joined (UDP_GRO).
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    /// Octets received.
    pub(super) len: usize,
    /// Octets of each datagram; only the last may be shorter.
    pub(super) stride: usize,
    pub(super) remote: SocketAddr,
    /// The address it was sent to.
    pub(super) local: Option<IpAddr>,
    /// DSCP and ECN of the outer header.
    pub(super) tos: u8,
}

/// Receives into `buffer`; `WouldBlock` when there is nothing.
pub(super) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    let mut name = Name::EMPTY;
    let mut control = Control::EMPTY;
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut message = name.message(slice::from_mut(&mut part), &mut control);
    // SAFETY: every pointer in the message is to a local or to `buffer`, with its length.
    let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    let remote = name.address().ok_or(io::ErrorKind::InvalidData)?;
    let mut received = Received { len, stride: len, remote, local: None, tos: 0 };
    // SAFETY: the kernel has filled in the message, whose control buffer is still there.
    unsafe { read_control(&message, &mut received) };
    Ok(received)
}

/// How many octets a buffer for [`receive_each`] has.
pub(super) fn room_for_each(room: usize) -> usize {
    BATCH * (room + RAW_PACKET)
}

/// Receives packets one by one with as few calls as may be (recvmmsg), and says where in `buffer`
/// each begins. Those of at most `room` octets lie side by side, for the CPU's cache; the rare longer
/// one has a place of its own behind them, of which no memory is used before. Returns how many came.
/// `WouldBlock` when there is nothing.
pub(super) fn receive_each(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    room: usize,
    packets: &mut [Option<(usize, Received)>; BATCH],
) -> io::Result<usize> {
    let mut names = [const { Name::EMPTY }; BATCH];
    let mut controls = [const { Control::EMPTY }; BATCH];
    let none = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
    let mut parts = [[none; 2]; BATCH];
    // SAFETY: an mmsghdr is plain data, for which all zero is valid.
    let mut messages: [libc::mmsghdr; BATCH] = unsafe { zeroed() };
    let mut places: libc::c_uint = 0;
    let Some((near, far)) = buffer.split_at_mut_checked(BATCH * room) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let slots = near.chunks_exact_mut(room).zip(far.chunks_exact_mut(RAW_PACKET));
    let slots = slots.zip(&mut parts).zip(&mut messages);
    for ((((slot, rest), parts), message), (name, control)) in
        slots.zip(names.iter_mut().zip(&mut controls))
    {
        // What is longer than the slot goes on where it would lie in the larger place.
        let rest = rest.get_mut(room..).unwrap_or_default();
        *parts = [slot, rest]
            .map(|part| libc::iovec { iov_base: part.as_mut_ptr().cast(), iov_len: part.len() });
        message.msg_hdr = name.message(parts, control);
        places += 1;
    }
    let fd = socket.as_raw_fd();
    // SAFETY: `places` messages, whose pointers are to locals and to disjoint parts of `buffer`.
    let count = unsafe {
        libc::recvmmsg(fd, messages.as_mut_ptr(), places, libc::MSG_DONTWAIT, std::ptr::null_mut())
    };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    let all = packets.iter_mut().zip(&messages).zip(&names).take(count);
    for (number, ((packet, message), name)) in all.enumerate() {
        let len = usize::try_from(message.msg_len).unwrap_or(0);
        let Some(remote) = name.address() else { continue };
        let mut received = Received { len, stride: len, remote, local: None, tos: 0 };
        // SAFETY: the kernel has filled in this message, whose control buffer is still there.
        unsafe { read_control(&message.msg_hdr, &mut received) };
        let slot = number * room;
        let place = if len <= room { slot } else { BATCH * room + number * RAW_PACKET };
        if place != slot {
            buffer.copy_within(slot..slot + room, place);
        }
        *packet = Some((place, received));
    }
    Ok(count)
}

/// Sends `octets` as datagrams of `segment` octets (UDP_SEGMENT), the last perhaps shorter.
pub(super) fn send(
    socket: BorrowedFd<'_>,
    remote: SocketAddr,
    local: Option<IpAddr>,
    tos: u8,
    octets: &[u8],
    segment: Option<u16>,
) -> io::Result<()> {
    let mut name = Name::of(remote);
    let mut control = Control::EMPTY;
    let mut part =
        libc::iovec { iov_base: octets.as_ptr().cast_mut().cast(), iov_len: octets.len() };
    let mut message = name.message(slice::from_mut(&mut part), &mut control);
    // SAFETY: the message's control buffer is large enough for all three (see `Control`).
    unsafe { write_control(&mut message, local, remote.is_ipv4(), tos, segment) };
    // SAFETY: every pointer in the message is to a local or to `octets`, which are only read.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends packets one by one with as few calls as may be (sendmmsg); returns how many the kernel
/// refused.
pub(super) fn send_each<'a>(
    socket: BorrowedFd<'_>,
    remote: SocketAddr,
    local: Option<IpAddr>,
    tos: u8,
    packets: impl Iterator<Item = &'a [u8]>,
) -> usize {
    let mut name = Name::of(remote);
    let mut control = Control::EMPTY;
    let mut none = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
    let mut shared = name.message(slice::from_mut(&mut none), &mut control);
    // SAFETY: as in `send`.
    unsafe { write_control(&mut shared, local, remote.is_ipv4(), tos, None) };
    let mut packets = packets.peekable();
    let mut refused = 0;
    while packets.peek().is_some() {
        let mut parts = [const { MaybeUninit::<libc::iovec>::uninit() }; BATCH];
        // SAFETY: an mmsghdr is plain data, for which all zero is valid.
        let mut messages: [libc::mmsghdr; BATCH] = unsafe { zeroed() };
        let mut count = 0;
        for ((part, message), packet) in
            parts.iter_mut().zip(&mut messages).zip(packets.by_ref().take(BATCH))
        {
            let part = part.write(libc::iovec {
                iov_base: packet.as_ptr().cast_mut().cast(),
                iov_len: packet.len(),
            });
            message.msg_hdr = shared;
            message.msg_hdr.msg_iov = part;
            count += 1;
        }
        refused += send_messages(socket, messages.get_mut(..count).unwrap_or_default());
    }
    refused
}

fn send_messages(socket: BorrowedFd<'_>, mut messages: &mut [libc::mmsghdr]) -> usize {
    let mut refused = 0;
    while !messages.is_empty() {
        let count = libc::c_uint::try_from(messages.len()).unwrap_or(libc::c_uint::MAX);
        // SAFETY: `count` messages, whose pointers are to buffers of the caller.
        let sent = unsafe {
            libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), count, libc::MSG_DONTWAIT)
        };
        // After an error the first message is the one that failed.
        let done = usize::try_from(sent).unwrap_or_else(|_| {
            refused += 1;
            1
        });
        messages = messages.get_mut(done.max(1)..).unwrap_or_default();
    }
    refused
}

/// Waits until the socket takes more, or the time is over.
pub(super) fn wait_writable(socket: BorrowedFd<'_>, limit: Duration) {
    let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: one pollfd, which outlives the call.
    unsafe { libc::poll(&raw mut poll, 1, milliseconds(limit)) };
}

/// Sets an integer option.
pub(super) fn set_option(
    socket: BorrowedFd<'_>,
    level: c_int,
    name: c_int,
    value: c_int,
) -> io::Result<()> {
    set_octets(socket, level, name, &value.to_ne_bytes())
}

/// Sets an option that takes octets.
pub(crate) fn set_octets(
    socket: BorrowedFd<'_>,
    level: c_int,
    name: c_int,
    value: &[u8],
) -> io::Result<()> {
    let len = libc::socklen_t::try_from(value.len()).unwrap_or(0);
    // SAFETY: the octets outlive the call, and their number is given.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value.as_ptr().cast(), len) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What a packet socket sends leaves by this device; it receives nothing.
pub(super) fn send_by(socket: BorrowedFd<'_>, device: u32) -> io::Result<()> {
    // SAFETY: a sockaddr_ll is plain data, for which all zero is valid.
    let mut name: libc::sockaddr_ll = unsafe { zeroed() };
    name.sll_family = family(libc::AF_PACKET);
    name.sll_ifindex = c_int::try_from(device).map_err(io::Error::other)?;
    let size = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or(0);
    // SAFETY: the name outlives the call, and its size is given.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const name).cast(), size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A socket whose runtime says when there is something to receive. Must be called inside one.
pub(super) fn watch(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: the socket owns its descriptor, always gives the same, and is closed after the
    // registration that it goes into has ended.
    let watched = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
    watched.map_err(io::Error::from)
}

/// Of two sockets of one port the second gets datagrams that begin with four octets of zero, and the
/// first all others (SO_ATTACH_REUSEPORT_CBPF, socket(7)).
pub(super) fn second_takes_marked(socket: BorrowedFd<'_>) -> io::Result<()> {
    let step = |code, jf, k| libc::sock_filter { code, jt: 0, jf, k };
    // The program sees the datagram behind its UDP header. One that is shorter than what is loaded
    // ends it, with 0.
    let mut program =
        [step(LOAD_WORD, 0, 0), step(JUMP_IF_EQUAL, 1, 0), step(RETURN, 0, 1), step(RETURN, 0, 0)];
    let len = libc::c_ushort::try_from(program.len()).unwrap_or(0);
    let whole = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    let size = libc::socklen_t::try_from(size_of::<libc::sock_fprog>()).unwrap_or(0);
    let name = libc::SO_ATTACH_REUSEPORT_CBPF;
    // SAFETY: the program outlives the call, its length and its size are given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            (&raw const whole).cast(),
            size,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A set of descriptors to wait for, each with a number.
pub(super) struct Epoll(OwnedFd);

impl Epoll {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: epoll_create1 takes no pointers.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        owned(fd).map(Self)
    }

    /// Waits for `fd` to become readable; it must outlive the set, or be closed with it.
    pub(super) fn add(&self, fd: BorrowedFd<'_>, number: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN.cast_unsigned(), u64: number };
        let (set, fd) = (self.0.as_raw_fd(), fd.as_raw_fd());
        // SAFETY: epoll_ctl reads one event, which outlives the call.
        let result = unsafe { libc::epoll_ctl(set, libc::EPOLL_CTL_ADD, fd, &raw mut event) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The numbers of what is readable; none after `limit`, or when a signal came.
    pub(super) fn wait(&self, limit: Option<Duration>) -> impl Iterator<Item = u64> + use<> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        let limit = limit.map_or(-1, milliseconds);
        let room = c_int::try_from(EVENTS).unwrap_or(1);
        // SAFETY: the array has room for as many events as it says.
        let count =
            unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), room, limit) };
        events.into_iter().take(usize::try_from(count).unwrap_or(0)).map(|event| event.u64)
    }
}

/// A counter that wakes an [`Epoll`].
pub(super) struct Wake {
    counter: File,
    /// Whether it is readable, or about to be: one system call is enough for all who wake it until
    /// it is answered.
    woken: AtomicBool,
}

impl Wake {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        owned(fd).map(|fd| Self { counter: File::from(fd), woken: AtomicBool::new(false) })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.counter.as_fd()
    }

    /// Makes it readable. Cannot fail but by overflow, and then it is readable already.
    pub(super) fn wake(&self) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            let _ = (&self.counter).write(&1u64.to_ne_bytes());
        }
    }

    /// Makes it unreadable until the next [`Self::wake`]. To be called before what it announces is
    /// looked at: what comes later wakes again.
    pub(super) fn clear(&self) {
        let _ = (&self.counter).read(&mut [0; 8]);
        self.woken.swap(false, Ordering::AcqRel);
    }
}

fn owned(fd: c_int) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Rounded up, so that a wait does not end just before the deadline again and again.
fn milliseconds(limit: Duration) -> c_int {
    c_int::try_from(limit.as_millis().saturating_add(1)).unwrap_or(c_int::MAX)
}

/// A socket address as the kernel has it.
struct Name {
    storage: libc::sockaddr_storage,
    len: usize,
}

impl Name {
    const EMPTY: Self = Self {
        // SAFETY: a sockaddr_storage is plain data, for which all zero is valid.
        storage: unsafe { zeroed() },
        len: size_of::<libc::sockaddr_storage>(),
    };

    fn of(address: SocketAddr) -> Self {
        let mut name = Self::EMPTY;
        let storage = &raw mut name.storage;
        match address {
            SocketAddr::V4(a) => {
                let address = libc::sockaddr_in {
                    sin_family: family(libc::AF_INET),
                    sin_port: a.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(a.ip().octets()) },
                    sin_zero: [0; 8],
                };
                // SAFETY: a sockaddr_storage has room and alignment for every sockaddr.
                unsafe { storage.cast::<libc::sockaddr_in>().write(address) };
                name.len = size_of::<libc::sockaddr_in>();
            }
            SocketAddr::V6(a) => {
                let address = libc::sockaddr_in6 {
                    sin6_family: family(libc::AF_INET6),
                    sin6_port: a.port().to_be(),
                    sin6_flowinfo: 0,
                    sin6_addr: libc::in6_addr { s6_addr: a.ip().octets() },
                    sin6_scope_id: a.scope_id(),
                };
                // SAFETY: as above.
                unsafe { storage.cast::<libc::sockaddr_in6>().write(address) };
                name.len = size_of::<libc::sockaddr_in6>();
            }
        }
        name
    }

    fn address(&self) -> Option<SocketAddr> {
        let storage = &raw const self.storage;
        match c_int::from(self.storage.ss_family) {
            libc::AF_INET => {
                // SAFETY: the family says that it is a sockaddr_in, and there is room for one.
                let a = unsafe { &*storage.cast::<libc::sockaddr_in>() };
                let ip = Ipv4Addr::from(a.sin_addr.s_addr.to_ne_bytes());
                Some(SocketAddrV4::new(ip, u16::from_be(a.sin_port)).into())
            }
            libc::AF_INET6 => {
                // SAFETY: the family says that it is a sockaddr_in6, and there is room for one.
                let a = unsafe { &*storage.cast::<libc::sockaddr_in6>() };
                let ip = Ipv6Addr::from(a.sin6_addr.s6_addr);
                Some(SocketAddrV6::new(ip, u16::from_be(a.sin6_port), 0, a.sin6_scope_id).into())
            }
            _ => None,
        }
    }

    /// A message to or from this name. Its pointers live as long as the three borrowed.
    fn message(&mut self, parts: &mut [libc::iovec], control: &mut Control) -> libc::msghdr {
        // SAFETY: a msghdr is plain data, for which all zero is valid.
        let mut message: libc::msghdr = unsafe { zeroed() };
        message.msg_name = (&raw mut self.storage).cast();
        message.msg_namelen = libc::socklen_t::try_from(self.len).unwrap_or(0);
        message.msg_iov = parts.as_mut_ptr();
        message.msg_iovlen = parts.len();
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = size_of::<Control>();
        message
    }
}

fn family(family: c_int) -> libc::sa_family_t {
    libc::sa_family_t::try_from(family).unwrap_or(0)
}

/// Room for ancillary data: packet info (at most 20 octets), traffic class (4), segment size (2
/// or 4), each behind a header of 16 octets and padded to 8: 112 octets.
#[repr(C, align(8))]
struct Control([u8; 128]);

impl Control {
    const EMPTY: Self = Self([0; 128]);
}

/// # Safety
/// The message must have been filled in by recvmsg, and its buffers must still be there.
unsafe fn read_control(message: &libc::msghdr, received: &mut Received) {
    // SAFETY: the caller vouches for the message; the macros stay within its control buffer.
    unsafe {
        let mut next = libc::CMSG_FIRSTHDR(message);
        while let Some(header) = next.as_ref() {
            let data = libc::CMSG_DATA(header);
            match (header.cmsg_level, header.cmsg_type) {
                (libc::SOL_UDP, UDP_GRO) => {
                    let stride = data.cast::<c_int>().read_unaligned();
                    received.stride = usize::try_from(stride).unwrap_or(0);
                }
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = data.cast::<libc::in_pktinfo>().read_unaligned();
                    let local = Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes());
                    received.local = Some(local.into());
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = data.cast::<libc::in6_pktinfo>().read_unaligned();
                    received.local = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                }
                (libc::IPPROTO_IP, libc::IP_TOS) => received.tos = data.read(),
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    let tos = data.cast::<c_int>().read_unaligned();
                    received.tos = u8::try_from(tos).unwrap_or(0);
                }
                _ => {}
            }
            next = libc::CMSG_NXTHDR(message, header);
        }
    }
}

/// # Safety
/// The message must point to a [`Control`].
unsafe fn write_control(
    message: &mut libc::msghdr,
    local: Option<IpAddr>,
    is_v4: bool,
    tos: u8,
    segment: Option<u16>,
) {
    let mut used = 0;
    // SAFETY: a `Control` has room for one of each kind, and is aligned for their headers.
    unsafe {
        let mut next = libc::CMSG_FIRSTHDR(message);
        match local {
            Some(IpAddr::V4(a)) => {
                let s_addr = u32::from_ne_bytes(a.octets());
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr { s_addr },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                next = put(message, next, libc::IPPROTO_IP, libc::IP_PKTINFO, info, &mut used);
            }
            Some(IpAddr::V6(a)) => {
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr { s6_addr: a.octets() },
                    ipi6_ifindex: 0,
                };
                next = put(message, next, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info, &mut used);
            }
            None => {}
        }
        if tos != 0 {
            let (level, kind) = if is_v4 {
                (libc::IPPROTO_IP, libc::IP_TOS)
            } else {
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS)
            };
            next = put(message, next, level, kind, c_int::from(tos), &mut used);
        }
        if let Some(segment) = segment {
            put(message, next, libc::SOL_UDP, UDP_SEGMENT, segment, &mut used);
        }
    }
    message.msg_controllen = used;
    if used == 0 {
        message.msg_control = std::ptr::null_mut();
    }
}

/// Writes one piece of ancillary data and returns where the next one goes.
///
/// # Safety
/// `at` must point into the message's control buffer, with room for a header and a `T`.
unsafe fn put<T>(
    message: &libc::msghdr,
    at: *mut libc::cmsghdr,
    level: c_int,
    kind: c_int,
    value: T,
    used: &mut usize,
) -> *mut libc::cmsghdr {
    let size = libc::c_uint::try_from(size_of::<T>()).unwrap_or(0);
    // SAFETY: the caller vouches for the room.
    unsafe {
        let Some(header) = at.as_mut() else { return at };
        header.cmsg_level = level;
        header.cmsg_type = kind;
        header.cmsg_len = libc::CMSG_LEN(size) as usize;
        libc::CMSG_DATA(header).cast::<T>().write_unaligned(value);
        *used += libc::CMSG_SPACE(size) as usize;
        libc::CMSG_NXTHDR(message, header)
    }
}

/// linux/udp.h; libc has them for some targets only.
pub(super) const UDP_GRO: c_int = 104;
const UDP_SEGMENT: c_int = 103;
/// Packets per sendmmsg and recvmmsg.
pub(super) const BATCH: usize = 64;
/// Room for any packet without UDP: in transport mode a datagram is sealed whole, and a kernel at the
/// other end does so in tunnel mode too, so an ESP packet may be as long as IP has words for.
const RAW_PACKET: usize = 64 * 1024 + 64;
/// Room for packets of ordinary links. No power of two: the packets of a batch would compete for
/// the same few places of the CPU's cache.
pub(super) const ORDINARY_PACKET: usize = 1600 + 64;
/// Descriptors that can become readable at once: device, wake-up, and a handful of sockets; more
/// are told in the next round.
const EVENTS: usize = 32;

/// Leaves no key in a core dump, and lets nobody but root look into our memory.
pub(crate) fn forbid_dumps() {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: setrlimit reads a local; prctl reads its arguments. Where a kernel refuses, the other
    // one still helps.
    unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
    }
}

/// Lets every other thread of ours go before this one when there are not processors enough. Where a
/// kernel refuses, they share as equals.
pub(crate) fn give_way() {
    let myself = 0;
    // SAFETY: setpriority takes no pointers; in Linux it is about the calling thread.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, myself, NICE) };
}

/// Others get three times as much.
const NICE: c_int = 5;
