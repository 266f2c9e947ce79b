//! Is a daemon there? One IKE_SA_INIT request (RFC 7296 §1.2) and what comes back.
//!
//! The request is complete, so that a real daemon answers it; nothing is done with the answer but
//! to read its head.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use aws_lc_rs::agreement::{EphemeralPrivateKey, X25519};
use aws_lc_rs::rand::SystemRandom;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

/// What came back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Probed {
    /// An IKEv2 daemon: it answered after this long.
    Answered {
        /// How it answered.
        answer: Answer,
        /// From the request that it answered, in milliseconds.
        millis: u128,
    },
    /// Nothing came back.
    Silent,
    /// The address says that nobody listens on UDP 500.
    PortClosed,
    /// This machine could not send.
    Unsendable,
}

/// How a daemon answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    /// It accepted the proposal.
    Accepted,
    /// It wants a cookie first (§2.6): it is busy, or careful.
    Cookie,
    /// It refused with this notify.
    Refused(u16),
    /// It speaks IKE, of another major version.
    OtherVersion(u8),
    /// IKEv2, and nothing we know.
    Other,
}

/// Calls a gateway and waits for the first answer.
pub(crate) async fn call(gateway: IpAddr, mark: Option<u32>) -> Probed {
    let Some((socket, request)) = prepare(gateway, mark) else { return Probed::Unsendable };
    let mut buffer = vec![0; MAX_ANSWER];
    for wait in TRIES {
        let sent = Instant::now();
        if let Err(error) = socket.send(&request.octets).await {
            return match error.kind() {
                std::io::ErrorKind::ConnectionRefused => Probed::PortClosed,
                _ => Probed::Unsendable,
            };
        }
        let answer = async {
            loop {
                let len = socket.recv(&mut buffer).await?;
                // Anybody may send; only an answer to this request counts.
                if let Some(answer) = buffer.get(..len).and_then(|o| read(o, request.spi)) {
                    return Ok::<Answer, std::io::Error>(answer);
                }
            }
        };
        match tokio::time::timeout(wait, answer).await {
            Ok(Ok(answer)) => {
                return Probed::Answered { answer, millis: sent.elapsed().as_millis() };
            }
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                return Probed::PortClosed;
            }
            Ok(Err(_)) | Err(_) => {}
        }
    }
    Probed::Silent
}

/// A request, and the SPI by which its answer is known.
struct Request {
    spi: [u8; 8],
    octets: Vec<u8>,
}

fn prepare(gateway: IpAddr, mark: Option<u32>) -> Option<(UdpSocket, Request)> {
    let remote = SocketAddr::new(gateway, 500);
    let socket =
        Socket::new(Domain::for_address(remote), Type::DGRAM.nonblocking(), Some(Protocol::UDP));
    let socket = socket.ok()?;
    if let Some(mark) = mark {
        // Without the privilege the probe still goes out, through the trap if there is one.
        let _ = socket.set_mark(mark);
    }
    // And it is answered, unless a daemon of this machine has a pair with that gateway.
    let _ = crate::kernel::hear_answers(&socket, Domain::for_address(remote));
    let any: IpAddr = match gateway {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    socket.bind(&SocketAddr::new(any, 0).into()).ok()?;
    socket.connect(&remote.into()).ok()?;
    let socket = UdpSocket::from_std(socket.into()).ok()?;
    Some((socket, request()?))
}

/// IKE_SA_INIT: SA, KE, Nonce, and the hashes we could check (RFC 7427 §4).
fn request() -> Option<Request> {
    let random = SystemRandom::new();
    let private = EphemeralPrivateKey::generate(&X25519, &random).ok()?;
    let public = private.compute_public_key().ok()?;
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).ok()?;
    let mut spi = [0; 8];
    getrandom::fill(&mut spi).ok()?;
    let hashes =
        [&[0, 0][..], &SIGNATURE_HASH_ALGORITHMS.to_be_bytes(), &[0, 2, 0, 3, 0, 4]].concat();
    let ke = [&X25519_GROUP.to_be_bytes()[..], &[0, 0], public.as_ref()].concat();
    let mut body = payload(KE, &proposals());
    body.extend(payload(NONCE, &ke));
    body.extend(payload(NOTIFY, &nonce));
    body.extend(payload(NONE, &hashes));
    let len = u32::try_from(HEADER + body.len()).ok()?;
    let mut octets = spi.to_vec();
    octets.extend_from_slice(&[0; 8]);
    octets.extend_from_slice(&[SA, VERSION_2, IKE_SA_INIT, INITIATOR]);
    octets.extend_from_slice(&[0; 4]);
    octets.extend_from_slice(&len.to_be_bytes());
    octets.extend(body);
    Some(Request { spi, octets })
}

/// Two proposals (§3.3), one for daemons of this decade and one for those of the last.
fn proposals() -> Vec<u8> {
    let gcm = [
        transform(1, 20, Some(256)),
        transform(2, 5, None),
        transform(4, X25519_GROUP, None),
        transform(4, 19, None),
        transform(4, 14, None),
    ];
    let cbc = [
        transform(1, 12, Some(256)),
        transform(2, 5, None),
        transform(3, 12, None),
        transform(4, X25519_GROUP, None),
        transform(4, 19, None),
        transform(4, 14, None),
    ];
    let mut proposals = proposal(2, 1, &gcm);
    proposals.extend(proposal(0, 2, &cbc));
    proposals
}

