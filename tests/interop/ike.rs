//! IKEv2 with strongSwan, both sides in both roles. No ESP: that is the daemon's.

use std::time::Duration;

use tests::place::await_some;

use crate::rig::{Ours, Rig, can_run};

/// strongSwan in east and our side in west, with keys of these sizes.
fn rig(bits: &str, options: &[&str]) -> Rig {
    let mut rig = Rig::up("direct");
    rig.key("west", bits);
    rig.key("east", bits);
    rig.strongswan(options);
    rig
}

#[test]
fn we_call_strongswan() {
    if !can_run("we_call_strongswan") {
        return;
    }
    // Signatures of strongSwan: PKCS#1 v1.5 by default, PSS if told; ours are always PSS.
    for (bits, options, scheme) in [
        ("2048", &[][..], "RSA_EMSA_PKCS1_SHA2_256"),
        ("3072", &["pss=yes"][..], "RSA_EMSA_PSS_SHA2_256_SALT_32"),
    ] {
        let rig = rig(bits, options);
        let mut ours = rig.ours(&[]);
        ours.tell("initiate");
        ours.expect("Established initiator true");
        let up = ours.expect("ChildUp");
        assert!(up.contains("AES_GCM_16_128 esn false udp true ports 4500 4500"), "{up}");
        rig.expect_log("CHILD_SA e{1} established");
        rig.expect_log("with RSA_EMSA_PSS_SHA2_256_SALT_32 successful");
        rig.expect_log(scheme);

        // Liveness both ways, then a second child, deleted alone.
        ours.tell("probe");
        rig.expect_log("parsed INFORMATIONAL request 2 [ N(NATD_S_IP) N(NATD_D_IP) ]");
        ours.tell("child");
        ours.expect("ChildUp");
        ours.tell("close-child");
        ours.expect("ChildDown SaId(2) Closed");
        rig.expect_log("closing CHILD_SA e{2}");
        ours.tell("close");
        ours.expect("Ended Closed");
        rig.expect_log("deleting IKE_SA e[1]");
    }
}

#[test]
fn strongswan_calls_us() {
    if !can_run("strongswan_calls_us") {
        return;
    }
    for (bits, options) in [("3072", &[][..]), ("2048", &["pss=yes"][..])] {
        let rig = rig(bits, &[options, &["dpd=1"]].concat());
        let mut ours = rig.ours(&[]);
        let said = rig.control(&["init"]);
        assert!(said.contains("initiate completed successfully"), "{said}");
        ours.expect("NeedPeer Address(192.0.2.2)");
        ours.expect("Established initiator false");
        let up = ours.expect("ChildUp");
        assert!(up.contains("udp true ports 4500 4500"), "{up}");
        // Its dead peer detection finds us alive.
        rig.expect_log("sending DPD request");
        rig.expect_log("parsed INFORMATIONAL response");
        rig.control(&["term-child"]);
        ours.expect("ChildDown SaId(1) DeletedByPeer");
        rig.control(&["init"]);
        ours.expect("ChildUp");
        rig.control(&["term"]);
        ours.expect("Ended DeletedByPeer");
        assert!(!rig.log().contains("retransmit"), "{}", rig.log());
    }
}

#[test]
fn cookies_both_ways() {
    if !can_run("cookies_both_ways") {
        return;
    }
    let rig = rig("2048", &["charon:cookie_threshold=0", "charon:cookie_threshold_ip=0"]);
    let mut ours = rig.ours(&[("COOKIES", "0")]);
    rig.control(&["init"]);
    ours.expect("ChildUp");
    rig.expect_log("parsed IKE_SA_INIT response 0 [ N(COOKIE) ]");
}

#[test]
fn strongswan_asks_us_for_a_cookie_and_another_group() {
    if !can_run("strongswan_asks_us_for_a_cookie_and_another_group") {
        return;
    }
    let rig = rig("2048", &["cookie=1", "ike=aes128gcm16-prfsha256-ecp256"]);
    rig.halfopen();
    let mut ours = rig.ours(&[]);
    ours.tell("initiate");
    ours.expect("ChildUp");
    rig.expect_log("DH group CURVE_25519 unacceptable, requesting ECP_256");
    rig.expect_log("generating IKE_SA_INIT response 0 [ N(COOKIE) ]");
}

