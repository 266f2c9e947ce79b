//! Every IKE SA of a node as one machine: the verbs, the books, and whose deadline is next.

mod arrivals;

pub(crate) use arrivals::MAX_PEERINGS;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::time::Instant;

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng};
use sa::{SaId, Spi};

use crate::api::{
    ChildRequest, Config, Credential, Datagram, End, Event, IkeId, Initiate, NodeSecret, Output,
    PeerVerdict, PublicKey, Ticket, Timer,
};
use crate::child::Standing;
use crate::exchange::crash_detection::UNKNOWN;
use crate::exchange::ike_sa_init_responder::Digest;
use crate::exchange::{
    Ask, Pending, create_child_responder, ike_auth_initiator, ike_auth_responder,
    ike_sa_init_initiator, ike_session_resume, mobike,
};
use crate::message::{ExchangeType, Header, Notify, NotifyType, Payload};
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
    /// Boxed: a tree whose keys only ever grow is half empty.
    peerings: BTreeMap<IkeId, Box<Peering>>,
    /// IKE_SA_INIT requests that were answered, so that their repetition is too.
    inits: BTreeMap<Digest, IkeId>,
    /// One for each peering that has any; kept in step with [`Peering::deadline`].
    deadlines: BTreeSet<(Instant, Timer, IkeId)>,
}

impl Ike {
    /// A node without SAs. Every random number it will ever use comes from `seed`: it has to be
    /// secret, and new for every start.
    #[must_use]
    pub fn new(config: Config, seed: [u8; 32], now: Instant) -> Self {
        Self {
            shared: Shared::new(config, ChaCha20Rng::from_seed(seed), now),
            peerings: BTreeMap::new(),
            inits: BTreeMap::new(),
            deadlines: BTreeSet::new(),
        }
    }

    /// Takes a datagram from the network.
    pub fn handle_datagram(&mut self, now: Instant, datagram: Datagram<'_>) {
        self.arrived(now, datagram);
    }

    /// Answers [`Output::NeedPeer`].
    pub fn handle_peer(&mut self, now: Instant, ike: IkeId, verdict: PeerVerdict) {
        self.with(now, ike, None, |state, turn| match state {
            State::AwaitPeer(state) => ike_auth_responder::told(*state, turn, verdict),
            state => state,
        });
    }

