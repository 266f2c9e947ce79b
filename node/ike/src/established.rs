//! A peer that is authenticated: its IKE SA, the children, and the wishes that wait for the window.
//!
//! While an IKE SA is rekeyed there are several: the current one, under which everything is asked;
//! perhaps a candidate, made by the peer while our own rekey is under way; and old ones, which
//! only wait to be deleted. All of them answer.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use sa::{Mode, SaId, TrafficSelector};

use crate::api::{ChildRequest, End, Event, Timer};
use crate::child::{ChildSa, Standing, child_down, follow_peer, hard_life};
use crate::crypto::Group;
use crate::exchange::crash_detection;
use crate::exchange::ike_followup_ke::{self, Owed, Owing};
use crate::exchange::mobike::{self, Mobility};
use crate::exchange::{Ask, Pending};
use crate::exchange::{create_child_initiator, create_child_responder, informational, rekey_ike};
use crate::failure::Failure;
use crate::ike_sa::{Dropped, IkeSa, JUST_NOW, Received, Repeat};
use crate::message::{
    Body, Delete, ExchangeType, InvalidMessage, Message, NotifyType, Payload, Payloads, ProtocolId,
};
use crate::peering::{Link, Queued, State, Tries, Turn};
use crate::verified::Verified;

/// A peer that is authenticated: [`Established::new`] takes the proof of it, and nothing else makes
/// one. Every child is entered here.
#[derive(Debug)]
pub(crate) struct Established {
    pub(crate) current: IkeSa,
    /// Boxed: rare, and as large as the rest.
    pub(crate) candidate: Option<Box<Candidate>>,
    old: Vec<Old>,
    pub(crate) authority: Authority,
    /// Boxed: there is one as a rule, and a tree's smallest node has room for eleven.
    pub(crate) children: BTreeMap<SaId, Box<ChildSa>>,
    pub(crate) rekey_at: Instant,
    expire_at: Instant,
    keepalive_at: Option<Instant>,
    pub(crate) mobility: Mobility,
    /// A request for a child beyond the authority waits for the owner's word.
    pub(crate) beyond: Option<Box<Beyond>>,
    /// What the peer has asked for waits for one more key exchange.
    pub(crate) owed: Option<Box<Owed>>,
    /// A child that the peer has deleted before we heard that it made it.
    pub(crate) stillborn: Option<u32>,
    /// We delete it, or are about to.
    pub(crate) closing: bool,
    /// The peer has it no more, and said so.
    pub(crate) gone: bool,
    /// Boxed: rare.
    trouble: Option<Box<Trouble>>,
}

/// What has gone wrong with a peer so far.
#[derive(Debug, Default)]
struct Trouble {
    /// The owner was told that the peer does not answer.
    unanswered: bool,
    /// When the peer was last asked out of turn.
    asked: Option<Instant>,
    /// The peer has put off what we asked for: for the first time then, and last then.
    put_off: Option<(Instant, Instant)>,
}

/// A request for a child between addresses of which the owner has to say who may have them.
#[derive(Debug)]
pub(crate) struct Beyond {
    /// Under which SA it came, and its message ID.
    pub(crate) own_spi: u64,
    pub(crate) message_id: u32,
    /// Where its answer goes.
    pub(crate) reply: (SocketAddr, SocketAddr),
    pub(crate) payloads: Payloads,
}

/// A successor that the peer made while our own is under way.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) sa: IkeSa,
    pub(crate) lowest_nonce: Vec<u8>,
}

/// An IKE SA that has a successor.
#[derive(Debug)]
struct Old {
    sa: IkeSa,
    until: Instant,
}

/// What the peer may ask children for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Authority {
    pub(crate) local: Vec<TrafficSelector>,
    pub(crate) remote: Vec<TrafficSelector>,
    /// Whether transport mode, too.
    pub(crate) transport: bool,
}

/// What IKE_AUTH has yielded.
#[derive(Debug)]
pub(crate) struct Founding {
    pub(crate) sa: IkeSa,
    pub(crate) peer: Verified,
    pub(crate) authority: Authority,
    pub(crate) lowest_nonce: Vec<u8>,
    pub(crate) initial_contact: bool,
    pub(crate) assigned: Option<IpAddr>,
    pub(crate) mobility: Mobility,
}

/// Which of the IKE SAs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Which {
    Current,
    Candidate,
    Old(usize),
}

