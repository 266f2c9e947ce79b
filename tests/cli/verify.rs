//! `oe-node verify` against a real DNS, good and bad.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tests::{missing, oe_node, skipped};

use crate::bed::{Bed, PROGRAMS, RESOLVER, Signing, Zone};
use crate::keys::{Dir, make_key, oe, stdout};

/// The record that `showhostkey` prints, on one line with blanks.
pub(crate) fn txt(key_file: &str, gateway: &str) -> String {
    let output = oe(&["showhostkey", "--key-file", key_file, "--txt", gateway]);
    stdout(&output).trim().replace('\t', " ")
}

fn ipseckey(key_file: &str, gateway: &str) -> String {
    let output = oe(&["showhostkey", "--key-file", key_file, "--ipseckey", "--gateway", gateway]);
    let text = stdout(&output);
    let (_, fields) = text.trim().split_once("IN    IPSECKEY  ").unwrap();
    format!("IN IPSECKEY {fields}")
}

/// Runs `verify` in the bed; exit status and output.
fn verify(bed: &Bed, args: &[&str]) -> (i32, String) {
    let anchor = bed.anchor().display().to_string();
    let given = ["verify", "--resolver", RESOLVER, "--trust-anchor", &anchor];
    let output = bed.output(&oe_node(), &[&given[..], args].concat());
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    (output.status.code().unwrap_or(-1), text)
}

fn zones(key: &str, other: &str) -> Vec<Zone> {
    let long = "x".repeat(250);
    let mut reverse = Zone::new("2.0.192.in-addr.arpa", Signing::Good)
        .with("11", txt(key, "192.0.2.11"))
        .with("11", ipseckey(key, "192.0.2.11"))
        .with("12", "IN PTR plain.hosts.test.")
        .with("13", "IN CNAME 13.0/26.2.0.192.in-addr.arpa.")
        .with("13.0/26", txt(key, "192.0.2.13"))
        .with("14", txt(key, "192.0.2.11"))
        .with("15", txt(other, "192.0.2.11"))
        .with("16", ipseckey(key, "192.0.2.16"))
        .with("17", txt(key, "192.0.2.17"))
        .with("18", txt(key, "192.0.2.18"))
        .with("18", "IN TXT \"X-IPsec-Server(10)=192.0.2.18 0sAQ\"")
        .with("19", txt(key, "192.0.2.19"))
        .with("19", ipseckey(other, "192.0.2.19"))
        .with("20", "IN TYPE25 \\# 8 420004010103c5c5")
        .with("20", txt(key, "192.0.2.20"))
        .only_first("21", txt(key, "192.0.2.21"));
    for number in 0..8 {
        reverse = reverse.with("17", format!("IN TXT \"{number}{long}\""));
    }
    vec![
        reverse,
        Zone::new("100.51.198.in-addr.arpa", Signing::None)
            .with("5", txt(key, "198.51.100.5"))
            .with("6", txt(key, "192.0.2.11")),
        Zone::new("1.18.198.in-addr.arpa", Signing::Tampered).with("9", txt(key, "198.18.1.9")),
        Zone::new("2.18.198.in-addr.arpa", Signing::Expired).with("9", txt(key, "198.18.2.9")),
        Zone::new("hosts.test", Signing::Good)
            .with("west", "IN A 192.0.2.11")
            .with("west", txt(key, "@west.hosts.test"))
            .with("plain", "IN A 192.0.2.12")
            .with("road", txt(key, "@road.hosts.test"))
            .with("both", "IN A 192.0.2.11")
            .with("both", "IN AAAA 2001:db8::b"),
        Zone::new("8.b.d.0.1.0.0.2.ip6.arpa", Signing::Good)
            .with("b.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0", txt(key, "2001:db8::b")),
    ]
}

#[test]
fn what_a_stranger_sees() {
    if skipped("cli::verify", missing(&PROGRAMS)) {
        return;
    }
    let files = Dir::new("verify");
    let (key, other) = (files.file("host.key"), files.file("other.key"));
    let id = make_key(&key).key_id();
    make_key(&other);
    let bed = Bed::start("verify", zones(&key, &other));
    the_classic_lines(&bed, &id);
    findings(&bed, &key, &other);
    documents(&bed);
    crowds(&bed, &files);
    silence(&bed);
}

