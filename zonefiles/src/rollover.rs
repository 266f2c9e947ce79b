//! Replacing a key without anybody noticing (RFC 4322 §5.4): publish the new one beside the old,
//! wait until no cache holds the old set alone, switch, withdraw the old one.
//!
//! ```text
//! Publish ──► Spread ──► Switch ──► Fade ──► Withdraw ──► Done
//!            (wait TTL)           (wait TTL)
//! ```
//!
//! The second wait is for peers that looked the key up just before the switch and negotiate with
//! what they have: during it both keys are accepted.

use dnskeys::{Ipseckey, PublicKey, RsaKey, ServerTxt};
use serde::{Deserialize, Serialize};

use crate::record::Record;
use crate::rtype::Rtype;

/// Where a rollover stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The new key is to be published beside the old one.
    Publish,
    /// It is published; caches may still hold the old set.
    Spread {
        /// When that ends, in seconds since 1970.
        until: u64,
    },
    /// Everybody can know the new key: the daemon may be given it.
    Switch,
    /// The daemon uses the new key; negotiations with the old one run out.
    Fade {
        /// When that ends, in seconds since 1970.
        until: u64,
    },
    /// The old key is to be withdrawn.
    Withdraw,
    /// Nothing is left to do.
    Done,
}

/// What to do now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Publish the records with the new key.
    Publish,
    /// Nothing for so many seconds.
    Wait(u64),
    /// Give the daemon the new key.
    Switch,
    /// Remove the records with the old key.
    Withdraw,
    /// Nothing more.
    Done,
}

impl Phase {
    /// What is to be done at `now` (seconds since 1970), and the phase that asks for it.
    #[must_use]
    pub fn step(self, now: u64) -> (Self, Step) {
        match self {
            Self::Publish => (self, Step::Publish),
            Self::Spread { until } if now < until => (self, Step::Wait(until - now)),
            Self::Spread { .. } | Self::Switch => (Self::Switch, Step::Switch),
            Self::Fade { until } if now < until => (self, Step::Wait(until - now)),
            Self::Fade { .. } | Self::Withdraw => (Self::Withdraw, Step::Withdraw),
            Self::Done => (self, Step::Done),
        }
    }

    /// The phase after its step was done at `now`; waits last `wait` seconds.
    #[must_use]
    pub fn done(self, now: u64, wait: u64) -> Self {
        match self {
            Self::Publish => Self::Spread { until: now.saturating_add(wait) },
            Self::Switch => Self::Fade { until: now.saturating_add(wait) },
            Self::Withdraw => Self::Done,
            Self::Spread { .. } | Self::Fade { .. } | Self::Done => self,
        }
    }
}

/// The same record with `new` instead of `old`; `None` if it does not hold the old key.
#[must_use]
pub fn with_key(record: &Record, old: &RsaKey, new: &RsaKey) -> Option<Record> {
    let rdata = match record.rtype {
        Rtype::TXT => {
            let txt = ServerTxt::from_rdata(&record.rdata).ok()??;
            txt.key.as_ref().filter(|key| *key == old)?;
            ServerTxt { key: Some(new.clone()), ..txt }.to_rdata()
        }
        Rtype::IPSECKEY => {
            let ipseckey = Ipseckey::from_rdata(&record.rdata).ok()?;
            ipseckey.key.as_ref().and_then(PublicKey::rsa).filter(|key| *key == old)?;
            Ipseckey { key: Some(PublicKey::Rsa(new.clone())), ..ipseckey }.to_rdata()
        }
        _ => return None,
    };
    Some(Record::new(record.owner.clone(), record.ttl, record.rtype, rdata))
}

/// How long caches may hold an answer about these records: the longest TTL, or that of "there is
/// none", whichever is longer.
#[must_use]
pub fn cache_life<'a>(records: impl IntoIterator<Item = &'a Record>, minimum: u32) -> u64 {
    let longest = records.into_iter().map(|record| record.ttl).max().unwrap_or(0);
    u64::from(longest.max(minimum))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollover_from_start_to_end() {
        let (mut now, wait) = (1_000, 300);
        let mut phase = Phase::Publish;
        let mut seen = Vec::new();
        while phase != Phase::Done {
            let (current, step) = phase.step(now);
            // Asking twice changes nothing.
            assert_eq!(current.step(now), (current, step));
            seen.push(step);
            phase = match step {
                Step::Wait(seconds) => {
                    now += seconds;
                    current
                }
                _ => current.done(now, wait),
            };
        }
        let expected =
            [Step::Publish, Step::Wait(300), Step::Switch, Step::Wait(300), Step::Withdraw];
        assert_eq!(seen, expected);
        assert_eq!(now, 1_600);
    }

    #[test]
    fn only_records_with_the_old_key_change() {
        let key = |last| {
            let mut modulus = vec![0xc1; 256];
            modulus[255] = last;
            RsaKey::new(&[1, 0, 1], &modulus).unwrap()
        };
        let (old, new) = (key(1), key(3));
        let host = crate::Host::own([192, 0, 2, 11].into(), old.clone());
        let owner = crate::Name::reverse(host.address);
        let records = host.records(&owner, 60, crate::Kinds::default());
        let renewed: Vec<Record> = records.iter().filter_map(|r| with_key(r, &old, &new)).collect();
        let expected = crate::Host { key: Some(new.clone()), ..host };
        assert_eq!(renewed, expected.records(&owner, 60, crate::Kinds::default()));
        assert!(renewed.iter().all(|r| with_key(r, &old, &new).is_none()));
    }
}
