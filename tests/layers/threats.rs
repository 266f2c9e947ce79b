//! docs/THREATS.md says which test stands for which advisory; here it is held to that. And those
//! rows of it that are about what is not in the sources at all.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::{root, tests_and_their_words};

/// Every source file of ours.
fn sources(folders: &[&str]) -> Vec<(PathBuf, String)> {
    let mut files: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    let mut found = Vec::new();
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
    assert!(!found.is_empty());
    found
}

/// What ships: without tests, wherever they stand.
fn shipped(folders: &[&str]) -> Vec<(PathBuf, String)> {
    let is_test = |path: &Path| {
        path.components().any(|part| part.as_os_str().to_string_lossy().starts_with("tests"))
    };
    let mut found = sources(folders);
    found.retain(|(path, _)| !is_test(path.strip_prefix(root()).unwrap()));
    for (_, text) in &mut found {
        text.truncate(text.find("#[cfg(test)]\nmod ").unwrap_or(text.len()));
    }
    found
}

/// The comments and attributes right above `fn name(`, in one line; `None` if it stands nowhere.
fn comment_of(name: &str, text: &str) -> Option<String> {
    let at = text.find(&format!("fn {name}("))?;
    let above: Vec<&str> = text[..at]
        .lines()
        .rev()
        .skip(usize::from(!text[..at].ends_with('\n')))
        .map(str::trim)
        .take_while(|line| line.starts_with("///") || line.starts_with("#["))
        .collect();
    let words = above.iter().rev().map(|line| line.trim_start_matches("///").trim());
    Some(words.collect::<Vec<_>>().join(" "))
}

/// The advisories that a row stands for: all that have a number of somebody's, otherwise what stands
/// before the first comma.
fn advisories(cell: &str) -> Vec<String> {
    let pieces: Vec<&str> = cell.split(',').map(str::trim).collect();
    let numbered =
        |piece: &&&str| ["CVE-", "RUSTSEC-", "IKED "].iter().any(|of| piece.starts_with(of));
    let all: Vec<String> =
        pieces.iter().filter(numbered).map(|piece| (*piece).to_owned()).collect();
    if all.is_empty() { vec![pieces[0].to_owned()] } else { all }
}

/// Whether a comment names this advisory, and not one whose number only begins like it.
fn names(comment: &str, id: &str) -> bool {
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_digit());
    comment.match_indices(id).any(|(at, _)| ends(&comment[at + id.len()..]))
}

#[test]
fn every_row_has_its_test() {
    let sources = sources(&["node", "dnskeys", "zonefiles", "tests"]);
    let table = fs::read_to_string(root().join("docs/THREATS.md")).unwrap();
    let mut rows = 0;
    let mut failures = Vec::new();
    for line in table.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let Ok(number) = cells[0].parse::<usize>() else { continue };
        rows += 1;
        assert_eq!(number, rows, "rows are numbered one after the other");
        assert_eq!(cells.len(), 5, "row {number}");
        if cells[4].starts_with("cannot apply: ") {
            continue;
        }
        let ids = advisories(cells[1]);
        let tests: Vec<&str> = cells[4].split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "row {number} names no test");
        for test in tests {
            let comments: Vec<String> =
                sources.iter().filter_map(|(_, text)| comment_of(test, text)).collect();
            if comments.is_empty() {
                failures.push(format!("row {number}: {test} is nowhere"));
            } else if !comments.iter().any(|comment| ids.iter().any(|id| names(comment, id))) {
                failures.push(format!("row {number}: {test} names none of {ids:?}"));
            }
        }
        let of_row: Vec<String> = cells[4]
            .split('`')
            .skip(1)
            .step_by(2)
            .collect::<Vec<_>>()
            .iter()
            .flat_map(|test| sources.iter().filter_map(|(_, text)| comment_of(test, text)))
            .collect();
        for id in ids {
            if !of_row.iter().any(|comment| names(comment, &id)) {
                failures.push(format!("row {number}: none of its tests names {id}"));
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(rows >= 93, "{rows} rows");
}

/// The rows of "Attacks on opportunism": each names tests that name it, or says why not.
#[test]
fn every_attack_has_its_test() {
    let table = fs::read_to_string(root().join("docs/THREATS.md")).unwrap();
    let mut claims: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut rows = 0;
    for line in table.lines().filter(|line| line.starts_with("| A")) {
        rows += 1;
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!((cells.len(), cells[0]), (5, format!("A{rows}").as_str()), "{line}");
        let tests: Vec<&str> = cells[4].split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty() || cells[3].starts_with("not done: "), "{line}");
        for test in tests {
            claims.entry(test).or_default().insert(cells[0].to_owned());
        }
    }
    assert_eq!(rows, 48);
    assert!(table.contains(&format!("`A1` to `A{rows}`")));
    let tests = tests_and_their_words();
    for (name, claimed) in claims {
        let words = tests.get(name).unwrap_or_else(|| panic!("{claimed:?}: no test {name}"));
        let names_all = |words: &String| {
            let words: BTreeSet<&str> = words.split(|c: char| !c.is_ascii_alphanumeric()).collect();
            claimed.iter().all(|attack| words.contains(attack.as_str()))
        };
        assert!(words.iter().any(names_all), "no {name} names all of {claimed:?}");
    }
}

