//! Traffic as applications send it: echo requests and TCP transfers, with nothing of ours below.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use socket2::{Domain, Protocol, Socket, Type};

use super::netns;

/// What became of one echo request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Echo {
    /// When it was sent, since the Unix epoch.
    pub(crate) sent: Duration,
    /// How long the reply took; `None` if none came.
    pub(crate) answered: Option<Duration>,
}

/// What became of one TCP transfer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Transfer {
    /// Octets sent and received back unchanged.
    pub(crate) octets: usize,
    /// From the first SYN to the last octet back.
    pub(crate) took: Duration,
    /// SYNs the client had to send again.
    pub(crate) retransmitted: u32,
}

/// An ICMP socket for one destination.
pub(crate) struct Pinger {
    socket: Socket,
    to: IpAddr,
    identifier: u16,
}

impl Pinger {
    /// Opens a socket in the calling thread's namespace. `identifier` tells its replies from
    /// those to others in the same namespace.
    pub(crate) fn new(to: IpAddr, identifier: u16) -> io::Result<Self> {
        let (domain, protocol) = match to {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
        };
        let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
        socket.connect(&SocketAddr::new(to, 0).into())?;
        Ok(Self { socket, to, identifier })
    }

    /// Sends one echo request, once, and waits for its reply.
    pub(crate) fn ping(
        &self,
        sequence: u16,
        payload: &[u8],
        patience: Duration,
    ) -> io::Result<Echo> {
        let sent = since_epoch();
        let start = Instant::now();
        let request = echo_request(self.to, self.identifier, sequence, payload);
        if let Err(error) = self.socket.send(&request) {
            // Refused at home, as a policy may do: that packet will have no answer.
            tracing::debug!("echo request to {} not sent: {error}", self.to);
            return Ok(Echo { sent, answered: None });
        }
        let mut buffer = [0; 2048];
        loop {
            let left = patience.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(Echo { sent, answered: None });
            }
            self.socket.set_read_timeout(Some(left))?;
            match (&self.socket).read(&mut buffer) {
                Ok(length) => {
                    let received = buffer.get(..length).unwrap_or_default();
                    if reply_sequence(self.to, self.identifier, received) == Some(sequence) {
                        return Ok(Echo { sent, answered: Some(start.elapsed()) });
                    }
                }
                // An ICMP error came in, which anybody can forge: the reply may still come.
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
        }
    }
}

/// The sequence number of an echo reply from an address of `to`'s family, if that is what was
/// received and it is for `identifier`.
pub(crate) fn reply_sequence(to: IpAddr, identifier: u16, received: &[u8]) -> Option<u16> {
    // A raw IPv4 socket delivers the IP header too, an IPv6 one does not.
    let (expected, message) = match to {
        IpAddr::V4(_) => {
            let words = received.first().map_or(0, |first| usize::from(first & 0x0f));
            (0, received.get(words * 4..)?)
        }
        IpAddr::V6(_) => (129, received),
    };
    let [kind, 0, _, _, id_high, id_low, high, low] = *message.first_chunk::<8>()? else {
        return None;
    };
    let ours = kind == expected && [id_high, id_low] == identifier.to_be_bytes();
    ours.then_some(u16::from_be_bytes([high, low]))
}

/// Connects, sends `octets` octets made of `pattern`, and reads them back.
pub(crate) fn transfer(
    to: IpAddr,
    octets: usize,
    pattern: &[u8],
    patience: Duration,
) -> io::Result<Transfer> {
    let start = Instant::now();
    let stream = TcpStream::connect_timeout(&SocketAddr::new(to, ECHO_PORT), patience)?;
    let retransmitted = netns::retransmissions(&stream)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let data: Vec<u8> = pattern.iter().copied().cycle().take(octets).collect();
    let mut writer = stream.try_clone()?;
    let sent = data.clone();
    let writing = thread::spawn(move || -> io::Result<()> {
        writer.write_all(&sent)?;
        writer.shutdown(Shutdown::Write)
    });
    let mut back = Vec::with_capacity(octets);
    let limit = u64::try_from(octets).unwrap_or(u64::MAX).saturating_add(1);
    (&stream).take(limit).read_to_end(&mut back)?;
    writing.join().map_err(|_| io::Error::other("the writer has panicked"))??;
    if back != data {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the echo differs"));
    }
    Ok(Transfer { octets, took: start.elapsed(), retransmitted })
}

/// Starts a TCP echo service (RFC 862) for both families in the calling thread's namespace. It
/// lasts as long as the process.
pub(crate) fn serve_echo() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, ECHO_PORT))?;
    thread::Builder::new().name("echo".to_owned()).spawn(move || {
        for stream in listener.incoming().flatten() {
            // A connection that fails is the client's to notice.
            thread::spawn(move || io::copy(&mut &stream, &mut &stream));
        }
    })?;
    Ok(())
}

/// The time of day, since the Unix epoch.
pub(crate) fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// An echo request, complete but for ICMPv6's checksum, which the kernel fills in.
pub(crate) fn echo_request(to: IpAddr, identifier: u16, sequence: u16, payload: &[u8]) -> Vec<u8> {
    let kind = if to.is_ipv4() { 8 } else { 128 };
    let mut message = vec![kind, 0, 0, 0];
    message.extend(identifier.to_be_bytes());
    message.extend(sequence.to_be_bytes());
    message.extend(payload);
    if to.is_ipv4() {
        let sum = checksum(&message).to_be_bytes();
        if let Some(field) = message.get_mut(2..4) {
            field.copy_from_slice(&sum);
        }
    }
    message
}

/// The Internet checksum, RFC 1071.
fn checksum(octets: &[u8]) -> u16 {
    let mut sum: u32 = octets
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
            [high] => u32::from(*high) << 8,
            _ => 0,
        })
        .sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

/// RFC 862.
const ECHO_PORT: u16 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_with_its_checksum_sums_to_zero() {
        for payload in [&b"even"[..], b"odd"] {
            let message = echo_request("192.0.2.1".parse().unwrap(), 7, 1, payload);
            assert_eq!(checksum(&message), 0);
        }
    }

    #[test]
    fn only_the_reply_to_the_request_is_taken() {
        let to = "192.0.2.1".parse().unwrap();
        let mut reply = vec![0x45; 20];
        reply.extend([0, 0, 0, 0, 1, 2, 0, 9]);
        assert_eq!(reply_sequence(to, 0x0102, &reply), Some(9));
        assert_eq!(reply_sequence(to, 0x0103, &reply), None);
        reply[20] = 8;
        assert_eq!(reply_sequence(to, 0x0102, &reply), None, "an echo request is no reply");
        assert_eq!(reply_sequence(to, 0x0102, &[]), None);
        let v6 = "2001:db8::1".parse().unwrap();
        assert_eq!(reply_sequence(v6, 0x0102, &[129, 0, 0, 0, 1, 2, 0, 9]), Some(9));
    }
}