    /// Answers [`Output::NeedChild`]: whether the peer may have it.
    pub fn handle_child(&mut self, now: Instant, ike: IkeId, allowed: bool) {
        self.with(now, ike, None, |state, turn| match state {
            State::Established(mut established) => {
                match create_child_responder::told(&mut established, turn, allowed) {
                    ControlFlow::Continue(()) => {
                        established.pump(turn);
                        State::Established(established)
                    }
                    ControlFlow::Break(why) => established.part(turn, why),
                }
            }
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
    /// behind a NAT that gave it another port, its IKE SA and all children go there (RFC 7296
    /// §2.23).
    ///
    /// From another IP address somebody on the way may have sent it, who was faster than the peer.
    /// So nobody goes there before the peer has said so under its IKE SA; it is asked where it was,
    /// because if it is there no more, nothing that we send arrives. Without a NAT nothing happens.
    pub fn handle_moved(&mut self, now: Instant, sa: SaId, remote: SocketAddr) {
        let Some(ike) = self.shared.children.get(&sa).copied() else { return };
        self.with(now, ike, None, |mut state, turn| {
            if let State::Established(established) = &mut state
                && turn.link.path.nat.theirs
                && turn.link.path.encapsulate
                && turn.link.path.remote != remote
                && turn.link.esp.is_none()
            {
                if turn.link.path.remote.ip() == remote.ip() {
                    turn.reply.1 = remote;
                    established.moved(turn);
                } else if established.current.pending().is_none() {
                    turn.link.ask(now, Ask::Liveness);
                    established.pump(turn);
                }
            }
            state
        });
    }

    /// An ESP packet came from `remote` with an SPI that nobody here knows. Its sender is told: if it
    /// is a peer that we have lost, it will ask us, and believe what we say then (RFC 7296 §1.5,
    /// RFC 6290). Seldom, whatever comes in.
    pub fn handle_unknown_spi(&mut self, now: Instant, spi: Spi, local: IpAddr, remote: IpAddr) {
        if self.shared.tokens.is_none() || !self.shared.hints_sent.allow(now, remote, UNKNOWN) {
            return;
        }
        let notify = Notify::new(NotifyType::INVALID_SPI, spi.to_be_bytes());
        let header = Header {
            // Of nobody: any number but zero, which some refuse.
            spi_i: self.shared.rng.next_u64() | 1,
            spi_r: 0,
            exchange: ExchangeType::INFORMATIONAL,
            initiator: true,
            response: false,
            message_id: 0,
        };
        let octets = header.write_clear(&[Payload::Notify(notify)]);
        let (local, remote) = (SocketAddr::new(local, IKE_PORT), SocketAddr::new(remote, IKE_PORT));
        self.shared.send(local, remote, vec![octets]);
    }

    /// Whether the peer of an IKE SA may be at another address than the one it was authorised at. It
    /// may not until this says so.
    pub fn allow_moves(&mut self, ike: IkeId, allowed: bool) {
        if let Some(peering) = self.peerings.get_mut(&ike) {
            peering.link.movable = allowed;
        }
    }

    /// The peer of an IKE SA may no longer ask for children to this address of its side without its
    /// owner's word: see [`Output::NeedChild`]. What it has stays.
    pub fn withdraw_grant(&mut self, now: Instant, ike: IkeId, remote: IpAddr) {
        self.with(now, ike, None, |mut state, _| {
            if let State::Established(established) = &mut state {
                established.authority.remote.retain(|s| s.as_host() != Some(remote));
            }
            state
        });
    }

    /// Our own addresses are these now. Says nothing of which an IKE SA is to use:
    /// [`Ike::stranded`] and [`Ike::relocate`] do.
    pub fn set_addresses(&mut self, now: Instant, addresses: Vec<IpAddr>) {
        let lost = self.stranded();
        self.shared.addresses = addresses;
        for (ike, _) in lost {
            self.with(now, ike, None, |mut state, turn| {
                if let State::Established(established) = &mut state
                    && !turn.is_stranded()
                {
                    established.ask_again(turn);
                }
                state
            });
        }
    }

    /// The established IKE SAs whose outer address is not ours any more, each with the peer's
    /// address.
    #[must_use]
    pub fn stranded(&self) -> Vec<(IkeId, IpAddr)> {
        let own = &self.shared.addresses;
        let lost = |p: &Peering| {
            matches!(p.state, State::Established(_)) && !own.contains(&p.link.path.local.ip())
        };
        let lost = self.peerings.iter().filter(|(_, p)| lost(p));
        lost.map(|(ike, p)| (*ike, p.link.path.remote.ip())).collect()
    }

    /// From now on an IKE SA and its children use this address of ours. The peer is told, by MOBIKE
    /// or, if it knows none, by an authenticated message from there.
    pub fn relocate(&mut self, now: Instant, ike: IkeId, local: IpAddr) {
        self.with(now, ike, None, |mut state, turn| {
            if let State::Established(established) = &mut state {
                mobike::relocate(established, turn, local);
            }
            state
        });
    }

    /// Calls a peer.
    pub fn initiate(&mut self, now: Instant, initiate: Initiate) -> IkeId {
        self.call(now, initiate, ike_sa_init_initiator::start)
    }

    fn call(
        &mut self,
        now: Instant,
        initiate: Initiate,
        start: impl FnOnce(&mut Turn<'_>, Initiate) -> State,
    ) -> IkeId {
        let id = self.shared.fresh_ike_id();
        let local = SocketAddr::new(initiate.local, IKE_PORT);
        let remote = SocketAddr::new(initiate.remote, IKE_PORT);
        let link = Link::new(id, true, Path::new(local, remote));
        self.shared.add_remote(remote.ip());
        self.peerings.insert(id, Peering::new(link));
        self.with(now, id, None, |_, turn| start(turn, initiate));
        id
    }

    /// Calls a peer that has given us a ticket, and that has proved to be who it is by `key` then. If
    /// it does not take the ticket, this is [`Ike::initiate`].
    pub fn resume(
        &mut self,
        now: Instant,
        initiate: Initiate,
        ticket: &Ticket,
        key: PublicKey,
    ) -> IkeId {
        let key = Credential::Key(key);
        self.call(now, initiate, |turn, initiate| {
            ike_session_resume::start(turn, initiate, ticket, key)
        })
    }

    /// Tickets are sealed with these keys from now on, the first of them; the second still opens.
    pub fn set_ticket_keys(&mut self, keys: &[NodeSecret]) {
        if let Some(tickets) = &mut self.shared.tickets {
            tickets.rotate(keys);
        }
    }

    /// Takes a call back that has not come to IKE_AUTH: the peer has no more of it than a half-open
    /// SA, which ends by itself; it cannot be told, because INFORMATIONAL comes after IKE_AUTH
    /// (RFC 7296 §1.4). Nothing is reported. False if it is too late for that; the call goes on then.
    pub fn withdraw(&mut self, now: Instant, ike: IkeId) -> bool {
        let unsent = |p: &Peering| {
            matches!(
                p.state,
                State::InitSent(_) | State::ResumeSent(_) | State::KeSent(_) | State::Signing(_)
            )
        };
        if !self.peerings.get(&ike).is_some_and(|peering| unsent(peering)) {
            return false;
        }
        self.with(now, ike, None, |_, _| State::Over);
        true
    }

    /// Asks for another child under an IKE SA; if that is not established yet, as soon as it is.
    /// If too many wait for that already, it is [`Event::ChildFailed`] at once.
    pub fn create_child(&mut self, now: Instant, ike: IkeId, child: ChildRequest) {
        if self.peerings.get(&ike).is_some_and(|peering| peering.link.wants_enough()) {
            let notify = NotifyType::NO_ADDITIONAL_SAS.0;
            let (request, why) = (Box::new(child), End::Refused { notify, authentic: false });
            return self.shared.event(Event::ChildFailed { ike, request, why });
        }
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
                && !established.current.pending().is_some_and(Pending::rekeys_ike)
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
            State::AuthSent(mut sent) => {
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
                // This the peer may have made since.
                State::AuthSent(mut sent) => {
                    sent.abandon(turn);
                    turn.ended(End::InitialContact);
                }
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
                        established.last_words(turn);
                        established.end(turn, End::Closed);
                    }
                    State::AuthSent(mut sent) => {
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
        self.shared.graves.clear_until(now);
        let due: Vec<_> = self.deadlines.iter().take_while(|d| d.0 <= now).map(|d| d.2).collect();
        for id in due {
            self.with(now, id, None, timeout);
        }
    }

    /// The next deadline.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        let cookies = self.shared.cookies.deadline().map(|at| (at, Timer::CookieSecret));
        let graves = self.shared.graves.deadline().map(|at| (at, Timer::HalfOpen));
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

    /// How an established IKE SA's keys were agreed on, as `x25519+mlkem768`.
    #[must_use]
    pub fn key_exchange(&self, ike: IkeId) -> Option<&'static str> {
        match &self.peerings.get(&ike)?.state {
            State::Established(established) => Some(established.current.key_exchange()),
            _ => None,
        }
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
        let all = self.peerings.values();
        all.filter(|p| matches!(p.state, State::Established(_))).count()
    }

    /// Whether there is no IKE SA in any state.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.peerings.is_empty()
    }

    /// What an established IKE SA speaks.
    #[cfg(test)]
    pub(crate) fn suite(&self, ike: IkeId) -> Option<crate::crypto::IkeSuite> {
        match &self.peerings.get(&ike)?.state {
            State::Established(established) => Some(established.current.suite),
            _ => None,
        }
    }

    /// As if so many requests had been made under an established IKE SA, by us and by the peer.
    #[cfg(test)]
    pub(crate) fn wear(&mut self, ike: IkeId, ours: u32, theirs: u32) {
        self.with(Instant::now(), ike, None, |mut state, _| {
            if let State::Established(established) = &mut state {
                established.current.wear(ours, theirs);
            }
            state
        });
    }

    /// The generator's key, and how far it has gone with it.
    #[cfg(test)]
    pub(crate) fn generator(&self) -> ([u8; 32], u128) {
        (self.shared.rng.get_seed(), self.shared.rng.get_word_pos())
    }

    /// Whether no SPI of a peer's is known.
    #[cfg(test)]
    pub(crate) fn names_nobody(&self) -> bool {
        self.shared.names_nobody()
    }

    /// How many IKE and ESP SPIs of ours are taken.
    pub(crate) fn reserved(&self) -> (usize, usize) {
        (self.shared.spis.len(), self.shared.esp_spis.len())
    }

    /// Runs one step of one peer relation, and keeps the books.
    fn with(
        &mut self,
        now: Instant,
        ike: IkeId,
        datagram: Option<Datagram<'_>>,
        step: impl FnOnce(State, &mut Turn<'_>) -> State,
    ) {
        let Some(peering) = self.peerings.get_mut(&ike) else { return };
        let Peering { link, state: place, deadline: known } = &mut **peering;
        let state = std::mem::replace(place, State::Over);
        let reply = datagram.map_or((link.path.local, link.path.remote), |d| (d.local, d.remote));
        let mut turn = Turn { now, shared: &mut self.shared, link, reply, datagram };
        let state = step(state, &mut turn);
        self.shared.forget_what_was_drawn();
        let answered = matches!(state, State::Over) || link.half_open.is_none();
        if let Some(digest) = link.init_digest.take_if(|_| answered) {
            self.inits.remove(&digest);
        }
        let deadline = state.deadline(link);
        if deadline != *known {
            if let Some((at, timer)) = std::mem::replace(known, deadline) {
                self.deadlines.remove(&(at, timer, ike));
            }
            if let Some((at, timer)) = deadline {
                self.deadlines.insert((at, timer, ike));
            }
        }
        if matches!(state, State::Over) {
            if let Some(source) = link.half_open {
                self.shared.half_open.remove(source);
            }
            // Whatever it was about: what has an SPI of ours is under way, or stands, or waits to be
            // told of.
            for spi in &link.spis {
                self.shared.spis.remove(spi);
            }
            for spi in &link.esp_spis {
                self.shared.drop_esp_spi(*spi);
            }
            self.shared.remove_remote(link.counted);
            self.peerings.remove(&ike);
            return;
        }
        *place = state;
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
        State::ResumeSent(sent) => sent.timeout(turn),
        State::KeSent(mut sent) if sent.due().is_some_and(|due| due <= now) => {
            if let Some(datagrams) = sent.keyed.sa.repeat(now) {
                turn.shared.counters.retransmissions += 1;
                turn.send(datagrams);
                return State::KeSent(sent);
            }
            turn.ended(End::Timeout);
            State::Over
        }
        State::AuthSent(mut sent) if sent.sa.due().is_some_and(|due| due <= now) => {
            if let Some(datagrams) = sent.sa.repeat(now) {
                turn.shared.counters.retransmissions += 1;
                turn.send(datagrams);
                return State::AuthSent(sent);
            }
            sent.unanswered(turn)
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
