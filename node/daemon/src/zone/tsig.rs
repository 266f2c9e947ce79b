//! TSIG keys from files (RFC 8945), as `tsig-keygen` writes them or as dig takes them.

use std::path::Path;
use std::str::FromStr as _;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hickory_proto::rr::rdata::tsig::TsigAlgorithm;
use hickory_proto::rr::{Name, TSigner};
use zeroize::Zeroizing;

/// Reads `key "NAME" { algorithm ALG; secret "BASE64"; };` or `ALG:NAME:BASE64`.
pub(crate) fn read(path: &Path) -> anyhow::Result<TSigner> {
    let name = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
    parse(&Zeroizing::new(text)).with_context(|| format!("{name}: no TSIG key"))
}

fn parse(text: &str) -> anyhow::Result<TSigner> {
    let text: String = text.lines().map(without_comment).collect::<Vec<_>>().join(" ");
    let text = Zeroizing::new(text);
    let words: Vec<&str> = text
        .split(|c: char| c.is_whitespace() || matches!(c, '{' | '}' | ';' | '"'))
        .filter(|word| !word.is_empty())
        .collect();
    let (name, algorithm, secret) = match words.as_slice() {
        ["key", name, rest @ ..] => {
            let value = |wanted: &str| {
                let at = rest.iter().position(|word| *word == wanted)?;
                rest.get(at + 1).copied()
            };
            let algorithm = value("algorithm").context("expected \"algorithm\"")?;
            (*name, algorithm, value("secret").context("expected \"secret\"")?)
        }
        [line] => match line.split(':').collect::<Vec<_>>().as_slice() {
            [algorithm, name, secret] => (*name, *algorithm, *secret),
            _ => bail!("expected ALGORITHM:NAME:BASE64"),
        },
        _ => bail!("expected key \"NAME\" {{ algorithm ...; secret \"...\"; }};"),
    };
    let algorithm = match algorithm.to_ascii_lowercase().as_str() {
        "hmac-sha256" => TsigAlgorithm::HmacSha256,
        "hmac-sha384" => TsigAlgorithm::HmacSha384,
        "hmac-sha512" => TsigAlgorithm::HmacSha512,
        other => bail!("algorithm {other}: expected hmac-sha256, hmac-sha384 or hmac-sha512"),
    };
    let secret = BASE64.decode(secret).context("secret: expected base 64")?;
    let name = Name::from_str(name).context("name of the key")?;
    TSigner::new(secret, algorithm, name, FUDGE).context("key")
}

fn without_comment(line: &str) -> &str {
    let end = ["//", "#"].iter().filter_map(|mark| line.find(mark)).min();
    // Base 64 can hold two slashes in a row, so only a mark outside of quotation marks counts.
    match end {
        Some(end) if line.get(..end).is_some_and(|before| before.matches('"').count() % 2 == 0) => {
            line.get(..end).unwrap_or(line)
        }
        _ => line,
    }
}

/// Seconds that clocks may differ (RFC 8945 §10).
const FUDGE: u16 = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms() {
        let bind = "# made by tsig-keygen\nkey \"upd.example\" {\n\talgorithm hmac-sha256;\n\t\
                    secret \"c2VjcmV0//8=\";\n};\n";
        let key = parse(bind).unwrap();
        assert_eq!(key.signer_name().to_string(), "upd.example.");
        assert_eq!(key.key(), b"secret\xff\xff");
        assert_eq!(parse("hmac-sha512:k:c2VjcmV0").unwrap().key(), b"secret");
        for bad in ["", "key x { secret y; };", "hmac-md5:k:c2VjcmV0", "hmac-sha256:k:***"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
