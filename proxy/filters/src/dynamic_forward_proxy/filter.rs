//! Waits for the host.

use std::net::SocketAddr;
use std::sync::Arc;

use dhow_base::ResponseFlag;
use dhow_http::{HeaderMap, KnownHeader};
use dhow_proxy_api::{
    FilterStateValue, FilterStream, HeadersVerdict, HostResolution, HttpFilter, HttpFilterFactory,
    LocalReply, Resumption,
};
use dhow_routing::FilterOverride;

use super::config::{HostRewrite, Settings};
use crate::route_config::route_configs;

/// The configured filter.
#[derive(Debug)]
pub(super) struct Factory(pub(super) Settings);

impl HttpFilterFactory for Factory {
    fn create(&self, levels: &[FilterOverride]) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(Filter { settings: self.0, rewrite: route_configs(levels).next(), asked: None }))
    }
}

/// The filter of one stream.
struct Filter {
    settings: Settings,
    rewrite: Option<Arc<HostRewrite>>,
    /// The host that is waited for, and its cluster.
    asked: Option<Asked>,
}

struct Asked {
    cluster: Box<str>,
    authority: Box<str>,
    port: Option<u16>,
}

/// The key under which the address of the host is left on the stream.
pub(crate) const UPSTREAM_ADDRESS: &str = "envoy.stream.upstream_address";

fn save_address(stream: &mut FilterStream<'_>, address: Option<SocketAddr>) {
    if let Some(address) = address {
        stream.info.filter_state.set(UPSTREAM_ADDRESS, FilterStateValue::HostAddress(address));
    }
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
        let state = &stream.info.filter_state;
        let port = state.dynamic_port();
        let authority = match state.dynamic_host().filter(|_| self.settings.host_of_filter_state) {
            Some(host) => host.into(),
            None => String::from_utf8_lossy(rewritten.as_deref().unwrap_or(request.authority())),
        };
        let resolution = stream.clusters.resolve_host(cluster, &authority, port);
        if self.settings.saves_address && matches!(resolution, HostResolution::Wait(_)) {
            self.asked =
                Some(Asked { cluster: cluster.into(), authority: authority.into_owned().into(), port });
        }
        if let (Some(host), false) = (&rewritten, matches!(resolution, HostResolution::NotDynamic)) {
            request.set_known(KnownHeader::Authority, host);
        }
        match resolution {
            HostResolution::NotDynamic => HeadersVerdict::Continue,
            HostResolution::Ready(address) => {
                if self.settings.saves_address {
                    save_address(stream, address);
                }
                HeadersVerdict::Continue
            }
            HostResolution::Failed(why) => HeadersVerdict::LocalReply(unresolved(&why)),
            HostResolution::Wait(answer) => HeadersVerdict::Wait(Box::pin(async move {
                match answer.await {
                    Ok(()) => Resumption::Continue,
                    Err(why) => Resumption::LocalReply(unresolved(&why)),
                }
            })),
            HostResolution::Unnamed => HeadersVerdict::LocalReply(LocalReply::new(
                400,
                &b"Empty host header"[..],
                "empty_host_header",
            )),
            HostResolution::ClusterWarms(there) => {
                let time = self.settings.init_timeout;
                HeadersVerdict::Wait(Box::pin(async move {
                    match tokio::time::timeout(time, there).await {
                        Ok(()) => Resumption::Continue,
                        Err(_) => Resumption::LocalReply(overflow(
                            "Sub cluster warming timeout",
                            "sub_cluster_warming_timeout",
                        )),
                    }
                }))
            }
            HostResolution::TooManyClusters => {
                HeadersVerdict::LocalReply(overflow("Sub cluster overflow", "sub_cluster_overflow"))
            }
            HostResolution::CacheFull => {
                HeadersVerdict::LocalReply(overflow("DNS cache overflow", "dns_cache_overflow"))
            }
            HostResolution::TooManyPending => HeadersVerdict::LocalReply(overflow(
                "Dynamic forward proxy pending request overflow",
                "dynamic_forward_proxy_pending_request_overflow",
            )),
        }
    }

    fn decode_resumed(&mut self, _request: &mut HeaderMap, stream: &mut FilterStream<'_>) {
        let Some(Asked { cluster, authority, port }) = self.asked.take() else { return };
        if let HostResolution::Ready(address) = stream.clusters.resolve_host(&cluster, &authority, port) {
            save_address(stream, address);
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
