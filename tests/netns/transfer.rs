//! A large transfer over a bad way, every octet checked.

use tests::place;

use crate::internet::{EAST, Internet, can_run};

/// One packet in a thousand is lost, in each direction.
const LOSS: &str = "table inet loss { chain forward { type filter hook forward priority 0; \
                    udp dport 4500 numgen random mod 1000 < 1 counter drop; }; }";

/// There and back, over each family: a gigabyte in all.
const OCTETS: &str = "250000000";

#[test]
fn a_gigabyte_arrives_as_it_left_although_packets_are_lost() {
    let test = "a_gigabyte_arrives_as_it_left_although_packets_are_lost";
    if !can_run(test) || tests::skipped(test, tests::missing(&["nft", "ethtool", "ss"])) {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west", "east"]);
    let nodes = ["west", "east"].map(|host| {
        // Packets are lost one by one, not by the run: the kernel cuts the runs before the router.
        let cut = ["ethtool", "-K", "eth0", "tx-udp-segmentation", "off"];
        place::ok(&internet.namespace(host), &cut);
        internet.setup(host).start(&internet.namespace(host))
    });
    assert!(internet.ping("west", EAST[0]));
    let hub = internet.namespace("hub");
    place::ok(&hub, &["nft", LOSS]);
    for address in EAST {
        let address =
            if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        let [west, east] = ["west", "east"].map(|host| internet.namespace(host));
        let traffic = env!("CARGO_BIN_EXE_traffic");
        place::transfer(traffic, &west, &east, &format!("{address}:7000"), OCTETS);
    }
    let lost = place::ok(&hub, &["nft", "list", "ruleset"]);
    let lost: u64 = lost
        .split_whitespace()
        .skip_while(|word| *word != "packets")
        .nth(1)
        .and_then(|number| number.parse().ok())
        .unwrap();
    // A gigabyte is some 700,000 packets, of which 700 are lost, and their acknowledgements.
    assert!(lost > 100, "{lost} packets were lost: this tested nothing");
    for node in &nodes {
        // Still the pairs of the first ping: one for each family.
        assert_eq!(node.happened("keyed"), 2, "{}", node.log());
        assert!(!node.log().contains("ERROR"), "{}", node.log());
    }
}
