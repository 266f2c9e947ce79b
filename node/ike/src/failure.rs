//! What is told the peer when something fails: one map from failure to Notify (RFC 7296 §3.10.1).

use std::ops::ControlFlow;

use crate::api::End;
use crate::message::{InvalidMessage, Notify, NotifyType, ProtocolId};

/// A failure that the peer is told of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(clippy::enum_variant_names, reason = "TEMPORARY_FAILURE is its name")]
pub(crate) enum Failure {
    /// A payload of unknown type with its critical bit set.
    UnsupportedCriticalPayload(u8),
    /// A request under an IKE SA that is not here.
    InvalidIkeSpi,
    /// A later major version than ours.
    InvalidMajorVersion,
    /// An authenticated message that is not well formed.
    InvalidSyntax(&'static str),
    /// Identity, key or signature did not do.
    AuthenticationFailed,
    /// Nothing in the proposal that we can do.
    NoProposalChosen,
    /// The KE payload should have been of this group.
    InvalidKe(u16),
    /// No address is left to give to the peer (RFC 7296 §3.15.4).
    InternalAddressFailure,
    /// The peer has no address that it may use, and has not asked for one.
    FailedCpRequired,
    /// Narrowing left nothing.
    TsUnacceptable,
    /// As many children as we allow.
    NoAdditionalSas,
    /// Not now (RFC 7296 §2.25).
    TemporaryFailure,
    /// We have no child of this protocol with this SPI.
    ChildSaNotFound(ProtocolId, [u8; 4]),
    /// The peer may not be where it says that it is (RFC 4555 §3.5).
    UnacceptableAddresses,
    /// A NAT has changed addresses of which the peer says that none may (RFC 4555 §3.9).
    UnexpectedNatDetected,
    /// Nothing waits for this key exchange (RFC 9370 §2.2.4).
    StateNotFound,
}

impl Failure {
    /// Its notify.
    pub(crate) fn notify(self) -> Notify {
        let kind = self.kind();
        match self {
            Self::UnsupportedCriticalPayload(payload) => Notify::new(kind, [payload]),
            Self::InvalidKe(group) => Notify::new(kind, group.to_be_bytes()),
            Self::ChildSaNotFound(protocol, spi) => {
                Notify { protocol, ..Notify::about_esp(kind, &spi) }
            }
            Self::InvalidSyntax(_)
            | Self::InvalidIkeSpi
            | Self::InvalidMajorVersion
            | Self::AuthenticationFailed
            | Self::NoProposalChosen
            | Self::InternalAddressFailure
            | Self::FailedCpRequired
            | Self::TsUnacceptable
            | Self::NoAdditionalSas
            | Self::TemporaryFailure
            | Self::UnacceptableAddresses
            | Self::UnexpectedNatDetected
            | Self::StateNotFound => Notify::new(kind, []),
        }
    }

    fn kind(self) -> NotifyType {
        match self {
            Self::UnsupportedCriticalPayload(_) => NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD,
            Self::InvalidIkeSpi => NotifyType::INVALID_IKE_SPI,
            Self::InvalidMajorVersion => NotifyType::INVALID_MAJOR_VERSION,
            Self::InvalidSyntax(_) => NotifyType::INVALID_SYNTAX,
            Self::AuthenticationFailed => NotifyType::AUTHENTICATION_FAILED,
            Self::NoProposalChosen => NotifyType::NO_PROPOSAL_CHOSEN,
            Self::InvalidKe(_) => NotifyType::INVALID_KE_PAYLOAD,
            Self::InternalAddressFailure => NotifyType::INTERNAL_ADDRESS_FAILURE,
            Self::FailedCpRequired => NotifyType::FAILED_CP_REQUIRED,
            Self::TsUnacceptable => NotifyType::TS_UNACCEPTABLE,
            Self::NoAdditionalSas => NotifyType::NO_ADDITIONAL_SAS,
            Self::TemporaryFailure => NotifyType::TEMPORARY_FAILURE,
            Self::ChildSaNotFound(..) => NotifyType::CHILD_SA_NOT_FOUND,
            Self::UnacceptableAddresses => NotifyType::UNACCEPTABLE_ADDRESSES,
            Self::UnexpectedNatDetected => NotifyType::UNEXPECTED_NAT_DETECTED,
            Self::StateNotFound => NotifyType::STATE_NOT_FOUND,
        }
    }

    /// What becomes of an established IKE SA under which a request was answered, perhaps with this:
    /// INVALID_SYNTAX is fatal on both sides (RFC 7296 §2.21.3). Nobody but the peer itself can have
    /// sent what is answered so.
    pub(crate) fn outcome(answered: Option<Self>) -> ControlFlow<End> {
        match answered {
            Some(Self::InvalidSyntax(field)) => ControlFlow::Break(End::Misbehaved(field)),
            _ => ControlFlow::Continue(()),
        }
    }

    /// What our own side is told.
    pub(crate) fn end(self) -> End {
        match self {
            Self::AuthenticationFailed => End::AuthenticationFailed,
            Self::TsUnacceptable => End::NotAuthorized,
            Self::InvalidSyntax(field) => End::Misbehaved(field),
            Self::UnsupportedCriticalPayload(_)
            | Self::NoProposalChosen
            | Self::InvalidKe(_)
            | Self::InternalAddressFailure
            | Self::FailedCpRequired
            | Self::NoAdditionalSas
            | Self::TemporaryFailure
            | Self::ChildSaNotFound(..)
            | Self::InvalidIkeSpi
            | Self::InvalidMajorVersion
            | Self::UnacceptableAddresses
            | Self::UnexpectedNatDetected
            | Self::StateNotFound => End::Refused { notify: self.kind().0, authentic: true },
        }
    }
}

impl From<InvalidMessage> for Failure {
    fn from(error: InvalidMessage) -> Self {
        match error {
            InvalidMessage::Critical(payload) => Self::UnsupportedCriticalPayload(payload),
            InvalidMessage::Missing(field)
            | InvalidMessage::Trailing(field)
            | InvalidMessage::Value(field)
            | InvalidMessage::Twice(field)
            | InvalidMessage::TooMany(field) => Self::InvalidSyntax(field),
            InvalidMessage::MajorVersion => Self::InvalidSyntax("version"),
            InvalidMessage::Integrity => Self::InvalidSyntax("integrity"),
        }
    }
}
