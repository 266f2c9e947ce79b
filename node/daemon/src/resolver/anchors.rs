//! Trust anchors: DNSKEY or DS records in master-file form (RFC 1035 §5.1; RFC 4034 §2.2, §5.3).

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dnskeys::Failure;
use hickory_proto::dnssec::rdata::{DNSKEY, DNSSECRData, DS};
use hickory_proto::dnssec::{Algorithm, DigestType, PublicKeyBuf, TrustAnchors};
use hickory_proto::rr::{LowerName, Name, RData};

use super::upstream::Upstream;

/// A trust anchor file larger than this is not one.
const MAX_FILE: u64 = 1 << 20;

/// What is wrong with a trust anchor file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnchorError {
    /// It cannot be read.
    #[error("{0}")]
    Read(#[from] std::io::Error),
    /// A line is neither a DNSKEY nor a DS record.
    #[error("record {record}: {why}")]
    Syntax {
        /// Which record, counted from 1.
        record: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// There is none in it.
    #[error("no DNSKEY or DS record in it")]
    Empty,
}

/// Where trust starts: keys, and digests of keys yet to be fetched.
#[derive(Clone)]
pub(super) struct Anchors {
    keys: TrustAnchors,
    digests: Vec<(Name, DS)>,
}

impl Anchors {
    /// The keys of the root, as built into the validator.
    pub(super) fn root() -> Self {
        Self { keys: TrustAnchors::default(), digests: Vec::new() }
    }

    /// Reads a file of DNSKEY and DS records.
    pub(super) fn from_file(path: &Path) -> Result<Self, AnchorError> {
        if std::fs::metadata(path)?.len() > MAX_FILE {
            return Err(AnchorError::Syntax { record: 1, why: "the file is far too large" });
        }
        Self::parse(&std::fs::read_to_string(path)?)
    }

    fn parse(text: &str) -> Result<Self, AnchorError> {
        let mut anchors = Self { keys: TrustAnchors::empty(), digests: Vec::new() };
        let mut count = 0;
        for fields in records(text) {
            count += 1;
            anchors.add(&fields).map_err(|why| AnchorError::Syntax { record: count, why })?;
        }
        if count == 0 { Err(AnchorError::Empty) } else { Ok(anchors) }
    }

    fn add(&mut self, fields: &[&str]) -> Result<(), &'static str> {
        let (owner, rest) = fields.split_first().ok_or("empty record")?;
        let owner = Name::from_ascii(owner).map_err(|_| "the owner is not a domain name")?;
        // TTL and class may stand in either order, or be missing (RFC 1035 §5.1).
        let mut rest = rest;
        while let Some((first, more)) = rest.split_first() {
            let is_ttl = first.starts_with(|c: char| c.is_ascii_digit());
            if !is_ttl && !first.eq_ignore_ascii_case("IN") {
                break;
            }
            rest = more;
        }
        let (kind, rdata) = rest.split_first().ok_or("no record type")?;
        if kind.eq_ignore_ascii_case("DNSKEY") {
            let key = dnskey(rdata)?;
            self.keys.insert_with_name(key.public_key(), LowerName::new(&owner));
        } else if kind.eq_ignore_ascii_case("DS") {
            self.digests.push((owner, ds(rdata)?));
        } else {
            return Err("neither DNSKEY nor DS");
        }
        Ok(())
    }

    /// Whether nothing has to be fetched to use them.
    pub(super) fn is_complete(&self) -> bool {
        self.digests.is_empty()
    }

    /// The keys, those behind DS records fetched. The digest proves a key, so where it came from
    /// does not matter; a digest that no key matches contributes nothing, and everything under
    /// its zone is then bogus.
    pub(super) async fn resolve(&self, upstream: &Upstream) -> Result<TrustAnchors, Failure> {
        let mut keys = self.keys.clone();
        for (zone, ds) in &self.digests {
            let response = upstream.keys(zone).await?;
            for record in response.answers.iter().filter(|r| r.name == *zone) {
                let RData::DNSSEC(DNSSECRData::DNSKEY(key)) = &record.data else { continue };
                if key.zone_key() && !key.revoke() && ds.covers(zone, key).unwrap_or(false) {
                    keys.insert_with_name(key.public_key(), LowerName::new(zone));
                }
            }
        }
        Ok(keys)
    }
}

