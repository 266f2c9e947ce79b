//! MOBIKE (RFC 4555): an IKE SA and its children move to other outer addresses.
//!
//! The IKE SA's original initiator decides which pair of addresses is used; the responder moves
//! only when told so by UPDATE_SA_ADDRESSES, under the SA's keys. The addresses stand in the IP
//! header, which nothing protects: so the responder's ESP goes to the new address only when an
//! answer to a COOKIE2 has come from there (§3.7), and no IKE SA moves at all unless its owner has
//! said that it may ([`crate::Ike::allow_moves`]).

use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;

use rand_core::Rng as _;
use sa::Mode;
use subtle::ConstantTimeEq as _;

use crate::api::{Encapsulation, End, Mobike};
use crate::child::follow_peer;
use crate::established::{Established, Which};
use crate::exchange::{Ask, Pending};
use crate::failure::Failure;
use crate::ike_sa::IkeSa;
use crate::message::{ExchangeType, Notify, NotifyType, Payload, Payloads};
use crate::path::{Path, detect, detection_hash, pretended_hash};
use crate::peering::{Turn, bare};

/// What is known of a peer's mobility.
#[derive(Debug, Default)]
pub(crate) struct Mobility {
    /// Both sides have said MOBIKE_SUPPORTED.
    pub(crate) agreed: bool,
    /// The peer's other addresses, as it said last.
    others: Vec<IpAddr>,
    /// How the peer last saw our address, as its NAT detection has it: under which SPI of ours,
    /// and the hash.
    seen_as: Option<(u64, Vec<u8>)>,
    /// It has refused once to have us where we are.
    refused: bool,
}

/// An UPDATE_SA_ADDRESSES that waits for its answer.
#[derive(Debug)]
pub(crate) struct Update {
    path: Path,
    cookie: Vec<u8>,
}

/// What we say in IKE_AUTH. A responder only answers with it.
pub(crate) fn announce(turn: &Turn<'_>) -> Vec<Payload> {
    let mut payloads = Vec::new();
    match turn.shared.config.mobike {
        Mobike::Off => {}
        Mobike::On => payloads.push(bare(NotifyType::MOBIKE_SUPPORTED)),
        Mobike::Announce => {
            payloads.push(bare(NotifyType::MOBIKE_SUPPORTED));
            payloads.extend(additional(turn));
        }
    }
    payloads
}

/// Our addresses besides the one in use (RFC 4555 §3.6).
fn additional(turn: &Turn<'_>) -> impl Iterator<Item = Payload> {
    let used = turn.link.path.local.ip();
    let others = turn.shared.addresses.iter().copied().filter(move |addr| *addr != used);
    others.take(MAX_OTHERS).map(|addr| {
        Payload::Notify(match addr {
            IpAddr::V4(a) => Notify::new(NotifyType::ADDITIONAL_IP4_ADDRESS, a.octets()),
            IpAddr::V6(a) => Notify::new(NotifyType::ADDITIONAL_IP6_ADDRESS, a.octets()),
        })
    })
}

/// Reads the other addresses that a message names; `None` if it says nothing of them.
fn others(payloads: &Payloads) -> Option<Vec<IpAddr>> {
    let mut said = payloads.notify(NotifyType::NO_ADDITIONAL_ADDRESSES).map(|_| Vec::new());
    for notify in &payloads.notifies {
        let address = match notify.kind {
            NotifyType::ADDITIONAL_IP4_ADDRESS => {
                <[u8; 4]>::try_from(notify.data.as_slice()).ok().map(IpAddr::from)
            }
            NotifyType::ADDITIONAL_IP6_ADDRESS => {
                <[u8; 16]>::try_from(notify.data.as_slice()).ok().map(IpAddr::from)
            }
            _ => None,
        };
        if let Some(address) = address {
            let said = said.get_or_insert_default();
            if said.len() < MAX_OTHERS && !said.contains(&address) {
                said.push(address);
            }
        }
    }
    said
}

impl Mobility {
    /// What IKE_AUTH has agreed on.
    pub(crate) fn agree(turn: &Turn<'_>, payloads: &Payloads) -> Self {
        Self {
            agreed: turn.shared.config.mobike != Mobike::Off
                && payloads.notify(NotifyType::MOBIKE_SUPPORTED).is_some(),
            others: others(payloads).unwrap_or_default(),
            seen_as: None,
            refused: false,
        }
    }

    /// Whether the peer has told us of an address of this family.
    pub(crate) fn other_of(&self, is_v4: bool) -> Option<IpAddr> {
        self.others.iter().copied().find(|addr| addr.is_ipv4() == is_v4)
    }
}

