//! Two nodes against each other.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tests::node::Node;
use tests::pairbed::PairBed;
use tests::place;

use crate::figures::{Figures, cpu};

/// Measures `count` handshakes from west to east, over `peers` pairs of addresses, one after the
/// other: a datagram goes out, is held, DNS is asked, keys are agreed, the datagram arrives and is
/// answered; then west forgets the peer and what DNS said of it.
pub(crate) fn measure(bits: &str, count: usize, peers: usize) -> io::Result<Figures> {
    let bed = PairBed::up("oeh", bits, peers);
    let start = |side: &str| -> Node {
        let mut setup = bed.setup(side);
        setup.quiet = true;
        setup.start(&bed.namespace(side))
    };
    let (west, east) = (start("west"), start("east"));
    let own = std::env::current_exe()?.display().to_string();
    let mut echo =
        place::command(&bed.namespace("east"), &[&own, "echo"]).stdout(Stdio::piped()).spawn()?;
    await_line(&mut echo)?;
    let socket = bed.setup("west").socket().display().to_string();
    let (rounds, width) = (count.to_string(), peers.to_string());
    let words = [own.as_str(), "drive", &rounds, &width, &socket];
    let before = [cpu(west.pid())?, cpu(east.pid())?];
    let began = Instant::now();
    let driven = place::command(&bed.namespace("west"), &words).output()?;
    let took = began.elapsed();
    // East has still to hear of the last.
    std::thread::sleep(Duration::from_millis(200));
    let after = [cpu(west.pid())?, cpu(east.pid())?];
    let _ = echo.kill();
    let _ = echo.wait();
    let said = String::from_utf8_lossy(&driven.stdout);
    let failed = said.trim().parse().map_err(|_| {
        io::Error::other(format!("{said}{}", String::from_utf8_lossy(&driven.stderr)))
    })?;
    let spent = [after[0] - before[0], after[1] - before[1]];
    Ok(Figures { count, failed, took, initiator: spent[0], responder: spent[1] })
}

fn await_line(child: &mut std::process::Child) -> io::Result<()> {
    let Some(output) = child.stdout.take() else { return Ok(()) };
    BufReader::new(output).read_line(&mut String::new()).map(|_| ())
}

/// Inside east: answers every datagram with itself.
pub(crate) fn echo() -> io::Result<()> {
    // One socket for each address, so that answers come from where was asked: a wildcard socket
    // would answer from the address nearest to the asker.
    let mut sockets = Vec::new();
    for n in 0.. {
        match UdpSocket::bind((PairBed::east(n), PORT)) {
            Ok(socket) => sockets.push(socket),
            Err(_) => break,
        }
    }
    let mut threads = Vec::new();
    for socket in sockets {
        let work = move || {
            let mut octets = [0; 64];
            while let Ok((len, from)) = socket.recv_from(&mut octets) {
                let _ = socket.send_to(octets.get(..len).unwrap_or_default(), from);
            }
        };
        threads.push(std::thread::Builder::new().stack_size(64 << 10).spawn(work)?);
    }
    writeln!(io::stdout(), "ready")?;
    for thread in threads {
        let _ = thread.join();
    }
    Ok(())
}

/// Inside west: calls, and hangs up; prints how many calls came to nothing.
pub(crate) fn drive(count: usize, peers: usize, control: &Path) -> io::Result<()> {
    let mut failed = 0_usize;
    for n in 0..count {
        let (from, to) = (PairBed::west(n % peers), PairBed::east(n % peers));
        failed += usize::from(!reaches(from, to, n)?);
        ask(control, &format!(r#"{{"request":"forget","address":"{to}"}}"#))?;
    }
    writeln!(io::stdout(), "{failed}")
}

fn reaches(from: IpAddr, to: IpAddr, n: usize) -> io::Result<bool> {
    let socket = UdpSocket::bind((from, 0))?;
    socket.connect(SocketAddr::new(to, PORT))?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut octets = [0; 64];
    let word = n.to_be_bytes();
    for _ in 0..5 {
        socket.send(&word)?;
        if let Ok(len) = socket.recv(&mut octets)
            && octets.get(..len) == Some(&word[..])
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// One request on a control socket.
pub(crate) fn ask(control: &Path, request: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(control)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    writeln!(stream, "{request}")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(line)
}

const PORT: u16 = 7777;
