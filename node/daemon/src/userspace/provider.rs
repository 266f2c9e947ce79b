//! Which library does ESP's cryptography: the one that is the faster on this CPU.
//!
//! What a CPU has decides by a factor of several (AVX-512 with VAES, AES-NI, none of it), and what
//! a library makes of it changes with its releases; so nothing is assumed. It takes a millisecond
//! or two at start.

use std::time::{Duration, Instant};

use forwarding::Provider;

/// Tries all out. The first of equals is taken.
pub(crate) fn fastest() -> Provider {
    let mut best: Option<(Provider, Duration)> = None;
    for provider in Provider::CANDIDATES {
        // The first round loads code and tables; an interrupted round is not the shortest.
        let rounds = (0..ROUNDS).map(|_| {
            let start = Instant::now();
            provider.try_out(PACKETS);
            start.elapsed()
        });
        let took = rounds.min().unwrap_or(Duration::MAX);
        if best.is_none_or(|(_, least)| took < least) {
            best = Some((provider, took));
        }
    }
    let (provider, took) = best.unwrap_or_default();
    tracing::debug!("AES-GCM by {}: {PACKETS} packets in {took:?}", provider.name());
    provider
}

/// Packets in a round: some 10 us with the best, some 2 ms without AES instructions.
const PACKETS: u64 = 64;
const ROUNDS: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_the_candidates_is_chosen_quickly() {
        let start = Instant::now();
        assert!(Provider::CANDIDATES.contains(&fastest()));
        // A node must not wait for it; an unoptimized build on a loaded machine may.
        assert!(start.elapsed() < Duration::from_secs(2));
    }
}