impl Established {
    /// Begins, and says so.
    pub(crate) fn new(turn: &mut Turn<'_>, founding: Founding) -> Self {
        let Founding { mut sa, peer, authority, lowest_nonce, .. } = founding;
        let Founding { initial_contact, assigned, mobility, .. } = founding;
        sa.keys.forget_signing();
        turn.settled();
        let life = turn.shared.config.ike_life;
        let initiator = turn.link.initiator;
        let counters = &mut turn.shared.counters;
        if initiator {
            counters.established_initiator += 1;
        } else {
            counters.established_responder += 1;
        }
        turn.shared.event(Event::Established {
            ike: turn.link.id,
            initiator,
            peer,
            lowest_nonce,
            initial_contact,
            assigned,
        });
        let rekey_in = if initiator { turn.shared.shortened(life) } else { life };
        Self {
            current: sa,
            candidate: None,
            old: Vec::new(),
            authority,
            children: BTreeMap::new(),
            rekey_at: turn.now + rekey_in,
            expire_at: turn.now + hard_life(life),
            keepalive_at: turn.link.path.nat.ours.then(|| turn.now + KEEPALIVE),
            mobility,
            beyond: None,
            owed: None,
            stillborn: None,
            closing: false,
            gone: false,
            trouble: None,
        }
    }

    pub(crate) fn find(&self, own_spi: u64) -> Option<Which> {
        if self.current.own_spi() == own_spi {
            return Some(Which::Current);
        }
        if self.candidate.as_ref().is_some_and(|c| c.sa.own_spi() == own_spi) {
            return Some(Which::Candidate);
        }
        self.old.iter().position(|old| old.sa.own_spi() == own_spi).map(Which::Old)
    }

    /// One of the SAs; the current one if that one is gone.
    pub(crate) fn sa_mut(&mut self, which: Which) -> &mut IkeSa {
        match which {
            Which::Current => &mut self.current,
            Which::Candidate => match &mut self.candidate {
                Some(candidate) => &mut candidate.sa,
                None => &mut self.current,
            },
            Which::Old(at) => match self.old.get_mut(at) {
                Some(old) => &mut old.sa,
                None => &mut self.current,
            },
        }
    }

    /// The token that the peer has told for one of the SAs.
    pub(crate) fn peer_token(&self, own_spi: u64) -> Option<&[u8]> {
        let sa = match self.find(own_spi)? {
            Which::Current => &self.current,
            // Losing one of these is losing all: the current one will tell.
            Which::Candidate | Which::Old(_) => return None,
        };
        sa.peer_token.as_deref()
    }

    /// Takes in a message with one of our SPIs.
    pub(crate) fn receive(
        &mut self,
        turn: &mut Turn<'_>,
        message: &Message<'_>,
        own_spi: u64,
    ) -> ControlFlow<End> {
        if let Body::Clear { first, octets } = message.body
            && message.header.response
        {
            return crash_detection::heard(self, turn, own_spi, first, octets);
        }
        let Some(which) = self.find(own_spi) else {
            turn.shared.count(Dropped::Stray);
            return ControlFlow::Continue(());
        };
        let received = self.sa_mut(which).receive(message);
        if which == Which::Current && received.is_ok() {
            // The peer has it; nothing is missed any more that was said under another.
            for old in &mut self.old {
                old.until = old.until.min(turn.now + REPLACED_LIFE);
            }
        }
        if self.current.is_worn() {
            self.rekey_at = self.rekey_at.min(turn.now + REKEY_AGAIN);
        }
        if self.is_unanswered()
            && matches!(received, Ok(Received::Request(..) | Received::Repeated(_)))
        {
            // There is a way again.
            self.ask_besides(turn);
        }
        match received {
            Err(dropped) => {
                turn.shared.count(dropped);
                ControlFlow::Continue(())
            }
            Ok(Received::Fragment) => ControlFlow::Continue(()),
            Ok(Received::Repeated(datagrams)) => {
                turn.answer(datagrams);
                ControlFlow::Continue(())
            }
            Ok(Received::Request(exchange, payloads)) => {
                self.follow(turn, which);
                self.answer(turn, which, exchange, payloads)?;
                self.pump(turn);
                ControlFlow::Continue(())
            }
            Ok(Received::Response(about, payloads)) => {
                if which == Which::Current && self.is_unanswered() {
                    self.trouble.get_or_insert_default().unanswered = false;
                    turn.shared.event(Event::Alive { ike: turn.link.id });
                }
                self.follow(turn, which);
                self.answered(turn, which, about, payloads)?;
                self.pump(turn);
                ControlFlow::Continue(())
            }
        }
    }

