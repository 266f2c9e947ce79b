//! ML-KEM-768 beside an elliptic curve (RFC 9242, RFC 9370), with a strongSwan that has it: both
//! sides in both roles, in the first exchange and in rekeys.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::connection::{EAST_IN, Scene, WEST_IN};
use crate::ike::collide;
use crate::rig::{Ours, Rig, can_run_with_newer as can_run};

/// What strongSwan loads: ML-KEM is OpenSSL's.
const PLUGINS: &str = "charon:load=random nonce pem pkcs1 pkcs8 pubkey dnskey x509 constraints \
                       openssl kdf drbg kernel-libipsec kernel-netlink socket-default vici updown";
const HYBRID: &str = "ike=aes128gcm16-prfsha256-x25519-ke1_mlkem768";
const HYBRID_CHILD: &str = "esp=aes128gcm16-x25519-ke1_mlkem768";
const PLAIN: &str = "ike=aes128gcm16-prfsha256-x25519";
/// How strongSwan says that ML-KEM is in it.
const IKE_CHOSEN: &str = "selected proposal: IKE:AES_GCM_16_128/PRF_HMAC_SHA2_256/CURVE_25519\
                          /KE1_ML_KEM_768";
const CHILD_CHOSEN: &str = "selected proposal: ESP:AES_GCM_16_128/CURVE_25519/NO_EXT_SEQ\
                            /KE1_ML_KEM_768";

/// strongSwan in east and our side in west.
fn rig(charon: &Path, options: &[&str]) -> Rig {
    let mut rig = Rig::up("direct");
    rig.with_charon(charon);
    rig.key("west", "2048");
    rig.key("east", "2048");
    rig.strongswan(&[&[PLUGINS, "log=1"], options].concat());
    rig
}

/// One of the two calls.
fn call(rig: &Rig, ours: &mut Ours, we_call: bool) {
    if we_call {
        ours.tell("initiate");
    } else {
        let said = rig.control(&["init"]);
        assert!(said.contains("initiate completed successfully"), "{said}");
    }
}

fn times(rig: &Rig, words: &str) -> usize {
    rig.log().matches(words).count()
}

#[test]
fn ml_kem_goes_into_the_first_keys() {
    let Some(charon) = can_run("ml_kem_goes_into_the_first_keys") else { return };
    for curve in ["x25519", "ecp256", "ecp384"] {
        let rig = rig(charon, &[&format!("ike=aes256gcm16-prfsha384-{curve}-ke1_mlkem768")]);
        let mut ours = rig.ours(&[]);
        for (round, we_call) in [true, false].into_iter().enumerate() {
            call(&rig, &mut ours, we_call);
            let said = ours.expect("KeyExchange");
            let curve = curve.replace("ecp", "p");
            assert_eq!(said, format!("KeyExchange {curve}+mlkem768"));
            ours.expect("ChildUp");
            rig.expect_log_times("/KE1_ML_KEM_768", round + 1);
            ours.tell("close");
            ours.expect("Ended Closed");
        }
    }
}

/// Rekeys of the child and of the IKE SA, started by either side, each with ML-KEM in
/// IKE_FOLLOWUP_KE, and each time once more under the keys that came of the one before.
#[test]
fn ml_kem_goes_into_every_rekey() {
    let Some(charon) = can_run("ml_kem_goes_into_every_rekey") else { return };
    for we_call in [true, false] {
        let rig = rig(charon, &[HYBRID, HYBRID_CHILD]);
        let mut ours = rig.ours(&[]);
        call(&rig, &mut ours, we_call);
        ours.expect("ChildUp");
        let mut child = 1;
        for round in 0..2 {
            ours.tell("rekey-child");
            let up =
                format!("ChildUp SaId({}) rekeys Some(SaId({child})) initiator true", child + 1);
            ours.expect(&up);
            ours.expect(&format!("ChildDown SaId({child}) Closed"));
            rig.control(&["rekey-child"]);
            child += 1;
            let up =
                format!("ChildUp SaId({}) rekeys Some(SaId({child})) initiator false", child + 1);
            ours.expect(&up);
            ours.expect(&format!("ChildDown SaId({child}) DeletedByPeer"));
            child += 1;
            ours.tell("rekey-ike");
            rig.expect_log_times("rekeyed between", 2 * round + 1);
            // It cannot be rekeyed again before the old one is gone.
            rig.expect_log_times("deleting IKE_SA", 2 * round + 1);
            rig.control(&["rekey-ike"]);
            rig.expect_log_times("rekeyed between", 2 * round + 2);
        }
        // A key exchange more for each of the eight, asked and answered.
        for kind in ["parsed IKE_FOLLOWUP_KE request", "parsed IKE_FOLLOWUP_KE response"] {
            rig.expect_log_times(kind, 4);
        }
        assert_eq!((times(&rig, IKE_CHOSEN), times(&rig, CHILD_CHOSEN)), (5, 4));
        ours.tell("probe");
        ours.tell("close");
        ours.expect("Ended Closed");
        assert!(!rig.log().contains("retransmit"), "{}", rig.log());
    }
}

