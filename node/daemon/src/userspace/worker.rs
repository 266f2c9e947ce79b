//! The packet thread: waits for the device, the sockets and orders, and carries octets between them
//! and [`Forwarding`]. It decides nothing.

use std::io::{ErrorKind, IoSlice};
use std::sync::{Arc, Mutex, PoisonError, mpsc as sync_mpsc};
use std::time::{Duration, Instant};

use forwarding::{Batch, Delivery, Forwarding, Offload, Outer, Output, To, Write};
use sa::{Command, Notice, SaId};
use tokio::sync::mpsc;

use super::gather::Gathering;
use super::later::Later;
use super::natt::Natt;
use super::onward::Onward;
use super::plane::Counters;
use super::rest::Rest;
use super::sockets::Sockets;
use super::strays::Stray;
use super::sys::{self, Epoll, Wake};
use super::tun::Tun;
use super::{acquires, lanes};

/// What the thread is told.
pub(super) enum Order {
    Obey(Command),
    Stop,
}

/// All that the thread waits for.
pub(super) fn descriptors(wake: &Wake, tun: &Tun, sockets: &Sockets) -> std::io::Result<Epoll> {
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
    Ok(epoll)
}

/// What the thread works with.
pub(super) struct Worker {
    pub(super) forwarding: Forwarding,
    pub(super) batch: Batch,
    pub(super) delivery: Delivery,
    /// One read of the device.
    pub(super) buffer: Vec<u8>,
    /// One receive of a socket: packets are opened where they arrive.
    pub(super) arena: Vec<u8>,
    /// Of the arena, for each ordinary packet without UDP.
    pub(super) room: usize,
    /// Of packets without UDP.
    pub(super) gathering: Gathering,
    pub(super) tun: Tun,
    pub(super) sockets: Arc<Sockets>,
    /// How super-packets that pass go on, if they can.
    pub(super) onward: Option<Onward>,
    pub(super) epoll: Epoll,
    pub(super) wake: Arc<Wake>,
    pub(super) rest: Arc<Rest>,
    pub(super) orders: sync_mpsc::Receiver<Order>,
    /// ESP that came to IKE's sockets.
    pub(super) strays: sync_mpsc::Receiver<Stray>,
    /// Pairs to be removed when the sockets have been looked at once more: IKE has a socket of its
    /// own, and what the peer sent on a pair before it said that the pair is gone may still be in
    /// another.
    pub(super) leaving: Vec<SaId>,
    /// Whether it was ordered to stop.
    pub(super) stopped: bool,
    pub(super) notices: mpsc::Sender<Notice>,
    /// Answers to questions.
    pub(super) uses: mpsc::UnboundedSender<Notice>,
    /// Notices that nobody waits for.
    pub(super) later: Later,
    pub(super) acquires: acquires::Entry,
    pub(super) datagrams: lanes::Entry,
    pub(super) counted: Counters,
    pub(super) counters: Arc<Mutex<Counters>>,
}

