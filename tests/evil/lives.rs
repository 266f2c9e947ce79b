//! Thousands of seeded peers in both roles.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::chaos::life;

/// Victims for each role without other orders; seconds in a development build.
const VICTIMS: u64 = 150;

fn lives(calls: bool) {
    let victims = std::env::var("OE_NODE_EVIL_VICTIMS").ok().and_then(|n| n.parse().ok());
    let victims = victims.unwrap_or(VICTIMS);
    let mut sum = [0, 0];
    for seed in 0..victims {
        match catch_unwind(AssertUnwindSafe(|| life(seed, calls))) {
            Ok([established, children]) => sum = [sum[0] + established, sum[1] + children],
            Err(_) => panic!("seed {seed}, calls {calls}"),
        }
    }
    // Otherwise nothing was tried.
    let least = usize::try_from(victims).unwrap();
    assert!(sum[0] >= least && sum[1] >= least, "{sum:?} of {victims}");
    if std::env::var_os("OE_NODE_EVIL_VICTIMS").is_some() {
        println!("{victims} victims: {} established, {} children", sum[0], sum[1]);
    }
}

/// CVE-2025-9242, CVE-2023-28771: whatever a peer that authenticates, or nearly does, puts into
/// its messages, as our caller. P15.
#[test]
fn peers_that_call() {
    lives(false);
}

/// P15: the same of peers that are called.
#[test]
fn peers_that_are_called() {
    lives(true);
}