/// Each side is in the middle of its own rekey when it hears of the other's.
#[test]
fn both_rekey_at_once_with_ml_kem() {
    let Some(charon) = can_run("both_rekey_at_once_with_ml_kem") else { return };
    let rig = rig(charon, &[HYBRID, HYBRID_CHILD, "retrans=1.1,1.2,8", "mobike=no"]);
    let mut ours = rig.ours(&[("TOKENS", "no")]);
    ours.tell("initiate");
    ours.expect("ChildUp");
    collide(&rig, &mut ours, 3, |kind| format!("{kind}_SA rekey collision"));
    assert!(times(&rig, "IKE_FOLLOWUP_KE request") >= 8);
}

/// Fragments of IKE_INTERMEDIATE and IKE_FOLLOWUP_KE among what is lost.
#[test]
fn lost_packets_are_made_good_with_ml_kem() {
    let Some(charon) = can_run("lost_packets_are_made_good_with_ml_kem") else { return };
    let rig = rig(charon, &[HYBRID, HYBRID_CHILD, "retrans=0.5,1.5,8", "fragsize=576"]);
    let mut ours = rig.ours(&[("TRIES", "8")]);
    rig.script("topo.sh", &["drop", "30"]);
    ours.tell("initiate");
    ours.expect("KeyExchange x25519+mlkem768");
    ours.expect("ChildUp");
    for what in ["rekey-child", "rekey-ike"] {
        ours.tell(what);
        rig.expect_log("IKE_FOLLOWUP_KE");
    }
    ours.expect("ChildDown SaId(1) Closed");
    rig.expect_log("rekeyed between");
    rig.control(&["rekey-child"]);
    ours.expect("ChildDown SaId(2) DeletedByPeer");
    ours.tell("close");
    ours.expect("Ended");
    assert!(!ours.saw("Ended Timeout"));
}

/// Who does not want it is spoken to without: in IKE, or in children only.
#[test]
fn without_ml_kem_where_strongswan_has_none() {
    let Some(charon) = can_run("without_ml_kem_where_strongswan_has_none") else { return };
    for (ike, esp, exchange) in [
        (PLAIN, "esp=aes128gcm16-x25519", "KeyExchange x25519"),
        (HYBRID, "esp=aes128gcm16-x25519", "KeyExchange x25519+mlkem768"),
        (HYBRID, "esp=aes128gcm16", "KeyExchange x25519+mlkem768"),
    ] {
        let rig = rig(charon, &[ike, esp]);
        let mut ours = rig.ours(&[]);
        for we_call in [true, false] {
            call(&rig, &mut ours, we_call);
            assert_eq!(ours.expect("KeyExchange"), exchange);
            ours.expect("ChildUp");
            ours.tell("rekey-child");
            ours.expect("ChildUp");
            ours.expect("ChildDown");
            rig.control(&["rekey-child"]);
            ours.expect("ChildUp");
            ours.expect("ChildDown");
            ours.tell("close");
            ours.expect("Ended Closed");
        }
        assert_eq!(times(&rig, CHILD_CHOSEN), 0);
        assert_eq!(times(&rig, IKE_CHOSEN) > 0, ike == HYBRID);
    }
}

