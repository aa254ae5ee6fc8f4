//! Counters of a connection manager and its router, `http.<stat_prefix>.*`.

use std::cell::Cell;
use std::sync::OnceLock;

use dhow_http::{HeaderMap, KnownHeader};
use dhow_proxy_upstream::{Http1CodecStats, Http2CodecStats};
use dhow_stats::{ResponseCodeStats, Scope, Store, stat_group};

stat_group! {
    /// What a connection manager counts, by Envoy's names.
    pub struct ConnectionManagerStats {
        counters {
            downstream_cx_delayed_close_timeout, downstream_cx_destroy, downstream_cx_destroy_active_rq,
            downstream_cx_destroy_local, downstream_cx_destroy_local_active_rq, downstream_cx_destroy_remote,
            downstream_cx_destroy_remote_active_rq, downstream_cx_drain_close, downstream_cx_http1_total,
            downstream_cx_http2_total, downstream_cx_http3_total, downstream_cx_idle_timeout,
            downstream_cx_max_duration_reached, downstream_cx_max_requests_reached,
            downstream_cx_overload_disable_keepalive, downstream_cx_protocol_error, downstream_cx_rx_bytes_total,
            downstream_cx_ssl_total, downstream_cx_total, downstream_cx_tx_bytes_total, downstream_cx_upgrades_total,
            downstream_flow_control_paused_reading_total, downstream_flow_control_resumed_reading_total,
            downstream_rq_failed_path_normalization, downstream_rq_header_timeout, downstream_rq_http1_total,
            downstream_rq_http2_total, downstream_rq_http3_total, downstream_rq_idle_timeout,
            downstream_rq_max_duration_reached, downstream_rq_non_relative_path, downstream_rq_overload_close,
            downstream_rq_redirected_with_normalized_path, downstream_rq_rejected_via_ip_detection,
            downstream_rq_response_before_rq_complete, downstream_rq_rx_reset, downstream_rq_timeout,
            downstream_rq_too_large, downstream_rq_too_many_premature_resets, downstream_rq_total,
            downstream_rq_tx_reset, downstream_rq_ws_on_non_ws_route, rs_too_large,
        }
        gauges {
            downstream_cx_active, downstream_cx_http1_active, downstream_cx_http1_soft_drain,
            downstream_cx_http2_active, downstream_cx_http3_active, downstream_cx_rx_bytes_buffered,
            downstream_cx_ssl_active, downstream_cx_tx_bytes_buffered, downstream_cx_upgrades_active,
            downstream_rq_active,
        }
        histograms { downstream_cx_length_ms: Milliseconds, downstream_rq_time: Milliseconds }
    }
}

stat_group! {
    /// What a router counts, `http.<stat_prefix>.*` and, of the proxy's own requests, `http.async-client.*`.
    pub struct RouterStats {
        counters {
            no_cluster, no_route, rq_direct_response, rq_overload_local_reply, rq_redirect,
            rq_reset_after_downstream_response_started, rq_total,
        }
    }
}

stat_group! {
    /// What a router counts about redirects of upstreams that it passes through.
    pub struct RedirectStats {
        counters {
            passthrough_internal_redirect_bad_location, passthrough_internal_redirect_no_route,
            passthrough_internal_redirect_predicate, passthrough_internal_redirect_too_many_redirects,
            passthrough_internal_redirect_unsafe_scheme,
        }
    }
}

stat_group! {
    /// Why requests are traced or not, `http.<stat_prefix>.tracing.*`. Nothing is traced, so only health checks are counted.
    pub struct TracingStats {
        counters { client_enabled, health_check, not_traceable, random_sampling, service_forced }
    }
}

stat_group! {
    /// What is counted of one family of clients, `http.<stat_prefix>.user_agent.<family>.*`.
    pub struct ClientStats {
        counters { downstream_cx_destroy_remote_active_rq, downstream_cx_total, downstream_rq_total }
        histograms { downstream_cx_length_ms: Milliseconds }
    }
}

/// The family of clients that a connection belongs to, by the user agent of its first request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ClientFamily {
    /// No request came yet.
    #[default]
    Unseen,
    Other,
    Ios,
    Android,
}

impl ClientFamily {
    fn of(user_agent: &[u8]) -> Self {
        let contains = |part: &[u8]| user_agent.windows(part.len()).any(|window| window == part);
        if contains(b"iOS") {
            Self::Ios
        } else if contains(b"android") {
            Self::Android
        } else {
            Self::Other
        }
    }
}

