//! Counters per response code, which exist once the code was seen.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::handle::Counter;
use crate::scope::{Scope, StatName};

const FIRST_CODE: usize = 100;
const CODES: usize = 500;
/// After the codes: five classes, then codes outside of them, then all.
const CLASSES: usize = CODES;
const UNKNOWN: usize = CLASSES + 5;
const COMPLETED: usize = UNKNOWN + 1;
const CELLS: usize = COMPLETED + 1;

/// `<stem>_200`, `<stem>_2xx` and `<stem>_completed` of one scope, such as `cluster.<name>.upstream_rq` or `http.<prefix>.downstream_rq`.
///
/// Each appears in the output once it was charged, or its class was registered. The table of handles is allocated at the first charge.
#[derive(Debug)]
pub struct ResponseCodeStats {
    scope: Scope,
    stem: StatName,
    slots: OnceLock<Box<[AtomicU32; CELLS]>>,
}

impl ResponseCodeStats {
    pub(crate) fn new(scope: Scope, stem: StatName) -> Self {
        Self { scope, stem, slots: OnceLock::new() }
    }

    /// Makes the counters of the five classes and of the total exist from now on, as those of a connection manager do.
    pub fn register_classes(&self) {
        for at in (CLASSES..CLASSES + 5).chain([COMPLETED]) {
            self.cell(at);
        }
    }

    /// Counts a response: its code, its class and the total.
    pub fn charge(&self, code: u16) {
        self.charge_class(code);
        let at = (code as usize).wrapping_sub(FIRST_CODE);
        if at < CODES {
            self.cell(at).inc();
        }
    }

    /// Counts a response in its class and in the total only, as a connection manager does downstream.
    pub fn charge_class(&self, code: u16) {
        self.cell(COMPLETED).inc();
        match code / 100 {
            class @ 1..=5 => self.cell(CLASSES + class as usize - 1).inc(),
            _ => self.cell(UNKNOWN).inc(),
        }
    }

    #[inline]
    fn cell(&self, at: usize) -> Counter {
        let slots = self.slots.get_or_init(|| Box::new([const { AtomicU32::new(0) }; CELLS]));
        match slots[at].load(Relaxed) {
            0 => self.register(at, &slots[at]),
            slot => Counter { slot },
        }
    }

    #[cold]
    fn register(&self, at: usize, cell: &AtomicU32) -> Counter {
        let stem = &self.stem;
        let name = match at {
            COMPLETED => format!("{stem}_completed"),
            UNKNOWN => format!("{stem}_unknown"),
            CLASSES.. => format!("{stem}_{}xx", at - CLASSES + 1),
            code => format!("{stem}_{}", code + FIRST_CODE),
        };
        let counter = self.scope.counter(name);
        cell.store(counter.slot, Relaxed);
        counter
    }
}