impl Worker {
    pub(super) fn run(mut self) {
        loop {
            self.prepare_to_rest();
            if self.stopped {
                return;
            }
            let holding = self.forwarding.poll_timeout().map(|(at, _)| at);
            let limit = [holding, self.later.due()].into_iter().flatten().min();
            let limit = limit.map(|at| at.saturating_duration_since(Instant::now()));
            let limit = if self.leaving.is_empty() { limit } else { Some(Duration::ZERO) };
            let numbers = self.epoll.wait(limit);
            self.rest.awake();
            let leaving = std::mem::take(&mut self.leaving);
            for number in numbers {
                match number {
                    WAKE => {
                        self.wake.clear();
                        self.obey();
                        self.receive_strays();
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
            let now = Instant::now();
            for sa in leaving {
                self.forwarding.handle_command(now, Command::RemoveSa(sa));
            }
            self.forwarding.handle_timeout(now);
            self.drain();
            // What came in may be what packets that are held since then wait for.
            let told = if self.is_holding() { self.later.take() } else { self.later.take_due(now) };
            for notice in told {
                self.notify(notice);
            }
            self.publish();
        }
    }

    /// Says that we sleep, and then looks once more for orders: whoever gave one before that has not
    /// woken us, and whoever gives one after it knows that it must.
    fn prepare_to_rest(&mut self) {
        loop {
            self.rest.rest(self.is_holding());
            if !self.obey() {
                return;
            }
        }
    }

    /// Carries out what was ordered. Also after each receive, before what was received is looked
    /// at: the order that adds a pair came before the message that lets the peer use it, and so
    /// before all that the peer sends on it; the order that says what becomes of a prefix came
    /// before the route that leads its packets to the device.
    /// Whether there was anything.
    fn obey(&mut self) -> bool {
        let mut any = false;
        while !self.stopped {
            match self.orders.try_recv() {
                Ok(Order::Obey(Command::RemoveSa(sa))) => {
                    any = true;
                    self.forwarding.leave(sa);
                    self.leaving.push(sa);
                }
                Ok(Order::Obey(command)) => {
                    any = true;
                    self.forwarding.handle_command(Instant::now(), command);
                    // What was released must leave before the next order changes anything.
                    self.drain();
                }
                Ok(Order::Stop) | Err(sync_mpsc::TryRecvError::Disconnected) => self.stopped = true,
                Err(sync_mpsc::TryRecvError::Empty) => break,
            }
        }
        any
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
        self.flush(now);
        Ok(())
    }

    fn flush(&mut self, now: Instant) {
        for send in self.batch.sends() {
            let octets = self.batch.octets(send);
            match send.to {
                To::Peer(envelope) => {
                    self.sockets.send_esp(&envelope, send.tos, octets, send.segment);
                }
                To::Clear(to) => self.sockets.send_clear(to, octets),
                To::Whole(offload) => {
                    let onward = self.onward.as_mut();
                    if !onward.is_some_and(|onward| onward.send(now, &offload, octets)) {
                        let sockets = &self.sockets;
                        forwarding::cut(&offload, octets, |packet| sockets.pass(packet));
                    }
                }
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

    /// Receives from a UDP socket: ESP is opened and written to the device at once, while it is warm.
    /// IKE that has been joined with it goes up.
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
                match Natt::of(datagram) {
                    Natt::Ike(message) => self.ike((local, received.remote, message.to_vec())),
                    Natt::Keepalive => {}
                    Natt::Esp => {
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

    /// Opens what came joined with IKE.
    fn receive_strays(&mut self) {
        while let Ok(stray) = self.strays.try_recv() {
            self.obey();
            let outer = Outer { remote: stray.remote, tos: stray.tos, udp: true };
            let range = 0..stray.octets.len();
            let Some(place) = self.arena.get_mut(range.clone()) else { continue };
            place.copy_from_slice(&stray.octets);
            let now = Instant::now();
            self.forwarding.incoming(now, &outer, &mut self.arena, range, &mut self.delivery);
            self.deliver();
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

    fn ike(&mut self, datagram: lanes::Datagram) {
        if !self.datagrams.put(datagram) {
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
                // Who would hear it is gone only when the whole plane is.
                Output::Notice(notice @ Notice::LastUse { .. }) => drop(self.uses.send(notice)),
                // Where packets are held they may wait for this one.
                Output::Notice(notice @ Notice::FirstPacket(_)) if !self.is_holding() => {
                    for notice in self.later.put(Instant::now(), notice) {
                        self.notify(notice);
                    }
                }
                Output::Notice(notice) => {
                    for earlier in self.later.take() {
                        self.notify(earlier);
                    }
                    self.notify(notice);
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

    /// Whether packets wait for a decision.
    fn is_holding(&self) -> bool {
        self.forwarding.poll_timeout().is_some()
    }

    fn notify(&mut self, notice: Notice) {
        if self.notices.try_send(notice).is_err() {
            self.counted.control_behind += 1;
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

/// The largest read of the device: header and super-packet.
pub(super) const DEVICE_READ: usize = 10 + 65_536;
/// Receives from one socket before the others get their turn: 16 times 64 kB.
const ROUNDS: usize = 16;
/// Numbers of descriptors.
const WAKE: u64 = 0;
const DEVICE: u64 = 1;
const UDP: u64 = 1 << 8;
const ESP: u64 = 1 << 16;
const ICMP: u64 = 1 << 17;