/// NAT detection for a path, under an established SA.
fn nat_detection(sa: &IkeSa, turn: &Turn<'_>, path: Path) -> [Payload; 2] {
    let (spi_i, spi_r) = (sa.spi_i, sa.spi_r);
    let source = match turn.shared.config.encapsulation {
        Encapsulation::WhenNatted => detection_hash(spi_i, spi_r, path.local),
        Encapsulation::Force => pretended_hash(spi_i, spi_r, path.local),
    };
    let destination = detection_hash(spi_i, spi_r, path.remote);
    [
        Payload::Notify(Notify::new(NotifyType::NAT_DETECTION_SOURCE_IP, source)),
        Payload::Notify(Notify::new(NotifyType::NAT_DETECTION_DESTINATION_IP, destination)),
    ]
}

/// What a liveness check carries: whoever decides about the path wants to know whether a NAT on it
/// has changed its mind (RFC 4555 §3.8).
pub(crate) fn liveness(established: &Established, turn: &Turn<'_>) -> Vec<Payload> {
    if established.mobility.agreed && turn.link.initiator {
        nat_detection(&established.current, turn, turn.link.path).to_vec()
    } else {
        Vec::new()
    }
}

/// The answer to a liveness check of ours.
pub(crate) fn alive(established: &mut Established, turn: &mut Turn<'_>, payloads: &Payloads) {
    let wrong = note_how_seen(established, turn, payloads);
    // The initiator decides, and who leaves has nothing to say but that.
    if wrong && turn.link.initiator && !established.closing {
        turn.link.ask_first(turn.now, Ask::UpdateAddresses);
    }
}

/// Notes how the peer sees us; whether that has changed, or may have since anybody looked.
fn note_how_seen(established: &mut Established, turn: &Turn<'_>, payloads: &Payloads) -> bool {
    let Some(notify) = payloads.notify(NotifyType::NAT_DETECTION_DESTINATION_IP) else {
        return false;
    };
    let (sa, path) = (&established.current, turn.link.path);
    let seen = (sa.own_spi(), notify.data.clone());
    let own = detection_hash(sa.spi_i, sa.spi_r, path.local);
    let before = established.mobility.seen_as.replace(seen.clone());
    let changed = match before {
        Some((spi, hash)) if spi == seen.0 => hash != seen.1,
        // Under a new SPI nothing can be compared but with what we are ourselves.
        Some(_) | None => path.nat.ours || seen.1 != own,
    };
    established.mobility.agreed && changed
}

fn cookie(turn: &mut Turn<'_>) -> Vec<u8> {
    let mut cookie = vec![0; COOKIE2_LEN];
    turn.shared.rng.fill_bytes(&mut cookie);
    cookie
}

fn cookie_payload(cookie: &[u8]) -> Payload {
    Payload::Notify(Notify::new(NotifyType::COOKIE2, cookie))
}

/// Whether the answer brings our COOKIE2 back. If not the IKE SA must be closed (RFC 4555 §3.7).
fn is_returned(cookie: &[u8], payloads: &Payloads) -> bool {
    let back = payloads.notify(NotifyType::COOKIE2);
    back.is_some_and(|notify| bool::from(notify.data.as_slice().ct_eq(cookie)))
}

/// Our own outer address is another from now on.
pub(crate) fn relocate(established: &mut Established, turn: &mut Turn<'_>, local: IpAddr) {
    let old = turn.link.path;
    if old.local.ip() == local || established.closing {
        return;
    }
    let mut path = old;
    path.local.set_ip(local);
    if local.is_ipv4() != old.remote.is_ipv4() {
        // Who decides may go to another family, if the peer is there too.
        let other = established.mobility.other_of(local.is_ipv4());
        let Some(other) = other.filter(|_| turn.link.initiator) else { return };
        path.remote.set_ip(other);
        turn.link.esp.get_or_insert(old);
    }
    if established.mobility.agreed {
        path.float();
    }
    turn.link.path = path;
    let before = turn.link.counted;
    turn.recount();
    follow_peer(established, turn, before);
    if turn.link.esp.is_none() {
        // What we send from an address that is not ours goes nowhere: there is nothing to wait for.
        established.tell_moved(turn);
    } else if let Some(esp) = &mut turn.link.esp {
        esp.local.set_ip(local);
    }
    let ask = match (established.mobility.agreed, turn.link.initiator) {
        (true, true) => Ask::UpdateAddresses,
        (true, false) => Ask::TellAddresses,
        // All it can be shown is an authenticated message from the new address.
        (false, _) => Ask::Liveness,
    };
    turn.link.ask_first(turn.now, ask);
    // What waits for an answer has to be asked from here.
    established.ask_again(turn);
    established.pump(turn);
}

