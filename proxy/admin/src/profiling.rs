//! Profilers and heaps: what Envoy answers in a build without them.

use crate::query::QueryParams;
use crate::reply::Reply;

/// `/allocprofiler`.
pub(crate) fn allocations(query: &QueryParams) -> Reply {
    match enable(query) {
        Some(_) => Reply::error(501, "Allocation profile is not implemented in current build"),
        None => usage(),
    }
}

/// `/cpuprofiler`. It cannot be started, and so needs not be stopped.
pub(crate) fn processors(query: &QueryParams) -> Reply {
    match enable(query) {
        Some(true) => Reply::error(500, "failure to start the profiler"),
        Some(false) => Reply::ok(),
        None => usage(),
    }
}

/// `/heapprofiler`.
pub(crate) fn heap() -> Reply {
    Reply::error(501, "The current build does not support heap profiler")
}

/// `/heap_dump` and `/peak_heap_dump`.
pub(crate) fn heap_dump() -> Reply {
    Reply::error(501, "Heap profile is not implemented in current build")
}

/// `/memory/tcmalloc`.
pub(crate) fn tcmalloc() -> Reply {
    Reply::error(501, "Envoy was not built with tcmalloc.")
}

/// `/contention`.
pub(crate) fn contention() -> Reply {
    Reply::text(
        "Mutex contention tracing is not enabled. To enable, run Envoy with flag --enable-mutex-tracing.",
    )
}

/// The one parameter of profilers.
fn enable(query: &QueryParams) -> Option<bool> {
    match query.firsts()[..] {
        [("enable", "y")] => Some(true),
        [("enable", "n")] => Some(false),
        _ => None,
    }
}

fn usage() -> Reply {
    Reply::error(400, "?enable=<y|n>\n")
}
