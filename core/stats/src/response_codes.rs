//! Counters per response code, which exist once the code was seen.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::handle::Counter;
use crate::scope::Scope;

const FIRST_CODE: usize = 100;
const CODES: usize = 500;
/// After the codes: five classes, then codes outside of them, then all.
const CLASSES: usize = CODES;
const UNKNOWN: usize = CLASSES + 5;
const COMPLETED: usize = UNKNOWN + 1;
const CELLS: usize = COMPLETED + 1;

/// `<stem>_200`, `<stem>_2xx` and `<stem>_completed` of one scope, such as `http.<prefix>.downstream_rq`.
///
/// Each appears in the output once it was charged, or its class was registered. The table of handles is allocated at the first charge.
#[derive(Debug)]
pub struct ResponseCodeStats {
    scope: Scope,
    stem: &'static str,
    table: ResponseCodeTable,
}

impl ResponseCodeStats {
    pub(crate) fn new(scope: Scope, stem: &'static str) -> Self {
        Self { scope, stem, table: ResponseCodeTable::default() }
    }

    /// Makes the counters of the five classes and of the total exist from now on, as those of a connection manager do.
    pub fn register_classes(&self) {
        for at in (CLASSES..CLASSES + 5).chain([COMPLETED]) {
            self.table.cell(at, &self.scope, self.stem);
        }
    }

    /// Counts a response: its code, its class and the total.
    pub fn charge(&self, code: u16) {
        self.table.charge(code, &self.scope, self.stem);
    }

    /// Counts a response in its class and in the total only, as a connection manager does downstream.
    pub fn charge_class(&self, code: u16) {
        self.table.charge_class(code, &self.scope, self.stem);
    }
}

/// The counters of [`ResponseCodeStats`] for a holder of many of them, which says each time what they are of: always the same scope
/// and the same beginning of the names, such as `internal.upstream_rq`.
#[derive(Debug, Default)]
pub struct ResponseCodeTable {
    slots: OnceLock<Box<[AtomicU32; CELLS]>>,
}

impl ResponseCodeTable {
    /// Counts a response: its code, its class and the total.
    pub fn charge(&self, code: u16, scope: &Scope, stem: &'static str) {
        self.charge_class(code, scope, stem);
        let at = (code as usize).wrapping_sub(FIRST_CODE);
        if at < CODES {
            self.cell(at, scope, stem).inc();
        }
    }

    fn charge_class(&self, code: u16, scope: &Scope, stem: &'static str) {
        let class = match code / 100 {
            class @ 1..=5 => CLASSES + class as usize - 1,
            _ => UNKNOWN,
        };
        self.cell(COMPLETED, scope, stem).inc();
        self.cell(class, scope, stem).inc();
    }

    #[inline]
    fn cell(&self, at: usize, scope: &Scope, stem: &'static str) -> Counter {
        let slots = self.slots.get_or_init(|| Box::new([const { AtomicU32::new(0) }; CELLS]));
        match slots[at].load(Relaxed) {
            0 => register(at, &slots[at], scope, stem),
            slot => Counter { slot },
        }
    }
}

#[cold]
fn register(at: usize, cell: &AtomicU32, scope: &Scope, stem: &'static str) -> Counter {
    let name = match at {
        COMPLETED => format!("{stem}_completed"),
        UNKNOWN => format!("{stem}_unknown"),
        CLASSES.. => format!("{stem}_{}xx", at - CLASSES + 1),
        code => format!("{stem}_{}", code + FIRST_CODE),
    };
    let counter = scope.counter(name);
    cell.store(counter.slot, Relaxed);
    counter
}
