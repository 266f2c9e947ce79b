//! What arrives encrypted is no more special than what arrives in the clear.

use tests::place;

use crate::internet::{EAST, Internet, can_run};

/// A host's firewall, as it would stand against anybody; the first rule only counts.
const FIREWALL: &str = "table inet firewall { chain input { type filter hook input priority 0; \
                        iifname \"ipsec0\" icmp type echo-request counter; \
                        icmp type echo-request drop; }; }";

/// Rule 8.
#[test]
fn what_arrives_encrypted_meets_the_same_firewall() {
    let test = "what_arrives_encrypted_meets_the_same_firewall";
    if !can_run(test) || tests::skipped(test, tests::missing(&["nft"])) {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west", "east"]);
    let [west, east] =
        ["west", "east"].map(|host| internet.setup(host).start(&internet.namespace(host)));
    assert!(internet.ping("west", EAST[0]), "{}", west.log());
    west.await_state(EAST[0], "keyed");
    let host = internet.namespace("east");
    place::ok(&host, &["nft", FIREWALL]);
    let wire = internet.capture("east");
    assert!(!internet.ping("west", EAST[0]), "{}", east.log());
    let clear = wire.packets("icmp[icmptype] = icmp-echo");
    assert!(clear.is_empty(), "in the clear: {clear:#?}");
    let counted = place::ok(&host, &["nft", "list", "ruleset"]);
    assert!(counted.contains("counter packets ") && !counted.contains("packets 0 "), "{counted}");
    // It was the firewall.
    place::ok(&host, &["nft", "flush ruleset"]);
    assert!(internet.ping("west", EAST[0]), "{}", east.log());
    assert_eq!(west.happened("keyed"), 1, "{}", west.log());
}
