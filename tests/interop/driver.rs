//! Our side: an [`ike::Ike`] on real sockets, told what to do line by line, telling what it sees.
//!
//! It is this same test binary, run again inside a namespace: one needs a process of one's own to
//! be there.

use std::io::BufRead as _;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaEncoding,
};
use ike::{
    Assigned, ChildRequest, Config, Credential, Datagram, Encapsulation, Event, Grant, Identity,
    Ike, IkeId, Initiate, Output, PeerVerdict, PublicKey, SharedSecret, SignatureScheme, Transmit,
};
use rsa::pkcs8::DecodePrivateKey as _;
use rsa::traits::PublicKeyParts as _;
use sa::{Mode, SaId, TrafficSelector};

/// What happens to the driver.
enum Happening {
    Packet(SocketAddr, SocketAddr, Vec<u8>),
    Told(String),
    Closed,
}

#[test]
fn inside_a_namespace() {
    if std::env::var_os("OE_INTEROP_DRIVER").is_some() {
        Driver::new().run();
    }
}

struct Driver {
    ike: Ike,
    pair: Signer,
    peer_key: Credential,
    local: IpAddr,
    remote: IpAddr,
    sockets: [Arc<UdpSocket>; 2],
    sender: Option<Sender<Happening>>,
    /// How many of our first requests somebody on the way still answers with a cookie of its own.
    forgeries: u8,
    ikes: Vec<IkeId>,
    children: Vec<SaId>,
}

fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

/// Our key, of whatever kind its file is.
enum Signer {
    Rsa(KeyPair, PublicKey),
    /// For signatures in ASN.1, and for bare ones.
    Ecdsa(EcdsaKeyPair, EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Signer {
    fn read(pkcs8: &[u8]) -> Self {
        if let Ok(pair) = KeyPair::from_pkcs8(pkcs8) {
            let private = rsa::RsaPrivateKey::from_pkcs8_der(pkcs8).expect("PKCS#8");
            return Self::Rsa(pair, of_rsa(&private.to_public_key()));
        }
        let ecdsa = |asn1: &'static EcdsaSigningAlgorithm, bare| {
            let of = |algorithm| EcdsaKeyPair::from_pkcs8(algorithm, pkcs8).ok();
            Some(Self::Ecdsa(of(asn1)?, of(bare)?))
        };
        ecdsa(
            &signature::ECDSA_P256_SHA256_ASN1_SIGNING,
            &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
        )
        .or_else(|| {
            ecdsa(
                &signature::ECDSA_P384_SHA384_ASN1_SIGNING,
                &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
            )
        })
        .unwrap_or_else(|| {
            Self::Ed25519(Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).expect("a key"))
        })
    }

    fn public(&self) -> PublicKey {
        match self {
            Self::Rsa(_, public) => public.clone(),
            Self::Ecdsa(pair, _) => match pair.public_key().as_ref() {
                [4, point @ ..] if point.len() == 64 => {
                    PublicKey::EcdsaP256(point.try_into().expect("64 octets"))
                }
                [4, point @ ..] => PublicKey::EcdsaP384(point.try_into().expect("96 octets")),
                _ => panic!("a compressed point"),
            },
            Self::Ed25519(pair) => {
                PublicKey::Ed25519(pair.public_key().as_ref().try_into().expect("32 octets"))
            }
        }
    }

    fn sign(&self, scheme: SignatureScheme, octets: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(pair, _) => {
                let mut out = vec![0; pair.public_modulus_len()];
                pair.sign(rsa_encoding(scheme), &random, octets, &mut out).expect("signature");
                out
            }
            Self::Ecdsa(asn1, bare) => {
                let is_bare = matches!(
                    scheme,
                    SignatureScheme::EcdsaP256Bare | SignatureScheme::EcdsaP384Bare
                );
                let pair = if is_bare { bare } else { asn1 };
                pair.sign(&random, octets).expect("signature").as_ref().to_vec()
            }
            Self::Ed25519(pair) => pair.sign(octets).as_ref().to_vec(),
        }
    }
}