/// P12 (RFC 7296 §2.6): a cookie that strongSwan never baked makes us sign what it did not see
/// first. The second go holds such cookies back, and gets through; also where strongSwan does ask
/// for cookies, and for another group.
#[test]
fn a_forged_cookie_ends_no_call_to_strongswan() {
    if !can_run("a_forged_cookie_ends_no_call_to_strongswan") {
        return;
    }
    let asks = &["charon:cookie_threshold=0", "charon:cookie_threshold_ip=0"][..];
    for (options, forgeries) in
        [(&[][..], "1"), (&[], "9"), (asks, "9"), (&["ike=aes128gcm16-prfsha256-ecp256"], "9")]
    {
        let rig = rig("2048", options);
        let mut ours = rig.ours(&[("FORGED_COOKIES", forgeries)]);
        ours.tell("initiate");
        ours.expect("Forged");
        ours.expect("ChildUp");
        assert!(!ours.saw("Ended"));
        ours.tell("probe");
        ours.tell("close");
        ours.expect("Ended Closed");
        if forgeries == "1" {
            rig.expect_log("generating IKE_AUTH response 1 [ N(AUTH_FAILED) ]");
        }
    }
}

#[test]
fn we_ask_strongswan_for_another_group() {
    if !can_run("we_ask_strongswan_for_another_group") {
        return;
    }
    let rig = rig("2048", &["ike=aes128gcm16-prfsha384-modp2048-ecp384"]);
    let mut ours = rig.ours(&[]);
    rig.control(&["init"]);
    ours.expect("ChildUp");
    rig.expect_log("peer didn't accept DH group MODP_2048, it requested ECP_384");
}

#[test]
fn nothing_in_common_is_said_clearly() {
    if !can_run("nothing_in_common_is_said_clearly") {
        return;
    }
    let rig = rig("2048", &["ike=aes128-sha256-modp2048"]);
    let mut ours = rig.ours(&[]);
    ours.tell("initiate");
    ours.expect("Ended Refused { notify: 14, authentic: false }");
    let said = rig.control_later(&["init"]).wait().expect("ctl.sh");
    assert!(!said.success());
    rig.expect_log("received NO_PROPOSAL_CHOSEN notify error");
}

#[test]
fn every_suite_is_spoken() {
    if !can_run("every_suite_is_spoken") {
        return;
    }
    for (ike, esp) in [
        ("aes256gcm16-prfsha512-ecp384", "aes256gcm16"),
        ("chacha20poly1305-prfsha384-x25519", "chacha20poly1305"),
        ("aes128gcm16-prfsha256-ecp256", "aes128gcm16"),
    ] {
        let rig = rig("2048", &[&format!("ike={ike}"), &format!("esp={esp}")]);
        let mut ours = rig.ours(&[]);
        ours.tell("initiate");
        ours.expect("ChildUp");
        ours.tell("close");
        ours.expect("Ended Closed");
        rig.control(&["init"]);
        ours.expect("ChildUp");
    }
}

#[test]
fn a_wrong_key_is_refused_both_ways() {
    if !can_run("a_wrong_key_is_refused_both_ways") {
        return;
    }
    let mut rig = Rig::up("direct");
    for name in ["west", "east"] {
        rig.key(name, "2048");
    }
    rig.strongswan(&[]);
    // We expect strongSwan to have our own key, and it has not; then we sign with its.
    let mut ours = rig.ours(&[("PEER_KEY", &rig.file("west", "pub.pem"))]);
    ours.tell("initiate");
    ours.expect("Ended AuthenticationFailed");
    drop(ours);
    let mut ours = rig.ours(&[("OWN_KEY", &rig.file("east", "key.der"))]);
    ours.tell("initiate");
    ours.expect("Ended Refused { notify: 24, authentic: false }");
}

#[test]
fn sha1_signatures_are_refused() {
    if !can_run("sha1_signatures_are_refused") {
        return;
    }
    let rig = rig("2048", &["sigauth=no"]);
    let mut ours = rig.ours(&[]);
    ours.tell("initiate");
    ours.expect("Ended Misbehaved(\"no signature hash algorithm in common\")");
}

#[test]
fn names_instead_of_addresses() {
    if !can_run("names_instead_of_addresses") {
        return;
    }
    let rig = rig("2048", &["local_id=east.example", "remote_id=west.example"]);
    let mut ours = rig.ours(&[("OWN_ID", "west.example"), ("PEER_ID", "east.example")]);
    ours.tell("initiate");
    ours.expect("Established initiator true identity Fqdn(\"east.example\")");
    ours.tell("close");
    ours.expect("Ended Closed");
    rig.control(&["init"]);
    ours.expect("Established initiator false identity Fqdn(\"east.example\")");
}

