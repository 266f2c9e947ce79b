use super::super::facts::{NameFacts, Seen, SeenOutcome};
use super::super::report::{Verdict, Weight};
use super::*;
use dnskeys::{RsaKey, Rules, Security};
use serde_json::json;
use std::time::Duration;

const NOW: u64 = 1_795_219_200;

fn silent(name: &str) -> NameFacts {
    let seen = || Seen {
        security: Security::Secure,
        ttl: Duration::from_secs(60),
        aliases: vec![],
        outcome: SeenOutcome::NoRecord,
        texts: vec![],
        truncated: false,
        tcp: false,
    };
    NameFacts {
        name: name.parse().unwrap(),
        txt: seen(),
        ipseckey: seen(),
        old_key: false,
        chain: None,
        servers: vec![],
    }
}

/// A machine in order.
fn facts() -> MachineFacts {
    MachineFacts {
        on_path: Some("/usr/sbin/oe-node".into()),
        backend: Backend::Userspace,
        supported: true,
        key_file: "/var/lib/oe-node/host.key".into(),
        key: Ok(RsaKey::new(&[1, 0, 1], &[0xc5; 384]).unwrap().into()),
        daemon: Ok(
            json!({ "destinations": [1, 2], "counters": { "keying": { "downgrades": 0 } } }),
        ),
        ports: BTreeSet::from([53, 500, 4500]),
        interface: "ipsec0".to_owned(),
        trap: Ok(Looked {
            addresses: vec![],
            device: Some(1400),
            rules: 2,
            routes: 5,
            before: vec![],
        }),
        window: Some((1_795_000_000, 1_796_000_000)),
        devices: 1,
        forwards: false,
        calls_by_name: false,
        host: HostFacts {
            name: "west.test".parse().unwrap(),
            forward: silent("west.test"),
            addresses: Security::Secure,
            each: vec![],
        },
        each: vec![],
        public: true,
    }
}

fn reports(facts: &MachineFacts) -> Vec<Report> {
    judge(facts, &Against { rules: Rules::default(), now: NOW })
}

