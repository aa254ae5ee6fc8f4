//! Holds requests back until they are whole.

use dhow_http::{HeaderMap, KnownHeader};
use dhow_proxy_api::{
    BodyPart, DataVerdict, FilterStream, HeadersVerdict, HttpFilter, HttpFilterFactory, TrailersVerdict,
    Watches,
};
use dhow_routing::FilterOverride;

use super::config::RouteLimit;
use crate::route_config::route_configs;

/// The configured filter: bytes of a request at most.
#[derive(Debug)]
pub(super) struct Factory(pub(super) u32);

impl HttpFilterFactory for Factory {
    fn create(&self, levels: &[FilterOverride]) -> Option<Box<dyn HttpFilter>> {
        let limit = match route_configs::<RouteLimit>(levels).next().as_deref() {
            Some(RouteLimit::Disabled) => return None,
            Some(RouteLimit::Bytes(limit)) => *limit,
            None => self.0,
        };
        Some(Box::new(Filter { limit, received: 0 }))
    }
}

/// The filter of one stream.
struct Filter {
    limit: u32,
    received: u64,
}

impl Filter {
    fn add_length(&self, request: &mut HeaderMap) {
        if !request.contains_known(KnownHeader::ContentLength) {
            request.set_known_number(KnownHeader::ContentLength, self.received);
        }
    }
}

impl HttpFilter for Filter {
    fn decode_headers(
        &mut self,
        _request: &mut HeaderMap,
        end_stream: bool,
        stream: &mut FilterStream<'_>,
    ) -> HeadersVerdict {
        if end_stream {
            return HeadersVerdict::Continue;
        }
        stream.control.request_buffer_limit = self.limit as usize;
        HeadersVerdict::Hold
    }

    fn watches(&self) -> Watches {
        Watches::REQUEST
    }

    fn decode_data(
        &mut self,
        request: &mut HeaderMap,
        part: BodyPart<'_>,
        _stream: &mut FilterStream<'_>,
    ) -> DataVerdict {
        self.received += part.data.len() as u64;
        if !part.end_stream {
            return DataVerdict::StopAndBuffer;
        }
        self.add_length(request);
        DataVerdict::Continue
    }

    fn decode_trailers(
        &mut self,
        request: &mut HeaderMap,
        _trailers: &mut HeaderMap,
        _stream: &mut FilterStream<'_>,
    ) -> TrailersVerdict {
        self.add_length(request);
        TrailersVerdict::Continue
    }
}
