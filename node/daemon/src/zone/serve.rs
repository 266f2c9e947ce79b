//! An authoritative name server over UDP and TCP, for `oe-node zone serve` and the lab.
//!
//! What to answer is [`zonefiles::Catalog`]'s. UDP is hickory-server's, with [`super::answers`]
//! between the two. TCP is served here, because zone transfers go over it: hickory's listener
//! queues a whole transfer at once, ends it after one fixed time, and accepts any number of
//! connections. Zones are replaced as a whole while queries go on.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdTcp, UdpSocket as StdUdp};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use hickory_server::Server;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, warn};
use zonefiles::{Catalog, Prefix, Reply, Transport};

use super::answers::Answers;

/// A UDP and a TCP socket on one address and port, bound in whatever namespace the thread is in.
pub(crate) struct Sockets {
    udp: StdUdp,
    tcp: StdTcp,
}

/// The running server. Dropping it ends it.
pub(crate) struct ZoneServer {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    tasks: JoinSet<()>,
}

struct Shared {
    catalog: RwLock<Arc<Catalog>>,
    secondaries: Vec<Prefix>,
    connections: Semaphore,
}

impl Sockets {
    /// Binds both. Port 0 takes one that is free for both.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..PORT_TRIES {
            let tcp = StdTcp::bind(address)?;
            match StdUdp::bind(tcp.local_addr()?) {
                Ok(udp) => {
                    tcp.set_nonblocking(true)?;
                    udp.set_nonblocking(true)?;
                    // As much as the system allows: resolvers ask in bursts.
                    socket2::SockRef::from(&udp).set_recv_buffer_size(RECEIVE_BUFFER)?;
                    return Ok(Self { udp, tcp });
                }
                Err(e) => last = e,
            }
            if address.port() != 0 {
                break;
            }
        }
        Err(last)
    }
}

impl ZoneServer {
    /// Starts serving; must be called within a tokio runtime. `secondaries` may transfer zones.
    pub(crate) fn start(
        sockets: Vec<Sockets>,
        catalog: Catalog,
        secondaries: Vec<Prefix>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            catalog: RwLock::new(Arc::new(catalog)),
            secondaries,
            connections: Semaphore::new(MAX_CONNECTIONS),
        });
        let mut addresses = Vec::new();
        let mut tasks = JoinSet::new();
        for Sockets { udp, tcp } in sockets {
            addresses.push(udp.local_addr()?);
            tasks.spawn(serve_udp(UdpSocket::from_std(udp)?, Arc::clone(&shared)));
            tasks.spawn(serve_tcp(TcpListener::from_std(tcp)?, Arc::clone(&shared)));
        }
        Ok(Self { shared, addresses, tasks })
    }

    /// The addresses it answers on.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Serves other zones from the next query on.
    pub(crate) fn replace(&self, catalog: Catalog) {
        *write(&self.shared.catalog) = Arc::new(catalog);
    }

    /// What is served now.
    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        self.shared.catalog()
    }

    /// Waits until a socket fails for good.
    pub(crate) async fn failed(&mut self) {
        let _ = self.tasks.join_next().await;
    }
}

impl Shared {
    fn catalog(&self) -> Arc<Catalog> {
        match self.catalog.read() {
            Ok(catalog) => Arc::clone(&catalog),
            Err(poisoned) => Arc::clone(&poisoned.into_inner()),
        }
    }

    fn may_transfer(&self, peer: IpAddr) -> bool {
        self.secondaries.iter().any(|prefix| prefix.contains(peer.to_canonical()))
    }
}

async fn serve_udp(socket: UdpSocket, shared: Arc<Shared>) {
    let mut server = Server::new(Answers::new(move || shared.catalog()));
    server.register_socket(socket);
    if let Err(e) = server.block_until_done().await {
        warn!("no more queries are answered by UDP: {e}");
    }
}

