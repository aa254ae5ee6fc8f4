//! Skips the filter inside.

use std::sync::Arc;

use dhow_http::HeaderMap;
use dhow_matching::generic::Verdict;
use dhow_proxy_api::{
    BodyPart, DataVerdict, FilterStream, HeadersVerdict, HttpFilter, HttpFilterFactory, StreamFormat,
    StreamInfo, TrailersVerdict, Watches,
};
use dhow_routing::FilterOverride;

use super::config::SkipTree;
use crate::route_config::route_configs;

/// The configured filter.
#[derive(Debug)]
pub(super) struct Factory {
    pub(super) inner: Arc<dyn HttpFilterFactory>,
    pub(super) tree: Option<Arc<SkipTree>>,
}

impl HttpFilterFactory for Factory {
    fn create(&self, levels: &[FilterOverride]) -> Option<Box<dyn HttpFilter>> {
        let inner = self.inner.create(levels)?;
        match route_configs::<SkipTree>(levels).next().or_else(|| self.tree.clone()) {
            Some(tree) => Some(Box::new(Filter { inner, tree: Some(tree), skipped: false })),
            None => Some(inner),
        }
    }
}

/// The filter of one stream.
struct Filter {
    inner: Box<dyn HttpFilter>,
    /// None once it has decided.
    tree: Option<Arc<SkipTree>>,
    skipped: bool,
}

impl Filter {
    /// Asks the tree, as long as it has not decided.
    fn decide(&mut self, request: &HeaderMap, response: Option<&HeaderMap>, info: &StreamInfo) {
        let Some(tree) = &self.tree else { return };
        let data = StreamFormat { request: Some(request), response, ..StreamFormat::new(info) };
        match tree.evaluate(&data) {
            Verdict::Insufficient => return,
            Verdict::Matched(_) => self.skipped = true,
            Verdict::NoMatch => {}
        }
        self.tree = None;
    }
}

impl HttpFilter for Filter {
    fn decode_headers(
        &mut self,
        request: &mut HeaderMap,
        end_stream: bool,
        stream: &mut FilterStream<'_>,
    ) -> HeadersVerdict {
        self.decide(request, None, stream.info);
        if self.skipped {
            return HeadersVerdict::Continue;
        }
        self.inner.decode_headers(request, end_stream, stream)
    }

    fn decode_resumed(&mut self, request: &mut HeaderMap, stream: &mut FilterStream<'_>) {
        self.inner.decode_resumed(request, stream);
    }

    fn watches(&self) -> Watches {
        if self.skipped { Watches::NOTHING } else { self.inner.watches() }
    }

    fn decode_data(
        &mut self,
        request: &mut HeaderMap,
        part: BodyPart<'_>,
        stream: &mut FilterStream<'_>,
    ) -> DataVerdict {
        self.inner.decode_data(request, part, stream)
    }

    fn decode_trailers(
        &mut self,
        request: &mut HeaderMap,
        trailers: &mut HeaderMap,
        stream: &mut FilterStream<'_>,
    ) -> TrailersVerdict {
        self.inner.decode_trailers(request, trailers, stream)
    }

    fn encode_headers(
        &mut self,
        request: &HeaderMap,
        response: &mut HeaderMap,
        end_stream: bool,
        stream: &mut FilterStream<'_>,
    ) -> HeadersVerdict {
        self.decide(request, Some(response), stream.info);
        if self.skipped {
            return HeadersVerdict::Continue;
        }
        self.inner.encode_headers(request, response, end_stream, stream)
    }

    fn encode_data(
        &mut self,
        response: &mut HeaderMap,
        part: BodyPart<'_>,
        stream: &mut FilterStream<'_>,
    ) -> DataVerdict {
        self.inner.encode_data(response, part, stream)
    }

    fn encode_trailers(
        &mut self,
        request: &HeaderMap,
        response: &mut HeaderMap,
        trailers: &mut HeaderMap,
        stream: &mut FilterStream<'_>,
    ) -> TrailersVerdict {
        self.inner.encode_trailers(request, response, trailers, stream)
    }

    fn on_stream_complete(&mut self, info: &StreamInfo) {
        if !self.skipped {
            self.inner.on_stream_complete(info);
        }
    }
}
