//! Nothing that is secret goes back to the allocator unwiped (P9, P18).
//!
//! A peer with a second implementation of the cryptography knows every key of what both do. All that the
//! machine under test gives back meanwhile is kept as it was, and searched for those keys.
#![allow(unsafe_code, reason = "a global allocator that keeps what it gets back")]

#[path = "../evil/peer.rs"]
#[allow(dead_code, reason = "tests/evil uses the rest")]
mod peer;
#[path = "../evil/victim.rs"]
#[allow(dead_code, reason = "tests/evil uses the rest")]
mod victim;
#[path = "../evil/ways.rs"]
#[allow(dead_code, reason = "tests/evil uses the rest")]
mod ways;
#[path = "../evil/wire.rs"]
#[allow(dead_code, reason = "tests/evil uses the rest")]
mod wire;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use peer::Evil;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;
use victim::{EVIL, EVIL_KEY, Owned, VICTIM, VICTIMS_KEY};
use ways::{REPLACEMENTS, Way, Witness, ways};
use wire::Payload;

/// So much of a secret is not there by chance.
const LEN: usize = 16;

struct Keeping;

thread_local! {
    static WATCHED: Cell<bool> = const { Cell::new(false) };
}

/// What was given back by whom is watched, one block behind the other.
static KEPT: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
static LENGTH: AtomicUsize = AtomicUsize::new(0);
/// One test at a time.
static TURN: Mutex<()> = Mutex::new(());
/// Of which only what is used becomes memory.
const ROOM: usize = 1 << 28;

// SAFETY: everything is passed on to the system's allocator; blocks are only read, before that.
unsafe impl GlobalAlloc for Keeping {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract. Zeroed, so that all of a block may be read.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, octets: *mut u8, layout: Layout) {
        let kept = KEPT.load(Ordering::Relaxed);
        if WATCHED.get() && !kept.is_null() {
            let at = LENGTH.fetch_add(layout.size(), Ordering::Relaxed);
            assert!(at + layout.size() <= ROOM, "more was given back than is kept");
            // SAFETY: the block is the caller's until this returns, and was initialised when it
            // was made; there is room for it, and nobody else writes there.
            unsafe { std::ptr::copy_nonoverlapping(octets, kept.add(at), layout.size()) };
        }
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(octets, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Keeping = Keeping;

/// Does what the machine does, watched.
fn watched<T>(act: impl FnOnce() -> T) -> T {
    WATCHED.set(true);
    let done = act();
    WATCHED.set(false);
    done
}

/// Begins to keep, or begins anew.
fn keep() {
    if KEPT.load(Ordering::Relaxed).is_null() {
        // SAFETY: the size is not zero.
        let room = unsafe { System.alloc(Layout::array::<u8>(ROOM).unwrap()) };
        assert!(!room.is_null(), "no memory");
        KEPT.store(room, Ordering::Relaxed);
    }
    LENGTH.store(0, Ordering::Relaxed);
}

/// What was given back since then.
fn kept() -> &'static [u8] {
    let (kept, len) = (KEPT.load(Ordering::Relaxed), LENGTH.load(Ordering::Relaxed));
    assert!(!kept.is_null(), "nothing is kept");
    // SAFETY: so much was written there, and nothing is while it is read.
    unsafe { std::slice::from_raw_parts(kept, len) }
}

/// All secrets by the first octets of each, with what they are.
#[derive(Default)]
struct Secrets(BTreeMap<[u8; LEN], String>);

impl Secrets {
    fn learn(&mut self, what: &str, secret: &[u8]) {
        if let Some(needle) = secret.first_chunk() {
            self.0.entry(*needle).or_insert_with(|| what.to_owned());
        }
    }

    /// What the peer knows now. Its own private key is the first, and nobody else's.
    fn learn_all(&mut self, evil: &Evil) {
        if !evil.is_keyed() {
            return;
        }
        let names =
            ["SK_d", "SK_pi", "SK_pr", "SK_ai", "SK_ar", "SK_ei", "SK_er", "KEYMAT", "KEYMAT"];
        let names = names.into_iter().chain(std::iter::repeat("a shared secret, or SKEYSEED"));
        for (name, secret) in names.zip(evil.secrets().into_iter().skip(1)) {
            self.learn(name, &secret);
        }
        for secret in evil.keymat() {
            self.learn("a replaced child's KEYMAT, or what it was made of", secret);
        }
    }

