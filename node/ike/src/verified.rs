//! The proof that a peer's AUTH payload was checked (RFC 7296 §2.15, RFC 7427, RFC 7619, RFC 5723).
//!
//! Nothing outside this module can make a [`Verified`], and nothing inside makes one but behind the
//! `?` of a check; an established IKE SA, its children and [`crate::Event::Established`] all want one.

use subtle::ConstantTimeEq;

use crate::api::{Credential, Identity, PublicKey};
use crate::crypto::{NotVerified, Secret, is_own, read_auth, verify};
use crate::exchange::authentication::{AUTH_NULL, AUTH_SHARED_KEY};
use crate::ike_sa::IkeSa;
use crate::message::{Authentication, Identification};

/// Who a peer has proved to be, and with what. To have one is to know that the check was made: it
/// comes out of [`crate::Event::Established`] and from nowhere else, and there are never two of it.
///
/// ```
/// # use ike::{Credential, Event, Identity, Verified};
/// fn who(event: Event) -> Option<Verified> {
///     match event {
///         Event::Established { peer, .. } => Some(peer),
///         _ => None,
///     }
/// }
/// fn is_anonymous(peer: &Verified) -> bool {
///     (peer.identity(), peer.credential()) == (&Identity::Null, &Credential::Null)
/// }
/// ```
///
/// It cannot be made of its parts,
///
/// ```compile_fail,E0451
/// # use ike::{Credential, Identity, Verified};
/// let peer = Verified { identity: Identity::Null, credential: Credential::Null };
/// ```
///
/// nor be changed,
///
/// ```compile_fail,E0616
/// # use ike::{Identity, Verified};
/// fn disguise(peer: &mut Verified) {
///     peer.identity = Identity::Null;
/// }
/// ```
///
/// nor come from another or from nothing.
///
/// ```compile_fail,E0277
/// # use ike::Verified;
/// fn copied<T: Clone>() {}
/// copied::<Verified>();
/// ```
///
/// ```compile_fail,E0277
/// # use ike::Verified;
/// fn from_nothing<T: Default>() {}
/// from_nothing::<Verified>();
/// ```
#[derive(PartialEq, Eq, Debug)]
#[must_use]
pub struct Verified {
    identity: Identity,
    credential: Credential,
}

impl Verified {
    /// Who it is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What it proved that with: now, or when it was given the ticket that it came back with.
    #[must_use]
    pub fn credential(&self) -> &Credential {
        &self.credential
    }
}

/// An AUTH payload to be checked, with what it has to cover.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    sa: &'a IkeSa,
    id: &'a Identification,
    auth: &'a Authentication,
    /// InitiatorSignedOctets or ResponderSignedOctets.
    octets: Vec<u8>,
}

impl<'a> Claim<'a> {
    /// That the other end of an SA is `id`; its first message and our nonce are covered.
    pub(crate) fn new(
        sa: &'a IkeSa,
        (message, nonce): (&[u8], &[u8]),
        id: &'a Identification,
        auth: &'a Authentication,
    ) -> Self {
        let octets = sa.signed_octets(!sa.initiator, message, nonce, &id.octets);
        Self { sa, id, auth, octets }
    }

    /// Whether this credential proves it. Each answers to its own methods only, and whoever is
    /// anonymous says so: a name is worth a proof.
    pub(crate) fn check(
        &self,
        own: &PublicKey,
        credential: &Credential,
    ) -> Result<Verified, NotVerified> {
        let keys = &self.sa.keys;
        let is_anonymous = self.id.identity == Identity::Null;
        match (credential, self.auth.method) {
            (Credential::Key(key), _) if !is_anonymous && !is_own(own, key) => {
                let (scheme, signature) = read_auth(self.auth).ok_or(NotVerified)?;
                verify(key, scheme, &self.octets, signature)?;
            }
            (Credential::Secret(secret), AUTH_SHARED_KEY) if !is_anonymous => {
                let secret = Some(secret.octets());
                self.is_mac(&keys.shared_auth(!self.sa.initiator, secret, &self.octets))?;
            }
            (Credential::Null, AUTH_NULL) if is_anonymous => {
                self.is_mac(&keys.shared_auth(!self.sa.initiator, None, &self.octets))?;
            }
            (Credential::Key(_) | Credential::Secret(_) | Credential::Null, _) => {
                return Err(NotVerified);
            }
        }
        Ok(self.verified(credential))
    }

    /// Whether it comes from the other end of the SA that this one was made of, which proved itself
    /// with this credential then.
    pub(crate) fn check_resumed(&self, then: &Credential) -> Result<Verified, NotVerified> {
        if self.auth.method != AUTH_SHARED_KEY {
            return Err(NotVerified);
        }
        self.is_mac(&self.sa.keys.resumed_auth(!self.sa.initiator, &self.octets))?;
        Ok(self.verified(then))
    }

    fn is_mac(&self, expected: &Secret) -> Result<(), NotVerified> {
        let same = expected.ct_eq(&self.auth.data);
        bool::from(same).then_some(()).ok_or(NotVerified)
    }

    /// The only place where one is made.
    fn verified(&self, credential: &Credential) -> Verified {
        Verified { identity: self.id.identity.clone(), credential: credential.clone() }
    }
}