#[test]
fn selectors_that_strongswan_does_not_have() {
    if !can_run("selectors_that_strongswan_does_not_have") {
        return;
    }
    let mut rig = Rig::up("direct");
    rig.key("west", "2048");
    rig.key("east", "2048");
    rig.strongswan(&["child:local_ts=10.9.9.9/32"]);
    let mut ours = rig.ours(&[]);
    ours.tell("initiate");
    ours.expect("Established");
    ours.expect("ChildFailed Refused { notify: 38, authentic: true }");
    ours.tell("probe");
    rig.expect_log("parsed INFORMATIONAL request 2 [ N(NATD_S_IP) N(NATD_D_IP) ]");
}

#[test]
fn rekeys_from_either_side() {
    if !can_run("rekeys_from_either_side") {
        return;
    }
    for esp in ["aes128gcm16", "aes128gcm16-x25519", "aes256gcm16-ecp256"] {
        let rig = rig("2048", &[&format!("esp={esp}")]);
        let mut ours = rig.ours(&[]);
        ours.tell("initiate");
        ours.expect("ChildUp");
        ours.tell("rekey-child");
        ours.expect("ChildUp SaId(2) rekeys Some(SaId(1)) initiator true");
        ours.expect("ChildDown SaId(1) Closed");
        ours.tell("rekey-ike");
        rig.expect_log("IKE_SA e[2] rekeyed between");
        ours.tell("rekey-child");
        ours.expect("ChildUp SaId(3) rekeys Some(SaId(2)) initiator true");
        ours.expect("ChildDown SaId(2) Closed");
        rig.control(&["rekey-child"]);
        ours.expect("ChildUp SaId(4) rekeys Some(SaId(3)) initiator false");
        ours.expect("ChildDown SaId(3) DeletedByPeer");
        rig.control(&["rekey-ike"]);
        rig.expect_log("IKE_SA e[3] rekeyed between");
        rig.control(&["rekey-child"]);
        ours.expect("ChildUp SaId(5) rekeys Some(SaId(4)) initiator false");
        ours.expect("ChildDown SaId(4) DeletedByPeer");
        ours.tell("probe");
        ours.tell("close");
        ours.expect("Ended Closed");
        assert_eq!(ours.count("ChildDown"), 5);
        assert!(!rig.log().contains("retransmit"), "{}", rig.log());
    }
}

#[test]
fn both_rekey_at_once() {
    if !can_run("both_rekey_at_once") {
        return;
    }
    // A token told after a rekey would take the window at the wrong moment, and so would news of an
    // address that strongSwan's machine is ready with late.
    let rig = rig("2048", &["retrans=1.1,1.2,8", "mobike=no"]);
    let mut ours = rig.ours(&[("TOKENS", "no")]);
    ours.tell("initiate");
    ours.expect("ChildUp");
    collide(&rig, &mut ours, 4, |kind| format!("{kind}_REKEY collision with {kind}_REKEY"));
}

/// Both sides rekey the child and then the IKE SA at the same moment, so many times; strongSwan
/// repeats its requests soon. `noticed` is what it logs then.
pub(crate) fn collide(rig: &Rig, ours: &mut Ours, rounds: usize, noticed: impl Fn(&str) -> String) {
    for round in 1..=rounds {
        for what in ["rekey-child", "rekey-ike"] {
            // What we send is lost for a moment: our request, and our answer to strongSwan's. So
            // each side has asked when it hears the other.
            rig.script("topo.sh", &["drop", "on"]);
            ours.tell(what);
            ours.catch_up();
            let asked = rig.log().matches("generating CREATE_CHILD_SA request").count();
            let mut theirs = rig.control_later(&[what]);
            rig.expect_log_times("generating CREATE_CHILD_SA request", asked + 1);
            rig.script("topo.sh", &["drop", "off"]);
            let _ = theirs.wait();
            let kind = if what == "rekey-child" { "CHILD" } else { "IKE" };
            rig.expect_log_times(&noticed(kind), round);
            // The redundant ones are deleted: then both sides mean the same SAs.
            std::thread::sleep(Duration::from_millis(2500));
            await_some("one SA of each kind", Duration::from_secs(60), || {
                let sas = rig.control(&["sas"]);
                let one = |state: &str| sas.matches(state).count() == 1;
                (one("INSTALLED") && one("ESTABLISHED")).then_some(())
            });
        }
    }
    ours.catch_up();
    assert_eq!(ours.count("ChildUp"), ours.count("ChildDown") + 1);
    ours.tell("rekey-child");
    ours.expect("ChildUp");
    ours.expect("ChildDown");
    rig.control(&["rekey-child"]);
    ours.expect("ChildUp");
    ours.expect("ChildDown");
    ours.tell("close");
    ours.expect("Ended Closed");
}

