//! Edits the headers.

use std::sync::Arc;

use dhow_http::{HeaderMap, KnownHeader};
use dhow_proxy_api::{
    FilterStream, HeadersVerdict, HttpFilter, HttpFilterFactory, StreamFormat, TrailersVerdict, Watches,
};
use dhow_routing::FilterOverride;

use super::config::{self, Mutations};
use super::query::edit_path;
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
        in_order.retain(|level| !level.is_empty());
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
        for level in &self.levels {
            for edit in &level.request {
                edit.apply_to_request(request, &context);
            }
            if !level.query.is_empty() && !request.path().is_empty() {
                let context = StreamFormat { request: Some(request), ..StreamFormat::new(stream.info) };
                let path = edit_path(request.path(), level.query.iter(), &context);
                request.set_known(KnownHeader::Path, &path);
            }
        }
        HeadersVerdict::Continue
    }

    fn watches(&self) -> Watches {
        let any = |of: fn(&Mutations) -> bool| self.levels.iter().any(|level| of(level));
        let mut watches = Watches::NOTHING;
        if any(|level| !level.request_trailers.is_empty()) {
            watches = watches.and(Watches::REQUEST_TRAILERS);
        }
        if any(|level| !level.response_trailers.is_empty()) {
            watches = watches.and(Watches::RESPONSE_TRAILERS);
        }
        watches
    }

    fn decode_trailers(
        &mut self,
        request: &mut HeaderMap,
        trailers: &mut HeaderMap,
        stream: &mut FilterStream<'_>,
    ) -> TrailersVerdict {
        let context = StreamFormat { request: Some(request), ..StreamFormat::new(stream.info) };
        for edit in self.levels.iter().flat_map(|level| &level.request_trailers) {
            edit.apply_to_trailers(trailers, &context);
        }
        TrailersVerdict::Continue
    }

    fn encode_headers(
        &mut self,
        request: &HeaderMap,
        response: &mut HeaderMap,
        _end_stream: bool,
        stream: &mut FilterStream<'_>,
    ) -> HeadersVerdict {
        let context = StreamFormat { request: Some(request), ..StreamFormat::new(stream.info) };
        for edit in self.levels.iter().flat_map(|level| &level.response) {
            edit.apply_to_response(response, &context);
        }
        HeadersVerdict::Continue
    }

    fn encode_trailers(
        &mut self,
        request: &HeaderMap,
        response: &mut HeaderMap,
        trailers: &mut HeaderMap,
        stream: &mut FilterStream<'_>,
    ) -> TrailersVerdict {
        let context = StreamFormat {
            request: Some(request),
            response: Some(response),
            ..StreamFormat::new(stream.info)
        };
        for edit in self.levels.iter().flat_map(|level| &level.response_trailers) {
            edit.apply_to_trailers(trailers, &context);
        }
        TrailersVerdict::Continue
    }

    fn renew(&mut self) -> bool {
        true
    }
}
