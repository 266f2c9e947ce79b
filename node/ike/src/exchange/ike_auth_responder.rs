//! IKE_AUTH, the peer's request (RFC 7296 §1.2, §2.15), with its two pauses: who is this, and our
//! own signature.

use std::net::IpAddr;
use std::time::Instant;

use sa::{Mode, Spi, TrafficSelector};

use crate::api::{
    Assigned, End, Grant, Identity, NeedPeer, Output, PeerVerdict, Sign, SignatureScheme,
};
use crate::child::{NewChild, child_up};
use crate::crypto::{AdditionalKe, EspChoice, answer_esp, child_keys, choose_esp, write_auth};
use crate::established::{Authority, Established, Founding};
use crate::exchange::authentication::{Prepared, Proof};
use crate::exchange::crash_detection;
use crate::exchange::ike_auth_initiator::MAX_KEYS;
use crate::exchange::ike_sa_init_responder::Digest;
use crate::exchange::ike_session_resume::TICKET_LIFE;
use crate::exchange::mobike::{self, Mobility};
use crate::failure::Failure;
use crate::ike_sa::IkeSa;
use crate::message::{
    Authentication, Configuration, ConfigurationType, ExchangeType, Identification, InvalidMessage,
    Notify, NotifyType, Payload, Payloads, Proposal,
};
use crate::narrow::{narrow, share_family};
use crate::peering::{HALF_OPEN_LIFE, State, Turn, bare};
use crate::shared::{Grave, Shared};
use crate::ticket::Known;
use crate::verified::{Claim, Verified};

/// IKE_SA_INIT is answered.
#[derive(Debug)]
pub(crate) struct HalfOpenSa {
    pub(crate) sa: IkeSa,
    pub(crate) request: Vec<u8>,
    pub(crate) response: Vec<u8>,
    pub(crate) nonce_i: Vec<u8>,
    pub(crate) nonce_r: Vec<u8>,
    pub(crate) hashes: Vec<u16>,
    /// The additional key exchange that has to come before IKE_AUTH (RFC 9370).
    pub(crate) owed_ke: Option<AdditionalKe>,
    /// Who the peer was in the SA that this one is made of (RFC 5723).
    pub(crate) resumed: Option<Box<Known>>,
    /// The peer wants to come back without a key exchange one day.
    pub(crate) wants_ticket: bool,
    pub(crate) until: Instant,
}

/// Waits to be told who the peer is.
#[derive(Debug)]
pub(crate) struct AwaitPeer {
    init: HalfOpenSa,
    id: Identification,
    auth: Authentication,
    child: Option<ChildWish>,
    initial_contact: bool,
    mobility: Mobility,
    digest: Digest,
    pub(crate) until: Instant,
}

/// What the peer asks for in the same message.
#[derive(Debug)]
struct ChildWish {
    proposals: Vec<Proposal>,
    transport: bool,
    remote: Vec<TrafficSelector>,
    local: Vec<TrafficSelector>,
    /// Inner addresses that it asks for.
    wishes: Vec<IpAddr>,
}

/// The peer is who it says; what is left is our own side.
#[derive(Debug)]
pub(crate) struct Answer {
    init: HalfOpenSa,
    peer: Verified,
    id: Identification,
    grant: Grant,
    child: Option<Result<ChildAnswer, Failure>>,
    initial_contact: bool,
    mobility: Mobility,
}

/// Waits for our own signature.
#[derive(Debug)]
pub(crate) struct SigningAnswer {
    answer: Answer,
    scheme: SignatureScheme,
    digest: Digest,
    pub(crate) until: Instant,
}

/// The child as we agree to it.
#[derive(Debug)]
struct ChildAnswer {
    choice: EspChoice,
    number: u8,
    spi_out: Spi,
    mode: Mode,
    remote: Vec<TrafficSelector>,
    local: Vec<TrafficSelector>,
}

