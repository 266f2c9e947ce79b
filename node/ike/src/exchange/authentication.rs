//! Our own AUTH payload: signatures, shared secrets, and nothing at all (RFC 7296 §2.15, RFC 7427,
//! RFC 7619). The peer's is checked in [`crate::verified`].

use crate::api::{Credential, Identity, PublicKey, SharedSecret, SignatureScheme};
use crate::crypto::{IkeKeys, scheme_for};
use crate::message::Authentication;

/// How we prove who we are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Proof {
    /// With our key, which is not here.
    Signature(SignatureScheme),
    /// With a secret that the peer knows too.
    Secret(SharedSecret),
    /// Not at all.
    Null,
    /// With an SA that both had before (RFC 5723).
    Resumed,
}

impl Proof {
    /// What suits our identity and the peer's way of proving its own. `None` if the peer announced
    /// no hash algorithm that we can sign with.
    pub(crate) fn ours(
        key: &PublicKey,
        identity: &Identity,
        theirs: Option<&Credential>,
        announced: &[u16],
    ) -> Option<Self> {
        match (identity, theirs) {
            (Identity::Null, _) => Some(Self::Null),
            (_, Some(Credential::Secret(secret))) => Some(Self::Secret(secret.clone())),
            _ => scheme_for(key, announced).map(Self::Signature),
        }
    }

    /// Makes the AUTH payload, unless it takes a signature.
    pub(crate) fn prepare(self, keys: &IkeKeys, by_initiator: bool, octets: &[u8]) -> Prepared {
        let mac = |secret| keys.shared_auth(by_initiator, secret, octets).to_vec();
        Prepared::Ready(match self {
            Self::Signature(scheme) => return Prepared::ToSign(scheme),
            Self::Secret(secret) => {
                Authentication { method: AUTH_SHARED_KEY, data: mac(Some(secret.octets())) }
            }
            Self::Null => Authentication { method: AUTH_NULL, data: mac(None) },
            Self::Resumed => {
                let data = keys.resumed_auth(by_initiator, octets).to_vec();
                Authentication { method: AUTH_SHARED_KEY, data }
            }
        })
    }
}

/// Our AUTH payload.
#[derive(Debug)]
pub(crate) enum Prepared {
    Ready(Authentication),
    /// It waits for our key.
    ToSign(SignatureScheme),
}

/// "Shared Key Message Integrity Code" (RFC 7296 §3.8).
pub(crate) const AUTH_SHARED_KEY: u8 = 2;
/// "NULL Authentication" (RFC 7619 §2.1).
pub(crate) const AUTH_NULL: u8 = 13;
