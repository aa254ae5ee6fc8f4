//! Sets the metadata.

use std::sync::Arc;

use dhow_http::HeaderMap;
use dhow_proxy_api::{FilterStream, HeadersVerdict, HttpFilter, HttpFilterFactory};
use dhow_routing::FilterOverride;

use super::config::{Entry, EntryValue};

dhow_stats::stat_group! {
    /// `http.<stat_prefix>.set_metadata.*`.
    pub(super) struct SetMetadataStats {
        counters { overwrite_denied }
    }
}

/// The configured filter.
#[derive(Debug)]
pub(super) struct Factory {
    pub(super) entries: Arc<[Entry]>,
    pub(super) stats: SetMetadataStats,
}

impl HttpFilterFactory for Factory {
    fn create(&self, _levels: &[FilterOverride]) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(Filter { entries: self.entries.clone(), stats: self.stats.clone() }))
    }
}

/// The filter of one stream.
struct Filter {
    entries: Arc<[Entry]>,
    stats: SetMetadataStats,
}

impl HttpFilter for Filter {
    fn decode_headers(
        &mut self,
        _request: &mut HeaderMap,
        _end_stream: bool,
        stream: &mut FilterStream<'_>,
    ) -> HeadersVerdict {
        let metadata = &mut stream.info.dynamic_metadata;
        for Entry { namespace, value, overwrites } in &*self.entries {
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
        HeadersVerdict::Continue
    }

    fn renew(&mut self) -> bool {
        true
    }
}
