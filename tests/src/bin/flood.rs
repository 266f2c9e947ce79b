//! Floods for the tests in namespaces, and what measures beside them. Sources are forged on a raw
//! socket: one call for each packet, so that the flood itself costs little.
//!
//! - `flood to PREFIX RATE SECONDS`: a datagram to a fresh address of an IPv4 /8, so often a second.
//! - `flood through PREFIX FROM RATE SECONDS`: the same from fresh addresses of another /8, as a
//!   gateway forwards them.
//! - `flood from PREFIX TARGET RATE SECONDS`: a datagram from a fresh address of it.
//! - `flood init PREFIX TARGET RATE SECONDS`: the same, with IKE_SA_INIT requests.
//! - `flood esp PREFIX TARGET RATE SECONDS`: the same, with what looks like ESP in UDP and is none.
//! - `flood echo ADDRESS`: answers every datagram.
//! - `flood sink ADDRESS`, `flood stream ADDRESS SECONDS`: a TCP stream; prints octets a second.
#![expect(clippy::print_stdout, reason = "it is what the tests read")]

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["to", net, rate, seconds] => to(net.parse()?, rate.parse()?, seconds.parse()?),
        ["through", net, source, rate, seconds] => {
            let (net, source): (Ipv4Addr, Ipv4Addr) = (net.parse()?, source.parse()?);
            forged(rate.parse()?, seconds.parse()?, |n| {
                let ends = [nth(source, n), nth(net, n)].map(|ip| SocketAddrV4::new(ip, 9));
                (ends, b"x".to_vec())
            })
        }
        [kind @ ("from" | "init" | "esp"), net, target, rate, seconds] => {
            let (net, target): (Ipv4Addr, SocketAddrV4) = (net.parse()?, target.parse()?);
            let octets = match *kind {
                "init" => init,
                "esp" => esp,
                _ => |_| b"x".to_vec(),
            };
            forged(rate.parse()?, seconds.parse()?, |n| {
                ([SocketAddrV4::new(nth(net, n), 500), target], octets(n))
            })
        }
        ["echo", address] => echo(address.parse()?),
        ["sink", address] => sink(address.parse()?),
        ["stream", address, seconds] => stream(address.parse()?, seconds.parse()?),
        _ => Err("flood to|from|init|echo|sink|stream ...".into()),
    }
}

/// Calls `once` with ascending numbers, so often a second.
fn paced(rate: u32, seconds: u64, mut once: impl FnMut(u32)) {
    let start = Instant::now();
    let end = start + Duration::from_secs(seconds);
    let mut done = 0;
    while Instant::now() < end {
        let due = (start.elapsed().as_secs_f64() * f64::from(rate)) as u64;
        while u64::from(done) < due {
            once(done);
            done += 1;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    println!("sent {done}");
}

/// The n-th of an /8's addresses, far from the one before.
fn nth(net: Ipv4Addr, n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(net) | (n.wrapping_mul(0x9e37_79b1) >> 8 & 0x00ff_fffe) | 1)
}

fn to(net: Ipv4Addr, rate: u32, seconds: u64) -> Outcome {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    // What is refused was sent as well as it can be.
    paced(rate, seconds, |n| drop(socket.send_to(b"x", (nth(net, n), 9))));
    Ok(())
}

/// Datagrams with these sources and targets, and these contents.
fn forged(rate: u32, seconds: u64, nth: impl Fn(u32) -> ([SocketAddrV4; 2], Vec<u8>)) -> Outcome {
    // IPPROTO_RAW: the packet is ours from its first octet (raw(7)).
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)))?;
    paced(rate, seconds, |n| {
        let ([source, target], octets) = nth(n);
        let to = SocketAddr::from((*target.ip(), 0)).into();
        let _ = socket.send_to(&datagram(source, target, &octets), &to);
    });
    Ok(())
}

/// A datagram with its IPv4 header (RFC 791 §3.1, RFC 768). The kernel computes the header's
/// checksum; no checksum of the datagram is a valid one.
fn datagram(source: SocketAddrV4, target: SocketAddrV4, octets: &[u8]) -> Vec<u8> {
    let len = |more: usize| u16::try_from(octets.len() + more).unwrap_or(u16::MAX).to_be_bytes();
    let mut packet = vec![0x45, 0];
    packet.extend(len(28));
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend(source.ip().octets());
    packet.extend(target.ip().octets());
    packet.extend(source.port().to_be_bytes());
    packet.extend(target.port().to_be_bytes());
    packet.extend(len(8));
    packet.extend([0, 0]);
    packet.extend(octets);
    packet
}

/// ESP of a pair that nobody has, as large as that of a small packet (RFC 4303 §2).
fn esp(n: u32) -> Vec<u8> {
    let mut octets = (n.wrapping_mul(0x85eb_ca6b) | 0x0100_0000).to_be_bytes().to_vec();
    octets.extend(n.to_be_bytes());
    octets.resize(120, 0xaa);
    octets
}

/// An IKE_SA_INIT request that a responder would go on with (RFC 7296 §1.2): AES-GCM, HMAC-SHA2-256,
/// X25519, and numbers that nobody computed.
fn init(n: u32) -> Vec<u8> {
    let filled = |len: usize| -> Vec<u8> {
        (0_u32..).map(|i| (i.wrapping_mul(n | 1) >> 3) as u8 | 1).take(len).collect()
    };
    let payload = |next: u8, content: &[u8]| {
        let len = u16::try_from(content.len() + 4).unwrap_or(u16::MAX).to_be_bytes();
        [&[next, 0, len[0], len[1]], content].concat()
    };
    let proposal = [
        &[0, 0, 0, 36, 1, 1, 0, 3][..],
        &[3, 0, 0, 12, 1, 0, 0, 20, 0x80, 14, 1, 0],
        &[3, 0, 0, 8, 2, 0, 0, 5],
        &[0, 0, 0, 8, 4, 0, 0, 31],
    ];
    let ke = [&[0, 31, 0, 0][..], &filled(32)].concat();
    let body =
        [payload(34, &proposal.concat()), payload(40, &ke), payload(0, &filled(32))].concat();
    let mut message = [&n.to_be_bytes()[..], &[1, 2, 3, 4], &[0; 8]].concat();
    message.extend([33, 0x20, 34, 0x08, 0, 0, 0, 0]);
    message.extend(u32::try_from(body.len() + 28).unwrap_or(0).to_be_bytes());
    message.extend(body);
    message
}

fn echo(address: SocketAddr) -> Outcome {
    let socket = UdpSocket::bind(address)?;
    println!("ready");
    let mut buffer = [0; 2048];
    loop {
        let (len, from) = socket.recv_from(&mut buffer)?;
        let _ = socket.send_to(buffer.get(..len).unwrap_or_default(), from);
    }
}

fn sink(address: SocketAddr) -> Outcome {
    let listener = TcpListener::bind(address)?;
    println!("ready");
    let mut buffer = vec![0; 1 << 16];
    loop {
        let (mut stream, _) = listener.accept()?;
        while stream.read(&mut buffer).is_ok_and(|len| len > 0) {}
    }
}

fn stream(address: SocketAddr, seconds: u64) -> Outcome {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
    stream.set_write_timeout(Some(Duration::from_secs(2)))?;
    let buffer = vec![0x55; 1 << 16];
    let (start, mut sent) = (Instant::now(), 0_u64);
    while start.elapsed() < Duration::from_secs(seconds) {
        // A stall shows in what is counted.
        sent += stream.write(&buffer).unwrap_or(0) as u64;
    }
    println!("{}", (sent as f64 / start.elapsed().as_secs_f64()) as u64);
    Ok(())
}
