//! Where the numbers live: one shard per thread, written by its thread alone, and a shared part that anyone may write.

use std::cell::{Cell, RefCell};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::bins::{Bins, LocalBins};

/// Slots in one block; a block is allocated in a shard when its thread first writes one of them, and groups begin with a
/// block of their own. So a worker that never uses a cluster pays nothing for its stats, and the main thread, which counts
/// the set-up of thousands of clusters, pays for one small block of each.
const BLOCK: usize = 16;
const BLOCK_PAGES: usize = 1024;
const BLOCK_PAGE: usize = 1024;
const HISTOGRAM_PAGES: usize = 256;
const HISTOGRAM_PAGE: usize = 512;

/// The number of slots there can be; a request beyond it gets [`NO_SLOT`].
const MAX_SLOTS: usize = BLOCK_PAGES * BLOCK_PAGE * BLOCK;
/// Runs of at most a block are below, longer ones above: the pages that hold the blocks of the latter are not needed by a thread
/// that writes the former only.
const FIRST_LONG_RUN: usize = MAX_SLOTS / 4;
const MAX_HISTOGRAMS: usize = HISTOGRAM_PAGES * HISTOGRAM_PAGE;

/// A slot that is written like any other and never read: for stats that are refused by the stats matcher.
pub(crate) const NO_SLOT: u32 = 0;

struct Block {
    values: [AtomicU64; BLOCK],
    /// Bit per slot: written at least once. Only kept for gauges, whose value may be back at zero.
    used: AtomicU32,
}

impl Block {
    fn new() -> Box<Self> {
        Box::new(Self { values: [const { AtomicU64::new(0) }; BLOCK], used: AtomicU32::new(0) })
    }

    /// The bit of a slot in [`Block::used`].
    #[inline]
    const fn bit(slot: u32) -> u32 {
        1 << (slot as usize % BLOCK)
    }

    #[inline]
    fn add_unshared(&self, slot: u32, by: u64) {
        let value = &self.values[slot as usize % BLOCK];
        value.store(value.load(Relaxed).wrapping_add(by), Relaxed);
    }

    #[inline]
    fn mark_used(&self, slot: u32) {
        let bit = Self::bit(slot);
        if self.used.load(Relaxed) & bit == 0 {
            self.used.fetch_or(bit, Relaxed);
        }
    }
}

type Page<T, const PAGE: usize> = Box<[OnceLock<Box<T>>; PAGE]>;

/// A sparse array of `T` in two levels, filled on first use and never moved.
struct Directory<T, const PAGES: usize, const PAGE: usize> {
    pages: Box<[OnceLock<Page<T, PAGE>>; PAGES]>,
}

/// Cells made where they stay: an array of this size is too large for the stack.
fn cells<T, const COUNT: usize>() -> Box<[OnceLock<T>; COUNT]> {
    let cells: Box<[OnceLock<T>]> = (0..COUNT).map(|_| OnceLock::new()).collect();
    cells.try_into().ok().expect("there are as many cells as were asked for")
}

impl<T, const PAGES: usize, const PAGE: usize> Directory<T, PAGES, PAGE> {
    fn new() -> Self {
        Self { pages: cells() }
    }

    #[inline]
    fn get(&self, index: usize) -> Option<&T> {
        self.pages.get(index / PAGE)?.get()?[index % PAGE].get().map(|boxed| &**boxed)
    }

    #[cold]
    fn create(&self, index: usize, new: impl FnOnce() -> Box<T>) -> &T {
        self.pages[index / PAGE].get_or_init(cells)[index % PAGE].get_or_init(new)
    }

    /// What there is, with its index.
    fn filled(&self) -> impl Iterator<Item = (usize, &T)> {
        let pages = self.pages.iter().enumerate().filter_map(|(at, page)| Some((at, page.get()?)));
        pages.flat_map(|(page_at, page)| {
            let filled = page.iter().enumerate().filter_map(|(at, cell)| Some((at, cell.get()?)));
            filled.map(move |(at, value)| (page_at * PAGE + at, &**value))
        })
    }
}

/// The values of one thread, or the shared ones.
pub(crate) struct Shard {
    blocks: Directory<Block, BLOCK_PAGES, BLOCK_PAGE>,
    histograms: Directory<LocalBins, HISTOGRAM_PAGES, HISTOGRAM_PAGE>,
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
        let block = self.blocks.get(slot as usize / BLOCK);
        block.is_some_and(|block| block.used.load(Relaxed) & Block::bit(slot) != 0)
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
    live: Mutex<Vec<&'static Shard>>,
    /// Shards of ended threads, all of them empty.
    idle: Mutex<Vec<&'static Shard>>,
    /// What ended threads counted.
    shared: Shard,
    slots: Mutex<Slots>,
    histograms: Mutex<Space>,
}

impl Shards {
    fn sum(&self, slot: u32, live: &[&Shard]) -> u64 {
        live.iter().fold(self.shared.value(slot), |sum, shard| sum.wrapping_add(shard.value(slot)))
    }
}

/// Hands out runs of consecutive numbers, and takes them back.
struct Space {
    next: usize,
    end: usize,
    /// What runs of more than one number begin at a multiple of.
    alignment: usize,
    free: Vec<(u32, u32)>,
}

impl Space {
    const fn new(range: std::ops::Range<usize>, alignment: usize) -> Self {
        Self { next: range.start, end: range.end, alignment, free: Vec::new() }
    }

    /// A run of `len` numbers, and whether it was in use before.
    fn take(&mut self, len: usize) -> Option<(u32, bool)> {
        if let Some(at) = self.free.iter().position(|&(_, free)| free as usize == len) {
            return Some((self.free.swap_remove(at).0, true));
        }
        let start = if len > 1 { self.next.next_multiple_of(self.alignment) } else { self.next };
        if start + len > self.end {
            return None;
        }
        self.next = start + len;
        Some((start as u32, false))
    }
}

