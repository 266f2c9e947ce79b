//! One peer relation: what an [`IkeId`] names, from the first IKE_SA_INIT on and over all rekeys.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sa::Spi;

use crate::api::{Datagram, Encapsulation, End, Event, IkeId, Timer};
use crate::established::Established;
use crate::exchange::Ask;
use crate::exchange::create_child_responder::MAX_CHILDREN;
use crate::exchange::ike_auth_initiator::{AuthSent, Signing};
use crate::exchange::ike_auth_responder::{AwaitPeer, HalfOpenSa, SigningAnswer};
use crate::exchange::ike_intermediate::KeSent;
use crate::exchange::ike_sa_init_initiator::InitSent;
use crate::exchange::ike_sa_init_responder::{self, Digest};
use crate::exchange::ike_session_resume::ResumeSent;
use crate::message::{NotifyType, Payload};
use crate::path::{Detected, Path};
use crate::shared::Shared;

/// One peer relation.
#[derive(Debug)]
pub(crate) struct Peering {
    pub(crate) link: Link,
    pub(crate) state: State,
    /// The one of its deadlines that is next.
    pub(crate) deadline: Option<(Instant, Timer)>,
}

impl Peering {
    /// One that has not begun.
    pub(crate) fn new(link: Link) -> Box<Self> {
        Box::new(Self { link, state: State::Over, deadline: None })
    }
}

/// What is the same in every state.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) id: IkeId,
    /// Whether we called.
    pub(crate) initiator: bool,
    pub(crate) path: Path,
    /// Where the children's packets still go while it is in doubt whether the peer is where it
    /// says (RFC 4555 §3.7).
    pub(crate) esp: Option<Path>,
    /// Whether the peer may be at another address than the one it was authorised at.
    pub(crate) movable: bool,
    pub(crate) asks: VecDeque<Queued>,
    /// It counts as half-open, under this address.
    pub(crate) half_open: Option<std::net::IpAddr>,
    /// Under which digest its IKE_SA_INIT request is remembered.
    pub(crate) init_digest: Option<Digest>,
    /// Our IKE SPIs.
    pub(crate) spis: Vec<u64>,
    /// Our ESP SPIs: of children, and of what may become one.
    pub(crate) esp_spis: Vec<Spi>,
    /// Under which address it is counted.
    pub(crate) counted: std::net::IpAddr,
}

/// Something to ask, not before its time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Queued {
    pub(crate) ask: Ask,
    pub(crate) not_before: Instant,
    pub(crate) tries: Tries,
}

/// What has become of a wish so far.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Tries {
    /// How often it was put off, or asked again in another way.
    pub(crate) put_off: u8,
    /// How often of these the peer had lost a key exchange of it: STATE_NOT_FOUND.
    pub(crate) lost: u8,
}

impl Tries {
    /// It is to be asked once more, because of that.
    pub(crate) fn again(self, because: NotifyType) -> Self {
        let lost = u8::from(because == NotifyType::STATE_NOT_FOUND);
        Self { put_off: self.put_off.saturating_add(1), lost: self.lost.saturating_add(lost) }
    }
}

/// Where it stands.
#[derive(Debug)]
pub(crate) enum State {
    /// Initiator: IKE_SA_INIT is sent.
    InitSent(Box<InitSent>),
    /// Initiator: IKE_SESSION_RESUME is sent.
    ResumeSent(Box<ResumeSent>),
    /// Initiator: IKE_INTERMEDIATE is sent.
    KeSent(Box<KeSent>),
    /// Initiator: waits for our own signature.
    Signing(Box<Signing>),
    /// Initiator: IKE_AUTH is sent.
    AuthSent(Box<AuthSent>),
    /// Responder: IKE_SA_INIT is answered.
    HalfOpen(Box<HalfOpenSa>),
    /// Responder: waits to be told who the peer is.
    AwaitPeer(Box<AwaitPeer>),
    /// Responder: waits for our own signature.
    SigningAnswer(Box<SigningAnswer>),
    /// Both sides are authenticated.
    Established(Box<Established>),
    /// Nothing is left.
    Over,
}

/// What a step needs besides the state.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    pub(crate) now: Instant,
    pub(crate) shared: &'a mut Shared,
    pub(crate) link: &'a mut Link,
    /// Where an answer goes: from our address to the peer's, as the request came.
    pub(crate) reply: (SocketAddr, SocketAddr),
    /// The datagram at hand, if there is one.
    pub(crate) datagram: Option<Datagram<'a>>,
}

