//! Netlink: one request and its answer, or a stream of events.
//!
//! The kernel answers a request before `send` returns, so asking is a plain function call; only
//! events are waited for.

use std::io;
use std::marker::PhantomData;
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{AsyncSocket, AsyncSocketExt, Socket, SocketAddr, TokioSocket};
use socket2::SockFilter;
use zeroize::Zeroizing;

use crate::userspace::bpf::{JUMP_IF_EQUAL, LOAD_WORD, RETURN};

/// The kernel answers at once; what takes longer is lost, and must not hang the daemon.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Room for events: a route flap on a large router must not lose them, and if it does, everything
/// is read anew.
const EVENT_BUFFER: usize = 1 << 20;

/// Room for an acknowledgement, also of a kernel that repeats the request in it.
const ACKNOWLEDGEMENT: usize = 4096;

/// Octets of `struct nlmsghdr`.
const HEADER: usize = 16;

/// `nlmsg_pid` in it.
const PORT_AT: u32 = 12;

/// The first message type that belongs to a family.
const NLMSG_MIN_TYPE: u16 = 0x10;

/// A family's messages. Its decoder may count on a payload being as long as its fixed part, so
/// that is looked at before.
pub(super) trait Family: NetlinkSerializable + NetlinkDeserializable {
    /// Whether a message of this type, with this much payload, is to be decoded.
    fn is_whole(kind: u16, payload: usize) -> bool;

    /// Wipes the keys in it: once it is sent, or read, nobody needs them here.
    fn wipe(&mut self);
}

impl Family for RouteNetlinkMessage {
    fn is_whole(_: u16, _: usize) -> bool {
        true
    }

    fn wipe(&mut self) {}
}

/// A socket for requests of one netlink family.
pub(super) struct Netlink<T> {
    socket: Socket,
    /// Our end's number, which the kernel names in what it tells others of our deeds.
    port: u32,
    sequence: u32,
    messages: PhantomData<fn(T)>,
}

impl<T: Family> Netlink<T> {
    /// Opens a socket of this family (`NETLINK_ROUTE`, `NETLINK_XFRM`).
    pub(super) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        let port = socket.bind_auto()?.port_number();
        socket.connect(&SocketAddr::new(0, 0))?;
        socket2::SockRef::from(&socket).set_read_timeout(Some(ANSWER_TIMEOUT))?;
        // Keeps errors from repeating the request, and the keys in it.
        let _ = socket.set_cap_ack(true);
        // Lets dumps be narrowed by the kernel; older ones send everything, and we look ourselves.
        let _ = socket.set_netlink_get_strict_chk(true);
        Ok(Self { socket, port, sequence: 0, messages: PhantomData })
    }

    /// Waits no longer for an answer than this.
    pub(super) fn wait_at_most(&self, time: Duration) -> io::Result<()> {
        socket2::SockRef::from(&self.socket).set_read_timeout(Some(time))
    }

    /// What [`Told::by`] says of what was done through this socket.
    pub(super) fn port(&self) -> u32 {
        self.port
    }

    /// Asks the kernel to do something, and waits until it has.
    pub(super) fn command(&mut self, message: T, flags: u16) -> io::Result<()> {
        let sequence = self.send(message, flags | NLM_F_ACK)?;
        // What comes is an acknowledgement: no need to look first how long it is.
        let mut octets = Vec::with_capacity(ACKNOWLEDGEMENT);
        loop {
            octets.clear();
            let (_, from) = self.socket.recv_from(&mut octets, 0)?;
            if from.port_number() != 0 {
                continue;
            }
            for message in messages::<T>(&octets).flatten() {
                match message.payload {
                    _ if message.header.sequence_number != sequence => {}
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(error.to_io());
                    }
                    NetlinkPayload::Error(_) => return Ok(()),
                    _ => {}
                }
            }
        }
    }

    /// Asks for one object.
    pub(super) fn get(&mut self, message: T) -> io::Result<Option<T>> {
        Ok(self.exchange(message, NLM_F_ACK)?.into_iter().next())
    }

    /// Asks for all objects of a kind.
    pub(super) fn dump(&mut self, message: T) -> io::Result<Vec<T>> {
        self.exchange(message, NLM_F_DUMP)
    }

    /// Sends a request; gives its sequence number.
    fn send(&mut self, message: T, flags: u16) -> io::Result<u32> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut octets = Zeroizing::new(vec![0; message.buffer_len()]);
        message.serialize(&mut octets);
        if let NetlinkPayload::InnerMessage(message) = &mut message.payload {
            message.wipe();
        }
        self.socket.send(&octets, 0)?;
        Ok(self.sequence)
    }

    fn exchange(&mut self, message: T, flags: u16) -> io::Result<Vec<T>> {
        let sequence = self.send(message, flags)?;
        let mut received = Vec::new();
        loop {
            let (datagram, from) = self.socket.recv_from_full()?;
            let datagram = Zeroizing::new(datagram);
            if from.port_number() != 0 {
                continue;
            }
            for message in messages::<T>(&datagram) {
                let Some(NetlinkMessage { header, payload, .. }) = message else { continue };
                if header.sequence_number != sequence {
                    continue;
                }
                match payload {
                    NetlinkPayload::InnerMessage(mut message) => {
                        message.wipe();
                        received.push(message);
                    }
                    NetlinkPayload::Done(_) => return Ok(received),
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(error.to_io());
                    }
                    NetlinkPayload::Error(_) => return Ok(received),
                    _ => {}
                }
            }
        }
    }
}