fn proposal(more: u8, number: u8, transforms: &[Vec<u8>]) -> Vec<u8> {
    let mut body = Vec::new();
    for (at, transform) in transforms.iter().enumerate() {
        body.push(if at + 1 < transforms.len() { 3 } else { 0 });
        body.extend_from_slice(transform);
    }
    let count = u8::try_from(transforms.len()).unwrap_or(0);
    let len = u16::try_from(8 + body.len()).unwrap_or(0).to_be_bytes();
    [&[more, 0][..], &len, &[number, 1, 0, count], &body].concat()
}

/// Without its first octet, which says whether another follows.
fn transform(kind: u8, id: u16, key_bits: Option<u16>) -> Vec<u8> {
    let attribute = key_bits
        .map_or(Vec::new(), |bits| [&0x800e_u16.to_be_bytes()[..], &bits.to_be_bytes()].concat());
    let len = u16::try_from(8 + attribute.len()).unwrap_or(0).to_be_bytes();
    [&[0][..], &len, &[kind, 0], &id.to_be_bytes(), &attribute].concat()
}

fn payload(next: u8, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(4 + body.len()).unwrap_or(0).to_be_bytes();
    [&[next, 0][..], &len, body].concat()
}

/// Reads the head of an answer; `None` if it is not one to this request.
fn read(octets: &[u8], spi: [u8; 8]) -> Option<Answer> {
    let (header, body) = octets.split_first_chunk::<HEADER>()?;
    let [
        theirs @ ..,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        first,
        version,
        exchange,
        flags,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
    ] = header;
    if *theirs != spi {
        return None;
    }
    if version >> 4 != 2 {
        return Some(Answer::OtherVersion(version >> 4));
    }
    if *exchange != IKE_SA_INIT || flags & RESPONSE == 0 {
        return None;
    }
    match *first {
        SA => Some(Answer::Accepted),
        NOTIFY => match body {
            // Payload head, protocol, SPI size, type.
            [_, _, _, _, _, _, high, low, ..] => match u16::from_be_bytes([*high, *low]) {
                COOKIE => Some(Answer::Cookie),
                notify => Some(Answer::Refused(notify)),
            },
            _ => Some(Answer::Other),
        },
        _ => Some(Answer::Other),
    }
}

/// A second and a third try against loss; the whole stays below four seconds.
const TRIES: [Duration; 3] =
    [Duration::from_millis(500), Duration::from_millis(1000), Duration::from_millis(2000)];

/// An IKE_SA_INIT answer with every certificate authority in the world fits.
const MAX_ANSWER: usize = 4096;

const HEADER: usize = 28;
const NONE: u8 = 0;
const SA: u8 = 33;
const KE: u8 = 34;
const NONCE: u8 = 40;
const NOTIFY: u8 = 41;
const VERSION_2: u8 = 0x20;
const IKE_SA_INIT: u8 = 34;
const INITIATOR: u8 = 0x08;
const RESPONSE: u8 = 0x20;
const X25519_GROUP: u16 = 31;
const SIGNATURE_HASH_ALGORITHMS: u16 = 16431;
const COOKIE: u16 = 16390;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_is_well_formed() {
        let request = request().unwrap();
        let octets = &request.octets;
        assert_eq!(octets[..8], request.spi);
        assert_eq!(octets[16..20], [SA, VERSION_2, IKE_SA_INIT, INITIATOR]);
        assert_eq!(octets[24..28], u32::try_from(octets.len()).unwrap().to_be_bytes());
        // The chain of payloads ends exactly at the end.
        let (mut next, mut at, mut seen) = (SA, HEADER, Vec::new());
        while next != NONE {
            seen.push(next);
            let len = usize::from(u16::from_be_bytes([octets[at + 2], octets[at + 3]]));
            next = octets[at];
            at += len;
        }
        assert_eq!(at, octets.len());
        assert_eq!(seen, [SA, KE, NONCE, NOTIFY]);
        assert!(octets.len() < 1200, "no fragments");
    }

    fn answer(first: u8, version: u8, body: &[u8]) -> Vec<u8> {
        let head = [&[7; 8][..], &[9; 8], &[first, version, IKE_SA_INIT, RESPONSE], &[0; 8]];
        [&head.concat()[..], body].concat()
    }

    #[test]
    fn answers_are_told_apart() {
        let notify = |kind: u16| [&[0, 0, 0, 8, 0, 0][..], &kind.to_be_bytes()].concat();
        for (octets, expected) in [
            (answer(SA, 0x20, &[]), Some(Answer::Accepted)),
            (answer(NOTIFY, 0x20, &notify(COOKIE)), Some(Answer::Cookie)),
            (answer(NOTIFY, 0x20, &notify(14)), Some(Answer::Refused(14))),
            (answer(NOTIFY, 0x20, &[]), Some(Answer::Other)),
            (answer(KE, 0x20, &[]), Some(Answer::Other)),
            (answer(NOTIFY, 0x10, &[]), Some(Answer::OtherVersion(1))),
            (vec![7; 27], None),
            (Vec::new(), None),
        ] {
            assert_eq!(read(&octets, [7; 8]), expected, "{octets:?}");
        }
        assert_eq!(read(&answer(SA, 0x20, &[]), [8; 8]), None, "another request's");
        let mut own = answer(SA, 0x20, &[]);
        own[19] = INITIATOR;
        assert_eq!(read(&own, [7; 8]), None, "a request, not a response");
    }
}
