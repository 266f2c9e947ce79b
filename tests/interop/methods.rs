//! Every way to prove oneself and every suite that we have in common with strongSwan, both sides in
//! both roles. Transport mode is libreswan's story: strongSwan's userspace ESP has none.

use crate::rig::{Ours, Rig, can_run};

/// The kinds of keys: as made, the scheme in strongSwan's log, and the one that we are asked for.
const KINDS: [(&str, &str, &str); 3] = [
    ("P-256", "ECDSA_WITH_SHA256_DER", "EcdsaSha256"),
    ("P-384", "ECDSA_WITH_SHA384_DER", "EcdsaSha384"),
    ("ED25519", "ED25519", "Ed25519"),
];

fn rig(own: &str, peer: &str, options: &[&str]) -> Rig {
    let mut rig = Rig::up("direct");
    rig.key("west", own);
    rig.key("east", peer);
    rig.strongswan(options);
    rig
}

/// We call, then strongSwan does.
fn both_ways(rig: &Rig, ours: &mut Ours) {
    ours.tell("initiate");
    ours.expect("ChildUp");
    ours.tell("close");
    ours.expect("Ended Closed");
    let said = rig.control(&["init"]);
    assert!(said.contains("initiate completed successfully"), "{said}");
    ours.expect("ChildUp");
    ours.tell("close");
    ours.expect("Ended Closed");
}

#[test]
fn elliptic_keys_of_every_kind() {
    if !can_run("elliptic_keys_of_every_kind") {
        return;
    }
    for (kind, theirs, scheme) in KINDS {
        let rig = rig(kind, kind, &[]);
        let mut ours = rig.ours(&[]);
        both_ways(&rig, &mut ours);
        assert!(ours.saw(&format!("Sign {scheme}")), "{kind}");
        rig.expect_log_times(&format!("authentication of '192.0.2.1' with {theirs} successful"), 2);
        rig.expect_log_times(&format!("authentication of '192.0.2.2' (myself) with {theirs}"), 2);
    }
}

/// A key of one kind here, and of another there.
#[test]
fn keys_of_different_kinds_meet() {
    if !can_run("keys_of_different_kinds_meet") {
        return;
    }
    for (own, peer) in [("2048", "ED25519"), ("P-256", "2048"), ("ED25519", "P-384")] {
        let rig = rig(own, peer, &[]);
        let mut ours = rig.ours(&[]);
        both_ways(&rig, &mut ours);
    }
}

/// The hash that strongSwan is told to sign with, and the only one that it accepts. It announces the
/// others nevertheless where it is called, so there ours must be the one that fits our key. Ours are
/// PSS, and we take PKCS#1 v1.5 as well.
#[test]
fn rsa_with_every_hash() {
    if !can_run("rsa_with_every_hash") {
        return;
    }
    for (bits, salt, key, fits) in
        [("256", 32, "3072", true), ("384", 48, "4096", true), ("512", 64, "3072", false)]
    {
        let pss = format!("RSA_EMSA_PSS_SHA2_{bits}_SALT_{salt}");
        for (own, signed) in [
            (format!("rsa/pss-sha{bits}"), pss.clone()),
            (format!("rsa-sha{bits}"), format!("RSA_EMSA_PKCS1_SHA2_{bits}")),
        ] {
            let options =
                [format!("local:auth=ike:{own}"), format!("remote:auth=ike:rsa/pss-sha{bits}")];
            let rig = rig(key, "3072", &[&options[0], &options[1]]);
            let mut ours = rig.ours(&[]);
            let times = if fits {
                both_ways(&rig, &mut ours);
                2
            } else {
                rig.control(&["init"]);
                ours.expect("ChildUp");
                1
            };
            assert_eq!(ours.count(&format!("Sign RsaPssSha{bits}")), times, "{own}");
            let theirs = format!("authentication of '192.0.2.2' (myself) with {signed} successful");
            rig.expect_log_times(&theirs, times);
            rig.expect_log_times(&format!("'192.0.2.1' with {pss} successful"), times);
        }
    }
}