/// The children of an IKE SA that began without ML-KEM get it nevertheless, whichever side asks.
#[test]
fn ml_kem_comes_later_where_it_did_not_come_first() {
    let Some(charon) = can_run("ml_kem_comes_later_where_it_did_not_come_first") else { return };
    let rig = rig(charon, &[PLAIN, HYBRID_CHILD]);
    let mut ours = rig.ours(&[]);
    ours.tell("initiate");
    assert_eq!(ours.expect("KeyExchange"), "KeyExchange x25519");
    ours.expect("ChildUp");
    rig.control(&["rekey-child"]);
    ours.expect("ChildUp SaId(2) rekeys Some(SaId(1)) initiator false");
    ours.expect("ChildDown SaId(1) DeletedByPeer");
    assert_eq!(times(&rig, CHILD_CHOSEN), 1);
    ours.tell("rekey-child");
    ours.expect("ChildUp SaId(3) rekeys Some(SaId(2)) initiator true");
    ours.expect("ChildDown SaId(2) Closed");
    assert_eq!(times(&rig, CHILD_CHOSEN), 2);
    // The IKE SA itself is for strongSwan to choose, and has nothing else here.
    ours.tell("rekey-ike");
    rig.expect_log("rekeyed between");
    assert_eq!(times(&rig, IKE_CHOSEN), 0);
}

/// One side demands ML-KEM and the other will not: both say so, and nothing comes up.
#[test]
fn a_demand_for_ml_kem_that_is_not_met_fails_clearly() {
    let Some(charon) = can_run("a_demand_for_ml_kem_that_is_not_met_fails_clearly") else { return };
    let rig = rig(charon, &[HYBRID]);
    let mut ours = rig.ours(&[("POST_QUANTUM", "no")]);
    ours.tell("initiate");
    ours.expect("Ended Refused { notify: 14, authentic: false }");
    let said = rig.control_later(&["init"]).wait().expect("ctl.sh");
    assert!(!said.success());
    rig.expect_log("received NO_PROPOSAL_CHOSEN notify error");
    assert!(!ours.saw("Established") && !rig.log().contains("established between"));
}

/// The daemon, whichever side calls: the hybrid is what it says of the peer, and packets arrive
/// before and after rekeys with it.
#[test]
fn packets_pass_under_keys_with_ml_kem() {
    let Some(charon) = can_run("packets_pass_under_keys_with_ml_kem") else { return };
    if tests::skipped("packets_pass_under_keys_with_ml_kem", tests::missing(&["tcpdump", "ping"])) {
        return;
    }
    for start in ["trap", "accept"] {
        let options = [PLUGINS, "log=1", HYBRID, HYBRID_CHILD];
        let scene = Scene::up_with(Some(charon), start, &options, "");
        if start == "accept" {
            scene.rig.control(&["init"]);
        }
        assert!(scene.ping("west", WEST_IN, EAST_IN), "{start}");
        scene.node.await_connection("net", "up");
        let peers = scene.node.ask(r#"{"request":"peers"}"#);
        assert_eq!(exchange(&peers), Some("x25519+mlkem768"), "{peers}");
        for (at, what) in ["rekey-child", "rekey-ike", "rekey-child"].into_iter().enumerate() {
            scene.rig.control(&[what]);
            scene.rig.expect_log_times("parsed IKE_FOLLOWUP_KE response", at + 1);
            std::thread::sleep(Duration::from_millis(300));
            assert!(scene.ping("west", WEST_IN, EAST_IN), "after {what}");
            assert!(scene.ping("east", EAST_IN, WEST_IN), "after {what}");
        }
        scene.assert_nothing_in_clear();
    }
    // And without, where the node is told so.
    let tables = "[ike]\npost-quantum = false\n";
    let scene = Scene::up_with(Some(charon), "trap", &[PLUGINS, "log=1", HYBRID], tables);
    assert!(!scene.ping("west", WEST_IN, EAST_IN));
    scene.node.await_happened("connection-failed", 1);
}

/// What the node says of its one peer's keys.
fn exchange(peers: &Value) -> Option<&str> {
    peers.pointer("/peers/0/key_exchange").and_then(Value::as_str)
}