/// Takes the request, opened under the SA's keys; asks who its sender is.
pub(crate) fn receive(
    mut state: HalfOpenSa,
    turn: &mut Turn<'_>,
    payloads: Result<Payloads, InvalidMessage>,
) -> State {
    // It came under the SA's keys, from where the peer is now: port 4500, and whatever a NAT made
    // of its address (RFC 7296 §2.23).
    turn.move_to_reply();
    let mobility =
        payloads.as_ref().map_or_else(|_| Mobility::default(), |p| Mobility::agree(turn, p));
    // Somebody would have to break Curve25519 only, if it could be left out.
    let complete = match state.owed_ke {
        Some(_) => Err(Failure::InvalidSyntax("exchange type")),
        None => payloads.map_err(Failure::from),
    };
    if let Ok(payloads) = &complete {
        state.sa.peer_token = crash_detection::theirs(payloads);
        state.wants_ticket = payloads.notify(NotifyType::TICKET_REQUEST).is_some();
    }
    match complete.and_then(read) {
        Ok((id, wanted, auth, child, initial_contact)) => {
            turn.shared.outputs.push_back(Output::NeedPeer(NeedPeer {
                ike: turn.link.id,
                identity: id.identity.clone(),
                wanted,
                local: turn.link.path.local,
                remote: turn.link.path.remote,
                peer_natted: turn.link.path.nat.theirs,
                remote_selectors: child.as_ref().map_or_else(Vec::new, |c| c.remote.clone()),
                local_selectors: child.as_ref().map_or_else(Vec::new, |c| c.local.clone()),
                wishes: child.as_ref().map_or_else(Vec::new, |c| c.wishes.clone()),
            }));
            let digest = turn.digest();
            let until = turn.now + HALF_OPEN_LIFE;
            State::AwaitPeer(Box::new(AwaitPeer {
                init: state,
                id,
                auth,
                child,
                initial_contact,
                mobility,
                digest,
                until,
            }))
        }
        Err(failure) => {
            let digest = turn.digest();
            refuse(&mut state.sa, turn, ExchangeType::IKE_AUTH, digest, failure);
            State::Over
        }
    }
}

type AuthRequest = (Identification, Option<Identity>, Authentication, Option<ChildWish>, bool);

fn read(payloads: Payloads) -> Result<AuthRequest, Failure> {
    let initial_contact = payloads.notify(NotifyType::INITIAL_CONTACT).is_some();
    let transport = payloads.notify(NotifyType::USE_TRANSPORT_MODE).is_some();
    let wishes = payloads
        .configuration
        .filter(|wish| wish.kind == ConfigurationType::CFG_REQUEST)
        .map_or_else(Vec::new, |wish| wish.addresses);
    let id = payloads.id_initiator.ok_or(InvalidMessage::Missing("IDi"))?;
    // No AUTH: it wants EAP.
    let auth = payloads.auth.ok_or(Failure::AuthenticationFailed)?;
    let child = match (payloads.sa, payloads.ts_initiator, payloads.ts_responder) {
        (Some(proposals), Some(remote), Some(local)) => {
            Some(ChildWish { proposals, transport, remote, local, wishes })
        }
        (None, None, None) => None,
        _ => return Err(Failure::InvalidSyntax("SA, TSi, TSr")),
    };
    Ok((id, payloads.id_responder.map(|id| id.identity), auth, child, initial_contact))
}

/// Answers with a notify; the SA is no more, its answer is kept for a while.
pub(crate) fn refuse(
    sa: &mut IkeSa,
    turn: &mut Turn<'_>,
    exchange: ExchangeType,
    request: Digest,
    failure: Failure,
) {
    let datagrams = sa.respond(exchange, &[Payload::Notify(failure.notify())]);
    turn.send(datagrams.clone());
    turn.shared.bury(turn.now, sa.own_spi(), Grave { request, datagrams });
}