/// SHA-512 where we call as well: what fits a key that is longer than 7680 bits, by itself.
#[test]
fn a_key_that_wants_sha_512() {
    if !can_run("a_key_that_wants_sha_512") {
        return;
    }
    let options = ["local:auth=ike:rsa/pss-sha512", "remote:auth=ike:rsa/pss-sha512"];
    let rig = rig("7688", "3072", &options);
    let mut ours = rig.ours(&[]);
    both_ways(&rig, &mut ours);
    assert_eq!(ours.count("Sign RsaPssSha512"), 2);
    let pss = "RSA_EMSA_PSS_SHA2_512_SALT_64";
    rig.expect_log_times(
        &format!("authentication of '192.0.2.2' (myself) with {pss} successful"),
        2,
    );
    rig.expect_log_times(&format!("'192.0.2.1' with {pss} successful"), 2);
}

/// CVE-2020-16088: what strongSwan signs with is not what we expect of it.
#[test]
fn a_key_of_another_kind_is_refused() {
    if !can_run("a_key_of_another_kind_is_refused") {
        return;
    }
    for (is, expected) in [("2048", "P-256"), ("P-256", "2048"), ("ED25519", "P-256")] {
        let rig = rig("2048", is, &[]);
        rig.key("other", expected);
        let mut ours = rig.ours(&[("PEER_KEY", &rig.file("other", "pub.pem"))]);
        ours.tell("initiate");
        ours.expect("Ended AuthenticationFailed");
        let mut theirs = rig.control_later(&["init"]);
        ours.expect("Ended AuthenticationFailed");
        assert!(!theirs.wait().expect("ctl.sh").success());
    }
}

/// Without RFC 7427 ECDSA has methods 9 and 10; RSA would take SHA-1, and is refused.
#[test]
fn ecdsa_without_rfc_7427() {
    if !can_run("ecdsa_without_rfc_7427") {
        return;
    }
    for (kind, scheme) in [("P-256", "EcdsaP256Bare"), ("P-384", "EcdsaP384Bare")] {
        let rig = rig(kind, kind, &["sigauth=no"]);
        let mut ours = rig.ours(&[]);
        both_ways(&rig, &mut ours);
        assert!(ours.saw(&format!("Sign {scheme}")), "{kind}");
        let own = "authentication of '192.0.2.2' (myself) with ";
        rig.expect_log_times(own, 2);
        assert!(!rig.log().contains(&format!("{own}ECDSA_WITH")), "{}", rig.log());
    }
}

const SECRET: &str = "correct horse battery staple";

fn with_secret() -> Rig {
    let rig = rig("2048", "2048", &[]);
    rig.share(SECRET);
    rig
}

#[test]
fn a_shared_secret_proves_both() {
    if !can_run("a_shared_secret_proves_both") {
        return;
    }
    let rig = with_secret();
    let mut ours = rig.ours(&[("SECRET", SECRET)]);
    both_ways(&rig, &mut ours);
    assert!(!ours.saw("Sign"));
    rig.expect_log_times("authentication of '192.0.2.1' with pre-shared key successful", 2);
    rig.control(&["init"]);
    ours.expect("ChildUp");
    ours.tell("rekey-ike");
    rig.expect_log("rekeyed between");
}

#[test]
fn a_wrong_secret_is_refused_both_ways() {
    if !can_run("a_wrong_secret_is_refused_both_ways") {
        return;
    }
    let rig = with_secret();
    let mut ours = rig.ours(&[("SECRET", "correct horse battery stable")]);
    ours.tell("initiate");
    ours.expect("Ended Refused { notify: 24, authentic: false }");
    rig.expect_log("tried 1 shared key for");
    let mut theirs = rig.control_later(&["init"]);
    ours.expect("Ended AuthenticationFailed");
    assert!(!theirs.wait().expect("ctl.sh").success());
    rig.expect_log("received AUTHENTICATION_FAILED notify error");
}

/// A secret where a key is expected, and a key where a secret is.
#[test]
fn a_secret_is_no_key_and_a_key_no_secret() {
    if !can_run("a_secret_is_no_key_and_a_key_no_secret") {
        return;
    }
    let rig = with_secret();
    let mut ours = rig.ours(&[]);
    ours.tell("initiate");
    ours.expect("Ended Refused { notify: 24, authentic: false }");
    let mut theirs = rig.control_later(&["init"]);
    ours.expect("Ended AuthenticationFailed");
    assert!(!theirs.wait().expect("ctl.sh").success());
}

