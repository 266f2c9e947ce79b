//! Who may know whom: the table of docs/ARCHITECTURE.md, read from the manifests.

mod links;
mod threats;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Our crates, and what each may depend on among them.
const MAY_KNOW: [(&str, &str, &[&str]); 7] = [
    ("sa", "node/sa", &[]),
    ("dnskeys", "dnskeys", &[]),
    ("zonefiles", "zonefiles", &["dnskeys"]),
    ("forwarding", "node/forwarding", &["sa"]),
    ("ike", "node/ike", &["sa"]),
    ("keying", "node/keying", &["sa", "ike", "dnskeys"]),
    ("daemon", "node/daemon", &["sa", "forwarding", "ike", "keying", "dnskeys", "zonefiles"]),
];

/// Outside crates that would bring I/O, a clock or a runtime into a pure crate.
const IMPURE: [&str; 12] = [
    "tokio",
    "hickory-resolver",
    "hickory-server",
    "hickory-net",
    "netlink-packet-xfrm",
    "netlink-packet-core",
    "netlink-proto",
    "netlink-sys",
    "rtnetlink",
    "libc",
    "socket2",
    "getrandom",
];

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn dependencies(folder: &str) -> BTreeSet<String> {
    let manifest = root().join(folder).join("Cargo.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let manifest: toml::Table = text.parse().unwrap();
    let table = manifest.get("dependencies").and_then(toml::Value::as_table);
    table.map(|t| t.keys().cloned().collect()).unwrap_or_default()
}

#[test]
fn every_crate_knows_only_what_it_may() {
    let ours: BTreeSet<&str> = MAY_KNOW.iter().map(|(name, ..)| *name).collect();
    for (name, folder, allowed) in MAY_KNOW {
        for dependency in dependencies(folder) {
            if ours.contains(dependency.as_str()) {
                assert!(allowed.contains(&dependency.as_str()), "{name} knows {dependency}");
            }
            if name != "daemon" {
                let impure = IMPURE.contains(&dependency.as_str());
                assert!(!impure, "{name} is pure and depends on {dependency}");
            }
        }
    }
}

#[test]
fn sa_knows_only_std_and_dnskeys_hardly_more() {
    assert_eq!(dependencies("node/sa"), BTreeSet::new());
    for dependency in dependencies("dnskeys") {
        assert!(["base64", "rsa"].contains(&dependency.as_str()), "dnskeys knows {dependency}");
    }
}

/// The pure crates take time and randomness as arguments, and forbid `unsafe`.
/// CVE-2021-46873.
#[test]
fn pure_crates_have_no_clock_no_os_randomness_no_unsafe() {
    let banned = [
        "Instant::now",
        "SystemTime::now",
        "OsRng",
        "SystemRandom",
        "thread_rng",
        "std::net::UdpSocket",
        "std::fs",
        "std::env::var",
    ];
    for (name, folder, _) in MAY_KNOW {
        if name == "daemon" {
            continue;
        }
        let source = root().join(folder).join("src");
        let library = std::fs::read_to_string(source.join("lib.rs")).unwrap();
        assert!(library.contains("#![forbid(unsafe_code)]"), "{name} allows unsafe");
        let mut files = vec![source];
        while let Some(path) = files.pop() {
            // Tests may do as they like.
            if path.file_name().is_some_and(|f| f.to_string_lossy().contains("test")) {
                continue;
            }
            if path.is_dir() {
                files.extend(std::fs::read_dir(path).unwrap().map(|e| e.unwrap().path()));
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for word in banned {
                assert!(!code.contains(word), "{}: {word}", path.display());
            }
        }
    }
}

/// `unsafe` stands only in the files that talk to the kernel.
/// gotatun audit 2026.
#[test]
fn unsafe_stands_only_where_the_kernel_is_spoken_to() {
    let mut files = vec![root().join("node/daemon/src")];
    let mut found = BTreeSet::new();
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(path).unwrap().map(|e| e.unwrap().path()));
        } else if !path.ends_with("tests.rs")
            && std::fs::read_to_string(&path).unwrap().contains("unsafe {")
        {
            found.insert(path.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    let allowed = UNSAFE_FILES.iter().map(|f| (*f).to_owned()).collect();
    let extra: Vec<&String> = found.difference(&allowed).collect();
    assert!(extra.is_empty(), "unsafe in {extra:?}");
}

/// The I/O modules of the daemon that may hold `unsafe`.
const UNSAFE_FILES: [&str; 7] =
    ["tun.rs", "sockets.rs", "netns.rs", "batch.rs", "namespace.rs", "ring.rs", "sys.rs"];

/// A cipher that does nothing, for the bench to compare with, cannot get into the daemon: not even
/// when the whole workspace is built at once and features are joined. It is in the source behind a
/// feature that `forwarding` does not have, only `tests/unsealed`, which is the same source as a
/// crate of its own; and that one only `tests` knows.
#[test]
fn the_cipher_that_does_nothing_is_nobodys_but_the_benchs() {
    let manifest = |folder: &str| -> toml::Table {
        let file = root().join(folder).join("Cargo.toml");
        std::fs::read_to_string(file).unwrap().parse().unwrap()
    };
    let unsealed = manifest("tests/unsealed");
    assert!(unsealed["features"].as_table().unwrap().contains_key("null-cipher"));
    assert_eq!(unsealed["lib"]["path"].as_str(), Some("../../node/forwarding/src/lib.rs"));
    for (name, folder, _) in MAY_KNOW {
        let text = std::fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        assert!(!text.contains("null-cipher") && !text.contains("unsealed"), "{name}");
    }
    assert!(!manifest("node/forwarding").contains_key("features"));
    // Where the cipher is named, the line before says for whom.
    let source = std::fs::read_to_string(root().join("node/forwarding/src/aead.rs")).unwrap();
    let mut before = "";
    for line in source.split("mod tests").next().unwrap().lines().map(str::trim) {
        if line.starts_with("Null") || line.contains("::Null") {
            assert_eq!(before, r#"#[cfg(feature = "null-cipher")]"#, "{line}");
        }
        before = line;
    }
    assert!(source.contains("Self::Null"), "the cipher has another name: look for that");
}

/// The rows of docs/RULES.md: number, and the tests that show the rule.
fn rules() -> Vec<(u32, Vec<String>)> {
    let text = std::fs::read_to_string(root().join("docs/RULES.md")).unwrap();
    let row = |line: &str| {
        let cells: Vec<&str> = line.strip_prefix('|')?.split('|').map(str::trim).collect();
        let number = cells.first()?.parse().ok()?;
        let tests = cells.get(3)?.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        Some((number, tests))
    };
    text.lines().filter_map(row).collect()
}

/// Every test in the workspace, and the words above it. One name may be used by several crates: what
/// the words above one of them say holds for that one only.
fn tests_and_their_words() -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut places = ["node", "dnskeys", "zonefiles", "tests"].map(|f| root().join(f)).to_vec();
    while let Some(path) = places.pop() {
        if path.is_dir() {
            places.extend(std::fs::read_dir(path).unwrap().map(|e| e.unwrap().path()));
            continue;
        }
        if path.extension().is_none_or(|e| e != "rs") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let (mut words, mut is_test) = (String::new(), false);
        for line in text.lines().map(str::trim) {
            if let Some(comment) = line.strip_prefix("///") {
                words.push_str(comment);
            } else if line.starts_with("#[") {
                is_test |= line.contains("test]");
            } else {
                let name = line.trim_start_matches("async ").strip_prefix("fn ");
                if let Some(name) = name.and_then(|n| n.split('(').next())
                    && is_test
                {
                    found.entry(name.to_owned()).or_default().push(words.clone());
                }
                (words, is_test) = (String::new(), false);
            }
        }
    }
    found
}

/// "Rules 6, 7 and 49: ..." names three.
fn named_rules(words: &str) -> BTreeSet<u32> {
    let mut rules = BTreeSet::new();
    for part in words.to_lowercase().split("rule").skip(1) {
        let part = part.strip_prefix('s').unwrap_or(part);
        let list = part.split(['.', ':', ';', ')']).next().unwrap_or_default();
        let numbers = list.split([' ', ',']).filter(|word| !word.is_empty() && *word != "and");
        rules.extend(numbers.map_while(|word| word.parse::<u32>().ok()));
    }
    rules
}

#[test]
fn every_rule_has_its_line_and_every_test_it_claims() {
    let rules = rules();
    let numbers: Vec<u32> = rules.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (1..=74).collect::<Vec<u32>>());
    let tests = tests_and_their_words();
    let mut claims: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    for (number, claimed) in rules {
        for name in claimed {
            claims.entry(name).or_default().insert(number);
        }
    }
    for (name, claimed) in claims {
        let words = tests.get(&name).unwrap_or_else(|| panic!("rules {claimed:?}: no test {name}"));
        // All by one and the same.
        let whole = words.iter().any(|words| claimed.is_subset(&named_rules(words)));
        assert!(whole, "no {name} names all of the rules {claimed:?}");
    }
}

/// Every event that the daemon tells has its line in docs/EVENTS.md.
#[test]
fn every_event_is_documented() {
    let view = std::fs::read_to_string(root().join("node/daemon/src/view.rs")).unwrap();
    let documented = std::fs::read_to_string(root().join("docs/EVENTS.md")).unwrap();
    let body = view.split("fn name_and_detail").nth(1).unwrap();
    let body = body.split("\n}\n").next().unwrap();
    // The name is the first word of each pair.
    let names: Vec<&str> = body
        .split("=> ")
        .filter_map(|arm| arm.trim_start_matches(['{', '\n', ' ']).strip_prefix('('))
        .filter_map(|pair| pair.trim_start().strip_prefix('"')?.split('"').next())
        .collect();
    assert!(names.len() > 15, "{names:?}");
    for name in names {
        assert!(documented.contains(&format!("`{name}`")), "{name}");
    }
}

/// The rows of docs/PROMISES.md: each promise, and the tests that show it, which name it in turn.
#[test]
fn every_promise_has_its_line_and_every_test_it_claims() {
    let text = std::fs::read_to_string(root().join("docs/PROMISES.md")).unwrap();
    let tests = tests_and_their_words();
    let mut number = 0;
    let mut claims: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| P")) {
        number += 1;
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let promise = format!("P{number}");
        assert_eq!(cells[1], promise);
        let claimed: Vec<&str> = cells[4].split('`').skip(1).step_by(2).collect();
        assert!(!claimed.is_empty(), "{promise} has no test");
        for name in claimed {
            claims.entry(name).or_default().push(promise.clone());
        }
    }
    assert_eq!(number, 20);
    for (name, claimed) in claims {
        let words = tests.get(name).unwrap_or_else(|| panic!("{claimed:?}: no test {name}"));
        let names_all = |words: &String| {
            let named: BTreeSet<&str> = words.split(|c: char| !c.is_ascii_alphanumeric()).collect();
            claimed.iter().all(|promise| named.contains(promise.as_str()))
        };
        // All by one and the same.
        assert!(words.iter().any(names_all), "no {name} names all of {claimed:?}");
    }
}