/// Tells the responder which addresses are used from now on (RFC 4555 §3.5).
pub(crate) fn update(established: &mut Established, turn: &mut Turn<'_>) {
    let (path, cookie) = (turn.link.path, cookie(turn));
    let mut payloads = vec![bare(NotifyType::UPDATE_SA_ADDRESSES)];
    payloads.extend(nat_detection(&established.current, turn, path));
    payloads.push(cookie_payload(&cookie));
    if turn.shared.config.mobike == Mobike::Announce {
        payloads.extend(addresses(turn));
    }
    let about = Pending::UpdateAddresses(Box::new(Update { path, cookie }));
    established.request(turn, ExchangeType::INFORMATIONAL, &payloads, about);
}

/// The whole list, or that there is none.
fn addresses(turn: &Turn<'_>) -> Vec<Payload> {
    let list: Vec<_> = match turn.shared.config.mobike {
        Mobike::Announce => additional(turn).collect(),
        Mobike::Off | Mobike::On => Vec::new(),
    };
    if list.is_empty() { vec![bare(NotifyType::NO_ADDITIONAL_ADDRESSES)] } else { list }
}

/// The responder is answered, and has moved or not.
pub(crate) fn updated(
    established: &mut Established,
    turn: &mut Turn<'_>,
    asked: &Update,
    payloads: &Payloads,
) -> ControlFlow<End> {
    if established.closing {
        return ControlFlow::Continue(());
    }
    if turn.link.path != asked.path {
        // We have moved on meanwhile; this says nothing of where we are now.
        established.mobility.refused = false;
        turn.link.ask_first(turn.now, Ask::UpdateAddresses);
        return ControlFlow::Continue(());
    }
    if let Some(refused) = payloads.error() {
        if !std::mem::replace(&mut established.mobility.refused, true) {
            // A copy of the question may have come first, from where nobody may be, and this is the
            // answer to that (RFC 7296 §2.1). A new question is answered anew.
            turn.link.ask_first(turn.now, Ask::UpdateAddresses);
            return ControlFlow::Continue(());
        }
        // It goes on sending to where we are not.
        established.close(turn, End::Refused { notify: refused.kind.0, authentic: true });
        return ControlFlow::Continue(());
    }
    if !is_returned(&asked.cookie, payloads) {
        established.close(turn, End::Misbehaved("COOKIE2"));
        return ControlFlow::Continue(());
    }
    established.mobility.refused = false;
    note_how_seen(established, turn, payloads);
    let before = turn.link.envelope();
    turn.link.esp = None;
    note_nat(established, turn, Which::Current, payloads);
    if turn.link.envelope() != before {
        established.tell_moved(turn);
    }
    ControlFlow::Continue(())
}

/// Takes NAT detection of the path in use into account, as it came under one of the SAs.
fn note_nat(established: &mut Established, turn: &mut Turn<'_>, which: Which, payloads: &Payloads) {
    let sa = established.sa_mut(which);
    let spis = (sa.spi_i, sa.spi_r);
    let (local, remote) = (turn.link.path.local, turn.link.path.remote);
    if let Some(detected) = detect(payloads, spis, local, remote) {
        turn.note(detected);
        established.keep_mapping(turn);
    }
}

/// What says under an SA other than the current one where we are, to a peer that knows MOBIKE or not.
pub(crate) fn whereabouts(sa: &IkeSa, turn: &Turn<'_>, agreed: bool) -> Vec<Payload> {
    match (agreed, turn.link.initiator) {
        (true, true) => {
            let mut payloads = vec![bare(NotifyType::UPDATE_SA_ADDRESSES)];
            payloads.extend(nat_detection(sa, turn, turn.link.path));
            payloads
        }
        (true, false) => addresses(turn),
        (false, _) => Vec::new(),
    }
}

/// Tells the initiator, which decides, where we are (RFC 4555 §3.6).
pub(crate) fn tell(established: &mut Established, turn: &mut Turn<'_>) {
    let (payloads, path) = (addresses(turn), turn.link.path);
    let about = Pending::TellAddresses(path);
    established.request(turn, ExchangeType::INFORMATIONAL, &payloads, about);
}

/// It knows; if we are elsewhere by now it has to be told again.
pub(crate) fn told(turn: &mut Turn<'_>, path: Path) {
    if turn.link.path.local != path.local {
        turn.link.ask_first(turn.now, Ask::TellAddresses);
    }
}

/// Asks whether the peer is where it says (RFC 4555 §3.7).
pub(crate) fn check(established: &mut Established, turn: &mut Turn<'_>) {
    if turn.link.esp.is_none() {
        return;
    }
    let (path, cookie) = (turn.link.path, cookie(turn));
    let payloads = [cookie_payload(&cookie)];
    let about = Pending::CheckAddress(Box::new(Update { path, cookie }));
    established.request(turn, ExchangeType::INFORMATIONAL, &payloads, about);
}

