//! Two machines, or more, and a network between them that loses, repeats and holds back.

mod authentication;
mod calls;
mod collision;
mod cookies;
mod crash;
mod delete;
mod followup;
mod handshake;
mod hostile;
mod interplay;
mod loss;
mod matrix;
mod mobike;
mod post_quantum;
mod rekey;
mod resume;
mod secrets;
mod single_pair;
mod suites;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use sa::{Mode, SaId, TrafficSelector};

use crate::Ike;
use crate::api::*;
use crate::message::{ExchangeType, Payload};

type Mangle = Box<dyn FnMut(ExchangeType, bool, Vec<Payload>) -> Vec<Payload>>;

thread_local! {
    static MANGLE: std::cell::RefCell<Option<Mangle>> = const { std::cell::RefCell::new(None) };
}

/// What a message is made of, as a peer that breaks the protocol would have it. Called for every
/// message before it is sealed; the second argument says whether it is a response.
pub(crate) fn mangled(
    exchange: ExchangeType,
    response: bool,
    payloads: &[Payload],
) -> Vec<Payload> {
    MANGLE.with_borrow_mut(|mangle| match mangle {
        Some(mangle) => mangle(exchange, response, payloads.to_vec()),
        None => payloads.to_vec(),
    })
}

pub(super) fn set_mangle(mangle: Option<Mangle>) {
    MANGLE.set(mangle);
}

/// A key pair of a test.
pub(super) enum Signer {
    Rsa(KeyPair),
    /// Twice the same key: for ASN.1 signatures and for bare ones.
    Ecdsa(EcdsaKeyPair, EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// The kinds of keys that [`key_pair`] has, three of each.
pub(super) const KINDS: [&str; 4] = ["RSA", "ECDSA P-256", "ECDSA P-384", "Ed25519"];

/// A key pair of a test: 0, 1, 2 are RSA, the next three ECDSA P-256, and so on. Making one of RSA
/// takes a while.
pub(super) fn key_pair(which: usize) -> &'static Signer {
    static KEYS: [OnceLock<Signer>; 12] = [const { OnceLock::new() }; 12];
    KEYS[which].get_or_init(|| match which / 3 {
        0 => Signer::Rsa(KeyPair::generate(KeySize::Rsa2048).unwrap()),
        1 => ecdsa(
            &signature::ECDSA_P256_SHA256_ASN1_SIGNING,
            &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
        ),
        2 => ecdsa(
            &signature::ECDSA_P384_SHA384_ASN1_SIGNING,
            &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
        ),
        _ => Signer::Ed25519(Ed25519KeyPair::generate().unwrap()),
    })
}

fn ecdsa(
    asn1: &'static signature::EcdsaSigningAlgorithm,
    bare: &'static signature::EcdsaSigningAlgorithm,
) -> Signer {
    let document = EcdsaKeyPair::generate(asn1).unwrap().to_pkcs8v1().unwrap();
    let of = |algorithm| EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref()).unwrap();
    Signer::Ecdsa(of(asn1), of(bare))
}

pub(super) fn public(pair: &Signer) -> PublicKey {
    match pair {
        Signer::Rsa(pair) => {
            // RSAPublicKey of 2048 bits: 30 82 LLLL 02 82 LLLL 00 modulus 02 03 exponent.
            let der = pair.public_key().as_ref();
            PublicKey::Rsa { modulus: der[9..265].to_vec(), exponent: der[267..].to_vec() }
        }
        Signer::Ecdsa(pair, _) => match pair.public_key().as_ref() {
            point if point.len() == 65 => PublicKey::EcdsaP256(point[1..].try_into().unwrap()),
            point => PublicKey::EcdsaP384(point[1..].try_into().unwrap()),
        },
        Signer::Ed25519(pair) => PublicKey::Ed25519(pair.public_key().as_ref().try_into().unwrap()),
    }
}

