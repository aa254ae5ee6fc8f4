//! What the levels of a route say to a filter, in the filter's own type.

use std::any::Any;
use std::sync::Arc;

use dhow_base::{ConfigError, FieldPath};
use dhow_routing::FilterOverride;

/// The configurations of the levels, the most specific first.
pub(crate) fn route_configs<T: Any + Send + Sync>(levels: &[FilterOverride]) -> impl Iterator<Item = Arc<T>> {
    levels.iter().filter_map(|level| level.config.clone()?.downcast().ok())
}

/// The refusal of a route's configuration for a filter that has none, in Envoy's words.
pub(crate) fn no_route_config(path: &FieldPath, filter: &str) -> ConfigError {
    ConfigError::new(
        path.clone(),
        format!("The filter {filter} doesn't support virtual host or route specific configurations"),
    )
}
