//! The whole daemon with strongSwan: keys from DNS, IKE, ESP, and applications' own packets.
//!
//! West runs `oe-node run`, and asks an NSD behind a validating Unbound who east is. East is
//! strongSwan, which has west's key by configuration and ESP in its own userspace.

use std::time::{Duration, Instant};

use serde_json::Value;
use tests::names::Names;
use tests::node::{Node, Setup, text};
use tests::place::{self, Capture};

use crate::rig::{Rig, can_run_with_names as can_run};

const WEST: &str = "192.0.2.1";
const EAST: &str = "192.0.2.2";
const WEST6: &str = "2001:db8::1";
const EAST6: &str = "2001:db8::2";

/// oe-node in west and strongSwan in east. The fields are dropped in this order.
struct Scene {
    node: Node,
    wire: Capture,
    setup: Setup,
    _names: Names,
    rig: Rig,
    /// Whether there was no node for a while.
    died: bool,
}

impl Scene {
    /// Keys of this size; strongSwan with these options.
    fn up(bits: &str, options: &[&str]) -> Self {
        Self::up_with(bits, options, "")
    }

    /// The same, and more lines for the node's configuration.
    fn up_with(bits: &str, options: &[&str], lines: &str) -> Self {
        Self::up_on(Rig::up("direct"), bits, options, lines)
    }

    /// The same in this rig.
    fn up_on(mut rig: Rig, bits: &str, options: &[&str], lines: &str) -> Self {
        rig.key("west", bits);
        rig.key("east", bits);
        rig.strongswan(&strongswan(options));
        let (west, directory) = (rig.namespace("west"), rig.directory().to_path_buf());
        let names = Names::serve(&west, &directory.join("dns"), &zones(&rig));
        let mut setup = Setup::new(directory.clone(), Names::RESOLVER, names.trust_anchors());
        setup.key = Some(rig.file("west", "key.pem").into());
        lines.clone_into(&mut setup.policy);
        let wire = Capture::start(&west, "veth0", &directory.join("wire.pcap"));
        let node = setup.start(&west);
        Self { node, wire, setup, _names: names, rig, died: false }
    }

    /// A pair that one of the two has called for.
    fn meet(&self, we_call: bool) {
        if we_call {
            assert!(self.ping(), "the first packet is not answered");
        } else {
            let said = self.rig.control(&["init"]);
            assert!(said.contains("initiate completed successfully"), "{said}");
        }
        self.await_keyed();
        assert!(self.ping() && self.ping_back());
    }

    /// strongSwan replaces the child or the IKE SA; the node has another child then, or the same.
    fn rekey(&self, what: &str) {
        let spi = || text(&self.node.destination(EAST), "spi_in").to_owned();
        let before = spi();
        self.rig.rekey(what);
        if what == "rekey-child" {
            place::await_some("another SPI", PATIENCE, || {
                let now = spi();
                (!now.is_empty() && now != before).then_some(())
            });
        } else {
            assert_eq!(spi(), before, "a child came of the IKE SA's replacement");
        }
    }

    /// The node ends as a crash would end it.
    fn node_dies(&mut self) {
        self.node.kill();
        self.died = true;
    }

    /// And is started again.
    fn node_returns(&mut self) {
        self.node = self.setup.start(&self.rig.namespace("west"));
    }

    /// Waits until strongSwan has so many IKE SAs.
    fn await_strongswans(&self, number: usize) {
        place::await_some(&format!("strongSwan has {number}"), PATIENCE, || {
            let sas = self.rig.control(&["sas"]);
            (sas.matches("ESTABLISHED").count() == number).then_some(())
        });
    }

    fn ping(&self) -> bool {
        place::ping(&self.rig.namespace("west"), EAST)
    }

    fn ping_back(&self) -> bool {
        place::ping(&self.rig.namespace("east"), WEST)
    }

    /// So many octets there and as many back, every one of them checked.
    fn transfer(&self, octets: &str) {
        self.transfer_to(&format!("{EAST}:7000"), octets);
    }

