//! Where the numbers live: one shard per thread, written by its thread alone, and a shared part that anyone may write.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::bins::{Bins, LocalBins};

/// Slots in one block; a block is allocated in a shard when its thread first writes one of them. A scope's slots are
/// consecutive, so a worker that never uses a cluster pays nothing for its stats.
const BLOCK: usize = 128;
const PAGE: usize = 512;
const PAGES: usize = 256;

/// The number of slots there can be; a request beyond it gets [`NO_SLOT`].
const MAX_SLOTS: usize = PAGES * PAGE * BLOCK;
const MAX_HISTOGRAMS: usize = PAGES * PAGE;

/// A slot that is written like any other and never read: for stats that are refused by the stats matcher.
pub(crate) const NO_SLOT: u32 = 0;

struct Block {
    values: [AtomicU64; BLOCK],
    /// Bit per slot: written at least once. Only kept for gauges, whose value may be back at zero.
    used: [AtomicU64; BLOCK / 64],
}

impl Block {
    fn new() -> Box<Self> {
        Box::new(Self {
            values: [const { AtomicU64::new(0) }; BLOCK],
            used: [const { AtomicU64::new(0) }; BLOCK / 64],
        })
    }

    #[inline]
    fn add_unshared(&self, slot: u32, by: u64) {
        let value = &self.values[slot as usize % BLOCK];
        value.store(value.load(Relaxed).wrapping_add(by), Relaxed);
    }

    #[inline]
    fn mark_used(&self, slot: u32) {
        let at = slot as usize % BLOCK;
        let word = &self.used[at / 64];
        let bit = 1 << (at % 64);
        if word.load(Relaxed) & bit == 0 {
            word.fetch_or(bit, Relaxed);
        }
    }
}

type Page<T> = Box<[OnceLock<Box<T>>]>;

/// A sparse array of `T` in two levels, filled on first use and never moved.
struct Directory<T> {
    pages: Box<[OnceLock<Page<T>>]>,
}

impl<T> Directory<T> {
    fn new() -> Self {
        Self { pages: (0..PAGES).map(|_| OnceLock::new()).collect() }
    }

    #[inline]
    fn get(&self, index: usize) -> Option<&T> {
        self.pages.get(index / PAGE)?.get()?[index % PAGE].get().map(|boxed| &**boxed)
    }

    #[cold]
    fn create(&self, index: usize, new: impl FnOnce() -> Box<T>) -> &T {
        let page = self.pages[index / PAGE].get_or_init(|| (0..PAGE).map(|_| OnceLock::new()).collect());
        page[index % PAGE].get_or_init(new)
    }
}

/// The values of one thread, or the shared ones.
pub(crate) struct Shard {
    blocks: Directory<Block>,
    histograms: Directory<LocalBins>,
}

impl Shard {
    fn new() -> Self {
        Self { blocks: Directory::new(), histograms: Directory::new() }
    }

    #[inline]
    fn block(&self, slot: u32) -> &Block {
        let index = slot as usize / BLOCK;
        match self.blocks.get(index) {
            Some(block) => block,
            None => self.blocks.create(index, Block::new),
        }
    }

    fn value(&self, slot: u32) -> u64 {
        self.blocks.get(slot as usize / BLOCK).map_or(0, |b| b.values[slot as usize % BLOCK].load(Relaxed))
    }

    fn used(&self, slot: u32) -> bool {
        let at = slot as usize % BLOCK;
        self.blocks
            .get(slot as usize / BLOCK)
            .is_some_and(|b| b.used[at / 64].load(Relaxed) >> (at % 64) & 1 == 1)
    }

    #[inline]
    fn add_unshared(&self, slot: u32, by: u64) {
        self.block(slot).add_unshared(slot, by);
    }

    fn add_shared(&self, slot: u32, by: u64) {
        self.block(slot).values[slot as usize % BLOCK].fetch_add(by, Relaxed);
    }

    fn mark_used(&self, slot: u32) {
        self.block(slot).mark_used(slot);
    }

    #[inline]
    fn local_bins(&self, id: u32) -> &LocalBins {
        match self.histograms.get(id as usize) {
            Some(bins) => bins,
            None => self.histograms.create(id as usize, || Box::new(LocalBins::new())),
        }
    }
}

/// Everything that the threads' shards have in common.
struct Shards {
    live: Mutex<Vec<Arc<Shard>>>,
    /// What ended threads counted, what `set` stored, and corrections (resets, reuse of a slot).
    shared: Shard,
    slots: Mutex<Space>,
    histograms: Mutex<Space>,
}

/// Hands out runs of consecutive numbers, and takes them back.
struct Space {
    next: usize,
    end: usize,
    free: Vec<(u32, u32)>,
}

impl Space {
    /// A run of `len` numbers, and whether it was in use before.
    fn take(&mut self, len: usize) -> Option<(u32, bool)> {
        if let Some(at) = self.free.iter().position(|&(_, free)| free as usize == len) {
            return Some((self.free.swap_remove(at).0, true));
        }
        if self.next + len > self.end {
            return None;
        }
        let start = self.next;
        self.next += len;
        Some((start as u32, false))
    }
}

fn shards() -> &'static Shards {
    static SHARDS: OnceLock<Shards> = OnceLock::new();
    SHARDS.get_or_init(|| Shards {
        live: Mutex::new(Vec::new()),
        shared: Shard::new(),
        slots: Mutex::new(Space { next: 1, end: MAX_SLOTS, free: Vec::new() }),
        histograms: Mutex::new(Space { next: 1, end: MAX_HISTOGRAMS, free: Vec::new() }),
    })
}

struct Mine(Arc<Shard>);