fn rsa_encoding(scheme: SignatureScheme) -> &'static dyn RsaEncoding {
    match scheme {
        SignatureScheme::RsaPssSha256 => &signature::RSA_PSS_SHA256,
        SignatureScheme::RsaPssSha384 => &signature::RSA_PSS_SHA384,
        SignatureScheme::RsaPssSha512 => &signature::RSA_PSS_SHA512,
        SignatureScheme::RsaPkcs1Sha256 => &signature::RSA_PKCS1_SHA256,
        SignatureScheme::RsaPkcs1Sha384 => &signature::RSA_PKCS1_SHA384,
        SignatureScheme::RsaPkcs1Sha512 => &signature::RSA_PKCS1_SHA512,
        other => panic!("{other:?} is not RSA's"),
    }
}

/// What the peer proves itself with: a key, or a secret.
fn credential() -> Credential {
    if let Ok(secret) = std::env::var("SECRET") {
        let secret = SharedSecret::new(secret.into_bytes()).expect("long enough");
        return Credential::Secret(secret);
    }
    let pem = std::fs::read_to_string(setting("PEER_KEY", "")).expect("peer's key");
    let key = dnskeys::PublicKey::from_pem(&pem).expect("PEM");
    keying::ike_key(&key).expect("a key that verifies").into()
}

fn of_rsa(key: &rsa::RsaPublicKey) -> PublicKey {
    let octets = |n: Box<[u8]>| n.iter().copied().skip_while(|o| *o == 0).collect();
    PublicKey::Rsa { exponent: octets(key.e_bytes()), modulus: octets(key.n_bytes()) }
}

impl Driver {
    fn new() -> Self {
        let own = std::fs::read(setting("OWN_KEY", "")).expect("own key");
        let pair = Signer::read(&own);
        let peer_key = credential();
        let local: IpAddr = setting("LOCAL", "192.0.2.1").parse().expect("address");
        let config = Config {
            encapsulation: match setting("ENCAPSULATION", "force").as_str() {
                "force" => Encapsulation::Force,
                _ => Encapsulation::WhenNatted,
            },
            cookie_threshold: setting("COOKIES", "64").parse().expect("number"),
            child_life: Duration::from_secs(
                setting("CHILD_LIFE", "3600").parse().expect("seconds"),
            ),
            // What strongSwan knows nothing of must not disturb it.
            token_secret: (setting("TOKENS", "yes") == "yes").then(|| [7; 32].into()),
            ticket_keys: vec![[8; 32].into()],
            resumption: true,
            fragment_size: setting("FRAGMENT_SIZE", "1280").parse().expect("octets"),
            retransmit_tries: setting("TRIES", "5").parse().expect("number"),
            patience: Duration::ZERO,
            compatibility: setting("COMPATIBILITY", "no") == "yes",
            post_quantum: setting("POST_QUANTUM", "yes") == "yes",
            ..Config::new(pair.public())
        };
        let mut seed = [0; 32];
        aws_lc_rs::rand::fill(&mut seed).expect("randomness");
        Self {
            ike: Ike::new(config, seed, Instant::now()),
            pair,
            peer_key,
            local,
            remote: setting("REMOTE", "192.0.2.2").parse().expect("address"),
            sockets: sockets(local),
            sender: None,
            forgeries: setting("FORGED_COOKIES", "0").parse().expect("number"),
            ikes: Vec::new(),
            children: Vec::new(),
        }
    }