/// To the byte, for a host in order.
fn the_classic_lines(bed: &Bed, id: &str) {
    let (status, text) = verify(bed, &["--host", "west.hosts.test"]);
    let key = format!("RSA 2048 bits, e = 65537, {id}");
    let expected = format!(
        "\
Checking west.hosts.test for Opportunistic Encryption:
Looking for TXT in forward map: west.hosts.test                  \t[OK]
    gateway @west.hosts.test; precedence 10; {key}
    DNSSEC: secure; TTL 3600 s
    2 authoritative servers agree
Looking for TXT in reverse map: 11.2.0.192.in-addr.arpa.         \t[OK]
    gateway 192.0.2.11, itself; precedence 10; {key}
    DNSSEC: secure; TTL 3600 s
    2 authoritative servers agree
Looking for IPSECKEY in reverse map: 11.2.0.192.in-addr.arpa.    \t[OK]
    gateway 192.0.2.11, itself; precedence 10; {key}
    libreswan reads only IPSECKEY records whose gateway is \".\"
    agrees with TXT
Would a stranger encrypt to 192.0.2.11?                          \t[OK]
    private-or-clear negotiates with 192.0.2.11
    private negotiates with 192.0.2.11
"
    );
    assert_eq!(full_ttl(&text), expected);
    assert_eq!(status, 0);
}

/// The TTL counts down in the resolver while we ask.
fn full_ttl(text: &str) -> String {
    (3590..3600)
        .fold(text.to_owned(), |text, ttl| text.replace(&format!("TTL {ttl} s"), "TTL 3600 s"))
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn findings(bed: &Bed, key: &str, other: &str) {
    let rows: &[(&[&str], i32, &[&str])] = &[
        (
            &["--host", "road.hosts.test"],
            0,
            &["does not resolve to an IP", "it can call by this name"],
        ),
        (&["--host", "plain.hosts.test"], 1, &["\t[MISSING]\n    wrong: no key is published"]),
        (&["--host", "nobody.hosts.test"], 1, &["it can neither call nor be called"]),
        (
            &["--ip", "192.0.2.99"],
            1,
            &["there is no such name", "private-or-clear sends in the clear"],
        ),
        (
            &["--ip", "192.0.2.13"],
            0,
            &[
                "CNAME 13.2.0.192.in-addr.arpa. -> 13.0/26.2.0.192.in-addr.arpa. (secure)",
                "2 authoritative servers agree",
            ],
        ),
        (
            &["--ip", "192.0.2.14"],
            0,
            &["gateway 192.0.2.11; precedence 10", "192.0.2.11 says the same of itself"],
        ),
        (&["--ip", "192.0.2.15"], 1, &["192.0.2.11 has another key here"]),
        (
            &["--ip", "192.0.2.16"],
            0,
            &["only IPSECKEY is there", "private negotiates with 192.0.2.16"],
        ),
        (&["--ip", "192.0.2.17"], 0, &["does not fit into a UDP datagram"]),
        (
            &["--ip", "192.0.2.18"],
            1,
            &["key: starts with 0s", "private negotiates with 192.0.2.18"],
        ),
        (&["--ip", "192.0.2.19"], 1, &["disagrees with TXT"]),
        (
            &["--ip", "192.0.2.20"],
            0,
            &["Looking for KEY in reverse map: 20.2.0.192.in-addr.arpa.         \t[DEPRECATED]"],
        ),
        (&["--ip", "192.0.2.21"], 1, &["ns2.test. (203.0.113.54) has 0 record(s) of ours"]),
        (
            &["--ip", "198.51.100.5"],
            0,
            &[
                "insecure, 100.51.198.in-addr.arpa. is not signed",
                "private sends nothing: the record is not signed",
            ],
        ),
        (
            &["--ip", "198.51.100.6"],
            1,
            &["private-or-clear sends in the clear: an unsigned record names another gateway"],
        ),
        (
            &["--ip", "198.18.1.9"],
            1,
            &[
                "bogus: 1.18.198.in-addr.arpa. is sound, and this record does not fit its signature",
                "private-or-clear sends nothing",
            ],
        ),
        (
            &["--ip", "198.18.2.9"],
            1,
            &[
                "bogus: nothing in 2.18.198.in-addr.arpa. validates: the signatures ended on 2020-02-01",
            ],
        ),
        (&["--ip", "192.0.2.11", "--key-file", key], 0, &["is published here"]),
        (&["--ip", "192.0.2.11", "--key-file", other], 1, &["is not among those published"]),
        (
            &["--host", "both.hosts.test"],
            0,
            &[
                "Would a stranger encrypt to 192.0.2.11?",
                "Looking for TXT in reverse map: b.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.\t[OK]",
                "private negotiates with 2001:db8::b",
            ],
        ),
        (&["--host", "a..b"], 2, &["oe-node verify: --host a..b: empty name or label"]),
        (&["--ip", "192.0.2.11", "--probe"], 1, &["Is a daemon there: IKE_SA_INIT to 192.0.2.11"]),
    ];
    bed.exec("ip addr add 192.0.2.11/32 dev lo");
    for (args, status, texts) in rows {
        let (got, text) = verify(bed, args);
        for wanted in *texts {
            assert!(text.contains(wanted), "{args:?}: {wanted:?} not in\n{text}");
        }
        assert_eq!(got, *status, "{args:?}\n{text}");
        assert!(!text.contains('\x1b'), "colour only on a terminal");
    }
    let (_, text) = verify(bed, &["--ip", "192.0.2.11", "--colour"]);
    assert!(text.contains("[\x1b[1;32mOK\x1b[0;39m]"), "{text:?}");
}

fn documents(bed: &Bed) {
    let (status, text) = verify(bed, &["--ip", "192.0.2.11", "--ip", "192.0.2.12", "--json"]);
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status, 1);
    assert_eq!(value["verdict"], "failed");
    assert_eq!(value["reports"][0]["subject"], "192.0.2.11");
    assert_eq!(value["reports"][0]["verdict"], "well");
    let facts = &value["reports"][0]["facts"];
    assert_eq!(facts["reverse"]["txt"]["dnssec"], "secure");
    assert_eq!(facts["reverse"]["txt"]["records"][0]["key"]["bits"], 2048);
    assert_eq!(facts["private"]["with"][0], "192.0.2.11");
    assert_eq!(value["reports"][1]["facts"]["private-or-clear"]["does"], "clear");
    let check = &value["reports"][1]["checks"][0];
    assert_eq!(check["check"], "Looking for TXT in reverse map: 12.2.0.192.in-addr.arpa.");
    assert_eq!(check["status"], "missing");
    assert_eq!(check["notes"][0]["weight"], "wrong");
    assert!(check["notes"][0]["do"].as_str().unwrap().contains("showhostkey"));
}

