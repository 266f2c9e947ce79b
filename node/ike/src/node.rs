//! Every IKE SA of a node as one machine: who a datagram belongs to, whose deadline is next.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::Instant;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use sa::SaId;

use crate::api::{
    ChildRequest, Config, Datagram, End, IkeId, Initiate, Output, PeerVerdict, Timer,
};
use crate::child::Standing;
use crate::exchange::{
    Ask, Pending, ike_auth_initiator, ike_auth_responder, ike_sa_init_initiator,
    ike_sa_init_responder,
};
use crate::half_open::Admission;
use crate::ike_sa::{Dropped, Received};
use crate::message::{
    Body, Delete, ExchangeType, InvalidMessage, Message, Notify, NotifyType, Payload, Payloads,
};
use crate::path::{IKE_PORT, Path};
use crate::peering::{Link, Peering, State, Turn};
use crate::shared::{Counters, Shared};

/// Every IKE SA of a node.
///
/// Inputs are `handle_*` and the verbs below it; after each, outputs are drained with
/// [`Ike::poll_output`] until there is none, and the next deadline is [`Ike::poll_timeout`]. A
/// handle that names nothing any more is ignored.
#[derive(Debug)]
pub struct Ike {
    shared: Shared,
    peerings: BTreeMap<IkeId, Peering>,
    /// IKE_SA_INIT requests that were answered, so that their repetition is too.
    inits: BTreeMap<Vec<u8>, IkeId>,
    deadlines: BTreeSet<(Instant, Timer, IkeId)>,
    deadline_of: BTreeMap<IkeId, (Instant, Timer)>,
}

impl Ike {
    /// A node without SAs. Every random number it will ever use comes from `seed`: it has to be
    /// secret, and new for every start.
    #[must_use]
    pub fn new(config: Config, seed: [u8; 32], _now: Instant) -> Self {
        Self {
            shared: Shared::new(config, ChaCha20Rng::from_seed(seed)),
            peerings: BTreeMap::new(),
            inits: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            deadline_of: BTreeMap::new(),
        }
    }

    /// Takes a datagram from the network.
    pub fn handle_datagram(&mut self, now: Instant, datagram: Datagram<'_>) {
        // A NAT keepalive (RFC 3948 §2.3).
        if datagram.octets == [0xff] {
            return;
        }
        self.shared.counters.messages_in += 1;
        let message = match Message::read(datagram.octets) {
            Ok(message) => message,
            Err(error) => {
                self.shared.count(error.into());
                if error == InvalidMessage::MajorVersion {
                    self.refuse_version(datagram);
                }
                return;
            }
        };
        if message.header.exchange == ExchangeType::IKE_SA_INIT {
            if message.header.response {
                self.init_response(now, datagram, &message);
            } else {
                self.init_request(now, datagram, &message);
            }
        } else {
            self.sealed(now, datagram, &message);
        }
    }

    /// Answers [`Output::NeedPeer`].
    pub fn handle_peer(&mut self, now: Instant, ike: IkeId, verdict: PeerVerdict) {
        self.with(now, ike, None, |state, turn| match state {
            State::AwaitPeer(state) => ike_auth_responder::told(*state, turn, verdict),
            state => state,
        });
    }

    /// Answers [`Output::Sign`]; `None` if our key could not sign.
    pub fn handle_signature(&mut self, now: Instant, ike: IkeId, signature: Option<Vec<u8>>) {
        let signature = signature.as_deref();
        self.with(now, ike, None, |state, turn| match (state, signature) {
            (State::Signing(state), Some(signature)) => {
                ike_auth_initiator::signed(*state, turn, signature)
            }
            (State::Signing(_), None) => {
                turn.ended(End::SigningFailed);
                State::Over
            }
            (State::SigningAnswer(state), signature) => {
                ike_auth_responder::signed(*state, turn, signature)
            }
            (state, _) => state,
        });
    }

