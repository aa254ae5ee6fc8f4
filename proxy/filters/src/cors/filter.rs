//! Answers preflights and adds the headers.

use std::sync::Arc;

use dhow_http::{HeaderMap, KnownHeader};
use dhow_proxy_api::{FilterStream, HeadersVerdict, HttpFilter, HttpFilterFactory, LocalReply};
use dhow_routing::{FilterConfigObject, NoRuntime};

use super::config::Policy;

dhow_stats::stat_group! {
    /// `http.<stat_prefix>.cors.*`.
    pub(super) struct CorsStats {
        counters { origin_invalid, origin_valid }
    }
}

/// The configured filter.
#[derive(Debug)]
pub(super) struct Factory {
    pub(super) stats: CorsStats,
}

impl HttpFilterFactory for Factory {
    fn create(&self, route_config: Option<&FilterConfigObject>) -> Option<Box<dyn HttpFilter>> {
        let policy = route_config?.clone().downcast::<Policy>().ok()?;
        Some(Box::new(Filter { policy, stats: self.stats.clone(), origin: None }))
    }
}

/// The filter of one stream.
struct Filter {
    policy: Arc<Policy>,
    stats: CorsStats,
    /// The origin, once it is known to be an allowed one.
    origin: Option<Box<[u8]>>,
}

impl HttpFilter for Filter {
    fn decode_headers(
        &mut self,
        request: &mut HeaderMap,
        _end_stream: bool,
        stream: &mut FilterStream<'_>,
    ) -> HeadersVerdict {
        let policy = &self.policy;
        let enabled = policy.enabled.as_ref().is_none_or(|share| share.contains(stream.random, &NoRuntime));
        let shadow = policy.shadow.as_ref().is_some_and(|share| share.contains(stream.random, &NoRuntime));
        if !enabled && !shadow {
            return HeadersVerdict::Continue;
        }
        let origin = request.get_known(KnownHeader::Origin).filter(|origin| !origin.is_empty());
        let Some(origin) = origin else { return HeadersVerdict::Continue };
        if !policy.origins.iter().any(|allowed| allowed.matches(b"*") || allowed.matches(origin)) {
            self.stats.origin_invalid().inc();
            return HeadersVerdict::Continue;
        }
        self.stats.origin_valid().inc();
        if !enabled {
            return HeadersVerdict::Continue;
        }
        let is_preflight = is_preflight(request);
        let reply = is_preflight.then(|| preflight_reply(policy, origin, request));
        self.origin = Some(origin.into());
        reply.map_or(HeadersVerdict::Continue, HeadersVerdict::LocalReply)
    }

    fn encode_headers(
        &mut self,
        _request: &HeaderMap,
        response: &mut HeaderMap,
        _end_stream: bool,
        _stream: &mut FilterStream<'_>,
    ) {
        let Some(origin) = &self.origin else { return };
        response.set_known(KnownHeader::AccessControlAllowOrigin, origin);
        if self.policy.allow_credentials == Some(true) {
            response.set_known(KnownHeader::AccessControlAllowCredentials, b"true");
        }
        if !self.policy.expose_headers.is_empty() {
            response
                .set_known(KnownHeader::AccessControlExposeHeaders, self.policy.expose_headers.as_bytes());
        }
    }
}

fn is_preflight(request: &HeaderMap) -> bool {
    let asked = request.get_known(KnownHeader::AccessControlRequestMethod);
    request.method() == b"OPTIONS" && asked.is_some_and(|method| !method.is_empty())
}

fn preflight_reply(policy: &Policy, origin: &[u8], request: &HeaderMap) -> LocalReply {
    let mut reply =
        LocalReply::new(200, &b""[..], "cors_response").header(KnownHeader::AccessControlAllowOrigin, origin);
    if policy.allow_credentials == Some(true) {
        reply = reply.header(KnownHeader::AccessControlAllowCredentials, "true");
    }
    let texts = [
        (KnownHeader::AccessControlAllowMethods, &policy.allow_methods),
        (KnownHeader::AccessControlAllowHeaders, &policy.allow_headers),
        (KnownHeader::AccessControlMaxAge, &policy.max_age),
    ];
    for (name, text) in texts {
        if !text.is_empty() {
            reply = reply.header(name, text.as_bytes());
        }
    }
    let asks = request.get_str("access-control-request-private-network") == Some(b"true");
    if asks && policy.allow_private_network_access == Some(true) {
        reply = reply.header(KnownHeader::AccessControlAllowPrivateNetwork, "true");
    }
    reply
}