#[test]
fn strongswan_starts_childless_and_authenticates_again() {
    if !can_run("strongswan_starts_childless_and_authenticates_again") {
        return;
    }
    let rig = rig("2048", &["childless=force"]);
    let mut ours = rig.ours(&[]);
    rig.control(&["init"]);
    ours.expect("Established initiator false");
    ours.expect("ChildUp");
    rig.expect_log("parsed IKE_AUTH response 1 [ IDr AUTH N(MOBIKE_SUP)");
    rig.control(&["reauth"]);
    ours.expect("Ended DeletedByPeer");
    ours.expect("Established initiator false");
    ours.expect("ChildUp");
}

#[test]
fn strongswan_crashes_and_returns() {
    if !can_run("strongswan_crashes_and_returns") {
        return;
    }
    let mut rig = rig("2048", &[]);
    let mut ours = rig.ours(&[("TRIES", "3")]);
    ours.tell("initiate");
    ours.expect("ChildUp");
    rig.script("peer-down.sh", &["e", "kill"]);
    rig.strongswan(&[]);
    rig.control(&["init"]);
    let back = ours.expect("Established initiator false");
    assert!(back.ends_with("initial contact true"), "{back}");
    ours.expect("ChildUp");
    // The old one answers no more.
    ours.tell("probe-first");
    ours.expect("ChildDown SaId(1) Timeout");
    ours.expect("Ended Timeout");
}

#[test]
fn behind_a_nat() {
    if !can_run("behind_a_nat") {
        return;
    }
    let mut rig = Rig::up("nat");
    rig.key("west", "2048");
    rig.key("east", "2048");
    rig.strongswan(&["local_id=192.0.2.2", "remote_id=10.9.0.2", "any=yes", "mobike=no"]);
    let mut ours = rig.ours(&[("LOCAL", "10.9.0.2"), ("ENCAPSULATION", "natted")]);
    ours.tell("initiate");
    let up = ours.expect("ChildUp");
    assert!(up.contains("udp true ports 4500 4500"), "{up}");
    rig.expect_log("remote host is behind NAT");
    ours.tell("close");
    ours.expect("Ended Closed");
}

#[test]
fn strongswan_behind_a_nat() {
    if !can_run("strongswan_behind_a_nat") {
        return;
    }
    let mut rig = Rig::up("nat");
    rig.swap();
    rig.key("west", "2048");
    rig.key("east", "2048");
    rig.strongswan(&["mobike=no"]);
    let mut ours =
        rig.ours(&[("LOCAL", "192.0.2.2"), ("REMOTE", "10.9.0.2"), ("ENCAPSULATION", "natted")]);
    rig.control(&["init"]);
    ours.expect("NeedPeer Address(10.9.0.2) natted true");
    let up = ours.expect("ChildUp");
    assert!(up.contains("udp true") && !up.ends_with("4500 4500"), "{up}");
    // The NAT forgets its mapping: the next authenticated message comes from elsewhere, and what
    // we ask then finds its way.
    rig.forget_mappings();
    rig.control(&["rekey-child"]);
    ours.expect("Moved 192.0.2.1:");
    ours.expect("ChildUp");
    ours.tell("close");
    ours.expect("Ended Closed");
}

#[test]
fn over_ipv6() {
    if !can_run("over_ipv6") {
        return;
    }
    let rig = rig("2048", &["v6=yes"]);
    let mut ours = rig.ours(&[("LOCAL", "2001:db8::1"), ("REMOTE", "2001:db8::2")]);
    ours.tell("initiate");
    ours.expect("ChildUp");
    ours.tell("close");
    ours.expect("Ended Closed");
    rig.control(&["init"]);
    ours.expect("NeedPeer Address(2001:db8::2)");
    ours.expect("ChildUp");
}

#[test]
fn large_messages_go_in_fragments() {
    if !can_run("large_messages_go_in_fragments") {
        return;
    }
    let rig = rig("4096", &["fragsize=576"]);
    let mut ours = rig.ours(&[("FRAGMENT_SIZE", "576")]);
    // Ours are put together there, and theirs here: of the request, then of the response.
    for (times, we_call) in [(1, true), (2, false)] {
        if we_call {
            ours.tell("initiate");
        } else {
            rig.control(&["init"]);
        }
        ours.expect("ChildUp");
        rig.expect_log_times("received fragment #2 of 2, reassembled fragmented", times);
        rig.expect_log_times("into 2 fragments", times);
        ours.tell("close");
        ours.expect("Ended Closed");
    }
    // What is short goes whole.
    assert_eq!(rig.log().matches("reassembled fragmented").count(), 2);
}

