//! The packet thread: waits for the device, the sockets and commands, and carries octets between
//! them and [`Forwarding`]. It decides nothing.

use std::cell::Cell;
use std::io::{ErrorKind, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc as sync_mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use forwarding::{Batch, Delivery, Forwarding, Offload, Outer, Output, Provider, To, Write};
use sa::{Command, Notice, Policy};
use tokio::sync::mpsc;

use super::acquires::{self, Acquires};
use super::gather::Gathering;
use super::lanes::{self, Lanes};
use super::sockets::{Sockets, Wanted};
use super::sys::{self, Epoll, Wake};
use super::tun::Tun;

/// What to open.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Name of the device.
    pub(crate) interface: String,
    /// SO_MARK of every socket, which routing exempts from the device.
    pub(crate) mark: u32,
    /// Addresses to listen on; empty for all.
    pub(crate) listen: Vec<IpAddr>,
    /// IKE (RFC 7296 §2): 500.
    pub(crate) ike_port: u16,
    /// IKE and ESP in UDP (RFC 3948): 4500.
    pub(crate) natt_port: u16,
    /// Randomness for the hash tables.
    pub(crate) seed: [u8; 32],
    /// The plane's own.
    pub(crate) forwarding: forwarding::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            interface: "ipsec0".into(),
            mark: 0,
            listen: Vec::new(),
            ike_port: 500,
            natt_port: 4500,
            seed: [0; 32],
            forwarding: forwarding::Config::default(),
        }
    }
}

/// A running plane. When it is dropped the thread ends and the device disappears.
pub(crate) struct Plane {
    /// What the plane has to say, in order. Ends when the thread does.
    pub(crate) notices: mpsc::Receiver<Notice>,
    /// Flows without policy.
    pub(crate) acquires: Acquires,
    /// IKE datagrams, without the non-ESP marker.
    pub(crate) datagrams: Lanes,
    /// Who does the cryptography.
    pub(crate) provider: Provider,
    thread: Thread,
    /// An order was given that the thread is to be woken for.
    urgent: Cell<bool>,
    /// When the thread is to have seen the orders that could wait.
    seen_by: Cell<Option<Instant>>,
}

/// A snapshot of what was counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Counters {
    /// Of the forwarding plane.
    pub(crate) forwarding: forwarding::Counters,
    /// Packets that a socket refused to send.
    pub(crate) send_refused: u64,
    /// Packets that the device refused to take.
    pub(crate) device_refused: u64,
    /// Reads of the device whose header made no sense.
    pub(crate) device_malformed: u64,
    /// Notices and IKE datagrams lost because the control plane was behind.
    pub(crate) control_behind: u64,
}

