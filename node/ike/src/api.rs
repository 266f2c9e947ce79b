//! The vocabulary of [`crate::Ike`]: configuration, inputs, outputs.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use sa::{Envelope, EspCipher, EspKey, Mode, SaId, Spi, TrafficSelector};
use zeroize::Zeroizing;

use crate::verified::Verified;

/// The local name of an IKE SA. Never on the wire, never used twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct IkeId(pub u64);

/// An identification payload's content (RFC 7296 §3.5).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Identity {
    /// `ID_IPV4_ADDR` or `ID_IPV6_ADDR`.
    Address(IpAddr),
    /// `ID_FQDN`; checked to be printable ASCII without blanks, at most 255 octets.
    Fqdn(String),
    /// `ID_NULL` (RFC 7619 §2.2).
    Null,
    /// Anything else, kept as it came (at most 255 octets).
    Other {
        /// ID type.
        kind: u8,
        /// Identification data.
        data: Vec<u8>,
    },
}

impl Identity {
    /// Whether both are the same: names are compared as DNS compares them.
    pub(crate) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Fqdn(a), Self::Fqdn(b)) => a.eq_ignore_ascii_case(b),
            (a, b) => a == b,
        }
    }
}

/// A key that verifies signatures.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum PublicKey {
    /// RSA, both big-endian without leading zeros.
    Rsa {
        /// Public exponent.
        exponent: Vec<u8>,
        /// Modulus.
        modulus: Vec<u8>,
    },
    /// ECDSA on P-256: the point's coordinates, x before y.
    EcdsaP256([u8; 64]),
    /// ECDSA on P-384: the point's coordinates, x before y.
    EcdsaP384([u8; 96]),
    /// Ed25519, as RFC 8032 §5.1.2 encodes it.
    Ed25519([u8; 32]),
}

/// A secret that both ends know. Wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SharedSecret(Arc<Zeroizing<Vec<u8>>>);

impl SharedSecret {
    /// Fewer octets than this cannot be hard to guess: who answers our call in the peer's place
    /// can try all secrets on what we sent it (RFC 7296 §2.15).
    pub const MIN_OCTETS: usize = 16;

    /// `None` if it has fewer than [`Self::MIN_OCTETS`].
    #[must_use]
    pub fn new(octets: Vec<u8>) -> Option<Self> {
        let octets = Zeroizing::new(octets);
        (octets.len() >= Self::MIN_OCTETS).then(|| Self(Arc::new(octets)))
    }

    pub(crate) fn octets(&self) -> &[u8] {
        &self.0
    }
}

// Told apart among one's own, as keys of maps are; a peer's knowledge is compared elsewhere.
impl Ord for SharedSecret {
    fn cmp(&self, other: &Self) -> Ordering {
        self.octets().cmp(other.octets())
    }
}

impl PartialOrd for SharedSecret {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for SharedSecret {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.octets().hash(state);
    }
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedSecret(..)")
    }
}

/// A secret of the node's own, 32 octets. Wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct NodeSecret(Arc<Zeroizing<[u8; 32]>>);

impl NodeSecret {
    pub(crate) fn octets(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for NodeSecret {
    fn from(octets: [u8; 32]) -> Self {
        Self(Arc::new(Zeroizing::new(octets)))
    }
}

impl fmt::Debug for NodeSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeSecret(..)")
    }
}

/// By what somebody proves who it is.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Credential {
    /// A signature that this key verifies (RFC 7427, RFC 8420, RFC 4754).
    Key(PublicKey),
    /// Knowing this secret (RFC 7296 §2.15).
    Secret(SharedSecret),
    /// Nothing: [`Identity::Null`] says so of itself (RFC 7619).
    Null,
}

impl Credential {
    /// The key, if it is one.
    #[must_use]
    pub fn key(&self) -> Option<&PublicKey> {
        match self {
            Self::Key(key) => Some(key),
            Self::Secret(_) | Self::Null => None,
        }
    }
}

impl From<PublicKey> for Credential {
    fn from(key: PublicKey) -> Self {
        Self::Key(key)
    }
}

/// Whether ESP is wrapped in UDP (RFC 3948) when no NAT is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Encapsulation {
    /// Always ask for it, by a `NAT_DETECTION_SOURCE_IP` that cannot match: UDP batches, raw
    /// sockets do not.
    #[default]
    Force,
    /// Only behind a NAT; protocol 50 otherwise.
    WhenNatted,
}