    /// An authenticated ESP packet of this pair came from a new outer address. If the peer is
    /// behind a NAT, its IKE SA and all children go there (RFC 7296 §2.23); otherwise nothing
    /// happens.
    pub fn handle_moved(&mut self, now: Instant, sa: SaId, remote: SocketAddr) {
        let Some(ike) = self.shared.children.get(&sa).copied() else { return };
        self.with(now, ike, None, |mut state, turn| {
            if let State::Established(established) = &mut state
                && turn.link.path.nat.theirs
                && turn.link.path.encapsulate
                && turn.link.path.remote != remote
                && turn.link.path.remote.is_ipv4() == remote.is_ipv4()
            {
                turn.reply.1 = remote;
                established.moved(turn);
            }
            state
        });
    }

    /// Calls a peer.
    pub fn initiate(&mut self, now: Instant, initiate: Initiate) -> IkeId {
        let id = self.shared.fresh_ike_id();
        let local = SocketAddr::new(initiate.local, IKE_PORT);
        let remote = SocketAddr::new(initiate.remote, IKE_PORT);
        let link = Link::new(id, true, Path::new(local, remote));
        self.shared.add_remote(remote.ip());
        self.peerings.insert(id, Peering { link, state: State::Over });
        self.with(now, id, None, |_, turn| ike_sa_init_initiator::start(turn, initiate));
        id
    }

    /// Asks for another child under an IKE SA; if that is not established yet, as soon as it is.
    pub fn create_child(&mut self, now: Instant, ike: IkeId, child: ChildRequest) {
        self.ask(now, ike, Ask::CreateChild(child));
    }

    /// Replaces a child pair: the new one comes up before the old one goes.
    pub fn rekey_child(&mut self, now: Instant, sa: SaId) {
        let Some(ike) = self.shared.children.get(&sa).copied() else { return };
        self.with(now, ike, None, |mut state, turn| {
            if let State::Established(established) = &mut state
                && !established.closing
                && let Some(child) = established.children.get_mut(&sa)
                && child.standing == Standing::Up
            {
                child.standing = Standing::Rekeying;
                turn.link.ask(now, Ask::RekeyChild(sa));
                established.pump(turn);
            }
            state
        });
    }

    /// Replaces an IKE SA; its [`IkeId`] and its children stay.
    pub fn rekey_ike(&mut self, now: Instant, ike: IkeId) {
        self.with(now, ike, None, |mut state, turn| {
            if let State::Established(established) = &mut state
                && !established.closing
                && !matches!(established.current.pending(), Some(Pending::RekeyIke(_)))
            {
                turn.link.ask(now, Ask::RekeyIke);
                established.pump(turn);
            }
            state
        });
    }

    /// Asks whether the peer lives. If it does not answer, the SA ends with [`End::Timeout`].
    pub fn probe(&mut self, now: Instant, ike: IkeId) {
        self.with(now, ike, None, |mut state, turn| {
            // Any outstanding request is a probe as good.
            if let State::Established(established) = &mut state
                && established.current.pending().is_none()
            {
                turn.link.ask(now, Ask::Liveness);
                established.pump(turn);
            }
            state
        });
    }

    /// Deletes a child pair.
    pub fn close_child(&mut self, now: Instant, sa: SaId) {
        let Some(ike) = self.shared.children.get(&sa).copied() else { return };
        self.with(now, ike, None, |mut state, turn| {
            if let State::Established(established) = &mut state
                && !established.closing
                && let Some(child) = established.children.get_mut(&sa)
                && child.standing != Standing::Deleting
            {
                child.standing = Standing::Deleting;
                turn.link.asks.retain(|q| q.ask != Ask::RekeyChild(sa));
                turn.link.ask(now, Ask::DeleteChild(sa, End::Closed));
                established.pump(turn);
            }
            state
        });
    }

