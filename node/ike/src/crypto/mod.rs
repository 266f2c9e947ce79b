//! What the exchanges need of cryptography; every primitive comes from
//! aws-lc-rs, but for the arithmetic of the MODP groups, which it does not offer.

mod agreement;
mod cbc;
mod kem;
mod modp;
mod schedule;
mod seal;
mod secret;
mod signature;
mod suite;
#[cfg(test)]
mod tests;

pub(crate) use agreement::{Agreement, Group};
pub(crate) use kem::{AdditionalKe, Decapsulation, encapsulate};
pub(crate) use schedule::{CipherPair, IkeKeys, Mix, Prf, child_keys};
pub(crate) use seal::{IkeCipher, Opener, Sealer};
pub(crate) use secret::Secret;
pub(crate) use signature::{
    HASH_ALGORITHMS, NotVerified, is_own, key_is_usable, read_auth, scheme_for, verify, write_auth,
};
pub(crate) use suite::{
    EspChoice, EspOffer, IkeSuite, Suites, answer_esp, choose_esp, choose_ike, confirm_esp,
    confirm_ike, offer_esp, offer_ike,
};

/// The library refused something that cannot be refused with honest inputs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CryptoFailure;
