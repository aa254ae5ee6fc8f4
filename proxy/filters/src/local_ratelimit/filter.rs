//! Refuses what is over the limit.

use std::sync::Arc;

use dhow_base::ResponseFlag;
use dhow_http::{HeaderMap, HeaderName, format_decimal};
use dhow_proto::envoy::extensions::common::ratelimit::v3::VhRateLimitsOptions;
use dhow_proxy_api::{
    FilterContext, FilterStream, HeadersVerdict, HttpFilter, HttpFilterFactory, LocalReply, StreamFormat,
};
use dhow_routing::{
    FilterOverride, RateLimitDescriptor, RateLimitInput, RateLimitRule, RuntimeFraction, XRateLimitHeaders,
};

use super::config::{Actions, Limit};
use super::limiter::{Bucket, Decision, Limiter};
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
    node_cluster: Arc<str>,
    /// The cluster whose hosts share the tokens, where they do.
    local_cluster: Arc<str>,
}

impl Factory {
    /// The filter of a configuration.
    pub(super) fn new(limit: Limit, context: &FilterContext<'_>) -> Self {
        Self {
            limit: Arc::new(limit),
            node_cluster: context.node_cluster.into(),
            local_cluster: context.local_cluster.into(),
        }
    }
}

impl HttpFilterFactory for Factory {
    fn create(&self, levels: &[FilterOverride]) -> Option<Box<dyn HttpFilter>> {
        let limit = route_configs(levels).next().unwrap_or_else(|| self.limit.clone());
        // Without this field no request is looked at.
        limit.enabled.as_ref()?;
        let (node_cluster, local_cluster) = (self.node_cluster.clone(), self.local_cluster.clone());
        Some(Box::new(Filter { limit, node_cluster, local_cluster, told: None, refused: false }))
    }
}

/// The filter of one stream.
struct Filter {
    limit: Arc<Limit>,
    node_cluster: Arc<str>,
    local_cluster: Arc<str>,
    /// The bucket that the response may tell about, and whether the descriptor has a say in it.
    told: Option<(Arc<Bucket>, XRateLimitHeaders)>,
    refused: bool,
}

/// The limiter of a connection.
struct OfConnection(Limiter);

impl Filter {
    fn take(&self, request: &HeaderMap, stream: &FilterStream<'_>) -> Decision {
        let mut descriptors = Vec::new();
        if let Some(actions) = &self.limit.actions {
            self.describe(actions, request, stream, &mut descriptors);
        }
        // Each of the hosts has a share of the tokens: one token here stands for one from each of them.
        let weight = match self.limit.shared {
            true => stream.clusters.membership(&self.local_cluster).map_or(1, |hosts| hosts.total.max(1)),
            false => 1,
        };
        match &self.limit.per_connection {
            None => self.limit.limiter.take(&descriptors, weight),
            Some(plan) => {
                let make = || OfConnection(Limiter::new(plan));
                stream.connection().objects.get_or_insert_with(make).0.take(&descriptors, weight)
            }
        }
    }

