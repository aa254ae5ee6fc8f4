//! Waits for the host.

use std::sync::Arc;

use dhow_base::ResponseFlag;
use dhow_http::{HeaderMap, KnownHeader};
use dhow_proxy_api::{
    FilterStream, HeadersVerdict, HostResolution, HttpFilter, HttpFilterFactory, LocalReply, Resumption,
};
use dhow_routing::FilterOverride;

use super::config::HostRewrite;
use crate::route_config::route_configs;

/// The configured filter.
#[derive(Debug)]
pub(super) struct Factory;

impl HttpFilterFactory for Factory {
    fn create(&self, levels: &[FilterOverride]) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(Filter { rewrite: route_configs(levels).next() }))
    }
}

/// The filter of one stream.
struct Filter {
    rewrite: Option<Arc<HostRewrite>>,
}

impl HttpFilter for Filter {
    fn decode_headers(
        &mut self,
        request: &mut HeaderMap,
        _end_stream: bool,
        stream: &mut FilterStream<'_>,
    ) -> HeadersVerdict {
        let Some(cluster) = stream.route().and_then(|route| route.cluster(request)) else {
            return HeadersVerdict::Continue;
        };
        let rewritten = match self.rewrite.as_deref() {
            Some(HostRewrite::Literal(host)) => Some(host.as_bytes().to_vec()),
            Some(HostRewrite::Header(name)) => request.get(name).map(<[u8]>::to_vec),
            Some(HostRewrite::None) | None => None,
        };
        let authority = String::from_utf8_lossy(rewritten.as_deref().unwrap_or(request.authority()));
        let resolution = stream.clusters.resolve_host(cluster, &authority);
        if let (Some(host), false) = (&rewritten, matches!(resolution, HostResolution::NotDynamic)) {
            request.set_known(KnownHeader::Authority, host);
        }
        match resolution {
            HostResolution::NotDynamic | HostResolution::Ready => HeadersVerdict::Continue,
            HostResolution::Failed(why) => HeadersVerdict::LocalReply(unresolved(&why)),
            HostResolution::Wait(answer) => HeadersVerdict::Wait(Box::pin(async move {
                match answer.await {
                    Ok(()) => Resumption::Continue,
                    Err(why) => Resumption::LocalReply(unresolved(&why)),
                }
            })),
            HostResolution::CacheFull => {
                HeadersVerdict::LocalReply(overflow("DNS cache overflow", "dns_cache_overflow"))
            }
            HostResolution::TooManyPending => HeadersVerdict::LocalReply(overflow(
                "Dynamic forward proxy pending request overflow",
                "dynamic_forward_proxy_pending_request_overflow",
            )),
        }
    }
}

fn overflow(body: &'static str, details: &'static str) -> LocalReply {
    LocalReply::new(503, body.as_bytes(), details)
}

fn unresolved(why: &str) -> LocalReply {
    let details = format!("dns_resolution_failure{{{}}}", why.replace(' ', "_"));
    LocalReply::new(503, &b"DNS resolution failure"[..], details).flag(ResponseFlag::DnsResolutionFailed)
}