/// The slots of runs of one length or the other.
struct Slots {
    short: Space,
    long: Space,
}

impl Slots {
    fn of(&mut self, len: usize) -> &mut Space {
        if len <= BLOCK { &mut self.short } else { &mut self.long }
    }
}

fn shards() -> &'static Shards {
    static SHARDS: OnceLock<Shards> = OnceLock::new();
    SHARDS.get_or_init(|| Shards {
        live: Mutex::new(Vec::new()),
        idle: Mutex::new(Vec::new()),
        shared: Shard::new(),
        slots: Mutex::new(Slots {
            short: Space::new(1..FIRST_LONG_RUN, BLOCK),
            long: Space::new(FIRST_LONG_RUN..MAX_SLOTS, BLOCK),
        }),
        histograms: Mutex::new(Space::new(1..MAX_HISTOGRAMS, 1)),
    })
}

/// Ends a thread's part: what it counted joins the shared values.
struct Ending(&'static Shard);

impl Drop for Ending {
    /// Folds the thread's values into the shared ones under the lock that readers sum under, so no sum sees them twice or not at all.
    fn drop(&mut self) {
        MINE.set(None);
        let all = shards();
        let mut live = all.live.lock();
        live.retain(|shard| !std::ptr::eq(*shard, self.0));
        for (at, block) in self.0.blocks.filled() {
            for (slot, value) in ((at * BLOCK) as u32..).zip(&block.values) {
                let value = value.swap(0, Relaxed);
                if value != 0 {
                    all.shared.add_shared(slot, value);
                }
                if block.used.load(Relaxed) & Block::bit(slot) != 0 {
                    all.shared.mark_used(slot);
                }
            }
            block.used.store(0, Relaxed);
        }
        for (id, bins) in self.0.histograms.filled() {
            all.shared.local_bins(id as u32).fold(bins);
            bins.reset();
        }
        all.idle.lock().push(self.0);
    }
}

thread_local! {
    /// The thread's shard, once it has one. It has no destructor, so that looking at it is one load.
    static MINE: Cell<Option<&'static Shard>> = const { Cell::new(None) };
    static ENDING: RefCell<Option<Ending>> = const { RefCell::new(None) };
}

/// The calling thread's shard; none while the thread ends.
#[inline]
fn mine() -> Option<&'static Shard> {
    MINE.get().or_else(begin)
}

#[cold]
fn begin() -> Option<&'static Shard> {
    let all = shards();
    ENDING
        .try_with(|ending| {
            // Shards outlive their threads and are used again, so there are never more than threads at one time.
            let shard = all.idle.lock().pop().unwrap_or_else(|| Box::leak(Box::new(Shard::new())));
            all.live.lock().push(shard);
            *ending.borrow_mut() = Some(Ending(shard));
            MINE.set(Some(shard));
            shard
        })
        .ok()
}

/// Adds to the calling thread's value of a slot.
#[inline]
pub(crate) fn add(slot: u32, by: u64) {
    match mine() {
        Some(shard) => shard.add_unshared(slot, by),
        None => shards().shared.add_shared(slot, by),
    }
}

/// As [`add`], and notes that the slot was written.
#[inline]
pub(crate) fn add_marked(slot: u32, by: u64) {
    match mine() {
        Some(shard) => {
            let block = shard.block(slot);
            block.add_unshared(slot, by);
            block.mark_used(slot);
        }
        None => {
            shards().shared.add_shared(slot, by);
            shards().shared.mark_used(slot);
        }
    }
}

/// Makes the sum over all threads equal to `to`, by what the calling thread's own value is then.
pub(crate) fn set(slot: u32, to: u64) {
    let all = shards();
    // The thread has its shard before the lock is taken: it takes the lock to get one.
    let own = mine();
    let live = all.live.lock();
    let missing = to.wrapping_sub(all.sum(slot, &live));
    match own {
        Some(shard) => {
            let block = shard.block(slot);
            block.add_unshared(slot, missing);
            block.mark_used(slot);
        }
        None => {
            all.shared.add_shared(slot, missing);
            all.shared.mark_used(slot);
        }
    }
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
    all.sum(slot, &all.live.lock())
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
    match mine() {
        Some(shard) => shard.local_bins(id).add_unshared(value),
        None => shards().shared.local_bins(id).add_shared(value),
    }
}

/// The sum of a histogram over all threads, since its id was first used.
pub(crate) fn sum_bins(id: u32) -> Bins {
    let all = shards();
    let live = all.live.lock();
    let mut sum = Bins::default();
    for shard in live.iter().copied().chain([&all.shared]) {
        if let Some(bins) = shard.histograms.get(id as usize) {
            bins.add_to(&mut sum);
        }
    }
    sum
}

/// Reserves consecutive slots that all read zero and unused.
pub(crate) fn take_slots(len: usize) -> u32 {
    let all = shards();
    let Some((first, reused)) = all.slots.lock().of(len).take(len) else { return NO_SLOT };
    if reused {
        for slot in first..first + len as u32 {
            reset(slot);
            for shard in all.live.lock().iter().copied().chain([&all.shared]) {
                if let Some(block) = shard.blocks.get(slot as usize / BLOCK) {
                    block.used.fetch_and(!Block::bit(slot), Relaxed);
                }
            }
        }
    }
    first
}

/// Gives consecutive slots back.
pub(crate) fn return_slots(first: u32, len: usize) {
    if first != NO_SLOT && len > 0 {
        shards().slots.lock().of(len).free.push((first, len as u32));
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
