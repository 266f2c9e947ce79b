//! What was seen of a host, as data.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use dnskeys::{Answer, Failure, Name, Outcome, PublicKey, RecordSet, Security};

use super::probe::Probed;

/// A name, its addresses, and what each of them publishes.
#[derive(Clone, Debug)]
pub(crate) struct HostFacts {
    /// The name.
    pub(crate) name: Name,
    /// What is published at the name itself.
    pub(crate) forward: NameFacts,
    /// How its addresses were authenticated.
    pub(crate) addresses: Security,
    /// One for each address.
    pub(crate) each: Vec<AddressFacts>,
}

/// An address, and what its reverse name publishes.
#[derive(Clone, Debug)]
pub(crate) struct AddressFacts {
    /// The address.
    pub(crate) address: IpAddr,
    /// Its reverse name.
    pub(crate) reverse: NameFacts,
    /// The gateways that its records name, other than itself, and their own names' records.
    pub(crate) gateways: Vec<GatewayFacts>,
    /// Whether a daemon answered, for each gateway that was probed.
    pub(crate) probes: Vec<(IpAddr, Probed)>,
    /// The key that the host itself has, if it is known.
    pub(crate) host_key: Option<PublicKey>,
}

/// What a gateway publishes of itself.
#[derive(Clone, Debug)]
pub(crate) struct GatewayFacts {
    /// How records name it.
    pub(crate) gateway: dnskeys::Gateway,
    /// Its own name: reverse for an address, forward for `@FQDN`.
    pub(crate) own: NameFacts,
}

/// What is published at one name.
#[derive(Clone, Debug)]
pub(crate) struct NameFacts {
    /// The name.
    pub(crate) name: Name,
    /// TXT.
    pub(crate) txt: Seen,
    /// IPSECKEY.
    pub(crate) ipseckey: Seen,
    /// Whether there is an IPsec KEY record, as FreeS/WAN before 2.01 looked up.
    pub(crate) old_key: bool,
    /// Where the chain of trust ends, unless everything is secure.
    pub(crate) chain: Option<ChainEnd>,
    /// What the zone's own servers said, if they were asked.
    pub(crate) servers: Vec<ServerSaid>,
}

/// One type at one name.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The weakest hop.
    pub(crate) security: Security,
    /// The shortest TTL on the way.
    pub(crate) ttl: Duration,
    /// The aliases that were followed.
    pub(crate) aliases: Vec<Alias>,
    /// What was there.
    pub(crate) outcome: SeenOutcome,
    /// The records of ours, as text: for comparison between servers.
    pub(crate) texts: Vec<String>,
    /// An answer did not fit into UDP.
    pub(crate) truncated: bool,
    /// An answer came over TCP.
    pub(crate) tcp: bool,
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum SeenOutcome {
    /// Records of ours, well-formed or not.
    Records(RecordSet),
    /// Nothing of ours at an existing name.
    NoRecord,
    /// No such name.
    NoName,
    /// DNSSEC validation failed.
    Bogus,
    /// No answer.
    Failed(Failure),
}

/// An alias on the way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Alias {
    /// The alias.
    pub(crate) from: String,
    /// What it stands for.
    pub(crate) to: String,
    /// `CNAME` or `DNAME`.
    pub(crate) kind: &'static str,
    /// How it was authenticated.
    pub(crate) security: Security,
}

/// Where a chain of trust ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ChainEnd {
    /// This zone has no DS in its parent: from here on nothing is signed.
    Unsigned {
        /// The first zone without signatures.
        zone: String,
    },
    /// Nothing in this zone validates: its keys do not fit the DS in its parent, or its signatures
    /// do not fit its keys.
    BrokenZone {
        /// The zone.
        zone: String,
        /// When the newest signature over its SOA begins and ends, in seconds since 1970.
        window: Option<(u32, u32)>,
    },
    /// The zone is sound, the records' own signatures are not.
    BrokenRecord {
        /// The zone.
        zone: String,
        /// When the newest signature over them begins and ends, in seconds since 1970.
        window: Option<(u32, u32)>,
    },
}

/// What one of the zone's own servers said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ServerSaid {
    /// Its name.
    pub(crate) name: String,
    /// Where it was asked.
    pub(crate) address: SocketAddr,
    /// Its records of ours as text, sorted; or why there are none.
    pub(crate) said: Result<Vec<String>, ServerSilence>,
}

/// Why a zone's own server cannot be compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ServerSilence {
    /// No usable answer.
    Failed(Failure),
    /// It answers, but is not authoritative.
    Lame,
}

impl Seen {
    /// The records of ours, if there are any.
    pub(crate) fn records(&self) -> Option<&RecordSet> {
        match &self.outcome {
            SeenOutcome::Records(set) => Some(set),
            _ => None,
        }
    }

    /// Whether there is a record of ours, well-formed or not.
    pub(crate) fn present(&self) -> bool {
        self.records().is_some()
    }
}

impl NameFacts {
    /// The answer that the daemon would work with: TXT, and IPSECKEY where there is none.
    pub(crate) fn answer(&self) -> Answer {
        let seen = match self.txt.outcome {
            SeenOutcome::NoRecord => &self.ipseckey,
            _ => &self.txt,
        };
        let outcome = match &seen.outcome {
            SeenOutcome::Records(set) => Outcome::Records(set.clone()),
            SeenOutcome::NoRecord => Outcome::NoRecord,
            SeenOutcome::NoName => Outcome::NoName,
            SeenOutcome::Bogus => Outcome::Bogus,
            SeenOutcome::Failed(failure) => Outcome::Failed(*failure),
        };
        let (security, ttl) = match self.txt.outcome {
            // The absence of TXT is a link of the chain.
            SeenOutcome::NoRecord => {
                (seen.security.min(self.txt.security), seen.ttl.min(self.txt.ttl))
            }
            _ => (seen.security, seen.ttl),
        };
        Answer { owner: self.name.clone(), security, ttl, outcome }
    }

    /// The well-formed records of both types.
    pub(crate) fn gateways(&self) -> impl Iterator<Item = &dnskeys::GatewayRecord> {
        let sets = self.txt.records().into_iter().chain(self.ipseckey.records());
        sets.flat_map(|set| &set.gateways)
    }
}
