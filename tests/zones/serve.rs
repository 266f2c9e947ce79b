//! `zone serve`: the tools and validators of others accept what it says and what it signed.

use std::fs;

use crate::rig::{Daemon, Place, dig, eventually, free_port, lacks, run, zone};

fn place() -> Place {
    let place = Place::new();
    place.key("host.pem", 2048, 1);
    let generate = [
        "generate",
        "--prefix",
        "192.0.2.0/24",
        "--key-file",
        "host.pem",
        "--ns",
        "ns.example",
        "--serial",
        "7",
        "-o",
        "z",
    ];
    zone(&place, &generate).good();
    place
}

const TOP: &str = "2.0.192.in-addr.arpa";

#[test]
fn ldns_verifies_every_signature() {
    if lacks("ldns_verifies_every_signature", &["dig", "ldns-verify-zone"]) {
        return;
    }
    let place = place();
    // A cut, glue, a wildcard and names that are only on the way to others.
    let mut text = place.read("z");
    text.push_str("sub NS ns.sub\nns.sub A 192.0.2.53\na.b.c TXT x\n*.w TXT y\n");
    place.write("z", &text);
    let (_server, port) = Daemon::serve(&place, &["--secondary", "127.0.0.0/8", "z"]);
    let transfer = dig(&place, port, &["AXFR", TOP]);
    assert!(transfer.lines().count() > 1500, "{transfer}");
    place.write("signed", &transfer);
    let verified = run(&place, "ldns-verify-zone", &["signed"]);
    assert!(verified.good().contains("Zone is verified and complete"));
}

#[test]
fn delv_validates_presence_and_absence() {
    if lacks("delv_validates_presence_and_absence", &["delv"]) {
        return;
    }
    let place = place();
    let mut text = place.read("z");
    text.push_str("a.b.c TXT x\n*.w TXT y\nal CNAME a.b.c\nd DNAME b.c\n");
    place.write("z", &text);
    let (_server, port) = Daemon::serve(&place, &["--write-trust-anchor", "ta", "z"]);
    let anchor = place.read("ta");
    let fields: Vec<&str> = anchor.split_whitespace().collect();
    let key = fields[7..].concat();
    place.write(
        "delv.conf",
        &format!("trust-anchors {{ {TOP}. static-key 257 3 13 \"{key}\"; }};\n"),
    );
    let port = port.to_string();
    for (owner, rtype, expected) in [
        ("11", "TXT", "; fully validated"),
        ("11", "IPSECKEY", "; fully validated"),
        ("deep.er.w", "TXT", "; fully validated"),
        ("al", "TXT", "; fully validated"),
        ("a.d", "TXT", "; fully validated"),
        ("nobody", "TXT", "; negative response, fully validated"),
        ("b.c", "TXT", "; negative response, fully validated"),
        ("11", "PTR", "; negative response, fully validated"),
        ("deep.er.w", "PTR", "; negative response, fully validated"),
    ] {
        let owner = format!("{owner}.{TOP}");
        let root = format!("+root={TOP}");
        let args = ["@127.0.0.1", "-p", &port, "-a", "delv.conf", &root, &owner, rtype];
        let ran = run(&place, "delv", &args);
        assert!(ran.out.starts_with(expected), "{owner} {rtype}: {}{}", ran.out, ran.err);
    }
}

#[test]
fn unbound_validates_down_a_chain() {
    if lacks("unbound_validates_down_a_chain", &["unbound", "dig"]) {
        return;
    }
    let place = place();
    // Parent and child, both served and signed here; and a child that is served by nobody.
    place.write(
        "parent",
        "$ORIGIN 0.192.in-addr.arpa.\n$TTL 60\n@ SOA ns.example. h.example. 1 2 3 4 5\n\
         @ NS ns.example.\n2 NS ns.example.\n3 NS ns.nowhere.example.\n",
    );
    let (_server, port) = Daemon::serve(&place, &["--write-trust-anchor", "ta", "z", "parent"]);
    let anchor = place.read("ta");
    assert_eq!(anchor.lines().count(), 1, "the child needs no anchor of its own: {anchor}");
    assert!(anchor.starts_with("0.192.in-addr.arpa."));
    let own = free_port();
    let directory = place.path("");
    let directory = directory.display();
    place.write(
        "unbound.conf",
        &format!(
            "server:\n directory: \"{directory}\"\n chroot: \"\"\n username: \"\"\n pidfile: \"\"\n\
             interface: 127.0.0.1@{own}\n do-not-query-localhost: no\n use-syslog: no\n\
             module-config: \"validator iterator\"\n trust-anchor-file: \"ta\"\n\
             local-zone: \"2.0.192.in-addr.arpa\" nodefault\n qname-minimisation: yes\n\
             stub-zone:\n name: \"0.192.in-addr.arpa\"\n stub-addr: 127.0.0.1@{port}\n"
        ),
    );
    let _unbound = Daemon::start(&place, "unbound", &["-d", "-c", "unbound.conf"]);
    let ask = |owner: &str, rtype: &str| {
        let own = own.to_string();
        let args = ["@127.0.0.1", "-p", &own, "+dnssec", "+time=2", "+tries=1", owner, rtype];
        run(&place, "dig", &args).out
    };
    eventually("unbound answers", || ask("11.2.0.192.in-addr.arpa", "TXT").contains("NOERROR"));
    let answer = ask("11.2.0.192.in-addr.arpa", "TXT");
    assert!(
        answer.contains(" ad;") && answer.contains("X-IPsec-Server(10)=192.0.2.11"),
        "{answer}"
    );
    let answer = ask("nobody.2.0.192.in-addr.arpa", "TXT");
    assert!(answer.contains("NXDOMAIN") && answer.contains(" ad;"), "{answer}");
    let answer = ask("11.2.0.192.in-addr.arpa", "PTR");
    assert!(answer.contains("NOERROR") && answer.contains(" ad;"), "{answer}");
}

