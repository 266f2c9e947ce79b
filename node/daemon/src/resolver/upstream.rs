//! Questions to the configured servers: UDP, then TCP if the answer did not fit.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dnskeys::Failure;
use hickory_net::runtime::TokioRuntimeProvider;
use hickory_net::xfer::{DnsHandle, DnsResponseStream};
use hickory_net::{DnsError, NetError};
use hickory_proto::op::{
    DnsRequest, DnsRequestOptions, DnsResponse, Message, MessageType, Query, ResponseCode,
};
use hickory_proto::rr::{Name, Record, RecordType};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::sync::watch;

/// How long one server has for one answer over UDP. Two rounds over two servers fit the time of a
/// lookup.
const UDP_TIMEOUT: Duration = Duration::from_millis(1200);

/// How long one server has for one answer over TCP, connection included.
const TCP_TIMEOUT: Duration = Duration::from_millis(2500);

/// How often the list of servers is gone through.
const ROUNDS: usize = 2;

/// The largest answer over UDP that we take, whatever the server thinks of our EDNS size.
const UDP_BUFFER: usize = 4096;

/// Questions that one lookup may cause. A chain of trust under `ip6.arpa` takes up to two for
/// each of 34 labels; what takes more is somebody's trap.
const MAX_QUESTIONS: u32 = 128;

/// What asking was like: the part of a lookup that the validator does not tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Exchange {
    /// Questions sent, without repetitions.
    pub(crate) questions: u32,
    /// At least one answer did not fit into UDP.
    pub(crate) truncated: bool,
    /// At least one answer came over TCP.
    pub(crate) tcp: bool,
    /// The last question that stayed without an answer.
    pub(crate) failure: Option<Failure>,
}

tokio::task_local! {
    /// The exchange of the lookup that this task is working on. The validator asks its own
    /// questions through [`Upstream`]'s trait, which has no room for it.
    static EXCHANGE: RefCell<Exchange>;
}

/// Runs a lookup and tells what asking was like.
pub(super) async fn traced<T>(lookup: impl Future<Output = T>) -> (T, Exchange) {
    EXCHANGE
        .scope(RefCell::default(), async {
            let result = lookup.await;
            (result, EXCHANGE.with(|e| *e.borrow()))
        })
        .await
}

fn note(change: impl FnOnce(&mut Exchange)) {
    // Outside a traced lookup there is nobody to tell.
    let _ = EXCHANGE.try_with(|e| change(&mut e.borrow_mut()));
}

/// An answer of one server, not validated.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    /// The response code.
    pub(crate) code: ResponseCode,
    /// Whether the server is authoritative for it.
    pub(crate) authoritative: bool,
    /// The answer section.
    pub(crate) answers: Vec<Record>,
    /// The authority section.
    pub(crate) authorities: Vec<Record>,
}

impl Reply {
    fn new(response: &DnsResponse) -> Self {
        Self {
            code: response.metadata.response_code,
            authoritative: response.metadata.authoritative,
            answers: response.answers.clone(),
            authorities: response.authorities.clone(),
        }
    }
}

/// The servers of the configuration, as hickory's validator wants to ask them.
#[derive(Clone)]
pub(super) struct Upstream(Arc<Servers>);

struct Servers {
    addresses: Vec<SocketAddr>,
    mark: Option<u32>,
    /// Index of the server that answered last: the first to be asked.
    preferred: AtomicUsize,
    /// Questions under way, as they are on the wire but for their id, and where their answers
    /// will be. At most one for each lookup.
    flights: Mutex<HashMap<Vec<u8>, watch::Receiver<Landed>>>,
}

/// What came of a question, once something has.
type Landed = Option<Result<DnsResponse, Failure>>;

/// A question under way; over when dropped.
struct Flight<'a> {
    servers: &'a Servers,
    question: &'a [u8],
    landed: watch::Sender<Landed>,
}

/// Whether to ask or to wait for who asks.
enum Berth<'a> {
    Steering(Flight<'a>),
    Waiting(watch::Receiver<Landed>),
}