    /// Deletes an IKE SA and its children. One that is not established ends at once.
    pub fn close(&mut self, now: Instant, ike: IkeId) {
        self.with(now, ike, None, |state, turn| match state {
            State::Established(mut established) => {
                established.close(turn, End::Closed);
                State::Established(established)
            }
            State::HalfOpen(_) => State::Over,
            State::AuthSent(sent) => {
                sent.abandon(turn);
                turn.ended(End::Closed);
                State::Over
            }
            _ => {
                turn.ended(End::Closed);
                State::Over
            }
        });
    }

    /// Ends an IKE SA of which the peer knows nothing any more, without a word to it: it came back
    /// with INITIAL_CONTACT (RFC 7296 §2.4).
    pub fn abandon(&mut self, now: Instant, ike: IkeId) {
        self.with(now, ike, None, |state, turn| {
            match state {
                State::Established(established) => established.end(turn, End::InitialContact),
                State::HalfOpen(_) | State::Over => {}
                _ => turn.ended(End::InitialContact),
            }
            State::Over
        });
    }

    /// Tells every peer that we go, once and without waiting for answers, and ends everything.
    pub fn shutdown(&mut self, now: Instant) {
        let ids: Vec<_> = self.peerings.keys().copied().collect();
        for id in ids {
            self.with(now, id, None, |state, turn| {
                match state {
                    State::Established(mut established) => {
                        let delete = [Payload::Delete(Delete::Ike)];
                        let datagrams = established.current.last_request(&delete);
                        turn.send(datagrams);
                        established.end(turn, End::Closed);
                    }
                    State::AuthSent(sent) => {
                        sent.abandon(turn);
                        turn.ended(End::Closed);
                    }
                    State::HalfOpen(_) | State::Over => {}
                    _ => turn.ended(End::Closed),
                }
                State::Over
            });
        }
    }

