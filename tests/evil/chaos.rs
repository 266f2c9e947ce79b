//! Seeded peers that do what they like, authenticated: both roles, any state, any message.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use ike::{Event, Identity, Output, PeerVerdict};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};

use super::peer::{Evil, Manners, Proof};
use super::victim::{
    EVIL, EVIL_KEY, HONEST, HONEST_KEY, NOBODYS_KEY, Owned, VICTIM, VICTIMS_KEY, inner,
};
use super::wire::{
    ADDITIONAL_IP4_ADDRESS, ADDITIONAL_KEY_EXCHANGE, AUTH, COOKIE2, CP, CREATE_CHILD_SA, Header,
    ID_I, ID_R, IKE_AUTH, IKE_FOLLOWUP_KE, IKE_INTERMEDIATE, IKE_SESSION_RESUME, INFORMATIONAL,
    MOBIKE_SUPPORTED, NAT_DESTINATION, NAT_SOURCE, NO_ADDITIONAL_ADDRESSES, NO_NATS_ALLOWED, NONCE,
    NOTIFY, Payload, QCD_TOKEN, RESPONSE, SA, SET_WINDOW_SIZE, SK, SKF, TICKET_LT_OPAQUE,
    TICKET_REQUEST, TS_I, TS_R, UPDATE_SA_ADDRESSES, USE_TRANSPORT_MODE, chain,
};

/// Each victim meets so many peers, of [`STEPS`] steps each.
const PEERS: usize = 5;
const STEPS: usize = 24;

/// Where choices come from: a seed, or somebody's octets until they end.
enum Choices {
    Seed(Box<ChaCha20Rng>),
    Script(VecDeque<u8>),
}

/// What one peer and its victim do.
struct Chaos<'a> {
    choices: Choices,
    victim: &'a mut Owned,
    evil: Evil,
    /// Requests of the victim's that wait for an answer.
    asked: VecDeque<(Header, Vec<Payload>)>,
    /// Every datagram of either side.
    past: Vec<Vec<u8>>,
    authenticated: bool,
    /// It was called, and has answered.
    called_back: bool,
    cookie: Option<Payload>,
}

impl<'a> Chaos<'a> {
    fn begin(choices: Choices, victim: &'a mut Owned, evil: Evil, calls: bool) -> Self {
        let mut chaos = Self {
            choices,
            victim,
            evil,
            asked: VecDeque::new(),
            past: Vec::new(),
            authenticated: false,
            called_back: false,
            cookie: None,
        };
        if calls {
            chaos.victim.call_by(EVIL, chaos.evil.manners, EVIL_KEY);
            chaos.listen();
        }
        chaos
    }