/// strongSwan's words for ciphers, in IKE and in ESP, and ours.
const CIPHERS: [(&str, &str); 9] = [
    ("aes128gcm16", "AES_GCM_16_128"),
    ("aes256gcm16", "AES_GCM_16_256"),
    ("chacha20poly1305", "CHACHA20_POLY1305"),
    ("aes128-sha256", "AES_CBC_128-HMAC_SHA2_256_128"),
    ("aes128-sha384", "AES_CBC_128-HMAC_SHA2_384_192"),
    ("aes128-sha512", "AES_CBC_128-HMAC_SHA2_512_256"),
    ("aes256-sha256", "AES_CBC_256-HMAC_SHA2_256_128"),
    ("aes256-sha384", "AES_CBC_256-HMAC_SHA2_384_192"),
    ("aes256-sha512", "AES_CBC_256-HMAC_SHA2_512_256"),
];
const PRFS: [&str; 3] = ["prfsha256", "prfsha384", "prfsha512"];
const GROUPS: [&str; 7] =
    ["x25519", "ecp256", "ecp384", "ecp521", "modp2048", "modp3072", "modp4096"];

/// One strongSwan that is told something else each time: every cipher with every prf and every
/// group, alternately called and calling; every ESP cipher, and rekeyed with every group.
#[test]
fn every_suite_in_common() {
    if !can_run("every_suite_in_common") {
        return;
    }
    let rig = rig("P-256", "P-256", &["log=1"]);
    let mut ours = rig.ours(&[("COMPATIBILITY", "yes")]);
    let mut round = 0;
    for (at, (cipher, _)) in CIPHERS.iter().enumerate() {
        for prf in PRFS {
            for group in GROUPS {
                round += 1;
                let (esp, name) = CIPHERS[(at + round) % CIPHERS.len()];
                rig.propose(&format!("{cipher}-{prf}-{group}"), &format!("{esp}-{group}"));
                if round % 2 == 0 {
                    ours.tell("initiate");
                } else {
                    rig.control(&["init"]);
                }
                let up = ours.expect("ChildUp");
                assert!(up.contains(&format!("cipher {name} ")), "{cipher} {esp}: {up}");
                // Every cipher once more with a key exchange of its own, from either side.
                if prf == PRFS[0] {
                    if round % 2 == 0 {
                        rig.control(&["rekey-child"]);
                    } else {
                        ours.tell("rekey-child");
                    }
                    ours.expect("ChildUp");
                    ours.expect("ChildDown");
                    ours.tell("rekey-ike");
                    ours.tell("probe");
                    rig.expect_log_times("rekeyed between", round_of(at, group));
                }
                ours.tell("close");
                ours.expect("Ended Closed");
            }
        }
    }
    assert_eq!(round, CIPHERS.len() * PRFS.len() * GROUPS.len());
    assert!(!rig.log().contains("retransmit"), "{}", rig.log());
}

/// How often the IKE SA has been rekeyed by then.
fn round_of(cipher: usize, group: &str) -> usize {
    cipher * GROUPS.len() + GROUPS.iter().position(|g| *g == group).unwrap_or(0) + 1
}

/// Without compatibility AES-CBC is not even answered.
#[test]
fn aes_cbc_is_refused_unless_configured() {
    if !can_run("aes_cbc_is_refused_unless_configured") {
        return;
    }
    let rig = rig("2048", "2048", &["ike=aes128-sha256-x25519", "esp=aes128-sha256"]);
    let mut ours = rig.ours(&[]);
    ours.tell("initiate");
    ours.expect("Ended Refused { notify: 14, authentic: false }");
    let mut theirs = rig.control_later(&["init"]);
    assert!(!theirs.wait().expect("ctl.sh").success());
    rig.expect_log("received NO_PROPOSAL_CHOSEN notify error");
    // The IKE SA with an AEAD, the child without: the IKE SA stands alone.
    rig.propose("aes128gcm16-prfsha256-x25519", "aes128-sha256");
    ours.tell("initiate");
    ours.expect("ChildFailed Refused { notify: 14, authentic: true }");
}