/// Goes on with what the owner knows of the peer.
pub(crate) fn told(state: AwaitPeer, turn: &mut Turn<'_>, verdict: PeerVerdict) -> State {
    let AwaitPeer { mut init, id, auth, child, initial_contact, mobility, digest, until } = state;
    let PeerVerdict::Known { identity, grants } = verdict else {
        refuse(&mut init.sa, turn, ExchangeType::IKE_AUTH, digest, Failure::AuthenticationFailed);
        turn.ended(End::NotAuthorized);
        return State::Over;
    };
    let grant = authenticate(&init, turn, &id, &auth, grants).filter(|_| {
        // Once, and only once it is its peer who has come back with it.
        let Some(known) = &init.resumed else { return true };
        turn.shared.tickets.as_mut().is_some_and(|tickets| tickets.spend(known))
    });
    let Some((peer, grant)) = grant else {
        refuse(&mut init.sa, turn, ExchangeType::IKE_AUTH, digest, Failure::AuthenticationFailed);
        turn.ended(End::AuthenticationFailed);
        return State::Over;
    };
    let own = &turn.shared.config.key;
    let proof = match &init.resumed {
        Some(_) => Some(Proof::Resumed),
        None => Proof::ours(own, &identity, Some(peer.credential()), &init.hashes),
    };
    let Some(proof) = proof else {
        refuse(&mut init.sa, turn, ExchangeType::IKE_AUTH, digest, Failure::AuthenticationFailed);
        turn.ended(End::Misbehaved("no signature hash algorithm in common"));
        return State::Over;
    };
    let child = child.map(|wish| agree_child(&wish, &grant, turn));
    let id = Identification::of(&identity);
    let octets = init.sa.signed_octets(false, &init.response, &init.nonce_i, &id.octets);
    let auth = proof.prepare(&init.sa.keys, false, &octets);
    let answer = Answer { init, peer, id, grant, child, initial_contact, mobility };
    match auth {
        Prepared::ToSign(scheme) => {
            let sign = Sign { ike: turn.link.id, scheme, octets, stranger: true };
            turn.shared.outputs.push_back(Output::Sign(sign));
            State::SigningAnswer(Box::new(SigningAnswer { answer, scheme, digest, until }))
        }
        Prepared::Ready(auth) => send(answer, turn, auth),
    }
}

/// The first grant whose key proves who the peer is.
fn authenticate(
    init: &HalfOpenSa,
    turn: &Turn<'_>,
    id: &Identification,
    auth: &Authentication,
    grants: Vec<Grant>,
) -> Option<(Verified, Grant)> {
    let claim = Claim::new(&init.sa, (&init.request, &init.nonce_r), id, auth);
    if let Some(known) = &init.resumed {
        let is = |grant: &Grant| grant.key.key().is_some_and(|key| known.is(id, key));
        let grant = grants.into_iter().find(is)?;
        return Some((claim.check_resumed(&grant.key).ok()?, grant));
    }
    let own = &turn.shared.config.key;
    let mut grants = grants.into_iter().take(MAX_KEYS);
    grants.find_map(|grant| Some((claim.check(own, &grant.key).ok()?, grant)))
}

/// The child as far as the grant allows. Where transport mode is not to be had, USE_TRANSPORT_MODE
/// is not echoed and tunnel mode it is (RFC 7296 §1.3.1).
fn agree_child(wish: &ChildWish, grant: &Grant, turn: &Turn<'_>) -> Result<ChildAnswer, Failure> {
    match grant.assigned {
        Assigned::Exhausted => return Err(Failure::InternalAddressFailure),
        Assigned::Required => return Err(Failure::FailedCpRequired),
        Assigned::Nothing | Assigned::Address(_) => {}
    }
    let (choice, spi, number) =
        choose_esp(turn.shared.suites(), &wish.proposals, None).ok_or(Failure::NoProposalChosen)?;
    let spi_out = Spi::new(spi).ok_or(Failure::NoProposalChosen)?;
    let remote = narrow(&wish.remote, &grant.remote);
    let local = narrow(&wish.local, &grant.local);
    if !share_family(&local, &remote) {
        return Err(Failure::TsUnacceptable);
    }
    let transport =
        wish.transport && grant.transport && turn.link.path.carries_transport(&local, &remote);
    let mode = if transport { Mode::Transport } else { Mode::Tunnel };
    Ok(ChildAnswer { choice, number, spi_out, mode, remote, local })
}

/// Answers with our signature.
pub(crate) fn signed(state: SigningAnswer, turn: &mut Turn<'_>, signature: Option<&[u8]>) -> State {
    let SigningAnswer { mut answer, scheme, digest, until: _ } = state;
    let Some(signature) = signature else {
        refuse(
            &mut answer.init.sa,
            turn,
            ExchangeType::IKE_AUTH,
            digest,
            Failure::AuthenticationFailed,
        );
        turn.ended(End::SigningFailed);
        return State::Over;
    };
    send(answer, turn, write_auth(scheme, signature))
}