#[test]
fn lost_packets_are_made_good() {
    if !can_run("lost_packets_are_made_good") {
        return;
    }
    let rig = rig("2048", &["retrans=0.5,1.5,8"]);
    let mut ours = rig.ours(&[]);
    rig.script("topo.sh", &["drop", "40"]);
    ours.tell("initiate");
    ours.expect("ChildUp");
    ours.tell("rekey-child");
    ours.expect("ChildDown SaId(1) Closed");
    ours.tell("close");
    ours.expect("Ended");
    assert!(!ours.saw("Ended Timeout"));
}

/// Gives a side another address instead of the one it has.
fn readdress(rig: &Rig, side: &str, old: &str, new: &str, ours: Option<&mut Ours>) {
    let mask = |address: &str| format!("{address}/24");
    let change = |what: &str, address: &str| {
        rig.script("topo.sh", &["exec", side, "ip", "addr", what, &mask(address), "dev", "veth0"]);
    };
    change("add", new);
    if let Some(ours) = ours {
        ours.tell(&format!("relocate {new}"));
    }
    // The secondary address of the same prefix takes over.
    rig.script(
        "topo.sh",
        &["exec", side, "sysctl", "-qw", "net.ipv4.conf.veth0.promote_secondaries=1"],
    );
    change("del", old);
}

/// An IKE SA with strongSwan that one of the two has called for, in a rig in which addresses may
/// change; over IPv4 only, because strongSwan looks for other ways.
fn mobile_rig(we_call: bool) -> (Rig, Ours) {
    let mut rig = Rig::up_with("direct", false);
    rig.key("west", "2048");
    rig.key("east", "2048");
    rig.strongswan(&["conn:local_addrs=%any", "local_id=192.0.2.2", "remote_id=192.0.2.1"]);
    let mut ours = rig.ours(&[]);
    if we_call {
        ours.tell("initiate");
    } else {
        rig.control(&["init"]);
    }
    ours.expect("ChildUp");
    (rig, ours)
}

#[test]
fn we_move_and_strongswan_follows() {
    if !can_run("we_move_and_strongswan_follows") {
        return;
    }
    // As the one that called, who decides; and as the one that was called, who tells.
    for we_call in [true, false] {
        let (rig, mut ours) = mobile_rig(we_call);
        readdress(&rig, "west", "192.0.2.1", "192.0.2.11", Some(&mut ours));
        if we_call {
            rig.expect_log("N(UPD_SA_ADDR)");
        } else {
            // It was told where we are.
            rig.expect_log("N(NO_ADD_ADDR) ]");
        }
        // Its ESP cannot be moved, so it makes a new child: before it answers, if it was asked.
        ours.expect("ChildUp");
        ours.tell("probe");
        ours.tell("rekey-ike");
        ours.expect("ChildDown SaId(1)");
        ours.tell("rekey-child");
        ours.expect("ChildUp");
        let sas = rig.control(&["sas"]);
        assert!(sas.contains("192.0.2.11"), "{sas}");
        ours.tell("close");
        ours.expect("Ended Closed");
        assert_eq!(ours.count("Ended"), 1);
    }
}

#[test]
fn strongswan_moves_and_we_follow() {
    if !can_run("strongswan_moves_and_we_follow") {
        return;
    }
    for we_call in [true, false] {
        let (rig, mut ours) = mobile_rig(we_call);
        readdress(&rig, "east", "192.0.2.2", "192.0.2.12", None);
        let moved = ours.expect("Moved");
        assert!(moved.starts_with("Moved 192.0.2.12:"), "{moved}");
        if !we_call {
            rig.expect_log("requesting address change using MOBIKE");
            // It is asked whether it is there before anything is sent there.
            rig.expect_log("parsed INFORMATIONAL request");
        }
        // Its libipsec cannot move an SA: it replaces the child, if it has not before. Ours would
        // cross with that.
        let _ = ours.saw_within("ChildDown", Duration::from_secs(5));
        ours.tell("rekey-child");
        ours.expect("ChildUp");
        ours.tell("close");
        ours.expect("Ended Closed");
        assert_eq!(ours.count("Ended"), 1);
    }
}
