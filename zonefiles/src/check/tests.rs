use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::*;
use crate::master::Reader;

fn key(bits: usize, exponent: &[u8]) -> String {
    let mut modulus = vec![0xa5; bits / 8];
    modulus[0] = 0xc1;
    *modulus.last_mut().unwrap() |= 1;
    RsaKey::new(exponent, &modulus).unwrap().to_base64()
}

/// The findings of a zone at `2.0.192.in-addr.arpa.`, as `line: severity what`.
fn check(lines: &str) -> Vec<String> {
    let head = "$ORIGIN 2.0.192.in-addr.arpa.\n$TTL 300\n@ SOA ns.example. h.example. 1 2 3 4 5\n";
    let mut checker = Checker::default();
    let mut found = Vec::new();
    for located in Reader::of_text(&format!("{head}{lines}"), None) {
        checker.record(&located.unwrap());
        found.extend(checker.findings());
    }
    found.extend(checker.finish().1);
    found
        .iter()
        .map(|f| format!("{}: {} {}", f.position.line - 3, f.what.severity(), f.what))
        .collect()
}

fn strings(text: &str) -> String {
    let chunks: Vec<String> = text
        .as_bytes()
        .chunks(255)
        .map(|c| format!("\"{}\"", std::str::from_utf8(c).unwrap()))
        .collect();
    chunks.join(" ")
}

#[test]
fn a_good_zone_has_no_findings() {
    let good = key(3072, &[1, 0, 1]);
    let text = strings(&format!("X-IPsec-Server(10)=192.0.2.11 {good}"));
    let lines = format!(
        "11 PTR a.example.\n11 TXT {text}\n11 IPSECKEY 10 0 2 . {good}\n12 TXT \"v=spf1 -all\"\n"
    );
    assert_eq!(check(&lines), [""; 0]);
}

#[test]
fn what_peers_reject() {
    let good = key(2048, &[1, 0, 1]);
    let good = good.as_str();
    let (short, classic) = (key(1024, &[1, 0, 1]), key(2192, &[3]));
    let cases = [
        (format!("X-IPsec-Server=192.0.2.1 {good}"), "error precedence: no parenthesis"),
        (format!("X-IPsec-Server(70000)=192.0.2.1 {good}"), "error precedence: above 65535"),
        (format!("X-IPsec-Server(10)=gw.example {good}"), "error gateway: neither"),
        (format!("X-IPsec-Server(10)=0.0.0.0 {good}"), "error gateway: the unspecified"),
        ("X-IPsec-Server(10)=192.0.2.1 0sAQNR".to_owned(), "error key: "),
        ("X-IPsec-Server(10)=192.0.2.1 !!!".to_owned(), "error key: "),
        (format!("X-IPsec-Server(10)=192.0.2.1 {short}"), "error RSA key of 1024 bits"),
        (format!("X-IPsec-Server(10)=192.0.2.1 {classic}"), "warning RSA key with exponent 3"),
        ("X-IPsec-Server(10)=192.0.2.1".to_owned(), "warning gateway without a key"),
        (format!("X-IPsec-Server(010)=192.0.2.1 {good}"), "warning precedence with a leading zero"),
        (format!("X-IPsec-Gateway(10)=192.0.2.1 {good}"), "error X-IPsec-Gateway is the name"),
        (format!("X-IPsec-Server(10)=10.0.0.1 {good}"), "error gateway is private"),
        (format!("X-IPsec-Server(10)=127.0.0.1 {good}"), "error gateway is loopback"),
        (format!("X-IPsec-Server(10)=224.0.0.1 {good}"), "error gateway is multicast"),
        (format!("X-IPsec-Server(10)=@gw.example {good}"), "warning gateway is a name"),
        (format!("X-IPsec-Server(10)=192.0.2.9 {good}"), "note names another host as gateway"),
        (
            format!("X-IPsec-Server(10)=192.0.2.1 {} {}", &good[..100], &good[100..]),
            "warning blank inside the key",
        ),
    ];
    for (text, expected) in cases {
        let found = check(&format!("1 TXT {}", strings(&text)));
        assert!(
            matches!(found.as_slice(), [one] if one.starts_with(&format!("1: {expected}"))),
            "{text}: {found:?}"
        );
    }
}

#[test]
fn the_quickstart_misprint() {
    let good = key(2048, &[1, 0, 1]);
    let found = check(&format!("1 TXT \"X-IPsec-Server(10)=192.0.2.1\" {}", strings(&good)));
    assert!(
        matches!(found.as_slice(), [one] if one.contains("where the strings meet")),
        "{found:?}"
    );
}

#[test]
fn what_stands_together_is_compared() {
    let (one, two) = (key(2048, &[1, 0, 1]), key(3072, &[1, 0, 1]));
    let txt = |gateway: &str, key: &str| strings(&format!("X-IPsec-Server(10)={gateway} {key}"));
    let lines = format!(
        "1 TXT {}\n1 TXT {}\n1 TXT {}\n1 60 TXT {}\n1 IPSECKEY 10 0 2 . {one}\n",
        txt("192.0.2.1", &one),
        // A rollover: same gateway, another key.
        txt("192.0.2.1", &two),
        txt("192.0.2.1", &one),
        txt("192.0.2.2", &one),
    );
    let found = check(&lines);
    assert_eq!(found[0], "3: warning says the same as the record above");
    assert_eq!(found[1], "3: note the answer has more than 1232 octets: it is fetched by TCP");
    assert!(found[2].starts_with("4: warning TTL 60"));
    assert!(found[3].starts_with("4: warning precedence 10 twice"));
    assert!(found[4].starts_with("4: note names another"), "{found:?}");
    let disagree = check(&format!("1 TXT {}\n1 IPSECKEY 10 0 2 . {two}", txt("192.0.2.1", &one)));
    assert_eq!(disagree, ["2: warning TXT and IPSECKEY of this name hold different keys"]);
}

#[test]
fn hosts_under_a_wildcard_take_its_place() {
    let found = check("* TXT x\n1 TXT a\n1.2.3 TXT b\n1.2.4 TXT c\n");
    assert_eq!(
        found,
        ["3: warning names near this one that do not exist no longer match the wildcard above"]
    );
}

#[test]
fn zones_and_names() {
    let good = key(2048, &[1, 0, 1]);
    let lines = format!(
        "@ SOA ns.example. h.example. 1 2 3 4 5\n\
         1 CNAME x.example.\n\
         1 TXT foo\n\
         x.example. A 192.0.2.1\n\
         @ TXT {}\n\
         2 KEY 0x4200 4 1 {good}\n\
         3 IPSECKEY 10 1 1 192.0.2.3 {good}\n\
         4 IPSECKEY 10 0 0 .\n\
         5 IPSECKEY 10 1 2 192.0.2.5 AQ==\n\
         6 IPSECKEY 10 0 3 . {}\n\
         7 IPSECKEY 10 1 2 192.0.2.7 {good}\n",
        strings(&format!("X-IPsec-Server(10)=192.0.2.1 {good}")),
        BASE64.encode([7; 64]),
    );
    let found = check(&lines);
    let expected = [
        "1: error second SOA",
        "3: error CNAME beside other",
        "4: error outside the zone",
        "5: warning owner is no single address",
        "6: warning KEY for IPsec was withdrawn",
        "7: warning algorithm 1",
        "8: warning gateway without a key",
        "9: error key: ",
        "10: note key is not RSA",
        "11: note gateway in IPSECKEY",
    ];
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}: {expected}");
    }
    assert_eq!(found.len(), expected.len(), "{found:?}");
}
