//! DNS lookups with their DNSSEC status: a name in, [`dnskeys::Answer`] out.
//!
//! - [`upstream`]: questions to the configured servers over sockets that carry the node's mark.
//! - [`anchors`]: where trust starts.
//! - [`lookup`]: one type at one name, validated, CNAME and DNAME followed hop by hop.
//! - [`wildcard`]: a proof that hickory refuses though it is one.
//! - [`records`]: what the answers hold for us.
//! - [`cache`]: answers kept, positive and negative.
//!
//! The validator is hickory's; its caching resolver is not used, because that one can answer a
//! question about an unsigned alias from the cache of the signed name behind it, and so show a
//! spoofed delegation as secure. Here every hop is asked for and judged by itself.

mod anchors;
mod cache;
mod lookup;
mod records;
mod upstream;
mod wildcard;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dnskeys::{Answer, Failure, Name, Outcome, RecordSet, Security};
use hickory_proto::rr::{RData, Record, RecordType};
use tokio::sync::{RwLock, Semaphore};

pub(crate) use self::anchors::AnchorError;
use self::anchors::Anchors;
use self::cache::Cache;
use self::lookup::Validator;
pub(crate) use self::lookup::{Finding, Found};
pub(crate) use self::records::ours as records_of_ours;
use self::upstream::Upstream;
pub(crate) use self::upstream::{Exchange, Reply};

/// The IPSECKEY type (RFC 4025 §2), which hickory does not know.
pub(crate) const IPSECKEY: RecordType = RecordType::Unknown(45);

/// Lookups at once. Each may take a few sockets, and a port scan of ours must not flood the
/// servers of others.
const MAX_LOOKUPS: usize = 128;

/// One lookup with everything it needs (chain of trust, aliases, retries): the user is waiting.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a failure is kept: long enough that a flow of packets does not become a flow of
/// queries (RFC 9520 §3.2 wants at least a second), short enough that nobody waits for it.
const FAILURE_TTL: Duration = Duration::from_secs(5);

/// Keys found through DS anchors are looked up again after this long, for a rolled key.
const ANCHOR_LIFE: Duration = Duration::from_secs(3600);

/// Where to ask, and where trust starts.
#[derive(Clone, Debug, Default)]
pub(crate) struct ResolverConfig {
    /// Recursive servers, tried in this order; empty for those of `/etc/resolv.conf`.
    pub(crate) servers: Vec<SocketAddr>,
    /// A file of DNSKEY or DS lines in master-file form; `None` for the root's built-in keys.
    pub(crate) trust_anchors: Option<PathBuf>,
    /// The mark of our sockets, so that our own questions bypass the trap.
    pub(crate) mark: Option<u32>,
}

/// Why no resolver can be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResolverError {
    /// The system's configuration cannot be read, or names nobody.
    #[error("no DNS server: none configured, and /etc/resolv.conf gives none ({0})")]
    Servers(String),
    /// The trust anchor file.
    #[error("trust anchor file {}: {error}", path.display())]
    Anchors {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: AnchorError,
    },
}

/// A validating resolver.
pub(crate) struct Resolver {
    upstream: Upstream,
    anchors: Anchors,
    validator: RwLock<Option<(Instant, Validator)>>,
    lookups: Semaphore,
    cache: Mutex<Cache>,
}

impl Resolver {
    /// Reads the anchor file and the system's configuration; asks nothing yet.
    ///
    /// # Errors
    /// If there is no server to ask, or the anchor file cannot be used.
    pub(crate) fn new(config: &ResolverConfig) -> Result<Self, ResolverError> {
        let servers = match config.servers.as_slice() {
            [] => upstream::system_servers().map_err(ResolverError::Servers)?,
            given => given.to_vec(),
        };
        let anchors = match &config.trust_anchors {
            None => Anchors::root(),
            Some(path) => Anchors::from_file(path)
                .map_err(|error| ResolverError::Anchors { path: path.clone(), error })?,
        };
        Ok(Self {
            upstream: Upstream::new(servers, config.mark),
            anchors,
            validator: RwLock::new(None),
            lookups: Semaphore::new(MAX_LOOKUPS),
            cache: Mutex::new(Cache::default()),
        })
    }

    /// Who speaks for this name: `X-IPsec-Server` records, and where there is none, IPSECKEY.
    /// Never fails: a failure is an answer.
    pub(crate) async fn answer(&self, name: &Name) -> Answer {
        if let Some(answer) = self.cache().get(name, Instant::now()) {
            return answer;
        }
        let answer = self.answer_uncached(name).await;
        self.cache().put(&answer, Instant::now());
        answer
    }

    /// As [`Self::answer`], past the cache.
    pub(crate) async fn answer_uncached(&self, name: &Name) -> Answer {
        let txt = self.lookup(name, RecordType::TXT).await;
        if let Some(answer) = settled(name, &txt) {
            return answer;
        }
        let ipseckey = self.lookup(name, IPSECKEY).await;
        let mut answer =
            settled(name, &ipseckey).unwrap_or_else(|| nothing(name, &ipseckey, Outcome::NoRecord));
        // Absence of TXT was the first half of this answer: its doubts are the answer's.
        answer.security = answer.security.min(txt.security);
        answer.ttl = answer.ttl.min(txt.ttl);
        answer
    }

