//! What nobody may read in a log.

use crate::internet::{EAST, Internet, can_run};

/// The octets of the first PEM block (RFC 7468).
fn der(pem: &str) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let body = pem.lines().filter(|line| !line.starts_with('-')).flat_map(str::bytes);
    let digits = body.filter_map(|b| DIGITS.iter().position(|digit| *digit == b));
    let (mut octets, mut held, mut bits) = (Vec::new(), 0, 0);
    for digit in digits {
        (held, bits) = ((held << 6 | digit) & 0xffff, bits + 6);
        if bits >= 8 {
            bits -= 8;
            octets.push(u8::try_from(held >> bits & 0xff).unwrap());
        }
    }
    octets
}

/// P18: with everything logged that can be, two nodes meet, speak and part, and no part of their
/// private keys stands in what they wrote, in any shape. (Session keys: `no_key_is_printed` knows
/// them all.)
#[test]
fn no_private_key_is_logged() {
    if !can_run("no_private_key_is_logged") {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west", "east"]);
    let mut nodes = Vec::new();
    for host in ["east", "west"] {
        let mut setup = internet.setup(host);
        setup.log = "trace".to_owned();
        nodes.push(setup.start(&internet.namespace(host)));
    }
    assert!(internet.ping("west", EAST[0]));
    nodes[1].await_state(EAST[0], "keyed");
    assert!(nodes[1].ask(r#"{"request":"peers"}"#).is_object());
    nodes[1].terminate();
    for (node, host) in nodes.iter().zip(["east", "west"]) {
        let log = node.log();
        assert!(log.contains("TRACE"), "{host} logs nothing at this level: {log:.300}");
        let pem = std::fs::read_to_string(internet.directory.join(format!("{host}.key"))).unwrap();
        let der = der(&pem);
        assert!(der.len() > 1000, "{} octets of key", der.len());
        // Behind the modulus, which is public, stand exponent, primes and their like.
        for secret in der[der.len() / 2..].chunks_exact(8) {
            let hex: String = secret.iter().map(|octet| format!("{octet:02x}")).collect();
            let list = format!("{secret:?}");
            for shape in [hex.to_uppercase(), hex, list[1..list.len() - 1].to_owned()] {
                assert!(!log.contains(&shape), "{host}: {shape}");
            }
        }
        for line in pem.lines().filter(|line| !line.starts_with('-')).skip(8) {
            assert!(!log.contains(&line[..line.len().min(16)]), "{host}: a line of its PEM");
        }
    }
}