    fn below(&mut self, limit: usize) -> usize {
        let choice = match &mut self.choices {
            Choices::Seed(rng) => rng.next_u64(),
            Choices::Script(octets) => {
                // A second octet only where one does not reach.
                let mut next = || u64::from(octets.pop_front().unwrap_or(0));
                if limit > 256 { next() << 8 | next() } else { next() }
            }
        };
        usize::try_from(choice % u64::try_from(limit.max(1)).unwrap()).unwrap()
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn send(&mut self, octets: Vec<u8>) {
        let port = if self.one_in(8) { 4500 } else { 500 };
        let remote = SocketAddr::new(EVIL, if self.one_in(16) { 999 } else { port });
        self.victim.hear_at(remote, port, &octets);
        if self.past.len() < 200 {
            self.past.push(octets);
        }
        self.listen();
    }

    /// Takes in what the victim says.
    fn listen(&mut self) {
        for transmit in self.victim.sent.drain(..).collect::<Vec<_>>() {
            if transmit.remote.ip() != EVIL {
                continue;
            }
            let octets = transmit.octets;
            let Some((header, first)) = Header::read(&octets) else { continue };
            if let Some((header, payloads)) = self.evil.take(&octets) {
                self.evil.keep_ticket(&payloads);
                if header.flags & RESPONSE == 0 {
                    self.asked.push_back((header, payloads));
                } else if header.exchange == IKE_INTERMEDIATE {
                    self.evil.take_kem(header, &payloads);
                } else if payloads.iter().any(|p| p.kind == SA)
                    && header.exchange == CREATE_CHILD_SA
                {
                    self.evil.rekeyed(&payloads);
                } else if header.exchange == IKE_FOLLOWUP_KE {
                    self.evil.take_followup(&payloads);
                }
            } else if header.exchange == IKE_SESSION_RESUME && header.flags & RESPONSE == 0 {
                let payloads = super::wire::split(first, &octets[28..]);
                if self.evil.taken_back(header, &payloads) && self.evil.read_init(&octets) {
                    (self.authenticated, self.called_back) = (false, false);
                    self.asked.clear();
                }
            } else if header.exchange == self.evil.first_exchange() && !self.evil.is_keyed() {
                let response = header.flags & RESPONSE != 0;
                if response == self.evil.initiator && !self.evil.read_init(&octets) {
                    let payloads = super::wire::split(first, &octets[28..]);
                    self.cookie = payloads.into_iter().find(|p| p.notify_type() == Some(16390));
                }
            }
            if self.past.len() < 200 {
                self.past.push(octets);
            }
        }
    }

    /// What an honest peer might say now.
    fn honest(&mut self) -> Option<(Header, Vec<Payload>)> {
        let asked = self.evil.is_keyed().then(|| self.asked.pop_front()).flatten();
        if let Some((asked, theirs)) = asked {
            let header = Header { flags: asked.flags ^ 0x28, ..asked };
            if !self.evil.select(asked) {
                return None;
            }
            let payloads = match header.exchange {
                IKE_AUTH => self.auth(),
                IKE_INTERMEDIATE => self.evil.answer_kem(asked, &theirs),
                // A child, whatever was asked for.
                CREATE_CHILD_SA if self.one_in(4) => {
                    self.evil.child_payloads(inner(VICTIM), inner(EVIL), false)
                }
                CREATE_CHILD_SA => self.evil.answer_create(&theirs),
                IKE_FOLLOWUP_KE => self.evil.answer_followup(&theirs),
                _ => vec![],
            };
            self.authenticated |= header.exchange == IKE_AUTH;
            return Some((header, payloads));
        }
        if !self.evil.is_keyed() || (!self.authenticated && !self.evil.initiator) {
            return None;
        }
        // Some go on under an SA that has a successor, or under one that never was the victim's choice.
        if self.evil.has_others() {
            self.evil.select_newest();
            if self.one_in(4) {
                let which = self.below(8);
                self.evil.select_other(which);
            }
        }
        let id = self.evil.next_id;
        // Most make the second key exchange before they say who they are.
        let (exchange, payloads) = if self.evil.owes_kem() && !self.one_in(8) {
            (IKE_INTERMEDIATE, self.evil.kem_payloads())
        } else if !self.authenticated {
            self.authenticated = true;
            (IKE_AUTH, self.auth())
        } else if self.evil.is_halfway()
            && !self.one_in(8)
            && let Some(payloads) = self.evil.followup_payloads()
        {
            (IKE_FOLLOWUP_KE, payloads)
        } else {
            match self.below(18) {
                8 => {
                    // One more host behind it: the owner is asked.
                    let other = inner([HONEST, VICTIM][self.below(2)]);
                    (CREATE_CHILD_SA, self.evil.child_payloads(other, inner(VICTIM), false))
                }
                9 => {
                    let mut payloads = self.evil.child_payloads(inner(EVIL), inner(VICTIM), false);
                    payloads.push(Payload::notify(0, &[], USE_TRANSPORT_MODE, &[]));
                    (CREATE_CHILD_SA, payloads)
                }
                10 | 11 => (INFORMATIONAL, self.mobility()),
                14..=17 => {
                    let rekeys = self.one_in(2);
                    let payloads =
                        self.evil.strong_child_payloads(inner(EVIL), inner(VICTIM), rekeys);
                    (CREATE_CHILD_SA, payloads)
                }
                12 => (IKE_FOLLOWUP_KE, self.followup()),
                13 => (IKE_INTERMEDIATE, self.followup()),
                0 => (CREATE_CHILD_SA, self.evil.child_payloads(inner(EVIL), inner(VICTIM), false)),
                1 => (CREATE_CHILD_SA, self.evil.child_payloads(inner(EVIL), inner(VICTIM), true)),
                2 => (CREATE_CHILD_SA, self.evil.rekey_payloads()),
                3 => {
                    let spi = self.evil.esp_spi;
                    (INFORMATIONAL, vec![Payload::delete(3, 4, 1, &spi)])
                }
                4 if self.one_in(4) => (INFORMATIONAL, vec![Payload::delete(1, 0, 0, &[])]),
                5 => {
                    let kind = u16::try_from(self.below(65_536)).unwrap();
                    (INFORMATIONAL, vec![Payload::notify(0, &[], kind, &[1, 2])])
                }
                _ => (INFORMATIONAL, vec![]),
            }
        };
        self.evil.next_id = id.wrapping_add(1);
        Some((self.evil.header(exchange, false, id), payloads))
    }

    /// IKE_AUTH, with some of what may stand beside it.
    fn auth(&mut self) -> Vec<Payload> {
        let mut payloads = self.evil.auth_payloads(inner(EVIL), inner(VICTIM));
        for _ in 0..self.below(3) {
            payloads.push(self.extension());
        }
        payloads
    }

    /// What announces or asks for something of another RFC than 7296.
    fn extension(&mut self) -> Payload {
        match self.below(10) {
            0..=2 => Payload::notify(0, &[], MOBIKE_SUPPORTED, &[]),
            3 => Payload::notify(0, &[], TICKET_REQUEST, &[]),
            4 => Payload::notify(0, &[], QCD_TOKEN, &[7; 32]),
            5 => Payload::notify(0, &[], USE_TRANSPORT_MODE, &[]),
            6 => Payload::notify(0, &[], SET_WINDOW_SIZE, &[0, 0, 0, 9]),
            7 => Payload::notify(0, &[], TICKET_LT_OPAQUE, &[0, 0, 9, 9, 1, 2, 3]),
            // An inner address, wanted or given (RFC 7296 §3.15).
            8 => Payload::new(CP, [1, 0, 0, 0, 0, 1, 0, 4, 10, 0, 0, 9]),
            _ => Payload::new(CP, [2, 0, 0, 0, 0, 1, 0, 4, 10, 0, 0, 9, 0, 8, 0, 0]),
        }
    }

    /// What MOBIKE says (RFC 4555), in an order of its own.
    fn mobility(&mut self) -> Vec<Payload> {
        (0..=self.below(3))
            .map(|_| match self.below(7) {
                0 | 1 => Payload::notify(0, &[], UPDATE_SA_ADDRESSES, &[]),
                2 => Payload::notify(0, &[], ADDITIONAL_IP4_ADDRESS, &[203, 0, 113, 9]),
                3 => Payload::notify(0, &[], NO_ADDITIONAL_ADDRESSES, &[]),
                4 => Payload::notify(0, &[], NO_NATS_ALLOWED, &[0; 12]),
                5 => {
                    let kind = [NAT_SOURCE, NAT_DESTINATION][self.below(2)];
                    Payload::notify(0, &[], kind, &[5; 20])
                }
                _ => Payload::notify(0, &[], COOKIE2, &[6; 16]),
            })
            .collect()
    }

    /// An additional key exchange (RFC 9370): whole, too short, or with a link to nothing.
    fn followup(&mut self) -> Vec<Payload> {
        let len = [0, 32, 1088, 1184][self.below(4)];
        let ke = Payload::ke(36, &vec![u8::try_from(self.below(256)).unwrap(); len]);
        let link = vec![1; self.below(40)];
        vec![ke, Payload::notify(0, &[], ADDITIONAL_KEY_EXCHANGE, &link)]
    }

    /// Something sealed, or IKE_SA_INIT if there are no keys; mangled or not.
    fn speak(&mut self, mangle: bool) {
        if !self.evil.is_keyed() || !(self.evil.initiator || self.called_back) {
            // A responder has nothing to say before it is called.
            if !self.evil.is_keyed() && !self.evil.initiator && !mangle {
                return;
            }
            self.called_back = !self.evil.initiator && self.evil.is_keyed();
            let mut payloads = self.evil.init_payloads();
            payloads.splice(0..0, self.cookie.take());
            if mangle {
                self.mangle(&mut payloads);
            }
            let octets = self.evil.init(&payloads);
            return self.send(octets);
        }
        let Some((header, mut payloads)) = self.honest() else { return };
        if mangle {
            self.mangle(&mut payloads);
        }
        match self.below(6) {
            0 => {
                let size = 1 + self.below(200);
                for octets in self.evil.seal_fragments(header, &payloads, size) {
                    self.send(octets);
                }
            }
            1 if mangle => {
                let (first, mut plaintext) = chain(&payloads);
                self.corrupt(&mut plaintext);
                let octets = self.evil.seal_octets(header, SK, first, None, &plaintext, &[]);
                self.send(octets);
            }
            _ => {
                let octets = self.evil.seal(header, &payloads);
                self.send(octets);
            }
        }
    }

    /// Authenticated, under a header that says something else.
    fn lie_in_the_header(&mut self) {
        let Some((mut header, payloads)) = self.honest() else { return };
        match self.below(7) {
            0 => header.id = header.id.wrapping_add(1),
            1 => header.id = header.id.wrapping_sub(1),
            2 => header.id = u32::MAX,
            3 => header.flags = u8::try_from(self.below(256)).unwrap(),
            4 => header.exchange = u8::try_from(self.below(256)).unwrap(),
            5 => (header.spi_i, header.spi_r) = (header.spi_r, header.spi_i),
            _ => header.spi_i = header.spi_i.wrapping_add(1),
        }
        let octets = self.evil.seal(header, &payloads);
        self.send(octets);
    }

    /// Authenticated fragments that do not make a whole.
    fn fragment_badly(&mut self) {
        let Some((header, payloads)) = self.honest() else { return };
        let (first, plaintext) = chain(&payloads);
        for _ in 0..=self.below(6) {
            let number = u16::try_from([0, 1, 2, 3, 31, 32, 33, 65_535][self.below(8)]).unwrap();
            let total = u16::try_from([0, 1, 2, 3, 31, 32, 33, 65_535][self.below(8)]).unwrap();
            let chunk = &plaintext[..self.below(plaintext.len() + 1)];
            let pair = Some((number, total));
            let octets = self.evil.seal_octets(header, SKF, first, pair, chunk, &[]);
            self.send(octets);
        }
    }

    /// Something said before, by either side; perhaps damaged.
    fn repeat(&mut self, damage: bool) {
        if self.past.is_empty() {
            return;
        }
        let at = self.below(self.past.len());
        let mut octets = self.past[at].clone();
        if damage {
            self.corrupt(&mut octets);
        }
        self.send(octets);
    }

    fn corrupt(&mut self, octets: &mut Vec<u8>) {
        for _ in 0..=self.below(3) {
            let at = self.below(octets.len() + 1);
            match self.below(4) {
                0 => octets.truncate(at),
                1 if at < octets.len() => octets[at] = u8::try_from(self.below(256)).unwrap(),
                2 => octets.insert(at, u8::try_from(self.below(256)).unwrap()),
                // Where the structure is.
                _ => {
                    let (at, bit) = (self.below(48), self.below(8));
                    if let Some(octet) = octets.get_mut(at) {
                        *octet ^= 1 << bit;
                    }
                }
            }
        }
    }

    fn mangle(&mut self, payloads: &mut Vec<Payload>) {
        for _ in 0..=self.below(3) {
            let (a, b) = (self.below(payloads.len()), self.below(payloads.len()));
            match self.below(10) {
                0 if !payloads.is_empty() => drop(payloads.remove(a)),
                1 if !payloads.is_empty() => payloads.push(payloads[a].clone()),
                2 if !payloads.is_empty() => payloads.swap(a, b),
                3 | 4 if !payloads.is_empty() => {
                    let mut body = std::mem::take(&mut payloads[a].body);
                    self.corrupt(&mut body);
                    payloads[a].body = body;
                }
                5 if !payloads.is_empty() => {
                    payloads[a].kind = u8::try_from(self.below(256)).unwrap();
                }
                6 if !payloads.is_empty() => payloads[a].critical = true,
                7 => payloads.extend(std::iter::repeat_n(Payload::new(NOTIFY, [0; 4]), 70)),
                8 => payloads.clear(),
                _ => {
                    let strange = self.strange();
                    payloads.insert(a, strange);
                }
            }
        }
    }

    /// A payload that nobody expects there.
    fn strange(&mut self) -> Payload {
        let protocol = u8::try_from(self.below(5)).unwrap();
        match self.below(10) {
            8 => self.extension(),
            9 => self.mobility().remove(0),
            0 => Payload::delete(protocol, 4, 2, &[0, 1, 2, 3, 0, 1, 2, 3]),
            1 => Payload::delete(1, 0, 0, &[]),
            2 => Payload::notify(protocol, &[0; 4], 16393, &[]),
            3 => Payload::notify(0, &[], u16::try_from(self.below(50)).unwrap(), &[0, 31]),
            4 => Payload::id([ID_I, ID_R][self.below(2)], protocol, &[192, 0, 2, 3]),
            5 => Payload::new([TS_I, TS_R][self.below(2)], [255, 0, 0, 0]),
            6 => Payload::new([AUTH, NONCE, SA, SK][self.below(4)], vec![0; self.below(300)]),
            _ => Payload::new(u8::try_from(self.below(256)).unwrap(), vec![7; self.below(40)]),
        }
    }

    /// The owner does something.
    fn owner(&mut self) {
        let now = self.victim.now;
        let ike = self.victim.established.keys().next_back().copied();
        let child = self.victim.children.keys().next().copied();
        match (self.below(12), ike, child) {
            (8, Some(ike), _) => {
                let moved = self.one_in(2);
                self.victim.ike.allow_moves(ike, moved);
            }
            (9, Some(ike), _) => {
                let to = [VICTIM, HONEST][self.below(2)];
                self.victim.ike.relocate(now, ike, to);
            }
            (10, _, _) => {
                let addresses = [vec![VICTIM], vec![VICTIM, HONEST]][self.below(2)].clone();
                self.victim.ike.set_addresses(now, addresses);
            }
            (11, _, _) => {
                self.victim.resume(EVIL, EVIL_KEY);
            }
            (0, Some(ike), _) => self.victim.create_child(ike, EVIL),
            (1, Some(ike), _) => self.victim.ike.rekey_ike(now, ike),
            (2, Some(ike), _) => self.victim.ike.probe(now, ike),
            (3, Some(ike), _) if self.one_in(4) => self.victim.ike.close(now, ike),
            (4, _, Some(child)) => self.victim.ike.rekey_child(now, child),
            (5, _, Some(child)) => self.victim.ike.close_child(now, child),
            (6, _, Some(child)) => {
                self.victim.ike.handle_moved(now, child, SocketAddr::new(EVIL, 7777));
            }
            _ => self.victim.prompt = !self.victim.prompt,
        }
        self.victim.after();
        self.listen();
    }

    /// The owner wants something made anew, and the peer mostly does its part.
    fn replace(&mut self) {
        let now = self.victim.now;
        let Some(ike) = self.victim.established.keys().next_back().copied() else { return };
        let child = self.victim.children.keys().next_back().copied();
        match (self.below(4), child) {
            (0 | 1, _) => self.victim.ike.rekey_ike(now, ike),
            (2, Some(child)) => self.victim.ike.rekey_child(now, child),
            _ => self.victim.create_child(ike, EVIL),
        }
        self.victim.after();
        self.listen();
        // The answer, one more key exchange, and the end of the old one.
        for _ in 0..3 {
            if self.asked.is_empty() || self.one_in(8) {
                return;
            }
            let mangle = self.one_in(8);
            self.speak(mangle);
        }
    }

    /// The owner answers a question late, or wrongly.
    fn answer(&mut self) {
        let now = self.victim.now;
        match self.victim.waiting.pop_front() {
            Some(Output::NeedPeer(need)) if self.one_in(3) => {
                let identity = Identity::Null;
                self.victim.tell(need.ike, identity, PeerVerdict::Unknown);
            }
            Some(Output::NeedChild(need)) if self.one_in(3) => self.victim.allow(&need, false),
            Some(Output::Sign(job)) if self.one_in(3) => {
                let signature = (!self.one_in(2)).then(|| vec![9; 256]);
                self.victim.ike.handle_signature(now, job.ike, signature);
            }
            Some(question) => {
                self.victim.waiting.push_front(question);
                self.victim.answer();
            }
            None => {}
        }
        self.victim.after();
        self.listen();
    }

    /// Who called comes back with the ticket that it was given; who was called is called with its own.
    fn come_back(&mut self) {
        if self.evil.initiator && self.evil.come_back() {
            (self.authenticated, self.cookie) = (false, None);
            self.asked.clear();
        } else if !self.evil.initiator && self.victim.resume(EVIL, EVIL_KEY) {
            self.listen();
        }
    }

    fn step(&mut self) {
        if self.authenticated && self.evil.is_halfway() && !self.one_in(4) {
            self.speak(false);
        }
        if self.evil.manners.returns && self.authenticated && self.one_in(3) {
            self.come_back();
        }
        match self.below(19) {
            16..=18 => self.replace(),
            0..=5 => self.speak(false),
            6..=8 => self.speak(true),
            9 => self.lie_in_the_header(),
            10 => self.fragment_badly(),
            11 => self.repeat(false),
            12 => self.repeat(true),
            13 => self.owner(),
            14 => self.answer(),
            _ => {
                let time = [1, 500, 3000, 40_000, 4_000_000][self.below(5)];
                self.victim.pass(Duration::from_millis(time));
                self.listen();
            }
        }
    }
}

/// A victim that does all that can be configured.
fn equipped(seed: u64) -> Owned {
    let mut victim = Owned::equipped(VICTIM, VICTIMS_KEY, seed);
    victim.knows(HONEST, HONEST_KEY);
    victim.knows(EVIL, EVIL_KEY);
    victim
}

/// What a number makes of a peer; 0 is one that signs.
fn manners(number: u8) -> Manners {
    let proof = [Proof::Signature, Proof::Secret, Proof::Nothing, Proof::Signature];
    Manners {
        proof: proof[usize::from(number & 3)],
        quantum: number & 20 == 4,
        cbc: number & 16 != 0,
        returns: number & 8 != 0,
    }
}

/// Whether it is believed who it says it is: who proves nothing says nothing.
fn introduce(victim: &mut Owned, manners: Manners) {
    victim.knows(EVIL, EVIL_KEY);
    victim.knows_by(EVIL, manners, EVIL_KEY);
}

/// One victim's life; how often the evil were established with it, had children, asked for one more
/// host, moved, and gave tickets; how many of them came in by a secret, as nobody, with ML-KEM, once more
/// with a ticket, and with AES-CBC; and how often the victim's own replacement of the IKE SA succeeded, and
/// a second key exchange in a replacement of the peer's and of the victim's.
pub(crate) fn life(seed: u64, calls: bool) -> [usize; 13] {
    let mut victim = if seed.is_multiple_of(3) { Owned::victim(seed) } else { equipped(seed) };
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let mut ways = [0; 8];
    for _ in 0..PEERS {
        // Half of them have the key that their name stands for.
        let entitled = rng.next_u32() % 2 == 0;
        let key = if entitled { EVIL_KEY } else { NOBODYS_KEY };
        let own = ChaCha20Rng::seed_from_u64(rng.next_u64());
        let manners = manners(u8::try_from(rng.next_u32() % 32).unwrap());
        let entitled = entitled || manners.proof == Proof::Nothing;
        let evil = Evil::new(EVIL, key, !calls, own).with(manners);
        introduce(&mut victim, manners);
        // What the last one left open is settled.
        victim.prompt = true;
        while !victim.waiting.is_empty() {
            victim.answer();
            victim.after();
        }
        let before = victim.times_established();
        let choices = Choices::Seed(Box::new(ChaCha20Rng::seed_from_u64(rng.next_u64())));
        let mut chaos = Chaos::begin(choices, &mut victim, evil, calls);
        // Most come as far as they can before they show what they are.
        if chaos.below(4) != 0 {
            for _ in 0..2 {
                chaos.speak(false);
            }
        }
        for _ in 0..STEPS {
            chaos.step();
        }
        let evil = chaos.evil;
        let times = victim.times_established() - before;
        assert!(entitled || times == 0, "established without the key");
        let came = [
            times > 0 && manners.proof == Proof::Secret,
            times > 0 && manners.proof == Proof::Nothing,
            times > 0 && evil.is_strengthened(),
            times > 1 && evil.returned,
            times > 0 && evil.is_cbc(),
        ];
        let came = came.map(usize::from).into_iter().chain(evil.came_to());
        ways.iter_mut().zip(came).for_each(|(sum, came)| *sum += came);
    }
    let count = |of: fn(&Event) -> bool| victim.events.iter().filter(|event| of(event)).count();
    let [secret, nobody, strong, again, cbc, replaced, asked, answered] = ways;
    let outcome = [
        victim.times_established(),
        count(|event| matches!(event, Event::ChildUp(_))),
        victim.children_asked,
        count(|event| matches!(event, Event::Moved { .. })),
        count(|event| matches!(event, Event::Ticket { .. })),
        secret,
        nobody,
        strong,
        again,
        cbc,
        replaced,
        asked,
        answered,
    ];
    assert!(!format!("{:?}", victim.ike).is_empty());
    victim.serves_the_honest();
    victim.pass(Duration::from_secs(200));
    assert_eq!(victim.ike.half_open(), 0);
    victim.goes_down_clean();
    outcome
}

/// One peer whose every choice stands in `input`; the first octet says who calls, whether the peer has
/// the key that its name stands for, and what it is like. Gives how often it was established.
pub(crate) fn scripted(input: &[u8]) -> usize {
    let [head, script @ ..] = input else { return 0 };
    let (calls, entitled) = (head & 1 != 0, head & 2 != 0);
    let mut victim = if head & 4 == 0 { Owned::victim(7) } else { equipped(7) };
    let key = if entitled { EVIL_KEY } else { NOBODYS_KEY };
    let manners = manners(head >> 3);
    let entitled = entitled || manners.proof == Proof::Nothing;
    let evil = Evil::new(EVIL, key, !calls, ChaCha20Rng::seed_from_u64(8)).with(manners);
    introduce(&mut victim, manners);
    let choices = Choices::Script(script.iter().copied().collect());
    let mut chaos = Chaos::begin(choices, &mut victim, evil, calls);
    for _ in 0..2 * STEPS {
        if let Choices::Script(rest) = &chaos.choices
            && rest.is_empty()
        {
            break;
        }
        chaos.step();
    }
    let established = victim.times_established();
    assert!(entitled || established == 0, "established without the key");
    assert!(!format!("{:?}", victim.ike).is_empty());
    victim.goes_down_clean();
    established
}