/// Whether SAs may go along when an outer address changes (MOBIKE, RFC 4555).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mobike {
    /// Neither offered nor accepted.
    Off,
    /// Offered and accepted; our other addresses are nobody's business until we use one.
    #[default]
    On,
    /// The same, and every peer is told our other addresses.
    Announce,
}

/// What stays the same while the node runs. Its secrets are taken out by who is told: those that
/// are replaced must not be kept here.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our public key: says what we can sign and how large a signature is.
    pub key: PublicKey,
    /// UDP encapsulation without NAT.
    pub encapsulation: Encapsulation,
    /// What tokens are made with by which peers know that we have lost an SA (RFC 6290). Only one
    /// that outlives us is of use. Without it we make none.
    pub token_secret: Option<NodeSecret>,
    /// When the node was started: since 1970. Tickets are good until a time of day.
    pub started: Duration,
    /// What tickets are sealed with, the key in use first; none, and we give none (RFC 5723).
    pub ticket_keys: Vec<NodeSecret>,
    /// Whether to ask for tickets.
    pub resumption: bool,
    /// MOBIKE.
    pub mobike: Mobike,
    /// Whether AES-CBC with HMAC-SHA2 will do, for IKE and for ESP, where a peer knows no AEAD,
    /// and MODP groups of 2048 bits and above where it knows no curve. Offered last, and chosen
    /// only if nothing better is offered.
    pub compatibility: bool,
    /// Whether ML-KEM-768 goes into the keys besides, with every peer that knows it (RFC 9370).
    pub post_quantum: bool,
    /// First retransmission after this long; doubles each time.
    pub retransmit_first: Duration,
    /// Retransmissions before a call fails. Under an established IKE SA [`Event::Unanswered`] says
    /// that they are used up.
    pub retransmit_tries: u32,
    /// How long an established IKE SA goes on asking a peer that does not answer, before it ends
    /// (RFC 7296 §2.4).
    pub patience: Duration,
    /// Half-open responder SAs from which on cookies are asked for (RFC 7296 §2.6).
    pub cookie_threshold: usize,
    /// Half-open responder SAs beyond which new ones are ignored.
    pub half_open_limit: usize,
    /// Life of an IKE SA before it is rekeyed, jittered downwards by up to a tenth.
    pub ike_life: Duration,
    /// Life of a child pair before it is rekeyed, jittered downwards by up to a tenth.
    pub child_life: Duration,
    /// IKE messages that would make longer IP packets than this go in fragments, in octets (RFC
    /// 7383). By default IPv6's least MTU, which passes everywhere (§2.5.1).
    pub fragment_size: usize,
    /// Refuses every replacement. For the workspace's own tests, which want a peer that does; nobody
    /// else has a use for it.
    #[doc(hidden)]
    pub renews_nothing: bool,
}

impl Config {
    /// The same without secrets.
    #[must_use]
    pub fn without_secrets(self) -> Self {
        Self { token_secret: None, ticket_keys: Vec::new(), ..self }
    }

    /// What suits opportunism: a call that nobody answers ends after seven and a half seconds,
    /// because users wait for it; what stands outlives an outage of three minutes.
    #[must_use]
    pub fn new(key: PublicKey) -> Self {
        Self {
            key,
            encapsulation: Encapsulation::default(),
            token_secret: None,
            started: Duration::ZERO,
            ticket_keys: Vec::new(),
            resumption: false,
            mobike: Mobike::default(),
            compatibility: false,
            post_quantum: true,
            retransmit_first: Duration::from_millis(500),
            retransmit_tries: 3,
            patience: Duration::from_secs(180),
            cookie_threshold: 64,
            half_open_limit: 1024,
            ike_life: Duration::from_secs(8 * 3600),
            child_life: Duration::from_secs(3600),
            fragment_size: 1280,
            renews_nothing: false,
        }
    }
}

/// A datagram from UDP 500 or 4500, without the non-ESP marker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Datagram<'a> {
    /// Where it arrived; port 4500 means that it came with the marker.
    pub local: SocketAddr,
    /// Where it came from.
    pub remote: SocketAddr,
    /// The IKE message.
    pub octets: &'a [u8],
}

/// A datagram to send; with the non-ESP marker in front if `marker` (RFC 3948 §2.2).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transmit {
    /// Source address and port.
    pub local: SocketAddr,
    /// Destination.
    pub remote: SocketAddr,
    /// Whether four zero octets go in front.
    pub marker: bool,
    /// The IKE message.
    pub octets: Vec<u8>,
}

