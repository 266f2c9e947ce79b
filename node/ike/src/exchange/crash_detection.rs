//! A peer that has lost an IKE SA is found in one round trip (RFC 6290).
//!
//! In IKE_AUTH each side gives the other a token, which it can make again from a secret that
//! outlives it and from the SPIs. Who has lost the SA answers what comes under it with
//! INVALID_IKE_SPI and the token; who holds the token knows then that nobody but the peer itself
//! can say so, and need not wait until all retransmissions are over.
//!
//! The token tells nothing of any key. Who steals the secret can end our SAs, and nothing else.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use sa::Prefix;
use subtle::ConstantTimeEq as _;

use crate::api::End;
use crate::crypto::Secret;
use crate::established::{Established, Which};
use crate::exchange::Pending;
use crate::failure::Failure;
use crate::half_open::prefix;
use crate::message::{
    ExchangeType, Header, Notify, NotifyType, Payload, PayloadType, Payloads, ProtocolId,
};
use crate::peering::Turn;

/// Makes tokens.
#[derive(Debug)]
pub(crate) struct TokenMaker(hmac::Key);

impl TokenMaker {
    pub(crate) fn new(secret: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// Our token for an IKE SA with these SPIs (RFC 6290 §5.1). Which of the two is ours goes in as
    /// well: otherwise a message that names us in the other role would draw the token of an SA that
    /// stands.
    pub(crate) fn token(&self, (spi_i, spi_r): (u64, u64), initiator: bool) -> Vec<u8> {
        let mut mac = hmac::Context::with_key(&self.0);
        mac.update(&[u8::from(initiator)]);
        mac.update(&spi_i.to_be_bytes());
        mac.update(&spi_r.to_be_bytes());
        mac.sign().as_ref().to_vec()
    }

    /// The answer to a request under an IKE SA that is not here (RFC 6290 §4.4): the same header,
    /// and no protection.
    pub(crate) fn lost(&self, header: &Header) -> Vec<u8> {
        let token = self.token((header.spi_i, header.spi_r), !header.initiator);
        let answer = Header { initiator: !header.initiator, response: true, ..*header };
        let invalid = Payload::Notify(Failure::InvalidIkeSpi.notify());
        answer.write_clear(&[invalid, payload(token)])
    }
}

fn payload(token: Vec<u8>) -> Payload {
    let notify = Notify::new(NotifyType::QCD_TOKEN, token);
    Payload::Notify(Notify { protocol: ProtocolId::IKE, ..notify })
}

/// Our token for an SA, to be told to the peer.
pub(crate) fn ours(turn: &Turn<'_>, spis: (u64, u64), initiator: bool) -> Option<Payload> {
    turn.shared.tokens.as_ref().map(|maker| payload(maker.token(spis, initiator)))
}

/// The token that a peer tells us; one of a length that RFC 6290 §4.1 does not allow is none.
pub(crate) fn theirs(payloads: &Payloads) -> Option<Secret> {
    let notify = payloads.notify(NotifyType::QCD_TOKEN)?;
    TOKEN.contains(&notify.data.len()).then(|| Secret::new(notify.data.clone()))
}

/// Tells our token for a new IKE SA whose rekeying we asked for (RFC 6290 §4.3).
pub(crate) fn tell(established: &mut Established, turn: &mut Turn<'_>) {
    let sa = &established.current;
    let token = ours(turn, (sa.spi_i, sa.spi_r), sa.initiator);
    if let Some(token) = token {
        let informational = ExchangeType::INFORMATIONAL;
        established.request(turn, informational, &[token], Pending::Liveness);
    }
}

/// Keeps a token that came under an IKE SA.
pub(crate) fn note(established: &mut Established, which: Which, payloads: &Payloads) {
    if let Some(token) = theirs(payloads) {
        established.sa_mut(which).peer_token = Some(token);
    }
}

/// Unprotected octets that claim to be an answer of the peer's: does it prove that it has lost
/// this?
pub(crate) fn is_lost(token: Option<&[u8]>, first: PayloadType, octets: &[u8]) -> bool {
    let (Some(token), Ok(payloads)) = (token, Payloads::read(first, octets)) else { return false };
    let notifies = payloads.notifies.iter();
    payloads.notify(NotifyType::INVALID_IKE_SPI).is_some()
        && notifies
            .filter(|n| n.kind == NotifyType::QCD_TOKEN)
            .any(|n| bool::from(n.data.as_slice().ct_eq(token)))
}

/// What the peer says to one of our SAs without protection.
pub(crate) fn heard(
    established: &mut Established,
    turn: &mut Turn<'_>,
    own_spi: u64,
    first: PayloadType,
    octets: &[u8],
) -> ControlFlow<End> {
    let token = established.peer_token(own_spi);
    if is_lost(token, first, octets) {
        established.gone = true;
        return ControlFlow::Break(End::PeerLost);
    }
    turn.shared.counters.dropped_stray += 1;
    ControlFlow::Continue(())
}

/// How many unprotected answers and hints are sent and heeded in a second: whoever forges a source
/// can have them sent anywhere. Counted by source as well, so that who asks for too many takes them
/// from himself.
#[derive(Debug, Default)]
pub(crate) struct Hints {
    since: Option<Instant>,
    count: u32,
    /// No more of them than may be in all.
    by_source: BTreeMap<Prefix, u32>,
}

/// How many of one kind may be in a second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ration {
    all: u32,
    /// For one source prefix.
    each: u32,
}

impl Hints {
    /// Whether one more may be, for this source.
    pub(crate) fn allow(&mut self, now: Instant, source: IpAddr, ration: Ration) -> bool {
        let fresh = |since| now.saturating_duration_since(since) < SECOND;
        if !self.since.is_some_and(fresh) {
            *self = Self { since: Some(now), ..Self::default() };
        }
        if self.count >= ration.all {
            return false;
        }
        let here = self.by_source.entry(prefix(source)).or_default();
        if *here >= ration.each {
            return false;
        }
        *here += 1;
        self.count += 1;
        true
    }
}

const SECOND: Duration = Duration::from_secs(1);
/// Told that an IKE SA is lost: the peers of a node that restarted within some seconds, those in one
/// prefix too, and what a flood of forged requests draws is less than any flood is.
pub(crate) const LOST: Ration = Ration { all: 1000, each: 50 };
/// Told that an ESP SA is lost; they ask then, and are told once more.
pub(crate) const UNKNOWN: Ration = Ration { all: 100, each: 10 };
/// Heeded, of those that name a child: each is a question to a peer.
pub(crate) const HEEDED: Ration = Ration { all: 100, each: 5 };
/// Octets of a token (RFC 6290 §4.1).
const TOKEN: std::ops::RangeInclusive<usize> = 16..=128;
