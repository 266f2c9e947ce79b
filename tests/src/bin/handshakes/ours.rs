//! Two nodes against each other.

use std::fmt::Write as _;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use tests::node::Node;
use tests::pairbed::PairBed;
use tests::place;

use crate::figures::{Cpu, Figures};

/// How two nodes find each other's keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Keys {
    /// Written down on both sides, a connection for each peer: as strongSwan has them.
    Written,
    /// In DNS, validated, asked for anew by who calls. Who answers remembers.
    Dns,
}

/// What two nodes do.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// Of the RSA keys.
    pub(crate) bits: String,
    /// Pairs of addresses, called in turn.
    pub(crate) peers: usize,
    pub(crate) keys: Keys,
    /// ML-KEM-768 beside X25519.
    pub(crate) post_quantum: bool,
    /// Every peer is called once before, and comes back with its ticket.
    pub(crate) resumed: bool,
    /// A datagram has the peer called, and is answered through the new pair. Else the control socket
    /// has it called, as charon's has: nothing passes but IKE.
    pub(crate) datagram: bool,
}

impl Setting {
    /// Pairs of addresses that there are.
    fn pairs(&self) -> usize {
        if self.resumed { self.peers + WARM } else { self.peers }
    }
}

/// Two nodes that can be made to call each other. Gone when dropped.
pub(crate) struct Ours {
    setting: Setting,
    nodes: [Node; 2],
    echo: Child,
    /// Pairs of addresses that were called, counted on.
    next: usize,
    bed: PairBed,
}

impl Ours {
    /// Starts both; `name` tells them from others.
    pub(crate) fn up(name: &str, setting: Setting) -> io::Result<Self> {
        let bed = PairBed::up(name, &setting.bits, setting.pairs());
        let start = |side: &str| {
            let mut setup = bed.setup(side);
            setup.quiet = true;
            if setting.keys == Keys::Written {
                setup.policies = vec![("clear", "0.0.0.0/0\n")];
                setup.more = connections(&bed, side, setting.pairs());
            }
            setup.more += &format!(
                "[ike]\npost-quantum = {}\nresumption = {}\n",
                setting.post_quantum, setting.resumed
            );
            setup.start(&bed.namespace(side))
        };
        let nodes = [start("west"), start("east")];
        let own = std::env::current_exe()?.display().to_string();
        let mut echo = place::command(&bed.namespace("east"), &[&own, "echo"])
            .stdout(Stdio::piped())
            .spawn()?;
        await_line(&mut echo)?;
        // For the tickets; else what happens only once in a process.
        let first = if setting.resumed { setting.peers } else { 2 };
        let mut ours = Self { setting, nodes, echo, next: 0, bed };
        ours.drive(0, first)?;
        if !ours.setting.resumed {
            ours.next = first;
        }
        Ok(ours)
    }

    fn cpu(&self) -> io::Result<[Cpu; 2]> {
        Ok([Cpu::of(self.nodes[0].pid())?, Cpu::of(self.nodes[1].pid())?])
    }