pub(super) fn sign(pair: &Signer, scheme: SignatureScheme, octets: &[u8]) -> Vec<u8> {
    let random = SystemRandom::new();
    let padding: &dyn signature::RsaEncoding = match scheme {
        SignatureScheme::RsaPssSha256 => &signature::RSA_PSS_SHA256,
        SignatureScheme::RsaPssSha384 => &signature::RSA_PSS_SHA384,
        SignatureScheme::RsaPssSha512 => &signature::RSA_PSS_SHA512,
        SignatureScheme::RsaPkcs1Sha256 => &signature::RSA_PKCS1_SHA256,
        SignatureScheme::RsaPkcs1Sha384 => &signature::RSA_PKCS1_SHA384,
        SignatureScheme::RsaPkcs1Sha512 => &signature::RSA_PKCS1_SHA512,
        _ => {
            return match (pair, scheme) {
                (
                    Signer::Ecdsa(_, bare),
                    SignatureScheme::EcdsaP256Bare | SignatureScheme::EcdsaP384Bare,
                ) => bare.sign(&random, octets).unwrap().as_ref().to_vec(),
                (Signer::Ecdsa(asn1, _), _) => {
                    asn1.sign(&random, octets).unwrap().as_ref().to_vec()
                }
                (Signer::Ed25519(pair), _) => pair.sign(octets).as_ref().to_vec(),
                (Signer::Rsa(_), scheme) => panic!("RSA cannot do {scheme:?}"),
            };
        }
    };
    let Signer::Rsa(pair) = pair else { panic!("{scheme:?} takes RSA") };
    let mut out = vec![0; pair.public_modulus_len()];
    pair.sign(padding, &random, octets, &mut out).unwrap();
    out
}

/// One machine, what its owner would do for it, and what its owner saw.
pub(super) struct Node {
    pub(super) ike: Ike,
    pub(super) addr: IpAddr,
    pair: &'static Signer,
    pub(super) verdicts: BTreeMap<Identity, PeerVerdict>,
    pub(super) events: Vec<Event>,
    pub(super) asked: Vec<NeedPeer>,
    /// Answer NeedPeer and Sign at once.
    pub(super) prompt: bool,
    pub(super) waiting: VecDeque<Output>,
    pub(super) children: BTreeMap<SaId, Child>,
    /// Signatures made.
    pub(super) signed: usize,
}

/// A datagram on its way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Packet {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) octets: Vec<u8>,
}

/// The machines and the wire.
pub(super) struct Net {
    pub(super) now: Instant,
    /// When it began.
    pub(super) born: Instant,
    pub(super) nodes: Vec<Node>,
    pub(super) wire: VecDeque<Packet>,
    /// Every packet ever sent.
    pub(super) seen: Vec<Packet>,
}

pub(super) fn config(which: usize) -> Config {
    Config {
        key: public(key_pair(which)),
        encapsulation: Encapsulation::WhenNatted,
        token_secret: None,
        started: Duration::ZERO,
        ticket_keys: Vec::new(),
        resumption: false,
        mobike: Mobike::On,
        compatibility: false,
        post_quantum: false,
        retransmit_first: Duration::from_millis(500),
        retransmit_tries: 5,
        patience: Duration::from_secs(90),
        cookie_threshold: 100,
        half_open_limit: 200,
        ike_life: Duration::from_secs(4 * 3600),
        child_life: Duration::from_secs(3600),
        fragment_size: 1280,
        renews_nothing: false,
    }
}

pub(super) fn addr(which: usize) -> IpAddr {
    IpAddr::from([192, 0, 2, u8::try_from(which).unwrap() + 1])
}

pub(super) fn inner(which: usize) -> TrafficSelector {
    TrafficSelector::host(IpAddr::from([10, 0, 0, u8::try_from(which).unwrap() + 1]))
}

impl Node {
    pub(super) fn new(which: usize, config: Config, now: Instant) -> Self {
        let seed = [u8::try_from(which).unwrap() + 1; 32];
        Self {
            ike: Ike::new(config, seed, now),
            addr: addr(which),
            pair: key_pair(which),
            verdicts: BTreeMap::new(),
            events: Vec::new(),
            asked: Vec::new(),
            prompt: true,
            waiting: VecDeque::new(),
            children: BTreeMap::new(),
            signed: 0,
        }
    }

