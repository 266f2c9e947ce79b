//! The sockets of the node: UDP 500 and 4500 for IKE and ESP in UDP (RFC 3948), IP protocol 50
//! for ESP itself, and raw IP for packets released in the clear.
//!
//! All carry the node's mark, so that routing never leads them back into the device. UDP is the
//! fast path: it has segmentation (UDP_SEGMENT) and joining (UDP_GRO), raw sockets have neither.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use sa::Envelope;
use socket2::{Domain, Protocol, Socket, Type};

use super::sys;

/// All sockets of one plane. Sending takes `&self`, from any thread.
pub(super) struct Sockets {
    /// Of ESP in UDP: one of the two sockets that share its port.
    udp: Vec<Udp>,
    /// Of IKE: the other one, and the port that has nothing but IKE.
    ike: Vec<Udp>,
    esp: Vec<Raw>,
    clear: Vec<Raw>,
    /// Where "too big" messages arrive.
    icmp: Vec<Raw>,
    /// Whether the kernel segments for us; turned off when it says that it cannot.
    segmentation: AtomicBool,
    /// Packets that could not be sent.
    refused: AtomicU64,
}

/// A UDP socket, and what arrives on it.
pub(super) struct Udp {
    socket: Socket,
    /// The wildcard address, or the one that was configured.
    address: SocketAddr,
    /// ESP arrives at this port, and IKE behind a marker (RFC 3948 §2.2); otherwise IKE only.
    pub(super) natt: bool,
}

/// A raw socket.
pub(super) struct Raw {
    socket: Socket,
    pub(super) is_v4: bool,
}

/// What is to be opened.
pub(super) struct Wanted<'a> {
    pub(super) mark: u32,
    /// Empty: every address.
    pub(super) listen: &'a [IpAddr],
    pub(super) ike_port: u16,
    pub(super) natt_port: u16,
}

impl Sockets {
    /// Opens everything. A family that the kernel does not have is left out.
    ///
    /// # Errors
    /// If a port is taken, without CAP_NET_ADMIN and CAP_NET_RAW, or if no family works.
    pub(super) fn open(wanted: &Wanted<'_>) -> anyhow::Result<Self> {
        let any = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let listen = if wanted.listen.is_empty() { &any[..] } else { wanted.listen };
        let mut sockets = Self {
            udp: Vec::new(),
            ike: Vec::new(),
            esp: Vec::new(),
            clear: Vec::new(),
            icmp: Vec::new(),
            segmentation: AtomicBool::new(true),
            refused: AtomicU64::new(0),
        };
        for address in listen {
            let port = |port| SocketAddr::new(*address, port);
            let opened = |opened, port| {
                unless_missing(opened, *address, &format!("UDP port {port} of {address}"))
            };
            let ike = opened(udp(port(wanted.ike_port), wanted.mark), wanted.ike_port)?;
            sockets.ike.extend(ike.map(|socket| Udp::new(socket, false)).transpose()?);
            let esp = udp(port(wanted.natt_port), wanted.mark);
            let Some(esp) = opened(esp, wanted.natt_port)? else { continue };
            let esp = Udp::new(esp, true)?;
            let marked = marked(&esp, wanted.mark)
                .with_context(|| format!("sharing UDP port {} of {address}", wanted.natt_port))?;
            sockets.ike.push(Udp::new(marked, true)?);
            sockets.udp.push(esp);
        }
        anyhow::ensure!(!sockets.udp.is_empty(), "there is no address to listen on");
        for address in any {
            let is_v4 = address.is_ipv4();
            let raw = |protocol| {
                unless_missing(raw(is_v4, protocol, wanted.mark), address, "a raw socket")
            };
            if let Some(socket) = raw(ESP)? {
                sockets.esp.push(Raw { socket, is_v4 });
            }
            if let Some(socket) = raw(libc::IPPROTO_RAW)? {
                sockets.clear.push(Raw { socket, is_v4 });
            }
            let protocol = if is_v4 { libc::IPPROTO_ICMP } else { libc::IPPROTO_ICMPV6 };
            if let Some(socket) = raw(protocol)? {
                only_too_big(&socket, is_v4)?;
                sockets.icmp.push(Raw { socket, is_v4 });
            }
        }
        Ok(sockets)
    }