impl Mine {
    fn new() -> Self {
        let shard = Arc::new(Shard::new());
        shards().live.lock().push(shard.clone());
        Self(shard)
    }
}

impl Drop for Mine {
    /// Folds the thread's values into the shared ones under the lock that readers sum under, so no sum sees them twice or not at all.
    fn drop(&mut self) {
        let all = shards();
        let mut live = all.live.lock();
        live.retain(|shard| !Arc::ptr_eq(shard, &self.0));
        for (page_at, page) in self.0.blocks.pages.iter().enumerate() {
            for (block_at, block) in page.get().into_iter().flat_map(|p| p.iter().enumerate()) {
                let Some(block) = block.get() else { continue };
                let first = (page_at * PAGE + block_at) * BLOCK;
                for (at, value) in block.values.iter().enumerate() {
                    let slot = (first + at) as u32;
                    let value = value.load(Relaxed);
                    if value != 0 {
                        all.shared.add_shared(slot, value);
                    }
                    if self.0.used(slot) {
                        all.shared.mark_used(slot);
                    }
                }
            }
        }
        for (page_at, page) in self.0.histograms.pages.iter().enumerate() {
            for (at, bins) in page.get().into_iter().flat_map(|p| p.iter().enumerate()) {
                if let Some(bins) = bins.get() {
                    all.shared.local_bins((page_at * PAGE + at) as u32).fold(bins);
                }
            }
        }
    }
}

thread_local! {
    static MINE: Mine = Mine::new();
}

/// Adds to the calling thread's value of a slot.
#[inline]
pub(crate) fn add(slot: u32, by: u64) {
    if MINE.try_with(|mine| mine.0.add_unshared(slot, by)).is_err() {
        shards().shared.add_shared(slot, by);
    }
}

/// As [`add`], and notes that the slot was written.
#[inline]
pub(crate) fn add_marked(slot: u32, by: u64) {
    let done = MINE.try_with(|mine| {
        let block = mine.0.block(slot);
        block.add_unshared(slot, by);
        block.mark_used(slot);
    });
    if done.is_err() {
        shards().shared.add_shared(slot, by);
        shards().shared.mark_used(slot);
    }
}

/// Makes the sum over all threads equal to `to`.
pub(crate) fn set(slot: u32, to: u64) {
    let all = shards();
    let live = all.live.lock();
    let in_threads = live.iter().fold(0u64, |sum, shard| sum.wrapping_add(shard.value(slot)));
    let cell = &all.shared.block(slot).values[slot as usize % BLOCK];
    cell.store(to.wrapping_sub(in_threads), Relaxed);
    all.shared.mark_used(slot);
}

/// Sets the sum to zero and keeps the note that the slot was used.
pub(crate) fn reset(slot: u32) {
    if sum(slot) != 0 {
        set(slot, 0);
    }
}

/// The sum over all threads.
pub(crate) fn sum(slot: u32) -> u64 {
    let all = shards();
    let live = all.live.lock();
    live.iter().fold(all.shared.value(slot), |sum, shard| sum.wrapping_add(shard.value(slot)))
}

/// Sums many consecutive slots under one lock; the bool tells whether the slot was marked as used.
pub(crate) fn sum_run(first: u32, len: usize, out: &mut Vec<(u64, bool)>) {
    let all = shards();
    let live = all.live.lock();
    for slot in first..first + len as u32 {
        let mut value = all.shared.value(slot);
        let mut used = all.shared.used(slot);
        for shard in live.iter() {
            value = value.wrapping_add(shard.value(slot));
            used |= shard.used(slot);
        }
        out.push((value, used || value != 0));
    }
}

/// Records a number in the calling thread's part of a histogram.
#[inline]
pub(crate) fn record(id: u32, value: u64) {
    if MINE.try_with(|mine| mine.0.local_bins(id).add_unshared(value)).is_err() {
        shards().shared.local_bins(id).add_shared(value);
    }
}

/// The sum of a histogram over all threads, since its id was first used.
pub(crate) fn sum_bins(id: u32) -> Bins {
    let all = shards();
    let live = all.live.lock();
    let mut sum = Bins::default();
    for shard in live.iter().map(|s| &**s).chain([&all.shared]) {
        if let Some(bins) = shard.histograms.get(id as usize) {
            bins.add_to(&mut sum);
        }
    }
    sum
}

/// Reserves consecutive slots that all read zero and unused.
pub(crate) fn take_slots(len: usize) -> u32 {
    let Some((first, reused)) = shards().slots.lock().take(len) else { return NO_SLOT };
    if reused {
        let all = shards();
        for slot in first..first + len as u32 {
            set(slot, 0);
            for shard in all.live.lock().iter().map(|s| &**s).chain([&all.shared]) {
                if let Some(block) = shard.blocks.get(slot as usize / BLOCK) {
                    let at = slot as usize % BLOCK;
                    block.used[at / 64].fetch_and(!(1 << (at % 64)), Relaxed);
                }
            }
        }
    }
    first
}

/// Gives consecutive slots back.
pub(crate) fn return_slots(first: u32, len: usize) {
    if first != NO_SLOT && len > 0 {
        shards().slots.lock().free.push((first, len as u32));
    }
}

/// Reserves consecutive histogram ids. What they held before, if anything, is for the caller to subtract ([`sum_bins`]).
pub(crate) fn take_histograms(len: usize) -> u32 {
    shards().histograms.lock().take(len).map_or(NO_SLOT, |(first, _)| first)
}

/// Gives consecutive histogram ids back.
pub(crate) fn return_histograms(first: u32, len: usize) {
    if first != NO_SLOT && len > 0 {
        shards().histograms.lock().free.push((first, len as u32));
    }
}