    /// Forgets what is known of one name, or of all.
    pub(crate) fn forget(&self, name: Option<&Name>) {
        self.cache().forget(name);
    }

    /// The records of one type at one name, validated, aliases followed; bounded in time.
    pub(crate) async fn lookup(&self, name: &Name, kind: RecordType) -> Finding {
        let Some(name) = as_hickory(name) else {
            return Finding::failed(hickory_proto::rr::Name::root(), kind, Failure::Unreachable);
        };
        let work = async {
            // The semaphore is never closed; without a permit the lookup would still be correct.
            let _permit = self.lookups.acquire().await.ok();
            match self.validator().await {
                Ok(validator) => validator.find(&name, kind).await,
                Err(failure) => Finding::failed(name.clone(), kind, failure),
            }
        };
        let finding = tokio::time::timeout(LOOKUP_TIMEOUT, work).await;
        finding.unwrap_or_else(|_| Finding::failed(name.clone(), kind, Failure::Timeout))
    }

    /// The addresses at a name, IPv4 first, with the weaker status of the two questions.
    pub(crate) async fn addresses(&self, name: &Name) -> (Security, Vec<IpAddr>) {
        let (v4, v6) =
            tokio::join!(self.lookup(name, RecordType::A), self.lookup(name, RecordType::AAAA));
        let addresses = v4.records().iter().chain(v6.records()).filter_map(|r| match &r.data {
            RData::A(a) => Some(IpAddr::V4(a.0)),
            RData::AAAA(a) => Some(IpAddr::V6(a.0)),
            _ => None,
        });
        (v4.security.min(v6.security), addresses.collect())
    }

    /// Asks one server directly, without recursion and without validation: what an authoritative
    /// server says, to compare it with others.
    ///
    /// # Errors
    /// Says why there was no answer.
    pub(crate) async fn ask(
        &self,
        server: SocketAddr,
        name: &Name,
        kind: RecordType,
    ) -> Result<Reply, Failure> {
        let name = as_hickory(name).ok_or(Failure::Unreachable)?;
        let work = self.upstream.ask_directly(server, name, kind);
        tokio::time::timeout(LOOKUP_TIMEOUT, work).await.unwrap_or(Err(Failure::Timeout))
    }

    /// The records of one type with their signatures, as the configured servers have them and
    /// whatever the validator thinks of them: for diagnosis only.
    ///
    /// # Errors
    /// Says why there was no answer.
    pub(crate) async fn unvalidated(
        &self,
        name: &Name,
        kind: RecordType,
    ) -> Result<Reply, Failure> {
        let name = as_hickory(name).ok_or(Failure::Unreachable)?;
        let work = self.upstream.ask_unvalidated(name, kind);
        tokio::time::timeout(LOOKUP_TIMEOUT, work).await.unwrap_or(Err(Failure::Timeout))
    }

    /// The validator, once the keys behind DS anchors are known.
    async fn validator(&self) -> Result<Validator, Failure> {
        if let Some((made, validator)) = self.validator.read().await.as_ref()
            && (self.anchors.is_complete() || made.elapsed() < ANCHOR_LIFE)
        {
            return Ok(validator.clone());
        }
        let mut slot = self.validator.write().await;
        // Another lookup may have been faster to the lock.
        if let Some((made, validator)) = slot.as_ref()
            && (self.anchors.is_complete() || made.elapsed() < ANCHOR_LIFE)
        {
            return Ok(validator.clone());
        }
        let keys = self.anchors.resolve(&self.upstream).await?;
        let validator = Validator::new(self.upstream.clone(), Arc::new(keys));
        *slot = Some((Instant::now(), validator.clone()));
        Ok(validator)
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        // The cache is consistent between any two of its statements.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A name in hickory's form. Label by label: its parser of text refuses the slash of RFC 2317.
fn as_hickory(name: &Name) -> Option<hickory_proto::rr::Name> {
    hickory_proto::rr::Name::from_labels(name.labels().map(str::as_bytes)).ok()
}

/// A name in our form; `None` if it has characters that no name of ours has.
pub(crate) fn from_hickory(name: &hickory_proto::rr::Name) -> Option<Name> {
    use hickory_proto::serialize::binary::BinEncodable as _;
    let wire = name.to_bytes().ok()?;
    Name::from_wire(&wire).ok().map(|(name, _)| name)
}

/// The answer that a finding amounts to, unless it leaves the question open whether another type
/// holds a record of ours.
fn settled(name: &Name, finding: &Finding) -> Option<Answer> {
    let outcome = match &finding.found {
        Found::Records(found) => Outcome::Records(ours(found)?),
        Found::NoRecord => return None,
        Found::NoName => Outcome::NoName,
        Found::Bogus => Outcome::Bogus,
        Found::Failed(failure) => Outcome::Failed(*failure),
    };
    Some(nothing(name, finding, outcome))
}

/// An answer with the provenance of a finding.
fn nothing(name: &Name, finding: &Finding, outcome: Outcome) -> Answer {
    Answer { owner: name.clone(), security: finding.security, ttl: finding.ttl, outcome }
}

/// The records of ours; `None` if there is not even a malformed one.
fn ours(found: &[Record]) -> Option<RecordSet> {
    Some(records::ours(found)).filter(|set| !set.is_empty())
}
