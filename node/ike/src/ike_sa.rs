//! One IKE SA: a pair of SPIs, its keys, and a window of one request each way (RFC 7296 §2.1 to
//! §2.3).
//!
//! Where the SA stands and which request is outstanding are two things: a request of the peer
//! that crosses ours finds its place whatever we wait for.

use std::time::{Duration, Instant};

use crate::crypto::{CipherPair, CryptoFailure, IkeKeys, IkeSuite, Mix, Opener, Sealer, Secret};
use crate::exchange::Pending;
use crate::exchange::ike_session_resume::Resumable;
use crate::message::{
    Body, ExchangeType, Head, Header, InvalidMessage, Message, Payload, PayloadType, Payloads,
    Sealed, write_chain,
};
use crate::reassembly::{Reassembly, Whole};

/// One IKE SA.
#[derive(Debug)]
pub(crate) struct IkeSa {
    pub(crate) spi_i: u64,
    pub(crate) spi_r: u64,
    /// Whether we are its original initiator.
    pub(crate) initiator: bool,
    pub(crate) suite: IkeSuite,
    pub(crate) keys: IkeKeys,
    /// The longest message that goes whole, if both sides announced
    /// IKEV2_FRAGMENTATION_SUPPORTED (RFC 7383 §2.3).
    pub(crate) whole: Option<usize>,
    sealer: Sealer,
    opener: Opener,
    /// Of before the last additional key exchange: the request that brought it may come again.
    superseded: Option<Opener>,
    /// By which the peer proves that it has lost this SA (RFC 6290).
    pub(crate) peer_token: Option<Secret>,
    intermediate: Option<Box<Intermediate>>,
    next_request: u32,
    outstanding: Option<Outstanding>,
    expected_request: u32,
    /// Whether the peer has spoken under it.
    pub(crate) heard: bool,
    last_response: Vec<Vec<u8>>,
    requests: Reassembly,
    responses: Reassembly,
}

/// What a new IKE SA is made of.
#[derive(Debug)]
pub(crate) struct IkeSaParts {
    pub(crate) spi_i: u64,
    pub(crate) spi_r: u64,
    pub(crate) initiator: bool,
    pub(crate) suite: IkeSuite,
    pub(crate) keys: IkeKeys,
    pub(crate) ciphers: CipherPair,
    pub(crate) whole: Option<usize>,
}

/// What the IKE_INTERMEDIATE messages so far add to what is signed (RFC 9242 §3.3).
#[derive(Debug)]
struct Intermediate {
    initiator: Secret,
    responder: Secret,
    exchanges: u32,
}

/// A request that waits for its response.
#[derive(Debug)]
struct Outstanding {
    id: u32,
    exchange: ExchangeType,
    datagrams: Vec<Vec<u8>>,
    repeat: Repeat,
    about: Pending,
}

/// When a request is sent again, and how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Repeat {
    pub(crate) due: Instant,
    interval: Duration,
    left: u32,
    /// How often after that, before it is given up.
    more: u32,
}

/// What to do with a request that is due again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Again {
    /// Send it.
    Send,
    /// Send it, and say that a call would have been given up by now.
    Unanswered,
    /// Nothing: it is given up.
    GiveUp,
}

impl Repeat {
    /// Of who has nothing to lose but time.
    pub(crate) fn new(now: Instant, first: Duration, tries: u32) -> Self {
        Self { due: now + first, interval: first, left: tries, more: 0 }
    }

    /// The same, but it is not given up before so long: of who has an SA to lose.
    pub(crate) fn patient(mut self, patience: Duration) -> Self {
        let (mut after, mut interval) = (self.interval, self.interval);
        for _ in 0..self.left {
            interval = interval.saturating_mul(2);
            after = after.saturating_add(interval);
        }
        while after < patience {
            interval = interval.saturating_mul(2).clamp(SHORTEST, MAX_INTERVAL);
            after = after.saturating_add(interval);
            self.more += 1;
        }
        self
    }

