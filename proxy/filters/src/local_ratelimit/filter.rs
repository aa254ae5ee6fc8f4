//! Refuses what is over the limit.

use std::sync::Arc;

use dhow_base::ResponseFlag;
use dhow_http::{HeaderMap, HeaderName, format_decimal};
use dhow_proxy_api::{FilterStream, HeadersVerdict, HttpFilter, HttpFilterFactory, LocalReply, StreamFormat};
use dhow_routing::{FilterOverride, RuntimeFraction};
use dhow_stats::Store;

use super::bucket::Draw;
use super::config::Limit;
use crate::lots::lots;
use crate::route_config::route_configs;

dhow_stats::stat_group! {
    /// `<stat_prefix>.http_local_rate_limit.*`.
    pub(super) struct LimitStats {
        counters { enabled, enforced, ok, rate_limited, shadow_mode }
    }
}

/// The configured filter.
#[derive(Debug)]
pub(super) struct Factory {
    limit: Arc<Limit>,
    store: Store,
}

impl Factory {
    /// The filter of a configuration.
    pub(super) fn new(limit: Limit, store: &Store) -> Self {
        stats_of(&limit, store);
        Self { limit: Arc::new(limit), store: store.clone() }
    }
}

fn stats_of<'a>(limit: &'a Limit, store: &Store) -> &'a LimitStats {
    let name = || format!("{}.http_local_rate_limit", limit.stat_prefix);
    limit.stats.get_or_init(|| store.scope(&name()).group())
}

impl HttpFilterFactory for Factory {
    fn create(&self, levels: &[FilterOverride]) -> Option<Box<dyn HttpFilter>> {
        let limit = route_configs(levels).next().unwrap_or_else(|| self.limit.clone());
        // Without this field no request is looked at.
        limit.enabled.as_ref()?;
        let stats = stats_of(&limit, &self.store).clone();
        Some(Box::new(Filter { limit, stats, draw: None, refused: false }))
    }
}

/// The filter of one stream.
struct Filter {
    limit: Arc<Limit>,
    stats: LimitStats,
    draw: Option<Draw>,
    refused: bool,
}

impl HttpFilter for Filter {
    fn decode_headers(
        &mut self,
        request: &mut HeaderMap,
        _end_stream: bool,
        stream: &mut FilterStream<'_>,
    ) -> HeadersVerdict {
        let limit = &*self.limit;
        let mut lots = lots("local_ratelimit", stream);
        let (enabled_lot, enforced_lot) = (lots.next_u64(), lots.next_u64());
        let hits = |share: &Option<RuntimeFraction>, lot| {
            share.as_ref().is_some_and(|share| share.contains(lot, stream.runtime))
        };
        if !hits(&limit.enabled, enabled_lot) {
            return HeadersVerdict::Continue;
        }
        self.stats.enabled().inc();
        self.draw = limit.bucket.as_ref().map(|bucket| bucket.draw(limit.start.elapsed()));
        if self.draw.is_none_or(|draw| draw.taken) {
            self.stats.ok().inc();
            return HeadersVerdict::Continue;
        }
        self.stats.rate_limited().inc();
        if !hits(&limit.enforced, enforced_lot) {
            let context = StreamFormat::new(stream.info);
            limit.request_headers_when_not_enforced.apply_to_request(request, &context);
            return HeadersVerdict::Continue;
        }
        self.stats.enforced().inc();
        self.refused = true;
        let mut reply = LocalReply::new(limit.status, &b"local_rate_limited"[..], "local_rate_limited")
            .flag(ResponseFlag::RateLimited);
        reply.grpc_status = Some(if limit.resource_exhausted { RESOURCE_EXHAUSTED } else { UNAVAILABLE });
        HeadersVerdict::LocalReply(reply)
    }

    fn encode_headers(
        &mut self,
        request: &HeaderMap,
        response: &mut HeaderMap,
        _end_stream: bool,
        stream: &mut FilterStream<'_>,
    ) -> HeadersVerdict {
        let Some(draw) = &self.draw else { return HeadersVerdict::Continue };
        if self.refused {
            let context = StreamFormat { request: Some(request), ..StreamFormat::new(stream.info) };
            self.limit.response_headers.apply_to_response(response, &context);
            if self.limit.retry_after {
                set_number(response, "retry-after", draw.reset_seconds);
            }
        }
        if self.limit.tells_bucket {
            set_number(response, "x-ratelimit-limit", draw.limit.into());
            set_number(response, "x-ratelimit-remaining", draw.remaining.into());
            set_number(response, "x-ratelimit-reset", draw.reset_seconds);
        }
        HeadersVerdict::Continue
    }
}

/// gRPC's `RESOURCE_EXHAUSTED`.
const RESOURCE_EXHAUSTED: u8 = 8;
/// gRPC's `UNAVAILABLE`.
const UNAVAILABLE: u8 = 14;

fn set_number(headers: &mut HeaderMap, name: &str, number: u64) {
    headers.set(&HeaderName::new(name), format_decimal(number, &mut [0; 20]));
}