    /// The request's descriptors.
    fn describe(
        &self,
        actions: &Actions,
        request: &HeaderMap,
        stream: &FilterStream<'_>,
        descriptors: &mut Vec<(RateLimitDescriptor, XRateLimitHeaders)>,
    ) {
        let route = stream.route();
        let context = StreamFormat { request: Some(request), ..StreamFormat::new(stream.info) };
        let input = RateLimitInput {
            headers: request,
            context: &context,
            data: &context,
            source_cluster: &self.node_cluster,
            destination_cluster: route.and_then(|route| route.cluster(request)).unwrap_or_default(),
            route_metadata: route.and_then(|route| route.entry().metadata()),
            cluster_metadata: &|cluster| stream.clusters.metadata(cluster),
        };
        let mut add = |rules: &[RateLimitRule], stage: u32| {
            let of_stage = rules.iter().filter(|rule| rule.stage() == stage && rule.disable_key().is_empty());
            // How many hits a rule of a route stands for is not looked at.
            descriptors.extend(of_stage.filter_map(|rule| {
                let entries = rule.entries(&input)?;
                Some((RateLimitDescriptor { entries, ..RateLimitDescriptor::default() }, rule.headers()))
            }));
        };
        match actions {
            // A limit of this process is not counted when the stream is complete.
            Actions::Own(rules) => descriptors.extend(
                rules
                    .iter()
                    .filter(|rule| !rule.apply_on_stream_done())
                    .filter_map(|rule| Some((rule.descriptor(&input)?, rule.headers()))),
            ),
            Actions::OfRoute { stage, vh } => {
                let Some((route, action)) = route.and_then(|route| Some((route, route.forward()?))) else {
                    return;
                };
                add(&action.rate_limits, *stage);
                let with_host = action.include_virtual_host_rate_limits
                    || match vh {
                        VhRateLimitsOptions::Override => action.rate_limits.is_empty(),
                        VhRateLimitsOptions::Include => true,
                        VhRateLimitsOptions::Ignore => false,
                    };
                if with_host {
                    add(route.virtual_host().rate_limits(), *stage);
                }
            }
        }
    }
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
        self.limit.stats.enabled().inc();
        let Decision { allowed, shadow, bucket, headers } = self.take(request, stream);
        self.told = bucket.map(|bucket| (bucket, headers));
        if allowed {
            self.limit.stats.ok().inc();
            return HeadersVerdict::Continue;
        }
        self.limit.stats.rate_limited().inc();
        if shadow {
            self.limit.stats.shadow_mode().inc();
            return HeadersVerdict::Continue;
        }
        if !hits(&limit.enforced, enforced_lot) {
            let context = StreamFormat::new(stream.info);
            limit.request_headers_when_not_enforced.apply_to_request(request, &context);
            return HeadersVerdict::Continue;
        }
        self.limit.stats.enforced().inc();
        self.refused = true;
        let mut reply = LocalReply::new(limit.status, &b"local_rate_limited"[..], "local_rate_limited")
            .flag(ResponseFlag::RateLimited);
        reply.grpc_status = limit.resource_exhausted.then_some(RESOURCE_EXHAUSTED);
        if !limit.response_headers.is_empty() {
            // They see the details of the reply, and neither its status nor its flag.
            stream.info.details = Some(reply.details.clone());
            let context = StreamFormat { request: Some(request), ..StreamFormat::new(stream.info) };
            let mut headers = HeaderMap::new();
            limit.response_headers.apply_to_response(&mut headers, &context);
            reply.headers = headers
                .iter()
                .map(|(_, name, value)| (HeaderName::new(&String::from_utf8_lossy(name)), value.to_vec()))
                .collect();
        }
        HeadersVerdict::LocalReply(reply)
    }

    fn encode_headers(
        &mut self,
        _request: &HeaderMap,
        response: &mut HeaderMap,
        _end_stream: bool,
        _stream: &mut FilterStream<'_>,
    ) -> HeadersVerdict {
        let Some((bucket, headers)) = &self.told else { return HeadersVerdict::Continue };
        let tells = match headers {
            XRateLimitHeaders::Unspecified => self.limit.tells_bucket,
            XRateLimitHeaders::Off => false,
            XRateLimitHeaders::DraftVersion03 => true,
        };
        if !tells && !self.refused {
            return HeadersVerdict::Continue;
        }
        let level = bucket.level();
        if self.refused && self.limit.retry_after {
            set_number(response, "retry-after", level.reset_seconds);
        }
        // Of a bucket that holds nothing there is nothing to tell.
        if tells && level.limit > 0 {
            set_number(response, "x-ratelimit-limit", level.limit.into());
            set_number(response, "x-ratelimit-remaining", level.remaining.into());
            set_number(response, "x-ratelimit-reset", level.reset_seconds);
        }
        HeadersVerdict::Continue
    }

    fn renew(&mut self) -> bool {
        self.told = None;
        self.refused = false;
        true
    }
}

/// gRPC's `RESOURCE_EXHAUSTED`.
const RESOURCE_EXHAUSTED: u32 = 8;

fn set_number(headers: &mut HeaderMap, name: &str, number: u64) {
    headers.set(&HeaderName::new(name), format_decimal(number, &mut [0; 20]));
}