/// CVE-2010-3302, CVE-2010-3308, CVE-2023-28771: programs are started by the laboratory and by the
/// command that rolls keys over, each with its operator's own words. No part that hears peers starts any.
#[test]
fn no_peers_text_reaches_a_shell() {
    let may = ["node/daemon/src/lab/", "node/daemon/src/zone/rollover.rs"];
    for (path, text) in shipped(&["node", "dnskeys/src", "zonefiles/src"]) {
        let path = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        let starts = text.contains("Command::new(") && text.contains("process::");
        let inner = text.contains("#![cfg(test)]") || path.ends_with("kernel/namespace.rs");
        assert!(
            !starts || inner || may.iter().any(|may| path.starts_with(may)),
            "{path} starts a program"
        );
    }
}

/// CVE-2026-35334, RUSTSEC-2023-0071: the `rsa` crate knows the forms of keys, makes them, and does
/// nothing with them: its private operations take a time that tells of the key. Nobody decrypts
/// with RSA at all.
#[test]
fn nothing_is_decrypted_or_signed_with_the_rsa_crate() {
    let banned = [
        "rsa::pss",
        "rsa::pkcs1v15",
        "rsa::oaep",
        "rsa::traits",
        "rsa::hazmat",
        "Pkcs1v15",
        "Oaep",
        "rsa::Pss",
        "sign_with_rng",
        "rsa_decrypt",
        "PrivateDecryptingKey",
    ];
    for (path, text) in shipped(&["node", "dnskeys/src", "zonefiles/src"]) {
        for word in banned {
            assert!(!text.contains(word), "{}: {word}", path.display());
        }
    }
}

/// CVE-2023-50387, CVE-2023-50868, RUSTSEC-2026-0118, RUSTSEC-2026-0119, RUSTSEC-2026-0120,
/// RUSTSEC-2025-0006, RUSTSEC-2018-0007, RUSTSEC-2020-0001, RUSTSEC-2024-0344, RUSTSEC-2025-0009,
/// RUSTSEC-2025-0010, RUSTSEC-2026-0007, RUSTSEC-2025-0047: every version that is locked is one in
/// which these are mended. RUSTSEC-2026-0253, RUSTSEC-2026-0002, RUSTSEC-2020-0167: their crates are
/// none of ours.
#[test]
fn floors_under_dependencies_hold() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let lock: toml::Table = lock.parse().unwrap();
    let mut seen = 0;
    for package in lock["package"].as_array().unwrap() {
        let (name, version) =
            (package["name"].as_str().unwrap(), package["version"].as_str().unwrap());
        let numbers: Vec<u64> =
            version.split(['.', '-', '+']).map_while(|part| part.parse().ok()).collect();
        for (of, floor) in FLOORS {
            if name == of {
                seen += 1;
                assert!(numbers[..] >= floor[..], "{name} {version} is below {floor:?}");
            }
        }
        assert!(!ABSENT.contains(&name), "{name} is back");
    }
    assert!(seen >= 8, "{seen} of them are locked");
}

/// The lowest versions without a defect that would be ours.
const FLOORS: [(&str, [u64; 3]); 13] = [
    // KeyTrap and NSEC3 caps; the loops and the quadratic compression of RUSTSEC-2026-0118 to 0120.
    ("hickory-proto", [0, 26, 1]),
    ("hickory-net", [0, 26, 1]),
    ("hickory-resolver", [0, 26, 1]),
    ("hickory-server", [0, 26, 1]),
    ("ring", [0, 17, 12]),
    ("curve25519-dalek", [4, 1, 3]),
    ("tracing-subscriber", [0, 3, 20]),
    ("aes-gcm", [0, 10, 3]),
    ("bytes", [1, 11, 1]),
    ("slab", [0, 4, 11]),
    ("tokio", [1, 43, 1]),
    ("idna", [1, 0, 0]),
    ("crossbeam-channel", [0, 5, 15]),
];

/// Crates that we do without.
const ABSENT: [&str; 4] = ["pnet_packet", "openssl", "x25519-dalek", "lru"];