    /// Those of ESP in UDP. What has been joined with ESP may be IKE.
    pub(super) fn udp(&self) -> &[Udp] {
        &self.udp
    }

    /// Those of IKE. What has been joined with IKE may be ESP.
    pub(super) fn ike(&self) -> &[Udp] {
        &self.ike
    }

    pub(super) fn esp(&self) -> &[Raw] {
        &self.esp
    }

    pub(super) fn icmp(&self) -> &[Raw] {
        &self.icmp
    }

    /// Packets that the kernel refused to send so far.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Sends one datagram from an address of ours.
    pub(super) fn transmit(&self, local: SocketAddr, remote: SocketAddr, octets: &[u8]) {
        let Some(socket) = speaking_from(&self.ike, local, remote.is_ipv4()) else {
            return self.refuse(1);
        };
        let sent = retry(socket.fd(), || {
            sys::send(socket.fd(), remote, source(local.ip()), 0, octets, None)
        });
        if sent.is_err() {
            self.refuse(1);
        }
    }

    /// Sends ESP packets of `segment` octets each, the last perhaps shorter.
    pub(super) fn send_esp(&self, to: &Envelope, tos: u8, octets: &[u8], segment: usize) {
        let count = octets.len().div_ceil(segment.max(1));
        let local = source(to.local.ip());
        if !to.udp {
            let raw = self.esp.iter().find(|raw| raw.is_v4 == to.remote.is_ipv4());
            let Some(raw) = raw else { return self.refuse(count) };
            let remote = SocketAddr::new(to.remote.ip(), 0);
            return self.refuse(sys::send_each(
                raw.fd(),
                remote,
                local,
                tos,
                octets.chunks(segment.max(1)),
            ));
        }
        let Some(socket) = speaking_from(&self.udp, to.local, to.remote.is_ipv4()) else {
            return self.refuse(count);
        };
        let size = u16::try_from(segment).ok().filter(|_| count > 1);
        if size.is_none() || self.segmentation.load(Ordering::Relaxed) {
            let sent =
                retry(socket.fd(), || sys::send(socket.fd(), to.remote, local, tos, octets, size));
            match sent {
                Ok(()) => return,
                Err(_) if size.is_none() => return self.refuse(1),
                // The device has no checksum offload.
                Err(e) if e.raw_os_error() == Some(libc::EIO) => {
                    self.segmentation.store(false, Ordering::Relaxed);
                }
                // Segments longer than the path's MTU: single packets are fragmented, these not.
                Err(_) => {}
            }
        }
        self.refuse(sys::send_each(socket.fd(), to.remote, local, tos, octets.chunks(segment)));
    }

    /// Sends one ESP packet that must not be fragmented, here or on its way.
    ///
    /// # Errors
    /// If the first link does not take it (EMSGSIZE), and whatever else keeps it from being sent.
    pub(super) fn send_probe(&self, to: &Envelope, octets: &[u8]) -> io::Result<()> {
        let is_v4 = to.remote.is_ipv4();
        let (fd, remote) = if to.udp {
            let udp = speaking_from(&self.udp, to.local, is_v4).ok_or(io::ErrorKind::NotFound)?;
            (udp.fd(), to.remote)
        } else {
            let raw = self.esp.iter().find(|raw| raw.is_v4 == is_v4);
            let raw = raw.ok_or(io::ErrorKind::NotFound)?;
            (raw.fd(), SocketAddr::new(to.remote.ip(), 0))
        };
        // For this one packet.
        fragmentation(fd, is_v4, false)?;
        let sent = sys::send(fd, remote, source(to.local.ip()), 0, octets, None);
        fragmentation(fd, is_v4, true)?;
        sent
    }

    /// Sends a whole IP packet to where its header says.
    pub(super) fn pass(&self, packet: &[u8]) {
        match forwarding::ends(packet) {
            Some(flow) => self.send_clear(flow.dst(), packet),
            None => self.refuse(1),
        }
    }

