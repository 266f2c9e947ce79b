//! `zone publish` and `zone rollover` against BIND.

use crate::rig::{Daemon, Place, dig, eventually, free_port, key, lacks, run, zone};

struct Bind {
    place: Place,
    port: u16,
    _named: Daemon,
}

impl Bind {
    /// A primary for 2.0.192.in-addr.arpa that takes updates signed with `upd.key`.
    fn start() -> Self {
        let place = Place::new();
        let keygen = run(&place, "tsig-keygen", &["-a", "hmac-sha256", "upd.example"]).good();
        place.write("upd.key", &keygen);
        place.write(
            "other.key",
            &run(&place, "tsig-keygen", &["-a", "hmac-sha256", "upd.example"]).good(),
        );
        place.write(
            "unknown.key",
            &run(&place, "tsig-keygen", &["-a", "hmac-sha256", "nobody.example"]).good(),
        );
        place.write(
            "db",
            "$TTL 300\n@ SOA ns.example. h.example. 1 3600 600 86400 2\n@ NS ns.example.\n\
             11 1 TXT \"v=spf1 -all\"\n",
        );
        let (port, directory) = (free_port(), place.path(""));
        let directory = directory.display();
        place.write(
            "named.conf",
            &format!(
                "include \"{directory}/upd.key\";\n\
                 options {{ directory \"{directory}\"; listen-on port {port} {{ 127.0.0.1; }};\n\
                 listen-on-v6 {{ none; }}; pid-file none; session-keyfile none; recursion no;\n\
                 dnssec-validation no; notify no; }};\n\
                 controls {{ }};\n\
                 zone \"2.0.192.in-addr.arpa\" {{ type primary; file \"db\";\n\
                 allow-update {{ key \"upd.example\"; }}; }};\n"
            ),
        );
        let named = Daemon::start(&place, "named", &["-g", "-c", "named.conf"]);
        eventually("named answers", || {
            dig(&place, port, &["2.0.192.in-addr.arpa", "SOA"]).contains("SOA")
        });
        Self { place, port, _named: named }
    }

    fn publish(&self, args: &[&str]) -> crate::rig::Ran {
        let server = format!("127.0.0.1:{}", self.port);
        let head = ["publish", "--server", &server, "--zone", "2.0.192.in-addr.arpa"];
        zone(&self.place, &[&head[..], args].concat())
    }

    fn ask(&self, owner: &str, rtype: &str) -> Vec<String> {
        let answer = dig(&self.place, self.port, &["+tcp", owner, rtype]);
        let mut lines: Vec<String> = answer
            .lines()
            .map(|line| line.split_whitespace().skip(4).collect::<Vec<_>>().join(" "))
            .collect();
        lines.sort();
        lines
    }
}

#[test]
fn publishing_is_idempotent_and_leaves_foreign_text() {
    let test = "publishing_is_idempotent_and_leaves_foreign_text";
    if lacks(test, &["named", "dig", "tsig-keygen"]) {
        return;
    }
    let bind = Bind::start();
    bind.place.key("host.pem", 3072, 1);
    let generate = [
        "generate",
        "--prefix",
        "192.0.2.0/24",
        "--key-file",
        "host.pem",
        "--ns",
        "ns.example",
        "--name",
        "h{4}.example",
        "--ttl",
        "1",
        "-o",
        "z",
    ];
    zone(&bind.place, &generate).good();
    let tsig = ["--tsig", "upd.key", "z"];

    let dry = bind.publish(&[&["--dry-run"][..], &tsig].concat()).good();
    assert_eq!(dry.lines().filter(|line| line.starts_with("+ ")).count(), 768);
    assert!(bind.ask("12.2.0.192.in-addr.arpa", "TXT").is_empty());

    let done = bind.publish(&tsig).good();
    assert!(done.contains("768 records, 0 in place, 768 set, 0 removed, "), "{done}");
    let texts = bind.ask("11.2.0.192.in-addr.arpa", "TXT");
    assert_eq!(texts.len(), 2);
    assert!(texts[0].starts_with("\"X-IPsec-Server(10)=192.0.2.11\" \" AwEAA"));
    assert_eq!(texts[1], "\"v=spf1 -all\"");
    let ipseckey = bind.ask("255.2.0.192.in-addr.arpa", "IPSECKEY");
    assert_eq!(ipseckey, [format!("10 0 2 . {}", key(3072, 1).to_base64())]);

    let again = bind.publish(&tsig).good();
    assert!(again.contains("768 records, 768 in place, 0 set, 0 removed, 0 messages"), "{again}");

    let gone = bind.publish(&[&["--withdraw"][..], &tsig].concat()).good();
    assert!(gone.contains("0 set, 768 removed"), "{gone}");
    assert_eq!(bind.ask("11.2.0.192.in-addr.arpa", "TXT"), ["\"v=spf1 -all\""]);
    assert!(bind.publish(&[&["--withdraw"][..], &tsig].concat()).good().contains(" 0 messages"));
}

