//! RSA keys in DNS: reverse names, `X-IPsec-Server` and IPSECKEY records, and who may speak for
//! whom (RFC 4322 §2, §5; RFC 4025; RFC 3110).
//!
//! Everything here is a pure function over bytes that an attacker may have written: nothing is
//! looked up, nothing panics, and what an answer allows is decided in two places, [`decision`] for
//! callers and [`authority`] for the called.
//!
//! - [`name`]: domain names, the reverse names of addresses.
//! - [`key`]: public keys and their forms; [`pem`]: keys in files.
//! - [`record`]: what the records have in common; [`txt`], [`ipseckey`] and [`old_key`]: each read
//!   and written.
//! - [`answer`]: what a lookup came back with, as data.
//! - [`decision`]: the decision table: what an answer means for a destination.
//! - [`authority`]: who may speak for an address, and the proof, [`Authorized`].
//!
//! ```
//! use std::time::Duration;
//! use dnskeys::{Answer, Name, Reason, RecordSet, Rules, Security, Strictness, Verdict, decide};
//!
//! // At 11.2.0.192.in-addr.arpa. there is a record that names a gateway.
//! let dest = "192.0.2.11".parse()?;
//! let mut records = RecordSet::default();
//! records.add_txt_strings(&["X-IPsec-Server(10)=198.51.100.1"]);
//! let answer = |security| {
//!     Answer::new(Name::reverse(dest), security, Duration::from_secs(3600), records.clone())
//! };
//!
//! // Signed: the gateway is called (its own record has the key, because this one has none).
//! let signed = decide(dest, &answer(Security::Secure), &Rules::default(), Strictness::Permissive);
//! assert!(matches!(signed, Verdict::Negotiate { .. }));
//!
//! // Unsigned: nobody is sent to a third address.
//! let unsigned = decide(dest, &answer(Security::Insecure), &Rules::default(), Strictness::Permissive);
//! assert!(matches!(unsigned, Verdict::Clear { reason: Reason::UnsignedDelegation, .. }));
//! # Ok::<(), std::net::AddrParseError>(())
//! ```
#![forbid(unsafe_code)]

pub mod answer;
pub mod authority;
pub mod decision;
pub mod ipseckey;
pub mod key;
pub mod name;
pub mod old_key;
pub mod pem;
pub mod record;
pub mod txt;

#[cfg(test)]
mod fixtures;

pub use answer::{Answer, Failure, Outcome, RecordSet, Security};
pub use authority::{
    Authorized, Claim, Refusal, Speaker, admit_anonymous, authorize, authorize_lease,
    is_known_by_name,
};
pub use decision::{
    Candidate, Life, Reason, RequireDnssec, Rules, Strictness, Verdict, authenticates, decide,
    unusable,
};
pub use ipseckey::Ipseckey;
pub use key::{KeyError, PublicKey, RsaKey, Weakness};
pub use name::{Classless, Name, NameError};
pub use old_key::OldKey;
pub use record::{Gateway, GatewayRecord, Malformed, Source};
pub use txt::{GatewayError, ServerTxt, TxtGateway};
