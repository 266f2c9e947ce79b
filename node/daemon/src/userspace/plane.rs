//! The data plane as the main loop sees it: what goes to the packet thread and what comes from it.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc as sync_mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use forwarding::{Batch, Delivery, Forwarding, Provider};
use sa::{Command, Notice, Policy};
use tokio::sync::mpsc;

use super::acquires::{self, Acquires};
use super::gather::Gathering;
use super::lanes::{self, Lanes};
use super::later::Later;
use super::natt::marked;
use super::onward::{Onward, Ways, no_ways};
use super::post::Post;
use super::rest::{Rest, Resting};
use super::sockets::{Sockets, Wanted};
use super::strays::Strays;
use super::sys::{self, Wake};
use super::tun::Tun;
use super::worker::{self, DEVICE_READ, Order, Worker};

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
    /// Who says where packets that pass go on whole.
    pub(crate) ways: Ways,
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
            ways: no_ways,
            forwarding: forwarding::Config::default(),
        }
    }
}

/// A running plane. When it is dropped the thread ends and the device disappears.
pub(crate) struct Plane {
    /// What the plane has to say, in order. Ends when the thread does.
    pub(crate) notices: mpsc::Receiver<Notice>,
    /// How pairs are used, for whoever has asked: an answer for each question at most, so that there
    /// is no bound, and apart, because who asks about all pairs at once would leave no room for what
    /// has to be heard.
    pub(crate) uses: mpsc::UnboundedReceiver<Notice>,
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
    let onward = Onward::open(config.ways, &config.interface, config.mark);
    if let Err(error) = &onward {
        // Slower without, not wrong.
        tracing::debug!("super-packets that pass are cut: {error}");
    }
    let sockets = Arc::new(sockets);
    let wake = Arc::new(Wake::new()?);
    let epoll = worker::descriptors(&wake, &tun, &sockets)?;
    let room = sys::ORDINARY_PACKET.max(usize::from(config.forwarding.link_mtu) + 64);
    let (commands, orders) = sync_mpsc::channel();
    let (notices_in, notices) = mpsc::channel(NOTICES);
    let (uses_in, uses) = mpsc::unbounded_channel();
    let (acquires_in, acquires) = acquires::acquires();
    let (datagrams_in, datagrams) = lanes::lanes();
    let (strays_in, strays) = Strays::new(Arc::clone(&wake));
    let datagrams = datagrams.reading(Post::new(Arc::clone(&sockets), strays_in));
    let counters = Arc::new(Mutex::new(Counters::default()));
    let rest = Arc::new(Rest::default());
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
        onward: onward.ok(),
        epoll,
        wake: Arc::clone(&wake),
        rest: Arc::clone(&rest),
        orders,
        strays,
        leaving: Vec::new(),
        stopped: false,
        notices: notices_in,
        uses: uses_in,
        later: Later::default(),
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
    let join = Some(join);
    let thread = Thread { commands, wake, rest, ordered, sockets, counters, join };
    let (urgent, seen_by) = (Cell::new(false), Cell::new(None));
    Ok(Plane { notices, uses, acquires, datagrams, provider, thread, urgent, seen_by })
}

impl Plane {
    /// From now on `datagrams` hears of what comes. Must be called inside a runtime.
    ///
    /// # Errors
    /// If the runtime cannot watch a socket.
    pub(crate) fn listen(&mut self) -> std::io::Result<()> {
        self.datagrams.watch()
    }

    /// Gives an order; orders are obeyed in sequence, before what comes in after them is looked at.
    /// A thread that sleeps is not woken for it until [`Self::wake`].
    pub(crate) fn command(&self, command: Command) {
        let waits = can_wait(&command);
        self.thread.order(Order::Obey(command));
        if waits {
            self.see_soon();
        } else {
            self.urgent.set(true);
        }
    }

    /// Wakes the thread, if there are orders that change something for packets it holds and it
    /// sleeps over some. Otherwise it sees them soon enough.
    pub(crate) fn wake(&self) {
        if !self.urgent.take() {
            return;
        }
        match self.thread.rest.look() {
            Resting::Holding => self.wake_at_once(),
            Resting::Empty => self.see_soon(),
            // It looks for orders before it sleeps.
            Resting::Awake => {}
        }
    }

    fn see_soon(&self) {
        if self.seen_by.get().is_none() {
            self.seen_by.set(Some(Instant::now() + PATIENCE));
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
            self.thread.sockets.transmit(local, remote, &marked(octets));
        } else {
            self.thread.sockets.transmit(local, remote, octets);
        }
    }

    /// What was counted until the thread last went to sleep.
    pub(crate) fn counters(&self) -> Counters {
        let mut counted = *self.thread.counters.lock().unwrap_or_else(PoisonError::into_inner);
        counted.control_behind += self.datagrams.lost();
        counted
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
        Command::AddSa(_)
        | Command::MoveSa { .. }
        | Command::RemoveSa(_)
        | Command::RevokeSa(_)
        | Command::AskUse(_) => true,
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
    rest: Arc<Rest>,
    /// Whether there were orders since it was last woken.
    ordered: AtomicBool,
    sockets: Arc<Sockets>,
    counters: Arc<Mutex<Counters>>,
    join: Option<JoinHandle<()>>,
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

/// How long orders that can wait do so at most: keys of pairs that are gone are wiped then.
const PATIENCE: Duration = Duration::from_millis(500);
/// Notices that may wait for the control plane, which is asked again about what is lost.
const NOTICES: usize = 4096;
