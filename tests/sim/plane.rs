//! The real forwarding plane, one packet at a time.

use std::cell::RefCell;
use std::time::Instant;

use forwarding::{Batch, Config, Delivery, Forwarding, Offload, Outer, Output, To};
use sa::{Command, Envelope, Notice};

/// What leaves the plane for the wire.
pub(crate) enum Out {
    Esp(Envelope, Vec<u8>),
    Clear(Vec<u8>),
}

/// The forwarding plane of one node.
pub(crate) struct Plane {
    forwarding: Forwarding,
    out: Vec<Out>,
    notices: Vec<Notice>,
    /// Inner packets for the host itself.
    pub(crate) opened: Vec<Vec<u8>>,
    /// Pairs end after so many packets, and are to be replaced as much sooner as they were to be.
    pub(crate) hard_packets: Option<u64>,
}

thread_local! {
    /// For all planes in turn: each of them is a megabyte.
    static BATCH: RefCell<Batch> = RefCell::new(Batch::new());
    static DELIVERY: RefCell<Delivery> = RefCell::new(Delivery::new(false));
}

impl Plane {
    pub(crate) fn new(seed: [u8; 32], now: Instant) -> Self {
        Self {
            forwarding: Forwarding::new(Config::default(), seed, now),
            out: Vec::new(),
            notices: Vec::new(),
            opened: Vec::new(),
            hard_packets: None,
        }
    }

    pub(crate) fn obey(&mut self, now: Instant, mut command: Command) {
        if let (Command::AddSa(pair), Some(hard)) = (&mut command, self.hard_packets) {
            let limits = &mut pair.limits;
            let soft = u128::from(limits.soft_packets) * u128::from(hard);
            limits.soft_packets = u64::try_from(soft / u128::from(limits.hard_packets)).unwrap();
            limits.hard_packets = hard;
        }
        self.forwarding.handle_command(now, command);
        self.drain();
    }

    /// A packet from the device.
    pub(crate) fn send(&mut self, now: Instant, packet: &[u8]) {
        BATCH.with_borrow_mut(|batch| {
            batch.clear();
            self.forwarding.outgoing(now, &Offload::NONE, &mut packet.to_vec(), batch);
            for send in batch.sends() {
                for octets in batch.packets(send) {
                    match send.to {
                        To::Peer(envelope) => self.out.push(Out::Esp(envelope, octets.to_vec())),
                        To::Clear(_) | To::Whole(_) => self.out.push(Out::Clear(octets.to_vec())),
                        // ICMP errors to the host itself: nobody here reads them.
                        To::Device => {}
                    }
                }
            }
        });
        self.drain();
    }

    /// An ESP packet from the wire.
    pub(crate) fn receive(&mut self, now: Instant, envelope: Envelope, octets: &[u8]) {
        let mut arena = octets.to_vec();
        let whole = 0..arena.len();
        let outer = Outer { remote: envelope.remote, tos: 0, udp: envelope.udp };
        DELIVERY.with_borrow_mut(|delivery| {
            delivery.clear();
            self.forwarding.incoming(now, &outer, &mut arena, whole, delivery);
            delivery.finish(&mut arena);
            for write in delivery.writes() {
                let mut packet = write.head.to_vec();
                write.for_each(|range| packet.extend_from_slice(&arena[range]));
                self.opened.push(packet);
            }
        });
        self.drain();
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.forwarding.poll_timeout().map(|(at, _)| at)
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_some_and(|at| at <= now) {
            self.forwarding.handle_timeout(now);
            self.drain();
        }
    }

    pub(crate) fn counters(&self) -> forwarding::Counters {
        self.forwarding.counters()
    }

    pub(crate) fn take(&mut self) -> Vec<Out> {
        std::mem::take(&mut self.out)
    }

    pub(crate) fn notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    fn drain(&mut self) {
        while let Some(output) = self.forwarding.poll_output() {
            match output {
                Output::Notice(notice) => self.notices.push(notice),
                Output::Sealed { envelope, octets, .. } => {
                    self.out.push(Out::Esp(envelope, octets))
                }
                Output::Clear { octets, .. } => self.out.push(Out::Clear(octets)),
                // The simulated wire takes packets of any size.
                Output::Probe { .. } | Output::Trace(_) => {}
            }
        }
    }
}
