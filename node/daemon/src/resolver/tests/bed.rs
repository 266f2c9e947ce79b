//! Lookups against a real signed tree (NSD) behind a real validating resolver (Unbound).

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::*;
use crate::kernel::namespace::{has, in_namespace, run, skipped};

const SERVER: &str = "203.0.113.53";

/// The bed's script, outside the repository.
fn script() -> Option<PathBuf> {
    let rigs = std::env::var_os("OE_RIGS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/rigs"),
        PathBuf::from,
    );
    let script = rigs.join("dns/dnsrig.py");
    if !script.is_file() {
        skipped(&format!("no DNS bed at {}", script.display()));
        return None;
    }
    has(&["python3", "nsd", "unbound", "ldns-signzone"]).then_some(script)
}

/// A bed that runs until it is dropped.
struct Bed {
    script: PathBuf,
    dir: PathBuf,
}

impl Bed {
    fn start(script: PathBuf, test: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("oe-node-dns-{test}-{}", std::process::id()));
        let hosts = dir.with_extension("json");
        std::fs::write(&hosts, hosts_json()).unwrap();
        run(&format!("ip addr add {SERVER}/32 dev lo"));
        let bed = Self { script, dir };
        bed.control(&format!("build {} {}", bed.dir.display(), hosts.display()));
        bed.control(&format!("start {} {SERVER}", bed.dir.display()));
        std::fs::remove_file(hosts).unwrap();
        bed
    }

    fn control(&self, words: &str) {
        run(&format!("python3 {} {words}", self.script.display()));
    }

    fn stop(&self) {
        self.control(&format!("stop {}", self.dir.display()));
    }

    fn resolver(&self, anchors: &str, port: u16) -> Resolver {
        let config = ResolverConfig {
            servers: vec![format!("{SERVER}:{port}").parse().unwrap()],
            trust_anchors: Some(self.dir.join(anchors)),
            mark: Some(0x0e),
        };
        Resolver::new(&config).unwrap()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.stop();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn hosts_json() -> String {
    // Exponent 65537 and 2048 odd bits: the form of a key, and nobody's.
    let key = STANDARD.encode([&[3, 1, 0, 1][..], &[0xc5; 256]].concat());
    let (first, second) = key.split_at(200);
    let txt = |gateway: &str| {
        format!("IN TXT \"X-IPsec-Server(10)={gateway}\" \" {first}\" \"{second}\"")
    };
    let long = "x".repeat(250);
    let mut signed = vec![
        ("11".to_owned(), txt("192.0.2.11")),
        ("12".to_owned(), "IN PTR plain.test.".to_owned()),
        ("13".to_owned(), "IN CNAME 13.customer.test.".to_owned()),
        ("14".to_owned(), "IN CNAME gone.customer.test.".to_owned()),
        ("15".to_owned(), format!("IN IPSECKEY 10 1 2 192.0.2.15 {key}")),
        ("16".to_owned(), "IN CNAME 16.2.0.192.in-addr.arpa.".to_owned()),
        ("17".to_owned(), txt("192.0.2.17")),
        ("18".to_owned(), "IN TXT \"something else\"".to_owned()),
        ("19".to_owned(), "IN CNAME 5.100.51.198.in-addr.arpa.".to_owned()),
        ("sub".to_owned(), "IN DNAME customer.test.".to_owned()),
    ];
    signed.extend((0..8).map(|n| ("17".to_owned(), format!("IN TXT \"{n}{long}\""))));
    let unsigned = [
        ("5".to_owned(), txt("198.51.100.5")),
        ("6".to_owned(), "IN CNAME 11.2.0.192.in-addr.arpa.".to_owned()),
        ("7".to_owned(), "IN CNAME nobody.2.0.192.in-addr.arpa.".to_owned()),
    ];
    let customer = [("13".to_owned(), txt("192.0.2.13"))];
    let broken = [("9".to_owned(), txt("203.0.113.9"))];
    let zone = |signed: serde_json::Value, records: &[(String, String)]| serde_json::json!({ "signed": signed, "ttl": 60, "negttl": 7, "records": records });
    let mut nsec3 = zone(true.into(), &[("3".to_owned(), txt("198.18.3.3"))]);
    nsec3["nsec3"] = true.into();
    let wild = |record: &str, nsec3: bool| {
        let mut wild = zone(true.into(), &[("*".to_owned(), record.to_owned())]);
        wild["nsec3"] = nsec3.into();
        wild
    };
    let wild_alias = "IN CNAME 11.2.0.192.in-addr.arpa.";
    serde_json::json!({ "server": SERVER, "zones": {
        "11.18.198.in-addr.arpa": wild(&txt("192.0.2.11"), false),
        "12.18.198.in-addr.arpa": wild(&txt("192.0.2.11"), true),
        "13.18.198.in-addr.arpa": wild("IN PTR wild.test.", false),
        "14.18.198.in-addr.arpa": wild("IN PTR wild.test.", true),
        "15.18.198.in-addr.arpa": wild(wild_alias, false),
        "16.18.198.in-addr.arpa": wild(wild_alias, true),
        "2.0.192.in-addr.arpa": zone(true.into(), &signed),
        "100.51.198.in-addr.arpa": zone(false.into(), &unsigned),
        "customer.test": zone(true.into(), &customer),
        "113.0.203.in-addr.arpa": zone("bogus".into(), &broken),
        "1.18.198.in-addr.arpa": zone("expired".into(), &broken),
        "3.18.198.in-addr.arpa": nsec3,
    }})
    .to_string()
}

fn reverse(addr: &str) -> Name {
    Name::reverse(addr.parse().unwrap())
}

fn is_record(answer: &Answer) -> bool {
    matches!(&answer.outcome, Outcome::Records(set) if set.gateways.len() == 1)
}

async fn every_outcome(resolver: &Resolver) {
    let ask = async |addr: &str| resolver.answer(&reverse(addr)).await;

    let secure = ask("192.0.2.11").await;
    assert!(is_record(&secure), "{secure:?}");
    assert_eq!(secure.security, Security::Secure);
    assert!(secure.ttl > Duration::from_secs(20) && secure.ttl <= Duration::from_secs(60));

    let insecure = ask("198.51.100.5").await;
    assert!(is_record(&insecure), "{insecure:?}");
    assert_eq!(insecure.security, Security::Insecure);

    for broken in ["203.0.113.9", "198.18.1.9"] {
        let bogus = ask(broken).await;
        assert_eq!((bogus.outcome, bogus.security), (Outcome::Bogus, Security::Bogus), "{broken}");
    }

    for (absent, outcome, security) in [
        ("192.0.2.77", Outcome::NoName, Security::Secure),
        ("192.0.2.12", Outcome::NoRecord, Security::Secure),
        ("192.0.2.18", Outcome::NoRecord, Security::Secure),
        ("192.0.2.14", Outcome::NoName, Security::Secure),
        ("198.51.100.77", Outcome::NoName, Security::Insecure),
        ("198.18.3.77", Outcome::NoName, Security::Secure),
    ] {
        let answer = ask(absent).await;
        assert_eq!((answer.outcome, answer.security), (outcome, security), "{absent}");
        assert!(answer.ttl <= Duration::from_secs(7), "{absent}: the SOA minimum");
        assert!(answer.ttl > Duration::ZERO, "{absent}");
    }

    assert_eq!(ask("198.18.3.3").await.security, Security::Secure, "NSEC3 zone");
}

async fn aliases(resolver: &Resolver) {
    let ask = async |addr: &str| resolver.answer(&reverse(addr)).await;

    let aliased = ask("192.0.2.13").await;
    assert!(is_record(&aliased), "{aliased:?}");
    assert_eq!(aliased.security, Security::Secure);
    assert_eq!(aliased.owner, reverse("192.0.2.13"));

    // The target is known, and known to be secure; the alias is not.
    assert_eq!(ask("192.0.2.11").await.security, Security::Secure);
    let unsigned = ask("198.51.100.6").await;
    assert!(is_record(&unsigned), "{unsigned:?}");
    assert_eq!(unsigned.security, Security::Insecure, "an unsigned alias is not secure");
    assert_eq!(ask("198.51.100.7").await.security, Security::Insecure);
    assert_eq!(ask("192.0.2.19").await.security, Security::Insecure, "nor is an unsigned target");

    assert!(matches!(ask("192.0.2.16").await.outcome, Outcome::Failed(_)), "a loop ends");

    let below = "13.sub.2.0.192.in-addr.arpa.".parse().unwrap();
    let finding = resolver.lookup(&below, RecordType::TXT).await;
    assert_eq!(finding.records().len(), 1, "{finding:?}");
    assert_eq!(finding.security, Security::Secure);
    assert_eq!(finding.owner.to_ascii(), "13.customer.test.");
    assert_eq!(finding.aliases.len(), 1);
}

/// Rule 65.
#[test]
fn through_a_validating_server() {
    let Some(script) = script() else { return };
    in_namespace(|| async {
        let bed = Bed::start(script, "validating");
        let resolver = bed.resolver("anchor.key", 53);
        every_outcome(&resolver).await;
        aliases(&resolver).await;

        let ipseckey = resolver.answer(&reverse("192.0.2.15")).await;
        assert!(is_record(&ipseckey), "{ipseckey:?}");
        assert_eq!(ipseckey.security, Security::Secure);

        let large = resolver.lookup(&reverse("192.0.2.17"), RecordType::TXT).await;
        assert_eq!(large.records().len(), 9);
        assert!(large.exchange.truncated && large.exchange.tcp);
        assert!(!resolver.lookup(&reverse("192.0.2.11"), RecordType::TXT).await.exchange.tcp);

        let (security, addresses) = resolver.addresses(&"ns.test".parse().unwrap()).await;
        assert_eq!(security, Security::Secure);
        assert_eq!(addresses, [SERVER.parse::<IpAddr>().unwrap()]);

        let direct = format!("{SERVER}:5300").parse().unwrap();
        let reply = resolver.ask(direct, &reverse("192.0.2.11"), RecordType::TXT).await.unwrap();
        assert!(reply.authoritative);
        assert_eq!(reply.answers.len(), 1);
    });
}

#[test]
fn wildcards_are_no_forgeries() {
    let Some(script) = script() else { return };
    in_namespace(|| async {
        let bed = Bed::start(script, "wild");
        let resolver = bed.resolver("anchor.key", 53);
        for (addr, found) in [
            ("198.18.11.7", true),
            ("198.18.12.7", true),
            ("198.18.13.7", false),
            ("198.18.14.7", false),
            ("198.18.15.7", true),
            ("198.18.16.7", true),
        ] {
            let answer = resolver.answer(&reverse(addr)).await;
            assert_eq!(is_record(&answer), found, "{addr}: {answer:?}");
            assert_eq!(answer.security, Security::Secure, "{addr}");
            assert!(found || answer.outcome == Outcome::NoRecord, "{addr}");
        }
    });
}

#[test]
fn a_digest_is_as_good_an_anchor_as_a_key() {
    let Some(script) = script() else { return };
    in_namespace(|| async {
        let bed = Bed::start(script, "digest");
        every_outcome(&bed.resolver("anchor.ds", 53)).await;

        let strangers = bed.dir.join("stranger.ds");
        std::fs::write(&strangers, format!(". IN DS 1 13 2 {}", "00".repeat(32))).unwrap();
        let answer = bed.resolver("stranger.ds", 53).answer(&reverse("192.0.2.11")).await;
        assert_eq!(answer.outcome, Outcome::Bogus);
    });
}

#[test]
fn a_dead_server_is_a_failure_and_known_answers_outlive_it() {
    let Some(script) = script() else { return };
    in_namespace(|| async {
        let bed = Bed::start(script, "dead");
        let resolver = bed.resolver("anchor.key", 53);
        assert!(is_record(&resolver.answer(&reverse("192.0.2.11")).await));
        assert_eq!(resolver.answer(&reverse("192.0.2.77")).await.outcome, Outcome::NoName);
        bed.stop();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(is_record(&resolver.answer(&reverse("192.0.2.11")).await));
        assert_eq!(resolver.answer(&reverse("192.0.2.77")).await.outcome, Outcome::NoName);
        let began = Instant::now();
        let answer = resolver.answer(&reverse("192.0.2.78")).await;
        assert_eq!(answer.outcome, Outcome::Failed(Failure::Unreachable));
        // A refused port is told by ICMP, which anybody can forge: the answer is waited for.
        let took = began.elapsed();
        assert!((Duration::from_secs(1)..Duration::from_secs(5)).contains(&took), "{took:?}");
        assert!(answer.ttl <= Duration::from_secs(60));

        // Nobody at all there: silence.
        let servers = vec!["203.0.113.200:53".parse().unwrap()];
        let silent = Resolver::new(&ResolverConfig { servers, ..ResolverConfig::default() });
        run("ip route add 203.0.113.200/32 dev lo");
        let answer = silent.unwrap().answer(&reverse("192.0.2.78")).await;
        assert!(matches!(answer.outcome, Outcome::Failed(_)), "{answer:?}");
    });
}
