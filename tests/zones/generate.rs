//! `zone generate`: what it writes is read by everybody, and what is wrong is said with its place.

use std::fmt::Write as _;
use std::io::Read as _;
use std::process::{Command, Stdio};

use crate::rig::{Place, key, lacks, run, zone};

const NS: [&str; 4] = ["--ns", "ns.example.net", "--serial", "7"];

#[test]
fn servers_accept_a_whole_zone() {
    let place = Place::new();
    place.key("host.pem", 3072, 1);
    let common = ["generate", "--prefix", "192.0.2.0/24", "--key-file", "host.pem"];
    let name = ["--name", "h{4}.example.net", "-o", "z"];
    for format in ["bind", "nsd", "knot"] {
        let args = [&common[..], &NS, &name, &["--format", format]].concat();
        zone(&place, &args).good();
        if !lacks("servers_accept_a_whole_zone", &["named-checkzone"]) {
            run(&place, "named-checkzone", &["2.0.192.in-addr.arpa", "z"]).good();
        }
        if !lacks("servers_accept_a_whole_zone", &["nsd-checkzone"]) {
            run(&place, "nsd-checkzone", &["2.0.192.in-addr.arpa", "z"]).good();
        }
        if !lacks("servers_accept_a_whole_zone", &["knotc"]) {
            let directory = place.path("");
            let directory = directory.display();
            let domain = "2.0.192.in-addr.arpa";
            place.write(
                "knot.conf",
                &format!(
                    "server:\n  rundir: {directory}\ndatabase:\n  storage: {directory}\n\
                     zone:\n  - domain: {domain}\n    file: {directory}/z\n"
                ),
            );
            run(&place, "knotc", &["-c", "knot.conf", "zone-check"]).good();
        }
        if !lacks("servers_accept_a_whole_zone", &["ldns-read-zone"]) {
            let read = run(&place, "ldns-read-zone", &["z"]).good();
            assert_eq!(read.lines().count(), 2 + 3 * 256);
        }
    }
    let clean = zone(&place, &["check", "--strict", "z"]).good();
    assert!(clean.ends_with(
        "770 records, 256 X-IPsec-Server, 256 IPSECKEY: 0 errors, 0 warnings, 0 notes\n"
    ));
}

/// What an ISP generates is what the host would have printed for itself.
#[test]
fn generated_records_are_those_of_showhostkey() {
    let place = Place::new();
    for bits in [1024, 2048, 2192, 4096] {
        place.key("host.pem", bits, 1);
        let show = |args: &[&str]| {
            let all = [&["showhostkey", "--key-file", "host.pem"][..], args].concat();
            let line = run(&place, tests::oe_node(), &all).good();
            let line = line.lines().last().unwrap().to_owned();
            line.split_once("TXT\t").map_or_else(|| line.clone(), |(_, rdata)| rdata.to_owned())
        };
        let args = ["generate", "--hosts", "list", "--fragment", "--keep-going"];
        place.write("list", "192.0.2.11,,self,host.pem\n192.0.2.12,,@gw.example.net,host.pem\n");
        let text = zone(&place, &args).out;
        if bits < 2048 {
            assert!(!text.contains("TXT"), "a key that nobody accepts was written");
            continue;
        }
        for (owner, gateway) in [("11", "192.0.2.11"), ("12", "@gw.example.net")] {
            let rdata = show(&["--txt", gateway]);
            assert!(
                text.contains(&format!("\n{owner}\t3600\tIN\tTXT\t{rdata}\n")),
                "{rdata}\n{text}"
            );
        }
    }
}