/// Opens the device and the sockets and starts the thread.
///
/// # Errors
/// Without the privileges (CAP_NET_ADMIN, CAP_NET_RAW), or if a port or the name is taken.
pub(crate) fn start(config: Config) -> anyhow::Result<Plane> {
    let sockets = Sockets::open(&Wanted {
        mark: config.mark,
        listen: &config.listen,
        ike_port: config.ike_port,
        natt_port: config.natt_port,
    })?;
    let ipv6 = sockets.udp().iter().any(|udp| udp.local(None).is_ipv6());
    let mtu = forwarding::device_mtu(config.forwarding.link_mtu, ipv6);
    let tun = Tun::create(&config.interface, mtu)?;
    let sockets = Arc::new(sockets);
    let wake = Arc::new(Wake::new()?);
    let epoll = Epoll::new()?;
    epoll.add(wake.fd(), WAKE)?;
    epoll.add(tun.fd(), DEVICE)?;
    for (number, udp) in (UDP..).zip(sockets.udp()) {
        epoll.add(udp.fd(), number)?;
    }
    for (number, raw) in (ESP..).zip(sockets.esp()) {
        epoll.add(raw.fd(), number)?;
    }
    for (number, raw) in (ICMP..).zip(sockets.icmp()) {
        epoll.add(raw.fd(), number)?;
    }

    let room = sys::ORDINARY_PACKET.max(usize::from(config.forwarding.link_mtu) + 64);
    let (commands, orders) = sync_mpsc::channel();
    let (notices_in, notices) = mpsc::channel(NOTICES);
    let (acquires_in, acquires) = acquires::acquires();
    let (datagrams_in, datagrams) = lanes::lanes();
    let counters = Arc::new(Mutex::new(Counters::default()));
    let worker = Worker {
        forwarding: Forwarding::new(config.forwarding, config.seed, Instant::now()),
        batch: Batch::new(),
        delivery: Delivery::new(tun.has_udp_offload()),
        buffer: vec![0; DEVICE_READ],
        arena: vec![0; sys::room_for_each(room)],
        room,
        gathering: Gathering::new(Instant::now()),
        tun,
        sockets: Arc::clone(&sockets),
        epoll,
        wake: Arc::clone(&wake),
        orders,
        stopped: false,
        notices: notices_in,
        acquires: acquires_in,
        datagrams: datagrams_in,
        counted: Counters::default(),
        counters: Arc::clone(&counters),
    };
    let join = std::thread::Builder::new()
        .name("forwarding".into())
        .spawn(|| worker.run())
        .context("cannot start the packet thread")?;
    let provider = config.forwarding.provider;
    let ordered = AtomicBool::new(false);
    let thread = Thread { commands, wake, ordered, sockets, counters, join: Some(join) };
    let (urgent, seen_by) = (Cell::new(false), Cell::new(None));
    Ok(Plane { notices, acquires, datagrams, provider, thread, urgent, seen_by })
}

impl Plane {
    /// Gives an order; orders are obeyed in sequence, before what comes in after them is looked at.
    /// A thread that sleeps is not woken for it until [`Self::wake`].
    pub(crate) fn command(&self, command: Command) {
        let waits = can_wait(&command);
        self.thread.order(Order::Obey(command));
        if waits {
            if self.seen_by.get().is_none() {
                self.seen_by.set(Some(Instant::now() + PATIENCE));
            }
        } else {
            self.urgent.set(true);
        }
    }

    /// Wakes the thread, if there are orders that change something for packets it holds.
    pub(crate) fn wake(&self) {
        if self.urgent.get() {
            self.wake_at_once();
        }
    }

    /// Wakes the thread, if there are orders that it may not have seen.
    pub(crate) fn wake_at_once(&self) {
        self.urgent.set(false);
        self.seen_by.set(None);
        self.thread.wake();
    }

    /// When [`Self::wake_at_once`] is due for the orders that could wait.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.seen_by.get()
    }

    /// Sends an IKE message from `local` (the port chooses the socket; an unspecified address
    /// leaves the choice to the kernel), with the non-ESP marker if asked (RFC 3948 §2.2).
    pub(crate) fn transmit(
        &self,
        local: SocketAddr,
        remote: SocketAddr,
        marker: bool,
        octets: &[u8],
    ) {
        if marker {
            let marked = [&MARKER[..], octets].concat();
            self.thread.sockets.transmit(local, remote, &marked);
        } else {
            self.thread.sockets.transmit(local, remote, octets);
        }
    }

    /// What was counted until the thread last went to sleep.
    pub(crate) fn counters(&self) -> Counters {
        *self.thread.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the thread and waits for it; the device is gone afterwards.
    pub(crate) fn stop(self) {
        drop(self);
    }
}

/// Whether it is enough that an order is obeyed before the next packet is looked at: it says what
/// becomes of packets to come and releases none. What is left of the others is done soon, too: keys
/// of pairs that are gone are not to lie about.
fn can_wait(command: &Command) -> bool {
    match command {
        Command::AddSa(_) | Command::MoveSa { .. } | Command::RemoveSa(_) | Command::AskUse(_) => {
            true
        }
        Command::SetPolicy { policy, .. } | Command::SetSubnets { policy, .. } => {
            *policy == Policy::Hold
        }
        Command::ClearPolicy { .. } | Command::ClearSubnets { .. } => true,
        _ => false,
    }
}