    fn answer(
        &mut self,
        turn: &mut Turn<'_>,
        which: Which,
        exchange: ExchangeType,
        payloads: Result<Payloads, InvalidMessage>,
    ) -> ControlFlow<End> {
        let failure = match (exchange, payloads) {
            (ExchangeType::INFORMATIONAL, Ok(payloads)) => {
                return informational::answer(self, turn, which, &payloads);
            }
            (ExchangeType::CREATE_CHILD_SA, Ok(payloads)) => {
                let for_ike = payloads
                    .sa
                    .as_ref()
                    .is_some_and(|p| p.iter().any(|p| p.protocol == ProtocolId::IKE));
                return if for_ike {
                    rekey_ike::answer(self, turn, which, &payloads)
                } else if which == Which::Current
                    && create_child_responder::is_beyond(self, &payloads)
                {
                    create_child_responder::ask(self, turn, payloads);
                    ControlFlow::Continue(())
                } else {
                    create_child_responder::answer(self, turn, which, &payloads)
                };
            }
            (ExchangeType::IKE_FOLLOWUP_KE, Ok(payloads)) => {
                return ike_followup_ke::answer(self, turn, which, &payloads);
            }
            (_, Ok(_)) => Failure::InvalidSyntax("exchange type"),
            (_, Err(error)) => Failure::from(error),
        };
        let notify = [Payload::Notify(failure.notify())];
        let datagrams = self.sa_mut(which).respond(exchange, &notify);
        turn.answer(datagrams);
        Failure::outcome(Some(failure))
    }

    fn answered(
        &mut self,
        turn: &mut Turn<'_>,
        which: Which,
        about: Pending,
        payloads: Result<Payloads, InvalidMessage>,
    ) -> ControlFlow<End> {
        let fatal = NotifyType::INVALID_SYNTAX;
        let is_fatal = |payloads: &Payloads| payloads.notify(fatal).is_some();
        match (about, payloads) {
            (Pending::DeleteIke(why), _) => {
                self.gone = true;
                ControlFlow::Break(why)
            }
            // The peer should have it no more (RFC 7296 §2.21.3). Some keep it, though: the Delete is
            // said until it is heard.
            (_, Ok(payloads)) if which == Which::Current && is_fatal(&payloads) => {
                // If it has made a successor, that is what it goes on with.
                self.adopt_candidate(turn);
                self.close(turn, End::Refused { notify: fatal.0, authentic: true });
                ControlFlow::Continue(())
            }
            (Pending::DeleteOld, _) => {
                let spi = self.sa_mut(which).own_spi();
                self.forget_old(turn, spi);
                ControlFlow::Continue(())
            }
            (Pending::DeleteChild(id, why), _) => {
                child_down(self, turn, id, why);
                ControlFlow::Continue(())
            }
            (Pending::Liveness, Ok(payloads)) => {
                let ike = turn.link.id;
                turn.shared.event(Event::Alive { ike });
                mobike::alive(self, turn, &payloads);
                ControlFlow::Continue(())
            }
            (
                Pending::Auth
                | Pending::Intermediate
                | Pending::Liveness
                | Pending::TellOld
                | Pending::DeleteUnborn,
                _,
            ) => ControlFlow::Continue(()),
            (Pending::TellAddresses(path), _) => {
                mobike::told(turn, path);
                ControlFlow::Continue(())
            }
            (_, Err(error)) => ControlFlow::Break(Failure::from(error).end()),
            (Pending::UpdateAddresses(asked), Ok(payloads)) => {
                mobike::updated(self, turn, &asked, &payloads)
            }
            (Pending::CheckAddress(asked), Ok(payloads)) => {
                mobike::checked(self, turn, &asked, &payloads)
            }
            (Pending::CreateChild(asked), Ok(payloads)) => {
                self.note_put_off(turn.now, &payloads);
                create_child_initiator::receive(self, turn, *asked, &payloads)?;
                self.close_if_out_of_step(turn)
            }
            (Pending::RekeyIke(asked), Ok(payloads)) => {
                self.note_put_off(turn.now, &payloads);
                rekey_ike::receive(self, turn, *asked, &payloads)?;
                self.close_if_out_of_step(turn)
            }
            (Pending::Followup(followup), Ok(payloads)) => {
                ike_followup_ke::receive(self, turn, *followup, &payloads)
            }
        }
    }

    /// Takes note of whether the peer goes on putting us off.
    fn note_put_off(&mut self, now: Instant, payloads: &Payloads) {
        if payloads.error().is_none_or(|error| error.kind != NotifyType::TEMPORARY_FAILURE) {
            if let Some(trouble) = &mut self.trouble {
                trouble.put_off = None;
            }
            return;
        }
        let put_off = &mut self.trouble.get_or_insert_default().put_off;
        let lately = put_off.filter(|(_, last)| now.duration_since(*last) <= 2 * REKEY_AGAIN);
        *put_off = Some((lately.map_or(now, |(first, _)| first), now));
    }