    fn transfer_to(&self, address: &str, octets: &str) {
        let [west, east] = ["west", "east"].map(|host| self.rig.namespace(host));
        place::transfer(env!("CARGO_BIN_EXE_traffic"), &west, &east, address, octets);
    }

    /// Waits for the pair, and gives what the node says of it.
    fn await_keyed(&self) -> Value {
        let keyed = self.node.await_state(EAST, "keyed");
        assert_eq!(text(&keyed, "trust"), "dnssec", "{keyed}");
        assert_eq!(text(&keyed, "identity"), EAST, "{keyed}");
        keyed
    }

    /// Waits for this in strongSwan's log behind what is there already.
    fn expect_log_after(&self, mark: usize, words: &str) {
        place::await_some(&format!("{words:?} in strongSwan's log"), PATIENCE, || {
            self.rig.log().get(mark..).is_some_and(|log| log.contains(words)).then_some(())
        });
    }

    fn assert_nothing_in_clear(&self) {
        self.wire.await_esp();
        let mut clear = self.wire.in_clear();
        // As long as there is no node, the host's kernel tells strongSwan that nobody takes its ESP.
        clear.retain(|line| !(self.died && line.contains("udp port 4500 unreachable")));
        assert!(clear.is_empty(), "in the clear: {clear:#?}");
    }
}

/// The peers' own addresses are what is encrypted, which strongSwan has to be told.
fn strongswan<'a>(options: &[&'a str]) -> Vec<&'a str> {
    let hosts = ["h2h=yes", "child:local_ts=192.0.2.2/32", "child:remote_ts=192.0.2.1/32"];
    [&hosts[..], options].concat()
}

/// Both hosts' reverse zones, as `oe-node showhostkey` prints them.
fn zones(rig: &Rig) -> Vec<(&'static str, Vec<[String; 2]>)> {
    let txt = |name: &str, address: &str| {
        let file = rig.file(name, "pub.pem");
        let show = |form: &[&str]| {
            std::process::Command::new(tests::oe_node())
                .args(["showhostkey", "--format", "nsd", "--owner", address])
                .args(form)
                .args(["--key-file", &file])
                .output()
                .expect("oe-node")
        };
        let mut said = show(&["--txt", address]);
        if !said.status.success() {
            // TXT has RSA keys only.
            said = show(&["--ipseckey"]);
        }
        let line = String::from_utf8(said.stdout).expect("text");
        let (owner, record) = line.trim().split_once(char::is_whitespace).expect("a record");
        [owner.to_owned(), record.to_owned()]
    };
    vec![
        ("2.0.192.in-addr.arpa", vec![txt("west", WEST), txt("east", EAST)]),
        ("8.b.d.0.1.0.0.2.ip6.arpa", vec![txt("west", WEST6), txt("east", EAST6)]),
    ]
}

/// P20.
#[test]
fn the_first_packet_makes_a_pair_and_arrives() {
    if !can_run("the_first_packet_makes_a_pair_and_arrives") {
        return;
    }
    let scene = Scene::up("3072", &[]);
    assert!(scene.ping(), "the first packet is not answered");
    let pair = scene.await_keyed();
    assert_eq!(text(&pair, "gateway"), EAST);
    scene.node.await_pairs(EAST, 1);
    scene.transfer("100000000");
    assert!(scene.ping_back());
    assert_eq!(scene.node.happened("keyed"), 1);
    scene.assert_nothing_in_clear();
}

/// P20.
#[test]
fn strongswan_calls_a_node_that_does_not_know_it() {
    if !can_run("strongswan_calls_a_node_that_does_not_know_it") {
        return;
    }
    let scene = Scene::up("2048", &[]);
    let said = scene.rig.control(&["init"]);
    assert!(said.contains("initiate completed successfully"), "{said}");
    scene.await_keyed();
    assert!(scene.ping_back(), "strongSwan's packet is not answered");
    assert!(scene.ping());
    scene.transfer("20000000");
    assert_eq!(scene.node.happened("calling"), 0);
    scene.assert_nothing_in_clear();
}