impl Servers {
    fn board<'a>(&'a self, question: &'a [u8]) -> Berth<'a> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = flights.get(question) {
            return Berth::Waiting(answer.clone());
        }
        let (landed, answer) = watch::channel(None);
        flights.insert(question.to_vec(), answer);
        Berth::Steering(Flight { servers: self, question, landed })
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut flights = self.servers.flights.lock().unwrap_or_else(PoisonError::into_inner);
        flights.remove(self.question);
    }
}

/// The servers of `/etc/resolv.conf`.
pub(super) fn system_servers() -> Result<Vec<SocketAddr>, String> {
    let (config, _) =
        hickory_resolver::system_conf::read_system_conf().map_err(|e| e.to_string())?;
    let servers: Vec<SocketAddr> =
        config.name_servers.iter().map(|server| SocketAddr::new(server.ip, 53)).collect();
    if servers.is_empty() { Err("no nameserver line".to_owned()) } else { Ok(servers) }
}

impl DnsHandle for Upstream {
    type Response = DnsResponseStream;
    type Runtime = TokioRuntimeProvider;

    fn send(&self, request: DnsRequest) -> Self::Response {
        let this = self.clone();
        let (message, _) = request.into_parts();
        DnsResponseStream::from(Box::pin(async move {
            this.exchange(message).await.map_err(as_net_error)
        }))
    }
}

/// The validator passes errors through or calls them bogus; which failure it was is in
/// [`Exchange`].
fn as_net_error(failure: Failure) -> NetError {
    match failure {
        Failure::Timeout => NetError::Timeout,
        Failure::ServFail => DnsError::ResponseCode(ResponseCode::ServFail).into(),
        Failure::Refused => DnsError::ResponseCode(ResponseCode::Refused).into(),
        Failure::Truncated => NetError::Truncated,
        Failure::Unreachable => NetError::NoConnections,
    }
}

impl Upstream {
    pub(super) fn new(addresses: Vec<SocketAddr>, mark: Option<u32>) -> Self {
        Self(Arc::new(Servers {
            addresses,
            mark,
            preferred: AtomicUsize::new(0),
            flights: Mutex::default(),
        }))
    }

    /// The keys at a name, not validated: the raw material of a DS anchor.
    pub(super) async fn keys(&self, zone: &Name) -> Result<DnsResponse, Failure> {
        let mut options = DnsRequestOptions::default();
        options.edns_set_dnssec_ok = true;
        let query = Query::query(zone.clone(), RecordType::DNSKEY);
        self.exchange(DnsRequest::from_query(query, options).into_parts().0).await
    }

    /// Asks one server, without recursion.
    pub(super) async fn ask_directly(
        &self,
        server: SocketAddr,
        name: Name,
        kind: RecordType,
    ) -> Result<Reply, Failure> {
        let mut options = DnsRequestOptions::default();
        options.recursion_desired = false;
        let mut message = DnsRequest::from_query(Query::query(name, kind), options).into_parts().0;
        let first = self.ask(server, &mut message).await;
        let response = if matches!(first, Err(Failure::Timeout)) {
            self.ask(server, &mut message).await
        } else {
            first
        };
        Ok(Reply::new(&response?))
    }

    /// Asks the configured servers for records with their signatures, and to leave the judgement
    /// to us (CD, RFC 4035 §3.2.2).
    pub(super) async fn ask_unvalidated(
        &self,
        name: Name,
        kind: RecordType,
    ) -> Result<Reply, Failure> {
        let mut options = DnsRequestOptions::default();
        options.edns_set_dnssec_ok = true;
        let mut message = DnsRequest::from_query(Query::query(name, kind), options).into_parts().0;
        message.metadata.checking_disabled = true;
        Ok(Reply::new(&self.exchange(message).await?))
    }

