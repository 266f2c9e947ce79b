//! Traffic, made and taken inside a namespace. A sink tells on request what it has taken so far,
//! so that whoever measures chooses the window.

use std::io::{self, BufRead as _, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One end of some traffic.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Load {
    /// Takes TCP streams.
    TcpSink { at: SocketAddr },
    /// Fills TCP streams until it is told to stop.
    Tcp { to: SocketAddr, streams: usize },
    /// Takes datagrams.
    UdpSink { at: SocketAddr },
    /// Sends datagrams, so many a second or as many as go, for so many milliseconds.
    Udp { to: SocketAddr, size: usize, per_second: u64, milliseconds: u64 },
    /// Asks a DNS server for TXT of a name many times; says the median microseconds.
    Dns { server: IpAddr, name: String },
}

impl Load {
    pub(crate) fn run(&self) -> io::Result<()> {
        match self {
            Self::TcpSink { at } => tcp_sink(*at),
            Self::Tcp { to, streams } => tcp(*to, *streams),
            Self::UdpSink { at } => udp_sink(*at),
            Self::Udp { to, size, per_second, milliseconds } => {
                udp(*to, *size, *per_second, Duration::from_millis(*milliseconds))
            }
            Self::Dns { server, name } => dns(*server, name),
        }
    }
}

#[derive(Default)]
struct Taken {
    octets: AtomicU64,
    packets: AtomicU64,
}

/// Answers each line on standard input with nanoseconds, octets and packets so far.
fn answer(taken: &Taken) -> io::Result<()> {
    let start = Instant::now();
    let mut out = io::stdout();
    writeln!(out, "ready")?;
    out.flush()?;
    for line in io::stdin().lock().lines() {
        line?;
        let octets = taken.octets.load(Ordering::Relaxed);
        let packets = taken.packets.load(Ordering::Relaxed);
        writeln!(out, "{} {octets} {packets}", start.elapsed().as_nanos())?;
        out.flush()?;
    }
    Ok(())
}

fn tcp_sink(at: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(at)?;
    let taken = Arc::new(Taken::default());
    let counter = Arc::clone(&taken);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let counter = Arc::clone(&counter);
            std::thread::spawn(move || {
                let mut stream = stream;
                let mut block = vec![0; BLOCK];
                while let Ok(len @ 1..) = stream.read(&mut block) {
                    counter.octets.fetch_add(len as u64, Ordering::Relaxed);
                }
            });
        }
    });
    answer(&taken)
}

fn tcp(to: SocketAddr, streams: usize) -> io::Result<()> {
    for _ in 0..streams {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        std::thread::spawn(move || {
            let block = vec![0x5a; BLOCK];
            while stream.write_all(&block).is_ok() {}
        });
    }
    // Until nobody wants it any more.
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn udp_sink(at: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind(at)?;
    // What is measured is the way to the host, not how soon its application gets its turn.
    large_queue(&socket)?;
    let taken = Arc::new(Taken::default());
    let counter = Arc::clone(&taken);
    std::thread::spawn(move || {
        let mut block = vec![0; 65_536];
        while let Ok(len) = socket.recv(&mut block) {
            counter.octets.fetch_add(len as u64, Ordering::Relaxed);
            counter.packets.fetch_add(1, Ordering::Relaxed);
        }
    });
    answer(&taken)
}

#[allow(unsafe_code, reason = "std has no word for the size of a socket's queue")]
fn large_queue(socket: &UdpSocket) -> io::Result<()> {
    let (octets, fd) = (8 << 20, socket.as_raw_fd());
    let value: *const libc::c_int = &raw const octets;
    // SAFETY: the option takes an int, whose size is given.
    let result =
        unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, value.cast(), 4) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn udp(to: SocketAddr, size: usize, per_second: u64, length: Duration) -> io::Result<()> {
    let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    let block = vec![0x5a; size];
    let start = Instant::now();
    let mut sent = 0_u64;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Looking at the clock for every datagram would be part of what is measured.
        scope.spawn(|| {
            std::thread::sleep(length);
            over.store(true, Ordering::Relaxed);
        });
        while !over.load(Ordering::Relaxed) {
            if per_second == 0 {
                sent += u64::from(socket.send(&block).is_ok());
                continue;
            }
            let due = start.elapsed().as_secs_f64() * per_second as f64;
            while (sent as f64) < due && !over.load(Ordering::Relaxed) {
                // What the host's own queue refuses was not offered.
                let _ = socket.send(&block);
                sent += 1;
            }
            std::thread::sleep(PACE);
        }
    });
    writeln!(io::stdout(), "{} {sent}", start.elapsed().as_nanos())
}

fn dns(server: IpAddr, name: &str) -> io::Result<()> {
    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
    socket.connect((server, 53))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    // RFC 1035 §4.1: header with recursion desired, one question of class IN.
    let mut query = vec![0x0e, 0x5b, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.trim_end_matches('.').split('.') {
        query.push(u8::try_from(label.len()).unwrap_or(0));
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 16, 0, 1]);
    let mut times = Vec::new();
    for _ in 0..50 {
        let start = Instant::now();
        socket.send(&query)?;
        socket.recv(&mut [0; 4096])?;
        times.push(start.elapsed().as_micros());
    }
    times.sort_unstable();
    writeln!(io::stdout(), "{}", times.get(times.len() / 2).copied().unwrap_or(0))
}

/// What iperf3 writes and reads at once.
const BLOCK: usize = 128 * 1024;
/// A contender that does not connect within this is broken.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between bursts when a rate is kept: short enough that no socket buffer overflows by it.
const PACE: Duration = Duration::from_micros(200);