#[test]
fn nsd_is_a_secondary() {
    if lacks("nsd_is_a_secondary", &["nsd", "dig"]) {
        return;
    }
    let place = place();
    let own = free_port();
    let secondary = format!("127.0.0.1:{own}");
    let (_server, port) = Daemon::serve(&place, &["--secondary", &secondary, "z"]);
    let directory = place.path("");
    let directory = directory.display();
    place.write(
        "nsd.conf",
        &format!(
            "server:\n ip-address: 127.0.0.1@{own}\n username: \"\"\n chroot: \"\"\n\
             pidfile: \"\"\n zonesdir: \"{directory}\"\n database: \"\"\n xfrdfile: \"{directory}/xfrd.state\"\n\
             zonelistfile: \"{directory}/zone.list\"\n server-count: 1\n\
             remote-control:\n control-enable: no\n\
             zone:\n name: {TOP}\n zonefile: slave.zone\n request-xfr: AXFR 127.0.0.1@{port} NOKEY\n\
             allow-notify: 127.0.0.1 NOKEY\n"
        ),
    );
    let _nsd = Daemon::start(&place, "nsd", &["-d", "-c", "nsd.conf"]);
    let has = |owner: &str, text: &str| dig(&place, own, &["+tcp", owner, "TXT"]).contains(text);
    eventually("nsd has the zone", || has("11.2.0.192.in-addr.arpa", "X-IPsec-Server"));
    let before = dig(&place, own, &[TOP, "SOA"]);
    assert!(before.contains(" 7 3600"), "{before}");
    // The file keeps its serial; what is served must not, or nobody would fetch it.
    place.write("z", &(place.read("z") + "new TXT \"fresh\"\n"));
    eventually("nsd is told", || has("new.2.0.192.in-addr.arpa", "fresh"));
}

#[test]
fn queries_go_on_while_the_zone_changes() {
    if lacks("queries_go_on_while_the_zone_changes", &["dig"]) {
        return;
    }
    let place = place();
    let (server, port) = Daemon::serve(&place, &["z"]);
    let text = |owner: &str| dig(&place, port, &[&format!("{owner}.{TOP}"), "TXT"]);
    assert!(text("11").contains("192.0.2.11"));
    let whole = place.read("z");
    place.write("z", &format!("{whole}new TXT \"one\"\n"));
    eventually("the change is seen", || text("new").contains("one"));
    // A broken file changes nothing.
    place.write("z", "nonsense\n");
    eventually("the fault is told", || place.read("serve.log").contains("z:1:"));
    assert!(text("new").contains("one") && text("11").contains("192.0.2.11"));
    // Nobody may transfer who is no secondary.
    assert!(!dig(&place, port, &["AXFR", TOP]).contains("SOA"));
    place.write("z", &whole);
    server.signal("HUP");
    eventually("the new file is served", || text("new").is_empty());
    assert!(text("11").contains("192.0.2.11"));
}

#[test]
fn the_key_is_kept_and_signatures_are_renewed() {
    if lacks("the_key_is_kept_and_signatures_are_renewed", &["dig"]) {
        return;
    }
    let place = place();
    let dnskey = |port| dig(&place, port, &[TOP, "DNSKEY"]);
    let serial = |port| {
        let soa = dig(&place, port, &[TOP, "SOA"]);
        soa.split_whitespace().nth(6).and_then(|serial| serial.parse::<u32>().ok()).unwrap()
    };
    let (first, last) = {
        let (_server, port) = Daemon::serve(&place, &["--lifetime", "8s", "z"]);
        let (key, before) = (dnskey(port), serial(port));
        assert_eq!(before, 7);
        eventually("signatures are renewed", || serial(port) > before);
        assert_eq!(dnskey(port), key);
        (key, serial(port))
    };
    let (_server, port) = Daemon::serve(&place, &["z"]);
    assert_eq!(dnskey(port), first);
    // A restart signs anew, so secondaries must see a newer zone.
    assert!(serial(port) > last);
    let key = fs::metadata(place.path("keys/2.0.192.in-addr.arpa.key.pem")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&key.permissions()) & 0o777, 0o600);
}
