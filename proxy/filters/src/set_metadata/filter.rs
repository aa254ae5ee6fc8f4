//! Sets the metadata.

use std::sync::Arc;

use dhow_http::HeaderMap;
use dhow_proxy_api::{FilterStream, HeadersVerdict, HttpFilter, HttpFilterFactory};
use dhow_routing::FilterOverride;

use super::config::{Entry, EntryValue};
use crate::route_config::route_configs;

dhow_stats::stat_group! {
    /// `http.<stat_prefix>.set_metadata.*`, and `set_metadata.*` of all routes together.
    pub(super) struct SetMetadataStats {
        counters { overwrite_denied }
    }
}

/// What the filter or a level of a route sets.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) entries: Box<[Entry]>,
    pub(super) stats: SetMetadataStats,
}

/// The configured filter.
#[derive(Debug)]
pub(super) struct Factory(pub(super) Arc<Settings>);

impl HttpFilterFactory for Factory {
    fn create(&self, levels: &[FilterOverride]) -> Option<Box<dyn HttpFilter>> {
        let of_route = route_configs::<Settings>(levels).next();
        Some(Box::new(Filter { own: self.0.clone(), of_route }))
    }
}

/// The filter of one stream.
struct Filter {
    own: Arc<Settings>,
    /// Of the most specific level of the route.
    of_route: Option<Arc<Settings>>,
}

impl HttpFilter for Filter {
    fn decode_headers(
        &mut self,
        _request: &mut HeaderMap,
        _end_stream: bool,
        stream: &mut FilterStream<'_>,
    ) -> HeadersVerdict {
        self.own.apply(stream);
        if let Some(of_route) = &self.of_route {
            of_route.apply(stream);
        }
        HeadersVerdict::Continue
    }

    fn renew(&mut self) -> bool {
        true
    }
}

impl Settings {
    fn apply(&self, stream: &mut FilterStream<'_>) {
        let metadata = &mut stream.info.dynamic_metadata;
        for Entry { namespace, value, overwrites } in &self.entries {
            match value {
                EntryValue::Fields(fields) if *overwrites || metadata.get(namespace).is_none() => {
                    metadata.merge(namespace, fields);
                }
                EntryValue::Typed(message) if *overwrites || metadata.typed(namespace).is_none() => {
                    metadata.set_typed(namespace, message);
                }
                EntryValue::Fields(_) | EntryValue::Typed(_) => self.stats.overwrite_denied().inc(),
            }
        }
    }
}
