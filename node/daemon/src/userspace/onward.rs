//! The way by which the kernel gets super-packets that pass: as if they came in by the loopback
//! device, with our mark. It forwards them whole, and counts a hop; its rules, routes and policies
//! know them by the mark as they know what our raw sockets send.
//!
//! A raw socket takes nothing larger than a link's MTU, and costs the kernel as much for each
//! packet as this does for forty. A packet socket on the device that they leave by would go past
//! routes, neighbours and filters; what is written to our own device comes in by it like what was
//! opened, and has no mark.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use forwarding::Offload;
use sa::Flow;
use socket2::{Domain, Socket, Type};

use super::sys;

/// Says whether the kernel forwards what comes in by a device, marked, from one end to another.
pub(crate) type Leads = Box<dyn FnMut(&Flow) -> bool + Send>;

/// Makes one: of the device that packets come in by, ours, by which none is to leave, and the mark.
/// It gives the first one's number, too.
pub(crate) type Ways = fn(&str, &str, u32) -> io::Result<(u32, Leads)>;

/// Where nobody can say.
pub(crate) fn no_ways(_: &str, _: &str, _: u32) -> io::Result<(u32, Leads)> {
    Err(io::ErrorKind::Unsupported.into())
}

/// A packet socket on the loopback device, and what the kernel is known to do with what it sends.
pub(super) struct Onward {
    socket: Socket,
    leads: Leads,
    /// Whether the kernel forwards what goes this way between two ends.
    known: HashMap<Flow, bool>,
    /// Since when it is known.
    since: Instant,
}

impl Onward {
    /// Opens it; `device` is ours, where nothing is to come back to.
    ///
    /// # Errors
    /// Without CAP_NET_RAW, or where a service's file does not allow packet sockets. Slower without,
    /// not wrong.
    pub(super) fn open(ways: Ways, device: &str, mark: u32) -> io::Result<Self> {
        let (loopback, leads) = ways(LOOPBACK, device, mark)?;
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
        socket.set_nonblocking(true)?;
        socket.set_mark(mark)?;
        let fd = socket.as_fd();
        if sys::set_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, BUFFER).is_err() {
            sys::set_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, BUFFER)?;
        }
        sys::set_option(fd, libc::SOL_PACKET, PACKET_VNET_HDR, 1)?;
        sys::send_by(fd, loopback)?;
        let known = HashMap::with_capacity(ENDS);
        Ok(Self { socket, leads, known, since: Instant::now() })
    }

    /// Hands a super-packet on. False if the kernel would not forward it: it has not gone then.
    pub(super) fn send(&mut self, now: Instant, offload: &Offload, packet: &[u8]) -> bool {
        if now.saturating_duration_since(self.since) >= FRESH {
            self.known.clear();
            self.since = now;
        }
        let Some(flow) = forwarding::ends(packet) else { return false };
        let leads = match self.known.get(&flow) {
            Some(leads) => *leads,
            None if self.known.len() >= ENDS => return false,
            None => {
                let leads = (self.leads)(&flow);
                self.known.insert(flow, leads);
                leads
            }
        };
        let Some(onward) = forwarding::Onward::of(offload, packet).filter(|_| leads) else {
            return false;
        };
        let pieces = [IoSlice::new(onward.head()), IoSlice::new(packet)];
        self.socket.send_vectored(&pieces).is_ok()
    }
}

/// What they come in by.
const LOOPBACK: &str = "lo";
/// linux/if_packet.h; libc has it for some targets only.
const PACKET_VNET_HDR: i32 = 15;
/// Octets of the socket's buffer; what it takes is gone as soon as the call returns.
const BUFFER: i32 = 1 << 20;
/// How long what the kernel said counts: routes, filters and addresses change.
const FRESH: Duration = Duration::from_secs(1);
/// Pairs of ends that are asked about in that time, ten microseconds each; beyond that they are cut.
const ENDS: usize = 1024;