async fn serve_tcp(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    let mut failures = 0;
    while failures < MAX_FAILURES {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, peer)) => {
                failures = 0;
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    // More than that many wait for nothing: the newest is turned away.
                    let Ok(_permit) = shared.connections.try_acquire() else { return };
                    if let Err(e) = converse(stream, peer, &shared).await {
                        debug!("TCP with {peer}: {e}");
                    }
                });
            }
            Err(e) => {
                debug!("accepting: {e}");
                failures += 1;
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    warn!("the TCP socket fails again and again: no more connections are accepted on it");
}

/// Queries one after the other, each with its length in front (RFC 1035 §4.2.2, RFC 7766).
async fn converse(mut stream: TcpStream, peer: SocketAddr, shared: &Shared) -> io::Result<()> {
    loop {
        let mut len = [0; 2];
        match timeout(IDLE, stream.read_exact(&mut len)).await {
            Ok(Ok(_)) => {}
            Ok(Err(e)) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Ok(Err(e)) => return Err(e),
            Err(_) => return Ok(()),
        }
        let mut query = vec![0; usize::from(u16::from_be_bytes(len))];
        within(stream.read_exact(&mut query)).await?;
        match shared.catalog().answer(&query, Transport::Tcp) {
            Reply::Nothing => return Ok(()),
            Reply::Message(answer) => send(&mut stream, &answer).await?,
            Reply::Transfer(transfer) if shared.may_transfer(peer.ip()) => {
                for message in transfer {
                    send(&mut stream, &message).await?;
                }
            }
            Reply::Transfer(transfer) => {
                warn!("{peer} is no secondary of {}: transfer refused", transfer.zone());
                send(&mut stream, &transfer.refuse()).await?;
            }
        }
    }
}

async fn send(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let len = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut framed = Vec::with_capacity(message.len() + 2);
    framed.extend_from_slice(&len.to_be_bytes());
    framed.extend_from_slice(message);
    within(stream.write_all(&framed)).await
}

async fn within<T>(io: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(IDLE, io).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    match lock.write() {
        Ok(guard) => guard,
        Err(poisoned) => poisoned.into_inner(),
    }
}