    /// Whether it was sent so lately that its answer may be on its way.
    fn is_fresh(&self, now: Instant) -> bool {
        let left = self.due.saturating_duration_since(now);
        self.interval.saturating_sub(left) < JUST_NOW
    }

    /// What to do now. The interval doubles.
    pub(crate) fn again(&mut self, now: Instant) -> Again {
        let twice = self.interval.saturating_mul(2);
        let again = match (self.left.checked_sub(1), self.more.checked_sub(1)) {
            (Some(left), _) => {
                (self.left, self.interval) = (left, twice);
                Again::Send
            }
            (None, Some(more)) => {
                (self.more, self.interval) = (more, twice.clamp(SHORTEST, MAX_INTERVAL));
                Again::Unanswered
            }
            (None, None) => return Again::GiveUp,
        };
        self.due = now + self.interval;
        again
    }
}

/// What a datagram turned out to be.
#[derive(Debug)]
pub(crate) enum Received {
    /// The next request. [`IkeSa::respond`] answers it and moves the window.
    Request(ExchangeType, Result<Payloads, InvalidMessage>),
    /// The last request again, answered with these datagrams.
    Repeated(Vec<Vec<u8>>),
    /// The response to our outstanding request.
    Response(Pending, Result<Payloads, InvalidMessage>),
    /// A fragment; the rest has not come yet.
    Fragment,
}

/// Why a message was dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dropped {
    /// It is not well formed, or fails its integrity check.
    Invalid(InvalidMessage),
    /// It is outside the window, or sent in the wrong role.
    Stray,
}

impl From<InvalidMessage> for Dropped {
    fn from(error: InvalidMessage) -> Self {
        Self::Invalid(error)
    }
}

impl IkeSa {
    /// An SA made by IKE_SA_INIT, which was its initiator's request 0.
    pub(crate) fn initial(parts: IkeSaParts) -> Result<Self, CryptoFailure> {
        let mut sa = Self::rekeyed(parts)?;
        if sa.initiator {
            sa.next_request = 1;
        } else {
            sa.expected_request = 1;
        }
        Ok(sa)
    }

    /// An SA made by CREATE_CHILD_SA: both windows start at 0 (RFC 7296 §2.18).
    pub(crate) fn rekeyed(parts: IkeSaParts) -> Result<Self, CryptoFailure> {
        let (sealer, opener) = parts.ciphers.ends(parts.initiator)?;
        Ok(Self {
            spi_i: parts.spi_i,
            spi_r: parts.spi_r,
            initiator: parts.initiator,
            suite: parts.suite,
            keys: parts.keys,
            whole: parts.whole,
            sealer,
            opener,
            superseded: None,
            peer_token: None,
            intermediate: None,
            next_request: 0,
            outstanding: None,
            expected_request: 0,
            heard: false,
            last_response: Vec::new(),
            requests: Reassembly::default(),
            responses: Reassembly::default(),
        })
    }

    /// What of it another can be made of; nothing if it needs an HMAC.
    pub(crate) fn resumable(&self) -> Option<Resumable> {
        let suite = IkeSuite::from_numbers(self.suite.numbers())?;
        Some(Resumable { suite, sk_d: self.keys.sk_d() })
    }