/// A thousand hosts, in the order of the file, in seconds.
fn crowds(bed: &Bed, files: &Dir) {
    let hosts = ["192.0.2.11", "west.hosts.test", "192.0.2.12", "198.18.1.9"];
    let list: String =
        hosts.iter().cycle().take(1000).map(|host| format!("{host} # comment\n")).collect();
    let file = files.file("hosts");
    fs::write(&file, list).unwrap();
    let began = std::time::Instant::now();
    let (status, text) = verify(bed, &["--hosts", &file]);
    let took = began.elapsed();
    assert_eq!(status, 1);
    let last = text.lines().last().unwrap();
    let summary = "1000 hosts: 500 well, 500 failed (250 of them publish nothing), \
                   0 could not be checked";
    assert_eq!(last, summary);
    assert!(text.contains(
        "192.0.2.12                                                       \t[MISSING]\n"
    ));
    assert!(took.as_secs() < 30, "{took:?}");
    let (status, text) = verify(bed, &["--hosts", &file, "--json"]);
    let value: Value = serde_json::from_str(&text).unwrap();
    let reports = value["reports"].as_array().unwrap();
    assert_eq!((status, reports.len()), (1, 1000));
    assert_eq!(reports[2]["subject"], "192.0.2.12", "in the order of the file");

    fs::write(&file, "west.hosts.test\nnot a host\n").unwrap();
    let (status, text) = verify(bed, &["--hosts", &file]);
    assert_eq!((status, text.lines().count()), (2, 1), "{text}");
    assert!(text.contains("line 2: \"not a host\""), "{text}");
}

/// Nobody answers: that is not the host's fault, and the exit status says so.
fn silence(bed: &Bed) {
    bed.exec("ip addr add 203.0.113.99/32 dev lo");
    let anchor = bed.anchor().display().to_string();
    let args =
        ["verify", "--resolver", "203.0.113.99", "--trust-anchor", &anchor, "--ip", "192.0.2.11"];
    let output = bed.output(&oe_node(), &args);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(
        text.contains("\t[UNKNOWN]\n    unknown: no answer from DNS: cannot be reached"),
        "{text}"
    );
    assert!(text.contains("private-or-clear sends in the clear: no answer from DNS"), "{text}");
    let none =
        ["verify", "--resolver", RESOLVER, "--trust-anchor", "/nonexistent", "--ip", "192.0.2.11"];
    let output = bed.output(&oe_node(), &none);
    assert_eq!(output.status.code(), Some(2));
    assert!(!Path::new("/nonexistent").exists());
}
