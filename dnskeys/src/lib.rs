//! RSA keys in DNS: reverse names, `X-IPsec-Server` and IPSECKEY records, and who may speak for
//! whom (RFC 4322 §2, §5; RFC 4025; RFC 3110).
//!
//! Everything here is a pure function over bytes that an attacker may have written: nothing is
//! looked up, nothing panics, and what an answer allows is decided in one place, [`authority`].
//!
//! - [`name`]: domain names, the reverse names of addresses.
//! - [`key`]: public keys and their forms; [`pem`]: keys in files.
//! - [`record`]: what the records have in common; [`txt`], [`ipseckey`] and [`old_key`]: each read
//!   and written.
//! - [`answer`]: what a lookup came back with, as data.
//! - [`authority`]: the decision table, and the proof [`Authorized`].
#![forbid(unsafe_code)]

pub mod answer;
pub mod authority;
pub mod ipseckey;
pub mod key;
pub mod name;
pub mod old_key;
pub mod pem;
pub mod record;
pub mod txt;

pub use answer::{Answer, Failure, Outcome, RecordSet, Security};
pub use authority::{
    Authorized, Candidate, Claim, Life, Reason, Refusal, RequireDnssec, Rules, Speaker, Strictness,
    Verdict, authenticates, authorize, decide, unusable,
};
pub use ipseckey::Ipseckey;
pub use key::{KeyError, PublicKey, RsaKey, Weakness};
pub use name::{Classless, Name, NameError};
pub use old_key::OldKey;
pub use record::{Gateway, GatewayRecord, Malformed, Source};
pub use txt::{GatewayError, ServerTxt, TxtGateway};
