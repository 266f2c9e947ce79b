//! How much memory is in use, in a program whose allocator is [`Counting`].
#![allow(unsafe_code, reason = "an allocator that counts, and a look at the C library's books")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Octets that Rust code has asked for and not given back.
static ASKED: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, and a book of what was asked of it.
#[derive(Debug)]
pub struct Counting;

// SAFETY: everything is passed on to the system's allocator as it came; only a number is kept.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is the system allocator's condition.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        ASKED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ASKED.fetch_add(new_size, Ordering::Relaxed);
        ASKED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, new_size) }
    }
}

/// What is in use, in octets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heap {
    /// What Rust code has asked for.
    pub asked: usize,
    /// What the C library has given out to anybody, its own rounding included: the cryptographic
    /// library allocates past Rust.
    pub given: usize,
}

impl Heap {
    /// In use at this moment.
    #[must_use]
    pub fn now() -> Self {
        // SAFETY: it reads the allocator's books and touches nothing of ours.
        let books = unsafe { libc::mallinfo2() };
        Self { asked: ASKED.load(Ordering::Relaxed), given: books.uordblks + books.hblkhd }
    }

    /// What has come on top since then, for each of `number`.
    #[must_use]
    pub fn for_each(self, since: Self, number: usize) -> Self {
        Self {
            asked: self.asked.saturating_sub(since.asked) / number,
            given: self.given.saturating_sub(since.given) / number,
        }
    }
}
