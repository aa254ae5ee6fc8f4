//! Edits the headers.

use std::sync::Arc;

use dhow_http::HeaderMap;
use dhow_proxy_api::{FilterStream, HeadersVerdict, HttpFilter, HttpFilterFactory, StreamFormat};
use dhow_routing::FilterOverride;

use super::config::{self, Mutations};
use crate::route_config::route_configs;

/// The configured filter.
#[derive(Debug)]
pub(super) struct Factory {
    own: Arc<Mutations>,
    most_specific_wins: bool,
}

impl Factory {
    /// The filter of a configuration.
    pub(super) fn new(config: config::Filter) -> Self {
        let config::Filter { mutations, most_specific_wins } = config;
        Self { own: Arc::new(mutations), most_specific_wins }
    }
}

impl HttpFilterFactory for Factory {
    fn create(&self, levels: &[FilterOverride]) -> Option<Box<dyn HttpFilter>> {
        let mut in_order = vec![self.own.clone()];
        in_order.extend(route_configs::<Mutations>(levels));
        if self.most_specific_wins {
            in_order[1..].reverse();
        }
        in_order.retain(|level| !(level.request.is_empty() && level.response.is_empty()));
        if in_order.is_empty() {
            return None;
        }
        Some(Box::new(Filter { levels: in_order.into() }))
    }
}

/// The filter of one stream: the filter's own mutations and the route's, in the order in which they are applied.
struct Filter {
    levels: Box<[Arc<Mutations>]>,
}

impl HttpFilter for Filter {
    fn decode_headers(
        &mut self,
        request: &mut HeaderMap,
        _end_stream: bool,
        stream: &mut FilterStream<'_>,
    ) -> HeadersVerdict {
        let context = StreamFormat::new(stream.info);
        for mutation in self.levels.iter().flat_map(|level| &level.request) {
            mutation.apply_to_request(request, &context);
        }
        HeadersVerdict::Continue
    }

    fn encode_headers(
        &mut self,
        request: &HeaderMap,
        response: &mut HeaderMap,
        _end_stream: bool,
        stream: &mut FilterStream<'_>,
    ) -> HeadersVerdict {
        let context = StreamFormat { request: Some(request), ..StreamFormat::new(stream.info) };
        for mutation in self.levels.iter().flat_map(|level| &level.response) {
            mutation.apply_to_response(response, &context);
        }
        HeadersVerdict::Continue
    }
}