    fn run(mut self) {
        let (sender, happenings) = mpsc::channel();
        for socket in &self.sockets {
            listen(socket.clone(), sender.clone());
        }
        self.sender = Some(sender.clone());
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                let _ = sender.send(Happening::Told(line));
            }
            let _ = sender.send(Happening::Closed);
        });
        println!("\nReady");
        loop {
            self.drain();
            let now = Instant::now();
            let wait = self
                .ike
                .poll_timeout()
                .map_or(Duration::from_secs(1), |(at, _)| at.saturating_duration_since(now));
            match happenings.recv_timeout(wait) {
                Ok(Happening::Packet(local, remote, octets)) => self
                    .ike
                    .handle_datagram(Instant::now(), Datagram { local, remote, octets: &octets }),
                Ok(Happening::Told(line)) => self.told(&line),
                Ok(Happening::Closed) => return,
                Err(_) => self.ike.handle_timeout(Instant::now()),
            }
        }
    }

    fn told(&mut self, line: &str) {
        let now = Instant::now();
        let ike = self.ikes.last().copied().unwrap_or(IkeId(0));
        let child = self.children.last().copied().unwrap_or(SaId(0));
        match line {
            "initiate" => {
                let initiate = Initiate {
                    local: self.local,
                    remote: self.remote,
                    identity: identity("OWN_ID", self.local),
                    peer: identity("PEER_ID", self.remote),
                    keys: vec![self.peer_key.clone()],
                    child: request(),
                    ask_address: None,
                };
                self.ike.initiate(now, initiate);
            }
            "child" => self.ike.create_child(now, ike, request()),
            "rekey-child" => self.ike.rekey_child(now, child),
            "rekey-ike" => self.ike.rekey_ike(now, ike),
            "probe" => self.ike.probe(now, ike),
            "probe-first" => {
                self.ike.probe(now, self.ikes.first().copied().unwrap_or(IkeId(0)));
            }
            "close-child" => self.ike.close_child(now, child),
            "close" => self.ike.close(now, ike),
            "shutdown" => self.ike.shutdown(now),
            line if line.starts_with("relocate ") => {
                let local: IpAddr = line[9..].parse().expect("address");
                self.local = local;
                self.sockets = sockets(local);
                for socket in &self.sockets {
                    listen(socket.clone(), self.sender.clone().expect("it runs"));
                }
                self.ike.set_addresses(now, vec![local]);
                for (ike, _) in self.ike.stranded() {
                    self.ike.relocate(now, ike, local);
                }
            }
            "counters" => println!("{:?}", self.ike.counters()),
            other => panic!("{other}?"),
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.ike.poll_output() {
            let now = Instant::now();
            match output {
                Output::Transmit(transmit) => {
                    self.send(&transmit);
                    self.forge(&transmit);
                }
                Output::NeedChild(need) => self.ike.handle_child(Instant::now(), need.ike, false),
                Output::NeedPeer(need) => {
                    println!("NeedPeer {:?} natted {}", need.identity, need.peer_natted);
                    let verdict = PeerVerdict::Known {
                        identity: identity("OWN_ID", self.local),
                        grants: vec![Grant {
                            key: self.peer_key.clone(),
                            remote: request().remote,
                            local: request().local,
                            transport: false,
                            assigned: Assigned::Nothing,
                        }],
                    };
                    self.ike.handle_peer(now, need.ike, verdict);
                }
                Output::Sign(sign) => {
                    println!("Sign {:?}", sign.scheme);
                    let signature = self.pair.sign(sign.scheme, &sign.octets);
                    self.ike.handle_signature(now, sign.ike, Some(signature));
                }
                Output::Event(event) => self.tell(event),
            }
        }
    }

    fn tell(&mut self, event: Event) {
        match event {
            Event::Established { ike, initiator, peer, initial_contact, .. } => {
                self.ikes.push(ike);
                self.ike.allow_moves(ike, true);
                println!(
                    "Established initiator {initiator} identity {:?} \
                     initial contact {initial_contact}",
                    peer.identity()
                );
                println!("KeyExchange {}", self.ike.key_exchange(ike).unwrap_or_default());
            }
            Event::ChildUp(child) => {
                self.children.push(child.id);
                println!(
                    "ChildUp {:?} rekeys {:?} initiator {} cipher {} esn {} udp {} ports {} {}",
                    child.id,
                    child.rekeys,
                    child.initiator,
                    child.cipher.name(),
                    child.esn,
                    child.envelope.udp,
                    child.envelope.local.port(),
                    child.envelope.remote.port(),
                );
            }
            Event::ChildDown { sa, why } => {
                self.children.retain(|id| *id != sa);
                println!("ChildDown {sa:?} {why:?}");
            }
            Event::NotRenewed { child, .. } => println!("NotRenewed {child:?}"),
            Event::ChildFailed { why, .. } => println!("ChildFailed {why:?}"),
            Event::Ended { ike, why } => {
                self.ikes.retain(|id| *id != ike);
                println!("Ended {why:?}");
            }
            Event::Keyed { .. } => println!("Keyed"),
            Event::Ticket { .. } => println!("Ticket"),
            Event::Alive { .. } => println!("Alive"),
            Event::Moved { envelope, .. } => println!("Moved {}", envelope.remote),
            Event::Unanswered { .. } => println!("Unanswered"),
        }
    }

    fn send(&self, transmit: &Transmit) {
        let [plain, natted] = &self.sockets;
        let socket = if transmit.local.port() == 4500 { natted } else { plain };
        let mut octets = if transmit.marker { vec![0; 4] } else { Vec::new() };
        octets.extend_from_slice(&transmit.octets);
        let _ = socket.send_to(&octets, transmit.remote);
    }

    /// Somebody sees our IKE_SA_INIT request, and is heard before the peer. The peer does answer
    /// that request first: two of strongSwan's threads would otherwise race for which of two
    /// requests it answers.
    fn forge(&mut self, request: &Transmit) {
        const COOKIE: u16 = 16390;
        let Some((spi, [.., exchange, flags])) = request
            .octets
            .split_first_chunk::<8>()
            .and_then(|(spi, rest)| Some((spi, rest.first_chunk::<12>()?)))
        else {
            return;
        };
        if self.forgeries == 0 || (*exchange, *flags) != (34, 0x08) {
            return;
        }
        self.forgeries -= 1;
        let mut octets =
            [&spi[..], &[0; 8], &[41, 0x20, 34, 0x20, 0, 0, 0, 0, 0, 0, 0, 40]].concat();
        octets.extend([0, 0, 0, 12, 0, 0]);
        octets.extend(COOKIE.to_be_bytes());
        octets.extend([0xf0, 0, 0, self.forgeries]);
        println!("Forged");
        std::thread::sleep(Duration::from_millis(100));
        let (local, remote) = (request.local, request.remote);
        self.ike.handle_datagram(Instant::now(), Datagram { local, remote, octets: &octets });
    }
}