impl Turn<'_> {
    /// Digest of the datagram at hand; that of none without one.
    pub(crate) fn digest(&self) -> Digest {
        self.datagram
            .map_or_else(Digest::default, |d| ike_sa_init_responder::digest(d.remote, d.octets))
    }

    pub(crate) fn answer(&mut self, datagrams: Vec<Vec<u8>>) {
        self.shared.send(self.reply.0, self.reply.1, datagrams);
    }

    pub(crate) fn send(&mut self, datagrams: Vec<Vec<u8>>) {
        self.shared.send(self.link.path.local, self.link.path.remote, datagrams);
    }

    pub(crate) fn fresh_ike_spi(&mut self) -> u64 {
        let spi = self.shared.fresh_ike_spi(self.link.id);
        self.link.spis.push(spi);
        spi
    }

    pub(crate) fn drop_ike_spi(&mut self, spi: u64) {
        self.shared.spis.remove(&spi);
        self.link.spis.retain(|s| *s != spi);
    }

    pub(crate) fn fresh_esp_spi(&mut self) -> Spi {
        let spi = self.shared.fresh_esp_spi();
        self.link.esp_spis.push(spi);
        spi
    }

    pub(crate) fn drop_esp_spi(&mut self, spi: Spi) {
        self.shared.drop_esp_spi(spi);
        self.link.esp_spis.retain(|s| *s != spi);
    }

    /// The peer is where the message at hand came from.
    pub(crate) fn move_to_reply(&mut self) {
        (self.link.path.local, self.link.path.remote) = self.reply;
        self.recount();
    }

    /// The address that the peer is counted by is the one where it is.
    pub(crate) fn recount(&mut self) {
        let remote = self.link.path.remote.ip();
        if self.link.counted != remote {
            self.shared.remove_remote(self.link.counted);
            self.shared.add_remote(remote);
            self.link.counted = remote;
        }
    }

    /// Takes into account what NAT detection found on the path in use.
    pub(crate) fn note(&mut self, detected: Detected) {
        let force = self.shared.config.encapsulation == Encapsulation::Force;
        self.link.path.note(detected, force);
    }

    /// Whether our end of the path is not ours any more.
    pub(crate) fn is_stranded(&self) -> bool {
        let own = &self.shared.addresses;
        !own.is_empty() && !own.contains(&self.link.path.local.ip())
    }

    /// It is half-open no more.
    pub(crate) fn settled(&mut self) {
        if let Some(source) = self.link.half_open.take() {
            self.shared.half_open.remove(source);
        }
    }

    pub(crate) fn ended(&mut self, why: End) {
        if why == End::AuthenticationFailed {
            self.shared.counters.authentication_failed += 1;
        }
        self.shared.event(Event::Ended { ike: self.link.id, why });
    }
}

impl Link {
    pub(crate) fn new(id: IkeId, initiator: bool, path: Path) -> Self {
        Self {
            id,
            initiator,
            path,
            esp: None,
            movable: false,
            asks: VecDeque::new(),
            half_open: None,
            init_digest: None,
            spis: Vec::new(),
            esp_spis: Vec::new(),
            counted: path.remote.ip(),
        }
    }

    /// The outer way of children.
    pub(crate) fn envelope(&self) -> sa::Envelope {
        self.esp.unwrap_or(self.path).envelope()
    }

    /// Whether the peer may be there: at the address it was authorised at, behind whatever port, or
    /// anywhere if its owner says so.
    pub(crate) fn may_be_at(&self, remote: SocketAddr) -> bool {
        self.movable || remote.ip() == self.path.remote.ip()
    }

    /// Puts a wish at the end of the queue, unless it is there already. All but new children are
    /// bounded by what there is.
    pub(crate) fn ask(&mut self, now: Instant, ask: Ask) {
        if !self.asks.iter().any(|q| q.ask == ask) {
            self.asks.push_back(Queued { ask, not_before: now, tries: Tries::default() });
        }
    }

    /// Whether as many new children are waited for as there is room for.
    pub(crate) fn wants_enough(&self) -> bool {
        let new = |queued: &&Queued| matches!(queued.ask, Ask::CreateChild(_));
        self.asks.iter().filter(new).count() >= MAX_WANTED
    }

    /// Puts a wish before all others.
    pub(crate) fn ask_first(&mut self, now: Instant, ask: Ask) {
        self.asks.retain(|q| q.ask != ask);
        self.asks.push_front(Queued { ask, not_before: now, tries: Tries::default() });
    }
}

impl State {
    /// The next deadline.
    pub(crate) fn deadline(&self, link: &Link) -> Option<(Instant, Timer)> {
        match self {
            Self::InitSent(s) => Some(s.deadline()),
            Self::Signing(s) => Some((s.until, Timer::HalfOpen)),
            Self::ResumeSent(s) => Some(s.deadline()),
            Self::KeSent(s) => s.due().map(|due| (due, Timer::Retransmit)),
            Self::AuthSent(s) => s.sa.due().map(|due| (due, Timer::Retransmit)),
            Self::HalfOpen(s) => Some((s.until, Timer::HalfOpen)),
            Self::AwaitPeer(s) => Some((s.until, Timer::HalfOpen)),
            Self::SigningAnswer(s) => Some((s.until, Timer::HalfOpen)),
            Self::Established(s) => s.deadline(link),
            Self::Over => None,
        }
    }
}

/// A notify that says nothing but itself.
pub(crate) fn bare(kind: NotifyType) -> Payload {
    Payload::Notify(crate::message::Notify::new(kind, []))
}

/// How long a half-open SA may take, lookups and signature included. strongSwan's figure.
pub(crate) const HALF_OPEN_LIFE: Duration = Duration::from_secs(30);

/// As many as a peer of our own kind allows.
const MAX_WANTED: usize = MAX_CHILDREN;