    /// Who puts us off for so long is not busy: the two of us do not agree about where the SA stands,
    /// and it should be closed (RFC 7296 §2.25). By then the owner has been told that nothing is
    /// renewed, and may have another.
    fn close_if_out_of_step(&mut self, turn: &mut Turn<'_>) -> ControlFlow<End> {
        let put_off = self.trouble.as_ref().and_then(|trouble| trouble.put_off);
        if put_off.is_some_and(|(first, last)| last.duration_since(first) >= OUT_OF_STEP) {
            let notify = NotifyType::TEMPORARY_FAILURE.0;
            self.close(turn, End::Refused { notify, authentic: true });
        }
        ControlFlow::Continue(())
    }

    /// The peer, behind a NAT, has a new outer address: an authenticated message that is not a
    /// repetition came from there (RFC 7296 §2.23). With MOBIKE it says so instead, because it may
    /// only be looking for a way (RFC 4555 §3.8).
    fn follow(&mut self, turn: &mut Turn<'_>, which: Which) {
        let path = turn.link.path;
        if !matches!(which, Which::Old(_))
            && !self.mobility.agreed
            && path.nat.theirs
            && turn.reply.0 == path.local
            && turn.reply.1 != path.remote
            && turn.link.may_be_at(turn.reply.1)
        {
            self.moved(turn);
            // What we had asked went to where it is no more.
            self.ask_again(turn);
        }
    }

    /// The peer is where `turn.reply` says.
    pub(crate) fn moved(&mut self, turn: &mut Turn<'_>) {
        self.move_to_reply(turn);
        self.tell_moved(turn);
    }

    /// The same, and nothing is said of the children's packets yet.
    pub(crate) fn move_to_reply(&mut self, turn: &mut Turn<'_>) {
        let before = turn.link.counted;
        turn.move_to_reply();
        follow_peer(self, turn, before);
    }

    /// Says where the children's packets go from now on.
    pub(crate) fn tell_moved(&mut self, turn: &mut Turn<'_>) {
        turn.shared.event(Event::Moved {
            ike: turn.link.id,
            children: self.children.keys().copied().collect(),
            envelope: turn.link.envelope(),
        });
    }

    /// What waits for an answer is asked once more, with all its tries before it: there is a way
    /// again, or another.
    pub(crate) fn ask_again(&mut self, turn: &mut Turn<'_>) {
        if let Some(datagrams) = self.current.begin_anew(self.repeat(turn)) {
            turn.send(datagrams);
        }
    }

    fn is_unanswered(&self) -> bool {
        self.trouble.as_ref().is_some_and(|trouble| trouble.unanswered)
    }

    /// There is reason to believe that an answer can be had now, though nobody vouches for it: what we
    /// wait for is asked once more out of its turn, and that takes nothing from its time.
    pub(crate) fn ask_besides(&mut self, turn: &mut Turn<'_>) {
        let Some(datagrams) = self.current.besides(turn.now) else { return };
        let asked = &mut self.trouble.get_or_insert_default().asked;
        if asked.is_none_or(|at| turn.now.saturating_duration_since(at) >= JUST_NOW) {
            *asked = Some(turn.now);
            turn.shared.counters.retransmissions += 1;
            turn.send(datagrams);
        }
    }

    /// How a request is repeated: for long, unless we are leaving. Nobody waits then for what we
    /// have to say, but for our memory.
    fn repeat(&self, turn: &Turn<'_>) -> Repeat {
        if self.closing {
            turn.shared.repeat(turn.now)
        } else {
            turn.shared.repeat_patiently(turn.now)
        }
    }

    /// A NAT before us wants to hear from us now and then, or there is none any more.
    pub(crate) fn keep_mapping(&mut self, turn: &Turn<'_>) {
        self.keepalive_at = turn.link.path.nat.ours.then(|| turn.now + KEEPALIVE);
    }

    /// Sends a request under the current SA, whose window is free.
    pub(crate) fn request(
        &mut self,
        turn: &mut Turn<'_>,
        exchange: ExchangeType,
        payloads: &[Payload],
        about: Pending,
    ) {
        let repeat = self.repeat(turn);
        let datagrams = self.current.request(exchange, payloads, repeat, about);
        turn.send(datagrams);
    }

    /// Asks what waits, if the window is free.
    pub(crate) fn pump(&mut self, turn: &mut Turn<'_>) {
        while self.current.pending().is_none() {
            let due = turn.link.asks.iter().position(|q| q.not_before <= turn.now);
            let Some(queued) = due.and_then(|at| turn.link.asks.remove(at)) else { return };
            self.ask(turn, queued);
        }
    }