#[test]
fn a_classless_zone_and_what_its_parent_needs() {
    let place = Place::new();
    place.key("gw.pem", 2048, 1);
    let args = [
        &["generate", "--prefix", "192.0.2.96/28", "--gateway", "192.0.2.11"][..],
        &["--key-file", "gw.pem", "--delegation", "parent", "-o", "child"],
        &NS,
    ];
    zone(&place, &args.concat()).good();
    let child = place.read("child");
    assert!(child.contains("$ORIGIN 96/28.2.0.192.in-addr.arpa.\n"));
    assert!(child.contains("\n111\t3600\tIN\tIPSECKEY\t10 1 2 192.0.2.11 AwEAA"));
    let parent = place.read("parent");
    assert_eq!(parent.lines().count(), 17);
    assert!(
        parent.contains(
            "111.2.0.192.in-addr.arpa.\t3600\tIN\tCNAME\t111.96/28.2.0.192.in-addr.arpa.\n"
        )
    );
    if !lacks("a_classless_zone_and_what_its_parent_needs", &["named-checkzone"]) {
        run(&place, "named-checkzone", &["-k", "ignore", "96/28.2.0.192.in-addr.arpa", "child"])
            .good();
    }
    let inside = [
        &["generate", "--prefix", "192.0.2.96/28", "--classless", "none", "--fragment"][..],
        &["--key-file", "gw.pem"],
    ];
    let fragment = zone(&place, &inside.concat()).good();
    assert!(fragment.starts_with("$ORIGIN 2.0.192.in-addr.arpa.\n96\t"));
    assert!(!fragment.contains("SOA"));
}

#[test]
fn several_zones_go_to_several_files() {
    let place = Place::new();
    place.key("host.pem", 2048, 1);
    let args = [&["generate", "--prefix", "198.51.100.0/23", "--key-file", "host.pem"][..], &NS];
    let refused = zone(&place, &args.concat());
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("--output-dir"), "{}", refused.err);
    zone(&place, &[args.concat(), vec!["--output-dir", "out"]].concat()).good();
    for third in ["100", "101"] {
        let text = place.read(&format!("out/{third}.51.198.in-addr.arpa.zone"));
        assert_eq!(text.matches("\tTXT\t").count(), 256);
        assert_eq!(text.matches("\tSOA\t").count(), 1);
    }
}

#[test]
fn ipv6_by_wildcard_and_host_by_host() {
    let place = Place::new();
    place.key("gw.pem", 2048, 1);
    let wild = [
        &["generate", "--prefix", "2001:db8::/32", "--wildcard", "--gateway", "2001:db8::1"][..],
        &["--key-file", "gw.pem", "-o", "wild"],
        &NS,
    ];
    zone(&place, &wild.concat()).good();
    assert!(place.read("wild").contains("\n*\t3600\tIN\tTXT\t\"X-IPsec-Server(10)=2001:db8::1\""));
    // Without a gateway there is no text that is true for every host.
    let own =
        [&["generate", "--prefix", "2001:db8::/32", "--wildcard", "--key-file", "gw.pem"][..], &NS];
    assert_eq!(zone(&place, &own.concat()).code, 1);
    let hosts = [&["generate", "--prefix", "2001:db8::/124", "--key-file", "gw.pem"][..], &NS];
    let text = zone(&place, &hosts.concat()).good();
    assert!(text.contains("\nf\t3600\tIN\tTXT\t\"X-IPsec-Server(10)=2001:db8::f\""), "{text}");
    let all = [&["generate", "--prefix", "2001:db8::/64", "--key-file", "gw.pem"][..], &NS];
    assert!(zone(&place, &all.concat()).err.contains("--wildcard"));
}

