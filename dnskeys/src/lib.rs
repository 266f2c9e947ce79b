//! RSA keys in DNS: reverse names, `X-IPsec-Server` and IPSECKEY records, and who may speak for
//! whom (RFC 4322 §2, §5; RFC 4025; RFC 3110).
//!
//! Everything here is a pure function over bytes that an attacker may have written: nothing is
//! looked up, nothing panics, and what an answer allows is decided in one place, [`authority`].
//!
//! - [`name`]: domain names, the reverse names of addresses.
//! - [`key`]: public keys and their forms.
//! - [`record`]: TXT, IPSECKEY and the old KEY records, read and written.
//! - [`answer`]: what a lookup came back with, as data.
//! - [`authority`]: the decision table, and the proof [`Authorized`].
#![forbid(unsafe_code)]

pub mod answer;
pub mod authority;
pub mod key;
pub mod name;
pub mod record;

pub use answer::{Answer, Failure, Outcome, RecordSet, Security};
pub use authority::{
    Authorized, Candidate, Claim, Life, Reason, Refusal, RequireDnssec, Rules, Speaker, Strictness,
    Verdict, authorize, decide,
};
pub use key::{KeyError, PublicKey, RsaKey};
pub use name::{Name, NameError};
pub use record::{Gateway, GatewayRecord, Malformed, Source};