/// The thread as its owner sees it.
struct Thread {
    commands: sync_mpsc::Sender<Order>,
    wake: Arc<Wake>,
    /// Whether there were orders since it was last woken.
    ordered: AtomicBool,
    sockets: Arc<Sockets>,
    counters: Arc<Mutex<Counters>>,
    join: Option<JoinHandle<()>>,
}

enum Order {
    Obey(Command),
    Stop,
}

impl Thread {
    fn order(&self, order: Order) {
        // A thread that is gone has closed `notices` as well, which is where it is noticed.
        if self.commands.send(order).is_ok() {
            self.ordered.store(true, Ordering::Release);
        }
    }

    fn wake(&self) {
        if self.ordered.swap(false, Ordering::AcqRel) {
            self.wake.wake();
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.order(Order::Stop);
        self.wake();
        if let Some(join) = self.join.take()
            && join.join().is_err()
        {
            tracing::error!("the packet thread panicked");
        }
    }
}

/// The thread itself.
struct Worker {
    forwarding: Forwarding,
    batch: Batch,
    delivery: Delivery,
    /// One read of the device.
    buffer: Vec<u8>,
    /// One receive of a socket: packets are opened where they arrive.
    arena: Vec<u8>,
    /// Of the arena, for each ordinary packet without UDP.
    room: usize,
    /// Of packets without UDP.
    gathering: Gathering,
    tun: Tun,
    sockets: Arc<Sockets>,
    epoll: Epoll,
    wake: Arc<Wake>,
    orders: sync_mpsc::Receiver<Order>,
    /// Whether it was ordered to stop.
    stopped: bool,
    notices: mpsc::Sender<Notice>,
    acquires: acquires::Entry,
    datagrams: lanes::Entry,
    counted: Counters,
    counters: Arc<Mutex<Counters>>,
}

impl Worker {
    fn run(mut self) {
        loop {
            let limit = self
                .forwarding
                .poll_timeout()
                .map(|(at, _)| at.saturating_duration_since(Instant::now()));
            for number in self.epoll.wait(limit) {
                match number {
                    WAKE => {
                        self.wake.clear();
                        self.obey();
                    }
                    DEVICE => {
                        if let Err(error) = self.read_device() {
                            tracing::error!("the device is lost: {error}");
                            return;
                        }
                    }
                    number if number >= ICMP => self.receive_icmp(number - ICMP),
                    number if number >= ESP => self.receive_esp(number - ESP),
                    number => self.receive_udp(number - UDP),
                }
                self.drain();
                if self.stopped {
                    return;
                }
            }
            self.forwarding.handle_timeout(Instant::now());
            self.drain();
            self.publish();
        }
    }

    /// Carries out what was ordered. Also after each receive, before what was received is looked
    /// at: the order that adds a pair came before the message that lets the peer use it, and so
    /// before all that the peer sends on it; the order that says what becomes of a prefix came
    /// before the route that leads its packets to the device.
    fn obey(&mut self) {
        while !self.stopped {
            match self.orders.try_recv() {
                Ok(Order::Obey(command)) => {
                    self.forwarding.handle_command(Instant::now(), command);
                    // What was released must leave before the next order changes anything.
                    self.drain();
                }
                Ok(Order::Stop) | Err(sync_mpsc::TryRecvError::Disconnected) => self.stopped = true,
                Err(sync_mpsc::TryRecvError::Empty) => return,
            }
        }
    }

    /// Reads the device until it is empty or the batch is full, then sends: one wake-up carries as
    /// much as has gathered.
    ///
    /// # Errors
    /// When somebody has deleted the device: nothing can be protected any more, and the daemon's
    /// owner must know.
    fn read_device(&mut self) -> std::io::Result<()> {
        let now = Instant::now();
        while !self.batch.is_full() {
            let len = match self.tun.read(&mut self.buffer) {
                Ok(len) => len,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            };
            self.obey();
            let header = self.buffer.get_mut(..len).and_then(<[u8]>::split_first_chunk_mut);
            let Some((header, packet)) = header else { break };
            match Offload::parse(*header) {
                Some(offload) => {
                    self.forwarding.outgoing(now, &offload, packet, &mut self.batch);
                }
                None => self.counted.device_malformed += 1,
            }
        }
        self.flush();
        Ok(())
    }