/// The child to negotiate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChildRequest {
    /// Selectors on our side; the first may be the triggering packet's own (RFC 7296 §2.9).
    pub local: Vec<TrafficSelector>,
    /// Selectors on the peer's side.
    pub remote: Vec<TrafficSelector>,
    /// Tunnel or transport.
    pub mode: Mode,
}

/// A call to somebody who can prove who it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Initiate {
    /// Our outer address.
    pub local: IpAddr,
    /// The gateway's address; port 500.
    pub remote: IpAddr,
    /// Who we say we are. [`Identity::Null`] proves nothing; everybody else signs, or knows the
    /// secret if that is what the first of `keys` is.
    pub identity: Identity,
    /// Who the peer must say it is.
    pub peer: Identity,
    /// Any of which proves it.
    pub keys: Vec<Credential>,
    /// The first child, negotiated within IKE_AUTH. There is no call without one: whoever calls has a
    /// packet to send, or a connection to make. Others' such calls (RFC 6023) are answered.
    pub child: ChildRequest,
    /// If a NAT stands before us, ask for an inner address instead of proposing our own: for this
    /// one, or for any of its family if it is unspecified (RFC 7296 §2.19).
    pub ask_address: Option<IpAddr>,
}

/// What to come back with to a responder that we had an IKE SA with (RFC 5723). Whoever has it can
/// take our place, and read what is set up with it: it is wiped when dropped and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    pub(crate) opaque: Vec<u8>,
    pub(crate) secret: Zeroizing<Vec<u8>>,
}

impl Ticket {
    /// Its octets, to be kept in a safe place.
    #[must_use]
    pub fn to_octets(&self) -> Zeroizing<Vec<u8>> {
        let len = u16::try_from(self.secret.len()).unwrap_or(u16::MAX);
        Zeroizing::new([&len.to_be_bytes(), &self.secret[..], &self.opaque].concat())
    }

    /// The ticket of these octets.
    #[must_use]
    pub fn from_octets(octets: &[u8]) -> Option<Self> {
        let (len, rest) = octets.split_first_chunk::<2>()?;
        let (secret, opaque) = rest.split_at_checked(u16::from_be_bytes(*len).into())?;
        Some(Self { opaque: opaque.to_vec(), secret: Zeroizing::new(secret.to_vec()) })
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket(..)")
    }
}

impl PublicKey {
    /// The key in 32 octets: a digest of its kind and its numbers.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        crate::ticket::named(self)
    }
}

/// The responder's question: who is this, and what may it have?
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NeedPeer {
    /// The waiting SA.
    pub ike: IkeId,
    /// Who it says it is (IDi).
    pub identity: Identity,
    /// Whom it wants to talk to (IDr), if it said.
    pub wanted: Option<Identity>,
    /// Our outer address.
    pub local: SocketAddr,
    /// Its outer address.
    pub remote: SocketAddr,
    /// Whether a NAT was detected in front of the peer.
    pub peer_natted: bool,
    /// Selectors it proposes for its side (TSi); empty if it asks for no child.
    pub remote_selectors: Vec<TrafficSelector>,
    /// Selectors it proposes for our side (TSr).
    pub local_selectors: Vec<TrafficSelector>,
    /// Inner addresses that it asks for; the unspecified one is any of its family.
    pub wishes: Vec<IpAddr>,
}

/// What becomes of a peer's wish for an inner address (RFC 7296 §2.19).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Assigned {
    /// It has none, or there is nobody here who gives any: the selectors alone decide.
    #[default]
    Nothing,
    /// It gets this one.
    Address(IpAddr),
    /// None is left: INTERNAL_ADDRESS_FAILURE, and no child.
    Exhausted,
    /// It has not asked, and there is no other address that it may have: FAILED_CP_REQUIRED, and no
    /// child.
    Required,
}

/// What one key would entitle the peer to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    /// If this is what the peer proves itself with,
    pub key: Credential,
    /// it may speak for these,
    pub remote: Vec<TrafficSelector>,
    /// with these. The proposal is narrowed to both (RFC 7296 §2.9).
    pub local: Vec<TrafficSelector>,
    /// Whether transport mode is agreed to if the peer asks for it and it can be had: between the
    /// outer addresses themselves, with no NAT between. Otherwise it is tunnel mode.
    pub transport: bool,
    /// The inner address that it gets.
    pub assigned: Assigned,
}

