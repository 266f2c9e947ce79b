//! The wire, watched at the core router: every packet that any host has sent.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::host::Host;
use super::links;
use super::ring::{Frame, Ring};
use super::wire::{self, Packet};

/// A packet as the core router got it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Seen {
    /// Since the Unix epoch.
    pub(crate) time: Duration,
    /// Position of the host it came from.
    pub(crate) host: usize,
    /// What it is.
    pub(crate) packet: Packet,
    /// Whether the lab's own plaintext could be read in it.
    pub(crate) readable: bool,
}

/// All that was seen.
#[derive(Clone, Default, Debug)]
pub(crate) struct Record {
    /// Packets in the order of their arrival.
    pub(crate) packets: Vec<Seen>,
    /// Packets the capture missed; unless 0, it proves nothing.
    pub(crate) missed: u64,
}

impl Record {
    /// Packets between two addresses, either way.
    pub(crate) fn between(&self, one: IpAddr, other: IpAddr) -> impl Iterator<Item = &Seen> {
        self.packets.iter().filter(move |seen| {
            let ends = (seen.packet.source, seen.packet.destination);
            ends == (one, other) || ends == (other, one)
        })
    }

    /// Packets one address has sent to another.
    #[cfg(test)]
    pub(crate) fn sent(&self, from: IpAddr, to: IpAddr) -> impl Iterator<Item = &Seen> {
        self.between(from, to).filter(move |seen| seen.packet.source == from)
    }
}

/// A capture under way.
pub(crate) struct Capture {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<io::Result<Record>>,
}

impl Capture {
    /// Starts watching. `plaintext` is looked for in every packet; the packets go to `file` too.
    pub(crate) fn start(core: &Host, plaintext: Vec<u8>, file: Option<File>) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let mut ring = core.run(Ring::open)??;
        let mut pcap = file.map(Pcap::new).transpose()?;
        let thread = thread::Builder::new().name("capture".to_owned()).spawn(move || {
            let mut record = Record::default();
            loop {
                // Looked at before reading, so that the last reading comes after the stop.
                let last = stopped.load(Ordering::Acquire);
                let mut written = Ok(());
                ring.read(TURN, |frame| {
                    record.packets.extend(look(&frame, &plaintext));
                    if let (Some(pcap), Ok(())) = (&mut pcap, &written) {
                        written = pcap.write(&frame);
                    }
                })?;
                written?;
                if let Some(pcap) = &mut pcap {
                    pcap.file.flush()?;
                }
                if last {
                    record.missed = ring.dropped();
                    return Ok(record);
                }
            }
        })?;
        Ok(Self { stop, thread })
    }

    /// Stops once what is under way has arrived, and tells what was seen.
    pub(crate) fn finish(self) -> io::Result<Record> {
        thread::sleep(SETTLE);
        self.stop.store(true, Ordering::Release);
        self.thread.join().map_err(|_| io::Error::other("the capture has panicked"))?
    }
}

fn look(frame: &Frame<'_>, plaintext: &[u8]) -> Option<Seen> {
    let packet = wire::parse(frame.octets)?;
    let host = links::host_index(frame.interface)?;
    let readable = !plaintext.is_empty()
        && frame.octets.windows(plaintext.len()).any(|window| window == plaintext);
    Some(Seen { time: frame.time, host, packet, readable })
}

/// A capture file with nanoseconds, as tcpdump and Wireshark read them.
struct Pcap {
    file: BufWriter<File>,
}

impl Pcap {
    fn new(file: File) -> io::Result<Self> {
        const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
        const SNAP_LENGTH: u32 = 262_144;
        const ETHERNET: u32 = 1;
        let mut file = BufWriter::new(file);
        file.write_all(&MAGIC_NANOSECONDS.to_ne_bytes())?;
        file.write_all(&2_u16.to_ne_bytes())?;
        file.write_all(&4_u16.to_ne_bytes())?;
        for field in [0, 0, SNAP_LENGTH, ETHERNET] {
            file.write_all(&field.to_ne_bytes())?;
        }
        file.flush()?;
        Ok(Self { file })
    }

    fn write(&mut self, frame: &Frame<'_>) -> io::Result<()> {
        let length = u32::try_from(frame.octets.len()).unwrap_or(u32::MAX);
        let seconds = u32::try_from(frame.time.as_secs()).unwrap_or(u32::MAX);
        for field in [seconds, frame.time.subsec_nanos(), length, length] {
            self.file.write_all(&field.to_ne_bytes())?;
        }
        self.file.write_all(frame.octets)
    }
}

/// How long one reading waits; also how soon a stop is noticed.
const TURN: Duration = Duration::from_millis(20);
/// Longer than the ring holds back a block that is not full.
const SETTLE: Duration = Duration::from_millis(40);
