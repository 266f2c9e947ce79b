//! The ways into an IKE SA, and a peer that goes each of them as it should.

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;

use crate::peer::{Evil, Manners, Proof};
use crate::victim::{EVIL, EVIL_KEY, Owned, VICTIM, VICTIMS_KEY, inner};
use crate::wire::{
    CREATE_CHILD_SA, Header, IKE_AUTH, IKE_FOLLOWUP_KE, IKE_INTERMEDIATE, IKE_SESSION_RESUME,
    INFORMATIONAL, INITIATOR, Payload, RESPONSE, split,
};

/// A way into an IKE SA.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Way {
    pub(crate) manners: Manners,
    /// Whether the peer calls.
    pub(crate) calls: bool,
    /// Whether it has been there before.
    pub(crate) again: bool,
}

/// All of them.
pub(crate) fn ways() -> Vec<Way> {
    let mut ways = Vec::new();
    for calls in [true, false] {
        for proof in [Proof::Signature, Proof::Secret, Proof::Nothing] {
            for (quantum, cbc) in [(false, false), (true, false), (false, true)] {
                let manners = Manners { proof, quantum, cbc, returns: false };
                ways.push(Way { manners, calls, again: false });
            }
        }
        let manners = Manners { returns: true, ..Manners::default() };
        ways.push(Way { manners, calls, again: true });
    }
    ways
}

/// The two of them, before the first message of the way.
pub(crate) fn begin(way: Way, key: usize) -> (Owned, Evil) {
    let mut victim = Owned::equipped(VICTIM, VICTIMS_KEY, 61);
    victim.knows_by(EVIL, way.manners, EVIL_KEY);
    let evil = Evil::new(EVIL, key, way.calls, ChaCha20Rng::seed_from_u64(5));
    let mut evil = evil.with(way.manners);
    if way.again {
        walk(&mut victim, &mut evil, !way.calls);
        assert_eq!(victim.established.len(), 1, "{way:?}");
        // The SA that was there is lost to both: nothing of it helps.
        for ike in victim.established.keys().copied().collect::<Vec<_>>() {
            victim.ike.abandon(victim.now, ike);
        }
        victim.after();
        victim.said();
        assert!(!way.calls || evil.come_back(), "no ticket");
        victim.events.clear();
    }
    if !way.calls {
        call(&mut victim, way);
    }
    (victim, evil)
}

pub(crate) fn call(victim: &mut Owned, way: Way) {
    if way.again {
        assert!(victim.resume(EVIL, EVIL_KEY), "no ticket");
    } else {
        victim.call_by(EVIL, way.manners, EVIL_KEY);
    }
}

/// Both do what they should, until the peer has nothing more to say.
pub(crate) fn walk(victim: &mut Owned, evil: &mut Evil, called: bool) {
    if called {
        victim.call_by(EVIL, evil.manners, EVIL_KEY);
    }
    // Who is refused would begin again for ever.
    for _ in 0..5 {
        let Some(octets) = evil_says(evil, &victim.said()) else { break };
        victim.hear(EVIL, &octets);
    }
}

/// What the peer says next if it does as it should, to what it has heard.
pub(crate) fn evil_says(evil: &mut Evil, heard: &[Vec<u8>]) -> Option<Vec<u8>> {
    let mut taken = None;
    for octets in heard {
        let Some((header, first)) = Header::read(octets) else { continue };
        if let Some(message) = evil.take(octets) {
            taken = Some(message);
        } else if header.spi_r == 0 || !evil.is_keyed() {
            if header.exchange == IKE_SESSION_RESUME && !evil.initiator {
                let payloads = split(first, &octets[28..]);
                assert!(evil.taken_back(header, &payloads), "not the ticket that it gave");
            } else if header.exchange == IKE_SESSION_RESUME && evil.spi_r != 0 {
                continue;
            }
            if !evil.read_init(octets) {
                continue;
            }
            if !evil.initiator {
                let payloads = evil.init_payloads();
                return Some(evil.init(&payloads));
            }
        }
    }
    let Some((header, payloads)) = taken else {
        return match (evil.is_keyed(), evil.initiator) {
            (false, true) => Some({
                let payloads = evil.init_payloads();
                evil.init(&payloads)
            }),
            (true, true) if evil.next_id == 1 && evil.is_first() => Some(request(evil)),
            _ => None,
        };
    };
    let answers = header.flags & RESPONSE == 0;
    let reply = Header { flags: header.flags ^ (RESPONSE | INITIATOR), ..header };
    match (header.exchange, answers) {
        (IKE_INTERMEDIATE, true) => {
            let payloads = evil.answer_kem(header, &payloads);
            Some(evil.seal(reply, &payloads))
        }
        (IKE_INTERMEDIATE, false) => evil.take_kem(header, &payloads).then(|| request(evil)),
        (IKE_AUTH, true) => {
            let payloads = evil.auth_payloads(inner(EVIL), inner(VICTIM));
            Some(evil.seal(reply, &payloads))
        }
        (IKE_AUTH, false) => {
            evil.keep_ticket(&payloads);
            None
        }
        (CREATE_CHILD_SA, true) => {
            let payloads = evil.answer_create(&payloads);
            evil.select(header);
            Some(evil.seal(reply, &payloads))
        }
        (IKE_FOLLOWUP_KE, true) => {
            let payloads = evil.answer_followup(&payloads);
            evil.select(header);
            Some(evil.seal(reply, &payloads))
        }
        (CREATE_CHILD_SA, false) if evil.rekeyed(&payloads) => {
            let payloads = evil.followup_payloads()?;
            Some(next(evil, IKE_FOLLOWUP_KE, &payloads))
        }
        (IKE_FOLLOWUP_KE, false) => {
            evil.take_followup(&payloads);
            None
        }
        (_, true) => Some(evil.seal(reply, &[])),
        _ => None,
    }
}