    /// Those that are in here.
    fn found(&self, octets: &[u8]) -> Vec<&str> {
        let mut begins = vec![false; 1 << 16];
        let pair = |a: u8, b: u8| usize::from(a) << 8 | usize::from(b);
        for [a, b, ..] in self.0.keys() {
            begins[pair(*a, *b)] = true;
        }
        let mut found: Vec<&str> = Vec::new();
        let mut at = 0;
        while let Some([a, b]) = octets.get(at..at + 2) {
            if begins[pair(*a, *b)]
                && let Some(needle) = octets[at..].first_chunk()
                && let Some(what) = self.0.get(needle)
            {
                found.push(what);
            }
            at += 1;
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// A way in, every replacement of keys by either side, and the end; all that both ends knew.
fn life(way: Way) -> Secrets {
    let mut victim = Owned::equipped(VICTIM, VICTIMS_KEY, 77);
    victim.knows_by(EVIL, way.manners, EVIL_KEY);
    let evil = Evil::new(EVIL, EVIL_KEY, way.calls, ChaCha20Rng::from_seed([6; 32]));
    let mut evil = evil.with(way.manners);
    let mut secrets = Secrets::default();
    for secret in way.manners.secrets(EVIL_KEY) {
        secrets.learn("the secret of both", &secret);
    }
    let mut witness = Witness {
        victim: |victim: &mut Owned, act: &mut dyn FnMut(&mut Owned)| watched(|| act(victim)),
        peer: |evil: &Evil| secrets.learn_all(evil),
    };
    if way.again {
        if !way.calls {
            victim.call_by(EVIL, way.manners, EVIL_KEY);
        }
        witness.converse(&mut victim, &mut evil);
        let ike = *victim.established.keys().next().expect("somebody who can come back");
        watched(|| {
            victim.ike.abandon(victim.now, ike);
            victim.after();
        });
        victim.said();
        assert!(!way.calls || evil.come_back(), "no ticket");
    }
    match (way.calls, way.again) {
        (true, _) => {}
        (false, true) => assert!(watched(|| victim.resume(EVIL, EVIL_KEY)), "no ticket"),
        // What the owner does with secrets of its own is not looked at.
        (false, false) => {
            victim.call_by(EVIL, way.manners, EVIL_KEY);
        }
    }
    witness.converse(&mut victim, &mut evil);
    assert_eq!((victim.established.len(), victim.children.len()), (1, 1), "{way:?}");
    for what in REPLACEMENTS {
        witness.replace(&mut victim, &mut evil, what);
        (witness.peer)(&evil);
        assert!(witness.ask(&mut victim, &mut evil, &[]), "{way:?}: {what:?}");
        (witness.peer)(&evil);
    }
    assert!(witness.ask(&mut victim, &mut evil, &[Payload::delete(1, 0, 0, &[])]), "{way:?}");
    watched(|| victim.goes_down_clean());
    watched(|| drop(victim));
    secrets
}

/// P9, P18: of all keys of a handshake, of IKE SAs and children that replace it and each other, with
/// whatever they are made of (X25519, ML-KEM, a secret, the keys of a ticket), nothing is left on the
/// heap, whoever called.
#[test]
fn what_is_secret_is_wiped() {
    let _turn = TURN.lock();
    keep();
    // What is given back is seen as it was.
    let mut one = Secrets::default();
    let known: Vec<u8> = (7..30).collect();
    one.learn("one", &known);
    let copy = [&[0; 5][..], &known].concat();
    watched(|| drop(copy));
    assert_eq!(one.found(kept()), ["one"], "what is not wiped is found");
    let mut failures = Vec::new();
    for way in ways() {
        keep();
        let secrets = life(way);
        let all = kept();
        println!("{way:?}: {} secrets, {} octets given back", secrets.0.len(), all.len());
        assert!(all.len() > 50_000 && secrets.0.len() >= 48, "{way:?}: {}", secrets.0.len());
        let found = secrets.found(all);
        if !found.is_empty() {
            failures.push(format!("{way:?}: {found:?}"));
        }
    }
    assert!(failures.is_empty(), "in blocks that were given back: {failures:#?}");
}

/// All that is given back while one side agrees on a secret with another, in pieces.
fn pieces(private: &[u8], peer: &[u8]) -> HashSet<[u8; LEN]> {
    const MODP_2048: u16 = 14;
    keep();
    let agreed = watched(|| ike::internal::agree(MODP_2048, private, peer));
    let pieces = kept().windows(LEN).filter_map(|piece| piece.try_into().ok()).collect();
    assert!(agreed.is_some_and(|(_, secret)| secret.is_some()));
    pieces
}

/// P9: and of a MODP group's arithmetic, whose numbers take other forms on their way: what both sides have
/// left behind, and neither leaves behind when it agrees with somebody else, is what they have in common.
#[test]
fn what_two_have_in_common_is_wiped_in_every_form() {
    let _turn = TURN.lock();
    let (a, b, c): (Vec<u8>, _, _) = ((1..=40).collect(), vec![0xa7; 40], vec![0x3b; 40]);
    let public = |private: &[u8]| ike::internal::agree(14, private, &[0; 256]).unwrap().0;
    let [of_a, of_b, of_c] = [&a, &b, &c].map(|private| public(private));
    let (here, there) = (pieces(&a, &of_b), pieces(&b, &of_a));
    let others = [(&a, &of_c), (&b, &of_c), (&c, &of_a), (&c, &of_b)];
    let others: Vec<_> = others.into_iter().map(|(x, y)| pieces(x, y)).collect();
    let common = here.intersection(&there);
    let left = common.filter(|piece| others.iter().all(|other| !other.contains(*piece))).count();
    assert_eq!(left, 0, "pieces of the secret");
}