    /// How its keys were agreed on.
    pub(crate) fn key_exchange(&self) -> &'static str {
        self.suite.key_exchange()
    }

    /// The SPI that we chose.
    pub(crate) fn own_spi(&self) -> u64 {
        if self.initiator { self.spi_i } else { self.spi_r }
    }

    /// One more secret goes into the keys of an SA that is being made; nonces and SPIs stay
    /// (RFC 9370 §2.2.2).
    pub(crate) fn strengthen(
        &mut self,
        secret: &Secret,
        nonce_i: &[u8],
        nonce_r: &[u8],
    ) -> Result<(), CryptoFailure> {
        let mix = Mix { nonce_i, nonce_r, spi_i: self.spi_i, spi_r: self.spi_r };
        let IkeSuite { prf, cipher, .. } = self.suite;
        let (keys, ciphers) = self.keys.rekeyed(prf, cipher, (secret, None), mix)?;
        let (sealer, opener) = ciphers.ends(self.initiator)?;
        self.keys = keys;
        self.sealer = sealer;
        self.superseded = Some(std::mem::replace(&mut self.opener, opener));
        Ok(())
    }

    /// What the initiator (or responder) signs (RFC 7296 §2.15, RFC 9242 §3.3.2).
    pub(crate) fn signed_octets(
        &self,
        by_initiator: bool,
        message: &[u8],
        nonce: &[u8],
        identification: &[u8],
    ) -> Vec<u8> {
        let mut octets = self.keys.signed_octets(by_initiator, message, nonce, identification);
        if let Some(intermediate) = &self.intermediate {
            octets.extend_from_slice(&intermediate.initiator);
            octets.extend_from_slice(&intermediate.responder);
            // The message ID of the first IKE_AUTH, which follows them.
            octets.extend_from_slice(&(intermediate.exchanges + 1).to_be_bytes());
        }
        octets
    }

    /// Takes note of an IKE_INTERMEDIATE message, whole and unencrypted, as it is covered by what is
    /// signed: as it was sent, but that lengths do not count what encryption adds (RFC 9242 §3.3.2).
    fn note_intermediate(&mut self, header: &Header, head: Head, plaintext: &[u8]) {
        if header.exchange != ExchangeType::IKE_INTERMEDIATE {
            return;
        }
        let head = head.of(plaintext.len());
        let noted = self.intermediate.get_or_insert_with(|| {
            let nothing = || Secret::zeros(0);
            Box::new(Intermediate { initiator: nothing(), responder: nothing(), exchanges: 0 })
        });
        let last = if header.initiator { &mut noted.initiator } else { &mut noted.responder };
        *last = self.keys.int_auth(header.initiator, last, &[&head, plaintext]);
        noted.exchanges += u32::from(header.response);
    }

    /// Whether so many message IDs are used up, of ours or of the peer's, that it is to be replaced
    /// (RFC 7296 §2.2).
    pub(crate) fn is_worn(&self) -> bool {
        self.next_request.max(self.expected_request) >= WORN
    }

    /// As if so many requests had been made, by us and by the peer.
    #[cfg(test)]
    pub(crate) fn wear(&mut self, ours: u32, theirs: u32) {
        (self.next_request, self.expected_request) = (ours, theirs);
    }

    /// The message ID of the peer's next request.
    pub(crate) fn awaited(&self) -> u32 {
        self.expected_request
    }

    /// What our outstanding request is about.
    pub(crate) fn pending(&self) -> Option<&Pending> {
        self.outstanding.as_ref().map(|o| &o.about)
    }

    /// The same, to note what crossed it.
    pub(crate) fn pending_mut(&mut self) -> Option<&mut Pending> {
        self.outstanding.as_mut().map(|o| &mut o.about)
    }

    /// Forgets the outstanding request.
    pub(crate) fn abandon(&mut self) -> Option<Pending> {
        self.outstanding.take().map(|o| o.about)
    }

    /// When the outstanding request is due again.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.outstanding.as_ref().map(|o| o.repeat.due)
    }

    /// Makes a request and the window's one outstanding exchange of it. The datagrams are what to
    /// send. Must not be called while another is outstanding, except by a node that goes down.
    pub(crate) fn request(
        &mut self,
        exchange: ExchangeType,
        payloads: &[Payload],
        repeat: Repeat,
        about: Pending,
    ) -> Vec<Vec<u8>> {
        let id = self.next_request;
        self.next_request = id.saturating_add(1);
        let datagrams =
            if id == LAST_ID { Vec::new() } else { self.seal(exchange, false, id, payloads) };
        self.responses = Reassembly::default();
        self.outstanding =
            Some(Outstanding { id, exchange, datagrams: datagrams.clone(), repeat, about });
        datagrams
    }

    /// A request nobody waits for: the SA ends with it.
    pub(crate) fn last_request(&mut self, payloads: &[Payload]) -> Vec<Vec<u8>> {
        let id = self.next_request;
        self.next_request = id.saturating_add(1);
        self.seal(ExchangeType::INFORMATIONAL, false, id, payloads)
    }

    /// The outstanding request once more; `None` if it is given up.
    pub(crate) fn repeat(&mut self, now: Instant) -> Option<Vec<Vec<u8>>> {
        self.repeat_or_say(now).map(|(datagrams, _)| datagrams)
    }

    /// The same, and whether it has been unanswered for as long as a call may be.
    pub(crate) fn repeat_or_say(&mut self, now: Instant) -> Option<(Vec<Vec<u8>>, bool)> {
        let outstanding = self.outstanding.as_mut()?;
        let again = outstanding.repeat.again(now);
        let said = again == Again::Unanswered;
        (again != Again::GiveUp).then(|| (outstanding.datagrams.clone(), said))
    }

    /// The outstanding request once more beside its turns, unless it was sent just now.
    pub(crate) fn besides(&self, now: Instant) -> Option<Vec<Vec<u8>>> {
        let outstanding = self.outstanding.as_ref()?;
        (!outstanding.repeat.is_fresh(now)).then(|| outstanding.datagrams.clone())
    }

    /// The outstanding request once more, with all its tries before it: it goes another way.
    pub(crate) fn begin_anew(&mut self, repeat: Repeat) -> Option<Vec<Vec<u8>>> {
        let outstanding = self.outstanding.as_mut()?;
        outstanding.repeat = repeat;
        Some(outstanding.datagrams.clone())
    }

    /// Answers the request that [`IkeSa::receive`] gave, and moves the window.
    pub(crate) fn respond(&mut self, exchange: ExchangeType, payloads: &[Payload]) -> Vec<Vec<u8>> {
        let id = self.expected_request;
        self.expected_request = id.saturating_add(1);
        self.requests = Reassembly::default();
        self.superseded = None;
        self.last_response = self.seal(exchange, true, id, payloads);
        self.last_response.clone()
    }

    /// Takes in a message with one of our SPIs. Nothing changes unless it authenticates.
    pub(crate) fn receive(&mut self, message: &Message<'_>) -> Result<Received, Dropped> {
        let header = message.header;
        let Body::Sealed(sealed) = message.body else {
            return Err(InvalidMessage::Missing("encrypted payload").into());
        };
        if header.initiator == self.initiator
            || (header.spi_i, header.spi_r) != (self.spi_i, self.spi_r)
        {
            return Err(Dropped::Stray);
        }
        let received = if header.response {
            self.receive_response(header, sealed)
        } else {
            self.receive_request(header, sealed)
        }?;
        self.heard = true;
        Ok(received)
    }

    fn receive_response(
        &mut self,
        header: Header,
        sealed: Sealed<'_>,
    ) -> Result<Received, Dropped> {
        let outstanding = self.outstanding.as_ref().ok_or(Dropped::Stray)?;
        if (outstanding.id, outstanding.exchange) != (header.message_id, header.exchange) {
            return Err(Dropped::Stray);
        }
        let plaintext = self.opener.open(&sealed)?;
        let Some(Whole { first, head, plaintext }) =
            self.responses.take(&sealed, header.message_id, plaintext)?
        else {
            return Ok(Received::Fragment);
        };
        self.note_intermediate(&header, head, &plaintext);
        let payloads = Payloads::read(first, &plaintext);
        let about = self.abandon().ok_or(Dropped::Stray)?;
        Ok(Received::Response(about, payloads))
    }

    fn receive_request(&mut self, header: Header, sealed: Sealed<'_>) -> Result<Received, Dropped> {
        if header.message_id.checked_add(1) == Some(self.expected_request) {
            match &self.superseded {
                Some(superseded) => superseded.open(&sealed)?,
                None => self.opener.open(&sealed)?,
            };
            // All fragments come again; one of them asks for the answer (RFC 7383 §2.6.1).
            return match sealed.fragment {
                None | Some((1, _)) => Ok(Received::Repeated(self.last_response.clone())),
                Some(_) => Ok(Received::Fragment),
            };
        }
        if header.message_id != self.expected_request || header.message_id == LAST_ID {
            return Err(Dropped::Stray);
        }
        let plaintext = self.opener.open(&sealed)?;
        let Some(Whole { first, head, plaintext }) =
            self.requests.take(&sealed, header.message_id, plaintext)?
        else {
            return Ok(Received::Fragment);
        };
        self.note_intermediate(&header, head, &plaintext);
        Ok(Received::Request(header.exchange, Payloads::read(first, &plaintext)))
    }

    /// One datagram, or several if it must be fragmented. None at all if the SA has used up its
    /// IVs, which takes 2^64 messages.
    fn seal(
        &mut self,
        exchange: ExchangeType,
        response: bool,
        message_id: u32,
        payloads: &[Payload],
    ) -> Vec<Vec<u8>> {
        let header = Header {
            spi_i: self.spi_i,
            spi_r: self.spi_r,
            exchange,
            initiator: self.initiator,
            response,
            message_id,
        };
        #[cfg(test)]
        let payloads = &crate::tests::mangled(exchange, response, payloads)[..];
        let mut plaintext = Vec::new();
        let first = write_chain(&mut plaintext, payloads);
        self.note_intermediate(&header, Head::new(&header, first), &plaintext);
        let length = Header::LEN + SK_HEADER + self.sealer.sealed_len(plaintext.len());
        let Some(longest) = self.whole.filter(|longest| length > *longest) else {
            let part = Part { first, kind: PayloadType::SK, fragment: None };
            return self.seal_part(&header, part, &plaintext).into_iter().collect();
        };
        let room = self.sealer.capacity(longest.saturating_sub(Header::LEN + SKF_HEADER)).max(1);
        let chunks = plaintext.chunks(room);
        let total = u16::try_from(chunks.len()).unwrap_or(u16::MAX);
        chunks
            .zip(1..=total)
            .filter_map(|(chunk, number)| {
                // Only the first says what is inside (RFC 7383 §2.5).
                let first = if number == 1 { first } else { PayloadType::NONE };
                let fragment = Some((number, total));
                self.seal_part(&header, Part { first, kind: PayloadType::SKF, fragment }, chunk)
            })
            .collect()
    }

    fn seal_part(&mut self, header: &Header, part: Part, plaintext: &[u8]) -> Option<Vec<u8>> {
        let payload_header = if part.fragment.is_some() { SKF_HEADER } else { SK_HEADER };
        let length = payload_header + self.sealer.sealed_len(plaintext.len());
        let mut out = Vec::with_capacity(Header::LEN + length);
        header.write(&mut out, part.kind, Header::LEN + length);
        out.extend_from_slice(&[part.first.0, 0]);
        out.extend_from_slice(&u16::try_from(length).ok()?.to_be_bytes());
        if let Some((number, total)) = part.fragment {
            out.extend_from_slice(&number.to_be_bytes());
            out.extend_from_slice(&total.to_be_bytes());
        }
        self.sealer.seal(&mut out, plaintext).ok()?;
        Some(out)
    }
}

/// How one encrypted payload begins.
#[derive(Clone, Copy, Debug)]
struct Part {
    first: PayloadType,
    kind: PayloadType,
    fragment: Option<(u16, u16)>,
}

/// Never used: no other would come after it, and it would be answered again and again.
const LAST_ID: u32 = u32::MAX;
/// Message IDs after which an IKE SA is replaced: half of all, which takes days at any rate.
const WORN: u32 = 1 << 31;
const SK_HEADER: usize = 4;
const SKF_HEADER: usize = 8;

/// A configuration in which a call is not even repeated has an interval all the same.
const SHORTEST: Duration = Duration::from_secs(1);
/// Long enough for an answer from anywhere.
pub(crate) const JUST_NOW: Duration = Duration::from_secs(1);
/// What an established IKE SA asks is never repeated later than this: a way that is there again is
/// found soon, and in three minutes it is asked more than a dozen times (RFC 7296 §2.4).
const MAX_INTERVAL: Duration = Duration::from_secs(15);