/// P20.
#[test]
fn either_signature_scheme_and_key_size() {
    if !can_run("either_signature_scheme_and_key_size") {
        return;
    }
    for (bits, options, scheme) in [
        ("2048", &[][..], "RSA_EMSA_PKCS1_SHA2_256"),
        ("2048", &["pss=yes"], "RSA_EMSA_PSS_SHA2_256_SALT_32"),
        ("3072", &[], "RSA_EMSA_PKCS1_SHA2_256"),
        ("3072", &["pss=yes"], "RSA_EMSA_PSS_SHA2_256_SALT_32"),
    ] {
        let scene = Scene::up(bits, options);
        assert!(scene.ping(), "{bits} {options:?}");
        scene.await_keyed();
        let own = format!("authentication of '{EAST}' (myself) with {scheme}");
        scene.rig.expect_log(&own);
        scene.rig.expect_log("with RSA_EMSA_PSS_SHA2_256_SALT_32 successful");
        // And the other way around.
        scene.rig.control(&["term"]);
        scene.node.await_state(EAST, "");
        let mark = scene.rig.log().len();
        scene.rig.control(&["init"]);
        scene.expect_log_after(mark, &own);
        scene.await_keyed();
        assert!(scene.ping_back());
        scene.assert_nothing_in_clear();
    }
}