#[test]
fn a_customer_list_in_each_of_its_forms() {
    let place = Place::new();
    place.key("a.pem", 2048, 1);
    let b = key(2048, 3).to_base64();
    place.write(
        "list.csv",
        &format!(
            "address,name,gateway,key,precedence,extruded-to,ttl\n\
             # the office\n\
             192.0.2.1,a.example,self,a.pem,,,\n\
             192.0.2.2,\"b.example\",,{b},5,192.0.2.11,60\n\
             192.0.2.8/30,h{{4}}.example,@gw.example.net,a.pem\n"
        ),
    );
    place.write(
        "list.json",
        &format!(
            "[\n{{\"address\":\"192.0.2.1\",\"name\":\"a.example\",\"gateway\":\"self\",\"key\":\"a.pem\"}},\n\
             {{\"address\":\"192.0.2.2\",\"name\":\"b.example\",\"key\":\"{b}\",\"precedence\":5,\"extruded-to\":\"192.0.2.11\",\"ttl\":60}},\n\
             {{\"address\":\"192.0.2.8/30\",\"name\":\"h{{4}}.example\",\"gateway\":\"@gw.example.net\",\"key\":\"a.pem\"}}\n]\n"
        ),
    );
    place.write(
        "list.toml",
        &format!(
            "[[host]]\naddress = \"192.0.2.1\"\nname = \"a.example\"\nkey = \"a.pem\"\n\
             [[host]]\naddress = \"192.0.2.2\"\nname = \"b.example\"\nkey = \"{b}\"\nprecedence = 5\nextruded-to = \"192.0.2.11\"\nttl = 60\n\
             [[host]]\naddress = \"192.0.2.8/30\"\nname = \"h{{4}}.example\"\ngateway = \"@gw.example.net\"\nkey = \"a.pem\"\n"
        ),
    );
    let text = |list: &str| {
        zone(&place, &[&["generate", "--hosts", list, "--forward", "fwd"][..], &NS].concat()).good()
    };
    let csv = text("list.csv");
    assert_eq!(csv, text("list.json"));
    assert_eq!(csv, text("list.toml"));
    assert!(csv.contains("\n1\t3600\tIN\tTXT\t\"X-IPsec-Server(10)=192.0.2.1\" \" AwEAA"));
    assert!(csv.contains(&format!("\n2\t60\tIN\tIPSECKEY\t5 1 2 192.0.2.11 {b}\n")));
    assert!(csv.contains("\n11\t3600\tIN\tPTR\th11.example.\n"));
    assert!(csv.contains("\n9\t3600\tIN\tTXT\t\"X-IPsec-Server(10)=@gw.example.net\" \" AwEAA"));
    let forward = place.read("fwd");
    assert!(
        forward.contains("a.example.\t3600\tIN\tTXT\t\"X-IPsec-Server(10)=@a.example\" \" AwEAA")
    );
    assert!(forward.contains("a.example.\t3600\tIN\tIPSECKEY\t10 0 2 . AwEAA"));
    // Whoever is behind another's gateway has no key of its own.
    assert!(forward.contains("b.example.\t60\tIN\tA\t192.0.2.2\n"));
    assert!(!forward.contains("b.example.\t60\tIN\tTXT"));
}

