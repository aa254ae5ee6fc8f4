//! Compares where a request comes from with where it goes.

use std::sync::Arc;

use dhow_http::{HeaderMap, KnownHeader};
use dhow_proxy_api::{FilterStream, HeadersVerdict, HttpFilter, HttpFilterFactory, LocalReply};
use dhow_routing::FilterOverride;

use super::config::Policy;
use crate::lots::lots;
use crate::route_config::route_configs;

dhow_stats::stat_group! {
    /// `http.<stat_prefix>.csrf.*`.
    pub(super) struct CsrfStats {
        counters { missing_source_origin, request_invalid, request_valid }
    }
}

/// The configured filter.
#[derive(Debug)]
pub(super) struct Factory {
    pub(super) policy: Arc<Policy>,
    pub(super) stats: CsrfStats,
}

impl HttpFilterFactory for Factory {
    fn create(&self, levels: &[FilterOverride]) -> Option<Box<dyn HttpFilter>> {
        let policy = route_configs(levels).next().unwrap_or_else(|| self.policy.clone());
        Some(Box::new(Filter { policy, stats: self.stats.clone() }))
    }
}

/// The filter of one stream.
struct Filter {
    policy: Arc<Policy>,
    stats: CsrfStats,
}

impl HttpFilter for Filter {
    fn decode_headers(
        &mut self,
        request: &mut HeaderMap,
        _end_stream: bool,
        stream: &mut FilterStream<'_>,
    ) -> HeadersVerdict {
        let mut lots = lots("csrf", stream);
        let (enabled_lot, shadow_lot) = (lots.next_u64(), lots.next_u64());
        let policy = &*self.policy;
        let enabled = policy.enabled.contains(enabled_lot, stream.runtime);
        let shadow =
            || policy.shadow.as_ref().is_some_and(|share| share.contains(shadow_lot, stream.runtime));
        let changes = matches!(request.method(), b"POST" | b"PUT" | b"DELETE" | b"PATCH");
        if !changes || !(enabled || shadow()) {
            return HeadersVerdict::Continue;
        }
        let source = source_origin(request);
        let same = source == host_and_port(request.authority());
        if source.is_empty() {
            self.stats.missing_source_origin().inc();
        } else if same || policy.additional_origins.iter().any(|one| one.matches(source)) {
            self.stats.request_valid().inc();
            return HeadersVerdict::Continue;
        } else {
            self.stats.request_invalid().inc();
        }
        if !enabled {
            return HeadersVerdict::Continue;
        }
        HeadersVerdict::LocalReply(LocalReply::new(403, &b"Invalid origin"[..], "csrf_origin_mismatch"))
    }
}

/// Host and port of the page that made the request; empty when nothing says so.
fn source_origin(request: &HeaderMap) -> &[u8] {
    match request.get_known(KnownHeader::Origin).unwrap_or_default() {
        b"" => request.get_str("referer").map(host_and_port).unwrap_or_default(),
        // A page without an origin of its own.
        b"null" => b"",
        origin => host_and_port(origin),
    }
}

/// Host and port of a URL; what is no URL is taken for them.
fn host_and_port(url: &[u8]) -> &[u8] {
    let Some(at) = url.windows(3).position(|part| part == b"://") else { return url };
    let rest = &url[at + 3..];
    if !url[0].is_ascii_alphabetic() || rest.contains(&b' ') {
        return url;
    }
    // A fragment does not end the host, which makes it none.
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let authority = &rest[..end];
    // Without a user's name and password.
    let host = authority.iter().rposition(|byte| *byte == b'@').map_or(0, |at| at + 1);
    &authority[host..]
}
