//! A packet socket with a ring: what crosses the wire, without loss while the machine is busy.
//!
//! A plain packet socket of an unprivileged user cannot have the buffer that a burst of 64
//! datagrams needs; the ring's memory is its own (Linux `Documentation/networking/packet_mmap`).
#![allow(unsafe_code)] // The ring is memory shared with the kernel.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

/// A frame as it came in on an interface.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    /// Since the Unix epoch.
    pub(crate) time: Duration,
    /// Index of the interface it came in on.
    pub(crate) interface: u32,
    /// Octets from the Ethernet header on.
    pub(crate) octets: &'a [u8],
}

/// Receives every frame that comes in on any interface of the namespace it was opened in.
pub(crate) struct Ring {
    socket: OwnedFd,
    memory: NonNull<u8>,
    next: usize,
    dropped: u64,
}

// SAFETY: the mapping belongs to this value alone and is not tied to a thread.
unsafe impl Send for Ring {}

impl Ring {
    /// Opens a ring in the calling thread's network namespace. Frames going out are not seen:
    /// they come in on another interface or have done so.
    pub(crate) fn open() -> io::Result<Self> {
        let protocol = u16::try_from(libc::ETH_P_ALL).unwrap_or_default().to_be();
        // SAFETY: socket has no memory effects; the descriptor is owned by nobody else.
        let socket = unsafe {
            let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        set_option(&socket, libc::PACKET_VERSION, &(libc::tpacket_versions::TPACKET_V3 as u32))?;
        set_option(&socket, libc::PACKET_IGNORE_OUTGOING, &1_u32)?;
        let frames = BLOCK_SIZE / FRAME_SIZE * BLOCKS;
        set_option(
            &socket,
            libc::PACKET_RX_RING,
            &libc::tpacket_req3 {
                tp_block_size: to_u32(BLOCK_SIZE),
                tp_block_nr: to_u32(BLOCKS),
                tp_frame_size: to_u32(FRAME_SIZE),
                tp_frame_nr: to_u32(frames),
                tp_retire_blk_tov: RETIRE_MS,
                tp_sizeof_priv: 0,
                tp_feature_req_word: 0,
            },
        )?;
        // SAFETY: a fresh shared mapping of the ring just made, of exactly its size.
        let memory = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                BLOCK_SIZE * BLOCKS,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                socket.as_raw_fd(),
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let memory = NonNull::new(memory.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let ring = Self { socket, memory, next: 0, dropped: 0 };
        ring.bind(protocol)?;
        Ok(ring)
    }

    /// Shows `see` all that has come in since the last call, waiting up to `patience` for it.
    pub(crate) fn read(
        &mut self,
        patience: Duration,
        mut see: impl FnMut(Frame<'_>),
    ) -> io::Result<()> {
        let mut poll =
            libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let patience = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one pollfd, alive across the call.
        if unsafe { libc::poll(&raw mut poll, 1, patience) } < 0 {
            return Err(io::Error::last_os_error());
        }
        while self.read_block(&mut see) {
            self.next = (self.next + 1) % BLOCKS;
        }
        self.count_drops()
    }

    /// Frames that came while the ring was full.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    fn bind(&self, protocol: u16) -> io::Result<()> {
        // SAFETY: sockaddr_ll is plain integers, for which all zeroes is a value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or_default();
        address.sll_protocol = protocol;
        // SAFETY: the address is a sockaddr_ll of the length given.
        let result = unsafe {
            libc::bind(
                self.socket.as_raw_fd(),
                (&raw const address).cast(),
                to_u32(size_of::<libc::sockaddr_ll>()),
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Reads the next block if the kernel has handed it over, and gives it back.
    fn read_block(&self, see: &mut impl FnMut(Frame<'_>)) -> bool {
        // SAFETY: `next` is below BLOCKS, so the block lies within the mapping; blocks are
        // page-aligned and start with a tpacket_block_desc.
        let block = unsafe { self.memory.as_ptr().add(self.next * BLOCK_SIZE) };
        #[expect(clippy::cast_ptr_alignment, reason = "blocks are page-aligned")]
        let description = block.cast::<libc::tpacket_block_desc>();
        // SAFETY: as above; volatile because the kernel writes the status.
        let status = unsafe { (&raw const (*description).hdr.bh1.block_status).read_volatile() };
        if status & libc::TP_STATUS_USER == 0 {
            return false;
        }
        fence(Ordering::Acquire);
        // SAFETY: the block is ours until its status is given back, and well-formed: the kernel
        // wrote it.
        let (count, mut offset) = unsafe {
            let header = &(*description).hdr.bh1;
            (header.num_pkts, header.offset_to_first_pkt as usize)
        };
        // SAFETY: the whole block lies within the mapping and nobody writes to it meanwhile.
        let octets = unsafe { std::slice::from_raw_parts(block, BLOCK_SIZE) };
        for _ in 0..count {
            let Some((frame, next)) = frame_at(octets, offset) else { break };
            see(frame);
            offset += next;
        }
        fence(Ordering::Release);
        // SAFETY: as at the read of the status.
        unsafe {
            (&raw mut (*description).hdr.bh1.block_status).write_volatile(libc::TP_STATUS_KERNEL);
        }
        true
    }

    /// The kernel resets its counters at each reading.
    fn count_drops(&mut self) -> io::Result<()> {
        let mut statistics =
            libc::tpacket_stats_v3 { tp_packets: 0, tp_drops: 0, tp_freeze_q_cnt: 0 };
        let mut length = to_u32(size_of::<libc::tpacket_stats_v3>());
        // SAFETY: the kernel writes at most `length` octets to `statistics`, which is that large.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut statistics).cast(),
                &raw mut length,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        self.dropped += u64::from(statistics.tp_drops);
        Ok(())
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `open`, used nowhere after this.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), BLOCK_SIZE * BLOCKS) };
    }
}

/// The frame at `offset` of a block, and the distance to the next.
fn frame_at(block: &[u8], offset: usize) -> Option<(Frame<'_>, usize)> {
    let header: libc::tpacket3_hdr = read_at(block, offset)?;
    let link: libc::sockaddr_ll =
        read_at(block, offset + size_of::<libc::tpacket3_hdr>().next_multiple_of(16))?;
    let start = offset + usize::from(header.tp_mac);
    let octets = block.get(start..start + header.tp_snaplen as usize)?;
    let frame = Frame {
        time: Duration::new(u64::from(header.tp_sec), header.tp_nsec),
        interface: u32::try_from(link.sll_ifindex).unwrap_or(0),
        octets,
    };
    Some((frame, header.tp_next_offset as usize))
}

fn read_at<T: Copy>(block: &[u8], offset: usize) -> Option<T> {
    let octets = block.get(offset..offset + size_of::<T>())?;
    // SAFETY: as many octets as T has; T is one of the kernel's plain structs of integers.
    Some(unsafe { octets.as_ptr().cast::<T>().read_unaligned() })
}

fn set_option<T>(socket: &OwnedFd, option: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: `value` is a live T and the length is T's.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            std::ptr::from_ref(value).cast(),
            to_u32(size_of::<T>()),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn to_u32(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// Holds the largest super-packet twice.
const BLOCK_SIZE: usize = 1 << 17;
/// 32 MiB in all. A block is handed over each [`RETIRE_MS`] however little is in it, so this many
/// bridge two seconds without a turn on a busy machine.
const BLOCKS: usize = 256;
/// Only divides blocks on paper; TPACKET_V3 packs frames of any size.
const FRAME_SIZE: usize = 1 << 11;
/// A block that is not full is handed over after this.
const RETIRE_MS: u32 = 10;