    /// Sends a whole IP packet as it is.
    pub(super) fn send_clear(&self, to: IpAddr, packet: &[u8]) {
        let Some(raw) = self.clear.iter().find(|raw| raw.is_v4 == to.is_ipv4()) else {
            return self.refuse(1);
        };
        let sent =
            retry(raw.fd(), || sys::send(raw.fd(), SocketAddr::new(to, 0), None, 0, packet, None));
        if sent.is_err() {
            self.refuse(1);
        }
    }

    fn refuse(&self, packets: usize) {
        self.refused.fetch_add(packets as u64, Ordering::Relaxed);
    }
}

/// The socket that speaks from `local`, or the one of the same port that speaks from any.
fn speaking_from(sockets: &[Udp], local: SocketAddr, is_v4: bool) -> Option<&Udp> {
    let exact = |udp: &&Udp| udp.address == local;
    let any = |udp: &&Udp| {
        udp.address.ip().is_unspecified()
            && udp.address.is_ipv4() == is_v4
            && udp.address.port() == local.port()
    };
    sockets.iter().find(exact).or_else(|| sockets.iter().find(any))
}

impl Udp {
    fn new(socket: Socket, natt: bool) -> io::Result<Self> {
        let address = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { socket, address, natt })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Another descriptor of it.
    pub(super) fn another(&self) -> io::Result<Socket> {
        self.socket.try_clone()
    }

    /// Where a datagram with this destination address was sent to.
    pub(super) fn local(&self, address: Option<IpAddr>) -> SocketAddr {
        SocketAddr::new(address.unwrap_or_else(|| self.address.ip()), self.address.port())
    }
}

impl Raw {
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A full send buffer is given a moment: dropping here would make TCP halve its window for
/// nothing.
fn retry(socket: BorrowedFd<'_>, send: impl Fn() -> io::Result<()>) -> io::Result<()> {
    match send() {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
            sys::wait_writable(socket, PATIENCE);
            send()
        }
        sent => sent,
    }
}

/// The source address to ask for; nobody is no address.
fn source(address: IpAddr) -> Option<IpAddr> {
    (!address.is_unspecified()).then_some(address)
}

fn udp(address: SocketAddr, mark: u32) -> io::Result<Socket> {
    let socket = unbound(address.is_ipv4(), mark)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// A socket beside `esp` that gets what begins with the non-ESP marker: IKE goes straight to who
/// reads IKE, and a flood of it fills no queue of ESP.
///
/// The first of the two was bound without sharing its port, so that nobody has it but we.
fn marked(esp: &Udp, mark: u32) -> io::Result<Socket> {
    let socket = unbound(esp.address.is_ipv4(), mark)?;
    esp.socket.set_reuse_port(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&esp.address.into())?;
    sys::second_takes_marked(socket.as_fd())?;
    Ok(socket)
}

fn unbound(is_v4: bool, mark: u32) -> io::Result<Socket> {
    let socket = Socket::new(domain(is_v4), Type::DGRAM, Some(Protocol::UDP))?;
    prepare(&socket, is_v4, mark)?;
    let fd = socket.as_fd();
    if is_v4 {
        sys::set_option(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
        sys::set_option(fd, libc::IPPROTO_IP, libc::IP_RECVTOS, 1)?;
    } else {
        socket.set_only_v6(true)?;
        sys::set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
    }
    // Without it every packet is received singly: slower, not wrong (before Linux 5.0). Of two that
    // share a port both want it: any of them is asked before it is known whose the packet is.
    let _ = sys::set_option(fd, libc::SOL_UDP, sys::UDP_GRO, 1);
    Ok(socket)
}

fn raw(is_v4: bool, protocol: i32, mark: u32) -> io::Result<Socket> {
    let socket = Socket::new(domain(is_v4), Type::RAW, Some(Protocol::from(protocol)))?;
    prepare(&socket, is_v4, mark)?;
    if protocol == libc::IPPROTO_RAW {
        if !is_v4 {
            sys::set_option(socket.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_HDRINCL, 1)?;
        }
        // It only sends; what would be queued on it is nobody's.
        socket.set_recv_buffer_size(0)?;
    }
    Ok(socket)
}

/// What all have in common.
fn prepare(socket: &Socket, is_v4: bool, mark: u32) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    socket.set_mark(mark)?;
    let fd = socket.as_fd();
    let buffers =
        [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)];
    for (forced, limited) in buffers {
        // Root of a user namespace may not exceed the machine's limit, and gets as much as that.
        if sys::set_option(fd, libc::SOL_SOCKET, forced, BUFFER).is_err() {
            sys::set_option(fd, libc::SOL_SOCKET, limited, BUFFER)?;
        }
    }
    if !is_v4 {
        sys::set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1)?;
    }
    // The kernel fragments what does not fit. Path MTU discovery is not left to ICMP messages
    // that anybody can forge (RFC 4301 §6.1.1): probes find out.
    fragmentation(fd, is_v4, true)
}