    fn flush(&mut self) {
        for send in self.batch.sends() {
            let octets = self.batch.octets(send);
            match send.to {
                To::Peer(envelope) => {
                    self.sockets.send_esp(&envelope, send.tos, octets, send.segment);
                }
                To::Clear(to) => self.sockets.send_clear(to, octets),
                To::Device => {
                    let header = Offload::NONE.to_octets();
                    let slices = [IoSlice::new(&header), IoSlice::new(octets)];
                    if self.tun.write(&slices).is_err() {
                        self.counted.device_refused += 1;
                    }
                }
            }
        }
        self.batch.clear();
    }

    /// Receives from a UDP socket: IKE goes up, ESP is opened and written to the device at once,
    /// while it is warm.
    fn receive_udp(&mut self, index: u64) {
        let sockets = Arc::clone(&self.sockets);
        let Some(socket) = usize::try_from(index).ok().and_then(|i| sockets.udp().get(i)) else {
            return;
        };
        for _ in 0..ROUNDS {
            let Ok(received) = sys::receive(socket.fd(), &mut self.arena) else { break };
            self.obey();
            let now = Instant::now();
            // Seldom is there a second message where one of IKE's was.
            let mut more = false;
            let local = socket.local(received.local);
            let outer = Outer { remote: received.remote, tos: received.tos, udp: true };
            let stride = received.stride.max(1);
            for at in (0..received.len).step_by(stride) {
                let range = at..received.len.min(at + stride);
                let datagram = self.arena.get(range.clone()).unwrap_or_default();
                match datagram {
                    _ if !socket.natt => self.ike(local, received.remote, range),
                    [0, 0, 0, 0, ..] => {
                        self.ike(local, received.remote, range.start + MARKER.len()..range.end);
                    }
                    // Too short for an SPI: a NAT keepalive (RFC 3948 §2.3), or nothing.
                    [] | [_] | [_, _] | [_, _, _] => {}
                    _ => {
                        more = true;
                        self.forwarding.incoming(
                            now,
                            &outer,
                            &mut self.arena,
                            range,
                            &mut self.delivery,
                        );
                    }
                }
            }
            self.deliver();
            if !more {
                break;
            }
        }
    }

    /// Receives ESP without UDP.
    fn receive_esp(&mut self, index: u64) {
        let sockets = Arc::clone(&self.sockets);
        let Some(socket) = usize::try_from(index).ok().and_then(|i| sockets.esp().get(i)) else {
            return;
        };
        if let Some(moment) = self.gathering.wait(Instant::now()) {
            std::thread::sleep(moment);
        }
        for _ in 0..ROUNDS {
            let mut packets = [None; sys::BATCH];
            let received = sys::receive_each(socket.fd(), &mut self.arena, self.room, &mut packets);
            let Ok(count) = received else { break };
            self.gathering.received(count);
            self.obey();
            let now = Instant::now();
            for (start, received) in packets.into_iter().flatten() {
                let end = start + received.len;
                // An IPv4 raw socket shows the outer header, an IPv6 one does not (raw(7)).
                let (header, tos) = match self.arena.get(start..end) {
                    Some([first, tos, ..]) if socket.is_v4 => (usize::from(first & 0x0f) * 4, *tos),
                    _ => (0, received.tos),
                };
                let outer = Outer { remote: received.remote, tos, udp: false };
                let range = end.min(start + header)..end;
                self.forwarding.incoming(now, &outer, &mut self.arena, range, &mut self.delivery);
            }
            self.deliver();
            if count < sys::BATCH {
                break;
            }
        }
    }