/// It is: ESP may go there.
pub(crate) fn checked(
    established: &mut Established,
    turn: &mut Turn<'_>,
    asked: &Update,
    payloads: &Payloads,
) -> ControlFlow<End> {
    if !is_returned(&asked.cookie, payloads) {
        established.close(turn, End::Misbehaved("COOKIE2"));
    } else if turn.link.path.remote != asked.path.remote {
        turn.link.ask_first(turn.now, Ask::CheckAddress);
    } else if turn.link.esp.take().is_some() {
        established.tell_moved(turn);
    }
    ControlFlow::Continue(())
}

/// What the peer's INFORMATIONAL request has to do with addresses; gives what to answer.
pub(crate) fn answer(
    established: &mut Established,
    turn: &mut Turn<'_>,
    which: Which,
    payloads: &Payloads,
) -> Vec<Payload> {
    let mut answer = Vec::new();
    if let Some(cookie) = payloads.notify(NotifyType::COOKIE2)
        && COOKIE2.contains(&cookie.data.len())
    {
        answer.push(cookie_payload(&cookie.data));
    }
    // Under an old one it is history: whoever asked it asks again under the successor. A candidate
    // is the successor already to the peer, who made it.
    if !established.mobility.agreed || matches!(which, Which::Old(_)) {
        return answer;
    }
    let update = payloads.notify(NotifyType::UPDATE_SA_ADDRESSES).is_some();
    let said = others(payloads);
    if (update || said.is_some())
        && let Some(notify) = payloads.notify(NotifyType::NO_NATS_ALLOWED)
        && notify.data != tuple(turn.reply.1, turn.reply.0)
    {
        answer.push(Payload::Notify(Failure::UnexpectedNatDetected.notify()));
        return answer;
    }
    if update && !turn.link.initiator && !follow(established, turn, which, payloads) {
        answer.push(Payload::Notify(Failure::UnacceptableAddresses.notify()));
        return answer;
    }
    if payloads.notify(NotifyType::NAT_DETECTION_SOURCE_IP).is_some() {
        let mut path = turn.link.path;
        (path.local, path.remote) = turn.reply;
        answer.extend(nat_detection(established.sa_mut(which), turn, path));
    }
    if let Some(said) = said {
        established.mobility.others = said;
        if turn.link.initiator {
            leave(established, turn);
        }
    }
    answer
}

/// The initiator is where this request came from. False if it must not be.
fn follow(
    established: &mut Established,
    turn: &mut Turn<'_>,
    which: Which,
    payloads: &Payloads,
) -> bool {
    let remote = turn.reply.1.ip();
    let moves = remote != turn.link.path.remote.ip();
    // Transport mode is between the outer addresses themselves: it cannot move.
    let bound = established.children.values().any(|child| child.agreed.mode == Mode::Transport);
    if moves && (!turn.link.movable || bound || turn.shared.is_full(remote)) {
        return false;
    }
    let before = turn.link.envelope();
    let known = turn.link.esp.unwrap_or(turn.link.path);
    established.move_to_reply(turn);
    note_nat(established, turn, which, payloads);
    turn.link.esp = None;
    if known.remote.ip() == remote {
        if turn.link.envelope() != before {
            established.tell_moved(turn);
        }
        return true;
    }
    // The children stay where they are until the peer has been heard from there; only our own
    // end goes along, because the old one may be gone.
    let local = turn.link.path.local;
    turn.link.esp = Some(Path { local, ..known });
    turn.link.ask_first(turn.now, Ask::CheckAddress);
    // What we had asked went to where the peer is no more, and the check waits for its answer.
    established.ask_again(turn);
    true
}

/// The responder has said where it is to be reached: if not where we send, we go there.
fn leave(established: &mut Established, turn: &mut Turn<'_>) {
    let old = turn.link.path;
    let from = turn.reply.1;
    if from.ip() == old.remote.ip()
        || established.mobility.others.contains(&old.remote.ip())
        || !turn.link.movable
    {
        return;
    }
    turn.link.esp.get_or_insert(old);
    established.move_to_reply(turn);
    turn.link.ask_first(turn.now, Ask::UpdateAddresses);
}

/// The content of NO_NATS_ALLOWED (RFC 4555 §4.2.6).
fn tuple(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let mut octets = Vec::with_capacity(36);
    for addr in [source.ip(), destination.ip()] {
        match addr {
            IpAddr::V4(a) => octets.extend_from_slice(&a.octets()),
            IpAddr::V6(a) => octets.extend_from_slice(&a.octets()),
        }
    }
    for port in [source.port(), destination.port()] {
        octets.extend_from_slice(&port.to_be_bytes());
    }
    octets
}

/// Other addresses of one host that are sent, and that are remembered.
const MAX_OTHERS: usize = 8;
/// RFC 4555 §4.2.5.
const COOKIE2: std::ops::RangeInclusive<usize> = 8..=64;
/// Octets of ours: nobody guesses 128 bits.
const COOKIE2_LEN: usize = 16;
