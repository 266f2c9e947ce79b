//! What keying remembers: flows, calls, peers, visitors, pairs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Instant;

use dnskeys::{Answer, Authorized, Candidate, Name, Reason, Security};
use ike::{Credential, End, IkeId, NeedPeer, Verified};
use sa::{Envelope, EspCipher, Flow, SaId, Spi, Translation, Trust, Use};

use crate::group::Group;
use crate::memory::Recall;
use crate::report::{What, Why};

/// An instance of a policy class for one flow (RFC 4322 §3.2.1).
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) group: Group,
    pub(crate) state: State,
    /// When it came into this state.
    pub(crate) since: Instant,
    /// When its state must be looked at again; kept in step with `Keying::deadlines`.
    pub(crate) deadline: Option<Instant>,
    /// What DNS last said, and when: of its source and of us, if it comes from a host behind us; of
    /// its destination; of gateways that were named without a key. One for each name.
    pub(crate) answers: Vec<(Instant, Answer)>,
    /// In clear text: what is being done to learn whether it must stay so (rules 34, 35).
    pub(crate) renewal: Renewal,
    /// What happened to it besides, oldest first; bounded by [`HISTORY`].
    pub(crate) history: VecDeque<(Instant, What)>,
    /// Since when it has been going in the clear although its destination can do better; kept while
    /// it is asked and called again.
    pub(crate) downgraded: Option<Instant>,
    /// It comes from memory, and no packet waits for it.
    pub(crate) recalled: Option<Recall>,
    /// Its source is none that we know, and may be one of ours that we have not heard of yet.
    pub(crate) waits_for_news: bool,
}

impl Entry {
    /// What happened to it, the last answer included.
    pub(crate) fn story(&self) -> Vec<(Instant, What)> {
        let mut story: Vec<_> = self.history.iter().cloned().collect();
        for (at, answer) in &self.answers {
            let before = |(when, what): &(Instant, What)| {
                when < at || matches!(what, What::Trapped | What::Recalled)
            };
            let place = story.iter().rposition(before).map_or(0, |last| last + 1);
            story.insert(place, (*at, What::of(answer)));
        }
        story
    }

    /// DNS says this now; what it said before.
    pub(crate) fn said(&mut self, now: Instant, answer: &Answer) -> Option<Answer> {
        let before = self.answers.iter_mut().find(|(_, said)| said.owner == answer.owner);
        if let Some(before) = before {
            return Some(std::mem::replace(before, (now, answer.clone())).1);
        }
        if self.answers.len() < ANSWERS {
            // One, as a rule.
            self.answers.reserve_exact(1);
            self.answers.push((now, answer.clone()));
        }
        None
    }

    /// Since when it is in the clear although its destination can do better; not while it is held.
    pub(crate) fn downgraded_in_clear(&self) -> Option<Instant> {
        self.downgraded.filter(|_| matches!(self.state, State::ClearText(_)))
    }

    /// What DNS said of this name.
    pub(crate) fn answer_of(&self, owner: &Name) -> Option<&Answer> {
        self.answers.iter().map(|(_, answer)| answer).find(|answer| answer.owner == *owner)
    }
}

/// Answers kept of one flow: more gateways than these are called all the same.
const ANSWERS: usize = 8;

/// Transitions remembered of one flow, for `explain`: the longest way from trap to pair, and the
/// way back, are in it.
pub(crate) const HISTORY: usize = 12;

/// RFC 4322 §3.2.7, *expiring*, for a flow in the clear. Its packets go on as they did meanwhile.
#[derive(Debug, Default)]
pub(crate) enum Renewal {
    /// Its life is not over.
    #[default]
    Settled,
    /// The data plane will say if a packet passes; without one, the flow is forgotten.
    Watched,
    /// It is in use, and DNS is being asked again.
    Asked,
    /// DNS says what it said, and the gateways that did not answer then are called again.
    Calling(Box<Pending>),
}

/// RFC 4322 §3.2: what is known of a flow's destination.
#[derive(Debug)]
pub(crate) enum State {
    /// Its reverse name is being asked.
    PotentialOe,
    /// Its gateway is being called.
    PendingOe(Box<Pending>),
    /// A pair carries it.
    Keyed {
        /// The pair that packets are sent on.
        current: SaId,
        /// The pair to send on as soon as it is proven.
        next: Option<SaId>,
        /// Whether packets are still held although the pair is there: the peer called, and may not
        /// have our answer yet.
        quiet: bool,
    },
    /// It goes in the clear.
    ClearText(Why),
    /// It goes nowhere.
    Deny(Why),
}

/// A flow on its way to being keyed.
#[derive(Debug)]
pub(crate) struct Pending {
    /// Gateways not tried yet, in order.
    pub(crate) candidates: VecDeque<Candidate>,
    /// The gateway being tried.
    pub(crate) gateway: Option<Candidate>,
    /// Answers that speak for the gateways.
    pub(crate) evidence: Vec<Answer>,
    /// Of the destination's own answer.
    pub(crate) security: Security,
    /// Until when the destination's own answer stands.
    pub(crate) until: Instant,
    /// How the gateways tried so far ended.
    pub(crate) ends: Vec<(IpAddr, End)>,
    /// Whether a gateway that fell silent half-way has been called once more.
    pub(crate) called_again: bool,
    /// Only an IKE SA of our own will do: the one that the peer made is for less.
    pub(crate) anew: bool,
    /// A NAT stands between us and a gateway that was called.
    pub(crate) behind_nat: bool,
    /// A gateway's own record was bogus or malformed: no failure may end in the clear then.
    pub(crate) spoilt: Option<Reason>,
    /// Nothing is published: the destination is called all the same, and nothing need be proved.
    pub(crate) anonymous: bool,
}

