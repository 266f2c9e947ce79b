//! Thousands of seeded peers in both roles.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::chaos::life;

/// Victims for each role without other orders; seconds in a development build.
const VICTIMS: u64 = 150;

fn lives(calls: bool) {
    let victims = std::env::var("OE_NODE_EVIL_VICTIMS").ok().and_then(|n| n.parse().ok());
    let victims = victims.unwrap_or(VICTIMS);
    let mut sum = [0; 13];
    for seed in 0..victims {
        match catch_unwind(AssertUnwindSafe(|| life(seed, calls))) {
            Ok(one) => sum.iter_mut().zip(one).for_each(|(sum, one)| *sum += one),
            Err(_) => panic!("seed {seed}, calls {calls}"),
        }
    }
    // Otherwise nothing was tried.
    let least = usize::try_from(victims).unwrap();
    assert!(sum[0] >= least && sum[1] >= least, "{sum:?} of {victims}");
    assert!(sum[2] >= least / 10 && sum[3] >= least / 50, "{sum:?} of {victims}");
    let [secret, nobody, strong, again] = [sum[5], sum[6], sum[7], sum[8]];
    assert!(secret >= least / 8 && nobody >= least / 4, "{sum:?} of {victims}");
    assert!(strong >= least / 8 && again >= least / 50, "{sum:?} of {victims}");
    let [cbc, replaced, asked, answered] = [sum[9], sum[10], sum[11], sum[12]];
    assert!(cbc >= least / 4 && replaced >= least / 4, "{sum:?} of {victims}");
    assert!(asked >= least / 50 && answered >= least / 20, "{sum:?} of {victims}");
    assert!(!calls || sum[4] >= least / 20, "{sum:?} of {victims}");
    if std::env::var_os("OE_NODE_EVIL_VICTIMS").is_some() {
        println!(
            "{victims} victims: established, children, asked for one more, moved, tickets; by secret, \
             as nobody, with ML-KEM, back with a ticket, with AES-CBC; its own rekeys, and key \
             exchanges more, asked for and answered: {sum:?}"
        );
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
