//! The daemon's life: how it starts, refuses to, ends, and what it says of itself.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::node::{Setup, text};
use tests::place;

use crate::binary::{self, Ended};
use crate::internet::{DNS, EAST, Internet, PATIENCE, WEST, assert_same, can_run};

/// Runs a node that is expected to refuse.
pub(crate) fn refused(internet: &Internet, file: &Path) -> Ended {
    let binary = tests::oe_node().display().to_string();
    let words = [&binary, "run", "--config", &file.display().to_string()];
    let mut command = place::command(&internet.namespace("west"), &words);
    binary::start(&mut command).wait(PATIENCE)
}

/// One line of error with all of these words in it, and exit code 1.
#[track_caller]
pub(crate) fn assert_one_line(ended: &Ended, words: &[&str]) {
    assert_eq!(ended.code, 1, "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    assert!(ended.stderr.starts_with("oe-node: "), "{ended:?}");
    for word in words {
        assert!(ended.stderr.contains(word), "no {word:?}: {ended:?}");
    }
    assert!(ended.stdout.is_empty(), "{ended:?}");
}

/// The policy directories of the classic implementations, with their comments, are read as they
/// are; of a line that names a host the log says where it is.
#[test]
fn classic_directories_are_taken_as_they_are() {
    if !can_run("classic_directories_are_taken_as_they_are") {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&[]);
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("netns/policies");
    for (of, expected) in [
        (
            "freeswan",
            &[
                ("192.0.2.53", "clear"),
                ("203.0.113.77", "clear"),
                ("203.0.113.177", "private-or-clear"),
                ("10.77.0.1", "private"),
            ][..],
        ),
        (
            "libreswan",
            &[
                ("192.168.1.1", "clear-or-private"),
                ("2001:db8:7::254", "clear"),
                ("10.1.0.1", "private-or-clear"),
            ],
        ),
    ] {
        let mut setup = internet.setup("west");
        setup.policies = Vec::new();
        let policies = setup.directory.join("policies");
        let _ = fs::remove_dir_all(&policies);
        fs::create_dir_all(&policies).unwrap();
        for file in fs::read_dir(fixtures.join(of)).unwrap().flatten() {
            fs::copy(file.path(), policies.join(file.file_name())).unwrap();
        }
        let mut node = setup.start(&internet.namespace("west"));
        for (address, group) in expected {
            let said = node.ask(&format!(r#"{{"request":"explain","address":"{address}"}}"#));
            assert_eq!(text(&said, "group"), *group, "{of} {address}: {said}");
        }
        if of == "freeswan" {
            let place = policies.join("clear").display().to_string() + ":11: ns.example.net: names";
            assert!(node.log().contains(&place), "{}", node.log());
        }
        node.terminate();
    }
}

/// `verify --probe` hears the answer of a gateway that this machine has a pair with, and whose other
/// packets in the clear are blocked.
#[test]
fn a_gateway_is_probed_beside_its_pair() {
    if !can_run("a_gateway_is_probed_beside_its_pair") {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west", "east"]);
    let setup = internet.setup("west");
    let nodes = [setup.start(&internet.namespace("west")), {
        let east = internet.setup("east");
        east.start(&internet.namespace("east"))
    }];
    let binary = tests::oe_node().display().to_string();
    let config = setup.write().display().to_string();
    for address in EAST {
        place::await_some("there is a pair", PATIENCE, || {
            internet.ping("west", address).then_some(())
        });
        let words = [&binary, "verify", "--config", &config, "--probe", "--ip", address];
        let (good, said) = place::run(&internet.namespace("west"), &words);
        assert!(good && said.contains("IKEv2, answered after"), "{said}");
    }
    for mut node in nodes {
        node.terminate();
    }
}

#[test]
fn what_is_wrong_is_said_in_one_line_and_nothing_is_left() {
    if !can_run("what_is_wrong_is_said_in_one_line_and_nothing_is_left") {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&[]);
    let setup = internet.setup("west");
    let good = fs::read_to_string(setup.write()).unwrap();
    let place = |name: &str| internet.directory.join(name);
    let shown = |name: &str| place(name).display().to_string();

    fs::write(place("open.key"), fs::read_to_string(place("west.key")).unwrap()).unwrap();
    fs::set_permissions(place("open.key"), fs::Permissions::from_mode(0o644)).unwrap();
    std::os::unix::fs::symlink(place("west.key"), place("link.key")).unwrap();
    internet.write_key("damaged.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n");
    fs::create_dir(place("bad-policies")).unwrap();
    fs::write(place("bad-policies/private"), "10.0.0.0/8\n10.0.0.0/99\n").unwrap();
    fs::write(place("bad-anchor"), "this is no DNSKEY\n").unwrap();
    fs::write(place("file"), "in the way\n").unwrap();

    let key = shown("west.key");
    let policies = setup.directory.join("policies").display().to_string();
    let anchor = shown("anchor");
    let state = setup.directory.join("state").display().to_string();
    let socket = setup.socket().display().to_string();
    let line = |key: &str| 1 + good.lines().position(|line| line.starts_with(key)).unwrap();
    let at = |key: &str, whole: &str| format!("wrong.toml:{}: {whole}: ", line(key));
    // What is replaced by what, and the words of the complaint.
    let cases: Vec<(String, String, Vec<String>)> = vec![
        with("[node]", "[node]\ncolour = 1", &["wrong.toml:2: node.colour: unknown field"]),
        with(
            "resolvers = [\"",
            "resolvers = [\"one",
            &[&format!("wrong.toml:{}: dns.resolvers: ", line("resolvers")), "one203.0.113.53"],
        ),
        with("[dns]", "[dns", &["wrong.toml:6: ", "unclosed table"]),
        with("[node]", "[node]\nmark = 0", &["wrong.toml:2: node.mark: "]),
        with("[node]", "[node]\ndestinations = 9", &["wrong.toml:2: node.destinations: ", "1024"]),
        with("[node]", "[node]\ntable = 254", &["wrong.toml:2: node.table: ", "254"]),
        with(
            "[node]",
            "[node]\ninterface = \"lo\"",
            &["wrong.toml:2: node.interface: ", "device lo", "already"],
        ),
        with("[node]", "[node]\ninterface = \"eth0\"", &["wrong.toml:2: node.interface: ", "eth0"]),
        with(
            "[node]",
            "[node]\nlisten = [\"192.0.2.99\"]",
            &["wrong.toml:2: node.listen: ", "192.0.2.99"],
        ),
        with(
            &key,
            &shown("open.key"),
            &[&at("key", "node.key"), &shown("open.key"), "0644", "chmod 600"],
        ),
        with(
            &key,
            &shown("link.key"),
            &[&at("key", "node.key"), &shown("link.key"), "symbolic link"],
        ),
        with(&key, &shown("damaged.key"), &[&at("key", "node.key"), &shown("damaged.key")]),
        with(&key, &shown(""), &[&at("key", "node.key"), "not a regular file"]),
        with(
            &anchor,
            &shown("nowhere"),
            &[&at("trust-anchors", "dns.trust-anchors"), &shown("nowhere")],
        ),
        with(
            &anchor,
            &shown("bad-anchor"),
            &[&at("trust-anchors", "dns.trust-anchors"), &shown("bad-anchor")],
        ),
        with(
            &policies,
            &shown("nowhere"),
            &[&at("directory", "policy.directory"), &shown("nowhere")],
        ),
        with(&policies, &shown("bad-policies"), &["bad-policies/private:2: ", "10.0.0.0/99"]),
        with(
            &socket,
            &shown("file/socket"),
            &[&at("control-socket", "node.control-socket"), &shown("file")],
        ),
        with(&format!("key = \"{key}\""), &format!("# {state}"), &["node.key", &shown("file")]),
    ];
    let before = internet.traces("west");
    for (what, by, words) in cases {
        let mut wrong = good.replace(&what, &by);
        if by.starts_with('#') {
            wrong = wrong.replace(&state, &shown("file/state"));
        }
        assert_ne!(wrong, good, "{what}");
        fs::write(place("wrong.toml"), &wrong).unwrap();
        let ended = refused(&internet, &place("wrong.toml"));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        assert_one_line(&ended, &words);
        assert!(!setup.socket().exists(), "{what} {by}");
        assert_same(&before, &internet.traces("west"));
    }
    assert_one_line(&refused(&internet, &place("nowhere.toml")), &["nowhere.toml", "No such file"]);
    assert_one_line(&refused(&internet, &internet.directory), &["directory"]);
    assert_same(&before, &internet.traces("west"));
}

fn with(what: &str, by: &str, words: &[&str]) -> (String, String, Vec<String>) {
    let words = words.iter().map(|word| (*word).to_owned()).collect();
    (what.to_owned(), by.to_owned(), words)
}

#[test]
fn a_second_daemon_refuses_and_harms_nothing() {
    if !can_run("a_second_daemon_refuses_and_harms_nothing") {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west", "east"]);
    let east = internet.setup("east").start(&internet.namespace("east"));
    let setup = internet.setup("west");
    let node = setup.start(&internet.namespace("west"));
    assert!(internet.ping("west", EAST[0]));
    internet.await_settled("west");
    let before = internet.traces("west");
    // The same socket; then another one, but the same ports.
    let ended = refused(&internet, &setup.write());
    assert_one_line(&ended, &["node.control-socket", &setup.socket().display().to_string()]);
    let mut other = internet.setup("west");
    other.directory = internet.directory.join("other");
    fs::create_dir(&other.directory).unwrap();
    let ended = refused(&internet, &other.write());
    assert_one_line(&ended, &["node.listen", "UDP port 500", "another IKE daemon"]);
    assert!(!other.socket().exists());

    assert_same(&before, &internet.traces("west"));
    assert!(internet.ping("west", EAST[0]));
    assert_eq!(node.happened("keyed"), 1);
    assert_eq!(east.happened("keyed"), 1);
}

#[test]
fn the_first_start_makes_a_key_and_says_what_to_publish() {
    if !can_run("the_first_start_makes_a_key_and_says_what_to_publish") {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&[]);
    let binary = tests::oe_node().display().to_string();
    // Empty directories in place of this machine's own, for this process alone.
    let script = "for d in /var/lib /run; do mount -t tmpfs tmpfs $d; done\n\
         [ ! -e /etc/oe-node ] || mount -t tmpfs tmpfs /etc/oe-node\numask 0\nexec \"$0\" run";
    let log = internet.directory.join("first.log");
    let start = || {
        let out = fs::File::create(&log).unwrap();
        place::command(&internet.namespace("west"), &["sh", "-c", script, &binary])
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap()
    };
    let mut child = start();
    let root = format!("/proc/{}/root", child.id());
    let said = place::await_some("it runs", Duration::from_secs(60), || {
        assert!(child.try_wait().unwrap().is_none(), "{}", fs::read_to_string(&log).unwrap());
        let said = fs::read_to_string(&log).unwrap();
        said.contains("running on ipsec0").then_some(said)
    });
    let mode = |path: &str| {
        fs::metadata(format!("{root}{path}")).map(|m| m.permissions().mode() & 0o7777).unwrap()
    };
    assert_eq!(mode("/var/lib/oe-node/host.key"), 0o600);
    assert_eq!(mode("/run/oe-node/control.sock"), 0o600);
    for address in WEST {
        let record = format!("\"X-IPsec-Server(10)={address}\"");
        assert!(said.contains(&record), "no {record}: {said}");
    }
    assert!(said.contains("11.2.0.192.in-addr.arpa. IN TXT"), "{said}");
    assert!(said.contains("IN IPSECKEY"), "{said}");
    // What it prints is what showhostkey prints.
    let key = format!("{root}/var/lib/oe-node/host.key");
    let shown = binary::run(&["showhostkey", "--list", "--key-file", &key]);
    let id = said.split("key id ").nth(1).and_then(|rest| rest.split(')').next()).unwrap();
    assert!(shown.stdout.contains(id), "{id}: {shown:?}");
    let _ = Command::new("kill").arg(child.id().to_string()).status();
    assert!(child.wait().unwrap().success());
}

/// West's node, which may be ended in several ways: private towards east, the rest as it comes, and
/// more.
fn private_towards_east(internet: &Internet, more: &[(&'static str, &'static str)]) -> Setup {
    let mut setup = internet.setup("west");
    setup.policies = vec![
        ("private", "198.51.100.0/24\n192.0.2.128/25\n2001:db8:2::/64\n"),
        ("private-or-clear", "0.0.0.0/0\n::/0\n"),
    ];
    setup.policies.extend(more);
    setup
}

/// It encrypts to east, and goes to the DNS host in the clear.
fn assert_talks(internet: &Internet) {
    for peer in EAST.iter().chain(&DNS) {
        assert!(internet.ping("west", peer), "{peer}");
    }
}

/// wireguard-go 842888a.
#[test]
fn terminated_it_leaves_nothing_and_tells_its_peers() {
    if !can_run("terminated_it_leaves_nothing_and_tells_its_peers") {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west", "east"]);
    let before = internet.traces("west");
    let east = internet.setup("east").start(&internet.namespace("east"));
    let setup = private_towards_east(&internet, &[("block", "198.51.100.99/32\n")]);
    for signal in ["TERM", "INT"] {
        let mut node = setup.start(&internet.namespace("west"));
        assert_talks(&internet);
        for own in WEST {
            east.await_state(own, "keyed");
        }
        assert!(node.signalled(signal).success());
        assert!(!setup.socket().exists());
        assert_same(&before, &internet.traces("west"));
        for own in WEST {
            east.await_state(own, "");
        }
    }
}

#[test]
fn killed_it_leaves_what_the_next_start_clears() {
    if !can_run("killed_it_leaves_what_the_next_start_clears") {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west", "east"]);
    let before = internet.traces("west");
    let east = internet.setup("east").start(&internet.namespace("east"));
    let setup = private_towards_east(&internet, &[]);
    let mut node = setup.start(&internet.namespace("west"));
    assert_talks(&internet);
    let wire = internet.capture("west");
    node.kill();
    // private stays closed, private-or-clear opens.
    for peer in EAST {
        internet.knock("west", peer);
    }
    let clear = wire.packets(
        "(ip or ip6) and (host 198.51.100.22 or host 2001:db8:2::22) and \
        (src host 192.0.2.11 or src host 2001:db8:1::11)",
    );
    assert!(clear.is_empty(), "{clear:#?}");
    for plain in DNS {
        assert!(internet.ping("west", plain), "{plain}");
    }
    drop(node);

    let mut node = setup.start(&internet.namespace("west"));
    for peer in EAST {
        assert!(internet.ping("west", peer), "{peer}");
        node.await_pairs(peer, 1);
    }
    assert!(node.terminate().success());
    assert_same(&before, &internet.traces("west"));
    drop(east);
}

#[test]
fn status_says_everything_there_is() {
    if !can_run("status_says_everything_there_is") {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west", "east"]);
    let _east = internet.setup("east").start(&internet.namespace("east"));
    let setup = internet.setup("west");
    let file = setup.write().display().to_string();
    let status = |more: &[&str]| binary::run(&[&["status", "--config", &file], more].concat());

    let ended = status(&[]);
    let socket = setup.socket().display().to_string();
    assert_one_line(&ended, &[&socket, "is oe-node running?"]);

    let node = setup.start(&internet.namespace("west"));
    assert!(status(&[]).stdout.contains("no destination has been talked to yet"));
    assert!(internet.ping("west", EAST[0]) && internet.ping("west", DNS[0]));
    node.await_state(EAST[0], "keyed");

    let ended = status(&[]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let row = |address: &str| {
        let row = ended.stdout.lines().find(|line| line.starts_with(&format!("{address} ")));
        row.unwrap().split_whitespace().take(4).collect::<Vec<_>>().join(" ")
    };
    assert!(ended.stdout.starts_with("DESTINATION "), "{ended:?}");
    assert_eq!(row(EAST[0]), format!("{} private-or-clear keyed dnssec", EAST[0]));
    assert_eq!(row(DNS[0]), format!("{} private-or-clear clear-text none", DNS[0]));
    assert!(ended.stdout.contains("no record in DNS") || ended.stdout.contains("no key record"));
    assert!(!ended.stdout.contains('\x1b'), "colours only on a terminal");

    // The counters of the packet path may be later than the answer.
    let document = place::await_some("the packets are counted", PATIENCE, || {
        let document: Value = serde_json::from_str(&status(&["--json"]).stdout).unwrap();
        (one(&document, EAST[0])["packets_in"] == 1).then_some(document)
    });
    assert_eq!(document["version"], env!("CARGO_PKG_VERSION"));
    let keyed = one(&document, EAST[0]);
    for (key, value) in [
        ("source", WEST[0]),
        ("group", "private-or-clear"),
        ("state", "keyed"),
        ("trust", "dnssec"),
        ("gateway", EAST[0]),
        ("identity", EAST[0]),
    ] {
        assert_eq!(text(keyed, key), value, "{key}");
    }
    for key in ["spi_in", "spi_out", "cipher"] {
        assert!(!text(keyed, key).is_empty(), "{key}: {keyed}");
    }
    assert!(keyed["reason"].is_null() && keyed["since_s"].is_f64(), "{keyed}");
    for key in ["pairs", "packets_in", "packets_out"] {
        assert_eq!(keyed[key], 1, "{key}: {keyed}");
    }
    for key in ["bytes_in", "bytes_out"] {
        assert!(keyed[key].as_u64() >= Some(84), "{key}: {keyed}");
    }
    let clear = one(&document, DNS[0]);
    assert_eq!((text(clear, "state"), text(clear, "trust")), ("clear-text", "none"));
    assert!(clear["reason"].is_string() && clear["expires_s"].is_number(), "{clear}");
    for key in ["gateway", "identity", "spi_in", "spi_out", "cipher"] {
        assert!(clear[key].is_null(), "{key}: {clear}");
    }
    let counters = &document["counters"];
    // Both destinations' names, and our own, before we call.
    for (key, count) in [("trapped", 2), ("queries", 3)] {
        assert_eq!(counters["keying"][key], count, "{key}: {counters}");
    }
    for key in ["calls", "pairs", "clear"] {
        assert_eq!(counters["keying"][key], 1, "{key}: {counters}");
    }
    for key in ["visitors_accepted", "visitors_refused", "denied", "downgrades", "over_budget"] {
        assert_eq!(counters["keying"][key], 0, "{key}: {counters}");
    }
    for key in ["send_refused", "device_refused", "device_malformed", "control_behind"] {
        assert_eq!(counters["plane"][key], 0, "{key}: {counters}");
    }
}

/// Attack A30.
/// At the level that it logs at by itself, a node says each decision once, in one line: for whom,
/// which, and why. The packets that follow are worth no line.
#[test]
fn one_line_for_each_decision() {
    if !can_run("one_line_for_each_decision") {
        return;
    }
    let closed = "203.0.113.99";
    let mut internet = Internet::new();
    internet.serve_dns(&["west", "east"]);
    let _east = internet.setup("east").start(&internet.namespace("east"));
    let mut setup = internet.setup("west");
    "error,oe_node=info".clone_into(&mut setup.log);
    setup.policies.push(("private", "203.0.113.99/32\n"));
    let node = setup.start(&internet.namespace("west"));
    for _ in 0..3 {
        assert!(internet.ping("west", EAST[0]) && internet.ping("west", DNS[0]));
        internet.knock("west", closed);
    }
    node.await_state(closed, "deny");
    let log = node.log();
    for (address, decision, why) in [
        (EAST[0], "keyed", "dnssec"),
        (DNS[0], "clear", "no record"),
        (closed, "deny", "no record"),
    ] {
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(address)).collect();
        let [line] = lines[..] else { panic!("{address}: {lines:#?}") };
        for word in ["INFO", decision, why] {
            assert!(line.contains(word), "no {word:?}: {line}");
        }
    }
}

fn one<'a>(document: &'a Value, address: &str) -> &'a Value {
    let all = document["destinations"].as_array().unwrap();
    all.iter().find(|one| text(one, "destination") == address).unwrap()
}

/// Who cannot open the socket cannot ask; who asks nonsense is told so, and harms nothing.
/// CVE-2018-5388.
#[test]
fn the_control_socket_is_for_its_owner() {
    if !can_run("the_control_socket_is_for_its_owner") {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&[]);
    let setup = internet.setup("west");
    let node = setup.start(&internet.namespace("west"));
    assert_eq!(fs::metadata(setup.socket()).unwrap().permissions().mode() & 0o777, 0o600);
    for nonsense in ["", "{}", "status", r#"{"request":"stop"}"#, &"[".repeat(100_000)] {
        let answer = node.ask(nonsense);
        assert!(answer.is_null() || answer["error"].is_string(), "{answer}");
    }
    assert!(node.status()["version"].is_string());
}

/// The questions a person asks a running daemon, in the order in which they come to mind.
#[test]
fn people_can_ask_and_change_things() {
    if !can_run("people_can_ask_and_change_things") {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west", "east"]);
    let east = internet.setup("east").start(&internet.namespace("east"));
    let mut setup = internet.setup("west");
    let node = setup.start(&internet.namespace("west"));
    let file = setup.write().display().to_string();
    let ask = |words: &[&str]| binary::run(&[words, &["--config", &file]].concat());
    let said = |words: &[&str]| {
        let ended = ask(words);
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{ended:?}");
        ended.stdout
    };

    assert!(said(&["explain", EAST[0]]).contains("next packet  is held while DNS is asked"));
    assert!(said(&["explain", WEST[0]]).contains("next packet  never leaves this host"));
    let told = internet.directory.join("events");
    let (binary, into) = (tests::oe_node().display().to_string(), told.display().to_string());
    let script = "exec \"$0\" events --config \"$1\" > \"$2\"";
    let events = binary::start(Command::new("sh").args(["-c", script, &binary, &file, &into]));
    place::await_some("somebody listens", PATIENCE, || {
        fs::read_to_string(&told).unwrap_or_default().contains("listening").then_some(())
    });
    assert!(internet.ping("west", EAST[0]));
    let why = said(&["explain", EAST[0]]);
    for words in ["private-or-clear", "secure", "keyed", "dnssec", "goes through ESP"] {
        assert!(why.contains(words), "no {words:?}: {why}");
    }
    let peers = said(&["peers"]);
    assert!(peers.lines().nth(1).unwrap().starts_with(EAST[0]), "{peers}");
    let peers: Value = serde_json::from_str(&said(&["peers", "--json"])).unwrap();
    assert_eq!(peers["peers"][0]["called_by"], "us");
    assert_eq!(peers["peers"][0]["speaks_for"][0], EAST[0]);

    said(&["forget", EAST[0]]);
    east.await_state(WEST[0], "");
    let called = said(&["call", EAST[0]]);
    assert!(called.contains("goes through ESP") && called.contains("keyed"), "{called}");
    node.await_state(EAST[0], "keyed");
    said(&["forget", EAST[0]]);
    east.await_state(WEST[0], "");
    // Nobody there publishes anything.
    let ended = ask(&["call", DNS[0]]);
    assert_eq!((ended.code, ended.stderr.as_str()), (1, ""), "{ended:?}");
    assert!(ended.stdout.contains("next packet  goes in the clear"), "{ended:?}");
    for (words, why) in [
        (&["call", WEST[0]][..], "one of this host"),
        (&["call", EAST[0], "--from", "192.0.2.98"], "192.0.2.98 is neither"),
        (&["call", EAST[0], "--from", WEST[1]], "two families"),
        (&["call", "127.0.0.1"], "is left alone"),
    ] {
        assert_one_line(&ask(words), &[words[1], why]);
    }
    place::await_some("no peer is left", PATIENCE, || {
        (said(&["peers"]).lines().count() == 1).then_some(())
    });
    assert!(internet.ping("west", EAST[0]));
    node.await_state(EAST[0], "keyed");

    // A bad line leaves what there was; a good one takes force at once.
    setup.policies.push(("block", "198.51.100.0/42\n"));
    let _ = setup.write();
    assert_one_line(&ask(&["reload"]), &["policies/block:1: ", "198.51.100.0/42"]);
    assert!(internet.ping("west", EAST[0]));
    setup.policies.pop();
    setup.policies.push(("block", "198.51.100.0/24 # east\n"));
    let _ = setup.write();
    assert!(said(&["reload"]).starts_with("1 prefixes changed, 0 removed, 1 flows start anew"));
    let wire = internet.capture("west");
    internet.knock("west", EAST[0]);
    let got_out = wire.packets("dst host 198.51.100.22 and not udp port 4500");
    assert!(got_out.is_empty(), "{got_out:?}");
    assert!(internet.ping("west", EAST[1]), "the other family is not blocked");

    events.signal("TERM");
    let _ = events.wait(PATIENCE);
    let heard = fs::read_to_string(&told).unwrap();
    let heard: Vec<Value> = heard.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let names: Vec<&str> = heard.iter().map(|event| text(event, "event")).collect();
    let order =
        ["listening", "trapped", "dns-answer", "calling", "ike-sa-init", "ike-auth", "keyed"];
    assert_eq!(names.get(..order.len()), Some(&order[..]), "{names:?}");
    assert!(names.contains(&"expired"), "{names:?}");
    assert!(heard.iter().skip(1).all(|event| event["t_us"].is_u64()), "{heard:?}");
}

/// Without the right to change the network it says so, and changes nothing.
#[test]
fn without_privilege_it_says_what_it_needs() {
    if !can_run("without_privilege_it_says_what_it_needs") {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&[]);
    let setup = internet.setup("west");
    let file = setup.write().display().to_string();
    let before = internet.traces("west");
    let binary = tests::oe_node().display().to_string();
    let words = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", &binary, "run"];
    let mut command =
        place::command(&internet.namespace("west"), &[&words[..], &["--config", &file]].concat());
    let ended = binary::start(&mut command).wait(PATIENCE);
    assert_one_line(&ended, &["root"]);
    assert!(!setup.socket().exists());
    assert_same(&before, &internet.traces("west"));
}