    /// Receives what the way says of packets of ours.
    fn receive_icmp(&mut self, index: u64) {
        let sockets = Arc::clone(&self.sockets);
        let Some(socket) = usize::try_from(index).ok().and_then(|i| sockets.icmp().get(i)) else {
            return;
        };
        for _ in 0..ROUNDS {
            let Ok(received) = sys::receive(socket.fd(), &mut self.arena) else { break };
            let message = self.arena.get(..received.len).unwrap_or_default();
            // An IPv4 raw socket shows the header, an IPv6 one does not (raw(7)).
            let header = match message.first() {
                Some(first) if socket.is_v4 => usize::from(first & 0x0f) * 4,
                _ => 0,
            };
            let message = message.get(header..).unwrap_or_default();
            self.forwarding.icmp(Instant::now(), socket.is_v4, message);
        }
    }

    /// Writes what was opened to the device.
    fn deliver(&mut self) {
        self.delivery.finish(&mut self.arena);
        for write in self.delivery.writes() {
            if write_packet(&self.tun, &self.arena, write).is_err() {
                self.counted.device_refused += 1;
            }
        }
        self.delivery.clear();
    }

    fn ike(&mut self, local: SocketAddr, remote: SocketAddr, range: Range<usize>) {
        let message = self.arena.get(range).unwrap_or_default();
        if !self.datagrams.put((local, remote, message.to_vec())) {
            self.counted.control_behind += 1;
        }
    }

    /// Does what the plane says, in its order.
    fn drain(&mut self) {
        while let Some(output) = self.forwarding.poll_output() {
            match output {
                Output::Notice(notice @ Notice::Acquire { flow, .. }) => {
                    if !self.acquires.put(flow, notice) {
                        self.counted.control_behind += 1;
                        // Its next packet asks again.
                        let forget = Command::ClearPolicy { flow };
                        self.forwarding.handle_command(Instant::now(), forget);
                    }
                }
                Output::Notice(notice) => {
                    if self.notices.try_send(notice).is_err() {
                        self.counted.control_behind += 1;
                    }
                }
                Output::Sealed { envelope, tos, octets } => {
                    self.sockets.send_esp(&envelope, tos, &octets, octets.len());
                }
                Output::Clear { to, octets } => self.sockets.send_clear(to, &octets),
                Output::Probe { sa, envelope, octets } => {
                    let sent = self.sockets.send_probe(&envelope, &octets);
                    if sent.is_err_and(|e| e.raw_os_error() == Some(libc::EMSGSIZE)) {
                        self.forwarding.probe_refused(sa);
                    }
                }
                Output::Trace(trace) => tracing::debug!(?trace, "data plane"),
            }
        }
    }

    fn publish(&mut self) {
        self.counted.forwarding = self.forwarding.counters();
        self.counted.send_refused = self.sockets.refused();
        *self.counters.lock().unwrap_or_else(PoisonError::into_inner) = self.counted;
    }
}

/// One write: header and pieces as they lie.
fn write_packet(tun: &Tun, arena: &[u8], write: Write<'_>) -> std::io::Result<usize> {
    let header = write.offload.to_octets();
    let mut slices = [IoSlice::new(&[]); 2 + Write::MAX_PIECES];
    let mut count = 0;
    let heads = [&header[..], write.head].into_iter().filter(|head| !head.is_empty());
    let pieces = write.map(|range| arena.get(range).unwrap_or_default());
    for (slice, octets) in slices.iter_mut().zip(heads.chain(pieces)) {
        *slice = IoSlice::new(octets);
        count += 1;
    }
    tun.write(slices.get(..count).unwrap_or_default())
}

/// RFC 3948 §2.2: what is in front of IKE on the port of ESP.
const MARKER: [u8; 4] = [0; 4];
/// The largest read of the device: header and super-packet.
const DEVICE_READ: usize = 10 + 65_536;
/// Receives from one socket before the others get their turn: 16 times 64 kB.
const ROUNDS: usize = 16;
/// How long orders that can wait do so at most: keys of pairs that are gone are wiped then.
const PATIENCE: Duration = Duration::from_millis(500);
/// Notices that may wait for the control plane, which is asked again about what is lost.
const NOTICES: usize = 4096;
/// Numbers of descriptors.
const WAKE: u64 = 0;
const DEVICE: u64 = 1;
const UDP: u64 = 1 << 8;
const ESP: u64 = 1 << 16;
const ICMP: u64 = 1 << 17;