/// The answer to [`NeedPeer`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PeerVerdict {
    /// Go on; the first grant whose key fits decides.
    Known {
        /// Who we say we are. [`Identity::Null`] proves nothing; everybody else signs, or knows
        /// the secret that the peer knew.
        identity: Identity,
        /// Keys, and what each entitles to.
        grants: Vec<Grant>,
    },
    /// Answer AUTHENTICATION_FAILED and forget it.
    Unknown,
}

/// The responder's other question: an established peer asks for a child between two addresses of
/// which at least one is new.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NeedChild {
    /// The SA; its request waits.
    pub ike: IkeId,
    /// Single addresses on the peer's side (TSi).
    pub remote_selectors: Vec<TrafficSelector>,
    /// Single addresses on our side (TSr).
    pub local_selectors: Vec<TrafficSelector>,
}

/// Octets to sign with the node's key (RFC 7427; RSASSA-PSS by preference).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sign {
    /// The waiting SA.
    pub ike: IkeId,
    /// The scheme, hash included.
    pub scheme: SignatureScheme,
    /// The message, not its digest.
    pub octets: Vec<u8>,
    /// Whether it is for a peer that has called; otherwise for a call of our own.
    pub stranger: bool,
}

/// A signature scheme of RFC 7427 or RFC 4754.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SignatureScheme {
    /// RSASSA-PSS, SHA2-256, MGF1 with the same hash, salt of the hash's length.
    RsaPssSha256,
    /// RSASSA-PSS, SHA2-384.
    RsaPssSha384,
    /// RSASSA-PSS, SHA2-512.
    RsaPssSha512,
    /// RSASSA-PKCS1-v1_5, SHA2-256.
    RsaPkcs1Sha256,
    /// RSASSA-PKCS1-v1_5, SHA2-384.
    RsaPkcs1Sha384,
    /// RSASSA-PKCS1-v1_5, SHA2-512.
    RsaPkcs1Sha512,
    /// ECDSA, SHA2-256; the signature is an ASN.1 SEQUENCE of r and s. The key says which curve.
    EcdsaSha256,
    /// ECDSA, SHA2-384.
    EcdsaSha384,
    /// ECDSA, SHA2-512.
    EcdsaSha512,
    /// Ed25519 (RFC 8420).
    Ed25519,
    /// ECDSA on P-256 with SHA2-256, r and s side by side (RFC 4754: for peers without RFC 7427).
    EcdsaP256Bare,
    /// ECDSA on P-384 with SHA2-384, r and s side by side (RFC 4754).
    EcdsaP384Bare,
}

/// A pair of ESP SAs that the peer has agreed to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Child {
    /// Its local name; becomes [`sa::SaPair::id`].
    pub id: SaId,
    /// Under which IKE SA.
    pub ike: IkeId,
    /// The pair it replaces.
    pub rekeys: Option<SaId>,
    /// Whether we asked for it. If so it may be sent on at once; otherwise a replacement waits
    /// for [`sa::Notice::FirstPacket`] or the old pair's deletion.
    pub initiator: bool,
    /// Cipher of both directions.
    pub cipher: EspCipher,
    /// SPI that we chose.
    pub spi_in: Spi,
    /// SPI that the peer chose.
    pub spi_out: Spi,
    /// Key of packets to us.
    pub key_in: EspKey,
    /// Key of packets to the peer.
    pub key_out: EspKey,
    /// Extended sequence numbers.
    pub esn: bool,
    /// Tunnel or transport.
    pub mode: Mode,
    /// Inner addresses on our side.
    pub local: Vec<TrafficSelector>,
    /// Inner addresses on the peer's side.
    pub remote: Vec<TrafficSelector>,
    /// The outer way.
    pub envelope: Envelope,
}

/// Why an IKE SA or a child ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The peer never answered.
    Timeout,
    /// The peer answered with this error notify, authenticated or (`authentic: false`) not.
    Refused {
        /// Notify message type (RFC 7296 §3.10.1).
        notify: u16,
        /// Whether it came from the peer itself: under the SA's keys, and after it has proved who
        /// it is.
        authentic: bool,
    },
    /// We asked for an inner address, as we had to behind a NAT, and the peer gives out none.
    NoAddress,
    /// The peer's signature, identity or key is not what it had to be.
    AuthenticationFailed,
    /// [`PeerVerdict::Unknown`], or no key or selector fitted.
    NotAuthorized,
    /// Our own key could not sign.
    SigningFailed,
    /// The peer deleted it.
    DeletedByPeer,
    /// We deleted it.
    Closed,
    /// The same peer came back with INITIAL_CONTACT.
    InitialContact,
    /// The peer has lost it, and has proved that it says so itself (RFC 6290).
    PeerLost,
    /// Its hard life is over.
    Expired,
    /// The peer broke the protocol.
    Misbehaved(&'static str),
}