/// All stats of one connection manager.
#[derive(Debug)]
pub(crate) struct HttpStats {
    /// `http.<stat_prefix>.*`.
    pub(crate) manager: ConnectionManagerStats,
    /// `http.<stat_prefix>.rq_total` and the like.
    pub(crate) router: RouterStats,
    /// `http.<stat_prefix>.passthrough_internal_redirect_*`.
    pub(crate) redirects: RedirectStats,
    /// `http.async-client.*`, shared by all connection managers.
    pub(crate) async_client: RouterStats,
    /// `http.<stat_prefix>.tracing.*`.
    pub(crate) tracing: TracingStats,
    /// These exist and stay what they are: `http.async-client.passthrough_*`.
    _unused: RedirectStats,
    /// `http.<stat_prefix>.downstream_rq_{1xx..5xx,completed}`.
    pub(crate) codes: ResponseCodeStats,
    /// `listener.<address>.http.<stat_prefix>.downstream_rq_{1xx..5xx,completed}`.
    pub(crate) listener_codes: ResponseCodeStats,
    ios: OnceLock<ClientStats>,
    android: OnceLock<ClientStats>,
    root: Scope,
    http1: OnceLock<Http1CodecStats>,
    http2: OnceLock<Http2CodecStats>,
}

impl HttpStats {
    /// The stats of a connection manager. One without a router has none of those that routers have: `routed` says where they are.
    pub(crate) fn new(store: &Store, listener_stat_prefix: &str, stat_prefix: &str, routed: &Store) -> Self {
        let scope = store.scope(&format!("http.{stat_prefix}."));
        // A router keeps the colons of a name that its connection manager counts without.
        let of_router = routed.scope_verbatim(&format!("http.{}", stat_prefix.trim_end_matches('.')));
        let of_client = routed.scope("http.async-client.");
        let listener = store.scope(&format!("listener.{listener_stat_prefix}.http.{stat_prefix}."));
        let stats = Self {
            manager: scope.group(),
            router: of_router.group(),
            redirects: of_router.group(),
            async_client: of_client.group(),
            tracing: routed.scope(&format!("http.{stat_prefix}.tracing.")).group(),
            _unused: of_client.group(),
            codes: scope.response_codes("downstream_rq"),
            listener_codes: listener.response_codes("downstream_rq"),
            ios: OnceLock::new(),
            android: OnceLock::new(),
            root: store.scope(""),
            http1: OnceLock::new(),
            http2: OnceLock::new(),
        };
        stats.codes.register_classes();
        stats.listener_codes.register_classes();
        stats
    }

    /// Counts an interim response that the client is sent.
    pub(crate) fn charge_interim(&self, status: u16) {
        self.codes.charge_class(status);
        self.listener_codes.charge_class(status);
    }

    /// Counts a request on a connection under the family of its client, which its first request tells.
    #[inline]
    pub(crate) fn count_client(&self, family: &Cell<ClientFamily>, head: &HeaderMap) {
        match family.get() {
            ClientFamily::Other => {}
            ClientFamily::Unseen => self.count_new_client(family, head),
            known => self.count_client_request(known),
        }
    }

    #[cold]
    fn count_new_client(&self, family: &Cell<ClientFamily>, head: &HeaderMap) {
        let agent = head.get_known(KnownHeader::UserAgent);
        family.set(agent.map_or(ClientFamily::Other, ClientFamily::of));
        if let Some(clients) = self.clients(family.get()) {
            clients.downstream_cx_total().inc();
            clients.downstream_rq_total().inc();
        }
    }

    #[cold]
    fn count_client_request(&self, family: ClientFamily) {
        if let Some(clients) = self.clients(family) {
            clients.downstream_rq_total().inc();
        }
    }

    /// Where a family of clients is counted, if it is.
    pub(crate) fn clients(&self, family: ClientFamily) -> Option<&ClientStats> {
        let (place, name) = match family {
            ClientFamily::Unseen | ClientFamily::Other => return None,
            ClientFamily::Ios => (&self.ios, "user_agent.ios."),
            ClientFamily::Android => (&self.android, "user_agent.android."),
        };
        Some(place.get_or_init(|| self.manager.scope().scope(name).group()))
    }

    /// Counts a stream that ended in a panic, `http.<stat_prefix>.dhow_stream_panic`: a name of our own, which exists once
    /// it happened.
    pub(crate) fn count_panic(&self) {
        self.manager.scope().counter("dhow_stream_panic").inc();
    }

    /// `http1.*`, from the first HTTP/1 connection on.
    pub(crate) fn http1(&self) -> &Http1CodecStats {
        self.http1.get_or_init(|| self.root.group())
    }

    /// `http2.*`, from the first HTTP/2 connection on.
    pub(crate) fn http2(&self) -> &Http2CodecStats {
        self.http2.get_or_init(|| self.root.group())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_told_by_parts_of_the_user_agent() {
        assert_eq!(ClientFamily::of(b"App/1 (android; iOS)"), ClientFamily::Ios);
        assert_eq!(ClientFamily::of(b"App/1 (android)"), ClientFamily::Android);
        for other in [&b""[..], b"Android", b"ios", b"i OS"] {
            assert_eq!(ClientFamily::of(other), ClientFamily::Other);
        }
    }
}
