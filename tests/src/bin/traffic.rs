//! Traffic for tests, from inside a namespace: a bulk transfer whose every octet is checked.
//!
//! `traffic serve ADDRESS` takes one connection; `traffic transfer ADDRESS OCTETS` sends that much
//! to it, gets as much back, and exits 0 only if both arrived as they left.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use aws_lc_rs::digest::{Context, Digest, SHA256};

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["serve", address] => serve(parse(address)?),
        ["transfer", address, octets] => transfer(parse(address)?, parse(octets)?),
        _ => Err(io::Error::other("traffic serve ADDRESS | traffic transfer ADDRESS OCTETS")),
    }
}

fn parse<T: std::str::FromStr>(text: &str) -> io::Result<T> {
    text.parse().map_err(|_| io::Error::other(format!("{text}?")))
}

fn serve(address: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    writeln!(io::stdout(), "listening")?;
    let (mut stream, _) = listener.accept()?;
    patient(&stream)?;
    let mut octets = [0; 8];
    stream.read_exact(&mut octets)?;
    let octets = u64::from_be_bytes(octets);
    let received = receive(&mut stream, octets)?;
    stream.write_all(received.as_ref())?;
    let sent = send(&mut stream, octets, 2)?;
    stream.write_all(sent.as_ref())
}

fn transfer(address: SocketAddr, octets: u64) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    patient(&stream)?;
    stream.write_all(&octets.to_be_bytes())?;
    let sent = send(&mut stream, octets, 1)?;
    let mut digest = [0; 32];
    stream.read_exact(&mut digest)?;
    if sent.as_ref() != digest {
        return Err(io::Error::other("what we sent arrived damaged"));
    }
    let received = receive(&mut stream, octets)?;
    stream.read_exact(&mut digest)?;
    if received.as_ref() != digest {
        return Err(io::Error::other("what we were sent arrived damaged"));
    }
    Ok(())
}

fn patient(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

/// Sends octets of which no two blocks are the same, so that nothing can take another's place.
fn send(stream: &mut TcpStream, octets: u64, seed: u64) -> io::Result<Digest> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut block: Vec<u8> = (0..BLOCK / 8)
        .flat_map(|_| {
            // xorshift: any pattern does that does not repeat within a block.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_be_bytes()
        })
        .collect();
    let mut digest = Context::new(&SHA256);
    let mut left = octets;
    while left > 0 {
        let length = usize::try_from(left).map_or(BLOCK, |left| left.min(BLOCK));
        for (octet, count) in block.iter_mut().zip(left.to_be_bytes()) {
            *octet = count;
        }
        let part = block.get(..length).unwrap_or_default();
        digest.update(part);
        stream.write_all(part)?;
        left -= u64::try_from(length).unwrap_or(left);
    }
    Ok(digest.finish())
}

fn receive(stream: &mut TcpStream, octets: u64) -> io::Result<Digest> {
    let mut block = vec![0; BLOCK];
    let mut digest = Context::new(&SHA256);
    let mut left = octets;
    while left > 0 {
        let length = usize::try_from(left).map_or(BLOCK, |left| left.min(BLOCK));
        let room = block.get_mut(..length).unwrap_or_default();
        let length = stream.read(room)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        digest.update(room.get(..length).unwrap_or_default());
        left -= u64::try_from(length).unwrap_or(left);
    }
    Ok(digest.finish())
}

const BLOCK: usize = 65_536;
/// A stalled connection is a failure.
const PATIENCE: Duration = Duration::from_secs(30);
