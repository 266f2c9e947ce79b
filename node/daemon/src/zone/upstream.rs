//! A primary server that takes updates: queries and UPDATE messages over one TCP connection,
//! signed with TSIG (RFC 2136, RFC 8945).

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, anyhow, bail};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{TSigVerifier, TSigner};
use zonefiles::diff::Change;
use zonefiles::update::{messages, query, reconcile, withdraw};
use zonefiles::{Name, Record, Rtype};

/// The connection.
pub(crate) struct Upstream {
    stream: TcpStream,
    server: SocketAddr,
    tsig: Option<TSigner>,
    next_id: u16,
}

/// What a server should be made to hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Goal {
    /// Of each name and type exactly these; foreign TXT stays.
    Exactly,
    /// These beside what is there.
    AtLeast,
    /// None of these.
    Without,
}

/// What was found, and what to change.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) changes: Vec<Change>,
    /// Records that are as they should be.
    pub(crate) right: usize,
    /// The longest TTL that the server gave for what it has of these names and types.
    pub(crate) longest_ttl: u32,
}

impl Upstream {
    pub(crate) fn connect(server: SocketAddr, tsig: Option<TSigner>) -> anyhow::Result<Self> {
        let stream = TcpStream::connect_timeout(&server, PATIENCE)
            .with_context(|| format!("cannot reach {server} by TCP"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, server, tsig, next_id: 1 })
    }

    /// Asks for what the server has of each name and type in `wanted`, and says what must change.
    pub(crate) fn plan(&mut self, wanted: Vec<Record>, goal: Goal) -> anyhow::Result<Plan> {
        let mut wanted = wanted;
        wanted.sort();
        wanted.dedup();
        let sets: Vec<&[Record]> =
            wanted.chunk_by(|a, b| a.owner == b.owner && a.rtype == b.rtype).collect();
        let mut plan = Plan::default();
        for window in sets.chunks(WINDOW) {
            let questions = window
                .iter()
                .filter_map(|set| set.first())
                .map(|first| Ok(query(0, &first.owner, first.rtype)?))
                .collect::<anyhow::Result<Vec<Message>>>()?;
            for (set, answer) in window.iter().zip(self.exchange(questions)?) {
                let present = present(set, &answer)?;
                let ttls = present.iter().map(|record| record.ttl);
                plan.longest_ttl = ttls.max().unwrap_or(0).max(plan.longest_ttl);
                let changes = match goal {
                    Goal::Exactly => reconcile(set, &present),
                    Goal::Without => withdraw(set, &present),
                    Goal::AtLeast => {
                        let mut changes = reconcile(set, &present);
                        changes.retain(|change| !matches!(change, Change::Remove(_)));
                        changes
                    }
                };
                let adding = changes.iter().filter(|c| !matches!(c, Change::Remove(_))).count();
                plan.right += match goal {
                    Goal::Without => set.len() - changes.len().min(set.len()),
                    _ => set.len() - adding.min(set.len()),
                };
                plan.changes.extend(changes);
            }
        }
        Ok(plan)
    }

    /// Carries a plan out; the number of messages.
    pub(crate) fn apply(&mut self, zone: &Name, plan: &Plan) -> anyhow::Result<usize> {
        let messages = messages(zone, &plan.changes)?;
        let count = messages.len();
        // One at a time: if one is refused, those behind it would be refused too.
        for message in messages {
            for answer in self.exchange(vec![message])? {
                match answer.response_code {
                    ResponseCode::NoError => {}
                    code => bail!("{} refused the update: {}", self.server, meaning(code)),
                }
            }
        }
        Ok(count)
    }

    /// The SOA's MINIMUM, which bounds how long "there is none" is cached.
    pub(crate) fn minimum(&mut self, zone: &Name) -> anyhow::Result<u32> {
        let answers = self.exchange(vec![query(0, zone, Rtype::SOA)?])?;
        let records = answers.iter().flat_map(|answer| &answer.answers);
        records
            .filter_map(|record| Record::from_hickory(record).ok()?.as_soa())
            .map(|soa| soa.minimum)
            .next()
            .with_context(|| format!("{} has no zone {zone}", self.server))
    }