#[test]
fn refusals_are_explained() {
    if lacks("refusals_are_explained", &["named", "dig", "tsig-keygen"]) {
        return;
    }
    let bind = Bind::start();
    bind.place.write("z", "$TTL 60\n1.2.0.192.in-addr.arpa. TXT x\n");
    bind.place.write("stray", "$TTL 60\n1.2.0.10.in-addr.arpa. TXT x\n");
    for (args, expected) in [
        (&["z"][..], "it allows this key no updates"),
        (&["--tsig", "other.key", "z"], "refused the TSIG key upd.example.: BadSig"),
        (&["--tsig", "unknown.key", "z"], "refused the TSIG key nobody.example.: BadKey"),
        (&["--tsig", "upd.key", "stray"], "is not within 2.0.192.in-addr.arpa."),
        (&["--tsig", "z", "z"], "no TSIG key"),
    ] {
        let ran = bind.publish(args);
        assert_eq!(ran.code, 1, "{args:?}");
        assert!(ran.err.contains(expected), "{args:?}: {}", ran.err);
    }
    assert!(bind.ask("1.2.0.192.in-addr.arpa", "TXT").is_empty());
}

#[test]
fn a_key_rolls_over() {
    if lacks("a_key_rolls_over", &["named", "dig", "tsig-keygen"]) {
        return;
    }
    let bind = Bind::start();
    bind.place.key("old.pem", 2048, 1);
    bind.place.key("new.pem", 2048, 3);
    let generate = [
        "generate",
        "--prefix",
        "192.0.2.8/30",
        "--classless",
        "none",
        "--key-file",
        "old.pem",
        "--fragment",
        "--ttl",
        "2",
        "-o",
        "z",
    ];
    zone(&bind.place, &generate).good();
    bind.publish(&["--tsig", "upd.key", "z"]).good();

    let (old, new) = (key(2048, 1).to_base64(), key(2048, 3).to_base64());
    let holds = |key: &str| {
        bind.ask("9.2.0.192.in-addr.arpa", "IPSECKEY").contains(&format!("10 0 2 . {key}"))
    };
    let server = format!("127.0.0.1:{}", bind.port);
    let rollover = |args: &[&str]| zone(&bind.place, &[&["rollover"][..], args].concat());
    let start = [
        "start",
        "--state",
        "state",
        "--server",
        &server,
        "--zone",
        "2.0.192.in-addr.arpa",
        "--tsig",
        "upd.key",
        "--old-key-file",
        "old.pem",
        "--new-key-file",
        "new.pem",
        "--propagation",
        "1",
        "z",
    ];
    let started = rollover(&start).good();
    assert!(started.contains("8 records with the new key published beside the old"), "{started}");
    assert!(started.contains("caches need another"), "{started}");
    assert!(holds(&old) && holds(&new));
    // Neither an impatient operator nor a second start skips the wait.
    let early = rollover(&["continue", "--state", "state", "--switched"]).good();
    assert!(early.contains("caches need another"), "{early}");
    assert_eq!(rollover(&start).code, 1);
    assert!(rollover(&["status", "--state", "state"]).good().contains("waiting for caches"));

    let spread = rollover(&["continue", "--state", "state", "--wait"]).good();
    assert!(spread.contains("give the daemon the new key"), "{spread}");
    assert!(holds(&old) && holds(&new));
    let switched = rollover(&["continue", "--state", "state", "--switched", "--wait"]).good();
    assert!(switched.contains("8 records with the old key withdrawn"), "{switched}");
    assert!(switched.contains("done"), "{switched}");
    assert!(!holds(&old) && holds(&new));
    let over = rollover(&["continue", "--state", "state"]).good();
    assert!(over.contains("done: only the new key is published"));
}
