//! `zone check` and `zone diff`.

use crate::rig::{Place, key, lacks, run, zone};

/// The classic forms, as the old documents print them.
#[test]
fn classic_records() {
    let place = Place::new();
    let good = key(2192, 1).to_base64();
    // FreeS/WAN's showhostkey --txt, pasted under an owner; Openswan's, with a blank at the end of
    // the first string and chunks of 240; libreswan's --ipseckey.
    let split = |size: usize, text: &str| {
        let chunks: Vec<String> = text
            .as_bytes()
            .chunks(size)
            .map(|chunk| format!("\"{}\"", String::from_utf8_lossy(chunk)))
            .collect();
        chunks.join(" ")
    };
    let freeswan = split(255, &format!(" {good}"));
    let openswan = split(240, &good);
    place.write(
        "classic",
        &format!(
            "$ORIGIN 2.0.192.in-addr.arpa.\n\
             $TTL 3600\n\
             @\tIN\tSOA\tns.example. hostmaster.example. 1 2 3 4 5\n\
             \tIN\tNS\tns.example.\n\
             ; RSA 2192 bits   xy.example.com   Thu Jan  2 12:41:44 2003\n\
             11\tIN\tTXT\t\"X-IPsec-Server(10)=192.0.2.11\" {freeswan}\n\
             12.2.0.192.in-addr.arpa.    IN    TXT    \"X-IPsec-Server(10)=192.0.2.12 \" {openswan} \n\
             13.2.0.192.in-addr.arpa.    IN    IPSECKEY  10 0 2 . {good}\n"
        ),
    );
    let checked = zone(&place, &["check", "--strict", "classic"]).good();
    assert_eq!(
        checked,
        "classic: 5 records, 2 X-IPsec-Server, 1 IPSECKEY: 0 errors, 0 warnings, 0 notes\n"
    );
    if !lacks("classic_records", &["named-checkzone"]) {
        run(&place, "named-checkzone", &["2.0.192.in-addr.arpa", "classic"]).good();
    }
}

#[test]
fn findings_have_places_and_decide_the_exit_status() {
    let place = Place::new();
    let weak = key(1024, 1).to_base64();
    place.write("inc", &format!("1 IPSECKEY 10 1 2 10.0.0.1 {weak}\n"));
    place.write(
        "bad",
        "$ORIGIN 2.0.192.in-addr.arpa.\n$TTL 60\n@ SOA a. b. 1 2 3 4 5\n$INCLUDE inc\n\
         2 TXT ( \"X-IPsec-Server(10)=192.0.2.2\"\n \"AQ!!\" )\n3 A 192.0.2\n4 TXT \"X-IPsec-Server(10)=192.0.2.4\"\n",
    );
    let ran = zone(&place, &["check", "bad"]);
    assert_eq!(ran.code, 1);
    let expected = [
        "inc:1:1: error: 1.2.0.192.in-addr.arpa. IPSECKEY: RSA key of 1024 bits",
        "inc:1:1: note: 1.2.0.192.in-addr.arpa. IPSECKEY: gateway in IPSECKEY",
        "inc:1:1: error: 1.2.0.192.in-addr.arpa. IPSECKEY: gateway is private",
        "bad:5:1: error: 2.2.0.192.in-addr.arpa. TXT: ",
        "bad:7:5: error: A: expected an IPv4 address",
        "bad:8:1: warning: 4.2.0.192.in-addr.arpa. TXT: gateway without a key",
        "bad: 4 records, 1 X-IPsec-Server, 1 IPSECKEY: 4 errors, 1 warnings, 1 notes",
    ];
    let lines: Vec<&str> = ran.out.lines().collect();
    for expected in expected {
        assert!(lines.iter().any(|line| line.starts_with(expected)), "{expected}\n{}", ran.out);
    }
    assert_eq!(lines.len(), expected.len(), "{}", ran.out);
    let json = zone(&place, &["check", "--json", "bad"]).out;
    for line in json.lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(value["line"].is_u64() && value["severity"].is_string());
    }
    place
        .write("warned", "$TTL 60\n4.2.0.192.in-addr.arpa. TXT \"X-IPsec-Server(10)=192.0.2.4\"\n");
    assert_eq!(zone(&place, &["check", "warned"]).code, 0);
    assert_eq!(zone(&place, &["check", "--strict", "warned"]).code, 1);
    let missing = zone(&place, &["check", "none", "warned"]);
    assert_eq!(missing.code, 1);
    assert!(missing.err.contains("cannot read none") && missing.out.contains("warned: 1 records"));
}

#[test]
fn diff_says_what_changed() {
    let place = Place::new();
    let head = "$ORIGIN 2.0.192.in-addr.arpa.\n$TTL 60\n@ SOA a. b. ";
    place.write("old", &format!("{head}1 2 3 4 5\n1 TXT \"one\"\n2 PTR x.\n"));
    place.write("new", &format!("{head}2 2 3 4 5\n1 TXT \"two\"\n2 PTR X.\n"));
    place.write("same", &format!("{head}9 2 3 4 5\n2 PTR x.\n1 TXT one\n"));
    assert_eq!(zone(&place, &["diff", "old", "same"]).good(), "");
    let ran = zone(&place, &["diff", "old", "new"]);
    assert_eq!(ran.code, 1);
    assert_eq!(
        ran.out,
        "- 1.2.0.192.in-addr.arpa.\t60\tIN\tTXT\t\"one\"\n\
         + 1.2.0.192.in-addr.arpa.\t60\tIN\tTXT\t\"two\"\n; 1 added, 1 removed, 0 with another TTL\n"
    );
    let script = zone(&place, &["diff", "--nsupdate", "old", "new"]).out;
    assert_eq!(
        script,
        "zone 2.0.192.in-addr.arpa.\n\
         update delete 1.2.0.192.in-addr.arpa. IN TXT \"one\"\n\
         update add 1.2.0.192.in-addr.arpa. 60 IN TXT \"two\"\nsend\n"
    );
    assert_eq!(zone(&place, &["diff", "--serial", "old", "same"]).code, 1);
    assert_eq!(zone(&place, &["diff", "old", "none"]).code, 2);
}