    fn drain(&mut self, now: Instant, sent: &mut Vec<Packet>) {
        while let Some(output) = self.ike.poll_output() {
            match output {
                Output::Transmit(t) => {
                    assert_eq!(t.marker, t.local.port() == 4500 && t.octets != [0xff]);
                    sent.push(Packet { from: t.local, to: t.remote, octets: t.octets });
                }
                Output::Event(event) => self.note(event),
                other => {
                    self.waiting.push_back(other);
                    if self.prompt {
                        self.serve(now);
                    }
                }
            }
        }
    }

    fn note(&mut self, event: Event) {
        match &event {
            Event::ChildUp(child) => {
                assert!(self.children.insert(child.id, (**child).clone()).is_none());
            }
            Event::ChildDown { sa, .. } => {
                assert!(self.children.remove(sa).is_some(), "down twice");
            }
            Event::Moved { children, envelope, .. } => {
                for child in children {
                    self.children.get_mut(child).expect("moved before it is up").envelope =
                        *envelope;
                }
            }
            Event::Ended { ike, .. } => {
                assert!(self.children.values().all(|c| c.ike != *ike), "children first");
            }
            _ => {}
        }
        self.events.push(event);
    }

    /// Answers one question of the machine.
    pub(super) fn serve(&mut self, now: Instant) {
        match self.waiting.pop_front() {
            Some(Output::NeedChild(need)) => {
                self.ike.handle_child(now, need.ike, false);
            }
            Some(Output::NeedPeer(need)) => {
                let verdict =
                    self.verdicts.get(&need.identity).cloned().unwrap_or(PeerVerdict::Unknown);
                let ike = need.ike;
                self.asked.push(need);
                self.ike.handle_peer(now, ike, verdict);
            }
            Some(Output::Sign(s)) => {
                let signature = sign(self.pair, s.scheme, &s.octets);
                self.signed += 1;
                self.ike.handle_signature(now, s.ike, Some(signature));
            }
            _ => {}
        }
    }

    pub(super) fn ended(&self) -> Vec<End> {
        self.events
            .iter()
            .filter_map(|e| if let Event::Ended { why, .. } = e { Some(*why) } else { None })
            .collect()
    }

    pub(super) fn child_failed(&self) -> Vec<End> {
        self.events
            .iter()
            .filter_map(|e| if let Event::ChildFailed { why, .. } = e { Some(*why) } else { None })
            .collect()
    }

    pub(super) fn established(&self) -> Vec<IkeId> {
        self.events
            .iter()
            .filter_map(|e| if let Event::Established { ike, .. } = e { Some(*ike) } else { None })
            .collect()
    }

    pub(super) fn child(&self) -> &Child {
        assert_eq!(self.children.len(), 1, "{:?}", self.children);
        self.children.values().next().unwrap()
    }
}

impl Net {
    /// Two nodes that know each other.
    pub(super) fn pair() -> Self {
        Self::with(|_| {})
    }

    pub(super) fn with(change: impl Fn(&mut Config)) -> Self {
        let now = Instant::now();
        let mut nodes: Vec<_> = (0..2)
            .map(|which| {
                let mut config = config(which);
                change(&mut config);
                Node::new(which, config, now)
            })
            .collect();
        for (own, peer) in [(0, 1), (1, 0)] {
            nodes[own].verdicts.insert(
                Identity::Address(addr(peer)),
                PeerVerdict::Known {
                    identity: Identity::Address(addr(own)),
                    grants: vec![Grant {
                        key: public(key_pair(peer)).into(),
                        remote: vec![inner(peer)],
                        local: vec![inner(own)],
                        transport: false,
                        assigned: Assigned::Nothing,
                    }],
                },
            );
        }
        Self { now, born: now, nodes, wire: VecDeque::new(), seen: Vec::new() }
    }

    pub(super) fn call(own: usize, peer: usize) -> Initiate {
        Initiate {
            local: addr(own),
            remote: addr(peer),
            identity: Identity::Address(addr(own)),
            peer: Identity::Address(addr(peer)),
            keys: vec![public(key_pair(peer)).into()],
            child: ChildRequest {
                local: vec![inner(own)],
                remote: vec![inner(peer)],
                mode: Mode::Tunnel,
            },
            ask_address: None,
        }
    }