/// A call of ours that is not answered yet; flows to the same gateway share it.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) gateway: IpAddr,
    pub(crate) local: IpAddr,
    /// Any of which the gateway may sign with. Only who accepts the same keys shares a call:
    /// another zone's record must not spoil it.
    pub(crate) keys: Vec<Credential>,
    /// The first is negotiated within IKE_AUTH.
    pub(crate) flows: Vec<Flow>,
    /// The answers that led here. Kept with the call, because a flow may have moved on by the time
    /// the call is answered: the peer may have called us.
    pub(crate) evidence: Vec<Answer>,
    /// Whether IKE_SA_INIT is done: somebody is there.
    pub(crate) keyed: bool,
}

/// The other end of an established IKE SA.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Who it is, and the proof of it: without one there is no peer.
    pub(crate) verified: Verified,
    /// Whether we called.
    pub(crate) initiator: bool,
    pub(crate) lowest_nonce: Vec<u8>,
    pub(crate) established: Instant,
    pub(crate) local: IpAddr,
    pub(crate) gateway: IpAddr,
    /// What it may speak for.
    pub(crate) proofs: Vec<Authorized>,
    pub(crate) pairs: BTreeSet<SaId>,
    /// Flows whose child has been asked for.
    pub(crate) waiting: Vec<Flow>,
    /// The configured connection that it carries, if any: of no use for anything else.
    pub(crate) connection: Option<usize>,
    /// Whether we are deleting it: of no use for anything new.
    pub(crate) closing: bool,
    /// Whether it has refused to renew something: of no use for anything new either.
    pub(crate) outworn: bool,
    /// Whether it does not answer at present: of no use for anything new while that lasts.
    pub(crate) unanswered: bool,
    /// The address that it has given us, and ours that it stands for.
    pub(crate) translation: Option<Translation>,
}

impl Peer {
    /// Whether it is of use for anything new.
    pub(crate) fn takes_more(&self) -> bool {
        !self.closing && !self.outworn && !self.unanswered
    }
}

/// What a visitor whose signature is being verified would prove, and where it calls from and to.
#[derive(Debug)]
pub(crate) struct Visit {
    pub(crate) local: IpAddr,
    pub(crate) gateway: IpAddr,
    pub(crate) proofs: Vec<(Credential, Authorized)>,
}

/// A flow whose pair's evidence has aged: its records are being asked again, and those of another pair
/// that the flow has changed to meanwhile.
#[derive(Debug)]
pub(crate) struct Recheck {
    pub(crate) answers: BTreeMap<Name, Option<Answer>>,
}

/// A stranger whose records are being asked.
#[derive(Debug)]
pub(crate) struct Visitor {
    pub(crate) need: NeedPeer,
    pub(crate) speaker: dnskeys::Speaker,
    /// Whom it wants to talk to: us, or a host behind us.
    pub(crate) ours: IpAddr,
    /// The inner addresses it claims; none if it asks for one of ours.
    pub(crate) claims: Vec<IpAddr>,
    pub(crate) answers: BTreeMap<Name, Option<Answer>>,
}

/// A child that an established peer wants, and whose records are being asked.
#[derive(Debug)]
pub(crate) struct ChildVisitor {
    /// As we would send on it.
    pub(crate) flow: Flow,
    pub(crate) speaker: dnskeys::Speaker,
    pub(crate) answers: BTreeMap<Name, Option<Answer>>,
}

/// A pair of ESP SAs in use.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) flow: Flow,
    pub(crate) ike: IkeId,
    pub(crate) trust: Trust,
    pub(crate) proof: Authorized,
    /// When the proof has to be made anew.
    pub(crate) proof_until: Instant,
    pub(crate) since: Instant,
    pub(crate) cipher: EspCipher,
    pub(crate) mode: sa::Mode,
    pub(crate) spi_in: Spi,
    pub(crate) spi_out: Spi,
    pub(crate) envelope: Envelope,
    /// Whether the peer is known to have it too.
    pub(crate) proven: bool,
    /// Lost against another pair; ours to close once that one is proven.
    pub(crate) doomed: bool,
    /// Whether its use was asked for to see whether it is idle.
    pub(crate) looked_at: bool,
    pub(crate) used: Use,
    /// When it was last used in either direction, as far as was asked.
    pub(crate) last_used: Instant,
}

/// Who waits for an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Asker {
    /// A flow, for its destination's record.
    Destination(Flow),
    /// A flow, for its gateway's own record.
    Gateway(Flow),
    /// A flow, for its own source's record.
    Client(Flow),
    /// A stranger.
    Visitor(IkeId),
    /// An established peer that wants one more child.
    Child(IkeId),
    /// A keyed flow, whose evidence has aged.
    Recheck(Flow),
    /// A keyed flow whose gateway is silent, for another.
    Elsewhere(Flow),
    /// A configured connection, for its peer's keys.
    Connection(usize),
    /// A configured peer that calls.
    ConnectionVisitor(IkeId),
    /// We ourselves, for the records of an address of ours.
    Own(IpAddr),
}

impl Asker {
    /// Whether only a stranger's claim depends on the answer.
    pub(crate) fn is_stranger(&self) -> bool {
        match self {
            Self::Visitor(_) | Self::Child(_) | Self::ConnectionVisitor(_) => true,
            Self::Destination(_)
            | Self::Gateway(_)
            | Self::Client(_)
            | Self::Recheck(_)
            | Self::Elsewhere(_)
            | Self::Connection(_)
            | Self::Own(_) => false,
        }
    }
}
