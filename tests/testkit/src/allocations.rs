//! Counts what a process allocates, thread by thread as wanted. Contains `unsafe`: an allocator cannot be written without.
//!
//! ```
//! use dhow_testkit::allocations::{self, CountingAllocator};
//!
//! #[global_allocator]
//! static ALLOCATOR: CountingAllocator = CountingAllocator;
//!
//! let before = allocations::counted();
//! let text = String::from("on the heap");
//! assert_eq!(allocations::counted() - before, 1, "{text}");
//! ```

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// The system's allocator, counting; for `#[global_allocator]` of a test binary.
#[derive(Debug)]
pub struct CountingAllocator;

static COUNT: AtomicU64 = AtomicU64::new(0);

thread_local! {
    // Without destructor and lazy initialisation, so that reading it never allocates.
    static IGNORED: Cell<bool> = const { Cell::new(false) };
}

/// How often memory was allocated or moved so far, by threads that are not ignored.
pub fn counted() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

/// Leaves out what this thread allocates from now on: the test's own part of the work.
pub fn ignore_this_thread() {
    IGNORED.with(|ignored| ignored.set(true));
}

fn count() {
    if !IGNORED.with(Cell::get) {
        COUNT.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator unchanged; counting touches an atomic and a thread-local without destructor,
// neither of which allocates or unwinds.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc`, which is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: `memory` came from this allocator with `layout`, that is from the system's.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}