#[test]
fn a_machine_in_order_in_the_classic_order() {
    let facts = MachineFacts { devices: 2, forwards: true, ..facts() };
    let reports = reports(&facts);
    let mut out = Vec::new();
    for report in &reports {
        report.print(&mut out, false).unwrap();
    }
    let text = String::from_utf8(out).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("    ")).collect();
    assert_eq!(
        lines,
        [
            "Checking your system to see if IPsec got installed and started correctly:",
            "Version check and oe-node on-path                                \t[OK]",
            "Checking for TUN support in kernel                               \t[OK]",
            "Checking for RSA private key (/var/lib/oe-node/host.key)         \t[OK]",
            "Checking that oe-node is running                                 \t[OK]",
            "Checking that it listens on UDP 500 and 4500                     \t[OK]",
            "Checking that packets are trapped (device ipsec0)                \t[OK]",
            "Checking the clock against signatures in DNS                     \t[OK]",
            "Two or more interfaces found, checking IP forwarding             \t[OK]",
            "Checking NAT and MASQUERADEing                                   \t[N/A]",
            "Opportunistic Encryption DNS checks:",
            "Looking for TXT in forward map: west.test                        \t[MISSING]",
            "Does the machine have at least one non-private address?          \t[OK]",
        ]
    );
    assert!(reports.iter().all(|report| report.verdict == Verdict::Well), "{text}");
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn what_can_be_wrong_with_a_machine() {
    let gone = || Err("/run/oe-node/control.sock: is oe-node running?".to_owned());
    let missing = || Err(HostKeyError::Missing("/k".into()));
    let open = || Err(HostKeyError::Open { path: "/k".into(), mode: 0o644 });
    let trap = |device, rules| {
        Ok(Looked { addresses: vec![], device, rules, routes: rules, before: vec![] })
    };
    let rows: Vec<(MachineFacts, &str, Verdict)> = vec![
        (MachineFacts { on_path: None, ..facts() }, "not in PATH", Verdict::Well),
        (MachineFacts { supported: false, ..facts() }, "the kernel offers no TUN", Verdict::Failed),
        (MachineFacts { key: missing(), ..facts() }, "no such file", Verdict::Failed),
        (
            MachineFacts { key: open(), ..facts() },
            "lets others at the private key",
            Verdict::Failed,
        ),
        (
            MachineFacts { daemon: gone(), ports: BTreeSet::new(), trap: trap(None, 0), ..facts() },
            "is oe-node running?",
            Verdict::Failed,
        ),
        (
            MachineFacts { daemon: gone(), ..facts() },
            "another program holds UDP 500 and 4500",
            Verdict::Failed,
        ),
        (
            MachineFacts { ports: BTreeSet::from([500]), ..facts() },
            "nobody listens there",
            Verdict::Failed,
        ),
        (
            MachineFacts { trap: trap(None, 2), ..facts() },
            "the device is not there, 2 rules",
            Verdict::Failed,
        ),
        (
            MachineFacts { trap: trap(Some(1400), 0), ..facts() },
            "the device is there, 0 rules",
            Verdict::Failed,
        ),
        (
            MachineFacts { daemon: gone(), trap: trap(None, 2), ..facts() },
            "private destinations cannot be reached",
            Verdict::Failed,
        ),
        (
            MachineFacts { trap: Err(io::ErrorKind::PermissionDenied.into()), ..facts() },
            "the kernel does not tell",
            Verdict::CouldNotCheck,
        ),
        (MachineFacts { window: Some((1, 2)), ..facts() }, "the clock is ahead", Verdict::Failed),
        (
            MachineFacts { window: Some((u32::MAX - 1, u32::MAX)), ..facts() },
            "the clock is behind",
            Verdict::Failed,
        ),
        (MachineFacts { window: None, ..facts() }, "no signed answer", Verdict::Well),
        (
            MachineFacts {
                daemon: Ok(json!({ "counters": { "keying": { "downgrades": 3 } } })),
                ..facts()
            },
            "3 times a destination went clear",
            Verdict::Well,
        ),
        (
            MachineFacts {
                daemon: Ok(json!({ "downgraded": { "destinations": 2, "since_s": 90.0 } })),
                ..facts()
            },
            "2 destinations in the clear that can be encrypted to",
            Verdict::Well,
        ),
        (MachineFacts { devices: 2, ..facts() }, "right for a host", Verdict::Well),
        (MachineFacts { public: false, ..facts() }, "strangers cannot call it", Verdict::Well),
        (
            MachineFacts { calls_by_name: true, ..facts() },
            "calls as @west.test, and its key is not there",
            Verdict::Failed,
        ),
    ];
    for (facts, text, verdict) in rows {
        let reports = reports(&facts);
        let notes: Vec<&Note> =
            reports.iter().flat_map(|r| &r.checks).flat_map(|c| &c.notes).collect();
        assert!(notes.iter().any(|note| note.text.contains(text)), "{text}: {notes:#?}");
        for note in notes {
            assert_eq!(note.remedy.is_some(), note.weight != Weight::Info, "{note:?}");
        }
        assert_eq!(reports.iter().map(|r| r.verdict).max(), Some(verdict), "{text}");
    }
}

#[test]
fn addresses_worth_looking_up() {
    let all = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<IpAddr>>();
    let local = ["127.0.0.1", "::1", "fe80::1", "10.0.0.1"];
    let with = [&local[..], &["192.0.2.11", "2001:db8::b", "192.0.2.11"]].concat();
    assert_eq!(worth_looking_up(&all(&with)), (all(&["192.0.2.11", "2001:db8::b"]), true));
    assert_eq!(worth_looking_up(&all(&local)), (all(&["10.0.0.1"]), false));
    assert_eq!(worth_looking_up(&[]), (vec![], false));
}

#[test]
fn ports_are_read_from_the_kernels_table() {
    let table = "   sl  local_address rem_address   st tx_queue\n\
                 \x20  1: 00000000:01F4 00000000:0000 07 00000000:00000000\n\
                 \x20  2: 00000000000000000000000000000000:1194 00000000:0000 07 0\n\
                 garbage\n";
    assert_eq!(local_ports(table).collect::<Vec<_>>(), [500, 4500]);
}
