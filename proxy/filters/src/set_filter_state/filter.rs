//! Sets the objects.

use std::sync::Arc;

use dhow_http::HeaderMap;
use dhow_proxy_api::{
    FilterStateEntry, FilterStream, HeadersVerdict, HttpFilter, HttpFilterFactory, StreamFormat,
};
use dhow_routing::FilterOverride;

use super::config::{Object, Settings};
use crate::route_config::route_configs;

/// The configured filter.
#[derive(Debug)]
pub(super) struct Factory(pub(super) Arc<Settings>);

impl HttpFilterFactory for Factory {
    fn create(&self, levels: &[FilterOverride]) -> Option<Box<dyn HttpFilter>> {
        let mut settings: Vec<_> = route_configs::<Settings>(levels).collect();
        settings.push(self.0.clone());
        // The most specific level comes last and so has the last word.
        settings.reverse();
        Some(Box::new(Filter { settings: settings.into() }))
    }
}

/// The filter of one stream.
struct Filter {
    settings: Box<[Arc<Settings>]>,
}

impl HttpFilter for Filter {
    fn decode_headers(
        &mut self,
        request: &mut HeaderMap,
        _end_stream: bool,
        stream: &mut FilterStream<'_>,
    ) -> HeadersVerdict {
        for object in self.settings.iter().flat_map(|settings| &settings.objects) {
            object.set(request, stream);
        }
        if self.settings.iter().any(|settings| settings.clears_route_cache) {
            stream.clear_route_cache();
        }
        HeadersVerdict::Continue
    }

    fn renew(&mut self) -> bool {
        true
    }
}

impl Object {
    fn set(&self, request: &HeaderMap, stream: &mut FilterStream<'_>) {
        let context = StreamFormat { request: Some(request), ..StreamFormat::new(stream.info) };
        if let Some(entry) = self.make(&context) {
            stream.info.filter_state.insert(entry);
        }
    }

    /// The object as it is now; none when it is empty and left out then, or no value of its kind.
    pub(crate) fn make(&self, context: &StreamFormat<'_>) -> Option<FilterStateEntry> {
        let mut text = Vec::new();
        self.format.append(context, &mut Vec::new(), &mut text);
        if text.is_empty() && self.skip_if_empty {
            return None;
        }
        let Some(value) = std::str::from_utf8(&text).ok().and_then(|text| self.kind.make(text)) else {
            tracing::debug!("'{}' is no value for the filter state's '{}'", text.escape_ascii(), self.key);
            return None;
        };
        Some(FilterStateEntry {
            key: (&*self.key).into(),
            value,
            read_only: false,
            sharing: self.sharing,
            hashable: self.hashable,
        })
    }
}