    fn ask(&mut self, turn: &mut Turn<'_>, queued: Queued) {
        let Queued { ask, tries, .. } = queued;
        let delete = |spi: sa::Spi| [Payload::Delete(Delete::Esp(vec![spi.get()]))];
        let informational = ExchangeType::INFORMATIONAL;
        match ask {
            Ask::Liveness => {
                let payloads = mobike::liveness(self, turn);
                self.request(turn, informational, &payloads, Pending::Liveness);
            }
            Ask::TellToken => crash_detection::tell(self, turn),
            Ask::UpdateAddresses => mobike::update(self, turn),
            Ask::TellAddresses => mobike::tell(self, turn),
            Ask::CheckAddress => mobike::check(self, turn),
            Ask::DeleteChild(id, why) => {
                let Some(child) = self.children.get_mut(&id) else { return };
                child.standing = Standing::Deleting;
                let payloads = delete(child.spi_in);
                self.request(turn, informational, &payloads, Pending::DeleteChild(id, why));
            }
            Ask::DeleteUnborn(spi) => {
                turn.drop_esp_spi(spi);
                self.request(turn, informational, &delete(spi), Pending::DeleteUnborn);
            }
            Ask::DeleteIke(why) => {
                let payloads = [Payload::Delete(Delete::Ike)];
                self.request(turn, informational, &payloads, Pending::DeleteIke(why));
            }
            Ask::CreateChild(request) => {
                self.extend_authority(&request);
                let group = self.current.suite.group;
                create_child_initiator::start(self, turn, request, None, group, tries);
            }
            Ask::RekeyChild(id) => {
                let Some(child) = self.children.get(&id) else { return };
                if !matches!(child.standing, Standing::Up | Standing::Rekeying) {
                    return;
                }
                let request = child.agreed.clone();
                let group = self.current.suite.group;
                create_child_initiator::start(self, turn, request, Some(id), group, tries);
            }
            Ask::RekeyIke => {
                let group: Group = self.current.suite.group;
                rekey_ike::start(self, turn, group, tries);
            }
        }
    }

    /// What we ask the peer for, it may ask us for.
    fn extend_authority(&mut self, request: &ChildRequest) {
        let Authority { local, remote, transport } = &mut self.authority;
        *transport |= request.mode == Mode::Transport;
        for (have, add) in [(local, &request.local), (remote, &request.remote)] {
            for selector in add {
                if have.len() < crate::narrow::MAX_SELECTORS && !have.contains(selector) {
                    have.push(*selector);
                }
            }
        }
    }

    /// A child has a replacement of the peer's making; the peer deletes it, or we do in the end.
    pub(crate) fn is_replaced(&mut self, turn: &Turn<'_>, old: SaId) {
        if let Some(old) = self.children.get_mut(&old) {
            old.standing = Standing::Replaced;
            old.expire_at = old.expire_at.min(turn.now + REPLACED_LIFE);
        }
    }

    /// A child is not replaced after all; that is tried again later.
    pub(crate) fn stays(&mut self, turn: &Turn<'_>, old: SaId) {
        if let Some(child) = self.children.get_mut(&old)
            && child.standing == Standing::Rekeying
        {
            child.standing = Standing::Up;
            child.rekey_at = turn.now + REKEY_AGAIN;
        }
    }

    /// Whether the peer's replacement of a child waits for one more key exchange.
    pub(crate) fn owes(&self, old: SaId) -> bool {
        let owed = self.owed.as_ref().map(|owed| &owed.about);
        matches!(owed, Some(Owing::Child(child)) if child.old == Some(old))
    }

    /// The lowest nonce of the peer's successor that waits for one more key exchange.
    pub(crate) fn owed_ike(&self) -> Option<&Vec<u8>> {
        match &self.owed.as_ref()?.about {
            Owing::Ike(ike) => Some(ike.lowest_nonce()),
            Owing::Child(_) => None,
        }
    }

    /// The peer's last key exchange does not come any more.
    pub(crate) fn forget_owed(&mut self, turn: &mut Turn<'_>) {
        if let Some(owed) = self.owed.take() {
            self.disown(turn, owed.about);
        }
    }

    /// The same, to make place for another.
    pub(crate) fn forget_owed_for(&mut self, turn: &mut Turn<'_>, next: &Owing) {
        let same = matches!(next, Owing::Child(next) if next.old.is_some_and(|old| self.owes(old)));
        match self.owed.take().map(|owed| owed.about) {
            // The child goes on being replaced.
            Some(Owing::Child(child)) if same => turn.drop_esp_spi(child.spi_in),
            Some(about) => self.disown(turn, about),
            None => {}
        }
    }

