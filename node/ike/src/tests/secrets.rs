//! What is over cannot be computed again from what is left in memory.

use super::*;

/// P9: the generator goes on from a key of its own making after every step that drew from it, so
/// that its state tells nothing of the key exchanges before.
#[test]
fn the_generator_forgets() {
    let mut net = Net::pair();
    let now = net.now;
    let node = &mut net.nodes[0];
    let first = node.ike.generator();
    assert_eq!(first, ([1; 32], 0));
    node.ike.initiate(now, Net::call(0, 1));
    let second = node.ike.generator();
    assert_ne!(second.0, first.0);
    assert_eq!(second.1, 0, "nothing was drawn since");
    // A step that draws nothing costs nothing.
    node.ike.probe(now, IkeId(1));
    assert_eq!(node.ike.generator(), second);
    // Who asks for cookies, rekeys or answers forgets as well.
    let (mut net, a, _) = Net::established();
    let before = net.nodes.iter().map(|n| n.ike.generator()).collect::<Vec<_>>();
    let now = net.now;
    net.nodes[0].ike.rekey_ike(now, a);
    net.settle();
    for (node, before) in net.nodes.iter().zip(before) {
        assert_ne!(node.ike.generator().0, before.0);
        assert_eq!(node.ike.generator().1, 0);
    }
}

/// P18: nothing of a secret is printed, and what is replaced is kept nowhere.
#[test]
fn secrets_are_not_printed_and_not_kept() {
    let mut config = config(0);
    config.token_secret = Some([201; 32].into());
    config.ticket_keys = vec![[202; 32].into(), [203; 32].into()];
    let printed = format!("{config:?}");
    assert!(printed.contains("NodeSecret(..)"));
    let net = Net::pair();
    let mut ike = Ike::new(config, [7; 32], net.now);
    ike.set_ticket_keys(&[[204; 32].into()]);
    let printed = [printed, format!("{ike:?}")];
    for number in ["201", "202", "203", "204"] {
        let row = [number; 4].join(", ");
        assert!(printed.iter().all(|text| !text.contains(&row)), "{number}");
    }
    // Of the configuration there is nothing left: its keys may be replaced the day after.
    assert!(!printed[1].contains("NodeSecret"));
}