/// The fields of each record: comments dropped, parentheses joined (RFC 1035 §5.1).
fn records(text: &str) -> Vec<Vec<&str>> {
    let mut all = Vec::new();
    let mut fields: Vec<&str> = Vec::new();
    let mut open = 0_usize;
    for line in text.lines() {
        let line = line.split(';').next().unwrap_or_default();
        for word in line.split_whitespace() {
            open += word.matches('(').count();
            open = open.saturating_sub(word.matches(')').count());
            let word = word.trim_matches(['(', ')']);
            if !word.is_empty() {
                fields.push(word);
            }
        }
        // Directives say nothing that a file with full names needs.
        let directive = fields.first().is_some_and(|word| word.starts_with('$'));
        if open == 0 && directive {
            fields.clear();
        } else if open == 0 && !fields.is_empty() {
            all.push(std::mem::take(&mut fields));
        }
    }
    if !fields.is_empty() {
        all.push(fields);
    }
    all
}

fn dnskey(fields: &[&str]) -> Result<DNSKEY, &'static str> {
    let [flags, protocol, algorithm, key @ ..] = fields else {
        return Err("DNSKEY: fields missing");
    };
    let flags: u16 = flags.parse().map_err(|_| "DNSKEY: flags are not a number")?;
    if *protocol != "3" {
        return Err("DNSKEY: protocol must be 3");
    }
    let algorithm = supported(algorithm)?;
    let key = STANDARD.decode(key.concat()).map_err(|_| "DNSKEY: the key is not base64")?;
    let key = DNSKEY::with_flags(flags, PublicKeyBuf::new(key, algorithm));
    if !key.zone_key() || key.revoke() {
        return Err("DNSKEY: not a zone key, or revoked");
    }
    Ok(key)
}

fn ds(fields: &[&str]) -> Result<DS, &'static str> {
    let [tag, algorithm, digest_type, digest @ ..] = fields else {
        return Err("DS: fields missing");
    };
    let tag: u16 = tag.parse().map_err(|_| "DS: key tag is not a number")?;
    let algorithm = supported(algorithm)?;
    let (digest_type, len) = match *digest_type {
        "2" => (DigestType::SHA256, 32),
        "4" => (DigestType::SHA384, 48),
        _ => return Err("DS: digest type must be 2 (SHA-256) or 4 (SHA-384)"),
    };
    let digest = hex(&digest.concat()).ok_or("DS: the digest is not hexadecimal")?;
    if digest.len() != len {
        return Err("DS: the digest has the wrong length");
    }
    Ok(DS::new(tag, algorithm, digest_type, digest))
}

fn supported(field: &str) -> Result<Algorithm, &'static str> {
    let number: u8 = field.parse().map_err(|_| "the algorithm is not a number")?;
    let algorithm = Algorithm::from_u8(number);
    algorithm.is_supported().then_some(algorithm).ok_or("this algorithm is not supported")
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    let (pairs, rest) = digits.as_ref()?.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D";

    #[test]
    fn both_forms_are_read() {
        let text = format!(
            "; the root\n$TTL 3600\n. 172800 IN DS 20326 8 2 {DIGEST} ; comment\n\
             example. IN 60 DNSKEY ( 257 3 13\n  mdsswUyr3DPW132mOi8V9xESWE8jTo0dxCjjnopKl+GqJxpVXckHAe\n\
             F+KkxLbxILfDLUT0rAK9iUzy1L53eKGQ== )\n"
        );
        let anchors = Anchors::parse(&text).unwrap();
        assert_eq!(anchors.digests.len(), 1);
        assert_eq!(anchors.digests[0].1.digest().len(), 32);
        assert!(!anchors.is_complete());
        assert!(anchors.keys.is_empty(), "no root key was given as such");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let why = |text: &str| match Anchors::parse(text).err() {
            Some(AnchorError::Syntax { why, .. }) => why,
            Some(AnchorError::Empty) => "empty",
            other => panic!("{other:?}"),
        };
        assert_eq!(why("; nothing\n"), "empty");
        assert_eq!(why(". IN A 192.0.2.1"), "neither DNSKEY nor DS");
        assert_eq!(why(". IN DS 1 8 1 00"), "DS: digest type must be 2 (SHA-256) or 4 (SHA-384)");
        assert_eq!(why(". IN DS 1 8 2 0011"), "DS: the digest has the wrong length");
        assert_eq!(why(". IN DNSKEY 257 3 1 AQAB"), "this algorithm is not supported");
        assert_eq!(why(". IN DNSKEY 385 3 8 AQAB"), "DNSKEY: not a zone key, or revoked");
    }
}