#[test]
fn faults_name_file_line_and_column() {
    let place = Place::new();
    place.key("a.pem", 2048, 1);
    place.key("short.pem", 1024, 1);
    let rows = [
        "address,name,gateway,key,precedence",
        "192.0.2.1,a.example,self,a.pem,",
        "192.0.2.300,a.example,self,a.pem,",
        "198.51.100.1,a.example,self,a.pem,",
        "2001:db8::1,a.example,self,a.pem,",
        "192.0.2.2,a.example,10.0.0.1,a.pem,",
        "192.0.2.2,a.example,224.0.0.1,a.pem,",
        "192.0.2.2,a.example,127.0.0.1,a.pem,",
        "192.0.2.2,a.example,gw.example,a.pem,",
        "192.0.2.2,a.example,self,short.pem,",
        "192.0.2.2,a.example,self,none.pem,",
        "192.0.2.2,a.example,self,0sAQNR,",
        "192.0.2.2,a.example,self,a.pem,70000",
        "192.0.2.2,a b,self,a.pem,",
        "192.0.2.2,\"a,self,a.pem,",
        "192.0.2.2,a,self,a.pem,1,2",
        "192.0.2.0/23,,self,a.pem,",
        "192.0.2.3,b.example,self,a.pem,",
    ];
    place.write("l.csv", &(rows.join("\n") + "\n"));
    let args = ["generate", "--hosts", "l.csv", "--prefix", "192.0.2.0/24", "-o", "z"];
    let args = [&args[..], &NS].concat();
    let stopped = zone(&place, &args);
    assert_eq!(stopped.code, 1);
    assert!(stopped.err.contains("l.csv:3:1: address: expected ADDRESS"), "{}", stopped.err);
    assert!(!place.path("z").exists(), "half a zone was left behind");
    let all = zone(&place, &[args, vec!["--keep-going"]].concat());
    assert_eq!(all.code, 1);
    let expected = [
        "l.csv:3:1: address: expected ADDRESS or ADDRESS/LENGTH",
        "l.csv:4:1: 198.51.100.1/32: address outside the prefix",
        "l.csv:5:1: 2001:db8::1/128: address of the other family than the prefix",
        "l.csv:6:1: 192.0.2.2/32: gateway is private, but the host is public",
        "l.csv:7:1: 192.0.2.2/32: gateway is multicast",
        "l.csv:8:1: 192.0.2.2/32: gateway is loopback",
        "l.csv:9:21: gateway: expected an address, @FQDN or self",
        "l.csv:10:1: 192.0.2.2/32: RSA key of 1024 bits; peers refuse less than 2048",
        "l.csv:11:26: cannot read none.pem",
        "l.csv:12:26: key: ",
        "l.csv:13:32: precedence: expected a number up to 65535",
        "l.csv:14:11: name: the template makes no valid host name",
        "l.csv:15:11: quotation mark is never closed",
        "l.csv:16:26: expected 5 fields, found more",
        "l.csv:17:1: 192.0.2.0/23: address outside the prefix",
    ];
    let lines: Vec<&str> = all.err.lines().collect();
    for (line, expected) in lines.iter().zip(expected) {
        assert!(
            line.starts_with(&format!("oe-node zone generate: {expected}")),
            "{line}\n{expected}"
        );
    }
    assert_eq!(lines.len(), expected.len() + 1, "{}", all.err);
    assert_eq!(lines.last(), Some(&"oe-node zone generate: 15 problems"));
    let written = place.read("z");
    assert!(written.contains("\n1\t") && written.contains("\n3\t") && !written.contains("\n2\t"));
}

/// A list whose writer has failed leaves the zone as it stands.
#[test]
fn an_empty_list_replaces_nothing() {
    let place = Place::new();
    for list in ["", "address,name,gateway,key\n", "# nobody\n\n"] {
        place.write("l.csv", list);
        place.write("z", "; as it was\n");
        let ran = zone(&place, &[&["generate", "--hosts", "l.csv", "-o", "z"], &NS[..]].concat());
        assert_eq!(ran.code, 1);
        assert!(ran.err.contains("l.csv: no host in it (nothing written)"), "{}", ran.err);
        assert_eq!(place.read("z"), "; as it was\n");
    }
    place.write("empty", "; nothing\n");
    let ran = zone(&place, &["check", "empty"]);
    assert_eq!(ran.code, 0);
    assert!(ran.out.starts_with("empty:1:1: warning: no record in it\n"), "{}", ran.out);
    assert_eq!(zone(&place, &["check", "--strict", "empty"]).code, 1);
}

/// RFC 2181 §8; and a key that no TXT record can carry is called by its name.
#[test]
fn lives_and_keys_that_records_cannot_have() {
    let place = Place::new();
    place.key("a.pem", 2048, 1);
    let common = ["generate", "--prefix", "192.0.2.0/30", "--key-file", "a.pem"];
    let ran = zone(&place, &[&common[..], &NS, &["--ttl", "2147483648"]].concat());
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("--ttl"), "{}", ran.err);
    place.write("l.csv", "192.0.2.1,a.example,self,a.pem,,,2147483648\n");
    let ran = zone(&place, &[&["generate", "--hosts", "l.csv"], &NS[..]].concat());
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("l.csv:1:34: ttl: above 2147483647"), "{}", ran.err);
    let made = ["keygen", "--type", "ed25519", "--output", "e.pem"];
    run(&place, tests::oe_node(), &made).good();
    let args = ["generate", "--prefix", "192.0.2.0/30", "--key-file", "e.pem"];
    let ran = zone(&place, &[&args[..], &NS].concat());
    assert!(ran.err.contains("e.pem: Ed25519: not an RSA key"), "{}", ran.err);
}