/// Some four thousand queries, with what the kernel adds to each.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Two file descriptors each would be the whole default limit at 512.
const MAX_CONNECTIONS: usize = 256;
/// RFC 7766 §6.2.3 asks for a few seconds at least.
const IDLE: Duration = Duration::from_secs(10);
/// A socket that fails so often in a row has lost its interface.
const MAX_FAILURES: u32 = 1000;
/// Out of file descriptors: give the others time to end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// Another process may hold the UDP port of a free TCP port.
const PORT_TRIES: u32 = 16;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::str::FromStr as _;

    use hickory_proto::dnssec::{Proof, TrustAnchors};
    use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
    use hickory_proto::rr::RecordType;
    use hickory_resolver::config::{
        ConnectionConfig, NameServerConfig, ProtocolConfig, ResolverConfig,
    };
    use hickory_resolver::net::runtime::TokioRuntimeProvider;
    use hickory_resolver::net::{DnsError, NetError};
    use hickory_resolver::{Resolver, TokioResolver};
    use zonefiles::chain::root_chain;
    use zonefiles::{Apex, Name, Record, Rtype, Zone};

    use super::*;
    use crate::zone::keys::ZoneKeys;
    use crate::zone::signed::{ServedZone, make_bogus, sign_zones};

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn txt(owner: &str, text: &str) -> Record {
        Record::txt(name(owner), 300, text.as_bytes())
    }

    /// Root, arpa, in-addr.arpa, ip6.arpa, a signed and an unsigned leaf, a signed IPv6 leaf.
    fn world() -> Vec<ServedZone> {
        let server = name("ns.lab");
        let apex = Apex::new(server.clone(), 1);
        let mut v4 = Zone::new(name("2.0.192.in-addr.arpa"), &apex);
        v4.push(txt("11.2.0.192.in-addr.arpa", "X-IPsec-Server(10)=192.0.2.11 AQ"));
        v4.push(Record::cname(
            name("12.2.0.192.in-addr.arpa"),
            300,
            &name("12.8/29.2.0.192.in-addr.arpa"),
        ));
        v4.push(txt("12.8/29.2.0.192.in-addr.arpa", "classless"));
        v4.push(txt("13.2.0.192.in-addr.arpa", "bogus"));
        let long = "k".repeat(3000);
        v4.push(txt("14.2.0.192.in-addr.arpa", &long));
        let mut unsigned = Zone::new(name("100.51.198.in-addr.arpa"), &apex);
        unsigned.push(txt("1.100.51.198.in-addr.arpa", "insecure"));
        let mut v6 = Zone::new(name("8.b.d.0.1.0.0.2.ip6.arpa"), &apex);
        v6.push(txt("*.8.b.d.0.1.0.0.2.ip6.arpa", "wild"));
        v6.push(txt(&Name::reverse("2001:db8::1".parse().unwrap()).to_string(), "six"));
        let unsigned_origin = unsigned.origin.clone();
        root_chain(vec![v4, unsigned, v6], &apex, &[(server, [127, 0, 0, 1].into())])
            .into_iter()
            .map(|zone| {
                let sign = zone.origin != unsigned_origin;
                ServedZone { zone, sign }
            })
            .collect()
    }

    struct Running {
        _server: ZoneServer,
        resolver: TokioResolver,
    }

    /// The validator is told the anchor through a file, as the daemon is.
    fn start(zones: Vec<ServedZone>) -> Running {
        let tamper = |zone: &mut zonefiles::SortedZone| {
            make_bogus(zone, &name("13.2.0.192.in-addr.arpa"), Rtype::TXT);
        };
        let lifetime = Duration::from_secs(86_400);
        let signed =
            sign_zones(zones, &mut ZoneKeys::ephemeral(), lifetime, Some(&tamper)).unwrap();
        let sockets = Sockets::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let server = ZoneServer::start(vec![sockets], signed.catalog, Vec::new()).unwrap();
        let address = server.addresses()[0];
        let file = std::env::temp_dir().join(format!("oe-anchor-{}", address.port()));
        std::fs::write(&file, &signed.trust_anchors).unwrap();
        let anchors = TrustAnchors::from_file(&file).unwrap();
        std::fs::remove_file(file).unwrap();
        let ways = [ProtocolConfig::Udp, ProtocolConfig::Tcp].map(|protocol| {
            let mut way = ConnectionConfig::new(protocol);
            way.port = address.port();
            way
        });
        let config = ResolverConfig::from_name_servers(vec![NameServerConfig::new(
            address.ip(),
            true,
            ways.to_vec(),
        )]);
        let resolver = Resolver::builder_with_config(config, TokioRuntimeProvider::default())
            .with_trust_anchor(Arc::new(anchors))
            .build()
            .unwrap();
        Running { _server: server, resolver }
    }

    async fn ask(running: &Running, owner: &str) -> Result<Vec<Proof>, NetError> {
        let owner = hickory_proto::rr::Name::from_str(owner).unwrap();
        let found = running.resolver.lookup(owner, RecordType::TXT).await?;
        let texts = found.answers().iter().filter(|r| r.record_type() == RecordType::TXT);
        Ok(texts.map(|r| r.proof).collect())
    }

    #[tokio::test]
    async fn a_chain_from_the_root_validates() {
        let running = start(world());
        let six = Name::reverse("2001:db8::1".parse().unwrap()).to_string();
        let wild = Name::reverse("2001:db8:8000::1".parse().unwrap()).to_string();
        let expected = BTreeMap::from([
            ("11.2.0.192.in-addr.arpa.", Proof::Secure),
            ("12.2.0.192.in-addr.arpa.", Proof::Secure),
            // Truncated, then by TCP.
            ("14.2.0.192.in-addr.arpa.", Proof::Secure),
            ("1.100.51.198.in-addr.arpa.", Proof::Insecure),
            (six.as_str(), Proof::Secure),
            (wild.as_str(), Proof::Secure),
        ]);
        for (owner, proof) in expected {
            assert_eq!(ask(&running, owner).await.unwrap(), [proof], "{owner}");
        }
    }

    /// RUSTSEC-2025-0006.
    #[tokio::test]
    async fn what_was_altered_after_signing_is_bogus() {
        let running = start(world());
        let error = ask(&running, "13.2.0.192.in-addr.arpa.").await.unwrap_err();
        assert!(matches!(error, NetError::Dns(DnsError::DnssecBogus)), "{error:?}");
    }

    #[tokio::test]
    async fn denial_is_proved() {
        let running = start(world());
        for owner in [
            "99.2.0.192.in-addr.arpa.",
            // Only names below it exist.
            "29.2.0.192.in-addr.arpa.",
            "2.0.192.in-addr.arpa.",
            "7.7.7.in-addr.arpa.",
        ] {
            match ask(&running, owner).await.unwrap_err() {
                NetError::Dns(DnsError::NoRecordsFound(none)) => {
                    let authorities = none.authorities.unwrap();
                    assert!(!authorities.is_empty(), "{owner}");
                    assert!(authorities.iter().all(|r| r.proof == Proof::Secure), "{owner}");
                }
                other => panic!("{owner}: {other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_leaf_can_be_the_anchor_itself() {
        let zones = world().into_iter().filter(|z| z.zone.origin == name("2.0.192.in-addr.arpa"));
        let running = start(zones.collect());
        let proofs = ask(&running, "11.2.0.192.in-addr.arpa.").await.unwrap();
        assert_eq!(proofs, [Proof::Secure]);
    }

    /// One query of type TXT over UDP, with EDNS of that size and DO if there is a size.
    fn raw(server: SocketAddr, owner: &str, edns: Option<u16>) -> (usize, Message) {
        let mut query = Message::new(7, MessageType::Query, OpCode::Query);
        let owner = hickory_proto::rr::Name::from_str(owner).unwrap();
        query.add_query(Query::query(owner, RecordType::TXT));
        if let Some(size) = edns {
            let mut edns = Edns::new();
            edns.set_max_payload(size).set_dnssec_ok(true);
            query.edns = Some(edns);
        }
        let socket = StdUdp::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket.send_to(&query.to_vec().unwrap(), server).unwrap();
        let mut answer = [0; 4096];
        let len = socket.recv(&mut answer).unwrap();
        (len, Message::from_vec(&answer[..len]).unwrap())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn udp_keeps_to_size_and_do() {
        let running = start(world());
        let server = running._server.addresses()[0];
        let signed = |m: &Message| {
            let mut all = m.answers.iter().chain(&m.authorities);
            all.any(|r| matches!(r.record_type(), RecordType::RRSIG | RecordType::NSEC))
        };
        let (_, plain) = raw(server, "11.2.0.192.in-addr.arpa.", None);
        assert!(plain.metadata.authoritative && plain.edns.is_none() && !signed(&plain));
        assert_eq!(plain.answers.len(), 1);
        let (_, with) = raw(server, "11.2.0.192.in-addr.arpa.", Some(1232));
        assert!(signed(&with) && with.edns.is_some_and(|edns| edns.flags().dnssec_ok));
        let (_, none) = raw(server, "99.2.0.192.in-addr.arpa.", None);
        assert_eq!(none.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(none.authorities.len(), 1);
        assert_eq!(none.authorities[0].record_type(), RecordType::SOA);
        let (len, long) = raw(server, "14.2.0.192.in-addr.arpa.", Some(4096));
        assert!(len <= 1232 && long.metadata.truncation && long.answers.is_empty());
        let (len, whole) = raw(server, "99.2.0.192.in-addr.arpa.", Some(1232));
        assert!(!whole.metadata.truncation && signed(&whole));
        // Around the size where it stops to fit: whole, or nothing but TC, never more than asked.
        for size in (512..1232).step_by(8) {
            let (got, m) = raw(server, "99.2.0.192.in-addr.arpa.", Some(size));
            assert!(got <= usize::from(size) && m.edns.is_some());
            let fits = len <= usize::from(size);
            assert_eq!((m.metadata.truncation, m.authorities.is_empty()), (!fits, !fits), "{size}");
        }
    }
}