    /// One question, to one server after the other.
    ///
    /// A validating server answers SERVFAIL to what it finds bogus. Then it is asked once more to
    /// let us judge (CD, RFC 4035 §3.2.2): only so can "bogus" be told from "broken".
    async fn exchange(&self, mut message: Message) -> Result<DnsResponse, Failure> {
        let mut within_budget = true;
        note(|e| {
            e.questions += 1;
            within_budget = e.questions <= MAX_QUESTIONS;
        });
        let result = if within_budget {
            match self.ask_together(&mut message).await {
                Err(Failure::ServFail) => {
                    message.metadata.checking_disabled = true;
                    self.ask_together(&mut message).await
                }
                other => other,
            }
        } else {
            Err(Failure::ServFail)
        };
        if let Err(failure) = &result {
            note(|e| e.failure = Some(*failure));
        }
        result
    }

    /// Asks once for all who ask the same at the same time: lookups that start together all want
    /// the keys of the zones above, and a burst of a thousand questions loses some on the way.
    async fn ask_together(&self, message: &mut Message) -> Result<DnsResponse, Failure> {
        message.metadata.id = 0;
        let question = message.to_vec().map_err(|_| Failure::Unreachable)?;
        loop {
            let mut answer = match self.0.board(&question) {
                Berth::Steering(flight) => {
                    let result = self.ask_each(message).await;
                    flight.landed.send_replace(Some(result.clone()));
                    return result;
                }
                Berth::Waiting(answer) => answer,
            };
            // Who asked may have given up: then somebody else has to.
            if let Ok(result) = answer.wait_for(Option::is_some).await
                && let Some(result) = result.clone()
            {
                return result;
            }
        }
    }

    /// Asks the servers in turn until one answers. If none does, says what the first that said
    /// anything said.
    async fn ask_each(&self, message: &mut Message) -> Result<DnsResponse, Failure> {
        let count = self.0.addresses.len();
        let first = self.0.preferred.load(Ordering::Relaxed);
        let mut said = None;
        for turn in 0..count * ROUNDS {
            let index = (first + turn) % count;
            let Some(server) = self.0.addresses.get(index) else { continue };
            match self.ask(*server, message).await.and_then(checked) {
                Ok(response) => {
                    self.0.preferred.store(index, Ordering::Relaxed);
                    return Ok(response);
                }
                // Repeating helps only against loss, and against who says that nobody is there.
                Err(Failure::Timeout) => {}
                Err(Failure::Unreachable) => said = said.or(Some(Failure::Unreachable)),
                Err(failure) => {
                    said = said.or(Some(failure));
                    if turn + 1 >= count {
                        break;
                    }
                }
            }
        }
        Err(said.unwrap_or(Failure::Timeout))
    }

    /// One question to one server.
    async fn ask(&self, server: SocketAddr, message: &mut Message) -> Result<DnsResponse, Failure> {
        let mut id = [0; 2];
        getrandom::fill(&mut id).map_err(|_| Failure::Unreachable)?;
        message.metadata.id = u16::from_be_bytes(id);
        let octets = message.to_vec().map_err(|_| Failure::Unreachable)?;
        let mut refused = false;
        let udp = self.over_udp(server, &octets, message, &mut refused);
        let response = match tokio::time::timeout(UDP_TIMEOUT, udp).await {
            Err(_) if refused => return Err(Failure::Unreachable),
            Err(_) => return Err(Failure::Timeout),
            Ok(Err(_)) => return Err(Failure::Unreachable),
            Ok(Ok(response)) => response,
        };
        if !response.metadata.truncation {
            return Ok(response);
        }
        note(|e| e.truncated = true);
        let tcp = tokio::time::timeout(TCP_TIMEOUT, self.over_tcp(server, &octets, message)).await;
        let response = tcp.ok().and_then(Result::ok).ok_or(Failure::Truncated)?;
        note(|e| e.tcp = true);
        Ok(response)
    }