    /// Signatures that both have made.
    fn signatures(&self) -> io::Result<u64> {
        let mut sum = 0;
        for side in ["west", "east"] {
            let mut control = Control::connect(&self.bed.setup(side).socket())?;
            let status = control.ask(r#"{"request":"status"}"#)?;
            let status: serde_json::Value = serde_json::from_str(&status)?;
            let said = &status["counters"]["keying"]["signatures"];
            sum += said.as_u64().ok_or_else(|| io::Error::other("no count of signatures"))?;
        }
        Ok(sum)
    }

    /// So many handshakes from this pair of addresses on; how many failed.
    fn drive(&self, first: usize, count: usize) -> io::Result<usize> {
        let own = std::env::current_exe()?.display().to_string();
        let socket = self.bed.setup("west").socket().display().to_string();
        let numbers = [first, count, self.setting.pairs()].map(|n| n.to_string());
        let mut words = vec![own.as_str(), "drive"];
        words.extend(numbers.iter().map(String::as_str));
        words.push(&socket);
        if self.setting.datagram {
            words.push("--datagram");
        }
        let driven = place::command(&self.bed.namespace("west"), &words).output()?;
        let said = String::from_utf8_lossy(&driven.stdout);
        said.trim().parse().map_err(|_| {
            io::Error::other(format!("{said}{}", String::from_utf8_lossy(&driven.stderr)))
        })
    }

    /// Measures handshakes from west to east, one after the other: west is told to call (or a datagram
    /// goes out and is held), DNS is asked if the key is there, keys are agreed (and the datagram
    /// arrives and is answered); then west forgets the peer and what DNS said of it, which deletes the
    /// SAs at both ends.
    pub(crate) fn measure(&mut self, count: usize) -> io::Result<Figures> {
        // Those that have no ticket would not be resumed: they are none of those that are measured.
        let warm = if self.setting.resumed { self.setting.peers } else { self.next };
        self.drive(warm, WARM)?;
        let signed = self.signatures()?;
        std::thread::sleep(BREATH);
        let before = self.cpu()?;
        let began = Instant::now();
        let failed = self.drive(self.next, count)?;
        let took = began.elapsed();
        self.next += count;
        // East has still to hear of the last.
        std::thread::sleep(SETTLE);
        let after = self.cpu()?;
        let [initiator, responder] = [0, 1].map(|side| after[side].since(before[side]));
        if self.setting.resumed && self.signatures()? > signed {
            return Err(io::Error::other("there were signatures: not resumed"));
        }
        Ok(Figures { count, failed, took, initiator, responder })
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        let _ = self.echo.kill();
        let _ = self.echo.wait();
    }
}

/// A connection for each pair of addresses, with the key of the other side.
fn connections(bed: &PairBed, side: &str, peers: usize) -> String {
    let mut text = String::new();
    for n in 0..peers {
        let (local, remote, other, start) = match side {
            "west" => (PairBed::west(n), PairBed::east(n), "east", "trap"),
            _ => (PairBed::east(n), PairBed::west(n), "west", "accept"),
        };
        let key = bed.public_key_file(other);
        // Writing to memory cannot fail.
        let _ = writeln!(
            text,
            "[[connection]]\nname = \"h{n}\"\ngateway = \"{remote}\"\nstart = \"{start}\"\n\
             local-address = \"{local}\"\nlocal-subnets = [\"{local}\"]\n\
             remote-subnets = [\"{remote}\"]\nremote-key = \"{}\"",
            key.display()
        );
    }
    text
}

fn await_line(child: &mut Child) -> io::Result<()> {
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

/// Calls to make.
#[derive(clap::Args, Debug)]
pub(crate) struct Calls {
    /// From which on.
    first: usize,
    /// How often.
    count: usize,
    /// Whom, in turn.
    peers: usize,
    /// The node's control socket.
    control: PathBuf,
    /// Each by a datagram that is to be answered.
    #[arg(long)]
    datagram: bool,
}

/// Inside west: calls, and hangs up; prints how many calls came to nothing.
pub(crate) fn drive(calls: &Calls) -> io::Result<()> {
    let mut failed = 0_usize;
    let mut control = Control::connect(&calls.control)?;
    for n in calls.first..calls.first + calls.count {
        let (from, to) = (PairBed::west(n % calls.peers), PairBed::east(n % calls.peers));
        let done = if calls.datagram {
            reaches(from, to, n)?
        } else {
            let call = format!(r#"{{"request":"call","address":"{to}","source":"{from}"}}"#);
            control.ask(&call)?.contains(r#""outcome":"encrypted""#)
        };
        failed += usize::from(!done);
        control.ask(&format!(r#"{{"request":"forget","address":"{to}"}}"#))?;
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

/// A connection to a node's control socket, as lasting as that to charon's.
pub(crate) struct Control(BufReader<UnixStream>);

impl Control {
    pub(crate) fn connect(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// One request, and the line that answers it.
    pub(crate) fn ask(&mut self, request: &str) -> io::Result<String> {
        self.0.get_mut().write_all(format!("{request}\n").as_bytes())?;
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        Ok(line)
    }
}

const PORT: u16 = 7777;
/// Handshakes of each round before those that count: others have worked meanwhile, and what a processor
/// has at hand is theirs.
pub(crate) const WARM: usize = 24;
/// Until the last of them is deleted at both ends.
pub(crate) const BREATH: Duration = Duration::from_millis(20);
/// Until nothing is left to be done for what was measured.
const SETTLE: Duration = Duration::from_millis(200);