/// Whether what leaves the socket may be fragmented, here and on its way. If not, only the link's
/// own MTU counts, not what the kernel believes of the path.
fn fragmentation(fd: BorrowedFd<'_>, is_v4: bool, allowed: bool) -> io::Result<()> {
    let (level, name, dont, probe) = if is_v4 {
        let (dont, probe) = (libc::IP_PMTUDISC_DONT, libc::IP_PMTUDISC_PROBE);
        (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, dont, probe)
    } else {
        let (dont, probe) = (libc::IPV6_PMTUDISC_DONT, libc::IPV6_PMTUDISC_PROBE);
        (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, dont, probe)
    };
    sys::set_option(fd, level, name, if allowed { dont } else { probe })
}

/// Of ICMP only "destination unreachable", of ICMPv6 only "packet too big".
fn only_too_big(socket: &Socket, is_v4: bool) -> io::Result<()> {
    // A set bit blocks its type (raw(7), RFC 3542 §3.2).
    if is_v4 {
        sys::set_octets(socket.as_fd(), SOL_RAW, ICMP_FILTER, &(!(1u32 << 3)).to_ne_bytes())
    } else {
        let mut blocked = [0xff; 32];
        if let Some(first) = blocked.first_chunk_mut() {
            *first = (!(1u32 << 2)).to_ne_bytes();
        }
        sys::set_octets(socket.as_fd(), libc::IPPROTO_ICMPV6, ICMP_FILTER, &blocked)
    }
}

fn domain(is_v4: bool) -> Domain {
    if is_v4 { Domain::IPV4 } else { Domain::IPV6 }
}

/// Makes "there is no IPv6 here" no error.
fn unless_missing(
    socket: io::Result<Socket>,
    address: IpAddr,
    what: &str,
) -> anyhow::Result<Option<Socket>> {
    match socket {
        Ok(socket) => Ok(Some(socket)),
        Err(e) if address.is_ipv6() && e.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
            tracing::debug!("this kernel has no IPv6");
            Ok(None)
        }
        Err(e)
            if address == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
                && e.raw_os_error() == Some(libc::EADDRNOTAVAIL) =>
        {
            tracing::debug!("IPv6 is switched off here");
            Ok(None)
        }
        Err(e) => {
            let remedy = match e.kind() {
                io::ErrorKind::PermissionDenied => ": this needs root",
                io::ErrorKind::AddrInUse => ": is another IKE daemon running?",
                _ => "",
            };
            Err(e).with_context(|| format!("node.listen: cannot open {what}{remedy}"))
        }
    }
}

/// linux/icmp.h and linux/icmpv6.h; libc has them for some targets only.
const SOL_RAW: i32 = 255;
const ICMP_FILTER: i32 = 1;
/// IP protocol 50.
const ESP: i32 = 50;
/// Octets of socket buffers: some 60 ms of 1 Gbit/s, for the times when the thread does not run.
const BUFFER: i32 = 8 << 20;
/// How long a full send buffer is waited for.
const PATIENCE: Duration = Duration::from_millis(5);
