//! Nothing that is secret goes back to the allocator unwiped (P9, P18).
//!
//! A peer with a second implementation of the cryptography knows every key of a handshake. The same
//! handshake is made twice from the same seeds: the first time to learn the keys, the second with an
//! allocator that looks into every block the machine under test gives back.
#![allow(unsafe_code, reason = "a global allocator that looks into what it gets back")]

#[path = "../evil/peer.rs"]
#[allow(dead_code, reason = "tests/evil uses the rest")]
mod peer;
#[path = "../evil/victim.rs"]
#[allow(dead_code, reason = "tests/evil uses the rest")]
mod victim;
#[path = "../evil/wire.rs"]
#[allow(dead_code, reason = "tests/evil uses the rest")]
mod wire;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::OnceLock;

use peer::Evil;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;
use victim::{EVIL, EVIL_KEY, Owned, VICTIM, inner};
use wire::{CREATE_CHILD_SA, IKE_AUTH, INFORMATIONAL, Payload};

/// So much of a secret is not there by chance.
const LEN: usize = 16;

struct Watching;

thread_local! {
    static WATCHED: Cell<bool> = const { Cell::new(false) };
    /// Which of [`NEEDLES`] were found, as bits.
    static FOUND: Cell<u64> = const { Cell::new(0) };
    static BLOCKS: Cell<u64> = const { Cell::new(0) };
}

static NEEDLES: OnceLock<Vec<[u8; LEN]>> = OnceLock::new();

// SAFETY: everything is passed on to the system's allocator; blocks are only read, before that.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract. Zeroed, so that all of a block may be read.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, octets: *mut u8, layout: Layout) {
        if WATCHED.get() {
            // SAFETY: the block is the caller's until this returns, and was initialised when it
            // was made.
            let block = unsafe { std::slice::from_raw_parts(octets, layout.size()) };
            BLOCKS.set(BLOCKS.get() + 1);
            for (at, needle) in NEEDLES.get().into_iter().flatten().enumerate() {
                if block.windows(LEN).any(|window| window == needle) {
                    FOUND.set(FOUND.get() | 1 << at);
                }
            }
        }
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(octets, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

/// Does what the machine does, watched if that is wanted.
fn watched<T>(watch: bool, act: impl FnOnce() -> T) -> T {
    WATCHED.set(watch);
    let done = act();
    WATCHED.set(false);
    done
}

/// A call, a child's and the IKE SA's replacement, and the end; all that both ends knew.
fn life(watch: bool) -> Vec<(String, Vec<u8>)> {
    let mut victim = Owned::victim(77);
    let mut evil = Evil::new(EVIL, EVIL_KEY, true, ChaCha20Rng::from_seed([6; 32]));
    let mut secrets = Vec::new();
    let mut learn = |evil: &Evil, when: &str| {
        let known = evil.secrets().into_iter().skip(1).enumerate();
        secrets.extend(known.map(|(which, secret)| (format!("{when} {which}"), secret)));
    };
    let request = evil.init(&evil.init_payloads());
    watched(watch, || victim.hear(EVIL, &request));
    assert!(evil.read_init(&victim.said()[0]));
    learn(&evil, "first");
    let payloads = evil.auth_payloads(inner(EVIL), inner(VICTIM));
    let ask = |victim: &mut Owned, evil: &mut Evil, exchange, payloads: &[Payload]| {
        let header = evil.header(exchange, false, evil.next_id);
        evil.next_id += 1;
        let octets = evil.seal(header, payloads);
        watched(watch, || victim.hear(EVIL, &octets));
        let said = victim.said();
        said.iter().find_map(|octets| evil.open(octets)).expect("an answer").1
    };
    ask(&mut victim, &mut evil, IKE_AUTH, &payloads);
    assert_eq!(victim.children.len(), 1);
    let payloads = evil.rekey_payloads();
    let answer = ask(&mut victim, &mut evil, CREATE_CHILD_SA, &payloads);
    assert!(evil.rekeyed(&answer));
    learn(&evil, "second");
    ask(&mut victim, &mut evil, INFORMATIONAL, &[Payload::delete(1, 0, 0, &[])]);
    watched(watch, || victim.goes_down_clean());
    watched(watch, || drop(victim));
    secrets
}

/// P9, P18: of all keys of a handshake and of the IKE SA that replaces it, nothing is left on the heap.
#[test]
fn what_is_secret_is_wiped() {
    let secrets = life(false);
    let needle = |secret: &Vec<u8>| secret.first_chunk().copied().expect("long enough");
    NEEDLES.set(secrets.iter().map(|(_, secret)| needle(secret)).collect()).unwrap();
    // The allocator sees what is given back as it was.
    watched(true, || drop(secrets[0].1.clone()));
    assert_eq!(FOUND.replace(0), 1, "what is not wiped is found");
    BLOCKS.set(0);
    let again = life(true);
    assert_eq!(again, secrets, "the same life");
    let found = FOUND.get();
    let which = secrets.iter().enumerate().filter(|(at, _)| found >> at & 1 == 1);
    let names: Vec<_> = which.map(|(_, (name, _))| name).collect();
    assert!(names.is_empty(), "in blocks that were given back: {names:?}");
    assert!(BLOCKS.get() > 100 && secrets.len() > 12, "{} {}", BLOCKS.get(), secrets.len());
}