/// The next request of a peer that called: a second key exchange if one is due, else IKE_AUTH.
fn request(evil: &mut Evil) -> Vec<u8> {
    if evil.owes_kem() {
        let payloads = evil.kem_payloads();
        return next(evil, IKE_INTERMEDIATE, &payloads);
    }
    let payloads = evil.auth_payloads(inner(EVIL), inner(VICTIM));
    next(evil, IKE_AUTH, &payloads)
}

/// Its next request.
fn next(evil: &mut Evil, exchange: u8, payloads: &[Payload]) -> Vec<u8> {
    let id = evil.next_id;
    evil.next_id += 1;
    evil.seal(evil.header(exchange, false, id), payloads)
}

/// The peer's messages of a way, and how many exchanges it takes.
pub(crate) fn exchanges(way: Way) -> usize {
    2 + usize::from(way.manners.quantum)
}

/// What is replaced, and by whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Replace {
    TheirChild,
    OurChild,
    TheirIke,
    OurIke,
}

/// Each before and after each other.
pub(crate) const REPLACEMENTS: [Replace; 7] = [
    Replace::OurChild,
    Replace::TheirChild,
    Replace::OurIke,
    Replace::TheirChild,
    Replace::TheirIke,
    Replace::OurChild,
    Replace::OurIke,
];

/// Who looks on: everything that the victim does goes through `victim`, and `peer` sees the peer after
/// whatever that has said.
pub(crate) struct Witness<V, P> {
    pub(crate) victim: V,
    pub(crate) peer: P,
}

impl<V: FnMut(&mut Owned, &mut dyn FnMut(&mut Owned)), P: FnMut(&Evil)> Witness<V, P> {
    /// Both do what they should, until the peer has nothing more to say.
    pub(crate) fn converse(&mut self, victim: &mut Owned, evil: &mut Evil) {
        // Who is refused would begin again for ever.
        for _ in 0..8 {
            let said = evil_says(evil, &victim.said());
            (self.peer)(evil);
            let Some(octets) = said else { break };
            (self.victim)(victim, &mut |victim| victim.hear(EVIL, &octets));
        }
    }

    /// One of the two asks for a replacement, and both do what they should.
    pub(crate) fn replace(&mut self, victim: &mut Owned, evil: &mut Evil, what: Replace) {
        evil.select_newest();
        let (exchange, payloads) = match what {
            Replace::TheirChild => {
                let payloads = evil.strong_child_payloads(inner(EVIL), inner(VICTIM), true);
                (CREATE_CHILD_SA, payloads)
            }
            Replace::TheirIke => (CREATE_CHILD_SA, evil.rekey_payloads()),
            Replace::OurChild => {
                (self.victim)(victim, &mut |victim| {
                    let child = *victim.children.keys().next_back().unwrap();
                    victim.ike.rekey_child(victim.now, child);
                    victim.after();
                });
                return self.converse(victim, evil);
            }
            Replace::OurIke => {
                (self.victim)(victim, &mut |victim| {
                    let ike = *victim.established.keys().next().unwrap();
                    victim.ike.rekey_ike(victim.now, ike);
                    victim.after();
                });
                return self.converse(victim, evil);
            }
        };
        let octets = next(evil, exchange, &payloads);
        (self.victim)(victim, &mut |victim| victim.hear(EVIL, &octets));
        self.converse(victim, evil);
    }

    /// The peer asks for a sign of life, or ends the SA, and is answered.
    pub(crate) fn ask(
        &mut self,
        victim: &mut Owned,
        evil: &mut Evil,
        payloads: &[Payload],
    ) -> bool {
        evil.select_newest();
        let octets = next(evil, INFORMATIONAL, payloads);
        (self.victim)(victim, &mut |victim| victim.hear(EVIL, &octets));
        victim.said().iter().any(|octets| evil.take(octets).is_some())
    }
}
