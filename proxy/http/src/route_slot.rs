//! The place where a route table is published: inline tables once, RDS tables at every update.

use std::sync::Arc;

use arc_swap::{ArcSwapOption, Cache};
use dhow_routing::RouteTable;

/// Holds the current route table of one connection manager; empty until its routes have come.
#[derive(Debug, Default)]
pub struct RouteSlot {
    table: Arc<ArcSwapOption<RouteTable>>,
}

/// A worker's cached pointer to the current table.
pub(crate) type CachedRoutes = Cache<Arc<ArcSwapOption<RouteTable>>, Option<Arc<RouteTable>>>;

impl RouteSlot {
    /// Publishes a table: requests that start from now on use it, those under way keep theirs.
    pub fn publish(&self, table: Arc<RouteTable>) {
        self.table.store(Some(table));
    }

    /// Whether a table was published.
    pub fn is_ready(&self) -> bool {
        self.table.load().is_some()
    }

    /// The current table.
    pub fn table(&self) -> Option<Arc<RouteTable>> {
        self.table.load_full()
    }

    pub(crate) fn cached(&self) -> CachedRoutes {
        Cache::new(self.table.clone())
    }
}
