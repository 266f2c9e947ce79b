//! Echo requests to many peers at once, from one socket.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::traffic;

/// What came of the peers of one address.
#[derive(Debug)]
pub(crate) struct Sweep {
    /// The address.
    pub(crate) own: IpAddr,
    /// Its peers.
    pub(crate) peers: Vec<Peer>,
}

/// What came of one peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    /// The peer's address.
    pub(crate) address: IpAddr,
    /// How long the answer to the first request took; `None` if it was lost.
    pub(crate) first: Option<Duration>,
    /// When the first answer of all came, since the beginning.
    pub(crate) working: Option<Duration>,
}

/// Sends one echo request to each peer, and another only where there has been no answer at all
/// for long, until all first requests are answered or `patience` is over. Runs on the calling
/// thread, in its namespace.
pub(crate) fn run(
    own: IpAddr,
    peers: &[IpAddr],
    begin: Instant,
    patience: Duration,
) -> io::Result<Sweep> {
    let (domain, protocol) = match own {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.set_read_timeout(Some(TURN))?;
    let peer = |address: &IpAddr| Peer { address: *address, first: None, working: None };
    let mut sweep = Sweep { own, peers: peers.iter().map(peer).collect() };
    let mut sent = Vec::with_capacity(peers.len());
    for (index, peer) in sweep.peers.iter().enumerate() {
        sent.push(Instant::now());
        send(&socket, peer.address, index, 0);
    }
    let mut round = 0;
    let mut next_round = Instant::now() + AGAIN;
    let mut buffer = [0; 256];
    while begin.elapsed() < patience {
        if sweep.peers.iter().all(|peer| peer.first.is_some()) {
            break;
        }
        if let Ok(length) = (&socket).read(&mut buffer) {
            let received = buffer.get(..length).unwrap_or_default();
            if let Some((index, round)) = reply(own, received) {
                note(&mut sweep, &sent, begin, index, round);
            }
        }
        let last = sweep.peers.iter().map(|peer| peer.working).max().flatten();
        if sweep.peers.iter().all(|peer| peer.working.is_some())
            && last.is_some_and(|last| begin.elapsed() > last + LATE)
        {
            // All works, and what is still missing is lost.
            break;
        }
        if Instant::now() >= next_round {
            round += 1;
            next_round += AGAIN;
            for (index, peer) in sweep.peers.iter().enumerate() {
                if peer.working.is_none() {
                    send(&socket, peer.address, index, round);
                }
            }
        }
    }
    Ok(sweep)
}

fn note(sweep: &mut Sweep, sent: &[Instant], begin: Instant, index: usize, round: u8) {
    let (Some(peer), Some(sent)) = (sweep.peers.get_mut(index), sent.get(index)) else { return };
    if round == 0 && peer.first.is_none() {
        peer.first = Some(sent.elapsed());
    }
    if peer.working.is_none() {
        peer.working = Some(begin.elapsed());
    }
}

fn send(socket: &Socket, to: IpAddr, index: usize, round: u8) {
    let index = u8::try_from(index).unwrap_or(u8::MAX);
    let sequence = u16::from_be_bytes([round, index]);
    let request = traffic::echo_request(to, IDENTIFIER, sequence, PAYLOAD);
    // What is refused here shows as lost.
    let _ = socket.send_to(&request, &SocketAddr::new(to, 0).into());
}

/// The peer's index and the round, if it is a reply to one of our requests.
fn reply(own: IpAddr, received: &[u8]) -> Option<(usize, u8)> {
    let sequence = traffic::reply_sequence(own, IDENTIFIER, received)?;
    let [round, index] = sequence.to_be_bytes();
    Some((usize::from(index), round))
}

/// Tells replies from those to other senders.
const IDENTIFIER: u16 = 0x6d65;
const PAYLOAD: &[u8] = b"oe-node lab mesh";
/// How long a reading waits.
const TURN: Duration = Duration::from_millis(50);
/// Long enough for a whole mesh to come up: one packet each, held and then answered, is the point.
const AGAIN: Duration = Duration::from_secs(5);
/// How long after all others an answer may come.
const LATE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::super::tests::started;
    use super::super::topology;
    use super::*;

    #[test]
    fn all_reach_all_at_once() {
        let Some((_core, hosts)) = started(topology::mesh(6)) else { return };
        let begin = Instant::now();
        let jobs: Vec<_> = hosts
            .iter()
            .flat_map(|host| host.site.addresses().map(|own| (host, own)))
            .map(|(host, own)| {
                let mut peers: Vec<IpAddr> =
                    hosts.iter().map(|peer| peer.site.address_like(own)).collect();
                peers.retain(|peer| *peer != own);
                // And one that nobody has.
                let nobody = if own.is_ipv4() { "192.0.2.30" } else { "2001:db8:105::9" };
                peers.push(nobody.parse().unwrap());
                host.start_job(move || run(own, &peers, begin, Duration::from_secs(2))).unwrap()
            })
            .collect();
        for job in jobs {
            let sweep = job.join().unwrap().unwrap();
            let (nobody, peers) = sweep.peers.split_last().unwrap();
            assert_eq!(peers.len(), 6);
            assert!(peers.iter().all(|peer| peer.first.is_some() && peer.working.is_some()));
            assert!(nobody.first.is_none() && nobody.working.is_none(), "{nobody:?}");
        }
    }
}
