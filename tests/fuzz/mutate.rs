//! A small mutator: changes seeds in the ways that break parsers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};

/// Runs a target over mutations of its seeds and of the files of `corpus/NAME`. The first input
/// that makes it panic, or takes it too long, is shown in hexadecimal.
pub(crate) fn fuzz(name: &str, seeds: &[Vec<u8>], target: impl Fn(&[u8])) {
    let all = [seeds, &corpus(name)].concat();
    fuzz_within(name, &all, Budget { runs: RUNS, slow: SLOW }, target);
}

/// The same with the files alone.
pub(crate) fn fuzz_corpus(name: &str, budget: Option<Budget>, target: impl Fn(&[u8])) {
    let seeds = corpus(name);
    assert!(!seeds.is_empty(), "corpus/{name} is empty");
    fuzz_within(name, &seeds, budget.unwrap_or(Budget { runs: RUNS, slow: SLOW }), target);
}

/// One file of a corpus.
pub(crate) fn file_of(name: &str, file: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    std::fs::read(folder.join(file)).unwrap()
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// What a target may cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// Mutations without other orders.
    pub(crate) runs: usize,
    /// One input takes no longer.
    pub(crate) slow: Duration,
}

fn fuzz_within(name: &str, seeds: &[Vec<u8>], budget: Budget, target: impl Fn(&[u8])) {
    let runs = std::env::var("OE_NODE_FUZZ_RUNS").ok().and_then(|n| n.parse().ok());
    let mut seed = [0; 32];
    for (to, from) in seed.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    let mut rng = ChaCha20Rng::from_seed(seed);
    for input in seeds {
        try_one(name, input, budget.slow, &target);
    }
    for _ in 0..runs.unwrap_or(budget.runs) {
        let mut input = seeds[below(&mut rng, seeds.len())].clone();
        for _ in 0..=below(&mut rng, 4) {
            mutate(&mut rng, &mut input, seeds);
        }
        input.truncate(MAX_INPUT);
        try_one(name, &input, budget.slow, &target);
    }
}

fn try_one(name: &str, input: &[u8], limit: Duration, target: &impl Fn(&[u8])) {
    let (began, worked) = (Instant::now(), worked());
    let outcome = catch_unwind(AssertUnwindSafe(|| target(input)));
    // Slow is what takes long of a processor: the machine may be busy with others.
    let slow = began.elapsed() > limit
        && match (worked, self::worked()) {
            (Some(before), Some(after)) => after.saturating_sub(before) > limit,
            _ => true,
        };
    if outcome.is_err() || slow {
        let hex: String = input.iter().map(|b| format!("{b:02x}")).collect();
        let what = if slow { "took too long" } else { "panicked" };
        panic!("{name} {what} on {hex}");
    }
}

/// How long this thread has been on a processor, if the kernel tells.
fn worked() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(stat.split_whitespace().next()?.parse().ok()?))
}

fn mutate(rng: &mut ChaCha20Rng, input: &mut Vec<u8>, seeds: &[Vec<u8>]) {
    let at = below(rng, input.len() + 1);
    let len = below(rng, 9).min(input.len() - at);
    match below(rng, 9) {
        0 if at < input.len() => input[at] ^= 1 << below(rng, 8),
        1 if at < input.len() => input[at] = INTERESTING[below(rng, INTERESTING.len())],
        2 => input.insert(at, INTERESTING[below(rng, INTERESTING.len())]),
        3 => drop(input.drain(at..at + len)),
        4 => {
            let copy = input[at..at + len].to_vec();
            input.splice(at..at, copy);
        }
        5 => input.truncate(at),
        6 => {
            let other = &seeds[below(rng, seeds.len())];
            let from = below(rng, other.len() + 1);
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        7 => {
            let octet = INTERESTING[below(rng, INTERESTING.len())];
            let many = 1 << below(rng, 12);
            input.splice(at..at, std::iter::repeat_n(octet, many));
        }
        _ => {
            let mut noise = vec![0; below(rng, 16)];
            rng.fill_bytes(&mut noise);
            input.splice(at..at + len, noise);
        }
    }
}

fn below(rng: &mut ChaCha20Rng, limit: usize) -> usize {
    // The bias is of no interest here.
    usize::try_from(rng.next_u64() % limit.max(1) as u64).unwrap_or(0)
}

/// Octets at which formats turn: ends, signs, separators.
const INTERESTING: &[u8] =
    b"\x00\x01\x02\x03\x04\x3f\x40\x7f\x80\xbf\xc0\xfe\xff \t\r\n()=@.:+/-_09AZaz\"\\xX";

/// Mutations for each target without other orders: seconds in a development build.
const RUNS: usize = 20_000;

/// A DNS message is 64 kB at most.
const MAX_INPUT: usize = 1 << 16;

/// No input may hold up whoever reads it; generous, for development builds on busy machines.
const SLOW: Duration = Duration::from_millis(100);
