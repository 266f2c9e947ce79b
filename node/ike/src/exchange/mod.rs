//! The exchanges, and what is spoken in INFORMATIONAL, one file per side where the sides differ.
//!
//! | file | RFC 7296 |
//! |---|---|
//! | `ike_sa_init_initiator`, `ike_sa_init_responder` | §1.2, §2.6, §2.7, §2.23 |
//! | `ike_auth_initiator`, `ike_auth_responder`, `authentication` | §1.2, §2.15 |
//! | `create_child_initiator`, `create_child_responder` | §1.3.1, §1.3.3, §2.8, §2.25 |
//! | `rekey_ike` | §1.3.2, §2.18 |
//! | `crash_detection` | RFC 6290 |
//! | `ike_intermediate` | RFC 9242, RFC 9370 |
//! | `ike_followup_ke` | RFC 9370 |
//! | `ike_session_resume` | RFC 5723 |
//! | `informational` | §1.4 |
//! | `mobike` | RFC 4555 |

pub(crate) mod authentication;
pub(crate) mod crash_detection;
pub(crate) mod create_child_initiator;
pub(crate) mod create_child_responder;
pub(crate) mod ike_auth_initiator;
pub(crate) mod ike_auth_responder;
pub(crate) mod ike_followup_ke;
pub(crate) mod ike_intermediate;
pub(crate) mod ike_sa_init_initiator;
pub(crate) mod ike_sa_init_responder;
pub(crate) mod ike_session_resume;
pub(crate) mod informational;
pub(crate) mod mobike;
pub(crate) mod rekey_ike;

use sa::SaId;

use crate::api::{ChildRequest, End};
use crate::path::Path;
use create_child_initiator::CreateChild;
use ike_followup_ke::Followup;
use mobike::Update;
use rekey_ike::RekeyIke;

/// What an outstanding request is about.
#[derive(Debug)]
pub(crate) enum Pending {
    /// IKE_AUTH; the rest stands in the state.
    Auth,
    /// IKE_INTERMEDIATE; the rest stands in the state.
    Intermediate,
    /// Nothing but an answer is wanted.
    Liveness,
    /// RFC 4555: UPDATE_SA_ADDRESSES.
    UpdateAddresses(Box<Update>),
    /// RFC 4555: our addresses, for the peer to choose from.
    TellAddresses(Path),
    /// Where we are, under an SA that may have no successor yet in the peer's eyes.
    TellOld,
    /// RFC 4555: a return routability check.
    CheckAddress(Box<Update>),
    /// Delete of a child.
    DeleteChild(SaId, End),
    /// Delete of a child that never came to be.
    DeleteUnborn,
    /// Delete of the IKE SA and everything under it.
    DeleteIke(End),
    /// Delete of an IKE SA that has a successor.
    DeleteOld,
    /// A new child, or a child's replacement.
    CreateChild(Box<CreateChild>),
    /// The IKE SA's own replacement.
    RekeyIke(Box<RekeyIke>),
    /// IKE_FOLLOWUP_KE: one more key exchange for a child or a successor.
    Followup(Box<Followup>),
}

impl Pending {
    /// Whether the peer may have a child already of which we are still to hear.
    pub(crate) fn makes_child(&self) -> bool {
        match self {
            Self::CreateChild(_) => true,
            Self::Followup(followup) => !followup.rekeys_ike(),
            _ => false,
        }
    }

    /// What to ask the successor instead, when the peer replaces the IKE SA before it answers. An
    /// answer that comes yet is of no use: it has the old SPIs in its NAT detection, and says
    /// nothing of what the peer has heard since.
    pub(crate) fn ask_of_successor(&self) -> Option<Ask> {
        match self {
            Self::Liveness => Some(Ask::Liveness),
            Self::UpdateAddresses(_) => Some(Ask::UpdateAddresses),
            Self::TellAddresses(_) => Some(Ask::TellAddresses),
            Self::CheckAddress(_) => Some(Ask::CheckAddress),
            // While one of these is outstanding nothing is replaced, or it ends with the SA.
            Self::Auth
            | Self::Intermediate
            | Self::TellOld
            | Self::DeleteChild(..)
            | Self::DeleteUnborn
            | Self::DeleteIke(_)
            | Self::DeleteOld
            | Self::CreateChild(_)
            | Self::RekeyIke(_)
            | Self::Followup(_) => None,
        }
    }

    /// Whether the IKE SA's replacement is under way.
    pub(crate) fn rekeys_ike(&self) -> bool {
        match self {
            Self::RekeyIke(_) => true,
            Self::Followup(followup) => followup.rekeys_ike(),
            _ => false,
        }
    }
}

/// What we want to ask as soon as the window is free.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Ask {
    Liveness,
    TellToken,
    UpdateAddresses,
    TellAddresses,
    CheckAddress,
    DeleteChild(SaId, End),
    DeleteUnborn(sa::Spi),
    DeleteIke(End),
    CreateChild(ChildRequest),
    RekeyChild(SaId),
    RekeyIke,
}
