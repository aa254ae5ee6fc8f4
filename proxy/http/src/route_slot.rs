//! The place where a route table is published: inline tables once, RDS tables at every update.

use std::sync::Arc;

use arc_swap::{ArcSwapOption, Cache};
use dhow_routing::RouteTable;
use dhow_stats::Store;

use crate::router::RouteStats;

/// Holds the current route table of one connection manager; empty until its routes have come.
#[derive(Debug)]
pub struct RouteSlot {
    table: Arc<ArcSwapOption<RouteTable>>,
    /// Where requests of the table's routes are counted; empty when nothing in the table asks for it.
    stats: Arc<ArcSwapOption<RouteStats>>,
    store: Store,
}

/// A worker's cached pointer to the stats of the current table.
pub(crate) type CachedRouteStats = Cache<Arc<ArcSwapOption<RouteStats>>, Option<Arc<RouteStats>>>;

/// A worker's cached pointer to the current table.
pub(crate) type CachedRoutes = Cache<Arc<ArcSwapOption<RouteTable>>, Option<Arc<RouteTable>>>;

impl RouteSlot {
    pub(crate) fn new(store: &Store) -> Self {
        Self { table: Arc::default(), stats: Arc::default(), store: store.clone() }
    }

    /// Counts the requests of a table's routes from now on.
    pub(crate) fn count(&self, table: &RouteTable) {
        self.stats.store(RouteStats::of(table, &self.store).map(Arc::new));
    }

    /// Publishes a table: requests that start from now on use it, those under way keep theirs.
    pub fn publish(&self, table: Arc<RouteTable>) {
        self.count(&table);
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

    pub(crate) fn cached_stats(&self) -> CachedRouteStats {
        Cache::new(self.stats.clone())
    }
}
