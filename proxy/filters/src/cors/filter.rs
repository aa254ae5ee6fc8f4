//! Answers preflights and adds the headers.

use std::sync::Arc;

use dhow_http::{HeaderMap, KnownHeader};
use dhow_proxy_api::{FilterStream, HeadersVerdict, HttpFilter, HttpFilterFactory, LocalReply};
use dhow_routing::{CORS_FIELD, FilterOverride};

use super::config::Policy;
use crate::lots::lots;
use crate::route_config::route_configs;

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
    fn create(&self, levels: &[FilterOverride]) -> Option<Box<dyn HttpFilter>> {
        let policies = Policies(route_configs(levels).collect());
        if policies.0.is_empty() {
            return None;
        }
        Some(Box::new(Filter { policies, stats: self.stats.clone(), origin: None }))
    }

    fn other_name(&self) -> Option<&'static str> {
        Some(CORS_FIELD)
    }
}

/// The policies of a route's levels, the most specific first: what one leaves empty, the next one says.
struct Policies(Box<[Arc<Policy>]>);

impl Policies {
    fn text(&self, of: impl Fn(&Policy) -> &str) -> &str {
        self.0.iter().map(|policy| of(policy)).find(|text| !text.is_empty()).unwrap_or_default()
    }

    fn flag(&self, of: impl Fn(&Policy) -> Option<bool>) -> Option<bool> {
        self.0.iter().find_map(|policy| of(policy))
    }

    fn allows_origin(&self, origin: &[u8]) -> bool {
        let origins = self.0.iter().map(|policy| &policy.origins).find(|origins| !origins.is_empty());
        // A matcher that takes `*` takes every origin, as in Envoy.
        origins.is_some_and(|origins| origins.iter().any(|one| one.matches(b"*") || one.matches(origin)))
    }

    fn allows_credentials(&self) -> bool {
        self.flag(|policy| policy.allow_credentials) == Some(true)
    }

    /// The answer to a preflight; without `origin` it allows nothing.
    fn preflight_reply(&self, origin: Option<&[u8]>, request: &HeaderMap) -> LocalReply {
        let mut reply = LocalReply::new(200, &b""[..], "cors_response").verbatim();
        if let Some(origin) = origin {
            reply = reply.header(KnownHeader::AccessControlAllowOrigin, origin);
        }
        if self.allows_credentials() {
            reply = reply.header(KnownHeader::AccessControlAllowCredentials, "true");
        }
        // Of a list that allows everything, what the request asks for is said, as not every client knows `*`.
        let asked = |name| request.get_known(name).unwrap_or_default();
        let lists = [
            (
                KnownHeader::AccessControlAllowMethods,
                self.text(|policy| &policy.allow_methods),
                KnownHeader::AccessControlRequestMethod,
            ),
            (
                KnownHeader::AccessControlAllowHeaders,
                self.text(|policy| &policy.allow_headers),
                KnownHeader::AccessControlRequestHeaders,
            ),
        ];
        for (name, text, request_name) in lists.into_iter().filter(|(_, text, _)| !text.is_empty()) {
            reply = reply.header(name, if text == "*" { asked(request_name) } else { text.as_bytes() });
        }
        let max_age = self.text(|policy| &policy.max_age);
        if !max_age.is_empty() {
            reply = reply.header(KnownHeader::AccessControlMaxAge, max_age);
        }
        let asks = request.get_str("access-control-request-private-network") == Some(b"true");
        if asks && self.flag(|policy| policy.allow_private_network_access) == Some(true) {
            reply = reply.header(KnownHeader::AccessControlAllowPrivateNetwork, "true");
        }
        reply
    }
}

/// The filter of one stream.
struct Filter {
    policies: Policies,
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
        // As in Envoy, only requests that are forwarded have a policy.
        let forwards = stream.route().is_some_and(|route| route.forward().is_some());
        let origin = request.get_known(KnownHeader::Origin).filter(|origin| !origin.is_empty());
        let (true, Some(origin), Some(first)) = (forwards, origin, self.policies.0.first()) else {
            return HeadersVerdict::Continue;
        };
        let mut lots = lots("cors", stream);
        let (enabled_lot, shadow_lot) = (lots.next_u64(), lots.next_u64());
        let enabled = first.enabled.as_ref().is_none_or(|share| share.contains(enabled_lot, stream.runtime));
        let shadow = first.shadow.as_ref().is_some_and(|share| share.contains(shadow_lot, stream.runtime));
        if !enabled && !shadow {
            return HeadersVerdict::Continue;
        }
        if !self.policies.allows_origin(origin) {
            self.stats.origin_invalid().inc();
            let forwards =
                self.policies.flag(|policy| policy.forward_not_matching_preflights).unwrap_or(true);
            if enabled && !forwards && is_preflight(request) {
                return HeadersVerdict::LocalReply(self.policies.preflight_reply(None, request));
            }
            return HeadersVerdict::Continue;
        }
        self.stats.origin_valid().inc();
        if !enabled {
            return HeadersVerdict::Continue;
        }
        self.origin = Some(origin.into());
        if is_preflight(request) {
            return HeadersVerdict::LocalReply(self.policies.preflight_reply(Some(origin), request));
        }
        HeadersVerdict::Continue
    }

    fn encode_headers(
        &mut self,
        _request: &HeaderMap,
        response: &mut HeaderMap,
        _end_stream: bool,
        _stream: &mut FilterStream<'_>,
    ) -> HeadersVerdict {
        let Some(origin) = &self.origin else { return HeadersVerdict::Continue };
        response.set_known(KnownHeader::AccessControlAllowOrigin, origin);
        if self.policies.allows_credentials() {
            response.set_known(KnownHeader::AccessControlAllowCredentials, b"true");
        }
        let expose = self.policies.text(|policy| &policy.expose_headers);
        if !expose.is_empty() {
            response.set_known(KnownHeader::AccessControlExposeHeaders, expose.as_bytes());
        }
        HeadersVerdict::Continue
    }
}

fn is_preflight(request: &HeaderMap) -> bool {
    let asked = request.get_known(KnownHeader::AccessControlRequestMethod);
    request.method() == b"OPTIONS" && asked.is_some_and(|method| !method.is_empty())
}