    /// Does what is due. Early or repeated calls are harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.shared.cookies.rotate(now);
        self.shared.graves.retain(|_, grave| grave.until > now);
        let due: Vec<_> = self.deadlines.iter().take_while(|d| d.0 <= now).map(|d| d.2).collect();
        for id in due {
            self.with(now, id, None, timeout);
        }
    }

    /// The next deadline.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        let cookies = self.shared.cookies.deadline().map(|at| (at, Timer::CookieSecret));
        let graves = self.shared.graves.values().map(|grave| (grave.until, Timer::HalfOpen)).min();
        let own = self.deadlines.first().map(|d| (d.0, d.1));
        [cookies, graves, own].into_iter().flatten().min()
    }

    /// The next thing to do, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.shared.outputs.pop_front()
    }

    /// What has passed through.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.shared.counters
    }

    /// Number of half-open SAs that strangers have begun.
    #[must_use]
    pub fn half_open(&self) -> usize {
        self.shared.half_open.total()
    }

    /// Number of IKE SAs in all states.
    #[must_use]
    pub fn len(&self) -> usize {
        self.peerings.len()
    }

    /// Number of IKE SAs whose peer is authenticated.
    #[must_use]
    pub fn established_count(&self) -> usize {
        let established = |p: &&Peering| matches!(p.state, State::Established(_));
        self.peerings.values().filter(established).count()
    }

    /// Whether there is no IKE SA in any state.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.peerings.is_empty()
    }

    /// Runs one step of one peer relation, and keeps the books.
    fn with(
        &mut self,
        now: Instant,
        ike: IkeId,
        datagram: Option<Datagram<'_>>,
        step: impl FnOnce(State, &mut Turn<'_>) -> State,
    ) {
        let Some(Peering { mut link, state }) = self.peerings.remove(&ike) else { return };
        let reply = datagram.map_or((link.path.local, link.path.remote), |d| (d.local, d.remote));
        let digest =
            datagram.map_or_else(Vec::new, |d| ike_sa_init_responder::digest(d.remote, d.octets));
        let mut turn = Turn { now, shared: &mut self.shared, link: &mut link, reply, digest };
        let state = step(state, &mut turn);
        let answered = matches!(state, State::Over) || link.half_open.is_none();
        if let Some(digest) = link.init_digest.take_if(|_| answered) {
            self.inits.remove(&digest);
        }
        let deadline = state.deadline(&link);
        if let Some((at, timer)) = self.deadline_of.remove(&ike) {
            self.deadlines.remove(&(at, timer, ike));
        }
        if matches!(state, State::Over) {
            if let Some(source) = link.half_open {
                self.shared.half_open.remove(source);
            }
            for spi in &link.spis {
                self.shared.spis.remove(spi);
            }
            self.shared.remove_remote(link.counted);
            return;
        }
        if let Some((at, timer)) = deadline {
            self.deadline_of.insert(ike, (at, timer));
            self.deadlines.insert((at, timer, ike));
        }
        self.peerings.insert(ike, Peering { link, state });
    }

    fn ask(&mut self, now: Instant, ike: IkeId, ask: Ask) {
        self.with(now, ike, None, |mut state, turn| {
            match &mut state {
                State::Established(established) if !established.closing => {
                    turn.link.ask(now, ask);
                    established.pump(turn);
                }
                State::Established(_) => {}
                _ => turn.link.ask(now, ask),
            }
            state
        });
    }

    /// RFC 7296 §2.5: a first request of a later major version is told ours. Later ones are
    /// dropped: who has an SA with us knows our version.
    fn refuse_version(&mut self, datagram: Datagram<'_>) {
        const FLAGS: usize = 19;
        let is_response = datagram.octets.get(FLAGS).is_none_or(|flags| flags & 0x20 != 0);
        let mut octets = datagram.octets.to_vec();
        if let Some(version) = octets.get_mut(17) {
            *version = 0x20;
        }
        if let Ok(Message { header, .. }) = Message::read(&octets)
            && header.exchange == ExchangeType::IKE_SA_INIT
            && !is_response
        {
            let notify = Notify::new(NotifyType::INVALID_MAJOR_VERSION, []);
            self.answer_stateless(datagram, &header, notify);
        }
    }

    fn answer_stateless(
        &mut self,
        datagram: Datagram<'_>,
        header: &crate::message::Header,
        notify: Notify,
    ) {
        let octets = ike_sa_init_responder::stateless(header, notify);
        self.shared.send(datagram.local, datagram.remote, vec![octets]);
    }

    fn init_response(&mut self, now: Instant, datagram: Datagram<'_>, message: &Message<'_>) {
        let Body::Clear { first, octets } = message.body else {
            return self.shared.count(InvalidMessage::Value("next payload").into());
        };
        let Some(ike) = self.shared.spis.get(&message.header.spi_i).copied() else {
            self.shared.counters.dropped_unknown_spi += 1;
            return;
        };
        let payloads = match Payloads::read(first, octets) {
            Ok(payloads) => payloads,
            Err(error) => return self.shared.count(error.into()),
        };
        if message.header.initiator || message.header.message_id != 0 {
            return self.shared.count(Dropped::Stray);
        }
        self.with(now, ike, Some(datagram), |state, turn| match state {
            State::InitSent(state) if turn.reply.1 == turn.link.path.remote => {
                ike_sa_init_initiator::receive(state, turn, message, &payloads)
            }
            state => {
                turn.shared.count(Dropped::Stray);
                state
            }
        });
    }

    fn init_request(&mut self, now: Instant, datagram: Datagram<'_>, message: &Message<'_>) {
        let header = message.header;
        let Body::Clear { first, octets } = message.body else {
            return self.shared.count(InvalidMessage::Value("next payload").into());
        };
        // Our own request, reflected, has an SPI of ours.
        if !header.initiator
            || header.message_id != 0
            || header.spi_r != 0
            || self.shared.spis.contains_key(&header.spi_i)
        {
            return self.shared.count(Dropped::Stray);
        }
        let digest = ike_sa_init_responder::digest(datagram.remote, datagram.octets);
        if let Some(ike) = self.inits.get(&digest).copied() {
            return self.with(now, ike, Some(datagram), |state, turn| {
                if let State::HalfOpen(half_open) = &state {
                    turn.answer(vec![half_open.response.clone()]);
                }
                state
            });
        }
        let payloads = match Payloads::read(first, octets) {
            Ok(payloads) => payloads,
            Err(error) => {
                self.shared.count(error.into());
                // The one answer that says which payload it was (RFC 7296 §2.5).
                if let InvalidMessage::Critical(_) = error {
                    let notify = crate::failure::Failure::from(error).notify();
                    self.answer_stateless(datagram, &header, notify);
                }
                return;
            }
        };
        let request = match ike_sa_init_responder::read(message, &payloads) {
            Ok(request) => request,
            Err(failure @ crate::failure::Failure::InvalidSyntax(_)) => {
                // No answer to what nobody honest sends (RFC 7296 §2.21.1).
                let _ = failure;
                self.shared.counters.dropped_invalid += 1;
                return;
            }
            Err(failure) => {
                return self.answer_stateless(datagram, &header, failure.notify());
            }
        };
        if self.admit(now, datagram, message, &payloads) {
            self.begin(now, datagram, digest, &request);
        }
    }

    /// Whether one more stranger may come in. Asks for a cookie if it has to bring one.
    fn admit(
        &mut self,
        now: Instant,
        datagram: Datagram<'_>,
        message: &Message<'_>,
        payloads: &Payloads,
    ) -> bool {
        let nonce = payloads.nonce.as_deref().unwrap_or_default();
        let spi = message.header.spi_i;
        let brought = payloads.notify(NotifyType::COOKIE).map(|n| n.data.as_slice());
        let proven = brought.is_some_and(|cookie| {
            let good = self.shared.cookies.check(now, datagram.remote, spi, nonce, cookie);
            if !good {
                self.shared.counters.cookies_refused += 1;
            }
            good
        });
        let config = &self.shared.config;
        let (threshold, limit) = (config.cookie_threshold, config.half_open_limit);
        match self.shared.half_open.judge(datagram.remote.ip(), proven, threshold, limit) {
            Admission::Admit => true,
            Admission::Refuse => {
                self.shared.counters.dropped_half_open += 1;
                false
            }
            Admission::AskCookie => {
                self.shared.counters.cookies_sent += 1;
                let Shared { cookies, rng, .. } = &mut self.shared;
                let cookie = cookies.bake(now, rng, datagram.remote, spi, nonce);
                let notify = Notify::new(NotifyType::COOKIE, cookie);
                self.answer_stateless(datagram, &message.header, notify);
                false
            }
        }
    }

    /// Makes a half-open SA.
    fn begin(
        &mut self,
        now: Instant,
        datagram: Datagram<'_>,
        digest: Vec<u8>,
        request: &ike_sa_init_responder::Request<'_>,
    ) {
        let id = self.shared.fresh_ike_id();
        let source = datagram.remote.ip();
        let mut link = Link::new(id, false, Path::new(datagram.local, datagram.remote));
        link.half_open = Some(source);
        link.init_digest = Some(digest.clone());
        self.shared.half_open.add(source);
        self.shared.add_remote(source);
        self.inits.insert(digest, id);
        self.peerings.insert(id, Peering { link, state: State::Over });
        self.with(now, id, Some(datagram), |_, turn| {
            ike_sa_init_responder::accept(request, turn).unwrap_or_else(|_| {
                turn.shared.counters.dropped_invalid += 1;
                State::Over
            })
        });
    }

    /// A message of an SA that has keys.
    fn sealed(&mut self, now: Instant, datagram: Datagram<'_>, message: &Message<'_>) {
        let header = message.header;
        let own_spi = if header.initiator { header.spi_r } else { header.spi_i };
        let Some(ike) = self.shared.spis.get(&own_spi).copied() else {
            let digest = ike_sa_init_responder::digest(datagram.remote, datagram.octets);
            match self.shared.graves.get(&own_spi) {
                Some(grave) if grave.request == digest => {
                    let datagrams = grave.datagrams.clone();
                    self.shared.send(datagram.local, datagram.remote, datagrams);
                }
                _ => self.shared.counters.dropped_unknown_spi += 1,
            }
            return;
        };
        self.with(now, ike, Some(datagram), |state, turn| receive(state, turn, message, own_spi));
    }
}