    pub(super) fn initiate(&mut self, own: usize, peer: usize) -> IkeId {
        let now = self.now;
        let id = self.nodes[own].ike.initiate(now, Self::call(own, peer));
        self.collect();
        id
    }

    /// Puts what the machines want sent on the wire.
    pub(super) fn collect(&mut self) {
        let mut sent = Vec::new();
        for node in &mut self.nodes {
            node.drain(self.now, &mut sent);
        }
        self.seen.extend(sent.iter().cloned());
        self.wire.extend(sent);
    }

    /// Delivers one packet.
    pub(super) fn deliver(&mut self, packet: &Packet) {
        let now = self.now;
        if let Some(node) = self.nodes.iter_mut().find(|n| n.addr == packet.to.ip()) {
            node.ike.handle_datagram(
                now,
                Datagram { local: packet.to, remote: packet.from, octets: &packet.octets },
            );
        }
        self.collect();
    }

    /// Delivers everything, in order, until nothing is on the wire.
    pub(super) fn settle(&mut self) {
        self.collect();
        for _ in 0..10_000 {
            let Some(packet) = self.wire.pop_front() else { return };
            self.deliver(&packet);
        }
        panic!("they never stop talking");
    }

    /// Jumps to the next deadline of any node, not beyond `until`; whether there was one.
    pub(super) fn tick(&mut self, until: Instant) -> bool {
        let next = self.nodes.iter().filter_map(|n| n.ike.poll_timeout()).map(|t| t.0).min();
        let Some(next) = next.filter(|at| *at <= until) else {
            self.now = until.max(self.now);
            return false;
        };
        self.now = self.now.max(next);
        let now = self.now;
        for node in &mut self.nodes {
            node.ike.handle_timeout(now);
        }
        self.collect();
        true
    }

    /// Lets time pass, delivering everything.
    pub(super) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        self.settle();
        for _ in 0..100_000 {
            if !self.tick(until) {
                return;
            }
            self.settle();
        }
        panic!("timers never stop");
    }

    /// Runs while the network loses the packets of `lost` (by their place in `seen`).
    pub(super) fn run_losing(&mut self, lost: &[usize], time: Duration) {
        let until = self.now + time;
        let mut place = self.seen.len() - self.wire.len();
        loop {
            self.collect();
            while let Some(packet) = self.wire.pop_front() {
                if !lost.contains(&place) {
                    self.deliver(&packet);
                }
                place += 1;
            }
            if !self.tick(until) {
                return;
            }
        }
    }

    /// A whole handshake; gives both sides' names for it.
    pub(super) fn established() -> (Self, IkeId, IkeId) {
        Self::established_with(false)
    }

    /// The same, with an additional key exchange or without.
    pub(super) fn established_with(post_quantum: bool) -> (Self, IkeId, IkeId) {
        let mut net = Self::with(|c| c.post_quantum = post_quantum);
        let a = net.initiate(0, 1);
        net.settle();
        let b = net.nodes[1].established()[0];
        (net, a, b)
    }

    /// Both sides have children that fit each other, and only those.
    pub(super) fn assert_children_fit(&self) {
        let [a, b] = &self.nodes[..] else { panic!("two nodes") };
        assert_eq!(a.children.len(), b.children.len());
        for child in a.children.values() {
            let peer = b
                .children
                .values()
                .find(|c| c.spi_in == child.spi_out)
                .unwrap_or_else(|| panic!("no peer for {child:?}"));
            assert_eq!(peer.spi_out, child.spi_in);
            assert_eq!(peer.key_in, child.key_out);
            assert_eq!(peer.key_out, child.key_in);
            assert_ne!(child.key_in, child.key_out);
            assert_eq!((peer.cipher, peer.esn), (child.cipher, child.esn));
            assert_eq!((&peer.local, &peer.remote), (&child.remote, &child.local));
            assert_eq!(peer.envelope.local, child.envelope.remote);
            assert_eq!(peer.envelope.udp, child.envelope.udp);
        }
    }
}