/// Who pipes a zone to `head` has made no mistake.
#[test]
fn a_reader_that_goes_is_told_nothing() {
    let place = Place::new();
    place.key("a.pem", 2048, 1);
    let mut child = Command::new(tests::oe_node())
        .args(["zone", "generate", "--prefix", "10.0.0.0/16", "--fragment", "--key-file"])
        .arg(place.path("a.pem"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "");
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

#[test]
fn line_seven_of_many_thousands() {
    let place = Place::new();
    place.key("a.pem", 2048, 1);
    let mut list = String::from("address,name,gateway,key\n");
    for i in 0..60_000_u32 {
        let host = if i == 5 {
            "10.0.0.x".to_owned()
        } else {
            format!("10.{}.{}.{}", i >> 16, i >> 8 & 255, i & 255)
        };
        writeln!(list, "{host},c{i}.example,self,a.pem").unwrap();
    }
    place.write("l.csv", &list);
    let args =
        ["generate", "--hosts", "l.csv", "--prefix", "10.0.0.0/8", "--keep-going", "-o", "z"];
    let ran = zone(&place, &[&args[..], &NS].concat());
    assert_eq!(ran.code, 1);
    assert!(
        ran.err.starts_with("oe-node zone generate: l.csv:7:1: address: expected"),
        "{}",
        ran.err
    );
    assert_eq!(place.read("z").matches("\tPTR\t").count(), 59_999);
}

#[test]
fn scripts_and_rows() {
    let place = Place::new();
    place.key("a.pem", 2048, 1);
    let common =
        ["generate", "--prefix", "192.0.2.0/30", "--classless", "none", "--key-file", "a.pem"];
    let script = zone(&place, &[&common[..], &["--format", "nsupdate"]].concat()).good();
    assert!(script.starts_with(
        "zone 2.0.192.in-addr.arpa.\nupdate add 0.2.0.192.in-addr.arpa. 3600 IN TXT \""
    ));
    assert!(script.ends_with("\nsend\n"));
    let rows = zone(&place, &[&common[..], &NS, &["--format", "powerdns"]].concat()).good();
    let rows: serde_json::Value = serde_json::from_str(&rows).unwrap();
    assert_eq!(rows["zone"], "2.0.192.in-addr.arpa");
    assert_eq!(rows["records"].as_array().unwrap().len(), 2 + 2 * 4);
    assert_eq!(rows["records"][3]["name"], "0.2.0.192.in-addr.arpa");
    assert_eq!(rows["records"][3]["type"], "IPSECKEY");
}

/// A million hosts take no more memory than a thousand.
#[test]
fn memory_does_not_grow_with_the_hosts() {
    let place = Place::new();
    place.key("a.pem", 2048, 1);
    let peak = |prefix: &str| {
        let mut child = Command::new(tests::oe_node())
            .args(["zone", "generate", "--prefix", prefix, "--fragment"])
            .arg("--key-file")
            .arg(place.path("a.pem"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = child.stdout.take().unwrap();
        let (mut buffer, mut octets, mut peak) = (vec![0; 1 << 20], 0, 0);
        loop {
            let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
            let high = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let high = high.and_then(|h| h.trim().split(' ').next()?.parse::<u64>().ok());
            peak = peak.max(high.unwrap_or(0));
            match out.read(&mut buffer).unwrap() {
                0 => break,
                n => octets += n,
            }
        }
        assert!(child.wait().unwrap().success());
        (peak, octets)
    };
    let (small, few) = peak("10.0.0.0/22");
    let (large, many) = peak("10.0.0.0/12");
    assert!(many > 800 * few, "{few} {many}");
    assert!(large < small + 4096, "{small} kB, then {large} kB");
}