#[test]
fn what_either_side_deletes_comes_back_with_traffic() {
    if !can_run("what_either_side_deletes_comes_back_with_traffic") {
        return;
    }
    let mut scene = Scene::up("2048", &[]);
    assert!(scene.ping());
    let mut pairs = 1;
    for delete in ["term-child", "term", "forget"] {
        scene.await_keyed();
        let mark = scene.rig.log().len();
        if delete == "forget" {
            let _ = scene.node.ask(&format!(r#"{{"request":"forget","address":"{EAST}"}}"#));
            scene.expect_log_after(mark, "received DELETE for IKE_SA");
        } else {
            scene.rig.control(&[delete]);
        }
        scene.node.await_state(EAST, "");
        assert!(scene.ping(), "after {delete}");
        pairs += 1;
        assert_eq!(scene.node.await_happened("keyed", pairs), pairs, "after {delete}");
    }
    scene.transfer("1000000");
    scene.assert_nothing_in_clear();

    let mark = scene.rig.log().len();
    assert!(scene.node.terminate().success());
    scene.expect_log_after(mark, "received DELETE for IKE_SA");
    let left = scene.rig.control(&["sas"]);
    assert!(!left.contains("ESTABLISHED"), "{left}");
}

#[test]
fn a_cookie_and_another_group_cost_no_packet() {
    if !can_run("a_cookie_and_another_group_cost_no_packet") {
        return;
    }
    let scene = Scene::up("2048", &["cookie=1", "ike=aes128gcm16-prfsha256-ecp256"]);
    scene.rig.halfopen();
    assert!(scene.ping());
    scene.await_keyed();
    scene.rig.expect_log("DH group CURVE_25519 unacceptable, requesting ECP_256");
    scene.rig.expect_log("generating IKE_SA_INIT response 0 [ N(COOKIE) ]");
    scene.assert_nothing_in_clear();
}

#[test]
fn strongswan_guesses_the_wrong_group() {
    if !can_run("strongswan_guesses_the_wrong_group") {
        return;
    }
    let scene = Scene::up("2048", &["ike=aes128gcm16-prfsha384-modp2048-ecp384"]);
    scene.rig.control(&["init"]);
    scene.rig.expect_log("peer didn't accept DH group MODP_2048, it requested ECP_384");
    scene.await_keyed();
    assert!(scene.ping() && scene.ping_back());
    scene.assert_nothing_in_clear();
}

/// strongSwan replaces keys of both kinds while packets flow: as the one who was called, and as the
/// one who called.
#[test]
fn rekeys_lose_nothing() {
    if !can_run("rekeys_lose_nothing") {
        return;
    }
    for we_call in [true, false] {
        let scene = Scene::up("2048", &["esp=aes128gcm16-x25519"]);
        scene.meet(we_call);
        let west = scene.rig.namespace("west");
        let stream = ["ping", "-n", "-q", "-i", "0.02", "-c", "1000", EAST];
        let mut pinging = place::command(&west, &stream)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("ping");
        let mut rekeys = 0;
        for what in ["rekey-child", "rekey-ike"].iter().cycle() {
            scene.rekey(what);
            if pinging.try_wait().expect("ping").is_some() {
                break;
            }
            rekeys += 1;
        }
        assert!(rekeys >= 4, "{rekeys} while packets flowed");
        let said = pinging.wait_with_output().expect("ping").stdout;
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains("1000 packets transmitted, 1000 received, 0% packet loss"), "{said}");
        scene.await_keyed();
        scene.node.await_pairs(EAST, 1);
        let log = scene.rig.log();
        assert!(!log.contains("parsed CREATE_CHILD_SA request"), "we rekeyed: {log}");
        assert!(!log.contains("TEMPORARY_FAILURE"), "{log}");
        assert_eq!(scene.node.happened("calling"), usize::from(we_call));
        scene.assert_nothing_in_clear();
    }
}

/// Keys of both kinds come to their end while packets flow, and it is we who replace them: as the one
/// who called, and as the one who was called.
#[test]
fn rekeys_of_ours_lose_nothing() {
    if !can_run("rekeys_of_ours_lose_nothing") {
        return;
    }
    let lives = "[ike]\nike-life = 14\nchild-life = 10\n";
    for we_call in [true, false] {
        let scene = Scene::up_with("2048", &["esp=aes128gcm16-x25519"], lives);
        scene.meet(we_call);
        let west = scene.rig.namespace("west");
        let stream = ["ping", "-n", "-q", "-i", "0.02", "-c", "1800", EAST];
        let (_, said) = place::run(&west, &stream);
        // Neither lost nor twice nor with other octets.
        assert!(said.contains("1800 packets transmitted, 1800 received, 0% packet loss"), "{said}");
        scene.await_keyed();
        scene.node.await_pairs(EAST, 1);
        let log = scene.rig.log();
        let children = log.matches("parsed CREATE_CHILD_SA request").count();
        let replaced = log.matches("rekeyed between").count();
        assert!(replaced >= 2, "{replaced} new IKE SAs: {log}");
        assert!(children >= replaced + 3, "{children}: {log}");
        assert!(!log.contains("generating CREATE_CHILD_SA request"), "strongSwan rekeyed: {log}");
        assert_eq!(scene.node.happened("calling"), usize::from(we_call));
        scene.transfer("5000000");
        scene.assert_nothing_in_clear();
    }
}

/// A link of IPv6's least MTU, and fragments of IKE messages that fit far smaller ones: nothing that
/// either side sends has to be fragmented on the way.
#[test]
fn a_narrow_link_carries_everything() {
    if !can_run("a_narrow_link_carries_everything") {
        return;
    }
    let rig = Rig::up_narrow("direct", true, 1280);
    let lines = "[ike]\nfragment-size = 576\n";
    let scene = Scene::up_on(rig, "4096", &["fragsize=576", "tunmtu=1180"], lines);
    for (times, we_call) in [(1, true), (2, false)] {
        scene.meet(we_call);
        scene.rig.expect_log_times("received fragment #2 of 2, reassembled fragmented", times);
        scene.rig.expect_log_times("into 2 fragments", times);
        scene.transfer("3000000");
        scene.rig.control(&["term"]);
        scene.node.await_state(EAST, "");
    }
    let long = scene.wire.packets("udp port 500 and greater 591");
    assert!(long.is_empty(), "{long:#?}");
    let fragments = scene.wire.packets("ip[6:2] & 0x3fff != 0");
    assert!(fragments.is_empty(), "{fragments:#?}");
    scene.assert_nothing_in_clear();
}

/// Our own end without a word: strongSwan asks in vain and gives up, and when we are back there is a
/// pair again, whoever had called.
#[test]
fn strongswan_gives_up_on_a_node_that_died() {
    if !can_run("strongswan_gives_up_on_a_node_that_died") {
        return;
    }
    for we_call in [true, false] {
        let mut scene = Scene::up("2048", &["dpd=1", "retrans=0.5,1.2,3"]);
        scene.meet(we_call);
        let mark = scene.rig.log().len();
        scene.node_dies();
        scene.expect_log_after(mark, "sending DPD request");
        scene.expect_log_after(mark, "giving up after 3 retransmits");
        scene.await_strongswans(0);
        scene.node_returns();
        scene.meet(we_call);
        scene.await_strongswans(1);
        scene.transfer("1000000");
        // While nobody listens the kernel says so, of strongSwan's outer packets.
        let mut clear = scene.wire.in_clear();
        clear.retain(|packet| !packet.contains("192.0.2.1 udp port 4500 unreachable"));
        assert!(clear.is_empty(), "in the clear: {clear:#?}");
    }
}

/// RFC 7296 §2.4: before strongSwan has noticed anything we are back, and say INITIAL_CONTACT: what it
/// still had is gone, whoever had called.
#[test]
fn a_node_that_returns_takes_over_what_strongswan_still_has() {
    if !can_run("a_node_that_returns_takes_over_what_strongswan_still_has") {
        return;
    }
    for we_call in [true, false] {
        let mut scene = Scene::up("2048", &[]);
        scene.meet(we_call);
        scene.node_dies();
        scene.await_strongswans(1);
        let mark = scene.rig.log().len();
        scene.node_returns();
        scene.meet(true);
        scene.expect_log_after(mark, "received INITIAL_CONTACT");
        scene.await_strongswans(1);
        scene.node.await_pairs(EAST, 1);
        scene.transfer("1000000");
        scene.assert_nothing_in_clear();
    }
}

#[test]
fn a_peer_that_lives_is_found_alive() {
    if !can_run("a_peer_that_lives_is_found_alive") {
        return;
    }
    let scene = Scene::up("2048", &["dpd=1"]);
    assert!(scene.ping());
    let mark = scene.rig.log().len();
    scene.expect_log_after(mark, "sending DPD request");
    scene.expect_log_after(mark, "parsed INFORMATIONAL response");
    assert!(!scene.rig.log().contains("retransmit"), "{}", scene.rig.log());
    scene.await_keyed();
}

#[test]
fn a_peer_that_crashed_is_called_again() {
    if !can_run("a_peer_that_crashed_is_called_again") {
        return;
    }
    for we_call in [true, false] {
        let mut scene = Scene::up("2048", &[]);
        scene.meet(we_call);
        scene.rig.crash();
        scene.rig.strongswan(&strongswan(&[]));
        let start = Instant::now();
        let west = scene.rig.namespace("west");
        let back = place::await_some("traffic flows again", Duration::from_secs(30), || {
            let once = ["ping", "-n", "-c", "1", "-W", "0.5", EAST];
            place::run(&west, &once).0.then(|| start.elapsed())
        });
        assert!(back < Duration::from_secs(15), "{back:?}");
        println!("back after {back:?}");
        scene.await_keyed();
        scene.transfer("1000000");
        scene.assert_nothing_in_clear();
    }
}

/// RFC 7296 §2.4: the way is lost for longer than a call may take. What there was carries as soon as it
/// is back, and whichever of the two was first, our question or our call beside it, one IKE SA is left.
#[test]
fn an_outage_costs_no_pair_with_strongswan() {
    if !can_run("an_outage_costs_no_pair_with_strongswan") {
        return;
    }
    for we_call in [true, false] {
        let scene = Scene::up("2048", &[]);
        scene.meet(we_call);
        let east = scene.rig.namespace("east");
        let cut = "add table inet cut; \
                   add chain inet cut in { type filter hook prerouting priority raw; policy drop; }; \
                   add chain inet cut out { type filter hook output priority raw; policy drop; }";
        assert!(place::run(&east, &["nft", cut]).0);
        let since = Instant::now();
        while since.elapsed() < Duration::from_secs(22) {
            assert!(!scene.ping());
        }
        assert!(place::run(&east, &["nft", "delete table inet cut"]).0);
        // The neighbours have to find each other again.
        place::await_some("traffic flows again", Duration::from_secs(5), || {
            scene.ping().then_some(())
        });
        scene.await_strongswans(1);
        scene.await_keyed();
        scene.transfer("1000000");
        scene.assert_nothing_in_clear();
    }
}

/// Keys that are not RSA are found as IPSECKEY, and prove both sides.
#[test]
fn elliptic_keys_from_dns() {
    if !can_run("elliptic_keys_from_dns") {
        return;
    }
    for kind in ["P-256", "ED25519"] {
        let scene = Scene::up(kind, &[]);
        assert!(scene.ping(), "{kind}");
        scene.await_keyed();
        scene.rig.control(&["term"]);
        scene.node.await_state(EAST, "");
        scene.rig.control(&["init"]);
        scene.await_keyed();
        assert!(scene.ping_back(), "{kind}");
        scene.transfer("1000000");
        scene.assert_nothing_in_clear();
    }
}

/// AES-CBC with every HMAC carries packets of every size, for who wants compatibility.
#[test]
fn aes_cbc_carries_traffic() {
    if !can_run("aes_cbc_carries_traffic") {
        return;
    }
    for (suite, name) in [
        ("aes128-sha256", "AES_CBC_128-HMAC_SHA2_256_128"),
        ("aes256-sha384", "AES_CBC_256-HMAC_SHA2_384_192"),
        ("aes256-sha512", "AES_CBC_256-HMAC_SHA2_512_256"),
    ] {
        let ike = format!("ike={suite}-x25519");
        let options = [ike.as_str(), &format!("esp={suite}")];
        let scene = Scene::up_with("2048", &options, "[ike]\ncompatibility = true\n");
        assert!(scene.ping(), "{suite}");
        let pair = scene.await_keyed();
        assert_eq!(text(&pair, "cipher"), name);
        let west = scene.rig.namespace("west");
        for size in (1..64).chain([500, 1000, 1300, 1340]) {
            let once = ["ping", "-n", "-c", "1", "-W", "5", "-s", &size.to_string(), EAST];
            assert!(place::run(&west, &once).0, "{suite}: {size}");
        }
        assert!(scene.ping_back());
        scene.transfer("5000000");
        scene.assert_nothing_in_clear();
    }
}

#[test]
fn over_ipv6() {
    if !can_run("over_ipv6") {
        return;
    }
    let scene = Scene::up(
        "2048",
        &[
            "conn:local_addrs=2001:db8::2",
            "conn:remote_addrs=2001:db8::1",
            "local_id=2001:db8::2",
            "remote_id=2001:db8::1",
            "child:local_ts=2001:db8::2/128",
            "child:remote_ts=2001:db8::1/128",
        ],
    );
    assert!(place::ping(&scene.rig.namespace("west"), EAST6));
    let pair = scene.node.await_state(EAST6, "keyed");
    assert_eq!(text(&pair, "trust"), "dnssec");
    scene.transfer_to(&format!("[{EAST6}]:7000"), "10000000");
    scene.rig.control(&["term"]);
    scene.node.await_state(EAST6, "");
    scene.rig.control(&["init"]);
    scene.node.await_state(EAST6, "keyed");
    assert!(place::ping(&scene.rig.namespace("east"), WEST6));
    scene.assert_nothing_in_clear();
}

/// A loaded machine takes its time.
const PATIENCE: Duration = Duration::from_secs(60);