/// A message of an SA that has keys, in whatever state that is.
fn receive(state: State, turn: &mut Turn<'_>, message: &Message<'_>, own_spi: u64) -> State {
    match state {
        State::Established(mut established) => match established.receive(turn, message, own_spi) {
            ControlFlow::Continue(()) => State::Established(established),
            ControlFlow::Break(why) => {
                if let End::Misbehaved(_) = why {
                    // The peer may be of another opinion: it is told, once.
                    let delete = [Payload::Delete(Delete::Ike)];
                    let datagrams = established.current.last_request(&delete);
                    turn.send(datagrams);
                }
                established.end(turn, why);
                State::Over
            }
        },
        State::HalfOpen(mut half_open) => match half_open.sa.receive(message) {
            Ok(Received::Request(ExchangeType::IKE_AUTH, payloads)) => {
                ike_auth_responder::receive(*half_open, turn, payloads)
            }
            outcome => {
                drop_unless_fragment(turn, outcome);
                State::HalfOpen(half_open)
            }
        },
        State::AuthSent(mut sent) => match sent.sa.receive(message) {
            Ok(Received::Response(_, Ok(payloads))) => {
                ike_auth_initiator::receive(*sent, turn, &payloads)
            }
            Ok(Received::Response(_, Err(error))) => {
                sent.abandon(turn);
                turn.ended(crate::failure::Failure::from(error).end());
                State::Over
            }
            outcome => {
                drop_unless_fragment(turn, outcome);
                State::AuthSent(sent)
            }
        },
        // A repeated IKE_AUTH while we wait for our own side is left alone.
        state => {
            turn.shared.count(Dropped::Stray);
            state
        }
    }
}

