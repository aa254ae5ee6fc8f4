//! What the levels of a route say to a filter, in the filter's own type.

use std::any::Any;
use std::sync::Arc;

use dhow_routing::FilterOverride;

/// The configurations of the levels, the most specific first.
pub(crate) fn route_configs<T: Any + Send + Sync>(levels: &[FilterOverride]) -> impl Iterator<Item = Arc<T>> {
    levels.iter().filter_map(|level| level.config.clone()?.downcast().ok())
}