/// Answers. The events come first: the inbound SA has to be in before the answer leaves.
fn send(answer: Answer, turn: &mut Turn<'_>, auth: Authentication) -> State {
    let Answer { init, peer, id, grant, child, initial_contact, mobility } = answer;
    let mut payloads = vec![Payload::IdResponder(id), Payload::Authentication(auth)];
    let HalfOpenSa { sa, nonce_i, nonce_r, wants_ticket, resumed, .. } = init;
    // Whoever has a ticket's secret can read this answer: another in it would make one theft good
    // for ever. The next comes with the next signature.
    let fresh = wants_ticket && resumed.is_none();
    let assigned = match grant.assigned {
        Assigned::Address(address) => Some(address),
        Assigned::Nothing | Assigned::Exhausted | Assigned::Required => None,
    };
    let ticket = fresh.then(|| ticket_for(turn, &sa, &peer)).flatten();
    let founding = Founding {
        sa,
        peer,
        authority: Authority {
            local: grant.local,
            remote: grant.remote,
            transport: grant.transport,
        },
        lowest_nonce: nonce_i.clone().min(nonce_r.clone()),
        initial_contact,
        assigned,
        mobility,
    };
    let mut established = Established::new(turn, founding);
    let child = child.map(|answer| {
        answer.and_then(|answer| first_child(&established, turn, answer, &nonce_i, &nonce_r))
    });
    match child {
        None => {}
        Some(Ok((child, number))) => {
            let spi = child.spi_in.to_be_bytes();
            payloads.extend(assigned.map(|a| Payload::Configuration(Configuration::reply(a))));
            if child.mode == Mode::Transport {
                payloads.push(bare(NotifyType::USE_TRANSPORT_MODE));
            }
            payloads.push(Payload::Sa(vec![answer_esp(number, child.choice, spi)]));
            payloads.push(Payload::TsInitiator(child.remote.clone()));
            payloads.push(Payload::TsResponder(child.local.clone()));
            child_up(&mut established, turn, child);
        }
        Some(Err(failure)) => payloads.push(Payload::Notify(failure.notify())),
    }
    if established.mobility.agreed {
        payloads.extend(mobike::announce(turn));
    }
    payloads.extend(ticket);
    let spis = (established.current.spi_i, established.current.spi_r);
    payloads.extend(crash_detection::ours(turn, spis, false));
    let datagrams = established.current.respond(ExchangeType::IKE_AUTH, &payloads);
    turn.send(datagrams);
    established.pump(turn);
    State::Established(Box::new(established))
}

/// A ticket for a peer that has signed.
fn ticket_for(turn: &mut Turn<'_>, sa: &IkeSa, peer: &Verified) -> Option<Payload> {
    let until = turn.shared.unix(turn.now) + TICKET_LIFE.as_secs();
    let Shared { tickets: Some(tickets), rng, .. } = &mut *turn.shared else { return None };
    let (identity, key) = (peer.identity(), peer.credential().key()?);
    let opaque = tickets.seal(rng, until, &sa.resumable()?, identity, key).ok()?;
    let mut data = u32::try_from(TICKET_LIFE.as_secs()).ok()?.to_be_bytes().to_vec();
    data.extend_from_slice(&opaque);
    Some(Payload::Notify(Notify::new(NotifyType::TICKET_LT_OPAQUE, data)))
}

fn first_child(
    established: &Established,
    turn: &mut Turn<'_>,
    answer: ChildAnswer,
    nonce_i: &[u8],
    nonce_r: &[u8],
) -> Result<(NewChild, u8), Failure> {
    let (key_in, key_out) =
        child_keys(&established.current.keys, answer.choice.cipher, [None; 2], nonce_i, nonce_r)
            .map_err(|_| Failure::NoProposalChosen)?;
    let child = NewChild {
        rekeys: None,
        initiator: false,
        choice: answer.choice,
        spi_in: turn.fresh_esp_spi(),
        spi_out: answer.spi_out,
        key_in,
        key_out,
        mode: answer.mode,
        local: answer.local,
        remote: answer.remote,
        envelope: turn.link.envelope(),
    };
    Ok((child, answer.number))
}