fn drop_unless_fragment(turn: &mut Turn<'_>, outcome: Result<Received, Dropped>) {
    match outcome {
        Ok(Received::Fragment) => {}
        Ok(_) => turn.shared.count(Dropped::Stray),
        Err(dropped) => turn.shared.count(dropped),
    }
}

/// What is due for one peer relation.
fn timeout(state: State, turn: &mut Turn<'_>) -> State {
    let now = turn.now;
    match state {
        State::InitSent(mut sent) => match sent.timeout(turn) {
            None => State::InitSent(sent),
            Some(why) => {
                turn.ended(why);
                State::Over
            }
        },
        State::AuthSent(mut sent) if sent.sa.due().is_some_and(|due| due <= now) => {
            if let Some(datagrams) = sent.sa.repeat(now) {
                turn.shared.counters.retransmissions += 1;
                turn.send(datagrams);
                return State::AuthSent(sent);
            }
            sent.abandon(turn);
            turn.ended(End::Timeout);
            State::Over
        }
        State::Signing(signing) if signing.until <= now => {
            turn.ended(End::SigningFailed);
            State::Over
        }
        // Nobody but us knows of it yet.
        State::HalfOpen(half_open) if half_open.until <= now => State::Over,
        State::AwaitPeer(waiting) if waiting.until <= now => {
            turn.ended(End::Timeout);
            State::Over
        }
        State::SigningAnswer(signing) if signing.until <= now => {
            turn.ended(End::SigningFailed);
            State::Over
        }
        State::Established(mut established) => match established.timeout(turn) {
            ControlFlow::Continue(()) => State::Established(established),
            ControlFlow::Break(why) => {
                established.end(turn, why);
                State::Over
            }
        },
        state => state,
    }
}