fn identity(setting: &str, addr: IpAddr) -> Identity {
    std::env::var(setting).map_or(Identity::Address(addr), Identity::Fqdn)
}

/// UDP 500 and 4500 of an address.
fn sockets(local: IpAddr) -> [Arc<UdpSocket>; 2] {
    [500, 4500].map(|port| Arc::new(UdpSocket::bind(SocketAddr::new(local, port)).expect("bind")))
}

/// From west's inner address to east's.
fn request() -> ChildRequest {
    let host = |s: &str| vec![TrafficSelector::host(s.parse().expect("address"))];
    ChildRequest { local: host("10.1.0.1"), remote: host("10.2.0.1"), mode: Mode::Tunnel }
}

/// Passes on what a socket receives, without the non-ESP marker; ESP is left alone.
fn listen(socket: Arc<UdpSocket>, sender: Sender<Happening>) {
    std::thread::spawn(move || {
        let mut buffer = [0; 65_535];
        let local = socket.local_addr().expect("bound");
        while let Ok((len, remote)) = socket.recv_from(&mut buffer) {
            let octets = buffer.get(..len).unwrap_or_default();
            let octets = if local.port() == 4500 {
                let Some(octets) = octets.strip_prefix(&[0; 4]) else { continue };
                octets
            } else {
                octets
            };
            if sender.send(Happening::Packet(local, remote, octets.to_vec())).is_err() {
                return;
            }
        }
    });
}