/// The messages of a datagram; `None` stands for one that cannot be read.
fn messages<T: Family>(datagram: &[u8]) -> impl Iterator<Item = Option<NetlinkMessage<T>>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*rest.first_chunk()?);
        let length = usize::try_from(length).ok()?;
        if length < HEADER {
            return None;
        }
        let message = rest.get(..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        let kind = u16::from_ne_bytes(*message.get(4..)?.first_chunk()?);
        // Below are the messages of netlink itself (errors, ends of dumps).
        let whole = kind < NLMSG_MIN_TYPE || T::is_whole(kind, length - HEADER);
        Some(whole.then(|| NetlinkMessage::deserialize(message).ok()).flatten())
    })
}

/// An event.
pub(super) struct Told<T> {
    /// The port of the socket through which it was asked for; 0 is the kernel itself.
    pub(super) by: u32,
    /// What is so now.
    pub(super) what: T,
}

/// A socket that hears the kernel's events of one netlink family.
pub(super) struct Events<T> {
    socket: TokioSocket,
    messages: PhantomData<fn(T)>,
}

impl<T: Family> Events<T> {
    /// Joins these multicast groups. Must be called inside a runtime.
    pub(super) fn join(protocol: isize, groups: &[u32]) -> io::Result<Self> {
        let mut events = Self { socket: TokioSocket::new(protocol)?, messages: PhantomData };
        let socket = events.socket.socket_mut();
        socket.bind_auto()?;
        // More than the limit of ordinary users needs CAP_NET_ADMIN, which the daemon has; without
        // it the default must do.
        let _ = socket.set_rx_buf_sz(EVENT_BUFFER);
        for group in groups {
            socket.add_membership(*group)?;
        }
        Ok(events)
    }

    /// From now on the kernel keeps back the events of what was changed from these ports: nobody is
    /// woken for them.
    ///
    /// # Errors
    /// If it does not take the filter; everything comes then.
    pub(super) fn leave_out(&self, ports: &[u32]) -> io::Result<()> {
        // Classic BPF: the load is in the network's order, the field in this machine's.
        let load = SockFilter::new(LOAD_WORD, 0, 0, PORT_AT);
        let mut filter = vec![load];
        for (left, port) in (0..ports.len()).rev().zip(ports) {
            let drop = u8::try_from(left + 1).map_err(io::Error::other)?;
            filter.push(SockFilter::new(JUMP_IF_EQUAL, drop, 0, u32::from_be(*port)));
        }
        filter.push(SockFilter::new(RETURN, 0, 0, u32::MAX));
        filter.push(SockFilter::new(RETURN, 0, 0, 0));
        socket2::SockRef::from(self.socket.socket_ref()).attach_filter(&filter)
    }

    /// Waits for the next events; `None` stands for "some were lost".
    ///
    /// Cancel-safe: what was not returned is still in the socket.
    pub(super) async fn next(&mut self) -> io::Result<Option<Vec<Told<T>>>> {
        loop {
            match self.socket.recv_from_full().await {
                // Only the kernel speaks for the kernel.
                Ok((_, from)) if from.port_number() != 0 => {}
                Ok((datagram, _)) => return Ok(Some(inner(&datagram))),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The events that are already there.
    pub(super) fn pending(&self) -> Option<Vec<Told<T>>> {
        let mut all = Vec::new();
        while let Ok((datagram, from)) = self.socket.socket_ref().recv_from_full() {
            if from.port_number() == 0 {
                all.extend(inner(&datagram));
            }
        }
        (!all.is_empty()).then_some(all)
    }
}

fn inner<T: Family>(datagram: &[u8]) -> Vec<Told<T>> {
    messages::<T>(datagram)
        .flatten()
        .filter_map(|message| match message.payload {
            NetlinkPayload::InnerMessage(what) => {
                Some(Told { by: message.header.port_number, what })
            }
            _ => None,
        })
        .collect()
}