    /// A new socket for every question, and with it a port that nobody can know beforehand. It is
    /// connected, so that the kernel takes answers from this server only, and tells us of ICMP errors
    /// about it. Those that come from the network anybody can forge who guesses the port: they are
    /// no answer, and the real one may still come (rule 26 says the same of IKE). If none does,
    /// `refused` says that there were some.
    async fn over_udp(
        &self,
        server: SocketAddr,
        octets: &[u8],
        asked: &Message,
        refused: &mut bool,
    ) -> io::Result<DnsResponse> {
        let socket = self.socket(server, Type::DGRAM, Protocol::UDP)?;
        let any = match server {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        socket.bind(&any.into())?;
        socket.connect(&server.into())?;
        let socket = UdpSocket::from_std(socket.into())?;
        socket.send(octets).await?;
        let mut buffer = vec![0; UDP_BUFFER];
        loop {
            let len = match socket.recv(&mut buffer).await {
                Ok(len) => len,
                Err(error) if server.ip().is_loopback() => return Err(error),
                Err(_) => {
                    *refused = true;
                    continue;
                }
            };
            if let Some(response) = buffer.get(..len).and_then(|octets| parse(octets, asked)) {
                return Ok(response);
            }
        }
    }

    async fn over_tcp(
        &self,
        server: SocketAddr,
        octets: &[u8],
        asked: &Message,
    ) -> io::Result<DnsResponse> {
        let socket = self.socket(server, Type::STREAM, Protocol::TCP)?;
        let mut stream: TcpStream =
            TcpSocket::from_std_stream(socket.into()).connect(server).await?;
        let len = u16::try_from(octets.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut framed = len.to_be_bytes().to_vec();
        framed.extend_from_slice(octets);
        stream.write_all(&framed).await?;
        let len = stream.read_u16().await?;
        let mut buffer = vec![0; len.into()];
        stream.read_exact(&mut buffer).await?;
        parse(&buffer, asked).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn socket(&self, server: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(server), kind.nonblocking(), Some(protocol))?;
        if let Some(mark) = self.0.mark {
            socket.set_mark(mark)?;
        }
        Ok(socket)
    }
}

/// The response to this very question, or nothing: anybody may send to our port.
fn parse(octets: &[u8], asked: &Message) -> Option<DnsResponse> {
    let response = DnsResponse::from_buffer(octets.to_vec()).ok()?;
    let answers_it = response.metadata.id == asked.metadata.id
        && response.metadata.message_type == MessageType::Response
        && response.queries == asked.queries;
    answers_it.then_some(response)
}

/// Turns response codes that are no answers into failures.
fn checked(response: DnsResponse) -> Result<DnsResponse, Failure> {
    match response.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => Ok(response),
        ResponseCode::ServFail => Err(Failure::ServFail),
        _ => Err(Failure::Refused),
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;

    use super::*;

    /// A server that answers each question after a while, with nothing; and how many came.
    async fn slow_server() -> (Upstream, Arc<AtomicUsize>) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let upstream = Upstream::new(vec![socket.local_addr().unwrap()], None);
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((len, peer)) = socket.recv_from(&mut buffer).await {
                count.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(50)).await;
                buffer[2] |= 0x80;
                socket.send_to(&buffer[..len], peer).await.unwrap();
            }
        });
        (upstream, asked)
    }

    fn ask(upstream: &Upstream) -> tokio::task::JoinHandle<Result<Reply, Failure>> {
        let upstream = upstream.clone();
        let name = Name::from_str("in-addr.arpa.").unwrap();
        tokio::spawn(async move { upstream.ask_unvalidated(name, RecordType::DNSKEY).await })
    }

    /// Attack A47.
    #[tokio::test]
    async fn the_same_question_at_the_same_time_is_asked_once() {
        let (upstream, asked) = slow_server().await;
        let asking: Vec<_> = (0..20).map(|_| ask(&upstream)).collect();
        for answer in asking {
            assert_eq!(answer.await.unwrap().unwrap().code, ResponseCode::NoError);
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        ask(&upstream).await.unwrap().unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 2, "what is over is no cache");
        assert!(upstream.0.flights.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn who_gives_up_takes_nobody_along() {
        let (upstream, asked) = slow_server().await;
        let first = ask(&upstream);
        while asked.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let second = ask(&upstream);
        tokio::task::yield_now().await;
        first.abort();
        assert_eq!(second.await.unwrap().unwrap().code, ResponseCode::NoError);
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }
}