    /// What the peer had asked for is not made.
    pub(crate) fn disown(&mut self, turn: &mut Turn<'_>, about: Owing) {
        match about {
            Owing::Ike(ike) => turn.drop_ike_spi(ike.spis.1),
            Owing::Child(child) => {
                turn.drop_esp_spi(child.spi_in);
                let ours = match self.current.pending() {
                    Some(Pending::CreateChild(ours)) => ours.rekeys,
                    Some(Pending::Followup(ours)) => ours.rekeys(),
                    _ => None,
                };
                if let Some(old) = child.old.filter(|old| ours != Some(*old)) {
                    self.stays(turn, old);
                }
            }
        }
    }

    /// Another IKE SA takes over; the children do not notice (RFC 7296 §2.18). Its maker deletes
    /// the old one.
    pub(crate) fn succeed(&mut self, turn: &mut Turn<'_>, successor: IkeSa, ours: bool) {
        // Under that one nothing more is made.
        self.forget_owed(turn);
        // If that was wished for again while it took its time, it is done.
        turn.link.asks.retain(|q| q.ask != Ask::RekeyIke);
        let mut old = std::mem::replace(&mut self.current, successor);
        // What was asked under it is still wanted. The question itself stays, because the peer takes
        // none that we may have to ask there after it before this one (RFC 7296 §2.3).
        if let Some(pending) = old.pending_mut()
            && let Some(ask) = pending.ask_of_successor()
        {
            *pending = Pending::TellOld;
            turn.link.ask_first(turn.now, ask);
        } else if self.is_unanswered() && !self.closing {
            // What nobody answered is moot by now; that somebody answers is still to be shown.
            turn.link.ask_first(turn.now, Ask::Liveness);
        }
        self.current.keys.forget_signing();
        if ours {
            if turn.shared.tokens.is_some() {
                // When it is settled whose successor stays.
                let not_before = turn.now + SETTLED;
                turn.link.asks.retain(|q| q.ask != Ask::TellToken);
                let tries = Tries::default();
                turn.link.asks.push_back(Queued { ask: Ask::TellToken, not_before, tries });
            }
            self.close_old(turn, old);
        } else {
            self.keep_old(turn, old);
        }
        let life = turn.shared.config.ike_life;
        let rekey_in = if ours { turn.shared.shortened(life) } else { life };
        self.rekey_at = turn.now + rekey_in;
        self.expire_at = turn.now + hard_life(life);
    }

    /// Our own rekey is void: the peer's takes over, if it made one.
    pub(crate) fn adopt_candidate(&mut self, turn: &mut Turn<'_>) -> bool {
        let Some(candidate) = self.candidate.take() else { return false };
        match self.current.abandon() {
            Some(Pending::RekeyIke(ours)) => turn.drop_ike_spi(ours.spi),
            Some(Pending::Followup(ours)) => {
                if let Some(spi) = ours.ike_spi() {
                    turn.drop_ike_spi(spi);
                }
            }
            _ => {}
        }
        self.succeed(turn, candidate.sa, false);
        true
    }

    /// The peer took its own rekey back.
    pub(crate) fn drop_candidate(&mut self, turn: &mut Turn<'_>) {
        if let Some(candidate) = self.candidate.take() {
            turn.drop_ike_spi(candidate.sa.own_spi());
        }
    }

    /// Keeps an SA until the peer deletes it. As long as the peer has not spoken under the current one
    /// it may lack our last answer under this one, and asks for that again while its patience lasts:
    /// which is as long as ours, for all we know. To who asks in vain we would be a node that has lost
    /// everything (RFC 6290).
    pub(crate) fn keep_old(&mut self, turn: &mut Turn<'_>, sa: IkeSa) {
        if self.old.len() >= MAX_OLD {
            let oldest = self.old.remove(0);
            turn.drop_ike_spi(oldest.sa.own_spi());
        }
        let patience =
            if self.current.heard { Duration::ZERO } else { turn.shared.config.patience };
        self.old.push(Old { sa, until: turn.now + patience + REPLACED_LIFE });
    }

    /// Deletes an SA that is not wanted any more.
    pub(crate) fn close_old(&mut self, turn: &mut Turn<'_>, mut sa: IkeSa) {
        let repeat = turn.shared.repeat_patiently(turn.now);
        let payloads = [Payload::Delete(Delete::Ike)];
        sa.abandon();
        let datagrams =
            sa.request(ExchangeType::INFORMATIONAL, &payloads, repeat, Pending::DeleteOld);
        turn.send(datagrams);
        self.keep_old(turn, sa);
    }

