//! IANA's numbers for IKEv2. Unknown ones survive as numbers.

/// Exchange type (RFC 7296 §3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ExchangeType(pub(crate) u8);

impl ExchangeType {
    pub(crate) const IKE_SA_INIT: Self = Self(34);
    pub(crate) const IKE_AUTH: Self = Self(35);
    pub(crate) const CREATE_CHILD_SA: Self = Self(36);
    pub(crate) const INFORMATIONAL: Self = Self(37);
    /// RFC 5723 §7.
    pub(crate) const IKE_SESSION_RESUME: Self = Self(38);
    /// RFC 9242 §3.2.
    pub(crate) const IKE_INTERMEDIATE: Self = Self(43);
    /// RFC 9370 §2.2.4.
    pub(crate) const IKE_FOLLOWUP_KE: Self = Self(44);
}

/// Payload type (RFC 7296 §3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PayloadType(pub(crate) u8);

impl PayloadType {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const SA: Self = Self(33);
    pub(crate) const KE: Self = Self(34);
    pub(crate) const ID_INITIATOR: Self = Self(35);
    pub(crate) const ID_RESPONDER: Self = Self(36);
    pub(crate) const AUTH: Self = Self(39);
    pub(crate) const NONCE: Self = Self(40);
    pub(crate) const NOTIFY: Self = Self(41);
    pub(crate) const DELETE: Self = Self(42);
    pub(crate) const TS_INITIATOR: Self = Self(44);
    pub(crate) const TS_RESPONDER: Self = Self(45);
    pub(crate) const SK: Self = Self(46);
    /// Configuration (RFC 7296 §3.15).
    pub(crate) const CP: Self = Self(47);
    /// Encrypted and Authenticated Fragment (RFC 7383 §2.5).
    pub(crate) const SKF: Self = Self(53);
    /// The types of RFC 7296 itself; we must understand these, read or not.
    pub(crate) fn is_of_rfc7296(self) -> bool {
        (33..=48).contains(&self.0)
    }
}

/// Protocol that an SPI belongs to (RFC 7296 §3.3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ProtocolId(pub(crate) u8);

impl ProtocolId {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const IKE: Self = Self(1);
    pub(crate) const ESP: Self = Self(3);
}

/// Transform type (RFC 7296 §3.3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TransformType(pub(crate) u8);

impl TransformType {
    pub(crate) const ENCR: Self = Self(1);
    pub(crate) const PRF: Self = Self(2);
    pub(crate) const INTEG: Self = Self(3);
    pub(crate) const KE: Self = Self(4);
    pub(crate) const ESN: Self = Self(5);
    /// Additional Key Exchange 1 (RFC 9370 §2.2.1).
    pub(crate) const ADDKE1: Self = Self(6);
    /// Additional Key Exchange 1 to 7.
    pub(crate) const ADDKE: [Self; 7] =
        [Self::ADDKE1, Self(7), Self(8), Self(9), Self(10), Self(11), Self(12)];
}

/// Notify message type (RFC 7296 §3.10.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct NotifyType(pub(crate) u16);

impl NotifyType {
    pub(crate) const UNSUPPORTED_CRITICAL_PAYLOAD: Self = Self(1);
    pub(crate) const INVALID_IKE_SPI: Self = Self(4);
    pub(crate) const INVALID_MAJOR_VERSION: Self = Self(5);
    pub(crate) const INVALID_SYNTAX: Self = Self(7);
    /// RFC 7296 §1.5: outside of any SA, and forgeable.
    pub(crate) const INVALID_SPI: Self = Self(11);
    pub(crate) const NO_PROPOSAL_CHOSEN: Self = Self(14);
    pub(crate) const INVALID_KE_PAYLOAD: Self = Self(17);
    pub(crate) const AUTHENTICATION_FAILED: Self = Self(24);
    /// RFC 7296 §2.9: the peer takes a single pair of addresses a child.
    pub(crate) const SINGLE_PAIR_REQUIRED: Self = Self(34);
    pub(crate) const NO_ADDITIONAL_SAS: Self = Self(35);
    pub(crate) const INTERNAL_ADDRESS_FAILURE: Self = Self(36);
    pub(crate) const FAILED_CP_REQUIRED: Self = Self(37);
    pub(crate) const TS_UNACCEPTABLE: Self = Self(38);
    pub(crate) const TEMPORARY_FAILURE: Self = Self(43);
    pub(crate) const CHILD_SA_NOT_FOUND: Self = Self(44);
    /// RFC 9370 §2.2.4.
    pub(crate) const STATE_NOT_FOUND: Self = Self(47);
    /// RFC 4555 §4.2: local policy has nothing against the peer, but against these addresses.
    pub(crate) const UNACCEPTABLE_ADDRESSES: Self = Self(40);
    /// RFC 4555 §4.2.
    pub(crate) const UNEXPECTED_NAT_DETECTED: Self = Self(41);
    pub(crate) const INITIAL_CONTACT: Self = Self(16384);
    pub(crate) const NAT_DETECTION_SOURCE_IP: Self = Self(16388);
    pub(crate) const NAT_DETECTION_DESTINATION_IP: Self = Self(16389);
    pub(crate) const COOKIE: Self = Self(16390);
    pub(crate) const USE_TRANSPORT_MODE: Self = Self(16391);
    pub(crate) const REKEY_SA: Self = Self(16393);
    /// RFC 4555 §4.2, and the five that follow.
    pub(crate) const MOBIKE_SUPPORTED: Self = Self(16396);
    pub(crate) const ADDITIONAL_IP4_ADDRESS: Self = Self(16397);
    pub(crate) const ADDITIONAL_IP6_ADDRESS: Self = Self(16398);
    pub(crate) const NO_ADDITIONAL_ADDRESSES: Self = Self(16399);
    pub(crate) const UPDATE_SA_ADDRESSES: Self = Self(16400);
    pub(crate) const COOKIE2: Self = Self(16401);
    pub(crate) const NO_NATS_ALLOWED: Self = Self(16402);
    /// RFC 5723 §7, and the three that follow.
    pub(crate) const TICKET_LT_OPAQUE: Self = Self(16409);
    pub(crate) const TICKET_REQUEST: Self = Self(16410);
    pub(crate) const TICKET_NACK: Self = Self(16412);
    pub(crate) const TICKET_OPAQUE: Self = Self(16413);
    /// RFC 6023 §3.
    pub(crate) const CHILDLESS_IKEV2_SUPPORTED: Self = Self(16418);
    /// RFC 6290 §4.1.
    pub(crate) const QCD_TOKEN: Self = Self(16419);
    /// RFC 7383 §2.3.
    pub(crate) const IKEV2_FRAGMENTATION_SUPPORTED: Self = Self(16430);
    /// RFC 9242 §3.1.
    pub(crate) const INTERMEDIATE_EXCHANGE_SUPPORTED: Self = Self(16438);
    /// RFC 9370 §2.2.4.
    pub(crate) const ADDITIONAL_KEY_EXCHANGE: Self = Self(16441);
    /// RFC 7427 §4.
    pub(crate) const SIGNATURE_HASH_ALGORITHMS: Self = Self(16431);

    /// Types below 16384 say that something failed.
    pub(crate) fn is_error(self) -> bool {
        self.0 < 16384
    }
}
