//! The AUTH payload, made and checked: signatures, shared secrets, and nothing at all
//! (RFC 7296 §2.15, RFC 7427, RFC 7619).

use subtle::ConstantTimeEq;

use crate::api::{Credential, Identity, PublicKey, SharedSecret, SignatureScheme};
use crate::crypto::{IkeKeys, is_own, read_auth, scheme_for, verify};
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

/// An AUTH payload to be checked, with what it has to cover.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim<'a> {
    pub(crate) keys: &'a IkeKeys,
    pub(crate) by_initiator: bool,
    pub(crate) identity: &'a Identity,
    pub(crate) auth: &'a Authentication,
    /// InitiatorSignedOctets or ResponderSignedOctets.
    pub(crate) octets: &'a [u8],
}

impl Claim<'_> {
    /// Whether it comes from the other end of the SA that this one was made of.
    pub(crate) fn is_resumed(&self) -> bool {
        let expected = self.keys.resumed_auth(self.by_initiator, self.octets);
        self.auth.method == AUTH_SHARED_KEY && bool::from(expected.ct_eq(&self.auth.data))
    }

    /// Whether this credential proves it. Each answers to its own methods only, and whoever is
    /// anonymous says so: a name is worth a proof.
    pub(crate) fn is_proven_by(&self, own: &PublicKey, credential: &Credential) -> bool {
        let mac_fits = |secret: Option<&[u8]>| {
            let expected = self.keys.shared_auth(self.by_initiator, secret, self.octets);
            bool::from(expected.ct_eq(&self.auth.data))
        };
        match (credential, self.auth.method) {
            (Credential::Key(key), _) => {
                *self.identity != Identity::Null
                    && !is_own(own, key)
                    && read_auth(self.auth).is_some_and(|(scheme, signature)| {
                        verify(key, scheme, self.octets, signature)
                    })
            }
            (Credential::Secret(secret), AUTH_SHARED_KEY) => {
                *self.identity != Identity::Null && mac_fits(Some(secret.octets()))
            }
            (Credential::Null, AUTH_NULL) => *self.identity == Identity::Null && mac_fits(None),
            (Credential::Secret(_) | Credential::Null, _) => false,
        }
    }
}

/// "Shared Key Message Integrity Code" (RFC 7296 §3.8).
const AUTH_SHARED_KEY: u8 = 2;
/// "NULL Authentication" (RFC 7619 §2.1).
const AUTH_NULL: u8 = 13;