    /// Sends all, then gathers the answers, which may come in any order (RFC 7766 §6.2.1.1).
    fn exchange(&mut self, messages: Vec<Message>) -> anyhow::Result<Vec<Message>> {
        let mut waiting: HashMap<u16, (usize, Option<TSigVerifier>)> = HashMap::new();
        let mut framed = Vec::new();
        let count = messages.len();
        for (at, mut message) in messages.into_iter().enumerate() {
            message.metadata.id = self.next_id;
            self.next_id = self.next_id.wrapping_add(1);
            let verifier = match &self.tsig {
                Some(tsig) => message.finalize(tsig, now()).context("cannot sign")?,
                None => None,
            };
            let octets = message.to_vec().context("cannot encode")?;
            let len = u16::try_from(octets.len()).context("message over 65535 octets")?;
            framed.extend_from_slice(&len.to_be_bytes());
            framed.extend_from_slice(&octets);
            waiting.insert(message.metadata.id, (at, verifier));
        }
        self.stream.write_all(&framed).with_context(|| format!("sending to {}", self.server))?;
        let mut answers: Vec<Option<Message>> = (0..count).map(|_| None).collect();
        while !waiting.is_empty() {
            let octets = self.receive().with_context(|| format!("waiting for {}", self.server))?;
            let answer = Message::from_vec(&octets)
                .map_err(|e| anyhow!("{} sent a malformed message: {e}", self.server))?;
            let Some((at, verifier)) = waiting.remove(&answer.metadata.id) else { continue };
            if let Some(mut verifier) = verifier {
                self.authenticate(&mut verifier, &octets, &answer)?;
            }
            if let Some(slot) = answers.get_mut(at) {
                *slot = Some(answer);
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// A server that refuses the key cannot sign its answer: that is said, not the missing MAC.
    fn authenticate(
        &self,
        verifier: &mut TSigVerifier,
        octets: &[u8],
        answer: &Message,
    ) -> anyhow::Result<()> {
        let refused = answer.signature().and_then(|signature| signature.data.error);
        if let Some(error) = refused {
            bail!(
                "{} refused the TSIG key {}: {error:?} (BadKey: it does not know the name; BadSig: \
                 another secret or algorithm; BadTime: the clocks differ)",
                self.server,
                self.tsig.as_ref().map(|t| t.signer_name().to_string()).unwrap_or_default()
            );
        }
        if answer.signature().is_none() && answer.response_code != ResponseCode::NoError {
            bail!("{} refused: {}", self.server, meaning(answer.response_code));
        }
        verifier
            .verify(octets)
            .map(drop)
            .map_err(|e| anyhow!("{}'s answer does not authenticate: {e}", self.server))
    }

    fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut len = [0; 2];
        self.stream.read_exact(&mut len)?;
        let mut octets = vec![0; usize::from(u16::from_be_bytes(len))];
        self.stream.read_exact(&mut octets)?;
        Ok(octets)
    }
}

/// What the server has of the set's name and type.
fn present(set: &[Record], answer: &Message) -> anyhow::Result<Vec<Record>> {
    let Some(first) = set.first() else { return Ok(Vec::new()) };
    match answer.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => {}
        code => bail!("asking for {} {}: {}", first.owner, first.rtype, meaning(code)),
    }
    if !answer.authoritative {
        bail!(
            "the server is not authoritative for {}: updates go to the zone's primary",
            first.owner
        );
    }
    let records = answer.answers.iter().filter_map(|record| Record::from_hickory(record).ok());
    Ok(records.filter(|r| r.owner == first.owner && r.rtype == first.rtype).collect())
}

fn meaning(code: ResponseCode) -> String {
    let hint = match code {
        ResponseCode::Refused => "it allows this key no updates here",
        ResponseCode::NotAuth => "it is not authoritative for the zone, or does not know the key",
        ResponseCode::NotZone => "a name is outside the zone",
        ResponseCode::ServFail => "it failed; its log says why",
        ResponseCode::FormErr => "it does not understand the message",
        ResponseCode::NotImp => "it takes no updates",
        _ => return code.to_string(),
    };
    format!("{code}: {hint}")
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A server that is alive answers sooner.
const PATIENCE: Duration = Duration::from_secs(15);
/// Queries on the way at once.
const WINDOW: usize = 64;