/// Something happened.
#[derive(PartialEq, Eq, Debug)]
pub enum Event {
    /// IKE_SA_INIT is done: keys are agreed, nobody is authenticated.
    Keyed {
        /// The SA.
        ike: IkeId,
        /// Whether a NAT stands before us.
        behind_nat: bool,
    },
    /// IKE_AUTH is done: the peer is who it says. For the responder this precedes its answer.
    Established {
        /// The SA.
        ike: IkeId,
        /// Whether we called.
        initiator: bool,
        /// Who the peer is, and the proof of it.
        peer: Verified,
        /// The smaller of the two nonces, to settle simultaneous calls as RFC 7296 §2.8.1 does.
        lowest_nonce: Vec<u8>,
        /// Whether the peer says that it knows no other SA with us (RFC 7296 §2.4). The owner
        /// decides what becomes of the others: [`crate::Ike::abandon`] those that are stale.
        initial_contact: bool,
        /// The inner address that the peer has given us, or that we have given it.
        assigned: Option<IpAddr>,
    },
    /// The responder has given us something to come back with, once, within `life`.
    Ticket {
        /// The SA.
        ike: IkeId,
        /// What to give to [`crate::Ike::resume`].
        ticket: Ticket,
        /// How long it is good.
        life: Duration,
    },
    /// A child is agreed. Install it before the next output is carried out.
    ChildUp(Box<Child>),
    /// A child is gone at both ends.
    ChildDown {
        /// The pair.
        sa: SaId,
        /// Why.
        why: End,
    },
    /// The peer refuses for good to replace a child, or the IKE SA: it ends when its hard life is
    /// over. Said each time that the peer is asked in vain, once a minute.
    NotRenewed {
        /// The SA.
        ike: IkeId,
        /// The child; none if it is the IKE SA itself.
        child: Option<SaId>,
    },
    /// A child that we asked for was refused; the IKE SA stands without it.
    ChildFailed {
        /// The IKE SA.
        ike: IkeId,
        /// What we had asked for, in [`Initiate::child`] or [`crate::Ike::create_child`].
        request: Box<ChildRequest>,
        /// Why.
        why: End,
    },
    /// The outer addresses of an IKE SA and its children changed.
    Moved {
        /// The IKE SA.
        ike: IkeId,
        /// Its children.
        children: Vec<SaId>,
        /// The new outer way.
        envelope: Envelope,
    },
    /// The peer of an established IKE SA does not answer: a call would have been given up by now.
    /// Said again with each further repetition of the request. Whether it has lost the SA or only
    /// the way is lost, nobody can tell; who wants to know calls it anew, and closes this when that
    /// succeeds.
    Unanswered {
        /// The IKE SA.
        ike: IkeId,
    },
    /// The peer has answered [`crate::Ike::probe`], or anything after [`Event::Unanswered`].
    Alive {
        /// The IKE SA.
        ike: IkeId,
    },
    /// An IKE SA is gone, after its children ([`Event::ChildDown`] comes first for each).
    Ended {
        /// The SA.
        ike: IkeId,
        /// Why.
        why: End,
    },
}

/// What the machine wants done, in this order.
#[derive(PartialEq, Eq, Debug)]
pub enum Output {
    /// Send this datagram.
    Transmit(Transmit),
    /// Answer with [`crate::Ike::handle_peer`].
    NeedPeer(NeedPeer),
    /// Answer with [`crate::Ike::handle_child`].
    NeedChild(NeedChild),
    /// Answer with [`crate::Ike::handle_signature`].
    Sign(Sign),
    /// Take note.
    Event(Event),
}

/// What the next deadline is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Timer {
    /// A request was not answered.
    Retransmit,
    /// A half-open SA is too old.
    HalfOpen,
    /// A child pair is due.
    RekeyChild,
    /// An IKE SA is due.
    RekeyIke,
    /// An SA's hard life is over.
    Expire,
    /// A NAT mapping wants a keepalive (RFC 3948 §2.3).
    Keepalive,
    /// The cookie secret is due.
    CookieSecret,
}