    pub(crate) fn forget_old(&mut self, turn: &mut Turn<'_>, own_spi: u64) {
        self.old.retain(|old| old.sa.own_spi() != own_spi);
        turn.drop_ike_spi(own_spi);
    }

    /// Begins to delete everything. What else waits is moot, and what has been asked gets no more
    /// time than the Delete, which waits for it.
    pub(crate) fn close(&mut self, turn: &mut Turn<'_>, why: End) {
        if !self.closing {
            self.closing = true;
            turn.link.asks.clear();
            turn.link.ask_first(turn.now, Ask::DeleteIke(why));
            self.current.begin_anew(self.repeat(turn));
        }
        self.pump(turn);
    }

    /// Tells the peer once that everything is gone: under the current SA, and under whatever else may
    /// be the one that it goes on with. While the SA is being replaced that is a successor of its
    /// making, of two that crossed; or still the old one, if our answer is on its way. Where we had
    /// asked something there, that goes before: the peer takes requests in their order, one at a time
    /// (RFC 7296 §2.3), and may not have had it.
    pub(crate) fn last_words(&mut self, turn: &mut Turn<'_>) {
        let heard = self.current.heard;
        let candidate = self.candidate.iter_mut().map(|candidate| &mut candidate.sa);
        let old = self.old.iter_mut().map(|old| &mut old.sa);
        let old = old.filter(|sa| !heard && matches!(sa.pending(), None | Some(Pending::TellOld)));
        for sa in std::iter::once(&mut self.current).chain(candidate).chain(old) {
            if matches!(sa.pending(), Some(Pending::TellOld))
                && let Some(datagrams) = sa.besides(turn.now)
            {
                turn.send(datagrams);
            }
            let datagrams = sa.last_request(&[Payload::Delete(Delete::Ike)]);
            turn.send(datagrams);
        }
    }

    /// Ends in the middle of an exchange.
    pub(crate) fn part(mut self: Box<Self>, turn: &mut Turn<'_>, why: End) -> State {
        if !self.gone {
            // The peer may be of another opinion: it is told, once.
            self.last_words(turn);
        }
        self.end(turn, why);
        State::Over
    }

    /// The children go first, then the rest.
    pub(crate) fn end(mut self, turn: &mut Turn<'_>, why: End) {
        self.forget_owed(turn);
        let ids: Vec<_> = self.children.keys().copied().collect();
        for id in ids {
            child_down(&mut self, turn, id, why);
        }
        turn.ended(why);
    }

    /// The next deadline.
    pub(crate) fn deadline(&self, link: &Link) -> Option<(Instant, Timer)> {
        let retransmit = [self.current.due(), self.candidate.as_ref().and_then(|c| c.sa.due())]
            .into_iter()
            .flatten()
            .chain(self.old.iter().filter_map(|old| old.sa.due()))
            .map(|at| (at, Timer::Retransmit));
        let old = self.old.iter().map(|old| (old.until, Timer::Expire));
        // What waits for the window has no time of its own.
        let free = self.current.pending().is_none();
        let asks = link.asks.iter().filter(move |_| free);
        let asks = asks.map(|q| (q.not_before, Timer::Retransmit));
        let children = self.children.values().flat_map(|child| {
            let rekey = (child.standing == Standing::Up && !self.closing)
                .then_some((child.rekey_at, Timer::RekeyChild));
            let expire = (child.standing != Standing::Deleting && !self.closing)
                .then_some((child.expire_at, Timer::Expire));
            [rekey, expire].into_iter().flatten()
        });
        let own = (!self.closing)
            .then_some([(self.rekey_at, Timer::RekeyIke), (self.expire_at, Timer::Expire)]);
        retransmit
            .chain(old)
            .chain(asks)
            .chain(children)
            .chain(own.into_iter().flatten())
            .chain(self.keepalive_at.map(|at| (at, Timer::Keepalive)))
            .chain(self.owed.as_ref().map(|owed| (owed.until, Timer::Expire)))
            .min()
    }

    /// Does what is due.
    pub(crate) fn timeout(&mut self, turn: &mut Turn<'_>) -> ControlFlow<End> {
        let now = turn.now;
        if self.current.due().is_some_and(|due| due <= now) {
            self.retransmit(turn)?;
        }
        self.retransmit_old(turn);
        if self.owed.as_ref().is_some_and(|owed| owed.until <= now) {
            self.forget_owed(turn);
        }
        if !self.closing && self.expire_at <= now {
            self.close(turn, End::Expired);
        }
        if !self.closing {
            self.renew(turn);
        }
        if self.keepalive_at.is_some_and(|at| at <= now) {
            // RFC 3948 §2.3: one octet, and no marker before it.
            let (local, remote) = (turn.link.path.local, turn.link.path.remote);
            turn.shared.outputs.push_back(crate::api::Output::Transmit(crate::api::Transmit {
                local,
                remote,
                marker: false,
                octets: vec![0xff],
            }));
            self.keepalive_at = Some(now + KEEPALIVE);
        }
        self.pump(turn);
        ControlFlow::Continue(())
    }

    fn retransmit(&mut self, turn: &mut Turn<'_>) -> ControlFlow<End> {
        let stranded = turn.is_stranded() && !self.closing;
        if let Some((datagrams, unanswered)) = self.current.repeat_or_say(turn.now) {
            turn.shared.counters.retransmissions += 1;
            self.ask_under_old(turn);
            turn.send(datagrams);
            if unanswered && !stranded {
                self.trouble.get_or_insert_default().unanswered = true;
                turn.shared.event(Event::Unanswered { ike: turn.link.id });
            }
            return ControlFlow::Continue(());
        }
        if stranded {
            // Nobody could have answered: we have no address to be answered at. One may come.
            self.current.begin_anew(self.repeat(turn));
            return ControlFlow::Continue(());
        }
        let delete = turn.link.asks.iter().find_map(|queued| match queued.ask {
            Ask::DeleteIke(why) => Some(why),
            _ => None,
        });
        ControlFlow::Break(match self.current.pending() {
            Some(Pending::DeleteIke(why)) => *why,
            _ => delete.unwrap_or(End::Timeout),
        })
    }

    /// As long as the peer has not spoken under a successor of its making it may not have our answer
    /// that made it. It asks for that again, but where we were then; and under the successor it
    /// cannot be told where we are. So it is told under the old one, which it knows in any case. To
    /// repeat our answer unasked would do as well, and must not be done (RFC 7296 §2.1).
    fn ask_under_old(&mut self, turn: &mut Turn<'_>) {
        if self.current.heard {
            return;
        }
        let agreed = self.mobility.agreed;
        for old in self.old.iter_mut().filter(|old| old.sa.pending().is_none()) {
            let payloads = mobike::whereabouts(&old.sa, turn, agreed);
            let (exchange, about) = (ExchangeType::INFORMATIONAL, Pending::TellOld);
            let repeat = turn.shared.repeat_patiently(turn.now);
            let datagrams = old.sa.request(exchange, &payloads, repeat, about);
            turn.send(datagrams);
        }
    }

    /// An old SA whose Delete nobody answers is forgotten, and so is one nobody deletes. What is asked
    /// under it is asked until then: another request would be beyond the peer's window.
    fn retransmit_old(&mut self, turn: &mut Turn<'_>) {
        let mut gone = Vec::new();
        for old in &mut self.old {
            let due = old.sa.due().is_some_and(|due| due <= turn.now);
            if old.until <= turn.now {
                gone.push(old.sa.own_spi());
            } else if due {
                let anew = turn.shared.repeat_patiently(turn.now);
                let again = old.sa.repeat(turn.now).or_else(|| old.sa.begin_anew(anew));
                turn.send(again.unwrap_or_default());
            }
        }
        for spi in gone {
            self.forget_old(turn, spi);
        }
    }

    /// Replaces what is near its end, ends what is past it.
    fn renew(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now;
        if self.rekey_at <= now {
            self.rekey_at = now + REKEY_AGAIN;
            turn.link.ask(now, Ask::RekeyIke);
        }
        for (id, child) in &mut self.children {
            if child.standing != Standing::Deleting && child.expire_at <= now {
                let why =
                    if child.standing == Standing::Replaced { End::Closed } else { End::Expired };
                child.standing = Standing::Deleting;
                turn.link.ask_first(now, Ask::DeleteChild(*id, why));
            } else if child.standing == Standing::Up && child.rekey_at <= now {
                child.standing = Standing::Rekeying;
                turn.link.ask(now, Ask::RekeyChild(*id));
            }
        }
    }
}

/// How long after a rekey of ours the peer may still be busy with its own.
const SETTLED: Duration = Duration::from_secs(5);
/// RFC 3948 §4.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// How long something replaced waits for its replacement's maker to delete it, once that one is known
/// to have the replacement.
pub(crate) const REPLACED_LIFE: Duration = Duration::from_secs(60);
/// A rekey that was refused is tried again after this long.
pub(crate) const REKEY_AGAIN: Duration = Duration::from_secs(60);
/// "Several minutes" (RFC 7296 §2.25).
const OUT_OF_STEP: Duration = Duration::from_secs(300);
/// Rekeys while the first of them is still kept; more is a peer that plays.
const MAX_OLD: usize = 4;
